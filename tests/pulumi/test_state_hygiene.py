"""The state is clean: canaries in every kind of store and issuer, and a stack's whole life searched for them.

What is searched is what `pulumi stack export --show-secrets`, the engine's verbose log and a provider's traceback would
show: registrations on the wire, the state, the screen, the log at DEBUG, tracebacks with their causes and objects, files.
Commands of Keyturn itself: tests/test_hygiene.py.
"""

from __future__ import annotations

import base64
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from sandbox.aws.server import AwsServer
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.loopback import Answer, Asked
from tests.cli.relay import Relay, echo
from tests.pulumi.project import CHAT, HOOK, Project, Ran, Services
from tests.test_hygiene import files, leaks

EMBED, OPS, DESK, MAIL = "support-copilot-embed", "support-ops-token", "support-desk-token", "support-mail-token"
ADOPTED = {OPS: "vault", DESK: "aws", MAIL: "azure"}
REGION = "eu-west-1"
EVERY = (CHAT, HOOK, EMBED, *ADOPTED)


@dataclass
class Stage:
    """A project over four stores, with relays before those that speak Vault's and OpenAI's words."""

    project: Project
    vault: Relay
    openai: Relay
    aws: AwsServer
    azure: KeyVaultServer
    tapped: Path
    canaries: set[str] = field(default_factory=set)

    def declare(self, **changes: object) -> None:
        project = self.project
        project.declare()
        config = yaml.safe_load(project.stack_file.read_text())["config"]
        stores, issuers = config["keyturn:stores"], config["keyturn:issuers"]
        for name in ("vault", "mirror"):
            stores[name]["address"] = self.vault.url
        issuers["openai"]["baseUrl"] = f"{self.openai.url}/v1"
        aws = {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": self.aws.endpoint}
        azure = {
            "kind": "azure-key-vault",
            "vaultUrl": self.azure.vault_url,
            "authorityHost": self.azure.vault_url,
            "caBundle": self.azure.ca,
            "verifyChallengeResource": False,
        }
        secret = project.secret
        project.declare(
            secret(CHAT, replicas=["mirror", "aws"], **changes),
            secret(HOOK, replicas=["azure"]),
            {**secret(EMBED, store="azure"), "issuer": "openai"},
            *(secret(name, store=store, adopt=True) for name, store in ADOPTED.items()),
            stores={**stores, "aws": aws, "azure": azure},
            issuers=issuers,
        )

    def plant(self) -> None:
        """Values that a person put into each kind of store, for Keyturn to take over."""
        for name, store in ADOPTED.items():
            value = f"canary{store}{uuid.uuid4().hex}"[:32]  # as long as generated ones are declared
            self.canaries.add(value)
            if store == "vault":
                self.project.put_by_hand(name, {"value": value})
            elif store == "aws":
                self.aws.client("secretsmanager", region=REGION).create_secret(
                    Name=f"sandbox/{name}", SecretString=value
                )
            else:
                with self.azure.client() as client:
                    client.set_secret(f"sandbox--{name}", value)

    def run(self, command: str, *, succeeds: bool | None = None, **env: str) -> Ran:
        """One command behind the tap. None: it does not matter how it ends."""
        options = [] if command == "preview" else ["--yes"]
        program = [sys.executable, "-m", "tests.pulumi.tapped", command, "--stack", "sandbox", *options]
        ran = self.project._execute(*program, **env, KEYTURN_TAPPED=str(self.tapped), KEYTURN_SANDBOX_SLEEP="skip")
        assert succeeds is None or (ran.code == 0) == succeeds, ran.text
        self.gather()
        return ran

    def gather(self) -> None:
        """Keeps every value that a store hands out now among the canaries."""
        for policy in self.project.assembly().config.policies:
            for store in policy.stores:
                self.canaries |= self._held(store, policy.name)

    def _held(self, store: str, name: str) -> set[str]:
        entry = f"sandbox--{name}" if store == "azure" else f"sandbox/{name}"
        a = self.project.assembly()
        try:
            seen = a.stores[store].observe(entry)
        except Exception:  # noqa: BLE001 - not there yet, or any more
            return set()
        versions = [version for version in (seen.current, seen.pending) if version]
        credentials = [a.stores[store].read(entry, version) for version in versions]
        return {value.reveal() for one in credentials for value in one.fields.values()}

    def secrets(self) -> set[str]:
        project = self.project
        logins = {
            project.services.openai.admin_key,
            project.services.bao.root_token,
            project.extra["KEYTURN_VAULT_SECRET_ID"],
            self.aws.environment()["AWS_SECRET_ACCESS_KEY"],
            self.azure.client_secret,
        }
        stored = {value for value in project.values() if len(value) >= 8}
        return {one for one in self.canaries | logins | stored | self.vault.heard | self.openai.heard if len(one) >= 8}

    def places(self) -> dict[str, str]:
        found = {f"screen {number}": text for number, text in enumerate(self.project.heard)}
        found |= files(self.project.root / ".keyturn") | {"tap": self.tapped.read_text()}
        found["stack file"] = self.project.stack_file.read_text()
        for number, pickled in enumerate({*re.findall(r'"__provider": "([^"]+)"', self.project.state())}):
            found[f"pickle {number}"] = base64.b64decode(pickled).decode(errors="replace")
        return found


@pytest.fixture
def stage(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with AwsServer(now=services.clock.now) as aws, KeyVaultServer(now=services.clock.now) as azure:
        yield from staged(services, aws, azure, tmp_path, monkeypatch)


def staged(
    services: Services, aws: AwsServer, azure: KeyVaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", services, None, f"t{uuid.uuid4().hex[:12]}")
    logins = aws.environment(REGION)
    logins |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere"}
    logins |= {"AZURE_TENANT_ID": azure.tenant_id, "AZURE_CLIENT_ID": azure.client_id}
    logins |= {"AZURE_CLIENT_SECRET": azure.client_secret, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}
    for name, text in logins.items():
        monkeypatch.setenv(name, text)  # for the clients of the test itself as well
    with ExitStack() as stack:
        vault = stack.enter_context(Relay(services.bao.address, str(services.bao.ca)))
        openai = stack.enter_context(Relay(services.openai.base_url.removesuffix("/v1")))
        made = Stage(project, vault, openai, aws, azure, tmp_path / "tapped.txt")
        made.declare()
        made.plant()
        yield made


def echoing(status: int) -> Callable[[Asked], Answer | None]:
    """Every answer is an error that repeats what it was sent."""
    return lambda asked: echo(asked, status)


def nothing(_: Asked) -> Answer | None:
    return None


def test_a_whole_life_leaves_no_canary_in_the_state_or_on_the_way_to_it(stage: Stage) -> None:
    """Preview, up, rotations, up, drift, refresh, changes, failures of every service that repeat what they were sent, destroy."""
    project = stage.project
    stage.run("preview", succeeds=True)
    stage.run("up", succeeds=True)
    first = set(stage.canaries)
    assert len(first) >= len(EVERY)
    for name in EVERY:
        a = project.assembly()
        outcome = a.engine.rotate(a.target(project.policy(name)))
        assert outcome.trouble is None, (name, outcome.trouble)
    stage.gather()
    assert len(stage.canaries) >= 2 * len(EVERY)
    assert stage.run("up", succeeds=True).changes == {"unchanged": len(EVERY) + 1}
    assert stage.run("refresh", succeeds=True).changes == {"unchanged": len(EVERY) + 1}
    stage.declare(rotateEvery="20d", tags={"team": "x"})
    assert stage.run("up", succeeds=True).changes["update"] == 1
    for status in (403, 500):
        stage.vault.instead = stage.openai.instead = echoing(status)
        stage.declare(rotateEvery=f"{status // 20}d")
        for command in ("up", "refresh", "destroy"):
            stage.run(command, succeeds=False)
        stage.vault.instead = stage.openai.instead = nothing
    project.services.clock.move(timedelta(hours=3))
    stage.run("destroy", KEYTURN_FORCE_REVOKE=" ".join(EVERY), succeeds=True)
    places, tap = stage.places(), stage.tapped.read_text()
    for part in ("registered", "answered", "outputs", "traceback", "objects"):
        assert f"--- {part}\n" in tap, part
    assert "ApplyError" in tap
    assert all(any(one.startswith(f"canary{store}") for one in first) for store in ADOPTED.values())
    assert leaks(places, stage.secrets()) == []


def test_the_search_finds_a_canary_that_a_provider_hands_out(stage: Stage) -> None:
    """One value as an output of the program is found on the wire, in the state and on the screen."""
    stage.project.declare(stage.project.secret(HOOK))
    canary = f"canary-{uuid.uuid4().hex}"
    stage.canaries.add(canary)
    program = stage.project.root / "__main__.py"
    program.write_text(program.read_text() + f'\npulumi.export("leak", {canary!r})\n')
    stage.run("up", succeeds=True)
    found = leaks(stage.places(), stage.secrets())
    assert "tap" in found
    assert any(place.endswith("sandbox.json") for place in found)
    assert any(place.startswith("screen") for place in found)
