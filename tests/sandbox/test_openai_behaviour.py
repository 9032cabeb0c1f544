"""How the OpenAI stand-in behaves where a schema says nothing: time, refusals, lost answers, restarts, secrecy."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from sandbox.clock import SandboxClock, real_time
from sandbox.openai.harness import ControlClient, OpenAIServer
from sandbox.openai.server import ADMIN_KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]


class Clock:
    """Stands still until told; starts on a whole minute, so that limits are easy to foretell."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> None:
        self.at += timedelta(**by)

    @property
    def seconds(self) -> int:
        return int(self.at.timestamp())


class Client:
    """A caller of the stand-in, with one key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url
        self._headers = {"Authorization": f"Bearer {key}"}

    def __call__(self, method: str, path: str, body: Json | None = None, /, **query: Any) -> requests.Response:
        return requests.request(method, self._url + path, json=body, params=query, headers=self._headers, timeout=10)

    def chat(self, content: str = "ping") -> requests.Response:
        prompt = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
        return self("POST", "/chat/completions", prompt)


class World:
    """A server, its clock, its admin, and a project with one service account."""

    def __init__(self, server: OpenAIServer, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self.control = server.control
        self.admin = Client(server.base_url, server.admin_key)
        self.project = self.admin("POST", "/organization/projects", {"name": "Support"}).json()["id"]
        self.project_url = f"/organization/projects/{self.project}"
        account = self.admin("POST", f"{self.project_url}/service_accounts", {"name": "api"}).json()
        self.account_url = f"{self.project_url}/service_accounts/{account['id']}"

    def mint(self, name: str = "key", **more: Any) -> Json:
        answer = self.admin("POST", f"{self.account_url}/api_keys", {"name": name, **more})
        assert answer.ok, answer.text
        return dict(answer.json())

    def user_of(self, minted: Json) -> Client:
        return Client(self.server.base_url, minted["value"])

    def delete(self, minted: Json) -> requests.Response:
        return self.admin("DELETE", f"{self.project_url}/api_keys/{minted['id']}")

    def listed(self, **query: Any) -> list[Json]:
        return list(self.admin("GET", f"{self.project_url}/api_keys", limit=100, **query).json()["data"])


@pytest.fixture
def world() -> Iterator[World]:
    clock = Clock()
    with OpenAIServer(now=clock) as server:
        yield World(server, clock)


def code_of(answer: requests.Response) -> tuple[int, str | None]:
    """Status and error code; that the error has all four fields is checked on the way."""
    if answer.ok:
        return answer.status_code, None
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


REFUSED = (401, "invalid_api_key")


class TestAuthentication:
    def test_a_key_logs_in_to_the_data_plane_only(self, world: World) -> None:
        """A project key lists models and chats; the administration refuses it without calling it invalid."""
        user = world.user_of(world.mint())
        assert user("GET", "/models").ok
        assert user.chat().ok
        assert code_of(user("GET", "/organization/projects")) == (403, None)

    def test_an_admin_key_does_not_chat(self, world: World) -> None:
        """The admin key is good for the administration alone."""
        assert code_of(world.admin.chat()) == (401, None)

    def test_no_key_and_a_wrong_key(self, world: World) -> None:
        """Only a key that was presented can be invalid; the refusal repeats no more of it than its end."""
        url = f"{world.server.base_url}/models"
        assert code_of(requests.get(url, timeout=10)) == (401, None)
        wrong = "sk-svcacct-" + "x" * 40 + "last"
        answer = Client(world.server.base_url, wrong)("GET", "/models")
        assert code_of(answer) == REFUSED
        assert "sk-svcacct-****last" in answer.text
        assert "xx" not in answer.text

    def test_a_revoked_key_is_refused_and_the_others_of_its_account_are_not(self, world: World) -> None:
        """Deleting one key of a service account leaves its other keys alone; deleting it again finds nothing."""
        first, second = world.mint(), world.mint()
        assert world.delete(first).ok
        assert code_of(world.user_of(first)("GET", "/models")) == REFUSED
        assert world.user_of(second)("GET", "/models").ok
        assert code_of(world.delete(first)) == (404, None)
        assert first["id"] not in [key["id"] for key in world.listed()]

    def test_the_older_refusal_to_delete_a_service_accounts_key(self, world: World) -> None:
        """When told so the stand-in answers 400, and the key lives until its account is deleted."""
        minted = world.mint()
        world.control.configure(deny_service_account_key_delete=True)
        assert code_of(world.delete(minted)) == (400, None)
        assert world.user_of(minted)("GET", "/models").ok
        assert world.admin("DELETE", world.account_url).ok
        assert code_of(world.user_of(minted)("GET", "/models")) == REFUSED

    def test_archiving_a_project_ends_its_keys(self, world: World) -> None:
        """Nothing of an archived project logs in, and nothing new can be made in it."""
        minted = world.mint()
        assert world.admin("POST", f"{world.project_url}/archive").ok
        assert code_of(world.user_of(minted)("GET", "/models")) == REFUSED
        assert code_of(world.admin("POST", f"{world.project_url}/service_accounts", {"name": "x"})) == (400, None)

    def test_scopes_narrow_a_key(self, world: World) -> None:
        """A key without api.model.read may chat yet not list models, and is not called invalid for it."""
        user = world.user_of(world.mint(scopes=["api.model.request"]))
        assert code_of(user("GET", "/models")) == (403, None)
        assert user.chat().ok

    def test_an_account_without_a_role(self, world: World) -> None:
        """Its keys are accepted but may do nothing, and only a list that asks for them shows them."""
        bare = {"name": "bare", "create_service_account_only": True}
        account = world.admin("POST", f"{world.project_url}/service_accounts", bare).json()
        assert account["api_key"] is None
        url = f"{world.project_url}/service_accounts/{account['id']}"
        minted = world.admin("POST", f"{url}/api_keys").json()
        assert code_of(world.user_of(minted).chat()) == (401, None)
        assert minted["id"] not in [key["id"] for key in world.listed()]
        for access in ("inactive", "any"):
            assert minted["id"] in [key["id"] for key in world.listed(owner_project_access=access)]
        assert world.admin("POST", url, {"role": "member"}).ok
        assert world.user_of(minted).chat().ok
        assert minted["id"] in [key["id"] for key in world.listed()]

    def test_the_ip_allowlist_refuses_without_calling_the_key_invalid(self, world: World) -> None:
        """From an address that is not listed a good key gets 401 with another code; administration goes on."""
        user = world.user_of(world.mint())
        world.control.configure(ip_allowlist=["192.0.2.0/24"])
        assert code_of(user("GET", "/models")) == (401, "ip_not_authorized")
        assert world.mint()
        world.control.configure(ip_allowlist=["127.0.0.0/8"])
        assert user("GET", "/models").ok
        world.control.configure(ip_allowlist=None)
        assert user("GET", "/models").ok

    def test_admin_keys_come_and_go(self, world: World) -> None:
        """A second admin key administers until it is deleted; a delete of the first by the second holds as well."""
        made = world.admin("POST", "/organization/admin_api_keys", {"name": "second"}).json()
        second = Client(world.server.base_url, made["value"])
        (first, _) = second("GET", "/organization/admin_api_keys").json()["data"]
        assert second("DELETE", f"/organization/admin_api_keys/{first['id']}").ok
        assert code_of(world.admin("GET", "/organization/projects")) == REFUSED
        (left,) = second("GET", "/organization/admin_api_keys").json()["data"]
        assert left["id"] == made["id"]
        assert left["last_used_at"] == world.clock.seconds


class TestTime:
    def test_propagation_of_create_and_revoke(self, world: World) -> None:
        """A fresh key is refused, and a deleted one accepted, for the delay that was set when it happened."""
        world.control.configure(create_delay=30, revoke_delay=60)
        minted = world.mint()
        user = world.user_of(minted)
        world.control.configure(create_delay=0)
        assert code_of(user("GET", "/models")) == REFUSED
        world.clock.move(seconds=29)
        assert code_of(user("GET", "/models")) == REFUSED
        world.clock.move(seconds=1)
        assert user("GET", "/models").ok
        world.delete(minted)
        world.clock.move(seconds=59)
        assert user("GET", "/models").ok
        world.clock.move(seconds=1)
        assert code_of(user("GET", "/models")) == REFUSED

    def test_expiry(self, world: World) -> None:
        """A key with a lifetime is refused from its last second on, and says so in the list."""
        minted = world.mint(expires_in_seconds=120)
        assert minted["expires_at"] == world.clock.seconds + 120
        world.clock.move(seconds=119)
        assert world.user_of(minted)("GET", "/models").ok
        world.clock.move(seconds=1)
        assert code_of(world.user_of(minted)("GET", "/models")) == REFUSED
        (listed,) = [key for key in world.listed() if key["id"] == minted["id"]]
        assert listed["expires_at"] == world.clock.seconds

    @pytest.mark.parametrize("seconds", [0, -1, 31_536_001, "60", True])
    def test_lifetimes_out_of_bounds(self, world: World, seconds: object) -> None:
        """Less than a second, more than a year, and what is not a number are refused with the parameter's name."""
        answer = world.admin("POST", f"{world.account_url}/api_keys", {"expires_in_seconds": seconds})
        assert code_of(answer) == (400, "invalid_value")
        assert answer.json()["error"]["param"] == "expires_in_seconds"

    def test_last_use(self, world: World) -> None:
        """A key's last use is null, then the time of its newest accepted call; refused calls and reading do not count."""
        minted = world.mint()

        def last_used() -> object:
            return world.admin("GET", f"{world.project_url}/api_keys/{minted['id']}").json()["last_used_at"]

        assert last_used() is None
        world.clock.move(hours=1)
        world.user_of(minted).chat()
        used_at = world.clock.seconds
        assert last_used() == used_at
        world.clock.move(hours=1)
        world.control.configure(ip_allowlist=[])
        world.user_of(minted).chat()
        assert last_used() == used_at

    def test_usage_by_key(self, world: World) -> None:
        """Chats are counted by key in hours; listing models is not; filters and pages cut the report."""
        first, second = world.mint(), world.mint()
        start = world.clock.seconds
        for _ in range(3):
            world.user_of(first).chat()
        world.user_of(first)("GET", "/models")
        world.clock.move(hours=2)
        world.user_of(second).chat()
        world.clock.move(minutes=1)

        def report(**query: Any) -> Json:
            given = {"start_time": start, "bucket_width": "1h", **query}
            return dict(world.admin("GET", "/organization/usage/completions", **given).json())

        def counts(page: Json) -> list[list[tuple[str | None, int]]]:
            buckets = [bucket["results"] for bucket in page["data"]]
            return [[(entry["api_key_id"], entry["num_model_requests"]) for entry in results] for results in buckets]

        assert counts(report(group_by=["api_key_id"])) == [[(first["id"], 3)], [], [(second["id"], 1)]]
        assert counts(report()) == [[(None, 3)], [], [(None, 1)]]
        only = report(**{"group_by[]": ["api_key_id"], "api_key_ids[]": [second["id"]]})
        assert counts(only) == [[], [], [(second["id"], 1)]]
        page = report(limit=2)
        assert page["has_more"]
        rest = report(limit=2, page=page["next_page"])
        assert counts(page) + counts(rest) == counts(report())
        assert not rest["has_more"]

    def test_audit_log(self, world: World) -> None:
        """Keys and accounts leave events, newest first, that filters and cursors find again."""
        minted = world.mint()
        world.clock.move(minutes=5)
        world.delete(minted)
        log = "/organization/audit_logs"
        of_key = world.admin("GET", log, **{"resource_ids[]": minted["id"]}).json()["data"]
        assert [event["type"] for event in of_key] == ["api_key.deleted", "api_key.created"]
        assert of_key[0]["effective_at"] - of_key[1]["effective_at"] == 300
        assert of_key[0]["api_key.deleted"] == {"id": minted["id"]}
        recent = world.admin("GET", log, **{"effective_at[gt]": of_key[1]["effective_at"]}).json()["data"]
        assert recent == of_key[:1]
        created = world.admin("GET", log, **{"event_types[]": ["service_account.created"]}).json()["data"]
        assert len(created) == 1
        everything = world.admin("GET", log).json()["data"]
        second_page = world.admin("GET", log, limit=2, after=everything[1]["id"]).json()
        assert second_page["data"] == everything[2:4]
        assert world.admin("GET", log, limit=2, before=everything[3]["id"]).json()["data"] == everything[1:3]


class TestPages:
    def test_forty_five_keys_in_pages(self, world: World) -> None:
        """Pages of 20 give every key once, in order, even when the cursor's key is deleted in between."""
        minted = [world.mint(f"key-{number:02}") for number in range(44)]  # the account came with the first
        seen: list[str] = []
        sizes: list[int] = []
        after: Json = {}
        more = True
        while more:
            page = world.admin("GET", f"{world.project_url}/api_keys", limit=20, **after).json()
            seen += [key["id"] for key in page["data"]]
            sizes.append(len(page["data"]))
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            after = {"after": page["last_id"]}
            more = page["has_more"]
            if len(sizes) == 1:
                world.admin("DELETE", f"{world.project_url}/api_keys/{page['last_id']}")
        assert sizes == [20, 20, 5]
        assert seen[1:] == [key["id"] for key in minted]

    def test_the_default_page_has_twenty(self, world: World) -> None:
        """Without a limit a page has 20 entries, and says that there are more."""
        for _ in range(20):
            world.mint()
        page = world.admin("GET", f"{world.project_url}/api_keys").json()
        assert (len(page["data"]), page["has_more"]) == (20, True)

    def test_an_empty_page(self, world: World) -> None:
        """A project without keys has an empty list with no ids."""
        empty = world.admin("POST", "/organization/projects", {"name": "Empty"}).json()["id"]
        page = world.admin("GET", f"/organization/projects/{empty}/api_keys").json()
        assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    @pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "ten"}, {"after": "key_unknown"}])
    def test_refused_pages(self, world: World, query: Json) -> None:
        """Limits outside 1..100 and unknown cursors are refused with the parameter's name."""
        answer = world.admin("GET", f"{world.project_url}/api_keys", **query)
        assert code_of(answer) == (400, "invalid_value")
        assert [answer.json()["error"]["param"]] == list(query)


class TestTrouble:
    def test_a_request_that_is_lost_on_the_way_has_no_effect(self, world: World) -> None:
        """Dropped before: the caller sees the connection end, and no key was made."""
        before = len(world.listed())
        world.control.fault("POST", "/v1/organization/projects/*/service_accounts/*/api_keys")
        with pytest.raises(requests.ConnectionError):
            world.mint()
        assert len(world.listed()) == before
        assert world.mint()

    def test_an_answer_that_is_lost_on_the_way_has_its_effect(self, world: World) -> None:
        """Dropped after: the caller sees the same, and the key is there."""
        world.control.fault("POST", "/v1/organization/projects/*/service_accounts/*/api_keys", when="after")
        with pytest.raises(requests.ConnectionError):
            world.mint("lost")
        assert [key["name"] for key in world.listed()] == ["Secret Key", "lost"]
        assert world.control.requests()[-2]["dropped"]

    def test_failures_by_status(self, world: World) -> None:
        """The next n matching calls fail as told, others do not; what fails after it took effect has taken effect."""
        world.control.fault("GET", "/v1/models", times=2, status=503, retry_after=7)
        user = world.user_of(world.mint())
        answers = [user("GET", "/models") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert answers[0].headers["Retry-After"] == "7"
        assert code_of(answers[0]) == (503, None)
        assert user.chat().ok
        world.control.fault("DELETE", "/v1/organization/projects/*/api_keys/*", when="after", status=500)
        minted = world.mint()
        assert code_of(world.delete(minted)) == (500, None)
        assert code_of(world.delete(minted)) == (404, None)

    def test_rate_limit(self, world: World) -> None:
        """Beyond the limit comes 429 with the seconds to wait, and after them the calls go through again."""
        user = world.user_of(world.mint())
        world.control.configure(data_requests_per_minute=2)
        world.clock.move(minutes=1, seconds=15)
        served = [user.chat(), user.chat()]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in served] == ["1", "0"]
        assert served[0].headers["x-ratelimit-reset-requests"] == "45s"
        refused = user.chat()
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "45"
        assert world.listed()  # the administration has a limit of its own
        world.clock.move(seconds=45)
        assert user.chat().ok

    def test_every_answer_can_be_asked_about(self, world: World) -> None:
        """Refusals too carry a request id, which the log has, and the time they took."""
        answer = Client(world.server.base_url, "sk-wrong")("GET", "/models")
        assert answer.headers["openai-processing-ms"].isdecimal()
        assert world.control.requests()[-1]["request_id"] == answer.headers["x-request-id"]
        assert code_of(world.admin("GET", "/organization/nothing")) == (404, None)
        assert world.control.requests()[-1]["path"] == "/v1/organization/nothing"

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({}, (400, "missing_required_parameter")),
            ({"name": ""}, (400, "invalid_value")),
            ({"name": 7}, (400, "invalid_value")),
            ({"name": "x", "rolle": "member"}, (400, "unknown_parameter")),
        ],
    )
    def test_bodies_out_of_shape(self, world: World, body: Json, error: tuple[int, str]) -> None:
        """Missing, mistyped and misspelt fields are refused, each with its code."""
        assert code_of(world.admin("POST", f"{world.project_url}/service_accounts", body)) == error

    def test_concurrent_calls_are_all_counted(self, world: World) -> None:
        """Threads that use one key at once lose no count."""
        user = world.user_of(world.mint())
        threads = [threading.Thread(target=lambda: [user.chat() for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        usage = world.admin("GET", "/organization/usage/completions", start_time=world.clock.seconds).json()
        assert usage["data"][0]["results"][0]["num_model_requests"] == 40
        assert world.control.counters()["data"] == {"200": 40}


class TestControlPlane:
    def test_ground_truth_about_keys(self, world: World) -> None:
        """It tells which values log in now, a person's own key and revoked keys included."""
        minted = world.mint("mine")
        person = world.control.create_user_key(world.project, "of a person")
        world.delete(minted)
        accepted = {key["name"]: key["accepted"] for key in world.control.issued()}
        assert accepted == {"First admin key": True, "Secret Key": True, "mine": False, "of a person": True}
        assert world.user_of(person).chat().ok
        (listed,) = [key for key in world.listed() if key["id"] == person["id"]]
        assert listed["owner"]["type"] == "user"

    def test_the_log_names_refused_keys(self, world: World) -> None:
        """A revoked key is still known by its id, so that a leak in use can be traced."""
        minted = world.mint()
        world.delete(minted)
        world.user_of(minted).chat()
        entry = world.control.requests()[-1]
        assert (entry["status"], entry["key_id"], entry["path"]) == (401, minted["id"], "/v1/chat/completions")

    def test_reset_keeps_the_organization(self, world: World) -> None:
        """Settings, faults, log and counters go; keys stay."""
        user = world.user_of(world.mint())
        world.control.configure(revoke_delay=60)
        world.control.fault("GET", "/v1/models", status=500)
        world.control.reset()
        assert world.control.settings()["revoke_delay"] == 0
        assert world.control.requests() == []
        assert user("GET", "/models").ok

    @pytest.mark.parametrize("changes", [{"revok_delay": 1}, {"revoke_delay": -1}, {"ip_allowlist": ["x"]}])
    def test_mistaken_settings_are_refused(self, world: World, changes: Json) -> None:
        """A typing error in a test does not pass for a setting."""
        with pytest.raises(ValueError, match="refused"):
            world.control.configure(**changes)

    def test_it_is_not_part_of_the_api(self, world: World) -> None:
        """Nothing under /v1 leads to the control plane."""
        assert code_of(world.admin("GET", "/_sandbox/keys")) == (404, None)


class TestSecrecy:
    def test_values_are_kept_nowhere(self, tmp_path: Path) -> None:
        """No value that was ever issued or presented, and no prompt, is in the state file, the log or a list."""
        state = tmp_path / "state.sqlite"
        with OpenAIServer(state=state) as server:
            world = World(server, Clock())
            minted = world.mint()
            world.user_of(minted).chat("a secret prompt")
            world.admin("DELETE", f"{world.project_url}/api_keys/{minted['value']}")
            Client(server.base_url, "sk-never-issued-0123456789")("GET", "/models")
            admin = world.admin("POST", "/organization/admin_api_keys", {"name": "second"}).json()
            answers = [
                world.admin("GET", f"{world.project_url}/api_keys").text,
                world.admin("GET", "/organization/admin_api_keys").text,
                world.admin("GET", "/organization/audit_logs").text,
                json.dumps(server.control.requests()),
                json.dumps(server.control.issued()),
            ]
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + "".join(answers).encode()
        values = [server.admin_key, minted["value"], admin["value"], "sk-never-issued-0123456789", "a secret prompt"]
        for value in values:
            assert value.encode() not in kept
        assert minted["id"].encode() in kept

    def test_the_answer_repeats_nothing_of_the_prompt(self, world: World) -> None:
        """The canned reply is the same whatever was asked."""
        user = world.user_of(world.mint())
        replies = {user.chat(content).json()["choices"][0]["message"]["content"] for content in ("one", "two")}
        assert len(replies) == 1


@contextmanager
def process(directory: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server as the sandbox starts it: its root URL, empty when it ended instead, and the process."""
    command = [sys.executable, "-m", "sandbox.openai.server"]
    command += ["--state", str(directory / "state.sqlite"), "--clock", str(directory / "clock.json")]
    started = subprocess.Popen(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        ready = started.stdout.readline()
        yield (f"http://127.0.0.1:{json.loads(ready)['port']}" if ready else "", started)
    finally:
        started.kill()
        started.communicate()


class TestProcess:
    def test_state_survives_a_kill_and_a_restart(self, tmp_path: Path) -> None:
        """Projects, keys, uses, and delays under way outlive the process; the admin key is needed only once."""
        admin_key = "sk-admin-" + "a" * 40
        clock = SandboxClock(tmp_path / "clock.json")
        with process(tmp_path, **{ADMIN_KEY_VARIABLE: admin_key}) as (root, _):
            admin = Client(f"{root}/v1", admin_key)
            project = admin("POST", "/organization/projects", {"name": "Support"}).json()["id"]
            url = f"/organization/projects/{project}"
            control = ControlClient(root)
            control.configure(create_delay=3600)
            key = admin("POST", f"{url}/service_accounts", {"name": "api"}).json()["api_key"]
            control.close()
        with process(tmp_path) as (root, started):
            admin, user = Client(f"{root}/v1", admin_key), Client(f"{root}/v1", key["value"])
            assert code_of(user.chat()) == REFUSED
            clock.move(timedelta(hours=1))
            assert user.chat().ok
            (listed,) = admin("GET", f"{url}/api_keys").json()["data"]
            assert listed["id"] == key["id"]
            assert abs(listed["last_used_at"] - clock.now().timestamp()) < 60
            started.send_signal(signal.SIGTERM)
            _, complaints = started.communicate(timeout=10)
            assert (started.returncode, complaints) == (0, "")

    def test_a_new_state_needs_the_admin_key(self, tmp_path: Path) -> None:
        """Without it the process says what to set and ends with 2."""
        with process(tmp_path) as (root, started):
            assert root == ""
            _, complaints = started.communicate(timeout=10)
            assert started.returncode == 2
            assert ADMIN_KEY_VARIABLE in complaints

    def test_a_foreign_state_is_refused(self, tmp_path: Path) -> None:
        """Another admin key than the state's is a mix-up, and is not named in the complaint."""
        with OpenAIServer(state=tmp_path / "state.sqlite"):
            pass
        with process(tmp_path, **{ADMIN_KEY_VARIABLE: "sk-admin-another"}) as (root, started):
            assert root == ""
            _, complaints = started.communicate(timeout=10)
            assert started.returncode == 2
            assert "sk-admin-another" not in complaints

    def test_it_listens_on_this_machine_only(self, world: World) -> None:
        """The port is bound to 127.0.0.1; other addresses of the machine's own loopback do not answer."""
        port = int(world.server.base_url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=1).close()


class TestClock:
    def test_a_missing_file_means_real_time(self, tmp_path: Path) -> None:
        """Without a file nothing is added."""
        assert abs(SandboxClock(tmp_path / "clock.json").now() - real_time()) < timedelta(seconds=5)

    def test_moves_are_seen_by_every_reader(self, tmp_path: Path) -> None:
        """Another clock over the same file follows each move, and they add up."""
        path = tmp_path / "sub" / "clock.json"
        mover, reader = SandboxClock(path), SandboxClock(path)
        for moved in (1, 2):
            mover.move(timedelta(days=1))
            assert abs(reader.now() - real_time() - timedelta(days=moved)) < timedelta(seconds=5)
        assert list(path.parent.iterdir()) == [path]

    def test_it_is_read_again_only_when_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asking a thousand times reads the file once."""
        clock = SandboxClock(tmp_path / "clock.json")
        clock.move(timedelta(seconds=1))
        clock.now()
        monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("read again"))
        for _ in range(1000):
            clock.now()

    def test_it_never_goes_back(self, tmp_path: Path) -> None:
        """A negative move is refused and changes nothing."""
        clock = SandboxClock(tmp_path / "clock.json")
        with pytest.raises(ValueError, match="only moves forward"):
            clock.move(timedelta(seconds=-1))
        assert list(tmp_path.iterdir()) == []
