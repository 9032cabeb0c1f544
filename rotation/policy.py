"""The applied policy of one secret as it stands in its primary store's metadata.

Short strings under fixed keys, in the characters that a Secrets Manager tag may hold, so that a
function that is handed nothing but a secret's id can act, and a person can read it in a console.
Pulumi writes it, the engine only reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final

from rotation import form as forms
from rotation.model import Blackout, Consumer, Drain, Ending, Policy, Restraint, Schedule, Window

KEYS: Final = (
    "installation",
    "environment",
    "name",
    "store",
    "replicas",
    "issuer",
    "owner",
    "rotate-every",
    "grace",
    "drain",
    "contain-after",
    "consumers",
    "paired-with",
    "smoke-test",
    "allowed-cidrs",
    "allowed-vpces",
    "form",
    "rotation",
    "schedule",
)
"""Every key that a written policy may have; optional ones are left out when empty. Those that start with
`tag.` are the user's own tags."""

NETWORKS: Final = ("allowed-cidrs", "allowed-vpces")
"""Those of the keys that a store may enforce by itself."""
TAG: Final = "tag."

LONGEST: Final = timedelta(days=36_500)
"""Longer spans mean nothing, and could not be added to a date."""
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000
_UNITS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:[0-9]{1,10}[wdhms])+")


def read_duration(text: str) -> timedelta:
    """`30d`, `36h`, `1h30m`. Raises ValueError with what is allowed."""
    try:
        if _DURATION.fullmatch(text):
            span = timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)([wdhms])", text)))
            if span <= LONGEST:
                return span
    except OverflowError:
        pass  # more than a timedelta holds
    message = f"{text!r} is not a duration; write a number and one of w, d, h, m, s, as in 30d or 1h30m"
    raise ValueError(message)


def show_duration(span: timedelta) -> str:
    """The exact form of a whole number of seconds, largest units first: `30d`, `1h30m`, `0s`."""
    left, parts = int(span.total_seconds()), []
    for unit in "dhms":
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


# --- schedules -----------------------------------------------------------------------------------

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WINDOW: Final = re.compile(r"((?:[A-Za-z]{3}(?:-[A-Za-z]{3})? )+)([0-9]{2}):([0-5][0-9])-([0-9]{2}):([0-5][0-9])")
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2})?")
_MIDNIGHT: Final = 24 * 60
_CRON: Final = ("*,# ", "@+:_")
"""What a tag can not hold of a cron expression, and what stands for it: no expression has that."""
_PLAIN: Final = Schedule()
_NOTHING: Final = "nothing"


def read_window(text: str) -> Window:
    """`Sun 02:00-05:00`, `Mon-Fri 22:00-04:00`: one that closes before it opens lasts into the next day.

    Raises:
        ValueError: with what is wrong.
    """
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError("is not a window")
    days: set[int] = set()
    for word in found[1].split():
        first, _, last = word.partition("-")
        start, end = (_day(name) for name in (first, last or first))
        days |= {day % 7 for day in range(start, (end if end >= start else end + 7) + 1)}
    opens, closes = int(found[2]) * 60 + int(found[3]), int(found[4]) * 60 + int(found[5])
    if opens >= _MIDNIGHT or closes > _MIDNIGHT:
        raise ValueError("has a time after 24:00")
    return Window(tuple(sorted(days)), opens, closes if closes > opens else closes + _MIDNIGHT)


def _day(name: str) -> int:
    if name.capitalize() not in _DAYS:
        raise ValueError(f"has no day {name}")
    return _DAYS.index(name.capitalize())


def show_window(window: Window) -> str:
    """The form that read_window() reads."""
    closes = window.closes if window.closes <= _MIDNIGHT else window.closes - _MIDNIGHT
    hours = f"{window.opens // 60:02}:{window.opens % 60:02}-{closes // 60:02}:{closes % 60:02}"
    return f"{' '.join(_DAYS[day] for day in window.days)} {hours}"


def read_moment(text: str, *, end: bool = False) -> datetime:
    """`2026-12-18` or `2026-12-18T18:00`, naive; at the end of a range a date is all of its day. Raises ValueError."""
    if not _MOMENT.fullmatch(text) or not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise ValueError("is not a date, or too far away")
    if "T" in text:
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time()) + timedelta(days=int(end))


def show_moment(moment: datetime, *, end: bool = False) -> str:
    """The form that read_moment() reads."""
    if moment.time() != time():
        return moment.strftime("%Y-%m-%dT%H:%M")
    return (moment - timedelta(days=int(end))).strftime("%Y-%m-%d")


def written_schedule(schedule: Schedule) -> str:
    """A schedule in words that a tag can hold, and a person read; empty for a plain interval."""
    words = [
        *([("every", show_duration(schedule.every))] if schedule.every else []),
        *([("cron", schedule.cron.translate(str.maketrans(*_CRON)))] if schedule.cron else []),
        *([("zone", schedule.zone)] if schedule.zone != _PLAIN.zone else []),
        *(("window", show_window(window).replace(" ", "_")) for window in schedule.windows),
        *(
            ("blackout", f"{show_moment(b.start)}/{show_moment(b.end, end=True)}/{b.reason.replace(' ', '_')}")
            for b in schedule.blackouts
        ),
        *(("jitter", show_duration(span)) for span in [schedule.jitter] if span),
        *(("earliest", show_duration(span)) for span in [schedule.earliest] if span),
        *([("overrides", "+".join(schedule.overrides) or _NOTHING)] if schedule.overrides != _PLAIN.overrides else []),
    ]
    return " ".join(f"{name}={text}" for name, text in words)


def read_schedule(text: str) -> Schedule:
    """What written_schedule() wrote. Raises ValueError or KeyError when nothing of ours did."""
    said: dict[str, list[str]] = {}
    for name, given in (word.split("=", 1) for word in text.split()):
        said.setdefault(name, []).append(given)
    one = {name: given[-1] for name, given in said.items()}
    overrides = one.get("overrides", "+".join(_PLAIN.overrides))
    blackouts = (given.split("/", 2) for given in said.get("blackout", ()))
    return Schedule(
        every=read_duration(one["every"]) if "every" in one else None,
        cron=one.get("cron", "").translate(str.maketrans(*reversed(_CRON))),
        zone=one.get("zone", _PLAIN.zone),
        windows=tuple(read_window(given.replace("_", " ")) for given in said.get("window", ())),
        blackouts=tuple(
            Blackout(read_moment(start), read_moment(end, end=True), reason.replace("_", " "))
            for start, end, reason in blackouts
        ),
        jitter=read_duration(one.get("jitter", "0s")),
        earliest=read_duration(one.get("earliest", "0s")),
        overrides=() if overrides == _NOTHING else tuple(Restraint(word) for word in overrides.split("+")),
    )


# --- whole policies ------------------------------------------------------------------------------


def written(policy: Policy) -> dict[str, str]:
    """The policy as metadata strings; read() gives it back."""
    drain = policy.drain
    strings = {
        "installation": policy.installation,
        "environment": policy.environment,
        "name": policy.name,
        "store": policy.store,
        "replicas": " ".join(policy.replicas),
        "issuer": policy.issuer,
        "owner": policy.owner,
        "rotate-every": show_duration(policy.rotate_every),
        "grace": show_duration(policy.grace),
        "drain": f"{show_duration(drain.quiet_for)} {show_duration(drain.at_most)} {drain.then.value}",
        "contain-after": show_duration(policy.contain_after),
        "consumers": " ".join(f"{c.name}={show_duration(c.refresh_within)}" for c in policy.consumers),
        "paired-with": policy.paired_with or "",
        "smoke-test": "yes" if policy.smoke_test else "",
        "allowed-cidrs": " ".join(policy.allowed_cidrs),
        "allowed-vpces": " ".join(policy.allowed_vpces),
    }
    strings["form"] = forms.encoded(policy.form)
    strings["schedule"] = written_schedule(policy.schedule)
    strings["rotation"] = "native" if policy.native else ""
    return {key: text for key, text in strings.items() if text} | {f"{TAG}{name}": text for name, text in policy.tags}


def read(strings: Mapping[str, str]) -> Policy:
    """A policy from metadata. Raises ValueError naming the key that is missing or can not be read."""
    if not strings:
        message = "no policy is applied to it (`keyturn adopt` takes over what was there before)"
        raise ValueError(message)
    return _read(frozenset(strings.items()))


@lru_cache(maxsize=1024)
def _read(items: frozenset[tuple[str, str]]) -> Policy:
    """Cached: a run reads the same policy at every look."""
    strings, key = dict(items), ""
    try:
        quiet, most, then = strings[key := "drain"].split(" ")
        drain = Drain(read_duration(quiet), read_duration(most), Ending(then))
        key = "consumers"
        pairs = (pair.rsplit("=", 1) for pair in strings.get(key, "").split())
        consumers = tuple(Consumer(name, read_duration(within)) for name, within in pairs)
        form = forms.decoded(strings.get(key := "form", ""))
        if (fault := forms.fault(form)) is not None:
            raise ValueError(fault)  # noqa: TRY301 - told like whatever else can not be read
        schedule = read_schedule(strings.get(key := "schedule", ""))
        return Policy(
            installation=strings[key := "installation"],
            environment=strings[key := "environment"],
            name=strings[key := "name"],
            store=strings[key := "store"],
            replicas=tuple(strings.get("replicas", "").split()),
            issuer=strings[key := "issuer"],
            owner=strings[key := "owner"],
            rotate_every=read_duration(strings[key := "rotate-every"]),
            grace=read_duration(strings[key := "grace"]),
            drain=drain,
            contain_after=read_duration(strings[key := "contain-after"]),
            consumers=consumers,
            paired_with=strings.get("paired-with") or None,
            smoke_test=strings.get("smoke-test") == "yes",
            allowed_cidrs=tuple(strings.get("allowed-cidrs", "").split()),
            allowed_vpces=tuple(strings.get("allowed-vpces", "").split()),
            native=strings.get("rotation") == "native",
            form=form,
            schedule=schedule,
            tags=tuple(sorted((k.removeprefix(TAG), text) for k, text in strings.items() if k.startswith(TAG))),
        )
    except (KeyError, ValueError) as error:
        message = f"applied policy: {key!r} is missing or can not be read"
        raise ValueError(message) from error
