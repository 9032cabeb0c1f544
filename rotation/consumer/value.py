"""What a consumer holds: one version of a secret, as each vault keeps what Keyturn writes; and why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from rotation.model import MASK, SecretValue

_LABEL: Final = "keyturn"
"""The field of a Vault payload that says whose it is. It is no part of the credential."""


class Unavailable(Exception):  # noqa: N818 - says what is the case, and is caught by that name
    """A vault did not give the value. The text says which entry and why; it never holds a value.

    Parameters:
        where: the entry, as it was opened.
        why: in words.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where: Final = where
        self.why: Final = why


class Value:
    """One version of a secret. Does not print, compare, pickle or format; `reveal()` is the only way to the text.

    Parameters:
        text: as Secrets Manager and Key Vault hold it. A credential of several fields is one JSON object there.
        version: the vault's own id of the version, or nothing where that is not known.
        field: what reveal() gives when it is not told; the whole text if None.
    """

    __slots__ = ("_chosen", "_fields", "_text", "version")

    def __init__(self, text: str, version: str = "", field: str | None = None) -> None:
        self._text = SecretValue(text)
        self._fields = {name: SecretValue(part) for name, part in _members(text).items()}
        self._chosen = field
        self.version: Final = version

    @classmethod
    def of(cls, fields: Mapping[str, Any], version: str = "", field: str | None = None) -> Value:
        """From a vault that keeps fields: the single field `value` is a text, others are as one JSON object elsewhere."""
        held = {name: part for name, part in sorted(fields.items()) if name != _LABEL}
        single = held.get("value") if held.keys() == {"value"} else None
        text = single if isinstance(single, str) else json.dumps(held, ensure_ascii=False)
        return cls(text, version, field)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields; none when it is a plain text."""
        return tuple(self._fields)

    def reveal(self, field: str | None = None) -> str:
        """The text of one field; of the one it was opened for, or all of it, when none is named. For the edge that needs it.

        Raises:
            KeyError: there is no such field.
        """
        wanted = self._chosen if field is None else field
        if wanted is None:
            return self._text.reveal()
        if wanted not in self._fields:
            raise KeyError(f"no field {wanted}; there are: {', '.join(self._fields) or 'none, it is one text'}")
        return self._fields[wanted].reveal()

    def same_text(self, other: Value) -> bool:
        """Whether both hold the same, whatever their versions; in constant time."""
        return self._text.same_as(other._text)

    def same_as(self, other: Value) -> bool:
        """Whether both are one version of one text."""
        return self.version == other.version and self.same_text(other)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise TypeError("values of secrets are not compared with ==; use same_as()")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("values of secrets are not pickled or copied")


def _members(text: str) -> dict[str, str]:
    """The members of a JSON object; what is no text is given as JSON. None for any other text."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: part if isinstance(part, str) else json.dumps(part) for name, part in found.items()}
