"""Keyturn on AWS Lambda, for what one stack file declares: `pulumi up --stack prod`. Settings: settings.py and docs/hosting.md."""

import pulumi
import pulumi_aws as aws
from alarms import Alarms
from function import Keyturn, runtime
from ground import Ground
from network import Private
from rights import Rotates, generated
from settings import Settings

from providers.pulumi import settings
from rotation import hosted

about = settings.read(Settings)
_, config = settings.stack(about)
runs_on, documents = runtime(about.package, config, about.runtime), generated(config)
name = f"keyturn-{config.environment}"
account, region = aws.get_caller_identity().account_id, aws.get_region().region

tags = {"Application": "keyturn", "Environment": config.environment, **about.tags}
provider = aws.Provider("aws", region=region, default_tags=aws.ProviderDefaultTagsArgs(tags=tags))
below = pulumi.ResourceOptions(providers=[provider])

ground = Ground(
    name,
    region=region,
    account=account,
    key=about.key,
    log_days=about.log_days,
    timeout=about.timeout,
    owners=about.owners,
    opts=below,
)
rotates = Rotates(name, documents, account, about.trusted, makes=about.make_role, opts=below)
private = Private(name, about.network, region, account, hosted.ports(config), below) if about.network else None
keyturn = Keyturn(name, config, about, rotates, ground, private, account, runs_on, below)
Alarms(
    name, config.environment, ground.topic, keyturn.function, ground.work, ground.dead, 60 * about.sweep_every, below
)

pulumi.export("function", keyturn.function.arn)
pulumi.export("log", ground.log.name)
pulumi.export("queue", ground.work.id)
pulumi.export("deadLetters", ground.dead.id)
pulumi.export("topic", ground.topic.arn)
pulumi.export("role", rotates.own.arn)
pulumi.export("addresses", private.addresses if private else [])
pulumi.export("rightsToGrant", rotates.elsewhere)
pulumi.export("variablesNotSet", settings.warn_of_missing(config, about.environment))
