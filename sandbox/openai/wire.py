"""The JSON objects and pages that OpenAI answers with; field for field what its OpenAPI description declares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sandbox.openai.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.openai.state import AuditEvent, Key, Project, ServiceAccount

Json = dict[str, Any]

_OWNER = {"id": "user-sandbox", "name": "Sandbox Owner", "role": "owner", "created_at": 1_767_225_600}
OWNER_EMAIL = "owner@sandbox.invalid"


def project(record: Project) -> Json:
    return {
        "id": record.id,
        "object": "organization.project",
        "name": record.name,
        "created_at": record.created_at,
        "archived_at": record.archived_at,
        "status": "active" if record.archived_at is None else "archived",
    }


def service_account(record: ServiceAccount) -> Json:
    return {
        "object": "organization.project.service_account",
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "created_at": record.created_at,
    }


def new_service_account_key(record: Key, value: str) -> Json:
    """The one answer that carries the value."""
    return {
        "object": "organization.project.service_account.api_key",
        "value": value,
        "name": record.name,
        "created_at": record.created_at,
        "id": record.id,
        "expires_at": record.expires_at,
    }


def owner_access(record: Key, owner: ServiceAccount | None) -> str:
    """`inactive` when the owner has no role in the project any more, or none yet."""
    return "inactive" if record.owner == "service_account" and (owner is None or owner.role == "none") else "active"


def project_key(record: Key, owner: ServiceAccount | None) -> Json:
    if owner is None:
        shown: Json = {"type": "user", "user": {**_OWNER, "email": OWNER_EMAIL}}
    else:
        account = {"id": owner.id, "name": owner.name, "created_at": owner.created_at, "role": owner.role}
        shown = {"type": "service_account", "service_account": account}
    return {
        "object": "organization.project.api_key",
        "redacted_value": record.redacted,
        "name": record.name,
        "created_at": record.created_at,
        "last_used_at": record.last_used_at,
        "id": record.id,
        "owner_project_access": owner_access(record, owner),
        "owner": shown,
        "expires_at": record.expires_at,
    }


def admin_key(record: Key) -> Json:
    return {
        "object": "organization.admin_api_key",
        "id": record.id,
        "name": record.name,
        "redacted_value": record.redacted,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "last_used_at": record.last_used_at,
        "owner": {"type": "user", "object": "organization.user", **_OWNER},
    }


def audit_event(record: AuditEvent, default_project: Project) -> Json:
    """What an admin key did counts as done in the default project: so says the description of `project`."""
    user = {"id": _OWNER["id"], "email": OWNER_EMAIL}
    if record.actor_key_id is None:
        actor: Json = {"type": "session", "session": {"user": user, "ip_address": "127.0.0.1"}}
    else:
        actor = {"type": "api_key", "api_key": {"id": record.actor_key_id, "type": "user", "user": user}}
    return {
        "id": record.id,
        "type": record.type,
        "effective_at": record.effective_at,
        "project": {"id": default_project.id, "name": default_project.name},
        "actor": actor,
        record.type: json.loads(record.details),
    }


def actor_ids(record: AuditEvent) -> set[str]:
    """The ids by which the audit log may be asked for this event's actor: the user, and the key that acted."""
    return {str(_OWNER["id"]), record.actor_key_id or ""}


def deleted(kind: str, object_id: str) -> Json:
    return {"object": f"{kind}.deleted", "id": object_id, "deleted": True}


def page(
    entries: Sequence[tuple[str, Json | None]], *, limit: int, after: str | None = None, before: str | None = None
) -> Json:
    """One page of the list, in its order. Each entry is an id and its object, or None: hidden, but good as a cursor.

    Raises:
        ApiError: 400, when `after` or `before` names nothing that was ever in the list.
    """
    ids = [entry_id for entry_id, _ in entries]
    for name, cursor in (("after", after), ("before", before)):
        if cursor is not None and cursor not in ids:
            raise ApiError(400, f"Invalid cursor: {cursor}", param=name, code="invalid_value")
    first = 0 if after is None else ids.index(after) + 1
    last = len(ids) if before is None else ids.index(before)
    shown = [shown for _, shown in entries[first:last] if shown is not None]
    # Paging back from `before` takes the entries nearest to it.
    data = shown[-limit:] if before is not None and after is None else shown[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(shown) > len(data),
    }
