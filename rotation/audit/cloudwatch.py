"""The audit trail in a log group of CloudWatch Logs: a stream for each writer, an event for each line.

Calls: one CreateLogStream for each process, and one PutLogEvents for each put of the trail. Nobody can change an event,
only delete a stream or the group. Facts: CloudWatch Logs API reference, PutLogEvents: events older than 14 days or more
than 2 hours ahead are refused one by one, in an answer that is otherwise good; a repeated put keeps an event twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rotation.audit.chain import Head
from rotation.audit.s3 import client
from rotation.audit.trail import Kept, unkept

_MILLISECONDS: Final = 1000


class CloudWatchPlace:
    """Streams `<environment>/<kind>/<writer>` of one log group, which must exist. Threads may share it.

    Parameters:
        folder: `<environment>/records` or `<environment>/anchors`.
    """

    def __init__(self, group: str, folder: str, *, region: str | None = None, endpoint_url: str | None = None) -> None:
        self._group = group
        self._folder = f"{folder}/"
        self._region = region
        self._endpoint_url = endpoint_url
        self._opening = threading.Lock()
        self._client: Any = None
        self._streams: set[str] = set()

    @property
    def name(self) -> str:
        return f"log group {self._group}"

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:  # noqa: ARG002 - as the port
        """See Place."""
        stream = self._folder + writer
        if stream not in self._streams:
            _, code = self._try("create_log_stream", logGroupName=self._group, logStreamName=stream)
            if code not in (None, "ResourceAlreadyExistsException"):
                told = "there is no such log group" if code == "ResourceNotFoundException" else str(code)
                raise unkept(self.name, told)
            self._streams.add(stream)
        # One put must be in the order of its times; a record tells its own time in its line.
        stamp = int(at.timestamp() * _MILLISECONDS)
        events = [{"timestamp": stamp, "message": line.removesuffix("\n")} for line in lines]
        answer, code = self._try("put_log_events", logGroupName=self._group, logStreamName=stream, logEvents=events)
        if code is not None:
            raise unkept(self.name, code)
        if answer.get("rejectedLogEventsInfo"):
            raise unkept(self.name, f"refused records of {at.isoformat()} for their age; is the clock right?")

    def last(self) -> Head | None:
        """See Place. Asking would cost a call for each process."""
        return None

    def read(self) -> Iterator[Kept]:
        """See Place. In the order of the chains: the service has no order of its own for events of one millisecond."""
        found: list[tuple[str, str, str]] = []
        more: dict[str, Any] = {}
        while True:
            page, code = self._try(
                "filter_log_events", logGroupName=self._group, logStreamNamePrefix=self._folder, **more
            )
            if code is not None:
                raise unkept(self.name, f"can not be read: {code}")
            found += [
                (event["logStreamName"], event["eventId"], event["message"])
                for event in page.get("events", ())
                if event["logStreamName"].startswith(self._folder)  # moto's server gives those of all streams
            ]
            if not (token := page.get("nextToken")):
                break
            more = {"nextToken": token}
        for stream, event_id, text in sorted(found, key=_order):
            yield Kept(f"{self._group}:{stream}:{event_id}", text + "\n")

    def _try(self, operation: str, **parameters: Any) -> tuple[Any, str | None]:
        """The answer, or why there is none: what the SDK raises would hold the request."""
        with self._opening:
            if self._client is None:
                self._client = client("logs", self._region, self._endpoint_url, self.name)
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with the client

        try:
            return getattr(self._client, operation)(**parameters), None
        except ClientError as error:
            return None, str(error.response.get("Error", {}).get("Code", "no reason is known"))
        except BotoCoreError as error:
            return None, f"no answer ({type(error).__name__})"


def _order(event: tuple[str, str, str]) -> tuple[str, int]:
    head = Head.of(event[2] + "\n")
    return event[0], head.seq if head else 0
