"""The IAM issuer keeps the contract, and what is peculiar to it: two keys, no names, inactive before it is deleted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Final, cast

import pytest

from providers.issuers.iam import CALLS as NEEDED
from providers.issuers.iam import IamIssuer, Login
from providers.stores.memory import MemoryStore, MemoryVault
from rotation import actions
from rotation import policy as policies
from rotation.engine import Engine, Places, Target
from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Credential, Policy, SecretValue, Verdict
from rotation.ports import Grade, Issuer, RevokesInSteps
from rotation.resilience import PatientIssuer, Service
from rotation.trial import Trial
from sandbox.aws.control import Kind
from sandbox.aws.server import AwsServer
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation, key_name
from tests.world import ENTRY, NAME, SWEEPS, Crash, FakeClock, Trail

USER: Final = "support-bot"
FAULTS: Final[dict[Mishap, Kind]] = {
    Mishap.LOST_BEFORE: "drop",
    Mishap.LOST_AFTER: "lost_answer",
    Mishap.FAULT_BEFORE: "server_error",
    Mishap.FAULT_AFTER: "late_error",
    Mishap.THROTTLED: "throttle",
    Mishap.ADDRESS_REFUSED: "denied",
}
CALLS: Final[dict[Operation, str]] = {
    "mint": "iam:CreateAccessKey",
    "keys": "iam:ListAccessKeys",
    "verify": "sts:GetCallerIdentity",
    "revoke": "iam:UpdateAccessKey",
    "last_use": "iam:GetAccessKeyLastUsed",
}


class IamHarness(IssuerHarness):
    """A user of the sandbox's account."""

    more_than_a_page = 2
    unknown_ids = ("AKIAAAAAAAAAAAAAAAAA",)

    def __init__(self, server: AwsServer, clock: FakeClock) -> None:
        self.clock, self.server = clock, server
        server.control.reset()
        self.iam = server.client("iam")
        self.iam.create_user(UserName=USER)
        self.issuer = self.client()

    def client(self, user: str = USER, **login: Any) -> IamIssuer:
        keys = self.server.environment()
        admin = SecretValue(f"{keys['AWS_ACCESS_KEY_ID']}:{keys['AWS_SECRET_ACCESS_KEY']}")
        who = Login(**{"admin": lambda: admin, **login})
        return IamIssuer("iam", user, who, "eu-central-1", self.server.endpoint)

    def without_admin(self) -> Issuer:
        def refuse() -> SecretValue:
            raise AssertionError("the administrative credential was asked for")

        return self.client(admin=refuse)

    def use(self, credential: Credential) -> bool:
        fields = {name: value.reveal() for name, value in credential.fields.items()}
        client = self.server.client(
            "secretsmanager", credentials=(fields["access_key_id"], fields["secret_access_key"])
        )
        try:
            client.list_secrets()
        except client.exceptions.ClientError:
            return False
        return True

    def statuses(self) -> dict[str, str]:
        listed = self.iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in listed}

    def live(self) -> int:
        return list(self.statuses().values()).count("Active")

    def mints(self) -> int:
        return self.server.control.counts().get("iam:CreateAccessKey", 0)

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        self.server.control.fail(CALLS[operation], FAULTS[mishap])

    def secrets(self) -> Iterable[str]:
        return [self.server.environment()["AWS_SECRET_ACCESS_KEY"]]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[AwsServer, FakeClock]]:
    clock = FakeClock()
    with AwsServer(now=clock.now) as server:
        yield server, clock


@pytest.fixture
def harness(running: tuple[AwsServer, FakeClock]) -> IamHarness:
    return IamHarness(*running)


class TestIamIssuer(IssuerContract):
    """Three rules of it are about names, which IAM gives to no key: here they are about ids."""

    @pytest.fixture
    def harness(self, running: tuple[AwsServer, FakeClock]) -> IssuerHarness:
        return IamHarness(*running)

    def test_a_minted_key_is_found_by_its_name(self, harness: IssuerHarness) -> None:
        """It is listed under its id, without a name, as is declared."""
        issued = harness.issuer.mint(key_name("token1"))
        assert not harness.issuer.capabilities.names_keys
        assert [(info.key_id, info.name) for info in harness.listed()] == [(issued.key_id, "")]

    def test_the_list_goes_on_beyond_a_page(self, harness: IssuerHarness) -> None:
        """There are never more keys than fit on one; each of them is listed, once."""
        ids = [harness.issuer.mint(key_name(token)).key_id for token in ("token1", "token2")]
        assert sorted(info.key_id for info in harness.listed()) == sorted(ids)

    @pytest.mark.parametrize("mishap", [Mishap.LOST_AFTER, Mishap.FAULT_AFTER])
    def test_a_mint_without_a_good_answer_can_be_looked_up(self, harness: IssuerHarness, mishap: Mishap) -> None:
        """It says that it may have happened and went out once; the list shows a key that nobody can say whose it is."""
        harness.happen(mishap, "mint")
        with pytest.raises(Trouble) as raised:
            harness.issuer.mint(key_name("token1"))
        assert (raised.value.code, raised.value.maybe_applied) == (Code.UNAVAILABLE, True)
        assert harness.mints() == harness.live() == len(harness.listed()) == 1


def test_a_revoked_key_is_inactive_until_it_is_cleared(harness: IamHarness) -> None:
    """A person could bring it back; and it takes up room until it is deleted."""
    issued = harness.issuer.mint(key_name("token1"))
    harness.issuer.revoke(issued.key_id)
    assert harness.statuses() == {issued.key_id: "Inactive"}
    assert harness.issuer.verify(issued.credential).verdict is Verdict.INVALID
    cast("IamIssuer", harness.issuer).clear(issued.key_id)
    cast("IamIssuer", harness.issuer).clear(issued.key_id)
    assert harness.statuses() == {}


def test_a_trial_leaves_nothing(harness: IamHarness) -> None:
    """Not even an inactive key, which would take up room; that keys have no names is no fault of a step."""
    trial = Trial(harness.issuer, harness.clock, "0" * 32)
    steps = list(trial.run())
    assert [step.name for step in steps if not step.good] == []
    assert [step.name for step in steps][-3:] == ["revoke", "prove", "clear"]
    assert (trial.alive, harness.statuses()) == (None, {})


def test_a_trial_tells_what_it_could_not_clear(harness: IamHarness) -> None:
    """A key that is refused, and there."""
    trial = Trial(harness.issuer, harness.clock, "0" * 32)
    harness.server.control.fail("iam:DeleteAccessKey", FAULTS[Mishap.ADDRESS_REFUSED])
    assert [(step.name, step.good) for step in trial.run()][-1] == ("clear", False)
    (key_id,) = harness.statuses()
    assert f"{key_id}, which is refused and not deleted" in (trial.alive or "")


def test_a_trial_whose_mint_was_not_answered_touches_no_key(harness: IamHarness) -> None:
    """Without names nobody can tell whose it is: a person is told which one it may be."""
    harness.happen(Mishap.LOST_AFTER, "mint")
    trial = Trial(harness.issuer, harness.clock, "0" * 32)
    list(trial.run())
    steps = list(trial.clean())
    assert [(step.name, step.good) for step in steps] == [("look for the key", False)]
    (key_id,) = harness.statuses()
    assert harness.statuses() == {key_id: "Active"}
    assert key_id in (trial.alive or "")


def test_a_key_that_was_made_active_again_is_not_deleted(harness: IamHarness) -> None:
    """Somebody needed it; that is told, and the key stays."""
    issued = harness.issuer.mint(key_name("token1"))
    harness.issuer.revoke(issued.key_id)
    harness.iam.update_access_key(UserName=USER, AccessKeyId=issued.key_id, Status="Active")
    with pytest.raises(Trouble, match="made active again"):
        cast("IamIssuer", harness.issuer).clear(issued.key_id)
    assert harness.statuses() == {issued.key_id: "Active"}


def test_at_the_limit_the_keys_are_told(harness: IamHarness) -> None:
    """Their ids, status and age, so that a person can tell which is in nobody's use; none is touched."""
    ours = harness.issuer.mint(key_name("token1"))
    theirs = harness.iam.create_access_key(UserName=USER)["AccessKey"]["AccessKeyId"]
    harness.iam.update_access_key(UserName=USER, AccessKeyId=theirs, Status="Inactive")
    before = harness.statuses()
    with pytest.raises(Trouble) as raised:
        harness.issuer.mint(key_name("token2"))
    assert raised.value.code is Code.LIMIT
    for told in (f"{ours.key_id} (Active, made 20", f"{theirs} (Inactive, made 20", "delete it once nobody uses it"):
        assert told in str(raised.value)
    assert harness.statuses() == before


def test_a_user_who_is_not_there_is_no_success(harness: IamHarness) -> None:
    """A slip in the configuration must not pass for a revoked key."""
    nobody = harness.client(user="nobody")
    for call in (lambda: nobody.mint(key_name("token1")), lambda: nobody.revoke("AKIAAAAAAAAAAAAAAAAA")):
        with pytest.raises(Trouble) as raised:
            call()
        assert raised.value.code is Code.NOT_FOUND
    assert [d.grade for d in nobody.examine()] == [Grade.FAILING]


def test_another_users_key_is_limited(harness: IamHarness) -> None:
    """Alive, and not what was asked for; and it can not be revoked or asked about here."""
    harness.iam.create_user(UserName="other")
    made = harness.iam.create_access_key(UserName="other")["AccessKey"]
    fields = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
    check = harness.issuer.verify(Credential.of(**fields))
    assert check.verdict is Verdict.LIMITED
    assert "user/other, not support-bot" in check.reason
    harness.issuer.revoke(made["AccessKeyId"])
    assert harness.issuer.verify(Credential.of(**fields)).verdict.live
    assert not harness.issuer.last_use(made["AccessKeyId"]).known


def test_a_mistaken_clock_is_no_refusal() -> None:
    """STS answers with the code of a wrong secret where it is our time that is wrong."""
    from providers.issuers.iam import _judged

    def said(code: str, message: str) -> Verdict:
        return _judged(
            {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        ).verdict

    assert said("SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than …") is Verdict.UNKNOWN
    assert said("SignatureDoesNotMatch", "Signature not yet current: …") is Verdict.UNKNOWN
    assert said("SignatureDoesNotMatch", "The request signature we calculated does not match") is Verdict.INVALID
    assert said("AccessDenied", "explicit deny in a VPC endpoint policy") is Verdict.UNKNOWN


@pytest.mark.parametrize("form", ["colon", "json"])
def test_the_administrators_keys_may_be_given(harness: IamHarness, form: str) -> None:
    """As text, or as the JSON that a store has of such a credential; nothing else passes for it."""
    env = harness.server.environment()
    pair = {"access_key_id": env["AWS_ACCESS_KEY_ID"], "secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
    text = json.dumps(pair) if form == "json" else ":".join(pair.values())
    assert list(harness.client(admin=lambda: SecretValue(text)).keys()) == []
    for wrong in ("", "{", "only-an-id", "{}"):
        with pytest.raises(Trouble, match="neither ID:SECRET nor JSON") as raised:
            list(harness.client(admin=lambda text=wrong: SecretValue(text)).keys())
        assert raised.value.code is Code.DENIED


def test_a_role_may_administer() -> None:
    """Assumed with the given keys."""
    with AwsServer() as server:  # of today: the SDK looks at when a role's credentials end
        harness = IamHarness(server, FakeClock())
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": server.account_id}}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = harness.iam.create_role(RoleName="rotator", AssumeRolePolicyDocument=document)["Role"]["Arn"]
        issuer = harness.client(role_arn=role)
        assert issuer.mint(key_name("token1")).key_id in harness.statuses()
        assert server.control.counts()["sts:AssumeRole"] == 1


# --- whole rotations ------------------------------------------------------------------------------------


class Site:
    """One secret in a store in memory, and its issuer as a run has it."""

    def __init__(self, harness: IamHarness) -> None:
        self.harness, self.clock = harness, harness.clock
        self.store = MemoryStore("vault", MemoryVault(), self.clock.now)
        self.target, self.trail, self.tokens = Target("vault", ENTRY), Trail(), itertools.count(1)
        policy = Policy(
            installation="acme", environment="test", name=NAME, store="vault", issuer="iam", owner="team",
            rotate_every=timedelta(days=30), grace=timedelta(hours=24),
        )  # fmt: skip
        self.store.create(ENTRY, policies.written(policy))

    def engine(self) -> Engine:
        places = Places(lambda store, environment, name: f"{environment}/{name}", lambda environment, name: None)
        issuers: dict[str, Issuer] = {"iam": self.harness.issuer}
        return Engine(
            {"vault": self.store}, issuers, places, self.clock, self.trail, lambda: f"token{next(self.tokens):027d}"
        )

    def sweep(self, days: float = 0) -> actions.Rest | None:
        self.clock.move(timedelta(days=days))
        return self.engine().run(self.target).rest

    def settle(self) -> None:
        for minutes in SWEEPS:
            self.clock.move(timedelta(minutes=minutes))
            self.sweep()

    @property
    def current(self) -> str:
        return self.store.current(ENTRY).fields["access_key_id"].reveal()

    @property
    def journal(self) -> Journal:
        return self.store.observe(ENTRY).journal


@pytest.fixture
def site(harness: IamHarness) -> Site:
    return Site(harness)


def test_keys_rotate_within_the_limit_of_two(site: Site) -> None:
    """Three times: each old one inactive, shown dead and deleted, in this order, before the next is made."""
    site.sweep()
    seen = [site.current]
    for _ in range(3):
        site.sweep(days=30)
        assert site.harness.statuses() == {seen[-1]: "Active", site.current: "Active"}
        seen.append(site.current)
        site.sweep(days=1.1)
        assert site.harness.statuses() == {site.current: "Active"}
    assert len(set(seen)) == 4
    asked = {call for call in site.harness.server.control.counts() if call.startswith("iam:")} - {"iam:CreateUser"}
    assert asked == {f"iam:{call}" for needed in NEEDED.values() for call in needed}
    calls = [c.operation for c in site.harness.server.control.calls() if c.operation != "iam:ListAccessKeys"]
    revoked = calls.index("iam:UpdateAccessKey")
    assert calls[revoked : revoked + 5] == [
        "iam:UpdateAccessKey", *["sts:GetCallerIdentity"] * 3, "iam:DeleteAccessKey",
    ]  # fmt: skip


def test_a_lost_mint_is_told_to_a_person_and_never_deleted(site: Site) -> None:
    """Nobody can say whose the key is. Once a person has deleted it, all goes on."""
    site.sweep()
    before = site.current
    site.harness.happen(Mishap.LOST_AFTER, "mint")
    site.sweep(days=30)
    (stray,) = site.harness.statuses().keys() - {before}
    site.settle()
    rest = site.sweep()
    assert site.harness.statuses() == {before: "Active", stray: "Active"}
    assert isinstance(rest, actions.Hold)
    assert rest.cause is actions.Cause.PERSON
    assert f"may have made {stray}" in rest.reason
    assert any(f"{stray} (Active" in record.reason for record in site.trail.records if record.event == "mint.failed")
    site.harness.iam.delete_access_key(UserName=USER, AccessKeyId=stray)
    site.settle()
    assert site.current != before
    assert site.harness.statuses() == {site.current: "Active"}


def test_a_strangers_older_key_is_not_suspected(site: Site) -> None:
    """A key from long before the lost mint is another's business: the list shows that nothing was made."""
    site.harness.iam.create_access_key(UserName=USER)
    site.clock.move(timedelta(days=3))
    site.harness.happen(Mishap.LOST_BEFORE, "mint")
    site.sweep()
    site.settle()
    assert not any("may have made" in record.reason for record in site.trail.records)
    assert len(site.journal.attempts) == 1
    assert site.harness.live() == 2


def test_a_crash_between_mint_and_stage_leaves_the_id(site: Site) -> None:
    """Which is how the key is found again, and revoked, although no list names it."""
    site.sweep()
    store = site.store
    stages = itertools.count()

    class Dies(MemoryStore):
        def stage(self, *given: Any, **more: Any) -> None:
            if next(stages) == 0:
                raise Crash("before stage")
            super().stage(*given, **more)

    site.store = Dies("vault", store._vault, site.clock.now)
    with pytest.raises(Crash):
        site.sweep(days=30)
    site.settle()
    assert site.harness.statuses() == {site.current: "Active"}


def test_an_emergency_makes_room_once_the_leaked_key_was_shown_dead(site: Site) -> None:
    """Also where the old key still drains: at the limit, it goes first."""
    site.sweep()
    site.sweep(days=30)
    leaked = site.current
    site.engine().emergency(site.target)
    site.settle()
    assert leaked not in site.harness.statuses()
    assert site.harness.statuses() == {site.current: "Active"}


def test_what_every_command_puts_round_an_issuer_hands_it_on(harness: IamHarness) -> None:
    """Or inactive keys would pile up to the limit."""
    patient = PatientIssuer(harness.issuer, Service("iam", harness.clock, lambda: 0.5))
    issued = patient.mint(key_name("token1"))
    patient.revoke(issued.key_id)
    assert isinstance(patient, RevokesInSteps)
    patient.clear(issued.key_id)
    assert harness.statuses() == {}
