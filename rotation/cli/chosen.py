"""Which secrets `status` and `plan` show, and in which order: the options that both have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import typer

from rotation.cli import completion
from rotation.cli.context import Context, UsageFault, absent
from rotation.model import Policy
from rotation.status import Phase, Row

T = TypeVar("T")


class Sort(StrEnum):
    """What rows are ordered by; where it is the same, or not known, as in the stack's file."""

    DUE = "due"
    """What is due first, first."""
    AGE = "age"
    """The oldest credential first."""
    NAME = "name"
    OWNER = "owner"


def hyphened(phase: str) -> str:
    """A phase as it is typed: `not-applied`, `revoked-unproven`."""
    return phase.replace(",", "").replace(" ", "-")


_LAST: Final = datetime.max.replace(tzinfo=UTC)
"""Sorts after all that have a time."""

Many = list[str] | None
Owners = Annotated[
    Many,
    typer.Option(
        "--owner", metavar="NAME", help="Only those of this owner.", autocompletion=completion.keys_of("owners")
    ),
]
Issuers = Annotated[
    Many,
    typer.Option(
        "--issuer",
        metavar="NAME",
        help="Only those minted by this issuer.",
        autocompletion=completion.keys_of("issuers"),
    ),
]
Stores = Annotated[
    Many,
    typer.Option(
        "--store",
        metavar="NAME",
        help="Only those kept in this store, or copied to it.",
        autocompletion=completion.keys_of("stores"),
    ),
]
Environments = Annotated[
    Many,
    typer.Option(
        "--environment", metavar="NAME", help="Only those of this environment.", autocompletion=completion.environments
    ),
]
Phases = Annotated[
    Many,
    typer.Option(
        "--phase",
        metavar="PHASE",
        help=f"Only those that stand so: {', '.join(map(hyphened, Phase))}.",
        autocompletion=completion.words([hyphened(phase) for phase in Phase]),
    ),
]
Overdue = Annotated[bool, typer.Option("--overdue", help="Only those whose credential is older than is allowed.")]
Sorted = Annotated[
    Sort | None,
    typer.Option("--sort", metavar="BY", help="By due, age, name or owner, instead of as in the stack's file."),
]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. Values of one option are alternatives; several options narrow each other."""

    owners: Collection[str]
    issuers: Collection[str]
    stores: Collection[str]
    environments: Collection[str]
    phases: Collection[str]
    overdue: bool
    sort: Sort | None

    def wants(self, policy: Policy) -> bool:
        """Whether a secret is to be looked at, by what it is declared as: no call is made for the others."""
        return (
            (not self.owners or policy.owner in self.owners)
            and (not self.issuers or policy.issuer in self.issuers)
            and (not self.stores or any(store in self.stores for store in policy.stores))
            and (not self.environments or policy.environment in self.environments)
        )

    def of(self, items: Iterable[T], row: Callable[[T], Row], now: datetime) -> list[T]:
        """Those of the items whose rows are asked for, in the order that is asked for."""
        kept = [item for item in items if self._shows(row(item), now)]
        match self.sort:
            case Sort.DUE:
                kept.sort(key=lambda item: row(item).due_at or _LAST)
            case Sort.AGE:
                kept.sort(key=lambda item: row(item).rotated_at or _LAST)
            case Sort.NAME:
                kept.sort(key=lambda item: row(item).name)
            case Sort.OWNER:
                kept.sort(key=lambda item: row(item).owner)
            case None:
                pass
        return kept

    def _shows(self, row: Row, now: datetime) -> bool:
        overdue = row.overdue_at is not None and row.overdue_at <= now
        return (not self.phases or hyphened(row.phase) in self.phases) and (overdue or not self.overdue)

    def words(self) -> str:
        """What narrows it, as it was typed; empty when nothing does."""
        options = {
            "owner": self.owners,
            "issuer": self.issuers,
            "store": self.stores,
            "environment": self.environments,
            "phase": self.phases,
        }
        told = [f"--{option} {value}" for option, values in options.items() for value in values]
        return " ".join([*told, *(["--overdue"] if self.overdue else [])])


def choice(
    context: Context,
    *,
    owners: Many,
    issuers: Many,
    stores: Many,
    environments: Many,
    phases: Many,
    overdue: bool,
    sort: Sort | None,
) -> Choice:
    """Raises UsageFault for a name that the stack does not have: an empty list would look like good news."""
    config = context.config
    known: tuple[tuple[str, Sequence[str], Collection[str]], ...] = (
        ("owner", owners or (), config.owners),
        ("issuer", issuers or (), config.issuers),
        ("store", stores or (), config.stores),
        ("environment", environments or (), [config.environment]),
        ("phase", [hyphened(phase) for phase in phases or ()], [hyphened(phase) for phase in Phase]),
    )
    for option, given, there in known:
        for value in given:
            if value not in there:
                raise UsageFault(f"--{option}: {absent(option, value, there)}")
    (_, owned, _), (_, minted, _), (_, kept, _), (_, within, _), (_, standing, _) = known
    return Choice(owned, minted, kept, within, standing, overdue, sort)
