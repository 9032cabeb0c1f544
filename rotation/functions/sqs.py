"""Sends a fleet's messages to SQS, ten to a call, and sends again what the service did not take.

Facts from the API reference of SQS: a batch has ten messages at most; the answer is a success although some may be in
`Failed`; each message and the batch as a whole have 1 MiB at most.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Final, Self

from rotation.batches import Batch
from rotation.errors import Code, Trouble

_BATCH: Final = 10
_TRIES: Final = 3
_REGION: Final = re.compile(r"https://sqs\.([a-z0-9-]+)\.")


class Sender:
    """A context manager: what was sent is on its way when it is left without an exception.

    Parameters:
        queue: its address, `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`.
        client: of SQS; made when not given, with the process's own login.
    """

    def __init__(self, queue: str, client: Any = None) -> None:
        self._queue = queue
        self._client = client
        self._waiting: list[str] = []

    def __enter__(self) -> Self:
        if self._client is None:
            import boto3  # noqa: PLC0415 - importing this module stays cheap

            found = _REGION.match(self._queue)
            self._client = boto3.client("sqs", region_name=found[1] if found else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()

    def send(self, batch: Batch) -> None:
        """Puts one message into the queue, soon.

        Raises:
            Trouble: the queue does not take messages. What was not sent is found by the next dispatch.
        """
        self._waiting.append(str(batch))
        if len(self._waiting) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with the client

        left, self._waiting = self._waiting, []
        for _ in range(_TRIES):
            if not left:
                return
            entries = [{"Id": str(number), "MessageBody": text} for number, text in enumerate(left)]
            try:
                answer = self._client.send_message_batch(QueueUrl=self._queue, Entries=entries)
            except ClientError as error:
                code = error.response["Error"].get("Code", "")
                raise Trouble(Code.UNAVAILABLE, "sqs", f"the fleet's queue takes no messages ({code})") from None
            except BotoCoreError as error:
                told = f"the fleet's queue does not answer ({type(error).__name__})"
                raise Trouble(Code.UNAVAILABLE, "sqs", told) from None
            left = [left[int(failed["Id"])] for failed in answer.get("Failed", ())]
        if left:
            raise Trouble(Code.UNAVAILABLE, "sqs", f"the fleet's queue did not take {len(left)} messages")
