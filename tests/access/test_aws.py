"""Rotations under the printed IAM policies, with enforcement on in the stand-in for Secrets Manager."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from providers.access import aws
from providers.stores.aws import AwsLogin, SecretsManagerStore
from rotation.access import Persona
from rotation.declared import Config
from rotation.errors import Code, Trouble
from rotation.model import Credential
from rotation.ports import SecretStore
from rotation.provision import Applied, Refusal
from rotation.sections import SecretsManagerConfig
from sandbox.aws.server import AwsServer
from tests.access.life import ADMIN, BATCH, CHAT, DAY, PARTS, Part, Site, attempts, site_config
from tests.world import FakeClock

HERE, THERE, COPY = "eu-west-1", "eu-central-1", "us-east-1"
NETWORK = "127.0.0.0/8"
"""Where the tests come from."""
SERVICE = "secretsmanager:"


@dataclass
class AwsSite(Site):
    """A primary in one region, replicated by the service itself, and a replica of Keyturn's in another."""

    server: AwsServer = field(kw_only=True)

    def store(self, name: str, persona: Persona | None) -> SecretStore:
        about = self.config.stores[name]
        assert isinstance(about, SecretsManagerConfig)
        return SecretsManagerStore(
            name,
            region=about.region,
            endpoint_url=self.server.endpoint,
            login=AwsLogin(role_arn=role_arn(self.server, persona) if persona else None),
            replica_regions=about.replica_regions,
            rotation_function=about.rotation_function,
            exempt_roles=about.exempt_roles,
            clock=self.clock,
        )

    def put_by_hand(self, store: str, entry: str, value: str) -> None:
        about = self.config.stores[store]
        assert isinstance(about, SecretsManagerConfig)
        console = self.server.client("secretsmanager", region=about.region)
        try:
            console.put_secret_value(SecretId=entry, SecretString=value)
        except console.exceptions.ResourceNotFoundException:
            console.create_secret(Name=entry, SecretString=value)

    def remove(self, store: str, entry: str) -> None:
        about = self.config.stores[store]
        assert isinstance(about, SecretsManagerConfig)
        console = self.server.client("secretsmanager", region=about.region)
        for copies in console.describe_secret(SecretId=entry).get("ReplicationStatus", ()):
            console.restore_secret(SecretId=entry)
            console.remove_regions_from_replication(SecretId=entry, RemoveReplicaRegions=[copies["Region"]])
        console.delete_secret(SecretId=entry, ForceDeleteWithoutRecovery=True)

    def document(self, persona: Persona, *names: str, mints: bool = False) -> dict[str, Any]:
        """What `keyturn policy aws` prints."""
        found = self.needs(persona, *names, mints=mints)
        stores = ((name, self.config.stores[name], access) for name, access in found.items())
        return aws.document(
            (n, about, access) for n, about, access in stores if isinstance(about, SecretsManagerConfig)
        )

    def grant(self, persona: Persona, document: dict[str, Any]) -> None:
        self.server.client("iam").put_role_policy(
            RoleName=f"keyturn-{persona.value}", PolicyName="printed", PolicyDocument=json.dumps(document)
        )

    def calls(self, persona: Persona) -> Iterator[tuple[str, str, str, str]]:
        """Action, region, entry and outcome of every call that the persona has made."""
        sessions = {
            role.access_key_id
            for role in self.server._identity._sts.assumed_roles
            if role.role_arn == role_arn(self.server, persona)
        }
        for call in self.server.control.calls():
            if call.operation.startswith(SERVICE) and call.access_key_id in sessions:
                yield call.operation, call.region, call.subject, call.outcome

    def session(self, persona: Persona) -> tuple[str, str, str]:
        """Credentials of its own making, for a client of another's."""
        arn = role_arn(self.server, persona)
        key = self.server.client("sts").assume_role(RoleArn=arn, RoleSessionName="by-hand")["Credentials"]
        return key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]

    def denied(self, persona: Persona) -> list[str]:
        return [f"{action} {entry}" for action, _, entry, outcome in self.calls(persona) if "Denied" in outcome]

    def used(self, persona: Persona) -> set[tuple[str, str, str]]:
        """Action, region and entry; a look at what is not there ends in `?`; tags of a new entry are a use of their own."""
        found = set()
        for action, region, entry, outcome in self.calls(persona):
            assert "Denied" not in outcome, f"{action} {entry}"
            missing = outcome == "ResourceNotFoundException" and action == f"{SERVICE}DescribeSecret"
            found.add((action, region if entry else "", entry + ("?" if missing else "")))
            if action == f"{SERVICE}CreateSecret" and region == HERE:
                found.add((f"{SERVICE}ReplicateSecretToRegions", region, entry))
        return found


def role_arn(server: AwsServer, persona: Persona) -> str:
    return f"arn:aws:iam::{server.account_id}:role/keyturn-{persona.value}"


def granted(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    """The same of a policy."""
    found = set()
    for statement in document["Statement"]:
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                if resource == "*":
                    found.add((action, "", ""))
                    continue
                region, entry = resource.split(":")[3], resource.rpartition(":")[2]
                name = re.sub(r"-(\?{6}|\*)$", "", entry)
                found.add((action, region, name if name != entry else f"{name}?"))
    return found


@pytest.fixture(scope="module", autouse=True)
def _parsed_once() -> Iterator[None]:
    """All clients of this module share botocore's model of the service, which takes 0.1 s to parse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[AwsServer]:
    with AwsServer(enforce=True) as server:
        yield server


Make = Callable[..., AwsSite]


@pytest.fixture
def make(shared: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Empties the account and declares the stack anew; a process of the administrator, who may assume every role."""
    variables = shared.environment(HERE)
    variables["AWS_ENDPOINT_URL_STS"] = variables.pop("AWS_ENDPOINT_URL")
    for name, text in {**variables, "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}.items():
        monkeypatch.setenv(name, text)

    def site(**about_chat: Any) -> AwsSite:
        shared.control.reset()
        iam = shared.client("iam")
        trust = {"Effect": "Allow", "Principal": {"AWS": shared.account_id}, "Action": "sts:AssumeRole"}
        for persona in Persona:
            iam.create_role(
                RoleName=f"keyturn-{persona.value}", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]})
            )
        made = AwsSite(config(shared, **about_chat), FakeClock(datetime.now(UTC)), server=shared)
        made.seed()
        return made

    return site


def config(server: AwsServer, **about_chat: Any) -> Config:
    usual = {
        "kind": "aws-secrets-manager",
        "exemptRoles": [role_arn(server, persona) for persona in (Persona.ROTATE, Persona.RESPOND)],
    }
    main = {**usual, "region": HERE, "replicaRegions": [COPY]}
    return site_config({"main": main, "mirror": {**usual, "region": THERE}}, **about_chat)


def printed(site: AwsSite, part: Part) -> dict[str, Any]:
    """What `keyturn policy aws … support-copilot-chat` prints for a part of its life."""
    return site.document(part.persona, CHAT, mints=part.mints)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_what_is_granted_is_what_is_used(make: Make, part: Part) -> None:
    """A whole life under the printed policy: nothing is refused, and no grant is left over."""
    site = make(allowedCidrs=[NETWORK])
    document = printed(site, part)
    site.grant(part.persona, document)
    part.work(site)
    assert site.used(part.persona) == granted(document)


FAILS = (AssertionError, Trouble, Refusal, ClientError)


def less(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy that has one action fewer in one statement."""
    for number, statement in enumerate(document["Statement"]):
        for action in statement["Action"]:
            smaller = copy.deepcopy(document)
            smaller["Statement"][number]["Action"].remove(action)
            if not smaller["Statement"][number]["Action"]:
                del smaller["Statement"][number]
            yield f"{statement['Sid']} {action}", smaller


@pytest.mark.parametrize("part", [part for part in PARTS if not part.mints], ids=str)
def test_with_one_permission_less_it_fails(make: Make, part: Part) -> None:
    """Whichever it is: what the persona is for does not come about. Reading many values in one call is a help, no more."""
    for name, smaller in less(printed(make(allowedCidrs=[NETWORK]), part)):
        site = make(allowedCidrs=[NETWORK])
        site.grant(part.persona, smaller)
        if name.endswith("BatchGetSecretValue"):
            part.work(site)
        else:
            with pytest.raises(FAILS):
                part.work(site)
        assert site.denied(part.persona), name


def test_a_neighbour_is_refused(make: Make) -> None:
    """Another secret of the same environment, and one whose name only begins the same, to every persona."""
    site = make()
    neighbours = {site.entry(site.policy(BATCH)), f"{site.entry(site.policy(CHAT))}-2nd-life"}
    for entry in neighbours:
        site.put_by_hand("main", entry, "theirs")
    for part in PARTS:
        site.grant(part.persona, printed(site, part))
        store = site.store("main", part.persona)
        for entry in neighbours:
            for attempt in attempts(store, entry):
                with pytest.raises(Trouble) as caught:
                    attempt()
                assert caught.value.code is Code.DENIED


def test_rotation_can_not_change_the_policy_nor_provision_the_journal(make: Make) -> None:
    """Both are tags of the entry; each persona may touch its own, and nobody other people's."""
    site = make()
    entry = site.entry(site.policy(CHAT))
    site.provisioner(None).create(site.policy(CHAT), bootstrap="function")
    for part, refused in ((PARTS[0], "keyturn:journal.x"), (PARTS[2], "keyturn:policy.owner"), (PARTS[2], "team")):
        site.grant(part.persona, printed(site, part))
        key = site.session(part.persona)
        client = site.server.client("secretsmanager", region=HERE, credentials=key)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.tag_resource(SecretId=entry, Tags=[{"Key": refused, "Value": "x"}])
        with pytest.raises(ClientError, match="AccessDenied"):
            client.untag_resource(SecretId=entry, TagKeys=[refused])


def test_a_consumer_gets_the_current_value_and_nothing_else(make: Make) -> None:
    """Not what is pending, by label or by id; not what was; no metadata, and so no journal."""
    site = make()
    entry = site.entry(site.policy(CHAT))
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    main = site.store("main", None)
    main.stage(entry, "0" * 32, Credential.of(value="pending"), key_id=None)
    document = site.document(Persona.READ, CHAT)
    site.grant(Persona.READ, document)
    now = site.store("main", Persona.READ).current(entry).fields["value"].reveal()
    assert {now} == set(site.handed_out(CHAT).values())
    client = site.server.client("secretsmanager", region=HERE, credentials=site.session(Persona.READ))
    assert client.get_secret_value(SecretId=entry, VersionStage="AWSCURRENT")["SecretString"] == now
    version = client.get_secret_value(SecretId=entry)["VersionId"]
    tries: tuple[tuple[str, dict[str, Any]], ...] = (
        ("get_secret_value", {"SecretId": entry, "VersionStage": "AWSPENDING"}),
        ("get_secret_value", {"SecretId": entry, "VersionStage": "AWSPREVIOUS"}),
        ("get_secret_value", {"SecretId": entry, "VersionId": "0" * 32}),
        ("get_secret_value", {"SecretId": entry, "VersionId": version}),
        ("get_secret_value", {"SecretId": site.entry(site.policy(BATCH))}),
        ("get_secret_value", {"SecretId": ADMIN}),
        ("describe_secret", {"SecretId": entry}),
        ("list_secrets", {}),
    )
    for operation, parameters in tries:
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(client, operation)(**parameters)


# --- from where values may be read -------------------------------------------------------------------


def test_declared_networks_hold(make: Make) -> None:
    """A consumer elsewhere is refused, one within is not; who rotates is exempt; nobody is kept from putting it right."""
    site = make(allowedCidrs=["198.51.100.0/24"], allowedVpces=["vpce-0a1b2c3d4e5f60718"])
    policy, entry = site.policy(CHAT), site.entry(site.policy(CHAT))
    for part in (*PARTS[2:], Part(Persona.READ, PARTS[0].work)):
        site.grant(part.persona, printed(site, part))
    site.provisioner(None).create(policy, bootstrap="function")
    assert site.assembly(Persona.ROTATE).engine.rotate(site.target(CHAT)).achieved
    with pytest.raises(Trouble, match="permission denied"):
        site.store("main", Persona.READ).current(entry)
    with pytest.raises(Trouble, match="permission denied"):
        site.store("mirror", Persona.READ).current(entry)
    key_id, secret, token = site.session(Persona.READ)
    behind = site.server._session.client(
        "secretsmanager",
        region_name=HERE,
        endpoint_url=f"{site.server.endpoint}/vpce-0a1b2c3d4e5f60718",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
    )
    assert behind.get_secret_value(SecretId=entry)["SecretString"] in site.live()
    behind.close()
    opened = replace(policy, allowed_cidrs=(NETWORK,))
    site.provisioner(None).update(policy, opened, bootstrap="function")
    for store in policy.stores:
        assert site.store(store, Persona.READ).current(entry).fields["value"].reveal() in site.live()


def test_networks_that_somebody_changed_are_seen_and_put_right(make: Make) -> None:
    """Refresh tells what is enforced, not what was written; update puts it back and leaves others' statements alone."""
    site = make(allowedCidrs=[NETWORK])
    policy, entry = site.policy(CHAT), site.entry(site.policy(CHAT))
    p = site.provisioner(None)
    p.create(policy, bootstrap="function")
    console = site.server.client("secretsmanager", region=HERE)

    def document() -> list[dict[str, Any]]:
        found = console.get_resource_policy(SecretId=entry).get("ResourcePolicy")
        return json.loads(found)["Statement"] if found else []

    def put(statements: list[dict[str, Any]]) -> None:
        console.put_resource_policy(SecretId=entry, ResourcePolicy=json.dumps({"Statement": statements}))

    [ours] = document()
    theirs = {
        "Sid": "Theirs",
        "Effect": "Allow",
        "Principal": {"AWS": site.server.account_id},
        "Action": "secretsmanager:DescribeSecret",
        "Resource": "*",
    }
    wider = copy.deepcopy(ours)
    wider["Condition"]["NotIpAddress"]["aws:SourceIp"] = ["0.0.0.0/0"]
    for statements, seen in (
        ([theirs], ()),
        ([theirs, wider], ("0.0.0.0/0",)),
        ([theirs, {**ours, "Action": "secretsmanager:DescribeSecret"}], ()),
        ([theirs, {**ours, "Effect": "Allow"}], ()),
    ):
        put(statements)
        assert p.read(policy) == Applied(replace(policy, allowed_cidrs=seen))
        p.update(policy, policy, bootstrap="function")
        assert p.read(policy) == Applied(policy)
        assert document() == [theirs, ours]
    p.update(policy, replace(policy, allowed_cidrs=()), bootstrap="function")
    assert document() == [theirs]
    put([])
    p.update(replace(policy, allowed_cidrs=()), policy, bootstrap="function")
    p.update(policy, replace(policy, allowed_cidrs=()), bootstrap="function")
    assert document() == []


def test_networks_of_a_replica_are_looked_at_as_well(make: Make) -> None:
    """Where its wall is gone or another, refresh says so, and the next update puts it up again."""
    site = make(allowedCidrs=[NETWORK])
    policy = site.policy(CHAT)
    p = site.provisioner(None)
    p.create(policy, bootstrap="function")
    console = site.server.client("secretsmanager", region=THERE)
    console.delete_resource_policy(SecretId=site.entry(policy, "mirror"))
    assert p.read(policy) == Applied(replace(policy, allowed_cidrs=()))
    p.update(policy, policy, bootstrap="function")
    assert p.read(policy) == Applied(policy)
    assert "ResourcePolicy" in console.get_resource_policy(SecretId=site.entry(policy, "mirror"))


def test_a_released_entry_is_open_again(make: Make) -> None:
    """What is handed back is as it was before Keyturn."""
    site = make(allowedCidrs=[NETWORK])
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    site.assembly(None).engine.release(site.target(CHAT))
    console = site.server.client("secretsmanager", region=HERE)
    assert "ResourcePolicy" not in console.get_resource_policy(SecretId=site.entry(site.policy(CHAT)))


def test_without_a_role_that_is_exempt_nothing_is_walled_off(make: Make) -> None:
    """A policy that was applied otherwise than from a checked file: refused before anything can lock rotation out."""
    site = make()
    store = SecretsManagerStore(
        "main", region=HERE, endpoint_url=site.server.endpoint, login=AwsLogin(), clock=site.clock
    )
    with pytest.raises(Trouble, match="no role is configured that could be exempt"):
        store.create("prod/walled", {"installation": "acme", "allowed-cidrs": NETWORK})


# --- rotation by the service itself ------------------------------------------------------------------


def native(site: AwsSite) -> AwsSite:
    """The same with a primary whose own service rotates."""
    usual = {"kind": "aws-secrets-manager", "region": HERE, "rotation": "native"}
    main = {**usual, "rotationFunction": f"arn:aws:lambda:{HERE}:{site.server.account_id}:function:keyturn"}
    return replace(site, config=site_config({"main": main}))


def only(calls: Iterator[tuple[str, str, str, str]], *wanted: str) -> set[tuple[str, bool]]:
    found = ((action.removeprefix(SERVICE), "Denied" in outcome) for action, _, _, outcome in calls)
    return {(action, denied) for action, denied in found if action in wanted}


def without(document: dict[str, Any], action: str) -> dict[str, Any]:
    smaller = copy.deepcopy(document)
    for statement in smaller["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action] or ["none:none"]
    return smaller


def test_whoever_applies_may_have_the_service_rotate_and_not(make: Make) -> None:
    """RotateSecret sets it up, CancelRotateSecret takes it off; the function must be callable, too."""
    site = native(make())
    policy, part = site.policy(CHAT), PARTS[0]
    document = printed(site, part)
    for action in (f"{SERVICE}RotateSecret", "lambda:InvokeFunction"):
        site.grant(part.persona, without(document, action))
        with pytest.raises(Trouble) as caught:
            site.provisioner(part.persona).create(policy, bootstrap="function")
        assert caught.value.code is Code.DENIED
    site.grant(part.persona, document)
    p = site.provisioner(part.persona)
    p.create(policy, bootstrap="function")
    p.update(policy, replace(policy, native=False), bootstrap="function")
    done = only(site.calls(part.persona), "RotateSecret", "CancelRotateSecret", "GetSecretValue")
    assert done == {("RotateSecret", True), ("RotateSecret", False), ("CancelRotateSecret", False)}


@pytest.mark.parametrize("part", PARTS[2:], ids=str)
def test_whoever_works_may_have_the_service_start(make: Make, part: Part) -> None:
    """RotateSecret under a token, and nothing that changes how the service is set up."""
    site = native(make())
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    site.clock.move(40 * DAY)
    document = printed(site, part)
    site.grant(part.persona, without(document, f"{SERVICE}RotateSecret"))
    assert site.assembly(part.persona).engine.run(site.target(CHAT)).trouble is not None
    site.grant(part.persona, document)
    site.assembly(part.persona).engine.run(site.target(CHAT))
    assert only(site.calls(part.persona), "RotateSecret") == {("RotateSecret", True), ("RotateSecret", False)}
