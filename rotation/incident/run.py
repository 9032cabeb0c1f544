"""Carries out a plan: condemn everything at once, then replace, revoke and prove side by side; goes on after any kill.

    incident = record.begin(plan, …)
    runner = Runner(assembly, incident, save=files.save)
    audit trail ──► runner.heard         each record, in the thread that wrote it
    runner.run()

The engine has all opinions about a key. What is added here is which keys an incident is about: they are written down
before the first is condemned, so that whoever resumes it condemns nothing that has replaced them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, Self

from rotation.actions import Cause, Hold
from rotation.assembly import Assembly
from rotation.engine import Outcome, Target
from rotation.errors import Code, Trouble
from rotation.incident import notices
from rotation.incident.gather import situation_of
from rotation.incident.plan import live_keys
from rotation.incident.record import Incident, KeyRecord, SecretRecord, State
from rotation.model import Policy
from rotation.notify import runs
from rotation.ports import Auditor, Record
from rotation.situation import Order, Situation
from rotation.status import words
from rotation.telemetry import running

_log = logging.getLogger(__name__)

SIDE_BY_SIDE: Final = 256
"""Secrets worked on at a time. Each waits for answers and between equal ones; how much a service gets at once is its own
limit (rotation.resilience)."""

PATIENCE: Final = timedelta(minutes=10)
"""How long to stay for one secret until its keys are shown dead; sweeps go on from there."""

_SELDOM: Final = 20
"""The part of the time that writing the record may take: one in so many."""
_TURN: Final = 0.0005
"""Seconds that a thread may go on computing while others wait for the interpreter; the usual 0.005 is a tenth of a call."""
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 40.0
"""Seconds between tries while something outside stands in the way: at first, doubling, and at most."""


class Runner:
    """One run of an incident.

    Scheduled work on its secrets is frozen from the condemnation until each is over.

    Parameters:
        assembly: engine, clock, notifier.
        incident: brought up to date as things happen; under `lock`.
        save: keeps it, soon; called often. What it can not keep stops nothing.
        keep: keeps it now.
        progress: is told of each secret whose state has changed.
        patience: see PATIENCE.
        workers: see SIDE_BY_SIDE.
    """

    def __init__(
        self,
        assembly: Assembly,
        incident: Incident,
        *,
        save: Callable[[], None] = lambda: None,
        keep: Callable[[], None] = lambda: None,
        progress: Callable[[SecretRecord], None] = lambda _: None,
        patience: timedelta = PATIENCE,
        workers: int = SIDE_BY_SIDE,
    ) -> None:
        self._assembly = assembly
        self._engine = assembly.engine
        self._incident = incident
        self._save = save
        self._keep = keep
        self._progress = progress
        self._patience = patience
        self._workers = workers
        self._policies: dict[str, Policy] = {}
        self._records: dict[str, list[Record]] = {}
        self.outcomes: dict[str, Outcome] = {}
        """By name of the secret: how its last run ended."""
        self.lock = threading.RLock()

    # --- all of it -------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs whatever is not over yet. Trouble with one secret holds up no other."""
        incident = self._incident
        left = [secret for secret in incident.secrets if secret.state is not State.OVER]
        if not incident.resumed_at:
            self._tell(notices.begun(incident, self._now()))
        for wave in sorted({secret.wave for secret in left}):
            if (first := self._held_up(wave)) is not None:
                for secret in (one for one in left if one.wave == wave):
                    told = f"waits for {first}, the administrative credential that is to be replaced first"
                    self._end(secret, State.STUCK, rest=told)
                continue
            self._side_by_side([secret for secret in left if secret.wave == wave])
        with self.lock:
            incident.ended_at = self._now()
        self._tell(notices.over(incident, self._now()))
        self._save()

    def _held_up(self, wave: int) -> str | None:
        """What of an earlier wave is not replaced, so that this one would be minted with what leaked."""
        early = (secret for secret in self._incident.secrets if secret.wave < wave and secret.replaced_at is None)
        return next((secret.name for secret in early), None)

    def _side_by_side(self, secrets: Sequence[SecretRecord]) -> None:
        if not secrets:
            return
        width = min(self._workers, len(secrets))
        with (
            _short_turns(),
            ThreadPoolExecutor(width, thread_name_prefix="condemn") as first,
            ThreadPoolExecutor(width, thread_name_prefix="replace") as then,
        ):
            begun: dict[Future[bool], SecretRecord] = {first.submit(self._condemn, one): one for one in secrets}
            ended = [then.submit(self._replace, begun[future]) for future in as_completed(begun) if future.result()]
            for future in as_completed(ended):
                future.result()

    def heard(self, record: Record) -> None:
        """One record of the audit trail. Of a secret that this run works on in this thread it is noted; others are not."""
        secret = _at.get()
        if secret is None or record.secret != secret.entry:
            return
        with self.lock:
            before = secret.state
            secret.heard(record)
            if secret.replaced_at is not None and secret.state is State.CONDEMNED:
                secret.state = State.REPLACED
            changed = secret.state is not before
        if changed:
            self._told_once(secret, notices.replaced)
            self._changed(secret)

    # --- one secret ------------------------------------------------------------------------------

    def _condemn(self, secret: SecretRecord) -> bool:
        """Marks what leaked of it, and nothing else. Whether there is something to go on with."""
        target = Target(secret.store, secret.entry)
        with _working_on(secret):
            try:
                seen = self._engine.observe(target)
                s = situation_of(self._assembly, seen)
                self._policies[secret.name] = seen.policy
                self._take_stock(secret, s)
                if self._claimed(secret, s, target):
                    seen = self._engine.observe(target)
                    s = situation_of(self._assembly, seen)
                journal = seen.primary.journal
                left = [key for key in secret.keys if not key.ended]
                unmarked = [k for k in left if k.ours and k.token not in journal.contain and k.token in s.keys]
                records: list[Record] = []
                if unmarked:
                    delay = timedelta(seconds=secret.contain_after_seconds)
                    leaked = frozenset(key.token for key in unmarked if key.leaked)
                    records = self._engine.condemn(
                        target, contain_after=delay, leaked=leaked, incident=self._incident.id
                    )
                marked = {record.token for record in records} | set(journal.contain) | set(journal.revoked)
            except Trouble as trouble:
                with self.lock:
                    secret.trouble = str(trouble)
                    secret.missing = trouble.code is Code.NOT_FOUND
                self.outcomes[secret.name] = Outcome(target, None, trouble, None, [])
                self._end(secret, State.STUCK, rest=_UNREACHED)
                return False
        self._records[secret.name] = records
        with self.lock:
            # What has replaced a key that was condemned before is spared by the engine, and so none of ours. If that
            # were all, the plan's keys would be taken for dead.
            ours = [key for key in secret.keys if key.ended or not key.ours or key.leaked or key.token in marked]
            secret.keys = ours or secret.keys
            secret.trouble, secret.rest = None, None
            secret.condemned_at = secret.condemned_at or self._now()
            if secret.state is not State.REPLACED:
                secret.state = State.CONDEMNED
        self._changed(secret)
        return True

    def _take_stock(self, secret: SecretRecord, s: Situation) -> None:
        """Notes which of its keys are gone already, and where the plan knew none of them, which there are."""
        if not secret.keys:
            with self.lock:
                found = live_keys(s)
                secret.keys = [KeyRecord(key.token, key.key_id, key.role, key.since, key.ours) for key in found]
                secret.enforced = s.issuer.registry
            self._keep()
            return
        self._ended_elsewhere(secret, s)

    def _claimed(self, secret: SecretRecord, s: Situation, target: Target) -> bool:
        """Puts orphans that have leaked into its journal, where they are condemned like any other. Whether there were any."""
        lost = [key for key in secret.keys if key.role == "orphan" and not key.ended]
        for key in lost:
            if key.token not in s.keys and key.key_id:
                self._engine.adopt_orphan(target, s.seen, key.token, key.key_id, self._now())
            with self.lock:
                key.role = "previous"  # from here on its journal tells what becomes of it
        return bool(lost)

    def _ended_elsewhere(self, secret: SecretRecord, s: Situation) -> None:
        journal, now = s.seen.primary.journal, self._now()
        with self.lock:
            for key in secret.keys:
                if key.ended or key.token == s.handed_out or key.role == "orphan":
                    continue
                if key.token in journal.proven:
                    key.proven_at, key.proof = journal.proven[key.token], key.proof or "refused"
                elif key.token not in s.keys and key.ours:
                    key.proven_at, key.proof = now, "elsewhere"

    def _replace(self, secret: SecretRecord) -> None:
        """Replaces, revokes and proves, as far as it goes within the patience."""
        target, policy = Target(secret.store, secret.entry), self._policies[secret.name]
        telemetry, clock = self._assembly.telemetry, self._assembly.clock
        with _working_on(secret):
            outcome = running(telemetry, clock, "emergency", policy, lambda: self._until_dead(secret, target))
        self.outcomes[secret.name] = outcome
        self._judge(secret, outcome)
        runs.read(self._assembly, outcome)
        with self.lock:
            over = secret.replaced_at is not None and all(key.ended for key in secret.keys) and not outcome.unproven
            rest = words(outcome.rest) if outcome.rest else None
            if any(not key.ours and not key.ended for key in secret.keys):
                rest = _FOREIGN
        if over and not self._incident.keep_frozen:
            self._thaw(secret, outcome)
        self._end(secret, State.OVER if over else State.STUCK, rest=None if over else rest)

    def _thaw(self, secret: SecretRecord, outcome: Outcome) -> None:
        """Lets scheduled work go on, where this incident has stopped it. What fails there is said, and changes nothing."""
        frozen = outcome.seen.primary.journal.frozen if outcome.seen else None
        if frozen is None or frozen.incident != self._incident.id:
            return
        with _working_on(secret):
            try:
                self._engine.thaw(Target(secret.store, secret.entry), self._incident.id)
            except Trouble as trouble:
                told = "%s: %s; its scheduled work stays off until `keyturn thaw %s`"
                _log.warning(told, secret.name, trouble, secret.name)

    def _until_dead(self, secret: SecretRecord, target: Target) -> Outcome:
        clock = self._assembly.clock
        leave_at = clock.monotonic() + self._patience.total_seconds()
        theirs = next((key.token for key in secret.keys if not key.ours and key.role == "current"), None)
        records, pause = list(self._records.get(secret.name, ())), _FIRST_PAUSE
        while True:
            left = timedelta(seconds=max(leave_at - clock.monotonic(), 0))
            outcome = self._engine.run(target, Order(replace=theirs, take_over=True), patience=left)
            records += outcome.records
            outcome.records = records
            self._judge(secret, outcome)
            outcome.achieved = secret.replaced_at is not None
            waits = isinstance(outcome.rest, Hold) and outcome.rest.cause is Cause.PERSON
            done = outcome.achieved and not outcome.unproven
            if done or waits or clock.monotonic() + pause > leave_at:
                return outcome
            clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _judge(self, secret: SecretRecord, outcome: Outcome) -> None:
        """What the last look says of it, whoever has done what."""
        with self.lock:
            secret.trouble = str(outcome.trouble) if outcome.trouble else None
            if outcome.seen is None:
                return
            s = situation_of(self._assembly, outcome.seen)
            self._ended_elsewhere(secret, s)
            leaked = {key.token for key in secret.keys}
            held = s.handed_out in leaked or s.urgent
            secret.stale = [*([secret.store] if held else []), *s.lagging]
            if not secret.stale and s.handed_out is not None:
                noted = s.promoted_at(s.current_key) if s.current_key else None
                secret.replaced_at = secret.replaced_at or secret.last_promoted_at or noted or self._now()
            elif held:
                secret.replaced_at = None  # a person has put it back, or another emergency has condemned that one too

    def _end(self, secret: SecretRecord, state: State, *, rest: str | None) -> None:
        with self.lock:
            secret.state, secret.rest = state, rest
            proven = [key.proven_at for key in secret.keys if key.proven_at is not None]
            secret.proven_at = max(proven) if proven and len(proven) == len(secret.keys) else None
        if secret.replaced_at is not None:
            self._told_once(secret, notices.replaced)
        if state is State.STUCK:
            self._told_once(secret, notices.stuck)
        self._changed(secret)

    # --- telling ---------------------------------------------------------------------------------

    def _told_once(self, secret: SecretRecord, make: Callable[..., notices.Told]) -> None:
        with self.lock:
            told = make(self._incident, secret, self._now())
            kinds = {notice.kind for notice in told} - set(secret.told)
            secret.told = [*secret.told, *sorted(kinds)]
        self._tell([notice for notice in told if notice.kind in kinds])

    def _tell(self, told: notices.Told) -> None:
        for notice in told:
            self._assembly.notifier.tell(notice)

    def _changed(self, secret: SecretRecord) -> None:
        self._save()
        self._progress(secret)

    def _now(self) -> datetime:
        return self._assembly.clock.now()


_UNREACHED: Final = "its store could not be asked, or not written to: nothing is marked there"
_FOREIGN: Final = "what the entry held was not made by Keyturn and lives on: revoke it at its issuer"

_at: ContextVar[SecretRecord | None] = ContextVar("secret", default=None)
"""What this thread works on."""


@contextmanager
def _working_on(secret: SecretRecord) -> Iterator[None]:
    token = _at.set(secret)
    try:
        yield
    finally:
        _at.reset(token)


@contextmanager
def _short_turns() -> Iterator[None]:
    """Lets threads whose answer has come go on soon: each holds up a call of its service until it has had its turn."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Tapped:
    """An audit trail of which somebody hears each record, once it is written.

    Parameters:
        trail: comes first; what it refuses is not heard.
    """

    def __init__(self, trail: Auditor, heard: Callable[[Record], None]) -> None:
        self._trail = trail
        self._heard = heard

    def write(self, record: Record) -> None:
        self._trail.write(record)
        self._heard(record)


class Saver:
    """Keeps a record up to date in its file, in a thread of its own: a hundred changes a second are few files.

    Parameters:
        save: writes it.
        pause: seconds between two files, at least; more where writing one takes long.

    What can not be written is said once in the log: the journals in the stores hold what matters.
    """

    def __init__(self, save: Callable[[], None], pause: float = 0.25) -> None:
        self._save_now = save
        self._pause = pause
        self._dirty, self._over = threading.Event(), threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="incident record", daemon=True)

    def __enter__(self) -> Self:
        self.keep()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._dirty.set()
        self._thread.join()
        self.keep()

    def save(self) -> None:
        """Has it written soon."""
        self._dirty.set()

    def _work(self) -> None:
        while not self._over.is_set():
            self._dirty.wait()
            self._dirty.clear()
            began = monotonic()
            self.keep()
            self._over.wait(max(self._pause, _SELDOM * (monotonic() - began)))

    def keep(self) -> None:
        """Has it written now."""
        try:
            self._save_now()
        except Trouble as trouble:
            if not self._failed:
                _log.warning("%s; the incident goes on, and can not be resumed by its id", trouble)
            self._failed = True
