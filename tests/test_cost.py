"""docs/cost.md says what the code does: its tables are computed, its parameters are the code's, its calls are counted anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import cost


@pytest.mark.parametrize("kind", cost.CALLS)
def test_the_calls_are_what_a_rotation_and_a_look_take(kind: str) -> None:
    """Counted on the stand-in of each store: `python -m benchmarks.cost measure` gives the new ones."""
    assert cost.measure(kind) == (cost.CALLS[kind].rotation, cost.CALLS[kind].look)


def test_the_page_has_the_table_that_the_code_computes() -> None:
    """`python -m benchmarks.cost write` puts it there."""
    page = cost.PAGE.read_text()
    assert cost.page_with(cost.table()) == page
    assert cost.page_with("another\n") != page


def test_the_page_names_the_parameters_that_are_used() -> None:
    """Each number of the table at its top stands in the code."""
    page = cost.PAGE.read_text().partition("## Formulas")[0]
    fleet, prices = cost.FLEET, cost.PRICES
    for told in (
        f"| {fleet.rotations:.0f} (every 30 days) |",
        f"| {fleet.sweeps} (each hour) |",
        f"| {fleet.replicas} |",
        f"| {fleet.reads:,} (four",
        f"| {fleet.kilobytes:.0f} KB |",
        f"| {fleet.seconds} s |",
        f"| zones with endpoints | {fleet.zones} |",
        f"{prices.aws_entry:.2f}; {prices.aws_call * 10_000:.2f}",
        f"| {prices.aws_key_call * 10_000:.2f} |",
        f"| {prices.aws_second:.7f} |",
        f"| {prices.azure_call * 10_000:.2f}; nothing |",
        f"| {prices.azure_second:.6f} |",
        f"{prices.vault_node:.0f}; {prices.vault_nodes}; {prices.vault_node_calls:,.0f} |",
        f"{prices.endpoint_zone:.2f}, {prices.nat_zone:.0f}; {prices.gigabyte}",
    ):
        assert told in page, told


def test_the_formulas_by_hand() -> None:
    """One small fleet, in numbers that can be checked with a pencil."""
    fleet = replace(cost.FLEET, replicas=1.0, reads=100, sweeps=10, seconds=1.0, kilobytes=1000.0, zones=1)
    aws = cost.CALLS["AWS Secrets Manager"]
    # 100 secrets, 200 entries: rotations, looks, two pages of a list, reads.
    calls = 200 * aws.rotation + 10 * (200 * aws.look + 2) + 200 * 100
    assert cost.calls_of("AWS Secrets Manager", 100, fleet) == calls
    found = cost.parts("AWS Secrets Manager", 100, fleet, replace(cost.PRICES, nat_zone=10.0, endpoint_zone=1.0))
    assert found["entries"] == pytest.approx(80.0)
    assert found["calls"] == pytest.approx(calls * 0.000005 + 200 * (3 + 100) * 0.000003)
    assert found["compute"] == pytest.approx(100 * 10 * 0.0000166667 * 0.5)
    assert found["network"] == pytest.approx(11.0 + calls / 1000 * 0.055)
    assert cost.parts("Azure Key Vault", 100, fleet)["entries"] == 0
    busy = replace(fleet, reads=30 * 86_400 * 1_000)
    assert cost.parts("Vault or OpenBao", 1, busy)["compute"] == 3 * 3 * 140, "two entries, and sweeps beside them"
