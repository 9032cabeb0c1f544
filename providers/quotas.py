"""What the services allow, as they document it, and what they count together. Others share it, so we take a part.

Facts from "AWS Secrets Manager quotas" (per account and region), "Azure Key Vault service limits" (per vault and region,
in 10 seconds) and the API references. Vault and OpenBao have no limit of their own ("Resource quotas" are an operator's), and of
issuers none that holds for all: there the pace is what 32 calls side by side come to, until the service refuses. A stack
file may say less of each (`callsPerSecond`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Final

from rotation.pacing import EVERY, Quota

if TYPE_CHECKING:
    from rotation.sections import IssuerConfig, StoreConfig

SHARE: Final = 0.8
"""Of a documented quota that we take at most: applications read from the same vaults."""
OPEN: Final = 500.0
"""Calls a second where nothing is documented."""

_WRITES: Final = {"stage": 1.5, "promote": 1.5, "discard": 1.0, "create": 1.0}
_TAGS: Final = {"record": 1.0, "forget": 1.0, "set_policy": 2.0, "create": 1.0}
_KEY_VAULT_READS: Final[Mapping[str, float]] = {
    "observe": 6.0,
    "stage": 2.0,
    "promote": 4.0,
    "record": 2.0,
    "forget": 2.0,
}


def _quota(name: str, per_second: float, costs: Mapping[str, float]) -> Quota:
    ours = per_second * SHARE
    return Quota(name, ours, max(ours, 1.0), costs)


SECRETS_MANAGER: Final = (
    # PutSecretValue, UpdateSecretVersionStage and what creates entries: 50 a second in all.
    _quota("writes", 50, _WRITES),
    # TagResource and UntagResource. The pages do not tell a number; the same as of other writes is taken.
    _quota("tags", 50, _TAGS),
    _quota("rotations", 50, {"start_rotation": 1.0, "set_rotation": 1.0}),
    # GetSecretValue and DescribeSecret have 10,000 and more; BatchGetSecretValue 100.
    _quota("reads", 10_000, {"observe": 1.0, "read": 1.0, "current": 1.0, "applied": 1.0, "find": 1.0}),
    _quota("batches", 100, {"read_many": 1.0}),
)
KEY_VAULT: Final = (
    # 300 creations of a version, and 4,000 other transactions, in 10 seconds.
    _quota(
        "creations",
        30,
        dict.fromkeys(("stage", "promote", "discard", "record", "forget", "set_policy", "create"), 1.0),
    ),
    _quota("transactions", 400, {**_KEY_VAULT_READS, EVERY: 1.0}),
)


def of_store(about: StoreConfig) -> tuple[Hashable, tuple[Quota, ...]]:
    """The place that a store's calls are counted at, and the quotas there."""
    said = about.calls_per_second
    match about.kind:
        case "aws-secrets-manager":
            # An account is known by what leads into it: the role, or the profile.
            place = ("aws", about.region, about.endpoint_url, about.role_arn, about.profile)
            return place, (*SECRETS_MANAGER, *_at_most(said))
        case "azure-key-vault":
            return ("azure", about.vault_url), (*KEY_VAULT, *_at_most(said))
        case "hashicorp-vault":
            return ("vault", about.address), _at_most(said or OPEN)


def of_issuer(name: str, about: IssuerConfig) -> tuple[Hashable, tuple[Quota, ...]]:
    """The same of an issuer."""
    match about.kind:
        case "generated" | "passphrase" | "key-pair":
            said = None  # nobody is called
        case _:
            said = about.calls_per_second or OPEN
    return ("issuer", name, about.kind), _at_most(said)


def _at_most(per_second: float | None) -> tuple[Quota, ...]:
    """All calls together; stores of one place that say the same share it."""
    return (Quota(f"at most {per_second:g}", per_second, max(per_second, 1.0)),) if per_second else ()
