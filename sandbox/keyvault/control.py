"""The sandbox's own levers on the stand-in: faults, lists in odd pages, the log of requests, and HTTP for all of it.

Nothing here records a value, a token or a header.
"""

from __future__ import annotations

import fnmatch
import itertools
import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Final, Literal, TypeVar

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from sandbox.keyvault.entra import Directory, Principal, Rule
from sandbox.keyvault.vault import Entry, State, Vault, Version

HOLD_SECONDS: Final = 60.0
"""How long a held request waits before it is given up."""

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Fault:
    """What is to happen to the next requests that match.

    A request meets one fault at most: the oldest that matches. Only requests with a valid token count, so that the SDK's
    empty first request, the one that only fetches the challenge, uses none up; requests for tokens always count.
    """

    kind: Literal["status", "drop", "hold", "stale"]
    """Answer with `status`; cut the connection without an answer; wait for `Control.release`; answer a read as before
    the latest `commits` writes."""
    method: str = "*"
    path: str = "*"
    """A pattern (`*` and `?`) for the path, without its query and without a slash at its end: `/secrets/dev--*`."""
    when: Literal["before", "after"] = "before"
    """Whether the request takes effect: `after` is an answer lost once the write was made."""
    times: int = 1
    """How many requests it happens to."""
    skip: int = 0
    """How many matching requests pass unharmed first."""
    status: int = 503
    retry_after: float | None = None
    """Seconds in Retry-After; the service sends whole ones."""
    commits: int = 1

    def __post_init__(self) -> None:
        if self.kind not in {"status", "drop", "hold", "stale"} or self.when not in {"before", "after"}:
            raise ValueError(f"no such fault: {self.kind} {self.when}")
        if self.kind == "stale" and self.method not in {"GET", "*"}:
            raise ValueError("only reads can be stale")

    def matches(self, method: str, path: str) -> bool:
        return self.method in {"*", method} and fnmatch.fnmatchcase(path, self.path)


@dataclass(frozen=True)
class Record:
    """One request, as the log keeps it."""

    method: str
    path: str
    """Without the query."""
    status: int | None
    """The answer, or the one that was lost; None when the request was cut off before it took effect."""
    client_id: str | None
    """Who sent it, once that was known."""
    fault: str | None
    """The kind of the fault that it met."""


class Armed:
    """A fault with what is left of it; to be touched by `Control` only."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.skip = fault.skip
        self.times = fault.times
        self.held = 0
        self.released = False
        self.given_up = False


class Control:
    """Faults, page plans and the log of one server. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._armed: dict[int, Armed] = {}
        self._plans: dict[str, deque[int]] = {}
        self._log: deque[Record] = deque(maxlen=100_000)

    # For those who drive the sandbox

    def add(self, fault: Fault) -> int:
        """Arms a fault and returns its number."""
        with self._changed:
            number = next(self._numbers)
            self._armed[number] = Armed(number, fault)
            return number

    def fail(self, method: str, path: str, status: int, **more: Any) -> int:
        """Answers the next matching requests with an error status; see `Fault` for more."""
        return self.add(Fault("status", method, path, status=status, **more))

    def drop(self, method: str, path: str, *, when: Literal["before", "after"], **more: Any) -> int:
        """Cuts the connection of the next matching requests, before or after they took effect."""
        return self.add(Fault("drop", method, path, when=when, **more))

    def hold(self, method: str, path: str, **more: Any) -> int:
        """Makes the next matching requests wait until they are released."""
        return self.add(Fault("hold", method, path, **more))

    def stale(self, path: str, **more: Any) -> int:
        """Answers the next matching reads as before the latest writes."""
        return self.add(Fault("stale", "GET", path, **more))

    def wait_held(self, number: int, timeout: float = 10.0) -> None:
        """Returns once a request waits at a hold.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._armed[number].held > 0, timeout):
                raise TimeoutError(f"no request reached hold {number}")

    def release(self, number: int) -> None:
        """Lets go on what waits at a hold, and lets pass what comes later."""
        with self._changed:
            self._armed[number].released = True
            self._changed.notify_all()

    def clear_faults(self) -> None:
        """Disarms all faults and forgets the page plans; what is held goes on."""
        with self._changed:
            for armed in self._armed.values():
                armed.released = True
            self._armed.clear()
            self._plans.clear()
            self._changed.notify_all()

    def plan_pages(self, path: str, sizes: Iterable[int]) -> None:
        """Gives the next pages of a list (`/secrets`, `/deletedsecrets`, `/secrets/NAME/versions`) these sizes, 0 included.

        Until the plan is used up each page has a link to the next one, even when nothing is left to list.
        """
        with self._changed:
            self._plans[path] = deque(sizes)

    @property
    def log(self) -> list[Record]:
        """All requests so far except those to the control plane, oldest first."""
        with self._changed:
            return list(self._log)

    def clear_log(self) -> None:
        with self._changed:
            self._log.clear()

    def count(self, method: str = "*", path: str = "*", *, authenticated: bool = True) -> int:
        """How many requests in the log match; without those that only fetched the challenge, unless they are wanted."""
        return sum(
            Fault("status", method, path).matches(record.method, record.path)
            and (record.client_id is not None or not authenticated)
            for record in self.log
        )

    # For the server

    def arriving(self, method: str, path: str) -> Armed | None:
        """The fault that a request meets, which thereby is used up by one."""
        with self._changed:
            for armed in self._armed.values():
                if not armed.times or armed.released or not armed.fault.matches(method, path):
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                armed.times -= 1
                return armed
            return None

    def wait(self, armed: Armed) -> bool:
        """Waits at a hold; False when it was not released in time or the server stops."""
        with self._changed:
            armed.held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: armed.released or armed.given_up, HOLD_SECONDS)
            armed.held -= 1
            return armed.released

    def next_page(self, path: str) -> tuple[int | None, bool]:
        """The planned size of the next page, if any, and whether another one is planned after it."""
        with self._changed:
            plan = self._plans.get(path)
            if not plan:
                return None, False
            return plan.popleft(), bool(plan)

    def record(self, record: Record) -> None:
        with self._changed:
            self._log.append(record)

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are armed, with what is left of each."""
        with self._changed:
            return [
                asdict(armed.fault)
                | {"number": armed.number, "times": armed.times, "skip": armed.skip, "held": armed.held}
                for armed in self._armed.values()
                if armed.held or (armed.times and not armed.released)
            ]

    def give_up(self) -> None:
        """Ends the wait of what is held, without letting it take effect."""
        with self._changed:
            for armed in self._armed.values():
                if armed.held:
                    armed.given_up = True
                    armed.times = 0
            self._changed.notify_all()


def blueprint(control: Control, vault: Vault, directory: Directory) -> Blueprint:
    """The control plane for another process. Bodies are JSON; the server listens on loopback only."""
    routes = Blueprint("sandbox", __name__, url_prefix="/_sandbox")

    @routes.errorhandler(TypeError)
    @routes.errorhandler(ValueError)
    @routes.errorhandler(KeyError)
    def refuse(error: Exception) -> ResponseReturnValue:
        return jsonify(error=str(error)), 400

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        return jsonify(ok=True)

    @routes.post("/reset")
    def reset() -> ResponseReturnValue:
        control.clear_faults()
        control.clear_log()
        vault.reset()
        return jsonify(ok=True)

    @routes.get("/faults")
    def show_faults() -> ResponseReturnValue:
        return jsonify(faults=control.faults())

    @routes.post("/faults")
    def add_fault() -> ResponseReturnValue:
        return jsonify(number=control.add(Fault(**_body())))

    @routes.delete("/faults")
    def clear_faults() -> ResponseReturnValue:
        control.clear_faults()
        return jsonify(ok=True)

    @routes.post("/faults/<int:number>/release")
    def release(number: int) -> ResponseReturnValue:
        control.release(number)
        return jsonify(ok=True)

    @routes.post("/pages")
    def plan_pages() -> ResponseReturnValue:
        body = _body()
        control.plan_pages(str(body["path"]), [int(size) for size in body["sizes"]])
        return jsonify(ok=True)

    @routes.get("/requests")
    def show_requests() -> ResponseReturnValue:
        log = control.log
        counts = Counter(f"{record.method} {record.path}" for record in log if record.client_id)
        return jsonify(requests=[asdict(record) for record in log], counts=counts)

    @routes.delete("/requests")
    def clear_requests() -> ResponseReturnValue:
        control.clear_log()
        return jsonify(ok=True)

    @routes.get("/settings")
    def show_settings() -> ResponseReturnValue:
        return jsonify(asdict(vault.settings) | {"token_lifetime": directory.token_lifetime})

    @routes.patch("/settings")
    def change_settings() -> ResponseReturnValue:
        body = _body()
        directory.token_lifetime = int(body.pop("token_lifetime", directory.token_lifetime))
        vault.settings = _changed(vault.settings, body)
        return show_settings()

    @routes.put("/principals/<client_id>")
    def put_principal(client_id: str) -> ResponseReturnValue:
        directory.put(principal_from(_body() | {"client_id": client_id}))
        return jsonify(ok=True)

    @routes.delete("/principals/<client_id>")
    def remove_principal(client_id: str) -> ResponseReturnValue:
        directory.remove(client_id)
        return jsonify(ok=True)

    @routes.post("/tokens/revoke")
    def revoke_tokens() -> ResponseReturnValue:
        directory.revoke_tokens()
        return jsonify(ok=True)

    @routes.post("/entries")
    def seed() -> ResponseReturnValue:
        entries = [_entry(each) for each in _body()["entries"]]
        for entry in entries:
            vault.seed(entry)
        return jsonify(seeded=len(entries))

    return routes


def principal_from(data: dict[str, Any]) -> Principal:
    """Reads {"client_id": …, "client_secret": …, "allow": [{"permissions": ["get"], "names": ["dev--*"]}], "deny": […]}.

    Raises:
        KeyError, ValueError: what is missing or not known.
    """

    def rules(key: str) -> tuple[Rule, ...]:
        return tuple(
            Rule(frozenset(rule["permissions"]), tuple(rule.get("names", ("*",)))) for rule in data.get(key, ())
        )

    return Principal(data["client_id"], data["client_secret"], allow=rules("allow"), deny=rules("deny"))


def _body() -> dict[str, Any]:
    body = request.get_json()
    if not isinstance(body, dict):
        raise TypeError("the body must be a JSON object")
    return body


def _entry(data: dict[str, Any]) -> Entry:
    """Reads an entry: {"name", "versions": [{"id", "value", "created", "updated", …}], "managed", "state", "deleted_at"}."""
    versions = tuple(Version(**version) for version in data["versions"])
    return Entry(**data | {"versions": versions, "state": State(data.get("state", "active"))})


def _changed(settings: _Settings, changes: dict[str, Any]) -> _Settings:
    """Settings with some fields changed; nested ones likewise.

    Raises:
        ValueError: an unknown field, or a value of another type.
    """
    assert is_dataclass(settings)
    assert not isinstance(settings, type)
    known = {each.name: getattr(settings, each.name) for each in fields(settings)}
    new: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"no such setting: {name}; there are {sorted(known)}")
        old = known[name]
        if is_dataclass(old) and isinstance(value, dict):
            new[name] = _changed(old, value)
        elif is_dataclass(old):
            raise ValueError(f"{name} is an object")
        elif isinstance(value, bool) is not isinstance(old, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} is a {type(old).__name__}")
        else:
            new[name] = type(old)(value)
    return replace(settings, **new)
