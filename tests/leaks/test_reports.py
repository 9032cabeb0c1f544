"""Reading leak reports: each tool's documented form, and everything that somebody could do to one."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotation.leaks.finding import Finding
from rotation.leaks.reports import EmptyReport, Limits, Report, ReportFault, bare, hmsl, read
from rotation.logs import masked
from rotation.model import MASK, SecretValue

SAMPLES = Path(__file__).parent / "samples"

# Put together here, so that no scanner of this repository takes them for anything.
OPENAI = "sk-proj-" + "Fake" * 16
AWS_ID = "AKIA" + "FAKE" * 4
AWS_SECRET = "fake/secret+" * 3 + "made"
PASSWORD = "made-up-password-of-nobody"
FILLED = {
    "openai": OPENAI,
    "openai_half": OPENAI[:36],
    "openai_console": OPENAI[:8] + "..." + OPENAI[-4:],
    "openai_hmsl": hmsl(SecretValue(OPENAI)).removeprefix("hmsl:"),
    "aws_id": AWS_ID,
    "aws_secret": AWS_SECRET,
    "password": PASSWORD,
    "password_shown": PASSWORD,
    "aws_id_shown": AWS_ID,
    "aws_secret_shown": AWS_SECRET,
}
SECRETS = (OPENAI, AWS_SECRET, PASSWORD)


def stars(text: str) -> str:
    """As ggshield shows a match without --show-secrets."""
    shown = -(-len(text) // 6)
    middle = "".join(c if c in "+-" or c.isspace() else "*" for c in text[shown:-shown])
    return text[:shown] + middle + text[-shown:]


def sample(name: str, **other: str) -> bytes:
    """A sample report, with values put in."""
    text = (SAMPLES / name).read_text()
    for field, value in (FILLED | other).items():
        text = text.replace("{{" + field + "}}", value)
    return text.encode()


def opened(report: bytes | str | object, **limits: Any) -> Report:
    raw = report if isinstance(report, bytes) else json.dumps(report).encode()
    return read(io.BytesIO(raw), limits=Limits(**limits))


def refused(report: bytes | str | object, **limits: Any) -> str:
    with pytest.raises(ReportFault) as caught:
        opened(report, **limits)
    return str(caught.value)


def values(finding: Finding) -> list[str]:
    return [value.reveal() for value in finding.candidates]


def leak(**fields: Any) -> dict[str, Any]:
    """A finding of gitleaks."""
    return {"RuleID": "generic-api-key", "Secret": OPENAI, "File": "a.py", "StartLine": 3} | fields


def words(report: Report) -> str:
    """All that a report has besides values."""
    told = [str(skipped) for skipped in report.skipped]
    for f in report.findings:
        told += [repr(f), f.rule, f.where, f.status, f.lookup, f.redacted or "", f.hashed, f.key_id, f.source]
    return "\n".join(told)


# --- each tool's form ------------------------------------------------------------------------------


def test_gitleaks_json() -> None:
    """Each secret once, with its places, the commit's date, and an AWS key's id as the id that it is."""
    report = opened(sample("gitleaks.json"))
    assert report.format == "gitleaks"
    assert report.skipped == ()
    openai, aws = report.findings
    assert values(openai) == [OPENAI]
    assert openai.hits == 2
    assert openai.where == "deploy/values.yaml:12 in 9f2d4b7c1a0e; notes.txt:3 in 111111111111"
    assert openai.since == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)  # the earlier one
    assert (openai.source, openai.rule) == ("gitleaks", "openai-api-key")
    assert (aws.value, aws.key_id, aws.where) == (None, AWS_ID, "ci/env:1")
    assert not aws.withheld


def test_gitleaks_redacted() -> None:
    """Redacted forms are redacted, all of it is withheld, and never does a finding show much of a value."""
    nothing, half = opened(sample("gitleaks-redacted.json")).findings
    assert (nothing.value, nothing.redacted, nothing.withheld) == (None, None, True)
    assert nothing.where == "deploy/values.yaml:12"
    assert (half.value, half.redacted, half.withheld) == (None, "sk-proj-...", False)


def test_gitleaks_sarif() -> None:
    """The snippet of gitleaks is the secret. That of other tools may be anything, and is left."""
    report = opened(sample("gitleaks.sarif"))
    assert report.format == "gitleaks (SARIF)"
    [finding] = report.findings
    assert values(finding) == [OPENAI]
    assert finding.where == "deploy/values.yaml:12 in 9f2d4b7c1a0e"
    assert finding.since == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    [skipped] = report.skipped
    assert str(skipped).startswith("run 2 (entry 1): SARIF of a tool")


def test_trufflehog() -> None:
    """Either part of a credential of two is there by itself, whatever the detector joins them with."""
    report = opened(sample("trufflehog.jsonl"))
    assert report.format == "trufflehog"
    assert report.skipped == ()
    aws, openai, postgres, azure, facebook = report.findings
    assert values(aws) == [f"{AWS_ID}:{AWS_SECRET}", AWS_SECRET]
    assert (aws.key_id, aws.works, aws.public, aws.redacted) == (AWS_ID, True, None, None)
    assert aws.since == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert aws.where == "https://github.example/acme/shop: ci/env:2 in 9f2d4b7c1a0e"
    assert values(openai) == [OPENAI]
    assert (openai.works, openai.public) == (None, False)  # not verified is not refused
    assert openai.since == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert PASSWORD in values(postgres)
    assert values(azure)[1:] == [PASSWORD]  # not the ids beside it
    assert PASSWORD in values(facebook)


def test_trufflehog_without_values() -> None:
    """A line whose values somebody has taken out is told by its redacted form, if that is one."""
    line = {"DetectorName": "OpenAI", "SourceMetadata": {}, "Redacted": "sk-proj-...WXYZ"}
    other = {"DetectorName": "OpenAI", "SourceMetadata": {}, "Redacted": OPENAI}
    redacted, whole = opened([line, other]).findings
    assert (redacted.redacted, redacted.value) == ("sk-proj-...WXYZ", None)
    assert values(whole) == [OPENAI]
    assert whole.redacted is None


def test_the_parts_of_one_value() -> None:
    """By what the tool says of them, and by their names where the value is JSON: ids and addresses are left."""
    told = {"DetectorName": "x", "Raw": "made-up-raw", "RawV2": "of-host-made-up-raw-and-more"}
    by_name = told | {
        "Raw": "",
        "SecretParts": {"api_key": PASSWORD, "key_id": "made-up-key-id", "url": "https://x.example"},
    }
    one, other = opened([told, by_name]).findings
    assert values(one)[1:] == ["made-up-raw"]
    assert values(other)[1:] == [PASSWORD]
    account = {"private_key": PASSWORD, "private_key_id": "made-up-key-id", "token_uri": "https://x.example/token"}
    assert values(opened([leak(Secret=json.dumps(account))]).findings[0])[1:] == [PASSWORD]
    assert len(bare(f"postgres://app:{PASSWORD}@[db/x").candidates) == 1  # no address after all


def test_dates() -> None:
    """In UTC; one without an offset, or beyond the calendar, is none."""
    for written, expected in (
        ("2025-01-02T03:04:05+02:00", datetime(2025, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2025-01-02 03:04:05 -0100 UTC", datetime(2025, 1, 2, 4, 4, 5, tzinfo=UTC)),
        ("2025-01-02T03:04:05", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
    ):
        assert opened([leak(Date=written)]).findings[0].since == expected


def test_github_alerts() -> None:
    """An alert tells its value, where it was, whether it works, and what became of it; a hidden one, where to ask."""
    report = opened(sample("github-alerts.json"))
    assert report.format == "github"
    openai, hidden = report.findings
    assert values(openai) == [OPENAI]
    assert (openai.public, openai.works, openai.status, openai.lookup) == (True, True, "open", "")
    assert openai.found_at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    page = "https://github.example/acme/shop/security/secret-scanning/42"
    assert openai.where == f"acme/shop: /deploy/values.yaml:12 in f14d7debf977, {page}"
    assert hidden.withheld
    assert (hidden.works, hidden.status, hidden.public) == (False, "resolved: revoked", None)
    assert hidden.lookup == "https://api.github.example/repos/acme/shop/secret-scanning/alerts/43"


def test_a_single_alert_and_a_webhook_of_github() -> None:
    """The webhook never has the value; one alert of the API is read as a list of them is."""
    [hooked] = opened(sample("github-webhook.json")).findings
    assert hooked.withheld
    assert hooked.public is False
    assert hooked.lookup == "https://api.github.example/repos/acme/shop/secret-scanning/alerts/42"
    [one] = opened(json.loads(sample("github-alerts.json"))[0]).findings
    assert values(one) == [OPENAI]
    [of_public] = opened({"secret_type": "x", "number": 1, "repository": {"private": False}}).findings
    assert of_public.public is True
    location = {"type": "commit", "details": {"path": "x.py", "start_line": 5, "commit_sha": "ab" * 20}}
    delivery = json.loads(sample("github-webhook.json")) | {"location": location}
    [located] = opened(delivery).findings
    assert located.where.startswith("acme/shop: x.py:5 in abababababab, https://")


def test_a_secret_that_was_base64_is_known_decoded_too() -> None:
    """GitHub says of some alerts that what was found is encoded."""
    alert = {"secret_type": "x", "number": 1, "secret": "bWFkZS11cC1wYXNzd29yZA==", "is_base64_encoded": True}
    [finding] = opened([alert]).findings
    assert values(finding) == ["bWFkZS11cC1wYXNzd29yZA==", "made-up-password"]


def test_gitguardian_incidents() -> None:
    """Incidents have no values but a hash, which is that of the value; without one they are withheld."""
    report = opened(sample("gitguardian-incidents.json"))
    assert report.format == "gitguardian"
    incident, bare_one = report.findings
    assert incident.hashed == hmsl(SecretValue(OPENAI))
    assert incident.hashed != hmsl(SecretValue(PASSWORD))
    assert (incident.value, incident.works, incident.public) == (None, True, True)
    assert (incident.status, incident.rule) == ("ignored: test_credential", "openai_apikey")
    assert incident.found_at == datetime(2025, 3, 4, 5, 6, 7, 290758, tzinfo=UTC)
    assert incident.since == datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert incident.where.startswith("acme/shop: deploy/values.yaml in d670460b4b4a, https://dashboard")
    assert (bare_one.withheld, bare_one.public, bare_one.works) == (True, True, None)
    [event] = opened(sample("gitguardian-webhook.json")).findings
    assert (event.hashed, event.works) == (incident.hashed, False)


def test_the_hash_is_that_of_hasmysecretleaked() -> None:
    """The one example that ggshield's own tests have."""
    assert hmsl(SecretValue("test")) == "hmsl:bdbfe17c6018147f07ce79f8ec415a075d761ccacc14803e7d645155bf21a75f"


def test_ggshield_with_secrets_shown() -> None:
    """The secret matches of an incident are the parts of one credential; hosts and user names are none of them."""
    report = opened(sample("ggshield.json"))
    assert report.format == "ggshield"
    database, oauth = report.findings
    assert values(database) == [PASSWORD]
    assert (database.works, database.rule) == (True, "Database Credentials")
    assert database.where == "9f2d4b7c1a0e5f6d8c3b2a1908f7e6d5c4b3a291: deploy/values.yaml:12"
    assert (values(oauth), oauth.key_id, oauth.works) == ([AWS_SECRET], AWS_ID, None)


def test_ggshield_censored() -> None:
    """Without --show-secrets there are redacted forms only."""
    shown = {f"{name}_shown": stars(FILLED[name]) for name in ("password", "aws_id", "aws_secret")}
    database, oauth = opened(sample("ggshield.json", **shown)).findings
    assert (database.value, database.redacted) == (None, "made-...body")
    assert (oauth.candidates, oauth.redacted) == ((), "fake/se...made")


def test_a_clean_scan() -> None:
    """What tools write that have found nothing is no fault."""
    assert opened(b"[]\n").format == "none"
    assert opened({"id": ".", "type": "path_scan", "total_incidents": 0, "total_occurrences": 0}).findings == ()
    assert (
        opened({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "gitleaks"}}, "results": []}]}).findings == ()
    )


# --- a value by itself -----------------------------------------------------------------------------


def test_a_bare_value() -> None:
    """Blanks and the line end around it do not count; a key in PEM may have lines."""
    assert values(bare(f"  {OPENAI}\n")) == [OPENAI]
    assert values(bare(f"postgres://app:{PASSWORD}@db/x"))[1:] == [PASSWORD]
    assert bare(AWS_ID).key_id == AWS_ID
    pem = "-----BEGIN " + "PRIVATE KEY-----\nbWFkZSB1cA==\n-----END PRIVATE KEY-----"
    assert values(bare(pem)) == [pem]
    assert bare("sk-proj-...WXYZ").redacted == "sk-proj-...WXYZ"
    assert bare("sk-proj-***WXYZ").value is None
    assert values(bare("a..b**c-is-a-password")) == ["a..b**c-is-a-password"]


@pytest.mark.parametrize("value", ["", " \n", "tiny", f"{OPENAI}\n{PASSWORD}", "x" * 70_000, "\ud800" * 20])
def test_what_is_no_bare_value(value: str) -> None:
    """It is said what is wrong with it, and not what it is."""
    with pytest.raises(ReportFault, match=r"^the value (is|has) ") as caught:
        bare(value)
    assert not value.strip() or value.strip() not in str(caught.value)


# --- documents, lines, encodings -------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(encoding: str) -> None:
    """With a byte order mark or without: PowerShell writes UTF-16 when it redirects."""
    assert len(opened(sample("gitleaks.json").decode().encode(encoding)).findings) == 2


def test_lines_that_are_broken_leave_the_others() -> None:
    """A scanner's log in the same pipe, a line that was cut off: what can be read is, the rest is told by line."""
    good = sample("trufflehog.jsonl").decode().splitlines()
    cut = good[1][:-40]
    report = opened("\n".join(["scanning ...", good[0], cut, "", good[2], "[1, 2", '{"a": ' * 5_000]).encode())
    assert [f.rule for f in report.findings] == ["AWS", "Postgres"]
    assert [str(s) for s in report.skipped] == [
        "line 1, line 3, line 6: not JSON",
        "line 7: nested too deeply",
    ]


def test_a_report_cut_off_at_its_last_line() -> None:
    """The tool was killed while it wrote: everything before counts."""
    report = opened(sample("trufflehog.jsonl")[:-50])
    assert len(report.findings) == 4
    assert [str(s) for s in report.skipped] == ["line 5: not JSON"]


def test_several_documents_in_a_row() -> None:
    """What `gh api --paginate` and `jq` write: arrays one behind the other, arrays of arrays, indented objects."""
    one, other = (json.dumps([leak(Secret=f"made-up-value-{n}")], indent=1) for n in (1, 2))
    assert len(opened((one + other).encode()).findings) == 2
    assert len(opened(f"[{one},{other}]".encode()).findings) == 2
    assert len(opened(f"{one[1:-1]}\n{other[1:-1]}".encode()).findings) == 2
    both = opened((one + sample("trufflehog.jsonl").decode()).encode())
    assert both.format == "gitleaks, trufflehog"


def test_a_broken_document_is_told_by_line_and_column() -> None:
    """An array that ends too early may lack the very leak that is looked for."""
    whole = json.dumps([leak(), leak(Secret=PASSWORD)], indent=1).encode()
    assert refused(whole[:-2]) == "the report is broken JSON, at line 13, column 3, where it ends"
    assert refused(whole.replace(b"},", b"}", 1)) == "the report is broken JSON, at line 8, column 2"
    single = json.dumps(leak(), indent=1).encode()
    assert refused(single[:-1]).startswith("the report is broken JSON, at line 6")


@pytest.mark.parametrize(
    "report",
    [b"{}", b"[{}]", b"null", b"17", b'"text"', b'["made-up-password-of-nobody"]', b"hello, world\n", b"a,b,c\n1,2,3\n",
     b'{"vulnerabilities": []}', b'[{"RuleID": "x"}]', b"[null]"],
)  # fmt: skip
def test_what_no_known_tool_wrote(report: bytes) -> None:
    """The fault names what is known, and nothing of what was there."""
    said = refused(report)
    for known in ("gitleaks", "SARIF", "trufflehog", "GitHub", "GitGuardian", "ggshield"):
        assert known in said
    assert PASSWORD not in said


@pytest.mark.parametrize("report", [b"", b" \n\t\r\n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_an_empty_report(report: bytes) -> None:
    """It has a fault of its own: trufflehog writes nothing when it has found nothing."""
    with pytest.raises(EmptyReport, match="is empty"):
        opened(report)


@pytest.mark.parametrize(
    "report", [b"\x7fELF\x02\x01\x00\x00" * 9, b"[{}\0]", b"\xff\xfe\x00\xd8\x00", b"PK\x03\x04" + bytes(99)]
)
def test_a_binary_file(report: bytes) -> None:
    """An archive or a program that was taken for a report."""
    assert "binary" in refused(report)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'{"runs":['])
def test_deep_nesting(opening: bytes) -> None:
    """No RecursionError, however deep and however it is hidden."""
    assert "nested too deeply" in refused(opening * 100_000)
    inside = json.dumps(leak(Secret='{"a":' * 10_000)).encode()
    assert len(opened(inside).findings) == 1


# --- limits ----------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A stream that never ends, and counts what was taken."""

    taken = 0

    def readinto(self, into: Any) -> int:
        into[:] = b"x" * len(into)
        self.taken += len(into)
        return len(into)


def test_a_report_that_is_too_large() -> None:
    """It is refused when the limit is passed, not when it has been read."""
    stream = Endless()
    with pytest.raises(ReportFault, match="the pipe is larger than 3 MiB"):
        read(stream, name="the pipe", limits=Limits(bytes=3 * 1024**2))  # type: ignore[arg-type]
    assert stream.taken <= 4 * 1024**2


def test_too_many_findings() -> None:
    """Different values count, not how often each is reported."""
    same = [leak(StartLine=n + 1) for n in range(50)]
    assert opened(same, findings=1).findings[0].hits == 50
    different = [leak(Secret=f"made-up-value-{n}") for n in range(5)]
    assert len(opened(different, findings=5).findings) == 5
    assert refused(different, findings=4) == "the report has more than 4 different findings; split it"


def test_too_many_entries_and_values() -> None:
    """What costs time and memory without being a finding is limited as well, in an array, in lines, and within one entry."""
    assert "more than 10 entries" in refused(b"[]" * 12, entries=10)
    assert "more than 10 entries" in refused(b"x\n" * 12, entries=10)
    assert "more than 10 entries" in refused([1] * 12, entries=10)
    assert "more than 10 entries" in refused([leak()] * 12, entries=10)
    results: dict[str, Any] = {"tool": {"driver": {"name": "gitleaks"}}, "results": [1] * 12}
    assert "more than 10 entries" in refused({"version": "2.1.0", "runs": [results]}, entries=10)
    assert "more than 10 JSON values" in refused([[1] * 12], values=10)


def test_a_stream_that_fails() -> None:
    """The system's reason is told."""

    class Failing(io.RawIOBase):
        def readinto(self, into: Any) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(ReportFault, match="the report can not be read: Input/output error"):
        read(Failing())  # type: ignore[arg-type]


# --- fields that are not what they should be --------------------------------------------------------

WRONG: list[Any] = [
    None,
    5,
    -1,
    1.5,
    True,
    [],
    {},
    ["x"],
    {"x": [{}]},
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\ud800",
    "é" * 300,
    10**400,
]


@pytest.mark.parametrize("name", [path.name for path in sorted(SAMPLES.iterdir())])
def test_any_field_of_any_type(name: str) -> None:
    """Whatever one field is replaced with, the rest is read or refused; nothing else happens."""
    lines = sample(name).decode()
    documents = [json.loads(line) for line in lines.splitlines()] if name.endswith("l") else [json.loads(lines)]
    for document in documents:
        for wrong in WRONG:
            for changed in variants(document, wrong):
                try:
                    report = opened(changed)
                except ReportFault as fault:
                    told = str(fault)
                else:
                    told = words(report)
                assert not any(secret in told for secret in SECRETS)
                assert all(c.isprintable() or c == "\n" for c in told)


def variants(item: Any, wrong: Any) -> Iterator[Any]:
    """This document once for each of its fields and items, with that one replaced."""
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, value in list(pairs):
        copy = item.copy()
        copy[key] = wrong
        yield copy
        for inner in variants(value, wrong):
            copy = item.copy()
            copy[key] = inner
            yield copy


def test_entries_without_a_value_are_told() -> None:
    """By where they stand and why; the others are read."""
    items = [leak(Secret=5), leak(), leak(Secret=""), "x", leak(Secret="short"), leak(Secret="x" * 70_000), {"a": 1},
             leak(Secret="\ud800" * 9)]  # fmt: skip
    report = opened(items)
    assert len(report.findings) == 1
    assert [str(s) for s in report.skipped] == [
        "entry 1, entry 3: without a secret that is text",
        "entry 4: no JSON object",
        "entry 5: shorter than 8 characters",
        "entry 6: longer than 65,536 characters",
        "entry 7: of no tool that is known",
        "entry 8: no text that could be encoded",
    ]
    many = opened([leak(), *[1] * 20])
    assert str(many.skipped[0]) == "entry 2, entry 3, entry 4, entry 5, entry 6 and 15 more: no JSON object"


def test_bytes_that_are_no_text_spoil_only_their_own_value() -> None:
    """Scanners quote what they find in binary files."""
    raw = json.dumps([leak(File="a?.py"), leak(Secret="made-up?password")]).encode().replace(b"?", b"\xff")
    report = opened(raw)
    assert [f.where for f in report.findings] == ["a\N{REPLACEMENT CHARACTER}.py:3"]
    assert [s.why for s in report.skipped] == ["no text that could be encoded"]


def test_numbers_of_any_length() -> None:
    """One that Python would refuse to convert is none, and spoils nothing."""
    raw = json.dumps([leak(StartLine=7)]).replace("7", "7" * 5_000).encode()
    assert opened(raw).findings[0].where == "a.py"


def test_duplicates_are_one_finding() -> None:
    """It keeps the first places, and says how many hits there were."""
    [finding] = opened([leak(StartLine=n) for n in range(1, 3_001)]).findings
    assert finding.hits == 3_000
    assert finding.where == "a.py:1; a.py:2; a.py:3; a.py:4; a.py:5; 3,000 hits in all"


def test_the_worst_news_of_several_hits_counts() -> None:
    """Seen to work once is working, public once is public; refused once and not asked later is refused."""

    def alerts(*told: tuple[str, bool]) -> Finding:
        each = [{"secret_type": "x", "number": n, "secret": OPENAI, "validity": v, "publicly_leaked": p,
                 "repository": {"private": True}} for n, (v, p) in enumerate(told)]  # fmt: skip
        return opened(each).findings[0]

    found = alerts(("unknown", False), ("active", True), ("inactive", False))
    assert (found.works, found.public) == (True, True)
    found = alerts(("inactive", False), ("unknown", False))
    assert (found.works, found.public) == (False, False)


# --- values stay in --------------------------------------------------------------------------------


def test_nothing_but_values_has_values() -> None:
    """What is around a value may quote it, or another finding's: a path, a link, a rule, a status."""
    evil = f"https://x.example/{OPENAI}/edit?token={PASSWORD}&x=1"
    items: list[Any] = [
        leak(File=evil, RuleID=f"rule X{OPENAI}X"),
        leak(Secret=PASSWORD, File=f"dir/{OPENAI}/x.py", Commit=PASSWORD),
        leak(Secret="REDACTED", File=f"{PASSWORD}.txt"),
        {
            "secret_type": PASSWORD,
            "number": 1,
            "url": evil,
            "html_url": evil,
            "state": OPENAI,
            "resolution": AWS_SECRET,
        },
        {"DetectorName": "x", "Raw": AWS_SECRET, "Redacted": AWS_SECRET},
        {"DetectorName": "x", "Redacted": f"{PASSWORD[:16]}...{PASSWORD[16:]}"},
    ]
    report = opened(items)
    assert len(report.findings) == 6
    told = words(report)
    assert not any(secret in told for secret in SECRETS)
    assert "https://x.example/[masked]/edit?token=[masked]&x=1" in told
    assert f"{MASK}.txt" in told


def test_places_can_not_steer_a_terminal() -> None:
    """No control characters, no text that runs backwards, and no more than a line of it."""
    [finding] = opened([leak(File="a\x1b[2Jb\n\u202ec" + "d" * 3_000, RuleID="r\x07" * 400)]).findings
    assert finding.where.startswith("a\N{REPLACEMENT CHARACTER}[2Jb")
    assert finding.where.isprintable()
    assert len(finding.where) <= 200
    assert finding.rule.isprintable()
    assert opened([leak(File="d" * 100_000)]).findings[0].where == ""


def test_an_address_for_lookup_is_one_of_https() -> None:
    """Nobody is led to another kind of address, or one with blanks in it."""
    for url in ("http://api.github.com/1", "file:///etc/passwd", "https://a b", "https://" + "x" * 600, 5):
        [finding] = opened({"secret_type": "x", "number": 1, "url": url}).findings
        assert finding.lookup == ""


def test_the_log_masks_values_for_as_long_as_their_findings_live() -> None:
    """Each value is registered when it is read, parts too."""
    report = opened(sample("trufflehog.jsonl"))
    line = f"it was {PASSWORD} and {AWS_SECRET}"
    assert masked(line) == f"it was {MASK} and {MASK}"
    del report
    assert masked(line) == line


@pytest.mark.parametrize(
    ("report", "limits"),
    [
        (f'[{{"RuleID": "x", "Secret": "{OPENAI}"'.encode(), {}),
        (f'["{OPENAI}"]'.encode(), {}),
        (f"{OPENAI}\n".encode(), {}),
        (f'[{{"{OPENAI}": '.encode() * 9_000, {}),
        (json.dumps([leak(), leak(Secret=PASSWORD)]).encode(), {"findings": 1}),
        (json.dumps([leak(), leak()]).encode(), {"entries": 1}),
        (json.dumps(leak()).encode() + b"\0", {}),
    ],
)
def test_a_fault_has_nothing_of_the_text(report: bytes, limits: dict[str, int]) -> None:
    """Neither its message, nor an exception behind it, nor what a frame of its traceback holds (but the stream itself)."""
    fault = None
    try:
        read(io.BytesIO(report), limits=Limits(**limits))
    except ReportFault as caught:
        fault = caught
    assert fault is not None
    assert OPENAI not in str(fault)
    assert fault.__context__ is None
    assert fault.__cause__ is None
    frames: list[FrameType] = []
    step = fault.__traceback__
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    assert len(frames) == 2  # this one and read()
    held = {name: value for name, value in frames[1].f_locals.items() if name != "stream"}
    assert OPENAI not in repr(held)


class Watched(io.BytesIO):
    """A stream that keeps the buffers of its reader."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.buffers: list[Any] = []

    def readinto(self, into: Any) -> int:
        self.buffers += [into, sys._getframe(1).f_locals["raw"]]
        return super().readinto(into)


def test_buffers_are_zeroed() -> None:
    """What the bytes were read into is wiped, whether they made sense or not."""
    for report in (sample("gitleaks.json"), sample("gitleaks.json")[:-5], b"\0" + OPENAI.encode()):
        stream = Watched(report)
        with contextlib.suppress(ReportFault):
            read(stream)
        assert stream.buffers
        assert all(not any(buffer) for buffer in stream.buffers)


def test_a_stream_without_readinto_is_read_as_well() -> None:
    """What gives bytes by read() alone is enough."""

    class Plain:
        def __init__(self, raw: bytes) -> None:
            self.rest = io.BytesIO(raw)

        def read(self, size: int = -1) -> bytes:
            return self.rest.read(min(size, 700))

    assert len(read(Plain(sample("gitleaks.json"))).findings) == 2  # type: ignore[arg-type]


# --- anything at all -------------------------------------------------------------------------------

NAMES = sorted(
    {"RuleID", "Secret", "Match", "File", "StartLine", "Commit", "Date", "Link", "DetectorName", "Raw", "RawV2", "Redacted",
     "SourceMetadata", "Data", "Git", "file", "line", "timestamp", "visibility", "SecretParts", "Verified", "secret_type",
     "secret", "number", "url", "html_url", "alert", "location", "details", "repository", "first_location_detected",
     "locations", "is_base64_encoded", "created_at", "resolution", "state", "validity", "incident", "hmsl_hash", "date",
     "secret_hash", "gitguardian_url", "detector", "name", "occurrences", "source", "total_incidents", "type", "scans",
     "entities_with_incidents", "incidents", "filename", "match", "runs", "version", "tool", "driver", "results",
     "physicalLocation", "region", "snippet", "text", "partialFingerprints"}
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from([OPENAI, PASSWORD, AWS_ID, f"{AWS_ID}:{AWS_SECRET}", f"a://b:{PASSWORD}@c", "gitleaks", "2025-01-02",
                     json.dumps({"clientSecret": PASSWORD}), "REDACTED", "sk-...", "sk-***yz", "http://[", "0001-01-01T00:00:00+14:00"]),
)  # fmt: skip
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [("RuleID", "Secret"), ("DetectorName", "Raw"), ("secret_type", "number"), ("hmsl_hash",), ("total_incidents", "scans"),
     ("total_incidents", "entities_with_incidents", "type"), ("runs", "version"), ("alert", "repository"), ("incident",)]
)  # fmt: skip
"""What makes an object one of each tool's."""
ENTRIES = KINDS.flatmap(
    lambda kind: st.builds(
        lambda sure, more: more | sure,
        st.fixed_dictionaries(dict.fromkeys(kind, TREES)),
        st.dictionaries(st.sampled_from(NAMES), TREES, max_size=8),
    )
)


def survives(raw: bytes) -> None:
    """Whatever this is: a report without values in its words, or a fault with nothing of it."""
    fault, report = None, None
    try:
        report = read(io.BytesIO(raw))
    except ReportFault as caught:
        fault = caught
    if fault is not None:
        assert not any(secret in str(fault) for secret in SECRETS)
        assert fault.__context__ is None
        return
    assert report is not None
    known = {value for finding in report.findings for value in values(finding)}
    assert not any(secret in words(report) for secret in SECRETS if secret in known)
    for finding in report.findings:
        shown = [finding.rule, finding.where, finding.status, finding.lookup, finding.redacted or "", finding.key_id]
        assert not any(value in text for value in values(finding) for text in shown)
        assert all(text.isprintable() for text in shown)
        assert finding.found_at is None or finding.found_at.tzinfo is UTC


@settings(deadline=None, max_examples=100)
@given(st.one_of(ENTRIES, st.lists(ENTRIES, max_size=4)))
def test_any_document(tree: Any) -> None:
    """Of any shape, with the names that tools use and every type in every field."""
    survives(json.dumps(tree).encode())


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(path.name for path in SAMPLES.iterdir())), st.data())
def test_any_damage(name: str, data: st.DataObject) -> None:
    """Of a real report: a piece cut out, some bytes put in, the end missing."""
    raw = sample(name)
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 60)))
    put = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"[" * 3_000, b'"', b"\\", b"\\ud800", b"}{", b"\n", b"\0"])
    )
    last = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    survives((raw[:start] + put + raw[end:])[:last])


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-16", "surrogatepass")))
def test_any_bytes(raw: bytes) -> None:
    """Of any kind at all."""
    survives(raw)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=80))
def test_any_bare_value(value: str) -> None:
    """It is a finding, or a fault."""
    try:
        finding = bare(value)
    except ReportFault:
        return
    assert finding.source == "value"
    assert not finding.withheld


# --- speed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [False, True], ids=["array", "lines"])
def test_time_grows_with_the_size_alone(lines: bool) -> None:
    """20,000 findings take about four times what 5,000 take; were it quadratic, it would be sixteen times."""

    def took(count: int) -> float:
        each = [
            json.dumps(leak(Secret=f"made-up-value-{n:09d}", File=f"src/{n}.py", Match="x" * 60)) for n in range(count)
        ]
        raw = ("\n".join(["no JSON", *each]) if lines else f"[{','.join(each)}]").encode()
        start = time.process_time()
        report = read(io.BytesIO(raw))
        spent = time.process_time() - start
        assert len(report.findings) == count
        return spent

    took(500)
    small = min(took(5_000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 10 * small + 0.2
