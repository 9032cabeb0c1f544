"""The Lambda function: what a cold start costs, and what one rotation costs in calls and processor time.

    python -m benchmarks.aws_lambda

Cold start: processes with the extracted package and what Lambda's runtime has, and nothing else, by turns; processor
time from the interpreter's first line on, sources compiled each time, as where a package lies nothing can be written.
Rotation: the AWS and OpenAI stand-ins in this process, the rotations in another one, whose processor time is counted.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import boto3
import requests
import yaml

from benchmarks.table import Row, show
from hosting.packages import archive
from hosting.packages import aws as package
from providers.issuers.reading import shipped
from rotation.assembly import Assembly, assemble
from rotation.audit import StreamAuditor
from rotation.config import load
from rotation.engine import Target
from rotation.functions import aws_lambda
from rotation.packed import pack, unpack
from rotation.ports import Record
from rotation.provision import Provisioner
from rotation.situation import Stop
from sandbox.aws.executor import provide_runtime
from sandbox.aws.server import AwsServer
from sandbox.clock import SandboxClock
from sandbox.openai.harness import OpenAIServer

TURNS: Final = 9
ROTATIONS: Final = 12
REGION: Final = "eu-central-1"
ROOT: Final = Path(__file__).parents[1]

_COLD: Final = """
import time; began = time.process_time()
import os, sys
sys.path[:0] = [os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]]
mode = sys.argv[1]
if mode != "client":
    import rotation.functions.aws_lambda
if mode == "ready":
    import gc; gc.set_threshold(rotation.functions.aws_lambda._ALLOCATIONS, 20, 20)
    from pathlib import Path
    from rotation.functions.lambda_host import open_host
    host = open_host(os.environ, Path(os.environ["LAMBDA_TASK_ROOT"]))
    host._assembly.stores.get("aws"), host._assembly.issuers.get("openai")
import boto3
boto3.session.Session(region_name="eu-central-1").client("secretsmanager")
print(time.process_time() - began)
"""

_LEAST: Final = {
    "DescribeSecret": (3, "what is there, before the intent; before retiring; again once condemned"),
    "TagResource": (
        5,
        "the intent; the new key's id, as a mint may arrive twice; promoted; condemned; revoked: each in time",
    ),
    "PutSecretValue": (1, "stage"),
    "GetSecretValue": (2, "what was stored is what is verified; the old value, to show it dead"),
    "UpdateSecretVersionStage": (1, "promote, by compare-and-set"),
    "UntagResource": (1, "forget a key that is dead"),
}
"""Calls of Secrets Manager without which a rotation is not safe, or not proven."""
_ABOVE: Final = {
    "DescribeSecret": "one after staging, one after promoting: what is promoted, and noted, is what was seen to be there, "
    "not what was sent",
}
"""Why there are more of some."""


def cold() -> Iterator[Row]:
    """Cold starts, by turns."""
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder:
        place = Path(folder)
        stack = _stack(place, "https://api.openai.com/v1", "proj_bench", None)
        archive.write(place / "function.zip", package.entries(stack))
        subprocess.run([sys.executable, "-m", "zipfile", "-e", "function.zip", "task"], cwd=place, check=True)
        provide_runtime(place / "runtime", with_clock=False)
        env = {
            "LAMBDA_TASK_ROOT": str(place / "task"),
            "LAMBDA_RUNTIME_DIR": str(place / "runtime"),
            "KEYTURN_LOG_LEVEL": "WARNING",
            **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_ADMIN_KEY"), "none"),
        }
        took: dict[str, list[float]] = {"client": [], "module": [], "ready": []}
        for _ in range(TURNS):
            for mode, times in took.items():
                command = [sys.executable, "-I", "-S", "-B", "-c", _COLD, mode]
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
                times.append(float(done.stdout) * 1000)
    base, module, ready = (median(took[mode]) for mode in ("client", "module", "ready"))
    beside = f"{base:.0f} ms: boto3 + one client"
    ratio = module / base
    yield Row(
        "cold import of the module, with one client", f"{module:.0f} ms, {ratio:.2f} x", beside, "1.15 x", ratio <= 1.15
    )
    # An invocation needs more than its module. This part grows with what the function can do, and has no target.
    yield Row("… and all that the first step needs", f"{ready:.0f} ms, {ready / base:.2f} x", beside)


def _stack(folder: Path, base_url: str, project: str, endpoint: str | None, *, native: bool = False) -> Path:
    aws = {"kind": "aws-secrets-manager", "region": REGION} | ({"endpointUrl": endpoint} if endpoint else {})
    function = f"arn:aws:lambda:{REGION}:123456789012:function:keyturn"
    aws |= {"rotation": "native", "rotationFunction": function} if native else {}
    openai = {"kind": "openai", "project": project, "baseUrl": base_url, "admin": {"env": "OPENAI_ADMIN_KEY"}}
    secret = {"name": "support-copilot-chat", "store": "aws", "issuer": "openai", "owner": "team"}
    config = {
        "installation": "acme",
        "environment": "sandbox",
        "stores": {"aws": aws},
        "issuers": {"openai": openai},
        "owners": {"team": {"notify": []}},
        "secrets": [{**secret, "rotateEvery": "30d", "grace": "1h", "drain": {"quietFor": "1h"}}],
    }
    path = folder / "Pulumi.sandbox.yaml"
    path.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": part for key, part in config.items()}}))
    return path


# --- one rotation ----------------------------------------------------------------------------------


def rotation(*, native: bool) -> Iterator[Row]:
    """Calls and processor time of rotations with their retirement and proof.

    Parameters:
        native: by the steps that Secrets Manager has done, instead of by a sweep.
    """
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder:
        place = Path(folder)
        clock = SandboxClock(place / "clock.json")
        with OpenAIServer(now=clock.now) as openai, AwsServer(now=clock.now) as aws:
            project = _project(openai)
            stack = _stack(place, openai.base_url, project, aws.endpoint, native=native)
            env = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "KEYTURN_SANDBOX_CLOCK": str(place / "clock.json"),
                "KEYTURN_SANDBOX_SLEEP": "skip",
                "OPENAI_ADMIN_KEY": openai.admin_key,
                **aws.environment(REGION),
            }
            command = [sys.executable, "-m", "benchmarks.aws_lambda", "worker", str(stack)]
            with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
                assert worker.stdin, "it was asked for"
                assert worker.stdout, "it was asked for"
                worker.stdout.readline()  # ready: the first credential is there
                times, puts = list[float](), list[float]()
                calls, asked = Counter[str](), list[Any]()
                for _ in range(ROTATIONS):
                    aws.control.forget_calls()
                    before = len(openai.control.requests())
                    worker.stdin.write("rotate\n")
                    worker.stdin.flush()
                    told = json.loads(worker.stdout.readline())
                    times.append(told["rotation"] * 1000)
                    puts.append(told["put"] * 1000)
                    calls = Counter({name.partition(":")[2]: n for name, n in aws.control.counts().items()})
                    asked = openai.control.requests()[before:]
                worker.stdin.close()
            alive = [key for key in openai.control.issued() if key["accepted"] and key["project_id"] == project]
            assert len(alive) == 1, "each rotation ended with its proof"
    calls["PutSecretValue"] -= 1  # the one that it is compared with
    if native:
        del calls["RotateSecret"]  # the service's own, or a person's
        told = ", ".join(f"{number} {name}" for name, number in sorted(calls.items()))
        yield Row("calls to Secrets Manager per rotation, proof included", str(calls.total()), note=told)
        yield Row("processor time of one rotation, proof included", f"{median(times):.0f} ms")
        return
    yield from _calls(calls)
    methods = Counter(f"{one['method']} {_shape(one['path'])}" for one in asked)
    told = ", ".join(f"{number} {method}" for method, number in sorted(methods.items()))
    yield Row("calls to the issuer", str(methods.total()), note=told)
    took, put = median(times), median(puts)
    yield Row(
        "processor time of one rotation, proof included",
        f"{took:.0f} ms, {took / put:.1f} x",
        f"{put:.1f} ms: one PutSecretValue by boto3",
        "60 ms",
        took <= 60,
    )


def _calls(calls: Counter[str]) -> Iterator[Row]:
    least, all_of_them = sum(number for number, _ in _LEAST.values()), calls.total()
    over = all_of_them - least
    yield Row(
        "calls to Secrets Manager per rotation, proof included", str(all_of_them), f"{least} at least", "+ 2", over <= 2
    )
    for name in sorted({*calls, *_LEAST}):
        number, why = _LEAST.get(name, (0, ""))
        more = calls[name] - number
        above = f"; {_ABOVE.get(name, 'not explained')}" if more else ""
        yield Row(f"  {name}", str(calls[name]), f"{number} at least", note=why + above)


def _shape(path: str) -> str:
    """A path without the ids in it."""
    parts = path.removeprefix("/v1/").split("/")
    return "/".join("…" if "_" in part and part.split("_")[0] in ("proj", "key", "svc") else part for part in parts)


def _project(openai: OpenAIServer) -> str:
    made: dict[str, Any] = requests.post(
        f"{openai.base_url}/organization/projects",
        json={"name": "bench"},
        headers={"Authorization": f"Bearer {openai.admin_key}"},
        timeout=10,
    ).json()
    return str(made["id"])


def worker(stack: Path) -> None:
    """The other process: on each line one rotation with its end, and one PutSecretValue, each with its processor time."""
    clock = SandboxClock(Path(os.environ["KEYTURN_SANDBOX_CLOCK"]))
    config = unpack(pack(load(stack), {"openai": shipped("openai")}), stack.parent)
    gc.set_threshold(aws_lambda._ALLOCATIONS, 20, 20)  # noqa: SLF001 - as the function runs
    a = assemble(config, os.environ, StreamAuditor(Path(os.devnull).open("w")))  # noqa: SIM115 - until the end
    Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, print).create(a.config.policies[0], bootstrap="apply")
    target = a.target(a.config.policies[0])
    client = boto3.session.Session(region_name=REGION).client("secretsmanager")
    client.create_secret(Name="beside", SecretString="x")
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        clock.move(timedelta(days=30))
        began = time.process_time()
        records = _rotated(a, target, client)
        spent = time.process_time() - began
        clock.move(timedelta(hours=2))
        began = time.process_time()
        ended = a.engine.run(target)
        spent += time.process_time() - began
        began = time.process_time()
        client.put_secret_value(SecretId="beside", SecretString=f"x{number}")
        put = time.process_time() - began
        events = [record.event for record in (*records, *ended.records)]
        assert "promote.done" in events, events
        assert "proven" in events, events
        print(json.dumps({"rotation": spent, "put": put}), flush=True)


def _rotated(a: Assembly, target: Target, client: Any) -> list[Record]:
    """Rotates up to promoted, by a sweep or by the service's steps, each of which is a run of its own."""
    if not a.config.policies[0].native:
        return a.engine.run(target).records
    token: str = client.rotate_secret(SecretId=target.entry)["VersionId"]
    outcomes = [a.engine.step(target, token, stop, patience=timedelta(minutes=5)) for stop in Stop]
    assert all(outcome.achieved for outcome in outcomes), outcomes
    return [record for outcome in outcomes for record in outcome.records]


def main() -> bool:
    """Prints the tables. Whether every target was met."""
    met = show("AWS Lambda: cold start (processor time, medians of runs by turns)", cold())
    met &= show("AWS: one rotation with its retirement and proof", rotation(native=False))
    return (
        show("AWS: the same by Secrets Manager's own steps, which see each for themselves", rotation(native=True))
        and met
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(Path(sys.argv[2]))
    else:
        sys.exit(0 if main() else 1)
