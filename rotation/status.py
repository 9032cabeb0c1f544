"""What people see of a secret: one row, and decisions in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum

from rotation import actions
from rotation.engine import Engine, Target
from rotation.errors import Code, Trouble
from rotation.journal import Frozen
from rotation.model import Policy
from rotation.policy import show_duration
from rotation.ports import Issuer
from rotation.situation import Absent, Evidence, Observation, Order, Situation


class Phase(StrEnum):
    """Where a secret stands."""

    NOT_APPLIED = "not applied"
    """Declared, and no store has it: `pulumi up` makes it."""
    UNREACHABLE = "unreachable"
    EMPTY = "empty"
    """The entry has no credential yet."""
    STEADY = "steady"
    ROTATING = "rotating"
    """An attempt is under way or was interrupted."""
    DRAINING = "draining"
    """Rotated; the old credential still lives."""
    CONDEMNED = "condemned"
    """A credential is to be dead now, and is not yet: the current one is to be replaced first, or one has leaked."""
    UNPROVEN = "revoked, unproven"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Row:
    """One secret in `keyturn status`. Times are aware, UTC."""

    name: str
    environment: str
    store: str
    replicas: tuple[str, ...]
    issuer: str
    owner: str
    phase: Phase
    rotation: str | None = None
    """Token of the attempt under way."""
    key_id: str | None = None
    previous_key_id: str | None = None
    rotated_at: datetime | None = None
    due_at: datetime | None = None
    """The next rotation. Of one that is due and has to wait: when it may begin."""
    due_why: str | None = None
    """Why then, where that is not its age."""
    overdue_at: datetime | None = None
    """From when on its credential is older than is allowed."""
    grace_until: datetime | None = None
    next_action: str = ""
    last_error: str | None = None
    frozen: Frozen | None = None
    """An incident keeps scheduled work off it."""
    alive: bool = False
    """A credential that should be dead is alive, or not shown dead. Not in the JSON."""
    applied: Policy | None = None
    """What is applied, where that is known. Not in the JSON."""
    seen: Observation | None = None
    """The look that it rests on. Not in the JSON."""

    def as_json(self) -> dict[str, object]:
        shown: dict[str, object] = asdict(replace(self, applied=None, seen=None))
        del shown["alive"], shown["applied"], shown["seen"]
        for name in ("rotated_at", "due_at", "overdue_at", "grace_until"):
            at = getattr(self, name)
            shown[name] = at.isoformat() if at else None
        ice = self.frozen
        shown["frozen"] = {"incident": ice.incident, "since": ice.at.isoformat()} if ice else None
        return shown | {"phase": self.phase.value, "replicas": list(self.replicas)}


def row(engine: Engine, target: Target, policy: Policy, now: datetime, issuers: Mapping[str, Issuer]) -> Row:
    """One look at a secret, as a row.

    Parameters:
        policy: as declared; shown where nothing is applied.
        issuers: by configured name.
    """
    try:
        decision, seen = engine.plan(target)
    except Trouble as trouble:
        return unseen(policy, trouble)
    return looked(policy, decision, seen, now, issuers)


def unseen(policy: Policy, trouble: Trouble) -> Row:
    """The row of a secret that could not be looked at, or is not there."""
    missing = trouble.code is Code.NOT_FOUND
    return replace(
        declared(policy),
        phase=Phase.NOT_APPLIED if missing else Phase.UNREACHABLE,
        next_action="pulumi up" if missing else "the next sweep asks again",
        last_error=None if missing else str(trouble),
    )


def declared(policy: Policy) -> Row:
    """What a policy tells alone."""
    where = (policy.store, policy.replicas, policy.issuer, policy.owner)
    return Row(policy.name, policy.environment, *where, Phase.UNREACHABLE)


def looked(
    policy: Policy, decision: actions.Decision, seen: Observation, now: datetime, issuers: Mapping[str, Issuer]
) -> Row:
    """The row of a secret that was looked at; see row()."""
    s = Situation(seen, Evidence(), issuers[seen.policy.issuer].capabilities, Order(), now)
    applied, journal = seen.policy, seen.primary.journal
    previous = next((key for key in reversed(s.retiring)), None)
    ended = s.superseded_at(previous) if previous else None
    staged = s.pending.token if s.pending else None
    return replace(
        declared(policy),
        replicas=applied.replicas,
        issuer=applied.issuer,
        owner=applied.owner,
        phase=phase(s, decision),
        rotation=staged or (s.at_work.token if s.at_work else None),
        key_id=s.key_id(s.current_key) if s.current_key else None,
        previous_key_id=s.key_id(previous) if previous else None,
        rotated_at=(s.promoted_at(s.current_key) if s.current_key else None),
        due_at=s.next.at if s.next else None,
        due_why=(s.next.reason or None) if s.next else None,
        overdue_at=s.next.overdue if s.next else None,
        grace_until=ended + applied.grace if ended and previous not in journal.condemned else None,
        next_action=words(decision),
        last_error=_error(seen, decision),
        frozen=journal.frozen,
        alive=s.urgent or bool(journal.unproven()) or (isinstance(decision, actions.Hold) and decision.unproven),
        applied=applied,
        seen=seen,
    )


def phase(s: Situation, decision: actions.Decision | None) -> Phase:
    """Where a secret stands that was seen.

    Parameters:
        decision: what is to be done next, or None when a failed call left that open.
    """
    journal = s.seen.primary.journal
    if set(journal.revoked) - set(journal.proven):
        return Phase.UNPROVEN
    if s.urgent or journal.unproven():
        return Phase.CONDEMNED
    if isinstance(decision, actions.Hold):
        return Phase.HELD
    if s.pending is not None or s.at_work is not None:
        return Phase.ROTATING
    if s.current is None:
        return Phase.EMPTY
    return Phase.DRAINING if s.retiring else Phase.STEADY


def _error(seen: Observation, decision: actions.Decision) -> str | None:
    if isinstance(decision, actions.Hold):
        return decision.reason
    away = [f"{r.store}: {r.reason}" for r in seen.replicas.values() if isinstance(r, Absent)]
    if away:
        return "; ".join(away)
    backoff = seen.primary.journal.backoff
    return f"failed {backoff.failures} in a row: {backoff.error}" if backoff else None


def words(decision: actions.Decision) -> str:
    """A decision in one phrase, the reason included."""
    match decision:
        case actions.Done():
            why = f": {decision.due_why}" if decision.due_why else ""
            return f"rotate at {decision.due_at:%Y-%m-%d %H:%M}Z{why}" if decision.due_at else "nothing"
        case actions.Wait():
            return f"wait until {decision.until:%Y-%m-%d %H:%M}Z: {decision.reason}"
        case actions.Hold():
            return f"held: {decision.reason}"
        case actions.Reached():
            return decision.reason
        case actions.Intend(of=None):
            return f"rotate now: {decision.reason}"
        case _:
            return f"{_VERBS[type(decision)]}: {decision.reason}"


_VERBS = {
    actions.Start: "have the store's service rotate",
    actions.Intend: "store anew",
    actions.Mint: "mint",
    actions.Restage: "stage",
    actions.Copy: "stage copy",
    actions.Compare: "read back",
    actions.Verify: "verify",
    actions.Smoke: "smoke-test",
    actions.VerifyCurrent: "verify current",
    actions.Look: "look again",
    actions.Promote: "promote",
    actions.Discard: "discard",
    actions.Note: "note",
    actions.Condemn: "condemn",
    actions.ListKeys: "search issuer",
    actions.AskLastUse: "ask last use",
    actions.Revoke: "revoke",
    actions.Prove: "prove dead",
    actions.Forget: "close",
}


def then(decision: actions.Decision, policy: Policy) -> str | None:
    """What follows a decision by itself, for the plan; None when the decision says it all."""
    match decision:
        case actions.Intend(of=None):
            stores = ", then ".join(policy.stores)
            return (
                f"mint at {policy.issuer}, stage and verify, promote in {stores}; "
                f"the old credential drains for {show_duration(policy.grace)}, then is revoked and shown dead"
            )
        case actions.Verify() | actions.Mint():
            return f"promote in {policy.store}"
        case actions.Condemn() | actions.Revoke():
            return "show it dead"
    return None
