"""Tells whose a leaked value is: which secret, which of its credentials, and whether anything of ours lives.

    matches = match(assembly, findings, managed, unseen)
    exit_code(matches)

Evidence, in the order in which it is asked for, each only for what is still unexplained:

    1  fingerprints and key ids in the journals      one look at each secret, side by side; no value is compared
    2  values in stores                              of credentials that have no fingerprint
    3  key ids and redacted forms in issuers' lists  orphans, and keys that nobody manages
    4  admin credentials                             by value, here
    5  the issuer's own verdict                      of values that look like its keys; never of others

Nothing is changed. No value leaves this process but to the issuer that it is plausibly of.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

from providers import registry
from rotation import fleet, orphans
from rotation.assembly import Assembly
from rotation.checkup import Held, held_by
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.journal import Journal, Why
from rotation.leaks.finding import Finding
from rotation.leaks.fingerprint import Fingerprints, telling
from rotation.looking import named_as_adopted
from rotation.model import Credential, Entry, KeyInfo, Policy, SecretValue, Verdict, Version
from rotation.names import KeyName, token_in
from rotation.situation import Evidence, Observation, Order, Situation

MOST_SHOWN: Final = 20
"""Values of one report that are shown to an issuer: a report of thousands must not look like an attack on it."""
KNOWN: Final = 4
"""Characters that a redacted form must show at either end to tell which key it is."""
_KEY_ID: Final = 8
"""Characters of what may be taken for a key id."""
_LEFT_OUT: Final = re.compile(r"\.{2,}|\*{2,}|…+|•{2,}")


class Standing(StrEnum):
    """What a finding is to us."""

    CURRENT = "current"
    """What stores hand out."""
    PREVIOUS = "previous"
    """Was current, and has not been shown dead yet."""
    PENDING = "pending"
    """Minted, and never current."""
    ORPHAN = "orphan"
    """Minted by us, alive at its issuer, and no journal claims it."""
    ADMIN = "admin"
    """An issuer's administrative credential."""
    DEAD = "dead"
    """Shown dead, or refused by its issuer."""
    UNMANAGED = "unmanaged"
    """Listed by an issuer of ours, and of no secret of this stack."""
    STRANGER = "stranger"
    """Nothing of ours, as far as everything that was asked has answered."""
    UNKNOWN = "unknown"
    """Could not be told: something did not answer, or the report shows too little of the value."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """What one finding is. Nothing but `finding.value` holds a value."""

    finding: Finding
    standing: Standing
    policy: Policy | None
    """The secret that it is of, by its applied policy."""
    target: Target | None
    token: str | None
    """What the credential goes by in the journal of that secret."""
    key_id: str | None
    how: str
    """On what evidence, in words."""
    next_step: str
    """What is to be done about it, and by whom."""
    alive: bool
    """It may be accepted somewhere. For a stranger's this is the issuer's word; it is nobody of ours who has to act."""
    issuer: str | None = None
    """The configured name of the issuer that it is of, where that is known."""


DONE, FAILED, ALIVE = 0, 1, 3


def exit_code(matches: Iterable[Match]) -> int:
    """Of `--check`: 3 when something of ours is alive, 1 when that could not be told of something, else 0."""
    seen = [*matches]
    if any(found.alive and found.standing is not Standing.STRANGER for found in seen):
        return ALIVE
    return FAILED if any(found.standing is Standing.UNKNOWN for found in seen) else DONE


def match(
    assembly: Assembly,
    findings: Sequence[Finding],
    managed: Sequence[tuple[Target, Policy]],
    unseen: Sequence[Trouble] = (),
    *,
    journals_only: bool = False,
) -> list[Match]:
    """One Match for each finding, in their order; several for a value that several secrets hold.

    Parameters:
        managed: every secret to look at: inventory.managed(), or some.
        unseen: what stood in the way of finding others. What nothing explains is then UNKNOWN, not a stranger.
        journals_only: stops after the first kind of evidence: no value is read from a store, and no issuer is asked.

    Raises:
        ConfigError: a login that a store or issuer needs is not set.
    """
    grouped: dict[tuple[str, str, str], list[int]] = {}
    local = Fingerprints(SecretValue(secrets.token_urlsafe(32)))  # of this call: equal values are looked for once
    for number, finding in enumerate(findings):
        same = (local.of(finding.value) if finding.value else "", finding.redacted or "", finding.rule)
        grouped.setdefault(same, []).append(number)
    heads = [findings[numbers[0]] for numbers in grouped.values()]
    found: dict[int, list[Match]] = {}
    search = _Search(assembly, managed, unseen, local)
    found_of = search.by_journals(heads) if journals_only else search.all(heads)
    for numbers, matches in zip(grouped.values(), found_of, strict=True):
        for number in numbers:
            found[number] = [replace(one, finding=findings[number]) for one in matches]
    return [one for number in sorted(found) for one in found[number]]


@dataclass(slots=True, eq=False)
class _Look:
    """One secret as it was seen."""

    target: Target
    seen: Observation
    s: Situation

    @property
    def policy(self) -> Policy:
        return self.seen.policy

    @property
    def name(self) -> str:
        return self.policy.name


@dataclass(slots=True, eq=False)
class _Case:
    """One finding on its way."""

    finding: Finding
    texts: tuple[str, ...]
    """What may be the value in what was found."""
    matches: list[Match] = field(default_factory=list)


class _Search:
    """One report against one stack."""

    def __init__(
        self,
        assembly: Assembly,
        managed: Sequence[tuple[Target, Policy]],
        unseen: Sequence[Trouble],
        local: Fingerprints,
    ) -> None:
        self._assembly = assembly
        self._managed = managed
        self._local = local
        self._silent = [str(trouble) for trouble in unseen]
        """Why something could not be looked at."""
        self._looks: list[_Look] = []
        self._listed: Mapping[str, list[KeyInfo]] = {}
        self._shown = 0

    def all(self, findings: Sequence[Finding]) -> list[list[Match]]:
        cases = [_Case(finding, tuple(_texts(finding))) for finding in findings]

        def open_cases() -> list[_Case]:
            return [case for case in cases if not case.matches]

        self._look()
        self._by_journal(cases)
        if left := open_cases():
            self._by_value([case for case in left if case.texts], dict.fromkeys(self._unprinted()))
        if left := open_cases():
            self._by_list(left)
        if left := [case for case in open_cases() if not case.texts]:
            self._by_value(left, dict.fromkeys(self._undisplayed()))
        if left := open_cases():
            self._by_admin(left)
        for case in open_cases():
            case.matches.append(self._verdict(case))
        return [case.matches for case in cases]

    def by_journals(self, findings: Sequence[Finding]) -> list[list[Match]]:
        """As all(), by the first kind of evidence alone."""
        cases = [_Case(finding, tuple(_texts(finding))) for finding in findings]
        self._read_listings()
        self._by_journal(cases)
        bare = len({*self._unprinted()})
        more = f"; {bare} of our credentials have no fingerprint, so it may be one of them" if bare else ""
        for case in cases:
            if not case.matches:
                told = (
                    f"no fingerprint of it stands in a journal{more}" if case.texts else "the report has no value of it"
                )
                case.matches.append(self._unexplained(case.finding, told, sure=bool(case.texts)))
        return [case.matches for case in cases]

    # --- 1: what journals say --------------------------------------------------------------------

    def _read_listings(self) -> None:
        """As _look(), by what stores list: who may read metadata and no value, not even a pending one, can do this."""
        assembly = self._assembly
        facts: dict[Target, Mapping[str, str]] = {}
        for store in {target.store for target, _ in self._managed}:
            try:
                facts |= {Target(store, one.name): one.facts for one in assembly.stores[store].listing()}
            except Trouble as trouble:
                self._silent.append(str(trouble))
        apart: list[tuple[Target, Policy]] = []
        for target, policy in self._managed:
            journal = Journal(facts.get(target, {}))
            # Where listings bring less than the journal, neither of the two is among it.
            if journal.facts and not (journal.attempts or journal.adopted):
                apart.append((target, policy))
                continue
            token = max(journal.promoted.keys() - journal.proven.keys(), key=journal.promoted.__getitem__, default=None)
            current = Version(journal.adopted.get(token, ""), token) if token else None
            now = assembly.clock.now()
            entry = named_as_adopted(Entry(target.store, target.entry, now, current, None, journal))
            seen = Observation(policy, entry, {})
            can = registry.capabilities(assembly.config.issuers[policy.issuer], assembly.config.root)
            can = can or assembly.issuers[policy.issuer].capabilities
            self._looks.append(_Look(target, seen, Situation(seen, Evidence(), can, Order(), now)))
        self._managed = apart
        self._look()

    def _look(self) -> None:
        """One look at the primary of each secret."""
        assembly = self._assembly

        def observe(item: tuple[Target, Policy]) -> _Look | Trouble:
            target, policy = item
            try:
                entry = assembly.stores[target.store].observe(target.entry)
                issuer = assembly.issuers[policy.issuer].capabilities
            except Trouble as trouble:
                return trouble
            seen = Observation(policy, named_as_adopted(entry), {})
            return _Look(target, seen, Situation(seen, Evidence(), issuer, Order(), assembly.clock.now()))

        looked = dict(fleet.each(self._managed, observe))
        for item in self._managed:
            found = looked[item]
            if isinstance(found, Trouble):
                self._silent.append(str(found))
            else:
                self._looks.append(found)

    def _by_journal(self, cases: Iterable[_Case]) -> None:
        prints = self._assembly.fingerprints.ready()
        by_print: dict[str, list[tuple[_Look, str]]] = {}
        by_id: dict[str, list[tuple[_Look, str]]] = {}
        for look in self._looks:
            for token, known in look.seen.primary.journal.prints.items():
                for one in known:
                    by_print.setdefault(one, []).append((look, token))
            for token in look.s.keys:
                for name in _ids(look.s.key_id(token)):
                    by_id.setdefault(name, []).append((look, token))
        for case in cases:
            for text in case.texts:
                places = by_print.get(prints.of(SecretValue(text)), []) if prints else []
                how = "its fingerprint stands in the journal"
                if not places and (places := by_id.get(text, [])):
                    how = "it is a key id in the journal; the id alone opens nothing"
                case.matches += [self._known(case.finding, look, token, how) for look, token in places]
                if case.matches:
                    break

    def _known(self, finding: Finding, look: _Look, token: str, how: str) -> Match:
        """A credential of a secret, as its journal has it."""
        s, journal, name = look.s, look.seen.primary.journal, look.name
        attempt, proven = journal.attempts.get(token), token in journal.proven
        ends = journal.expires.get(token)
        dead = proven or (ends is not None and ends <= s.now)
        standing, step = Standing.PREVIOUS, f"`keyturn emergency {name}` ends its drain: revoked now, and shown dead"
        if token == s.handed_out:
            standing, step = Standing.CURRENT, f"`keyturn emergency {name}` replaces it, revokes it and shows it dead"
            if dead:
                step = f"dead, and still handed out: `keyturn sweep` replaces it; readers of {name} are without access"
        elif dead:
            standing, step = Standing.DEAD, "nothing: it is shown dead; find out how it got there"
        elif attempt is not None and attempt.why is Why.ORPHAN:
            standing, step = Standing.ORPHAN, f"`keyturn emergency {name}` revokes it now; it is condemned already"
        elif s.promoted_at(token) is None and token not in journal.adopted:
            standing, step = Standing.PENDING, f"`keyturn emergency {name}` revokes it; it is never promoted then"
        elif token in journal.revoked:
            step = "revoked, and not shown dead yet: `keyturn sweep` asks its issuer again"
        if token in journal.foreign and not dead:
            step += "; a person made it, so that person has to revoke it at its issuer"
        elif not s.issuer.registry and not dead:
            step += "; nobody revokes a generated value: whoever accepts it has to stop"
        return _as(
            finding,
            standing,
            how,
            step,
            alive=not dead,
            issuer=look.policy.issuer,
            key_id=s.key_id(token),
            token=token,
            of=look,
        )

    # --- 2: what stores hold ---------------------------------------------------------------------

    def _unprinted(self) -> Iterator[tuple[_Look, str]]:
        """Credentials that no fingerprint tells of: older than the key, or of fields that get none."""
        ours = self._assembly.fingerprints.ready()
        for look, token in self._alive():
            known = look.seen.primary.journal.prints.get(token, ())
            if ours is None or not any(map(ours.made, known)):
                yield look, token

    def _undisplayed(self) -> Iterator[tuple[_Look, str]]:
        """Credentials of which no list shows a redacted form."""
        shown = {info.key_id for infos in self._listed.values() for info in infos if info.redacted}
        for look, token in self._alive():
            if look.s.key_id(token) not in shown:
                yield look, token

    def _alive(self) -> Iterator[tuple[_Look, str]]:
        for look in self._looks:
            journal = look.seen.primary.journal
            tokens = {look.s.handed_out, look.s.key_of(look.s.pending), *look.s.keys}
            yield from ((look, token) for token in sorted(filter(None, tokens)) if token not in journal.proven)

    def _by_value(self, cases: Sequence[_Case], places: Mapping[tuple[_Look, str], None]) -> None:
        if not cases or not places:
            return
        held = self._held({look for look, _ in places})

        def read(place: tuple[_Look, str]) -> Credential | Trouble | None:
            try:
                return self._value(*place, held)
            except Trouble as trouble:
                return trouble

        values: dict[tuple[_Look, str], Credential] = {}
        for place, got in fleet.each(places, read):
            if isinstance(got, Trouble):
                self._silent.append(str(got))
            elif got is not None:
                values[place] = got
        index: dict[str, list[tuple[_Look, str]]] = {}
        for (look, token), credential in values.items():
            for value in _secret(credential, look.s.key_id(token)):
                index.setdefault(self._local.of(value), []).append((look, token))
        for case in cases:
            shown = case.finding.redacted or ""
            if case.texts:
                hits = (index.get(self._local.of(SecretValue(text)), []) for text in case.texts)
                found, how = next((hit for hit in hits if hit), []), "it is the value that the store holds"
            else:
                found = [
                    (look, token)
                    for (look, token), credential in values.items()
                    if any(_fits(shown, value.reveal()) for value in _secret(credential, look.s.key_id(token)))
                ]
                how = f"its redacted form {shown} fits the value that the store holds, and no other"
            if case.texts or len(found) == 1:
                case.matches += [self._known(case.finding, look, token, how) for look, token in found]
            elif found:
                names = ", ".join(sorted({look.name for look, _ in found}))
                case.matches.append(self._ambiguous(case, f"its redacted form {shown} fits values of {names}"))

    def _held(self, looks: Iterable[_Look]) -> Held:
        """Current values, read together where a store can do that, and only those that the looks did not bring along."""
        current = ((look, look.seen.primary.current) for look in looks)
        return held_by(
            self._assembly.stores,
            [(look.target.store, look.target.entry) for look, version in current if version and not version.credential],
        )

    def _value(self, look: _Look, token: str, held: Held) -> Credential | None:
        """The value of a credential; None where no store can give it back."""
        current = look.seen.primary.current
        if current is None or token != look.s.handed_out:
            return self._assembly.engine.value_of(look.seen, token)
        ahead = held.get((look.target.store, look.target.entry))
        version: Version = ahead if ahead is not None and ahead.id == current.id else current
        try:
            return self._assembly.engine.read(look.seen, look.seen.primary, version)
        except Trouble as trouble:
            if trouble.code is not Code.INVALID:
                raise
            return version.credential  # not of the declared form: what somebody put there may have leaked all the same

    # --- 3: what issuers list --------------------------------------------------------------------

    def _by_list(self, cases: Sequence[_Case]) -> None:
        assembly = self._assembly
        listed = orphans.listings(assembly.issuers, assembly.issuers, assembly.clock)
        self._listed = listed.keys
        self._silent += [str(trouble) for trouble in listed.troubles]
        by_id = {
            name: (issuer, info)
            for issuer, infos in listed.keys.items()
            for info in infos
            for name in _ids(info.key_id)
        }
        for case in cases:
            shown = case.finding.redacted
            for text in case.texts:
                if hit := by_id.get(text):
                    told = f"it is a key id that {hit[0]} lists; the id alone opens nothing"
                    case.matches.append(self._listed_key(case.finding, *hit, told))
                    break
            if case.matches:
                continue
            fits = [
                (issuer, info)
                for issuer, infos in listed.keys.items()
                for info in infos
                if info.redacted
                and (
                    any(_fits(info.redacted, text) for text in case.texts)
                    if case.texts
                    else shown is not None and _alike(info.redacted, shown)
                )
            ]
            if len(fits) == 1:
                issuer, info = fits[0]
                told = f"{issuer} lists it as {info.redacted}, and no other key so"
                case.matches.append(self._listed_key(case.finding, issuer, info, told))
            elif fits:
                names = ", ".join(sorted(info.key_id for _, info in fits))
                case.matches.append(self._ambiguous(case, f"several listed keys look like it: {names}"))

    def _ambiguous(self, case: _Case, how: str) -> Match:
        step = "find out which by the whole value, or take all of these for leaked: `keyturn emergency NAME …`"
        return _as(case.finding, Standing.UNKNOWN, how, step, alive=True)

    def _listed_key(self, finding: Finding, issuer: str, info: KeyInfo, how: str) -> Match:
        """A key that an issuer lists: of a secret's journal, or an orphan by its name, or nobody's."""
        mine = [look for look in self._looks if look.policy.issuer == issuer]
        for look in mine:
            for token in look.s.keys:
                if look.s.key_id(token) == info.key_id:
                    return self._known(finding, look, token, how)
        for look in mine:
            policy = look.policy
            named = token_in(
                info.name, installation=policy.installation, environment=policy.environment, secret=policy.name
            )
            if named is None:
                continue
            if named in look.s.keys and look.s.key_id(named) is None:
                return self._known(finding, look, named, how)
            told = f"{how}; its name {info.name} is one that we gave, and no journal claims it"
            step = "`keyturn emergency --leak` condemns, revokes and proves it; a sweep does once it is 15 minutes old"
            if named in look.s.keys:  # one mint arrived twice: this is the key whose value nobody saw
                named = uuid.uuid5(uuid.NAMESPACE_OID, info.key_id).hex
            return _as(
                finding,
                Standing.ORPHAN,
                told,
                step,
                alive=True,
                issuer=issuer,
                key_id=info.key_id,
                token=named,
                of=look,
            )
        config, parsed = self._assembly.config, KeyName.parse(info.name)
        if parsed and (parsed.installation, parsed.environment) == (config.installation, config.environment):
            told = f"{how}; its name {info.name} is one that we gave, and its secret {parsed.secret} is in no store"
            step = f"revoke {info.key_id} at {issuer}: no secret is left that a sweep could do it for"
            standing = Standing.UNKNOWN if self._silent else Standing.ORPHAN
            return _as(finding, standing, told, step, alive=True, issuer=issuer, key_id=info.key_id, token=parsed.token)
        if parsed:
            of = f"{parsed.secret} in {parsed.environment} of {parsed.installation}"
            told, step = f"{how}; Keyturn minted it for {of}", f"look again with the stack of {of}"
        else:
            told = f"{how}; no secret of this stack claims it"
            step = f"revoke {info.key_id} at {issuer}, and let Keyturn manage what uses it (`keyturn adopt`)"
        return _as(finding, Standing.UNMANAGED, told, step, alive=True, issuer=issuer, key_id=info.key_id)

    # --- 4: admin credentials --------------------------------------------------------------------

    def _by_admin(self, cases: Sequence[_Case]) -> None:
        for name in self._assembly.issuers:
            try:
                admin = self._assembly.admin(name)
            except Trouble as trouble:
                self._silent.append(str(trouble))
                continue
            if admin is None or not admin.reveal():
                continue
            known = self._local.of(admin)
            step = (
                f"make a new one at {name}, put it where this one comes from, and end this one; then "
                f"`keyturn emergency --admin {name}`: everything that it could mint counts as leaked"
            )
            for case in cases:
                shown = case.finding.redacted
                same = any(self._local.of(SecretValue(text)) == known for text in case.texts)
                if same or (not case.texts and shown and _fits(shown, admin.reveal())):
                    how = (
                        f"it is the admin credential of {name}"
                        if same
                        else f"the admin credential of {name} fits {shown}"
                    )
                    case.matches.append(_as(case.finding, Standing.ADMIN, how, step, alive=True, issuer=name))

    # --- 5: what issuers say ---------------------------------------------------------------------

    def _verdict(self, case: _Case) -> Match:
        """What is in no journal, store or list."""
        finding = case.finding
        nowhere = "in no journal, no store and on no list"
        if not case.texts:
            enough = any(_shows(part) for part in [finding.redacted or ""])
            how = nowhere if enough else f"the report has only {finding.redacted}, which shows too little to tell"
            return self._unexplained(finding, how, sure=enough)
        likely = [name for name in self._assembly.issuers if self._plausible(name, case)]
        if not likely:
            return self._unexplained(
                finding, f"{nowhere}; shown to no issuer, as nothing says that it is of one of ours"
            )
        if self._shown >= MOST_SHOWN:
            told = f"{nowhere}; not shown to {', '.join(likely)} any more, after {MOST_SHOWN} others"
            return self._unexplained(finding, told, sure=False)
        self._shown += 1
        reasons: list[str] = []
        refused = 0
        for name in likely:
            issuer = self._assembly.issuers[name]
            fields = issuer.capabilities.fields
            if len(fields) != 1:
                continue  # the rest of the credential is not in the report
            check = issuer.verify(Credential({fields[0]: SecretValue(case.texts[0])}))
            reasons.append(f"{name} says {check.verdict.value} ({check.reason})")
            if check.verdict.live:
                return self._accepted(finding, name, f"{nowhere}; {reasons[-1]}")
            refused += check.verdict is Verdict.INVALID
        told = "; ".join((nowhere, *reasons))
        if refused and refused == len(likely) and not self._silent:
            how = f"{told}: a credential of ours that is dead already, or one that never was ours"
            step = "nothing: it opens nothing any more; find out how it got there"
            return _as(finding, Standing.DEAD, how, step, alive=False, issuer=likely[0])
        return self._unexplained(finding, told, sure=bool(refused) or self._lists_whole(likely))

    def _accepted(self, finding: Finding, issuer: str, how: str) -> Match:
        step = f"it works: whoever owns it has to revoke it at {issuer}; look with the other stacks, too"
        if self._lists_whole([issuer]) and not self._silent:
            told = f"{how}, and does not list it: of another project or account"
            return _as(finding, Standing.STRANGER, told, step, alive=True, issuer=issuer)
        told = f"{how}; its list does not tell which key it is, so it may be one of ours that no journal claims"
        return _as(finding, Standing.UNKNOWN, told, step, alive=True, issuer=issuer)

    def _lists_whole(self, issuers: Iterable[str]) -> bool:
        """Whether lists would have shown which key it is."""
        return all(
            name in self._listed and all(info.redacted and _shows(info.redacted) for info in self._listed[name])
            for name in issuers
        )

    def _plausible(self, issuer: str, case: _Case) -> bool:
        """Whether the scanner's rule names the vendor, or keys of its list begin as this value does."""
        if not self._assembly.issuers[issuer].capabilities.registry:
            return False
        kind = str(self._assembly.config.issuers[issuer].kind).partition("-")[0]
        if kind in re.sub(r"[^a-z0-9]", "", case.finding.rule.lower()):
            return True
        begins = {
            parts[0] for info in self._listed.get(issuer, ()) if info.redacted and (parts := _ends(info.redacted))
        }
        return any(len(begin) >= KNOWN and text.startswith(begin) for begin in begins for text in case.texts)

    def _unexplained(self, finding: Finding, how: str, *, sure: bool = True) -> Match:
        if self._silent or not sure:
            why = f"; {self._silent[0]}" if self._silent else ""
            more = f" (and {len(self._silent) - 1} more)" if len(self._silent) > 1 else ""
            step = "put right what did not answer, then look again" if self._silent else "get the whole value"
            return _as(finding, Standing.UNKNOWN, f"{how}{why}{more}", step, alive=False)
        step = "not of this stack: look with the other stacks, or give it to its owner"
        return _as(finding, Standing.STRANGER, how, step, alive=False)


def _as(
    finding: Finding,
    standing: Standing,
    how: str,
    next_step: str,
    *,
    alive: bool,
    issuer: str | None = None,
    key_id: str | None = None,
    token: str | None = None,
    of: _Look | None = None,
) -> Match:
    """A Match, with the secret that it is of, if any."""
    policy, target = (of.policy, of.target) if of else (None, None)
    return Match(finding, standing, policy, target, token, key_id, how, next_step, alive, issuer)


# --- texts -----------------------------------------------------------------------------------------


def _texts(finding: Finding) -> Iterator[str]:
    """What of a found value may be the credential: all of it, without quotes, or the password in an address."""
    if finding.value is None:
        return
    text = finding.value.reveal().strip()
    bare = text.strip("\"'`").strip()
    seen = {""}
    for part in (text, bare, *_password(bare)):
        if part not in seen:
            seen.add(part)
            yield part


def _password(text: str) -> Iterator[str]:
    """Of scheme://user:password@host, as it stands there and as it is meant."""
    try:
        found = urlsplit(text).password if "://" in text else None
    except ValueError:
        return
    if found:
        yield unquote(found)
        yield found


def _secret(credential: Credential, key_id: str | None) -> Iterator[SecretValue]:
    """The fields that leak: those that would get a fingerprint, or the only one, however short."""
    told = [value for _, value in telling(credential, key_id)]
    return iter(told or ([*credential.fields.values()] if len(credential.fields) == 1 else []))


def _ids(key_id: str | None) -> Iterator[str]:
    """What a report may call a key: its id, or its last part, which is what vendors show."""
    if key_id:
        yield from {name for name in (key_id, key_id.rpartition("/")[2]) if len(name) >= _KEY_ID}


def _ends(redacted: str) -> tuple[str, str] | None:
    """What a redacted form shows of the beginning and of the end."""
    parts = _LEFT_OUT.split(redacted.strip())
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _shows(redacted: str) -> bool:
    """Whether a redacted form shows enough to tell a key by."""
    ends = _ends(redacted)
    return ends is not None and min(map(len, ends)) >= KNOWN


def _fits(redacted: str, text: str) -> bool:
    """Whether this is the value with its middle left out."""
    ends = _ends(redacted)
    if ends is None or not _shows(redacted) or len(text) <= len("".join(ends)):
        return False
    return text.startswith(ends[0]) and text.endswith(ends[1])


def _alike(one: str, other: str) -> bool:
    """Whether two redacted forms may be of one value, and say enough for that."""
    (mine, theirs) = (_ends(one), _ends(other))
    if mine is None or theirs is None or not (_shows(one) and _shows(other)):
        return False
    begin, end = min(len(mine[0]), len(theirs[0])), min(len(mine[1]), len(theirs[1]))
    return mine[0][:begin] == theirs[0][:begin] and mine[1][-end:] == theirs[1][-end:]
