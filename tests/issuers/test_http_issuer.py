"""The declarative issuer against a small vendor of the test's own: the contract with other ways to
authenticate and to page than OpenAI's, and a vendor that answers what it should not.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from providers.issuers import wire
from providers.issuers.http import HttpIssuer
from providers.issuers.reading import read
from rotation.clock import SystemClock
from rotation.errors import Code, Trouble
from rotation.model import Check, Credential, SecretValue, Verdict
from rotation.ports import Diagnosis, Grade, Issuer
from tests.contracts.issuer import (
    IssuerContract,
    IssuerHarness,
    Mishap,
    Operation,
    assert_no_values,
    key_name,
    values_of,
)
from tests.world import FakeClock

ADMIN = "adm-5f1c0e8b7d2a4c93"
PAGE = 2
MAX_KEYS = 5
Answer = Callable[[], Response]


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Vendor:
    """Mints keys `id-N` with values `val-N-…`, shows them in pages of two, and does as the test says."""

    def __init__(self, clock: FakeClock, tls: ssl.SSLContext | None = None) -> None:
        self.clock = clock
        self.scheme = "headers"
        self.keys: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        """method, path and query as sent, headers in lower case, body."""
        self.due: dict[str, list[Mishap]] = {}
        self.instead: dict[str, Answer] = {}
        """By operation: what to answer in place of the truth, until taken away."""
        self.between_pages: Callable[[], None] = lambda: None
        app = Flask("vendor", static_folder=None)
        app.before_request(self.note)
        app.post("/v1/<org>/keys", endpoint="mint")(lambda org: self.serve("mint", self.mint))
        app.get("/v1/<org>/keys", endpoint="keys")(lambda org: self.serve("keys", self.page))
        app.get("/v1/<org>/keys/<key_id>", endpoint="last_use")(
            lambda org, key_id: self.serve("last_use", lambda: self.one(key_id))
        )
        app.delete("/v1/<org>/keys/<key_id>", endpoint="revoke")(
            lambda org, key_id: self.serve("revoke", lambda: self.delete(key_id))
        )
        app.get("/v1/whoami", endpoint="verify")(lambda: self.serve("verify", self.whoami))
        self.server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet, ssl_context=tls)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def note(self) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.environ["RAW_URI"], headers, request.get_json(silent=True)))

    def serve(self, operation: str, act: Answer) -> Response:
        mishap = self.due[operation].pop(0) if self.due.get(operation) else None
        if mishap in (Mishap.LOST_BEFORE, Mishap.LOST_AFTER):
            if mishap is Mishap.LOST_AFTER:
                act()
            with suppress(OSError):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return Response()
        if mishap in (Mishap.FAULT_BEFORE, Mishap.FAULT_AFTER):
            if mishap is Mishap.FAULT_AFTER:
                act()
            return answer(502, {"error": {"code": "upstream"}})
        if mishap is Mishap.THROTTLED:
            return answer(429, {"error": {"code": "slow_down"}})
        if mishap is Mishap.ADDRESS_REFUSED:
            return answer(403, {"error": {"code": "address"}})
        if operation in self.instead:
            return self.instead[operation]()
        if operation != "verify" and self.presented("x-admin-key") != ADMIN:
            return answer(401, {"error": {"code": "bad_admin"}})
        return act()

    def presented(self, header: str) -> str | None:
        """What the caller shows, read in the one way that this vendor understands."""
        if self.scheme == "headers":
            return request.headers.get(header)
        given = request.headers.get("Authorization", "")
        if self.scheme == "bearer":
            return given.removeprefix("Bearer ") if given.startswith("Bearer ") else None
        user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        return password if user == "acme" else None

    def mint(self) -> Response:
        if len(self.keys) >= MAX_KEYS:
            return answer(403, {"error": {"code": "max_keys"}})
        number = sum(method == "POST" for method, *_ in self.seen)
        now = self.clock.now().isoformat()
        key = {"id": f"id-{number}", "name": request.get_json()["label"], "created": now, "used": None}
        self.keys[f"id-{number}"] = {**key, "value": f"val-{number}-8c1d0f"}
        return answer(201, {"key": key, "secret": self.keys[f"id-{number}"]["value"]})

    def page(self) -> Response:
        first = request.args.get("offset", type=int, default=0)
        first += (request.args.get("page", type=int, default=1) - 1) * PAGE
        if first:
            self.between_pages()
        size = PAGE if request.args else 1000
        shown = [{k: v for k, v in key.items() if k != "value"} for key in self.keys.values()]
        return answer(200, {"keys": shown[first : first + size]})

    def one(self, key_id: str) -> Response:
        key = self.keys.get(key_id)
        return answer(200, {"used": key["used"], "tracked": True}) if key else answer(404, {})

    def delete(self, key_id: str) -> Response:
        return answer(204, None) if self.keys.pop(key_id, None) else answer(404, {"error": {"code": "no_such_key"}})

    def whoami(self) -> Response:
        value = self.presented("x-api-key")
        for key in self.keys.values():
            if key["value"] == value:
                key["used"] = self.clock.now().isoformat()
                return answer(200, {"you": key["name"]})
        return answer(401, {"error": {"code": "bad_key"}})


def answer(status: int, body: Any, **headers: str) -> Response:
    response = jsonify(body) if body is not None else Response()
    response.status_code = status
    response.headers.update(headers)
    return response


AUTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "headers": ({"headers": {"x-admin-key": "{admin}"}}, {"headers": {"x-api-key": "{value}"}}),
    "basic": (
        {"basic": {"username": "{org}", "password": "{admin}"}},
        {"basic": {"username": "{org}", "password": "{value}"}},
    ),
    "bearer": ({"bearer": "{admin}"}, {"bearer": "{value}"}),
}
PAGING: dict[str, dict[str, Any]] = {
    "offset": {"pagination": {"offset": {"parameter": "offset"}}},
    "page": {"pagination": {"page": {"parameter": "page"}}},
    "none": {},
}


def described(auth: str = "headers", paging: str = "none") -> dict[str, Any]:
    """The vendor, as YAML would say it."""
    admin, user = AUTH[auth]
    description: dict[str, Any] = {
        "title": "a vendor",
        "sources": ["the test"],
        "base_url": "https://vendor.invalid/v1",
        "variables": {"org": {"about": "the organization"}, "team": {"about": "a team", "required": False}},
        "headers": {"x-version": "2026-01-01"},
        "auth": admin,
        "error_code": "error.code",
        "mint": [
            {
                "request": {
                    "method": "POST",
                    "path": "/{org}/keys",
                    "json": {
                        "label": "{key_name}",
                        "tags": ["{team}", "keyturn"],
                        "limit": 10,
                        "owner": {"team": "{team}"},
                    },
                },
                "ok": 201,
                "key_id": {"key": "key.id"},
                "fields": {"value": "secret"},
                "created_at": {"path": "key.created", "format": "iso8601"},
                "errors": [{"status": 403, "when": "error.code == 'max_keys'", "code": "limit", "reason": "full"}],
            }
        ],
        "list": {
            "request": {"path": "/{org}/keys", "query": {"team": "{team}"}},
            "items": "keys",
            "each": [{"name": "name", "key_id": {"key": "id"}, "created_at": {"path": "created", "format": "iso8601"}}],
            **PAGING[paging],
        },
        "verify": {
            "request": {"path": "/whoami"},
            "auth": user,
            "rules": [
                {"status": 200, "when": "you", "verdict": "valid", "reason": "accepted"},
                {"status": 401, "when": "error.code == 'bad_key'", "verdict": "invalid", "reason": "refused"},
            ],
        },
        "revoke": [
            {"key_id": ["key"], "steps": [{"request": {"method": "DELETE", "path": "/{org}/keys/{key}"}, "gone": 404}]}
        ],
        "last_use": {
            "request": {"path": "/{org}/keys/{key}"},
            "gone": 404,
            "at": {"path": "used", "format": "iso8601"},
            "never": "tracked",
            "granularity": "1m",
        },
        "capabilities": {
            "max_keys": MAX_KEYS,
            "create": {"in_a_row": 1, "interval": "1s", "timeout": "10s"},
            "revoke": {"in_a_row": 2, "interval": "1s", "timeout": "10s"},
        },
    }
    if paging == "none":
        # A vendor that does not tell when its keys were used.
        del description["last_use"]
    return description


class VendorHarness(IssuerHarness):
    more_than_a_page = 2 * PAGE + 1
    unknown_ids = ("id-99",)

    def __init__(self, vendor: Vendor, auth: str = "headers", paging: str = "none") -> None:
        self.vendor, self.clock = vendor, vendor.clock
        self.about = described(auth, paging)
        vendor.scheme = auth
        vendor.keys.clear()
        vendor.seen.clear()
        vendor.due.clear()
        vendor.instead.clear()
        vendor.between_pages = lambda: None
        self.open: list[HttpIssuer] = []
        self.issuer: HttpIssuer = self.client()

    def client(
        self, admin: str = ADMIN, base_url: str | None = None, clock: FakeClock | None = None, **variables: str | int
    ) -> HttpIssuer:
        """An issuer by the description as it is now."""
        base = {"org": "acme", "baseUrl": base_url or f"http://127.0.0.1:{self.vendor.port}/v1"}
        about = read(yaml.safe_dump(self.about), "vendor.yaml")
        issuer = HttpIssuer("vendor", about, {**base, **variables}, lambda: SecretValue(admin), clock or self.clock)
        self.open.append(issuer)
        return issuer

    def without_admin(self) -> Issuer:
        def refuse() -> SecretValue:
            raise AssertionError("the administrative credential was asked for")

        issuer = self.client()
        issuer._admin = refuse
        return issuer

    def use(self, credential: Credential) -> bool:
        value = credential.fields["value"].reveal()
        for key in self.vendor.keys.values():
            if key["value"] == value:
                key["used"] = self.clock.now().isoformat()
                return True
        return False

    def live(self) -> int:
        return len(self.vendor.keys)

    def mints(self) -> int:
        return sum(method == "POST" for method, *_ in self.vendor.seen)

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        self.vendor.due.setdefault(operation, []).append(mishap)

    def secrets(self) -> Iterable[str]:
        return [ADMIN, base64.b64encode(f"acme:{ADMIN}".encode()).decode()]


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    vendor = Vendor(FakeClock())
    yield vendor
    vendor.close()


def made(vendor: Vendor, auth: str = "headers", paging: str = "none") -> Iterator[VendorHarness]:
    harness = VendorHarness(vendor, auth, paging)
    yield harness
    for issuer in harness.open:
        issuer.close()


@pytest.fixture
def at(vendor: Vendor) -> Iterator[VendorHarness]:
    yield from made(vendor)


@pytest.fixture
def paged(vendor: Vendor) -> Iterator[VendorHarness]:
    yield from made(vendor, paging="offset")


class TestHttpIssuer(IssuerContract):
    @pytest.fixture(params=[("headers", "offset"), ("basic", "page"), ("bearer", "none")], ids="-".join)
    def harness(self, request: pytest.FixtureRequest, vendor: Vendor) -> Iterator[IssuerHarness]:
        yield from made(vendor, *request.param)


class TestRequests:
    def test_what_is_not_given_is_left_out(self, at: VendorHarness) -> None:
        """Fields, list items and query parameters alike; constants and their types stay."""
        at.issuer.mint(key_name("token1"))
        list(at.issuer.keys())
        (_, _, headers, body), (_, listed, _, _) = at.vendor.seen
        assert body == {"label": key_name("token1"), "tags": ["keyturn"], "limit": 10, "owner": {}}
        assert headers["x-version"] == "2026-01-01"
        assert listed == "/v1/acme/keys"

    def test_what_is_given_is_inserted(self, at: VendorHarness) -> None:
        """As text, in each place that names it."""
        issuer = at.client(team="a&b")
        issuer.mint(key_name("token1"))
        list(issuer.keys())
        (_, _, _, body), (_, listed, _, _) = at.vendor.seen
        assert (body["tags"], body["owner"]) == (["a&b", "keyturn"], {"team": "a&b"})
        assert listed == "/v1/acme/keys?team=a%26b"

    def test_a_value_stays_within_its_segment_of_the_path(self, at: VendorHarness) -> None:
        """Whatever characters it has."""
        with suppress(Trouble):
            at.client(org="a/../b?c#d e%2f{x}").mint(key_name("token1"))
        assert at.vendor.seen[0][1] == "/v1/a%2F..%2Fb%3Fc%23d%20e%252f%7Bx%7D/keys"

    @pytest.mark.parametrize("org", ["..", "."])
    def test_a_value_that_leads_elsewhere_is_refused(self, at: VendorHarness, org: str) -> None:
        """Escaping would not help: clients and servers resolve dots all the same."""
        with pytest.raises(Trouble) as raised:
            at.client(org=org).mint(key_name("token1"))
        assert raised.value.code is Code.INVALID
        assert not raised.value.maybe_applied
        assert at.vendor.seen == []

    def test_a_credential_that_no_header_can_carry(self, at: VendorHarness) -> None:
        """A line end would add a header. It is not sent, not repeated, and nothing is concluded from it."""
        check = at.issuer.verify(Credential.of(value="val-1\r\nx-admin: yes"))
        assert check.verdict is Verdict.UNKNOWN
        assert "line end" in check.reason
        with pytest.raises(Trouble) as raised:
            at.client(admin=ADMIN + "\n").mint(key_name("token1"))
        assert_no_values(raised.value, [ADMIN])
        assert at.vendor.seen == []

    def test_a_credential_without_the_field(self, at: VendorHarness) -> None:
        """Says which one is missing."""
        check = at.issuer.verify(Credential.of(password="x"))
        assert (check.verdict, check.reason) == (Verdict.UNKNOWN, "the credential has no field value")

    def test_cookies_are_not_kept(self, at: VendorHarness) -> None:
        """A session that the administrative credential opened must not vouch for another."""
        at.vendor.instead["keys"] = lambda: answer(200, {"keys": []}, **{"Set-Cookie": "session=1; Path=/"})
        list(at.issuer.keys())
        issued = at.minted(key_name("token1"))
        at.issuer.verify(issued.credential)
        assert not [headers for _, _, headers, _ in at.vendor.seen if "cookie" in headers]

    def test_nothing_is_sent_along_by_default(self, at: VendorHarness) -> None:
        """No version of any library, and no machine's name."""
        list(at.issuer.keys())
        assert at.vendor.seen[0][2]["user-agent"] == "keyturn"

    def test_requests_is_loaded_by_the_first_request_only(self) -> None:
        """Who rotates something else does not pay for it."""
        code = "import providers.issuers.http, sys; print('requests' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestMints:
    @pytest.mark.parametrize(
        ("form", "given"),
        [("unix", 1_800_000_000), ("unix-ms", 1_800_000_000_000), ("iso8601", "2027-01-15T08:00:00Z"), ("unix", None)],
    )
    def test_a_key_that_ends_by_itself_says_when(self, at: VendorHarness, form: str, given: object) -> None:
        """In whatever form the vendor has times; null is no end."""
        at.about["mint"][0]["expires_at"] = {"path": "key.ends", "format": form}
        body = {"key": {"id": "id-1", "ends": given}, "secret": "val-1"}
        at.vendor.instead["mint"] = lambda: answer(201, body)
        told = at.client().mint(key_name("a")).expires_at
        assert told == (datetime(2027, 1, 15, 8, tzinfo=UTC) if given else None)

    def test_without_a_word_in_the_description_no_end_is_known(self, at: VendorHarness) -> None:
        """Even where the answer has one."""
        at.vendor.instead["mint"] = lambda: answer(201, {"key": {"id": "id-1", "ends": 1}, "secret": "val-1"})
        assert at.issuer.mint(key_name("a")).expires_at is None


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (301, Code.UNAVAILABLE),
            (400, Code.INVALID),
            (401, Code.DENIED),
            (403, Code.DENIED),
            (404, Code.NOT_FOUND),
            (408, Code.UNAVAILABLE),
            (409, Code.CONFLICT),
            (410, Code.NOT_FOUND),
            (422, Code.INVALID),
            (425, Code.UNAVAILABLE),
            (429, Code.THROTTLED),
            (500, Code.UNAVAILABLE),
            (503, Code.UNAVAILABLE),
            (202, Code.UNAVAILABLE),
        ],
    )
    def test_a_mint_that_is_not_answered_as_described(self, at: VendorHarness, status: int, code: Code) -> None:
        """By status; and what might have been done is never called undone."""
        at.vendor.instead["mint"] = lambda: answer(status, {"error": {"code": "some_code"}})
        with pytest.raises(Trouble) as raised:
            at.issuer.mint(key_name("token1"))
        assert raised.value.code is code
        assert raised.value.maybe_applied is (code is Code.UNAVAILABLE)
        assert f"HTTP {status}, some_code" in str(raised.value)
        assert key_name("token1") in str(raised.value)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>val-leak</html>",
            b"[" * 100_000,
            b'{"key": {"id": "id-1"}}',
            b'{"key": {"id": "id-1"}, "secret": ""}',
            b'{"key": {"id": "id-1"}, "secret": 5}',
            b'{"key": {"id": null}, "secret": "val-leak"}',
            b'["val-leak"]',
            b"\xff\xfe\xff",
        ],
    )
    def test_a_mint_answered_with_something_else(self, at: VendorHarness, body: bytes) -> None:
        """The key may exist; its value, if it was there, is in no exception."""
        at.vendor.instead["mint"] = lambda: Response(body, 201, content_type="application/json")
        with pytest.raises(Trouble) as raised:
            at.issuer.mint(key_name("token1"))
        assert raised.value.maybe_applied
        assert raised.value.code is Code.UNAVAILABLE
        assert_no_values(raised.value, ["val-leak"])

    def test_texts_of_a_vendor_are_not_repeated(self, at: VendorHarness) -> None:
        """A word for an error may stand in a message; prose, and anything that repeats a credential, may not."""
        issued = at.minted(key_name("token1"))
        value = values_of(issued)[0]
        for text in (value, f"bad_{value}", value[:8], "bad key: <b>look</b>", "x" * 200, {"a": 1}):
            body = {"error": {"code": text, "message": f"leak of {value}"}}
            at.vendor.instead["verify"] = partial(answer, 403, body, **{"x-request-id": str(text)})
            at.vendor.instead["mint"] = at.vendor.instead["verify"]
            check = at.issuer.verify(issued.credential)
            with pytest.raises(Trouble) as raised:
                at.issuer.mint(key_name("token2"))
            assert (check.verdict, check.request_id) == (Verdict.UNKNOWN, None)
            assert check.reason == "an answer that does not tell (HTTP 403)"
            assert str(raised.value).endswith("may not do this (HTTP 403)")
        at.vendor.instead["mint"] = lambda: answer(500, {"error": {"code": ADMIN}})
        with pytest.raises(Trouble) as raised:
            at.issuer.mint(key_name("token2"))
        assert_no_values(raised.value, [ADMIN])

    def test_a_request_id_is_passed_on(self, at: VendorHarness) -> None:
        """For the person who asks the vendor."""
        at.vendor.instead["mint"] = lambda: answer(500, {}, **{"x-request-id": "req_42"})
        at.vendor.instead["verify"] = at.vendor.instead["mint"]
        with pytest.raises(Trouble, match="HTTP 500, request req_42"):
            at.issuer.mint(key_name("token1"))
        assert at.issuer.verify(Credential.of(value="x")).request_id == "req_42"

    @pytest.mark.parametrize(
        ("given", "seconds"),
        [("7", 7.0), ("0", 0.0), ("later", None), ("-3", None), ("1" * 40, None), ("in 90 s", 90.0), ("past", 0.0)],
    )
    def test_retry_after(self, at: VendorHarness, given: str, seconds: float | None) -> None:
        """Seconds or an HTTP date, by the injected clock."""
        dates = {"in 90 s": at.clock.now() + timedelta(seconds=90), "past": datetime(2001, 1, 1, tzinfo=UTC)}
        text = format_datetime(dates[given], usegmt=True) if given in dates else given
        at.vendor.instead["keys"] = lambda: answer(429, {}, **{"Retry-After": text})
        with pytest.raises(Trouble) as raised:
            list(at.issuer.keys())
        assert raised.value.code is Code.THROTTLED
        assert raised.value.retry_after == (pytest.approx(seconds, abs=1) if seconds is not None else None)

    def test_a_redirect_is_not_followed(self, at: VendorHarness) -> None:
        """Neither to another host nor on the same one: a credential would go along."""
        elsewhere = Vendor(at.clock)
        try:
            for target in (f"http://127.0.0.1:{elsewhere.port}/v1/whoami", "/v1/elsewhere"):
                at.vendor.instead["verify"] = partial(answer, 307, None, Location=target)
                at.vendor.instead["mint"] = at.vendor.instead["verify"]
                before = len(at.vendor.seen)
                assert at.issuer.verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN
                with pytest.raises(Trouble, match="check the base URL"):
                    at.issuer.mint(key_name("token1"))
                assert len(at.vendor.seen) == before + 2
            assert elsewhere.seen == []
        finally:
            elsewhere.close()

    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
    def test_an_answer_that_is_too_large(self, at: VendorHarness, packed: bool) -> None:
        """Is not read to its end, also when it is small on the wire."""
        large = json.dumps({"you": "x" * (wire.MAX_ANSWER_BYTES * 8)}).encode()
        headers = {"Content-Encoding": "gzip"} if packed else {}
        body = gzip.compress(large, 1) if packed else large
        at.vendor.instead["verify"] = lambda: Response(body, 200, headers)
        check = at.issuer.verify(Credential.of(value="x"))
        assert (check.verdict, check.reason) == (Verdict.UNKNOWN, "the answer has more than 1048576 bytes")

    def test_an_answer_that_never_ends(self, at: VendorHarness) -> None:
        """Is given up after the time for one call, although something arrives all the while."""

        class Racing(FakeClock):
            def monotonic(self) -> float:
                self.move(timedelta(seconds=20))
                return super().monotonic()

        at.vendor.instead["mint"] = lambda: Response((b" " * wire._CHUNK for _ in range(10)), 201)
        with pytest.raises(Trouble, match="took more than 50 s") as raised:
            at.client(clock=Racing()).mint(key_name("token1"))
        assert raised.value.maybe_applied

    def test_silence(self, at: VendorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ends at the time limit; a mint may have happened."""
        monkeypatch.setattr(wire, "READ_SECONDS", 0.1)
        over = threading.Event()

        def wait() -> Response:
            over.wait(5)
            return answer(200, {})

        at.vendor.instead["mint"] = at.vendor.instead["verify"] = wait
        try:
            with pytest.raises(Trouble, match="no answer within") as raised:
                at.issuer.mint(key_name("token1"))
            assert raised.value.maybe_applied
            assert raised.value.code is Code.UNAVAILABLE
            assert at.issuer.verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN
        finally:
            over.set()

    def test_nobody_there(self, at: VendorHarness) -> None:
        """A request that was never sent has not happened."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            away = at.client(base_url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
            with pytest.raises(Trouble, match="no connection") as raised:
                away.mint(key_name("token1"))
            assert (raised.value.code, raised.value.maybe_applied) == (Code.UNAVAILABLE, False)
            assert away.verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN
        unknown = at.client(base_url="https://vendor.invalid/v1")
        with pytest.raises(Trouble, match="host name") as raised:
            unknown.mint(key_name("token1"))
        assert not raised.value.maybe_applied

    def test_nothing_secret_is_logged(self, at: VendorHarness, caplog: pytest.LogCaptureFixture) -> None:
        """At any level, by us or by a library."""
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, logger="urllib3")  # a command that ran in this process may have held it
        issued = at.minted(key_name("token1"))
        at.issuer.revoke(issued.key_id)
        at.happen(Mishap.LOST_AFTER, "mint")
        with suppress(Trouble):
            at.issuer.mint(key_name("token2"))
        told = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
        assert caplog.records
        values = [*values_of(issued), *(key["value"] for key in at.vendor.keys.values()), ADMIN]
        assert not [value for value in values if value in told]


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def behind_tls(self, at: VendorHarness, authority: trustme.CA) -> Iterator[Vendor]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Leads to this machine without being recognized as doing so: what the environment says then counts.
        authority.issue_cert("127.1").configure_cert(context)
        vendor = Vendor(at.clock, context)
        yield vendor
        vendor.close()

    def test_a_certificate_that_nobody_vouches_for(self, at: VendorHarness, behind_tls: Vendor) -> None:
        """Nothing is sent, so nothing has happened."""
        issuer = at.client(base_url=f"https://127.1:{behind_tls.port}/v1")
        with pytest.raises(Trouble, match="certificate can not be verified") as raised:
            issuer.mint(key_name("token1"))
        assert (raised.value.code, raised.value.maybe_applied) == (Code.UNAVAILABLE, False)
        assert issuer.verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN
        assert behind_tls.seen == []

    def test_passwords_in_netrc_are_not_sent(
        self,
        at: VendorHarness,
        behind_tls: Vendor,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Else what is verified would not be the credential alone. A CA bundle of the environment is used."""
        netrc, bundle = tmp_path / "netrc", tmp_path / "ca.pem"
        netrc.write_text("default login someone password else\n")
        authority.cert_pem.write_to_path(str(bundle))
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        monkeypatch.setenv("NO_PROXY", "*")
        issuer = at.client(base_url=f"https://127.1:{behind_tls.port}/v1")
        issued = issuer.mint(key_name("token1"))
        assert issuer.verify(issued.credential).verdict is Verdict.VALID
        assert [headers.get("authorization") for _, _, headers, _ in behind_tls.seen] == [None, None]


class TestLists:
    def fill(self, at: VendorHarness, count: int) -> set[str]:
        return {at.issuer.mint(key_name(f"token{number}")).key_id for number in range(count)}

    def test_a_key_deleted_while_pages_are_counted_hides_no_other(self, paged: VendorHarness) -> None:
        """The key after it moves up into the page that was read already; it must be listed all the same."""
        ids = sorted(self.fill(paged, 5))

        def delete_the_first() -> None:
            paged.vendor.keys.pop(ids[0], None)

        paged.vendor.between_pages = delete_the_first
        assert {info.key_id for info in paged.listed()} == set(ids[1:])

    def test_a_list_that_never_settles(self, paged: VendorHarness) -> None:
        """Is no list."""
        self.fill(paged, 5)
        names = iter(range(100))

        def shuffle() -> None:
            oldest = paged.vendor.keys.pop(next(iter(paged.vendor.keys)))
            number = f"new-{next(names)}"
            paged.vendor.keys[number] = {**oldest, "id": number}

        paged.vendor.between_pages = shuffle
        with pytest.raises(Trouble, match="changed during each of 4 readings"):
            paged.listed()

    def test_a_later_page_that_fails(self, paged: VendorHarness) -> None:
        """Fails the whole: the keys on it would pass for dead."""
        self.fill(paged, 5)
        paged.vendor.between_pages = lambda: paged.happen(Mishap.FAULT_BEFORE, "keys")
        with pytest.raises(Trouble):
            paged.listed()

    @pytest.mark.parametrize(
        "body",
        [None, {}, {"keys": None}, {"keys": {}}, {"keys": [{"name": "n"}]}, {"keys": ["x"]}, {"keys": [{"id": ""}]}],
    )
    def test_an_answer_that_is_no_list(self, at: VendorHarness, body: Any) -> None:
        """Nor is one with an item that can not be told from others."""
        at.vendor.instead["keys"] = lambda: answer(200, body)
        with pytest.raises(Trouble) as raised:
            at.listed()
        assert raised.value.code is Code.UNAVAILABLE

    def test_an_item_without_a_name_is_somebody_elses(self, at: VendorHarness) -> None:
        """It is listed, for the key is alive; numbers are ids like any other."""
        at.vendor.instead["keys"] = lambda: answer(200, {"keys": [{"id": 7, "name": None, "created": "nonsense"}]})
        (info,) = at.listed()
        assert (info.key_id, info.name, info.created_at) == ("7", "", None)

    def test_an_id_with_odd_characters_is_revoked_as_itself(self, at: VendorHarness) -> None:
        """It is escaped in the key id, and again in the path."""
        at.vendor.instead["keys"] = lambda: answer(200, {"keys": [{"id": "a/b c%", "name": "n"}]})
        (info,) = at.listed()
        assert info.key_id == "a%2Fb%20c%25"
        with suppress(Trouble):
            at.issuer.revoke(info.key_id)
        assert at.vendor.seen[-1][1] == "/v1/acme/keys/a%2Fb%20c%25"

    @pytest.mark.parametrize(
        ("pages", "reason"),
        [
            ([{"keys": [], "next": "a", "more": True}] * 3, "does not go on"),
            ([{"keys": [], "next": None, "more": True}], "does not go on"),
            ([{"keys": [], "next": "a"}], "does not say if it is the last"),
            ([{"keys": [], "next": "a", "more": "yes"}], "does not say if it is the last"),
        ],
    )
    def test_cursors_that_lead_nowhere(self, at: VendorHarness, pages: list[Any], reason: str) -> None:
        """Raise rather than end early or never."""
        cursor = {"parameter": "after", "next": "next", "more": "more"}
        at.about["list"]["pagination"] = {"cursor": cursor}
        left = iter(pages)
        at.vendor.instead["keys"] = lambda: answer(200, next(left))
        with pytest.raises(Trouble, match=reason):
            list(at.client().keys())

    def test_cursors_without_a_word_on_more(self, at: VendorHarness) -> None:
        """Then the page without a next one is the last."""
        at.about["list"]["pagination"] = {"cursor": {"parameter": "after", "next": "next"}}
        left = iter([{"keys": [{"id": "a", "name": "n"}], "next": 2}, {"keys": [{"id": "b", "name": "n"}]}])
        at.vendor.instead["keys"] = lambda: answer(200, next(left))
        assert [info.key_id for info in at.client().keys()] == ["a", "b"]  # noqa: SIM118 - not a mapping
        assert [path for _, path, _, _ in at.vendor.seen] == ["/v1/acme/keys", "/v1/acme/keys?after=2"]


class TestLastUse:
    @pytest.mark.parametrize(
        ("body", "known", "at_"),
        [
            ({"used": "2026-01-02T03:04:05Z"}, True, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ({"used": "2026-01-02"}, True, datetime(2026, 1, 2, tzinfo=UTC)),
            ({"used": None, "tracked": True}, True, None),
            ({"used": None, "tracked": False}, False, None),
            ({"used": None}, False, None),
            ({}, False, None),
            (None, False, None),
            ({"used": "yesterday", "tracked": True}, False, None),
            ({"used": 5, "tracked": True}, False, None),
        ],
    )
    def test_only_a_clear_answer_is_knowledge(
        self, paged: VendorHarness, body: Any, known: bool, at_: datetime | None
    ) -> None:
        """Unknown is never unused: a retirement rests on it."""
        paged.vendor.instead["last_use"] = lambda: answer(200, body)
        use = paged.issuer.last_use("id-1")
        assert (use.known, use.at) == (known, at_)
        assert use.granularity == timedelta(minutes=1)

    def test_without_the_declaration_no_time_is_no_knowledge(self, paged: VendorHarness) -> None:
        """Only a description that says what "never" looks like may conclude it."""
        del paged.about["last_use"]["never"]
        paged.vendor.instead["last_use"] = lambda: answer(200, {"used": None, "tracked": True})
        assert not paged.client().last_use("id-1").known

    @pytest.mark.parametrize(("form", "found"), [("unix", 1767323045), ("unix-ms", 1767323045000)])
    def test_times_as_numbers(self, paged: VendorHarness, form: str, found: int) -> None:
        """Seconds or milliseconds, in UTC."""
        paged.about["last_use"]["at"]["format"] = form
        issuer = paged.client()
        paged.vendor.instead["last_use"] = lambda: answer(200, {"used": found})
        assert issuer.last_use("id-1").at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        for nonsense in (True, 10**30, "1767323045", -(10**20)):
            paged.vendor.instead["last_use"] = partial(answer, 200, {"used": nonsense})
            assert not issuer.last_use("id-1").known


ADMINS: dict[str, Any] = {
    "request": {"path": "/{org}/keys"},
    "items": "admins",
    "redacted": "shown",
    "name": "label",
    "created_at": {"path": "made", "format": "iso8601"},
    "expires_at": {"path": "ends", "format": "iso8601"},
}


class TestLookingRound:
    """What an issuer tells of itself by reading alone."""

    def told(self, at: VendorHarness, *admins: dict[str, Any], status: int = 200) -> Diagnosis:
        at.about["admin"] = ADMINS
        at.vendor.instead["keys"] = lambda: answer(status, {"admins": [*admins]})
        return next(iter(at.client().examine()))

    def test_the_administrative_credential_is_told_by_its_redacted_value(self, at: VendorHarness) -> None:
        """Among others, with its age; never the value itself."""
        made = (at.clock.now() - timedelta(days=40)).isoformat()
        found = self.told(
            at, {"shown": "adm-****0000"}, {"shown": f"adm-...{ADMIN[-4:]}", "label": "rotation", "made": made}
        )
        assert (found.grade, found.text) == (Grade.GOOD, "it is called rotation, made 40 d ago; no end is told")

    @pytest.mark.parametrize(("days", "grade"), [(15, Grade.GOOD), (13, Grade.WARNING), (0, Grade.WARNING)])
    def test_one_that_ends_soon_is_warned_of(self, at: VendorHarness, days: int, grade: Grade) -> None:
        """While there is time to make another."""
        ends = (at.clock.now() + timedelta(days=days, hours=1)).isoformat()
        found = self.told(at, {"shown": f"adm-**{ADMIN[-4:]}", "ends": ends})
        assert found.grade is grade
        assert bool(found.remedy) is (grade is Grade.WARNING)

    @pytest.mark.parametrize(
        "shown", ["adm-****zzzz", ADMIN, f"**{ADMIN[-3:]}", "adm-5f****", "", None, 7, "a*b*c", f"b**{ADMIN[-6:]}"]
    )
    def test_what_does_not_tell_which_it_is_tells_nothing(self, at: VendorHarness, shown: object) -> None:
        """Another's, one that says too little, or no redacted value at all."""
        assert self.told(at, {"shown": shown}).grade is Grade.UNCHECKED

    def test_two_that_look_alike_tell_nothing(self, at: VendorHarness) -> None:
        """The end of the one is not that of the other."""
        assert self.told(at, *[{"shown": f"adm-**{ADMIN[-4:]}"}] * 2).grade is Grade.UNCHECKED

    def test_a_refusal_is_a_reason_and_no_error(self, at: VendorHarness) -> None:
        """An administrative credential need not be allowed to ask about itself."""
        found = self.told(at, status=403)
        assert found.grade is Grade.UNCHECKED
        assert "HTTP 403" in found.text

    def test_a_description_without_it_says_so(self, at: VendorHarness) -> None:
        """Not every vendor tells."""
        assert [found.grade for found in at.issuer.examine()] == [Grade.UNCHECKED] * 2

    @pytest.mark.parametrize(
        ("headers", "grade"),
        [
            ({"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4990"}, Grade.GOOD),
            ({"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "500"}, Grade.WARNING),
            ({"ratelimit-limit": "60", "ratelimit-remaining": "0"}, Grade.FAILING),
            ({"x-ratelimit-remaining-requests": "3"}, Grade.GOOD),
            ({"x-ratelimit-limit-requests": "3"}, None),
            ({"x-ratelimit-remaining": "many"}, Grade.UNCHECKED),
            ({}, Grade.UNCHECKED),
        ],
    )
    def test_what_is_left_of_a_rate_limit(
        self, at: VendorHarness, headers: dict[str, str], grade: Grade | None
    ) -> None:
        """By the headers of the last answers, whatever they were answers to."""
        at.vendor.instead["keys"] = lambda: answer(200, {"keys": []}, **headers)
        list(at.issuer.keys())
        quotas = [found.grade for found in at.issuer.examine() if found.check == "quota"]
        assert quotas == ([grade] if grade else [])

    def test_the_time_is_told_by_every_answer(self, at: VendorHarness) -> None:
        """And by none before the first."""
        ahead = FakeClock()
        ahead.move(SystemClock().now() - ahead.now() + timedelta(minutes=7))
        issuer = at.client(clock=ahead)
        told = [issuer.skew]
        issuer.verify(Credential.of(value="x"))
        told.append(issuer.skew)
        assert told[0] is None
        assert told[1] is not None
        assert timedelta(minutes=6) < told[1] < timedelta(minutes=8)


class TestVerdicts:
    def verified(self, at: VendorHarness, rules: list[dict[str, Any]], status: int, body: Any) -> Check:
        at.about["verify"]["rules"][:0] = rules
        at.vendor.instead["verify"] = lambda: answer(status, body)
        return at.client().verify(Credential.of(value="x"))

    def test_the_first_rule_that_fits_decides(self, at: VendorHarness) -> None:
        """Later ones are not asked."""
        rules: list[dict[str, Any]] = [
            {"status": [400, 401], "when": "error.code == 'narrow'", "verdict": "limited", "reason": "narrow"},
            {"status": "4xx", "when": "error.code == 'bad_key'", "verdict": "unknown", "reason": "doubtful"},
        ]
        check = self.verified(at, rules, 401, {"error": {"code": "bad_key"}})
        assert (check.verdict, check.reason) == (Verdict.UNKNOWN, "doubtful (HTTP 401, bad_key)")

    @pytest.mark.parametrize("body", [None, [], "x", 5, {"error": "bad_key"}, {"error": {"code": ["bad_key"]}}])
    def test_a_condition_that_can_not_be_answered_does_not_hold(self, at: VendorHarness, body: Any) -> None:
        """An answer of another shape tells nothing."""
        check = self.verified(at, [], 401, body)
        assert check.verdict is Verdict.UNKNOWN

    def test_a_condition_on_the_wrong_type_does_not_hold(self, at: VendorHarness) -> None:
        """JMESPath then fails; that is not an answer either."""
        rule = {"status": 401, "when": "contains(error.code, 'x')", "verdict": "invalid", "reason": "refused"}
        assert self.verified(at, [rule], 401, {"error": {"code": 5}}).verdict is Verdict.UNKNOWN

    def test_a_page_of_something_else_is_not_valid(self, at: VendorHarness) -> None:
        """A captive portal answers 200 to everything."""
        at.vendor.instead["verify"] = lambda: Response("<html>Welcome</html>", 200)
        assert at.issuer.verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN

    def test_a_smoke_test_has_its_own_idea_of_success(self, at: VendorHarness) -> None:
        """What is good enough for a verification is none; the refusals are the same."""
        at.about["smoke"] = {
            "request": {"path": "/whoami"},
            "rules": [{"status": 200, "when": "answer", "verdict": "valid", "reason": "answered"}],
        }
        issuer, shown = at.client(), Credential.of(value="unheard-of")
        at.vendor.instead["verify"] = lambda: answer(200, {"you": "somebody"})
        assert (issuer.verify(shown).verdict, issuer.smoke(shown).verdict) == (Verdict.VALID, Verdict.UNKNOWN)
        at.vendor.instead["verify"] = lambda: answer(200, {"answer": 42})
        assert issuer.smoke(shown).verdict is Verdict.VALID
        del at.vendor.instead["verify"]
        assert issuer.smoke(shown).verdict is Verdict.INVALID

    def test_no_smoke_test_is_described(self, at: VendorHarness) -> None:
        """Says so, and sends nothing."""
        assert at.issuer.smoke(Credential.of(value="x")).verdict is Verdict.UNKNOWN
        assert at.vendor.seen == []
