"""Pieces of stack files, as pages show them: put into a whole one, so that the real loader can judge each.

What a piece leaves out comes from the sandbox's template; where one entry of a list is shown, the rest of its fields, too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rotation.config import ConfigError, load
from sandbox.stack import TEMPLATE
from tests.docs.pages import Block

NAMESPACE = "keyturn:"
_FIRST = "support-copilot-webhook"
"""The secret of the template whose fields stand in for those that a piece leaves out."""


class Plain(yaml.SafeLoader):
    """Reads words such as `on` as text, as Pulumi does."""


Plain.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:bool"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Plain.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), ["t", "f"])


def whole(piece: object, taken_as: str | None) -> dict[str, Any]:
    """A stack file that has this piece in it.

    Parameters:
        taken_as: `store`, `issuer`, `secret` or `owner` when the piece is one of these, by itself; otherwise it shows.

    Raises:
        ValueError: it is no piece of a stack file; the text says what is.
    """
    base = yaml.safe_load(TEMPLATE.read_text())["config"]
    part: dict[str, Any]
    if isinstance(piece, dict) and [*piece] == ["config"]:
        part = piece["config"]
    elif isinstance(piece, dict) and piece and all(str(key).startswith(NAMESPACE) for key in piece):
        part = piece
    elif isinstance(piece, list) and piece and all(isinstance(one, dict) and "name" in one for one in piece):
        part = {f"{NAMESPACE}secrets": piece}
    elif isinstance(piece, dict) and taken_as == "secret":
        part = {f"{NAMESPACE}secrets": [piece]}
    elif isinstance(piece, dict) and taken_as in ("store", "issuer", "owner"):
        part = {f"{NAMESPACE}{taken_as}s": {"shown": piece}}
    else:
        raise ValueError(
            "begins with `config:`, with keys `keyturn:…`, or with `- name:`; `<!-- taken as: store -->` (issuer, owner, "
            "secret) says what a piece is; `<!-- not run: REASON -->` why it is not of a stack file"
        )
    if f"{NAMESPACE}installation" in part:
        return {"config": part}  # as a whole, or it would not be one that somebody may copy
    return {"config": _joined(base, part)}


def _joined(base: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The template's configuration with what a piece declares in place of the same, or beside it."""
    made = copy.deepcopy(base)
    for one in made[f"{NAMESPACE}secrets"]:
        one.pop("pairedWith", None)  # a piece may be about what pairs can not have
    usual = next(one for one in base[f"{NAMESPACE}secrets"] if one["name"] == _FIRST)
    for key, value in part.items():
        if key == f"{NAMESPACE}secrets":
            made[key] = [_filled(one, usual, made) for one in value]
            missing = {one.get("pairedWith") for one in made[key]} - {one["name"] for one in made[key]} - {None}
            made[key] += [
                usual | {"name": name, "pairedWith": one["name"]} for name in missing for one in made[key][:1]
            ]
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = made[key] | value
        else:
            made[key] = value
    named = [one.get("owner") for one in made[f"{NAMESPACE}secrets"]]
    for owner in {*named, (made.get(f"{NAMESPACE}webhook") or {}).get("owner")} - {None}:
        made[f"{NAMESPACE}owners"].setdefault(owner, {"notify": []})
    return made


def _filled(secret: Mapping[str, Any], usual: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: usual[name] for name in ("store", "issuer", "owner", "rotateEvery")}
    if {"every", "cron"} & (secret.get("schedule") or {}).keys():
        del fields["rotateEvery"]
    return {"name": "shown-piece", **fields, **secret}


def faults(block: Block, folder: Path) -> list[str]:
    """What the configuration's loader has against a piece, each with the line of the block.

    Parameters:
        folder: for the whole file; has the files that it refers to.
    """
    try:
        piece = yaml.load(block.text, Loader=Plain)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        return [f"{block.at(line)}: is not YAML: {error.problem}"]
    try:
        made = whole(piece, block.taken_as)
    except ValueError as fault:
        return [f"{block.place}: {fault}"]
    file = folder / "Pulumi.shown.yaml"
    file.write_text(yaml.safe_dump(made, sort_keys=False))
    try:
        load(file)
    except ConfigError as error:
        return [f"{block.place}: {fault}" for fault in error.faults]
    return []
