"""Whose a leaked value is: every standing, by every kind of evidence, and nothing shown to who has no business with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from providers.stores.memory import MemoryStore
from rotation.assembly import Assembly
from rotation.cli import leak
from rotation.declared import Config
from rotation.errors import Code, Trouble
from rotation.leaks.finding import Finding
from rotation.leaks.fingerprint import Fingerprinting
from rotation.leaks.match import MOST_SHOWN, Match, Standing, exit_code, match
from rotation.model import Model, Policy, SecretValue
from rotation.names import KeyName
from tests.world import ENTRY, NAME, World

KEY = SecretValue("k" * 43)
PREFIX = "sk-canary-0123456789-abcdefgh-"
ADMIN = "sk-admin-canary-9876543210"
BEFORE = timedelta(minutes=1)


class Scene:
    """One secret over memory providers, and the report of a scanner."""

    def __init__(self, *, printed: bool = True, redacts: bool = False, **world: Any) -> None:
        self.prints = Fingerprinting((lambda: KEY) if printed else None)
        self.world = World(prints=self.prints if printed else None, **world)
        self.world.vendor.prefix, self.world.vendor.redacts = PREFIX, redacts
        self.admin: Callable[[str], SecretValue | None] = lambda _: SecretValue(ADMIN)

    @property
    def assembly(self) -> Assembly:
        engine, policy = self.world.engine(), self.world.policy
        outside = engine.outside
        issuers: Mapping[str, Any] = {"vendor": SimpleNamespace(kind="vendor-cloud")}
        config = Config(policy.installation, policy.environment, {}, issuers, {}, (policy,), root=Path())
        return Assembly(
            config, engine, outside.stores, outside.issuers, outside.places, self.world.clock,
            fingerprints=self.prints, admin=self.admin,
        )  # fmt: skip

    def match(self, *findings: Finding, unseen: tuple[Trouble, ...] = ()) -> list[Match]:
        self.world.calls.clear()
        return match(self.assembly, findings, [(self.world.target, self.world.policy)], unseen)

    def one(self, text: str, **more: Any) -> Match:
        (found,) = self.match(finding(text, **more))
        return found

    @property
    def shown(self) -> int:
        """How many values went to the issuer in the last search."""
        return self.world.calls.count("before verify")

    @property
    def read(self) -> int:
        return sum(call in ("before read", "before find", "before current") for call in self.world.calls)

    def values(self) -> list[str]:
        """Of all keys ever minted, oldest first."""
        return [key.value for key in self.world.vendor.keys]

    def mint(self, name: str) -> str:
        """A key that somebody minted, and no journal knows."""
        return self.world.engine().outside.issuers["vendor"].mint(name).credential.fields["value"].reveal()


def finding(text: str | None, *, redacted: str | None = None, rule: str = "generic-api-key", **more: Any) -> Finding:
    value = None if text is None else SecretValue(text)
    return Finding("gitleaks", value, redacted, rule, "app/settings.py:7", **more)


@pytest.fixture(params=[True, False], ids=["fingerprints", "values"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """The first credential is current; with fingerprints and without."""
    scene = Scene(printed=request.param)
    scene.world.run()
    return scene


# --- what is ours --------------------------------------------------------------------------------


def test_what_stores_hand_out_is_current(scene: Scene) -> None:
    """Its owner, its secret and its key, and the command that ends it."""
    found = scene.one(scene.values()[0])
    assert (found.standing, found.alive) == (Standing.CURRENT, True)
    assert (found.policy, found.target) == (scene.world.policy, scene.world.target)
    assert (found.key_id, found.issuer) == ("key_1", "vendor")
    assert f"`keyturn emergency {NAME}`" in found.next_step
    assert scene.shown == 0


def test_what_drains_is_previous(scene: Scene) -> None:
    """It is alive, and a leak of it counts. It is not shown to its issuer: that would be a use, and keep it alive."""
    scene.world.engine().rotate(scene.world.target)
    old, new = scene.values()
    found = scene.match(finding(old), finding(new))
    assert [one.standing for one in found] == [Standing.PREVIOUS, Standing.CURRENT]
    assert [one.key_id for one in found] == ["key_1", "key_2"]
    assert all(one.alive for one in found)
    assert scene.shown == 0


@pytest.mark.parametrize("model", [Model.MINT, Model.SLOTS])
def test_what_was_never_current_is_pending(scene: Scene, model: Model) -> None:
    """A rotation was cut off before its promotion; with a fact about the key, or with its value alone."""
    scene = Scene(printed=scene.prints.configured, model=model)
    scene.world.run()

    def cut(_: int, call: str) -> None:
        if call == "before promote":
            raise Trouble(Code.DENIED, "vault", "not now")

    scene.world.fault = cut
    scene.world.engine().rotate(scene.world.target)
    scene.world.fault = None
    found = scene.one(scene.values()[-1])
    assert (found.standing, found.alive, found.policy) == (Standing.PENDING, True, scene.world.policy)


def test_a_fingerprint_needs_no_value(scene: Scene) -> None:
    """With fingerprints, one look at the secret is all; without, its values are read. With a lost key, too."""
    scene.world.engine().rotate(scene.world.target)
    assert scene.one(scene.values()[1]).standing is Standing.CURRENT
    assert scene.world.calls.count("before observe") == 1
    assert (scene.read > 0) is not scene.prints.configured
    scene.prints = Fingerprinting(lambda: SecretValue("another" * 6))
    assert scene.one(scene.values()[1]).standing is Standing.CURRENT
    assert scene.read > 0


def test_quotes_and_addresses_around_a_value_do_not_hide_it(scene: Scene) -> None:
    """Scanners report what their rules match."""
    value = scene.values()[0]
    texts = (f'"{value}"', f" {value}\n", f"postgres://app:{value}@db.internal:5432/app", f"https://u:{value}@h")
    assert [one.standing for one in scene.match(*map(finding, texts))] == [Standing.CURRENT] * 4


def test_a_value_that_a_person_put_there_is_current(scene: Scene) -> None:
    """Before a run has looked at it, and after; who made it has to revoke it."""
    value = scene.mint("made in a console")
    MemoryStore("vault", scene.world.vaults["vault"], scene.world.clock.now).put_by_hand(
        ENTRY, scene.world.engine().outside.issuers["vendor"].mint("x").credential
    )
    put = scene.values()[-1]
    assert scene.one(put).standing is Standing.CURRENT
    scene.world.run()
    found = scene.one(put)
    assert found.standing is Standing.CURRENT
    assert "a person made it" in found.next_step
    assert scene.one(value).standing is not Standing.CURRENT


def test_a_key_id_tells_which_key_it_is(scene: Scene) -> None:
    """Some scanners report the id in place of the value."""
    scene.world.vendor.keys[0].key_id = "key_12345678"
    scene.world.engine().rotate(scene.world.target)
    journal = scene.world.vaults["vault"].entries[ENTRY].facts
    for fact, text in journal.items():
        journal[fact] = text.replace("id=key_1", "id=key_12345678")
    found = scene.one("key_12345678")
    assert found.standing is Standing.PREVIOUS
    assert "the id alone opens nothing" in found.how


def test_the_admin_credential_is_told(scene: Scene) -> None:
    """By its value, and by a redacted form; it is never shown to anybody for that."""
    shown = finding(None, redacted="sk-admin-****3210")
    found = scene.match(finding(ADMIN), shown)
    assert [one.standing for one in found] == [Standing.ADMIN, Standing.ADMIN]
    assert [one.issuer for one in found] == ["vendor", "vendor"]
    assert all(one.alive and "everything" in one.next_step for one in found)
    assert scene.shown == 0


# --- what lists tell -----------------------------------------------------------------------------


def own_name(token: str) -> str:
    return str(KeyName("acme", "test", NAME, token))


def test_an_orphan_is_told_by_its_redacted_form_and_its_name() -> None:
    """Its secret is known by the name that we gave; the redacted form says which key it is."""
    scene = Scene(redacts=True)
    scene.world.run()
    value = scene.mint(own_name("f" * 32))
    found = scene.one(value)
    assert (found.standing, found.alive) == (Standing.ORPHAN, True)
    assert (found.policy, found.token, found.key_id) == (scene.world.policy, "f" * 32, "key_2")
    assert f"lists it as {value[:8]}****{value[-4:]}" in found.how
    assert scene.shown == 0


def test_the_second_key_of_one_mint_is_an_orphan_of_its_own() -> None:
    """It must not go by the token of the key that is current."""
    scene = Scene(redacts=True)
    scene.world.run()
    (token,) = {key.name.rpartition(".")[2] for key in scene.world.vendor.keys}
    found = scene.one(scene.mint(own_name(token)))
    assert found.standing is Standing.ORPHAN
    assert found.token != token


def test_a_listed_key_that_nobody_claims_is_unmanaged() -> None:
    """Somebody made it by hand, or another stack did."""
    scene = Scene(redacts=True)
    scene.world.run()
    found = scene.match(
        finding(scene.mint("made in a console")), finding(scene.mint(f"acme.prod-{NAME}.{'a' * 32}"))
    )  # fmt: skip
    assert [one.standing for one in found] == [Standing.UNMANAGED, Standing.UNMANAGED]
    assert all(one.alive and one.policy is None for one in found)
    assert "`keyturn adopt`" in found[0].next_step
    assert f"{NAME} in prod of acme" in found[1].next_step


def test_a_redacted_form_alone_is_enough_where_it_shows_enough() -> None:
    """Of a listed key; of a key that is current; of one of which it shows too little."""
    scene = Scene(redacts=True)
    scene.world.run()
    value = scene.values()[0]
    enough, little = f"{value[:12]}...{value[-6:]}", f"{value[:12]}...{value[-2:]}"
    found = scene.match(finding(None, redacted=enough), finding(None, redacted=little))
    assert [one.standing for one in found] == [Standing.CURRENT, Standing.UNKNOWN]
    assert "shows too little" in found[1].how
    assert exit_code(found[1:]) == 1


def test_a_redacted_form_is_held_against_values_where_no_list_shows_any() -> None:
    """As of generated values, which no issuer lists."""
    scene = Scene()
    scene.world.run()
    value = scene.values()[0]
    found = scene.match(finding(None, redacted=f"{value[:6]}****{value[-4:]}"))
    assert [one.standing for one in found] == [Standing.CURRENT]


def test_a_redacted_form_of_several_keys_says_none() -> None:
    """It could be any of them: that is not told as one of them, and counts as alive."""
    scene = Scene(redacts=True)
    scene.world.run()
    scene.mint("x")
    scene.mint("y")
    for key in scene.world.vendor.keys[-2:]:
        key.value = f"{PREFIX}{key.key_id}-same"
    found = scene.match(finding(None, redacted=f"{PREFIX[:8]}****same"))
    assert [(one.standing, one.alive) for one in found] == [(Standing.UNKNOWN, True)]
    assert "key_2, key_3" in found[0].how
    assert exit_code(found) == 3


# --- what is not ours, or not any more ------------------------------------------------------------


def test_a_key_that_was_shown_dead_is_dead(scene: Scene) -> None:
    """The journal has forgotten it; its issuer refuses it. A value of another kind would not be shown at all."""
    scene.world.engine().rotate(scene.world.target)
    scene.world.sweep_until_quiet()
    assert [key.revoked for key in scene.world.vendor.keys] == [True, False]
    found = scene.one(scene.values()[0], rule="vendor-api-key")
    assert (found.standing, found.alive) == (Standing.DEAD, False)
    assert "dead already, or one that never was ours" in found.how
    assert scene.shown == 1
    assert exit_code([found]) == 0


def test_a_stranger_is_shown_to_nobody(scene: Scene) -> None:
    """Nothing says that it is of an issuer of ours."""
    found = scene.one("ghp_canary000000000000000000000000000000", rule="github-pat")
    assert (found.standing, found.alive) == (Standing.STRANGER, False)
    assert "shown to no issuer" in found.how
    assert scene.shown == 0
    assert exit_code([found]) == 0


def test_a_value_that_begins_as_listed_keys_do_is_shown_to_that_issuer() -> None:
    """Whatever the scanner's rule is called."""
    scene = Scene(redacts=True)
    scene.world.run()
    assert scene.one(f"{PREFIX}never-minted").standing is Standing.DEAD
    assert scene.shown == 1


def test_a_key_of_somebody_elses_account_works_and_is_not_ours() -> None:
    """Its list would show it. So it is a stranger's, and nobody of ours has to act: that is not exit code 3."""
    scene = Scene(redacts=True)
    scene.world.run()
    value = scene.mint("elsewhere")
    issuer = scene.world.engine().outside.issuers["vendor"]
    hidden = [info for info in iter(issuer.keys()) if info.name != "elsewhere"]

    class Elsewhere:
        """An issuer whose list is of one project, while its keys are told from those of others by nobody."""

        def __getattr__(self, name: str) -> Any:
            return getattr(issuer, name)

        def keys(self) -> Any:
            return iter(hidden)

    assembly = replace(scene.assembly, issuers={"vendor": Elsewhere()})
    (found,) = match(assembly, [finding(value, rule="vendor-key")], [(scene.world.target, scene.world.policy)])
    assert (found.standing, found.alive) == (Standing.STRANGER, True)
    assert exit_code([found]) == 0


def test_an_accepted_value_that_no_list_can_tell_counts_as_alive() -> None:
    """It may be an orphan of ours: the list shows names only."""
    scene = Scene()
    scene.world.run()
    found = scene.one(scene.mint(own_name("f" * 32)), rule="vendor-key")
    assert (found.standing, found.alive) == (Standing.UNKNOWN, True)
    assert exit_code([found]) == 3


def test_a_long_report_is_no_attack_on_an_issuer() -> None:
    """Each value is shown once, and no more than a few of one report."""
    scene = Scene()
    scene.world.run()
    many = [finding(f"vendor-canary-{number:04d}", rule="vendor-key") for number in range(MOST_SHOWN + 5)]
    found = scene.match(*many, *many)
    assert scene.shown == MOST_SHOWN
    assert [one.standing for one in found].count(Standing.DEAD) == 2 * MOST_SHOWN
    assert [one.standing for one in found].count(Standing.UNKNOWN) == 10
    assert [one.finding for one in found] == [*many, *many]


# --- what could not be told ----------------------------------------------------------------------


@pytest.mark.parametrize("call", ["before observe", "before keys"])
def test_what_does_not_answer_leaves_the_rest_untold(scene: Scene, call: str) -> None:
    """A secret or a list that can not be looked at may be the one: that is no stranger, and exit code 1."""

    def away(_: int, made: str) -> None:
        if made == call:
            raise Trouble(Code.UNAVAILABLE, "vault", "no answer")

    scene.world.fault = away
    found = scene.one("ghp_canary000000000000000000000000000000")
    assert (found.standing, found.alive) == (Standing.UNKNOWN, False)
    assert "vault: no answer" in found.how
    assert exit_code([found]) == 1


def test_what_stood_in_the_way_before_counts_too(scene: Scene) -> None:
    """A store that did not list its secrets."""
    (found,) = scene.match(finding("x" * 20), unseen=(Trouble(Code.UNAVAILABLE, "aws", "no answer"),))
    assert found.standing is Standing.UNKNOWN
    assert "aws: no answer" in found.how


def test_an_admin_credential_that_can_not_be_read_is_told(scene: Scene) -> None:
    """It may be the one that leaked."""

    def missing(_: str) -> SecretValue:
        raise Trouble(Code.DENIED, "vendor", "its admin credential is missing")

    scene.admin = missing
    assert "its admin credential is missing" in scene.one(ADMIN).how


def test_a_value_of_two_secrets_is_told_of_both() -> None:
    """Somebody adopted one key under two names: both have to be replaced."""
    scene = Scene()
    scene.world.run()
    (value,) = scene.values()
    other: Policy = replace(scene.world.policy, name="other-name")
    vault = scene.world.vaults["vault"]
    vault.entries["test/other-name"] = vault.entries[ENTRY]
    target = replace(scene.world.target, entry="test/other-name")
    managed = [(scene.world.target, scene.world.policy), (target, other)]
    found = match(scene.assembly, [finding(value)], managed)
    assert [one.policy and one.policy.name for one in found] == [NAME, "other-name"]


# --- hygiene -------------------------------------------------------------------------------------


def test_no_value_is_in_anything_that_is_shown_or_kept(
    scene: Scene, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of whatever standing: not on the screen, in the JSON, the log, the journal or the audit trail."""
    caplog.set_level("DEBUG")
    scene.world.engine().rotate(scene.world.target)
    values = [*scene.values(), scene.mint(own_name("f" * 32)), scene.mint("x"), ADMIN, "stranger-canary-value"]
    matches = scene.match(*(finding(value, rule="vendor-key") for value in values))
    leak.show_matches(matches)
    texts = [json.dumps(leak.as_json(matches)), *capsys.readouterr(), caplog.text, repr(matches)]
    texts += [repr(record) for record in scene.world.trail.records]
    texts += [repr(entry.facts) for entry in scene.world.vaults["vault"].entries.values()]
    assert len(matches) == len(values)
    for value in values:
        for text in texts:
            assert value not in text


def test_the_screen_tells_what_a_person_needs(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it was found, what it is, whose, who reads it, whether it lives, and what is next; ours first."""
    leak.show_matches(scene.match(finding("y" * 30), finding(scene.values()[0], public=True)))
    shown = capsys.readouterr().out
    first, last = shown.splitlines()[0], shown.splitlines()[-1]
    assert first == f"! app/settings.py:7: the current credential of {NAME}, key key_1: alive"
    assert "found by gitleaks, generic-api-key, public" in shown
    assert "environment test, owner team, in vault" in shown
    assert "read by nobody that is declared" in shown
    assert f"next: `keyturn emergency {NAME}`" in shown
    assert last == "2 findings: 1 of ours alive."
