"""Permissions at the stand-in for Secrets Manager: what policies let through, as IAM's documentation says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.aws.server import REGION, AwsServer

NAME = "prod/support-copilot-chat"
ONCE = Config(retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsServer]:
    with AwsServer(enforce=True) as server:
        yield server


@pytest.fixture
def server(shared: AwsServer) -> AwsServer:
    shared.control.reset()
    return shared


class Person:
    """A user with one inline policy."""

    def __init__(self, server: AwsServer, name: str = "somebody") -> None:
        self._server = server
        self._iam = server.client("iam")
        self.name = name
        self.arn = self._iam.create_user(UserName=name)["User"]["Arn"]
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        self.client = server.client(
            "secretsmanager", credentials=(key["AccessKeyId"], key["SecretAccessKey"]), config=ONCE
        )

    def may(self, *statements: dict[str, Any]) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        self._iam.put_user_policy(UserName=self.name, PolicyName="own", PolicyDocument=document)


@pytest.fixture
def person(server: AwsServer) -> Person:
    return Person(server)


@pytest.fixture
def secret(server: AwsServer) -> str:
    """The ARN of a secret with a current version; the administrator needs no permission to make it."""
    arn: str = server.client("secretsmanager").create_secret(Name=NAME, SecretString="first")["ARN"]
    return arn


def allow(action: str | list[str], resource: Any = "*", **condition: Any) -> dict[str, Any]:
    found = {"Effect": "Allow", "Action": action, "Resource": resource}
    return found | ({"Condition": condition} if condition else {})


def arn_of(server: AwsServer, name: str, end: str = "-??????") -> str:
    return f"arn:aws:secretsmanager:{REGION}:{server.account_id}:secret:{name}{end}"


def refused(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException", caught.value
    return str(caught.value.response["Error"]["Message"])


def test_what_nothing_allows_is_refused(person: Person, secret: str) -> None:
    """In the service's words, which name caller, action and resource."""
    told = refused(person.client.get_secret_value, SecretId=NAME)
    assert told == (
        f"User: {person.arn} is not authorized to perform: secretsmanager:GetSecretValue on resource: {secret} "
        "because no identity-based policy allows the secretsmanager:GetSecretValue action"
    )


def test_nothing_is_enforced_unless_asked_for() -> None:
    """The stand-in's usual account lets every key do everything."""
    with AwsServer() as server:
        person = Person(server)
        person.client.create_secret(Name=NAME, SecretString="first")
        assert person.client.get_secret_value(SecretId=NAME)["SecretString"] == "first"


@pytest.mark.parametrize(
    ("pattern", "lets"),
    [
        ("-??????", True),
        ("-*", True),
        ("*", True),
        ("", False),
        ("-?????", False),
    ],
)
@pytest.mark.parametrize("by", ["name", "ARN", "ARN without its end"])
def test_the_arn_of_the_secret_counts(
    server: AwsServer, person: Person, secret: str, pattern: str, lets: bool, by: str
) -> None:
    """Whatever the call names it by, the six characters at its end are matched, too."""
    person.may(allow("secretsmanager:GetSecretValue", arn_of(server, NAME, pattern)))
    named = {"name": NAME, "ARN": secret, "ARN without its end": secret[:-7]}[by]
    if lets:
        assert person.client.get_secret_value(SecretId=named)["SecretString"] == "first"
    else:
        refused(person.client.get_secret_value, SecretId=named)


def test_a_neighbour_with_a_longer_name_is_another_secret(server: AwsServer, person: Person, secret: str) -> None:
    """`-??????` does not reach it, `-*` does: why the former is what Keyturn prints."""
    server.client("secretsmanager").create_secret(Name=f"{NAME}-02", SecretString="other")
    person.may(allow("secretsmanager:GetSecretValue", arn_of(server, NAME)))
    refused(person.client.get_secret_value, SecretId=f"{NAME}-02")
    person.may(allow("secretsmanager:GetSecretValue", arn_of(server, NAME, "-*")))
    assert person.client.get_secret_value(SecretId=f"{NAME}-02")["SecretString"] == "other"


def test_a_secret_that_is_not_there_counts_by_its_name(server: AwsServer, person: Person) -> None:
    """Its absence is told only to who may ask about the name without the six characters."""
    person.may(allow("secretsmanager:DescribeSecret", arn_of(server, NAME)))
    refused(person.client.describe_secret, SecretId=NAME)
    person.may(allow("secretsmanager:DescribeSecret", arn_of(server, NAME, "")))
    with pytest.raises(person.client.exceptions.ResourceNotFoundException):
        person.client.describe_secret(SecretId=NAME)


def test_a_new_secret_takes_the_permissions_of_its_parts(server: AwsServer, person: Person) -> None:
    """TagResource for tags, ReplicateSecretToRegions for replicas; the name can be named exactly."""
    only = {"StringEquals": {"secretsmanager:Name": [NAME]}}
    create = allow("secretsmanager:CreateSecret", arn_of(server, "*", ""), **only)
    person.may(create)
    refused(person.client.create_secret, Name="prod/another")
    tags = [{"Key": "team", "Value": "x"}]
    assert "TagResource" in refused(person.client.create_secret, Name=NAME, Tags=tags)
    replicas = [{"Region": "us-east-1"}]
    assert "ReplicateSecretToRegions" in refused(person.client.create_secret, Name=NAME, AddReplicaRegions=replicas)
    person.may(create, allow(["secretsmanager:TagResource", "secretsmanager:ReplicateSecret*"], arn_of(server, NAME)))
    person.client.create_secret(Name=NAME, Tags=tags, AddReplicaRegions=replicas)


def test_tag_keys_are_limited(server: AwsServer, person: Person, secret: str) -> None:
    """ForAllValues: every key of the request must match one of the patterns."""
    keys = {"ForAllValues:StringLike": {"aws:TagKeys": ["keyturn:journal.*"]}}
    person.may(allow(["secretsmanager:TagResource", "secretsmanager:UntagResource"], arn_of(server, NAME), **keys))
    ours, theirs = {"Key": "keyturn:journal.a", "Value": "x"}, {"Key": "team", "Value": "x"}
    person.client.tag_resource(SecretId=NAME, Tags=[ours])
    refused(person.client.tag_resource, SecretId=NAME, Tags=[ours, theirs])
    person.client.untag_resource(SecretId=NAME, TagKeys=["keyturn:journal.a"])
    refused(person.client.untag_resource, SecretId=NAME, TagKeys=["team"])


def test_a_deny_wins(person: Person, secret: str) -> None:
    """Over any Allow, of whatever policy."""
    person.may(allow("secretsmanager:*"), {**allow("secretsmanager:GetSecret*"), "Effect": "Deny"})
    assert "explicit deny in a identity-based policy" in refused(person.client.get_secret_value, SecretId=NAME)
    person.client.describe_secret(SecretId=NAME)


def test_values_of_a_batch_are_kept_back_one_by_one(server: AwsServer, person: Person, secret: str) -> None:
    """Documented: the batch itself is about `*`, each value takes GetSecretValue."""
    server.client("secretsmanager").create_secret(Name="prod/another", SecretString="other")
    batch = {"SecretIdList": [NAME, "prod/another"]}
    person.may(allow("secretsmanager:GetSecretValue", arn_of(server, NAME)))
    refused(person.client.batch_get_secret_value, **batch)
    person.may(
        allow("secretsmanager:BatchGetSecretValue"), allow("secretsmanager:GetSecretValue", arn_of(server, NAME))
    )
    answer = person.client.batch_get_secret_value(**batch)
    assert [value["Name"] for value in answer["SecretValues"]] == [NAME]
    assert [error["ErrorCode"] for error in answer["Errors"]] == ["AccessDeniedException"]


def test_a_role_has_its_own_policies(server: AwsServer, secret: str) -> None:
    """Inline or attached; a session is known by its role's ARN."""
    iam = server.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": server.account_id}, "Action": "sts:AssumeRole"}
    made = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    arn = made["Role"]["Arn"]
    key = server.client("sts").assume_role(RoleArn=arn, RoleSessionName="reading")["Credentials"]
    credentials = (key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
    client = server.client("secretsmanager", credentials=credentials, config=ONCE)
    assert f"User: {arn} is not" in refused(client.get_secret_value, SecretId=NAME)
    only = {"ArnEquals": {"aws:PrincipalArn": arn}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("secretsmanager:GetSecretValue", **only)]})
    policy = iam.create_policy(PolicyName="read", PolicyDocument=document)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="reader", PolicyArn=policy)
    assert client.get_secret_value(SecretId=NAME)["SecretString"] == "first"


def wall(**condition: Any) -> str:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**deny, "Condition": condition}]})


@pytest.mark.parametrize(
    ("condition", "direct", "through"),
    [
        ({"NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8"]}}, True, False),
        ({"NotIpAddress": {"aws:SourceIp": ["198.51.100.0/24"]}}, False, False),
        ({"StringNotEquals": {"aws:SourceVpce": ["vpce-0a1b2c3d"]}}, False, True),
        ({"StringNotEquals": {"aws:SourceVpce": ["vpce-ffffffff"]}}, False, False),
        (
            {
                "NotIpAddress": {"aws:SourceIp": ["127.0.0.1/32"]},
                "StringNotEquals": {"aws:SourceVpce": ["vpce-0a1b2c3d"]},
            },
            True,
            True,
        ),
        ({"NotIpAddressIfExists": {"aws:SourceIp": ["127.0.0.0/8"]}}, True, False),
        ({"IpAddress": {"aws:SourceIp": ["127.0.0.0/8"]}}, False, True),
    ],
)
def test_a_resource_policy_denies_by_address_and_endpoint(
    server: AwsServer, person: Person, secret: str, condition: dict[str, Any], direct: bool, through: bool
) -> None:
    """A negated condition is met where the key is missing; a plain one is not; all must be met."""
    person.may(allow("secretsmanager:*"))
    server.client("secretsmanager").put_resource_policy(SecretId=NAME, ResourcePolicy=wall(**condition))
    iam = server.client("iam")
    key = iam.create_access_key(UserName=person.name)["AccessKey"]
    behind = server._session.client(
        "secretsmanager",
        region_name=REGION,
        endpoint_url=f"{server.endpoint}/vpce-0a1b2c3d",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=ONCE,
    )
    for client, lets in ((person.client, direct), (behind, through)):
        if lets:
            assert client.get_secret_value(SecretId=NAME)["SecretString"] == "first"
        else:
            assert "deny in a resource-based policy" in refused(client.get_secret_value, SecretId=NAME)
    behind.close()


def test_the_administrator_is_bound_by_a_deny_as_well(server: AwsServer, secret: str) -> None:
    """And can still take it off."""
    admin = server.client("secretsmanager", config=ONCE)
    admin.put_resource_policy(SecretId=NAME, ResourcePolicy=wall(NotIpAddress={"aws:SourceIp": ["198.51.100.0/24"]}))
    refused(admin.get_secret_value, SecretId=NAME)
    admin.delete_resource_policy(SecretId=NAME)
    assert admin.get_secret_value(SecretId=NAME)["SecretString"] == "first"


def test_a_resource_policy_can_allow(server: AwsServer, person: Person, secret: str) -> None:
    """Within one account that is enough; only to whom it names."""
    grant = {**allow("secretsmanager:GetSecretValue"), "Principal": {"AWS": person.arn}}
    server.client("secretsmanager").put_resource_policy(
        SecretId=NAME, ResourcePolicy=json.dumps({"Version": "2012-10-17", "Statement": grant})
    )
    assert person.client.get_secret_value(SecretId=NAME)["SecretString"] == "first"
    refused(Person(server, "somebody-else").client.get_secret_value, SecretId=NAME)


@pytest.mark.parametrize(
    "condition",
    [
        {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}},
        {"StringEquals": {"aws:PrincipalOrgID": "o-1"}},
        {"NumericEquals": {"secretsmanager:Name": "1"}},
    ],
)
def test_a_condition_that_is_not_known_is_a_fault(person: Person, secret: str, condition: dict[str, Any]) -> None:
    """Never a silent yes or no."""
    person.may(allow("secretsmanager:GetSecretValue", **condition))
    with pytest.raises(ClientError) as caught:
        person.client.get_secret_value(SecretId=NAME)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_versions_are_limited(server: AwsServer, person: Person, secret: str) -> None:
    """By label and by id; a call that names neither has neither key."""
    only = {
        "StringEqualsIfExists": {"secretsmanager:VersionStage": "AWSCURRENT"},
        "Null": {"secretsmanager:VersionId": "true"},
    }
    person.may(allow("secretsmanager:GetSecretValue", arn_of(server, NAME), **only))
    admin = server.client("secretsmanager")
    version = admin.put_secret_value(SecretId=NAME, SecretString="next", VersionStages=["AWSPENDING"])["VersionId"]
    assert person.client.get_secret_value(SecretId=NAME)["SecretString"] == "first"
    assert person.client.get_secret_value(SecretId=NAME, VersionStage="AWSCURRENT")["SecretString"] == "first"
    refused(person.client.get_secret_value, SecretId=NAME, VersionStage="AWSPENDING")
    refused(person.client.get_secret_value, SecretId=NAME, VersionId=version)
