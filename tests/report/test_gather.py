"""What gathering asks for: one listing of each store, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from providers.stores.memory import MemoryStore, MemoryVault
from rotation import journal
from rotation import policy as policies
from rotation.audit.files import FilePlace
from rotation.errors import Code, Trouble
from rotation.model import Credential
from rotation.report import report
from rotation.report.gather import gather
from rotation.report.lives import State
from tests.report.made import NOW, facts


@dataclass
class Site:
    """Stores in memory that count what they are asked, with the policies of made facts in them."""

    count: int = 40
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = facts(self.count)
        self.policies = [known.policy for known in made.secrets]
        vaults = {name: MemoryVault() for name in ("aws", "vault", "azure")}
        quiet = {name: MemoryStore(name, vault, lambda: NOW) for name, vault in vaults.items()}
        for known in made.secrets:
            for store in known.policy.stores:
                quiet[store].create(known.entry, policies.written(known.policy))
            primary = quiet[known.policy.store]
            token = next(iter(journal.Journal(known.facts).promoted))
            primary.stage(known.entry, token, Credential.of(value="kt-value-never-asked-for"), key_id="key")
            staged = primary.observe(known.entry).pending
            assert staged is not None
            primary.promote(known.entry, staged, None)
            primary.record(known.entry, known.facts)

        def hearing(name: str) -> Callable[[str], None]:
            return lambda call: self.calls.append(f"{name} {call}")

        stores = {name: MemoryStore(name, vault, lambda: NOW, hearing(name)) for name, vault in vaults.items()}
        config = SimpleNamespace(installation="acme", environment="prod", policies=tuple(self.policies), issuers={})
        self.stores: dict[str, Any] = dict(stores)
        # Issuers are missing on purpose: whoever asked one would fail.
        self.assembly: Any = SimpleNamespace(config=config, stores=self.stores, clock=SimpleNamespace(now=lambda: NOW))

    def gathered(self, places: Any = ()) -> Any:
        return gather(self.assembly, places, [], [], stack="Pulumi.prod.yaml")


def test_one_listing_of_each_store_and_nothing_else() -> None:
    """As many calls for forty secrets as for four: no look at any of them, and no value is read."""
    for count in (4, 40):
        site = Site(count)
        made = report(site.gathered())
        assert sorted(site.calls) == sorted(
            f"{store} {when} listing" for store in site.stores for when in ("before", "after")
        )
        assert made.now.secrets == count
        assert all(State.CURRENT in {life.state for life in account.lives} for account in made.accounts)
        assert all(account.rotated_at is not None for account in made.accounts)


def test_the_trail_is_read_once(tmp_path: Any) -> None:
    """A line at a time, when the facts are used and not before."""
    read: list[str] = []

    class Counted(FilePlace):
        def read(self) -> Iterator[Any]:
            read.append(self.name)
            return super().read()

    file = tmp_path / "trail.jsonl"
    file.write_text(
        '{"at":"2026-11-01T00:00:00+00:00","event":"mint.done","secret":"prod/x","token":"t","key_id":"k"}\nnonsense\n'
    )
    found = Site(3).gathered([Counted(file)])
    assert read == []
    assert report(found).trail.records == 1
    assert read == [str(file)]


def test_a_store_that_does_not_answer_is_told_and_stops_nothing() -> None:
    """What the others have is there; the report says what is missing."""
    site = Site(12)

    class Silent:
        def listing(self) -> Iterator[Any]:
            raise Trouble(Code.UNAVAILABLE, "vault", "no answer")

    site.stores["vault"] = Silent()
    found = site.gathered()
    made = report(found)
    assert found.silent == {"vault"}
    assert "vault: no answer" in made.troubles
    assert {a.policy.store for a in made.accounts if a.phase and a.phase.value == "unreachable" and a.policy} == {
        "vault"
    }
    assert sum(a.rotated_at is not None for a in made.accounts) == 8


def test_what_is_not_ours_is_left_out() -> None:
    """Another installation's, another environment's; a policy that can not be read is told."""
    site = Site(3)
    store = site.stores["aws"]
    strange = {**policies.written(site.policies[1]), "name": "theirs"}
    store.create("prod/theirs", {**strange, "installation": "other"})
    store.create("dev/theirs", {**strange, "environment": "dev"})
    store.create("prod/broken", {**strange, "name": "broken", "drain": "?"})
    found = site.gathered()
    assert {known.policy.name for known in found.secrets} == {policy.name for policy in site.policies}
    assert "prod/broken" in found.troubles[0]


def test_no_trail_is_said() -> None:
    """A report without a past tells that it has none, and how to give it one."""
    assert "--file" in Site(1).gathered().troubles[0]
