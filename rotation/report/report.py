"""From what was gathered to what is said: standing, compliance, trends, owners, and an account of each secret. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Final

from rotation.errors import Trouble
from rotation.incident.drill import CANARY
from rotation.incident.evidence import Evidence
from rotation.incident.record import Incident
from rotation.journal import Frozen, Journal
from rotation.model import Capabilities, Entry, Policy, Version
from rotation.report.facts import Facts, Known
from rotation.report.lives import LIVES, Event, History, Kind, Life, State, What, current_of, moment
from rotation.schedule import Due
from rotation.situation import Evidence as Asked
from rotation.situation import Observation, Order, Situation
from rotation.status import Phase

SOON: Final = timedelta(days=7)
"""What is due within this counts as due soon."""
WEEKS: Final = 12
"""That the calendar of due dates looks ahead."""
PERIODS: Final = 26
"""Columns of a trend at most."""


class Standing(StrEnum):
    """The age of a secret's credential, held against its policy."""

    WITHIN = "within policy"
    DUE = "due"
    """Its rotation should have begun; it is not older than allowed yet."""
    OVERDUE = "overdue"
    """Older than allowed."""
    UNKNOWN = "age unknown"
    """It has no credential, or nobody noted since when it is current."""


@dataclass(frozen=True, slots=True)
class Account:
    """Everything about one secret."""

    name: str
    entry: str
    policy: Policy | None
    """The applied one, or the declared one where nothing is applied; None of a secret that is gone."""
    phase: Phase | None
    """None of a secret that is gone."""
    standing: Standing
    key_id: str | None
    rotated_at: datetime | None
    due_at: datetime | None
    due_why: str
    overdue_at: datetime | None
    failures: int
    """Rotations that failed in a row until now."""
    error: str
    """Of the last of them."""
    frozen: Frozen | None
    lives: tuple[Life, ...]
    """Its credentials, oldest first."""
    events: tuple[Event, ...]
    """What else happened, oldest first."""

    @property
    def gone(self) -> bool:
        """The trail tells of it, and no store lists it any more: it was destroyed or handed back."""
        return self.policy is None

    @property
    def counts(self) -> bool:
        """Whether its age can be held against a policy that is applied."""
        return self.phase not in (None, Phase.NOT_APPLIED)

    @property
    def alive(self) -> bool:
        """Something that should be dead lives, or is not shown dead."""
        return self.phase in (Phase.CONDEMNED, Phase.UNPROVEN)

    def age(self, at: datetime) -> timedelta | None:
        return at - self.rotated_at if self.rotated_at else None

    @property
    def first(self) -> datetime | None:
        """When it was first heard of."""
        return min((life.first for life in self.lives), default=None)


@dataclass(frozen=True, slots=True)
class Compliance:
    """How many secrets keep to their policy."""

    within: int = 0
    due: int = 0
    overdue: int = 0
    unknown: int = 0

    @property
    def secrets(self) -> int:
        return self.within + self.due + self.overdue + self.unknown

    @property
    def share(self) -> float | None:
        """Of those whose age is known, the share that is not older than allowed."""
        known = self.secrets - self.unknown
        return (self.within + self.due) / known if known else None


@dataclass(frozen=True, slots=True)
class Cadence:
    """All secrets of one allowed age."""

    every: timedelta
    now: Compliance
    oldest: timedelta | None
    on_time: int
    """Past credentials that were replaced in time."""
    late: int


@dataclass(frozen=True, slots=True)
class Owner:
    """What one owner answers for."""

    name: str
    now: Compliance
    alive: int
    """Secrets of which something that should be dead is not shown to be."""
    next_due_at: datetime | None
    oldest: timedelta | None
    issuers: tuple[str, ...]
    stores: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A span of the calendar ahead, and the secrets that are due in it."""

    start: datetime | None
    """None: until then."""
    until: datetime | None
    """The first moment after it. None: from then on."""
    secrets: int


@dataclass(slots=True)
class Period:
    """What happened in a span of the past."""

    start: datetime
    until: datetime
    """The first moment after it."""
    rotations: int = 0
    """Credentials that were promoted for the first time, without those of incidents."""
    emergencies: int = 0
    """The same, as part of an incident."""
    failures: int = 0
    """Steps that failed; the next sweep goes on."""
    on_time: int = 0
    """Credentials that were replaced before they were older than allowed."""
    late: int = 0
    proofs: list[float] = field(default_factory=list)
    """Seconds from revocation to proof, of each credential that was shown dead."""

    @property
    def median(self) -> float | None:
        return median(self.proofs) if self.proofs else None

    @property
    def worst(self) -> float | None:
        return max(self.proofs, default=None)


@dataclass(frozen=True, slots=True)
class Attention:
    """What a person should look at."""

    name: str
    what: str
    urgent: bool
    """Something lives that should not, or may."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A process that wrote to the trail."""

    writer: str
    """`9f2c…@web-3`."""
    who: str
    """As whom services knew it."""
    records: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Trail:
    """What was read of the audit trail."""

    where: str
    """Empty: none was read."""
    records: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    installation: str
    environment: str
    stack: str
    at: datetime
    accounts: tuple[Account, ...]
    """By name; those that are gone come last."""
    attention: tuple[Attention, ...]
    now: Compliance
    calendar: tuple[Slot, ...]
    cadences: tuple[Cadence, ...]
    periods: tuple[Period, ...]
    """Oldest first; none where nothing is known of the past."""
    owners: tuple[Owner, ...]
    incidents: tuple[Incident, ...]
    """Newest first."""
    drills: tuple[Evidence, ...]
    """Newest first."""
    actors: Mapping[str, Actor]
    trail: Trail
    troubles: tuple[str, ...]

    @property
    def counted(self) -> tuple[Account, ...]:
        """Accounts of the secrets that are applied."""
        return tuple(account for account in self.accounts if account.counts)

    @property
    def alive(self) -> tuple[Account, ...]:
        return tuple(account for account in self.accounts if account.alive)

    @property
    def soon(self) -> int:
        """Secrets that are not overdue, and due within SOON."""
        kept = (a for a in self.counted if a.standing in (Standing.WITHIN, Standing.DUE))
        return sum(a.due_at is not None and a.due_at < self.at + SOON for a in kept)

    @property
    def proofs(self) -> list[float]:
        return [seconds for period in self.periods for seconds in period.proofs]


def report(facts: Facts) -> Report:
    """Everything that can be told of these facts."""
    heard = _Heard(facts)
    accounts = _accounts(facts, heard)
    counted = [account for account in accounts if account.counts]
    incidents = [one for one in facts.incidents if _here(one, facts)]
    drills = [one for one in facts.drills if _here(one, facts)]
    return Report(
        installation=facts.installation,
        environment=facts.environment,
        stack=facts.stack,
        at=facts.at,
        accounts=tuple(accounts),
        attention=tuple(_attention(accounts, facts.at)),
        now=_compliance(counted),
        calendar=tuple(_calendar(counted, facts.at)),
        cadences=tuple(_cadences(counted, facts.at)),
        periods=tuple(_periods(accounts, facts.at)),
        owners=tuple(_owners(counted, facts.at)),
        incidents=tuple(sorted(incidents, key=lambda one: one.began_at, reverse=True)),
        drills=tuple(sorted(drills, key=lambda one: one.began_at, reverse=True)),
        actors=heard.actors(),
        trail=heard.trail,
        troubles=(*facts.troubles, *heard.troubles),
    )


def _here(one: Incident | Evidence, facts: Facts) -> bool:
    return (one.installation, one.environment) == (facts.installation, facts.environment)


# --- the trail -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Writer:
    who: dict[str, None] = field(default_factory=dict)
    records: int = 0
    first: datetime | None = None
    last: datetime | None = None


class _Heard:
    """The trail, taken apart by secret and by writer."""

    def __init__(self, facts: Facts) -> None:
        self.histories: dict[str, History] = {}
        """By the secret's name."""
        self.entries: dict[str, str] = {}
        self.troubles: list[str] = []
        self._writers: dict[str, _Writer] = {}
        records, first, last = 0, None, None
        try:
            for line in facts.lines:
                at = moment(line.get("at"))
                if at is None:
                    continue
                records += 1
                first, last = min(first or at, at), max(last or at, at)
                self._hear(line, at, facts)
        except Trouble as trouble:
            self.troubles.append(f"{trouble}. What it would have told of the past is missing")
        self.trail = Trail(facts.trail, records, first, last)

    def _hear(self, line: Mapping[str, object], at: datetime, facts: Facts) -> None:
        if isinstance(writer := line.get("writer"), str):
            seen = self._writers.setdefault(writer, _Writer())
            seen.records += 1
            seen.first, seen.last = min(seen.first or at, at), max(seen.last or at, at)
            who = line.get("who")
            if isinstance(who, dict) and len(seen.who) < _MOST_NAMES:
                seen.who.update(dict.fromkeys(str(name) for name in who.values()))
        entry = line.get("secret")
        if not isinstance(entry, str) or not entry:
            return
        name = _name(entry, facts.environment)
        if name is None or name.startswith(f"{CANARY}-") or (facts.only and name not in facts.only):
            return
        self.entries.setdefault(name, entry)
        self.histories.setdefault(name, History()).hear(line)

    def actors(self) -> dict[str, Actor]:
        return {
            writer: Actor(writer, ", ".join(seen.who), seen.records, seen.first, seen.last)
            for writer, seen in self._writers.items()
            if seen.first is not None and seen.last is not None
        }


_MOST_NAMES: Final = 8
"""Names of one process that are told."""


def _name(entry: str, environment: str) -> str | None:
    """The name of a secret by that of its entry; None for what is no entry of this environment, as an issuer's trial."""
    for parting in ("/", "--"):
        if entry.startswith(f"{environment}{parting}"):
            return entry.removeprefix(f"{environment}{parting}")
    return None


# --- accounts ------------------------------------------------------------------------------------


def _accounts(facts: Facts, heard: _Heard) -> list[Account]:
    accounts: dict[str, Account] = {}
    for known in facts.secrets:
        if not facts.only or known.policy.name in facts.only:
            history = heard.histories.pop(known.policy.name, History())
            accounts[known.policy.name] = _account(known, history, facts.at)
    for policy in facts.declared:
        if policy.name in accounts or (facts.only and policy.name not in facts.only):
            continue
        history = heard.histories.pop(policy.name, History())
        phase = Phase.UNREACHABLE if policy.store in facts.silent else Phase.NOT_APPLIED
        journal = None if phase is Phase.NOT_APPLIED else Journal()
        entry = heard.entries.get(policy.name, "")
        accounts[policy.name] = _unseen(policy.name, entry, policy, phase, history, journal)
    gone = []
    for name, history in heard.histories.items():
        # Which store it was in nobody knows any more: with one that is silent, it may still be there.
        if not history.empty and not facts.silent:
            gone.append(_unseen(name, heard.entries[name], None, None, history, None))
    return [*sorted(accounts.values(), key=_by_name), *sorted(gone, key=_by_name)]


def _by_name(account: Account) -> str:
    return account.name


def _unseen(
    name: str, entry: str, policy: Policy | None, phase: Phase | None, history: History, journal: Journal | None
) -> Account:
    """The account of a secret that no store has listed."""
    lives, events = history.lives(journal), tuple(sorted(history.events, key=lambda event: event.at))
    current = next((life for life in lives if life.state is State.CURRENT), None)
    return Account(
        name=name,
        entry=entry,
        policy=policy,
        phase=phase,
        standing=Standing.UNKNOWN,
        key_id=current.key_id if current else None,
        rotated_at=current.at(What.PROMOTED) if current else None,
        due_at=None,
        due_why="",
        overdue_at=None,
        failures=0,
        error="",
        frozen=None,
        lives=lives,
        events=events,
    )


def _account(known: Known, history: History, now: datetime) -> Account:
    try:
        journal, unread = Journal(known.facts), ""
    except ValueError as error:
        journal, unread = Journal(), str(error)
    lives = history.lives(journal)
    current = next((life for life in lives if life.state in LIVES and life.token == current_of(journal)), None)
    current = current or next((life for life in lives if life.state is State.CURRENT), None)
    due = _due(known, journal, current, now)
    backoff = journal.backoff
    return Account(
        name=known.policy.name,
        entry=known.entry,
        policy=known.policy,
        phase=_phase(journal, lives, current, unread),
        standing=_standing(due, now),
        key_id=current.key_id if current else None,
        rotated_at=current.at(What.PROMOTED) or current.at(What.ADOPTED) if current else None,
        due_at=due.at if due else None,
        due_why=due.reason if due else "",
        overdue_at=due.overdue if due else None,
        failures=backoff.failures if backoff else 0,
        error=unread or (backoff.error if backoff else ""),
        frozen=journal.frozen,
        lives=lives,
        events=tuple(sorted(history.events, key=lambda event: event.at)),
    )


def _due(known: Known, journal: Journal, current: Life | None, now: datetime) -> Due | None:
    """When the next rotation is due, by the same rules as everywhere."""
    if current is None:
        return None
    version = Version("", current.token, current.key_id, created_at=current.at(What.PROMOTED) or current.first)
    entry = Entry(known.policy.store, known.entry, now, version, None, journal, {})
    seen = Observation(known.policy, entry, {})
    return Situation(seen, Asked(), Capabilities(), Order(), now).next


def _standing(due: Due | None, now: datetime) -> Standing:
    if due is None:
        return Standing.UNKNOWN
    if due.overdue <= now:
        return Standing.OVERDUE
    return Standing.DUE if due.at <= now else Standing.WITHIN


def _phase(journal: Journal, lives: Sequence[Life], current: Life | None, unread: str) -> Phase:
    """Where a secret stands, by what is noted; see rotation.status.phase(), which looks at the versions as well."""
    states = {life.state for life in lives}
    if unread:
        return Phase.UNREACHABLE
    if State.UNPROVEN in states:
        return Phase.UNPROVEN
    doomed = current is not None and current.state is State.CONDEMNED
    if doomed or journal.unproven() or any(_leaked(life) for life in lives):
        return Phase.CONDEMNED
    if State.UNDER_WAY in states:
        return Phase.ROTATING
    if current is None:
        return Phase.EMPTY
    return Phase.DRAINING if states & {State.DRAINING, State.CONDEMNED} else Phase.STEADY


def _leaked(life: Life) -> bool:
    """Whether it was condemned by an incident, and is not over."""
    return life.state is State.CONDEMNED and any(step.incident for step in life.steps if step.what is What.CONDEMNED)


# --- figures -------------------------------------------------------------------------------------


def _compliance(accounts: Iterable[Account]) -> Compliance:
    found = [account.standing for account in accounts]
    return Compliance(
        found.count(Standing.WITHIN),
        found.count(Standing.DUE),
        found.count(Standing.OVERDUE),
        found.count(Standing.UNKNOWN),
    )


def _attention(accounts: Sequence[Account], now: datetime) -> Iterator[Attention]:
    """Worst first."""
    ranks: tuple[tuple[bool, list[tuple[Account, str]]], ...] = (
        (True, [(a, _ALIVE[a.phase]) for a in accounts if a.alive and a.phase]),
        (False, [(a, _late(a, now)) for a in accounts if a.standing is Standing.OVERDUE]),
        (False, [(a, f"failed {a.failures} in a row: {a.error}") for a in accounts if a.failures]),
        (False, [(a, a.frozen.told(a.name)) for a in accounts if a.frozen]),
        (False, [(a, _UNSEEN[a.phase] + (f": {a.error}" if a.error else "")) for a in accounts if a.phase in _UNSEEN]),
    )
    for urgent, found in ranks:
        for account, what in found:
            yield Attention(account.name, what, urgent)


_ALIVE: Final = {
    Phase.UNPROVEN: "a credential is revoked, and not shown dead yet",
    Phase.CONDEMNED: "a credential is to be dead, and is not yet",
}
_UNSEEN: Final[Mapping[Phase | None, str]] = {
    Phase.UNREACHABLE: "could not be looked at",
    Phase.EMPTY: "has no credential yet",
    Phase.NOT_APPLIED: "is declared, and not applied; `pulumi up` makes it",
}


def _late(account: Account, now: datetime) -> str:
    assert account.overdue_at is not None, "it would not be overdue"
    over = now - account.overdue_at
    allowed = span(account.policy.rotate_every) if account.policy else ""
    return f"overdue for {span(over)}: its policy allows {allowed}"


def span(gap: timedelta) -> str:
    """A length of time in its largest fitting unit: `3 d`, `5 h`, `12 min`, `4.2 s`."""
    seconds = gap.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _calendar(accounts: Sequence[Account], now: datetime) -> Iterator[Slot]:
    """Overdue first, then week by week, then all that is later."""
    week = timedelta(days=7)
    yield Slot(None, None, sum(a.standing is Standing.OVERDUE for a in accounts))
    dates = [max(a.due_at, now) for a in accounts if a.due_at and a.standing is not Standing.OVERDUE]
    for number in range(WEEKS):
        start = now + number * week
        yield Slot(start, start + week, sum(start <= at < start + week for at in dates))
    end = now + WEEKS * week
    yield Slot(end, None, sum(at >= end for at in dates))


def _cadences(accounts: Sequence[Account], now: datetime) -> Iterator[Cadence]:
    found: dict[timedelta, list[Account]] = {}
    for account in accounts:
        if account.policy:
            found.setdefault(account.policy.rotate_every, []).append(account)
    for every, these in sorted(found.items()):
        kept = [in_time for account in these for _, in_time in _replaced(account)]
        yield Cadence(every, _compliance(these), _oldest(these, now), kept.count(True), kept.count(False))


def _replaced(account: Account) -> Iterator[tuple[datetime, bool]]:
    """When each of its past credentials was replaced, and whether that was before it was older than is allowed today."""
    if account.policy is None:
        return
    for life in account.lives:
        begun, ended = life.at(What.PROMOTED) or life.at(What.ADOPTED), life.at(What.SUPERSEDED)
        if begun and ended and ended >= begun:
            yield ended, ended - begun <= account.policy.rotate_every


def _oldest(accounts: Iterable[Account], now: datetime) -> timedelta | None:
    return max((age for account in accounts if (age := account.age(now)) is not None), default=None)


def _owners(accounts: Sequence[Account], now: datetime) -> Iterator[Owner]:
    found: dict[str, list[tuple[Account, Policy]]] = {}
    for account in accounts:
        if account.policy:
            found.setdefault(account.policy.owner, []).append((account, account.policy))
    for name, these in sorted(found.items()):
        owned, policies = [account for account, _ in these], [policy for _, policy in these]
        yield Owner(
            name,
            _compliance(owned),
            sum(account.alive for account in owned),
            min((a.due_at for a in owned if a.due_at), default=None),
            _oldest(owned, now),
            tuple(sorted({policy.issuer for policy in policies})),
            tuple(sorted({store for policy in policies for store in policy.stores})),
            tuple(sorted({one.name for policy in policies for one in policy.consumers})),
        )


def _periods(accounts: Sequence[Account], now: datetime) -> list[Period]:
    """Days, weeks or months, whatever fits what is known of the past; a year at most."""
    happened = list(_happened(accounts))
    if not happened:
        return []
    edges = _edges(min(at for at, _, _ in happened), now)
    periods = [Period(start, until) for start, until in pairwise(edges)]
    for at, what, seconds in happened:
        period = next((one for one in periods if one.start <= at < one.until), None)
        if period is None:
            continue
        if what == "proofs":
            period.proofs.append(seconds)
        else:
            setattr(period, what, getattr(period, what) + 1)
    return periods


def _happened(accounts: Sequence[Account]) -> Iterator[tuple[datetime, str, float]]:
    """When what happened: a field of Period, and seconds where there are any."""
    for account in accounts:
        for life in account.lives:
            for step in life.steps:
                if step.what is What.PROMOTED:
                    yield step.at, "emergencies" if step.incident else "rotations", 0
            revoked, proven = life.at(What.REVOKED), life.at(What.PROVEN)
            if revoked and proven:
                yield proven, "proofs", max((proven - revoked).total_seconds(), 0.0)
        for at, in_time in _replaced(account):
            yield at, "on_time" if in_time else "late", 0
        for event in account.events:
            if event.kind is Kind.FAILED:
                yield event.at, "failures", 0


def _edges(first: datetime, now: datetime) -> list[datetime]:
    """Beginnings of the periods from a moment until now, and the end of the last one."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for days in (1, 7):
        end = midnight + timedelta(days=1)
        count = max(-((first - end) // timedelta(days=days)), 1)
        if count <= PERIODS:
            return [end - timedelta(days=days) * number for number in range(max(count, _LEAST), -1, -1)]
    month = midnight.replace(day=1)
    edges = [(month + timedelta(days=32)).replace(day=1)]
    while len(edges) <= _MONTHS and edges[-1] > first:
        edges.append((edges[-1] - timedelta(days=1)).replace(day=1))
    return edges[::-1]


_LEAST: Final = 8
"""Columns of a trend at least, or it would look like more than it is."""
_MONTHS: Final = 12
