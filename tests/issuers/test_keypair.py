"""Key pairs: of one make, told apart by their id, and of use to who signs and who verifies."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest

from hosting.packages import aws, azure
from providers import registry
from providers.issuers.keypair import ALGORITHMS, FIELDS, KeyPairIssuer, thumbprint
from rotation.clock import SystemClock
from rotation.config import ConfigError, parse
from rotation.model import Credential, Issued, Verdict
from tests.contracts.issuer import IssuerContract, IssuerHarness, key_name
from tests.functions.test_azure_package import VAULT, stack
from tests.issuers.test_generated import GeneratedHarness


class TestKeyPairIssuer(IssuerContract):
    @pytest.fixture
    def harness(self) -> IssuerHarness:
        return GeneratedHarness(KeyPairIssuer("keys"))


def minted(algorithm: str = "ed25519") -> Issued:
    return KeyPairIssuer("keys", algorithm).mint(key_name("token1"))


def texts(issued: Issued) -> dict[str, str]:
    return {name: value.reveal() for name, value in issued.credential.fields.items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_pair_signs_and_verifies(algorithm: str) -> None:
    """As people use it: a token that names its key, checked by the public part alone."""
    issued = minted(algorithm)
    fields = texts(issued)
    kind = "EdDSA" if algorithm == "ed25519" else "PS256"
    token = jwt.encode({"sub": "support"}, fields["private"], algorithm=kind, headers={"kid": fields["kid"]})
    assert jwt.get_unverified_header(token)["kid"] == fields["kid"]
    assert jwt.decode(token, fields["public"], algorithms=[kind]) == {"sub": "support"}
    check = KeyPairIssuer("keys", algorithm).verify(issued.credential)
    assert (check.verdict, dict(check.facts)) == (Verdict.VALID, {"kid": fields["kid"]})


def test_the_id_is_the_thumbprint_of_the_standard() -> None:
    """The examples of RFC 8037, appendix A.3, and of RFC 7638, section 3.1."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    def decoded(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "==")

    curve = Ed25519PublicKey.from_public_bytes(decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"))
    assert thumbprint(curve) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awap"
        "JzKnqDKgw"
    )
    rsa = RSAPublicNumbers(65537, int.from_bytes(decoded(n), "big")).public_key()
    assert thumbprint(rsa) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    ("part", "reason"),
    [("private", "another pair's"), ("public", "another pair's"), ("kid", "not the public key's thumbprint")],
)
def test_parts_of_two_pairs_are_no_pair(part: str, reason: str) -> None:
    """Each must fit the others."""
    mixed = texts(minted()) | {part: texts(minted())[part]}
    check = KeyPairIssuer("keys").verify(Credential.of(**mixed))
    assert check.verdict is Verdict.INVALID
    assert reason in check.reason


def test_another_algorithm_is_invalid() -> None:
    """As after a change of the declaration: the next rotation makes one that fits."""
    check = KeyPairIssuer("keys", "rsa-3072").verify(minted().credential)
    assert (check.verdict, check.reason) == (Verdict.INVALID, "the private key is not of rsa-3072")
    garbage = texts(minted()) | {"private": "no key"}
    assert KeyPairIssuer("keys").verify(Credential.of(**garbage)).verdict is Verdict.INVALID
    assert KeyPairIssuer("keys").verify(Credential.of(private="x")).verdict is Verdict.INVALID


def test_the_public_part_is_no_secret() -> None:
    """The log masks the private key, and shows the others."""
    from rotation.logs import masked

    issued = minted()  # held, as what is alive is masked
    fields = texts(issued)
    assert fields["kid"] in masked(json.dumps(fields))
    assert masked(fields["private"]) == "[masked]"
    assert masked(fields["public"]) == fields["public"]


# --- in the configuration -------------------------------------------------------------------------------


def parsed(**issuer: Any) -> Any:
    return parse({"keyturn:environment": "prod", "keyturn:installation": "acme", "keyturn:issuers": {"made": issuer}})


@pytest.mark.parametrize(
    ("declared", "fields"),
    [
        ({"kind": "key-pair", "algorithm": "rsa-4096"}, FIELDS),
        ({"kind": "passphrase", "words": 5, "separator": " "}, ("value",)),
        ({"kind": "generated", "length": 24, "require": ["upper", "digit"]}, ("value",)),
    ],
)
def test_generated_kinds_are_opened(declared: dict[str, Any], fields: tuple[str, ...]) -> None:
    """And what they can do is known without."""
    config = parsed(**declared)
    issuer = registry.open_issuer("made", config, {}, SystemClock(), {})
    assert registry.capabilities(config.issuers["made"]) == issuer.capabilities
    assert issuer.capabilities.fields == fields
    assert issuer.verify(issuer.mint(key_name("token1")).credential).verdict is Verdict.VALID


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"kind": "key-pair", "algorithm": "rsa-2048"}, "made.algorithm: is not known; allowed: ed25519, rsa-3072"),
        ({"kind": "passphrase", "words": 4}, "made.words: 4 is out of range; allowed: 5 to 64, at least 80 bits"),
        ({"kind": "passphrase", "separator": "x"}, "made.separator: is no separator"),
        (
            {"kind": "generated", "alphabet": "abcdefgh", "require": ["digit"]},
            "made.require: the alphabet has no digit",
        ),
        ({"kind": "generated", "require": ["digit", "digit"]}, "made.require: names a class twice"),
        (
            {"kind": "generated", "alphabet": "abcdefghijklmno7", "require": ["digit"], "length": 20},
            "made.length: 20 is out of range; allowed: 21 to 4096",
        ),
    ],
)
def test_what_would_be_weak_is_refused(declared: dict[str, Any], fault: str) -> None:
    """Before anything is applied, with what would be enough."""
    with pytest.raises(ConfigError) as raised:
        parsed(**declared)
    assert fault in str(raised.value)


@pytest.mark.parametrize("kind", ["key-pair", "passphrase"])
def test_only_a_stack_with_key_pairs_packs_their_library(tmp_path: Path, kind: str) -> None:
    """It is large, and bound to a platform."""
    path = stack(tmp_path, issuers={"made": {"kind": kind}}, stores={"vault": VAULT}, secrets=[])
    functions, zipped = azure.entries(path), aws.entries(path)
    pairs = kind == "key-pair"
    assert ("cryptography==" in functions["requirements.txt"].decode()) is pairs
    assert ("cryptography/__init__.py" in zipped) is pairs
    for packed in (functions, zipped):
        assert ("providers/issuers/keypair.py" in packed) is pairs
