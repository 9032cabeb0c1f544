"""IAM and STS: who signed a call, and moto's two backends with what they let pass refused.

Corrected over moto 5.2.5: keys and signatures are checked on every call; an inactive, deleted or unknown key, a wrong
secret, a wrong or expired session token are refused; AssumeRole looks at the role and its trust policy; a user that
still has keys cannot be deleted; dates come from the sandbox's clock. What a policy grants is permissions.py's.
"""

from __future__ import annotations

import hmac
import json
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import moto.iam.models as iam
import moto.sts.models as sts
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from sandbox.aws import simulation
from sandbox.aws.wire import UNSIGNED, Answer, Call, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flask import Flask

ADMIN_USER = "sandbox-admin"
_PARTITION = "aws"
_KEY_ID = re.compile(r"[A-Z0-9]{20}")
_SIGNATURE = re.compile(r"SignedHeaders=(?P<headers>[^,\s]+).*Signature=(?P<signature>[0-9a-f]{64})")

# moto reads the time where it needs it; within a call that this module forwards it gets the server's.
_clock: ContextVar[Callable[[], datetime] | None] = ContextVar("_clock", default=None)


def _utcnow() -> datetime:
    now = _clock.get()
    return (now() if now else datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)


for _models in (iam, sts):
    vars(_models)["utcnow"] = _utcnow


@cache
def _moto_app(service: str) -> Flask:
    return create_backend_app(service)  # type: ignore[arg-type]


class Identity:
    """IAM and STS of one account. Not thread-safe: the server calls it under its lock."""

    def __init__(
        self, account_id: str, now: Callable[[], datetime], access_key_id: str, secret_access_key: str
    ) -> None:
        """Makes the account's administrator.

        Args:
            account_id: twelve digits; servers in one process need different ones, for moto's backends are global.
            now: the sandbox's time, aware.
            access_key_id: of the administrator, 20 capital letters and digits as moto recognises them.
            secret_access_key: its secret.

        Raises:
            ValueError: the key id has another form.
        """
        if not _KEY_ID.fullmatch(access_key_id):
            raise ValueError(f"an access key id has 20 capital letters and digits, not {access_key_id!r}")
        self.account_id = account_id
        self._now = now
        self._admin = (access_key_id, secret_access_key)
        self._add_admin()

    @property
    def _iam(self) -> iam.IAMBackend:
        return iam.iam_backends[self.account_id][_PARTITION]

    @property
    def _sts(self) -> sts.STSBackend:
        return sts.sts_backends[self.account_id][_PARTITION]

    def snapshot(self) -> tuple[iam.IAMBackend, sts.STSBackend]:
        return self._iam, self._sts

    def restore(self, snapshot: tuple[iam.IAMBackend, sts.STSBackend]) -> None:
        iam.iam_backends[self.account_id][_PARTITION], sts.sts_backends[self.account_id][_PARTITION] = snapshot
        self._add_admin()

    def reset(self) -> None:
        self._iam.reset()
        self._sts.reset()
        self._add_admin()

    def close(self) -> None:
        """Forgets the account, which would otherwise outlive its server in moto's global backends."""
        for backends in (iam.iam_backends, sts.sts_backends):
            backends.pop(self.account_id, None)

    def _add_admin(self) -> None:
        if ADMIN_USER in self._iam.users:
            for key in list(self._iam.users[ADMIN_USER].access_keys):
                self._iam.delete_access_key_by_name(key.access_key_id)
        else:
            self._iam.create_user("us-east-1", ADMIN_USER)
        user = self._iam.users[ADMIN_USER]
        key = user.create_access_key(prefix="AKIA")
        key.access_key_id, key.secret_access_key = self._admin
        self._iam.access_keys[key.access_key_id] = key

    # --- who calls

    def authenticate(self, call: Call) -> None:
        """Checks key, signature and session token, and records the use of the key.

        Raises:
            ServiceError: as the service refuses; the codes of Secrets Manager and of IAM and STS differ.
        """
        if not call.access_key_id and call.operation in UNSIGNED:
            return
        key = self._iam.access_keys.get(call.access_key_id)
        if key is None or key.status != "Active":
            # Documented (IAM and Secrets Manager, common errors): the key does not exist in the records.
            raise unknown_key(call)
        role = self._sts.get_assumed_role_from_access_key(call.access_key_id)
        token = call.headers.get("x-amz-security-token")
        if (role.session_token if role else None) != token:
            raise unknown_key(call)
        if role and role.expiration <= self._naive_now():
            message = "The security token included in the request is expired"
            raise ServiceError("ExpiredTokenException" if call.is_json else "ExpiredToken", message, _status(call))
        if not _signed_with(call, key.secret_access_key, token):
            raise ServiceError(
                "InvalidSignatureException" if call.is_json else "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method.",
                _status(call),
            )
        key.last_used = iam.AccessKeyLastUsed(self._naive_now(), call.service, call.region)

    def _naive_now(self) -> datetime:
        return self._now().astimezone(UTC).replace(tzinfo=None)

    def _caller_arn(self, call: Call) -> str:
        role = self._sts.get_assumed_role_from_access_key(call.access_key_id)
        user = self._iam.get_user_from_access_key_id(call.access_key_id)
        return role.arn if role else user.arn if user else "anonymous"

    def principal(self, call: Call) -> tuple[str, list[dict[str, Any]] | None]:
        """Who calls: the ARN that policies know it by (a role's own, not its session's), and its identity policies.

        None instead of policies: the account's administrator, whom nothing needs to allow anything.
        """
        role_session = self._sts.get_assumed_role_from_access_key(call.access_key_id)
        if role_session is not None:
            arn = role_session.role_arn
            role = next((role for role in self._iam.get_roles() if role.arn == arn), None)
            return arn, _documents(role.policies.values(), role.managed_policies.values()) if role else []
        user = self._iam.get_user_from_access_key_id(call.access_key_id)
        if user is None or user.name == ADMIN_USER:
            return user.arn if user else "anonymous", None if user else []
        groups = self._iam.get_groups_for_user(user.name)
        inline = [*user.policies.values(), *(text for group in groups for text in group.policies.values())]
        attached = [*user.managed_policies.values(), *(p for group in groups for p in group.managed_policies.values())]
        return user.arn, _documents(inline, attached)

    # --- what moto answers

    def answer(self, call: Call) -> Answer:
        """Performs a call of IAM or STS.

        Raises:
            ServiceError: for what moto would let pass.
        """
        if call.name == "iam:DeleteUser":
            self._check_no_keys(call)
        elif call.operation in {"AssumeRole", "AssumeRoleWithWebIdentity"}:
            self._check_trust(call)
        elif call.name == "iam:SimulatePrincipalPolicy":
            return simulation.answer(call, self._granted(call.parameters.get("PolicySourceArn", "")))
        headers = list({**call.headers, "x-moto-account-id": self.account_id}.items())
        environ = EnvironBuilder(method="POST", path="/", headers=headers, data=call.body).get_environ()
        clock = _clock.set(self._now)
        try:
            chunks, status, answer_headers = run_wsgi_app(_moto_app(call.service), environ, buffered=True)
        finally:
            _clock.reset(clock)
        request_id = answer_headers.get("x-amzn-requestid", "")
        return Answer(int(status.split()[0]), b"".join(chunks), "text/xml", {"x-amzn-RequestId": request_id})

    def _granted(self, arn: str) -> list[dict[str, Any]]:
        """Every statement of the policies that a user or role has. The administrator may do everything.

        Raises:
            ServiceError: there is no such user or role.
        """
        kind, _, name = arn.rpartition(":")[2].partition("/")
        name = name.rpartition("/")[2]
        if kind == "user" and name in self._iam.users:
            if name == ADMIN_USER:
                return [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
            inline = [
                self._iam.get_user_policy(name, each)["policy_document"] for each in self._iam.list_user_policies(name)
            ]
            attached, _ = self._iam.list_attached_user_policies(name)
        elif kind == "role" and any(role.arn == arn for role in self._iam.get_roles()):
            inline = [self._iam.get_role_policy(name, each)[1] for each in self._iam.list_role_policies(name)]
            attached, _ = self._iam.list_attached_role_policies(name)
        else:
            raise ServiceError("NoSuchEntity", f"The {kind} with name {name} cannot be found.", 404)
        defaults = [version.document for policy in attached for version in policy.versions if version.is_default]
        return [statement for document in [*inline, *defaults] for statement in _statements(document)]

    def _check_no_keys(self, call: Call) -> None:
        user = self._iam.users.get(call.parameters.get("UserName", ""))
        if user and user.access_keys:
            # Documented (DeleteUser): the user's access keys must be deleted first.
            raise ServiceError("DeleteConflict", "Cannot delete entity, must delete access keys first.", 409)

    def _check_trust(self, call: Call) -> None:
        # Documented (AssumeRole): the role's trust policy must name the caller; its conditions must hold.
        arn = call.parameters.get("RoleArn", "")
        role = next((role for role in self._iam.get_roles() if role.arn == arn), None)
        caller = self._caller_arn(call)
        trusted = role and any(
            _statement_trusts(statement, call, caller, self.account_id)
            for statement in _statements(role.assume_role_policy_document)
        )
        if not trusted:
            action = f"{call.service}:{call.operation}"
            raise ServiceError(
                "AccessDenied", f"User: {caller} is not authorized to perform: {action} on resource: {arn}", 403
            )


def unknown_key(call: Call) -> ServiceError:
    """What a service answers when it does not know the access key (yet, or any more)."""
    code = "UnrecognizedClientException" if call.is_json else "InvalidClientTokenId"
    return ServiceError(code, "The security token included in the request is invalid.", _status(call))


def _status(call: Call) -> int:
    return 400 if call.is_json else 403


def _signed_with(call: Call, secret_access_key: str, token: str | None) -> bool:
    """Whether the call carries the Signature Version 4 that this secret makes, whatever the date it was signed at."""
    given = _SIGNATURE.search(call.headers.get("authorization", ""))
    if given is None:
        return False
    signed = {name: call.headers.get(name, "") for name in given["headers"].split(";")}
    url = f"http://{call.headers.get('host', '')}{call.path}"
    request = AWSRequest(method="POST", url=url, data=call.body, headers=signed)
    request.context["timestamp"] = call.headers.get("x-amz-date", "")
    auth = SigV4Auth(Credentials(call.access_key_id, secret_access_key, token), call.service, call.region)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return hmac.compare_digest(expected, given["signature"])


def _statements(document: str) -> Iterator[dict[str, Any]]:
    statements = json.loads(document).get("Statement", [])
    yield from statements if isinstance(statements, list) else [statements]


def _documents(inline: Iterable[str], attached: Iterable[Any]) -> list[dict[str, Any]]:
    default = (version for policy in attached for version in policy.versions if version.is_default)
    return [json.loads(text) for text in (*inline, *(version.document for version in default))]


def _statement_trusts(statement: dict[str, Any], call: Call, caller: str, account_id: str) -> bool:
    """Whether one statement of a trust policy lets the caller in; of conditions it knows sts:ExternalId alone."""
    if statement.get("Effect") != "Allow" or f"sts:{call.operation}" not in _as_list(statement.get("Action")):
        return False
    principal = statement.get("Principal", {})
    if call.operation == "AssumeRoleWithWebIdentity":
        # The token's issuer and claims are not checked: the sandbox has no keys to check them with.
        return isinstance(principal, dict) and bool(principal.get("Federated"))
    named = _as_list(principal.get("AWS") if isinstance(principal, dict) else principal)
    if not {"*", account_id, f"arn:aws:iam::{account_id}:root", caller} & set(named):
        return False
    conditions = statement.get("Condition", {})
    expected = _as_list(conditions.get("StringEquals", {}).get("sts:ExternalId"))
    known = not conditions or (
        list(conditions) == ["StringEquals"] and list(conditions["StringEquals"]) == ["sts:ExternalId"]
    )
    return known and (not conditions or call.parameters.get("ExternalId") in expected)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
