"""runbook: the page of one secret, when all is well and when things do not answer."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta

import pytest
import typer.main

from rotation.cli.main import app
from tests.cli.project import BATCH, CHAT, HOOK, Project


def commands(text: str) -> list[str]:
    """Those of a page as a terminal shows it."""
    return re.findall(r"^    \$ (.+)$", text, re.MULTILINE)


def test_the_page_tells_what_it_is_who_uses_it_and_what_breaks(project: Project) -> None:
    """By what is applied, with ages and ids; exit code 0 as all of it was seen."""
    consumers = [{"name": "support-api", "refreshWithin": "15m"}, {"name": "support-edge", "refreshWithin": "2m"}]
    project.declare(project.secret(CHAT, replicas=["mirror"], consumers=consumers))
    project.apply()
    project.services.time.move(timedelta(days=3))
    ran = project.run("runbook", CHAT)
    assert (ran.code, ran.err) == (0, "")
    (key,) = project.keys()
    assert f"/{key}: current, 3d" in ran.out
    for told in (
        f"{CHAT} (sandbox, Pulumi.sandbox.yaml), as seen ",
        "Owner: support-platform; told through no channel: call them yourself",
        "Its admin credential: the environment variable OPENAI_ADMIN_KEY",
        f"vault (primary): sandbox/{CHAT}, hashicorp-vault https://127.0.0.1:",
        f"mirror (replica): sandbox/{CHAT}, ",
        "support-api: reads again within 15m",
        "until they refresh: support-api within 15m, support-edge within 2m.",
        "until it refreshes (15m).",
    ):
        assert told in ran.out, told
    assert project.value(CHAT) not in ran.text


def test_every_command_of_the_page_is_one(project: Project) -> None:
    """Known by this very command line, with options that it takes, on this stack."""
    project.declare(project.secret(CHAT), project.secret(HOOK))
    project.apply()
    group = typer.main.get_command(app)
    looks: list[str] = []
    for name in (CHAT, HOOK):
        found = commands(project.run("runbook", name).out)
        assert len(found) > 8
        looks += [line for line in found if line.split()[1] in ("status", "verify")]
        for line in found:
            words = shlex.split(line)
            assert words[0] == "keyturn"
            command, rest = group, words[1:]
            while hasattr(command, "commands") and rest and rest[0] in command.commands:
                command, rest = command.commands[rest[0]], rest[1:]
            if hasattr(command, "commands"):  # drill: its names stand for a subcommand
                command = command.commands["run"]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, line
            assert ("--stack sandbox" in line) == ("--stack" in options), line
    assert [project.run(*shlex.split(line)[1:]).code for line in looks] == [0, 0, 0, 0]


def test_a_store_that_does_not_answer_leaves_a_page(project: Project) -> None:
    """What is declared, what to do, and what could not be seen; exit code 1."""
    project.apply(CHAT)
    project.change("stores.vault.address", "https://127.0.0.1:9")
    ran = project.run("runbook", CHAT)
    assert ran.code == 1
    assert ": unreachable" in ran.out.splitlines()[1]
    assert "! Not seen: vault: " in ran.out
    assert "None is known." in ran.out
    assert "keyturn break-glass revoke openai KEY_ID --value --stack sandbox" in commands(ran.out)
    assert f"keyturn emergency {CHAT} --stack sandbox" in commands(ran.out)


def test_an_issuer_that_is_not_to_be_had_leaves_a_page(project: Project) -> None:
    """Its admin credential is not set: the store was seen all the same, or the page says what was not."""
    project.apply(CHAT)
    ran = project.run("runbook", CHAT, OPENAI_ADMIN_KEY="")
    assert ran.code in (0, 1)
    assert f"vault (primary): sandbox/{CHAT}" in ran.out
    assert ("! Not seen: " in ran.out) == (ran.code == 1)


def test_a_declared_secret_that_is_not_applied_has_no_key(project: Project) -> None:
    """Nothing to revoke, and the page says so."""
    ran = project.run("runbook", CHAT)
    assert ran.code == 0
    assert "declared, and not applied: there is no entry and no key" in ran.out
    assert "None is known." in ran.out


def test_a_generated_value_is_refused_by_nobody(project: Project) -> None:
    """So there is nothing to revoke at an issuer, and no command for it."""
    project.apply(HOOK)
    ran = project.run("runbook", HOOK)
    assert "nobody refuses an old value" in ran.out
    assert "--contain-first" not in ran.out
    assert not [line for line in commands(ran.out) if "break-glass revoke" in line]


def test_what_a_person_has_to_do_by_hand_stands_there(project: Project) -> None:
    """Of an issuer whose credentials a person creates: who, where, and how it comes to the vault; nothing rotates it by itself."""
    project.declare(
        project.secret(CHAT, issuer="anthropic"),
        issuers={"anthropic": {"kind": "anthropic", "admin": {"env": "ANTHROPIC_ADMIN_KEY"}}},
    )
    ran = project.run("runbook", CHAT, ANTHROPIC_ADMIN_KEY="sk-ant-admin-of-the-test")
    assert "a person creates each credential in its console, and brings it" in ran.out
    assert "By hand: anthropic lets only a person create its credentials" in ran.out
    assert f"keyturn submit {CHAT} --key-id NEW_ID --stack sandbox" in commands(ran.out)
    assert not [line for line in commands(ran.out) if "rotate" in line]


def test_an_emergency_under_way_stands_on_the_page(project: Project) -> None:
    """The incident's id is in the command that goes on with it; the leaked key is told apart from the new one."""
    project.apply(CHAT)
    project.services.openai.control.fault("DELETE", "/v1/organization/projects/*/api_keys/*", times=1000, status=500)
    assert project.run("emergency", CHAT, "--yes").code == 3
    project.services.openai.control.clear_faults()
    ran = project.run("runbook", CHAT)
    assert "condemned by an emergency" in ran.out
    (incident,) = re.findall(r"frozen by incident (\S+)", ran.out)
    assert f"keyturn emergency --resume {incident} --stack sandbox" in commands(ran.out)


def test_what_is_declared_differently_is_said(project: Project) -> None:
    """What is applied counts, on the page too."""
    project.declare(project.secret(CHAT, grace="12h"))
    project.apply()
    project.declare(project.secret(CHAT, grace="24h"))
    ran = project.run("runbook", CHAT)
    assert "the old one is accepted for 12h" in ran.out
    assert "! grace in Pulumi.sandbox.yaml differ from what is applied" in ran.out


def test_markdown_and_json_have_the_same(project: Project) -> None:
    """For a wiki, with commands in blocks, and for scripts."""
    project.apply(CHAT)
    shown, found = project.run("runbook", CHAT), project.run("runbook", CHAT, "--json").json
    page = project.run("runbook", CHAT, "--markdown").out
    assert page.startswith(f"# {CHAT} (sandbox, ")
    assert page.count("```") % 2 == 0
    in_blocks = [
        line for block in re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE) for line in block.splitlines()
    ]
    in_json = [line for step in found["steps"] for line in step["commands"]]
    assert in_blocks == in_json == commands(shown.out)
    assert found["keys"][0]["role"] == "current"


@pytest.mark.parametrize(
    ("arguments", "told"), [((BATCH,), f"declares no secret {BATCH}"), ((CHAT, "--markdown", "--json"), "give one")]
)
def test_what_can_not_be_meant_is_refused(project: Project, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2."""
    ran = project.run("runbook", *arguments)
    assert ran.code == 2
    assert told in ran.err
