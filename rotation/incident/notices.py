"""What owners are told of an incident: once when it begins, when each secret is replaced, when it is over or stuck. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rotation.incident.record import Incident, SecretRecord
from rotation.policy import show_duration
from rotation.ports import Notice, Severity

Told = Sequence[Notice]


def begun(incident: Incident, at: datetime) -> Told:
    """One for each owner: which of their secrets, and who of their consumers has to refresh."""
    found = []
    for owner, secrets in _by_owner(incident.secrets).items():
        names = ", ".join(secret.name for secret in secrets)
        people = [f"{secret.name}: {secret.person}." for secret in secrets if secret.person]
        how = "revoked at once, then replaced" if incident.contain_first else "replaced, then revoked without grace"
        text = (
            f"Credentials of {names} in {incident.environment} are taken to have leaked. They are {how}.{_readers(secrets)} "
            f"{' '.join(people)} `keyturn incident show {incident.id}` tells how far it is."
        )
        severity = Severity.CRITICAL if people else Severity.WARNING
        subject = f"incident {incident.id}: {_count(secrets)} replaced now"
        found.append(_notice("incident.begun", severity, at, incident, names, owner, subject, text))
    return found


def replaced(incident: Incident, secret: SecretRecord, at: datetime) -> Told:
    """Its stores hand out another credential; what consumers have cached stops working."""
    if secret.replaced_at is None:
        return []
    text = (
        f"Every store hands out another credential since {secret.replaced_at:%Y-%m-%d %H:%M:%S}Z.{_readers([secret])}"
    )
    subject = f"incident {incident.id}: {secret.name} is replaced"
    notice = _notice(
        "incident.replaced", Severity.INFO, at, incident, secret.name, secret.owner, subject, text, secret.minted_key_id
    )
    return [notice]


def stuck(incident: Incident, secret: SecretRecord, at: datetime) -> Told:
    """It did not come to its end: somebody has to act."""
    lives = "What leaked is alive, or not shown dead." if secret.alive else "It could not be replaced."
    why = "; ".join(part for part in (secret.trouble, secret.rest, secret.person) if part)
    stale = f" {', '.join(secret.stale)} may still hand out what leaked." if secret.stale else ""
    text = f"{lives} {why}.{stale} `keyturn emergency --resume {incident.id}` goes on once that is put right."
    subject = f"incident {incident.id}: {secret.name} needs a person"
    return [_notice("incident.stuck", Severity.CRITICAL, at, incident, secret.name, secret.owner, subject, text)]


def over(incident: Incident, at: datetime) -> Told:
    """One for each owner all of whose secrets are done."""
    found = []
    for owner, secrets in _by_owner(incident.secrets).items():
        if any(secret.alive or secret.replaced_at is None for secret in secrets):
            continue  # each of these has told by itself what it needs
        names = ", ".join(secret.name for secret in secrets)
        dead = [key.key_id or key.token for secret in secrets for key in secret.keys if key.ended and secret.enforced]
        text = f"{names}: replaced, and every old credential is shown dead: {', '.join(dead) or 'none was enforced'}."
        subject = f"incident {incident.id}: over for {_count(secrets)}"
        found.append(_notice("incident.over", Severity.INFO, at, incident, names, owner, subject, text))
    return found


def _notice(
    kind: str,
    severity: Severity,
    at: datetime,
    incident: Incident,
    names: str,
    owner: str,
    subject: str,
    text: str,
    key_id: str | None = None,
) -> Notice:
    facts = {"incident": incident.id} | ({"key_id": key_id} if key_id else {})
    return Notice(kind, severity, at, incident.environment, names, owner, subject, " ".join(text.split()), facts)


def _by_owner(secrets: Iterable[SecretRecord]) -> dict[str, list[SecretRecord]]:
    found: dict[str, list[SecretRecord]] = {}
    for secret in secrets:
        found.setdefault(secret.owner, []).append(secret)
    return found


def _readers(secrets: Sequence[SecretRecord]) -> str:
    spans = [
        f"{one.name} within {show_duration(timedelta(seconds=one.refresh_within_seconds))}"
        for secret in secrets
        for one in secret.consumers
    ]
    return f" What consumers have cached fails until they refresh: {', '.join(dict.fromkeys(spans))}." if spans else ""


def _count(secrets: Sequence[SecretRecord]) -> str:
    return secrets[0].name if len(secrets) == 1 else f"{len(secrets)} secrets"
