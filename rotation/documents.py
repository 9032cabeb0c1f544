"""Files of Keyturn's own: written as a whole, for their user only; documents among them read back strictly."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Document = TypeVar("Document")


def write_private(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Replaces a file as a whole, mode 0600: a reader sees the old content or the new, never a part.

    Parameters:
        path: in a folder that is there.
        durable: it outlives a loss of power, too, for the price of an fsync.

    Raises:
        OSError: the disk does not take it. The old content stays, and nothing beside it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    from pydantic import ValidationError  # noqa: PLC0415 - who writes only does not wait for it

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
