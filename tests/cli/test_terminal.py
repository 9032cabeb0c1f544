"""How the commands look and listen: help, options that all share, terminals narrow and plain, pipes, interruptions."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import typer

from rotation.cli.main import app
from tests.cli.project import CHAT, HOOK, Project

COMMANDS = sorted(
    name for name, one in vars(typer.main.get_command(app))["commands"].items() if "commands" not in vars(one)
)
ENDLESS = {"run", "serve", "exec"}
"""What they tell while they run is JSON already, or a program's own."""
TEXT = {"help", "completion"}
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)[0-9;]*m")
ESCAPE = "\x1b"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ENDLESS | TEXT])
def test_every_command_shares_the_same_options(project: Project, command: str) -> None:
    """`--stack`, `--config` and `--json` work alike everywhere, so that scripts need not know which has what."""
    shown = project.run(command, "--help").out
    assert all(option in shown for option in ("--stack NAME", "--config FILE", "--json"))


def test_the_version_is_told(project: Project) -> None:
    """By the console script, alone on its line."""
    assert re.fullmatch(r"keyturn \d+\.\d+\.\d+\n", project.execute("--version").out)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rotate",), "Missing argument 'NAME'"),
        (("rotten",), "No such command 'rotten'"),
        (("status", "--jsn"), "No such option: --jsn"),
        (("submit", CHAT, "--fd", "three"), "Invalid value for '--fd': Input should be a valid integer"),
    ],
)
def test_a_mistake_on_the_command_line_is_met_with_the_usage(
    project: Project, arguments: tuple[str, ...], told: str
) -> None:
    """Exit code 2, what is wrong, how to ask for help; no traceback."""
    ran = project.run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "-h' for help" in ran.err
    assert "Traceback" not in ran.err


def test_the_command_needs_nothing_that_only_development_installs() -> None:
    """Typer brings a click of its own; whatever else is called so need not be there."""
    code = "import sys; sys.modules |= dict.fromkeys(('click', 'flask', 'moto', 'pytest')); import rotation.cli.main"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(project: Project, shell: str) -> None:
    """The script for each shell is printed, and calls the console script back."""
    script = project.execute(env={"_KEYTURN_COMPLETE": f"source_{shell}"})
    assert script.code == 0
    assert f"_KEYTURN_COMPLETE=complete_{shell}" in script.out


def test_commands_are_completed(project: Project) -> None:
    """What the scripts of the shells call."""
    typed = {"_KEYTURN_COMPLETE": "complete_bash", "COMP_WORDS": "keyturn emer", "COMP_CWORD": "1"}
    assert project.execute(env=typed).out.split() == ["emergency"]


# --- which stack -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("--stack", "sandbox"), ("-s", "team/keyturn/sandbox"), ("--config", "Pulumi.sandbox.yaml"), ("-c", "copy.yaml")],
)
def test_a_stack_is_named_or_its_file_is(project: Project, arguments: tuple[str, ...]) -> None:
    """By name, by Pulumi's long name, or by path; an option wins over KEYTURN_STACK."""
    (project.root / "copy.yaml").write_text(project.stack_file.read_text())
    ran = project.run("status", *arguments, "--json", KEYTURN_STACK="elsewhere")
    assert (ran.code, [row["name"] for row in ran.json]) == (0, [CHAT, HOOK])


def test_keyturn_stack_names_the_stack(project: Project) -> None:
    """Where no option does."""
    assert project.run("status", "--json", KEYTURN_STACK="sandbox").code == 0
    ran = project.run("status", KEYTURN_STACK="elsewhere")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no stack elsewhere; allowed: sandbox" in ran.err
    del project.environ["KEYTURN_STACK"]
    ran = project.run("status")
    assert (ran.code, ran.out) == (2, "")
    assert "neither here nor in KEYTURN_STACK; allowed: sandbox" in ran.err


def test_a_log_level_that_does_not_exist_is_refused(project: Project) -> None:
    """With those that do; nobody reads a traceback for a typing mistake."""
    ran = project.run("status", KEYTURN_LOG_LEVEL="chatty")
    assert (ran.code, ran.out) == (2, "")
    assert "CHATTY; allowed: DEBUG, INFO" in ran.err


# --- what is seen ----------------------------------------------------------------------------------


def test_a_pipe_gets_wholeplain_lines(project: Project) -> None:
    """One line per secret, however long; no colours, no spaces at the end, no progress."""
    long = "-".join(["support"] * 7)
    project.declare(project.secret(CHAT), project.secret(long, replicas=["mirror"]))
    project.apply(CHAT)
    for command, first in (("status", 1), ("verify", 1), ("plan", 0)):
        ran = project.execute(command) if command == "status" else project.run(command)
        lines = ran.out.splitlines()[first:]
        assert ran.err == ""
        assert ESCAPE not in ran.out
        assert not any(line.endswith(" ") for line in lines)
        assert sum(CHAT in line for line in lines) == 1
        assert sum(long in line for line in lines) == 1


def test_a_terminal_sees_colours_and_progress(project: Project) -> None:
    """Green for what is well, and a bar while there is something to wait for."""
    project.apply(CHAT)
    shown = project.at_terminal("status", CHAT).end()
    assert shown.code == 0
    assert "\x1b[32msteady" in shown.out
    assert "looking" in shown.out


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(project: Project, env: dict[str, str]) -> None:
    """By NO_COLOR, and by a terminal that has none."""
    project.apply(CHAT)
    shown = project.at_terminal("status", CHAT, env=env).end()
    assert "steady" in shown.out
    assert not COLOUR.search(shown.out)


@pytest.mark.parametrize(("command", "columns"), [("status", 60), ("status", 80), ("status", 130), ("verify", 60)])
def test_a_narrow_terminal_is_enough(project: Project, command: str, columns: int) -> None:
    """No line is longer than the terminal is wide, and no name or key id is torn apart."""
    project.apply()
    rows = project.run("status", "--json").json
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", project.at_terminal(command, columns=columns).end().out)
    assert all(len(line) <= columns for line in re.split(r"[\r\n]", shown))
    for row in rows:
        assert row["name"] in shown
        if command == "verify" or columns != 80:  # there, what comes next is worth more to know
            assert row["key_id"].rpartition("/")[2][:16] in shown


def test_a_terminal_without_these_characters_is_no_reason_to_fail(project: Project) -> None:
    """A locale that has no check marks gets question marks."""
    project.apply(HOOK)
    ran = project.execute("sweep", env={"PYTHONIOENCODING": "ascii"})
    assert (ran.code, ran.err) == (0, "")
    assert f"? {HOOK}: rotate at" in ran.out


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("sweep",), ("--help",)])
def test_a_reader_that_goes_away_is_no_fault(project: Project, arguments: tuple[str, ...]) -> None:
    """As in `keyturn status | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = project.execute(*arguments, stdout=writing)
    os.close(writing)
    assert ran.err == ""


def test_words_of_a_service_do_not_command_the_terminal(project: Project) -> None:
    """What comes from outside is shown as it is, markup and all, but for control characters."""
    from rotation.cli import show

    shown = show.plain("vault: [red]no[/red] :key: \x1b[2J\x07gone").plain
    assert shown == "vault: [red]no[/red] :key: \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}gone"
    assert not show.out._markup
    assert not show.out._emoji


def test_nothing_is_shown_that_is_a_living_value(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of defence, should words of a service repeat what they were sent: in sentences, tables and JSON."""
    from rotation.cli import show
    from rotation.model import SecretValue

    value = SecretValue("canary-7f3a9c1e")
    show.say(f"vault: no such token {value.reveal()}")
    show.complain(f"vault: no such token {value.reveal()}")
    show.as_json([{"error": f"no such token {value.reveal()}", "did": [value.reveal()], "done": False}])
    out, err = capsys.readouterr()
    assert value.reveal() not in out + err
    assert out.count("[masked]") == 3
    assert err == "vault: no such token [masked]\n"


# --- Ctrl-C ----------------------------------------------------------------------------------------


def listening() -> None:
    """Whoever runs these tests may have been started so that Ctrl-C does nothing; the command hears it all the same."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("arguments", [("verify", CHAT), ("emergency", CHAT, "--yes"), ("sweep",)])
def test_an_interrupted_command_ends_at_once_and_says_what_that_means(
    project: Project, arguments: tuple[str, ...]
) -> None:
    """Exit code 130, one sentence, although the issuer keeps a thread waiting."""
    project.apply(CHAT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        project.change("issuers.openai.baseUrl", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with project.start(*arguments, preexec_fn=listening) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    told = {
        "emergency": r"Interrupted\. `keyturn emergency --resume \S+` goes on; so does the next sweep with what is condemned\.\n",
    }.get(
        arguments[0], r"Interrupted\. What was begun is in the journal: run it again, or let the next sweep go on\.\n"
    )
    assert re.fullmatch(told, err), err
    assert "Traceback" not in out


def test_what_was_interrupted_is_finished_by_the_next_run(project: Project) -> None:
    """The mint that nobody waited for is taken over; consumers have never noticed."""
    project.apply(CHAT)
    before = project.value(CHAT)
    address = project.services.openai.base_url
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        project.change("issuers.openai.baseUrl", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with project.start("rotate", CHAT, preexec_fn=listening) as process, silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)
    project.change("issuers.openai.baseUrl", address)
    assert project.value(CHAT) == before
    assert project.run("status", CHAT, "--json").json[0]["phase"] == "rotating"
    assert project.run("rotate", CHAT, "--take-over").code == 0
    assert project.value(CHAT) != before
    assert len(project.alive()) == 2
