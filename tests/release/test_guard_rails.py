"""What other repositories copy: the hooks and the workflow keep to the schemas of those who read them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rotation.cli.guard import Scanner
from tools import pins

BIN = Path(sys.executable).parent
WORKFLOW = pins.ROOT / "examples" / "github" / "keyturn-guard.yml"
HOOKS = pins.ROOT / ".pre-commit-hooks.yaml"


def ran(*command: str | Path, text: str | None = None) -> int:
    return subprocess.run(list(map(str, command)), input=text, text=True, capture_output=True, check=False).returncode


def checked(path: Path) -> int:
    """By the schema of GitHub's workflows that check-jsonschema brings along; asks no network."""
    return ran(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)


def test_the_workflow_keeps_to_githubs_schema(tmp_path: Path) -> None:
    """And a workflow that does not is refused by the same check."""
    assert checked(WORKFLOW) == 0
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOW.read_text().replace("runs-on: ubuntu-24.04", "runs-on-what: ubuntu-24.04"))
    assert checked(broken) == 1


def test_the_workflows_steps_are_sound_shell() -> None:
    """Parsed, not run; nothing of a pull request's own text is pasted into them, and every action names a version."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["guard"]["steps"]
    for step in steps:
        if "run" in step:
            assert ran("bash", "-n", text=step["run"]) == 0, step
            assert "${{" not in step["run"], step
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v[0-9]+|[0-9a-f]{40})", step["uses"]), step
    assert any("keyturn guard" in step.get("run", "") for step in steps)


def test_the_hooks_keep_to_what_pre_commit_reads(tmp_path: Path) -> None:
    """The scanner of the hook's own environment is the one that is pinned here."""
    assert ran(BIN / "pre-commit", "validate-manifest", HOOKS) == 0
    broken = tmp_path / "hooks.yaml"
    broken.write_text(HOOKS.read_text().replace("entry:", "enter:"))
    assert ran(BIN / "pre-commit", "validate-manifest", broken) == 1
    hooks = {hook["id"]: hook for hook in yaml.safe_load(HOOKS.read_text())}
    version = next(pin.version for pin in pins.read(pins.DEVELOPMENT) if str(pin.name) == Scanner.DETECT_SECRETS.value)
    assert f"{Scanner.DETECT_SECRETS}=={version}" in hooks["keyturn-guard"]["additional_dependencies"]


@pytest.mark.parametrize("scanner", list(Scanner))
def test_every_scanner_is_in_the_guide(scanner: Scanner) -> None:
    """By the name that --scanner takes."""
    assert scanner in (pins.ROOT / "docs" / "guard-rails.md").read_text()
