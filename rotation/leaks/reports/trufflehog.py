"""Reads the JSON lines of trufflehog 3 (`--json`).

Source: github.com/trufflesecurity/trufflehog v3: pkg/output/json.go (0a99a12: the object printed), pkg/detectors/
detectors.go (043cb3d: Raw, RawV2, Redacted), proto/source_metadata.proto (02e5a6b: SourceMetadata.Data), pkg/detectors/aws/
access_keys/accesskey.go (058cb2d) and its like. Raw is the id *or* the secret of a credential that has both, as its detector
has it (for AWS the id); RawV2 is the two in one, joined by a colon or by nothing, or an address, or a JSON object.
SecretParts, of later versions, has the parts by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rotation.leaks.reports import fields
from rotation.leaks.reports.gathering import Hit, Skip, named_secrets

_NUMBERED: tuple[bool | None, ...] = (True, False, None, None)
"""Whether the visibilities public, private, shared and unknown of source_metadata.proto are public. Of a public one Go
writes nothing at all, like of one that nobody has set."""


def read(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hit of one line; None for an object that is none of trufflehog's."""
    if "DetectorName" not in item or not item.keys() & {"Raw", "RawV2", "Redacted", "SourceMetadata"}:
        return None
    return _line(item)


def _line(item: Mapping[str, object]) -> Iterator[Hit | Skip]:
    raw, both = fields.text(item, "Raw"), fields.text(item, "RawV2")
    redacted = fields.text(item, "Redacted")
    if not raw and not both and any(item.get(name) for name in ("Raw", "RawV2")):
        yield Skip("without a secret that is text")
        return
    metadata = fields.mapping(item, "SourceMetadata", "Data")
    source = next((each for each in metadata.values() if isinstance(each, dict)), {})
    whole = both or raw
    if not whole and redacted and not any(mark in redacted for mark in ("*", "...", "…")):
        whole = redacted  # An id, says the documentation; it may be a value as well, so it is held as one.
    yield Hit(
        source="trufflehog",
        whole=whole,
        parts=(*_parts(raw, both), *named_secrets(item.get("SecretParts"))),
        redacted="" if whole else redacted,
        rule=fields.text(item, "DetectorName"),
        place=_place(source),
        since=fields.moment(source, "timestamp", "created_at", "uploaded", "date_created"),
        public=_public(source),
        works=True if item.get("Verified") is True else None,
    )


def _parts(raw: str, both: str) -> Iterator[str]:
    if raw and both and raw != both:
        yield raw
        if both.startswith(raw):
            rest = both[len(raw) :]
        elif both.endswith(raw):
            rest = both[: -len(raw)]
        else:
            rest = ""
        if "://" not in both:  # Of an address the rest is a path or a host.
            yield rest.strip(":")
    if both.count(":") == 1 and not both.lstrip().startswith("{"):
        yield from both.split(":")


def _place(source: Mapping[str, object]) -> str:
    within = fields.text(
        source,
        "repository",
        "bucket",
        "container",
        "image",
        "package",
        "registry",
        "repo",
        "channel_name",
        "project_name",
    )
    path = fields.text(source, "file", "filename", "path", "page", "issue", "title", "location", "index")
    here = fields.place(path, fields.number(source, "line"), fields.text(source, "commit", "layer"), within=within)
    return here or fields.text(source, "link")


def _public(source: Mapping[str, object]) -> bool | None:
    told = source.get("visibility", source.get("public"))
    if isinstance(told, bool):
        return told
    if isinstance(told, int):
        return _NUMBERED[told] if 0 <= told < len(_NUMBERED) else None
    return {"public": True, "private": False}.get(told) if isinstance(told, str) else None
