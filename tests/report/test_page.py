"""The page as text: what it may do, what it holds, and what it leaves to nobody else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

from rotation import html as h
from rotation.html import Safe, el
from rotation.report import page, report
from tests.report.made import facts
from tests.report.test_browser import hostile


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.sources: list[str] = []
        self.last = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.last = tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if self.last in ("style", "script") and self.found[-1][1].get("type") != "application/json":
            self.sources.append(data)


def test_the_policy_names_what_may_run_by_its_digest() -> None:
    """Nothing is loaded, nothing sent; no style or script but the page's own; no markup made from text."""
    text = page.html(report(facts(3)))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#x27;", "'").split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert set(rules) == {
        "default-src", "style-src", "script-src", "base-uri", "form-action", "require-trusted-types-for", "trusted-types"
    }  # fmt: skip
    digests = {
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in Parsed(text).sources
        if s.strip()
    }
    assert digests == {*rules["style-src"].split(), *rules["script-src"].split()}
    assert "unsafe" not in policy[1]


def test_nothing_is_fetched_and_no_handler_stands_in_markup() -> None:
    """Links lead into the page; no attribute runs anything or styles anything, whatever names look like."""
    for text in (page.html(report(facts(60))), page.html(report(hostile()))):
        for tag, attributes in Parsed(text).found:
            assert tag not in {"img", "link", "iframe", "object", "embed", "base"}
            assert not [
                name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
            ]
            assert (attributes.get("href") or "#").startswith("#")


def test_tables_can_be_heard() -> None:
    """Each has a caption, headings with their scope, and one level of heading follows the other."""
    text = page.html(report(facts(60)))
    found = Parsed(text).found
    assert sum(tag == "table" for tag, _ in found) == sum(tag == "caption" for tag, _ in found) > 5
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in found if tag == "th")
    levels = [int(tag[1]) for tag, _ in found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_text_is_escaped_whatever_it_is_given_as() -> None:
    """As a child, an attribute, in data; only what was made here is markup."""
    assert el("p", "<b>", Safe("<i>x</i>"), ["&", None]) == "<p>&lt;b&gt;<i>x</i>&amp;</p>"
    assert el("a", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;"></a>'
    assert el("td", "a", hidden=False, title=None, open=True, data_n=3) == '<td open data-n="3">a</td>'
    assert "</script>" not in h.data({"a": "</script>"}, "x").removesuffix("</script>")
    assert h.text("a\u202eb\x1b[2J\nc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[2J c"


def test_shares_are_not_rounded_into_what_they_are_not() -> None:
    """4,999 of 5,000 is not all of them."""
    assert page._percent(1) == "100%"
    assert page._percent(4999 / 5000) == "99.9%"
    assert page._percent(0.5) == "50%"
