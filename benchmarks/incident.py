"""An incident: two hundred leaked keys at once, and one key in the sandbox's services.

    python -m benchmarks.incident

Two hundred: stores and an issuer in memory whose every call takes 50 ms, behind the limits that real ones are behind
(rotation.resilience), with a real audit trail and record on this machine's disk. What could at best be reached follows from
the calls: each key needs its calls one after the other and the pauses between equal answers of its issuer, and a service
takes AT_ONCE calls side by side.

One: a Vault server and the stand-in of OpenAI on this machine, from the command's first line to its last.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest import mock

import requests
import yaml

from benchmarks.table import Row, show
from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.issuers.reading import shipped
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import policy as policies
from rotation.assembly import Assembly, assemble
from rotation.audit.files import FileAuditor
from rotation.cli.main import run as main_command
from rotation.clock import SystemClock
from rotation.config import load
from rotation.declared import Config
from rotation.engine import Engine, Places
from rotation.incident import gather, plan, record
from rotation.incident.record import Files, Incident
from rotation.incident.run import Runner, Saver, Tapped
from rotation.incident.selection import Selection
from rotation.model import Capabilities, Policy, Propagation
from rotation.ports import Auditor, Record
from rotation.provision import Provisioner
from rotation.resilience import AT_ONCE, PatientIssuer, PatientStore, Service
from rotation.sections import GeneratedConfig, VaultConfig
from rotation.situation import HASTE
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY, OpenBaoServer

KEYS: Final = 200
CALL: Final = 0.05
"""Seconds that each call takes."""
TURNS: Final = 4
WITHIN: Final = 1.3
"""Times what could at best be reached."""


class _Switch:
    """An audit trail that may be tapped after the engine was made."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor

    def write(self, line: Record) -> None:
        self.auditor.write(line)


class Far:
    """Services whose calls take their time once `slow` is set, and are counted."""

    def __init__(self, folder: Path, number: int) -> None:
        self.slow = False
        self.calls: list[tuple[str, str]] = []
        """Service and operation, in the order of their beginning."""
        clock = SystemClock()
        spread = _of_openai()
        self.vault, self.vendor = MemoryVault(), MemoryVendor(clock.now)
        names = [f"service-{one:03}" for one in range(number)]
        self.policies = [_policy(name) for name in names]
        store = MemoryStore("vault", self.vault, clock.now, self._hook("vault"))
        quick = MemoryIssuer("issuer", self.vendor)
        issuer = MemoryIssuer("issuer", self.vendor, spread, self._hook("issuer"))
        patient = {"vault": PatientStore(store, Service("vault", clock, lambda: 0.5))}
        issuers = {"issuer": PatientIssuer(issuer, Service("issuer", clock, lambda: 0.5))}
        places = Places(lambda _, environment, name: f"{environment}/{name}", lambda *_: None)
        self.switch = _Switch(FileAuditor(folder / "audit.jsonl"))
        config = Config(
            installation="acme",
            environment="bench",
            stores={"vault": VaultConfig.model_validate({"kind": "hashicorp-vault", "address": "https://127.0.0.1:1"})},
            issuers={"issuer": GeneratedConfig.model_validate({"kind": "generated"})},
            owners={},
            policies=tuple(self.policies),
        )
        engine = Engine(patient, issuers, places, clock, self.switch)
        self.assembly = Assembly(config, engine, patient, issuers, places, clock)
        for one in self.policies:
            store.create(f"bench/{one.name}", policies.written(one))
            first = Engine({"vault": store}, {"issuer": quick}, places, clock, self.switch)
            assert first.run(self.assembly.target(one)).trouble is None

    def _hook(self, service: str) -> Callable[[str], None]:
        def passed(call: str) -> None:
            if call.startswith("before ") and self.slow:
                self.calls.append((service, call.removeprefix("before ")))
                time.sleep(CALL)

        return passed

    def emergency(self, folder: Path) -> tuple[Incident, float, float]:
        """Everything leaked. The record, and the seconds from the plan's beginning to the last proof, and to the end."""
        leaked = {key.value for key in self.vendor.keys}
        a, everything = self.assembly, Selection(everything=True)
        chosen = gather.gather(a, everything)
        self.slow = True
        began = time.monotonic()
        incident = record.begin(
            plan.make(a, everything, chosen),
            [],
            identity=record.identity(a.clock.now(), "beef"),
            installation="acme",
            environment="bench",
            stack="bench",
            began_at=a.clock.now(),
            ran_by="bench",
        )
        planned = time.monotonic() - began
        files = Files(folder / "incidents")

        def write() -> None:
            with runner.lock:
                files.save(incident)

        saver = Saver(write)
        runner = Runner(a, incident, save=saver.save, keep=saver.keep)
        self.switch.auditor = Tapped(self.switch.auditor, runner.heard)
        with saver:
            runner.run()
        took = time.monotonic() - began
        assert incident.over, [secret for secret in incident.secrets if secret.rest][:2]
        assert not any(self.vendor.accepts(value) for value in leaked), "every leaked key is dead"
        assert len(self.vendor.live()) == len(leaked), "each was replaced once"
        proven = incident.totals()["proven_seconds"]
        assert proven is not None
        return incident, planned + proven, took


def _of_openai() -> Capabilities:
    """Keys that have to be accepted, and refused, as often in a row as those of OpenAI, and as long apart."""
    said = shipped("openai").capabilities
    return Capabilities(create=Propagation(**dict(said.create)), revoke=Propagation(**dict(said.revoke)))


def _policy(name: str) -> Policy:
    return Policy(
        installation="acme",
        environment="bench",
        name=name,
        store="vault",
        issuer="issuer",
        owner="team",
        rotate_every=timedelta(days=30),
        grace=timedelta(hours=1),
    )


# --- two hundred -----------------------------------------------------------------------------------


def many() -> Iterator[Row]:
    """Two hundred leaked keys, and one beside them, from which follows what could be reached."""
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder:
        one = Far(Path(folder, "one"), 1)
        _, alone, _ = one.emergency(Path(folder, "one"))
        far = Far(Path(folder, "many"), KEYS)
        incident, took, ended = far.emergency(Path(folder, "many"))
    pause = (_of_openai().create.interval / HASTE).total_seconds()
    last = max(number for number, (_, operation) in enumerate(one.calls) if operation == "verify")
    calls = one.calls[: last + 1]  # what follows the proof only tidies up
    path, bound, why = best(calls, pause)
    each = Counter(service for service, _ in calls)
    told = ", ".join(f"{number} of {service}" for service, number in sorted(each.items()))
    more = len(far.calls) - KEYS * len(one.calls)
    totals = incident.totals()
    times = ", ".join(f"{name.removesuffix('_seconds')} {seconds:.1f} s" for name, seconds in totals.items() if seconds)
    yield Row("one key at 50 ms a call", f"{alone:.1f} s", f"{path:.1f} s at best")
    yield Row(
        f"{KEYS} keys at 50 ms a call: replaced, revoked, shown dead",
        f"{took:.1f} s, {took / bound:.2f} x",
        f"{bound:.1f} s at best",
        f"{WITHIN} x",
        took <= WITHIN * bound,
        note=f"A key takes {len(calls)} calls one after the other ({told}) and pauses of {path - len(calls) * CALL:.1f} s "
        f"between equal answers; a service takes {AT_ONCE} calls side by side. {why} Calls beyond that: {more}. Until all were: "
        f"{times}. Journals tidied and thawed, and the record written: {ended:.1f} s.",
    )


def best(calls: Sequence[tuple[str, str]], pause: float) -> tuple[float, float, str]:
    """What one key takes alone, what KEYS of them take at best, and why, from the calls that one makes in their order.

    Whatever the order of the keys, one of them is the last to have had its n-th call of a service. By then that service has
    answered n calls of every key; and of that key everything after it is still to come. The worst n counts.
    """
    after = [CALL + (pause if before[1] == call[1] == "verify" else 0.0) for before, call in pairwise(calls)]
    path, bound, why = CALL + sum(after), 0.0, ""
    for number, (service, operation) in enumerate(calls):
        nth = sum(other == service for other, _ in calls[: number + 1])
        answered, left = KEYS * nth * CALL / AT_ONCE, sum(after[number:])
        if answered + left > bound:
            bound = answered + left
            why = (
                f"{service} needs {answered:.1f} s for the first {nth} calls of all keys (up to {operation}), and after the "
                f"last of these its key needs {left:.1f} s."
            )
    return path, max(path, bound), why


# --- one -------------------------------------------------------------------------------------------


def one() -> Iterator[Row]:
    """One leaked key in the sandbox's services, by the command itself."""
    with (
        tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder,
        OpenBaoServer() as bao,
        OpenAIServer() as openai,
    ):
        role, secret = bao.approle(KEYTURN_POLICY)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "KEYTURN_VAULT_ROLE_ID": role,
            "KEYTURN_VAULT_SECRET_ID": secret,
            "OPENAI_ADMIN_KEY": openai.admin_key,
        }
        stack = _stack(Path(folder), bao, openai)
        config = load(stack)
        a = assemble(config, env, FileAuditor(Path(folder, "applied.jsonl")))
        Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None).create(
            config.policies[0], bootstrap="apply"
        )
        command = ["emergency", config.policies[0].name, "--yes", "--json", "--config", str(stack)]
        took: list[float] = []
        for _ in range(TURNS):
            began = time.monotonic()
            (report,) = _run(command, env, Path(folder))
            took.append(time.monotonic() - began)
            assert report["proven_seconds"] is not None
        warm = took[1:]
        began = time.monotonic()
        cold = [str(Path(sys.executable).parent / "keyturn"), *command]
        subprocess.run(cold, env=env, cwd=folder, check=True, capture_output=True)
        spent = time.monotonic() - began
        alive = [key for key in openai.control.issued() if key["accepted"] and key["project_id"]]
        assert len(alive) == 1, "each turn replaced the key, and killed it"
    yield Row("one key in the sandbox, warm", f"{median(warm):.2f} s", "", "3 s", median(warm) <= 3)
    yield Row("… as a process of its own", f"{spent:.2f} s")


def _run(command: Sequence[str], env: Mapping[str, str], folder: Path) -> list[dict[str, Any]]:
    """The command in this process, as a long-running one would run it."""
    out = io.StringIO()
    with (
        mock.patch.dict(os.environ, env, clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main_command(command)
    found: list[dict[str, Any]] = json.loads(out.getvalue())
    return found


def _stack(folder: Path, bao: OpenBaoServer, openai: OpenAIServer) -> Path:
    headers = {"Authorization": f"Bearer {openai.admin_key}"}
    url = f"{openai.base_url}/organization/projects"
    project = requests.post(url, json={"name": "bench"}, headers=headers, timeout=10).json()["id"]
    login = {"roleId": {"env": "KEYTURN_VAULT_ROLE_ID"}, "secretId": {"env": "KEYTURN_VAULT_SECRET_ID"}}
    vault = {"kind": "hashicorp-vault", "address": bao.address, "caBundle": str(bao.ca)}
    issuer = {"kind": "openai", "project": project, "baseUrl": openai.base_url, "admin": {"env": "OPENAI_ADMIN_KEY"}}
    config = {
        "installation": "acme",
        "environment": "sandbox",
        "stores": {"vault": {**vault, "auth": {"method": "approle", **login}}},
        "issuers": {"openai": issuer},
        "owners": {"team": {"notify": []}},
        "secrets": [
            {
                "name": "support-copilot-chat",
                "store": "vault",
                "issuer": "openai",
                "owner": "team",
                "rotateEvery": "30d",
            }
        ],
    }
    path = folder / "Pulumi.sandbox.yaml"
    path.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": part for key, part in config.items()}}))
    return path


def main() -> bool:
    """Prints the tables. Whether every target was met."""
    met = show("An incident: many keys", many())
    return show("An incident: one key, over a Vault server and the stand-in of OpenAI", one()) and met


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
