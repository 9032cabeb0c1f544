"""Every description that comes with Keyturn: it reads its samples, and keeps the contract against a stand-in made of both.

That shows that each is sound, and not that the vendor is as it says: see sandbox/vendor.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from providers.issuers.description import Description
from providers.issuers.http import HttpIssuer, capabilities_of
from providers.issuers.language import admin_parts, forms
from providers.issuers.reading import shipped, shipped_kinds
from providers.issuers.samples import Sample, Samples, faults_in, shipped_samples
from rotation.model import Credential, Issued, Model, SecretValue
from rotation.ports import Issuer
from sandbox.vendor import PAGE, Fault, Key, Vendor, like
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation
from tests.world import FakeClock

FAULTS: Final[dict[Mishap, Fault]] = {
    Mishap.LOST_BEFORE: Fault(),
    Mishap.LOST_AFTER: Fault(after=True),
    Mishap.FAULT_BEFORE: Fault(Sample(status=503, body={"error": "unavailable"})),
    Mishap.FAULT_AFTER: Fault(Sample(status=500, body={"error": "internal"}), after=True),
    Mishap.THROTTLED: Fault(Sample(status=429, body={"error": "slow down"}, headers={"Retry-After": "7"})),
    Mishap.ADDRESS_REFUSED: Fault("unclear"),
}


class VendorHarness(IssuerHarness):
    """A stand-in with propagation delays, which the test's clock drives."""

    more_than_a_page = PAGE + 2

    def __init__(self, vendor: Vendor, clock: FakeClock) -> None:
        self.vendor, self.clock, self.about = vendor, clock, vendor.about
        self.lists = self.about.listing is not None
        told = self.about.last_use
        self.tells_never = self.about.usage is None if told is None else told.never is not None
        self.unknown_ids = tuple("/".join(self.unknown(part) for part in form) for form in forms(self.about)) or (
            "x-0",
        )
        if self.about.slots:
            self.unknown_ids = tuple(f"{name}/00000000000000000000" for name in self.about.slots)
        self.open: list[HttpIssuer] = []
        self.issuer: HttpIssuer = self.client()
        self.turn = 0

    def unknown(self, part: str) -> str:
        return f"{part}-of-nobody"

    def client(self, admin: Callable[[], SecretValue] | None = None) -> HttpIssuer:
        asked = admin or (lambda: SecretValue(self.vendor.admin))
        issuer = HttpIssuer("vendor", self.about, self.vendor.variables, asked, self.clock)
        self.open.append(issuer)
        return issuer

    def without_admin(self) -> Issuer:
        def refuse() -> SecretValue:
            raise AssertionError("the administrative credential was asked for")

        return self.client(refuse)

    def issue(self, key_name: str) -> Issued:
        if self.model is Model.MANUAL:
            key = self.vendor.create(key_name)
            form = (forms(self.about) or (tuple(key.parts),))[0]
            key_id = "/".join(str(key.parts[part]) for part in form)
            return Issued(key_id, Credential.of(**key.values), self.clock.now())
        if self.model is Model.SLOTS:
            slot = list(self.about.slots)[self.turn % len(self.about.slots)]
            self.turn += 1
            return self.issuer.mint(key_name, slot)
        return self.issuer.mint(key_name)

    def another(self, credential: Credential) -> Credential:
        return Credential.of(**{name: like(value.reveal(), 0) for name, value in credential.fields.items()})

    def withdraw(self, issued: Issued) -> None:
        self.vendor.kill(self.key_of(issued.credential))

    def key_of(self, credential: Credential) -> Key:
        shown = {name: value.reveal() for name, value in credential.fields.items()}
        return next(key for key in self.vendor.keys if key.values == shown)

    def use(self, credential: Credential) -> bool:
        return self.vendor.accepts({name: value.reveal() for name, value in credential.fields.items()})

    def live(self) -> int:
        return len(self.vendor.live())

    def mints(self) -> int:
        return self.vendor.minted

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        # A slot is revoked by regenerating it, and last use may be in the list.
        told: str = operation
        if operation == "revoke" and self.about.slots:
            told = "mint"
        if operation == "last_use" and self.about.last_use and self.about.last_use.request is None:
            told = "keys"
        if operation == "last_use" and self.about.last_use is None and self.about.usage:
            told = "usage"
        self.vendor.faults.setdefault(told, []).append(FAULTS[mishap])

    def secrets(self) -> Iterable[str]:
        parts = admin_parts(self.about)
        return [json.loads(self.vendor.admin)[part] for part in parts] if parts else [self.vendor.admin]


def both_ways(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A vendor with each way of minting that its variables choose between."""
    about = shipped(kind)
    chosen = [way.when for way in about.mint if way.when]
    if not chosen:
        yield kind, {}
    for when in chosen:
        yield f"{kind}-{when}", {when: "chosen" if about.variables[when].type == "string" else ["chosen"]}
    if chosen and about.mint[-1].when is None:
        yield kind, {}


CASES: Final = [case for kind in shipped_kinds() for case in both_ways(kind)]


def samples_for(kind: str, given: dict[str, Any]) -> Samples:
    samples = shipped_samples(kind)
    whens = {way.when for way in shipped(kind).mint if way.when}
    variables = {name: value for name, value in samples.variables.items() if name not in whens} | given
    return samples.model_copy(update={"variables": variables})


@pytest.fixture(params=CASES, ids=[name for name, _ in CASES])
def harness_of(request: pytest.FixtureRequest) -> Iterator[VendorHarness]:
    name, given = request.param
    kind = next(kind for kind in sorted(shipped_kinds(), key=len, reverse=True) if name.startswith(kind))
    clock = FakeClock()
    later, last = timedelta(seconds=2), timedelta(seconds=3)
    samples = samples_for(kind, given)
    with Vendor(shipped(kind), samples, now=clock.now, create_delay=later, revoke_delay=last) as vendor:
        harness = VendorHarness(vendor, clock)
        yield harness
        for issuer in harness.open:
            issuer.close()


class TestEveryVendor(IssuerContract):
    @pytest.fixture
    def harness(self, harness_of: VendorHarness) -> IssuerHarness:
        return harness_of

    def test_its_admin_credential_can_be_replaced_meanwhile(self, harness_of: VendorHarness) -> None:
        """It is asked for anew each time: an issuer may make the credential that it works with itself."""
        if harness_of.about.auth is None or not harness_of.lists:
            assert harness_of.model is Model.MANUAL
            return
        asked: list[int] = []

        def admin() -> SecretValue:
            asked.append(1)
            return SecretValue(harness_of.vendor.admin)

        issuer = harness_of.client(admin)
        for _ in range(2):
            list(issuer.keys())
        assert len(asked) >= 2

    def test_disabling_is_undone_by_enabling(self, harness_of: VendorHarness) -> None:
        """Where it is described; elsewhere it is refused without a request."""
        if not harness_of.issuer.disables:
            return
        issued = harness_of.minted("acme.test-support-copilot-chat.token1")
        harness_of.issuer.disable(issued.key_id)
        assert not harness_of.use(issued.credential)
        harness_of.issuer.enable(issued.key_id)
        assert harness_of.use(issued.credential)


@pytest.mark.parametrize("kind", shipped_kinds())
def test_a_description_reads_its_samples(kind: str) -> None:
    """At every place where it looks."""
    assert [str(fault) for fault in faults_in(shipped(kind), shipped_samples(kind))] == []


@pytest.mark.parametrize("kind", shipped_kinds())
def test_a_description_says_what_is_not_certain(kind: str) -> None:
    """None of these has been tried against its vendor."""
    about: Description = shipped(kind)
    assert about.sources
    assert about.unverified
    assert shipped_samples(kind).sources


def test_the_models_are_as_the_vendors_allow() -> None:
    """Two slots in Azure's accounts; a person where there is no API that makes a key."""
    models = {kind: capabilities_of(shipped(kind)).model for kind in shipped_kinds()}
    slots, manual = {"azure-openai", "azure-storage"}, {"anthropic", "groq", "github-fine-grained"}
    assert {kind for kind, model in models.items() if model is Model.SLOTS} == slots
    assert {kind for kind, model in models.items() if model is Model.MANUAL} == manual
    assert capabilities_of(shipped("anthropic")).revokes
    assert not capabilities_of(shipped("groq")).revokes
