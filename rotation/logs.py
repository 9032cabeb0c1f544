"""The structured log: one JSON object a line on standard error, with every living secret value masked."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TextIO

from rotation.model import MASK, values_alive

_SHORTEST = 4
"""A value of fewer characters would mask half of ordinary words; none of ours is that short."""


def masked(text: str) -> str:
    """The text with every secret value that lives in this process replaced."""
    return _masked(text, _values())


def masker() -> Callable[[str], str]:
    """masked() by the values that live now, for thousands of texts that are shown at once."""
    values = _values()
    return lambda text: _masked(text, values)


def masked_json(text: str) -> str:
    """A JSON document, as json.dumps() writes one, with the same done to all texts in it at once."""
    return _masked(text, [json.dumps(value)[1:-1] for value in _values()])


def _values() -> list[str]:
    return [value for value in values_alive(ordered=False) if len(value) >= _SHORTEST]


def _masked(text: str, values: Sequence[str]) -> str:
    for value in sorted((value for value in values if value in text), key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


class JsonFormatter(logging.Formatter):
    """Renders a record, exceptions included, and masks the result as a whole.

    Whoever logs may add fields of JSON to the line: `extra={"fields": {...}}`. None replaces one of the line's own.
    """

    def format(self, record: logging.LogRecord) -> str:
        shown = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        fields = getattr(record, "fields", None)
        whole = shown | (fields if isinstance(fields, dict) else {}) | shown
        # Of a value with quotes or the like in it, JSON has another spelling: what is masked are the texts themselves.
        return json.dumps(masked_parts(whole))


def masked_parts(part: object) -> object:
    """What is about to become JSON, with masked() applied to each text in it; anything else becomes its text."""
    return _parts(part, _values())  # gathered once: there may be thousands of texts, and of values


def _parts(part: object, values: Sequence[str]) -> object:
    if isinstance(part, dict):
        return {str(name): _parts(value, values) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_parts(value, values) for value in part]
    return part if part is None or isinstance(part, int | float) else _masked(str(part), values)


def start(level: str = "WARNING", stream: TextIO | None = None) -> None:
    """Sends every logger of the process through the masking formatter.

    SDKs that log request bodies at DEBUG are held at INFO whatever the level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    _hold_sdks(logging.INFO)


def adopt(level: str = "INFO") -> None:
    """Puts the masking formatter into the handlers that a platform has given the process; without any, see start().

    SDKs, which log every request at INFO, are held at WARNING.
    """
    root = logging.getLogger()
    if not root.handlers:
        start(level)
    for handler in root.handlers:
        handler.setFormatter(JsonFormatter())
    root.setLevel(level)
    _hold_sdks(logging.WARNING)


def _hold_sdks(least: int) -> None:
    for sdk in ("azure", "botocore", "boto3", "hvac", "urllib3", "requests", "msal"):
        logging.getLogger(sdk).setLevel(max(least, logging.getLogger().level))
