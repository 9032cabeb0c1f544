"""What is confirmed: order, costs, who is hit, and what Keyturn can not do by itself."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.incident.plan import QUOTAS, Leak, exposure
from rotation.incident.selection import Selection
from rotation.model import Model
from tests.incident.site import AWS, VAULT, Site, consumer, issuer, policy

ALL = Selection(everything=True)


def leak(standing: str = "current", *, public: bool | None = None) -> Leak:
    return Leak("gitleaks", "rule", "a.py:1", standing, "by its fingerprint", public=public)


def test_the_most_exposed_comes_first(tmp_path: Path) -> None:
    """Public before private, leaked before suspected, current before previous, more consumers, older."""
    names = ("old", "young", "read", "private", "previous", "public", "public-previous")
    policies = [policy(f"x-{n}", consumers=(consumer("api"),) if n == "read" else ()) for n in names]
    s = Site(policies, tmp_path)
    s.clock.move(timedelta(days=1))
    s.process().engine.rotate(s.target("x-young"))
    leaks = {
        s.target("x-private"): [leak()],
        s.target("x-previous"): [leak("previous")],
        s.target("x-public"): [leak(public=True)],
        s.target("x-public-previous"): [leak("previous", public=True)],
    }
    plan = s.plan(ALL, leaks=leaks)
    order = [step.name.removeprefix("x-") for step in plan.steps]
    assert order == ["public", "public-previous", "private", "previous", "read", "old", "young"]
    assert sorted(plan.steps, key=exposure) == list(plan.steps)


@pytest.mark.parametrize("replicas", [(), ("one",), ("one", "two")], ids=len)
@pytest.mark.parametrize("draining", [False, True])
def test_the_calls_are_those_that_are_made(tmp_path: Path, replicas: tuple[str, ...], draining: bool) -> None:
    """Held to what an undisturbed run makes at each service, the thaw at its end included."""
    s = Site([policy("chat-api", replicas=replicas)], tmp_path, dict.fromkeys(("vault", *replicas), VAULT))
    if draining:
        s.process().engine.rotate(s.target("chat-api"))
    plan = s.plan(ALL)
    incident = s.begin(ALL)
    s.calls.clear()
    s.run(incident)
    assert incident.over
    made: Counter[str] = Counter()
    for (service, _), number in s.calls.items():
        made[service] += number
    assert {service: load.calls for service, load in plan.loads.items()} == dict(made)


def test_quotas_bound_the_expected_time(tmp_path: Path) -> None:
    """Secrets Manager takes 50 writes of a kind a second: a hundred secrets need their time, whatever runs side by side."""
    policies = [policy(f"chat-{n:03}", store="aws") for n in range(100)]
    s = Site(policies, tmp_path, {"aws": AWS})
    plan = s.plan(ALL)
    facts = plan.loads["aws"].facts
    assert plan.quotas == {"aws": QUOTAS["aws-secrets-manager"]}
    assert plan.expected >= timedelta(seconds=facts / 50)
    assert s.plan(Selection(names=("chat-001",))).expected < plan.expected


def test_a_stack_file_that_takes_less_of_a_service_takes_longer(tmp_path: Path) -> None:
    """The plan says what bounds it, whether the service does or the file."""
    policies = [policy(f"chat-{n:03}", store="aws") for n in range(100)]
    s = Site(policies, tmp_path, {"aws": AWS.model_copy(update={"calls_per_second": 5.0})})
    plan = s.plan(ALL)
    assert plan.expected >= timedelta(seconds=plan.loads["aws"].calls / 5)
    assert plan.quotas["aws"].source.endswith("; callsPerSecond: 5")


def test_who_is_hit_stands_in_the_plan(tmp_path: Path) -> None:
    """Consumers with their time, owners, when it is contained; as applied, not as the file may say by now."""
    one = policy("chat-api", consumers=(consumer("api", 15), consumer("edge", 5)), contain_after=timedelta(minutes=20))
    s = Site([one, policy("billing-api", owner="money")], tmp_path)
    plan = s.plan(ALL)
    (step,) = [step for step in plan.steps if step.name == "chat-api"]
    assert [(c.name, c.refresh_within) for c in step.consumers] == [
        ("api", timedelta(minutes=15)),
        ("edge", timedelta(minutes=5)),
    ]
    assert step.contain_after == timedelta(minutes=20)
    assert set(plan.owners) == {"team", "money"}
    assert s.plan(ALL, contain_after=timedelta(minutes=1)).steps[0].contain_after == timedelta(minutes=1)
    assert s.plan(ALL, contain_first=True).steps[0].contain_after == timedelta(0)


def test_a_manual_issuer_is_said_to_need_a_person(tmp_path: Path) -> None:
    """Who, and what exactly, before anything is done."""
    s = Site([policy("chat-api")], tmp_path, models={"openai": Model.MANUAL})
    (step,) = s.plan(ALL).steps
    assert step.person is not None
    assert step.person.startswith("team creates a credential at openai and brings it by `keyturn submit chat-api`")


@pytest.mark.parametrize(
    ("admin", "told"),
    [
        ({"env": "OPENAI_ADMIN_KEY"}, "puts the new one where OPENAI_ADMIN_KEY comes from"),
        ({"store": "vault", "name": "shared/openai"}, "writes the new one to the entry shared/openai in vault"),
        ({"store": "vault", "name": "test/openai-admin"}, None),
    ],
)
def test_an_administrative_credential_is_ours_to_replace_or_a_persons(
    tmp_path: Path, admin: dict[str, str], told: str | None
) -> None:
    """Its own entry comes first where Keyturn manages it; otherwise the plan says who has to do what first."""
    policies = [policy("openai-admin", issuer="admins"), policy("chat-api")]
    s = Site(policies, tmp_path, issuers={"openai": issuer(admin), "admins": issuer({"env": "ROOT_KEY"})})
    plan = s.plan(Selection(admins=("openai",)))
    assert [(step.name, step.wave) for step in plan.steps][-1] == ("chat-api", 1)
    if told is None:
        assert plan.admin is None
        assert (plan.steps[0].name, plan.steps[0].wave) == ("openai-admin", 0)
    else:
        assert plan.admin is not None
        assert told in plan.admin
        assert len(plan.steps) == 1
