"""What AWS tells of rights without a try: who a login is, what its policies allow, whom a resource policy lets read.

Facts from the API references of STS and IAM and the IAM user guide, "Policy evaluation logic" (2026). A simulation goes
by the policies of the user or role, its boundary and its organization's; the entry's own resource policy and those of
KMS keys are not part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = Mapping[str, Any]

READ: Final = "secretsmanager:GetSecretValue"
_AT_ONCE: Final = 25
"""Resources of one simulation."""
_ASSUMED: Final = re.compile(r"(arn:[\w-]+):sts::(\d+):assumed-role/([^/]+)/.*")


@dataclass(slots=True)
class Simulated:
    """What a simulation has shown. Names of actions, by resource."""

    denied: dict[str, list[str]] = field(default_factory=dict)
    open: dict[str, set[str]] = field(default_factory=dict)
    """What depends on conditions: the keys of the context that nothing is known of."""


def principal(caller: str, role_arn: str | None) -> str:
    """Whose policies a caller has.

    Parameters:
        caller: the ARN that STS tells; of an assumed role it lacks the role's path.
        role_arn: the role that is known to be assumed, path included.
    """
    if role_arn is not None:
        return role_arn
    assumed = _ASSUMED.fullmatch(caller)
    return f"{assumed[1]}:iam::{assumed[2]}:role/{assumed[3]}" if assumed else caller


def simulate(
    iam: Any, who: str, wanted: Mapping[str, Sequence[str]], context: Mapping[str, Sequence[str]]
) -> Simulated:
    """Asks iam:SimulatePrincipalPolicy.

    Parameters:
        iam: a boto3 client; what it raises is let through.
        who: ARN of a user or role.
        wanted: actions by resource.
        context: values of the context's keys, lists of texts.
    """
    entries = [
        {"ContextKeyName": key, "ContextKeyValues": list(values), "ContextKeyType": "stringList"}
        for key, values in context.items()
    ]
    alike: dict[tuple[str, ...], list[str]] = {}
    for resource, actions in wanted.items():
        alike.setdefault(tuple(sorted(actions)), []).append(resource)
    found = Simulated()
    for actions, resources in alike.items():
        for start in range(0, len(resources), _AT_ONCE):
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=who,
                ActionNames=list(actions),
                ResourceArns=resources[start : start + _AT_ONCE],
                ContextEntries=entries,
            )
            for page in pages:
                for result in page["EvaluationResults"]:
                    _note(result, found)
    return found


def _note(result: Json, found: Simulated) -> None:
    action = result["EvalActionName"]
    alone = [{**result, "EvalResourceDecision": result["EvalDecision"]}]
    for each in result.get("ResourceSpecificResults") or alone:
        resource, missing = each["EvalResourceName"], each.get("MissingContextValues") or ()
        if each["EvalResourceDecision"] == "allowed":
            continue
        if missing and each["EvalResourceDecision"] != "explicitDeny":
            found.open.setdefault(resource, set()).update(missing)
        else:
            found.denied.setdefault(resource, []).append(action)


def readers(policy: str) -> list[str]:
    """The principals that a resource policy's statements allow to read a value, each once, in their order.

    An allowance under conditions counts; a statement that names whom it does not mean lets in everybody else.
    """
    statements = json.loads(policy).get("Statement", [])
    found: dict[str, None] = {}
    for statement in _list(statements):
        if statement.get("Effect") == "Allow" and _reads(statement):
            found |= dict.fromkeys(_principals(statement))
    return list(found)


def _reads(statement: Json) -> bool:
    def named(element: str) -> bool:
        return any(_like(str(pattern), READ) for pattern in _list(statement.get(element)))

    return named("Action") if "Action" in statement else not named("NotAction")


def _principals(statement: Json) -> Iterator[str]:
    if "NotPrincipal" in statement:
        yield "everybody but those that a statement names"
        return
    given = statement.get("Principal", {})
    for part in given.values() if isinstance(given, dict) else [given]:
        for name in _list(part):
            yield "everybody" if name == "*" else str(name)


def _like(pattern: str, action: str) -> bool:
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), action, re.IGNORECASE) is not None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
