"""Which of our modules a program needs, and what of others it imports: read from the sources, lazy imports included."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rotation.declared import Config

OURS: Final = ("rotation", "providers")
"""What may be packed. The sandbox never is: it is no part of a real environment."""


@dataclass(frozen=True, slots=True)
class Closure:
    """A program's modules."""

    files: dict[str, bytes]
    """Sources by path, packages' own `__init__.py` included."""
    foreign: frozenset[str]
    """Names as they are imported, of what is neither ours nor the standard library's: `boto3`, `azure.identity`."""


def closure(root: Path, start: Iterable[str], leaves_out: Callable[[str], bool] = lambda _: False) -> Closure:
    """Everything that these modules import, and what that imports, to the end.

    Parameters:
        root: the folder of the packages OURS.
        start: modules by name, or files by path from the root; of a file the imports are followed, and it is not packed.
        leaves_out: of a module's name: it is never loaded in this program, so it is not followed.
    """
    todo, seen, foreign = [*start], set[str](), set[str]()
    files: dict[str, bytes] = {}
    while todo:
        name = todo.pop()
        if name in seen or leaves_out(name):
            continue
        seen.add(name)
        path = root / name if name.endswith(".py") else _file(root, name)
        if path is None:
            raise ValueError(f"there is no module {name}")
        source = path.read_bytes()
        if not name.endswith(".py"):
            files[path.relative_to(root).as_posix()] = source
            todo += [name.rpartition(".")[0]] if "." in name else []
        for imported in _imports(ast.parse(source)):
            if (first := imported.partition(".")[0]) in OURS:
                todo.append(_module(root, imported))
            elif first not in sys.stdlib_module_names and first != "sandbox":
                foreign.add(imported)
    return Closure(files, frozenset(foreign))


def unused_tellers(config: Config) -> set[str]:
    """What tells through kinds of channels that a stack does not declare, and reaches consumers that it has not."""
    channels = config.channels.values()
    used = {
        "rotation.notify.by_apprise": any(hasattr(about, "apprise") for about in channels),
        "rotation.notify.by_sns": any(hasattr(about, "sns") for about in channels),
        "rotation.notify.consumers": bool(config.on_rotate),
    }
    return {module for module, is_used in used.items() if not is_used}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules, or of things in them; not those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def _file(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _module(root: Path, imported: str) -> str:
    """The module of an imported name, which may be a thing in it."""
    return imported if _file(root, imported) else imported.rpartition(".")[0]
