"""The page of one secret for whoever is woken up about it: what it is, who uses it, what breaks, the exact commands.

    page = runbook.page(assembly, policy, file, option)     asks its stores and its issuer, once; changes nothing
    runbook.markdown(page)

What could not be asked is said on the page, and the rest of it stands: the night is when things do not answer.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from rotation import status
from rotation.assembly import Assembly
from rotation.declared import ConfigError
from rotation.errors import Code, Trouble
from rotation.incident import gather as gathering
from rotation.incident import plan as plans
from rotation.incident import selection as selections
from rotation.incident.selection import Selection
from rotation.logs import masked, masked_parts
from rotation.model import Capabilities, Ending, Model, Policy
from rotation.policy import show_duration, written_schedule
from rotation.ports import TellsReaders
from rotation.resilience import PatientStore
from rotation.situation import ATTEMPT_LIFE, Situation
from rotation.status import Phase


@dataclass(frozen=True, slots=True)
class Place:
    """One store of the secret."""

    store: str
    role: str
    """`primary` or `replica`."""
    entry: str
    where: str
    """Kind and address, without any credential."""
    state: str
    """What it hands out, or why that is not known."""
    readers: tuple[str, ...] | None = None
    """As whom the store knows those who may read it; None where it does not tell."""


@dataclass(frozen=True, slots=True)
class Key:
    """A credential of it that is not known to be dead."""

    key_id: str | None
    role: str
    """`current`, `previous` or `pending`."""
    since: datetime | None
    state: str
    """What is going to become of it."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who reads it."""

    name: str
    refreshes_within_seconds: float
    told: str
    """What makes it read a new value before that; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do in one situation."""

    when: str
    commands: tuple[str, ...]
    then: str
    """What comes of it, and what it costs."""


@dataclass(frozen=True, slots=True)
class Page:
    """All of it. Times are aware, UTC."""

    name: str
    environment: str
    stack: str
    at: datetime
    phase: str
    about: tuple[tuple[str, str], ...]
    """What, and how it stands; for people, in their order."""
    places: tuple[Place, ...]
    keys: tuple[Key, ...]
    consumers: tuple[Consumer, ...]
    breaks: tuple[str, ...]
    """What stops working if it is revoked now, and for how long."""
    steps: tuple[Step, ...]
    unseen: tuple[str, ...] = ()
    """What could not be asked: the page may be wrong about that."""
    differs: tuple[str, ...] = ()
    """Fields in which the file declares it differently from what is applied, which counts."""


@dataclass(slots=True)
class _Look:
    """What is found out as it goes."""

    policy: Policy
    situation: Situation | None = None
    row: status.Row | None = None
    capabilities: Capabilities | None = None
    unseen: list[str] = field(default_factory=list)


def page(
    assembly: Assembly,
    declared: Policy,
    file: str,
    option: Sequence[str],
    differs: Callable[[Policy], Sequence[str]] = lambda _: (),
) -> Page:
    """The page of a secret, by its applied policy where its store tells that.

    Parameters:
        declared: as the stack file has it.
        file: what the page calls the stack file.
        option: what selects the stack on the command line, as in ("--stack", "prod").
        differs: gives Page.differs for what is applied.
    """
    look = _looked(assembly, declared)
    policy, now = look.policy, assembly.clock.now()
    return Page(
        name=policy.name,
        environment=policy.environment,
        stack=file,
        at=now,
        phase=look.row.phase.value if look.row else Phase.UNREACHABLE.value,
        about=tuple(_about(assembly, look)),
        places=tuple(_places(assembly, look)),
        keys=_keys(look),
        consumers=tuple(_consumers(assembly, policy)),
        breaks=tuple(_breaks(assembly, look, declared)),
        steps=tuple(_steps(assembly, look, option)),
        unseen=tuple(dict.fromkeys(look.unseen)),
        differs=tuple(differs(policy)),
    )


# --- finding out -----------------------------------------------------------------------------------


def _looked(assembly: Assembly, declared: Policy) -> _Look:
    look = _Look(declared)
    try:
        look.capabilities = assembly.issuers[declared.issuer].capabilities
        look.row = status.row(
            assembly.engine, assembly.target(declared), declared, assembly.clock.now(), assembly.issuers
        )
    except (Trouble, ConfigError) as error:
        look.unseen.append(str(error))
        return look
    if look.row.phase is Phase.UNREACHABLE:
        look.unseen.append(look.row.last_error or f"{declared.store} gave no answer")
        return look
    if look.row.phase is Phase.NOT_APPLIED:
        return look
    try:
        seen = assembly.engine.observe(assembly.target(declared))
        look.situation = gathering.situation_of(assembly, seen)
        look.policy = seen.policy
        look.capabilities = look.situation.issuer
    except (Trouble, ConfigError) as error:
        look.unseen.append(str(error))
    return look


def _about(assembly: Assembly, look: _Look) -> Iterator[tuple[str, str]]:
    policy, row, now = look.policy, look.row, assembly.clock.now()
    yield "Owner", f"{policy.owner}; {_channels(assembly, policy.owner)}"
    yield "State", _state(look)
    yield "Issuer", f"{policy.issuer}: {_issuer(assembly, look)}"
    yield "Its admin credential", _admin(assembly, policy.issuer)
    yield "Rotates", _schedule(policy)
    if row and row.due_at:
        late = f"; too old from {row.overdue_at:%Y-%m-%d %H:%M}Z" if row.overdue_at else ""
        yield "Next rotation", f"{row.due_at:%Y-%m-%d %H:%M}Z{late}"
    if row and row.rotated_at:
        yield "Rotated last", f"{row.rotated_at:%Y-%m-%d %H:%M}Z, {show_duration(now - row.rotated_at)} ago"
    yield (
        "Contained",
        f"{show_duration(policy.contain_after)} after an emergency began, even if it is not replaced by then",
    )
    if policy.paired_with:
        yield "Paired with", f"{policy.paired_with}, which never rotates within the same window by itself"
    if policy.native:
        yield "Rotated by", f"the service of {policy.store} itself, which calls Keyturn's function"
    if walls := (*policy.allowed_cidrs, *policy.allowed_vpces):
        yield "May be read from", ", ".join(walls)
    if policy.tags:
        yield "Tags", ", ".join(f"{name}={text}" for name, text in policy.tags)


def _state(look: _Look) -> str:
    row = look.row
    if row is None:
        return "not known"
    if row.phase is Phase.NOT_APPLIED:
        return "declared, and not applied: there is no entry and no key; `pulumi up` makes it"
    told = [row.phase.value, row.next_action]
    if row.last_error and row.last_error not in row.next_action:
        told.append(row.last_error)
    if row.frozen:
        told.append(row.frozen.told(row.name))
    return "; ".join(part for part in told if part)


def _channels(assembly: Assembly, owner: str) -> str:
    about = assembly.config.owners.get(owner)
    routes = about.notify if about else ()
    if not routes:
        return "told through no channel: call them yourself"
    told = []
    for route in routes:
        usual = "warnings and all of incidents" if route.on is None else ", ".join(route.on)
        told.append(f"{route.channel} ({route.least or usual})")
    return f"told through {', '.join(told)}"


_MODELS: Final[Mapping[Model, str]] = {
    Model.MINT: "several keys may live side by side",
    Model.SLOTS: "a fixed number of places; creating destroys what the place held",
    Model.REPLACE: "one credential; creating the new one destroys the old one, and nobody gets in until it is promoted",
    Model.MANUAL: "a person creates each credential in its console, and brings it",
}


def _issuer(assembly: Assembly, look: _Look) -> str:
    about, can = assembly.config.issuers.get(look.policy.issuer), look.capabilities
    where = [
        f"{word} {value}"
        for word, name in (("project", "project"), ("service account", "service_account"), ("at", "base_url"))
        if (value := getattr(about, name, None))
    ]
    told = [" ".join([getattr(about, "kind", "not configured"), *where])]
    if can is None:
        return f"{told[0]}; what it can do is not known now"
    if not can.registry:
        return f"{told[0]}; nobody refuses an old value: who accepts it has to read the new one"
    told.append(_MODELS[can.model])
    if can.max_keys is not None:
        told.append(f"at most {can.max_keys} of our keys at once")
    if not can.revokes and can.model is not Model.MANUAL:
        told.append("it revokes no single key")
    told.append(f"a revocation may take {show_duration(can.revoke.timeout)} to be seen")
    told.append("tells when a key was last used" if can.tells_last_use else "does not tell when a key was last used")
    return "; ".join(told)


def _admin(assembly: Assembly, issuer: str) -> str:
    admin = selections.admin_of(assembly.config, issuer)
    if admin is None:
        return "none in the configuration"
    if admin[0] == "env":
        told = f"the environment variable {admin[1]} of whoever runs Keyturn"
    else:
        told = f"the entry {admin[2]} in {admin[1]}"
    shared = [name for name in selections.sharing_admin(assembly.config, issuer) if name != issuer]
    return told + (f"; also that of {', '.join(shared)}" if shared else "")


def _schedule(policy: Policy) -> str:
    drain = policy.drain
    ending = "is revoked" if drain.then is Ending.REVOKE else "is held, and the owner told"
    old = (
        f"the old one is accepted for {show_duration(policy.grace)}, and revoked once quiet for "
        f"{show_duration(drain.quiet_for)}; after {show_duration(drain.at_most)} it {ending}"
    )
    special = written_schedule(policy.schedule)
    return f"every {show_duration(policy.rotate_every)}{f' ({special})' if special else ''}; {old}"


def _places(assembly: Assembly, look: _Look) -> Iterator[Place]:
    policy, s = look.policy, look.situation
    for store in policy.stores:
        about = assembly.config.stores.get(store)
        if about is None:
            yield Place(store, "replica", "-", "not configured any more", "not known")
            continue
        entry = assembly.places.entry_name(store, policy.environment, policy.name)
        role = "primary" if store == policy.store else "replica"
        yield Place(store, role, entry, _where(about), _held(look, s, store), _readers(assembly, look, store, entry))


def _where(about: Any) -> str:
    address = next((value for name in _ADDRESSES if (value := getattr(about, name, None))), "")
    folders = [str(part) for name in ("namespace", "mount", "prefix") if (part := getattr(about, name, None))]
    return " ".join(part for part in (about.kind, str(address), "/".join(folders)) if part)


_ADDRESSES: Final = ("vault_url", "address", "region")


def _held(look: _Look, s: Situation | None, store: str) -> str:
    if s is None:
        return "no entry yet" if look.row and look.row.phase is Phase.NOT_APPLIED else "not known: it was not seen"
    if store == look.policy.store:
        current = s.seen.primary.current
        return "no value yet" if current is None else f"version {current.id}"
    replica = s.seen.replicas.get(store)
    version = getattr(replica, "current", None)
    if replica is None or version is None:
        reason = getattr(replica, "reason", "no value yet")
        return f"not known: {reason}" if hasattr(replica, "reason") else str(reason)
    behind = ", behind the primary" if store in s.lagging else ""
    return f"version {version.id}{behind}"


def _readers(assembly: Assembly, look: _Look, store: str, entry: str) -> tuple[str, ...] | None:
    if look.situation is None:
        return None
    try:
        client = assembly.stores[store]
        bare = client.bare if isinstance(client, PatientStore) else client
        if isinstance(bare, TellsReaders):
            return tuple(bare.readers([entry]).get(entry, ()))
    except (Trouble, ConfigError) as error:
        if not (isinstance(error, Trouble) and error.code is Code.DENIED):  # not to be asked is no news at night
            look.unseen.append(f"who may read it: {error}")
    return None


def _keys(look: _Look) -> tuple[Key, ...]:
    s = look.situation
    if s is None:
        return ()
    journal = s.seen.primary.journal
    found = []
    for key in plans.live_keys(s):
        if key.token in journal.contain:
            state = "condemned by an emergency"
        elif key.token in journal.condemned:
            state = f"condemned: {journal.condemned[key.token].why.value}"
        elif key.role == "previous":
            state = "drains"
        else:
            state = "handed out" if key.role == "current" else "staged, not handed out"
        found.append(Key(key.key_id, key.role, key.since, state if key.ours else f"{state}; made by a person"))
    found += [
        Key(journal.key_ids.get(token), "previous", None, "revoked, not shown dead")
        for token in journal.revoked
        if token not in journal.proven
    ]
    return tuple(found)


def _consumers(assembly: Assembly, policy: Policy) -> Iterator[Consumer]:
    reached = assembly.config.on_rotate.get(policy.name, {})
    for one in policy.consumers:
        way = reached.get(one.name)
        told = "" if way is None else "restarted" if hasattr(way, "restart") else "told by a webhook"
        yield Consumer(one.name, one.refresh_within.total_seconds(), told)


def _breaks(assembly: Assembly, look: _Look, declared: Policy) -> Iterator[str]:
    """What stops working if it is revoked now, by the plan that an emergency would make."""
    policy, can = look.policy, look.capabilities
    slowest = max((one.refresh_within for one in policy.consumers), default=None)
    if slowest is None:
        yield "Nobody is declared to read it: who fails is not known, nor for how long."
    else:
        names = ", ".join(f"{one.name} within {show_duration(one.refresh_within)}" for one in policy.consumers)
        fails = "is the old value" if can is not None and not can.registry else "fails from the revocation"
        yield f"Replaced first (the default): what these have cached {fails} until they refresh: {names}."
    expected = _expected(assembly, look, declared)
    if can is None or can.registry:
        late = show_duration(slowest or timedelta(0))
        yield f"Revoked first (--contain-first): every one of them fails until it is replaced, and then until it refreshes ({late})."
    if expected is not None:
        took = f"{expected.total_seconds():.0f} s at 100 ms a call"
        dead = ", until the old key is shown dead" if can is not None and can.registry else ""
        yield f"An emergency takes about {took}{dead}."
    if can is not None and can.model is Model.REPLACE:
        yield "From the mint to the promotion nobody gets in at all: its issuer keeps one credential."
    if can is not None and not can.registry:
        yield "Nothing is refused by revoking it: whoever accepts this value decides by what it has read."
    if any(store in assembly.stores and not _fenced(assembly, store) for store in policy.stores):
        age = show_duration(ATTEMPT_LIFE)
        yield (
            f"A key younger than {age} is not revoked before that once it is replaced, as one of its stores has no "
            "compare-and-set; --contain-first does not wait."
        )


def _fenced(assembly: Assembly, store: str) -> bool:
    try:
        return assembly.stores[store].features.compare_and_set
    except (Trouble, ConfigError):
        return True


def _expected(assembly: Assembly, look: _Look, declared: Policy) -> timedelta | None:
    if look.situation is None or (look.capabilities and look.capabilities.model is Model.MANUAL):
        return None
    try:
        selection = Selection(names=(declared.name,))
        return plans.make(assembly, selection, gathering.gather(assembly, selection, known=[declared])).expected
    except (Trouble, ConfigError) as error:
        look.unseen.append(str(error))
        return None


# --- what to do ------------------------------------------------------------------------------------


def _steps(assembly: Assembly, look: _Look, option: Sequence[str]) -> Iterator[Step]:
    policy, can = look.policy, look.capabilities
    name, issuer = policy.name, policy.issuer

    def run(*words: str) -> str:
        return shlex.join(["keyturn", *words, *option])

    manual = can is not None and can.model is Model.MANUAL
    incident = look.row.frozen.incident if look.row and look.row.frozen else "ID"
    yield Step(
        "Look first; changes nothing", (run("status", name), run("verify", name)), "Phase, key, what comes next."
    )
    yield Step(
        "It leaked, and you have a scanner's report",
        (run("emergency", "--leak", "report.json", "--check"), run("emergency", "--leak", "report.json")),
        "The first tells whose each value is and changes nothing; exit code 3 means that something of ours is alive.",
    )
    yield Step(
        "It leaked, and you have the value alone",
        (run("emergency", "--leak", "ask"),),
        "Asks for the value without echo. Never type a value on the command line.",
    )
    leaked = "Shows the plan, asks, replaces it in every store, revokes every live key of it and shows each dead."
    yield Step(
        "It leaked, and you know no more than that", (run("emergency", name, "--plan"), run("emergency", name)), leaked
    )
    if can is None or (can.registry and can.revokes):
        yield Step(
            "It is being abused at this moment",
            (run("emergency", name, "--contain-first"),),
            "Revokes before it replaces: everybody is out until it is replaced.",
        )
    if manual:
        yield Step(
            f"By hand: {issuer} lets only a person create its credentials",
            (run("submit", name, "--key-id", "NEW_ID"),),
            f"{policy.owner} creates the credential at {issuer}; this asks for it without echo, verifies and promotes it. Then "
            f"revoke {_ids(look)} there; `keyturn sweep` shows it dead.",
        )
    yield Step(
        "An emergency was cut off, or a key stays unproven",
        ("keyturn incident list", run("emergency", "--resume", incident), run("sweep")),
        "What is condemned stays so: any of these goes on, and each may be repeated.",
    )
    if (away := _away(assembly, look, run)) is not None:
        yield away
    if can is None or can.registry:
        yield Step(
            f"The admin credential of {issuer} leaked",
            (run("emergency", "--admin", issuer, "--plan"), run("emergency", "--admin", issuer, "--admin-replaced")),
            f"That comes first: {_admin(assembly, issuer)}. Once another one stands there and the old one is revoked, everything that "
            "it minted is replaced, not this secret alone.",
        )
    if not manual:
        yield Step(
            "Nothing leaked, but its consumers fail since a rotation",
            (run("rollback", name), run("rotate", name)),
            "Back to the previous credential while that lives; or forward to another one.",
        )
    yield Step(
        f"{policy.store} lost its metadata",
        (run("break-glass", "rebuild", name),),
        "Puts policy and journal together again, and asks before it writes. Revokes nothing.",
    )
    yield Step(
        "Afterwards",
        (
            run("thaw", name),
            run("audit", "show", "--secret", name, "--since", "1d"),
            run("audit", "verify"),
            run("drill"),
        ),
        "Scheduled work goes on; what happened; the trail is whole; it would work again.",
    )


def _ids(look: _Look) -> str:
    return ", ".join(key.key_id for key in _keys(look) if key.key_id) or "the leaked one"


def _away(assembly: Assembly, look: _Look, run: Any) -> Step | None:
    """What is left while its store is away."""
    policy, can = look.policy, look.capabilities
    if can is not None and not (can.registry and can.revokes and can.model is Model.MINT):
        return None
    known = [key.key_id for key in _keys(look) if key.key_id]
    key_id = known[0] if known else "KEY_ID"
    admin = selections.admin_of(assembly.config, policy.issuer)
    given = ("--admin-from", policy.issuer) if admin is not None and admin[0] == "store" else ()
    return Step(
        f"{policy.store} is down, and the key has to die now",
        (
            run("break-glass", "list", policy.issuer, *given),
            run("break-glass", "revoke", policy.issuer, key_id, "--value", *given),
        ),
        "Kills it at its issuer and replaces nothing: everybody fails until the store is back and a sweep has replaced it.",
    )


# --- showing ---------------------------------------------------------------------------------------


def as_json(found: Page) -> dict[str, Any]:
    """What a script reads."""
    plain = asdict(replace(found, about=()))
    plain["about"] = dict(found.about)
    plain["at"] = found.at.isoformat()
    for key in plain["keys"]:
        key["since"] = key["since"].isoformat() if key["since"] else None
    shown = masked_parts(plain)
    assert isinstance(shown, dict)
    return shown


def lines(found: Page) -> Iterator[tuple[str, str]]:
    """The page for a terminal: a kind (`title`, `text`, `command`, `warning`), and what stands there."""
    yield (
        "title",
        f"{found.name} ({found.environment}, {found.stack}), as seen {found.at:%Y-%m-%d %H:%M}Z: {found.phase}",
    )
    for told in found.unseen:
        yield "warning", f"Not seen: {told}"
    if found.differs:
        yield (
            "warning",
            f"{', '.join(found.differs)} in {found.stack} differ from what is applied, which is what counts.",
        )
    for label, text in found.about:
        yield "text", f"{label}: {text}"
    yield "title", "Where it is"
    for place in found.places:
        yield "text", _place(place)
    yield "title", "Its keys"
    for key in found.keys:
        yield "text", _key(key, found.at)
    if not found.keys:
        yield "text", "None is known."
    yield "title", "Who uses it"
    for one in found.consumers:
        within = show_duration(timedelta(seconds=one.refreshes_within_seconds))
        yield "text", f"{one.name}: reads again within {within}{f', {one.told} at once' if one.told else ''}"
    if not found.consumers:
        yield "text", "Nobody is declared."
    yield "title", "What breaks if it is revoked now"
    for text in found.breaks:
        yield "text", text
    for step in found.steps:
        yield "title", step.when
        for command in step.commands:
            yield "command", command
        yield "text", step.then


def _place(place: Place) -> str:
    told = f"{place.store} ({place.role}): {place.entry}, {place.where}; {place.state}"
    if place.readers:
        told += f"; may be read by {', '.join(place.readers)}"
    return told


def _key(key: Key, now: datetime) -> str:
    since = f", {show_duration(now - key.since)} old" if key.since else ""
    return f"{key.key_id or 'id not known'}: {key.role}{since}, {key.state}"


def markdown(found: Page) -> str:
    """The page as Markdown. What services say in it is shown as it stands, and is no markup."""
    parts: list[str] = []
    kind_before = ""
    for number, (kind, text) in enumerate(lines(found)):
        plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if kind_before == "command" and kind != "command":
            parts.append("```\n\n")
        if kind == "title":
            parts.append(f"\n{'#' if number == 0 else '##'} {plain.translate(_SPECIAL)}\n\n")
        elif kind == "command":
            parts.append(("" if kind_before == "command" else "```\n") + plain + "\n")
        elif kind == "warning":
            parts.append(f"**{plain.translate(_SPECIAL)}**\n\n")
        else:
            parts.append(f"{'' if kind_before == 'command' else '- '}{plain.translate(_SPECIAL)}\n")
        kind_before = kind
    return masked("".join(parts).lstrip() + ("```\n" if kind_before == "command" else ""))


_SPECIAL: Final = str.maketrans({c: f"\\{c}" for c in "\\|*_<>[]"})
