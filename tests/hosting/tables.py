"""The tables of settings in docs/hosting.md, from the programs: `python -m tests.hosting.tables` writes them anew."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.hosting.packages import PROGRAMS, ROOT

PAGE: Final = ROOT / "docs" / "hosting.md"
_MARKED: Final = "<!-- settings of {name} -->\n\n{table}\n<!-- end -->"


def models(program: Path) -> list[type[BaseModel]]:
    """A program's settings, and parts of them."""
    spec = importlib.util.spec_from_file_location(f"settings_of_{program.name}", program / "settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks annotations up there
    spec.loader.exec_module(module)
    return [module.Settings, *([module.Network] if hasattr(module, "Network") else [])]


def table(program: Path) -> str:
    """A row for each field: name, default, what it is."""
    rows = [
        row for model in models(program) for row in _rows(model, "" if model.__name__ == "Settings" else "network.")
    ]
    return "| setting | when not given | |\n|---|---|---|\n" + "".join(f"{row}\n" for row in rows)


def _rows(model: type[BaseModel], start: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"| `{start}{field.alias or name}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*must be given*"
    match field.default:
        case None | [] | {}:
            return ""
        case bool():
            return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


def written(page: str) -> str:
    """The page with all tables as they should be."""
    for program in PROGRAMS:
        found = re.compile(rf"<!-- settings of {program.name} -->.*?<!-- end -->", re.DOTALL)
        assert found.search(page), f"docs/hosting.md has no table of {program.name}"
        page = found.sub(lambda _, p=program: _MARKED.format(name=p.name, table=table(p)), page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
