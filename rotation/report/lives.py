"""What became of each credential of a secret, from its creation until it was shown dead. Pure.

Two sources tell of it. The audit trail has all that was ever done, by which run and for which incident, as far as it is read
here. The journal in the store's metadata has what is so now, and forgets a credential once it is shown dead. Where both
have a time, the trail's counts, as it says who; where the journal alone has one, nobody is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from rotation.journal import Attempt, Journal
from rotation.report.facts import Line

LONGEST: Final = 300
"""Characters of a reason: it may quote a service, which may say anything."""


class What(StrEnum):
    """A step in the life of a credential, in the order in which they come."""

    BEGUN = "begun"
    CREATED = "created"
    ADOPTED = "adopted"
    VERIFIED = "verified"
    PROMOTED = "promoted"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"
    CONDEMNED = "condemned"
    CONTAINED = "contained"
    REVOKED = "revoked"
    REFUSED = "first refused"
    PROVEN = "shown dead"
    CLOSED = "closed"


class State(StrEnum):
    """Where a credential stands."""

    UNDER_WAY = "under way"
    """Being made, or its rotation was interrupted."""
    CURRENT = "current"
    DRAINING = "draining"
    CONDEMNED = "condemned"
    UNPROVEN = "revoked, unproven"
    DEAD = "shown dead"
    CLOSED = "closed"
    """Over, without a proof: nobody refuses it, it was never minted, or it is a person's to revoke."""


LIVES: Final = frozenset({State.CURRENT, State.DRAINING, State.CONDEMNED, State.UNPROVEN})
"""States in which it may work."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done to a credential, or came about."""

    what: What
    at: datetime
    run: str | None = None
    """The writer of the trail that did it; None where the journal alone tells."""
    incident: str | None = None
    note: str = ""
    """Why, where or how, in words."""


@dataclass(frozen=True, slots=True)
class Life:
    """One credential."""

    token: str
    key_id: str | None
    state: State
    steps: tuple[Step, ...]
    """In the order of What; each at most once."""

    def at(self, what: What) -> datetime | None:
        return next((step.at for step in self.steps if step.what is what), None)

    @property
    def first(self) -> datetime:
        """When it was first heard of."""
        return min(step.at for step in self.steps)


class Kind(StrEnum):
    """What else can happen to a secret."""

    FAILED = "failed"
    FROZEN = "frozen"
    THAWED = "thawed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a secret beside the lives of its credentials."""

    kind: Kind
    at: datetime
    text: str
    run: str | None = None
    incident: str | None = None


class History:
    """All that the trail tells of one secret. Lines may come in any order."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[What, Step]] = {}
        """By token, as the trail has it."""
        self._ids: dict[str, str] = {}
        self._promotions: dict[str, dict[str, Step]] = {}
        """By token and store: the first time."""
        self.events: list[Event] = []

    @property
    def empty(self) -> bool:
        return not self._steps and not self._promotions and not self.events

    def hear(self, line: Line) -> None:
        """Takes in one record of the secret. What it does not understand, it leaves out."""
        event, at = str(line["event"]), moment(line.get("at"))
        if at is None:
            return
        told = _Told(at, _text(line.get("writer")) or None, _text(line.get("incident")) or None)
        reason = _text(line.get("reason"))
        if event.endswith(".failed"):
            what = event.removesuffix(".failed")
            self.events.append(told.event(Kind.FAILED, f"{what} failed{reason and f': {reason}'}"))
        elif event in _EVENTS:
            kind, words = _EVENTS[event]
            self.events.append(told.event(kind, f"{words}{reason and f': {reason}'}"))
        elif token := _text(line.get("token")):
            self._hear(event, token, told, reason, line)

    def _hear(self, event: str, token: str, told: _Told, reason: str, line: Line) -> None:
        detail = line.get("detail")
        detail = detail if isinstance(detail, Mapping) else {}
        if key_id := _text(line.get("key_id")):
            self._ids[token] = key_id
        match event:
            case "intend":
                self._add(token, told.step(What.BEGUN, reason))
            case "mint.done":
                self._add(token, told.step(What.CREATED))
            case "adopt":
                self._add(token, told.step(What.ADOPTED, reason))
            case "verify" if detail.get("verdict") in ("valid", "limited"):
                self._add(token, told.step(What.VERIFIED, reason), last=True)
            case "promote.done":
                self._promoted(token, told, _text(line.get("store")))
            case "discard":
                self._add(token, told.step(What.DISCARDED, reason))
            case "condemn":
                self._add(token, told.step(What.CONDEMNED, reason))
            case "contain":
                self._add(token, told.step(What.CONTAINED, "revoked although stores still handed it out"))
            case "revoke.done":
                self._add(token, told.step(What.REVOKED))
            case "prove" if detail.get("verdict") == "invalid":
                self._add(token, told.step(What.REFUSED, reason))
            case "proven" | "closed":
                self._add(token, told.step(What.PROVEN if event == "proven" else What.CLOSED, _how(detail, reason)))
                if ended := moment(detail.get("superseded")):
                    self._add(token, Step(What.SUPERSEDED, ended))

    def _promoted(self, token: str, told: _Told, store: str) -> None:
        stores = self._promotions.setdefault(token, {})
        if store not in stores or told.at < stores[store].at:
            stores[store] = told.step(What.PROMOTED)

    def _add(self, token: str, step: Step, *, last: bool = False) -> None:
        steps = self._steps.setdefault(token, {})
        before = steps.get(step.what)
        if before is None or (step.at > before.at if last else step.at < before.at):
            steps[step.what] = step

    def lives(self, journal: Journal | None = None) -> tuple[Life, ...]:
        """Every credential, oldest first.

        Parameters:
            journal: what is known of it now, an empty one where that is nothing; None where the secret is gone, and all
                that was not shown dead is over.
        """
        steps = {token: dict(found) for token, found in self._steps.items()}
        promotions: list[tuple[datetime, datetime, str]] = []
        same = self._same(journal)
        for token, stores in self._promotions.items():
            ordered = sorted(stores.items(), key=lambda one: (one[1].at, one[0]))
            note = ", ".join(store for store, _ in ordered if store)
            steps.setdefault(token, {})[What.PROMOTED] = replace(ordered[0][1], note=note)
            promotions.append((ordered[0][1].at, ordered[-1][1].at, same.get(token, token)))
        promotions.sort()
        for token, key in same.items():
            for step in steps.pop(token, {}).values():
                # That a credential is stored anew, or gone back to, is no second beginning of it.
                if step.what not in _MAKING:
                    steps.setdefault(key, {}).setdefault(step.what, step)
        ids = {same.get(token, token): key_id for token, key_id in self._ids.items()}
        for (_, _, token), (_, ended, later) in pairwise(promotions):
            if token != later:
                by = steps[later][What.PROMOTED]
                noted = steps[token].get(What.SUPERSEDED)
                steps[token][What.SUPERSEDED] = Step(What.SUPERSEDED, noted.at if noted else ended, by.run, by.incident)
        current: str | None = None
        known: AbstractSet[str] | None = frozenset()
        if journal is not None:
            ids |= journal.key_ids
            known = journal.tokens() if journal.attempts or journal.adopted else None
            for token, step in _told_by(journal):
                steps.setdefault(token, {}).setdefault(step.what, step)
            current = current_of(journal)
            if current is None and known is None and promotions:
                current = promotions[-1][2]
        found = [
            Life(token, ids.get(token), _state(token, seen, current, known), _ordered(seen))
            for token, seen in steps.items()
            if seen
        ]
        return tuple(sorted(found, key=lambda life: (_LATEST.get(life.state, 0), life.first, life.token)))

    def _same(self, journal: Journal | None) -> dict[str, str]:
        """By token of an attempt that carries a key made under another token: that one."""
        same = {a.token: a.key for a in journal.attempts.values() if a.of} if journal is not None else {}
        made = {
            key_id: token
            for token, key_id in self._ids.items()
            if What.CREATED in self._steps.get(token, {}) or What.ADOPTED in self._steps.get(token, {})
        }
        for token, key_id in self._ids.items():
            if (key := made.get(key_id, token)) != token and What.CREATED not in self._steps.get(token, {}):
                same[token] = key
        return same


_LATEST: Final = {State.CURRENT: 1, State.UNDER_WAY: 2}
"""States of the last ones, whatever is known of those before: of some, only the end may be."""
_MAKING: Final = frozenset({What.BEGUN, What.CREATED, What.VERIFIED, What.PROMOTED})
_EVENTS: Final = {
    "freeze": (Kind.FROZEN, "scheduled work stopped"),
    "thaw": (Kind.THAWED, "scheduled work goes on"),
    "mismatch": (Kind.FAILED, "what was read back differs"),
    "release": (Kind.OTHER, "handed back: no longer managed"),
    "start": (Kind.OTHER, "its store's service was told to rotate it"),
}
_PROOFS: Final = {
    "refused": "refused by its issuer",
    "absent": "gone from its issuer's list",
    "unenforced": "out of every store; nobody refuses it",
    "never-minted": "was never minted",
    "foreign": "a person's, who has to revoke it",
}


@dataclass(frozen=True, slots=True)
class _Told:
    at: datetime
    run: str | None
    incident: str | None

    def step(self, what: What, note: str = "") -> Step:
        return Step(what, self.at, self.run, self.incident, note)

    def event(self, kind: Kind, text: str) -> Event:
        return Event(kind, self.at, text, self.run, self.incident)


def _how(detail: Mapping[str, Any], reason: str) -> str:
    how = _text(detail.get("how"))
    return _PROOFS.get(how, how) or reason


def _told_by(journal: Journal) -> Iterator[tuple[str, Step]]:
    """What the facts of a journal say, by the token of the key."""
    for attempt in journal.attempts.values():
        if attempt.of is None:
            yield attempt.token, Step(What.BEGUN, attempt.at, note=attempt.why.value)
    for token, at in journal.adopted_at.items():
        yield token, Step(What.ADOPTED, at)
    for token, at in journal.promoted.items():
        yield _key(journal.attempts.get(token), token), Step(What.PROMOTED, at)
    for token, at in journal.superseded.items():
        yield token, Step(What.SUPERSEDED, at)
    for token, held in journal.condemned.items():
        yield token, Step(What.CONDEMNED, held.at, note=held.why.value)
    for token, at in journal.revoked.items():
        yield token, Step(What.REVOKED, at)
    for token, at in journal.proven.items():
        yield token, Step(What.PROVEN, at)


def _key(attempt: Attempt | None, token: str) -> str:
    return attempt.key if attempt else token


def current_of(journal: Journal) -> str | None:
    """Token of the key that was promoted last, by what is noted; None where nothing is."""
    if not journal.promoted:
        return None
    token = max(journal.promoted, key=lambda one: (journal.promoted[one], one))
    return _key(journal.attempts.get(token), token)


def _state(token: str, steps: Mapping[What, Step], current: str | None, known: AbstractSet[str] | None) -> State:
    """Where a credential stands.

    Parameters:
        current: token of the one that is handed out.
        known: every token of the journal, where that is whole: what it does not know is over.
    """
    if What.PROVEN in steps:
        return State.DEAD
    if What.CLOSED in steps:
        return State.CLOSED
    if known is not None and token not in known:
        return State.CLOSED
    if What.REVOKED in steps:
        return State.UNPROVEN
    if What.CONDEMNED in steps:
        return State.CONDEMNED
    if token == current:
        return State.CURRENT
    if What.PROMOTED in steps or What.SUPERSEDED in steps or What.ADOPTED in steps:
        return State.DRAINING
    return State.CLOSED if What.DISCARDED in steps else State.UNDER_WAY


def _ordered(steps: Mapping[What, Step]) -> tuple[Step, ...]:
    return tuple(steps[what] for what in What if what in steps)


def moment(text: object) -> datetime | None:
    """A time of the trail; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
