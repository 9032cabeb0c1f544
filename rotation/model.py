"""The vocabulary as types: values that do not leak, credentials, versions, entries, policies.

Everything here is immutable and knows no store, issuer or clock.
"""

from __future__ import annotations

import hmac
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from rotation.journal import Journal

MASK: Final = "[masked]"
PUBLIC: Final = frozenset({"access_key_id", "database", "host", "kid", "port", "public", "username"})
"""Names of fields that are no secret: they stand in journals, key ids and logs, which must not be masked for them."""

_alive: weakref.WeakSet[SecretValue] = weakref.WeakSet()
_alive_lock = threading.Lock()


class SecretValue:
    """One field of a credential: a value that does not print, compare by accident, pickle or format.

    ``reveal()`` is the only way to the text, and is called only at the edge that needs it.
    """

    __slots__ = ("__text", "__weakref__")

    def __init__(self, text: str) -> None:
        self.__text = text
        with _alive_lock:
            _alive.add(self)

    def reveal(self) -> str:
        """The text itself. Call it where the bytes leave for a store or an issuer, nowhere else."""
        return self.__text

    def same_as(self, other: SecretValue, *, trimmed: bool = False) -> bool:
        """Whether both hold the same text, compared in constant time.

        Parameters:
            trimmed: leave blanks at the ends out, which somebody may have pasted along.
        """
        mine, theirs = self.__text, other.__text
        if trimmed:
            mine, theirs = mine.strip(), theirs.strip()
        return hmac.compare_digest(mine.encode(), theirs.encode())

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        message = "secret values are not compared with ==; use same_as()"
        raise TypeError(message)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        message = "secret values are not pickled or copied"
        raise TypeError(message)


def values_alive(*, ordered: bool = True) -> Iterator[str]:
    """The texts of all secret values in this process, for the masking of logs.

    Parameters:
        ordered: each once, longest first; without that it is less work where there are hundreds.
    """
    with _alive_lock:
        values = list(_alive)
    texts = [text for value in values if (text := value.reveal())]
    return iter(sorted(set(texts), key=len, reverse=True) if ordered else texts)


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """What logs in somewhere: one or several named fields."""

    fields: Mapping[str, SecretValue]

    def __post_init__(self) -> None:
        with _alive_lock:
            for name in self.fields.keys() & PUBLIC:
                _alive.discard(self.fields[name])

    @classmethod
    def of(cls, **fields: str) -> Credential:
        return cls({name: SecretValue(text) for name, text in fields.items()})

    def same_as(self, other: Credential, *, trimmed: bool = False) -> bool:
        return self.fields.keys() == other.fields.keys() and all(
            value.same_as(other.fields[name], trimmed=trimmed) for name, value in self.fields.items()
        )


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One immutable stored payload."""

    id: str
    """The store's own id; never reused within an entry."""
    token: str | None
    """The rotation token of the attempt that wrote it; None when something else did."""
    key_id: str | None = None
    """The issuer's id of the credential, where the store keeps it beside the value."""
    created_at: datetime | None = None
    credential: Credential | None = None
    """The value, when looking at the entry brought it along anyway."""


@dataclass(frozen=True, slots=True)
class ServiceRotation:
    """What the store's own service says of an entry that it can have rotated by itself."""

    enabled: bool
    begun: str | None = None
    """Token of a rotation that it has begun and that no value was staged for yet."""
    function: str = ""
    """What it calls to rotate, as it names it."""
    schedule: str = ""
    """When it does, in its own words."""
    idle_since: datetime | None = None
    """When anything of the entry was changed last, its steps included."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What one store says of one secret at one moment."""

    store: str
    name: str
    """The entry's own name in the store, environment included."""
    read_at: datetime
    current: Version | None
    pending: Version | None
    journal: Journal
    policy: Mapping[str, str] = field(default_factory=dict)
    """The applied policy as short strings; see rotation.policy."""
    room: int | None = None
    """How many facts its journal may have in all; None where there is no limit that matters."""
    service: ServiceRotation | None = None
    """None where the store's service rotates nothing, or was never told to rotate this."""
    behind: Mapping[str, str] = field(default_factory=dict)
    """Places that the store's service itself copies the entry to, and that may hand out something older; and why."""
    copying: frozenset[str] = frozenset()
    """Of these, where it is at it: a matter of seconds."""


class Ending(StrEnum):
    """What happens to a credential that never falls quiet by the end of its drain."""

    HOLD = "hold"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class Drain:
    """How long an old credential may live on after its grace period, and on what evidence it goes."""

    quiet_for: timedelta = timedelta(hours=1)
    """The issuer must have seen no use for this long."""
    at_most: timedelta = timedelta(days=14)
    """Counted from the moment it stopped being current."""
    then: Ending = Ending.HOLD


@dataclass(frozen=True, slots=True)
class Consumer:
    """A declared reader of a secret, and how long it may keep what it has read."""

    name: str
    refresh_within: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week in which rotations may begin, in the schedule's zone."""

    days: tuple[int, ...]
    """Weekdays on which it opens, Monday is 0; ascending, each once."""
    opens: int
    """Minutes after midnight."""
    closes: int
    """Minutes after the same midnight: more than 1440 where it lasts into the next day."""


@dataclass(frozen=True, slots=True)
class Blackout:
    """A time in which nothing is rotated by schedule, as in a release freeze; naive, in the schedule's zone."""

    start: datetime
    end: datetime
    """The first moment after it."""
    reason: str


class Restraint(StrEnum):
    """What keeps a rotation that is due from beginning."""

    WINDOW = "window"
    BLACKOUT = "blackout"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a secret rotates, beyond the age that its policy allows. The empty one is a plain interval."""

    every: timedelta | None = None
    """The age at which it should rotate; None for the latest that is allowed."""
    cron: str = ""
    """Five fields in place of an interval, in the zone's time."""
    zone: str = "UTC"
    """IANA's name of the time zone of cron, windows and blackouts."""
    windows: tuple[Window, ...] = ()
    """When rotations may begin; empty for always."""
    blackouts: tuple[Blackout, ...] = ()
    jitter: timedelta = timedelta(0)
    """How far the moments of different secrets, and of one secret's rotations, may lie apart."""
    earliest: timedelta = timedelta(0)
    """The schedule never rotates a younger credential."""
    overrides: tuple[Restraint, ...] = (Restraint.WINDOW,)
    """What gives way where the secret would otherwise become overdue."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is declared for one secret. The copy in the primary store's metadata is the one that counts."""

    installation: str
    environment: str
    name: str
    store: str
    """The primary store."""
    issuer: str
    owner: str
    rotate_every: timedelta
    grace: timedelta
    replicas: tuple[str, ...] = ()
    drain: Drain = field(default_factory=Drain)
    contain_after: timedelta = timedelta(minutes=5)
    """In an emergency: a leaked credential that is not replaced by then is revoked all the same."""
    consumers: tuple[Consumer, ...] = ()
    paired_with: str | None = None
    """Another secret of the environment that never rotates within the same window."""
    form: str = ""
    """How stores hold it (rotation.form); empty for what fits the issuer's fields."""
    tags: tuple[tuple[str, str], ...] = ()
    """The user's own tags on the entry, by name."""
    smoke_test: bool = False
    """A new credential must also answer one minimal real request before it is promoted."""
    allowed_cidrs: tuple[str, ...] = ()
    """Networks that its value may be read from; with neither of these, any."""
    allowed_vpces: tuple[str, ...] = ()
    """Ids of VPC endpoints of AWS that its value may be read through."""
    native: bool = False
    """The primary store's own service starts the rotations that are due; sweeps only have it start what it missed."""
    schedule: Schedule = field(default_factory=Schedule)
    """Where in its life a credential is replaced; `rotate_every` is the age that it must not exceed."""

    @property
    def stores(self) -> tuple[str, ...]:
        return (self.store, *self.replicas)


class Model(StrEnum):
    """How an issuer hands out credentials."""

    MINT = "mint"
    """Two or more keys live side by side."""
    SLOTS = "slots"
    """A fixed number of places; creating destroys what the place held, so only a place that is free is used."""
    REPLACE = "replace"
    """One credential: creating destroys it. From the mint to the promotion nobody can log in: a declared,
    measured window."""
    MANUAL = "manual"
    """A person creates the credential and submits it."""


@dataclass(frozen=True, slots=True)
class Propagation:
    """How an issuer's change becomes visible to those who use its keys."""

    in_a_row: int = 1
    """Answers of one kind, one after the other, before the change is believed."""
    interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(minutes=1)
    """After this long without them the change is taken not to have happened."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an issuer can and cannot do; rules depend on these, never on an issuer's name."""

    model: Model = Model.MINT
    fields: tuple[str, ...] = ("value",)
    """The fields of its credentials."""
    slots: tuple[str, ...] = ()
    """The places of the model SLOTS."""
    revokes: bool = True
    """Can be asked to revoke a single key. False: creating does it (REPLACE), or a person must."""
    regenerates: bool = False
    """Revoking gives its slot another value, whatever it holds by the time: a request that comes late destroys that."""
    max_keys: int | None = None
    """How many of our keys may live at once; None when there is no limit that matters."""
    registry: bool = True
    """Keeps a list of the keys it minted and refuses the ones it revoked. False for values that
    nobody but their consumer knows: there is nothing to list, to revoke or to prove."""
    names_keys: bool = True
    """Its list shows the names that keys were given. Without them nobody can tell what a mint has made whose answer
    was lost from a stranger's key: a person is told of it, and it is never revoked."""
    tells_last_use: bool = False
    smokes: bool = False
    """Has a minimal real request to try a new credential with."""
    scope: str = ""
    """Digest of where its keys live. Another one means that the same name leads to another account or project."""
    spreads: timedelta = timedelta(0)
    """For so long after it made a key parts of the issuer may not know it: then neither a refusal nor that there was
    nothing to revoke says that it is dead."""
    create: Propagation = field(default_factory=Propagation)
    revoke: Propagation = field(default_factory=lambda: Propagation(in_a_row=2))


class Verdict(StrEnum):
    """What an issuer says of a credential that is shown to it."""

    VALID = "valid"
    LIMITED = "limited"
    """Accepted but narrowed or out of quota: counts as live."""
    INVALID = "invalid"
    UNKNOWN = "unknown"
    """No answer, or one that does not tell: a network, an allowlist, a quota of requests. Never advances anything."""

    @property
    def live(self) -> bool:
        return self in (Verdict.VALID, Verdict.LIMITED)


@dataclass(frozen=True, slots=True)
class Check:
    """One verification of a credential with that credential alone."""

    verdict: Verdict
    reason: str = ""
    """What was answered, in words without any value."""
    request_id: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """Latency, model, rate-limit headers and the like, for the audit trail."""


@dataclass(frozen=True, slots=True, eq=False)
class Issued:
    """A fresh credential. Its fields are in memory only until it is staged."""

    key_id: str
    """Empty for one that a person brought without its id."""
    credential: Credential
    created_at: datetime | None = None
    expires_at: datetime | None = None
    """When it stops working by itself, where the issuer says so."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A live credential as its issuer lists it; never its value."""

    key_id: str
    name: str
    """The name given at the mint; carries the rotation token when the key is ours."""
    created_at: datetime | None = None
    redacted: str | None = None
    """The value with its middle left out, as in `sk-proj-...WXYZ`, where the list shows that."""


@dataclass(frozen=True, slots=True)
class LastUse:
    """When an issuer last saw a credential used. Unknown is not unused."""

    known: bool
    at: datetime | None = None
    """None together with known means: never used."""
    granularity: timedelta = timedelta(0)
    """The answer may lag behind the truth by this much."""


@dataclass(frozen=True, slots=True)
class Counting:
    """How an issuer counts the requests that are made with its credentials."""

    of: str
    """What is counted, in words: `model requests`."""
    width: timedelta
    """Of one span of time that requests are counted in."""
    window: timedelta
    """How far back its counts are worth asking for."""
    lag: timedelta = timedelta(0)
    """So late a request may be counted."""
    refused: bool = False
    """Requests that it refused are counted, too."""


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests were made with one credential in one span of time."""

    start: datetime
    count: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How a credential was used lately, as its issuer tells it."""

    last: LastUse
    counts: tuple[Requests, ...] | None = None
    """One for each span that was asked for, oldest first, those without requests included; the last one may still be
    running. None where nobody counts."""
