"""A vendor that does not come along, described by docs/issuers.md alone: checked, tried, and polled where it takes its time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from providers.issuers.http import HttpIssuer
from providers.issuers.reading import read
from providers.issuers.samples import Sample, faults_in, read_samples
from rotation.cli.main import run
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from sandbox.vendor import Fault, Vendor
from tests.world import FakeClock

WALK = Path(__file__).parent / "walk"
NAME = "acme.prod-support-copilot-chat.0123456789abcdef0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The description, with its samples beside it."""
    for path in WALK.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    return tmp_path / "google-api-keys.yaml"


def keyturn(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run(arguments, clock=FakeClock())
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


class TestTheWalk:
    def test_check_then_try(self, capsys: pytest.CaptureFixture[str], file: Path) -> None:
        """As the guide says it, with no server but the one that is made of the two files."""
        assert keyturn(capsys, "issuer", "check", str(file)) == (
            0,
            "google-api-keys.yaml is sound, and reads google-api-keys.samples.yaml.\n",
        )
        code, shown = keyturn(capsys, "issuer", "try", str(file), "--stand-in")
        assert code == 0, shown
        steps = [line.split(" s  ")[1].split(":")[0] for line in shown.splitlines() if line.startswith("✓")]
        assert steps == ["list", "mint", "verify", "list the key", "revoke", "prove"]

    @pytest.mark.parametrize(
        ("place", "value", "fault"),
        [
            (("mint", 0, "poll", "done"), "finished", "mint[0].poll.done: does not hold for the sample polled.mint[0]"),
            (("mint", 0, "poll", "operation"), "id", "mint[0].poll.operation: finds nothing in the sample mint[0]"),
            (("mint", 0, "poll", "failed"), "response", "mint[0].poll.failed: holds for the sample polled.mint[0]"),
            (("mint", 0, "key_id", "key"), "uid", "mint[0].key_id.key: finds nothing in the sample polled.mint[0]"),
            (
                ("revoke", 0, "steps", 0, "poll", "done"),
                "finished",
                "revoke[0].steps[0].poll.done: does not hold for the sample polled.revoke[0].steps[0]",
            ),
        ],
    )
    def test_a_fault_of_what_is_polled(
        self, capsys: pytest.CaptureFixture[str], file: Path, place: tuple[str | int, ...], value: str, fault: str
    ) -> None:
        """Is found by `check`, with its place."""
        whole = yaml.safe_load(file.read_text())
        part = whole
        for step in place[:-1]:
            part = part[step]
        part[place[-1]] = value
        file.write_text(yaml.safe_dump(whole))
        code, shown = keyturn(capsys, "issuer", "check", str(file))
        assert (code, fault in shown) == (2, True), shown

    def test_samples_of_what_is_polled_are_needed(self, file: Path) -> None:
        """Without them the stand-in could not answer."""
        about, samples = (
            read(file.read_text(), "f"),
            read_samples((WALK / "google-api-keys.samples.yaml").read_text(), "s"),
        )
        told = [str(fault) for fault in faults_in(about, samples.model_copy(update={"polled": {}}))]
        assert [line.partition(":")[0] for line in told] == ["polled.mint[0]", "polled.revoke[0].steps[0]"]


@pytest.fixture
def site(file: Path) -> Iterator[tuple[Vendor, HttpIssuer, FakeClock]]:
    about, clock = read(file.read_text(), "f"), FakeClock()
    samples = read_samples((WALK / "google-api-keys.samples.yaml").read_text(), "s")
    with (
        Vendor(about, samples, now=clock.now) as vendor,
        HttpIssuer("google", about, vendor.variables, lambda: SecretValue(vendor.admin), clock) as issuer,
    ):
        yield vendor, issuer, clock


class TestPolling:
    def test_a_mint_is_asked_after_until_it_is_done(self, site: tuple[Vendor, HttpIssuer, FakeClock]) -> None:
        """Its first answer has no key; the pause between is the described one."""
        vendor, issuer, clock = site
        before = clock.now()
        issued = issuer.mint(NAME)
        assert (clock.now() - before).total_seconds() == 2
        assert vendor.minted == 1
        assert vendor.accepts({name: value.reveal() for name, value in issued.credential.fields.items()})
        before = clock.now()
        issuer.revoke(issued.key_id)
        assert (clock.now() - before).total_seconds() == 2
        assert not vendor.live()

    def test_one_that_never_ends_may_have_made_a_key(self, site: tuple[Vendor, HttpIssuer, FakeClock]) -> None:
        """The issuer says so, and finds it by its name."""
        vendor, issuer, _ = site
        vendor.faults["poll"] = [Fault(Sample(status=503, body={})) for _ in range(100)]
        with pytest.raises(Trouble) as raised:
            issuer.mint(NAME)
        assert (raised.value.code, raised.value.maybe_applied) == (Code.UNAVAILABLE, True)
        assert [key.name for key in list(issuer.keys())] == [NAME]


GUIDE = Path(__file__).parents[2] / "docs" / "issuers.md"


def block(begins: str) -> str:
    """A block of YAML of the guide, by its first words."""
    return next(text.split("```")[0] for text in GUIDE.read_text().split("```yaml\n") if text.startswith(begins))


def test_counts_of_requests_as_the_guide_describes_them() -> None:
    """Its part, put into its own example, is sound, is read from a sample, and tells what was used."""
    clock = FakeClock()
    about = read(block("# issuers/grafana.yaml") + block("usage:"), "grafana.yaml")
    row = {"token_id": 11, "requests": 5}
    usage = {"data": [{"from": 1730419200, "results": [row]}], "has_more": False, "next_page": None}
    samples = read_samples(block("# issuers/grafana.samples.yaml"), "s").model_copy(
        update={"usage": Sample(body=usage)}
    )
    assert faults_in(about, samples) == []
    broken = samples.model_copy(update={"usage": Sample(body={"data": [{"from": 1730419200, "results": []}]})})
    assert [str(f) for f in faults_in(about, broken)] == ["usage.rows: finds nothing in the sample usage"]
    with (
        Vendor(about, samples, now=clock.now) as vendor,
        HttpIssuer("grafana", about, vendor.variables, lambda: SecretValue(vendor.admin), clock) as issuer,
    ):
        issued = issuer.mint(NAME)
        since = clock.now()
        for _ in range(4):
            assert vendor.accepts({name: value.reveal() for name, value in issued.credential.fields.items()})
            clock.move(timedelta(hours=2))
        told = issuer.usage([issued.key_id], since, clock.now())
        assert [span.count for span in told[issued.key_id].counts or ()] == [1, 0, 1, 0, 1, 0, 1, 0]
