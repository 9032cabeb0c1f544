"""What a policy of Vault or OpenBao grants on a path, read from its text (HCL or JSON).

Facts from Vault's documentation, "Policies" (2026): `+` stands for one segment of a path, `*` at the end for any
rest; of several patterns that match, the most specific alone counts; `deny` wins within one; `policy` is the old
form of `capabilities`. What a template inserts is not known here, so that it stands for any one part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

Rules = tuple[tuple[str, frozenset[str]], ...]
"""Pattern and capabilities of each path."""

_OLD: Final = {
    "deny": {"deny"},
    "read": {"read", "list"},
    "write": {"create", "read", "update", "delete", "list"},
    "sudo": {"create", "read", "update", "delete", "list", "sudo"},
}
_TOKEN: Final = re.compile(
    r'(?P<skip>\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<word>[\w.-]+)|(?P<mark>.)', re.DOTALL
)
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}")


def rules(text: str) -> Rules:
    """The paths of a policy. What is no policy has none."""
    try:
        given = json.loads(text)
    except ValueError:
        return tuple(_of_hcl(text))
    return tuple(_of_json(given))


def grants(policy: Rules, path: str, capability: str) -> bool:
    """Whether a policy alone lets do this on a path, such as `secret/data/prod/a`."""
    matching = [(pattern, allowed) for pattern, allowed in policy if _matches(pattern, path)]
    if not matching:
        return False
    best = max(_rank(pattern) for pattern, _ in matching)
    held = frozenset[str]().union(*(allowed for pattern, allowed in matching if _rank(pattern) == best))
    return "deny" not in held and bool(held & {capability, "root"})


def _matches(pattern: str, path: str) -> bool:
    whole = pattern.removesuffix("*")
    # A template's place stands for one part, as + does for a segment.
    parts = (re.escape(part) for part in re.split(r"\+|\{\{.*?\}\}", whole))
    return re.fullmatch("[^/]+".join(parts) + (".*" if whole != pattern else ""), path) is not None


def _rank(pattern: str) -> tuple[int, bool, int, int, str]:
    """Greater is more specific, as the documentation orders two patterns."""
    plain = _TEMPLATE.sub("+", pattern)
    wild = min((at for at in (plain.find("+"), plain.find("*")) if at >= 0), default=len(plain) + 1)
    return wild, not plain.endswith("*"), -plain.count("+"), len(plain), plain


def _of_json(given: Any) -> Iterator[tuple[str, frozenset[str]]]:
    paths = given.get("path") if isinstance(given, dict) else None
    for part in paths if isinstance(paths, list) else [paths]:
        for pattern, about in part.items() if isinstance(part, dict) else ():
            if isinstance(about, dict):
                old = _OLD.get(str(about.get("policy")), set())
                yield pattern.lstrip("/"), frozenset(map(str, about.get("capabilities") or ())) | old


def _of_hcl(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup != "skip"]
    at = 0
    while at + 2 < len(tokens):
        word, pattern, brace = (token[0] for token in tokens[at : at + 3])
        if word.strip('"') != "path" or tokens[at + 1].lastgroup != "text" or brace != "{":
            at += 1
            continue
        at, depth, key, held = at + 3, 1, "", set[str]()
        while at < len(tokens) and depth:
            said = tokens[at][0]
            depth += (said == "{") - (said == "}")
            if depth == 1 and at + 1 < len(tokens) and tokens[at + 1][0] == "=":
                key = said.strip('"')
            elif depth == 1 and tokens[at].lastgroup == "text":
                name = said.strip('"')
                held |= {name} if key == "capabilities" else _OLD.get(name, set()) if key == "policy" else set()
            at += 1
        yield pattern.strip('"').lstrip("/"), frozenset(held)
