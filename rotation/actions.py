"""What can be decided: an Action, which is one effect, or a Rest, which says why there is none now.

The engine carries actions out and a run ends at a rest; neither knows the rules that yielded it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rotation.journal import Attempt, Why
from rotation.model import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One effect. `reason` is for people: it stands in the plan and in the audit trail."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intend(Action):
    """Write down that a new version is about to be made, before anything is done for it."""

    why: Why
    base: str | None
    of: str | None = None
    slot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint(Action):
    """Create a key at the issuer and stage it, in one breath: its value lives only in memory."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Restage(Action):
    """Stage the value of a key that a store holds already, under a new attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Action):
    """Stage the primary's version in a replica."""

    store: str
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare(Action):
    """Read a replica's staged copy back and hold it against the primary's value."""

    store: str
    version: Version
    copy: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify(Action):
    """Read the pending value back and show it to the issuer, alone."""

    attempt: Attempt
    pending: Version
    against: Version | None = None
    """Set where the value is current already: it must be the same, and the issuer has nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke(Action):
    """Send one minimal real request with the new credential."""

    attempt: Attempt
    pending: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify(Action):
    """Hold a current value that carries no token against the values of our own keys."""

    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class TellApart(Action):
    """Hold the value of a key that is to go against every current value whose key is not known."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Action):
    """Give a current value that somebody else put there a token of its own, so that replicas can follow it."""

    version: Version
    dead: bool = False
    """The issuer refuses it: condemned at once, and replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyCurrent(Action):
    """Show a current value that the journal does not explain to the issuer."""

    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Action):
    """Look again before anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote(Action):
    """Make a staged version current, provided that `expected` still is."""

    store: str
    version: Version
    expected: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard(Action):
    """Take a version out of the role of pending."""

    store: str
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Action):
    """Write observed facts into the journal."""

    facts: dict[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemn(Action):
    """Mark a key as one that is to die. Final; revoking needs another look afterwards."""

    key: str
    why: Why
    facts: dict[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKeys(Action):
    """Ask the issuer for its list, to find a key whose mint was not answered or recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskLastUse(Action):
    """Ask the issuer when a draining key was last used."""

    key: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Action):
    """Invalidate a key at the issuer."""

    key: str
    key_id: str
    contained: bool = False
    """True: stores still hand it out; a declared outage in an emergency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prove(Action):
    """Show the revoked credential to the issuer and expect a refusal."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget(Action):
    """Remove what the journal knows of a key that is proven dead, or was never minted."""

    key: str
    proof: str
    """How it is known: `refused`, `absent` from the issuer's list, `unenforced`, `never-minted`, `unheld`, `void`,
    `foreign`: not ours to judge."""
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Action):
    """Have the store's own service start the rotation, which comes back to us in steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Nothing to do now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Rest):
    """Time will tell. A later sweep goes on; a patient run may stay."""

    until: datetime
    soon: bool = False
    """A change is on its way: seconds, and worth staying for."""
    look: bool = False
    """The change is one in a store: look again after the wait."""


class Cause(StrEnum):
    """What has to change before a hold ends; for whoever counts holds. The reason says it to people."""

    PERSON = "person"
    """A person is to create or revoke a credential by hand."""
    UNVERIFIED = "unverified"
    """The issuer does not say that a credential works."""
    STORE = "store"
    """A store can not be asked, or was changed outside Keyturn."""
    IN_USE = "in-use"
    """An old credential is used on and on, or nobody can tell."""
    LIMIT = "limit"
    """The issuer is full."""
    UNPROVEN = "unproven"
    """A revoked credential is not refused."""
    FAILED = "failed"
    """A call was refused."""
    SCHEDULE = "schedule"
    """A blackout, or a window that stays shut, lasts longer than the age that is allowed."""
    FROZEN = "frozen"
    """An incident's freeze lasts longer than the age that is allowed."""
    IMPOSSIBLE = "impossible"
    """What was asked for can not be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Rest):
    """Only a change outside can help, so people are told."""

    cause: Cause
    unproven: bool = False
    """A credential that should be dead is alive or not shown dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Rest):
    """All is as declared."""

    due_at: datetime | None
    due_why: str = ""
    """Why it is due then, where that is not its age."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached(Rest):
    """A step of the service's rotation is done: as far as it was to go."""


Decision = Action | Rest


def signature(action: Action) -> str:
    """Tells apart what was tried in one run: the same action on the same key and store."""
    about = (getattr(action, name, None) for name in ("key", "store", "attempt", "version"))
    named = [
        part.token if isinstance(part, Attempt) else part.id if isinstance(part, Version) else part for part in about
    ]
    if isinstance(action, Note | Forget):
        named += sorted(action.facts)
    return " ".join([type(action).__name__, *(str(part) for part in named if part)])


def most_pressing(rests: list[Rest]) -> Rest | None:
    """What is worth staying for, then a credential that is not shown dead, then any hold, then the earliest wait."""

    def rank(rest: Rest) -> tuple[int, float]:
        match rest:
            case Wait(soon=True):
                return 0, rest.until.timestamp()
            case Hold():
                return (1 if rest.unproven else 2), 0
            case Wait():
                return 3, rest.until.timestamp()
        return 4, 0

    return min(rests, key=rank, default=None)
