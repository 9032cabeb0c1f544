"""Values stay in: everything that real commands leave behind is searched for every secret that they have had in hand.

Real rotations, an emergency and many failures run over a real vault and the issuer's stand-in, through relays that hear
each secret that passes and can answer with all of them. What is searched: both outputs, JSON, audit trail, log at DEBUG,
tracebacks and the objects in them, files, and /proc while a command runs. State of Pulumi: tests/pulumi/test_lifecycle.py.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, quote_plus

import pytest

from sandbox.loopback import Answer, Asked
from sandbox.openbao import KEYTURN_POLICY
from tests.cli.project import CHAT, HOOK, Project, Services, services
from tests.cli.relay import Relay, echo

PLANTED = "canary-planted-by-hand-0123456789"
FORMED = "support-copilot-json"


# --- the search ------------------------------------------------------------------------------------


def guises(value: str) -> Iterator[str]:
    """A value as it is, and as encodings of logs, URLs and headers have it."""
    raw = value.encode()
    yield value
    yield json.dumps(value)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="")
    yield quote_plus(value)
    yield raw.hex()
    for shift in range(3):  # wherever it begins within the groups of three that base64 encodes
        yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4].decode()


def leaks(places: Mapping[str, str], secrets: set[str]) -> list[str]:
    """Where any of these secrets can be read, whole or its first or last 16 characters."""
    wanted = {guise for secret in secrets for guise in guises(secret)}
    wanted |= {part for secret in secrets if len(secret) >= 32 for part in (secret[:24], secret[-16:])}
    return [place for place, text in places.items() if any(guise in text for guise in wanted)]


def files(*folders: Path) -> dict[str, str]:
    """Every file below, by path; what is not text as the characters of its bytes."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes().decode("utf-8", "surrogateescape") for path in found}


def processes(pid: int) -> dict[str, str]:
    """Command line of a process, and command lines and environments of all that it has started, by /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with_parent = _read(path).rpartition(")")[2].split()
        if with_parent:
            parents[int(path.parent.name)] = int(with_parent[1])
    family, waiting = [pid], [pid]
    while waiting:
        parent = waiting.pop()
        children = [child for child, of in parents.items() if of == parent]
        family += children
        waiting += children
    seen = {f"arguments of {member}": _read(Path(f"/proc/{member}/cmdline")) for member in family}
    return seen | {f"environment of {member}": _read(Path(f"/proc/{member}/environ")) for member in family[1:]}


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""  # it has ended


# --- the stage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as found:
        yield found


@dataclass
class Stage:
    """A project whose traffic goes through relays, with everything that its commands have left behind."""

    project: Project
    vault: Relay
    openai: Relay
    temporary: Path
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        project = self.project
        for store in ("vault", "mirror"):
            project.change(f"stores.{store}.address", self.vault.url)
        project.change("issuers.openai.baseUrl", f"{self.openai.url}/v1")
        role, secret = project.services.bao.approle(KEYTURN_POLICY)
        project.environ |= {
            "KEYTURN_VAULT_ROLE_ID": role,
            "KEYTURN_VAULT_SECRET_ID": secret,
            "KEYTURN_LOG_LEVEL": "DEBUG",
            "TMPDIR": str(self.temporary),
        }

    def run(self, *arguments: str) -> int:
        """One command in this process; what it shows and what it dies of are kept for the search."""
        number = len(self.places)
        try:
            ran = self.project.run(*arguments)
        except Exception as crash:  # noqa: BLE001 - what a crash shows is what is asked here
            self.places[f"{number} {arguments} crash"] = "".join(traceback.format_exception(crash))
            self.places[f"{number} {arguments} objects"] = "\n".join(objects(crash.__traceback__))
            return -1
        self.places[f"{number} {arguments} out"] = ran.out
        self.places[f"{number} {arguments} err"] = ran.err
        return ran.code

    def secrets(self) -> set[str]:
        """All that was planted, issued, stored or used to log in."""
        project, bao = self.project, self.project.services.bao
        stored = {
            value
            for entry in project.everything().values()
            for version in entry["data"].values()
            for name, value in (version.get("data") or {}).items()
            if name != "keyturn"
        }
        used = {project.services.openai.admin_key, bao.root_token, project.environ["KEYTURN_VAULT_SECRET_ID"]}
        return {secret for secret in stored | used | self.vault.heard | self.openai.heard if len(secret) >= 8}

    def leaks(self) -> list[str]:
        left = files(self.project.root, self.temporary)
        assert any(path.endswith(".jsonl") for path in left), "there is no audit trail to search"
        return leaks(self.places | left, self.secrets())


def objects(trace: TracebackType | None) -> Iterator[str]:
    """What debuggers and error trackers show of a crash: every variable of our own types, in each frame."""
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            if type(value).__module__.split(".")[0] in ("rotation", "providers"):
                yield f"{trace.tb_frame.f_code.co_qualname if sys.version_info >= (3, 11) else ''} {name}={value!r}"
        trace = trace.tb_next


@pytest.fixture
def stage(tmp_path: Path, shared: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Two keys of OpenAI, one of them in a JSON form, and a generated password, each with a replica."""
    (tmp_path / "project").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    project = Project(tmp_path / "project", shared)
    twice = {"replicas": ["mirror"]}
    formed = project.secret(FORMED, format={"json": {"key": "value"}}, **twice)
    project.declare(project.secret(CHAT, **twice), project.secret(HOOK, **twice), formed)
    with ExitStack() as stack:
        bao, openai = shared.bao, shared.openai
        vault = stack.enter_context(Relay(bao.address, str(bao.ca)))
        issuer = stack.enter_context(Relay(openai.base_url.removesuffix("/v1")))
        made = Stage(project, vault, issuer, tmp_path / "temporary")
        project.apply()
        yield made
    shared.openai.control.reset()


# --- the search can fail ---------------------------------------------------------------------------


def test_the_search_finds_a_planted_leak_in_every_guise(stage: Stage) -> None:
    """One value of the vault in one file, in one encoding; without it the same search finds nothing."""
    assert stage.run("rotate", HOOK) == 0
    assert stage.leaks() == []
    planted = stage.temporary / "keyturn-1234"
    for guise in guises(stage.project.value(HOOK)):
        planted.write_text(f'{{"at": "now", "said": "{guise}"}}')
        assert stage.leaks() == [str(planted)]


def test_the_search_finds_what_a_child_was_given(stage: Stage) -> None:
    """In its arguments, and in its environment."""
    secret = stage.project.value(CHAT)
    program = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen([*program, secret], stdin=subprocess.PIPE) as told,
        subprocess.Popen(program, stdin=subprocess.PIPE, env={"TOKEN": secret}) as given,
    ):
        found = leaks(processes(os.getpid()), stage.secrets())
        for child in (told, given):
            child.communicate(b"\n")
    assert found == [f"arguments of {told.pid}", f"environment of {given.pid}"]


def test_the_search_knows_every_secret_there_was(stage: Stage) -> None:
    """Keys that never reached a vault, values that were replaced, the vault's own tokens, and what a person typed."""
    project = stage.project
    first = project.value(CHAT)
    project.services.openai.control.fault("POST", "/v1/organization/projects/*/service_accounts", when="after")
    stage.run("rotate", CHAT, "--take-over")
    project.overwrite(HOOK, PLANTED)
    stage.run("rotate", CHAT, "--take-over")
    known = stage.secrets()
    assert {first, project.value(CHAT), PLANTED, project.environ["OPENAI_ADMIN_KEY"]} <= known
    assert project.environ["KEYTURN_VAULT_SECRET_ID"] in known
    assert sum(secret.startswith("sk-svcacct-") for secret in known) >= 3
    assert any(secret.startswith("s.") for secret in known), "no token of the vault was heard"


# --- what commands leave behind --------------------------------------------------------------------


def test_a_secrets_whole_life_shows_no_value(stage: Stage) -> None:
    """First credential, rotations, rollback, drain, emergency, submit, adopt and release, in words and in JSON."""
    project = stage.project
    for command in (
        ("status",),
        ("plan",),
        ("verify",),
        ("doctor",),
        ("rotate", CHAT, HOOK, FORMED),
        ("rollback", CHAT),
        ("sweep",),
    ):
        assert stage.run(*command) == 0
    project.services.time.move(timedelta(days=31))
    for command in (("plan",), ("sweep",), ("status",), ("verify",), ("doctor",)):
        assert stage.run(*command, "--json") == 0
    assert stage.run("emergency", CHAT, FORMED, "--yes") == 0
    assert stage.run("emergency", HOOK, "--yes", "--contain-first", "--json") == 0
    reading, writing = os.pipe()
    key_id, value = project.own_key()
    os.write(writing, value.encode())
    os.close(writing)
    assert stage.run("submit", CHAT, "--key-id", key_id, "--fd", str(reading)) == 0
    assert stage.run("release", HOOK) == 0
    assert stage.run("adopt", HOOK, "--json") == 0
    assert stage.leaks() == []


def echoing(status: int, method: str | None = None) -> Callable[[Asked], Answer | None]:
    """Answers every request, or those of one method, with what it was sent."""
    return lambda asked: echo(asked, status) if method in (None, asked.method) else None


def test_an_issuer_that_answers_with_what_it_was_sent_is_not_quoted(stage: Stage) -> None:
    """Admin key and shown keys, in the body, the code, the request id and headers of every kind of error."""
    for status in (400, 401, 403, 404, 409, 429, 500, 302):
        stage.openai.instead = echoing(status)
        for command in (("verify", CHAT), ("rotate", CHAT), ("plan", "--json")):
            stage.run(*command)
    stage.project.services.time.move(timedelta(days=31))
    stage.run("sweep")
    assert stage.leaks() == []


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_vault_that_answers_with_what_it_was_sent_is_not_quoted(stage: Stage, method: str) -> None:
    """Its token, the secret id of a login, and the values that were to be stored, whatever kind of error it is."""
    for status in (400, 403, 404, 429, 500, 302):
        stage.vault.instead = echoing(status, method)
        for command in (("status",), ("rotate", CHAT, "--json"), ("rotate", HOOK)):
            stage.run(*command)
    stage.run("sweep")
    stage.run("release", HOOK)
    assert stage.leaks() == []


def test_a_mint_that_can_not_be_stored_is_not_shown(stage: Stage) -> None:
    """The value lives in memory only, while the vault refuses it: permission denied, with the value in the answer."""
    posts = "/v1/secret/data/"
    stage.vault.instead = lambda asked: echo(asked, 403) if asked.method == "POST" and posts in asked.path else None
    assert stage.run("rotate", CHAT) == 1
    assert stage.run("rotate", HOOK) == 1
    stage.vault.instead = lambda _: None
    assert stage.run("rotate", CHAT, HOOK, "--take-over") == 0
    assert stage.leaks() == []


def test_conflicts_forms_and_foreign_values_show_no_value(stage: Stage) -> None:
    """Somebody writes in between, or writes what is not of the declared form; checks of a value never repeat it."""
    project = stage.project
    meddled = threading.Event()

    def meddle(asked: Asked) -> Answer | None:
        if asked.path.endswith(f"/a/sandbox/{CHAT}") and asked.method == "POST" and not meddled.is_set():
            meddled.set()
            project.overwrite(CHAT, PLANTED)
        return None

    stage.vault.instead = meddle
    stage.run("rotate", CHAT)
    assert meddled.is_set()
    stage.vault.instead = lambda _: None
    project.overwrite(HOOK, PLANTED, "b")
    project.vault("POST", f"data/{project.installation}/a/{project.entry(FORMED)}", {"data": {"other": PLANTED}})
    for command in ("status", "plan", "verify", "sweep", "status"):
        stage.run(command)
        stage.run(command, "--json") if command != "sweep" else None
    stage.run("rotate", CHAT, HOOK, FORMED)
    stage.run("adopt", CHAT)
    assert stage.leaks() == []


# --- crashes ---------------------------------------------------------------------------------------


def unreadable(asked: Asked, relay: Relay) -> Answer | None:
    """A vault's answer that lacks a part which every vault sends: ours then dies of a KeyError with values in hand."""
    if asked.method != "GET" or "/v1/secret/data/" not in asked.path:
        return None
    relay.instead = lambda _: None
    whole = json.loads(relay.passed_on(asked).body)
    relay.instead = lambda again: unreadable(again, relay)
    if "data" in whole and whole["data"].get("metadata"):
        del whole["data"]["metadata"]["version"]
    return Answer(200, json.dumps(whole).encode(), {"Content-Type": "application/json"})


def test_a_crash_with_values_in_hand_shows_none(stage: Stage) -> None:
    """Neither its traceback nor any object of ours that a debugger or an error tracker would print with it."""
    stage.vault.instead = lambda asked: unreadable(asked, stage.vault)
    assert stage.run("verify") == -1
    assert stage.run("rotate", CHAT) == -1
    assert any("KeyError" in text for text in stage.places.values())
    assert sum(place.endswith("objects") and bool(text) for place, text in stage.places.items()) == 2
    stage.vault.instead = lambda _: None
    assert stage.run("rotate", CHAT) == 0
    assert stage.leaks() == []


def test_a_crashing_process_shows_none(stage: Stage) -> None:
    """What Python itself prints last."""
    stage.vault.instead = lambda asked: unreadable(asked, stage.vault)
    ran = stage.project.execute("rotate", CHAT)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert leaks({"out": ran.out, "err": ran.err} | files(stage.project.root, stage.temporary), stage.secrets()) == []


# --- while a command runs --------------------------------------------------------------------------


def test_nobody_can_watch_a_value_go_by(stage: Stage) -> None:
    """At every request of a rotation: arguments, children and files are free of values, and its environment is as given."""
    project = stage.project
    seen: dict[str, str] = {}
    started = threading.Event()
    running: list[subprocess.Popen[str]] = []

    def watch(asked: Asked) -> Answer | None:
        assert started.wait(30)
        (process,) = running
        environment = dict(
            line.split("=", 1) for line in _read(Path(f"/proc/{process.pid}/environ")).split("\0") if "=" in line
        )
        assert environment == project.environ
        family = processes(process.pid)
        assert len(family) == 1, "commands start no other programs"
        now = family | files(stage.temporary, project.root)
        seen.update({f"{len(seen)} {place} at {asked.method} {asked.path}": text for place, text in now.items()})
        return None

    stage.vault.instead = stage.openai.instead = watch
    project.environ["KEYTURN_SANDBOX_SLEEP"] = "skip"
    with project.start("rotate", CHAT, HOOK, FORMED) as process:
        running.append(process)
        started.set()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    asked = {place.partition(" at ")[2] for place in seen}
    assert any("service_accounts" in request for request in asked)
    assert any("-pending" in request for request in asked)
    assert leaks(seen | {"out": out, "err": err}, stage.secrets()) == []
