"""Where a fleet works: a real OpenBao, the issuer's stand-in, a real broker, and workers that are processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import requests
import yaml

from rotation import by_celery, crew, fleet
from rotation.assembly import Assembly, assemble
from rotation.audit import FileAuditor
from rotation.config import load
from rotation.model import Entry, Policy
from rotation.provision import Provisioner
from sandbox.clock import SandboxClock
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer
from tests.fleet.broker import Broker

REPOSITORY: Final = Path(__file__).parents[2]
_READ_ALL: Final = 'path "secret/*" { capabilities = ["read", "list"] }'
_SECONDS: Final = 240.0
"""Within which a round of the fleet ends, however slow the machine is."""
_MOST_ENDS: Final = 5
VISIBLE_AFTER: Final = "3s"
"""Much sooner than in earnest: a killed worker's message comes again within the test, and one that is slow twice."""


class Consumer:
    """One application of all secrets, which reads each and uses it at the issuer, all the time."""

    def __init__(self, read: Callable[[str], str], use: Callable[[str], str], names: list[str]) -> None:
        self._read, self._use, self._names = read, use, names
        self.refused: list[str] = []
        self.uses = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._consume, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.round()

    def _consume(self) -> None:
        while not self._ended.is_set():
            self.round()
            self._ended.wait(0.3)

    def round(self) -> None:
        """Each secret once. Refused counts what was handed out before and after it was tried."""
        for name in self._names:
            value, why = self._read(name), ""
            for _ in range(5):
                why = self._use(value)
                self.uses += 1
                before, value = value, self._read(name) if why else value
                if not why or value == before:
                    break
            if why:
                self.refused.append(f"{name}: {why}")


@dataclass
class Killed:
    """What was done to workers."""

    workers: int = 0
    """Whole workers, with all of their processes."""
    children: int = 0
    """Processes that ran a message, under a living worker."""
    ended: int = 0
    """Workers that ended themselves thereupon."""


@dataclass
class Site:
    """Everything, for as long as the `with` block lasts.

    Parameters:
        secrets: how many there are.
        workers: of two processes each.
        seed: of chance.
    """

    secrets: int
    workers: int
    seed: int
    killed: Killed = field(default_factory=Killed)
    dispatches: int = 0
    messages: int = 0

    def __enter__(self) -> Self:
        self.chance = random.Random(self.seed)
        self._sessions = threading.local()
        self._running: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-fleet-")))
            self.clock_file = self.directory / "clock.json"
            self.clock = SandboxClock(self.clock_file)
            self.bao = stack.enter_context(OpenBaoServer())
            self.openai = stack.enter_context(OpenAIServer(now=self.clock.now))
            self.broker = stack.enter_context(Broker())
            self.session = stack.enter_context(requests.Session())
            self.session.trust_env = False
            self.role = self.bao.approle(KEYTURN_POLICY)
            self.reader = self.bao.token(_READ_ALL)
            self.project = self._administer("POST", "", json={"name": "fleet"})["id"]
            self._declare()
            self.log = stack.enter_context((self.directory / "workers.log").open("wb"))
            self.assembly: Assembly = assemble(
                load(self.stack_file), self.environment(), FileAuditor(self.directory / "setup.jsonl")
            )
            self.app = by_celery.application(self.broker.url, timedelta(seconds=3))
            stack.callback(self.app.close)
            self.names = [policy.name for policy in self.assembly.config.policies]
            provisioner = Provisioner(
                self.assembly.engine,
                self.assembly.stores,
                self.assembly.issuers,
                self.assembly.places,
                self.assembly.clock,
                lambda _text: None,
            )

            def create(policy: Policy) -> None:
                provisioner.create(policy, bootstrap="apply")

            for _ in fleet.each(self.assembly.config.policies, create):
                pass
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    # --- what happens ------------------------------------------------------------------------------

    def start(self) -> None:
        """Workers up to the number that there shall be."""
        self._running = [process for process in self._running if process.poll() is None]
        while len(self._running) < self.workers:
            command = [str(Path(sys.executable).with_name("keyturn")), "fleet", "worker", "--concurrency", "2"]
            self._running.append(
                subprocess.Popen(
                    [*command, "--visible-after", VISIBLE_AFTER],
                    cwd=self.directory,
                    env=self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=self.log,
                    stderr=self.log,
                    start_new_session=True,
                )
            )

    def kill(self) -> None:
        """One worker with all of its processes, or one process that runs messages; it is dead when this returns."""
        process = self.chance.choice(self._running)
        children = _children(process.pid)
        if children and self.chance.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(children), signal.SIGKILL)
            self.killed.children += 1
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.killed.workers += 1
        self.start()

    def round(self, kills: int = 0) -> int:
        """One dispatch, and all of its work. Kills come when so much of the work is done as chance has it.

        Returns:
            How many secrets were sent out.
        """
        sent = crew.dispatch(self.assembly, by_celery.sender(self.app), size=2)
        self.dispatches += 1
        self.messages += sent.messages
        assert not sent.unseen, "everything answered the dispatcher"
        # Just after a credential was made, whose value then is in a worker's memory alone.
        began, end = len(self.issued()), time.monotonic() + _SECONDS
        points = sorted(self.chance.randrange(sent.due) for _ in range(kills)) if sent.due else []
        while self.broker.waiting(by_celery.QUEUE):
            if points and len(self.issued()) - began > points[0]:
                points.pop(0)
                self.kill()
            if any(process.poll() is not None for process in self._running):
                # A worker whose process died while it was coming up may end itself; who supervises it starts it again.
                self.killed.ended += 1
                assert self.killed.ended <= _MOST_ENDS, f"workers end by themselves: {self.said()[-3000:]}"
                self.start()
            if time.monotonic() > end:
                raise TimeoutError(f"work is left after {_SECONDS:g} s: {self.said()[-3000:]}")
            threading.Event().wait(0.02)
        return sent.due

    def move(self, by: timedelta) -> None:
        self.clock.move(by)

    # --- what there is -----------------------------------------------------------------------------

    def read(self, name: str) -> str:
        """What the vault hands out now."""
        return str(self._kv(f"data/sandbox/{name}")["data"]["value"])

    def history(self, name: str) -> list[str]:
        """Every value that the vault ever handed out, without repetitions, the first one first."""
        versions = sorted(int(number) for number in self._kv(f"metadata/sandbox/{name}")["versions"])
        values = [str(self._kv(f"data/sandbox/{name}?version={number}")["data"]["value"]) for number in versions]
        return list(dict.fromkeys(values))

    def use(self, value: str) -> str:
        """Uses a value at the issuer. Empty when it was accepted."""
        answer = self._own().get(f"{self.openai.base_url}/models", headers=_bearer(value), timeout=20)
        return "" if answer.ok else f"{answer.status_code}"

    def attempts(self, name: str) -> int:
        """How many attempts the journal knows."""
        return len(self._entry(name).journal.attempts)

    def facts(self, name: str) -> set[str]:
        """Kinds of the facts in the journal, and what waits for promotion."""
        entry = self._entry(name)
        current = entry.current.token if entry.current else None
        waits = {"pending"} if entry.pending and entry.pending.token != current else set()
        return {fact.partition(".")[0] for fact in entry.journal.facts} | waits

    def _entry(self, name: str) -> Entry:
        return self.assembly.stores["vault"].observe(f"sandbox/{name}")

    def issued(self) -> list[dict[str, Any]]:
        return [key for key in self.openai.control.issued() if key["project_id"] == self.project]

    def records(self) -> list[dict[str, Any]]:
        """The audit trails of all workers; a record whose writer was killed in it is broken off, and on a line of its own."""
        folder, found = self.directory / ".keyturn" / "audit", []
        for line in "\n".join(path.read_text() for path in folder.rglob("*.jsonl")).splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def said(self) -> str:
        return (self.directory / "workers.log").read_text(errors="replace")

    def environment(self) -> dict[str, str]:
        """What a worker gets."""
        role_id, secret_id = self.role
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.directory),
            "KEYTURN_STACK": "sandbox",
            "KEYTURN_SANDBOX_CLOCK": str(self.clock_file),
            "KEYTURN_VAULT_ROLE_ID": role_id,
            "KEYTURN_VAULT_SECRET_ID": secret_id,
            "OPENAI_ADMIN_KEY": self.openai.admin_key,
            by_celery.BROKER: self.broker.url,
        }

    def _kv(self, path: str) -> dict[str, Any]:
        url = f"{self.bao.address}/v1/secret/{path}"
        answer = self._own().get(url, headers={"X-Vault-Token": self.reader}, verify=str(self.bao.ca), timeout=20)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["data"]
        return found

    def _own(self) -> requests.Session:
        """This thread's: the consumer's reads beside others."""
        if not hasattr(self._sessions, "one"):
            self._sessions.one = requests.Session()
            self._sessions.one.trust_env = False
        found: requests.Session = self._sessions.one
        return found

    def _administer(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        url = f"{self.openai.base_url}/organization/projects{path}"
        answer = self.session.request(method, url, headers=_bearer(self.openai.admin_key), timeout=20, **more)
        found: dict[str, Any] = answer.json()
        return found

    def _declare(self) -> None:
        shipped = REPOSITORY / "providers" / "issuers" / "descriptions" / "openai.yaml"
        quick = shipped.read_text().replace("in_a_row: 3", "in_a_row: 1")  # the stand-in's changes show at once
        (self.directory / "vendor.yaml").write_text(quick)
        role = {"roleId": {"env": "KEYTURN_VAULT_ROLE_ID"}, "secretId": {"env": "KEYTURN_VAULT_SECRET_ID"}}
        vault = {"kind": "hashicorp-vault", "address": self.bao.address, "caBundle": str(self.bao.ca)}
        vendor = {"kind": "http", "description": "vendor.yaml", "baseUrl": self.openai.base_url}
        secrets = [
            {
                "name": f"service-{number:03}",
                "store": "vault",
                "issuer": "vendor",
                "owner": "team",
                "rotateEvery": "30d",
                "grace": "24h",
            }
            for number in range(self.secrets)
        ]
        declared = {
            "keyturn:installation": "fleet",
            "keyturn:environment": "sandbox",
            "keyturn:stores": {"vault": {**vault, "auth": {"method": "approle", **role}}},
            "keyturn:issuers": {
                "vendor": {**vendor, "variables": {"project": self.project}, "admin": {"env": "OPENAI_ADMIN_KEY"}}
            },
            "keyturn:owners": {"team": {"notify": []}},
            "keyturn:secrets": secrets,
        }
        self.stack_file = self.directory / "Pulumi.sandbox.yaml"
        self.stack_file.write_text(yaml.safe_dump({"config": declared}))

    def _end(self) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
