"""From a leak report to whose each value is, over a real vault and an issuer; and the command that makes the key."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from rotation import inventory
from rotation.cli import leak
from rotation.cli.context import Context, Trail, UsageFault
from rotation.leaks.match import Match, Standing, exit_code, match
from rotation.names import KeyName
from sandbox.openbao import CONSUMER_POLICY
from tests.cli.project import BATCH, CHAT, HOOK, Project

REFERENCE = {"store": "vault", "name": "keyturn/fingerprints"}


def context_of(project: Project) -> Context:
    assembly = project.assembly()
    return Context(assembly, project.stack_file, Trail(assembly.engine.outside.auditor))


def report(project: Project, *values: str) -> str:
    """What gitleaks writes, one finding for each value."""
    found = [
        {
            "RuleID": "openai-api-key" if value.startswith("sk-") else "generic-api-key",
            "Description": "found",
            "StartLine": number,
            "Match": f"KEY={value}",
            "Secret": value,
            "File": "app/settings.py",
            "Commit": "c0ffee",
            "Author": "somebody",
            "Date": "2026-05-01T10:00:00Z",
            "Fingerprint": f"app/settings.py:{number}",
        }
        for number, value in enumerate(values, 1)
    ]
    path = project.root / "gitleaks.json"
    path.write_text(json.dumps(found))
    return str(path)


def matched(project: Project, source: str, descriptor: int | None = None) -> list[Match]:
    context = context_of(project)
    managed, unseen = inventory.managed(context.assembly)
    return match(context.assembly, leak.findings_from(context, source, descriptor), managed, unseen)


def minted(project: Project, name: str) -> dict[str, Any]:
    """A key by a service account of its own, as Keyturn mints them."""
    path = f"organization/projects/{project.openai_project}/service_accounts"
    made: dict[str, Any] = project.administer("POST", path, {"name": name})["api_key"]
    return made


@pytest.mark.parametrize("printed", [True, False], ids=["fingerprints", "values"])
def test_each_kind_of_leak_is_told(project: Project, printed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Current, previous, pending, orphan, admin, dead, unmanaged and a stranger's; no value anywhere that lasts."""
    parts: dict[str, Any] = {"fingerprints": REFERENCE} if printed else {}
    project.declare(
        project.secret(CHAT, consumers=[{"name": "support-api", "refreshWithin": "15m"}]), project.secret(HOOK),
        project.secret(BATCH), **parts,
    )  # fmt: skip
    assert not printed or project.run("fingerprints", "init").code == 0
    project.apply()
    dead = project.value(BATCH)
    assert project.run("emergency", BATCH, "--yes").code == 0
    previous = project.value(CHAT)
    assert project.run("rotate", CHAT).code == 0
    assembly = project.assembly()
    orphan = minted(project, str(KeyName(project.installation, project.environment, CHAT, "f" * 32)))
    current, hook, batch = project.value(CHAT), project.value(HOOK), project.value(BATCH)
    pending = assembly.issuers["openai"].mint(f"{project.installation}.sandbox-{BATCH}.{'e' * 32}")
    store, target = assembly.stores["vault"], assembly.target(project.policy(BATCH))
    store.stage(target.entry, "e" * 32, pending.credential, key_id=pending.key_id)
    unmanaged, admin = project.own_key()[1], project.services.openai.admin_key
    stranger = "ghp_" + "s" * 36
    pending_value = pending.credential.fields["value"].reveal()
    expected = {
        current: (Standing.CURRENT, CHAT),
        previous: (Standing.PREVIOUS, CHAT),
        hook: (Standing.CURRENT, HOOK),
        batch: (Standing.CURRENT, BATCH),
        pending_value: (Standing.PENDING, BATCH),
        orphan["value"]: (Standing.ORPHAN, CHAT),
        admin: (Standing.ADMIN, None),
        dead: (Standing.DEAD, None),
        unmanaged: (Standing.UNMANAGED, None),
        stranger: (Standing.STRANGER, None),
    }
    matches = matched(project, report(project, *expected))
    told = [(one.standing, one.policy.name if one.policy else None) for one in matches]
    assert told == [*expected.values()]
    assert exit_code(matches) == 3
    leak.show_matches(matches)
    texts = [*capsys.readouterr(), json.dumps(leak.as_json(matches)), json.dumps(project.audit())]
    texts += [json.dumps(about["custom_metadata"]) for about in project.everything().values()]
    assert "read by support-api (reads again within 15m)" in texts[0]
    assert ("No fingerprints" in texts[1]) is not printed
    for value in expected:
        assert not any(value in text for text in texts)


def test_a_fingerprint_stands_in_the_vaults_metadata(project: Project) -> None:
    """Of a generated value, too; 18 characters beside the key's id."""
    project.declare(fingerprints=REFERENCE)
    project.run("fingerprints", "init")
    project.apply()
    for name in (CHAT, HOOK):
        facts = project.everything()[f"{project.installation}/a/sandbox/{name}"]["custom_metadata"]
        assert [len(text.split(" print=")[1]) for key, text in facts.items() if key.startswith("journal.key.")] == [18]


def test_a_single_value_comes_from_a_descriptor(project: Project) -> None:
    """Never from the command line; what is no text, or several lines, is refused without being repeated."""
    project.declare(project.secret(CHAT))
    project.apply()

    def piped(raw: bytes) -> list[Match]:
        given = project.root / "value"
        given.write_bytes(raw)
        return matched(project, "", os.open(given, os.O_RDONLY))

    assert [one.standing for one in piped(project.value(CHAT).encode() + b"\n")] == [Standing.CURRENT]
    for raw in (b"canary\xff\xfe-0123", b"canary-one-0123\ncanary-two-4567\n", b"", b"canary" * 30_000):
        with pytest.raises(UsageFault) as refused:
            piped(raw)
        assert "canary" not in str(refused.value)


def test_a_single_value_is_asked_for_without_echo(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal; where nobody is there, that is said."""
    project.declare(project.secret(CHAT))
    project.apply()
    asked: dict[str, Any] = {}

    def prompt(text: str, **options: Any) -> str:
        asked.update(options)
        return project.value(CHAT)

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageFault, match="nobody is there"):
        matched(project, leak.ASK)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)
    assert [one.standing for one in matched(project, leak.ASK)] == [Standing.CURRENT]
    assert asked == {"hide_input": True, "err": True}


def test_a_value_in_place_of_a_file_is_not_repeated(project: Project) -> None:
    """It stands in the shell's history already; the message need not add to that."""
    with pytest.raises(UsageFault) as refused:
        matched(project, "sk-canary-0123456789")
    assert "canary" not in str(refused.value)


def test_a_report_that_is_none_is_a_fault_of_its_own(project: Project) -> None:
    """Exit code 2, with what is wrong."""
    broken = project.root / "broken.json"
    broken.write_text("{")
    with pytest.raises(UsageFault, match=r"^--leak: "):
        matched(project, str(broken))


def test_the_key_is_made_once(project: Project) -> None:
    """The second time it is there, and stays. It is no managed entry, and no application may read it."""
    project.declare(project.secret(CHAT), fingerprints=REFERENCE)
    first, second = (project.run("fingerprints", "init") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert "a new key of fingerprints is in vault, keyturn/fingerprints" in first.out
    assert "is there, in vault, keyturn/fingerprints" in second.out
    key = project.vault("GET", f"data/{project.installation}/a/keyturn/fingerprints")["data"]["value"]
    assert len(key) == 43
    assert not any(key in ran.text for ran in (first, second))
    assert inventory.managed(project.assembly()) == ([], [])
    assert "secret/data/keyturn" not in CONSUMER_POLICY
    assert project.run("fingerprints", "init", "--json").json == {
        "made": False,
        "where": "in vault, keyturn/fingerprints",
    }


def test_a_stack_that_names_no_key_is_told_how(project: Project) -> None:
    """Exit code 2 with what to write; 1 where what it names can not be used."""
    ran = project.run("fingerprints", "init")
    assert ran.code == 2
    assert "{store: vault, name: keyturn/fingerprints}" in ran.err
    project.declare(project.secret(CHAT), fingerprints={"env": "FINGERPRINT_KEY"})
    ran = project.run("fingerprints", "init")
    assert (ran.code, "FINGERPRINT_KEY is not set" in ran.err) == (1, True)
    assert project.run("fingerprints", "init", FINGERPRINT_KEY="k" * 43).code == 0
    Path(project.root / "key").write_text("f" * 43 + "\n")
    project.declare(project.secret(CHAT), fingerprints={"file": "key"})
    assert project.run("fingerprints", "init").code == 0


def test_rotation_goes_on_without_the_key(project: Project) -> None:
    """Nobody has made it yet: a warning in the log, and the secret is rotated all the same."""
    project.declare(project.secret(CHAT), fingerprints=REFERENCE)
    project.apply()
    ran = project.run("rotate", CHAT)
    assert ran.code == 0
    assert "new credentials get no fingerprint" in ran.err
