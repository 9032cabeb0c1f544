"""Runs a Pulumi program against Pulumi's mocks and prints what it registers, as JSON. Run by the Python of its own packages.

    python graph.py PROJECT_FOLDER < {"stack": …, "config": {…}, "secret": […], "calls": {token: answer}}

What the clouds would answer is made of names: an ARN, an id. Nothing is checked here; the tests read what is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc, settings, stack
from pulumi.runtime.config import set_all_config

ACCOUNT, REGION = "333333333333", "eu-west-1"


def plain(value: Any) -> Any:
    """Values as JSON; of an archive where it is, of a secret that it is one."""
    if isinstance(value, dict):
        if "4dabf18193072939515e22adb298388d" in value and "value" in value:
            return {"encrypted": plain(value["value"])}
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, pulumi.FileArchive | pulumi.FileAsset):
        return {"file": value.path}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # on the wire every number is a float
    return value


class World(mocks.Mocks):
    """Answers of clouds."""

    def __init__(self, calls: dict[str, Any]) -> None:
        self.calls = calls

    def call(self, args: mocks.MockCallArgs) -> Any:
        return self.calls[args.token], []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        kind, name = args.typ, str(args.inputs.get("name") or args.name)
        service = kind.split(":")[1].split("/")[0]
        given: dict[str, Any] = dict(args.inputs)
        if kind.startswith("aws:"):
            where = f"{ACCOUNT}:role{args.inputs.get('path') or '/'}{name}" if service == "iam" else f"{ACCOUNT}:{name}"
            region = "" if service == "iam" else REGION
            given = {"name": name, "arn": f"arn:aws:{service}:{region}:{where}", "publicIp": "198.51.100.7", **given}
        elif kind.startswith("azure-native:"):
            given |= {"name": name, "principalId": f"principal-of-{args.name}", "clientId": f"client-of-{args.name}"}
            given |= {"identity": {"principalId": f"principal-of-{args.name}"}}
            given |= {"connectionString": "InstrumentationKey=00000000", "ipAddress": "198.51.100.7"}
            given |= {
                "defaultHostName": f"{name}.azurewebsites.net",
                "primaryEndpoints": {"blob": f"https://{name}.blob/"},
            }
        return f"{args.name}-id", given


class Monitor(mocks.MockMonitor):
    """Remembers what each registration said, options included."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.seen: list[dict[str, Any]] = []
        self.outputs: dict[str, Any] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - Pulumi's name
        answer = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            self.seen.append(
                {
                    "type": request.type,
                    "name": request.name,
                    "urn": answer.urn,
                    "parent": request.parent,
                    "provider": request.provider,
                    "providers": dict(request.providers),
                    "protect": request.protect,
                    "retain": request.retainOnDelete,
                    "after": sorted(request.dependencies),
                    "custom": request.custom,
                    "inputs": plain(rpc.deserialize_properties(request.object, True)),
                }
            )
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - as above
        if "pulumi:pulumi:Stack" in request.urn:
            self.outputs = plain(rpc.deserialize_properties(request.outputs, True))
        return super().RegisterResourceOutputs(request)


def main() -> int:
    """Prints the graph. Exit code: the program's, 0 when it came to its end."""
    folder, asked = Path(sys.argv[1]).resolve(), json.load(sys.stdin)
    project = next(
        line.partition(":")[2].strip()
        for line in (folder / "Pulumi.yaml").read_text().splitlines()
        if line.startswith("name:")
    )
    os.chdir(folder)
    sys.path[0] = str(folder)
    told = logging.getLogger("program")
    told.addHandler(handler := Kept())
    told.setLevel(logging.INFO)
    monitor = Monitor(World(asked.get("calls", {})))
    asyncio.set_event_loop(asyncio.new_event_loop())
    set_all_config(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in asked["config"].items()},
        asked.get("secret", []),
    )
    mocks.set_mocks(monitor.mocks, project=project, stack=asked["stack"], preview=False, logger=told, monitor=monitor)
    settings.ROOT.set(None)  # the one that set_mocks makes registers no outputs
    code = 0
    try:
        with contextlib.redirect_stdout(sys.stderr):
            asyncio.get_event_loop().run_until_complete(
                stack.run_in_stack(lambda: runpy.run_path("__main__.py", run_name="__main__"))
            )
    except SystemExit as end:
        code = int(end.code or 0)
    json.dump({"resources": monitor.seen, "outputs": monitor.outputs, "told": handler.lines, "code": code}, sys.stdout)
    return 0


class Kept(logging.Handler):
    """What the program told the person."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname}: {record.getMessage()}")


if __name__ == "__main__":
    sys.exit(main())
