"""One execution: a scenario, killed at one request, healed by sweeps, and everything that must hold then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from rotation.errors import Trouble
from rotation.journal import Why
from rotation.model import Entry
from tests.kill.site import NAME, Issuer, Site, Store, World
from tests.kill.wire import Strike

Command = Literal["rotation", "emergency", "containment"]
Step = timedelta | tuple[str, ...]

STEPS: Final[Mapping[Command, tuple[Step, ...]]] = {
    # Due, promoted, and a day later retired.
    "rotation": (timedelta(days=31), ("sweep",), timedelta(hours=26), ("sweep",)),
    "emergency": (("emergency", NAME, "--yes"),),
    # Revoked first: consumers fail until the replacement is there, as declared.
    "containment": (("emergency", NAME, "--yes", "--contain-first"),),
}

_DAYS: Final = (timedelta(hours=26),) * 4
_SOON: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 16, 16))
SWEEPS: Final[Mapping[Command, tuple[timedelta, ...]]] = {
    "rotation": (timedelta(minutes=1), timedelta(minutes=16), *_DAYS),
    "emergency": (*_SOON, *_DAYS),
    "containment": (*_SOON, *_DAYS),
}
"""How long after the one before each sweep comes that heals, until all is settled; by the last it must be. Past every
claim, the life of an attempt, and grace periods."""


@dataclass(frozen=True)
class Scenario:
    """What is done, where."""

    command: Command
    stores: tuple[Store, ...]
    """The primary first."""
    issuer: Issuer

    @property
    def name(self) -> str:
        return f"{self.command} {'+'.join(self.stores)} {self.issuer}"


_PLACES: Final[tuple[tuple[tuple[Store, ...], Issuer], ...]] = (
    (("vault",), "openai"),
    (("vault",), "generated"),
    (("aws",), "openai"),
    (("azure",), "openai"),
    (("aws", "vault"), "openai"),
)
_COMMANDS: Final[tuple[Command, ...]] = ("rotation", "emergency")
SCENARIOS: Final = (
    *(Scenario(command, stores, issuer) for stores, issuer in _PLACES for command in _COMMANDS),
    Scenario("containment", ("vault",), "openai"),
)


def points(calls: Sequence[str]) -> list[int]:
    """Which requests of an undisturbed run to kill at, from 1: every one, but of idle waiting the first rounds only.

    A round of requests that is repeated again and again, unchanged, is somebody asking whether it is time yet: the world
    is the same at each. Of more than three such rounds the first two and the last are kept.
    """
    kept: list[int] = []
    at = 0
    while at < len(calls):
        period, rounds = max(((p, _rounds(calls, at, p)) for p in range(1, _LONGEST_ROUND + 1)), key=_repeated)
        if rounds <= _ROUNDS:
            period, rounds = 1, 1
        end = at + period * rounds
        first = range(at, min(at + 2 * period, end))
        kept += [*first, *range(max(first.stop, end - period), end)]
        at = end
    return [index + 1 for index in kept]


_LONGEST_ROUND: Final = 20
_ROUNDS: Final = 3


def _rounds(calls: Sequence[str], at: int, period: int) -> int:
    """How often the requests from here are repeated, the first time included."""
    unit, count = calls[at : at + period], 1
    while calls[at + count * period : at + (count + 1) * period] == unit:
        count += 1
    return count


def _repeated(found: tuple[int, int]) -> int:
    period, rounds = found
    return period * rounds if rounds > _ROUNDS else 0


@dataclass
class Result:
    """What an execution came to. Every list is empty when all is well."""

    scenario: Scenario
    strike: Strike | None
    calls: list[str] = field(default_factory=list)
    """The requests of the scenario's own commands, up to the strike."""
    sweeps: int = 0
    """How many it took to heal."""
    repeated: bool = False
    """The emergency had to be run again: it was killed before anything was condemned."""
    contained: int = 0
    """Refusals of the leaked key while stores still handed it out, by the containment that the policy declares."""
    outages: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    unstruck: bool = False
    """The process ended before the request at which it was to be killed."""

    @property
    def faults(self) -> dict[str, list[str]]:
        kinds = ("outages", "orphans", "stuck", "unproven", "leaks")
        found: dict[str, list[str]] = {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}
        return found

    def __str__(self) -> str:
        at = "nowhere"
        if self.strike:
            call = self.calls[self.strike.point - 1] if self.strike.point <= len(self.calls) else "not reached"
            at = f"{self.strike.moment} request {self.strike.point} ({call})"
        told = "; ".join(f"{kind}: {', '.join(found)}" for kind, found in self.faults.items())
        return f"{self.scenario.name}, killed {at}: {told or 'all is well'}"


def execute(site: Site, scenario: Scenario, strike: Strike | None = None) -> Result:
    """Provisions a secret, runs the scenario until the strike, heals by sweeps alone, and looks.

    The one thing that a person does: an emergency that died before it had condemned anything is run again.
    """
    result = Result(scenario, strike)
    with site.world(scenario.stores, scenario.issuer) as world:
        first = look(world)
        world.watch(strike)
        for step in STEPS[scenario.command]:
            if isinstance(step, timedelta):
                world.move(step)
                continue
            world.keyturn(*step)
            if site.wire.struck:
                break
        result.calls = site.wire.calls
        result.unstruck = strike is not None and not site.wire.struck
        world.watch()
        _heal(world, first, result)
        world.consumers.look()
        _judge(world, first, result)
    return result


def executions(scenario: Scenario, strikes: Sequence[Strike | None]) -> list[Result]:
    """Several, one after the other, on servers of their own."""
    with Site() as site:
        return [execute(site, scenario, strike) for strike in strikes]


@dataclass(frozen=True)
class Seen:
    """A secret from outside: what its stores hand out, and what Keyturn's own stores make of it."""

    values: Mapping[str, str]
    primary: Entry
    replicas: Mapping[str, Entry]

    @property
    def token(self) -> str:
        """Of what is current."""
        current = self.primary.current
        return (current and current.token) or ""

    @property
    def unsettled(self) -> str:
        """What is left to do; empty when nothing is. Three facts remain of a finished rotation, and of an emergency
        that was killed its freeze, which a person takes off."""
        facts = {f"{kind}.{self.token}" for kind in ("attempt", "key", "promoted")}
        if found := set(self.primary.journal.facts) - {"frozen"} ^ facts:
            return f"the journal's facts differ from three of the current key by {sorted(found)}"
        for entry in (self.primary, *self.replicas.values()):
            if (entry.current and entry.current.token) != self.token:
                return f"{entry.store} is at another version"
            if entry.pending and entry.pending.token != self.token:
                return f"{entry.store} has a version pending"
        for entry in self.replicas.values():
            if entry.journal.facts:
                return f"{entry.store} has journal facts of a replica"
        return ""


def look(world: World) -> Seen:
    assembly, policy = world.assembly, world.policy
    entries: dict[str, Entry] = {
        store: assembly.stores[store].observe(assembly.places.entry_name(store, policy.environment, policy.name))
        for store in world.stores
    }
    values = {store: read() for store, read in world.readers.items()}
    return Seen(values, entries.pop(policy.store), entries)


def _heal(world: World, first: Seen, result: Result) -> None:
    command = result.scenario.command
    if command != "rotation" and not _condemned(look(world), first):
        result.repeated = True
        for step in STEPS[command]:
            assert not isinstance(step, timedelta)
            world.keyturn(*step)
    for pause in SWEEPS[command]:
        seen = look(world)
        if not seen.unsettled and seen.token != first.token:
            return
        world.move(pause)
        ran = world.keyturn("sweep")
        result.sweeps += 1
        if ran.code not in (0, 1, 3) or "Traceback" in ran.said:
            result.stuck.append(f"a sweep ended with {ran.code}: {ran.said[-2000:]}")


def _condemned(seen: Seen, first: Seen) -> bool:
    held = seen.primary.journal.condemned.get(first.token)
    return (held is not None and held.why is Why.EMERGENCY) or seen.token != first.token


def _judge(world: World, first: Seen, result: Result) -> None:
    """Everything that must hold when sweeps have done what they can."""
    try:
        seen = look(world)
    except Trouble as trouble:
        result.stuck.append(f"a store can not be read: {trouble}")
        return
    old = set(first.values.values())
    if seen.unsettled:
        result.stuck.append(seen.unsettled)
    if len(set(seen.values.values())) != 1:
        result.stuck.append("the stores hand out different values")
    if old & set(seen.values.values()):
        result.stuck.append("a store still hands out the old value")
    records = world.records()
    contained = any(r["event"] == "contain" and r.get("token") == first.token for r in records)
    for refusal in world.consumers.refused:
        if contained and refusal.value in old:
            result.contained += 1
        else:
            what = "the old value" if refusal.value in old else "a new value" if refusal.value else "reading"
            result.outages.append(f"{refusal.store}: {what}: {refusal.answer}")
    if world.issuer == "openai":
        _judge_keys(world, records, result)
    elif not _event(records, "closed", first.token):
        result.unproven.append("the old value was not closed")
    _search(world, first, seen, result)


def _judge_keys(world: World, records: list[dict[str, Any]], result: Result) -> None:
    """One key lives. The consumers use what is handed out, so it is that one; every other was shown dead."""
    keys = world.issued()
    alive = [key["id"] for key in keys if key["accepted"]]
    if len(alive) != 1:
        result.orphans.append(f"{len(alive)} keys of {len(keys)} live: {', '.join(alive)}")
    if accounts := world.accounts() - {key["service_account_id"] for key in keys if key["accepted"]}:
        result.orphans.append(f"service accounts without a key: {', '.join(accounts)}")
    for key in keys:
        known_as = {r.get("token", "") for r in records if r.get("key_id", "").endswith(key["id"])}
        if not key["accepted"] and not any(_event(records, "proven", token) for token in known_as):
            result.unproven.append(f"{key['id']} is dead, and nothing says that this was shown")


def _event(records: list[dict[str, Any]], event: str, token: str) -> bool:
    return any(record["event"] == event and record.get("token") == token for record in records)


def _search(world: World, first: Seen, seen: Seen, result: Result) -> None:
    """Values that went over the wire, in everything that Keyturn wrote down or said."""
    values = world.site.wire.values | world.site.logins() | {*first.values.values(), *seen.values.values()}
    places = {f"output of {' '.join(ran.arguments)}": ran.said for ran in world.ran}
    places |= {
        str(path.relative_to(world.directory)): path.read_text(errors="replace")
        for path in world.directory.rglob("*")
        if path.is_file()
    }
    result.leaks += [place for place, text in places.items() if any(value in text for value in values)]
