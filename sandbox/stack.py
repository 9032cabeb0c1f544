"""Pulumi.sandbox.yaml: rendered from a template once, then only the sandbox's own values in it are rewritten."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from sandbox.home import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATE: Final = Path(__file__).with_name("stack.yaml")
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(?:://[A-Za-z0-9_./:-]+)?")

KeyPath = tuple[str, ...]


def write_stack(target: Path, values: Mapping[KeyPath, str]) -> list[str]:
    """Brings the values of a stack's file up to date, byte by byte as it was otherwise; made from the template if missing.

    Args:
        target: the stack's file.
        values: by path of keys, as in `("config", "keyturn:stores", "vault", "address")`.

    Returns:
        The paths, joined with dots, that the file does not have (any more). It is left without them.

    Raises:
        SandboxError: the file is not YAML.
    """
    before = (target if target.exists() else TEMPLATE).read_text()
    try:
        document = yaml.compose(before, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SandboxError(f"{target} is not YAML and was left as it is: {error}") from None
    found = {path: _scalar(document, path) for path in values}
    after = before
    # From the last to the first, so that earlier positions stay true.
    nodes = [(node, values[path]) for path, node in found.items() if node is not None]
    for node, value in sorted(nodes, key=lambda pair: -pair[0].start_mark.index):
        if node.value != value:
            after = after[: node.start_mark.index] + _written(value) + after[node.end_mark.index :]
    if after != before or not target.exists():
        fresh = target.with_suffix(".yaml.new")
        fresh.write_text(after)
        fresh.replace(target)
    return [".".join(path) for path, node in found.items() if node is None]


def _scalar(node: yaml.Node | None, path: KeyPath) -> yaml.ScalarNode | None:
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node if isinstance(node, yaml.ScalarNode) else None


def _written(value: str) -> str:
    """A YAML scalar on one line: plain where that is safe in block and flow style alike, else double-quoted."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value)
