"""What comes with which extra: whoever lacks a package is told what to install, before anything is done.

    pip install 'keyturn[vault]'      the SDK of one store, and no other's

The extras themselves stand in pyproject.toml; tests hold the two against each other. The standard library only: functions
carry this along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Final

EXTRAS: Final[Mapping[str, str]] = {
    "apprise": "notify",
    "azure.identity": "azure",
    "azure.keyvault.secrets": "azure",
    "boto3": "aws",
    "botocore": "aws",
    "celery": "celery",
    "cryptography": "keys",
    "hvac": "vault",
    "kombu": "celery",
    "opentelemetry": "otel",
    "psycopg": "postgres",
    "pulumi": "pulumi",
}
"""By module, as it is imported: the extra that brings it."""

BY_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "aws-secrets-manager": ("boto3",),
    "azure-key-vault": ("azure.identity", "azure.keyvault.secrets"),
    "hashicorp-vault": ("hvac",),
    "aws-iam": ("boto3",),
    "postgresql": ("psycopg",),
    "key-pair": ("cryptography",),
}
"""The modules that a kind of store or issuer loads at its first use. The others need none."""


def lacking(modules: Iterable[str]) -> str | None:
    """A sentence on what is missing, and how to get it; None where all of these can be imported.

    Parameters:
        modules: as in EXTRAS. They are looked for, and not loaded.
    """
    for module in modules:
        if not _there(module):
            return _sentence(module, EXTRAS[module])
    return None


def explained(error: ModuleNotFoundError) -> str | None:
    """The same of an import that has failed; None where the module is of no extra."""
    name = error.name or ""
    found = (extra for module, extra in EXTRAS.items() if _same_branch(name, module))
    extra = next(found, None)
    return _sentence(name, extra) if extra else None


def _same_branch(name: str, module: str) -> bool:
    """Whether the name is the module, within it, or a namespace around it: `azure` of `azure.identity`."""
    return name == module or name.startswith(f"{module}.") or module.startswith(f"{name}.")


def _sentence(module: str, extra: str) -> str:
    return f"the Python package {module} is not installed: pip install 'keyturn[{extra}]'"


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the namespace around it
        return False
