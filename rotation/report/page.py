"""A report as one page: to read on a screen, on paper, by keyboard and by ear. It loads nothing and needs nothing. Pure.

The inventory, every figure and every list stand in the page as it comes. What each account says comes along as data, and the
page's own script writes it down when somebody opens it: five thousand accounts are a hundred thousand steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

from rotation import html as h
from rotation.html import Child, Safe, el
from rotation.incident import evidence as evidences
from rotation.incident import page as incidents
from rotation.incident.record import Incident
from rotation.model import Policy
from rotation.report.lives import Kind, Life, State, What
from rotation.report.report import SOON, Account, Attention, Cadence, Owner, Period, Report, Slot, Standing, span

FIRST: Final = 24
"""Secrets in the timeline: those that are due first."""
ATTENTION: Final = 25
"""Lines of what needs attention; the rest is counted, and found in the inventory."""
PROSE: Final = 20
"""Incidents and drills that are listed."""
LISTED: Final = 200
"""Secrets that are listed at first: a browser lays out five thousand rows for seconds. page.js shows the others."""
UNSCRIPTED: Final = "#rows tr[hidden]{display:table-row!important}#list>[hidden]{display:block!important}"
"""Where no script runs, all are listed."""

NOTHING: Final = "\N{EN DASH}"

_MARKS: Final = {
    Standing.WITHIN: ("good", "✓"),
    Standing.DUE: ("warn", "◷"),
    Standing.OVERDUE: ("bad", "▲"),
    Standing.UNKNOWN: ("none", "○"),
}
"""Of a standing: its style, and its shape, for who sees no colours. The word is always there."""


def html(report: Report) -> str:
    """The whole page."""
    with h.one_look():
        return _html(report)


def _html(report: Report) -> str:
    whose = f"{report.installation} · {report.environment}"
    sections = [part for part in _sections(report) if part is not None]
    links = [el("li", el("a", title, href=f"#{identity}")) for identity, title, _ in sections]
    body = [
        el("a", "Skip to what needs attention", class_="skip", href="#attention"),
        el(
            "header",
            el("p", "Secrets report", class_="eyebrow"),
            el("h1", whose),
            el("p", "As of ", _time(report.at), f" · {report.stack} · {_source(report)}", class_="muted"),
        ),
        el("nav", el("ul", links), aria_label="Parts of this report"),
        el("main", _verdict(report), _figures(report), [_section(*part) for part in sections]),
        el(
            "footer",
            el("p", "Made by ", el("code", "keyturn report"), ". No part of it holds a secret's value."),
            class_="muted",
        ),
        h.data(_data(report), "facts"),
    ]
    own = files("rotation.report")
    style, script = (own.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return h.page(f"Secrets report: {whose}", body, style=style, script=script, unscripted=UNSCRIPTED)


def _sections(report: Report) -> Iterator[tuple[str, str, Sequence[Child]] | None]:
    """Id, title and content of each."""
    yield "attention", "Needs attention", _attention(report)
    yield "due", "Age and due dates", _due(report)
    yield "cadence", "Cadence", _cadence(report)
    yield "past", "Over time", _past(report)
    yield "incidents", "Incidents and drills", _incidents(report)
    yield "owners", "Who owns what", _owners(report)
    yield "inventory", "Inventory", _inventory(report)
    yield "about", "About this report", _about(report)
    yield "accounts", "Accounts", _accounts(report)


def _section(identity: str, title: str, content: Sequence[Child]) -> Safe:
    heading = f"{identity}-title"
    return el("section", el("h2", title, id=heading), content, id=identity, aria_labelledby=heading, tabindex="-1")


# --- the head ------------------------------------------------------------------------------------


def _source(report: Report) -> str:
    read = f"{_count(report.trail.records, 'record')} of the audit trail" if report.trail.where else "no audit trail"
    return f"metadata of {_count(report.now.secrets, 'secret')}, {read}"


def _verdict(report: Report) -> Safe:
    """What somebody who reads one sentence reads."""
    now, alive = report.now, len(report.alive)
    known = now.secrets - now.unknown
    if alive:
        mark, first = "bad", f"{_count(alive, 'secret')} with a credential that should be dead and is not shown to be."
    else:
        mark, first = "bad" if now.overdue else "good", "Nothing that should be dead is known to be alive."
    if not now.secrets:
        second = "No secret is applied."
    elif now.overdue:
        second = f"{now.overdue:,} of {_count(now.secrets, 'secret')} {_are(now.overdue)} older than allowed."
    elif known:
        second = "Every credential whose age is known is as young as its policy wants it."
    else:
        second = "How old credentials are is not known."
    unseen = "Not everything could be looked at: see below." if report.troubles else None
    mark = "warn" if mark == "good" and (report.troubles or not known) else mark
    return el("p", el("strong", first), " ", second, " " if unseen else None, unseen, class_=f"verdict {mark}")


def _figures(report: Report) -> Safe:
    now = report.now
    proofs = sorted(report.proofs)
    drill = next(iter(report.drills), None)
    share = f"{_percent(now.share)}" if now.share is not None else NOTHING
    tiles = (
        ("Within policy", share, f"{now.within + now.due:,} of {now.secrets - now.unknown:,} whose age is known"),
        ("Overdue", f"{now.overdue:,}", "older than their policy allows"),
        ("Due within a week", f"{report.soon:,}", "will be rotated by themselves"),
        ("Not shown dead", f"{len(report.alive):,}", "secrets with such a credential"),
        (
            "Time to proof",
            _seconds(proofs[len(proofs) // 2]) if proofs else NOTHING,
            f"median of {_count(len(proofs), 'revocation')}" if proofs else "nothing was revoked yet",
        ),
        (
            "Last drill",
            drill.state.value if drill else "none",
            f"{span(report.at - drill.began_at)} ago" if drill else "`keyturn drill` runs one",
        ),
    )
    return el(
        "dl",
        [
            el("div", el("dt", name), el("dd", value, class_="value"), el("dd", _coded(note), class_="muted"))
            for name, value, note in tiles
        ],
        class_="figures",
    )


def _attention(report: Report) -> Sequence[Child]:
    found = report.attention
    if not found and not report.troubles:
        return [_empty("Nothing needs a person. What is due will be rotated by the next sweeps.")]
    parts: list[Child] = []
    if report.troubles:
        parts.append(el("p", "What could not be looked at:"))
        parts.append(el("ul", [el("li", told) for told in report.troubles], class_="plain"))
    if found:
        rows = [_needing(one) for one in found[:ATTENTION]]
        parts.append(h.table("The worst first", ("Secret", "What", "How bad"), rows))
    if len(found) > ATTENTION:
        parts.append(
            el("p", f"And {len(found) - ATTENTION:,} more; the inventory can be filtered for them.", class_="muted")
        )
    return parts


def _needing(one: Attention) -> tuple[Child, ...]:
    mark, how = ("bad", "▲ now") if one.urgent else ("warn", "◷ today")
    return (_link(one.name), _coded(one.what), el("span", how, class_=f"mark {mark}"))


def _link(name: str) -> Safe:
    return el("a", name, href=f"#{_id(name)}")


def _id(name: str) -> str:
    return f"account-{name}"


# --- figures over time ---------------------------------------------------------------------------


def _due(report: Report) -> Sequence[Child]:
    counted = report.counted
    if not counted:
        return [_empty("There is no secret yet whose age could be told.")]
    slots = report.calendar
    labels = [_slot(slot) for slot in slots]
    columns = [("hot" if slot.start is None else "fill", slot.secrets) for slot in slots]
    most = max((slot.secrets for slot in slots), default=0)
    calendar = _figure(
        "Due, by weeks from today",
        f"{report.now.overdue:,} overdue, {report.soon:,} due within a week. The highest column has {most:,}.",
        _bars([[column] for column in columns], most, labels, "secrets"),
        ("late", *map(str, range(1, len(slots) - 1)), f"{len(slots) - 1}+"),
        h.table(
            "Secrets by when they are due",
            ("When", "Secrets"),
            [(a, f"{s.secrets:,}") for a, s in zip(labels, slots, strict=True)],
        ),
    )
    dated = sorted(
        (a for a in counted if a.rotated_at and a.due_at), key=lambda a: (a.overdue_at or a.due_at or report.at, a.name)
    )
    return [calendar, _timeline(dated[:FIRST], report, len(dated)) if dated else None]


def _slot(slot: Slot) -> str:
    if slot.start is None:
        return "overdue"
    return (
        f"{_date(slot.start)} to {_date(slot.until - timedelta(days=1))}" if slot.until else f"from {_date(slot.start)}"
    )


def _timeline(accounts: Sequence[Account], report: Report, of: int) -> Safe:
    """One row for each secret, all on one scale: since when its credential is current, today, when it is due."""
    now = report.at
    first = max(min(a.rotated_at or now for a in accounts), now - timedelta(days=400))
    last = min(max(a.overdue_at or now for a in accounts), now + timedelta(days=400))
    last = max(last, now + (now - first) / 20)
    scale = 1000 / max((last - first).total_seconds(), 1)

    def x(at: datetime) -> float:
        return round(min(max((at - first).total_seconds() * scale, 0), 1000), 1)

    rows = []
    for a in accounts:
        begun, due, over = x(a.rotated_at or first), x(a.due_at or now), x(a.overdue_at or now)
        today = x(now)
        bars: list[Child] = [
            el("rect", class_="part", x=begun, y=3, width=round(max(over, begun) - begun, 1), height=8),
            el("rect", class_="fill", x=begun, y=3, width=round(max(min(today, over) - begun, 0), 1), height=8),
            el("rect", class_="hot", x=over, y=3, width=round(today - over, 1), height=8) if today > over else None,
            el("rect", class_="tick", x=due - 1, y=1, width=2, height=12),
            el("rect", class_="now", x=today - 1, y=0, width=2, height=14),
        ]
        picture = el("svg", bars, viewBox="0 0 1000 14", preserveAspectRatio="none", aria_hidden="true")
        rows.append(
            (
                _link(a.name),
                _age(a, now),
                picture,
                [_day(a.due_at), " ", el("span", _ahead(a.due_at, now), class_="muted")],
            )
        )
    which = (
        f"All {of} secrets"
        if of <= len(accounts)
        else f"The {len(accounts)} of {of:,} secrets that are overdue or due first"
    )
    caption = f"{which}, from {_date(first)} to {_date(last)}: the line is today, the tick is when each is due"
    table = h.table(
        caption, ("Secret", "Age", "From promotion until overdue", "Due"), rows, class_="timeline", reflows=True
    )
    return el("div", el("h3", "Timeline"), table)


def _cadence(report: Report) -> Sequence[Child]:
    if not report.cadences:
        return [_empty("No secret is applied, so there is no cadence to keep.")]
    rows = [_cadence_row(one) for one in report.cadences]
    headings = ("Allowed age", "Secrets", "Within", "Due", "Overdue", "Age unknown", "Oldest now", "Past ones in time")
    return [h.table("What policies allow, and what is so", headings, rows)]


def _cadence_row(one: Cadence) -> tuple[str, ...]:
    now, past = one.now, one.on_time + one.late
    kept = f"{one.on_time:,} of {past:,}" if past else NOTHING
    counts = (now.secrets, now.within, now.due, now.overdue, now.unknown)
    return (
        span(one.every),
        *(f"{count:,}" for count in counts),
        span(one.oldest) if one.oldest else NOTHING,
        kept,
    )


def _past(report: Report) -> Sequence[Child]:
    if not report.periods:
        return [_empty("Nothing is known of the past yet: no credential was promoted, and nothing failed.")]
    return [el("div", _activity(report), _kept(report), _proof(report), class_="trends")]


def _activity(report: Report) -> Safe:
    periods = report.periods
    most = max(p.rotations + p.emergencies for p in periods)
    failed = max(p.failures for p in periods)
    planned, urgent, lost = (
        sum(getattr(p, name) for p in periods) for name in ("rotations", "emergencies", "failures")
    )
    picture: list[Child] = [
        _bars([[("fill", p.rotations), ("bad", p.emergencies)] for p in periods], most, _spans(report), "promoted")
    ]
    if failed:
        downs = [[("hot", p.failures)] for p in periods]
        picture.append(_bars(downs, max(failed, most / 4), _spans(report), "failed", down=True))
    failures = f"{_count(lost, 'step')} failed, which later sweeps repeat" if lost else "no step failed"
    return _trend(
        report,
        "Rotations and failures",
        f"{planned:,} credentials promoted by schedule or on request, {urgent:,} in incidents; {failures}.",
        picture,
        (("fill", "promoted"), ("bad", "in incidents"), ("hot", "failed, below the line")),
        ("Promoted", "In incidents", "Failed steps"),
        lambda p: (f"{p.rotations:,}", f"{p.emergencies:,}", f"{p.failures:,}"),
    )


def _kept(report: Report) -> Safe:
    most = max(period.on_time + period.late for period in report.periods)
    if not most:
        return _lacking("Cadence kept", "No credential was replaced yet.")
    on_time, late = (sum(getattr(p, name) for p in report.periods) for name in ("on_time", "late"))
    return _trend(
        report,
        "Cadence kept",
        f"{on_time:,} of {_count(on_time + late, 'credential')} were replaced before they were older than policies allow.",
        _bars([[("fill", p.on_time), ("hot", p.late)] for p in report.periods], most, _spans(report), "replaced"),
        (("fill", "replaced in time"), ("hot", "late")),
        ("In time", "Late"),
        lambda p: (f"{p.on_time:,}", f"{p.late:,}"),
    )


def _proof(report: Report) -> Safe:
    if not report.proofs:
        return _lacking("Time to proof", "No credential was revoked and shown dead yet.")
    most = max(report.proofs)
    worst = next(p for p in report.periods if p.worst == most)
    return _trend(
        report,
        "Time to proof",
        f"{_count(len(report.proofs), 'credential')} revoked and shown dead. The slowest took {_seconds(most)}, in "
        f"{_when(worst, report)}.",
        _dots(report.periods, most, _spans(report)),
        (("dot", "median"), ("whisker", "up to the slowest")),
        ("Proofs", "Median", "Slowest"),
        lambda p: (f"{len(p.proofs):,}", _seconds(p.median), _seconds(p.worst)),
    )


def _lacking(title: str, told: str) -> Safe:
    return el("div", el("h3", title), _empty(told), class_="lacking")


def _when(period: Period, report: Report) -> str:
    return f"the week from {_date(period.start)}" if _unit(report) == "Week from" else _label(period, report)


def _trend(
    report: Report,
    title: str,
    told: str,
    picture: Child,
    legend: Sequence[tuple[str, str]],
    headings: tuple[str, ...],
    row: Callable[[Period], tuple[str, ...]],
) -> Safe:
    """A figure with one column for each period, and its numbers."""
    rows = [(_label(period, report), *row(period)) for period in reversed(report.periods)]
    numbers = h.table(f"{title}, the latest first", (_unit(report), *headings), rows)
    ends = (_date(report.periods[0].start), _date(min(report.periods[-1].until - timedelta(days=1), report.at)))
    keys = el(
        "ul",
        [el("li", el("span", class_=f"key {style}", aria_hidden="true"), word) for style, word in legend],
        class_="legend",
    )
    return _figure(title, told, picture, ends, numbers, keys)


def _figure(title: str, told: str, picture: Child, ends: Sequence[str], numbers: Child, legend: Child = None) -> Safe:
    return el(
        "figure",
        el("figcaption", el("h3", title), el("p", told)),
        legend,
        el("div", picture, class_="plot", aria_hidden="true"),
        el("p", [el("span", end) for end in ends], class_="ends" if len(ends) == 2 else "ticks", aria_hidden="true"),
        el("details", el("summary", "The numbers"), numbers, class_="numbers"),
    )


def _bars(
    columns: Sequence[Sequence[tuple[str, int]]], most: float, labels: Sequence[str], what: str, *, down: bool = False
) -> Safe:
    """Stacked columns, as wide as there is room; downwards where `down`. What they say stands beside them in words."""
    tall = 30 if down else 100
    parts: list[Child] = []
    for number, (column, label) in enumerate(zip(columns, labels, strict=True)):
        level = 0.0
        for style, count in column:
            if not count:
                continue
            size = max(round(tall * count / most, 2), 0.8) if most else 0
            y = level if down else tall - level - size
            told = el("title", f"{label}: {count:,} {what}")
            parts.append(el("rect", told, class_=style, x=number * 10 + 1, y=round(y, 2), width=8, height=size))
            level += size
    picture = el(
        "svg",
        parts,
        viewBox=f"0 0 {len(columns) * 10} {tall}",
        preserveAspectRatio="none",
        class_="down" if down else "up",
    )
    return picture if down else el("div", el("span", f"{most:,.0f}", class_="most"), picture)


def _dots(periods: Sequence[Period], most: float, labels: Sequence[str]) -> Safe:
    """The median of each period as a dot, and a line from it to the slowest."""
    parts: list[Child] = []
    for number, (period, label) in enumerate(zip(periods, labels, strict=True)):
        if period.median is None or period.worst is None:
            continue
        x, low, high = number * 10 + 5, 96 - 90 * period.median / most, 96 - 90 * period.worst / most
        told = el("title", f"{label}: median {_seconds(period.median)}, slowest {_seconds(period.worst)}")
        parts.append(Safe(f'<path class="whisker" d="M{x} {low:.1f}V{high:.1f}"/>'))
        parts.append(Safe(f'<path class="dot" d="M{x} {low:.1f}h0.001">{told}</path>'))
    picture = el("svg", parts, viewBox=f"0 0 {len(periods) * 10} 100", preserveAspectRatio="none", class_="up")
    return el("div", el("span", _seconds(most), class_="most"), picture)


def _spans(report: Report) -> list[str]:
    return [_label(period, report) for period in report.periods]


def _unit(report: Report) -> str:
    days = (report.periods[0].until - report.periods[0].start).days
    return "Day" if days == 1 else "Week from" if days == 7 else "Month"


def _label(period: Period, report: Report) -> str:
    return {"Day": _date(period.start), "Week from": _date(period.start)}.get(_unit(report), f"{period.start:%Y-%m}")


# --- incidents, drills, owners -------------------------------------------------------------------


def _incidents(report: Report) -> Sequence[Child]:
    parts: list[Child] = [el("h3", "Incidents")]
    if report.incidents:
        rows = [_incident(one) for one in report.incidents[:PROSE]]
        headings = ("Incident", "About", "Secrets", "State", "Contained", "Replaced", "Shown dead")
        parts.append(h.table("Newest first; times from the start of each", headings, rows))
        parts.append(_more(len(report.incidents) - PROSE, "keyturn incident list"))
    else:
        parts.append(_empty("No record of an incident is kept where this report was made."))
    parts.append(el("h3", "Drills"))
    if report.drills:
        rows = [
            (
                one.id,
                one.state.value,
                _names([subject.name for subject in one.subjects]),
                *(evidences.shown(getattr(one.times, name)) for name in ("contain", "replace", "prove", "outage")),
            )
            for one in report.drills[:PROSE]
        ]
        headings = ("Drill", "Result", "Secrets", "Contained", "Replaced", "Shown dead", "Longest outage")
        parts.append(h.table("Newest first; times from the moment the leak was reported", headings, rows))
        parts.append(_more(len(report.drills) - PROSE, "keyturn drill list"))
    else:
        parts.append(
            _empty("No drill was run from here. `keyturn drill` leaks a canary on purpose, and measures what follows.")
        )
    return parts


def _incident(one: Incident) -> tuple[str, ...]:
    totals = one.totals()
    times = (incidents.seconds(totals[name]) for name in ("contained_seconds", "replaced_seconds", "proven_seconds"))
    return (one.id, one.selected, _names([secret.name for secret in one.secrets]), incidents.state(one), *times)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown


def _more(count: int, command: str) -> Safe | None:
    return el("p", f"And {count:,} older ones: ", el("code", command), ".", class_="muted") if count > 0 else None


def _owners(report: Report) -> Sequence[Child]:
    if not report.owners:
        return [_empty("Nobody owns anything here yet.")]
    headings = (
        "Owner",
        "Secrets",
        "Within policy",
        "Overdue",
        "Not shown dead",
        "Next due",
        "Oldest",
        "Issuers",
        "Stores",
        "Consumers",
    )
    return [
        h.table(f"{_count(len(report.owners), 'owner')}, by name", headings, [_owner(one) for one in report.owners])
    ]


def _owner(one: Owner) -> tuple[Child, ...]:
    late = el("span", f"▲ {one.now.overdue:,}", class_="mark bad") if one.now.overdue else "0"
    alive = el("span", f"▲ {one.alive:,}", class_="mark bad") if one.alive else "0"
    share = _percent(one.now.share) if one.now.share is not None else NOTHING
    reach = (_names(one.issuers), _names(one.stores), _names(one.consumers) or "none declared")
    oldest = span(one.oldest) if one.oldest else NOTHING
    return (one.name, f"{one.now.secrets:,}", share, late, alive, _day(one.next_due_at), oldest, *reach)


# --- inventory and accounts ----------------------------------------------------------------------

_COLUMNS: Final = (
    ("name", "Secret"),
    ("standing", "Standing"),
    ("phase", "Phase"),
    ("owner", "Owner"),
    ("issuer", "Issuer"),
    ("store", "Stores"),
    ("age", "Age"),
    ("due", "Due"),
)


def _inventory(report: Report) -> Sequence[Child]:
    if not report.accounts:
        return [_empty("There is no secret: none is declared, none is applied, and the trail tells of none.")]
    owners = sorted({a.policy.owner for a in report.accounts if a.policy})
    kinds = [*(standing.value for standing in Standing), "not shown dead", "gone"]
    controls = el(
        "form",
        el("p", el("label", "Search", for_="search"), el("input", id="search", type="search", autocomplete="off", spellcheck="false",
           placeholder="name, owner, issuer, store, key id"), class_="grow"),
        el("p", el("label", "Standing", for_="standing"), _select("standing", kinds)),
        el("p", el("label", "Owner", for_="owner"), _select("owner", owners)),
        el("p", el("button", "Reset", type="reset")),
        class_="controls", role="search", aria_label="Inventory", hidden=True,
    )  # fmt: skip
    head = [
        el(
            "th",
            el("button", word, el("span", class_="arrow", aria_hidden="true"), type="button", data_by=key),
            scope="col",
            class_=f"c-{key}",
        )
        for key, word in _COLUMNS
    ]
    caption = "Every secret. A column's heading sorts by it."
    table = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", head)),
        el("tbody", [_row(number, account, report.at) for number, account in enumerate(report.accounts)], id="rows"),
        id="table",
    )
    return [
        controls,
        el("p", f"{_count(len(report.accounts), 'secret')}.", id="shown", role="status", class_="muted"),
        el("div", table, class_="wide", role="region", aria_label="Inventory table", tabindex="0"),
        el("p", el("button", "Show more", type="button", id="more"), hidden=True, id="rest"),
    ]


def _select(identity: str, words: Sequence[str]) -> Safe:
    return el("select", el("option", "all", value=""), [el("option", word, value=word) for word in words], id=identity)


def _row(number: int, a: Account, now: datetime) -> Safe:
    policy = a.policy
    phase = "gone" if a.phase is None else a.phase.value
    frozen = ", frozen" if a.frozen else ""
    return el(
        "tr",
        el("th", _link(a.name), scope="row"),
        el("td", _standing(a)),
        el("td", el("span", phase, class_="mark bad") if a.alive else phase + frozen, class_="c-phase"),
        el("td", policy.owner if policy else NOTHING, class_="c-owner"),
        el("td", policy.issuer if policy else NOTHING, class_="c-issuer"),
        el("td", " + ".join(policy.stores) if policy else NOTHING, class_="c-store"),
        el("td", _age(a, now), _share(a, now), class_="c-age"),
        el("td", _day(a.due_at), " ", el("span", _ahead(a.due_at, now), class_="muted") if a.due_at else None),
        hidden=number >= LISTED,
    )


def _standing(a: Account) -> Safe:
    style, shape = _MARKS[a.standing]
    word = "gone" if a.gone else a.standing.value
    return el("span", f"{shape} {word}", class_=f"mark {style}")


def _age(a: Account, now: datetime) -> str:
    age = a.age(now)
    if age is None:
        return NOTHING
    return f"{span(age)} of {span(a.policy.rotate_every)}" if a.policy else span(age)


def _share(a: Account, now: datetime) -> Safe | None:
    """How much of the allowed age is over, as a bar."""
    age = a.age(now)
    if age is None or a.policy is None:
        return None
    share = round(100 * min(age / a.policy.rotate_every, 1))
    style = "hot" if a.standing is Standing.OVERDUE else "fill"
    bar = el("rect", class_=style, width=share, height=4)
    return el("svg", bar, viewBox="0 0 100 4", preserveAspectRatio="none", class_="share", aria_hidden="true")


def _accounts(report: Report) -> Sequence[Child]:
    if not report.accounts:
        return [_empty("There is nothing to give an account of.")]
    told = (
        "Each secret from its creation on: every credential, when it was created, verified, promoted, superseded, revoked and "
        "shown dead, by which run, in which incident. Printing prints those that are open; where none is, all that are listed, "
        "a hundred at most, each on a page of its own."
    )
    none = el(
        "p", "Accounts, search and sorting need the script that this page carries; it is not running.", id="still"
    )
    return [
        el("p", told, class_="muted"),
        none,
        el("div", [_summary(number, account) for number, account in enumerate(report.accounts)], id="list"),
    ]


def _summary(number: int, a: Account) -> Safe:
    owner = el("span", a.policy.owner if a.policy else "gone", class_="muted")
    style = _MARKS[a.standing][0]
    mark = el(
        "span",
        "not shown dead" if a.alive else "gone" if a.gone else a.standing.value,
        class_=f"mark {'bad' if a.alive else style}",
    )
    head = el("summary", el("b", a.name), " ", owner, " ", mark)
    return el("details", head, id=_id(a.name), class_="account", data_n=number, hidden=number >= LISTED)


def _about(report: Report) -> Sequence[Child]:
    trail = report.trail
    if trail.where and trail.records:
        past = f"{trail.where}: {_count(trail.records, 'record')} from {_moment(trail.first)} to {_moment(trail.last)}."
    elif trail.where:
        past = f"{trail.where}: it has no record."
    else:
        past = "None could be read. Of the past, only what stores still keep is told."
    entries = (
        ("Stores", "One listing each, of names and metadata. No value was read, and no issuer was asked."),
        ("Audit trail", past + " That it is whole is not shown here: `keyturn audit verify` shows that."),
        ("Incidents, drills", "The records that are kept where this report was made."),
        (
            "Age",
            "Since the credential was promoted. It counts as overdue once it is older than its applied policy allows.",
        ),
        ("Due", f"When its schedule has it rotated. Due within a week means within {SOON.days} days."),
        (
            "Time to proof",
            "From the revocation until the credential was refused several times in a row, or was gone from the issuer's list.",
        ),
        ("Times", "UTC."),
    )
    return [el("dl", [el("div", el("dt", name), el("dd", _coded(told))) for name, told in entries], class_="about")]


# --- the data of accounts ------------------------------------------------------------------------


_ORDER: Final = {what: number for number, what in enumerate(What)}
_STATES: Final = {state: number for number, state in enumerate(State)}


class _Words:
    """Texts that are said many times, each kept once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}

    def of(self, word: str | None) -> int:
        """Its number; -1 for nothing."""
        if not word:
            return -1
        number = self._known.setdefault(word, len(self.all))
        if number == len(self.all):
            self.all.append(h.plain(word))
        return number


def _data(report: Report) -> dict[str, Any]:
    """What page.js reads. Times are seconds since 1970."""
    words = _Words()
    accounts = [_account(account, words) for account in report.accounts]
    actors = {words.of(writer): words.of(actor.who) for writer, actor in report.actors.items()}
    return {
        "at": _stamp(report.at),
        "listed": LISTED,
        "accounts": accounts,
        "actors": actors,
        "words": words.all,
        "steps": [what.value for what in What],
        "states": [state.value for state in State],
        "kinds": [kind.value for kind in Kind],
    }


def _account(a: Account, words: _Words) -> list[Any]:
    policy = a.policy
    return [
        h.plain(a.name),
        words.of(policy.owner if policy else ""),
        words.of("gone" if a.gone else a.standing.value),
        1 if a.alive else 0,
        words.of("gone" if a.phase is None else a.phase.value),
        words.of(policy.issuer if policy else ""),
        words.of(" + ".join(policy.stores) if policy else ""),
        _stamp(a.rotated_at),
        _stamp(a.due_at),
        [[words.of(name), words.of(told)] for name, told in _told(a) if told],
        [_life(life, words) for life in a.lives],
        [
            [list(Kind).index(e.kind), _stamp(e.at), words.of(e.text), words.of(e.run), words.of(e.incident)]
            for e in a.events
        ],
    ]


def _life(life: Life, words: _Words) -> list[Any]:
    """Its steps as one text, which is read when it is shown: `what,seconds since the step before,run,incident,note;…`.

    A run that is that of the step before is left out, and so is what is nothing.
    """
    key = life.key_id or f"token {life.token[:8]}"
    before, run, steps = _stamp(life.first) or 0, -1, []
    for step in life.steps:
        if step.what is What.REFUSED:
            continue  # the proof follows within seconds
        at, by = _stamp(step.at) or 0, words.of(step.run)
        numbers = (
            _ORDER[step.what],
            at - before,
            by if by != run else -1,
            words.of(step.incident),
            words.of(step.note),
        )
        steps.append(",".join("" if n < 0 and place > 1 else str(n) for place, n in enumerate(numbers)).rstrip(","))
        before, run = at, by
    return [h.plain(key), _STATES[life.state], _stamp(life.first) or 0, ";".join(steps)]


def _told(a: Account) -> Iterator[tuple[str, str]]:
    """The head of an account."""
    policy = a.policy
    yield "Entry", a.entry
    if policy:
        yield from _policy(policy)
    yield "Current key", a.key_id or ""
    yield "Current since", _moment(a.rotated_at) if a.rotated_at else ""
    yield "Due", f"{_moment(a.due_at)}{a.due_why and f', {a.due_why}'}" if a.due_at else ""
    yield "Overdue from", _moment(a.overdue_at) if a.overdue_at else ""
    yield "Failed", f"{a.failures} in a row: {a.error}" if a.failures else a.error
    yield "Frozen", a.frozen.told(a.name) if a.frozen else ""


def _policy(policy: Policy) -> Iterator[tuple[str, str]]:
    yield "Owner", policy.owner
    yield "Issuer", policy.issuer
    yield "Stores", " + ".join(policy.stores)
    yield (
        "Rotated",
        f"every {span(policy.rotate_every)} at the latest; the old credential lives on for {span(policy.grace)}",
    )
    yield (
        "Consumers",
        ", ".join(f"{c.name} (refreshes within {span(c.refresh_within)})" for c in policy.consumers) or "none declared",
    )
    yield "Paired with", policy.paired_with or ""


# --- in words ------------------------------------------------------------------------------------


def _coded(told: str) -> Safe:
    """A sentence in which commands stand between backticks."""
    parts = told.split("`")
    if len(parts) % 2 == 0:
        return h.text(told)
    return h.joined([el("code", part) if number % 2 else part for number, part in enumerate(parts)])


def _empty(told: str) -> Safe:
    return el("p", _coded(told), class_="empty")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _percent(share: float) -> str:
    """Never 100 % while something is missing, nor 0 % while something is there."""
    shown = f"{share:.1%}"
    if share < 1 and shown == "100.0%":
        shown = "99.9%"
    return shown.replace(".0%", "%")


def _seconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else span(timedelta(seconds=seconds))


def _date(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}" if at else NOTHING


def _day(at: datetime | None) -> Safe:
    return el("time", _date(at), datetime=_date(at)) if at else h.text(NOTHING)


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}Z" if at else NOTHING


def _time(at: datetime) -> Safe:
    return el("time", _moment(at), datetime=at.astimezone(UTC).isoformat(timespec="seconds"))


def _ahead(at: datetime | None, now: datetime) -> str:
    if at is None:
        return ""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def _stamp(at: datetime | None) -> int | None:
    return int(at.timestamp()) if at else None
