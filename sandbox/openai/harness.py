"""The stand-in from a program's side: the server in a thread of a test, and a client of its control plane."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any, Literal

import requests

from sandbox.clock import real_time
from sandbox.openai.control import Control
from sandbox.openai.server import create_app, listen
from sandbox.openai.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from sandbox.openai.wire import Json


class ControlClient:
    """Calls the routes that `sandbox/openai/control.py` lists, of a server at `http://127.0.0.1:PORT`."""

    def __init__(self, root_url: str) -> None:
        self._url = f"{root_url}/_sandbox"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business between two processes of one machine

    def settings(self) -> Json:
        return self._call("GET", "settings")

    def configure(self, **changes: Any) -> Json:
        """Changes the given fields of `Settings` and returns all."""
        return self._call("PATCH", "settings", changes)

    def fault(
        self,
        method: str,
        path: str,
        *,
        times: int = 1,
        when: Literal["before", "after"] = "before",
        status: int | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Adds a `Fault`; without a status the connection is dropped."""
        given = {"method": method, "path": path, "times": times, "when": when}
        self._call("POST", "faults", {**given, "status": status, "code": code, "retry_after": retry_after})

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def requests(self) -> list[Json]:
        """The log, oldest first: at, request_id, method, path, status, dropped, key_id."""
        log: list[Json] = self._call("GET", "requests")["requests"]
        return log

    def counters(self) -> dict[str, dict[str, int]]:
        """Answers by plane (admin, data), then by status or `dropped`."""
        return self._call("GET", "counters")

    def issued(self) -> list[Json]:
        """Every key there ever was, oldest first, each with `accepted`: whether its value logs in now."""
        keys: list[Json] = self._call("GET", "keys")["keys"]
        return keys

    def create_user_key(self, project_id: str, name: str) -> Json:
        """A key that a person made in the dashboard: id and value."""
        return self._call("POST", "user_keys", {"project_id": project_id, "name": name})

    def reset(self) -> None:
        """Default settings, no faults, empty log and counters; projects and keys stay."""
        self._call("POST", "reset")

    def close(self) -> None:
        self._session.close()

    def _call(self, method: str, route: str, body: Json | None = None) -> Json:
        with self._session.request(method, f"{self._url}/{route}", json=body, timeout=10) as response:
            if not response.ok:
                raise ValueError(f"the sandbox refused {method} {route}: {response.text}")
            answer: Json = response.json()
            return answer


class OpenAIServer:
    """The stand-in on a free port, for as long as the `with` block lasts.

    With `state` given it persists there, and a second server over the same file goes on where the first ended, if it is
    given the same `admin_key`; without, it lives in memory. `now` replaces the real time.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = real_time,
        state: Path | None = None,
        admin_key: str | None = None,
        port: int = 0,
    ) -> None:
        self.admin_key = admin_key or "sk-admin-" + secrets.token_urlsafe(60)
        self._now = now
        self._path = state
        self._port = port

    def __enter__(self) -> Self:
        self._state = State(self._path, self._now)
        self._state.adopt_admin_key(self.admin_key)
        self.app = create_app(self._state, Control(), self._now)
        self._server = listen(self.app, self._port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        root_url = f"http://127.0.0.1:{self._server.server_port}"
        self.base_url = f"{root_url}/v1"
        """What a client of OpenAI is given as its base URL."""
        self.control = ControlClient(root_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.control.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._state.close()
