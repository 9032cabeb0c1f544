"""What a test may ask of the AWS stand-in: faults for the calls to come, and the log of the calls that came.

The log holds operations, secret names, key ids and outcomes, never a value.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args
from urllib.request import Request, urlopen

from sandbox.aws.identity import unknown_key
from sandbox.aws.wire import Call, ServiceError

PATH = "/_sandbox/"
LOG_LENGTH = 10_000

Kind = Literal["throttle", "server_error", "denied", "unknown_key", "not_found", "late_error", "lost_answer", "drop"]
"""`throttle`, `server_error` and `denied` answer in the service's words without doing anything; so do `unknown_key` (a
new access key that has not spread yet) and `not_found` (a read that does not see a write yet). `late_error` does the work and answers that it failed; `lost_answer` does the
work and closes the connection; `drop` closes it at once."""


@dataclass
class Fault:
    """Befalls the next calls that match."""

    operation: str
    """`PutSecretValue`, `iam:CreateAccessKey`, or a pattern: `secretsmanager:*`."""
    kind: Kind
    times: int = 1
    skip: int = 0
    """How many matching calls go through first."""

    def matches(self, call: Call) -> bool:
        return fnmatchcase(call.name if ":" in self.operation else call.operation, self.operation)

    def error(self, call: Call) -> ServiceError | None:
        """What the service answers, or None where the fault is in the connection."""
        json_form = call.is_json
        match self.kind:
            case "throttle":
                return ServiceError("ThrottlingException" if json_form else "Throttling", "Rate exceeded")
            case "server_error":
                return server_error(call)
            case "denied":
                code = "AccessDeniedException" if json_form else "AccessDenied"
                message = f"User is not authorized to perform: {call.name}"
                return ServiceError(code, message, 400 if json_form else 403)
            case "not_found":
                code = "ResourceNotFoundException" if json_form else "NoSuchEntity"
                message = "Secrets Manager can't find the specified secret." if json_form else "It cannot be found."
                return ServiceError(code, message, 400 if json_form else 404)
            case "unknown_key":
                return unknown_key(call)
            case _:
                return None


def server_error(call: Call) -> ServiceError:
    """What a service answers that has a fault of its own."""
    code = {"iam": "ServiceFailure", "sts": "InternalFailure"}.get(call.service, "InternalServiceError")
    return ServiceError(code, "An error occurred on the server side.", 500)


@dataclass(frozen=True)
class Record:
    """A call that came in."""

    operation: str
    """`secretsmanager:PutSecretValue`."""
    region: str
    access_key_id: str
    subject: str
    """The secret's name or ARN, or the user's name; empty where the call has none."""
    outcome: str
    """`ok`, an error code, `lost_answer` or `drop`."""


class Desk:
    """The server's side: faults waiting, calls recorded. Not thread-safe: the server calls it under its lock."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.records: deque[Record] = deque(maxlen=LOG_LENGTH)
        self.counts: Counter[str] = Counter()

    def add_fault(self, description: dict[str, Any]) -> None:
        """Adds a fault as `Control.fail` describes it.

        Raises:
            ValueError: it is not such a description.
        """
        if description.get("kind") not in get_args(Kind):
            raise ValueError(f"a fault's kind is one of {', '.join(get_args(Kind))}, not {description.get('kind')!r}")
        try:
            self.faults.append(Fault(**description))
        except TypeError as error:
            raise ValueError(f"a fault has operation, kind, times and skip: {error}") from None

    def take_fault(self, call: Call) -> Fault | None:
        """The fault that befalls this call, if any; counts it down."""
        for fault in self.faults:
            if not fault.matches(call):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            return fault
        return None

    def record(self, call: Call, outcome: str) -> None:
        parameters = call.parameters
        subject = parameters.get("SecretId") or parameters.get("Name") or parameters.get("UserName") or ""
        self.records.append(Record(call.name, call.region, call.access_key_id, str(subject), outcome))
        self.counts[call.name] += 1

    def forget(self) -> None:
        self.records.clear()
        self.counts.clear()

    def log(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "calls": [asdict(record) for record in self.records]}


class Control:
    """The same over HTTP, for a server in this process or in another."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")

    def fail(self, operation: str, kind: Kind, *, times: int = 1, skip: int = 0) -> None:
        """Lets the next `times` matching calls fail, after `skip` that go through.

        An SDK's own retries are calls too: boto3 sends again after everything but `denied`, `unknown_key` and
        `not_found`.

        Raises:
            urllib.error.HTTPError: 400, the kind is unknown.
        """
        self._post("faults", {"operation": operation, "kind": kind, "times": times, "skip": skip})

    def clear_faults(self) -> None:
        self._post("faults/clear", {})

    def counts(self) -> dict[str, int]:
        """How often each operation was called: `{"secretsmanager:PutSecretValue": 2}`. Refused calls count."""
        counts: dict[str, int] = self._get("calls")["counts"]
        return counts

    def calls(self) -> list[Record]:
        """The last calls, oldest first."""
        return [Record(**record) for record in self._get("calls")["calls"]]

    def forget_calls(self) -> None:
        self._post("calls/forget", {})

    def freeze_lists(self, frozen: bool) -> None:
        """Lets ListSecrets answer from how things are now, or from how they are then again."""
        self._post("lists", {"frozen": frozen})

    def reset(self) -> None:
        """Empties the account: secrets, users, roles, faults and log."""
        self._post("reset", {})

    def _get(self, path: str) -> Any:
        with urlopen(self._endpoint + PATH + path) as answer:  # noqa: S310  # the sandbox's own endpoint
            return json.load(answer)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = Request(self._endpoint + PATH + path, json.dumps(body).encode())  # noqa: S310
        urlopen(request).close()  # noqa: S310
