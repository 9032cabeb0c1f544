"""The client's promises one by one, on a clock that tests move."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from rotation.consumer import Secret, Unavailable, Value, unauthorized

TTL, KEEP = timedelta(seconds=300), timedelta(seconds=3600)
CANARY = "canary-of-the-first-version"


class RefusedError(Exception):
    """As an SDK raises it."""

    status_code = 401


@dataclass
class Vault:
    """One entry, the time, and what was started beside."""

    version: int = 1
    reads: int = 0
    away: Exception | None = None
    now: float = 1000.0
    beside: list[Callable[[], None]] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    """Happens after the vault has answered, before the client has the answer."""

    def read(self) -> Value:
        self.reads += 1
        if self.away:
            raise self.away
        found = Value(self.text(), str(self.version))
        self.during()
        return found

    def text(self) -> str:
        return CANARY if self.version == 1 else f"value-{self.version}"

    def secret(self, **more: object) -> Secret:
        given = {"ttl": TTL, "keep": KEEP, "monotonic": lambda: self.now, "chance": lambda: 0.5} | more
        return Secret(self.read, spawn=self.beside.append, **given)  # type: ignore[arg-type]

    def settle(self) -> None:
        while self.beside:
            self.beside.pop(0)()


@pytest.fixture
def vault() -> Vault:
    return Vault()


def refuses(text: str) -> Callable[[Value], str]:
    """A call to a service that does not accept this one text."""

    def work(value: Value) -> str:
        if value.reveal() == text:
            raise RefusedError
        return value.reveal()

    return work


# --- reading in time ---------------------------------------------------------------------------------


def test_it_is_read_once_and_kept(vault: Vault) -> None:
    """For as long as it is fresh, whatever the vault does."""
    secret = vault.secret()
    assert secret.value().reveal() == CANARY
    vault.version, vault.now = 2, vault.now + 200
    assert secret.value().reveal() == CANARY
    assert (vault.reads, vault.beside) == (1, [])


def test_before_it_ends_it_is_read_beside_those_who_use_it(vault: Vault) -> None:
    """From seven to nine tenths of its time on; nobody waits, and one read is under way at most."""
    secret = vault.secret()
    secret.value()
    vault.version, vault.now = 2, vault.now + 241
    assert [secret.value().reveal() for _ in range(5)] == [CANARY] * 5
    assert len(vault.beside) == 1
    vault.settle()
    assert (secret.value().reveal(), vault.reads) == ("value-2", 2)


def test_when_it_begins_is_chance() -> None:
    """So that a hundred processes that started together do not ask together."""

    def early(chance: float) -> float:
        vault = Vault()
        secret, begun = vault.secret(chance=lambda: chance), vault.now
        secret.value()
        while not vault.beside:
            vault.now += 1
            secret.value()
        return vault.now - begun

    assert [early(chance) for chance in (0.0, 0.5, 1.0)] == [210, 240, 270]


def test_after_its_end_the_next_use_waits_for_the_read(vault: Vault) -> None:
    """An application that was idle for hours does not begin with what may be dead by now."""
    secret = vault.secret()
    secret.value()
    vault.version, vault.now = 2, vault.now + 301
    assert secret.value().reveal() == "value-2"


def test_listeners_hear_of_every_value_but_the_first(vault: Vault) -> None:
    """And one that fails keeps neither the value nor the other listeners back."""
    secret, heard = vault.secret(), []

    def faulty(_: Value) -> None:
        raise ValueError(CANARY)

    secret.on_change(faulty)
    secret.on_change(lambda value: heard.append(value.version))
    for version in (1, 2, 2, 3):
        vault.version = version
        vault.now += 301
        secret.value()
    assert heard == ["2", "3"]


# --- refusals ------------------------------------------------------------------------------------------


def test_a_refusal_reads_anew_and_the_call_is_done_again(vault: Vault) -> None:
    """Whether it comes as an exception or as an answer."""
    for work in (refuses(CANARY), lambda value: RefusedError() if value.reveal() == CANARY else value.reveal()):
        vault.version = 1
        secret = vault.secret()
        secret.value()
        vault.version = 2
        assert secret.call(work) == "value-2"


def test_one_that_is_not_due_to_the_credential_is_left_alone(vault: Vault) -> None:
    """Neither read anew nor done again: a 403, a 500, a fault of the application."""
    secret, calls = vault.secret(), []

    def work(value: Value) -> None:
        calls.append(value)
        raise ValueError

    with pytest.raises(ValueError):
        secret.call(work)
    assert (len(calls), vault.reads) == (1, 1)


def test_a_service_that_refuses_everything_is_not_asked_for_ever(vault: Vault) -> None:
    """Even where the vault has another value at each read: one that was read after the refusal is the last to be tried."""
    secret, tried = vault.secret(), []

    def replaced() -> None:
        vault.version += 1

    def work(value: Value) -> None:
        tried.append(value.version)
        raise RefusedError

    vault.during = replaced
    with pytest.raises(RefusedError):
        secret.call(work)
    assert tried == ["1", "2"]


def test_where_the_vault_has_no_other_the_refusal_is_the_applications(vault: Vault) -> None:
    """And a storm of refusals is not passed on to the vault: it is asked after 1, 2, 4 … 30 s."""
    secret = vault.secret(chance=lambda: 1.0)
    times: list[float] = []
    for _ in range(1600):
        before = vault.reads
        with pytest.raises(RefusedError):
            secret.call(refuses(CANARY))
        times += [vault.now - 1000] * (vault.reads - before)
        vault.now += 0.125
    assert [round(time) for time in times] == [0, 0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    vault.version, vault.now = 2, vault.now + 30
    assert secret.call(refuses(CANARY)) == "value-2"


def test_a_refused_value_does_not_come_back(vault: Vault) -> None:
    """From a replica of the vault that lags behind; it does when the vault makes a new version of it."""
    secret = vault.secret()
    secret.value()
    vault.version = 2
    assert secret.call(refuses(CANARY)) == "value-2"
    vault.version, vault.now = 1, vault.now + 301
    assert secret.value().reveal() == "value-2"
    secret = Secret(lambda: Value(CANARY, str(vault.version)), monotonic=lambda: vault.now)
    vault.version = 1
    refused = secret.value()
    vault.version = 2
    assert not secret.rejected(refused), "another version of the same text is no other value to try"
    assert secret.value().version == "2"


def test_a_read_that_began_before_the_refusal_proves_nothing(vault: Vault) -> None:
    """The vault answered it with the old value, then came the emergency: the vault is read once more, not believed."""
    secret = vault.secret()
    first = secret.value()
    vault.now += 241
    secret.value()
    (background,) = vault.beside
    found: list[bool] = []

    def emergency() -> None:
        vault.version, vault.during = 2, lambda: None
        refused = threading.Thread(target=lambda: found.append(secret.rejected(first)))
        refused.start()
        while not secret.status().refused:
            pass
        threads.append(refused)

    threads: list[threading.Thread] = []
    vault.during = emergency
    background()
    threads[0].join()
    assert (found, secret.value().reveal(), vault.reads) == ([True], "value-2", 3)


def test_a_block_that_is_refused_leaves_a_new_value_to_the_next(vault: Vault) -> None:
    """It is not repeated, since a block can not be."""
    secret = vault.secret()
    with pytest.raises(RefusedError), secret.using() as value:  # noqa: PT012 - the block is what is tried
        vault.version = 2
        refuses(CANARY)(value)
    with secret.using() as value:
        assert value.reveal() == "value-2"
    with pytest.raises(ValueError), secret.using():
        raise ValueError
    secret.value()
    assert vault.reads == 2


# --- no stampede ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["first use", "one 401"])
def test_a_hundred_threads_cause_one_read(vault: Vault, begun: bool) -> None:
    """All have the same value refused in the same moment, or all need the first one."""
    secret, together = vault.secret(), threading.Barrier(100)
    if begun:
        secret.value()
    vault.version, vault.reads = 2, 0
    found: list[str] = []

    def work(value: Value) -> str:
        if value.reveal() == CANARY:
            together.wait(30)
        return refuses(CANARY)(value)

    def run() -> None:
        if not begun:
            together.wait(30)
        found.append(secret.call(work))

    threads = [threading.Thread(target=run) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (found, vault.reads) == (["value-2"] * 100, 1)


def test_a_hundred_coroutines_cause_one_read(vault: Vault) -> None:
    """The loop goes on meanwhile, and one that gives up does not take the read from the others."""
    reading, goes_on = threading.Event(), threading.Event()

    def read() -> Value:
        vault.reads += 1
        reading.set()
        assert goes_on.wait(30)
        return Value("value-2", "2")

    secret = Secret(read)

    async def work(value: Value) -> str:
        return value.reveal()

    async def all_of_them() -> list[str]:
        calls = [asyncio.ensure_future(secret.acall(work)) for _ in range(100)]
        await asyncio.to_thread(reading.wait, 30)
        calls[0].cancel()
        goes_on.set()
        return await asyncio.gather(*calls[1:])

    assert asyncio.run(all_of_them()) == ["value-2"] * 99
    assert vault.reads == 1


def test_coroutines_survive_a_refusal_alike() -> None:
    """With `acall`, and with a block."""
    vault = Vault()
    secret = Secret(vault.read)

    async def work(value: Value) -> str:
        return refuses(CANARY)(value)

    async def run() -> tuple[str, str]:
        await secret.avalue()
        vault.version = 2
        first = await secret.acall(work)
        with pytest.raises(RefusedError):  # noqa: PT012 - the block is what is tried
            async with secret.using() as value:
                vault.version = 3
                refuses("value-2")(value)
        async with secret.using() as value:
            return first, value.reveal()

    assert asyncio.run(run()) == ("value-2", "value-3")


# --- a vault that is away ----------------------------------------------------------------------------


def test_the_last_good_value_is_used_while_the_vault_is_away(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """For a bounded time, told once, without waiting for the vault each time; then it is given up."""
    secret = vault.secret()
    secret.value()
    vault.away = ConnectionError(f"could not send {CANARY}")
    vault.now += 301
    for _ in range(1000):
        assert secret.value().reveal() == CANARY
    assert vault.reads == 2, "it is not asked again for a while"
    assert secret.status().why == "ConnectionError"
    assert caplog.messages == [
        "secret: can not be read: ConnectionError; what was read last is used for 0:59:59 at most"
    ]
    vault.now += 3590
    assert secret.value().reveal() == CANARY
    vault.settle()
    vault.now += 100
    with pytest.raises(Unavailable, match="secret: ConnectionError"):
        secret.value()


def test_when_it_is_back_that_is_told_too(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """The new value is taken beside those who use the old one."""
    secret = vault.secret()
    secret.value()
    vault.away, vault.now = TimeoutError(), vault.now + 301
    secret.value()
    vault.away, vault.version, vault.now = None, 2, vault.now + 2
    assert secret.value().reveal() == CANARY
    vault.settle()
    assert secret.value().reveal() == "value-2"
    assert caplog.messages[-1] == "secret: can be read again; failed before: 1"
    assert secret.status().failures == 0


def test_a_vault_that_never_answered_is_not_asked_by_everybody(vault: Vault) -> None:
    """An application that starts while it is away gets the same sentence for a second, then the vault is asked again."""
    vault.away = TimeoutError()
    secret = vault.secret()
    for _ in range(100):
        with pytest.raises(Unavailable):
            secret.value()
    assert vault.reads == 1
    vault.away, vault.now = None, vault.now + 1
    assert secret.value().reveal() == CANARY


def test_a_refusal_while_the_vault_is_away_is_the_applications(vault: Vault) -> None:
    """One read; the next a while later brings the new value."""
    secret = vault.secret()
    secret.value()
    vault.away = TimeoutError()
    for _ in range(10):
        with pytest.raises(RefusedError):
            secret.call(refuses(CANARY))
    assert vault.reads == 2
    vault.away, vault.version, vault.now = None, 2, vault.now + 1
    assert secret.call(refuses(CANARY)) == "value-2"


def test_an_interrupted_read_is_nobody_elses_end(vault: Vault) -> None:
    """Ctrl-C in the thread that reads; the next one reads for itself."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    vault.during = interrupt
    secret = vault.secret()
    with pytest.raises(KeyboardInterrupt):
        secret.value()
    vault.during = lambda: None
    assert secret.value().reveal() == CANARY


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_read(vault: Vault) -> None:
    """As pre-forking servers do it: a thread of the parent reads at that moment, and there is none in the child."""
    reading, goes_on, parent = threading.Event(), threading.Event(), os.getpid()

    def read() -> Value:
        if os.getpid() == parent:
            reading.set()
            assert goes_on.wait(30)
        return Value("value")

    secret = Secret(read)
    thread = threading.Thread(target=secret.value)
    thread.start()
    assert reading.wait(30)
    child = os.fork()
    if not child:
        os._exit(0 if secret.value().reveal() == "value" else 1)
    goes_on.set()
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0


# --- values stay in --------------------------------------------------------------------------------------


def test_a_value_shows_in_nothing_but_reveal(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """Printing, formatting, comparing, copying, pickling; the status, the log and tracebacks."""
    caplog.set_level(logging.DEBUG)
    secret = vault.secret()
    value = secret.value()
    shown = f"{value} {value!r} {value!s} {secret} {secret.status()} {vars(secret)}" + "%s" % value  # noqa: UP031
    assert CANARY not in shown
    for misuse in (pickle.dumps, copy.copy, copy.deepcopy, lambda given: given == Value("other")):
        with pytest.raises(TypeError):
            misuse(value)
    with pytest.raises(KeyError):
        value.reveal("password")
    vault.away = ConnectionError(CANARY)
    vault.now += 5000
    with pytest.raises(Unavailable) as raised:
        secret.value()
    trace = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    assert raised.value.__context__ is None
    assert CANARY not in "".join(trace.format()).replace(f"ConnectionError('{CANARY}')", "")
    assert not any(CANARY in message for message in caplog.messages)


def test_fields_are_as_every_vault_has_them() -> None:
    """One JSON object in Secrets Manager and Key Vault, fields beside Keyturn's label in Vault: the same to consumers."""
    held = {"username": "app_a", "password": "öäü€", "keyturn": "token=t key=k sum=s"}
    of_vault = Value.of(held, field="password")
    elsewhere = Value('{"password": "öäü€", "username": "app_a"}', field="password")
    for value in (of_vault, elsewhere):
        assert (value.reveal(), value.reveal("username"), set(value.fields)) == (
            held["password"],
            "app_a",
            {"username", "password"},
        )
    assert of_vault.same_text(elsewhere)
    assert Value.of({"value": "plain", "keyturn": "token=t"}).reveal() == "plain"
    assert Value("plain").fields == () == Value("{no json").fields == Value("[1]").fields
    assert Value('{"port": 5432}').reveal("port") == "5432"


def test_what_is_a_refusal() -> None:
    """By status of an answer, or of an SDK's or HTTP library's exception; by PostgreSQL's own codes."""

    class Answer:
        status_code = 401

    class WithResponseError(Exception):
        response = Answer()

    class WrongError(Exception):
        sqlstate = "28P01"

    assert all(unauthorized(outcome) for outcome in (Answer(), RefusedError(), WithResponseError(), WrongError()))
    Answer.status_code = 403
    assert not any(
        unauthorized(outcome) for outcome in (Answer(), WithResponseError(), ValueError("401"), None, "401", 401)
    )


def test_secrets_that_nobody_uses_any_more_are_let_go(vault: Vault) -> None:
    """What is remembered for forks keeps nothing alive."""
    import weakref

    secret = vault.secret()
    known = weakref.ref(secret)
    del secret
    gc.collect()
    assert known() is None


def test_times_that_make_no_sense_are_refused(vault: Vault) -> None:
    """A time to live of nothing would read for ever."""
    with pytest.raises(ValueError, match="ttl"):
        vault.secret(ttl=timedelta(0))
