"""Rotations under the printed policies against a real OpenBao, which enforces them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from providers.access import vault
from providers.access.vault import Rule
from providers.stores.vault import AppRoleLogin, TokenLogin, VaultStore
from rotation.access import Access, Persona
from rotation.clock import SystemClock
from rotation.errors import Code, Trouble
from rotation.model import Credential, SecretValue
from rotation.ports import SecretStore
from rotation.provision import Refusal
from rotation.sections import VaultConfig
from sandbox.openbao import OpenBaoServer
from tests.access.life import ADMIN, BATCH, CHAT, PARTS, Part, Site, attempts, site_config
from tests.world import FakeClock

MERGE = {"Content-Type": "application/merge-patch+json"}
OWN = "auth/token/"
"""Where the paths of a token's own start; they have a test of their own."""


@dataclass
class VaultSite(Site):
    """A primary and a replica in folders of one server."""

    server: OpenBaoServer = field(kw_only=True)
    corner: str = field(kw_only=True)
    """Folder of all that this test has."""
    tokens: dict[Persona, str] = field(default_factory=dict)
    names: dict[Persona, str] = field(default_factory=dict)
    start: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start = self.server.audit_log.stat().st_size

    def about(self, name: str) -> VaultConfig:
        found = self.config.stores[name]
        assert isinstance(found, VaultConfig)
        return found

    def store(self, name: str, persona: Persona | None) -> SecretStore:
        about = self.about(name)
        token = self.tokens[persona] if persona else self.server.root_token
        return VaultStore(
            name,
            address=about.address,
            mount=about.mount,
            prefix=about.prefix,
            ca_bundle=about.ca_bundle,
            auth=TokenLogin(SecretValue(token)),
            clock=self.clock,
            environment=self.config.environment,
        )

    def put_by_hand(self, store: str, entry: str, value: str) -> None:
        assert self.send("POST", f"data/{self.about(store).prefix}/{entry}", {"data": {"value": value}}).ok

    def remove(self, store: str, entry: str) -> None:
        for path in (entry, f"{entry}-pending"):
            assert self.send("DELETE", f"metadata/{self.about(store).prefix}/{path}").ok

    def send(
        self, method: str, path: str, body: object = None, token: str | None = None, **headers: str
    ) -> requests.Response:
        headers["X-Vault-Token"] = token or self.server.root_token
        url = f"{self.server.address}/v1/secret/{path}"
        return requests.request(method, url, json=body, headers=headers, verify=str(self.server.ca), timeout=10)

    def printed(self, part: Part) -> list[Rule]:
        """What `keyturn policy vault … support-copilot-chat` prints, of both stores, without the token's own paths."""
        found = self.needs(part.persona, CHAT, mints=part.mints)
        rules = [rule for name, need in found.items() for rule in vault.rules(self.about(name), need, ours=True)]
        return [rule for rule in rules if not rule.path.startswith(OWN)]

    def grant(self, persona: Persona, rules: list[Rule]) -> None:
        name = self.names[persona] = f"keyturn-{secrets.token_hex(6)}"
        own = [Rule(f"{OWN}lookup-self", ("read",))]
        self.server._administrator.set_policy(name, vault.hcl([*rules, *own]))
        self.tokens[persona] = self.server._administrator.new_token(name)

    def calls(self, persona: Persona) -> Iterator[tuple[str, str, bool]]:
        """Capability, path and whether it was refused, of every request of the persona, as the server's audit has it."""
        with self.server.audit_log.open() as log:
            log.seek(self.start)
            for line in log:
                record = json.loads(line)
                if record["type"] == "response" and self.names[persona] in record["auth"].get("policies", ()):
                    path = record["request"]["path"]
                    if not path.startswith(OWN):
                        yield record["request"]["operation"], path, "permission denied" in record.get("error", "")

    def denied(self, persona: Persona) -> list[str]:
        return [f"{capability} {path}" for capability, path, refused in self.calls(persona) if refused]

    def used(self, persona: Persona, rules: list[Rule]) -> set[tuple[str, str]]:
        """Capability, and path of the rule that lets it through. As on Vault, where there is no detailed-metadata."""
        exact = {rule.path for rule in rules}
        found = set()
        for capability, path, refused in self.calls(persona):
            if refused:
                assert "/detailed-metadata/" in path, f"{capability} {path}"
            else:
                place = path if path in exact else f"{path.rpartition('/')[0]}/+"
                found.add((capability, place.replace(self.corner, "CORNER")))
        return found

    def granted(self, rules: list[Rule]) -> set[tuple[str, str]]:
        places = ((rule, rule.path.replace(self.corner, "CORNER")) for rule in rules)
        return {(capability, place) for rule, place in places for capability in rule.capabilities}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as running:
        yield running


Make = Callable[..., VaultSite]


@pytest.fixture
def make(server: OpenBaoServer) -> Make:
    def site(**about_chat: Any) -> VaultSite:
        corner = f"t{secrets.token_hex(4)}"
        usual = {"kind": "hashicorp-vault", "address": server.address, "caBundle": str(server.ca)}
        stores = {"main": {**usual, "prefix": f"{corner}/a"}, "mirror": {**usual, "prefix": f"{corner}/b"}}
        made = VaultSite(site_config(stores, **about_chat), FakeClock(datetime.now(UTC)), server=server, corner=corner)
        made.seed()
        return made

    return site


def as_vault(rules: list[Rule]) -> list[Rule]:
    """Without what OpenBao alone has: so is everything done as HashiCorp's Vault makes it be done."""
    return [rule for rule in rules if "/detailed-metadata/" not in rule.path]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_what_is_granted_is_what_is_used(make: Make, part: Part) -> None:
    """Whole lives under the printed policy, with OpenBao's quicker listing and without: nothing refused, nothing left."""
    used: set[tuple[str, str]] = set()
    wanted: set[tuple[str, str]] = set()
    for narrowed in (list, as_vault):
        site = make()
        rules = narrowed(site.printed(part))
        site.grant(part.persona, rules)
        part.work(site)
        used |= site.used(part.persona, rules)
        wanted |= site.granted(rules)
    assert used == wanted


def less(rules: list[Rule]) -> Iterator[tuple[str, Callable[[list[Rule]], list[Rule]]]]:
    """Every way to take one capability of one path away."""
    for number, rule in enumerate(rules):
        for capability in rule.capabilities:

            def smaller(all_rules: list[Rule], number: int = number, capability: str = capability) -> list[Rule]:
                left = tuple(each for each in all_rules[number].capabilities if each != capability)
                changed = [replace(all_rules[number], capabilities=left)] if left else []
                return [*all_rules[:number], *changed, *all_rules[number + 1 :]]

            yield f"{capability} on {rule.path}", smaller


@pytest.mark.parametrize("part", [part for part in PARTS if not part.mints], ids=str)
def test_with_one_capability_less_it_fails(make: Make, part: Part) -> None:
    """Whichever it is, on Vault: what the persona is for does not come about."""
    for name, smaller in less(as_vault(make().printed(part))):
        site = make()
        site.grant(part.persona, smaller(as_vault(site.printed(part))))
        with pytest.raises((AssertionError, Trouble, Refusal)):
            part.work(site)
        assert any("detailed" not in refused for refused in site.denied(part.persona)), name


def test_a_neighbour_is_refused(make: Make) -> None:
    """Another secret of the same folder, and one whose name only begins the same, to every persona."""
    site = make()
    neighbours = {site.entry(site.policy(BATCH)), f"{site.entry(site.policy(CHAT))}-2nd-life"}
    for entry in neighbours:
        site.put_by_hand("main", entry, "theirs")
    for part in PARTS:
        site.grant(part.persona, site.printed(part))
        store = site.store("main", part.persona)
        for entry in neighbours:
            for attempt in attempts(store, entry):
                with pytest.raises(Trouble) as caught:
                    attempt()
                assert caught.value.code is Code.DENIED


def test_settings_of_an_entry_can_not_be_changed(make: Make) -> None:
    """Facts and policies can be written, the settings by which versions end can not: that would be a way to lose values."""
    site = make()
    site.provisioner(None).create(site.policy(CHAT), bootstrap="function")
    path = f"metadata/{site.about('main').prefix}/{site.entry(site.policy(CHAT))}"
    for part in PARTS:
        site.grant(part.persona, site.printed(part))
        token = site.tokens[part.persona]
        assert site.send("PATCH", path, {"custom_metadata": {"journal.x": "y"}}, token, **MERGE).ok
        for setting in ({"max_versions": 1}, {"delete_version_after": "1s"}, {"cas_required": True}):
            assert site.send("PATCH", path, setting, token, **MERGE).status_code == 403
            assert site.send("POST", path, setting, token).status_code == 403
            both = {"custom_metadata": {"journal.x": "y"}, **setting}
            assert site.send("PATCH", path, both, token, **MERGE).status_code == 403
        assert site.send("DELETE", path, None, token).status_code == 403


def consumers(site: VaultSite, *cidrs: str) -> dict[str, str]:
    """What `keyturn policy vault --for read` prints for consumers of the first secret: policies by the role's networks."""
    access = site.needs(Persona.READ, CHAT)["main"]
    found = {}
    for bound, grants in vault.bounds(access.grants).items():
        assert bound == cidrs
        found[",".join(bound)] = vault.hcl(
            vault.rules(site.about("main"), Access(access.environment, tuple(grants)), ours=False)
        )
    return found


def test_a_consumer_gets_the_current_value_and_nothing_else(make: Make, server: OpenBaoServer) -> None:
    """Not what is pending, not an older version, no metadata of its own, no list. Custom metadata comes with the value:
    Vault has no right that keeps it back, which docs/access.md says."""
    site = make()
    entry = site.entry(site.policy(CHAT))
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    first = site.handed_out(CHAT)["main"]
    assert site.assembly(None).engine.rotate(site.target(CHAT)).achieved
    site.store("main", None).stage(entry, "0" * 32, Credential.of(value="pending"), key_id=None)
    (text,) = consumers(site).values()
    site.tokens[Persona.READ] = token = server.token(text)
    prefix = site.about("main").prefix
    assert site.store("main", Persona.READ).current(entry).fields["value"].reveal() != first
    assert site.send("GET", f"data/{prefix}/{entry}", token=token).ok
    assert "journal" in site.send("GET", f"data/{prefix}/{entry}", token=token).text
    for method, path in (
        ("GET", f"data/{prefix}/{entry}?version=1"),
        ("GET", f"data/{prefix}/{entry}?version=2"),
        ("GET", f"data/{prefix}/{entry}-pending"),
        ("GET", f"metadata/{prefix}/{entry}"),
        ("GET", f"subkeys/{prefix}/{entry}"),
        ("GET", f"metadata/{prefix}/prod/?list=true"),
        ("GET", f"data/{prefix}/{ADMIN}"),
        ("GET", f"data/{prefix}/{site.entry(site.policy(BATCH))}"),
        ("POST", f"data/{prefix}/{entry}"),
    ):
        assert site.send(method, path, {"data": {}} if method == "POST" else None, token).status_code == 403, path


@pytest.mark.parametrize(("network", "lets"), [("127.0.0.0/8", True), ("198.51.100.0/24", False)])
def test_a_consumers_role_keeps_to_the_declared_networks(
    make: Make, server: OpenBaoServer, network: str, lets: bool
) -> None:
    """The printed role gives a token within them only, and that token works there only."""
    site = make(allowedCidrs=[network])
    site.provisioner(None).create(site.policy(CHAT), bootstrap="apply")
    ((cidrs, text),) = consumers(site, network).items()
    name = f"keyturn-{secrets.token_hex(6)}"
    server._administrator.set_policy(name, text)
    server._administrator._call("POST", f"auth/approle/role/{name}", vault.role(name, (cidrs,)))
    role_id = server._administrator._call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    about = site.about("main")

    def current() -> Credential:
        secret_id = SecretValue(server._administrator.new_secret_id(name))
        store = VaultStore(
            "main",
            address=about.address,
            mount=about.mount,
            prefix=about.prefix,
            ca_bundle=about.ca_bundle,
            auth=AppRoleLogin(role_id, secret_id),
            clock=SystemClock(),
        )
        return store.current(site.entry(site.policy(CHAT)))

    if lets:
        assert current().fields["value"].reveal() in site.live()
    else:
        with pytest.raises(Trouble, match="login by AppRole at auth/approle was refused"):
            current()


@dataclass
class LateClock(SystemClock):
    """Real time, but a monotonic clock that can be moved."""

    ahead: float = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def test_what_is_granted_on_ones_own_token_is_used(make: Make, server: OpenBaoServer) -> None:
    """Renewed when most of its life is over; looked at after a refusal. A configured token is not renewed by us."""
    site = make()
    site.provisioner(None).create(site.policy(CHAT), bootstrap="function")
    need = site.needs(Persona.ROTATE, CHAT)["main"]
    login = {"method": "approle", "roleId": {"env": "A"}, "secretId": {"env": "B"}}
    about = VaultConfig.model_validate({**site.about("main").model_dump(by_alias=True), "auth": login})
    rules = vault.rules(about, need, ours=True)
    own = [rule.path for rule in rules if rule.path.startswith(OWN)]
    configured = vault.rules(site.about("main"), need, ours=True)
    assert [rule.path for rule in configured if rule.path.startswith(OWN)] == own[:1]
    clock = LateClock()
    role_id, secret_id = server.approle(vault.hcl(rules))
    store = VaultStore(
        "main",
        address=about.address,
        mount=about.mount,
        prefix=about.prefix,
        ca_bundle=about.ca_bundle,
        auth=AppRoleLogin(role_id, SecretValue(secret_id)),
        clock=clock,
    )
    start = server.audit_log.stat().st_size
    store.observe(site.entry(site.policy(CHAT)))
    clock.ahead = timedelta(minutes=45).total_seconds()
    store.observe(site.entry(site.policy(CHAT)))
    with pytest.raises(Trouble):
        store.observe(site.entry(site.policy(BATCH)))
    with server.audit_log.open() as log:
        log.seek(start)
        seen = {(r["request"]["path"], r.get("error", "")) for r in map(json.loads, log) if r["type"] == "response"}
    assert {path for path, error in seen if path.startswith(OWN) and not error} == set(own)
