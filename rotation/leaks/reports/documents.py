"""From the bytes of a report to its JSON objects, one after the other, with where each of them stands.

Takes one document, an array of objects, several documents in a row (what `gh api --paginate` and `jq` write), and JSON lines
with other lines among them (what a pipe brings that carries a scanner's log as well).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

_CHUNK: Final = 1024 * 1024
_DIGITS: Final = 18
"""Of a whole number. Longer ones are no line of a file, and reading them takes time that grows with their square."""
_BLANKS: Final = re.compile(r"[ \t\r\n]*")

_NO_JSON: Final = "not JSON"
_NO_OBJECT: Final = "no JSON object"
_TOO_DEEP: Final = "nested too deeply"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a report, or the reason why there is none."""

    where: str
    """`entry 3`, `line 17`."""
    found: Mapping[str, object] | None
    why: str = ""
    """Of none: the reason."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Nothing more can be read."""

    message: str
    """What follows the report's name in a sentence; empty where there is no JSON at all."""
    wholly: bool = True
    """False where it does not matter as long as there was an object of use."""


@dataclass(frozen=True, slots=True)
class _Bad:
    """Why there is no value here, and at which character."""

    at: int
    why: str


# --- bytes to text ---------------------------------------------------------------------------------


def taken(stream: BinaryIO, most: int) -> str | Broken:
    """The text of a stream of at most so many bytes. Every buffer of its own is zeroed again.

    Bytes that are not UTF-8 become lone surrogates, so that they spoil the values only that they stand in.
    """
    raw = bytearray()
    try:
        return _filled(raw, stream, most) or _decoded(raw)
    finally:
        raw[:] = bytes(len(raw))


def _filled(raw: bytearray, stream: BinaryIO, most: int) -> Broken | None:
    chunk = bytearray(_CHUNK)
    into = getattr(stream, "readinto", None)
    try:
        while True:
            if into is not None:
                size = into(chunk) or 0
            else:
                piece = stream.read(_CHUNK)
                size = len(piece)
                chunk[:size] = piece
            if not size:
                return None
            if len(raw) + size > most:
                return Broken(f"is larger than {_amount(most)}; split it, or have less scanned at a time")
            raw += memoryview(chunk)[:size]
    except OSError as problem:
        return Broken(f"can not be read: {problem.strerror or type(problem).__name__}")
    finally:
        chunk[:] = bytes(len(chunk))


def _amount(size: int) -> str:
    return f"{size // 1024**2:,} MiB" if size >= 1024**2 else f"{size:,} bytes"


def _decoded(raw: bytearray) -> str | Broken:
    start = bytes(raw[:4])
    encoding = json.detect_encoding(start)
    if not encoding.startswith("utf-8"):
        try:
            text = raw.decode(encoding, "surrogatepass")
        except UnicodeDecodeError:
            text = "\0"
    else:
        text = raw.decode("utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "utf-8", "surrogateescape")
    # JSON writes it as an escape, so it stands in no report.
    return Broken("is binary and no report") if "\0" in text else text


# --- text to objects -------------------------------------------------------------------------------


def entries(text: str, most: int) -> Iterator[Entry | Broken]:
    """Every object of the text, in order; last of all Broken, where something makes no sense, or there are too many.

    Of an array that is broken what comes before the fault is told, then Broken. From anything else that is broken on, the
    text is gone through line by line.

    Parameters:
        most: how many objects, arrays and lines are gone through.
    """
    for number, entry in enumerate(_all(text)):
        if number >= most:
            yield Broken(f"has more than {most:,} entries; split it")
            return
        if entry is not None:
            yield entry


def _all(text: str) -> Iterator[Entry | Broken | None]:
    """None for what is nothing to tell of, an array's end, so that whoever counts sees it pass."""
    at, count = _past_blanks(text, 0), 0
    while at < len(text):
        if text[at] == "[":
            end, count = yield from _array(text, at, count)
            if isinstance(end, Broken):
                yield end
                return
            yield None
        elif text[at] == "{":
            value = _value(text, at)
            if isinstance(value, _Bad):
                yield from _lines(text, at)
                yield Broken(_said(text, value), wholly=False)
                return
            found, end = value
            count += 1
            yield _entry(f"entry {count}", found)
        else:
            yield from _lines(text, at)
            yield Broken("", wholly=False)
            return
        at = _past_blanks(text, end)


def _array(text: str, at: int, count: int) -> Generator[Entry, None, tuple[int | Broken, int]]:
    """The objects of the array that begins here, one at a time, so that no more than one is held as dictionaries."""
    at = _past_blanks(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1, count
    while True:
        value = _value(text, at)
        if isinstance(value, _Bad):
            return Broken(_said(text, value)), count
        found, at = value
        for each in found if isinstance(found, list) else [found]:  # what `gh api --paginate --slurp` writes
            count += 1
            yield _entry(f"entry {count}", each)
        at = _past_blanks(text, at)
        mark = text[at : at + 1]
        if mark == "]":
            return at + 1, count
        if mark != ",":
            return Broken(_said(text, _Bad(at, _NO_JSON))), count
        at = _past_blanks(text, at + 1)


def _lines(text: str, at: int) -> Iterator[Entry]:
    number = _position(text, at)[0]
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if line:
            yield _alone(line, f"line {number}")
        at, number = end + 1, number + 1


def _alone(line: str, where: str) -> Entry:
    """The object that this line is, and nothing else."""
    value = _value(line, 0) if line.startswith("{") else _Bad(0, _NO_JSON)
    if isinstance(value, _Bad):
        return Entry(where, None, value.why)
    found, end = value
    return _entry(where, found) if end == len(line) else Entry(where, None, _NO_JSON)


def _entry(where: str, found: object) -> Entry:
    return Entry(where, found) if isinstance(found, dict) else Entry(where, None, _NO_OBJECT)


def _past_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= _DIGITS else None


def _nothing(_: str) -> None:
    """In place of NaN and the infinities."""


_DECODER: Final = json.JSONDecoder(parse_int=_whole, parse_constant=_nothing, strict=False)


def _value(text: str, at: int) -> tuple[object, int] | _Bad:
    """The value that begins here, and where it ends. The parser's exception, which has the whole text, is let go of."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as problem:
        return _Bad(problem.pos, _NO_JSON)
    except RecursionError:
        return _Bad(at, _TOO_DEEP)


def _said(text: str, bad: _Bad) -> str:
    line, column = _position(text, bad.at)
    what = "is nested too deeply for a report" if bad.why == _TOO_DEEP else "is broken JSON"
    return f"{what}, at line {line:,}, column {column:,}" + (", where it ends" if bad.at >= len(text) else "")


def _position(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
