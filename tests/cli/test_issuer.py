"""`keyturn issuer`: looking at vendors, checking a description, and trying one without leaving anything behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.issuers.abilities import markdown
from providers.issuers.reading import shipped, shipped_kinds
from providers.issuers.samples import Sample, shipped_samples
from rotation.cli.main import run
from sandbox.vendor import Fault, Vendor
from tests.cli.project import REPOSITORY, Project
from tests.issuers.scripted import Asked, Reply, Scripted
from tests.world import FakeClock

FOLDER = REPOSITORY / "providers" / "issuers" / "descriptions"
DOCS = REPOSITORY / "docs" / "issuers.md"


def keyturn(capsys: pytest.CaptureFixture[str], *arguments: str, clock: FakeClock | None = None) -> tuple[int, str]:
    """The command in this process: exit code, and what it printed."""
    with pytest.raises(SystemExit) as ended:
        run(arguments, clock=clock or FakeClock())
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


@contextmanager
def pipe(text: str) -> Iterator[str]:
    """The number of a descriptor that gives this text; whoever reads it closes it."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    yield str(reading)


@pytest.fixture
def vendor_file(tmp_path: Path) -> Path:
    """A description of the user's own, with its samples beside it."""
    (tmp_path / "own.yaml").write_text((FOLDER / "openrouter.yaml").read_text())
    (tmp_path / "own.samples.yaml").write_text((FOLDER / "samples" / "openrouter.yaml").read_text())
    return tmp_path / "own.yaml"


@pytest.fixture
def vendor() -> Iterator[tuple[Vendor, FakeClock]]:
    clock = FakeClock()
    with Vendor(shipped("openrouter"), shipped_samples("openrouter"), now=clock.now) as vendor:
        yield vendor, clock


def tried(
    capsys: pytest.CaptureFixture[str], file: Path, vendor: tuple[Vendor, FakeClock], *options: str
) -> tuple[int, str]:
    with pipe(vendor[0].admin) as descriptor:
        at = f"baseUrl={vendor[0].variables['baseUrl']}"
        return keyturn(
            capsys, "issuer", "try", str(file), "--var", at, "--admin-fd", descriptor, *options, clock=vendor[1]
        )


class TestLooking:
    def test_the_list_has_every_vendor(self, capsys: pytest.CaptureFixture[str]) -> None:
        """For people and for scripts."""
        code, shown = keyturn(capsys, "issuer", "list")
        assert code == 0
        assert all(kind in shown for kind in shipped_kinds())
        code, shown = keyturn(capsys, "issuer", "list", "--json")
        assert {row["kind"]: row["model"] for row in json.loads(shown)}["azure-storage"] == "2 slots"

    def test_one_is_shown_with_what_is_not_certain(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And with what its configuration must say."""
        code, shown = keyturn(capsys, "issuer", "show", "sendgrid")
        assert code == 0
        for text in ("scopesOf", "Not certain", *shipped("sendgrid").unverified, *shipped("sendgrid").sources):
            assert text in shown
        code, shown = keyturn(capsys, "issuer", "show", "sendgrid", "--json")
        assert json.loads(shown)["variables"]["scopes"]["type"] == "list"

    def test_there_is_no_such_vendor(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It says which there are."""
        code, shown = keyturn(capsys, "issuer", "show", "acme")
        assert (code, "openrouter" in shown) == (2, True)


class TestChecking:
    def test_a_sound_one(self, capsys: pytest.CaptureFixture[str], vendor_file: Path) -> None:
        """With its samples; without them it says so."""
        assert keyturn(capsys, "issuer", "check", str(vendor_file)) == (
            0,
            "own.yaml is sound, and reads own.samples.yaml.\n",
        )
        vendor_file.with_name("own.samples.yaml").unlink()
        assert keyturn(capsys, "issuer", "check", str(vendor_file)) == (
            0,
            "own.yaml is sound, there is no own.samples.yaml to read.\n",
        )

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda d: d["mint"][0]["request"].update(path="/{projct}"), "own.yaml: mint[0].request.path: {projct} can not be inserted here"),
            (lambda d: d["mint"][0]["fields"].update(value="kee"), "own.samples.yaml: mint[0].fields.value: finds nothing in the sample mint[0]"),
            (lambda d: d["mint"][0]["key_id"].update(key="hash"), "own.samples.yaml: mint[0].key_id.key: finds nothing in the sample mint[0]"),
            (lambda d: d["mint"][0].update(ok=200), "own.samples.yaml: mint[0].ok: does not have the sample's status 201"),
            (lambda d: d["mint"][0]["created_at"].update(format="unix"), "own.samples.yaml: mint[0].created_at.path: finds no time of the form unix"),
            (lambda d: d["list"].update(items="keys"), "own.samples.yaml: list.items: finds nothing in the sample list"),
            (lambda d: d["list"]["each"][0].update(name="title"), "own.samples.yaml: list.each[0]: reads no item of the sample list"),
            (lambda d: d["list"]["each"][0].update(redacted="hint"), "own.samples.yaml: list.each[0].redacted: finds nothing"),
            (lambda d: d["list"].update(live="disabled"), "own.samples.yaml: list.live: does not hold"),
            (lambda d: d["verify"]["rules"][0].update(when="object"), "own.samples.yaml: verify.rules: make unknown of the sample accepted, not valid"),
            (lambda d: d["verify"]["rules"][1].update(when="code"), "own.samples.yaml: verify.rules: make unknown of the sample refused, not invalid"),
            (lambda d: d["last_use"]["at"].update(path="used"), "own.samples.yaml: last_use.at.path: finds no time"),
        ],
    )  # fmt: skip
    def test_each_fault_has_its_place(
        self, capsys: pytest.CaptureFixture[str], vendor_file: Path, change: Callable[[Any], object], told: str
    ) -> None:
        """In the description, or where it does not fit its samples; exit code 2."""
        given = yaml.safe_load(vendor_file.read_text())
        change(given)
        vendor_file.write_text(yaml.safe_dump(given))
        code, shown = keyturn(capsys, "issuer", "check", str(vendor_file))
        assert code == 2
        assert told in shown
        code, shown = keyturn(capsys, "issuer", "check", str(vendor_file), "--json")
        assert (code, any(fault.startswith(told) for fault in json.loads(shown)["faults"])) == (2, True)

    def test_there_is_no_such_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It says so in a sentence."""
        assert keyturn(capsys, "issuer", "check", "/nowhere/own.yaml") == (
            2,
            "/nowhere/own.yaml: No such file or directory\n",
        )


class TestTrying:
    def test_a_key_lives_and_dies(
        self, capsys: pytest.CaptureFixture[str], vendor_file: Path, vendor: tuple[Vendor, FakeClock]
    ) -> None:
        """Every step is shown; nothing is left at the vendor, and no value on the screen."""
        code, shown = tried(capsys, vendor_file, vendor)
        steps = re.findall(r"^✓ +[\d.]+ s  ([a-z ]+):", shown, re.MULTILINE)
        assert steps == ["list", "mint", "verify", "list the key", "last use", "disable", "enable", "revoke", "prove"]
        assert (code, vendor[0].live(), len(vendor[0].keys)) == (0, [], 1)
        assert not [value for key in vendor[0].keys for value in key.values.values() if value in shown]
        assert vendor[0].admin not in shown

    def test_against_a_stand_in_of_the_file(self, capsys: pytest.CaptureFixture[str], vendor_file: Path) -> None:
        """Nothing but the two files is needed."""
        code, shown = keyturn(capsys, "issuer", "try", str(vendor_file), "--stand-in", "--json", clock=FakeClock())
        told = json.loads(shown)
        assert (code, told["alive"], {step["good"] for step in told["steps"]}) == (0, None, {True})

    @pytest.mark.parametrize(
        ("operation", "fault"),
        [
            ("mint", Fault(after=True)),
            ("verify", Fault(Sample(status=401, body={"error": {"code": 401}}))),
            ("keys", Fault(Sample(status=500))),
            ("last_use", Fault(Sample(status=500))),
            ("disable", Fault(Sample(status=403))),
        ],
    )
    def test_whatever_fails_nothing_is_left(
        self,
        capsys: pytest.CaptureFixture[str],
        vendor_file: Path,
        vendor: tuple[Vendor, FakeClock],
        operation: str,
        fault: Fault,
    ) -> None:
        """The failing step is shown, what was made is found and revoked, and the exit code says that something failed."""
        times = 200 if operation == "verify" else 1
        vendor[0].faults[operation] = [fault] * times
        code, shown = tried(capsys, vendor_file, vendor)
        assert "✗" in shown
        assert vendor[0].live() == []
        assert code == 1

    def test_a_key_that_may_be_alive(
        self, capsys: pytest.CaptureFixture[str], vendor_file: Path, vendor: tuple[Vendor, FakeClock]
    ) -> None:
        """It is named, and the exit code is 3."""
        vendor[0].faults["revoke"] = [Fault(Sample(status=500))] * 5
        code, shown = tried(capsys, vendor_file, vendor)
        (key,) = vendor[0].live()
        assert code == 3
        assert f"Still alive, for all that is known: the key {key.parts['key']}, called {key.name}" in shown

    def test_a_mint_that_is_refused_leaves_nothing_to_look_for(
        self, capsys: pytest.CaptureFixture[str], vendor_file: Path, vendor: tuple[Vendor, FakeClock]
    ) -> None:
        """The vendor's word is passed on."""
        vendor[0].faults["mint"] = [Fault(Sample(status=403))]
        code, shown = tried(capsys, vendor_file, vendor)
        assert (code, vendor[0].keys) == (1, [])
        assert "may not do this (HTTP 403)" in shown

    def test_ctrl_c_cleans_up_first(self, vendor_file: Path) -> None:
        """As a process, in the middle of a verification that would take minutes."""
        with Vendor(shipped("openrouter"), shipped_samples("openrouter")) as vendor:
            never = Fault(Sample(status=503))
            vendor.faults["verify"] = [never] * 1000
            reading, writing = os.pipe()
            os.write(writing, vendor.admin.encode())
            os.close(writing)
            at = f"baseUrl={vendor.variables['baseUrl']}"
            # Whoever runs the tests in the background of a shell has the signal ignored, and children inherit that.
            heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
            code = f"{heard}; from rotation.cli.main import run; run()"
            arguments = ["issuer", "try", str(vendor_file), "--var", at, "--admin-fd", str(reading)]
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
                pass_fds=[reading],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            os.close(reading)
            assert process.stdout
            for line in process.stdout:
                if "mint:" in line:
                    break
            vendor.faults["verify"].clear()
            vendor.faults["verify"] += [never] * 2
            process.send_signal(signal.SIGINT)
            shown, _ = process.communicate(timeout=60)
            assert process.returncode == 1, shown
            assert "Interrupted" in shown
            assert (len(vendor.keys), vendor.live()) == (1, [])

    def test_slots_are_made_anew_only_when_told(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Whatever a slot holds is destroyed by it."""
        for name, source in (
            ("own", FOLDER / "azure-openai.yaml"),
            ("own.samples", FOLDER / "samples" / "azure-openai.yaml"),
        ):
            (tmp_path / f"{name}.yaml").write_text(source.read_text())
        file = str(tmp_path / "own.yaml")
        code, shown = keyturn(capsys, "issuer", "try", file, "--stand-in")
        assert (code, "--slot: slots are Key1, Key2" in shown) == (2, True)
        code, shown = keyturn(capsys, "issuer", "try", file, "--stand-in", "--slot", "Key2")
        assert (code, "Nothing is left" in shown) == (0, True)

    def test_a_key_that_a_person_made(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """It is verified beside one that is wrong, and left alone."""
        for name, source in (("own", FOLDER / "groq.yaml"), ("own.samples", FOLDER / "samples" / "groq.yaml")):
            (tmp_path / f"{name}.yaml").write_text(source.read_text())
        with Vendor(shipped("groq"), shipped_samples("groq")) as vendor:
            key = vendor.create("made by a person")
            at = f"baseUrl={vendor.variables['baseUrl']}"
            with pipe(key.values["value"]) as descriptor:
                code, shown = keyturn(
                    capsys, "issuer", "try", str(tmp_path / "own.yaml"), "--var", at, "--value-fd", descriptor
                )
            assert (code, vendor.live()) == (0, [key])
            assert "verify another: invalid" in shown

    @pytest.mark.parametrize(
        "options", [["--var", "creditLimit=x"], ["--var", "creditLimit"], ["--var", "unknown=1"], ["--slot", "Key1"]]
    )
    def test_what_can_not_be_used_is_said_first(
        self,
        capsys: pytest.CaptureFixture[str],
        vendor_file: Path,
        vendor: tuple[Vendor, FakeClock],
        options: list[str],
    ) -> None:
        """Exit code 2, and nothing was minted."""
        code, _ = tried(capsys, vendor_file, vendor, *options)
        assert (code, vendor[0].minted) == (2, 0)


class TestAnIssuerOfTheStack:
    def test_it_is_tried_as_the_stack_configures_it(self, project: Project) -> None:
        """With the stack's admin credential; that it was tried is in the audit trail."""
        before = {key["id"] for key in project.services.openai.control.issued()}
        ran = project.run("issuer", "try", "openai", "--json")
        assert ran.code == 0, ran.text
        assert [step["name"] for step in ran.json["steps"]][-2:] == ["revoke", "prove"]
        made = [key for key in project.services.openai.control.issued() if key["id"] not in before]
        assert [key["deleted_at"] is None for key in made] == [False]
        assert "issuer.tried" in project.run("audit", "show", "--json").text

    def test_what_is_not_declared_or_can_not_be_tried(self, project: Project) -> None:
        """It says which there are; values that nobody registers are nothing to try."""
        ran = project.run("issuer", "try", "acme")
        assert (ran.code, "declared are: openai, generated" in ran.err) == (2, True)
        ran = project.run("issuer", "try", "generated")
        assert (ran.code, "nothing to try" in ran.err) == (2, True)
        ran = project.run("issuer", "try", "openai", "--var", "project=x")
        assert (ran.code, "are for a FILE" in ran.err) == (2, True)


class Grafana:
    """Grafana's service account tokens, after its documentation and not after the description in docs/issuers.md."""

    def __init__(self, admin: str, clock: FakeClock) -> None:
        self.admin, self.clock = admin, clock
        self.tokens: dict[int, dict[str, Any]] = {}
        self.made = 0
        self.lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        with self.lock:
            return self.answer(asked)

    def answer(self, asked: Asked) -> Reply:
        shown = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if asked.path == "/api/org":
            token = next((t for t in self.tokens.values() if t["key"] == shown), None)
            if token is None:
                return 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401}
            token["lastUsedAt"] = self.clock.now().isoformat()
            return 200, {"id": 1, "name": "Main Org.", "address": {}}
        if shown != self.admin:
            return 401, {"message": "Unauthorized"}
        if asked.path == "/api/serviceaccounts/7/tokens" and asked.method == "POST":
            self.made += 1
            name, key = asked.json["name"], f"glsa_{self.made:032d}_{self.made:08x}"
            created = self.clock.now().isoformat()
            self.tokens[self.made] = {"name": name, "key": key, "created": created, "lastUsedAt": None}
            return 200, {"id": self.made, "name": name, "key": key}
        if asked.path == "/api/serviceaccounts/7/tokens":
            listed = [{"id": i, **{k: v for k, v in t.items() if k != "key"}} for i, t in self.tokens.items()]
            return 200, [{**t, "expiration": None, "hasExpired": False, "isRevoked": False} for t in listed]
        if (found := re.fullmatch(r"/api/serviceaccounts/7/tokens/(\d+)", asked.path)) and asked.method == "DELETE":
            gone = self.tokens.pop(int(found[1]), None) is None
            return (404, {"message": "not found"}) if gone else (200, {"message": "Service account token deleted"})
        return 404, {"message": "Not found"}


class TestTheGuide:
    def example(self, folder: Path) -> Path:
        """The files of docs/issuers.md, word for word."""
        blocks = re.findall(r"```yaml\n# issuers/(\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL)
        assert [name for name, _ in blocks] == ["grafana.yaml", "grafana.samples.yaml"]
        for name, text in blocks:
            (folder / name).write_text(text)
        return folder / "grafana.yaml"

    def test_its_example_holds(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Checked, tried against a stand-in of its own files, and against one that knows only the vendor's documentation."""
        file = self.example(tmp_path)
        assert "grafana" not in shipped_kinds()
        assert keyturn(capsys, "issuer", "check", str(file)) == (
            0,
            "grafana.yaml is sound, and reads grafana.samples.yaml.\n",
        )
        assert keyturn(capsys, "issuer", "try", str(file), "--stand-in")[0] == 0
        clock = FakeClock()
        grafana = Grafana("glsa_an-admin-token", clock)
        with Scripted(grafana) as server, pipe(grafana.admin) as descriptor:
            variables = ["--var", "serviceAccount=7", "--var", f"baseUrl={server.url}/api"]
            code, shown = keyturn(capsys, "issuer", "try", str(file), *variables, "--admin-fd", descriptor, clock=clock)
        assert code == 0, shown
        assert (grafana.made, grafana.tokens) == (1, {})

    def test_its_table_is_that_of_the_files(self) -> None:
        """Generated: put the right one between the marks when this fails."""
        found = re.search(r"<!-- generated: vendors -->\n(.*?)\n<!-- end -->", DOCS.read_text(), re.DOTALL)
        assert found
        assert found[1] == markdown()

    def test_it_names_every_field(self) -> None:
        """Of a description, in its table."""
        text = DOCS.read_text()
        fields = {field.alias or name for name, field in type(shipped("openai")).model_fields.items()}
        assert not [field for field in fields if f"`{field}`" not in text]
