"""The contract of every store: what the engine relies on, whatever keeps the secrets.

A test class derives from StoreContract and overrides the fixtures at its top. What a store can not do stands
in its StoreFeatures; the suite then asserts what it does instead.
"""

from __future__ import annotations

import json
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from rotation import journal
from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.journal import Attempt, Backoff, Why
from rotation.model import MASK, Consumer, Credential, Drain, Entry, Policy, Version, values_alive
from rotation.ports import Glances, SecretStore

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
KEY_ID = "proj_1/user é/key_äöü+42=="
"""Key ids are their issuer's: whatever it likes."""

ByHand = Callable[[str, Credential], None]
Names = Callable[[str], str]


def new_token() -> str:
    return uuid.uuid4().hex


def value(text: str = "") -> Credential:
    """A credential of one field, different each time."""
    return Credential.of(value=f"kt-value-{text}-{uuid.uuid4().hex}")


def full_policy(name: str = "support-copilot-chat", owner: str = "team-search") -> dict[str, str]:
    """A policy with every key that there is."""
    return policies.written(
        Policy(
            installation="acme",
            environment="test",
            name=name,
            store="primary",
            issuer="openai",
            owner=owner,
            rotate_every=timedelta(days=30),
            grace=timedelta(hours=24),
            replicas=("aws-eu", "vault-onprem", "keyvault"),
            drain=Drain(),
            consumers=tuple(Consumer(f"service-number-{n}", timedelta(minutes=15)) for n in range(6)),
            paired_with="support-copilot-batch",
        )
    )


def room_for_value(store: SecretStore) -> int:
    """How many bytes a credential of the one field `value` may have."""
    return store.features.max_value_bytes - (0 if store.features.text_only else len("value"))


def without_value(version: Version) -> Version:
    """The same version as somebody knows it who has not got the value."""
    return Version(version.id, version.token, version.key_id, version.created_at)


def texts(error: BaseException) -> str:
    """Everything that printing or logging an exception can show, its causes and what it holds included."""
    told = ["".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        told.append(f"{link!r} {link} {vars(link)} {getattr(link, '__notes__', '')}")
        link = link.__cause__ or link.__context__
    return "\n".join(told)


@contextmanager
def trouble(code: Code, store: SecretStore, entry: str) -> Iterator[pytest.ExceptionInfo[Trouble]]:
    """Expects a Trouble that names store and entry, is sure to have changed nothing, and holds no value."""
    with pytest.raises(Trouble) as caught:
        yield caught
    assert caught.value.code is code, caught.value
    assert caught.value.service == store.name
    assert str(caught.value).startswith(f"{store.name}: {entry}"), caught.value
    assert not caught.value.maybe_applied
    told = texts(caught.value)
    assert not [text for text in values_alive() if len(text) > 8 and text in told], "a value in an exception"


def at_once(*actions: Callable[[], None]) -> list[Trouble | None]:
    """Does all of it at the same moment; what each of them raised."""
    start = threading.Barrier(len(actions))
    raised: list[Trouble | None] = [None] * len(actions)

    def run(index: int) -> None:
        start.wait(10)
        try:
            actions[index]()
        except Trouble as error:
            raised[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


def current(store: SecretStore, entry: str) -> Version:
    found = store.observe(entry).current
    assert found is not None
    return found


def pending(store: SecretStore, entry: str) -> Version:
    found = store.observe(entry).pending
    assert found is not None
    return found


def staged(store: SecretStore, entry: str, credential: Credential | None = None, token: str | None = None) -> Version:
    """A version put as pending, as an observation shows it."""
    token = token or new_token()
    store.stage(entry, token, credential or value(), key_id=KEY_ID)
    found = pending(store, entry)
    assert found.token == token
    return found


def rotated(store: SecretStore, entry: str, credential: Credential | None = None) -> Version:
    """A version staged and promoted, as an observation shows it."""
    before = store.observe(entry).current
    version = staged(store, entry, credential)
    store.promote(entry, version, before.id if before else None)
    found = current(store, entry)
    assert found.token == version.token
    return found


def same_state(one: Entry, other: Entry) -> bool:
    """Whether two observations show the same versions in the same roles, the same facts and the same policy."""

    def ids(entry: Entry) -> list[str | None]:
        return [version.id if version else None for version in (entry.current, entry.pending)]

    return ids(one) == ids(other) and one.journal.facts == other.journal.facts and one.policy == other.policy


def same_content(one: Entry, other: Entry) -> bool:
    """As same_state(), but what is current may be the same value and token under another id: as after a recovery."""

    def roles(entry: Entry) -> list[tuple[str | None, str | None] | None]:
        return [(version.token, version.key_id) if version else None for version in (entry.current, entry.pending)]

    return roles(one) == roles(other) and one.journal.facts == other.journal.facts and one.policy == other.policy


class StoreContract:
    """Override the fixtures down to `more_than_a_page`; add nothing that other stores need not do."""

    more_than_a_page = 30
    """So many entries do not fit on one page of the store's listing, where that has pages."""
    lists_journals = True
    """The listing brings all facts of a journal along."""

    @pytest.fixture
    def store(self) -> SecretStore:
        """A client of an empty store."""
        raise NotImplementedError

    @pytest.fixture
    def second_client(self) -> SecretStore:
        """Another client of the same store, as another process has it."""
        raise NotImplementedError

    @pytest.fixture
    def entry_name(self) -> Names:
        """The entry's name in the store for a secret's name in some environment."""
        return lambda name: f"test/{name}"

    @pytest.fixture
    def by_hand(self) -> ByHand:
        """Makes a credential current the way a person does in a console; makes the entry when there is none."""
        raise NotImplementedError

    @pytest.fixture
    def entry(self, store: SecretStore, entry_name: Names) -> str:
        """An entry with a policy and no version."""
        name = entry_name("support-copilot-chat")
        store.create(name, full_policy())
        return name

    # --- entries -----------------------------------------------------------------------------------

    def test_a_new_entry_has_its_policy_and_nothing_else(self, store: SecretStore, entry: str) -> None:
        """create() makes an entry without a version; observe() gives it back with store, name and time."""
        seen = store.observe(entry)
        assert (seen.store, seen.name) == (store.name, entry)
        assert seen.read_at.utcoffset() == timedelta(0)
        assert seen.current is None
        assert seen.pending is None
        assert seen.journal.facts == {}
        assert seen.policy == full_policy()

    def test_an_entry_that_does_not_exist_is_not_found(self, store: SecretStore, entry: str, entry_name: Names) -> None:
        """NOT_FOUND, from every method that can tell without a further call."""
        version = without_value(staged(store, entry))
        absent = entry_name("never-made")
        calls: list[Callable[[], object]] = [
            lambda: store.observe(absent),
            lambda: store.current(absent),
            lambda: store.applied(absent),
            lambda: store.read(absent, version),
            lambda: store.find(absent, new_token()),
            lambda: store.record(absent, {"future.x": "a=b"}),
            lambda: store.forget(absent, ["future.x"]),
            lambda: store.set_policy(absent, full_policy()),
        ]
        for call in calls:
            with trouble(Code.NOT_FOUND, store, absent):
                call()
        assert [listed.name for listed in store.listing()] == [entry]

    def test_a_consumer_gets_what_is_current(self, store: SecretStore, second_client: SecretStore, entry: str) -> None:
        """current(): nothing before the first promotion, then what was promoted last, never what is pending."""
        with trouble(Code.NOT_FOUND, store, entry):
            store.current(entry)
        waiting, first = value(), value()
        staged(store, entry, waiting)
        with trouble(Code.NOT_FOUND, store, entry):
            store.current(entry)
        rotated(store, entry, first)
        staged(store, entry, waiting)
        assert second_client.current(entry).same_as(first)
        store.delete(entry)
        with trouble(Code.NOT_FOUND, store, entry):
            second_client.current(entry)

    def test_the_policy_can_be_looked_up_alone(
        self, store: SecretStore, second_client: SecretStore, entry: str, entry_name: Names, by_hand: ByHand
    ) -> None:
        """applied(): before there is a version, with versions, and after a change; none where nobody manages the entry."""
        assert second_client.applied(entry) == full_policy()
        rotated(store, entry)
        staged(store, entry)
        store.set_policy(entry, full_policy(owner="somebody-else"))
        assert second_client.applied(entry) == full_policy(owner="somebody-else")
        by_hand(entry_name("billing-gateway"), value())
        assert second_client.applied(entry_name("billing-gateway")) == {}
        store.delete(entry)
        with trouble(Code.NOT_FOUND, store, entry):
            store.applied(entry)
        assert store.restore(entry)
        assert store.applied(entry) == full_policy(owner="somebody-else")

    def test_an_existing_entry_is_not_created_again(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """CONFLICT, and the entry stays as it is, with or without a version."""
        for step in (lambda: None, lambda: rotated(store, entry)):
            step()
            before = store.observe(entry)
            with trouble(Code.CONFLICT, second_client, entry):
                second_client.create(entry, full_policy(owner="somebody-else"))
            assert same_state(store.observe(entry), before)

    def test_an_entry_made_by_hand_is_not_taken_over(
        self, store: SecretStore, entry_name: Names, by_hand: ByHand
    ) -> None:
        """create() is CONFLICT for an entry that Keyturn does not manage; its value stays."""
        theirs, credential = entry_name("billing-gateway"), value()
        by_hand(theirs, credential)
        with trouble(Code.CONFLICT, store, theirs):
            store.create(theirs, full_policy())
        assert store.read(theirs, current(store, theirs)).same_as(credential)

    # --- staging -----------------------------------------------------------------------------------

    def test_a_staged_version_is_pending(self, store: SecretStore, second_client: SecretStore, entry: str) -> None:
        """Everybody sees it as pending, under its token, with its key id where the store keeps that; current stays."""
        token, credential = new_token(), value()
        store.stage(entry, token, credential, key_id=KEY_ID)
        for client in (store, second_client):
            seen = client.observe(entry)
            assert seen.current is None
            assert seen.pending is not None
            assert seen.pending.token == token
            assert seen.pending.key_id == (KEY_ID if store.features.keeps_key_id else None)
            assert client.read(entry, seen.pending).same_as(credential)
            assert client.read(entry, without_value(seen.pending)).same_as(credential)

    def test_a_version_without_key_id(self, store: SecretStore, entry: str) -> None:
        """Some issuers have none; it reads back as None."""
        store.stage(entry, new_token(), value(), key_id=None)
        assert pending(store, entry).key_id is None

    def test_versions_tell_when_they_were_made(self, store: SecretStore, entry: str) -> None:
        """created_at is aware, or None where a store does not say."""
        made = rotated(store, entry).created_at
        assert made is None or made.utcoffset() == timedelta(0)

    def test_the_same_token_twice_is_one(self, store: SecretStore, second_client: SecretStore, entry: str) -> None:
        """Staging again after a lost answer leaves one pending version; discarding that leaves none."""
        token, credential = new_token(), value()
        for client in (store, second_client, store):
            client.stage(entry, token, credential, key_id=KEY_ID)
        version = pending(store, entry)
        assert version.token == token
        assert store.read(entry, version).same_as(credential)
        store.discard(entry, version)
        assert store.observe(entry).pending is None

    def test_staging_replaces_what_was_pending(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """The later one is pending, whoever staged the earlier; current stays."""
        now = rotated(store, entry)
        first, credential = staged(store, entry), value()
        second = staged(second_client, entry, credential)
        assert second.id != first.id
        assert store.read(entry, pending(store, entry)).same_as(credential)
        assert current(store, entry).id == now.id

    def test_a_promoted_token_can_be_staged_again(self, store: SecretStore, entry: str) -> None:
        """A late repetition of a stage changes nothing about what is current."""
        token, credential = new_token(), value()
        store.promote(entry, staged(store, entry, credential, token), None)
        before = current(store, entry)
        store.stage(entry, token, credential, key_id=KEY_ID)
        seen = store.observe(entry)
        assert seen.current is not None
        assert (seen.current.id, seen.current.token) == (before.id, token)
        assert seen.pending is None or seen.pending.token == token

    # --- promoting ---------------------------------------------------------------------------------

    def test_the_first_promotion(self, store: SecretStore, second_client: SecretStore, entry: str) -> None:
        """Expected None holds while there is no version. What is current then is what was pending."""
        credential = value()
        version = staged(store, entry, credential)
        store.promote(entry, version, None)
        seen = second_client.observe(entry)
        assert seen.current is not None
        assert seen.current.token == version.token
        assert seen.current.key_id == version.key_id
        assert second_client.read(entry, seen.current).same_as(credential)
        assert seen.pending is None or seen.pending.token == version.token

    def test_a_promotion_over_the_expected_version(self, store: SecretStore, entry: str) -> None:
        """The new one is current under an id of its own; the pending one may be known without its value."""
        first, credential = rotated(store, entry), value()
        version = staged(store, entry, credential)
        store.promote(entry, without_value(version), first.id)
        now = current(store, entry)
        assert now.token == version.token
        assert now.id != first.id
        assert store.read(entry, now).same_as(credential)

    def test_a_promotion_over_another_version_is_a_conflict(self, store: SecretStore, entry: str) -> None:
        """An older version, None, the pending one itself: CONFLICT, and nothing changes."""
        first = rotated(store, entry)
        rotated(store, entry)
        version = staged(store, entry)
        store.record(entry, {"future.x": "a=b"})
        before = store.observe(entry)
        for expected in (first.id, None, version.id):
            with trouble(Code.CONFLICT, store, entry):
                store.promote(entry, version, expected)
            assert same_state(store.observe(entry), before)

    def test_a_promotion_over_a_version_that_never_was(self, store: SecretStore, entry: str) -> None:
        """CONFLICT in an entry without a current version."""
        version = staged(store, entry)
        with trouble(Code.CONFLICT, store, entry):
            store.promote(entry, version, version.id)
        assert store.observe(entry).current is None

    def test_a_repeated_promotion_is_a_conflict(self, store: SecretStore, entry: str) -> None:
        """After a lost answer: the second finds its base gone, and its own version current."""
        first = rotated(store, entry)
        version = staged(store, entry)
        store.promote(entry, version, first.id)
        with trouble(Code.CONFLICT, store, entry):
            store.promote(entry, version, first.id)
        assert current(store, entry).token == version.token

    def test_a_paused_promoter_does_not_win(self, store: SecretStore, second_client: SecretStore, entry: str) -> None:
        """Two clients start from the same base; the later of them gets CONFLICT and changes nothing."""
        base = rotated(store, entry)
        mine = staged(store, entry)
        theirs = staged(second_client, entry)
        second_client.promote(entry, theirs, base.id)
        with trouble(Code.CONFLICT, store, entry):
            store.promote(entry, mine, base.id)
        assert current(store, entry).token == theirs.token

    def test_of_two_promotions_at_once_one_wins(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """With compare-and-set exactly one is done. Without, the later may overwrite; current is one of the two."""
        base: Version | None = None
        for _ in range(4):
            credentials = [value(), value()]
            clients = [store, second_client]
            versions = [staged(store, entry, credential) for credential in credentials]
            expected = base.id if base else None
            raised = at_once(
                *[
                    partial(client.promote, entry, version, expected)
                    for client, version in zip(clients, versions, strict=True)
                ]
            )
            won = [index for index, error in enumerate(raised) if error is None]
            assert all(error is None or error.code is Code.CONFLICT for error in raised), raised
            assert len(won) == 1 if store.features.compare_and_set else won
            base = current(store, entry)
            assert base.token in [versions[index].token for index in won]
            index = [version.token for version in versions].index(base.token)
            assert store.read(entry, base).same_as(credentials[index])

    def test_a_change_by_hand_is_seen_and_not_overwritten(
        self, store: SecretStore, entry: str, by_hand: ByHand
    ) -> None:
        """What a person made current has no token, and an attempt that began before it gets CONFLICT."""
        base = rotated(store, entry)
        version, credential = staged(store, entry), value("by-hand")
        by_hand(entry, credential)
        now = current(store, entry)
        assert now.token is None
        assert now.key_id is None
        assert now.id != base.id
        assert store.read(entry, now).same_as(credential)
        with trouble(Code.CONFLICT, store, entry):
            store.promote(entry, version, base.id)
        assert current(store, entry).id == now.id
        store.promote(entry, staged(store, entry), now.id)

    def test_version_ids_are_never_used_again(self, store: SecretStore, entry: str) -> None:
        """Not when an old value comes back under a new token, not after a discard, not after a recovery."""
        credential = value()
        first = rotated(store, entry, credential)
        ids = [first.id, rotated(store, entry).id]
        store.discard(entry, staged(store, entry))
        back = rotated(store, entry, credential)
        ids.append(back.id)
        if store.features.recovers_deleted:
            store.delete(entry)
            assert store.restore(entry)
            assert current(store, entry).token == back.token
            assert current(store, entry).id not in ids[:-1]
        ids.append(rotated(store, entry).id)
        assert len(set(ids)) == len(ids)

    # --- discarding --------------------------------------------------------------------------------

    def test_a_discarded_version_is_not_pending(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Nothing is pending then; current stays; discarding again is no error, and something else can be staged."""
        now = rotated(store, entry)
        version = staged(store, entry)
        second_client.discard(entry, version)
        for client in (store, second_client):
            assert client.observe(entry).pending is None
            assert current(client, entry).id == now.id
            client.discard(entry, version)
        staged(store, entry)

    def test_only_what_is_still_pending_is_discarded(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Another client's later stage stays."""
        mine = staged(store, entry)
        theirs = staged(second_client, entry)
        store.discard(entry, mine)
        assert pending(store, entry).token == theirs.token

    def test_discarding_after_promotion_leaves_current(self, store: SecretStore, entry: str) -> None:
        """The label or copy that a promotion leaves may be taken away; what is current stays, and readable."""
        credential = value()
        version = staged(store, entry, credential)
        store.promote(entry, version, None)
        left = store.observe(entry).pending
        for one in (version, left):
            if one is not None:
                store.discard(entry, one)
        seen = store.observe(entry)
        assert seen.pending is None
        assert seen.current is not None
        assert seen.current.token == version.token
        assert store.read(entry, without_value(seen.current)).same_as(credential)

    # --- older versions ----------------------------------------------------------------------------

    def test_versions_are_found_by_token_in_every_role(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Previous, current, discarded and pending: found and readable, so that a revoked value can be proven dead."""
        credentials = [value("previous"), value("current"), value("discarded"), value("pending")]
        previous = rotated(store, entry, credentials[0])
        now = rotated(store, entry, credentials[1])
        discarded = staged(store, entry, credentials[2])
        store.discard(entry, discarded)
        waiting = staged(store, entry, credentials[3])
        for version, credential in zip((previous, now, discarded, waiting), credentials, strict=True):
            assert version.token is not None
            found = second_client.find(entry, version.token)
            assert found is not None
            assert found.token == version.token
            assert found.key_id == (KEY_ID if store.features.keeps_key_id else None)
            assert second_client.read(entry, without_value(found)).same_as(credential)
        assert second_client.read(entry, without_value(previous)).same_as(credentials[0])

    def test_an_unknown_token_is_not_found(self, store: SecretStore, entry: str) -> None:
        """None, with and without versions of others."""
        assert store.find(entry, new_token()) is None
        rotated(store, entry)
        staged(store, entry)
        assert store.find(entry, new_token()) is None

    def test_a_version_that_never_was_can_not_be_read(self, store: SecretStore, entry: str, entry_name: Names) -> None:
        """NOT_FOUND for an id that is not this entry's."""
        other = entry_name("search-indexer")
        store.create(other, full_policy("search-indexer"))
        rotated(store, other)
        rotated(store, other)
        foreign = rotated(store, other)
        rotated(store, entry)
        with trouble(Code.NOT_FOUND, store, entry):
            store.read(entry, without_value(foreign))

    # --- the journal -------------------------------------------------------------------------------

    def test_facts_are_added_and_removed_one_by_one(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Two clients, neither of which has seen the other's facts; absent ones are no error; a repeated one is one."""
        mine, theirs = new_token(), new_token()
        store.record(entry, journal.promoted(mine, AT))
        second_client.record(entry, journal.promoted(theirs, AT) | journal.revoked(theirs, AT))
        store.record(entry, journal.condemned(mine, AT, Why.ORPHAN))
        store.record(entry, journal.promoted(mine, AT + timedelta(hours=1)))
        second_client.forget(entry, [f"promoted.{theirs}", f"proven.{new_token()}"])
        facts = {
            **journal.promoted(mine, AT + timedelta(hours=1)),
            **journal.condemned(mine, AT, Why.ORPHAN),
            **journal.revoked(theirs, AT),
        }
        assert store.observe(entry).journal.facts == facts
        store.forget(entry, list(facts))
        assert second_client.observe(entry).journal.facts == {}

    def test_facts_recorded_at_once_are_all_kept(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Two writers of the journal and one of the policy, at the same moment: none erases another's."""
        tokens = [[new_token() for _ in range(4)] for _ in range(2)]

        def write(client: SecretStore, mine: Iterable[str]) -> None:
            for token in mine:
                client.record(entry, journal.promoted(token, AT))

        raised = at_once(
            lambda: write(store, tokens[0]),
            lambda: write(second_client, tokens[1]),
            lambda: second_client.set_policy(entry, full_policy(owner="new-owner")),
        )
        assert raised == [None, None, None]
        seen = store.observe(entry)
        assert set(seen.journal.promoted) == {token for mine in tokens for token in mine}
        assert seen.policy == full_policy(owner="new-owner")

    def test_a_full_journal_beside_a_full_policy(self, store: SecretStore, entry: str) -> None:
        """What the longest sequence of rotations leaves at once, in the longest form of each fact."""
        key, other, next_one = new_token(), new_token(), new_token()
        stores = ("aws-prod-eu-central-1", "keyvault-prod-westeurope", "vault-on-premises-prod")
        facts: dict[str, str] = {}
        for token in (key, other, next_one):
            base = str(uuid.uuid4())
            facts |= Attempt(token, base, stores, AT, Why.REWRITE, of=key).written()
            facts |= journal.key_fact(token, KEY_ID) | journal.promoted(token, AT) | journal.superseded(token, AT)
            facts |= journal.condemned(token, AT, Why.NEVER_VERIFIED) | journal.revoked(token, AT)
        facts |= journal.contain(key, AT) | journal.proven(key, AT, "absent")
        facts |= Backoff(12, AT, AT + timedelta(hours=6), "never-verified").written()
        store.record(entry, facts)
        seen = store.observe(entry)
        assert seen.journal.facts == facts
        assert seen.journal.key_ids[key] == KEY_ID
        assert seen.policy == full_policy()

    def test_facts_of_a_later_release_are_kept(self, store: SecretStore, entry: str) -> None:
        """An unknown kind stays exactly as it is, whatever else is recorded and forgotten."""
        unknown = {"from-a-later-release.x1": "at=2027-01-01T00:00:00Z what=a:b/c+d@e"}
        store.record(entry, unknown)
        store.record(entry, journal.promoted("t1", AT))
        rotated(store, entry)
        store.set_policy(entry, full_policy(owner="new-owner"))
        store.forget(entry, ["promoted.t1"])
        assert store.observe(entry).journal.facts == unknown

    def test_a_fact_that_can_not_be_read_is_reported(self, store: SecretStore, entry: str) -> None:
        """INVALID, with the fact's key: a person edited it, and a person has to look."""
        store.record(entry, {"promoted.t1": "yesterday"})
        with trouble(Code.INVALID, store, entry) as caught:
            store.observe(entry)
        assert "promoted.t1" in str(caught.value)

    def test_journal_policy_and_versions_leave_each_other_alone(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """Writing one of the three through one client keeps what another client wrote of the others."""
        now = rotated(store, entry)
        fact = journal.promoted(now.token or "", AT)
        second_client.record(entry, fact)
        changed = {key: text for key, text in full_policy().items() if key != "paired-with"} | {"owner": "new-owner"}
        store.set_policy(entry, changed)
        waiting = staged(second_client, entry)
        seen = store.observe(entry)
        assert seen.policy == changed
        assert seen.journal.facts == fact
        assert seen.current is not None
        assert seen.current.id == now.id
        second_client.promote(entry, waiting, now.id)
        second_client.forget(entry, list(fact))
        seen = store.observe(entry)
        assert seen.policy == changed
        assert seen.journal.facts == {}

    # --- values ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"access_key_id": "AKIAEXAMPLE", "secret_access_key": "kt/secret+key=="}, id="two fields"),
            pytest.param({"value": "Zürich 東京 🔑 e\u0301 \u00e9 \u202eabc"}, id="unicode"),
            pytest.param({"value": "-----BEGIN KEY-----\r\n\ta\\b\"c'{}<>&\n"}, id="lines and quotes"),
            pytest.param({"value": '{"looks": "like JSON", "n": 1}'}, id="JSON inside"),
            pytest.param({"value": " spaces around "}, id="spaces"),
            pytest.param({"token": "t", "key": "k", "policy": "p", "id": "i"}, id="field names like ours"),
        ],
    )
    def test_values_come_back_exactly(
        self, store: SecretStore, second_client: SecretStore, entry: str, fields: Mapping[str, str]
    ) -> None:
        """Byte for byte and field for field, from pending and from current; or as one text, which is JSON
        unless `value` is alone. What was read can be stored again as it is."""
        version = staged(store, entry, Credential.of(**fields))
        read = second_client.read(entry, without_value(version))
        store.promote(entry, version, None)
        assert second_client.read(entry, without_value(current(second_client, entry))).same_as(read)
        found = {name: text.reveal() for name, text in read.fields.items()}
        if store.features.text_only and fields.keys() != {"value"}:
            assert found.keys() == {"value"}
            assert json.loads(found["value"]) == fields
        else:
            assert found == fields
        again = staged(store, entry, read)
        assert second_client.read(entry, without_value(again)).same_as(read)

    def test_the_largest_value(self, store: SecretStore, entry: str) -> None:
        """As many bytes as the store declares are kept; field names count, where they are kept too."""
        credential = Credential.of(value="v" * room_for_value(store))
        version = rotated(store, entry, credential)
        assert store.read(entry, without_value(version)).same_as(credential)

    @pytest.mark.parametrize("letter", ["v", "é"])
    def test_a_value_too_large_is_refused(self, store: SecretStore, entry: str, letter: str) -> None:
        """One byte more, counted in UTF-8: INVALID, nothing changed. What was pending still is."""
        before = staged(store, entry)
        room = room_for_value(store)
        width = len(letter.encode())
        text = letter * (room // width) + "v" * (room % width + 1)
        with trouble(Code.INVALID, store, entry):
            store.stage(entry, new_token(), Credential.of(value=text), key_id=KEY_ID)
        assert pending(store, entry).id == before.id

    def test_a_value_that_is_not_text_is_refused(self, store: SecretStore, entry: str) -> None:
        """A lone surrogate has no bytes; some services would keep another character. INVALID, nothing changed."""
        with trouble(Code.INVALID, store, entry):
            store.stage(entry, new_token(), Credential.of(value="kt-value-\ud800-half-a-pair"), key_id=KEY_ID)
        assert store.observe(entry).pending is None

    def test_observations_do_not_print_values(self, store: SecretStore, entry: str) -> None:
        """An Entry in a log line shows masks at most."""
        credential = value()
        rotated(store, entry, credential)
        staged(store, entry, credential)
        shown = repr(store.observe(entry)) + repr(store)
        assert credential.fields["value"].reveal() not in shown
        assert repr(credential.fields["value"]) == MASK

    # --- listing -----------------------------------------------------------------------------------

    def test_the_listing_has_the_managed_entries(
        self, store: SecretStore, second_client: SecretStore, entry_name: Names, by_hand: ByHand
    ) -> None:
        """All of them over all pages, with their policies: not others' entries, nothing of Keyturn's own, none deleted."""
        wanted = {}
        for number in range(self.more_than_a_page):
            name = f"service-{number:03d}"
            wanted[entry_name(name)] = full_policy(name)
            store.create(entry_name(name), wanted[entry_name(name)])
        rotated(store, entry_name("service-000"))
        staged(store, entry_name("service-001"))
        by_hand(entry_name("billing-gateway"), value())
        store.create(entry_name("gone-service"), full_policy("gone-service"))
        rotated(store, entry_name("gone-service"))
        store.delete(entry_name("gone-service"))
        listed = list(second_client.listing())
        assert sorted(one.name for one in listed) == sorted(wanted)
        assert {one.name: dict(one.policy) for one in listed} == wanted

    def test_the_listing_tells_of_the_journal(
        self, store: SecretStore, second_client: SecretStore, entry_name: Names
    ) -> None:
        """Every fact, or, where the store keeps the journal apart, since when which key is current: without a further call."""
        name = entry_name("service-000")
        store.create(name, full_policy("service-000"))
        store.create(entry_name("service-001"), full_policy("service-001"))
        version = rotated(store, name)
        token = version.token or ""
        store.record(name, journal.promoted(token, AT) | journal.key_fact(token, KEY_ID))
        facts = {one.name: one.facts for one in second_client.listing()}
        told, kept = journal.Journal(facts[name]), store.observe(name).journal
        assert facts[entry_name("service-001")] == {}
        assert told.key_ids == kept.key_ids == {token: KEY_ID}
        assert told.promoted.keys() == {token}
        if self.lists_journals:
            assert told.facts == kept.facts
        else:
            assert version.created_at is not None
            assert abs(told.promoted[token] - version.created_at) < timedelta(seconds=1)

    def test_what_a_listing_tells_of_an_entry_is_what_a_look_sees(
        self, store: SecretStore, second_client: SecretStore, entry: str, by_hand: ByHand
    ) -> None:
        """At each point of a rotation: all of the same, but for the value, or nothing. What is changed has another mark."""
        marks: list[int] = []
        token = new_token()
        attempt = Attempt(token, None, ("primary",), AT, Why.FIRST)
        steps: list[Callable[[], object]] = [
            lambda: None,
            lambda: store.record(entry, attempt.written()),
            lambda: store.stage(entry, token, value(), key_id=KEY_ID),
            lambda: store.promote(entry, pending(store, entry), None),
            lambda: store.record(entry, journal.promoted(token, AT) | journal.key_fact(token, KEY_ID)),
            lambda: by_hand(entry, value()),
        ]
        for step in steps:
            step()
            assert isinstance(second_client, Glances)
            parts = [glance for glance in second_client.glances() if glance.name == entry]
            assert [dict(part.policy) for part in parts if part.policy] == [full_policy()]
            marks.append(sum(part.mark for part in parts))
            told, seen = next((part.entry for part in parts if part.entry), None), second_client.observe(entry)
            if told is None:
                continue
            for mine, theirs in ((told.current, seen.current), (told.pending, seen.pending)):
                assert mine is None or mine.credential is None
                if mine is None and theirs is not None:
                    assert seen.current is not None
                    assert theirs.token == seen.current.token, "what is pending is but a copy of what is current"
                    continue
                assert (mine and (mine.id, mine.token)) == (theirs and (theirs.id, theirs.token))
            assert told.journal.facts == seen.journal.facts
            assert (told.policy, told.room) == (seen.policy, seen.room)
        if any(marks):
            assert len(set(marks)) == len(marks)

    def test_an_empty_store_lists_nothing(self, store: SecretStore) -> None:
        assert list(store.listing()) == []

    # --- deleting and restoring --------------------------------------------------------------------

    @pytest.mark.parametrize("versions", [0, 2])
    def test_a_deleted_entry_is_gone(
        self, store: SecretStore, second_client: SecretStore, entry: str, versions: int
    ) -> None:
        """NOT_FOUND for everybody, not listed; deleting it again, or one that never was, is no error."""
        for _ in range(versions):
            rotated(store, entry)
        store.delete(entry)
        for client in (store, second_client):
            with trouble(Code.NOT_FOUND, client, entry):
                client.observe(entry)
            with trouble(Code.NOT_FOUND, client, entry):
                client.find(entry, new_token())
            client.delete(entry)
            client.delete(f"{entry}-never-made")
        assert list(store.listing()) == []

    def test_a_promotion_under_way_does_not_bring_a_deleted_entry_back(
        self, store: SecretStore, second_client: SecretStore, entry: str
    ) -> None:
        """It comes too late: refused for certain, and the entry stays deleted."""
        now = rotated(store, entry)
        waiting = staged(store, entry)
        second_client.delete(entry)
        with pytest.raises(Trouble) as caught:
            store.promote(entry, waiting, now.id)
        assert caught.value.code in (Code.CONFLICT, Code.NOT_FOUND)
        assert not caught.value.maybe_applied
        with trouble(Code.NOT_FOUND, store, entry):
            store.observe(entry)

    @pytest.mark.parametrize("versions", [0, 2])
    def test_a_deleted_entry_comes_back_whole(
        self, store: SecretStore, second_client: SecretStore, entry: str, versions: int
    ) -> None:
        """Versions in their roles, readable; journal; policy. Where the store can not: restore() is False."""
        credentials = [value() for _ in range(versions)]
        made = [rotated(store, entry, credential) for credential in credentials]
        waiting = staged(store, entry)
        store.record(entry, journal.promoted("t1", AT))
        before = store.observe(entry)
        store.delete(entry)
        if not store.features.recovers_deleted:
            assert not second_client.restore(entry)
            return
        assert second_client.restore(entry)
        after = store.observe(entry)
        assert same_content(after, before)
        if versions:
            assert store.read(entry, current(store, entry)).same_as(credentials[-1])
        assert store.read(entry, without_value(waiting)).same_as(store.read(entry, waiting))
        for version, credential in zip(made, credentials, strict=True):
            assert store.read(entry, without_value(version)).same_as(credential)
        assert [listed.name for listed in store.listing()] == [entry]
        rotated(store, entry)

    def test_nothing_to_restore(self, store: SecretStore, entry: str, entry_name: Names) -> None:
        """False for an entry that is not deleted, or never was; both stay as they are."""
        rotated(store, entry)
        before = store.observe(entry)
        assert not store.restore(entry)
        assert not store.restore(entry_name("never-made"))
        assert same_state(store.observe(entry), before)
        with trouble(Code.NOT_FOUND, store, entry_name("never-made")):
            store.observe(entry_name("never-made"))

    @pytest.mark.parametrize("versions", [0, 1])
    def test_a_deleted_entry_is_not_created_over(self, store: SecretStore, entry: str, versions: int) -> None:
        """CONFLICT while it can be restored, and it still can. Where the store forgets, create() makes a new one."""
        for _ in range(versions):
            rotated(store, entry)
        before = store.observe(entry)
        store.delete(entry)
        if not store.features.recovers_deleted:
            store.create(entry, full_policy(owner="new-owner"))
            assert store.observe(entry).current is None
            return
        with trouble(Code.CONFLICT, store, entry):
            store.create(entry, full_policy(owner="new-owner"))
        with trouble(Code.NOT_FOUND, store, entry):
            store.observe(entry)
        assert store.restore(entry)
        assert same_content(store.observe(entry), before)
