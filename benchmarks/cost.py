"""What a fleet costs: calls, entries, replicas and network, on each cloud.

    python -m benchmarks.cost            prints the table of docs/cost.md
    python -m benchmarks.cost write      puts it into that page
    python -m benchmarks.cost measure    counts the calls anew, on the local stand-ins

Numbers of calls are counted, `CALLS`; prices and sizes are assumptions, `PRICES` and `FLEET`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final
from unittest import mock

import requests
import yaml

from rotation.assembly import assemble
from rotation.audit import StreamAuditor
from rotation.config import load
from rotation.provision import Provisioner
from sandbox.aws.server import AwsServer
from sandbox.clock import SandboxClock
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer

PAGE: Final = Path(__file__).parents[1] / "docs" / "cost.md"
FLEETS: Final = (10, 1_000, 100_000)


@dataclass(frozen=True, slots=True)
class Calls:
    """Requests to a store, as they were counted."""

    rotation: int
    """One rotation from the first look to the proof, on a store that is the only one of its secret."""
    look: int
    """What a sweep asks of a secret with which there is nothing to do."""
    page: int
    """Entries that one request of a list gives (documentation of the services)."""
    keyed: int = 0
    """Of those of a rotation, the ones for which the store asks its key service, too: values that go in or out."""


CALLS: Final[Mapping[str, Calls]] = {
    "AWS Secrets Manager": Calls(rotation=15, look=1, page=100, keyed=3),
    "Azure Key Vault": Calls(rotation=38, look=5, page=25),
    "Vault or OpenBao": Calls(rotation=22, look=2, page=100_000),
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """How a fleet is run. Assumptions."""

    rotations: float = 1.0
    """Of a secret in a month: every 30 days."""
    sweeps: int = 720
    """In a month of 30 days: each hour."""
    replicas: float = 0.5
    """Of a secret, in stores of the same kind: every second secret has one."""
    reads: int = 3_000
    """Of a value by its consumers in a month: four processes, each hour."""
    kilobytes: float = 4.0
    """That one call moves, headers and TLS included."""
    seconds: float = 0.15
    """That a sweep's function is busy with one secret; calls of 50 ms, less what runs side by side."""
    zones: int = 2
    """In which a private network has endpoints."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars. Assumptions: list prices as remembered in November 2026 for regions in Western Europe; look yours up."""

    aws_entry: float = 0.40
    """Secrets Manager, an entry in a month; a replica is one."""
    aws_call: float = 0.05 / 10_000
    """Secrets Manager, each request."""
    aws_key_call: float = 0.03 / 10_000
    """KMS, where entries have a key of one's own."""
    aws_second: float = 0.0000166667 * 0.5
    """Lambda, a second with 512 MB."""
    azure_call: float = 0.03 / 10_000
    """Key Vault, each operation on a secret; entries are free."""
    azure_second: float = 0.000016 * 0.5
    """Functions, a second with 512 MB."""
    vault_node: float = 140.0
    """A server with 4 cores and 16 GB in a month; whoever runs it is not in it."""
    vault_nodes: int = 3
    vault_node_calls: float = 1_000.0
    """Requests in a second that such a cluster answers; from there on it needs more."""
    endpoint_zone: float = 7.30
    """A private endpoint in one zone, a month."""
    nat_zone: float = 33.0
    """A gateway with a fixed address in one zone, a month: for issuers with allowlists."""
    gigabyte: float = 0.055
    """Through gateway and endpoint, a gigabyte."""


FLEET: Final = Fleet()
PRICES: Final = Prices()


def calls_of(kind: str, secrets: int, fleet: Fleet = FLEET) -> float:
    """Requests to the stores of one kind in a month, those of consumers included."""
    counted, entries = CALLS[kind], secrets * (1 + fleet.replicas)
    sweeps = fleet.sweeps * (entries * counted.look + ceil(entries / counted.page))
    return entries * fleet.rotations * counted.rotation + sweeps + entries * fleet.reads


def parts(kind: str, secrets: int, fleet: Fleet = FLEET, prices: Prices = PRICES) -> dict[str, float]:
    """Dollars in a month: entries, calls, compute, network."""
    calls, entries = calls_of(kind, secrets, fleet), secrets * (1 + fleet.replicas)
    busy = secrets * (fleet.sweeps * fleet.seconds)
    gigabytes = calls * fleet.kilobytes / 1_000_000
    private = fleet.zones * (prices.nat_zone + prices.endpoint_zone) + gigabytes * prices.gigabyte
    if kind == "AWS Secrets Manager":
        keyed = entries * (fleet.rotations * CALLS[kind].keyed + fleet.reads) * prices.aws_key_call
        return {
            "entries": entries * prices.aws_entry,
            "calls": calls * prices.aws_call + keyed,
            "compute": busy * prices.aws_second,
            "network": private,
        }
    if kind == "Azure Key Vault":
        return {
            "entries": 0.0,
            "calls": calls * prices.azure_call,
            "compute": busy * prices.azure_second,
            "network": private,
        }
    clusters = max(1, ceil(calls / (30 * 86_400) / prices.vault_node_calls))
    return {
        "entries": 0.0,
        "calls": 0.0,
        "compute": clusters * prices.vault_nodes * prices.vault_node,
        "network": fleet.zones * prices.nat_zone + gigabytes * prices.gigabyte,
    }


def table() -> str:
    """The page's tables in Markdown."""
    lines = [
        "| store | a rotation, proof included | a look of a sweep | of a list, entries a page |",
        "|---|---|---|---|",
    ]
    lines += [f"| {kind} | {c.rotation} | {c.look} | {c.page:,} |" for kind, c in CALLS.items()]
    lines += ["", "| store | secrets | calls a month | entries | calls | compute | network | **a month** | a secret |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for kind in CALLS:
        for secrets in FLEETS:
            found = parts(kind, secrets)
            total = sum(found.values())
            cells = [f"${found[name]:,.2f}" for name in ("entries", "calls", "compute", "network")]
            cells = [
                kind,
                f"{secrets:,}",
                f"{calls_of(kind, secrets):,.0f}",
                *cells,
                f"**${total:,.2f}**",
                f"${total / secrets:,.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# --- counting --------------------------------------------------------------------------------------

_Counted = Callable[[], int]


@contextmanager
def _requests_to(origin: str) -> Iterator[_Counted]:
    """Counts what this process sends there by `requests`, as the client of Vault does."""
    seen, send = [], requests.Session.send

    def counting(session: requests.Session, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
        if (prepared.url or "").startswith(origin):
            seen.append(prepared.url)
        return send(session, prepared, **options)

    with mock.patch.object(requests.Session, "send", counting):
        yield lambda: len(seen)


def _aws(stack: ExitStack, clock: SandboxClock) -> tuple[dict[str, Any], dict[str, str], _Counted]:
    server = stack.enter_context(AwsServer(now=clock.now))
    store = {"kind": "aws-secrets-manager", "region": "eu-west-1", "endpointUrl": server.endpoint}
    return store, server.environment("eu-west-1"), lambda: sum(server.control.counts().values())


def _azure(stack: ExitStack, clock: SandboxClock) -> tuple[dict[str, Any], dict[str, str], _Counted]:
    server = stack.enter_context(KeyVaultServer(now=clock.now))
    store = {
        "kind": "azure-key-vault",
        "vaultUrl": server.vault_url,
        "authorityHost": server.vault_url,
        "caBundle": server.ca,
        "verifyChallengeResource": False,
    }
    login = {
        "AZURE_TENANT_ID": server.tenant_id,
        "AZURE_CLIENT_ID": server.client_id,
        "AZURE_CLIENT_SECRET": server.client_secret,
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
    }
    return store, login, lambda: server.control.count(path="/secrets*")


def _vault(stack: ExitStack, _: SandboxClock) -> tuple[dict[str, Any], dict[str, str], _Counted]:
    server = stack.enter_context(OpenBaoServer())
    role, secret = server.approle(KEYTURN_POLICY)
    auth = {"method": "approle", "roleId": {"env": "BENCH_ROLE"}, "secretId": {"env": "BENCH_SECRET"}}
    store = {"kind": "hashicorp-vault", "address": server.address, "caBundle": str(server.ca), "auth": auth}
    counted = stack.enter_context(_requests_to(server.address))
    return store, {"BENCH_ROLE": role, "BENCH_SECRET": secret}, counted


_KINDS: Final = {"AWS Secrets Manager": _aws, "Azure Key Vault": _azure, "Vault or OpenBao": _vault}


def measure(kind: str) -> tuple[int, int]:
    """Requests to a store of this kind: of one rotation with its proof, and of a look at a secret that is in order."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-bench-")))
        clock = SandboxClock(folder / "clock.json")
        openai = stack.enter_context(OpenAIServer(now=clock.now))
        store, login, counted = _KINDS[kind](stack, clock)
        made = requests.post(
            f"{openai.base_url}/organization/projects",
            json={"name": "bench"},
            headers={"Authorization": f"Bearer {openai.admin_key}"},
            timeout=10,
        ).json()
        issuer = {
            "kind": "openai",
            "project": made["id"],
            "baseUrl": openai.base_url,
            "admin": {"env": "OPENAI_ADMIN_KEY"},
        }
        secret = {"name": "support-copilot-chat", "store": "only", "issuer": "openai", "owner": "team"}
        config = {
            "installation": "acme",
            "environment": "sandbox",
            "stores": {"only": store},
            "issuers": {"openai": issuer},
            "owners": {"team": {"notify": []}},
            "secrets": [{**secret, "rotateEvery": "30d", "grace": "1h", "drain": {"quietFor": "1h"}}],
        }
        path = folder / "Pulumi.sandbox.yaml"
        path.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": part for key, part in config.items()}}))
        own = {"KEYTURN_SANDBOX_CLOCK": str(folder / "clock.json"), "KEYTURN_SANDBOX_SLEEP": "skip"}
        stack.enter_context(mock.patch.dict(os.environ, {**login, **own, "OPENAI_ADMIN_KEY": openai.admin_key}))
        trail = stack.enter_context(Path(os.devnull).open("w"))
        a = assemble(load(path), os.environ, StreamAuditor(trail))
        policy = a.config.policies[0]
        Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, print).create(policy, bootstrap="apply")
        target = a.target(policy)
        clock.move(timedelta(hours=3))
        a.engine.run(target)
        before = counted()
        a.engine.run(target)
        look = counted() - before
        clock.move(timedelta(days=30))
        before, outcomes = counted(), [a.engine.run(target)]
        clock.move(timedelta(hours=3))
        outcomes.append(a.engine.run(target))
        events = {record.event for outcome in outcomes for record in outcome.records}
        assert {"promote.done", "proven"} <= events, [outcome.trouble or outcome.rest for outcome in outcomes]
        return counted() - before, look


def page_with(table: str) -> str:
    """The page with this table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- table -->\n")
    return f"{head}<!-- table -->\n{table}<!-- end of table -->\n{rest.partition('<!-- end of table -->' + chr(10))[2]}"


def main(arguments: list[str]) -> int:
    if arguments == ["measure"]:
        for kind in CALLS:
            rotation, look = measure(kind)
            print(f"{kind}: {rotation} a rotation, {look} a look")
    elif arguments == ["write"]:
        PAGE.write_text(page_with(table()), encoding="utf-8")
    else:
        print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
