"""What an emergency would do, before it does anything: what is replaced, in which order, whom it hits, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotation.assembly import Assembly
from rotation.declared import Config
from rotation.engine import Target
from rotation.errors import Code
from rotation.incident import selection as selections
from rotation.incident.gather import Gathered, situation_of
from rotation.incident.selection import Candidate, Selection
from rotation.model import Capabilities, Consumer, Model
from rotation.resilience import AT_ONCE
from rotation.sections import calls_per_second
from rotation.situation import HASTE, Situation

CALL: Final = timedelta(milliseconds=100)
"""What a call is taken to last, where a plan names an expected time."""


@dataclass(frozen=True, slots=True)
class Key:
    """A live credential of a secret: what is condemned."""

    token: str
    key_id: str | None
    role: str
    """`current`, `previous`, `pending`, or `orphan`: alive at its issuer, and in no journal."""
    since: datetime | None
    """When it became current."""
    ours: bool = True
    """False: a person put it there, and has to revoke it at its issuer."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Where one of them was found, without any value."""

    source: str
    rule: str
    where: str
    standing: str
    """What was found: `current`, `previous`, `orphan`, …"""
    how: str
    """How it was told whose it is."""
    token: str | None = None
    key_id: str | None = None
    public: bool | None = None
    found_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One secret of a plan."""

    target: Target
    name: str
    environment: str
    owner: str
    issuer: str
    replicas: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    contain_after: timedelta
    keys: tuple[Key, ...] = ()
    leaks: tuple[Leak, ...] = ()
    wave: int = 1
    """0: the compromised administrative credential itself, before everything that it minted."""
    enforced: bool = True
    """Its issuer refuses what is revoked. A generated value just leaves the stores."""
    person: str | None = None
    """What a person has to do, because its issuer lets nobody else."""
    trouble: str | None = None
    """Why nothing is known of it now."""
    missing: bool = False
    """There is no such entry."""

    @property
    def since(self) -> datetime | None:
        """When its current credential became current."""
        return next((key.since for key in self.keys if key.role == "current"), None)


@dataclass(frozen=True, slots=True)
class Load:
    """Calls that a plan expects at one service."""

    reads: int = 0
    values: int = 0
    """Writes of values: staged, promoted."""
    facts: int = 0
    """Writes of the journal."""
    changes: int = 0
    """At an issuer: minted, revoked."""

    @property
    def calls(self) -> int:
        return self.reads + self.values + self.facts + self.changes

    def plus(self, other: Load) -> Load:
        return Load(
            self.reads + other.reads,
            self.values + other.values,
            self.facts + other.facts,
            self.changes + other.changes,
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """What a service allows, as it publishes it. Calls a second; None where it names no limit that matters here."""

    values: float | None = None
    facts: float | None = None
    calls: float | None = None
    source: str = ""


QUOTAS: Final[Mapping[str, Quota]] = {
    "aws-secrets-manager": Quota(
        values=50,
        facts=50,
        source="AWS Secrets Manager quotas: 50 a second for PutSecretValue with UpdateSecretVersionStage, and for TagResource "
        "with UntagResource, in each region",
    ),
    "azure-key-vault": Quota(
        calls=400, source="Azure Key Vault service limits: 4,000 transactions of secrets in 10 seconds, in each vault"
    ),
}
"""By kind of store. Vault and OpenBao have what their operator sets, and issuers say no by 429: both are waited out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is confirmed before anything happens."""

    steps: tuple[Step, ...]
    """In the order in which they are begun."""
    selected: str
    """What was asked for, in words."""
    contain_first: bool
    loads: Mapping[str, Load]
    """By service: calls in all."""
    quotas: Mapping[str, Quota]
    expected: timedelta
    """Until everything is shown dead, at CALL each."""
    notes: tuple[str, ...]
    admin: str | None = None
    """What a person has to do first about a compromised administrative credential."""

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(step.owner for step in self.steps))


def make(
    assembly: Assembly,
    selection: Selection,
    gathered: Gathered,
    *,
    leaks: Mapping[Target, Sequence[Leak]] | None = None,
    contain_after: timedelta | None = None,
    contain_first: bool = False,
) -> Plan:
    """The plan for what was chosen.

    Parameters:
        leaks: what a report has of each secret.
        contain_after: in place of each policy's own.
        contain_first: revoke at once, then replace.
    """
    found = leaks or {}
    delay = timedelta(0) if contain_first else contain_after
    steps: list[Step] = []
    loads: dict[str, Load] = {}
    longest = timedelta(0)
    for one in gathered.chosen:
        step = _step(assembly, one, delay, tuple(found.get(one.target, ())))
        step = replace(step, wave=0 if one.target in gathered.admins else 1)
        steps.append(step)
        if step.trouble is None:
            capabilities = assembly.issuers[step.issuer].capabilities
            load = calls(step, capabilities)
            for service, more in load.items():
                loads[service] = loads.get(service, Load()).plus(more)
            longest = max(longest, _path(load, capabilities))
    quotas = {service: quota for service in loads if (quota := _quota(assembly.config, service))}
    busy = [_busy(load, quotas.get(service, Quota())) for service, load in loads.items()]
    return Plan(
        steps=tuple(sorted(steps, key=exposure)),
        selected=selection.words(),
        contain_first=contain_first,
        loads=dict(sorted(loads.items())),
        quotas=quotas,
        expected=max([longest, *busy]),
        notes=gathered.notes,
        admin=_by_hand(assembly.config, selection, steps),
    )


def _step(assembly: Assembly, one: Candidate, delay: timedelta | None, leaks: tuple[Leak, ...]) -> Step:
    policy = one.policy
    step = Step(
        target=one.target,
        name=policy.name,
        environment=policy.environment,
        owner=policy.owner,
        issuer=policy.issuer,
        replicas=policy.replicas,
        consumers=policy.consumers,
        contain_after=policy.contain_after if delay is None else delay,
        leaks=leaks,
    )
    if one.seen is None:
        missing = one.trouble is not None and one.trouble.code is Code.NOT_FOUND
        return replace(step, trouble=str(one.trouble), missing=missing)
    s = situation_of(assembly, one.seen)
    keys = live_keys(s)
    known = {key.token for key in keys}
    keys += tuple(
        Key(leak.token, leak.key_id, "orphan", None)
        for leak in leaks
        if leak.standing == "orphan" and leak.token and leak.key_id and leak.token not in known
    )
    return replace(step, keys=keys, enforced=s.issuer.registry, person=_person(step, s.issuer, keys))


def live_keys(s: Situation) -> tuple[Key, ...]:
    """Every credential of a secret that is not revoked as far as its journal knows; the current one first."""
    journal, staged = s.seen.primary.journal, s.key_of(s.pending)
    keys = []
    for token in s.keys:
        if token in journal.revoked:
            continue
        role = "current" if token == s.current_key else "pending" if token == staged else "previous"
        keys.append(Key(token, s.key_id(token), role, s.promoted_at(token), ours=token not in journal.foreign))
    if s.current_key is None and s.current is not None and s.handed_out:
        keys.append(Key(s.handed_out, None, "current", s.current.created_at, ours=False))
    return tuple(sorted(keys, key=lambda key: (_ROLES.index(key.role), key.token)))


_ROLES: Final = ("current", "previous", "pending")


def _person(step: Step, issuer: Capabilities, keys: Sequence[Key]) -> str | None:
    if issuer.model is Model.MANUAL:
        ids = ", ".join(key.key_id for key in keys if key.key_id) or "the leaked one"
        return (
            f"{step.owner} creates a credential at {step.issuer} and brings it by `keyturn submit {step.name}`, then revokes "
            f"{ids} there; Keyturn promotes the new one and shows the old one dead"
        )
    if any(not key.ours for key in keys):
        return f"{step.owner} revokes at {step.issuer} what a person had put into it: Keyturn replaces it, and may not revoke it"
    return None


def exposure(step: Step) -> tuple[object, ...]:
    """The order: the most exposed first.

    What a report has, public places before others and what is handed out before what drains; then production, more
    consumers, older credentials; what can not be reached last within that.
    """
    current = {leak.standing for leak in step.leaks}
    since = step.since
    return (
        step.wave,
        not any(leak.public for leak in step.leaks),
        not step.leaks,
        "current" not in current,
        step.environment != "prod",
        -len(step.consumers),
        since is not None,
        since.timestamp() if since else 0.0,
        step.name,
    )


# --- a compromised administrative credential -----------------------------------------------------


def _by_hand(config: Config, selection: Selection, steps: Sequence[Step]) -> str | None:
    """Who replaces the administrative credential, where it is none of our own secrets."""
    ours = any(step.wave == 0 for step in steps)
    told = []
    for issuer in dict.fromkeys((*selection.admins, *selection.leaked_admins)):
        admin = selections.admin_of(config, issuer)
        if admin is None:
            told.append(f"{issuer} works with this machine's own login: its administrator replaces that first")
        elif admin[0] == "env":
            told.append(
                f"whoever administers {issuer} creates another administrative credential there, revokes the present one, and "
                f"puts the new one where {admin[1]} comes from"
            )
        elif not ours:
            told.append(
                f"whoever administers {issuer} creates another administrative credential there, revokes the present one, and "
                f"writes the new one to the entry {admin[2]} in {admin[1]}"
            )
    return "; ".join(told) or None


# --- what it costs -------------------------------------------------------------------------------


def calls(step: Step, issuer: Capabilities) -> dict[str, Load]:
    """Calls that one secret takes at each service, from the look before it is condemned to the thaw at its end.

    Nothing else happens to it meanwhile, and every answer is the expected one. tests/incident holds this to what is counted.
    """
    replicas, keys = len(step.replicas), max(len(step.keys), 1)
    more = keys - 1
    looks = 10 + 2 * replicas if replicas else 6
    loads = {
        step.target.store: Load(
            reads=looks + (keys if issuer.registry else 0),
            values=2,
            facts=6 + bool(replicas) + 2 * more,
        )
    }
    for replica in step.replicas:
        loads[replica] = Load(reads=6 + 2 * replicas, values=2)
    if issuer.registry:
        asked = issuer.create.in_a_row + keys * issuer.revoke.in_a_row
        revoked = keys if issuer.revokes else 0
        loads[step.issuer] = Load(reads=asked, changes=1 + revoked)
    return loads


def _path(loads: Mapping[str, Load], issuer: Capabilities) -> timedelta:
    """How long one secret takes by itself: its calls one after the other, and the pauses between equal answers."""
    pauses = (issuer.create.in_a_row - 1) * issuer.create.interval / HASTE
    if issuer.registry:
        pauses += (issuer.revoke.in_a_row - 1) * issuer.revoke.interval / HASTE
    return sum(load.calls for load in loads.values()) * CALL + pauses


def _quota(config: Config, service: str) -> Quota | None:
    """What a service allows or, where that is less, what the stack file lets one process take of it."""
    about = config.stores.get(service) or config.issuers[service]
    documented, most = QUOTAS.get(about.kind), calls_per_second(about)
    if most is None:
        return documented
    quota = documented or Quota()
    source = "; ".join(filter(None, (quota.source, f"callsPerSecond: {most:g}")))
    return replace(quota, calls=min(most, quota.calls or most), source=source)


def _busy(load: Load, quota: Quota) -> timedelta:
    """How long a service is busy with all of it: AT_ONCE calls side by side, and no more than it allows."""
    limits = [load.calls * CALL.total_seconds() / AT_ONCE]
    for number, rate in ((load.values, quota.values), (load.facts, quota.facts), (load.calls, quota.calls)):
        if rate:
            limits.append(number / rate)
    return timedelta(seconds=max(limits))
