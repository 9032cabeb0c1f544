"""A stack over real services, and the commands as a person runs them on it: in process, as a process, at a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import secrets
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import requests
import yaml

from rotation.assembly import Assembly, assemble
from rotation.audit import FileAuditor
from rotation.cli.main import run
from rotation.clock import SystemClock
from rotation.config import load
from rotation.model import Policy
from rotation.provision import Provisioner
from sandbox.clock import SandboxClock
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer

REPOSITORY = Path(__file__).parents[2]
KEYTURN = Path(sys.executable).parent / "keyturn"
CHAT, BATCH, HOOK = "support-copilot-chat", "support-copilot-batch", "support-copilot-webhook"
"""A key of OpenAI, another one, and a generated password."""


class Time(SystemClock):
    """Real time and what sleepers have moved it by. Stand-ins, commands and tests share it, so nobody waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared = SandboxClock(path)
        self._moved = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._shared.now()

    def monotonic(self) -> float:
        return super().monotonic() + self._moved

    def sleep(self, seconds: float) -> None:
        self.move(timedelta(seconds=seconds))

    def move(self, by: timedelta) -> None:
        with self._lock:
            self._shared.move(by)
            self._moved += by.total_seconds()


@dataclass
class Services:
    """What all projects of a test run share."""

    bao: OpenBaoServer
    openai: OpenAIServer
    time: Time
    role: tuple[str, str]


@contextlib.contextmanager
def services(directory: Path) -> Iterator[Services]:
    """A vault and an issuer of their own, on one clock."""
    time = Time(directory / "clock.json")
    with OpenBaoServer() as bao, OpenAIServer(now=time.now) as openai:
        yield Services(bao, openai, time, bao.approle(KEYTURN_POLICY))


@dataclass(frozen=True)
class Ran:
    """One command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


class Terminal:
    """A command at a terminal, and the person in front of it."""

    def __init__(self, project: Project, arguments: tuple[str, ...], columns: int, env: Mapping[str, str]) -> None:
        self._us, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = project.start(
            *arguments,
            env={"TERM": "xterm-256color", **env},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that /dev/tty is this one
        )
        os.close(theirs)
        self.seen = ""

    def read_until(self, text: str) -> None:
        """Waits until this stands on the screen."""
        while text not in self.seen and self._read():
            pass
        assert text in self.seen, self.seen

    def type(self, text: str) -> None:
        os.write(self._us, text.encode())

    def end(self) -> Ran:
        """What the screen has shown in all, with line ends as in a file."""
        while self._read():
            pass
        os.close(self._us)
        return Ran(self._process.wait(timeout=30), self.seen.replace("\r\n", "\n"), "")

    def _read(self) -> bool:
        ready, _, _ = select.select([self._us], [], [], 30)
        assert ready, f"nothing happens any more; so far: {self.seen}"
        try:
            got = os.read(self._us, 65536)
        except OSError:  # how Linux tells that the other side is closed
            return False
        self.seen += got.decode()
        return bool(got)


@dataclass
class Project:
    """A folder with a stack file, and an installation of its own at the services."""

    root: Path
    services: Services
    installation: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    environment: str = "sandbox"
    openai_project: str = field(init=False)
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        made = self.administer("POST", "organization/projects", {"name": self.installation})
        self.openai_project = made["id"]
        role, secret = self.services.role
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "PYTHONPATH": str(REPOSITORY),
            "KEYTURN_STACK": "sandbox",
            "KEYTURN_SANDBOX_CLOCK": str(self.services.time.path),
            "KEYTURN_VAULT_ROLE_ID": role,
            "KEYTURN_VAULT_SECRET_ID": secret,
            "OPENAI_ADMIN_KEY": self.services.openai.admin_key,
        }
        self.declare()

    # --- what is declared ------------------------------------------------------------------------

    @property
    def stack_file(self) -> Path:
        return self.root / "Pulumi.sandbox.yaml"

    @property
    def audit_file(self) -> Path:
        return self.root / ".keyturn" / "audit" / f"{self.environment}.jsonl"

    def secret(self, name: str, **changes: Any) -> dict[str, Any]:
        issuer = "generated" if name == HOOK else "openai"
        usual = {"store": "vault", "issuer": issuer, "owner": "support-platform", "rotateEvery": "30d"}
        return {"name": name, **usual, **changes}

    def declare(self, *given: Mapping[str, Any], **parts: Any) -> None:
        """Writes the stack file with these secrets, or one of each issuer."""
        bao = self.services.bao
        login = {"roleId": {"env": "KEYTURN_VAULT_ROLE_ID"}, "secretId": {"env": "KEYTURN_VAULT_SECRET_ID"}}
        server = {"kind": "hashicorp-vault", "address": bao.address, "caBundle": str(bao.ca)}
        vault = {**server, "auth": {"method": "approle", **login}}
        vendor = {"kind": "openai", "project": self.openai_project, "baseUrl": self.services.openai.base_url}
        openai = {**vendor, "admin": {"env": "OPENAI_ADMIN_KEY"}}
        declared = {
            "installation": self.installation,
            "environment": self.environment,
            "stores": {
                "vault": {**vault, "prefix": f"{self.installation}/a"},
                "mirror": {**vault, "prefix": f"{self.installation}/b"},
            },
            "issuers": {"openai": openai, "generated": {"kind": "generated"}},
            "owners": {"support-platform": {"notify": []}},
            "secrets": [*given] if given or "secrets" in parts else [self.secret(CHAT), self.secret(HOOK)],
        } | parts
        config = {f"keyturn:{key}": value for key, value in declared.items()}
        self.stack_file.write_text(yaml.safe_dump({"config": config}, sort_keys=False))

    def change(self, path: str, value: object) -> None:
        """Changes one value of the stack file, as in `stores.vault.address`."""
        whole = yaml.safe_load(self.stack_file.read_text())
        first, *rest = path.split(".")
        *steps, last = (f"keyturn:{first}", *rest)
        part = whole["config"]
        for step in steps:
            part = part[int(step) if step.isdecimal() else step]
        part[last] = value
        self.stack_file.write_text(yaml.safe_dump(whole, sort_keys=False))

    # --- applying, as `pulumi up` would ----------------------------------------------------------

    def assembly(self) -> Assembly:
        trail = FileAuditor(self.root / "applied.jsonl")
        return assemble(load(self.stack_file), self.environ, trail, self.services.time)

    def policy(self, name: str) -> Policy:
        return next(policy for policy in load(self.stack_file).policies if policy.name == name)

    def apply(self, *names: str) -> None:
        """Creates the declared secrets, or those named, each with its first credential."""
        a = self.assembly()
        provisioner = Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None)
        for policy in a.config.policies:
            if not names or policy.name in names:
                provisioner.create(policy, bootstrap="apply")

    # --- running ---------------------------------------------------------------------------------

    def run(self, *arguments: str, **env: str) -> Ran:
        """One command in this process, with the shared clock: what it sleeps has passed at once."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        with (
            mock.patch.dict(os.environ, {**self.environ, **env}, clear=True),
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                run(arguments, clock=self.services.time)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)
        return Ran(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """The console script as a process of its own, on the system's clock."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [str(KEYTURN), *arguments], cwd=self.root, env={**self.environ, **(env or {})}, text=True, **given | options
        )

    def execute(self, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Ran:
        with self.start(*arguments, env=env, **options) as process:
            out, err = process.communicate(timeout=60)
        return Ran(process.returncode, out, err)

    def at_terminal(self, *arguments: str, columns: int = 100, env: Mapping[str, str] | None = None) -> Terminal:
        """The console script with a terminal of its own for input and output."""
        return Terminal(self, arguments, columns, env or {})

    # --- what is there ---------------------------------------------------------------------------

    def entry(self, name: str) -> str:
        return f"{self.environment}/{name}"

    def administer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A request to OpenAI with the administrator's own key."""
        openai = self.services.openai
        headers = {"Authorization": f"Bearer {openai.admin_key}"}
        url = f"{openai.base_url}/{path}"
        return requests.request(method, url, json=body, headers=headers, timeout=10).json()

    def keys(self) -> dict[str, bool]:
        """Every key that was ever minted for this project: whether it is accepted now, oldest first."""
        issued = self.services.openai.control.issued()
        return {key["id"]: key["accepted"] for key in issued if key["project_id"] == self.openai_project}

    def alive(self) -> list[str]:
        return [key for key, accepted in self.keys().items() if accepted]

    def value(self, name: str, store: str = "a") -> str:
        """What a consumer reads now."""
        return str(self.vault("GET", f"data/{self.installation}/{store}/{self.entry(name)}")["data"]["value"])

    def put(self, name: str, value: str, store: str = "a") -> None:
        """An entry that was in the vault before Keyturn came."""
        self.vault("POST", f"data/{self.installation}/{store}/{self.entry(name)}", {"data": {"value": value}})

    def own_key(self, name: str = "made in the dashboard") -> tuple[str, str]:
        """Id and value of a key that a person has made at OpenAI."""
        made = self.services.openai.control.create_user_key(self.openai_project, name)
        return made["id"], made["value"]

    def overwrite(self, name: str, value: str, store: str = "a") -> None:
        """As a person does it in the vault's console: the fields that are there, with another value."""
        path = f"data/{self.installation}/{store}/{self.entry(name)}"
        fields = self.vault("GET", path)["data"]
        self.vault("POST", path, {"data": {**fields, "value": value}})

    def everything(self) -> dict[str, Any]:
        """All metadata and all readable versions of this installation in the vault, by an administrator's eyes."""
        found: dict[str, Any] = {}
        folders = [f"{self.installation}/"]
        while folders:
            folder = folders.pop()
            for name in self.vault("GET", f"metadata/{folder}?list=true").get("keys", []):
                if name.endswith("/"):
                    folders.append(folder + name)
                    continue
                about = self.vault("GET", f"metadata/{folder}{name}")
                found[folder + name] = about | {
                    "data": {n: self.vault("GET", f"data/{folder}{name}?version={n}") for n in about["versions"]}
                }
        return found

    def vault(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        bao = self.services.bao
        headers = {"X-Vault-Token": bao.root_token}
        url = f"{bao.address}/v1/secret/{path}"
        answer = requests.request(method, url, json=body, headers=headers, verify=str(bao.ca), timeout=10)
        data: dict[str, Any] = (answer.json() if answer.content else {}).get("data") or {}
        return data

    def audit(self) -> list[dict[str, Any]]:
        """All whole lines: a process may be at the next one."""
        lines = self.audit_file.read_text().splitlines(keepends=True) if self.audit_file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]
