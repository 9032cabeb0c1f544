"""How the Vault store logs in and keeps its token, against a real OpenBao; AWS and the Kubernetes API are stand-ins."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.stores.vault import AppRoleLogin, AwsLogin, JwtLogin, KubernetesLogin, Login, TokenLogin, VaultStore
from rotation import journal
from rotation.errors import Code
from rotation.model import SecretValue
from sandbox import tls
from sandbox.openbao import OpenBaoServer
from tests.contracts.store import AT, at_once, full_policy, new_token, rotated, texts, trouble
from tests.stores.test_vault_store import ENTRY, LEAST, Answer, Console, MovableClock, gateway, mount_kv

LIFE = 3600
"""Seconds that tokens live here."""
API = "authentication.k8s.io/v1"
ACCOUNT = {"namespace": "tools", "name": "keyturn"}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as running:
        yield running


@pytest.fixture(scope="module")
def console(server: OpenBaoServer) -> Iterator[Console]:
    made = Console(server)
    with made.session:
        yield made


@pytest.fixture(scope="module")
def prefix(server: OpenBaoServer, console: Console) -> str:
    """A corner of the mount with ENTRY in it, and the policy `keyturn` for it."""
    console.send("PUT", "sys/policies/acl/keyturn", {"policy": LEAST.replace("PREFIX", "corner")})
    store = client(server, TokenLogin(SecretValue(server.root_token)))
    store.create(ENTRY, full_policy())
    rotated(store, ENTRY)
    return "corner"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


Make = Callable[..., VaultStore]


@pytest.fixture
def make(server: OpenBaoServer, prefix: str, clock: MovableClock) -> Make:
    return lambda auth, **changed: client(server, auth, **({"clock": clock} | changed))


def client(server: OpenBaoServer, auth: Login, **changed: Any) -> VaultStore:
    settings: dict[str, Any] = {
        "name": "vault",
        "address": server.address,
        "mount": "secret",
        "prefix": "corner",
        "ca_bundle": str(server.ca),
        "auth": auth,
        "clock": MovableClock(),
    }
    return VaultStore(**(settings | changed))


class Signer:
    """An issuer of JWTs with a key of its own: a cluster, or a CI system."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def token(self, *, lives: float = 600, **claims: Any) -> str:
        now = time.time()
        common = {"iss": "https://ci.acme.example", "aud": "keyturn", "iat": now - 1200, "exp": now + lives}
        return jwt.encode(common | claims, self._key, algorithm="ES256")

    def claims(self, token: str) -> Mapping[str, Any]:
        """Raises jwt.PyJWTError for a token of another signer, for another audience, or that has expired."""
        return jwt.decode(token, self.public, algorithms=["ES256"], audience="keyturn")


ROLE = {"token_policies": ["keyturn"], "token_no_default_policy": True, "token_ttl": LIFE}


BOUND = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["keyturn"], "bound_subject": "repo:acme/keyturn"}


def jwt_method(console: Console, signer: Signer, **role: Any) -> str:
    """The mount of a JWT method with the role `rotator` for one workload."""
    mount = f"jwt-{uuid.uuid4().hex[:8]}"
    console.send("POST", f"sys/auth/{mount}", {"type": "jwt"})
    console.send("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [signer.public]})
    console.send("POST", f"auth/{mount}/role/rotator", BOUND | ROLE | role)
    return mount


def approle(console: Console, **settings: Any) -> AppRoleLogin:
    """A login of a role of its own, or of this `name`; `headers` go along with every request that sets it up."""
    headers = settings.pop("headers", {})
    name = settings.pop("name", f"role-{uuid.uuid4().hex[:8]}")
    console.send("POST", f"auth/approle/role/{name}", ROLE | settings, **headers)
    role_id = console.send("GET", f"auth/approle/role/{name}/role-id", **headers)["data"]["role_id"]
    secret_id = console.send("POST", f"auth/approle/role/{name}/secret-id", **headers)["data"]["secret_id"]
    return AppRoleLogin(role_id, SecretValue(secret_id))


# --- JWT and OIDC ------------------------------------------------------------------------------------


def test_a_workloads_token_logs_in(make: Make, console: Console, tmp_path: Path) -> None:
    """From a variable or a file, as a CI system hands it out; with the policy of the role."""
    signer = Signer()
    mount = jwt_method(console, signer)
    token = signer.token(sub="repo:acme/keyturn")
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    for source in (SecretValue(token), file):
        with console.requests_of("auth/") as seen:
            rotated(make(JwtLogin("rotator", source, mount)), ENTRY)
        assert seen == [("update", f"auth/{mount}/login")]


def test_a_file_is_read_at_each_login(make: Make, console: Console, clock: MovableClock, tmp_path: Path) -> None:
    """What writes it renews it: yesterday's token is not kept, and would be refused."""
    signer = Signer()
    mount = jwt_method(console, signer, token_type="batch")
    file = tmp_path / "token"
    file.write_text(signer.token(sub="repo:acme/keyturn"))
    store = make(JwtLogin("rotator", file, mount))
    store.observe(ENTRY)
    file.write_text(signer.token(lives=-300, sub="repo:acme/keyturn"))
    clock.ahead = LIFE
    with trouble(Code.DENIED, store, ENTRY):
        store.observe(ENTRY)
    file.write_text(signer.token(sub="repo:acme/keyturn"))
    store.observe(ENTRY)


@pytest.mark.parametrize("wrong", [{"lives": -300}, {"sub": "repo:other/keyturn"}, {"aud": "other"}, {"key": "other"}])
def test_a_workload_that_may_not(make: Make, console: Console, wrong: dict[str, Any]) -> None:
    """DENIED for an expired token, another subject or audience, another signer; the token is not told."""
    signer = Signer()
    mount = jwt_method(console, signer)
    claims = {"sub": "repo:acme/keyturn"} | wrong
    token = (Signer() if claims.pop("key", None) else signer).token(**claims)
    store = make(JwtLogin("rotator", SecretValue(token), mount))
    with trouble(Code.DENIED, store, ENTRY) as caught:
        store.observe(ENTRY)
    assert f"login by JWT at auth/{mount} was refused" in str(caught.value)


def test_what_is_no_token_is_not_sent(make: Make, console: Console, tmp_path: Path) -> None:
    """DENIED, with what is wrong and where; nothing of what is there goes out, or into the message."""
    junk, binary = tmp_path / "junk", tmp_path / "binary"
    junk.write_text("kt-value-of-something-else")
    binary.write_bytes(b"\xff\xfe kt-value-binary")
    logins: dict[str, Login] = {
        f"{tmp_path}/nowhere can not be read (No such file or directory)": JwtLogin("r", tmp_path / "nowhere"),
        f"{tmp_path} can not be read (Is a directory)": KubernetesLogin("r", tmp_path),
        f"there is no JWT in {junk}": KubernetesLogin("r", junk),
        f"there is no JWT in {binary}": JwtLogin("r", binary),
        "there is no JWT in the variable": JwtLogin("r", SecretValue("kt-value-of-a-variable")),
    }
    for told, login in logins.items():
        store = make(login)
        with console.requests_of("auth/") as seen, trouble(Code.DENIED, store, ENTRY) as caught:
            store.observe(ENTRY)
        assert seen == []
        assert f"login by {login.how}: {told}" in str(caught.value)
        assert "kt-value" not in texts(caught.value)


# --- Kubernetes --------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[[Signer], dict[str, Any]]]:
    """Starts a cluster's API server, and tells the method's configuration for it.

    It stands in for one call, TokenReview (authentication.k8s.io/v1), which the real server's Kubernetes method
    makes at each login: over TLS, with the reviewer's token, it says whose service account a token is of.
    """
    running: list[tuple[HTTPServer, threading.Thread]] = []

    def start(signer: Signer) -> dict[str, Any]:
        reviewer = signer.token(sub="system:serviceaccount:tools:reviewer")

        class Api(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known = self.headers["Authorization"] == f"Bearer {reviewer}"
                status = self._review(asked["spec"]["token"])
                body = json.dumps({"kind": "TokenReview", "apiVersion": API, "status": status}).encode()
                right = known and self.path == f"/apis/{API}/tokenreviews"
                self.send_response(201 if right else 403)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @staticmethod
            def _review(token: str) -> dict[str, Any]:
                try:
                    about = signer.claims(token)["kubernetes.io"]
                except jwt.PyJWTError:
                    return {"authenticated": False, "error": "invalid bearer token"}
                account = f"system:serviceaccount:{about['namespace']}:{about['serviceaccount']['name']}"
                groups = ["system:serviceaccounts", "system:authenticated"]
                user = {"username": account, "uid": about["serviceaccount"]["uid"], "groups": groups}
                return {"authenticated": True, "user": user, "audiences": ["keyturn"]}

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's own name
                """Nothing on the terminal."""

        pem = tmp_path / "api.pem"
        tls.issue(tmp_path, pem)
        api = HTTPServer(("127.0.0.1", 0), Api)
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(pem)
        api.socket = secured.wrap_socket(api.socket, server_side=True)
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((api, thread))
        return {
            "kubernetes_host": f"https://127.0.0.1:{api.server_port}",
            "kubernetes_ca_cert": (tmp_path / "ca.pem").read_text(),
            "token_reviewer_jwt": reviewer,
            "disable_local_ca_jwt": True,
        }

    yield start
    for api, thread in running:
        api.shutdown()
        thread.join(10)
        api.server_close()


def of_pod(signer: Signer, account: Mapping[str, str], **more: Any) -> str:
    """A token as the kubelet projects it into a pod."""
    about = {"namespace": account["namespace"], "serviceaccount": {"name": account["name"], "uid": "4f1c"}}
    claims: dict[str, Any] = {"aud": ["keyturn"], "kubernetes.io": about, **more}
    return signer.token(sub=f"system:serviceaccount:{account['namespace']}:{account['name']}", **claims)


def test_a_pod_logs_in_with_its_service_account(
    make: Make, console: Console, cluster: Callable[[Signer], dict[str, Any]], clock: MovableClock, tmp_path: Path
) -> None:
    """The cluster confirms the account. The kubelet renews the file; each login takes what is there then."""
    signer = Signer()
    console.send("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
    console.send("POST", "auth/kubernetes/config", cluster(signer))
    bound = {
        "bound_service_account_names": "keyturn",
        "bound_service_account_namespaces": "tools",
        "token_type": "batch",
    }
    console.send("POST", "auth/kubernetes/role/rotator", bound | ROLE)
    file = tmp_path / "token"
    file.write_text(of_pod(signer, ACCOUNT))
    store = make(KubernetesLogin("rotator", file))
    with console.requests_of("auth/") as seen:
        rotated(store, ENTRY)
    assert seen == [("update", "auth/kubernetes/login")]
    refused = (
        of_pod(signer, ACCOUNT | {"name": "default"}),
        of_pod(signer, ACCOUNT | {"namespace": "other"}),
        of_pod(signer, ACCOUNT, lives=-300),
        of_pod(Signer(), ACCOUNT),
    )
    clock.ahead = LIFE
    for token in refused:
        file.write_text(token)
        with trouble(Code.DENIED, store, ENTRY) as caught:
            store.observe(ENTRY)
        assert "login by Kubernetes at auth/kubernetes was refused" in str(caught.value)
        assert token not in texts(caught.value)
    file.write_text(of_pod(signer, ACCOUNT))
    store.observe(ENTRY)


# --- AWS ---------------------------------------------------------------------------------------------

KEY_ID, KEY, SESSION = "AKIAIOSFODNN7EXAMPLE", "kt-value-aws-key", "kt-value-aws-session"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of a role's session in the environment, and no other source of them."""
    nowhere = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    for name, text in {**nowhere, "AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": KEY_ID}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    for name in ("AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def signed_by_us(headers: Mapping[str, str], body: str, region: str) -> bool:
    """What STS checks, after the AWS documentation "Create a signed AWS API request" (signature version 4)."""
    lower = {name.lower(): text for name, text in headers.items()}
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})", lower["authorization"]
    )
    assert found is not None
    credential, names, signature = found.groups()
    day = lower["x-amz-date"][:8]
    scope = f"{day}/{region}/sts/aws4_request"
    assert credential == f"{KEY_ID}/{scope}"
    assert {"host", "x-amz-date", "x-amz-security-token"} <= {*names.split(";")}
    assert lower["x-amz-security-token"] == SESSION
    lines = "".join(f"{name}:{lower[name].strip()}\n" for name in names.split(";"))
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body.encode()).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{lower['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    secret = f"AWS4{KEY}".encode()
    for part in (day, region, "sts", "aws4_request", text):
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    return secret.hex() == signature


@contextmanager
def vault_with_aws(server: OpenBaoServer, mount: str, token: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a Vault that has an `aws` method, and what was asked of that method.

    It stands in for the login endpoint alone, as Vault's API documentation gives it; all else goes to the real
    server. The token that it hands out is one of the real server's.
    """
    asked: list[dict[str, Any]] = []

    def answer(path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path != f"/v1/auth/{mount}/login":
            return 307, {"Location": server.address + path}, b""
        given = json.loads(body)
        assert given.pop("iam_http_request_method") == "POST"
        coded = {
            name: base64.b64decode(given.pop(f"iam_request_{name}")).decode() for name in ("url", "body", "headers")
        }
        asked.append({**given, **coded, "headers": json.loads(coded["headers"])})
        auth = {"client_token": token, "lease_duration": LIFE, "renewable": False}
        return 200, {"Content-Type": "application/json"}, json.dumps({"auth": auth}).encode()

    with gateway(answer) as address:
        yield address, asked


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (None, "sts.amazonaws.com"),
        ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_signed_request_tells_vault_who_we_are(
    make: Make, server: OpenBaoServer, aws: None, monkeypatch: pytest.MonkeyPatch, region: str | None, host: str
) -> None:
    """A GetCallerIdentity that only Vault can send on, signed for its STS, whatever ours is; the key stays here."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://sts.elsewhere.example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    token = server.token(LEAST.replace("PREFIX", "corner"))
    with vault_with_aws(server, "aws-eu", token) as (address, asked):
        login = AwsLogin("rotator", "aws-eu", "vault.acme.example", region)
        make(login, address=address).observe(ENTRY)
    (given,) = asked
    headers, body = given["headers"], given["body"]
    assert given == {"role": "rotator", "url": f"https://{host}/", "body": body, "headers": headers}
    assert body == "Action=GetCallerIdentity&Version=2011-06-15"
    assert headers["Host"] == host
    assert headers["X-Vault-AWS-IAM-Server-ID"] == "vault.acme.example"
    assert "x-vault-aws-iam-server-id" in headers["Authorization"]
    assert signed_by_us(headers, body, region or "us-east-1")
    assert KEY not in json.dumps(given)
    assert not signed_by_us(headers | {"X-Vault-AWS-IAM-Server-ID": "another"}, body, region or "us-east-1")


def test_no_credentials_for_aws(
    make: Make, server: OpenBaoServer, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DENIED before Vault is asked: none in the chain, a process that fails, a region that is none."""
    (tmp_path / "config").write_text("[default]\ncredential_process = sh -c 'echo kt-value-printed >&2; exit 1'\n")
    cases: list[tuple[dict[str, str], str | None, str]] = [
        ({}, "no-where-1", "the SDK knows no STS in the region no-where-1"),
        ({"AWS_ACCESS_KEY_ID": ""}, None, "no AWS credentials were found"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_CONFIG_FILE": str(tmp_path / "config")},
            None,
            "no AWS credentials could be had (CredentialRetrievalError)",
        ),
    ]
    for environment, region, told in cases:
        for name, text in environment.items():
            monkeypatch.setenv(name, text) if text else monkeypatch.delenv(name, raising=False)
        with vault_with_aws(server, "aws", "") as (address, asked):
            store = make(AwsLogin("rotator", region=region), address=address)
            with trouble(Code.DENIED, store, ENTRY) as caught:
                store.observe(ENTRY)
        assert f"login by AWS at auth/aws: {told}; the entry was not asked" in str(caught.value)
        assert "kt-value" not in texts(caught.value)
        assert asked == []


# --- the token's life --------------------------------------------------------------------------------

RENEW, LOGIN = ("update", "auth/token/renew-self"), ("update", "auth/approle/login")


def test_a_token_is_renewed_in_time(make: Make, console: Console, clock: MovableClock) -> None:
    """When two thirds of its life are over, before the next call: the same token, with its whole life again."""
    store = make(approle(console, token_max_ttl=24 * LIFE))
    wanted = {0: [LOGIN], 2390: [], 2410: [RENEW], 4790: [], 4820: [RENEW], 7210: []}
    for ahead, expected in wanted.items():
        clock.ahead = ahead
        with console.requests_of("auth/") as seen:
            store.observe(ENTRY)
        assert seen == expected, ahead


def test_one_thread_renews(make: Make, console: Console, clock: MovableClock) -> None:
    """However many have work; nothing that they do is lost."""
    store = make(approle(console, token_max_ttl=24 * LIFE))
    store.observe(ENTRY)
    clock.ahead = 2410
    tokens = [new_token() for _ in range(8)]
    with console.requests_of("auth/") as seen:
        raised = at_once(*(lambda token=token: store.record(ENTRY, journal.promoted(token, AT)) for token in tokens))
    assert raised == [None] * 8
    assert seen == [RENEW]
    assert {*tokens} <= store.observe(ENTRY).journal.promoted.keys()


def test_a_token_at_its_longest_life_is_replaced(make: Make, console: Console, clock: MovableClock) -> None:
    """When the server grants less than a whole life: log in again, while the old one is still good."""
    role = f"role-{uuid.uuid4().hex[:8]}"
    store = make(approle(console, name=role, token_max_ttl=LIFE))
    store.observe(ENTRY)
    # Real time hardly moves, so that it is the limit that comes nearer.
    console.send("POST", f"auth/approle/role/{role}", ROLE | {"token_ttl": LIFE - 60, "token_max_ttl": LIFE - 60})
    for ahead, expected in ((2410, [RENEW, LOGIN]), (2420, []), (4900, [RENEW])):
        clock.ahead = ahead
        with console.requests_of("auth/") as seen:
            store.observe(ENTRY)
        assert seen == expected, ahead


def test_a_policy_that_does_not_let_renew(make: Make, console: Console, clock: MovableClock) -> None:
    """The token is replaced; nothing fails."""
    policy = LEAST.replace("PREFIX", "corner").replace("renew-self", "something-else")
    console.send("PUT", "sys/policies/acl/no-renewal", {"policy": policy})
    store = make(approle(console, token_policies=["no-renewal"]))
    store.observe(ENTRY)
    clock.ahead = 2410
    with console.requests_of("auth/") as seen:
        rotated(store, ENTRY)
    assert seen == [RENEW, LOGIN]


def test_a_login_that_lasts_longer_than_its_jwt(make: Make, console: Console, clock: MovableClock) -> None:
    """A CI job's token has expired by then: renewing needs it no more, and a refused login is no failure yet."""
    signer = Signer()
    mount = jwt_method(console, signer, token_max_ttl=LIFE)

    class Once:
        """A workload whose token is good for the first login only."""

        how = "a CI job"
        token = signer.token(sub="repo:acme/keyturn")

        def log_in(self, client: Any) -> Mapping[str, Any]:
            token, self.token = self.token, signer.token(lives=-300, sub="repo:acme/keyturn")
            return JwtLogin("rotator", SecretValue(token), mount).log_in(client)

    store = make(Once())
    login = ("update", f"auth/{mount}/login")
    wanted = {0: [login], 2410: [RENEW], 4820: [RENEW, login], 5000: []}
    for ahead, expected in wanted.items():
        if ahead == 4820:
            # Real time hardly moves, so that it is the limit that comes nearer.
            console.send("POST", f"auth/{mount}/role/rotator", BOUND | ROLE | {"token_max_ttl": 600, "token_ttl": 600})
        clock.ahead = ahead
        with console.requests_of("auth/") as seen:
            store.observe(ENTRY)
        assert seen == expected, ahead
    clock.ahead = 2410 + LIFE * 0.91
    with trouble(Code.DENIED, store, ENTRY):
        store.observe(ENTRY)


def test_a_server_that_can_not_renew_just_now(
    make: Make, server: OpenBaoServer, console: Console, clock: MovableClock
) -> None:
    """The token is good for a while yet: the call goes on with it, and a later one tries again."""
    broken = threading.Event()
    tried: list[str] = []

    def answer(path: str, _: bytes) -> tuple[int, dict[str, str], bytes]:
        if "/auth/" in path:
            tried.append(path)
            if broken.is_set():
                return 503, {}, b'{"errors": ["no"]}'
        return 307, {"Location": server.address + path}, b""

    front: Answer = answer
    with gateway(front) as address:
        store = make(approle(console, token_max_ttl=24 * LIFE), address=address)
        store.observe(ENTRY)
        broken.set()
        for ahead, tries in ((2410, 2), (2420, 0), (2900, 2), (3000, 0)):
            clock.ahead = ahead
            tried.clear()
            store.observe(ENTRY)
            assert len(tried) == tries, ahead
        broken.clear()
        clock.ahead = 3200
        with console.requests_of("auth/") as seen:
            store.observe(ENTRY)
        assert seen == [RENEW]


def test_a_configured_token_is_left_alone(
    make: Make, server: OpenBaoServer, clock: MovableClock, console: Console
) -> None:
    """Who has got it renews it: nothing is asked about it."""
    store = make(TokenLogin(SecretValue(server.token(LEAST.replace("PREFIX", "corner")))))
    with console.requests_of("auth/") as seen:
        for ahead in (0, 2410, 2 * LIFE):
            clock.ahead = ahead
            store.observe(ENTRY)
    assert seen == []


def test_a_namespace_has_logins_of_its_own(make: Make, console: Console, clock: MovableClock) -> None:
    """Login, renewal and entries are all the namespace's; the same login is unknown outside it."""
    space = f"team-{uuid.uuid4().hex[:8]}"
    console.send("POST", f"sys/namespaces/{space}", {})
    inside = {"X-Vault-Namespace": space}
    mount_kv(console, "secret", **inside)
    console.send("POST", "sys/auth/approle", {"type": "approle"}, **inside)
    console.send("PUT", "sys/policies/acl/keyturn", {"policy": LEAST.replace("PREFIX", "corner")}, **inside)
    login = approle(console, headers=inside)
    store = make(login, namespace=space)
    store.create(ENTRY, full_policy(owner="inside"))
    rotated(store, ENTRY)
    clock.ahead = 2410
    with console.requests_of("auth/") as seen:
        assert store.observe(ENTRY).policy["owner"] == "inside"
    assert seen == [RENEW]
    assert [listed.policy["owner"] for listed in store.listing()] == ["inside"]
    outside = make(login)
    with trouble(Code.DENIED, outside, ENTRY):
        outside.observe(ENTRY)
