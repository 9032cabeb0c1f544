"""Chains of lines: what of a removal, an alteration or another order is found, by what, and what is not."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotation.audit.chain import Head, canonical, digest
from rotation.audit.verify import Report, verify
from rotation.errors import Trouble
from rotation.model import SecretValue
from rotation.ports import Record
from tests.audit.lines import ACME, AT, Lines, auditor, interleaved, kept, record

TURNS = st.lists(st.integers(0, 2), min_size=2, max_size=12)


def looked(lines: list[str], anchors: list[str] = []) -> Report:  # noqa: B006 - never changed
    return verify(kept(lines), kept(anchors), ACME)


# --- what is written -----------------------------------------------------------------------------


def test_a_line_says_who_what_why_when_and_how_far_it_came() -> None:
    """Each field of the record under its own name, its outcome, and its place in the chain."""
    place = Lines()
    trail = auditor(place)
    trail.write(Record(AT, "mint", "prod/a-b", "due", "t1", store="near", incident="inc-7"))
    trail.write(Record(AT, "mint.done", "prod/a-b", token="t1", key_id="key_1"))
    trail.write(Record(AT, "verify", "prod/a-b", detail={"verdict": "valid"}))
    trail.write(Record(AT, "revoke.failed", "prod/a-b", late=True))
    first, second, third, fourth = map(json.loads, place.lines)
    assert {k: first[k] for k in ("at", "event", "secret", "reason", "token", "store", "incident", "outcome")} == {
        "at": AT.isoformat(),
        "event": "mint",
        "secret": "prod/a-b",
        "reason": "due",
        "token": "t1",
        "store": "near",
        "incident": "inc-7",
        "outcome": "intended",
    }
    assert [line["seq"] for line in (first, second, third, fourth)] == [0, 1, 2, 3]
    assert [line["outcome"] for line in (second, third, fourth)] == ["done", "valid", "failed"]
    assert fourth["late"] is True
    assert "late" not in first
    assert len({line["writer"] for line in (first, second, third, fourth)}) == 1


def test_each_line_has_the_hash_of_the_one_before_and_the_first_that_of_its_genesis() -> None:
    """By hashlib alone, so that anybody can check it with another tool."""
    place = Lines()
    trail = auditor(place)
    for number in range(3):
        trail.write(record(number))
    said = [json.loads(line) for line in place.lines]
    beginning = json.dumps({**said[0]["genesis"], "writer": said[0]["writer"]}, sort_keys=True, separators=(",", ":"))
    expected = [beginning + "\n", *place.lines[:-1]]
    assert [line["prev"] for line in said] == [hashlib.sha256(text.encode()).hexdigest() for text in expected]
    assert said[0]["genesis"] == {"environment": "prod", "format": 1, "installation": "acme"}


def test_values_are_masked_and_links_are_not() -> None:
    """Even where a value's text happens to stand in a hash."""
    value = SecretValue("abcd")  # four hexadecimal digits: some hash has them
    place = Lines()
    trail = auditor(place)
    for number in range(300):
        trail.write(Record(AT, "mint", "prod/a-b", f"the vendor said {value.reveal()} {number}"))
    assert not any("said abcd" in line for line in place.lines)
    assert looked(place.lines).good


# --- what is found -------------------------------------------------------------------------------


@settings(deadline=None)
@given(TURNS)
def test_what_nobody_has_touched_is_whole(turns: list[int]) -> None:
    """However many writers took turns."""
    lines, anchors = interleaved(turns)
    report = looked(lines, anchors)
    assert report.good
    assert (report.records, report.chains) == (len(turns), len(set(turns)))
    assert not report.open


@settings(deadline=None)
@given(TURNS, st.data())
def test_any_record_that_is_removed_before_the_anchor_is_found(turns: list[int], data: st.DataObject) -> None:
    """The first, one in between, the last, and the only one of a chain."""
    lines, anchors = interleaved(turns, witness=data.draw(st.booleans()))
    del lines[data.draw(st.integers(0, len(lines) - 1))]
    assert not looked(lines, anchors).good


@settings(max_examples=300, deadline=None)
@given(TURNS, st.data())
def test_any_character_that_is_altered_before_the_anchor_is_found(turns: list[int], data: st.DataObject) -> None:
    """Line breaks and spaces too."""
    lines, anchors = interleaved(turns, witness=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(lines) - 1))
    where = data.draw(st.integers(0, len(lines[at]) - 1))
    other = data.draw(st.sampled_from(["", " ", "\n", "0", "1", "e", '"', "}", "\u00e9"]))
    altered = lines[at][:where] + other + lines[at][where + 1 :]
    if altered != lines[at]:
        lines[at] = altered
        assert not looked(lines, anchors).good


@settings(deadline=None)
@given(TURNS, st.data())
def test_any_two_records_of_a_writer_that_changed_places_are_found(turns: list[int], data: st.DataObject) -> None:
    """Two of different writers may, where neither's own order changes: those have nothing but their times."""
    lines, anchors = interleaved(turns, witness=data.draw(st.booleans()))
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(lines) - 1)] * 2)))
    before = lines[:]
    lines[a], lines[b] = lines[b], lines[a]

    def orders(of: list[str]) -> dict[int, list[str]]:
        return {turn: [line for line in of if turns[before.index(line)] == turn] for turn in turns}

    assert looked(lines, anchors).good is (orders(lines) == orders(before))


@settings(deadline=None)
@given(TURNS, st.data())
def test_a_chain_that_was_written_anew_before_the_anchor_is_found(turns: list[int], data: st.DataObject) -> None:
    """By one who knows the form, and computes every hash again."""
    lines, anchors = interleaved(turns, witness=False)
    at = data.draw(st.integers(0, len(lines) - 1))
    writer = json.loads(lines[at])["writer"]
    prev = None
    for number, line in enumerate(lines):
        said = json.loads(line)
        if said["writer"] != writer:
            continue
        if number == at:
            said["reason"] = "nothing to see here"
        if prev is not None:
            said["prev"] = prev
        lines[number] = canonical(said)
        prev = digest(lines[number])
    assert looked(lines).good, "nothing in the chain itself tells"
    assert not looked(lines, anchors).good


@settings(deadline=None)
@given(TURNS, st.integers(0, 2))
def test_a_whole_chain_that_is_gone_is_found_by_its_anchor(turns: list[int], gone: int) -> None:
    """Nothing of it is left to tell."""
    lines, anchors = interleaved(turns, witness=False)
    left = [line for line, turn in zip(lines, turns, strict=True) if turn != gone]
    assert looked(left, anchors).good is (len(left) == len(lines))


def test_faults_name_the_line() -> None:
    """A person finds the place with an editor."""
    lines, anchors = interleaved([0, 0, 0, 0])
    del lines[1]
    (fault,) = looked(lines, anchors).faults
    assert fault.startswith("trail:2: record 1 of writer ")
    assert fault.endswith("are missing between trail:1 and here")


def test_a_later_writer_witnesses_the_line_before_it() -> None:
    """So that a tail that is cut off shows even where nothing was ever anchored, once another process has come after it."""
    lines, _ = interleaved([0, 0, 1])
    del lines[1]
    assert not looked(lines).good


def test_a_chain_of_another_stack_is_no_part_of_this_trail() -> None:
    """Records of staging do not stand for those of production."""
    lines, _ = interleaved([0])
    assert not verify(kept(lines), (), ("acme", "staging")).good
    assert verify(kept(lines), (), None).good


def test_what_can_not_be_seen_is_said() -> None:
    """The tail after the last anchor, in numbers."""
    place, anchors = Lines(), Lines()
    trail = auditor(place, anchors)
    trail.write(record(0))
    trail.anchor()
    trail.write(record(1))
    trail.write(record(2))
    report = looked(place.lines, anchors.lines)
    assert report.good
    assert report.blind[0].startswith("2 of 3 records, at the end of 1 of 1 chains, are after the last anchor")
    assert looked(place.lines[:-1], anchors.lines).good, "and so it is"
    assert not looked(place.lines[:-3], anchors.lines).good


def test_lines_from_before_there_were_chains_are_told_and_no_fault() -> None:
    """Nothing vouches for them."""
    lines, anchors = interleaved([0])
    old = json.dumps({"at": AT.isoformat(), "event": "mint", "secret": "prod/a-b"}) + "\n"
    report = looked([old, *lines], anchors)
    assert report.good
    assert report.unchained == ["trail:1"]


@pytest.mark.parametrize(
    "hostile", ["{" * 100_000, "[]", "null", '{"at":1,"seq":0}', "\x00", '{"seq":"1","prev":"","writer":""}']
)
def test_what_is_no_record_does_not_stop_the_look(hostile: str) -> None:
    """Nor does it pass."""
    lines, anchors = interleaved([0, 0])
    report = looked([lines[0], hostile + "\n", lines[1]], anchors)
    assert report.records == 2
    assert report.faults or report.unchained


def test_a_genesis_that_names_nothing_is_a_fault() -> None:
    """Who writes one by hand may write anything."""
    genesis = {"environment": "prod", "format": 1, "installation": "acme", "after": {"seq": "x"}}
    said = {"at": AT.isoformat(), "event": "mint", "genesis": genesis, "secret": "x", "seq": 0, "writer": "w"}
    line = canonical({**said, "prev": digest(canonical({**genesis, "writer": "w"}))})
    assert not looked([line]).good


# --- crashes, full disks -------------------------------------------------------------------------


@settings(deadline=None)
@given(TURNS, st.integers(1, 400))
def test_a_torn_last_line_is_told_and_not_taken_for_tampering(turns: list[int], length: int) -> None:
    """Whatever part of it reached the disk."""
    lines, anchors = interleaved(turns)
    fragment = lines[-1][: min(length, len(lines[-1]) - 1)]
    report = looked([*lines, fragment], anchors)
    assert report.good
    assert report.torn == [f"trail:{len(lines) + 1}"]
    assert report.records == len(lines)


def test_a_line_that_was_cut_off_behind_a_part_that_begins_as_a_line_does_is_torn() -> None:
    """The line that a chain came after, and details, begin with a time too."""
    lines, anchors = interleaved([0, 1])
    part = lines[1].index('"after":{') + len('"after":')
    fragment = lines[1][: lines[1].index("}", part) + 1]
    json.loads(fragment[part:])
    for torn in (fragment, fragment + "\n"):
        report = looked([*lines, torn], anchors)
        assert report.good
        assert report.torn == ["trail:3"]


@settings(deadline=None)
@given(st.integers(10, 400))
def test_a_writer_that_went_on_in_the_line_of_one_that_was_cut_off_is_read(length: int) -> None:
    """Two processes and one file: neither knows of the other's end."""
    lines, anchors = interleaved([0, 1, 1])
    fragment = lines[0][: min(length, len(lines[0]) - 1)]
    report = looked([lines[0], lines[1], fragment + lines[2]], anchors)
    assert report.good
    assert report.records == 3
    assert report.torn == ["trail:3"]


@pytest.mark.parametrize("torn", [False, True])
def test_after_a_write_that_failed_a_new_chain_goes_on(torn: bool) -> None:
    """Whether the record was kept is not known: the chain breaks off there, and the new one names its last line."""
    failing = iter([False, True, True, False, False])
    place, anchors = Lines(fails=lambda: next(failing), torn=torn), Lines()
    trail = auditor(place, anchors)
    trail.write(record(0))
    for number in (1, 2):
        with pytest.raises(Trouble, match="audit trail: memory: no space left on device"):
            trail.write(record(number))
    trail.write(record(3))
    trail.write(record(4))
    trail.anchor()
    report = looked(place.lines, anchors.lines)
    assert report.good
    assert (report.records, report.chains, bool(report.torn)) == (3, 2, torn)
    assert not report.open, "the chain that broke off is anchored too"
    assert not looked(place.lines[1:], anchors.lines).good


def test_a_line_that_a_place_took_twice_is_told() -> None:
    """A service may have kept what it did not confirm, and the client have sent it again."""
    lines, anchors = interleaved([0, 0])
    report = looked([lines[0], lines[0], lines[1]], anchors)
    assert report.good
    assert (report.repeated, report.records) == (["trail:2"], 2)


# --- anchors and threads -------------------------------------------------------------------------


def test_anchors_are_set_each_hundred_records_and_never_for_nothing() -> None:
    """And the last one covers everything."""
    place, anchors = Lines(), Lines()
    trail = auditor(place, anchors)
    for number in range(250):
        trail.write(record(number))
    assert len(anchors.lines) == 2
    assert trail.anchor()
    assert trail.anchor()
    assert len(anchors.lines) == 3
    assert json.loads(anchors.lines[-1])["heads"][0]["seq"] == 249


def test_an_anchor_that_can_not_be_kept_stops_nothing_and_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    """The records are kept all the same."""
    away = True
    place, anchors = Lines(), Lines(fails=lambda: away)
    trail = auditor(place, anchors)
    trail.write(record(0))
    assert not trail.anchor()
    assert "the audit trail is not anchored: audit trail: memory: no space left" in caplog.text
    away = False
    assert trail.anchor()
    assert not looked(place.lines, anchors.lines).open


def test_threads_share_a_put_and_each_waits_for_its_own_record() -> None:
    """Nobody goes on before their record is kept; and a fleet does not queue for one put each."""
    threads, here, all_here = 8, [0], threading.Event()

    class Slow(Lines):
        def keep(self, *what: object) -> None:
            all_here.wait(10)  # as slow as a put over a network, and no slower
            super().keep(*what)  # type: ignore[arg-type]

    place = Slow()
    trail = auditor(place)
    early: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        with lock:
            here[0] += 1
            if here[0] == threads:
                all_here.set()
        for part in range(5):
            mine = number * 100 + part
            trail.write(record(mine))
            if not any(f'"because {mine}"' in line for line in place.lines):
                early.append(mine)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not early
    assert sum(place.puts) == threads * 5
    assert len(place.puts) < threads * 5
    assert looked(place.lines).good


def test_a_head_is_told_from_anything_else() -> None:
    """What is no line of a chain witnesses nothing."""
    lines, _ = interleaved([0])
    assert Head.of(lines[0]) == Head(json.loads(lines[0])["writer"], 0, digest(lines[0]), AT.isoformat())
    assert Head.of("{}\n") is None
    assert Head.of(lines[0].replace(",", ", ", 1)) is None
