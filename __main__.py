"""The Pulumi program: one RotatedSecret for each secret that the stack's configuration declares."""

import sys

import pulumi

from providers.pulumi.rotated_secret import RotatedSecret
from rotation.config import ConfigError, parse

SHOWN = 32
"""The exit code by which Pulumi's Python host knows that the person has been told what is wrong."""

# The whole bag: pulumi.Config answers for single keys only, and would not show one that is misspelt.
values = pulumi.runtime.config.CONFIG.get()
try:
    config = parse(values, encrypted=[key for key in values if pulumi.runtime.is_config_secret(key)])
except ConfigError as error:
    for fault in error.faults:
        pulumi.log.error(str(fault))
    sys.exit(SHOWN)

production = config.environment == "prod"
secrets = [
    RotatedSecret(
        policy,
        bootstrap=config.bootstrap,
        adopt=config.handling[policy.name].adopt,
        adopt_key_id=config.handling[policy.name].adopt_key_id,
        force_revoke=config.handling[policy.name].force_revoke,
        opts=pulumi.ResourceOptions(protect=production),
    )
    for policy in config.policies
]
pulumi.export("entries", {policy.name: secret.id for policy, secret in zip(config.policies, secrets, strict=True)})
