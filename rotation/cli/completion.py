"""The command `keyturn completion`, and what shells offer while a name is typed: from the stack's file alone, no call is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer.completion import get_completion_script  # type: ignore[attr-defined] # what --show-completion prints

from rotation.config import NAMESPACE, ConfigError, find_stack_file

Offer = list[str]
Offering = Callable[[typer.Context, str], Offer]


class Shell(StrEnum):
    """Those that can be taught."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the script that teaches a shell to complete commands, options, and the names of secrets.

    Names come from the stack's file (--stack, --config or KEYTURN_STACK); no store and no issuer is asked.

    For one session: `source <(keyturn completion bash)`, the same with zsh, and `keyturn completion fish | source`.
    For good, put that line into ~/.bashrc, or into ~/.zshrc after compinit; for fish, write what is printed to
    ~/.config/fish/completions/keyturn.fish.

    Example: keyturn completion bash
    """
    script = get_completion_script(prog_name="keyturn", complete_var="_KEYTURN_COMPLETE", shell=shell.value)
    typer.echo(script)


def secrets(ctx: typer.Context, incomplete: str) -> Offer:
    """Names of declared secrets that were not typed yet."""
    declared = _declared(ctx, "secrets")
    found = [one["name"] for one in declared if "name" in one] if isinstance(declared, list) else []
    typed = ctx.params.get("names") or ()
    return [name for name in _beginning(found, incomplete) if name not in typed]


def keys_of(part: str) -> Offering:
    """Offers what a part of the stack's file declares by name: `owners`, `stores`, `issuers`."""

    def offer(ctx: typer.Context, incomplete: str) -> Offer:
        declared = _declared(ctx, part)
        return _beginning(declared, incomplete) if isinstance(declared, dict) else []

    return offer


def environments(ctx: typer.Context, incomplete: str) -> Offer:
    """The one of the stack."""
    declared = _declared(ctx, "environment")
    return _beginning([declared], incomplete) if isinstance(declared, str) else []


def stacks(incomplete: str) -> Offer:
    """Those that have a file here."""
    return _beginning(
        (path.name[len("Pulumi.") : -len(".yaml")] for path in sorted(Path.cwd().glob("Pulumi.*.yaml"))), incomplete
    )


def words(choices: Sequence[str]) -> Callable[[str], Offer]:
    """Offers these."""
    return lambda incomplete: _beginning(choices, incomplete)


def _beginning(names: Iterable[object], incomplete: str) -> list[str]:
    return [str(name) for name in names if str(name).startswith(incomplete)]


def _declared(ctx: typer.Context, part: str) -> Any:
    """One part of the stack's file as it stands there, checked for nothing: who presses Tab wants no list of faults."""
    stack, file = ctx.params.get("stack") or os.environ.get("KEYTURN_STACK"), ctx.params.get("config")
    with suppress(ConfigError, OSError, ValueError, yaml.YAMLError):
        path = find_stack_file(stack, file and Path(file), Path.cwd())
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C reads thousands of secrets at once
        whole = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
        config = (whole or {}).get("config") if isinstance(whole, Mapping) else None
        if isinstance(config, Mapping):
            return config.get(NAMESPACE + part, config.get(part))
    return None
