"""The audit trail as objects of S3: each is put once, is never written over, and locked where that is configured.

Calls: one PutObject for each put of the trail, which is one for each record of a single thread; threads share them. An
answer that was lost costs a GetObject more. Facts: S3 user guide, "Add preconditions to S3 operations with conditional
requests" (If-None-Match: *), and "Locking objects with Object Lock", which needs a bucket with versions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from rotation.audit.chain import Head
from rotation.audit.trail import Kept, unkept

_CONNECT_SECONDS: Final = 4.0
_READ_SECONDS: Final = 8.0
_ATTEMPTS: Final = 3
_TAKEN: Final = ("PreconditionFailed", "412")
_DIGITS: Final = 12
"""Of a segment's number in its key, so that keys sort as numbers do."""


class S3Place:
    """Segments of lines below `<prefix><environment>/<kind>/<writer>/`. Threads may share it. Connects at first use.

    Parameters:
        folder: `<environment>/records` or `<environment>/anchors`.
        lock: mode (`governance`, `compliance`) and days for which nobody can delete an object; None leaves that to the
            bucket's own default.
    """

    def __init__(
        self,
        bucket: str,
        folder: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        prefix: str = "",
        lock: tuple[str, int] | None = None,
    ) -> None:
        self._bucket = bucket
        self._folder = f"{prefix}{folder}/"
        self._region = region
        self._endpoint_url = endpoint_url
        self._locked = lock
        self._opening = threading.Lock()
        self._client: Any = None

    @property
    def name(self) -> str:
        return f"s3://{self._bucket}/{self._folder}"

    def keep(self, writer: str, seq: int, lines: Sequence[str], at: datetime) -> None:
        """See Place. The key holds the writer's random id and the number of the first line, so that no two are alike."""
        key, body = f"{self._folder}{writer}/{seq:0{_DIGITS}}.jsonl", "".join(lines).encode()
        more: dict[str, Any] = {}
        if self._locked is not None:
            mode, days = self._locked
            more = {"ObjectLockMode": mode.upper(), "ObjectLockRetainUntilDate": at + timedelta(days=days)}
        put = {"Bucket": self._bucket, "Key": key, "Body": body, "ContentType": "application/x-ndjson", **more}
        code = self._try("put_object", **put, IfNoneMatch="*", ChecksumAlgorithm="SHA256")[1]
        if code in _TAKEN and self._get(key) == body:
            return  # the answer to this very put was lost, and the client sent it again
        if code is not None:
            told = "another object stands where this one was to be put" if code in _TAKEN else code
            raise unkept(f"s3://{self._bucket}/{key}", told)

    def last(self) -> Head | None:
        """See Place. A listing for each process would cost more than it tells."""
        return None

    def read(self) -> Iterator[Kept]:
        """See Place. Of each object the version that was put first: what came later is told as a fault, and not read."""
        for key, version, fault in self._versions():
            answer, code = self._try("get_object", Bucket=self._bucket, Key=key, **version)
            if code is not None:
                raise unkept(f"s3://{self._bucket}/{key}", f"can not be read: {code}")
            text: str = answer["Body"].read().decode("utf-8", "replace")
            for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
                whole = number <= text.count("\n")
                yield Kept(f"s3://{self._bucket}/{key}:{number}", line + "\n" * whole, fault if number == 1 else "")

    def _versions(self) -> Iterator[tuple[str, dict[str, str], str]]:
        """Each key with its first version, and what has become of it since."""
        more: dict[str, Any] = {}
        first: dict[str, dict[str, Any]] = {}
        hidden: dict[str, str] = {}
        while True:
            page, code = self._try("list_object_versions", Bucket=self._bucket, Prefix=self._folder, **more)
            if code is not None:
                raise unkept(self.name, f"can not be listed: {code}")
            for version in page.get("Versions", ()):
                key, known = version["Key"], first.get(version["Key"])
                if known is not None:
                    hidden[key] = "was written over; what was there first is read"
                if known is None or version["LastModified"] <= known["LastModified"]:  # newest first within a key
                    first[key] = version
            for marker in page.get("DeleteMarkers", ()):
                hidden[marker["Key"]] = "was deleted; what was there is read"
            if not page.get("IsTruncated"):
                break
            more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
        for key in sorted(first):
            version_id = first[key].get("VersionId", "null")
            yield key, {} if version_id == "null" else {"VersionId": version_id}, hidden.get(key, "")

    def _get(self, key: str) -> bytes | None:
        answer, code = self._try("get_object", Bucket=self._bucket, Key=key)
        return None if code is not None else bytes(answer["Body"].read())

    def _try(self, operation: str, **parameters: Any) -> tuple[Any, str | None]:
        """The answer, or why there is none: what the SDK raises would hold the request."""
        client = self._ready()
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with the client

        try:
            return getattr(client, operation)(**parameters), None
        except ClientError as error:
            return None, str(error.response.get("Error", {}).get("Code", "no reason is known"))
        except BotoCoreError as error:
            return None, f"no answer ({type(error).__name__})"

    def _ready(self) -> Any:
        with self._opening:
            if self._client is None:
                self._client = client("s3", self._region, self._endpoint_url, self.name)
            return self._client


def client(service: str, region: str | None, endpoint_url: str | None, name: str) -> Any:
    """A client of AWS, with the credentials of the SDK's own chain.

    Raises:
        Trouble: there is no region, or a profile that is not there.
    """
    import boto3  # noqa: PLC0415 - 0.3 s; only where a trail goes to AWS
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    made: Any = boto3.session.Session
    try:
        return made().client(service, region_name=region, endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        told = f"{type(error).__name__}: no client of AWS can be made; see region and profile"
    raise unkept(name, told)
