"""From what readers found to findings: each value once, parts told apart, nothing left in the words around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from rotation.leaks.finding import Finding
from rotation.model import MASK, SecretValue

SHORTEST: Final = 8
"""Characters. What is shorter is no credential, and masking it would blot out ordinary words of the log."""
LONGEST: Final = 65_536
"""Characters. No store that is known holds a longer value: Secrets Manager 65,536 bytes, Key Vault 25,000."""
_PARTS: Final = 16
_WORDS: Final = 4_096
"""Characters of what goes around a value; what is longer is nothing that a person would want to read."""
_SHOWN: Final = 200

_AWS_KEY_ID: Final = re.compile(r"(?:AKIA|ASIA)[A-Z2-7]{16}")
"""An access key's id, long-lived or temporary (IAM User Guide, "IAM identifiers: unique ID prefixes", 2025). The one kind
of id that is taken for one by its looks: gitleaks, trufflehog and GitHub all report it in the field for the secret."""
_TELLING: Final = re.compile(r"secret|passw|pwd|key|token|credential|value", re.IGNORECASE)
_NAMING: Final = re.compile(r"(?:_id|Id|ID|_uri|_url|Url|_type)$")
_LEFT_OUT: Final = re.compile(r"\*{2,}|\.{3,}|…|•{2,}|\bREDACTED?\b", re.IGNORECASE)
_HASHED: Final = re.compile(r"[a-z0-9]{2,16}:[0-9a-f]{32,128}")
_ADDRESS: Final = re.compile(r"https://[!-~]{1,500}")
_SPLITS: Final = (
    re.compile(r"\s+"),
    re.compile(r"[\s?&=#;,\"'()<>]+"),
    re.compile(r"[\s?&=#;,\"'()<>:@]+"),
    re.compile(r"[\s?&=#;,\"'()<>:@/\\.]+"),
)
"""What may stand around a value in a path or an address, the marks that values may have themselves from one to the next."""


@dataclass(frozen=True, slots=True)
class Skip:
    """An entry, or a part of one, that no finding comes of."""

    why: str
    at: str = ""
    """Where in the entry, if that has several."""


@dataclass(slots=True, repr=False, kw_only=True)
class Hit:
    """One place of a report, as its reader found it: every text as it is there, of any length and content."""

    source: str
    whole: str = ""
    """The value; with none, and nothing of the next three either, the report withholds it."""
    parts: Sequence[str] = ()
    redacted: str = ""
    hashed: str = ""
    rule: str = ""
    place: str = ""
    found_at: datetime | None = None
    since: datetime | None = None
    public: bool | None = None
    works: bool | None = None
    status: str = ""
    lookup: str = ""
    at: str = ""
    lies: tuple[str, int] | None = None
    """File and line, where the report has no value and the file may lie here."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What of a report could not be read, for one reason."""

    why: str
    count: int
    first: tuple[str, ...]
    """Where the first of them stand: `line 17`, `entry 3`."""

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return f"{', '.join(self.first)}{more}: {self.why}"


class TooMany(Exception):  # noqa: N818 - caught by the one who set the limit
    """More than a limit allows; the message is the limit."""


@dataclass(slots=True, repr=False)
class _Draft:
    """A finding that may get more hits yet."""

    hit: Hit
    value: SecretValue | None
    parts: tuple[SecretValue, ...]
    key_id: str
    places: dict[str, None] = field(default_factory=dict)
    hits: int = 1


class Gathering:
    """Takes hits, and makes of all that are of one value one finding.

    Parameters:
        findings: how many different ones there may be.
        places: how many places of one are named.
        entries: how many hits, and what is skipped, there may be in all.
    """

    def __init__(self, findings: int, places: int, entries: int = 1) -> None:
        self._findings: Final = findings
        self._places: Final = places
        self._entries: Final = entries
        self._taken = 0
        self._drafts: dict[tuple[str, ...], _Draft] = {}
        self._skipped: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def skip(self, why: str, where: str) -> None:
        """Notes what could not be read.

        Raises:
            TooMany: see add().
        """
        self._count()
        self._note(why, where)

    def _count(self) -> None:
        self._taken += 1
        if self._taken > self._entries:
            raise TooMany(f"{self._entries:,} entries")

    def _note(self, why: str, where: str) -> None:
        self._counts[why] = self._counts.get(why, 0) + 1
        first = self._skipped.setdefault(why, [])
        if len(first) < self._places:
            first.append(where)

    def add(self, hit: Hit, where: str) -> None:
        """Takes one hit; one whose value can not be a credential is noted as skipped.

        Raises:
            TooMany: it is one more, or of one finding more, than there may be.
        """
        self._count()
        if hit.whole and (why := unfit(hit.whole)):
            self._note(why, where)
            return
        texts = tuple(_distinct(hit.whole, hit.parts))
        ids = [text for text in texts if _AWS_KEY_ID.fullmatch(text)]
        secrets = [text for text in texts if text not in ids]
        hit.redacted = shortened(hit.redacted) if hit.redacted and not texts else ""
        hit.hashed = hit.hashed if _HASHED.fullmatch(hit.hashed) and not texts else ""
        key = (*texts, hit.redacted, hit.hashed)
        if not any(key):
            key = ("withheld", hit.source, hit.lookup, hit.place)
        draft = self._drafts.get(key)
        if draft is not None:
            _merge(draft, hit)
        else:
            if len(self._drafts) >= self._findings:
                raise TooMany(f"{self._findings:,} different findings")
            whole = secrets[0] if secrets and secrets[0] == hit.whole else None
            rest = secrets[1:] if whole is not None else secrets
            value = SecretValue(whole) if whole is not None else None
            draft = _Draft(hit, value, tuple(SecretValue(text) for text in rest), ids[0] if ids else "")
            self._drafts[key] = draft
        if hit.place and len(draft.places) < self._places:
            draft.places[hit.place] = None
        hit.whole, hit.parts = "", ()

    def results(self) -> tuple[tuple[Finding, ...], tuple[Skipped, ...]]:
        """What all of it came to. The words of a finding are free of its own values, and of those of any other that
        stand between blanks or marks there.
        """
        known = {
            value.reveal().strip()
            for draft in self._drafts.values()
            for value in (*draft.parts, *([draft.value] if draft.value else ()))
        }
        findings = tuple(_finished(draft, known) for draft in self._drafts.values())
        skipped = tuple(Skipped(why, self._counts[why], tuple(first)) for why, first in self._skipped.items())
        return findings, skipped


def unfit(text: str) -> str:
    """Why this is no credential's value: `shorter than 8 characters`; empty where it may be one."""
    if len(text.strip()) < SHORTEST:
        return f"shorter than {SHORTEST} characters"
    if len(text) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    return "" if _is_text(text) else "no text that could be encoded"


def shortened(text: str) -> str:
    """A redacted form as Finding has it; empty where nothing of the value is left, as in `REDACTED`.

    Of a connection string with its password left out nothing of the password is left, and of a form without any mark it
    is not known where something is missing.
    """
    marks = [] if "://" in text or len(text) > LONGEST else list(_LEFT_OUT.finditer(text))
    if not marks:
        return ""
    head, tail = text[: marks[0].start()], text[marks[-1].end() :]
    head = head[:16] if tail else head[:8]
    return f"{head}...{tail[-4:]}" if head or tail else ""


def _distinct(whole: str, parts: Sequence[str]) -> Iterator[str]:
    """The whole and what may be fields in it, each once."""
    seen: set[str] = set()
    for text in (whole, *parts, *_fields(whole)):
        if text not in seen and len(seen) <= _PARTS and text and not unfit(text):
            seen.add(text)
            yield text


def _fields(whole: str) -> Iterator[str]:
    """What is secret in a value of several fields: a JSON object, or an address with a password."""
    if whole.lstrip().startswith("{"):
        try:
            found = json.loads(whole)
        except (ValueError, RecursionError):
            return
        yield from named_secrets(found)
    elif "://" in whole and "@" in whole:
        try:
            password = urlsplit(whole.strip()).password
        except ValueError:
            return
        if password:
            yield from (password, unquote(password))


def named_secrets(fields: object) -> Iterator[str]:
    """The texts in this mapping whose names say that they are secret: `clientSecret`, but not `clientId`."""
    if isinstance(fields, dict):
        for name, value in fields.items():
            if isinstance(value, str) and names_secret(name):
                yield value


def names_secret(name: str) -> bool:
    """Whether a field of this name holds what is secret of a credential, and not its id or address."""
    return bool(_TELLING.search(name) and not _NAMING.search(name))


def _is_text(text: str) -> bool:
    """Whether there are no lone surrogates in it, which no store or issuer takes."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _merge(draft: _Draft, hit: Hit) -> None:
    """Takes a further hit of the same value in: the earliest dates, the worst news."""
    kept = draft.hit
    draft.hits += 1
    kept.found_at = _earlier(kept.found_at, hit.found_at)
    kept.since = _earlier(kept.since, hit.since)
    kept.public = True if True in (kept.public, hit.public) else None if None in (kept.public, hit.public) else False
    # Seen to work once counts more than refused once: it may have been somebody else's endpoint that refused it.
    kept.works = True if True in (kept.works, hit.works) else kept.works if hit.works is None else hit.works


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(one, other) if one and other else one or other


def _finished(draft: _Draft, known: set[str]) -> Finding:
    hit = draft.hit
    own = [value.reveal().strip() for value in (draft.value, *draft.parts) if value is not None]
    where = "; ".join(filter(None, (_told(place, own, known) for place in draft.places)))
    if draft.hits > max(len(draft.places), 1):
        where = f"{where}; {draft.hits:,} hits in all" if where else f"{draft.hits:,} hits"
    redacted = hit.redacted if _told(hit.redacted, own, known) == hit.redacted else ""
    lookup = (
        hit.lookup
        if _ADDRESS.fullmatch(hit.lookup) and _told(hit.lookup, own, known, most=_WORDS) == hit.lookup
        else ""
    )
    return Finding(
        source=hit.source,
        value=draft.value,
        redacted=redacted or None,
        rule=_told(hit.rule, own, known),
        where=where,
        found_at=hit.found_at,
        public=hit.public,
        parts=draft.parts,
        key_id=draft.key_id,
        hashed=hit.hashed,
        hits=draft.hits,
        since=hit.since,
        works=hit.works,
        status=_told(hit.status, own, known),
        lookup=lookup,
    )


def _told(text: str, own: Iterable[str], known: set[str], most: int = _SHOWN) -> str:
    """The text as people and terminals may have it: no value, no control characters, and not long."""
    if len(text) > _WORDS:
        return ""
    for value in own:
        text = text.replace(value, MASK)
    for splits in _SPLITS:
        for word in splits.split(text):
            if word in known:
                text = text.replace(word, MASK)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"
