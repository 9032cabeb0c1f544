"""The reference, written from the code: `python -m tools.reference` puts docs/reference anew, `--check` says what is stale.

Commands, fields of a stack file, issuers, what stands in stores, metrics and exit codes are each known in one place of the code. These
pages say what stands there; what a page of this folder needs to say besides is the heading and the few sentences here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer.main

from providers.issuers import abilities
from providers.issuers.reading import shipped, shipped_kinds
from providers.stores import aws, azure, vault
from rotation import journal, policy
from rotation.actions import Cause
from rotation.cli import ending
from rotation.cli.main import app
from rotation.config import NAMESPACE, load, schema
from rotation.observe.board import GAUGES
from rotation.observe.instruments import DAYS, MINUTES, QUICK, SECRET, TOLD, Instrument
from rotation.status import Phase

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
_WRITTEN: Final = "<!-- Written by `python -m tools.reference` from the code. Change it there. -->\n\n"
_TOKEN: Final = "3f0c1a9be2d84b6f9a7c5d1e0b2f4a68"  # noqa: S105 - a rotation token, which is an id
_KEY: Final = "key_8Yb2Qm"


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown; what stands in a cell is Markdown already."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def prose(text: str) -> str:
    """A paragraph on one line, in which nothing is read as HTML, and pages that it names are links."""
    spans = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(span if span.startswith("`") else _linked(re.sub(r"<(?=[\w/])", "&lt;", span)) for span in spans)


def _linked(text: str) -> str:
    return re.sub(r"docs/([a-z-]+\.md)", lambda found: f"[{found[0]}](../{found[1]})", text)


# --- commands --------------------------------------------------------------------------------------


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, groups before what is in them."""
    yield path, node
    for name, below in getattr(node, "commands", {}).items():
        if not below.hidden:
            yield from commands(below, (*path, name))


def _usage(path: tuple[str, ...], node: Any) -> str:
    words = ["keyturn", *path]
    if any(parameter.param_type_name == "option" for parameter in node.params):
        words.append("[OPTIONS]")
    if getattr(node, "commands", None):
        words.append("COMMAND")
    for parameter in node.params:
        if parameter.param_type_name == "argument":
            name = (parameter.metavar or parameter.name).strip("[]{}").removesuffix("...").upper()
            name += "…" if parameter.nargs == -1 else ""
            words.append(name if parameter.required else f"[{name}]")
    return " ".join(words)


def _option(parameter: Any) -> tuple[str, str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" *{(parameter.metavar or parameter.name).upper()}*"
    said = [prose(parameter.help or "")]
    if parameter.multiple:
        said.append("May be given several times.")
    if parameter.envvar:
        said.append(f"Or `{parameter.envvar}`.")
    default = parameter.default
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        said.append(f"`{default}` when not given.")
    return names + value, " ".join(said)


def _help(node: Any) -> Iterator[str]:
    """The paragraphs of a command's help; its example as code."""
    for paragraph in re.split(r"\n\s*\n", node.help or ""):
        if example := re.match(r"\s*Example: (.+)", paragraph, re.DOTALL):
            yield f"Example: `{' '.join(example[1].split())}`"
        elif paragraph.strip():
            yield prose(paragraph)


def cli() -> str:
    """Every command with its arguments, options and example."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        "Every command has `-h`, which says the same. For what each is good for, see the [how-to guides](../how-to.md).",
    ]
    for path, node in commands(root):
        if path:
            parts.append(f"{'#' * (len(path) + 1)} keyturn {' '.join(path)}")
        parts.append(f"`{_usage(path, node)}`")
        parts += _help(node)
        arguments = [p for p in node.params if p.param_type_name == "argument" and p.help]
        if arguments:
            parts.append(
                table(("argument", "what it is"), [(f"`{p.metavar or p.name}`", prose(p.help)) for p in arguments])
            )
        options = [p for p in node.params if p.param_type_name == "option" and not p.hidden]
        if options:
            parts.append(table(("option", "what it does"), [_option(option) for option in options]))
    return "\n\n".join(parts)


# --- configuration ---------------------------------------------------------------------------------


def _allowed(about: Mapping[str, Any]) -> str:
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    if said := about.get("description"):
        return prose(said)
    kinds = {
        "string": "text",
        "integer": "a whole number",
        "boolean": "true or false",
        "object": "a mapping",
        "array": "a list",
    }
    told = kinds.get(str(about.get("type")), "")
    least, most = about.get("minimum"), about.get("maximum")
    return f"{told}, {least} to {most}" if least is not None and most is not None else told


def _default(about: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = about.get("default")
    if value is None or value in ([], {}, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


class _Fields:
    """Walks the schema: a row for each field, by its path in the file."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self._defs = whole["$defs"]

    def named(self, about: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """The section that a part of the schema refers to."""
        if "$ref" in about:
            name = about["$ref"].rpartition("/")[2]
            return name, self._defs[name]
        return None

    def sections(self, about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The sections that may stand there; none where a plain value does."""
        if found := self.named(about):
            return [found[1]] if "properties" in found[1] else self.sections(found[1])
        for word in ("oneOf", "anyOf"):
            if word in about:
                return [section for one in about[word] for section in self.sections(one)]
        if "items" in about:
            return self.sections(about["items"])
        if isinstance(about.get("additionalProperties"), Mapping):
            return self.sections(about["additionalProperties"])
        return []

    def rows(self, section: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
        required = section.get("required", ())
        for name, about in section["properties"].items():
            here = f"{path}.{name}" if path else name
            below = self.sections(about)
            listed = "items" in about or any("items" in one for one in about.get("anyOf", ()))
            yield f"`{here}`", _allowed(about), _default(about, name in required)
            for inner in below:
                yield from self.rows(inner, f"{here}[]" if listed else here)


_PARTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "installation": ("", "", "Whose secrets these are; stands in the names of keys at issuers, so it never changes."),
    "environment": ("", "", "Which environment this stack is. No `-`: names of keys are made of it."),
    "stores": (
        "stores.NAME",
        "kind",
        "Where secrets are kept. A name of your own for each; how to connect one: [stores](../stores.md).",
    ),
    "issuers": (
        "issuers.NAME",
        "kind",
        "Who makes and revokes credentials: [vendors as data](../issuers.md), and [what each can do](issuers.md).",
    ),
    "owners": ("owners.NAME", "", "Who answers for secrets, and [is told](../notifications.md) of them."),
    "channels": ("channels.NAME", "", "Through what owners are told."),
    "notices": ("notices.KIND", "", "Own words for notices."),
    "defaults": ("defaults", "", "What holds for every secret that does not say otherwise."),
    "secrets": ("secrets[]", "", "What is managed."),
    "audit": ("audit[]", "", "Where [the trail](../audit.md) is kept."),
    "fingerprints": (
        "fingerprints",
        "",
        "The key by which a leaked value is known again: `keyturn fingerprints init` makes it.",
    ),
    "webhook": ("webhook", "", "What `keyturn serve` [takes in](../webhook.md)."),
}


_MEANS: Final[Mapping[str, str]] = {
    "name": "with the environment, the name of its entry",
    "store": "its primary store: what is promoted here first counts; the policy and the journal are kept here",
    "replicas": "further stores that must hold the same credential",
    "issuer": "who mints and revokes it",
    "owner": "who answers for it, and is told",
    "consumers": "who reads it; the grace period is held against how soon they refresh, and an emergency's plan names them",
    "consumers[].name": "as people and the store's own rights call it",
    "consumers[].refreshWithin": "how long it may go on using what it has read",
    "consumers[].onRotate": "how it is [made to read](../notifications.md#making-consumers-read)",
    "rotateEvery": "it is never older than this; the same as `schedule: {every: …}`",
    "schedule": "[when](../schedules.md) it rotates, where an interval alone does not say it",
    "schedule.every": "the age at which it should rotate",
    "schedule.latest": "the age that it must not exceed; without it, `every`",
    "schedule.cron": "moments in place of an interval",
    "schedule.timeZone": "of cron, windows and dates",
    "schedule.window": "when a rotation may begin",
    "schedule.blackouts": "when none may begin",
    "schedule.jitter": "how far moments may be spread",
    "schedule.earliest": "the schedule leaves a younger credential alone",
    "schedule.overrides": "what gives way before the secret becomes overdue",
    "grace": "how long the old credential is accepted after every store hands out the new one",
    "drain": "what has to be so before the old one is revoked",
    "drain.quietFor": "for how long its issuer must have seen no use of it",
    "drain.atMost": "how long that may take",
    "drain.then": "and after that: leave it alive and tell the owner, or revoke it",
    "containAfter": "in an emergency: revoke by then even if it could not be replaced everywhere",
    "pairedWith": "they take turns, so that one of two keys of a service works whatever happens",
    "smokeTest": "one minimal real request with the new credential before it is promoted",
    "allowedCidrs": "[from where](../access.md#from-where-a-value-may-be-read) its value may be read",
    "allowedVpces": "through which endpoints its value may be read",
    "format": "how the fields of the credential stand in the entry",
    "tags": "your own tags of the entry",
    "adopt": "`pulumi up` [takes an existing entry over](../adopting.md), with its value as it is",
    "adoptKeyId": "which key that value is, so that it retires like one of Keyturn's",
    "forceRevoke": "when the stack is destroyed: revoke although consumers may still use it",
}
"""What the fields of a secret are for; what they may be, the schema says."""


def configuration() -> str:
    """Every field of a stack file, by its path."""
    whole = schema()
    fields, top = _Fields(whole), whole["properties"]["config"]["properties"]
    parts = [
        "# Configuration",
        (
            "Every field of `Pulumi.<stack>.yaml` below `config:`, each key with `keyturn:` before it. What needs more than one field, "
            "`keyturn config check` says: all faults at once, each with its line and what is allowed. `keyturn config schema` prints the JSON "
            "Schema that this page is written from, [for editors](../pulumi.md#stack-files-in-an-editor)."
        ),
        "A path's `NAME` is a name of your own, `[]` an element of a list.",
    ]
    unknown = {key.removeprefix(NAMESPACE) for key in top} - set(_PARTS)
    assert not unknown, f"tools/reference.py: nothing is said of {', '.join(sorted(unknown))}"
    for part, (path, kind, about) in _PARTS.items():
        here = top.get(NAMESPACE + part)
        if here is None:
            continue
        parts += [f"## keyturn:{part}", about]
        sections = fields.sections(here)
        if not sections:
            parts.append(
                table(
                    ("path", "allowed", "otherwise"),
                    [(f"`{part}`", f"`{here['pattern']}`, at most {here['maxLength']} characters", "required")],
                )
            )
            continue
        choices = (
            (here.get("additionalProperties") or here.get("items") or here).get("discriminator", {}).get("mapping", {})
        )
        kinds: dict[str, list[str]] = {}
        for name, to in choices.items():
            kinds.setdefault(to.rpartition("/")[2], []).append(name)
        for section in sections:
            if len(sections) > 1:
                title = section["title"]
                names = kinds.get(title, [])
                parts.append(
                    f"### {', '.join(names) if names and len(names) < 4 else 'vendors by description' if names else _shape(section)}"
                )
                parts.append(prose(section.get("description", "")))
                if len(names) >= 4:
                    parts.append(f"`kind` is one of {', '.join(f'`{name}`' for name in names)}.")
            rows = list(dict.fromkeys(fields.rows(section, path)))
            if part == "secrets":
                told = [
                    (*row[:1], _MEANS.get(row[0].strip("`").removeprefix("secrets[]."), ""), *row[1:]) for row in rows
                ]
                parts.append(table(("path", "for", "allowed", "otherwise"), told))
                continue
            parts.append(table(("path", "allowed", "otherwise"), [row for row in rows if row[0] != f"`{path}.{kind}`"]))
    return "\n\n".join(part for part in parts if part)


def _shape(section: Mapping[str, Any]) -> str:
    """How a section without kinds is told from its neighbours: by the fields that it must have."""
    return ", ".join(f"`{name}`" for name in section.get("required") or list(section["properties"])[:1])


# --- issuers ---------------------------------------------------------------------------------------


def issuers() -> str:
    """What each vendor can do, what it is configured with, and where the facts are from."""
    parts = [
        "# Issuers",
        (
            "What comes with Keyturn as a description, which is data ([how to write one](../issuers.md)). Beside these: [AWS IAM](../iam.md), "
            "[PostgreSQL](../postgresql.md) and [values that Keyturn makes itself](../generated.md)."
        ),
        abilities.markdown(),
        "*uncertain* is what nobody has tried or looked up yet; `keyturn issuer try` settles it with one key.",
    ]
    for kind in shipped_kinds():
        about = shipped(kind)
        parts += [f"## {kind}", f"{about.title}, at `{about.base_url}`."]
        if about.variables:
            rows = []
            for name, variable in about.variables.items():
                otherwise = (
                    "required" if variable.required else "" if variable.default is None else f"`{variable.default}`"
                )
                rows.append((f"`variables.{name}`", variable.type, prose(variable.about), otherwise))
            parts.append(table(("variable", "type", "what it is", "otherwise"), rows))
        sources = ", ".join(_source(source) for source in about.sources)
        parts.append(f"From: {sources}")
        if about.unverified:
            parts.append("Uncertain:\n\n" + "\n".join(f"- {prose(one)}" for one in about.unverified))
    return "\n\n".join(parts)


def _source(source: str) -> str:
    return re.sub(r"(https://\S+)", r"<\1>", prose(source))


# --- what stands in stores -------------------------------------------------------------------------


def _layout(module: Any) -> str:
    """What a store's module says first: how an entry is laid out there."""
    lines = (module.__doc__ or "").split("\n\n")
    pictures = [paragraph for paragraph in lines if paragraph.startswith("    ")]
    words = [prose(paragraph) for paragraph in lines[2:4] if not paragraph.startswith("    ")]
    picture = "\n".join(line.removeprefix("    ") for line in pictures[0].splitlines())
    return f"```text\n{picture}\n```\n\n" + "\n\n".join(words).replace("``", "`")


def metadata() -> str:
    """Names, tags and metadata that Keyturn writes, as it would write them."""
    shown = next(one for one in load(ROOT / "Pulumi.prod.yaml").policies)
    at = datetime(2026, 12, 1, 3, tzinfo=UTC)
    facts: dict[str, tuple[dict[str, str], str]] = {
        "attempt": (
            journal.Attempt(_TOKEN, "a1b2", ("aws", "vault"), at, journal.Why.DUE).written(),
            "written before anything is created",
        ),
        "key": (journal.key_fact(_TOKEN, _KEY), "the issuer's id of it"),
        "promoted": (journal.promoted(_TOKEN, at), "since when every store hands it out"),
        "superseded": (journal.superseded(_TOKEN, at), "since when none does any more"),
        "condemned": (journal.condemned(_TOKEN, at, journal.Why.RETIRED), "it has to die; final"),
        "contain": (
            journal.contain(_TOKEN, at + timedelta(minutes=5)),
            "revoke by then, even where stores still hand it out",
        ),
        "revoked": (journal.revoked(_TOKEN, at), "when its issuer said so"),
        "proven": (journal.proven(_TOKEN, at, "refused"), "shown dead"),
        "adopted": (
            journal.adopted(_TOKEN, "7", at, journal.Of.PERSON),
            "a version that Keyturn did not write goes by this token",
        ),
        "expires": (journal.expires(_TOKEN, at), "when it stops working by itself"),
        "backoff": (
            journal.Backoff(2, at, at + timedelta(minutes=20), "unavailable").written(),
            "failures in a row, when the next may begin",
        ),
        "frozen": (journal.Frozen(at, "2026-12-01-0300-092a").written(), "scheduled work waits until it is taken off"),
    }
    parts = [
        "# Tags and metadata",
        (
            "All that Keyturn writes beside values. It keeps two sets of short strings with each secret, in its primary store: the *policy*, which "
            "`pulumi up` writes and the engine acts on, and the *journal*, which is the engine's. No value is in either."
        ),
        "## Policy",
        f"As for `{shown.name}` of `Pulumi.prod.yaml`. Keys that are empty are left out; those that begin with `tag.` are your own.",
        table(("key", "as written"), [(f"`{key}`", f"`{text}`") for key, text in policy.written(shown).items()]),
        f"All keys: {', '.join(f'`{key}`' for key in policy.KEYS)}.",
        "## Journal",
        "Each fact is added and removed by itself. [Its rules](../design.md#journal).",
        table(
            ("fact", "as written", "says"),
            [
                (name, "<br>".join(f"`{key}` = `{text}`" for key, text in fact.items()), why)
                for name, (fact, why) in facts.items()
            ],
        ),
        "`why` is one of " + ", ".join(f"`{why.value}`" for why in journal.Why) + ".",
        "## AWS Secrets Manager",
        _layout(aws),
        "## Azure Key Vault",
        _layout(azure),
        "## HashiCorp Vault and OpenBao",
        _layout(vault),
    ]
    return "\n\n".join(parts)


# --- metrics ---------------------------------------------------------------------------------------


def metrics() -> str:
    """Every metric, the phases and the causes that are labels of them, and the buckets."""
    instruments: tuple[Instrument, ...] = (*GAUGES, *TOLD)
    rows = []
    for one in instruments:
        whose = one.labels[: len(SECRET)] == SECRET
        labels = (["*secret*"] if whose else []) + [f"`{label}`" for label in one.labels[len(SECRET) if whose else 0 :]]
        rows.append((f"`{one.name}`", one.kind, ", ".join(labels), prose(one.help)))
    buckets = {"calls": QUICK, "what one waits for": MINUTES, "drains": DAYS}
    parts = [
        "# Metrics",
        (
            "`keyturn metrics` prints the gauges once; `keyturn run --listen` answers `/metrics` with all of them. How to use them, and the alerts that "
            "ship: [metrics and traces](../observability.md). OpenTelemetry has the same under names with dots, without unit and `_total`."
        ),
        f"*secret* stands for {', '.join(f'`{label}`' for label in SECRET)}.",
        table(("metric", "kind", "labels", "says"), rows),
        "## Phases",
        ", ".join(f"`{phase.value}`" for phase in Phase) + ".",
        "## Causes of a hold",
        ", ".join(f"`{cause.value}`" for cause in Cause) + ".",
        "## Buckets",
        table(
            ("of", "upper bounds in seconds"),
            [(name, ", ".join(f"{bound:g}" for bound in bounds)) for name, bounds in buckets.items()],
        ),
    ]
    return "\n\n".join(parts)


# --- exit codes ------------------------------------------------------------------------------------


def exit_codes() -> str:
    """What commands end with, in general and by command where they say more."""
    meanings = (
        (ending.DONE, "done"),
        (ending.FAILED, "something failed; what state it was left in is printed"),
        (ending.USAGE, "the command line or the configuration can not be used; nothing was asked or changed"),
        (ending.ALIVE, "a credential that should be dead is alive, or was not shown dead"),
        (ending.INTERRUPTED, "interrupted; what was begun is in the journal, and the next sweep goes on"),
    )
    rows = []
    for path, node in commands(typer.main.get_command(app)):
        said = [prose(one) for one in re.split(r"\n\s*\n", node.help or "") if "xit code" in one]
        if path and said:
            name = f"keyturn {' '.join(path)}"
            rows.append((f"[`{name}`](cli.md#{name.replace(' ', '-')})", " ".join(said)))
    parts = [
        "# Exit codes",
        table(("code", "means"), [(str(code), said) for code, said in meanings]),
        "The worst of several secrets counts. For a scheduler: 1 is worth a look, 3 is worth waking somebody.",
        "## Where a command says more",
        table(("command", "says"), rows),
    ]
    return "\n\n".join(parts)


def index() -> str:
    """What there is."""
    return """# Reference

For looking things up. All but the last three pages are written from the code, and a test holds them to it.

| page | for |
| --- | --- |
| [Commands](cli.md) | every command with its arguments, options and an example |
| [Configuration](configuration.md) | every field of a stack file |
| [Issuers](issuers.md) | each vendor: what it can do, its variables, its sources |
| [Tags and metadata](metadata.md) | what Keyturn writes beside values |
| [Metrics](metrics.md) | names, labels, buckets |
| [Exit codes](exit-codes.md) | in general, and by command |
| [Schedules](../schedules.md) | intervals, windows, blackouts, cron: what each means on a calendar |
| [Decisions](../decisions.md) | every situation, and what Keyturn does |
| [Cost](../cost.md) | calls and money, by store |"""


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "index": index,
    "cli": cli,
    "configuration": configuration,
    "issuers": issuers,
    "metadata": metadata,
    "metrics": metrics,
    "exit-codes": exit_codes,
}


def stale() -> list[str]:
    """The pages that are not what the code says."""
    return [
        name for name, text in written().items() if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]


def written() -> dict[str, str]:
    """Each page, by its file's name."""
    return {f"{name}.md": f"{_WRITTEN}{make().rstrip()}\n" for name, make in PAGES.items()}


def main() -> int:
    """Exit code 1 when something is stale and only looked at."""
    reader = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    reader.add_argument("--check", action="store_true", help="write nothing; name what is stale")
    if reader.parse_args().check:
        for name in (found := stale()):
            print(f"docs/reference/{name} is not what the code says: run `python -m tools.reference`")
        return 1 if found else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in written().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
