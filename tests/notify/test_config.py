"""What a stack may declare of channels, owners, notices and consumers, and what it is told where that is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hosting.packages import aws, azure
from rotation.config import ConfigError, load, parse, schema
from rotation.notify import templates
from rotation.notify.templates import KINDS
from rotation.packed import pack, unpack

ARN = "arn:aws:sns:eu-west-1:123456789012:keyturn"
VALUE = "{env: NAME}, {store: STORE, name: ENTRY} or {file: PATH}"
CHANNEL = "{apprise: REFERENCE} or {sns: {arn: ARN}}"
ON_ROTATE = "{webhook: {url: URL, secret: REFERENCE}} or {restart: {kubernetes: {…}}}"
KUBERNETES = {"namespace": "support", "kind": "Deployment", "name": "api"}
INLINE = "slack://T1234567/B1234567/canary-of-a-token"

GOOD: dict[str, Any] = {
    "installation": "acme",
    "environment": "dev",
    "stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault:8200"}},
    "issuers": {"generated": {"kind": "generated"}},
    "channels": {
        "ops": {"apprise": {"env": "OPS_URL"}, "repeatAfter": "6h"},
        "mail": {"apprise": {"file": "mail.url"}},
        "page": {"apprise": {"store": "vault", "name": "shared/page"}},
        "topic": {"sns": {"arn": ARN, "profile": "ops"}},
    },
    "notices": {"rotation.failed": {"subject": "[$severity] $secret: $code", "text": "$text\n\nThat is $$5."}},
    "owners": {
        "team": {
            "notify": ["ops", {"channel": "topic", "from": "info", "on": ["before", "done"]}],
            "notifyBefore": "5d",
        }
    },
    "secrets": [
        {
            "name": "support-copilot-chat",
            "store": "vault",
            "issuer": "generated",
            "owner": "team",
            "rotateEvery": "30d",
            "consumers": [
                {"name": "api", "onRotate": {"webhook": {"url": "https://hooks/x", "secret": {"env": "S"}}}},
                {"name": "web", "onRotate": {"webhook": {"urlFrom": {"env": "U"}, "secret": {"file": "s"}}}},
                {"name": "job", "onRotate": {"restart": {"kubernetes": KUBERNETES}}},
                {"name": "bat", "onRotate": None},
            ],
        }
    ],
}

Change = Callable[[dict[str, Any]], None]


def setting(path: str, value: object) -> Change:
    def change(values: dict[str, Any]) -> None:
        *steps, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
        part: Any = values
        for step in steps:
            part = part[step]
        part[last] = value

    return change


def changed(*changes: Change) -> dict[str, Any]:
    values = copy.deepcopy(GOOD)
    for change in changes:
        change(values)
    return values


def test_what_is_declared_is_what_is_read() -> None:
    """With what is usual where nothing is said; a name alone is a route."""
    config = parse(GOOD)
    assert [channel.repeat_after for channel in config.channels.values()] == [
        timedelta(hours=6),
        *[timedelta(hours=24)] * 3,
    ]
    ops, topic = config.owners["team"].notify
    assert (ops.channel, ops.least, ops.on) == ("ops", None, None)
    assert (topic.channel, topic.least, topic.on) == ("topic", "info", ("before", "done"))
    assert config.owners["team"].notify_before == timedelta(days=5)
    assert list(config.on_rotate["support-copilot-chat"]) == ["api", "web", "job"]


def test_it_is_in_a_functions_package_as_it_was_checked() -> None:
    """A function tells as a command does."""
    found: Any = unpack(pack(parse(GOOD)), Path("/somewhere"))
    assert found.channels["ops"].apprise.env == "OPS_URL"
    assert found.channels["topic"].sns.arn == ARN
    assert found.owners["team"].notify[1].on == ("before", "done")
    assert found.owners["team"].notify_before == timedelta(days=5)
    assert found.notices["rotation.failed"].subject == "[$severity] $secret: $code"
    assert found.on_rotate["support-copilot-chat"]["job"].restart.kubernetes.kind == "Deployment"


def test_the_schema_accepts_it() -> None:
    """An editor that uses it marks nothing."""
    jsonschema.validate({"config": {f"keyturn:{key}": part for key, part in GOOD.items()}}, schema())


CONSUMER = "secrets/0/consumers/0/onRotate"
FAULTS: list[tuple[Change, str]] = [
    (setting("channels", []), "channels: must be a mapping; allowed: {NAME: {…}}"),
    (setting("channels/Ops", {"apprise": {"env": "X"}}), "channels.Ops: must be lower case letters"),
    (setting("channels/ops", INLINE), f"channels.ops: is not a channel; allowed: {CHANNEL}"),
    (setting("channels/ops", {"slack": INLINE}), f"channels.ops: is not a channel; allowed: {CHANNEL}"),
    (
        setting("channels/ops/apprise", INLINE),
        f"channels.ops.apprise: must be a reference, never the credential itself; allowed: {VALUE}",
    ),
    (
        setting("channels/ops/apprise", {"env": INLINE}),
        "channels.ops.apprise.env: must be the name of an environment variable, never the value itself",
    ),
    (
        setting("channels/page/apprise/store", "valt"),
        "channels.page.apprise.store: there is no such store (did you mean vault?); allowed: vault",
    ),
    (setting("channels/ops/sns", {"arn": ARN}), "channels.ops.sns: unknown key; allowed: apprise, repeatAfter"),
    (setting("channels/topic/sns/arn", "keyturn"), "channels.topic.sns.arn: has the wrong form; allowed: the ARN of"),
    (setting("channels/ops/repeatAfter", "1 day"), "channels.ops.repeatAfter: is not a duration"),
    (
        setting("owners/team/notify/0", "opps"),
        "owners.team.notify[0].channel: there is no such channel (did you mean ops?); allowed: ops, mail, page, topic",
    ),
    (setting("owners/team/notify/0", INLINE), "owners.team.notify[0].channel: there is no such channel; allowed: ops"),
    (setting("owners/team/notify/0", 5), "owners.team.notify[0]: must be a mapping; allowed: a list of names"),
    (
        setting("owners/team/notify/1/from", "loud"),
        "owners.team.notify[1].from: is not known; allowed: info, warning or critical",
    ),
    (
        setting("owners/team/notify/1/on", ["after"]),
        "owners.team.notify[1].on[0]: is not known; allowed: a list of before, done, failed, hold, incident and usage",
    ),
    (
        setting("owners/team/notify/1/form", "info"),
        "owners.team.notify[1].form: unknown key (did you mean from?); allowed: channel, from, on",
    ),
    (setting("owners/team/notifyBefore", 3), "owners.team.notifyBefore: is not a duration"),
    (setting("notices", []), "notices: must be a mapping; allowed: {KIND: {subject: TEXT, text: TEXT}}"),
    (
        setting("notices/rotation.fail", {}),
        "notices.rotation.fail: there is no such kind (did you mean rotation.failed?); allowed: rotation.before",
    ),
    (
        setting("notices/rotation.failed/subjct", "x"),
        "notices.rotation.failed.subjct: unknown key (did you mean subject?); allowed: subject, text",
    ),
    (
        setting("notices/rotation.failed/subject", "$servise"),
        "notices.rotation.failed.subject: has no variable $servise (did you mean $service?); allowed: $advice",
    ),
    (
        setting("notices/rotation.failed/text", "costs 5$ a day"),
        "notices.rotation.failed.text: has a $ that no name follows; allowed: $$ for a dollar sign",
    ),
    (
        setting("notices/rotation.failed/subject", "a\nb"),
        "notices.rotation.failed.subject: is more than one line; allowed: one line",
    ),
    (setting(CONSUMER, {"exec": "x"}), f"consumers[0].onRotate: is nothing that can be done; allowed: {ON_ROTATE}"),
    (
        setting(f"{CONSUMER}/webhook/url", "http://hooks.example.org/x"),
        "consumers[0].onRotate.webhook.url: would send credentials unencrypted",
    ),
    (
        setting(f"{CONSUMER}/webhook/url", "https://user:pass@hooks/x"),
        "consumers[0].onRotate.webhook.url: is not an address, or has a user, query or fragment",
    ),
    (
        setting(f"{CONSUMER}/webhook/secret", "canary-of-a-token"),
        f"consumers[0].onRotate.webhook.secret: must be a reference, never the credential itself; allowed: {VALUE}",
    ),
    (
        setting(f"{CONSUMER}/webhook/secret", {"store": "valt", "name": "x"}),
        "consumers[0].onRotate.webhook.secret.store: there is no such store (did you mean vault?); allowed: vault",
    ),
    (
        setting(f"{CONSUMER}/webhook", {"url": "https://x"}),
        f"consumers[0].onRotate.webhook.secret: is missing; allowed: {VALUE}",
    ),
    (
        setting("secrets/0/consumers/2/onRotate/restart/kubernetes/kind", "Pod"),
        "consumers[2].onRotate.restart.kubernetes.kind: is not known; allowed: Deployment, StatefulSet or DaemonSet",
    ),
    (
        setting("secrets/0/consumers/2/onRotate/restart/kubernetes/namespace", "../x"),
        "consumers[2].onRotate.restart.kubernetes.namespace: has the wrong form; allowed: the name of a namespace",
    ),
]


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[told.partition(":")[0] for _, told in FAULTS])
def test_a_fault_is_told_with_its_path_and_never_with_a_credential(change: Change, told: str) -> None:
    """One line for it, and nothing else."""
    with pytest.raises(ConfigError) as caught:
        parse(changed(change))
    assert told in str(caught.value)
    assert len(caught.value.faults) == 1
    assert "canary" not in str(caught.value)


def test_faults_of_a_file_are_told_with_their_lines(tmp_path: Path) -> None:
    """A kind has a dot in its name; its line is found all the same."""
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(
        "config:\n  keyturn:installation: acme\n  keyturn:environment: dev\n  keyturn:channels:\n"
        "    ops: {apprise: {env: OPS_URL}}\n  keyturn:notices:\n    rotation.hold:\n      text: $why\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith("keyturn:notices.rotation.hold.text: has no variable $why")
    assert str(caught.value).endswith(f"[{file}:8]")


def test_every_kind_takes_every_variable_of_its_own() -> None:
    """And none of another's."""
    for kind, own in KINDS.items():
        every = " ".join(f"${name}" for name in {*templates.COMMON, *own})
        assert list(templates.faults(kind, "text", every)) == []
        assert list(templates.faults(kind, "text", "${no_such}"))


# --- packages of functions -------------------------------------------------------------------------

STACK = """
config:
  keyturn:installation: acme
  keyturn:environment: dev
  keyturn:stores: {aws: {kind: aws-secrets-manager, region: eu-west-1}}
  keyturn:issuers: {generated: {kind: generated}}
  keyturn:channels: {CHANNELS}
  keyturn:owners: {team: {notify: [ops]}}
  keyturn:secrets:
    - {name: a-b, store: aws, issuer: generated, owner: team, rotateEvery: 30d}
"""


@pytest.mark.parametrize(
    ("channel", "has", "has_not"),
    [
        (f"{{ops: {{sns: {{arn: '{ARN}'}}}}}}", {"by_sns"}, {"by_apprise", "consumers"}),
        ("{ops: {apprise: {env: OPS_URL}}}", {"by_apprise"}, {"by_sns", "consumers"}),
    ],
)
def test_a_package_has_what_its_channels_need_and_no_more(
    tmp_path: Path, channel: str, has: set[str], has_not: set[str]
) -> None:
    """Apprise and what it needs, or nothing beside what the platform has."""
    file = tmp_path / "Pulumi.any.yaml"
    file.write_text(STACK.replace("{CHANNELS}", channel))
    for packed in (aws.entries(file), azure.entries(file)):
        found = {Path(name).stem for name in packed if name.startswith("rotation/notify/")}
        assert found >= has
        assert not found & has_not
    assert ("apprise/__init__.py" in aws.entries(file)) == ("by_apprise" in has)
    assert ("apprise==" in azure.entries(file)["requirements.txt"].decode()) == ("by_apprise" in has)
