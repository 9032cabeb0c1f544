"""KeyVaultServer: the stand-in in the process of a test, with the Azure SDK's own clients for it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

from sandbox.keyvault.control import Control
from sandbox.keyvault.entra import OWNER_ID, OWNER_SECRET, TENANT_ID, Directory, Principal
from sandbox.keyvault.serving import Server, StandIn, tls_context_from
from sandbox.keyvault.vault import Settings, Vault


class KeyVaultServer(contextlib.AbstractContextManager["KeyVaultServer"]):
    """A running stand-in on a free port of 127.0.0.1, from entering the context until leaving it.

    Deletes, recoveries and purges are over at once unless `settings` says otherwise; see `Delay.refusals` for making
    them slow without waiting.

    Args:
        now: the time that entries go by; real time by default.
        wall: the time that tokens go by, in seconds since 1970.
        state: directory that keeps entries across restarts.
        ca_dir: directory of a CA to share; by default a CA of its own.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        wall: Callable[[], float] = time.time,
        settings: Settings | None = None,
        state: Path | None = None,
        ca_dir: Path | None = None,
        tenant_id: str = TENANT_ID,
        port: int = 0,
    ) -> None:
        self._resources = contextlib.ExitStack()
        self._stand_in = StandIn.open(now, wall=wall, settings=settings, state=state, tenant_id=tenant_id)
        self._ca_dir = ca_dir
        self.port = port
        self.ca = ""
        """Path of the certificate to trust, for `connection_verify`."""

    def __enter__(self) -> Self:
        directory = self._ca_dir or Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        self._context = tls_context_from(directory)
        self.ca = str(directory / "ca.pem")
        self._start()
        self._resources.callback(self._stop)
        return self

    def __exit__(self, *_error: object) -> None:
        self._resources.close()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Refuses connections until the block is left; what the vault holds stays."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._server = Server(self._stand_in, self._context, self.port)
        self.port = self._server.port
        self._thread = self._server.start()

    def _stop(self) -> None:
        self._server.stop()
        self._thread.join()

    @property
    def vault_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> str:
        """Where tokens come from, for azure-identity's `authority`."""
        return self.vault_url

    @property
    def tenant_id(self) -> str:
        return self.directory.tenant_id

    @property
    def client_id(self) -> str:
        """The owner's; add others with `add_principal`."""
        return OWNER_ID

    @property
    def client_secret(self) -> str:
        return OWNER_SECRET

    @property
    def control(self) -> Control:
        return self._stand_in.control

    @property
    def vault(self) -> Vault:
        """The model itself, to seed and to look into."""
        return self._stand_in.vault

    @property
    def directory(self) -> Directory:
        return self._stand_in.directory

    def add_principal(self, principal: Principal) -> None:
        """Lets somebody else in, with the rules they have."""
        self.directory.put(principal)

    def credential(
        self, client_id: str = OWNER_ID, client_secret: str = OWNER_SECRET, **options: Any
    ) -> ClientSecretCredential:
        """azure-identity's credential for a principal; closed when the server stops."""
        credential = ClientSecretCredential(
            self.tenant_id,
            client_id,
            client_secret,
            authority=self.authority,
            disable_instance_discovery=True,
            connection_verify=self.ca,
            **options,
        )
        self._resources.callback(credential.close)
        return credential

    def client(self, client_id: str = OWNER_ID, client_secret: str = OWNER_SECRET, **options: Any) -> SecretClient:
        """The SDK's client, logged in as a principal; closed when the server stops.

        `options` are what SecretClient takes besides, such as `retry_total`.
        """
        client = SecretClient(
            self.vault_url,
            self.credential(client_id, client_secret),
            verify_challenge_resource=False,
            connection_verify=self.ca,
            **options,
        )
        self._resources.callback(client.close)
        return client
