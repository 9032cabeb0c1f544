"""From a configuration to the places of its trail. Each kind loads its SDK when it is first written to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rotation import extras
from rotation.audit.files import FilePlace, StreamPlace
from rotation.audit.trail import ChainedAuditor, Place, Surroundings
from rotation.declared import Config, ConfigError, Fault
from rotation.ports import Clock
from rotation.telemetry import NONE, Telemetry

if TYPE_CHECKING:
    from rotation.sections import AuditPlace

VARIABLE: Final = "KEYTURN_AUDIT_FILE"
"""Names a file in place of those that the configuration names."""


def open_trail(
    config: Config,
    env: Mapping[str, str],
    *,
    folder: Path,
    host: Literal["disk", "console"] = "disk",
    surroundings: Surroundings | None = None,
    telemetry: Telemetry = NONE,
    clock: Clock | None = None,
) -> ChainedAuditor:
    """The trail of a stack. Opens no connection and no file.

    Parameters:
        env: for VARIABLE.
        folder: the working directory; the trail is `.keyturn/audit/<environment>.jsonl` there when nothing
            else is said.
        host: `console` for one whose disk does not outlive it: standard output stands for a file of the configuration.

    Raises:
        ConfigError: a place is at AWS, whose SDK is not installed.
    """
    declared = [place for place in config.audit if place.keeps == "records"]
    named, console = env.get(VARIABLE), host == "console"
    records: list[Place] = [FilePlace(Path(named))] if named else []
    printed = False
    for place in declared:
        on_disk = _part(place, "file") is not None
        if on_disk and named:
            continue
        if _part(place, "stream") is not None or (on_disk and console):
            printed = True
        else:
            records.append(_place(place, config))
    if not records and not printed:
        printed = console
        if not console:
            records.append(FilePlace(folder / ".keyturn" / "audit" / f"{config.environment}.jsonl"))
    if printed:
        records.append(StreamPlace(sys.stdout))
    anchors = [place for place in config.audit if place.keeps == "anchors"]
    if console:
        anchors = [place for place in anchors if _part(place, "file") is None]
    return ChainedAuditor(
        records,
        [_place(place, config) for place in anchors],
        installation=config.installation,
        environment=config.environment,
        surroundings=surroundings,
        telemetry=telemetry,
        clock=clock,
    )


def _place(about: AuditPlace, config: Config) -> Place:
    folder = f"{config.environment}/{about.keeps}"
    at_aws = any(_part(about, kind) is not None for kind in ("s3", "cloudwatch"))
    if at_aws and (lacking := extras.lacking(("boto3",))) is not None:
        raise ConfigError([Fault("keyturn:audit", lacking)])
    if (s3 := _part(about, "s3")) is not None:
        from rotation.audit.s3 import S3Place  # noqa: PLC0415 - where there is one

        lock = None if s3.lock is None else (s3.lock.mode, s3.lock.days)
        at: dict[str, Any] = {"region": s3.region, "endpoint_url": s3.endpoint_url, "prefix": s3.prefix}
        return S3Place(s3.bucket, folder, lock=lock, **at)
    if (logs := _part(about, "cloudwatch")) is not None:
        from rotation.audit.cloudwatch import CloudWatchPlace  # noqa: PLC0415 - where there is one

        return CloudWatchPlace(logs.group, folder, region=logs.region, endpoint_url=logs.endpoint_url)
    if (path := _part(about, "file")) is not None:
        return FilePlace(config.root / path)
    return StreamPlace(sys.stdout)


def _part(about: AuditPlace, name: str) -> Any:
    """What tells the kind of a place, when it is of that kind. One that was packed is of no class of ours."""
    return getattr(about, name, None)
