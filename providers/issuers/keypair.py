"""The issuer of key pairs for signatures: a private key for who signs, a public one for who verifies, an id for both.

Nobody keeps a list of them, so nothing is revoked or proven: whoever verifies decides by the public keys that the
store holds. See docs/generated.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from rotation.model import Capabilities, Check, Credential, Issued, KeyInfo, LastUse, Propagation, Verdict

FIELDS: Final = ("private", "public", "kid")
RSA: Final = {"rsa-3072": 3072, "rsa-4096": 4096}
ALGORITHMS: Final = ("ed25519", *RSA)


class KeyPairIssuer:
    """Makes pairs as PEM: `private` in PKCS#8, unencrypted; `public` as SubjectPublicKeyInfo; `kid`, see thumbprint().

    Parameters:
        name: the configured name.
        algorithm: one of ALGORITHMS.
    """

    capabilities: Final = Capabilities(fields=FIELDS, registry=False, create=Propagation(), revoke=Propagation())

    def __init__(self, name: str, algorithm: str = "ed25519") -> None:
        self.name: Final = name
        self._algorithm = algorithm

    def mint(self, key_name: str, slot: str | None = None) -> Issued:  # noqa: ARG002 - has no slots
        """A fresh pair under the token part of the name. One of RSA takes some tenths of a second, or seconds."""
        from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - for whoever makes keys
        from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415

        private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        if self._algorithm in RSA:
            private = rsa.generate_private_key(public_exponent=65537, key_size=RSA[self._algorithm])
        else:
            private = ed25519.Ed25519PrivateKey.generate()
        plain = form.NoEncryption()
        secret = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain)
        public = private.public_key()
        return Issued(
            key_name.rpartition(".")[2],
            Credential.of(private=secret.decode(), public=_pem(public), kid=thumbprint(public)),
        )

    def keys(self) -> Iterator[KeyInfo]:
        return iter(())

    def verify(self, credential: Credential) -> Check:
        """Whether the parts are of one pair of the declared algorithm: there is nobody to show it to."""
        from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        fields = {name: value.reveal() for name, value in credential.fields.items()}
        if fields.keys() != {*FIELDS}:
            return Check(Verdict.INVALID, f"has not the fields {', '.join(FIELDS)}")
        readable = True
        private: Any = None
        try:
            private = load_pem_private_key(fields["private"].encode(), password=None)
        except (ValueError, TypeError, RuntimeError):  # cryptography has other errors of its own that are these
            readable = False
        if not readable:
            return Check(Verdict.INVALID, "the private key is no unencrypted key in PEM")
        of_rsa = isinstance(private, rsa.RSAPrivateKey) and private.key_size == RSA.get(self._algorithm)
        of_ed = isinstance(private, ed25519.Ed25519PrivateKey) and self._algorithm == "ed25519"
        if not of_rsa and not of_ed:
            return Check(Verdict.INVALID, f"the private key is not of {self._algorithm}")
        public = private.public_key()
        if fields["public"].strip() != _pem(public).strip():
            return Check(Verdict.INVALID, "the public key is another pair's")
        if fields["kid"] != thumbprint(public):
            return Check(Verdict.INVALID, "kid is not the public key's thumbprint")
        return Check(Verdict.VALID, f"one pair of {self._algorithm}", facts={"kid": fields["kid"]})

    def smoke(self, credential: Credential) -> Check:  # noqa: ARG002 - named as in the port
        return Check(Verdict.UNKNOWN, "there is no service to try it with")

    def revoke(self, key_id: str) -> None:
        """Nothing: whoever verifies decides by the public keys that the store holds."""

    def last_use(self, key_id: str) -> LastUse:  # noqa: ARG002 - named as in the port
        return LastUse(known=False)


def thumbprint(public: Any) -> str:
    """The key's id: SHA-256 of its JWK's required members, base64url (RFC 7638; RFC 8037 for Ed25519).

    Parameters:
        public: a public key of `cryptography`.
    """
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    if isinstance(public, rsa.RSAPublicKey):
        n, e = public.public_numbers().n, public.public_numbers().e
        members = {"e": _base64(_bytes(e)), "kty": "RSA", "n": _base64(_bytes(n))}
    else:
        raw = public.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
        members = {"crv": "Ed25519", "kty": "OKP", "x": _base64(raw)}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _base64(hashlib.sha256(canonical.encode()).digest())


def _pem(public: Any) -> str:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - as above

    told: bytes = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return told.decode()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
