"""Where one sandbox keeps its things: paths below a project's root, files for its user alone, and the claim on them."""

from __future__ import annotations

import contextlib
import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.files import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SandboxError(Exception):
    """What a person must act on: what failed, how it was left, what to do. The text never holds a credential."""


@dataclass(frozen=True)
class Home:
    """The sandbox of one clone."""

    root: Path
    """The project's root, absolute: the directory of Pulumi.yaml."""

    @property
    def directory(self) -> Path:
        return self.root / ".keyturn" / "sandbox"

    @property
    def env(self) -> Path:
        """Shell `export` lines for whoever runs Keyturn or Pulumi here. Holds credentials."""
        return self.directory / "env"

    @property
    def consumer_env(self) -> Path:
        """The same for an application that only reads its secrets. Holds credentials."""
        return self.directory / "consumer.env"

    @property
    def endpoints(self) -> Path:
        """JSON, by service: where it is. Holds no credential."""
        return self.directory / "endpoints.json"

    @property
    def clock(self) -> Path:
        """The file of the sandbox's clock (sandbox/clock.py)."""
        return self.directory / "clock.json"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def services(self) -> Path:
        """The supervisor's records: ports and processes."""
        return self.directory / "services.json"

    @property
    def stack(self) -> Path:
        """The stack's configuration, rendered from sandbox/stack.yaml."""
        return self.root / "Pulumi.sandbox.yaml"

    @property
    def pulumi_state(self) -> Path:
        """Pulumi's file backend for the sandbox's stack."""
        return self.root / ".keyturn" / "pulumi-state"

    @property
    def inprocess_state(self) -> Path:
        """State of the stand-in for the Pulumi CLI (sandbox/pulumi_inprocess.py)."""
        return self.root / ".keyturn" / "pulumi-inprocess"

    def make(self) -> None:
        for directory in (self.directory, self.logs, self.pulumi_state):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def claim(self, waiting: Callable[[], None]) -> Iterator[None]:
        """The exclusive right to change this sandbox; `waiting` is called when another command holds it just now."""
        # Beside the directory, not in it, so that `reset` can delete the one while holding the other.
        path = self.directory.with_suffix(".lock")
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def find_home(start: Path) -> Home:
    """The sandbox of the project that `start` lies in.

    Raises:
        SandboxError: neither `start` nor a directory above it has a Pulumi.yaml.
    """
    for directory in (start.resolve(), *start.resolve().parents):
        if (directory / "Pulumi.yaml").is_file():
            return Home(directory)
    raise SandboxError(f"no Pulumi.yaml in {start} or above it: run this inside a clone of the project")


def kept(path: Path, make: Callable[[], str]) -> str:
    """The content of a private file, made at the first call."""
    if not path.exists():
        write_private(path, make())
    return path.read_text()
