"""Documents that Keyturn keeps in files of its own, as JSON: they say their version, and are read back strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

Document = TypeVar("Document")


def read(text: str, codec: TypeAdapter[Document], schema: str, what: str, derived: Iterable[str] = ()) -> Document:
    """A document that says its version in `schema`.

    Parameters:
        codec: of the record that it is, without its schema.
        schema: the one version that this Keyturn reads, as in `keyturn.incident/1`.
        what: it should be, for messages: `the record of an incident`.
        derived: fields that were told besides, and follow from the others.

    Raises:
        ValueError: it is of another version, or something else wrote it. The message has no content in it.
    """
    try:
        found = json.loads(text)
        version = found.pop("schema")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"is not {what}") from None
    if version != schema:
        raise ValueError(f"is of version {version}, and this Keyturn reads {schema}")
    for name in derived:
        found.pop(name, None)
    try:
        return codec.validate_python(found, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"can not be read at {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
