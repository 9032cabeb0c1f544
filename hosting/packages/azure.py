"""Builds the package of the Azure Functions app: `python -m hosting.packages.azure --stack prod`.

    build/keyturn-functions.zip    host.json, function_app.py, requirements.txt, Pulumi.<stack>.yaml, our modules

The same sources and the same stack file give the same bytes. The packages that requirements.txt names are installed by
the remote build when the app is deployed; it names what this stack needs and no other cloud's SDK.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from hosting.packages import archive
from hosting.packages.closure import Closure, closure, unused_tellers
from rotation.config import Config, ConfigError, find_stack_file, load

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = Path("build") / "keyturn-functions.zip"

_APP: Final = ROOT / "hosting" / "functions"
_PROGRAMMING_MODEL: Final = "azure-functions>=1.21,<3"
"""Not pinned: its 1.x is for Python up to 3.12, its 2.x for later ones."""

_STORES: Final = {
    "aws-secrets-manager": "providers.stores.aws",
    "azure-key-vault": "providers.stores.azure",
    "hashicorp-vault": "providers.stores.vault",
}
"""The modules of each kind; others whose name goes on after an underscore belong to it."""
_ISSUERS: Final = {
    "aws-iam": "providers.issuers.iam",
    "key-pair": "providers.issuers.keypair",
    "postgresql": "providers.issuers.postgresql",
}
"""The same of issuers in code."""
_HTTP: Final = tuple(
    f"providers.issuers.{part}" for part in ("http", "wire", "reading", "description", "sense", "language")
)
_NEVER: Final = ("providers.stores.memory", "providers.issuers.memory", "providers.issuers.packed")

_DISTRIBUTIONS: Final = {
    "apprise": "apprise",
    "azure.core": "azure-identity",
    "azure.identity": "azure-identity",
    "azure.keyvault": "azure-keyvault-secrets",
    "boto3": "boto3",
    "botocore": "boto3",
    "cronsim": "cronsim",
    "cryptography": "cryptography",
    "hvac": "hvac",
    "jmespath": "jmespath",
    "psycopg": "psycopg[binary]",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic",
    "requests": "requests",
    "urllib3": "requests",
    "yaml": "PyYAML",
}
"""Where what is imported comes from."""
_PIN: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w, -]+\])?==(?P<version>[^\s;]+)")
"""A line of requirements.txt, of which name and version are taken; what that needs in turn is the remote build's business."""
_ALONG: Final = {"cronsim": ("tzdata",)}
"""What comes along without an import: the time zones of schedules."""


def entries(stack_file: Path, root: Path = ROOT) -> dict[str, bytes]:
    """The package's contents by name.

    Raises:
        ConfigError: the stack file is faulty.
        archive.Unpackable: it refers to a file that a package can not hold.
    """
    config = load(stack_file)
    modules = _modules(config, root)
    packed = {
        "function_app.py": (_APP / "function_app.py").read_bytes(),
        "host.json": (_APP / "host.json").read_bytes(),
        "requirements.txt": _requirements(modules, root, aws=_logs_in_to_aws(config)),
        stack_file.name: stack_file.read_bytes(),
        **modules.files,
        **_beside(config, stack_file.parent),
    }
    if "providers/issuers/http.py" in packed:
        described = archive.modules(root, "providers/issuers/descriptions")
        packed |= {name: text for name, text in described.items() if "/samples/" not in name}
    return packed


def _modules(config: Config, root: Path) -> Closure:
    kinds = {about.kind for about in config.stores.values()}
    unused = [module for kind, module in _STORES.items() if kind not in kinds] + [*_NEVER, *unused_tellers(config)]
    minting = {about.kind for about in config.issuers.values()}
    unused += [module for kind, module in _ISSUERS.items() if kind not in minting]
    if minting <= {"generated", "passphrase", *_ISSUERS}:
        unused += _HTTP
    unused_too = tuple(f"{module}_" for module in unused)
    return closure(
        root,
        ["hosting/functions/function_app.py"],
        lambda module: module in unused or module.startswith(unused_too),
    )


def _logs_in_to_aws(config: Config) -> bool:
    """Vault's store imports AWS's SDK too, for the one login that takes it; a channel may be a topic of SNS."""
    methods = {getattr(getattr(about, "auth", None), "method", None) for about in config.stores.values()}
    if any(about.kind == "aws-iam" for about in config.issuers.values()):
        return True
    topics = any(hasattr(about, "sns") for about in config.channels.values())
    return topics or "aws" in methods or any(about.kind == "aws-secrets-manager" for about in config.stores.values())


def _requirements(modules: Closure, root: Path, *, aws: bool) -> bytes:
    pins = (_PIN.match(line) for line in (root / "requirements.txt").read_text().splitlines())
    versions = {found["name"].casefold(): found["version"] for found in pins if found}
    wanted = {_PROGRAMMING_MODEL}
    for name in sorted(modules.foreign - {"azure.functions"}):
        found = [of for start, of in _DISTRIBUTIONS.items() if name == start or name.startswith(f"{start}.")]
        if not found:
            raise archive.Unpackable(f"{name} is imported, and nothing says which requirement it comes from")
        if found[0] != "boto3" or aws:
            needed = (*found, *_ALONG.get(found[0], ()))
            wanted |= {f"{of}=={versions[of.partition('[')[0].casefold()]}" for of in needed}
    return ("\n".join(sorted(wanted, key=str.casefold)) + "\n").encode()


def _beside(config: Config, folder: Path) -> dict[str, bytes]:
    """Files that the stack file refers to: authorities to trust, which are public, and descriptions of vendors."""
    found: dict[str, bytes] = {}
    parts: list[tuple[str, object]] = [(f"stores.{name}", about) for name, about in config.stores.items()]
    parts += [(f"issuers.{name}", about) for name, about in config.issuers.items()]
    for (part, about), (field, name) in product(parts, (("ca_bundle", "caBundle"), ("description", "description"))):
        given = getattr(about, field, None)
        if given is None or Path(given).is_absolute():
            continue
        path = Path(given)
        if ".." in path.parts or not (folder / path).is_file():
            raise archive.Unpackable(f"keyturn:{part}.{name}: there is no file {given} beside the stack file or below")
        found[path.as_posix()] = (folder / path).read_bytes()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the package; prints where it is and what the app has to install."""
    parser = argparse.ArgumentParser(prog="python -m hosting.packages.azure", description=__doc__.splitlines()[0])
    parser.add_argument("--stack", "-s", default="prod", help="whose Pulumi.NAME.yaml the app works by; prod as a rule")
    parser.add_argument("--config", "-c", type=Path, metavar="FILE", help="a stack file by path, instead of --stack")
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT, metavar="FILE", help=f"{OUTPUT} as a rule")
    given = parser.parse_args(arguments)
    try:
        packed = entries(find_stack_file(given.stack, given.config, Path.cwd()))
    except (ConfigError, archive.Unpackable) as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - a command
        return 2
    archive.write(given.output, packed)
    needs = ", ".join(packed["requirements.txt"].decode().split())
    print(f"{given.output}: {len(packed)} files, {given.output.stat().st_size:,} bytes; installs {needs}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
