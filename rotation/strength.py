"""How hard generated values are to guess: entropy in bits, of whatever rules they are made by."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from typing import Final

LEAST_BITS: Final = 80
"""Of entropy; a generated value is no person's password and has no reason to be guessable."""
CLASSES: Final[Mapping[str, Callable[[str], bool]]] = {
    "lower": str.islower,
    "upper": str.isupper,
    "digit": str.isdigit,
    "symbol": lambda character: not character.isalnum(),
}
"""What a rule for passwords may ask for, and which characters answer to it. No character answers to two."""
CONSONANTS: Final = "bdfghjklmnprstvz"
VOWELS: Final = "aeiou"
SYLLABLES: Final = 3
"""Of a word: a consonant and a vowel each, so that it can be read out and typed. 19 bits."""
WORD_BITS: Final = SYLLABLES * math.log2(len(CONSONANTS) * len(VOWELS))


def bits(length: int, alphabet: str, require: Collection[str] = ()) -> float:
    """The entropy of values of a length in which each required class occurs; 0 where there are none.

    Counted by inclusion and exclusion: of all values, those that lack a class do not exist.
    """
    lacking = {name: sum(map(CLASSES[name], alphabet)) for name in require}
    count = sum(
        (-1) ** size * (len(alphabet) - sum(lacking[name] for name in names)) ** length
        for size in range(len(lacking) + 1)
        for names in combinations(lacking, size)
    )
    return math.log2(count) if count > 1 else 0


def shortest(alphabet: str, require: Collection[str] = ()) -> int:
    """The least length of which there are enough values; of an alphabet of two characters or more."""
    length = math.ceil(LEAST_BITS / math.log2(len(alphabet)))
    while bits(length, alphabet, require) < LEAST_BITS:
        length += 1  # what must occur leaves fewer values
    return length
