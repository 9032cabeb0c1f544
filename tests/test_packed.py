"""A configuration that was packed is the one that was checked, without what checks it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from providers.issuers.packed import description
from providers.issuers.reading import shipped, shipped_kinds
from rotation.config import load
from rotation.declared import entry_name
from rotation.packed import decode, encode, pack, unpack

ROOT = Path(__file__).parents[1]
STACKS = ("dev", "staging", "prod")


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_packed_comes_back(stack: str) -> None:
    """Policies equal, sections with the same attributes; the same text each time."""
    config = load(ROOT / f"Pulumi.{stack}.yaml")
    text = pack(config)
    found = unpack(text, Path("/somewhere"))
    assert pack(load(ROOT / f"Pulumi.{stack}.yaml")) == text
    assert (found.installation, found.environment) == (config.installation, config.environment)
    assert found.policies == config.policies
    assert found.root == Path("/somewhere")
    for name, store in config.stores.items():
        there = found.stores[name]
        assert {field: getattr(there, field) for field in type(store).model_fields if field != "auth"} == {
            field: getattr(store, field) for field in type(store).model_fields if field != "auth"
        }
        assert entry_name(there, "prod", "a-b") == entry_name(store, "prod", "a-b")


@pytest.mark.parametrize("kind", shipped_kinds())
def test_every_shipped_description_comes_back(kind: str) -> None:
    """All parts, with what they can do."""
    whole = shipped(kind)
    packed = json.loads(json.dumps(encode(whole)))
    found = description(packed)
    assert (found.title, found.base_url) == (whole.title, whole.base_url)
    for there, here in ((found.auth, whole.auth), (found.verify.auth, whole.verify.auth)):
        texts = [[template.text for _, template in auth.templates()] for auth in (there, here) if auth]
        assert texts[:1] == texts[1:]
    for body in ({"error": {"code": "invalid_api_key"}}, {"object": "list"}, {}):
        for status in (200, 401, 403, 429, 503):
            assert [rule.matches(status, body) for rule in found.verify.rules] == [
                rule.matches(status, body) for rule in whole.verify.rules
            ]
    assert dict(found.capabilities.create) == dict(whole.capabilities.create)


def test_whatever_json_has_no_form_for_keeps_its_own() -> None:
    """Times, tuples, and mappings with any keys."""
    given = {"$": (timedelta(minutes=90), [1, "x", None, True]), "plain": {"a": 1.5}}
    assert decode(json.loads(json.dumps(encode(given)))) == given
    with pytest.raises(TypeError, match="object can not be packed"):
        encode(object())


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 0}', "no json"])
def test_anything_else_is_refused(text: str) -> None:
    """A package of another release, or no package at all."""
    with pytest.raises(ValueError):
        unpack(text, Path())


def test_unpacking_loads_no_checker() -> None:
    """Neither pydantic nor YAML; that is what packing is for."""
    code = (
        "import sys, rotation.packed, rotation.assembly, rotation.sweep, rotation.functions.lambda_host,"
        " providers.issuers.packed, providers.issuers.http, providers.stores.aws;"
        "print([m for m in ('pydantic', 'yaml', 'boto3', 'requests', 'hvac', 'azure') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
