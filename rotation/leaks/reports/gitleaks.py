"""Reads what gitleaks writes: its JSON report, and its SARIF.

Source: github.com/gitleaks/gitleaks v8: report/finding.go (81fc668: Finding, and Redact), report/json.go (c7e0898),
report/sarif.go (22d78ab). JSON is an array of findings under Go's names of the fields. With `--redact[=percent]` the secret's
end is replaced by `...`, or all of it by `REDACTED`, in both formats. In SARIF the secret is the text of the region's snippet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rotation.leaks.reports import fields
from rotation.leaks.reports.gathering import Hit, Skip


def read(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hit of one finding of the JSON report; None for an object that is none."""
    if "RuleID" not in item or not item.keys() & {"Secret", "Match", "StartLine", "Fingerprint"}:
        return None
    return _finding(item)


def _finding(item: Mapping[str, object]) -> Iterator[Hit | Skip]:
    secret = item.get("Secret")
    if not isinstance(secret, str) or not secret.strip():
        yield Skip("without a secret that is text")
        return
    path = fields.text(item, "SymlinkFile", "File")
    yield _hit(
        secret,
        rule=fields.text(item, "RuleID"),
        place=fields.place(path, fields.number(item, "StartLine"), fields.text(item, "Commit"))
        or fields.text(item, "Link"),
        date=item,
        date_name="Date",
    )


def read_sarif(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hits of a SARIF 2.1.0 log; None for an object that is none."""
    if not isinstance(item.get("runs"), list) or not ("version" in item or "$schema" in item):
        return None
    return _sarif(item)


def _sarif(item: Mapping[str, object]) -> Iterator[Hit | Skip]:
    for number, run in enumerate(fields.objects(item.get("runs")), 1):
        results = run.get("results")
        if fields.text(fields.mapping(run, "tool", "driver"), "name").lower() != "gitleaks":
            # What another tool's snippet is, whole lines or the value, its documents would have to say.
            yield Skip("SARIF of a tool that does not tell values there; have it report as JSON", f"run {number}")
            continue
        for index, result in enumerate(results if isinstance(results, list) else [], 1):
            yield from _result(result, f"result {index} of run {number}")


def _result(result: object, at: str) -> Iterator[Hit | Skip]:
    told = fields.mapping(result)
    locations = [fields.mapping(each, "physicalLocation") for each in fields.objects(told.get("locations"))]
    prints = fields.mapping(told, "partialFingerprints")
    found = False
    for location in locations:
        secret = fields.text(fields.mapping(location, "region", "snippet"), "text")
        if not secret.strip():
            continue
        found = True
        path = fields.text(fields.mapping(location, "artifactLocation"), "uri")
        line = fields.number(fields.mapping(location, "region"), "startLine")
        hit = _hit(
            secret,
            rule=fields.text(told, "ruleId"),
            place=fields.place(path, line, fields.text(prints, "commitSha")),
            date=prints,
            date_name="date",
        )
        hit.at = at
        yield hit
    if not found:
        yield Skip("without a secret that is text", at)


def _hit(secret: str, *, rule: str, place: str, date: Mapping[str, object], date_name: str) -> Hit:
    redacted = secret in ("REDACTED", "REDACT") or secret.endswith("...")
    return Hit(
        source="gitleaks",
        whole="" if redacted else secret,
        redacted=secret if redacted else "",
        rule=rule,
        place=place,
        since=fields.moment(date, date_name),
    )
