"""The record of an incident: what leaked, what became of each key and when, whom it hit. Names, ids and times only.

It is also the state from which an interrupted incident goes on. The truth about each key stays in its store's journal:
what the record adds is which keys the incident was about, so that nothing else is condemned when it is resumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from rotation import documents
from rotation.errors import Code, Trouble
from rotation.files import write_private
from rotation.incident.plan import Plan, Step
from rotation.journal import Why
from rotation.logs import masked_json
from rotation.ports import Record

SCHEMA: Final = "keyturn.incident/1"
"""Changes when a field gets another meaning or goes; new fields may come at any time."""

_ID: Final = re.compile(r"\d{4}-\d{2}-\d{2}-\d{4}-[0-9a-f]{4}")


class State(StrEnum):
    """How far one secret is."""

    PLANNED = "planned"
    CONDEMNED = "condemned"
    """Its leaked keys are marked in its journal: whoever looks at it goes on."""
    REPLACED = "replaced"
    """Every store hands out another credential; the leaked one is not shown dead yet."""
    OVER = "over"
    STUCK = "stuck"
    """A person has to do something, or it has to be run again."""


@dataclass(slots=True)
class LeakRecord:
    """One finding of a report."""

    source: str
    rule: str
    where: str
    standing: str
    """What it is: `current`, `previous`, `orphan`, `dead`, `stranger`, …"""
    how: str = ""
    secret: str | None = None
    key_id: str | None = None
    public: bool | None = None
    found_at: datetime | None = None
    alive: bool | None = None
    next_step: str = ""


@dataclass(slots=True)
class KeyRecord:
    """One leaked credential."""

    token: str
    key_id: str | None
    role: str
    since: datetime | None = None
    ours: bool = True
    leaked: bool = False
    """A report has its value: it is condemned even if it has replaced another one just now."""
    condemned_at: datetime | None = None
    contained_at: datetime | None = None
    """Revoked although stores still handed it out."""
    revoked_at: datetime | None = None
    refused_at: datetime | None = None
    """When its issuer first refused it."""
    proven_at: datetime | None = None
    proof: str = ""
    """`refused`, `absent` from its issuer's list; `unenforced`: nobody refuses it; `elsewhere`: another run closed it."""
    request_ids: list[str] = field(default_factory=list)
    """Of the issuer's answers to the checks, as far as it gives any."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do about it."""
        return self.proven_at is not None


@dataclass(slots=True)
class ConsumerRecord:
    """A declared reader, and until when it may use what it has read."""

    name: str
    refresh_within_seconds: float


@dataclass(slots=True)
class Event:
    """One line of the audit trail about a secret."""

    at: datetime
    event: str
    reason: str = ""
    token: str | None = None
    key_id: str | None = None
    store: str | None = None
    verdict: str | None = None
    request_id: str | None = None


@dataclass(slots=True)
class SecretRecord:
    """One secret of an incident."""

    name: str
    owner: str
    store: str
    entry: str
    replicas: list[str]
    issuer: str
    wave: int
    enforced: bool
    contain_after_seconds: float
    consumers: list[ConsumerRecord]
    keys: list[KeyRecord]
    person: str | None = None
    missing: bool = False
    """There is no such entry."""
    state: State = State.PLANNED
    condemned_at: datetime | None = None
    minted_token: str | None = None
    minted_key_id: str | None = None
    promoted_in: list[str] = field(default_factory=list)
    replaced_at: datetime | None = None
    proven_at: datetime | None = None
    """When the last of its keys was shown dead."""
    stale: list[str] = field(default_factory=list)
    """Stores that still hand out what leaked, or can not be asked."""
    trouble: str | None = None
    rest: str | None = None
    """Why it stopped where it did."""
    told: list[str] = field(default_factory=list)
    """Kinds of notices that its owner was sent."""
    events: list[Event] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        """Whether there was a credential that Keyturn may revoke."""
        return any(event.event in ("condemn", "proven") for event in self.events) or any(
            key.condemned_at or key.ended for key in self.keys
        )

    @property
    def alive(self) -> bool:
        """Whether something of it lives that should not, or is not shown dead."""
        if self.missing or self.state is State.OVER:
            return False
        if not self.enforced:
            return self.replaced_at is None
        return not self.keys or any(not key.ended for key in self.keys)

    def key(self, token: str) -> KeyRecord | None:
        return next((key for key in self.keys if key.token == token), None)

    @property
    def last_promoted_at(self) -> datetime | None:
        """When this incident last saw a promotion of it, in whatever store."""
        return next((event.at for event in reversed(self.events) if event.event == "promote.done"), None)

    def heard(self, record: Record) -> None:
        """Takes in one record of the audit trail about this secret."""
        detail = record.detail or {}
        self.events.append(
            Event(
                record.at,
                record.event,
                record.reason,
                record.token,
                record.key_id,
                record.store,
                detail.get("verdict"),
                detail.get("request_id"),
            )
        )
        key = self.key(record.token or "")
        if key is not None and record.key_id:
            key.key_id = record.key_id
        match record.event:
            case "condemn" if key is not None or record.reason == Why.EMERGENCY.value:
                if key is None and record.token:  # a mint that came to nothing is condemned for another reason
                    key = KeyRecord(record.token, record.key_id, "previous")
                    self.keys.append(key)
                if key is not None:
                    key.condemned_at = key.condemned_at or record.at
            case "mint.done":
                self.minted_token, self.minted_key_id, self.promoted_in = record.token, record.key_id, []
            case "promote.done" if record.token == self.minted_token:  # not the leaked one, stored anew
                self.promoted_in = [*dict.fromkeys([*self.promoted_in, record.store or self.store])]
                if set(self.promoted_in) >= {self.store, *self.replicas}:
                    self.replaced_at = record.at
            case "contain" if key is not None:
                key.contained_at = record.at
            case "revoke.done" if key is not None:
                key.revoked_at = key.revoked_at or record.at
            case "prove" if key is not None:
                if detail.get("verdict") == "invalid":
                    key.refused_at = key.refused_at or record.at
                if request_id := detail.get("request_id"):
                    key.request_ids.append(request_id)
            case "closed" if key is not None and detail.get("how") == "foreign":
                key.ours = False  # its maker's: nobody has shown it dead
            case "proven" | "closed" if key is not None:
                key.proven_at = key.proven_at or record.at
                key.proof = detail.get("how", key.proof) or "refused"


@dataclass(slots=True)
class Incident:
    """All of it."""

    id: str
    installation: str
    environment: str
    stack: str
    """The stack file's name."""
    selected: str
    began_at: datetime
    ran_by: list[str]
    contain_first: bool
    keep_frozen: bool
    secrets: list[SecretRecord]
    leaks: list[LeakRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    admin: str | None = None
    """What a person had to do first about a compromised administrative credential."""
    resumed_at: list[datetime] = field(default_factory=list)
    ended_at: datetime | None = None
    """When the last run of it ended; it may be resumed all the same."""
    schema_version: str = SCHEMA

    @property
    def alive(self) -> list[str]:
        """Names of the secrets of which something lives, or is not shown dead."""
        return [secret.name for secret in self.secrets if secret.alive]

    @property
    def over(self) -> bool:
        return all(secret.state is State.OVER for secret in self.secrets)

    def seconds(self, at: datetime | None) -> float | None:
        """Since it began."""
        return None if at is None else round((at - self.began_at).total_seconds(), 3)

    def totals(self) -> dict[str, float | None]:
        """Seconds until the last was contained, replaced and shown dead; None while one is not."""
        acted = [secret for secret in self.secrets if not secret.missing]
        enforced = [key for secret in acted if secret.enforced for key in secret.keys if key.ours]

        def last(times: list[datetime | None]) -> float | None:
            known = [at for at in times if at is not None]
            return self.seconds(max(known)) if known and len(known) == len(times) else None

        return {
            "contained_seconds": last([key.revoked_at or key.proven_at for key in enforced]),
            "replaced_seconds": last([secret.replaced_at for secret in acted]),
            "proven_seconds": last([key.proven_at for key in enforced]),
        }


def begin(
    plan: Plan,
    leaks: list[LeakRecord],
    *,
    identity: str,
    installation: str,
    environment: str,
    stack: str,
    began_at: datetime,
    ran_by: str,
    keep_frozen: bool = False,
) -> Incident:
    """The record of a plan that was confirmed, before anything is done."""
    return Incident(
        id=identity,
        installation=installation,
        environment=environment,
        stack=stack,
        selected=plan.selected,
        began_at=began_at,
        ran_by=[ran_by],
        contain_first=plan.contain_first,
        keep_frozen=keep_frozen,
        secrets=[_secret(step) for step in plan.steps],
        leaks=leaks,
        notes=list(plan.notes),
        admin=plan.admin,
    )


def _secret(step: Step) -> SecretRecord:
    leaked = {leak.token for leak in step.leaks}
    return SecretRecord(
        name=step.name,
        owner=step.owner,
        store=step.target.store,
        entry=step.target.entry,
        replicas=list(step.replicas),
        issuer=step.issuer,
        wave=step.wave,
        enforced=step.enforced,
        contain_after_seconds=step.contain_after.total_seconds(),
        consumers=[ConsumerRecord(one.name, one.refresh_within.total_seconds()) for one in step.consumers],
        keys=[
            KeyRecord(key.token, key.key_id, key.role, key.since, key.ours, leaked=key.token in leaked)
            for key in step.keys
        ],
        person=step.person,
        missing=step.missing,
    )


def identity(at: datetime, chance: str) -> str:
    """`2026-11-22-1432-ab12`: when it began, in UTC, and what tells two of one minute apart.

    Parameters:
        chance: four hexadecimal digits.
    """
    return f"{at.astimezone(UTC):%Y-%m-%d-%H%M}-{chance}"


# --- in files ------------------------------------------------------------------------------------


@cache
def _codec() -> TypeAdapter[Incident]:
    return TypeAdapter(Incident)


def as_json(incident: Incident) -> dict[str, Any]:
    """What a script reads; ids, names and times. Whoever prints or keeps it masks it."""
    plain: dict[str, Any] = _codec().dump_python(incident, mode="json")
    told = {"totals": incident.totals(), "alive": incident.alive, "over": incident.over}
    return {"schema": plain.pop("schema_version"), **plain, **told}


def from_json(text: str) -> Incident:
    """What as_json() has made.

    Raises:
        ValueError: it is of another version, or something else wrote it.
    """
    return documents.read(text, _codec(), SCHEMA, "the record of an incident", ("totals", "alive", "over"))


class Files:
    """Records in a folder, one file each, mode 0600, replaced as a whole.

    Parameters:
        folder: made when absent, mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder

    def path(self, identity: str) -> Path:
        """Raises ValueError for what is no id: it would be a path of somebody's choice."""
        if not _ID.fullmatch(identity):
            raise ValueError(f"{identity!r} is not the id of an incident, as in 2026-11-22-1432-ab12")
        return self.folder / f"{identity}.json"

    def save(self, incident: Incident) -> None:
        """Raises Trouble(UNAVAILABLE) when the disk does not take it."""
        text = masked_json(json.dumps(as_json(incident))) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.path(incident.id), text, durable=True)
        except OSError as error:
            told = f"{self.path(incident.id)}: {error.strerror}"
            raise Trouble(Code.UNAVAILABLE, "incident record", told) from None

    def load(self, identity: str) -> Incident:
        """Raises ValueError, with what is there, when there is no such record, or it can not be read."""
        path = self.path(identity)
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(self.ids()) or "none"
            raise ValueError(f"there is no incident {identity} in {self.folder}; there are: {known}") from None
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None

    def ids(self) -> list[str]:
        """Of all records, newest first."""
        found = (path.stem for path in self.folder.glob("*.json")) if self.folder.is_dir() else iter(())
        return sorted((name for name in found if _ID.fullmatch(name)), reverse=True)

    def all(self) -> Iterator[Incident]:
        """Every record that can be read, newest first."""
        for name in self.ids():
            try:
                yield self.load(name)
            except ValueError:
                continue
