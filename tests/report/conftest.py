"""A real browser, one for all tests of this folder, that nothing outside this machine answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from rotation.report import page, report
from tests.report.made import facts

Look = Callable[..., Page]
"""Opens a page: its HTML or its file; options of a browser's context."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for longer: as long as it is open, an event loop runs in this thread, and other tests want one of their own."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed here: Debian has it as the package chromium")
    with sync_playwright() as playwright:
        # As root, which containers of CI are, Chromium has no sandbox. It is shown pages that were made here.
        opened = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield opened
        opened.close()


@pytest.fixture
def look(browser: Browser, tmp_path: Path) -> Iterator[Look]:
    """Opens pages from files, as people do. Whatever a page complains of, or asks of a network, fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(shown: str | Path, **options: Any) -> Page:
        file = shown if isinstance(shown, Path) else tmp_path / f"{len(contexts)}.html"
        if isinstance(shown, str):
            file.write_text(shown)
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.on("console", lambda said: complaints.append(f"console: {said.text}"))
        opened.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        opened.on(
            "request", lambda asked: None if asked.url == file.as_uri() else complaints.append(f"asked for {asked.url}")
        )
        opened.goto(file.as_uri())
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def sixty() -> str:
    """The page of sixty secrets that have run for a year."""
    return page.html(report(facts(60)))
