"""HTTP as Key Vault speaks it: the routes of the secrets API, its headers, its JSON and its errors.

Shapes and headers follow Microsoft's recordings of the SDK's tests (github.com/Azure/azure-sdk-assets, API version
2025-07-01). The refusals for an unknown api-version and for page sizes out of range follow the REST reference; their
wording is ours.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flask import Blueprint, Flask, Response, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from sandbox.keyvault import control as control_plane
from sandbox.keyvault import entra
from sandbox.keyvault.control import Armed, Control, Record
from sandbox.keyvault.vault import PAGE, Entry, Page, Properties, Vault, VaultError, Version, decode_base64url

API_VERSIONS: Final = frozenset(
    {"2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"}
)
_Item = TypeVar("_Item")

CUT: Final = "keyturn.cut"
"""Key in the WSGI environment of the event that tells the server to cut the connection instead of answering."""

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Expires": "-1",
    "x-ms-keyvault-region": "sandbox",
    "x-ms-keyvault-service-version": "1.9.3070.1",
    "x-ms-keyvault-network-info": "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;",
    "X-Content-Type-Options": "nosniff",
    "Strict-Transport-Security": "max-age=31536000;includeSubDomains",
}
_FAULT_CODES: Final = {
    429: ("Throttled", "Request was not processed because too many requests were received."),
    503: ("ServiceUnavailable", "The service is unavailable."),
}
# What the caller must be allowed to do, by endpoint: the permission (as access policies name it) and the action (as
# role definitions do).
_ACTIONS: Final = {
    "vault.get_secret": ("get", "getSecret/action"),
    "vault.set_secret": ("set", "setSecret/action"),
    "vault.update_secret": ("set", "update/action"),
    "vault.delete_secret": ("delete", "delete"),
    "vault.list_secrets": ("list", "readMetadata/action"),
    "vault.list_versions": ("list", "readMetadata/action"),
    "vault.backup_secret": ("backup", "backup/action"),
    "vault.restore_secret": ("restore", "restore/action"),
    "vault.get_deleted": ("get", "readMetadata/action"),
    "vault.list_deleted": ("list", "readMetadata/action"),
    "vault.recover_secret": ("recover", "recover/action"),
    "vault.purge_secret": ("purge", "purge/action"),
}


def create_app(vault: Vault, directory: entra.Directory, control: Control) -> Flask:
    """The whole stand-in as a WSGI application."""
    app = Flask(__name__)
    app.register_blueprint(_vault_routes(vault, directory, control))
    app.register_blueprint(_entra_routes(directory, control))
    app.register_blueprint(control_plane.blueprint(control, vault, directory))

    @app.errorhandler(HTTPException)
    def unknown(error: HTTPException) -> ResponseReturnValue:
        return _error(VaultError(error.code or 500, error.name.replace(" ", ""), error.description or error.name))

    return app


def _entra_routes(directory: entra.Directory, control: Control) -> Blueprint:
    routes = entra.blueprint(directory)

    @routes.before_request
    def meet_fault() -> ResponseReturnValue | None:
        g.client_id = request.form.get("client_id")
        return _meet(control)

    @routes.after_request
    def finish(response: Response) -> Response:
        return _finish(control, response)

    return routes


def _vault_routes(vault: Vault, directory: entra.Directory, control: Control) -> Blueprint:
    routes = Blueprint("vault", __name__)
    show = _Rendering(vault)

    @routes.before_request
    def admit() -> ResponseReturnValue | None:
        principal = directory.authenticate(request.headers.get("Authorization"))
        g.client_id = principal.client_id
        met = _meet(control)
        if met is not None:
            return met
        permission, action = _ACTIONS[request.endpoint or ""]
        name = (request.view_args or {}).get("name")
        # No document says that a role at a secret reaches it once it is deleted; so here it does not.
        scope = None if request.path.startswith("/deletedsecrets") else name
        if not principal.may(permission, name) and not principal.holds(action, scope):
            raise _forbidden(principal, directory, action, name)
        version = request.args.get("api-version")
        if version not in API_VERSIONS:
            raise VaultError(400, "BadParameter", f"The specified version ({version}) is not recognized.")
        return None

    @routes.after_request
    def finish(response: Response) -> Response:
        response = _finish(control, response)
        response.headers.update(_HEADERS)
        response.headers["x-ms-request-id"] = str(uuid.uuid4())
        if "x-ms-client-request-id" in request.headers:
            response.headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
        if response.mimetype == "application/json":
            response.content_type = "application/json; charset=utf-8"
        return response

    @routes.errorhandler(VaultError)
    def refuse(error: VaultError) -> ResponseReturnValue:
        return _error(error)

    @routes.errorhandler(entra.UnauthorizedError)
    def challenge(error: entra.UnauthorizedError) -> ResponseReturnValue:
        response = _error(VaultError(401, "Unauthorized", error.message))
        authority = f"{request.host_url}{directory.tenant_id}"
        response.headers["WWW-Authenticate"] = (
            f'Bearer authorization="{authority}", resource="{entra.VAULT_AUDIENCE}"{error.challenge}'
        )
        return response

    def paged(
        page: Callable[[str, int], Page[_Item]], rendered: Callable[[_Item], dict[str, Any]]
    ) -> ResponseReturnValue:
        """Answers with the part of a list that was asked for, or with one of the planned size."""
        planned, more_planned = control.next_page(_path())
        part = page(_resume(), _page_size() if planned is None else planned)
        link = _next_link(part.last) if part.more or more_planned else None
        return jsonify(value=[rendered(item) for item in part.items], nextLink=link)

    @routes.get("/secrets", strict_slashes=False)
    def list_secrets() -> ResponseReturnValue:
        return paged(lambda after, size: vault.list_secrets(after, size, stale=_stale()), show.item)

    @routes.get("/secrets/<name>/versions")
    def list_versions(name: str) -> ResponseReturnValue:
        return paged(
            lambda after, size: vault.list_versions(name, after, size, stale=_stale()), lambda item: show.bundle(*item)
        )

    @routes.get("/secrets/<name>/", strict_slashes=False)
    @routes.get("/secrets/<name>/<version>")
    def get_secret(name: str, version: str | None = None) -> ResponseReturnValue:
        entry, found = vault.get(name, version, stale=_stale())
        return jsonify({"value": found.value} | show.bundle(entry, found))

    @routes.put("/secrets/<name>", strict_slashes=False)
    def set_secret(name: str) -> ResponseReturnValue:
        body = _json()
        entry, version = vault.set(name, body.get("value"), _properties(body))
        return jsonify({"value": version.value} | show.bundle(entry, version))

    @routes.patch("/secrets/<name>/", strict_slashes=False)
    @routes.patch("/secrets/<name>/<version>")
    def update_secret(name: str, version: str | None = None) -> ResponseReturnValue:
        return jsonify(show.bundle(*vault.update(name, version, _properties(_json()))))

    @routes.delete("/secrets/<name>", strict_slashes=False)
    def delete_secret(name: str) -> ResponseReturnValue:
        return jsonify(show.deleted_bundle(vault.delete(name)))

    @routes.post("/secrets/<name>/backup")
    def backup_secret(name: str) -> ResponseReturnValue:
        return jsonify(value=base64.urlsafe_b64encode(vault.backup(name)).decode().rstrip("="))

    @routes.post("/secrets/restore")
    def restore_secret() -> ResponseReturnValue:
        blob = _json().get("value")
        entry = vault.restore(decode_base64url(blob if isinstance(blob, str) else ""))
        return jsonify(show.bundle(entry, entry.current))

    @routes.get("/deletedsecrets", strict_slashes=False)
    def list_deleted() -> ResponseReturnValue:
        return paged(vault.list_deleted, show.deleted_item)

    @routes.get("/deletedsecrets/<name>", strict_slashes=False)
    def get_deleted(name: str) -> ResponseReturnValue:
        return jsonify(show.deleted_bundle(vault.deleted(name)))

    @routes.delete("/deletedsecrets/<name>", strict_slashes=False)
    def purge_secret(name: str) -> ResponseReturnValue:
        vault.purge(name)
        response = Response(status=204)
        del response.headers["Content-Type"]
        return response

    @routes.post("/deletedsecrets/<name>/recover")
    def recover_secret(name: str) -> ResponseReturnValue:
        entry = vault.recover(name)
        return jsonify(show.bundle(entry, entry.current))

    return routes


@dataclass(frozen=True)
class _Rendering:
    """Entries and versions as the service's JSON. Ids carry the host that the request was sent to."""

    vault: Vault

    def bundle(self, entry: Entry, version: Version) -> dict[str, Any]:
        return self._body(entry, version, f"{entry.name}/{version.id}")

    def item(self, entry: Entry) -> dict[str, Any]:
        """An element of the list of secrets; those of versions are bundles."""
        return self._body(entry, entry.current, entry.name)

    def deleted_bundle(self, entry: Entry) -> dict[str, Any]:
        return self._deletion(entry) | self.bundle(entry, entry.current)

    def deleted_item(self, entry: Entry) -> dict[str, Any]:
        return self._deletion(entry) | self.item(entry)

    def _body(self, entry: Entry, version: Version, path: str) -> dict[str, Any]:
        attributes = {
            "enabled": version.enabled,
            "nbf": version.not_before,
            "exp": version.expires,
            "created": version.created,
            "updated": version.updated,
            "recoveryLevel": self.vault.settings.recovery_level,
            "recoverableDays": self.vault.settings.recoverable_days,
        }
        body = {
            "contentType": version.content_type,
            "id": f"{request.host_url}secrets/{path}",
            "managed": entry.managed or None,
            "attributes": {key: value for key, value in attributes.items() if value is not None},
            "tags": version.tags,
        }
        return {key: value for key, value in body.items() if value is not None}

    def _deletion(self, entry: Entry) -> dict[str, Any]:
        return {
            "recoveryId": f"{request.host_url}deletedsecrets/{entry.name}",
            "deletedDate": entry.deleted_at,
            "scheduledPurgeDate": self.vault.purge_scheduled_at(entry),
        }


def _meet(control: Control) -> ResponseReturnValue | None:
    """Lets the request meet its fault before it takes effect; an answer means that it does not take effect."""
    armed = control.arriving(request.method, _path())
    g.armed = armed
    return _befall(control, armed) if armed and armed.fault.when == "before" else None


def _befall(control: Control, armed: Armed) -> Response | None:
    fault = armed.fault
    if fault.kind == "hold" and control.wait(armed):
        return None
    if fault.kind in {"hold", "drop"}:
        request.environ[CUT].set()
        return Response(status=500)
    if fault.kind == "stale":
        g.stale = fault.commits
        return None
    code, message = _FAULT_CODES.get(
        fault.status, ("InternalServerError", "An error that the sandbox was told to make.")
    )
    response = _error(VaultError(fault.status, code, message))
    if fault.retry_after is not None:
        response.headers["Retry-After"] = f"{fault.retry_after:g}"
    return response


def _finish(control: Control, response: Response) -> Response:
    """Logs the request, and lets it meet its fault after it took effect."""
    armed: Armed | None = g.get("armed")
    cut_off: bool = request.environ[CUT].is_set()
    control.record(
        Record(
            request.method,
            _path(),
            None if cut_off else response.status_code,
            g.get("client_id"),
            armed.fault.kind if armed else None,
        )
    )
    if armed and armed.fault.when == "after":
        return _befall(control, armed) or response
    return response


def _path() -> str:
    """The path as the control plane names it: the SDK ends some with a slash."""
    return request.path.rstrip("/")


def _stale() -> int:
    stale: int = g.get("stale", 0)
    return stale


def _json() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise VaultError(400, "BadParameter", "The request body is not a JSON object.")
    return body


def _properties(body: dict[str, Any]) -> Properties:
    attributes = _typed(body, "attributes", dict) or {}
    tags = _typed(body, "tags", dict)
    for tag in tags or {}:
        _typed(tags, tag, str)
    return Properties(
        enabled=_typed(attributes, "enabled", bool),
        not_before=_typed(attributes, "nbf", int),
        expires=_typed(attributes, "exp", int),
        content_type=_typed(body, "contentType", str),
        tags=tags,
    )


def _typed(body: dict[str, Any], name: str, type_: type) -> Any:
    value = body.get(name)
    if value is not None and type(value) is not type_:
        raise VaultError(400, "BadParameter", f"Property {name} is no {type_.__name__}.")
    return value


def _page_size() -> int:
    asked = request.args.get("maxresults", str(PAGE))
    if not asked.isdigit() or not 1 <= int(asked) <= PAGE:
        raise VaultError(400, "BadParameter", f"maxresults must be between 1 and {PAGE}.")
    return int(asked)


_TOKEN_MARK = b"after:"


def _resume() -> str:
    """What the list is to go on after."""
    token = request.args.get("$skiptoken")
    if token is None:
        return ""
    try:
        decoded = base64.urlsafe_b64decode(token)
    except ValueError:
        decoded = b""
    if not decoded.startswith(_TOKEN_MARK):
        raise VaultError(400, "BadParameter", "The $skiptoken is not one of this vault's.")
    return decoded.removeprefix(_TOKEN_MARK).decode()


def _next_link(after: str) -> str:
    """A link to the next page; like the service's, it names the port even where it is the usual one."""
    host = request.host if ":" in request.host else f"{request.host}:443"
    token = base64.urlsafe_b64encode(_TOKEN_MARK + after.encode()).decode()
    size = f"&maxresults={request.args['maxresults']}" if "maxresults" in request.args else ""
    return f"https://{host}{request.path}?api-version={request.args['api-version']}&$skiptoken={token}{size}"


def _error(error: VaultError) -> Response:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.inner:
        body["innererror"] = {"code": error.inner}
    response = jsonify(error=body)
    response.status_code = error.status
    return response


def _forbidden(principal: entra.Principal, directory: entra.Directory, action: str, name: str | None) -> VaultError:
    scope = f"/secrets/{name}" if name else ""
    return VaultError(
        403,
        "Forbidden",
        "Caller is not authorized to perform action on resource.\r\n"
        f"Caller: appid={principal.client_id};oid={principal.object_id};"
        f"iss=https://sts.windows.net/{directory.tenant_id}/\r\n"
        f"Action: 'Microsoft.KeyVault/vaults/secrets/{action}'\r\n"
        f"Resource: 'sandbox{scope}'\r\n"
        "Assignment: (not found)\r\n",
        "ForbiddenByRbac",
    )
