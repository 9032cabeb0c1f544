"""Builds the package of the Lambda function: `python -m hosting.packages.aws --stack prod`.

    build/keyturn-lambda.zip    keyturn.json, our modules, and of others' packages those that the runtime lacks

The same sources, stack file and installed packages give the same bytes. The stack file is read and checked here, and
packed as JSON, so that the function carries neither YAML nor what checks it. Sources only: bytecode would be of one
version of Python.

The handler is `rotation.functions.aws_lambda.handler`. A stack with a store in Azure or in Vault takes their SDKs
along; Azure's has compiled parts, so build it on the function's platform and version of Python.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final

from hosting.packages import archive
from hosting.packages.closure import closure, unused_tellers
from providers import registry
from providers.registry import descriptions
from rotation.clock import SystemClock
from rotation.config import Config, ConfigError, find_stack_file, load
from rotation.functions.lambda_host import PACKED
from rotation.packed import pack

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = Path("build") / "keyturn-lambda.zip"
HANDLER: Final = "rotation.functions.aws_lambda"

RUNTIME: Final = frozenset({"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"})
"""Distributions that Lambda's Python runtimes bring along ("Runtime-included SDK versions", Lambda developer guide):
boto3 and what it needs."""

_STORES: Final = {
    "aws-secrets-manager": "providers.stores.aws",
    "azure-key-vault": "providers.stores.azure",
    "hashicorp-vault": "providers.stores.vault",
}
"""The module of each kind of store. Of the kinds that a stack has none of, neither it nor its SDK is packed."""
_ISSUERS: Final = {
    "aws-iam": "providers.issuers.iam",
    "key-pair": "providers.issuers.keypair",
    "postgresql": "providers.issuers.postgresql",
}
"""The same of issuers in code."""
_ALONG: Final = {"psycopg": frozenset({"psycopg-binary"})}
"""What comes along without being required: there is no libpq at Lambda."""
_ALONE: Final = ("providers.issuers.generated", "providers.issuers.memory", "providers.stores.memory")
_CHECKERS: Final = (
    "rotation.config",
    "rotation.sections",
    "rotation.stackfile",
    "providers.issuers.description",
    "providers.issuers.reading",
    "providers.issuers.sense",
)
"""What checks a stack file and descriptions: done here."""
_COMPILED: Final = (".so", ".pyd")
_SCHEDULES: Final = "cronsim"
_ZONES: Final = "tzdata"


def entries(stack_file: Path, root: Path = ROOT) -> dict[str, bytes]:
    """The package's contents by name.

    Raises:
        ConfigError: the stack file is faulty.
        archive.Unpackable: it needs a file or a package that is not there.
    """
    config = load(stack_file)
    vendors = descriptions(config)
    _try(config)
    found = closure(root, [HANDLER], lambda module: module in _left_out(config, described=bool(vendors)))
    return {
        PACKED: pack(config, vendors).encode(),
        **found.files,
        **_beside(config, stack_file.parent),
        **dict(_installed(_distributions(found.foreign, config))),
    }


def _left_out(config: Config, *, described: bool) -> set[str]:
    kinds = {about.kind for about in config.stores.values()}
    out = {module for kind, module in _STORES.items() if kind not in kinds} | {*_CHECKERS}
    minting = {about.kind for about in config.issuers.values()}
    out |= {module for kind, module in _ISSUERS.items() if kind not in minting}
    generated = bool(minting & {"generated", "passphrase"})
    out |= {module for module in _ALONE if module != _ALONE[0] or not generated} | unused_tellers(config)
    return out if described else out | {f"providers.issuers.{part}" for part in ("http", "wire", "language", "packed")}


class _Anything(Mapping[str, str]):
    """An environment in which every variable is set; nothing here connects to anywhere."""

    def __getitem__(self, name: str) -> str:
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _try(config: Config) -> None:
    """Opens every issuer once, which checks its variables against its description. None is asked anything."""
    for name in config.issuers:
        registry.open_issuer(name, config, _Anything(), SystemClock(), {})


def _beside(config: Config, folder: Path) -> dict[str, bytes]:
    """Files that the stack file refers to: certificates, which are public."""
    found: dict[str, bytes] = {}
    parts: list[tuple[str, object]] = [(f"stores.{name}", about) for name, about in config.stores.items()]
    parts += [(f"issuers.{name}", about) for name, about in config.issuers.items()]
    for part, about in parts:
        name = getattr(about, "ca_bundle", None)
        if name is None or Path(name).is_absolute():
            continue
        path = PurePosixPath(name)
        if ".." in path.parts or not (folder / path).is_file():
            raise archive.Unpackable(f"keyturn:{part}.caBundle: there is no file {name} beside the stack file or below")
        found[str(path)] = (folder / path).read_bytes()
    return found


# --- packages of others ----------------------------------------------------------------------------


def _distributions(imported: Iterable[str], config: Config) -> set[str]:
    """Installed distributions that are needed and that the runtime lacks, those included that they need in turn."""
    scheduled = any(policy.schedule.cron for policy in config.policies)
    zoned = any(policy.schedule.zone != "UTC" for policy in config.policies)
    todo = {_home(name) for name in imported if scheduled or name.partition(".")[0] != _SCHEDULES}
    todo |= {_ZONES} if zoned else set()
    needed: set[str] = set()
    while todo:
        name = todo.pop()
        if name in needed | RUNTIME:
            continue
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            if name == _ZONES:
                raise archive.Unpackable(f"{name} is not installed, and a schedule names a time zone") from None
            continue  # what another platform or version of Python would need
        needed.add(name)
        todo |= _ALONG.get(name, frozenset())
        todo |= {_normal(line) for line in wanted if "extra ==" not in line}
    return needed


def _normal(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _home(imported: str) -> str:
    """The distribution that an imported name comes from."""
    parts = imported.split(".")
    for length in range(len(parts), 0, -1):
        place = "/".join(parts[:length])
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if (home := _homes().get(file)) is not None:
                return home
    raise archive.Unpackable(f"{imported} is imported, and is not installed here")


@cache
def _homes() -> dict[str, str]:
    """The distribution of every installed module, by its file."""
    return {
        str(path): _normal(distribution.metadata["Name"])
        for distribution in metadata.distributions()
        for path in distribution.files or ()
        if path.suffix == ".py"
    }


def _installed(distributions: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The files of distributions: sources and data. Compiled parts only where a package has no other way."""
    for name in sorted(distributions):
        files = [path for path in metadata.files(name) or () if _packs(path)]
        pure = name in _PURE
        for path in files:
            if not (pure and path.suffix in _COMPILED):
                yield path.as_posix(), Path(str(path.locate())).read_bytes()


_PURE: Final = ("charset-normalizer", "pyyaml")
"""Their compiled parts only make them faster, and would bind the package to one platform."""


def _packs(path: PurePosixPath) -> bool:
    folders = path.parts[:-1]
    if (
        path.is_absolute()
        or (not folders and path.suffix not in (".py", *_COMPILED))
        or "bin" in folders[:1]
        or ".." in folders
    ):
        return False
    return not (
        "__pycache__" in folders
        or (folders[0:1] and folders[0].endswith((".dist-info", ".egg-info")))
        or path.suffix in (".pyc", ".pyi", ".pth", ".typed")
    )


def platform_bound(packed: Mapping[str, bytes]) -> list[str]:
    """Top-level names of packages with compiled parts, for whoever has to know what the zip runs on."""
    return sorted({name.partition("/")[0] for name in packed if name.endswith(_COMPILED)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the package; prints where it is and what the function is to call."""
    parser = argparse.ArgumentParser(prog="python -m hosting.packages.aws", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stack", "-s", default="prod", help="whose Pulumi.NAME.yaml the function works by")
    parser.add_argument("--config", "-c", type=Path, metavar="FILE", help="a stack file by path, instead of --stack")
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT, metavar="FILE", help=f"{OUTPUT} as a rule")
    given = parser.parse_args(arguments)
    try:
        packed = entries(find_stack_file(given.stack, given.config, Path.cwd()))
    except (ConfigError, archive.Unpackable) as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - a command
        return 2
    archive.write(given.output, packed)
    bound = platform_bound(packed)
    told = f"; compiled for this platform: {', '.join(bound)}" if bound else ""
    size = f"{given.output.stat().st_size:,} bytes"
    print(f"{given.output}: {len(packed)} files, {size}{told}; handler {HANDLER}.handler")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
