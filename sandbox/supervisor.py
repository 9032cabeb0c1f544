"""Keeps a sandbox's services: starts those that do not run, stops what it started, and says where they are."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from rotation.files import write_private
from sandbox.clock import real_time
from sandbox.home import Home, SandboxError
from sandbox.processes import Process, free_port, is_running, start, stop, wait_until
from sandbox.stack import KeyPath, write_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_READY_SECONDS: Final = 20.0
_ATTEMPTS: Final = 3

State = Literal["running", "not answering", "died", "stopped"]


@dataclass(frozen=True)
class Site:
    """Where one service of one sandbox lives."""

    home: Home

    name: str

    port: int
    """On 127.0.0.1. Free when the service starts; the same at the next start, unless somebody took it."""

    @property
    def directory(self) -> Path:
        """The service's own, 0700; survives `down`, not `reset`."""
        return self.home.directory / self.name

    @property
    def log(self) -> Path:
        return self.home.logs / f"{self.name}.log"


@dataclass(frozen=True)
class Provided:
    """What a running service adds to the files that `up` writes."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for Keyturn; may hold credentials."""

    consumer_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for an application that reads secrets; may hold credentials."""

    endpoint: Mapping[str, str] = field(default_factory=dict)
    """For endpoints.json, beside `url`; no credentials."""

    stack: Mapping[KeyPath, str] = field(default_factory=dict)
    """Values in Pulumi.sandbox.yaml, by path of keys."""


@dataclass(frozen=True)
class Service:
    """One server of the sandbox: all that the supervisor needs to know. Its parts are called in this order."""

    name: str
    """Also of its directory, its log and its entry in endpoints.json."""

    url: str
    """Where it is reached; `{port}` stands for its port."""

    prepare: Callable[[Site], None]
    """Before each start: writes what the server reads."""

    command: Callable[[Site], Sequence[str]]
    """No credentials: everybody on the machine can read a command line."""

    environment: Callable[[Site], Mapping[str, str]]
    """Everything that the process gets; nothing is inherited."""

    announces: bool
    """It prints a line `{"port": N}` when it listens. Otherwise `answers` must tell it from a stranger on its port."""

    answers: Callable[[Site], bool]
    """Whether it is there; asked often, so quick and without effect."""

    provision: Callable[[Site], Provided]
    """At each `up`, when it answers; brings its content up to date, so idempotent."""


@dataclass(frozen=True)
class ServiceStatus:
    service: str

    state: State
    """`died`: it ended without being told to. `not answering`: the process runs."""

    pid: int | None

    endpoint: str | None
    """None before the first start."""

    since: str | None
    """When it was started, ISO 8601 in UTC; None when it does not run."""


@dataclass(frozen=True)
class _Record:
    port: int
    process: Process | None = None
    since: str | None = None


class Supervisor:
    """The services of one sandbox. `up`, `down` and `reset` exclude one another, across processes too."""

    def __init__(
        self,
        home: Home,
        services: Sequence[Service],
        *,
        settings: Mapping[str, str],
        report: Callable[[str], None],
        now: Callable[[], datetime] = real_time,
    ) -> None:
        """Changes nothing yet.

        Args:
            home: whose sandbox.
            services: what it consists of, in the order of the listing.
            settings: variables for Keyturn and Pulumi that no service provides.
            report: called with a line for people when something is worth knowing.
            now: for the times in listings.
        """
        self._home = home
        self._services = services
        self._settings = settings
        self._report = report
        self._now = now
        self._records: dict[str, _Record] = {}
        self._writing = threading.Lock()

    def up(self) -> list[ServiceStatus]:
        """Starts what does not run, leaves alone what does, and writes endpoints, env files and the stack's file.

        Raises:
            SandboxError: a service does not start (it is stopped again, the others stay), or the stack's file is broken.
        """
        self._home.make()
        with self._home.claim(self._wait):
            self._load()
            with ThreadPoolExecutor(len(self._services)) as pool:
                provided = list(pool.map(self._bring_up, self._services))
            self._write_files(provided)
            return self.status()

    def down(self) -> list[ServiceStatus]:
        """Stops exactly the processes that `up` started; ports and content are kept for the next `up`.

        Raises:
            TimeoutError: a process survives SIGKILL.
        """
        with self._home.claim(self._wait):
            self._stop_all()
            return self.status()

    def reset(self) -> None:
        """`down`, and then deletes the sandbox's content and Pulumi's state of it. The stack's file is kept."""
        with self._home.claim(self._wait):
            self._stop_all()
            # State that outlived its vaults would say "unchanged" of what is not there any more.
            for directory in (self._home.directory, self._home.pulumi_state, self._home.inprocess_state):
                if directory.exists():
                    shutil.rmtree(directory)

    def status(self) -> list[ServiceStatus]:
        """What runs now, in the order of the services."""
        self._load()
        with ThreadPoolExecutor(len(self._services)) as pool:
            return list(pool.map(self._status, self._services))

    def _status(self, service: Service) -> ServiceStatus:
        record = self._records.get(service.name)
        if record is None:
            return ServiceStatus(service.name, "stopped", None, None, None)
        endpoint = service.url.format(port=record.port)
        if record.process is None:
            return ServiceStatus(service.name, "stopped", None, endpoint, None)
        if not is_running(record.process):
            return ServiceStatus(service.name, "died", None, endpoint, None)
        answering = service.answers(Site(self._home, service.name, record.port))
        state: State = "running" if answering else "not answering"
        return ServiceStatus(service.name, state, record.process.pid, endpoint, record.since)

    def _bring_up(self, service: Service) -> Provided:
        record = self._records.get(service.name)
        if record is None:
            return service.provision(self._start(service, None))
        if record.process is not None and is_running(record.process):
            site = Site(self._home, service.name, record.port)
            if self._became_ready(service, site, record.process):
                return service.provision(site)
            self._report(f"{service.name} runs but does not answer: starting it again")
            stop(record.process)
        return service.provision(self._start(service, record.port))

    def _start(self, service: Service, wanted: int | None) -> Site:
        for _ in range(_ATTEMPTS):
            site = Site(self._home, service.name, free_port(wanted))
            if wanted not in (None, site.port):
                self._report(f"{service.name}: port {wanted} is taken by somebody else; it moves to {site.port}")
            site.directory.mkdir(mode=0o700, exist_ok=True)
            service.prepare(site)
            if site.log.exists():
                site.log.replace(site.log.with_suffix(".log.1"))
            process = start(
                service.command(site), environment=service.environment(site), directory=site.directory, log=site.log
            )
            self._remember(service.name, _Record(site.port, process, f"{self._now():%Y-%m-%dT%H:%M:%SZ}"))
            if self._became_ready(service, site, process):
                return site
            gave_up = stop(process)
            self._remember(service.name, _Record(site.port))
            if gave_up:
                raise SandboxError(
                    f"{service.name} was not ready within {_READY_SECONDS:.0f} s and was stopped again; see {site.log}"
                )
            # It ended by itself: perhaps somebody took the port after we looked.
            wanted = None
        raise SandboxError(f"{service.name} ends as soon as it is started; see {self._home.logs / service.name}.log")

    def _became_ready(self, service: Service, site: Site, process: Process) -> bool:
        def answering() -> bool:
            return (not service.announces or _announced(site)) and service.answers(site)

        settled = wait_until(lambda: answering() or not is_running(process), _READY_SECONDS)
        return settled and is_running(process)

    def _stop_all(self) -> None:
        self._load()

        def end(service: Service) -> None:
            record = self._records.get(service.name)
            if record is not None and record.process is not None:
                stop(record.process)
                self._remember(service.name, _Record(record.port))

        with ThreadPoolExecutor(len(self._services)) as pool:
            list(pool.map(end, self._services))

    def _write_files(self, provided: Sequence[Provided]) -> None:
        endpoints: dict[str, Mapping[str, str]] = {}
        env, consumer_env, stack = dict(self._settings), dict[str, str](), dict[KeyPath, str]()
        for service, part in zip(self._services, provided, strict=True):
            url = service.url.format(port=self._records[service.name].port)
            endpoints[service.name] = {"url": url, **part.endpoint}
            env.update(part.env)
            consumer_env.update(part.consumer_env)
            stack.update(part.stack)
        write_private(self._home.endpoints, json.dumps(endpoints, indent=2) + "\n")
        write_private(self._home.env, _exports(env))
        write_private(self._home.consumer_env, _exports(consumer_env))
        for path in write_stack(self._home.stack, stack):
            self._report(f"{self._home.stack.name} has no {path}; it was left as it is")

    def _wait(self) -> None:
        self._report("another `keyturn sandbox` command is at work here; waiting for it")

    # Records: {"owner": …, "services": {name: {"port", "since", "process": {"pid", "started"} or null}}}

    def _owner(self) -> str:
        """Tells this directory from a copy of it, whose records would name processes that are not its own."""
        status = self._home.directory.stat()
        return f"{status.st_dev}:{status.st_ino}"

    def _load(self) -> None:
        self._records = {}
        if not self._home.services.exists():
            return
        stored = json.loads(self._home.services.read_text())
        for name, entry in stored["services"].items():
            if entry["process"] is None or stored["owner"] != self._owner():
                self._records[name] = _Record(entry["port"])
            else:
                self._records[name] = _Record(entry["port"], Process(**entry["process"]), entry["since"])

    def _remember(self, name: str, record: _Record) -> None:
        with self._writing:
            self._records[name] = record
            entries = {
                name: {
                    "port": record.port,
                    "since": record.since,
                    "process": record.process and {"pid": record.process.pid, "started": record.process.started},
                }
                for name, record in self._records.items()
            }
            write_private(self._home.services, json.dumps({"owner": self._owner(), "services": entries}, indent=2))


def load_env(root: Path) -> dict[str, str]:
    """What the env file of the project at `root` sets, for whoever runs Keyturn or Pulumi. Holds credentials.

    Raises:
        SandboxError: the sandbox was never up.
    """
    return _assignments(Home(root).env)


def load_consumer_env(root: Path) -> dict[str, str]:
    """The same for an application that reads its secrets: Vault's address, CA and its own AppRole, OPENAI_BASE_URL."""
    return _assignments(Home(root).consumer_env)


def _assignments(file: Path) -> dict[str, str]:
    if not file.exists():
        raise SandboxError(f"{file} is missing: run `keyturn sandbox up`")
    assignments = (shlex.split(line)[1] for line in file.read_text().splitlines())
    return dict(assignment.split("=", 1) for assignment in assignments)


def _exports(variables: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _announced(site: Site) -> bool:
    """Whether the log, begun at the last start, has the line `{"port": N}`."""
    return json.dumps({"port": site.port}) in site.log.read_text(errors="replace").splitlines()
