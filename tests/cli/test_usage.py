"""`keyturn status --usage`, and sweeps that watch: how keys are used, asked once of each issuer; and what is told of it."""

from __future__ import annotations

import threading
import warnings
from datetime import timedelta
from typing import Any

import pytest
import requests

from rotation.daemon import Daemon
from rotation.observe.board import SUSPECT, Board
from tests.cli.project import BATCH, CHAT, HOOK, Project
from tests.notify.places import endpoint

HOUR = timedelta(hours=1)
USAGE = "/v1/organization/usage/completions"


def chat(project: Project, value: str, times: int = 1) -> None:
    """Requests of a consumer."""
    for _ in range(times):
        answer = requests.post(
            f"{project.services.openai.base_url}/chat/completions",
            json={"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]},
            headers={"Authorization": f"Bearer {value}"},
            timeout=10,
        )
        assert answer.ok


def asked(project: Project) -> list[str]:
    return [
        request["path"]
        for request in project.services.openai.control.requests()
        if request["path"].startswith("/v1/org")
    ]


def usage(project: Project, name: str) -> dict[str, Any]:
    ran = project.run("status", "--usage", "--json")
    told: dict[str, Any] = next(row for row in ran.json if row["name"] == name)["usage"]
    return told


@pytest.fixture
def applied(project: Project) -> Project:
    project.declare(project.secret(CHAT), project.secret(BATCH), project.secret(HOOK))
    project.apply()
    return project


class TestStatus:
    def test_last_use_and_requests_of_every_key(self, applied: Project) -> None:
        """For people and for scripts; of what is not told, that it is not."""
        chat(applied, applied.value(CHAT), 3)
        told = usage(applied, CHAT)
        (key,) = told["keys"]
        assert (key["is"], key["requests"], told["counts"], told["span_seconds"]) == (
            "current",
            3,
            "model requests",
            3600,
        )
        assert key["last_use"][:4].isdecimal()
        (idle,) = usage(applied, BATCH)["keys"]
        assert idle["requests"] == 0
        assert idle["last_use"] != "never", "the issuer was shown it when it was verified"
        shown = applied.run("status", "--usage")
        assert shown.code == 0
        assert "3 in the last 1h, 3 in 1d, 3 in 7d (model requests)" in shown.text
        assert usage(applied, HOOK)["keys"][0]["last_use"] == "unknown"
        assert "Not told of many keys at once: generated" in shown.text

    def test_each_issuer_is_asked_once(self, applied: Project) -> None:
        """Its list and its counts, however many keys; and nothing where nobody wants to know."""
        before = len(asked(applied))
        assert applied.run("status").code == 0
        assert len(asked(applied)) == before
        assert applied.run("status", "--usage").code == 0
        now = asked(applied)[before:]
        assert sorted(now) == sorted([USAGE, f"/v1/organization/projects/{applied.openai_project}/api_keys"])

    def test_an_issuer_that_does_not_answer(self, applied: Project) -> None:
        """The status is shown all the same, and that nothing is known of use is said: not that there was none."""
        applied.services.openai.control.fault("GET", USAGE, times=20, status=403)
        ran = applied.run("status", "--usage", "--json")
        applied.services.openai.control.clear_faults()
        told = next(row for row in ran.json if row["name"] == CHAT)["usage"]
        assert told["error"]
        assert told["keys"][0]["last_use"] == "unknown"
        assert told["keys"][0]["requests"] is None

    def test_an_old_key_in_use_after_its_grace(self, applied: Project) -> None:
        """In its grace period it may be used; after it somebody has not read the new one."""
        old = applied.value(CHAT)
        assert applied.run("rotate", CHAT).code == 0
        chat(applied, old)
        assert [key["is"] for key in usage(applied, CHAT)["keys"]] == ["in its grace period", "current"]
        assert not usage(applied, CHAT)["warnings"]
        applied.services.time.move(timedelta(days=2))
        chat(applied, old)
        (warned,) = usage(applied, CHAT)["warnings"]
        assert (warned["why"], warned["severity"]) == ("retired", "warning")
        shown = applied.run("status", "--usage")
        assert (shown.code, "past its grace period" in shown.err) == (0, True)

    def test_a_key_that_was_shown_dead_and_is_accepted(self, applied: Project) -> None:
        """The journal has forgotten it, the trail has not; that is a credential that should be dead and is not."""
        applied.run("rotate", CHAT)
        applied.services.time.move(timedelta(days=3))
        assert applied.run("sweep").code == 0
        (proof,) = [line for line in applied.audit() if line["event"] == "proven" and line.get("key_id")]
        assert not usage(applied, CHAT)["warnings"]
        applied.services.time.move(2 * HOUR)
        state = applied.services.openai._state
        key = next(key for key in state.all_keys() if key.id == proof["key_id"].rpartition("/")[2])
        state.count_completion(key, "gpt-4.1-mini", input_tokens=1, output_tokens=1)
        ran = applied.run("status", "--usage")
        assert ran.code == 3
        assert "shown dead: it is accepted" in ran.err


@pytest.fixture(scope="module")
def _apprise() -> None:
    """Loads what Apprise loads at its first use, which takes longer than a command waits on a busy machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import apprise

        assert apprise.Apprise().add("json://127.0.0.1:1/")


def watch(project: Project) -> None:
    project.change("issuers.openai.watchUsage", True)


class TestSweeps:
    def test_nobody_is_asked_who_is_not_watched(self, applied: Project) -> None:
        """A sweep costs what it did."""
        before = len(asked(applied))
        assert applied.run("sweep").code == 0
        assert USAGE not in asked(applied)[before:]
        watch(applied)
        assert applied.run("sweep").code == 0
        assert asked(applied)[before:].count(USAGE) == 1

    @pytest.mark.usefixtures("_apprise")
    def test_a_jump_is_told(self, applied: Project) -> None:
        """By the sweep, by its metrics, and to the owner: once a day, however many sweeps."""
        watch(applied)
        applied.change("channels", {"box": {"apprise": {"env": "BOX"}}})
        applied.change("owners.support-platform.notify", ["box"])
        value = applied.value(CHAT)
        for _ in range(13):
            chat(applied, value, 2)
            applied.services.time.move(HOUR)
        with endpoint() as box:
            told = {"BOX": f"json://127.0.0.1:{box.port}/", "KEYTURN_NOTICES_FILE": str(applied.root / "notices.json")}
            assert "model requests" not in applied.run("sweep", **told).text
            assert 'secret="support-copilot-chat",store="vault",why="jump"} 0' in sorted_labels(applied, **told)
            chat(applied, value, 101)
            for _ in range(2):
                ran = applied.run("sweep", **told)
                assert ran.code == 0
                assert "has 101 model requests" in ran.text
                applied.services.time.move(timedelta(minutes=5))
            assert 'secret="support-copilot-chat",store="vault",why="jump"} 1' in sorted_labels(applied, **told)
        (asked,) = box.asked
        assert "is used far more than before" in asked.json["title"]
        assert "101 model requests" in asked.json["message"]
        assert value not in str(asked.json)

    def test_a_daemon_asks_once_in_a_while(self, applied: Project) -> None:
        """Its sweeps come every few minutes, and counts change by the hour."""
        watch(applied)
        board, time = Board(), applied.services.time
        daemon = Daemon(applied.assembly(), board, threading.Event(), timedelta(minutes=5), lambda: 0.0)
        before = len(asked(applied))
        for _ in range(3):
            daemon.turn()
            time.move(timedelta(minutes=4))
        assert asked(applied)[before:].count(USAGE) == 1
        time.move(timedelta(minutes=4))
        daemon.turn()
        assert asked(applied)[before:].count(USAGE) == 2
        told = {labels["why"]: value for gauge, labels, value in board.read(time.now()) if gauge is SUSPECT}
        assert told == {"retired": 0, "jump": 0}


def sorted_labels(project: Project, **env: str) -> str:
    """The metrics, with the labels of each line in the order of their names."""
    lines = []
    for line in project.run("metrics", **env).out.splitlines():
        name, brace, rest = line.partition("{")
        labels, _, value = rest.partition("}")
        lines.append(f"{name}{brace}{','.join(sorted(labels.split(',')))}}}{value}" if brace else line)
    return "\n".join(lines)
