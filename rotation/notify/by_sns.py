"""Channels of Amazon SNS: one message to a topic, with attributes that its subscribers may filter by."""

from __future__ import annotations

from typing import Any, Final

from rotation import extras
from rotation.errors import Code, Trouble
from rotation.notify.telling import Message

_SUBJECT: Final = 99
"""A subject has fewer than 100 characters, of ASCII, and no line breaks ("Publish", Amazon SNS API Reference)."""
_CODES: Final = {
    "AuthorizationError": Code.DENIED,
    "AuthorizationErrorException": Code.DENIED,
    "AccessDenied": Code.DENIED,
    "AccessDeniedException": Code.DENIED,
    "InvalidClientTokenId": Code.DENIED,
    "SignatureDoesNotMatch": Code.DENIED,
    "ExpiredToken": Code.DENIED,
    "NotFound": Code.NOT_FOUND,
    "NotFoundException": Code.NOT_FOUND,
    "InvalidParameter": Code.INVALID,
    "InvalidParameterException": Code.INVALID,
    "Throttled": Code.THROTTLED,
    "ThrottledException": Code.THROTTLED,
    "Throttling": Code.THROTTLED,
}


def send(
    service: str, arn: str, message: Message, limit: float, *, endpoint_url: str | None, profile: str | None
) -> None:
    """Publishes to a topic, in the topic's own region.

    Parameters:
        service: starts what is told of failures.
        arn: of the topic.
        limit: seconds for a connection, and for an answer.

    Raises:
        Trouble: it was not taken, as far as that can be told.
    """
    if (lacking := extras.lacking(("boto3",))) is not None:
        raise Trouble(Code.INVALID, service, lacking)
    import boto3  # noqa: PLC0415 - 0.3 s, and only for who has such a channel
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound  # noqa: PLC0415

    patience = Config(connect_timeout=limit, read_timeout=limit, retries={"total_max_attempts": 1, "mode": "standard"})
    try:
        session = boto3.session.Session(profile_name=profile, region_name=arn.split(":")[3])
        client: Any = session.client("sns", endpoint_url=endpoint_url, config=patience)
        client.publish(
            TopicArn=arn,
            Subject=_subject(message.subject),
            Message=f"{message.subject}\n\n{message.text}",
            MessageAttributes={
                name: {"DataType": "String", "StringValue": text} for name, text in message.attributes.items() if text
            },
        )
    except ClientError as error:
        word = str(error.response.get("Error", {}).get("Code", ""))
        code = _CODES.get(word, Code.UNAVAILABLE)
        raise Trouble(code, service, f"SNS answered {word if word.isalnum() else 'an error'}") from None
    except (NoCredentialsError, ProfileNotFound):
        raise Trouble(Code.DENIED, service, "there are no AWS credentials for it") from None
    except BotoCoreError as error:
        raise Trouble(Code.UNAVAILABLE, service, type(error).__name__) from None


def _subject(text: str) -> str:
    plain = "".join(c if " " <= c <= "~" else "?" for c in text).strip()
    plain = plain if len(plain) <= _SUBJECT else plain[: _SUBJECT - 3] + "..."
    return plain or "Keyturn"
