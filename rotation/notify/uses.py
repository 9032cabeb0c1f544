"""Watches how keys are used, where an issuer is declared with watchUsage, and tells owners what is worth a warning.

    found, troubles = uses.watch(assembly)        at the end of a sweep
    found = uses.watched(assembly)                with the log

Asks stores for what they hold, and each watched issuer once; a stack that watches none costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotation import fleet, usage
from rotation.audit.lately import ShownDead, shown_dead
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.inventory import managed
from rotation.model import KeyUse, Policy
from rotation.notify.templates import composed
from rotation.ports import Notice
from rotation.situation import Evidence, Observation, Order, Situation

if TYPE_CHECKING:
    from rotation.assembly import Assembly

_log = logging.getLogger(__name__)

REMEMBERED: Final = timedelta(days=31)
"""For so long the trail is asked for keys that were shown dead."""
_OF: Final = {usage.Why.RETIRED: "is used, and should not be", usage.Why.JUMP: "is used far more than before"}
_ADVICE: Final = {
    usage.Why.RETIRED: "find who uses it, by the issuer's logs; where nobody should, `keyturn emergency {name}` replaces "
    "what it may have been copied from.",
    usage.Why.JUMP: "find out what has changed; where nobody knows, `keyturn emergency {name}` replaces it.",
}
_NEXT: Final = {
    usage.Why.RETIRED: "sweeps go on to retire it as its policy says; nothing is hurried.",
    usage.Why.JUMP: "nothing; the key stays as it is.",
}


@dataclass(frozen=True, slots=True)
class Used:
    """A secret's keys, and how they are used as far as that is told."""

    target: Target
    policy: Policy
    keys: tuple[usage.Watched, ...]
    uses: Mapping[str, KeyUse] = field(default_factory=dict)
    """By key id."""
    warned: tuple[usage.Warned, ...] = ()


def watch(assembly: Assembly, *, tell: bool = True) -> tuple[list[Used], list[Trouble]]:
    """Looks at every secret of a watched issuer, asks how its keys are used, and tells its owner what to worry about.

    Parameters:
        tell: whether owners are told.

    Returns:
        The secrets that were looked at, and what stood in the way; neither is a reason for a sweep to fail.
    """
    issuers = {name for name, about in assembly.config.issuers.items() if getattr(about, "watch_usage", False)}
    if not issuers:
        return [], []
    secrets, troubles = managed(assembly)
    wanted = [(target, policy) for target, policy in secrets if policy.issuer in issuers]
    seen: list[tuple[Target, Observation]] = []
    for (target, _), look in fleet.each(wanted, lambda pair: _look(assembly, pair[0])):
        if isinstance(look, Trouble):
            troubles.append(look)
        else:
            seen.append((target, look))
    found, more = asked(assembly, seen)
    for one in found if tell else ():
        for warned in one.warned:
            assembly.notifier.tell(notice(assembly, one, warned))
    return found, [*troubles, *more]


def watched(assembly: Assembly) -> list[Used]:
    """The same, told in the log: for sweeps that nobody looks at."""
    found, troubles = watch(assembly)
    for trouble in troubles:
        _log.warning("%s; how keys are used is not known; the next sweep asks again", trouble)
    for one in found:
        for warned in one.warned:
            _log.warning("%s: %s", one.policy.name, warned.text)
    return found


def asked(assembly: Assembly, seen: Iterable[tuple[Target, Observation]]) -> tuple[list[Used], list[Trouble]]:
    """How the keys of these secrets are used. Each issuer is asked once."""
    now, troubles = assembly.clock.now(), list[Trouble]()
    dead: list[ShownDead] = []
    try:
        dead = list(shown_dead(assembly.engine.outside.auditor, now - REMEMBERED))
    except Trouble as trouble:
        troubles.append(trouble)
    looked: list[Used] = []
    for target, look in seen:
        if look.policy.issuer in assembly.issuers:
            issuer = assembly.issuers[look.policy.issuer]
            s = Situation(look, Evidence(), issuer.capabilities, Order(), now - look.ahead)
            keys = tuple(usage.watched(s))
            proven = ((one.key_id, one.at) for one in dead if one.entry == target.entry)
            looked.append(Used(target, look.policy, (*keys, *usage.dead(proven, keys))))
    wanted: dict[str, set[str]] = {}
    for one in looked:
        wanted.setdefault(one.policy.issuer, set()).update(key.key_id for key in one.keys)
    issuers: Mapping[str, Any] = assembly.issuers
    told, silent = usage.ask(issuers, wanted, assembly.clock)
    return [_judged(one, told.get(one.policy.issuer, {}), issuers) for one in looked], [*troubles, *silent]


def _judged(one: Used, told: Mapping[str, KeyUse], issuers: Mapping[str, Any]) -> Used:
    uses = {key.key_id: told[key.key_id] for key in one.keys if key.key_id in told}
    counting = issuers[one.policy.issuer].counting if uses else None
    warned = (w for key in one.keys if key.key_id in uses for w in usage.warnings(key, uses[key.key_id], counting))
    return Used(one.target, one.policy, one.keys, uses, tuple(warned))


def _look(assembly: Assembly, target: Target) -> Observation | Trouble:
    try:
        return assembly.engine.observe(target)
    except Trouble as trouble:
        return trouble
    except ValueError as error:
        return Trouble(Code.INVALID, target.store, f"{target.entry}: {error}")


def notice(assembly: Assembly, one: Used, warned: usage.Warned) -> Notice:
    """What the owner is told; says nothing in its subject that changes from one sweep to the next."""
    role = next(key.role for key in one.keys if key.key_id == warned.key_id)
    name = f"{one.policy.environment}/{one.policy.name}"
    parts = {
        "happened": f"A key of {name} {_OF[warned.why]}: {warned.text}.",
        "state": f"the key is {role}.",
        "next": _NEXT[warned.why],
        "advice": _ADVICE[warned.why].format(name=one.policy.name),
    }
    requests = {} if warned.requests is None else {"requests": str(warned.requests)}
    return Notice(
        kind=f"usage.{warned.why}",
        severity=warned.severity,
        at=assembly.clock.now(),
        environment=one.policy.environment,
        secret=one.policy.name,
        owner=one.policy.owner,
        subject=f"{name}: {warned.key_id} {_OF[warned.why]}",
        text=composed(parts["happened"], parts["state"], parts["next"], parts["advice"]),
        facts={**parts, "key_id": warned.key_id, "role": role.value, **requests},
    )


def suspects(found: Iterable[Used]) -> Iterator[tuple[Target, dict[str, int]]]:
    """By secret, how many of its keys are worth a warning, by why."""
    for one in found:
        yield one.target, {why.value: sum(warned.why is why for warned in one.warned) for why in usage.Why}
