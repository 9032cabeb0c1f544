"""What a dispatcher says is what its workers hear, or nothing at all; and every secret is in one message."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.batches import LARGEST, MOST, Batch, Mangled, is_batch, parse, partition

names = st.from_regex(r"[a-z][a-z0-9]{0,8}-[a-z0-9]{1,8}", fullmatch=True)
labels = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
batches = st.builds(
    Batch, labels, labels, labels, st.lists(names, min_size=1, max_size=MOST, unique=True).map(tuple), st.booleans()
)
ONE = Batch("acme", "prod", "vault", ("support-copilot-chat",), list=False)


@given(batches)
def test_a_message_says_what_it_was_made_of(batch: Batch) -> None:
    text = str(batch)
    assert parse(text) == batch
    assert is_batch(text)
    assert len(text) <= LARGEST


def changed(**members: Any) -> str:
    said = json.loads(str(ONE)) | members
    return json.dumps({key: value for key, value in said.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("support-copilot-chat", "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("[]", "not of a dispatcher"),
        ('{"secret": "support-copilot-chat"}', "not of a dispatcher"),
        (changed(keyturn="sweep"), "not of a dispatcher"),
        (changed(version=2), "version"),
        (changed(version=True), "version"),
        (changed(version=...), "version"),
        (changed(value="hunter2"), "members"),
        (changed(list=...), "members"),
        (changed(list="yes"), "lists"),
        (changed(names=[]), "1 to"),
        (changed(names="support-copilot-chat"), "1 to"),
        (changed(names=["a-b", "a-b"]), "different"),
        (changed(names=[f"a-{n}" for n in range(MOST + 1)]), "1 to"),
        (changed(names=["../../etc"]), "name of a secret"),
        (changed(names=[7]), "name of a secret"),
        (changed(store="vault/../x"), "is not the name of one"),
        (changed(environment="eu prod"), "is not the name of one"),
        (changed(installation=None), "is not the name of one"),
        (" " * (LARGEST + 1), "characters"),
    ],
)
def test_what_is_not_exactly_a_message_is_refused(text: str, why: str) -> None:
    """Whoever may write into the queue can have secrets run, which changes nothing that is not due; and nothing else."""
    with pytest.raises(Mangled, match=why):
        parse(text)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    is_batch(text)
    with pytest.raises(Mangled):
        parse(text)


@given(
    st.dictionaries(names, st.tuples(st.sampled_from(("vault", "aws")), st.booleans()), max_size=60),
    st.integers(1, MOST),
)
def test_every_secret_is_in_exactly_one_message(fleet: dict[str, tuple[str, bool]], size: int) -> None:
    """Of its store, with what is known of its issuer's list, in messages as full as they may be."""
    secrets = [(store, name, listed) for name, (store, listed) in fleet.items()]
    cut = list(partition("acme", "prod", secrets, size))
    assert sorted((b.store, name, not b.list) for b in cut for name in b.names) == sorted(secrets)
    kinds = Counter((b.store, b.list) for b in cut if len(b.names) < size)
    assert all(count == 1 for count in kinds.values())
    assert all(0 < len(b.names) <= size for b in cut)


def test_a_message_of_no_size_is_a_fault() -> None:
    with pytest.raises(ValueError, match="1 to"):
        list(partition("acme", "prod", [("vault", "a-b", True)], 0))
