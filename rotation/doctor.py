"""Could we rotate? Everything that a rotation leans on, looked at side by side before anything is minted.

    doctor.store(name)     answers, login, permissions, quota, clock, entries that nobody declares
    doctor.secret(policy)  applied as declared, what it hands out is accepted from here, who else reads it
    doctor.issuer(name)    administrative credential, accepted, its end, room for one more key, limits, clock

Nothing is written, minted or revoked, and no credential that is on its way out is shown to its issuer. What
can not be told is said to be unchecked, with the reason; every failure says who must do what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from rotation import access, checkup, sweep
from rotation.assembly import SANDBOX, Assembly
from rotation.clock import SystemClock
from rotation.config import ConfigError
from rotation.errors import Code, Trouble
from rotation.model import Capabilities, KeyInfo, Model, Policy, Verdict
from rotation.policy import show_duration
from rotation.ports import Diagnosis, ExaminedIssuer, ExaminedStore, Grade, Issuer, SecretStore, TellsReaders, TellsTime
from rotation.resilience import PatientIssuer, PatientStore
from rotation.situation import Observation

APART: Final = timedelta(seconds=30)
"""Clocks that differ by more are warned of."""
TOO_FAR_APART: Final = timedelta(minutes=5)
"""From here on grace and quiet periods, which rest on the clock, can not be trusted."""


class Kind(StrEnum):
    """What a line is about."""

    STORE = "store"
    ISSUER = "issuer"
    SECRET = "secret"  # noqa: S105 - the word


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at."""

    kind: Kind
    name: str
    """As configured."""
    found: Diagnosis

    def as_json(self) -> dict[str, object]:
        return {
            "kind": self.kind.value,
            "name": self.name,
            "check": self.found.check,
            "grade": self.found.grade.value,
            "text": self.found.text,
            "remedy": self.found.remedy or None,
        }


@dataclass(slots=True, eq=False)
class Doctor:
    """Looks at one stack. Stores first, then secrets, then issuers: the later ones use what the earlier have told.

    Parameters:
        assembly: stores and issuers are opened as they are looked at.
        policies: the declared secrets to look at.
        file: what messages call the configuration.
        everything: no secrets were picked, so that what is applied and not declared is told, too.
    """

    assembly: Assembly
    policies: Sequence[Policy]
    file: str
    everything: bool = True
    _silent: set[str] = field(default_factory=set)
    """Stores that gave no answer."""
    _readers: dict[str, Mapping[str, Sequence[str]] | str] = field(default_factory=dict)
    """By store: by entry who reads it, or why that is not known."""
    _key_ids: dict[str, set[str]] = field(default_factory=dict)
    """By issuer: of the keys that entries claim."""
    _lines: dict[str, list[Diagnosis]] = field(default_factory=dict)
    """By secret: what its stores have told of it."""

    @property
    def stores(self) -> list[str]:
        used = dict.fromkeys(store for policy in self.policies for store in policy.stores)
        return list(self.assembly.config.stores) if self.everything else list(used)

    @property
    def issuers(self) -> list[str]:
        used = dict.fromkeys(policy.issuer for policy in self.policies)
        return list(self.assembly.config.issuers) if self.everything else list(used)

    # --- stores ----------------------------------------------------------------------------------

    def store(self, name: str) -> list[Line]:
        """Everything about one store; what is about one entry alone is kept for its secret."""
        return [Line(Kind.STORE, name, found) for found in self._store(name)]

    def _store(self, name: str) -> Iterator[Diagnosis]:
        try:
            store = _bare_store(self.assembly.stores[name])
            strays, count = self._listed(name, store)
        except ConfigError as error:
            self._silent.add(name)
            yield _failing("answers", str(error), f"whoever runs this: give the login that {self.file} names")
            return
        except Trouble as trouble:
            self._silent.add(name)
            yield _failing("answers", str(trouble), _who(trouble.code, f"the store {name}"))
            return
        secrets = {
            self.assembly.places.entry_name(name, policy.environment, policy.name): policy.name
            for policy in self.policies
            if name in policy.stores
        }
        yield _good("answers", f"lists its entries; {_count(count, 'is', 'are')} of this installation")
        if isinstance(store, ExaminedStore):
            for found in store.examine(self._work(name)):
                if found.entry in secrets:
                    self._lines.setdefault(secrets[found.entry], []).append(_in(name, found))
                else:
                    yield found
        else:
            yield _unchecked("permissions", "this store does not tell them but by use")
        yield self._clock(store, f"the store {name}")
        if strays and self.everything:
            told = f"applied here and not declared in {self.file}: {', '.join(strays)}"
            remedy = f"platform engineer: declare them, or `keyturn release` them; sweeps of {self.file} rotate them"
            yield Diagnosis("entries", Grade.WARNING, told, remedy)
        if isinstance(store, TellsReaders):
            try:
                self._readers[name] = store.readers(list(secrets))
            except Trouble as trouble:
                self._readers[name] = str(trouble)
        else:
            self._readers[name] = f"{name} does not tell who reads an entry"

    def _work(self, store: str) -> Mapping[str, Collection[str]]:
        """What sweeps do in a store, by entry; an issuer's administrative credential may be among them."""
        wanted = access.needs(self.assembly.config, access.Persona.ROTATE, self.policies, mints=False)
        return {grant.entry: grant.operations for grant in wanted[store].grants} if store in wanted else {}

    def _listed(self, name: str, store: SecretStore) -> tuple[list[str], int]:
        """Entries of this installation and environment here that nobody declares, and how many there are in all."""
        config = self.assembly.config
        declared = {policy.name for policy in config.policies}
        ours = [
            listed.policy
            for listed in store.listing()
            if listed.policy.get("installation") == config.installation
            and listed.policy.get("environment") == config.environment
        ]
        primary = (policy.get("name", "?") for policy in ours if policy.get("store") == name)
        return sorted(entry for entry in primary if entry not in declared), len(ours)

    # --- secrets ---------------------------------------------------------------------------------

    def secret(self, policy: Policy) -> list[Line]:
        """Everything about one declared secret."""
        return [Line(Kind.SECRET, policy.name, found) for found in self._secret(policy)]

    def _secret(self, policy: Policy) -> Iterator[Diagnosis]:
        yield from self._lines.get(policy.name, ())
        if policy.store in self._silent:
            yield _unchecked("configuration", f"the store {policy.store} can not be asked, see above")
            return
        try:
            seen = self.assembly.engine.observe(self.assembly.target(policy))
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND:
                yield _unchecked("configuration", "it is not applied yet; `pulumi up` makes it")
            else:
                yield _failing("configuration", str(trouble), _who(trouble.code, f"the store {policy.store}"))
            return
        yield from self._configured(seen.policy)
        yield from self._handed_out(seen)
        for name in seen.policy.stores:
            if name not in self._silent and name in self.assembly.config.stores:
                yield from self._read_by(name, seen.policy)

    def _handed_out(self, seen: Observation) -> Iterator[Diagnosis]:
        """Whether what the stores hand out is accepted from where this runs."""
        policy, name = seen.policy, seen.policy.issuer
        if name not in self.assembly.config.issuers:
            told = f"it is applied with the issuer {name}, which {self.file} lacks"
            yield _failing("current credential", told, f"platform engineer: declare {name} again, or apply another")
            return
        try:
            issuer = self.assembly.issuers[name]
        except ConfigError as error:
            yield _failing("current credential", str(error), f"whoever runs this: give what {self.file} names")
            return
        claimed = self._key_ids.setdefault(name, set())
        claimed.update(seen.primary.journal.key_ids.values())
        for found in checkup.findings(self.assembly.engine, issuer, seen, policy.name):
            if found.key_id:
                claimed.add(found.key_id)
            yield _accepted(found, policy, registry=issuer.capabilities.registry)

    def _configured(self, applied: Policy) -> Iterator[Diagnosis]:
        config, fine = self.assembly.config, True
        declared = {policy.name: policy for policy in config.policies}
        if unapplied := sweep.unapplied(config, applied):
            fine = False
            told = f"{', '.join(unapplied)} in {self.file} differ from what is applied, which counts"
            yield _warning("configuration", told, "platform engineer: apply them with `pulumi up`, or take them back")
        late = [c for c in applied.consumers if c.refresh_within > applied.grace]
        for consumer in late:
            fine = False
            within, grace = show_duration(consumer.refresh_within), show_duration(applied.grace)
            told = f"{consumer.name} may use what it has read for {within}, longer than the grace period of {grace}"
            remedy = f"platform engineer: declare a grace of at least {within} and apply it, or refresh sooner"
            yield _failing("configuration", told, remedy)
        pair = declared.get(applied.paired_with or "")
        if applied.paired_with and (pair is None or pair.paired_with != applied.name):
            fine = False
            told = (
                f"it is paired with {applied.paired_with}, which is not declared as its pair: nothing keeps them apart"
            )
            yield _warning("configuration", told, "platform engineer: pair both with each other, or neither, and apply")
        if applied.owner not in config.owners:
            fine = False
            told = f"its owner {applied.owner} is not declared in {self.file}: nobody is told what happens to it"
            yield _warning("configuration", told, f"platform engineer: declare {applied.owner} under keyturn:owners")
        if fine:
            yield _good("configuration", f"applied as declared; owner {applied.owner}")

    def _read_by(self, store: str, policy: Policy) -> Iterator[Diagnosis]:
        """Who else may read it. A reader is a declared one when it goes by a consumer's name."""
        known = self._readers.get(store, "")
        if isinstance(known, str):
            yield _unchecked("readers", known or f"{store} was not asked")
            return
        entry = self.assembly.places.entry_name(store, policy.environment, policy.name)
        declared = {consumer.name for consumer in policy.consumers}
        strange = [reader for reader in known.get(entry, ()) if _short(reader) not in declared]
        if strange:
            told = f"{store} lets others read it than the declared consumers: {', '.join(strange)}"
            remedy = "owner: declare each under consumers, by that name, or have its right to read taken away"
            yield _warning("readers", told, remedy)
        elif entry in known:
            yield _good("readers", f"{store} names nobody beside the declared consumers")

    # --- issuers ---------------------------------------------------------------------------------

    def issuer(self, name: str) -> list[Line]:
        """Everything about one issuer."""
        return [Line(Kind.ISSUER, name, found) for found in self._issuer(name)]

    def _issuer(self, name: str) -> Iterator[Diagnosis]:
        source = self._source(name)
        try:
            issuer = _bare_issuer(self.assembly.issuers[name])
        except ConfigError as error:
            yield _failing("admin credential", f"{source}: {error}", f"whoever runs this: give what {self.file} names")
            return
        if not issuer.capabilities.registry:
            yield _good("service", "values are drawn here: no credential, limit or clock to look at")
            return
        try:
            live = list(issuer.keys())
        except Trouble as trouble:
            refused = f"issuer's administrator: see that the credential {source} exists, lives and may list keys"
            remedy = refused if trouble.code is Code.DENIED else _who(trouble.code, f"the issuer {name}")
            yield _failing("admin credential", f"{source}: {trouble}", remedy)
            yield from self._clock_if_told(issuer, name)
            return
        yield _good("admin credential", f"{source}, is accepted")
        yield self._room(name, issuer.capabilities, live)
        if isinstance(issuer, ExaminedIssuer):
            yield from issuer.examine()
        yield self._clock(issuer, f"the issuer {name}")

    def _clock_if_told(self, issuer: object, name: str) -> Iterator[Diagnosis]:
        if isinstance(issuer, TellsTime) and issuer.skew is not None:
            yield self._clock(issuer, f"the issuer {name}")

    def _source(self, name: str) -> str:
        """Where the administrative credential comes from, in words."""
        admin = getattr(self.assembly.config.issuers[name], "admin", None)
        if (variable := getattr(admin, "env", None)) is not None:
            return f"from the environment variable {variable}"
        if (store := getattr(admin, "store", None)) is not None:
            return f"from the entry {getattr(admin, 'name', '?')} in {store}"
        return "from this machine's own login"

    def _room(self, name: str, can: Capabilities, live: Sequence[KeyInfo]) -> Diagnosis:
        """Whether one more key fits, which every rotation needs for a while."""
        prefix, claimed = f"{self.assembly.config.installation}.", self._key_ids.get(name, set())
        ours = sum(key.name.startswith(prefix) or key.key_id in claimed for key in live)
        others = len(live) - ours
        told = f"{_count(len(live), 'key', 'keys')} live there: {ours} of ours, {others} of others"
        if can.model is not Model.MINT:
            return _good("key limit", f"by its kind a rotation takes no further key ({can.model.value}); {told}")
        if can.max_keys is None:
            return _good("key limit", f"none is known; {told}")
        most, secrets = can.max_keys, sum(policy.issuer == name for policy in self.assembly.config.policies)
        told = f"{told}; at most {most} are allowed"
        if secrets >= most:
            told = (
                f"{told}, and {_count(secrets, 'secret is', 'secrets are')} declared, while a rotation needs one more"
            )
            return _failing("key limit", told, f"platform engineer: spread the secrets of {name} over several issuers")
        if len(live) < most:
            return _good("key limit", told)
        if others:
            remedy = f"issuer's administrator: remove keys there that are not ours, or give {name} a user of its own"
            return _failing("key limit", f"{told}, so that no rotation can mint", remedy)
        remedy = "nobody yet: the next rotation waits until sweeps have revoked what drains"
        return _warning("key limit", told, remedy)

    # --- clocks ----------------------------------------------------------------------------------

    def _clock(self, service: object, what: str) -> Diagnosis:
        if not isinstance(service, TellsTime) or service.skew is None:
            return _unchecked("clock", f"{what} does not say the time")
        clock = self.assembly.clock
        if self.assembly.config.environment == SANDBOX and abs(clock.now() - SystemClock().now()) > APART:
            return _unchecked("clock", "the sandbox's clock is moved on purpose, and not every stand-in follows it")
        skew = service.skew
        gap = abs(skew)
        if gap <= APART:
            return _good("clock", f"within {_seconds(max(gap, timedelta(seconds=1)))} of this machine's")
        told = f"this machine is {_seconds(gap)} {'ahead of' if skew > timedelta(0) else 'behind'} {what}"
        remedy = "operator: set this machine's clock by NTP; grace and quiet periods are counted by it"
        grade = Grade.FAILING if gap > TOO_FAR_APART else Grade.WARNING
        return Diagnosis("clock", grade, told, remedy)


# --- words -----------------------------------------------------------------------------------------


def _accepted(found: checkup.Finding, policy: Policy, *, registry: bool) -> Diagnosis:
    check, where, issuer = "current credential", found.store, policy.issuer
    if not found.shown:
        told = found.reason if found.reason.startswith(f"{where}: ") else f"{where}: {found.reason}"
        if found.trouble is None:
            return _unchecked(check, told)
        return _failing(check, told, _who(found.trouble, f"the store {where}"))
    if not registry and found.verdict.live:
        return _unchecked(check, f"{where}: {found.reason}; there is nobody to ask but its consumers")
    if found.verdict is Verdict.INVALID:
        remedy = f"on-call: `keyturn rotate {policy.name}` replaces it; until then its consumers can not log in"
        return _failing(check, f"{issuer} refuses what {where} hands out: {found.reason}", remedy)
    if found.verdict is Verdict.UNKNOWN:
        told = f"{issuer} does not tell from this address what the credential in {where} is worth: {found.reason}"
        remedy = (
            f"issuer's administrator: admit this address to {issuer} (IP allowlist), or run Keyturn where consumers run; "
            "without a clear answer no rotation is finished"
        )
        return _failing(check, told, remedy)
    if not found.agrees:
        told = f"{where} hands out another value than {policy.store}, which {issuer} accepts: {found.reason}"
        return _warning(check, told, f"nobody yet: the next sweep copies the value of {policy.store}")
    if found.verdict is Verdict.LIMITED:
        remedy = f"owner: see to quota and scopes of the key at {issuer}"
        return _warning(check, f"{where}: {issuer} accepts it with limits: {found.reason}", remedy)
    return _good(check, f"{where}: {issuer} accepts it from here: {found.reason}")


def _who(code: Code, what: str) -> str:
    """Who sees to a refusal or a silence."""
    match code:
        case Code.DENIED:
            return f"administrator of {what}: give this login what it lacks; `docs/doctor.md` lists it"
        case Code.UNAVAILABLE | Code.THROTTLED:
            return f"operator: see that {what} runs, and that this machine reaches it; then run this again"
    return f"platform engineer: put right what is said about {what}, in the stack file or there"


def _good(check: str, text: str) -> Diagnosis:
    return Diagnosis(check, Grade.GOOD, text)


def _warning(check: str, text: str, remedy: str) -> Diagnosis:
    return Diagnosis(check, Grade.WARNING, text, remedy)


def _failing(check: str, text: str, remedy: str) -> Diagnosis:
    return Diagnosis(check, Grade.FAILING, text, remedy)


def _unchecked(check: str, why: str) -> Diagnosis:
    return Diagnosis(check, Grade.UNCHECKED, why)


def _in(store: str, found: Diagnosis) -> Diagnosis:
    return Diagnosis(found.check, found.grade, f"{store}: {found.text}", found.remedy, found.entry)


def _short(reader: str) -> str:
    """The last part of an ARN; a plain name as it is."""
    return reader.rpartition("/")[2]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _seconds(gap: timedelta) -> str:
    seconds = gap.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else show_duration(gap)


def _bare_store(store: SecretStore) -> SecretStore:
    return store.bare if isinstance(store, PatientStore) else store


def _bare_issuer(issuer: Issuer) -> Issuer:
    return issuer.bare if isinstance(issuer, PatientIssuer) else issuer


def fails(lines: Iterable[Line]) -> bool:
    """Whether something does."""
    return any(line.found.grade is Grade.FAILING for line in lines)
