"""What a stack declares, once it is read and checked, and what to say where it is wrong. The standard library only.

`rotation.config` makes it from a stack file. A rotation function gets it ready-made (`rotation.packed`): what checks
a file is most of what loading it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rotation import names
from rotation.model import Policy

if TYPE_CHECKING:
    from rotation.sections import (
        AuditPlace,
        Channel,
        EntryReference,
        EnvReference,
        FileReference,
        IntakeSection,
        IssuerConfig,
        NoticeSection,
        OnRotate,
        Owner,
        StoreConfig,
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, in words for the person who edits the file. Never holds a value."""

    path: str
    """The field, as in `keyturn:secrets[1].grace`."""
    message: str
    allowed: str = ""
    place: str = ""
    """File and line, where they are known."""

    def __str__(self) -> str:
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        place = f" [{self.place}]" if self.place else ""
        return f"{self.path}: {self.message}{allowed}{place}"


class ConfigError(Exception):
    """All that is wrong with a configuration, one line each. Commands end with exit code 2."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: Final = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


@dataclass(frozen=True, slots=True)
class Handling:
    """What is declared of a secret for whoever applies it; no store keeps it."""

    adopt: bool = False
    """An entry that is there already is taken under management, with its value as it is."""
    adopt_key_id: str | None = None
    """The issuer's id of that value; without it Keyturn never revokes it."""
    force_revoke: bool = False
    """Deleting it revokes its keys although they are in use, or may be."""


@dataclass(frozen=True, slots=True)
class Config:
    """What is declared for one stack, checked."""

    installation: str
    environment: str
    stores: Mapping[str, StoreConfig]
    issuers: Mapping[str, IssuerConfig]
    owners: Mapping[str, Owner]
    policies: tuple[Policy, ...]
    handling: Mapping[str, Handling] = field(default_factory=dict)
    """By name of the secret; of every secret."""
    root: Path = field(default_factory=Path)
    """Where relative paths start: the folder of the file."""
    descriptions: Mapping[str, Any] = field(default_factory=dict)
    """Vendors by kind, where they come ready-made; the others are read when they are opened."""
    channels: Mapping[str, Channel] = field(default_factory=dict)
    """Where owners are told."""
    notices: Mapping[str, NoticeSection] = field(default_factory=dict)
    """Own words for notices, by kind."""
    on_rotate: Mapping[str, Mapping[str, OnRotate]] = field(default_factory=dict)
    """By secret and consumer: what makes the consumer read a new value. No store keeps it."""
    audit: tuple[AuditPlace, ...] = ()
    """Where the audit trail is kept; the host's own place when empty."""

    fingerprints: EnvReference | EntryReference | FileReference | None = None
    """Where the key of fingerprints is; None: no value is fingerprinted."""

    webhook: IntakeSection | None = None
    """How GitHub's alerts are taken in; None: they are not."""

    @property
    def bootstrap(self) -> Literal["apply", "function"]:
        """Who mints first credentials. In production what sweeps does: whoever applies holds no issuer's credential."""
        return "function" if self.environment == "prod" else "apply"


def entry_name(store: StoreConfig, environment: str, name: str) -> str:
    """What the entry of a secret is called in a store. Vault's prefix is no part of it: the store adds that."""
    match store.kind:
        case "aws-secrets-manager":
            return store.prefix + names.slashed(environment, name)
        case "azure-key-vault":
            return names.dashed(environment, name)
        case "hashicorp-vault":
            return names.slashed(environment, name)
