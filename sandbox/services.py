"""What a sandbox consists of: one record for each service, and the settings of its stack."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from sandbox import openbao
from sandbox.home import Home, SandboxError, kept
from sandbox.supervisor import Provided, Service, Site, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

_ORIGIN: Final = "http://127.0.0.1:{port}"
_PROJECT: Final = "support-copilot"


def _ca(site: Site) -> Path:
    return site.home.directory / "ca.pem"


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
    url="https://127.0.0.1:{port}",
    prepare=lambda site: openbao.configure(site.directory, authority=site.home.directory, port=site.port),
    command=lambda site: openbao.command(site.directory),
    environment=lambda _site: {},
    announces=False,
    answers=lambda site: openbao.answers(_openbao_address(site), _ca(site)),
    provision=_provision_openbao,
)


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


def _answers_http(site: Site) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            session.get(_ORIGIN.format(port=site.port), timeout=2)
        except requests.RequestException:
            return False
        return True


OPENAI: Final = Service(
    name="openai",
    url=_ORIGIN + "/v1",
    prepare=lambda _site: None,
    command=lambda site: [
        *(sys.executable, "-m", "sandbox.openai.server", "--port", str(site.port)),
        *("--state", str(site.directory / "organization.sqlite"), "--clock", str(site.home.clock)),
    ],
    environment=lambda site: {
        "SANDBOX_OPENAI_ADMIN_KEY": _admin_key(site),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONUNBUFFERED": "1",
    },
    announces=True,
    answers=_answers_http,
    provision=_provision_openai,
)

SERVICES: Final = (OPENBAO, OPENAI)


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
    }
    return Supervisor(home, SERVICES, settings=settings, report=report)
