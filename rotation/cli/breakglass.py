"""The commands `keyturn break-glass`: keys at their issuer while a store is away, and journals that were lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, NoReturn

import typer

from rotation import breakglass
from rotation.breakglass import Doomed, Found, Held, Rebuilt
from rotation.cli import completion, show
from rotation.cli.admin import AdminFd, AdminFrom, ask_for, given, recorded
from rotation.cli.context import Context, File, Json, Stack, UsageFault, open_context
from rotation.cli.ending import ALIVE, DONE, FAILED, left_at_once
from rotation.errors import Trouble
from rotation.model import Credential, KeyInfo, Policy, SecretValue
from rotation.names import KeyName
from rotation.ports import Issuer, Notice, Severity
from rotation.provision import Refusal

app = typer.Typer(
    no_args_is_help=True,
    help="For when the vault, or the credential to it, is gone: see and kill keys at their issuer, rebuild a journal.",
)

_ON_INTERRUPT: Final = (
    "Interrupted. The audit trail has what was revoked by then; run it again, and what is gone is told as such."
)

IssuerName = Annotated[str, typer.Argument(metavar="ISSUER", help="An issuer by its name in the stack file.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_keys(
    name: IssuerName,
    stack: Stack = None,
    config: File = None,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    json: Json = False,
) -> None:
    """List every living key of this installation at an issuer, by the names that Keyturn gave them. Asks no store.

    Whether a key is the one that a store hands out is not told: that is the store's to say. Changes nothing.

    Example: keyturn break-glass list openai --stack prod --admin-from openai
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    issuer = _issuer(context, name)
    found = _listed(issuer)
    ours = [held for held in found if _whose(context, held) != _OTHERS]
    if json:
        show.as_json([_row(context, held) for held in ours])
        return
    now = context.assembly.clock.now()
    for held in ours:
        assert held.name
        elsewhere = "" if _whose(context, held) == _OURS else f" of environment {held.name.environment}"
        born = _born(held.key, now)
        show.say(f"{held.key.key_id}  {held.name.secret}{elsewhere}, {born}, token {held.name.token}")
    others = len(found) - len(ours)
    show.say(f"{len(ours)} of ours at {name}; {others} with other names, which are not shown.")


@app.command()
def revoke(
    name: IssuerName,
    key_ids: Annotated[list[str], typer.Argument(metavar="KEY_ID", help="Which keys, by the issuer's ids.")],
    stack: Stack = None,
    config: File = None,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    not_ours: Annotated[
        bool, typer.Option("--not-ours", help="Also keys that are not this stack's by their names, or in no list.")
    ] = False,
    value: Annotated[
        bool, typer.Option("--value", help="Ask for each key's value, without echo, to show that it is refused.")
    ] = False,
    value_fd: Annotated[
        int | None,
        typer.Option("--value-fd", metavar="N", min=0, help="Read the values from this file descriptor, a line each."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Revoke keys at their issuer, now and by their ids, and show them dead. Asks no store, and replaces nothing.

    For when the store is away and a key has to die all the same: whoever uses it fails from then on, until a
    rotation. While the store answers, `keyturn emergency` is better: it replaces first. With the value at hand, the
    proof is that it is refused; without, that the key has gone from the issuer's list, once the issuer's own time for
    that is over. The store's next sweep finds what was done, and replaces what is dead.

    Exit codes: 0 all shown dead; 1 nothing was changed; 3 a key lives, or is not shown dead.

    Example: keyturn break-glass revoke openai key_8Yb2 --stack prod --admin-from openai
    """
    if value and value_fd is not None:
        raise UsageFault("--value asks for what --value-fd reads; give one of the two")
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    issuer = _issuer(context, name)
    if not issuer.capabilities.revokes:
        raise UsageFault(f"{name}: can not revoke a single key; that is a person's work in its console")
    found = {held.key.key_id: held for held in _listed(issuer, needed=not not_ours)}
    chosen = list(dict.fromkeys(key_ids))
    _refuse_others(context, issuer, chosen, found, not_ours=not_ours)
    if not json:
        for key_id in chosen:
            _announce(context, key_id, found.get(key_id))
    values = _values(issuer, chosen, value_fd) if value or value_fd is not None else {}
    if not yes:
        _confirm(name)
    recorded(context, admin_from)
    doomed = [_doomed(context, issuer, key_id, found.get(key_id), values.get(key_id)) for key_id in chosen]
    with left_at_once(_ON_INTERRUPT):
        breakglass.end(issuer, doomed, context.trail, context.assembly.clock)
    _tell_owners(context, doomed, found)
    if json:
        show.as_json([_ended(key) for key in doomed])
    else:
        for key in doomed:
            _tell(key)
        if any(key.revoked_at for key in doomed):
            by_hand = "".join(f" --admin-from {name}" for name in admin_from or ())
            show.say(f"The next sweep that reaches their stores replaces what is dead: `keyturn sweep{by_hand}`.")
    raise typer.Exit(DONE if all(key.proven_at for key in doomed) else ALIVE)


@app.command()
def rebuild(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A declared secret.", autocompletion=completion.secrets)],
    stack: Stack = None,
    config: File = None,
    admin_from: AdminFrom = None,
    admin_fd: AdminFd = None,
    current: Annotated[
        str | None,
        typer.Option("--current", metavar="KEY_ID", help="Which key the current credential is, where nothing tells."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Write a secret's policy and journal anew after its metadata was lost. Revokes nothing, and changes no value.

    What the stored version says, the issuer's list and the stack file are put together again: the policy as the file
    declares it, which `pulumi up` would else have to adopt; the current credential by its key's id, so that the next
    rotation retires it; every other living key of the secret as an orphan, which drains and dies by the ordinary rules.

    Example: keyturn break-glass rebuild --stack prod support-copilot-chat
    """
    context = open_context(stack, config, admins=given(admin_from, admin_fd))
    (declared,) = context.declared([name])
    context.open([declared])
    found = breakglass.look(context.assembly, declared, current)
    if not json:
        for line in _findings(context, found):
            show.say(line)
    if not yes:
        _agree()
    recorded(context, admin_from)
    try:
        built = breakglass.rebuild(
            context.assembly, found, context.trail, lambda told: None if json else show.say(f"    {told}")
        )
    except (Trouble, Refusal) as trouble:
        part = "Part of it may be done, and no key was revoked; repeat it once that is put right"
        show.complain(f"{trouble}. {part if context.trail.begun else 'Nothing was changed'}.")
        raise typer.Exit(FAILED) from None
    if json:
        show.as_json(_rebuilt(name, found, built))
        return
    _tell_rebuilt(context, name, built)


# --- whose a key is ------------------------------------------------------------------------------

_OURS, _ELSEWHERE, _OTHERS = "ours", "ours in another environment", "others'"


def _whose(context: Context, held: Held | None) -> str:
    name = held.name if held else None
    if name is None or name.installation != context.config.installation:
        return _OTHERS
    return _OURS if name.environment == context.config.environment else _ELSEWHERE


def _issuer(context: Context, name: str) -> Issuer:
    if name not in context.config.issuers:
        declared = ", ".join(context.config.issuers) or "none"
        raise UsageFault(f"{context.path.name} declares no issuer {name}; declared are: {declared}")
    context.assembly.ready(name)
    return context.assembly.issuers[name]


def _listed(issuer: Issuer, *, needed: bool = True) -> list[Held]:
    try:
        return breakglass.held(issuer)
    except Trouble:
        if needed:
            raise
        return []


def _refuse_others(
    context: Context, issuer: Issuer, chosen: Sequence[str], found: dict[str, Held], *, not_ours: bool
) -> None:
    """Raises UsageFault for the first key that nothing shows to be this stack's."""
    for key_id in chosen:
        held, whose = found.get(key_id), _whose(context, found.get(key_id))
        if whose == _OURS or not_ours:
            continue
        if held is None:
            told = f"{issuer.name} lists no key {key_id}: it is gone already, or the id is another's"
        elif whose == _ELSEWHERE and held.name:
            told = f"{key_id} is of environment {held.name.environment}: use that one's stack"
        else:
            told = f"{key_id} is not ours by its name"
        raise UsageFault(f"{told}. Nothing was changed. --not-ours revokes it all the same")


def _policy(context: Context, name: KeyName | None) -> Policy | None:
    """The declared policy of the secret that a key of this stack was minted for."""
    if name is None or name.environment != context.config.environment:
        return None
    return next((policy for policy in context.config.policies if policy.name == name.secret), None)


def _row(context: Context, held: Held) -> dict[str, object]:
    assert held.name
    age = breakglass.age(held.key, context.assembly.clock.now())
    return {
        "key_id": held.key.key_id,
        "environment": held.name.environment,
        "secret": held.name.secret,
        "token": held.name.token,
        "created_at": held.key.created_at.isoformat() if held.key.created_at else None,
        "age_seconds": age.total_seconds() if age is not None else None,
    }


# --- revoking ------------------------------------------------------------------------------------


def _announce(context: Context, key_id: str, held: Held | None) -> None:
    now, policy = context.assembly.clock.now(), _policy(context, held.name if held else None)
    if held is None:
        show.say(f"{key_id}: revoke it, whatever it is: it stands in no list", "yellow")
        return
    born = _born(held.key, now)
    if held.name is None or _whose(context, held) == _OTHERS:
        show.say(f"{key_id}: revoke it, {born}, not ours by its name", "yellow")
        return
    owner = f", owner {policy.owner}" if policy else ", in no declaration of this stack"
    show.say(f"{key_id}: revoke it, {born}, minted for {held.name.secret} ({held.name.environment}{owner})")
    if breakglass.young(held.key, now):
        show.say("    a rotation may be about to make it current", "yellow")
    for consumer in policy.consumers if policy else ():
        show.say(f"    {consumer.name} fails until this is replaced, if it is the current one", "yellow")


def _confirm(issuer: str) -> None:
    """A name has to be typed: nothing takes the place of what is revoked here."""
    if not sys.stdin.isatty():
        raise UsageFault("nobody is there to confirm; give --yes")
    if typer.prompt(f"Nothing is replaced. Type {issuer} to revoke", "", err=True, show_default=False) != issuer:
        _leave()


def _agree() -> None:
    if not sys.stdin.isatty():
        raise UsageFault("nobody is there to confirm; give --yes")
    if not typer.confirm("Go ahead?", err=True):
        _leave()


def _leave() -> NoReturn:
    show.complain("Nothing was changed.")
    raise typer.Exit(FAILED)


def _values(issuer: Issuer, key_ids: Sequence[str], descriptor: int | None) -> dict[str, Credential]:
    """What the issuer accepts now, by key id: only of that a refusal will show anything."""
    fields = issuer.capabilities.fields
    what = [f"{field} of {key_id}" for key_id in key_ids for field in fields]
    texts = iter(ask_for(what, "--value-fd", descriptor, blank=True))
    values: dict[str, Credential] = {}
    for key_id in key_ids:
        typed = {field: next(texts) for field in fields}
        if not all(typed.values()):
            continue
        credential = Credential({field: SecretValue(text) for field, text in typed.items()})
        if (why := breakglass.accepted(issuer, credential)) is None:
            values[key_id] = credential
        else:
            show.complain(f"{key_id}: the value given shows nothing, as it is not accepted even now ({why})", "yellow")
    return values


def _doomed(context: Context, issuer: Issuer, key_id: str, held: Held | None, value: Credential | None) -> Doomed:
    name = held.name if held and _whose(context, held) != _OTHERS else None
    policy = _policy(context, name)
    if policy is not None:
        secret = context.assembly.target(policy).entry
    else:
        secret = f"{name.environment}/{name.secret}" if name else issuer.name
    return Doomed(key_id, secret, name.token if name else None, held is not None, value)


def _tell(key: Doomed) -> None:
    if key.proven_at:
        how = "its value is refused" if key.how == "refused" else "it is gone from the issuer's list"
        show.say(f"✓ {key.key_id}: revoked and shown dead: {how}", "green")
        return
    show.say(f"✗ {key.key_id}: {'revoked, not shown dead' if key.revoked_at else 'alive'}", "bold red")
    show.complain(f"    {key.told or 'nothing tells'}. Run this again, or look in the issuer's console.")


def _ended(key: Doomed) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "proven_at": key.proven_at.isoformat() if key.proven_at else None,
        "how": key.how or None,
        "error": key.told or None,
    }


def _tell_owners(context: Context, doomed: Sequence[Doomed], found: dict[str, Held]) -> None:
    for key in doomed:
        held = found.get(key.key_id)
        policy = _policy(context, held.name if held and _whose(context, held) == _OURS else None)
        if policy is None or key.revoked_at is None:
            continue
        shown = f"shown dead ({key.how})" if key.proven_at else f"not shown dead: {key.told}"
        text = (
            f"A key of {policy.name} ({policy.environment}) was revoked at {policy.issuer} by hand, without a "
            f"replacement; {shown}. If it was the current one, whoever uses it fails until the next sweep that reaches "
            f"{policy.store}, which replaces it. `keyturn status {policy.name}` shows how it stands."
        )
        context.assembly.notifier.tell(
            Notice(
                "incident.revoked",
                Severity.CRITICAL,
                key.revoked_at,
                policy.environment,
                policy.name,
                policy.owner,
                f"{policy.name}: key {key.key_id} was revoked by hand",
                text,
                {"key_id": key.key_id, "issuer": policy.issuer},
            )
        )


# --- rebuilding ----------------------------------------------------------------------------------


def _findings(context: Context, found: Found) -> list[str]:
    """What is left of a secret, and what will be made of it."""
    now, place = context.assembly.clock.now(), f"{found.target.entry} in {found.target.store}"
    lines = [f"{found.policy.name} ({found.policy.environment}, owner {found.policy.owner}): {place}"]
    if found.entry is None:
        lines.append("    there is no such entry: it is made, without a value; the next sweep mints one")
    elif not found.applied:
        lines.append(f"    its policy is lost: written as {context.path.name} declares it")
    else:
        lines.append("    its policy is there, and stays")
    if found.entry is not None and found.entry.current is None:
        lines.append("    it holds no value: the next sweep mints one")
    elif found.entry is not None:
        lines.append(f"    its current credential {_current(found)}")
    lines += [f"    {key.key_id} lives, {_born(key, now)}: {_fate(found, key, now)}" for key in found.others]
    return lines


def _current(found: Found) -> str:
    if found.known:
        return "is in the journal, which stays"
    if found.refused:
        return f"is refused ({found.refused}): the next sweep replaces it at once"
    if found.current is None:
        return (
            "is accepted, and nothing tells which key it is: it counts as a person's, is replaced when it is due, and is "
            "never revoked by Keyturn. Where you know its key, give --current KEY_ID"
        )
    return f"is {found.current.key_id}, as {found.how}: the next rotation retires it"


def _fate(found: Found, key: KeyInfo, now: datetime) -> str:
    journal = found.entry.journal if found.entry else None
    if journal and key.key_id in journal.key_ids.values():
        return "in the journal, which stays"
    if found.entry and found.entry.current and found.current is None and not found.known and not found.refused:
        return "left alone, as it may be the current one"
    if breakglass.young(key, now):
        return "left alone, as a rotation may be about to make it current"
    return "an orphan: it drains, then dies"


def _born(key: KeyInfo, now: datetime) -> str:
    age = breakglass.age(key, now)
    return "of unknown age" if age is None else f"{show.span(age)} old"


def _rebuilt(name: str, found: Found, built: Rebuilt) -> dict[str, object]:
    return {
        "name": name,
        "policy_written": built.policy,
        "current_key_id": built.current,
        "current_known_by": found.how or None,
        "orphans": list(built.orphans),
        "later": list(built.later),
    }


def _tell_rebuilt(context: Context, name: str, built: Rebuilt) -> None:
    did = [
        part
        for part in (
            f"policy written as {context.path.name} declares it" if built.policy else "",
            f"current is {show.key(built.current)}" if built.current else "",
            f"{len(built.orphans)} taken up as orphans" if built.orphans else "",
        )
        if part
    ]
    show.say(f"✓ {name}: {'; '.join(did) or 'nothing was lost'}", "green")
    if built.later:
        told = ", ".join(show.key(key_id) for key_id in built.later)
        show.say(f"    not taken up yet: {told}; sweeps do it, once that is safe", "yellow")
    show.say("    Nothing was revoked. Run `keyturn sweep`, then `pulumi up`: it must show no change.")
