"""The contract of every issuer: what the engine relies on, whoever mints the keys.

A test class derives from IssuerContract and gives it a `harness`: the issuer, and the other side of it.
What an issuer can not do stands in its capabilities; the suite then asserts how it says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import Enum
from typing import Literal

import pytest

from rotation.errors import Code, Trouble
from rotation.journal import Journal, key_fact
from rotation.model import PUBLIC, Check, Credential, Issued, KeyInfo, Model, Propagation, Verdict
from rotation.names import KeyName
from rotation.ports import Issuer, TellsUsage
from tests.world import FakeClock

Operation = Literal["mint", "keys", "verify", "revoke", "last_use"]


class Mishap(Enum):
    """What may happen to the next call of an operation."""

    LOST_BEFORE = "the connection ends before the vendor has seen the request"
    LOST_AFTER = "the vendor does it, and the connection ends without an answer"
    FAULT_BEFORE = "the vendor answers that it failed, and has done nothing"
    FAULT_AFTER = "the vendor answers that it failed, and has done it"
    THROTTLED = "too many requests"
    ADDRESS_REFUSED = "the vendor does not serve this address"


class IssuerHarness(ABC):
    """An issuer and its vendor, with what a test has to do at the vendor's side."""

    clock: FakeClock
    """The vendor's and the issuer's."""
    issuer: Issuer
    more_than_a_page: int
    """So many keys do not fit on one page of the vendor's list."""
    mishaps: frozenset[Mishap] = frozenset(Mishap)
    """What can happen; none where there is no service."""
    unknown_ids: tuple[str, ...]
    """Well-formed key ids that never existed, one of each form."""
    lists: bool = True
    """Whether its vendor can be asked for a list; a manual one may have none."""
    tells_never: bool = True
    """Whether its vendor, where it tells of use, tells of a key that it was never used."""

    @abstractmethod
    def without_admin(self) -> Issuer:
        """The same issuer, where asking for the administrative credential fails the test."""

    @abstractmethod
    def use(self, credential: Credential) -> bool:
        """A consumer's request: whether the vendor accepts the credential."""

    @abstractmethod
    def live(self) -> int:
        """How many keys the vendor accepts, or will accept soon."""

    @abstractmethod
    def mints(self) -> int:
        """How many requests for a new key have reached the vendor."""

    @abstractmethod
    def happen(self, mishap: Mishap, operation: Operation) -> None:
        """Lets it happen to the next call."""

    @abstractmethod
    def secrets(self) -> Iterable[str]:
        """Every text that must not stand in an exception, besides the values of minted keys."""

    def issue(self, key_name: str) -> Issued:
        """A fresh key: minted, in the next slot where there are slots; made by a person where the issuer is manual."""
        return self.issuer.mint(key_name)

    def another(self, credential: Credential) -> Credential:
        """A credential of the same form that was never minted."""
        return Credential.of(**{name: value.reveal() + "-not" for name, value in credential.fields.items()})

    def withdraw(self, issued: Issued) -> None:
        """What a person does where the issuer revokes nothing."""
        raise NotImplementedError

    # --- built on these --------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        return self.issuer.capabilities.model

    def end(self, issued: Issued) -> None:
        """Revokes a key, or has a person do it where the issuer says that it can not."""
        if self.issuer.capabilities.revokes:
            self.issuer.revoke(issued.key_id)
            return
        with pytest.raises(Trouble) as raised:
            self.issuer.revoke(issued.key_id)
        assert raised.value.code is Code.INVALID
        self.withdraw(issued)

    def by_hand(self) -> bool:
        """Whether a person makes its keys; then it says so, and nothing is minted."""
        if self.model is not Model.MANUAL:
            return False
        before = self.live()
        with pytest.raises(Trouble) as raised:
            self.issuer.mint(key_name("token1"))
        assert (raised.value.code, raised.value.maybe_applied) == (Code.INVALID, False)
        assert self.live() == before
        return True

    def settle(self, credential: Credential, wanted: Callable[[Verdict], bool], need: Propagation) -> Check:
        """Asks until so many answers in a row are as wanted, the way the engine does; fails at the timeout."""
        end, streak = self.clock.now() + need.timeout, 0
        while True:
            check = self.issuer.verify(credential)
            streak = streak + 1 if wanted(check.verdict) else 0
            if streak >= need.in_a_row:
                return check
            assert self.clock.now() < end, f"still {check.verdict} at the timeout: {check.reason}"
            self.clock.move(need.interval)

    def listed(self) -> list[KeyInfo]:
        return list(self.issuer.keys())

    def minted(self, key_name: str) -> Issued:
        """A key that has come to work."""
        issued = self.issue(key_name)
        self.settle(issued.credential, lambda verdict: verdict.live, self.issuer.capabilities.create)
        return issued


def key_name(token: str) -> str:
    return str(KeyName("acme", "test", "support-copilot-chat", token))


def assert_no_values(error: BaseException, secrets: Iterable[str]) -> None:
    """No secret in an exception, in what it was raised from, or in anything that it holds."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        told = f"{link!r} {link} {vars(link)} {getattr(link, '__notes__', '')}"
        assert not [secret for secret in secrets if secret and secret in told], f"a secret in {type(link).__name__}"


def values_of(issued: Issued) -> list[str]:
    return [value.reveal() for name, value in issued.credential.fields.items() if name not in PUBLIC]


class IssuerContract:
    """Derive and give a fixture `harness`."""

    @pytest.fixture
    def harness(self) -> IssuerHarness:
        raise NotImplementedError

    def test_a_minted_credential_comes_to_work(self, harness: IssuerHarness) -> None:
        """After the declared propagation it verifies as live, and consumers get in."""
        issued = harness.issue(key_name("token1"))
        check = harness.settle(issued.credential, lambda v: v.live, harness.issuer.capabilities.create)
        assert check.verdict is Verdict.VALID
        assert check.reason
        assert harness.use(issued.credential)

    def test_a_minted_key_tells_when(self, harness: IssuerHarness) -> None:
        """Where the vendor says when a key was made, it is within a second of its clock."""
        issued = harness.issue(key_name("token1"))
        if issued.created_at is not None:
            assert abs((issued.created_at - harness.clock.now()).total_seconds()) <= 1

    def test_a_key_id_can_be_kept_in_a_journal(self, harness: IssuerHarness) -> None:
        """A journal fact gives it back as it was."""
        issued = harness.issue(key_name("token1"))
        assert Journal(key_fact("token1", issued.key_id)).key_ids == {"token1": issued.key_id}

    def test_every_mint_gives_another_value(self, harness: IssuerHarness) -> None:
        """Two keys share neither value nor, under different names, id."""
        one, two = harness.issue(key_name("token1")), harness.issue(key_name("token2"))
        assert one.key_id != two.key_id
        assert not one.credential.same_as(two.credential)

    def test_a_minted_key_is_found_by_its_name(self, harness: IssuerHarness) -> None:
        """The list has it under the name it was given, with the same id; and no value of any key."""
        issued = harness.issue(key_name("token1"))
        listed = harness.listed()
        if not (harness.issuer.capabilities.registry and harness.lists):
            assert listed == []
            return
        if harness.model is Model.SLOTS:  # which have the vendor's names; their ids tell what they hold
            assert [info.key_id for info in listed].count(issued.key_id) == 1
        else:
            assert [info.key_id for info in listed if info.name == key_name("token1")] == [issued.key_id]
        assert not [value for value in values_of(issued) if value in repr(listed)]

    def test_the_list_goes_on_beyond_a_page(self, harness: IssuerHarness) -> None:
        """Every key is listed, once, however many there are."""
        if not (harness.issuer.capabilities.registry and harness.lists):
            assert harness.listed() == []
            return
        if harness.model is Model.SLOTS:
            assert len({info.key_id for info in harness.listed()}) == len(harness.issuer.capabilities.slots)
            return
        names = {key_name(f"token{number}") for number in range(harness.more_than_a_page)}
        ids = {harness.issue(name).key_id for name in names}
        listed = [info for info in harness.listed() if info.name in names]
        assert {info.name for info in listed} == names
        assert sorted(info.key_id for info in listed) == sorted(ids)

    def test_verification_is_with_the_credential_alone(self, harness: IssuerHarness) -> None:
        """It works where no administrative credential is to be had."""
        issued = harness.minted(key_name("token1"))
        assert harness.without_admin().verify(issued.credential).verdict is Verdict.VALID

    def test_a_value_that_was_never_minted_is_refused(self, harness: IssuerHarness) -> None:
        """Not unknown, and not valid."""
        issued = harness.minted(key_name("token1"))
        assert harness.issuer.verify(harness.another(issued.credential)).verdict is Verdict.INVALID

    def test_a_revoked_key_comes_to_be_refused(self, harness: IssuerHarness) -> None:
        """After the declared propagation; consumers are refused too, and the list has it no more."""
        issued = harness.minted(key_name("token1"))
        harness.end(issued)
        if not harness.issuer.capabilities.registry:
            assert harness.issuer.verify(issued.credential).verdict is Verdict.VALID, "there is nobody to refuse it"
            return
        need = harness.issuer.capabilities.revoke
        harness.settle(issued.credential, lambda verdict: verdict is Verdict.INVALID, need)
        assert not harness.use(issued.credential)
        assert issued.key_id not in {info.key_id for info in harness.listed()}

    def test_revoking_leaves_every_other_key_alone(self, harness: IssuerHarness) -> None:
        """Also those of the same name and the same owner."""
        doomed, other = harness.minted(key_name("token1")), harness.minted(key_name("token2"))
        harness.end(doomed)
        harness.clock.move(harness.issuer.capabilities.revoke.timeout)
        assert harness.issuer.verify(other.credential).verdict is Verdict.VALID
        assert harness.use(other.credential)

    def test_revoking_twice_is_no_error(self, harness: IssuerHarness) -> None:
        """A run that did not see the first answer does it again."""
        issued = harness.minted(key_name("token1"))
        harness.end(issued)
        if harness.issuer.capabilities.revokes:
            harness.issuer.revoke(issued.key_id)

    def test_revoking_what_never_existed_is_no_error(self, harness: IssuerHarness) -> None:
        """It is as gone as can be; and nothing else goes."""
        harness.minted(key_name("token1"))
        before = harness.live()
        for key_id in harness.unknown_ids if harness.issuer.capabilities.revokes else ():
            harness.issuer.revoke(key_id)
        assert harness.live() == before

    @pytest.mark.parametrize("mishap", [Mishap.LOST_AFTER, Mishap.FAULT_AFTER])
    def test_a_mint_without_a_good_answer_can_be_looked_up(self, harness: IssuerHarness, mishap: Mishap) -> None:
        """It says that it may have happened, went out once, and its key is found by its name."""
        if mishap not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        if harness.by_hand():
            return
        before = harness.mints(), harness.live()
        harness.happen(mishap, "mint")
        with pytest.raises(Trouble) as raised:
            harness.issue(key_name("token1"))
        assert raised.value.maybe_applied
        assert raised.value.code is Code.UNAVAILABLE
        assert harness.mints() == before[0] + 1
        if harness.model is Model.SLOTS:  # nothing tells whose a slot is; it is made anew
            assert harness.live() == before[1]
            return
        assert harness.live() == before[1] + 1
        (found,) = [info for info in harness.listed() if info.name == key_name("token1")]
        harness.issuer.revoke(found.key_id)
        assert harness.live() == before[1]

    @pytest.mark.parametrize("mishap", [Mishap.LOST_BEFORE, Mishap.FAULT_BEFORE])
    def test_a_mint_that_may_have_failed_goes_out_once(self, harness: IssuerHarness, mishap: Mishap) -> None:
        """Nobody can tell from outside that nothing happened; trying again is not the issuer's to decide."""
        if mishap not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        if harness.by_hand():
            return
        before = harness.mints(), harness.live()
        harness.happen(mishap, "mint")
        with pytest.raises(Trouble) as raised:
            harness.issue(key_name("token1"))
        assert raised.value.maybe_applied
        assert (harness.mints(), harness.live()) == (before[0] + 1, before[1])

    def test_a_mint_that_was_put_off_has_not_happened(self, harness: IssuerHarness) -> None:
        """Too many requests: nothing was done, it says so, and it went out once."""
        if Mishap.THROTTLED not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        if harness.by_hand():
            return
        before = harness.mints(), harness.live()
        harness.happen(Mishap.THROTTLED, "mint")
        with pytest.raises(Trouble) as raised:
            harness.issue(key_name("token1"))
        assert raised.value.code is Code.THROTTLED
        assert not raised.value.maybe_applied
        assert (harness.mints(), harness.live()) == (before[0] + 1, before[1])

    def test_the_limit_of_keys(self, harness: IssuerHarness) -> None:
        """One key more than the declared limit is refused as such, and not made. No limit: none is met."""
        limit = harness.issuer.capabilities.max_keys
        for number in range(limit if limit is not None else 6):
            harness.issue(key_name(f"token{number}"))
        if limit is None:
            return
        with pytest.raises(Trouble) as raised:
            harness.issue(key_name("more"))
        assert raised.value.code is Code.LIMIT
        assert not raised.value.maybe_applied
        assert harness.live() == limit

    def test_last_use_of_a_key_in_use(self, harness: IssuerHarness) -> None:
        """Not before the use, but for the declared granularity; unknown where the issuer can not tell."""
        issued = harness.minted(key_name("token1"))
        harness.clock.move(harness.issuer.capabilities.create.timeout)
        used_at = harness.clock.now()
        assert harness.use(issued.credential)
        use = harness.issuer.last_use(issued.key_id)
        assert use.known is harness.issuer.capabilities.tells_last_use
        if use.known:
            assert use.at is not None
            assert use.at.replace(microsecond=0) + use.granularity >= used_at.replace(microsecond=0)

    def test_last_use_of_a_key_never_used(self, harness: IssuerHarness) -> None:
        """Known to be never, where the issuer can tell. Not knowing is not the same."""
        issued = harness.issue(key_name("token1"))
        use = harness.issuer.last_use(issued.key_id)
        assert use.known is (harness.issuer.capabilities.tells_last_use and harness.tells_never)
        assert use.at is None

    def test_last_use_of_what_never_existed_is_unknown(self, harness: IssuerHarness) -> None:
        """Unknown is never unused."""
        for key_id in harness.unknown_ids:
            assert not harness.issuer.last_use(key_id).known

    def test_usage_of_many_keys_at_once(self, harness: IssuerHarness) -> None:
        """As last_use() says it or better; requests of each key, and of no other, in spans without a gap."""
        issuer = harness.issuer
        if not isinstance(issuer, TellsUsage):
            return
        if not issuer.capabilities.tells_last_use:
            assert issuer.usage(harness.unknown_ids, harness.clock.now(), harness.clock.now()) == {}
            return
        often, never = (harness.minted(key_name(f"token{n}")) for n in range(2))
        harness.clock.move(issuer.capabilities.create.timeout)
        counting, since = issuer.counting, harness.clock.now()
        for credential in (often.credential, often.credential):
            assert harness.use(credential)
        harness.clock.move(counting.width * 3 if counting else timedelta(hours=1))
        ids = [often.key_id, never.key_id, *harness.unknown_ids]
        told = issuer.usage(ids, since, harness.clock.now())
        for issued, uses in ((often, 2), (never, 0)):
            use = told.get(issued.key_id)
            if use is None:
                assert counting is None
                continue
            if uses:
                assert not use.last.known or (use.last.at and use.last.at + use.last.granularity >= since)
            else:
                assert use.last.at is None or use.last.at < since  # we have verified it
            if counting:
                assert use.counts is not None
                assert sum(span.count for span in use.counts) >= uses
                assert sum(span.count for span in use.counts) - uses == sum(
                    s.count for s in told[never.key_id].counts or ()
                )
                starts = [span.start for span in use.counts]
                assert starts == [starts[0] + counting.width * n for n in range(len(starts))]
                assert starts[0] <= since < starts[0] + counting.width
                assert starts[-1] < harness.clock.now() <= starts[-1] + counting.width
        for key_id in harness.unknown_ids:
            assert not (told[key_id].last.known if key_id in told else False)

    @pytest.mark.parametrize(
        "mishap", [Mishap.LOST_BEFORE, Mishap.FAULT_BEFORE, Mishap.THROTTLED, Mishap.ADDRESS_REFUSED]
    )
    def test_no_telling_answer_is_unknown(self, harness: IssuerHarness, mishap: Mishap) -> None:
        """Of a live key and of a dead one alike; and the next answer tells again."""
        if mishap not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        alive, dead = harness.minted(key_name("token1")), harness.minted(key_name("token2"))
        harness.end(dead)
        harness.settle(dead.credential, lambda v: v is Verdict.INVALID, harness.issuer.capabilities.revoke)
        for issued, truth in ((alive, Verdict.VALID), (dead, Verdict.INVALID)):
            harness.happen(mishap, "verify")
            check = harness.issuer.verify(issued.credential)
            assert check.verdict is Verdict.UNKNOWN
            assert check.reason
            assert not [value for value in values_of(issued) if value in repr(check)]
            assert harness.issuer.verify(issued.credential).verdict is truth

    def test_a_smoke_test_is_a_real_request(self, harness: IssuerHarness) -> None:
        """Answered by the vendor to the credential alone; refused for a dead one. Not declared: never live."""
        issued = harness.minted(key_name("token1"))
        check = harness.without_admin().smoke(issued.credential)
        if not harness.issuer.capabilities.smokes:
            assert check.verdict is Verdict.UNKNOWN
            return
        assert check.verdict is Verdict.VALID
        harness.end(issued)
        harness.settle(issued.credential, lambda v: v is Verdict.INVALID, harness.issuer.capabilities.revoke)
        assert not harness.issuer.smoke(issued.credential).verdict.live

    def test_a_revocation_without_an_answer(self, harness: IssuerHarness) -> None:
        """It says that it may have happened, and repeating it is no error."""
        if Mishap.LOST_AFTER not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        issued = harness.minted(key_name("token1"))
        if not harness.issuer.capabilities.revokes:
            harness.end(issued)
            return
        harness.happen(Mishap.LOST_AFTER, "revoke")
        with pytest.raises(Trouble) as raised:
            harness.issuer.revoke(issued.key_id)
        assert raised.value.maybe_applied
        harness.issuer.revoke(issued.key_id)
        harness.settle(issued.credential, lambda v: v is Verdict.INVALID, harness.issuer.capabilities.revoke)

    @pytest.mark.parametrize("mishap", [Mishap.LOST_BEFORE, Mishap.FAULT_BEFORE, Mishap.THROTTLED])
    def test_a_list_that_fails_is_no_list(self, harness: IssuerHarness, mishap: Mishap) -> None:
        """It raises: a key that is missing from a list passes for dead."""
        if mishap not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        harness.issue(key_name("token1"))
        if not harness.lists:
            assert harness.listed() == []
            return
        harness.happen(mishap, "keys")
        with pytest.raises(Trouble):
            harness.listed()

    @pytest.mark.parametrize("mishap", list(Mishap))
    @pytest.mark.parametrize("operation", ["mint", "keys", "revoke", "last_use"])
    def test_no_exception_holds_a_value(self, harness: IssuerHarness, operation: Operation, mishap: Mishap) -> None:
        """Neither a key's nor the administrative credential; and each names the issuer first."""
        if mishap not in harness.mishaps:
            assert not harness.issuer.capabilities.registry
            return
        if operation == "last_use" and not harness.issuer.capabilities.tells_last_use:
            assert not harness.issuer.last_use(harness.unknown_ids[0]).known
            return
        if operation == "keys" and not harness.lists:
            assert harness.listed() == []
            return
        issued = harness.minted(key_name("token1"))
        if operation == "mint" and harness.by_hand():
            return
        calls: dict[Operation, Callable[[], object]] = {
            "mint": lambda: harness.issue(key_name("token2")),
            "keys": harness.listed,
            "revoke": lambda: harness.issuer.revoke(issued.key_id),
            "last_use": lambda: harness.issuer.last_use(issued.key_id),
        }
        harness.happen(mishap, operation)
        with pytest.raises(Trouble) as raised:
            calls[operation]()
        assert str(raised.value).startswith(f"{harness.issuer.name}: ")
        assert_no_values(raised.value, [*harness.secrets(), *values_of(issued)])
