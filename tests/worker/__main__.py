"""Builds the app's package, installs what it asks for, and drives it: `make worker`, or `python -m tests.worker`.

Takes Python 3.13 or later, which the worker's library is for, and fetches it and the app's requirements from the
package index. The vault and the issuer are the stand-ins.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from hosting.packages import azure
from rotation import policy as policies
from rotation.assembly import assemble
from rotation.config import load
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openai.harness import OpenAIServer
from tests.functions.events import NEAR, body, data, event, validation
from tests.functions.test_azure_functions import CHAT, ENTRY, VENDOR, declared
from tests.world import FakeClock, Trail

RUNTIME = "azure-functions-runtime==1.3.0"
ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"


class Worker:
    """The driver, running in the app's folder."""

    def __init__(self, python: Path, folder: Path, env: dict[str, str]) -> None:
        ours, theirs = os.pipe()
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "tests" / "worker" / "driver.py"), str(theirs)],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **env},
            stdin=subprocess.PIPE,
            stdout=(folder.parent / "printed").open("wb"),
            stderr=(folder.parent / "log").open("wb"),
            pass_fds=[theirs],
            text=True,
        )
        os.close(theirs)
        self._answers = os.fdopen(ours)

    def __enter__(self) -> Self:
        self.functions = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._answers.close()
        self._process.wait(timeout=30)

    def call(self, function: str, argument: str, kind: str, value: object) -> dict[str, Any]:
        assert self._process.stdin
        given = {"function": function, "argument": argument, "kind": kind, "value": value}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def post(self, *events: object, method: str = "POST", **headers: str) -> dict[str, Any]:
        text = body(*events).decode()
        request = {"method": method, "url": "/api/events", "headers": headers, "body": text}
        told = self.call("events", "req", "http", request)
        assert "failed" not in told, told
        return told

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the worker has ended with {self._process.wait()}; its log is above")
        told: dict[str, Any] = json.loads(line)
        return told


def installed(python: str, folder: Path, requirements: Path) -> Path:
    """The interpreter of an environment with the worker's library and what the app asks for."""
    quiet = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([UV, "venv", "--quiet", "--python", python, folder], check=True, env=quiet)
    found = folder / "bin" / "python"
    wanted = [RUNTIME, "--requirement", str(requirements)]
    subprocess.run([UV, "pip", "install", "--quiet", "--python", found, *wanted], check=True, env=quiet)
    return found


@contextmanager
def site(folder: Path) -> Iterator[tuple[KeyVaultServer, OpenAIServer, Path, dict[str, str]]]:
    """Stand-ins, a stack file over them with one secret whose rotation is due, and the app's settings."""
    now = datetime.now(UTC).replace(microsecond=0)
    clock = FakeClock(now - timedelta(days=31))
    with KeyVaultServer(now=clock.now) as vault, OpenAIServer(now=clock.now) as openai:
        headers = {"Authorization": f"Bearer {openai.admin_key}"}
        url = f"{openai.base_url}/organization/projects"
        project = requests.post(url, json={"name": "worker"}, headers=headers, timeout=10).json()["id"]
        (folder / "certificates").mkdir()
        (folder / "certificates" / "vault.pem").write_bytes(Path(vault.ca).read_bytes())
        where = {"kind": "azure-key-vault", "vaultUrl": vault.vault_url, "authorityHost": vault.authority}
        store = where | {"caBundle": "certificates/vault.pem", "verifyChallengeResource": False}
        issuer = VENDOR | {"project": project, "baseUrl": openai.base_url}
        stack = declared(stores={"azure": store}, issuers={"openai": issuer, "generated": {"kind": "generated"}})
        stack["keyturn:secrets"] = stack["keyturn:secrets"][:1]
        (folder / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": stack}))
        login = {"TENANT_ID": vault.tenant_id, "CLIENT_ID": vault.client_id, "CLIENT_SECRET": vault.client_secret}
        env = {f"AZURE_{key}": text for key, text in login.items()} | {"OPENAI_ADMIN_KEY": openai.admin_key}
        os.environ.update(env)
        config = load(folder / "Pulumi.prod.yaml")
        assembly = assemble(config, env, Trail(), clock)
        assembly.stores["azure"].create(ENTRY, policies.written(config.policies[0]))
        assembly.engine.run(assembly.target(config.policies[0]))
        clock.at = now
        yield vault, openai, folder / "Pulumi.prod.yaml", env


def drive(worker: Worker, vault: KeyVaultServer, openai: OpenAIServer) -> None:
    """Every function, as the platform calls it. Raises AssertionError where one does not do what it should."""

    def seen(what: str, so: object) -> None:
        assert so, what
        print(f"✓ {what}", flush=True)

    def alive() -> int:
        return sum(key["accepted"] for key in openai.control.issued() if key["project_id"])

    kinds = {name: {part["type"] for part in parts} for name, parts in worker.functions.items()}
    seen(
        f"indexed: {', '.join(sorted(kinds))}",
        kinds == {"events": {"httpTrigger", "http", "queue"}, "run": {"queueTrigger"}, "sweep": {"timerTrigger"}},
    )

    told = worker.post(validation("512d38b6"), **{"aeg-event-type": "SubscriptionValidation"})
    seen("a subscription is validated", json.loads(told["http"]["body"]) == {"validationResponse": "512d38b6"})
    told = worker.post(method="OPTIONS", **{"WebHook-Request-Origin": "eventgrid.azure.net"})
    seen("CloudEvents shake hands", told["http"]["headers"]["WebHook-Allowed-Origin"] == "eventgrid.azure.net")
    told = worker.post("mangled")
    seen("what is mangled is refused", (told["http"]["status"], told["outputs"]) == ("400", {}))
    heavy = {"boto3", "hvac", "requests", "azure.identity", "azure.keyvault"} & set(told["modules"])
    seen("so far no SDK was loaded", not heavy)

    near = event(NEAR, data(ENTRY) | {"Id": f"{vault.vault_url}/secrets/{ENTRY}/0", "VaultName": None}, ENTRY, topic="")
    (queued,) = worker.post(near, near)["outputs"]["prompts"]
    seen("a near-expiry event is queued, once", json.loads(queued) == {"secret": CHAT, "store": "azure"})
    told = worker.call("run", "message", "string", queued)
    seen("its run rotates: two keys live, one of them drains", "failed" not in told and alive() == 2)
    told = worker.call("run", "message", "string", queued)
    seen("delivered again, it finds nothing due", "failed" not in told and alive() == 2)
    told = worker.call("sweep", "timer", "json", json.dumps({"IsPastDue": False, "Schedule": {}}))
    seen("the timer sweeps", "failed" not in told)

    with vault.down():
        told = worker.call("run", "message", "string", CHAT)
        seen("a vault that is away fails the run, for the queue to repeat", told["failed"].startswith("Redeliver: "))
    told = worker.call("run", "message", "bytes", "nonsense!")
    seen("a message that says nothing is dropped", "failed" not in told)
    seen("no SDK of another cloud was loaded", not {"boto3", "hvac"} & set(told["modules"]))


def main() -> int:
    """Drives the app; 0 when all was as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.worker", description=__doc__)
    parser.add_argument("--python", default="3.13", help="the interpreter, by version or path")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="keyturn-worker-") as name,
        site(Path(name)) as (vault, openai, stack, env),
    ):
        package, app = Path(name) / "app.zip", Path(name) / "app"
        if code := azure.main(["--config", str(stack), "--output", str(package)]):
            return code
        with zipfile.ZipFile(package) as archive:
            archive.extractall(app)
        python = installed(given.python, Path(name) / "venv", app / "requirements.txt")
        try:
            with Worker(python, app, env) as worker:
                drive(worker, vault, openai)
        except BaseException:
            print((Path(name) / "log").read_text(), file=sys.stderr)
            raise
        printed, log = ((Path(name) / part).read_text() for part in ("printed", "log"))
        value = vault.client().get_secret(ENTRY).value
        assert value
        assert '"event": "promote.done"' in printed, printed
        assert value not in printed + log
        print(f"✓ the audit trail is on the console, and no value in {len(printed + log):,} characters of output")
        return 0


if __name__ == "__main__":
    sys.exit(main())
