"""rotate, sweep, rollback, submit, adopt and release: what they do to a real vault and at an issuer, and what they say."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.cli.project import BATCH, CHAT, HOOK, Project

DAY = timedelta(days=1)


# --- rotate ----------------------------------------------------------------------------------------


def test_rotate_promotes_and_leaves_the_old_key_to_drain(project: Project) -> None:
    """Every store hands out the new key, which works; the old one works too, until its grace is over."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    before = project.value(CHAT)
    ran = project.run("rotate", CHAT)
    assert (ran.code, ran.err) == (0, "")
    assert project.value(CHAT) == project.value(CHAT, "b") != before
    assert list(project.keys().values()) == [True, True]
    assert ran.out.startswith(f"✓ {CHAT}: minted key_")
    assert "promoted in vault, promoted in mirror" in ran.out
    assert "grace period of the old credential" in ran.out


def test_rotate_in_json(project: Project) -> None:
    """One object for each secret, in the order in which they were named."""
    project.apply()
    ran = project.run("rotate", HOOK, CHAT, "--json")
    assert ran.code == 0
    assert [(one["name"], one["done"], one["error"]) for one in ran.json] == [(HOOK, True, None), (CHAT, True, None)]
    assert ran.json[1]["did"][0].startswith("minted key_")


def test_a_secret_named_twice_rotates_once(project: Project) -> None:
    """Two threads on one secret would only get in each other's way."""
    project.apply(CHAT)
    ran = project.run("rotate", CHAT, CHAT, "--json")
    assert (ran.code, len(ran.json), len(project.keys())) == (0, 1, 2)


LOOKING = ["status", "plan", "verify", "doctor"]


@pytest.mark.parametrize("command", [*LOOKING, "rotate", "emergency", "rollback", "adopt", "release"])
def test_an_unknown_name_is_refused_with_those_that_exist(project: Project, command: str) -> None:
    """Exit code 2, before anything is asked of anybody, although the other name is right."""
    names = ["nope"] if command in ("adopt", "release") else [CHAT, "nope"]
    asked = len(project.services.openai.control.requests())
    ran = project.run(command, *names, *(["--yes"] if command == "emergency" else []))
    assert (ran.code, ran.out) == (2, "")
    told = f"declares no secret nope; declared are: {CHAT}, {HOOK}. Nothing was changed"
    assert ran.err == f"Pulumi.sandbox.yaml {told}\n"
    assert len(project.services.openai.control.requests()) == asked
    assert project.everything() == {}


def test_rotating_what_is_not_applied_says_what_applies_it(project: Project) -> None:
    """And that nothing was changed."""
    ran = project.run("rotate", CHAT)
    assert ran.code == 1
    assert f"✗ {CHAT}: vault: sandbox/{CHAT}: no such entry" in ran.err
    assert "No credential was changed. The secret is not applied; `pulumi up` makes it." in ran.out
    assert project.keys() == {}


def test_a_mint_whose_answer_was_lost_is_waited_for_or_taken_over(project: Project) -> None:
    """Not done is exit code 1, with until when; --take-over does not wait. The lost key dies, the old one drains."""
    project.apply(CHAT)
    project.services.openai.control.fault("POST", "/v1/organization/projects/*/service_accounts", when="after")
    waiting = project.run("rotate", CHAT)
    assert waiting.code == 1
    assert f"✗ {CHAT}: not done; wait until " in waiting.out
    assert "attempt may still be at work" in waiting.out
    assert project.run("rotate", CHAT, "--take-over").code == 0
    assert list(project.keys().values()) == [True, False, True]


# --- sweep -----------------------------------------------------------------------------------------


def test_a_sweep_takes_a_rotation_from_due_to_dead(project: Project) -> None:
    """Rotated when due; drained after grace; revoked and shown dead; each sweep safe to repeat."""
    project.apply(CHAT)
    first = project.value(CHAT)
    quiet = project.run("sweep", "--json")
    assert (quiet.code, quiet.json[0]["did"]) == (0, [])
    project.services.time.move(31 * DAY)
    due = project.run("sweep", "--json")
    assert due.code == 0
    assert [word.split()[0] for word in due.json[0]["did"]] == ["minted", "promoted"]
    assert project.value(CHAT) != first
    again = project.run("sweep", "--json")
    assert (again.code, again.json[0]["did"]) == (0, [])
    project.services.time.move(2 * DAY)
    drained = project.run("sweep", "--json")
    assert [word.partition(" ")[0] for word in drained.json[0]["did"]] == ["condemned", "revoked", "shown"]
    assert list(project.keys().values()) == [False, True]
    before = project.everything()
    assert project.run("sweep").code == 0
    assert project.everything() == before


def test_a_sweep_finds_our_orphans_and_nobody_elses(project: Project) -> None:
    """A key under our name that nothing claims is condemned, drains and dies; others' keys are not touched."""
    project.apply(CHAT)
    ours = f"{project.installation}.sandbox-{CHAT}.{'f' * 32}"
    others = (f"{project.installation}.prod-{CHAT}.{'f' * 32}", f"other.sandbox-{CHAT}.{'f' * 32}", "deploy-bot")
    path = f"organization/projects/{project.openai_project}/service_accounts"
    orphan, *left = (project.administer("POST", path, {"name": name})["api_key"]["id"] for name in (ours, *others))
    left.append(project.own_key()[0])
    young = project.run("sweep")
    assert (young.code, "orphan" in young.text) == (0, False)
    project.services.time.move(timedelta(minutes=20))
    ran = project.run("sweep")
    assert ran.code == 0
    assert "orphaned key" in ran.out
    assert orphan in project.alive(), "somebody may use it all the same"
    project.services.time.move(timedelta(days=2))
    assert project.run("sweep").code == 0
    alive = project.alive()
    assert orphan not in alive
    assert set(left) <= set(alive)


def test_a_sweep_says_what_is_declared_and_not_applied(project: Project) -> None:
    """In words, and with --json on standard error; it is no fault."""
    project.apply(HOOK)
    told = f"{CHAT}: not applied yet; `pulumi up` makes it"
    plain, scripted = project.run("sweep"), project.run("sweep", "--json")
    assert (plain.code, scripted.code) == (0, 0)
    assert told in plain.out
    assert told in scripted.err
    assert [one["name"] for one in scripted.json] == [HOOK]


def test_a_sweep_serves_what_the_file_does_not_declare_any_more(project: Project) -> None:
    """Until `pulumi up` destroys it, its consumers rely on it."""
    project.apply()
    project.declare(project.secret(HOOK))
    project.services.time.move(31 * DAY)
    ran = project.run("sweep", "--json")
    assert ran.code == 0
    assert {one["name"] for one in ran.json if one["did"]} == {CHAT, HOOK}


def test_a_silent_store_holds_up_its_own_secrets_only(project: Project) -> None:
    """The others rotate; exit code 1, and which store it was. Orphans wait: an unseen entry may claim them."""
    project.declare(project.secret(CHAT), project.secret(BATCH, store="mirror"))
    project.apply()
    project.change("stores.mirror.address", "https://127.0.0.1:9")
    project.services.time.move(31 * DAY)
    ran = project.run("sweep", "--json")
    assert ran.code == 1
    assert "mirror: sandbox/: the server at https://127.0.0.1:9 can not be reached" in ran.err
    assert [(one["name"], bool(one["did"])) for one in ran.json] == [(CHAT, True)]
    assert "not applied" not in ran.err


def test_a_silent_issuer_holds_up_its_own_secrets_only(project: Project) -> None:
    """The password rotates although OpenAI does not answer; and nothing was minted twice for it."""
    project.apply()
    project.services.time.move(31 * DAY)
    before = project.value(HOOK)
    address = project.services.openai.base_url
    project.change("issuers.openai.baseUrl", "http://127.0.0.1:9/v1")
    ran = project.run("sweep")
    assert ran.code == 1
    assert ran.err.startswith("openai: ")
    assert project.value(HOOK) != before
    assert len(project.keys()) == 1
    project.change("issuers.openai.baseUrl", address)
    project.services.time.move(timedelta(minutes=20))
    assert project.run("sweep").code == 0
    assert len(project.keys()) == 2


# --- rollback --------------------------------------------------------------------------------------


def test_rollback_hands_out_the_previous_key_again(project: Project) -> None:
    """As a new version; what was current drains."""
    project.apply(CHAT)
    first = project.value(CHAT)
    assert project.run("rotate", CHAT).code == 0
    ran = project.run("rollback", CHAT)
    assert ran.code == 0
    assert project.value(CHAT) == first
    assert f"✓ {CHAT}: promoted in vault" in ran.out
    assert len(project.alive()) == 2


def test_there_is_no_way_back_to_a_key_that_is_gone(project: Project) -> None:
    """Exit code 1, and why; the current key stays."""
    project.apply(CHAT)
    first = project.value(CHAT)
    ran = project.run("rollback", CHAT)
    assert ran.code == 1
    assert "there is no earlier credential that still lives" in ran.out
    assert project.value(CHAT) == first


# --- submit ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def pipe(text: bytes) -> Iterator[str]:
    """The number of a descriptor that this can be read from, as a shell's `3<` gives it."""
    low, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    reading = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 700)  # a number that nobody else is given once it is closed
    os.close(low)
    try:
        yield str(reading)
    finally:
        with contextlib.suppress(OSError):  # whoever read it has closed it
            os.close(reading)


def test_submit_takes_a_value_from_a_descriptor(project: Project) -> None:
    """It is verified, promoted, and its key id is what the journal knows; the value is not on the screen."""
    project.apply(CHAT)
    key_id, value = project.own_key()
    with pipe(f"{value}\n".encode()) as number:
        ran = project.run("submit", CHAT, "--key-id", key_id, "--fd", number)
    assert ran.code == 0, ran.text
    assert project.value(CHAT) == value
    assert project.run("status", CHAT, "--json").json[0]["key_id"] == key_id
    assert value not in ran.text


def test_submit_asks_a_person_without_echo(project: Project) -> None:
    """What is typed never shows, on the terminal or in the JSON."""
    project.apply(HOOK)
    value = "Zz9" * 10 + "Zz"
    terminal = project.at_terminal("submit", HOOK, "--json")
    terminal.read_until("value: ")
    terminal.type(f"{value}\n")
    shown = terminal.end()
    assert shown.code == 0, shown.out
    assert project.value(HOOK) == value
    assert value not in shown.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "expected 1 lines, one each for value"),
        (b"one\ntwo\n", "expected 1 lines, one each for value"),
        (b"canary\xff\xfe\n", "is not UTF-8 text"),
    ],
)
def test_what_is_no_value_is_not_submitted(project: Project, text: bytes, told: str) -> None:
    """Exit code 2, what was expected, and nothing of what was read."""
    project.apply(CHAT)
    before = project.everything()
    with pipe(text) as number:
        ran = project.run("submit", CHAT, "--key-id", "key_1", "--fd", number)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert not any(word in ran.err for word in ("one\n", "two", "canary", "xff", "Traceback"))
    assert project.everything() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [((), "give --fd"), (("--fd", "9997"), "Bad file descriptor"), (("--fd", "-1"), "greater than")],
)
def test_submit_without_a_way_to_the_value(project: Project, options: tuple[str, ...], told: str) -> None:
    """Nobody types where there is no terminal, and a descriptor must be open."""
    project.apply(CHAT)
    ran = project.run("submit", CHAT, "--key-id", "key_1", *options)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_mistyped_value_is_never_handed_out(project: Project) -> None:
    """It is staged and refused; exit code 1 says that it did not become current."""
    project.apply(HOOK)
    with pipe(b"too-short\n") as number:
        ran = project.run("submit", HOOK, "--fd", number)
    assert ran.code == 1
    assert f"✗ {HOOK}: not done" in ran.out
    assert project.value(HOOK) != "too-short"
    assert "too-short" not in ran.text


# --- adopt and release -----------------------------------------------------------------------------


def test_adopt_changes_no_value_and_the_next_rotation_retires_it(project: Project) -> None:
    """Managed from now on; with its key id, the old key dies like one of ours."""
    key_id, value = project.own_key()
    project.put(CHAT, value)
    ran = project.run("adopt", CHAT, "--key-id", key_id)
    assert ran.code == 0
    assert f"✓ {CHAT}: managed from now on" in ran.out
    assert project.value(CHAT) == value
    assert project.run("rotate", CHAT).code == 0
    assert project.value(CHAT) != value
    project.services.time.move(2 * DAY)
    assert project.run("sweep").code == 0
    assert project.keys()[key_id] is False


def test_adopt_without_a_key_id_says_what_that_means(project: Project) -> None:
    """A person has to revoke it; in JSON the id is null."""
    project.put(HOOK, "Aa1" * 10 + "Aa")
    ran = project.run("adopt", HOOK, "--json")
    assert (ran.code, ran.json["adopted"], ran.json["key_id"]) == (0, True, None)
    project.put(CHAT, project.own_key()[1])
    assert "Keyturn will not revoke it" in project.run("adopt", CHAT).out


def test_what_can_not_be_adopted_is_left_alone(project: Project) -> None:
    """Managed already, dead, or not there: exit code 1, why, and nothing was changed."""
    project.apply(HOOK)
    project.put(CHAT, "sk-svcacct-long-dead")
    project.declare(*(project.secret(name) for name in (CHAT, HOOK, BATCH)))
    before = project.everything()
    for name, told in ((HOOK, "is managed already"), (CHAT, "its credential is refused"), (BATCH, "no such entry")):
        ran = project.run("adopt", name)
        assert ran.code == 1
        assert told in ran.err
        assert ran.err.endswith("Nothing was changed.\n")
        assert "long-dead" not in ran.text
    assert project.everything() == before


def test_release_hands_an_entry_back(project: Project) -> None:
    """Policy and journal are off it, value and key are as they were; sweeps leave it alone, and it can be adopted."""
    project.apply(CHAT)
    value = project.value(CHAT)
    ran = project.run("release", CHAT)
    assert (ran.code, ran.err) == (0, "")
    assert "take it out of Pulumi.sandbox.yaml" in ran.out
    about = project.vault("GET", f"metadata/{project.installation}/a/{project.entry(CHAT)}")
    assert not about["custom_metadata"]
    project.services.time.move(31 * DAY)
    assert project.run("sweep", "--json").json == []
    assert project.value(CHAT) == value
    assert list(project.keys().values()) == [True]
    assert project.run("adopt", CHAT).code == 0
    assert project.run("release", CHAT, "--json").json == {"name": CHAT, "released": True}


def test_what_drains_is_not_released(project: Project) -> None:
    """Its old key would live for ever."""
    project.apply(CHAT)
    project.run("rotate", CHAT)
    ran = project.run("release", CHAT)
    assert ran.code == 1
    assert "an old credential drains" in ran.err
    assert ran.err.endswith("Nothing was changed.\n")
