"""The rules of the pack: pure functions from what a resource declares to sentences that say what is wrong with it.

Each takes the resource's properties and the rule's own settings (`--policy-pack-config`), with the defaults of
`DEFAULTS` for what is not set; those that run schedules also take the time. A secret whose schedule can not be read is
refused by the resource itself, and is none of theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_network
from typing import Any, Final

from policy import ages
from providers.pulumi.rotated_secret import policy_of
from rotation import names
from rotation.model import Policy
from rotation.policy import read_duration, show_duration

RESOURCE: Final = "pulumi-python:dynamic/keyturn:RotatedSecret"
"""The type under which a RotatedSecret is registered."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "most": "60d",
    "mostIn": {"prod": "30d"},
    "exceptions": {},
    "owners": [],
    "widest": 16,
    "widest6": 32,
    "allowActions": [],
}
"""What a rule goes by where its settings say nothing."""

Settings = Mapping[str, Any]
Props = Mapping[str, Any]
Found = Iterator[str]


def _set(settings: Settings, name: str) -> Any:
    given = settings.get(name)
    return DEFAULTS[name] if given is None else given


# --- one secret ----------------------------------------------------------------------------------


def owner(props: Props, settings: Settings) -> Found:
    """Somebody is told, and asked: an owner is named, and is one of `owners` where those are listed."""
    found, known = str(props.get("owner") or "").strip(), list(_set(settings, "owners"))
    if not found:
        yield "it has no owner; name the team that is told of its rotations"
    elif known and found not in known:
        yield f"its owner {found} is none of {', '.join(known)}"


def cadence(props: Props, settings: Settings, now: datetime) -> Found:
    """No credential gets older than `most`, in some environments `mostIn`; for single secrets, by name, `exceptions`.

    What counts is how old credentials get when the schedule is run, with its windows, blackouts and pair.
    """
    policy = policy_of(props)
    within = _set(settings, "mostIn").get(policy.environment, _set(settings, "most"))
    text = _set(settings, "exceptions").get(policy.name, within)
    most, (_, longest) = read_duration(text), ages.range_of(policy, now)
    if longest > most:
        told = f"its schedule lets a credential get {show_duration(longest)} old before it is replaced"
        yield f"{told}; in {policy.environment} at most {text} is allowed"


def grace(props: Props, _settings: Settings, now: datetime) -> Found:
    """An old credential is gone before the next one gets old: else there are three and more at a time."""
    policy = policy_of(props)
    shortest, _ = ages.range_of(policy, now)
    if policy.grace >= shortest:
        told = (
            f"its grace of {show_duration(policy.grace)} is not below the {show_duration(shortest)} that its schedule"
        )
        yield f"{told} may leave between two rotations"


def named(props: Props, _settings: Settings) -> Found:
    """`<service>-<purpose>` in an environment of its own, as design and alerts rely on it."""
    judged = {
        "name": names.name_fault,
        "environment": names.environment_fault,
        "installation": names.label_fault,
        "store": names.label_fault,
        "issuer": names.label_fault,
    }
    for part, fault in judged.items():
        if why := fault(str(props.get(part) or "")):
            yield f"its {part} {str(props.get(part) or '')!r} {why}"


def readers(props: Props, settings: Settings) -> Found:
    """Networks that are everybody are no limit: of IPv4 at most /`widest`, of IPv6 /`widest6`."""
    for text in props.get("allowedCidrs") or ():
        network = ip_network(text, strict=False)
        narrowest = int(_set(settings, "widest" if network.version == 4 else "widest6"))
        if network.prefixlen < narrowest:
            yield f"{text} in allowedCidrs is wider than /{narrowest}: it keeps hardly anybody out"
    for endpoint in props.get("allowedVpces") or ():
        if "*" in endpoint:
            yield f"{endpoint} in allowedVpces is not one endpoint"


# --- pairs, which only the whole stack can show ----------------------------------------------------


def pairs(secrets: Sequence[Props], _settings: Settings, now: datetime) -> Iterator[tuple[str, str]]:
    """Two that are paired never rotate in one window. Gives the name of the secret, and what is wrong."""
    policies = {(policy.environment, policy.name): policy for policy in map(policy_of, secrets)}
    for (environment, name), policy in policies.items():
        if policy.paired_with is None:
            continue
        other = policies.get((environment, policy.paired_with))
        if other is None:
            yield name, f"it is paired with {policy.paired_with}, which the stack does not have"
        elif other.paired_with != name:
            yield name, f"it is paired with {other.name}, which is not paired with it"
        elif name < other.name:
            yield from ((name, told) for told in _pair(policy, other, now))


def _pair(one: Policy, other: Policy, now: datetime) -> Found:
    for policy in (one, other):
        if not ages.takes_turns(policy):
            told = f"{policy.name} may be {show_duration(policy.rotate_every)} old, which leaves no room to wait"
            yield f"{told} until the old credential of the other one is gone"
    if at := ages.together(one, other, now):
        yield f"it rotates in one window with {other.name}, as on {at:%a %Y-%m-%d %H:%M}Z; give both the same windows"


# --- rights, in whatever resource they are declared ------------------------------------------------

_NARROW: Final = {"*", "secretsmanager", "kms", "iam", "sts"}
"""Services of AWS in which a wildcard among actions reaches values, or rights to them."""
_UNSCOPED: Final = {
    "secretsmanager:ListSecrets",
    "secretsmanager:GetRandomPassword",
    "secretsmanager:BatchGetSecretValue",
}
"""Actions that have no resource in IAM (service authorization reference of Secrets Manager)."""
_AZURE: Final = ("actions", "dataActions")
_VAULT_PATH: Final = re.compile(r'path\s+"([^"]*)"\s*\{([^}]*)\}')
_VAULT_READS: Final = re.compile(r'"(read|create|update|patch|delete|sudo)"')


def rights(kind: str, props: Props, settings: Settings) -> Found:
    """No wildcard opens more than was meant: IAM and resource policies of AWS, roles of Azure, policies of Vault.

    Parameters:
        kind: the resource's type.
    """
    allowed = set(_set(settings, "allowActions"))
    if kind.startswith(("aws:", "aws-native:")):
        for document in _documents(props):
            statements = document["Statement"]
            for statement in [statements] if isinstance(statements, Mapping) else statements:
                yield from _statement(statement, allowed)
    elif "authorization" in kind and "oledefinition" in kind.lower():
        for permission in props.get("permissions") or ():
            for part in _AZURE:
                yield from (
                    f"{action} in {part} is a wildcard; name the actions"
                    for action in permission.get(part) or ()
                    if "*" in action and action not in allowed
                )
    elif kind == "vault:index/policy:Policy":
        for path, body in _VAULT_PATH.findall(str(props.get("policy") or "")):
            first = path.partition("/")[2]
            if _VAULT_READS.search(body) and (path.startswith(("*", "+")) or first.startswith(("*", "+/*"))):
                yield f'the path "{path}" is all of a mount; name what is read or written'


def _documents(value: object) -> Iterator[Mapping[str, Any]]:
    """Policy documents at any depth, as structures or as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, Mapping):
        if "Statement" in value:
            yield value
        else:
            for below in value.values():
                yield from _documents(below)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for below in value:
            yield from _documents(below)


def _statement(statement: Mapping[str, Any], allowed: set[str]) -> Found:
    if statement.get("Effect") != "Allow":
        return
    sid = f"statement {statement['Sid']}" if statement.get("Sid") else "a statement"
    for part in ("NotAction", "NotResource", "NotPrincipal"):
        if part in statement:
            yield f"{sid} allows everything but {part}; name what is allowed"
    actions = _texts(statement.get("Action"))
    for action in actions:
        if "*" in action and action.partition(":")[0] in _NARROW and action not in allowed:
            yield f"{sid} allows {action}; name the actions"
    scoped = {action for action in actions if action.startswith("secretsmanager:")} - _UNSCOPED - allowed
    if "*" in _texts(statement.get("Resource")) and scoped and "Principal" not in statement:
        yield f"{sid} allows {', '.join(sorted(scoped))} on every secret; name them"
    principal = statement.get("Principal")
    everybody = "*" in _texts(principal.get("AWS") if isinstance(principal, Mapping) else principal)
    if everybody and not statement.get("Condition"):
        yield f"{sid} lets everybody in; name who may"


def _texts(given: object) -> list[str]:
    if isinstance(given, Iterable) and not isinstance(given, str | Mapping):
        return [str(one) for one in given]
    return [given] if isinstance(given, str) else []
