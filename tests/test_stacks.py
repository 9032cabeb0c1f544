"""The example stacks: each can be loaded, and they differ only where environments should."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rotation.config import load

ROOT = Path(__file__).parents[1]
STACKS = ("dev", "staging", "prod")

MAY_DIFFER = {
    "keyturn:environment",
    "keyturn:stores.aws.roleArn",
    "keyturn:stores.azure.vaultUrl",
    "keyturn:stores.vault.address",
    "keyturn:issuers.openai.project",
    "keyturn:secrets[support-copilot-chat].rotateEvery",
    "keyturn:secrets[support-copilot-batch].rotateEvery",
    "keyturn:defaults.schedule.timeZone",
    "keyturn:defaults.schedule.window",
    "keyturn:defaults.schedule.blackouts[0].from",
    "keyturn:defaults.schedule.blackouts[0].to",
    "keyturn:defaults.schedule.blackouts[0].reason",
    "keyturn:defaults.schedule.jitter",
}
"""Where an environment is, and when keys rotate there. All else that differs would be tested for the first time in prod."""


def config_of(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())["config"]
    return config


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list, by its path; members of lists by their names where they have such."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            name = below.get("name", index) if isinstance(below, dict) else index
            yield from leaves(below, f"{path}[{name}]")
    else:
        yield path, value


@pytest.mark.parametrize("stack", STACKS)
def test_each_stack_can_be_loaded(stack: str) -> None:
    """Nothing in it is refused, and it is of the environment that its name says."""
    config = load(ROOT / f"Pulumi.{stack}.yaml")
    assert config.environment == stack
    assert {policy.environment for policy in config.policies} == {stack}


def test_the_stacks_differ_only_where_they_should() -> None:
    """What differs is the declared list, no more and no less: a path that no longer differs is taken off it."""
    stacks = [dict(leaves(config_of(ROOT / f"Pulumi.{stack}.yaml"))) for stack in STACKS]
    paths = {path for stack in stacks for path in stack}
    assert {path for path in paths if len({str(stack.get(path)) for stack in stacks}) > 1} == MAY_DIFFER


def test_each_environment_has_places_of_its_own() -> None:
    """No two stacks share a vault, an account or a project: applying the wrong one reaches nothing of the other."""
    stacks = [dict(leaves(config_of(ROOT / f"Pulumi.{stack}.yaml"))) for stack in STACKS]
    for path in MAY_DIFFER:
        if not path.endswith("rotateEvery") and ".schedule." not in path:
            assert len({stack[path] for stack in stacks}) == len(STACKS), path


def test_staging_rotates_as_production_does() -> None:
    """A schedule that fails is found in staging."""
    staging, prod = (load(ROOT / f"Pulumi.{stack}.yaml").policies for stack in ("staging", "prod"))
    assert [policy.rotate_every for policy in staging] == [policy.rotate_every for policy in prod]
    assert [policy.schedule for policy in staging] == [policy.schedule for policy in prod]


def test_the_sandbox_has_the_secrets_of_production() -> None:
    """What the demo shows is what the examples declare: the same secrets, in the same kinds of stores, on the same schedule."""
    sandbox, prod = (config_of(path) for path in (ROOT / "sandbox" / "stack.yaml", ROOT / "Pulumi.prod.yaml"))
    assert sandbox["keyturn:secrets"] == prod["keyturn:secrets"]
    kinds = [{name: store["kind"] for name, store in config["keyturn:stores"].items()} for config in (sandbox, prod)]
    assert kinds[0] == kinds[1]
