"""Credentials that a person makes and submits: what was cut off is theirs, and nothing of it is revoked."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from providers.issuers.memory import MemoryIssuer
from providers.stores.memory import MemoryStore
from rotation import actions
from rotation.engine import unfit
from rotation.model import Capabilities, Issued, Model, Propagation
from tests.world import ENTRY, Crash, World

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SHORT = Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=MINUTE)
ABLE = Capabilities(model=Model.MANUAL, revokes=True, create=SHORT, revoke=SHORT)
"""A vendor whose keys people make and the API revokes, as Anthropic's."""


class Desk(World):
    """A secret whose second credential is due, and what people do by hand about it."""

    def __init__(self, capabilities: Capabilities = ABLE) -> None:
        super().__init__(capabilities=capabilities)
        first = self.made()
        assert self.engine().submit(self.target, first.credential, first.key_id).achieved
        self.clock.move(timedelta(days=31))
        self.new = self.made()

    def made(self) -> Issued:
        """In the vendor's console."""
        assert self.capabilities is not None
        return MemoryIssuer("vendor", self.vendor, self.capabilities).mint("made in the console")

    def submit_cut_off(self, how: str) -> None:
        if how == "refused":
            self.denied = ("vault", ("stage",))
        elif how == "dies":
            self.fault = self._die
        with suppress(Crash):
            assert not self.engine().submit(self.target, self.new.credential, self.new.key_id).achieved
        self.denied = ("", ())

    def _die(self, _: int, call: str) -> None:
        if call == "before stage":
            self.fault = None
            raise Crash(call)

    def submit_again(self, key_id: str | None) -> bool:
        self.clock.move(16 * MINUTE)
        return self.engine().submit(self.target, self.new.credential, key_id).achieved is True

    def days(self, days: int = 30) -> actions.Rest | None:
        """Hourly sweeps, with every value that is handed out tried."""
        rest = None
        for _ in range(24 * days):
            self.clock.move(HOUR)
            rest = self.sweep().rest
        return rest


@pytest.mark.parametrize("with_id", [True, False], ids=["with its id", "without"])
@pytest.mark.parametrize("how", ["dies", "refused"])
def test_what_was_cut_off_is_submitted_again(how: str, *, with_id: bool) -> None:
    """The first try has noted its id, and nobody has its value but the person: that it died there condemns nothing."""
    desk = Desk()
    desk.submit_cut_off(how)
    assert desk.submit_again(desk.new.key_id if with_id else None)
    rest = desk.days(3)
    assert isinstance(rest, actions.Done)
    assert desk.handed_out() == {"vault": "value-2"}
    assert desk.live() == {"value-2"}


@pytest.mark.parametrize("how", ["dies", "refused"])
def test_what_was_cut_off_and_put_there_by_hand_stays(how: str) -> None:
    """The person gives up on submitting it, and pastes it into the store's console."""
    desk = Desk()
    desk.submit_cut_off(how)
    desk.clock.move(2 * MINUTE)
    MemoryStore("vault", desk.vaults["vault"], desk.clock.now).put_by_hand(ENTRY, desk.new.credential)
    desk.days(3)
    assert desk.handed_out() == {"vault": "value-2"}
    assert desk.live() == {"value-2"}


def test_nothing_of_what_was_cut_off_is_revoked_and_it_is_told() -> None:
    """Nobody submits it again: it is the person's, whom the trail tells to."""
    desk = Desk()
    desk.submit_cut_off("dies")
    desk.days(1)
    (told,) = [record for record in desk.trail.records if record.event == "closed"]
    assert told.key_id == desk.new.key_id
    assert (told.detail or {})["how"] == "foreign"
    assert "submit it again, or delete it at vendor" in told.reason
    assert desk.live() == {"value-1", "value-2"}


def test_one_without_its_id_is_revoked_by_a_person() -> None:
    """Nobody makes one up: what was promoted is told to be revoked by hand, and is shown dead after that."""
    desk = Desk()
    assert desk.submit_again(None)
    desk.days(31)
    third = desk.made()
    assert desk.engine().submit(desk.target, third.credential, third.key_id).achieved
    rest = desk.days(16)
    assert isinstance(rest, actions.Hold)
    assert "by hand at vendor" in rest.reason
    next(key for key in desk.vendor.keys if key.value == "value-2").revoked = True
    assert isinstance(desk.days(1), actions.Done)
    assert desk.live() == {"value-3"}
    assert desk.trail.events().count("proven") == 2


@pytest.mark.parametrize(
    ("able", "key_id", "told"),
    [
        (Capabilities(model=Model.SLOTS, slots=("key1", "key2")), "key1", "keyturn adopt"),
        (Capabilities(), None, "--key-id"),
        (Capabilities(), "key_1", None),
        (Capabilities(registry=False), None, None),
        (ABLE, None, None),
    ],
)
def test_what_could_never_be_retired_is_not_taken(able: Capabilities, key_id: str | None, told: str | None) -> None:
    """Of slots nobody knows which one it is in, and what an API revokes has an id."""
    why = unfit(able, "vendor", key_id)
    assert (told is None and why is None) or (told is not None and told in (why or ""))
