"""A wheel and an sdist hold what they should; installed into an empty environment, each extra alone is enough."""

from __future__ import annotations

import ast
import re
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rotation import extras
from tests.release.conftest import ROOT, Built, Environment

PACKAGES = ("rotation", "providers", "sandbox")


@cache
def project() -> Mapping[str, Any]:
    found: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


# --- what is built -------------------------------------------------------------------------------


def test_the_wheel_holds_our_packages_and_nothing_else(built: Built) -> None:
    """Every module, every vendor's description and samples, the sandbox's stack and the marks of typing; no stray."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    ours = {name for name in names if ".dist-info/" not in name}
    assert ours == {name for name in files(built.sources) if name.partition("/")[0] in PACKAGES}
    assert {f"{package}/py.typed" for package in PACKAGES} <= ours
    assert "sandbox/stack.yaml" in ours
    described = {Path(name).name for name in ours if re.fullmatch(r"providers/issuers/descriptions/[^/]+\.yaml", name)}
    sampled = {Path(name).name for name in ours if name.startswith("providers/issuers/descriptions/samples/")}
    assert described
    assert sampled <= described
    assert {Path(name).name for name in names - ours} >= {"METADATA", "RECORD", "LICENSE", "entry_points.txt"}


def test_the_sdist_is_the_whole_project(built: Built) -> None:
    """Tests and docs as well, so that whoever packages it can run and read them; nothing that is not a source."""
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if not name.endswith("/")}
    sources = files(built.sources)
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("keyturn.egg-info")}
    folders = {parent.as_posix() for name in sources for parent in Path(name).parents}
    assert names - made - folders - {""} <= sources
    of_the_repository = {name for name in sources if name.startswith((".ci/", ".git"))}
    assert sources - names == of_the_repository


def test_the_version_stands_in_one_place(built: Built, installed: Callable[[str], Environment]) -> None:
    """In pyproject.toml: packages are named after it, the command asks what is installed, no module repeats it."""
    version = project()["version"]
    assert f"-{version}-" in built.wheel.name
    assert installed("").keyturn("--version").out == f"keyturn {version}\n"
    assert "Exit codes:" in installed("").keyturn("--help").out
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"^__version__\b", path.read_text(), re.MULTILINE), path


# --- what is installed ---------------------------------------------------------------------------

NOWHERE = "127.0.0.1:1"
"""Where nothing listens."""
STORES: Mapping[str, Mapping[str, Any]] = {
    "aws": {"kind": "aws-secrets-manager", "region": "eu-west-1", "endpointUrl": f"http://{NOWHERE}"},
    "azure": {
        "kind": "azure-key-vault",
        "vaultUrl": f"https://{NOWHERE}",
        "authorityHost": f"https://{NOWHERE}",
    },
    "vault": {"kind": "hashicorp-vault", "address": f"http://{NOWHERE}", "auth": {"method": "token"}},
}
LOGINS = {
    "aws": {"AWS_ACCESS_KEY_ID": "AKIAQQQQQQQQQQQQQQQQ", "AWS_SECRET_ACCESS_KEY": "q" * 40},
    "azure": {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"},
    "vault": {"VAULT_TOKEN": "q" * 20},
}


def stack(folder: Path, store: str) -> Path:
    """A stack file with one secret in one store at which nobody answers."""
    declared = {
        "installation": "acme",
        "environment": "sandbox",
        "stores": {store: STORES[store]},
        "issuers": {"generated": {"kind": "generated"}},
        "owners": {"platform": {"notify": []}},
        "secrets": [
            {"name": "billing-token", "store": store, "issuer": "generated", "owner": "platform", "rotateEvery": "30d"}
        ],
    }
    path = folder / f"Pulumi.{store}.yaml"
    path.write_text(yaml.safe_dump({"config": {f"keyturn:{key}": value for key, value in declared.items()}}))
    return path


def status(environment: Environment, store: str) -> tuple[int, str]:
    """What `keyturn status` comes to; nobody sleeps between tries."""
    clock = environment.home / "clock.json"
    skipping = {"KEYTURN_SANDBOX_CLOCK": str(clock), "KEYTURN_SANDBOX_SLEEP": "skip"}
    file = stack(environment.home, store)
    ran = environment.keyturn("status", "--config", str(file), **LOGINS[store], **skipping)
    assert "Traceback" not in ran.out + ran.err
    return ran.code, ran.out + ran.err


@pytest.mark.parametrize("extra", ["", *STORES])
def test_each_extra_alone_is_enough_for_its_store(installed: Callable[[str], Environment], extra: str) -> None:
    """A check of the stack, and a look at its own store; of another it says what to install, and ends with 2."""
    environment = installed(extra)
    for store in [extra] if extra else STORES:
        checked = environment.keyturn("config", "check", "--config", str(stack(environment.home, store)))
        assert (checked.code, checked.err) == (0, "")
    for store in {extra, "vault", "aws"} - {""}:
        code, told = status(environment, store)
        if store == extra:
            assert code == 1
            assert "unreachable" in told
            assert "not installed" not in told
        else:
            assert code == 2
            assert f"pip install 'keyturn[{store}]'" in told
            assert f"keyturn:stores.{store}" in told


def test_what_an_environment_lacks_is_said_wherever_it_is_needed(installed: Callable[[str], Environment]) -> None:
    """An issuer's library, a trail at AWS: exit code 2 and the extra, before anything is done."""
    environment = installed("vault")
    file = stack(environment.home, "vault")
    whole = yaml.safe_load(file.read_text())
    for changes, where, extra in (
        ({"issuers": {"generated": {"kind": "key-pair"}}}, "keyturn:issuers.generated", "keys"),
        ({"audit": [{"s3": {"bucket": "acme-audit"}}]}, "keyturn:audit", "aws"),
    ):
        config = whole["config"] | {f"keyturn:{key}": value for key, value in changes.items()}
        file.write_text(yaml.safe_dump({"config": config}))
        ran = environment.keyturn("rotate", "billing-token", "--config", str(file), **LOGINS["vault"])
        assert ran.code == 2
        assert f"{where}: " in ran.err
        assert f"pip install 'keyturn[{extra}]'" in ran.err
        assert "Traceback" not in ran.err


# --- what the extras say -------------------------------------------------------------------------


def test_the_extras_are_those_of_the_project() -> None:
    """What tells a person which extra to install agrees with what that extra brings."""
    declared = {
        extra: {canonicalize_name(Requirement(line).name) for line in lines}
        for extra, lines in project()["optional-dependencies"].items()
    }
    everything = {extra for line in project()["optional-dependencies"]["all"] for extra in Requirement(line).extras}
    assert everything == declared.keys() - {"all"}
    told: dict[str, set[str]] = {}
    for module, extra in extras.EXTRAS.items():
        distributions = _distributions(module)
        # Two come along with boto3 and Celery; what is required of opentelemetry are its exporter and its SDK.
        assert distributions & declared[extra] or module in ("botocore", "kombu"), module
        told.setdefault(extra, set()).update(distributions)
    for extra in everything:
        assert declared[extra] <= told.get(extra, set()), f"rotation.extras has no module of {extra}"


def test_whatever_is_imported_is_required() -> None:
    """By the base or by an extra that rotation.extras knows."""
    base = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}
    for package in ("rotation", "providers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in _imports(path):
                top = name.partition(".")[0]
                if top in sys.stdlib_module_names or top in PACKAGES:
                    continue
                known = any(name == module or name.startswith(f"{module}.") for module in extras.EXTRAS)
                # azure.core comes along with both of Azure's, pydantic_core with pydantic, urllib3 with requests.
                known = known or top in ("azure", "pydantic_core", "urllib3") or bool(_distributions(top) & base)
                assert known, f"{path.relative_to(ROOT)} imports {name}: neither a dependency nor in rotation.extras"


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@cache
def _all_distributions() -> Mapping[str, set[str]]:
    """Installed distributions by the modules of their files."""
    found: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for path in distribution.files or ():
            if path.suffix in (".py", ".so"):
                parts = [part.partition(".")[0] for part in path.parts]
                for end in range(1, len(parts) + 1):
                    found.setdefault(".".join(parts[:end]), set()).add(name)
    return found


def _distributions(module: str) -> set[str]:
    return _all_distributions().get(module, set())
