"""Who needs what: personas, and the operations that each does on the entries of a stack.

Beside each store stands what such an operation calls; `providers/access` writes that down as the store's own service
words rights. So a change of what is done, or of how, is a change in one place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from rotation.declared import Config, entry_name
from rotation.model import Policy
from rotation.sections import EntryReference


class Persona(StrEnum):
    """Who is to be let do something."""

    PROVISION = "provision"
    """Whoever applies the stack."""
    ROTATE = "rotate"
    """What sweeps: cron, a function, a daemon."""
    RESPOND = "respond"
    """The engineer on call: emergency, rollback, rotate; status, verify; all of them by name."""
    READ = "read"
    """A consumer."""


_PROVISION: Final = frozenset({"create", "applied", "set_policy", "restore"})
_END: Final = frozenset({"delete"})
_ADOPT: Final = frozenset({"observe", "read"})
_WORK: Final = frozenset({"observe", "read", "stage", "promote", "discard"})
"""In every store of a secret."""
_LEAD: Final = frozenset({"find", "record", "forget"})
"""In its primary store only."""
_SETTLE: Final = frozenset({"set_rotation"})
_START: Final = frozenset({"start_rotation"})
"""Where the primary store's own service rotates; see rotation.ports.RotatesByItself."""
_LOOK: Final = frozenset({"observe"})
_VERIFY: Final = frozenset({"read_many"})
_CONSUME: Final = frozenset({"current"})
"""Of consumers, and of whoever needs an issuer's administrative credential, or the key of fingerprints."""
_MAKE: Final = _CONSUME | frozenset({"create", "observe", "stage", "promote"})
"""What `keyturn fingerprints init` does to that key's entry."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry, and what may be done to it."""

    entry: str
    """Its name in the store, environment included, and without a prefix that the store adds by itself."""
    operations: frozenset[str]
    """Methods of rotation.ports.SecretStore, and of what a store may offer beyond it. No store offers all."""
    cidrs: tuple[str, ...] = ()
    vpces: tuple[str, ...] = ()
    """From where its value may be read, as declared; nothing: from anywhere."""
    tags: tuple[str, ...] = ()
    """Names of the user's own tags on it."""
    native: bool = False
    """The store's own service rotates it."""

    @property
    def restricted(self) -> bool:
        return bool(self.cidrs or self.vpces)


@dataclass(frozen=True, slots=True)
class Access:
    """All that one persona needs of one store."""

    environment: str
    grants: tuple[Grant, ...]
    """By name of the entry, each once."""
    lists: bool = False
    """Looks for every entry of the environment, declared or not."""


@dataclass(slots=True)
class _Gathered:
    grants: dict[str, Grant] = field(default_factory=dict)
    lists: bool = False

    def add(self, entry: str, operations: frozenset[str], policy: Policy | None = None) -> None:
        known = self.grants.get(entry, Grant(entry, frozenset()))
        if policy is not None:
            names = tuple(name for name, _ in policy.tags)
            known = replace(
                known,
                cidrs=policy.allowed_cidrs,
                vpces=policy.allowed_vpces,
                tags=names,
                native=known.native or policy.native,
            )
        self.grants[entry] = replace(known, operations=known.operations | operations)


def needs(config: Config, persona: Persona, policies: Collection[Policy], *, mints: bool) -> Mapping[str, Access]:
    """What a persona needs, by store; stores that it needs nothing of are left out.

    Parameters:
        config: the stack's.
        persona: whose rights.
        policies: the declared secrets that they are for; of ROTATE usually all, as a sweep takes all.
        mints: PROVISION brings the first credential, too, and ends secrets (bootstrap `apply`). Without that it reads
            no value, but of a secret that it is to adopt.
    """
    gathered: dict[str, _Gathered] = {}

    def at(store: str) -> _Gathered:
        return gathered.setdefault(store, _Gathered())

    for policy in policies:
        for store in policy.stores:
            primary = store == policy.store
            at(store).add(_entry(config, store, policy), _operations(config, persona, policy, primary, mints), policy)
        if not _works(persona, mints):
            continue
        admin = getattr(config.issuers[policy.issuer], "admin", None)
        if isinstance(admin, EntryReference):
            at(admin.store).add(admin.name, _CONSUME)
        # What the pair does is looked at, as both never rotate within the same window.
        for pair in (other for other in config.policies if other.name == policy.paired_with):
            for store in pair.stores:
                at(store).add(_entry(config, store, pair), _LOOK, pair)
    if isinstance(config.fingerprints, EntryReference) and _works(persona, mints):
        makes = persona is Persona.PROVISION
        at(config.fingerprints.store).add(config.fingerprints.name, _MAKE if makes else _CONSUME)
    if persona is Persona.ROTATE:
        for store in config.stores:
            at(store).lists = True
    return {
        store: Access(config.environment, tuple(found.grants[entry] for entry in sorted(found.grants)), found.lists)
        for store, found in sorted(gathered.items())
    }


def works_with(persona: Persona, policies: Collection[Policy], *, mints: bool) -> frozenset[str]:
    """Names of the issuers that a persona makes and ends credentials at. Parameters as of needs()."""
    return frozenset(policy.issuer for policy in policies if _works(persona, mints))


def _works(persona: Persona, mints: bool) -> bool:
    return persona in (Persona.ROTATE, Persona.RESPOND) or (persona is Persona.PROVISION and mints)


def _operations(config: Config, persona: Persona, policy: Policy, primary: bool, mints: bool) -> frozenset[str]:
    found = (_WORK | (_LEAD if primary else frozenset())) if _works(persona, mints) else frozenset[str]()
    found |= _START if found and primary and policy.native else frozenset()
    match persona:
        case Persona.READ:
            return _CONSUME
        case Persona.RESPOND:
            return found | _VERIFY
        case Persona.ROTATE:
            return found
    found |= _PROVISION | (_SETTLE if primary else frozenset())
    if mints:
        return found | _END
    adopts = policy.name in config.handling and config.handling[policy.name].adopt
    return found | ((_ADOPT | ({"record"} if primary else frozenset())) if adopts else frozenset())


def _entry(config: Config, store: str, policy: Policy) -> str:
    return entry_name(config.stores[store], policy.environment, policy.name)
