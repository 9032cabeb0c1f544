"""Where logins are looked up: variables, and files in their place."""

from pathlib import Path

import pytest

from rotation.declared import ConfigError
from rotation.environ import FOLDER, Environ


def test_a_file_stands_for_a_variable_that_is_not_set(tmp_path: Path) -> None:
    """Without the line break that editors put there; a variable that is set goes first."""
    (tmp_path / "OPENAI_ADMIN_KEY").write_text("from a file\n")
    (tmp_path / "VAULT_TOKEN").write_text("from a file")
    found = Environ({FOLDER: str(tmp_path), "VAULT_TOKEN": "from the variable"})
    assert found["OPENAI_ADMIN_KEY"] == "from a file"
    assert found["VAULT_TOKEN"] == "from the variable"
    assert found.get("ABSENT") is None
    assert "OPENAI_ADMIN_KEY" in found


def test_a_file_that_was_renewed_is_read_again(tmp_path: Path) -> None:
    """Mounted secrets change under a running process."""
    file = tmp_path / "OPENAI_ADMIN_KEY"
    file.write_text("first")
    found = Environ({FOLDER: str(tmp_path)})
    assert found["OPENAI_ADMIN_KEY"] == "first"
    file.write_text("second")
    assert found["OPENAI_ADMIN_KEY"] == "second"


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    """A name is a variable's, never a path. Without the folder there are variables alone."""
    (tmp_path / "secret").write_text("not for us")
    (tmp_path / "inner").mkdir()
    found = Environ({FOLDER: str(tmp_path / "inner")})
    assert found.get("../secret") is None
    assert Environ({}).get("OPENAI_ADMIN_KEY") is None
    assert dict(Environ({"A": "1"})) == {"A": "1"}


def test_a_file_that_can_not_be_read_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """Named with its path, and not taken for one that is absent."""
    (tmp_path / "OPENAI_ADMIN_KEY").write_bytes(b"\xff\xfe\x00sk-canary")
    (tmp_path / "VAULT_TOKEN").mkdir()
    found = Environ({FOLDER: str(tmp_path)})
    for name in ("OPENAI_ADMIN_KEY", "VAULT_TOKEN"):
        with pytest.raises(ConfigError, match=f"{name} can not be read") as raised:
            found[name]
        assert "canary" not in str(raised.value)
