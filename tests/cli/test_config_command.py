"""config check and config schema: every fault at once, what is applied beside it, and a schema that knows what the code knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rotation import config as configs
from rotation.sections import SecretSection
from tests.cli.project import BATCH, CHAT, HOOK, Project

ROOT = Path(__file__).parents[2]


def test_a_good_file_has_no_faults(project: Project) -> None:
    """And nothing is asked for that: neither a login nor a store is needed."""
    ran = project.run("config", "check", KEYTURN_VAULT_ROLE_ID="", KEYTURN_VAULT_SECRET_ID="", OPENAI_ADMIN_KEY="")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "✓ Pulumi.sandbox.yaml: 2 secrets, no faults\n"


def test_every_fault_is_told_with_its_path_and_what_is_allowed(project: Project) -> None:
    """All at once, in the order of the file, with the lines; exit code 2, in words and in JSON."""
    project.declare(project.secret(CHAT, grace="40d", issuer="opneai"), project.secret(HOOK, rotateEvry="30d"))
    ran = project.run("config", "check")
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert len(lines) == 5, ran.err
    assert "✗ keyturn:secrets[0].issuer: there is no such issuer (did you mean openai?); allowed: openai" in ran.err
    assert "✗ keyturn:secrets[0].grace: 40d is longer than rotateEvery (30d); allowed: at most 30d" in ran.err
    assert "keyturn:secrets[1].rotateEvry: unknown key (did you mean rotateEvery?)" in ran.err
    assert lines[-1] == "4 faults; nothing was asked or changed."
    told = project.run("config", "check", "--json")
    assert told.code == 2
    assert [fault["path"] for fault in told.json["faults"]] == [
        line.split(": ")[0].removeprefix("✗ ") for line in lines[:-1]
    ]
    for fault in told.json["faults"]:
        assert fault["allowed"]
        assert fault["place"].startswith(f"{project.stack_file}:")


def test_a_value_is_never_repeated(project: Project) -> None:
    """Where a reference belongs, what stands there may be the secret itself."""
    project.change("issuers.openai.admin", "sk-admin-canary-0123456789")
    for options in ((), ("--json",)):
        ran = project.run("config", "check", *options)
        assert ran.code == 2
        assert "canary" not in ran.text


def test_a_file_that_is_not_there_is_a_fault_too(project: Project) -> None:
    """With the stacks that are."""
    ran = project.run("config", "check", "--stack", "sandbx", "--json")
    assert ran.code == 2
    (fault,) = ran.json["faults"]
    assert (fault["path"], fault["allowed"]) == ("--stack", "sandbox")


def test_what_is_applied_is_held_against_the_file(project: Project) -> None:
    """Not applied, applied otherwise, applied and not declared; warnings only, and only when they are asked for."""
    project.declare(project.secret(CHAT), project.secret(HOOK))
    project.apply()
    assert project.run("config", "check", "--applied").out.endswith("no faults\n")
    project.declare(project.secret(CHAT, rotateEvery="20d", grace="12h"), project.secret(BATCH))
    ran = project.run("config", "check", "--applied", "--json")
    assert ran.code == 0
    assert ran.json["faults"] == ran.json["unseen"] == []
    told = {warned["path"]: warned["message"] for warned in ran.json["warnings"]}
    assert told == {
        "keyturn:secrets[0]": f"{CHAT} is applied with another rotateEvery, grace, which counts",
        "keyturn:secrets[1]": f"{BATCH} is not applied yet",
        f"vault: {project.environment}/{HOOK}": "is applied and goes on rotating; this file does not declare it",
    }
    ran = project.run("config", "check", "--applied")
    assert (ran.code, ran.out) == (0, "✓ Pulumi.sandbox.yaml: 2 secrets, no faults, 3 warnings\n")
    assert f"{CHAT} is applied with another rotateEvery, grace, which counts; `pulumi up` applies" in ran.err
    assert project.run("config", "check", "--json").json["warnings"] == []


def test_a_store_that_can_not_be_asked_is_said(project: Project) -> None:
    """Exit code 1, and nothing is called missing that was merely not seen."""
    project.apply()
    ran = project.run("config", "check", "--applied", "--json", KEYTURN_VAULT_SECRET_ID="not-the-one")
    assert ran.code == 1
    assert len(ran.json["unseen"]) == 2
    assert ran.json["warnings"] == []


# --- the schema --------------------------------------------------------------------------------------


def printed(project: Project) -> dict[str, Any]:
    ran = project.run("config", "schema")
    assert ran.code == 0
    found: dict[str, Any] = ran.json
    return found


def test_the_schema_knows_every_part_and_field_that_the_code_reads(project: Project) -> None:
    """A part or a field that is added to the code, and not to the schema, would be marked in every editor."""
    schema = printed(project)
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = schema["properties"]["config"]["properties"]
    assert set(parts) == {configs.NAMESPACE + part for part in configs._PARTS}
    secret = (
        schema["$defs"]["SecretSection"]
        if "$ref" in parts["keyturn:secrets"]["items"]
        else parts["keyturn:secrets"]["items"]
    )
    assert set(secret["properties"]) == {field.alias for field in SecretSection.model_fields.values()}


EXAMPLES = [*(ROOT / f"Pulumi.{stack}.yaml" for stack in ("dev", "staging", "prod")), ROOT / "sandbox" / "stack.yaml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_every_example(project: Project, path: Path) -> None:
    """As they stand in this repository, and marks a key in them that is misspelt."""
    judge = jsonschema.Draft202012Validator(printed(project))
    whole = yaml.safe_load(path.read_text())
    assert [error.message for error in judge.iter_errors(json.loads(json.dumps(whole, default=str)))] == []
    whole["config"]["keyturn:secrets"][0]["rotateEvry"] = "30d"
    assert not judge.is_valid(json.loads(json.dumps(whole, default=str)))


def test_the_examples_in_the_docs_are_good(tmp_path: Path, project: Project) -> None:
    """Each whole stack file in docs/pulumi.md loads, names the schema in its first line, and fits it."""
    blocks = (ROOT / "docs" / "pulumi.md").read_text().split("```yaml\n")[1:]
    examples = [block.partition("```")[0] for block in blocks]
    whole = [text for text in examples if "keyturn:secrets:" in text]
    assert len(whole) >= 2
    for number, text in enumerate(whole):
        assert text.startswith("# yaml-language-server: $schema=.keyturn/stack.schema.json\n")
        file = tmp_path / f"Pulumi.example{number}.yaml"
        file.write_text(text)
        configs.load(file)
        jsonschema.validate(yaml.safe_load(text), printed(project))
