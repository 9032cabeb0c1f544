"""The record of an incident for people: one document, as Markdown or as HTML that needs nothing beside itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from rotation import html as h
from rotation.html import Child, el
from rotation.incident.record import Event, Incident, KeyRecord, SecretRecord, State
from rotation.logs import masked
from rotation.policy import show_duration


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    table: Table | None = None


def sections(incident: Incident) -> Iterator[Section]:
    """The whole document; the first section is its head."""
    yield _head(incident)
    if incident.leaks:
        headings = ("Reported by", "Where", "Public", "Is", "Secret", "Key", "Told by")
        public = {True: "yes", False: "no", None: "not known"}
        leaked = tuple(
            (
                " ".join(part for part in (leak.source, leak.rule) if part),
                leak.where or "-",
                public[leak.public],
                leak.standing,
                leak.secret or "-",
                leak.key_id or "-",
                leak.how or "-",
            )
            for leak in incident.leaks
        )
        yield Section("What was reported", (), Table(headings, leaked))
    yield Section("Secrets", (), Table(_SECRETS, tuple(_row(incident, secret) for secret in incident.secrets)))
    keys = tuple(_key(secret, key) for secret in incident.secrets for key in secret.keys)
    yield Section("Keys", (), Table(_KEYS, keys))
    told = tuple(
        (secret.name, one.name, show_duration(timedelta(seconds=one.refresh_within_seconds)), _until(secret, one.refresh_within_seconds))
        for secret in incident.secrets
        for one in secret.consumers
    )  # fmt: skip
    if told:
        lost = "What these have cached fails from the revocation until they refresh."
        yield Section("Consumers", (lost,), Table(("Secret", "Consumer", "Refreshes within", "Until"), told))
    left = tuple(_left(secret) for secret in incident.secrets if secret.state is not State.OVER)
    if left:
        yield Section("What is left to do", left)
    yield Section("Timeline", (), Table(_TIMELINE, tuple(_timeline(incident))))


def _head(incident: Incident) -> Section:
    totals = incident.totals()
    times = ", ".join(
        f"{word} after {seconds(totals[name])}"
        for word, name in (
            ("contained", "contained_seconds"),
            ("replaced", "replaced_seconds"),
            ("shown dead", "proven_seconds"),
        )
    )
    alive = incident.alive
    if alive:
        state = f"Alive, or not shown dead: {', '.join(alive)}."
    else:
        state = "Nothing that leaked is alive." if incident.over else "Nothing that leaked is alive; not all is done."
    how = "revoke at once, then replace" if incident.contain_first else "replace, then revoke without grace"
    ended = f", until {_time(incident.ended_at)}" if incident.ended_at else ", and it is not over"
    resumed = f"; resumed {', '.join(map(_time, incident.resumed_at))}" if incident.resumed_at else ""
    where = f"{incident.installation}, environment {incident.environment} ({incident.stack})"
    paragraphs = [
        f"{state} All of it was {times}.",
        f"{where}. Begun {_time(incident.began_at)}{resumed}{ended}, by {', '.join(incident.ran_by)}.",
        f"Asked for: {incident.selected}. Way: {how}.",
        *incident.notes,
        *([f"First of all: {incident.admin}."] if incident.admin else []),
    ]
    return Section(f"Incident {incident.id}", tuple(paragraphs))


_SECRETS: Final = ("Secret", "Owner", "Stores", "Issuer", "State", "Contained", "Replaced", "Shown dead")
_KEYS: Final = ("Secret", "Key", "Was", "Condemned", "Revoked", "First refused", "Shown dead", "Request ids")
_TIMELINE: Final = ("At", "Secret", "What", "Key", "Store", "Request id")


def _row(incident: Incident, secret: SecretRecord) -> tuple[str, ...]:
    revoked = [key.revoked_at or key.proven_at for key in secret.keys if key.ours]
    known = [at for at in revoked if at is not None]
    contained = incident.seconds(max(known)) if known and len(known) == len(revoked) else None
    if not secret.enforced:
        enforced = ("nobody refuses it", seconds(incident.seconds(secret.replaced_at)), "nobody refuses it")
    else:
        times = (contained, incident.seconds(secret.replaced_at), incident.seconds(secret.proven_at))
        enforced = (seconds(times[0]), seconds(times[1]), seconds(times[2]))
    stores = " + ".join((secret.store, *secret.replicas))
    return (secret.name, secret.owner, stores, secret.issuer, secret.state.value, *enforced)


def _key(secret: SecretRecord, key: KeyRecord) -> tuple[str, ...]:
    contained = " (contained)" if key.contained_at else ""
    dead = f"{_time(key.proven_at)} ({_PROOFS.get(key.proof, key.proof)})" if key.proven_at else "not yet"
    return (
        secret.name,
        key.key_id or f"token {key.token}",
        key.role if key.ours else f"{key.role}, made by a person",
        _time(key.condemned_at),
        _time(key.revoked_at) + contained,
        _time(key.refused_at),
        dead,
        ", ".join(key.request_ids) or "-",
    )


_PROOFS: Final = {
    "refused": "refused by its issuer",
    "absent": "gone from its issuer's list",
    "unenforced": "out of every store; nobody refuses it",
    "elsewhere": "closed by another run",
    "never-minted": "was never minted",
}


def _until(secret: SecretRecord, seconds: float) -> str:
    revoked = [key.revoked_at for key in secret.keys if key.revoked_at]
    since = secret.replaced_at or (min(revoked) if revoked else None)
    return _time(since + timedelta(seconds=seconds)) if since else "not replaced yet"


def _left(secret: SecretRecord) -> str:
    why = "; ".join(part for part in (secret.trouble, secret.rest, secret.person) if part) or "it was not worked on yet"
    stale = f" May still hand out what leaked: {', '.join(secret.stale)}." if secret.stale else ""
    return f"{secret.name}: {why}.{stale}"


def _timeline(incident: Incident) -> Iterator[tuple[str, ...]]:
    told = [(event.at, secret.name, event) for secret in incident.secrets for event in secret.events]
    for at, name, event in sorted(told, key=lambda one: (one[0], one[1])):
        if (what := _what(event)) is not None:
            key = event.key_id or "-"
            yield (_time(at, fine=True), name, what, key, event.store or "-", event.request_id or "-")


def _what(event: Event) -> str | None:
    """An event in words; None for what only machines care about."""
    if event.event.endswith(".failed"):
        return f"failed to {event.event.removesuffix('.failed')}: {event.reason}"
    if event.event in ("verify", "prove"):
        whose = "the new credential" if event.event == "verify" else "the old credential"
        return f"showed {whose} to its issuer: {event.verdict or 'no answer'}"
    return _EVENTS.get(event.event)


_EVENTS: Final = {
    "condemn": "condemned",
    "mint.done": "minted another one",
    "stage": "staged",
    "promote.done": "promoted",
    "contain": "contains: revokes it although stores hand it out",
    "revoke.done": "revoked",
    "proven": "shown dead",
    "closed": "closed",
    "adopt": "took over what a person had put there",
    "discard": "discarded",
    "freeze": "scheduled work stopped",
    "thaw": "scheduled work goes on",
}


def _time(at: datetime | None, *, fine: bool = False) -> str:
    if at is None:
        return "-"
    text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{at.microsecond // 1000:03}Z" if fine else f"{text}Z"


def seconds(seconds: float | None) -> str:
    """A time from the start of an incident."""
    return "not yet" if seconds is None else f"{seconds:.1f} s"


def state(incident: Incident) -> str:
    """How far it is, in a word or two."""
    if incident.alive:
        return f"{len(incident.alive)} alive"
    return "over" if incident.over else "not over"


# --- as text -------------------------------------------------------------------------------------


def markdown(incident: Incident) -> str:
    """The document as Markdown (CommonMark with tables)."""
    return document(sections(incident))


def document(parts: Iterable[Section]) -> str:
    """Sections as Markdown, whatever they are of; the first one is the head."""
    lines: list[str] = []
    for number, section in enumerate(parts):
        lines += [f"{'#' if number == 0 else '##'} {_cell(section.title)}", ""]
        for paragraph in section.paragraphs:
            lines += [_cell(paragraph), ""]
        if section.table and section.table.rows:
            lines += [_line(section.table.headings), _line(["---"] * len(section.table.headings))]
            lines += [_line(row) for row in section.table.rows] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


_SPECIAL: Final = str.maketrans({c: f"\\{c}" for c in "\\|`*_<>[]"})


def _cell(text: str) -> str:
    """Text that Markdown shows as it stands: what services and reports say is no markup of ours."""
    plain = "".join(c if c.isprintable() else " " for c in masked(text))
    return " ".join(plain.split()).translate(_SPECIAL)


def html(incident: Incident) -> str:
    """The document as one page: no script, nothing loaded from anywhere."""
    parts: list[Child] = []
    for number, section in enumerate(sections(incident)):
        parts.append(el(f"h{1 if number == 0 else 2}", section.title))
        parts += [el("p", paragraph) for paragraph in section.paragraphs]
        if section.table and section.table.rows:
            parts.append(h.table(section.title, section.table.headings, section.table.rows, class_="quiet"))
    return h.page(f"Incident {incident.id}", [el("main", parts)])
