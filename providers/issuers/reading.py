"""Reads descriptions of vendors from YAML, strictly: every fault with its place, of form first, then of sense."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

import yaml
from pydantic import ValidationError

from providers.issuers.description import Description, Part
from providers.issuers.language import DescriptionFault, Fault
from providers.issuers.sense import nonsense


def read(text: str, source: str) -> Description:
    """A description from YAML.

    Parameters:
        text: the YAML.
        source: the file's name, for messages.

    Raises:
        DescriptionFault: with every fault that was found; faults of form hide those of sense.
    """
    description = parsed(Description, text, source)
    if faults := list(nonsense(description)):
        raise DescriptionFault(source, faults)
    return description


_P = TypeVar("_P", bound=Part)


def parsed(part: type[_P], text: str, source: str) -> _P:
    """A part of a known form from YAML. Raises DescriptionFault."""
    try:
        given = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise DescriptionFault(source, [_yaml_fault(error)]) from None
    try:
        return part.model_validate(given)
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
        # A list of which no member is sound counts as empty; what is wrong with its members says it all.
        empty = [fault for fault in faults if fault.text == _EMPTY]
        hollow = [f for f in empty if any(o.path.startswith(f"{f.path}[") for o in faults if o not in empty)]
        raise DescriptionFault(source, [fault for fault in faults if fault not in hollow]) from None


@cache
def shipped(kind: str) -> Description:
    """One of the descriptions that come with Keyturn.

    Raises:
        KeyError: there is none for this kind.
    """
    file = resources.files("providers.issuers") / "descriptions" / f"{kind}.yaml"
    if kind not in shipped_kinds():
        raise KeyError(kind)
    return read(file.read_text(), f"{kind}.yaml")


def shipped_kinds() -> tuple[str, ...]:
    """The kinds of issuer that come with Keyturn as a description, sorted."""
    files = (resources.files("providers.issuers") / "descriptions").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping; YAML's loaders keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return Fault(place, getattr(error, "problem", None) or "is not YAML")


_EMPTY: Final = "needs at least one"


def _fault(details: Any) -> Fault:
    location, context = list(details["loc"]), details.get("ctx", {})
    if details["type"] == "unknown_field":
        location.append(context["field"])
    raised = context.get("error")
    words = {
        "missing": "is needed",
        "model_type": "must be a mapping",
        "dict_type": "must be a mapping",
        "tuple_type": "must be a list",
        "too_short": _EMPTY,
    }
    text = str(raised) if isinstance(raised, ValueError) else words.get(details["type"], details["msg"])
    return Fault(_path(location), text[0].lower() + text[1:] if text.startswith("Input") else text)


def _path(location: list[str | int]) -> str:
    path = ""
    for step in location:
        if step == "[key]":
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path
