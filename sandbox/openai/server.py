"""The stand-in's HTTP server: OpenAI's routes under `/v1`, the control plane beside them, and the command that runs it.

    python -m sandbox.openai.server --state FILE --clock FILE [--port N]

Listens on 127.0.0.1 and prints `{"port": N}` on standard output once it does. The first admin key is taken from the
environment variable SANDBOX_OPENAI_ADMIN_KEY when the state file is new; only its salted hash is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from datetime import UTC
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flask import Blueprint, Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.clock import SandboxClock
from sandbox.openai import parameters, usage, wire
from sandbox.openai.control import Control, control_plane
from sandbox.openai.errors import ApiError, ip_not_authorized, missing_scope, no_key, wrong_key
from sandbox.openai.state import State, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from werkzeug.serving import BaseWSGIServer

    from sandbox.openai.control import Plane
    from sandbox.openai.state import Key
    from sandbox.openai.wire import Json

ADMIN_KEY_VARIABLE = "SANDBOX_OPENAI_ADMIN_KEY"

_NOW = "SANDBOX_NOW"
_MODELS = {"gpt-4.1-mini": 1_744_318_173, "gpt-4o-mini": 1_721_172_741, "text-embedding-3-small": 1_705_948_997}
_ANSWER = "This is the sandbox: no model was asked."
_ANSWER_TOKENS = 10
_TOKENS_PER_MINUTE = 10_000_000


def create_app(state: State, control: Control, now: Callable[[], datetime]) -> Flask:
    """The WSGI application. `now` gives the time that delays, expiry, limits and all records go by."""
    app = Flask("sandbox.openai", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config[_NOW] = now
    v1 = Blueprint("v1", __name__, url_prefix="/v1")
    _guard(app, state, control, now)
    _projects(v1, state, control)
    _service_accounts(v1, state, control)
    _project_keys(v1, state, control)
    _admin_keys(v1, state, control)
    _reports(v1, state, now)
    _models(v1, state, now)
    app.register_blueprint(v1)
    app.register_blueprint(control_plane(control, state, now))

    @app.errorhandler(ApiError)
    def refused(error: ApiError) -> Response:
        return _refusal(error)

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> Response:
        status = error.code or 500
        if status == 404:
            return _refusal(ApiError(404, f"Invalid URL ({request.method} {request.path})"))
        if status == 405:
            return _refusal(
                ApiError(405, f"Not allowed to {request.method} on {request.path}.", code="method_not_supported")
            )
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return _refusal(ApiError(status, "The server could not serve the request.", kind=kind))

    return app


def _guard(app: Flask, state: State, control: Control, now: Callable[[], datetime]) -> None:
    """What every request to /v1 passes on its way in and out: faults, authentication, limits, headers, the log."""

    @app.before_request
    def enter() -> Response | None:
        if not _is_v1():
            return None
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        presented = value if scheme.lower() == "bearer" else ""
        g.started = time.perf_counter()
        g.request_id = "req_" + secrets.token_hex(16)
        g.key = state.identify(presented)
        g.window = None
        g.fault = control.take_fault(request.method, request.path)
        if g.fault is not None and g.fault.when == "before":
            error = g.fault.error()
            return Response() if error is None else _refusal(error)
        if request.url_rule is not None:
            authenticate(presented)
            g.window = control.admit(_plane(), now())
        return None

    def authenticate(presented: str) -> None:
        key: Key | None = g.key
        if not presented:
            raise no_key()
        if key is None or not key.accepted(now().timestamp()):
            raise wrong_key(redact(presented))
        if key.owner != "admin" and not control.settings.admits(request.remote_addr or ""):
            raise ip_not_authorized()
        scope = _required_scope()
        if scope.removeprefix("api.") not in state.scopes(key):
            raise missing_scope(scope)
        state.touch(key.id)

    @app.after_request
    def leave(response: Response) -> Response:
        if not _is_v1():
            return response
        fault = g.fault
        error = None if fault is None else fault.error()
        dropped = fault is not None and error is None
        if fault is not None and fault.when == "after" and error is not None:
            response = _refusal(error)
        response.headers["x-request-id"] = g.request_id
        response.headers["openai-processing-ms"] = str(round((time.perf_counter() - g.started) * 1000))
        response.headers["openai-version"] = "2020-10-01"
        if _plane() == "data":
            response.headers["openai-organization"] = "sandbox"
            if g.window is not None and request.method == "POST":
                response.headers.update(limit_headers())
        control.note(
            _plane(),
            {
                "at": now().isoformat(),
                "request_id": g.request_id,
                "method": request.method,
                "path": request.path,
                "status": None if dropped else response.status_code,
                "dropped": dropped,
                "key_id": None if g.key is None else g.key.id,
            },
        )
        if dropped:
            # The server then fails to write the answer and closes: the caller sees the connection end.
            with contextlib.suppress(OSError):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response

    def limit_headers() -> dict[str, str]:
        limit = control.settings.data_requests_per_minute
        reset = f"{60 - int(now().timestamp()) % 60}s"
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-limit-tokens": str(_TOKENS_PER_MINUTE),
            "x-ratelimit-remaining-requests": str(max(0, limit - g.window.requests)),
            "x-ratelimit-remaining-tokens": str(max(0, _TOKENS_PER_MINUTE - g.window.tokens)),
            "x-ratelimit-reset-requests": reset,
            "x-ratelimit-reset-tokens": reset,
        }


def _projects(v1: Blueprint, state: State, control: Control) -> None:
    @v1.get("/organization/projects")
    def list_projects() -> Json:
        archived_too = parameters.flag("include_archived")
        entries = [
            (project.id, wire.project(project) if archived_too or project.archived_at is None else None)
            for project in state.projects()
        ]
        return wire.page(entries, limit=parameters.limit(), after=request.args.get("after"))

    @v1.post("/organization/projects")
    def create_project() -> Json:
        body = parameters.Body("name")
        return wire.project(state.create_project(body.required_text("name"), by=g.key.id))

    @v1.get("/organization/projects/<project_id>")
    def retrieve_project(project_id: str) -> Json:
        return wire.project(state.project(project_id))

    @v1.post("/organization/projects/<project_id>")
    def modify_project(project_id: str) -> Json:
        name = parameters.Body("name").text("name")
        if name is None:
            return wire.project(state.project(project_id))
        return wire.project(state.rename_project(project_id, name, by=g.key.id))

    @v1.post("/organization/projects/<project_id>/archive")
    def archive_project(project_id: str) -> Json:
        return wire.project(state.archive_project(project_id, delay=control.settings.revoke_delay, by=g.key.id))


def _service_accounts(v1: Blueprint, state: State, control: Control) -> None:
    accounts = "/organization/projects/<project_id>/service_accounts"
    account = f"{accounts}/<service_account_id>"

    @v1.get(accounts)
    def list_service_accounts(project_id: str) -> Json:
        entries = [
            (account.id, wire.service_account(account) if account.deleted_at is None else None)
            for account in state.service_accounts(project_id)
        ]
        return wire.page(entries, limit=parameters.limit(), after=request.args.get("after"))

    @v1.post(accounts)
    def create_service_account(project_id: str) -> Json:
        body = parameters.Body("name", "create_service_account_only", "expires_in_seconds")
        name, expires_in = body.required_text("name"), body.lifetime()
        if body.flag("create_service_account_only"):
            account = state.create_service_account(project_id, name, role="none", by=g.key.id)
            return {**wire.service_account(account), "api_key": None}
        account, key, value = state.create_service_account_with_key(
            project_id, name, role="member", expires_in=expires_in, delay=control.settings.create_delay, by=g.key.id
        )
        return {**wire.service_account(account), "api_key": wire.new_service_account_key(key, value)}

    @v1.get(account)
    def retrieve_service_account(project_id: str, service_account_id: str) -> Json:
        return wire.service_account(state.service_account(project_id, service_account_id))

    @v1.post(account)
    def update_service_account(project_id: str, service_account_id: str) -> Json:
        body = parameters.Body("name", "role")
        updated = state.update_service_account(
            project_id,
            service_account_id,
            name=body.text("name"),
            role=body.choice("role", ("member", "owner")),
            by=g.key.id,
        )
        return wire.service_account(updated)

    @v1.delete(account)
    def delete_service_account(project_id: str, service_account_id: str) -> Json:
        delay = control.settings.revoke_delay
        state.delete_service_account(project_id, service_account_id, delay=delay, by=g.key.id)
        return wire.deleted("organization.project.service_account", service_account_id)

    @v1.post(f"{account}/api_keys")
    def create_service_account_key(project_id: str, service_account_id: str) -> Json:
        body = parameters.Body("name", "scopes", "expires_in_seconds")
        key, value = state.create_service_account_key(
            project_id,
            service_account_id,
            name=body.text("name") or "Secret Key",
            scopes=body.texts("scopes"),
            expires_in=body.lifetime(),
            delay=control.settings.create_delay,
            by=g.key.id,
        )
        return wire.new_service_account_key(key, value)


def _project_keys(v1: Blueprint, state: State, control: Control) -> None:
    @v1.get("/organization/projects/<project_id>/api_keys")
    def list_project_keys(project_id: str) -> Json:
        # Without the parameter the vendor may hide keys whose owner has no access; so does the stand-in.
        access = parameters.choice("owner_project_access", ("active", "inactive", "any"), default="active")
        entries = []
        for key, owner in state.project_keys(project_id):
            shown = key.deleted_at is None and access in (wire.owner_access(key, owner), "any")
            entries.append((key.id, wire.project_key(key, owner) if shown else None))
        return wire.page(entries, limit=parameters.limit(), after=request.args.get("after"))

    @v1.get("/organization/projects/<project_id>/api_keys/<api_key_id>")
    def retrieve_project_key(project_id: str, api_key_id: str) -> Json:
        return wire.project_key(*state.project_key(project_id, api_key_id))

    @v1.delete("/organization/projects/<project_id>/api_keys/<api_key_id>")
    def delete_project_key(project_id: str, api_key_id: str) -> Json:
        key, _ = state.project_key(project_id, api_key_id)
        if key.owner == "service_account" and control.settings.deny_service_account_key_delete:
            raise ApiError(400, "API keys cannot be deleted for service accounts, please delete the service account")
        state.delete_project_key(project_id, api_key_id, delay=control.settings.revoke_delay, by=g.key.id)
        return wire.deleted("organization.project.api_key", api_key_id)


def _admin_keys(v1: Blueprint, state: State, control: Control) -> None:
    @v1.get("/organization/admin_api_keys")
    def list_admin_keys() -> Json:
        entries = [(key.id, wire.admin_key(key) if key.deleted_at is None else None) for key in state.admin_keys()]
        if parameters.choice("order", ("asc", "desc"), default="asc") == "desc":
            entries.reverse()
        return wire.page(entries, limit=parameters.limit(), after=request.args.get("after"))

    @v1.post("/organization/admin_api_keys")
    def create_admin_key() -> Json:
        body = parameters.Body("name", "expires_in_seconds")
        key, value = state.create_admin_key(
            body.required_text("name"),
            expires_in=body.lifetime(),
            delay=control.settings.create_delay,
            by=g.key.id,
        )
        return {**wire.admin_key(key), "value": value}

    @v1.get("/organization/admin_api_keys/<key_id>")
    def retrieve_admin_key(key_id: str) -> Json:
        return wire.admin_key(state.admin_key(key_id))

    @v1.delete("/organization/admin_api_keys/<key_id>")
    def delete_admin_key(key_id: str) -> Json:
        state.delete_admin_key(key_id, delay=control.settings.revoke_delay, by=g.key.id)
        return wire.deleted("organization.admin_api_key", key_id)


def _reports(v1: Blueprint, state: State, now: Callable[[], datetime]) -> None:
    @v1.get("/organization/usage/completions")
    def completions_usage() -> Json:
        width = parameters.choice("bucket_width", tuple(usage.WIDTHS), default="1d")
        default, most = usage.LIMITS[width]
        start, end = parameters.number("start_time"), parameters.number("end_time")
        if start is None:
            raise parameters.missing("start_time")
        end = int(now().timestamp()) + 1 if end is None else end
        projects, keys, models = (
            parameters.array("project_ids"),
            parameters.array("api_key_ids"),
            parameters.array("models"),
        )
        # No call of the stand-in is made by a user's own session or in a batch.
        none = bool(parameters.array("user_ids")) or parameters.flag("batch")
        group_by = parameters.array("group_by")
        if not group_by.issubset(usage.GROUPS):
            raise parameters.invalid("group_by", f"one of {', '.join(usage.GROUPS)}")
        calls = [
            call
            for call in state.usage(start, end)
            if not none
            and (not projects or call.project_id in projects)
            and (not keys or call.api_key_id in keys)
            and (not models or call.model in models)
        ]
        return usage.report(
            calls,
            start=start,
            end=end,
            width=width,
            limit=parameters.limit(default, most),
            group_by=sorted(group_by),
            page=request.args.get("page"),
        )

    @v1.get("/organization/audit_logs")
    def audit_logs() -> Json:
        default_project = state.project(state.default_project_id)
        types, actors, resources = (
            parameters.array("event_types"),
            parameters.array("actor_ids"),
            parameters.array("resource_ids"),
        )
        projects, emails = parameters.array("project_ids"), parameters.array("actor_emails")
        bounds = {name: parameters.number(f"effective_at[{name}]") for name in ("gt", "gte", "lt", "lte")}
        entries = []
        for event in state.audit_events():
            shown = wire.audit_event(event, default_project)
            at = event.effective_at
            fits = (
                (not types or event.type in types)
                and (not resources or event.resource_id in resources)
                and (not projects or default_project.id in projects)
                and (not actors or not actors.isdisjoint(wire.actor_ids(event)))
                and (not emails or wire.OWNER_EMAIL in emails)
                and (bounds["gt"] is None or at > bounds["gt"])
                and (bounds["gte"] is None or at >= bounds["gte"])
                and (bounds["lt"] is None or at < bounds["lt"])
                and (bounds["lte"] is None or at <= bounds["lte"])
                and not parameters.flag("tenant_only")
            )
            entries.append((event.id, shown if fits else None))
        return wire.page(
            entries, limit=parameters.limit(), after=request.args.get("after"), before=request.args.get("before")
        )


def _models(v1: Blueprint, state: State, now: Callable[[], datetime]) -> None:
    @v1.get("/models")
    def list_models() -> Json:
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": "system"}
            for name, created in _MODELS.items()
        ]
        return {"object": "list", "data": data}

    @v1.post("/chat/completions")
    def chat_completion() -> Json:
        body = request.get_json(silent=True)
        if not isinstance(body, dict):
            raise ApiError(400, "We could not parse the JSON body of your request.")
        model, messages = body.get("model"), body.get("messages")
        if not isinstance(model, str):
            raise parameters.missing("model")
        if not isinstance(messages, list) or not messages:
            raise parameters.missing("messages")
        if model not in _MODELS:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")
        if body.get("stream"):
            raise ApiError(400, "The sandbox does not stream.", param="stream", code="unsupported_value")
        input_tokens = 1 + len(json.dumps(messages)) // 4
        g.window.tokens += input_tokens + _ANSWER_TOKENS
        state.count_completion(g.key, model, input_tokens=input_tokens, output_tokens=_ANSWER_TOKENS)
        return {
            "id": "chatcmpl-" + secrets.token_hex(12),
            "object": "chat.completion",
            "created": int(now().timestamp()),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": _ANSWER, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": input_tokens,
                "completion_tokens": _ANSWER_TOKENS,
                "total_tokens": input_tokens + _ANSWER_TOKENS,
            },
            "service_tier": "default",
            "system_fingerprint": None,
        }


def _is_v1() -> bool:
    return request.path.startswith("/v1/")


def _plane() -> Plane:
    return "admin" if request.path.startswith("/v1/organization/") else "data"


def _required_scope() -> str:
    if _plane() == "admin":
        return "api.management.read" if request.method == "GET" else "api.management.write"
    return "api.model.read" if request.method == "GET" else "model.request"


def _refusal(error: ApiError) -> Response:
    response = jsonify(error.body())
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


class _QuietHandler(WSGIRequestHandler):
    """Tells the sandbox's time. Writes no access log: request lines carry queries, and the control plane has one."""

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - it is asked for the present only
        at: datetime = self.server.app.config[_NOW]()  # type: ignore[attr-defined]
        return format_datetime(at.astimezone(UTC), usegmt=True)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def listen(app: Flask, port: int) -> BaseWSGIServer:
    """A server that is bound and queues connections already; port 0 takes a free one."""
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.openai.server", description="OpenAI's stand-in.")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file, made if missing")
    parser.add_argument("--clock", type=Path, required=True, help="the sandbox's clock file; may be missing")
    options = parser.parse_args(arguments)
    now = SandboxClock(options.clock).now
    state = State(options.state, now)
    admin_key = os.environ.pop(ADMIN_KEY_VARIABLE, None)
    try:
        if admin_key is not None:
            state.adopt_admin_key(admin_key)
        elif not state.admin_keys():
            parser.error(f"{options.state} is new: set {ADMIN_KEY_VARIABLE} to the admin key it shall start with")
    except ValueError as error:
        parser.error(f"{options.state}: {error}")

    def stop(_signal: int, _frame: object) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = listen(create_app(state, Control(), now), options.port)
    try:
        print(json.dumps({"port": server.server_port}), flush=True)
        server.serve_forever()
    finally:
        server.server_close()
        state.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
