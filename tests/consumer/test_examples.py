"""docs/consumers.md, taken at its word: its programs and commands run, through rotations and emergencies, on real servers."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from sandbox.aws.server import REGION
from tests.cli.project import BATCH, HOOK, KEYTURN, Project
from tests.consumer.conftest import Vaults
from tests.docs.pages import DOCS, Block, parts
from tests.postgres.conftest import place
from tests.postgres.harness import ADMIN, ADMIN_PASSWORD, OWNER, USERS, cleared
from tests.postgres.server import Place

__all__ = ["place"]  # a fixture

PAGE = DOCS / "consumers.md"
DATABASE = "support-db"


def block(test: str) -> Block:
    """The one of the page that names this test."""
    found = [part for part in parts(PAGE) if isinstance(part, Block) and (part.elsewhere or "").endswith(f"::{test}")]
    assert len(found) == 1, f"{len(found)} blocks name {test}"
    return found[0]


def program(test: str, **instead: str) -> dict[str, Any]:
    """What is there once the page's program has run, with some of its names replaced by what is here."""
    text = block(test).text
    for name, here in instead.items():
        there = {"entry": "aws://eu-west-1/prod/support-copilot-chat", "database": "vault://secret/prod/support-db"}
        there |= {"bundle": "db-ca.pem"}
        assert there[name] in text
        text = text.replace(there[name], here)
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile(text, str(PAGE), "exec"), space)  # noqa: S102 - our own page
    return space


@contextmanager
def all_the_time(work: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Does it in three threads; gives what waits for some more, and in the end every one has to have succeeded."""
    over, failures, done = threading.Event(), [], [0]

    def run() -> None:
        while not over.wait(0.01):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - to its users a request failed, whatever it was
                failures.append(repr(error))
            done[0] += 1

    def await_more() -> None:
        wanted = done[0] + 6
        while done[0] < wanted:
            assert not over.wait(0.005)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        await_more()
        yield await_more
        await_more()
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_the_openai_example_survives_rotation_and_emergency(
    project: Project, vaults: Vaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's own SDK, three threads, a rotation and an emergency that kills the old key at once: no question fails."""
    monkeypatch.setenv("OPENAI_BASE_URL", vaults.shared.openai.base_url)
    test = "test_the_openai_example_survives_rotation_and_emergency"
    space = program(test, entry=f"aws://{REGION}/{project.entry(BATCH)}")
    with all_the_time(lambda: space["ask"]("Is anybody there?")) as await_more:
        assert project.run("rotate", BATCH).code == 0
        await_more()
        assert project.run("emergency", BATCH, "--yes").code == 0
    assert space["secret"].status().version
    space["client"].close()


@pytest.fixture
def database(project: Project, place: Place, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A user of a real server, whose password is in a real vault."""
    cleared(place)
    monkeypatch.setenv("DB_ADMIN", ADMIN_PASSWORD)
    project.environ["DB_ADMIN"] = ADMIN_PASSWORD
    server = {"host": "127.0.0.1", "port": place.port, "database": "app", "caBundle": str(place.ca)}
    roles = {"users": list(USERS), "owner": OWNER, "adminUser": ADMIN, "admin": {"env": "DB_ADMIN"}}
    secret = project.secret(
        DATABASE, issuer="db", grace="1h", drain={"quietFor": "5m", "atMost": "14d", "then": "hold"}
    )
    project.declare(secret)
    project.change("issuers.db", {"kind": "postgresql", **server, **roles})
    project.apply()
    return project


def test_the_pool_survives_rotation_and_emergency(database: Project, place: Place) -> None:
    """psycopg's pool against a real server: no statement fails in a rotation, up to the old user's last session and after.

    In an emergency what runs at that moment is cut off; whatever begins after it works.
    """
    where = f"vault://secret/{database.installation}/a/{database.entry(DATABASE)}"
    space = program("test_the_pool_survives_rotation_and_emergency", database=where, bundle=str(place.ca))
    pool, secret = space["pool"], space["secret"]

    def query() -> str:
        with pool.connection() as connection:
            return str(connection.execute("SELECT session_user").fetchone()[0])

    with pool:
        first = query()
        with all_the_time(query) as await_more:
            assert database.run("rotate", DATABASE).code == 0
            secret.rejected(secret.value())  # as its time to live would have it, some minutes later
            for _ in range(200):
                await_more()
                if query() != first and not sessions(place, first):
                    break
            for _ in range(3):
                database.services.time.move(timedelta(hours=2))
                assert database.run("sweep").code == 0
        second = query()
        assert (first, second) == USERS
        assert database.run("emergency", DATABASE, "--yes").code == 0
        assert query() == first
        assert query() == first


def sessions(place: Place, user: str) -> int:
    with place.superuser() as superuser:
        row = superuser.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (user,)).fetchone()
        return int(row[0]) if row else 0


def test_the_commands_of_the_page_run(project: Project) -> None:
    """One shell after the other: what they print, and their exit codes."""
    project.declare(project.secret(HOOK))
    project.apply()
    assert shutil.which("keyturn", path=str(KEYTURN.parent))
    path = f"{KEYTURN.parent}:{project.environ['PATH']}"
    lines = block("test_the_commands_of_the_page_run").lines
    script = "\n".join(line.removeprefix("$ ") for line in lines if line.startswith("$ "))
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=project.root,
        env={**project.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [line for line in lines if not line.startswith("$ ")], done.stderr
    assert done.stderr == ""
