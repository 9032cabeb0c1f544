"""IAM's SimulatePrincipalPolicy, which moto lacks: what the policies of a user or role would allow, without trying it.

As documented (API reference, 2026): identity policies alone unless a resource policy is given; an explicit deny wins;
a condition on a key that the request gives no value for is listed as missing and does not hold. Of condition
operators it knows StringEquals, StringLike and their ForAllValues form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4
from xml.sax.saxutils import escape

from sandbox.aws.wire import Answer, Call, ServiceError

Statement = Mapping[str, Any]

_OPERATORS: Final = frozenset({"StringEquals", "StringLike"})


@dataclass(frozen=True)
class _Result:
    decision: str
    missing: tuple[str, ...] = ()

    def xml(self, decision: str) -> str:
        missing = "".join(f"<member>{escape(key)}</member>" for key in self.missing)
        return (
            f"<{decision}>{self.decision}</{decision}><MissingContextValues>{missing}</MissingContextValues>"
            "<MatchedStatements/>"
        )


def answer(call: Call, statements: Sequence[Statement]) -> Answer:
    """The answer to a call, from the statements of all policies of the principal that it names.

    Raises:
        ServiceError: the call names no action.
    """
    actions, resources = _members(call, "ActionNames"), _members(call, "ResourceArns") or ["*"]
    if not actions:
        raise ServiceError("ValidationError", "1 validation error detected: 'actionNames' failed to satisfy", 400)
    context = {
        call.parameters[f"{start}.ContextKeyName"].lower(): _members(call, f"{start}.ContextKeyValues")
        for start in _starts(call, "ContextEntries")
    }
    results = "".join(_evaluation(action, resources, statements, context) for action in actions)
    body = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
    return Answer(200, body.encode(), "text/xml", {"x-amzn-RequestId": str(uuid4())})


def _evaluation(
    action: str, resources: Sequence[str], statements: Sequence[Statement], context: Mapping[str, Sequence[str]]
) -> str:
    """One action: as a whole by its worst resource, and each resource by itself."""
    each = {resource: _decide(action, resource, statements, context) for resource in resources}
    worst = min(each.items(), key=lambda pair: pair[1].decision == "allowed")
    parts = "".join(
        f"<member><EvalResourceName>{escape(name)}</EvalResourceName>{found.xml('EvalResourceDecision')}</member>"
        for name, found in each.items()
    )
    return (
        f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalResourceName>{escape(worst[0])}</EvalResourceName>"
        f"{worst[1].xml('EvalDecision')}<ResourceSpecificResults>{parts}</ResourceSpecificResults></member>"
    )


def _decide(
    action: str, resource: str, statements: Sequence[Statement], context: Mapping[str, Sequence[str]]
) -> _Result:
    allowed, missing = False, list[str]()
    for statement in statements:
        if not (_concerns(statement, "Action", action) and _concerns(statement, "Resource", resource)):
            continue
        unknown = [key for key in _keys(statement) if key.lower() not in context]
        missing += unknown
        if unknown or not all(_holds(*condition, context) for condition in _conditions(statement)):
            continue
        if statement["Effect"] == "Deny":
            return _Result("explicitDeny")
        allowed = True
    return _Result("allowed") if allowed else _Result("implicitDeny", tuple(dict.fromkeys(missing)))


def _concerns(statement: Statement, element: str, value: str) -> bool:
    """`Action` and `Resource`, or their negations. Actions are compared whatever their case."""
    flags = re.IGNORECASE if element == "Action" else 0
    if f"Not{element}" in statement:
        return not any(_like(pattern, value, flags) for pattern in _list(statement[f"Not{element}"]))
    return any(_like(pattern, value, flags) for pattern in _list(statement.get(element)))


def _conditions(statement: Statement) -> Iterator[tuple[str, str, list[str]]]:
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            yield operator, key, _list(wanted)


def _keys(statement: Statement) -> list[str]:
    return [key for _, key, _ in _conditions(statement)]


def _holds(operator: str, key: str, wanted: Sequence[str], context: Mapping[str, Sequence[str]]) -> bool:
    kind = operator.removeprefix("ForAllValues:")
    if kind not in _OPERATORS:
        raise ServiceError("ValidationError", f"the sandbox does not know the condition operator {operator}", 400)
    given = context[key.lower()]
    if kind == "StringEquals":
        return all(value in wanted for value in given)
    return all(any(_like(pattern, value) for pattern in wanted) for value in given)


def _like(pattern: str, value: str, flags: int = 0) -> bool:
    parts = ("." if part == "?" else ".*" if part == "*" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), value, flags) is not None


def _starts(call: Call, name: str) -> list[str]:
    found = re.compile(rf"({name}\.member\.\d+)\.")
    return list(dict.fromkeys(match[1] for key in call.parameters if (match := found.match(key))))


def _members(call: Call, name: str) -> list[str]:
    form = re.compile(rf"{re.escape(name)}\.member\.\d+")
    return [value for key, value in call.parameters.items() if form.fullmatch(key)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
