"""What a dispatcher says to its workers, and how a fleet is cut into that. Pure.

A message names secrets of one store, and nothing else: no value, no policy, no decision. Who gets it looks afresh at what is
really there, so one that comes twice, late, or after the next dispatch costs calls and changes nothing. One that is lost is
made up for by the next dispatch.

    {"keyturn": "runs", "version": 1, "installation": "acme", "environment": "prod",
     "store": "vault", "names": ["support-copilot-chat"], "list": false}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rotation import names

VERSION: Final = 1
SIZE: Final = 10
"""Secrets of a message, as a rule: run one after the other they take a few minutes, well within any host's limit."""
MOST: Final = 100
"""Secrets that a message may name."""
LARGEST: Final = 16_384
"""Characters of a message: less than any queue takes (SQS 256 KiB, Azure's queue 48 KiB before base64)."""
_KIND: Final = "runs"
_MEMBERS: Final = frozenset({"keyturn", "version", "installation", "environment", "store", "names", "list"})


class Mangled(ValueError):  # noqa: N818 - what the message is
    """It is no message of a dispatcher, or of another version. The text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Secrets of one store that are to be run."""

    installation: str
    environment: str
    store: str
    names: tuple[str, ...]
    list: bool
    """Whether the issuer is to be asked whether it still lists what they hand out; else the dispatcher has seen it."""

    def __str__(self) -> str:
        return json.dumps(
            {
                "keyturn": _KIND,
                "version": VERSION,
                "installation": self.installation,
                "environment": self.environment,
                "store": self.store,
                "names": list(self.names),
                "list": self.list,
            }
        )


def is_batch(text: str) -> bool:
    """Whether a text is meant as a message of a dispatcher, be it mangled: then nothing else is to make sense of it."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and "keyturn" in said


def parse(text: str) -> Batch:
    """Reads str(Batch).

    Raises:
        Mangled: anything is missing, too much, of another type, or no name.
    """
    if len(text) > LARGEST:
        raise Mangled(f"has more than {LARGEST} characters")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise Mangled("is not JSON") from None
    if not isinstance(said, dict) or said.get("keyturn") != _KIND:
        raise Mangled("is not of a dispatcher")
    if said.get("version") != VERSION or isinstance(said["version"], bool):
        raise Mangled(f"is not of version {VERSION}: bring dispatcher and workers to one release")
    if said.keys() != _MEMBERS:
        raise Mangled(f"has not exactly the members {', '.join(sorted(_MEMBERS))}")
    named = said["names"]
    if not isinstance(named, list) or not 0 < len(named) <= MOST or len(set(map(str, named))) != len(named):
        raise Mangled(f"does not name 1 to {MOST} different secrets")
    if any(not isinstance(name, str) or names.name_fault(name) for name in named):
        raise Mangled("names what is not the name of a secret")
    labels = [said[member] for member in ("installation", "environment", "store")]
    if any(not isinstance(label, str) or names.label_fault(label) for label in labels):
        raise Mangled("has an installation, environment or store that is not the name of one")
    if not isinstance(said["list"], bool):
        raise Mangled("does not say whether lists are to be asked for")
    installation, environment, store = labels
    return Batch(installation, environment, store, tuple(named), said["list"])


def partition(
    installation: str, environment: str, secrets: Iterable[tuple[str, str, bool]], size: int = SIZE
) -> Iterator[Batch]:
    """Cuts a fleet into messages, each as soon as it is full.

    Parameters:
        secrets: store, name, and whether the issuer is known to list what is handed out; each secret once.
        size: names of a message at most.
    """
    if not 0 < size <= MOST:
        message = f"a message names 1 to {MOST} secrets"
        raise ValueError(message)
    waiting: dict[tuple[str, bool], list[str]] = {}
    for store, name, listed in secrets:
        some = waiting.setdefault((store, not listed), [])
        some.append(name)
        if len(some) == size:
            yield Batch(installation, environment, store, tuple(some), not listed)
            some.clear()
    for (store, ask), some in waiting.items():
        if some:
            yield Batch(installation, environment, store, tuple(some), ask)
