"""What an engine reaches out to, and where in it a secret is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotation.errors import Code, Trouble
from rotation.model import Credential
from rotation.ports import Auditor, Clock, Issuer, SecretStore
from rotation.situation import Evidence, Observation, Order, Situation


@dataclass(frozen=True, slots=True)
class Target:
    """Where one secret is: its primary store and its entry's name there."""

    store: str
    entry: str


@dataclass(frozen=True, slots=True)
class Places:
    """How names of secrets map to entries. Comes from configuration; holds no policy."""

    entry_name: Callable[[str, str, str], str]
    """(store, environment, secret) to the entry's name in that store."""
    locate: Callable[[str, str], Target | None]
    """(environment, secret) to its primary entry, or None when nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Stores, issuers and the rest; see Engine, which is given them."""

    stores: Mapping[str, SecretStore]
    issuers: Mapping[str, Issuer]
    places: Places
    clock: Clock
    auditor: Auditor
    tokens: Callable[[], str]
    stopping: Callable[[], bool] | None
    ahead: Callable[[str], timedelta] | None
    prints: Callable[[Credential, str | None], tuple[str, ...]] | None = None

    def issuer(self, seen: Observation) -> Issuer:
        """The issuer of a secret.

        Raises:
            Trouble: the applied policy names one that is not configured.
        """
        name = seen.policy.issuer
        if name not in self.issuers:
            told = f"{seen.primary.name} is applied with the issuer {name}, which is not configured any more"
            raise Trouble(Code.INVALID, seen.primary.store, told)
        return self.issuers[name]

    def now(self, seen: Observation) -> datetime:
        """The time by the primary's clock, which every runner shares."""
        return self.clock.now() - seen.ahead

    def situation(self, seen: Observation, evidence: Evidence | None = None, order: Order | None = None) -> Situation:
        """What a look means now, to a run that knows and was asked for this much."""
        return Situation(seen, evidence or Evidence(), self.issuer(seen).capabilities, order or Order(), self.now(seen))
