"""The site: built strictly, whole by itself, every page in its place; and looked at in a real browser, from disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import DOCS, ROOT, all_pages

CHROMIUM = shutil.which("chromium")
SIZES = ((1600, 1000), (1024, 768), (390, 844))
TRIED = ("index.html", "runbook.html", "comparison.html", "reference/cli.html")

pytestmark = pytest.mark.xdist_group("docs")


def build(folder: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    env = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder


# --- built -----------------------------------------------------------------------------------------


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags are of MkDocs."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def named(nav: Any) -> Iterator[str]:
    """Every page of a navigation."""
    match nav:
        case str():
            yield nav
        case list():
            for one in nav:
                yield from named(one)
        case dict():
            for one in nav.values():
                yield from named(one)


def test_every_page_has_a_place() -> None:
    """A page that no navigation leads to is found by nobody."""
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=Loader)["nav"]  # noqa: S506 - a safe loader
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    places = [*named(nav)]
    lost = sorted(there - set(places))
    assert not lost, (
        f"give {', '.join(lost)} a line under `nav` of mkdocs.yml, and one in docs/how-to.md if it is a guide"
    )
    assert sorted(places) == sorted(there)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture; links that people follow are theirs."""
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\bsrc=["'](?:https?:)?//[^"']+|<link[^>]*\bhref=["'](?:https?:)?//[^"']+"""
    )
    styles = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']+")
    found = [f"{page.name}: {hit}" for page in site.rglob("*.html") for hit in loads.findall(page.read_text())]
    found += [f"{page.name}: {hit}" for page in site.rglob("*.css") for hit in styles.findall(page.read_text())]
    assert not found


def test_what_pages_link_outside_of_docs_comes_along(site: Path) -> None:
    assert "WatchdogSec" in (site / "repository/deploy/systemd/keyturn-run.service.txt").read_text()
    assert 'href="repository/deploy/systemd/keyturn-run.service.txt"' in (site / "running.html").read_text()


def test_remarks_for_tests_are_not_in_it(site: Path) -> None:
    assert not [
        page.name for page in site.rglob("*.html") if re.search("<!-- (run|not run|taken as)", page.read_text())
    ]


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """To a page, to a heading, to a file of the repository; each is named."""
    broken = ("no-such-page.md", "design.md#no-such-heading", "../no/such/file")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "design.md").write_text("# There\n")
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n" + "\n".join(f"[x]({link})" for link in broken))
    config = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    config = config.replace("hooks: [tools/site.py]", f"hooks: [{ROOT}/tools/site.py]")
    (tmp_path / "mkdocs.yml").write_text(f"{config}\nnav: [index.md, design.md]\n")
    built = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode != 0
    assert [link for link in broken if link not in built.stderr] == []


# --- read in the repository ------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in all_pages()])
def test_links_of_the_repository_lead_somewhere(page: Path) -> None:
    """Files, folders and headings, for who reads the pages where they are kept."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    faults = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in slugs(target)):
            faults.append(link)
    assert not faults


# --- looked at -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Tab:
    """A page in a browser, with all that it complains of and asks for elsewhere."""

    def __init__(self, browser: Any, size: tuple[int, int] = SIZES[0], scheme: str = "light") -> None:
        width, height = size
        self.page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "about:")):
            self.complaints.append(f"asked for {request.url}")

    def open(self, page: Path) -> None:
        self.page.goto(page.as_uri())


@pytest.mark.parametrize(("size", "scheme"), [*((size, "light") for size in SIZES), (SIZES[0], "dark")])
def test_pages_are_shown_at_every_size(browser: Any, site: Path, size: tuple[int, int], scheme: str) -> None:
    """Without a complaint, without a request to anywhere, and no wider than the window; dark where that is asked for."""
    tab = Tab(browser, size, scheme)
    for name in TRIED:
        tab.open(site / name)
        wide, window = tab.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= window, f"{name} is {wide} wide in a window of {window}"
        light = tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light is (scheme == "light"), name
    assert tab.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_by_everybody(browser: Any, site: Path, scheme: str) -> None:
    """Nothing serious by axe: contrast, names for screen readers, links that are told by more than their colour."""
    from axe_playwright_python.sync_playwright import Axe

    tab, found = Tab(browser, scheme=scheme), []
    for name in ("index.html", "tutorial.html", "stores.html"):  # prose, commands, tables and YAML; axe takes its time
        tab.open(site / name)
        told = Axe().run(tab.page).response["violations"]
        grave = [one for one in told if one["impact"] in ("serious", "critical")]
        found += [f"{name}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in grave]
    assert found == []


def test_search_works_from_disk(browser: Any, site: Path) -> None:
    """A file that was opened, with no server and no network: the search finds a field, and leads to it."""
    tab = Tab(browser)
    tab.open(site / "index.html")
    tab.page.click("input.md-search__input")
    tab.page.keyboard.type("containAfter")
    found = tab.page.locator(".md-search-result__item")
    found.first.wait_for(timeout=20_000)
    assert found.count() > 1
    with tab.page.expect_navigation():
        found.first.locator("a").first.click()
    assert "index.html" not in tab.page.url
    assert "containAfter" in tab.page.inner_text("article")
    assert tab.complaints == []
