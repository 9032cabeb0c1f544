"""The applied policy as metadata strings: what is written is what is read, in the characters that a tag may hold."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.model import Consumer, Drain, Ending, Policy
from rotation.policy import KEYS, read, read_duration, show_duration, written

LABELS = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,6}){0,3}", fullmatch=True)
SPANS = st.integers(min_value=0, max_value=1000 * 86400).map(lambda seconds: timedelta(seconds=seconds))
POLICIES = st.builds(
    Policy,
    installation=LABELS,
    environment=LABELS,
    name=LABELS,
    store=LABELS,
    issuer=LABELS,
    owner=LABELS,
    rotate_every=SPANS,
    grace=SPANS,
    replicas=st.lists(LABELS, max_size=3).map(tuple),
    drain=st.builds(Drain, SPANS, SPANS, st.sampled_from(Ending)),
    contain_after=SPANS,
    consumers=st.lists(st.builds(Consumer, LABELS, SPANS), max_size=3).map(tuple),
    paired_with=st.none() | LABELS,
    smoke_test=st.booleans(),
)
TAG = re.compile(r"[A-Za-z0-9 _.:/=+@-]{1,256}")
"""A tag value of Secrets Manager (facts of the service: 256 characters of this set)."""


@given(POLICIES)
def test_what_is_written_is_what_is_read(policy: Policy) -> None:
    """Every field survives, whatever it holds."""
    assert read(written(policy)) == policy


@given(POLICIES)
def test_strings_fit_a_tag(policy: Policy) -> None:
    """Known keys, values of allowed characters and length, none empty."""
    for key, text in written(policy).items():
        assert key in KEYS
        assert TAG.fullmatch(text), key


@given(SPANS)
def test_durations_survive(span: timedelta) -> None:
    """To the second."""
    assert read_duration(show_duration(span)) == span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30d", timedelta(days=30)),
        ("36h", timedelta(hours=36)),
        ("1h30m", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
    ],
)
def test_durations_that_are_read(text: str, span: timedelta) -> None:
    """Numbers with a unit each, in any combination."""
    assert read_duration(text) == span


@pytest.mark.parametrize(
    "text", ["", "30", "d", "30 d", "1.5h", "-1d", "1d ", "30D", "1y", "٣d", "9999999999w", "9" * 5000 + "d", "1d\n"]
)
def test_durations_that_are_refused(text: str) -> None:
    """With what to write instead; numbers beyond any calendar among them."""
    with pytest.raises(ValueError, match="is not a duration; write a number and one of w, d, h, m, s, as in 30d"):
        read_duration(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=14), "14d"),
        (timedelta(hours=36), "1d12h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(seconds=1), "1s"),
        (timedelta(0), "0s"),
    ],
)
def test_durations_are_shown_briefly(span: timedelta, text: str) -> None:
    """Largest units first, no zeros."""
    assert show_duration(span) == text


MINIMAL = Policy("acme", "prod", "support-chat", "vault", "openai", "team", timedelta(days=30), timedelta(days=1))


def test_a_minimal_policy_leaves_optional_keys_out() -> None:
    """Tags are few: nothing is written that says nothing."""
    assert written(MINIMAL) == {
        "installation": "acme",
        "environment": "prod",
        "name": "support-chat",
        "store": "vault",
        "issuer": "openai",
        "owner": "team",
        "rotate-every": "30d",
        "grace": "1d",
        "drain": "1h 14d hold",
        "contain-after": "5m",
    }


def test_an_entry_without_any_policy_can_be_adopted() -> None:
    """Somebody made it before Keyturn came: no single key of a policy is what it lacks."""
    with pytest.raises(ValueError, match=r"^no policy is applied to it \(`keyturn adopt` takes over"):
        read({})


@pytest.mark.parametrize("key", written(MINIMAL))
def test_a_missing_key_is_named(key: str) -> None:
    """A person sees what to restore."""
    strings = written(MINIMAL)
    del strings[key]
    with pytest.raises(ValueError, match=f"^applied policy: '{key}' is missing or can not be read$"):
        read(strings)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("drain", "1h 14d"),
        ("drain", "1h 14d drop"),
        ("drain", "1x 14d hold"),
        ("rotate-every", "monthly"),
        ("grace", ""),
        ("contain-after", "5"),
        ("consumers", "support-api"),
        ("consumers", "support-api=soon"),
        ("schedule", "weekly"),
        ("schedule", "window=Son_02:00-05:00"),
        ("schedule", "blackout=2026-12-18/soon/freeze"),
        ("schedule", "blackout=0001-01-01/2026-12-18/freeze"),
        ("schedule", "overrides=everything"),
    ],
)
def test_an_unreadable_key_is_named(key: str, text: str) -> None:
    """The very key that somebody has edited, not one near it."""
    with pytest.raises(ValueError, match=f"^applied policy: '{key}' is missing or can not be read$"):
        read(written(MINIMAL) | {key: text})


def test_keys_of_others_are_left_alone() -> None:
    """Metadata is shared with people and tools."""
    assert read(written(MINIMAL) | {"cost-centre": "42"}) == MINIMAL
