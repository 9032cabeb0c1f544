"""Puts a fault into the code of this process: a few words of one function, or the whole of it."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from functools import cached_property
from types import ModuleType
from typing import Any

from rotation import decide
from rotation.effects import Effects

_changed: dict[Any, str] = {}
"""The source of functions that were changed before."""


class StaleError(Exception):
    """The fault does not fit the code any more."""


def edit(owner: ModuleType | type, name: str, old: str, new: str) -> None:
    """Replaces words in a function's source, exactly once.

    Raises:
        StaleError: there is no such function, or the words are not in it once.
    """
    if name not in vars(owner):
        raise StaleError(f"{owner.__name__} has no {name}")
    before: Any = vars(owner)[name]
    bare = _bare(before)
    source = _changed.get(bare) or textwrap.dedent(inspect.getsource(bare))
    if source.count(old) != 1:
        raise StaleError(f"{owner.__name__}.{name} has {old!r} {source.count(old)} times, not once")
    source = source.replace(old, new)
    module = owner if isinstance(owner, ModuleType) else sys.modules[owner.__module__]
    code = compile(source, f"<{name}, changed>", "exec", flags=__future__.annotations.compiler_flag)
    made: dict[str, Any] = {}
    exec(code, vars(module), made)  # noqa: S102 - the source is ours, and so is the change
    after = made[name]
    _changed[_bare(after)] = source
    swap(owner, name, after)


def _bare(decorated: Any) -> Any:
    """The function under its decorator."""
    match decorated:
        case cached_property():
            return decorated.func
        case property():
            return decorated.fget
    return getattr(decorated, "__func__", decorated)


def swap(owner: ModuleType | type, name: str, after: object) -> None:
    """Replaces a function or a constant; a function wherever the engine looks it up.

    Raises:
        StaleError: there is none of that name.
    """
    if name not in vars(owner):
        raise StaleError(f"{owner.__name__} has no {name}")
    before = vars(owner)[name]
    setattr(owner, name, after)
    if isinstance(after, cached_property) and isinstance(owner, type):
        after.__set_name__(owner, name)
    for table in ("RULES", "DESTROY", "STEP", "NOTED_FIRST"):
        rules: Any = getattr(decide, table)
        setattr(decide, table, type(rules)(after if rule is before else rule for rule in rules))
    for module in (decide, *_rules()) if inspect.isfunction(before) else ():
        for alias, there in list(vars(module).items()):
            if there is before:
                setattr(module, alias, after)
    handlers: Any = Effects.handlers
    for action, handler in list(handlers.items()):
        if handler is before:
            handlers[action] = after


def _rules() -> list[ModuleType]:
    """The modules of the rules, which import each other's functions by name."""
    return [module for name, module in sys.modules.items() if name.startswith("rotation.rules.")]
