"""The policy pack: each rule alone, and the whole pack behind the server that the Pulumi CLI starts and asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from policy import ages, rules
from providers.access import aws
from providers.pulumi.rotated_secret import inputs
from rotation.access import Persona, needs
from rotation.config import load
from rotation.model import Blackout, Drain, Policy, Restraint, Schedule
from rotation.policy import read_moment, read_window
from rotation.sections import SecretsManagerConfig
from sandbox.pulumi_inprocess import Deployment, Record, Screen

ROOT = Path(__file__).parents[1]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PLAIN = Policy(
    installation="acme",
    environment="prod",
    name="support-copilot-chat",
    store="vault",
    issuer="openai",
    owner="support-platform",
    rotate_every=30 * DAY,
    grace=DAY,
    drain=Drain(HOUR, 14 * DAY),
)
FREEZE = Blackout(read_moment("2026-12-01"), read_moment("2027-02-01"), "a long freeze")


# --- rules of one secret -----------------------------------------------------------------------------


def test_an_owner_is_there_and_known() -> None:
    """None, an empty one, and one that is not listed are told; any counts where none are listed."""
    assert list(rules.owner(inputs(PLAIN), {})) == []
    assert list(rules.owner(inputs(PLAIN), {"owners": ["support-platform"]})) == []
    for empty in ("", "  ", None):
        assert "has no owner" in next(rules.owner({**inputs(PLAIN), "owner": empty}, {}))
    assert "none of billing" in next(rules.owner(inputs(PLAIN), {"owners": ["billing"]}))


@pytest.mark.parametrize(
    ("environment", "bound", "settings", "fits"),
    [
        ("prod", 30, {}, True),
        ("prod", 31, {}, False),
        ("dev", 60, {}, True),
        ("dev", 61, {}, False),
        ("prod", 31, {"mostIn": {"prod": "40d"}}, True),
        ("prod", 31, {"mostIn": {}}, True),
        ("dev", 31, {"most": "20d"}, False),
        ("prod", 60, {"exceptions": {PLAIN.name: "60d"}}, True),
        ("prod", 61, {"exceptions": {PLAIN.name: "60d"}}, False),
        ("prod", 60, {"exceptions": {"another-one": "60d"}}, False),
    ],
)
def test_cadence_is_bounded(environment: str, bound: int, settings: dict[str, Any], fits: bool) -> None:
    """By 60 days, in prod by 30; by what settings say for all, an environment, or one secret."""
    policy = replace(PLAIN, environment=environment, rotate_every=bound * DAY)
    assert (list(rules.cadence(inputs(policy), settings, NOW)) == []) == fits


def test_the_schedule_itself_is_run() -> None:
    """A claim of every 30 days is none where `latest` lets it slip, or where a freeze may not be overridden."""
    kept = replace(PLAIN, schedule=Schedule(windows=(read_window("Mon-Thu 09:00-16:00"),)))
    assert list(rules.cadence(inputs(kept), {}, NOW)) == []
    loose = replace(
        PLAIN, rotate_every=90 * DAY, schedule=Schedule(every=30 * DAY, windows=(read_window("Sun 02:00-05:00"),))
    )
    slow = replace(PLAIN, rotate_every=90 * DAY, schedule=Schedule(every=80 * DAY))
    frozen = replace(PLAIN, schedule=Schedule(blackouts=(FREEZE,), overrides=()))
    through = replace(PLAIN, schedule=Schedule(blackouts=(FREEZE,), overrides=(Restraint.BLACKOUT,)))
    over = replace(PLAIN, schedule=Schedule(blackouts=(FREEZE,), overrides=()), rotate_every=30 * DAY)
    for policy in (loose, slow, frozen, over):
        told = list(rules.cadence(inputs(policy), {}, NOW))
        assert len(told) == 1
        assert "in prod at most 30d" in told[0]
    assert list(rules.cadence(inputs(through), {}, NOW)) == []
    assert list(rules.cadence(inputs(frozen), {}, NOW + 200 * DAY)) == [], "a freeze that is over holds up nothing"


def test_grace_is_below_the_interval_that_really_is() -> None:
    """Every morning with a day of grace is refused, although its bound is a month."""
    assert list(rules.grace(inputs(PLAIN), {}, NOW)) == []
    assert list(rules.grace(inputs(replace(PLAIN, grace=30 * DAY, drain=Drain(HOUR, 40 * DAY))), {}, NOW))
    often = replace(PLAIN, schedule=Schedule(cron="0 6 * * *"))
    assert "not below the" in next(rules.grace(inputs(often), {}, NOW))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("name", "chat"),
        ("name", "Support-Chat"),
        ("name", "support-chat-pending"),
        ("name", "support--chat"),
        ("environment", "prod-eu"),
        ("installation", "Acme"),
        ("store", ""),
    ],
)
def test_names_follow_the_scheme(part: str, wrong: str) -> None:
    """A name that does not is told with what is allowed; the usual ones are not."""
    assert list(rules.named(inputs(PLAIN), {})) == []
    (told,) = rules.named({**inputs(PLAIN), part: wrong}, {})
    assert told.startswith(f"its {part} {wrong!r} must")


def test_readers_are_not_everybody() -> None:
    """Networks as wide as the world, or as half of it, are told; an office's are not."""
    some = {"allowedCidrs": ["198.51.100.0/24", "2001:db8::/48"], "allowedVpces": ["vpce-0123456789abcdef0"]}
    assert list(rules.readers(some, {})) == []
    assert list(rules.readers(some, {"widest": 25}))
    for wide in ("0.0.0.0/0", "128.0.0.0/1", "10.0.0.0/8", "::/0"):
        (told,) = rules.readers({"allowedCidrs": [wide]}, {})
        assert told.startswith(wide)
    assert any(rules.readers({"allowedVpces": ["vpce-*"]}, {}))


# --- pairs -------------------------------------------------------------------------------------------


def a_pair(one: Schedule = Schedule(), other: Schedule | None = None, **changes: Any) -> list[dict[str, Any]]:  # noqa: B008
    chat = replace(PLAIN, paired_with="support-copilot-batch", schedule=one, **changes)
    batch = replace(
        PLAIN, name="support-copilot-batch", paired_with=PLAIN.name, schedule=one if other is None else other, **changes
    )
    return [inputs(chat), inputs(batch)]


def test_pairs_that_take_turns_are_fine() -> None:
    """Without windows the second waits; with the same ones each has every other; alone nobody is in the way."""
    weekly = Schedule(windows=(read_window("Sun 02:00-05:00"),))
    for pair in (a_pair(), a_pair(weekly), [inputs(PLAIN)]):
        assert list(rules.pairs(pair, {}, NOW)) == []


def test_a_pair_that_shares_a_window_is_told() -> None:
    """Two that do not have the same windows take no turns: the one's every second is the other's every second week."""
    sundays = Schedule(windows=(read_window("Sun 02:00-05:00"),))
    weekends = Schedule(windows=(read_window("Sat-Sun 02:00-05:00"),))
    ((name, told),) = rules.pairs(a_pair(weekends, sundays), {}, NOW)
    assert name == "support-copilot-batch"
    assert "in one window with support-copilot-chat, as on Sun" in told


def test_a_pair_without_room_is_told() -> None:
    """Two days of life, and a day until the other's old credential is gone."""
    told = [text for _, text in rules.pairs(a_pair(rotate_every=2 * DAY), {}, NOW)]
    assert len(told) == 2
    assert all("leaves no room to wait" in text for text in told)


def test_half_a_pair_is_told() -> None:
    """One that the stack does not have, and one that names somebody else."""
    chat, batch = a_pair()
    assert list(rules.pairs([chat], {}, NOW)) == [
        (PLAIN.name, "it is paired with support-copilot-batch, which the stack does not have")
    ]
    told = list(rules.pairs([chat, {**batch, "pairedWith": "another-one"}], {}, NOW))
    assert (PLAIN.name, "it is paired with support-copilot-batch, which is not paired with it") in told


# --- rights ------------------------------------------------------------------------------------------


def iam(**statement: Any) -> dict[str, Any]:
    usual = {
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "arn:aws:secretsmanager:x:1:secret:a",
    }
    return {"policy": json.dumps({"Version": "2012-10-17", "Statement": [usual | statement]})}


ROLE = "azure-native:authorization:RoleDefinition"
OPEN: list[tuple[str, dict[str, Any], str]] = [
    ("aws:iam/policy:Policy", iam(Action="*"), "allows *"),
    ("aws:iam/rolePolicy:RolePolicy", iam(Action=["secretsmanager:Get*"]), "allows secretsmanager:Get*"),
    ("aws:iam/role:Role", {"inlinePolicies": [iam(Resource="*")]}, "on every secret"),
    ("aws:iam/policy:Policy", iam(NotAction="iam:*"), "everything but NotAction"),
    ("aws:secretsmanager/secretPolicy:SecretPolicy", iam(Principal="*"), "lets everybody in"),
    ("aws:secretsmanager/secretPolicy:SecretPolicy", iam(Principal={"AWS": ["*"]}), "lets everybody in"),
    (ROLE, {"permissions": [{"dataActions": ["Microsoft.KeyVault/vaults/secrets/*"]}]}, "is a wildcard"),
    ("vault:index/policy:Policy", {"policy": 'path "secret/data/*" { capabilities = ["read"] }'}, ""),
    ("vault:index/policy:Policy", {"policy": 'path "secret/*" {\n  capabilities = ["read"]\n}'}, "all of a mount"),
    ("vault:index/policy:Policy", {"policy": 'path "*" { capabilities = ["sudo"] }'}, "all of a mount"),
]


@pytest.mark.parametrize(("kind", "props", "told"), [case for case in OPEN if case[2]])
def test_wildcards_are_told(kind: str, props: dict[str, Any], told: str) -> None:
    """In the words of each cloud."""
    (found,) = rules.rights(kind, props, {})
    assert told in found


def test_rights_that_name_what_they_open_are_fine() -> None:
    """Lists, which can not be narrowed; what has a condition; denials; the cloud's other services; what is allowed by name."""
    fine = [
        ("aws:iam/policy:Policy", iam()),
        ("aws:iam/policy:Policy", iam(Action="secretsmanager:ListSecrets", Resource="*")),
        ("aws:iam/policy:Policy", iam(Effect="Deny", Action="*", Resource="*")),
        ("aws:iam/policy:Policy", iam(Action="logs:*", Resource="*")),
        (
            "aws:kms/key:Key",
            iam(Principal="*", Action="kms:Decrypt", Resource="*", Condition={"StringEquals": {"a": "b"}}),
        ),
        (ROLE, {"permissions": [{"dataActions": ["Microsoft.KeyVault/vaults/secrets/getSecret/action"]}]}),
        ("vault:index/policy:Policy", {"policy": 'path "secret/metadata/*" { capabilities = ["list"] }'}),
        ("vault:index/policy:Policy", {"policy": 'path "secret/data/prod/a-b" { capabilities = ["read"] }'}),
        ("aws:s3/bucket:Bucket", {"tags": {"note": "{not json"}}),
    ]
    for kind, props in fine:
        assert list(rules.rights(kind, props, {})) == [], (kind, props)
    assert list(rules.rights("aws:iam/policy:Policy", iam(Action="kms:*"), {"allowActions": ["kms:*"]})) == []


@pytest.mark.parametrize("persona", [*Persona])
def test_the_rights_that_keyturn_prints_pass(persona: Persona) -> None:
    """What `keyturn policy aws` gives each persona of the example of production."""
    config = load(ROOT / "Pulumi.prod.yaml")
    found = needs(config, persona, config.policies, mints=True)
    stores = [(n, s, found[n]) for n, s in config.stores.items() if isinstance(s, SecretsManagerConfig) and n in found]
    document = aws.document(stores)
    assert document["Statement"]
    assert list(rules.rights("aws:iam/policy:Policy", {"policy": json.dumps(document)}, {})) == []


# --- the pack, as Pulumi loads it --------------------------------------------------------------------


class Pack:
    """The served pack. Properties go over the wire as the engine sends them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = analyzer_pb2_grpc.AnalyzerStub(channel)

    def names(self) -> dict[str, int]:
        return {
            policy.name: policy.enforcementLevel for policy in self._stub.GetAnalyzerInfo(empty_pb2.Empty()).policies
        }

    def configure(self, settings: dict[str, Any]) -> None:
        request = analyzer_pb2.ConfigureAnalyzerRequest()
        for name, given in settings.items():
            request.policyConfig[name].enforcementLevel = analyzer_pb2.MANDATORY
            request.policyConfig[name].properties.update(given)
        self._stub.Configure(request)

    def judge(self, resources: list[Record]) -> list[tuple[str, str]]:
        """Name of the rule, and what it says, of every resource and of the stack as a whole."""
        found = []
        for one in resources:
            request = analyzer_pb2.AnalyzeRequest(
                type=one.type, urn=one.urn, name=one.name, properties=_struct(one.inputs)
            )
            found += self._stub.Analyze(request).diagnostics
        whole = analyzer_pb2.AnalyzeStackRequest(
            resources=[
                analyzer_pb2.AnalyzerResource(type=one.type, urn=one.urn, name=one.name, properties=_struct(one.inputs))
                for one in resources
            ]
        )
        found += self._stub.AnalyzeStack(whole).diagnostics
        return [(told.policyName, told.message.partition("\n")[2]) for told in found]


def _struct(props: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update({name: value for name, value in props.items() if value is not None})
    return struct


@contextmanager
def served(folder: Path) -> Iterator[Pack]:
    """The pack behind the program of Pulumi's SDK that the CLI runs packs with."""
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.policy", "127.0.0.1:0", str(ROOT / "policy")],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
            yield Pack(channel)
    finally:
        process.kill()
        process.communicate()


class Seen(Deployment):
    """Plans as the stand-in for the CLI does, and keeps what the program registers."""

    def __init__(self, root: Path, stack: str) -> None:
        super().__init__(root, stack, Screen(as_json=True))
        self.resources: list[Record] = []

    def register(self, new: Record, *, dry: bool) -> Record:
        self.resources.append(new)
        return super().register(new, dry=dry)


def program(folder: Path, stack_file: Path, stack: str) -> list[Record]:
    """What the program registers for a stack file."""
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(stack_file, folder / f"Pulumi.{stack}.yaml")
    seen = Seen(folder, stack)
    seen.run(dry=True)
    return seen.resources


def test_the_pack_passes_the_sandboxs_program_and_finds_what_is_broken_in_it(tmp_path: Path) -> None:
    """Loaded by pulumi_policy and asked over the wire, as a preview does."""
    resources = program(tmp_path, ROOT / "sandbox" / "stack.yaml", "sandbox")
    secrets = {one.name: one for one in resources if one.type == rules.RESOURCE}
    assert len(secrets) == 4
    with served(tmp_path) as pack:
        assert set(pack.names().values()) == {analyzer_pb2.MANDATORY}
        assert pack.judge(resources) == []
        chat = secrets["support-copilot-chat"].inputs
        chat |= {"owner": "", "rotateEvery": "70d", "pairedWith": "nobody-else", "allowedCidrs": ["0.0.0.0/0"]}
        secrets["support-copilot-webhook"].inputs |= {"name": "webhook", "grace": "60d", "drainAtMost": "60d"}
        resources.append(Record("urn:x", "aws:iam/policy:Policy", "wide", inputs=iam(Action="*")))
        told = pack.judge(resources)
    assert {rule for rule, _ in told} == set(pack_names())
    assert (
        "keyturn-owner",
        "support-copilot-chat: it has no owner; name the team that is told of its rotations",
    ) in told


def pack_names() -> list[str]:
    return [f"keyturn-{name}" for name in ("owner", "cadence", "grace", "names", "readers", "rights", "pairs")]


def test_the_example_of_production_passes_with_its_exceptions(tmp_path: Path) -> None:
    """Two of its secrets rotate every 60 days on purpose; policy/config.json says so by name, and no others."""
    resources = program(tmp_path, ROOT / "Pulumi.prod.yaml", "prod")
    with served(tmp_path) as pack:
        told = pack.judge(resources)
        assert {(rule, text.partition(":")[0]) for rule, text in told} == {
            ("keyturn-cadence", "support-copilot-embed"),
            ("keyturn-cadence", "support-copilot-webhook"),
        }
        pack.configure(json.loads((ROOT / "policy" / "config.json").read_text()))
        assert pack.judge(resources) == []


def test_lives_follow_each_other() -> None:
    """Each begins where the last one ended, and none is empty; a bound of four hours does not run for ever."""
    short = replace(PLAIN, rotate_every=4 * HOUR, grace=HOUR)
    found = list(ages.lives_from(short, NOW, NOW + ages.AHEAD))
    assert len(found) == ages.ROUNDS
    assert all(earlier[1] == later[0] and earlier[0] < earlier[1] for earlier, later in pairwise(found))
