"""What goes wrong outside: configuration, vault, issuer, audit trail. Nothing half done, nothing kept quiet."""

from datetime import timedelta

import pytest

from tests.cli.project import CHAT, HOOK, Project

COMMANDS = [
    ("status",),
    ("plan",),
    ("verify",),
    ("doctor",),
    ("rotate", CHAT),
    ("sweep",),
    ("emergency", CHAT, "--yes"),
    ("rollback", CHAT),
    ("adopt", CHAT),
    ("release", CHAT),
]
ACTING = [("rotate", CHAT), ("sweep",), ("rollback", CHAT)]


# --- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_faults_of_the_file_stop_every_command(project: Project, command: tuple[str, ...]) -> None:
    """All at once, each with its field's path, its line and what is allowed; exit code 2, nobody was asked anything."""
    project.apply()
    before = project.everything()
    project.change("secrets.0.rotateEvry", "30d")
    project.change("secrets.0.grace", "90d")
    project.change("secrets.1.owner", "nobody")
    asked = len(project.services.openai.control.requests())
    ran = project.run(*command)
    assert (ran.code, ran.out) == (2, "")
    for told in (
        "keyturn:secrets[0].rotateEvry: unknown key (did you mean rotateEvery?); allowed: ",
        "keyturn:secrets[1].owner: there is no such owner; allowed: support-platform [",
    ):
        assert told in ran.err
    assert "Pulumi.sandbox.yaml:" in ran.err
    assert len(project.services.openai.control.requests()) == asked
    assert project.everything() == before


@pytest.mark.parametrize("command", [("rotate", HOOK, CHAT), ("sweep",), ("emergency", HOOK, CHAT, "--yes")])
def test_a_login_that_is_not_set_stops_all_or_nothing(project: Project, command: tuple[str, ...]) -> None:
    """Although the first secret alone could have been rotated: exit code 2 means that nothing was changed."""
    project.apply()
    project.services.time.move(timedelta(days=31))
    before = project.everything()
    del project.environ["OPENAI_ADMIN_KEY"]
    ran = project.run(*command)
    assert ran.code == 2
    assert (
        "keyturn:issuers.openai.admin.env: the environment variable OPENAI_ADMIN_KEY is not set, or is empty" in ran.err
    )
    assert "Traceback" not in ran.err
    assert project.everything() == before


def test_looking_needs_no_admin_credential(project: Project) -> None:
    """status asks nothing of an issuer and verify shows it the credentials alone; what a plan can not tell it says."""
    project.apply()
    del project.environ["OPENAI_ADMIN_KEY"]
    shown = project.run("status", "--json")
    assert (shown.code, shown.err) == (0, "")
    assert [row["phase"] for row in shown.json] == ["steady", "steady"]
    assert project.run("verify").code == 0
    planned = project.run("plan")
    assert planned.code == 1
    assert "its admin credential is missing: the environment variable OPENAI_ADMIN_KEY is not set" in planned.err


def test_an_issuer_that_is_declared_no_more_is_named(project: Project) -> None:
    """A secret that is still applied with it is left alone and reported; the others are served."""
    project.declare(project.secret(CHAT), project.secret(HOOK), project.secret("support-copilot-old"))
    project.apply()
    issuers = {"generated": {"kind": "generated"}}
    project.declare(project.secret(HOOK), issuers=issuers)
    project.services.time.move(timedelta(days=31))
    ran = project.run("sweep", "--json")
    assert ran.code == 1
    assert f"sandbox/{CHAT}: is applied with the issuer openai, which Pulumi.sandbox.yaml lacks" in ran.err
    assert [(one["name"], one["done"]) for one in ran.json] == [(HOOK, True)]


# --- a vault that does not answer, or refuses ------------------------------------------------------


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] != "emergency"], ids=lambda command: command[0])
def test_a_vault_that_is_down_is_exit_code_1(project: Project, command: tuple[str, ...]) -> None:
    """What failed is told, and no credential was changed anywhere."""
    project.apply()
    before = project.everything(), project.keys()
    project.change("stores.vault.address", "https://127.0.0.1:9")
    ran = project.run(*command)
    assert ran.code == 1
    assert "vault" in ran.text
    assert "Traceback" not in ran.text
    assert (project.everything(), project.keys()) == before


def test_a_rotation_that_meets_a_silent_vault_says_what_is_left_and_what_is_next(project: Project) -> None:
    """In that order, on lines of their own."""
    project.apply(CHAT)
    project.change("stores.vault.address", "https://127.0.0.1:9")
    ran = project.run("rotate", CHAT)
    assert ran.err.startswith(f"✗ {CHAT}: vault: ")
    assert ran.out == "    No credential was changed. The next sweep goes on from there.\n"


def test_a_role_that_may_not_write_is_told_which_right_it_lacks(project: Project) -> None:
    """The journal comes first, so that nothing was minted; and trying again by itself would be no use."""
    project.apply(CHAT)
    policy = """
    path "secret/data/*" { capabilities = ["read"] }
    path "secret/metadata/*" { capabilities = ["read", "list"] }
    path "auth/token/lookup-self" { capabilities = ["read"] }
    """
    role, secret = project.services.bao.approle(policy)
    project.environ |= {"KEYTURN_VAULT_ROLE_ID": role, "KEYTURN_VAULT_SECRET_ID": secret}
    ran = project.run("rotate", CHAT)
    assert ran.code == 1
    assert "permission denied: the policy of AppRole at auth/approle lacks 'patch'" in ran.err
    assert "No credential was changed. Handed out is key_" in ran.out
    assert "Put that right, then run this again." in ran.out
    assert len(project.keys()) == 1


# --- an issuer that does not answer, or refuses ----------------------------------------------------


def test_an_issuer_that_fails_leaves_the_old_key_in_place(project: Project) -> None:
    """Exit code 1, its answer in a few words, and the next run succeeds."""
    project.apply(CHAT)
    before = project.value(CHAT)
    path = "/v1/organization/projects/*/service_accounts"
    project.services.openai.control.fault("POST", path, times=9, status=403, code="insufficient_permissions")
    ran = project.run("rotate", CHAT)
    assert ran.code == 1
    assert f"✗ {CHAT}: openai: minting the key {project.installation}.sandbox-{CHAT}." in ran.err
    assert "the admin key may not do this, or this country or address is not served (HTTP 403" in " ".join(
        ran.err.split()
    )
    assert project.value(CHAT) == before
    project.services.openai.control.clear_faults()
    assert project.run("rotate", CHAT).code == 0


# --- the audit trail -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ACTING, ids=lambda command: command[0])
def test_without_an_audit_trail_nothing_is_done(project: Project, command: tuple[str, ...]) -> None:
    """Exit code 1; vault and issuer are as before, for no effect goes unrecorded."""
    project.apply()
    assert project.run("rotate", CHAT).code == 0
    project.services.time.move(timedelta(days=31))
    before = project.everything(), project.keys()
    (project.root / "file").write_text("")
    trail = project.root / "file" / "audit.jsonl"
    ran = project.run(*command, KEYTURN_AUDIT_FILE=str(trail))
    assert ran.code == 1
    assert f"audit trail: {trail}: " in ran.err
    assert "No credential was changed." in ran.out
    assert (project.everything(), project.keys()) == before


def test_adopt_and_release_need_the_audit_trail_too(project: Project) -> None:
    """Nothing was changed, and they say so."""
    project.apply(HOOK)
    project.put(CHAT, project.own_key()[1])
    before = project.everything()
    (project.root / "file").write_text("")
    for command in (("adopt", CHAT), ("release", HOOK)):
        ran = project.run(*command, KEYTURN_AUDIT_FILE=str(project.root / "file" / "audit.jsonl"))
        assert ran.code == 1
        assert ran.err.startswith("audit trail: ")
        assert ran.err.endswith("Nothing was changed.\n")
    assert project.everything() == before


def test_an_emergency_without_an_audit_trail_leaves_the_key_alive_and_says_so(project: Project) -> None:
    """Exit code 3, for what leaked still works."""
    project.apply(CHAT)
    (project.root / "file").write_text("")
    ran = project.run("emergency", CHAT, "--yes", KEYTURN_AUDIT_FILE=str(project.root / "file" / "audit.jsonl"))
    assert ran.code == 3
    assert "audit trail: " in ran.err
    assert "Nothing was changed. What leaked is alive" in ran.out
    assert list(project.keys().values()) == [True]
