"""Every block of the documentation, as its reader would take it: commands run, stack files load, programs run."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from rotation.cli.main import app
from tests.docs import stacks
from tests.docs.pages import DOCS, ROOT, Block, Event, all_pages, blocks, commands, parts
from tests.docs.world import World, missing

UNTRIED = 0.13
"""The share of blocks that no test may run or check, each with its reason in the page."""

CHECKED = ("console", "bash", "yaml", "json", "python")
PICTURES = ("text", "mermaid")
ABOUT_THE_NEXT = ("a person declares", "at a terminal")
"""Remarks `<!-- run: … -->` that are about the block behind them, and no event."""


def pages(*kinds: str) -> list[Any]:
    """Those that have a block of such a kind for us to take."""
    taken = ((page, [b for b in blocks(page) if b.kind in kinds and ours(b)]) for page in all_pages())
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page, found in taken if found]


def ours(block: Block) -> bool:
    return block.untried is None and block.elsewhere is None


def every_block() -> Iterator[Block]:
    for page in all_pages():
        yield from blocks(page)


# --- followed --------------------------------------------------------------------------------------


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("page", pages("console", "bash"))
def test_a_page_is_followed_literally(page: Path, world: World) -> None:
    """From its first command to its last: each does what the page says, prints it, and ends with 0 unless it says otherwise."""
    world.calm()
    try:
        faults = followed(page, world)
    except BaseException:
        world.mend()
        raise
    if faults:
        world.mend()
    assert not faults, "\n\n".join(faults)


def followed(page: Path, world: World) -> list[str]:
    """What is not as a page says."""
    faults: list[str] = []
    before = ""
    for part in parts(page):
        if isinstance(part, Event):
            before = part.text if part.text in ABOUT_THE_NEXT else ""
            if not before:
                world.happens(part)
            continue
        if part.file and part.kind == "yaml":
            file = world.folder / part.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(part.text)
        elif before == "a person declares":
            world.declares(part)
        elif part.kind == "console" and ours(part):
            faults += world.follows(part, asked=before == "at a terminal")
        elif part.kind == "bash" and ours(part):
            faults += world.script(part)
        before = ""
    return faults


# --- checked ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages show, as their first lines name them."""
    folder = tmp_path_factory.mktemp("shown")
    for block in every_block():
        if block.file and block.kind == "yaml":
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    return folder


@pytest.mark.parametrize("page", pages("yaml"))
def test_pieces_of_stack_files_load(page: Path, shown: Path) -> None:
    """By the loader that every command uses. A file that is shown with its name is YAML; what it is for, its page runs."""
    faults: list[str] = []
    for block in blocks(page):
        if block.kind == "yaml" and block.elsewhere is None:
            if block.file or block.untried:
                assert yaml.safe_load(block.text), block.place
            else:
                faults += stacks.faults(block, shown)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", pages("python"))
def test_programs_run(page: Path) -> None:
    """Those of one page one after the other, in one namespace, as a reader would paste them."""
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "python" and ours(block):
            padded = "\n" * block.place.line + block.text  # so that a traceback names the page's own line
            exec(compile(padded, str(page), "exec"), space)  # noqa: S102 - our own page


@pytest.mark.parametrize("page", pages("json"))
def test_json_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "json" and ours(block):
            json.loads(block.text)


# --- what is not run -------------------------------------------------------------------------------


def test_every_block_is_run_or_says_why_not() -> None:
    """A block of a kind that nobody runs has its reason before it; a picture has no command in it."""
    faults = []
    for block in every_block():
        if block.kind in PICTURES:
            line = next((n for n, text in enumerate(block.lines) if re.match(r"\s*\$ |keyturn [a-z]", text)), None)
            if line is not None and ours(block):
                faults.append(
                    f"{block.at(line)}: a command in a block of the kind {block.kind}; `console` blocks are run"
                )
        elif block.kind not in CHECKED and ours(block):
            kinds = ", ".join((*CHECKED, *PICTURES))
            faults.append(
                f"{block.place}: a block of the kind {block.kind or '(none)'}; it is one of {kinds}, or has "
                "`<!-- not run: REASON -->` right before it"
            )
        if block.elsewhere:
            file, _, name = block.elsewhere.partition("::")
            if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text():
                faults.append(f"{block.place}: there is no test {block.elsewhere}")
    assert not faults, "\n".join(faults)


def test_what_is_not_run_is_counted() -> None:
    """Reasons are easily found; so they are listed, and may not become a habit."""
    found = [*every_block()]
    reasons = Counter(block.untried for block in found if block.untried)
    listed = "\n".join(f"{count} {reason}" for reason, count in reasons.most_common())
    print(listed)  # shown with -s
    told = f"{reasons.total()} of {len(found)} blocks are not run, {UNTRIED:.0%} may be:\n{listed}"
    assert reasons.total() <= UNTRIED * len(found), told


# --- commands that stand anywhere -------------------------------------------------------------------

_SPOKEN = re.compile(r"`(keyturn [a-z][^`\n]*)`")


def spoken(page: Path) -> Iterator[tuple[str, str]]:
    """Every command of Keyturn's that a page names, with its place: in a line of a block, or between backticks."""
    inside = {}
    for block in blocks(page):
        if block.kind == "console":
            for step in commands(block):
                inside[step.place.line] = step.text
        else:
            for number, line in enumerate(block.lines):
                if found := re.match(r"\s*(?:- run: )?(?:\$ )?(keyturn [a-z].*)", line):
                    inside[block.at(number).line] = found[1]
    fenced = {block.at(number).line for block in blocks(page) for number in range(-1, len(block.lines) + 1)}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        here = [inside[number]] if number in inside else [] if number in fenced else _SPOKEN.findall(line)
        for command in here:
            for part in re.split(r"[|;&]+\s*(?=keyturn )", command):
                if part.startswith("keyturn "):
                    yield f"{page.relative_to(ROOT)}:{number}", part


def unknown(command: str, tree: Any = None) -> str | None:
    """The first word of a command that Keyturn does not know, as a command or an option."""
    try:
        words = shlex.split(command.replace("<(", " "), comments=True)[1:]
    except ValueError:
        words = command.split()[1:]
    node = tree or typer.main.get_command(app)
    while words and (below := getattr(node, "commands", None)):
        word = words.pop(0)
        if word.startswith("-"):
            words.insert(0, word)
            break
        if word in ("…", "|") or word.isupper():
            return None
        names = [name.strip() for name in word.split("|")]
        if any(name not in below for name in names):
            return word
        node = below[names[0]]
    takers = [node, *filter(None, [getattr(node, "commands", {}).get("run")])]  # a group's own, where it has one
    allowed = {option for taker in takers for parameter in taker.params for option in parameter.opts} | {"--help", "-h"}
    for word in words:
        if word in ("--", "|", "&&", ";", ">", "2>", "and", "||"):
            return None
        name = word.strip("[]").partition("=")[0]
        if name.startswith("--") and name not in allowed:
            return name
    return None


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in all_pages()])
def test_commands_that_a_page_names_are_there(page: Path) -> None:
    """With the options that it gives them, in blocks that are not run and between backticks, too."""
    tree = typer.main.get_command(app)
    faults = [f"{place}: `{text}`: there is no {word}" for place, text in spoken(page) if (word := unknown(text, tree))]
    assert not faults, "\n".join(faults)


# --- the checks can fail ----------------------------------------------------------------------------


def test_a_line_that_is_not_there_is_missed() -> None:
    """By a word, and by the order."""
    output = "one   two  3.1 s\nthen this"
    assert missing(("one two … s", "then …"), output) is None
    assert missing(("one three",), output) == "one three"
    assert missing(("then this", "one two"), output) == "one two"


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("$ keyturn status nothing-such", "ended with 2"),
        ("$ keyturn status support-copilot-chat\nnever printed", "has no line: never printed"),
        ("$ true | false", "ended with 1"),
    ],
)
def test_a_command_that_fails_is_told_with_its_line(block: str, told: str, world: World, tmp_path: Path) -> None:
    """In this process and in a shell; the page's second line is the block's first command."""
    page = DOCS / "no-such-page.md"
    given = Block(stacks_place(page), "console", tuple(block.splitlines()), None, None)
    (fault,) = world.follows(given)
    assert fault.startswith("docs/no-such-page.md:2: $ ")
    assert fault.endswith(told)


def stacks_place(page: Path) -> Any:
    from tests.docs.pages import Place

    return Place(page, 1)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("keyturn stats", "stats"),
        ("keyturn status --stak prod", "--stak"),
        ("keyturn incident list --all", "--all"),
        ("keyturn status --stack prod NAME", None),
        ("keyturn audit show --json | jq .", None),
    ],
)
def test_a_word_that_no_command_knows_is_found(command: str, word: str | None) -> None:
    assert unknown(command) == word


def test_a_piece_that_the_loader_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    place = stacks_place(DOCS / "no-such-page.md")
    block = Block(place, "yaml", ("keyturn:secrets:", "  - {name: billing-webhook, rotateEvry: 30d}"), None, None)
    (fault,) = stacks.faults(block, tmp_path)
    assert fault.startswith("docs/no-such-page.md:1: ")
    assert "rotateEvry" in fault


def test_the_runbook_names_every_alert() -> None:
    """An alert without a line in the runbook wakes somebody up for nothing."""
    rules: Mapping[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "keyturn.rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Keyturn\w+)`", (DOCS / "runbook.md").read_text())) == alerts
