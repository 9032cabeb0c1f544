"""break-glass: what a person can do while the vault is away, or has lost its metadata, and how all settles afterwards."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import requests

from rotation.cli.breakglass import app
from rotation.names import KeyName
from sandbox.loopback import Answer, Asked
from tests.cli.project import CHAT, HOOK, Project
from tests.cli.relay import Relay
from tests.notify.places import endpoint

NOWHERE = "https://127.0.0.1:9"
COMMANDS = sorted(f"break-glass {command.name or command.callback.__name__}" for command in app.registered_commands)  # type: ignore[union-attr]


def fd(*lines: str) -> str:
    """The number of a descriptor that gives these lines, as `3< <(pass show …)` does."""
    ours, theirs = os.pipe()
    os.write(theirs, "".join(f"{line}\n" for line in lines).encode())
    os.close(theirs)
    return str(ours)


def admin(project: Project) -> tuple[str, ...]:
    """The options that give the admin credential by hand."""
    return ("--admin-from", "openai", "--admin-fd", fd(project.services.openai.admin_key))


def vault_down(project: Project) -> str:
    """The vault is away, and with it the issuer's admin credential. Gives the address that it had."""
    address = str(project.services.bao.address)
    for store in ("vault", "mirror"):
        project.change(f"stores.{store}.address", NOWHERE)
    project.change("issuers.openai.admin", {"store": "vault", "name": "shared/openai"})
    return address


def vault_up(project: Project, address: str) -> None:
    for store in ("vault", "mirror"):
        project.change(f"stores.{store}.address", address)
    project.change("issuers.openai.admin", {"env": "OPENAI_ADMIN_KEY"})


def metadata(project: Project, name: str = CHAT, store: str = "a") -> dict[str, Any]:
    path = f"metadata/{project.installation}/{store}/{project.entry(name)}"
    found: dict[str, Any] = project.vault("GET", path)["custom_metadata"] or {}
    return found


def lose_metadata(project: Project, name: str = CHAT, store: str = "a") -> None:
    """As `vault kv metadata put` without -custom-metadata does: the versions stay, policy and journal are gone."""
    path = f"metadata/{project.installation}/{store}/{project.entry(name)}"
    project.vault("POST", path, {"custom_metadata": {}})
    assert metadata(project, name, store) == {}


def key_id(project: Project, index: int = -1) -> str:
    return list(project.keys())[index]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_an_example(project: Project, command: str) -> None:
    """And has the options that every command has."""
    shown = project.run(*command.split(), "--help")
    assert shown.code == 0
    assert f"Example: keyturn {command}" in " ".join(shown.out.split())
    assert all(
        option in shown.out for option in ("--stack NAME", "--config FILE", "--json", "--admin-from", "--admin-fd")
    )


# --- listing -------------------------------------------------------------------------------------


def test_our_keys_are_listed_while_the_vault_is_away(project: Project) -> None:
    """With the admin credential from a descriptor, as its own place is away too; keys of others are counted, not shown."""
    project.apply(CHAT)
    project.own_key("made in the dashboard")
    project.own_key(str(KeyName("other", "sandbox", CHAT, "a" * 32)))
    vault_down(project)
    assert project.run("break-glass", "list", "openai").code == 1, "its admin credential is in the vault"
    ran = project.run("break-glass", "list", "openai", *admin(project))
    assert ran.code == 0
    shown = [line for line in ran.out.splitlines() if CHAT in line]
    assert len(shown) == 1
    assert re.fullmatch(rf"\S*{key_id(project, 0)}  {CHAT}, \S+ \w+ old, token [0-9a-f]{{32}}", shown[0])
    assert "1 of ours at openai; 2 with other names" in ran.out


def test_the_list_is_there_for_scripts_and_says_of_which_environment_a_key_is(project: Project) -> None:
    """An issuer may serve several environments of one installation."""
    project.apply(CHAT)
    project.own_key(str(KeyName(project.installation, "staging", CHAT, "b" * 32)))
    (ours, theirs) = project.run("break-glass", "list", "openai", "--json").json
    assert (ours["environment"], ours["secret"], theirs["environment"]) == ("sandbox", CHAT, "staging")
    assert ours["age_seconds"] >= 0
    assert ours["token"] in str(metadata(project))


def test_an_issuer_that_keeps_no_list_is_told_as_such(project: Project) -> None:
    """There is nothing to see at a generator of passwords."""
    ran = project.run("break-glass", "list", "generated")
    assert ran.code == 1
    assert "generated: lists no keys under names" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--admin-from", "openai"), "nobody is there to type the admin credential of openai; give --admin-fd"),
        (("--admin-from", "opnai"), "--admin-from opnai: the issuer is not declared; allowed: openai"),
        (("--admin-from", "generated"), "--admin-from generated: the issuer has no admin credential; allowed: openai"),
        (("--admin-fd", "7"), "--admin-fd has no effect without --admin-from"),
        (("--admin-from", "openai", "--admin-fd", "99"), "--admin-fd 99: Bad file descriptor"),
    ],
)
def test_an_admin_credential_that_can_not_be_taken(project: Project, options: tuple[str, ...], told: str) -> None:
    """Exit code 2, and what is allowed."""
    ran = project.run("break-glass", "list", "openai", *options)
    assert (ran.code, told in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("lines", [(), ("one", "two"), ("",)])
def test_a_descriptor_gives_one_line_for_each_issuer(project: Project, lines: tuple[str, ...]) -> None:
    """Anything else was given by mistake, and is not repeated."""
    ran = project.run("break-glass", "list", "openai", "--admin-from", "openai", "--admin-fd", fd(*lines))
    assert ran.code == 2
    assert "expected 1 lines: admin credential of openai" in ran.err
    assert "two" not in ran.text


def test_an_admin_credential_is_typed_without_echo(project: Project) -> None:
    """At a terminal, and it appears nowhere."""
    project.apply(CHAT)
    project.environ["OPENAI_ADMIN_KEY"] = "none"
    terminal = project.at_terminal("break-glass", "list", "openai", "--admin-from", "openai")
    terminal.read_until("admin credential of openai: ")
    terminal.type(project.services.openai.admin_key + "\n")
    shown = terminal.end()
    assert shown.code == 0
    assert "1 of ours at openai" in shown.out
    assert project.services.openai.admin_key not in shown.out


# --- revoking ------------------------------------------------------------------------------------


def test_a_key_is_killed_while_the_vault_is_away_and_replaced_once_it_is_back(project: Project) -> None:
    """Shown refused by its value; the next sweep finds the current credential dead and replaces it at once."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    leaked = project.value(CHAT)
    address = vault_down(project)
    listed = project.run("break-glass", "list", "openai", "--json", *admin(project)).json
    ran = project.run(
        "break-glass", "revoke", "openai", listed[0]["key_id"], "--yes", "--value-fd", fd(leaked), *admin(project)
    )
    assert ran.code == 0
    assert f"✓ {listed[0]['key_id']}: revoked and shown dead: its value is refused" in ran.out
    assert list(project.keys().values()) == [False]
    assert leaked not in ran.text
    vault_up(project, address)
    swept = project.run("sweep")
    assert swept.code == 0
    assert project.value(CHAT) == project.value(CHAT, "b") != leaked
    assert list(project.keys().values()) == [False, True]
    assert project.run("status").code == 0
    project.services.time.move(timedelta(days=2))
    assert project.run("sweep").code == 0
    assert len([fact for fact in metadata(project) if fact.startswith("journal.")]) == 3, "all has settled"


def test_what_was_done_stands_in_the_audit_trail_without_values(project: Project) -> None:
    """That the admin credential came from a person, the revocation before and after, and the proof."""
    project.apply(CHAT)
    leaked = project.value(CHAT)
    vault_down(project)
    chosen = project.run("break-glass", "list", "openai", "--json", *admin(project)).json[0]
    project.run("break-glass", "revoke", "openai", chosen["key_id"], "-y", "--value-fd", fd(leaked), *admin(project))
    records = [record for record in project.audit() if record["event"] != "chain.begun"]
    assert [record["event"] for record in records] == ["admin.given", "revoke", "revoke.done", "proven"]
    assert {record["secret"] for record in records[1:]} == {project.entry(CHAT)}
    assert {(record["key_id"], record["token"]) for record in records[1:]} == {(chosen["key_id"], chosen["token"])}
    assert records[-1]["detail"]["how"] == "refused"
    everything = project.audit_file.read_text()
    assert leaked not in everything
    assert project.services.openai.admin_key not in everything


def test_without_its_value_a_key_is_shown_gone_from_the_list(project: Project) -> None:
    """Once the time is over that the issuer needs for a revocation: a list may be ahead of those who check keys."""
    project.apply(CHAT)
    before = project.services.time.now()
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", "--json")
    assert ran.code == 0
    assert [(row["key_id"], row["how"], row["error"]) for row in ran.json] == [(chosen, "absent", None)]
    assert project.services.time.now() - before >= timedelta(minutes=5)


def test_a_key_that_lives_on_is_exit_code_3(project: Project) -> None:
    """The issuer says that it is revoked and accepts it all the same."""
    project.apply(CHAT)
    project.services.openai.control.configure(revoke_delay=3600)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", "--value-fd", fd(project.value(CHAT)))
    assert ran.code == 3
    assert f"✗ {chosen}: revoked, not shown dead" in ran.out
    assert "its value is still accepted" in ran.err


@contextmanager
def lying(project: Project, lie: Callable[[Asked], Answer | None]) -> Iterator[None]:
    """The issuer's answers pass through somebody who answers in its place."""
    openai = project.services.openai
    with Relay(openai.base_url.removesuffix("/v1")) as relay:
        relay.instead = lie
        project.change("issuers.openai.baseUrl", f"{relay.url}/v1")
        yield
    project.change("issuers.openai.baseUrl", openai.base_url)


def test_a_key_that_stays_in_the_list_is_not_shown_dead(project: Project) -> None:
    """Whatever the answer to the revocation said."""
    project.apply(CHAT)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]

    def done(asked: Asked) -> Answer | None:
        said = {"object": "organization.project.api_key.deleted", "id": chosen, "deleted": True}
        return Answer(200, json.dumps(said).encode()) if asked.method == "DELETE" else None

    with lying(project, done):
        ran = project.run("break-glass", "revoke", "openai", chosen, "--yes")
    assert ran.code == 3
    assert f"✗ {chosen}: revoked, not shown dead" in ran.out
    assert "its issuer still lists it" in ran.err


def test_one_refusal_is_no_proof(project: Project) -> None:
    """Some servers of an issuer hear of a revocation before others."""
    project.apply(CHAT)
    project.services.openai.control.configure(revoke_delay=3600)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    tries: list[int] = []

    def refused(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/models"):
            return None
        tries.append(1)
        said = {"error": {"code": "invalid_api_key", "message": "no", "type": "invalid_request_error", "param": None}}
        return Answer(401, json.dumps(said).encode()) if len(tries) % 3 == 2 else None

    with lying(project, refused):
        ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", "--value-fd", fd(project.value(CHAT)))
    assert len(tries) > 10
    assert ran.code == 3
    assert list(project.keys().values()) == [True], "the issuer accepts it for an hour yet"


def test_one_that_can_not_be_revoked_does_not_hold_up_the_others(project: Project) -> None:
    """It is told as alive, with what its issuer said."""
    project.apply(CHAT)
    project.run("rotate", CHAT)
    first, second = (row["key_id"] for row in project.run("break-glass", "list", "openai", "--json").json)
    bare = first.rpartition("/")[2]
    project.services.openai.control.fault(
        "DELETE", f"/v1/organization/projects/*/api_keys/{bare}", times=1000, status=403
    )
    ran = project.run("break-glass", "revoke", "openai", first, second, "--yes")
    assert ran.code == 3
    assert f"✗ {first}: alive" in ran.out
    assert f"✓ {second}: revoked and shown dead" in ran.out


@pytest.mark.parametrize("given", ["sk-never-a-key-0000000000", ""])
def test_a_value_that_is_not_the_keys_shows_nothing(project: Project, given: str) -> None:
    """One that is refused even before is not taken for a proof; the issuer's list is."""
    project.apply(CHAT)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", "--value-fd", fd(given))
    assert ran.code == 0
    assert "it is gone from the issuer's list" in ran.out
    assert ("the value given shows nothing" in ran.err) == bool(given)


def test_the_value_of_another_key_is_no_proof(project: Project) -> None:
    """It is accepted before, and still accepted afterwards."""
    project.apply(CHAT)
    _, other = project.own_key()
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", "--value-fd", fd(other))
    assert ran.code == 3
    assert other not in ran.text


def test_what_is_not_ours_by_name_is_refused(project: Project) -> None:
    """A person's key, another environment's, and one that no list shows; with --not-ours they go."""
    project.apply(CHAT)
    person, _ = project.own_key()
    staging, _ = project.own_key(str(KeyName(project.installation, "staging", CHAT, "b" * 32)))
    for chosen, told in (
        (person, "not ours by its name"),
        (staging, "is of environment staging"),
        ("key_x", "lists no"),
    ):
        ran = project.run("break-glass", "revoke", "openai", chosen, "--yes")
        assert (ran.code, told in ran.err) == (2, True), ran.err
    assert all(project.keys().values())
    ran = project.run("break-glass", "revoke", "openai", person, staging, "--yes", "--not-ours")
    assert ran.code == 0
    assert list(project.keys().values()) == [True, False, False]


def test_a_key_in_no_list_is_never_shown_dead_without_its_value(project: Project) -> None:
    """It may have been mistyped: its absence from the list shows nothing."""
    ran = project.run("break-glass", "revoke", "openai", "key_mistyped", "--yes", "--not-ours")
    assert ran.code == 3
    assert "it stood in no list" in ran.err


def test_the_plan_names_owner_and_consumers_and_a_name_is_typed(project: Project) -> None:
    """Nothing takes the place of what is revoked, so a habit of pressing y is not enough."""
    project.declare(project.secret(CHAT, consumers=[{"name": "support-api", "refreshWithin": "15m"}]))
    project.apply()
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    terminal = project.at_terminal("break-glass", "revoke", "openai", chosen)
    terminal.read_until("Type openai to revoke:")
    terminal.type("y\n")
    shown = terminal.end()
    assert shown.code == 1
    assert f"minted for {CHAT} (sandbox, owner support-platform)" in " ".join(shown.out.split())
    assert "support-api fails until this is replaced" in shown.out
    assert "Nothing was changed." in shown.out
    assert project.run("break-glass", "revoke", "openai", chosen).code == 2, "nobody is there to confirm"
    assert list(project.keys().values()) == [True]


def test_what_can_not_be_recorded_is_not_done(project: Project) -> None:
    """No record, no revocation."""
    project.apply(CHAT)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    ran = project.run("break-glass", "revoke", "openai", chosen, "--yes", KEYTURN_AUDIT_FILE=str(project.root))
    assert ran.code == 1
    assert list(project.keys().values()) == [True]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise loads it
def test_the_owner_is_told_of_the_kill_and_of_the_replacement(project: Project) -> None:
    """At once that nothing has replaced it yet, and by the sweep that something has."""
    with endpoint() as there:
        told = {"channel": "ops", "from": "info", "on": ["done", "incident"]}
        project.declare(
            channels={"ops": {"apprise": {"env": "OPS_URL"}}}, owners={"support-platform": {"notify": [told]}}
        )
        project.environ["OPS_URL"] = f"json://127.0.0.1:{there.port}/"
        project.apply(CHAT)
        leaked = project.value(CHAT)
        address = vault_down(project)
        chosen = project.run("break-glass", "list", "openai", "--json", *admin(project)).json[0]["key_id"]
        project.run("break-glass", "revoke", "openai", chosen, "-y", "--value-fd", fd(leaked), *admin(project))
        (first,) = [asked.json for asked in there.asked]
        assert f"{CHAT}: key {chosen} was revoked by hand" in first["title"]
        assert "without a replacement" in first["message"]
        vault_up(project, address)
        assert project.run("sweep").code == 0
        _, *later = [asked.json for asked in there.asked]
        assert any(CHAT in notice["title"] and chosen in notice["message"] for notice in later), later
        assert leaked not in str([asked.body for asked in there.asked])


# --- the other commands with an admin credential by hand -----------------------------------------


def test_secrets_rotate_although_the_vault_with_the_admin_credential_is_away(project: Project) -> None:
    """The failure says what to give; with it, rotation and sweep work."""
    vault = {"kind": "hashicorp-vault", "address": NOWHERE, "auth": {"method": "token"}}
    project.apply(CHAT)
    project.change("stores.keys", vault)
    project.change("issuers.openai.admin", {"store": "keys", "name": "shared/openai"})
    without = project.run("rotate", CHAT, VAULT_TOKEN="t")
    assert without.code == 1
    assert "--admin-from openai takes it from a person instead" in without.err
    before = project.value(CHAT)
    assert project.run("rotate", CHAT, *admin(project)).code == 0
    assert project.value(CHAT) != before
    assert project.run("emergency", CHAT, "--yes", *admin(project)).code == 0
    assert list(project.keys().values()) == [False, False, True]
    assert project.run("sweep", *admin(project), VAULT_TOKEN="t").code == 1, "the other vault is still away"
    given = [record for record in project.audit() if record["event"] == "admin.given"]
    assert len(given) == 3
    assert project.services.openai.admin_key not in project.audit_file.read_text()


# --- rebuilding ----------------------------------------------------------------------------------


def at_real_time(project: Project) -> None:
    """The vault tells real times: to a clock that other tests have moved by months, what it has would be due."""
    project.services.time.path.unlink(missing_ok=True)


def test_a_journal_that_was_lost_is_rebuilt_from_what_is_left(project: Project) -> None:
    """The current key by what its version says, the draining one as an orphan; nothing is revoked before its time."""
    at_real_time(project)
    project.apply(CHAT)
    project.run("rotate", CHAT)
    handed_out = project.value(CHAT)
    project.services.time.move(timedelta(minutes=20))
    lose_metadata(project)
    assert "apply the stack again" in project.run("status", CHAT).out
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert "the stored version says so" in ran.out
    assert "1 taken up as orphans" in ran.out
    assert list(project.keys().values()) == [True, True]
    assert project.value(CHAT) == handed_out
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, True]
    assert project.value(CHAT) == handed_out
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, False, True], "the key that was current retires like one of ours"


def test_a_rebuilt_secret_is_the_declared_one(project: Project) -> None:
    """`pulumi up` would find the policy that it wrote, and the current credential under its key's id."""
    project.apply(CHAT)
    before = metadata(project)
    lose_metadata(project)
    ran = project.run("break-glass", "rebuild", CHAT, "--yes", "--json")
    assert ran.code == 0
    after = metadata(project)
    policy = {key: text for key, text in before.items() if key.startswith("policy.")}
    assert {key: text for key, text in after.items() if key.startswith("policy.")} == policy
    assert ran.json["policy_written"] is True
    assert key_id(project) in ran.json["current_key_id"]
    assert project.run("sweep").code == 0
    assert project.run("status").code == 0


def test_a_journal_alone_may_be_lost(project: Project) -> None:
    """The policy that is applied stays, even where the file says something else by now."""
    at_real_time(project)
    project.apply(CHAT)
    path = f"metadata/{project.installation}/a/{project.entry(CHAT)}"
    policy = {key: text for key, text in metadata(project).items() if key.startswith("policy.")}
    project.vault("POST", path, {"custom_metadata": policy})
    project.declare(project.secret(CHAT, rotateEvery="10d"), project.secret(HOOK))
    ran = project.run("break-glass", "rebuild", CHAT, "--yes", "--json")
    assert ran.code == 0
    assert ran.json["policy_written"] is False
    assert key_id(project) in ran.json["current_key_id"]
    assert {key: text for key, text in metadata(project).items() if key.startswith("policy.")} == policy
    assert project.run("sweep").code == 0
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, True]


def typed_in(project: Project, value: str) -> None:
    """As after a vault was set up anew: a person has put the value there, and nothing else."""
    path = f"{project.installation}/a/{project.entry(CHAT)}"
    for entry in (path, f"{path}-pending"):
        project.vault("DELETE", f"metadata/{entry}")
    project.vault("POST", f"data/{path}", {"data": {"value": value}})


def test_a_value_that_a_person_typed_in_is_known_by_its_beginning_and_end(project: Project) -> None:
    """Where the issuer's list shows them."""
    project.apply(CHAT)
    project.run("rotate", CHAT)
    typed_in(project, project.value(CHAT))
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert re.search(r"is \S+, as its issuer lists a key with this beginning and end", ran.out)
    assert key_id(project) in ran.out


def test_a_sweep_that_came_first_does_no_harm(project: Project) -> None:
    """It takes the value for a person's; the rebuild tells it better, and the next rotation retires it."""
    at_real_time(project)
    project.apply(CHAT)
    policy = {key: text for key, text in metadata(project).items() if key.startswith("policy.")}
    typed_in(project, project.value(CHAT))
    path = f"metadata/{project.installation}/a/{project.entry(CHAT)}"
    project.vault("POST", path, {"custom_metadata": policy})
    assert project.run("sweep").code == 0
    assert "of=person" in str(metadata(project))
    assert list(project.keys().values()) == [True]
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert f"current is {key_id(project)[:12]}" in ran.out
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, True]


def test_a_value_that_nothing_tells_is_whose_key_a_person_says(project: Project) -> None:
    """Its id by hand, where the issuer's list shows nothing of values; another id than one of this secret's is refused."""
    project.apply(CHAT)
    person, _ = project.own_key()
    typed_in(project, project.value(CHAT))
    upstream = project.services.openai.base_url.removesuffix("/v1")

    def unshown(asked: Asked) -> Answer | None:
        if asked.method != "GET" or not asked.path.partition("?")[0].endswith("/api_keys"):
            return None
        answer = requests.get(upstream + asked.target, headers=dict(asked.headers), timeout=10).json()
        answer["data"] = [{**key, "redacted_value": None} for key in answer["data"]]
        return Answer(200, json.dumps(answer).encode(), {"content-type": "application/json"})

    with lying(project, unshown):
        assert "nothing tells which key it is" in project.run("break-glass", "rebuild", CHAT).out
        refused = project.run("break-glass", "rebuild", CHAT, "--yes", "--current", person)
        assert refused.code == 1
        assert f"{person} is not the key of {CHAT}, as it is not listed under that name" in refused.err
        assert metadata(project) == {}
        known = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
        ran = project.run("break-glass", "rebuild", CHAT, "--yes", "--current", known)
    assert ran.code == 0
    assert f"is {known}, as a person says so" in ran.out
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, True, True]


def test_a_persons_value_stays_a_persons(project: Project) -> None:
    """Whatever id is given for it: what the next rotation revokes must be what is in the entry."""
    project.apply(CHAT)
    person, foreign = project.own_key()
    typed_in(project, foreign)
    known = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    refused = project.run("break-glass", "rebuild", CHAT, "--yes", "--current", known)
    assert refused.code == 1
    assert f"has the value of {person}" in refused.err
    assert project.run("break-glass", "rebuild", CHAT, "--yes").code == 0
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(hours=30))
    assert project.run("sweep").code == 0
    assert project.keys()[person] is True, "never revoked by Keyturn"


def test_a_credential_that_died_meanwhile_is_replaced_by_the_next_sweep(project: Project) -> None:
    """The policy comes back; what is dead is not adopted."""
    project.apply(CHAT)
    chosen = project.run("break-glass", "list", "openai", "--json").json[0]["key_id"]
    assert project.run("break-glass", "revoke", "openai", chosen, "--yes").code == 0
    lose_metadata(project)
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert "is refused" in ran.out
    assert "the next sweep replaces it at once" in ran.out
    assert project.run("sweep").code == 0
    assert list(project.keys().values()) == [False, True]


def test_an_entry_that_is_gone_is_made_again(project: Project) -> None:
    """Without a value: the next sweep mints one, and the keys of before end as orphans."""
    project.apply(CHAT)
    project.vault("DELETE", f"metadata/{project.installation}/a/{project.entry(CHAT)}")
    project.services.time.move(timedelta(minutes=20))
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert "there is no such entry" in ran.out
    for _ in range(3):
        assert project.run("sweep").code == 0
        project.services.time.move(timedelta(hours=30))
    assert list(project.keys().values()) == [False, True]


def test_a_generated_value_needs_no_key_to_be_known_again(project: Project) -> None:
    """There is none at any issuer: the policy is all that was lost."""
    project.apply(HOOK)
    before = project.value(HOOK)
    lose_metadata(project, HOOK)
    assert project.run("break-glass", "rebuild", HOOK, "--yes").code == 0
    assert project.run("rotate", HOOK).code == 0
    assert project.value(HOOK) != before


def test_where_nothing_is_lost_nothing_is_written(project: Project) -> None:
    """And the command may be repeated."""
    project.apply(CHAT)
    before = metadata(project)
    ran = project.run("break-glass", "rebuild", CHAT, "--yes")
    assert ran.code == 0
    assert "nothing was lost" in ran.out
    assert metadata(project) == before


def test_a_person_may_say_no(project: Project) -> None:
    """Exit code 1, and nothing was written."""
    project.apply(CHAT)
    lose_metadata(project)
    terminal = project.at_terminal("break-glass", "rebuild", CHAT)
    terminal.read_until("Go ahead? [y/N]:")
    terminal.type("n\n")
    assert terminal.end().code == 1
    assert metadata(project) == {}
