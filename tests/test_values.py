"""Values stay in: a secret value does not print, compare by accident, pickle or format, and logs mask it."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotation import logs
from rotation.audit import FileAuditor, StreamAuditor
from rotation.errors import Trouble
from rotation.model import Credential, SecretValue, Version
from rotation.ports import Record

CANARY = "sk-canary-7f3a9c1e"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%s".__mod__, "%r".__mod__])
def test_a_value_does_not_print(show: object) -> None:
    """Not by itself, and not inside what holds it."""
    assert callable(show)
    credential = Credential.of(value=CANARY)
    for holder in (credential.fields["value"], credential, Version("v1", "t", credential=credential)):
        assert CANARY not in show(holder)


def test_a_value_is_not_compared_by_accident() -> None:
    """== between two values is a mistake, said loudly; same_as() is the way."""
    with pytest.raises(TypeError):
        assert SecretValue(CANARY) == CANARY
    assert SecretValue(CANARY).same_as(SecretValue(CANARY))
    assert not SecretValue(CANARY).same_as(SecretValue("other"))


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_value_is_not_pickled_or_copied(leave: object) -> None:
    """Pulumi pickles provider classes, multiprocessing pickles arguments: neither takes a value along."""
    assert callable(leave)
    with pytest.raises(TypeError) as raised:
        leave(SecretValue(CANARY))
    assert CANARY not in str(raised.value)


def test_the_log_masks_every_living_value() -> None:
    """Even one that somebody reveals into a message, an argument or an exception."""
    value = SecretValue(CANARY)
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.start("DEBUG", stream)
        logging.getLogger("x").warning("minted %s", value.reveal())
        try:
            raise ValueError(value.reveal())  # noqa: TRY301 - what a careless line of code would do
        except ValueError:
            logging.getLogger("x").exception("went wrong")
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 2
    assert "ValueError" in lines[1]["exception"]
    assert CANARY not in stream.getvalue()


def test_the_audit_file_is_appended_and_private(tmp_path: Path) -> None:
    """One JSON object a line, mode 0600, earlier lines untouched."""
    path = tmp_path / "trail" / "audit.jsonl"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    FileAuditor(path).write(Record(at, "mint", "prod/a-b", token="t1"))
    FileAuditor(path).write(Record(at, "mint.done", "prod/a-b", token="t1", key_id="key_1"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["mint", "mint.done"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_the_audit_trail_masks_what_a_service_has_repeated(tmp_path: Path, kind: str) -> None:
    """In whatever field it stands, and however JSON would spell it."""
    value = SecretValue('kt-"quoted"-\u00fcber-4711')
    path, stream = tmp_path / "audit.jsonl", io.StringIO()
    auditor = FileAuditor(path) if kind == "file" else StreamAuditor(stream)
    told = f"the vendor said {value.reveal()}"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    auditor.write(Record(at, "mint.failed", "prod/a-b", reason=told, key_id="key_1", detail={"error": told}))
    line = path.read_text() if kind == "file" else stream.getvalue()
    assert "4711" not in line
    masked = "the vendor said [masked]"
    record = json.loads(line)
    assert (record["reason"], record["detail"], record["key_id"]) == (masked, {"error": masked}, "key_1")


def test_an_audit_trail_that_can_not_be_written_is_trouble(tmp_path: Path) -> None:
    """The engine then stops before its next effect."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Trouble):
        FileAuditor(tmp_path / "file" / "audit.jsonl").write(Record(datetime(2026, 1, 1, tzinfo=UTC), "mint", "x"))
