"""Generated values: drawn afresh, within their own rules, and with nobody to ask."""

from __future__ import annotations

import itertools
import math
import string
from collections import Counter
from collections.abc import Iterable

import pytest

from providers.issuers.generated import GeneratedIssuer, PassphraseIssuer
from rotation.model import Credential, Verdict
from rotation.ports import Issuer
from rotation.strength import CLASSES, bits
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation, key_name
from tests.world import FakeClock


class GeneratedHarness(IssuerHarness):
    """There is no service: a consumer accepts what it is handed."""

    more_than_a_page = 1
    mishaps = frozenset()
    unknown_ids = ("token99",)

    def __init__(self, issuer: Issuer) -> None:
        self.clock = FakeClock()
        self.issuer = issuer

    def without_admin(self) -> Issuer:
        return self.issuer

    def use(self, credential: Credential) -> bool:
        return True

    def live(self) -> int:
        return 0

    def mints(self) -> int:
        return 0

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        raise AssertionError(f"{mishap} can not happen to {operation}")

    def secrets(self) -> Iterable[str]:
        return ()


class TestGeneratedIssuer(IssuerContract):
    @pytest.fixture
    def harness(self) -> IssuerHarness:
        return GeneratedHarness(GeneratedIssuer("generated"))


class TestPassphraseIssuer(IssuerContract):
    @pytest.fixture
    def harness(self) -> IssuerHarness:
        return GeneratedHarness(PassphraseIssuer("generated"))


def drawn(issuer: GeneratedIssuer) -> str:
    return issuer.mint(key_name("token")).credential.fields["value"].reveal()


def test_it_declares_that_nothing_can_be_listed_revoked_or_proven() -> None:
    """The engine then closes old values as unenforced rather than wait for a proof."""
    capabilities = GeneratedIssuer("generated").capabilities
    assert not capabilities.registry
    assert not capabilities.tells_last_use
    assert not capabilities.smokes


def test_values_have_the_declared_length_and_alphabet() -> None:
    """And every character of the alphabet occurs, about equally often."""
    issuer = GeneratedIssuer("generated", length=40, alphabet="abcd0123")
    counts = Counter("".join(drawn(issuer) for _ in range(500)))
    assert len(drawn(issuer)) == 40
    assert counts.keys() == set("abcd0123")
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_the_key_id_is_the_token_of_the_name() -> None:
    """There is no other id, and the token is unique already."""
    assert GeneratedIssuer("generated").mint(key_name("0123abcd")).key_id == "0123abcd"


def test_the_same_name_again_gives_another_value() -> None:
    """A retried mint must not reproduce a value that may have leaked meanwhile."""
    issuer = GeneratedIssuer("generated")
    assert len({drawn(issuer) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value": "a" * 31}, "31 characters where 32"),
        ({"value": "a" * 31 + "!"}, "not in the declared alphabet"),
        ({"password": "a" * 32}, "the one field value"),
        ({"value": "a" * 32, "user": "x"}, "the one field value"),
    ],
)
def test_a_value_that_breaks_the_rules_is_invalid(fields: dict[str, str], reason: str) -> None:
    """And the reason does not repeat it."""
    check = GeneratedIssuer("generated").verify(Credential.of(**fields))
    assert check.verdict is Verdict.INVALID
    assert reason in check.reason
    assert fields.get("value", "-") not in check.reason


@pytest.mark.parametrize(
    ("length", "alphabet", "reason"),
    [
        (8, string.ascii_letters, "a length of at least 15 is needed"),
        (32, "a", "more characters"),
        (32, "", "more characters"),
        (32, "aab", "twice"),
        (32, "ab\n", "does not print"),
    ],
)
def test_weak_rules_are_refused(length: int, alphabet: str, reason: str) -> None:
    """With what would be enough."""
    with pytest.raises(ValueError, match=reason):
        GeneratedIssuer("generated", length, alphabet)


@pytest.mark.parametrize("require", [(), ("lower",), ("lower", "digit"), ("lower", "upper", "digit", "symbol")])
def test_entropy_is_that_of_the_values_there_are(require: tuple[str, ...]) -> None:
    """Counted over every value of a small alphabet."""
    alphabet, length = "abC1-", 4
    every = ["".join(each) for each in itertools.product(alphabet, repeat=length)]
    there_are = [v for v in every if all(any(map(CLASSES[name], v)) for name in require)]
    assert bits(length, alphabet, require) == pytest.approx(math.log2(len(there_are)))


def test_every_value_has_what_is_required() -> None:
    """Where most draws would lack it, too."""
    issuer = GeneratedIssuer("generated", 24, string.ascii_lowercase + "7!", ("digit", "symbol"))
    values = [drawn(issuer) for _ in range(200)]
    assert all("7" in value and "!" in value for value in values)
    assert issuer.verify(Credential.of(value="a" * 23 + "7")).reason == "has no symbol, which is required"


def test_what_is_required_must_leave_enough_values() -> None:
    """A class that the alphabet has not; and a length that would do without the requirement."""
    with pytest.raises(ValueError, match="has no upper"):
        GeneratedIssuer("generated", require=("upper",), alphabet=string.ascii_lowercase)
    letters = string.ascii_lowercase[:15] + "7"
    GeneratedIssuer("generated", 20, letters)
    with pytest.raises(ValueError, match="79 of at least 80 bits; a length of at least 21"):
        GeneratedIssuer("generated", 20, letters, ("digit",))


def test_a_passphrase_can_be_read_out() -> None:
    """Words of consonants and vowels in turn, with what is between them; each as likely as any other."""
    issuer = PassphraseIssuer("generated", words=5, separator=". ")
    value = issuer.mint(key_name("token")).credential.fields["value"].reveal()
    words = value.split(". ")
    assert [len(word) for word in words] == [6] * 5
    assert all(letter in "aeiou" for word in words for letter in word[1::2])
    assert not any(letter in "aeiou" for word in words for letter in word[::2])
    drawn_letters = Counter(
        letter
        for _ in range(300)
        for letter in issuer.mint(key_name("t")).credential.fields["value"].reveal()
        if letter in "aeiou"
    )
    assert max(drawn_letters.values()) < 1.2 * min(drawn_letters.values())


@pytest.mark.parametrize("value", ["", "babab", "bababa-bababa", "-".join(["bababa"] * 7), "-".join(["ababab"] * 6)])
def test_what_is_no_such_passphrase_is_invalid(value: str) -> None:
    """Another number of words, or words of another make."""
    assert PassphraseIssuer("generated").verify(Credential.of(value=value)).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("words", "separator", "reason"),
    [(4, "-", "at least 5 words are needed"), (6, "a", "no letter"), (6, "\n", "print")],
)
def test_weak_passphrases_are_refused(words: int, separator: str, reason: str) -> None:
    """With what would be enough."""
    with pytest.raises(ValueError, match=reason):
        PassphraseIssuer("generated", words, separator)
