"""Apprise's services and Amazon's topics are told for real; what they answer, and where they are, stays out of sight."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.sns.models import sns_backends

from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.notify import by_apprise, by_sns
from rotation.notify.telling import Message
from rotation.ports import Severity
from tests.notify.places import endpoint, mail, silence

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise loads it

ACCOUNT = "123456789012"
CANARY = "canary-of-a-token-0123456789"
MESSAGE = Message("prod/a-b: it failed", "What happened.\n\nNow: …", Severity.CRITICAL, {"kind": "rotation.failed"})


def apprise(url: str, limit: float = 5.0) -> None:
    by_apprise.send("channel ops", SecretValue(url), MESSAGE, limit)


def test_a_webhook_of_apprise_is_told() -> None:
    """Subject, text and how loud."""
    with endpoint() as there:
        apprise(f"json://127.0.0.1:{there.port}/{CANARY}\n")
        (asked,) = there.asked
        assert asked.path == f"/{CANARY}"
        assert (asked.json["title"], asked.json["message"]) == (MESSAGE.subject, MESSAGE.text)
        assert asked.json["type"] == "failure"


def test_mail_is_sent() -> None:
    """By a real mail server."""
    with mail() as (kept, port):
        apprise(f"mailto://127.0.0.1:{port}/?from=keyturn@example.org&to=team@example.org&format=text")
    (message,) = kept.messages
    assert (message["Subject"], message["To"]) == (MESSAGE.subject, "team@example.org")
    assert "What happened." in message.get_content()


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, Code.UNAVAILABLE), (403, Code.DENIED), (404, Code.NOT_FOUND), (429, Code.THROTTLED), (302, Code.INVALID)],
)
def test_what_is_not_taken_is_told_by_its_status_alone(
    status: int, code: Code, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the address nor the answer, which may repeat it; a redirect is not followed."""
    with endpoint() as there, caplog.at_level(logging.DEBUG):
        there.status, there.body = status, f"you sent {CANARY}"
        there.headers = {"Location": f"{there.url}/elsewhere"}
        with pytest.raises(Trouble) as caught:
            apprise(f"json://127.0.0.1:{there.port}/{CANARY}")
    assert (str(caught.value), caught.value.code) == (f"channel ops: it answered {status}", code)
    assert [asked.path for asked in there.asked] == [f"/{CANARY}"]
    out, err = capfd.readouterr()
    assert CANARY not in caplog.text + out + err


def test_a_service_that_never_answers_is_given_up() -> None:
    """Within the limit for an answer."""
    with silence() as port, pytest.raises(Trouble, match="it was not reached, or did not take the message"):
        apprise(f"json://127.0.0.1:{port}/", limit=0.05)


@pytest.mark.parametrize("url", [CANARY, f"nosuch://{CANARY}", f"slack://{CANARY}"])
def test_what_is_no_address_is_said_without_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody repeats what stands where a token belongs."""
    with caplog.at_level(logging.DEBUG), pytest.raises(Trouble) as caught:
        apprise(url)
    assert str(caught.value) == "channel ops: what its reference gives is no URL that Apprise knows"
    assert CANARY not in caplog.text


# --- SNS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def topic(aws: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    client = boto3.client("sns", region_name="eu-west-1", endpoint_url=aws)
    return str(client.create_topic(Name="keyturn")["TopicArn"])


def sns(
    arn: str, endpoint_url: str, message: Message = MESSAGE, limit: float = 5.0, profile: str | None = None
) -> None:
    by_sns.send("channel topic", arn, message, limit, endpoint_url=endpoint_url, profile=profile)


def test_a_topic_is_told_with_what_subscribers_filter_by(aws: str, topic: str) -> None:
    """In the topic's own region; the subject in the characters that SNS takes."""
    message = Message("prod/a-b: größer\nals", "Was geschah: …", Severity.WARNING, {"kind": "rotation.failed", "x": ""})
    sns(topic, aws, message)
    sns(topic, aws, Message("x" * 200, "", Severity.INFO))
    first, second = sns_backends[ACCOUNT]["eu-west-1"].topics[topic].sent_notifications
    assert first[1:3] == ("prod/a-b: größer\nals\n\nWas geschah: …", "prod/a-b: gr??er?als")
    assert {name: about["Value"] for name, about in (first[3] or {}).items()} == {"kind": "rotation.failed"}
    assert second[2] == "x" * 96 + "..."


def test_a_topic_that_is_not_there_is_said_in_the_services_word(aws: str, topic: str) -> None:
    """And not tried again."""
    with pytest.raises(Trouble) as caught:
        sns(f"{topic}-gone", aws)
    assert str(caught.value) == "channel topic: SNS answered NotFound"
    assert caught.value.code.permanent


def test_a_service_that_is_away_is_one_that_may_come_back(topic: str) -> None:
    """Nobody listens there; or somebody does, and never answers."""
    with pytest.raises(Trouble, match="EndpointConnectionError") as caught:
        sns(topic, "http://127.0.0.1:9")
    assert not caught.value.code.permanent
    with silence() as port, pytest.raises(Trouble, match="ReadTimeoutError"):
        sns(topic, f"http://127.0.0.1:{port}", limit=0.05)


def test_a_login_that_is_not_there_is_said(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is of the AWS configuration files."""
    with pytest.raises(Trouble, match="there are no AWS credentials for it"):
        sns(topic, "http://127.0.0.1:9", profile="nobody")
