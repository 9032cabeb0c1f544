"""IAM and STS of the sandbox against what their documentation says, over HTTP with boto3: keys, callers, roles."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.aws.server import AwsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Key = tuple[str, str]
"""Access key id and secret."""


@dataclass
class Bench:
    server: AwsServer
    iam: Any
    now: list[datetime]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def user(self) -> str:
        name = f"user-{next(self._numbers)}"
        self.iam.create_user(UserName=name)
        return name

    def key(self, user: str) -> Key:
        made = self.iam.create_access_key(UserName=user)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def keys(self, user: str) -> dict[str, str]:
        listed = self.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def identity(self, *credentials: str) -> Any:
        """What sts:GetCallerIdentity answers to these credentials."""
        return self.server.client("sts", credentials=credentials).get_caller_identity()  # type: ignore[arg-type]

    def role(self, principal: Any, condition: Any = None, action: str = "sts:AssumeRole") -> str:
        """A new role with this trust policy: its ARN."""
        statement = {"Effect": "Allow", "Principal": principal, "Action": action}
        statement |= {"Condition": condition} if condition else {}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        role = self.iam.create_role(RoleName=f"role-{next(self._numbers)}", AssumeRolePolicyDocument=policy)
        arn: str = role["Role"]["Arn"]
        return arn


@pytest.fixture(scope="module")
def b() -> Iterator[Bench]:
    now = [datetime(2026, 3, 10, 12, tzinfo=UTC)]
    with AwsServer(now=lambda: now[0]) as server:
        yield Bench(server, server.client("iam"), now)


def refused(code: str, status: int, call: Callable[..., Any], *arguments: Any, **parameters: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    response: Any = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def test_a_user_has_two_keys_at_most(b: Bench) -> None:
    """CreateAccessKey, LimitExceeded: two access keys a user; an inactive one counts, only deletion frees a slot."""
    user = b.user()
    first, _ = b.key(user), b.key(user)
    refused("LimitExceeded", 409, b.key, user)
    b.iam.update_access_key(UserName=user, AccessKeyId=first[0], Status="Inactive")
    refused("LimitExceeded", 409, b.key, user)
    b.iam.delete_access_key(UserName=user, AccessKeyId=first[0])
    b.key(user)


def test_missing_user_or_key_is_no_such_entity(b: Bench) -> None:
    """CreateAccessKey, UpdateAccessKey, DeleteAccessKey, NoSuchEntity: the user or the key does not exist."""
    user, missing = b.user(), "AKIAAAAAAAAAAAAAAAAA"
    refused("NoSuchEntity", 404, b.key, "nobody")
    refused("NoSuchEntity", 404, b.iam.list_access_keys, UserName="nobody")
    refused("NoSuchEntity", 404, b.iam.update_access_key, UserName=user, AccessKeyId=missing, Status="Inactive")
    refused("NoSuchEntity", 404, b.iam.delete_access_key, UserName=user, AccessKeyId=missing)


def test_a_key_belongs_to_its_user(b: Bench) -> None:
    """DeleteAccessKey, NoSuchEntity: another user's key is none of this user's."""
    mine, theirs = b.user(), b.user()
    key, _ = b.key(theirs)
    refused("NoSuchEntity", 404, b.iam.delete_access_key, UserName=mine, AccessKeyId=key)
    assert b.keys(theirs) == {key: "Active"}


def test_list_shows_status_and_date_but_no_secret(b: Bench) -> None:
    """ListAccessKeys: ids, status and creation date; the secret is available only when the key is created."""
    user = b.user()
    key, secret = b.key(user)
    (listed,) = b.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    assert (listed["AccessKeyId"], listed["Status"], listed["CreateDate"]) == (key, "Active", b.now[0])
    assert secret not in repr(listed)


def test_last_used_is_null_and_then_a_date(b: Bench) -> None:
    """GetAccessKeyLastUsed: null and N/A for a key that was never used, then date, region and service of its use."""
    user = b.user()
    key = b.key(user)
    unused = b.iam.get_access_key_last_used(AccessKeyId=key[0])
    assert unused["UserName"] == user
    assert "LastUsedDate" not in unused["AccessKeyLastUsed"]
    assert unused["AccessKeyLastUsed"]["ServiceName"] == "N/A"
    b.now[0] += timedelta(hours=1)
    b.server.client("secretsmanager", credentials=key, region="eu-west-1").list_secrets()
    used = b.iam.get_access_key_last_used(AccessKeyId=key[0])["AccessKeyLastUsed"]
    assert (used["LastUsedDate"], used["ServiceName"], used["Region"]) == (b.now[0], "secretsmanager", "eu-west-1")


def test_a_refused_call_is_no_use_of_the_key(b: Bench) -> None:
    """GetAccessKeyLastUsed: what an inactive key or a wrong secret asks is not authenticated and changes no date."""
    user = b.user()
    key, secret = b.key(user)
    refused("SignatureDoesNotMatch", 403, b.identity, key, "x" * 40)
    b.iam.update_access_key(UserName=user, AccessKeyId=key, Status="Inactive")
    refused("InvalidClientTokenId", 403, b.identity, key, secret)
    assert "LastUsedDate" not in b.iam.get_access_key_last_used(AccessKeyId=key)["AccessKeyLastUsed"]


def test_caller_identity_needs_no_permission(b: Bench) -> None:
    """GetCallerIdentity: no permissions are required; it names the account, the ARN and the id of the caller."""
    user = b.user()
    answer = b.identity(*b.key(user))
    assert answer["Account"] == b.server.account_id
    assert answer["Arn"] == f"arn:aws:iam::{b.server.account_id}:user/{user}"
    assert answer["UserId"] == b.iam.get_user(UserName=user)["User"]["UserId"]


def test_unknown_key_is_refused(b: Bench) -> None:
    """STS and IAM, common errors, InvalidClientTokenId: the access key ID does not exist in our records (HTTP 403)."""
    refused("InvalidClientTokenId", 403, b.identity, "AKIAAAAAAAAAAAAAAAAA", "x" * 40)
    client = b.server.client("iam", credentials=("AKIAAAAAAAAAAAAAAAAA", "x" * 40))
    refused("InvalidClientTokenId", 403, client.list_users)


def test_inactive_key_is_refused_until_active_again(b: Bench) -> None:
    """UpdateAccessKey, Status: Inactive keys cannot be used for programmatic calls; Active makes them work again."""
    user = b.user()
    key, secret = b.key(user)
    b.iam.update_access_key(UserName=user, AccessKeyId=key, Status="Inactive")
    assert b.keys(user) == {key: "Inactive"}
    refused("InvalidClientTokenId", 403, b.identity, key, secret)
    b.iam.update_access_key(UserName=user, AccessKeyId=key, Status="Active")
    b.identity(key, secret)


def test_deleted_key_is_refused(b: Bench) -> None:
    """DeleteAccessKey: the pair is deleted; a call signed with it is InvalidClientTokenId."""
    user = b.user()
    key, secret = b.key(user)
    b.iam.delete_access_key(UserName=user, AccessKeyId=key)
    assert b.keys(user) == {}
    refused("InvalidClientTokenId", 403, b.identity, key, secret)


def test_a_key_may_delete_itself(b: Bench) -> None:
    """DeleteAccessKey, UserName: left out, IAM determines it from the key that signs the request."""
    user = b.user()
    key = b.key(user)
    b.server.client("iam", credentials=key).delete_access_key(AccessKeyId=key[0])
    assert b.keys(user) == {}


def test_wrong_secret_is_refused(b: Bench) -> None:
    """Common errors, SignatureDoesNotMatch: the secret access key is not the one of the access key ID."""
    key, _ = b.key(b.user())
    refused("SignatureDoesNotMatch", 403, b.identity, key, "x" * 40)


def test_secrets_manager_words_it_differently(b: Bench) -> None:
    """Secrets Manager, common errors: UnrecognizedClientException and InvalidSignatureException, HTTP 400."""
    user = b.user()
    key, secret = b.key(user)
    client = b.server.client("secretsmanager", credentials=(key, "x" * 40))
    refused("InvalidSignatureException", 400, client.list_secrets)
    b.iam.delete_access_key(UserName=user, AccessKeyId=key)
    client = b.server.client("secretsmanager", credentials=(key, secret))
    refused("UnrecognizedClientException", 400, client.list_secrets)


def test_unsigned_call_is_refused(b: Bench) -> None:
    """Common errors, MissingAuthenticationToken: the request must contain a valid access key ID (HTTP 403)."""
    client = b.server.client("sts", config=Config(signature_version=UNSIGNED))
    refused("MissingAuthenticationToken", 403, client.get_caller_identity)


def test_user_with_keys_cannot_be_deleted(b: Bench) -> None:
    """DeleteUser, DeleteConflict: the items attached to the user, access keys among them, must be deleted first."""
    user = b.user()
    key, _ = b.key(user)
    refused("DeleteConflict", 409, b.iam.delete_user, UserName=user)
    b.iam.delete_access_key(UserName=user, AccessKeyId=key)
    b.iam.delete_user(UserName=user)
    refused("NoSuchEntity", 404, b.iam.get_user, UserName=user)


def _assume(b: Bench, arn: str, key: Key | None = None, **parameters: Any) -> tuple[str, str, str]:
    client = b.server.client("sts", credentials=key)
    made = client.assume_role(RoleArn=arn, RoleSessionName="keyturn", **parameters)["Credentials"]
    return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]


def test_assumed_role_acts_as_the_role(b: Bench) -> None:
    """AssumeRole: temporary credentials whose caller is assumed-role/ROLE/SESSION, for every service."""
    arn = b.role({"AWS": f"arn:aws:iam::{b.server.account_id}:root"})
    credentials = _assume(b, arn, b.key(b.user()))
    assert b.identity(*credentials)["Arn"].endswith(f":assumed-role/{arn.rpartition('/')[2]}/keyturn")
    b.server.client("secretsmanager", credentials=credentials).list_secrets()


def test_assume_role_compares_the_external_id(b: Bench) -> None:
    """AssumeRole, ExternalId: the trust policy's condition sts:ExternalId must be met, otherwise AccessDenied."""
    arn = b.role({"AWS": "*"}, {"StringEquals": {"sts:ExternalId": "keyturn-42"}})
    _assume(b, arn, ExternalId="keyturn-42")
    refused("AccessDenied", 403, _assume, b, arn)
    refused("AccessDenied", 403, _assume, b, arn, ExternalId="keyturn-43")


def test_assume_role_wants_trust(b: Bench) -> None:
    """AssumeRole: the role must exist, and its trust policy must name the caller; AccessDenied either way."""
    user, other = b.user(), b.user()
    arn = b.role({"AWS": f"arn:aws:iam::{b.server.account_id}:user/{user}"})
    _assume(b, arn, b.key(user))
    refused("AccessDenied", 403, _assume, b, arn, b.key(other))
    refused("AccessDenied", 403, _assume, b, f"arn:aws:iam::{b.server.account_id}:role/none")


def test_temporary_credentials_need_their_token_and_expire(b: Bench) -> None:
    """AssumeRole, Credentials: the session token belongs to each call; after DurationSeconds it is ExpiredToken."""
    arn = b.role({"AWS": "*"})
    key, secret, token = _assume(b, arn, DurationSeconds=900)
    refused("InvalidClientTokenId", 403, b.identity, key, secret)
    refused("InvalidClientTokenId", 403, b.identity, key, secret, "another")
    b.identity(key, secret, token)
    b.now[0] += timedelta(seconds=901)
    refused("ExpiredToken", 403, b.identity, key, secret, token)
    client = b.server.client("secretsmanager", credentials=(key, secret, token))
    refused("ExpiredTokenException", 400, client.list_secrets)


def test_web_identity_needs_no_signature(b: Bench) -> None:
    """AssumeRoleWithWebIdentity: calling it does not require AWS credentials; the role must trust the provider."""
    trusting = b.role(
        {"Federated": f"arn:aws:iam::{b.server.account_id}:oidc-provider/token.example"},
        action="sts:AssumeRoleWithWebIdentity",
    )
    client = b.server.client("sts", config=Config(signature_version=UNSIGNED))
    login = {"RoleSessionName": "keyturn", "WebIdentityToken": "header.claims.signature"}
    made = client.assume_role_with_web_identity(RoleArn=trusting, **login)["Credentials"]
    b.identity(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    refused("AccessDenied", 403, client.assume_role_with_web_identity, RoleArn=b.role({"AWS": "*"}), **login)


# --- SimulatePrincipalPolicy -------------------------------------------------------------------------

ONE, TWO = (f"arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}-AbCdEf" for name in ("prod/a", "prod/b"))


def simulated(
    b: Bench, arn: str, action: str, *resources: str, **context: list[str]
) -> dict[str, tuple[str, list[str]]]:
    """By resource: the decision, and the context keys that it lacked."""
    entries = [
        {"ContextKeyName": key.replace("_", ":"), "ContextKeyValues": values, "ContextKeyType": "stringList"}
        for key, values in context.items()
    ]
    answer = b.iam.simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=[action], ResourceArns=[*resources], ContextEntries=entries
    )
    (result,) = answer["EvaluationResults"]
    return {
        each["EvalResourceName"]: (each["EvalResourceDecision"], each["MissingContextValues"])
        for each in result["ResourceSpecificResults"]
    }


@pytest.mark.parametrize("kind", ["user", "role"])
def test_a_simulation_goes_by_all_policies_of_the_principal(b: Bench, kind: str) -> None:
    """Inline and attached ones; what none allows is denied implicitly, and a deny wins over every allow."""
    name = b.user() if kind == "user" else b.role("*").rpartition("/")[2]
    allow = {"Effect": "Allow", "Action": "secretsmanager:Get*", "Resource": ONE}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow, {**allow, "Resource": TWO}]})
    deny = json.dumps({"Version": "2012-10-17", "Statement": {**allow, "Effect": "Deny", "Resource": TWO}})
    attached = b.iam.create_policy(PolicyName=f"{name}-deny", PolicyDocument=deny)["Policy"]["Arn"]
    if kind == "user":
        b.iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=document)
        b.iam.attach_user_policy(UserName=name, PolicyArn=attached)
        arn = b.iam.get_user(UserName=name)["User"]["Arn"]
    else:
        b.iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=document)
        b.iam.attach_role_policy(RoleName=name, PolicyArn=attached)
        arn = b.iam.get_role(RoleName=name)["Role"]["Arn"]
    read, write = "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"
    assert simulated(b, arn, read, ONE, TWO) == {ONE: ("allowed", []), TWO: ("explicitDeny", [])}
    assert simulated(b, arn, write, ONE) == {ONE: ("implicitDeny", [])}


def test_a_condition_that_nothing_is_said_about_does_not_hold(b: Bench) -> None:
    """Its key is listed as missing; given a value, it is judged."""
    user = b.user()
    condition = {"ForAllValues:StringLike": {"aws:TagKeys": ["keyturn:*"]}}
    allow = {"Effect": "Allow", "Action": "secretsmanager:TagResource", "Resource": "*", "Condition": condition}
    b.iam.put_user_policy(
        UserName=user, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    )
    arn, tag = b.iam.get_user(UserName=user)["User"]["Arn"], "secretsmanager:TagResource"
    assert simulated(b, arn, tag, ONE) == {ONE: ("implicitDeny", ["aws:TagKeys"])}
    assert simulated(b, arn, tag, ONE, aws_TagKeys=["keyturn:x"]) == {ONE: ("allowed", [])}
    assert simulated(b, arn, tag, ONE, aws_TagKeys=["keyturn:x", "team"]) == {ONE: ("implicitDeny", [])}


def test_a_principal_that_is_not_there_can_not_be_simulated(b: Bench) -> None:
    """As for a role whose path is missing from its ARN."""
    with pytest.raises(ClientError) as caught:
        simulated(b, "arn:aws:iam::123456789012:role/nobody", "s3:GetObject", "*")
    assert caught.value.response["Error"]["Code"] == "NoSuchEntity"
