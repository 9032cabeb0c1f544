"""Policies and roles for Vault and OpenBao: what a persona needs, in HCL, and where it may log in from.

Facts from Vault's documentation, "Policies", "KV secrets engine version 2" and "AppRole" (2026), and from OpenBao 2.7.2:
the most specific path alone counts; `+` stands for one segment; parameters of a request can be limited by name, so that
metadata can be written without the settings that make versions end, and a read can be kept from naming an older version.
Custom metadata comes with every read of a value, and can not be kept from a consumer: the journal and the policy are
there, ids and times, never a value. No path can be bound to an address: tokens can, and what gives them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from providers.stores.vault import EACH, FOLDER, PATHS
from rotation.access import Access, Grant
from rotation.config import VaultConfig

Parameters = Mapping[str, tuple[object, ...]]

_ORDER: Final = ("create", "read", "update", "patch", "delete", "list")
_SELF: Final = {"auth/token/lookup-self": "read", "auth/token/renew-self": "update"}
"""What every login of ours does with its own token."""
_ALLOWED: Final[Mapping[str, Parameters]] = {
    "metadata": {"custom_metadata": (), "cas_required": (False,)},
    "data": {"data": ({},), "options": ()},
    "delete": {"versions": ()},
    "undelete": {"versions": ()},
}
"""By kind of path: the parameters that may be written, and their values where not any."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One path of a policy."""

    path: str
    capabilities: tuple[str, ...]
    allowed: Parameters = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    """Names of parameters."""

    def hcl(self) -> str:
        lines = [f"capabilities = [{', '.join(map(_quoted, self.capabilities))}]"]
        if self.allowed:
            lines.append(f"allowed_parameters = {_parameters(self.allowed)}")
        if self.denied:
            lines.append(f"denied_parameters = {_parameters(dict.fromkeys(self.denied, ()))}")
        return f"path {_quoted(self.path)} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def hcl(rules: Iterable[Rule]) -> str:
    return "\n".join(rule.hcl() for rule in rules)


def rules(store: VaultConfig, access: Access, *, ours: bool) -> list[Rule]:
    """The paths of a policy.

    Parameters:
        ours: for Keyturn itself, which looks at its own token and renews it. A consumer has its own way of that.
    """
    found: dict[str, set[str]] = {}
    for grant in access.grants:
        for operation in grant.operations:
            for kind, part, capability in PATHS.get(operation, ()):
                found.setdefault(_path(store, kind, grant.entry + part), set()).add(capability)
    everywhere: dict[str, set[str]] = {}
    for kind, part, capability in PATHS["listing"] if access.lists else ():
        place = {FOLDER: "", EACH: "+"}[part]
        everywhere.setdefault(_path(store, kind, f"{access.environment}/{place}"), set()).add(capability)
    for path in [path for path in found if found[path] <= everywhere.get(f"{path.rpartition('/')[0]}/+", set())]:
        del found[path]  # the rule for each entry of the folder says it already
    consumed = {_path(store, "data", grant.entry) for grant in access.grants if grant.operations == {"current"}}
    made = [
        _rule(path, capabilities, current_only=path in consumed)
        for path, capabilities in sorted((everywhere | found).items())
    ]
    own = [Rule(path, (capability,)) for path, capability in _SELF.items() if ours and (made or access.lists)]
    return made + (own if store.auth.method != "token" else own[:1])


def bounds(grants: Iterable[Grant]) -> dict[tuple[str, ...], list[Grant]]:
    """The grants by the networks that their values may be read from; () for any."""
    found: dict[tuple[str, ...], list[Grant]] = {}
    for grant in grants:
        found.setdefault(grant.cidrs, []).append(grant)
    return found


def role(policy: str, cidrs: tuple[str, ...]) -> dict[str, object]:
    """An AppRole that gives tokens with one policy, to clients in these networks, and usable from there only."""
    return {"token_policies": [policy], "token_bound_cidrs": list(cidrs), "secret_id_bound_cidrs": list(cidrs)}


def _path(store: VaultConfig, kind: str, path: str) -> str:
    prefix = f"{store.prefix.strip('/')}/" if store.prefix else ""
    return f"{store.mount.strip('/')}/{kind}/{prefix}{path}"


def _rule(path: str, capabilities: set[str], *, current_only: bool) -> Rule:
    ordered = tuple(capability for capability in _ORDER if capability in capabilities)
    writes = capabilities & {"create", "update", "patch"}
    kind = next((kind for kind in _ALLOWED if f"/{kind}/" in path and (kind != "data" or writes == {"patch"})), "")
    allowed = dict(_ALLOWED[kind]) if kind and writes else {}
    if kind == "metadata" and "create" not in capabilities:
        allowed.pop("cas_required", None)
    return Rule(path, ordered, allowed, ("version",) if current_only else ())


def _parameters(parameters: Parameters) -> str:
    inner = ", ".join(f"{_quoted(name)} = [{', '.join(map(_value, values))}]" for name, values in parameters.items())
    return f"{{ {inner} }}"


def _value(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
