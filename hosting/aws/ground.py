"""What the function stands on: a key, the log, two queues and the topic, each encrypted with the key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import rights

TIMES: Final = 5
"""How often a message is tried before it is laid aside."""
_DAYS: Final = 14
_DAY: Final = 86_400
_VISIBLE: Final = 6
"""Times the function's timeout: how long a message that was taken is hidden from others ("Configuring a queue to use with
Lambda", Lambda developer guide)."""


class Ground(pulumi.ComponentResource):
    """Everything that is there before the function, and stays when it goes.

    Parameters:
        key: ARN of a key that is there; None makes one.
        owners: mail addresses.
    """

    def __init__(
        self,
        name: str,
        *,
        region: str,
        account: str,
        key: str | None,
        log_days: int,
        timeout: int,
        owners: Sequence[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("keyturn:aws:Ground", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        # Gone, they take the audit trail with them: what was logged, and what it can be read with.
        kept = pulumi.ResourceOptions(parent=self, protect=True)
        log = f"/aws/lambda/{name}"
        self.key: Final[pulumi.Output[str]] = (
            pulumi.Output.from_input(key)
            if key
            else aws.kms.Key(
                name,
                description=f"Log, queues and topic of {name}. No secret is encrypted with it.",
                enable_key_rotation=True,
                deletion_window_in_days=30,
                policy=json.dumps({"Version": "2012-10-17", "Statement": key_policy(region, account, log)}),
                opts=kept,
            ).arn
        )
        self.log: Final = aws.cloudwatch.LogGroup(
            name, name=log, retention_in_days=log_days, kms_key_id=self.key, opts=kept
        )
        self.dead: Final = aws.sqs.Queue(
            f"{name}-dead",
            name=f"{name}-dead",
            message_retention_seconds=_DAYS * _DAY,
            kms_master_key_id=self.key,
            opts=below,
        )
        self.work: Final = aws.sqs.Queue(
            f"{name}-work",
            name=f"{name}-work",
            visibility_timeout_seconds=_VISIBLE * timeout,
            message_retention_seconds=_DAY,  # a sweep finds anew what is older
            kms_master_key_id=self.key,
            redrive_policy=pulumi.Output.json_dumps({"deadLetterTargetArn": self.dead.arn, "maxReceiveCount": TIMES}),
            opts=below,
        )
        aws.sqs.RedriveAllowPolicy(
            name,
            queue_url=self.dead.id,
            redrive_allow_policy=pulumi.Output.json_dumps(
                {"redrivePermission": "byQueue", "sourceQueueArns": [self.work.arn]}
            ),
            opts=below,
        )
        self.topic: Final = aws.sns.Topic(
            f"{name}-owners", name=f"{name}-owners", kms_master_key_id=self.key, opts=below
        )
        alarms = {
            "Sid": "Alarms",
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": self.topic.arn,
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }
        aws.sns.TopicPolicy(name, arn=self.topic.arn, policy=rights.text(alarms), opts=below)
        for number, owner in enumerate(owners):
            aws.sns.TopicSubscription(
                f"{name}-{number}", topic=self.topic.arn, protocol="email", endpoint=owner, opts=below
            )
        self.register_outputs({})


def key_policy(region: str, account: str, log: str) -> list[dict[str, Any]]:
    """Who may use a key of log, queues and topic. In a key's policy `*` stands for that key.

    A key of one's own (`key`) needs the second and third statement. What the function does with queues and topic, its own
    policy says, which the first statement lets count.
    """
    source = {"StringEquals": {"aws:SourceAccount": account}}
    group = {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{region}:{account}:log-group:{log}"}}
    return [
        _use("Account", {"AWS": f"arn:aws:iam::{account}:root"}, ["kms:*"]),
        _use("Log", {"Service": f"logs.{region}.amazonaws.com"}, [*_BOTH, "kms:DescribeKey"], group),
        _use("Alarms", {"Service": "cloudwatch.amazonaws.com"}, [*_BOTH], source),
    ]


_BOTH: Final = ("kms:Decrypt", "kms:GenerateDataKey*")


def _use(sid: str, who: dict[str, str], actions: list[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Principal": who, "Action": actions, "Resource": "*"}
    return found | ({"Condition": condition} if condition else {})
