"""Names: of secrets, of their entries in stores, of keys at issuers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+")
_KEY: Final = re.compile(r"([a-z][a-z0-9-]*)\.([a-z][a-z0-9]*)-([a-z][a-z0-9-]+)\.([A-Za-z0-9-]{32,64})")
_ENVIRONMENT: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def name_fault(name: str) -> str | None:
    """Why a secret may not be called that, or None. `<service>-<purpose>` with an optional `-NN`."""
    if "--" in name or name.endswith(("-pending", "-journal", "-policy")):
        return (
            "must not contain '--' or end in '-pending', '-journal' or '-policy': those mark entries of Keyturn's own"
        )
    if not _NAME.fullmatch(name):
        return "must be <service>-<purpose> in lower case letters, digits and '-', as in support-copilot-chat"
    return None if len(name) <= 64 else "must have at most 64 characters"


def environment_fault(name: str) -> str | None:
    """Why an environment may not be called that, or None.

    No '-': prod and eu-chat-bot, prod-eu and chat-bot would give keys of one name, and the orphan
    sweep of the one would take the other's keys for its own.
    """
    if "-" in name:
        return "must be lower case letters and digits, starting with a letter, without '-'"
    return label_fault(name)


def label_fault(name: str) -> str | None:
    """Why an installation, a store, an issuer or an owner may not be called that, or None."""
    if "--" in name or name.endswith("-pending") or not _ENVIRONMENT.fullmatch(name):
        return "must be lower case letters, digits and single '-', starting with a letter, not ending in '-pending'"
    return None if len(name) <= 32 else "must have at most 32 characters"


def slashed(environment: str, name: str) -> str:
    """The entry's name in Secrets Manager and Vault."""
    return f"{environment}/{name}"


def dashed(environment: str, name: str) -> str:
    """The entry's name in Key Vault."""
    return f"{environment}--{name}"


@dataclass(frozen=True, slots=True)
class KeyName:
    """The name of one of our keys at its issuer: `<installation>.<environment>-<name>.<rotation token>`."""

    installation: str
    environment: str
    secret: str
    token: str

    def __str__(self) -> str:
        return f"{self.installation}.{self.environment}-{self.secret}.{self.token}"

    @classmethod
    def parse(cls, name: str) -> KeyName | None:
        """The parts of a name that some installation gave; None for any other name."""
        found = _KEY.fullmatch(name)
        return cls(*found.groups()) if found else None


def token_in(key_name: str, *, installation: str, environment: str, secret: str) -> str | None:
    """The rotation token in a key's name, provided that the key is of exactly this secret; else None."""
    prefix = f"{installation}.{environment}-{secret}."
    token = key_name.removeprefix(prefix)
    return token if key_name.startswith(prefix) and token and "." not in token else None
