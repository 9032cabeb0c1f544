"""The AWS endpoint of the sandbox: `python -m sandbox.aws.server`, or `AwsServer` within a test.

Prints `{"port": N}` as one line of JSON when it is ready. Serves Secrets Manager, IAM and STS in every region, on
loopback only, and the control path `/_sandbox/` beside them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import signal
import sys
import threading
import traceback
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import boto3
from botocore.config import Config

from sandbox.aws import state
from sandbox.aws.control import PATH, Control, Desk, server_error
from sandbox.aws.executor import Deployed
from sandbox.aws.identity import Identity
from sandbox.aws.permissions import Permissions
from sandbox.aws.secretsmanager import SecretsManager
from sandbox.aws.wire import Answer, Call, ServiceError, error_answer, json_answer, read_call
from sandbox.clock import SandboxClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sandbox.aws.records import RotationRequest

ACCOUNT_ID = "123456789012"
REGION = "eu-central-1"
ACCESS_KEY_ID = "AKIASANDBOXADMIN0000"
SECRET_ACCESS_KEY = "sandbox-admin-key-opens-nothing-elsewhere"

_READS = ("Get", "List", "Describe", "Batch", "Validate")
_SAVE_EVERY_SECONDS = 0.5
_accounts = (f"{number:012}" for number in itertools.count(200000000000))


def _real_time() -> datetime:
    return datetime.now(UTC)


class _Service:
    """The services of one account behind one lock, with their faults, their log and their memory."""

    def __init__(
        self,
        identity: Identity,
        secrets: SecretsManager,
        on_rotate: Callable[[RotationRequest], None] | None,
        directory: Path | None,
        *,
        enforce: bool,
    ) -> None:
        self.desk = Desk()
        self.changed = threading.Event()
        self._identity = identity
        self._secrets = secrets
        self._on_rotate = on_rotate
        self._directory = directory
        self._permissions = Permissions(identity, secrets) if enforce else None
        self._lock = threading.Lock()
        if directory and (loaded := state.load(directory)):
            if loaded["account"] != identity.account_id:
                raise state.StateError(f"{directory} holds account {loaded['account']}, not {identity.account_id}")
            identity.restore(loaded["identity"])
            secrets.restore(loaded["secrets"])

    def answer(self, call: Call) -> Answer | None:
        """Performs a call; None means that the connection closes without an answer."""
        with self._lock:
            fault = self.desk.take_fault(call)
            if fault and fault.kind == "drop":
                self.desk.record(call, "drop")
                return None
            try:
                if fault and (error := fault.error(call)):
                    raise error
                answer = self._perform(call)
                if fault and fault.kind == "late_error":
                    raise server_error(call)
                outcome = answer.error_code or "ok"
            except ServiceError as error:
                answer, outcome = error_answer(call.service, error), error.code
            lost = fault is not None and fault.kind == "lost_answer"
            self.desk.record(call, "lost_answer" if lost else outcome)
            rotations = self._secrets.take_rotations()
        self._rotate(rotations)
        if not call.operation.startswith(_READS):
            self.changed.set()
        return None if lost else answer

    def _perform(self, call: Call) -> Answer:
        self._identity.authenticate(call)
        if call.is_json:
            if self._permissions:
                self._permissions.check(call)
            result = self._secrets.invoke(call.operation, call.region, call.parameters)
            if self._permissions and call.operation == "BatchGetSecretValue":
                self._permissions.keep_back(call, result)
            return json_answer(result)
        return self._identity.answer(call)

    def _rotate(self, rotations: list[RotationRequest]) -> None:
        """Hands rotations to the hook, outside the lock: a rotation function calls this server."""
        for request in rotations:
            try:
                if self._on_rotate:
                    self._on_rotate(request)
            except Exception:  # noqa: BLE001  # as with a function that cannot be invoked: RotateSecret has answered
                traceback.print_exc()
            if request.steps == ("testSecret",):
                with self._lock:
                    self._secrets.end_test(request)

    def control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request on the control path.

        Raises:
            LookupError: there is no such path.
            ValueError: the body is not what the path takes.
        """
        with self._lock:
            match path:
                case "health":
                    return {"ok": True}
                case "calls":
                    return self.desk.log()
                case "calls/forget":
                    self.desk.forget()
                case "faults":
                    self.desk.add_fault(body)
                case "faults/clear":
                    self.desk.faults.clear()
                case "lists":
                    self._secrets.freeze_lists(bool(body["frozen"]))
                case "reset":
                    self._identity.reset()
                    self._secrets.regions.clear()
                    self.desk = Desk()
                    self.changed.set()
                case _:
                    raise LookupError(path)
        return {}

    def save(self) -> None:
        if self._directory:
            with self._lock:
                self.changed.clear()
                account = {
                    "account": self._identity.account_id,
                    "identity": self._identity.snapshot(),
                    "secrets": self._secrets.snapshot(),
                }
                state.save(self._directory, account)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment per answer: a second one would wait for the client's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._control(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith(PATH):
            self._control(body)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer: Answer | None
        try:
            answer = self._service.answer(read_call(self.path, headers, body, self.client_address[0]))
        except ServiceError as error:
            answer = error_answer("secretsmanager" if "x-amz-target" in headers else "sts", error)
        except Exception:  # noqa: BLE001  # a fault of the stand-in: say so in its log and go on
            traceback.print_exc()
            answer = json_answer({"__type": "InternalServiceError", "Message": "the stand-in failed"}, 500)
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def _control(self, body: bytes) -> None:
        try:
            result = self._service.control(self.path.removeprefix(PATH), json.loads(body or b"{}"))
            self._send(json_answer(result))
        except LookupError as error:
            self._send(json_answer({"error": f"nothing at {error}"}, 404))
        except ValueError as error:
            self._send(json_answer({"error": str(error)}, 400))

    @property
    def _service(self) -> _Service:
        return cast("_Http", self.server).service

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Nothing: the call log tells more, and a test's output stays readable."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, service: _Service) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.service = service


class AwsServer:
    """The endpoint in a thread of this process. A context manager.

    Each server has an account of its own unless told otherwise, so that several do not see each other.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        account_id: str | None = None,
        access_key_id: str = ACCESS_KEY_ID,
        secret_access_key: str = SECRET_ACCESS_KEY,
        now: Callable[[], datetime] = _real_time,
        on_rotate: Callable[[RotationRequest], None] | None = None,
        state_directory: Path | None = None,
        enforce: bool = False,
    ) -> None:
        """Starts listening.

        Args:
            port: 0 for any free one.
            account_id: twelve digits. The state of another account cannot be loaded.
            access_key_id: the administrator's, 20 capital letters and digits.
            secret_access_key: the administrator's.
            now: the sandbox's time, aware; every date that the services tell comes from it.
            on_rotate: called once for each RotateSecret that starts a rotation, without any lock held and before
                RotateSecret answers; start a thread for what takes time. Without it the pending version is registered
                and nothing else happens.
            state_directory: where the account is kept between runs; None keeps nothing.
            enforce: whether calls of Secrets Manager need the permissions that they would need (sandbox/aws/permissions.py).

        Raises:
            state.StateError: what is kept there cannot be used.
            ValueError: the access key id has another form.
        """
        self.account_id = account_id or next(_accounts)
        self.access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._identity = Identity(self.account_id, now, access_key_id, secret_access_key)
        secrets = SecretsManager(self.account_id, now)
        self._service = _Service(self._identity, secrets, on_rotate, state_directory, enforce=enforce)
        self._http = _Http(port, self._service)
        self._stopped = threading.Event()
        self._session = boto3.session.Session()
        self._clients: list[Any] = []
        self._threads = [threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)]
        if state_directory:
            self._threads.append(threading.Thread(target=self._keep_saving, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control(self) -> Control:
        return Control(self.endpoint)

    def environment(self, region: str = REGION) -> dict[str, str]:
        """The variables that point an SDK or the CLI of AWS at this server as its administrator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._secret_access_key,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }

    def client(
        self,
        service: str,
        *,
        region: str = REGION,
        credentials: tuple[str, str] | tuple[str, str, str] | None = None,
        config: Config | None = None,
    ) -> Any:
        """An unmodified boto3 client, closed with the server.

        Args:
            service: `secretsmanager`, `iam` or `sts`.
            region: the region that it signs for.
            credentials: key id, secret and, for temporary ones, session token; the administrator's when left out.
            config: passed on; by default boto3's own, its retries included.
        """
        key_id, secret, *token = credentials or (self.access_key_id, self._secret_access_key)
        client = self._session.client(
            cast("Any", service),
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=token[0] if token else None,
            config=config,
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Stops, and saves when there is a state directory."""
        for client in self._clients:
            client.close()
        self._stopped.set()
        self._service.changed.set()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()
        self._service.save()
        self._identity.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_saving(self) -> None:
        # A crash loses half a second at most; saving within each call would make a large account slow to fill.
        while not self._stopped.is_set():
            self._service.changed.wait()
            if not self._stopped.wait(_SAVE_EVERY_SECONDS):
                self._service.save()


def _function(package: Path | None, variables: Path | None, clock: Path | None) -> Deployed | None:
    def read() -> dict[str, str]:
        lines = variables.read_text().splitlines() if variables and variables.exists() else []
        return dict(shlex.split(line)[1].split("=", 1) for line in lines)

    return Deployed(package, read, clock, lambda line: print(line, flush=True)) if package else None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.aws.server", description="The AWS endpoint of the sandbox."
    )
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; 0 takes a free port")
    parser.add_argument("--account", default=ACCOUNT_ID, metavar="ID", help="the account's twelve digits")
    parser.add_argument("--clock", type=Path, metavar="FILE", help="the sandbox's clock; real time without it")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keeps the account there between runs, in a file written within a second of each change",
    )
    parser.add_argument(
        "--function", type=Path, metavar="ZIP", help="what RotateSecret calls; the package that `make lambda` builds"
    )
    parser.add_argument(
        "--function-env",
        type=Path,
        metavar="FILE",
        help="its variables, in lines as `export NAME=VALUE`; read at its start",
    )
    parser.add_argument("--enforce", action="store_true", help="calls of Secrets Manager need their permissions")
    arguments = parser.parse_args()
    function = _function(arguments.function, arguments.function_env, arguments.clock)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = AwsServer(
            port=arguments.port,
            account_id=arguments.account,
            access_key_id=os.environ.get("SANDBOX_AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
            secret_access_key=os.environ.get("SANDBOX_AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
            now=SandboxClock(arguments.clock).now if arguments.clock else _real_time,
            state_directory=arguments.state,
            on_rotate=function.on_rotate if function else None,
            enforce=arguments.enforce,
        )
    except (state.StateError, ValueError, OSError) as error:
        sys.exit(f"The AWS stand-in did not start: {error}")
    with server:
        print(json.dumps({"port": server.port}), flush=True)
        stop.wait()
        if function:
            function.close()


if __name__ == "__main__":
    main()
