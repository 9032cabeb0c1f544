"""Roles and assignments for Key Vault: what a persona needs, for vaults with Azure role-based access control.

Facts from Microsoft's "Azure RBAC guide for Key Vault" and "Azure custom roles" (2026): a role can be assigned at one
secret of a vault; a custom role's assignable scopes are subscriptions and resource groups. What Azure can not narrow:

- who may get a secret gets every version of it, the older values too;
- a list of the vault's secrets, and a look for a deleted one, are asked of the vault as a whole: whoever may, sees names
  and tags of all of its secrets, and no value;
- to recover a deleted secret is taken here for a right on the vault, too. No document says whether a role at the secret
  reaches it once it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from providers.stores.azure import ACTIONS, VAULT
from rotation.access import Access
from rotation.config import KeyVaultConfig

PREFIX: Final = "Microsoft.KeyVault/vaults/secrets/"
_WORDS: Final = {
    "getSecret/action": "get",
    "setSecret/action": "set",
    "readMetadata/action": "list",
    "delete": "delete",
    "recover/action": "recover",
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """A set of data actions at one scope."""

    actions: tuple[str, ...]
    """Without their common start, PREFIX."""
    secret: str | None
    """The name of a secret of the vault; None for the vault."""

    @property
    def role(self) -> str:
        return "Keyturn " + " ".join(_WORDS[action] for action in self.actions)


def assignments(access: Access) -> list[Assignment]:
    """The fewest actions at the narrowest scopes. What the vault as a whole grants is not granted again."""
    found: dict[str | None, set[str]] = {None: {action for action, _ in ACTIONS["listing"]} if access.lists else set()}
    for grant in access.grants:
        for operation in grant.operations:
            for action, part in ACTIONS.get(operation, ()):
                found.setdefault(None if part == VAULT else grant.entry + part, set()).add(action)
    whole = found[None]
    return [
        Assignment(tuple(action for action in _WORDS if action in held), secret)
        for secret, actions in sorted(found.items(), key=lambda item: item[0] or "")
        if (held := actions if secret is None else actions - whole)
    ]


def document(store: KeyVaultConfig, access: Access, group: str) -> dict[str, Any]:
    """Custom roles and where to assign them.

    Parameters:
        group: the id of the resource group that the vault is in, `/subscriptions/…/resourceGroups/…`.
    """
    vault = store.vault_url.removeprefix("https://").partition(".")[0]
    scope = f"{group}/providers/Microsoft.KeyVault/vaults/{vault}"
    made = assignments(access)
    return {
        "roles": [_role(name, actions, group) for name, actions in sorted({(a.role, a.actions) for a in made})],
        "assignments": [
            {"role": a.role, "scope": scope if a.secret is None else f"{scope}/secrets/{a.secret}"} for a in made
        ],
        "notes": list(_notes(made)),
    }


def _role(name: str, actions: tuple[str, ...], group: str) -> dict[str, Any]:
    return {
        "Name": name,
        "IsCustom": True,
        "Description": "Written by `keyturn policy azure`.",
        "Actions": [],
        "DataActions": [PREFIX + action for action in actions],
        "AssignableScopes": [group],
    }


def _notes(made: list[Assignment]) -> Iterator[str]:
    if any("getSecret/action" in assignment.actions for assignment in made):
        yield "Whoever may get a secret gets every version of it, older values too: Azure has no right to the newest alone."
    if any(assignment.secret is None for assignment in made):
        yield (
            "Lists, and looks for what is deleted, are rights on the vault: names and tags of all of its secrets can be "
            "seen with them, no value."
        )
