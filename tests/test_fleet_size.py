"""A thousand idle secrets cost their listing's pages and nothing else: in Secrets Manager's own wire format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fleet import PAGE, Fleet, aws_item, stack
from rotation import sweep
from rotation.assembly import assemble
from rotation.config import load
from sandbox.aws.server import REGION
from tests.world import Trail

SECRETS = 1_000
LOGIN = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


def test_a_thousand_idle_secrets_cost_ten_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service refuses every other call, and would be heard to."""
    fleet = Fleet(aws_item(), SECRETS)
    for name, text in LOGIN.items():
        monkeypatch.setenv(name, text)
    with fleet.serving() as address:
        store = {"kind": "aws-secrets-manager", "region": REGION, "endpointUrl": address}
        one = load(stack(tmp_path, store, 1))
        names = [f"service-{number:06}" for number in range(SECRETS)]
        config = replace(one, policies=tuple(replace(one.policies[0], name=name) for name in names))
        told: list[str] = []
        begun = sweep.begin(assemble(config, LOGIN, Trail()), quiet=lambda one: told.append(one.policy.name))
    assert (len(begun.due), begun.quiet, begun.troubles, begun.missing) == (0, SECRETS, (), ())
    assert told == names
    assert dict(fleet.calls) == {"ListSecrets": SECRETS / PAGE}
