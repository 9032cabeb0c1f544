"""The command `keyturn plan`: what a sweep would do now, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from rotation import actions, orphans
from rotation import status as statuses
from rotation.cli import rows as drawing
from rotation.cli import show
from rotation.cli.chosen import Environments, Issuers, Overdue, Owners, Phases, Sorted, Stores, choice
from rotation.cli.context import File, Json, Names, Stack, open_context
from rotation.cli.ending import DONE, FAILED
from rotation.cli.progress import watched
from rotation.errors import Trouble
from rotation.model import Policy
from rotation.situation import Order
from rotation.status import Phase, Row

NOT_APPLIED: Final = "not applied yet; `pulumi up` makes it"


@dataclass(frozen=True, slots=True)
class Planned:
    """What a sweep would do about one secret."""

    row: Row
    acts: bool
    next: str
    then: str | None = None
    error: str | None = None
    frozen: str | None = None
    """By which incident, since when, and what takes it off."""

    def as_json(self) -> dict[str, Any]:
        row = self.row.as_json()
        where = ("environment", "store", "replicas", "issuer", "owner", "phase", "rotated_at", "due_at", "overdue_at")
        own = {"acts": self.acts, "next": self.next, "then": self.then, "error": self.error, "frozen": self.frozen}
        return {"name": self.row.name, **own, **{name: row[name] for name in where}}


def plan(
    names: Names = None,
    stack: Stack = None,
    config: File = None,
    owner: Owners = None,
    issuer: Issuers = None,
    store: Stores = None,
    environment: Environments = None,
    phase: Phases = None,
    overdue: Overdue = False,
    sort: Sorted = None,
    json: Json = False,
) -> None:
    """Show what a sweep would do now, and why. Changes nothing.

    Secrets that a store has and the file does not declare any more are shown too, and keys at an issuer that nothing
    claims. Of one option given twice either will do; several options narrow each other. Of many secrets that have
    nothing to do only the number is told; --json has them all.

    Example: keyturn plan --stack prod --owner support-platform
    """
    context = open_context(stack, config)
    assembly = context.assembly
    asked_for = choice(
        context,
        owners=owner,
        issuers=issuer,
        stores=store,
        environments=environment,
        phases=phase,
        overdue=overdue,
        sort=sort,
    )
    targets = {policy: assembly.target(policy) for policy in context.declared(names)}
    began = assembly.clock.now()
    managed, unseen = ([], []) if names else context.managed()
    known = set(targets.values())
    targets |= {policy: target for target, policy in managed if target not in known}
    listed = orphans.listings(assembly.issuers, (policy.issuer for policy in targets), assembly.clock)
    differing: dict[str, tuple[str, ...]] = {}

    def look(policy: Policy) -> Planned:
        order = Order(listed=listed.ids(policy.issuer), listed_at=listed.at)
        try:
            decision, seen = assembly.engine.plan(targets[policy], order)
        except Trouble as trouble:
            row = statuses.unseen(policy, trouble)
            missing = row.phase is Phase.NOT_APPLIED
            told = NOT_APPLIED if missing else "cannot tell"
            return Planned(row, acts=False, next=told, error=None if missing else str(trouble))
        differing[policy.name] = context.unapplied(seen.policy)
        acts, then = isinstance(decision, actions.Action), statuses.then(decision, seen.policy)
        ice = seen.primary.journal.frozen
        frozen = ice.told(policy.name) if ice else None
        row = statuses.looked(policy, decision, seen, assembly.clock.now(), assembly.issuers)
        return Planned(row, acts=acts, next=statuses.words(decision), then=then, frozen=frozen)

    planned = watched("planning", [policy for policy in targets if asked_for.wants(policy)], look)
    # An entry that could not be listed may claim what looks like an orphan.
    everything = [] if unseen else managed
    for orphan, _ in orphans.unclaimed(listed, everything, assembly.engine, assembly.clock, began=began):
        if not asked_for.wants(orphan.policy):
            continue
        told = f"condemn the orphaned key {show.key(orphan.key.key_id)}: alive at its issuer, claimed by nothing"
        row = next((one.row for one in planned if one.row.name == orphan.policy.name), statuses.declared(orphan.policy))
        planned.append(Planned(row, acts=True, next=told, then="revoke it and show it dead"))
    planned = asked_for.of(planned, lambda one: one.row, assembly.clock.now())
    troubles = [*unseen, *listed.troubles]
    for trouble in troubles:
        show.complain(f"{trouble}. What a sweep would do about that is not known.")
    if json:
        show.as_json([one.as_json() for one in planned])
    else:
        _tell(planned)
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in planned:
        if fields := differing.get(one.row.name):
            alike.setdefault(fields, []).append(one.row.name)
    for fields, those in alike.items():
        show.unapplied(drawing.several(list(dict.fromkeys(those))), fields, context.path.name)
    raise typer.Exit(FAILED if troubles or any(one.error for one in planned) else DONE)


def _tell(planned: Sequence[Planned]) -> None:
    """A sentence for each that acts, and for the others while they are few."""
    idle = [one for one in planned if not (one.acts or one.error or one.frozen)]
    shown = [one for one in planned if one.acts or one.error or one.frozen] if len(idle) >= show.MANY else planned
    width = show.name_width(one.row.name for one in shown)
    for one in shown:
        mark, style = ("→", "cyan") if one.acts else ("!", "yellow") if one.error else ("·", "")
        more = [f"then {one.then}"] if one.then else []
        if one.frozen and one.frozen not in one.next:
            more.append(one.frozen)
        show.entry(mark, one.row.name, one.error or one.next, style, width=width, more=more)
    if len(idle) >= show.MANY:
        coming = min((one.row.due_at for one in idle if one.row.due_at), default=None)
        first = f"; the next is due at {coming:%Y-%m-%d %H:%M}Z" if coming else ""
        show.say(f"· {len(idle):,} others have nothing to do now{first}")
    show.say(f"{sum(one.acts for one in planned):,} of {len(planned):,} would change now.")
