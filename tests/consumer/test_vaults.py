"""Applications that call a service all the time, through rotations and emergencies of the real Keyturn: none fails."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any, Self

import hvac
import pytest
import requests

from rotation.consumer import Secret, Unavailable, Value
from rotation.consumer.sources import NotAUriError, Source, source
from sandbox.aws.server import REGION
from sandbox.keyvault.control import Fault
from tests.cli.project import Project
from tests.consumer.conftest import IN, Vaults, declare_stores

SHORT = timedelta(milliseconds=50)
LONG = timedelta(days=1)
"""A time to live that refreshes by itself, and one with which only a refusal does."""


def uri(project: Project, store: str, field: str = "") -> str:
    entry = project.entry(IN[store])
    places = {"vault": f"secret/{project.installation}/a/{entry}", "aws": f"{REGION}/{entry}"}
    where = places.get(store) or f"127.0.0.1/{entry.replace('/', '--')}"
    prefix = {"vault": "vault", "aws": "aws", "azure": "azure"}[store]
    return f"{prefix}://{where}{field}"


def opened(project: Project, vaults: Vaults, store: str, ttl: timedelta) -> Secret:
    """As an application does it; the stand-in of Key Vault has a certificate that its client is to be told of."""
    connect = vaults.keyvault.client if store == "azure" else None
    return Secret.open(uri(project, store), connect=connect, ttl=ttl)


def vault(vaults: Vaults, token: str | None = None) -> hvac.Client:
    """An application's own client."""
    return hvac.Client(vaults.shared.bao.address, token, verify=str(vaults.shared.bao.ca))


class Application:
    """Calls the service in two threads as fast as it answers; counts."""

    def __init__(self, secret: Secret, base_url: str) -> None:
        self._secret, self._url = secret, f"{base_url}/models"
        self._over = threading.Event()
        self.done = 0
        self.failures: list[str] = []
        self.versions: set[str] = set()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False

            def ask(key: Value) -> requests.Response:
                self.versions.add(key.version)
                return session.get(self._url, headers={"Authorization": f"Bearer {key.reveal()}"}, timeout=20)

            while not self._over.wait(0.01):
                try:
                    answer = self._secret.call(ask)
                    if not answer.ok:
                        self.failures.append(f"{answer.status_code}")
                except Exception as error:  # noqa: BLE001 - to its users a request failed, whatever it was
                    self.failures.append(repr(error))
                self.done += 1

    def await_more(self) -> None:
        """Until calls that began after now are over."""
        wanted = self.done + 4
        while self.done < wanted:
            assert not self._over.wait(0.005)


@pytest.mark.parametrize("store", IN)
def test_no_request_fails_through_rotation_and_emergency(store: str, project: Project, vaults: Vaults) -> None:
    """Two rotations with their drains, and an emergency that kills the old key within the second.

    One application refreshes by itself all the time; the other learns of everything by a refusal.
    """
    name, base_url = IN[store], vaults.shared.openai.base_url
    with (
        Application(opened(project, vaults, store, SHORT), base_url) as quick,
        Application(opened(project, vaults, store, LONG), base_url) as slow,
    ):
        for command in (("rotate", name), ("emergency", name, "--yes"), ("rotate", name), ("sweep",)):
            quick.await_more()
            slow.await_more()
            assert project.run(*command).code == 0
            if command[0] == "rotate":
                project.services.time.move(timedelta(days=3))
        assert project.run("emergency", name, "--yes").code == 0
        quick.await_more()
        slow.await_more()
    assert (quick.failures, slow.failures) == ([], [])
    assert len(quick.versions) >= 4
    assert len(slow.versions) >= 3
    assert len(project.alive()) == len(IN)


def test_an_absent_vault_takes_no_application_along(project: Project, vaults: Vaults) -> None:
    """Key Vault refuses connections; what was read last goes on working, and is told as such."""
    secret = opened(project, vaults, "azure", SHORT)
    with Application(secret, vaults.shared.openai.base_url) as application:
        application.await_more()
        with vaults.keyvault.down():
            while not secret.status().failures:
                application.await_more()
            application.await_more()
            assert secret.status().why.startswith("no answer (")
    assert application.failures == []


def test_forms_of_several_fields_are_read_alike(project: Project, vaults: Vaults) -> None:
    """As Keyturn has written them: one JSON object in two vaults, fields beside a label in the third."""
    form = {"json": {"key": "value"}}
    project.declare(*(project.secret(f"{name}-json", store=store, format=form) for store, name in IN.items()))
    declare_stores(project, vaults)
    project.apply()
    for store in IN:
        connect = vaults.keyvault.client if store == "azure" else None
        value = Secret.open(f"{uri(project, store)}-json#key", connect=connect).value()
        assert value.reveal().startswith("sk-svcacct-")
        assert value.fields == ("key",)
        assert json.loads(source(f"{uri(project, store)}-json", connect).read().reveal()) == {"key": value.reveal()}
        with pytest.raises(Unavailable, match="has no field password; its fields: key"):
            Secret.open(f"{uri(project, store)}-json#password", connect=connect).value()


@pytest.mark.parametrize("store", IN)
def test_versions_are_told_by_metadata_alone(store: str, project: Project, vaults: Vaults) -> None:
    """The same while nothing happens, another after a rotation; no value crosses the wire."""
    found: Source
    if store == "vault":
        allowed = f'path "secret/subkeys/{project.installation}/*" {{ capabilities = ["read"] }}'
        token = vaults.shared.bao.token(allowed)
        found = source(uri(project, store), lambda: vault(vaults, token))
    else:
        found = source(uri(project, store), vaults.keyvault.client if store == "azure" else None)
    before = found.version()
    assert before is not None
    assert found.version() == before
    assert project.run("rotate", IN[store]).code == 0
    assert found.version() not in {before, None}
    if store == "vault":
        with pytest.raises(Unavailable, match="permission denied"):
            found.read()


@pytest.mark.parametrize("store", IN)
def test_a_login_without_that_right_says_so(store: str, project: Project, vaults: Vaults) -> None:
    """An application's own right is to read the value; then its versions are told by reading it."""
    found = source(uri(project, store), vaults.keyvault.client if store == "azure" else None)
    vaults.aws.control.fail("DescribeSecret", "denied")
    vaults.keyvault.control.add(Fault("status", method="GET", path="/secrets/*/versions", status=403))
    assert found.version() is None
    assert found.read().version
    vaults.aws.control.clear_faults()
    vaults.keyvault.control.clear_faults()


def test_what_can_not_be_read_is_told_in_words(project: Project, vaults: Vaults) -> None:
    """Which entry, and why; neither address nor answer of the vault."""

    def why(where: str, connect: Any = None) -> str:
        with pytest.raises(Unavailable) as raised:
            source(where, connect).read()
        assert raised.value.__context__ is None
        return str(raised.value)

    nobody = vaults.keyvault.client
    assert (
        why(f"{uri(project, 'aws')}-not")
        == f"{uri(project, 'aws')}-not: Secrets Manager answers ResourceNotFoundException"
    )
    assert why(f"{uri(project, 'azure')}-not", nobody).endswith("-not: Key Vault answers HTTP 404")
    assert why(f"{uri(project, 'vault')}-not").endswith("-not: there is no such entry, or it is deleted")
    assert why("vault://secret/elsewhere/entry") == "vault://secret/elsewhere/entry: permission denied"
    for nonsense in ("prod/chat", "aws://eu-west-1", "ftp://host/entry", "vault://secret/entry?version=1"):
        with pytest.raises(NotAUriError, match="does not say where an entry is"):
            Secret.open(nonsense)


def test_a_token_that_has_ended_is_replaced(project: Project, vaults: Vaults) -> None:
    """The application logs in again; it need not be restarted for it."""
    logins: list[hvac.Client] = []
    role, secret_id = vaults.shared.bao.approle(
        f'path "secret/data/{project.installation}/*" {{ capabilities = ["read"] }}'
    )

    def connect() -> hvac.Client:
        client = vault(vaults)
        client.auth.approle.login(role, secret_id)
        logins.append(client)
        return client

    found = source(uri(project, "vault"), connect)
    found.read()
    administrator = vault(vaults, vaults.shared.bao.root_token)
    administrator.adapter.post("/v1/auth/token/revoke", json={"token": logins[0].token})
    assert found.read().version == "1"
    assert len(logins) == 2
