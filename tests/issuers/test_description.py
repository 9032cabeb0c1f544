"""Descriptions are read strictly: every fault is named with its place and with what is allowed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from providers.issuers import description
from providers.issuers.http import _OURS
from providers.issuers.language import DescriptionFault, Expression, Template
from providers.issuers.reading import read, shipped, shipped_kinds
from rotation.names import KeyName

Change = Callable[[dict[str, Any]], object]

SOUND: dict[str, Any] = {
    "title": "a vendor",
    "sources": ["its documentation, 2026"],
    "base_url": "https://api.vendor.example/v1/",
    "variables": {
        "org": {"about": "the organization"},
        "team": {"about": "the team", "required": False},
        "days": {"about": "days to live", "type": "integer", "required": False, "default": 90},
        "tags": {"about": "labels", "type": "list", "required": False, "default": ["keyturn"]},
    },
    "auth": {"bearer": "{admin}"},
    "mint": [
        {
            "when": "team",
            "request": {
                "method": "POST",
                "path": "/{org}/{team}/keys",
                "json": {"label": "{key_name}", "days": "{days}", "tags": "{tags}"},
            },
            "key_id": {"group": "team", "key": "id"},
            "fields": {"value": "secret"},
        },
        {
            "request": {"method": "POST", "path": "/{org}/keys", "json": {"label": "{key_name}"}},
            "key_id": {"key": "id"},
            "fields": {"value": "secret"},
        },
    ],
    "list": {
        "request": {"path": "/{org}/keys"},
        "items": "data",
        "each": [{"name": "label", "key_id": {"key": "id"}}],
        "pagination": {"cursor": {"parameter": "after", "next": "last"}},
    },
    "verify": {
        "request": {"path": "/me"},
        "auth": {"bearer": "{value}"},
        "rules": [
            {"status": 200, "verdict": "valid", "reason": "accepted"},
            {"status": 401, "verdict": "invalid", "reason": "refused"},
        ],
    },
    "revoke": [
        {"key_id": ["key"], "steps": [{"request": {"method": "DELETE", "path": "/keys/{key}"}, "gone": 404}]},
        {"key_id": ["group", "key"], "steps": [{"request": {"method": "DELETE", "path": "/{group}/keys/{key}"}}]},
    ],
    "last_use": {
        "request": {"path": "/keys/{key}"},
        "at": {"path": "used", "format": "unix"},
        "granularity": "1d",
    },
    "capabilities": {
        "create": {"in_a_row": 1, "interval": "1s", "timeout": "1m"},
        "revoke": {"in_a_row": 2, "interval": "1s", "timeout": "1m30s"},
    },
}


POLL: dict[str, Any] = {
    "operation": "name",
    "request": {"path": "/operations/{operation}"},
    "done": "done",
    "interval": "1s",
    "timeout": "10s",
}


def changed(change: Change) -> dict[str, Any]:
    given = copy.deepcopy(SOUND)
    change(given)
    return given


def at(path: str, value: Any) -> Change:
    """A change that sets one place."""

    def change(given: dict[str, Any]) -> None:
        node: Any = given
        *steps, last = [int(step) if step.isdecimal() else step for step in re.findall(r"\w+", path)]
        for step in steps:
            node = node[step]
        node[last] = value

    return change


def both(one: str, other: str, value: Any) -> Change:
    """A change that sets two places to the same."""
    return lambda given: (at(one, value)(given), at(other, value)(given))


def without(path: str) -> Change:
    def change(given: dict[str, Any]) -> None:
        node: Any = given
        *steps, last = [int(step) if step.isdecimal() else step for step in re.findall(r"\w+", path)]
        for step in steps:
            node = node[step]
        del node[last]

    return change


def faults_of(text: str) -> list[str]:
    with pytest.raises(DescriptionFault) as raised:
        read(text, "vendor.yaml")
    assert all(line.startswith("vendor.yaml: ") for line in str(raised.value).splitlines())
    return [str(fault) for fault in raised.value.faults]


def test_a_sound_description_is_read() -> None:
    """The example that the tests below spoil."""
    about = read(yaml.safe_dump(SOUND, sort_keys=False), "vendor.yaml")
    assert about.base_url == "https://api.vendor.example/v1"
    assert about.capabilities.revoke.timeout.total_seconds() == 90


# Each row spoils the description in one place, and gives the one line that is said of it.
FORM: list[tuple[Change, str]] = [
    (without("title"), "title: is needed"),
    (at("titel", "x"), "titel: is not a field here; allowed: admin, auth, base_url, capabilities, *, variables, verify"),
    (at("mint.0.request.methd", "GET"), "mint[0].request.methd: is not a field here; allowed: form, headers, host, json, method, path, query"),
    (at("mint.0.request.method", "FETCH"), "mint[0].request.method: input should be 'GET', 'POST', 'PUT', 'PATCH' or 'DELETE'"),
    (at("mint.0.request.path", "keys"), "mint[0].request: its path must begin with / and hold no ?, #, %, // or space; parameters stand under query"),
    (at("mint.0.request.path", "/keys?all=1"), "mint[0].request: its path must begin with / and hold no ?, #, %, // or space; parameters stand under query"),
    (at("mint.0.request.path", {"org": None}), "mint[0].request.path: must be text; quote it where it begins with a brace, as in '{project}'"),
    (at("mint.0.request.path", "/{org"), "mint[0].request.path: has a brace that belongs to no placeholder; write placeholders as {name}"),
    (at("mint.0.request.path", "/{org.name}"), "mint[0].request.path: has a brace that belongs to no placeholder; write placeholders as {name}"),
    (at("mint.0.request.json", {"a": {"b": ["{"]}}), "mint[0].request.json: has a brace that belongs to no placeholder; write placeholders as {name}"),
    (at("mint.0.fields.value", "a b"), "mint[0].fields.value: is not a JMESPath expression: *"),
    (at("mint.0.fields", {}), "mint[0].fields: *"),
    (at("mint.0.key_id", {"a-b": "id"}), "mint[0].key_id.a-b: 'a-b' is not a name; write letters, digits and _, beginning with a letter"),
    (at("mint.0.ok", 99), "mint[0].ok: 99 is no status; write 200 to 599, one of 2xx, 3xx, 4xx, 5xx, or a list"),
    (at("mint.0.ok", []), "mint[0].ok: needs at least one status"),
    (at("mint.0.ok", "2XX"), "mint[0].ok: '2XX' is no status; write 200 to 599, one of 2xx, 3xx, 4xx, 5xx, or a list"),
    (at("mint.0.created_at", {"path": "x", "format": "epoch"}), "mint[0].created_at.format: input should be 'unix', 'unix-ms' or 'iso8601'"),
    (at("mint.0.errors", [{"status": 403, "code": "full", "reason": "x"}]), "mint[0].errors[0].code: input should be *'limit'*"),
    (at("headers", {"x version": "1"}), "headers.x version: 'x version' is not the name of a header"),
    (at("auth", {}), "auth: needs exactly one of bearer, basic, headers, oauth2_client_credentials, azure_shared_key"),
    (at("auth.basic", {"username": "x", "password": "{admin}"}), "auth: needs exactly one of bearer, basic, headers, oauth2_client_credentials, azure_shared_key"),
    (at("auth", "bearer"), "auth: *"),
    (at("list.pagination", {}), "list.pagination: needs exactly one of cursor, offset, page, next_url; leave pagination out where there is none"),
    (at("list.pagination.cursor.next", None), "list.pagination.cursor.next: must be a JMESPath expression, which is text"),
    (at("verify.rules.0.verdict", "VALID"), "verify.rules[0].verdict: input should be 'valid', 'limited', 'invalid' or 'unknown'"),
    (at("capabilities.create.interval", 5), "capabilities.create.interval: must be a duration, as in 30s or 1h30m"),
    (at("capabilities.create.interval", "soon"), "capabilities.create.interval: 'soon' is not a duration; *"),
    (at("capabilities.create.in_a_row", 0), "capabilities.create.in_a_row: input should be greater than or equal to 1"),
    (at("capabilities.max_keys", "2"), "capabilities.max_keys: input should be a valid integer"),
    (at("variables.org.about", 5), "variables.org.about: input should be a valid string"),
    (at("model", "lease"), "model: input should be 'mint', 'slots' or 'manual'"),
    (at("mint.0.request.form", {"a": "b"}), "mint[0].request: has both json and form; a request has one body"),
    (at("mint.0.request.form", {"a": {}}), "mint[0].request.form.a: must be text; *"),
    (at("variables.days.type", "duration"), "variables.days.type: input should be 'string', 'integer', 'list' or 'url'"),
    (at("slots", {"key 1": {"fields": {"value": "a"}}}), "slots.key 1: 'key 1' is not the name of a slot; write letters, digits and -"),
    (at("mint.0.poll", {**POLL, "timeout": "5m"}), "mint[0].poll: interval must be more than 0s, timeout no less and at most 45s"),
    (at("mint.0.poll", {**POLL, "interval": "20s"}), "mint[0].poll: interval must be more than 0s, timeout no less and at most 45s"),
    (at("auth", {"oauth2_client_credentials": {"path": "token", "client_id": "x", "client_secret": "{admin}"}}), "auth.oauth2_client_credentials: its path must begin with / *"),
    (at("auth", {"oauth2_client_credentials": {"path": "/token", "client_id": "x", "client_secret": "{admin}", "send": "query"}}), "auth.oauth2_client_credentials.send: input should be 'body' or 'basic'"),
    (at("verify.rules.0.header", {"a b": "x"}), "verify.rules[0].header.a b: 'a b' is not the name of a header"),
    (at("base_url", "http://api.vendor.example"), "base_url: must begin with https://; plain http is allowed for 127.0.0.1, ::1 and localhost only"),
    (at("base_url", "https://user@vendor.example"), "base_url: must be https://host[:port][/path], with no user, query or fragment"),
    (at("base_url", "https://vendor.example/?a=1"), "base_url: must be https://host[:port][/path], with no user, query or fragment"),
    (at("base_url", "https://vendor.example:port/"), "base_url: is not a URL"),
]  # fmt: skip
SENSE: list[tuple[Change, str]] = [
    (at("mint.1.request.path", "/{projct}/keys"), "mint[1].request.path: {projct} can not be inserted here; allowed: days, key_name, org, tags"),
    (at("mint.1.request.path", "/{team}/keys"), "mint[1].request.path: {team} may be absent here; sure to be given: days, key_name, org, tags"),
    (at("mint.1.request.query", {"a": "{admin}"}), "mint[1].request.query.a: {admin} can not be inserted here; allowed: days, key_name, org, tags, team"),
    (at("mint.1.request.json.a", "{value}"), "mint[1].request.json: {value} can not be inserted here; allowed: days, key_name, org, tags, team"),
    (at("mint.1.request.json", {"label": "key"}), "mint[1].request: never says {key_name}, so that a lost key could not be found again"),
    (at("headers", {"x-key": "{admin}"}), "headers.x-key: {admin} can not be inserted here; allowed: days, org, tags, team"),
    (at("auth.bearer", "{value}"), "auth.bearer: {value} can not be inserted here; allowed: admin, days, org, tags"),
    (at("verify.auth.bearer", "{admin}"), "verify.auth.bearer: {admin} can not be inserted here; allowed: days, org, tags, value"),
    (at("verify.request.path", "/{value}"), "verify.request.path: {value} can not be inserted here; allowed: days, org, tags"),
    (at("revoke.0.steps.0.request.path", "/{team}/{key}"), "revoke[0].steps[0].request.path: {team} *; *"),
    (at("last_use.request.path", "/{team}/{key}"), "last_use.request.path: {team} *; *"),
    (at("mint.1.fields", {"token": "secret"}), "mint: every way must give the same fields"),
    (at("mint.1.key_id", {"id": "id"}), "mint[1].key_id: no revoke is for id; there are: key and group/key"),
    (at("list.each.0.key_id", {"key": "id", "owner": "t"}), "list.each[0].key_id: no revoke is for key/owner; there are: key and group/key"),
    (at("revoke.0.steps.0.next_on", 400), "revoke[0].steps[0].next_on: there is no next step"),
    (at("list.request.query", {"after": "x"}), "list.request.query: after is set by pagination"),
    (at("variables.unused", {"about": "x"}), "variables.unused: is declared and never used"),
    (at("variables.days.default", "x"), "variables.days.default: must be a whole number"),
    (at("variables.days.required", True), "variables.days.default: is never used: the variable is required; say required: false"),
    (at("verify.rules", [SOUND["verify"]["rules"][0]]), "verify.rules: none says invalid"),
    (at("verify.rules", [SOUND["verify"]["rules"][1]]), "verify.rules: none says valid"),
    (at("verify.rules.0.status", "4xx"), "verify.rules[0].status: valid must rest on a success, 2xx"),
    (at("verify.rules.1.status", [401, 429]), "verify.rules[1].status: does not say by itself that the key is refused; add when"),
    (at("verify.rules.1.status", 503), "verify.rules[1].status: does not say by itself that the key is refused; add when"),
    (at("mint", []), "mint: is needed where the model is mint"),
    (without("list"), "list: is needed where the model is mint"),
    (without("revoke"), "revoke: is needed where the model is mint"),
    (without("auth"), "auth: is needed for administrative requests"),
    (at("slots", {"a": {"fields": {"value": "a"}}}), "slots: has no use where the model is mint"),
    (at("credential", ["value"]), "credential: is for the model manual; elsewhere the fields of the mint say it"),
    (without("mint.1.key_id"), "mint[1].key_id: is needed"),
    (without("mint.1.fields"), "mint[1].fields: is needed"),
    (without("list.items"), "list: needs items and each"),
    (without("list.each"), "list: needs items and each"),
    (at("disable", [SOUND["revoke"][0]]), "enable: is needed beside disable: one undoes the other"),
    (at("enable", [SOUND["revoke"][0]]), "disable: is needed beside enable: one undoes the other"),
    (both("disable", "enable", [{**SOUND["revoke"][0], "key_id": ["id", "part", "key"]}]), "*.key_id: is no form of key id here; there are: key and group/key"),
    (at("list.request.host", "other"), "list.request.host: other is not a variable of the type url that is always given; there are: none"),
    (at("list.request.host", "org"), "list.request.host: org is not a variable of the type url that is always given; there are: none"),
    (at("variables.other", {"about": "x", "type": "url", "required": False, "default": "http://vendor.example"}), "variables.other*: *"),
    (at("mint.1.request.json.tags", "all {tags}"), "mint[1].request.json: {tags} is no text: it stands alone in json, and nowhere else"),
    (at("verify.request.path", "/me/{tags}"), "verify.request.path: {tags} is no text: it stands alone in json, and nowhere else"),
    (at("prefetch", [{"when": "org", "request": {"path": "/x"}, "values": {"rights": "rights"}}]), "prefetch[0].when: org is not an optional variable; there are: team"),
    (at("prefetch", [{"request": {"path": "/{team}/x"}, "values": {"rights": "rights"}}]), "prefetch[0].request.path: {team} may be absent here; sure to be given: days, org, tags"),
    (at("mint.1.request.query", {"r": "{rights}"}), "mint[1].request.query.r: {rights} can not be inserted here; allowed: *"),
    (at("mint.1.expiry", {"after": "team", "format": "unix"}), "mint[1].expiry*: *"),
    (at("mint.1.request.json.until", "{expires_at}"), "mint[1].request.json: {expires_at} can not be inserted here; allowed: *"),
    (at("mint.1.request.json.slot", "{slot}"), "mint[1].request.json: {slot} can not be inserted here; allowed: *"),
    (at("mint.1.poll", {**POLL, "request": {"path": "/{op}"}}), "mint[1].poll.request.path: {op} can not be inserted here; allowed: days, operation, org, tags"),
    (at("revoke.0.steps.0.poll", {**POLL, "request": {"path": "/{key_name}"}}), "revoke[0].steps[0].poll.request.path: {key_name} can not be inserted here; allowed: *"),
    (at("revoke.1.steps.0.gone_when", "gone"), "revoke[1].steps[0].gone_when: says nothing without gone"),
    (without("verify.auth"), "verify.auth: is needed: nothing in the request shows the credential"),
    (at("verify.request.query", {"key": "{value}"}), "verify.request.query.key: {value} can not be inserted here; allowed: days, org, tags, team"),
    (at("verify.auth", {"oauth2_client_credentials": {"path": "/token", "client_id": "x", "client_secret": "{value}"}}), "verify.auth: a credential is shown by itself; describe the request for a token as the request"),
    (at("auth", {"oauth2_client_credentials": {"path": "/{team}", "client_id": "x", "client_secret": "{admin}"}}), "auth.oauth2_client_credentials.path: {team} may be absent here; sure to be given: days, org, tags"),
    (at("auth", {"oauth2_client_credentials": {"host": "login", "path": "/t", "client_id": "x", "client_secret": "{admin}"}}), "auth.oauth2_client_credentials.host: login is not a variable of the type url that is always given; there are: none"),
    (at("auth", {"basic": {"username": "{admin.user}", "password": "{admin}"}}), "auth: takes the administrative credential as a whole and in parts; it is one or the other"),
    (at("verify.auth.bearer", "{admin.user}"), "verify.auth.bearer: {admin.user} can not be inserted here; allowed: *"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), FORM + SENSE, ids=[told[:60] for _, told in FORM + SENSE])
def test_each_fault_is_named(change: Change, told: str) -> None:
    """With its place, and what is allowed there; and nothing else is complained of."""
    faults = faults_of(yaml.safe_dump(changed(change), sort_keys=False))
    pattern = ".*".join(re.escape(part) for part in told.split("*"))
    assert [fault for fault in faults if re.fullmatch(pattern, fault)] == faults


def test_what_asks_about_the_admin_credential_is_checked_like_any_request() -> None:
    """Its path takes variables that are always given, and nothing secret."""
    about = {"request": {"path": "/{team}/admins"}, "items": "data", "redacted": "shown"}
    with pytest.raises(DescriptionFault) as caught:
        read(yaml.safe_dump(changed(lambda d: d.update(admin=about))), "x")
    assert [str(fault) for fault in caught.value.faults] == [
        "admin.request.path: {team} may be absent here; sure to be given: days, org, tags"
    ]
    about["request"] = {"path": "/{org}/admins"}
    assert read(yaml.safe_dump(changed(lambda d: d.update(admin=about))), "x").admin


def test_a_key_must_work_before_its_attempt_is_over() -> None:
    """Without compare-and-set, nobody takes up an attempt again that is older than it may live."""
    faults = faults_of(yaml.safe_dump(changed(at("capabilities.create.timeout", "15m")), sort_keys=False))
    assert faults == ["capabilities: create.timeout is longer than an attempt may live: at most 14m"]
    slow = read(yaml.safe_dump(changed(at("capabilities.create.timeout", "14m")), sort_keys=False), "vendor.yaml")
    assert slow.capabilities.create.timeout.total_seconds() == 14 * 60


def test_two_forms_of_key_id_must_differ_in_length() -> None:
    """Or a key id would not tell how to revoke its key."""
    given = changed(at("revoke.1.key_id", ["account"]))
    faults = faults_of(yaml.safe_dump(given, sort_keys=False))
    assert "revoke[1].key_id: has as many parts as another: the two could not be told apart" in faults


@pytest.mark.parametrize("name", ["org", "tema"])
def test_a_condition_on_a_variable_that_is_no_choice(name: str) -> None:
    """Required, or not declared at all."""
    faults = faults_of(yaml.safe_dump(changed(at("mint.0.when", name)), sort_keys=False))
    assert f"mint[0].when: {name} is not an optional variable; there are: team" in faults


def test_the_order_of_parts_is_that_of_the_revoke() -> None:
    """A mapping has no order to rely on."""
    given = changed(at("mint.0.key_id", {"key": "id", "group": "team"}))
    assert read(yaml.safe_dump(given), "vendor.yaml").revoke[1].key_id == ("group", "key")


def test_a_name_that_is_taken() -> None:
    """A variable must not stand for a part of the key id, a credential field, or what Keyturn inserts."""
    for name in ("key", "value", "admin", "key_name", "baseUrl"):
        given = changed(at(f"variables.{name}", {"about": "x"}))
        faults = faults_of(yaml.safe_dump(given, sort_keys=False))
        assert any(fault.startswith(f"variables.{name}: the name is taken") for fault in faults)


def test_a_way_of_minting_that_is_never_taken() -> None:
    """The first that fits is taken, and one without a condition always fits."""
    given = changed(lambda d: d["mint"].reverse())
    faults = faults_of(yaml.safe_dump(given, sort_keys=False))
    assert "mint[0]: has no when, so that the ways after it are never taken" in faults


def test_all_faults_are_told_at_once() -> None:
    """Nobody wants to run it once per mistake."""
    given = changed(lambda d: (at("verify.request.path", "me")(d), at("mint.0.ok", 1)(d), without("title")(d)))
    assert len(faults_of(yaml.safe_dump(given, sort_keys=False))) == 3


SLOTS: dict[str, Any] = {
    "title": "a vendor with slots",
    "sources": ["its documentation, 2026"],
    "base_url": "https://api.vendor.example/v1",
    "model": "slots",
    "slots": {"Key1": {"fields": {"value": "key1"}}, "Key2": {"fields": {"value": "key2"}}},
    "auth": {"bearer": "{admin}"},
    "mint": [{"request": {"method": "POST", "path": "/regenerate", "json": {"which": "{slot}"}}}],
    "list": {"request": {"method": "POST", "path": "/keys"}, "returns_secrets": True},
    "verify": SOUND["verify"],
    "capabilities": SOUND["capabilities"],
}
MANUAL: dict[str, Any] = {
    "title": "a vendor without an API for keys",
    "sources": ["its documentation, 2026"],
    "base_url": "https://api.vendor.example/v1",
    "model": "manual",
    "verify": SOUND["verify"],
    "capabilities": SOUND["capabilities"],
}
MODELS: list[tuple[dict[str, Any], Change, str]] = [
    (SLOTS, without("slots.Key2"), "slots: one slot is no choice: while it is regenerated there is no key"),
    (SLOTS, without("slots"), "slots: is needed where the model is slots"),
    (SLOTS, without("mint"), "mint: is needed where the model is slots"),
    (SLOTS, at("slots.Key2.fields", {"token": "x"}), "slots: every slot must give the same fields"),
    (SLOTS, at("revoke", SOUND["revoke"]), "revoke: has no use where the model is slots"),
    (SLOTS, at("last_use", SOUND["last_use"]), "last_use: has no use where the model is slots"),
    (SLOTS, at("mint.0.request.json", {}), "mint[0].request: never says {slot}, so that it could not tell which to make anew"),
    (SLOTS, at("mint.0.request.json.name", "{key_name}"), "mint[0].request.json: {key_name} can not be inserted here; allowed: slot"),
    (SLOTS, at("mint.0.fields", {"value": "x"}), "mint[0].fields: has no use where there are slots: slots say it"),
    (SLOTS, lambda d: d["mint"].append(d["mint"][0]), "mint: there is one way of regenerating a slot"),
    (SLOTS, at("list.items", "keys"), "list: has no items, each, live or pagination where there are slots: slots say where they are"),
    (SLOTS, at("list.returns_secrets", False), "list.returns_secrets: must be true where there are slots: that a slot still holds a key is told by its value"),
    (MANUAL, at("mint", SOUND["mint"]), "mint: has no use where the model is manual"),
    (MANUAL, at("slots", SLOTS["slots"]), "slots: has no use where the model is manual"),
    (MANUAL, at("revoke", [SOUND["revoke"][0]]), "auth: is needed for administrative requests"),
    (MANUAL, at("credential", ["token"]), "verify.auth.bearer: {value} can not be inserted here; allowed: token"),
    (MANUAL, at("last_use", {"at": {"path": "x", "format": "unix"}, "granularity": "1d"}), "last_use.request: is needed where there is no list to look into"),
]  # fmt: skip


@pytest.mark.parametrize(("sound", "change", "told"), MODELS, ids=[told[:60] for *_, told in MODELS])
def test_each_fault_of_a_model_is_named(sound: dict[str, Any], change: Change, told: str) -> None:
    """What a model needs and what it has no use for; the examples themselves are sound."""
    assert read(yaml.safe_dump(sound), "vendor.yaml").model == sound["model"]
    given = copy.deepcopy(sound)
    change(given)
    assert told in faults_of(yaml.safe_dump(given, sort_keys=False))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: a\ntitle: b", "line 2, column 1: 'title' stands twice"),
        ("title: [", "line 1, column 9: *"),
        ("title: {admin}: x", "line 1, column *"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
        ("title: !!python/object/apply:os.getcwd []", "line 1, column 8: could not determine a constructor *"),
    ],
)
def test_what_is_not_yaml_or_not_a_mapping(text: str, told: str) -> None:
    """With line and column where there are any; and no tag makes it run anything."""
    (fault,) = faults_of(text)
    assert re.fullmatch(".*".join(re.escape(part) for part in told.split("*")), fault), fault


def test_variables_are_checked_before_anything_is_sent() -> None:
    """Unknown ones, missing ones, wrong types; with what the missing one is."""
    about = read(yaml.safe_dump(SOUND, sort_keys=False), "vendor.yaml")
    assert about.faults_in({"org": "acme"}) == []
    assert about.faults_in({"org": "acme", "team": "a", "days": 7, "baseUrl": "http://127.0.0.1:1/v1"}) == []
    given = {"organisation": "acme", "team": "", "days": "7", "baseUrl": "http://vendor.example"}
    assert [str(fault) for fault in about.faults_in(given)] == [
        "organisation: is not a variable of a vendor; allowed: baseUrl, days, org, tags, team",
        "org: is needed: the organization",
        "team: must be text that is not empty; quote what is a number",
        "days: must be a whole number",
        "baseUrl: must begin with https://; plain http is allowed for 127.0.0.1, ::1 and localhost only",
    ]


def test_some_way_of_minting_must_fit() -> None:
    """Each may ask for a variable; then one of those is needed."""
    about = read(yaml.safe_dump(changed(lambda d: d["mint"].pop())), "vendor.yaml")
    assert [str(fault) for fault in about.faults_in({"org": "acme"})] == ["needs one of team"]


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://api.vendor.example", True),
        ("https://api.vendor.example:8443/v1", True),
        ("http://127.0.0.1:8080/v1", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://127.0.0.1.vendor.example", False),
        ("http://localhost.vendor.example", False),
        ("ftp://127.0.0.1", False),
        ("https://", False),
        ("//vendor.example", False),
        ("https://a b.example", False),
        ("https://[::1", False),
        ("https://vendör.example", False),
    ],
)
def test_base_urls(url: str, fine: bool) -> None:
    """TLS everywhere but on this machine."""
    assert (description.base_url_fault(url) is None) is fine


def test_templates_insert_and_do_nothing_else() -> None:
    """A value that looks like a placeholder stays as it is."""
    template = Template.parse("/{a}-{b}")
    assert template.fill({"a": "{b}", "b": 5}) == "/{b}-5"
    assert template.fill_path({"a": "x/y", "b": 5}) == "/x%2Fy-5"
    assert template.absent({"a": "x"})
    assert Template.parse("{b}").fill_json({"b": 5}) == 5
    assert Template.parse("is {b}").fill_json({"b": 5}) == "is 5"


@pytest.mark.parametrize("found", [None, False, "", [], {}])
def test_a_condition_does_not_hold(found: Any) -> None:
    """For what JMESPath calls false-like."""
    assert not Expression.parse("a").holds({"a": found})


@pytest.mark.parametrize("found", [True, 0, "no", [0], {"b": None}])
def test_a_condition_holds(found: Any) -> None:
    """For everything else, zero included."""
    assert Expression.parse("a").holds({"a": found})


@pytest.mark.parametrize("kind", shipped_kinds())
def test_what_is_shipped_is_sound(kind: str) -> None:
    """And names its sources."""
    assert shipped(kind).sources


def test_there_is_no_such_kind() -> None:
    """Also where the name would lead out of the folder."""
    for kind in ("nobody", "../descriptions/openai", ""):
        with pytest.raises(KeyError):
            shipped(kind)


def test_names_of_our_keys_are_told_from_others() -> None:
    """The pattern follows what rotation.names makes."""
    assert _OURS.fullmatch(str(KeyName("acme", "prod", "support-copilot-chat-02", "0f3c-9A_b")))
    for name in ("Production App", "my.app", "Secret Key", "", "a.b.c.d", "Acme.prod-x-y.token"):
        assert not _OURS.fullmatch(name)
