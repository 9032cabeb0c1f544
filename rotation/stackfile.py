"""Reads a `Pulumi.<stack>.yaml` into plain values, and remembers in which line each stands."""

from __future__ import annotations

import re
from typing import Final

import yaml

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,18}(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


class StackFile:
    """The `config` of a stack file. Words such as `no` or `on` are text, as in go-yaml v3, which Pulumi uses.

    Parameters:
        text: the file.
        namespace: of keys that have none, as in `keyturn:`.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """

    def __init__(self, text: str, namespace: str) -> None:
        self.faults: list[tuple[str, str, str]] = []
        """Path, message and what is allowed."""
        self.values: Final[dict[str, object]] = {}
        """By full key, those of other namespaces included."""
        self._namespace = namespace
        self._lines: dict[str, int] = {}
        self._open: list[yaml.Node] = []
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        whole = self._value(root, "") if root else {}
        config = (whole.get("config") if isinstance(whole, dict) else whole) or {}
        if isinstance(config, dict):
            self.values.update(config)
        else:
            self.faults.append(("config", "must be a mapping", f"{{{namespace}KEY: VALUE, …}}"))

    def line(self, path: str) -> int:
        """Where a path stands, or what of it exists; 0 when nothing does."""
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path, 0)

    def _value(self, node: yaml.Node, path: str) -> object:
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if any(node is above for above in self._open):
            self.faults.append((path, "contains itself", ""))
            return None
        self._open.append(node)
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._open.pop()

    def _list(self, node: yaml.Node, path: str) -> list[object]:
        values = []
        for i, below in enumerate(node.value):
            self._lines[f"{path}[{i}]"] = below.start_mark.line + 1
            values.append(self._value(below, f"{path}[{i}]"))
        return values

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        merged: dict[str, object] = {}
        for key, below in node.value:
            if _merges(key):
                for part in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                    value = self._value(part, path)
                    merged = (value if isinstance(value, dict) else {}) | merged
        own: dict[str, object] = {}
        for key, below in node.value:
            if _merges(key):
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if path == "config" and ":" not in name:
                name = self._namespace + name
            inner = name if path in ("", "config") else f"{path}.{name}"
            if name in own:
                first, again = self._lines[inner], key.start_mark.line + 1
                self.faults.append((inner, f"is given twice, in lines {first} and {again}", "each key once"))
                continue
            self._lines[inner] = key.start_mark.line + 1
            own[name] = self._value(below, inner)
        return merged | own


def _merges(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
