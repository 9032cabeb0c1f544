"""What a host has to give a stack: which variables, and which ports of the world outside. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from rotation.declared import Config
from rotation.packed import encode

_PARTS: Final = ("stores", "issuers", "channels", "audit", "on_rotate", "fingerprints")
_TOKEN: Final = "VAULT_TOKEN"  # noqa: S105 - the name of a variable
_WEB: Final = {"http": 80, "https": 443}
_POSTGRESQL: Final = 5432


def variables(config: Config) -> frozenset[str]:
    """Names of the variables that logins of this stack are looked up in (`{env: NAME}`, and Vault's VAULT_TOKEN)."""
    found = {part["env"] for part in _records(config) if part["$"] == "EnvReference"}
    return frozenset(found | ({_TOKEN} if any(part["$"] == "TokenAuth" for part in _records(config)) else set()))


def ports(config: Config) -> tuple[int, ...]:
    """TCP ports that its stores and issuers are reached at, 443 always among them: clouds and vendors."""
    found = {443}
    for part in _records(config):
        if part["$"] == "PostgreSQLConfig":
            found.add(part.get("port") or _POSTGRESQL)
        for text in part.values():
            if isinstance(text, str) and text.startswith(("https://", "http://")):
                url = urlsplit(text)
                found.add(url.port or _WEB[url.scheme])
    return tuple(sorted(found))


def _records(config: Config) -> Iterator[dict[str, Any]]:
    for part in _PARTS:
        yield from _walk(encode(getattr(config, part)))


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "$" in tree:
            yield tree
        for below in tree.values():
            yield from _walk(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from _walk(below)
