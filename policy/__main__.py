"""The pack as Pulumi runs it: `pulumi preview --policy-pack policy`. What the rules say is in rules.py."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

# The rules run the schedules themselves, which stand beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policy import rules

DURATION = {"type": "string"}
DURATIONS = {"type": "object", "additionalProperties": DURATION}
TEXTS = {"type": "array", "items": {"type": "string"}}
PREFIX = {"type": "integer", "minimum": 0, "maximum": 128}


def plain(value: Any) -> Any:
    """Properties as dictionaries and lists. What is not known before an update raises, and Pulumi says so."""
    if isinstance(value, Mapping):
        return {name: plain(value[name]) for name in value}
    return [plain(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def now() -> datetime:
    return datetime.now(UTC)


def secret_rule(
    name: str,
    description: str,
    rule: Callable[[dict[str, Any], Mapping[str, Any]], Any],
    **schema: dict[str, Any],
) -> Policy:
    """A rule of every RotatedSecret."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type == rules.RESOURCE:
            for told in rule(plain(args.props), plain(args.get_config())):
                report(f"{args.name}: {told}", None)

    return ResourceValidationPolicy(name, description, validate, config_schema=PolicyConfigSchema(schema))


def narrow(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Rights in any resource."""
    for told in rules.rights(args.resource_type, plain(args.props), plain(args.get_config())):
        report(f"{args.name}: {told}", None)


def apart(args: StackValidationArgs, report: ReportViolation) -> None:
    """Pairs among all secrets of the stack."""
    secrets = {resource.name: resource for resource in args.resources if resource.resource_type == rules.RESOURCE}
    found = rules.pairs([plain(secret.props) for secret in secrets.values()], plain(args.get_config()), now())
    for name, told in found:
        report(f"{name}: {told}", secrets[name].urn if name in secrets else None)


POLICIES: list[Policy] = [
    secret_rule("keyturn-owner", "Every secret has an owner, who is told and asked.", rules.owner, owners=TEXTS),
    secret_rule(
        "keyturn-cadence",
        "No credential gets older than allowed when its schedule is run: 60 days, in prod 30.",
        lambda props, settings: rules.cadence(props, settings, now()),
        most=DURATION,
        mostIn=DURATIONS,
        exceptions=DURATIONS,
    ),
    secret_rule(
        "keyturn-grace",
        "The grace period is below the shortest time between two rotations.",
        lambda props, settings: rules.grace(props, settings, now()),
    ),
    secret_rule("keyturn-names", "Names follow <service>-<purpose>, in an environment of their own.", rules.named),
    secret_rule(
        "keyturn-readers",
        "Networks that may read a secret are not everybody.",
        rules.readers,
        widest=PREFIX,
        widest6=PREFIX,
    ),
    ResourceValidationPolicy(
        "keyturn-rights",
        "No wildcard gives access to secrets that nobody meant.",
        narrow,
        config_schema=PolicyConfigSchema({"allowActions": TEXTS}),
    ),
    StackValidationPolicy("keyturn-pairs", "Two secrets that are paired never rotate in one window.", apart),
]

PolicyPack("keyturn", POLICIES, EnforcementLevel.MANDATORY)
