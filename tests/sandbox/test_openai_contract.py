"""The OpenAI stand-in answers as OpenAI's own description says: every operation served, over real HTTP.

The description is OpenAI's published OpenAPI document, with an overlay of newer facts. Both are data that lie beside a
checkout, in `shared/contracts`; where they are absent the tests that need them are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from providers.issuers.reading import shipped
from providers.issuers.samples import shipped_samples
from sandbox.clock import real_time
from sandbox.openai.control import Control
from sandbox.openai.harness import OpenAIServer
from sandbox.openai.server import create_app
from sandbox.openai.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
Operation = tuple[str, str]

CONTRACTS = Path(__file__).parents[3] / "shared" / "contracts"
BEYOND = {("POST", "/chat/completions")}
"""Served, but not part of the administration API's description."""


def served_operations() -> set[Operation]:
    """What the server's URL map routes under /v1, written as the description writes it."""
    state = State(None, real_time)
    rules = list(create_app(state, Control(), real_time).url_map.iter_rules())
    state.close()
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule.removeprefix("/v1")))
        for rule in rules
        if rule.rule.startswith("/v1/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def overlaid(document: Json, overlay: Json) -> Json:
    """Applies the actions of an OpenAPI Overlay 1.0.0 whose targets are plain paths: `$.a.b['c d'].e`."""
    for action in overlay["actions"]:
        assert re.fullmatch(r"\$(\.\w+|\['[^']+'\])+", action["target"]), action["target"]
        target: Json = document
        for plain, quoted in re.findall(r"\.(\w+)|\['([^']+)'\]", action["target"]):
            target = target[plain or quoted]
        merge(target, action["update"])
    return document


def merge(target: Json, update: Json) -> None:
    for name, value in update.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = value


def closed(node: Any, document: Json, *, whole: bool = True) -> Any:
    """The schema as plain JSON Schema 2020-12: references resolved, OpenAPI 3.0's `nullable` written out, and no field
    allowed that the description does not name, so that no client comes to rely on one.
    """
    if isinstance(node, list):
        return [closed(entry, document, whole=whole) for entry in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if "$ref" in node:
        target: Any = document
        for part in node.pop("$ref").removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **node}
    # The parts of an allOf each know a share of the fields; only the whole can be closed.
    schema = {name: closed(value, document, whole=name != "allOf") for name, value in node.items()}
    if whole and (isinstance(schema.get("properties"), dict) or "allOf" in schema):
        schema["unevaluatedProperties"] = False
    return {"anyOf": [schema, {"type": "null"}]} if schema.pop("nullable", False) is True else schema


formats = FormatChecker(formats=())


@formats.checks("unixtime")
def is_unix_time(instance: object) -> bool:
    """Whole seconds of this century; milliseconds are not."""
    return not isinstance(instance, int) or 1_000_000_000 < instance < 4_000_000_000


def errors(instance: object, schema: Json, document: Json) -> list[str]:
    validator = Draft202012Validator(closed(schema, document), format_checker=formats)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(instance)]


@pytest.fixture(scope="module")
def document() -> Json:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one, where built, takes a tenth of the time
    try:
        description = (CONTRACTS / "openai-admin-openapi.yaml").read_text()
        overlay = (CONTRACTS / "openai-admin-overlay.yaml").read_text()
    except FileNotFoundError:
        pytest.skip("OpenAI's API description (shared/contracts, beside the checkout) is not here to compare with")
    return overlaid(yaml.load(description, loader), yaml.load(overlay, loader))  # noqa: S506 both loaders are safe ones


class Caller:
    """Calls operations by the description's own paths and keeps the answers."""

    def __init__(self, server: OpenAIServer) -> None:
        self.answers: dict[Operation, list[requests.Response]] = {}
        self.sent: list[tuple[Operation, Json]] = []
        self._server = server

    def __call__(
        self, method: str, path: str, body: Json | None = None, *, key: str | None = None, **parameters: Any
    ) -> Any:
        url = self._server.base_url + re.sub(r"{(\w+)}", lambda name: str(parameters.pop(name[1])), path)
        headers = {"Authorization": f"Bearer {key or self._server.admin_key}"}
        answer = requests.request(method, url, json=body, params=parameters, headers=headers, timeout=10)
        self.answers.setdefault((method, path), []).append(answer)
        if body is not None and answer.ok:
            self.sent.append(((method, path), body))
        return answer.json()


@pytest.fixture(scope="module")
def called() -> Iterator[Caller]:
    """One walk through all that is served, refusals included."""
    with OpenAIServer() as server:
        call = Caller(server)
        projects, project = "/organization/projects", "/organization/projects/{project_id}"
        accounts, account = f"{project}/service_accounts", f"{project}/service_accounts/{{service_account_id}}"
        keys, key = f"{project}/api_keys", f"{project}/api_keys/{{api_key_id}}"
        admin_keys, admin_key = "/organization/admin_api_keys", "/organization/admin_api_keys/{key_id}"

        default = call("GET", projects)["data"][0]["id"]
        p = call("POST", projects, {"name": "Support"})["id"]
        call("POST", projects, {})
        call("GET", project, project_id=p)
        call("GET", project, project_id="proj_unknown")
        call("POST", project, {"name": "Support platform"}, project_id=p)
        call("POST", project, {"name": "Other"}, project_id=default)

        sa = call("POST", accounts, {"name": "api", "expires_in_seconds": 3600}, project_id=p)["id"]
        bare = call("POST", accounts, {"name": "bare", "create_service_account_only": True}, project_id=p)["id"]
        call("POST", accounts, {"name": "api", "expires_in_seconds": 0}, project_id=p)
        call("GET", accounts, project_id=p, limit=1)
        call("GET", account, project_id=p, service_account_id=sa)
        call("POST", account, {"name": "renamed", "role": "owner"}, project_id=p, service_account_id=sa)
        minted = call("POST", f"{account}/api_keys", project_id=p, service_account_id=sa)
        scoped = {"name": "narrow", "scopes": ["api.model.request"], "expires_in_seconds": 60}
        call("POST", f"{account}/api_keys", scoped, project_id=p, service_account_id=bare)

        server.control.create_user_key(p, "of a person")
        call("GET", "/models", key=minted["value"])
        call("GET", "/models", key="sk-svcacct-wrong")
        prompt = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "ping"}]}
        call("POST", "/chat/completions", prompt, key=minted["value"])

        call("GET", keys, project_id=p, owner_project_access="any")
        call("GET", key, project_id=p, api_key_id=minted["id"])
        server.control.configure(deny_service_account_key_delete=True)
        call("DELETE", key, project_id=p, api_key_id=minted["id"])
        server.control.configure(deny_service_account_key_delete=False)
        call("DELETE", key, project_id=p, api_key_id=minted["id"])
        call("DELETE", account, project_id=p, service_account_id=sa)

        second = call("POST", admin_keys, {"name": "second", "expires_in_seconds": 60})["id"]
        call("GET", admin_keys, order="desc")
        call("GET", admin_key, key_id=second)
        call("DELETE", admin_key, key_id=second)

        for group_by in ([], ["api_key_id", "model"]):
            call(
                "GET", "/organization/usage/completions", start_time=1_700_000_000, bucket_width="1d", group_by=group_by
            )
        hour_ago = int(real_time().timestamp()) - 3600
        call("GET", "/organization/usage/completions", start_time=hour_ago, bucket_width="1h", group_by=["api_key_id"])
        call("GET", "/organization/usage/completions")
        call("POST", f"{project}/archive", project_id=p)
        call("GET", accounts, project_id=p)
        call("GET", "/organization/audit_logs", limit=100)
        server.control.configure(admin_requests_per_minute=0)
        call("GET", "/organization/audit_logs")
        yield call


@pytest.mark.parametrize("operation", sorted(served_operations() - BEYOND), ids=" ".join)
def test_answers_follow_the_description(operation: Operation, called: Caller, document: Json) -> None:
    """Each answer of each served operation has a documented status and validates; the success among them too.

    A refusal whose status the description does not list validates against its general error object.
    """
    method, path = operation
    answers = called.answers[operation]
    assert any(answer.status_code == 200 for answer in answers)
    documented = document["paths"][path][method.lower()]["responses"]
    for answer in answers:
        response = documented.get(str(answer.status_code), document["components"]["responses"]["TooManyRequests"])
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        assert errors(answer.json(), response["content"]["application/json"]["schema"], document) == []


def test_the_walk_covers_what_is_served(called: Caller) -> None:
    """A route added without a call in the walk fails here, and so does a call to what is not served."""
    assert set(called.answers) == served_operations()


def test_accepted_requests_follow_the_description(called: Caller, document: Json) -> None:
    """What the stand-in accepts, OpenAI documents: the walk teaches no client a parameter that does not exist."""
    for (method, path), body in called.sent:
        if (method, path) not in BEYOND:
            schema = document["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
            assert errors(body, schema, document) == []


def test_chat_completion_has_the_documented_fields(called: Caller) -> None:
    """The answer carries what OpenAI's SDK requires of a ChatCompletion (openai 3.54.0, types/chat)."""
    (answer,) = called.answers["POST", "/chat/completions"]
    body = answer.json()
    assert body.keys() >= {"id", "object", "created", "model", "choices", "usage"}
    assert body["object"] == "chat.completion"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_the_check_can_fail(called: Caller, document: Json) -> None:
    """A missing field, an undocumented one, milliseconds and a wrong type are each found."""
    schema = document["components"]["schemas"]["ProjectApiKeyListResponse"]
    good = called.answers["GET", "/organization/projects/{project_id}/api_keys"][0].json()
    entry = good["data"][0]
    assert errors(good, schema, document) == []
    without = {name: value for name, value in entry.items() if name != "last_used_at"}
    for bad in (
        without,
        {**entry, "secret": "x"},
        {**entry, "created_at": entry["created_at"] * 1000},
        {**entry, "id": 7},
    ):
        assert errors({**good, "data": [bad]}, schema, document) != []


def test_the_usage_that_is_asked_for_is_documented(document: Json) -> None:
    """By the description that comes along: its parameters, and the answer that it is tried with."""
    operation = document["paths"]["/organization/usage/completions"]["get"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    asked, sample = shipped("openai").usage, shipped_samples("openai").usage
    assert asked is not None
    assert sample is not None
    assert asked.pagination is not None
    assert {*asked.request.query, asked.pagination.parameter} <= parameters.keys()
    assert asked.request.query["bucket_width"].text in parameters["bucket_width"]["enum"]
    assert asked.request.query["group_by"].text in parameters["group_by"]["items"]["enum"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert errors(sample.body, schema, document) == []
    broken = {**sample.body, "data": [{**sample.body["data"][0], "start_time": "then"}]}
    assert errors(broken, schema, document)
