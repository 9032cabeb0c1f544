"""The small interfaces that providers fill. One contract suite each, under tests/contracts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from rotation.model import (
    Capabilities,
    Check,
    Counting,
    Credential,
    Entry,
    Issued,
    KeyInfo,
    KeyUse,
    LastUse,
    SecretValue,
    Version,
)


@dataclass(frozen=True, slots=True)
class StoreFeatures:
    """What a store can do; a rule that needs more than a store offers says so here, never by a skip."""

    compare_and_set: bool
    """promote() fails when `expected` is not current any more, atomically."""
    keeps_key_id: bool
    """A version carries its key id beside the value."""
    max_value_bytes: int
    """In UTF-8: of names and values of all fields together, or of the one text where `text_only`."""
    recovers_deleted: bool
    """delete() can be undone by restore() for a while."""
    text_only: bool = False
    """A version holds one text: the field `value` as it is when there is no other, else a JSON object of all
    fields. read() gives the stored text in the field `value`, which is all that can be told of it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A managed entry as a listing shows it: metadata only, possibly minutes old."""

    name: str
    policy: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of its journal, those that the listing brings along anyway: all of them, or, in Key Vault, what the current
    version says of itself. For people who read; nothing is decided by them."""


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """What a listing shows of an entry, or of one part of it; several may be of one entry."""

    name: str
    """The entry's."""
    policy: Mapping[str, str]
    """Empty where this part tells none."""
    entry: Entry | None = None
    """All that observe() would see, where the listing tells as much; the values are left out."""
    mark: int = 0
    """Those of an entry's parts, added up, differ whenever what observe() sees may. Below 2**63; 0 where nothing tells."""


@runtime_checkable
class Glances(Protocol):
    """A store whose listing tells more of an entry than its policy."""

    def glances(self) -> Iterator[Glance]:
        """As SecretStore.listing(): page by page, metadata only, no call for each entry that listing() would not make."""


class SecretStore(Protocol):
    """Keeps secrets. Every method names the entry by its name in the store, environment included.

    Any method may raise Trouble. One whose effect is uncertain raises with maybe_applied=True, and
    the caller finds out by observe(); no method repeats a write by itself when that could have a
    second effect.
    """

    @property
    def name(self) -> str:
        """The name under `keyturn:stores`; starts every message."""

    @property
    def features(self) -> StoreFeatures: ...

    def observe(self, entry: str) -> Entry:
        """What the entry is now: versions in the roles current and pending, journal, applied policy.

        Raises NOT_FOUND when there is no such entry, or it is deleted.
        """

    def read(self, entry: str, version: Version) -> Credential:
        """The value of a version. Raises NOT_FOUND when it can not be read any more."""

    def current(self, entry: str) -> Credential:
        """What a consumer who asks for the entry gets now.

        Raises NOT_FOUND when that is nothing: there is no such entry, it is deleted, or it has no value yet.
        """

    def applied(self, entry: str) -> Mapping[str, str]:
        """The policy that is in force for the entry, found out without a look at any value; {} when nobody manages it.

        What the store itself enforces of a policy is told as it is enforced, not as it was written.
        Raises NOT_FOUND when there is no such entry, or it is deleted.
        """

    def find(self, entry: str, token: str) -> Version | None:
        """The version written under a rotation token, in whatever role, or None when it is gone."""

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        """Puts a value as pending, under a token. Replaces what was pending; the same token twice is one."""

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        """Makes the pending version current, provided that version `expected` (None: no version) still is.

        Raises CONFLICT when it is not; then nothing was changed.
        """

    def discard(self, entry: str, pending: Version) -> None:
        """Takes a version out of the role of pending, provided that it still is; otherwise does nothing."""

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        """Adds facts to the journal, each under its own key; leaves all others alone."""

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        """Removes facts from the journal; absent ones are no error."""

    def listing(self) -> Iterator[Listed]:
        """All entries that carry a Keyturn policy, page by page, metadata only."""

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        """Makes an entry without any version. Raises CONFLICT when one exists, deleted ones included."""

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        """Replaces the applied policy; leaves journal and versions alone."""

    def delete(self, entry: str) -> None:
        """Deletes the entry, recoverably where the store can; an absent one is no error."""

    def restore(self, entry: str) -> bool:
        """Brings a deleted entry back with its versions. False when there is nothing to bring back."""


@runtime_checkable
class ReadsMany(Protocol):
    """A store that can read many values in few calls. Others are read one by one."""

    def read_many(self, entries: Sequence[str]) -> Mapping[str, Version]:
        """Current versions by entry, with their values. What can not be read is not among them."""


@runtime_checkable
class RotatesByItself(Protocol):
    """A store whose own service can start rotations, by calling a function of ours for each of their steps."""

    def start_rotation(self, entry: str, token: str) -> None:
        """Has the service start a rotation under a token, now. The same token twice is one.

        Raises CONFLICT while the service counts another one as begun, INVALID when it was never told how to rotate
        this entry.
        """

    def set_rotation(self, entry: str, every: timedelta | None) -> None:
        """Has the service rotate an entry at least this often, or never. Starts no rotation.

        Raises CONFLICT while the service counts one as begun.
        """

    def rotating(self, entry: str, token: str, right: SecretValue) -> AbstractContextManager[None]:
        """What is staged under this token meanwhile goes out with the right that the service gave to its rotation."""


class Issuer(Protocol):
    """Mints, lists, verifies and revokes credentials; what the credential is for.

    Any method but verify() may raise Trouble; verify() answers UNKNOWN instead.
    """

    @property
    def name(self) -> str:
        """The name under `keyturn:issuers`; starts every message."""

    @property
    def capabilities(self) -> Capabilities: ...

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        """Creates a credential under a name that carries the rotation token, in a slot where there are slots.

        A key id is never used twice, not even for two credentials of one slot.

        Goes out once: after a lost answer it raises with maybe_applied=True and the key is looked
        for by name. Raises LIMIT when the issuer holds as many as it allows.
        """

    def keys(self) -> Iterator[KeyInfo]:
        """Every live key that the issuer lists in its scope, ours and others'. Never values."""

    def verify(self, credential: Credential) -> Check:
        """Shows the credential to the issuer, alone: no admin credential takes part."""

    def smoke(self, credential: Credential) -> Check:
        """One minimal real request with the credential; only where capabilities.smokes."""

    def revoke(self, key_id: str) -> None:
        """Invalidates a credential; one that is gone already is no error."""

    def last_use(self, key_id: str) -> LastUse:
        """When the issuer last saw the credential used."""


@runtime_checkable
class RevokesInSteps(Protocol):
    """An issuer whose revoke() leaves something behind, which could be brought back and takes up room."""

    def clear(self, key_id: str) -> None:
        """Removes that for good: called once the key was shown dead, or is given up. One that is gone is no error.

        Raises INVALID for a key that works again, and leaves it alone.
        """


@runtime_checkable
class ListsValues(Protocol):
    """An issuer whose list has the values of the keys in it."""

    def id_of(self, credential: Credential) -> str | None:
        """The id of the key that has this value; None where the values are not listed after all.

        Raises INVALID where they are, and this is none of them.
        """


@runtime_checkable
class TellsUsage(Protocol):
    """An issuer that tells of many keys at once how they are used; in few requests, however many keys."""

    @property
    def counting(self) -> Counting | None:
        """How it counts requests; None where it tells last uses alone."""

    def usage(self, key_ids: Collection[str], since: datetime, until: datetime) -> Mapping[str, KeyUse]:
        """How keys were used.

        Parameters:
            since, until: what requests are counted between; rounded down to a whole span, and up to a whole second.

        A key of which it can not tell anything is not among them: that is not unused. Raises Trouble.
        """


# --- what a store or an issuer may tell of itself; all of it optional --------------------------------


class Grade(StrEnum):
    """How what was looked at stands."""

    GOOD = "ok"
    WARNING = "warning"
    """Works now; a person should see to it."""
    FAILING = "failing"
    """Rotation can not work, or not safely, before a person has acted."""
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at, and changed in nothing by that. No field ever holds a value."""

    check: str
    """What was looked at, in a word or two: `permissions`, `quota`."""
    grade: Grade
    text: str
    """What was found; with UNCHECKED, why nothing was."""
    remedy: str = ""
    """Who must do what. Always there with FAILING."""
    entry: str | None = None
    """What it is about alone; None for the store or issuer as a whole."""


@runtime_checkable
class ExaminedStore(Protocol):
    """A store that can tell by reading alone whether a sweep could work with it."""

    def examine(self, work: Mapping[str, Collection[str]]) -> Iterator[Diagnosis]:
        """Login, permissions and quotas.

        Parameters:
            work: by entry, the methods of SecretStore that are to be used on it; entries need not be there yet.

        What can not be told is UNCHECKED with its reason; a service that does not answer, too. Never raises Trouble.
        """


@runtime_checkable
class ExaminedIssuer(Protocol):
    """An issuer that can tell by reading alone what becomes of its administrative credential and its limits."""

    def examine(self) -> Iterator[Diagnosis]:
        """As ExaminedStore.examine()."""


@runtime_checkable
class TellsReaders(Protocol):
    """A store that can tell who may read an entry's value."""

    def readers(self, entries: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """By entry, the names under which the store knows those whom it lets read, this login left out.

        An entry that is not there may be missing. Raises Trouble where the login may not ask.
        """


@runtime_checkable
class TellsCaller(Protocol):
    """A store that can tell as whom its service knows our login."""

    def caller(self) -> str | None:
        """A name for the audit trail, for one call at most; None when there is none. Raises Trouble where it may not ask."""


@runtime_checkable
class TellsTime(Protocol):
    """A client that compares clocks with its service by the answers that it gets anyway."""

    @property
    def skew(self) -> timedelta | None:
        """How far our clock was ahead of the service's at its last answer; None while it has not said the time."""


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> datetime:
        """Aware, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that no setting of the clock moves."""

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the audit trail. No field ever holds a value."""

    at: datetime
    event: str
    """What is about to be done or was done: `mint`, `mint.done`, `revoke.failed`, …"""
    secret: str
    reason: str = ""
    token: str | None = None
    key_id: str | None = None
    store: str | None = None
    detail: Mapping[str, str] | None = None
    incident: str | None = None
    """The incident that it is part of."""
    late: bool = False
    """It was written down after the effect, because the trail could not be written before."""


class Auditor(Protocol):
    """Evidence for people. A failure to write stops the rotation before its next effect."""

    def write(self, record: Record) -> None: ...


class Severity(StrEnum):
    """How loudly an owner is told."""

    INFO = "info"
    """As planned."""
    WARNING = "warning"
    """Somebody should look, today."""
    CRITICAL = "critical"
    """Somebody should look, now."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a secret's owner is told. No field ever holds a value."""

    kind: str
    """What happened: `rotation.before`, `rotation.done`, `rotation.failed`, `incident.begun`, `incident.over`, …"""
    severity: Severity
    at: datetime
    environment: str
    secret: str
    owner: str
    subject: str
    """One line."""
    text: str
    """What happened, what state things are in, what happens next by itself, what the person can do."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Names, times and ids, for templates."""

    @property
    def same_as(self) -> str:
        """Equal for notices of which the second tells nothing new."""
        return f"{self.kind} {self.environment} {self.secret} {self.subject}"


class Notifier(Protocol):
    """Tells owners."""

    def tell(self, notice: Notice) -> None:
        """Never raises: what could not be told is logged, and changes nothing."""


class Silent:
    """Tells nobody: where no channel is configured."""

    def tell(self, notice: Notice) -> None:
        """Does nothing."""
