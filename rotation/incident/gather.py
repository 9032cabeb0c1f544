"""Everything that choosing and planning go by, asked once and side by side. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rotation import fleet, inventory
from rotation.assembly import Assembly
from rotation.declared import ConfigError
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.incident import selection as selections
from rotation.incident.selection import Candidate, Readers, Selection
from rotation.model import Policy
from rotation.ports import SecretStore, TellsReaders
from rotation.resilience import PatientStore
from rotation.situation import Evidence, Observation, Order, Situation

LOOKS: Final = 32
"""Secrets looked at side by side."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was chosen, and what stood in the way of choosing well."""

    chosen: tuple[Candidate, ...]
    admins: frozenset[Target]
    """Those of them that are the compromised administrative credentials themselves."""
    notes: tuple[str, ...]
    """Doubts about the choice, each a sentence for whoever confirms it."""


def gather(
    assembly: Assembly, selection: Selection, file: str = "the stack file", *, known: Iterable[Policy] = ()
) -> Gathered:
    """The secrets that are chosen, each looked at once.

    Parameters:
        selection: what was asked for.
        file: what messages call the configuration.
        known: declared secrets, or ones that somebody has found already, by which alone names are looked up. Without
            them every store is asked what it has.
    """
    given = list(known)
    notes: list[str] = []
    if given:
        candidates = [Candidate(assembly.target(policy), policy) for policy in given]
    else:
        candidates, notes = _everything(assembly, file)
    readers = _readers(assembly, candidates) if selection.readers else Readers()
    if selection.readers:
        notes += [
            f"{store} does not tell who reads it ({why}): its secrets are chosen by their declared consumers alone"
            for store, why in readers.silent.items()
        ]
    names = {
        (store, one.target): assembly.places.entry_name(store, one.policy.environment, one.policy.name)
        for one in candidates
        for store in one.policy.stores
        if store in assembly.config.stores
    }
    chosen = selections.by_policy(selection, candidates, assembly.config, readers, names)
    seen = {one.target: look for one, look in fleet.each(chosen, lambda one: _look(assembly, one), LOOKS)}
    looked = [seen[one.target] for one in chosen]
    if selection.older_than is not None and (unknown := [one.policy.name for one in looked if one.since is None]):
        notes.append(f"their age is not known, and they are taken to be old: {', '.join(unknown)}")
    compromised = selections.compromised_admins(assembly.config, selection)
    admins = [one for one in looked if selections.holds_admin(one, compromised, names)]
    rest = [one for one in looked if one not in admins]
    old = selections.by_age(selection, rest, assembly.clock.now())
    return Gathered((*admins, *old), frozenset(one.target for one in admins), tuple(notes))


def _everything(assembly: Assembly, file: str) -> tuple[list[Candidate], list[str]]:
    """All that stores list, and what is declared in a store that gave no answer: it must not be forgotten."""
    managed, troubles = inventory.managed(assembly, file)
    candidates = [Candidate(target, policy) for target, policy in managed]
    silent, there = {trouble.service: trouble for trouble in troubles}, {target for target, _ in managed}
    for policy in assembly.config.policies:
        target = assembly.target(policy)
        if policy.store in silent and target not in there:
            candidates.append(Candidate(target, policy, trouble=silent[policy.store]))
    notes = [f"{trouble}: what else may be there is not among these" for trouble in troubles]
    return candidates, notes


def _look(assembly: Assembly, one: Candidate) -> Candidate:
    try:
        seen = assembly.engine.observe(one.target)
        situation = situation_of(assembly, seen)
    except Trouble as trouble:
        return replace(one, trouble=trouble)
    since = situation.promoted_at(situation.current_key) if situation.current_key else None
    since = since or (situation.current.created_at if situation.current else None)
    return replace(one, policy=seen.policy, seen=seen, trouble=None, since=since)


def situation_of(assembly: Assembly, seen: Observation) -> Situation:
    """Questions about a look, by the clock of its primary.

    Raises:
        Trouble: its issuer is not configured.
    """
    if (name := seen.policy.issuer) not in assembly.issuers:
        told = f"{seen.primary.name} is applied with the issuer {name}, which is not configured any more"
        raise Trouble(Code.INVALID, seen.primary.store, told)
    issuer = assembly.issuers[name]
    return Situation(seen, Evidence(), issuer.capabilities, Order(), assembly.clock.now() - seen.ahead)


def _readers(assembly: Assembly, candidates: Sequence[Candidate]) -> Readers:
    entries: dict[str, list[str]] = {}
    for one in candidates:
        for store in one.policy.stores:
            if store in assembly.config.stores:
                entries.setdefault(store, []).append(
                    assembly.places.entry_name(store, one.policy.environment, one.policy.name)
                )
    told: dict[str, dict[str, Sequence[str]]] = {}
    silent: dict[str, str] = {}
    for name, wanted in entries.items():
        try:
            bare = _bare(assembly.stores[name])
            if not isinstance(bare, TellsReaders):
                silent[name] = "this kind of store can not"
                continue
            told[name] = dict(bare.readers(wanted))
        except (Trouble, ConfigError) as error:
            silent[name] = str(error)
    return Readers(told, silent)


def _bare(store: SecretStore) -> SecretStore:
    return store.bare if isinstance(store, PatientStore) else store
