"""Pages that need nothing beside themselves: markup that escapes what it is given, one look, leave to load nothing. Pure.

    el("p", "by ", el("b", name))      texts are escaped, whatever they hold; only what el() made is markup
    page(title, body, style=…)         one document, with a policy that names its own style and script by their digests

What services, vendors and people call things is hostile until it is escaped: nothing here takes markup as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Final, TypeAlias

from rotation.logs import masked, masker


class Safe(str):
    """Markup that was made here."""

    __slots__ = ()


_VOID: Final = frozenset({"br", "circle", "col", "input", "line", "meta", "path", "rect", "stop"})
"""Elements without content: they are closed at once, which HTML and SVG both read."""

Child: TypeAlias = "str | Iterable[Child] | None"
"""Markup of ours, text that is to be escaped, many of both, or nothing."""


def text(value: str) -> Safe:
    """Text as it stands, but for living secret values, and characters that would command a reader's eye or terminal."""
    return Safe(escape(plain(value)))


def plain(value: str) -> str:
    """The same before it is escaped, for what becomes no markup here."""
    shown = _mask.get()(value)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)


_mask: ContextVar[Callable[[str], str]] = ContextVar("mask", default=masked)


@contextmanager
def one_look() -> Iterator[None]:
    """Within it, the secret values that live are gathered once, and not for each text of a large page."""
    token = _mask.set(masker())
    try:
        yield
    finally:
        _mask.reset(token)


def el(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Safe:
    """An element.

    Parameters:
        children: markup of ours, texts, which are escaped, or many of both; None is left out.
        attributes: `class_` for class, `_` for a hyphen; one that is None or False is left out, one that is True has no value.
    """
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Safe(f"<{name}{said}/>")
    return Safe(f"<{name}{said}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Safe:
    """Children one after the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(child if isinstance(child, Safe) else text(child))
        else:
            parts.append(joined(child))
    return Safe("".join(parts))


def _attribute(key: str, value: str | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    class_: str | None = None,
    reflows: bool = False,
) -> Safe:
    """A table whose first column names its rows. It scrolls by itself where it is too wide, by keyboard, too.

    Parameters:
        caption: says what stands there; it names the table and the region that scrolls.
        headings: one for each column.
        reflows: a style shows it otherwise than as a table somewhere; it says of itself that it is one, or nobody who
            listens would know.
    """

    def role(name: str) -> str | None:
        return name if reflows else None

    head = el(
        "tr", [el("th", heading, scope="col", role=role("columnheader")) for heading in headings], role=role("row")
    )
    body = [
        el(
            "tr",
            el("th", row[0], scope="row", role=role("rowheader")),
            [el("td", cell, role=role("cell")) for cell in row[1:]],
            role=role("row"),
        )
        for row in rows
    ]
    parts = (el("thead", head, role=role("rowgroup")), el("tbody", body, role=role("rowgroup")))
    whole = el("table", el("caption", caption), parts, class_=class_, role=role("table"))
    return el("div", whole, class_="wide", role="region", aria_label=caption, tabindex="0")


def data(value: object, identity: str) -> Safe:
    """A block of JSON for the page's script. It is never run, and can not be ended from within."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    inert = written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Safe(f'<script type="application/json" id="{text(identity)}">{inert}</script>')


def page(title: str, body: Iterable[Child], *, style: str = "", script: str = "", unscripted: str = "") -> str:
    """One document. It loads nothing, sends nothing, and runs no script but this one.

    Parameters:
        style: of this kind of page, beside STYLE.
        script: is run when all of the body is there; needs no markup of its own, and may make none from text.
        unscripted: a style for where no script is run.
    """
    look = STYLE + style
    styles = " ".join(_digest(one) for one in (look, unscripted) if one)
    allowed = ["default-src 'none'", f"style-src {styles}", "base-uri 'none'", "form-action 'none'"]
    if script:
        allowed += [f"script-src {_digest(script)}", "require-trusted-types-for 'script'", "trusted-types 'none'"]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content="; ".join(allowed)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        Safe(f"<style>{look}</style>"),
        Safe(f"<noscript><style>{unscripted}</style></noscript>") if unscripted else None,
    )
    ended = Safe(f"<script>{script}</script>") if script else None
    return f'<!doctype html>\n<html lang="en">{head}{el("body", body, ended)}</html>\n'


def _digest(source: str) -> str:
    if "</" in source:
        raise ValueError("a style or script that could end its own element")
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


STYLE: Final = """
:root{color-scheme:light dark;--bg:#fbfbfa;--raised:#fff;--ink:#1b1e22;--muted:#565d66;--line:#dfe1e4;--soft:#eef0f2;
--accent:#24549c;--good:#1f6a47;--warn:#7d5000;--bad:#a8231c;--fill:#7f9cc6;--part:#d5deec;--hot:#c9564e;--focus:#24549c}
@media (prefers-color-scheme:dark){:root{--bg:#131519;--raised:#1a1d22;--ink:#e9eaec;--muted:#a6adb7;--line:#31353c;
--soft:#22262c;--accent:#93b8f2;--good:#80cfa6;--warn:#e6b961;--bad:#f49a92;--fill:#5f80b3;--part:#2b3a52;--hot:#d9746c;
--focus:#93b8f2}}
@media print{:root{color-scheme:light;--bg:#fff;--raised:#fff;--ink:#000;--muted:#444;--line:#bbb;--soft:#eee;--accent:#000;
--good:#14532d;--warn:#5c3a00;--bad:#8b1a14;--fill:#5d7aa6;--part:#ccd6e6;--hot:#b23c34}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--ink);
background:var(--bg);margin:0 auto;max-width:76rem;padding:2rem 1.5rem 4rem}
h1,h2,h3{line-height:1.25;font-weight:650;text-wrap:balance}
h1{font-size:1.9rem;letter-spacing:-.015em;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;letter-spacing:-.005em;margin:3rem 0 .3rem}
h3{font-size:1rem;margin:1.5rem 0 .4rem}
p{margin:.4rem 0;max-width:46rem;overflow-wrap:anywhere}
a{color:var(--accent);text-decoration-thickness:.06em;text-underline-offset:.18em;text-decoration-color:color-mix(in srgb,currentColor 45%,transparent)}
a:hover{text-decoration-color:currentColor}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px;border-radius:2px}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;width:100%}
.quiet caption{position:absolute;left:-100vw}
caption{text-align:left;color:var(--muted);font-size:.87rem;padding:0 0 .4rem}
th,td{border-bottom:1px solid var(--line);padding:.42rem 1rem .42rem 0;text-align:left;vertical-align:top;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
tbody th{overflow-wrap:anywhere}
thead th{font-size:.82rem;font-weight:600;color:var(--muted);white-space:nowrap;vertical-align:bottom}
tbody th{font-weight:500;min-width:9rem}
td{min-width:4.5rem}
@media print{html{font-size:12px}body{max-width:none;padding:0;font-size:8.6pt}.wide{overflow:visible}thead{display:table-header-group}
tr{break-inside:avoid}h2,h3,caption{break-after:avoid}}
"""
