"""What the vault holds, and what each operation of Key Vault's secrets API does to it.

Facts come from https://learn.microsoft.com/azure/key-vault/secrets/about-secrets (limits), from
https://learn.microsoft.com/azure/key-vault/general/soft-delete-overview and from Microsoft's public recordings of the
SDK's tests against the service (github.com/Azure/azure-sdk-assets).
"""

from __future__ import annotations

import base64
import binascii
import bisect
import enum
import itertools
import json
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from cryptography.fernet import Fernet, InvalidToken

from rotation.files import write_private

MAX_VALUE_BYTES: Final = 25_600
MAX_TAGS: Final = 15
MAX_TAG_CHARACTERS: Final = 256
MAX_CONTENT_TYPE_CHARACTERS: Final = 255
MAX_BACKUP_VERSIONS: Final = 500
PAGE: Final = 25

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_VERSION = re.compile(r"[0-9a-f]{32}")
_BACKUP_MAGIC = b"KeyturnSandboxSecretBackupV1."
_Item = TypeVar("_Item")
_HISTORY = 8  # how many states of one entry a stale read can reach back to


class VaultError(Exception):
    """A refusal, as the service words it.

    Attributes:
        status: the HTTP status.
        code: `error.code`.
        inner: `error.innererror.code`, or None where the service gives none.
    """

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner


class State(enum.Enum):
    """Where an entry is in its life. The two in-between states are what makes delete, recover and purge asynchronous."""

    ACTIVE = "active"
    DELETING = "deleting"
    DELETED = "deleted"
    RECOVERING = "recovering"
    PURGING = "purging"


@dataclass(frozen=True)
class Properties:
    """What a caller says about a version besides its value; None means not said."""

    enabled: bool | None = None
    not_before: int | None = None
    """Seconds since 1970. Informational: the service returns the value all the same."""
    expires: int | None = None
    """Seconds since 1970. Informational, too; Event Grid's SecretNearExpiry goes by it."""
    content_type: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Version:
    """One version. Only its properties ever change; the value does not."""

    id: str
    """32 lower-case hexadecimal digits."""
    value: str = field(repr=False)
    created: int
    """Whole seconds since 1970, like the other times here."""
    updated: int
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None
    content_type: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Entry:
    """A secret with all its versions, oldest first; the last one is current, be it enabled or not."""

    name: str
    versions: tuple[Version, ...]
    managed: bool = False
    """Whether a certificate backs it; such an entry changes only through its certificate."""
    state: State = State.ACTIVE
    deleted_at: int | None = None

    @property
    def current(self) -> Version:
        return self.versions[-1]

    def version(self, version: str) -> Version | None:
        return next((each for each in self.versions if each.id == version), None)


@dataclass(frozen=True)
class Delay:
    """How long an operation stays under way: until both the time has passed and the refusals were given."""

    seconds: float = 0.0
    """By the vault's clock."""
    refusals: int = 0
    """How many requests that ask for the outcome are refused first, whatever the clock says."""


@dataclass(frozen=True)
class Settings:
    """How this vault is configured, and how slow it is."""

    recoverable_days: int = 90
    """Days that a deleted secret can be recovered for, 7 to 90."""
    purge_protection: bool = False
    delete: Delay = field(default_factory=Delay)
    recover: Delay = field(default_factory=Delay)
    purge: Delay = field(default_factory=Delay)
    visible_after: float = 0.0
    """Seconds by the vault's clock for which reads still answer as before a write."""

    @property
    def recovery_level(self) -> str:
        """The name that the service has for the combination (REST reference, DeletionRecoveryLevel)."""
        level = "Recoverable" if self.recoverable_days == 90 else "CustomizedRecoverable"
        return level if self.purge_protection else f"{level}+Purgeable"


@dataclass(frozen=True)
class Page(Generic[_Item]):
    """A part of a list."""

    items: list[_Item]
    last: str
    """What the next page comes after, whether there is one or not."""
    more: bool
    """Whether anything is left for a next page."""


@dataclass
class _UnderWay:
    """An unfinished delete, recover or purge."""

    ready_at: datetime
    refusals: int


class Vault:
    """One vault. Safe to use from several threads.

    Args:
        now: the time, aware; entries and delays go by it.
        directory: where entries are kept across restarts, one file each, readable by the owner only; None keeps them
            in memory.
        backup_key: the Fernet key that seals backups. A backup opens only in a vault with the same key.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        directory: Path | None = None,
        backup_key: bytes | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._now = now
        self._seal = Fernet(backup_key or Fernet.generate_key())
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []  # of _entries, sorted: names differ in no more than case
        self._under_way: dict[str, _UnderWay] = {}
        self._commits = 0
        # What each entry was before its latest commits: (number of the commit, its time, the entry or None).
        self._before: dict[str, deque[tuple[int, datetime, Entry | None]]] = {}
        self._files = _Files(directory) if directory else None
        if self._files:
            for entry in self._files.load():
                self._keep(entry.name.lower(), entry)

    # Active secrets

    def set(self, name: str, value: object, properties: Properties) -> tuple[Entry, Version]:
        """Adds a version, and the entry with it when it is new. Nothing is inherited from the version before.

        Raises:
            VaultError: 400 for what the limits forbid; 409 while the name is soft-deleted, or on its way there or back.
        """
        _check_name(name)
        if not isinstance(value, str) or len(value.encode()) > MAX_VALUE_BYTES:
            raise _bad_property()
        _check_properties(properties)
        key = name.lower()
        with self._lock:
            entry = self._settle(key)
            if entry:
                self._refuse_unless_active(key, entry)
                if entry.managed:
                    raise _managed("set")
            at = self._seconds()
            version = Version(
                id=uuid.uuid4().hex,
                value=value,
                created=at,
                updated=at,
                enabled=properties.enabled is not False,
                not_before=properties.not_before,
                expires=properties.expires,
                content_type=properties.content_type,
                tags=properties.tags,
            )
            before = entry.versions if entry else ()
            entry = replace(entry, versions=(*before, version)) if entry else Entry(name, (version,))
            self._commit(key, entry)
            return entry, version

    def get(self, name: str, version: str | None = None, *, stale: int = 0) -> tuple[Entry, Version]:
        """The version named, or the newest one. A disabled newest version hides the older ones; none steps in for it.

        With `stale` it answers as before that many of the latest commits.

        Raises:
            VaultError: 404 when there is no such secret or version, 403 SecretDisabled when it is disabled.
        """
        _check_name(name)
        with self._lock:
            self._settle(name.lower())
            entry, found = self._find(name, version, self._view(name.lower(), stale))
        if not found.enabled:
            raise VaultError(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
        return entry, found

    def update(self, name: str, version: str | None, properties: Properties) -> tuple[Entry, Version]:
        """Changes the properties that are given of one version; tags are replaced as a whole."""
        _check_name(name)
        _check_properties(properties)
        with self._lock:
            entry, found = self._find(name, version, self._settle(name.lower()))
            if entry.managed:
                raise _managed("update")
            given = {key: value for key, value in asdict(properties).items() if value is not None}
            changed = replace(found, updated=self._seconds(), **given)
            versions = tuple(changed if each.id == changed.id else each for each in entry.versions)
            entry = replace(entry, versions=versions)
            self._commit(name.lower(), entry)
            return entry, changed

    def list_secrets(self, after: str, limit: int, *, stale: int = 0) -> Page[Entry]:
        """Active entries by name, case aside, that come after the one with which a page before ended."""
        return self._page(State.ACTIVE, after, limit, stale)

    def list_versions(self, name: str, after: str, limit: int, *, stale: int = 0) -> Page[tuple[Entry, Version]]:
        """Versions by their id, which says nothing about their age. An unknown name has none; it is no error."""
        _check_name(name)
        with self._lock:
            self._settle(name.lower())
            entry = self._view(name.lower(), stale)
            if not entry or entry.state is not State.ACTIVE:
                self._refused(name.lower(), State.RECOVERING)  # whoever asks for versions asks for the outcome, too
                return Page([], after, more=False)
            rest = sorted((each for each in entry.versions if each.id > after), key=lambda each: each.id)
            page = rest[:limit]
            last = page[-1].id if page else after
            return Page([(entry, each) for each in page], last, more=len(rest) > limit)

    # Soft delete

    def delete(self, name: str) -> Entry:
        """Takes the entry out of the active ones at once; it shows among the deleted ones once `settings.delete` is over."""
        _check_name(name)
        with self._lock:
            entry, _ = self._find(name, None, self._settle(name.lower()))
            if entry.managed:
                raise _managed("delete")
            entry = replace(entry, state=State.DELETING, deleted_at=self._seconds())
            self._start(name.lower(), self.settings.delete)
            self._commit(name.lower(), entry)
            return entry

    def deleted(self, name: str) -> Entry:
        """A deleted entry.

        Raises:
            VaultError: 404, worded differently while deleting is under way.
        """
        _check_name(name)
        key = name.lower()
        with self._lock:
            entry = self._settle(key)
            if entry and entry.state is State.DELETED:
                return entry
            self._refused(key, State.DELETING)
            if entry and entry.state is State.DELETING:
                raise VaultError(404, "SecretNotFound", f"Deleted Secret not found: {name}")
            raise _not_found(name)

    def list_deleted(self, after: str, limit: int) -> Page[Entry]:
        """Deleted entries, in the order of `list_secrets`."""
        return self._page(State.DELETED, after, limit, 0)

    def recover(self, name: str) -> Entry:
        """Starts to bring a deleted entry back, with its versions and times as they were."""
        with self._lock:
            entry = replace(self._deleted(name), state=State.RECOVERING, deleted_at=None)
            self._start(name.lower(), self.settings.recover)
            self._commit(name.lower(), entry)
            return entry

    def purge(self, name: str) -> None:
        """Starts to remove a deleted entry for good.

        Raises:
            VaultError: 403 when the vault is protected against it.
        """
        with self._lock:
            entry = self._deleted(name)
            if self.settings.purge_protection:
                raise VaultError(
                    403,
                    "Forbidden",
                    'Operation "purge" is not allowed because purge protection is enabled for this vault. '
                    "Key Vault service will automatically purge it after the retention period has passed.",
                )
            self._start(name.lower(), self.settings.purge)
            self._commit(name.lower(), replace(entry, state=State.PURGING))

    def purge_scheduled_at(self, entry: Entry) -> int:
        """When the service itself removes a deleted entry, in seconds since 1970."""
        assert entry.deleted_at is not None
        return entry.deleted_at + int(timedelta(days=self.settings.recoverable_days).total_seconds())

    # Backups

    def backup(self, name: str) -> bytes:
        """All versions in a form that only this vault can open.

        Raises:
            VaultError: 404, or 400 above 500 versions (documented limit; the wording is ours).
        """
        _check_name(name)
        with self._lock:
            entry, _ = self._find(name, None, self._settle(name.lower()))
        if len(entry.versions) > MAX_BACKUP_VERSIONS:
            raise VaultError(400, "BadParameter", f"A backup holds at most {MAX_BACKUP_VERSIONS} versions of a secret.")
        return _BACKUP_MAGIC + self._seal.encrypt(json.dumps(_to_json(entry)).encode())

    def restore(self, backup: bytes) -> Entry:
        """Brings a backed-up entry back, with its versions and times as they were.

        Raises:
            VaultError: 400 for a blob that is not ours or was changed; 409 while the name is in use, deleted entries
                and entries being purged included.
        """
        if not backup.startswith(_BACKUP_MAGIC):
            raise _bad_backup()
        try:
            entry = _from_json(json.loads(self._seal.decrypt(backup.removeprefix(_BACKUP_MAGIC))))
        except InvalidToken:
            raise _bad_backup() from None
        key = entry.name.lower()
        with self._lock:
            if self._settle(key):
                self._refused(key, State.PURGING)
                raise VaultError(
                    409,
                    "Conflict",
                    f"There was a conflict restoring the secret '{entry.name}/{entry.current.id}'. "
                    "Its name is in use, or another operation on it is not over yet.",
                )
            self._commit(key, entry)
            return entry

    # What the sandbox needs besides

    def seed(self, entry: Entry) -> None:
        """Puts an entry in as it is, over one of the same name: certificates' secrets, old entries, many entries."""
        _check_name(entry.name)
        if entry.state not in {State.ACTIVE, State.DELETED}:
            raise ValueError(f"{entry.name} cannot start as {entry.state.value}")
        with self._lock:
            self._under_way.pop(entry.name.lower(), None)
            self._commit(entry.name.lower(), entry)

    def reset(self) -> None:
        """Empties the vault, its files included."""
        with self._lock:
            for key in self._keys:
                if self._files:
                    self._files.remove(key)
            self._entries.clear()
            self._keys.clear()
            self._under_way.clear()
            self._before.clear()

    # Inside

    def _seconds(self) -> int:
        return int(self._now().timestamp())

    def _find(self, name: str, version: str | None, entry: Entry | None) -> tuple[Entry, Version]:
        """The version of an active entry, which is the one that the caller sees under the name."""
        if not entry or entry.state is not State.ACTIVE:
            self._refused(name.lower(), State.RECOVERING)
            raise _not_found(name)
        if not version:
            return entry, entry.current
        if not _VERSION.fullmatch(version):
            raise VaultError(400, "BadParameter", f"The request URI contains an invalid version: {version}")
        found = entry.version(version)
        if not found:
            raise _not_found(f"{name}/{version}")
        return entry, found

    def _deleted(self, name: str) -> Entry:
        """The deleted entry that recover or purge is about to act on."""
        _check_name(name)
        key = name.lower()
        entry = self._settle(key)
        if not entry or entry.state in {State.ACTIVE, State.PURGING}:
            raise _not_found(name)
        if entry.state is not State.DELETED:
            self._refused(key, entry.state)
            raise _in_between(entry.state)
        return entry

    def _refuse_unless_active(self, key: str, entry: Entry) -> None:
        if entry.state is State.ACTIVE:
            return
        self._refused(key, entry.state)
        if entry.state is State.DELETED:
            raise VaultError(
                409,
                "Conflict",
                f"Secret {entry.name} is currently in a deleted but recoverable state, and its name cannot be reused; "
                "in this state, the secret can only be recovered or purged.",
                "ObjectIsDeletedButRecoverable",
            )
        raise _in_between(entry.state)

    def _start(self, key: str, delay: Delay) -> None:
        self._under_way[key] = _UnderWay(self._now() + timedelta(seconds=delay.seconds), delay.refusals)

    def _refused(self, key: str, state: State) -> None:
        """Counts a refusal that is due to the entry still being in a state in between."""
        under_way = self._under_way.get(key)
        if under_way and under_way.refusals and self._entries[key].state is state:
            under_way.refusals -= 1

    def _settle(self, key: str) -> Entry | None:
        """The entry as of now, any operation on it that is over by now being finished first."""
        entry = self._entries.get(key)
        if not entry or entry.state is State.ACTIVE:
            return entry
        if entry.state is State.DELETED:
            if self.purge_scheduled_at(entry) <= self._seconds():
                self._keep(key, None)
                return None
            return entry
        under_way = self._under_way[key]
        if under_way.refusals or under_way.ready_at > self._now():
            return entry
        del self._under_way[key]
        self._keep(key, _settled(entry))
        return self._entries.get(key)

    def _commit(self, key: str, entry: Entry) -> None:
        """Makes a change that a caller asked for."""
        self._commits += 1
        before = self._before.setdefault(key, deque(maxlen=_HISTORY))
        before.append((self._commits, self._now(), self._entries.get(key)))
        self._keep(key, entry)
        self._settle(key)

    def _keep(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            self._entries.pop(key, None)
            index = bisect.bisect_left(self._keys, key)
            del self._keys[index : index + 1]
        else:
            if key not in self._entries:
                bisect.insort(self._keys, key)
            self._entries[key] = entry
        if self._files:
            if entry is None:
                self._files.remove(key)
            else:
                self._files.save(key, entry)

    def _view(self, key: str, stale: int) -> Entry | None:
        """The entry as a reader sees it: without the latest `stale` commits and those too young to be visible."""
        hidden_since = self._now() - timedelta(seconds=self.settings.visible_after)
        for commit, at, before in self._before.get(key, ()):
            if commit > self._commits - stale or at > hidden_since:
                return before
        return self._entries.get(key)

    def _page(self, state: State, after: str, limit: int, stale: int) -> Page[Entry]:
        with self._lock:
            matching = (entry for entry in self._from(after, stale) if entry.state is state)
            page = list(itertools.islice(matching, limit))
            last = page[-1].name.lower() if page else after
            return Page(page, last, more=next(matching, None) is not None)

    def _from(self, after: str, stale: int) -> Iterator[Entry]:
        start = bisect.bisect_right(self._keys, after)
        for key in self._keys[start:]:
            self._settle(key)
            entry = self._view(key, stale)
            if entry:
                yield entry


class _Files:
    """Entries on disk: one file each, replaced as a whole, for the owner's eyes only."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def load(self) -> Iterator[Entry]:
        """What was saved. An operation that the restart interrupted is taken to be over."""
        for path in sorted(self._directory.glob("*.json")):
            entry = _settled(_from_json(json.loads(path.read_text())))
            if entry:
                yield entry
            else:
                path.unlink()

    def save(self, key: str, entry: Entry) -> None:
        write_private(self._directory / f"{key}.json", json.dumps(_to_json(entry)))

    def remove(self, key: str) -> None:
        (self._directory / f"{key}.json").unlink(missing_ok=True)


def decode_base64url(text: str) -> bytes:
    """Decodes what the SDK sends as `base64url`, padded or not.

    Raises:
        VaultError: 400, as for any blob that is no backup.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_backup() from None


def _settled(entry: Entry) -> Entry | None:
    """An entry once the operation that it is in is over."""
    match entry.state:
        case State.DELETING:
            return replace(entry, state=State.DELETED)
        case State.RECOVERING:
            return replace(entry, state=State.ACTIVE)
        case State.PURGING:
            return None
        case _:
            return entry


def _to_json(entry: Entry) -> dict[str, Any]:
    return asdict(entry) | {"state": entry.state.value}


def _from_json(data: dict[str, Any]) -> Entry:
    versions = tuple(Version(**version) for version in data["versions"])
    return Entry(**data | {"versions": versions, "state": State(data["state"])})


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise VaultError(400, "BadParameter", f"The request URI contains an invalid name: {name}")


def _check_properties(properties: Properties) -> None:
    tags = properties.tags or {}
    texts = [text for pair in tags.items() for text in pair]
    if len(tags) > MAX_TAGS or any(len(text) > MAX_TAG_CHARACTERS for text in texts):
        raise _bad_property()
    if len(properties.content_type or "") > MAX_CONTENT_TYPE_CHARACTERS:
        raise _bad_property()


def _bad_property() -> VaultError:
    """What the service says to a value, tag or content type beyond its limits; it does not say which."""
    return VaultError(400, "BadParameter", "Property  has invalid value\r\n")


def _bad_backup() -> VaultError:
    return VaultError(400, "BadParameter", "Backup blob contains invalid or corrupt version.")


def _not_found(name: str) -> VaultError:
    return VaultError(
        404,
        "SecretNotFound",
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may be "
        "able to recover it using the correct recovery command. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125182",
    )


def _in_between(state: State) -> VaultError:
    if state is State.RECOVERING:
        return VaultError(409, "Conflict", "Secret is currently being recovered.", "ObjectIsBeingRecovered")
    return VaultError(409, "Conflict", "Secret is currently being deleted.", "ObjectIsBeingDeleted")


def _managed(operation: str) -> VaultError:
    """The service refuses to change a certificate's secret; no recording shows its words, so these are ours."""
    return VaultError(403, "Forbidden", f"Operation {operation} is not allowed on a secret that backs a certificate.")
