"""A report for machines: one JSON document of a fixed schema, and one table for spreadsheets. Pure."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rotation.incident.evidence import NAMES, Evidence
from rotation.incident.record import Incident
from rotation.logs import masked_parts
from rotation.model import Policy
from rotation.policy import written_schedule
from rotation.report.lives import Event, Life
from rotation.report.report import Account, Actor, Cadence, Compliance, Owner, Period, Report, Slot

SCHEMA: Final = "keyturn.report/1"
"""Changes when a field gets another meaning or goes; new fields may come at any time. docs/report.md has every field."""


def as_json(report: Report) -> dict[str, Any]:
    """What a script reads: moments as ISO 8601 in UTC, lengths in seconds, None for what is not known."""
    shown = masked_parts(
        {
            "schema": SCHEMA,
            "installation": report.installation,
            "environment": report.environment,
            "stack": report.stack,
            "at": _at(report.at),
            "complete": not report.troubles,
            "troubles": list(report.troubles),
            "trail": {
                "where": report.trail.where or None,
                "records": report.trail.records,
                "first": _at(report.trail.first),
                "last": _at(report.trail.last),
            },
            "compliance": _compliance(report.now),
            "due_soon": report.soon,
            "alive": [account.name for account in report.alive],
            "attention": [{"secret": a.name, "what": a.what, "urgent": a.urgent} for a in report.attention],
            "calendar": [_slot(slot) for slot in report.calendar],
            "cadences": [_cadence(cadence) for cadence in report.cadences],
            "periods": [_period(period) for period in report.periods],
            "owners": [_owner(owner) for owner in report.owners],
            "incidents": [_incident(incident) for incident in report.incidents],
            "drills": [_drill(drill) for drill in report.drills],
            "runs": [_run(actor) for actor in report.actors.values()],
            "secrets": [_account(account, report.at) for account in report.accounts],
        }
    )
    assert isinstance(shown, dict)
    return shown


def _compliance(now: Compliance) -> dict[str, Any]:
    counts = {"secrets": now.secrets, "within": now.within, "due": now.due, "overdue": now.overdue}
    return {**counts, "unknown": now.unknown, "share": now.share}


def _slot(slot: Slot) -> dict[str, Any]:
    return {"start": _at(slot.start), "until": _at(slot.until), "secrets": slot.secrets}


def _cadence(one: Cadence) -> dict[str, Any]:
    every = {"allowed_age_seconds": one.every.total_seconds(), "compliance": _compliance(one.now)}
    return {**every, "oldest_seconds": _seconds(one.oldest), "on_time": one.on_time, "late": one.late}


def _period(period: Period) -> dict[str, Any]:
    return {
        "start": _at(period.start),
        "until": _at(period.until),
        "rotations": period.rotations,
        "emergencies": period.emergencies,
        "failures": period.failures,
        "on_time": period.on_time,
        "late": period.late,
        "proofs": len(period.proofs),
        "median_proof_seconds": period.median,
        "worst_proof_seconds": period.worst,
    }


def _owner(one: Owner) -> dict[str, Any]:
    return {
        "owner": one.name,
        "compliance": _compliance(one.now),
        "alive": one.alive,
        "next_due_at": _at(one.next_due_at),
        "oldest_seconds": _seconds(one.oldest),
        "issuers": list(one.issuers),
        "stores": list(one.stores),
        "consumers": list(one.consumers),
    }


def _incident(one: Incident) -> dict[str, Any]:
    return {
        "id": one.id,
        "began_at": _at(one.began_at),
        "ended_at": _at(one.ended_at),
        "selected": one.selected,
        "secrets": [secret.name for secret in one.secrets],
        "alive": one.alive,
        "over": one.over,
        **one.totals(),
    }


def _drill(one: Evidence) -> dict[str, Any]:
    times = {f"{name}_seconds": getattr(one.times, name) for name in NAMES}
    names = [subject.name for subject in one.subjects]
    return {"id": one.id, "began_at": _at(one.began_at), "state": one.state.value, "secrets": names, **times}


def _run(one: Actor) -> dict[str, Any]:
    spans = {"records": one.records, "first": _at(one.first), "last": _at(one.last)}
    return {"id": one.writer, "who": one.who or None, **spans}


def _account(a: Account, now: datetime) -> dict[str, Any]:
    return {
        "name": a.name,
        "entry": a.entry or None,
        "gone": a.gone,
        "policy": _policy(a.policy) if a.policy else None,
        "phase": a.phase.value if a.phase else None,
        "standing": a.standing.value,
        "alive": a.alive,
        "key_id": a.key_id,
        "rotated_at": _at(a.rotated_at),
        "age_seconds": _seconds(a.age(now)),
        "due_at": _at(a.due_at),
        "due_why": a.due_why or None,
        "overdue_at": _at(a.overdue_at),
        "failures": a.failures,
        "error": a.error or None,
        "frozen": {"incident": a.frozen.incident, "since": _at(a.frozen.at)} if a.frozen else None,
        "credentials": [_life(life) for life in a.lives],
        "events": [_event(event) for event in a.events],
    }


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "owner": policy.owner,
        "issuer": policy.issuer,
        "stores": list(policy.stores),
        "allowed_age_seconds": policy.rotate_every.total_seconds(),
        "grace_seconds": policy.grace.total_seconds(),
        "schedule": written_schedule(policy.schedule) or None,
        "consumers": {one.name: one.refresh_within.total_seconds() for one in policy.consumers},
        "paired_with": policy.paired_with,
        "tags": dict(policy.tags),
    }


def _life(life: Life) -> dict[str, Any]:
    steps = [
        {
            "what": step.what.value,
            "at": _at(step.at),
            "run": step.run,
            "incident": step.incident,
            "note": step.note or None,
        }
        for step in life.steps
    ]
    return {"token": life.token, "key_id": life.key_id, "state": life.state.value, "steps": steps}


def _event(event: Event) -> dict[str, Any]:
    by = {"run": event.run, "incident": event.incident}
    return {"kind": event.kind.value, "at": _at(event.at), "text": event.text, **by}


# --- for spreadsheets ----------------------------------------------------------------------------

COLUMNS: Final = (
    *("secret", "environment", "owner", "issuer", "stores", "consumers", "standing", "phase", "key_id", "rotated_at"),
    *(
        "age_days",
        "allowed_age_days",
        "due_at",
        "overdue_at",
        "credentials",
        "shown_dead",
        "not_shown_dead",
        "failures",
    ),
    *("error", "frozen_by"),
)
"""Of the table: one row for each secret."""
_COMMANDING: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for a formula at the beginning of a cell, wide forms included. Source: OWASP, CSV Injection."""


def as_csv(report: Report) -> str:
    """One row for each secret, as RFC 4180 writes tables; nothing in it is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for account in report.accounts:
        row = masked_parts(_cells(account, report))
        assert isinstance(row, list)
        writer.writerow([inert(cell) for cell in row])
    return out.getvalue()


def inert(value: object) -> object:
    """A cell that no spreadsheet computes. Numbers stay numbers."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip(" ").startswith(_COMMANDING) else value


def _cells(a: Account, report: Report) -> list[object]:
    policy, states = a.policy, [life.state.value for life in a.lives]
    lost = sum(state in ("revoked, unproven", "condemned") for state in states)
    return [
        a.name,
        report.environment,
        policy.owner if policy else None,
        policy.issuer if policy else None,
        " + ".join(policy.stores) if policy else None,
        ", ".join(one.name for one in policy.consumers) if policy else None,
        "gone" if a.gone else a.standing.value,
        a.phase.value if a.phase else "gone",
        a.key_id,
        _at(a.rotated_at),
        _days(a.age(report.at)),
        _days(policy.rotate_every) if policy else None,
        _at(a.due_at),
        _at(a.overdue_at),
        len(states),
        states.count("shown dead"),
        lost,
        a.failures,
        a.error or None,
        a.frozen.incident if a.frozen else None,
    ]


def _days(gap: timedelta | None) -> float | None:
    return None if gap is None else round(gap / timedelta(days=1), 2)


def _at(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else None


def _seconds(gap: timedelta | None) -> float | None:
    return None if gap is None else round(gap.total_seconds(), 3)
