"""The issuers of values that nobody but their consumers knows: random passwords, tokens and passphrases.

There is no service behind it: nothing to list, to revoke, or to prove.
"""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Collection, Iterator
from typing import Final

from rotation.model import Capabilities, Check, Credential, Issued, KeyInfo, LastUse, Propagation, Verdict
from rotation.strength import CLASSES, CONSONANTS, LEAST_BITS, SYLLABLES, VOWELS, WORD_BITS, bits, shortest

LETTERS_AND_DIGITS: Final = string.ascii_letters + string.digits
"""Needs no quoting in a shell, a URL or a connection string."""


class _Unregistered:
    """What is the same of all values that nobody keeps a list of."""

    capabilities: Final = Capabilities(registry=False, create=Propagation(), revoke=Propagation())
    name: str

    def keys(self) -> Iterator[KeyInfo]:
        return iter(())

    def smoke(self, credential: Credential) -> Check:  # noqa: ARG002 - named as in the port
        return Check(Verdict.UNKNOWN, "there is no service to try it with")

    def revoke(self, key_id: str) -> None:
        """Nothing: whoever accepts the value decides by what the store hands out."""

    def last_use(self, key_id: str) -> LastUse:  # noqa: ARG002 - named as in the port
        return LastUse(known=False)


class GeneratedIssuer(_Unregistered):
    """Draws values of a fixed length from an alphabet, each character independently and uniformly.

    Parameters:
        name: the configured name.
        length: characters of a value.
        alphabet: the characters to draw from, each once.
        require: names of CLASSES of which every value has a character. Values that lack one are drawn again, so that
            all that are left are equally likely.

    Raises:
        ValueError: the alphabet has a character twice, one that does not print, or none of a required class; or all
            this makes values of less than 80 bits.
    """

    def __init__(
        self, name: str, length: int = 32, alphabet: str = LETTERS_AND_DIGITS, require: Collection[str] = ()
    ) -> None:
        if len(set(alphabet)) != len(alphabet):
            raise ValueError(f"{name}: the alphabet has a character twice, which would be drawn more often")
        if not all(character.isprintable() for character in alphabet):
            raise ValueError(f"{name}: the alphabet has a character that does not print")
        if lacks := [each for each in require if not any(map(CLASSES[each], alphabet))]:
            raise ValueError(f"{name}: the alphabet has no {lacks[0]}, which is required")
        found = bits(length, alphabet, require)
        if found < LEAST_BITS:
            needed = shortest(alphabet, require) if len(alphabet) > 1 else None
            hint = f"a length of at least {needed} is needed" if needed else "the alphabet needs more characters"
            raise ValueError(f"{name}: values would have {math.floor(found)} of at least {LEAST_BITS} bits; {hint}")
        self.name = name
        self._length = length
        self._alphabet = alphabet
        self._require = tuple(require)

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        """A fresh value under the token part of the name. The same name again gives another value."""
        value = ""
        while not value or self._lacks(value):
            value = "".join(secrets.choice(self._alphabet) for _ in range(self._length))
        return Issued(key_name.rpartition(".")[2], Credential.of(value=value))

    def verify(self, credential: Credential) -> Check:
        """Whether the value meets this issuer's own rules: there is nobody to show it to."""
        if credential.fields.keys() != {"value"}:
            return Check(Verdict.INVALID, "must have the one field value")
        value = credential.fields["value"].reveal()
        if len(value) != self._length:
            return Check(Verdict.INVALID, f"has {len(value)} characters where {self._length} are declared")
        if not set(value) <= set(self._alphabet):
            return Check(Verdict.INVALID, "has characters that are not in the declared alphabet")
        if lacks := self._lacks(value):
            return Check(Verdict.INVALID, f"has no {lacks}, which is required")
        return Check(Verdict.VALID, "meets the declared length and alphabet")

    def _lacks(self, value: str) -> str:
        return next((each for each in self._require if not any(map(CLASSES[each], value))), "")


class PassphraseIssuer(_Unregistered):
    """Draws words that can be read out: of syllables, so that no list of words has to be trusted or shipped.

    Parameters:
        name: the configured name.
        words: of a value.
        separator: between two of them.

    Raises:
        ValueError: values would have less than 80 bits, or the separator could be taken for a part of a word.
    """

    def __init__(self, name: str, words: int = 6, separator: str = "-") -> None:
        if any(part in CONSONANTS + VOWELS for part in separator) or not separator.isprintable():
            raise ValueError(f"{name}: the separator must print, and have no letter that words are made of")
        if (found := words * WORD_BITS) < LEAST_BITS:
            needed = math.ceil(LEAST_BITS / WORD_BITS)
            told = f"values would have {found:.0f} of at least {LEAST_BITS} bits; at least {needed} words are needed"
            raise ValueError(f"{name}: {told}")
        self.name = name
        self._words = words
        self._separator = separator

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        """A fresh passphrase under the token part of the name."""
        words = ("".join(map(secrets.choice, (CONSONANTS, VOWELS) * SYLLABLES)) for _ in range(self._words))
        return Issued(key_name.rpartition(".")[2], Credential.of(value=self._separator.join(words)))

    def verify(self, credential: Credential) -> Check:
        """Whether the value is made as this issuer makes them."""
        if credential.fields.keys() != {"value"}:
            return Check(Verdict.INVALID, "must have the one field value")
        value, long = credential.fields["value"].reveal(), 2 * SYLLABLES
        step = long + len(self._separator)
        words = [value[start : start + long] for start in range(0, len(value), step)]
        letters = (CONSONANTS, VOWELS) * SYLLABLES
        spelt = all(len(w) == long and all(c in of for c, of in zip(w, letters, strict=True)) for w in words)
        if len(words) != self._words or not spelt or value != self._separator.join(words):
            return Check(Verdict.INVALID, f"is not {self._words} words with the declared separator")
        return Check(Verdict.VALID, "has the declared number of words")
