"""emergency: from a leak to a key that is shown dead, what is told on the way, and what the exit code promises."""

import re
from datetime import timedelta

import pytest

from tests.cli.project import CHAT, HOOK, Project


def test_a_leaked_key_is_replaced_revoked_and_shown_dead(project: Project) -> None:
    """Exit code 0: every store hands out another one, the old one is refused, and each took a time that is printed."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    leaked = project.value(CHAT)
    ran = project.run("emergency", CHAT, "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert f"{CHAT} (sandbox, owner support-platform): replace, then revoke without grace" in ran.out
    assert re.search(rf"^{CHAT}: replaced \d+\.\d s, contained \d+\.\d s, shown dead \d+\.\d s$", ran.out, re.MULTILINE)
    assert project.value(CHAT) == project.value(CHAT, "b") != leaked
    assert list(project.keys().values()) == [False, True]
    assert leaked not in ran.text


def test_the_times_are_in_the_json_in_their_order(project: Project) -> None:
    """First another key, then the revocation, then the proof; and all live keys of the secret go, draining ones too."""
    project.apply(CHAT)
    project.run("rotate", CHAT)
    ran = project.run("emergency", CHAT, "--yes", "--json")
    (report,) = ran.json
    assert ran.code == 0
    assert (report["name"], report["error"]) == (CHAT, None)
    assert 0 < report["replaced_seconds"] <= report["contained_seconds"] < report["proven_seconds"]
    assert list(project.keys().values()) == [False, False, True]


def test_contain_first_revokes_before_it_replaces(project: Project) -> None:
    """An outage that was asked for, and is announced to whom it hits, until when."""
    project.declare(project.secret(CHAT, consumers=[{"name": "support-api", "refreshWithin": "15m"}]))
    project.apply()
    ran = project.run("emergency", CHAT, "--contain-first", "--yes")
    assert ran.code == 0
    assert "revoke at once, then replace" in ran.out
    assert "support-api fails with what it has cached until it refreshes, within 15 min" in ran.out
    events = [record["event"] for record in project.audit()]
    assert events.index("contain") < events.index("mint") < events.index("promote.done")
    assert list(project.keys().values()) == [False, True]


def test_contain_after_is_told_and_wins_over_the_policy(project: Project) -> None:
    """The applied policy's time, or the one given; a file that is not applied has no say."""
    project.declare(project.secret(CHAT, containAfter="20m"))
    project.apply()
    project.declare(project.secret(CHAT, containAfter="1m"))
    assert "contained after 20 min even if it can not be replaced" in project.run("emergency", CHAT, "--yes").out
    ran = project.run("emergency", CHAT, "--contain-after", "3h", "--yes")
    assert ran.code == 0
    assert "contained after 3 h even if it can not be replaced" in ran.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "give --yes"),
        (("--yes", "--contain-after", "soon"), "'soon' is not a duration"),
        (("--yes", "--contain-first", "--contain-after", "5m"), "give one of the two"),
    ],
)
def test_what_can_not_be_meant_condemns_nothing(project: Project, options: tuple[str, ...], told: str) -> None:
    """Nobody to confirm, no duration, a contradiction: exit code 2, and every key lives."""
    project.apply(CHAT)
    before = project.everything()
    ran = project.run("emergency", CHAT, *options)
    assert ran.code == 2
    assert told in ran.err
    assert project.everything() == before
    assert list(project.keys().values()) == [True]


def test_a_person_is_asked_and_may_say_no(project: Project) -> None:
    """Exit code 1, and every key lives."""
    project.apply(CHAT)
    before = project.everything()
    terminal = project.at_terminal("emergency", CHAT)
    terminal.read_until("Go ahead? [y/N]:")
    terminal.type("n\n")
    shown = terminal.end()
    assert shown.code == 1
    assert "Nothing was changed." in shown.out
    assert project.everything() == before


def test_a_key_that_lives_on_is_exit_code_3_until_a_sweep_has_shown_it_dead(project: Project) -> None:
    """The issuer says it is revoked and accepts it all the same: told as such, and never let go of."""
    project.apply(CHAT)
    project.services.openai.control.configure(revoke_delay=3600)
    ran = project.run("emergency", CHAT, "--yes")
    assert ran.code == 3
    assert re.search(rf"^{CHAT}: replaced \d+\.\d s, contained \d+\.\d s, shown dead not yet$", ran.out, re.MULTILINE)
    assert "run this again, or the next sweep goes on by itself" in ran.out
    assert list(project.keys().values()) == [True, True]
    shown = project.run("status", "--json")
    assert (shown.code, shown.json[0]["phase"]) == (3, "revoked, unproven")
    project.services.time.move(timedelta(hours=1))
    assert project.run("sweep").code == 0
    assert project.run("status").code == 0
    assert list(project.keys().values()) == [False, True]


def test_an_emergency_that_is_repeated_spares_the_replacement(project: Project) -> None:
    """Run again after it was done, it is a new emergency; run again while one is open, it goes on with that."""
    project.apply(CHAT)
    project.services.openai.control.fault("DELETE", "/v1/organization/projects/*/api_keys/*", times=1000, status=500)
    assert project.run("emergency", CHAT, "--yes").code == 3
    replacement = project.value(CHAT)
    project.services.openai.control.clear_faults()
    assert project.run("emergency", CHAT, "--yes").code == 0
    assert project.value(CHAT) == replacement
    assert list(project.keys().values()) == [False, True]


def test_a_generated_value_can_only_be_replaced(project: Project) -> None:
    """Nobody refuses it: the command says so instead of a proof."""
    project.apply(HOOK)
    before = project.value(HOOK)
    ran = project.run("emergency", HOOK, "--yes")
    assert ran.code == 0
    assert "no issuer enforces this value, so whoever accepts it has to stop" in ran.out
    assert project.value(HOOK) != before


def test_what_is_not_applied_has_nothing_to_kill(project: Project) -> None:
    """Exit code 1, not 3: there is no key."""
    ran = project.run("emergency", CHAT, "--yes")
    assert ran.code == 1
    assert "no such entry" in ran.err
    assert "Not applied yet; `pulumi up` makes it." in ran.out


def test_a_vault_that_is_down_leaves_the_leaked_key_alive_and_says_so(project: Project) -> None:
    """Exit code 3: nothing could be marked, so no sweep will go on by itself. What can be done instead is told."""
    project.apply(CHAT)
    project.change("stores.vault.address", "https://127.0.0.1:9")
    ran = project.run("emergency", CHAT, "--yes")
    assert ran.code == 3
    assert f"{CHAT}: vault: " in ran.err
    assert "Nothing was changed. What leaked is alive: run this again" in ran.out
    assert "the next sweep" not in ran.out
    assert list(project.keys().values()) == [True]


def test_several_leaks_at_once_have_a_report_each(project: Project) -> None:
    """In the order in which they were named; the exit code is that of the worst."""
    project.apply(CHAT)
    ran = project.run("emergency", HOOK, CHAT, "--yes", "--json")
    assert ran.code == 1
    assert [(r["name"], r["replaced_seconds"] is not None, r["error"] is None) for r in ran.json] == [
        (HOOK, False, False),
        (CHAT, True, True),
    ]
