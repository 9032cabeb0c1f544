"""What can be done by a person at an issuer when a store is away, or has lost what it knew: list, revoke, rebuild.

    breakglass.held(issuer, installation)            every key with a name of ours; no store is asked
    breakglass.end(issuer, doomed, auditor, clock)   revokes by id and shows each one dead; no store is asked
    breakglass.look(...), breakglass.rebuild(...)    policy and journal anew, from the issuer's list and the versions

A store that was away learns nothing of this: its next sweep finds a dead current credential in the issuer's list and
replaces it at once, and of a draining one that it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from rotation import journal as facts
from rotation import orphans
from rotation.assembly import Assembly
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.journal import Of
from rotation.leaks.finding import Finding
from rotation.leaks.match import match
from rotation.model import Credential, Entry, KeyInfo, Model, Policy, Verdict
from rotation.names import KeyName, token_in
from rotation.policy import written
from rotation.ports import Auditor, Clock, Issuer, Record
from rotation.provision import Provisioner
from rotation.situation import ATTEMPT_LIFE, Observation, Streak, foreign_token

REASON: Final = "break-glass: a person revokes it at its issuer"


@dataclass(frozen=True, slots=True)
class Held:
    """A live key as its issuer lists it."""

    key: KeyInfo
    name: KeyName | None
    """None where the name is none of Keyturn's."""


def held(issuer: Issuer) -> list[Held]:
    """Every key that an issuer lists, oldest first.

    Raises:
        Trouble: it does not answer, refuses the admin credential, or keeps no list under our names (INVALID).
    """
    able = issuer.capabilities
    if not able.registry or able.model is not Model.MINT:
        told = "lists no keys under names, so there is nothing here to tell them by"
        raise Trouble(Code.INVALID, issuer.name, told)
    found = [Held(key, KeyName.parse(key.name)) for key in iter(issuer.keys())]
    return sorted(found, key=lambda held: (held.key.created_at is None, held.key.created_at, held.key.key_id))


# --- revoking ------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Doomed:
    """A key that is to die, and how far that has come."""

    key_id: str
    secret: str
    """What the audit trail calls it: the entry's name, or where that is not known, the issuer's."""
    token: str | None = None
    listed: bool = True
    """Whether the issuer's list showed it before; where it did not, its absence shows nothing."""
    credential: Credential | None = None
    """Its value, where somebody has it and the issuer accepted it just before."""
    revoked_at: datetime | None = None
    proven_at: datetime | None = None
    how: str = ""
    """How it is known to be dead: `refused`, or `absent` from the issuer's list."""
    told: str = ""
    """Why it is not, or not yet."""
    streak: Streak | None = field(default=None, repr=False)


def accepted(issuer: Issuer, credential: Credential) -> str | None:
    """None where the issuer accepts a value, so that its refusal will show something later; else what it says."""
    check = issuer.verify(credential)
    return None if check.verdict.live else f"{check.verdict.value}: {check.reason}"


def end(issuer: Issuer, doomed: Sequence[Doomed], auditor: Auditor, clock: Clock) -> None:
    """Revokes these keys, all of them first, then shows each one dead; stays for the issuer's own time to do so.

    What became of each stands in it. One that can not be revoked does not hold up the others.

    Raises:
        Trouble: the audit trail can not be written; what was not recorded was not done.
    """
    for key in doomed:
        _revoke(issuer, key, auditor, clock)
    need = issuer.capabilities.revoke
    begun = [key for key in doomed if key.revoked_at]
    until = max((key.revoked_at for key in begun if key.revoked_at), default=clock.now()) + need.timeout
    while waiting := [key for key in begun if key.credential and not key.proven_at]:
        for key in waiting:
            _try(issuer, key, auditor, clock)
        if clock.now() >= until or all(key.proven_at for key in waiting):
            break
        clock.sleep(max(need.interval.total_seconds(), 0.01))
    unseen = [key for key in begun if not key.credential]
    for key in unseen:
        if not key.listed:
            key.told = "revoked; it stood in no list, so nothing but its value could show it dead"
    if gone := [key for key in unseen if key.listed]:
        # A list may be ahead of those who check keys; the same time is left to it as in any rotation.
        clock.sleep(max((until - clock.now()).total_seconds(), 0))
        _look_for(issuer, gone, auditor, clock)


def _revoke(issuer: Issuer, key: Doomed, auditor: Auditor, clock: Clock) -> None:
    auditor.write(Record(clock.now(), "revoke", key.secret, REASON, key.token, key.key_id))
    try:
        issuer.revoke(key.key_id)
    except Trouble as trouble:
        key.told = str(trouble)
        detail = {"code": trouble.code.value}
        auditor.write(Record(clock.now(), "revoke.failed", key.secret, key.told, key.token, key.key_id, detail=detail))
        key.revoked_at = clock.now() if trouble.maybe_applied else None
        return
    key.revoked_at = clock.now()
    auditor.write(Record(key.revoked_at, "revoke.done", key.secret, REASON, key.token, key.key_id))


def _try(issuer: Issuer, key: Doomed, auditor: Auditor, clock: Clock) -> None:
    """Shows the old value to the issuer once more."""
    assert key.credential
    check, now = issuer.verify(key.credential), clock.now()
    key.streak = key.streak.then(check.verdict, now, check.reason) if key.streak else Streak(check.verdict, 1, now)
    key.told = f"its value is {'still accepted' if check.verdict.live else check.verdict.value}: {check.reason}"
    if check.verdict is Verdict.INVALID and key.streak.count >= issuer.capabilities.revoke.in_a_row:
        _proven(key, "refused", auditor, now)


def _look_for(issuer: Issuer, keys: Iterable[Doomed], auditor: Auditor, clock: Clock) -> None:
    try:
        listed = {info.key_id for info in iter(issuer.keys())}
    except Trouble as trouble:
        for key in keys:
            key.told = f"revoked, and not shown dead: {trouble}"
        return
    for key in keys:
        if key.key_id in listed:
            key.told = "its issuer still lists it"
        else:
            _proven(key, "absent", auditor, clock.now())


def _proven(key: Doomed, how: str, auditor: Auditor, at: datetime) -> None:
    revoked = {"revoked": key.revoked_at.isoformat()} if key.revoked_at else {}
    detail = {"how": how, **revoked, "proven": at.isoformat()}
    auditor.write(Record(at, "proven", key.secret, REASON, key.token, key.key_id, detail=detail))
    key.proven_at, key.how, key.told = at, how, ""


# --- rebuilding ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is left of a secret: in its store, and at its issuer."""

    policy: Policy
    """The applied one; where that is lost, the declared one."""
    target: Target
    entry: Entry | None
    """None where the store has no such entry."""
    applied: bool
    """Whether the entry still carries its policy."""
    known: bool
    """Whether the journal still says which key the current credential is."""
    current: KeyInfo | None
    """The listed key of ours that the current credential is; None where nothing tells, or it is none of ours."""
    how: str
    """How that is known."""
    refused: str
    """Why the issuer refuses the current credential; empty where it does not."""
    others: tuple[KeyInfo, ...]
    """The other live keys under the secret's name."""


def look(assembly: Assembly, declared: Policy, current: str | None = None) -> Found:
    """Looks for what is left of a secret. Changes nothing.

    Parameters:
        declared: the secret as the stack file has it.
        current: the id of the key that the current credential is, where a person knows it.

    Raises:
        Trouble: the store or the issuer does not answer, or no key `current` of this secret is listed (INVALID).
    """
    target, issuer = assembly.target(declared), assembly.issuers[declared.issuer]
    named = _named(issuer, declared)
    try:
        entry: Entry | None = assembly.stores[target.store].observe(target.entry)
    except Trouble as trouble:
        if trouble.code is not Code.NOT_FOUND:
            raise
        entry = None
    applied = entry is not None and "installation" in entry.policy
    seen = assembly.engine.observe(target) if applied else None
    policy = seen.policy if seen else declared
    entry = seen.primary if seen else entry
    key, how = _current(entry, named)
    if key is None and entry is not None and entry.current is not None:
        key, how = _recognised(assembly, policy, entry)
    if current is not None and key is None and (key := {k.key_id: k for _, k in named}.get(current)) is not None:
        how = "a person says so"
    if current is not None and (key is None or key.key_id != current):
        told = f"{how}: {target.entry} has the value of {key.key_id}" if key else "it is not listed under that name"
        raise Trouble(Code.INVALID, issuer.name, f"{current} is not the key of {declared.name}, as {told}")
    ours = key is not None and key.key_id in {info.key_id for _, info in named}
    key = key if ours else None
    refused = ""
    if entry is not None and entry.current is not None and not _explained(entry):
        check = issuer.verify(assembly.engine.read(Observation(policy, entry, {}), entry, entry.current))
        if check.verdict is Verdict.UNKNOWN:
            told = f"{target.entry}: does not tell whether its credential works: {check.reason}"
            raise Trouble(Code.UNAVAILABLE, issuer.name, told)
        refused = check.reason if check.verdict is Verdict.INVALID else ""
    others = tuple(info for _, info in named if key is None or info.key_id != key.key_id)
    known = entry is not None and _explained(entry)
    return Found(policy, target, entry, applied, known, key, how, refused, others)


def _named(issuer: Issuer, policy: Policy) -> list[tuple[str, KeyInfo]]:
    """The live keys under a secret's name, by rotation token."""
    able = issuer.capabilities
    if not able.registry or able.model is not Model.MINT:
        return []  # there is nothing at the issuer to tell by
    names = {"installation": policy.installation, "environment": policy.environment, "secret": policy.name}
    return [(token, h.key) for h in held(issuer) if (token := token_in(h.key.name, **names))]


def _current(entry: Entry | None, named: Sequence[tuple[str, KeyInfo]]) -> tuple[KeyInfo | None, str]:
    """Which of the listed keys is current, and how that is known."""
    current = entry.current if entry else None
    if entry is None or current is None:
        return None, ""
    by_id, by_token = {info.key_id: info for _, info in named}, dict(named)
    known = current.key_id or entry.journal.key_ids.get(current.token or "")
    if (found := by_id.get(known or "")) is not None:
        return found, "the stored version says so"
    # Secrets Manager has the rotation token for a version's id; tags that told so may be gone.
    if (found := by_token.get(current.token or "") or by_token.get(current.id)) is not None:
        return found, "it was minted under the version's own rotation token"
    return None, ""


def _recognised(assembly: Assembly, policy: Policy, entry: Entry) -> tuple[KeyInfo | None, str]:
    """Which key has the current value, ours or not, where the issuer's list shows enough of values to tell."""
    issuer = assembly.issuers[policy.issuer]
    if entry.current is None or not issuer.capabilities.registry:
        return None, ""
    credential = assembly.engine.read(Observation(policy, entry, {}), entry, entry.current)
    findings = [Finding("value", value, None) for value in credential.fields.values()]
    ids = {one.key_id for one in match(assembly, findings, []) if one.issuer == policy.issuer and one.key_id}
    if len(ids) != 1:
        return None, ""
    found = next((info for info in iter(issuer.keys()) if info.key_id in ids), None)
    return found, "its issuer lists a key with this beginning and end" if found else ""


def _explained(entry: Entry) -> bool:
    """Whether the journal still says what the current version carries, and that it is ours."""
    journal, current = entry.journal, entry.current
    if current is None:
        return False
    token = next((t for t, version in journal.adopted.items() if version == current.id), current.token)
    return token is not None and token not in journal.foreign and token in {*journal.attempts, *journal.promoted}


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """What was written."""

    policy: bool
    """The applied policy, as the stack file declares it."""
    current: str | None
    """Key id of the current credential, where it is written down now."""
    orphans: tuple[str, ...]
    """Ids of the other keys that were taken up: they drain, and die by the ordinary rules."""
    later: tuple[str, ...]
    """Ids of those that later sweeps take up: too young, too many at a time, or not to be told from what is current."""


def rebuild(assembly: Assembly, found: Found, auditor: Auditor, tell: Callable[[str], None]) -> Rebuilt:
    """Writes policy and journal anew, as far as they are lost. Revokes nothing.

    The current credential goes by its key's id again, so that the next rotation retires it. Other live keys of the
    secret are taken up as orphans are in any sweep. One that nothing identifies counts as a person's from now on:
    it is replaced when it is due, and is not Keyturn's to revoke.

    Parameters:
        found: what look() has told.
        tell: called with a sentence about something that a person may not expect.

    Raises:
        Trouble, Refusal: something could not be written; repeat it once that is put right.
    """
    policy, target, entry = found.policy, found.target, found.entry
    key_id = found.current.key_id if found.current else None
    if not found.applied:
        _apply(assembly, found, key_id, auditor, tell)
    elif entry and entry.current and found.current and not found.known and not found.refused:
        _claim(assembly, found, entry, auditor)
    listed = orphans.listings(assembly.issuers, [policy.issuer], assembly.clock)
    if listed.troubles:
        raise listed.troubles[0]
    taken = []
    for orphan, seen in orphans.unclaimed(listed, [(target, policy)], assembly.engine, assembly.clock):
        born = orphan.key.created_at or assembly.clock.now()
        assembly.engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, born)
        taken.append(orphan.key.key_id)
    journal = assembly.engine.observe(target).primary.journal
    known = {*journal.key_ids.values(), *taken}
    later = tuple(key.key_id for key in found.others if key.key_id not in known)
    written_down = key_id in known and not found.known
    return Rebuilt(not found.applied, key_id if written_down else None, tuple(taken), later)


def _apply(assembly: Assembly, found: Found, key_id: str | None, auditor: Auditor, tell: Callable[[str], None]) -> None:
    """The policy as declared, on every entry of the secret, and the current credential by its key's id."""
    policy, target = found.policy, found.target
    if found.refused:
        # Nothing to adopt: a sweep finds that it is dead, and replaces it at once.
        told = "break-glass: its policy was lost, and its credential is dead"
        auditor.write(Record(assembly.clock.now(), "adopt", target.entry, told))
        assembly.stores[target.store].set_policy(target.entry, written(policy))
        return
    a = assembly
    provisioner = Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, tell)
    provisioner.create(policy, bootstrap="function", adopt=True, adopt_key_id=key_id)


def _claim(assembly: Assembly, found: Found, entry: Entry, auditor: Auditor) -> None:
    """Says in the journal again which key the current version carries."""
    current, key = entry.current, found.current
    assert current
    assert key
    names = [token for token, version in entry.journal.adopted.items() if version == current.id]
    token = names[0] if names else current.token or foreign_token(entry, current)
    at = assembly.clock.now()
    since = current.created_at or key.created_at or at
    told = f"break-glass: its journal was lost; {found.how}"
    auditor.write(Record(at, "adopt", entry.name, told, token, key.key_id))
    scope = assembly.issuers[found.policy.issuer].capabilities.scope
    facts_of = facts.adopted(token, current.id, since, Of.GIVEN, scope) | facts.key_fact(token, key.key_id)
    assembly.stores[entry.store].record(entry.name, facts_of)


def young(key: KeyInfo, now: datetime) -> bool:
    """Whether a rotation that is under way may be about to store it."""
    return key.created_at is not None and now < key.created_at + ATTEMPT_LIFE


def age(key: KeyInfo, now: datetime) -> timedelta | None:
    """How long it has lived; None where the issuer does not say."""
    return now - key.created_at if key.created_at else None
