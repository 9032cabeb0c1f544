"""What Keyturn pulls in: pinned with digests, without known vulnerabilities, under licences on the list, and listed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tools import audit, licences, pins, sbom

TODAY = date(2026, 11, 22)


# --- vulnerabilities -----------------------------------------------------------------------------


class Flaws(ThreadingHTTPServer):
    """A stand-in of an OSV service (https://google.github.io/osv.dev/post-v1-query/), which knows what it is told."""

    def __init__(self) -> None:
        self.known: dict[str, list[dict[str, Any]]] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = cast("Flaws", self.server).known.get(query["package"]["name"])
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def flaws() -> Iterator[Flaws]:
    with Flaws() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def flaw(package: str) -> dict[str, Any]:
    """Advisory of a version before 9.0.0, in OSV's words."""
    fixed = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.0.0"}]}]
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": fixed, "versions": ["1.1.0"]}
    told = {"id": "GHSA-aaaa-bbbb-cccc", "aliases": ["CVE-2026-0001"], "summary": "it does what it should not"}
    return {**told, "published": "2026-11-01T00:00:00Z", "modified": "2026-11-01T00:00:00Z", "affected": [affected]}


@pytest.fixture
def audited(tmp_path: Path, flaws: Flaws, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The real pip-audit over two packages, by a service of our own."""
    requirements, ignored = tmp_path / "requirements.txt", tmp_path / "ignored.toml"
    requirements.write_text("hvac==2.4.0\njmespath==1.1.0\n")

    def run(ignores: str = "", url: str | None = None) -> tuple[int, str]:
        ignored.write_text(ignores)
        given = ["--requirements", str(requirements), "--ignored", str(ignored), "--osv", url or flaws.url]
        code = audit.main(given)
        return code, "".join(capsys.readouterr())

    return run


def test_a_known_vulnerability_fails_until_it_is_reviewed(
    audited: Callable[..., tuple[int, str]], flaws: Flaws
) -> None:
    """Named with what fixes it; one that was looked at passes, by any of its names, with a reason and a date."""
    assert audited() == (0, "vulnerabilities: none known in 2 packages\n")
    flaws.known["jmespath"] = [flaw("jmespath")]
    code, told = audited()
    assert code == 1
    assert "✗ jmespath 1.1.0: CVE-2026-0001, GHSA-aaaa-bbbb-cccc; fixed in 9.0.0" in told
    today = date.today()  # noqa: DTZ011 - as a person writes it down
    entry = f'[[ignored]]\nid = "CVE-2026-0001"\npackage = "jmespath"\nreason = "not reached"\nreviewed = {today}\n'
    assert audited(entry)[0] == 0
    assert audited(entry.replace("jmespath", "hvac"))[0] == 1
    assert audited(entry.replace(str(today), str(today - timedelta(days=120))))[0] == 1
    code, told = audited(entry.replace('reason = "not reached"\n', ""))
    assert (code, "needs id, package, reason, and the date" in told) == (2, True)


def test_where_no_service_answers_that_is_said(audited: Callable[..., tuple[int, str]]) -> None:
    """No failure, and no word that all is well."""
    code, told = audited(url="http://127.0.0.1:1/")
    assert code == 0
    assert told.startswith("vulnerabilities: not checked: ")
    assert "ConnectionError" in told


def test_what_a_service_does_not_know_is_not_counted_as_checked() -> None:
    """The package index of a company may mirror packages and no advisories."""
    skipped = {"name": "hvac", "skip_reason": "Dependency not found on PyPI and could not be audited: hvac (2.4.0)"}
    clean = {"name": "rich", "version": "15.0.0", "vulns": []}
    judged = audit.judge({"dependencies": [skipped, clean]}, [audit.Ignored("CVE-1", "hvac", "why", TODAY)], TODAY)
    assert judged == audit.Judged((), ("hvac",), 1, ("CVE-1",))


def test_the_file_of_what_is_ignored_is_sound() -> None:
    """The one that counts."""
    assert all(entry.reviewed <= date.today() for entry in audit.ignored(audit.IGNORED))  # noqa: DTZ011 - as above


# --- licences --------------------------------------------------------------------------------------


def test_every_licence_is_allowed() -> None:
    """Of what is installed here, by its own metadata."""
    packages = [pin for pin in pins.read(pins.RUNTIME) if pin.here]
    assert packages
    assert licences.faults(packages, licences.rules()) == []


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("mit", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("MIT AND (GPL-2.0-only OR BSD-3-Clause)", True),
        ("(MIT OR GPL-2.0-only) AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("GPL-3.0-or-later", False),
    ],
)
def test_expressions_are_understood(expression: str, fine: bool) -> None:
    """`OR` leaves a choice, `AND` none; what is not understood is not allowed."""
    assert licences.allows(expression, licences.rules().allowed) is fine


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "AND MIT"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    """Rather than taken for allowed."""
    with pytest.raises(ValueError, match="no licence expression"):
        licences.allows(expression, {"MIT"})


def test_a_licence_that_is_not_on_the_list_fails() -> None:
    """With the package's name; a review holds for the licence that was reviewed, not for a later one."""

    def about(**fields: str) -> Callable[[str], Any]:
        message = Message()
        for name, text in fields.items():
            message[name.replace("_", "-")] = text
        return lambda _: message

    pin, rules = pins.Pin(canonicalize_name("psycopg"), "4.0", None, ()), licences.rules()
    assert licences.faults([pin], rules, about(License_Expression="LGPL-3.0-only")) == []
    assert "psycopg 4.0: AGPL-3.0-only" in licences.faults([pin], rules, about(License_Expression="AGPL-3.0-only"))[0]
    assert "tells no licence" in licences.faults([pin], rules, about())[0]
    both = about(License="BSD License", Classifier="License :: OSI Approved :: GNU General Public License v3 (GPLv3)")
    assert licences.faults([pin], rules, about(Classifier="License :: OSI Approved :: MIT License")) == []
    assert licences.faults([pin], rules, both) == []  # the package's own word before its classifiers
    absent = pins.Pin(canonicalize_name("keyturn-of-nobody"), "1", None, ())
    assert "is not installed" in licences.faults([absent], rules)[0]


# --- bill of materials -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sbom") / "keyturn.cdx.json"
    sbom.write(path)
    return path


def test_the_bill_of_materials_keeps_to_its_schema(bill: Path) -> None:
    """CycloneDX's own; which finds a document that does not."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = bill.read_text()
    assert validator.validate_str(text) is None
    broken = json.loads(text)
    broken["components"][0]["type"] = "sorcery"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_the_bill_of_materials_lists_what_is_installed(bill: Path) -> None:
    """Every pinned package of this platform, with its version and licence; Keyturn at the top, by its own version."""
    told = json.loads(bill.read_text())
    top, version = told["metadata"]["component"], metadata.version("keyturn")
    assert (top["name"], top["version"], top["type"]) == ("keyturn", version, "application")
    listed = {canonicalize_name(one["name"]): one for one in told["components"]}
    wanted = {pin.name: pin.version for pin in pins.read(pins.RUNTIME) if pin.here}
    assert {name: one["version"] for name, one in listed.items()} == wanted
    bare = {name for name, one in listed.items() if not one.get("licenses")}
    assert bare <= {"protobuf"}  # whose own word for its licence is none that CycloneDX knows
    needs = {one["ref"]: one.get("dependsOn", []) for one in told["dependencies"]}
    assert any(ref.startswith("hvac") for ref in needs[top["bom-ref"]])
