"""The app itself, and Event Grid's subscription to the vaults.

Flex Consumption, of the plans that there are: it scales to nothing between sweeps, joins a network (so that a NAT gateway gives it
one address), and takes its package and its triggers by a managed identity. Elastic Premium can do the same, and keeps an
instance running for it day and night; the plan that is called Consumption can join no network, and ends on Linux.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

import pulumi
import pulumi_azure_native as azure
from ground import CONTAINER, Ground
from rights import Identity, assign
from settings import Settings

from providers.pulumi.settings import fail
from rotation.config import Config, KeyVaultConfig
from rotation.functions.azure_functions import FLEET, QUEUE

KINDS: Final = ("Microsoft.KeyVault.SecretNearExpiry", "Microsoft.KeyVault.SecretExpired")
"""Of a vault's events, those that a run is due for."""
_MINUTES: Final = 1440
"""How long Event Grid tries to deliver. Every sweep finds what was not."""


def check(package: Path, stack_file: Path) -> None:
    """Ends the program where the package is absent, or was built from another stack file."""
    if not package.is_file():
        fail(f"there is no package {package}: build it with `make functions STACK={pulumi.get_stack()}`")
    with zipfile.ZipFile(package) as archive:
        packed = archive.read(stack_file.name) if stack_file.name in archive.namelist() else None
    if packed != stack_file.read_bytes():
        fail(f"{package} was built from another stack file: build it again, or the rights would not be what it needs")


class App(pulumi.ComponentResource):
    """The Functions app. Its code is deployed afterwards, with a remote build: `deploy` of the outputs."""

    def __init__(
        self,
        name: str,
        where: pulumi.Input[str],
        about: Settings,
        ground: Ground,
        identity: Identity,
        tags: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keyturn:azure:App", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        rights: list[pulumi.Resource] = [
            identity.grant("Storage Blob Data Owner", ground.storage.id, "storage"),
            identity.grant("Storage Queue Data Contributor", ground.storage.id, "storage"),
            identity.grant("Monitoring Metrics Publisher", ground.insights.id, "insights"),
        ]
        plan = azure.web.AppServicePlan(
            name,
            resource_group_name=where,
            kind="functionapp",
            reserved=True,
            sku=azure.web.SkuDescriptionArgs(name="FC1", tier="FlexConsumption"),
            tags=tags,
            opts=below,
        )
        references = {name: f"@Microsoft.KeyVault(SecretUri={uri})" for name, uri in about.references.items()}
        own: dict[str, pulumi.Input[str]] = {
            "AzureWebJobsStorage__accountName": ground.storage.name,
            "AzureWebJobsStorage__credential": "managedidentity",
            "AzureWebJobsStorage__clientId": identity.made.client_id,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": ground.insights.connection_string,
            "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": pulumi.Output.concat(
                "ClientId=", identity.made.client_id, ";Authorization=AAD"
            ),
            # By it DefaultAzureCredential knows which identity is meant.
            "AZURE_CLIENT_ID": identity.made.client_id,
            "KEYTURN_LOG_LEVEL": about.log_level,
            "KEYTURN_SWEEP_SCHEDULE": f"0 */{about.sweep_every} * * * *",
        }
        own |= {FLEET: "1"} if about.fleet else {}
        variables = {**about.environment, **references, **own}
        self.site: Final = azure.web.WebApp(
            name,
            resource_group_name=where,
            kind="functionapp,linux",
            server_farm_id=plan.id,
            https_only=True,
            identity=azure.web.ManagedServiceIdentityArgs(
                type=azure.web.ManagedServiceIdentityType.USER_ASSIGNED, user_assigned_identities=[identity.made.id]
            ),
            key_vault_reference_identity=identity.made.id,
            virtual_network_subnet_id=ground.subnet,
            function_app_config=azure.web.FunctionAppConfigArgs(
                deployment=azure.web.FunctionsDeploymentArgs(
                    storage=azure.web.FunctionsDeploymentStorageArgs(
                        type=azure.web.FunctionsDeploymentStorageType.BLOB_CONTAINER,
                        value=ground.storage.primary_endpoints.apply(lambda found: f"{found.blob}{CONTAINER}"),
                        authentication=azure.web.FunctionsDeploymentStorageAuthenticationArgs(
                            type=azure.web.AuthenticationType.USER_ASSIGNED_IDENTITY,
                            user_assigned_identity_resource_id=identity.made.id,
                        ),
                    )
                ),
                runtime=azure.web.FunctionsRuntimeArgs(name=azure.web.RuntimeName.PYTHON, version=about.python),
                scale_and_concurrency=azure.web.FunctionsScaleAndConcurrencyArgs(
                    instance_memory_mb=about.memory, maximum_instance_count=about.instances
                ),
            ),
            site_config=azure.web.SiteConfigArgs(
                app_settings=[azure.web.NameValuePairArgs(name=key, value=variables[key]) for key in sorted(variables)],
                min_tls_version=azure.web.SupportedTlsVersions.SUPPORTED_TLS_VERSIONS_1_2,
                ftps_state=azure.web.FtpsState.DISABLED,
                # Events come by the queue, so nobody has to reach it but who deploys.
                ip_security_restrictions_default_action=azure.web.DefaultAction.DENY,
                scm_ip_security_restrictions_use_main=False,
                scm_ip_security_restrictions_default_action=azure.web.DefaultAction.ALLOW,
            ),
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[*rights, *identity.granted, ground.queue, ground.container]
            ),
        )
        # Whoever deploys logs in as somebody: no user name and password of the app's own.
        azure.web.WebAppScmAllowed(name, name=self.site.name, resource_group_name=where, allow=False, opts=below)
        azure.web.WebAppFtpAllowed(name, name=self.site.name, resource_group_name=where, allow=False, opts=below)
        self.register_outputs({})


class Events(pulumi.ComponentResource):
    """What is near its expiry prompts a run at once, of the stack's secrets; any other event is left where it is."""

    def __init__(
        self,
        name: str,
        where: pulumi.Input[str],
        config: Config,
        about: Settings,
        ground: Ground,
        tags: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keyturn:azure:Events", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        urls = sorted({each.vault_url for each in config.stores.values() if isinstance(each, KeyVaultConfig)})
        for vault in (url.removeprefix("https://").partition(".")[0] for url in urls):
            topic = azure.eventgrid.SystemTopic(
                vault,
                system_topic_name=f"{name}-{vault}",
                resource_group_name=where,
                location=about.vault_location,
                source=f"{about.vault_group}/providers/Microsoft.KeyVault/vaults/{vault}",
                topic_type="Microsoft.KeyVault.vaults",
                identity=azure.eventgrid.IdentityInfoArgs(type=azure.eventgrid.IdentityType.SYSTEM_ASSIGNED),
                tags=tags,
                opts=below,
            )
            principal = topic.identity.apply(lambda found: (found and found.principal_id) or "")
            subscription = about.vault_group.split("/")[2]
            may = assign("Storage Queue Data Message Sender", ground.storage.id, vault, principal, subscription, below)
            azure.eventgrid.SystemTopicEventSubscription(
                vault,
                event_subscription_name="keyturn",
                system_topic_name=topic.name,
                resource_group_name=where,
                # To the queue, and not to the webhook: that address would hold the key of a function.
                delivery_with_resource_identity=azure.eventgrid.DeliveryWithResourceIdentityArgs(
                    identity=azure.eventgrid.EventSubscriptionIdentityArgs(
                        type=azure.eventgrid.EventSubscriptionIdentityType.SYSTEM_ASSIGNED
                    ),
                    destination=azure.eventgrid.StorageQueueEventSubscriptionDestinationArgs(
                        endpoint_type="StorageQueue",
                        resource_id=ground.storage.id,
                        queue_name=QUEUE,
                        queue_message_time_to_live_in_seconds=60 * _MINUTES,
                    ),
                ),
                filter=azure.eventgrid.EventSubscriptionFilterArgs(
                    included_event_types=[*KINDS], subject_begins_with=f"{config.environment}--"
                ),
                retry_policy=azure.eventgrid.RetryPolicyArgs(
                    max_delivery_attempts=30, event_time_to_live_in_minutes=_MINUTES
                ),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[may, ground.queue]),
            )
        self.register_outputs({})
