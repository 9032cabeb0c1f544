"""Generated values: drawn afresh, within their own rules, and with nobody to ask."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable

import pytest

from providers.issuers.generated import GeneratedIssuer
from rotation.model import Credential, Verdict
from rotation.ports import Issuer
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation, key_name
from tests.world import FakeClock


class GeneratedHarness(IssuerHarness):
    """There is no service: a consumer accepts what it is handed."""

    more_than_a_page = 1
    mishaps = frozenset()
    unknown_ids = ("token99",)

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.issuer = GeneratedIssuer("generated")

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
        return GeneratedHarness()


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
