"""docs/runbook.md, followed literally on a sandbox of its own: every command, its exit code, and what the page says it prints.

Of a block of the kind `console`, lines that begin with `$` are commands, all of one shell; what stands below each has to be in its
output, in this order, `…` standing for anything. A command that no `echo $?` follows has to end with 0. `ID` is the newest incident that is not
over, else the newest. Comments of the page, `<!-- run: … -->`, say what happened in the world before a block.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.consumer import READERS
from sandbox.home import Home
from sandbox.services import supervisor
from sandbox.supervisor import load_consumer_env

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "runbook.md"
_PARTS = re.compile(r"^<!-- run: (?P<event>[^\n]+) -->$|^```console\n(?P<block>.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = "\x1e"
_ID = re.compile(r"(?<![A-Z_])ID\b")
ENTRIES = {"support-copilot-chat": ("aws", "sandbox/support-copilot-chat")}


@dataclass(frozen=True)
class Command:
    """One command of the page."""

    text: str
    expected: tuple[str, ...]


def commands(block: str) -> list[Command]:
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return [Command(text, tuple(expected)) for text, expected in found]


class Sandbox:
    """A sandbox in a folder of its own, and the person in front of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(ROOT / name, folder)
        kept = {name: text for name, text in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "KEYTURN_SANDBOX_SLEEP": "skip"}

    def shell(self, script: str, seconds: float = 150) -> str:
        """What a shell that has the sandbox's environment prints, its errors among the rest."""
        login = ". .keyturn/sandbox/env\n" if (self.folder / ".keyturn/sandbox/env").exists() else ""
        done = subprocess.run(
            ["bash", "-c", login + script],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.stdout

    def up(self) -> None:
        self.shell("keyturn sandbox up")
        told = self.shell(f"{sys.executable} -m sandbox.pulumi_inprocess up --stack sandbox --yes --skip-preview")
        assert "5 created" in told, told

    def down(self) -> None:
        """In this process: what was started is stopped although a command of the page can not be."""
        supervisor(Home(self.folder.resolve()), print).reset()

    def incident(self) -> str:
        found = json.loads(self.shell("keyturn incident list --json"))
        return str(next((one["id"] for one in found if not one["over"]), found[0]["id"] if found else "none"))

    def control(self) -> str:
        endpoints = json.loads((self.folder / ".keyturn/sandbox/endpoints.json").read_text())
        return str(endpoints["openai"]["controlUrl"])

    # --- what happens in the world -----------------------------------------------------------------

    def happens(self, event: str) -> None:
        match event.split():
            case ["leak", name]:
                store, entry = ENTRIES[name]
                value = READERS[store](load_consumer_env(self.folder))(entry)
                report = self.folder / "report.json"
                report.touch(mode=0o600)
                report.write_text(
                    json.dumps(
                        [found("deploy/.env", 12, value, "openai-api-key"), found("README.md", 3, "z" * 20 + "9")]
                    )
                )
            case ["stop", service]:
                listing: list[dict[str, Any]] = json.loads(self.shell("keyturn sandbox status --json"))
                os.kill(next(one["pid"] for one in listing if one["service"] == service), signal.SIGTERM)
            case ["start", _]:
                self.shell("keyturn sandbox up")
            case ["kill", *words]:
                self.kill(["keyturn", *words, "--yes"])
            case ["revocations", "take", seconds, "s"]:
                answer = requests.patch(
                    f"{self.control()}/_sandbox/settings", json={"revoke_delay": int(seconds)}, timeout=10
                )
                answer.raise_for_status()
                if not int(seconds):
                    moved = "from datetime import timedelta as t; from sandbox.clock import SandboxClock as C; import os, pathlib"
                    code = f"{moved}; C(pathlib.Path(os.environ['KEYTURN_SANDBOX_CLOCK'])).move(t(hours=3))"
                    self.shell(f'{sys.executable} -c "{code}"')
            case _:
                pytest.fail(f"the page says {event!r}, which nobody knows how to bring about")

    def kill(self, command: list[str]) -> None:
        """Ends a command once its first key is condemned, as nothing could be held against."""
        trail = self.folder / ".keyturn" / "audit" / "sandbox.jsonl"
        before = trail.stat().st_size
        script = f". .keyturn/sandbox/env; exec {' '.join(command)}"
        with subprocess.Popen(
            ["bash", "-c", script], cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            while running.poll() is None:
                with trail.open() as file:
                    file.seek(before)
                    if '"event":"condemn"' in file.read():
                        running.kill()
            assert running.returncode == -signal.SIGKILL


def found(file: str, line: int, value: str, rule: str = "generic-api-key") -> dict[str, object]:
    return {
        "RuleID": rule,
        "StartLine": line,
        "Match": value,
        "Secret": value,
        "File": file,
        "Commit": "3f1c2aa",
    }


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    box = Sandbox(tmp_path_factory.mktemp("runbook"))
    try:
        box.up()
        yield box
    finally:
        box.down()


def pattern(line: str) -> re.Pattern[str]:
    """A line of the page as what has to stand on a line of the output; widths of columns do not count."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in line.split("…")]
    return re.compile(r".*".join(parts))


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """The first line that is not in the output after those before it."""
    left = iter(output.splitlines())
    for line in expected:
        wanted = pattern(line)
        if not any(wanted.search(shown) for shown in left):
            return line
    return None


def follow(sandbox: Sandbox, block: str) -> list[str]:
    """Runs one block; what was not as the page says."""
    steps = commands(block)
    identity = sandbox.incident() if _ID.search(block) else ""
    said = [_ID.sub(identity, step.text) for step in steps]
    script = "".join(f"{text}\n__code=$?; printf '{_MARK}%s{_MARK}' $__code; (exit $__code)\n" for text in said)
    parts = sandbox.shell(script).split(_MARK)
    faults = []
    for number, step in enumerate(steps):
        output, code = parts[2 * number], parts[2 * number + 1]
        then = steps[number + 1].text if number + 1 < len(steps) else ""
        if (line := missing(step.expected, output)) is not None:
            faults.append(f"$ {step.text}\n{output}\n-- has no line: {line}")
        if code != "0" and then != "echo $?":
            faults.append(f"$ {step.text}\n{output}\n-- ended with {code}")
    return faults


def test_the_page_is_followed_literally(sandbox: Sandbox) -> None:
    """From the first command to the last, in the order of the page."""
    faults: list[str] = []
    for part in _PARTS.finditer(PAGE.read_text()):
        if part["event"]:
            sandbox.happens(part["event"])
        else:
            faults += follow(sandbox, part["block"])
    assert not faults, "\n\n".join(faults)


def test_a_line_that_is_not_there_is_missed() -> None:
    """The comparison can fail: by a word, and by the order."""
    output = "one   two  3.1 s\nthen this"
    assert missing(("one two … s", "then …"), output) is None
    assert missing(("one three",), output) == "one three"
    assert missing(("then this", "one two"), output) == "one two"


def test_every_place_that_the_page_leads_to_is_there() -> None:
    """Links within it and to other pages, and the names of alerts."""
    page = PAGE.read_text()
    for path, anchor in re.findall(r"\]\(([a-z-]*\.?(?:md)?)#?([a-z0-9-]*)\)", page):
        target = PAGE.parent / path if path else PAGE
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{path}#{anchor}"
    rules = (ROOT / "deploy" / "prometheus" / "keyturn.rules.yaml").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert set(re.findall(r"`(Keyturn\w+)`", page)) == alerts
