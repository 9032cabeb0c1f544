"""The command `keyturn exec`: runs a program with secrets, and has it take up new values when they are rotated."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from rotation.cli import show
from rotation.cli.child import HEARD, WOKEN, CanNotStart, Child
from rotation.cli.context import File, Stack, UsageFault
from rotation.cli.ending import FAILED
from rotation.cli.handing import Files
from rotation.cli.places import OF_VAULT, logins, source_of
from rotation.cli.service import duration
from rotation.clock import SystemClock
from rotation.config import Config, find_stack_file, load
from rotation.consumer import Unavailable
from rotation.consumer.sources import NotAUriError, Source, source
from rotation.consumer.watch import Watch
from rotation.environ import FOLDER, Environ

_log = logging.getLogger(__name__)

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESTART: Final = "restart"
_OURS: Final = "KEYTURN_"
_LONGEST_SETTLE: Final = timedelta(seconds=5)
_FORM: Final = (
    "SECRET=VARIABLE, where SECRET is NAME[#FIELD] of the stack file, or a URI as in aws://REGION/ENTRY[#FIELD]"
)

Command = Annotated[list[str], typer.Argument(metavar="COMMAND [ARGUMENT]...", help="The program, after `--`.")]


@dataclass(frozen=True, slots=True)
class Given:
    """One --secret or --file."""

    secret: str
    variable: str
    in_file: bool


def execute(
    command: Command,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="SECRET=VARIABLE", help="A value, in a variable of the program's environment."
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="SECRET=VARIABLE", help="A value, in a file in memory; VARIABLE has its path."),
    ] = None,
    on_rotation: Annotated[
        str,
        typer.Option("--on-rotation", metavar="WHAT", help="restart; signal=NAME, as in signal=HUP; or ignore."),
    ] = RESTART,
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="How often to ask for the version that is current.")
    ] = "30s",
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="For a restart: between SIGTERM and SIGKILL.")
    ] = "10s",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="VARIABLE", help="A login that the program is to inherit all the same."),
    ] = None,
    stack: Stack = None,
    config: File = None,
) -> None:
    """Run a program with secrets, and restart or signal it when they are rotated.

    SECRET is NAME of the stack file, or aws://REGION/ENTRY, azure://VAULT/ENTRY or vault://MOUNT/ENTRY, each with #FIELD for
    one of several fields; the stack file is read only for names. Vaults are asked as the environment says who asks.

    With --file the value is in a file in memory that only this user can read; a rotation replaces it in one step. With --secret
    it is in the program's environment, where whoever may look into the process finds it, its children inherit it, and nothing
    can change it: a rotation is then taken up by a restart. So prefer --file where the program can read one.

    What Keyturn itself logs in with (KEYTURN_*, VAULT_TOKEN, VAULT_ROLE_ID, VAULT_SECRET_ID, and what the stack file names) is not
    passed on, unless --keep says so. Signals are passed on; the terminal is the program's. Versions are asked for without
    the value, where the login may see them. Linux only.

    Exit codes: the program's own, and 128 and a signal's number if that ended it; 126 it can not be executed; 127 it is
    not there; 1 a value can not be read, and nothing was started; 2 usage or configuration.

    Example: keyturn exec -s prod --file rag-worker-01=API_KEY_FILE -- ./worker
    """
    if not hasattr(signal, "sigtimedwait") or not hasattr(os, "posix_spawnp"):
        raise UsageFault("exec needs Linux: this system lets no process wait for signals with their senders")
    given = [*_given("--secret", secret, in_file=False), *_given("--file", file, in_file=True)]
    if not given:
        raise UsageFault(f"give --secret or --file; allowed: {_FORM}")
    if twice := {one.variable for one in given if [other.variable for other in given].count(one.variable) > 1}:
        raise UsageFault(f"{', '.join(sorted(twice))}: is given twice")
    told = _on_rotation(on_rotation)
    if isinstance(told, signal.Signals) and not all(one.in_file for one in given):
        raise UsageFault(
            f"--on-rotation {on_rotation}: the environment of a running program can not be changed, so it would go on with the "
            "old value; use --file, or restart"
        )
    interval, patience = duration("--every", every), duration("--grace", grace)
    named = not all("://" in one.secret for one in given)
    declared = load(find_stack_file(stack, config, Path.cwd())) if named else None
    sources = [_source(one, declared) for one in given]
    withheld = {*OF_VAULT, FOLDER, *(logins(declared) if declared else ())} - {*(keep or ())}
    inherited = {
        name: text
        for name, text in os.environ.items()
        if name not in withheld and (not name.startswith(_OURS) or name in (keep or ()))
    }
    if "KEYTURN_LOG_LEVEL" not in os.environ:
        logging.getLogger("rotation").setLevel(logging.INFO)
    _run(command, given, sources, inherited, told, interval, patience)


def _run(
    command: Sequence[str],
    given: Sequence[Given],
    sources: Sequence[Source],
    inherited: Mapping[str, str],
    told: signal.Signals | str | None,
    interval: timedelta,
    patience: timedelta,
) -> NoReturn:
    """Raises SystemExit with what the program ended with."""
    watch = Watch(sources, min(interval / 2, _LONGEST_SETTLE))
    try:
        first = watch.first()
    except Unavailable as error:
        show.complain(f"{error}. Nothing was started; run it again once that is put right.")
        raise SystemExit(FAILED) from None
    files = Files(os.environ) if any(one.in_file for one in given) else None
    handed = [first]
    """The newest, and nothing else. The thread below replaces it."""
    over = threading.Event()

    def environment() -> dict[str, str]:
        found = dict(inherited)
        for one, value in zip(given, handed[0], strict=True):
            found[one.variable] = str(files.folder / one.variable) if files and one.in_file else value.reveal()
        return found

    def write() -> None:
        for one, value in zip(given, handed[0], strict=True):
            if files and one.in_file:
                files.write(one.variable, value)

    def taken_up(child: Child) -> None:
        """Runs in the child's loop, so that it is not restarted from two sides."""
        names = ", ".join(one.secret for one in given)
        if isinstance(told, signal.Signals):
            _log.info("%s: another value is current; sending %s", names, told.name)
            child.tell(told)
        elif told == RESTART:
            _log.info("%s: another value is current; restarting", names)
            child.restart()

    def watching() -> None:
        chance, untaken = secrets.SystemRandom().random, False
        while not over.wait(interval.total_seconds() * (0.9 + 0.2 * chance())):
            if (values := watch.changed(lambda pause: over.wait(pause.total_seconds()))) is not None:
                handed[0] = values
                untaken = True
            try:
                if untaken:
                    write()
                    untaken = False
                    os.kill(os.getpid(), WOKEN)
            except OSError as error:
                if not over.is_set():
                    _log.error("the files can not be written: %s; tried again in %s", error.strerror, interval)

    # From here on the loop hears them. They stay blocked: what comes once the program is over changes nothing any more.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        write()
        child = Child(command, environment, patience, mask, taken_up, SystemClock())
        child.start()
        if files or told is not None:
            threading.Thread(target=watching, name="keyturn-exec", daemon=True).start()
        code = child.run()
    except CanNotStart as error:
        show.complain(str(error))
        code = error.code
    finally:
        over.set()
        if files:
            files.remove()
    raise SystemExit(code)


def _given(option: str, texts: Sequence[str] | None, *, in_file: bool) -> list[Given]:
    found = []
    for text in texts or ():
        # From the right: the name of an entry may have a `=`.
        name, _, variable = text.rpartition("=")
        if not name or not _VARIABLE.fullmatch(variable):
            raise UsageFault(f"{option} {text}: allowed: {_FORM}")
        found.append(Given(name, variable, in_file))
    return found


def _on_rotation(text: str) -> signal.Signals | str | None:
    """A signal, `restart`, or None for nothing."""
    kind, _, name = text.partition("=")
    if text in (RESTART, "ignore"):
        return text if text == RESTART else None
    found = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if kind != "signal" or not isinstance(found, signal.Signals):
        raise UsageFault(f"--on-rotation {text}: allowed: restart, ignore, and signal=NAME, as in signal=HUP")
    return found


def _source(one: Given, config: Config | None) -> Source:
    if "://" in one.secret or config is None:
        try:
            return source(one.secret)
        except NotAUriError as error:
            raise UsageFault(str(error)) from None
    name, _, field = one.secret.partition("#")
    policy = next((policy for policy in config.policies if policy.name == name), None)
    if policy is None:
        known = ", ".join(policy.name for policy in config.policies) or "none"
        raise UsageFault(f"the stack file declares no secret {name}; declared are: {known}")
    return source_of(config, policy, field or None, Environ(os.environ))
