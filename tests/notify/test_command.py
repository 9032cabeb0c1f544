"""Owners hear of what commands do: `keyturn notify`, and every sweep and rotation, over a real vault and real channels."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from rotation import sweep
from tests.cli.project import CHAT, HOOK, Project
from tests.notify.places import Endpoint, endpoint
from tests.test_hygiene import leaks

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise loads it

TOKEN = "canary-of-a-channel-0123456789"
SIGNS = "canary-of-a-signing-secret-0123456789"
REFERENCE = {"env": "OPS_URL"}


@pytest.fixture
def there() -> Iterator[Endpoint]:
    with endpoint() as found:
        yield found


def declare(project: Project, there: Endpoint, *notify: object, **parts: Any) -> None:
    project.environ["OPS_URL"] = f"json://127.0.0.1:{there.port}/{TOKEN}"
    channels = {"ops": {"apprise": REFERENCE}}
    project.declare(**{"channels": channels, "owners": {"support-platform": {"notify": [*notify]}}} | parts)


def titles(there: Endpoint) -> list[str]:
    return [asked.json["title"] for asked in there.asked if asked.path == f"/{TOKEN}"]


# --- keyturn notify --------------------------------------------------------------------------------


def test_channels_are_listed_by_where_their_address_stands(project: Project, there: Endpoint) -> None:
    """Never the address itself."""
    arn = "arn:aws:sns:eu-west-1:123456789012:keyturn"
    channels = {
        "ops": {"apprise": REFERENCE},
        "mail": {"apprise": {"file": "mail.url"}},
        "page": {"apprise": {"store": "vault", "name": "shared/page"}},
        "topic": {"sns": {"arn": arn}},
    }
    declare(project, there, "ops", {"channel": "topic", "from": "info", "on": ["done"]}, channels=channels)
    ran = project.run("notify", "list")
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "ops: apprise, its URL in the environment variable OPS_URL",
            "mail: apprise, its URL in the file mail.url",
            "page: apprise, its URL in the entry shared/page in vault",
            f"topic: sns, {arn}",
            "support-platform is told through ops: failed, hold, incident, usage, from warning on; topic: done, from info on",
        ],
    )
    assert project.run("notify", "list", "--json").json["owners"] == [
        {
            "name": "support-platform",
            "notify": [
                {"channel": "ops", "from": "warning", "on": ["failed", "hold", "incident", "usage"]},
                {"channel": "topic", "from": "info", "on": ["done"]},
            ],
        }
    ]


def test_a_test_says_for_each_channel_what_came_of_it(project: Project, there: Endpoint) -> None:
    """Exit code 1 when one did not take it; what is wrong is said without any address."""
    project.vault("POST", f"data/{project.installation}/a/shared/page", {"data": {"value": f"json://{TOKEN}:x"}})
    channels = {
        "ops": {"apprise": REFERENCE},
        "lost": {"apprise": {"env": "LOST_URL"}},
        "page": {"apprise": {"store": "vault", "name": "shared/page"}},
        "gone": {"apprise": {"store": "vault", "name": "shared/gone"}},
    }
    declare(project, there, "ops", channels=channels)
    ran = project.run("notify", "test")
    assert ran.code == 1
    assert ran.out == "✓ ops: took it\n"
    assert ran.err.splitlines() == [
        "✗ lost: its URL is missing: the environment variable LOST_URL is not there, or is empty",
        "✗ page: what its reference gives is no URL that Apprise knows",
        "✗ gone: its URL can not be read from the entry shared/gone in vault: not-found",
    ]
    (asked,) = there.asked
    assert asked.json["title"] == "sandbox: a test of the channel ops"
    assert TOKEN not in ran.text
    assert project.run("notify", "test", "--owner", "support-platform").code == 0
    ran = project.run("notify", "test", "--channel", "lost", "--json")
    assert (ran.code, ran.json[0]["channel"], ran.json[0]["told"]) == (1, "lost", False)


def test_a_test_of_what_is_not_declared_is_a_fault_of_usage(project: Project, there: Endpoint) -> None:
    """And where nobody is told anything, that is said."""
    declare(project, there, "ops")
    ran = project.run("notify", "test", "--owner", "support")
    assert (ran.code, ran.err.strip()) == (2, "--owner: there is no owner support; allowed: support-platform")
    ran = project.run("notify", "test", "--channel", "op")
    assert (ran.code, ran.err.strip()) == (2, "--channel: there is no channel op; allowed: ops")
    declare(project, there, channels={})
    ran = project.run("notify", "test")
    assert ran.code == 1
    assert "declares no channels: nobody is told anything." in ran.err


# --- what commands tell ----------------------------------------------------------------------------


def test_a_rotation_is_told_before_after_and_when_it_fails_and_no_value_is(project: Project, there: Endpoint) -> None:
    """Once each, though every sweep is a process of its own; a consumer is called when every store has the new value."""
    everything = {"channel": "ops", "on": ["before", "done", "failed", "hold"]}
    webhook = {"url": f"{there.url}/hook", "secret": {"env": "HOOK_SECRET"}}
    project.environ["HOOK_SECRET"] = SIGNS
    consumers = [{"name": "support-api", "onRotate": {"webhook": webhook}}]
    secrets = [project.secret(CHAT, replicas=["mirror"], consumers=consumers), project.secret(HOOK)]
    words = {"rotation.failed": {"subject": "$secret is stuck at $service"}}
    declare(project, there, everything, secrets=secrets, notices=words)
    project.apply()
    first = {name: project.value(name) for name in (CHAT, HOOK)}
    outputs = {"first": project.run("sweep").text}
    assert titles(there) == []

    project.services.time.move(timedelta(days=28))
    outputs["before"] = project.run("sweep").text + project.run("sweep").text
    assert sorted(title.partition(": ")[0] for title in titles(there)) == [f"sandbox/{CHAT}", f"sandbox/{HOOK}"]
    assert all("rotates from" in title for title in titles(there))
    there.asked.clear()

    # The issuer's own credential is refused: a person has to act.
    project.services.time.move(timedelta(days=2))
    failing = project.run("sweep", OPENAI_ADMIN_KEY="sk-admin-canary-that-is-refused-0123456789")
    again = project.run("sweep", OPENAI_ADMIN_KEY="sk-admin-canary-that-is-refused-0123456789")
    outputs |= {"failing": failing.text, "again": again.text}
    assert failing.code == again.code == 1
    done, stuck = sorted(titles(there))
    assert (done.startswith(f"sandbox/{HOOK}: rotated; "), stuck) == (True, f"{CHAT} is stuck at openai")
    there.asked.clear()

    project.services.time.move(timedelta(hours=1))
    outputs["mended"] = project.run("sweep").text
    outputs["quiet"] = project.run("sweep").text
    (hook,) = [asked for asked in there.asked if asked.path == "/hook"]
    done, resolved = sorted(titles(there))
    assert done.startswith(f"sandbox/{CHAT}: rotated; svc_acct_")
    assert resolved == f"sandbox/{CHAT}: works again"
    assert hook.json["secret"] == CHAT
    assert hook.json["stores"] == ["vault", "mirror"]
    assert hook.json["keyId"] in done

    # Nothing that was told or kept, or printed, has a value in it.
    kept = project.root / ".keyturn" / "notices.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    values = {*first.values(), project.value(CHAT), project.value(HOOK), project.services.openai.admin_key, SIGNS}
    places = {f"request {n}": f"{asked.path} {asked.headers} {asked.body!r}" for n, asked in enumerate(there.asked)}
    assert leaks(places | outputs | {"notices.json": kept.read_text()}, values) == []
    assert leaks(outputs | {"notices.json": kept.read_text()}, {TOKEN}) == []


def test_a_channel_that_is_down_changes_nothing_but_what_is_said(project: Project, there: Endpoint) -> None:
    """The rotation is done, its exit code 0; who was not told of what stands on standard error."""
    declare(project, there, {"channel": "ops", "on": ["done"]})
    project.apply(HOOK)
    there.status, there.body = 403, TOKEN
    ran = project.run("rotate", HOOK)
    assert ran.code == 0
    (line,) = [line for line in ran.err.splitlines() if line.startswith("channel ops")]
    assert line.startswith(f"channel ops was not told 'sandbox/{HOOK}: rotated; ")
    assert "it answered 403. The work is done all the same" in line
    assert TOKEN not in ran.text


def test_a_consumer_that_could_not_be_called_is_called_by_the_next_sweep(project: Project, there: Endpoint) -> None:
    """Whatever process that is, and once."""
    webhook = {"url": f"{there.url}/hook", "secret": {"env": "HOOK_SECRET"}}
    consumers = [{"name": "support-api", "onRotate": {"webhook": webhook}}]
    declare(project, there, secrets=[project.secret(HOOK, consumers=consumers)], channels={})
    project.apply()
    ran = project.run("rotate", HOOK)
    assert ran.code == 0
    assert f"consumer support-api was not made to read sandbox/{HOOK}: the secret of its webhook is missing" in ran.err
    project.environ["HOOK_SECRET"] = SIGNS
    assert [project.run("sweep").code for _ in range(3)] == [0, 0, 0]
    (asked,) = there.asked
    assert asked.json["secret"] == HOOK
    told = json.loads((project.root / ".keyturn" / "notices.json").read_text())["read"]
    assert [entry["sure"] for entry in told.values()] == [True]


def test_a_function_tells_before_it_is_frozen_and_remembers_while_it_is_warm(project: Project, there: Endpoint) -> None:
    """No file: another process tells the same again."""
    declare(project, there, {"channel": "ops", "on": ["before"]}, secrets=[project.secret(HOOK)])
    project.apply()
    project.services.time.move(timedelta(days=28))
    warm = project.assembly()
    assert sweep.sweep(warm) is sweep.Ended.DONE
    assert len(titles(there)) == 1
    sweep.sweep(warm)
    assert len(titles(there)) == 1
    sweep.sweep(project.assembly())
    assert len(titles(there)) == 2
    assert not (project.root / ".keyturn" / "notices.json").exists()


def test_an_emergency_is_told_as_it_goes_and_has_consumers_read_at_once(project: Project, there: Endpoint) -> None:
    """Without being asked for; the ordinary words for a rotation are left to ordinary rotations."""
    webhook = {"url": f"{there.url}/hook", "secret": {"env": "HOOK_SECRET"}}
    project.environ["HOOK_SECRET"] = SIGNS
    consumers = [{"name": "support-api", "onRotate": {"webhook": webhook}}]
    declare(project, there, "ops", secrets=[project.secret(CHAT, consumers=consumers)])
    project.apply()
    leaked = project.value(CHAT)
    ran = project.run("emergency", CHAT, "--yes")
    assert ran.code == 0, ran.text
    bodies = [asked.json for asked in there.asked if asked.path == f"/{TOKEN}"]
    assert [body["title"].partition(": ")[2] for body in bodies] == [
        f"{CHAT} replaced now",
        f"{CHAT} is replaced",
        f"over for {CHAT}",
    ]
    (hook,) = [asked.json for asked in there.asked if asked.path == "/hook"]
    assert [hook["keyId"].rpartition("/")[2]] == project.alive()
    assert leaks({"told": str(there.asked), "printed": ran.text}, {leaked, project.value(CHAT), SIGNS}) == []
