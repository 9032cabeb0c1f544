"""The real OpenBao server: what its two AppRoles may do and may not, what it writes down, and that it ends."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import hvac
import hvac.exceptions
import pytest
import requests

from sandbox import openbao, tls
from sandbox.home import SandboxError
from sandbox.openbao import CONSUMER_POLICY, KEYTURN_POLICY, OpenBaoServer
from sandbox.processes import free_port, wait_until

CANARY = "canary-4c7e-value"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as running:
        yield running


def call(
    server: OpenBaoServer, token: str, method: str, path: str, body: object = None, *, merge: bool = False
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(server.ca)
        headers = {"X-Vault-Token": token}
        if merge:
            headers["Content-Type"] = "application/merge-patch+json"
        data = None if body is None else json.dumps(body)
        return session.request(method, f"{server.address}/v1/{path}", data=data, headers=headers, timeout=10)


def logged_in(server: OpenBaoServer, policy: str) -> str:
    role_id, secret_id = server.approle(policy)
    client = hvac.Client(url=server.address, verify=str(server.ca))
    token: str = client.auth.approle.login(role_id, secret_id)["auth"]["client_token"]
    client.adapter.close()
    return token


def write(server: OpenBaoServer, path: str) -> None:
    answer = call(server, server.root_token, "POST", f"secret/data/{path}", {"data": {"value": CANARY}})
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def keyturn(server: OpenBaoServer) -> str:
    return logged_in(server, KEYTURN_POLICY)


@pytest.fixture(scope="module")
def consumer(server: OpenBaoServer) -> str:
    return logged_in(server, CONSUMER_POLICY)


def test_keyturn_may_do_all_that_a_store_needs(server: OpenBaoServer, keyturn: str) -> None:
    """Each operation on entries, versions and metadata is allowed to the role `keyturn`."""
    entry, value = "sandbox/support-copilot-chat", {"data": {"value": CANARY}}
    operations: list[tuple[str, str, object, bool, int]] = [
        ("POST", f"secret/data/{entry}", {**value, "options": {"cas": 0}}, False, 200),
        ("POST", f"secret/data/{entry}", value, False, 200),
        ("PATCH", f"secret/data/{entry}", value, True, 200),
        ("GET", f"secret/data/{entry}?version=1", None, False, 200),
        ("POST", f"secret/metadata/{entry}", {"max_versions": 20}, False, 204),
        ("PATCH", f"secret/metadata/{entry}", {"custom_metadata": {"owner": "a"}}, True, 204),
        ("GET", f"secret/metadata/{entry}", None, False, 200),
        ("LIST", "secret/metadata/", None, False, 200),
        ("LIST", "secret/metadata/sandbox", None, False, 200),
        ("LIST", "secret/detailed-metadata/sandbox", None, False, 200),
        ("POST", f"secret/delete/{entry}", {"versions": [1]}, False, 204),
        ("POST", f"secret/undelete/{entry}", {"versions": [1]}, False, 204),
        ("POST", f"secret/destroy/{entry}", {"versions": [1]}, False, 204),
        ("DELETE", f"secret/metadata/{entry}", None, False, 204),
        ("GET", "auth/token/lookup-self", None, False, 200),
        ("POST", "auth/token/renew-self", {}, False, 200),
    ]
    for method, path, body, merge, expected in operations:
        answer = call(server, keyturn, method, path, body, merge=merge)
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "secret/data/sandbox/anything-else"),
        ("GET", "secret/config"),
        ("POST", "secret/config"),
        ("GET", "sys/mounts"),
        ("POST", "sys/mounts/other"),
        ("GET", "sys/policies/acl/keyturn"),
        ("PUT", "sys/policies/acl/keyturn"),
        ("GET", "sys/audit"),
        ("GET", "sys/auth"),
        ("PUT", "sys/seal"),
        ("GET", "sys/raw/core/keyring"),
        ("GET", "cubbyhole/anything"),
        ("POST", "auth/token/create"),
        ("LIST", "auth/approle/role"),
        ("POST", "auth/approle/role/keyturn/secret-id"),
        ("GET", "identity/entity/id"),
        ("GET", "elsewhere/data/x"),
    ],
)
@pytest.mark.parametrize("role", ["keyturn", "consumer"])
def test_nothing_else_is_allowed(
    server: OpenBaoServer, keyturn: str, consumer: str, role: str, method: str, path: str
) -> None:
    """The system, other mounts, the engine's configuration and other tokens are out of reach for both roles."""
    call(server, server.root_token, "POST", "sys/mounts/elsewhere", {"type": "kv", "options": {"version": "2"}})
    token = keyturn if role == "keyturn" else consumer
    assert call(server, token, method, path, None if method in ("GET", "LIST") else {}).status_code == 403


def test_a_consumer_reads_its_environment_only(server: OpenBaoServer, consumer: str) -> None:
    """Entries of the sandbox's environment can be read, not written, listed or described; others not even read."""
    write(server, "sandbox/rag-worker-01")
    write(server, "prod/rag-worker-01")
    assert call(server, consumer, "GET", "secret/data/sandbox/rag-worker-01").json()["data"]["data"]["value"] == CANARY
    for method, path in [
        ("GET", "secret/data/prod/rag-worker-01"),
        ("GET", "secret/metadata/sandbox/rag-worker-01"),
        ("LIST", "secret/metadata/sandbox"),
        ("DELETE", "secret/metadata/sandbox/rag-worker-01"),
    ]:
        assert call(server, consumer, method, path).status_code == 403, f"{method} {path}"
    answer = call(server, consumer, "POST", "secret/data/sandbox/rag-worker-01", {"data": {"value": "x"}})
    assert answer.status_code == 403


def test_the_audit_log_names_requests_and_hides_values(server: OpenBaoServer) -> None:
    """Every request leaves a line in the declared file device; values and tokens in it are HMACed."""
    write(server, "sandbox/audited-entry")
    log = server.audit_log.read_text()
    assert "secret/data/sandbox/audited-entry" in log
    assert CANARY not in log
    assert server.root_token not in log
    assert server.audit_log.stat().st_mode & 0o077 == 0


def test_a_harness_token_has_the_given_policy_alone(server: OpenBaoServer) -> None:
    """`token()` can do what its policy says and nothing more."""
    write(server, "sandbox/some-entry")
    token = server.token('path "secret/data/sandbox/some-entry" { capabilities = ["read"] }')
    assert call(server, token, "GET", "secret/data/sandbox/some-entry").status_code == 200
    assert call(server, token, "GET", "auth/token/lookup-self").status_code == 403


def test_the_server_is_known_by_its_own_authority_only(server: OpenBaoServer, tmp_path: Path) -> None:
    """Another sandbox's CA does not vouch for it, and without a CA nobody does."""
    assert openbao.answers(server.address, server.ca)
    assert not openbao.answers(server.address, tls.authority(tmp_path))
    assert not openbao.answers(server.address, tmp_path / "missing.pem")


def test_it_is_gone_when_the_block_ends() -> None:
    """The throw-away server leaves no process and no file."""
    with OpenBaoServer() as server:
        directory, pid = server.ca.parent, server._process.pid
        os.kill(pid, 0)
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class Persistent:
    """The persistent configuration, run without the supervisor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = tls.authority(directory)

    def __enter__(self) -> Self:
        port = free_port()
        self.address = f"https://127.0.0.1:{port}"
        openbao.configure(self.directory, authority=self.directory, port=port)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(openbao.command(self.directory), env={}, stdout=log, stderr=log)
        assert wait_until(lambda: openbao.answers(self.address, self.ca), 15)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def provision(self) -> dict[str, openbao.AppRole]:
        return openbao.provision(self.directory, self.address, self.ca)


def test_roles_outlive_restarts_and_heal(tmp_path: Path) -> None:
    """A restart on another port unseals by itself and keeps ids; a lost secret id is replaced; a lost root token is told."""
    with Persistent(tmp_path) as server:
        first = server.provision()
        assert server.provision() == first
    with Persistent(tmp_path) as server:
        assert server.provision() == first
        (tmp_path / "keyturn.secret-id").write_text("unknown")
        healed = server.provision()
        assert healed["keyturn"].role_id == first["keyturn"].role_id
        assert healed["keyturn"].secret_id not in (first["keyturn"].secret_id, "unknown")
        assert healed["consumer"] == first["consumer"]
        assert healed["keyturn"].secret_id not in repr(healed)
        (tmp_path / "root-token").unlink()
        with pytest.raises(SandboxError, match="sandbox reset"):
            server.provision()
    private = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "log"]
    assert private
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
