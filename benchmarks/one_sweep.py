"""One sweep, as a host does it, in a process that loads nothing else: prints what it came to, and its peak memory.

python -m benchmarks.one_sweep keyturn.json
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

from rotation import sweep
from rotation.assembly import assemble
from rotation.audit.files import FileAuditor
from rotation.packed import unpack


def main(config: Path) -> None:
    """Parameters: config: packed, as a function has it."""
    told = unpack(config.read_text(), config.parent)
    before, began = _peak(), time.process_time()
    assembly = assemble(told, os.environ, FileAuditor(config.parent / "audit.jsonl"))
    quiet = 0

    def count(_: object) -> None:
        nonlocal quiet
        quiet += 1

    begun = sweep.begin(assembly, quiet=count)
    for _ in begun.run_all():
        pass
    result = {
        "quiet": quiet,
        "due": len(begun.due),
        "missing": len(begun.missing),
        "troubles": [str(trouble) for trouble in begun.troubles],
        "before": before,
        "peak": _peak(),
        "seconds": time.process_time() - began,
    }
    print(json.dumps(result))


def _peak() -> float:
    """The most memory that this process had so far, in megabytes, as Linux tells."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells"
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
