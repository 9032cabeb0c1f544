"""A sandbox of its own, the person in front of it who types what a page says, and what happens in the world meanwhile."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
import requests
import yaml

from rotation.cli.main import run
from sandbox.clock import SandboxClock
from sandbox.consumer import READERS
from sandbox.home import Home
from sandbox.services import supervisor
from sandbox.supervisor import Supervisor, load_consumer_env, load_env
from tests.docs.pages import ROOT, Block, Command, Event, commands

ID = re.compile(r"(?<![A-Z_])ID\b")
KEY_ID = re.compile(r"(?<![A-Z_])KEY_ID\b")
ENTRIES = {name: ("aws", f"sandbox/{name}") for name in ("support-copilot-chat", "support-copilot-batch")}
_PLAIN = re.compile(r"keyturn(?! sandbox\b| run\b| serve\b)(?: [^$`|&;<>()\\*?]*)?")
"""A command that a shell would pass on as it is: it runs in this process, which saves the start of an interpreter."""
_PATIENCE = 20
"""Seconds in which something has to happen."""
_EXPORT = re.compile(r"export (?P<name>[A-Z_]+)=(?P<value>[\w./:-]*)")


@dataclass(frozen=True)
class Ran:
    """One command that has ended, and all that it printed, errors among the rest."""

    output: str
    code: int
    document: str = ""
    """What of it went to standard output, of a command in this process: what another thread logs meanwhile is not in it."""


class _Both(io.StringIO):
    """Writes to another one, too."""

    def __init__(self, other: io.StringIO) -> None:
        super().__init__()
        self._other = other

    def write(self, text: str) -> int:
        self._other.write(text)
        return super().write(text)


class World:
    """A sandbox in a folder of its own, with its five entries applied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Pulumi.yaml", "__main__.py", "Pulumi.prod.yaml", "Pulumi.staging.yaml", "Pulumi.dev.yaml"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "policy", folder / "policy")
        (folder / "bin").mkdir()
        passwords = folder / "bin" / "pass"  # the password manager that pages speak of
        passwords.write_text('#!/bin/sh\necho "$OPENAI_ADMIN_KEY"\n')
        passwords.chmod(0o755)
        self.extra: dict[str, str] = {}
        self.before = ""
        self.knows: dict[str, str] = {}
        kept = {name: text for name, text in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "KEYTURN_SANDBOX_SLEEP": "skip"}

    # --- its life ----------------------------------------------------------------------------------

    def up(self) -> None:
        self.shell("keyturn sandbox up")
        told = self.shell(f"{shlex.quote(sys.executable)} -m sandbox.pulumi_inprocess up --stack sandbox --yes")
        assert "5 created" in told.output, told.output

    def down(self) -> None:
        """In this process: what was started is stopped although a command of a page can not be."""
        self.services().reset()

    def services(self) -> Supervisor:
        return supervisor(Home(self.folder.resolve()), print)

    def mend(self) -> None:
        """After a page that was not followed to its end: all servers run, and Keyturn gets at them."""
        self.extra = {}
        self.restore()
        self.services().up()
        self.change("issuers", "openai", "admin", value={"env": "OPENAI_ADMIN_KEY"})
        self.ask_openai("POST", "reset", {})

    def calm(self) -> None:
        """What a page has left under way comes to its end, as days later, so that the next page finds a quiet stack."""
        rows: list[dict[str, Any]] = []
        for _ in range(6):
            rows = json.loads(self.keyturn("status", "--json").document)
            if all(row["phase"] == "steady" for row in rows):
                return
            self.later(timedelta(days=2))
            self.keyturn("sweep")
        pytest.fail(f"the sandbox does not become quiet: {rows}")

    def later(self, by: timedelta) -> None:
        SandboxClock(Home(self.folder).clock).move(by)

    # --- typing ------------------------------------------------------------------------------------

    def login(self) -> dict[str, str]:
        """What a shell has that has read the sandbox's env file."""
        return {**self.env, **(load_env(self.folder) if Home(self.folder).env.exists() else {}), **self.extra}

    def keyturn(self, *arguments: str, env: dict[str, str] | None = None) -> Ran:
        """One command in this process. The sandbox's clock is the environment's, and sleeping moves it."""
        out, code = io.StringIO(), 0
        alone = _Both(out)
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        with (
            mock.patch.dict(os.environ, env or self.login(), clear=True),
            mock.patch.object(sys, "stdin", io.StringIO()),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(alone),
            contextlib.redirect_stderr(out),
        ):
            try:
                run(arguments)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)
        return Ran(out.getvalue(), code, alone.getvalue())

    def shell(self, script: str, env: dict[str, str] | None = None, last: int = 0, seconds: float = 60) -> Ran:
        """What a real shell makes of it.

        Parameters:
            last: how the command before it ended, for `$?`.
        """
        done = subprocess.run(
            ["bash", "-c", f"(exit {last})\n{script}"],
            cwd=self.folder,
            env=env or self.login(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        return Ran(done.stdout, done.returncode)

    def terminal(self, command: str, env: dict[str, str]) -> Ran:
        """A command at a terminal, where the person answers what it asks, from what they know."""
        asked = {
            "admin credential of openai: ": env["OPENAI_ADMIN_KEY"],
            "value that leaked: ": self.knows.get("leaked", ""),
            f"value of {self.knows.get('key', '')}: ": self.knows.get("leaked", ""),
            "to revoke: ": "openai",
            "[y/N]: ": "y",
        }
        us, theirs = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown, answered = "", 0
        try:
            while select.select([us], [], [], _PATIENCE)[0]:
                try:
                    shown += os.read(us, 65536).decode(errors="replace")
                except OSError:  # how Linux tells that the other side is closed
                    break
                if prompt := next((text for text in asked if shown[answered:].endswith(text)), None):
                    answered = len(shown)
                    os.write(us, f"{asked[prompt]}\n".encode())
            return Ran(
                re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.replace("\r\n", "\n")), process.wait(timeout=_PATIENCE)
            )
        finally:
            process.kill()
            process.wait()
            os.close(us)

    def types(self, steps: list[Command], *, asked: bool = False) -> Iterator[tuple[Command, Ran]]:
        """A person types one command after the other, in one shell.

        Parameters:
            asked: whether commands ask them something, so that they need a terminal.
        """
        env, last = self.login(), 0
        for named in steps:
            step = self._meant(named)
            if export := _EXPORT.fullmatch(step.text):
                env[export["name"]] = export["value"]
                ran = Ran("", 0)
            elif asked:
                ran = self.terminal(step.text, env)
            elif _PLAIN.fullmatch(step.text):
                ran = self.keyturn(*shlex.split(step.text, comments=True)[1:], env=env)
            else:
                ran = self.shell(step.text, env, last)
            last = ran.code
            yield step, ran

    def _meant(self, step: Command) -> Command:
        """A command with what its placeholders stand for by then: the one before may have made it."""
        text = step.text
        for word, meant in ((ID, self.incident), (KEY_ID, lambda: self.knows["key"])):
            if word.search(text):
                text = word.sub(meant(), text)
        return Command(step.place, text, step.expected)

    def follows(self, block: Block, *, asked: bool = False) -> list[str]:
        """Follows one block to the letter; what was not as the page says."""
        steps = commands(block)
        faults = []
        for number, (step, ran) in enumerate(self.types(steps, asked=asked)):
            then = steps[number + 1].text if number + 1 < len(steps) else ""
            if (line := missing(step.expected, ran.output)) is not None:
                faults.append(f"{step.place}: $ {step.text}\n{ran.output}\n-- has no line: {line}")
            if ran.code and then != "echo $?":
                faults.append(f"{step.place}: $ {step.text}\n{ran.output}\n-- ended with {ran.code}")
        return faults

    def script(self, block: Block) -> list[str]:
        """Runs a `bash` block as a whole. It checks something: what it prints is what it found."""
        ran = self.shell(block.text)
        return [f"{block.place}:\n{ran.output}\n-- ended with {ran.code}"] if ran.code or ran.output else []

    def incident(self) -> str:
        """The newest incident that is not over, else the newest."""
        found = json.loads(self.keyturn("incident", "list", "--json").document)
        return str(next((one["id"] for one in found if not one["over"]), found[0]["id"] if found else "none"))

    # --- what happens in the world -----------------------------------------------------------------

    def happens(self, event: Event) -> None:
        match event.text.split():
            case ["leak", name]:
                store, entry = ENTRIES[name]
                self.knows["leaked"] = value = READERS[store](load_consumer_env(self.folder))(entry)
                report = self.folder / "report.json"
                report.touch(mode=0o600)
                findings = [found("deploy/.env", 12, value, "openai-api-key"), found("README.md", 3, "z" * 20 + "9")]
                report.write_text(json.dumps(findings))
            case ["stop", service]:
                pids = {one.service: one.pid for one in self.services().status()}
                os.kill(pids[service] or 0, signal.SIGTERM)
            case ["start", _]:
                self.services().up()
            case ["kill", *words]:
                self.kill(["keyturn", *words, "--yes"])
            case ["revocations", "take", seconds, "s"]:
                self.ask_openai("PATCH", "settings", {"revoke_delay": int(seconds)})
                if not int(seconds):
                    self.later(timedelta(hours=3))
            case ["wait", days, "days"]:
                self.later(timedelta(days=int(days)))
            case ["apply"]:
                command = f"{shlex.quote(sys.executable)} -m sandbox.pulumi_inprocess up --stack sandbox --yes"
                told = self.shell(command)
                assert told.code == 0, f"{event.place}: {told.output}"
            case ["a", "person", "makes", "a", "key", "and", "puts", "it", "into", entry]:
                self.person_puts(entry)
            case ["KEY_ID", "is", "current", "in", name]:
                (row,) = json.loads(self.keyturn("status", name, "--json").document)
                self.knows["key"] = row["key_id"]
                store, entry = ENTRIES[name]
                self.knows["leaked"] = READERS[store](load_consumer_env(self.folder))(entry)
            case ["the", "admin", "credential", "is", "in", entry]:
                self.put(entry, load_env(self.folder)["OPENAI_ADMIN_KEY"])
                self.change("issuers", "openai", "admin", value={"store": "vault", "name": entry})
            case ["the", "admin", "credential", "is", "in", "the", "environment"]:
                self.change("issuers", "openai", "admin", value={"env": "OPENAI_ADMIN_KEY"})
            case ["the", "vault", "refuses", "Keyturn's", "login"]:
                home, bao = Home(self.folder), load_env(self.folder)
                self.extra = {
                    "KEYTURN_VAULT_SECRET_ID": "gone",
                    "BAO_ADDR": bao["VAULT_ADDR"],
                    "BAO_CACERT": bao["VAULT_CACERT"],
                }
                self.extra["BAO_TOKEN"] = self.extra["VAULT_TOKEN"] = (
                    home.directory / "openbao" / "root-token"
                ).read_text()
                stack = yaml.safe_load(home.stack.read_text())
                stack["config"]["keyturn:stores"]["vault"]["auth"] = {"method": "token"}
                (self.folder / "break-glass.yaml").write_text(yaml.safe_dump(stack, sort_keys=False))
            case ["the", "vault", "knows", "Keyturn", "again"]:
                self.extra = {}
            case ["the", "stack", "file", "is", "as", "it", "was"]:
                self.restore()
            case ["all", "tags", "are", "taken", "off", name]:
                with mock.patch.dict(os.environ, self.login(), clear=True):
                    manager = boto3.client("secretsmanager", endpoint_url=self.endpoint("aws"), region_name="eu-west-1")
                    entry = ENTRIES[name][1]
                    tags = [tag["Key"] for tag in manager.describe_secret(SecretId=entry)["Tags"]]
                    manager.untag_resource(SecretId=entry, TagKeys=tags)
            case _:
                pytest.fail(f"{event.place}: {event.text!r}, which nobody knows how to bring about")

    def ask_openai(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """A request to the stand-in's control of itself."""
        control = json.loads(Home(self.folder).endpoints.read_text())["openai"]["controlUrl"]
        answer = requests.request(method, f"{control}/_sandbox/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def endpoint(self, service: str) -> str:
        return str(json.loads(Home(self.folder).endpoints.read_text())[service]["url"])

    def person_puts(self, entry: str) -> None:
        """A key as somebody makes it in the vendor's dashboard, and pastes into the vault by hand."""
        project = yaml.safe_load(Home(self.folder).stack.read_text())["config"]["keyturn:issuers"]["openai"]["project"]
        made = self.ask_openai("POST", "user_keys", {"project_id": project, "name": "made in the dashboard"})
        self.knows["key"] = made["id"]
        self.put(entry, made["value"])

    def put(self, entry: str, value: str) -> None:
        """Into the vault, as whoever administers it."""
        home = Home(self.folder)
        answer = requests.post(
            f"{self.endpoint('openbao')}/v1/secret/data/{entry}",
            json={"data": {"value": value}},
            headers={"X-Vault-Token": (home.directory / "openbao" / "root-token").read_text()},
            verify=str(home.directory / "ca.pem"),
            timeout=10,
        )
        answer.raise_for_status()

    def change(self, part: str, *path: str, value: object) -> None:
        """One value of the stack file."""
        file = Home(self.folder).stack
        stack = yaml.safe_load(file.read_text())
        node = stack["config"][f"keyturn:{part}"]
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = value
        file.write_text(yaml.safe_dump(stack, sort_keys=False))

    def declares(self, block: Block) -> None:
        """A person adds the secrets of a piece to the stack file."""
        file = Home(self.folder).stack
        self.before = self.before or file.read_text()
        stack = yaml.safe_load(file.read_text())
        stack["config"]["keyturn:secrets"] += yaml.safe_load(block.text)
        file.write_text(yaml.safe_dump(stack, sort_keys=False))

    def restore(self) -> None:
        """Takes that out again."""
        if self.before:
            Home(self.folder).stack.write_text(self.before)
            self.before = ""

    def kill(self, command: list[str]) -> None:
        """Ends a command once its first key is condemned, as nothing could be held against."""
        trail = self.folder / ".keyturn" / "audit" / "sandbox.jsonl"
        before = trail.stat().st_size
        with subprocess.Popen(
            command, cwd=self.folder, env=self.login(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            while running.poll() is None:
                with trail.open() as file:
                    file.seek(before)
                    if '"event":"condemn"' in file.read():
                        running.kill()
            assert running.returncode == -signal.SIGKILL


def found(file: str, line: int, value: str, rule: str = "generic-api-key") -> dict[str, object]:
    """One finding, as gitleaks writes it."""
    where = {"RuleID": rule, "StartLine": line, "File": file, "Commit": "3f1c2aa"}
    return {**where, "Match": value, "Secret": value}


def pattern(line: str) -> re.Pattern[str]:
    """A line of a page as what has to stand on a line of the output; widths of columns do not count."""
    told = [r"\s+".join(map(re.escape, part.split())) for part in line.split("…")]
    return re.compile(r".*".join(told))


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """The first line that is not in the output after those before it; `…` stands for anything."""
    left = iter(output.splitlines())
    for line in expected:
        wanted = pattern(line)
        if not any(wanted.search(shown) for shown in left):
            return line
    return None
