"""Which secrets are chosen: each selector, how they narrow each other, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from providers.stores.memory import MemoryStore
from rotation.engine import Target
from rotation.incident import selection as selections
from rotation.incident.gather import gather
from rotation.incident.selection import Candidate, Readers, Selection
from rotation.model import Policy
from tests.incident.site import VAULT, Site, consumer, issuer, policy

POLICIES = (
    policy("chat-api", owner="chat", consumers=(consumer("support-api"),), tags=(("team", "red"),)),
    policy("chat-batch", owner="chat", issuer="other", store="second"),
    policy("billing-api", owner="money", replicas=("second",), issuer="shared"),
)


def site(root: Path) -> Site:
    issuers = {
        "openai": issuer(serviceAccount="svc_1"),
        "other": issuer({"env": "OTHER_KEY"}, "proj_b"),
        "shared": issuer(project="proj_c"),  # with the administrative credential of `openai`
    }
    return Site(POLICIES, root, {"vault": VAULT, "second": VAULT}, issuers)


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(everything=True), "billing-api chat-api chat-batch"),
        (Selection(names=("chat-api", "billing-api")), "billing-api chat-api"),
        (Selection(owners=("chat",)), "chat-api chat-batch"),
        (Selection(owners=("chat", "money")), "billing-api chat-api chat-batch"),
        (Selection(environments=("test",)), "billing-api chat-api chat-batch"),
        (Selection(stores=("second",)), "billing-api chat-batch"),
        (Selection(issuers=("other",)), "chat-batch"),
        (Selection(projects=("proj_a", "proj_c")), "billing-api chat-api"),
        (Selection(service_accounts=("svc_1",)), "chat-api"),
        (Selection(tags=(("team", "red"),)), "chat-api"),
        (Selection(tags=(("team", "blue"),)), ""),
        (Selection(admins=("openai",)), "billing-api chat-api"),
        (Selection(admins=("other",)), "chat-batch"),
        (Selection(readers=("support-api",)), "chat-api"),
        (Selection(owners=("chat",), stores=("second",)), "chat-batch"),
        (Selection(everything=True, owners=("money",)), "billing-api"),
        (Selection(names=("chat-api",), owners=("money",)), ""),
        (Selection(leaked=(Target("vault", "test/chat-api"),)), "chat-api"),
        (Selection(leaked=(), leaked_admins=("shared",)), "billing-api chat-api"),
    ],
    ids=lambda given: given.words() if isinstance(given, Selection) else given,
)
def test_selectors(tmp_path: Path, selection: Selection, chosen: str) -> None:
    """Alternatives within one, narrowing between several; an administrative credential counts wherever it is used."""
    found = gather(site(tmp_path).process(), selection)
    assert sorted(one.policy.name for one in found.chosen) == chosen.split()


def test_age_counts_from_the_promotion(tmp_path: Path) -> None:
    """What was replaced since is young; what is not known to be young is old."""
    s = site(tmp_path)
    s.clock.move(timedelta(days=10))
    s.process().engine.rotate(s.target("chat-api"))
    s.clock.move(timedelta(days=1))
    found = gather(s.process(), Selection(older_than=timedelta(days=5)))
    assert sorted(one.policy.name for one in found.chosen) == ["billing-api", "chat-batch"]
    s.away = {"second"}
    found = gather(s.process(), Selection(older_than=timedelta(days=5)))
    assert sorted(one.policy.name for one in found.chosen) == ["billing-api", "chat-batch"]
    assert any("chat-batch" in note and "taken to be old" in note for note in found.notes)


def test_readers_are_what_stores_tell_and_what_is_declared() -> None:
    """A role by its own name, or the last part of it; a store that can not tell says so elsewhere."""
    one = Candidate(Target("vault", "test/chat-api"), POLICIES[0])
    names = {("vault", one.target): "test/chat-api"}
    told = Readers({"vault": {"test/chat-api": ("arn:aws:iam::123456789012:role/ops/deployer",)}})
    assert selections.reads("deployer", one, told, names)
    assert selections.reads("arn:aws:iam::123456789012:role/ops/deployer", one, told, names)
    assert selections.reads("support-api", one, Readers(), names)
    assert not selections.reads("ops", one, told, names)
    assert not selections.reads("deployer", one, Readers(), names)


def test_a_store_that_tells_its_readers_is_asked(tmp_path: Path) -> None:
    """And one that does not is named: its secrets are chosen by their declared consumers alone."""
    s = site(tmp_path)
    a = s.process()

    class Telling(MemoryStore):
        def readers(self, entries: Sequence[str]) -> Mapping[str, Sequence[str]]:
            return {entry: ["deployer"] for entry in entries if "billing" in entry}

    stores = dict(a.stores) | {"second": Telling("second", s.vaults["second"], s.clock.now)}
    found = gather(replace(a, stores=stores), Selection(readers=("deployer",)))
    assert [one.policy.name for one in found.chosen] == ["billing-api"]
    assert any(note.startswith("vault does not tell who reads it") for note in found.notes)


def test_the_entry_of_a_compromised_administrative_credential_is_always_chosen(tmp_path: Path) -> None:
    """Whatever else narrows the choice, and before all else."""
    policies: list[Policy] = [policy("openai-admin", issuer="admins", owner="platform"), policy("chat-api")]
    issuers = {"openai": issuer({"store": "vault", "name": "test/openai-admin"}), "admins": issuer()}
    s = Site(policies, tmp_path, issuers=issuers)
    found = gather(s.process(), Selection(admins=("openai",), owners=("team",)))
    assert [one.policy.name for one in found.chosen] == ["openai-admin", "chat-api"]
    assert found.admins == {s.target("openai-admin")}


def test_what_is_not_there_is_a_fault_and_no_empty_choice(tmp_path: Path) -> None:
    """A slip of the pen must not look like a small blast radius."""
    config = site(tmp_path).config
    told = selections.faults(Selection(owners=("nobody",), issuers=("openai", "opanai")), config)
    assert [line.split(";")[0] for line in told] == [
        "--owner: there is no nobody in this stack",
        "--issuer: there is no opanai in this stack (did you mean openai?)",
    ]
    assert selections.faults(Selection(owners=("chat",), admins=("openai",)), config) == []
