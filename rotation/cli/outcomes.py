"""What runs came to: each secret in a sentence for people, in a row for scripts, and the exit code that it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

import typer

from rotation import actions
from rotation import status as statuses
from rotation import sweep as sweeps
from rotation.cli import rows as drawing
from rotation.cli import show
from rotation.cli.context import Context
from rotation.cli.ending import ALIVE, DONE, FAILED
from rotation.cli.progress import watched
from rotation.engine import Outcome
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.ports import Record
from rotation.sweep import Ended

_WAITS: Final = (
    "The first sweep after that goes on by itself. If the run that began it is dead, "
    "`keyturn rotate` with --take-over does not wait."
)
_CODES: Final = {Ended.DONE: DONE, Ended.FAILED: FAILED, Ended.UNPROVEN: ALIVE}


def finish(
    context: Context, policies: Sequence[Policy], doing: str, work: Callable[[Policy], Outcome], *, json: bool
) -> NoReturn:
    """Runs every secret, says how each ended, and exits with what that means."""
    raise typer.Exit(each(context, policies, doing, work, json=json))


def each(
    context: Context,
    policies: Sequence[Policy],
    doing: str,
    work: Callable[[Policy], Outcome],
    *,
    json: bool,
    failed: bool = False,
) -> int:
    """Runs every secret, says how each ended, and gives the exit code that means.

    Parameters:
        failed: whether something went wrong before.
    """
    context.open(policies)
    clock = context.assembly.clock
    began = clock.monotonic()
    outcomes = watched(doing, policies, work)
    took = clock.monotonic() - began
    pairs = list(zip(policies, outcomes, strict=True))
    if json:
        show.as_json([_as_json(policy, outcome) for policy, outcome in pairs])
    else:
        _tell_all(pairs)
    differing: dict[tuple[str, ...], list[str]] = {}
    for policy, outcome in pairs:
        if outcome.seen and (fields := context.unapplied(outcome.seen.policy)):
            differing.setdefault(fields, []).append(policy.name)
    for fields, names in differing.items():
        show.unapplied(drawing.several(names), fields, context.path.name)
    if not json and len(pairs) > 1 and show.on_terminal(show.out):
        show.say(_summary(outcomes, took))
    return max(FAILED if failed else DONE, *(_CODES[sweeps.ended(outcome)] for outcome in outcomes), DONE)


def _as_json(policy: Policy, outcome: Outcome) -> dict[str, object]:
    return {
        "name": policy.name,
        "done": outcome.achieved is not False and outcome.trouble is None,
        "did": _done(outcome),
        "rest": statuses.words(outcome.rest) if outcome.rest else None,
        "error": str(outcome.trouble) if outcome.trouble else None,
    }


def _done(outcome: Outcome) -> list[str]:
    return [_did(record) for record in outcome.records if record.event in sweeps.TOLD]


def _did(record: Record) -> str:
    what = show.key(record.key_id) if record.key_id else ""
    where = f" in {record.store}" if record.store and record.event == "promote.done" else ""
    return f"{sweeps.TOLD[record.event]} {what}".strip() + where


def _idle(outcome: Outcome) -> bool:
    """Whether there was nothing to do and there is nothing to say."""
    quiet = outcome.trouble is None and outcome.achieved is not False and not isinstance(outcome.rest, actions.Hold)
    return quiet and not _done(outcome)


def _tell_all(pairs: Sequence[tuple[Policy, Outcome]]) -> None:
    """A sentence for each that something was done with, and for the others while they are few."""
    idle = sum(_idle(outcome) for _, outcome in pairs)
    shown = [pair for pair in pairs if not _idle(pair[1])] if idle >= show.MANY else pairs
    width = show.name_width(policy.name for policy, _ in shown)
    for policy, outcome in shown:
        _tell(policy, outcome, width)
    if idle >= show.MANY:
        show.say(f"· {idle:,} others have nothing to do now")


def _tell(policy: Policy, outcome: Outcome, width: int) -> None:
    did = ", ".join(_done(outcome))
    rest = statuses.words(outcome.rest) if outcome.rest else ""
    told = "; ".join(part for part in (did, rest) if part)
    if outcome.trouble:
        show.complain(f"✗ {policy.name}: {outcome.trouble}")
        show.say(f"    {_left(outcome, did)} {_then(outcome.trouble, outcome)}")
    elif outcome.achieved is False:
        waits = isinstance(outcome.rest, actions.Wait)
        show.entry("✗", policy.name, f"not done; {told}", "yellow", width=width, more=[_WAITS] if waits else [])
    else:
        mark = "!" if isinstance(outcome.rest, actions.Hold) else "✓" if did else "·"
        style = "yellow" if mark == "!" else "green" if did else ""
        show.entry(mark, policy.name, told, style, width=width)


def _left(outcome: Outcome, did: str) -> str:
    """In what state a secret was left."""
    told = f"Done all the same: {did}." if did else "No credential was changed."
    if not did and outcome.trouble and outcome.trouble.maybe_applied:
        told = "Whether the last call had its effect is not known; the next run finds out."
    current = outcome.seen.primary.current if outcome.seen else None
    return f"{told} Handed out is {show.key(current.key_id or current.id)}." if current else told


def _then(trouble: Trouble, outcome: Outcome) -> str:
    """What to do next."""
    if trouble.code is Code.NOT_FOUND and outcome.seen is None:
        return "The secret is not applied; `pulumi up` makes it."
    return "Put that right, then run this again." if trouble.code.permanent else "The next sweep goes on from there."


def _summary(outcomes: Iterable[Outcome], seconds: float) -> str:
    """How it went as a whole: `12 of 5,000 changed, 1 failed, in 34.0 s.`."""
    ended = [(sweeps.ended(outcome), outcome) for outcome in outcomes]
    changed = sum(bool(_done(outcome)) for _, outcome in ended)
    others = [
        f"{count:,} {word}"
        for word, count in (
            ("failed", sum(end is Ended.FAILED for end, _ in ended)),
            ("held", sum(isinstance(outcome.rest, actions.Hold) for _, outcome in ended)),
            ("with a credential alive that should be dead", sum(end is Ended.UNPROVEN for end, _ in ended)),
        )
        if count
    ]
    return f"{', '.join([f'{changed:,} of {len(ended):,} changed', *others])}, in {seconds:.1f} s."
