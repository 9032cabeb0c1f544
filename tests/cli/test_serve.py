"""serve: the process that takes GitHub's alerts in, from a signed delivery to an incident, over real HTTP and HTTPS."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from rotation.clock import SystemClock
from tests.cli.project import CHAT, Project
from tests.incident.test_webhook import SECRET, GitHub, alert_over, payload, signature

TOKEN = "ghp_canary-of-a-token-0123456789"


class Serving:
    """`keyturn serve` as a process, and its log as it comes."""

    def __init__(self, project: Project, *options: str) -> None:
        self._process = project.start("serve", "--listen", "127.0.0.1:0", *options)
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.url = re.sub(r"/github$", "", self.until(r"listening on (\S+);")[1])

    def _listen(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def until(self, pattern: str) -> re.Match[str]:
        """Waits for a line of the log."""

        def found() -> re.Match[str] | None:
            return next((hit for line in self.lines if (hit := re.search(pattern, line))), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() or self._process.poll() is not None, timeout=60), self.log
            hit = found()
        assert hit, self.log
        return hit

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def deliver(self, number: int = 42, *, secret: str = SECRET, verify: Any = True) -> requests.Response:
        body = json.dumps(payload(number=number)).encode()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "secret_scanning_alert",
            "X-GitHub-Delivery": f"delivery-{number}",
            "X-Hub-Signature-256": signature(body, secret),
        }
        return requests.post(f"{self.url}/github", data=body, headers=headers, timeout=30, verify=verify)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end. Gives its exit code."""
        self._process.send_signal(number)
        code = self._process.wait(timeout=60)
        self._thread.join()
        self.close()
        return code

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self.close()

    def close(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()


@contextlib.contextmanager
def serving(project: Project, *options: str) -> Iterator[Serving]:
    found = Serving(project, *options)
    try:
        yield found
    finally:
        found.kill()


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub.serving() as found:
        yield found


def declare(project: Project, github: GitHub, **changes: Any) -> None:
    """One secret, and the webhook."""
    webhook = {"secret": {"env": "HOOK_SECRET"}, "token": {"env": "GITHUB_TOKEN"}, "api": github.url, **changes}
    project.environ |= {"HOOK_SECRET": SECRET, "GITHUB_TOKEN": TOKEN}
    project.declare(project.secret(CHAT), webhook=webhook)


def incidents(project: Project) -> list[dict[str, Any]]:
    folder = project.root / ".keyturn" / "incidents"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_a_signed_alert_becomes_a_plan_that_a_person_carries_out(project: Project, github: GitHub) -> None:
    """Nothing is changed by it; the record's id is all that the person needs."""
    declare(project, github)
    project.apply()
    leaked = project.value(CHAT)
    github.body = alert_over(leaked)
    with serving(project) as served:
        assert served.deliver(secret="wrong").status_code == 401
        assert served.deliver().status_code == 202
        served.until(rf"planned for {CHAT}; nothing was changed")
        assert served.deliver().status_code == 200, "taken in before"
        assert served.stop() == 0
        assert leaked not in served.log
        assert TOKEN not in served.log
        assert SECRET not in served.log
    (incident,) = incidents(project)
    assert incident["ran_by"] == ["keyturn serve"]
    assert [one["standing"] for one in incident["leaks"]] == ["current"]
    assert project.value(CHAT) == leaked
    ran = project.run("emergency", "--resume", incident["id"], "--yes")
    assert ran.code == 0
    assert list(project.keys().values()) == [False, True]
    kept = "".join(path.read_text() for path in (project.root / ".keyturn").rglob("*") if path.is_file())
    assert leaked not in kept
    assert TOKEN not in kept


def test_with_act_the_leaked_key_dies_by_itself(project: Project, github: GitHub) -> None:
    """Replaced, revoked and shown dead, each step in the audit trail under the incident's id."""
    declare(project, github, act=True)
    project.apply()
    leaked = project.value(CHAT)
    github.body = alert_over(leaked)
    with serving(project) as served:
        assert served.deliver().status_code == 202
        served.until("carried out for")
        assert served.stop() == 0
    (incident,) = incidents(project)
    assert (incident["over"], incident["alive"]) == (True, [])
    assert project.value(CHAT) != leaked
    assert list(project.keys().values()) == [False, True]
    proven = [record for record in project.audit() if record["event"] == "proven"]
    assert [record["incident"] for record in proven] == [incident["id"]]


def test_a_key_that_nobody_manages_is_told_of(project: Project, github: GitHub) -> None:
    """It is the issuer's, and of no secret: no incident, and nothing is revoked."""
    declare(project, github, act=True)
    project.apply()
    key_id, value = project.own_key()
    github.body = alert_over(value)
    with serving(project) as served:
        served.deliver()
        served.until("has leaked that is of no secret")
        assert served.stop() == 0
        assert value not in served.log
    assert incidents(project) == []
    assert project.keys()[key_id] is True


def test_what_was_taken_in_survives_a_kill(project: Project, github: GitHub) -> None:
    """The value is gone with the process; the next one asks GitHub for it again."""
    declare(project, github)
    project.apply()
    github.status = 500
    with serving(project) as served:
        assert served.deliver().status_code == 202
        served.until("it is tried again in")
    github.status, github.body = 200, alert_over(project.value(CHAT))
    with serving(project) as served:
        served.until(rf"planned for {CHAT}")
        assert served.deliver().status_code == 200
    assert len(incidents(project)) == 1


def test_an_incident_that_was_cut_off_goes_on_at_the_next_start(project: Project, github: GitHub) -> None:
    """SIGTERM while the issuer still accepts what was revoked: the same incident is shown dead by the next process."""
    declare(project, github, act=True)
    project.apply()
    leaked = project.value(CHAT)
    github.body = alert_over(leaked)
    project.services.openai.control.configure(revoke_delay=3600)
    with serving(project, "--stop-within", "5s") as served:
        assert served.deliver().status_code == 202
        until = SystemClock().monotonic() + 60
        while not [one for one in project.audit() if one["event"] == "revoke.done"]:
            assert SystemClock().monotonic() < until, served.log
            threading.Event().wait(0.05)
        assert served.stop() == 0
    assert list(project.keys().values()) == [True, True], "it is accepted for an hour"
    project.services.time.move(timedelta(hours=1))
    with serving(project) as served:
        served.until("carried out for")
    (incident,) = incidents(project)
    assert (incident["over"], incident["alive"]) == (True, [])
    assert list(project.keys().values()) == [False, True]


def test_probes_and_the_end(project: Project, github: GitHub) -> None:
    """Both good while it works; Ctrl-C ends it as SIGTERM does."""
    declare(project, github)
    with serving(project) as served:
        for probe in ("healthz", "readyz"):
            assert requests.get(f"{served.url}/{probe}", timeout=30).text == "takes alerts in\n"
        assert served.stop(signal.SIGINT) == 0
        assert "stopped; what was taken in is taken up when it starts again" in served.log


def test_a_second_process_is_refused(project: Project, github: GitHub) -> None:
    """They would write over each other's memory."""
    declare(project, github)
    with serving(project):
        second = project.execute("serve", "--listen", "127.0.0.1:0")
        assert second.code == 1
        assert "another process takes deliveries in" in second.err


def test_https_anywhere_and_http_on_this_machine_alone(project: Project, github: GitHub, tmp_path: Path) -> None:
    """Unless it is said that a proxy has HTTPS."""
    declare(project, github)
    refused = project.execute("serve", "--listen", "0.0.0.0:0")
    assert refused.code == 2
    assert "give --tls-cert and --tls-key, or --behind-proxy" in refused.err
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with serving(project, "--tls-cert", str(cert), "--tls-key", str(key)) as served:
        assert served.url.startswith("https://")
        assert served.deliver(verify=str(ca)).status_code == 202
    with serving(project, "--behind-proxy") as served:
        assert served.url.startswith("http://")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--listen", "nowhere"), "is not HOST:PORT, as in 127.0.0.1:9465"),
        (("--tls-cert", "cert.pem"), "--tls-cert and --tls-key go together"),
        (("--tls-cert", "none.pem", "--tls-key", "none.pem"), "No such file or directory"),
        (
            ("--tls-cert", "Pulumi.sandbox.yaml", "--tls-key", "Pulumi.sandbox.yaml"),
            "are not a certificate and its key",
        ),
        (("--stop-within", "soon"), "is not a duration"),
    ],
)
def test_what_can_not_be_meant_starts_nothing(
    project: Project, github: GitHub, options: tuple[str, ...], told: str
) -> None:
    """Exit code 2, with what is allowed."""
    declare(project, github)
    ran = project.run("serve", *options)
    assert (ran.code, told in ran.err) == (2, True), ran.err


def test_an_address_that_is_taken(project: Project, github: GitHub) -> None:
    """Told as such, and the memory is free again."""
    declare(project, github)
    with socket.create_server(("127.0.0.1", 0)) as held:
        ran = project.run("serve", "--listen", f"127.0.0.1:{held.getsockname()[1]}")
    assert ran.code == 2
    assert "Address already in use" in ran.err
    with serving(project):
        pass


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_secret_nobody_is_let_in(project: Project, github: GitHub, text: str | None) -> None:
    """An empty one would sign anything."""
    declare(project, github)
    del project.environ["HOOK_SECRET"]
    if text is not None:
        project.environ["HOOK_SECRET"] = text
    ran = project.run("serve", "--listen", "127.0.0.1:0")
    assert ran.code == 2
    assert "HOOK_SECRET is not set, or is empty" in ran.err


def test_a_stack_without_a_webhook_says_how_to_have_one(project: Project) -> None:
    """Exit code 2."""
    ran = project.run("serve")
    assert ran.code == 2
    assert "declares no webhook; allowed: webhook: {secret: REFERENCE, token: REFERENCE}" in ran.err


def test_a_memory_of_something_else_is_left_alone(project: Project, github: GitHub) -> None:
    """Starting without it would take everything in once more: a person decides."""
    declare(project, github)
    memory = project.root / "memory.json"
    memory.write_text("[]")
    ran = project.run("serve", "--memory", str(memory))
    assert ran.code == 1
    assert "move it away" in ran.err
    assert memory.read_text() == "[]"
