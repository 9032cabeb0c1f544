"""A stack's whole life on a real vault, by the Pulumi CLI where there is one, and by the stand-in always."""

import json
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.model import Credential, Policy
from tests.pulumi.project import CHAT, HOOK, Project, Services

LONG = timedelta(hours=3)
"""Longer than quietFor and the granularity of what OpenAI tells, together."""

Make = Callable[..., Project]


@pytest.fixture(params=["in-process", "cli"])
def make(request: pytest.FixtureRequest, services: Services, tmp_path: Path) -> Make:
    """Makes a project that one of the two engines applies."""
    cli = request.getfixturevalue("cli") if request.param == "cli" else None

    def made(environment: str = "sandbox") -> Project:
        root = tmp_path / "project"
        root.mkdir()
        return Project(root, services, cli, f"t{uuid.uuid4().hex[:12]}", environment)

    return made


def rotate(project: Project, name: str) -> None:
    assembly = project.assembly()
    outcome = assembly.engine.rotate(assembly.target(project.policy(name)))
    assert outcome.trouble is None
    assert outcome.achieved


def applied(project: Project, name: str, store: str = "vault") -> Policy:
    return policies.read(project.assembly().stores[store].observe(project.entry(name)).policy)


def missing(project: Project, name: str, store: str = "vault") -> bool:
    try:
        project.assembly().stores[store].observe(project.entry(name))
    except Trouble as trouble:
        return trouble.code is Code.NOT_FOUND
    return False


def test_a_preview_changes_nothing(make: Make) -> None:
    """It shows what would be made; no entry, no key, no audit record, no resource in the state comes of it."""
    project = make()
    assert project.run("preview").changes == {"create": 3}
    assert (project.vault(), project.keys()) == ({}, [])
    assert not (project.root / ".keyturn" / "audit").exists()
    assert CHAT not in project.state()


def test_up_and_up_again_and_what_stays_out_of_sight(make: Make) -> None:
    """First up: working credentials. Again, also after a rotation: no changes. And no value in any state or output."""
    project = make()
    assert project.run("up").changes == {"create": 3}
    first = project.handed_out(CHAT)
    assert project.works(first)
    assert project.handed_out(HOOK) is not None
    assert project.run("up").changes == {"unchanged": 3}
    rotate(project, CHAT)
    rotate(project, HOOK)
    second = project.handed_out(CHAT)
    assert first is not None
    assert second is not None
    assert not second.same_as(first)
    assert project.run("up").changes == {"unchanged": 3}
    assert project.run("refresh").changes == {"unchanged": 3}
    assert project.run("preview").changes == {"unchanged": 3}
    values = project.values()
    assert {first.fields["value"].reveal(), second.fields["value"].reveal()} <= values
    assert len(values) == 7  # two credentials of each secret; admin key, secret id, root token
    assert project.search(values) == []


def test_outputs_are_what_rotation_does_not_change(make: Make) -> None:
    """The stack's output says where each entry is; a resource says its policy, its entry, and nothing else."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    before = project.state()
    assert f'"vault:sandbox/{HOOK}"' in before
    rotate(project, HOOK)
    project.run("refresh")
    project.run("up")
    resources = re.compile(r'"outputs": (\{.*?\})', re.DOTALL)
    assert resources.findall(project.state()) == resources.findall(before)


def test_a_changed_policy_is_applied_in_place(make: Make) -> None:
    """One update that says what changes; value and journal stay, the entry's policy is the new one."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    before = project.handed_out(HOOK)
    project.declare(project.secret(HOOK, rotateEvery="60d", drain={"quietFor": "2h"}))
    seen = project.run("preview")
    assert seen.changes == {"update": 1, "unchanged": 1}
    assert re.search(r"rotateEvery: \"?30d\"? (→|=>) \"?60d", seen.text) or project.cli
    assert applied(project, HOOK).rotate_every == timedelta(days=30)
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    assert applied(project, HOOK) == project.policy(HOOK)
    after = project.handed_out(HOOK)
    assert before is not None
    assert after is not None
    assert after.same_as(before)
    assert project.run("up").changes == {"unchanged": 2}


def test_a_schedule_is_applied_and_changed_in_place(make: Make) -> None:
    """The stack's own and the secret's together; a freeze that is added shows in the preview, and one in other words not."""
    project = make()
    freeze = {"from": "2030-12-18", "to": "2031-01-04", "reason": "year-end freeze"}
    stack = {"timeZone": "Europe/Berlin", "window": "Sun 02:00-05:00"}
    project.declare(project.secret(HOOK, schedule={"jitter": "1h"}), defaults={"schedule": stack})
    project.run("up")
    assert applied(project, HOOK) == project.policy(HOOK)
    assert applied(project, HOOK).schedule.zone == "Europe/Berlin"
    own = {"timeZone": "Europe/Berlin", "window": ["sun 02:00-05:00"], "jitter": "60m"}
    project.declare(project.secret(HOOK, schedule=own))
    assert project.run("preview").changes == {"unchanged": 2}
    project.declare(project.secret(HOOK, schedule=own), defaults={"schedule": {"blackouts": [freeze]}})
    assert project.run("preview").changes == {"update": 1, "unchanged": 1}
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    assert applied(project, HOOK) == project.policy(HOOK)
    assert [held.reason for held in applied(project, HOOK).schedule.blackouts] == ["year-end freeze"]
    assert project.run("refresh").changes == {"unchanged": 2}


def test_the_same_policy_in_other_words_is_no_change(make: Make) -> None:
    """`24h` is `1d`; and an address that moves is not a secret's business."""
    project = make()
    project.declare(project.secret(HOOK, grace="24h"))
    project.run("up")
    address = project.services.bao.address.replace("127.0.0.1", "localhost")
    stores = {"vault": {"kind": "hashicorp-vault", "address": address, "mount": "secret"}}
    project.declare(project.secret(HOOK, grace="1d"), stores=stores)
    assert project.run("preview").changes == {"unchanged": 2}


def test_a_removed_secret_is_guarded(make: Make) -> None:
    """In use: refused in one sentence, nothing changed. Said to be meant: the key is dead, the entry recoverable; and
    declared again, the entry comes back with a key that works."""
    project = make()
    project.run("up")
    project.declare(project.secret(HOOK))
    old = project.handed_out(CHAT)
    refused = project.run("up", succeeds=False)
    assert re.search(r"not deleted, as it may be in use: its key \S+ was used at .*Nothing was changed", refused.text)
    assert project.works(old)
    forced = project.run("up", KEYTURN_FORCE_REVOKE=CHAT)
    assert forced.changes == {"delete": 1, "unchanged": 2}
    assert (project.works(old), sum(project.keys()), missing(project, CHAT)) == (False, 0, True)
    assert CHAT not in project.state()
    project.declare()
    assert project.run("up").changes == {"create": 1, "unchanged": 2}
    assert "has been restored" in project.heard[-1]
    assert project.works(project.handed_out(CHAT))
    assert sum(project.keys()) == 1


def test_what_nobody_can_tell_the_use_of_is_not_deleted(make: Make) -> None:
    """The issuer does not answer: the key may be in use. Quiet for long: deleted, and destroyed with the stack."""
    project = make()
    project.declare(project.secret(CHAT))
    project.run("up")
    project.services.clock.move(LONG)
    control = project.services.openai.control
    control.fault("GET", "/v1/organization/projects/*/api_keys/*", times=50, status=500)
    try:
        project.run("destroy", succeeds=False)
    finally:
        control.clear_faults()
    assert sum(project.keys()) == 1
    assert project.run("destroy").changes == {"delete": 2}
    assert (sum(project.keys()), missing(project, CHAT)) == (0, True)
    assert CHAT not in project.state()


def test_drift_shows_and_is_put_right(make: Make) -> None:
    """A policy that somebody edited shows at a refresh, and the next up restores it; so does a deleted entry."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    declared = project.policy(HOOK)
    edited = replace(declared, rotate_every=timedelta(days=90), issuer="openai")
    project.assembly().stores["vault"].set_policy(project.entry(HOOK), policies.written(edited))
    assert project.run("refresh").changes == {"update": 1, "unchanged": 1}
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    assert applied(project, HOOK) == declared
    spoilt = policies.written(declared) | {"drain": "for ever"}
    project.assembly().stores["vault"].set_policy(project.entry(HOOK), spoilt)
    assert project.run("refresh").changes == {"update": 1, "unchanged": 1}
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    assert applied(project, HOOK) == declared
    project.assembly().stores["vault"].delete(project.entry(HOOK))
    assert project.run("refresh").changes == {"delete": 1, "unchanged": 1}
    assert project.run("up").changes == {"create": 1, "unchanged": 1}
    assert project.handed_out(HOOK) is not None
    assert project.run("refresh").changes == {"unchanged": 2}


def test_replicas_come_and_go_in_place(make: Make) -> None:
    """A replica gets an entry with the same value; one that is dropped keeps its entry, and that is said."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    project.declare(project.secret(HOOK, replicas=["mirror"]))
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    primary, copy = project.handed_out(HOOK), project.handed_out(HOOK, "mirror")
    assert primary is not None
    assert copy is not None
    assert copy.same_as(primary)
    assert applied(project, HOOK, "mirror") == project.policy(HOOK)
    project.declare(project.secret(HOOK))
    project.run("up")
    assert "is released" in project.heard[-1]
    assert not missing(project, HOOK, "mirror")


def test_another_store_is_a_new_entry_first(make: Make) -> None:
    """The new entry works before the old one goes; the old one stays as long as its key is in use, and goes later."""
    project = make()
    project.declare(project.secret(CHAT))
    project.run("up")
    old = project.handed_out(CHAT)
    project.declare(project.secret(CHAT, store="mirror"))
    assert project.run("preview").changes == {"replace": 1, "unchanged": 1}
    project.run("up", succeeds=False)
    assert project.works(project.handed_out(CHAT, "mirror"))
    assert project.works(old)
    project.services.clock.move(LONG)
    project.run("up")
    assert not project.works(old)
    assert project.works(project.handed_out(CHAT, "mirror"))
    assert (missing(project, CHAT), sum(project.keys())) == (True, 1)


def theirs(project: Project, name: str) -> str:
    """An entry that a person made in the vault's own console, with a key of the vendor that works. Gives the key's id."""
    issued = project.assembly().issuers["openai"].mint("a person's key")
    project.put_by_hand(name, {"value": issued.credential.fields["value"].reveal()})
    return issued.key_id


def test_an_existing_entry_is_adopted_when_told_so(make: Make) -> None:
    """Without the word it is refused, which is named, and left alone. With it: managed, not a byte of it changed, and no
    change again; then it rotates, and the person's key is dead."""
    project = make()
    project.declare(project.secret(CHAT))
    key_id = theirs(project, CHAT)
    before = project.vault()
    refused = project.run("up", succeeds=False)
    assert "`adopt: true` takes it under management" in refused.text
    assert project.vault() == before
    old = project.handed_out(CHAT)
    project.declare(project.secret(CHAT, adopt=True, adoptKeyId=key_id))
    adopted = project.run("up")
    assert adopted.changes["create"] >= 1
    assert "is adopted, with its value as it was." in adopted.text, adopted.text
    assert project.vault() == before
    assert applied(project, CHAT) == project.policy(CHAT)
    assert project.run("up").changes == {"unchanged": 2}
    project.declare(project.secret(CHAT))
    assert project.run("up").changes == {"unchanged": 2}
    assert project.run("refresh").changes == {"unchanged": 2}
    rotate(project, CHAT)
    assert project.works(old)
    target = project.assembly().target(project.policy(CHAT))
    for _ in range(2):
        project.services.clock.move(timedelta(days=2))
        project.assembly().engine.run(target)
    assert not project.works(old)
    assert project.works(project.handed_out(CHAT))
    assert project.search(project.values()) == []


def test_a_released_secret_is_out_of_pulumis_hands(make: Make) -> None:
    """Released, refreshed, removed: the entry and its key stay. Declared again it is refused, unless it is adopted."""
    project = make()
    project.run("up")
    assembly = project.assembly()
    [key_id] = assembly.engine.observe(assembly.target(project.policy(CHAT))).primary.journal.key_ids.values()
    assembly.engine.release(assembly.target(project.policy(CHAT)))
    before = project.handed_out(CHAT)
    assert project.run("refresh").changes == {"delete": 1, "unchanged": 2}
    project.declare(project.secret(HOOK))
    assert project.run("up").changes == {"unchanged": 2}
    assert project.works(before)
    project.declare()
    project.run("up", succeeds=False)
    project.declare(project.secret(CHAT, adopt=True, adoptKeyId=key_id), project.secret(HOOK))
    assert project.run("up").changes == {"create": 1, "unchanged": 2}
    after = project.handed_out(CHAT)
    assert before is not None
    assert after is not None
    assert after.same_as(before)
    assert sum(project.keys()) == 1


def test_a_changed_format_and_tags_are_applied_in_place(make: Make) -> None:
    """One update; the sweep then brings a value in the new form, and Pulumi has nothing to say to that."""
    project = make()
    project.declare(project.secret(CHAT))
    project.run("up")
    old = project.handed_out(CHAT)
    assert old is not None
    url = "https://api:{value}@proxy.acme.example/v1"
    project.declare(project.secret(CHAT, format={"text": url}, tags={"team": "support", "cost-centre": "42"}))
    assert project.run("preview").changes == {"update": 1, "unchanged": 1}
    assert project.run("up").changes == {"update": 1, "unchanged": 1}
    assert applied(project, CHAT).tags == (("cost-centre", "42"), ("team", "support"))
    assembly = project.assembly()
    assert assembly.engine.run(assembly.target(project.policy(CHAT))).trouble is None
    new = project.handed_out(CHAT)
    assert new is not None
    before, _, after = url.partition("{value}")
    text = new.fields["value"].reveal()
    assert text.startswith(before)
    assert text.endswith(after)
    assert project.works(Credential.of(value=text.removeprefix(before).removesuffix(after)))
    assert project.works(old)
    assert project.run("up").changes == {"unchanged": 2}
    assert project.run("refresh").changes == {"unchanged": 2}


def test_force_revoke_is_declared_before_the_secret_goes(make: Make) -> None:
    """As an input it is applied first; the secret that is then taken away goes although its key is in use."""
    project = make()
    project.run("up")
    project.declare(project.secret(CHAT, forceRevoke=True), project.secret(HOOK))
    assert project.run("up").changes == {"update": 1, "unchanged": 2}
    project.works(project.handed_out(CHAT))
    project.declare(project.secret(HOOK))
    assert project.run("up").changes == {"delete": 1, "unchanged": 2}
    assert sum(project.keys()) == 0


def test_configuration_faults_are_told_at_preview(make: Make) -> None:
    """One readable line for each, with the field's path; not zero; nothing changed, nothing asked."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    before = (project.vault(), project.state())
    faulty = [
        project.secret(HOOK, rotateEvry="60d"),
        project.secret("support-copilot-batch", grace="60d", store="valt"),
        project.secret("Chat"),
    ]
    project.declare(*faulty)
    for command in ("preview", "up"):
        ran = project.run(command, succeeds=False)
        for path in ("[0].rotateEvry", "[1].grace", "[1].store", "[2].name"):
            assert re.search(rf"^.*error: keyturn:secrets{re.escape(path)}: .+$", ran.text, re.MULTILINE)
        assert "Traceback" not in ran.text
    assert (project.vault(), project.state()) == before


def test_an_encrypted_value_is_refused(make: Make) -> None:
    """The stack file holds no secrets, not even encrypted ones."""
    project = make()
    if project.cli:
        project._execute(
            str(project.cli.path),
            *("config", "set", "--secret", "--path", "keyturn:issuers.openai.project", "proj_x", "--stack", "sandbox"),
        )
    else:
        issuers = {"openai": {"kind": "openai", "project": {"secure": "AAAB"}, "admin": {"env": "OPENAI_ADMIN_KEY"}}}
        project.declare(project.secret(CHAT), issuers=issuers)
    assert "keyturn:issuers" in project.run("preview", succeeds=False).text
    assert "encrypted" in project.heard[-1]


@pytest.mark.parametrize("change", [{"issuer": "openai"}, {"store": "mirror", "replicas": ["vault"]}])
def test_a_change_that_cannot_be_made_safely_is_refused_at_preview(make: Make, change: dict[str, str]) -> None:
    """The same entry under another issuer, or under two primaries: the field is named, and nothing is changed."""
    project = make()
    project.declare(project.secret(HOOK))
    project.run("up")
    before = project.vault()
    project.declare(project.secret(HOOK, **change))
    for command in ("preview", "up"):
        refused = project.run(command, succeeds=False).text
        assert re.search(rf"{next(iter(change))}\b.*(can not change|would hold one entry)", refused, re.DOTALL)
    assert project.vault() == before


def test_production_is_protected_and_needs_no_administrator(make: Make) -> None:
    """Environment prod: whoever applies mints nothing and holds no admin key; a removed secret is refused outright."""
    project = make("prod")
    assert project.run("up", OPENAI_ADMIN_KEY="").changes == {"create": 3}
    assert project.keys() == []
    assert project.handed_out(CHAT) is None
    assembly = project.assembly()
    assembly.engine.run(assembly.target(project.policy(CHAT)))
    assert project.works(project.handed_out(CHAT))
    project.declare(project.secret(CHAT, rotateEvery="10d"), project.secret(HOOK))
    assert project.run("up", OPENAI_ADMIN_KEY="").changes == {"update": 1, "unchanged": 2}
    project.declare(project.secret(CHAT, rotateEvery="10d"))
    assert "protect" in project.run("up", succeeds=False).text
    assert not missing(project, HOOK)
    assert "protect" in project.run("destroy", succeeds=False).text
    assert sum(project.keys()) == 1


def test_a_failure_is_one_sentence_and_the_next_up_goes_on(make: Make) -> None:
    """The admin key is refused: the other secret is made all the same; what failed says how it was left. With the
    right key the same command finishes it."""
    project = make()
    failed = project.run("up", succeeds=False, OPENAI_ADMIN_KEY="sk-admin-wrong")
    sentences = [line for line in failed.text.splitlines() if f"sandbox/{CHAT} exists, and not every store" in line]
    assert len(sentences) == 1
    assert sentences[0].rstrip().endswith("The next `pulumi up` goes on from there.")
    assert "sk-admin-wrong" not in failed.text
    assert "above exception" not in failed.text
    assert sum(project.keys()) == 0
    project.run("up")
    assert project.works(project.handed_out(CHAT))
    assert project.handed_out(HOOK) is not None
    assert sum(project.keys()) == 1
    assert project.run("up").changes == {"unchanged": 3}


def test_a_missing_login_is_one_sentence(make: Make) -> None:
    """No secret id in the environment: the field that wants it is named, and no entry is made."""
    project = make()
    project.declare(project.secret(HOOK))
    failed = project.run("up", succeeds=False, KEYTURN_VAULT_SECRET_ID="")
    assert "keyturn:stores.vault.auth.secretId" in failed.text
    assert "KEYTURN_VAULT_SECRET_ID" in failed.text
    assert project.vault() == {}


def test_the_stand_in_says_what_it_is(services: Services, tmp_path: Path) -> None:
    """Its first line cannot be mistaken for the CLI's; `--json` is one object; without `--yes` nothing is done."""
    project = Project(tmp_path, services, None, f"t{uuid.uuid4().hex[:12]}")
    project.declare(project.secret(HOOK))
    assert project.run("preview").text.splitlines()[0].startswith("This is not the Pulumi CLI")
    arguments = ("-m", "sandbox.pulumi_inprocess", "up", "--stack", "sandbox")
    refused = project._execute(sys.executable, *arguments)
    assert (refused.code, "--yes" in refused.text, project.vault()) == (2, True, {})
    told = json.loads(project._execute(sys.executable, *arguments, "--yes", "--json").text)
    assert told["changes"] == {"create": 2}
    assert told["errors"] == []
    assert told["outputs"]["entries"] == {HOOK: f"vault:sandbox/{HOOK}"}
    assert "Previewing" not in project._execute(sys.executable, *arguments, "--yes", "--skip-preview").text
