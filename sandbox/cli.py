"""The command `keyturn sandbox`: up, down, status, reset."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from sandbox.home import SandboxError, find_home
from sandbox.services import supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.home import Home
    from sandbox.supervisor import ServiceStatus, Supervisor

app = typer.Typer(no_args_is_help=True, help="Local stand-ins of the clouds and vendors, in this clone only.")

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON list, one object for each service.")]


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the services that do not run; print where they are.

    What they hold is kept in .sandbox, and found again by the next start.

    Example: keyturn sandbox up
    """
    with _sandbox() as (home, services):
        began = time.monotonic()
        listing = services.up()
        _show(listing, as_json=as_json)
        if not as_json:
            print(f"Ready in {time.monotonic() - began:.1f} s. Use it: . {_short(home.env)}")


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the services; what they hold is kept.

    Example: keyturn sandbox down
    """
    with _sandbox() as (_, services):
        _show(services.down(), as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say what runs, and where.

    Example: keyturn sandbox status --json
    """
    with _sandbox() as (_, services):
        _show(services.status(), as_json=as_json)


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the services and delete all that they hold, and Pulumi's state of the sandbox.

    Nothing outside this clone is touched. Asks first.

    Example: keyturn sandbox reset --yes
    """
    with _sandbox() as (home, services):
        if not yes and as_json:
            raise typer.BadParameter("nobody can be asked with --json: add --yes", param_hint="--json")
        if not yes:
            question = f"Delete {_short(home.directory)} and {_short(home.pulumi_state)}, with every secret in them?"
            typer.confirm(question, abort=True, err=True)
        services.reset()
        _show(services.status(), as_json=as_json)


@contextlib.contextmanager
def _sandbox() -> Iterator[tuple[Home, Supervisor]]:
    """The sandbox around the working directory; what a person must act on becomes a line on stderr and exit code 1."""
    try:
        home = find_home(Path.cwd())
        yield home, supervisor(home, lambda line: typer.echo(line, err=True))
    except (SandboxError, TimeoutError) as error:
        typer.echo(f"sandbox: {error}", err=True)
        raise typer.Exit(1) from None


def _show(listing: Sequence[ServiceStatus], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(entry) for entry in listing], indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 120  # rich takes 80 where it cannot ask, and would cut the endpoints short
    table = Table("service", "state", "pid", "endpoint", "since", box=box.SIMPLE_HEAD)
    colours = {"running": "green", "stopped": "dim", "died": "red", "not answering": "yellow"}
    for entry in listing:
        state = f"[{colours[entry.state]}]{entry.state}[/]"
        table.add_row(entry.service, state, str(entry.pid or ""), entry.endpoint or "", entry.since or "")
    console.print(table)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
