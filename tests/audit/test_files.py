"""The trail in files: several processes at once, a full disk, a file that is taken away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rotation.audit.files import FileAuditor, FilePlace
from rotation.audit.verify import Report, verify
from rotation.errors import Code, Trouble
from tests.audit.lines import ACME, record

WRITES = """
import sys
import tempfile
from pathlib import Path
from rotation.audit import FileAuditor
from tests.audit.lines import record
trail = FileAuditor(Path(sys.argv[1]), "acme", "prod")
for number in range(int(sys.argv[2])):
    trail.write(record(number))
"""


def looked(*paths: Path) -> Report:
    return verify((line for path in paths for line in FilePlace(path).read()), (), ACME)


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_several_processes_append_to_one_file(tmp_path: Path) -> None:
    """None knows of the others, and every chain is whole."""
    path = tmp_path / "trail.jsonl"
    running = [script(WRITES, path, 100) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    for process in running:
        process.communicate()
    report = looked(path)
    assert report.good
    assert (report.records, report.chains, report.torn) == (400, 4, [])


FILLS = """
import resource, sys
from pathlib import Path
from rotation.audit import FileAuditor
from rotation.errors import Trouble
from tests.audit.lines import record
path = Path(sys.argv[1])
trail, kept = FileAuditor(path, "acme", "prod"), []
trail.write(record(0))
size = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size, resource.RLIM_INFINITY))
for number in range(1, 5):
    try:
        trail.write(record(number))
        kept.append(number)
    except Trouble as trouble:
        assert str(path) in str(trouble), trouble
        print("refused", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in range(5, 8):
    trail.write(record(number))
    kept.append(number)
print("kept", *kept)
"""


def test_a_disk_that_is_full_for_a_while_refuses_records_and_spoils_none(tmp_path: Path) -> None:
    """What was refused is torn at most; what was kept before and after is whole, and so are its chains."""
    path = tmp_path / "trail.jsonl"
    process = script(FILLS, path)
    out = process.communicate()[0].splitlines()
    assert process.returncode == 0
    refused = [int(line.split()[1]) for line in out[:-1]]
    kept = [0, *map(int, out[-1].split()[1:])]
    assert refused
    assert sorted(kept + refused) == [*range(8)]
    report = looked(path)
    assert report.good
    assert report.torn
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["token"] for line in lines] == [f"t{number}" for number in kept]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_device_is_trouble() -> None:
    """And says what it is."""
    with pytest.raises(Trouble, match="No space left on device") as caught:
        FileAuditor(Path("/dev/full")).write(record(0))
    assert caught.value.code is Code.UNAVAILABLE


def test_file_and_folder_are_private(tmp_path: Path) -> None:
    """Names and ids are no secrets, and nobody's business."""
    path = tmp_path / "folder" / "trail.jsonl"
    FileAuditor(path).write(record(0))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_that_was_taken_away_is_begun_again_and_the_gap_shows(tmp_path: Path) -> None:
    """Nobody would ever read what a process goes on writing to a file without a name."""
    path = tmp_path / "trail.jsonl"
    trail = FileAuditor(path, *ACME)
    trail.write(record(0))
    path.unlink()
    trail.write(record(1))
    assert len(path.read_text().splitlines()) == 1
    assert not looked(path).good
    path.rename(tmp_path / "rotated.jsonl")
    trail.write(record(2))
    assert looked(tmp_path / "rotated.jsonl").records == 2


def test_a_torn_line_of_another_process_takes_none_of_ours_with_it(tmp_path: Path) -> None:
    """Ours begins a line of its own."""
    path = tmp_path / "trail.jsonl"
    first, second = FileAuditor(path, *ACME), FileAuditor(path, *ACME)
    first.write(record(0))
    with path.open("a") as file:
        file.write('{"at":"2026-11-22T03:00')
    second.write(record(1))
    first.write(record(2))
    report = looked(path)
    assert report.good
    assert (report.records, report.torn) == (3, [f"{path}:2"])


FORKS = """
import os, sys
from pathlib import Path
from rotation.audit import FileAuditor
from tests.audit.lines import record
trail = FileAuditor(Path(sys.argv[1]), "acme", "prod")
trail.write(record(0))
child = os.fork()
for number in range(1, 20):
    trail.write(record(number))
if child:
    os.waitpid(child, 0)
"""


def test_a_child_has_a_chain_of_its_own(tmp_path: Path) -> None:
    """Both go on from the same memory, and would both be its next record."""
    path = tmp_path / "trail.jsonl"
    process = script(FORKS, path)
    process.communicate()
    report = looked(path)
    assert process.returncode == 0
    assert report.good
    assert (report.records, report.chains) == (39, 2)


ONLY_WRITES = """
import os, sys
from pathlib import Path
from rotation.audit import FileAuditor
from tests.audit.lines import record
trail = FileAuditor(Path(sys.argv[1]), "acme", "prod")
if os.geteuid() == 0:
    os.setuid(65534)
trail.write(record(0))
trail.write(record(1))
"""


def test_a_file_that_may_only_be_written_is_written() -> None:
    """As somebody may have set it up who reads it with another login."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder, "trail.jsonl")
        path.touch()
        path.chmod(0o222)
        process = script(ONLY_WRITES, path)
        process.communicate()
        assert process.returncode == 0
        path.chmod(0o600)
        assert looked(path).records == 2
