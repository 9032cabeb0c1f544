"""The Pulumi CLI: found, refused or installed as declared; and one dynamic resource through its whole life."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import pulumi_cli
from sandbox.pulumi_cli import PulumiCli, ensure

PROGRAM = """
import pulumi
from shelf import Book

book = Book("book", title=pulumi.Config().require("title"))
pulumi.export("place", book.place)
"""

PROVIDER = '''
"""A book is a file on a shelf: the least that a dynamic provider can really create, change and delete."""

import os
from pathlib import Path

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult


class Shelf(ResourceProvider):
    serialize_as_secret_always = False

    def create(self, props):
        place = Path(os.environ["SHELF"]) / "book"
        place.write_text(props["title"])
        return CreateResult(str(place), {"title": props["title"], "place": str(place)})

    def diff(self, _id, olds, news):
        return DiffResult(changes=olds["title"] != news["title"])

    def update(self, id_, _olds, news):
        Path(id_).write_text(news["title"])
        return UpdateResult({"title": news["title"], "place": id_})

    def read(self, id_, props):
        if not Path(id_).exists():
            return ReadResult("", {})
        return ReadResult(id_, {"title": Path(id_).read_text(), "place": id_})

    def delete(self, id_, _props):
        Path(id_).unlink(missing_ok=True)


class Book(Resource):
    place: pulumi.Output[str]

    def __init__(self, name, title):
        super().__init__(Shelf(), name, {"title": title, "place": None})
'''


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH is one empty directory, so that nothing installed on this machine counts."""
    directory = tmp_path / "on-path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("KEYTURN_NO_DOWNLOAD", "1")
    return directory


@pytest.fixture
def silent_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that takes connections and never answers stands between us and the installer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield


def test_a_cli_on_path_is_used(bare_path: Path, tmp_path: Path) -> None:
    """`pulumi` on PATH with its language host is taken, and comes first on the PATH that it is run with."""
    script(bare_path / "pulumi", "echo v3.272.0")
    script(bare_path / "pulumi-language-python", "")
    found = ensure(lambda _: None, directory=tmp_path / "none")
    assert found == PulumiCli(path=bare_path / "pulumi", version="3.272.0", source="path")
    assert found.env()["PATH"].split(os.pathsep)[0] == str(bare_path)


@pytest.mark.parametrize(
    ("answer", "host", "reason"),
    [
        ("echo v3.272.0", False, "pulumi-language-python"),
        ("exit 3", True, "exit status 3"),
        ("echo v4.0.0", True, "Major version mismatch"),
    ],
)
def test_a_cli_that_cannot_run_our_programs_is_refused(
    bare_path: Path, tmp_path: Path, answer: str, host: bool, reason: str
) -> None:
    """No language host, a binary that fails, another major version: not used, and the reason is reported."""
    script(bare_path / "pulumi", answer)
    if host:
        script(bare_path / "pulumi-language-python", "")
    said: list[str] = []
    assert ensure(said.append, directory=tmp_path / "none") is None
    assert reason in said[0]
    assert said[-1] == "the Pulumi installer was not tried: KEYTURN_NO_DOWNLOAD=1"


def test_an_installed_cli_is_used_without_the_internet(bare_path: Path, tmp_path: Path) -> None:
    """What the installer left in `.keyturn/pulumi` is answered at once, downloads forbidden."""
    script(tmp_path / "pulumi" / "bin" / "pulumi", "echo v3.272.0")
    script(tmp_path / "pulumi" / "bin" / "pulumi-language-python", "")
    found = ensure(lambda _: None, directory=tmp_path)
    assert found is not None
    assert (found.source, found.path) == ("installed", tmp_path / "pulumi" / "bin" / "pulumi")


def test_an_unreachable_installer_fails_fast_and_leaves_nothing(
    bare_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_proxy: None
) -> None:
    """Where the internet swallows packets, the attempt ends at its limit with a reason and no file."""
    monkeypatch.delenv("KEYTURN_NO_DOWNLOAD")
    monkeypatch.setattr(pulumi_cli, "_REACH_SECONDS", 1.0)
    said: list[str] = []
    directory = tmp_path / "keyturn"
    assert ensure(said.append, directory=directory) is None
    assert said[-1] == "the Pulumi installer cannot be reached: no end after 1 s"
    assert not directory.exists()


def test_the_command_says_what_to_do(bare_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a CLI the command exits 1, prints no path, and names what to install."""
    assert pulumi_cli.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "https://www.pulumi.com/docs/install/" in err


def test_a_dynamic_resource_lives_and_dies(cli: PulumiCli, tmp_path: Path) -> None:
    """preview, up, an up that changes nothing, an update, refresh and destroy, on a file backend and offline."""
    project, shelf, state = tmp_path / "project", tmp_path / "shelf", tmp_path / "state"
    for directory in (project, shelf, state):
        directory.mkdir()
    (project / "Pulumi.yaml").write_text(
        f"name: library\nruntime:\n  name: python\n  options:\n    virtualenv: {sys.prefix}\n"
    )
    (project / "__main__.py").write_text(PROGRAM)
    (project / "shelf.py").write_text(PROVIDER)
    environment = {
        **os.environ,
        **cli.env(),
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "for this test only",
        "SHELF": str(shelf),
    }

    def pulumi(*arguments: str) -> str:
        done = subprocess.run(
            [str(cli.path), "--non-interactive", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"pulumi {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    book = shelf / "book"
    pulumi("stack", "init", "dev")
    pulumi("config", "set", "title", "Middlemarch")
    pulumi("preview")
    assert not book.exists()
    pulumi("up", "--yes", "--skip-preview")
    assert book.read_text() == "Middlemarch"
    assert json.loads(pulumi("stack", "output", "--json")) == {"place": str(book)}
    pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    pulumi("config", "set", "title", "Emma")
    pulumi("up", "--yes", "--skip-preview")
    assert book.read_text() == "Emma"
    pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    pulumi("destroy", "--yes", "--skip-preview")
    assert not book.exists()
