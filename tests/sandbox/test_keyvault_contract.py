"""The Key Vault stand-in against Microsoft's recordings of the real service: every exchange, in order, over HTTP.

A recording is replayed with the stand-in's clock set to the recorded times and its vault filled as the recorded one was,
so that answers can be compared value by value. Only what cannot be the same is translated first: the host, the version
ids that the server makes up, skip tokens and the backup blob. The recordings are no part of the project; without them
the replay is skipped.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from sandbox.keyvault.harness import KeyVaultServer
from sandbox.keyvault.vault import Delay, Entry, Settings, State, Version

RECORDED_HOST = "https://vaultname.vault.azure.net"
RECORDINGS = next(iter(sorted(Path(__file__).parents[3].glob("*/contracts/keyvault"))), None)

# A recording was replayed in full when this many of its exchanges were compared.
EXCHANGES = {
    "secret_crud_operations.json": 8,
    "secret_list_operations.json": 17,
    "secrets_backup_restore.json": 8,
    "secrets_recover.json": 9,
}
# Polls that the service refused with 404 before the operation was over. Restoring succeeded right after the purge.
SLOWNESS = {
    "secret_crud_operations.json": Settings(delete=Delay(refusals=1)),
    "secret_list_operations.json": Settings(),
    "secrets_backup_restore.json": Settings(delete=Delay(refusals=1)),
    "secrets_recover.json": Settings(delete=Delay(refusals=1), recover=Delay(refusals=1)),
}
# The recordings keep these headers and no others; each must be there exactly when it was recorded. What the stand-in
# sends besides (Cache-Control, Date, x-ms-request-id, x-ms-keyvault-region, …) is not in the recordings to compare.
HEADERS = ("Content-Type", "WWW-Authenticate", "x-ms-keyvault-service-version")
HEADERS_OF_ANY_VALUE = frozenset({"x-ms-keyvault-service-version"})


@dataclass(frozen=True)
class Answer:
    """A response in the recording's terms."""

    status: int
    headers: dict[str, str]
    body: Any


def differences(recorded: Answer, live: Answer) -> list[str]:
    """What a live answer has otherwise than the recorded one; nothing when they agree."""
    return list(_all_differences(recorded, live))


def _all_differences(recorded: Answer, live: Answer) -> Iterator[str]:
    if recorded.status != live.status:
        yield f"status: {live.status} instead of {recorded.status}"
    for name in HEADERS:
        want, have = recorded.headers.get(name), live.headers.get(name)
        if name in HEADERS_OF_ANY_VALUE and want and have:
            continue
        if want != have:
            yield f"header {name}: {have!r} instead of {want!r}"
    yield from _body_differences(recorded.body, live.body, "body")


def _body_differences(want: Any, have: Any, where: str) -> Iterator[str]:
    if type(want) is not type(have):
        yield f"{where}: {type(have).__name__} instead of {type(want).__name__}"
    elif isinstance(want, dict):
        yield from (f"{where}.{key}: missing" for key in want if key not in have)
        yield from (f"{where}.{key}: not in the recording" for key in have if key not in want)
        for key in (key for key in want if key in have):
            yield from _body_differences(want[key], have[key], f"{where}.{key}")
    elif isinstance(want, list):
        if len(want) != len(have):
            yield f"{where}: {len(have)} items instead of {len(want)}"
        for index, (each, other) in enumerate(zip(want, have, strict=False)):
            yield from _body_differences(each, other, f"{where}[{index}]")
    elif want != have:
        yield f"{where}: {have!r} instead of {want!r}"


class SetClock:
    """A clock that stands still where it was put."""

    def __init__(self) -> None:
        self.seconds = 0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


class Replay:
    """Sends one recording's requests to a stand-in and puts the answers into the recording's terms."""

    def __init__(self, server: KeyVaultServer, session: requests.Session, exchanges: list[dict[str, Any]]) -> None:
        self._server = server
        self._session = session
        self._exchanges = exchanges
        self._version_names: dict[str, str] = {}  # live version id → recorded one
        self._links: dict[str, str] = {}  # path of a list → live link to its next page
        self._backup = ""
        self._token = self._log_in()

    def run(self, clock: SetClock) -> tuple[int, list[str]]:
        """How many exchanges were compared, and what differed."""
        problems: list[str] = []
        for number, exchange in enumerate(self._exchanges):
            recorded = recorded_answer(exchange)
            clock.seconds = _time_of(recorded.body) or clock.seconds
            live = self._send(exchange["request"], authorized=recorded.status != 401)
            self._learn(exchange["request"], recorded.body, live)
            problems += [f"exchange {number}: {each}" for each in differences(recorded, self._translated(live))]
        return len(self._exchanges), problems

    def _log_in(self) -> str:
        form = {"client_id": self._server.client_id, "client_secret": self._server.client_secret}
        form |= {"grant_type": "client_credentials", "scope": "https://vault.azure.net/.default"}
        url = f"{self._server.authority}/{self._server.tenant_id}/oauth2/v2.0/token"
        token: str = self._session.post(url, form, timeout=10).json()["access_token"]
        return token

    def _send(self, request: dict[str, Any], *, authorized: bool) -> Answer:
        path, body = request["path"], request["body"]
        for live, recorded in self._version_names.items():
            path = path.replace(recorded, live)
        url = f"{self._server.vault_url}{path}?{request['query']}"
        if "$skiptoken" in request["query"]:
            url = self._links.pop(path)
            assert urlsplit(url).port == self._server.port
        if path == "/secrets/restore":
            body = {"value": self._backup}
        headers = {"Authorization": f"Bearer {self._token}"} if authorized else {}
        response = self._session.request(request["method"], url, json=body, headers=headers, timeout=10)
        return Answer(response.status_code, dict(response.headers), response.json() if response.content else None)

    def _learn(self, request: dict[str, Any], recorded: Any, live: Answer) -> None:
        if request["method"] == "PUT" and live.status == 200:
            self._version_names[live.body["id"].rpartition("/")[2]] = recorded["id"].rpartition("/")[2]
        if request["path"].endswith("/backup") and live.status == 200:
            self._backup = live.body["value"]
        if live.status == 200 and live.body.get("nextLink"):
            self._links[request["path"]] = live.body["nextLink"]

    def _translated(self, live: Answer) -> Answer:
        text = json.dumps(live.body).replace(self._server.vault_url, RECORDED_HOST)
        if self._backup:
            text = text.replace(self._backup, "A backup blob.")
        for name, recorded in self._version_names.items():
            text = text.replace(name, recorded)
        return Answer(live.status, _translated_headers(live.headers), json.loads(_without_link_details(text)))


def recorded_answer(exchange: dict[str, Any]) -> Answer:
    response = exchange["response"]
    body = response["body"]
    if exchange["request"]["path"].endswith("/backup"):
        body = {**body, "value": "A backup blob."}
    text = _without_link_details(json.dumps(body))
    return Answer(response["status"], _translated_headers(response["headers"]), json.loads(text))


def _without_link_details(text: str) -> str:
    return re.sub(
        r"\$skiptoken=[^\"&]+", "$skiptoken=Sanitized", text.replace(f"{RECORDED_HOST}:443/", f"{RECORDED_HOST}/")
    )


def _translated_headers(headers: dict[str, str]) -> dict[str, str]:
    """The headers with the address and the tenant of the login server taken out."""
    return {name: re.sub(r'authorization="https://[^/"]+/[^/"]+"', "authorization", headers[name]) for name in headers}


def _time_of(body: Any) -> int | None:
    """When the service made the answer to a write, as far as the answer tells."""
    if not isinstance(body, dict) or "attributes" not in body:
        return None
    time: int = body.get("deletedDate", body["attributes"]["updated"])
    return time


def load(name: str) -> list[dict[str, Any]]:
    if RECORDINGS is None:
        pytest.skip("no recordings of the real service: there is no */contracts/keyvault beside the checkout")
    exchanges: list[dict[str, Any]] = json.loads((RECORDINGS / name).read_text())["exchanges"]
    return exchanges


def fill(server: KeyVaultServer, exchanges: list[dict[str, Any]]) -> None:
    """Puts in what the recorded vault held before: all that its lists show and no recorded request made.

    In reverse, so that the order of the lists is the stand-in's doing.
    """
    made = {each["request"]["path"].split("/")[2] for each in exchanges if each["request"]["method"] == "PUT"}
    items = [item for _, page in _pages(exchanges) for item in page]
    for item in reversed(items):
        name = item["id"].rpartition("/")[2]
        if name not in made:
            server.vault.seed(_entry(name, item))


def _entry(name: str, item: dict[str, Any]) -> Entry:
    attributes = item["attributes"]
    version = Version(
        id="0" * 32,
        value="not recorded",
        created=attributes["created"],
        updated=attributes["updated"],
        enabled=attributes["enabled"],
        not_before=attributes.get("nbf"),
        expires=attributes.get("exp"),
        content_type=item.get("contentType"),
        tags=item.get("tags"),
    )
    deleted_at = item.get("deletedDate")
    state = State.DELETED if deleted_at else State.ACTIVE
    return Entry(name, (version,), managed=item.get("managed", False), state=state, deleted_at=deleted_at)


def plan_pages(server: KeyVaultServer, exchanges: list[dict[str, Any]]) -> None:
    """Gives each list the page sizes that the service happened to choose, short and empty ones included."""
    sizes: dict[str, list[int]] = {}
    for path, page in _pages(exchanges):
        sizes.setdefault(path, []).append(len(page))
    for path, planned in sizes.items():
        server.control.plan_pages(path, planned)


def _pages(exchanges: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The pages of lists in a recording: the path of the list and the items."""
    for exchange in exchanges:
        body = exchange["response"]["body"]
        if isinstance(body, dict) and "nextLink" in body:
            yield exchange["request"]["path"], body["value"]


def session_for(server: KeyVaultServer) -> requests.Session:
    """A plain client that trusts the stand-in, whatever certificates the environment names."""
    session = requests.Session()
    session.trust_env = False
    session.verify = server.ca
    return session


def replay(name: str) -> tuple[int, list[str]]:
    exchanges = load(name)
    clock = SetClock()
    clock.seconds = min(_time_of(each["response"]["body"]) or clock.seconds for each in exchanges)
    with KeyVaultServer(now=clock.now, settings=SLOWNESS[name]) as server, session_for(server) as session:
        fill(server, exchanges)
        plan_pages(server, exchanges)
        return Replay(server, session, exchanges).run(clock)


def test_every_recorded_exchange_is_answered_as_the_service_answered_it() -> None:
    """Status, headers, keys, types, values, error codes and order agree in every exchange of every recording."""
    compared = {}
    problems = {}
    for name in EXCHANGES:
        compared[name], problems[name] = replay(name)
    print(f"compared {sum(compared.values())} exchanges: {compared}")
    assert problems == {name: [] for name in EXCHANGES}
    assert compared == EXCHANGES
    assert sum(compared.values()) == 42


def test_there_is_no_recording_that_the_replay_does_not_know() -> None:
    """A recording added to the contract is not passed over."""
    if RECORDINGS is None:
        pytest.skip("no recordings of the real service: there is no */contracts/keyvault beside the checkout")
    assert {path.name for path in RECORDINGS.glob("*.json")} == set(EXCHANGES)


RECORDED = Answer(
    200,
    {"Content-Type": "application/json; charset=utf-8", "x-ms-keyvault-service-version": "1.9.3070.1"},
    {
        "value": [
            {"id": "a", "attributes": {"enabled": True, "created": 1774470963}},
            {"id": "b", "attributes": {"enabled": True, "created": 1774470963}},
        ],
        "nextLink": None,
    },
)


def _change(change: Callable[[Any], object]) -> Answer:
    body = copy.deepcopy(RECORDED.body)
    change(body)
    return Answer(RECORDED.status, RECORDED.headers, body)


@pytest.mark.parametrize(
    ("live", "report"),
    [
        (_change(lambda body: body.pop("nextLink")), "body.nextLink: missing"),
        (_change(lambda body: body.update(more=1)), "body.more: not in the recording"),
        (_change(lambda body: body.update(nextLink="")), "body.nextLink: str instead of NoneType"),
        (_change(lambda body: body["value"].reverse()), "body.value[0].id: 'b' instead of 'a'"),
        (_change(lambda body: body["value"].pop()), "body.value: 1 items instead of 2"),
        (
            _change(lambda body: body["value"][1]["attributes"].update(created=1774470963.5)),
            "body.value[1].attributes.created: float instead of int",
        ),
        (
            _change(lambda body: body["value"][0]["attributes"].update(enabled=1)),
            "body.value[0].attributes.enabled: int instead of bool",
        ),
        (Answer(404, RECORDED.headers, RECORDED.body), "status: 404 instead of 200"),
        (
            Answer(200, {**RECORDED.headers, "Content-Type": "application/json"}, RECORDED.body),
            "header Content-Type: 'application/json' instead of 'application/json; charset=utf-8'",
        ),
        (
            Answer(200, {"Content-Type": "application/json; charset=utf-8"}, RECORDED.body),
            "header x-ms-keyvault-service-version: None instead of '1.9.3070.1'",
        ),
        (
            Answer(200, {**RECORDED.headers, "WWW-Authenticate": "Bearer"}, RECORDED.body),
            "header WWW-Authenticate: 'Bearer' instead of None",
        ),
    ],
)
def test_the_comparison_reports_what_is_wrong(live: Answer, report: str) -> None:
    """Each kind of deviation is found, named and the only thing reported."""
    first = differences(RECORDED, live)[0]
    assert first == report


def test_the_comparison_accepts_what_is_right() -> None:
    """An answer agrees with itself, whatever build of the service made it."""
    headers = {**RECORDED.headers, "x-ms-keyvault-service-version": "1.9.9999.0", "Date": "today"}
    assert differences(RECORDED, Answer(200, headers, RECORDED.body)) == []


def test_a_stand_in_that_deviates_fails_the_replay() -> None:
    """The replay as a whole can fail: without the recorded slowness, two polls are answered too early."""
    exchanges = load("secret_crud_operations.json")
    clock = SetClock()
    with KeyVaultServer(now=clock.now) as server, session_for(server) as session:
        _, problems = Replay(server, session, exchanges).run(clock)
    assert "exchange 6: status: 200 instead of 404" in problems
