"""What a sandbox consists of: one record for each service, and the settings of its stack."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from rotation.files import write_private
from sandbox import openbao, tls
from sandbox.home import Home, SandboxError, kept
from sandbox.supervisor import Provided, Service, Site, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ORIGIN: Final = "http://127.0.0.1:{port}"
_TLS_ORIGIN: Final = "https://127.0.0.1:{port}"
_PROJECT: Final = "support-copilot"
_REGION: Final = "eu-west-1"
_USERS: Final = ("keyturn", "consumer")


def _ca(site: Site) -> Path:
    return site.home.directory / "ca.pem"


def _python(module: str, site: Site, *arguments: str) -> list[str]:
    """The command line of a server of ours."""
    return [sys.executable, "-m", module, "--port", str(site.port), "--clock", str(site.home.clock), *arguments]


_PYTHON_ENV: Final = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"}


# OpenBao: a real server.


def _openbao_address(site: Site) -> str:
    return OPENBAO.url.format(port=site.port)


def _provision_openbao(site: Site) -> Provided:
    address, ca = _openbao_address(site), _ca(site)
    roles = openbao.provision(site.directory, address, ca)
    keyturn, consumer = roles["keyturn"], roles["consumer"]
    common = {"VAULT_ADDR": address, "VAULT_CACERT": str(ca)}
    return Provided(
        env={**common, "KEYTURN_VAULT_ROLE_ID": keyturn.role_id, "KEYTURN_VAULT_SECRET_ID": keyturn.secret_id},
        consumer_env={**common, "VAULT_ROLE_ID": consumer.role_id, "VAULT_SECRET_ID": consumer.secret_id},
        endpoint={"caBundle": str(ca), "auditLog": str(site.directory / "audit.log")},
        stack={("config", "keyturn:stores", "vault", "address"): address},
    )


OPENBAO: Final = Service(
    name="openbao",
    url=_TLS_ORIGIN,
    prepare=lambda site: openbao.configure(site.directory, authority=site.home.directory, port=site.port),
    command=lambda site: openbao.command(site.directory),
    environment=lambda _site: {},
    announces=False,
    answers=lambda site: openbao.answers(_openbao_address(site), _ca(site)),
    provision=_provision_openbao,
)


# AWS: Secrets Manager, IAM and STS of a stand-in. It checks who calls, and not what they may do: that Keyturn and the
# application are users of their own shows in the call log, but keeps neither from anything.


def _administrator(site: Site) -> dict[str, str]:
    """The key pair that the account begins with, in IAM's own words."""

    def fresh() -> str:
        key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
        return json.dumps({"AccessKeyId": key_id, "SecretAccessKey": secrets.token_urlsafe(30)})

    made: dict[str, str] = json.loads(kept(site.directory / "administrator.json", fresh))
    return made


def _provision_aws(site: Site) -> Provided:
    import boto3  # noqa: PLC0415 - every `keyturn` command imports this module

    origin, administrator = _ORIGIN.format(port=site.port), _administrator(site)
    iam = boto3.session.Session(
        aws_access_key_id=administrator["AccessKeyId"], aws_secret_access_key=administrator["SecretAccessKey"]
    ).client("iam", region_name=_REGION, endpoint_url=origin, config=_direct())
    with contextlib.closing(iam):
        keyturn, consumer = (_access_key(iam, user, site.directory / f"{user}.json") for user in _USERS)
    return Provided(
        env=keyturn,
        consumer_env={**consumer, "AWS_ENDPOINT_URL_SECRETS_MANAGER": origin},
        endpoint={"controlUrl": origin},
        stack={("config", "keyturn:stores", "aws", "endpointUrl"): origin},
    )


def _direct() -> Any:
    """No proxy of the environment stands between two processes of one machine."""
    from botocore.config import Config  # noqa: PLC0415 - as above

    return Config(proxies={})


def _access_key(iam: Any, user: str, file: Path) -> Mapping[str, str]:
    """Variables with the user's access key: the kept one, or a new one where IAM does not know that (any more)."""
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=user)
    known = {key["AccessKeyId"] for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
    if not (file.exists() and json.loads(file.read_text())["AWS_ACCESS_KEY_ID"] in known):
        for key_id in known:
            iam.delete_access_key(UserName=user, AccessKeyId=key_id)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        pair = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        # The token of a session that the shell was in before would be sent along with this key.
        write_private(file, json.dumps({**pair, "AWS_SESSION_TOKEN": "", "AWS_REGION": _REGION}))
    variables: dict[str, str] = json.loads(file.read_text())
    return variables


AWS: Final = Service(
    name="aws",
    url=_ORIGIN,
    prepare=lambda _site: None,
    command=lambda site: _python(
        "sandbox.aws.server",
        site,
        *("--state", str(site.directory / "account")),
        *("--function", str(site.home.root / "build" / "keyturn-lambda.zip")),
        *("--function-env", str(site.home.env)),
    ),
    environment=lambda site: {
        **_PYTHON_ENV,
        "SANDBOX_AWS_ACCESS_KEY_ID": _administrator(site)["AccessKeyId"],
        "SANDBOX_AWS_SECRET_ACCESS_KEY": _administrator(site)["SecretAccessKey"],
    },
    announces=True,
    answers=lambda site: _answers(_ORIGIN.format(port=site.port)),
    provision=_provision_aws,
)


# Azure: Key Vault, and Entra's token endpoint, of a stand-in that holds each principal to its rules.

_RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    # What providers/stores/azure.py asks for, on this environment's entries; lists are about the vault as a whole.
    "keyturn": {
        "allow": [
            {"permissions": ["get", "set", "delete", "recover"], "names": ["sandbox--*"]},
            {"permissions": ["list"]},
        ]
    },
    # An application has no business with what is pending, and none with Keyturn's own records.
    "consumer": {
        "allow": [{"permissions": ["get"], "names": ["sandbox--*"]}],
        "deny": [{"permissions": ["get"], "names": ["*-pending", "*-journal", "*-policy"]}],
    },
}


def _principal(site: Site, user: str) -> dict[str, str]:
    return {
        "client_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"keyturn:sandbox:{user}")),
        "client_secret": kept(site.directory / f"{user}.secret", lambda: secrets.token_urlsafe(30)),
    }


def _prepare_keyvault(site: Site) -> None:
    tls.issue(site.home.directory, site.directory / "server.pem")
    principals = [{**_principal(site, user), **_RULES[user]} for user in _USERS]
    write_private(site.directory / "principals.json", json.dumps(principals))


def _provision_keyvault(site: Site) -> Provided:
    from sandbox.keyvault.entra import TENANT_ID  # noqa: PLC0415 - as above

    origin, ca = _TLS_ORIGIN.format(port=site.port), str(_ca(site))
    keyturn, consumer = (
        {
            "AZURE_TENANT_ID": TENANT_ID,
            "AZURE_CLIENT_ID": _principal(site, user)["client_id"],
            "AZURE_CLIENT_SECRET": _principal(site, user)["client_secret"],
            "AZURE_AUTHORITY_HOST": origin,
            # Where the sandbox's login fails, DefaultAzureCredential would go on to the person's own, in az and elsewhere.
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        }
        for user in _USERS
    )
    store = ("config", "keyturn:stores", "azure")
    return Provided(
        env=keyturn,
        consumer_env={**consumer, "AZURE_KEYVAULT_URL": origin, "AZURE_KEYVAULT_CACERT": ca},
        endpoint={"controlUrl": origin, "caBundle": ca},
        stack={(*store, "vaultUrl"): origin, (*store, "authorityHost"): origin},
    )


KEYVAULT: Final = Service(
    name="keyvault",
    url=_TLS_ORIGIN,
    prepare=_prepare_keyvault,
    command=lambda site: _python(
        "sandbox.keyvault.server",
        site,
        *("--cert", str(site.directory / "server.pem")),
        *("--state", str(site.directory / "vault")),
        *("--principals", str(site.directory / "principals.json")),
    ),
    environment=lambda _site: _PYTHON_ENV,
    announces=False,
    answers=lambda site: _answers(f"{_TLS_ORIGIN.format(port=site.port)}/_sandbox/health", ca=_ca(site)),
    provision=_provision_keyvault,
)


# OpenAI: a stand-in of its administration API and of the little that shows whether a key works.


def _admin_key(site: Site) -> str:
    return kept(site.directory / "admin-key", lambda: f"sk-admin-{secrets.token_urlsafe(60)}")


def _provision_openai(site: Site) -> Provided:
    origin = _ORIGIN.format(port=site.port)
    # Asked for once: later on the admin key may have been rotated away from the one that the sandbox began with.
    project = kept(site.directory / "project", lambda: _openai_project(f"{origin}/v1", _admin_key(site)))
    issuer = ("config", "keyturn:issuers", "openai")
    return Provided(
        env={"OPENAI_ADMIN_KEY": _admin_key(site), "OPENAI_BASE_URL": f"{origin}/v1"},
        consumer_env={"OPENAI_BASE_URL": f"{origin}/v1"},
        endpoint={"controlUrl": origin, "project": project},
        stack={(*issuer, "baseUrl"): f"{origin}/v1", (*issuer, "project"): project},
    )


def _openai_project(base_url: str, admin_key: str) -> str:
    """The id of the project that the stack's keys live in; created when the organization has none of this name."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {admin_key}"
        url = f"{base_url}/organization/projects"
        after: dict[str, str] = {}
        while True:
            page = _answer(session.get(url, params={"limit": "100", **after}, timeout=10))
            for project in page["data"]:
                if project["name"] == _PROJECT:
                    return str(project["id"])
            if not page["has_more"]:
                return str(_answer(session.post(url, json={"name": _PROJECT}, timeout=10))["id"])
            after = {"after": page["last_id"]}


def _answer(response: requests.Response) -> dict[str, Any]:
    if not response.ok:
        request = response.request
        raise SandboxError(f"the OpenAI stand-in refused {request.method} {request.url}: {response.status_code}")
    content: dict[str, Any] = response.json()
    return content


def _answers(url: str, ca: Path | None = None) -> bool:
    """Whether a server is there; with a CA, one of this sandbox that has such a page."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=2, verify=str(ca) if ca else True)
        except (requests.RequestException, OSError):  # OSError: the CA's file is missing
            return False
        return answer.ok or ca is None


OPENAI: Final = Service(
    name="openai",
    url=_ORIGIN + "/v1",
    prepare=lambda _site: None,
    command=lambda site: _python("sandbox.openai.server", site, "--state", str(site.directory / "organization.sqlite")),
    environment=lambda site: {**_PYTHON_ENV, "SANDBOX_OPENAI_ADMIN_KEY": _admin_key(site)},
    announces=True,
    answers=lambda site: _answers(_ORIGIN.format(port=site.port)),
    provision=_provision_openai,
)

SERVICES: Final = (AWS, KEYVAULT, OPENBAO, OPENAI)


def without_proxy(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep a person's proxy, if `env` has one, out of what processes of this machine say to each other."""
    hosts = [*env.get("NO_PROXY", "").split(","), *env.get("no_proxy", "").split(","), "127.0.0.1"]
    listed = ",".join(dict.fromkeys(host for host in hosts if host))
    return {"NO_PROXY": listed, "no_proxy": listed}


def supervisor(home: Home, report: Callable[[str], None]) -> Supervisor:
    """The sandbox of this project, with all services.

    Args:
        home: its place.
        report: called with a line for people when something is worth knowing.
    """
    settings = {
        "KEYTURN_STACK": "sandbox",
        "KEYTURN_SANDBOX_CLOCK": str(home.clock),
        "PULUMI_BACKEND_URL": home.pulumi_state.as_uri(),
        # Pulumi wants one. It protects nothing, since no value enters the state; so it may be the same everywhere, and a
        # kept Pulumi.sandbox.yaml, which is bound to it by its encryption salt, works after a reset too.
        "PULUMI_CONFIG_PASSPHRASE": "sandbox",
        **without_proxy(os.environ),
    }
    return Supervisor(home, SERVICES, settings=settings, report=report)
