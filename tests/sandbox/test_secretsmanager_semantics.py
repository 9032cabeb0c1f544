"""The Secrets Manager stand-in against what the service's documentation says: a table of probes over HTTP with boto3.

A row is a function: its name is the probe's id, its docstring says what the documentation says and which page says it
(an operation or type of the API reference, or the user guide). "(recorded)" marks what LocalStack's public snapshots
recorded from the real service where the documentation is silent. Every row must pass: there are no expected failures.
"""

from __future__ import annotations

import base64
import itertools
import json
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from sandbox.aws.server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, AwsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.aws.records import RotationRequest

OTHER = "us-west-2"
LAMBDA = "arn:aws:lambda:eu-central-1:123456789012:function:rotate"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
                "Action": "secretsmanager:GetSecretValue",
                "Resource": "*",
            }
        ],
    }
)
PUBLIC_POLICY = POLICY.replace("arn:aws:iam::123456789012:root", "*")


@dataclass
class Hands:
    """What the server asks of its surroundings: the time, and to run a rotation function."""

    now: datetime = datetime(2026, 3, 10, 12, tzinfo=UTC)
    rotations: list[RotationRequest] = field(default_factory=list)
    during_rotation: Callable[[RotationRequest], None] | None = None

    def on_rotate(self, request: RotationRequest) -> None:
        self.rotations.append(request)
        if self.during_rotation:
            self.during_rotation(request)


@dataclass
class Bench:
    """What a probe works with. Names are fresh, so that probes do not meet."""

    server: AwsServer
    sm: Any
    """A client of Secrets Manager."""
    other: Any
    """The same in another region."""
    once: Any
    """The first again, without retries: boto3 takes LimitExceededException for throttling and waits."""
    hands: Hands
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def name(self) -> str:
        return f"dev/probe-{next(self._numbers)}"

    def token(self) -> str:
        return f"token-{next(self._numbers):032}"

    def secret(self, value: str = "one", **parameters: Any) -> tuple[str, str]:
        """A new secret: its name and the id of its first version."""
        name = self.name()
        created = self.sm.create_secret(Name=name, SecretString=value, **parameters)
        return name, created["VersionId"]

    def put(self, name: str, value: str, *stages: str) -> str:
        extra = {"VersionStages": list(stages)} if stages else {}
        version: str = self.sm.put_secret_value(SecretId=name, SecretString=value, **extra)["VersionId"]
        return version

    def value(self, name: str, **selector: str) -> str:
        value: str = self.sm.get_secret_value(SecretId=name, **selector)["SecretString"]
        return value

    def stages(self, name: str) -> dict[str, list[str]]:
        stages: dict[str, list[str]] = self.sm.describe_secret(SecretId=name).get("VersionIdsToStages", {})
        return stages

    def holder(self, name: str, label: str) -> str | None:
        """The one version that has the label."""
        holders = [version for version, labels in self.stages(name).items() if label in labels]
        assert len(holders) <= 1, f"{label} is on {len(holders)} versions"
        return holders[0] if holders else None

    def move(self, name: str, label: str, to: str | None = None, away_from: str | None = None) -> None:
        ends = {"MoveToVersionId": to, "RemoveFromVersionId": away_from}
        self.sm.update_secret_version_stage(
            SecretId=name, VersionStage=label, **{key: value for key, value in ends.items() if value}
        )

    def version_pages(self, name: str, size: int) -> list[list[str]]:
        """All version ids, deprecated ones included, page by page; boto3 has no paginator for them."""
        pages: list[list[str]] = []
        token: dict[str, str] = {}
        while token or not pages:
            answer = self.sm.list_secret_version_ids(SecretId=name, IncludeDeprecated=True, MaxResults=size, **token)
            pages.append([version["VersionId"] for version in answer["Versions"]])
            token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
        return pages

    def rotate(self, name: str, **parameters: Any) -> str:
        version: str = self.sm.rotate_secret(SecretId=name, **parameters)["VersionId"]
        return version

    def configured(self, value: str = "one", **rules: Any) -> tuple[str, str]:
        """A new secret with rotation configured and none in progress."""
        name, version = self.secret(value)
        self.rotate(
            name,
            RotationLambdaARN=LAMBDA,
            RotationRules=rules or {"AutomaticallyAfterDays": 30},
            RotateImmediately=False,
        )
        self.hands.rotations.clear()
        return name, version

    def raw(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A signed request as the SDK would not send it: status and body."""
        headers = {"X-Amz-Target": f"secretsmanager.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        url = self.server.endpoint + "/"
        request = AWSRequest("POST", url, headers, json.dumps(body).encode())
        SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "secretsmanager", REGION).add_auth(request)
        try:
            with urlopen(Request(url, request.data, dict(request.headers))) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


def refused(code: str | set[str], call: Callable[..., Any], *arguments: Any, **parameters: Any) -> str:
    """Asserts that the call is refused with one of the codes, as a client error; returns the message."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    response: Any = caught.value.response
    assert response["Error"]["Code"] in ({code} if isinstance(code, str) else code), response["Error"]
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    message: str = response["Error"]["Message"]
    return message


@dataclass(frozen=True)
class Probe:
    """One row of the table."""

    id: str
    documented: str
    run: Callable[[Bench], None]


PROBES: list[Probe] = []


def probe(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
    PROBES.append(Probe(run.__name__, run.__doc__ or "", run))
    return run


# --- the token is the version's id, and makes creation idempotent


@probe
def create_token_becomes_version_id(b: Bench) -> None:
    """CreateSecret, ClientRequestToken: this value becomes the VersionId of the new version."""
    token = b.token()
    name, version = b.secret(ClientRequestToken=token)
    assert version == token
    assert b.stages(name) == {token: ["AWSCURRENT"]}


@probe
def create_again_with_same_token_and_value_is_ignored(b: Bench) -> None:
    """CreateSecret, ClientRequestToken: same token and same value, the request is ignored."""
    name, token = b.name(), b.token()
    first = b.sm.create_secret(Name=name, SecretString="one", ClientRequestToken=token)
    again = b.sm.create_secret(Name=name, SecretString="one", ClientRequestToken=token)
    assert (again["ARN"], again["VersionId"]) == (first["ARN"], token)
    assert len(b.stages(name)) == 1


@probe
def create_again_with_same_token_and_other_value_fails(b: Bench) -> None:
    """CreateSecret, ClientRequestToken: same token and different value, the request fails."""
    name, token = b.name(), b.token()
    b.sm.create_secret(Name=name, SecretString="one", ClientRequestToken=token)
    refused("ResourceExistsException", b.sm.create_secret, Name=name, SecretString="two", ClientRequestToken=token)
    assert b.value(name) == "one"


@probe
def create_existing_name_fails(b: Bench) -> None:
    """CreateSecret, ResourceExistsException: a resource with the ID you requested already exists."""
    name, _ = b.secret()
    refused("ResourceExistsException", b.sm.create_secret, Name=name, SecretString="one")


@probe
def create_without_value_makes_no_version(b: Bench) -> None:
    """CreateSecret: only if you include SecretString or SecretBinary is an initial version created."""
    name = b.name()
    assert "VersionId" not in b.sm.create_secret(Name=name)
    assert "VersionIdsToStages" not in b.sm.describe_secret(SecretId=name)
    assert "AWSCURRENT" in refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name)


@probe
def create_with_both_values_fails(b: Bench) -> None:
    """CreateSecret: either SecretString or SecretBinary must have a value, but not both."""
    refused("InvalidParameterException", b.sm.create_secret, Name=b.name(), SecretString="one", SecretBinary=b"one")


@probe
def put_token_becomes_version_id(b: Bench) -> None:
    """PutSecretValue, ClientRequestToken: this value becomes the VersionId of the new version."""
    name, _ = b.secret()
    token = b.token()
    answer = b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token)
    assert (answer["VersionId"], answer["VersionStages"]) == (token, ["AWSCURRENT"])


@probe
def put_again_with_same_token_and_value_does_nothing(b: Bench) -> None:
    """PutSecretValue: same token, same data, the operation succeeds but does nothing; no label moves."""
    name, first = b.secret()
    token = b.token()
    b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token, VersionStages=["AWSPENDING"])
    before = b.stages(name)
    answer = b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token)
    assert answer["VersionStages"] == ["AWSPENDING"]
    assert b.stages(name) == before
    assert b.holder(name, "AWSCURRENT") == first


@probe
def put_again_with_same_token_and_other_value_fails(b: Bench) -> None:
    """PutSecretValue: same token, different data, the operation fails because a version cannot be modified."""
    name, first = b.secret()
    refused(
        "ResourceExistsException", b.sm.put_secret_value, SecretId=name, SecretString="two", ClientRequestToken=first
    )
    assert b.value(name) == "one"


@probe
def put_other_value_on_filled_pending_version_fails(b: Bench) -> None:
    """PutSecretValue: you can't modify an existing version; AWSPENDING makes no exception."""
    name, _ = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    refused(
        "ResourceExistsException",
        b.sm.put_secret_value,
        SecretId=name,
        SecretString="three",
        ClientRequestToken=pending,
        VersionStages=["AWSPENDING"],
    )
    assert b.value(name, VersionStage="AWSPENDING") == "two"


@probe
def put_string_over_same_binary_fails(b: Bench) -> None:
    """PutSecretValue: SecretString and SecretBinary are compared both; the same bytes in the other field differ."""
    name, token = b.name(), b.token()
    b.sm.create_secret(Name=name, SecretBinary=b"one", ClientRequestToken=token)
    b.sm.put_secret_value(SecretId=name, SecretBinary=b"one", ClientRequestToken=token)
    refused(
        "ResourceExistsException", b.sm.put_secret_value, SecretId=name, SecretString="one", ClientRequestToken=token
    )


@probe
def put_without_value_fails(b: Bench) -> None:
    """PutSecretValue: you must include SecretBinary or SecretString."""
    name, _ = b.secret()
    refused({"InvalidRequestException", "InvalidParameterException"}, b.sm.put_secret_value, SecretId=name)


@probe
def put_with_both_values_fails(b: Bench) -> None:
    """PutSecretValue: SecretBinary or SecretString, but not both."""
    name, _ = b.secret()
    refused("InvalidParameterException", b.sm.put_secret_value, SecretId=name, SecretString="two", SecretBinary=b"two")


@probe
def put_by_raw_request_needs_a_token(b: Bench) -> None:
    """PutSecretValue, ClientRequestToken: a raw HTTP request must include it (error recorded)."""
    name, _ = b.secret()
    status, body = b.raw("PutSecretValue", {"SecretId": name, "SecretString": "two"})
    assert (status, body["__type"]) == (400, "InvalidRequestException")


@probe
def rotate_by_raw_request_needs_a_token(b: Bench) -> None:
    """RotateSecret, ClientRequestToken: a raw HTTP request must include it (error recorded)."""
    name, _ = b.secret()
    status, body = b.raw("RotateSecret", {"SecretId": name})
    assert (status, body["__type"]) == (400, "InvalidParameterException")


@probe
def token_shorter_than_32_fails(b: Bench) -> None:
    """PutSecretValue, ClientRequestToken: length 32 to 64."""
    name, _ = b.secret()
    status, body = b.raw("PutSecretValue", {"SecretId": name, "SecretString": "two", "ClientRequestToken": "short"})
    assert (status, body["__type"]) == (400, "ValidationException")
    assert "two" not in json.dumps(body)


@probe
def update_value_makes_it_current(b: Bench) -> None:
    """UpdateSecret: with a value, AWSCURRENT moves to the new version and AWSPREVIOUS to the one it left."""
    name, first = b.secret()
    second = b.sm.update_secret(SecretId=name, SecretString="two")["VersionId"]
    assert b.stages(name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}


@probe
def update_with_existing_token_fails(b: Bench) -> None:
    """UpdateSecret: a ClientRequestToken that matches an existing version's VersionId results in an error."""
    name, first = b.secret()
    refused("ResourceExistsException", b.sm.update_secret, SecretId=name, SecretString="one", ClientRequestToken=first)


@probe
def update_of_metadata_makes_no_version(b: Bench) -> None:
    """UpdateSecret, VersionId: only if a new version was created."""
    name, first = b.secret()
    assert "VersionId" not in b.sm.update_secret(SecretId=name, Description="for probing")
    assert b.stages(name) == {first: ["AWSCURRENT"]}
    assert b.sm.describe_secret(SecretId=name)["Description"] == "for probing"


@probe
def description_can_be_emptied(b: Bench) -> None:
    """UpdateSecret, Description: any text up to 2,048 characters, none included; DescribeSecret omits what is empty."""
    name, _ = b.secret(Description="for probing")
    b.sm.update_secret(SecretId=name, Description="")
    assert "Description" not in b.sm.describe_secret(SecretId=name)


# --- what a put does to labels


@probe
def put_without_stages_moves_current_and_previous(b: Bench) -> None:
    """PutSecretValue, VersionStages: without them AWSCURRENT moves to the new version, AWSPREVIOUS follows."""
    name, first = b.secret()
    second = b.put(name, "two")
    assert b.stages(name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}
    third = b.put(name, "three")
    assert b.stages(name) == {second: ["AWSPREVIOUS"], third: ["AWSCURRENT"]}


@probe
def put_with_token_without_stages_moves_current(b: Bench) -> None:
    """PutSecretValue, VersionStages: AWSCURRENT moves also when a token was given; naming stages is what prevents it."""
    name, _ = b.secret()
    token = b.token()
    b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token)
    assert b.holder(name, "AWSCURRENT") == token


@probe
def put_with_stages_moves_those_only(b: Bench) -> None:
    """PutSecretValue, VersionStages: the listed labels go to the new version; AWSCURRENT stays where it is."""
    name, first = b.secret()
    second = b.put(name, "two", "AWSPENDING")
    assert b.stages(name) == {first: ["AWSCURRENT"], second: ["AWSPENDING"]}
    assert b.value(name) == "one"


@probe
def put_takes_labels_without_comparing(b: Bench) -> None:
    """PutSecretValue, VersionStages: a label on another version is removed there and attached to this one."""
    name, first = b.secret()
    lost = b.put(name, "two", "AWSPENDING", "claim")
    winner = b.put(name, "three", "AWSPENDING")
    assert b.stages(name) == {first: ["AWSCURRENT"], lost: ["claim"], winner: ["AWSPENDING"]}


@probe
def put_naming_current_moves_previous(b: Bench) -> None:
    """PutSecretValue, VersionStages: AWSCURRENT listed, AWSPREVIOUS moves to the version that it was removed from."""
    name, first = b.secret()
    second = b.put(name, "two", "AWSCURRENT", "release")
    assert b.stages(name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT", "release"]}


@probe
def put_of_first_version_gets_current(b: Bench) -> None:
    """PutSecretValue: the first version for the secret automatically gets AWSCURRENT, whatever stages are listed."""
    name = b.name()
    b.sm.create_secret(Name=name)
    only = b.put(name, "one", "AWSPENDING")
    assert b.stages(name) == {only: ["AWSCURRENT", "AWSPENDING"]}


@probe
def put_with_more_than_20_stages_fails(b: Bench) -> None:
    """PutSecretValue, VersionStages: at most 20 items."""
    name, _ = b.secret()
    refused("ValidationException", b.put, name, "two", *(f"label-{number}" for number in range(21)))


@probe
def put_of_a_21st_label_fails(b: Bench) -> None:
    """User guide, quotas: 20 staging labels across all versions of a secret (AWSPREVIOUS counts too)."""
    name, first = b.secret()
    second = b.put(name, "two", *(f"label-{number}" for number in range(19)))
    put, code = b.once.put_secret_value, "LimitExceededException"
    refused(code, put, SecretId=name, SecretString="three", VersionStages=["label-19"])
    refused(code, put, SecretId=name, SecretString="three")
    assert set(b.stages(name)) == {first, second}


@probe
def move_of_a_21st_label_fails(b: Bench) -> None:
    """UpdateSecretVersionStage, LimitExceededException: the request would exceed one of the quotas."""
    name, first = b.secret()
    b.put(name, "two", *(f"label-{number}" for number in range(19)))
    move = b.once.update_secret_version_stage
    refused("LimitExceededException", move, SecretId=name, VersionStage="label-19", MoveToVersionId=first)
    b.move(name, "label-0", away_from=b.holder(name, "label-0"))
    b.move(name, "label-19", first)


# --- reading


@probe
def get_default_is_current(b: Bench) -> None:
    """GetSecretValue: without VersionStage and VersionId, the AWSCURRENT version."""
    name, first = b.secret()
    answer = b.sm.get_secret_value(SecretId=name)
    assert (answer["SecretString"], answer["VersionId"], answer["VersionStages"]) == ("one", first, ["AWSCURRENT"])
    assert "SecretBinary" not in answer


@probe
def get_default_follows_a_moved_label(b: Bench) -> None:
    """GetSecretValue: the AWSCURRENT version also after UpdateSecretVersionStage moved the label."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", pending, first)
    assert b.value(name) == b.value(name, VersionStage="AWSCURRENT") == "two"


@probe
def put_after_a_moved_label_leaves_one_current(b: Bench) -> None:
    """UpdateSecretVersionStage: each staging label can be attached to only one version at a time."""
    name, first = b.secret()
    second = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", second, first)
    third = b.put(name, "three")
    assert (b.holder(name, "AWSCURRENT"), b.holder(name, "AWSPREVIOUS")) == (third, second)
    assert b.value(name) == "three"


@probe
def get_default_after_rollback(b: Bench) -> None:
    """UpdateSecretVersionStage: moving AWSCURRENT back reverts; AWSPREVIOUS goes to the version that it left."""
    name, first = b.secret()
    second = b.put(name, "two")
    b.move(name, "AWSCURRENT", first, second)
    assert b.value(name) == "one"
    assert b.stages(name) == {first: ["AWSCURRENT"], second: ["AWSPREVIOUS"]}


@probe
def get_by_stage(b: Bench) -> None:
    """GetSecretValue, VersionStage: the staging label of the version to retrieve."""
    name, _ = b.secret()
    b.put(name, "two")
    b.put(name, "three", "AWSPENDING")
    assert b.value(name, VersionStage="AWSPREVIOUS") == "one"
    assert b.value(name, VersionStage="AWSPENDING") == "three"


@probe
def get_by_version(b: Bench) -> None:
    """GetSecretValue, VersionId: the unique identifier of the version to retrieve, whatever its labels."""
    name, first = b.secret()
    b.put(name, "two")
    b.put(name, "three")
    answer = b.sm.get_secret_value(SecretId=name, VersionId=first)
    assert answer["SecretString"] == "one"
    assert "VersionStages" not in answer


@probe
def get_by_version_and_stage_must_agree(b: Bench) -> None:
    """GetSecretValue, VersionId: with both, the two parameters must refer to the same version."""
    name, first = b.secret()
    assert b.value(name, VersionId=first, VersionStage="AWSCURRENT") == "one"
    refused("InvalidRequestException", b.sm.get_secret_value, SecretId=name, VersionId=first, VersionStage="AWSPENDING")


@probe
def get_of_missing_secret(b: Bench) -> None:
    """GetSecretValue, ResourceNotFoundException: HTTP status code 400."""
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=b.name())


@probe
def get_of_missing_stage(b: Bench) -> None:
    """GetSecretValue, ResourceNotFoundException: no version has the label."""
    name, _ = b.secret()
    message = refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name, VersionStage="AWSPENDING")
    assert "staging label: AWSPENDING" in message


@probe
def get_of_missing_version(b: Bench) -> None:
    """GetSecretValue, ResourceNotFoundException: no version has the id."""
    name, _ = b.secret()
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name, VersionId=b.token())


@probe
def operations_on_missing_secret(b: Bench) -> None:
    """All operations, ResourceNotFoundException: HTTP status code 400."""
    name = b.name()
    for call in (b.sm.describe_secret, b.sm.list_secret_version_ids, b.sm.restore_secret, b.sm.delete_secret):
        refused("ResourceNotFoundException", call, SecretId=name)
    refused("ResourceNotFoundException", b.sm.put_secret_value, SecretId=name, SecretString="one")
    refused("ResourceNotFoundException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": "a", "Value": "b"}])
    refused("ResourceNotFoundException", b.move, name, "AWSCURRENT", b.token(), b.token())


@probe
def get_by_arn_and_partial_arn(b: Bench) -> None:
    """GetSecretValue, SecretId: the name, the ARN, or the ARN without the six random characters."""
    name, _ = b.secret()
    arn = b.sm.describe_secret(SecretId=name)["ARN"]
    assert arn.startswith(f"arn:aws:secretsmanager:{REGION}:{b.server.account_id}:secret:{name}-")
    assert b.value(arn) == b.value(arn[:-7]) == "one"
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=arn[:-1] + "0")
    refused("ResourceNotFoundException", b.other.get_secret_value, SecretId=arn)


@probe
def partial_arn_that_looks_complete_is_not_found(b: Bench) -> None:
    """CreateSecret, Name: a name that ends in a hyphen and six characters confuses search by partial ARN (recorded)."""
    name = b.name() + "-a1b2c3"
    arn = b.sm.create_secret(Name=name, SecretString="one")["ARN"]
    assert b.value(arn) == b.value(name) == "one"
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=arn[:-7])


@probe
def binary_values_come_back(b: Bench) -> None:
    """GetSecretValue, SecretBinary: the value, if it was originally provided as binary data."""
    name, value = b.name(), bytes(range(256))
    b.sm.create_secret(Name=name, SecretBinary=value)
    answer = b.sm.get_secret_value(SecretId=name)
    assert answer["SecretBinary"] == value
    assert "SecretString" not in answer


@probe
def access_is_recorded_by_the_day(b: Bench) -> None:
    """DescribeSecret, LastAccessedDate: omitted if the secret was never retrieved; its resolution is the day."""
    name, _ = b.secret()
    assert "LastAccessedDate" not in b.sm.describe_secret(SecretId=name)
    b.value(name)
    day = b.hands.now.replace(hour=0, minute=0, second=0)
    assert b.sm.describe_secret(SecretId=name)["LastAccessedDate"] == day


@probe
def change_is_recorded(b: Bench) -> None:
    """DescribeSecret, LastChangedDate: the last date and time that this secret was modified in any way."""
    name, _ = b.secret()
    created = b.sm.describe_secret(SecretId=name)["CreatedDate"]
    b.hands.now += timedelta(minutes=5)
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "owner", "Value": "platform"}])
    details = b.sm.describe_secret(SecretId=name)
    assert (details["CreatedDate"], details["LastChangedDate"] - created) == (created, timedelta(minutes=5))


@probe
def stages_are_listed_in_order(b: Bench) -> None:
    """GetSecretValue, VersionStages: all labels of the version, in alphabetical order (recorded)."""
    name, _ = b.secret()
    answer = b.sm.put_secret_value(SecretId=name, SecretString="two", VersionStages=["one", "two", "three", "four"])
    assert answer["VersionStages"] == ["four", "one", "three", "two"]


# --- stage moves compare and set


@probe
def move_of_current_needs_remove_from(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: the label is on another version and this is absent: it fails."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    assert first in refused("InvalidParameterException", b.move, name, "AWSCURRENT", pending)
    assert b.stages(name) == {first: ["AWSCURRENT"], pending: ["AWSPENDING"]}


@probe
def move_of_any_label_needs_remove_from(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: it is required for every label, AWSPENDING and custom ones too."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING", "claim")
    for label in ("AWSPENDING", "claim"):
        refused("InvalidParameterException", b.move, name, label, first)
        assert b.holder(name, label) == pending


@probe
def move_with_wrong_remove_from_fails(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: if the version ID does not match, the operation fails."""
    name, first = b.secret()
    second = b.put(name, "two")
    pending = b.put(name, "three", "AWSPENDING", "claim")
    before = b.stages(name)
    for label in ("AWSCURRENT", "AWSPREVIOUS", "AWSPENDING", "claim"):
        wrong = next(version for version in (first, second, pending) if version != b.holder(name, label))
        target = next(version for version in (first, second, pending) if version not in {wrong, b.holder(name, label)})
        refused("InvalidParameterException", b.move, name, label, target, wrong)
    assert b.stages(name) == before


@probe
def move_with_matching_remove_from_works(b: Bench) -> None:
    """UpdateSecretVersionStage: the label leaves RemoveFromVersionId and joins MoveToVersionId."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING", "claim")
    b.move(name, "claim", first, pending)
    assert b.stages(name) == {first: ["AWSCURRENT", "claim"], pending: ["AWSPENDING"]}


@probe
def move_from_nowhere_with_remove_from_fails(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: an expectation that does not hold fails, unattached labels too."""
    name, first = b.secret()
    second = b.put(name, "two")
    refused("InvalidParameterException", b.move, name, "claim", second, first)
    assert b.holder(name, "claim") is None


@probe
def move_of_unattached_label_needs_no_remove_from(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: needed only if the label is already attached to another version."""
    name, first = b.secret()
    b.move(name, "claim", first)
    assert b.holder(name, "claim") == first


@probe
def move_to_where_it_is_changes_nothing(b: Bench) -> None:
    """UpdateSecretVersionStage, MoveToVersionId: RemoveFromVersionId is needed for a different version only."""
    name, first = b.secret()
    second = b.put(name, "two")
    b.move(name, "AWSCURRENT", second)
    assert b.stages(name) == {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}


@probe
def repeated_move_fails(b: Bench) -> None:
    """UpdateSecretVersionStage: a move is no idempotent request; sent again, its RemoveFromVersionId does not match."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", pending, first)
    refused("InvalidParameterException", b.move, name, "AWSCURRENT", pending, first)
    assert b.holder(name, "AWSCURRENT") == pending


@probe
def moved_current_takes_previous_along(b: Bench) -> None:
    """UpdateSecretVersionStage: AWSPREVIOUS automatically moves to the version that AWSCURRENT was removed from."""
    name, first = b.secret()
    second = b.put(name, "two")
    pending = b.put(name, "three", "AWSPENDING")
    assert b.holder(name, "AWSPREVIOUS") == first
    b.move(name, "AWSCURRENT", pending, second)
    assert b.stages(name) == {second: ["AWSPREVIOUS"], pending: ["AWSCURRENT", "AWSPENDING"]}


@probe
def current_cannot_be_removed(b: Bench) -> None:
    """UpdateSecretVersionStage: AWSCURRENT can only move to a different version, not be removed (recorded)."""
    name, first = b.secret()
    refused("InvalidParameterException", b.move, name, "AWSCURRENT", away_from=first)
    assert b.holder(name, "AWSCURRENT") == first


@probe
def other_labels_can_be_removed(b: Bench) -> None:
    """UpdateSecretVersionStage, MoveToVersionId: to remove a label from a version, do not specify this parameter."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING", "claim")
    b.move(name, "AWSPENDING", away_from=pending)
    assert b.stages(name) == {first: ["AWSCURRENT"], pending: ["claim"]}


@probe
def removal_from_wrong_version_fails(b: Bench) -> None:
    """UpdateSecretVersionStage, RemoveFromVersionId: the version ID must match for a removal too."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    refused("InvalidParameterException", b.move, name, "AWSPENDING", away_from=first)
    assert b.holder(name, "AWSPENDING") == pending


@probe
def move_to_missing_version_fails(b: Bench) -> None:
    """UpdateSecretVersionStage, MoveToVersionId: a version of this secret; otherwise nothing moves."""
    name, first = b.secret()
    refused({"ResourceNotFoundException", "InvalidParameterException"}, b.move, name, "AWSCURRENT", b.token(), first)
    assert b.stages(name) == {first: ["AWSCURRENT"]}


@probe
def version_without_labels_is_deprecated(b: Bench) -> None:
    """DescribeSecret, VersionIdsToStages: versions that don't have staging labels are not in it."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSPENDING", away_from=pending)
    assert b.stages(name) == {first: ["AWSCURRENT"]}
    assert b.value(name, VersionId=pending) == "two"


@probe
def deprecated_version_can_be_labelled_again(b: Bench) -> None:
    """DeleteSecret: a version is removed in the background only; until then a label brings it back."""
    name, first = b.secret()
    b.put(name, "two")
    third = b.put(name, "three")
    b.move(name, "AWSCURRENT", first, third)
    assert b.value(name) == "one"


@probe
def pending_goes_when_current_leaves_its_version(b: Bench) -> None:
    """RotateSecret: AWSPENDING may stay on the current version; it goes when AWSCURRENT leaves it (recorded)."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", pending, first)
    assert b.stages(name) == {first: ["AWSPREVIOUS"], pending: ["AWSCURRENT", "AWSPENDING"]}
    third = b.put(name, "three")
    assert b.stages(name) == {pending: ["AWSPREVIOUS"], third: ["AWSCURRENT"]}


# --- deletion and the recovery window


@probe
def delete_schedules_for_30_days(b: Bench) -> None:
    """DeleteSecret, RecoveryWindowInDays: by default a 30 day window; DeletionDate is its end."""
    name, _ = b.secret()
    assert b.sm.delete_secret(SecretId=name)["DeletionDate"] == b.hands.now + timedelta(days=30)
    assert b.sm.describe_secret(SecretId=name)["DeletedDate"] == b.hands.now + timedelta(days=30)


@probe
def delete_window_is_7_to_30_days(b: Bench) -> None:
    """DeleteSecret, RecoveryWindowInDays: from 7 to 30."""
    name, _ = b.secret()
    for days in (6, 31):
        refused("InvalidParameterException", b.sm.delete_secret, SecretId=name, RecoveryWindowInDays=days)
    answer = b.sm.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    assert answer["DeletionDate"] == b.hands.now + timedelta(days=7)


@probe
def delete_takes_window_or_force(b: Bench) -> None:
    """DeleteSecret: you can't use RecoveryWindowInDays and ForceDeleteWithoutRecovery in the same call."""
    name, _ = b.secret()
    refused(
        "InvalidParameterException",
        b.sm.delete_secret,
        SecretId=name,
        RecoveryWindowInDays=7,
        ForceDeleteWithoutRecovery=True,
    )


@probe
def deleted_secret_is_not_read(b: Bench) -> None:
    """DeleteSecret: when a secret is scheduled for deletion, you cannot retrieve the secret value."""
    name, first = b.secret()
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.get_secret_value, SecretId=name)
    refused("InvalidRequestException", b.sm.get_secret_value, SecretId=name, VersionId=first)


@probe
def deleted_secret_is_not_written(b: Bench) -> None:
    """PutSecretValue, UpdateSecret, InvalidRequestException: the secret is scheduled for deletion."""
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.put_secret_value, SecretId=name, SecretString="two")
    refused("InvalidRequestException", b.sm.update_secret, SecretId=name, Description="gone")


@probe
def deleted_secret_is_not_tagged(b: Bench) -> None:
    """TagResource, UntagResource, InvalidRequestException: the secret is scheduled for deletion."""
    name, _ = b.secret(Tags=[{"Key": "owner", "Value": "platform"}])
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": "a", "Value": "b"}])
    refused("InvalidRequestException", b.sm.untag_resource, SecretId=name, TagKeys=["owner"])


@probe
def deleted_secret_keeps_its_labels(b: Bench) -> None:
    """UpdateSecretVersionStage, InvalidRequestException: the secret is scheduled for deletion."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.move, name, "AWSCURRENT", pending, first)


@probe
def deleted_secret_takes_no_policy_rotation_or_replica(b: Bench) -> None:
    """PutResourcePolicy, RotateSecret, ReplicateSecretToRegions, InvalidRequestException: scheduled for deletion."""
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.put_resource_policy, SecretId=name, ResourcePolicy=POLICY)
    refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name, RotationLambdaARN=LAMBDA)
    refused(
        "InvalidRequestException",
        b.sm.replicate_secret_to_regions,
        SecretId=name,
        AddReplicaRegions=[{"Region": OTHER}],
    )


@probe
def deleted_secret_is_still_described(b: Bench) -> None:
    """DescribeSecret, DeletedDate: present while deletion is scheduled, omitted otherwise."""
    name, first = b.secret()
    assert "DeletedDate" not in b.sm.describe_secret(SecretId=name)
    b.sm.delete_secret(SecretId=name)
    assert b.stages(name) == {first: ["AWSCURRENT"]}


@probe
def deleted_name_stays_taken(b: Bench) -> None:
    """CreateSecret, InvalidRequestException: a secret with this name is already scheduled for deletion (recorded)."""
    name, first = b.secret()
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.create_secret, Name=name, SecretString="one", ClientRequestToken=first)
    assert "scheduled for deletion" in refused("InvalidRequestException", b.sm.create_secret, Name=name)


@probe
def delete_again_fails(b: Bench) -> None:
    """DeleteSecret, InvalidRequestException: the secret is scheduled for deletion."""
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name)
    refused("InvalidRequestException", b.sm.delete_secret, SecretId=name)


@probe
def restore_brings_everything_back(b: Bench) -> None:
    """RestoreSecret: cancels the scheduled deletion; you can access the secret again."""
    name, first = b.secret(Tags=[{"Key": "owner", "Value": "platform"}])
    b.sm.delete_secret(SecretId=name)
    b.sm.restore_secret(SecretId=name)
    details = b.sm.describe_secret(SecretId=name)
    assert "DeletedDate" not in details
    assert details["Tags"] == [{"Key": "owner", "Value": "platform"}]
    assert b.value(name, VersionId=first) == "one"


@probe
def deletion_is_final_after_the_window(b: Bench) -> None:
    """DeleteSecret: at the end of the recovery window the secret is deleted permanently."""
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    b.hands.now += timedelta(days=8)
    refused("ResourceNotFoundException", b.sm.describe_secret, SecretId=name)
    refused("ResourceNotFoundException", b.sm.restore_secret, SecretId=name)
    b.sm.create_secret(Name=name, SecretString="again")


@probe
def force_delete_is_immediate(b: Bench) -> None:
    """DeleteSecret, ForceDeleteWithoutRecovery: no recovery window; a new secret of the name has another ARN."""
    name, _ = b.secret()
    arn = b.sm.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)["ARN"]
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name)
    assert b.sm.create_secret(Name=name, SecretString="again")["ARN"] != arn
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=arn)


@probe
def force_delete_of_missing_or_deleted_secret_is_no_error(b: Bench) -> None:
    """DeleteSecret, ForceDeleteWithoutRecovery: an already deleted or nonexistent secret is no error."""
    b.sm.delete_secret(SecretId=b.name(), ForceDeleteWithoutRecovery=True)
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name)
    b.sm.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    refused("ResourceNotFoundException", b.sm.describe_secret, SecretId=name)


# --- limits and character sets


@probe
def value_of_65536_bytes_fits(b: Bench) -> None:
    """PutSecretValue, SecretString and SecretBinary: at most 65,536."""
    name, _ = b.secret("x" * 65_536)
    b.sm.put_secret_value(SecretId=name, SecretBinary=b"x" * 65_536)


@probe
def larger_values_fail(b: Bench) -> None:
    """PutSecretValue, SecretString and SecretBinary: at most 65,536; the error does not quote the value."""
    name, _ = b.secret()
    message = refused("ValidationException", b.sm.put_secret_value, SecretId=name, SecretString="x" * 65_537)
    assert "xx" not in message
    refused("ValidationException", b.sm.put_secret_value, SecretId=name, SecretBinary=b"x" * 65_537)
    refused("ValidationException", b.sm.create_secret, Name=b.name(), SecretString="x" * 65_537)
    refused("ValidationException", b.sm.update_secret, SecretId=name, SecretString="x" * 65_537)


@probe
def the_limit_counts_bytes(b: Bench) -> None:
    """User guide, quotas: secret value size 65,536 bytes; characters outside ASCII take more than one."""
    name, _ = b.secret("ü" * 32_768)
    refused({"ValidationException", "InvalidParameterException"}, b.put, name, "ü" * 32_768 + "x")


@probe
def names_take_these_characters(b: Bench) -> None:
    """CreateSecret, Name: ASCII letters, numbers, and /_+=.@-."""
    name = f"{b.name()}/{string.ascii_letters}{string.digits}_+=.@-"
    b.sm.create_secret(Name=name, SecretString="one")
    assert b.value(name) == "one"


@probe
def names_take_no_other_characters(b: Bench) -> None:
    """CreateSecret, Name: ASCII letters, numbers, and /_+=.@- only."""
    for character in " *?\\#,:äß":
        refused("ValidationException", b.sm.create_secret, Name=f"dev/a{character}b", SecretString="one")


@probe
def lookups_refuse_impossible_names(b: Bench) -> None:
    """All operations: an invalid name is a ValidationException, not a missing secret (recorded)."""
    for call in (b.sm.get_secret_value, b.sm.describe_secret, b.sm.list_secret_version_ids, b.sm.restore_secret):
        refused("ValidationException", call, SecretId="dev/no such name")


@probe
def names_and_descriptions_have_lengths(b: Bench) -> None:
    """CreateSecret, Name: at most 512; Description: at most 2,048."""
    refused("ValidationException", b.sm.create_secret, Name="a" * 513)
    refused("ValidationException", b.sm.create_secret, Name=b.name(), Description="a" * 2_049)
    b.sm.create_secret(Name="a" * 512, Description="a" * 2_048)


# --- tags


@probe
def tag_resource_appends(b: Bench) -> None:
    """TagResource: appends tags to the existing list of tags; an existing key gets the new value."""
    name, _ = b.secret(Tags=[{"Key": "owner", "Value": "platform"}, {"Key": "grace", "Value": "1h"}])
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "grace", "Value": "2h"}, {"Key": "issuer", "Value": "openai"}])
    tags = {tag["Key"]: tag["Value"] for tag in b.sm.describe_secret(SecretId=name)["Tags"]}
    assert tags == {"owner": "platform", "grace": "2h", "issuer": "openai"}


@probe
def tag_keys_are_case_sensitive(b: Bench) -> None:
    """CreateSecret, Tags: a tag with the key "ABC" is a different tag from one with key "abc"."""
    name, _ = b.secret(Tags=[{"Key": "ABC", "Value": "1"}, {"Key": "abc", "Value": "2"}])
    assert len(b.sm.describe_secret(SecretId=name)["Tags"]) == 2


@probe
def untag_resource_is_idempotent(b: Bench) -> None:
    """UntagResource: if a requested tag is not attached, no error is returned and the metadata is unchanged."""
    name, _ = b.secret(Tags=[{"Key": "owner", "Value": "platform"}, {"Key": "grace", "Value": "1h"}])
    b.sm.untag_resource(SecretId=name, TagKeys=["grace", "never-there"])
    b.sm.untag_resource(SecretId=name, TagKeys=["grace"])
    assert b.sm.describe_secret(SecretId=name)["Tags"] == [{"Key": "owner", "Value": "platform"}]


@probe
def at_most_50_tags(b: Bench) -> None:
    """General reference, tag quotas: 50 tags per resource; replacing a value needs no room."""
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(51)]
    refused("InvalidParameterException", b.sm.create_secret, Name=b.name(), SecretString="one", Tags=tags)
    name, _ = b.secret(Tags=tags[:50])
    refused("InvalidParameterException", b.sm.tag_resource, SecretId=name, Tags=tags[50:])
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "k0", "Value": "w"}])
    assert len(b.sm.describe_secret(SecretId=name)["Tags"]) == 50


@probe
def tags_have_lengths(b: Bench) -> None:
    """Tag: Key at most 128, Value at most 256 characters."""
    name, _ = b.secret()
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "k" * 128, "Value": "v" * 256}, {"Key": "empty", "Value": ""}])
    refused("ValidationException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": "k" * 129, "Value": "v"}])
    refused("ValidationException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": "k", "Value": "v" * 257}])


@probe
def tags_take_these_characters(b: Bench) -> None:
    """General reference, tag restrictions: letters, numbers, spaces and _ . : / = + - @."""
    name, _ = b.secret()
    value = base64.urlsafe_b64encode(b'{"token": 1}').decode()
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "keyturn:größe 1_.:/=+-@", "Value": f"{value} _.:/=+-@"}])


@probe
def tags_take_no_other_characters(b: Bench) -> None:
    """General reference, tag restrictions: JSON does not fit a value as it is."""
    name, _ = b.secret()
    for text in ('{"a":1}', "a,b", "a;b", "a*b", "a#b", "a(b)"):
        refused("InvalidParameterException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": "a", "Value": text}])
        refused("InvalidParameterException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": text, "Value": "a"}])
    assert "Tags" not in b.sm.describe_secret(SecretId=name)


@probe
def tag_prefix_aws_is_reserved(b: Bench) -> None:
    """General reference, tag restrictions: the aws: prefix is reserved for AWS use."""
    name, _ = b.secret()
    for key in ("aws:owner", "AWS:owner"):
        refused("InvalidParameterException", b.sm.tag_resource, SecretId=name, Tags=[{"Key": key, "Value": "a"}])
        refused("InvalidParameterException", b.sm.create_secret, Name=b.name(), Tags=[{"Key": key, "Value": "a"}])


# --- lists


@probe
def list_has_at_most_100_on_a_page(b: Bench) -> None:
    """ListSecrets, MaxResults: 1 to 100; NextToken leads on, each secret comes once."""
    client = b.server.client("secretsmanager", region="eu-west-3")
    names = [f"page/{number:03}" for number in range(205)]
    for name in names:
        client.create_secret(Name=name)
    pages = list(client.get_paginator("list_secrets").paginate())
    assert [len(page["SecretList"]) for page in pages] == [100, 100, 5]
    assert sorted(entry["Name"] for page in pages for entry in page["SecretList"]) == names
    refused("ValidationException", client.list_secrets, MaxResults=101)
    first = client.list_secrets(MaxResults=2, SortBy="name", SortOrder="desc")
    assert [entry["Name"] for entry in first["SecretList"]] == ["page/204", "page/203"]
    second = client.list_secrets(MaxResults=2, SortBy="name", SortOrder="desc", NextToken=first["NextToken"])
    assert [entry["Name"] for entry in second["SecretList"]] == ["page/202", "page/201"]


@probe
def list_refuses_an_invented_token(b: Bench) -> None:
    """ListSecrets, InvalidNextTokenException: the NextToken value is invalid."""
    refused("InvalidNextTokenException", b.sm.list_secrets, NextToken="invented")


@probe
def list_entries_hold_metadata_only(b: Bench) -> None:
    """SecretListEntry: details, tags and SecretVersionsToStages (deprecated versions are not included); no value."""
    name, _ = b.secret(Description="listed", Tags=[{"Key": "owner", "Value": "platform"}])
    second = b.put(name, "two")
    third = b.put(name, "three")
    (entry,) = b.sm.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"]
    assert entry["SecretVersionsToStages"] == {second: ["AWSPREVIOUS"], third: ["AWSCURRENT"]}
    assert (entry["Description"], entry["Tags"]) == ("listed", [{"Key": "owner", "Value": "platform"}])
    assert "three" not in repr(entry)


@probe
def list_omits_deleted_secrets(b: Bench) -> None:
    """ListSecrets, IncludePlannedDeletion: by default, secrets scheduled for deletion aren't included."""
    name, _ = b.secret()
    b.sm.delete_secret(SecretId=name)
    filters = [{"Key": "name", "Values": [name]}]
    assert b.sm.list_secrets(Filters=filters)["SecretList"] == []
    (entry,) = b.sm.list_secrets(Filters=filters, IncludePlannedDeletion=True)["SecretList"]
    assert entry["DeletedDate"]


def _listed(b: Bench, *filters: tuple[str, list[str]]) -> set[str]:
    described = [{"Key": key, "Values": values} for key, values in filters]
    return {entry["Name"] for entry in b.sm.list_secrets(Filters=described)["SecretList"]}


@probe
def filter_by_name(b: Bench) -> None:
    """Filter: name is a prefix match, case-sensitive."""
    base = b.name()
    for name in (f"{base}/Alpha", f"{base}/Beta"):
        b.sm.create_secret(Name=name)
    assert _listed(b, ("name", [f"{base}/Al"])) == {f"{base}/Alpha"}
    assert _listed(b, ("name", [f"{base}/al"])) == set()
    assert _listed(b, ("name", [f"{base}/Al", f"{base}/Be"])) == {f"{base}/Alpha", f"{base}/Beta"}


@probe
def filter_by_tags(b: Bench) -> None:
    """Filter: tag-key and tag-value are prefix matches, case-sensitive; several filters must all apply."""
    mark = b.token()
    ours, _ = b.secret(Tags=[{"Key": f"{mark}:owner", "Value": f"{mark}-platform"}])
    theirs, _ = b.secret(Tags=[{"Key": f"{mark}:owner", "Value": f"{mark}-search"}])
    assert _listed(b, ("tag-key", [mark])) == {ours, theirs}
    assert _listed(b, ("tag-key", [mark]), ("tag-value", [f"{mark}-pl"])) == {ours}
    assert _listed(b, ("tag-key", [mark]), ("tag-value", [f"{mark}-PL"])) == set()


@probe
def filter_by_negation(b: Bench) -> None:
    """Filter, Values: prefix your search value with an exclamation mark to perform negation filters."""
    mark = b.token()
    tagged, _ = b.secret(Description=mark, Tags=[{"Key": "a", "Value": "b"}, {"Key": "managed", "Value": "yes"}])
    plain, _ = b.secret(Description=mark, Tags=[{"Key": "a", "Value": "b"}])
    assert _listed(b, ("description", [mark]), ("tag-key", ["!managed"])) == {plain}
    assert _listed(b, ("description", [mark]), ("tag-key", ["managed"])) == {tagged}


@probe
def filter_by_description_and_all(b: Bench) -> None:
    """Filter: description is not case-sensitive; all looks for words in every attribute."""
    mark = f"word{b.token()[-6:]}"
    name, _ = b.secret(Description=f"{mark} for the support copilot")
    assert _listed(b, ("description", [mark.upper()])) == {name}
    assert _listed(b, ("all", [mark])) == {name}


@probe
def filter_refuses_unknown_keys(b: Bench) -> None:
    """Filter, Key: description, name, tag-key, tag-value, primary-region, owning-service or all."""
    refused("ValidationException", b.sm.list_secrets, Filters=[{"Key": "owner", "Values": ["a"]}])


@probe
def version_list_names_the_arn(b: Bench) -> None:
    """ListSecretVersionIds, ARN: the ARN of the secret; KmsKeyIds names the default key so (recorded)."""
    name, first = b.secret()
    answer = b.sm.list_secret_version_ids(SecretId=name)
    assert answer["ARN"] == b.sm.describe_secret(SecretId=name)["ARN"]
    assert answer["Name"] == name
    (version,) = answer["Versions"]
    assert (version["VersionId"], version["VersionStages"]) == (first, ["AWSCURRENT"])
    assert version["KmsKeyIds"] == ["DefaultEncryptionKey"]


@probe
def version_list_omits_deprecated_versions(b: Bench) -> None:
    """ListSecretVersionIds, IncludeDeprecated: by default, versions without staging labels aren't included."""
    name, first = b.secret()
    b.put(name, "two")
    b.put(name, "three")
    listed = b.sm.list_secret_version_ids(SecretId=name)["Versions"]
    assert first not in [version["VersionId"] for version in listed]
    listed = b.sm.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]
    (old,) = [version for version in listed if version["VersionId"] == first]
    assert "VersionStages" not in old


@probe
def version_list_has_pages(b: Bench) -> None:
    """ListSecretVersionIds, MaxResults and NextToken: the number of results to include, and how to go on."""
    name, first = b.secret()
    versions = [first, *(b.put(name, f"value {number}") for number in range(4))]
    pages = b.version_pages(name, 2)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(version for page in pages for version in page) == sorted(versions)


@probe
def old_versions_are_removed(b: Bench) -> None:
    """User guide, quotas: unlabelled versions go when there are more than 100, save those of the last 24 hours."""
    name, first = b.secret()
    for number in range(101):
        b.put(name, f"value {number}")
    assert b.value(name, VersionId=first) == "one"
    b.hands.now += timedelta(days=2)
    b.put(name, "last")
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name, VersionId=first)
    assert [len(page) for page in b.version_pages(name, 100)] == [100]


# --- several values at once


@probe
def batch_takes_20_ids(b: Bench) -> None:
    """BatchGetSecretValue: up to 20 secrets."""
    names = [b.secret(f"value {number}")[0] for number in range(21)]
    answer = b.sm.batch_get_secret_value(SecretIdList=names[:20])
    assert [entry["SecretString"] for entry in answer["SecretValues"]] == [f"value {number}" for number in range(20)]
    assert answer["Errors"] == []
    refused("ValidationException", b.sm.batch_get_secret_value, SecretIdList=names)


@probe
def batch_lists_errors(b: Bench) -> None:
    """BatchGetSecretValue, Errors: those met while retrieving individual secrets; the others are returned."""
    good, _ = b.secret()
    deleted, _ = b.secret()
    b.sm.delete_secret(SecretId=deleted)
    empty, missing = b.name(), b.name()
    b.sm.create_secret(Name=empty)
    answer = b.sm.batch_get_secret_value(SecretIdList=[missing, good, deleted, empty])
    assert [entry["Name"] for entry in answer["SecretValues"]] == [good]
    assert {error["SecretId"]: error["ErrorCode"] for error in answer["Errors"]} == {
        missing: "ResourceNotFoundException",
        deleted: "InvalidRequestException",
        empty: "ResourceNotFoundException",
    }


@probe
def batch_returns_the_current_version(b: Bench) -> None:
    """SecretValueEntry: value, version and labels of the AWSCURRENT version."""
    name, first = b.secret()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", pending, first)
    (entry,) = b.sm.batch_get_secret_value(SecretIdList=[name])["SecretValues"]
    assert (entry["SecretString"], entry["VersionId"]) == ("two", pending)


@probe
def batch_takes_ids_or_filters(b: Bench) -> None:
    """BatchGetSecretValue: Filters or SecretIdList, but not both; MaxResults takes Filters."""
    name, _ = b.secret()
    filters = [{"Key": "name", "Values": [name]}]
    refused("InvalidParameterException", b.sm.batch_get_secret_value, SecretIdList=[name], Filters=filters)
    refused("InvalidParameterException", b.sm.batch_get_secret_value, SecretIdList=[name], MaxResults=5)
    refused("InvalidParameterException", b.sm.batch_get_secret_value)


@probe
def batch_by_filter_has_pages(b: Bench) -> None:
    """BatchGetSecretValue, NextToken: with Filters, at most 20 results and how to go on."""
    base = b.name()
    for number in range(25):
        b.sm.create_secret(Name=f"{base}/{number:02}", SecretString=str(number))
    filters = [{"Key": "name", "Values": [f"{base}/"]}]
    first = b.sm.batch_get_secret_value(Filters=filters)
    rest = b.sm.batch_get_secret_value(Filters=filters, NextToken=first["NextToken"])
    assert (len(first["SecretValues"]), len(rest["SecretValues"])) == (20, 5)
    assert "NextToken" not in rest


# --- encryption keys


@probe
def kms_key_is_kept(b: Bench) -> None:
    """DescribeSecret, KmsKeyId: the key that encrypts the value; omitted for the service's own key."""
    name, _ = b.secret(KmsKeyId=KEY)
    assert b.sm.describe_secret(SecretId=name)["KmsKeyId"] == KEY
    b.put(name, "two")
    assert b.sm.describe_secret(SecretId=name)["KmsKeyId"] == KEY
    own, _ = b.secret(KmsKeyId="alias/aws/secretsmanager")
    assert "KmsKeyId" not in b.sm.describe_secret(SecretId=own)


@probe
def kms_key_can_be_changed_and_dropped(b: Bench) -> None:
    """UpdateSecret, KmsKeyId: encrypts new and labelled versions; the empty string means the service's own key."""
    name, _ = b.secret()
    b.sm.update_secret(SecretId=name, KmsKeyId=KEY)
    assert b.sm.describe_secret(SecretId=name)["KmsKeyId"] == KEY
    assert b.sm.list_secret_version_ids(SecretId=name)["Versions"][0]["KmsKeyIds"] == [KEY]
    b.sm.update_secret(SecretId=name, KmsKeyId="")
    assert "KmsKeyId" not in b.sm.describe_secret(SecretId=name)


# --- resource policies


@probe
def policies_are_kept(b: Bench) -> None:
    """PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy: attach, read and remove the policy."""
    name, _ = b.secret()
    assert "ResourcePolicy" not in b.sm.get_resource_policy(SecretId=name)
    b.sm.put_resource_policy(SecretId=name, ResourcePolicy=POLICY)
    assert json.loads(b.sm.get_resource_policy(SecretId=name)["ResourcePolicy"]) == json.loads(POLICY)
    b.sm.delete_resource_policy(SecretId=name)
    assert "ResourcePolicy" not in b.sm.get_resource_policy(SecretId=name)


@probe
def malformed_policies_are_refused(b: Bench) -> None:
    """PutResourcePolicy, MalformedPolicyDocumentException: the resource policy has syntax errors."""
    name, _ = b.secret()
    for text in ("not json", "[]", '{"Version": "2012-10-17"}', POLICY.replace("Allow", "Maybe")):
        refused("MalformedPolicyDocumentException", b.sm.put_resource_policy, SecretId=name, ResourcePolicy=text)
    assert "ResourcePolicy" not in b.sm.get_resource_policy(SecretId=name)


@probe
def public_policies_can_be_blocked(b: Bench) -> None:
    """PutResourcePolicy, BlockPublicPolicy: blocks broad access; by default, public policies aren't blocked."""
    name, _ = b.secret()
    refused(
        "PublicPolicyException",
        b.sm.put_resource_policy,
        SecretId=name,
        ResourcePolicy=PUBLIC_POLICY,
        BlockPublicPolicy=True,
    )
    b.sm.put_resource_policy(SecretId=name, ResourcePolicy=PUBLIC_POLICY)


@probe
def only_the_default_policy_can_be_changed(b: Bench) -> None:
    """PutResourcePolicy, GetResourcePolicy, PolicyName: any other name is refused, or not found."""
    name, _ = b.secret()
    refused(
        "InvalidParameterException",
        b.sm.put_resource_policy,
        SecretId=name,
        ResourcePolicy=POLICY,
        PolicyName="mine",
    )
    refused("ResourceNotFoundException", b.sm.get_resource_policy, SecretId=name, PolicyName="mine")


@probe
def policies_can_be_validated(b: Bench) -> None:
    """ValidateResourcePolicy: PolicyValidationPassed, and ValidationErrors for a wildcard principal."""
    assert b.sm.validate_resource_policy(ResourcePolicy=POLICY)["PolicyValidationPassed"] is True
    answer = b.sm.validate_resource_policy(ResourcePolicy=PUBLIC_POLICY)
    assert answer["PolicyValidationPassed"] is False
    assert answer["ValidationErrors"][0]["ErrorMessage"]
    refused("MalformedPolicyDocumentException", b.sm.validate_resource_policy, ResourcePolicy="not json")


# --- replicas in other regions


def _replicated(b: Bench) -> tuple[str, str]:
    return b.secret(AddReplicaRegions=[{"Region": OTHER, "KmsKeyId": KEY}])


@probe
def replica_reads_as_the_primary(b: Bench) -> None:
    """User guide, multi-Region secrets: same name and ARN but for the region; DescribeSecret names PrimaryRegion."""
    name, first = _replicated(b)
    there = b.other.get_secret_value(SecretId=name)
    assert (there["SecretString"], there["VersionId"]) == ("one", first)
    assert there["ARN"] == b.sm.describe_secret(SecretId=name)["ARN"].replace(REGION, OTHER)
    assert b.other.describe_secret(SecretId=name)["PrimaryRegion"] == REGION


@probe
def replication_is_asynchronous(b: Bench) -> None:
    """CreateSecret, DescribeSecret, ReplicationStatus: InProgress while the replica is created, then InSync."""
    name = b.name()
    answer = b.sm.create_secret(Name=name, SecretString="one", AddReplicaRegions=[{"Region": OTHER}])
    assert answer["ReplicationStatus"][0]["Status"] == "InProgress"
    (status,) = b.sm.describe_secret(SecretId=name)["ReplicationStatus"]
    assert (status["Region"], status["Status"]) == (OTHER, "InSync")


@probe
def replica_follows_the_primary(b: Bench) -> None:
    """User guide, multi-Region secrets: the replica has the primary's values, versions, labels and tags."""
    name, _ = b.secret()
    answer = b.sm.replicate_secret_to_regions(SecretId=name, AddReplicaRegions=[{"Region": OTHER, "KmsKeyId": KEY}])
    assert answer["ARN"] == b.sm.describe_secret(SecretId=name)["ARN"]
    assert answer["ReplicationStatus"][0]["KmsKeyId"] == KEY
    b.put(name, "two")
    b.sm.tag_resource(SecretId=name, Tags=[{"Key": "owner", "Value": "platform"}])
    assert b.other.get_secret_value(SecretId=name)["SecretString"] == "two"
    assert b.other.describe_secret(SecretId=name)["VersionIdsToStages"] == b.stages(name)
    assert b.other.describe_secret(SecretId=name)["Tags"]


@probe
def replica_refuses_writes(b: Bench) -> None:
    """User guide, standalone secrets: a replica can't be updated independently of its primary (code as reported)."""
    name, first = _replicated(b)
    code = "InvalidParameterException"
    refused(code, b.other.put_secret_value, SecretId=name, SecretString="two")
    refused(code, b.other.update_secret, SecretId=name, SecretString="two")
    refused(code, b.other.tag_resource, SecretId=name, Tags=[{"Key": "a", "Value": "b"}])
    refused(code, b.other.update_secret_version_stage, SecretId=name, VersionStage="x", MoveToVersionId=first)
    refused(code, b.other.delete_secret, SecretId=name)
    refused(code, b.other.put_resource_policy, SecretId=name, ResourcePolicy=POLICY)
    refused(code, b.other.rotate_secret, SecretId=name, RotationLambdaARN=LAMBDA)


@probe
def primary_with_replicas_cannot_be_deleted(b: Bench) -> None:
    """DeleteSecret: first delete the replicas using RemoveRegionsFromReplication, then the primary."""
    name, _ = _replicated(b)
    assert OTHER in refused("InvalidParameterException", b.sm.delete_secret, SecretId=name)
    refused("InvalidParameterException", b.sm.delete_secret, SecretId=name, ForceDeleteWithoutRecovery=True)
    b.sm.remove_regions_from_replication(SecretId=name, RemoveReplicaRegions=[OTHER])
    refused("ResourceNotFoundException", b.other.describe_secret, SecretId=name)
    assert "ReplicationStatus" not in b.sm.describe_secret(SecretId=name)
    b.sm.delete_secret(SecretId=name)


@probe
def promoted_replica_stands_alone(b: Bench) -> None:
    """StopReplicationToReplica: promotes the replica to a standalone primary secret in the replica Region."""
    name, _ = _replicated(b)
    b.other.stop_replication_to_replica(SecretId=name)
    b.other.put_secret_value(SecretId=name, SecretString="theirs")
    b.put(name, "ours")
    assert (b.value(name), b.other.get_secret_value(SecretId=name)["SecretString"]) == ("ours", "theirs")
    assert "PrimaryRegion" not in b.other.describe_secret(SecretId=name)
    b.sm.delete_secret(SecretId=name)


@probe
def replication_fails_over_another_secret(b: Bench) -> None:
    """ReplicateSecretToRegions, ForceOverwriteReplicaSecret: by default, secrets aren't overwritten; status Failed."""
    name, _ = b.secret()
    b.other.create_secret(Name=name, SecretString="theirs")
    wanted = [{"Region": OTHER}]
    answer = b.sm.replicate_secret_to_regions(SecretId=name, AddReplicaRegions=wanted)
    assert answer["ReplicationStatus"][0]["Status"] == "Failed"
    assert b.other.get_secret_value(SecretId=name)["SecretString"] == "theirs"
    b.sm.replicate_secret_to_regions(SecretId=name, AddReplicaRegions=wanted, ForceOverwriteReplicaSecret=True)
    assert b.other.get_secret_value(SecretId=name)["SecretString"] == "one"


@probe
def replica_needs_another_region(b: Bench) -> None:
    """ReplicateSecretToRegions, InvalidParameterException: the primary's own region is no replica region."""
    refused("InvalidParameterException", b.sm.create_secret, Name=b.name(), AddReplicaRegions=[{"Region": REGION}])


# --- rotation


@probe
def rotate_without_function_fails_and_loses_nothing(b: Bench) -> None:
    """RotateSecret, InvalidRequestException: no Lambda function ARN is configured and none is included."""
    name, first = b.secret()
    refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name)
    assert b.stages(name) == {first: ["AWSCURRENT"]}
    assert b.value(name) == "one"
    assert "RotationEnabled" not in b.sm.describe_secret(SecretId=name)


@probe
def rotate_registers_an_empty_pending_version(b: Bench) -> None:
    """DescribeSecret, VersionIdsToStages: AWSPENDING is on the new version's id before it has a value."""
    name, first = b.secret()
    token = b.token()
    assert b.rotate(name, RotationLambdaARN=LAMBDA, ClientRequestToken=token) == token
    assert b.stages(name) == {first: ["AWSCURRENT"], token: ["AWSPENDING"]}
    for selector in ({"VersionId": token}, {"VersionStage": "AWSPENDING"}):
        refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name, **selector)
    both = {"VersionId": token, "VersionStage": "AWSPENDING"}
    refused("ResourceNotFoundException", b.sm.get_secret_value, SecretId=name, **both)
    assert b.value(name) == "one"


@probe
def empty_version_is_not_listed(b: Bench) -> None:
    """ListSecretVersionIds: only returns versions that contain a secret value."""
    name, first = b.secret()
    b.rotate(name, RotationLambdaARN=LAMBDA)
    listed = b.sm.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]
    assert [version["VersionId"] for version in listed] == [first]


@probe
def put_fills_the_registered_version(b: Bench) -> None:
    """PutSecretValue: with the rotation's token, the value goes to the version that RotateSecret registered."""
    name, first = b.secret()
    token = b.rotate(name, RotationLambdaARN=LAMBDA)
    b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token, VersionStages=["AWSPENDING"])
    assert b.stages(name) == {first: ["AWSCURRENT"], token: ["AWSPENDING"]}
    assert b.value(name, VersionStage="AWSPENDING") == "two"


@probe
def rotate_during_a_rotation_fails(b: Bench) -> None:
    """RotateSecret: AWSPENDING on a version other than AWSCURRENT's: a rotation is in progress, it returns an error."""
    name, first = b.secret()
    token = b.rotate(name, RotationLambdaARN=LAMBDA)
    message = refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name)
    assert message == "A previous rotation isn't complete. That rotation will be reattempted."
    refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name, ClientRequestToken=token)
    assert b.stages(name) == {first: ["AWSCURRENT"], token: ["AWSPENDING"]}


@probe
def rotate_refuses_a_pending_version_made_by_hand(b: Bench) -> None:
    """RotateSecret: any AWSPENDING apart from AWSCURRENT counts; without the label it rotates again."""
    name, _ = b.configured()
    pending = b.put(name, "two", "AWSPENDING")
    refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name)
    b.move(name, "AWSPENDING", away_from=pending)
    b.rotate(name)


@probe
def rotate_accepts_pending_on_the_current_version(b: Bench) -> None:
    """RotateSecret: after success AWSPENDING might be attached to the same version as AWSCURRENT; it rotates again."""
    name, first = b.configured()
    pending = b.put(name, "two", "AWSPENDING")
    b.move(name, "AWSCURRENT", pending, first)
    token = b.rotate(name)
    assert b.stages(name) == {first: ["AWSPREVIOUS"], pending: ["AWSCURRENT"], token: ["AWSPENDING"]}


@probe
def dropped_empty_version_is_forgotten(b: Bench) -> None:
    """UpdateSecretVersionStage: a poisoned rotation ends by taking AWSPENDING off; a new token can then be rotated."""
    name, first = b.configured()
    token = b.rotate(name)
    b.move(name, "AWSPENDING", away_from=token)
    assert b.stages(name) == {first: ["AWSCURRENT"]}
    assert b.rotate(name) != token


@probe
def rotate_of_empty_secret_registers_a_version(b: Bench) -> None:
    """RotateSecret: a secret without any value gets its AWSPENDING version like any other."""
    name = b.name()
    b.sm.create_secret(Name=name)
    token = b.rotate(name, RotationLambdaARN=LAMBDA)
    assert b.stages(name) == {token: ["AWSPENDING"]}


@probe
def rotation_asks_the_function(b: Bench) -> None:
    """User guide, rotation function: the event names the secret by ARN, the token, and a RotationToken of 36 to 256."""
    name, _ = b.secret()
    b.hands.rotations.clear()
    token = b.rotate(name, RotationLambdaARN=LAMBDA)
    (request,) = b.hands.rotations
    assert request.secret_arn == b.sm.describe_secret(SecretId=name)["ARN"]
    assert (request.lambda_arn, request.client_request_token, request.region) == (LAMBDA, token, REGION)
    assert request.steps == ("createSecret", "setSecret", "testSecret", "finishSecret")
    assert 36 <= len(request.rotation_token) <= 256
    assert request.rotation_token not in repr(request)


@probe
def rotation_settings_are_kept(b: Bench) -> None:
    """RotateSecret: without configuration parameters, it starts a rotation with the values already stored."""
    name, _ = b.configured()
    b.rotate(name)
    details = b.sm.describe_secret(SecretId=name)
    assert (details["RotationEnabled"], details["RotationLambdaARN"]) == (True, LAMBDA)
    assert details["RotationRules"] == {"AutomaticallyAfterDays": 30}


@probe
def rotation_rules_are_checked(b: Bench) -> None:
    """RotationRulesType: 1 to 1,000 days; days or a schedule expression, not both; as often as every four hours."""
    name, _ = b.secret()
    code = {"InvalidParameterException", "ValidationException"}
    for rules in (
        {"AutomaticallyAfterDays": 1_001},
        {"AutomaticallyAfterDays": 30, "ScheduleExpression": "rate(30 days)"},
        {"ScheduleExpression": "rate(3 hours)"},
        {"ScheduleExpression": "rate(1001 days)"},
        {"ScheduleExpression": "tomorrow"},
        {"ScheduleExpression": "rate(10 days)", "Duration": "3 hours"},
    ):
        refused(code, b.sm.rotate_secret, SecretId=name, RotationLambdaARN=LAMBDA, RotationRules=rules)
    assert "RotationEnabled" not in b.sm.describe_secret(SecretId=name)
    for expression in ("rate(4 hours)", "rate(1000 days)", "cron(0 8 1 * ? *)"):
        b.configured(ScheduleExpression=expression)


@probe
def next_rotation_is_on_or_before(b: Bench) -> None:
    """DescribeSecret, NextRotationDate: on or before this date; a window in days closes at the end of the UTC day."""
    name, _ = b.configured(AutomaticallyAfterDays=10)
    end_of_day = b.hands.now.replace(hour=23, minute=59, second=59)
    assert b.sm.describe_secret(SecretId=name)["NextRotationDate"] == end_of_day + timedelta(days=10)
    hourly, _ = b.configured(ScheduleExpression="rate(4 hours)")
    assert b.sm.describe_secret(SecretId=hourly)["NextRotationDate"] == b.hands.now + timedelta(hours=5)


@probe
def manual_write_counts_as_rotation(b: Bench) -> None:
    """RotationRulesType: manually updating the secret value is considered a valid rotation."""
    name, _ = b.configured(AutomaticallyAfterDays=10)
    before = b.sm.describe_secret(SecretId=name)["NextRotationDate"]
    b.hands.now += timedelta(days=3)
    b.put(name, "by hand")
    details = b.sm.describe_secret(SecretId=name)
    assert details["NextRotationDate"] - before == timedelta(days=3)
    assert details["LastRotatedDate"] == b.hands.now


@probe
def waiting_rotation_tests_only(b: Bench) -> None:
    """RotateSecret, RotateImmediately: false runs testSecret; the AWSPENDING version that it creates is removed."""
    name, first = b.secret()
    seen: list[str] = []
    b.hands.rotations.clear()
    b.hands.during_rotation = lambda _: seen.append(b.value(name, VersionStage="AWSPENDING"))
    try:
        b.rotate(name, RotationLambdaARN=LAMBDA, RotateImmediately=False)
    finally:
        b.hands.during_rotation = None
    assert [request.steps for request in b.hands.rotations] == [("testSecret",)]
    assert seen == ["one"]
    assert b.stages(name) == {first: ["AWSCURRENT"]}


@probe
def cancel_leaves_the_labels(b: Bench) -> None:
    """CancelRotateSecret: turns off rotation; names the partial version, whose AWSPENDING is left to the caller."""
    name, first = b.configured()
    token = b.rotate(name)
    assert b.sm.cancel_rotate_secret(SecretId=name)["VersionId"] == token
    assert b.stages(name) == {first: ["AWSCURRENT"], token: ["AWSPENDING"]}
    details = b.sm.describe_secret(SecretId=name)
    assert details["RotationEnabled"] is False
    assert details["RotationRules"] == {"AutomaticallyAfterDays": 30}
    assert "NextRotationDate" not in details
    assert "LastRotatedDate" not in details
    refused("InvalidRequestException", b.sm.rotate_secret, SecretId=name)


@probe
def cancel_without_rotation_fails(b: Bench) -> None:
    """CancelRotateSecret, InvalidRequestException: rotation was never configured."""
    name, _ = b.secret()
    refused("InvalidRequestException", b.sm.cancel_rotate_secret, SecretId=name)


@probe
def rotate_turns_rotation_on_again(b: Bench) -> None:
    """CancelRotateSecret: to turn on automatic rotation again, call RotateSecret."""
    name, _ = b.configured()
    assert "VersionId" not in b.sm.cancel_rotate_secret(SecretId=name)
    b.rotate(name)
    assert b.sm.describe_secret(SecretId=name)["RotationEnabled"] is True


@probe
def four_steps_end_a_rotation(b: Bench) -> None:
    """User guide, how rotation works: put as AWSPENDING, move AWSCURRENT, take AWSPENDING off; it rotates again."""
    name, first = b.configured()
    token = b.rotate(name)
    b.sm.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=token, VersionStages=["AWSPENDING"])
    b.move(name, "AWSCURRENT", token, first)
    b.move(name, "AWSPENDING", away_from=token)
    assert b.stages(name) == {first: ["AWSPREVIOUS"], token: ["AWSCURRENT"]}
    assert b.value(name) == "two"
    assert b.sm.describe_secret(SecretId=name)["LastRotatedDate"] == b.hands.now
    b.rotate(name)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    hands = Hands()
    with AwsServer(now=lambda: hands.now, on_rotate=hands.on_rotate) as server:
        yield Bench(
            server,
            sm=server.client("secretsmanager"),
            other=server.client("secretsmanager", region=OTHER),
            once=server.client("secretsmanager", config=Config(retries={"total_max_attempts": 1})),
            hands=hands,
        )


@pytest.mark.parametrize("row", PROBES, ids=lambda row: row.id)
def test_behaves_as_documented(bench: Bench, row: Probe) -> None:
    """The stand-in does what the documentation says in this row."""
    row.run(bench)


def test_the_table_is_whole() -> None:
    """At least 60 rows, each with its own id, and a sentence that names its source."""
    assert len(PROBES) >= 60
    assert len({row.id for row in PROBES}) == len(PROBES)
    for row in PROBES:
        source, _, statement = row.documented.partition(":")
        assert source.strip()
        assert statement.strip(), row.id
