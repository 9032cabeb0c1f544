"""Runs the Lambda function from its zip in processes of its own, and calls it as Secrets Manager does.

It stands in for two things. For Lambda: the zip is extracted where nothing can write, one process is one execution
environment, started cold and reused warm, with the environment variables that Lambda sets and, beside the package, only
the packages that its Python runtime has; an invocation that takes too long is killed with its process. And for the part
of Secrets Manager that calls a rotation function: after RotateSecret the four steps, one after the other,
asynchronously; when one fails the whole rotation again, several times; testSecret alone where RotateImmediately is false.

It does not stand in for: Lambda's limits of memory and disk, its freezing of processes between invocations, IAM (who
may call what is not checked), VPCs; and nobody outside AWS knows how often the service repeats a rotation, and when:
`retries` and `pauses` are a choice.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox.aws.records import RotationRequest

HANDLER: Final = "rotation.functions.aws_lambda.handler"
RUNTIME: Final = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
"""What Lambda's Python runtimes can import beside the standard library ("Runtime-included SDK versions")."""


class FunctionError(Exception):
    """What the function raised, or that it was killed."""


@dataclass(frozen=True)
class Invocation:
    """One call of the function that has ended."""

    event: Mapping[str, Any] = field(repr=False)
    """May hold a RotationToken."""
    cold: bool
    result: Any = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def step(self) -> str | None:
        return self.event.get("Step")


class Executor:
    """A deployed function. A context manager.

    Give its `on_rotate` to `AwsServer`; it may be made before the server that its environment points to.
    """

    def __init__(
        self,
        package: Path,
        environment: Callable[[], Mapping[str, str]],
        *,
        name: str = "keyturn",
        timeout: float = 300.0,
        retries: int = 3,
        pauses: Sequence[float] = (),
        clock: Path | None = None,
        skip: bool = True,
        before: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Extracts the package; starts no process yet.

        Args:
            package: the zip.
            environment: gives the function's own variables, and those of its role's credentials, at each cold start.
            name: the function's.
            timeout: seconds that an invocation may take.
            retries: how often a rotation is tried again after it failed.
            pauses: seconds before each retry; the last one counts for the rest, none are no pause.
            clock: the sandbox's clock, by which the function keeps its time.
            skip: what it sleeps has passed at once, for everybody who keeps time by that clock.
            before: called with the event before each invocation, which it may hold up.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="keyturn-lambda-"))
        self._task = self._directory / "task"
        self._runtime = self._directory / "runtime"
        with zipfile.ZipFile(package) as archive:
            archive.extractall(self._task)
        provide_runtime(self._runtime, with_clock=clock is not None)
        for folder, _, files in os.walk(self._task):
            for file in files:
                Path(folder, file).chmod(0o444)
            Path(folder).chmod(0o555)
        self._environment = environment
        self._name = name
        self._timeout = timeout
        self._retries = retries
        self._pauses = tuple(pauses)
        self._clock = {"KEYTURN_SANDBOX_CLOCK": str(clock)} if clock else {}
        self._clock |= {"KEYTURN_SANDBOX_SLEEP": "skip"} if clock and skip else {}
        self._before = before
        self._lock = threading.Lock()
        self._idle: list[_Environment] = []
        self._busy: set[_Environment] = set()
        self._rotating: list[threading.Thread] = []
        self.invocations: list[Invocation] = []

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{self._name}"

    @property
    def log(self) -> str:
        """All that the function has written so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._directory.glob("*.log")))

    def on_rotate(self, request: RotationRequest) -> None:
        """What RotateSecret has asked for; a test of the settings is over when this returns, a rotation is not."""
        if request.steps == ("testSecret",):
            self._rotate(request)
            return
        thread = threading.Thread(target=self._rotate, args=(request,), daemon=True)
        with self._lock:
            self._rotating.append(thread)
        thread.start()

    def wait(self, seconds: float = 120.0) -> None:
        """Waits until no rotation is under way.

        Raises:
            TimeoutError: one still is.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                alive = [thread for thread in self._rotating if thread.is_alive()]
                self._rotating = alive
            if not alive:
                return
            alive[0].join(max(deadline - time.monotonic(), 0))
            if time.monotonic() >= deadline:
                raise TimeoutError("a rotation is still under way")

    def _rotate(self, request: RotationRequest) -> None:
        for attempt in range(self._retries + 1):
            if attempt and self._pauses:
                time.sleep(self._pauses[min(attempt, len(self._pauses)) - 1])
            if all(self._step(request, step) for step in request.steps):
                return

    def _step(self, request: RotationRequest, step: str) -> bool:
        event = {
            "Step": step,
            "SecretId": request.secret_arn,
            "ClientRequestToken": request.client_request_token,
            "RotationToken": request.rotation_token,
        }
        try:
            self.invoke(event)
        except FunctionError:
            return False
        return True

    def invoke(self, event: Mapping[str, Any]) -> Any:
        """Calls the function and gives its result. Concurrent calls have processes of their own.

        Raises:
            FunctionError: it raised, ended, or took too long.
        """
        if self._before:
            self._before(event)
        with self._lock:
            environment = self._idle.pop() if self._idle else None
        cold = environment is None
        environment = environment or self._start()
        with self._lock:
            self._busy.add(environment)
        began = time.monotonic()
        try:
            answer = environment.ask(event, self._timeout)
        except FunctionError as died:
            with self._lock:
                self._busy.discard(environment)
            environment.close()
            self._remember(Invocation(event, cold, error=str(died), seconds=time.monotonic() - began))
            raise
        with self._lock:
            self._busy.discard(environment)
            self._idle.append(environment)
        error = f"{answer['errorType']}: {answer['errorMessage']}" if "errorType" in answer else None
        self._remember(Invocation(event, cold, answer.get("result"), error, time.monotonic() - began))
        if error is not None:
            raise FunctionError(error)
        return answer["result"]

    def freeze(self) -> None:
        """Ends every idle environment, as Lambda does after a while: the next invocation starts cold."""
        with self._lock:
            idle, self._idle = self._idle, []
        for environment in idle:
            environment.close()

    def kill(self) -> None:
        """Kills what is at work just now, as when a machine of Lambda's fails."""
        with self._lock:
            busy = [*self._busy]
        for environment in busy:
            environment.kill()

    def close(self) -> None:
        """Waits for rotations that are under way, ends all processes and removes what was extracted."""
        with contextlib.suppress(TimeoutError):
            self.wait()
        self.freeze()
        for folder, _, _ in os.walk(self._task):
            Path(folder).chmod(0o755)
        shutil.rmtree(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remember(self, invocation: Invocation) -> None:
        with self._lock:
            self.invocations.append(invocation)

    def _start(self) -> _Environment:
        stream = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_NAME": self._name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self._name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "LAMBDA_TASK_ROOT": str(self._task),
            "LAMBDA_RUNTIME_DIR": str(self._runtime),
            "SANDBOX_FUNCTION_ARN": self.arn,
            "_HANDLER": HANDLER,
            **self._environment(),
            **self._clock,
        }
        return _Environment(variables, self._directory / f"{stream}.log", self._task)


class Deployed:
    """The function of a sandbox that a person plays with: looked for, and its variables read, when it is called.

    Args:
        package: where `make lambda` puts it.
        environment: gives its variables; Lambda's own, such as a home, are not for the caller to set.
        clock: the sandbox's.
        say: takes a line for the stand-in's log.
    """

    def __init__(
        self,
        package: Path,
        environment: Callable[[], Mapping[str, str]],
        clock: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._package = package
        self._environment = environment
        self._clock = clock
        self._say = say
        self._lock = threading.Lock()
        self._current: tuple[int, Executor] | None = None

    def on_rotate(self, request: RotationRequest) -> None:
        """As Executor.on_rotate; without a package the rotation stays begun, as where a function can not be called."""
        with self._lock:
            if not self._package.exists():
                self._say(f"RotateSecret: there is no function; `make lambda` builds {self._package}")
                return
            built = self._package.stat().st_mtime_ns
            if self._current is None or self._current[0] != built:
                self.close()
                executor = Executor(self._package, self._environment, clock=self._clock, skip=False, pauses=(2, 10, 30))
                self._current = (built, executor)
            executor = self._current[1]
        executor.on_rotate(request)

    def close(self) -> None:
        if self._current is not None:
            self._current[1].close()
            self._current = None


class _Environment:
    """One process."""

    def __init__(self, variables: Mapping[str, str], log: Path, task: Path) -> None:
        ours, theirs = os.pipe()
        script = Path(__file__).with_name("lambda_runtime.py")

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                # -I: no path of the caller's. -S: no site-packages. -B: the package's place can not be written.
                [sys.executable, "-I", "-S", "-B", "-u", str(script)],
                env={**variables, "SANDBOX_ANSWERS": str(theirs)},
                cwd=task,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
            )
        os.close(theirs)
        self._answers = ours
        self._buffer = b""

    def ask(self, event: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Raises FunctionError when there is no answer; the environment is then of no more use."""
        asked = {"event": dict(event), "request_id": str(uuid.uuid4()), "milliseconds": round(timeout * 1000)}
        stdin = self._process.stdin
        assert stdin is not None, "it was asked for"
        try:
            stdin.write(json.dumps(asked).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise FunctionError(f"Runtime exited with status {self._process.wait()}") from None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise FunctionError(f"Task timed out after {timeout:.2f} seconds")
            got = os.read(self._answers, 65536)
            if not got:
                raise FunctionError(f"Runtime exited with status {self._process.wait()}")
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        os.close(self._answers)


def provide_runtime(folder: Path, *, with_clock: bool) -> None:
    """The packages of Lambda's own runtime, by links to those that are installed here, and nothing else."""
    folder.mkdir()
    for name in RUNTIME:
        spec = find_spec(name)
        assert spec is not None, f"{name} is installed together with boto3"
        assert spec.origin is not None, f"{name} is a module or a regular package"
        place = Path(spec.origin)
        place = place.parent if place.name == "__init__.py" else place
        (folder / place.name).symlink_to(place)
    if with_clock:
        ours = folder / "sandbox"
        ours.mkdir()
        for name in ("__init__.py", "clock.py"):
            (ours / name).symlink_to(Path(__file__).parents[1] / name)
