"""Fingerprints: what they tell and what they do not, where their key lives, and that rotation never waits for it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.stores.memory import MemoryStore, MemoryVault
from rotation.access import Persona, needs
from rotation.config import parse
from rotation.errors import Code, Trouble
from rotation.journal import LONGEST, Journal, Of, adopted, key_fact, printed
from rotation.leaks.fingerprint import SHORTEST, Fingerprinting, Fingerprints, make_key
from rotation.model import Credential, Model, SecretValue, Version
from rotation.situation import Order
from rotation.values import Values
from tests.world import ENTRY, NAME, FakeClock, World

KEY, OTHER = SecretValue("k" * 43), SecretValue("o" * 43)
VALUE = SecretValue("sk-proj-canary-0123456789-WXYZ")
AT = datetime(2026, 5, 1, tzinfo=UTC)


# --- what a fingerprint is -----------------------------------------------------------------------


def test_one_key_and_one_value_give_one_fingerprint() -> None:
    """Whatever object holds them, and whatever blanks were pasted along."""
    again = Fingerprints(SecretValue(KEY.reveal()))
    assert Fingerprints(KEY).of(VALUE) == again.of(SecretValue(f"  {VALUE.reveal()}\r\n"))


def test_another_key_or_value_gives_another() -> None:
    """Without the key nobody can compare two installations."""
    prints = {Fingerprints(key).of(value) for key in (KEY, OTHER) for value in (VALUE, SecretValue("x" * 30))}
    assert len(prints) == 4


def test_a_fingerprint_says_which_key_made_it() -> None:
    """So that prints of a lost key count as none, and a value behind them is read again."""
    mine = Fingerprints(KEY)
    assert mine.made(mine.of(VALUE))
    assert not mine.made(Fingerprints(OTHER).of(VALUE))


def test_a_fingerprint_is_no_plain_digest_and_holds_nothing_of_the_value() -> None:
    """18 characters that every tag may hold; the same in every release, or what stands in journals were lost.

    `printf 'keyturn fingerprint 1\\0VALUE' | openssl dgst -sha256 -hmac KEY -binary | head -c 12 | basenc --base64url`
    gives all but the first two.
    """
    found = Fingerprints(KEY).of(VALUE)
    assert re.fullmatch(r"[A-Za-z0-9_-]{18}", found)
    assert found == "M_jXFvcfDgyS9Dz4Bh"


def test_text_that_is_no_unicode_has_one_too() -> None:
    """A report may hold whatever a parser lets through."""
    assert Fingerprints(KEY).of(SecretValue("\ud800" * 20))


def test_each_field_that_can_be_a_secret_has_one() -> None:
    """Neither what is short, as user names are, nor the key's public id, whole or in part."""
    ids = "svc_acct_12345678/AKIAIOSFODNN7EXAMPLE"
    credential = Credential.of(
        secret_access_key=VALUE.reveal(), key="AKIAIOSFODNN7EXAMPLE", user="s" * (SHORTEST - 1), whole=ids
    )
    assert Fingerprints(KEY).of_credential(credential, ids) == (Fingerprints(KEY).of(VALUE),)
    assert len(Fingerprints(KEY).of_credential(credential)) == 3


# --- in the journal ------------------------------------------------------------------------------


def test_the_journal_keeps_fingerprints_beside_ids() -> None:
    """In the facts of a key and of an adopted version, each readable without them as before."""
    facts = key_fact("a", "key 1", ["p" * 18, "q" * 18]) | key_fact("b", "key_2")
    facts |= printed(adopted("c", "v1", AT, Of.PERSON, "scope"), {"c": ["r" * 18]})
    journal = Journal(facts)
    assert journal.prints == {"a": ("p" * 18, "q" * 18), "c": ("r" * 18,)}
    assert journal.key_ids == {"a": "key 1", "b": "key_2"}
    assert (journal.adopted, journal.scopes, journal.foreign) == ({"c": "v1"}, {"c": "scope"}, {"c": AT})


@pytest.mark.parametrize("length", [10, 214, 215, 233, 234, 250])
def test_no_fact_is_longer_than_a_tag(length: int) -> None:
    """An id that leaves no room has no fingerprint beside it, rather than none itself."""
    (text,) = key_fact("a", "i" * length, ["p" * 18, "q" * 18]).values()
    room = LONGEST - len(f"id={'i' * length} print=")
    assert len(text) <= LONGEST
    assert len(Journal({"key.a": text}).prints.get("a", ())) == min(2, max(0, (room + 1) // 19))


def test_fingerprints_that_are_there_stay() -> None:
    """A fact is printed once."""
    facts = key_fact("a", "key_1", ["p" * 18])
    assert printed(facts, {"a": ["q" * 18]}) == facts


# --- in a rotation -------------------------------------------------------------------------------


def long(world: World) -> World:
    """Its issuer's values are as long as real ones are."""
    world.vendor.prefix = "sk-canary-0123456789-"
    return world


def held(world: World) -> Journal:
    return MemoryStore("vault", world.vaults["vault"], world.clock.now).observe(ENTRY).journal


def values(world: World) -> dict[str, str]:
    return {key.name.rpartition(".")[2]: key.value for key in world.vendor.keys}


def test_every_key_that_a_run_promotes_has_its_fingerprint() -> None:
    """The current one and the one before: what each of them was minted as."""
    prints = Fingerprints(KEY)
    world = long(World(prints=prints.of_credential))
    world.run()
    world.engine().rotate(world.target)
    expected = {token: (prints.of(SecretValue(value)),) for token, value in values(world).items()}
    assert len(expected) == 2
    assert held(world).prints == expected


def test_a_run_that_goes_on_for_another_writes_it_too() -> None:
    """It has the value from the store, where it reads it anyway."""
    prints = Fingerprints(KEY)
    world = long(World(prints=prints.of_credential))

    def cut(_: int, call: str) -> None:
        if call == "before promote":
            raise Trouble(Code.DENIED, "vault", "not now")

    world.fault = cut
    world.run()
    assert held(world).prints == {}
    world.fault = None
    world.clock.move(timedelta(minutes=20))
    world.sweep_until_quiet()
    journal = held(world)
    assert journal.prints[next(iter(journal.prints))]
    assert set(journal.prints) == set(journal.key_ids)


@pytest.mark.parametrize("model", [Model.MINT, Model.SLOTS])
def test_a_key_whose_value_nobody_could_store_has_its_fingerprint(model: Model) -> None:
    """The run that minted it had it in memory; afterwards it can be told by nothing else."""
    prints = Fingerprints(KEY)
    world = long(World(prints=prints.of_credential, model=model))
    world.denied = ("vault", ("stage",))
    world.run()
    (value,) = values(world).values()
    assert [*held(world).prints.values()] == [(prints.of(SecretValue(value)),)]


def test_a_fact_that_is_written_anew_keeps_its_fingerprint() -> None:
    """As that of a key which is condemned by a run that has no value of it."""
    world = long(World(prints=Fingerprints(KEY).of_credential))
    world.run()
    engine = world.engine()
    seen = engine.observe(world.target)
    ((token, known),) = seen.primary.journal.prints.items()
    bare = replace(seen.primary, current=None, pending=None)
    s = engine.outside.situation(replace(seen, primary=bare))
    assert Journal(Values(engine.outside).printed(key_fact(token, "key_1"), s, {})).prints == {token: known}


def test_an_adopted_value_has_its_fingerprint() -> None:
    """With its id and without: it has been read to be adopted."""
    prints = Fingerprints(KEY)
    for key_id in (None, "key_1"):
        world = long(World(prints=prints.of_credential))
        store = MemoryStore("vault", world.vaults["vault"], world.clock.now)
        issued = world.engine().outside.issuers["vendor"].mint("made by hand")
        world.vaults["vault"].entries.clear()
        store.put_by_hand(ENTRY, issued.credential)
        world.engine().adopt(world.target, world.policy, key_id=key_id)
        assert [*held(world).prints.values()] == [(prints.of(issued.credential.fields["value"]),)]


def test_a_value_that_a_person_put_there_has_its_fingerprint_once_it_was_looked_at() -> None:
    """The run that verified it had it in memory."""
    prints = Fingerprints(KEY)
    world = long(World(prints=prints.of_credential))
    world.run()
    issued = world.engine().outside.issuers["vendor"].mint("made by hand")
    MemoryStore("vault", world.vaults["vault"], world.clock.now).put_by_hand(ENTRY, issued.credential)
    world.run()
    assert (prints.of(issued.credential.fields["value"]),) in held(world).prints.values()


def test_fingerprints_cost_no_call() -> None:
    """The same calls, in the same order, with them and without."""
    calls = []
    for prints in (None, Fingerprints(KEY).of_credential):
        world = long(World(stores=("vault", "mirror"), prints=prints))
        world.run()
        world.engine().rotate(world.target)
        world.sweep_until_quiet()
        calls.append(world.calls)
    assert calls[0] == calls[1]
    assert calls[0].count("before mint") == 2


# --- the key -------------------------------------------------------------------------------------


@dataclass
class Source:
    """Gives the key, or does not."""

    fails: bool = False
    asked: int = 0
    key: SecretValue = field(default_factory=lambda: KEY)

    def __call__(self) -> SecretValue:
        self.asked += 1
        if self.fails:
            raise Trouble(Code.UNAVAILABLE, "vault", "no answer")
        return self.key


def test_the_key_is_read_once_and_not_before_it_is_needed() -> None:
    """A warm process pays nothing, and one that never mints neither."""
    source = Source()
    prints = Fingerprinting(source, FakeClock())
    assert source.asked == 0
    world = long(World(prints=prints))
    world.run()
    world.engine().rotate(world.target)
    assert source.asked == 1


def test_rotation_goes_on_without_its_key(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; and the store that is away is not asked for every fact, but again after five minutes."""
    source, clock = Source(fails=True), FakeClock()
    prints = Fingerprinting(source, clock)
    world = long(World(prints=prints))
    with caplog.at_level(logging.WARNING):
        outcome = world.run(Order())
    assert outcome.trouble is None
    assert held(world).promoted
    assert held(world).prints == {}
    assert source.asked == 1
    assert [r.getMessage() for r in caplog.records if "vault: no answer" in r.getMessage()]
    assert prints.fault == "vault: no answer"
    source.fails = False
    assert prints.ready() is None
    clock.move(timedelta(minutes=5))
    assert prints.ready() is not None
    assert prints.fault is None


def test_what_is_too_short_is_no_key() -> None:
    """Something else was pasted there: nothing is signed with it, and the message does not repeat it."""
    prints = Fingerprinting(Source(key=SecretValue("short-canary")), FakeClock())
    assert prints.ready() is None
    assert "fewer than 32 characters" in str(prints.fault)
    assert "short-canary" not in str(prints.fault)


def test_without_a_key_in_the_configuration_there_are_none() -> None:
    """And that is no fault."""
    prints = Fingerprinting()
    assert (prints.configured, prints.ready(), prints(Credential.of(value="x" * 20), None)) == (False, None, ())
    assert "keyturn:fingerprints" in str(prints.fault)


# --- making it -----------------------------------------------------------------------------------


def shelf(vault: MemoryVault, *, fenced: bool = True) -> MemoryStore:
    return MemoryStore("vault", vault, FakeClock().now, fenced=fenced)


def test_a_key_is_made_once() -> None:
    """The second time it is there already, and stays what it was."""
    vault = MemoryVault()
    assert make_key(shelf(vault), "keyturn/fingerprints")
    made = shelf(vault).current("keyturn/fingerprints")
    assert len(made.fields["value"].reveal()) == 43
    assert not make_key(shelf(vault), "keyturn/fingerprints")
    assert shelf(vault).current("keyturn/fingerprints").same_as(made)


def test_an_entry_that_was_begun_is_completed() -> None:
    """The first try got no further than the entry."""
    vault = MemoryVault()
    shelf(vault).create("keyturn/fingerprints", {})
    assert make_key(shelf(vault), "keyturn/fingerprints")


def test_whatever_somebody_put_there_stays() -> None:
    """Also when it is no key of ours."""
    vault = MemoryVault()
    shelf(vault).put_by_hand("keyturn/fingerprints", Credential.of(own="x"))
    assert not make_key(shelf(vault), "keyturn/fingerprints")
    assert shelf(vault).current("keyturn/fingerprints").fields["own"].reveal() == "x"


def test_of_two_who_make_it_at_once_one_wins() -> None:
    """The other one's key is nowhere."""
    vault = MemoryVault()

    class Slower(MemoryStore):
        """Somebody else is done just before it promotes."""

        def promote(self, entry: str, pending: Version, expected: str | None) -> None:
            other = vault.add_version(vault.entries[entry], "t", Credential.of(value="theirs"))
            vault.entries[entry].current = other
            super().promote(entry, pending, expected)

    assert not make_key(Slower("vault", vault, FakeClock().now), "keyturn/fingerprints")
    assert shelf(vault).current("keyturn/fingerprints").fields["value"].reveal() == "theirs"


def test_a_store_that_fails_is_told() -> None:
    """Nothing is made of an answer that is not one."""

    def away(_: str) -> None:
        raise Trouble(Code.UNAVAILABLE, "vault", "no answer")

    with pytest.raises(Trouble, match="no answer"):
        make_key(MemoryStore("vault", MemoryVault(), FakeClock().now, away), f"keyturn/{NAME}")


@pytest.mark.parametrize(
    ("persona", "mints", "operations"),
    [
        (Persona.ROTATE, True, {"current"}),
        (Persona.RESPOND, True, {"current"}),
        (Persona.PROVISION, True, {"current", "create", "observe", "stage", "promote"}),
        (Persona.PROVISION, False, set()),
        (Persona.READ, True, set()),
    ],
)
def test_who_may_read_and_make_the_key(persona: Persona, mints: bool, operations: set[str]) -> None:
    """Whoever mints reads it, whoever provisions makes it; an application has no business with it."""
    config = parse(
        {
            "installation": "acme",
            "environment": "test",
            "stores": {"vault": {"kind": "hashicorp-vault", "address": "https://vault.example:8200"}},
            "issuers": {"generated": {"kind": "generated"}},
            "owners": {"team": {}},
            "secrets": [{"name": NAME, "store": "vault", "issuer": "generated", "owner": "team", "rotateEvery": "30d"}],
            "fingerprints": {"store": "vault", "name": "keyturn/fingerprints"},
        }
    )
    grants = needs(config, persona, config.policies, mints=mints)["vault"].grants
    assert {op for grant in grants if grant.entry == "keyturn/fingerprints" for op in grant.operations} == operations
