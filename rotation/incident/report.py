"""How one secret's emergency went, in the times that count: to contain, to replace, to prove; and what that exits with."""

from __future__ import annotations

from dataclasses import dataclass

from rotation.engine import Outcome
from rotation.incident.record import Incident, SecretRecord


@dataclass(frozen=True, slots=True)
class Report:
    """Times are seconds from the start of the incident; None: not so yet."""

    incident: str
    """Its id."""
    name: str
    contained: float | None
    """Every leaked credential was revoked at the issuer."""
    replaced: float | None
    """Every store of the secret hands out another credential."""
    proven: float | None
    """Every leaked credential was shown refused, or is gone from its issuer's list."""
    reached: bool
    """The entry could be read and marked; otherwise nothing was changed."""
    applied: bool
    """There is such an entry."""
    ours: bool
    """The entry held nothing but credentials that Keyturn may revoke."""
    enforced: bool
    """Its issuer refuses what is revoked. A generated value just leaves the stores."""
    stale: tuple[str, ...]
    """Stores that may still hand out what leaked."""
    trouble: str | None
    rest: str | None
    person: str | None
    """What a person has to do."""

    @property
    def alive(self) -> bool:
        """Whether something lives that should not, or is not shown dead, or could not be looked at."""
        return self.applied and (not self.reached or not self.ours or (self.enforced and self.proven is None))

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.applied and not self.alive and self.replaced is not None

    def as_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "incident": self.incident,
            "name": self.name,
            "contained_seconds": self.contained,
            "replaced_seconds": self.replaced,
            "proven_seconds": self.proven,
            "enforced": self.enforced,
            "alive": self.alive,
            "stale_stores": list(self.stale),
            "error": self.trouble,
            "rest": self.rest,
            "person": self.person,
        }


def report(incident: Incident, secret: SecretRecord, outcome: Outcome | None) -> Report:
    """What the record says of one secret.

    Parameters:
        outcome: of its last run; None where it was not run now, as when it was over before.
    """
    ours = [key for key in secret.keys if key.ours]
    revoked = [key.revoked_at or key.proven_at for key in ours]
    contained = [at for at in revoked if at is not None]
    foreign = any(not key.ours and not key.ended for key in secret.keys)
    reached = secret.condemned_at is not None or (outcome is not None and bool(outcome.records))
    return Report(
        incident=incident.id,
        name=secret.name,
        contained=incident.seconds(max(contained)) if secret.enforced and contained == revoked and contained else None,
        replaced=incident.seconds(secret.replaced_at),
        proven=incident.seconds(secret.proven_at) if secret.enforced and not foreign else None,
        reached=reached,
        applied=not secret.missing,
        ours=(bool(ours) and not foreign) or not secret.enforced,
        enforced=secret.enforced,
        stale=tuple(secret.stale),
        trouble=secret.trouble,
        rest=secret.rest,
        person=secret.person if secret.replaced_at is None or foreign else None,
    )
