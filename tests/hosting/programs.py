"""Runs a hosting program against the mocks, and reads the graph that comes of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hosting.packages import ROOT, NotToBeHad, python

CANARY = "kt-canary-7f3a91c5d2e8"
"""Stands in the environment of each program, as a person's login would; it may be in nothing that is registered."""
LOGINS = (
    "AWS_SECRET_ACCESS_KEY",
    "ARM_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "KEYTURN_VAULT_ROLE_ID",
    "KEYTURN_VAULT_SECRET_ID",
    "OPENAI_ADMIN_KEY",
    "VAULT_TOKEN",
)


@dataclass(frozen=True)
class Graph:
    """What a program registered, and what it told."""

    resources: list[dict[str, Any]]
    outputs: dict[str, Any]
    told: list[str]
    code: int

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Resources whose type ends with this."""
        return [found for found in self.resources if found["type"].endswith(kind)]

    def inputs(self, kind: str) -> list[dict[str, Any]]:
        return [found["inputs"] for found in self.all(kind)]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The inputs of the one resource of a type whose name ends so."""
        (found,) = [each["inputs"] for each in self.all(kind) if each["name"].endswith(name)]
        return dict(found)

    @property
    def text(self) -> str:
        return json.dumps([self.resources, self.outputs, self.told])


def run(
    program: str,
    config: Mapping[str, Any],
    calls: Mapping[str, Any],
    *,
    stack: str = "prod",
    secret: tuple[str, ...] = (),
) -> Graph:
    """The graph of a program of `hosting/`, as far as it came.

    Parameters:
        config: settings without the project's name; with a colon in it, whole keys.
        calls: answers to the program's questions, by token.
        secret: settings that are encrypted.
    """
    start = f"keyturn-{program}:"
    asked = {
        "stack": stack,
        "config": {key if ":" in key else start + key: value for key, value in config.items()},
        "secret": [start + name for name in secret],
        "calls": calls,
    }
    try:
        interpreter = python()
    except NotToBeHad as why:
        pytest.skip(f"the provider packages of hosting/ can not be installed here: {why}")
    env = {
        "PATH": os.defpath,
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [interpreter, Path(__file__).with_name("graph.py"), ROOT / "hosting" / program],
        input=json.dumps(asked),
        env=env | dict.fromkeys(LOGINS, CANARY),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return Graph(**json.loads(done.stdout))


def leaves(tree: Any) -> Iterator[Any]:
    """Every value in a tree, those of JSON texts included."""
    if isinstance(tree, str) and tree.startswith(("{", "[")):
        try:
            tree = json.loads(tree)
        except ValueError:
            yield tree
            return
    if isinstance(tree, dict):
        for below in tree.values():
            yield from leaves(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from leaves(below)
    else:
        yield tree
