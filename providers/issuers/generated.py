"""The issuer of values that nobody but their consumers knows: random passwords and tokens.

There is no service behind it: nothing to list, to revoke, or to prove.
"""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Iterator
from typing import Final

from rotation.model import Capabilities, Check, Credential, Issued, KeyInfo, LastUse, Propagation, Verdict

LETTERS_AND_DIGITS: Final = string.ascii_letters + string.digits
"""Needs no quoting in a shell, a URL or a connection string."""
LEAST_BITS: Final = 80
"""Of entropy; a generated value is no person's password and has no reason to be guessable."""


class GeneratedIssuer:
    """Draws values of a fixed length from an alphabet, each character independently and uniformly.

    Parameters:
        name: the configured name.
        length: characters of a value.
        alphabet: the characters to draw from, each once.

    Raises:
        ValueError: the alphabet has a character twice or one that does not print, or length and
            alphabet make values of less than 80 bits.
    """

    capabilities: Final = Capabilities(registry=False, create=Propagation(), revoke=Propagation())

    def __init__(self, name: str, length: int = 32, alphabet: str = LETTERS_AND_DIGITS) -> None:
        if len(set(alphabet)) != len(alphabet):
            raise ValueError(f"{name}: the alphabet has a character twice, which would be drawn more often")
        if not all(character.isprintable() for character in alphabet):
            raise ValueError(f"{name}: the alphabet has a character that does not print")
        bits = length * math.log2(len(alphabet)) if len(alphabet) > 1 else 0
        if bits < LEAST_BITS:
            needed = math.ceil(LEAST_BITS / math.log2(len(alphabet))) if len(alphabet) > 1 else None
            hint = f"a length of at least {needed} is needed" if needed else "the alphabet needs more characters"
            raise ValueError(f"{name}: values would have {bits:.0f} of at least {LEAST_BITS} bits; {hint}")
        self.name: Final = name
        self._length = length
        self._alphabet = alphabet

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        """A fresh value under the token part of the name. The same name again gives another value."""
        value = "".join(secrets.choice(self._alphabet) for _ in range(self._length))
        return Issued(key_name.rpartition(".")[2], Credential.of(value=value))

    def keys(self) -> Iterator[KeyInfo]:
        return iter(())

    def verify(self, credential: Credential) -> Check:
        """Whether the value meets this issuer's own rules: there is nobody to show it to."""
        if credential.fields.keys() != {"value"}:
            return Check(Verdict.INVALID, "must have the one field value")
        value = credential.fields["value"].reveal()
        if len(value) != self._length:
            return Check(Verdict.INVALID, f"has {len(value)} characters where {self._length} are declared")
        if not set(value) <= set(self._alphabet):
            return Check(Verdict.INVALID, "has characters that are not in the declared alphabet")
        return Check(Verdict.VALID, "meets the declared length and alphabet")

    def smoke(self, credential: Credential) -> Check:  # noqa: ARG002 - named as in the port
        return Check(Verdict.UNKNOWN, "there is no service to try it with")

    def revoke(self, key_id: str) -> None:
        """Nothing: whoever accepts the value decides by what the store hands out."""

    def last_use(self, key_id: str) -> LastUse:  # noqa: ARG002 - named as in the port
        return LastUse(known=False)
