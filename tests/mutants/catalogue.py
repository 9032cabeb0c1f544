"""The faults. Each is one that somebody could make, or has made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from providers.issuers import iam
from rotation import decide, effects, names, orphans, resilience
from rotation.actions import Promote
from rotation.effects import Effects
from rotation.engine import Engine
from rotation.looking import Observer
from rotation.model import Entry, Verdict
from rotation.provision import Provisioner
from rotation.rules import arriving, beginning, explaining, mirroring, proving, retiring, revoking
from rotation.situation import Situation
from tests.mutants.patching import edit, swap
from tests.simulation import stores

Cue = tuple[str, str, str]
"""Who, at which call (words in it), does what: `("one", "promote", "pause>two")`; with nothing to do, it is passed."""


@dataclass(frozen=True, slots=True)
class Race:
    """Who stops where. For races of three or more turns, which a search would need millions of executions to meet."""

    where: str
    """Scenario, stores and issuer, as `due twice / vault / free`."""
    cues: tuple[Cue, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, and what should show it.

    Parameters:
        look_in: words that name scenarios and settings of the simulation, to be searched in this order.
        races: executions of it to be tried before.
        test: a test that must fail, as pytest names it; the simulation is not asked then.
    """

    name: str
    put: Callable[[], None]
    look_in: tuple[str, ...] = ()
    races: tuple[Race, ...] = ()
    test: str = ""


ENGINE: Final = "tests/test_engine.py::test_"
FREEZE: Final = "tests/test_freeze.py::test_"

MUTANTS: Final[dict[str, Mutant]] = {}

Put = Callable[[], None]


def mutant(name: str, *look_in: str, races: tuple[Race, ...] = (), test: str = "") -> Callable[[Put], Put]:
    """Enters a fault under a name that says what is wrong."""

    def keep(put: Put) -> Put:
        MUTANTS[name] = Mutant(name, put, look_in, races, test)
        return put

    return keep


# --- order -----------------------------------------------------------------------------------------


@mutant("mint before intent", "asked / vault / replace")
def _() -> None:
    edit(
        Effects,
        "_intend",
        "self._record(seen, run, attempt.written())",
        "replace(seen, primary=replace(seen.primary, journal=seen.primary.journal.plus(attempt.written())))",
    )
    edit(Effects, "_intend", "return None if", "return after if")
    edit(
        Effects,
        "_mint",
        "run.evidence.issued[attempt.token] = key_id",
        "run.evidence.issued[attempt.token] = key_id\n    self._record(seen, run, attempt.written())",
    )


@mutant(
    "revoke without looking again after the mark",
    races=(
        Race(
            "rollback in the last minute / vault / free",
            (
                ("rollback", "look at pending", "after>run+55s"),
                ("run", "look at pending", "after>rollback"),
                ("rollback", "forget superseded", "pause>run+10s"),
                ("run", "record condemned", "pause>rollback"),
                ("rollback", "promote", "pause>run"),
            ),
        ),
    ),
)
def _() -> None:
    edit(Effects, "_condemn", "    self._record(", "    return self._record(")


@mutant(
    "a replica gets what is not noted as promoted",
    test="tests/test_others_at_work.py::test_nothing_is_mirrored_before_its_promotion_is_noted",
)
def _() -> None:
    swap(decide, "NOTED_FIRST", frozenset())


@mutant("revoke what a store still hands out", "emergency / vault / free")
def _() -> None:
    edit(retiring, "_retire", "if key in s.roles or s.evidence", "if s.evidence")


@mutant(
    "revoke while an attempt with the current base is open", "due twice / vault / slots", "due twice / vault / free"
)
def _() -> None:
    swap(revoking, "_alive_attempts", lambda s, key: [])


@mutant(
    "revoke before the read-back of every store",
    "lagging and emergency / vault+aws / free",
    "emergency / vault+aws / free",
)
def _() -> None:
    edit(revoking, "revoke", "if s.astray and not left and (s.promoted_at(key) or orphan):", "if False:")


@mutant(
    "see the primary before its replicas",
    races=(
        Race(
            "due twice and emergency / vault+aws / free",
            (
                ("one", "put 2", "pause>two"),
                ("two", "put 2", "pause>one"),
                ("emergency", "look at pending", "pause>one"),
                ("one", "promote 2 over", ""),
                ("one", "describe at aws-2", "pause>emergency"),  # the primary was seen; its replica not yet
                ("emergency", "revoke 2", "pause>two"),
                ("two", "look at", "pause>one"),
                ("one", "move AWSCURRENT", "pause>emergency"),
            ),
        ),
    ),
)
def _() -> None:
    look = "        if others or not fresh:\n            primary = store.observe(target.entry)\n"
    edit(Observer, "observe", look, "")
    edit(Observer, "observe", "        looks = {", f"{look}        looks = {{")


@mutant("promote the replica before the primary", "due twice and emergency / vault+aws / free")
def _() -> None:
    def promote_all(s: Situation, attempt: Any, version: Any) -> Iterator[Any]:
        for store, entry in s.seen.replicas.items():
            if isinstance(entry, Entry) and entry.pending and entry.pending.token == version.token:
                expected = entry.current.id if entry.current else None
                if expected != version.id and (entry.current is None or entry.current.token != version.token):
                    yield Promote(store=store, version=entry.pending, expected=expected, reason="early")
        yield from real(s, attempt, version)

    follows = "not (isinstance(entry, Entry) and entry.current and entry.current.token == version.token)"
    edit(arriving, "_stage_in_replicas", "if entry.pending is None or", f"if {follows} and entry.pending is None or")
    edit(
        arriving,
        "_stage_in_replicas",
        "entry.pending.token != version.token:",
        "entry.pending and entry.pending.token != version.token:",
    )
    edit(arriving, "_stage_in_replicas", "elif (store, version.token)", "elif entry.pending and (store, version.token)")
    edit(arriving, "_promote", "and isinstance(entry, Entry)", f"and isinstance(entry, Entry) and {follows}")
    real = arriving._promote
    swap(arriving, "_promote", promote_all)


# --- what is compared ------------------------------------------------------------------------------


@mutant(
    "promote over whatever is current now",
    races=(
        Race(
            "due and emergency / vault / free",
            (
                ("emergency", "look at pending", "pause>run"),
                ("run", "audit: promote", ""),
                ("run", "look at pending", "after>emergency"),  # it was due, and is condemned
            ),
        ),
    ),
)
def _() -> None:
    edit(
        Effects,
        "_promote",
        "action.version, action.expected)",
        "action.version, (lambda now: now.id if now else None)"
        "(self._stores[action.store].observe(entry.name).current))",
    )


@mutant("a void attempt is promoted all the same", "due twice / vault / free", "due twice")
def _() -> None:
    edit(arriving, "_promote", "expected=attempt.base", "expected=s.current_id")
    swap(Situation, "void", lambda self, attempt: False)


@mutant("a label is moved without saying from where", "due twice / aws+azure / two keys", "due twice / aws")
def _() -> None:
    edit(stores.SecretsManager, "_move", "if dict(e.labels).get(label) != away:", "if False:")


@mutant("a put that does not name its label", "poisoned / aws / free", "due / aws / slow")
def _() -> None:
    edit(stores.SecretsManager, "stage", 'stored, "AWSPENDING")', 'stored, "AWSCURRENT")')


@mutant("the journal written as a whole", "due twice / vault / free", "due and emergency / vault / free")
def _() -> None:
    edit(
        stores.Client,
        "record",
        "    self._change(entry, told, lambda e: replace(e, facts=Facts({**e.facts, **facts})))",
        '    seen = self._look(entry, "read the journal", lambda e: e.facts)\n'
        "    self._change(entry, told, lambda e: replace(e, facts=Facts({**seen, **facts})))",
    )


# --- what counts as evidence -----------------------------------------------------------------------


@mutant("UNKNOWN read as VALID", "poisoned / vault / free")
def _() -> None:
    swap(Verdict, "live", property(lambda self: self is not Verdict.INVALID))
    edit(arriving, "_verify", "elif streak.verdict is Verdict.UNKNOWN:", "elif False:")


@mutant("promote without verification", "poisoned / vault / free")
def _() -> None:
    edit(
        arriving,
        "_verify",
        "if s.rewrites(attempt):",
        "if True:\n        yield from _promote(s, attempt, version)\n    if s.rewrites(attempt):",
    )


@mutant("revoke without proof", "due / vault / slow")
def _() -> None:
    edit(
        proving,
        "prove",
        "    need = s.issuer.revoke\n",
        '    need = s.issuer.revoke\n    yield from _proven(s, key, "refused", "the issuer said so")\n',
    )


@mutant("nobody holds the value, so it is taken for dead", "orphan / vault / slow")
def _() -> None:
    edit(proving, "prove", "elif s.is_listed(key):", "elif False:")


@mutant("last use unknown read as unused", "retire / vault / last use unknown")
def _() -> None:
    edit(retiring, "_draining", "if use.known and (", "if not use.known or (")


@mutant("last use not asked for", "retire / vault / slow consumers")
def _() -> None:
    edit(retiring, "_draining", "if not s.issuer.tells_last_use:", "if True:")


@mutant("a draining credential verified by us", "retire / vault / free")
def _() -> None:
    edit(
        retiring,
        "_draining",
        "    use = s.evidence.last_use.get(key)\n",
        '    if key not in s.evidence.refusals:\n        return Prove(key=key, reason="does it still work?")\n'
        "    use = s.evidence.last_use.get(key)\n",
    )


@mutant("no grace period", "due / vault / free")
def _() -> None:
    edit(retiring, "_draining", "< since + s.policy.grace:", "< since:")


@mutant("grace counted from the primary's promotion", "due / vault+aws / free", "lagging / vault+aws / free")
def _() -> None:
    edit(explaining, "note", "if not s.lagging and (", "if (")
    edit(explaining, "note", "any(role.endswith", "key == s.current_key and any(role.endswith")


@mutant(
    "no grace for what another run condemned",
    races=(
        Race(
            "due twice / vault / slow",
            (
                ("one", "record attempt", "after>two+15s"),
                ("two", "look at pending", "pause>one"),
                ("one", "verify", "pause>two"),  # so that one finds that it works, and the other that it does not
            ),
        ),
    ),
)
def _() -> None:
    edit(retiring, "_retire", "and not s.drained(key):", "and False:")


# --- whose key it is -------------------------------------------------------------------------------


@mutant("orphan sweep without age", "young orphan / vault / free")
def _() -> None:
    swap(orphans, "ATTEMPT_LIFE", timedelta(0))


@mutant("sweeping somebody else's key", "orphan / vault / free")
def _() -> None:
    def any_token(key_name: str, **_: str) -> str | None:
        return key_name.rpartition(".")[2] or None

    for module in (names, orphans, effects):
        swap(module, "token_in", any_token)


@mutant("forgetting the old id when revoking fails", "due / vault / slots", "due / vault / two keys")
def _() -> None:
    edit(
        Effects,
        "_revoke",
        "    self._outside.issuer(seen).revoke(action.key_id)\n",
        "    try:\n        self._outside.issuer(seen).revoke(action.key_id)\n    except Trouble:\n"
        "        about = seen.primary.journal.about(action.key)\n"
        "        self._stores[run.target.store].forget(run.target.entry, about)\n        raise\n",
    )


@mutant("revoking one's own mint after an unsure stage", "due / vault / free")
def _() -> None:
    edit(
        Effects,
        "_stage",
        "        if written:\n",
        "        if key_id and attempt.of is None:\n            self._outside.issuer(seen).revoke(key_id)\n        if written:\n",
    )


@mutant(
    "a mint that the SDK sends again",
    test="tests/iam/test_iam.py::TestIamIssuer::test_a_mint_without_a_good_answer_can_be_looked_up",
)
def _() -> None:
    edit(iam, "_once", '"total_max_attempts": 1', '"total_max_attempts": 3')


@mutant("a mint behind our own retries", test="tests/test_resilience.py::test_a_mint_goes_out_once_even_when_throttled")
def _() -> None:
    edit(
        resilience.PatientIssuer,
        "mint",
        'with self._once("mint"):\n        return self._issuer.mint(key_name, slot)',
        'return self._call("mint", lambda: self._issuer.mint(key_name, slot), repeatable=True)',
    )


@mutant("a mint is tried again under its token", "due / vault / free")
def _() -> None:
    edit(Effects, "_mint", "run.evidence.unspent.discard(attempt.token)", "pass")


# --- what a mark means -----------------------------------------------------------------------------


@mutant("condemned is not final", "poisoned / vault / free")
def _() -> None:
    edit(arriving, "pending", "attempt.key in s.seen.primary.journal.condemned and", "False and")


@mutant("an emergency contains whatever is current", "contain / vault / free")
def _() -> None:
    edit(
        revoking,
        "contain",
        "for key, at in journal.contain.items():",
        "for key, at in [(s.current_key, at) for at in journal.contain.values()]:",
    )
    edit(revoking, "contain", "or key not in journal.condemned:", "or key is None:")


@mutant("a condemned current credential stays", "emergency / vault / free")
def _() -> None:
    swap(Situation, "urgent", property(lambda self: self.found_dead))


@mutant("rollback after grace, to a condemned credential", "retire and rollback / vault / free")
def _() -> None:
    edit(
        Engine,
        "rollback",
        "and s.has_value(key) and key not in seen.primary.journal.condemned",
        "and s.has_value(key)",
    )
    edit(beginning, "begin", "or back in journal.condemned or back in journal.revoked", "")
    edit(arriving, "pending", "attempt.key in s.seen.primary.journal.condemned and", "False and")


# --- a freeze --------------------------------------------------------------------------------------


@mutant("what is due rotates in spite of a freeze", test=f"{FREEZE}what_is_due_waits_for_the_thaw")
def _() -> None:
    edit(beginning, "begin", "if why is Why.DUE and s.frozen and not s.expiring:", "if False:")


@mutant("what is old retires in spite of a freeze", test=f"{FREEZE}a_person_may_still_rotate_and_go_back")
def _() -> None:
    swap(retiring, "_frozen", lambda s: False)


@mutant("a freeze holds up what a person asks for", test=f"{FREEZE}a_person_may_still_rotate_and_go_back")
def _() -> None:
    edit(beginning, "begin", "if why is Why.DUE and s.frozen and not s.expiring:", "if s.frozen:")


@mutant(
    "a freeze keeps the place that a person needs",
    test=f"{FREEZE}where_the_issuer_is_full_the_old_credential_makes_place_for_what_a_person_asks",
)
def _() -> None:
    edit(retiring, "_frozen", " and not (s.no_room and (s.urgent or s.asked or s.expiring))", "")


@mutant("an emergency ends the freeze of another incident", test=f"{FREEZE}the_first_incident_keeps_its_freeze")
def _() -> None:
    edit(Engine, "_over", " or frozen.incident != incident", "")


@mutant(
    "a freeze takes the room of a condemnation",
    test=f"{FREEZE}where_there_is_no_room_for_a_freeze_the_keys_are_condemned_all_the_same",
)
def _() -> None:
    edit(Engine, "_mark", "({**facts_of, **frozen}, dict(facts_of))", "({**facts_of, **frozen},)")


# --- time ------------------------------------------------------------------------------------------


@mutant("Key Vault's delayed writes are not waited for", "due and emergency / azure / free")
def _() -> None:
    swap(Situation, "last_write", lambda self, key: None)


@mutant(
    "a slot is given out while a request to regenerate it is under way",
    test="tests/test_others_at_work.py::test_no_slot_is_given_out_while_a_request_to_regenerate_it_is_under_way",
)
def _() -> None:
    edit(
        Situation,
        "free_slot",
        "(key in revoked or self._dead_current(key)) and self.settled(key)",
        "(key in revoked and self.settled(key)) or self._dead_current(key)",
    )


@mutant("a slot is taken that a draining key holds", "asked / vault / slots", "in grace / vault / slots")
def _() -> None:
    free = cached_property(lambda self: self.issuer.slots[0] if self.issuer.slots else None)
    swap(Situation, "free_slot", free)


@mutant(
    "nobody gives way where creating destroys",
    races=(
        Race("emergency twice / vault / slots", (("one", "record attempt", "pause>two"), ("two", "mint", "pause>one"))),
    ),
)
def _() -> None:
    swap(Situation, "rivals", lambda self, attempt: False)


@mutant("a void attempt that may still destroy is not waited for", test="tests/test_decisions.py")
def _() -> None:
    swap(Situation, "unstaged", property(lambda self: ()))


@mutant("what a mint without an answer destroyed is not looked at", "asked / vault / replace", "due / vault / replace")
def _() -> None:
    swap(Situation, "usurpers", property(lambda self: ()))


@mutant("writes after the life of an attempt", "due / vault / free")
def _() -> None:
    swap(Effects, "_in_time", lambda self, token, run: None)


@mutant("no grace for what Key Vault may have handed out", "due twice / azure / free", "asked twice / azure / free")
def _() -> None:
    edit(retiring, "_retire", "held.why in (Why.SUPERSEDED, Why.ORPHAN)", "False")


@mutant("an attempt is forgotten while its run is at work", "rollback in the last minute / aws+azure / free")
def _() -> None:
    every = "gone += [a.token for a in journal.attempts.values() if a.of]"
    edit(beginning, "tidy", "    stale = tuple(", f"    {every}\n    stale = tuple(")


@mutant("a key is shown dead by the value of another one of its name", "due and emergency / vault / slow")
def _() -> None:
    edit(Effects, "_prove", "surely=True", "surely=False")


# --- the end of a secret -----------------------------------------------------------------------------


@mutant(
    "a deletion overlooks what another run brought",
    test="tests/pulumi/test_provision.py::test_a_key_that_replaced_the_dying_one_dies_too_where_no_name_tells_of_it",
)
def _() -> None:
    edit(Provisioner, "_end", "spared = any(", "spared = False and any(")


# --- what a person put there -----------------------------------------------------------------------


@mutant("our own value, put there by hand, is not recognised", test=f"{ENGINE}our_own_value_put_by_hand_is_recognised")
def _() -> None:
    edit(explaining, "explain", "and s.current.id not in s.evidence.identified:", "and False:")


@mutant("a person's value is never adopted", test="tests/test_decisions.py")
def _() -> None:
    edit(
        explaining,
        "explain",
        "if s.current.token is None:\n        yield",
        "if s.current.token is None:\n        return\n        yield",
    )


@mutant("a person's value is adopted untried", test="tests/test_decisions.py")
def _() -> None:
    edit(explaining, "explain", "if s.issuer.registry:", "if False:")


@mutant(
    "a typo over the one credential counts as its successor",
    test="tests/test_others_at_work.py::test_a_typo_over_the_one_credential_destroys_nothing",
)
def _() -> None:
    edit(retiring, "_retire", "if s.replaced:", "if True:")


@mutant(
    "what was stored anew counts as seen to work",
    test="tests/test_others_at_work.py::test_a_typo_that_is_stored_anew_is_mirrored_nowhere",
)
def _() -> None:
    edit(mirroring, "_seen_to_work", "made is None or made.why is not Why.REWRITE", "True")
