"""The record: what is kept, how it is read back, and what people get to see of it."""

from __future__ import annotations

import json
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rotation.incident import page, record
from rotation.incident.record import Files, Incident, LeakRecord
from rotation.incident.selection import Selection
from rotation.model import SecretValue
from tests.incident.site import Site, consumer, policy
from tests.world import START

ALL = Selection(everything=True)


def incident_of(root: Path) -> tuple[Site, Incident]:
    s = Site([policy("chat-api", consumers=(consumer("api"),)), policy("billing-api")], root)
    incident = s.begin(ALL)
    incident.leaks = [
        LeakRecord("gitleaks", "openai-api-key", "app/a.py:3", "current", "by its fingerprint", "chat-api")
    ]
    s.run(incident)
    return s, incident


def test_a_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Times, keys, events and all."""
    s, incident = incident_of(tmp_path)
    s.files.save(incident)
    assert s.files.load(incident.id) == incident
    assert [one.id for one in s.files.all()] == [incident.id]


def test_a_record_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600, in a folder of mode 0700, with nothing half written beside it."""
    s, incident = incident_of(tmp_path)
    path = s.files.path(incident.id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_script_finds_what_it_needs(tmp_path: Path) -> None:
    """Schema, times of each key, totals, the issuer's answers, and that nothing is alive."""
    _, incident = incident_of(tmp_path)
    found = record.as_json(incident)
    assert found["schema"] == "keyturn.incident/1"
    assert found["ran_by"] == ["oncall@laptop"]
    assert (found["alive"], found["over"]) == ([], True)
    assert None not in found["totals"].values()
    assert (
        found["totals"]["replaced_seconds"] <= found["totals"]["contained_seconds"] <= found["totals"]["proven_seconds"]
    )
    (key,) = found["secrets"][0]["keys"]
    assert all(key[name] for name in ("key_id", "condemned_at", "revoked_at", "refused_at", "proven_at"))
    json.dumps(found)


@pytest.mark.parametrize("identity", ["../../etc/passwd", "2026-01-01-0000-AB12", "", "2026-01-01-0000-ab12.json"])
def test_what_is_no_id_is_no_path(tmp_path: Path, identity: str) -> None:
    """An id comes from the command line."""
    with pytest.raises(ValueError, match="is not the id of an incident"):
        Files(tmp_path).load(identity)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not the record of an incident"),
        ("[]", "is not the record of an incident"),
        ('{"schema": "keyturn.incident/2"}', "is of version keyturn.incident/2"),
        ('{"schema": "keyturn.incident/1", "id": 3}', "can not be read at"),
    ],
)
def test_a_record_that_can_not_be_read_says_why(tmp_path: Path, text: str, told: str) -> None:
    """Another version, half a file, something else."""
    files = Files(tmp_path)
    files.path("2026-01-01-0000-ab12").write_text(text)
    with pytest.raises(ValueError, match=told):
        files.load("2026-01-01-0000-ab12")
    assert list(files.all()) == []


def test_ids_tell_when_it_began() -> None:
    """In UTC, and what tells two of one minute apart."""
    assert record.identity(START, "ab12") == "2026-01-01-0000-ab12"


class Tags(HTMLParser):
    """Every tag, and the addresses that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    """Self-contained; what a scanner or a service has said stays text."""
    _, incident = incident_of(tmp_path)
    incident.leaks[0].where = "<script>alert(1)</script><img src=x>"
    incident.secrets[0].events[0].reason = "<b>"
    parsed = Tags()
    parsed.feed(page.html(incident))
    assert parsed.loaded == []
    assert not parsed.tags & {"script", "img", "link", "iframe", "b"}
    assert "<script>alert(1)</script>" in parsed.text
    for told in ("chat-api", "billing-api", "oncall@laptop", "shown dead", "Nothing that leaked is alive.", "api"):
        assert told in parsed.text


def test_markdown_is_no_markup_of_others(tmp_path: Path) -> None:
    """A pipe ends no cell, a line feed no row."""
    _, incident = incident_of(tmp_path)
    incident.leaks[0].where = "a|b\n# heading `x`"
    text = page.markdown(incident)
    assert r"a\|b # heading \`x\`" in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [f"# Incident {incident.id}"]
    assert "| chat-api |" in text


def test_a_value_that_a_service_repeats_is_masked(tmp_path: Path) -> None:
    """In the file, the page and the Markdown, however JSON spells it."""
    s, incident = incident_of(tmp_path)
    value = SecretValue('sk-"quoted"-and-long')
    incident.secrets[0].trouble = f"the service said: {value.reveal()}"
    incident.secrets[0].state = record.State.STUCK
    s.files.save(incident)
    texts = [s.files.path(incident.id).read_text(), page.markdown(incident), page.html(incident)]
    assert [text for text in texts if "quoted" in text] == []


def test_what_is_left_stands_in_the_page(tmp_path: Path) -> None:
    """Stale vaults, why, and who has to do what."""
    _, incident = incident_of(tmp_path)
    secret = incident.secrets[0]
    secret.state, secret.stale, secret.rest, secret.keys[0].proven_at = (
        record.State.STUCK,
        ["mirror"],
        "it is away",
        None,
    )
    text = page.markdown(incident)
    assert f"Alive, or not shown dead: {secret.name}." in text
    assert f"{secret.name}: it is away. May still hand out what leaked: mirror." in text
    assert incident.alive == [secret.name]
