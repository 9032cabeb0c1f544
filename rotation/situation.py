"""What an observation means: which keys exist, where each one stands, what is in flight.

Pure. `decide` asks its questions here, so that each of its rules reads as one sentence.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from rotation import form as forms
from rotation import schedule as schedules
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Frozen, Why
from rotation.model import Capabilities, Check, Entry, KeyInfo, LastUse, Model, Policy, Propagation, Verdict, Version


@dataclass(frozen=True, slots=True)
class Absent:
    """A store that could not be seen into, or has no such entry."""

    store: str
    reason: str
    missing: bool
    """True: the store answered, and there is no such entry. False: no answer."""
    soon: bool = False
    """A copy that its service is making."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Everything that was seen of one secret in one look: replicas first, the primary last.

    The order matters: a replica seen before the primary can not have been written from a primary
    version newer than the one seen, so a compare-and-set on the replica can not undo a later mirror.
    """

    policy: Policy
    primary: Entry
    replicas: Mapping[str, Entry | Absent]
    pair_free_at: datetime | None = None
    """Scheduled rotations wait for this: the paired secret's own window."""
    unfenced: frozenset[str] = frozenset()
    """Stores among these without compare-and-set: a write that was delayed there still lands."""
    ahead: timedelta = timedelta(0)
    """How far our clock is ahead of the primary's. What is written down is in the primary's time."""

    @property
    def handed_out(self) -> Mapping[str, str | None]:
        """The version that each store hands out; None where it hands out none, or can not be asked."""
        entries = {self.primary.store: self.primary, **self.replicas}
        return {
            store: entry.current.id if isinstance(entry, Entry) and entry.current else None
            for store, entry in entries.items()
        }


@dataclass(frozen=True, slots=True)
class Streak:
    """Equal answers in a row, of one question, within one run."""

    verdict: Verdict
    count: int
    at: datetime
    reason: str = ""

    def then(self, verdict: Verdict, at: datetime, reason: str) -> Streak:
        same = verdict == self.verdict or (verdict.live and self.verdict.live)
        return Streak(verdict, self.count + 1 if same else 1, at, reason)


@dataclass(slots=True)
class Evidence:
    """What one run found out by asking. Nothing of it outlives the run; a new run asks again."""

    checks: dict[str, Streak] = field(default_factory=dict)
    """By attempt token: verification of its pending value."""
    current: dict[str, Streak] = field(default_factory=dict)
    """By version id: verification of a current value that the journal does not explain."""
    refusals: dict[str, Streak] = field(default_factory=dict)
    """By key token: what the issuer says of a revoked credential."""
    listed: dict[str, KeyInfo] | None = None
    """By key token: our live keys of this secret at the issuer, from one complete listing. Where a mint arrived
    twice there are two under one token; this is the one that the journal knows by its id."""
    listed_ids: frozenset[str] = frozenset()
    """Ids of all keys that the listing shows, whatever their names."""
    unnamed: dict[str, datetime | None] = field(default_factory=dict)
    """By key id: when the listed keys without a name were made."""
    listed_at: datetime | None = None
    last_use: dict[str, LastUse] = field(default_factory=dict)
    expires: dict[str, datetime] = field(default_factory=dict)
    """By key token: when a key that this run minted expires by itself."""
    issued: dict[str, str] = field(default_factory=dict)
    """By key token: ids of the keys that this run minted."""
    smoked: dict[str, Check] = field(default_factory=dict)
    """By attempt token: the answer to one minimal real request."""
    started: bool = False
    """This run has had the store's service start a rotation."""
    gave_way: bool = False
    """This run has given up an attempt: another run was about to create, or the issuer refused."""
    unspent: set[str] = field(default_factory=set)
    """Attempts whose intent this run wrote and whose value it has not made yet."""
    apart: set[str] = field(default_factory=set)
    """Keys whose value was held against every current value that has no known id, and is another."""
    alike: set[str] = field(default_factory=set)
    """Keys whose value is one of these, or could not be read: they may be what is handed out."""
    unreadable: set[str] = field(default_factory=set)
    """Keys whose old value no store can give back."""
    failed: dict[str, Trouble] = field(default_factory=dict)
    """By what was tried: actions that failed in this run, with the error. Others go on without them."""
    identified: set[str] = field(default_factory=set)
    """Ids of current versions that were held against the values of our keys."""
    unparsed: set[str] = field(default_factory=set)
    """Those of them that something else has put there, and in another form than the declared one."""
    matched: set[tuple[str, str]] = field(default_factory=set)
    """(replica, attempt token): the copy was read back and is the primary's value."""

    def _answers(self) -> tuple[dict[str, Any], ...]:
        return (self.checks, self.current, self.refusals, self.last_use, self.smoked)

    def _found(self) -> tuple[set[Any], ...]:
        return (self.unreadable, self.identified, self.unparsed, self.apart, self.alike, self.matched)

    def known(self) -> tuple[Any, ...]:
        """What has been answered so far, to tell it from what comes next."""
        return [dict(a) for a in self._answers()], [set(f) for f in self._found()], self.listed

    def expire(self, known: tuple[Any, ...]) -> None:
        """Drops what was known before a call that took so long that it says nothing of now. What it answered stays."""
        answers, found, listed = known
        for mine, old in zip(self._answers(), answers, strict=True):
            for key in [key for key, answer in old.items() if mine.get(key) is answer]:
                del mine[key]
        for seen, before in zip(self._found(), found, strict=True):
            seen.difference_update(before)
        if self.listed is listed:
            self.listed, self.listed_at, self.listed_ids, self.unnamed = None, None, frozenset(), {}


class Stop(StrEnum):
    """How far one step of a rotation goes that the store's own service has started."""

    STAGED = "staged"
    VERIFIED = "verified"
    """And staged in every replica: all is ready for the promotion."""
    PROMOTED = "promoted"


@dataclass(frozen=True, slots=True)
class Order:
    """What a run was asked for beyond what is due anyway."""

    replace: str | None = None
    """Token of what is to stop being current; see Situation.handed_out."""
    take_over: bool = False
    """Does not wait for another run's attempt to expire. Costs work, never safety."""
    listed: frozenset[str] | None = None
    """Key ids that the issuer lists, when this sweep has asked."""
    listed_at: datetime | None = None
    submitted: bool = False
    """A person has brought the credential that a manual issuer can not mint."""
    back_to: str | None = None
    """Token of an earlier key that is to be current again."""
    destroy: bool = False
    """The entry is about to be deleted: every condemned key dies now, and nothing takes its place."""
    token: str | None = None
    """Of a rotation that the store's own service has started: the one attempt that this run works on."""
    stop: Stop = Stop.PROMOTED
    """How far to take that one."""


CALL_LIMIT: Final = timedelta(seconds=60)
"""Total timeout of one outgoing call; providers keep to it."""

ATTEMPT_LIFE: Final = timedelta(minutes=15)
"""M of the protocol: no write of an attempt, and no mint, goes out later than this after its intent.
Held by a monotonic deadline checked before each write, and the total timeout of one call."""


EMERGENCY_CLAIM: Final = timedelta(minutes=1)
"""How long a run waits for another's attempt while the current credential is to die."""

HASTE: Final = 2
"""How many times sooner an issuer is asked again while what has leaked lives on. It has to answer as often."""
HASTY_FOR: Final = timedelta(seconds=30)
"""For so long after a change; what takes longer is not sooner known by asking oftener."""


REGENERATED_WITHIN: Final = timedelta(minutes=2, seconds=15)
"""After one run has noted that a slot's key is revoked another one may still be about it: by a look of before, which
may be a minute old when its request goes out, and the request may take a minute."""

MOST_DOOMED: Final = 2
"""Condemned keys that wait for their revocation; with as many nothing is minted, or the journal would fill up."""
MOST_RETIRING: Final = 6
"""Keys on their way out, the draining ones included; with as many the next rotation waits."""
MOST_RETURNS: Final = 3
"""How often runs begin to go back to an old key by themselves, while nothing else changes."""
FACTS_OF_A_ROTATION: Final = 4
"""Attempt, key and promotion of the new key; that the old one is superseded."""
FACTS_OF_A_DEATH: Final = 3
"""Condemned, to be contained, revoked."""
FACTS_BESIDES: Final = 4
"""A back-off; a freeze; the attempt that stores the current credential anew, and its promotion."""
LISTED_WITHIN: Final = timedelta(hours=1)
"""A list may be behind a mint by this much, and then does not show a young key that lives."""
EXPIRY_MARGIN: Final = timedelta(days=2)
"""A credential that expires by itself is replaced this long before, and its grace period besides."""


_NO_SCHEDULE: Final = (ValueError, LookupError, OverflowError)
"""What computing a schedule may raise: a zone that this machine does not know, a cron expression of another version.
The age that is allowed decides then, and nothing else is held up."""


def foreign_token(entry: Entry, version: Version) -> str:
    """The token that a value of somebody else's goes by: of its version, so that every run gives it the same."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{entry.store} {entry.name} {version.id}").hex


@dataclass(frozen=True, eq=False)
class Situation:
    """Questions about one observation."""

    seen: Observation
    evidence: Evidence
    issuer: Capabilities
    order: Order
    now: datetime

    @property
    def policy(self) -> Policy:
        return self.seen.policy

    @cached_property
    def current(self) -> Version | None:
        return self.seen.primary.current

    @cached_property
    def current_id(self) -> str | None:
        return self.current.id if self.current else None

    @cached_property
    def current_key(self) -> str | None:
        """Token of the key that the primary hands out; None when it is not one of ours."""
        return self.key_of(self.current)

    @cached_property
    def handed_out(self) -> str | None:
        """Token of what is current, be it ours or not yet adopted; None when there is nothing."""
        return self.current_key or (foreign_token(self.seen.primary, self.current) if self.current else None)

    @cached_property
    def current_unnamed(self) -> bool:
        """Whether some store hands out what the issuer may know by any name."""
        entries = [e for e in (self.seen.primary, *self.seen.replicas.values()) if isinstance(e, Entry) and e.current]
        keys = [self.key_of(entry.current) or "" for entry in entries]
        return any(self.key_id(key) is None and key not in self.seen.primary.journal.revoked for key in keys)

    @cached_property
    def pending(self) -> Version | None:
        """What waits for promotion. The current version's own label or copy does not count."""
        pending = self.seen.primary.pending
        if pending is None or (self.current and pending.token is not None and pending.token == self.current.token):
            return None
        return pending

    def key_of(self, version: Version | None) -> str | None:
        if version is None or version.token is None:
            return None
        if attempt := self.seen.primary.journal.attempts.get(version.token):
            return attempt.key
        if version.key_id:  # the version itself says what it carries, whatever the journal still knows
            for token, key_id in self.seen.primary.journal.key_ids.items():
                if key_id == version.key_id:
                    return token
        return version.token

    def void(self, attempt: Attempt) -> bool:
        """Whether an attempt can not be promoted any more: current has left its base, for ever."""
        return attempt.base != self.current_id

    def returns(self, key: str) -> bool:
        """Whether an old key is on its way back: it may be current again before anybody can note that."""
        staged = self.pending.token if self.pending else None
        ways = [a for a in self.attempts_of(key) if a.of == key and not self.void(a)]
        return any(a.token == staged or not self.expired(a) for a in ways)

    def rewrites(self, attempt: Attempt) -> bool:
        """Whether an attempt stores what is current as a new version: nothing else is handed out by it.

        So it needs no verdict of the issuer, and may carry a condemned or even dead key: that one is
        handed out already, and moving on from its version is what frees keys that a paused run might
        still promote.
        """
        return attempt.why is Why.REWRITE and attempt.key == self.current_key and not self.void(attempt)

    @cached_property
    def roles(self) -> Mapping[str, list[str]]:
        """By key token: `store:role` wherever a version in a role carries that key."""
        roles: dict[str, list[str]] = {}
        for entry in (self.seen.primary, *self.seen.replicas.values()):
            if isinstance(entry, Absent):
                continue
            for role, version in (("current", entry.current), ("pending", entry.pending)):
                if key := self.key_of(version):
                    roles.setdefault(key, []).append(f"{entry.store}:{role}")
        return roles

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Tokens of all keys that the journal or a version knows, oldest attempt first."""
        journal = self.seen.primary.journal
        known = {a.key for a in journal.attempts.values()} | set(journal.key_ids) | set(journal.condemned)
        known |= set(journal.revoked) | set(self.roles) | set(journal.adopted)
        known |= {token for token in journal.promoted if token not in journal.attempts}
        first = {token: attempt.at for token, attempt in journal.attempts.items()}
        return tuple(sorted(known, key=lambda token: (first.get(token, self.now), token)))

    def attempts_of(self, key: str) -> list[Attempt]:
        return self._attempts.get(key, [])

    @cached_property
    def _attempts(self) -> Mapping[str, list[Attempt]]:
        found: dict[str, list[Attempt]] = {}
        for attempt in self.seen.primary.journal.attempts.values():
            found.setdefault(attempt.key, []).append(attempt)
        return found

    def key_id(self, key: str) -> str | None:
        """The issuer's id of a key, from the journal, a version that names it, or the issuer's list."""
        if recorded := self.recorded_id(key):
            return recorded
        if self.evidence.listed and (info := self.evidence.listed.get(key)):
            return info.key_id
        return None

    def recorded_id(self, key: str) -> str | None:
        """The same, as far as we have it written down or have minted the key in this run."""
        if known := self.seen.primary.journal.key_ids.get(key):
            return known
        for entry in (self.seen.primary, *self.seen.replicas.values()):
            if isinstance(entry, Absent):
                continue
            for version in (entry.current, entry.pending):
                if version and version.key_id and self.key_of(version) == key:
                    return version.key_id
        return self.evidence.issued.get(key)

    def cut_off(self, key: str) -> bool:
        """Whether it is what a person brought, and a run that was interrupted did not make current: nobody was handed it by
        us, and the person has it still.
        """
        journal = self.seen.primary.journal
        known = (
            key in self.roles
            or self.promoted_at(key)
            or key in {**journal.adopted, **journal.condemned, **journal.revoked}
        )
        return self.issuer.model is Model.MANUAL and not known

    def surely_of(self, version: Version, key: str) -> bool:
        """Whether a version under a key's token is of no other key. Two have one token where a mint arrived twice: an
        orphan may be the one that no store ever had.
        """
        known = self.recorded_id(key)
        if version.key_id is not None:
            return known is None or version.key_id == known
        return all(attempt.why is not Why.ORPHAN for attempt in self.attempts_of(key))

    def is_listed(self, key: str) -> bool:
        """Whether the listing of this run shows a key."""
        return key in (self.evidence.listed or ()) or self.key_id(key) in self.evidence.listed_ids

    def strangers(self, key: str) -> tuple[str, ...]:
        """Listed keys without a name that nobody knows, and that the lost mint of a key may have made."""
        ours = {self.key_id(other) for other in self.keys}
        spans = [(a.at - LISTED_WITHIN, a.at + ATTEMPT_LIFE + LISTED_WITHIN) for a in self.attempts_of(key)]
        return tuple(
            key_id
            for key_id, at in self.evidence.unnamed.items()
            if key_id not in ours and (at is None or any(begin <= at <= end for begin, end in spans))
        )

    def listable(self, key: str) -> bool:
        """Whether a list of the issuer would show a key while it lives: a list is asked for names of ours only."""
        mints = self.issuer.model is Model.MINT and self.issuer.registry
        given = key in self.seen.primary.journal.adopted
        return mints and (not given or any(a.of is None for a in self.attempts_of(key)))

    def gone(self, key: str, since: datetime) -> bool:
        """Whether a key is dead although nobody here has revoked it: in a list no more, and refused."""
        refused, current = self.evidence.refusals.get(key), self.evidence.current.get(self.current_id or "")
        if refused is None or refused.verdict is not Verdict.INVALID or refused.count < self.issuer.revoke.in_a_row:
            return False
        # An issuer that refuses what is current, too, may refuse everybody at the time.
        held = current is not None and current.verdict.live and current.at >= refused.at
        return held and self.missed(key, since)

    def missed(self, key: str, since: datetime) -> bool:
        """Whether the sweep's list, taken well after a time, lacks a key. A list may be short: that alone says little."""
        listed, at = self.order.listed, self.listed_at
        if listed is None or at is None:
            return False
        if not self.listable(key) or (key_id := self.key_id(key)) is None or key_id in listed:
            return False
        current = self.current_key
        if current is not None and not self.urgent and self.listable(current) and self.key_id(current) not in listed:
            return False
        born = max((a.at for a in self.attempts_of(key) if a.of is None), default=self.promoted_at(key) or since)
        return at > max(since + self.issuer.revoke.timeout, born + self.issuer.create.timeout + LISTED_WITHIN)

    def known_from(self, key: str) -> datetime | None:
        """From when all of the issuer knows that a key of ours was made; None where it does so at once."""
        made = [a.at for a in self.attempts_of(key) if a.of is None]
        if not self.issuer.spreads or not made:
            return None
        journal, held = self.seen.primary.journal, self.seen.primary.journal.condemned.get(key)
        # What was promoted, or tried and found wanting, was there by then. Else its mint may have gone out late.
        seen = journal.promoted.get(key) or (held.at if held and held.why is Why.NEVER_VERIFIED else None)
        return (seen or max(made) + ATTEMPT_LIFE) + self.issuer.spreads

    def promoted_at(self, key: str) -> datetime | None:
        """When a key last became current, as far as noted."""
        journal = self.seen.primary.journal
        times = [at for a in self.attempts_of(key) if (at := journal.promoted.get(a.token))]
        if (own := journal.promoted.get(key)) is not None:
            times.append(own)
        return max(times, default=None)

    def aged_from(self, key: str) -> datetime | None:
        """From when the age of a key counts: when it first became current, or was gone back to."""
        journal = self.seen.primary.journal
        back = [a.token for a in self.attempts_of(key) if a.why is Why.ROLLBACK]
        times = [at for token in (key, *back) if (at := journal.promoted.get(token))]
        return max(times, default=None) or self.promoted_at(key)

    def drained(self, key: str) -> bool:
        """Whether a key was condemned after its drain, and has not been current since."""
        held, since = self.seen.primary.journal.condemned.get(key), self.superseded_at(key)
        return held is not None and held.why is Why.RETIRED and since is not None and since < held.at

    @property
    def frozen(self) -> Frozen | None:
        """An incident's freeze. It holds up what is merely due, and the end of keys that did not leak."""
        return self.seen.primary.journal.frozen

    @property
    def expiring(self) -> bool:
        """Whether the current credential will soon stop working by itself: nothing holds up its replacement."""
        expires = self.cycle.expires if self.cycle else None
        return expires is not None and expires <= self.now

    @cached_property
    def asked(self) -> bool:
        """Whether what is current is what a person wants to be replaced."""
        if self.order.replace is None or self.current is None:
            return False
        # It went by its version's token before anybody knew whose it is.
        return self.order.replace in (self.handed_out, foreign_token(self.seen.primary, self.current))

    @cached_property
    def going_back(self) -> bool:
        """Whether the earlier key that was asked for can still be had, and is not current yet."""
        journal, back = self.seen.primary.journal, self.order.back_to
        dead = back in journal.condemned or back in journal.revoked
        return back is not None and not dead and self.asked

    def superseded_at(self, key: str) -> datetime | None:
        """When a key stopped being current in every store, as far as noted since it last was current."""
        at = self._noted_superseded(key)
        if at is None or key in self.seen.primary.journal.foreign or key in self.evidence.apart:
            return at
        # What a person put there since, and nobody could compare, may have been this one.
        unnamed = [other for other in self.seen.primary.journal.foreign if self.key_id(other) is None]
        return max([at, *(later for other in unnamed if (later := self._noted_superseded(other)))])

    def _noted_superseded(self, key: str) -> datetime | None:
        journal, promoted = self.seen.primary.journal, self.promoted_at(key)
        at, back = journal.superseded.get(key), journal.adopted_at.get(key)
        return at if at and promoted and at >= max(promoted, back or promoted) else None

    def has_value(self, key: str) -> bool:
        """Whether a key is more than a trace of an attempt that is forgotten: it was minted or adopted as itself."""
        return bool(self.attempts_of(key)) or self.key_id(key) is not None or key in self.seen.primary.journal.adopted

    @cached_property
    def unreachable(self) -> tuple[Absent, ...]:
        """Replicas of the policy that can not be asked."""
        away = [r for r in self.seen.replicas.values() if isinstance(r, Absent) and not r.missing]
        return tuple(r for r in away if r.store in self.policy.replicas)

    @cached_property
    def lagging(self) -> tuple[str, ...]:
        """Replicas of the policy that do not hand out what the primary does, or can not be asked."""
        token = self.current.token if self.current else None
        return tuple(
            store
            for store, entry in self.seen.replicas.items()
            if (isinstance(entry, Absent) and (not entry.missing or store in self.policy.replicas))
            or (isinstance(entry, Entry) and (entry.current.token if entry.current else None) != token)
        )

    @cached_property
    def astray(self) -> tuple[str, ...]:
        """Those of them that do not hand out the primary's key, under whatever version: by what is known, an older one."""
        held = {store: entry.current for store, entry in self.seen.replicas.items() if isinstance(entry, Entry)}
        return tuple(
            store
            for store in self.lagging
            if self.current_key is None or self.key_of(held.get(store)) != self.current_key
        )

    @cached_property
    def stranded(self) -> bool:
        """Whether waiting for the replicas would be for ever.

        The primary hands out nothing that works, so nothing is mirrored, and the place for its replacement is that of
        an old credential: what each replica hands out is known, and another one.
        """
        held = [self.seen.replicas[store] for store in self.lagging]
        keys = [self.key_of(entry.current) for entry in held if isinstance(entry, Entry)]
        known = len(keys) == len(held) and all(key in self.keys for key in keys)
        return known and (self.urgent or self.current is None) and self.no_room

    @cached_property
    def fallback(self) -> str | None:
        """The key to go back to where a dead primary keeps replicas behind at a full issuer: the last one known to have worked.

        None once that was tried as often as it is worth: nobody may be able to read its value.
        """
        if not (self.lagging and self.urgent and (self.full or self._told_full)):
            return None
        journal = self.seen.primary.journal
        left = [
            (at, key)
            for key in self.retiring
            if (at := self.promoted_at(key)) is not None
            and (self.superseded_at(key) is None or not self.stranded)  # otherwise it drains, and makes room
            and self.has_value(key)
            and key not in (*journal.condemned, *journal.revoked, *journal.foreign)
        ]
        key = max(left)[1] if left else None
        tried = [a for a in journal.attempts.values() if a.of == key and a.base == self.current_id]
        return key if len(tried) < MOST_RETURNS else None

    @property
    def _told_full(self) -> bool:
        """Whether the issuer has no room by its own word, whatever is known of its limits: keys of others take it, too."""
        off = self.seen.primary.journal.backoff
        return off is not None and off.error == Code.LIMIT.value

    @cached_property
    def urgent(self) -> bool:
        """The current credential is to die, or is dead."""
        journal = self.seen.primary.journal
        key = self.current_key
        ends = journal.expires.get(key or "")
        dead = self.found_dead or (ends is not None and ends <= self.sure)
        return dead or (key is not None and (key in journal.condemned or key in journal.revoked))

    @cached_property
    def found_dead(self) -> bool:
        """A current value that the journal does not explain is refused by the issuer."""
        streak = self.evidence.current.get(self.current_id or "")
        return streak is not None and streak.verdict is Verdict.INVALID and streak.count >= self.issuer.revoke.in_a_row

    @cached_property
    def explained(self) -> bool:
        """Whether the journal knows how the current version came to be current, and why it should still work."""
        token = self.current.token if self.current else None
        journal = self.seen.primary.journal
        if self.pending is None and self.usurpers:
            return False
        if self.delisted:
            return False  # somebody has deleted it at the issuer, or its list is late
        return self.current is None or (token is not None and (token in journal.attempts or token in journal.promoted))

    @cached_property
    def delisted(self) -> bool:
        """Whether the current key is absent from a list that the issuer gave after its promotion."""
        key = self.current_key
        since = self.promoted_at(key) if key else None
        slotted = self.issuer.regenerates and any(a.of is None for a in self.attempts_of(self.current_key or ""))
        if self.issuer.model is not Model.MINT and not slotted:
            return False  # what was not made under our ids stands in no list, nor does the one credential of an issuer
        if self.order.listed is None or self.listed_at is None or key is None or since is None:
            return False
        key_id = self.key_id(key)
        return key_id is not None and since < self.listed_at and key_id not in self.order.listed

    @property
    def listed_at(self) -> datetime | None:
        """When the sweep asked the issuer for its list, by the primary's clock or ours, whichever is behind."""
        return self.order.listed_at and self.order.listed_at - max(self.seen.ahead, timedelta(0))

    def last_write(self, key: str) -> datetime | None:
        """Until when a delayed write may still make a key current somewhere; None where that is impossible."""
        if not self.seen.unfenced:
            return None
        return max((a.at + ATTEMPT_LIFE for a in self.attempts_of(key)), default=None)

    @cached_property
    def current_works(self) -> bool | None:
        """What the issuer said of the current value in this run; None when it was not asked, or does not tell."""
        streak = self.evidence.current.get(self.current_id or "")
        if streak is None or streak.verdict is Verdict.UNKNOWN:
            return None
        return True if streak.verdict.live else (False if self.found_dead else None)

    @cached_property
    def crowded(self) -> bool:
        """As many of our keys live as there may be: more would only pile up."""
        # Keys that are held because a person's value may be theirs wait for the next rotation, so they are no reason.
        waiting = 0 if self.current_unnamed else len(self.retiring)
        if self._told_full and self.doomed:  # what is to die makes room
            return True
        return self.full or self.cramped or len(self.doomed) >= MOST_DOOMED or waiting >= MOST_RETIRING

    @cached_property
    def doomed(self) -> tuple[str, ...]:
        """Condemned keys that are not revoked yet and do not drain."""
        journal = self.seen.primary.journal
        drains = (Why.SUPERSEDED, Why.ORPHAN)
        return tuple(
            key
            for key, held in journal.condemned.items()
            if key not in (*journal.revoked, *journal.foreign, self.current_key) and held.why not in drains
        )

    @cached_property
    def no_room(self) -> bool:
        """Whether nothing may be minted now. A dead current credential waits for less than a scheduled rotation."""
        if self.emergency:  # its keys are condemned already: each has one more fact to come
            room, journal = self.seen.primary.room, self.seen.primary.journal
            coming = FACTS_OF_A_ROTATION + len(self.keys) + 1 + FACTS_BESIDES - bool(journal.frozen)
            return self.full or (room is not None and len(journal.facts) + coming > room)
        if self.urgent or (self.current is not None and self.current_key is None):
            return self.full or self._cramped_after(1) or len(self.doomed) >= 2 * MOST_DOOMED
        return self.crowded

    @cached_property
    def cramped(self) -> bool:
        """After one more rotation the journal had no room for an emergency over all keys, and what follows it."""
        return self._cramped_after(2)

    def _cramped_after(self, rotations: int) -> bool:
        room = self.seen.primary.room
        if room is None:
            return False
        journal, keys = self.seen.primary.journal, len(self.keys) + 1
        rotation = FACTS_OF_A_ROTATION + bool(journal.expires)
        besides = FACTS_BESIDES - bool(journal.frozen)
        return len(journal.facts) + rotations * rotation + FACTS_OF_A_DEATH * keys + besides > room

    @cached_property
    def emergency(self) -> bool:
        journal = self.seen.primary.journal
        return self.current_key in journal.condemned and self.current_key in journal.contain

    def pause(self, change: Propagation, *, since: datetime, leaked: bool) -> timedelta:
        """How long to wait between two equal answers of the issuer about a change.

        Parameters:
            since: when it was made.
            leaked: a credential that has leaked is accepted, or may be, until they are there.
        """
        hasty = leaked and self.now < since + HASTY_FOR
        return change.interval / HASTE if hasty else change.interval

    def expired(self, attempt: Attempt) -> bool:
        """Whether no run may write for this attempt any more."""
        return self.sure >= attempt.at + ATTEMPT_LIFE

    @property
    def behind(self) -> timedelta:
        """How far the primary's clock is behind ours, or grace where that is less: what protects begins by the later."""
        return min(max(self.seen.ahead, timedelta(0)), self.policy.grace)

    @property
    def sure(self) -> datetime:
        """The time by whichever is behind, our clock or the primary's: what protects ends by no clock that is ahead."""
        return self.now + min(self.seen.ahead, timedelta(0))

    @cached_property
    def lost(self) -> tuple[Attempt, ...]:
        """Attempts on the current version that have no value anywhere, and are not this run's."""
        journal = self.seen.primary.journal
        return tuple(
            a
            for a in journal.attempts.values()
            if a.of is None
            and not self.void(a)
            and a.token not in self.evidence.unspent
            and a.token not in journal.promoted
            and a.token not in self.roles
        )

    @cached_property
    def usurpers(self) -> tuple[Attempt, ...]:
        """Where there is one credential only: attempts whose mint came to nothing, and may have destroyed it."""
        journal = self.seen.primary.journal
        made = journal.attempts.get(self.current_key or "")
        if self.issuer.model is not Model.REPLACE or self.current is None:
            return ()
        return tuple(
            a
            for a in journal.attempts.values()
            if a.of is None
            and a.token not in (self.current_key, *self.evidence.unspent, *journal.promoted, *self.roles)
            and (made is None or a.at + ATTEMPT_LIFE > made.at)
        )

    def rivals(self, attempt: Attempt) -> bool:
        """Whether another run may be about to create where that destroys."""
        doomed = self.seen.primary.journal.condemned
        others = [a for a in (*self.lost, *self.unstaged) if a.token != attempt.token and a.key not in doomed]
        return any(self.sure < a.at + self.claim for a in others)

    @property
    def replaced(self) -> bool:
        """Where there is one credential only: whether what is current is it, so that every other one is dead.

        It was minted, or it works. What a person has saved, and is refused, has destroyed nothing.
        """
        minted = any(attempt.of is None for attempt in self.attempts_of(self.current_key or ""))
        return minted or bool(self.current_works)

    @cached_property
    def unstaged(self) -> tuple[Attempt, ...]:
        """Void attempts of other runs that may still create the one credential that there can be."""
        journal = self.seen.primary.journal
        if self.issuer.model is not Model.REPLACE:
            return ()
        return tuple(
            a
            for a in journal.attempts.values()
            if a.of is None
            and self.void(a)
            and a.token not in (*journal.key_ids, *journal.promoted, *self.roles, *self.evidence.unspent)
        )

    @property
    def destroys(self) -> bool:
        """Creating a key destroys another one."""
        return self.issuer.model in (Model.SLOTS, Model.REPLACE)

    @cached_property
    def claim(self) -> timedelta:
        """For how long an attempt of another run is left alone."""
        # Where creating destroys, two mints at once destroy each other's: nobody is hurried but by an outage.
        hurry = self.found_dead if self.destroys else self.emergency
        return EMERGENCY_CLAIM if hurry else ATTEMPT_LIFE

    @cached_property
    def free_slot(self) -> str | None:
        """A slot that no key of ours occupies; None where there is none, or no slots."""
        revoked = self.seen.primary.journal.revoked
        over = [key for key in self.keys if (key in revoked or self._dead_current(key)) and self.settled(key)]
        taken = {slot for key in self.keys if key not in over for slot in self.slots_of(key)}
        free = [slot for slot in self.issuer.slots if slot not in taken]
        if not free or (self.slot_unknown and not self.urgent):  # it matters no more once that is to die
            return None
        free.sort(key=lambda slot: slot in self.slots_of(self.current_key or ""))  # what may live after all comes last
        # The issuer may refuse to touch the one that holds what is handed out: each try takes another.
        off = self.seen.primary.journal.backoff if self.slot_unknown else None
        return free[off.failures % len(free)] if off else free[0]

    def settled(self, key: str) -> bool:
        """Whether no request to revoke a key is under way any more that would destroy what its slot holds by then."""
        revoked = self.seen.primary.journal.revoked.get(key)
        return revoked is None or not self.issuer.regenerates or self.sure >= revoked + REGENERATED_WITHIN

    def _dead_current(self, key: str) -> bool:
        """The current key, refused by its issuer, whose list has it no more: nothing is lost with what its slot holds."""
        listed = self.order.listed
        return key == self.current_key and self.found_dead and listed is not None and self.key_id(key) not in listed

    def slots_of(self, key: str) -> set[str]:
        """Where a key is: its attempts say so, or the id with which it was adopted."""
        given = (self.key_id(key) or "").partition("/")[0]
        return {a.slot for a in self.attempts_of(key) if a.slot} | ({given} & set(self.issuer.slots))

    @cached_property
    def slot_unknown(self) -> bool:
        """Whether any slot may be the one of what is handed out. A value that was put there dead is in none."""
        held = self.seen.primary.journal.condemned.get(self.current_key or "")
        dead = self.found_dead or (held is not None and held.why is Why.NEVER_VERIFIED)
        known = self.current is None or dead or self.slots_of(self.current_key or "")
        return self.issuer.model is Model.SLOTS and not known

    @cached_property
    def at_work(self) -> Attempt | None:
        """An attempt of another run that may still be at its mint: leave it alone for a while."""
        if self.order.take_over and not self.destroys:
            return None
        journal = self.seen.primary.journal
        for attempt in journal.attempts.values():
            if (
                attempt.token not in self.evidence.unspent
                and attempt.key not in journal.condemned
                and (not self.void(attempt) or attempt in self.unstaged)
                and self.sure < attempt.at + self.claim
                and attempt.token not in journal.promoted
                and not (self.pending and self.pending.token == attempt.token)
            ):
                return attempt
        return None

    def left_to_service(self, attempt: Attempt) -> bool:
        """Whether the store's own service is at work on an attempt, by steps that follow each other."""
        ours = attempt.token == self.order.token or attempt.why is not Why.DUE or self.urgent
        return self.policy.native and not ours and not self.expired(attempt)

    @cached_property
    def full(self) -> bool:
        """The issuer holds as many of our keys as it allows."""
        if self.issuer.model is Model.SLOTS:
            return self.free_slot is None
        if self.issuer.max_keys is None or self.issuer.model is Model.REPLACE:
            return False
        journal, listed = self.seen.primary.journal, self.evidence.listed
        revoked, condemned, foreign = journal.revoked, journal.condemned, journal.foreign
        alive = [
            key
            for key in self.keys
            if key not in revoked
            and (listed is None or key in listed or self.key_id(key) is not None)
            and not (key == self.current_key and self.found_dead)
            and not (key in foreign and (held := condemned.get(key)) and held.why is Why.NEVER_VERIFIED)
            and not ((since := self.promoted_at(key)) and self.gone(key, since))
        ]
        return len(alive) >= self.issuer.max_keys

    @cached_property
    def form(self) -> str:
        """The form that values are to be stored in."""
        return self.policy.form or forms.default(self.issuer.fields)

    def readable(self, version: Version) -> bool:
        """Whether a version is in the declared form; what nobody has read yet is taken to be."""
        journal, token = self.seen.primary.journal, version.token or ""
        attempt = journal.attempts.get(token)
        return self.in_form(journal.forms.get(token)) if attempt is None else attempt.form == forms.digest(self.form)

    def in_form(self, form: str | None) -> bool:
        """Whether a form, by its digest, is the declared one; where none is known it is taken to be."""
        return not form or form == forms.digest(self.form)

    @cached_property
    def retiring(self) -> tuple[str, ...]:
        """Keys that are neither current nor waiting for promotion: draining, condemned, or revoked and unproven."""
        staged = self.key_of(self.pending)
        return tuple(key for key in self.keys if key not in (self.current_key, staged))

    @cached_property
    def cycle(self) -> schedules.Cycle | None:
        """Since when the current credential lives, and until when it may; None when that is not known yet."""
        if self.current is None:
            return None
        since = self.aged_from(self.current_key) if self.current_key else None
        since = since or self.current.created_at
        expires = self.seen.primary.journal.expires.get(self.current_key or "")
        early = expires - self.policy.grace - EXPIRY_MARGIN if expires else None
        if expires and early and since:
            early = max(early, since + (expires - since) / 2)  # one that lives shorter than its grace period
        if since is None and early is None:
            return None
        return schedules.cycle(self.policy, since or early or self.now, early)

    @cached_property
    def due(self) -> schedules.Due | None:
        """When the current credential is to be replaced, and why then."""
        if self.cycle is None or self.current is None:
            return None
        if not self.readable(self.current):
            # A rotation is how the form gets into the stores.
            return schedules.Due(self.cycle.since, "the declared form has changed", self.cycle.overdue)
        try:
            return schedules.due(self.policy.schedule, self.cycle)
        except _NO_SCHEDULE as error:
            return schedules.Due(
                self.cycle.latest, f"its schedule can not be computed here: {error}", self.cycle.overdue
            )

    @cached_property
    def due_at(self) -> datetime | None:
        return self.due.at if self.due else None

    @property
    def is_due(self) -> bool:
        """Whether it is to be replaced: its time has come, or it is older than allowed, whatever holds it up."""
        return self.due is not None and min(self.due.at, self.due.overdue) <= self.now

    @cached_property
    def opening(self) -> schedules.Due | None:
        """When a rotation that is due may begin, by its windows and blackouts; None while it is not due."""
        if self.cycle is None or not self.is_due:
            return None
        try:
            return schedules.opening(self.policy.schedule, self.cycle, self.now)
        except _NO_SCHEDULE:
            return self.due

    @property
    def next(self) -> schedules.Due | None:
        """The next rotation: when it is due, or may begin where that is later, and why then."""
        return self.opening if self.opening and not self.due_now else self.due

    @property
    def due_now(self) -> bool:
        """Whether it is due, and may begin."""
        return self.opening is not None and self.opening.at <= self.now
