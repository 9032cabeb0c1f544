"""The three stores as their clients see them, call by call: what each keeps, compares, moves and repeats.

Each passes the stores' contract. States are immutable, so that a world is copied by copying references.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final, NamedTuple, TypeVar

from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Credential, Entry, Version
from rotation.ports import Glance, Listed, StoreFeatures
from tests.simulation.wire import Box, Wire

LATEST: Final = timedelta(seconds=40)
"""A client sends a write at most this long after its operation began."""
MARKER: Final = "no-credential-yet"
"""Id of the version that holds Secrets Manager's current label before the first promotion."""
TAGS: Final = 14
"""Facts in one version of Key Vault's journal."""
HAND: Final = "by-hand-"
"""Starts the ids of versions that a person made, where the service does not number them."""

_OURS: Final = re.compile(r"[0-9a-f]{32}")

T = TypeVar("T")


class Stored(NamedTuple):
    """One version as the service keeps it."""

    id: str
    token: str | None
    key_id: str | None
    payload: str
    """The fields as JSON, or the one text where the service keeps one."""
    created: datetime
    text_only: bool = False

    @property
    def version(self) -> Version:
        return _version(self)

    def consumed(self) -> str:
        """What a consumer takes out of it."""
        credential = self.version.credential
        assert credential is not None, "a stored version has a value"
        return credential.fields["value"].reveal()


@lru_cache(maxsize=50_000)
def _version(stored: Stored) -> Version:
    credential = opened(stored.payload, text_only=stored.text_only)
    return Version(stored.id, stored.token, stored.key_id, stored.created, credential)


@lru_cache(maxsize=10_000)
def opened(payload: str, *, text_only: bool) -> Credential:
    return Credential.of(**({"value": payload} if text_only else json.loads(payload)))


class Facts(dict[str, str]):
    """A journal's facts, never changed in place, parsed once."""

    @cached_property
    def journal(self) -> Journal:
        return Journal(self)

    @cached_property
    def key(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self.items()))


@dataclass(frozen=True, slots=True)
class State:
    """One entry, in whichever service. What a service has not stays empty."""

    policy: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    main: tuple[Stored, ...] = ()
    """Versions of the path that consumers read, oldest first; all versions in Secrets Manager."""
    side: tuple[Stored | None, ...] = ()
    """Versions of the pending path; None is an empty marker."""
    labels: tuple[tuple[str, str], ...] = ()
    """Secrets Manager: which version each label is on, sorted."""
    log: tuple[tuple[datetime, str, Mapping[str, str | None]], ...] = ()
    """Key Vault: what was appended to the journal: when, in which order, which facts; None removes one."""
    deleted: bool = False

    @property
    def key(self) -> object:
        """Equal for states that will behave the same."""
        return self.facts.key, self.main, self.side, self.labels, self.deleted


Entries = Mapping[str, State]


@dataclass(eq=False)
class Service:
    """A service's entries, shared by its clients, and what numbers its own ids."""

    box: Box[Entries]
    serial: int = 0

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def copy(self) -> Service:
        return Service(self.box.copy(), self.serial)


class Client:
    """What the clients of all three have in common. One for each process."""

    features: StoreFeatures
    bounded = False
    """Whether a write of this store must be carried out within its time limit, for want of compare-and-set."""

    def __init__(self, name: str, service: Service, wire: Wire) -> None:
        self.name: Final = name
        self.service: Final = service
        self.wire: Final = wire

    # --- what a console does, and a consumer -------------------------------------------------------

    def consumed(self, entry: str) -> str | None:
        """What a consumer reads now."""
        found = self.service.box.state.get(entry)
        stored = self._newest(found) if found and not found.deleted else None
        return stored.consumed() if stored else None

    def put_by_hand(self, entry: str, credential: Credential) -> None:
        """A new current version that Keyturn knows nothing of."""
        before = self.service.box.state.get(entry, State())
        stored = self._stored("", None, None, credential)._replace(id=self._hand_id(before))
        self._set(entry, self._with_current(before, stored))

    # --- the life of an entry ----------------------------------------------------------------------

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        if entry in self.service.box.state:
            raise self._trouble(Code.CONFLICT, entry, "exists already")
        self._set(entry, State(policy=dict(policy)))

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        self._change(entry, "set the policy", lambda e: replace(e, policy=dict(policy)))

    def delete(self, entry: str) -> None:
        if found := self.service.box.state.get(entry):
            self._set(entry, replace(found, deleted=True))

    def restore(self, entry: str) -> bool:
        found = self.service.box.state.get(entry)
        if found and found.deleted:
            self._set(entry, replace(found, deleted=False))
        return found is not None and found.deleted

    def listing(self) -> Iterator[Listed]:
        for name, found in sorted(self.service.box.state.items()):
            if found.policy and not found.deleted:
                yield Listed(name, dict(found.policy), dict(found.facts))

    def glances(self) -> Iterator[Glance]:
        """No more than that: here every secret is run."""
        return (Glance(listed.name, listed.policy) for listed in self.listing())

    # --- the journal -------------------------------------------------------------------------------

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        told = f"record {' '.join(facts)}"
        self._change(entry, told, lambda e: replace(e, facts=Facts({**e.facts, **facts})))

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        gone = set(facts)
        told = f"forget {' '.join(sorted(gone))}"

        def change(e: State) -> State:
            return replace(e, facts=Facts({fact: text for fact, text in e.facts.items() if fact not in gone}))

        self._change(entry, told, change)

    # --- parts -------------------------------------------------------------------------------------

    def read(self, entry: str, version: Version) -> Credential:
        if version.credential is not None:
            return version.credential
        found = self._look(entry, f"read {version.id}", lambda e: self._by_id(e, version.id))
        if found is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"version {version.id} can not be read")
        return opened(found.payload, text_only=found.text_only)

    def current(self, entry: str) -> Credential:
        found = self._look(entry, "read current", self._newest)
        if found is None:
            raise self._trouble(Code.NOT_FOUND, entry, "has no value")
        return opened(found.payload, text_only=found.text_only)

    def applied(self, entry: str) -> Mapping[str, str]:
        return self._look(entry, "read the policy", lambda e: e.policy)

    def _newest(self, found: State) -> Stored | None:
        return found.main[-1] if found.main else None

    def _hand_id(self, found: State) -> str:
        return f"{HAND}{self.service.next()}"

    def _with_current(self, found: State, stored: Stored) -> State:
        return replace(found, main=(*found.main, stored))

    def _by_id(self, found: State, version_id: str) -> Stored | None:
        return next((s for s in reversed((*found.main, *found.side)) if s and s.id == version_id), None)

    def _entry(self, entry: str, found: State | None) -> State:
        if found is None or found.deleted:
            raise self._trouble(Code.NOT_FOUND, entry, "no such entry")
        return found

    def _look(self, entry: str, call: str, look: Callable[[State], T]) -> T:
        return self.wire.read(self.service.box, call, lambda e: look(self._entry(entry, e.get(entry))))

    def _change(self, entry: str, call: str, change: Callable[[State], State], begun: datetime | None = None) -> State:
        """One write. Gives the entry as the write left it."""
        begun = begun or self.wire.now
        if self.wire.now > begun + LATEST:
            raise self._trouble(Code.UNAVAILABLE, entry, "getting ready took too long; the write was not sent")

        def apply(entries: Entries) -> tuple[Entries, State]:
            after = change(self._entry(entry, entries.get(entry)))
            return {**entries, entry: after}, after

        return self.wire.write(self.service.box, call, apply, begun=begun if self.bounded else None)

    def _set(self, entry: str, state: State) -> None:
        self.service.box.put({**self.service.box.state, entry: state}, self.wire.now)

    def _stored(self, version_id: str, token: str | None, key_id: str | None, credential: Credential) -> Stored:
        fields = {name: value.reveal() for name, value in credential.fields.items()}
        plain = self.features.text_only and fields.keys() == {"value"}
        payload = fields["value"] if plain else json.dumps(fields, ensure_ascii=False)
        return Stored(version_id, token, key_id, payload, self.wire.now, self.features.text_only)

    def _check(self, entry: str, credential: Credential) -> None:
        texts = [value.reveal() for value in credential.fields.values()]
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            raise self._trouble(Code.INVALID, entry, "the value is not valid Unicode text")
        names = () if self.features.text_only else credential.fields
        if sum(len(text.encode()) for text in (*texts, *names)) > self.features.max_value_bytes:
            raise self._trouble(Code.INVALID, entry, "the value is too large")

    def _seen(
        self, entry: str, at: datetime, found: State, current: Stored | None, pending: Stored | None, facts: Facts
    ) -> Entry:
        try:
            journal = facts.journal
        except ValueError as error:
            raise self._trouble(Code.INVALID, entry, str(error)) from None
        return Entry(
            store=self.name,
            name=entry,
            read_at=at,
            current=current.version if current else None,
            pending=pending.version if pending else None,
            journal=journal,
            policy=found.policy,
        )

    def _trouble(self, code: Code, entry: str, message: str) -> Trouble:
        return Trouble(code, self.name, f"{entry}: {message}")


class Vault(Client):
    """KV version 2: pending is the newest version of a sibling path; a write names the version that it follows.

    A promotion copies the payload, under the next number. Ten versions of a path are kept.
    """

    features = StoreFeatures(compare_and_set=True, keeps_key_id=True, max_value_bytes=262_144, recovers_deleted=True)
    _kept: Final = 10

    def observe(self, entry: str) -> Entry:
        at = self.wire.now
        pending = self._look(entry, "look at pending", lambda e: e.side[-1] if e.side else None)
        found = self._look(entry, "look at current", lambda e: e)
        return self._seen(entry, at, found, self._newest(found), pending, found.facts)

    def find(self, entry: str, token: str) -> Version | None:
        found = self._look(entry, f"find {_short(token)}", lambda e: e)
        kept = [s for s in (*found.main, *found.side) if s and s.token == token]
        return max(kept, key=lambda s: s.created).version if kept else None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        self._check(entry, credential)
        stored = self._stored("", token, key_id, credential)

        def put(e: State) -> State:
            numbered = stored._replace(id=f"pending-{self._number(e.side) + 1}")
            return replace(e, side=(*e.side, numbered)[-self._kept :])

        self._change(entry, f"stage {_short(token)}", put)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        credential = self.read(entry, pending)
        stored = self._stored("", pending.token, pending.key_id, credential)

        def put(e: State) -> State:
            newest = self._newest(e)
            if (newest.id if newest else None) != expected:
                raise self._trouble(Code.CONFLICT, entry, f"version {expected} is not current any more")
            return self._with_current(e, stored._replace(id=str(self._number(e.main) + 1)))

        self._change(entry, f"promote {_short(pending.token)} over {expected}", put)

    def discard(self, entry: str, pending: Version) -> None:
        def put(e: State) -> State:
            newest = e.side[-1] if e.side else None
            if newest is None or newest.id != pending.id:
                return e
            return replace(e, side=(*e.side, None)[-self._kept :])

        self._change(entry, f"discard {_short(pending.token)}", put)

    def _hand_id(self, found: State) -> str:
        return str(self._number(found.main) + 1)

    def _with_current(self, found: State, stored: Stored) -> State:
        return replace(found, main=(*found.main, stored)[-self._kept :])

    @staticmethod
    def _number(versions: tuple[Stored | None, ...]) -> int:
        """The path's newest number; markers take one each."""
        after = 0
        for stored in reversed(versions):
            if stored:
                return int(stored.id.removeprefix("pending-")) + after
            after += 1
        return after


class SecretsManager(Client):
    """Versions by token; labels, of which a put moves AWSPENDING without comparing; facts are tags.

    A label moves from an expected version only. The first value of an entry is current whatever was asked for, so
    a marker goes before it.
    """

    features = StoreFeatures(
        compare_and_set=True, keeps_key_id=False, max_value_bytes=65_536, recovers_deleted=True, text_only=True
    )

    def __init__(self, name: str, service: Service, wire: Wire) -> None:
        super().__init__(name, service, wire)
        self._valued: set[str] = set()

    def observe(self, entry: str) -> Entry:
        at = self.wire.now
        found = self._describe(entry)
        labels = dict(found.labels)
        ours = {token for fact in found.facts if (token := fact.partition(".")[2])}
        current = self._labelled(found, labels.get("AWSCURRENT"), ours)
        pending = self._labelled(found, labels.get("AWSPENDING"), ours)
        if current and current.token is None:
            self._look(entry, "list versions", lambda e: e)
        if pending and current and pending.id == current.id:
            pending = None
        return self._seen(entry, at, found, current, pending, found.facts)

    def _seen(
        self, entry: str, at: datetime, found: State, current: Stored | None, pending: Stored | None, facts: Facts
    ) -> Entry:
        seen = super()._seen(entry, at, found, current, pending, facts)
        return replace(seen, current=_bare(seen.current), pending=_bare(seen.pending))

    def find(self, entry: str, token: str) -> Version | None:
        found = self._look(entry, f"find {_short(token)}", lambda e: self._by_id(e, token))
        return found._replace(token=token).version if found else None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        self._check(entry, credential)
        begun = self.wire.now
        if entry not in self._valued and "AWSCURRENT" not in dict(self._describe(entry).labels):
            marker = self._stored(MARKER, None, None, Credential.of(value="none"))
            self._change(entry, "put the marker", lambda e: self._put(entry, e, marker, "MARKER"), begun)
        stored = self._stored(token, None, None, credential)
        told = f"put {_short(token)} as AWSPENDING"
        after = self._change(entry, told, lambda e: self._put(entry, e, stored, "AWSPENDING"), begun)
        # The answer says which labels it has: a token that was put before keeps what it had.
        labels = dict(after.labels)
        if token not in (labels.get("AWSPENDING"), labels.get("AWSCURRENT")):
            held = dict(self._describe(entry).labels).get("AWSPENDING")
            self._change(entry, told, lambda e: self._move(entry, e, "AWSPENDING", token, held), begun)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        begun, told = self.wire.now, f"move AWSCURRENT from {_short(expected)} to {_short(pending.id)}"

        def move(e: State) -> State:
            if self._by_id(e, pending.id) is None:
                raise self._trouble(Code.NOT_FOUND, entry, f"version {pending.id} is gone")
            return self._move(entry, e, "AWSCURRENT", pending.id, expected or MARKER)

        try:
            self._change(entry, told, move, begun)
        except Trouble as trouble:
            if trouble.code is Code.CONFLICT:
                self._describe(entry)  # to say why it was refused
            raise

    def discard(self, entry: str, pending: Version) -> None:
        try:
            told = f"take AWSPENDING off {_short(pending.id)}"
            self._change(entry, told, lambda e: self._move(entry, e, "AWSPENDING", None, pending.id))
        except Trouble as trouble:
            if trouble.code is not Code.CONFLICT:
                raise
            if dict(self._describe(entry).labels).get("AWSPENDING") == pending.id:
                raise

    def _describe(self, entry: str) -> State:
        found = self._look(entry, "describe", lambda e: e)
        if "AWSCURRENT" in dict(found.labels):
            self._valued.add(entry)
        return found

    def _newest(self, found: State) -> Stored | None:
        current = dict(found.labels).get("AWSCURRENT")
        return None if current in (None, MARKER) else self._by_id(found, current)

    def _hand_id(self, found: State) -> str:
        return f"{HAND}{self.service.next():028d}"

    def _with_current(self, found: State, stored: Stored) -> State:
        return replace(found, main=(*found.main, stored), labels=_labelled(found, "AWSCURRENT", stored.id))

    @staticmethod
    def _labelled(found: State, version_id: str | None, ours: set[str]) -> Stored | None:
        if version_id in (None, MARKER):
            return None
        stored = next(s for s in found.main if s.id == version_id)
        token = stored.id if _OURS.fullmatch(stored.id) or stored.id in ours else None
        return stored._replace(token=token)

    def _put(self, entry: str, e: State, stored: Stored, label: str) -> State:
        if known := self._by_id(e, stored.id):
            if known.payload != stored.payload:
                raise self._trouble(Code.CONFLICT, entry, f"token {stored.id} already names another value")
            return e
        labels = _labelled(e, label, stored.id)
        e = replace(e, main=(*e.main, stored), labels=labels)
        return e if "AWSCURRENT" in dict(labels) else replace(e, labels=_labelled(e, "AWSCURRENT", stored.id))

    def _move(self, entry: str, e: State, label: str, to: str | None, away: str | None) -> State:
        if dict(e.labels).get(label) != away:
            raise self._trouble(Code.CONFLICT, entry, f"{label} is not on {away}")
        return replace(e, labels=_labelled(e, label, to))


class KeyVault(Client):
    """No compare-and-set: a promotion looks and then writes. The journal only grows. A version's id is its token."""

    features = StoreFeatures(
        compare_and_set=False, keeps_key_id=True, max_value_bytes=25_600, recovers_deleted=True, text_only=True
    )
    bounded = True

    def __init__(self, name: str, service: Service, wire: Wire) -> None:
        super().__init__(name, service, wire)
        self._order = 0

    def observe(self, entry: str) -> Entry:
        for _ in range(3):
            at = self.wire.now
            # The policy is a third secret; nobody changes it here, so it comes with pending.
            pending = self._look(entry, "look at pending", lambda e: e.side[-1] if e.side else None)
            current = self._look(entry, "look at current", self._newest)
            found = self._look(entry, "list the journal", lambda e: e)
            again = self._look(entry, "look at current again", self._newest)
            self._order = max([self._order, *(int(order.split(".")[0]) for _, order, _ in found.log)])
            if (again.id if again else None) == (current.id if current else None):
                return self._seen(entry, at, found, again, pending, found.facts)
        raise self._trouble(Code.CONFLICT, entry, "what is current changes faster than it can be read")

    def find(self, entry: str, token: str) -> Version | None:
        found = self._look(entry, f"find {_short(token)}", lambda e: e)
        kept = [s for s in (*found.main, *found.side) if s and s.token == token]
        return max(kept, key=lambda s: s.created).version if kept else None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        self._check(entry, credential)
        begun = self.wire.now
        stored = self._stored(token, token, key_id, credential)
        told = f"put {_short(token)} as pending"
        self._change(entry, told, lambda e: replace(e, side=(*e.side, self._now(stored))), begun)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        begun = self.wire.now
        found = self._look(entry, f"read {_short(pending.id)}", lambda e: self._by_id(e, pending.id))
        if found is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"version {pending.id} is gone")
        current = self._look(entry, "look at current before writing", self._newest)
        if (current.id if current else None) != expected:
            raise self._trouble(Code.CONFLICT, entry, f"version {expected} is not current any more")
        told = f"put {_short(pending.token)} as current, over {_short(expected)} as just seen"
        self._change(entry, told, lambda e: self._with_current(e, self._now(found)), begun)

    def discard(self, entry: str, pending: Version) -> None:
        begun = self.wire.now
        found = self._look(entry, "look at pending before emptying it", lambda e: e.side[-1] if e.side else None)
        if found and found.id == pending.id:
            self._change(entry, "put an empty marker as pending", lambda e: replace(e, side=(*e.side, None)), begun)

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        self._append(entry, "record", dict(facts))

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        self._append(entry, "forget", dict.fromkeys(facts))

    def _append(self, entry: str, verb: str, facts: Mapping[str, str | None]) -> None:
        begun, items = self.wire.now, list(facts.items())
        chunks = [dict(items[first : first + TAGS]) for first in range(0, len(items), TAGS)]
        for number, chunk in enumerate(chunks):
            # Each after all that this client has seen or written, whatever the clocks say.
            self._order = max(self._order + 1, int(self.wire.monotonic() * 1_000_000))
            order = f"{self._order:020d}.{self.service.next()}"

            def put(e: State, chunk: dict[str, str | None] = chunk, order: str = order) -> State:
                log = (*e.log, (self.wire.now.replace(microsecond=0), order, chunk))
                return replace(e, log=log, facts=_replayed(log))

            try:
                self._change(entry, f"{verb} {' '.join(chunk)}", put, begun)
            except Trouble as trouble:
                trouble.maybe_applied |= number > 0
                raise

    def _now(self, stored: Stored) -> Stored:
        return stored._replace(created=self.wire.now)


def _replayed(log: tuple[tuple[datetime, str, Mapping[str, str | None]], ...]) -> Facts:
    """What a journal that only grows says in the end."""
    facts: dict[str, str | None] = {}
    for _, _, chunk in sorted(log, key=lambda line: line[:2]):
        facts |= chunk
    return Facts({fact: text for fact, text in facts.items() if text is not None})


def _labelled(found: State, label: str, version_id: str | None) -> tuple[tuple[str, str], ...]:
    labels = {name: at for name, at in found.labels if name != label}
    return tuple(sorted((labels | ({label: version_id} if version_id else {})).items()))


@lru_cache(maxsize=10_000)
def _bare(version: Version | None) -> Version | None:
    """As DescribeSecret tells of a version: no value, and no time of one of ours."""
    return version and replace(version, credential=None, created_at=None if version.token else version.created_at)


def _short(token: str | None) -> str:
    """The token as people read it: its number."""
    return (token or "nothing").lstrip("0") or "0"


Store = Vault | SecretsManager | KeyVault

KINDS: Final[Mapping[str, type[Vault | SecretsManager | KeyVault]]] = {
    "vault": Vault,
    "aws": SecretsManager,
    "azure": KeyVault,
}
