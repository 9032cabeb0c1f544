"""What policies let a caller do at Secrets Manager: a stand-in for IAM's evaluation within one account.

moto 5.2.5 evaluates actions alone: it compares no resource of Secrets Manager, takes no condition of an identity policy
into account, and knows no resource policies. This does: Action, Resource and Condition of the caller's identity
policies, and Principal besides in the policy of the secret. An explicit Deny wins; else one Allow is enough, of either
("Policy evaluation logic", IAM user guide).

Documented, and so here: the ARN of an existing secret is what counts, whatever the call named it by; BatchGetSecretValue
and ListSecrets are about `*`, and each value of a batch takes GetSecretValue; tags of a new secret take TagResource,
replicas ReplicateSecretToRegions, and a rotation function lambda:InvokeFunction. From reports of what the service did,
not from its documentation: a name that it does not have counts without the six characters at the end of an ARN, a new
secret with some.

Not evaluated: boundaries, session policies, service control policies, permissions for KMS, other accounts. A condition
key or operator that is not known here is a fault of the stand-in (HTTP 500), never a silent yes or no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from sandbox.aws.wire import Call, ServiceError

if TYPE_CHECKING:
    from sandbox.aws.identity import Identity
    from sandbox.aws.secretsmanager import SecretsManager

_SERVICE = "secretsmanager:"
_ANYWHERE = {"BatchGetSecretValue", "GetRandomPassword", "ListSecrets"}
_SUFFIX = "-SANDbx"
"""Stands for the six random characters of a secret that is about to be made."""

Values = list[str] | None
"""Of a context key; None when the request has none."""


class Permissions:
    """Identity policies of one account, and the policies of its secrets. Called under the server's lock."""

    def __init__(self, identity: Identity, secrets: SecretsManager) -> None:
        self._identity = identity
        self._secrets = secrets

    def check(self, call: Call) -> None:
        """Lets a call of Secrets Manager pass, or not.

        Raises:
            ServiceError: AccessDeniedException, in the service's words.
        """
        for action, resource in self._needed(call):
            self._require(call, action, resource)

    def keep_back(self, call: Call, result: dict[str, Any]) -> None:
        """Takes out of a batch's answer the values that the caller may not read, and says so in its errors."""
        kept = []
        for value in result["SecretValues"]:
            try:
                self._require(call, f"{_SERVICE}GetSecretValue", value["ARN"])
                kept.append(value)
            except ServiceError as error:
                told = {"SecretId": value["ARN"], "ErrorCode": error.code, "Message": error.message}
                result["Errors"] = [*result["Errors"], told]
        result["SecretValues"] = kept

    def _needed(self, call: Call) -> Iterator[tuple[str, str]]:
        """Every action that a call takes, and the ARN that each is about."""
        given = call.parameters
        resource = self._resource(call)
        yield _SERVICE + call.operation, resource
        if call.operation == "CreateSecret":
            if given.get("Tags"):
                yield f"{_SERVICE}TagResource", resource
            if given.get("AddReplicaRegions"):
                yield f"{_SERVICE}ReplicateSecretToRegions", resource
        if call.operation == "RotateSecret" and (function := given.get("RotationLambdaARN") or self._function(call)):
            yield "lambda:InvokeFunction", function

    def _function(self, call: Call) -> str:
        """What the secret is rotated by already."""
        entry = self._secrets.region(call.region).lookup(str(call.parameters.get("SecretId", "")))
        return entry.primary.rotation.lambda_arn if entry and entry.primary.rotation else ""

    def _resource(self, call: Call) -> str:
        if call.operation in _ANYWHERE:
            return "*"
        start = f"arn:aws:secretsmanager:{call.region}:{self._identity.account_id}:secret:"
        if call.operation == "CreateSecret":
            return f"{start}{call.parameters.get('Name', '')}{_SUFFIX}"
        named = str(call.parameters.get("SecretId", ""))
        entry = self._secrets.region(call.region).lookup(named)
        return entry.arn if entry else named if named.startswith("arn:") else start + named

    def _require(self, call: Call, action: str, resource: str) -> None:
        caller, policies = self._identity.principal(call)
        context = _context(call, caller)
        told = f"User: {caller} is not authorized to perform: {action} on resource: {resource}"
        entry = self._secrets.region(call.region).lookup(resource) if resource.startswith("arn:") else None
        own = json.loads(entry.primary.policy) if entry and entry.primary.policy else {"Statement": []}
        meant = [part for part in _statements(own) if _names(part, caller, self._identity.account_id)]
        granted = [part for policy in policies or [] for part in _statements(policy)]
        for kind, statements in (("identity-based", granted), ("resource-based", meant)):
            if any(part["Effect"] == "Deny" and _applies(part, action, resource, context) for part in statements):
                raise _denied(f"{told} with an explicit deny in a {kind} policy")
        if policies is None or any(_applies(part, action, resource, context) for part in (*granted, *meant)):
            return
        raise _denied(f"{told} because no identity-based policy allows the {action} action")


def _denied(message: str) -> ServiceError:
    return ServiceError("AccessDeniedException", message)


def _statements(policy: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = policy["Statement"]
    return found if isinstance(found, list) else [found]


def _names(statement: Mapping[str, Any], caller: str, account_id: str) -> bool:
    """Whether a statement of a resource policy is about the caller."""
    principal = statement["Principal"]
    named = _listed(principal.get("AWS") if isinstance(principal, dict) else principal)
    return bool({"*", caller, account_id, f"arn:aws:iam::{account_id}:root"} & set(named))


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, Values]) -> bool:
    if unknown := set(statement) & {"NotAction", "NotResource", "NotPrincipal"}:
        raise NotImplementedError(f"the stand-in does not evaluate {', '.join(unknown)}")
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in _listed(statement["Action"]))
        and any(_like(pattern, resource) for pattern in _listed(statement["Resource"]))
        and all(
            _holds(operator, context[_known(key, context)], _listed(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


# --- conditions: "IAM JSON policy elements: Condition operators" and "Single-valued vs. multivalued context keys"


def _context(call: Call, caller: str) -> dict[str, Values]:
    """The condition keys of a request, by their names in lower case."""
    given = call.parameters
    tags = [tag["Key"] for tag in given.get("Tags", ())] + list(given.get("TagKeys", ()))
    through = call.vpc_endpoint
    return {
        # "aws:SourceIp: … not available where the requester uses a VPC endpoint".
        "aws:sourceip": None if through else [call.source_ip],
        "aws:sourcevpce": [through] if through else None,
        "aws:principalarn": [caller],
        "aws:principalisawsservice": ["false"],
        "aws:viaawsservice": ["false"],
        "aws:tagkeys": tags or None,
        "secretsmanager:name": _one(given.get("Name")),
        "secretsmanager:secretid": _one(given.get("SecretId")),
        "secretsmanager:versionid": _one(given.get("VersionId")),
        "secretsmanager:versionstage": _one(given.get("VersionStage")),
    }


def _one(value: Any) -> Values:
    return None if value is None else [str(value)]


def _known(key: str, context: Mapping[str, Values]) -> str:
    if key.lower() not in context:
        raise NotImplementedError(f"the stand-in does not know the condition key {key}")
    return key.lower()


def _holds(operator: str, found: Values, wanted: list[str]) -> bool:
    quantifier, _, name = operator.rpartition(":")
    if name == "Null":
        return (found is None) is (wanted == ["true"])
    plain = name.removesuffix("IfExists")
    positive = plain.replace("Not", "", 1)
    if positive not in _MATCHES or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise NotImplementedError(f"the stand-in does not know the condition operator {operator}")
    matches, negated = _MATCHES[positive], positive != plain
    if found is None:
        return name != plain or negated or quantifier == "ForAllValues"
    if not quantifier and len(found) > 1:
        raise NotImplementedError(f"{operator} compares one value; the request has {len(found)}")
    results = [any(matches(pattern, value) for pattern in wanted) is not negated for value in found]
    return any(results) if quantifier == "ForAnyValue" else all(results)


def _in_network(network: str, address: str) -> bool:
    return ip_address(address) in ip_network(network, strict=False)


def _like(pattern: str, text: str) -> bool:
    """`*` for any characters, `?` for any one."""
    regular = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(regular, text, re.DOTALL) is not None


_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "IpAddress": _in_network,
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
}


def _listed(value: Any) -> list[str]:
    found: Iterable[Any] = value if isinstance(value, list) else [] if value is None else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in found]
