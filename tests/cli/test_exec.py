"""exec: real programs that get a secret of a real vault, live through its rotation, and end as if nobody stood between."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cli.project import CHAT, HOOK, Project, Ran
from tests.test_hygiene import files, leaks, processes

SHOW = """
import hashlib, os, signal, sys
def say(*words): os.write(1, (" ".join(words) + "\\n").encode())  # print() may not be called by a handler within print()
def show(*_):
    text = open(os.environ["KEY"]).read() if os.environ["KEY"].startswith("/") else os.environ["KEY"]
    say("has", hashlib.sha256(text.encode()).hexdigest()[:8])
def heard(number, _):
    say("heard", signal.Signals(number).name)
    if number == signal.SIGTERM: sys.exit(5)
    if number == signal.SIGHUP: show()
for name in ("TERM", "INT", "HUP", "USR1", "USR2"):
    signal.signal(getattr(signal, f"SIG{name}"), heard)
show()
while True: signal.pause()
"""
"""Says which value it has, by its hash, and which signals it hears; ends with 5 on SIGTERM."""

STUBBORN = SHOW.replace("sys.exit(5)", "pass")


def mark(value: str) -> str:
    return f"has {hashlib.sha256(value.encode()).hexdigest()[:8]}"


class Running:
    """`keyturn exec` as a process, and what its program prints."""

    def __init__(self, project: Project, *arguments: str, code: str = SHOW, **options: Any) -> None:
        self.process = project.start("exec", "--every", "1s", *arguments, "--", sys.executable, "-c", code, **options)
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            for child in self.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self.process.kill()
        self.process.communicate(timeout=30)

    def until(self, line: str) -> None:
        """Waits for a line of the program."""
        assert self.process.stdout
        while line not in self.lines:
            read = self.process.stdout.readline()
            assert read, (line, self.lines, self.process.stderr and self.process.stderr.read())
            self.lines.append(read.rstrip("\n"))

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def file(self) -> Path:
        """Where the program finds its value."""
        (child,) = self.children()
        environment = Path(f"/proc/{child}/environ").read_text().split("\0")
        return Path(next(pair.removeprefix("KEY=") for pair in environment if pair.startswith("KEY=")))

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Asks again and again, for ten seconds at most."""
        for _ in range(200):
            if reached():
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError("not reached")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ran:
        """What is left to read, and the exit code, once it has been asked to end."""
        out, err = self.process.communicate(timeout=30)
        return Ran(self.process.returncode, "\n".join([*self.lines, *out.splitlines()]), err)


@pytest.fixture
def applied(project: Project) -> Project:
    """With the generated password."""
    project.apply(HOOK)
    return project


# --- what the program gets ---------------------------------------------------------------------------


def test_a_program_gets_the_value_and_no_login(applied: Project) -> None:
    """By name of the stack file; what Keyturn logged in with is not passed on, but for what is asked for."""
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    arguments = ("--secret", f"{HOOK}=KEY", "--keep", "KEYTURN_STACK", "--", sys.executable, "-c", code)
    given = {"VAULT_TOKEN": "", "CREDENTIALS_DIRECTORY": "/nowhere", "OTHER": "kept", "EXTRA_LOGIN": "x"}
    ran = applied.execute("exec", *arguments, env=given)
    assert ran.code == 0, ran.err
    environment = json.loads(ran.out)
    assert environment["KEY"] == applied.value(HOOK)
    withheld = {"VAULT_TOKEN", "CREDENTIALS_DIRECTORY", "OPENAI_ADMIN_KEY", "KEYTURN_VAULT_SECRET_ID"}
    assert not withheld & set(environment)
    assert {name for name in environment if name.startswith("KEYTURN_")} == {"KEYTURN_STACK"}
    assert (environment["OTHER"], environment["PATH"]) == ("kept", applied.environ["PATH"])


def test_an_entry_by_its_uri_needs_no_stack_file(applied: Project, tmp_path: Path) -> None:
    """The login is the application's own, in Vault's own variables."""
    bao = applied.services.bao
    token = bao.token(f'path "secret/data/{applied.installation}/*" {{ capabilities = ["read"] }}')
    env = {"VAULT_ADDR": bao.address, "VAULT_CACERT": str(bao.ca), "VAULT_TOKEN": token, "KEYTURN_STACK": "none"}
    where = f"vault://secret/{applied.installation}/a/{applied.entry(HOOK)}=KEY"
    (tmp_path / "empty").mkdir()
    arguments = [str(Path(sys.executable).parent / "keyturn"), "exec", "--secret", where, "--", "printenv", "KEY"]
    given = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(
        arguments, cwd=tmp_path / "empty", env=given, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (applied.value(HOOK), "")


def test_a_value_in_a_file_is_in_memory_and_its_readers_alone(applied: Project) -> None:
    """On a file system in memory, in a folder and a file that nobody else may open; gone with the program."""
    with Running(applied, "--file", f"{HOOK}=KEY") as running:
        running.until(mark(applied.value(HOOK)))
        path = running.file()
        assert [oct(place.stat().st_mode)[-3:] for place in (path, path.parent)] == ["600", "700"]
        kind = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True).stdout
        assert kind.strip() in ("tmpfs", "ramfs")
        running.send(signal.SIGTERM)
        assert running.end().code == 5
    assert not path.parent.exists()


# --- how it ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ((sys.executable, "-c", "raise SystemExit(7)"), 7),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), 137),
        (("/nowhere/to/be/found",), 127),
        (("no-such-command-anywhere",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "exit 130"), 130),
    ],
)
def test_its_end_is_the_programs(applied: Project, command: tuple[str, ...], code: int) -> None:
    """Its exit code, a signal as shells show it, and theirs for what can not be run."""
    ran = applied.execute("exec", "--secret", f"{HOOK}=KEY", "--", *command)
    assert ran.code == code
    assert bool(ran.err) is (code in (126, 127))


def test_where_the_value_can_not_be_read_nothing_is_started(applied: Project, tmp_path: Path) -> None:
    """Exit code 1, and which entry, why, and what then."""
    started = tmp_path / "started"
    ran = applied.execute("exec", "--secret", f"{CHAT}=KEY", "--", "touch", str(started))
    where = f"vault://secret/{applied.installation}/a/sandbox/{CHAT}"
    then = "Nothing was started; run it again once that is put right."
    assert (ran.code, ran.err) == (1, f"{where}: there is no such entry, or it is deleted. {then}\n")
    assert not started.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --secret or --file"),
        (("--secret", "no-variable"), "allowed: SECRET=VARIABLE"),
        (("--secret", f"{HOOK}=1KEY"), "allowed: SECRET=VARIABLE"),
        (("--secret", f"{HOOK}=KEY", "--file", f"{HOOK}=KEY"), "KEY: is given twice"),
        (("--secret", "other-secret=KEY"), "declares no secret other-secret; declared are: "),
        (("--secret", "ftp://host/entry=KEY"), "does not say where an entry is"),
        (("--secret", f"{HOOK}=KEY", "--on-rotation", "signal=HUP"), "can not be changed"),
        (("--file", f"{HOOK}=KEY", "--on-rotation", "signal=NONE"), "allowed: restart, ignore, and signal=NAME"),
        (("--secret", f"{HOOK}=KEY", "--every", "soon"), "--every"),
        (("--secret", f"{HOOK}=KEY", "--every", "0s"), "--every: 0s is less than 1s"),
    ],
)
def test_what_can_not_be_meant_is_refused(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, before anything is read or started."""
    ran = project.run("exec", *arguments, "--", "true")
    assert ran.code == 2
    assert told in ran.err


# --- signals, terminals, children ------------------------------------------------------------------------


def test_signals_are_passed_on_once(applied: Project) -> None:
    """Each to the program, which does with it what it wants; its answer to SIGTERM is the exit code."""
    with Running(applied, "--secret", f"{HOOK}=KEY") as running:
        running.until(mark(applied.value(HOOK)))
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            running.send(number)
            running.until(f"heard {number.name}")
        running.send(signal.SIGTERM)
        ran = running.end()
    heard = [line for line in ran.out.splitlines() if line.startswith("heard")]
    assert heard == ["heard SIGHUP", "heard SIGUSR1", "heard SIGUSR2", "heard SIGINT", "heard SIGTERM"]
    assert ran.code == 5


def test_a_terminal_is_the_programs(applied: Project) -> None:
    """It is asked there and answered; Ctrl-C reaches it once, and not through Keyturn a second time."""
    code = (
        "import signal, sys\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "print('terminal', sys.stdin.isatty(), input('name? '), flush=True)\n"
        "print('press', flush=True)\n"
        "while not heard: signal.pause()\n"
        "input('more? ')\n"
        "print('times', len(heard), flush=True)\n"
        "raise SystemExit(3)\n"
    )
    terminal = applied.at_terminal("exec", "--secret", f"{HOOK}=KEY", "--", sys.executable, "-c", code)
    terminal.read_until("name? ")
    terminal.type("somebody\n")
    terminal.read_until("terminal True somebody")
    terminal.read_until("press")
    terminal.type("\x03")
    terminal.read_until("more? ")
    terminal.type("\n")
    ran = terminal.end()
    assert "times 1" in ran.out
    assert ran.code == 3


def test_what_a_terminal_sends_to_both_is_not_sent_twice(applied: Project) -> None:
    """Shown by a program that left the terminal's foreground: Ctrl-C is for Keyturn alone then, which keeps it to itself."""
    code = (
        "import os, signal\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (os.write(1, b'times %d' % len(heard)), os._exit(4)))\n"
        "os.setpgid(0, 0)\n"
        "os.write(1, b'ready')\n"
        "while True: signal.pause()\n"
    )
    terminal = applied.at_terminal("exec", "--secret", f"{HOOK}=KEY", "--", sys.executable, "-c", code)
    terminal.read_until("ready")
    terminal.type("\x03")
    terminal.read_until("^C")
    os.kill(terminal._process.pid, signal.SIGUSR1)  # the kernel hands out lower numbers first, so this one comes after
    ran = terminal.end()
    assert ("times 0" in ran.out, ran.code) == (True, 4), ran.out


def test_as_a_containers_first_process_it_leaves_no_zombie(applied: Project) -> None:
    """Orphans of the program become its children, and are reaped when they end."""
    orphaned = "import os, sys\nif os.fork() == 0:\n    if os.fork() == 0: os._exit(0)\n    os._exit(0)\n" + SHOW

    def adopt() -> None:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as the first process of a container

    with Running(applied, "--secret", f"{HOOK}=KEY", code=orphaned, preexec_fn=adopt) as running:
        running.until(mark(applied.value(HOOK)))
        running.send(signal.SIGUSR1)
        running.until("heard SIGUSR1")

        def zombies() -> list[int]:
            return [pid for pid in running.children() if ") Z " in Path(f"/proc/{pid}/stat").read_text()]

        running.wait_for(lambda: len(running.children()) == 1)
        assert zombies() == []
        running.send(signal.SIGTERM)
        assert running.end().code == 5


# --- rotation ----------------------------------------------------------------------------------------


def test_a_rotation_restarts_the_program(applied: Project) -> None:
    """SIGTERM, then started again with the new value; what was there is reaped, and its exit code is nobody's."""
    with Running(applied, "--secret", f"{HOOK}=KEY") as running:
        running.until(mark(applied.value(HOOK)))
        before = running.children()
        assert applied.run("rotate", HOOK).code == 0
        running.until(mark(applied.value(HOOK)))
        after = running.children()
        assert len(after) == 1
        assert after != before
        assert "heard SIGTERM" in running.lines
        running.send(signal.SIGTERM)
        ran = running.end()
    assert ran.code == 5
    (line,) = [json.loads(line) for line in ran.err.splitlines()]
    assert line["message"] == f"{HOOK}: another value is current; restarting"


def test_a_program_that_does_not_end_is_killed(applied: Project) -> None:
    """After the grace, so that it goes on with the new value and not with one that will be dead."""
    with Running(applied, "--secret", f"{HOOK}=KEY", "--grace", "1s", code=STUBBORN) as running:
        running.until(mark(applied.value(HOOK)))
        assert applied.run("rotate", HOOK).code == 0
        running.until("heard SIGTERM")
        running.until(mark(applied.value(HOOK)))
        assert len(running.children()) == 1


def test_who_ends_it_during_a_restart_ends_it(applied: Project) -> None:
    """A service manager's SIGTERM is not answered by a new start."""
    with Running(applied, "--secret", f"{HOOK}=KEY", "--grace", "30s", code=STUBBORN) as running:
        running.until(mark(applied.value(HOOK)))
        assert applied.run("rotate", HOOK).code == 0
        running.until("heard SIGTERM")
        running.send(signal.SIGINT)
        running.until("heard SIGINT")
        (child,) = running.children()
        os.kill(child, signal.SIGKILL)
        ran = running.end()
    assert ran.code == 137
    assert ran.out.count("has ") == 1


def test_a_signal_in_place_of_a_restart(applied: Project) -> None:
    """The file has the new value when the signal comes; the process is the same."""
    with Running(applied, "--file", f"{HOOK}=KEY", "--on-rotation", "signal=HUP") as running:
        running.until(mark(applied.value(HOOK)))
        before = running.children()
        assert applied.run("rotate", HOOK).code == 0
        running.until(mark(applied.value(HOOK)))
        assert running.children() == before
        assert running.lines.count("heard SIGHUP") == 1


def test_ignore_renews_the_file_and_says_nothing(applied: Project) -> None:
    """For a program that reads it each time, or that a person restarts."""
    with Running(applied, "--file", f"{HOOK}=KEY", "--on-rotation", "ignore") as running:
        running.until(mark(applied.value(HOOK)))
        before = running.children()
        path = running.file()
        assert applied.run("rotate", HOOK).code == 0
        running.wait_for(lambda: path.read_text() == applied.value(HOOK))
        assert running.children() == before
        running.send(signal.SIGTERM)
        assert running.end().out.count("heard") == 1, "but for the end there was no signal"


def test_only_versions_are_asked_for(applied: Project) -> None:
    """OpenBao's own record of requests: the value was read once, its version again and again."""
    with Running(applied, "--secret", f"{HOOK}=KEY") as running:
        running.until(mark(applied.value(HOOK)))
        path = f"secret/{{}}/{applied.installation}/a/{applied.entry(HOOK)}"

        def asked(kind: str) -> int:
            lines = map(json.loads, applied.services.bao.audit_log.read_text().splitlines())
            return sum(line["type"] == "request" and line["request"]["path"] == path.format(kind) for line in lines)

        reads = asked("data")
        running.wait_for(lambda: asked("subkeys") >= 3)
        assert asked("data") == reads


# --- values stay in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--secret", "--file"])
def test_no_value_shows_but_where_it_was_asked_for(applied: Project, option: str) -> None:
    """Neither in outputs and the log at DEBUG, nor in any command line, nor in Keyturn's own environment, nor on disk."""
    old = applied.value(HOOK)
    places: dict[str, str] = {}
    with Running(applied, option, f"{HOOK}=KEY", env={"KEYTURN_LOG_LEVEL": "DEBUG"}) as running:

        def look(when: str) -> None:
            (child,) = running.children()
            seen = processes(running.process.pid)
            seen["environment of keyturn"] = Path(f"/proc/{running.process.pid}/environ").read_text()
            if option == "--secret":
                assert applied.value(HOOK) in seen.pop(f"environment of {child}"), "the declared exception"
            places.update({f"{when}: {name}": text for name, text in seen.items()})

        running.until(mark(old))
        look("before")
        assert applied.run("rotate", HOOK).code == 0
        running.until(mark(applied.value(HOOK)))
        look("after")
        running.send(signal.SIGTERM)
        ran = running.end()
    places |= {"out": ran.out, "err": ran.err} | files(applied.root)
    assert "rotation" in ran.err
    secrets = {old, applied.value(HOOK), applied.environ["KEYTURN_VAULT_SECRET_ID"]}
    found = leaks(places, secrets)
    assert [place for place in found if "environment of keyturn" not in place] == []
    assert leaks({place: places[place] for place in found}, {old, applied.value(HOOK)}) == []
