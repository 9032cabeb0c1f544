"""What the stand-in's organization holds: projects, service accounts, keys, usage and audit events, in one SQLite file.

Key values are never kept: a key is found by the salted hash of what a caller presents, and shown redacted. Deleted
objects stay as tombstones, so that a refused caller can still be named in the request log and a cursor keeps its place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sandbox.openai.errors import ApiError, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

OwnerKind = Literal["admin", "user", "service_account"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS projects (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, created_at INTEGER NOT NULL, archived_at INTEGER);
CREATE TABLE IF NOT EXISTS service_accounts (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
    created_at INTEGER NOT NULL, deleted_at INTEGER);
CREATE TABLE IF NOT EXISTS keys (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, project_id TEXT, service_account_id TEXT,
    name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, redacted TEXT NOT NULL, scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER, last_used_at INTEGER, deleted_at INTEGER,
    accepted_from REAL NOT NULL, refused_from REAL);
CREATE TABLE IF NOT EXISTS usage (
    at INTEGER NOT NULL, project_id TEXT NOT NULL, api_key_id TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    PRIMARY KEY (at, api_key_id, model));
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, effective_at INTEGER NOT NULL,
    actor_key_id TEXT, resource_id TEXT NOT NULL, details TEXT NOT NULL);
"""
_VALUE_PREFIX: dict[OwnerKind, str] = {"admin": "sk-admin-", "user": "sk-proj-", "service_account": "sk-svcacct-"}
_ALL_MODEL_SCOPES = frozenset({"model.read", "model.request"})


@dataclass(frozen=True)
class Project:
    """Times are Unix seconds, here and below."""

    id: str
    name: str
    created_at: int
    archived_at: int | None


@dataclass(frozen=True)
class ServiceAccount:
    id: str
    project_id: str
    name: str
    role: str
    """owner, member or none; without a role its keys may do nothing."""
    created_at: int
    deleted_at: int | None


@dataclass(frozen=True)
class Key:
    """A key without its value. `project_id` is None for an admin key, `service_account_id` unless one owns the key."""

    id: str
    owner: OwnerKind
    project_id: str | None
    service_account_id: str | None
    name: str
    redacted: str
    scopes: str
    """Space-separated; empty means unrestricted."""
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    deleted_at: int | None
    accepted_from: float
    """Creation plus its propagation delay."""
    refused_from: float | None
    """Deletion plus its propagation delay."""

    def accepted(self, at: float) -> bool:
        """Whether the value logs in at this time; what it may then do is a matter of scopes."""
        revoked = self.refused_from is not None and at >= self.refused_from
        expired = self.expires_at is not None and at >= self.expires_at
        return at >= self.accepted_from and not revoked and not expired


@dataclass(frozen=True)
class Usage:
    """Calls of one key to one model within one second."""

    at: int
    project_id: str
    api_key_id: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class AuditEvent:
    id: str
    type: str
    effective_at: int
    actor_key_id: str | None
    """None for what was done in the dashboard."""
    resource_id: str
    details: str
    """JSON of the object that stands under the event's type."""


Record = TypeVar("Record", Project, ServiceAccount, Key, Usage, AuditEvent)


def redact(value: str) -> str:
    """OpenAI's form: the kind of key and the last four characters; of anything short, nothing."""
    if len(value) < 24:
        return "****"
    prefix = next((prefix for prefix in _VALUE_PREFIX.values() if value.startswith(prefix)), "")
    return f"{prefix}****{value[-4:]}"


class State:
    """The organization. Each method is one transaction; any thread may call it."""

    def __init__(self, path: Path | None, now: Callable[[], datetime]) -> None:
        """Opens or creates the organization; with no path it lives in memory."""
        self._now = now
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        # Survives a killed process; only a crash of the whole machine could lose the last writes.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        with self._lock, self._db:
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (secrets.token_hex(32),))
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('default_project', ?)", (_new_id("proj_"),))
            meta = dict(self._db.execute("SELECT name, value FROM meta").fetchall())
            self._salt = bytes.fromhex(meta["salt"])
            self.default_project_id = str(meta["default_project"])
            self._db.execute(
                "INSERT OR IGNORE INTO projects (id, name, created_at) VALUES (?, 'Default project', ?)",
                (self.default_project_id, self._seconds()),
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Keys, whoever owns them

    def identify(self, value: str) -> Key | None:
        """The key with this value, be it live, deleted or expired."""
        with self._lock:
            return self._one(Key, "SELECT * FROM keys WHERE digest = ?", self._digest(value))

    def scopes(self, key: Key) -> frozenset[str]:
        """What the key may do now, `api.` before a scope left out as OpenAI's own messages do for some."""
        if key.owner == "admin":
            return frozenset({"management.read", "management.write"})
        if key.service_account_id is not None:
            with self._lock:
                query = (
                    "SELECT * FROM service_accounts WHERE id = ?"  # a deleted one too: its keys may outlive it a little
                )
                account = self._one(ServiceAccount, query, key.service_account_id)
            if account is None or account.role == "none":
                return frozenset()
        return frozenset(scope.removeprefix("api.") for scope in key.scopes.split()) or _ALL_MODEL_SCOPES

    def touch(self, key_id: str) -> None:
        """Notes a use of the key."""
        with self._lock, self._db:
            self._db.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", (self._seconds(), key_id))

    def all_keys(self) -> list[Key]:
        """Every key there ever was, oldest first."""
        with self._lock:
            return list(self._all(Key, "SELECT * FROM keys ORDER BY seq"))

    # Admin keys

    def adopt_admin_key(self, value: str) -> None:
        """Makes a value chosen by the operator the first admin key of a new organization.

        Raises:
            ValueError: the organization has admin keys already, and this was never one of them.
        """
        known = self.identify(value)
        if known is not None and known.owner == "admin":
            return
        if self.admin_keys():
            raise ValueError("this state file belongs to another admin key")
        with self._lock, self._db:
            self._insert_key("admin", name="First admin key", value=value)

    def admin_keys(self) -> list[Key]:
        return [key for key in self.all_keys() if key.owner == "admin"]

    def admin_key(self, key_id: str) -> Key:
        with self._lock:
            return self._live_key("SELECT * FROM keys WHERE id = ? AND owner = 'admin'", key_id)

    def create_admin_key(self, name: str, *, expires_in: int | None, delay: float, by: str) -> tuple[Key, str]:
        """Returns the key and its value, which is not to be had again. `delay` in seconds until it is accepted."""
        with self._lock, self._db:
            key, value = self._insert_key("admin", name=name, expires_in=expires_in, delay=delay)
            self._audit("api_key.created", key.id, by, {"data": {"scopes": []}})
            return key, value

    def delete_admin_key(self, key_id: str, *, delay: float, by: str) -> None:
        with self._lock, self._db:
            self._delete_key(self._live_key("SELECT * FROM keys WHERE id = ? AND owner = 'admin'", key_id), delay, by)

    # Projects

    def projects(self) -> list[Project]:
        with self._lock:
            return list(self._all(Project, "SELECT * FROM projects ORDER BY seq"))

    def project(self, project_id: str) -> Project:
        with self._lock:
            return self._project(project_id)

    def create_project(self, name: str, *, by: str) -> Project:
        project_id = _new_id("proj_")
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO projects (id, name, created_at) VALUES (?, ?, ?)", (project_id, name, self._seconds())
            )
            self._audit("project.created", project_id, by, {"data": {"name": name, "title": name}})
            return self._project(project_id)

    def rename_project(self, project_id: str, name: str, *, by: str) -> Project:
        with self._lock, self._db:
            self._changeable_project(project_id)
            self._db.execute("UPDATE projects SET name = ? WHERE id = ?", (name, project_id))
            self._audit("project.updated", project_id, by, {"changes_requested": {"title": name}})
            return self._project(project_id)

    def archive_project(self, project_id: str, *, delay: float, by: str) -> Project:
        """`delay` in seconds until the keys that die with it are refused."""
        with self._lock, self._db:
            self._changeable_project(project_id)
            for account in self._live_accounts(project_id):
                self._db.execute(
                    "UPDATE service_accounts SET deleted_at = ? WHERE id = ?", (self._seconds(), account.id)
                )
            for key in self._live_keys("SELECT * FROM keys WHERE project_id = ?", project_id):
                self._delete_key(key, delay, by)
            self._db.execute("UPDATE projects SET archived_at = ? WHERE id = ?", (self._seconds(), project_id))
            self._audit("project.archived", project_id, by, {})
            return self._project(project_id)

    # Service accounts

    def service_accounts(self, project_id: str) -> list[ServiceAccount]:
        """With the deleted ones, oldest first."""
        with self._lock:
            self._active_project(project_id)
            return self._accounts(project_id)

    def service_account(self, project_id: str, account_id: str) -> ServiceAccount:
        with self._lock:
            self._active_project(project_id)
            return self._account(project_id, account_id)

    def create_service_account(self, project_id: str, name: str, *, role: str, by: str) -> ServiceAccount:
        with self._lock, self._db:
            return self._insert_account(project_id, name, role, by)

    def create_service_account_with_key(
        self, project_id: str, name: str, *, role: str, expires_in: int | None, delay: float, by: str
    ) -> tuple[ServiceAccount, Key, str]:
        """Both or neither. Returns the value as well, which is not to be had again."""
        with self._lock, self._db:
            account = self._insert_account(project_id, name, role, by)
            return account, *self._insert_account_key(
                account, name="Secret Key", scopes=(), expires_in=expires_in, delay=delay, by=by
            )

    def update_service_account(
        self, project_id: str, account_id: str, *, name: str | None, role: str | None, by: str
    ) -> ServiceAccount:
        with self._lock, self._db:
            self._active_project(project_id)
            account = self._account(project_id, account_id)
            self._db.execute(
                "UPDATE service_accounts SET name = ?, role = ? WHERE id = ?",
                (name or account.name, role or account.role, account_id),
            )
            self._audit(
                "service_account.updated", account_id, by, {"changes_requested": {"role": role} if role else {}}
            )
            return self._account(project_id, account_id)

    def delete_service_account(self, project_id: str, account_id: str, *, delay: float, by: str) -> None:
        """`delay` in seconds until the account's keys are refused."""
        with self._lock, self._db:
            self._active_project(project_id)
            account = self._account(project_id, account_id)
            for key in self._live_keys("SELECT * FROM keys WHERE service_account_id = ?", account.id):
                self._delete_key(key, delay, by)
            self._db.execute("UPDATE service_accounts SET deleted_at = ? WHERE id = ?", (self._seconds(), account.id))
            self._audit("service_account.deleted", account.id, by, {})

    def create_service_account_key(
        self,
        project_id: str,
        account_id: str,
        *,
        name: str,
        scopes: tuple[str, ...],
        expires_in: int | None,
        delay: float,
        by: str,
    ) -> tuple[Key, str]:
        with self._lock, self._db:
            self._active_project(project_id)
            account = self._account(project_id, account_id)
            return self._insert_account_key(
                account, name=name, scopes=scopes, expires_in=expires_in, delay=delay, by=by
            )

    # Project keys

    def project_keys(self, project_id: str) -> list[tuple[Key, ServiceAccount | None]]:
        """With their owners (None: a user) and with the deleted ones, oldest first."""
        with self._lock:
            self._project(project_id)
            accounts = {account.id: account for account in self._accounts(project_id)}
            keys = self._all(Key, "SELECT * FROM keys WHERE project_id = ? ORDER BY seq", project_id)
            return [(key, accounts.get(key.service_account_id or "")) for key in keys]

    def project_key(self, project_id: str, key_id: str) -> tuple[Key, ServiceAccount | None]:
        for key, owner in self.project_keys(project_id):
            if key.id == key_id and key.deleted_at is None:
                return key, owner
        raise not_found("API key", key_id)

    def delete_project_key(self, project_id: str, key_id: str, *, delay: float, by: str) -> None:
        """`delay` in seconds until the value is refused."""
        with self._lock, self._db:
            self._project(project_id)
            query = "SELECT * FROM keys WHERE id = ? AND project_id = ?"
            self._delete_key(self._live_key(query, key_id, project_id), delay, by)

    def create_user_key(self, project_id: str, name: str, *, delay: float) -> tuple[Key, str]:
        """A key made by a person in the dashboard; the administration API cannot create one."""
        with self._lock, self._db:
            self._active_project(project_id)
            key, value = self._insert_key("user", name=name, project_id=project_id, delay=delay)
            self._audit("api_key.created", key.id, None, {"data": {"scopes": []}})
            return key, value

    # What happened

    def count_completion(self, key: Key, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Adds one answered call to the usage."""
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO usage VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + 1, "
                "input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens",
                (self._seconds(), key.project_id, key.id, model, input_tokens, output_tokens),
            )

    def usage(self, start: int, end: int) -> list[Usage]:
        """Within [start, end)."""
        with self._lock:
            return list(self._all(Usage, "SELECT * FROM usage WHERE at >= ? AND at < ? ORDER BY at", start, end))

    def audit_events(self) -> list[AuditEvent]:
        """Newest first."""
        with self._lock:
            return list(self._all(AuditEvent, "SELECT * FROM audit ORDER BY seq DESC"))

    # Inside a transaction

    def _seconds(self) -> int:
        return int(self._now().timestamp())

    def _digest(self, value: str) -> str:
        return hmac.new(self._salt, value.encode(), hashlib.sha256).hexdigest()

    def _all(self, record: type[Record], query: str, *arguments: object) -> Iterator[Record]:
        names = [field.name for field in fields(record)]
        for row in self._db.execute(query, arguments):
            yield record(**{name: row[name] for name in names})

    def _one(self, record: type[Record], query: str, *arguments: object) -> Record | None:
        return next(self._all(record, query, *arguments), None)

    def _project(self, project_id: str) -> Project:
        project = self._one(Project, "SELECT * FROM projects WHERE id = ?", project_id)
        if project is None:
            raise not_found("project", project_id)
        return project

    def _active_project(self, project_id: str) -> None:
        if self._project(project_id).archived_at is not None:
            raise ApiError(400, f"Project {project_id} is archived.")

    def _changeable_project(self, project_id: str) -> None:
        self._active_project(project_id)
        if project_id == self.default_project_id:
            raise ApiError(400, "The default project cannot be changed.")

    def _accounts(self, project_id: str) -> list[ServiceAccount]:
        query = "SELECT * FROM service_accounts WHERE project_id = ? ORDER BY seq"
        return list(self._all(ServiceAccount, query, project_id))

    def _live_accounts(self, project_id: str) -> list[ServiceAccount]:
        return [account for account in self._accounts(project_id) if account.deleted_at is None]

    def _account(self, project_id: str, account_id: str) -> ServiceAccount:
        for account in self._live_accounts(project_id):
            if account.id == account_id:
                return account
        raise not_found("service account", account_id)

    def _insert_account(self, project_id: str, name: str, role: str, by: str) -> ServiceAccount:
        self._active_project(project_id)
        account_id = _new_id("svc_acct_")
        self._db.execute(
            "INSERT INTO service_accounts (id, project_id, name, role, created_at) VALUES (?, ?, ?, ?, ?)",
            (account_id, project_id, name, role, self._seconds()),
        )
        self._audit("service_account.created", account_id, by, {"data": {"role": role}})
        return self._account(project_id, account_id)

    def _insert_account_key(
        self,
        account: ServiceAccount,
        *,
        name: str,
        scopes: tuple[str, ...],
        expires_in: int | None,
        delay: float,
        by: str,
    ) -> tuple[Key, str]:
        key, value = self._insert_key(
            "service_account",
            name=name,
            project_id=account.project_id,
            service_account_id=account.id,
            scopes=scopes,
            expires_in=expires_in,
            delay=delay,
        )
        self._audit("api_key.created", key.id, by, {"data": {"scopes": list(scopes)}})
        return key, value

    def _insert_key(
        self,
        owner: OwnerKind,
        *,
        name: str,
        value: str | None = None,
        project_id: str | None = None,
        service_account_id: str | None = None,
        scopes: tuple[str, ...] = (),
        expires_in: int | None = None,
        delay: float = 0,
    ) -> tuple[Key, str]:
        key_id = _new_id("key_")
        value = value or _VALUE_PREFIX[owner] + secrets.token_urlsafe(60)
        created_at = self._seconds()
        self._db.execute(
            "INSERT INTO keys (id, owner, project_id, service_account_id, name, digest, redacted, scopes, created_at, "
            "expires_at, accepted_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key_id,
                owner,
                project_id,
                service_account_id,
                name,
                self._digest(value),
                redact(value),
                " ".join(scopes),
                created_at,
                None if expires_in is None else created_at + expires_in,
                self._now().timestamp() + delay,
            ),
        )
        return self._live_key("SELECT * FROM keys WHERE id = ?", key_id), value

    def _live_keys(self, query: str, *arguments: object) -> list[Key]:
        return [key for key in self._all(Key, query, *arguments) if key.deleted_at is None]

    def _live_key(self, query: str, key_id: str, *arguments: object) -> Key:
        for key in self._live_keys(query, key_id, *arguments):
            return key
        raise not_found("API key", key_id)

    def _delete_key(self, key: Key, delay: float, by: str) -> None:
        self._db.execute(
            "UPDATE keys SET deleted_at = ?, refused_from = ? WHERE id = ?",
            (self._seconds(), self._now().timestamp() + delay, key.id),
        )
        self._audit("api_key.deleted", key.id, by, {})

    def _audit(self, event: str, resource_id: str, by: str | None, details: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO audit (id, type, effective_at, actor_key_id, resource_id, details) VALUES (?, ?, ?, ?, ?, ?)",
            (
                _new_id("audit_log-"),
                event,
                self._seconds(),
                by,
                resource_id,
                json.dumps({"id": resource_id, **details}),
            ),
        )


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)
