"""Gathers what a report is made from: one listing of each store, one reading of the trail, and files. Asks for no value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rotation.assembly import Assembly
from rotation.audit.trail import Place
from rotation.audit.verify import entries
from rotation.errors import Trouble
from rotation.incident.evidence import Evidence
from rotation.incident.record import Incident
from rotation.policy import read as read_policy
from rotation.report.facts import Facts, Known, Line


def gather(
    assembly: Assembly,
    places: Sequence[Place],
    incidents: Iterable[Incident],
    drills: Iterable[Evidence],
    *,
    stack: str,
    only: Iterable[str] = (),
) -> Facts:
    """Looks at every store of the stack once. The trail is read when the facts are used.

    Parameters:
        assembly: its stores are listed; issuers are not asked.
        places: where the trail is read; none where it can not be.
        stack: the stack file's name.
        only: names to report on; all when there are none.
    """
    config = assembly.config
    ours = {"installation": config.installation, "environment": config.environment}
    secrets: dict[str, Known] = {}
    silent: set[str] = set()
    troubles: list[str] = []
    for store in assembly.stores:
        try:
            for listed in assembly.stores[store].listing():
                if any(listed.policy.get(key) != value for key, value in ours.items()):
                    continue
                try:
                    policy = read_policy(listed.policy)
                except ValueError as error:
                    silent.add(store)
                    troubles.append(f"{store}: {listed.name}: {error}; apply the stack again")
                    continue
                if policy.store == store:  # a replica's entry tells nothing that the primary's does not
                    secrets.setdefault(policy.name, Known(listed.name, policy, listed.facts))
        except Trouble as trouble:
            silent.add(store)
            troubles.append(str(trouble))
    if not places:
        troubles.append(
            "The audit trail goes where it can not be read back from here; save its lines and give --file. Without "
            "them, only what the stores still know is told"
        )
    return Facts(
        installation=config.installation,
        environment=config.environment,
        stack=stack,
        at=assembly.clock.now(),
        secrets=list(secrets.values()),
        declared=config.policies,
        silent=frozenset(silent),
        troubles=troubles,
        trail=", ".join(place.name for place in places),
        lines=_lines(places),
        incidents=list(incidents),
        drills=list(drills),
        only=frozenset(only),
    )


def _lines(places: Sequence[Place]) -> Iterator[Line]:
    for place in places:
        for entry in entries(place.read()):
            yield entry.line
