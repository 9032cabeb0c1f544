"""hosting/aws: what `pulumi up` would ask AWS for."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.iam.policy_validation import IAMPolicyDocumentValidator
from typer.testing import CliRunner

from hosting.packages import archive
from hosting.packages import aws as package
from rotation.cli.main import app
from rotation.functions.lambda_host import PACKED
from rotation.observe import board, instruments
from tests.hosting.packages import ROOT
from tests.hosting.programs import CANARY, Graph, run

pytestmark = pytest.mark.xdist_group("hosting")
"""One worker: what a program registers is asked for once, and read by many."""

ACCOUNT = "333333333333"
OWNER = "support-platform@acme.example"
FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:acme-rotates"
CALLS = {
    "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": ACCOUNT, "arn": "a", "id": "i", "userId": "u"},
    "aws:index/getRegion:getRegion": {
        "region": "eu-west-1",
        "name": "eu-west-1",
        "id": "eu-west-1",
        "description": "",
        "endpoint": "",
    },
    "aws:index/getAvailabilityZones:getAvailabilityZones": {"names": ["eu-west-1a", "eu-west-1b"], "id": "i"},
}
Build = Callable[..., Graph]


def _changed(folder: Path, change: Callable[[dict[str, Any]], None] | None) -> Path:
    """The stack file of prod, changed."""
    if change is None:
        return ROOT / "Pulumi.prod.yaml"
    whole = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())
    change(whole["config"])
    path = folder / "Pulumi.prod.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


def _build(folder: Path, change: Callable[[dict[str, Any]], None] | None = None, **settings: Any) -> Graph:
    """The graph of a stack file, from a package that was built from it."""
    file = _changed(folder, change)
    packed = package.entries(file)
    small = {name: text for name, text in packed.items() if name == PACKED or name.endswith((".so", ".pyd"))}
    archive.write(folder / "keyturn-lambda.zip", {name: text[:99_999] for name, text in small.items()})
    given = {"package": str(folder / "keyturn-lambda.zip"), "stackFile": str(file), "owners": [OWNER], **settings}
    graph = run("aws", given, CALLS)
    assert graph.code == 0, graph.told
    return graph


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The shipped stack with the fewest settings."""
    return _build(tmp_path_factory.mktemp("plain"))


def _native(config: dict[str, Any]) -> None:
    """Secrets Manager rotates what is in it, and the trail is kept in a bucket; the function has no role to assume."""
    store = config["keyturn:stores"]["aws"]
    store |= {"rotation": "native", "rotationFunction": FUNCTION}
    del store["roleArn"]
    config["keyturn:audit"] = [
        {"s3": {"bucket": "acme-trail", "prefix": "trail/", "lock": {"mode": "compliance", "days": 9}}}
    ]
    config["keyturn:defaults"] = {}
    for secret in config["keyturn:secrets"]:
        secret.pop("pairedWith", None)
    config["keyturn:channels"] = {"sre": {"sns": {"arn": f"arn:aws:sns:eu-west-1:{ACCOUNT}:sre"}}}
    config["keyturn:owners"]["support-platform"] = {"notify": ["sre"]}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Everything on: a network, a fleet, native rotation, a key of one's own."""
    return _build(
        tmp_path_factory.mktemp("full"),
        _native,
        network={"zones": 2, "addresses": 2},
        fleet=True,
        key=f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/4f1e",
        tags={"CostCenter": "42"},
        sweepEvery=10,
        logDays=731,
    )


@pytest.fixture(params=["plain", "full"])
def either(request: pytest.FixtureRequest) -> Graph:
    found: Graph = request.getfixturevalue(request.param)
    return found


def documents(graph: Graph) -> list[tuple[str, dict[str, Any]]]:
    """Every policy that says what a role may do, by the name of its resource."""
    found = graph.all("iam/policy:Policy") + graph.all("iam/rolePolicy:RolePolicy")
    return [(each["name"], json.loads(each["inputs"]["policy"])) for each in found]


@cache
def printed(file: Path) -> dict[str, Any]:
    """What `keyturn policy aws` prints."""
    said = CliRunner().invoke(app, ["policy", "aws", "--config", str(file), "--for", "rotate", "--json"])
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


# --- rights ------------------------------------------------------------------------------------------


def test_the_role_has_what_keyturn_policy_prints(plain: Graph) -> None:
    """The role that the stack file names is made, with that document, whole, and no other."""
    (role,) = [each for each in plain.all("iam/role:Role") if each["name"] == "keyturn"]
    (given,) = plain.inputs("iam/policy:Policy")
    assert json.loads(given["policy"]) == printed(ROOT / "Pulumi.prod.yaml")
    (attached,) = plain.inputs("RolePolicyAttachment")
    assert attached["role"] == role["inputs"]["name"] == "keyturn"
    assert [
        each["name"] for each in plain.all("iam/rolePolicy:RolePolicy") if each["inputs"]["role"] == "keyturn-id"
    ] == []
    trusted = json.loads(role["inputs"]["assumeRolePolicy"])["Statement"]
    own = f"arn:aws:iam::{ACCOUNT}:role/keyturn-prod-function"
    assert trusted == [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": [own]}}]
    assert own == plain.outputs["role"]


def test_without_a_role_in_the_stack_file_the_functions_own_has_them(full: Graph, tmp_path: Path) -> None:
    """The same document; there is then nothing to assume."""
    (given,) = full.inputs("iam/policy:Policy")
    assert json.loads(given["policy"]) == printed(_changed(tmp_path, _native))
    (attached,) = full.inputs("RolePolicyAttachment")
    assert attached["role"] == "keyturn-prod-function"
    assert "sts:AssumeRole" not in json.dumps(documents(full))


def test_a_role_of_another_account_is_told_and_not_made(tmp_path: Path) -> None:
    """Somebody there has to give it the rights: they are an output."""
    elsewhere = "arn:aws:iam::444444444444:role/keyturn"

    def change(config: dict[str, Any]) -> None:
        config["keyturn:stores"]["aws"]["roleArn"] = elsewhere

    graph = _build(tmp_path, change)
    assert graph.all("iam/policy:Policy") == []
    assert any(line.startswith(f"WARNING: {elsewhere} is not made here, in account {ACCOUNT}") for line in graph.told)
    assert graph.outputs["rightsToGrant"] == {elsewhere: printed(tmp_path / "Pulumi.prod.yaml")}
    assert {tuple(s["Resource"]) for _, d in documents(graph) for s in d["Statement"] if s["Sid"] == "Rotate"} == {
        (elsewhere,)
    }


def test_rights_that_one_policy_can_not_hold_are_several(tmp_path: Path) -> None:
    """Each within IAM's limit; together what is printed, statement by statement."""

    def change(config: dict[str, Any]) -> None:
        (first, *_) = config["keyturn:secrets"]
        first.pop("pairedWith")
        more = [first | {"name": f"a-name-that-takes-some-room-{number:03}"} for number in range(60)]
        config["keyturn:secrets"] = more

    graph = _build(tmp_path, change)
    given = graph.inputs("iam/policy:Policy")
    assert 1 < len(given) <= 10
    assert all(len("".join(each["policy"].split())) <= 6144 for each in given)
    assert len(graph.all("RolePolicyAttachment")) == len(given)

    def flat(documents: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {
            (action, resource, json.dumps(statement.get("Condition")))
            for document in documents
            for statement in document["Statement"]
            for action in statement["Action"]
            for resource in statement["Resource"]
        }

    assert flat([json.loads(each["policy"]) for each in given]) == flat([printed(tmp_path / "Pulumi.prod.yaml")])


def test_nothing_may_do_anything(either: Graph) -> None:
    """No action with a wildcard. No resource without a name, but where the service has none: lists, and what Lambda itself
    does with network interfaces, which the function's code may not."""
    for name, document in documents(either):
        IAMPolicyDocumentValidator(json.dumps(document)).validate()
        for statement in document["Statement"]:
            actions, sid = set(statement["Action"]), statement["Sid"]
            assert not [action for action in actions if "*" in action], name
            if sid == "Network":
                assert statement["Condition"] == {"Null": {"lambda:SourceFunctionArn": "true"}}
            elif sid.endswith("Anywhere"):
                assert actions <= {"secretsmanager:ListSecrets", "secretsmanager:BatchGetSecretValue"}
            else:
                for resource in statement["Resource"]:
                    assert resource.startswith("arn:aws:"), (name, sid)
                    assert resource.split(":", 5)[5].strip("*:"), (name, sid)


def test_the_functions_surroundings_are_its_own(plain: Graph, full: Graph) -> None:
    """Its log, queue, topic, key; a fleet's sends too. Places of the trail and channels that the stack file names, and no other."""

    def may(graph: Graph) -> dict[str, set[str]]:
        (own,) = [json.loads(i["policy"]) for i in graph.inputs("RolePolicy") if i["name"] == "surroundings"]
        return {statement["Sid"]: {*statement["Action"], *statement["Resource"]} for statement in own["Statement"]}

    one, other = may(plain), may(full)
    assert one.keys() == {"Log", "Work", "Tell", "Key", "Rotate"}
    assert other.keys() == {"Log", "Work", "Tell", "Key", "Trail0", "Network"}
    assert other["Work"] - one["Work"] == {"sqs:SendMessage"}
    assert one["Rotate"] == {"sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/keyturn"}
    assert other["Tell"] - one["Tell"] == {f"arn:aws:sns:eu-west-1:{ACCOUNT}:sre"}
    trail = {"s3:PutObject", "s3:GetObject", "s3:PutObjectRetention", "arn:aws:s3:::acme-trail/trail/*"}
    assert other["Trail0"] == trail


def test_who_calls_the_function(plain: Graph, full: Graph) -> None:
    """Secrets Manager only where it rotates, for this account alone; the scheduler by a role that can do nothing else."""
    assert plain.inputs("Permission") == []
    (permission,) = full.inputs("Permission")
    assert (permission["principal"], permission["sourceAccount"]) == ("secretsmanager.amazonaws.com", ACCOUNT)
    assert full.one("Function")["name"] == "acme-rotates"
    for graph in (plain, full):
        (may,) = [json.loads(i["policy"]) for i in graph.inputs("RolePolicy") if i["name"] == "call"]
        actions = {action for statement in may["Statement"] for action in statement["Action"]}
        assert actions == {"lambda:InvokeFunction", "sqs:SendMessage", "kms:Decrypt", "kms:GenerateDataKey"}
        trust = json.loads(graph.one("iam/role:Role", "-schedule")["assumeRolePolicy"])["Statement"]
        assert trust[0]["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


# --- what runs ---------------------------------------------------------------------------------------


def test_the_function_is_the_package(plain: Graph) -> None:
    """The handler that it has, the version of Python of its compiled parts, log and key of ours; no concurrency of one."""
    made = plain.one("Function")
    assert made["handler"] == f"{package.HANDLER}.handler"
    assert made["code"]["file"].endswith("keyturn-lambda.zip")
    assert made["runtime"].startswith("python3.")
    assert made["loggingConfig"] == {"logFormat": "Text", "logGroup": "/aws/lambda/keyturn-prod"}
    assert made["environment"] == {"variables": {"KEYTURN_LOG_LEVEL": "INFO"}}
    assert "reservedConcurrentExecutions" not in made
    assert "vpcConfig" not in made
    waits = next(each["after"] for each in plain.all("lambda/function:Function"))
    assert any("RolePolicyAttachment" in urn for urn in waits)


def test_sweeps_come_on_time_and_what_can_not_be_delivered_is_kept(plain: Graph, full: Graph) -> None:
    """The scheduler tries again and lays aside; Lambda does not repeat a sweep that failed, as the next one is due."""
    sweep, look = plain.one("scheduler/schedule:Schedule"), full.one("scheduler/schedule:Schedule")
    assert (sweep["scheduleExpression"], look["scheduleExpression"]) == ("rate(5 minutes)", "rate(10 minutes)")
    assert json.loads(sweep["target"]["input"]) == {"keyturn": "sweep"}
    assert json.loads(look["target"]["input"]) == {"keyturn": "dispatch"}
    for made in (sweep, look):
        assert made["target"]["retryPolicy"]["maximumRetryAttempts"] == 3
        assert made["target"]["deadLetterConfig"] == {"arn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:keyturn-prod-dead"}
    assert plain.one("FunctionEventInvokeConfig")["maximumRetryAttempts"] == 0
    assert full.one("Function")["environment"]["variables"]["KEYTURN_FLEET_QUEUE"] == full.outputs["queue"]


def test_the_queue_lays_aside_what_fails_five_times(either: Graph) -> None:
    """Into a queue that takes it from this one alone; messages stay hidden for six times as long as a run may take."""
    work, dead = either.one("Queue", "-work"), either.one("Queue", "-dead")
    redrive = json.loads(work["redrivePolicy"])
    assert redrive == {"deadLetterTargetArn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{dead['name']}", "maxReceiveCount": 5}
    allowed = json.loads(either.one("RedriveAllowPolicy")["redriveAllowPolicy"])
    assert allowed["sourceQueueArns"] == [f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{work['name']}"]
    assert work["visibilityTimeoutSeconds"] >= 6 * either.one("Function")["timeout"]
    assert dead["messageRetentionSeconds"] == 14 * 86_400
    mapped = either.one("EventSourceMapping")
    assert mapped["functionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapped["scalingConfig"]["maximumConcurrency"] >= 2


def test_everything_that_keeps_something_is_encrypted(plain: Graph, full: Graph) -> None:
    """With a key that is made and turned each year, or the one that is given."""
    (made,) = plain.inputs("kms/key:Key")
    assert made["enableKeyRotation"] is True
    assert full.inputs("kms/key:Key") == []
    for graph, key in (
        (plain, f"arn:aws:kms:eu-west-1:{ACCOUNT}:keyturn-prod"),
        (full, f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/4f1e"),
    ):
        used = [
            graph.one("LogGroup")["kmsKeyId"],
            graph.one("Topic")["kmsMasterKeyId"],
            graph.one("Function")["kmsKeyArn"],
        ]
        used += [each["kmsMasterKeyId"] for each in graph.inputs("Queue")]
        assert used == [key] * 5
    who = {each["Sid"]: each["Principal"] for each in json.loads(made["policy"])["Statement"]}
    assert who["Log"] == {"Service": "logs.eu-west-1.amazonaws.com"}
    assert who["Alarms"] == {"Service": "cloudwatch.amazonaws.com"}


def test_what_others_rely_on_is_protected(full: Graph, plain: Graph) -> None:
    """Addresses that stand in allowlists; the log, which holds the audit trail, and what it can be read with."""
    assert {each["type"] for each in full.resources if each["protect"]} == {
        "aws:ec2/eip:Eip",
        "aws:cloudwatch/logGroup:LogGroup",
    }
    assert {each["type"] for each in plain.resources if each["protect"]} == {
        "aws:kms/key:Key",
        "aws:cloudwatch/logGroup:LogGroup",
    }
    assert (plain.one("LogGroup")["retentionInDays"], full.one("LogGroup")["retentionInDays"]) == (400, 731)


# --- who is called -----------------------------------------------------------------------------------


def test_every_alarm_has_a_target(either: Graph) -> None:
    """The topic, when it begins and when it ends; CloudWatch may tell it, and owners hear it."""
    topic = f"arn:aws:sns:eu-west-1:{ACCOUNT}:keyturn-prod-owners"
    alarms = either.inputs("MetricAlarm")
    assert len(alarms) == 9
    for alarm in alarms:
        assert alarm["alarmActions"] == alarm["okActions"] == [topic], alarm["name"]
        assert alarm["alarmDescription"]
    may = json.loads(either.one("TopicPolicy")["policy"])["Statement"]
    assert [each["Principal"] for each in may] == [{"Service": "cloudwatch.amazonaws.com"}]
    assert [each["endpoint"] for each in either.inputs("TopicSubscription")] == [OWNER]


def test_alarms_ask_for_what_keyturn_measures(either: Graph) -> None:
    """Each name is one of a metric of ours, each label one that it has; a period is never shorter than the time between sweeps."""
    known = {each.name: set(each.labels) for each in (*instruments.TOLD, *board.GAUGES)}
    asked = {}
    for alarm in either.inputs("MetricAlarm"):
        for query in alarm.get("metricQueries", ()):
            words = query["expression"].replace("(", " ").replace(")", " ").split()
            (metric,) = [word for word in words if word.startswith("keyturn_")]
            labels = {words[at - 1] for at, word in enumerate(words) if word == "="}
            assert labels <= known[metric], alarm["name"]
            assert "environment = 'prod'" in query["expression"]
            assert query["period"] >= (600 if either.outputs["addresses"] else 300)
            asked[alarm["name"].removeprefix("keyturn-prod-")] = alarm["treatMissingData"]
    silent = {"overdue", "failing", "unproven", "condemned", "held"}
    assert asked == dict.fromkeys(silent, "notBreaching") | {"no-sweep": "breaching"}
    watched = {tuple(alarm["dimensions"].items()) for alarm in either.inputs("MetricAlarm") if "dimensions" in alarm}
    assert ("QueueName", "keyturn-prod-dead") in {pair for pairs in watched for pair in pairs}


# --- the network -------------------------------------------------------------------------------------


def test_without_the_setting_there_is_no_network(plain: Graph) -> None:
    """The function runs in AWS's own."""
    assert [each for each in plain.resources if each["type"].startswith("aws:ec2")] == []
    assert plain.outputs["addresses"] == []


def test_the_network_leaves_by_fixed_addresses_only(full: Graph) -> None:
    """Private subnets reach the world through a NAT gateway with an address of ours, by the ports that the stack needs."""
    function = full.one("Function")["vpcConfig"]
    assert function["subnetIds"] == ["keyturn-prod-private-0-id", "keyturn-prod-private-1-id"]
    routes = {each["name"]: each["inputs"]["routes"] for each in full.all("RouteTable")}
    assert {name for name, ((route),) in routes.items() if "gatewayId" in route} == {"keyturn-prod-public"}
    private = {name: route["natGatewayId"] for name, ((route),) in routes.items() if "natGatewayId" in route}
    assert private == {"keyturn-prod-private-0": "keyturn-prod-0-id", "keyturn-prod-private-1": "keyturn-prod-1-id"}
    joined = {each["subnetId"]: each["routeTableId"] for each in full.inputs("RouteTableAssociation")}
    assert all(joined[subnet] in {f"{name}-id" for name in private} for subnet in function["subnetIds"])
    assert {each["allocationId"] for each in full.inputs("NatGateway")} == {"keyturn-prod-0-id", "keyturn-prod-1-id"}
    assert len({each["cidrBlock"] for each in full.inputs("Subnet")}) == 4
    group = full.one("SecurityGroup", "-function")
    assert "ingress" not in group
    assert {rule["fromPort"] for rule in group["egress"]} == {443, 8200}
    assert len(full.outputs["addresses"]) == 2


def test_services_are_reached_inside_aws(full: Graph) -> None:
    """By endpoints that take this account's logins alone, from the function alone."""
    services = {each["serviceName"].rpartition(".")[2] for each in full.inputs("VpcEndpoint")}
    assert services == {"secretsmanager", "sqs", "kms", "sts", "sns", "logs"}
    for each in full.inputs("VpcEndpoint"):
        (statement,) = json.loads(each["policy"])["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}
        assert each["privateDnsEnabled"] is True
    (rule,) = full.one("SecurityGroup", "-endpoints")["ingress"]
    assert rule["securityGroups"] == ["keyturn-prod-function-id"]


# --- no secret, and words ------------------------------------------------------------------------------


def test_no_secret_is_in_any_input(either: Graph) -> None:
    """Logins stand in the environment that the program runs in; nothing of them is registered, put out or told."""
    assert CANARY not in either.text
    assert '{"encrypted":' not in json.dumps([each["inputs"] for each in either.resources])


def test_all_is_made_by_one_provider_with_our_tags(full: Graph) -> None:
    """Whatever has tags gets them: from the provider's defaults."""
    (provider,) = full.all("pulumi:providers:aws")
    tags = json.loads(provider["inputs"]["defaultTags"])["tags"]
    assert tags == {"Application": "keyturn", "Environment": "prod", "CostCenter": "42"}
    made = [each for each in full.resources if each["type"].startswith("aws:")]
    assert made
    assert {each["provider"].rpartition("::")[0] for each in made} == {provider["urn"]}


def test_what_nothing_sets_is_told(plain: Graph) -> None:
    """The shipped stack logs in to Vault by variables, which a function is not to hold."""
    assert plain.outputs["variablesNotSet"] == ["KEYTURN_VAULT_ROLE_ID", "KEYTURN_VAULT_SECRET_ID"]
    assert any("KEYTURN_VAULT_SECRET_ID" in line for line in plain.told if line.startswith("WARNING"))


@pytest.mark.parametrize(
    ("settings", "secret", "says"),
    [
        ({"environment": {"KEYTURN_VAULT_SECRET_ID": CANARY}}, (), "a login would stand in Pulumi's state"),
        ({"owner": OWNER, "logDays": 12}, (), "keyturn-aws:owner: Extra inputs are not permitted"),
        ({"logLevel": CANARY}, ("logLevel",), "keyturn-aws:logLevel: is encrypted"),
        ({"package": "/nowhere.zip"}, (), "there is no package /nowhere.zip: build it with `make lambda STACK=prod`"),
    ],
)
def test_faults_are_told_in_a_line_and_nothing_is_made(
    settings: dict[str, Any], secret: tuple[str, ...], says: str
) -> None:
    """No traceback, no value; what was registered before is what needs no package."""
    graph = run("aws", {"stackFile": str(ROOT / "Pulumi.prod.yaml"), **settings}, CALLS, secret=secret)
    assert graph.code == 32
    assert says in "\n".join(graph.told)
    assert CANARY not in graph.text
    assert graph.all("Function") == []


def test_a_package_of_another_stack_file_is_refused(tmp_path: Path) -> None:
    """Rights are generated from the file, and the function goes by the package."""
    _build_only(tmp_path)
    given = {"package": str(tmp_path / "keyturn-lambda.zip"), "stackFile": str(ROOT / "Pulumi.prod.yaml")}
    graph = run("aws", given, CALLS)
    assert graph.code == 32
    assert "was built from another stack file" in "\n".join(graph.told)


def _build_only(folder: Path) -> None:
    packed = package.entries(ROOT / "Pulumi.staging.yaml")
    archive.write(folder / "keyturn-lambda.zip", {PACKED: packed[PACKED]})
