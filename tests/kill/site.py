"""Where executions take place: the servers behind their proxies, and for each execution a stack of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self
from unittest.mock import patch

import requests
import yaml

from rotation.assembly import Assembly, assemble
from rotation.audit import FileAuditor
from rotation.config import load
from rotation.model import Policy
from rotation.provision import Provisioner
from sandbox import tls
from sandbox.aws.server import REGION, AwsServer
from sandbox.clock import SandboxClock
from sandbox.consumer import READERS
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer
from tests.kill.consumers import Consumers, at_openai, by_form
from tests.kill.wire import Proxy, Strike, Wire

REPOSITORY: Final = Path(__file__).parents[2]
NAME: Final = "support-copilot-chat"
Store = Literal["vault", "aws", "azure"]
Issuer = Literal["openai", "generated"]

_READ_ALL: Final = 'path "secret/data/*" { capabilities = ["read"] }'
_COMMAND_SECONDS: Final = 120.0


class Site:
    """Servers and proxies, from entering the context until leaving it; for one execution at a time.

    While it is open this process is logged in to AWS and Azure, that is to the stand-ins: their SDKs look
    into the environment.
    """

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-kill-")))
            self.clock_file = self.directory / "clock.json"
            self.clock = SandboxClock(self.clock_file)
            self.bao = stack.enter_context(OpenBaoServer())
            self.openai = stack.enter_context(OpenAIServer(now=self.clock.now))
            self.aws = stack.enter_context(AwsServer(now=self.clock.now))
            self.keyvault = stack.enter_context(KeyVaultServer(now=self.clock.now, ca_dir=self.bao.ca.parent))
            self.role = self.bao.approle(KEYTURN_POLICY)
            self._reader_role = self.bao.approle(_READ_ALL)
            self.wire = Wire()
            certificate = self.directory / "proxy.pem"
            tls.issue(self.bao.ca.parent, certificate)
            secure = {"certificate": certificate, "ca": self.bao.ca}
            proxies = {
                "vault": Proxy(self.wire, "vault", self.bao.address, **secure),
                "aws": Proxy(self.wire, "aws", self.aws.endpoint),
                "azure": Proxy(self.wire, "azure", self.keyvault.vault_url, **secure),
                "openai": Proxy(self.wire, "openai", self.openai.base_url.removesuffix("/v1")),
            }
            self.proxies = {name: stack.enter_context(proxy) for name, proxy in proxies.items()}
            stack.enter_context(patch.dict(os.environ, {**self._logins(), "KEYTURN_LOG_LEVEL": "ERROR"}))
            self._serial = 0
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def world(self, stores: tuple[Store, ...], issuer: Issuer) -> Iterator[World]:
        """Everything as on the first day: one secret, just provisioned, its consumers at work."""
        self._serial += 1
        self.clock_file.unlink(missing_ok=True)
        self.aws.control.reset()
        self.keyvault.vault.reset()
        self.wire.forget()
        world = World(self, stores, issuer, f"k{self._serial}")
        world.provision()
        with Consumers(world.readers, at_openai(self.openai.base_url) if issuer == "openai" else by_form) as consumers:
            world.consumers = consumers
            self.wire.applied = consumers.look
            try:
                consumers.look()
                yield world
            finally:
                self.wire.watch()
                self.wire.applied = lambda: None

    def _logins(self) -> dict[str, str]:
        """What the SDKs find in the environment, in this process and in Keyturn's."""
        return {
            **{name: value for name, value in self.aws.environment().items() if name != "AWS_ENDPOINT_URL"},
            "AZURE_TENANT_ID": self.keyvault.tenant_id,
            "AZURE_CLIENT_ID": self.keyvault.client_id,
            "AZURE_CLIENT_SECRET": self.keyvault.client_secret,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        }

    def environment(self) -> dict[str, str]:
        """What a `keyturn` gets, wherever it runs."""
        role_id, secret_id = self.role
        return {
            **self._logins(),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "KEYTURN_STACK": "sandbox",
            "KEYTURN_SANDBOX_CLOCK": str(self.clock_file),
            "KEYTURN_SANDBOX_SLEEP": "skip",
            # As talkative as it gets: values must not be in what it says even then.
            "KEYTURN_LOG_LEVEL": "DEBUG",
            "KEYTURN_VAULT_ROLE_ID": role_id,
            "KEYTURN_VAULT_SECRET_ID": secret_id,
            "OPENAI_ADMIN_KEY": self.openai.admin_key,
        }

    def consumer_environment(self) -> dict[str, str]:
        """What the applications get; straight to the servers."""
        role_id, secret_id = self._reader_role
        return {
            **self._logins(),
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.aws.endpoint,
            "AZURE_AUTHORITY_HOST": self.keyvault.authority,
            "AZURE_KEYVAULT_URL": self.keyvault.vault_url,
            "AZURE_KEYVAULT_CACERT": self.keyvault.ca,
            "VAULT_ADDR": self.bao.address,
            "VAULT_CACERT": str(self.bao.ca),
            "VAULT_ROLE_ID": role_id,
            "VAULT_SECRET_ID": secret_id,
        }

    def logins(self) -> set[str]:
        """Keyturn's own secrets."""
        secrets = {self.openai.admin_key, self.role[1], self.keyvault.client_secret}
        return secrets | {self.aws.environment()["AWS_SECRET_ACCESS_KEY"]}


@dataclass(frozen=True)
class Ran:
    """One `keyturn` that has ended."""

    arguments: tuple[str, ...]
    code: int
    """Negative: the signal that ended it."""
    said: str


@dataclass
class World:
    """One execution's secret, and what happens to it."""

    site: Site
    stores: tuple[Store, ...]
    """The primary first."""
    issuer: Issuer
    installation: str
    consumers: Consumers = field(init=False)
    ran: list[Ran] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory = self.site.directory / self.installation
        (self.directory / "tmp").mkdir(parents=True)
        self.stack_file = self.directory / "Pulumi.sandbox.yaml"
        self.project = self._openai_project()
        self.stack_file.write_text(yaml.safe_dump({"config": self._declared()}))
        audit = FileAuditor(self.audit_file)
        self.assembly: Assembly = assemble(load(self.stack_file), self.environment, audit)
        self.policy: Policy = self.assembly.config.policies[0]

    @property
    def environment(self) -> dict[str, str]:
        """All that a `keyturn` gets. Whatever it might leave at home or in temporary files is found here."""
        own = {"HOME": str(self.directory), "TMPDIR": str(self.directory / "tmp")}
        return {**self.site.environment(), **own}

    @property
    def audit_file(self) -> Path:
        return self.directory / ".keyturn" / "audit" / "sandbox.jsonl"

    def _openai_project(self) -> str:
        return str(self._administer("POST", "", json={"name": self.installation})["id"])

    def _administer(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """A request of the organization's administrator, below its projects."""
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self.site.openai.admin_key}"
            url = f"{self.site.openai.base_url}/organization/projects{path}"
            found: dict[str, Any] = session.request(method, url, timeout=10, **more).json()
            return found

    def _declared(self) -> dict[str, Any]:
        """The stack: nothing but what this execution is about, so that no request goes elsewhere."""
        at = {name: proxy.address for name, proxy in self.site.proxies.items()}
        ca = str(self.site.bao.ca)
        role = {"roleId": {"env": "KEYTURN_VAULT_ROLE_ID"}, "secretId": {"env": "KEYTURN_VAULT_SECRET_ID"}}
        stores = {
            "vault": {
                "kind": "hashicorp-vault",
                "address": at["vault"],
                "prefix": self.installation,
                "caBundle": ca,
                "auth": {"method": "approle", **role},
            },
            "aws": {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": at["aws"]},
            "azure": {
                "kind": "azure-key-vault",
                "vaultUrl": at["azure"],
                "authorityHost": at["azure"],
                "caBundle": ca,
                "verifyChallengeResource": False,
            },
        }
        issuers = {
            "openai": {
                "kind": "openai",
                "project": self.project,
                "baseUrl": f"{at['openai']}/v1",
                "admin": {"env": "OPENAI_ADMIN_KEY"},
            },
            "generated": {"kind": "generated"},
        }
        primary, *replicas = self.stores
        secret = {
            "name": NAME,
            "store": primary,
            "replicas": replicas,
            "issuer": self.issuer,
            "owner": "team",
            "consumers": [{"name": f"reader-of-{store}", "refreshWithin": "15m"} for store in self.stores],
            "rotateEvery": "30d",
            "grace": "24h",
        }
        return {
            "keyturn:installation": self.installation,
            "keyturn:environment": "sandbox",
            "keyturn:stores": {name: stores[name] for name in self.stores},
            "keyturn:issuers": {self.issuer: issuers[self.issuer]},
            "keyturn:owners": {"team": {"notify": []}},
            "keyturn:secrets": [secret],
        }

    # --- what happens ----------------------------------------------------------------------------

    def provision(self) -> None:
        """What `pulumi up` does for a new secret."""
        assembly = self.assembly
        Provisioner(
            assembly.engine, assembly.stores, assembly.issuers, assembly.places, assembly.clock, lambda _text: None
        ).create(self.policy, bootstrap="apply")

    def move(self, by: timedelta) -> None:
        self.site.clock.move(by)

    def keyturn(self, *arguments: str) -> Ran:
        """Runs the command as a process, until it ends or is killed."""
        with subprocess.Popen(
            [str(Path(sys.executable).with_name("keyturn")), *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            self.site.wire.attach(process.pid)
            try:
                said, _ = process.communicate(timeout=_COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        self.ran.append(Ran(arguments, process.returncode, said))
        return self.ran[-1]

    def watch(self, strike: Strike | None = None) -> None:
        self.site.wire.watch(strike)

    # --- what there is ---------------------------------------------------------------------------

    @cached_property
    def readers(self) -> Mapping[str, Callable[[], str]]:
        """By store: gives the value that it hands out now."""
        env = self.site.consumer_environment()
        entry = f"sandbox/{NAME}"
        entries = {"vault": f"{self.installation}/{entry}", "aws": entry, "azure": f"sandbox--{NAME}"}

        def reader(store: str) -> Callable[[], str]:
            read = READERS[store](env)
            return lambda: read(entries[store])

        return {store: reader(store) for store in self.stores}

    def records(self) -> list[dict[str, Any]]:
        """The audit trail."""
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    def issued(self) -> list[dict[str, Any]]:
        """Every key that there ever was of this execution, as the issuer itself knows it."""
        return [key for key in self.site.openai.control.issued() if key["project_id"] == self.project]

    def accounts(self) -> set[str]:
        """Ids of the service accounts that there are."""
        answer = self._administer("GET", f"/{self.project}/service_accounts", params={"limit": 100})
        return {account["id"] for account in answer["data"]}
