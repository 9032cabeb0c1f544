"""Events are read leniently, and never understood to be about another secret than they are."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rotation.functions import event_grid
from rotation.functions.event_grid import Handshake, Kind, Mangled, Notice, Other
from tests.functions.events import (
    EXPIRED,
    NEAR,
    NEW,
    TOPIC,
    VAULT,
    VERSION,
    body,
    cloud_event,
    data,
    event,
    odd_data,
    validation,
)

ENTRY, NEIGHBOUR = "prod--support-copilot-chat", "prod--support-copilot-batch"
URL = f"https://{VAULT}.vault.azure.net"


def only(whole: bytes | str) -> Notice | Handshake | Other | Mangled:
    (one,) = event_grid.read(whole)
    return one


@pytest.mark.parametrize("kind", [NEAR, EXPIRED, NEW])
@pytest.mark.parametrize("envelope", [event, cloud_event])
@pytest.mark.parametrize("about", [data, odd_data])
def test_published_events_are_understood_in_both_envelopes(kind: str, envelope: Any, about: Any) -> None:
    """With the blanks, the case and the texts for numbers that the samples have; alone or in an array."""
    given = envelope(kind, about(ENTRY), ENTRY)
    expected = Notice(
        Kind(kind),
        given["id"],
        ENTRY,
        VAULT,
        f"{VAULT}.vault.azure.net",
        VERSION,
        datetime(2027, 1, 1, tzinfo=UTC),
    )
    assert only(body(given)) == only(json.dumps(given)) == expected
    assert event_grid.is_from(expected, URL)
    assert event_grid.is_from(expected, f"{URL}:443/")


def test_what_nobody_knows_is_left_alone() -> None:
    """Members of tomorrow, in the envelope and in the data; other kinds of events; kinds in another case."""
    given = event(NEAR.upper(), data(ENTRY, Thumbprint=[1, {"a": None}]), ENTRY, dataVersionNext={"x": 1})
    assert isinstance(only(body(given)), Notice)
    assert only(body(event("Microsoft.KeyVault.CertificateExpired", data(ENTRY), ENTRY))) == Other(
        "Microsoft.KeyVault.CertificateExpired", given["id"]
    )
    assert event_grid.read(b"[]") == []


@pytest.mark.parametrize("given", [None, "", "soon", "1e400", 1e400, -1, True, [1], {"a": 1}, 10**30])
def test_times_that_can_not_be_read_change_nothing(given: object) -> None:
    """Nothing depends on them: what is due is what the policy says."""
    assert isinstance(only(body(event(NEAR, data(ENTRY, EXP=given, NBF=given), ENTRY))), Notice)


@pytest.mark.parametrize(
    "changed",
    [
        {"ObjectName": NEIGHBOUR},
        {"ObjectName ": NEIGHBOUR},
        {"objectname": NEIGHBOUR},
        {"Id": f"{URL}/secrets/{NEIGHBOUR}/{VERSION}"},
        {"Id": f"{URL}/keys/{ENTRY}/{VERSION}"},
        {"Id": f"http://{VAULT}.vault.azure.net/secrets/{ENTRY}"},
        {"Id": f"https://other.vault.azure.net/secrets/{ENTRY}/{VERSION}"},
        {"Id": "https://[/secrets/x"},
        {"Id": 7},
        {"VaultName": "other"},
        {"ObjectType": "Key"},
        {"ObjectName": 5},
        {"ObjectName": ["prod--support-copilot-chat"]},
    ],
)
def test_an_event_that_contradicts_itself_is_mangled(changed: dict[str, Any]) -> None:
    """Which secret it is about, and in which vault, is said in several places; they must agree."""
    assert isinstance(only(body(event(NEAR, data(ENTRY) | changed, ENTRY))), Mangled)


def test_a_subject_or_a_topic_that_says_otherwise_is_mangled() -> None:
    """As much as a member that is there twice, differently."""
    assert isinstance(only(body(event(NEAR, data(ENTRY), NEIGHBOUR))), Mangled)
    assert isinstance(only(body(event(NEAR, data(ENTRY), ENTRY, topic=TOPIC + "2"))), Mangled)
    twice = json.dumps(event(NEAR, data(ENTRY), ENTRY)).replace('"subject"', f'"subject": "{NEIGHBOUR}", "subject"')
    assert isinstance(only(twice), Mangled)
    both = event(NEAR, data(ENTRY), ENTRY) | {"type": EXPIRED}
    assert isinstance(only(body(both)), Mangled)


def test_case_tells_no_names_apart() -> None:
    """Key Vault's names do not."""
    found = only(body(event(NEAR, data("Prod--Support-Copilot-Chat"), ENTRY)))
    assert isinstance(found, Notice)
    assert found.entry == ENTRY


def test_one_mangled_event_spoils_no_other() -> None:
    """A batch is understood event by event."""
    good = event(NEAR, data(ENTRY), ENTRY)
    first, second, third = event_grid.read(body("what?", good, event(NEAR, {}, "")))
    assert isinstance(first, Mangled)
    assert isinstance(second, Notice)
    assert isinstance(third, Mangled)


@pytest.mark.parametrize(
    "given", [b"", b"nonsense", b"\xff\xfe", b"{", b"[" * 100_000, b"1" * 5000 + b"x", b" " * (event_grid.LARGEST + 1)]
)
def test_a_body_that_is_no_json_is_mangled(given: bytes) -> None:
    """However deep, long or strange; nothing of it is repeated."""
    with pytest.raises(Mangled) as caught:
        event_grid.read(given)
    assert str(caught.value) in ("is not JSON", f"more than {event_grid.LARGEST} bytes")


def test_a_validation_is_told_by_its_code() -> None:
    """One whose code is missing, or could not be repeated in an answer, is mangled."""
    assert only(body(validation("a-code"))) == Handshake("a-code")
    for code in (None, "", 5, "two\nlines", "x" * 513):
        broken = validation() | {"data": {"validationCode": code}}
        assert isinstance(only(body(broken)), Mangled)


def test_a_vault_is_told_by_its_host_and_without_one_by_its_name() -> None:
    """A vault behind another host than a cloud's own has no short name to go by."""
    nameless = only(body(event(NEAR, data(ENTRY, Id=None), ENTRY)))
    assert isinstance(nameless, Notice)
    assert event_grid.is_from(nameless, URL)
    assert not event_grid.is_from(nameless, "https://acme-prod2.vault.azure.net")
    assert not event_grid.is_from(nameless, "https://acme-prod.example.com")
    local = only(body(event(NEAR, data(ENTRY, host="127.0.0.1:8443"), ENTRY)))
    assert isinstance(local, Notice)
    assert event_grid.is_from(local, "https://127.0.0.1:8443")
    assert not event_grid.is_from(local, "https://127.0.0.1:8444")
    assert not event_grid.is_from(local, URL)
    assert isinstance(only(body(event(NEAR, {"ObjectName": ENTRY}, ENTRY, topic="?"))), Mangled)


# --- whatever comes --------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([ENTRY, NEIGHBOUR, NEAR]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed_events(draw: st.DrawFn) -> bytes:
    """A good event with one thing about it changed: a member's value, its name, gone, doubled; or bytes of the whole."""
    whole = draw(st.sampled_from([event, cloud_event]))(NEAR, draw(st.sampled_from([data, odd_data]))(ENTRY), ENTRY)
    whole = copy.deepcopy(whole)
    place = draw(st.sampled_from([whole, whole["data"]]))
    key = draw(st.sampled_from(sorted(place)))
    how = draw(st.sampled_from(["value", "name", "gone", "doubled", "bytes"]))
    if how == "value":
        place[key] = draw(JSON)
    elif how == "name":
        place[draw(st.text() | st.sampled_from(sorted(place)))] = place.pop(key)
    elif how == "gone":
        del place[key]
    elif how == "doubled":
        place[key + draw(st.sampled_from([" ", "\t", "\n"]))] = draw(JSON)
    text = body(whole)
    if how == "bytes":
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 40)) :]
    return text


@settings(max_examples=400, deadline=None)
@given(changed_events())
@example(body(event(NEAR, data(ENTRY) | {"ObjectName": NEIGHBOUR}, ENTRY)))
def test_a_changed_event_is_never_about_another_secret(given: bytes) -> None:
    """It is understood as it was meant, or not at all; and nothing but Mangled is raised."""
    try:
        found = event_grid.read(given)
    except Mangled:
        return
    for one in found:
        if isinstance(one, Notice) and event_grid.is_from(one, URL):  # one of another vault is not acted on
            assert one.entry == ENTRY


@settings(max_examples=200, deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_or_mangled(given: bytes) -> None:
    """No body raises anything else."""
    try:
        event_grid.read(given)
    except Mangled:
        return
