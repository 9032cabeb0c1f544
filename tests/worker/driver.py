"""The host's side of the Functions worker: loads the app in this folder, lists its functions, calls them.

Runs in an interpreter of its own, where the app's requirements and azure-functions-runtime are, and nothing of the
project but the app. That library is the worker for Python 3.13 and later, less its transport: the process around it
takes gRPC messages from the host and hands them over. What stands in for that process here hands over messages with the
same fields, so all is real from there on: how the app is imported and indexed, how triggers become arguments, the
threads that functions run in, and how what they give back becomes messages.

Reads one call a line, as JSON, from standard input; answers one line each on the file descriptor that it is given.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import azure_functions_runtime as worker

_TOLD = ("azure", "boto3", "hvac", "requests")
"""What is told of what was loaded, by its first name."""


class Message:
    """A message of the protocol: the fields that it was made with; any other is empty."""

    Failure, Success = 0, 1
    out, inout = 1, 2

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= {name: value for name, value in fields.items() if value is not None}

    def __getattr__(self, name: str) -> Any:
        if not name.islower() or name.startswith("__"):  # no field is called so
            raise AttributeError(name)
        return ""

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's own name
        return next((name for name in self.__dict__ if name != "name"), None)


setattr(Message, "in", 0)  # the third direction of a binding, which Python has another use for


class _Protos:
    """The module of the protocol's messages, of whatever name."""

    def __getattr__(self, _name: str) -> type[Message]:
        return Message


def _handed_over(**request: Any) -> Any:
    properties = {"protos": _Protos(), "host": "127.0.0.1"}
    return SimpleNamespace(request=Message(**request), properties=properties)


async def _load(folder: Path) -> dict[str, Any]:
    """The functions of the app by name."""
    init = Message(capabilities={}, function_app_directory=str(folder))
    started = await worker.worker_init_request(_handed_over(worker_init_request=init))
    if started.result.status != Message.Success:
        raise RuntimeError(started.result.exception.message)
    listed = await worker.functions_metadata_request(_handed_over(functions_metadata_request=Message()))
    found = {about.name: about for about in listed.function_metadata_results}
    for about in found.values():
        load = Message(function_id=about.function_id, metadata=about)
        await worker.function_load_request(_handed_over(function_load_request=load))
    return found


async def _call(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """One invocation; what came of it, as JSON can say it."""
    kind, value = given["kind"], given["value"]
    if kind == "http":
        body = Message(bytes=value.pop("body").encode())
        data = Message(http=Message(**value, body=body, params={}, query={}))
    else:
        data = Message(**{kind: value})
    invocation = Message(
        invocation_id=str(uuid.uuid4()),
        function_id=function.function_id,
        input_data=[Message(name=given["argument"], data=data)],
        trigger_metadata={"Id": Message(string="1"), "DequeueCount": Message(string="1")},
        trace_context=Message(),
        retry_context=Message(),
    )
    answer = await worker.invocation_request(_handed_over(invocation_request=invocation))
    if answer.result.status != Message.Success:
        return {"failed": answer.result.exception.message}
    told: dict[str, Any] = {"outputs": {out.name: json.loads(out.data.json) for out in answer.output_data}}
    if answer.return_value:
        http = answer.return_value.http
        told["http"] = {"status": http.status_code, "headers": http.headers, "body": http.body.bytes.decode()}
    return told


async def _serve(answers: TextIO) -> None:
    worker.start_threadpool_executor()
    functions = await _load(Path.cwd())
    bindings = {name: [json.loads(raw) for raw in about.raw_bindings] for name, about in functions.items()}
    print(json.dumps(bindings), file=answers, flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        told = await _call(functions[given["function"]], given)
        told["modules"] = [name for name in sys.modules if name.partition(".")[0] in _TOLD]
        print(json.dumps(told), file=answers, flush=True)
    worker.stop_threadpool_executor()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # as the process around the library has a handler of its own
    sys.path.insert(0, str(Path.cwd()))
    with os.fdopen(int(sys.argv[1]), "w") as channel:
        asyncio.run(_serve(channel))
