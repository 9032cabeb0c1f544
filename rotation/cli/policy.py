"""`keyturn policy`: prints the rights that each persona needs, for whoever administers a store to grant."""

from __future__ import annotations

import json as codec
import shlex
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import typer

from rotation.access import Access, Persona, needs, works_with
from rotation.cli import show
from rotation.cli.context import Context, File, Json, Names, Stack, UsageFault, open_context
from rotation.config import IamConfig, KeyVaultConfig, SecretsManagerConfig, VaultConfig

T = TypeVar("T", SecretsManagerConfig, KeyVaultConfig, VaultConfig)


class Service(StrEnum):
    """Whose words; AWS's are of users' access keys, too."""

    AWS = "aws"
    AZURE = "azure"
    VAULT = "vault"


_GROUP = "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP"


def policy(
    service: Annotated[Service, typer.Argument(help="Whose words for rights: aws, azure or vault.")],
    names: Names = None,
    persona: Annotated[
        Persona,
        typer.Option("--for", help="Who gets them: provision, rotate, respond or read.", show_default=False),
    ] = ...,  # type: ignore[assignment]
    stack: Stack = None,
    config: File = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="STORE", help="One store of that service; all of the stack when not given."),
    ] = None,
    bootstrap: Annotated[
        Literal["apply", "function"] | None,
        typer.Option(
            "--bootstrap", help="For provision: who mints first credentials; as the stack says when not given."
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option("--resource-group", metavar="ID", help="For azure: the id of the resource group of the vaults."),
    ] = _GROUP,
    json: Json = False,
) -> None:
    """Print exactly the rights that a persona needs for the declared secrets. Changes nothing, asks no store.

    provision is whoever runs `pulumi up`: with bootstrap function it reads no value; with apply it also mints, and
    ends secrets. rotate is what sweeps. respond is the engineer on call: emergency, rollback, status, verify. read is a
    consumer: the current value, not what is pending.

    Example: keyturn policy vault --stack prod --for rotate | vault policy write keyturn-rotate -
    """
    context = open_context(stack, config)
    declared, mints = context.declared(names), (bootstrap or context.config.bootstrap) == "apply"
    found = needs(context.config, persona, declared, mints=mints)
    match service:
        case Service.AWS:
            users = [] if store else _users(context, works_with(persona, declared, mints=mints))
            some = not users or any(isinstance(context.config.stores[name], SecretsManagerConfig) for name in found)
            _aws(_of(context, found, SecretsManagerConfig, store) if some else [], users, json=json)
        case Service.AZURE:
            _azure(_of(context, found, KeyVaultConfig, store), group, json=json)
        case Service.VAULT:
            _vault(_of(context, found, VaultConfig, store), persona, json=json)


def _of(
    context: Context, found: Mapping[str, Access], kind: type[T], wanted: str | None
) -> list[tuple[str, T, Access]]:
    """The stores of one kind that something is needed of: name, configuration, need."""
    stores = {name: about for name, about in context.config.stores.items() if isinstance(about, kind)}
    known = ", ".join(stores) or "none"
    if wanted is not None and wanted not in stores:
        raise UsageFault(f"--store: {context.path.name} has no store {wanted} of this service; it has: {known}")
    chosen = [(name, about, found[name]) for name, about in stores.items() if wanted in (None, name) and name in found]
    if not chosen:
        raise UsageFault(
            f"nothing is needed there: no such store of {context.path.name} has a part in it; it has: {known}"
        )
    return chosen


def _users(context: Context, issuers: Collection[str]) -> list[tuple[str, IamConfig]]:
    """Those of the issuers that are users of IAM."""
    named = {name: context.config.issuers[name] for name in sorted(issuers)}
    return [(name, about) for name, about in named.items() if isinstance(about, IamConfig)]


def _aws(
    stores: list[tuple[str, SecretsManagerConfig, Access]], users: list[tuple[str, IamConfig]], *, json: bool
) -> None:
    from providers.access import aws  # noqa: PLC0415 - with it comes the store: for whoever asks, no other command

    document = aws.document(stores, users)
    if json:
        show.as_json(document)
    else:
        typer.echo(codec.dumps(document, indent=2))
    if (size := aws.size(document)) > aws.MOST_CHARACTERS:
        show.complain(
            f"It has {size} characters, and a managed policy of IAM at most {aws.MOST_CHARACTERS}: name some secrets at a "
            f"time, and attach several, or put it inline into a role.",
            "yellow",
        )
    if len({about.role_arn for _, about, _ in stores}) > 1:
        show.complain("The stores have different roles; --store gives each its own.", "yellow")


def _azure(stores: list[tuple[str, KeyVaultConfig, Access]], group: str, *, json: bool) -> None:
    from providers.access import azure  # noqa: PLC0415 - as above

    documents = {name: azure.document(about, access, group) for name, about, access in stores}
    if json:
        show.as_json(documents)
    else:
        for name, document in documents.items():
            typer.echo("\n".join(_commands(name, document)))
    if group == _GROUP:
        show.complain("Put your own ids for SUBSCRIPTION and GROUP, or give --resource-group.", "yellow")


def _commands(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {name}: for the principal whose object id is in $PRINCIPAL."
    for note in document["notes"]:
        yield f"# {note}"
    for role in document["roles"]:
        yield f"az role definition create --role-definition {shlex.quote(codec.dumps(role))}"
    for given in document["assignments"]:
        where = f"--role {shlex.quote(given['role'])} --scope {shlex.quote(given['scope'])}"
        yield f'az role assignment create --assignee-object-id "$PRINCIPAL" {where}'


def _vault(stores: list[tuple[str, VaultConfig, Access]], persona: Persona, *, json: bool) -> None:
    parts = [part for name, about, access in stores for part in _policies(name, about, access, persona)]
    if json:
        show.as_json(parts)
        return
    for part in parts:
        role = part["role"]
        typer.echo(f"# {part['store']}: {persona.value}")
        if role is not None:
            typer.echo(f"# {_ROLE}\n# vault write auth/approle/role/{part['name']} {_settings(role)}")
        typer.echo(part["policy"])
    if len({part["name"] for part in parts}) > 1 and persona is Persona.READ:
        show.complain("These are several policies: name one secret at a time to get each alone.", "yellow")


_ROLE = "Vault binds no path to an address, only tokens and what gives them. So this role, or its like:"


def _policies(name: str, about: VaultConfig, access: Access, persona: Persona) -> Iterator[dict[str, Any]]:
    """One policy; for consumers one for each set of networks, with the role that keeps to them."""
    from providers.access import vault  # noqa: PLC0415 - as above

    if persona is not Persona.READ:
        text = vault.hcl(vault.rules(about, access, ours=True))
        yield {"store": name, "name": f"keyturn-{persona.value}", "policy": text, "role": None}
        return
    for number, (cidrs, grants) in enumerate(sorted(vault.bounds(access.grants).items()), 1):
        part = Access(access.environment, tuple(grants))
        title = f"keyturn-read-{number}" if cidrs else "keyturn-read"
        text = vault.hcl(vault.rules(about, part, ours=False))
        yield {"store": name, "name": title, "policy": text, "role": vault.role(title, cidrs) if cidrs else None}


def _settings(role: Mapping[str, object]) -> str:
    return " ".join(f"{key}={','.join(map(str, value))}" for key, value in role.items() if isinstance(value, list))
