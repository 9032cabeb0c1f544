"""The reference issuer keeps the contract."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, Credential
from rotation.ports import Issuer
from tests.contracts.issuer import IssuerContract, IssuerHarness, Mishap, Operation
from tests.world import FakeClock

CODES = {Mishap.THROTTLED: Code.THROTTLED, Mishap.ADDRESS_REFUSED: Code.DENIED}


class MemoryHarness(IssuerHarness):
    """Mishaps are injected by the hook through which every call passes."""

    more_than_a_page = 3
    unknown_ids = ("key_99",)

    def __init__(self, max_keys: int | None) -> None:
        self.clock = FakeClock()
        seconds = timedelta(seconds=1)
        self.vendor = MemoryVendor(self.clock.now, max_keys, create_delay=2 * seconds, revoke_delay=3 * seconds)
        capabilities = Capabilities(tells_last_use=True, smokes=True, max_keys=max_keys)
        self.issuer = MemoryIssuer("vendor", self.vendor, capabilities, self.hook)
        self.due: tuple[Mishap, str] | None = None
        self.asked = 0

    def hook(self, call: str) -> None:
        self.asked += call == "before mint"
        if self.due and self.due[1] == call:
            mishap, self.due = self.due[0], None
            code = CODES.get(mishap, Code.UNAVAILABLE)
            raise Trouble(code, "vendor", mishap.value, maybe_applied=code is Code.UNAVAILABLE)

    def without_admin(self) -> Issuer:
        return self.issuer

    def use(self, credential: Credential) -> bool:
        return self.vendor.use(credential)

    def live(self) -> int:
        return len(self.vendor.live())

    def mints(self) -> int:
        return self.asked

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        after = mishap in (Mishap.LOST_AFTER, Mishap.FAULT_AFTER)
        self.due = mishap, f"{'after' if after else 'before'} {operation}"

    def secrets(self) -> Iterable[str]:
        return [key.value for key in self.vendor.keys]


class TestMemoryIssuer(IssuerContract):
    @pytest.fixture(params=[None, 3], ids=["unlimited", "limited"])
    def harness(self, request: pytest.FixtureRequest) -> IssuerHarness:
        return MemoryHarness(request.param)
