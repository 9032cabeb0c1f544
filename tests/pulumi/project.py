"""A Pulumi project in a folder of its own over real services, applied by the CLI or by the stand-in."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
import yaml

from rotation.assembly import Assembly, assemble
from rotation.audit import FileAuditor
from rotation.clock import SystemClock
from rotation.config import load
from rotation.model import Credential, Policy
from sandbox.clock import SandboxClock
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import OpenBaoServer
from sandbox.pulumi_cli import PulumiCli

REPOSITORY = Path(__file__).parents[2]
CHAT, HOOK = "support-copilot-chat", "support-copilot-webhook"


@dataclass
class Services:
    """What all projects of a test run share."""

    bao: OpenBaoServer
    openai: OpenAIServer
    clock: SandboxClock
    clock_file: Path
    role: tuple[str, str]


class Moved(SystemClock):
    """The sandbox's clock, for rotations in the test itself: whoever sleeps moves it."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock

    def now(self) -> Any:
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        self._clock.move(timedelta(seconds=seconds))


@dataclass(frozen=True)
class Ran:
    """One command that has ended."""

    code: int
    text: str

    @property
    def changes(self) -> dict[str, int]:
        """How many resources were, or would be, created and so on, from the last count on the screen."""
        counts = re.findall(
            r"^ +(?:[-+~]+ ?)?(\d+) (?:to )?(create|update|replace|delete|unchanged)d?\b",
            self.text.rpartition("Resources:")[2],
            re.MULTILINE,
        )
        return {word: int(count) for count, word in counts}


@dataclass
class Project:
    """A copy of the program with a stack file, and an installation of its own at the services."""

    root: Path
    services: Services
    cli: PulumiCli | None
    installation: str
    environment: str = "sandbox"
    heard: list[str] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)
    openai_project: str = field(init=False)

    def __post_init__(self) -> None:
        made = requests.post(
            f"{self.services.openai.base_url}/organization/projects",
            json={"name": self.installation},
            headers={"Authorization": f"Bearer {self.services.openai.admin_key}"},
            timeout=10,
        )
        self.openai_project = made.json()["id"]
        for name in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(REPOSITORY / name, self.root / name)
        (self.root / ".venv").symlink_to(sys.prefix)
        self.declare()
        if self.cli:
            (self.root / "state").mkdir()
            self._execute(str(self.cli.path), "stack", "init", "sandbox", "--non-interactive")

    # --- what is declared ------------------------------------------------------------------------

    @property
    def stack_file(self) -> Path:
        return self.root / "Pulumi.sandbox.yaml"

    def secret(self, name: str, **changes: Any) -> dict[str, Any]:
        issuer = "openai" if name == CHAT else "generated"
        return {"name": name, "store": "vault", "issuer": issuer, "owner": "team", "rotateEvery": "30d", **changes}

    def declare(self, *secrets: Mapping[str, Any], **parts: Any) -> None:
        """Writes the stack file: these secrets, or one of each issuer; keeps what Pulumi put there."""
        bao, (role, secret) = self.services.bao, self.services.role
        self.extra |= {"KEYTURN_VAULT_ROLE_ID": role, "KEYTURN_VAULT_SECRET_ID": secret} | self.extra
        auth = {
            "method": "approle",
            "roleId": {"env": "KEYTURN_VAULT_ROLE_ID"},
            "secretId": {"env": "KEYTURN_VAULT_SECRET_ID"},
        }
        vault = {"kind": "hashicorp-vault", "address": bao.address, "caBundle": str(bao.ca), "auth": auth}
        openai = {
            "kind": "openai",
            "project": self.openai_project,
            "baseUrl": self.services.openai.base_url,
            "admin": {"env": "OPENAI_ADMIN_KEY"},
        }
        declared = {
            "installation": self.installation,
            "environment": self.environment,
            "stores": {
                "vault": {**vault, "prefix": f"{self.installation}/a"},
                "mirror": {**vault, "prefix": f"{self.installation}/b"},
            },
            "issuers": {"openai": openai, "generated": {"kind": "generated"}},
            "owners": {"team": {"notify": []}},
            "secrets": [*secrets] if secrets or "secrets" in parts else [self.secret(CHAT), self.secret(HOOK)],
        } | parts
        before = yaml.safe_load(self.stack_file.read_text()) if self.stack_file.exists() else {}
        config = {"config": {f"keyturn:{key}": value for key, value in declared.items()}}
        self.stack_file.write_text(yaml.safe_dump(before | config, sort_keys=False))

    # --- applying --------------------------------------------------------------------------------

    def environ(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "KEYTURN_SANDBOX_CLOCK": str(self.services.clock_file),
            "OPENAI_ADMIN_KEY": self.services.openai.admin_key,
            "PULUMI_HOME": str(self.root / "pulumi-home"),
            "PULUMI_BACKEND_URL": (self.root / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "for this test only",
        }
        return {**os.environ, **(self.cli.env() if self.cli else {}), **own, **self.extra}

    def run(self, command: str, *, succeeds: bool = True, **env: str) -> Ran:
        """`preview`, `up`, `refresh` or `destroy`; checks whether it succeeded."""
        if self.cli:
            # What would fail is told at the preview or at the update; a test does not care when.
            options = [] if command == "preview" else ["--yes", "--skip-preview"]
            program = [str(self.cli.path), command, "--stack", "sandbox", "--non-interactive", "--color", "never"]
        else:
            options = [] if command == "preview" else ["--yes"]
            program = [sys.executable, "-m", "sandbox.pulumi_inprocess", command, "--stack", "sandbox"]
        ran = self._execute(*program, *options, **env)
        assert (ran.code == 0) == succeeds, ran.text
        return ran

    def _execute(self, *arguments: str, **env: str) -> Ran:
        done = subprocess.run(
            arguments,
            cwd=self.root,
            env={**self.environ(), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.heard.append(done.stdout)
        return Ran(done.returncode, done.stdout)

    def state(self) -> str:
        """All of the stack's state, with nothing left encrypted."""
        if self.cli:
            return self._execute(str(self.cli.path), "stack", "export", "--show-secrets", "--stack", "sandbox").text
        path = self.root / ".keyturn" / "pulumi-inprocess" / "sandbox.json"
        return path.read_text() if path.exists() else ""

    # --- what is there ---------------------------------------------------------------------------

    def assembly(self) -> Assembly:
        trail = FileAuditor(self.root / ".keyturn" / "audit" / "test.jsonl")
        return assemble(load(self.stack_file), self.environ(), trail, Moved(self.services.clock))

    def policy(self, name: str) -> Policy:
        return next(policy for policy in load(self.stack_file).policies if policy.name == name)

    def entry(self, name: str) -> str:
        return f"{self.environment}/{name}"

    def handed_out(self, name: str, store: str = "vault") -> Credential | None:
        """What a consumer reads now."""
        current = self.assembly().stores[store].observe(self.entry(name)).current
        return self.assembly().stores[store].read(self.entry(name), current) if current else None

    def works(self, credential: Credential | None) -> bool:
        """Whether OpenAI accepts a key; counts as a use."""
        assert credential is not None
        headers = {"Authorization": f"Bearer {credential.fields['value'].reveal()}"}
        return requests.get(f"{self.services.openai.base_url}/models", headers=headers, timeout=10).status_code == 200

    def keys(self) -> list[bool]:
        """For every key that was ever minted for this project whether it is accepted now, oldest first."""
        issued = self.services.openai.control.issued()
        return [key["accepted"] for key in issued if key["project_id"] == self.openai_project]

    def vault(self) -> dict[str, list[dict[str, str]]]:
        """Every path of this installation in the vault, and its readable versions, by an administrator's eyes."""
        found: dict[str, list[dict[str, str]]] = {}
        folders = [f"{self.installation}/"]
        while folders:
            folder = folders.pop()
            for name in self._ask(f"metadata/{folder}?list=true").get("keys", []):
                if name.endswith("/"):
                    folders.append(folder + name)
                    continue
                numbers = self._ask(f"metadata/{folder}{name}")["versions"]
                versions = [self._ask(f"data/{folder}{name}?version={number}").get("data") for number in numbers]
                found[folder + name] = [version for version in versions if version]
        return found

    def put_by_hand(self, name: str, fields: dict[str, str]) -> None:
        """What a person does in the vault's own console, at the primary's place of a secret."""
        self._ask(f"data/{self.installation}/a/{self.entry(name)}", {"data": fields})

    def _ask(self, path: str, body: object = None) -> dict[str, Any]:
        bao = self.services.bao
        headers = {"X-Vault-Token": bao.root_token}
        method, url = "GET" if body is None else "POST", f"{bao.address}/v1/secret/{path}"
        answer = requests.request(method, url, json=body, headers=headers, verify=str(bao.ca), timeout=10)
        data: dict[str, Any] = answer.json().get("data") or {}
        return data

    def values(self) -> set[str]:
        """Every secret value that this installation has in the vault, old versions included, and every credential used."""
        stored = {
            value
            for versions in self.vault().values()
            for version in versions
            for name, value in version.items()
            if name != "keyturn"
        }
        used = {self.services.openai.admin_key, self.services.role[1], self.services.bao.root_token}
        return {value for value in stored | used if value}

    def search(self, values: set[str]) -> list[str]:
        """Where any of these values stands: in files of the project, in what was printed, in pickles."""
        places = {f"output {number}": text for number, text in enumerate(self.heard)} | {"state": self.state()}
        for folder in (".keyturn", "state"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file():
                    places[str(path)] = path.read_text(errors="replace")
        places["stack file"] = self.stack_file.read_text()
        for pickled in re.findall(r'"__provider": "([^"]+)"', places["state"]):
            places[f"pickle {pickled[:12]}"] = base64.b64decode(pickled).decode(errors="replace")
        assert any(place.startswith("pickle") for place in places)
        return [place for place, text in places.items() if any(v in text or json.dumps(v) in text for v in values)]
