"""The decision table: every situation that can be observed has an intended answer, and docs/decisions.md shows it.

Each row builds one observation and says what `decide` answers. The page is these rows; a row that is
missing there, or differs, fails. `python -m tests.test_decisions` writes the page anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotation import actions
from rotation import journal as facts
from rotation.decide import decide
from rotation.journal import Attempt, Backoff, Frozen, Journal, Why
from rotation.model import (
    Capabilities,
    Drain,
    Ending,
    Entry,
    KeyInfo,
    LastUse,
    Model,
    Policy,
    Propagation,
    Restraint,
    Schedule,
    ServiceRotation,
    Verdict,
    Version,
)
from rotation.policy import read_schedule
from rotation.situation import ATTEMPT_LIFE, Absent, Evidence, Observation, Order, Stop, Streak

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD, NEW, OTHER = "0" * 31 + "1", "0" * 31 + "2", "0" * 31 + "3"
PAGE = Path(__file__).parent.parent / "docs" / "decisions.md"
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def attempt(token: str, base: str | None, at: datetime, **more: Any) -> dict[str, str]:
    return Attempt(token, base, more.pop("stores", ("vault",)), at, more.pop("why", Why.DUE), **more).written()


def settled(promoted: datetime = NOW - 5 * DAY) -> dict[str, str]:
    """One rotation long done: OLD is current as v1."""
    return attempt(OLD, None, promoted) | facts.key_fact(OLD, "key_1") | facts.promoted(OLD, promoted)


def rotated(ago: timedelta) -> dict[str, str]:
    """NEW replaced OLD this long ago and is current as v2."""
    at = NOW - ago
    new = attempt(NEW, "v1", at) | facts.key_fact(NEW, "key_2") | facts.promoted(NEW, at)
    return settled(at - 30 * DAY) | new | facts.superseded(OLD, at)


def version(number: int, token: str | None, **more: Any) -> Version:
    return Version(f"v{number}", token, created_at=more.pop("created_at", NOW - 5 * DAY), **more)


def streak(verdict: Verdict, count: int = 1, ago: timedelta = 5 * MINUTE) -> Streak:
    return Streak(verdict, count, NOW - ago, "so it said")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    situation: str
    answer: str
    action: type[actions.Action | actions.Rest]
    says: str = ""
    """Part of the reason, where one type of answer has several meanings."""
    current: Version | None = field(default_factory=lambda: version(1, OLD))
    pending: Version | None = None
    journal: Mapping[str, str] = field(default_factory=settled)
    replicas: Mapping[str, Version | Absent | None] = field(default_factory=dict)
    copies: Mapping[str, Version] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    order: Order = field(default_factory=Order)
    issuer: Capabilities = field(default_factory=lambda: Capabilities(tells_last_use=True))
    drain: Drain = field(default_factory=Drain)
    pair_free_at: datetime | None = None
    unfenced: bool = False
    form: str = ""
    read_at: datetime = NOW
    service: ServiceRotation | None = None
    """Set: the policy is native."""
    schedule: Schedule = field(default_factory=Schedule)

    def decide(self) -> actions.Decision:
        policy = Policy(
            installation="acme", environment="prod", name="support-chat", store="vault", issuer="openai", owner="team",
            rotate_every=30 * DAY, grace=DAY, replicas=tuple(self.replicas), drain=self.drain, form=self.form,
            schedule=self.schedule,
            paired_with="support-batch" if self.pair_free_at else None, native=self.service is not None,
        )  # fmt: skip
        primary = Entry(
            "vault", "e", self.read_at, self.current, self.pending, Journal(self.journal), service=self.service
        )
        replicas = {
            store: held if isinstance(held, Absent) else Entry(store, "e", NOW, held, self.copies.get(store), Journal())
            for store, held in self.replicas.items()
        }
        unfenced = frozenset({"vault"} if self.unfenced else ())
        seen = Observation(policy, primary, replicas, self.pair_free_at, unfenced)
        return decide(seen, self.issuer, self.evidence, self.order, NOW)


PENDING = settled() | attempt(NEW, "v1", NOW - MINUTE)
STAGED = version(2, NEW, key_id="key_2")
CONDEMNED = settled() | facts.condemned(OLD, NOW - MINUTE, Why.EMERGENCY) | facts.contain(OLD, NOW + 4 * MINUTE)
RETIRING = rotated(2 * DAY) | facts.condemned(OLD, NOW - MINUTE, Why.RETIRED)
V2 = version(2, NEW)
TWO = Capabilities(max_keys=2)
LOST = settled() | attempt(NEW, "v1", NOW - 2 * ATTEMPT_LIFE)
LISTED = {OLD: KeyInfo("key_1", "n")}
LAGGING = (
    settled() | attempt(NEW, "v1", NOW - MINUTE) | facts.key_fact(NEW, "key_2") | facts.promoted(NEW, NOW - MINUTE)
)
STRANDED = LAGGING | facts.adopted(OTHER, "v3", NOW, facts.Of.PERSON) | facts.condemned(OTHER, NOW, Why.NEVER_VERIFIED)
RETURNS = {
    fact: told
    for again in ("7" * 32, "8" * 32, "9" * 32)
    for fact, told in attempt(again, "v3", NOW - DAY, of=NEW, why=Why.ROLLBACK).items()
}
FOUND_DEAD = Evidence(current={"v3": streak(Verdict.INVALID, 5)})
HAND_PUT = settled() | facts.superseded(OLD, NOW - 2 * DAY) | facts.adopted(OTHER, "v7", NOW - 2 * DAY, facts.Of.PERSON)
QUIET = Evidence(last_use={OLD: LastUse(known=True)})
AWAY, NONE = Absent("second", "unavailable", missing=False), Absent("second", "not-found", missing=True)
SLOTS = Capabilities(model=Model.SLOTS, slots=("key1", "key2"))
MADE_ANEW = Capabilities(model=Model.SLOTS, slots=("key1", "key2"), regenerates=True)
IDLE, BEGUN = ServiceRotation(enabled=True), ServiceRotation(enabled=True, begun=NEW)
OURS = Version(NEW, NEW, created_at=NOW)
CREATE, TEST = Order(token=NEW, stop=Stop.STAGED), Order(token=NEW, stop=Stop.VERIFIED)
FINISH = Order(token=NEW, stop=Stop.PROMOTED)
OVERDUE = settled(NOW - 32 * DAY)


def condemned(token: str, why: Why = Why.LOST) -> dict[str, str]:
    return facts.condemned(token, NOW - MINUTE, why) | facts.key_fact(token, "key_2")


def asked(**more: Any) -> Evidence:
    return Evidence(**more)


IN_SLOTS = (
    rotated(2 * DAY)
    | attempt(OLD, None, NOW - 9 * DAY, slot="key1")
    | attempt(NEW, "v1", NOW - 2 * DAY, slot="key2")
    | facts.superseded(OLD, NOW - 2 * DAY)
)

WORKS = asked(current={"v1": streak(Verdict.VALID)})

ICE = Frozen(NOW - timedelta(hours=2), "INC-7").written()

SUNDAYS = read_schedule("every=20d window=Sun_02:00-05:00")
FREEZE = read_schedule("blackout=2026-05-31/2026-06-03/sale")
OVERRIDDEN = replace(FREEZE, overrides=(Restraint.WINDOW, Restraint.BLACKOUT))

ROWS: dict[str, list[Row]] = {
    "Nothing is under way": [
        Row("current is young", "nothing; says when it is due", actions.Done),
        Row(
            "the interval is over", "intent first", actions.Intend, "due since", journal=settled(NEW_AT := NOW - 31 * DAY)
        ),
        Row("the entry has no credential", "intent for the first one", actions.Intend, "no credential", current=None, journal={}),
        Row("a person asked for a rotation", "intent", actions.Intend, "asked for", order=Order(replace=OLD)),
        Row("what was asked for has happened", "nothing", actions.Done, order=Order(replace="v0")),
        Row(
            "due, and its pair has its window", "wait", actions.Wait, "pair", journal=settled(NOW - 30 * DAY + timedelta(hours=1)),
            pair_free_at=NOW + DAY,
        ),
        Row(
            "… and it is overdue by that", "say so", actions.Hold, "overdue: its pair", journal=settled(NEW_AT),
            pair_free_at=NOW + DAY,
        ),
        Row(
            "due, after failures a moment ago", "back off", actions.Wait, "backing off",
            journal=settled(NEW_AT) | Backoff(2, NOW - MINUTE, NOW + 9 * MINUTE, "limit").written(),
        ),
        Row(
            "back-off written before the last success", "drop it", actions.Forget, "succeeded",
            journal=settled() | Backoff(1, NOW - 9 * DAY, NOW - 9 * DAY, "limit").written(),
        ),
        Row(
            "the credential expires by itself in two days", "rotate now, whatever the interval says", actions.Intend,
            journal=settled() | facts.expires(OLD, NOW + 2 * DAY),
        ),
        Row("the declared form has changed", "a rotation brings it in", actions.Intend, form="json key=value"),
        Row("the clock is behind: promoted in the future", "nothing; later", actions.Done, journal=settled(NOW + DAY)),
        Row("a person must make the credential", "hold, and say how", actions.Hold, "keyturn submit", journal=settled(NEW_AT),
            issuer=Capabilities(model=Model.MANUAL)),
        Row("slots: the other one's key was revoked a minute ago", "wait until no request to do so is under way", actions.Wait,
            "not given out at once", issuer=MADE_ANEW, current=V2, order=Order(replace=NEW),
            journal=IN_SLOTS | facts.condemned(OLD, NOW - HOUR, Why.RETIRED) | facts.revoked(OLD, NOW - MINUTE)
            | facts.proven(OLD, NOW, "refused")),
        Row("… and longer ago than that", "forget it, which frees the slot", actions.Forget, issuer=MADE_ANEW, current=V2,
            order=Order(replace=NEW), journal=IN_SLOTS | facts.condemned(OLD, NOW - HOUR, Why.RETIRED)
            | facts.revoked(OLD, NOW - 3 * MINUTE) | facts.proven(OLD, NOW - 3 * MINUTE, "refused")),
        Row("slots: the other one is free", "intent names it", actions.Intend, issuer=SLOTS,
            journal=settled(NEW_AT) | attempt(OLD, None, NEW_AT, slot="key1")),
        Row("slots: nobody knows which one holds what is handed out", "hold: any mint might destroy it", actions.Hold,
            "which slot", journal=settled(NEW_AT), issuer=SLOTS),
    ],
    "Due, by a schedule": [
        Row("its window is open", "intent", actions.Intend, "due since", journal=settled(NOW - 22 * DAY),
            schedule=read_schedule("every=20d window=Mon_00:00-03:00")),
        Row("its window was missed, and opens again in time", "wait for it", actions.Wait, "waits for its window, Sun 2026-06-07 02:00 UTC",
            journal=settled(NOW - 22 * DAY), schedule=SUNDAYS),
        Row("… and opens too late", "wait until its age is at the bound", actions.Wait, "its bound, Fri 2026-06-05 22:00 UTC",
            journal=settled(NOW - 25 * DAY), schedule=SUNDAYS),
        Row("… and its age is at the bound", "intent, outside the window", actions.Intend, "due since",
            journal=settled(NOW - 30 * DAY), schedule=SUNDAYS),
        Row("in a blackout that ends too late", "wait for its end; say from when it is overdue", actions.Wait,
            "after the blackout sale; overdue from 2026-06-02", journal=settled(NOW - 29 * DAY), schedule=FREEZE),
        Row("… and it is overdue", "hold, and say so", actions.Hold, "overdue, and waits for", journal=settled(NOW - 31 * DAY),
            schedule=FREEZE),
        Row("… which its age overrides, as declared", "intent", actions.Intend, "due since", journal=settled(NOW - 31 * DAY),
            schedule=OVERRIDDEN),
        Row("a blackout will outlast its age", "nothing yet; says from when it will be overdue", actions.Done,
            journal=settled(NOW - DAY / 2), schedule=read_schedule("blackout=2026-06-01/2026-07-30/sale")),
        Row("it can not be computed here: a zone that this machine does not know", "intent, once its age is at the bound",
            actions.Intend, "due since", journal=settled(NOW - 30 * DAY),
            schedule=replace(SUNDAYS, zone="Mars/Olympus", overrides=())),
        Row("… and its age is not", "nothing yet", actions.Done, journal=settled(NOW - 29 * DAY),
            schedule=replace(SUNDAYS, zone="Mars/Olympus")),
        Row("in a blackout, and a person asked", "intent", actions.Intend, "asked for", journal=settled(NOW - 29 * DAY),
            schedule=FREEZE, order=Order(replace=OLD)),
        Row("in a blackout, and the credential is condemned", "replace it", actions.Intend, "condemned", journal=CONDEMNED,
            schedule=FREEZE),
        Row("in a blackout, and the credential expires by itself in two days", "rotate now", actions.Intend, "due since",
            journal=settled() | facts.expires(OLD, NOW + 2 * DAY), schedule=FREEZE),
    ],
    "Half done": [
        Row("intent written by this run", "mint", actions.Mint, journal=PENDING, evidence=asked(unspent={NEW})),
        Row(
            "intent of another run, a minute old", "leave it alone", actions.Wait, "another run",
            journal=settled(NEW_AT) | attempt(NEW, "v1", NOW - MINUTE),
        ),
        Row(
            "… void, at an issuer whose next mint would destroy it", "leave it alone: it may still mint", actions.Wait, "another run",
            journal=settled(NEW_AT) | attempt(OTHER, "v0", NOW - MINUTE),
            issuer=Capabilities(model=Model.REPLACE, revokes=False),
            evidence=asked(current={"v1": streak(Verdict.VALID, 3)})),
        Row("intent whose run is long gone", "look for its key at the issuer", actions.ListKeys, journal=LOST),
        Row(
            "… the issuer lists it", "condemn it: nobody holds its value", actions.Condemn, journal=LOST,
            evidence=asked(listed=LISTED | {NEW: KeyInfo("key_2", "n")}, listed_at=NOW),
        ),
        Row(
            "… the issuer does not list it", "forget it: nothing was minted", actions.Forget, "not in the issuer's list",
            journal=LOST, evidence=asked(listed=LISTED, listed_at=NOW),
        ),
        Row("a value is staged", "read it back and verify it, alone", actions.Verify, pending=STAGED, journal=PENDING),
        Row(
            "accepted, not yet often enough", "ask again after the interval", actions.Wait, "1 of 3",
            pending=STAGED, journal=PENDING, evidence=asked(checks={NEW: streak(Verdict.VALID, ago=timedelta(0))}),
            issuer=Capabilities(create=Propagation(in_a_row=3)),
        ),
        Row("accepted", "promote, if current is still the base", actions.Promote, pending=STAGED, journal=PENDING,
            evidence=asked(checks={NEW: streak(Verdict.VALID)})),
        Row("accepted but out of quota or narrowed", "promote: it is live", actions.Promote, pending=STAGED, journal=PENDING,
            evidence=asked(checks={NEW: streak(Verdict.LIMITED)})),
        Row("refused, within the time a mint takes to be seen", "ask again", actions.Verify, pending=STAGED,
            journal=settled() | attempt(NEW, "v1", NOW - timedelta(seconds=9)),
            evidence=asked(checks={NEW: streak(Verdict.INVALID, ago=timedelta(seconds=5))})),
        Row("refused for longer than that", "condemn, back off, mint afresh later", actions.Condemn, "never verified",
            pending=STAGED, journal=settled() | attempt(NEW, "v1", NOW - 10 * MINUTE), evidence=asked(checks={NEW: streak(Verdict.INVALID, 2)})),
        Row("can not be verified: network, IP allowlist", "hold, and say so", actions.Hold, "can not be verified",
            pending=STAGED, journal=PENDING, evidence=asked(checks={NEW: streak(Verdict.UNKNOWN)})),
        Row("staged, and current has moved on", "discard: another attempt won", actions.Discard, "superseded",
            current=version(3, OTHER), pending=STAGED,
            journal=PENDING | attempt(OTHER, "v1", NOW - MINUTE) | facts.promoted(OTHER, NOW)
            | facts.key_fact(OTHER, "key_3") | facts.superseded(OLD, NOW)),
        Row("staged, and its key is condemned", "discard", actions.Discard, "condemned", pending=STAGED,
            journal=PENDING | condemned(NEW)),
        Row("staged by nothing that the journal knows", "discard", actions.Discard, "nothing that the journal knows",
            pending=version(2, None)),
        Row("the pending label is still on what is current", "leave it: it means nothing", actions.Done, pending=version(1, OLD)),
        Row("staged in a form that is not declared any more", "discard", actions.Discard, "form", pending=STAGED,
            journal=settled() | attempt(NEW, "v1", NOW - MINUTE, form="0badc0de")),
        Row("promoted, not noted", "note it", actions.Note, current=V2,
            journal=settled() | attempt(NEW, "v1", NOW - MINUTE) | facts.key_fact(NEW, "key_2")),
        Row("no compare-and-set: staged, and older than an attempt may live", "count it as a failure", actions.Note, "in time",
            pending=STAGED, journal=LOST, unfenced=True),
        Row("… and that is written", "discard: nobody takes it up", actions.Discard, "older", pending=STAGED, unfenced=True,
            journal=LOST | Backoff(1, NOW, NOW + 5 * MINUTE, "not-in-time").written()),
    ],
    "The old credential": [
        Row("the issuer knows nothing of its use, and lists it no more", "show it: is it refused?", actions.Prove,
            "lacks the old credential", current=V2, journal=rotated(2 * DAY), evidence=asked(last_use={OLD: LastUse(known=False)}),
            order=Order(listed=frozenset({"key_2"}), listed_at=NOW)),
        Row("… and it is refused", "does what is current work?", actions.VerifyCurrent, "the current one",
            current=V2, journal=rotated(2 * DAY), order=Order(listed=frozenset({"key_2"}), listed_at=NOW),
            evidence=asked(last_use={OLD: LastUse(known=False)}, refusals={OLD: streak(Verdict.INVALID, 2)})),
        Row("… and that works", "nobody can be cut off: condemn it", actions.Condemn,
            current=V2, journal=rotated(2 * DAY), order=Order(listed=frozenset({"key_2"}), listed_at=NOW),
            evidence=asked(last_use={OLD: LastUse(known=False)}, refusals={OLD: streak(Verdict.INVALID, 2)},
                           current={"v2": streak(Verdict.VALID)})),
        Row("the issuer's list lacks it, within its grace", "a list may be short: wait", actions.Wait, "grace",
            current=V2, journal=rotated(2 * HOUR), order=Order(listed=frozenset({"key_2"}), listed_at=NOW)),
        Row("never used, by counts that lag behind its grace", "wait until they would tell", actions.Wait, "used recently",
            current=V2, journal=rotated(25 * HOUR - MINUTE),
            evidence=asked(last_use={OLD: LastUse(known=True, granularity=DAY)})),
        Row("within its grace period", "wait", actions.Wait, "grace", current=V2, journal=rotated(MINUTE)),
        Row("grace is over", "ask when it was last used", actions.AskLastUse, current=V2, journal=rotated(2 * DAY)),
        Row("… used a minute ago", "wait until it is quiet", actions.Wait, "used recently", current=V2, journal=rotated(2 * DAY),
            evidence=asked(last_use={OLD: LastUse(known=True, at=NOW - MINUTE)})),
        Row("… the issuer does not know", "wait: unknown is never unused", actions.Wait, "no known last use", current=V2,
            journal=rotated(2 * DAY), evidence=asked(last_use={OLD: LastUse(known=False)})),
        Row("… quiet", "condemn it", actions.Condemn, "quiet", current=V2, journal=rotated(2 * DAY),
            evidence=asked(last_use={OLD: LastUse(known=True, at=NOW - DAY)})),
        Row("… condemned, where no list tells of what is current", "see that that works first", actions.VerifyCurrent,
            "does the current one work", current=V2, journal=IN_SLOTS | facts.condemned(OLD, NOW - HOUR, Why.RETIRED), issuer=SLOTS),
        Row("… and it does not", "the old one lives until it is replaced", actions.Hold, "until it is replaced", current=V2,
            journal=IN_SLOTS | facts.condemned(OLD, NOW - HOUR, Why.RETIRED), issuer=SLOTS,
            evidence=asked(current={"v2": streak(Verdict.INVALID, 3)})),
        Row("… and the issuer's list has it no more", "replace it, in the slot of what is dead", actions.Intend,
            "condemned or dead", current=V2, order=Order(listed=frozenset(), listed_at=NOW), journal=IN_SLOTS | facts.condemned(OLD, NOW - HOUR, Why.RETIRED), issuer=SLOTS,
            evidence=asked(current={"v2": streak(Verdict.INVALID, 3)})),
        Row("… in use after the longest drain, `then: hold`", "hold, overdue", actions.Hold, "longest drain", current=V2,
            journal=rotated(15 * DAY), evidence=asked(last_use={OLD: LastUse(known=True, at=NOW)})),
        Row("… in use after the longest drain, `then: revoke`", "condemn it", actions.Condemn, current=V2,
            journal=rotated(15 * DAY), evidence=asked(last_use={OLD: LastUse(known=True, at=NOW)}),
            drain=Drain(then=Ending.REVOKE)),
        Row("the issuer tells no last use", "condemn it after grace", actions.Condemn, current=V2, journal=rotated(2 * DAY),
            issuer=Capabilities()),
        Row("condemned, and seen to be in no role", "revoke it", actions.Revoke, current=V2, journal=RETIRING),
        Row("condemned, and a replica can not be asked", "hold: it may still hand it out", actions.Hold, "second", current=V2,
            journal=RETIRING, replicas={"second": AWAY}),
        Row("condemned, key id not recorded", "look for it at the issuer", actions.ListKeys, current=V2,
            journal={k: v for k, v in RETIRING.items() if k != f"key.{OLD}"}),
        Row("no compare-and-set: a delayed write may still land", "wait for it", actions.Wait, "delayed write", current=V2,
            journal=attempt(OLD, None, NOW - MINUTE) | facts.promoted(OLD, NOW - MINUTE) | facts.key_fact(OLD, "key_1")
            | attempt(NEW, "v1", NOW - MINUTE) | facts.promoted(NEW, NOW) | facts.key_fact(NEW, "key_2")
            | facts.superseded(OLD, NOW) | facts.condemned(OLD, NOW, Why.EMERGENCY) | facts.contain(OLD, NOW + DAY), unfenced=True),
        Row("revoked", "show it to the issuer", actions.Prove, current=V2, journal=RETIRING | facts.revoked(OLD, NOW)),
        Row("revoked, still accepted a moment later", "ask again", actions.Prove, current=V2,
            journal=RETIRING | facts.revoked(OLD, NOW - timedelta(seconds=20)),
            evidence=asked(refusals={OLD: streak(Verdict.VALID, ago=timedelta(seconds=5))})),
        Row("revoked, still accepted after all delay", "revoke it again", actions.Revoke, "still accepted", current=V2,
            journal=RETIRING | facts.revoked(OLD, NOW - DAY), evidence=asked(refusals={OLD: streak(Verdict.VALID)})),
        Row("revoked, can not be shown", "hold: revoked, unproven", actions.Hold, "unproven", current=V2,
            journal=RETIRING | facts.revoked(OLD, NOW), evidence=asked(refusals={OLD: streak(Verdict.UNKNOWN)})),
        Row("refused often enough", "proven; forget it", actions.Forget, "refused 2", current=V2,
            journal=RETIRING | facts.revoked(OLD, NOW), evidence=asked(refusals={OLD: streak(Verdict.INVALID, 2)})),
        Row("revoked, and no store holds its value any more", "wait: a list may be ahead of those who check", actions.Wait,
            "ahead", current=V2, journal=RETIRING | facts.revoked(OLD, NOW), evidence=asked(unreadable={OLD})),
        Row("… for longer than a revocation takes", "its key must be gone from the issuer's list", actions.ListKeys,
            current=V2, journal=RETIRING | facts.revoked(OLD, NOW - MINUTE), evidence=asked(unreadable={OLD})),
        Row("… and it is", "proven; forget it", actions.Forget, "absent", current=V2,
            journal=RETIRING | facts.revoked(OLD, NOW - MINUTE),
            evidence=asked(unreadable={OLD}, listed={NEW: KeyInfo("key_2", "n")}, listed_at=NOW)),
        Row("replacing destroyed it", "note that; then prove it", actions.Note, "destroyed", current=V2, journal=rotated(MINUTE),
            issuer=Capabilities(model=Model.REPLACE, revokes=False)),
        Row("only a person can revoke it", "is it done? show it", actions.Prove, "by hand", current=V2, journal=RETIRING,
            issuer=Capabilities(model=Model.MANUAL, revokes=False)),
        Row("an issuer that keeps no list", "nothing to revoke; forget it", actions.Forget, "no issuer to ask", current=V2,
            journal=RETIRING, issuer=Capabilities(registry=False)),
    ],
    "A key that was never promoted, and a paused run that might": [
        Row("condemned, and current has not left its base; a rotation is due", "the rotation frees it", actions.Intend, "due",
            journal=settled(NEW_AT) | attempt(NEW, "v1", NOW - DAY) | condemned(NEW), evidence=WORKS),
        Row("… and it is not known whether current works", "verify it: it may be the last key", actions.VerifyCurrent,
            journal=settled() | attempt(NEW, "v1", NOW - DAY) | condemned(NEW)),
        Row("… two of them already", "no more mints: store the current value anew", actions.Intend, "anew", evidence=WORKS,
            journal=settled(NEW_AT) | attempt(NEW, "v1", NOW - DAY) | condemned(NEW)
            | attempt(OTHER, "v1", NOW - DAY) | facts.condemned(OTHER, NOW, Why.NEVER_VERIFIED)
            | facts.key_fact(OTHER, "key_3")),
        Row("… nothing is due", "store the current value anew, which frees it", actions.Intend, "anew",
            journal=settled() | attempt(NEW, "v1", NOW - DAY) | condemned(NEW), evidence=WORKS),
        Row("… a rotation is due, and waits for its window", "store the current value anew", actions.Intend, "anew", evidence=WORKS,
            journal=settled(NOW - 22 * DAY) | attempt(NEW, "v1", NOW - DAY) | condemned(NEW), schedule=SUNDAYS),
        Row("… the issuer is full, and current is condemned too", "store it anew all the same", actions.Intend, "anew",
            journal=CONDEMNED | attempt(NEW, "v1", NOW - DAY) | condemned(NEW), issuer=TWO),
        Row("… current has left its base", "revoke it", actions.Revoke, current=V2.__class__("v9", OLD),
            journal=settled() | attempt(NEW, "v1", NOW - DAY) | condemned(NEW),
            evidence=asked(current={"v9": streak(Verdict.VALID)})),
        Row("the current value staged anew", "compare, no verdict needed", actions.Verify, "current already",
            pending=version(2, NEW), journal=settled() | attempt(NEW, "v1", NOW, why=Why.REWRITE, of=OLD)),
    ],
    "An emergency": [
        Row("current is condemned", "replace it", actions.Intend, "condemned", journal=CONDEMNED),
        Row("its replacement is current", "revoke without grace", actions.Revoke, current=V2,
            journal=rotated(MINUTE) | facts.condemned(OLD, NOW, Why.EMERGENCY) | facts.contain(OLD, NOW + DAY)),
        Row("not replaced, and its time is up", "contain: revoke though it is handed out", actions.Revoke, "still handed out",
            journal=CONDEMNED | facts.contain(OLD, NOW)),
        Row("a replica is away, and its time is up", "contain", actions.Revoke, "second", current=V2,
            replicas={"second": version(1, OLD)}, copies={"second": version(2, NEW)},
            journal=rotated(MINUTE) | facts.condemned(OLD, NOW, Why.EMERGENCY) | facts.contain(OLD, NOW)),
        Row("contained, and nothing replaces it yet", "replace it before proving anything", actions.Intend, "condemned",
            journal=CONDEMNED | facts.revoked(OLD, NOW)),
        Row("somebody is deleting the entry", "replace nothing", actions.Wait, "deleted",
            journal=CONDEMNED | facts.ending(NOW + MINUTE)),
        Row("the entry is being deleted", "revoke everything, replace nothing", actions.Revoke, "deleted",
            journal=CONDEMNED | facts.contain(OLD, NOW), order=Order(destroy=True)),
        Row("the issuer revokes nothing", "hold: alive, by hand", actions.Hold, "alive",
            journal=CONDEMNED | facts.contain(OLD, NOW), issuer=Capabilities(model=Model.MANUAL, revokes=False)),
        Row("back to the previous credential", "a new attempt with the old value", actions.Intend, "previous", current=V2,
            journal=rotated(MINUTE), order=Order(replace=NEW, back_to=OLD)),
        Row("… which is condemned", "refuse", actions.Hold, current=V2, journal=RETIRING,
            order=Order(replace=NEW, back_to=OLD), evidence=asked(failed={f"Revoke {OLD}": "refused"})),
    ],
    "Frozen by an incident": [
        Row("nothing is due", "nothing", actions.Done, journal=settled() | ICE),
        Row("due", "wait for the thaw", actions.Wait, "frozen by incident INC-7 since 2026-05-31 22:00Z; `keyturn thaw support-chat`",
            journal=settled(NOW - 30 * DAY + timedelta(hours=1)) | ICE, schedule=read_schedule("every=29d")),
        Row("… and it is overdue", "hold, and say so", actions.Hold, "overdue, and frozen", journal=settled(NEW_AT) | ICE),
        Row("… and a person asks for it", "intent", actions.Intend, "asked for", journal=settled(NEW_AT) | ICE,
            order=Order(replace=OLD)),
        Row("… and its pair has its window", "say what holds it up for longer", actions.Hold, "frozen", journal=settled(NEW_AT) | ICE,
            pair_free_at=NOW + DAY),
        Row("due, intent written by this run", "mint: it is begun", actions.Mint, journal=PENDING | ICE, evidence=asked(unspent={NEW})),
        Row("due, and staged by an interrupted run", "go on", actions.Verify, pending=STAGED, journal=PENDING | ICE),
        Row("the entry has no credential", "intent for the first one", actions.Intend, current=None, journal=ICE),
        Row("current is condemned", "replace it", actions.Intend, "condemned", journal=CONDEMNED | ICE),
        Row("a replica lags", "mirror", actions.Copy, current=V2, journal=LAGGING | ICE, replicas={"second": version(1, OLD)}),
        Row("a leaked key's time is up", "contain it", actions.Revoke, "contained", journal=CONDEMNED | facts.contain(OLD, NOW) | ICE),
        Row("an old credential, grace over, quiet", "keep it", actions.Wait, "frozen", current=V2, journal=rotated(2 * DAY) | ICE,
            evidence=QUIET),
        Row("… and the longest drain is over", "hold, and say so", actions.Hold, "overdue, and frozen", current=V2,
            journal=rotated(31 * DAY - MINUTE) | ICE, evidence=QUIET, schedule=read_schedule("every=60d")),
        Row("… the issuer is full, and the current one is dead", "condemn it: its place is needed", actions.Condemn, current=V2,
            journal=rotated(2 * DAY) | facts.expires(NEW, NOW - MINUTE) | ICE, evidence=QUIET, issuer=replace(TWO, tells_last_use=True)),
        Row("… the issuer is full, and a person asks for a rotation", "condemn it: its place is needed", actions.Condemn, current=V2,
            journal=rotated(2 * DAY) | ICE, evidence=QUIET, issuer=replace(TWO, tells_last_use=True), order=Order(replace=NEW)),
        Row("… and it has leaked", "revoke it", actions.Revoke, current=V2, issuer=Capabilities(),
            journal=rotated(2 * DAY) | facts.condemned(OLD, NOW - MINUTE, Why.EMERGENCY) | facts.contain(OLD, NOW + DAY) | ICE),
        Row("… and it was condemned before", "revoke it", actions.Revoke, current=V2, journal=RETIRING | ICE),
        Row("a revoked one", "prove it dead", actions.Prove, current=V2, journal=RETIRING | facts.revoked(OLD, NOW) | ICE),
        Row("a person's key, superseded, grace over", "keep it", actions.Wait, "frozen", current=V2,
            journal=rotated(2 * DAY) | facts.adopted(OLD, "v1", NOW - 9 * DAY, facts.Of.PERSON) | ICE),
        Row("a condemned key that a paused run could promote, and a rotation is due", "store current anew: the rotation will not come soon",
            actions.Intend, "store the current", journal=settled(NEW_AT) | attempt(NEW, "v1", NOW - 2 * ATTEMPT_LIFE) | condemned(NEW) | ICE,
            evidence=WORKS),
        Row("back to the previous credential", "a new attempt with the old value", actions.Intend, "previous", current=V2,
            journal=rotated(2 * DAY) | ICE, order=Order(replace=NEW, back_to=OLD)),
        Row("the store's service rotates it: createSecret", "refuse", actions.Hold, "frozen by incident INC-7", order=CREATE,
            service=BEGUN, journal=settled() | ICE),
        Row("… and current is condemned", "intent, under the service's token", actions.Intend, order=CREATE, service=BEGUN,
            journal=CONDEMNED | ICE),
        Row("… it was staged before", "the step is done", actions.Reached, order=CREATE, service=IDLE, pending=OURS, journal=PENDING | ICE),
        Row("… and a person asks for a rotation", "intent, without the service, whose step would be refused", actions.Intend, "asked for",
            order=Order(replace=OLD), service=IDLE, journal=settled() | ICE),
    ],
    "Changed outside": [
        Row("a mint in doubt, and the issuer's name leads elsewhere now", "hold: nobody can look there", actions.Hold,
            "led to before", journal=settled() | attempt(NEW, "v1", NOW - 2 * ATTEMPT_LIFE, scope="a0a0a0a0"),
            issuer=Capabilities(scope="0f0f0f0f")),
        Row("a person's value is current, and an old key's time is over", "first: is it that key's?", actions.TellApart,
            "by hand", current=version(7, OTHER), journal=HAND_PUT, evidence=QUIET),
        Row("… it may be", "hold, and say so", actions.Hold, "may be this key's", current=version(7, OTHER), journal=HAND_PUT,
            evidence=replace(QUIET, alike={OLD})),
        Row("… it is not", "condemn the old key", actions.Condemn, current=version(7, OTHER), journal=HAND_PUT,
            evidence=replace(QUIET, apart={OLD})),
        Row("current is nothing that an attempt made", "is it one of our keys, put there by hand?", actions.Identify,
            current=version(7, None)),
        Row("… it is none of ours", "does it work?", actions.VerifyCurrent, current=version(7, None), journal={},
            evidence=asked(identified={"v7"})),
        Row("… it works", "give it a token; it is managed from now on", actions.Adopt, current=version(7, None), journal={},
            evidence=asked(identified={"v7"}, current={"v7": streak(Verdict.VALID)})),
        Row("a person's key, superseded, grace over", "close it, and say that it is theirs to revoke", actions.Forget, "person",
            current=V2,
            journal=rotated(2 * DAY) | facts.adopted(OLD, "v1", NOW - 9 * DAY, facts.Of.PERSON)),
        Row("… it is refused", "give it a token, condemned", actions.Adopt, "refused", current=version(7, None), journal={},
            evidence=asked(identified={"v7"}, current={"v7": streak(Verdict.INVALID, 2)})),
        Row("… and that is written", "replace it at once", actions.Intend, "dead", current=version(7, OTHER),
            journal=facts.adopted(OTHER, "v7", NOW, facts.Of.PERSON)
            | facts.condemned(OTHER, NOW, Why.NEVER_VERIFIED)),
        Row("… it can not be verified", "hold, and say so", actions.Hold, "can not be verified", current=version(7, None),
            journal={}, evidence=asked(identified={"v7"}, current={"v7": streak(Verdict.UNKNOWN)})),
        Row("the issuer lists the current key no more", "does it work?", actions.VerifyCurrent,
            order=Order(listed=frozenset(), listed_at=NOW)),
        Row("the issuer is full, and nothing of ours drains", "hold, and say so", actions.Hold, "as many keys",
            journal=settled(NEW_AT), issuer=Capabilities(max_keys=1)),
        Row("… a replica hands out one old key, and the other is the last that worked", "back to that", actions.Intend,
            "back to the last one that worked", current=version(3, OTHER), replicas={"second": version(1, OLD)},
            journal=STRANDED, issuer=TWO, evidence=FOUND_DEAD),
        Row("… and that was tried", "wait, and say what does not", actions.Wait, "keyturn emergency", current=version(3, OTHER),
            replicas={"second": version(1, OLD)}, issuer=TWO, evidence=FOUND_DEAD, journal=STRANDED | RETURNS),
    ],
    "Rotated by the store's own service: sweeps": [
        Row("due since a moment", "leave it to the service", actions.Wait, "by itself", journal=settled(NOW - 30 * DAY),
            service=IDLE),
        Row("… since longer than the service may take", "have it rotate", actions.Start, journal=OVERDUE, service=IDLE),
        Row("… and the last rotation of the service failed", "have it rotate anew", actions.Start, service=IDLE,
            journal=settled(NOW - 30 * DAY) | Backoff(1, NOW - 20 * MINUTE, NOW - MINUTE, "x").written()),
        Row("… and the service waits for a value that never came", "take the label off, then have it rotate", actions.Discard,
            "no value", journal=OVERDUE, service=BEGUN),
        Row("not due, and the service waits for a value", "leave it to its steps", actions.Done,
            service=replace(BEGUN, idle_since=NOW - MINUTE)),
        Row("… that nobody has brought for long", "take the label off", actions.Discard, "no value",
            service=replace(BEGUN, idle_since=NOW - timedelta(hours=2))),
        Row("a person asked for a rotation", "have the service rotate", actions.Start, order=Order(replace=OLD), service=IDLE),
        Row("… and it was told to", "look again in a moment", actions.Wait, order=Order(replace=OLD), service=BEGUN,
            evidence=asked(started=True)),
        Row("staged by the service's rotation", "leave it alone", actions.Wait, "at work", pending=OURS, journal=PENDING,
            service=IDLE),
        Row("… whose steps ended long ago", "take it on", actions.Verify, pending=OURS, service=IDLE,
            journal=settled() | attempt(NEW, "v1", NOW - 2 * ATTEMPT_LIFE)),
        Row("the entry has no credential", "intent for the first one", actions.Intend, current=None, journal={}, service=IDLE),
        Row("current is condemned", "replace it, without the service", actions.Intend, journal=CONDEMNED, service=IDLE),
        Row("… and the service's rotation has staged a good one", "take it on at once", actions.Verify, pending=OURS, service=IDLE,
            journal=CONDEMNED | PENDING),
        Row("… and the service's rotation has staged something condemned", "discard", actions.Discard, pending=OURS, service=IDLE,
            journal=CONDEMNED | PENDING | condemned(NEW, Why.EMERGENCY)),
    ],
    "Rotated by the store's own service: its steps": [
        Row("createSecret", "intent, under the service's token", actions.Intend, order=CREATE, service=BEGUN),
        Row("… intent written by this run", "mint", actions.Mint, order=CREATE, service=BEGUN, journal=PENDING,
            evidence=asked(unspent={NEW})),
        Row("… staged", "the step is done", actions.Reached, order=CREATE, service=IDLE, pending=OURS, journal=PENDING),
        Row("… again, and its mint is not to be found in the store", "a token mints once: count the failure", actions.Note,
            order=CREATE, service=BEGUN, journal=PENDING),
        Row("… and it was counted", "give the token up", actions.Discard, "one mint", order=CREATE, service=BEGUN,
            journal=PENDING | Backoff(1, NOW, NOW + MINUTE, "lost").written()),
        Row("… again, a moment after a mint", "it may not show yet", actions.Wait, "may not show", order=CREATE, service=BEGUN,
            journal=settled() | attempt(NEW, "v1", NOW - timedelta(seconds=3))),
        Row("… after failures a moment ago", "back off; the step fails", actions.Wait, "backing off", order=CREATE, service=BEGUN,
            journal=settled() | Backoff(1, NOW - MINUTE, NOW + MINUTE, "x").written()),
        Row("… another run's attempt is at work", "wait; the step fails", actions.Wait, "another run", order=CREATE, service=BEGUN,
            journal=settled() | attempt(OTHER, "v1", NOW - MINUTE, why=Why.REPLACE)),
        Row("testSecret", "verify it alone", actions.Verify, order=TEST, service=IDLE, pending=OURS, journal=PENDING),
        Row("… accepted", "the step is done", actions.Reached, order=TEST, service=IDLE, pending=OURS, journal=PENDING,
            evidence=asked(checks={NEW: streak(Verdict.VALID)})),
        Row("… refused for long", "condemn it; the step fails", actions.Condemn, order=TEST, service=IDLE, pending=OURS,
            journal=settled() | attempt(NEW, "v1", NOW - 10 * MINUTE), evidence=asked(checks={NEW: streak(Verdict.INVALID, 2)})),
        Row("… and it is condemned", "take its label off", actions.Discard, order=TEST, service=IDLE, pending=OURS,
            journal=PENDING | condemned(NEW, Why.NEVER_VERIFIED)),
        Row("… the service tries its settings", "there is nothing to verify", actions.Reached, "tries its settings", order=TEST,
            service=IDLE, pending=Version(NEW, None)),
        Row("finishSecret", "verify it again", actions.Verify, order=FINISH, service=IDLE, pending=OURS, journal=PENDING),
        Row("… accepted", "promote", actions.Promote, order=FINISH, service=IDLE, pending=OURS, journal=PENDING,
            evidence=asked(checks={NEW: streak(Verdict.VALID)})),
        Row("… of what no rotation made", "refuse", actions.Hold, "none that a rotation made", order=FINISH, service=IDLE,
            pending=Version(NEW, None)),
        Row("the token is current already", "the step is done", actions.Reached, order=CREATE, service=IDLE,
            current=Version(NEW, NEW), journal=rotated(timedelta(0))),
        Row("the token is not pending", "refuse", actions.Hold, "not pending", order=CREATE, service=IDLE),
        Row("rotation is not enabled", "refuse", actions.Hold, "not enabled", order=CREATE,
            service=ServiceRotation(enabled=False, begun=NEW)),
        Row("the policy leaves rotation to sweeps", "refuse", actions.Hold, "sweeps", order=CREATE),
    ],
    "Replicas": [
        Row("one lags", "stage the primary's version in it", actions.Copy, current=V2, journal=LAGGING,
            replicas={"second": version(1, OLD)}),
        Row("… staged there", "read it back and compare", actions.Compare, current=V2, journal=LAGGING,
            replicas={"second": version(1, OLD)}, copies={"second": V2}),
        Row("… the same", "promote there, if it is still what it was", actions.Promote, "mirror", current=V2,
            journal=LAGGING, replicas={"second": version(1, OLD)}, copies={"second": V2},
            evidence=asked(matched={("second", NEW)}, checks={NEW: streak(Verdict.VALID)})),
        Row("… the same, and this run has not seen it work", "first: does the primary's work?", actions.VerifyCurrent,
            current=V2, journal=LAGGING, replicas={"second": version(1, OLD)}, copies={"second": V2},
            evidence=asked(matched={("second", NEW)})),
        Row("one hands a draining key out again", "its drain begins anew once it follows", actions.Forget, "out again",
            current=V2, journal=rotated(MINUTE), replicas={"second": version(1, OLD)}),
        Row("a person has put something into one", "first: is it a draining key's?", actions.TellApart, "by hand", current=V2,
            journal=rotated(MINUTE), replicas={"second": version(9, None)}),
        Row("… it may be", "its drain begins anew once it follows", actions.Forget, "hand it out again", current=V2,
            journal=rotated(MINUTE), replicas={"second": version(9, None)}, evidence=asked(alike={OLD})),
        Row("… it is not", "write the primary's version over it", actions.Copy, "lags behind", current=V2,
            journal=rotated(MINUTE), replicas={"second": version(9, None)}, evidence=asked(apart={OLD})),
        Row("one has a version that the journal does not know", "first: does the primary's work?", actions.VerifyCurrent,
            "does not know", replicas={"second": version(1, OTHER)}),
        Row("… the primary's works", "note what is written over, so that it drains", actions.Note, "not in the journal",
            replicas={"second": version(1, OTHER)}, evidence=WORKS),
        Row("… the primary's is dead", "replace that; the replica keeps what it has", actions.Intend, "dead",
            replicas={"second": version(1, OTHER)}, evidence=asked(current={"v1": streak(Verdict.INVALID, 2)})),
        Row("one lags, and something is staged in the primary", "first what is current", actions.Copy, "lags behind",
            current=V2, pending=version(3, OTHER), journal=LAGGING | attempt(OTHER, "v2", NOW - MINUTE),
            replicas={"second": version(1, OLD)}, evidence=asked(checks={OTHER: streak(Verdict.VALID)})),
        Row("verified in the primary, not staged in a replica", "stage there before anything is promoted", actions.Copy,
            pending=STAGED, journal=PENDING, replicas={"second": version(1, OLD)}),
        Row("verified and staged, a replica can not be asked", "wait with the promotion", actions.Hold, "waits for second",
            pending=STAGED, journal=PENDING, replicas={"second": AWAY}, evidence=asked(checks={NEW: streak(Verdict.VALID)})),
        Row("… in an emergency", "promote all the same", actions.Promote, pending=STAGED,
            journal=CONDEMNED | attempt(NEW, "v1", NOW - MINUTE), replicas={"second": AWAY},
            evidence=asked(checks={NEW: streak(Verdict.VALID)})),
        Row("one has no such entry", "hold, and say so", actions.Hold, "no such entry", replicas={"second": NONE}),
        Row("something is left staged in one", "discard it", actions.Discard, "left behind", replicas={"second": version(1, OLD)},
            copies={"second": version(2, OTHER)}),
        Row("the primary was changed outside, and they differ", "once it was seen to work, they follow it", actions.Adopt,
            current=version(7, None), journal={}, replicas={"second": version(1, OLD)},
            evidence=asked(identified={"v7"}, current={"v7": streak(Verdict.VALID)})),
        Row("the primary was changed outside, and nobody can tell", "hold, and say so", actions.Hold, "can not be verified",
            current=version(7, None), journal={}, replicas={"second": version(1, OLD)},
            evidence=asked(identified={"v7"}, current={"v7": streak(Verdict.UNKNOWN)})),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{group}: {row.situation}") for group, rows in ROWS.items() for row in rows]
)
def test_each_situation_has_its_intended_answer(row: Row) -> None:
    """The type of the answer, and what it says where one type has several meanings."""
    decision = row.decide()
    assert type(decision).__name__ == row.action.__name__, decision
    assert row.says in decision.reason


def test_every_answer_that_decide_can_give_is_in_the_table() -> None:
    """A new kind of answer needs a row."""
    kinds = {kind.__name__ for base in (actions.Action, actions.Rest) for kind in base.__subclasses__()}
    elsewhere = {"Restage", "Smoke", "Look"}  # follow from a row by one more step; tests/test_engine.py sees them
    assert kinds - {row.action.__name__ for rows in ROWS.values() for row in rows} == elsewhere


def page() -> str:
    """The table as docs/decisions.md has it."""
    lines = [
        "# What Keyturn does in every situation",
        "",
        "Written from `tests/test_decisions.py`, which holds the code to it: `python -m tests.test_decisions` writes it anew.",
        "*Answer* names the decision of `rotation/decide.py`.",
    ]
    for group, rows in ROWS.items():
        lines += ["", f"## {group}", "", "| seen | answer | |", "|---|---|---|"]
        lines += [f"| {row.situation} | {row.answer} | {row.action.__name__} |" for row in rows]
    return "\n".join(lines) + "\n"


def test_the_page_is_the_table() -> None:
    """What people read is what is tested."""
    assert PAGE.read_text() == page(), "write it anew: python -m tests.test_decisions"


if __name__ == "__main__":
    PAGE.write_text(page())
