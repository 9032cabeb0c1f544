"""What somebody is called for, and whom: CloudWatch's alarms, each of which tells the topic when it begins and when it ends.

Of what Keyturn measures (namespace `Keyturn`, docs/observability.md) an alarm asks by a query over all secrets: there may be
a hundred thousand, and those that are added are covered at once. Thresholds and times are those of
deploy/prometheus/keyturn.rules.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from rotation.functions.emf import NAMESPACE

PERIOD: Final = 300
"""Seconds, where sweeps are not further apart."""
AT_LEAST: Final = "GreaterThanOrEqualToThreshold"
ABOVE: Final = "GreaterThanThreshold"
BELOW: Final = "LessThanThreshold"


@dataclass(frozen=True, slots=True)
class Asked:
    """An alarm on what Keyturn measures."""

    name: str
    chosen: str
    """What is asked of all secrets, as Metrics Insights has it."""
    where: str
    comparison: str
    threshold: float
    minutes: int
    says: str
    silence: str = "notBreaching"
    """What it means that nothing was measured: a secret with nothing to do is not looked at in each sweep."""


ASKED: Final = (
    Asked(
        "overdue",
        "MAX(keyturn_secret_overdue_seconds)",
        "",
        ABOVE,
        3600,
        15,
        "A secret should have been rotated more than an hour ago. `keyturn status` says what it waits for.",
    ),
    Asked(
        "failing",
        "MAX(keyturn_secret_failed_rotations)",
        "",
        AT_LEAST,
        3,
        5,
        "Three rotations of a secret failed in a row. Its consumers have the last good credential.",
    ),
    Asked(
        "unproven",
        "MAX(keyturn_secret_unproven_keys)",
        "",
        ABOVE,
        0,
        15,
        "A revoked or leaked credential is not shown dead. Revoke it at its issuer by hand if it leaked.",
    ),
    Asked(
        "condemned",
        "MAX(keyturn_secret_phase)",
        "phase = 'condemned'",
        AT_LEAST,
        1,
        15,
        "A secret hands out a credential that is to be dead. `keyturn emergency` goes on with it now.",
    ),
    Asked(
        "held",
        "MAX(keyturn_secret_held)",
        "",
        AT_LEAST,
        1,
        30,
        "A secret is held: only a change outside helps. `keyturn status` says which.",
    ),
    Asked(
        "no-sweep",
        "SUM(keyturn_sweeps_total)",
        "",
        BELOW,
        1,
        30,
        "No sweep ended in half an hour: nothing is rotated, and the other alarms see nothing.",
        silence="breaching",
    ),
)


class Alarms(pulumi.ComponentResource):
    """The alarms of one environment.

    Parameters:
        every: seconds between two sweeps.
    """

    def __init__(
        self,
        name: str,
        environment: str,
        topic: aws.sns.Topic,
        function: aws.lambda_.Function,
        work: aws.sqs.Queue,
        dead: aws.sqs.Queue,
        every: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("keyturn:aws:Alarms", name, None, opts)
        self._title: Final = name
        self._topic: Final = topic
        # A period without a sweep has no reading, and would pass for one in which all was well.
        self._period: Final = max(PERIOD, every)
        for asked in ASKED:
            self._ask(asked, environment)
        queue, backlog = "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"
        says = "What nobody could do waits in the dead-letter queue. The log says why; each sweep tries again besides."
        self._watch("dead-letters", "AWS/SQS", queue, {"QueueName": dead.name}, "Maximum", 0, 1, says)
        says = "Messages wait for half an hour: more workers, or a store that is slow."
        self._watch("backlog", "AWS/SQS", backlog, {"QueueName": work.name}, "Maximum", 1800, 3, says)
        says = "Every sweep of a quarter of an hour failed, or left something that did. The log says what."
        self._watch("errors", "AWS/Lambda", "Errors", {"FunctionName": function.name}, "Sum", 0, 3, says)
        self.register_outputs({})

    def _ask(self, asked: Asked, environment: str) -> None:
        where = " AND ".join(filter(None, (f"environment = '{environment}'", asked.where)))
        # A gauge has to be so in every period; of the sweeps one has to be counted in the whole time.
        whole = asked.silence == "breaching"
        seconds = max(asked.minutes * 60, 3 * self._period) if whole else asked.minutes * 60
        self._alarm(
            asked.name,
            asked.says,
            metric_queries=[
                aws.cloudwatch.MetricAlarmMetricQueryArgs(
                    id="q",
                    label=asked.name,
                    period=seconds if whole else self._period,
                    # Nobody's words but ours, and a name that was checked.
                    expression=f'SELECT {asked.chosen} FROM "{NAMESPACE}" WHERE {where}',  # noqa: S608
                    return_data=True,
                )
            ],
            comparison_operator=asked.comparison,
            threshold=asked.threshold,
            evaluation_periods=1 if whole else max(1, seconds // self._period),
            treat_missing_data=asked.silence,
        )

    def _watch(
        self,
        part: str,
        namespace: str,
        metric: str,
        dimensions: dict[str, pulumi.Input[str]],
        statistic: str,
        above: float,
        periods: int,
        says: str,
    ) -> None:
        self._alarm(
            part,
            says,
            namespace=namespace,
            metric_name=metric,
            dimensions=dimensions,
            statistic=statistic,
            period=self._period,
            comparison_operator=ABOVE,
            threshold=above,
            evaluation_periods=periods,
            treat_missing_data="notBreaching",
        )

    def _alarm(self, part: str, says: str, **how: Any) -> None:
        aws.cloudwatch.MetricAlarm(
            f"{self._title}-{part}",
            name=f"{self._title}-{part}",
            alarm_description=says,
            alarm_actions=[self._topic.arn],
            ok_actions=[self._topic.arn],
            opts=pulumi.ResourceOptions(parent=self),
            **how,
        )
