"""`make demo`: the main job, end to end, on local stand-ins; exits non-zero when any of its claims does not hold.

Every command that it shows is run as a person would run it, and what it prints is that command's own output.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import requests
import yaml
from rich.console import Console
from rich.text import Text

from sandbox.clock import SandboxClock
from sandbox.consumer import CACHED_FOR, PAUSE, READERS
from sandbox.home import Home, SandboxError, find_home
from sandbox.pulumi_cli import ensure
from sandbox.services import without_proxy
from sandbox.stack import TEMPLATE
from sandbox.supervisor import load_consumer_env, load_env

CHAT: Final = "support-copilot-chat"
APPLICATIONS: Final = {"support-api": "aws", "support-edge": "vault"}
"""Who uses the chat key, and the store that each reads it from."""
LOGINS: Final = ("AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "KEYTURN_VAULT_SECRET_ID", "OPENAI_ADMIN_KEY")
"""The variables that hold Keyturn's own credentials."""

_MANY: Final = round(1.2 * CACHED_FOR / PAUSE)
"""Requests in which an application is sure to read its key again, and to use what it read: their pauses alone take longer."""
_DAYS: Final = 6
"""Days after the 29, at most, that the chat key takes when its pair goes first: two for each, and some to spare."""
_PATIENCE: Final = 60.0
"""Seconds for them; an idle machine needs three."""


class Claim(Exception):  # noqa: N818 - a claim that does not hold
    """Something that the demo promised is not so."""


def holds(claim: bool, otherwise: str) -> None:
    """Raises Claim with these words when it does not."""
    if not claim:
        raise Claim(otherwise)


class Story:
    """Tells what happens, runs the commands, remembers all output for the search for values."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.console = Console(highlight=False)
        self.heard: list[str] = []
        # The person's own logins have no place in a sandbox.
        own = ("AWS_", "AZURE_", "VAULT_", "OPENAI_", "KEYTURN_STACK", "KEYTURN_AUDIT_FILE", "KEYTURN_SANDBOX_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.step = 0

    def title(self, text: str) -> None:
        self.step += 1
        self.console.print()
        self.console.print(Text(f"{self.step}. {text}", style="bold"), soft_wrap=True)

    def tell(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(f"   {text}", style=style), soft_wrap=True)

    def good(self, text: str) -> None:
        self.tell(f"✓ {text}", "green")

    def run(self, *command: str, shown: str | None = None) -> str:
        """Runs a command, its output on screen as it comes and remembered; raises Claim when it fails."""
        said = shown or shlex.join(command)
        self.console.print(Text(f"   $ {said}", style="cyan"), soft_wrap=True)
        lines = []
        with subprocess.Popen(
            command, cwd=self.home.root, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                lines.append(line)
                self.console.print(Text("     " + line.rstrip("\n")), soft_wrap=True)
        output = "".join(lines)
        self.heard.append(output)
        holds(process.returncode == 0, f"`{said}` ended with {process.returncode}, not 0")
        return output

    def keyturn(self, *arguments: str) -> str:
        program = str(Path(sys.executable).with_name("keyturn"))
        return self.run(program, *arguments, shown=shlex.join(["keyturn", *arguments]))

    def read(self, store: str, name: str = CHAT) -> str:
        """The current value of a secret, as an application reads it from a store."""
        entry = f"sandbox--{name}" if store == "azure" else f"sandbox/{name}"
        return READERS[store](load_consumer_env(self.home.root))(entry)


@contextlib.contextmanager
def alone(home: Home) -> Iterator[None]:
    """One demo at a time in a clone: two would move each other's clock and rotate each other's keys."""
    home.make()
    with (home.root / ".keyturn" / "demo.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Claim("another demo is at work in this clone") from None
        yield


# --- the applications that run beside it all -----------------------------------------------------

Counts = Mapping[str, Mapping[str, int]]
"""By application: requests, failed, keys_seen."""


class Applications:
    """The running applications, known by what they report."""

    def __init__(self, running: Mapping[str, tuple[subprocess.Popen[str], Path]]) -> None:
        self._running = running

    def count(self) -> Counts:
        return {name: self._count(name) for name in self._running}

    def _count(self, name: str) -> Mapping[str, int]:
        process, report = self._running[name]
        holds(process.poll() is None, f"{name} ended by itself, with {process.returncode}")
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(report.read_text()))
        return {"requests": 0, "failed": 0, "keys_seen": 0}

    def wait_for(self, what: str, more: int, since: Counts | None = None) -> None:
        """Until each has counted so many more than `since`, or than now."""
        before = since or self.count()
        end = time.monotonic() + _PATIENCE
        while behind := [name for name, count in self.count().items() if count[what] < before[name][what] + more]:
            holds(
                time.monotonic() < end, f"{' and '.join(behind)} did not get to {more} more {what} in {_PATIENCE:.0f} s"
            )
            time.sleep(0.05)

    def settle(self) -> None:
        """Until each has read its key again, and used it a good many times."""
        self.wait_for("requests", _MANY)

    def failed(self, since: Counts) -> dict[str, int]:
        return {name: count["failed"] - since[name]["failed"] for name, count in self.count().items()}

    def unharmed(self, since: Counts) -> list[str]:
        """A line for each: how many requests it made. Raises Claim when one failed, or it never saw a new key."""
        lines = []
        for name, count in self.count().items():
            asked, failed = (count[what] - since[name][what] for what in ("requests", "failed"))
            last = f", the last with {count['last_failure']}" if failed else ""
            holds(failed == 0, f"{name}: {failed} failed requests of {asked}{last}")
            holds(count["keys_seen"] > since[name]["keys_seen"], f"{name} never saw a new key")
            lines.append(f"{name}: {failed} failed requests of {asked}")
        return lines


@contextlib.contextmanager
def applications(story: Story, stores: Mapping[str, str]) -> Iterator[Applications]:
    """Runs sandbox.consumer for each, with a consumer's credentials only. Yields when all are at work."""
    root = story.home.root
    code = str(Path(__file__).parents[1])
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": code, **load_consumer_env(root)}
    running: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, store in stores.items():
                report = Path(folder) / f"{name}.json"
                command = ["--store", store, "--entry", f"sandbox/{CHAT}", "--report", str(report)]
                process = subprocess.Popen(
                    [sys.executable, "-m", "sandbox.consumer", *command],
                    env=env,
                    cwd=root,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                running[name] = process, report
            applications = Applications(running)
            applications.settle()
            yield applications
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                story.heard.append(process.communicate(timeout=15)[1])


class Thief:
    """Somebody who has copied a key. Holds the value in memory only, as a thief would."""

    def __init__(self, value: str, base_url: str) -> None:
        self._value = value
        self._url = f"{base_url}/models"

    def tries(self) -> tuple[int, str]:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(self._url, headers={"Authorization": f"Bearer {self._value}"}, timeout=10)
        return answer.status_code, "" if answer.ok else str(answer.json()["error"]["code"])


# --- the story -----------------------------------------------------------------------------------


def tell(story: Story) -> None:
    """The story itself."""
    home = story.home
    story.title("A sandbox: OpenBao, a real server; stand-ins for Secrets Manager, Key Vault and OpenAI's API")
    story.keyturn("sandbox", "up")
    story.env |= load_env(home.root)
    as_told(home)
    clock = SandboxClock(home.clock)

    story.title("Provision into three vaults, as declared in Pulumi.sandbox.yaml")
    story.tell("Two OpenAI keys of one service in Secrets Manager, each with a replica in Vault; one in Key Vault;")
    story.tell("and in Vault a password that Keyturn generates.")
    state = provision(story)
    values = {f"{name} of Keyturn": story.env[name] for name in LOGINS}
    values["the chat key at first"] = first = story.read("aws")
    url = load_consumer_env(home.root)["OPENAI_BASE_URL"]

    with applications(story, APPLICATIONS) as apps:
        story.title("Two applications use the chat key all the time, and know nothing of Keyturn")
        story.tell("support-api reads it from Secrets Manager, support-edge reads the same secret from Vault.")
        story.keyturn("status")

        story.title("29 days pass (the sandbox's clock is moved; a real one never is), and cron runs a sweep")
        before, heard = apps.count(), len(story.heard)
        clock.move(timedelta(days=29))
        story.keyturn("plan")
        story.keyturn("sweep")
        apps.settle()
        told = "A day later. What was rotated has drained; its pair, if it waits, gets its window:"
        for _ in range(_DAYS):
            if retired(story.heard[heard:]):
                break
            story.tell(told)
            told = "And another day:"
            clock.move(timedelta(hours=26))
            story.keyturn("sweep")
            apps.settle()
        holds(retired(story.heard[heard:]), "no sweep rotated the chat key and showed its predecessor dead")
        holds_dead(Thief(first, url), "the chat key from before")
        story.good("The key from before: 401 invalid_api_key")
        story.tell("Do both vaults hand out the same key, and does it work?")
        story.keyturn("verify", CHAT)
        story.tell("And the applications, while the key was rotated, drained, revoked and shown dead?")
        for line in apps.unharmed(before):
            story.good(line)

        story.title("03:00. The chat key has leaked, from Vault")
        values["the chat key that leaked"] = leaked = story.read("vault")
        thief = Thief(leaked, url)
        status, _ = thief.tries()
        holds(status == 200, f"the leaked key should still work before the emergency, and got {status}")
        story.tell(f"The thief's request: {status} OK", "red")
        before = apps.count()
        story.keyturn("emergency", CHAT, "--yes")
        holds_dead(thief, "the leaked key")
        story.good("The thief's request: 401 invalid_api_key")
        now = {store: story.read(store) for store in APPLICATIONS.values()}
        holds(leaked not in now.values(), "a vault still hands out the leaked key")
        holds(len(set(now.values())) == 1, "the vaults hand out different keys")
        values["the chat key after that"] = now["aws"]
        story.good("Secrets Manager and Vault both hand out the new key")
        apps.wait_for("keys_seen", 1, since=before)
        apps.settle()
        settled = apps.count()
        lost = ", ".join(f"{name} {count}" for name, count in apps.failed(before).items())
        apps.settle()
        holds(not any(apps.failed(settled).values()), "an application still fails after the emergency")
        story.good(f"Both applications go on with it; requests lost while they still held the old one: {lost}")

    story.title("How things stand")
    story.keyturn("verify")
    story.keyturn("status")

    story.title(
        "Where values could have leaked to: Pulumi's state, all output above, the audit trail, every server's log"
    )
    for name, store in declared(home.stack).items():
        values[f"{name} in {store}"] = story.read(store, name)
    searched = search(story, state, values)
    story.good(
        f"{len(values)} values (every key of this story, and Keyturn's own logins) looked for in {searched} places: "
        "found in none"
    )


def declared(stack: Path) -> dict[str, str]:
    """The primary store of each secret in a stack's file."""
    secrets = yaml.safe_load(stack.read_text())["config"]["keyturn:secrets"]
    return {secret["name"]: secret["store"] for secret in secrets}


def as_told(home: Home) -> None:
    """Raises Claim when the stack's file, which is the person's to edit, declares other secrets than the story has."""
    holds(
        declared(home.stack) == declared(TEMPLATE),
        f"{home.stack.name} does not declare the secrets that this story is about. To see it, move that file away, "
        "run `keyturn sandbox reset`, and start again",
    )


def provision(story: Story) -> Path:
    """Preview and up, by the Pulumi CLI where there is one. Returns where its state is.

    After earlier runs the state is refreshed first, for the sandbox may have been reset since; and a sweep comes last.
    """
    cli = ensure(story.tell)
    if cli is None:
        story.tell(
            "No Pulumi CLI can be had on this machine: the same program is applied through the SDK's own", "yellow"
        )
        story.tell("in-process monitor instead (sandbox/pulumi_inprocess.py says what that leaves out).", "yellow")
        state = story.home.root / ".keyturn" / "pulumi-inprocess"
        applied = (state / "sandbox.json").exists()
        command = [sys.executable, "-m", "sandbox.pulumi_inprocess"]
        shown, unasked = "python -m sandbox.pulumi_inprocess", ["--yes", "--skip-preview"]
    else:
        story.env |= cli.env()
        state = story.home.pulumi_state
        command, shown, unasked = [str(cli.path)], "pulumi", ["--yes", "--skip-preview", "--non-interactive"]
        select = [*command, "stack", "select", "--create", "sandbox", "--non-interactive"]
        selected = subprocess.run(
            select, cwd=story.home.root, env=story.env, capture_output=True, text=True, check=False
        )
        holds(selected.returncode == 0, f"pulumi stack select failed: {selected.stderr}")
        applied = any(path.is_file() for path in (state / ".pulumi" / "history").rglob("*.json"))

    def do(what: str, *more: str) -> None:
        story.run(*command, what, "--stack", "sandbox", *more, shown=f"{shown} {what} --stack sandbox")

    if applied:
        story.tell("It was applied before, so first: is what Pulumi knows still so?")
        do("refresh", *unasked)
    do("preview", *unasked[2:])
    do("up", *unasked)
    if applied:
        story.tell("And what an earlier run may have left half done, a sweep finishes:")
        story.keyturn("sweep")
    return state


def retired(outputs: Iterable[str]) -> bool:
    """Whether sweeps say that the chat key was rotated, and that a key was shown dead after that."""
    told = "".join(line for output in outputs for line in output.splitlines() if f"{CHAT}:" in line)
    return "shown dead" in told.partition("minted")[2]


def holds_dead(thief: Thief, what: str) -> None:
    """Raises Claim unless OpenAI refuses the key as one that it does not know."""
    status, code = thief.tries()
    holds((status, code) == (401, "invalid_api_key"), f"{what} got {status} {code}")


# --- the search for values -----------------------------------------------------------------------


def search(story: Story, state: Path, values: Mapping[str, str]) -> int:
    """Looks for every value in every place. Returns how many places were read.

    Args:
        story: its output so far, its home and the servers of that.
        state: the folder of Pulumi's state.
        values: by a name that may be shown.

    Raises:
        Claim: one was found, or there was nothing to look at where something must be.
    """
    home = story.home
    places = {f"output {number}": text for number, text in enumerate(story.heard, 1)}
    for folder in (state, home.root / ".keyturn" / "audit", home.logs):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        holds(bool(files), f"there is nothing to search in {folder}")
        places |= {str(path): path.read_text(errors="replace") for path in files}
    places[str(home.stack)] = home.stack.read_text()
    places |= server_logs(json.loads(home.endpoints.read_text()))
    for where, text in places.items():
        for name, value in values.items():
            holds(value not in text, f"{name} was found in {where}")
    return len(places)


def server_logs(endpoints: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What the sandbox's servers have recorded of the calls that they got, by server."""
    logs = {"OpenBao's audit log": Path(endpoints["openbao"]["auditLog"]).read_text()}
    with requests.Session() as session:
        session.trust_env = False
        for name, path in (("aws", "calls"), ("keyvault", "requests"), ("openai", "requests")):
            about = endpoints[name]
            url = f"{about['controlUrl']}/_sandbox/{path}"
            answer = session.get(url, verify=about.get("caBundle", True), timeout=30)
            holds(answer.ok, f"{name} does not show its log of calls: {answer.status_code}")
            logs[f"the log of calls of {name}"] = answer.text
    return logs


def main(tell: Callable[[Story], None] = tell, home: Home | None = None) -> int:
    """Tells the story once. Exit code 0 only when every claim held.

    Args:
        tell: the story.
        home: whose sandbox; of this checkout by default.
    """
    story = Story(home or find_home(Path(__file__).parent))
    started = time.monotonic()
    try:
        with alone(story.home):
            tell(story)
    except (Claim, SandboxError) as broken:
        story.console.print()
        story.console.print(Text(f"✗ {broken}", style="bold red"), soft_wrap=True)
        story.console.print("  The sandbox is left as it is: `keyturn sandbox status`; logs in .keyturn/sandbox/logs.")
        return 1
    story.console.print()
    story.console.print(Text(f"All of it held, in {time.monotonic() - started:.0f} s.", style="bold green"))
    story.console.print(
        "The sandbox is still up: `. .keyturn/sandbox/env && .venv/bin/keyturn status`; "
        "`.venv/bin/keyturn sandbox down` stops it.",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    os.environ |= without_proxy(os.environ)
    sys.exit(main())
