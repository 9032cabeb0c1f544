"""status, plan and verify: what they tell, that scripts can rely on its form, and that looking changes nothing."""

import json
from datetime import datetime, timedelta
from typing import Any

from tests.cli.project import BATCH, CHAT, HOOK, Project

FIELDS = [
    "name",
    "environment",
    "store",
    "replicas",
    "issuer",
    "owner",
    "phase",
    "rotation",
    "key_id",
    "previous_key_id",
    "rotated_at",
    "due_at",
    "due_why",
    "overdue_at",
    "grace_until",
    "next_action",
    "last_error",
    "frozen",
]
"""What scripts were promised."""


def row(project: Project, name: str = CHAT) -> dict[str, Any]:
    found: dict[str, Any] = project.run("status", name, "--json").json[0]
    return found


# --- status ----------------------------------------------------------------------------------------


def test_the_fields_of_a_row_are_those_promised(project: Project) -> None:
    """All of them in every row, whatever its phase, and nothing else."""
    project.apply(CHAT)
    project.run("rotate", CHAT)
    ran = project.run("status", "--json")
    assert ran.code == 0
    assert [list(shown) for shown in ran.json] == [FIELDS, FIELDS]


def test_a_steady_secret(project: Project) -> None:
    """Its key, since when, until when, and no past."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    shown = row(project)
    assert (shown["phase"], shown["replicas"], shown["last_error"]) == ("steady", ["mirror"], None)
    assert (shown["rotation"], shown["previous_key_id"], shown["grace_until"]) == (None, None, None)
    assert shown["key_id"].rpartition("/")[2] in project.alive()
    rotated, due, over = (datetime.fromisoformat(shown[at]) for at in ("rotated_at", "due_at", "overdue_at"))
    assert (due - rotated, over - rotated) == (timedelta(days=30, hours=-2), timedelta(days=30))
    assert due.utcoffset() == timedelta(0)


def test_a_draining_secret(project: Project) -> None:
    """The key before, and how long its consumers have."""
    project.apply(CHAT)
    before = row(project)["key_id"]
    project.run("rotate", CHAT)
    shown = row(project)
    assert (shown["phase"], shown["previous_key_id"]) == ("draining", before)
    grace = datetime.fromisoformat(shown["grace_until"]) - datetime.fromisoformat(shown["rotated_at"])
    assert timedelta(hours=24) <= grace < timedelta(hours=24, minutes=1)
    assert shown["next_action"].startswith("wait until ")


def test_what_is_declared_and_not_applied(project: Project) -> None:
    """Is a row, not an error; what makes it is named."""
    ran = project.run("status", HOOK, "--json")
    assert (ran.code, ran.json[0]["phase"], ran.json[0]["next_action"]) == (0, "not applied", "pulumi up")


def test_a_leaked_key_that_lives_is_exit_code_3(project: Project) -> None:
    """From the moment it is condemned; and the row says so."""
    project.apply(CHAT)
    a = project.assembly()
    a.engine.condemn(a.target(project.policy(CHAT)))
    ran = project.run("status", "--json")
    assert (ran.code, ran.json[0]["phase"]) == (3, "condemned")


def test_rows_of_named_secrets_only(project: Project) -> None:
    """In the order in which they were named, each once."""
    ran = project.run("status", HOOK, CHAT, HOOK, "--json")
    assert [shown["name"] for shown in ran.json] == [HOOK, CHAT]


def test_who_edited_the_file_is_told_that_it_is_not_applied(project: Project) -> None:
    """On standard error, by fields as the file names them; what is applied stays what is acted on."""
    project.apply(CHAT)
    project.declare(project.secret(CHAT, rotateEvery="1d", containAfter="1m", format={"json": {"key": "value"}}))
    project.services.time.move(timedelta(days=2))
    for command in (("status", "--json"), ("plan", "--json"), ("sweep", "--json"), ("rotate", CHAT, "--json")):
        ran = project.run(*command)
        assert ran.code == 0
        assert f"{CHAT}: rotateEvery, containAfter, format in Pulumi.sandbox.yaml differ" in ran.err
        assert "`pulumi up`" in ran.err
        assert len(ran.json) == 1
    assert len(project.keys()) == 2, "the sweep has rotated by a schedule that is not applied"


# --- plan ------------------------------------------------------------------------------------------


def busy(project: Project) -> None:
    """A stack with something of everything: due, drained, condemned, orphaned, not applied, not declared any more."""
    gone = "support-copilot-gone"
    secrets = [project.secret(name, replicas=["mirror"]) for name in (CHAT, BATCH, gone)]
    project.declare(*secrets, project.secret(HOOK))
    project.apply(CHAT, BATCH, gone)
    assert project.run("rotate", CHAT).code == 0
    orphan = f"{project.installation}.sandbox-{CHAT}.{'0' * 32}"
    project.administer("POST", f"organization/projects/{project.openai_project}/service_accounts", {"name": orphan})
    project.services.time.move(timedelta(days=31))
    project.declare(*secrets[:2], project.secret(HOOK))


def test_a_plan_changes_nothing_at_all(project: Project) -> None:
    """Every version, journal and key is as before; the vault and the issuer were asked nothing but to read."""
    busy(project)
    trail = project.audit()
    before = project.everything(), project.keys()
    control, log = project.services.openai.control, project.services.bao.audit_log
    asked, heard = len(control.requests()), log.stat().st_size
    ran = project.run("plan")
    assert {request["method"] for request in control.requests()[asked:]} == {"GET"}
    with log.open() as file:
        file.seek(heard)
        lines = [json.loads(line)["request"] for line in file]
    done = {(line["operation"], line["path"]) for line in lines if "auth/approle/login" not in line["path"]}
    assert {operation for operation, _ in done} <= {"read", "list"}
    assert any(project.installation in path for _, path in done)
    assert (project.everything(), project.keys()) == before
    assert project.audit() == trail
    assert ran.code == 0


def test_a_plan_is_what_the_sweep_then_does(project: Project) -> None:
    """It names all that the sweep acts on, with why; after the sweeps there is nothing left to plan."""
    busy(project)
    planned = project.run("plan", "--json").json
    assert [(one["name"], one["acts"]) for one in planned] == [
        (CHAT, True),
        (BATCH, True),
        (HOOK, False),
        ("support-copilot-gone", True),
        (CHAT, True),
    ]
    assert all("due since" in planned[number]["next"] for number in (1, 3))
    assert "orphaned key" in planned[4]["next"]
    assert planned[2]["next"] == "not applied yet; `pulumi up` makes it"
    shown = project.run("plan").out
    assert "4 of 5 would change now." in shown
    for _ in range(2):
        assert project.run("sweep").code == 0
        project.services.time.move(timedelta(days=2))
    assert not any(one["acts"] for one in project.run("plan", "--json").json)
    assert len(project.alive()) == 3


def test_a_plan_of_one_secret(project: Project) -> None:
    """Tells what would be done and what follows from it."""
    project.apply(CHAT)
    project.services.time.move(timedelta(days=31))
    ran = project.run("plan", CHAT)
    assert (ran.code, ran.err) == (0, "")
    assert f"→ {CHAT}: rotate now: due since " in ran.out
    assert "then mint at openai, stage and verify, promote in vault; the old credential drains for 1d" in ran.out


# --- verify ----------------------------------------------------------------------------------------


def test_what_works_and_agrees_is_exit_code_0(project: Project) -> None:
    """One finding for each store, and the draining key is left in peace: showing it would count as use."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    project.run("rotate", CHAT)
    old = next(iter(project.keys()))
    used = next(key["last_used_at"] for key in project.services.openai.control.issued() if key["id"] == old)
    project.services.time.move(timedelta(minutes=5))
    ran = project.run("verify", "--json")
    assert ran.code == 0
    assert [(f["store"], f["verdict"], f["agrees"]) for f in ran.json] == [
        ("vault", "valid", True),
        ("mirror", "valid", True),
    ]
    assert set(ran.json[0]) == {"name", "store", "verdict", "agrees", "key_id", "reason"}
    assert used == next(key["last_used_at"] for key in project.services.openai.control.issued() if key["id"] == old)


def test_a_dead_value_put_there_by_hand_is_found(project: Project) -> None:
    """By its verdict, and because the replica does not agree any more."""
    project.declare(project.secret(CHAT, replicas=["mirror"]), project.secret(HOOK))
    project.apply()
    project.overwrite(CHAT, "sk-svcacct-typed-by-hand")
    ran = project.run("verify", "--json")
    assert ran.code == 1
    assert [(f["name"], f["store"], f["verdict"], f["agrees"]) for f in ran.json] == [
        (CHAT, "vault", "invalid", True),
        (CHAT, "mirror", "valid", False),
        (HOOK, "vault", "valid", True),
    ]
    shown = project.run("verify", CHAT)
    assert shown.code == 1
    assert "invalid" in shown.out
    assert "typed-by-hand" not in shown.text
    assert project.run("verify", HOOK).code == 0


def test_a_replica_that_lags_is_found(project: Project) -> None:
    """Although its value still works."""
    project.declare(project.secret(CHAT, replicas=["mirror"]))
    project.apply()
    project.overwrite(
        CHAT, project.services.openai.control.create_user_key(project.openai_project, "own")["value"], "b"
    )
    ran = project.run("verify", "--json")
    assert ran.code == 1
    assert [(f["store"], f["verdict"], f["agrees"]) for f in ran.json] == [
        ("vault", "valid", True),
        ("mirror", "valid", False),
    ]
