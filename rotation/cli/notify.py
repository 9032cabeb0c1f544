"""The commands `keyturn notify test` and `keyturn notify list`: who is told what, and whether it arrives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rotation import fleet
from rotation.cli import show
from rotation.cli.context import Context, File, Json, Stack, UsageFault, open_context
from rotation.notify.telling import Telling
from rotation.notify.templates import composed
from rotation.ports import Notice, Severity

notify = typer.Typer(no_args_is_help=True, help="Channels through which owners are told: list them, try them.")


@notify.command("list")
def list_channels(stack: Stack = None, config: File = None, json: Json = False) -> None:
    """Show the channels, where each gets its credential from, and which owners are told what through them.

    Asks nobody, and shows no address of Apprise's: those hold passwords and tokens.

    Example: keyturn notify list --stack prod
    """
    context = open_context(stack, config)
    about = context.config
    channels = [
        {"name": name, "kind": "apprise" if hasattr(one, "apprise") else "sns", "place": _place(one)}
        for name, one in about.channels.items()
    ]
    routes = {name: [_route(route) for route in owner.notify] for name, owner in about.owners.items()}
    if json:
        owners = [{"name": name, "notify": told} for name, told in routes.items()]
        show.as_json({"channels": channels, "owners": owners})
        return
    for channel in channels:
        show.say(f"{channel['name']}: {channel['kind']}, {channel['place']}")
    for name, to in routes.items():
        told = "; ".join(f"{one['channel']}: {', '.join(one['on'])}, from {one['from']} on" for one in to)
        show.say(f"{name} is told through {told}" if told else f"{name} is told nothing")
    if not channels:
        show.say(f"{context.path.name} declares no channels.", "yellow")


@notify.command("test")
def try_channels(
    stack: Stack = None,
    config: File = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Only the channels of this owner.", show_default=False)
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="NAME", help="Only this channel.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Send a test notice through every channel, and say for each what came of it.

    A channel is tried three times at most, with ten seconds for each. What is sent says that it is a test, and counts
    as nothing that was told.

    Exit codes: 0 every channel took it; 1 one did not, or there is none; 2 usage or configuration.

    Example: keyturn notify test --stack prod --owner support-platform
    """
    context = open_context(stack, config)
    names = _chosen(context, owner, channel)
    telling = context.assembly.notifier
    if not isinstance(telling, Telling) or not names:
        whose = f"{owner} has" if owner else f"{context.path.name} declares"
        show.complain(f"{whose} no channels: nobody is told anything.")
        raise typer.Exit(1)
    clock, environment = context.assembly.clock, context.config.environment

    def send(name: str) -> str | None:
        text = composed(
            "Somebody has asked for this test with `keyturn notify test`.",
            f"the channel {name} works as far as here.",
            "nothing.",
            "do nothing.",
        )
        subject = f"{environment}: a test of the channel {name}"
        return telling.test(
            name, Notice("test", Severity.INFO, clock.now(), environment, "", owner or "everybody", subject, text)
        )

    failed = dict(fleet.each(names, send))
    if json:
        show.as_json([{"channel": name, "told": failed[name] is None, "error": failed[name]} for name in names])
    else:
        for name in names:
            if failed[name] is None:
                show.say(f"✓ {name}: took it", "green")
            else:
                show.complain(f"✗ {name}: {failed[name]}")
    raise typer.Exit(1 if any(failed.values()) else 0)


def _chosen(context: Context, owner: str | None, channel: str | None) -> list[str]:
    about = context.config
    if owner is not None and owner not in about.owners:
        raise UsageFault(f"--owner: there is no owner {owner}; allowed: {', '.join(about.owners) or 'none'}")
    if channel is not None and channel not in about.channels:
        raise UsageFault(f"--channel: there is no channel {channel}; allowed: {', '.join(about.channels) or 'none'}")
    names = [route.channel for route in about.owners[owner].notify] if owner else [*about.channels]
    return [name for name in dict.fromkeys(names) if channel in (None, name)]


def _place(about: Any) -> str:
    """Where a channel leads, or where its address stands."""
    if hasattr(about, "sns"):
        return str(about.sns.arn)
    reference = about.apprise
    if (variable := getattr(reference, "env", None)) is not None:
        return f"its URL in the environment variable {variable}"
    if (file := getattr(reference, "file", None)) is not None:
        return f"its URL in the file {file}"
    return f"its URL in the entry {reference.name} in {reference.store}"


def _route(route: Any) -> dict[str, Any]:
    on = list(route.on) if route.on is not None else ["failed", "hold", "incident", "usage"]
    least = route.least or ("warning" if route.on is None else "info")
    return {"channel": route.channel, "from": least, "on": on}
