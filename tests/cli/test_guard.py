"""A commit with a managed key in it is refused: by the real pre-commit, a real scanner, a real vault."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rotation.leaks import reports
from tests.cli.project import CHAT, HOOK, REPOSITORY, Project, Ran

REFERENCE = {"store": "vault", "name": "keyturn/fingerprints"}
BIN = Path(sys.executable).parent
IDENTITY = {f"GIT_{who}_{what}": "dev@acme.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
NO_CONFIG = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def guarded(project: Project) -> None:
    """Two secrets with fingerprints, and a developer who may read metadata and the key of fingerprints, no value."""
    project.declare(project.secret(CHAT), project.secret(HOOK), fingerprints=REFERENCE)
    assert project.run("fingerprints", "init").code == 0
    project.apply()
    role, secret = project.services.bao.approle(developer(project.installation))
    project.environ |= {"KEYTURN_VAULT_ROLE_ID": role, "KEYTURN_VAULT_SECRET_ID": secret}
    del project.environ["OPENAI_ADMIN_KEY"]


def developer(installation: str) -> str:
    """What docs/guard-rails.md says to give."""
    return f"""
path "secret/metadata/*" {{ capabilities = ["read", "list"] }}
path "secret/data/{installation}/a/keyturn/fingerprints" {{ capabilities = ["read"] }}
"""


class Repository:
    """A git repository of a service, with pre-commit installed by the hooks of this project."""

    def __init__(self, project: Project) -> None:
        self.project, self.root = project, project.root
        hooks = self.root / "hooks"
        hooks.mkdir()
        shutil.copy(REPOSITORY / ".pre-commit-hooks.yaml", hooks)
        self.git("init", "--quiet", at=hooks)
        self.git("add", ".", at=hooks)
        self.git("commit", "--quiet", "--message", "Hooks", at=hooks)
        revision = self.git("rev-parse", "HEAD", at=hooks).out.strip()
        used = {"repo": hooks.as_uri(), "rev": revision, "hooks": [{"id": "keyturn-guard-installed"}]}
        self.git("init", "--quiet")
        self.write(".pre-commit-config.yaml", yaml.safe_dump({"repos": [used]}))
        self.write(".gitignore", "hooks/\n.keyturn/\n*.jsonl\n.cache/\n")
        self.git("add", ".pre-commit-config.yaml", ".gitignore")
        self.git("commit", "--quiet", "--message", "Begin")
        self.run(str(BIN / "pre-commit"), "install")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def commit(self, **env: str) -> Ran:
        """Adds the service's files and commits them, hooks and all."""
        self.git("add", "app")
        return self.git("commit", "--message", "Work", env=env)

    def git(self, *arguments: str, at: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        return self.run("git", *arguments, at=at, env=env)

    def run(self, *command: str, at: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        path = f"{BIN}:{self.project.environ['PATH']}"
        given = {**self.project.environ, **IDENTITY, **NO_CONFIG, "PATH": path}
        given |= {"PRE_COMMIT_HOME": str(self.root / ".cache"), **(env or {})}
        done = subprocess.run(command, cwd=at or self.root, env=given, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)


def test_a_commit_with_a_managed_key_is_refused_and_a_clean_one_is_not(project: Project) -> None:
    """Whose key it is and what to do, and never the value; what the scanner takes for a key and is none of ours passes."""
    guarded(project)
    repository, key = Repository(project), project.value(CHAT)
    repository.write("app/settings.py", f'import os\n\nOPENAI_API_KEY = "{key}"  # pragma: allowlist secret\n')
    refused = repository.commit()
    assert refused.code == 1
    assert "app/settings.py:3: the current credential of support-copilot-chat" in refused.text
    assert "owner support-platform" in refused.text
    assert "take it out of the file" in refused.text
    assert "`keyturn emergency support-copilot-chat` replaces it" in refused.text
    assert key not in refused.text
    assert "Work" not in repository.git("log", "--format=%s").out
    repository.write("app/settings.py", 'import os\n\nOPENAI_API_KEY = os.environ["OPENAI_API_KEY"]\n')
    repository.write("app/other.py", 'TOKEN = "tQ7fXz2LmVb9RkWc4NdH8yPjUa6Eg3sK"\n')
    clean = repository.commit()
    assert clean.code == 0, clean.text
    assert "Work" in repository.git("log", "--format=%s").out


def test_no_value_is_read_from_the_vault(project: Project) -> None:
    """Who runs the hook could not read one: the fingerprint is enough."""
    guarded(project)
    password = project.value(HOOK)
    (project.root / "deploy.yaml").write_text(f'password: "{password}"\n')
    subprocess.run(["git", "init", "--quiet"], cwd=project.root, check=True)
    ran = project.run("guard", "deploy.yaml")
    assert ran.code == 1
    assert "current credential of support-copilot-webhook" in ran.out
    told = project.run("guard", "deploy.yaml", "--json")
    assert [(one["standing"], one["secret"], one["where"]) for one in told.json] == [("current", HOOK, "deploy.yaml:1")]
    assert not any(password in text for text in (ran.text, told.text))
    assert project.run("verify", HOOK).code != 0, "who may read no value can not verify one"


def test_where_nothing_is_found_no_store_is_asked(project: Project) -> None:
    """A developer without a login, or without a network, commits as before."""
    project.declare(project.secret(CHAT), fingerprints=REFERENCE)
    (project.root / "app.py").write_text("answer = 42\n")
    ran = project.run("guard", "app.py", KEYTURN_VAULT_ROLE_ID="")
    assert (ran.code, ran.out, ran.err) == (0, "· the scanner found nothing\n", "")
    (project.root / "gitleaks.json").write_text("[]")
    assert project.run("guard", "--report", "gitleaks.json").code == 0


def test_what_can_not_be_told_is_refused_unless_it_may_pass(project: Project) -> None:
    """A vault that does not answer is no word that the key is a stranger's."""
    guarded(project)
    project.declare(project.secret(CHAT), fingerprints={"env": "PRINTS"})
    project.change("stores.vault.address", "http://127.0.0.1:1")
    (project.root / "app.py").write_text('TOKEN = "tQ7fXz2LmVb9RkWc4NdH8yPjUa6Eg3sK"\n')
    ran = project.run("guard", "app.py", PRINTS="k" * 43)
    assert ran.code == 1
    assert "whether it holds what is ours could not be told" in ran.err
    assert project.run("guard", "app.py", "--pass-unsure", PRINTS="k" * 43).code == 0


def test_without_fingerprints_it_says_what_makes_them(project: Project) -> None:
    """Exit code 2; comparing values, which takes more rights, has to be asked for."""
    project.declare(project.secret(CHAT))
    project.apply()
    key = project.value(CHAT)
    (project.root / "app.py").write_text(f'KEY = "{key}"\n')
    ran = project.run("guard", "app.py")
    assert ran.code == 2
    assert "keyturn fingerprints init" in ran.err
    thorough = project.run("guard", "app.py", "--thorough")
    assert (thorough.code, key in thorough.text) == (1, False)


def test_a_scanner_that_is_not_there_is_named(project: Project) -> None:
    """Exit code 2 with what else can be done."""
    ran = project.run("guard", "--scanner", "trufflehog", PATH="/nowhere")
    assert ran.code == 2
    assert "trufflehog is not installed" in ran.err


# --- detect-secrets' report ------------------------------------------------------------------------


def scan(path: str, line: int, value: str) -> bytes:
    digest = hashlib.sha1(value.encode(), usedforsecurity=False).hexdigest()
    found = {"type": "Secret Keyword", "filename": path, "hashed_secret": digest, "is_verified": False}
    results: dict[str, Any] = {path: [{**found, "line_number": line}]}
    return json.dumps({"version": "1.5.0", "plugins_used": [], "results": results}).encode()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY="', "wJalrXUtnFEMI/K7MDENG/bPxRfiCY="),
        ("DSN=postgres://app:pa(55/w@rd;x)@db:5432/app", "pa(55/w@rd;x)"),
        ("  token: 'ghp_0123456789abcdef'  # mine", "ghp_0123456789abcdef"),
    ],
)
def test_a_digest_becomes_the_value_of_its_line(tmp_path: Path, line: str, value: str) -> None:
    """The report has none; the file that was scanned has."""
    (tmp_path / "app.env").write_text(f"# settings\n{line}\n")
    report = reports.read(io.BytesIO(scan("app.env", 2, value)), scanned=tmp_path)
    (finding,) = report.findings
    assert report.format == "detect-secrets"
    assert finding.value is not None
    assert (finding.value.reveal(), finding.where, finding.rule) == (value, "app.env:2", "Secret Keyword")
    (elsewhere,) = reports.read(io.BytesIO(scan("app.env", 1, value)), scanned=tmp_path).findings
    assert (elsewhere.value, elsewhere.withheld) == (None, False)


def test_a_report_makes_no_other_file_be_read(tmp_path: Path) -> None:
    """Whoever writes a report chooses its paths; beyond the folder that was scanned none is followed."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.env").write_text("KEY=0123456789abcdef\n")
    (inside / "link.env").symlink_to(tmp_path / "outside.env")
    for path in ("../outside.env", str(tmp_path / "outside.env"), "link.env", "nul\0name", "."):
        (finding,) = reports.read(io.BytesIO(scan(path, 1, "0123456789abcdef")), scanned=inside).findings
        assert finding.value is None
    (unscanned,) = reports.read(io.BytesIO(scan("outside.env", 1, "0123456789abcdef"))).findings
    assert unscanned.value is None
