"""The applied policy of one secret as it stands in its primary store's metadata.

Short strings under fixed keys, in the characters that a Secrets Manager tag may hold, so that a
function that is handed nothing but a secret's id can act, and a person can read it in a console.
Pulumi writes it, the engine only reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Final

from rotation import form as forms
from rotation.model import Consumer, Drain, Ending, Policy

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
    "form",
)
"""Every key that a written policy may have; optional ones are left out when empty. Those that start with
`tag.` are the user's own tags."""

TAG: Final = "tag."

_UNITS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:[0-9]{1,10}[wdhms])+")


def read_duration(text: str) -> timedelta:
    """`30d`, `36h`, `1h30m`. Raises ValueError with what is allowed."""
    try:
        if _DURATION.fullmatch(text):
            return timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)([wdhms])", text)))
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
    }
    strings["form"] = forms.encoded(policy.form)
    return {key: text for key, text in strings.items() if text} | {f"{TAG}{name}": text for name, text in policy.tags}


def read(strings: Mapping[str, str]) -> Policy:
    """A policy from metadata. Raises ValueError naming the key that is missing or can not be read."""
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
            form=form,
            tags=tuple(sorted((k.removeprefix(TAG), text) for k, text in strings.items() if k.startswith(TAG))),
        )
    except (KeyError, ValueError) as error:
        message = f"applied policy: {key!r} is missing or can not be read"
        raise ValueError(message) from error
