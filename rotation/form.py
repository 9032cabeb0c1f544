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
_RAW: Final = ("value",)


class FormError(ValueError):
    """A form that can not be used, or a stored value that is not of its form. Never holds a value."""


def default(fields: Iterable[str]) -> str:
    """The form of a credential with these fields when none is declared."""
    names = tuple(fields)
    return "" if names == _RAW else "json " + " ".join(f"{name}={name}" for name in names)


def digest(form: str) -> str:
    """Tells forms apart in the journal; empty for the empty form."""
    return hashlib.sha256(form.encode()).hexdigest()[:8] if form else ""


def fault(form: str) -> str | None:
    """Why a form can not be written and read back, or None."""
    kind, _, rest = form.partition(" ")
    if kind == "":
        return None
    if kind == "json":
        pairs = _pairs(rest)
        names, fields = [name for name, _ in pairs], [field for _, field in pairs]
        if not pairs or not all(names) or not all(fields):
            return "must be `json name=field …` with at least one field"
        return None if len({*names}) == len({*fields}) == len(pairs) else "must not repeat a name or a field"
    if kind == "text":
        fields = _PLACE.findall(rest)
        if not fields or len(set(fields)) < len(fields):
            return "must name each field once, as in {value}"
        return "needs something between two fields, or it can not be read back" if "}{" in rest else None
    return "must be `json name=field …` or `text …{field}…`"


def render(credential: Credential, form: str) -> Credential:
    """The stored payload: one field `value` for raw and text forms, else one field per name.

    Raises:
        FormError: the form names a field that the credential has not, or is raw and there are several.
    """
    kind, _, rest = form.partition(" ")
    fields = credential.fields
    missing = set(_PLACE.findall(rest) if kind == "text" else [f for _, f in _pairs(rest)] if kind else _RAW) - set(
        fields
    )
    if missing:
        raise FormError(f"the form needs {', '.join(sorted(missing))}; the credential has {', '.join(fields)}")
    if kind == "json":
        return Credential({name: fields[field] for name, field in _pairs(rest)})
    if kind == "text":
        return Credential.of(value=_PLACE.sub(lambda place: quote(fields[place[1]].reveal(), safe=""), rest))
    return credential


def parse(stored: Credential, form: str) -> Credential:
    """The credential in a stored payload. A text-only store gives an object back as one JSON text.

    Raises:
        FormError: the payload is not of this form.
    """
    kind, _, rest = form.partition(" ")
    if kind == "json":
        pairs = _pairs(rest)
        fields = stored.fields if {name for name, _ in pairs} <= set(stored.fields) else _object(stored)
        try:
            return Credential({field: fields[name] for name, field in pairs})
        except KeyError as error:
            raise FormError(f"the stored object has no {error.args[0]!r}") from None
    if set(stored.fields) != {*_RAW}:
        raise FormError(
            f"the stored payload has the fields {', '.join(stored.fields)}, not the one text that is declared"
        )
    if kind == "text":
        # A URL-encoded field holds none of the characters that end it, so the template reads back in one way only.
        pattern = _PLACE.sub(lambda place: f"(?P<{place[1]}>[A-Za-z0-9_.~%-]*)", _quoted(rest))
        found = re.fullmatch(pattern, stored.fields["value"].reveal())
        if found is None:
            raise FormError("the stored text is not of the declared form")
        return Credential({name: SecretValue(unquote(text)) for name, text in found.groupdict().items()})
    return stored


def _pairs(rest: str) -> list[tuple[str, str]]:
    return [(name, field) for name, _, field in (word.partition("=") for word in rest.split())]


def _quoted(template: str) -> str:
    """The template with everything but its places escaped for a regular expression."""
    parts, end = [], 0
    for place in _PLACE.finditer(template):
        parts += [re.escape(template[end : place.start()]), place[0]]
        end = place.end()
    return "".join([*parts, re.escape(template[end:])])


def _object(stored: Credential) -> dict[str, SecretValue]:
    try:
        shown = json.loads(stored.fields["value"].reveal())
        return {str(name): SecretValue(str(text)) for name, text in shown.items()}
    except (KeyError, ValueError, AttributeError):
        raise FormError("the stored text is not a JSON object") from None
