"""status and plan: what narrows and orders them, and the watch that stays on the screen."""

import re
from datetime import timedelta

import pytest

from tests.cli.project import BATCH, CHAT, HOOK, Project


@pytest.fixture
def three(project: Project) -> Project:
    """Two owners, two issuers, two stores; one secret is condemned, one overdue, one not applied."""
    project.declare(
        project.secret(CHAT, replicas=["mirror"]),
        project.secret(BATCH, owner="sales"),
        project.secret(HOOK),
        owners={"support-platform": {"notify": []}, "sales": {"notify": []}},
    )
    project.apply(CHAT, BATCH)
    a = project.assembly()
    a.engine.condemn(a.target(project.policy(CHAT)))
    project.services.time.move(timedelta(days=31))
    return project


@pytest.mark.parametrize(
    ("options", "names", "code"),
    [
        ((), [CHAT, BATCH, HOOK], 3),
        (("--owner", "sales"), [BATCH], 0),
        (("--owner", "sales", "--owner", "support-platform"), [CHAT, BATCH, HOOK], 3),
        (("--owner", "support-platform", "--issuer", "generated"), [HOOK], 0),
        (("--store", "mirror"), [CHAT], 3),
        (("--environment", "sandbox", "--store", "vault", "--phase", "condemned"), [CHAT], 3),
        (("--phase", "not-applied"), [HOOK], 0),
        (("--phase", "held"), [], 0),
        (("--sort", "name"), [BATCH, CHAT, HOOK], 3),
    ],
)
def test_rows_and_the_exit_code_are_of_what_was_asked_for(
    three: Project, options: tuple[str, ...], names: list[str], code: int
) -> None:
    """In JSON and for people; of the others nothing is said."""
    ran = three.run("status", *options, "--json")
    assert ([one["name"] for one in ran.json], ran.code) == (names, code)
    shown = three.run("status", *options)
    assert shown.code == code
    assert [name for name in (CHAT, BATCH, HOOK) if name in shown.out] == [n for n in (CHAT, BATCH, HOOK) if n in names]
    planned = three.run("plan", *options, "--json").json
    assert {one["name"] for one in planned} == set(names)


def test_overdue_is_what_is_older_than_allowed(three: Project) -> None:
    """Not what is merely due, nor what has no credential."""
    found = three.run("status", "--overdue", "--json").json
    assert [one["name"] for one in found] == [CHAT, BATCH]
    assert "overdue 24 h" in three.run("status", BATCH).out
    assert three.run("rotate", BATCH).code == 0
    assert [one["name"] for one in three.run("status", "--overdue", "--json").json] == [CHAT]


def test_secrets_that_are_not_asked_for_are_not_looked_at(three: Project) -> None:
    """No call is made for them."""
    log = three.services.bao.audit_log
    heard = log.stat().st_size
    assert three.run("status", "--owner", "sales").code == 0
    with log.open() as file:
        file.seek(heard)
        told = file.read()
    assert BATCH in told
    assert CHAT not in told


@pytest.mark.parametrize("command", ["status", "plan"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--owner", "sale"),
            "--owner: there is no owner sale (did you mean sales?); there are: support-platform, sales",
        ),
        (("--phase", "stedy"), "--phase: there is no phase stedy (did you mean steady?)"),
        (("--environment", "prod"), "--environment: there is no environment prod; there is: sandbox"),
        (("--sort", "size"), "'size' is not one of 'due', 'age', 'name', 'owner'"),
    ],
)
def test_what_does_not_exist_is_refused(three: Project, command: str, options: tuple[str, ...], told: str) -> None:
    """An empty list would look like good news."""
    ran = three.run(command, *options)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_selection_that_has_nothing_says_so(three: Project) -> None:
    """On standard error, so that a script reads no rows; JSON is an empty list."""
    ran = three.run("status", "--phase", "held", "--owner", "sales")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "Pulumi.sandbox.yaml has no such secret: --owner sales --phase held.\n"
    assert three.run("status", "--phase", "held", "--json").json == []


def test_secrets_that_can_not_be_looked_at_say_what_is_next(three: Project) -> None:
    """What was asked, what happens by itself, what the person can do; once for all of them."""
    three.change("stores.vault.address", "https://127.0.0.1:9")
    ran = three.run("status")
    assert ran.code == 1
    assert ran.err.count("`keyturn doctor` tells which login, right or address it is") == 1
    assert "asked again by the next sweep" in ran.err


# --- the watch -------------------------------------------------------------------------------------

ALTERNATE, USUAL = "\x1b[?1049h", "\x1b[?1049l"
"""How a terminal is told to use its second screen, and the first again."""


def screen(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)


@pytest.mark.parametrize(("secret", "code"), [(CHAT, 3), (BATCH, 0)])
def test_a_watch_stays_until_it_is_interrupted(three: Project, secret: str, code: int) -> None:
    """It looks again by itself, on a screen of its own, and leaves the terminal as it was, with the code of the last look."""
    terminal = three.at_terminal("status", "--watch=1", secret, columns=120)
    terminal.read_until("looking again")
    before = terminal.seen.count(secret)
    three.apply(HOOK)
    terminal.read_until("again in 1 s")
    terminal.type("\x03")
    shown = terminal.end()
    assert before
    assert shown.code == code
    assert shown.out.count(ALTERNATE) == shown.out.count(USUAL) == 1
    assert shown.out.rindex("\x1b[?25h") > shown.out.rindex("\x1b[?25l")
    assert "Traceback" not in shown.out
    assert "Ctrl-C ends" in screen(shown.out)
    assert screen(shown.out.rpartition(USUAL)[2]).strip() == ""


def test_a_watch_shows_what_has_changed(three: Project) -> None:
    """At the next look."""
    terminal = three.at_terminal("status", "--watch=1s", "--owner", "support-platform", columns=120)
    terminal.read_until("not applied")
    three.apply(HOOK)
    terminal.read_until("steady")
    terminal.type("\x03")
    ended = terminal.end()
    assert ended.code == 3, screen(ended.out)[-300:]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--watch",), "--watch draws on a terminal that it can redraw, and standard output is none"),
        (("--watch=5s", "--json"), "--watch draws rows again and again; it does not go with --json"),
        (("--watch=5s", "--usage"), "it does not go with --usage"),
        (("--watch=soon",), "--watch: 'soon' is not a duration"),
        (("--watch=0",), "--watch: 0 is less than 1s"),
        (("--watch", "5"), "standard output is none"),
    ],
)
def test_a_watch_that_can_not_be_is_refused(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, in a sentence."""
    ran = project.run("status", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_terminal_that_can_not_redraw_has_no_watch(project: Project) -> None:
    """TERM=dumb."""
    shown = project.at_terminal("status", "--watch", env={"TERM": "dumb"}).end()
    assert shown.code == 2
    assert ALTERNATE not in shown.out
