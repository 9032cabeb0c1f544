"""What a description may ask of the declarative issuer beyond the plain case, each on the wire of a scripted vendor."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
import yaml

from providers.issuers.http import HttpIssuer
from providers.issuers.language import DescriptionFault
from providers.issuers.packed import description as unpacked
from providers.issuers.reading import read
from rotation.errors import Code, Trouble
from rotation.model import Credential, Model, SecretValue, Verdict
from rotation.packed import encode
from rotation.resilience import PatientIssuer, Service
from tests.contracts.issuer import assert_no_values
from tests.issuers.scripted import Asked, Reply, Scripted
from tests.world import FakeClock

ADMIN = "adm-2f7c9a61d0b84e35"
NAME = "acme.prod-support-chat.0f3c9a61d0b84e35a1b2c3d4e5f60718"
BASE: dict[str, Any] = {
    "title": "a vendor",
    "sources": ["the test"],
    "base_url": "https://vendor.invalid",
    "auth": {"bearer": "{admin}"},
    "mint": [
        {
            "request": {"method": "POST", "path": "/keys", "json": {"name": "{key_name}"}},
            "key_id": {"key": "id"},
            "fields": {"value": "secret"},
        }
    ],
    "list": {"request": {"path": "/keys"}, "items": "keys", "each": [{"name": "name", "key_id": {"key": "id"}}]},
    "verify": {
        "request": {"path": "/me"},
        "auth": {"bearer": "{value}"},
        "rules": [
            {"status": 200, "verdict": "valid", "reason": "accepted"},
            {"status": 401, "verdict": "invalid", "reason": "refused"},
        ],
    },
    "revoke": [{"key_id": ["key"], "steps": [{"request": {"method": "DELETE", "path": "/keys/{key}"}, "gone": 404}]}],
    "capabilities": {
        "create": {"in_a_row": 1, "interval": "1s", "timeout": "10s"},
        "revoke": {"in_a_row": 1, "interval": "1s", "timeout": "10s"},
    },
}
MINTED = {"id": "id-1", "secret": "val-1-8c1d0f", "name": NAME}


class Bench:
    """A description, a clock and a vendor that answers by method and path."""

    def __init__(self, vendor: Scripted) -> None:
        self.vendor, self.clock = vendor, FakeClock()
        self.about = copy.deepcopy(BASE)
        self.replies: dict[str, Reply | Callable[[Asked], Reply]] = {"POST /keys": (201, MINTED)}
        self.open: list[HttpIssuer] = []
        vendor.answer = self.answer

    def answer(self, asked: Asked) -> Reply:
        found = self.replies.get(f"{asked.method} {asked.path}", (404, {}))
        return found(asked) if callable(found) else found

    def issuer(self, admin: str = ADMIN, *, packed: bool = False, **variables: Any) -> HttpIssuer:
        about = read(yaml.safe_dump(self.about), "vendor.yaml")
        given = {"baseUrl": self.vendor.url, **variables}
        about = unpacked(json.loads(json.dumps(encode(about)))) if packed else about
        issuer = HttpIssuer("vendor", about, given, lambda: SecretValue(admin), self.clock)
        self.open.append(issuer)
        return issuer


@pytest.fixture(scope="module")
def vendor() -> Iterator[Scripted]:
    with Scripted(lambda _: (500, {})) as vendor:
        yield vendor


@pytest.fixture
def bench(vendor: Scripted) -> Iterator[Bench]:
    vendor.seen.clear()
    bench = Bench(vendor)
    yield bench
    for issuer in bench.open:
        issuer.close()


class TestClientCredentials:
    @pytest.fixture
    def oauth(self, bench: Bench) -> Bench:
        bench.about["variables"] = {
            "client": {"about": "x"},
            "login": {"about": "x", "type": "url", "required": False, "default": "https://login.invalid"},
        }
        asked = {"host": "login", "path": "/token", "client_id": "{client}", "client_secret": "{admin}", "scope": "all"}
        bench.about["auth"] = {"oauth2_client_credentials": asked}
        self.tokens = 0

        def token(_: Asked) -> Reply:
            self.tokens += 1
            return 200, {"access_token": f"tok-{self.tokens}-5d3e9b", "expires_in": 3600}

        bench.replies["POST /token"] = token
        bench.replies["GET /keys"] = (200, {"keys": []})
        return bench

    def test_a_token_is_asked_for_once_and_used_until_shortly_before_its_end(self, oauth: Bench) -> None:
        """As a form, with scope; then again."""
        issuer = oauth.issuer(client="me", login=oauth.vendor.url)
        for _ in range(3):
            list(issuer.keys())
        assert oauth.vendor.paths() == ["POST /token", *["GET /keys"] * 3]
        asked = oauth.vendor.seen[0]
        expected = {"grant_type": "client_credentials", "client_id": "me", "client_secret": ADMIN, "scope": "all"}
        assert asked.form == expected
        assert oauth.vendor.seen[1].headers["authorization"] == "Bearer tok-1-5d3e9b"
        oauth.clock.move(timedelta(seconds=3600 - 119))
        list(issuer.keys())
        assert oauth.vendor.seen[-1].headers["authorization"] == "Bearer tok-2-5d3e9b"

    def test_a_new_admin_credential_gets_a_token_of_its_own(self, oauth: Bench) -> None:
        """One that is itself rotated must not live on in a token."""
        issuer = oauth.issuer(client="me", login=oauth.vendor.url)
        list(issuer.keys())
        issuer._admin = lambda: SecretValue("another-admin-credential")
        list(issuer.keys())
        assert oauth.vendor.seen[-1].headers["authorization"] == "Bearer tok-2-5d3e9b"

    def test_a_token_that_is_refused_is_not_kept(self, oauth: Bench) -> None:
        """The request is not repeated; the next one has a new token."""
        issuer = oauth.issuer(client="me", login=oauth.vendor.url)
        oauth.replies["GET /keys"] = (401, {})
        with pytest.raises(Trouble) as raised:
            list(issuer.keys())
        assert raised.value.code is Code.DENIED
        oauth.replies["GET /keys"] = (200, {"keys": []})
        list(issuer.keys())
        assert oauth.vendor.paths() == ["POST /token", "GET /keys"] * 2

    def test_id_and_secret_may_stand_in_the_header(self, oauth: Bench) -> None:
        """As HTTP Basic."""
        oauth.about["auth"]["oauth2_client_credentials"]["send"] = "basic"
        list(oauth.issuer(client="me", login=oauth.vendor.url).keys())
        asked = oauth.vendor.seen[0]
        assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"me:{ADMIN}".encode()).decode()
        assert asked.form == {"grant_type": "client_credentials", "scope": "all"}

    @pytest.mark.parametrize(
        ("reply", "code"),
        [
            ((401, {"error": "invalid_client", "error_description": ADMIN}), Code.DENIED),
            ((400, {"error": "invalid_scope"}), Code.DENIED),
            ((429, {}), Code.THROTTLED),
            ((503, {}), Code.UNAVAILABLE),
            ((200, {}), Code.UNAVAILABLE),
            ((302, {}, {"Location": "https://elsewhere.invalid"}), Code.UNAVAILABLE),
        ],
    )
    def test_no_token(self, oauth: Bench, reply: Reply, code: Code) -> None:
        """Nothing was minted, and it says so; no credential in the exception."""
        oauth.replies["POST /token"] = reply
        with pytest.raises(Trouble) as raised:
            oauth.issuer(client="me", login=oauth.vendor.url).mint(NAME)
        assert raised.value.code is code
        assert not raised.value.maybe_applied
        assert oauth.vendor.paths() == ["POST /token"]
        assert_no_values(raised.value, [ADMIN])

    def test_works_from_a_package(self, oauth: Bench) -> None:
        """As a function has it, without the checker."""
        assert oauth.issuer(client="me", login=oauth.vendor.url, packed=True).mint(NAME).key_id == "id-1"


class TestBodies:
    def test_a_form(self, bench: Bench) -> None:
        """Encoded as forms are; what is not given is left out."""
        bench.about["variables"] = {"kind": {"about": "x", "required": False}}
        bench.about["mint"][0]["request"] = {
            "method": "POST",
            "path": "/keys",
            "form": {"N": "{key_name}", "K": "{kind}"},
        }
        bench.issuer().mint(NAME)
        bench.issuer(kind="a&b").mint(NAME)
        assert [asked.form for asked in bench.vendor.seen] == [{"N": NAME}, {"N": NAME, "K": "a&b"}]
        assert bench.vendor.seen[0].headers["content-type"] == "application/x-www-form-urlencoded"

    def test_a_list_keeps_its_type(self, bench: Bench) -> None:
        """And is checked for it."""
        bench.about["variables"] = {"scopes": {"about": "x", "type": "list"}}
        bench.about["mint"][0]["request"]["json"]["scopes"] = "{scopes}"
        bench.issuer(scopes=["a", "b"]).mint(NAME)
        assert bench.vendor.seen[0].json["scopes"] == ["a", "b"]
        for wrong in ("a", [], [1], [""]):
            with pytest.raises(DescriptionFault, match="scopes: must be a list of texts"):
                bench.issuer(scopes=wrong)

    @pytest.mark.parametrize(("form", "said"), [("iso8601", "2026-01-01T01:00:00Z"), ("unix", 1767229200)])
    def test_a_key_that_is_to_end(self, bench: Bench, form: str, said: Any) -> None:
        """As a point in time; known to end then although the answer is silent. Without the variable: neither."""
        bench.clock.move(
            bench.clock.now().replace(year=2026, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
            - bench.clock.now()
        )
        bench.about["variables"] = {"lives": {"about": "seconds", "type": "integer", "required": False}}
        bench.about["mint"][0]["expiry"] = {"after": "lives", "format": form}
        bench.about["mint"][0]["request"]["json"]["until"] = "{expires_at}"
        issued = bench.issuer(lives=3600).mint(NAME)
        assert bench.vendor.seen[0].json["until"] == said
        assert issued.expires_at == bench.clock.now() + timedelta(hours=1)
        assert bench.issuer().mint(NAME).expires_at is None
        assert "until" not in bench.vendor.seen[1].json

    def test_parts_of_an_administrative_credential(self, bench: Bench) -> None:
        """A JSON object; anything else is told without being repeated."""
        bench.about["auth"] = {"headers": {"x-id": "{admin.id}", "x-key": "{admin.key}"}}
        bench.issuer(json.dumps({"id": "me", "key": ADMIN})).mint(NAME)
        assert (bench.vendor.seen[0].headers["x-id"], bench.vendor.seen[0].headers["x-key"]) == ("me", ADMIN)
        for wrong in (ADMIN, json.dumps({"id": ADMIN}), json.dumps([ADMIN]), json.dumps({"id": 1, "key": ADMIN})):
            with pytest.raises(Trouble, match="must be a JSON object with id, key") as raised:
                bench.issuer(wrong).mint(NAME)
            assert raised.value.code is Code.DENIED
            assert_no_values(raised.value, [ADMIN])

    def test_a_credential_in_the_body_of_its_verification(self, bench: Bench) -> None:
        """Where there is no header for it."""
        bench.about["verify"] = {
            "request": {"method": "POST", "path": "/token", "form": {"client_secret": "{value}"}},
            "rules": BASE["verify"]["rules"],
        }
        bench.replies["POST /token"] = lambda asked: (200 if asked.form["client_secret"] == "right" else 401, {})
        assert bench.issuer().verify(Credential.of(value="right")).verdict is Verdict.VALID
        assert bench.issuer().verify(Credential.of(value="wrong")).verdict is Verdict.INVALID
        assert "authorization" not in bench.vendor.seen[0].headers


class TestPrefetch:
    @pytest.fixture
    def copying(self, bench: Bench) -> Bench:
        bench.about["variables"] = {"like": {"about": "x", "required": False}}
        bench.about["prefetch"] = [
            {"when": "like", "request": {"path": "/keys/{like}"}, "values": {"rights": "rights[].{may: may}"}}
        ]
        bench.about["mint"][0]["request"]["json"]["rights"] = "{rights}"
        bench.replies["GET /keys/id-0"] = (200, {"rights": [{"may": "read", "id": 7}]})
        return bench

    def test_what_another_key_may_is_copied(self, copying: Bench) -> None:
        """As it is now; where no other key is named, nothing is read."""
        copying.issuer(like="id-0").mint(NAME)
        assert copying.vendor.seen[1].json == {"name": NAME, "rights": [{"may": "read"}]}
        copying.issuer().mint(NAME)
        assert copying.vendor.paths() == ["GET /keys/id-0", "POST /keys", "POST /keys"]
        assert "rights" not in copying.vendor.seen[2].json

    @pytest.mark.parametrize(
        ("reply", "code"), [((200, {}), Code.INVALID), ((404, {}), Code.NOT_FOUND), ((503, {}), Code.UNAVAILABLE)]
    )
    def test_nothing_is_minted_without_it(self, copying: Bench, reply: Reply, code: Code) -> None:
        """A key with other rights would break its consumers."""
        copying.replies["GET /keys/id-0"] = reply
        with pytest.raises(Trouble) as raised:
            copying.issuer(like="id-0").mint(NAME)
        assert (raised.value.code, raised.value.maybe_applied) == (code, False)
        assert copying.vendor.paths() == ["GET /keys/id-0"]


class TestPolls:
    @pytest.fixture
    def slow(self, bench: Bench) -> Bench:
        poll = {
            "operation": "name",
            "request": {"path": "/v1/{operation}"},
            "done": "done",
            "failed": "error",
            "interval": "2s",
            "timeout": "20s",
        }
        bench.about["mint"][0] |= {
            "poll": poll,
            "key_id": {"key": "response.id"},
            "fields": {"value": "response.secret"},
        }
        bench.about["revoke"][0]["steps"][0]["poll"] = poll
        bench.replies["POST /keys"] = (200, {"name": "operations/op-1"})
        bench.replies["DELETE /keys/id-1"] = (200, {"name": "operations/op-2"})
        self.left = 2
        bench.replies["GET /v1/operations/op-1"] = self.later({"done": True, "response": MINTED})
        bench.replies["GET /v1/operations/op-2"] = self.later({"done": True})
        return bench

    def later(self, last: Any) -> Callable[[Asked], Reply]:
        def answer(_: Asked) -> Reply:
            self.left -= 1
            return (200, {"done": False}) if self.left >= 0 else (200, last)

        return answer

    def test_a_mint_that_takes_its_time(self, slow: Bench) -> None:
        """Asked for once, asked after until it is done; the key is in the last answer."""
        began = slow.clock.now()
        issued = slow.issuer().mint(NAME)
        assert (issued.key_id, slow.clock.now() - began) == ("id-1", timedelta(seconds=4))
        assert slow.vendor.paths() == ["POST /keys", *["GET /v1/operations/op-1"] * 3]

    def test_a_revocation_that_takes_its_time(self, slow: Bench) -> None:
        """It is over when the operation is."""
        slow.issuer().revoke("id-1")
        assert slow.vendor.paths()[1:] == ["GET /v1/operations/op-2"] * 3

    def test_one_that_never_ends(self, slow: Bench) -> None:
        """It may have happened."""
        self.left = 1000
        with pytest.raises(Trouble, match="not done when its time was over") as raised:
            slow.issuer().mint(NAME)
        assert raised.value.maybe_applied

    def test_one_that_fails(self, slow: Bench) -> None:
        """Nothing came of it, and it says so."""
        slow.replies["GET /v1/operations/op-1"] = (200, {"done": True, "error": {"code": 7}})
        with pytest.raises(Trouble, match="nothing came of it") as raised:
            slow.issuer().mint(NAME)
        assert not raised.value.maybe_applied

    @pytest.mark.parametrize("reply", [(403, {}), (302, {}), (200, None)])
    def test_one_that_can_not_be_asked_after(self, slow: Bench, reply: Reply) -> None:
        """It goes on all the same: the key may come to be."""
        slow.replies["GET /v1/operations/op-1"] = reply
        with pytest.raises(Trouble) as raised:
            slow.issuer().mint(NAME)
        assert (raised.value.code, raised.value.maybe_applied) == (Code.UNAVAILABLE, True)

    def test_a_moment_of_failure_is_not_the_end(self, slow: Bench) -> None:
        """Asking twice does no harm."""
        answers = iter([(503, {}), (404, {}), (200, {"done": True, "response": MINTED})])
        slow.replies["GET /v1/operations/op-1"] = lambda _: next(answers)
        assert slow.issuer().mint(NAME).key_id == "id-1"

    def test_an_operation_stays_below_the_path(self, slow: Bench) -> None:
        """A name from an answer leads nowhere else."""
        slow.replies["POST /keys"] = (200, {"name": "../../admin"})
        with pytest.raises(Trouble, match="would lead to another path"):
            slow.issuer().mint(NAME)
        assert slow.vendor.paths() == ["POST /keys"]


class TestPages:
    def pages(self, bench: Bench, *following: Any) -> list[str]:
        """Keys over pages of which each names the next."""
        bench.about["list"]["pagination"] = {"next_url": {"next": "next"}}
        left = iter(enumerate(following, 1))

        def page(_: Asked) -> Reply:
            number, then = next(left)
            return 200, {"keys": [{"id": f"id-{number}", "name": "x"}], "next": then}

        bench.replies["GET /keys"] = page
        return [info.key_id for info in list(bench.issuer().keys())]

    def test_each_page_names_the_next(self, bench: Bench) -> None:
        """As an address, as a path, as a query; with the credential, as it is the same host."""
        url = bench.vendor.url
        assert self.pages(bench, f"{url}/keys?page=2", "/keys?page=3", "?page=4", None) == [
            "id-1",
            "id-2",
            "id-3",
            "id-4",
        ]
        assert [asked.query for asked in bench.vendor.seen] == [{}, {"page": "2"}, {"page": "3"}, {"page": "4"}]
        assert all(asked.headers["authorization"] == f"Bearer {ADMIN}" for asked in bench.vendor.seen)

    @pytest.mark.parametrize(
        "elsewhere",
        [
            "https://elsewhere.invalid/keys",
            "//elsewhere.invalid/keys",
            "http://127.0.0.1:1/keys",
            "http://user@127.0.0.1/keys",
            "/\\elsewhere.invalid",
            "http://[",
            7,
        ],
    )
    def test_a_page_elsewhere_gets_no_credential(self, bench: Bench, elsewhere: Any) -> None:
        """Nothing is sent there, and the list counts as unread."""
        with pytest.raises(Trouble, match="not on the same host"):
            self.pages(bench, elsewhere)
        assert len(bench.vendor.seen) == 1

    def test_pages_that_go_in_a_circle(self, bench: Bench) -> None:
        """They end."""
        with pytest.raises(Trouble, match="in a circle"):
            self.pages(bench, "/keys?page=2", "/keys?page=2")

    def test_what_is_not_live_is_left_out(self, bench: Bench) -> None:
        """A key that its vendor keeps in the list as history passes for dead."""
        bench.about["list"]["live"] = "status == 'active'"
        items = [{"id": "id-1", "name": "x", "status": "active"}, {"id": "id-2", "name": "y", "status": "archived"}]
        bench.replies["GET /keys"] = (200, {"keys": items})
        assert [info.key_id for info in list(bench.issuer().keys())] == ["id-1"]

    def test_last_use_from_the_list(self, bench: Bench) -> None:
        """Where no request tells it of one key; a key that is not listed is unknown."""
        bench.about["last_use"] = {
            "at": {"path": "used", "format": "iso8601"},
            "never": "contains(keys(@), 'used')",
            "granularity": "1d",
        }
        items = [{"id": "id-1", "name": "x", "used": "2026-11-20"}, {"id": "id-2", "name": "y", "used": None}]
        bench.replies["GET /keys"] = (200, {"keys": items})
        used, never, unknown = (bench.issuer().last_use(key) for key in ("id-1", "id-2", "id-3"))
        assert used.at is not None
        assert (used.known, used.at.isoformat(), used.granularity) == (
            True,
            "2026-11-20T00:00:00+00:00",
            timedelta(days=1),
        )
        assert (never.known, never.at, unknown.known) == (True, None, False)


class TestHosts:
    def test_a_request_to_another_declared_host(self, bench: Bench) -> None:
        """The others stay where they were."""
        bench.about["variables"] = {
            "accounts": {"about": "x", "type": "url", "required": False, "default": "https://accounts.invalid"}
        }
        bench.about["revoke"][0]["steps"][0]["request"] |= {"host": "accounts"}
        bench.replies["DELETE /other/keys/id-1"] = (204, None)
        issuer = bench.issuer(accounts=f"{bench.vendor.url}/other")
        issuer.mint(NAME)
        issuer.revoke("id-1")
        assert bench.vendor.paths() == ["POST /keys", "DELETE /other/keys/id-1"]

    @pytest.mark.parametrize("url", ["http://elsewhere.invalid", "https://me@elsewhere.invalid", "elsewhere"])
    def test_a_host_is_an_address_over_tls(self, bench: Bench, url: str) -> None:
        """Or this machine."""
        bench.about["variables"] = {"accounts": {"about": "x", "type": "url"}}
        bench.about["list"]["request"]["host"] = "accounts"
        with pytest.raises(DescriptionFault, match="accounts: must "):
            bench.issuer(accounts=url)


class TestChanges:
    def test_disabling_and_enabling(self, bench: Bench) -> None:
        """By the key's id, as revoking; not described: it says so."""
        assert not bench.issuer().disables
        with pytest.raises(Trouble, match="can not be done") as raised:
            bench.issuer().disable("id-1")
        assert raised.value.code is Code.INVALID
        for name, value in (("disable", True), ("enable", False)):
            request = {"method": "PATCH", "path": "/keys/{key}", "json": {"disabled": value}}
            bench.about[name] = [{"key_id": ["key"], "steps": [{"request": request}]}]
        bench.replies["PATCH /keys/id-1"] = (200, {})
        issuer = bench.issuer()
        issuer.disable("id-1")
        issuer.enable("id-1")
        assert [asked.json for asked in bench.vendor.seen] == [{"disabled": True}, {"disabled": False}]

    def test_gone_by_what_is_said(self, bench: Bench) -> None:
        """A status that means several things means it only with the right word."""
        bench.about["revoke"][0]["steps"][0] |= {"gone": 400, "gone_when": "error == 'no such key'"}
        bench.replies["DELETE /keys/id-1"] = (400, {"error": "no such key"})
        bench.issuer().revoke("id-1")
        bench.replies["DELETE /keys/id-1"] = (400, {"error": "something else"})
        with pytest.raises(Trouble) as raised:
            bench.issuer().revoke("id-1")
        assert raised.value.code is Code.INVALID

    def test_a_rule_by_a_header(self, bench: Bench) -> None:
        """Where the body is no JSON."""
        bench.about["verify"]["rules"][1] = {
            "status": 403,
            "header": {"X-Error": "BadKey"},
            "verdict": "invalid",
            "reason": "refused",
        }
        bench.replies["GET /me"] = (403, b"<xml/>", {"x-error": "BadKey"})
        assert bench.issuer().verify(Credential.of(value="x")).verdict is Verdict.INVALID
        bench.replies["GET /me"] = (403, b"<xml/>", {"x-error": "Firewall"})
        assert bench.issuer().verify(Credential.of(value="x")).verdict is Verdict.UNKNOWN

    def test_refusals_of_every_request(self, bench: Bench) -> None:
        """One word for all of them; 401 and 403 are told apart without any."""
        bench.about["errors"] = [
            {"status": 401, "when": "ip", "code": "denied", "reason": "this address is not on the allowlist"}
        ]
        told = {}
        for status, body in ((401, {"ip": 1}), (401, {}), (403, {})):
            bench.replies["GET /keys"] = bench.replies["DELETE /keys/id-1"] = (status, body)
            for act in (lambda: list(bench.issuer().keys()), lambda: bench.issuer().revoke("id-1")):
                with pytest.raises(Trouble) as raised:
                    act()
                assert raised.value.code is Code.DENIED
                told[status, bool(body)] = str(raised.value)
        assert "this address is not on the allowlist" in told[401, True]
        assert "was refused" in told[401, False]
        assert "or this address, may not do this" in told[403, False]


class TestSlots:
    @pytest.fixture
    def slotted(self, bench: Bench) -> Bench:
        bench.about |= {
            "model": "slots",
            "slots": {name: {"fields": {"value": name.lower()}} for name in ("Key1", "Key2")},
            "mint": [{"request": {"method": "POST", "path": "/regenerate", "json": {"keyName": "{slot}"}}}],
            "list": {"request": {"method": "POST", "path": "/list"}, "returns_secrets": True},
        }
        del bench.about["revoke"]
        self.now = {"key1": "first-1", "key2": "first-2"}
        self.made = 0

        def regenerate(asked: Asked) -> Reply:
            self.made += 1
            self.now[asked.json["keyName"].lower()] = f"value-{self.made}-51c0"
            return 200, self.now

        bench.replies = {"POST /regenerate": regenerate, "POST /list": lambda _: (200, self.now)}
        return bench

    def test_a_mint_regenerates_its_slot_alone(self, slotted: Bench) -> None:
        """The key id is of the value, so that no later one in the slot is mistaken for it."""
        issuer = slotted.issuer()
        assert (issuer.capabilities.model, issuer.capabilities.slots) == (Model.SLOTS, ("Key1", "Key2"))
        one, two, three = issuer.mint(NAME, "Key1"), issuer.mint(NAME, "Key2"), issuer.mint(NAME, "Key1")
        assert one.credential.same_as(Credential.of(value="value-1-51c0"))
        assert self.now == {"key1": "value-3-51c0", "key2": "value-2-51c0"}
        assert len({one.key_id, two.key_id, three.key_id}) == 3
        assert {info.key_id for info in list(issuer.keys())} == {two.key_id, three.key_id}
        assert not [value for value in self.now.values() if value in repr(list(issuer.keys()))]

    def test_revoking_discards_what_the_slot_holds(self, slotted: Bench) -> None:
        """And only that: what came into it later is somebody's."""
        issuer = slotted.issuer()
        one = issuer.mint(NAME, "Key1")
        issuer.revoke(one.key_id)
        assert self.now["key1"] == "value-2-51c0"
        issuer.revoke(one.key_id)
        two = issuer.mint(NAME, "Key1")
        issuer.revoke(one.key_id)
        assert (self.now["key1"], self.made) == (two.credential.fields["value"].reveal(), 3)
        with pytest.raises(Trouble, match="no key id"):
            issuer.revoke("Key3/abc")

    @pytest.mark.parametrize("slot", [None, "key1", "Key3"])
    def test_a_slot_that_is_none(self, slotted: Bench, slot: str | None) -> None:
        """Nothing is sent."""
        with pytest.raises(Trouble, match="there are: Key1, Key2"):
            slotted.issuer().mint(NAME, slot)
        assert not slotted.vendor.seen


class TestManual:
    def test_nothing_is_asked_of_a_vendor_without_an_interface(self, bench: Bench) -> None:
        """It mints, lists and revokes nothing, and says whose work it is."""
        for name in ("mint", "list", "revoke", "auth"):
            del bench.about[name]
        bench.about["model"] = "manual"
        issuer = bench.issuer()
        assert (issuer.capabilities.model, issuer.capabilities.revokes) == (Model.MANUAL, False)
        assert list(issuer.keys()) == []
        for act, told in ((lambda: issuer.mint(NAME), "keyturn submit"), (lambda: issuer.revoke("x"), "by a person")):
            with pytest.raises(Trouble, match=told) as raised:
                act()
            assert raised.value.code is Code.INVALID
        assert not bench.vendor.seen


def refused_at_first(left: list[int], _: Asked) -> Reply:
    """Too many requests, as often as something is left."""
    if left:
        left.pop()
        return 429, {}
    return 200, {"keys": []}


class TestLimits:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after-ms": "1500"}, 1.5),
            ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12),
            ({"ratelimit-remaining": "0", "ratelimit-reset": "3"}, 3),
            ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
            ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
            ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "9"}, 9),
            ({"ratelimit": '"default";r=0;t=30', "ratelimit-policy": '"default";q=1200;w=300'}, 30),
            ({"ratelimit": '"burst";r=3;t=9, "daily";r=0;t=40'}, 40),
            ({"ratelimit": '"default";r=1;t=30'}, None),
            ({"ratelimit": "r=0;t=30"}, None),
            ({"x-ms-ratelimit-remaining-subscription-writes": "0"}, None),
            ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "12"}, None),
            ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
            ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "999999"}, 3600),
            ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12", "Retry-After": "5"}, 5),
        ],
    )
    def test_how_long_a_vendor_asks_to_wait(self, bench: Bench, headers: dict[str, str], seconds: float | None) -> None:
        """In the ways that vendors have for it; Retry-After before all others."""
        bench.replies["GET /keys"] = (429, {}, headers)
        with pytest.raises(Trouble) as raised:
            list(bench.issuer().keys())
        assert raised.value.retry_after == seconds

    def test_a_reset_as_a_point_in_time(self, bench: Bench) -> None:
        """Seconds since 1970, or written out."""
        then = bench.clock.now() + timedelta(seconds=40)
        for at in (str(int(then.timestamp())), then.strftime("%Y-%m-%dT%H:%M:%SZ")):
            bench.replies["GET /keys"] = (429, {}, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": at})
            with pytest.raises(Trouble) as raised:
                list(bench.issuer().keys())
            assert raised.value.retry_after == pytest.approx(40, abs=1.1)

    def test_too_many_requests_are_met_with_jitter(self, bench: Bench) -> None:
        """A vendor that names no time is asked again later and later, never in step with others; a mint goes out once."""
        waits = []
        for chance in (0.1, 0.9):
            refusals = [1, 2, 3]
            bench.replies["GET /keys"] = partial(refused_at_first, refusals)
            asked, began = len(bench.vendor.seen), bench.clock.now()
            list(PatientIssuer(bench.issuer(), Service("vendor", bench.clock, partial(float, chance))).keys())
            assert len(bench.vendor.seen) - asked == 4
            waits.append(bench.clock.now() - began)
        assert timedelta(seconds=0.6) < waits[0] < waits[1]
        bench.replies["POST /keys"] = (429, {})
        asked = len(bench.vendor.seen)
        with pytest.raises(Trouble) as raised:
            PatientIssuer(bench.issuer(), Service("vendor", bench.clock, lambda: 0.5)).mint(NAME)
        assert (raised.value.code, raised.value.maybe_applied) == (Code.THROTTLED, False)
        assert len(bench.vendor.seen) - asked == 1

    def test_a_limit_that_is_used_up_is_waited_for(self, bench: Bench) -> None:
        """Before asking: the next reading call goes out once the vendor will hear it."""
        bench.replies["GET /keys"] = (200, {"keys": []}, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"})
        service = Service("vendor", bench.clock, lambda: 0.0)
        issuer = PatientIssuer(bench.issuer(), service)
        began = bench.clock.now()
        list(issuer.keys())
        list(issuer.keys())
        assert len(bench.vendor.seen) == 2
        assert bench.clock.now() - began >= timedelta(seconds=12)

    def test_a_mint_is_not_put_off(self, bench: Bench) -> None:
        """It goes out once, and the vendor's own answer counts."""
        bench.replies["GET /keys"] = (200, {"keys": []}, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"})
        issuer = bench.issuer()
        list(issuer.keys())
        assert issuer.mint(NAME).key_id == "id-1"


class TestSharedKey:
    KEY = base64.b64encode(b"k" * 64).decode()

    @pytest.fixture
    def storage(self, bench: Bench) -> Bench:
        bench.about["headers"] = {"x-ms-version": "2025-11-05"}
        bench.about["verify"] = {
            "request": {"path": "/", "query": {"comp": "list"}},
            "auth": {"azure_shared_key": {"account": "acme", "key": "{value}"}},
            "rules": [
                {"status": 200, "verdict": "valid", "reason": "accepted"},
                {
                    "status": 403,
                    "header": {"x-ms-error-code": "AuthenticationFailed"},
                    "verdict": "invalid",
                    "reason": "refused",
                },
            ],
        }
        self.skew = timedelta(0)

        def judge(asked: Asked) -> Reply:
            text = f"GET\n\n\n\nx-ms-date:{asked.headers['x-ms-date']}\nx-ms-version:2025-11-05\n/acme/?comp=list"
            made = base64.b64encode(hmac.new(b"k" * 64, text.encode(), hashlib.sha256).digest()).decode()
            date = {"Date": format_datetime(bench.clock.now() + self.skew, usegmt=True)}
            if asked.headers["authorization"] == f"SharedKeyLite acme:{made}":
                return 200, b"<xml/>", date
            return 403, b"<xml/>", {"x-ms-error-code": "AuthenticationFailed", **date}

        bench.replies["GET /"] = judge
        return bench

    def test_the_signature(self, storage: Bench) -> None:
        """Of the key alone; another key's is refused, and the key itself is never sent."""
        assert storage.issuer().verify(Credential.of(value=self.KEY)).verdict is Verdict.VALID
        other = base64.b64encode(b"x" * 64).decode()
        assert storage.issuer().verify(Credential.of(value=other)).verdict is Verdict.INVALID
        assert self.KEY not in repr(storage.vendor.seen)

    def test_what_is_no_key_signs_nothing(self, storage: Bench) -> None:
        """It is not sent, and nothing is known."""
        assert storage.issuer().verify(Credential.of(value="no key!")).verdict is Verdict.UNKNOWN
        assert not storage.vendor.seen

    def test_clocks_that_differ_tell_nothing(self, storage: Bench) -> None:
        """The service refuses an old signature with the word that it has for a wrong key."""
        self.skew = timedelta(minutes=20)
        other = base64.b64encode(b"x" * 64).decode()
        assert storage.issuer().verify(Credential.of(value=other)).verdict is Verdict.UNKNOWN
