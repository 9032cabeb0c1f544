"""Reads what GitGuardian knows: incidents of its API, its webhook's events, and what ggshield writes.

Source: api.gitguardian.com/docs (v1, `/incidents/secrets`, `/public-incidents/secrets`), as github.com/GitGuardian/
py-gitguardian models it (pygitguardian/models.py: SecretIncident, SecretOccurrence): incidents have no values, only
`hmsl_hash`. "Public exposure" on docs.gitguardian.com, for API users: `secret_hash` is internal, `hmsl_hash` is that of
HasMySecretLeaked. github.com/GitGuardian/ggshield 1.x: ggshield/verticals/secret/output/schemas.py (0511b73),
secret_json_output_handler.py (01351a4); without `--show-secrets` all but the first and last sixth of a match is stars
(ggshield/core/filter.py, censor_string, 0768d87).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from rotation.leaks.reports import fields
from rotation.leaks.reports.gathering import Hit, Skip, names_secret
from rotation.model import SecretValue

_WORKS: Final = {"valid": True, "invalid": False}
_PEPPER: Final = hashlib.sha256(b"GitGuardian").digest()
_NO_SECRETS: Final = frozenset({"host", "port", "username", "database", "scheme", "protocol", "login", "email"})
"""Kinds of match that are beside the secret in an incident of several."""
_LEFT: Final = frozenset("*+-")
_SCANS: Final = 10_000


def hmsl(value: SecretValue) -> str:
    """What `Finding.hashed` of an incident is, if the incident is of this value. Takes some 5 ms and 2 MiB.

    The hash of HasMySecretLeaked, whose pepper is public: scrypt with N = 2048, r = 8, p = 1, 32 bytes (ggshield,
    hmsl/crypto.py, 4968dc3). What it is of where a secret has several parts is not documented.
    """
    digest = hashlib.scrypt(value.reveal().encode("utf-8", "surrogatepass"), salt=_PEPPER, n=2048, r=8, p=1, dklen=32)
    return f"hmsl:{digest.hex()}"


# --- incidents -------------------------------------------------------------------------------------


def read(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hit of one incident, or of one event about one; None for an object that is neither."""
    incident = item.get("incident")
    if isinstance(incident, dict) and _is_incident(incident):
        return _incident(incident)
    return _incident(item) if _is_incident(item) else None


def _is_incident(item: Mapping[str, object]) -> bool:
    return bool(item.keys() & {"hmsl_hash", "secret_hash"}) or {"gitguardian_url", "detector"} <= item.keys()


def _incident(item: Mapping[str, object]) -> Iterator[Hit | Skip]:
    digest = fields.text(item, "hmsl_hash").lower()
    page = fields.text(item, "gitguardian_url", "share_url")
    occurrences = list(fields.objects(item.get("occurrences")))
    status = fields.text(item, "status").lower()
    reason = fields.text(item, "ignore_reason", "resolve_reason")
    spots = [_occurrence(each) for each in occurrences]
    first = next(filter(None, spots), "")
    yield Hit(
        source="gitguardian",
        hashed=f"hmsl:{digest}" if digest else "",
        rule=fields.text(fields.mapping(item, "detector"), "name", "display_name"),
        place=f"{first}, {page}" if first and page else first or page,
        found_at=fields.moment(item, "date", "triggered_at"),
        since=min(filter(None, (fields.moment(each, "date") for each in occurrences)), default=None),
        public=_public(item, occurrences),
        works=_WORKS.get(fields.text(item, "validity")),
        status=f"{status}: {reason}" if status and reason else status,
    )


def _occurrence(item: Mapping[str, object]) -> str:
    within = fields.text(fields.mapping(item, "source"), "full_name", "url")
    here = fields.place(fields.text(item, "filepath"), 0, fields.text(item, "sha"), within=within)
    return here or fields.text(item, "url")


def _public(item: Mapping[str, object], occurrences: list[Mapping[str, object]]) -> bool | None:
    if "/public-incidents/" in fields.text(item, "gitguardian_url", "share_url"):
        return True
    seen = {fields.text(fields.mapping(each, "source"), "visibility") for each in occurrences}
    if "public" in seen:
        return True
    # The incident may have more occurrences than those that came along, so that these do not show that it is private.
    return None


# --- ggshield --------------------------------------------------------------------------------------


def read_scan(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hits of one `ggshield secret scan --json`; None for an object that is none."""
    if "total_incidents" not in item or not item.keys() & {"type", "scans", "entities_with_incidents"}:
        return None
    return _scans(item)


def _scans(item: Mapping[str, object]) -> Iterator[Hit | Skip]:
    waiting = [item]
    for number in range(_SCANS):
        if not waiting:
            return
        scan = waiting.pop()
        waiting += reversed(list(fields.objects(scan.get("scans"))))
        within = fields.text(scan, "id") if number else ""
        for entity in fields.objects(scan.get("entities_with_incidents")):
            for incident in fields.objects(entity.get("incidents")):
                yield from _scanned(incident, fields.text(entity, "filename"), within)
    if waiting:
        yield Skip(f"beyond the first {_SCANS:,} scans of one report")


def _scanned(incident: Mapping[str, object], path: str, within: str) -> Iterator[Hit | Skip]:
    """One incident of a file: its matches are the parts of one secret, again for each occurrence."""
    parts: dict[str, str] = {}
    line = 0
    for match in fields.objects(incident.get("occurrences")):
        kind = fields.text(match, "type", "match_type")
        text = fields.text(match, "match")
        if text and kind not in _NO_SECRETS:
            parts.setdefault(text, kind)
            line = line or fields.number(match, "line_start")
    texts = sorted(parts, key=lambda text: not names_secret(parts[text]))
    clear = [text for text in texts if not _censored(text)]
    if not texts:
        yield Skip("without a match that is text")
        return
    details = fields.mapping(incident, "incident_details")
    digest = fields.text(details, "hmsl_hash").lower()
    yield Hit(
        source="gitguardian",
        whole=clear[0] if clear else "",
        parts=clear[1:],
        redacted="" if clear else texts[0],
        hashed=f"hmsl:{digest}" if digest and not clear else "",
        rule=fields.text(incident, "break_type", "type"),
        place=fields.place(path, line, within=within) or fields.text(incident, "incident_url"),
        works=_WORKS.get(fields.text(incident, "validity")),
        found_at=fields.moment(details, "date"),
    )


def _censored(text: str) -> bool:
    """Whether its middle is nothing but stars, and what ggshield lets stand among them, and is most of it."""
    first, last = text.find("*"), text.rfind("*")
    middle = text[first : last + 1]
    stars = middle.count("*")
    return stars >= 2 and 2 * len(middle) >= len(text) and all(c in _LEFT or c.isspace() for c in middle)
