"""An issuer's admin credential from a person: the options --admin-from and --admin-fd, for when its own place is away.

What is given lives in this process's memory, as a SecretValue that logs mask, and goes to the issuer alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import typer

from rotation.cli.context import Context, UsageFault
from rotation.declared import Config
from rotation.model import SecretValue
from rotation.ports import Record

AdminFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--admin-from",
        metavar="ISSUER",
        help="Ask for this issuer's admin credential, without echo, instead of reading it where the stack file says.",
        show_default=False,
    ),
]
AdminFd = Annotated[
    int | None,
    typer.Option(
        "--admin-fd",
        metavar="N",
        min=0,
        help="Read what --admin-from would ask for from this file descriptor, one line each.",
        show_default=False,
    ),
]

_MOST: Final = 65_536
"""Characters of all lines of a descriptor. More is a file that was given by mistake."""


def given(issuers: Sequence[str] | None, descriptor: int | None) -> Callable[[Config], Mapping[str, SecretValue]]:
    """How open_context() gets the admin credentials that come from a person.

    Parameters:
        issuers: what --admin-from named.
        descriptor: what --admin-fd gave.

    The function that is returned raises UsageFault: an issuer that is not declared or has no admin credential,
    nobody to ask, a descriptor that can not be read or has another number of lines.
    """

    def ask(config: Config) -> Mapping[str, SecretValue]:
        names = list(dict.fromkeys(issuers or ()))
        for name in names:
            if getattr(config.issuers.get(name), "admin", None) is None:
                known = [n for n, about in config.issuers.items() if getattr(about, "admin", None) is not None]
                told = "is not declared" if name not in config.issuers else "has no admin credential"
                raise UsageFault(f"--admin-from {name}: the issuer {told}; allowed: {', '.join(known) or 'none'}")
        if descriptor is not None and not names:
            raise UsageFault("--admin-fd has no effect without --admin-from")
        texts = ask_for([f"admin credential of {name}" for name in names], "--admin-fd", descriptor)
        return {name: SecretValue(text) for name, text in zip(names, texts, strict=True)}

    return ask


def ask_for(what: Sequence[str], option: str, descriptor: int | None, *, blank: bool = False) -> list[str]:
    """One text for each of these: from a person, without echo, or a line of a descriptor.

    Parameters:
        what: what a person is asked for.
        option: the one that gives the descriptor, for messages.
        blank: whether one may be left out.

    Raises:
        UsageFault: nobody is there to ask; the descriptor can not be read, or has another number of lines.
    """
    if not what:
        return []
    if descriptor is not None:
        return _lines(what, option, descriptor, blank=blank)
    if not sys.stdin.isatty():
        raise UsageFault(f"nobody is there to type the {what[0]}; give {option}")
    default = "" if blank else None
    return [typer.prompt(f"{text}", default, hide_input=True, err=True, show_default=False).strip() for text in what]


def _lines(what: Sequence[str], option: str, descriptor: int, *, blank: bool) -> list[str]:
    try:
        with os.fdopen(descriptor, encoding="utf-8") as pipe:
            text = pipe.read(_MOST + 1)
    except OSError as error:
        raise UsageFault(f"{option} {descriptor}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageFault(f"{option} {descriptor}: what it gives is not UTF-8 text") from None  # the error quotes it
    lines = [line.strip() for line in text.splitlines()]
    if len(text) > _MOST or len(lines) != len(what) or not (blank or all(lines)):
        raise UsageFault(f"{option} {descriptor}: expected {len(what)} lines: {', '.join(what)}")
    return lines


def recorded(context: Context, issuers: Sequence[str] | None) -> None:
    """Leaves in the audit trail that what follows is done with admin credentials that a person has given.

    Raises:
        Trouble: the record can not be kept; the caller must then do nothing.
    """
    for name in dict.fromkeys(issuers or ()):
        told = "break-glass: its admin credential comes from a person, not from where the stack file says"
        context.trail.auditor.write(Record(context.assembly.clock.now(), "admin.given", name, told))
