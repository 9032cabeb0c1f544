"""What Secrets Manager refuses before it looks at a secret: its model's constraints, names, sizes, tags, policies.

The constraints come from the service model that botocore ships (its client checks minimum lengths only; the service
checks all of them). Sources of the rest are named where they are used.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StructureShape

from sandbox.aws.wire import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_VALUE_BYTES = 65_536
MAX_TAGS = 50

# CreateSecret: "ASCII letters, numbers, and the following characters: /_+=.@-". Names of secrets that other services
# own also hold an exclamation mark, so a lookup takes it.
_NEW_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]+")
_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]+")
# General Reference, "Tagging your AWS resources": letters, digits and spaces of UTF-8, and these.
_TAG = re.compile(r"[\w\s.:/=+\-@]*")
_TAG_PREFIX = "aws:"


@cache
def _model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("secretsmanager", "service-2"), "secretsmanager")


def check_parameters(operation: str, parameters: Mapping[str, Any]) -> None:
    """Holds the parameters against the published model.

    Raises:
        ServiceError: ValidationException that lists every broken constraint; a sensitive value is never quoted.
    """
    model = _model()
    if operation not in model.operation_names:
        raise ServiceError("UnknownOperationException", f"Secrets Manager has no operation {operation!r}")
    shape = model.operation_model(operation).input_shape
    assert isinstance(shape, StructureShape)
    problems = list(_problems(shape, parameters, ""))
    if problems:
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected: "
        raise ServiceError("ValidationException", count + "; ".join(problems))


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield f"Value at '{path}' failed to satisfy constraint: Member must be a structure"
            return
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Value at '{_child(path, name)}' failed to satisfy constraint: Member must not be null"
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _problems(member, value[name], _child(path, name))
    elif isinstance(shape, ListShape):
        yield from _size(shape, value, path, len(value), "length")
        for index, item in enumerate(value, start=1):
            yield from _problems(shape.member, item, f"{path}.{index}.member")
    elif shape.type_name == "blob":
        yield from _size(shape, value, path, _decoded_size(value), "length")
    elif shape.type_name == "string":
        yield from _size(shape, value, path, len(value), "length")
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{_quoted(shape, value, path)}: Member must satisfy regular expression pattern: {pattern}"
        allowed = shape.metadata.get("enum", [])
        if allowed and value not in allowed:
            yield f"{_quoted(shape, value, path)}: Member must satisfy enum value set: [{', '.join(allowed)}]"
    elif shape.type_name in {"integer", "long"}:
        yield from _size(shape, value, path, int(value), "value")


def _size(shape: Shape, value: Any, path: str, size: int, what: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{_quoted(shape, value, path)}: Member must have {what} greater than or equal to {low}"
    if high is not None and size > high:
        yield f"{_quoted(shape, value, path)}: Member must have {what} less than or equal to {high}"


def _quoted(shape: Shape, value: Any, path: str) -> str:
    shown = "" if shape.metadata.get("sensitive") or shape.type_name in {"blob", "list"} else f"'{value}' "
    return f"Value {shown}at '{path}' failed to satisfy constraint"


def _child(path: str, name: str) -> str:
    member = name[0].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _decoded_size(value: str) -> int:
    try:
        return len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        raise ServiceError("SerializationException", "a binary value is not base64") from None


def check_name(name: str, *, new: bool) -> None:
    """The character set of names, for a new secret or for a lookup."""
    if not (_NEW_NAME if new else _NAME).fullmatch(name):
        raise ServiceError(
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        )


def check_value(string: str | None, binary: str | None, *, required: bool) -> None:
    """One of SecretString and SecretBinary, and at most 65,536 bytes (the model's limit counts characters)."""
    if string is not None and binary is not None:
        raise ServiceError(
            "InvalidParameterException",
            "You can't specify both a binary secret value and a string secret value in the same secret.",
        )
    if required and string is None and binary is None:
        raise ServiceError("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
    if string is not None and len(string.encode()) > MAX_VALUE_BYTES:
        raise ServiceError(
            "InvalidParameterException", f"The secret value is larger than the quota of {MAX_VALUE_BYTES} bytes."
        )


def merged_tags(existing: Mapping[str, str], added: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The tags after TagResource or CreateSecret: appended, and a key that exists gets its new value.

    Raises:
        ServiceError: InvalidParameterException for a reserved key, a character outside the set, or more than 50 tags.
    """
    tags = dict(existing)
    for tag in added:
        key, value = tag["Key"], tag.get("Value", "")
        if key.lower().startswith(_TAG_PREFIX):
            raise ServiceError("InvalidParameterException", "Tag keys that start with aws: are reserved for AWS use.")
        for text in (key, value):
            if not _TAG.fullmatch(text):
                raise ServiceError(
                    "InvalidParameterException",
                    "Tag keys and values may hold letters, digits, spaces and _ . : / = + - @ only.",
                )
        tags[key] = value
    if len(tags) > MAX_TAGS:
        raise ServiceError("InvalidParameterException", f"A secret can have at most {MAX_TAGS} tags.")
    return tags


def read_policy(text: str) -> dict[str, Any]:
    """A resource policy with the elements that one needs.

    Raises:
        ServiceError: MalformedPolicyDocumentException for anything that is not such a policy.
    """
    try:
        policy = json.loads(text)
    except ValueError:
        raise _malformed("This resource policy contains invalid Json") from None
    if not isinstance(policy, dict) or "Statement" not in policy:
        raise _malformed("This resource policy contains no statement")
    for statement in statements(policy):
        if not isinstance(statement, dict) or statement.get("Effect") not in {"Allow", "Deny"}:
            raise _malformed("A statement has no Effect of Allow or Deny")
        for element in ("Principal", "Action", "Resource"):
            if element not in statement and f"Not{element}" not in statement:
                raise _malformed(f"A statement has no {element}")
    return policy


def _malformed(message: str) -> ServiceError:
    return ServiceError("MalformedPolicyDocumentException", message)


def statements(policy: Mapping[str, Any]) -> list[Any]:
    """A policy's statements; a single one may stand without a list."""
    found = policy["Statement"]
    return found if isinstance(found, list) else [found]


def is_public(policy: Mapping[str, Any]) -> bool:
    """Whether a statement allows every principal unconditionally."""
    return any(
        statement["Effect"] == "Allow" and not statement.get("Condition") and _everyone(statement.get("Principal"))
        for statement in statements(policy)
    )


def _everyone(principal: Any) -> bool:
    if isinstance(principal, dict):
        principal = principal.get("AWS")
    return principal == "*" or (isinstance(principal, list) and "*" in principal)
