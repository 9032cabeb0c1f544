"""What a test or the demo imposes on the stand-in, and what it may ask about it: the routes under `/_sandbox`.

Settings, faults, counters and the request log live in memory and end with the process; what they caused (a key that is
accepted only from some time on, say) is kept with the organization. The log names keys by id and never holds a value.

| route | does |
|---|---|
| GET, PATCH /_sandbox/settings | the fields of `Settings`; PATCH changes those given |
| POST, DELETE /_sandbox/faults | adds a fault, with the fields of `Fault`; forgets all |
| GET /_sandbox/requests | the newest 10 000 requests to /v1, oldest first |
| GET /_sandbox/counters | answers by plane and status, and dropped connections |
| GET /_sandbox/keys | every key there ever was, and whether its value logs in now |
| POST /_sandbox/user_keys | {project_id, name}: a key as a person makes it in the dashboard |
| POST /_sandbox/reset | default settings, no faults, empty log and counters; the organization stays |
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Literal

from flask import Blueprint, abort, request

from sandbox.openai.errors import ApiError, too_many_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sandbox.openai.state import State
    from sandbox.openai.wire import Json

Plane = Literal["admin", "data"]

_LOG_LENGTH = 10_000
_KEY_LIKE = re.compile(r"sk-[\w-]+")


@dataclass(frozen=True)
class Settings:
    """The stand-in's conduct. Delays are seconds of the sandbox's clock.

    Raises:
        ValueError: a value of the wrong type or out of range.
    """

    create_delay: float = 0
    """A key made from now on is refused for so long."""
    revoke_delay: float = 0
    """A key deleted from now on is accepted for so long."""
    admin_requests_per_minute: int = 100_000
    data_requests_per_minute: int = 100_000
    ip_allowlist: tuple[str, ...] | None = None
    """Networks from which project keys are accepted; None switches the list off."""
    deny_service_account_key_delete: bool = False
    """Refuse to delete a service account's key on its own, as OpenAI's description said until August 2026."""

    def __post_init__(self) -> None:
        for name in ("create_delay", "revoke_delay", "admin_requests_per_minute", "data_requests_per_minute"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name}: a number, at least 0, is expected")
        if not isinstance(self.deny_service_account_key_delete, bool):
            raise ValueError("deny_service_account_key_delete: true or false is expected")  # noqa: TRY004 one kind of error
        for network in self.ip_allowlist or ():
            ip_network(network)

    def admits(self, address: str) -> bool:
        networks = self.ip_allowlist
        return networks is None or any(ip_address(address) in ip_network(network) for network in networks)


@dataclass(frozen=True)
class Fault:
    """What the next `times` requests of this method and path meet.

    `path` is the whole path, e.g. `/v1/organization/projects/*/service_accounts`; `*` stands for one segment.
    `when` is `before` the request has any effect, or `after` all of it: then only the answer is lost. With `status` the
    caller gets that error, with None the connection is closed without an answer.

    Raises:
        ValueError: `when` is something else, or `times` is less than 1.
    """

    method: str
    path: str
    times: int = 1
    when: Literal["before", "after"] = "before"
    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    """Seconds, for the Retry-After header."""

    def __post_init__(self) -> None:
        if self.when not in ("before", "after") or self.times < 1:
            raise ValueError("when: before or after, and times: at least 1, are expected")

    def matches(self, method: str, path: str) -> bool:
        pattern = re.escape(self.path).replace(r"\*", "[^/]+")
        return method == self.method and re.fullmatch(pattern, path) is not None

    def error(self) -> ApiError | None:
        """None: the connection is dropped."""
        if self.status is None:
            return None
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return ApiError(
            self.status, "The sandbox was told to fail.", code=self.code, kind=kind, retry_after=self.retry_after
        )


@dataclass
class Window:
    """What was used of a plane's limit within one minute of the sandbox's clock."""

    minute: int
    requests: int = 0
    tokens: int = 0


@dataclass
class Control:
    """The conditions in force. Any thread may call it."""

    settings: Settings = field(default_factory=Settings)
    _faults: list[Fault] = field(default_factory=list)
    _windows: dict[Plane, Window] = field(default_factory=dict)
    _log: deque[Json] = field(default_factory=lambda: deque(maxlen=_LOG_LENGTH))
    _counters: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Raises ValueError or TypeError for what `Settings` does not take."""
        given = dict(changes)
        if given.get("ip_allowlist") is not None:
            given["ip_allowlist"] = tuple(given["ip_allowlist"])
        with self._lock:
            self.settings = replace(self.settings, **given)

    def add_fault(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The oldest fault that matches, used up by one."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.matches(method, path):
                    rest = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    self._faults[index : index + 1] = rest
                    return fault
        return None

    def admit(self, plane: Plane, now: datetime) -> Window:
        """Counts a request against the plane's limit and returns this minute's use.

        Raises:
            ApiError: 429 with the seconds left of this minute, when the limit is used up.
        """
        minute, second = divmod(int(now.timestamp()), 60)
        limit = self.settings.admin_requests_per_minute if plane == "admin" else self.settings.data_requests_per_minute
        with self._lock:
            window = self._windows.get(plane)
            if window is None or window.minute != minute:
                window = self._windows[plane] = Window(minute)
            if window.requests >= limit:
                raise too_many_requests(60 - second)
            window.requests += 1
            return window

    def note(self, plane: Plane, entry: Json) -> None:
        """Adds to the log and the counters; whatever looks like a key in the path is masked."""
        with self._lock:
            self._log.append({**entry, "path": _KEY_LIKE.sub("sk-****", entry["path"])})
            self._counters[plane, "dropped" if entry["dropped"] else str(entry["status"])] += 1

    def log(self) -> list[Json]:
        with self._lock:
            return list(self._log)

    def counters(self) -> dict[str, dict[str, int]]:
        """By plane (admin, data), then by status or `dropped`."""
        with self._lock:
            counts: dict[str, dict[str, int]] = {"admin": {}, "data": {}}
            for (plane, outcome), count in sorted(self._counters.items()):
                counts[plane][outcome] = count
            return counts

    def reset(self) -> None:
        with self._lock:
            self.settings = Settings()
            self._faults.clear()
            self._windows.clear()
            self._log.clear()
            self._counters.clear()


def control_plane(control: Control, state: State, now: Callable[[], datetime]) -> Blueprint:
    """The routes under `/_sandbox`; only this machine may call them, and nothing under /v1 leads here."""
    routes = Blueprint("sandbox", __name__, url_prefix="/_sandbox")

    @routes.before_request
    def only_this_machine() -> None:
        if not ip_address(request.remote_addr or "::").is_loopback:
            abort(403)

    @routes.errorhandler(ValueError)
    @routes.errorhandler(TypeError)
    def refused(error: Exception) -> tuple[Json, int]:
        return {"error": str(error)}, 400

    @routes.get("/settings")
    def settings() -> Json:
        return asdict(control.settings)

    @routes.patch("/settings")
    def configure() -> Json:
        control.configure(request.get_json())
        return asdict(control.settings)

    @routes.post("/faults")
    def add_fault() -> Json:
        control.add_fault(Fault(**request.get_json()))
        return {}

    @routes.delete("/faults")
    def clear_faults() -> Json:
        control.clear_faults()
        return {}

    @routes.get("/requests")
    def requests() -> Json:
        return {"requests": control.log()}

    @routes.get("/counters")
    def counters() -> Json:
        return dict(control.counters())

    @routes.get("/keys")
    def keys() -> Json:
        at = now().timestamp()
        shown = [
            {
                "id": key.id,
                "name": key.name,
                "owner": key.owner,
                "project_id": key.project_id,
                "service_account_id": key.service_account_id,
                "created_at": key.created_at,
                "deleted_at": key.deleted_at,
                "last_used_at": key.last_used_at,
                "accepted": key.accepted(at),
            }
            for key in state.all_keys()
        ]
        return {"keys": shown}

    @routes.post("/user_keys")
    def create_user_key() -> Json:
        given = request.get_json()
        key, value = state.create_user_key(given["project_id"], given["name"], delay=control.settings.create_delay)
        return {"id": key.id, "value": value}

    @routes.post("/reset")
    def reset() -> Json:
        control.reset()
        return {}

    return routes
