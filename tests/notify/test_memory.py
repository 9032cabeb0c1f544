"""Nothing is told twice, by whichever process; what could not be told is told by whoever comes next."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from rotation.notify import memory as module
from rotation.notify.memory import LAPSE, Memory
from tests.notify.places import AT, memory, notice
from tests.world import FakeClock

DAY = timedelta(hours=24)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".keyturn" / "notices.json"


def test_the_same_notice_is_told_once_in_its_time(path: Path) -> None:
    """And again after that, while it is still so; a changed one at once, and the first again after the change."""
    clock = FakeClock()
    kept = Memory(path, clock.now)
    first, other = notice(), notice(subject="it failed otherwise")

    def told(one: object) -> bool:
        claimed = kept.claim("ops", [one], DAY)  # type: ignore[list-item]
        kept.told("ops", claimed)
        return bool(claimed)

    assert told(first)
    assert not told(first)
    assert not kept.news("ops", first, DAY)
    assert told(other)
    assert told(first)
    clock.move(DAY)
    assert kept.news("ops", first, DAY)
    assert told(first)


def test_each_channel_is_told_for_itself(path: Path) -> None:
    """And each secret, and each environment."""
    kept = memory(path)
    kept.told("ops", kept.claim("ops", [notice()], DAY))
    assert kept.claim("mail", [notice()], DAY)
    assert kept.claim("ops", [notice(secret="support-copilot-batch")], DAY)
    assert kept.claim("ops", [notice(environment="dev")], DAY)


CLAIMING = """
import sys
from datetime import timedelta
from pathlib import Path
from tests.notify.places import memory, notice

kept = memory(Path(sys.argv[1]))
print("ready", flush=True)
claimed = kept.claim("ops", [notice()], timedelta(days=1))
kept.told("ops", claimed)
print(len(claimed))
"""


def claiming(path: Path) -> subprocess.Popen[str]:
    """Another process, about to claim."""
    process = subprocess.Popen([sys.executable, "-c", CLAIMING, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def rest(process: subprocess.Popen[str]) -> str:
    """What it prints until its end. Not communicate(), which misses what readline() has read ahead."""
    assert process.stdout is not None
    with process.stdout as printed:
        said = printed.read().strip()
    assert process.wait(30) == 0
    return said


def test_of_several_processes_one_tells(path: Path) -> None:
    """By the file alone; this one learns of it, too."""
    processes = [claiming(path) for _ in range(3)]
    printed = [rest(process) for process in processes]
    assert sorted(printed) == ["0", "0", "1"]
    assert not memory(path).news("ops", notice(), DAY)


def test_no_process_claims_while_another_is_at_it(path: Path) -> None:
    """It waits, and goes by what the other has left."""
    path.parent.mkdir()
    with (path.parent / "notices.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = claiming(path)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        key = "ops rotation.failed prod support-copilot-chat"
        entry = {"same": hashlib.sha256(notice().same_as.encode()).hexdigest()[:32], "at": AT.isoformat(), "sure": True}
        path.write_text(json.dumps({"told": {key: entry}}))
    assert rest(process) == "0"


def test_the_file_is_for_its_owner_alone_and_no_half_of_it_is_ever_there(path: Path) -> None:
    """Mode 0600, put in place as a whole; nothing else is left beside it but the lock."""
    kept = memory(path)
    kept.told("ops", kept.claim("ops", [notice()], DAY))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["notices.json", "notices.lock"]
    assert stat.S_IMODE((path.parent / "notices.lock").stat().st_mode) == 0o600


def test_what_could_not_be_told_is_told_by_whoever_comes_next(path: Path) -> None:
    """At once when its claim was given back, and after a while when the process died with it."""
    clock = FakeClock()
    first, second = Memory(path, clock.now), Memory(path, clock.now)
    assert first.claim("ops", [notice()], DAY)
    assert not second.claim("ops", [notice()], DAY)
    first.dropped("ops", [notice()])
    assert second.claim("ops", [notice()], DAY)
    clock.move(LAPSE)
    assert first.claim("ops", [notice()], DAY)


def test_the_end_of_a_trouble_is_told_once_to_those_who_were_told_of_it(path: Path) -> None:
    """And the same trouble is news again after that."""
    kept = memory(path)
    end = notice("rotation.resolved", "it works again")
    assert not kept.news("ops", end, DAY)
    kept.told("ops", kept.claim("ops", [notice()], DAY))
    assert not kept.news("mail", end, DAY)
    assert kept.claim("ops", [end], DAY)
    assert not kept.claim("ops", [end], DAY)
    kept.told("ops", [end])
    assert not kept.news("ops", end, DAY)
    assert kept.claim("ops", [notice()], DAY)
    kept.told("ops", [notice()])
    assert kept.claim("ops", [end], DAY)


@pytest.mark.parametrize("kind", ["rotation.before", "rotation.done"])
def test_what_has_a_date_or_a_key_is_never_told_again(path: Path, kind: str) -> None:
    """However long ago; another date is another notice."""
    clock = FakeClock()
    kept = Memory(path, clock.now)
    kept.told("ops", kept.claim("ops", [notice(kind)], DAY))
    clock.move(timedelta(days=90))
    assert not kept.news("ops", notice(kind), DAY)
    assert kept.news("ops", notice(kind, "another"), DAY)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"told": 5}', '{"told": {"ops rotation.failed prod support-copilot-chat": {"at": 5}}}', "\0\xff"],
)
def test_a_file_that_somebody_broke_counts_as_empty(path: Path, text: str) -> None:
    """Told again is better than not told; and the next write mends it."""
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    kept = memory(path)
    assert kept.news("ops", notice(), DAY)
    kept.told("ops", kept.claim("ops", [notice()], DAY))
    assert json.loads(path.read_text())["told"]


def test_where_nothing_can_be_written_the_process_remembers_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a function whose disk is read-only; said once, in the log."""
    (tmp_path / "file").write_text("")
    kept = memory(tmp_path / "file" / "notices.json")
    with caplog.at_level(logging.WARNING):
        kept.told("ops", kept.claim("ops", [notice()], DAY))
        assert not kept.claim("ops", [notice()], DAY)
    assert [record.getMessage().count("only this process knows") for record in caplog.records] == [1]


def test_it_stays_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, and what nobody needs any more."""
    monkeypatch.setattr(module, "MOST", 3)
    clock = FakeClock()
    kept = Memory(path, clock.now)
    for number in range(5):
        clock.move(timedelta(minutes=1))
        kept.told("ops", kept.claim("ops", [notice(secret=f"a-{number}")], DAY))
    assert [key.split()[-1] for key in json.loads(path.read_text())["told"]] == ["a-2", "a-3", "a-4"]
    clock.move(module.KEPT + timedelta(days=1))
    kept.told("ops", kept.claim("ops", [notice(secret="b-0")], DAY))
    assert [key.split()[-1] for key in json.loads(path.read_text())["told"]] == ["b-0"]


# --- consumers -------------------------------------------------------------------------------------


def test_a_consumer_reads_each_version_once(path: Path) -> None:
    """A version that was there before is taken to have been read; one that another host promoted is not."""
    kept = memory(path)

    def must(version: str, *, fresh: bool = False) -> bool:
        return kept.must_read("prod", "a-b", "api", version, fresh=fresh)

    assert not must("v1")
    assert must("v2", fresh=True)
    kept.read("prod", "a-b", "api", "v2", done=True)
    assert not must("v2")
    assert not must("v2", fresh=True)
    assert must("v3")


def test_what_failed_is_due_in_the_next_sweep(path: Path) -> None:
    """And what is under way is not, in whatever process."""
    clock = FakeClock()
    first, second = Memory(path, clock.now), Memory(path, clock.now)
    assert first.must_read("prod", "a-b", "api", "v1", fresh=True)
    assert not second.must_read("prod", "a-b", "api", "v1", fresh=True)
    first.read("prod", "a-b", "api", "v1", done=False)
    assert second.must_read("prod", "a-b", "api", "v1", fresh=False)
    clock.move(LAPSE)
    assert first.must_read("prod", "a-b", "api", "v1", fresh=False)
    first.read("prod", "a-b", "api", "v1", done=True)
    clock.move(LAPSE)
    assert not second.must_read("prod", "a-b", "api", "v1", fresh=False)
