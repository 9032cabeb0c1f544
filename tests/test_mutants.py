"""Every deliberate fault is hunted with every test run, two minutes of it, and each is caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rotation.rules import beginning
from tests.mutants.catalogue import MUTANTS
from tests.mutants.patching import StaleError, edit

ROOT = Path(__file__).parent.parent
NONSENSE = """
from rotation.rules import beginning
from tests.mutants import hunting
from tests.mutants.catalogue import MUTANTS, Mutant
from tests.mutants.patching import edit
put = lambda: edit(beginning, "_why", "return Why.FIRST", "return Why.NEVER_HEARD_OF")
MUTANTS["nonsense"] = Mutant("nonsense", put, look_in=("bootstrap / vault / free",))
print(hunting.hunt("nonsense").why)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a fault stays in the code that it was put into."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_fault_still_fits_the_code() -> None:
    """Or it would be hunted in vain, and nobody would know."""
    done = python("-m", "tests.mutants", "--edits")
    assert (done.returncode, done.stdout) == (0, "all fit\n"), done.stdout + done.stderr


def test_every_fault_is_caught() -> None:
    """Each by an invariant that it breaks, or by a test; and by nothing when it is not there."""
    done = python("-m", "tests.mutants", "--processes", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(MUTANTS)} faults, 0 not caught" in done.stdout


def test_a_fault_that_is_not_caught_fails_the_build() -> None:
    """One that needs a call to fail does not show in the first execution, in which all goes well."""
    done = python("-m", "tests.mutants", "--most", "1", "forgetting the old id")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT CAUGHT: no invariant was broken" in done.stdout
    assert "1 faults, 1 not caught" in done.stdout


def test_code_that_only_falls_over_is_no_fault() -> None:
    """A name that does not exist is a bad edit, whatever the simulation makes of the exception."""
    done = python("-c", NONSENSE)
    assert done.stdout.startswith("stale: it falls over: AttributeError"), done.stdout + done.stderr


@pytest.mark.parametrize("words", ["words that are not there", "return"])
def test_words_that_do_not_fit_change_nothing(words: str) -> None:
    """They are not in the function, or in several places of it."""
    before = beginning._why
    with pytest.raises(StaleError, match="not once"):
        edit(beginning, "_why", words, "pass")
    assert beginning._why is before


def test_the_page_shows_every_fault() -> None:
    """What people read is what is hunted."""
    page = (ROOT / "docs" / "mutants.md").read_text()
    rows = [line for line in page.partition("## Results\n")[2].splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(MUTANTS), "python -m tests.mutants --write"
