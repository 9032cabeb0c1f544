"""The trail in S3 and CloudWatch Logs, against moto's server."""

from __future__ import annotations

import json
import socket
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from rotation.audit.cloudwatch import CloudWatchPlace
from rotation.audit.files import FilePlace
from rotation.audit.s3 import S3Place
from rotation.audit.trail import ChainedAuditor, Place
from rotation.audit.verify import Report, verify
from rotation.errors import Code, Trouble
from rotation.ports import Record
from tests.audit.lines import ACME, record

REGION = "eu-west-1"


def now(number: int) -> Record:
    """CloudWatch takes nothing that is older than two weeks."""
    return replace(record(number), at=datetime.now(UTC) + timedelta(milliseconds=number))


def aws(service: str, endpoint: str) -> Any:
    made: Any = boto3.session.Session
    return made().client(service, region_name=REGION, endpoint_url=endpoint)


def trail_of(*places: Place, anchors: tuple[Place, ...] = ()) -> ChainedAuditor:
    return ChainedAuditor(places, anchors, installation=ACME[0], environment=ACME[1])


def looked(place: Place, *anchors: Place) -> Report:
    return verify(place.read(), (line for place in anchors for line in place.read()), ACME)


# --- S3 ------------------------------------------------------------------------------------------


class Bucket:
    """A bucket with object lock, and what an administrator sees of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.name = endpoint, f"trail-{uuid.uuid4().hex[:12]}"
        self.client = aws("s3", endpoint)
        where: Any = {"LocationConstraint": REGION}
        self.client.create_bucket(Bucket=self.name, CreateBucketConfiguration=where, ObjectLockEnabledForBucket=True)

    def place(self, kind: str = "records", lock: tuple[str, int] | None = ("compliance", 400)) -> S3Place:
        return S3Place(
            self.name, f"prod/{kind}", region=REGION, endpoint_url=self.endpoint, prefix="keyturn/", lock=lock
        )

    def keys(self) -> list[str]:
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return Bucket(endpoint)


def test_each_record_is_an_object_that_nobody_can_delete(bucket: Bucket) -> None:
    """One PutObject a record, locked for as long as the stack says, before write() returns."""
    trail = trail_of(bucket.place())
    for number in range(3):
        trail.write(now(number))
        assert len(bucket.keys()) == number + 1
    keys = bucket.keys()
    assert keys == sorted(keys)
    assert all(key.startswith("keyturn/prod/records/") for key in keys)
    report = looked(bucket.place())
    assert report.good
    assert (report.records, report.chains) == (3, 1)
    about = bucket.client.head_object(Bucket=bucket.name, Key=keys[0])
    assert about["ObjectLockMode"] == "COMPLIANCE"
    left = about["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert timedelta(days=399) < left <= timedelta(days=400)
    with pytest.raises(ClientError, match="AccessDenied"):
        bucket.client.delete_object(Bucket=bucket.name, Key=keys[0], VersionId=about["VersionId"])


def test_what_was_deleted_or_written_over_is_read_all_the_same_and_told(bucket: Bucket) -> None:
    """A version stays under its marker, and under the next version; the bucket's lock sees to that."""
    trail = trail_of(bucket.place())
    for number in range(3):
        trail.write(now(number))
    first, second, _ = bucket.keys()
    bucket.client.delete_object(Bucket=bucket.name, Key=first)
    bucket.client.put_object(Bucket=bucket.name, Key=second, Body=b"{}\n", ChecksumAlgorithm="SHA256")
    report = looked(bucket.place())
    assert report.records == 3
    assert report.faults == [
        f"s3://{bucket.name}/{first}:1: was deleted; what was there is read",
        f"s3://{bucket.name}/{second}:1: was written over; what was there first is read",
    ]


def test_without_a_lock_a_removed_object_is_found_by_its_chain(bucket: Bucket) -> None:
    """The chain does not rely on the place."""
    trail = trail_of(bucket.place(lock=None))
    for number in range(3):
        trail.write(now(number))
    key = bucket.keys()[1]
    about = bucket.client.head_object(Bucket=bucket.name, Key=key)
    bucket.client.delete_object(Bucket=bucket.name, Key=key, VersionId=about["VersionId"])
    (fault,) = looked(bucket.place()).faults
    assert "record 1 of writer" in fault


def test_an_object_is_never_written_over(bucket: Bucket) -> None:
    """Who put one where ours is to stand keeps us from writing, and can not make us believe that we have."""
    place = bucket.place()
    place.keep("w", 0, ["one\n"], datetime.now(UTC))
    place.keep("w", 0, ["one\n"], datetime.now(UTC))  # its answer was lost, and it was sent again
    with pytest.raises(Trouble, match="another object stands where this one was to be put"):
        place.keep("w", 0, ["two\n"], datetime.now(UTC))
    assert [line.text for line in place.read()] == ["one\n"]


def test_a_bucket_without_locks_is_refused_where_a_lock_is_declared(bucket: Bucket) -> None:
    """Before anything is rotated under a promise that nobody keeps."""
    name = f"plain-{uuid.uuid4().hex[:12]}"
    where: Any = {"LocationConstraint": REGION}
    bucket.client.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    place = S3Place(name, "prod/records", region=REGION, endpoint_url=bucket.endpoint, lock=("governance", 1))
    with pytest.raises(Trouble, match=f"audit trail: s3://{name}/"):
        trail_of(place).write(now(0))
    assert not bucket.client.list_objects_v2(Bucket=name).get("Contents")


def test_heads_are_anchored_in_locked_objects(bucket: Bucket, tmp_path: Any) -> None:
    """So that whoever owns the file, and not the bucket, can not shorten it."""
    file = FilePlace(tmp_path / "trail.jsonl")
    trail = trail_of(file, anchors=(bucket.place("anchors"),))
    for number in range(4):
        trail.write(now(number))
    assert trail.anchor()
    assert looked(file, bucket.place("anchors")).good
    lines = (tmp_path / "trail.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trail.jsonl").write_text("".join(lines[:-1]))
    assert looked(file).good
    (fault,) = looked(file, bucket.place("anchors")).faults
    assert "record 3 of writer" in fault
    assert f"the anchor at s3://{bucket.name}/keyturn/prod/anchors/" in fault


def test_two_places_have_the_same_lines(bucket: Bucket, tmp_path: Any) -> None:
    """One chain, kept twice; where one of them fails the record is not kept."""
    file = FilePlace(tmp_path / "trail.jsonl")
    trail = trail_of(file, bucket.place())
    trail.write(now(0))
    trail.write(now(1))
    assert [line.text for line in file.read()] == [line.text for line in bucket.place().read()]
    nowhere = trail_of(file, S3Place("no-such-bucket", "prod/records", region=REGION, endpoint_url=bucket.endpoint))
    with pytest.raises(Trouble, match="NoSuchBucket"):
        nowhere.write(now(2))


def test_a_service_that_does_not_answer_is_trouble(endpoint: str) -> None:
    """In words, without the request."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for place in (
            S3Place("trail", "prod/records", region=REGION, endpoint_url=dead),
            CloudWatchPlace("trail", "prod/records", region=REGION, endpoint_url=dead),
        ):
            with pytest.raises(Trouble, match=r"no answer \(EndpointConnectionError\)") as caught:
                trail_of(place).write(now(0))
            assert caught.value.code is Code.UNAVAILABLE
            with pytest.raises(Trouble, match="no answer"):
                list(place.read())


# --- CloudWatch Logs -----------------------------------------------------------------------------


@pytest.fixture
def group(endpoint: str) -> str:
    name = f"/keyturn/{uuid.uuid4().hex[:12]}"
    aws("logs", endpoint).create_log_group(logGroupName=name)
    return name


def logs(endpoint: str, group: str, kind: str = "records") -> CloudWatchPlace:
    return CloudWatchPlace(group, f"prod/{kind}", region=REGION, endpoint_url=endpoint)


def test_each_writer_has_a_stream_and_each_record_an_event(endpoint: str, group: str) -> None:
    """And they are read back as they were written."""
    first, second = trail_of(logs(endpoint, group)), trail_of(logs(endpoint, group))
    for number in range(3):
        first.write(now(number))
        second.write(now(number))
    report = looked(logs(endpoint, group))
    assert report.good
    assert (report.records, report.chains) == (6, 2)
    streams = aws("logs", endpoint).describe_log_streams(logGroupName=group)["logStreams"]
    assert len(streams) == 2
    assert all(stream["logStreamName"].startswith("prod/records/") for stream in streams)


def test_a_stream_that_was_deleted_is_missed_by_its_anchor(endpoint: str, group: str) -> None:
    """An event can not be changed; a stream can be deleted."""
    file_like, anchors = logs(endpoint, group), logs(endpoint, group, "anchors")
    trail = trail_of(file_like, anchors=(anchors,))
    trail.write(now(0))
    assert trail.anchor()
    assert looked(file_like, anchors).good
    (head,) = looked(file_like).heads
    aws("logs", endpoint).delete_log_stream(logGroupName=group, logStreamName=f"prod/records/{head.writer}")
    (fault,) = looked(file_like, anchors).faults
    assert "the whole chain is gone" in fault


def test_an_event_that_the_service_leaves_out_is_not_kept(endpoint: str, group: str) -> None:
    """It answers that all is well, and says in a side note that it took nothing."""
    with pytest.raises(Trouble, match=r"refused records of 2020-01-01T00:00:00[+]00:00 for their age"):
        trail_of(logs(endpoint, group)).write(replace(record(0), at=datetime(2020, 1, 1, tzinfo=UTC)))


def test_an_event_that_was_sent_twice_is_told_and_no_fault(endpoint: str, group: str) -> None:
    """As after a lost answer."""
    trail_of(logs(endpoint, group)).write(now(0))
    (line,) = logs(endpoint, group).read()
    writer = json.loads(line.text)["writer"]
    logs(endpoint, group).keep(writer, 0, [line.text], datetime.now(UTC))
    report = looked(logs(endpoint, group))
    assert report.good
    assert (report.records, len(report.repeated)) == (1, 1)


def test_a_group_that_is_not_there_is_said(endpoint: str) -> None:
    """Keyturn makes none: its retention is for its owner to say."""
    with pytest.raises(Trouble, match="log group /no/such/group: there is no such log group"):
        trail_of(logs(endpoint, "/no/such/group")).write(now(0))
