"""What a described vendor can do, in words: for `keyturn issuer`, and for the tables of docs/issuers.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rotation.policy import show_duration

if TYPE_CHECKING:
    from providers.issuers.description import Description

HEADINGS: Final = (
    "kind",
    "model",
    "fields",
    "lists",
    "last use",
    "counts",
    "disables",
    "expiry",
    "revokes",
    "new key works within",
    "old key is refused within",
)


def row(kind: str, about: Description) -> list[str]:
    """One vendor's cells, under HEADINGS."""
    from providers.issuers.language import credential_fields  # noqa: PLC0415

    listing, used, times = about.listing, about.last_use, about.capabilities
    expires = any(way.expires_at or way.expiry for way in about.mint)
    revokes = "a new value in the slot" if about.slots else "by key" if about.revoke else "a person does"
    return [
        kind,
        {"mint": "mint", "slots": f"{len(about.slots)} slots", "manual": "manual"}[about.model],
        ", ".join(credential_fields(about)),
        "no" if listing is None else "yes, with values" if listing.returns_secrets else "yes",
        "no" if used is None else f"yes, to {show_duration(used.granularity)}",
        "no" if about.usage is None else f"per {show_duration(about.usage.width)}",
        "yes" if about.disable else "no",
        "yes" if expires else "no",
        revokes,
        show_duration(times.create.timeout),
        show_duration(times.revoke.timeout),
    ]


def markdown() -> str:
    """The table of all vendors that come with Keyturn."""
    from providers.issuers.reading import shipped, shipped_kinds  # noqa: PLC0415

    rows = [HEADINGS, tuple("---" for _ in HEADINGS), *(row(kind, shipped(kind)) for kind in shipped_kinds())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
