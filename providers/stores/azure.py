"""The store over the secrets of one Azure Key Vault.

Layout, for an entry `<environment>--<name>`; each of the four is a secret of the vault:

    <entry>           its newest version is current: what consumers read
    <entry>-pending   its newest version is pending, or an empty marker: nothing is
    <entry>-journal   every version adds facts to the journal, or takes some away, in its tags
    <entry>-policy    the tags of its newest version are the applied policy

A credential of the one field `value` is stored as that text, any other as one JSON object. A version that
was written under a rotation token says so in its tags, by the same PUT as its value: `keyturn-token`,
`keyturn-key`. Its id is that token, so that two copies of one write are one; another's id is the vault's
own. A new version made in the portal has no tags, and so is seen as somebody else's.

Key Vault has no compare-and-set. promote() looks at what is current and then writes; between the two,
another promotion can be overwritten. What heals that is the engine's rule for such stores. discard() has the
same gap: it can empty what somebody staged at that moment, which costs that attempt and nothing else.

promote() also sets not-before to the time of writing, and expiry to thirty days after the next rotation is due, from
the policy as it is then. Key Vault enforces neither; portal and Event Grid tell by them. Event Grid sends
SecretNearExpiry thirty days ahead of the expiry, and at once where that is nearer: so it comes when the rotation is due,
and SecretExpired when it is a month late.

The journal only grows: a version of a secret can not be deleted, only the secret as a whole, and no secret is
ever deleted while its entry exists, since its name could not be written any more. A rotation adds five
versions from its intent to the proof that the old key is dead, so one every 30 days makes 61 a year, and
observe() reads 25 of them a call: about two calls more for each such year, 73 for each year of daily rotations.
There is no compaction yet. Above 500 versions Key Vault can not back the secret up. Of two facts under one key the
later one holds, by a time that every writer puts after all that it has read, so that clocks need not agree.

`ACTIONS` says what each operation needs, as actions of a role below Microsoft.KeyVault/vaults/secrets/ ("Key Vault
Secrets Officer" has them all). As permissions of an access policy these are

    getSecret/action, setSecret/action, readMetadata/action   get, set, list
    delete, recover/action                                    delete, recover; for delete() and restore() only

Facts from the Key Vault REST reference (API version 2026-04-01), "About Azure Key Vault secrets" and
azure-keyvault-secrets 4.12: names have up to 127 letters, digits and `-`; a version has up to 15 tags of 256
characters each, and a value of up to 25,600 bytes; lists have 25 items a page, those of versions in no
order of time; reading a disabled version is 403 SecretDisabled; a deleted secret is 404, and its name can be
written again (409 until then) only when it is recovered or purged. Of the SDK's settings only retry_total=0
makes it send a PUT once: it repeats any answer that has a Retry-After.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote

from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.journal import Journal, key_fact, promoted
from rotation.model import Credential, Entry, SecretValue, Version
from rotation.ports import Clock, Diagnosis, Glance, Grade, Listed, StoreFeatures
from rotation.skew import Skew
from rotation.telemetry import heard

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError
    from azure.keyvault.secrets import KeyVaultSecret, SecretClient, SecretProperties

_MAIN: Final = ""
_PENDING: Final = "-pending"
_JOURNAL: Final = "-journal"
_POLICY: Final = "-policy"
_KEPT: Final = (_MAIN, _PENDING, _JOURNAL)
_PARTS: Final = (_MAIN, _POLICY, _PENDING, _JOURNAL)
"""In the order of deleting: who looks meanwhile finds no entry, not half of one."""

VAULT: Final = "vault"
_GET, _SET, _LIST = "getSecret/action", "setSecret/action", "readMetadata/action"
_LOOK: Final = ((_GET, _POLICY), (_GET, _MAIN), (_LIST, VAULT))
"""Whether there is such an entry, and what of it is deleted."""
ACTIONS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "observe": (*_LOOK, (_GET, _PENDING), (_LIST, _JOURNAL)),
    "read": (*_LOOK, (_GET, _PENDING), (_LIST, _MAIN), (_LIST, _PENDING)),
    "current": ((_GET, _MAIN),),
    "applied": ((_GET, _POLICY), (_LIST, _MAIN), (_LIST, VAULT)),
    "find": (*_LOOK, (_GET, _PENDING), (_LIST, _MAIN), (_LIST, _PENDING)),
    "stage": (*_LOOK, (_SET, _PENDING)),
    "promote": (*_LOOK, (_GET, _PENDING), (_LIST, _MAIN), (_LIST, _PENDING), (_SET, _MAIN)),
    "discard": ((_GET, _PENDING), (_SET, _PENDING)),
    "record": (*_LOOK, (_SET, _JOURNAL)),
    "forget": (*_LOOK, (_SET, _JOURNAL)),
    "listing": ((_LIST, VAULT),),
    "create": ((_GET, _POLICY), (_LIST, _MAIN), (_LIST, _PENDING), (_LIST, _JOURNAL), (_LIST, VAULT), (_SET, _POLICY)),
    "set_policy": ((_GET, _POLICY), (_SET, _POLICY)),
    "delete": tuple(("delete", part) for part in _PARTS),
    "restore": (("recover/action", VAULT), *((_LIST, part) for part in _PARTS)),
}
"""What each operation of the port may need: action, and the part of the entry that it is done to.

What is deleted is not part of an entry any more: to look for it, or to recover it, is asked of the vault. So is a list of
its secrets. set_policy() of an entry that nobody managed looks at all parts, as observe() does.
"""

_OURS: Final = "keyturn-"
"""Starts every tag of ours, but not those of the journal's facts."""
_TOKEN: Final = "keyturn-token"  # noqa: S105 - the name of a tag
_KEY: Final = "keyturn-key"
_EMPTY: Final = "keyturn-empty"
_ORDER: Final = "keyturn-at"
_PACKED: Final = "keyturn-policy-"
_FACT: Final = "fact."
_GONE: Final = "gone."

_MOST_TAGS: Final = 15
_LONGEST_TAG: Final = 256
_TAGS_LEFT: Final = 14
"""For facts and for policies; the journal's order takes the other one."""
_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,119}")
"""Of an entry: what is left of 127 characters beside the longest of the siblings' endings."""
_MARK: Final = "The tags of this version are Keyturn's."
"""The value where tags are all that matters."""
_LOOKS: Final = 3
_NOTICE: Final = timedelta(days=30)
"""How long before a version's expiry Event Grid sends SecretNearExpiry; it can not be changed."""


@dataclass(frozen=True, slots=True)
class AzureLogin:
    """azure-identity's DefaultAzureCredential, which goes by the environment's AZURE_* variables, as documented there.

    Parameters:
        tenant_id: the vault's tenant, where it is not the one that the environment names.
        client_id: of the managed or workload identity, where there are several.
        authority_host: address of the token service, in place of that of the environment's cloud.
    """

    tenant_id: str | None = None
    client_id: str | None = None
    authority_host: str | None = None

    @property
    def how(self) -> str:
        """Names it in messages; no value."""
        return "DefaultAzureCredential" + (f" of client {self.client_id}" if self.client_id else "")

    def open(self, ca_bundle: str | None) -> Any:
        """The SDK's credential object. The bundle is for the token service, and only used for a configured one."""
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - importing this module stays cheap

        settings: dict[str, Any] = {"connection_timeout": _CONNECT_SECONDS, "read_timeout": _LOGIN_SECONDS}
        settings["retry_connect"] = 1  # at once; longer waits are for the caller to decide
        if self.tenant_id:
            kinds = ("workload_identity", "shared_cache", "visual_studio_code", "broker")
            settings |= {f"{kind}_tenant_id": self.tenant_id for kind in kinds}
            settings["additionally_allowed_tenants"] = [self.tenant_id]
        if self.client_id:
            settings |= {f"{kind}_client_id": self.client_id for kind in ("managed_identity", "workload_identity")}
        if self.authority_host:
            # Discovery asks a public host which authorities there are; one that is configured is taken at its word.
            settings |= {"authority": self.authority_host, "disable_instance_discovery": True}
            settings |= {"connection_verify": ca_bundle} if ca_bundle else {}
        return DefaultAzureCredential(**settings)


class KeyVaultStore:
    """A client of one vault. Threads may share it.

    Parameters:
        name: the store's configured name.
        vault_url: `https://NAME.vault.azure.net`.
        login: how to get tokens.
        ca_bundle: PEM file with the authorities to trust; None for the usual ones.
        verify_challenge_resource: False for a vault whose host is not under the cloud's own domain.
        clock: for times of writing, of looking, and the wait for a recovery.
        timeout: seconds that one answer may take; connecting has 2 s more.
    """

    features: Final = StoreFeatures(
        compare_and_set=False,
        keeps_key_id=True,
        max_value_bytes=25_600,
        recovers_deleted=True,
        text_only=True,
    )

    def __init__(
        self,
        name: str,
        *,
        vault_url: str,
        login: AzureLogin,
        ca_bundle: str | None = None,
        verify_challenge_resource: bool = True,
        clock: Clock,
        timeout: float = 8.0,
    ) -> None:
        self.name: Final = name
        self._clock = clock
        self._order = _Order(clock)
        self._there: set[str] = set()
        """Entries known to exist, which saves their writes a look. One that is gone since refuses to be written."""
        self._vault = _Vault(name, vault_url, login, ca_bundle, clock, timeout, verify=verify_challenge_resource)

    def observe(self, entry: str) -> Entry:
        """As the port says. Looks at pending, current, policy, journal, and again at current.

        The journal is read after the versions, so that no version is seen without the attempt that made it; and
        what is current must be the same after as before, so that no promotion is seen in the journal alone.

        Raises:
            Trouble: CONFLICT when current changes faster than that.
        """
        for _ in range(_LOOKS):
            if seen := self._look(entry):
                self._there.add(entry)
                return seen
        raise self._trouble(Code.CONFLICT, entry, "what is current changes faster than it can be read")

    def read(self, entry: str, version: Version) -> Credential:
        if version.credential is not None:
            return version.credential
        found = self._find(entry, version.id)
        if found is None or found.version.credential is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"version {version.id} can not be read any more")
        return found.version.credential

    def current(self, entry: str) -> Credential:
        found = self._get(entry, _MAIN)
        if found is None or found.version.credential is None:
            raise self._trouble(Code.NOT_FOUND, entry, "no such entry, it is deleted, or it has no value")
        return found.version.credential

    def applied(self, entry: str) -> Mapping[str, str]:
        policy = self._get(entry, _POLICY)
        if not self._has(entry, _MAIN):
            if policy is None:
                raise self._absent(entry)
            self._refuse_deleted(entry, [_MAIN])
        return self._applied(entry, policy)

    def find(self, entry: str, token: str) -> Version | None:
        found = self._search(entry, token)
        if found is None:
            self._require(entry)
        return found.version if found else None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:
        begun = self._clock.monotonic()
        write = self._payload(entry, credential, token, key_id)
        self._expect(entry)
        self._put(entry, _PENDING, write, begun=begun)

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        begun = self._clock.monotonic()
        found = self._find(entry, pending.id)
        if found is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"version {pending.id} can not be read any more")
        applied = self._applied(entry, self._get(entry, _POLICY))
        life = _life(applied)
        # The last look before the write: nothing stands between them.
        main = self._get(entry, _MAIN)
        if _id(main) != expected:
            raise self._trouble(
                Code.CONFLICT, entry, f"version {expected} is not current any more; nothing was changed"
            )
        now = self._clock.now()
        ours = {key: text for key, text in found.tags.items() if key in (_TOKEN, _KEY)}
        write = _Write(found.text, found.content_type, _own_tags(applied) | ours, now, now + life if life else None)
        self._put(entry, _MAIN, write, begun=begun)

    def discard(self, entry: str, pending: Version) -> None:
        begun = self._clock.monotonic()
        found = self._get(entry, _PENDING)
        if found and not found.empty and found.version.id == pending.id:
            self._put(entry, _PENDING, _marker({_EMPTY: pending.id}), begun=begun)

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        self._append(entry, {_FACT + key: text for key, text in facts.items()})

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        self._append(entry, dict.fromkeys((_GONE + key for key in facts), "yes"))

    def listing(self) -> Iterator[Listed]:
        call = _Call("listing", "", "readMetadata/action")
        told: dict[str, dict[str, str]] = {}  # a vault lists by name: an entry's current version before its policy
        for about in self._vault.pages(call, lambda client: client.list_properties_of_secrets()):
            name, tags = about.name or "", about.tags or {}
            if name.endswith(_POLICY) and (policy := _unpacked(tags)) != {}:
                # One that was damaged is listed without its policy, and so keeps nobody from seeing the others.
                entry = name.removesuffix(_POLICY)
                yield Listed(entry, policy or {}, told.pop(entry, {}))
            elif tags.get(_TOKEN) and not name.endswith(_PENDING):
                told[name] = _told(_version(about))

    def glances(self) -> Iterator[Glance]:
        """Marks alone: the list shows the newest version of each of an entry's parts, and a journal is all of its versions.

        Each write makes a new newest version of its part, by whose tags, times and state the mark is another.
        """
        call = _Call("listing", "", "readMetadata/action")
        for about in self._vault.pages(call, lambda client: client.list_properties_of_secrets()):
            name, tags = about.name or "", about.tags or {}
            part = next((part for part in (_PENDING, _JOURNAL, _POLICY) if name.endswith(part)), _MAIN)
            policy = _unpacked(tags) if part == _POLICY else {}
            state = (part, sorted(tags.items()), about.created_on, about.updated_on, about.enabled)
            mark = int.from_bytes(hashlib.blake2b(repr(state).encode(), digest_size=7).digest())
            # A policy that was damaged is listed as none, as by listing(): the entry's own run would tell.
            yield Glance(name.removesuffix(part), policy or {}, mark=mark)

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        """As the port says. Only the policy is written; current has its first version from the first promotion."""
        begun = self._clock.monotonic()
        self._refuse_sibling(entry)
        tags = self._packed(entry, policy)
        for part in _PARTS:
            if self._has(entry, part):
                raise self._trouble(Code.CONFLICT, entry, f"{entry}{part} exists already")
            if part != _POLICY and self._is_deleted(entry, part):
                raise self._trouble(Code.CONFLICT, entry, f"{entry}{part} exists already, and is deleted")
        try:
            self._put(entry, _POLICY, _marker(tags), begun=begun)
        except _Refused as refused:
            if refused.status != 409:
                raise
            told = f"{entry}{_POLICY} exists already, and is deleted"
            raise self._trouble(Code.CONFLICT, entry, told) from None

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        """As the port says. The user's own tags are on current from the next promotion on."""
        begun = self._clock.monotonic()
        self._refuse_sibling(entry)
        tags = self._packed(entry, policy)
        before = self._get(entry, _POLICY)
        if before is None or not before.ours:
            self._refuse_foreign(entry, before)
        self._put(entry, _POLICY, _marker(tags), begun=begun)

    def delete(self, entry: str) -> None:
        """As the port says. Deletes all four; that it takes effect a few seconds later is not waited for."""
        self._there.discard(entry)
        done = False
        for part in _PARTS:
            done = self._delete(entry, part, half_done=done) or done

    def restore(self, entry: str) -> bool:
        """As the port says. Waits until each can be read again, a minute in all; current comes last."""
        until = self._clock.monotonic() + _RECOVERY_SECONDS
        done = False
        for parts in ((_PENDING, _JOURNAL), (_POLICY,), (_MAIN,)):
            recovered = [part for part in parts if self._recover(entry, part, until, half_done=done)]
            done = done or bool(recovered)
            for part in recovered:
                while not self._has(entry, part):
                    self._wait(entry, f"{entry}{part} is still being recovered", until)
        return done

    # --- looking round: see rotation.ports.ExaminedStore, TellsTime ----------------------------------

    @property
    def skew(self) -> timedelta | None:
        return self._vault.skew.last

    def caller(self) -> str | None:
        """Object and application ids, and a user's name, by the claims of the last token; asks nobody."""
        return self._vault.caller

    def examine(self, work: Mapping[str, Collection[str]]) -> Iterator[Diagnosis]:
        """What Key Vault's quotas mean for so many entries, and what is refused of all the reading that is to be done.

        Key Vault tells a permission by use alone, so that writing is not tried.
        """
        yield _quota(len(work))
        refused = False
        for entry, operations in work.items():
            wanted = dict.fromkeys(need for operation in operations for need in ACTIONS.get(operation, ()))
            for found in self._tried(entry, [need for need in wanted if need[0] in (_GET, _LIST)]):
                refused = True
                yield found
        how = self._vault.how
        if not work:
            return
        if not refused:
            yield Diagnosis(
                "permissions", Grade.GOOD, f"{how} may read all that a sweep reads, entry by entry ({len(work)})"
            )
        why = f"Key Vault tells by nothing but a write whether {how} may {_SET} (in an access policy: {_PERMISSIONS[_SET]})"
        yield Diagnosis("permissions to write", Grade.UNCHECKED, why)

    def _tried(self, entry: str, needs: Iterable[tuple[str, str]]) -> Iterator[Diagnosis]:
        """What stands in the way of reading; the first of each kind, as one permission is for many parts."""
        told: set[str] = set()
        for action, part in needs:
            try:
                if action == _GET:
                    self._get(entry, part)
                elif part == VAULT:
                    self._is_deleted(entry, _MAIN)
                else:
                    next(self._versions(entry, part), None)
            except Trouble as trouble:
                if action in told:
                    continue
                told.add(action)
                if trouble.code in (Code.UNAVAILABLE, Code.THROTTLED):
                    yield Diagnosis("permissions", Grade.UNCHECKED, str(trouble), entry=entry)
                    continue
                disabled = isinstance(trouble, _DisabledError)
                remedy = "whoever disabled it: enable it, or add another version" if disabled else _GRANT
                yield Diagnosis("permissions", Grade.FAILING, str(trouble), remedy, entry)

    # --- the parts that operations are made of -----------------------------------------------------

    def _look(self, entry: str) -> Entry | None:
        """One look; None when what is current was not the same all the time."""
        at = self._clock.now()
        pending, main, policy = (self._get(entry, part) for part in (_PENDING, _MAIN, _POLICY))
        if main is None and policy is None:
            raise self._absent(entry)
        facts = self._facts(entry)
        if policy:
            self._refuse_deleted(
                entry, [p for p, seen in zip(_KEPT, (main, pending, facts), strict=True) if seen is None]
            )
        if facts and _id(self._get(entry, _MAIN)) != _id(main):
            return None
        try:
            journal = Journal(facts or {})
        except ValueError as error:
            told = f"{error}; add a version to {entry}{_JOURNAL} that corrects it"
            raise self._trouble(Code.INVALID, entry, told) from None
        return Entry(
            store=self.name,
            name=entry,
            read_at=at,
            current=main.version if main else None,
            pending=pending.version if pending and not pending.empty else None,
            journal=journal,
            policy=self._applied(entry, policy),
        )

    def _get(self, entry: str, part: str, version: str | None = None) -> _Found | None:
        """One version, the newest by default. None: there is none, or the secret is deleted."""
        call = self._call(entry, part, "getSecret/action")
        secret = self._vault.ask(call, lambda client: client.get_secret(call.name, version))
        return _Found.of(secret) if secret else None

    def _find(self, entry: str, version_id: str) -> _Found | None:
        """A version with its value, wherever it is; what is pending or current now is found soonest."""
        for part in (_PENDING, _MAIN):
            with suppress(_DisabledError):
                found = self._get(entry, part)
                if found and found.version.id == version_id:
                    return found
        return self._search(entry, version_id)

    def _search(self, entry: str, version_id: str) -> _Found | None:
        """The newest of all enabled versions of that id, pending ones included."""
        listed = [
            (about.created_on or _LONG_AGO, part, about.version)
            for part in (_MAIN, _PENDING)
            for about in self._versions(entry, part)
            if about.enabled is not False and _EMPTY not in (about.tags or {}) and _version(about).id == version_id
        ]
        for _, part, vault_id in sorted(listed, key=lambda each: each[0], reverse=True):
            with suppress(_DisabledError):
                if found := self._get(entry, part, vault_id):
                    return found
        return None

    def _versions(self, entry: str, part: str) -> Iterator[SecretProperties]:
        call = self._call(entry, part, "readMetadata/action")
        return self._vault.pages(call, lambda client: client.list_properties_of_secret_versions(call.name))

    def _facts(self, entry: str) -> dict[str, str] | None:
        """The journal. None when it has no version; then perhaps there is none, or it is deleted."""
        newest: dict[str, tuple[str, str | None]] = {}
        empty = True
        for about in self._versions(entry, _JOURNAL):
            empty, tags = False, about.tags or {}
            if (at := tags.get(_ORDER)) is None:
                continue
            self._order.saw(at)
            for tag, text in tags.items():
                kind, key = tag[: len(_FACT)], tag[len(_FACT) :]
                if kind in (_FACT, _GONE) and (key not in newest or newest[key][0] < at):
                    newest[key] = (at, text if kind == _FACT else None)
        return None if empty else {key: text for key, (_, text) in newest.items() if text is not None}

    def _append(self, entry: str, tags: Mapping[str, str]) -> None:
        """Adds to the journal: a version for each fourteen."""
        if not tags:
            return
        begun = self._clock.monotonic()
        chunks = [dict(chunk) for chunk in _batched(tags.items(), _TAGS_LEFT)]
        for chunk in chunks:
            self._check_tags(entry, chunk)
        self._expect(entry)
        for number, chunk in enumerate(chunks):
            write = _marker(chunk | {_ORDER: self._order.next()})
            self._put(entry, _JOURNAL, write, begun=begun, half_done=number > 0)

    def _put(self, entry: str, part: str, write: _Write, *, begun: float, half_done: bool = False) -> None:
        """Makes a version: sent once."""
        self._check_tags(entry, write.tags)
        call = self._call(entry, part, "setSecret/action", writes=True, half_done=half_done)
        options: dict[str, Any] = {_LATEST: begun + _LATEST_SECONDS}
        try:
            done = self._vault.ask(
                call,
                lambda client: client.set_secret(
                    call.name,
                    write.text.reveal(),
                    tags=dict(write.tags),
                    content_type=write.content_type,
                    not_before=write.not_before,
                    expires_on=write.expires_on,
                    **options,
                ),
            )
        except _Refused as refused:
            if refused.status == 409:
                self._there.discard(entry)
            raise
        if done is None:
            raise self._trouble(Code.INVALID, entry, f"the vault does not know how to write {call.name}")

    def _payload(self, entry: str, credential: Credential, token: str, key_id: str | None) -> _Write:
        """What is staged. Refuses what the vault would refuse, or keep differently."""
        fields = {name: value.reveal() for name, value in credential.fields.items()}
        if not fields:
            raise self._trouble(Code.INVALID, entry, "a credential has fields")
        raw = [*fields] == ["value"]
        text = fields["value"] if raw else json.dumps(fields, ensure_ascii=False)
        if _SURROGATE.search(text):
            raise self._trouble(Code.INVALID, entry, "the value is not valid Unicode text")
        if (size := len(text.encode())) > (limit := self.features.max_value_bytes):
            raise self._trouble(Code.INVALID, entry, f"the value has {size} bytes, at most {limit} are allowed")
        tags = {_TOKEN: token} | ({_KEY: quote(key_id, safe=_PLAIN)} if key_id else {})
        return _Write(SecretValue(text), "text/plain" if raw else "application/json", tags)

    def _packed(self, entry: str, policy: Mapping[str, str]) -> dict[str, str]:
        """The tags of a policy. Refuses one that does not fit, or whose own tags would not."""
        own = _own_tags(policy)
        if clash := [name for name in own if name.startswith(_OURS)]:
            raise self._trouble(Code.INVALID, entry, f"tags that start with {_OURS!r} are Keyturn's own: {clash[0]}")
        self._check_tags(entry, own | {_TOKEN: "", _KEY: ""})
        text = json.dumps(dict(policy), separators=(",", ":"), sort_keys=True)
        if len(text) > (most := _TAGS_LEFT * _LONGEST_TAG):
            told = f"the policy takes {len(text)} characters in the vault, at most {most} are allowed"
            raise self._trouble(Code.INVALID, entry, told)
        chunks = ("".join(chunk) for chunk in _batched(text, _LONGEST_TAG))
        return {f"{_PACKED}{number}": chunk for number, chunk in enumerate(chunks, 1)}

    def _applied(self, entry: str, policy: _Found | None) -> dict[str, str]:
        found = _unpacked(policy.tags) if policy else {}
        if found is None:
            raise self._trouble(
                Code.INVALID, entry, f"the tags of {entry}{_POLICY} were changed; apply the stack again"
            )
        return found

    def _check_tags(self, entry: str, tags: Mapping[str, str]) -> None:
        if len(tags) > _MOST_TAGS:
            told = f"a version would have {len(tags)} tags, at most {_MOST_TAGS} are allowed, those of Keyturn included"
            raise self._trouble(Code.INVALID, entry, told)
        for name, text in tags.items():
            if not name or max(len(name), len(text)) > _LONGEST_TAG:
                told = f"a tag has a name and at most {_LONGEST_TAG} characters: {name[:64]!r} has {len(text)}"
                raise self._trouble(Code.INVALID, entry, told)

    def _expect(self, entry: str) -> None:
        """Makes sure that an entry exists; a PUT would quietly make what does not."""
        if entry not in self._there:
            self._require(entry)

    def _require(self, entry: str) -> None:
        if not any(self._is_there(entry, part) for part in (_POLICY, _MAIN)):
            raise self._absent(entry)
        self._there.add(entry)

    def _absent(self, entry: str) -> Trouble:
        """Why there is nothing to see of an entry."""
        self._there.discard(entry)
        deleted = any(self._is_deleted(entry, part) for part in (_POLICY, _MAIN))
        return self._trouble(Code.NOT_FOUND, entry, "the entry is deleted" if deleted else "no such entry")

    def _refuse_deleted(self, entry: str, parts: Iterable[str]) -> None:
        """Deleted parts of an entry that is there otherwise: what is missing of it was not always missing."""
        for part in parts:
            if self._is_deleted(entry, part):
                self._there.discard(entry)
                code = Code.INVALID if part else Code.NOT_FOUND
                raise self._trouble(code, entry, f"{entry}{part} is deleted; recover it, or restore the entry")

    def _is_deleted(self, entry: str, part: str) -> bool:
        call = self._call(entry, part, "readMetadata/action")
        return self._vault.ask(call, lambda client: client.get_deleted_secret(call.name)) is not None

    def _refuse_foreign(self, entry: str, policy: _Found | None) -> None:
        """An entry that comes under management: what has the siblings' names already must not be anybody else's."""
        self._require(entry)
        self._refuse_deleted(entry, (_PENDING, _JOURNAL))
        for part, found in ((_POLICY, policy), *((part, self._get(entry, part)) for part in (_PENDING, _JOURNAL))):
            if found and not found.ours:
                raise self._trouble(Code.INVALID, entry, f"{entry}{part} is there already, and is not Keyturn's")

    def _refuse_sibling(self, entry: str) -> None:
        if entry.endswith((_PENDING, _JOURNAL, _POLICY)):
            told = f"a managed entry can not end in {_PENDING!r}, {_JOURNAL!r} or {_POLICY!r}: so end Keyturn's own"
            raise self._trouble(Code.INVALID, entry, told)

    def _has(self, entry: str, part: str) -> bool:
        """Whether there is a version, found out without any value."""
        return next(self._versions(entry, part), None) is not None

    def _is_there(self, entry: str, part: str) -> bool:
        """Whether there is a version, be it a disabled one."""
        try:
            return self._get(entry, part) is not None
        except _DisabledError:
            return True

    def _delete(self, entry: str, part: str, *, half_done: bool) -> bool:
        call = self._call(entry, part, "delete", writes=True, half_done=half_done)
        try:
            return self._vault.ask(call, lambda client: client.begin_delete_secret(call.name)) is not None
        except _Refused as refused:
            if refused.inner != _BEING_DELETED:
                raise
            return False

    def _recover(self, entry: str, part: str, until: float, *, half_done: bool) -> bool:
        call = self._call(entry, part, "recover/action", writes=True, half_done=half_done)
        while True:
            try:
                return self._vault.ask(call, lambda client: client.begin_recover_deleted_secret(call.name)) is not None
            except _Refused as refused:
                if refused.inner == _BEING_RECOVERED:
                    return True
                if refused.inner != _BEING_DELETED:
                    raise
            self._wait(entry, f"{call.name} is still being deleted", until)

    def _wait(self, entry: str, told: str, until: float) -> None:
        if self._clock.monotonic() >= until:
            raise Trouble(Code.UNAVAILABLE, self.name, f"{entry}: {told}; look again", maybe_applied=True)
        self._clock.sleep(_POLL_SECONDS)

    def _call(self, entry: str, part: str, action: str, **more: Any) -> _Call:
        if not _NAME.fullmatch(entry):
            told = "the name of an entry has 1 to 119 letters, digits and '-'"
            raise self._trouble(Code.INVALID, entry, told)
        return _Call(entry, entry + part, action, **more)

    def _trouble(self, code: Code, entry: str, message: str) -> Trouble:
        return Trouble(code, self.name, f"{entry}: {message}")


_GRANT: Final = "vault administrator: let this login in, with the role that `keyturn policy azure --for rotate` prints"
_READS, _WRITES = 7, 8
"""Calls for one entry: of one look, and of a rotation from its intent to the proof, the journal's included."""
_READS_A_SECOND, _WRITES_A_SECOND = 400, 30
"""Of one vault in one region (Azure Key Vault service limits, 2026: 4,000 and 300 in ten seconds)."""
_LONGEST_SWEEP: Final = 60
"""Seconds that quotas alone may make a sweep last before that is worth a warning."""


def _quota(count: int) -> Diagnosis:
    looking, rotating = count * _READS / _READS_A_SECOND, count * _WRITES / _WRITES_A_SECOND
    told = f"by its quotas a look at all ({count}) takes {looking:.0f} s at least, and rotating all at once {rotating:.0f} s"
    if max(looking, rotating) <= _LONGEST_SWEEP:
        return Diagnosis("quota", Grade.GOOD, told)
    remedy = "platform engineer: spread the secrets over several vaults, or over the days of their interval"
    return Diagnosis("quota", Grade.WARNING, told, remedy)


class _Order:
    """Gives times that order the journal's versions: each after all that this client has given or seen.

    So a fact that is written because of another one comes after it, whatever the writers' clocks say.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = datetime.min.replace(tzinfo=UTC)

    def saw(self, text: str) -> None:
        with suppress(ValueError), self._lock:
            self._latest = max(self._latest, datetime.strptime(text.partition(" ")[0], _ORDER_FORM).replace(tzinfo=UTC))

    def next(self) -> str:
        """A time to the microsecond, and what tells two writers of one microsecond apart."""
        with self._lock:
            self._latest = max(self._clock.now(), self._latest + timedelta(microseconds=1))
            return f"{self._latest.astimezone(UTC).strftime(_ORDER_FORM)} {uuid.uuid4().hex[:8]}"


_ORDER_FORM: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """One version as the vault has it, with its value."""

    version: Version
    text: SecretValue
    content_type: str | None
    tags: Mapping[str, str]

    @classmethod
    def of(cls, secret: KeyVaultSecret) -> _Found:
        about, text = secret.properties, SecretValue(secret.value or "")
        return cls(_version(about, text), text, about.content_type, about.tags or {})

    @property
    def empty(self) -> bool:
        return _EMPTY in self.tags

    @property
    def ours(self) -> bool:
        return any(tag.startswith(_OURS) for tag in self.tags)


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    """One version to be made."""

    text: SecretValue
    content_type: str | None
    tags: Mapping[str, str]
    not_before: datetime | None = None
    expires_on: datetime | None = None


_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What stands in a tag as it is; other characters of a key id are percent-encoded."""

_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _marker(tags: Mapping[str, str]) -> _Write:
    return _Write(SecretValue(_MARK), "text/plain", tags)


def _id(found: _Found | None) -> str | None:
    return found.version.id if found else None


def _version(about: SecretProperties, text: SecretValue | None = None) -> Version:
    tags = about.tags or {}
    token, key = tags.get(_TOKEN) or None, tags.get(_KEY)
    return Version(
        id=token or str(about.version),
        token=token,
        key_id=unquote(key) if key else None,
        created_at=about.created_on,
        credential=None if text is None else Credential({"value": text}),
    )


def _told(version: Version) -> dict[str, str]:
    """What a current version says of itself, as facts of the journal."""
    token = version.token or ""
    facts = promoted(token, version.created_at) if version.created_at else {}
    return facts | (key_fact(token, version.key_id) if version.key_id else {})


def _unpacked(tags: Mapping[str, str]) -> dict[str, str] | None:
    """The policy in tags; {} when there is none, None when it can not be read."""
    text = "".join(tags.get(f"{_PACKED}{number}", "") for number in range(1, _TAGS_LEFT + 1))
    try:
        policy = json.loads(text) if text else {}
    except ValueError:
        return None
    return {str(key): str(value) for key, value in policy.items()} if isinstance(policy, dict) else None


def _own_tags(policy: Mapping[str, str]) -> dict[str, str]:
    """The user's own."""
    return {key.removeprefix(policies.TAG): text for key, text in policy.items() if key.startswith(policies.TAG)}


def _life(policy: Mapping[str, str]) -> timedelta | None:
    """From a promotion until its version is shown as expired. None when the policy does not say."""
    try:
        return policies.read_duration(policy["rotate-every"]) + _NOTICE
    except (KeyError, ValueError):
        return None


# --- talking to the vault --------------------------------------------------------------------------

_CONNECT_SECONDS: Final = 2.0
_LOGIN_SECONDS: Final = 8.0
_LATEST_SECONDS: Final = 40.0
"""A write goes out at most this long after its operation began, whatever logging in took."""
_RECOVERY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0
_TRIES: Final = 3
"""Of a read whose answer was lost or a fault of the service; at once, as longer waits are for the caller to decide."""
_LATEST: Final = "keyturn_latest"
"""The option that carries a write's deadline through the SDK's pipeline to the last step before it is sent."""

_DELETED: Final = "ObjectIsDeletedButRecoverable"
_BEING_DELETED: Final = "ObjectIsBeingDeleted"
_BEING_RECOVERED: Final = "ObjectIsBeingRecovered"
_DISABLED: Final = "SecretDisabled"

_PERMISSIONS: Final = {
    "getSecret/action": "get",
    "setSecret/action": "set",
    "readMetadata/action": "list, and get for deleted ones",
    "delete": "delete",
    "recover/action": "recover",
}
"""What access policies call the actions of role definitions."""

T = TypeVar("T")


class _Refused(Trouble):
    """The vault answered, and did not do it."""

    status: int = 0
    inner: str = ""
    """`error.innererror.code`, or else `error.code`."""


class _DisabledError(_Refused):
    """The version is there, and somebody disabled it."""


class _LoginError(Exception):
    """No token. Carries what to say, and nothing of what the SDK raised."""

    def __init__(self, code: Code, told: str) -> None:
        super().__init__(told)
        self.code = code


class _TooLateError(Exception):
    """The write was not sent."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One request."""

    entry: str
    name: str
    """The secret's name in the vault."""
    action: str
    """What the login must be allowed to do, below Microsoft.KeyVault/vaults/secrets/."""
    writes: bool = False
    half_done: bool = False
    """Earlier calls of the operation have had their effect."""


_NAMED: Final = ("upn", "unique_name", "oid", "appid", "azp")
"""Claims of an access token that say whose it is:
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference"""


def _identity(token: str) -> dict[str, str]:
    """The claims of a token that name its owner; none where it is no JWT. Whether it is genuine is the vault's to judge."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return {name: str(claims[name]) for name in _NAMED if name in claims}
    except (IndexError, ValueError, TypeError):
        return {}


@dataclass(frozen=True, slots=True)
class _Token:
    """The SDK's credential, with its failures put into our words."""

    inner: Any
    how: str
    claims: dict[str, str] = field(default_factory=dict)
    """Who we are, as the last token had it."""

    def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        try:
            info = self.inner.get_token_info(*scopes, options=options)
            self.claims.update(_identity(info.token))
            return info
        except Exception as error:  # noqa: BLE001 - a chain of nine logins, some of which run commands
            told = str(error).partition("\nTo mitigate")[0]
            kind = type(error).__name__
        # Not inside the handler: what the SDK raises may hold the request, and that its client secret.
        raise self._failed(told, kind)

    def _failed(self, told: str, kind: str) -> _LoginError:
        """The chain hides the reason in its text: the last line is of the login that was tried and failed."""
        codes = ", ".join(dict.fromkeys(re.findall(r"AADSTS\d+", told)))
        last = told.rstrip().rpartition("\n")[2]
        if codes:
            return _LoginError(Code.DENIED, f"login by {self.how} was refused ({codes}); the vault was not asked")
        if "CERTIFICATE_VERIFY_FAILED" in last:
            told = f"login by {self.how}: the certificate of the token service is not trusted; see caBundle"
            return _LoginError(Code.UNAVAILABLE, told)
        if kind.startswith("Service") or _BROKEN.search(last):
            return _LoginError(Code.UNAVAILABLE, f"login by {self.how}: no answer from the token service")
        tried = ", ".join(re.findall(r"\n\t(\w+):", told)) or "none"
        told = f"login by {self.how}: no way to log in gave a token for this vault's tenant; tried {tried}"
        return _LoginError(Code.DENIED, told)


_BROKEN: Final = re.compile(
    r"Failed to establish|Connection (?:refused|aborted|reset)|timed out|Failed to resolve|HTTP Error: 5", re.IGNORECASE
)


class _Vault:
    """Sends requests, and says what an answer means. Threads may share it."""

    def __init__(
        self,
        name: str,
        url: str,
        login: AzureLogin,
        ca_bundle: str | None,
        clock: Clock,
        timeout: float,
        *,
        verify: bool,
    ) -> None:
        self._name = name
        self._url = url
        self._login = login
        self._ca_bundle = ca_bundle
        self._clock = clock
        self._timeout = timeout
        self._verify = verify
        self.skew: Final = Skew(clock)
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._own = threading.local()

    @property
    def how(self) -> str:
        """Names the login in messages."""
        return self._login.how

    @property
    def caller(self) -> str | None:
        """Who the last token says that we are."""
        claims = self._token.claims if self._token else {}
        return " ".join(f"{name}={claims[name]}" for name in _NAMED if name in claims) or None

    def pages(self, call: _Call, ask_for: Callable[[SecretClient], Any]) -> Iterator[SecretProperties]:
        """The items of a list, one page in memory at a time."""
        link: str | None = None

        def page(client: SecretClient) -> tuple[list[SecretProperties], str | None]:
            # Anew from the link each time: the SDK's own iterator ends early after a page that could not be parsed.
            pages: Any = ask_for(client).by_page(link)
            return list(next(pages)), pages.continuation_token

        while True:
            items, link = self.ask(call, page) or ([], None)
            yield from items
            if link is None:
                return

    def ask(self, call: _Call, send: Callable[[SecretClient], T]) -> T | None:
        """What the vault answered; None for 404: there is no such secret, or it is deleted.

        Raises:
            Trouble: anything else but success.
        """
        from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415 - as the client

        client = self._client(call)
        left = 1 if call.writes else _TRIES
        while True:
            left -= 1
            try:
                return send(client)
            except _LoginError as error:
                trouble, again = self._trouble(call, error.code, str(error)), False
            except _TooLateError:
                told = "getting ready took too long; the write was not sent"
                trouble, again = self._trouble(call, Code.UNAVAILABLE, told), False
            except HttpResponseError as error:
                if error.status_code == 404 and _codes(error)[0] == "SecretNotFound":
                    return None
                trouble, again = self._refused(call, error)
            except (AzureError, ValueError) as error:
                trouble, again = self._unanswered(call, error)
            if not again or not left:
                # Not inside the handler: what the SDK raises holds the request, and that its body and token.
                raise trouble

    def _client(self, call: _Call) -> SecretClient:
        """The thread's own: where threads share one, they lose each other's token when it is renewed."""
        client: SecretClient | None = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = self._open(call)
        return client

    def _open(self, call: _Call) -> SecretClient:
        from azure.keyvault.secrets import SecretClient  # noqa: PLC0415 - 0.3 s; importing this module stays cheap

        if self._ca_bundle and not Path(self._ca_bundle).exists():
            raise self._trouble(call, Code.INVALID, f"there is no CA bundle at {self._ca_bundle}")
        with self._lock:  # one for all threads: it keeps the tokens
            self._token = self._token or _Token(self._login.open(self._ca_bundle), self._login.how)
        credential: Any = self._token
        return SecretClient(
            self._url,
            credential,
            verify_challenge_resource=self._verify,
            connection_verify=self._ca_bundle or True,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=self._timeout,
            retry_total=0,
            permit_redirects=False,
            logging_enable=False,
            raw_request_hook=self._in_time,
            raw_response_hook=self._heard,
        )

    def _heard(self, answer: Any) -> None:
        """Called by the SDK with every answer."""
        headers = answer.http_response.headers
        self.skew.heard(headers.get("Date"))
        heard(headers.get("x-ms-request-id"))

    def _in_time(self, request: Any) -> None:
        """Called by the SDK for every request, its repetition after a login included, once it is ready to be sent."""
        latest = request.context.options.pop(_LATEST, None)
        if latest is not None:
            request.context[_LATEST] = latest
        latest = request.context.get(_LATEST)
        if latest is not None and self._clock.monotonic() > latest:
            raise _TooLateError

    def _refused(self, call: _Call, error: HttpResponseError) -> tuple[Trouble, bool]:
        """What an answer means, and whether a read is worth repeating at once.

        The service's own words are not passed on: those about a value might repeat it.
        """
        status = error.status_code or 0
        code, inner = _codes(error)
        inner = inner or code
        made: type[_Refused] = _DisabledError if (status, inner) == (403, _DISABLED) else _Refused
        refusal, told = self._meaning(call, status, inner)
        if refusal is Code.UNAVAILABLE or not told:
            told = f"{told or f'HTTP {status} {inner} for {call.name}'}{_request_id(error)}"
        # A name that is being recovered was not written; any other fault of the service leaves that open.
        unsure = call.writes and refusal is Code.UNAVAILABLE and status != 409
        trouble = made(
            refusal,
            self._name,
            f"{call.entry}: {told}",
            maybe_applied=unsure or call.half_done,
            retry_after=_retry_after(error),
        )
        trouble.status, trouble.inner = status, inner
        return trouble, refusal is Code.UNAVAILABLE

    def _meaning(self, call: _Call, status: int, inner: str) -> tuple[Code, str]:
        """Code and words for an answer; no words where only the service could find any."""
        action = f"Microsoft.KeyVault/vaults/secrets/{call.action}"
        match status:
            case 401:
                return Code.DENIED, f"the vault does not accept the token of {self._login.how}"
            case 403 if inner == _DISABLED:
                told = (
                    f"the version of {call.name} is disabled; who disabled it has to enable it, or add another version"
                )
                return Code.INVALID, told
            case 403 if inner in ("ForbiddenByFirewall", "ForbiddenByConnection"):
                return Code.DENIED, f"the vault's network rules do not admit this client ({inner})"
            case 403 if inner in ("ForbiddenByRbac", "ForbiddenByPolicy", "AccessDenied"):
                what = f"{action} on {call.name or 'the vault'} (in an access policy: {_PERMISSIONS[call.action]})"
                return Code.DENIED, f"permission denied: {self._login.how} lacks {what}"
            case 403:
                return Code.DENIED, f"the vault refuses {action} on {call.name or 'itself'} ({inner})"
            case 404:
                return Code.INVALID, f"there is no Key Vault at {self._url}"
            case 409 if inner in (_DELETED, _BEING_DELETED):
                return Code.NOT_FOUND, f"{call.name} is deleted; recover it, or restore the entry"
            case 409 if inner == _BEING_RECOVERED:
                return Code.UNAVAILABLE, f"{call.name} is being recovered; try again in a few seconds"
            case 409:
                return Code.CONFLICT, ""
            case 429:
                return Code.THROTTLED, "too many requests"
            case _ if status < 300:
                return Code.UNAVAILABLE, f"{self._url} answers without JSON; is that a Key Vault?"
            case _ if status < 400:
                return Code.INVALID, f"{self._url} redirects to another address; configure that one"
            case _ if status == 408 or status >= 500:
                return Code.UNAVAILABLE, f"{self._url} answers HTTP {status} {inner}".rstrip()
        return Code.INVALID, ""

    def _unanswered(self, call: _Call, error: Exception) -> tuple[Trouble, bool]:
        """What it means that a request got no answer: above all, whether it can have had an effect.

        The SDK's own ServiceRequestError says "not sent" of some requests that were: a connection that breaks
        under TLS, at whatever moment. So only what can not have reached the vault is taken not to have.
        """
        from azure.core.exceptions import ServiceRequestError  # noqa: PLC0415 - loaded with the client, as the next
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError  # noqa: PLC0415

        inner = getattr(error, "inner_exception", None)
        if isinstance(error, json.JSONDecodeError):
            told = f"{self._url} answers without JSON; is that a Key Vault?"
            return self._trouble(call, Code.UNAVAILABLE, told, maybe_applied=call.writes), True
        if isinstance(error, ValueError):
            told = (
                f"the vault's host is not under the domain of its tokens; see verifyChallengeResource for {self._url}"
            )
            return self._trouble(call, Code.INVALID, told), False
        if _has(inner, ssl.SSLCertVerificationError):
            told = f"the certificate of {self._url} is not trusted; see caBundle"
            return self._trouble(call, Code.UNAVAILABLE, told), False
        if (inner is None and isinstance(error, ServiceRequestError)) or _has(inner, ValueError):
            return self._trouble(call, Code.INVALID, f"{self._url} can not be asked; nothing was sent"), False
        if _has(inner, NewConnectionError, ConnectTimeoutError):
            return self._trouble(call, Code.UNAVAILABLE, f"{self._url} can not be reached"), False
        late = "Timeout" in type(error).__name__
        told = f"did not answer within {self._timeout:g} s" if late else "broke the connection before an answer came"
        return self._trouble(call, Code.UNAVAILABLE, f"{self._url} {told}", maybe_applied=call.writes), True

    def _trouble(self, call: _Call, code: Code, message: str, *, maybe_applied: bool = False) -> Trouble:
        unsure = maybe_applied or call.half_done
        return Trouble(code, self._name, f"{call.entry}: {message}", maybe_applied=unsure)


def _codes(error: HttpResponseError) -> tuple[str, str]:
    """`error.code` and `error.innererror.code` of an answer, empty where it has none."""
    said: Any = error.error
    inner = said.innererror if said else None
    found = (said.code if said else None, inner.get("code") if isinstance(inner, dict) else None)
    code, within = (text if isinstance(text, str) and _CODE.fullmatch(text) else "" for text in found)
    return code, within


_CODE: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_REQUEST_ID: Final = re.compile(r"[0-9a-fA-F-]{1,64}")


def _request_id(error: HttpResponseError) -> str:
    """What Azure's support asks for."""
    found = _header(error, "x-ms-request-id")
    return f" (request {found})" if _REQUEST_ID.fullmatch(found) else ""


def _retry_after(error: HttpResponseError) -> float | None:
    found = _header(error, "Retry-After")
    return float(found) if found.isdecimal() else None


def _header(error: HttpResponseError, name: str) -> str:
    response: Any = error.response
    return str(response.headers.get(name, "")) if response else ""


def _has(error: object, *kinds: type[BaseException]) -> bool:
    """Whether an exception is, or was made from, one of these."""
    if isinstance(error, kinds):
        return True
    below = (getattr(error, "reason", None), *getattr(error, "args", ())) if isinstance(error, BaseException) else ()
    return any(_has(part, *kinds) for part in below)
