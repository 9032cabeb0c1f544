"""Owners are told through their channels, by what they asked for; no channel holds up anybody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from rotation.errors import Code, Trouble
from rotation.model import MASK, SecretValue
from rotation.notify.courier import Limited
from rotation.notify.telling import LONGEST, Message, Route, Telling
from rotation.ports import Severity
from rotation.sections import NoticeSection
from rotation.telemetry import Call, Run, Several, Sweep
from tests.notify.places import NAME, Box, memory, notice
from tests.world import FakeClock

CANARY = "canary-of-a-webhook-0123456789"


def telling(*boxes: Box, routes: Sequence[Route] | None = None, **options: object) -> Telling:
    given = {"words": {}, "memory": memory(), "clock": FakeClock(), "limited": lambda: Limited(10, (0.0,))} | options
    to = routes if routes is not None else [Route(box.name) for box in boxes]
    return Telling({box.name: box.channel for box in boxes}, {"team": to}, **given)  # type: ignore[arg-type]


def test_an_owner_is_told_and_nobody_else() -> None:
    """Through each channel of theirs, once, with what subscribers may filter by."""
    box, other = Box(), Box("other")
    told = telling(box, other, routes=[Route("box"), Route("box", Severity.INFO)])
    told.tell(notice())
    told.tell(notice(owner="somebody-else"))
    assert told.flush(10) == []
    assert other.messages == []
    attributes = {
        "kind": "rotation.failed",
        "severity": "warning",
        "environment": "prod",
        "owner": "team",
        "secret": NAME,
    }
    assert box.messages == [Message("it failed", "What happened.", Severity.WARNING, attributes)]


@pytest.mark.parametrize(
    ("route", "kinds"),
    [
        (Route("box"), ["failed warning", "hold critical", "incident.begun warning", "incident.over info"]),
        (Route("box", Severity.CRITICAL), ["hold critical"]),
        (
            Route("box", Severity.INFO),
            ["failed warning", "hold critical", "incident.begun warning", "incident.over info"],
        ),
        (Route("box", None, ("before", "done")), ["before info", "done info"]),
        (Route("box", Severity.WARNING, ("done", "failed")), ["failed warning"]),
        (Route("box", None, ()), []),
    ],
)
def test_what_is_told_is_what_was_asked_for(route: Route, kinds: list[str]) -> None:
    """Warnings and what is worse as a rule, and all of an incident; before and after a rotation when asked."""
    box = Box()
    told = telling(box, routes=[route])
    for kind, severity in [
        ("rotation.before", Severity.INFO),
        ("rotation.done", Severity.INFO),
        ("rotation.failed", Severity.WARNING),
        ("rotation.hold", Severity.CRITICAL),
        ("incident.begun", Severity.WARNING),
        ("incident.over", Severity.INFO),
    ]:
        told.tell(notice(kind, f"{kind.removeprefix('rotation.')} {severity}", severity=severity))
        told.flush(10)
    assert box.subjects == kinds


def test_the_same_is_told_once_and_its_end_once() -> None:
    """However many sweeps see it; an owner who was told nothing is not told of its end either."""
    box, quiet = Box(), Box("quiet")
    told = telling(box, quiet, routes=[Route("box"), Route("quiet", Severity.CRITICAL)])
    for _ in range(3):
        told.tell(notice())
        told.flush(10)
    for _ in range(3):
        told.tell(notice("rotation.resolved", "works again", severity=Severity.INFO))
        told.flush(10)
    told.tell(notice())
    told.flush(10)
    assert box.subjects == ["it failed", "works again", "it failed"]
    assert quiet.messages == []


def test_a_failing_channel_stops_nobody_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, said at the end, and told again by the next who notices it; the other channel is told."""
    calls: list[Call] = []

    class Watching:
        @contextmanager
        def watch(self, what: Call | Run | Sweep) -> Iterator[None]:
            yield
            assert isinstance(what, Call)
            calls.append(what)

    held = SecretValue(CANARY)
    box, other = Box(failing=OSError(f"https://hooks/{CANARY}")), Box("other")
    told = telling(box, other, telemetry=Several(Watching()))
    with caplog.at_level(logging.DEBUG):
        told.tell(notice())
        assert told.flush(10) == ["channel box was not told 'it failed': OSError"]
    assert told.flush(10) == []
    assert box.tries == 2
    assert "channel box was not told 'it failed': OSError" in caplog.text
    assert CANARY not in caplog.text
    assert sorted((call.service, call.operation, call.outcome) for call in calls) == [
        ("channel box", "tell", "fault"),
        ("channel box", "tell", "fault"),
        ("channel other", "tell", "ok"),
    ]
    box.failing = None
    told.tell(notice())
    told.flush(10)
    assert (box.subjects, other.subjects) == (["it failed"], ["it failed"])
    assert held.reveal() == CANARY


def test_a_channel_that_hangs_holds_up_nobody() -> None:
    """Telling returns at once; the end of a command waits for its limit, and says what is left."""
    go = threading.Event()
    box, other = Box(), Box("other")
    channels = {"box": box.channel, "other": other.channel}
    told = telling(box, other)
    object.__setattr__(channels["box"], "send", lambda _: go.wait(30))
    told = Telling(channels, told.routes, {}, memory(), FakeClock())
    told.tell(notice())
    left = told.flush(0.05)
    assert left == ["channel box was not told 'it failed': it takes too long"]
    while not other.messages:
        told.flush(0.01)
    go.set()


def test_a_channel_that_never_answers_is_given_up() -> None:
    """After the limit of each call."""
    go = threading.Event()
    channel = Box().channel
    object.__setattr__(channel, "send", lambda _: go.wait(30))
    told = Telling(
        {"box": channel},
        {"team": [Route("box")]},
        {},
        memory(),
        FakeClock(),
        limited=lambda: Limited(0.01, ()),
    )
    told.tell(notice())
    assert told.flush(10) == ["channel box was not told 'it failed': no answer within 0.01 s"]
    go.set()


def test_more_than_can_wait_is_said_to_be_lost() -> None:
    """The queue has an end."""
    go = threading.Event()
    channel = Box().channel
    object.__setattr__(channel, "send", lambda _: go.wait(30))
    told = Telling({"box": channel}, {"team": [Route("box")]}, {}, memory(), FakeClock(), room=1)
    for number in range(4):
        told.tell(notice(subject=f"no. {number}"))
    said = told.flush(0.01)
    assert "channel box was not told 'no. 3': too much waits for it already" in said
    go.set()


def test_what_gathers_goes_out_together() -> None:
    """One message for a kind of which there is much: a hundred secrets are no hundred messages. Each is remembered."""
    began, go = threading.Event(), threading.Event()
    box = Box()
    channel = box.channel

    def slow(message: Message) -> None:
        began.set()
        assert go.wait(10)
        box.messages.append(message)

    object.__setattr__(channel, "send", slow)
    told = Telling({"box": channel}, {"team": [Route("box")]}, {}, memory(), FakeClock())
    told.tell(notice(secret="a-0", subject="prod/a-0: failed"))
    assert began.wait(10)
    for number in range(1, 40):
        told.tell(notice(secret=f"a-{number}", subject=f"prod/a-{number}: failed"))
    told.tell(notice("rotation.hold", "prod/a-1: waits", secret="a-1"))
    go.set()
    assert told.flush(10) == []
    assert box.subjects == [
        "prod/a-0: failed",
        "prod: 39 notices of the kind rotation.failed, for team",
        "prod/a-1: waits",
    ]
    assert all(f"prod/a-{number}: failed\nWhat happened." in box.messages[1].text for number in range(1, 40))
    told.tell(notice(secret="a-7", subject="prod/a-7: failed"))
    told.flush(10)
    assert len(box.messages) == 3


def test_no_message_is_too_long_for_a_channel() -> None:
    """Of what is beyond only the subjects are told."""
    box = Box()
    told = telling(box)
    assert told.test("box", notice(text="x" * 2 * LONGEST)) is None
    assert len(box.messages[0].text) == LONGEST
    many = [notice(secret=f"a-{n}", subject=f"s{n}", text="x" * 20_000) for n in range(4)]
    told._bring(told.channels["box"], many)
    assert len(box.messages[1].text) < LONGEST
    assert all(f"s{n}" in box.messages[1].text for n in range(4))


def test_a_stack_has_its_own_words_and_no_value_ever() -> None:
    """What is put in comes from the notice; whatever holds a living value is masked."""
    held = SecretValue(CANARY)
    box = Box()
    words = {"rotation.failed": NoticeSection(subject="[$environment] $secret\n$code", text="$error; $cause $$5 $text")}
    told = telling(box, words=words)
    told.tell(notice(facts={"error": f"said {CANARY}", "code": "denied"}))
    told.tell(notice("rotation.hold", f"held {CANARY}", text=held.reveal()))
    assert told.flush(10) == []
    assert [(m.subject, m.text) for m in box.messages] == [
        (f"[prod] {NAME} denied", f"said {MASK}; $cause $5 What happened."),
        (f"held {MASK}", MASK),
    ]


def test_nothing_that_is_wrong_with_telling_reaches_the_work(caplog: pytest.LogCaptureFixture) -> None:
    """An owner whose route leads nowhere, as after a change of a stack by hand."""
    told = telling(Box(), routes=[Route("nowhere")])
    told.tell(notice())
    assert "its owner can not be told: KeyError" in caplog.text


def test_a_test_is_one_message_whatever_was_told_before() -> None:
    """And says what came of it."""
    box = Box()
    told = telling(box)
    assert told.test("box", notice("test", "a test")) is None
    assert told.test("box", notice("test", "a test")) is None
    box.failing = Trouble(Code.DENIED, "channel box", "it answered 403")
    assert told.test("box", notice("test", "a test")) == "it answered 403"
    assert box.subjects == ["a test", "a test"]


def test_what_was_told_later_is_not_said_to_be_untold() -> None:
    """A process that runs for months says at its end what is still so."""
    box = Box(failing=Trouble(Code.DENIED, "channel box", "it answered 403"))
    told = telling(box)
    told.tell(notice())
    told.tell(notice(secret="support-copilot-batch"))
    told._couriers["box"].wait(10)
    box.failing = None
    told.tell(notice())
    assert told.flush(10) == ["channel box was not told 'it failed': it answered 403"]
    assert len(box.messages) == 1
