"""SecretSet: two paired secrets that share what they must and differ where they may; applied, changed and destroyed as one."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from providers.pulumi.rotated_secret import policy_of
from providers.pulumi.secret_set import Member, SecretSet, policies
from rotation.model import Consumer, Drain, Ending, Policy, Schedule
from rotation.policy import read_window
from tests.pulumi.project import Project, Services

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
CHAT, BATCH = "support-copilot-chat", "support-copilot-batch"
SHARED: dict[str, Any] = {
    "installation": "acme",
    "environment": "prod",
    "store": "aws",
    "replicas": ("vault",),
    "issuer": "openai",
    "owner": "support-platform",
    "rotate_every": 30 * DAY,
    "schedule": Schedule(windows=(read_window("Mon-Thu 09:00-16:00"),), zone="Europe/Berlin"),
    "tags": (("team", "support"),),
}
OWN: dict[str, Any] = {
    "consumers": (Consumer("support-batch", 20 * HOUR),),
    "store": "vault",
    "replicas": (),
    "issuer": "generated",
    "owner": "data-platform",
    "grace": 48 * HOUR,
    "contain_after": timedelta(minutes=9),
    "form": "json TOKEN=value",
    "tags": (("team", "data"),),
    "allowed_cidrs": ("198.51.100.0/24",),
    "allowed_vpces": ("vpce-0123456789abcdef0",),
    "smoke_test": True,
}
DRAIN: dict[str, Any] = {"quiet_for": 6 * HOUR, "at_most": 9 * DAY, "then": Ending.REVOKE}


def two(**changes: Any) -> tuple[Policy, Policy]:
    return policies(
        "support-copilot", **{**SHARED, "user_facing": Member("chat"), "background": Member("batch"), **changes}
    )


def test_the_two_are_paired_both_ways_on_one_schedule() -> None:
    """Names by the scheme; one owner, one set of stores; nothing but name and pair differs where nothing is said."""
    chat, batch = two()
    assert (chat.name, batch.name) == (CHAT, BATCH)
    assert (chat.paired_with, batch.paired_with) == (BATCH, CHAT)
    differ = {field.name for field in fields(Policy) if getattr(chat, field.name) != getattr(batch, field.name)}
    assert differ == {"name", "paired_with"}
    assert (chat.stores, chat.owner, chat.tags) == (("aws", "vault"), "support-platform", (("team", "support"),))
    assert chat.schedule.windows == SHARED["schedule"].windows


def test_a_member_says_for_itself_what_it_may() -> None:
    """Each field of a member reaches its policy, and the other's stays as the set says."""
    chat, batch = two(background=Member("batch", **OWN, **DRAIN))
    assert {name: getattr(batch, name) for name in OWN} == OWN
    assert batch.drain == Drain(**DRAIN)
    assert (chat, two()[1].drain) == (two()[0], Drain())
    told = {field.name for field in fields(Member)} - {"purpose", "adopt", "adopt_key_id", "force_revoke"}
    assert told == OWN.keys() | DRAIN.keys()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"user_facing": Member("Chat")}, "support-copilot-Chat: must be <service>-<purpose>"),
        ({"background": Member("batch-pending")}, "support-copilot-batch-pending: must not contain"),
        ({"background": Member("chat")}, "support-copilot-chat is the name of both members"),
        ({"rotate_every": 2 * DAY, "schedule": Schedule()}, f"{CHAT}: grace: 1d is too long for two that are paired"),
        (
            {"background": Member("batch", grace=20 * DAY, at_most=30 * DAY)},
            f"{BATCH}: grace: 20d is too long for two that are paired",
        ),
        ({"schedule": Schedule(windows=(read_window("Sun 02:00-05:00"),)), "rotate_every": 9 * DAY}, "schedule.window"),
    ],
)
def test_what_can_not_take_turns_or_be_called_so_is_refused(changes: dict[str, Any], told: str) -> None:
    """In one sentence that names the member: a resource alone can not see its pair."""
    with pytest.raises(ValueError, match=r"allowed|must|needs") as raised:
        two(**changes)
    assert told in str(raised.value)


class Registered(mocks.Mocks):
    """Remembers what is registered, and gives each resource an id."""

    def __init__(self) -> None:
        self.resources: dict[str, mocks.MockResourceArgs] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources[args.name] = args
        entry = f"{args.inputs['environment']}/{args.name}" if "environment" in args.inputs else ""
        return f"{args.inputs['store']}:{entry}" if entry else None, {**args.inputs, "entry": entry}

    def call(self, _args: mocks.MockCallArgs) -> Any:
        raise AssertionError("nothing is to be looked up")


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """The SDK takes the loop of the thread, which whoever had one before has taken away with it."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    for left in {own, asyncio.get_event_loop_policy().get_event_loop()}:
        left.close()
    asyncio.set_event_loop(None)


def test_the_graph_is_one_component_with_two_secrets() -> None:
    """In prod protected; its one output of its own is ids; no input of the component stands in the state."""
    seen = Registered()
    mocks.set_mocks(seen, project="keyturn", stack="prod")
    made: list[SecretSet] = []
    got: dict[str, Any] = {}

    def program() -> None:
        one = SecretSet(
            "support-copilot",
            **SHARED,
            user_facing=Member("chat"),
            background=Member("batch", adopt=True),
            bootstrap="function",
        )
        made.append(one)
        one.entries.apply(got.update)

    pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]
    assert set(seen.resources) >= {"support-copilot", CHAT, BATCH}
    assert seen.resources["support-copilot"].typ == "keyturn:index:SecretSet"
    assert seen.resources["support-copilot"].inputs == {}
    chat, batch = (dict(seen.resources[name].inputs) for name in (CHAT, BATCH))
    assert (chat["adopt"], batch["adopt"], chat["bootstrap"]) == (False, True, "function")
    assert (policy_of(chat), policy_of(batch)) == two()
    assert got == {CHAT: f"aws:prod/{CHAT}", BATCH: f"aws:prod/{BATCH}"}
    assert made[0].user_facing._protect is True


def test_the_example_in_the_docs_runs() -> None:
    """As it stands in docs/pulumi.md."""
    page = (Path(__file__).parents[2] / "docs" / "pulumi.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    seen = Registered()
    mocks.set_mocks(seen, project="keyturn", stack="prod")
    pulumi.runtime.test(lambda: exec(example, {}))()  # type: ignore[no-untyped-call]  # noqa: S102 - our own page
    assert {CHAT, BATCH} <= set(seen.resources)
    assert seen.resources[BATCH].inputs["drainQuietFor"] == "6h"


# --- applied, by the in-process monitor --------------------------------------------------------------

PROGRAM = """
from datetime import timedelta
import json, os
import pulumi
from providers.pulumi.secret_set import Member, SecretSet
config = pulumi.Config("keyturn")
keys = SecretSet(
    "support-copilot",
    installation=config.require("installation"),
    environment=config.require("environment"),
    store="vault",
    replicas=("mirror",),
    issuer="openai",
    owner="team",
    rotate_every=timedelta(days=int(os.environ.get("DAYS", "30"))),
    user_facing=Member("chat"),
    background=Member("batch", issuer="generated", replicas=()),
    bootstrap="apply",
)
pulumi.export("entries", keys.entries)
"""


@pytest.fixture
def project(services: Services, tmp_path: Path) -> Project:
    made = Project(tmp_path, services, None, f"t{uuid.uuid4().hex[:12]}")
    made.declare(secrets=[])
    (tmp_path / "__main__.py").write_text(PROGRAM)
    return made


def test_a_set_lives_and_goes_as_one(project: Project) -> None:
    """Preview without effect, up, no change, a change in place for both, refresh, destroy; nothing of it is a value."""
    assert project.run("preview").changes == {"create": 4}
    assert project.vault() == {}
    assert project.run("up").changes == {"create": 4}
    assert project.run("up").changes == {"unchanged": 4}
    state = json.loads(project.state())["resources"]
    (component,) = (one for one in state if one["type"] == "keyturn:index:SecretSet")
    assert {one["parent"] for one in state if one["name"] in (CHAT, BATCH)} == {component["urn"]}
    entries = {name: f"vault:sandbox/{name}" for name in (CHAT, BATCH)}
    assert component["outputs"] == {"entries": entries}
    values = project.values()
    changed = project.run("up", DAYS="40")
    assert changed.changes == {"update": 2, "unchanged": 2}
    assert changed.text.count("30d → 40d") == 4, "in the plan and in the doing, for both"
    assert project.run("refresh", DAYS="40").changes == {"unchanged": 4}
    assert project.search(values | project.values()) == []
    project.run("destroy", succeeds=False)
    left = {one["name"] for one in json.loads(project.state())["resources"]}
    assert left == {"keyturn-sandbox", "support-copilot", CHAT}, "a component stays while one of its own does"
    assert project.run("destroy", KEYTURN_FORCE_REVOKE=CHAT).changes == {"delete": 3}
    assert json.loads(project.state())["resources"] == []
