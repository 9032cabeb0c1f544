"""Rotations under the printed roles against the stand-in for Key Vault, which grants nothing but them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from providers.access import azure
from providers.stores.azure import AzureLogin, KeyVaultStore
from rotation.access import Persona
from rotation.errors import Code, Trouble
from rotation.model import Credential, SecretValue
from rotation.ports import SecretStore
from rotation.provision import Refusal
from rotation.sections import KeyVaultConfig
from sandbox.keyvault.entra import Assignment, Principal
from sandbox.keyvault.harness import KeyVaultServer
from tests.access.life import ADMIN, BATCH, CHAT, PARTS, Part, Site, attempts, site_config
from tests.world import FakeClock

SECRET = "of-the-personas"
LIST = "readMetadata/action"


@dataclass
class AzureSite(Site):
    """One vault, empty before each test."""

    server: KeyVaultServer = field(kw_only=True)
    monkeypatch: pytest.MonkeyPatch = field(kw_only=True)

    def about(self) -> KeyVaultConfig:
        found = self.config.stores["main"]
        assert isinstance(found, KeyVaultConfig)
        return found

    def store(self, name: str, persona: Persona | None) -> SecretStore:
        credential = self.server.credential(persona.value, SECRET) if persona else self.server.credential()

        class Login(AzureLogin):
            """One principal among several of this process; otherwise DefaultAzureCredential finds the environment's."""

            def open(self, ca_bundle: str | None) -> object:
                return credential

        return KeyVaultStore(
            name,
            vault_url=self.server.vault_url,
            login=Login(),
            ca_bundle=self.server.ca,
            verify_challenge_resource=False,
            clock=self.clock,
        )

    def put_by_hand(self, store: str, entry: str, value: str) -> None:
        self.server.client().set_secret(entry, value)

    def remove(self, store: str, entry: str) -> None:
        for part in ("", "-pending", "-journal", "-policy"):
            if entry + part in self.names():
                self.server.vault.delete(entry + part)
            self.server.vault.purge(entry + part)

    def names(self) -> set[str]:
        return {found.name for found in self.server.vault.list_secrets("", 25).items}

    def printed(self, part: Part) -> list[azure.Assignment]:
        """What `keyturn policy azure … support-copilot-chat` prints."""
        return azure.assignments(self.needs(part.persona, CHAT, mints=part.mints)["main"])

    def grant(self, persona: Persona, given: list[azure.Assignment]) -> None:
        roles = tuple(Assignment(frozenset(each.actions), each.secret) for each in given)
        self.server.add_principal(Principal(persona.value, SECRET, roles=roles))
        self.server.control.clear_log()

    def calls(self, persona: Persona) -> Iterator[tuple[str, str | None, int | None]]:
        """Action, secret (None: the vault) and answer of every request of the persona to the vault."""
        for record in self.server.control.log:
            if record.client_id != persona.value or not record.path.startswith(("/secrets", "/deletedsecrets")):
                continue
            kind, name, *below = [*record.path.strip("/").split("/"), ""]
            deleted = kind == "deletedsecrets"
            action = {
                ("GET", False): LIST if below[:1] == ["versions"] or not name else "getSecret/action",
                ("PUT", False): "setSecret/action",
                ("DELETE", False): "delete",
                ("GET", True): LIST,
                ("POST", True): "recover/action",
            }[record.method, deleted]
            yield action, None if deleted or not name else name, record.status

    def denied(self, persona: Persona) -> list[str]:
        return [f"{action} {name}" for action, name, status in self.calls(persona) if status == 403]

    def used(self, persona: Persona, given: list[azure.Assignment]) -> set[tuple[str, str | None]]:
        whole = {action for each in given if each.secret is None for action in each.actions}
        found = set()
        for action, name, status in self.calls(persona):
            assert status != 403, f"{action} {name}"
            found.add((action, None if action in whole else name))
        return found


@pytest.fixture(scope="module")
def shared() -> Iterator[KeyVaultServer]:
    with KeyVaultServer() as running:
        yield running


Make = Callable[[], AzureSite]


@pytest.fixture
def make(shared: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    def site() -> AzureSite:
        shared.vault.reset()
        shared.control.clear_log()
        store = {"kind": "azure-key-vault", "vaultUrl": shared.vault_url}
        made = AzureSite(
            site_config({"main": store}), FakeClock(datetime.now(UTC)), server=shared, monkeypatch=monkeypatch
        )
        made.seed()
        return made

    return site


def granted(given: list[azure.Assignment]) -> set[tuple[str, str | None]]:
    return {(action, each.secret) for each in given for action in each.actions}


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_what_is_granted_is_what_is_used(make: Make, part: Part) -> None:
    """A whole life under the printed roles: nothing is refused, and no action at any scope is left over."""
    site = make()
    given = site.printed(part)
    site.grant(part.persona, given)
    part.work(site)
    assert site.used(part.persona, given) == granted(given)


@pytest.mark.parametrize("part", [part for part in PARTS if not part.mints], ids=str)
def test_with_one_action_less_it_fails(make: Make, part: Part) -> None:
    """Whichever it is: what the persona is for does not come about."""
    for number, each in enumerate(make().printed(part)):
        for action in each.actions:
            site = make()
            given = site.printed(part)
            given[number] = replace(each, actions=tuple(other for other in each.actions if other != action))
            site.grant(part.persona, given)
            with pytest.raises((AssertionError, Trouble, Refusal)):
                part.work(site)
            assert site.denied(part.persona), (action, each.secret)


def test_a_neighbour_is_refused(make: Make) -> None:
    """Another secret of the same vault, to every persona."""
    site = make()
    neighbour = site.entry(site.policy(BATCH))
    site.put_by_hand("main", neighbour, "theirs")
    for part in PARTS:
        site.grant(part.persona, site.printed(part))
        for attempt in attempts(site.store("main", part.persona), neighbour):
            with pytest.raises(Trouble) as caught:
                attempt()
            assert caught.value.code is Code.DENIED


def test_who_applies_in_production_gets_no_value(make: Make) -> None:
    """Of the secret, nor of what is pending for it."""
    site = make()
    entry = site.entry(site.policy(CHAT))
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    site.grant(PARTS[0].persona, site.printed(PARTS[0]))
    store = site.store("main", Persona.PROVISION)
    assert store.applied(entry)["name"] == CHAT
    for attempt in (lambda: store.current(entry), lambda: store.observe(entry)):
        with pytest.raises(Trouble) as caught:
            attempt()
        assert caught.value.code is Code.DENIED


def test_a_consumer_gets_the_value_and_nothing_of_what_stands_beside_it(make: Make) -> None:
    """Not what is pending, not the journal, not the policy, no list, and not the administrative credential."""
    site = make()
    entry = site.entry(site.policy(CHAT))
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    pending = Credential({"value": SecretValue("pending")})
    site.store("main", None).stage(entry, secrets.token_hex(16), pending, key_id=None)
    site.grant(Persona.READ, azure.assignments(site.needs(Persona.READ, CHAT)["main"]))
    store = site.store("main", Persona.READ)
    assert store.current(entry).fields["value"].reveal() in site.live()
    for other in (f"{entry}-pending", f"{entry}-journal", f"{entry}-policy", ADMIN):
        with pytest.raises(Trouble) as caught:
            store.current(other)
        assert caught.value.code is Code.DENIED
    with pytest.raises(Trouble):
        list(store.listing())
