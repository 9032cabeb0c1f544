"""A stack in the sandbox's AWS, the Lambda function that it is rotated by, and what happened to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import requests
import yaml

from hosting.packages import archive
from hosting.packages import aws as package
from providers.issuers.reading import shipped
from rotation.assembly import Assembly, assemble
from rotation.audit import FileAuditor
from rotation.config import load
from rotation.engine import Target
from rotation.model import Policy
from rotation.packed import pack
from rotation.provision import Provisioner
from sandbox.aws.executor import Executor, FunctionError
from sandbox.aws.records import RotationRequest
from sandbox.aws.server import AwsServer
from sandbox.openai.harness import OpenAIServer
from tests.cli.project import Time

CHAT, HOOK = "support-copilot-chat", "support-copilot-webhook"
REGION = "eu-central-1"
ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:keyturn"


class InStep(Time):
    """The clock of somebody who waits for the service: it lets the service finish what it is at before time passes.

    Without it days of the shared clock go by while a process starts.
    """

    def __init__(self, path: Path, executor: Executor) -> None:
        super().__init__(path)
        self._executor = executor

    def sleep(self, seconds: float) -> None:
        self._executor.wait()
        super().sleep(seconds)


@dataclass
class Site:
    """One installation. Its clock is shared by the stand-ins, the function and the test; nobody waits."""

    root: Path
    aws: AwsServer
    openai: OpenAIServer
    time: Time
    executor: Executor = field(init=False)
    before: Callable[[Mapping[str, Any]], None] | None = None
    """Called before each invocation of the function."""
    extra: dict[str, str] = field(default_factory=dict)
    """Further variables of the function."""

    @property
    def stack_file(self) -> Path:
        return self.root / "Pulumi.sandbox.yaml"

    @property
    def environ(self) -> dict[str, str]:
        given = {"KEYTURN_SANDBOX_CLOCK": str(self.time.path), "KEYTURN_LOG_LEVEL": "DEBUG"}
        return {**self.aws.environment(), "OPENAI_ADMIN_KEY": self.openai.admin_key, **given, **self.extra}

    def declare(self, *secrets_: Mapping[str, Any], **stores: Any) -> None:
        """Writes the stack file: these secrets, in a store `aws` that rotates natively when nothing else is said."""
        native = {"rotation": "native", "rotationFunction": FUNCTION}
        endpoint = {"region": REGION, "endpointUrl": self.aws.endpoint}
        usual = {"store": "aws", "issuer": "openai", "owner": "team", "rotateEvery": "30d", "grace": "1h"}
        vendor = {"kind": "openai", "project": self.project, "baseUrl": self.openai.base_url}
        config = {
            "installation": self.installation,
            "environment": "sandbox",
            "stores": {"aws": {"kind": "aws-secrets-manager", **endpoint, **native}} | stores,
            "issuers": {
                "openai": {**vendor, "admin": {"env": "OPENAI_ADMIN_KEY"}},
                "generated": {"kind": "generated"},
            },
            "owners": {"team": {"notify": []}},
            "secrets": [{**usual, **given} for given in secrets_],
        }
        self.stack_file.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": part for key, part in config.items()}}))

    def __post_init__(self) -> None:
        self.installation = f"t{secrets.token_hex(4)}"
        answer = requests.post(
            f"{self.openai.base_url}/organization/projects",
            json={"name": self.installation},
            headers={"Authorization": f"Bearer {self.openai.admin_key}"},
            timeout=10,
        )
        self.project: str = answer.json()["id"]

    def deploy(self, zip_file: Path | None = None, **options: Any) -> None:
        """Puts the function where RotateSecret calls it: its package built from the stack file, or this one, which gets
        its configuration beside it."""
        if zip_file is None:
            zip_file = self.root / "keyturn-lambda.zip"
            archive.write(zip_file, package.entries(self.stack_file))
        else:
            packed = self.root / "keyturn.json"
            packed.write_text(pack(load(self.stack_file), {"openai": shipped("openai")}))
            self.extra["KEYTURN_CONFIG"] = str(packed)
        self.executor = Executor(zip_file, lambda: self.environ, clock=self.time.path, before=self._before, **options)

    def _before(self, event: Mapping[str, Any]) -> None:
        if self.before:
            self.before(event)

    def on_rotate(self, request: RotationRequest) -> None:
        self.executor.on_rotate(request)

    # --- acting ----------------------------------------------------------------------------------

    def assembly(self, clock: Time | None = None) -> Assembly:
        return assemble(load(self.stack_file), self.environ, FileAuditor(self.root / "audit.jsonl"), clock or self.time)

    def policy(self, name: str = CHAT) -> Policy:
        return next(policy for policy in load(self.stack_file).policies if policy.name == name)

    def target(self, name: str = CHAT) -> Target:
        return Target("aws", f"sandbox/{name}")

    def apply(self) -> None:
        """As `pulumi up` does, with the first credential of each."""
        a = self.assembly()
        provisioner = Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None)
        for policy in a.config.policies:
            provisioner.create(policy, bootstrap="apply")

    def update(self, old: Policy, new: Policy) -> None:
        a = self.assembly()
        provisioner = Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None)
        provisioner.update(old, new, bootstrap="apply")

    def sweep(self) -> Any:
        """EventBridge's schedule calls the function."""
        return self.executor.invoke({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})

    def settle(self) -> None:
        """Sweeps until every grace period is over and everything that should be dead is."""
        for minutes in (1, 16, 20, 61, 16, 61):
            self.time.move(timedelta(minutes=minutes))
            with contextlib.suppress(FunctionError):  # what fails is left to the next one
                self.sweep()
            self.executor.wait()

    def rotate(self, name: str = CHAT) -> str:
        """Somebody presses the console's button; gives the new version's id when the service is done."""
        token: str = self.secretsmanager.rotate_secret(SecretId=self.target(name).entry)["VersionId"]
        self.executor.wait()
        return token

    # --- what is there ---------------------------------------------------------------------------

    @property
    def secretsmanager(self) -> Any:
        return self.aws.client("secretsmanager", region=REGION)

    def labels(self, name: str = CHAT) -> dict[str, str]:
        """Version id by label."""
        about = self.secretsmanager.describe_secret(SecretId=self.target(name).entry)
        return {label: version for version, labels in about["VersionIdsToStages"].items() for label in labels}

    def value(self, name: str = CHAT) -> str:
        return str(self.secretsmanager.get_secret_value(SecretId=self.target(name).entry)["SecretString"])

    def keys(self) -> dict[str, bool]:
        """Every key that was ever minted here: whether it is accepted now, oldest first."""
        issued = self.openai.control.issued()
        return {key["id"]: key["accepted"] for key in issued if key["project_id"] == self.project}

    def alive(self) -> list[str]:
        return [key for key, accepted in self.keys().items() if accepted]

    def accepted(self, value: str) -> bool:
        headers = {"Authorization": f"Bearer {value}"}
        return requests.get(f"{self.openai.base_url}/models", headers=headers, timeout=10).ok

    def steps(self) -> list[tuple[str | None, bool]]:
        """The steps that the service has had done, and whether each succeeded."""
        return [(i.step, i.error is None) for i in self.executor.invocations if i.step]

    def log(self) -> list[dict[str, Any]]:
        """The function's log, line by line; of what is no JSON only the text."""
        lines = []
        for line in self.executor.log.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"text": line})
        return lines


@contextlib.contextmanager
def site(root: Path, openai: OpenAIServer, time: Time) -> Iterator[Site]:
    """A site of its own over a shared issuer and clock."""
    holder: list[Site] = []
    lock = threading.Lock()

    def on_rotate(request: RotationRequest) -> None:
        with lock:
            made = holder[0]
        made.on_rotate(request)

    with AwsServer(now=time.now, account_id=ACCOUNT, on_rotate=on_rotate) as aws:
        made = Site(root, aws, openai, time)
        holder.append(made)
        try:
            # The SDK looks there for whoever acts in this process.
            with mock.patch.dict(os.environ, aws.environment()):
                yield made
        finally:
            if hasattr(made, "executor"):
                made.executor.close()
