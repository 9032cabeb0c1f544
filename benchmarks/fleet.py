"""A fleet with nothing to do: how many calls a sweep makes, and how much memory it takes.

    python -m benchmarks.fleet

Secrets Manager: pages of ListSecrets in the form that the stand-in gives one of them, for as many secrets as wanted, made up
page by page by a server of this process, so that a hundred thousand fit. The sweep is a process of its own, with boto3;
its peak memory is what Linux says of it (VmHWM), the interpreter and all libraries included. Key Vault and OpenBao: the
stand-in, and the real server, with fewer secrets, whose calls are counted; what ten thousand take follows, as nothing
but the number of pages depends on how many there are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from unittest import mock

from benchmarks.table import Row, show
from rotation import sweep
from rotation.assembly import Assembly, assemble
from rotation.audit.files import FileAuditor
from rotation.config import load
from rotation.packed import pack
from rotation.provision import Provisioner
from sandbox.aws.server import REGION, AwsServer
from sandbox.clock import SandboxClock
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "service-000000"
MEGABYTES: Final = 120
PAGE: Final = 100
FEW: Final = 60
"""Secrets of the stores whose servers are asked in earnest."""
_NEXT: Final = "page-"


class Fleet:
    """Answers ListSecrets for so many secrets, all like one; refuses whatever else it is asked.

    Parameters:
        item: of an answer to ListSecrets, with the name NAME.
        count: how many there are.
    """

    def __init__(self, item: Mapping[str, Any], count: int) -> None:
        self._item = json.dumps(item, default=lambda at: at.timestamp() if isinstance(at, datetime) else str(at))
        self._count = count
        self.calls: Counter[str] = Counter()

    def page(self, first: int) -> str:
        """The body of one answer."""
        names = range(first, min(first + PAGE, self._count))
        items = ",".join(self._item.replace(NAME, f"service-{number:06}") for number in names)
        more = f',"NextToken":"{_NEXT}{first + PAGE}"' if first + PAGE < self._count else ""
        return f'{{"SecretList":[{items}]{more}}}'

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Gives its address."""
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api = self.headers["X-Amz-Target"].partition(".")[2]
                fleet.calls[api] += 1
                good = api == "ListSecrets"
                first = int(asked.get("NextToken", f"{_NEXT}0").removeprefix(_NEXT)) if good else 0
                body = (fleet.page(first) if good else '{"__type":"AccessDeniedException"}').encode()
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("x-amzn-RequestId", "00000000-0000-0000-0000-000000000000")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def stack(folder: Path, store: Mapping[str, Any], count: int, keep: int | None = None) -> Path:
    """A stack file with so many secrets of one store, whose values nobody but their consumers knows.

    Parameters:
        keep: so many of them are declared; all when not given.
    """
    secrets = [
        {"name": f"service-{number:06}", "store": "store", "issuer": "made", "owner": "team", "rotateEvery": "30d"}
        for number in range(count if keep is None else keep)
    ]
    declared = {
        "keyturn:installation": "acme",
        "keyturn:environment": "sandbox",
        "keyturn:stores": {"store": store},
        "keyturn:issuers": {"made": {"kind": "generated"}},
        "keyturn:owners": {"team": {"notify": []}},
        "keyturn:secrets": secrets,
    }
    path = folder / "Pulumi.sandbox.yaml"
    path.write_text(json.dumps({"config": declared}))  # which is YAML, too
    return path


def made(folder: Path, stack_file: Path, env: Mapping[str, str]) -> Assembly:
    """An assembly whose declared secrets have their first credentials."""
    assembly = assemble(load(stack_file), env, FileAuditor(folder / "audit.jsonl"))
    provisioner = Provisioner(
        assembly.engine, assembly.stores, assembly.issuers, assembly.places, assembly.clock, lambda _: None
    )
    for policy in assembly.config.policies:
        provisioner.create(policy, bootstrap="apply")
    assert assembly.stores is not None
    return assembly


def aws_item() -> dict[str, Any]:
    """One settled secret as the stand-in of Secrets Manager lists it."""
    with AwsServer() as server, tempfile.TemporaryDirectory(prefix="keyturn-bench-") as directory:
        folder, env = Path(directory), {**os.environ, **server.environment()}
        with mock.patch.dict(os.environ, server.environment()):
            store = {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": server.endpoint}
            made(folder, stack(folder, store, 1), env)
            (item,) = server.client("secretsmanager").list_secrets()["SecretList"]
    return dict(item)


def of_secrets_manager(item: Mapping[str, Any], count: int, declared: int) -> tuple[dict[str, Any], Counter[str]]:
    """What a sweep of so many came to, and the calls that the service has heard."""
    fleet = Fleet(item, count)
    with fleet.serving() as address, tempfile.TemporaryDirectory(prefix="keyturn-bench-") as directory:
        folder = Path(directory)
        store = {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": address}
        one = load(stack(folder, store, 1))
        policies = tuple(replace(one.policies[0], name=f"service-{number:06}") for number in range(declared))
        (folder / "keyturn.json").write_text(pack(replace(one, policies=policies)))
        login = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "x" * 40}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.one_sweep", str(folder / "keyturn.json")],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **login},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout), fleet.calls


def of_key_vault(count: int) -> tuple[int, int]:
    """The calls of a first sweep over so many idle secrets, and of the next one of the same process."""
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as directory, OpenBaoServer() as near:
        folder = Path(directory)
        clock = SandboxClock(folder / "clock.json")
        with KeyVaultServer(now=clock.now, ca_dir=near.ca.parent) as server:
            return _of_key_vault(count, server, folder, clock)


def _of_key_vault(count: int, server: KeyVaultServer, folder: Path, clock: SandboxClock) -> tuple[int, int]:
    login = {
        "AZURE_TENANT_ID": server.tenant_id,
        "AZURE_CLIENT_ID": server.client_id,
        "AZURE_CLIENT_SECRET": server.client_secret,
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
    }
    store = {
        "kind": "azure-key-vault",
        "vaultUrl": server.vault_url,
        "authorityHost": server.authority,
        "caBundle": str(server.ca),
        "verifyChallengeResource": False,
    }
    with mock.patch.dict(os.environ, login):
        env = {**os.environ, "KEYTURN_SANDBOX_CLOCK": str(folder / "clock.json")}
        assembly = made(folder, stack(folder, store, count), env)
        clock.move(timedelta(hours=1))  # what is younger may still be somebody's work, and is looked at
        return _requests(assembly, lambda: server.control.count(authenticated=False))


def of_openbao(count: int) -> tuple[int, int]:
    """The same of a real OpenBao."""
    with OpenBaoServer() as server, tempfile.TemporaryDirectory(prefix="keyturn-bench-") as directory:
        folder = Path(directory)
        role_id, secret_id = server.approle(KEYTURN_POLICY)
        env = {"KEYTURN_ROLE": role_id, "KEYTURN_SECRET": secret_id}
        role = {"roleId": {"env": "KEYTURN_ROLE"}, "secretId": {"env": "KEYTURN_SECRET"}}
        store = {
            "kind": "hashicorp-vault",
            "address": server.address,
            "caBundle": str(server.ca),
            "auth": {"method": "approle", **role},
        }
        assembly = made(folder, stack(folder, store, count), env)

        def requests() -> int:
            return sum('"type":"request"' in line for line in server.audit_log.read_text().splitlines())

        return _requests(assembly, requests)


def _requests(assembly: Assembly, count: Any) -> tuple[int, int]:
    found = []
    for _ in range(2):
        before = count()
        assert sweep.sweep(assembly) is sweep.Ended.DONE
        found.append(count() - before)
    return found[0], found[1]


def main() -> bool:
    """Prints the table; whether every target was met."""
    item = aws_item()
    rows = []
    for count, declared in ((10_000, 10_000), (100_000, 0)):
        told, calls = of_secrets_manager(item, count, declared)
        assert (told["quiet"], told["due"], told["troubles"], told["missing"]) == (count, 0, [], 0), told
        pages = -(-count // PAGE)
        only = sum(calls.values()) == calls["ListSecrets"]
        rows.append(
            Row(
                f"Secrets Manager, {count:,} idle: calls",
                f"{sum(calls.values()):,}",
                f"{pages:,} pages are the least",
                f"at most {pages + 1:,}",
                only and calls["ListSecrets"] <= pages + 1,
            )
        )
        met = told["peak"] <= MEGABYTES
        rows.append(
            Row(
                f"Secrets Manager, {count:,} idle: peak memory",
                f"{told['peak']:.0f} MB",
                f"{told['before']:.0f} MB with its configuration, before boto3",
                f"under {MEGABYTES} MB",
                met,
                f"{declared:,} declared in the host's configuration; {told['seconds']:.0f} s of processor time.",
            )
        )
    first, later = of_openbao(FEW)
    rows.append(
        Row(
            f"OpenBao, {FEW} idle: requests",
            f"{first}",
            "1 LIST for 200 names, with their metadata, is the least",
            "1",
            first == later == 1,
            "Ten thousand take 50, and as many again where each has its sibling for what is pending. HashiCorp Vault lists no "
            "metadata: there the least is 1 LIST a folder and one read of metadata for each, and that is what a sweep makes.",
        )
    )
    first, later = of_key_vault(FEW)
    pages = -(-FEW * 4 // 25)
    rows.append(
        Row(
            f"Key Vault, {FEW} idle: first sweep of a process, requests",
            f"{first}",
            f"{pages} pages, and {(first - pages) / FEW:.1f} for each",
            note="A list shows the newest version of each of an entry's four parts; a journal is all versions of one of them. "
            "So the first sweep looks at each.",
        )
    )
    rows.append(
        Row(
            f"Key Vault, {FEW} idle: further sweeps, requests",
            f"{later}",
            f"{pages} pages of 25 are the least",
            f"at most {pages + 2}",
            later <= pages + 2,
            "Ten thousand take 1,600: four parts each. Every secret is looked at again within a day.",
        )
    )
    return show("A fleet with nothing to do", rows)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
