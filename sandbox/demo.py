"""`make demo`: the main job, end to end, on local stand-ins; exits non-zero when any of its claims does not hold.

Every command that it shows is run as a person would run it, and what it prints is that command's own output.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import requests
from rich.console import Console
from rich.text import Text

from sandbox.clock import SandboxClock
from sandbox.home import Home, find_home
from sandbox.pulumi_cli import ensure
from sandbox.supervisor import load_consumer_env, load_env

CHAT = "support-copilot-chat"
ENTRY = f"sandbox/{CHAT}"


class Claim(Exception):  # noqa: N818 - a claim that does not hold
    """Something that the demo promised is not so."""


class Story:
    """Tells what happens, runs the commands, remembers all output for the search for values."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.console = Console(highlight=False)
        self.heard: list[str] = []
        self.env: dict[str, str] = dict(os.environ)
        self.step = 0

    def title(self, text: str) -> None:
        self.step += 1
        self.console.print()
        self.console.print(Text(f"{self.step}. {text}", style="bold"), soft_wrap=True)

    def tell(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(f"   {text}", style=style), soft_wrap=True)

    def good(self, text: str) -> None:
        self.tell(f"✓ {text}", "green")

    def run(self, *command: str, shown: str | None = None, expect: int = 0) -> str:
        """Runs a command, its output on screen as it comes and remembered; raises Claim on another exit code."""
        self.console.print(Text(f"   $ {shown or shlex.join(command)}", style="cyan"), soft_wrap=True)
        process = subprocess.Popen(
            command,
            cwd=self.home.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            self.console.print(Text("     " + line.rstrip("\n")), soft_wrap=True)
        code = process.wait()
        output = "".join(lines)
        self.heard.append(output)
        if code != expect:
            raise Claim(f"`{shown or shlex.join(command)}` ended with {code}, not {expect}")
        return output

    def keyturn(self, *arguments: str, expect: int = 0) -> str:
        program = str(Path(sys.executable).with_name("keyturn"))
        return self.run(program, *arguments, shown=shlex.join(["keyturn", *arguments]), expect=expect)


def holds(claim: bool, otherwise: str) -> None:
    if not claim:
        raise Claim(otherwise)


class Consumer:
    """The application that runs beside it all."""

    def __init__(self, report: Path) -> None:
        self._report = report

    def count(self) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(self._report.read_text()))
        return {"requests": 0, "failed": 0, "keys_seen": 0}

    def wait_for(self, what: str, least: int, seconds: float = 15) -> None:
        """Until a count is reached; the application runs on real time."""
        end = time.monotonic() + seconds
        while self.count()[what] < least:
            if time.monotonic() > end:
                raise Claim(f"the application did not get to {least} {what} within {seconds:.0f} s: {self.count()}")
            time.sleep(0.05)

    def settle(self) -> None:
        """Until it has asked a good many times more."""
        self.wait_for("requests", self.count()["requests"] + 60)


@contextlib.contextmanager
def application(story: Story, entry: str) -> Iterator[Consumer]:
    """Runs sandbox.consumer with a consumer's credentials only."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(story.home.root), **load_consumer_env(story.home.root)}
        command = [sys.executable, "-m", "sandbox.consumer", "--entry", entry, "--report", str(report)]
        process = subprocess.Popen(command, env=env, cwd=story.home.root, stderr=subprocess.PIPE, text=True)
        try:
            consumer = Consumer(report)
            consumer.wait_for("requests", 20)
            yield consumer
        finally:
            process.send_signal(signal.SIGTERM)
            _, noise = process.communicate(timeout=15)
            story.heard.append(noise or "")


class Thief:
    """Somebody who copied the key of the chat service. Holds the value in memory only, as a thief would."""

    def __init__(self, story: Story) -> None:
        import hvac  # noqa: PLC0415 - only here

        env = load_consumer_env(story.home.root)
        vault = hvac.Client(url=env["VAULT_ADDR"], verify=env["VAULT_CACERT"])
        vault.auth.approle.login(env["VAULT_ROLE_ID"], env["VAULT_SECRET_ID"])
        read = vault.secrets.kv.v2.read_secret_version(ENTRY, mount_point="secret", raise_on_deleted_version=True)
        self.value: str = read["data"]["data"]["value"]
        self._url = f"{env['OPENAI_BASE_URL']}/models"

    def tries(self) -> tuple[int, str]:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(self._url, headers={"Authorization": f"Bearer {self.value}"}, timeout=10)
        code = "" if answer.ok else str(answer.json()["error"]["code"])
        return answer.status_code, code


def main() -> int:
    """Tells the story once. Exit code 0 only when every claim held."""
    home = find_home(Path(__file__).parent)
    story = Story(home)
    started = time.monotonic()
    try:
        tell(story)
    except Claim as broken:
        story.console.print()
        story.console.print(Text(f"✗ {broken}", style="bold red"), soft_wrap=True)
        story.console.print("  The sandbox is left running: `keyturn sandbox status`; logs in .keyturn/sandbox/logs.")
        return 1
    story.console.print()
    story.console.print(Text(f"All of it held, in {time.monotonic() - started:.0f} s.", style="bold green"))
    story.console.print(
        "The sandbox is still up: `. .keyturn/sandbox/env && .venv/bin/keyturn status`; "
        "`.venv/bin/keyturn sandbox down` stops it."
    )
    return 0


def tell(story: Story) -> None:
    """The story itself."""
    home = story.home
    story.title("A sandbox: a real OpenBao server, and a stand-in for OpenAI's API")
    story.keyturn("sandbox", "up")
    story.env |= load_env(home.root)
    clock = SandboxClock(home.clock)

    story.title("Provision: two OpenAI keys of one service and a webhook password, declared in Pulumi.sandbox.yaml")
    pulumi = provision(story)

    leaks: list[str] = []
    with application(story, ENTRY) as app:
        story.title(
            "An application uses the chat key all the time; it reads it from the vault and knows nothing of Keyturn"
        )
        app.settle()
        story.keyturn("status")
        leaks.append(Thief(story).value)

        story.title("31 days pass (the sandbox's clock is moved; a real one never is), and cron runs a sweep")
        before = app.count()
        clock.move(timedelta(days=31))
        story.keyturn("plan")
        story.keyturn("sweep")
        app.settle()
        days = (
            "A day later. What was rotated has drained; its pair, if it waits, gets its window:",
            "And another day:",
        )
        for day in (*days, days[-1], days[-1]):
            if retired(story):
                break
            story.tell(day)
            clock.move(timedelta(hours=26))
            story.keyturn("sweep")
            app.settle()
        holds(retired(story), "the old chat key was not shown dead by any sweep")
        after = app.count()
        asked, failed = after["requests"] - before["requests"], after["failed"] - before["failed"]
        holds(after["keys_seen"] > before["keys_seen"], "the application never saw a new key")
        holds(failed == 0, f"{failed} of {asked} requests failed during the scheduled rotation")
        story.good(f"{failed} failed requests of {asked} while the key was rotated, drained, revoked and shown dead")

        story.title("03:00. The chat key has leaked")
        thief = Thief(story)
        leaks.append(thief.value)
        status, _ = thief.tries()
        holds(status == 200, f"the leaked key should still work before the emergency, and got {status}")
        story.tell(f"The thief's request: {status} OK", "red")
        seen = app.count()["keys_seen"]
        story.keyturn("emergency", CHAT, "--yes")
        status, code = thief.tries()
        holds((status, code) == (401, "invalid_api_key"), f"the leaked key got {status} {code}")
        story.good(f"The thief's request: {status} {code}")
        app.wait_for("keys_seen", seen + 1)
        app.settle()
        settled = app.count()
        app.settle()
        holds(app.count()["failed"] == settled["failed"], "the application still fails after the emergency")
        lost = settled["failed"] - after["failed"]
        story.good(
            f"The application goes on with the new key; {lost} of its requests failed while it still held the old one"
        )
        leaks.append(Thief(story).value)

    story.title("How things stand")
    story.keyturn("verify")
    story.keyturn("status")

    story.title("Where values could have leaked to: Pulumi's state, all output above, the audit trail, logs")
    places = search(story, pulumi, leaks)
    story.good(f"{len(leaks)} values that lived in this demo looked for in {places} places: found in none")


def provision(story: Story) -> str:
    """Preview and up, by the Pulumi CLI where there is one. Returns `cli` or `in-process`."""
    cli = ensure(story.tell)
    if cli is None:
        story.tell(
            "No Pulumi CLI can be had on this machine: the same program is applied through the SDK's own", "yellow"
        )
        story.tell("in-process monitor instead (sandbox/pulumi_inprocess.py says what that leaves out).", "yellow")
        for command in ("preview", "up"):
            arguments = ("-m", "sandbox.pulumi_inprocess", command, "--stack", "sandbox", "--yes")
            story.run(sys.executable, *arguments, shown=f"python -m sandbox.pulumi_inprocess {command} --stack sandbox")
        return "in-process"
    story.env |= cli.env()
    program = str(cli.path)
    selected = subprocess.run(
        [program, "stack", "select", "--create", "sandbox", "--non-interactive"],
        cwd=story.home.root,
        env=story.env,
        capture_output=True,
        text=True,
        check=False,
    )
    holds(selected.returncode == 0, f"pulumi stack select failed: {selected.stderr}")
    story.run(program, "preview", "--stack", "sandbox", "--non-interactive", shown="pulumi preview --stack sandbox")
    story.run(
        program,
        "up",
        "--stack",
        "sandbox",
        "--yes",
        "--skip-preview",
        "--non-interactive",
        shown="pulumi up --stack sandbox",
    )
    return "cli"


def retired(story: Story) -> bool:
    """Whether a sweep of this demo has shown an old chat key dead."""
    return any(f"{CHAT}:" in line and "shown dead" in line for output in story.heard for line in output.splitlines())


def search(story: Story, pulumi: str, leaks: list[str]) -> int:
    """Looks for every value in every place. Returns how many places were read."""
    places = {f"output {number}": text for number, text in enumerate(story.heard)}
    root = story.home.root
    folders = [root / ".keyturn" / "audit", story.home.logs]
    folders.append(story.home.pulumi_state if pulumi == "cli" else root / ".keyturn" / "pulumi-inprocess")
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    holds(any("pulumi" in str(path) for path in files), "there is no Pulumi state to search")
    places |= {str(path): path.read_text(errors="replace") for path in [*files, story.home.stack]}
    for where, text in places.items():
        holds(not any(value in text for value in leaks), f"a value was found in {where}")
    return len(places)


if __name__ == "__main__":
    sys.exit(main())
