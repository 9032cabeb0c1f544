"""Whether a trail is whole: each chain held against itself, and against the heads that anchors name. Pure.

What it can not see, by its nature: what somebody who may write to the place has done to the lines after the last anchor
of a chain, as long as that is consistent in itself; and a chain that nobody ever wrote an anchor for, gone as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rotation.audit.chain import Head, beginning, canonical, digest, parsed
from rotation.audit.trail import Kept

_START: Final = '{"at":"'
"""What every line begins with: the first of its sorted keys."""
_SHOWN_HASH: Final = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of a trail, and where it stands."""

    where: str
    line: Mapping[str, Any]

    @property
    def chained(self) -> bool:
        """Whether it is a link of a chain; records from before there were chains are not."""
        return "prev" in self.line


@dataclass(slots=True)
class _Seen:
    """A writer's chain as far as it was read."""

    head: Head
    where: str
    hashes: dict[int, str]
    anchored: int = -1


@dataclass(slots=True)
class Report:
    """What came of looking."""

    records: int = 0
    chains: int = 0
    anchors: int = 0
    faults: list[str] = field(default_factory=list)
    """Removed, altered or reordered; with where."""
    torn: list[str] = field(default_factory=list)
    """Where a writer was cut off in the middle of a line: by a crash or a full disk."""
    unchained: list[str] = field(default_factory=list)
    """Where something stands that belongs to no chain."""
    repeated: list[str] = field(default_factory=list)
    """Where a line stands that was read before: a place may take one twice when its answer is lost."""
    blind: list[str] = field(default_factory=list)
    """What nobody could tell from this trail and these anchors."""
    heads: list[Head] = field(default_factory=list)
    """The last line of each chain."""
    open: list[Head] = field(default_factory=list)
    """Those of them that no anchor covers."""

    @property
    def good(self) -> bool:
        return not self.faults


def entries(kept: Iterable[Kept]) -> Iterable[Entry]:
    """The records of a trail, whole or not, without judging; what is no record is left out."""
    for line in kept:
        for _, text in _pieces(line.text):
            try:
                said = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(said, dict) and isinstance(said.get("event"), str) and isinstance(said.get("at"), str):
                yield Entry(line.where, said)


def anchored(kept: Iterable[Kept], report: Report) -> list[tuple[str, Head]]:
    """The heads that anchors name, each with where."""
    heads: list[tuple[str, Head]] = []
    for line in kept:
        if line.fault:
            report.faults.append(f"{line.where}: {line.fault}")
        if not line.text.strip():
            continue
        try:
            said = json.loads(line.text)
            found = [_head(head) for head in said["heads"]]
        except (ValueError, RecursionError, KeyError, TypeError):
            whole = line.text.endswith("\n")
            (report.faults if whole else report.torn).append(f"{line.where}: is no anchor" if whole else line.where)
            continue
        report.anchors += 1
        heads += [(line.where, head) for head in found]
    return heads


def verify(
    kept: Iterable[Kept],
    anchors: Iterable[Kept] = (),
    of: tuple[str, str] | None = None,
) -> Report:
    """Reads a whole trail once.

    Parameters:
        kept: its lines, those of each writer in the order in which the place has them.
        anchors: lines with anchors.
        of: installation and environment that every chain must be of; not looked at when None.
    """
    report, chains = Report(), dict[str, _Seen]()
    witnessed: list[tuple[str, Head]] = []
    for line in kept:
        if line.fault:
            report.faults.append(f"{line.where}: {line.fault}")
        for whole, text in _pieces(line.text):
            _take(line.where, text, report, chains, witnessed, of, whole=whole)
    report.chains = len(chains)
    for where, head in witnessed:
        _hold(f"the beginning of the chain at {where}", head, chains, report)
    for where, head in anchored(anchors, report):
        if _hold(f"the anchor at {where}", head, chains, report):
            seen = chains[head.writer]
            seen.anchored = max(seen.anchored, head.seq)
    for seen in chains.values():
        report.heads.append(seen.head)
        if seen.anchored < seen.head.seq:
            report.open.append(seen.head)
    _say_what_is_blind(report, chains)
    return report


def _pieces(text: str) -> Iterable[tuple[bool, str]]:
    """The line; or, where a writer was cut off and another went on in the same line, each part: (is it whole, text)."""
    if not text.strip():
        return
    if not _is_json(text):
        start = text.find(_START, 1)
        while start > 0 and parsed(text[start:]) is None:  # parts of a record may begin alike
            start = text.find(_START, start + 1)
        if start > 0:
            yield False, text[:start]
            text = text[start:]
    yield text.endswith("\n"), text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _take(
    where: str,
    text: str,
    report: Report,
    chains: dict[str, _Seen],
    witnessed: list[tuple[str, Head]],
    of: tuple[str, str] | None,
    *,
    whole: bool,
) -> None:
    if not whole or (not _is_json(text) and _START.startswith(text.strip()[: len(_START)])):
        report.torn.append(where)
        return
    said = parsed(text)
    if said is None:
        _judge(where, text, report)
        return
    report.records += 1
    writer, seq, head = said["writer"], said["seq"], Head(said["writer"], said["seq"], digest(text), said["at"])
    seen = chains.get(writer)
    if seen is not None and seen.hashes.get(seq) == head.hash:
        report.records -= 1
        report.repeated.append(where)
        return
    if seen is None:
        if seq:
            report.faults.append(f"{where}: {_records(0, seq - 1)} of writer {writer} are not before it")
        elif fault := _genesis_fault(said, of, witnessed, where):
            report.faults.append(f"{where}: {fault}")
        chains[writer] = _Seen(head, where, {seq: head.hash})
        return
    if seq == seen.head.seq + 1:
        if said["prev"] != seen.head.hash:
            told = f"record {seq} of writer {writer} does not follow from {seen.where}: one of the two was altered"
            report.faults.append(f"{where}: {told}")
    elif seq > seen.head.seq + 1:
        told = f"{_records(seen.head.seq + 1, seq - 1)} of writer {writer} are missing between {seen.where} and here"
        report.faults.append(f"{where}: {told}")
    elif seq in seen.hashes:
        report.faults.append(f"{where}: another record {seq} of writer {writer} than the one read before")
    else:
        report.faults.append(f"{where}: record {seq} of writer {writer} comes after its record {seen.head.seq}")
    seen.hashes.setdefault(seq, head.hash)
    if seq > seen.head.seq:
        seen.head, seen.where = head, where


def _judge(where: str, text: str, report: Report) -> None:
    """What a line is that is no link of a chain."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        report.faults.append(f"{where}: is no record")
        return
    if isinstance(said, dict) and ("prev" in said or "seq" in said or "writer" in said):
        why = "is spelled otherwise than it was written" if canonical(said) != text else "lacks part of its link"
        report.faults.append(f"{where}: {why}")
    else:
        report.unchained.append(where)


def _genesis_fault(
    said: Mapping[str, Any], of: tuple[str, str] | None, witnessed: list[tuple[str, Head]], where: str
) -> str | None:
    genesis = said.get("genesis")
    if not isinstance(genesis, dict) or beginning(genesis, said["writer"]) != said["prev"]:
        return f"the beginning of writer {said['writer']} was altered"
    if of is not None and (genesis.get("installation"), genesis.get("environment")) != of:
        return f"is of {genesis.get('installation')}, {genesis.get('environment')}, not of {', '.join(of)}"
    if (after := genesis.get("after")) is not None:
        try:
            witnessed.append((where, _head(after)))
        except (ValueError, KeyError, TypeError):
            return "names no line that it came after"
    return None


def _head(said: Any) -> Head:
    return Head(str(said["writer"]), int(said["seq"]), str(said["hash"]), str(said["at"]))


def _hold(by: str, head: Head, chains: Mapping[str, _Seen], report: Report) -> bool:
    """Whether what is named is there, as it was."""
    seen = chains.get(head.writer)
    named = f"record {head.seq} of writer {head.writer} ({head.at}, SHA-256 {head.hash[:_SHOWN_HASH]}…)"
    if seen is None:
        report.faults.append(f"{named}: the whole chain is gone; {by} names it")
    elif head.seq not in seen.hashes:
        report.faults.append(f"{named}: is gone; {by} names it, and the chain ends at {seen.where}")
    elif seen.hashes[head.seq] != head.hash:
        report.faults.append(f"{named}: was altered, or what is before it; {by} has another hash")
    else:
        return True
    return False


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _say_what_is_blind(report: Report, chains: Mapping[str, _Seen]) -> None:
    tails = [(seen.head.seq - seen.anchored, seen) for seen in chains.values() if seen.anchored < seen.head.seq]
    if tails:
        count = sum(length for length, _ in tails)
        report.blind.append(
            f"{count} of {report.records} records, at the end of {len(tails)} of {len(chains)} chains, are after the last "
            "anchor: whoever can write to the place could have cut them off or written them anew"
        )
    report.blind.append("a chain that was begun after the last anchor, and is gone as a whole")
    report.blind.append("records that somebody who can write to the place has added as a chain of their own")
    report.blind.append("in which order records of different writers came, beside the times that they tell")
    if report.unchained:
        report.blind.append(f"{len(report.unchained)} lines that belong to no chain: nothing vouches for them")
