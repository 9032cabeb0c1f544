"""Writes the bill of materials, `make sbom`: what `pip install -r requirements.txt` brings, in CycloneDX 1.6.

    build/keyturn.cdx.json    every package with version, licence, address and what it needs in turn; Keyturn at the top

Taken from an environment that holds these packages and nothing else, made for this. The same requirements give the same
bytes. What is written was held against CycloneDX's own schema.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import pins

OUTPUT = Path("build") / "keyturn.cdx.json"
SPECIFICATION = "1.6"
_UV = Path(sys.executable).with_name("uv")
_CYCLONEDX = Path(sys.executable).with_name("cyclonedx-py")


def write(output: Path, requirements: Path = pins.RUNTIME) -> None:
    """Makes the environment, writes what it holds, and removes it.

    Raises:
        subprocess.CalledProcessError: a package can not be had with its digest, or the result is against the schema.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="keyturn-sbom-"))
    try:
        python = home / "bin" / "python"
        _run(_UV, "venv", "--quiet", "--python", sys.executable, str(home))
        _run(
            *(_UV, "pip", "install", "--quiet", "--python", str(python)),
            *("--require-hashes", "--requirement", str(requirements)),
        )
        _run(
            *(_CYCLONEDX, "environment", "--pyproject", str(pins.ROOT / "pyproject.toml"), "--mc-type", "application"),
            *("--spec-version", SPECIFICATION, "--output-format", "JSON", "--output-reproducible", "--validate"),
            *("--output-file", str(output), str(python)),
        )
    finally:
        shutil.rmtree(home)


def _run(program: Path, *arguments: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file, and says where it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT, metavar="FILE", help=f"{OUTPUT} as a rule")
    output = parser.parse_args(arguments).output
    try:
        write(output)
    except subprocess.CalledProcessError as failed:
        print(f"no bill of materials: {Path(failed.cmd[0]).name} ended with {failed.returncode}", file=sys.stderr)
        return 1
    print(f"{output}: CycloneDX {SPECIFICATION}, {sum(pin.here for pin in pins.read(pins.RUNTIME))} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
