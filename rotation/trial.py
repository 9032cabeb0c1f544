"""Tries an issuer with a key of its own: mints, verifies, lists, revokes it, and shows it dead. Leaves nothing behind.

The caller shows each step, and calls clean() whatever happened: it revokes what run() made and did not show dead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from rotation.errors import Code, Trouble
from rotation.model import Check, Counting, Credential, Issued, KeyInfo, Model, Propagation, Verdict
from rotation.names import KeyName
from rotation.policy import show_duration
from rotation.ports import Clock, Issuer, RevokesInSteps, TellsUsage

T = TypeVar("T")

LOOKS_FOR: Final = timedelta(seconds=30)
"""For so long a key whose mint was not answered is looked for in the issuer's list."""
_LOOKS_EVERY: Final = timedelta(seconds=3)


@runtime_checkable
class Disables(Protocol):
    """An issuer that can let a key be refused for a while."""

    @property
    def disables(self) -> bool: ...

    def disable(self, key_id: str) -> None: ...

    def enable(self, key_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried."""

    name: str
    good: bool
    text: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Trial:
    """One key's life.

    Parameters:
        issuer: without patience: a trial shows faults at first sight.
        clock: for waits and durations.
        token: of the key's name; 32 characters or more.
        slot: where the key is made, where there are slots. What the slot holds is destroyed.
    """

    def __init__(self, issuer: Issuer, clock: Clock, token: str, slot: str | None = None) -> None:
        self._issuer, self._clock, self._slot = issuer, clock, slot
        self.key_name: Final = str(KeyName("keyturn-try", "try", "issuer-trial", token))
        self._issued: Issued | None = None
        self._unsure = False
        """A mint went out, and what came of it is not known."""
        self._dead = False
        self._left = False
        """It is dead, and something of it is at the issuer."""
        self._before: set[str] = set()
        """Ids of the keys that were there already."""
        self._strangers: list[str] = []
        """Ids of keys without a name that came since: perhaps the one that was minted, and perhaps not ours."""

    @property
    def alive(self) -> str | None:
        """What may be alive although it should not, in words; None when there is nothing."""
        if self._issued and self._left:
            return f"the key {self._issued.key_id}, which is refused and not deleted"
        if self._issued and not self._dead:
            return f"the key {self._issued.key_id}, called {self.key_name}"
        if self._unsure and self._strangers:
            return f"one of {', '.join(self._strangers)}, unless somebody else has made it"
        return f"a key called {self.key_name}" if self._unsure else None

    def run(self) -> Iterator[Step]:
        """Every step as soon as it is over, up to the first that fails. Raises nothing but what interrupts it."""
        issuer, can = self._issuer, self._issuer.capabilities
        named = can.model is Model.MINT and can.names_keys
        before = yield from self._step("list", self._list)
        if before is None:
            return
        self._unsure = True  # from here on, whatever ends this
        issued = yield from self._step("mint", self._mint)
        if issued is None:
            return
        checked = yield from self._step("verify", lambda: self._settle(issued.credential, live=True, need=can.create))
        if checked is None:
            return
        listed = yield from self._step("list the key", lambda: self._find(issued, named=named))
        if listed is None:
            return
        if can.tells_last_use:
            yield from self._step("last use", lambda: self._used(issued))
        if isinstance(issuer, TellsUsage) and (counting := issuer.counting):
            yield from self._step("usage", lambda: self._counted(issuer, issued, counting))
        if isinstance(issuer, Disables) and issuer.disables:
            for name, live, act in (("disable", False, issuer.disable), ("enable", True, issuer.enable)):
                need = can.create if live else can.revoke
                done = yield from self._step(name, lambda: self._toggled(issued, act, live=live, need=need))  # noqa: B023 - called at once
                if done is None:
                    return
        yield from self.clean()

    def clean(self) -> Iterator[Step]:
        """Revokes what is left and shows it dead; nothing where there is nothing."""
        if self._slot is not None and self._issued is None:
            self._unsure = False  # whatever the slot holds now, nobody has its value
        if self._unsure and self._issued is None:
            yield from self._step("look for the key", self._look)
        issued = self._issued
        if issued is None or self._dead:
            return
        revoked = yield from self._step("revoke", lambda: self._revoke(issued))
        if revoked is None:
            return
        proven = yield from self._step("prove", lambda: self._prove(issued))
        issuer = self._issuer
        if proven and isinstance(issuer, RevokesInSteps):
            yield from self._step("clear", lambda: self._cleared(issuer, issued))

    # --- steps: each gives what it found and a sentence, or raises Trouble --------------------------------

    def _step(self, name: str, work: Callable[[], tuple[T, str]]) -> Generator[Step, None, T | None]:
        began = self._clock.monotonic()
        try:
            found, text = work()
        except Trouble as trouble:
            text = str(trouble).removeprefix(f"{self._issuer.name}: ")
            yield Step(name, good=False, text=text, seconds=self._clock.monotonic() - began)
            return None
        yield Step(name, good=True, text=text, seconds=self._clock.monotonic() - began)
        return found

    def _list(self) -> tuple[int, str]:
        self._before = {info.key_id for info in self._listed()}
        return len(self._before) + 1, f"{len(self._before)} keys are listed"

    def _listed(self) -> list[KeyInfo]:
        return list(self._issuer.keys())

    def _mint(self) -> tuple[Issued, str]:
        try:
            self._issued = self._issuer.mint(self.key_name, self._slot)
        except Trouble as trouble:
            self._unsure = trouble.maybe_applied
            raise
        ends = self._issued.expires_at
        told = f"{self._issued.key_id}, called {self.key_name}" + (f"; ends {ends:%Y-%m-%d %H:%MZ}" if ends else "")
        return self._issued, told

    def _settle(self, credential: Credential, *, live: bool, need: Propagation) -> tuple[Check, str]:
        """Asks until so many answers in a row are as wanted, as rotations do."""
        end, streak, asked = self._clock.monotonic() + need.timeout.total_seconds(), 0, 0
        while True:
            check, asked = self._issuer.verify(credential), asked + 1
            streak = streak + 1 if (check.verdict.live if live else check.verdict is Verdict.INVALID) else 0
            if streak >= need.in_a_row:
                return check, f"{check.verdict}: {check.reason}; {streak} in a row, {asked} asked"
            if self._clock.monotonic() + need.interval.total_seconds() > end:
                told = f"still {check.verdict} after {need.timeout.total_seconds():.0f} s: {check.reason}"
                raise Trouble(Code.UNAVAILABLE, self._issuer.name, told)
            self._clock.sleep(need.interval.total_seconds())

    def _find(self, issued: Issued, *, named: bool) -> tuple[bool, str]:
        found = [info for info in self._listed() if info.key_id == issued.key_id]
        if not found:
            told = f"the list has no {issued.key_id}: mint and list do not give the same key id, or the list is late"
            raise Trouble(Code.NOT_FOUND, self._issuer.name, told)
        if named and found[0].name != self.key_name:
            told = "the list has it under another name: a key whose mint was not answered could not be found"
            raise Trouble(Code.INVALID, self._issuer.name, told)
        values = [value.reveal() for value in issued.credential.fields.values()]
        shown = found[0].redacted
        if shown and any(shown in value for value in values):
            raise Trouble(Code.INVALID, self._issuer.name, "the list shows the value, not a redacted form of it")
        return True, f"it is in the list{f', shown as {shown}' if shown else ''}"

    def _used(self, issued: Issued) -> tuple[bool, str]:
        use = self._issuer.last_use(issued.key_id)
        told = "unknown" if not use.known else f"{use.at:%Y-%m-%d %H:%MZ}" if use.at else "never"
        return True, f"{told}, as the vendor says it; it may lag by {show_duration(use.granularity)}"

    def _counted(self, issuer: TellsUsage, issued: Issued, counting: Counting) -> tuple[bool, str]:
        now = self._clock.now()
        use = issuer.usage([issued.key_id], now - counting.width, now).get(issued.key_id)
        if use is None or use.counts is None:
            raise Trouble(Code.INVALID, self._issuer.name, "what is counted has no place for a key with such an id")
        number, lag = sum(span.count for span in use.counts), show_duration(counting.lag)
        return True, f"{number} {counting.of} are counted so far; the vendor may be late by {lag}"

    def _toggled(
        self, issued: Issued, act: Callable[[str], None], *, live: bool, need: Propagation
    ) -> tuple[bool, str]:
        act(issued.key_id)
        _, told = self._settle(issued.credential, live=live, need=need)
        return True, told

    def _look(self) -> tuple[bool, str]:
        """Finds the key of a mint that was not answered by its name."""
        end = self._clock.monotonic() + LOOKS_FOR.total_seconds()
        while True:
            listed = self._listed()
            found = next((info for info in listed if info.name == self.key_name), None)
            if found is not None:
                self._issued = Issued(found.key_id, Credential({}))
                return True, f"found as {found.key_id}"
            if not self._issuer.capabilities.names_keys:
                self._strangers = [info.key_id for info in listed if info.key_id not in self._before]
                if self._strangers:
                    told = (
                        f"keys have no names here, and since the mint there is {', '.join(self._strangers)}: left alone"
                    )
                    raise Trouble(Code.CONFLICT, self._issuer.name, told)
            if self._clock.monotonic() + _LOOKS_EVERY.total_seconds() > end:
                told = f"it is not in the list {LOOKS_FOR.total_seconds():.0f} s after its mint"
                raise Trouble(Code.NOT_FOUND, self._issuer.name, told)
            self._clock.sleep(_LOOKS_EVERY.total_seconds())

    def _revoke(self, issued: Issued) -> tuple[bool, str]:
        self._issuer.revoke(issued.key_id)
        return True, issued.key_id

    def _cleared(self, issuer: RevokesInSteps, issued: Issued) -> tuple[bool, str]:
        self._left = True
        issuer.clear(issued.key_id)
        self._left = False
        return True, "what its revocation had left is gone"

    def _prove(self, issued: Issued) -> tuple[bool, str]:
        """The key is refused, and gone from the list; where nobody has its value, the latter alone tells."""
        need, told = self._issuer.capabilities.revoke, "nobody has its value"
        if issued.credential.fields:
            _, told = self._settle(issued.credential, live=False, need=need)
        end = self._clock.monotonic() + need.timeout.total_seconds()
        while any(info.key_id == issued.key_id for info in self._listed()):
            if self._clock.monotonic() + _LOOKS_EVERY.total_seconds() > end:
                raise Trouble(Code.CONFLICT, self._issuer.name, "it is still in the list")
            self._clock.sleep(_LOOKS_EVERY.total_seconds())
        self._dead, self._unsure = True, False
        return True, f"{told}; gone from the list"
