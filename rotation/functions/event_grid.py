"""What Azure Event Grid posts about a Key Vault: read leniently, understood strictly. The standard library only.

Both envelopes, Event Grid's own and CloudEvents 1.0, one event or an array of them. Lenient: upper and lower case
of a member's name, blanks round names and texts, numbers as text, members that nobody knows. Strict: which secret
is meant stands in up to three places of an event (`subject`, the object's name, its address) and which vault in up
to three others, and all that are there must say the same, or the event counts as mangled.

Facts from "Azure Key Vault as Event Grid source", "Azure Event Grid event schema" and "CloudEvents v1.0 schema with
Azure Event Grid": the published samples spell members `objectName ` and `ObjectName`, begin a version with a blank,
and have `nbf` and `exp` as texts and as numbers. Delivery is at least once and in no order.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import urlsplit

LARGEST: Final = 1_048_576
"""Bytes of a body; Event Grid sends at most as many in one batch."""

_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}")
_VAULT_OF_TOPIC: Final = re.compile(r"/providers/microsoft\.keyvault/vaults/([^/]+)/?$", re.IGNORECASE)
_VALIDATION: Final = "microsoft.eventgrid.subscriptionvalidationevent"
_LONGEST_CODE: Final = 512


class Mangled(ValueError):  # noqa: N818 - reads as what it is where it is caught
    """What came can not be understood, or contradicts itself. To be answered with 400, which is not sent again."""


class Kind(StrEnum):
    """What happened to a secret of a vault."""

    NEAR_EXPIRY = "Microsoft.KeyVault.SecretNearExpiry"
    """Thirty days before the expiry of its newest version; at once where that is nearer than thirty days."""
    EXPIRED = "Microsoft.KeyVault.SecretExpired"
    NEW_VERSION = "Microsoft.KeyVault.SecretNewVersionCreated"


_KINDS: Final = {kind.value.casefold(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Notice:
    """An event about a secret of a vault. No field holds a value."""

    kind: Kind
    id: str
    """The event's own; two deliveries of one event have one. Empty when there is none."""
    entry: str
    """The secret's name in the vault, in lower case: Key Vault does not tell names apart by case."""
    vault: str | None
    """The vault's short name, in lower case."""
    host: str | None
    """The vault's host, with its port where that is not 443."""
    version: str | None = None
    expires: datetime | None = None
    """None also where it can not be read: nothing depends on it."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """Event Grid asks whether we want what a new subscription would send. The answer repeats the code."""

    code: str


@dataclass(frozen=True, slots=True)
class Other:
    """An event of a kind that is no matter of ours."""

    kind: str
    id: str


def read(body: bytes | str) -> list[Notice | Handshake | Other | Mangled]:
    """The events of a body, in their order. One that is mangled stands in its place and spoils no other.

    Raises:
        Mangled: the body is not JSON, is too large, or is neither an event nor an array of them.
    """
    if len(body) > LARGEST:
        raise Mangled(f"more than {LARGEST} bytes")
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
        whole = json.loads(text, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        raise Mangled("is not JSON") from None  # the parser's own words may quote the body
    events = whole if isinstance(whole, list) else [whole]
    return [_one(event) for event in events]


def is_from(notice: Notice, vault_url: str) -> bool:
    """Whether the secret is in the vault of this address."""
    host = _host(vault_url)
    if notice.host is not None:
        return notice.host == host
    return notice.vault is not None and notice.vault == _short(host)


def _one(event: object) -> Notice | Handshake | Other | Mangled:
    try:
        if not isinstance(event, _Members):
            _refuse("is not an object")
        return _read(event)
    except Mangled as mangled:
        return mangled


def _read(event: _Members) -> Notice | Handshake | Other:
    kind = event.same("eventtype", "type")
    if kind is None:
        _refuse("has no type")
    about = event.get("data")
    if kind.casefold() == _VALIDATION:
        code = about.text("validationcode") if isinstance(about, _Members) else None
        if not code or len(code) > _LONGEST_CODE or not code.isprintable():
            _refuse("has no usable validation code")
        return Handshake(code)
    known = _KINDS.get(kind.casefold())
    if known is None:
        return Other(kind, event.text("id") or "")
    if not isinstance(about, _Members):
        _refuse("has no data")
    if (about.text("objecttype") or "secret").casefold() != "secret":
        _refuse("is of a secret by its type and of something else by its data")
    address = _Address.read(about.text("id"))
    entry = _agreed("secret", event.text("subject"), about.text("objectname"), address.entry if address else None)
    if entry is None or not _NAME.fullmatch(entry) or not (address or about.text("objectname")):
        _refuse("names no secret")
    topic = _VAULT_OF_TOPIC.search(event.same("topic", "source") or "")
    vault = _agreed("vault", about.text("vaultname"), topic and topic[1], _short(address.host) if address else None)
    if vault is None and address is None:
        _refuse("names no vault")
    return Notice(
        known,
        event.text("id") or "",
        entry,
        vault,
        address.host if address else None,
        about.text("version") or (address.version if address else None),
        _time(about.get("exp")),
    )


@dataclass(frozen=True, slots=True)
class _Address:
    """Of a secret, or of a version of one: https://HOST/secrets/NAME[/VERSION]."""

    host: str
    entry: str
    version: str | None

    @classmethod
    def read(cls, text: str | None) -> _Address | None:
        if not text:
            return None
        try:
            parts = urlsplit(text)
            folder, entry, *version = parts.path.strip("/").split("/")
        except ValueError:
            _refuse("has an address that can not be read")
        if (
            parts.scheme.casefold() != "https"
            or not parts.hostname
            or folder.casefold() != "secrets"
            or len(version) > 1
        ):
            _refuse("has an address that is not one of a secret")
        return cls(_host(text), entry, version[0] if version else None)


def _host(url: str) -> str:
    return urlsplit(url).netloc.casefold().removesuffix(":443")


def _short(host: str) -> str | None:
    """A vault's short name. None for a host that is none of a cloud's own, as in NAME.vault.azure.net, and so has none."""
    first, dot, rest = host.partition(".")
    return first if dot and rest.startswith("vault.") else None


def _agreed(what: str, *told: str | None) -> str | None:
    """The one thing that all those say that say anything."""
    said = {text.casefold() for text in told if text}
    if len(said) > 1:
        _refuse(f"contradicts itself about the {what}")
    return said.pop() if said else None


def _time(given: object) -> datetime | None:
    """From seconds since 1970, as a number or as a text."""
    try:
        return datetime.fromtimestamp(float(given), UTC) if isinstance(given, str | int | float) else None
    except (ValueError, OverflowError, OSError):
        return None


def _refuse(message: str) -> NoReturn:
    raise Mangled(message)


class _Members:
    """An object's members, as they came: names may be doubled, and spelled in any case and between blanks."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self._pairs = pairs

    def get(self, name: str) -> object:
        """The one member of this name; None when there is none, or it is null.

        Raises:
            Mangled: there are several, and they differ.
        """
        found = [given for key, given in self._pairs if key.strip().casefold() == name and given is not None]
        if any(given != found[0] for given in found[1:]):
            _refuse(f"has several members {name} that differ")
        return found[0] if found else None

    def text(self, name: str) -> str | None:
        """A member that is a text, without the blanks round it; None when it is absent or empty."""
        given = self.get(name)
        if not isinstance(given, str | None):
            _refuse(f"has a member {name} that is not text")
        return (given.strip() or None) if given else None

    def same(self, *names: str) -> str | None:
        """A text that goes by several names in several envelopes."""
        return _agreed_text(names[0], [self.text(name) for name in names])


def _agreed_text(name: str, told: list[str | None]) -> str | None:
    said = {text for text in told if text}
    if len(said) > 1:
        _refuse(f"contradicts itself about {name}")
    return said.pop() if said else None
