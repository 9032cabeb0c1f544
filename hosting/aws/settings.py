"""Every setting of this program, with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from providers.pulumi import settings


class Network(settings.Part):
    """A network of its own, from which everything leaves by addresses that do not change."""

    cidr: str = Field(
        "10.98.0.0/20", description="its IPv4 range, of 20 bits or fewer, which meets none that it is joined to"
    )
    zones: int = Field(2, ge=1, le=3, description="availability zones that the function runs in")
    addresses: int = Field(
        1, ge=1, le=3, description="NAT gateways, each with an address; with fewer than zones, zones share one"
    )
    endpoints: bool = Field(
        default=True, description="reach Secrets Manager, SQS, KMS, STS, SNS and the logs inside AWS, by VPC endpoints"
    )


class Settings(settings.Settings):
    """Of a stack of this program."""

    package: Path = Field(Path("../../build/keyturn-lambda.zip"), description="what `make lambda STACK=…` has built")
    architecture: Literal["x86_64", "arm64"] = Field(
        "x86_64", description="of what the package was built on, if that matters"
    )
    runtime: Literal["python3.11", "python3.12", "python3.13", "python3.14"] | None = Field(
        None, description="the version that compiled parts of the package are for; python3.13 where it has none"
    )
    memory: int = Field(256, ge=128, le=10240, description="MB")
    timeout: int = Field(900, ge=120, le=900, description="seconds that a sweep may take")
    sweep_every: int = Field(5, ge=1, le=30, description="minutes between two sweeps, or two looks of a fleet")
    fleet: bool = Field(
        default=False, description="sweeps only look round, and the queue has the work done; see fleets.md"
    )
    workers: int = Field(5, ge=2, le=1000, description="invocations at once that take messages from the queue")
    log_level: Literal["DEBUG", "INFO", "WARNING"] = Field("INFO", description="of the log; DEBUG tells every call")
    log_days: Annotated[Literal[90, 180, 365, 400, 545, 731, 1096, 1827, 3653], settings.WHOLE] = Field(
        400, description="how long the log is kept; the audit trail is in it, unless `keyturn:audit` says otherwise"
    )
    key: str | None = Field(
        None,
        description="the ARN of a KMS key for log, queues and topic, whose policy lets these use it; else one is made",
    )
    owners: list[str] = Field([], description="mail addresses that alarms and notices go to; each confirms once")
    make_role: bool = Field(
        default=True, description="make the role that the stack file names (`roleArn`), where it is of this account"
    )
    trusted: list[str] = Field([], description="ARNs of further principals that may assume that role")
    network: Network | None = Field(None, description="`{}` for a network with all defaults; without it AWS's own")
