"""The command `keyturn plan`: what a sweep would do now, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import typer

from rotation import actions, orphans
from rotation import status as statuses
from rotation.cli import show
from rotation.cli.context import File, Json, Names, Stack, open_context
from rotation.cli.ending import DONE, FAILED
from rotation.cli.progress import watched
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.situation import Order

NOT_APPLIED: Final = "not applied yet; `pulumi up` makes it"


def plan(names: Names = None, stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Show what a sweep would do now, and why. Changes nothing.

    Example: keyturn plan --stack prod
    """
    context = open_context(stack, config)
    assembly, targets = (
        context.assembly,
        {policy: context.assembly.target(policy) for policy in context.declared(names)},
    )
    managed, unseen = ([], []) if names else context.managed()
    targets |= {policy: target for target, policy in managed if target not in targets.values()}
    listed = orphans.listings(assembly.issuers, (policy.issuer for policy in targets), assembly.clock)

    differing: dict[str, tuple[str, ...]] = {}

    def look(policy: Policy) -> Planned:
        order = Order(listed=listed.ids(policy.issuer), listed_at=listed.at)
        try:
            decision, seen = assembly.engine.plan(targets[policy], order)
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND:
                return Planned(policy.name, acts=False, next=NOT_APPLIED)
            return Planned(policy.name, acts=False, next="cannot tell", error=str(trouble))
        differing[policy.name] = context.unapplied(seen.policy)
        acts, then = isinstance(decision, actions.Action), statuses.then(decision, seen.policy)
        ice = seen.primary.journal.frozen
        told = ice.told(policy.name) if ice else None
        return Planned(policy.name, acts=acts, next=statuses.words(decision), then=then, frozen=told)

    rows = watched("planning", [*targets], look)
    # An entry that could not be listed may claim what looks like an orphan.
    for orphan, _ in orphans.unclaimed(listed, [] if unseen else managed, assembly.engine, assembly.clock):
        told = f"condemn the orphaned key {show.key(orphan.key.key_id)}: alive at its issuer, claimed by nothing"
        rows.append(Planned(orphan.policy.name, acts=True, next=told, then="revoke it and show it dead"))
    troubles = [*unseen, *listed.troubles]
    for trouble in troubles:
        show.complain(f"{trouble}. What a sweep would do about that is not known.")
    if json:
        show.as_json([asdict(row) for row in rows])
    else:
        for row in rows:
            row.show()
        show.say(f"{sum(row.acts for row in rows)} of {len(rows)} would change now.")
    for name, unapplied in differing.items():
        show.unapplied(name, unapplied, context.path.name)
    raise typer.Exit(FAILED if troubles or any(row.error for row in rows) else DONE)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a sweep would do about one secret."""

    name: str
    acts: bool
    next: str
    then: str | None = None
    error: str | None = None
    frozen: str | None = None
    """By which incident, since when, and what takes it off."""

    def show(self) -> None:
        mark, style = ("→", "cyan") if self.acts else ("·", "")
        show.say(f"{mark} {self.name}: {self.error or self.next}", "yellow" if self.error else style)
        if self.then:
            show.say(f"    then {self.then}")
        if self.frozen and self.frozen not in self.next:
            show.say(f"    {self.frozen}")
