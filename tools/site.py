"""Hooks of the site's build: files of the repository that pages link to come along, as text, so that the site is whole by itself."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
_OUTSIDE: Final = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)\)")
_FOLDER: Final = "repository"
_ALONE: Final = ("index.md", "tutorial.md")
"""Pages that are a tab by themselves: a list of one page at their side would be none."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds what is linked and lies outside of `docs`. A link to nothing stays as it is, and fails a strict build."""
    for page in list(files.documentation_pages()):
        for found in _OUTSIDE.finditer(page.content_string):
            target = _target(page.src_uri, found["path"])
            if target is not None and files.get_file_from_path(uri := f"{_FOLDER}/{target}.txt") is None:
                files.append(File.generated(config, uri, content=(ROOT / target).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' names
    """Leads links out of `docs` to the copies; leaves out a navigation that has nothing to offer."""
    here = page.file.src_uri
    if here in _ALONE:
        page.meta["hide"] = ["navigation"]

    def led(found: re.Match[str]) -> str:
        target = _target(here, found["path"])
        if target is None:
            return found[0]
        return f"]({relpath(f'{_FOLDER}/{target}.txt', str(Path(here).parent))})"

    return _OUTSIDE.sub(led, markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Takes out the remarks by which tests know how to take a block; names for screen readers what the theme leaves nameless."""
    output = output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
    return re.sub(r"<!-- (?:run|not run|run by|taken as): .*? -->\n?", "", output)


def _target(page: str, link: str) -> str | None:
    """The file of the repository that a link of a page in `docs` means, where there is one outside."""
    path = normpath(f"docs/{Path(page).parent.as_posix()}/{link}")
    outside = not path.startswith(("..", "docs/"))
    return path if outside and (ROOT / path).is_file() else None
