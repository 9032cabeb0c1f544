"""One sweep, whatever hosts it: find everything of ours, take up what nothing claims, run each secret.

    begun = sweep.begin(assembly)            looks: entries, issuers' lists, orphans; says what it could not see
    for policy, outcome in begun.run_all():  acts: each secret by the ordinary run, side by side, as they finish
        sweep.ended(outcome)

Secrets of which a listing tells that there is nothing to do cost no call of their own (rotation.survey).

    sweep.sweep(assembly)                    both, told in the log: all that a function or a scheduler needs

Made to be repeated: a sweep that was cut off, or that meets another one, leaves nothing that the next does
not put right. A host adds how it is started and how it tells; see the command `sweep`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rotation import fleet, orphans
from rotation.assembly import Assembly
from rotation.declared import Config
from rotation.engine import Outcome, Target
from rotation.errors import Trouble
from rotation.model import Policy
from rotation.notify import runs, uses
from rotation.provision import diff
from rotation.status import words
from rotation.survey import Quiet, Secrets, Survey, announced
from rotation.telemetry import sweeping

_log = logging.getLogger(__name__)


class Ended(StrEnum):
    """What a run came to, for whoever decides whether to call somebody."""

    DONE = "done"
    """As far as it goes now; what is left has its time."""
    FAILED = "failed"
    """A call failed, or what was asked for is not so. The next sweep goes on by itself."""
    UNPROVEN = "unproven"
    """A credential that should be dead is alive, or not shown dead."""


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A sweep that has looked round and not run anything yet."""

    assembly: Assembly
    due: Secrets
    """Every secret that has to be run, by its applied policy, declared or not."""
    quiet: int
    """How many others there are, which have nothing to do."""
    kept: Mapping[Target, Quiet]
    """Of these, some for reports, where nobody else took them."""
    survey: Survey
    adopted: tuple[orphans.Orphan, ...]
    """Live keys that nothing claimed: condemned by now, and killed by the run of their secret."""
    troubles: tuple[Trouble, ...]
    """What could not be looked at or taken up. It is left alone, and orphans with it; all else goes on."""
    missing: tuple[str, ...]
    """Names that are declared and in no store that answered: `pulumi up` makes them."""

    @property
    def secrets(self) -> Sequence[tuple[Target, Policy]]:
        """What has to be run, and of what has nothing to do as much as is kept."""
        return (*self.due, *((quiet.target, quiet.policy) for quiet in self.kept.values())) if self.kept else self.due

    @property
    def total(self) -> int:
        """How many secrets there are."""
        return len(self.due) + self.quiet

    def run(self, target: Target, policy: Policy) -> Outcome:
        """Takes one secret as far as it goes now. Never raises Trouble."""
        if (quiet := self.kept.get(target)) is not None and quiet.outcome is not None:
            return quiet.outcome
        assembly, order = self.assembly, self.survey.ledger.order(policy.issuer)
        outcome = runs.running(assembly, "sweep", policy, lambda: assembly.engine.run(target, order))
        self._remember(target, policy, outcome)
        return outcome

    def run_all(self) -> Iterator[tuple[Policy, Outcome]]:
        """Runs every secret and yields each as it finishes."""
        for (_, policy), outcome in fleet.each(self.secrets, lambda pair: self.run(*pair), fleet.MANY):
            yield policy, outcome

    def _remember(self, target: Target, policy: Policy, outcome: Outcome) -> None:
        """For the next sweep of this process; not where orphans could not be looked for, or a list would not tell enough."""
        assembly, seen = self.assembly, outcome.seen
        mark = self.survey.mark(target, policy) if not self.troubles else 0
        if mark and seen is not None:
            named = assembly.issuers[policy.issuer].capabilities.names_keys and not seen.primary.journal.adopted
            if named:
                assembly.memory.note(target, mark, outcome, assembly.clock.now(), announced(assembly, policy))


KEPT: Final = 2_000
"""Secrets with nothing to do that are kept for reports: more are counted, so that a sweep needs the same room for all."""


def begin(assembly: Assembly, file: str = "the stack file", quiet: Callable[[Quiet], None] | None = None) -> Begun:
    """Looks at all entries and issuers' lists, and hands orphans to their secret's journal.

    Parameters:
        assembly: engine, stores and issuers.
        file: what messages call the configuration.
        quiet: is told of each secret that has nothing to do, while the listings go on; without it some are kept.

    Raises:
        ConfigError: a login that a secret needs is not set; nothing was changed.
    """
    kept: dict[Target, Quiet] = {}
    count = 0

    def pass_over(one: Quiet) -> None:
        nonlocal count
        count += 1
        if one.outcome is not None:
            runs.told(assembly, one.policy, one.outcome)
        if quiet is not None:
            quiet(one)
        elif one.outcome is not None and len(kept) < KEPT:
            kept[one.target] = one

    assembly.memory.sweep(assembly.clock.now())
    survey = Survey(assembly, file, pass_over, lambda policy: opened(assembly, [policy]))
    survey.look()
    troubles = [*survey.troubles, *survey.ledger.troubles]
    adopted: list[orphans.Orphan] = []
    for orphan, seen in survey.orphans():
        born = orphan.key.created_at or assembly.clock.now()
        try:
            assembly.engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, born)
            adopted.append(orphan)
        except Trouble as caught:
            troubles.append(caught)
    due = survey.due([orphan.target for orphan in adopted])
    kept = {target: one for target, one in kept.items() if target not in {orphan.target for orphan in adopted}}
    return Begun(assembly, due, count, kept, survey, tuple(adopted), tuple(troubles), tuple(survey.missing))


def opened(assembly: Assembly, policies: Iterable[Policy]) -> None:
    """Makes the clients of these secrets' stores and issuers, so that a login that is not set stops all or nothing.

    Raises:
        ConfigError: one of them can not be made, or an issuer's admin credential is not there.
    """
    for policy in policies:
        for store in policy.stores:
            assembly.stores.get(store)
        if assembly.issuers.get(policy.issuer) is not None:
            assembly.ready(policy.issuer)


def ended(outcome: Outcome) -> Ended:
    """What a run came to. A failed call does not count where what was asked for is so all the same."""
    if outcome.seen is not None and outcome.unproven:
        return Ended.UNPROVEN
    failed = outcome.achieved is False or (outcome.trouble is not None and not outcome.achieved)
    return Ended.FAILED if failed else Ended.DONE


def unapplied(config: Config, applied: Policy) -> tuple[str, ...]:
    """The fields, as the stack file names them, in which it declares a secret differently from what is applied.

    Nothing acts on a policy that is not applied; whoever has just edited the file may think so.
    """
    declared = _by_name(config).get(applied.name, applied)
    return tuple(_in_file(field) for field in diff(applied, declared).changes if field not in _OF_STACK)


def _by_name(config: Config) -> Mapping[str, Policy]:
    """What is declared. Of the last configuration that was asked for: a fleet's has a hundred thousand."""
    if not _declared or _declared[0][0] is not config.policies:
        _declared[:] = [(config.policies, {policy.name: policy for policy in config.policies})]
    return _declared[0][1]


_declared: Final[list[tuple[tuple[Policy, ...], Mapping[str, Policy]]]] = []

_OF_STACK: Final = ("installation", "environment")
"""What the stack says for all of its secrets."""
_CALLED: Final = {"form": "format", "native": "rotation (of its store)"}
"""Fields of a policy that the file calls otherwise than their names say."""


def _in_file(field: str) -> str:
    first, *others = field.split("_")
    return _CALLED.get(field) or first + "".join(word.capitalize() for word in others)


def sweep(assembly: Assembly, file: str = "the stack file") -> Ended:
    """A sweep from end to end, told in the log as it goes, and to the assembly's watcher.

    Returns:
        The worst that it came to. FAILED also where something could not be looked at.

    Raises:
        ConfigError: see begin().
    """
    with sweeping(assembly.telemetry, assembly.clock, assembly.config.environment) as watched:
        begun = begin(assembly, file, lambda quiet: _tell_unapplied(assembly, quiet.policy))
        watched.secrets = begun.total
        tell_begun(begun)
        if begun.quiet:
            _log.info("%d of %d secrets have nothing to do", begun.quiet, begun.total)
        worst = Ended.FAILED if begun.troubles else Ended.DONE
        for policy, outcome in begun.run_all():
            tell(assembly, policy, outcome)
            worst = max(worst, ended(outcome), key=[*Ended].index)
        watched.result = "done" if worst is Ended.DONE else "failed"
    uses.watched(assembly)
    runs.flush(assembly)  # whoever sweeps so may be frozen, or end, as soon as this returns
    return worst


def tell_begun(begun: Begun) -> None:
    """Lines in the log about what a sweep found when it looked round."""
    for trouble in begun.troubles:
        _log.warning("%s; left alone, and orphans with it; the next sweep looks again", trouble)
    for orphan in begun.adopted:
        _log.warning("%s: orphaned key %s found; condemned", orphan.policy.name, orphan.key.key_id)
    if begun.missing:
        _log.warning("not applied yet: %s", ", ".join(begun.missing))


def tell(assembly: Assembly, policy: Policy, outcome: Outcome) -> None:
    """One line in the log about a run that has ended."""
    fields = account(policy, outcome)
    told = [*(str(part) for part in (fields["error"], fields["rest"]) if part)]
    level = logging.INFO if fields["ended"] == Ended.DONE.value else logging.ERROR
    _log.log(level, "%s: %s", policy.name, "; ".join(told) or "done", extra={"fields": fields})
    if outcome.seen:
        _tell_unapplied(assembly, outcome.seen.policy)


def _tell_unapplied(assembly: Assembly, applied: Policy) -> None:
    if differing := unapplied(assembly.config, applied):
        _log.warning("%s: %s differ from what is applied, which counts", applied.name, ", ".join(differing))


TOLD: Final = {
    "start": "begun by its store's service",
    "mint.done": "minted",
    "promote.done": "promoted",
    "freeze": "frozen",
    "condemn": "condemned",
    "contain": "contained",
    "revoke.done": "revoked",
    "proven": "shown dead",
    "closed": "closed",
    "discard": "discarded",
    "thaw": "thawed",
}
"""The records of a run that people are told of, and the word for each."""


def account(policy: Policy, outcome: Outcome) -> dict[str, object]:
    """A run in one flat line for a log: ids, words and times, never a value."""
    did = [
        " ".join(part for part in (TOLD[record.event], record.key_id, record.store and f"in {record.store}") if part)
        for record in outcome.records
        if record.event in TOLD
    ]
    return {
        "secret": policy.name,
        "ended": ended(outcome).value,
        "did": did,
        "rest": words(outcome.rest) if outcome.rest else None,
        "error": str(outcome.trouble) if outcome.trouble else None,
    }
