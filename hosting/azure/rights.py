"""Whom the app acts as, and what that identity may do: what `keyturn policy azure --for rotate` prints, and its surroundings."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import pulumi
import pulumi_azure_native as azure

from providers.access import azure as words
from rotation.access import Persona, needs
from rotation.config import Config, KeyVaultConfig

BUILT_IN: Final = {
    "Key Vault Secrets User": "4633458b-17de-408a-b874-0445c86b69e6",
    "Monitoring Metrics Publisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "Storage Blob Data Owner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "Storage Queue Data Contributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "Storage Queue Data Message Sender": "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
}
"""Ids of Azure's own roles ("Azure built-in roles")."""
_REFERENCE: Final = re.compile(r"https://([a-z0-9-]+)\.[^/]+/secrets/(.+)")


def generated(config: Config, group: str) -> dict[str, dict[str, Any]]:
    """Roles and assignments by store, as `keyturn policy azure` prints them."""
    found = needs(config, Persona.ROTATE, config.policies, mints=config.bootstrap == "apply")
    stores = ((name, about) for name, about in config.stores.items() if isinstance(about, KeyVaultConfig))
    return {name: words.document(about, found[name], group) for name, about in stores if name in found}


class Identity(pulumi.ComponentResource):
    """A managed identity, which is there before the app and outlives it, with its rights.

    Parameters:
        documents: as of generated().
        references: entries of vaults that app settings refer to.
    """

    def __init__(
        self,
        name: str,
        where: pulumi.Input[str],
        environment: str,
        vault_group: str,
        documents: dict[str, dict[str, Any]],
        references: dict[str, str],
        tags: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keyturn:azure:Identity", name, None, opts)
        self._below: Final = pulumi.ResourceOptions(parent=self)
        self._title: Final = name
        self._subscription: Final = vault_group.split("/")[2]
        self.made: Final = azure.managedidentity.UserAssignedIdentity(
            name, resource_name_=name, resource_group_name=where, tags=tags, opts=self._below
        )
        roles = {role["Name"]: role for document in documents.values() for role in document["roles"]}
        ids = {title: self._define(title, role, environment, vault_group) for title, role in sorted(roles.items())}
        self.granted: Final[list[pulumi.Resource]] = [
            self._assign(ids[given["role"]], given["scope"], given["role"])
            for document in documents.values()
            for given in document["assignments"]
        ]
        for reference in sorted(set(references.values())):
            vault, entry = _REFERENCE.fullmatch(reference).groups()  # type: ignore[union-attr]  # settings.py checks it
            scope = f"{vault_group}/providers/Microsoft.KeyVault/vaults/{vault}/secrets/{entry}"
            self.granted.append(self.grant("Key Vault Secrets User", scope, f"{vault}-{entry}"))
        self.register_outputs({"client": self.made.client_id})

    def grant(self, role: str, scope: pulumi.Input[str], title: str) -> azure.authorization.RoleAssignment:
        """Gives the identity one of Azure's own roles."""
        return assign(role, scope, title, self.made.principal_id, self._subscription, self._below)

    def _define(
        self, title: str, role: dict[str, Any], environment: str, group: str
    ) -> azure.authorization.RoleDefinition:
        # Names of roles are one space in a tenant, and each environment has vaults of its own.
        return azure.authorization.RoleDefinition(
            title.lower().replace(" ", "-"),
            role_definition_id=str(uuid5(NAMESPACE_URL, f"{group}/{environment}/{title}")),
            role_name=f"{title} ({environment})",
            role_type="CustomRole",
            description=role["Description"],
            scope=group,
            assignable_scopes=role["AssignableScopes"],
            permissions=[azure.authorization.PermissionArgs(actions=role["Actions"], data_actions=role["DataActions"])],
            opts=self._below,
        )

    def _assign(
        self, role: azure.authorization.RoleDefinition, scope: str, title: str
    ) -> azure.authorization.RoleAssignment:
        called = f"{scope.rpartition('/')[2]}-{title.lower().replace(' ', '-')}"
        return azure.authorization.RoleAssignment(
            called,
            role_assignment_name=str(uuid5(NAMESPACE_URL, f"{scope}/{title}/{self._title}")),
            role_definition_id=role.id,
            scope=scope,
            principal_id=self.made.principal_id,
            principal_type="ServicePrincipal",
            opts=self._below,
        )


def assign(
    role: str,
    scope: pulumi.Input[str],
    title: str,
    principal: pulumi.Input[str],
    subscription: str,
    opts: pulumi.ResourceOptions,
) -> azure.authorization.RoleAssignment:
    """Gives a principal one of Azure's own roles."""
    found = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{BUILT_IN[role]}"
    return azure.authorization.RoleAssignment(
        f"{title}-{role.lower().replace(' ', '-')}",
        role_definition_id=found,
        scope=scope,
        principal_id=principal,
        principal_type="ServicePrincipal",
        opts=opts,
    )
