"""What the app stands on: storage without keys, the queue, the log, and the network where it is asked for."""

from __future__ import annotations

import re
from typing import Final

import pulumi
import pulumi_azure_native as azure
from settings import Settings

from rotation.functions.azure_functions import QUEUE

CONTAINER: Final = "package"


class Ground(pulumi.ComponentResource):
    """Everything that is there before the app, and stays when it goes."""

    def __init__(
        self,
        name: str,
        where: pulumi.Input[str],
        about: Settings,
        tags: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keyturn:azure:Ground", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        kept = pulumi.ResourceOptions(parent=self, protect=True)
        # Who may what, roles say alone: there is no key that could leak. Its firewall is open, as deployments come from
        # outside of the app's network.
        self.storage: Final = azure.storage.StorageAccount(
            re.sub("[^a-z0-9]", "", name)[:16],
            resource_group_name=where,
            kind=azure.storage.Kind.STORAGE_V2,
            sku=azure.storage.SkuArgs(name=f"Standard_{about.redundancy}"),
            allow_shared_key_access=False,
            allow_blob_public_access=False,
            allow_cross_tenant_replication=False,
            default_to_o_auth_authentication=True,
            enable_https_traffic_only=True,
            minimum_tls_version=azure.storage.MinimumTlsVersion.TLS1_2,
            encryption=azure.storage.EncryptionArgs(
                key_source=azure.storage.KeySource.MICROSOFT_STORAGE,
                require_infrastructure_encryption=True,
                services=azure.storage.EncryptionServicesArgs(
                    blob=azure.storage.EncryptionServiceArgs(enabled=True, key_type=azure.storage.KeyType.ACCOUNT),
                    queue=azure.storage.EncryptionServiceArgs(enabled=True, key_type=azure.storage.KeyType.ACCOUNT),
                ),
            ),
            tags=tags,
            opts=below,
        )
        self.queue: Final = azure.storage.Queue(
            QUEUE, queue_name=QUEUE, account_name=self.storage.name, resource_group_name=where, opts=below
        )
        self.container: Final = azure.storage.BlobContainer(
            CONTAINER,
            container_name=CONTAINER,
            account_name=self.storage.name,
            resource_group_name=where,
            public_access=azure.storage.PublicAccess.NONE,
            opts=below,
        )
        # With it the audit trail would go.
        self.log: Final = azure.operationalinsights.Workspace(
            name,
            workspace_name=name,
            resource_group_name=where,
            sku=azure.operationalinsights.WorkspaceSkuArgs(name="PerGB2018"),
            retention_in_days=about.log_days,
            tags=tags,
            opts=kept,
        )
        self.insights: Final = azure.applicationinsights.Component(
            name,
            resource_name_=name,
            resource_group_name=where,
            application_type=azure.applicationinsights.ApplicationType.WEB,
            kind="web",
            workspace_resource_id=self.log.id,
            disable_local_auth=True,  # so that its connection string opens nothing
            tags=tags,
            opts=below,
        )
        self.subnet: pulumi.Output[str] | None = None
        self.addresses: list[pulumi.Output[str]] = []
        if about.network:
            self._join(name, where, about.network.cidr, tags)
        self.register_outputs({})

    def _join(self, name: str, where: pulumi.Input[str], cidr: str, tags: dict[str, str]) -> None:
        below = pulumi.ResourceOptions(parent=self)
        address = azure.network.PublicIPAddress(
            name,
            public_ip_address_name=name,
            resource_group_name=where,
            sku=azure.network.PublicIPAddressSkuArgs(name="Standard"),
            public_ip_allocation_method=azure.network.IPAllocationMethod.STATIC,
            tags=tags,
            # Others have it in their allowlists: Azure would give it to somebody else.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        gateway = azure.network.NatGateway(
            name,
            nat_gateway_name=name,
            resource_group_name=where,
            sku=azure.network.NatGatewaySkuArgs(name="Standard"),
            public_ip_addresses=[azure.network.SubResourceArgs(id=address.id)],
            tags=tags,
            opts=below,
        )
        network = azure.network.VirtualNetwork(
            name,
            virtual_network_name=name,
            resource_group_name=where,
            address_space=azure.network.AddressSpaceArgs(address_prefixes=[cidr]),
            tags=tags,
            opts=below,
        )
        subnet = azure.network.Subnet(
            "app",
            subnet_name="app",
            virtual_network_name=network.name,
            resource_group_name=where,
            address_prefix=cidr,
            nat_gateway=azure.network.SubResourceArgs(id=gateway.id),
            default_outbound_access=False,
            # What the instances of a Flex Consumption plan are run by.
            delegations=[azure.network.DelegationArgs(name="app", service_name="Microsoft.App/environments")],
            opts=below,
        )
        self.subnet = subnet.id
        self.addresses = [address.ip_address.apply(lambda text: text or "")]
