"""One sweep, whatever hosts it: find everything of ours, take up what nothing claims, run each secret.

    begun = sweep.begin(assembly)            looks: entries, issuers' lists, orphans; says what it could not see
    for policy, outcome in begun.run_all():  acts: each secret by the ordinary run, side by side, as they finish
        sweep.ended(outcome)

    sweep.sweep(assembly)                    both, told in the log: all that a function or a scheduler needs

Made to be repeated: a sweep that was cut off, or that meets another one, leaves nothing that the next does
not put right. A host adds how it is started and how it tells; see the command `sweep`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rotation import fleet, orphans
from rotation.assembly import Assembly
from rotation.declared import Config
from rotation.engine import Outcome, Target
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.notify import runs
from rotation.policy import read as read_policy
from rotation.provision import diff
from rotation.situation import Order
from rotation.status import words
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
    secrets: tuple[tuple[Target, Policy], ...]
    """Every secret that will be run, by its applied policy, declared or not."""
    listed: orphans.Listings
    adopted: tuple[orphans.Orphan, ...]
    """Live keys that nothing claimed: condemned by now, and killed by the run of their secret."""
    troubles: tuple[Trouble, ...]
    """What could not be looked at or taken up. It is left alone, and orphans with it; all else goes on."""
    missing: tuple[str, ...]
    """Names that are declared and in no store that answered: `pulumi up` makes them."""

    def run(self, target: Target, policy: Policy) -> Outcome:
        """Takes one secret as far as it goes now. Never raises Trouble."""
        order = Order(listed=self.listed.ids(policy.issuer), listed_at=self.listed.at)
        assembly = self.assembly
        return runs.running(assembly, "sweep", policy, lambda: assembly.engine.run(target, order))

    def run_all(self) -> Iterator[tuple[Policy, Outcome]]:
        """Runs every secret and yields each as it finishes."""
        for (_, policy), outcome in fleet.each(self.secrets, lambda pair: self.run(*pair)):
            yield policy, outcome


def begin(assembly: Assembly, file: str = "the stack file") -> Begun:
    """Looks at all entries and issuers' lists, and hands orphans to their secret's journal.

    Parameters:
        assembly: engine, stores and issuers.
        file: what messages call the configuration.

    Raises:
        ConfigError: a login that a secret needs is not set; nothing was changed.
    """
    secrets, unseen = managed(assembly, file)
    opened(assembly, (policy for _, policy in secrets))
    listed = orphans.listings(assembly.issuers, (policy.issuer for _, policy in secrets), assembly.clock)
    troubles = [*unseen, *listed.troubles]
    adopted: list[orphans.Orphan] = []
    # An entry that could not be listed may claim what looks like an orphan.
    for orphan, seen in orphans.unclaimed(listed, [] if unseen else secrets, assembly.engine, assembly.clock):
        born = orphan.key.created_at or assembly.clock.now()
        try:
            assembly.engine.adopt_orphan(orphan.target, seen, orphan.token, orphan.key.key_id, born)
            adopted.append(orphan)
        except Trouble as caught:
            troubles.append(caught)
    silent, there = {trouble.service for trouble in unseen}, {policy.name for _, policy in secrets}
    declared = (policy for policy in assembly.config.policies if policy.store not in silent)
    missing = tuple(policy.name for policy in declared if policy.name not in there)
    return Begun(assembly, tuple(secrets), listed, tuple(adopted), tuple(troubles), missing)


def managed(assembly: Assembly, file: str = "the stack file") -> tuple[list[tuple[Target, Policy]], list[Trouble]]:
    """Every secret of this installation and environment that a store has, declared or not.

    Returns:
        The secrets, and what stood in the way of finding others: a store that does not answer, an
        entry that can not be read. Neither holds up the rest.
    """
    config = assembly.config
    ours = {"installation": config.installation, "environment": config.environment}
    found: dict[Target, Policy] = {}
    troubles: list[Trouble] = []
    for name in assembly.stores:
        try:
            for listed in assembly.stores[name].listing():
                if any(listed.policy.get(key) != value for key, value in ours.items()):
                    continue
                try:
                    policy = read_policy(listed.policy)
                except ValueError as error:
                    told = f"{listed.name}: {error}; apply the stack again"
                    troubles.append(Trouble(Code.INVALID, name, told))
                    continue
                if policy.store != name:
                    continue
                if policy.issuer not in config.issuers:
                    told = f"{listed.name}: is applied with the issuer {policy.issuer}, which {file} lacks"
                    troubles.append(Trouble(Code.INVALID, name, told))
                    continue
                found.setdefault(Target(name, listed.name), policy)
        except Trouble as trouble:
            troubles.append(trouble)
    return list(found.items()), troubles


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
    declared = next((policy for policy in config.policies if policy.name == applied.name), applied)
    return tuple(_in_file(field) for field in diff(applied, declared).changes if field not in _OF_STACK)


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
        begun = begin(assembly, file)
        watched.secrets = len(begun.secrets)
        tell_begun(begun)
        worst = Ended.FAILED if begun.troubles else Ended.DONE
        for policy, outcome in begun.run_all():
            tell(assembly, policy, outcome)
            worst = max(worst, ended(outcome), key=[*Ended].index)
        watched.result = "done" if worst is Ended.DONE else "failed"
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
    if outcome.seen and (differing := unapplied(assembly.config, outcome.seen.policy)):
        _log.warning("%s: %s differ from what is applied, which counts", policy.name, ", ".join(differing))


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
