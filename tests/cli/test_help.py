"""Help: every command and subcommand says in one line what it does, then all of it, with an example that can be typed."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from rotation.cli.main import app
from tests.cli.project import Project


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be typed, groups included."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*words, name))


ALL = [*walk(typer.main.get_command(app))]
LEAVES = [(words, command) for words, command in ALL if not hasattr(command, "commands")]
LONGEST = 120
"""Characters of a summary: what can be read in one go."""


def names(found: list[tuple[tuple[str, ...], Any]]) -> list[str]:
    return [" ".join(words) or "keyturn" for words, _ in found]


@pytest.mark.parametrize(("words", "command"), ALL, ids=names(ALL))
def test_a_summary_is_one_sentence(words: tuple[str, ...], command: Any) -> None:
    """Which lists of commands show whole."""
    first = " ".join((command.help or "").split("\n\n", maxsplit=1)[0].split())
    summary = first.partition(". ")[0]
    assert summary[:1].isupper()
    assert first.endswith(".")
    assert len(summary) <= LONGEST, len(summary)


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=names(LEAVES))
def test_a_command_shows_an_example_that_it_understands(words: tuple[str, ...], command: Any) -> None:
    """It begins with the command, and has no option that the command lacks."""
    example = re.search(r"^Example: (keyturn .*)", command.help, re.MULTILINE | re.DOTALL)
    assert example is not None
    line = " ".join(example[1].split("\n\n")[0].split()).partition(" 3<")[0]
    typed = shlex.split(line.partition(" | ")[0].partition(" > ")[0])
    if words != ("drill", "run"):  # whose last word may be left out
        assert tuple(typed[1 : len(words) + 1]) == words
    own = typed[: typed.index("--")] if "--" in typed else typed
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in own if word.startswith("-") and word != "-"} <= known


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=names(LEAVES))
def test_every_option_and_argument_is_explained(words: tuple[str, ...], command: Any) -> None:
    """In a sentence of its own."""
    assert [parameter.name for parameter in command.params if not parameter.help] == []


def test_the_list_of_commands_has_them_all_and_cuts_nothing_off(project: Project) -> None:
    """Under the headings of what they are for."""
    shown = project.run("--help").out
    listed = [line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z][a-z-]+  ", line)]
    assert sorted(listed) == sorted(words[0] for words, _ in ALL if len(words) == 1)
    assert not re.search(r"[a-z]\.\.\.", shown)
    assert [line for line in shown.splitlines() if line.startswith("Deal with a leak:")]


@pytest.mark.parametrize("words", [("status",), ("issuer",), ("issuer", "show"), ()])
def test_help_is_had_in_three_ways(project: Project, words: tuple[str, ...]) -> None:
    """`keyturn help COMMAND`, `-h` and `--help` print the same."""
    helped, short, long = (project.run(*a) for a in (("help", *words), (*words, "-h"), (*words, "--help")))
    assert helped.code == short.code == long.code == 0
    assert helped.out == short.out == long.out
    assert helped.out.startswith(f"Usage: {' '.join(('keyturn', *words))} ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("stauts",), "No such command 'stauts'. Did you mean 'status'?"),
        (("issuer", "shwo"), "No such command 'shwo'. Did you mean 'show'?"),
        (("help", "stauts"), "keyturn has no command stauts (did you mean status?); `keyturn -h` lists its commands"),
        (("help", "issuer", "shwo"), "has no command shwo (did you mean show?); `keyturn issuer -h` lists"),
        (("help", "status", "now"), "keyturn status has no command now; it has no commands of its own"),
        (
            ("rotate", "support-copilot-caht"),
            "declares no secret support-copilot-caht (did you mean support-copilot-chat?);",
        ),
        (("--stack", "sandbox", "status"), "Options stand after the command, as in `keyturn status --stack prod`."),
    ],
)
def test_a_slip_is_met_with_what_was_meant(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2."""
    ran = project.run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
