"""Help: the commands by what they are for, each with its whole first sentence; and the command `keyturn help`."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from rotation.cli import completion
from rotation.cli.context import UsageFault

_SECTIONS: Final = {
    "See": ("status", "plan", "verify", "doctor", "runbook", "report", "metrics", "audit"),
    "Rotate": ("rotate", "sweep", "run", "fleet", "rollback", "submit", "adopt", "release"),
    "Deal with a leak": ("emergency", "incident", "thaw", "break-glass", "drill", "guard", "serve", "fingerprints"),
    "Set up and use": ("config", "policy", "issuer", "notify", "exec", "completion", "sandbox", "help"),
}


class Sentences(TyperGroup):
    """A group that lists its commands with their whole first sentences; the usual list cuts them off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list, in sections where there are any."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = {
            name: _first_sentence(command.help or "") for name, command in commands if command and not command.hidden
        }
        for title, names in self.sections(shown).items():
            with formatter.section(title):
                formatter.write_dl([(name, shown[name]) for name in names])

    def sections(self, names: dict[str, str]) -> dict[str, list[str]]:
        """The names under each heading."""
        return {"Commands": [*names]} if names else {}


class Root(Sentences):
    """All commands, by what they are for."""

    def sections(self, names: dict[str, str]) -> dict[str, list[str]]:
        """As they are listed above, and what is not, last."""
        found = {title: [name for name in listed if name in names] for title, listed in _SECTIONS.items()}
        others = [name for name in names if not any(name in listed for listed in found.values())]
        return {title: listed for title, listed in (found | {"Others": others}).items() if listed}


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return paragraph.partition(". ")[0].rstrip(".") + "."


def _subcommands(ctx: typer.Context, incomplete: str) -> list[str]:
    command, _ = _found(ctx.find_root(), [str(word) for word in ctx.params.get("words") or ()])
    return completion.words(command.list_commands(ctx) if isinstance(command, TyperGroup) else ())(incomplete)


def explain(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="As it is typed, as in issuer show.", autocompletion=_subcommands),
    ] = None,
) -> None:
    """Explain a command; the same as COMMAND --help.

    Example: keyturn help emergency
    """
    command, its = _found(ctx.find_root(), words or [])
    typer.echo(command.get_help(its))


def _found(ctx: Any, words: list[str]) -> tuple[Any, Any]:
    """The command that these words mean, and its context. Raises UsageFault for a word that means none."""
    command = ctx.command
    for word in words:
        below = command.list_commands(ctx) if isinstance(command, TyperGroup) else []
        if word not in below:
            near = difflib.get_close_matches(word, below, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            there = f"`{ctx.command_path} -h` lists its commands" if below else "it has no commands of its own"
            raise UsageFault(f"{ctx.command_path} has no command {word}{meant}; {there}")
        command = command.get_command(ctx, word)
        ctx = type(ctx)(command, info_name=word, parent=ctx)
    return command, ctx
