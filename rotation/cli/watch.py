"""A picture on the whole screen of a terminal that is drawn again and again until Ctrl-C."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.live import Live
from rich.text import Text
from typer.core import TyperCommand

from rotation.cli import show
from rotation.cli.context import UsageFault
from rotation.cli.ending import DONE
from rotation.policy import read_duration
from rotation.ports import Clock

_USUAL: Final = "5s"
_LEAST: Final = timedelta(seconds=1)
_TICK: Final = 1.0
"""Seconds between two drawings of the same look: the heading's countdown moves, and a window that was resized is filled."""

_AS_BEFORE: Final = b"\x1b[0m\x1b[?25h\x1b[?1049l"
"""No colour, the cursor, the first screen: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html."""

Watch = Annotated[
    str | None,
    typer.Option(
        "--watch",
        metavar="[=DURATION]",
        help=f"Stay, and look again so often; every {_USUAL} when not said, as in --watch=30s.",
    ),
]


class WatchCommand(TyperCommand):
    """A command whose --watch may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the usual value there."""
        options = args.index("--") if "--" in args else len(args)
        whole = [f"--watch={_USUAL}" if word == "--watch" else word for word in args[:options]]
        return super().parse_args(ctx, [*whole, *args[options:]])


def interval(text: str) -> timedelta:
    """What --watch was given. Seconds need no unit. Raises UsageFault for what is no duration, and where nobody looks on."""
    try:
        every = read_duration(f"{text}s" if text.isdecimal() else text)
    except ValueError as error:
        raise UsageFault(f"--watch: {error}") from None
    if every < _LEAST:
        raise UsageFault(f"--watch: {text} is less than {_LEAST.total_seconds():.0f}s")
    if not show.on_terminal(show.out) or show.out.is_dumb_terminal:
        raise UsageFault(
            "--watch draws on a terminal that it can redraw, and standard output is none; leave it out, "
            "and run `keyturn status --json` as often as you like"
        )
    return every


@dataclass(frozen=True, slots=True)
class Picture:
    """What one look came to."""

    lines: Sequence[Text]
    remarks: Sequence[tuple[str, str]]
    """Sentences, each with its style."""
    summary: str
    code: int
    """The exit code that it means."""


def watch_each(every: timedelta, clock: Clock, title: str, look: Callable[[], Picture]) -> NoReturn:
    """Looks and draws until Ctrl-C, SIGTERM, or an error of the look; then the screen is as it was before.

    The picture stays while the next look is under way, so nothing flickers. Ctrl-C ends the process there and then, with the
    exit code of the last look: looking changes nothing, so no thread has to be waited for.
    """
    last: Picture | None = None
    descriptor = show.out.file.fileno()

    with Live(console=show.out, screen=True, auto_refresh=False, vertical_overflow="crop") as live:

        def leave(number: int, _: object) -> None:
            os.write(descriptor, _AS_BEFORE)  # not by rich: it may be at the middle of writing
            if number == signal.SIGTERM:
                os._exit(128 + number)
            os._exit(last.code if last else DONE)

        before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            live.update(Text(f"{title}: looking …"), refresh=True)
            while True:
                last = look()
                at, until = clock.now(), clock.monotonic() + every.total_seconds()
                while (left := until - clock.monotonic()) > 0:
                    live.update(_screen(title, last, at, left), refresh=True)
                    clock.sleep(min(_TICK, left))
                live.update(_screen(title, last, at, 0), refresh=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _screen(title: str, picture: Picture, at: datetime, left: float) -> Text:
    """One screenful: heading, summary, rows as far as they fit, remarks where there is room left."""
    width, height = show.out.size
    again = f"again in {math.ceil(left)} s" if left else "looking again …"
    head = [
        Text(f"{at:%Y-%m-%d %H:%M:%S}Z, {again}; Ctrl-C ends   {title}", "bold"),
        show.plain(picture.summary),
        Text(),
    ]
    room = height - len(head)
    rows = list(picture.lines)
    if len(rows) > room:
        hidden = len(rows) - room + 1
        rows = [
            *rows[: room - 1],
            Text(
                f"… and {hidden:,} more {'line' if hidden == 1 else 'lines'}: a taller window, a filter or --sort shows them",
                "yellow",
            ),
        ]
    more = [show.plain(line, style) for text, style in picture.remarks for line in show.fold(text, width, "", "    ")]
    room -= len(rows)
    return Text("\n", no_wrap=True, overflow="crop", end="").join([*head, *rows, *more[:room]])
