"""What a notice says: the kinds that there are, what may be put into each, and the words. The standard library only.

Whoever makes a notice gives it a subject and a text. A stack may say either in its own words, with `$NAME` where one of
the kind's variables is put in, and `$$` for a dollar sign (string.Template).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from string import Template
from typing import Final, Protocol

from rotation.logs import masked
from rotation.ports import Notice

COMMON: Final = ("environment", "secret", "owner", "severity", "at", "kind", "subject", "text")
"""What every notice has. `subject` and `text` are the ones that Keyturn would have used."""
PARTS: Final = ("happened", "state", "next", "advice")
"""What a text of Keyturn's is made of."""

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "rotation.before": (*PARTS, "due_at", "overdue_at", "grace"),
    "rotation.done": (*PARTS, "key_id", "previous_key_id", "version", "grace_until", "consumers"),
    "rotation.failed": (*PARTS, "service", "code", "error", "key_id", "overdue_at"),
    "rotation.hold": (*PARTS, "cause", "reason", "key_id", "overdue_at"),
    "rotation.resolved": (*PARTS, "key_id"),
    "incident.begun": ("incident", "key_id"),
    "incident.replaced": ("incident", "key_id"),
    "incident.over": ("incident", "key_id"),
    "incident.stuck": ("incident", "key_id"),
    "incident.reported": ("incident",),
    "incident.revoked": ("issuer", "key_id"),
    "usage.retired": (*PARTS, "key_id", "requests", "role"),
    "usage.jump": (*PARTS, "key_id", "requests", "role"),
    "test": (),
}
"""By kind, the variables that it has beside the common ones."""

_EVENTS: Final = {
    "rotation.before": "before",
    "rotation.done": "done",
    "rotation.failed": "failed",
    "rotation.hold": "hold",
}


def event(kind: str) -> str:
    """What an owner's `on` calls a kind. A resolution is told to those who were told of what it resolves."""
    return _EVENTS.get(kind, kind.partition(".")[0])


class Words(Protocol):
    """A stack's own words for one kind."""

    @property
    def subject(self) -> str | None: ...

    @property
    def text(self) -> str | None: ...


def faults(kind: str, part: str, text: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a template: message, and what is allowed.

    Parameters:
        part: `subject` or `text`.
    """
    known = sorted({*COMMON, *KINDS[kind]})
    allowed = ", ".join(f"${name}" for name in known)
    template = Template(text)
    if not template.is_valid():
        yield "has a $ that no name follows", f"$$ for a dollar sign; {allowed}"
        return
    for name in template.get_identifiers():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            yield f"has no variable ${name}" + (f" (did you mean ${near[0]}?)" if near else ""), allowed
    if part == "subject" and len(text.splitlines()) > 1:
        yield "is more than one line", "one line"


def rendered(notice: Notice, words: Words | None) -> tuple[str, str]:
    """Subject and text of a notice, in a stack's own words where it has them.

    What a notice does not have is left empty. Whatever holds a value that lives in this process is masked: no notice
    should, but what services say is quoted in them.
    """
    facts = dict.fromkeys(KINDS.get(notice.kind, ()), "") | dict(notice.facts)
    facts |= {
        "environment": notice.environment,
        "secret": notice.secret,
        "owner": notice.owner,
        "severity": notice.severity.value,
        "at": shown(notice),
        "kind": notice.kind,
        "subject": notice.subject,
        "text": notice.text,
    }

    def said(template: str | None, usual: str) -> str:
        return Template(template).safe_substitute(facts) if template else usual

    subject = said(words.subject if words else None, notice.subject)
    text = said(words.text if words else None, notice.text)
    return masked(" ".join(subject.split())), masked(text)


def shown(notice: Notice) -> str:
    """When it happened, for people."""
    return f"{notice.at:%Y-%m-%d %H:%M}Z"


def composed(happened: str, state: str, then: str, advice: str) -> str:
    """The usual text of a notice."""
    return f"{happened}\n\nNow: {state}\nNext, by itself: {then}\nYou can: {advice}"
