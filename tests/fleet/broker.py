"""A real broker of one's own: Valkey's server or Redis's, as Debian ships them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

import redis

PROGRAMS: Final = ("valkey-server", "redis-server")
_SECONDS: Final = 20.0


def program() -> str | None:
    """The server's program; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Broker:
    """A server on a free port of this machine, in memory, with a password, for as long as the `with` block lasts."""

    def __enter__(self) -> Self:
        found = program()
        assert found is not None, "who has no server skips"
        self._directory = tempfile.TemporaryDirectory(prefix="keyturn-broker-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.password = "a-password-of-the-broker"
        settings = Path(self._directory.name, "broker.conf")
        lines = (f"port {port}", "bind 127.0.0.1", "save ''", "appendonly no", f"requirepass {self.password}")
        settings.write_text("\n".join((*lines, f"dir {self._directory.name}")))
        self._process = subprocess.Popen([found, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"redis://:{self.password}@127.0.0.1:{port}/0"
        self.client = redis.Redis.from_url(self.url)
        end = time.monotonic() + _SECONDS
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.__exit__()
                    raise
            else:
                return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def waiting(self, queue: str) -> int:
        """Messages that are not acknowledged yet, be they in the queue or with a worker."""
        count = self.client.llen(queue) + self.client.hlen("unacked")
        assert isinstance(count, int)
        return count
