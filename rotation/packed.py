"""A checked configuration as JSON, for functions: loading it takes neither YAML nor what checks it.

Whoever builds a function's package reads and checks the stack file (`rotation.config`) and packs the result; the
function unpacks it. Sections come back as records with the same attributes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

from rotation import policy as policies
from rotation.declared import Config

FORMAT: Final = 1
_KIND: Final = "$"
"""The key that names the kind of a part. No field is called so, and a mapping with such a key is wrapped."""


class Record(SimpleNamespace):
    """A part with fixed fields, as it was checked."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())


Kinds = Mapping[str, Callable[[dict[str, Any]], Any]]
"""How to make parts of some kinds from their fields."""


def encode(value: Any) -> Any:
    """A tree of models, dataclasses, mappings, lists and scalars as JSON, each part with the name of its kind.

    Raises:
        TypeError: something in it is none of these.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return {_KIND: type(value).__name__, "value": value.value}
        case str():
            return value
        case timedelta():
            return {_KIND: "timedelta", "seconds": value.total_seconds()}
        case tuple():
            return {_KIND: "tuple", "items": [encode(item) for item in value]}
        case list():
            return [encode(item) for item in value]
        case Mapping():
            plain = {str(key): encode(item) for key, item in value.items()}
            return {_KIND: "mapping", "items": [*map(list, plain.items())]} if _KIND in plain else plain
    if (names := _names(value)) is None:
        raise TypeError(f"{type(value).__name__} can not be packed")
    return {_KIND: type(value).__name__} | {name: encode(getattr(value, name)) for name in names}


def _names(value: Any) -> list[str] | None:
    """The fields of a model or dataclass; what a dataclass has computed from others is left out."""
    if is_dataclass(value):
        return [field.name for field in fields(value) if not callable(getattr(value, field.name))]
    return list(getattr(type(value), "model_fields", ())) or None


def decode(value: Any, kinds: Kinds = MappingProxyType({})) -> Any:
    """What encode() was given; parts of kinds that are not named come as records."""
    if isinstance(value, list):
        return [decode(item, kinds) for item in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: decode(item, kinds) for key, item in value.items()}
    kind, parts = value[_KIND], {key: decode(item, kinds) for key, item in value.items() if key != _KIND}
    match kind:
        case "timedelta":
            return timedelta(seconds=parts["seconds"])
        case "tuple":
            return tuple(parts["items"])
        case "mapping":
            return dict(parts["items"])
    return kinds[kind](parts) if kind in kinds else Record(**parts)


def pack(config: Config, descriptions: Mapping[str, object] = MappingProxyType({})) -> str:
    """A configuration as one text, the same for the same configuration. Holds no value, as the file holds none.

    Parameters:
        descriptions: checked descriptions of the vendors that it names, by kind.
    """
    whole = {
        "format": FORMAT,
        "installation": config.installation,
        "environment": config.environment,
        "stores": encode(config.stores),
        "issuers": encode(config.issuers),
        "channels": encode(config.channels),
        "notices": encode(config.notices),
        "owners": encode(config.owners),
        "audit": encode(config.audit),
        "on_rotate": encode(config.on_rotate),
        "fingerprints": encode(config.fingerprints),
        "policies": [policies.written(policy) for policy in config.policies],
        "descriptions": encode(descriptions),
    }
    return json.dumps(whole, sort_keys=True, separators=(",", ":")) + "\n"


def unpack(text: str, root: Path) -> Config:
    """The configuration that was packed.

    Parameters:
        root: where its relative paths start.

    Raises:
        ValueError: the text is not what pack() writes.
    """
    whole = json.loads(text)
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ValueError(f"is not a packed configuration of format {FORMAT}; build the package again")
    return Config(
        installation=whole["installation"],
        environment=whole["environment"],
        stores=decode(whole["stores"]),
        issuers=decode(whole["issuers"]),
        channels=decode(whole["channels"]),
        notices=decode(whole["notices"]),
        owners=decode(whole["owners"]),
        audit=decode(whole["audit"]),
        on_rotate=decode(whole["on_rotate"]),
        fingerprints=decode(whole["fingerprints"]),
        policies=tuple(policies.read(strings) for strings in whole["policies"]),
        root=root,
        descriptions=whole["descriptions"],
    )
