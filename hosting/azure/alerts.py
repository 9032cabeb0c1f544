"""What somebody is called for, and whom: searches of the app's log, each of which tells the action group.

The app has no metrics of Keyturn's: its log has a line for each run and each event (docs/functions.md, "The log"), and the platform
one for each invocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_azure_native as azure

_LINE: Final = "traces | extend line = parse_json(message)"


@dataclass(frozen=True, slots=True)
class Search:
    """An alert: rows of a search within a time."""

    name: str
    query: str
    minutes: int
    """One of the windows that Azure takes."""
    says: str
    severity: int
    """0 critical to 4 verbose."""
    absent: bool = False
    """That there is no row is what is wrong."""


def searches(every: int) -> tuple[Search, ...]:
    """Parameters: every: minutes between two sweeps."""
    longer = 30 if every <= 10 else 120
    return (
        Search(
            "no-sweep",
            "requests | where name == 'sweep'",
            longer,
            "No sweep ran: nothing is rotated, and the other alerts see nothing.",
            0,
            absent=True,
        ),
        Search(
            "sweeps-fail",
            "requests | where name == 'sweep' | summarize runs = count(), failed = countif(success == false)"
            " | where runs > 1 and failed == runs",
            longer,
            "Every sweep failed, or left something that did. The log says what.",
            1,
        ),
        Search(
            "unproven",
            f"{_LINE} | where tostring(line.ended) == 'unproven'"
            " | summarize seen = count() by secret = tostring(line.secret) | where seen > 2",
            longer,
            "A revoked or leaked credential is not shown dead. Revoke it at its issuer by hand if it leaked.",
            0,
        ),
        Search(
            "rotations-fail",
            f"{_LINE} | where tostring(line.ended) == 'failed'"
            " | summarize seen = count() by secret = tostring(line.secret) | where seen > 2",
            longer,
            "Three runs of a secret failed. Its consumers have the last good credential.",
            1,
        ),
        Search(
            "overdue",
            f"{_LINE} | where tostring(line.kind) == 'Microsoft.KeyVault.SecretExpired'",
            longer,
            "A credential expired: its rotation is a month late. `keyturn status` says what it waits for.",
            1,
        ),
        Search(
            "messages-fail",
            "requests | where name == 'run' and success == false | summarize failed = count() | where failed > 4",
            longer,
            "Messages fail again and again, and go to keyturn-runs-poison. The log says why; each sweep tries besides.",
            2,
        ),
    )


class Alerts(pulumi.ComponentResource):
    """The alerts of one environment, and the group of owners whom they tell."""

    def __init__(
        self,
        name: str,
        where: pulumi.Input[str],
        insights: azure.applicationinsights.Component,
        owners: list[str],
        every: int,
        tags: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keyturn:azure:Alerts", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        self.group: Final = azure.monitor.ActionGroup(
            name,
            action_group_name=f"{name}-owners",
            group_short_name="keyturn",
            resource_group_name=where,
            location="Global",
            enabled=True,
            email_receivers=[
                azure.monitor.MicrosoftCommonEmailReceiverArgs(
                    name=f"owner-{number}", email_address=owner, use_common_alert_schema=True
                )
                for number, owner in enumerate(owners)
            ],
            tags=tags,
            opts=below,
        )
        for search in searches(every):
            azure.monitor.ScheduledQueryRule(
                f"{name}-{search.name}",
                rule_name=f"{name}-{search.name}",
                display_name=f"Keyturn: {search.name}",
                description=search.says,
                resource_group_name=where,
                kind=azure.monitor.Kind.LOG_ALERT,
                scopes=[insights.id],
                severity=search.severity,
                enabled=True,
                auto_mitigate=True,
                evaluation_frequency=f"PT{min(search.minutes, 15)}M",
                window_size=f"PT{search.minutes}M" if search.minutes < 60 else f"PT{search.minutes // 60}H",
                criteria=azure.monitor.ScheduledQueryRuleCriteriaArgs(
                    all_of=[
                        azure.monitor.ConditionArgs(
                            criterion_type=azure.monitor.CriterionType.STATIC_THRESHOLD_CRITERION,
                            query=search.query,
                            time_aggregation=azure.monitor.TimeAggregation.COUNT,
                            # In words: the enumeration of the package by this name is of another API.
                            operator="LessThan" if search.absent else "GreaterThan",
                            threshold=1 if search.absent else 0,
                            failing_periods=azure.monitor.ConditionFailingPeriodsArgs(
                                number_of_evaluation_periods=1, min_failing_periods_to_alert=1
                            ),
                        )
                    ]
                ),
                actions=azure.monitor.ActionsArgs(action_groups=[self.group.id]),
                tags=tags,
                opts=below,
            )
        self.register_outputs({})
