"""What Secrets Manager keeps: secrets, their versions and labels, their replicas and their rotation settings.

A staging label maps to one version id, so that a label on two versions, or a current version that is not the one
labelled AWSCURRENT, cannot be expressed. "Documented" and "Recorded" mean what they mean in `secretsmanager`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.aws.wire import ServiceError

CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"


@dataclass(frozen=True)
class RotationRequest:
    """What the service asks of a rotation function: it calls the function once for each step, in their order."""

    secret_arn: str
    region: str
    lambda_arn: str
    client_request_token: str
    """The id of the version that the rotation makes; registered as AWSPENDING, without a value, before the first call."""
    rotation_token: str = field(repr=False)
    steps: tuple[str, ...]
    """`createSecret`, `setSecret`, `testSecret`, `finishSecret`; `testSecret` alone when the rotation is to wait. The
    service then tests with a pending copy of the current value, which is gone when the hook has returned."""


@dataclass
class Version:
    """A version. Without a value it is only registered: RotateSecret does that before its function is called."""

    created: float
    string: str | None = field(default=None, repr=False)
    binary: str | None = field(default=None, repr=False)
    """Base64, as on the wire."""
    kms_key_id: str | None = None
    accessed: float | None = None

    @property
    def filled(self) -> bool:
        return self.string is not None or self.binary is not None


@dataclass
class Rotation:
    """A secret's rotation settings, which outlive their being switched off."""

    lambda_arn: str
    rules: dict[str, Any]
    enabled: bool = True
    last: float | None = None
    next: float | None = None


@dataclass
class ReplicaStatus:
    """How a primary sees one of its replicas."""

    region: str
    kms_key_id: str
    status: str
    message: str

    def as_dict(self, status: str | None = None) -> dict[str, str]:
        return {
            "Region": self.region,
            "KmsKeyId": self.kms_key_id,
            "Status": status or self.status,
            "StatusMessage": self.message,
        }


@dataclass
class Secret:
    """A secret in its primary region."""

    name: str
    arn: str
    region: str
    created: float
    changed: float
    description: str | None = None
    kms_key_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Staging label → version id: a label is on one version at a time."""
    rotation: Rotation | None = None
    deletion: float | None = None
    policy: str | None = None
    accessed: float | None = None
    replicas: dict[str, ReplicaStatus] = field(default_factory=dict)

    @property
    def primary(self) -> Secret:
        return self

    def stages(self, version_id: str) -> list[str]:
        # Recorded: stages are listed in alphabetical order.
        return sorted(label for label, holder in self.labels.items() if holder == version_id)

    def stages_by_version(self) -> dict[str, list[str]]:
        # Documented (DescribeSecret): only versions that have a staging label, also one without a value.
        return {version: stages for version in self.versions if (stages := self.stages(version))}

    def attach(self, label: str, version_id: str, now: float) -> None:
        """Puts a label on a version, wherever it was before."""
        previous = self.labels.get(label)
        if previous == version_id:
            return
        self.labels[label] = version_id
        if label == CURRENT:
            if self.labels.get(PREVIOUS) == version_id:
                del self.labels[PREVIOUS]
            if previous is not None:
                # Documented (UpdateSecretVersionStage, PutSecretValue): AWSPREVIOUS moves to the version that
                # AWSCURRENT was removed from.
                self.labels[PREVIOUS] = previous
                # Recorded: a pending label that stayed on the current version goes when AWSCURRENT leaves it.
                if self.labels.get(PENDING) == previous:
                    del self.labels[PENDING]
            if self.rotation and self.rotation.enabled:
                # Documented (RotationRulesType): updating the value by hand is considered a valid rotation.
                self.rotation.last = now
                self.rotation.next = next_rotation(self.rotation.rules, now)
        self.forget(previous)

    def detach(self, label: str) -> None:
        self.forget(self.labels.pop(label))

    def forget(self, version_id: str | None) -> None:
        """Drops a version that has neither label nor value; there is nothing in it to deprecate."""
        if version_id and not self.stages(version_id) and not self.versions[version_id].filled:
            del self.versions[version_id]


@dataclass
class Replica:
    """The read-only image of a primary secret in another region."""

    primary: Secret
    region: str
    arn: str

    @property
    def name(self) -> str:
        return self.primary.name

    deletion = None  # a primary with replicas cannot be deleted


Entry = Secret | Replica


def next_rotation(rules: dict[str, Any], now: float) -> float | None:
    """The end of the next rotation window.

    Documented (RotationRulesType): a window in days closes at the end of the UTC day, one in hours after an hour. A cron
    expression is kept but not computed: no date.
    """
    rate = re.fullmatch(r"rate\((\d+) (hour|day)s?\)", rules.get("ScheduleExpression", ""))
    if rate and rate[2] == "hour":
        return now + timedelta(hours=int(rate[1]) + 1).total_seconds()
    days = int(rate[1]) if rate else rules.get("AutomaticallyAfterDays")
    if days is None:
        return None
    return midnight(now) + timedelta(days=days + 1).total_seconds() - 1


def check_rules(rules: dict[str, Any]) -> None:
    expression = rules.get("ScheduleExpression")
    if expression is None:
        return
    if "AutomaticallyAfterDays" in rules:
        # Documented (RotationRulesType): one of the two, not both.
        raise ServiceError(
            "InvalidParameterException", "Specify either AutomaticallyAfterDays or ScheduleExpression, not both."
        )
    rate = re.fullmatch(r"rate\((\d+) (hour|day)s?\)", expression)
    hours = int(rate[1]) * (24 if rate[2] == "day" else 1) if rate else 0
    if not (rate and 4 <= hours <= 24_000) and not re.fullmatch(r"cron\(.+\)", expression):
        # Documented (RotationRulesType): as often as every four hours; 1,000 days at most.
        raise ServiceError("InvalidParameterException", f"The schedule expression {expression!r} is not valid.")


def midnight(moment: float) -> float:
    # Documented (SecretVersionsListEntry): access is recorded by the day.
    return datetime.fromtimestamp(moment, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
