"""The function itself: its package, its own rights, and who calls it: the schedule, the queue, and Secrets Manager."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import rights
from ground import Ground
from network import Private
from settings import Settings

from providers.pulumi.settings import fail
from providers.registry import descriptions
from rotation.config import Config, SecretsManagerConfig
from rotation.functions.lambda_host import PACKED, QUEUE
from rotation.packed import pack

HANDLER: Final = "rotation.functions.aws_lambda.handler"
BATCH: Final = 1
"""Messages of one invocation: each names as many secrets as an invocation has time for."""
_COMPILED: Final = re.compile(r"\.cpython-3(\d+)-")
_NETWORK: Final = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
"""What Lambda itself needs in order to put a function into a network; it takes no narrower resource ("Giving Lambda functions
access to resources in an Amazon VPC", Lambda developer guide)."""


def native(config: Config) -> str | None:
    """The ARN of the function that stores of the stack have Secrets Manager call, where they do."""
    stores = [about for about in config.stores.values() if isinstance(about, SecretsManagerConfig)]
    return next((about.rotation_function for about in stores if about.rotation_function), None)


def runtime(package: Path, config: Config, wanted: str | None) -> str:
    """What the package runs on. Ends the program where it is absent, of another stack file, or of another Python."""
    if not package.is_file():
        fail(f"there is no package {package}: build it with `make lambda STACK={pulumi.get_stack()}`")
    with zipfile.ZipFile(package) as archive:
        names, packed = archive.namelist(), archive.read(PACKED).decode()
    if packed != pack(config, descriptions(config)):
        fail(f"{package} was built from another stack file: build it again, or the rights would not be what it needs")
    found = {f"python3.{minor[1]}" for name in names if (minor := _COMPILED.search(name))}
    if len(found) > 1 or (wanted and found - {wanted}):
        fail(
            f"{package} has parts that are compiled for {' and '.join(sorted(found))}, and the runtime is {wanted or 'one'}"
        )
    return wanted or next(iter(found), "python3.13")


class Keyturn(pulumi.ComponentResource):
    """The function and its callers."""

    def __init__(
        self,
        name: str,
        config: Config,
        about: Settings,
        rotates: rights.Rotates,
        ground: Ground,
        private: Private | None,
        account: str,
        runs_on: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("keyturn:aws:Keyturn", name, None, opts)
        self._below: Final = pulumi.ResourceOptions(parent=self)
        called = native(config)
        variables: dict[str, pulumi.Input[str]] = {"KEYTURN_LOG_LEVEL": about.log_level, **about.environment}
        if about.fleet:
            variables[QUEUE] = ground.work.id
        own = aws.iam.RolePolicy(
            name,
            name="surroundings",
            role=rotates.own.id,
            policy=rights.text(
                *surroundings(config, ground, rotates.assumed, fleet=about.fleet, private=bool(private))
            ),
            opts=self._below,
        )
        self.function: Final = aws.lambda_.Function(
            name,
            name=called.split(":")[6] if called else name,
            description="Rotates secrets, and proves the old ones dead.",
            code=pulumi.FileArchive(str(about.package)),
            handler=HANDLER,
            runtime=runs_on,
            architectures=[about.architecture],
            memory_size=about.memory,
            timeout=about.timeout,
            role=rotates.own.arn,
            kms_key_arn=ground.key,
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=variables),
            logging_config=aws.lambda_.FunctionLoggingConfigArgs(log_format="Text", log_group=ground.log.name),
            vpc_config=aws.lambda_.FunctionVpcConfigArgs(
                subnet_ids=[subnet.id for subnet in private.subnets], security_group_ids=[private.group.id]
            )
            if private
            else None,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[own, *rotates.granted]),
        )
        # The next sweep is the retry; Secrets Manager tries by itself.
        aws.lambda_.FunctionEventInvokeConfig(
            name,
            function_name=self.function.name,
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=max(60, 60 * about.sweep_every),
            opts=self._below,
        )
        aws.lambda_.EventSourceMapping(
            name,
            event_source_arn=ground.work.arn,
            function_name=self.function.arn,
            batch_size=BATCH,
            function_response_types=["ReportBatchItemFailures"],
            scaling_config=aws.lambda_.EventSourceMappingScalingConfigArgs(maximum_concurrency=about.workers),
            opts=self._below,
        )
        if called:
            aws.lambda_.Permission(
                f"{name}-secretsmanager",
                action="lambda:InvokeFunction",
                function=self.function.name,
                principal="secretsmanager.amazonaws.com",
                source_account=account,
                opts=self._below,
            )
        self._schedule(name, about, ground, account)
        self.register_outputs({"function": self.function.arn})

    def _schedule(self, name: str, about: Settings, ground: Ground, account: str) -> None:
        role = aws.iam.Role(
            f"{name}-schedule",
            name=f"{name}-schedule",
            description="Lets EventBridge Scheduler call Keyturn's function, and nothing else.",
            assume_role_policy=rights.text(rights.service("scheduler", account)),
            opts=self._below,
        )
        may = aws.iam.RolePolicy(
            f"{name}-schedule",
            name="call",
            role=role.id,
            policy=rights.text(
                rights.allow("Call", ["lambda:InvokeFunction"], self.function.arn),
                rights.allow("LayAside", ["sqs:SendMessage"], ground.dead.arn),
                rights.allow("Key", ["kms:Decrypt", "kms:GenerateDataKey"], ground.key),
            ),
            opts=self._below,
        )
        group = aws.scheduler.ScheduleGroup(name, name=name, opts=self._below)
        aws.scheduler.Schedule(
            name,
            name="sweep",
            group_name=group.name,
            description="The sweep. One that is missed is made up for by the next.",
            schedule_expression=f"rate({about.sweep_every} minute{'s' if about.sweep_every > 1 else ''})",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=self.function.arn,
                role_arn=role.arn,
                input=json.dumps({"keyturn": "dispatch" if about.fleet else "sweep"}),
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_retry_attempts=3, maximum_event_age_in_seconds=max(60, 60 * about.sweep_every)
                ),
                dead_letter_config=aws.scheduler.ScheduleTargetDeadLetterConfigArgs(arn=ground.dead.arn),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[may]),
        )


def surroundings(
    config: Config, ground: Ground, roles: Sequence[str], *, fleet: bool, private: bool
) -> list[Mapping[str, Any]]:
    """What the function may do besides rotating: write its log, take from its queue, tell owners, keep the audit trail."""
    work = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"]
    topics = [about.sns.arn for about in config.channels.values() if hasattr(about, "sns")]
    found = [
        rights.allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], pulumi.Output.concat(ground.log.arn, ":*")),
        rights.allow("Work", work + (["sqs:SendMessage"] if fleet else []), ground.work.arn),
        rights.allow("Tell", ["sns:Publish"], ground.topic.arn, *topics),
        rights.allow("Key", ["kms:Decrypt", "kms:GenerateDataKey"], ground.key),
        *_trail(config),
    ]
    if roles:
        found.append(rights.allow("Rotate", ["sts:AssumeRole"], *roles))
    if private:
        # Lambda does it, and the code may not: a call of the function's own bears its ARN.
        found.append(rights.allow("Network", _NETWORK, "*", Null={"lambda:SourceFunctionArn": "true"}))
    return found


def _trail(config: Config) -> list[Mapping[str, Any]]:
    """The rights that docs/audit.md lists, on the places that the stack file names."""
    found: list[Mapping[str, Any]] = []
    for number, place in enumerate(config.audit):
        if (bucket := getattr(place, "s3", None)) is not None:
            actions = ["s3:PutObject", "s3:GetObject"] + (["s3:PutObjectRetention"] if bucket.lock else [])
            found.append(rights.allow(f"Trail{number}", actions, f"arn:aws:s3:::{bucket.bucket}/{bucket.prefix}*"))
        if (group := getattr(place, "cloudwatch", None)) is not None:
            arn = f"arn:aws:logs:{group.region or '*'}:*:log-group:{group.group}:*"
            found.append(rights.allow(f"Trail{number}", ["logs:CreateLogStream", "logs:PutLogEvents"], arn))
    return found
