"""Completion in the shells themselves: commands, options, and names from the stack's file, without a call to anybody."""

import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cli.project import CHAT, HOOK, KEYTURN, Project

LOGIN = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
READY = {
    "bash": "source <(keyturn completion bash)",
    "zsh": "autoload -Uz compinit; compinit -u -D; source <(keyturn completion zsh)",
}


def needed(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")


def environ(project: Project) -> dict[str, str]:
    """No store, no issuer and no login: nothing that a call could be made with."""
    path = f"{KEYTURN.parent}:{os.environ['PATH']}"
    named = {name: project.environ[name] for name in ("HOME", "PYTHONPATH", "KEYTURN_STACK")}
    return {**named, "PATH": path, "TERM": "dumb", "PS1": "> "}


def at_prompt(shell: str, project: Project, typed: str, awaited: str) -> str:
    """What an interactive shell shows until this stands there, after it was taught and this was typed, Tab included."""
    us, theirs = pty.openpty()
    process = subprocess.Popen(
        LOGIN[shell],
        cwd=project.root,
        env=environ(project),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        while text not in seen:
            ready, _, _ = select.select([us], [], [], 30)
            assert ready, f"{text!r} does not come; so far: {seen!r}"
            seen += os.read(us, 65536).decode(errors="replace")

    try:
        os.write(us, f"{READY[shell]}; echo tau''ght\n".encode())
        until("taught")
        seen = ""
        os.write(us, f"{typed}\t".encode())
        until(awaited)
    finally:
        process.kill()
        process.wait()
        os.close(us)
    return seen


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_the_name_of_a_secret(project: Project, shell: str) -> None:
    """By a real Tab at a real prompt; the vault is not there, and is not missed."""
    needed(shell)
    project.change("stores.vault.address", "https://127.0.0.1:9")
    assert "support-copilot-webhook" in at_prompt(shell, project, "keyturn rotate support-copilot-w", "webhook")


def test_fish_completes_the_name_of_a_secret(project: Project) -> None:
    """As its `complete -C` tells, which is what Tab asks."""
    needed("fish")
    line = "keyturn completion fish | source; complete -C 'keyturn rotate support-copilot-w'"
    ran = subprocess.run(
        ["fish", "--no-config", "-c", line],
        cwd=project.root,
        env=environ(project),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [HOOK]


def offered(project: Project, *words: str) -> list[str]:
    """What the last word may become."""
    asked = {"_KEYTURN_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    with subprocess.Popen(
        [str(KEYTURN)],
        cwd=project.root,
        env={**environ(project), **asked},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.communicate(timeout=60)
    assert err == ""
    return out.split()


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (("keyturn", "emer"), ["emergency"]),
        (("keyturn", "issuer", "ch"), ["check"]),
        (("keyturn", "status", "--over"), ["--overdue"]),
        (("keyturn", "status", "--owner", "s"), ["support-platform"]),
        (("keyturn", "plan", "--store", "m"), ["mirror"]),
        (("keyturn", "status", "--issuer", "gen"), ["generated"]),
        (("keyturn", "status", "--phase", "st"), ["steady"]),
        (("keyturn", "status", "--sort", "o"), ["owner"]),
        (("keyturn", "status", "--stack", "s"), ["sandbox"]),
        (("keyturn", "help", "issuer", "s"), ["show"]),
        (("keyturn", "completion", "f"), ["fish"]),
        (("keyturn", "rotate", CHAT, "support"), [HOOK]),
        (("keyturn", "rotate", "--config", "elsewhere.yaml", "sales"), ["sales-key"]),
    ],
)
def test_what_is_offered(project: Project, words: tuple[str, ...], there: list[str]) -> None:
    """Commands, options, and names as they are declared in the file that is meant; none that was typed already."""
    elsewhere = {"config": {"secrets": [{"name": "sales-key"}]}}
    (project.root / "elsewhere.yaml").write_text(yaml.safe_dump(elsewhere))
    assert offered(project, *words) == there


@pytest.mark.parametrize("text", ["config: [", "config:\n  keyturn:secrets: 3\n", "\xff", ""])
def test_a_file_that_is_being_written_offers_nothing(project: Project, text: str) -> None:
    """And says nothing either: the person is at the middle of a line."""
    Path(project.stack_file).write_text(text, encoding="latin-1")
    assert offered(project, "keyturn", "rotate", "s") == []
