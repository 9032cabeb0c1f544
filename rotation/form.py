"""How a credential looks in a store: as its consumers want it, the same in each vault, and readable back.

A form is one short string of the policy:

    ""                                             the single field `value`, stored raw
    "json key=access_key_id secret=secret_key"     a JSON object with chosen names, `<name>=<field>`
    "text postgresql://{user}:{password}@db/app"   a template; each {field} is URL-encoded

Reading back is the same form backwards: what is verified is what consumers get, not a copy kept aside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

from rotation.model import Credential, SecretValue

_PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]*")
_NEARLY: Final = re.compile(r"\{\s*[A-Za-z_][\w.-]*\s*\}")
"""What a person may have meant as a place."""
_ENCODED: Final = r"(?:[A-Za-z0-9_.~-]|%[0-9A-Fa-f]{2})*"
"""What URL encoding makes of any text (RFC 3986, unreserved characters and percent-encoded octets)."""
_ENDS: Final = re.compile(r"[^A-Za-z0-9_.~%-]")
_RAW: Final = ("value",)
_RESERVED: Final = "keyturn"
"""The name under which a Vault payload says whose it is."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_SPECIAL: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}|[^A-Za-z0-9 _.:/=+-]| (?= |$)")
_SPELT: Final = re.compile(r"@(?:([a-z][a-z0-9_]*)|\+([0-9a-f]{1,6}))@")


class FormError(ValueError):
    """A form that can not be used, or a stored value that is not of its form. Never holds a value."""


def default(fields: Iterable[str]) -> str:
    """The form of a credential with these fields when none is declared."""
    names = tuple(fields)
    return "" if names == _RAW else "json " + " ".join(f"{name}={name}" for name in names)


def digest(form: str) -> str:
    """Tells forms apart in the journal; empty for the empty form."""
    return hashlib.sha256(form.encode()).hexdigest()[:8] if form else ""


def fields(form: str) -> tuple[str, ...]:
    """The fields of a credential that a form without fault names."""
    kind, _, rest = form.partition(" ")
    if kind == "text":
        return tuple(_PLACE.findall(rest))
    return tuple(field for _, field in _pairs(rest)) if kind else _RAW


def fault(form: str) -> str | None:
    """Why a form can not be written and read back, or None."""
    kind, _, rest = form.partition(" ")
    if kind == "":
        return "must be `json name=field …` or `text …{field}…`" if form else None
    if _SURROGATE.search(form):
        return "must be valid Unicode text"
    if kind == "json":
        return _json_fault(rest)
    if kind == "text":
        return _text_fault(rest)
    return "must be `json name=field …` or `text …{field}…`"


def _json_fault(rest: str) -> str | None:
    pairs = _pairs(rest)
    names, named = [name for name, _ in pairs], [field for _, field in pairs]
    if not pairs or not all(names) or not all(_FIELD.fullmatch(field) for field in named):
        return "must be `json name=field …` with at least one field"
    if rest != " ".join(f"{name}={field}" for name, field in pairs) or not "".join(names).isprintable():
        return "must have names without spaces, and one space between its parts"
    if len({*names}) < len(pairs) or len({*named}) < len(pairs):
        return "must not repeat a name or a field"
    if names == [*_RAW]:
        return "would store one field called value, which is the raw form; use that, or another name"
    return f"must not use the name {_RESERVED}, which is Keyturn's own" if _RESERVED in names else None


def _text_fault(rest: str) -> str | None:
    named = _PLACE.findall(rest)
    if not named or len(set(named)) < len(named):
        return "must name each field once, as in {value}"
    literals = _literals(rest)
    if any(_NEARLY.search(literal) for literal in literals):
        return "has braces that name no field: fields are lower case letters, digits and _"
    # Where an encoded value may hold all of what stands between two places, nobody can tell where one ends.
    if not all(_ENDS.search(literal) for literal in literals[1:-1]):
        return "needs a character between two fields that no URL-encoded value has, such as : / @ ? & or a space"
    return None


def encoded(form: str) -> str:
    """A form in the characters that every store's metadata holds; decoded() gives it back.

    A place `{user}` becomes `@user@`; any other character that a Secrets Manager tag may not hold, or that a
    console takes away, is written as its code point, `@+7b@`.
    """
    return _SPECIAL.sub(lambda found: f"@{found[1]}@" if found[1] else f"@+{ord(found[0]):x}@", form)


def decoded(text: str) -> str:
    """The form in an encoded text. Raises ValueError where a code point is none."""
    return _SPELT.sub(lambda found: f"{{{found[1]}}}" if found[1] else chr(int(found[2], 16)), text)


def render(credential: Credential, form: str) -> Credential:
    """The stored payload: one field `value` for raw and text forms, else one field per name.

    Raises:
        FormError: the form names a field that the credential has not, or is raw and there are several; or a
            value can not be URL-encoded, as it is not valid Unicode text.
    """
    kind, _, rest = form.partition(" ")
    held = credential.fields
    if missing := set(fields(form)) - set(held):
        raise FormError(f"the form needs {', '.join(sorted(missing))}; the credential has {', '.join(held)}")
    if kind == "json":
        return Credential({name: held[field] for name, field in _pairs(rest)})
    if kind == "text":
        if any(_SURROGATE.search(held[field].reveal()) for field in fields(form)):
            raise FormError("the value is not valid Unicode text")
        return Credential.of(value=_PLACE.sub(lambda place: quote(held[place[1]].reveal(), safe=""), rest))
    if len(held) > 1:
        raise FormError(f"the raw form holds one field; the credential has {', '.join(held)}")
    return credential


def parse(stored: Credential, form: str) -> Credential:
    """The credential in a stored payload. A text-only store gives an object back as one JSON text.

    Raises:
        FormError: the payload is not of this form.
    """
    kind, _, rest = form.partition(" ")
    if kind == "json":
        pairs = _pairs(rest)
        found = stored.fields if {name for name, _ in pairs} <= set(stored.fields) else _object(stored)
        for name, _ in pairs:
            if name not in found:
                raise FormError(f"the stored object has no text {name!r}")
        return Credential({field: found[name] for name, field in pairs})
    if set(stored.fields) != {*_RAW}:
        names = ", ".join(stored.fields)
        raise FormError(f"the stored payload has the fields {names}, not the one text that is declared")
    return _from_text(stored.fields["value"].reveal(), rest) if kind == "text" else stored


def _from_text(text: str, template: str) -> Credential:
    # An encoded value holds none of the characters that end it, so the template reads back in one way only.
    literals, named = _literals(template), _PLACE.findall(template)
    places = [f"(?P<{name}>{_ENCODED})" for name in named]
    pattern = "".join(part for pair in zip(map(re.escape, literals), [*places, ""], strict=True) for part in pair)
    found = re.fullmatch(pattern, text)
    values = {name: _plain(held) for name, held in found.groupdict().items()} if found else {}
    if found is None or None in values.values():
        raise FormError("the stored text is not of the declared form")
    return Credential({name: SecretValue(value) for name, value in values.items() if value is not None})


def _plain(text: str) -> str | None:
    """What was URL-encoded; None where its octets are no UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None


def _pairs(rest: str) -> list[tuple[str, str]]:
    return [(name, field) for name, _, field in (word.partition("=") for word in rest.split())]


def _literals(template: str) -> list[str]:
    """What stands before, between and after the places of a template: one more than there are places."""
    return _PLACE.split(template)[::2]


def _object(stored: Credential) -> dict[str, SecretValue]:
    """The members of a JSON object that are texts."""
    shown: object = None
    if text := stored.fields.get("value"):
        try:
            shown = json.loads(text.reveal())
        except (ValueError, RecursionError):
            shown = None  # not raised from in here: what the decoder raises holds the text
    if not isinstance(shown, dict):
        raise FormError("the stored text is not a JSON object")
    texts = {name: text for name, text in shown.items() if isinstance(text, str) and not _SURROGATE.search(text)}
    return {name: SecretValue(text) for name, text in texts.items()}
