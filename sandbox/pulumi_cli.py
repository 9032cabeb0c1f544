"""The Pulumi CLI for this machine: the one on PATH, or else one from the official installer.

As a command, `python -m sandbox.pulumi_cli` prints the path of the binary, and what it does on the way to stderr.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Literal

from pulumi.automation import InvalidVersionError, PulumiCommand

_DIRECTORY = Path(__file__).parents[1] / ".keyturn"
_LANGUAGE_HOST = "pulumi-language-python"
_REACH_SECONDS = 15.0
_INSTALL_SECONDS = 600.0
_PROGRESS_SECONDS = 15.0

# These run in a child of their own, because name resolution and the installer's downloads know no time limit.
_REACH = "import urllib.request; urllib.request.urlopen('https://get.pulumi.com/install.sh').read()"
_INSTALL = """
import subprocess, sys
from pulumi.automation import InvalidVersionError, PulumiCommand
try:
    PulumiCommand.install(root=sys.argv[1])
except subprocess.CalledProcessError as failure:
    sys.exit(failure.output.decode(errors="replace"))
"""


@dataclass(frozen=True)
class PulumiCli:
    """A Pulumi CLI that answered, with the Python language host that it needs to run a program."""

    path: Path
    """The `pulumi` binary."""

    version: str
    """As `pulumi version` says it, without the leading v."""

    source: Literal["path", "installed"]
    """Found on PATH, or put into `.keyturn/pulumi` by the official installer."""

    def env(self) -> dict[str, str]:
        """Variables to lay over the caller's own: this CLI first on PATH, and no call to the internet.

        Backend and passphrase (`PULUMI_BACKEND_URL`, `PULUMI_CONFIG_PASSPHRASE`) stay the caller's choice.
        """
        return {
            "PATH": os.pathsep.join([str(self.path.parent), os.environ.get("PATH", os.defpath)]),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }


def ensure(report: Callable[[str], None], *, directory: Path = _DIRECTORY) -> PulumiCli | None:
    """Finds or installs the CLI; None when neither works, after `report` was told why.

    A CLI that is already there is answered at once. The installer brings the version of the installed Python SDK
    (pulumi.automation, SDK 3.272.0: https://get.pulumi.com/install.sh) and gives up after 15 s where it cannot be
    reached, after 10 min in all. `KEYTURN_NO_DOWNLOAD=1` forbids it.

    Args:
        report: called with a line for people on what is being done, and why something will not do.
        directory: where `pulumi/` is, or will be, installed; `.keyturn` of this checkout.
    """
    on_path = shutil.which("pulumi")
    if on_path is not None:
        found = _working(Path(on_path), "path", report)
        if found is not None:
            return found
    root = directory / "pulumi"
    if (root / "bin" / "pulumi").exists():
        found = _working(root / "bin" / "pulumi", "installed", report)
        if found is not None:
            return found
    if os.environ.get("KEYTURN_NO_DOWNLOAD") == "1":
        report("the Pulumi installer was not tried: KEYTURN_NO_DOWNLOAD=1")
        return None
    return _install(root, report)


def _working(binary: Path, source: Literal["path", "installed"], report: Callable[[str], None]) -> PulumiCli | None:
    """The CLI at `binary`, if it runs, suits the SDK and has its language host on PATH or beside it."""
    root = None if source == "path" else str(binary.parent.parent)
    try:
        version = PulumiCommand(root=root).version
    except (OSError, InvalidVersionError, subprocess.CalledProcessError) as refused:
        report(f"{binary} does not serve: {refused}")
        return None
    search = os.pathsep.join([str(binary.parent), os.environ.get("PATH", os.defpath)])
    if shutil.which(_LANGUAGE_HOST, path=search) is None:
        report(f"{binary} does not serve: {_LANGUAGE_HOST} is neither beside it nor on PATH")
        return None
    return PulumiCli(path=binary, version=str(version), source=source)


def _install(root: Path, report: Callable[[str], None]) -> PulumiCli | None:
    refused = _run_child([_REACH], _REACH_SECONDS, "reaching the Pulumi installer", report)
    if refused is not None:
        report(f"the Pulumi installer cannot be reached: {refused}")
        return None
    root.parent.mkdir(parents=True, exist_ok=True)
    # Installed aside and renamed whole, so that an interruption leaves nothing that looks like a CLI.
    aside = Path(tempfile.mkdtemp(prefix="pulumi-", dir=root.parent))
    try:
        what = f"installing Pulumi {distribution_version('pulumi')}"
        refused = _run_child([_INSTALL, str(aside)], _INSTALL_SECONDS, what, report)
        if refused is not None:
            report(f"the Pulumi installer failed: {refused}")
            return None
        shutil.rmtree(root, ignore_errors=True)
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _working(root / "bin" / "pulumi", "installed", report)


def _run_child(code_and_args: list[str], limit: float, what: str, report: Callable[[str], None]) -> str | None:
    """Runs Python code in a process group of its own; None when it succeeded, else the last line that it said."""
    report(what)
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-c", *code_and_args],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            while (elapsed := time.monotonic() - started) < limit:
                try:
                    child.wait(min(_PROGRESS_SECONDS, limit - elapsed))
                    break
                except subprocess.TimeoutExpired:
                    report(f"{what}: {time.monotonic() - started:.0f} s")
            else:
                return f"no end after {limit:.0f} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child.returncode == 0:
            return None
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {child.returncode}")


def main() -> int:
    """Prints the path of the CLI; 1 and a sentence on what to do when there is none."""
    cli = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    if cli is None:
        wanted = distribution_version("pulumi")
        print(
            f"No Pulumi CLI. Install {wanted} (https://www.pulumi.com/docs/install/) so that `pulumi` and "
            f"`{_LANGUAGE_HOST}` are on PATH, then try again.",
            file=sys.stderr,
        )
        return 1
    print(cli.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
