"""Who may import whom. A newcomer's map, held by a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = (
    "model",
    "errors",
    "ports",
    "journal",
    "situation",
    "actions",
    "rules",
    "decide",
    "outside",
    "looking",
    "values",
    "run",
    "effects",
    "engine",
    "orphans",
    "policy",
    "names",
    "clock",
    "form",
    "telemetry",
    "schedule",
)
"""The engine's core: the standard library and itself, nothing else."""
BESIDE = {"schedule": {"cronsim"}}
"""One exception: what a cron expression means, on days without its hour as well, is a library's work. It has no
dependencies of its own, and is loaded where a secret declares cron; tests/test_schedule.py sees to that."""


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


INSIDE = sorted(
    path
    for name in CORE
    for path in ((ROOT / "rotation" / name).rglob("*.py") if name == "rules" else (ROOT / "rotation" / f"{name}.py",))
)


@pytest.mark.parametrize("path", INSIDE, ids=lambda p: p.stem)
def test_the_core_imports_the_standard_library_and_itself(path: Path) -> None:
    """No SDK, no configuration, no host."""
    module = path.stem
    for name in imports(path):
        first = name.split(".")[0]
        if first == "rotation":
            assert name.split(".")[1] in CORE, f"{module} imports {name}"
        else:
            allowed = first in sys.stdlib_module_names or first in BESIDE.get(module, ())
            assert allowed, f"{module} imports {name}"


PROVIDERS = sorted(p for folder in ("stores", "issuers") for p in (ROOT / "providers" / folder).glob("[a-z]*.py"))
TOGETHER = {"description", "reading", "language", "sense", "wire", "packed", "memory", "vault_policies", "aws_rights"}
"""The HTTP issuer's schema, who reads it and what that makes sense of, its small languages and its connections, the two halves of the reference world, and how two clouds write down rights."""


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda p: f"{p.parent.name}.{p.stem}")
def test_providers_never_import_each_other(path: Path) -> None:
    """Each can be installed, read and tested alone."""
    for name in imports(path):
        if name.startswith("providers."):
            assert name.split(".")[2] in TOGETHER, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda p: f"{p.parent.name}.{p.stem}")
def test_a_provider_module_loads_no_sdk(path: Path) -> None:
    """SDKs are imported at first use: a function pays only for what it calls."""
    heavy = ("boto3", "botocore", "azure", "cryptography", "hvac", "psycopg", "requests", "pulumi")
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FREE = {"rotation/clock.py"}
"""Where the machine's time may be asked for."""


@pytest.mark.parametrize("path", sorted((ROOT / "rotation").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_time_is_injected(path: Path) -> None:
    """No datetime.now(), time.sleep() or random outside the clock."""
    if str(path.relative_to(ROOT)) in FREE:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in {"datetime.now", "datetime.utcnow", "time.sleep", "time.time"}, f"{path}: {called}"
        if isinstance(node, ast.Import):
            assert all(alias.name != "random" for alias in node.names), path


CONSUMER = sorted((ROOT / "rotation" / "consumer").glob("*.py"))
SHARED = {"rotation.model", "rotation.clock"}
"""What applications get besides: values that do not show, and the time."""
SDKS = {"boto3", "botocore", "azure", "hvac"}


@pytest.mark.parametrize("path", CONSUMER, ids=lambda p: p.stem)
def test_the_consumer_imports_the_standard_library_and_an_sdk_when_it_reads(path: Path) -> None:
    """Nothing of the engine; SDKs in one module, inside of what calls them."""
    for name in imports(path, top_level_only=True):
        first = name.split(".")[0]
        assert first in sys.stdlib_module_names or first == "rotation", f"{path.name} imports {name}"
    for name in imports(path):
        first = name.split(".")[0]
        if first == "rotation":
            ours = name.startswith("rotation.consumer") or ".".join(name.split(".")[:2]) in SHARED
            assert ours, f"{path.name} imports {name}"
        else:
            allowed = SDKS if path.stem == "sources" else set()
            assert first in sys.stdlib_module_names or first in allowed, f"{path.name} imports {name}"


def test_the_consumer_loads_nothing_of_the_engine() -> None:
    """As an application finds it that has installed no SDK and no library of Keyturn's: found by its loaded modules."""
    code = (
        "import sys; before = set(sys.modules); import rotation.consumer; "
        "print(*sorted(name for name in set(sys.modules) - before"
        " if name.split('.')[0] not in sys.stdlib_module_names and not name.startswith('rotation.consumer')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"rotation"} | SHARED
