"""Which secrets an incident is about: every way to say it, and what each comes to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from rotation.config import nearest
from rotation.declared import Config
from rotation.engine import Target
from rotation.errors import Trouble
from rotation.model import Policy
from rotation.policy import show_duration
from rotation.situation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was said on the command line. Values of one selector are alternatives; several selectors narrow each other."""

    names: tuple[str, ...] = ()
    everything: bool = False
    """All of the stack, where no other selector narrows it."""
    owners: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    """As primary or replica."""
    issuers: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    """Of the issuer, by its own id, as in proj_abc."""
    admins: tuple[str, ...] = ()
    """Issuers whose administrative credential is compromised: everything that it minted."""
    service_accounts: tuple[str, ...] = ()
    """Of the issuer, by its own id."""
    tags: tuple[tuple[str, str], ...] = ()
    older_than: timedelta | None = None
    """By the age of the current credential; one whose age is not known counts as older."""
    readers: tuple[str, ...] = ()
    """Names of consumers, or of roles as a store knows them."""
    leaked: tuple[Target, ...] | None = None
    """Secrets of which a report has a credential that is alive; None where there is no report."""
    leaked_admins: tuple[str, ...] = ()
    """Issuers whose administrative credential stands in that report: what they minted counts as leaked, too."""

    @property
    def plain(self) -> bool:
        """Whether it is names and nothing else."""
        return self == Selection(names=self.names) and bool(self.names)

    @property
    def empty(self) -> bool:
        """Whether nothing was said at all."""
        return self == Selection()

    def words(self) -> str:
        """For people and records."""
        if self.plain:
            return ", ".join(self.names)
        parts = [
            *(["everything"] if self.everything else []),
            *(["what leaked"] if self.leaked is not None else []),
            *([", ".join(self.names)] if self.names else []),
        ]
        for word, given in (
            ("owner", self.owners),
            ("environment", self.environments),
            ("store", self.stores),
            ("issuer", self.issuers),
            ("project", self.projects),
            ("admin credential of", self.admins),
            ("service account", self.service_accounts),
            ("tag", tuple("=".join(tag) for tag in self.tags)),
            ("readable by", self.readers),
        ):
            if given:
                parts.append(f"{word} {' or '.join(given)}")
        if self.older_than is not None:
            parts.append(f"older than {show_duration(self.older_than)}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A secret that may be chosen, with what one look has told of it."""

    target: Target
    policy: Policy
    """The applied one; the declared one where the store gave no answer."""
    seen: Observation | None = None
    trouble: Trouble | None = None
    """Why it was not seen."""
    since: datetime | None = None
    """When its current credential became current; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read what, as far as stores tell."""

    by_store: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """By store and entry: the names under which the store knows its readers."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Stores that do not tell, with the reason."""


def by_policy(
    selection: Selection,
    candidates: Iterable[Candidate],
    config: Config,
    readers: Readers,
    entry_name: Mapping[tuple[str, Target], str],
) -> list[Candidate]:
    """Those that are chosen by what is declared, applied and told of them; age is not looked at.

    A secret that is a compromised administrative credential itself is always among them.

    Parameters:
        readers: see Selection.readers.
        entry_name: by store and secret, what its entry is called there.
    """
    admins = {issuer for admin in selection.admins for issuer in sharing_admin(config, admin)}
    leaked_admins = {issuer for admin in selection.leaked_admins for issuer in sharing_admin(config, admin)}
    compromised = compromised_admins(config, selection)

    def chosen(one: Candidate) -> bool:
        policy, about = one.policy, config.issuers.get(one.policy.issuer)
        asked: tuple[tuple[Sequence[Any] | None, bool], ...] = (
            (selection.names, policy.name in selection.names),
            (selection.owners, policy.owner in selection.owners),
            (selection.environments, policy.environment in selection.environments),
            (selection.stores, any(store in policy.stores for store in selection.stores)),
            (selection.issuers, policy.issuer in selection.issuers),
            (selection.projects, getattr(about, "project", None) in selection.projects),
            (selection.admins, policy.issuer in admins),
            (selection.service_accounts, getattr(about, "service_account", None) in selection.service_accounts),
            (selection.tags, any(tag in policy.tags for tag in selection.tags)),
            (selection.readers, any(reads(reader, one, readers, entry_name) for reader in selection.readers)),
        )
        leaked = selection.leaked is None or one.target in selection.leaked or policy.issuer in leaked_admins
        narrowed = leaked and all(holds for given, holds in asked if given)
        return narrowed or holds_admin(one, compromised, entry_name)

    return [one for one in candidates if chosen(one)]


def by_age(selection: Selection, candidates: Iterable[Candidate], now: datetime) -> list[Candidate]:
    """Those of them that are old enough. What is not known to be young is."""
    limit = selection.older_than
    if limit is None:
        return list(candidates)
    return [one for one in candidates if one.since is None or now - one.since > limit]


def reads(role: str, one: Candidate, readers: Readers, entry_name: Mapping[tuple[str, Target], str]) -> bool:
    """Whether a role may read a secret: a consumer that is declared by this name, or one that a store names.

    A store's own name may be longer, as an ARN is: its last part counts, too.
    """
    if any(role == consumer.name for consumer in one.policy.consumers):
        return True
    for store in one.policy.stores:
        told = readers.by_store.get(store, {}).get(entry_name.get((store, one.target), ""), ())
        if any(role in (name, _last(name)) for name in told):
            return True
    return False


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def sharing_admin(config: Config, issuer: str) -> tuple[str, ...]:
    """Every issuer that works with the same administrative credential as this one, itself included."""
    admin = admin_of(config, issuer)
    if admin is None:
        return (issuer,)
    return tuple(name for name in config.issuers if name == issuer or admin_of(config, name) == admin)


_REFERENCES: Final = (("env", ("env",)), ("store", ("store", "name")))


def admin_of(config: Config, issuer: str) -> tuple[str, ...] | None:
    """Where an issuer's administrative credential stands: ("env", NAME) or ("store", STORE, ENTRY).

    None where it has none in the configuration: nothing is minted with it, or it is the machine's own login.
    """
    reference = getattr(config.issuers.get(issuer), "admin", None)
    for kind, fields in _REFERENCES:
        if reference is not None and hasattr(reference, kind):
            return (kind, *(str(getattr(reference, name)) for name in fields))
    return None


def compromised_admins(config: Config, selection: Selection) -> frozenset[tuple[str, ...]]:
    """Where the compromised administrative credentials stand; see admin_of()."""
    found = (admin_of(config, issuer) for issuer in (*selection.admins, *selection.leaked_admins))
    return frozenset(admin for admin in found if admin is not None)


def holds_admin(
    one: Candidate, admins: frozenset[tuple[str, ...]], entry_name: Mapping[tuple[str, Target], str]
) -> bool:
    """Whether a secret's own entry is where one of these administrative credentials stands."""
    return any(("store", store, entry_name.get((store, one.target), "")) in admins for store in one.policy.stores)


def faults(selection: Selection, config: Config) -> list[str]:
    """What was named and is not there, each with what is: a slip of the pen must not look like a small blast radius."""
    known: tuple[tuple[str, Sequence[str], Collection[str]], ...] = (
        ("owner", selection.owners, config.owners),
        ("environment", selection.environments, [config.environment]),
        ("store", selection.stores, config.stores),
        ("issuer", selection.issuers, config.issuers),
        ("admin", selection.admins, config.issuers),
    )
    return [
        f"--{option}: there is no {name} in this stack{nearest(name, there)}; there is: {', '.join(there) or 'none'}"
        for option, given, there in known
        for name in given
        if name not in there
    ]
