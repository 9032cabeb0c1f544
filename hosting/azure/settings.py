"""Every setting of this program, with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from providers.pulumi import settings

Reference = Annotated[str, StringConstraints(pattern=r"^https://[a-z0-9-]+\.vault\.azure\.net/secrets/[0-9A-Za-z-]+$")]


class Network(settings.Part):
    """A network of its own, from which everything leaves by one address that does not change."""

    cidr: str = Field("10.98.0.0/24", description="its IPv4 range, all of which the app's instances take")


class Settings(settings.Settings):
    """Of a stack of this program."""

    vault_group: Annotated[str, StringConstraints(pattern=r"^/subscriptions/[^/]+/resourceGroups/[^/]+$")] = Field(
        description="the id of the resource group of the vaults, as for `keyturn policy azure --resource-group`"
    )
    vault_location: str | None = Field(None, description="the region of the vaults; the app's own when not given")
    package: Path = Field(
        Path("../../build/keyturn-functions.zip"), description="what `make functions STACK=…` has built"
    )
    python: Literal["3.11", "3.12", "3.13"] = Field("3.12", description="the version of the app's Python")
    memory: Annotated[Literal[512, 2048, 4096], settings.WHOLE] = Field(2048, description="MB of an instance")
    instances: int = Field(40, ge=1, le=1000, description="the most instances at once")
    sweep_every: Annotated[Literal[1, 2, 5, 10, 15, 20, 30], settings.WHOLE] = Field(
        5, description="minutes between two sweeps, or two looks of a fleet"
    )
    fleet: bool = Field(
        default=False, description="sweeps only look round, and the queue has the work done; see fleets.md"
    )
    events: bool = Field(
        default=True,
        description="subscribe to the vaults; without, for vaults that have a system topic of Event Grid already",
    )
    references: dict[str, Reference] = Field(
        {}, description="logins by variable: `https://VAULT.vault.azure.net/secrets/NAME`, of a vault in vaultGroup"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING"] = Field("INFO", description="of the log; DEBUG tells every call")
    log_days: int = Field(
        400,
        ge=30,
        le=730,
        description="how long the log is kept; the audit trail is in it, unless `keyturn:audit` says otherwise",
    )
    redundancy: Literal["LRS", "ZRS", "GRS"] = Field("ZRS", description="of the app's storage account")
    owners: list[str] = Field([], description="mail addresses that alerts go to")
    network: Network | None = Field(None, description="`{}` for a network with all defaults; without it Azure's own")
