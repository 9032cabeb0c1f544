"""One look round all stores, page by page, in little room: what has to be run, and what needs nothing.

    entry in a listing ──► tells all, and the engine would do nothing ───────────► quiet: counted, told, not kept
                      ├──► as it was when a run found nothing to do (Memory) ────► quiet
                      └──► anything else ────────────────────────────────────────► held: to be run

What is held of a secret is about 300 bytes: secrets whose policies differ in their names alone share one. Nothing is
changed here; orphans are named, and condemned by whoever asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import overload

from rotation import idle, orphans
from rotation.assembly import Assembly
from rotation.engine import Outcome, Target
from rotation.errors import Trouble
from rotation.inventory import applied
from rotation.ledger import Ledger
from rotation.model import Policy
from rotation.notify.runs import USUAL_BEFORE
from rotation.ports import Glance, Glances, SecretStore
from rotation.situation import Observation


@dataclass(frozen=True, slots=True, eq=False)
class Quiet:
    """A secret that a sweep need not run."""

    target: Target
    policy: Policy
    outcome: Outcome | None
    """How its run would have ended; None where it was remembered."""
    until: datetime | None
    """Until when that is so, as far as is known."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A secret that is kept for later."""

    store: str
    entry: str
    name: str
    like: Policy
    """Its policy but for the name; shared."""
    listed: bool = False
    """Its issuer is known to list what it hands out, or keeps no list: who runs it need not ask."""

    @property
    def target(self) -> Target:
        return Target(self.store, self.entry)

    @property
    def policy(self) -> Policy:
        return replace(self.like, name=self.name)


class Secrets(Sequence[tuple[Target, Policy]]):
    """Secrets in little room: each is put together when somebody looks at it."""

    def __init__(self, held: list[_Held]) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[tuple[Target, Policy]]:
        return ((one.target, one.policy) for one in self._held)

    @overload
    def __getitem__(self, index: int) -> tuple[Target, Policy]: ...
    @overload
    def __getitem__(self, index: slice) -> Secrets: ...
    def __getitem__(self, index: int | slice) -> tuple[Target, Policy] | Secrets:
        if isinstance(index, slice):
            return Secrets(self._held[index])
        one = self._held[index]
        return one.target, one.policy

    def places(self) -> Iterator[tuple[str, str, bool]]:
        """Store and name of each, and whether its issuer is known to list what it hands out."""
        return ((one.store, one.name, one.listed) for one in self._held)


@dataclass(slots=True, eq=False)
class Survey:
    """A look round. For one thread; look() once, then read what it found."""

    assembly: Assembly
    file: str
    """What messages call the configuration."""
    quiet: Callable[[Quiet], None]
    """Is told of each secret that need not be run, while the listings go on."""
    new: Callable[[Policy], None]
    """Is told of each policy that no earlier one was like, before anything is asked for it. May raise to end it all."""
    troubles: list[Trouble] = field(default_factory=list)
    """What could not be looked at. Holds up nothing else."""
    missing: dict[str, str] = field(default_factory=dict)
    """Store by name of what is declared, and in no store that answered."""
    ledger: Ledger = field(init=False)
    marks: dict[tuple[str, str], int] = field(default_factory=dict)
    """By store and entry, as far as they may matter."""
    held: list[_Held] = field(default_factory=list)
    _suspects: list[_Held] = field(default_factory=list)
    """Quiet secrets with listed keys of their name that they do not claim; another entry may."""
    _began: datetime = field(init=False)
    _likes: dict[Policy, Policy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.assembly.config
        self._began = self.assembly.clock.now()
        self.ledger = Ledger(self.assembly.issuers, config.installation, config.environment, self.assembly.clock)
        self.missing = {policy.name: policy.store for policy in config.policies}

    def due(self, also: Iterable[Target] = ()) -> Secrets:
        """Every secret that has to be run.

        Parameters:
            also: quiet ones for which there is something to do by now.
        """
        wanted = set(also)
        return Secrets([*self.held, *(one for one in self._suspects if one.target in wanted)])

    def look(self) -> None:
        """Goes through the listings of all stores, and the lists of the issuers that are met there."""
        for name in self.assembly.stores:
            try:
                for glance in _glances(self.assembly.stores[name]):
                    self._see(name, glance)
            except Trouble as trouble:
                self.troubles.append(trouble)
        silent = {trouble.service for trouble in self.troubles}
        self.missing = {name: store for name, store in self.missing.items() if store not in silent}
        self.held = [one for one in self.held if not self._remembered(one)]

    def orphans(self) -> Iterator[tuple[orphans.Orphan, Observation]]:
        """Listed keys of ours that nothing claims, each with the look that confirmed it.

        One look at each secret with an old key that its listing does not explain. None where a store did not answer: its
        entries may claim them.
        """
        if self.troubles:
            return
        left = {(issuer, secret): keys for issuer, secret, keys in self.ledger.left()}
        places: dict[tuple[str, str], list[_Held]] = {key: [] for key in left}
        for one in (*self.held, *self._suspects):
            if (found := places.get((one.like.issuer, one.name))) is not None:
                found.append(one)
        for key, ours in sorted(left.items()):
            if there := [(one.target, one.policy) for one in places[key]]:
                yield from orphans.of_one(there, ours, self.assembly.engine, self.assembly.clock, began=self._began)

    def mark(self, target: Target, policy: Policy) -> int:
        """By what was listed of a secret in its stores and at its issuer; 0 where that may not be all."""
        places, total = self.assembly.places, self.ledger.mark(policy.issuer, policy.name)
        for store in policy.stores:
            entry = target.entry if store == target.store else places.entry_name(store, policy.environment, policy.name)
            if not (mark := self.marks.get((store, entry), 0)):
                return 0
            total += mark
        return total

    def _see(self, store: str, glance: Glance) -> None:
        if not glance.policy:
            self._mark(store, glance)
            return
        try:
            policy = applied(self.assembly.config, self.file, store, glance.name, glance.policy)
        except Trouble as trouble:
            self.troubles.append(trouble)
            return
        if policy is None:
            return
        if policy.store != store:
            self._mark(store, glance)  # a replica
            return
        self.missing.pop(policy.name, None)
        held = _Held(store, glance.name, policy.name, self._like(policy), self._known(policy.issuer))
        if glance.entry is None or (seen := idle.see(self.assembly.engine, store, glance.entry)) is None:
            self._mark(store, glance)
            self.held.append(held)
        elif not self._passes(held, policy, seen):
            self._mark(store, glance)
            self.held.append(replace(held, listed=held.listed or self._lists(policy.issuer, seen)))

    def _known(self, issuer: str) -> bool:
        return not self.assembly.issuers[issuer].capabilities.registry

    def _lists(self, issuer: str, seen: Observation) -> bool:
        s = self.assembly.engine.outside.situation(seen)
        key_id = s.key_id(s.current_key) if s.current_key else None
        return key_id is not None and self.ledger.lists(issuer, key_id)

    def _mark(self, store: str, glance: Glance) -> None:
        if glance.mark:
            key = (store, sys.intern(glance.name))
            self.marks[key] = self.marks.get(key, 0) + glance.mark

    def _like(self, policy: Policy) -> Policy:
        like = replace(policy, name="")
        if (known := self._likes.get(like)) is None:
            self.new(policy)
            known = self._likes[like] = like
        return known

    def _passes(self, held: _Held, policy: Policy, seen: Observation) -> bool:
        """Whether the listing alone tells that there is nothing to do. It claims the entry's keys all the same."""
        engine, target = self.assembly.engine, held.target
        left = self.ledger.claim(policy.issuer, policy.name, orphans.claims(seen, engine.outside.now(seen)))
        outcome = idle.foresee(engine, target, seen, self.ledger.order(policy.issuer))
        if outcome is None:
            return False
        if left:
            self._suspects.append(held)
        self.quiet(Quiet(target, policy, outcome, idle.ends(outcome)))
        return True

    def _remembered(self, one: _Held) -> bool:
        policy, target = one.policy, one.target
        mark = self.mark(target, policy)
        until = self.assembly.memory.until(target, mark, self.assembly.clock.now()) if mark else None
        if until is None:
            return False
        # The run that is remembered saw these very keys, and left none of them as an orphan.
        self.ledger.claim(policy.issuer, policy.name, None)
        self.quiet(Quiet(target, policy, None, until))
        return True


def announced(assembly: Assembly, policy: Policy) -> timedelta:
    """How long before a rotation its owner is told of it."""
    owner = assembly.config.owners.get(policy.owner)
    return owner.notify_before if owner else USUAL_BEFORE


def _glances(store: SecretStore) -> Iterator[Glance]:
    if isinstance(store, Glances):
        return store.glances()
    return (Glance(listed.name, listed.policy) for listed in store.listing())
