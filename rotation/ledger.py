"""Issuers' lists in little room: which ids are listed, and which of our keys nothing has claimed yet.

A row is about 200 bytes, so that a hundred thousand keys take some 30 MB with their ids. Each issuer is asked once, when
somebody first wants to know: before anything that is told later, as an orphan must be older than any run.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rotation.errors import Trouble
from rotation.model import KeyInfo
from rotation.ports import Clock, Issuer
from rotation.situation import ATTEMPT_LIFE, Order

_UNDATED: Final = "-"


@dataclass(slots=True, eq=False)
class _List:
    """One issuer's."""

    at: datetime
    ids: frozenset[str]
    """Of all keys that it lists, whoever made them."""
    rows: list[str]
    """`secret token time id` of each key of ours that is older than any attempt may be; in order."""
    claimed: bytearray
    """By row: 1 for what an entry has claimed."""


class Ledger:
    """What the issuers list. For one thread.

    Parameters:
        issuers: by name.
        installation: whose keys are ours,
        environment: and of which stack.
    """

    def __init__(self, issuers: Mapping[str, Issuer], installation: str, environment: str, clock: Clock) -> None:
        self._issuers = issuers
        self._prefix = f"{installation}.{environment}-"
        self._clock = clock
        self._lists: dict[str, _List | None] = {}
        self.troubles: Final[list[Trouble]] = []
        """Of issuers that did not answer; the others are not held up by them."""

    def order(self, issuer: str) -> Order:
        """What a run of a sweep is told of its issuer's list, as far as that is known."""
        listed = self._list(issuer)
        return Order(listed=listed.ids, listed_at=listed.at) if listed else Order(listed_at=self._clock.now())

    def claim(self, issuer: str, secret: str, claims: Mapping[str, str | None] | None) -> bool:
        """Takes away what one entry of a secret claims; gives whether any old key of its name is left.

        Parameters:
            claims: see orphans.claims(); None takes all away, for nobody can tell which are orphans.
        """
        listed, left = self._list(issuer), False
        if listed is None:
            return False
        ids = set(claims.values()) if claims is not None else set()
        for index in _rows(listed, secret):
            if listed.claimed[index]:
                continue
            token, key = _read(listed.rows[index])
            # Where one mint arrived twice, both keys have one token, and the other's id is known.
            mine = claims is None or key.key_id in ids or (token in claims and claims[token] is None)
            listed.claimed[index] = mine
            left = left or not mine
        return left

    def mark(self, issuer: str, secret: str) -> int:
        """Another one whenever the keys that are listed of a secret may be others."""
        if (listed := self._list(issuer)) is None:
            return 0
        rows = "\n".join(listed.rows[index] for index in _rows(listed, secret))
        return int.from_bytes(hashlib.blake2b(rows.encode(), digest_size=7).digest())

    def lists(self, issuer: str, key_id: str) -> bool:
        """Whether a key is known to be listed."""
        listed = self._list(issuer)
        return listed is not None and key_id in listed.ids

    def left(self) -> Iterator[tuple[str, str, list[tuple[str, KeyInfo]]]]:
        """Issuer, secret, and its old keys that nothing has claimed, with the token in the name of each."""
        for issuer, listed in sorted(self._lists.items()):
            found: dict[str, list[tuple[str, KeyInfo]]] = {}
            for row, claimed in zip(listed.rows, listed.claimed, strict=True) if listed else ():
                if not claimed:
                    found.setdefault(row.partition(" ")[0], []).append(_read(row))
            for secret, keys in found.items():
                yield issuer, secret, keys

    def _list(self, issuer: str) -> _List | None:
        if issuer not in self._lists:
            self._lists[issuer] = self._ask(issuer)
        return self._lists[issuer]

    def _ask(self, name: str) -> _List | None:
        if not self._issuers[name].capabilities.registry:
            return None
        at, ids, rows = self._clock.now(), set[str](), list[str]()
        try:
            for key in self._issuers[name].keys():  # noqa: SIM118 - a port's method, and no mapping's
                ids.add(key.key_id)
                rows += self._row(key, at)
        except Trouble as trouble:
            self.troubles.append(trouble)
            return None
        rows.sort()
        return _List(at, frozenset(ids), rows, bytearray(len(rows)))

    def _row(self, key: KeyInfo, now: datetime) -> list[str]:
        secret, _, token = key.name.removeprefix(self._prefix).partition(".")
        ours = key.name.startswith(self._prefix) and token and "." not in token and " " not in key.name
        if not ours or (key.created_at is not None and key.created_at + ATTEMPT_LIFE > now):
            return []
        at = str(int(key.created_at.timestamp())) if key.created_at else _UNDATED
        return [f"{secret} {token} {at} {key.key_id}"]


def _rows(listed: _List, secret: str) -> Iterator[int]:
    prefix = f"{secret} "
    index = bisect_left(listed.rows, prefix)
    while index < len(listed.rows) and listed.rows[index].startswith(prefix):
        yield index
        index += 1


def _read(row: str) -> tuple[str, KeyInfo]:
    _, token, at, key_id = row.split(" ", 3)
    return token, KeyInfo(key_id, "", None if at == _UNDATED else datetime.fromtimestamp(int(at), UTC))
