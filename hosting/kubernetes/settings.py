"""Every setting of this program, with its default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from providers.pulumi import settings

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Settings(settings.Settings):
    """Of a stack of this program."""

    image: Annotated[str, StringConstraints(pattern=r"^\S+(:[\w.-]+|@sha256:[0-9a-f]{64})$")] = Field(
        description="an image of Keyturn, by tag or digest; running.md says how it is made"
    )
    namespace: Name = Field("keyturn", description="of its own: all of it is denied whatever is not named")
    sweep_every: int = Field(5, ge=1, le=30, description="minutes")
    aws_role: Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:role/\S+$")] | None = Field(
        None, description="the role that the service account acts as in AWS (IRSA)"
    )
    azure_client: str | None = Field(
        None, description="the client id of the managed identity that it acts as in Azure (workload identity)"
    )
    vault_audience: str = Field("vault", description="whom the token for Vault's `kubernetes` or `jwt` method is for")
    credentials: Name | None = Field(
        None, description="a Secret that is there, whose files are logins of the names that the stack file looks up"
    )
    egress: list[str] = Field(["0.0.0.0/0"], description="ranges that stores and issuers are in")
    storage: str = Field("1Gi", description="room for the audit trail")
    storage_class: str | None = Field(None, description="of that volume; the cluster's own when not given")
    memory: str = Field("512Mi", description="the most that a sweep may take")
