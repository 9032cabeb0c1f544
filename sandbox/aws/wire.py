"""The AWS protocols on the wire: a signed call as it arrives, and answers and errors as the services word them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.sax.saxutils import escape

_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request")

# STS takes these without a signature: the token in the request is the proof.
UNSIGNED = {"AssumeRoleWithWebIdentity", "AssumeRoleWithSAML"}

_NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


class ServiceError(Exception):
    """An error that the service answers with: its code, its message and its HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, ready to send."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def error_code(self) -> str | None:
        """The error's code in an answer of IAM or STS; None for a success."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body) if self.status >= 400 else None
        return found[1].decode() if found else None


@dataclass(frozen=True)
class Call:
    """One API call. Its parameters and its body may hold secret values and stay out of every representation."""

    service: str
    """`secretsmanager`, `iam` or `sts`."""
    operation: str
    """As the API names it: `PutSecretValue`."""
    region: str
    access_key_id: str
    """Empty when the call is not signed."""
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    parameters: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)
    source_ip: str = "127.0.0.1"

    @property
    def vpc_endpoint(self) -> str | None:
        """Id of the VPC endpoint that it came through: an address that ends in /vpce-… stands for that endpoint's own."""
        first = self.path.strip("/").partition("/")[0]
        return first if first.startswith("vpce-") else None

    @property
    def name(self) -> str:
        return f"{self.service}:{self.operation}"

    @property
    def is_json(self) -> bool:
        return self.service not in _NAMESPACES


def read_call(path: str, headers: dict[str, str], body: bytes, source_ip: str = "127.0.0.1") -> Call:
    """Recognises a call by its credential scope (signed) or by its action (the unsigned ones of STS).

    Raises:
        ServiceError: neither says which service and operation are meant.
    """
    target = headers.get("x-amz-target", "")
    form = {} if target else dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    operation = target.rpartition(".")[2] or form.get("Action", "")
    scope = _CREDENTIAL.search(headers.get("authorization", ""))
    if scope is None and operation not in UNSIGNED:
        raise ServiceError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    service = scope["service"] if scope else "sts"
    if service not in {"secretsmanager", *_NAMESPACES} or not operation:
        raise ServiceError(
            "UnknownOperationException", f"the sandbox has no {service or 'such'} operation {operation!r}"
        )
    try:
        parameters = json.loads(body or b"{}") if target else form
    except ValueError:
        raise ServiceError("SerializationException", "the body is not JSON") from None
    return Call(
        service=service,
        operation=operation,
        region=scope["region"] if scope else "us-east-1",
        access_key_id=scope["key"] if scope else "",
        path=path,
        headers=headers,
        parameters=parameters,
        body=body,
        source_ip=source_ip,
    )


def json_answer(result: dict[str, Any], status: int = 200) -> Answer:
    """An answer in AWS JSON 1.1."""
    return Answer(
        status,
        json.dumps(result).encode(),
        "application/x-amz-json-1.1",
        {"x-amzn-RequestId": str(uuid4())},
    )


def error_answer(service: str, error: ServiceError) -> Answer:
    """An error in the form of its service: JSON for Secrets Manager, XML for IAM and STS."""
    if service not in _NAMESPACES:
        # Errors of the service's model carry "Message"; those of the layer before it carry "message".
        key = "message" if error.code in {"ValidationException", "SerializationException"} else "Message"
        return json_answer({"__type": error.code, key: error.message}, error.status)
    kind = "Sender" if error.status < 500 else "Receiver"
    request_id = str(uuid4())
    body = (
        f'<ErrorResponse xmlns="{_NAMESPACES[service]}"><Error><Type>{kind}</Type><Code>{escape(error.code)}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Answer(error.status, body.encode(), "text/xml", {"x-amzn-RequestId": request_id})
