"""Keyturn on Azure Functions, for what one stack file declares: `pulumi up --stack prod`. Settings: settings.py and docs/hosting.md."""

import pulumi
import pulumi_azure_native as azure
from alerts import Alerts
from app import App, Events, check
from ground import Ground
from rights import Identity, generated
from settings import Settings

from providers.pulumi import settings

about = settings.read(Settings)
path, config = settings.stack(about)
check(about.package, path)
name = f"keyturn-{config.environment}"
tags = {"Application": "keyturn", "Environment": config.environment, **about.tags}

# All of Keyturn's own, and none of its secrets: those are in the vaults.
group = azure.resources.ResourceGroup(
    name, resource_group_name=name, tags=tags, opts=pulumi.ResourceOptions(protect=True)
)
ground = Ground(name, group.name, about, tags)
documents = generated(config, about.vault_group)
identity = Identity(name, group.name, config.environment, about.vault_group, documents, about.references, tags)
app = App(name, group.name, about, ground, identity, tags)
if about.events:
    Events(name, group.name, config, about, ground, tags)
alerts = Alerts(name, group.name, ground.insights, about.owners, about.sweep_every, tags)

pulumi.export("group", group.name)
pulumi.export("app", app.site.name)
pulumi.export("identity", identity.made.client_id)
pulumi.export("queue", ground.queue.name)
pulumi.export("storage", ground.storage.name)
pulumi.export("addresses", ground.addresses)
deploy = "az functionapp deployment source config-zip --build-remote true"
pulumi.export(
    "deploy", pulumi.Output.concat(deploy, " -g ", group.name, " -n ", app.site.name, f" --src {about.package}")
)
pulumi.export("variablesNotSet", settings.warn_of_missing(config, {*about.environment, *about.references}))
