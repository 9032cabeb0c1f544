"""The configuration of a stack: what is read from it, and every fault with its path and its words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from providers.issuers.reading import shipped_kinds
from rotation import policy as policies
from rotation.config import (
    AppRoleAuth,
    Config,
    ConfigError,
    EntryReference,
    EnvReference,
    Fault,
    GeneratedConfig,
    Handling,
    KeyVaultConfig,
    OpenAIConfig,
    SecretsManagerConfig,
    TokenAuth,
    VaultConfig,
    entry_name,
    find_stack_file,
    load,
    parse,
    schema,
)
from rotation.model import Consumer, Drain, Ending, Policy

DESCRIBED = ", ".join(kind for kind in shipped_kinds() if kind != "openai")
STACK = """\
encryptionsalt: v1:IU5lVmkSkTY=
config:
  aws:region: eu-west-1
  aws:secretKey: {secure: AAABAPg}
  keyturn:installation: acme
  keyturn:environment: prod
  keyturn:stores:
    aws: {kind: aws-secrets-manager, region: eu-west-1, prefix: team/, replicaRegions: [eu-west-2], recoveryWindow: 1w}
    azure: {kind: azure-key-vault, vaultUrl: https://acme.vault.azure.net/}
    vault:
      kind: hashicorp-vault
      address: https://vault.acme.example:8200
      namespace: platform/secrets
      prefix: keyturn
      caBundle: certs/ca.pem
      auth: {method: approle, roleId: {env: ROLE_ID}, secretId: {env: SECRET_ID}}
    near: {kind: hashicorp-vault, address: http://127.0.0.1:8200}
  keyturn:issuers:
    openai: {kind: openai, project: proj_1, admin: {env: OPENAI_ADMIN_KEY}}
    shared: {kind: openai, project: proj_2, serviceAccount: svc_acct_1, admin: {store: vault, name: shared/openai-admin}}
    passwords: {kind: generated, length: 20}
  keyturn:owners:
    support-platform: {notify: []}
  keyturn:secrets:
    - name: support-copilot-chat
      store: aws
      replicas: [vault, azure]
      issuer: openai
      owner: support-platform
      consumers: [{name: support-api, refreshWithin: 30m}, {name: support-web}]
      rotateEvery: 30d
      grace: 2d
      drain: {quietFor: 2h, atMost: 7d, then: revoke}
      containAfter: 10m
      smokeTest: true
      pairedWith: support-copilot-batch
      format: {text: "Authorization: Bearer {value}"}
      tags: {team: support, cost-centre: "42"}
      adopt: true
      adoptKeyId: key_8Yb2
    - name: support-copilot-batch
      store: aws
      issuer: openai
      owner: support-platform
      rotateEvery: 30d
      pairedWith: support-copilot-chat
"""

POLICIES = (
    Policy(
        installation="acme",
        environment="prod",
        name="support-copilot-chat",
        store="aws",
        issuer="openai",
        owner="support-platform",
        rotate_every=timedelta(days=30),
        grace=timedelta(days=2),
        replicas=("vault", "azure"),
        drain=Drain(timedelta(hours=2), timedelta(days=7), Ending.REVOKE),
        contain_after=timedelta(minutes=10),
        consumers=(Consumer("support-api", timedelta(minutes=30)), Consumer("support-web", timedelta(minutes=15))),
        paired_with="support-copilot-batch",
        smoke_test=True,
        form="text Authorization: Bearer {value}",
        tags=(("cost-centre", "42"), ("team", "support")),
    ),
    Policy(
        installation="acme",
        environment="prod",
        name="support-copilot-batch",
        store="aws",
        issuer="openai",
        owner="support-platform",
        rotate_every=timedelta(days=30),
        grace=timedelta(hours=24),
        drain=Drain(timedelta(hours=1), timedelta(days=14), Ending.HOLD),
        contain_after=timedelta(minutes=5),
        paired_with="support-copilot-chat",
    ),
)


def values() -> dict[str, Any]:
    """The values of STACK, as a mapping that a test may change."""
    return {k: copy.deepcopy(v) for k, v in yaml.safe_load(STACK)["config"].items() if k.startswith("keyturn:")}


def as_pulumi_hands_it(mapping: dict[str, Any]) -> dict[str, Any]:
    structured = ("keyturn:stores", "keyturn:issuers", "keyturn:owners", "keyturn:secrets")
    return {key: json.dumps(value) if key in structured else value for key, value in mapping.items()}


def written(folder: Path, text: str, name: str = "Pulumi.prod.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def check_whole(config: Config) -> None:
    assert (config.installation, config.environment) == ("acme", "prod")
    assert config.policies == POLICIES
    adopted, made = Handling(adopt=True, adopt_key_id="key_8Yb2"), Handling()
    assert config.handling == {"support-copilot-chat": adopted, "support-copilot-batch": made}
    aws, azure, vault, near = (config.stores[name] for name in ("aws", "azure", "vault", "near"))
    assert isinstance(aws, SecretsManagerConfig)
    assert (aws.region, aws.replica_regions, aws.recovery_window) == ("eu-west-1", ("eu-west-2",), timedelta(days=7))
    assert isinstance(azure, KeyVaultConfig)
    assert (azure.vault_url, azure.verify_challenge_resource) == ("https://acme.vault.azure.net", True)
    assert isinstance(vault, VaultConfig)
    assert isinstance(vault.auth, AppRoleAuth)
    assert (vault.auth.role_id.env, vault.auth.secret_id.env) == ("ROLE_ID", "SECRET_ID")
    assert isinstance(near, VaultConfig)
    assert (near.mount, near.auth) == ("secret", TokenAuth(method="token"))
    openai, shared, passwords = (config.issuers[name] for name in ("openai", "shared", "passwords"))
    assert isinstance(openai, OpenAIConfig)
    assert openai.admin == EnvReference(env="OPENAI_ADMIN_KEY")
    assert isinstance(shared, OpenAIConfig)
    assert shared.admin == EntryReference(store="vault", name="shared/openai-admin")
    assert isinstance(passwords, GeneratedConfig)
    assert passwords.length == 20
    assert config.owners.keys() == {"support-platform"}


def test_a_stack_file_is_read(tmp_path: Path) -> None:
    """Everything that is declared arrives; what is left out has its default; other namespaces are left alone."""
    config = load(written(tmp_path, STACK))
    check_whole(config)
    assert config.root == tmp_path


@pytest.mark.parametrize("hand_over", [as_pulumi_hands_it, dict], ids=["json", "structures"])
def test_pulumis_values_are_read(hand_over: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A program gets strings, structured ones as JSON, among the keys of other namespaces."""
    check_whole(parse({**hand_over(values()), "aws:region": "eu-west-1"}))


def test_a_stack_may_declare_nothing_yet(tmp_path: Path) -> None:
    """Stores, issuers, owners and secrets come one after the other."""
    text = "config:\n  keyturn:installation: acme\n  keyturn:environment: prod\n  keyturn:secrets:\n"
    config = load(written(tmp_path, text))
    assert (config.stores, config.issuers, config.owners, config.policies) == ({}, {}, {}, ())


def test_bare_keys_belong_to_the_project(tmp_path: Path) -> None:
    """Pulumi lets a stack file leave the project's own namespace out."""
    check_whole(load(written(tmp_path, STACK.replace("  keyturn:", "  "))))


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    """What secrets have in common is written once; a key of one's own wins over a merged one."""
    common = "{store: near, issuer: openai, owner: support-platform, rotateEvery: 30d, grace: 1h}"
    head = STACK[: STACK.index("    - name")]
    secrets = f"    - &a {{<<: &c {common}, name: one-chat}}\n    - {{name: two-chat, <<: [*c, *a], grace: 2h}}\n"
    one, two = load(written(tmp_path, head + secrets)).policies
    assert (one.name, one.store, one.grace) == ("one-chat", "near", timedelta(hours=1))
    assert (two.name, two.store, two.grace) == ("two-chat", "near", timedelta(hours=2))


@pytest.mark.parametrize(
    ("declared", "form"),
    [
        ("raw", ""),
        ({"json": {"OPENAI_API_KEY": "value"}}, "json OPENAI_API_KEY=value"),
        ({"text": "https://:{value}@proxy/?a=1&b={}"}, "text https://:{value}@proxy/?a=1&b={}"),
    ],
)
def test_formats_become_forms(declared: object, form: str) -> None:
    """What is chosen for consumers arrives in the policy, and survives a store's metadata."""
    mapping = values()
    setting("secrets.0.format", declared)(mapping)
    policy = parse(mapping).policies[0]
    assert policy.form == form
    assert policies.read(policies.written(policy)) == policy


@pytest.mark.parametrize(
    ("store", "name"),
    [("aws", "team/prod/support-chat"), ("azure", "prod--support-chat"), ("vault", "prod/support-chat")],
)
def test_entries_are_named_as_their_store_can(store: str, name: str) -> None:
    """Slashes where they are folders, dashes in Key Vault; Vault's own prefix is the store's matter."""
    assert entry_name(parse(values()).stores[store], "prod", "support-chat") == name


Change = Callable[[dict[str, Any]], object]


def setting(path: str, value: object) -> Change:
    """Puts a value at a path such as `secrets.0.grace`."""

    def change(mapping: dict[str, Any]) -> None:
        first, *steps = path.split(".")
        place: Any = mapping
        last: Any = f"keyturn:{first}"
        for step in steps:
            place, last = place[last], int(step) if step.isdecimal() else step
        place[last] = value

    return change


def without(path: str) -> Change:
    """Takes away what stands at a path."""

    def change(mapping: dict[str, Any]) -> None:
        first, *steps = path.split(".")
        place: Any = mapping
        last: Any = f"keyturn:{first}"
        for step in steps:
            place, last = place[last], int(step) if step.isdecimal() else step
        del place[last]

    return change


def all_of(*changes: Change) -> Change:
    return lambda mapping: [change(mapping) for change in changes]


UNPAIRED = all_of(without("secrets.0.pairedWith"), without("secrets.1.pairedWith"))

KEYS = "kind, address, mount, namespace, prefix, caBundle, auth, callsPerSecond"
SECRET_KEYS = (
    "name, store, replicas, issuer, owner, consumers, rotateEvery, schedule, grace, drain, containAfter, pairedWith, "
    "smokeTest, allowedCidrs, allowedVpces, format, tags, adopt, adoptKeyId, forceRevoke"
)
FORMAT = "raw, {json: {KEY: FIELD, …}} or {text: 'TEMPLATE with each {FIELD}'}"
TAGS = "a mapping of at most 10 tags, NAME: TEXT"
TAG_NAME = (
    "has a tag whose name not every store can hold; allowed: 1 to 64 letters, digits and _.:/+@-, not starting with"
)
SPAN = "a number and one of w, d, h, m, s, as in 30d or 1h30m"
STORES = "aws, azure, vault, near"
KINDS = "aws-secrets-manager, azure-key-vault, hashicorp-vault"
REFERENCE = "must be a reference, never the credential itself"
FORMS = "{env: NAME} or {store: STORE, name: ENTRY}"
ENCRYPTED = (
    f"is an encrypted value; a configuration holds no secrets, not even so; allowed: references to them, {FORMS}"
)
LABEL = "must be lower case letters, digits and single '-', starting with a letter, not ending in '-pending'"
NAME = "must be <service>-<purpose> in lower case letters, digits and '-', as in support-copilot-chat"
OWN = "must not contain '--' or end in '-pending', '-journal' or '-policy': those mark entries of Keyturn's own"
ADDRESS = "is not an address, or has a user, query or fragment; allowed: https://HOST[:PORT][/PATH]"
FOLDERS = "is not a path; allowed: names of letters, digits, _, . and -, with / between them"
AUTH = (
    "{method: token}, {method: approle, roleId: {env: NAME}, secretId: {env: NAME}}, "
    "{method: kubernetes, role: ROLE}, {method: jwt, role: ROLE, token: {env: NAME}} or {method: aws, role: ROLE}"
)
METHODS = "token, approle, kubernetes, jwt, aws"
WORKLOAD = "{env: NAME} or {file: PATH}"
AUTH_ROLE = "the name of a role of the method"
OPEN = "would send credentials unencrypted; allowed: https, and http for 127.0.0.1, ::1 and localhost"
VARIABLE = "must be the name of an environment variable, never the value itself; allowed: as in OPENAI_ADMIN_KEY"

FAULTS: list[tuple[Change, str]] = [
    # unknown keys
    (
        setting("secret", []),
        (
            "secret: unknown key (did you mean secrets?); "
            "allowed: installation, environment, stores, issuers, channels, notices, owners, defaults, audit, fingerprints, webhook, secrets"
        ),
    ),
    (setting("stores.near.adress", "x"), f"stores.near.adress: unknown key (did you mean address?); allowed: {KEYS}"),
    (setting("stores.near.colour", "x"), f"stores.near.colour: unknown key; allowed: {KEYS}"),
    (
        setting("stores.vault.auth.role", "x"),
        "stores.vault.auth.role: unknown key (did you mean roleId?); allowed: method, mount, roleId, secretId",
    ),
    (
        setting("stores.vault.auth", {"method": "kubernetes", "role": "r", "tokenfile": "x"}),
        "stores.vault.auth.tokenfile: unknown key (did you mean tokenFile?); allowed: method, role, mount, tokenFile",
    ),
    (
        setting("stores.vault.auth", {"method": "jwt", "role": "r", "token": {"env": "JWT"}, "tokenFile": "x"}),
        "stores.vault.auth.tokenFile: unknown key (did you mean token?); allowed: method, role, mount, token",
    ),
    (
        setting("stores.vault.auth", {"method": "jwt", "role": "r", "token": {"env": "JWT", "file": "x"}}),
        "stores.vault.auth.token.file: unknown key; allowed: env",
    ),
    (
        setting("stores.vault.auth", {"method": "aws", "role": "r", "header": "x"}),
        (
            "stores.vault.auth.header: unknown key (did you mean headerValue?); "
            "allowed: method, role, mount, headerValue, region"
        ),
    ),
    (
        setting("issuers.openai.admin.nme", "x"),
        "issuers.openai.admin.nme: unknown key; allowed: env",
    ),
    (
        setting("owners.support-platform.notfy", []),
        "owners.support-platform.notfy: unknown key (did you mean notify?); allowed: notify, notifyBefore",
    ),
    (
        setting("secrets.0.rotate_every", "1d"),
        f"secrets[0].rotate_every: unknown key (did you mean rotateEvery?); allowed: {SECRET_KEYS}",
    ),
    (
        setting("secrets.0.drain.than", "hold"),
        "secrets[0].drain.than: unknown key (did you mean then?); allowed: quietFor, atMost, then",
    ),
    (
        setting("secrets.0.consumers.1.refresh", "1m"),
        "secrets[0].consumers[1].refresh: unknown key (did you mean refreshWithin?); allowed: name, refreshWithin, onRotate",
    ),
    # kinds and methods
    (without("stores.aws.kind"), f"stores.aws.kind: is missing; allowed: {KINDS}"),
    (
        setting("stores.vault.kind", "hashicorp-valt"),
        f"stores.vault.kind: is not known (did you mean hashicorp-vault?); allowed: {KINDS}",
    ),
    (
        setting("issuers.openai.kind", "acme"),
        f"issuers.openai.kind: is not known; allowed: openai, aws-iam, postgresql, {DESCRIBED}, http, generated, passphrase and 1 more",
    ),
    (
        setting("stores.vault.auth.method", "aprole"),
        f"stores.vault.auth.method: is not known (did you mean approle?); allowed: {METHODS}",
    ),
    (setting("secrets.0.drain.then", "drop"), "secrets[0].drain.then: is not known; allowed: hold or revoke"),
    # wrong types
    (setting("installation", {"a": "b"}), "installation: must be text"),
    (setting("stores", []), "stores: must be a mapping; allowed: {NAME: {…}}"),
    (setting("issuers", "openai"), "issuers: must be a mapping; allowed: {NAME: {…}}"),
    (setting("secrets", {}), "secrets: must be a list; allowed: [{name: NAME, …}]"),
    (setting("stores.near", "vault"), "stores.near: must be a mapping"),
    (
        lambda v: v["keyturn:stores"].update(again=v["keyturn:stores"]["near"]),
        "stores.again: is the same place as stores.near; allowed: one name for each place",
    ),
    (setting("owners.support-platform", []), "owners.support-platform: must be a mapping"),
    (setting("secrets.1", "support-copilot-batch"), "secrets[1]: must be a mapping"),
    (setting("stores.aws.region", 1), "stores.aws.region: must be text; allowed: an AWS region, as in eu-west-1"),
    (setting("stores.aws.region", ""), "stores.aws.region: must not be empty; allowed: an AWS region, as in eu-west-1"),
    (
        setting("stores.azure.verifyChallengeResource", "no"),
        (
            "stores.azure.verifyChallengeResource: must be true or false; "
            "allowed: true, or false for a vault whose host is not under the cloud's own domain"
        ),
    ),
    (
        setting("issuers.passwords.length", "20"),
        "issuers.passwords.length: must be a whole number; allowed: characters of a value, at most 4096",
    ),
    (
        setting("secrets.0.replicas", "vault"),
        "secrets[0].replicas: must be a list; allowed: a list of names of stores",
    ),
    (setting("secrets.0.replicas.1", 7), "secrets[0].replicas[1]: must be text; allowed: a list of names of stores"),
    (setting("secrets.0.smokeTest", "yes"), "secrets[0].smokeTest: must be true or false; allowed: true or false"),
    (setting("secrets.0.rotateEvery", 30), f"secrets[0].rotateEvery: is not a duration; allowed: {SPAN}"),
    (setting("secrets.0.grace", "1 day"), f"secrets[0].grace: is not a duration; allowed: {SPAN}"),
    (setting("secrets.0.drain.atMost", "-1d"), f"secrets[0].drain.atMost: is not a duration; allowed: {SPAN}"),
    (setting("secrets.0.containAfter", ""), f"secrets[0].containAfter: is not a duration; allowed: {SPAN}"),
    (
        setting("secrets.0.consumers.0.refreshWithin", None),
        f"secrets[0].consumers[0].refreshWithin: is not a duration; allowed: {SPAN}",
    ),
    (
        setting("owners.support-platform.notify", ["#support"]),
        "owners.support-platform.notify[0].channel: there is no such channel; allowed: nothing, as there is none",
    ),
    # missing fields
    (
        without("installation"),
        "installation: is missing; allowed: lower case letters, digits and '-', starting with a letter",
    ),
    (
        without("environment"),
        "environment: is missing; allowed: lower case letters, digits and '-', starting with a letter",
    ),
    (without("stores.near.address"), "stores.near.address: is missing; allowed: https://HOST:PORT"),
    (without("stores.vault.auth.secretId"), "stores.vault.auth.secretId: is missing; allowed: {env: NAME}"),
    (
        without("issuers.openai.project"),
        "issuers.openai.project: is missing; allowed: the id of a project, as in proj_abc",
    ),
    (without("issuers.openai.admin"), f"issuers.openai.admin: is missing; allowed: {FORMS}"),
    (
        without("issuers.shared.admin.name"),
        "issuers.shared.admin.name: is missing; allowed: the entry's own name in that store",
    ),
    (without("issuers.shared.admin.store"), "issuers.shared.admin.store: is missing; allowed: the name of a store"),
    (without("secrets.1.owner"), "secrets[1].owner: is missing; allowed: the name of an owner"),
    (without("secrets.1.rotateEvery"), f"secrets[1].rotateEvery: is missing; allowed: {SPAN}"),
    (without("secrets.0.consumers.1.name"), "secrets[0].consumers[1].name: is missing; allowed: a name"),
    # duplicates
    (
        lambda v: v["keyturn:secrets"].append({**v["keyturn:secrets"][1], "pairedWith": None}),
        "secrets[2].name: support-copilot-batch is the name of secrets[1] already; allowed: each name once",
    ),
    (
        setting("secrets.0.replicas", ["vault", "azure", "vault"]),
        "secrets[0].replicas[2]: vault is named twice; allowed: each store once",
    ),
    (
        setting("secrets.0.consumers.1.name", "support-api"),
        "secrets[0].consumers[1].name: support-api is named twice; allowed: each consumer once",
    ),
    # references
    (
        setting("secrets.1.store", "asw"),
        f"secrets[1].store: there is no such store (did you mean aws?); allowed: {STORES}",
    ),
    (setting("secrets.0.replicas.0", "gcp"), f"secrets[0].replicas[0]: there is no such store; allowed: {STORES}"),
    (
        setting("secrets.1.issuer", "opnai"),
        "secrets[1].issuer: there is no such issuer (did you mean openai?); allowed: openai, shared, passwords",
    ),
    (setting("secrets.1.owner", "nobody"), "secrets[1].owner: there is no such owner; allowed: support-platform"),
    (
        setting("issuers.shared.admin.store", "valt"),
        f"issuers.shared.admin.store: there is no such store (did you mean vault?); allowed: {STORES}",
    ),
    (
        setting("secrets.0.replicas.1", "aws"),
        "secrets[0].replicas[1]: aws is the primary store already; allowed: azure, vault, near",
    ),
    # pairs
    (
        all_of(without("secrets.0.pairedWith"), setting("secrets.1.pairedWith", "support-copilot-cat")),
        (
            "secrets[1].pairedWith: there is no such secret (did you mean support-copilot-chat?); "
            "allowed: support-copilot-chat"
        ),
    ),
    (
        all_of(without("secrets.0.pairedWith"), setting("secrets.1.pairedWith", "support-copilot-batch")),
        "secrets[1].pairedWith: is the secret itself; allowed: support-copilot-chat",
    ),
    (
        without("secrets.1.pairedWith"),
        (
            "secrets[0].pairedWith: support-copilot-batch is not paired with support-copilot-chat; "
            "allowed: pairs that name each other"
        ),
    ),
    # durations that do not fit each other
    (
        all_of(setting("secrets.0.grace", "40d"), setting("secrets.0.drain.atMost", "50d")),
        "secrets[0].grace: 40d is longer than rotateEvery (30d); allowed: at most 30d",
    ),
    (
        setting("secrets.1.rotateEvery", "12h"),
        "secrets[1].grace: 1d, the default, is longer than rotateEvery (12h); allowed: at most 12h",
    ),
    (
        setting("secrets.0.consumers.0.refreshWithin", "3d"),
        "secrets[0].consumers[0].refreshWithin: 3d is longer than grace (2d); allowed: at most 2d",
    ),
    (
        setting("secrets.0.drain.atMost", "36h"),
        "secrets[0].drain.atMost: 1d12h is shorter than grace (2d); allowed: at least 2d",
    ),
    (
        all_of(UNPAIRED, setting("secrets.1.grace", "20d")),
        "secrets[1].drain.atMost: 14d, the default, is shorter than grace (20d); allowed: at least 20d",
    ),
    (
        setting("secrets.0.drain.quietFor", "8d"),
        "secrets[0].drain.quietFor: 8d is longer than atMost (7d); allowed: at most 7d",
    ),
    (
        all_of(setting("secrets.1.rotateEvery", "3h"), setting("secrets.1.grace", "1h")),
        "secrets[1].rotateEvery: 3h is out of range; allowed: 4h to 1000d",
    ),
    (
        setting("secrets.1.rotateEvery", "1001d"),
        "secrets[1].rotateEvery: 1001d is out of range; allowed: 4h to 1000d",
    ),
    (
        all_of(setting("secrets.0.grace", "10m"), setting("secrets.0.consumers", [])),
        "secrets[0].grace: 10m is shorter than an attempt in azure may live (15m); allowed: at least 15m",
    ),
    # formats and tags
    (setting("secrets.1.format", "yaml"), f"secrets[1].format: is not a format; allowed: {FORMAT}"),
    (setting("secrets.1.format", {"json": ["value"]}), f"secrets[1].format: is not a format; allowed: {FORMAT}"),
    (setting("secrets.1.format", {"json": {"a": 1}}), f"secrets[1].format: is not a format; allowed: {FORMAT}"),
    (
        setting("secrets.1.format", {"json": {"a": "value"}, "text": "{value}"}),
        f"secrets[1].format: is not a format; allowed: {FORMAT}",
    ),
    (
        setting("secrets.1.format", {"json": {"a=b": "value"}}),
        f"secrets[1].format: must have names without =; allowed: {FORMAT}",
    ),
    (
        setting("secrets.1.format", {"text": "postgresql://app@db"}),
        f"secrets[1].format: must name each field once, as in {{value}}; allowed: {FORMAT}",
    ),
    (
        setting("secrets.1.format", {"text": "{value} {Value}"}),
        (
            "secrets[1].format: has braces that name no field: fields are lower case letters, digits and _; "
            f"allowed: {FORMAT}"
        ),
    ),
    (
        setting("secrets.1.format", {"text": "{value}" + "x" * 501}),
        "secrets[1].format: takes 513 characters in the store's metadata; allowed: at most 512",
    ),
    (
        setting("secrets.1.format", {"text": "{valu}"}),
        "secrets[1].format: openai has no field valu (did you mean value?); allowed: each of value, once",
    ),
    (
        setting("secrets.1.format", {"json": {"KEY": "value", "ID": "key_id"}}),
        "secrets[1].format: openai has no field key_id; allowed: each of value, once",
    ),
    (
        setting("secrets.1.tags", ["team"]),
        f"secrets[1].tags: is not a list of tags, or has too many; allowed: {TAGS}",
    ),
    (
        setting("secrets.1.tags", {f"t{i}": "x" for i in range(11)}),
        f"secrets[1].tags: is not a list of tags, or has too many; allowed: {TAGS}",
    ),
    (setting("secrets.1.tags", {"AWS:x": "y"}), f"secrets[1].tags: {TAG_NAME} aws: or keyturn"),
    (setting("secrets.1.tags", {"my team": "y"}), f"secrets[1].tags: {TAG_NAME} aws: or keyturn"),
    *(
        (
            setting("secrets.1.tags", {"team": text}),
            (
                "secrets[1].tags: has a tag team whose text not every store can hold; "
                "allowed: 1 to 256 letters, digits, _.:/=+@- and spaces within, as text"
            ),
        )
        for text in (42, "", " a", "ü", "a" * 257, "a\n")
    ),
    (
        all_of(
            setting("secrets.0.format", {"text": "{value}" + "x" * 400}),
            setting("secrets.0.tags", {f"t{i}": "x" for i in range(9)}),
        ),
        (
            "secrets[0].tags: with the rest of the policy take 27 tags in aws; "
            "allowed: at most 26, to leave room for the journal"
        ),
    ),
    (
        all_of(
            setting("secrets.1.store", "azure"),
            setting("secrets.1.format", {"text": "{value}" + "x" * 493}),
            setting("secrets.1.tags", {f"{i}" * 20: "x" * 256 for i in range(10)}),
        ),
        ("secrets[1].tags: with the rest of the policy take 3653 characters in azure; allowed: at most 3584"),
    ),
    (
        setting("secrets.1.adoptKeyId", "key_1"),
        "secrets[1].adoptKeyId: has no effect without adopt; allowed: together with adopt: true",
    ),
    # names
    (setting("installation", "Acme"), f"installation: {LABEL}"),
    (
        setting("environment", "prod-eu"),
        "environment: must be lower case letters and digits, starting with a letter, without '-'",
    ),
    (setting("stores.my store", {"kind": "aws-secrets-manager", "region": "x"}), f"stores.my store: {LABEL}"),
    (setting("owners.Team", {}), f"owners.Team: {LABEL}"),
    (setting("secrets.0.consumers.1.name", "a=b"), f"secrets[0].consumers[1].name: {LABEL}"),
    (
        all_of(UNPAIRED, setting("secrets.1.name", "chat")),
        f"secrets[1].name: {NAME}",
    ),
    (
        all_of(UNPAIRED, setting("secrets.1.name", "chat-bot-pending")),
        f"secrets[1].name: {OWN}",
    ),
    (
        all_of(setting("stores.aws.prefix", "p" * 480), setting("secrets.0.store", "near")),
        "secrets[1].name: takes 514 characters in aws, prefix and '-pending' included; allowed: at most 512",
    ),
    (
        lambda v: [
            v["keyturn:stores"].update({f"{c * 30}": v["keyturn:stores"]["near"] | {"mount": c} for c in "abcd"}),
            setting("secrets.1.replicas", [c * 30 for c in "abcd"] + ["near"])(v),
        ],
        "secrets[1].replicas: the names of its stores take 132 characters; allowed: at most 101",
    ),
    (
        setting("secrets.1.consumers", [{"name": f"support-reader-{i:02}"} for i in range(12)]),
        "secrets[1].consumers: take 263 characters in the store's metadata; allowed: at most 256",
    ),
    # secrets where there must be none
    (setting("installation", {"secure": "AAABAPg"}), f"installation: {ENCRYPTED}"),
    (setting("issuers.openai.admin", {"secure": "AAABAPg"}), f"issuers.openai.admin: {ENCRYPTED}"),
    (setting("secrets.0.replicas.1", {"secure": "AAABAPg"}), f"secrets[0].replicas[1]: {ENCRYPTED}"),
    (setting("apiKey", {"secure": "AAABAPg"}), f"apiKey: {ENCRYPTED}"),
    (setting("issuers.openai.admin", "sk-admin-canary"), f"issuers.openai.admin: {REFERENCE}; allowed: {FORMS}"),
    (setting("issuers.openai.admin", {}), f"issuers.openai.admin: {REFERENCE}; allowed: {FORMS}"),
    (setting("issuers.openai.admin.env", "sk-admin-canary"), f"issuers.openai.admin.env: {VARIABLE}"),
    (setting("stores.vault.auth.roleId", "canary"), f"stores.vault.auth.roleId: {REFERENCE}; allowed: {{env: NAME}}"),
    *(
        (setting("stores.vault.auth", {"method": "jwt", "role": "r", "token": token}), f"stores.vault.auth.token{told}")
        for token, told in (
            ("eyJ-canary", f": {REFERENCE}; allowed: {WORKLOAD}"),
            ({}, f": {REFERENCE}; allowed: {WORKLOAD}"),
            ({"env": "eyJ-canary"}, f".env: {VARIABLE}"),
            ({"file": ""}, ".file: must not be empty; allowed: the path of a file, relative to this file"),
        )
    ),
    *(
        (
            setting("stores.vault.auth", {"method": method, **more}),
            f"stores.vault.auth.role: is missing; allowed: {AUTH_ROLE}",
        )
        for method, more in (("kubernetes", {}), ("jwt", {"token": {"env": "JWT"}}), ("aws", {}))
    ),
    (
        setting("stores.vault.auth", {"method": "jwt", "role": "r"}),
        f"stores.vault.auth.token: is missing; allowed: {WORKLOAD}",
    ),
    (
        setting("stores.vault.auth", {"method": "kubernetes", "role": 5}),
        f"stores.vault.auth.role: must be text; allowed: {AUTH_ROLE}",
    ),
    (
        setting("stores.vault.auth", {"method": "kubernetes", "role": "r", "mount": "../sys"}),
        f"stores.vault.auth.mount: {FOLDERS}",
    ),
    (
        setting("stores.vault.auth", {"method": "aws", "role": "r", "headerValue": "two\nlines"}),
        (
            "stores.vault.auth.headerValue: has the wrong form; "
            "allowed: what the method's iam_server_id_header_value asks for, without spaces"
        ),
    ),
    (
        setting("stores.vault.auth", {"method": "aws", "role": "r", "region": "Frankfurt"}),
        (
            "stores.vault.auth.region: has the wrong form; "
            "allowed: the region of the method's sts_endpoint, as in eu-west-1; none for the global one"
        ),
    ),
    (setting("stores.vault.auth", "hvs.canary"), f"stores.vault.auth: must be a mapping; allowed: {AUTH}"),
    (setting("stores.near.address", "https://me:canary@vault.acme.example"), f"stores.near.address: {ADDRESS}"),
    # addresses, paths and what else has a form
    (setting("stores.near.address", "vault.acme.example:8200"), f"stores.near.address: {ADDRESS}"),
    (
        setting("stores.near.address", "https://vault:port"),
        "stores.near.address: is not an address; allowed: https://HOST[:PORT][/PATH]",
    ),
    (setting("stores.near.address", "http://vault.acme.example"), f"stores.near.address: {OPEN}"),
    (setting("issuers.openai.baseUrl", "http://127.acme.example/v1"), f"issuers.openai.baseUrl: {OPEN}"),
    (
        setting("stores.azure.vaultUrl", "http://127.0.0.1:8443"),
        (
            "stores.azure.vaultUrl: must be https, as the service's clients send no token over http; "
            "allowed: https://HOST[:PORT]"
        ),
    ),
    (
        setting("stores.azure.authorityHost", "http://127.0.0.1:8443"),
        (
            "stores.azure.authorityHost: must be https, as the service's clients send no token over http; "
            "allowed: https://HOST[:PORT]"
        ),
    ),
    (
        setting("stores.azure.clientId", ""),
        "stores.azure.clientId: must not be empty; allowed: the id of an application or managed identity",
    ),
    (
        setting("stores.azure.tenantID", "acme.example"),
        (
            "stores.azure.tenantID: unknown key (did you mean tenantId?); "
            "allowed: kind, vaultUrl, tenantId, clientId, authorityHost, caBundle, verifyChallengeResource, callsPerSecond"
        ),
    ),
    (
        setting("stores.near.callsPerSecond", 0),
        (
            "stores.near.callsPerSecond: 0 is out of range; "
            "allowed: a number above 0, at most 10000: calls that one process makes at most"
        ),
    ),
    (setting("stores.near.mount", "/secret"), f"stores.near.mount: {FOLDERS}"),
    (setting("stores.vault.prefix", "a/../b"), f"stores.vault.prefix: {FOLDERS}"),
    (
        setting("stores.aws.prefix", "te am/"),
        "stores.aws.prefix: has the wrong form; allowed: letters, digits and /_+=.@-, put before every entry's name",
    ),
    (
        setting("stores.aws.roleArn", "rotator"),
        "stores.aws.roleArn: has the wrong form; allowed: the ARN of a role to assume",
    ),
    (
        setting("stores.aws.externalId", "x1"),
        "stores.aws.externalId: has no effect without roleArn; allowed: together with roleArn",
    ),
    (
        setting("stores.aws.replicaRegions", ["eu-west-1"]),
        "stores.aws.replicaRegions: names a region twice, or the store's own; allowed: each other region once",
    ),
    (
        setting("stores.aws.replicaRegions", ["eu-west-2", "eu-west-2"]),
        "stores.aws.replicaRegions: names a region twice, or the store's own; allowed: each other region once",
    ),
    (
        setting("stores.aws.replicaRegions", "eu-west-2"),
        (
            "stores.aws.replicaRegions: must be a list; "
            "allowed: a list of other AWS regions that the service replicates entries to"
        ),
    ),
    (
        setting("stores.aws.kmsKeyId", ""),
        "stores.aws.kmsKeyId: must not be empty; allowed: the id, ARN or alias of the KMS key of new entries",
    ),
    (
        setting("stores.aws.recoveryWindow", "6d"),
        "stores.aws.recoveryWindow: 6d is out of range; allowed: 7d to 30d, in whole days",
    ),
    (
        setting("stores.aws.recoveryWindow", "31d"),
        "stores.aws.recoveryWindow: 31d is out of range; allowed: 7d to 30d, in whole days",
    ),
    (
        setting("stores.aws.recoveryWindow", "180h"),
        "stores.aws.recoveryWindow: 7d12h is out of range; allowed: 7d to 30d, in whole days",
    ),
    (
        setting("issuers.passwords.length", 13),
        "issuers.passwords.length: 13 is out of range; allowed: 14 to 4096, at least 80 bits with this alphabet",
    ),
    (
        setting("issuers.passwords.alphabet", "0123456789"),
        "issuers.passwords.length: 20 is out of range; allowed: 25 to 4096, at least 80 bits with this alphabet",
    ),
    (
        setting("issuers.passwords.alphabet", "aab"),
        (
            "issuers.passwords.alphabet: is not an alphabet; "
            "allowed: two or more printable characters without spaces, each once"
        ),
    ),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS, ids=[re.split(r"[;:]", fault)[0] for _, fault in FAULTS])
def test_each_fault_has_its_path_and_words(change: Change, fault: str) -> None:
    """One thing wrong gives one line, which names the field and what is allowed, and never repeats a value."""
    mapping = values()
    change(mapping)
    for handed in (mapping, as_pulumi_hands_it(mapping)):
        with pytest.raises(ConfigError) as raised:
            parse(handed)
        assert str(raised.value).splitlines() == [f"keyturn:{fault}"]
        assert "canary" not in str(raised.value)
        assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    """Nobody mends a file one run at a time; one mistake is not told again by what depends on it."""
    text = """\
config:
  keyturn:environment: prod
  keyturn:stores: {vault: {kind: hashicorp-vault, adress: x}}
  keyturn:issuers:
    openai: {kind: openai, project: p, admin: {env: KEY}}
  keyturn:owners: {team: {}}
  keyturn:secrets:
    - name: one
      store: vault
      issuer: openay
      owner: team
      rotateEvery: 30d
      grace: 40d
      colour: red
    - {name: two-chat, store: vault, issuer: openai, owner: team, rotateEvery: soon, grace: 1h, pairedWith: one}
    - three
"""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    first = "keyturn:secrets[0]"
    told = [
        "keyturn:installation: is missing; allowed: lower case letters, digits and '-', starting with a letter [FILE]",
        "keyturn:stores.vault.address: is missing; allowed: https://HOST:PORT [FILE:3]",
        f"keyturn:stores.vault.adress: unknown key (did you mean address?); allowed: {KEYS} [FILE:3]",
        f"{first}.name: {NAME} [FILE:8]",
        f"{first}.drain.atMost: 14d, the default, is shorter than grace (40d); allowed: at least 40d [FILE:8]",
        f"{first}.issuer: there is no such issuer (did you mean openai?); allowed: openai [FILE:10]",
        f"{first}.grace: 40d is longer than rotateEvery (30d); allowed: at most 30d [FILE:13]",
        f"{first}.colour: unknown key; allowed: {SECRET_KEYS} [FILE:14]",
        f"keyturn:secrets[1].rotateEvery: is not a duration; allowed: {SPAN} [FILE:15]",
        "keyturn:secrets[2]: must be a mapping [FILE:16]",
    ]
    assert str(raised.value).replace(str(path), "FILE").splitlines() == told


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree with every key of it."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
WORDS = st.sampled_from(["name", "env", "store", "kind", "method", "secure", "<<", "", "a.b", "token", "approle"])
JUNK = st.recursive(
    SCALARS | WORDS, lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=3)
)


def test_many_secrets_are_checked_quickly_and_listed_briefly() -> None:
    """A thousand names do not fill a terminal."""
    mapping = values()
    common = {"store": "near", "issuer": "openai", "owner": "support-platform", "rotateEvery": "30d"}
    mapping["keyturn:secrets"] = [{"name": f"load-test-{i:04}", **common} for i in range(1000)]
    assert len(parse(mapping).policies) == 1000
    setting("secrets.7.pairedWith", "another-one")(mapping)
    with pytest.raises(ConfigError) as raised:
        parse(mapping)
    names = ", ".join(f"load-test-{i:04}" for i in range(21) if i != 7)
    assert str(raised.value) == (
        f"keyturn:secrets[7].pairedWith: there is no such secret; allowed: {names} and 979 more"
    )


@given(pick=st.integers(min_value=0), junk=JUNK, drop=st.booleans())
def test_no_damage_goes_by_any_other_name(pick: int, junk: Any, drop: bool) -> None:
    """Whatever stands or is missing anywhere: a configuration or its faults, never a traceback."""
    mapping = values()
    found = places(mapping)
    container, key = found[pick % len(found)]
    if drop:
        del container[key]
    else:
        container[key] = junk
    faults: tuple[Fault, ...] = ()
    try:
        parse(as_pulumi_hands_it(mapping))
    except ConfigError as error:
        faults = error.faults
    assert all(fault.path.startswith("keyturn:") and fault.message for fault in faults)


@pytest.mark.parametrize(
    ("part", "value"), [("stores", "vault"), ("issuers", []), ("owners", 5)], ids=["stores", "issuers", "owners"]
)
def test_an_unreadable_part_is_one_fault(part: str, value: object) -> None:
    """What points into it is not called unknown as well."""
    with pytest.raises(ConfigError) as raised:
        parse({**values(), f"keyturn:{part}": value})
    assert [fault.path for fault in raised.value.faults] == [f"keyturn:{part}"]


def test_decrypted_values_are_refused() -> None:
    """Pulumi hands a program the text of a `secure:` value; it tells which keys these were."""
    with pytest.raises(ConfigError) as raised:
        parse(
            {**values(), "keyturn:apiKey": "canary"}, encrypted=["keyturn:apiKey", "keyturn:issuers", "aws:secretKey"]
        )
    assert str(raised.value).splitlines() == [f"keyturn:apiKey: {ENCRYPTED}", f"keyturn:issuers: {ENCRYPTED}"]


FILES = [
    ("config: [1]\n", "config: must be a mapping; allowed: {keyturn:KEY: VALUE, …} [FILE:1]"),
    ("- config\n", "config: must be a mapping; allowed: {keyturn:KEY: VALUE, …} [FILE]"),
    ("config:\n  a: canary: b\n", "FILE: is not YAML: mapping values are not allowed here [FILE:2]"),
    ("config: {a: *canary}\n", "FILE: is not YAML: found undefined alias 'canary' [FILE:1]"),
    ("a: 1\n---\nb: 2\n", "FILE: is not YAML: but found another document [FILE:2]"),
    ("config: \x00canary\n", "FILE: is not YAML: special characters are not allowed"),
    (
        f"{STACK}  keyturn:environment: dev\n",
        "keyturn:environment: is given twice, in lines 6 and 47; allowed: each key once [FILE:6]",
    ),
    (
        STACK.replace("  keyturn:environment: prod", "  keyturn:environment: prod\n  environment: prod"),
        "keyturn:environment: is given twice, in lines 6 and 7; allowed: each key once [FILE:6]",
    ),
    (
        STACK.replace("grace: 2d", "grace: 2d\n      grace: 3d"),
        "keyturn:secrets[0].grace: is given twice, in lines 32 and 33; allowed: each key once [FILE:32]",
    ),
    (
        STACK.replace("  aws:region: eu-west-1", "  aws:region: eu-west-1\n  aws:region: eu-west-2"),
        "aws:region: is given twice, in lines 3 and 4; allowed: each key once [FILE:3]",
    ),
    (
        STACK.replace("support-platform: {notify: []}", "support-platform: &a {notify: [*a]}"),
        "keyturn:owners.support-platform.notify[0]: contains itself [FILE:23]",
    ),
]


@pytest.mark.parametrize(("text", "told"), FILES)
def test_faults_of_the_file_itself(tmp_path: Path, text: str, told: str) -> None:
    """What a YAML parser would swallow, or say with a piece of the file, is said in one line with its place."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    lines = str(raised.value).replace(str(path), "FILE").splitlines()
    assert told in lines
    assert "canary: b" not in str(raised.value)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """Missing, a folder, or no text."""
    for path, told in (
        (tmp_path / "none.yaml", "can not be read: No such file or directory"),
        (tmp_path, "can not be read: Is a directory"),
    ):
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value) == f"{path}: {told}"
    binary = tmp_path / "Pulumi.bin.yaml"
    binary.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(binary)


def test_the_stack_file_is_found(tmp_path: Path) -> None:
    """By stack, by Pulumi's full name of a stack, or by path, which wins."""
    dev, prod = written(tmp_path, STACK, "Pulumi.dev.yaml"), written(tmp_path, STACK)
    elsewhere = written(tmp_path, STACK, "other.yaml")
    assert find_stack_file("dev", None, tmp_path) == dev
    assert find_stack_file("acme/keyturn/prod", None, tmp_path) == prod
    assert find_stack_file("dev", elsewhere, tmp_path) == elsewhere


@pytest.mark.parametrize(
    ("stack", "file", "told"),
    [
        (None, None, "--stack: no stack is named, neither here nor in KEYTURN_STACK; allowed: dev, prod"),
        ("prd", None, "--stack: there is no stack prd (did you mean prod?); allowed: dev, prod"),
        ("../x/qa", None, "--stack: there is no stack qa; allowed: dev, prod"),
        (None, Path("no.yaml"), "--config: there is no file no.yaml; allowed: files of the stacks dev, prod"),
    ],
)
def test_a_stack_that_is_not_there(tmp_path: Path, stack: str | None, file: Path | None, told: str) -> None:
    """Says which are."""
    written(tmp_path, STACK, "Pulumi.dev.yaml")
    written(tmp_path, STACK)
    with pytest.raises(ConfigError) as raised:
        find_stack_file(stack, file, tmp_path)
    assert str(raised.value) == told


def test_no_stack_at_all(tmp_path: Path) -> None:
    """Says what is looked for, and where."""
    with pytest.raises(ConfigError) as raised:
        find_stack_file("prod", None, tmp_path)
    none = f"none, as there is no Pulumi.<stack>.yaml in {tmp_path}"
    assert str(raised.value) == f"--stack: there is no stack prod; allowed: {none}"


def test_the_schema_accepts_what_is_accepted() -> None:
    """An editor that uses it marks nothing in a good file."""
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(yaml.safe_load(STACK), schema())


@pytest.mark.parametrize(
    "change",
    [
        setting("secret", []),
        setting("installation", "Acme"),
        setting("stores.near.adress", "x"),
        setting("stores.near.kind", "x"),
        setting("stores.near.mount", "/secret"),
        setting("stores.azure.vaultUrl", "http://x"),
        setting("issuers.openai.admin", "sk"),
        setting("issuers.openai.admin.env", "sk-x"),
        setting("owners.support-platform.notify", [{"channel": "x", "on": ["after"]}]),
        setting("channels", {"ops": {"apprise": "slack://token"}}),
        setting("notices", {"rotation.fail": {"subject": "x"}}),
        setting("secrets.0.consumers.0.onRotate", {"webhook": {"url": "https://x"}}),
        setting("audit", [{"s3": {"bucket": "trail", "lock": {"mode": "forever", "days": 1}}}]),
        setting("secrets.0.rotateEvery", 30),
        setting("secrets.0.grace", "1 day"),
        setting("secrets.0.drain.then", "drop"),
        setting("secrets.0.format", "text"),
        setting("secrets.0.format", {"json": {}, "text": ""}),
        setting("secrets.0.tags", {"team": ""}),
        without("secrets.0.owner"),
    ],
)
def test_the_schema_marks_what_one_field_can_show(change: Change) -> None:
    """Editors see the same faults of form as commands do."""
    mapping = values()
    change(mapping)
    assert not jsonschema.Draft202012Validator(schema()).is_valid({"config": mapping})


WEBHOOK = {"secret": {"env": "HOOK_SECRET"}, "token": {"store": "vault", "name": "shared/github"}}


def test_alerts_are_taken_in_as_declared() -> None:
    """With what is usual: GitHub's own API, and plans only."""
    found = parse({**values(), "webhook": WEBHOOK}).webhook
    assert found is not None
    assert (found.api, found.act, found.owner) == ("https://api.github.com", False, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"secret": "a-value"}, "keyturn:webhook.secret: must be a reference, never the credential itself"),
        (
            {"token": {"store": "vualt", "name": "a"}},
            "webhook.token.store: there is no such store (did you mean vault?)",
        ),
        ({"api": "http://github.example"}, "keyturn:webhook.api: would send credentials unencrypted"),
        ({"act": "yes"}, "keyturn:webhook.act: must be true or false"),
        ({"owner": "nobody"}, "keyturn:webhook.owner: there is no such owner"),
        ({"acts": True}, "keyturn:webhook.acts: unknown key (did you mean act?)"),
    ],
)
def test_what_can_not_take_in_alerts(change: dict[str, Any], told: str) -> None:
    """Each with its field and what is allowed."""
    with pytest.raises(ConfigError) as raised:
        parse({**values(), "webhook": WEBHOOK | change})
    assert told in str(raised.value)
    assert "a-value" not in str(raised.value)
