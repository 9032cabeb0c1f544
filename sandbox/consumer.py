"""An application as the demo's bystander: reads its key from a vault, caches it, and calls the chat endpoint all the time.

It knows nothing of Keyturn. Vault, login and endpoint come from the environment, in the variables that the vaults' own
SDKs go by where there are such: AWS_*, AZURE_*, VAULT_*, and OPENAI_BASE_URL.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import requests

CACHED_FOR = 1.0
"""Seconds for which the key is kept before the vault is asked again."""
PAUSE = 0.02
"""Seconds between requests."""

Read = Callable[[str], str]
"""The value of an entry, by the vault's own name for it."""


def _secrets_manager(env: Mapping[str, str]) -> Read:
    import boto3  # noqa: PLC0415 - an application has the SDK of its own vault, not of all

    client = boto3.session.Session(
        env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"]
    ).client("secretsmanager", endpoint_url=env["AWS_ENDPOINT_URL_SECRETS_MANAGER"])
    return lambda entry: str(client.get_secret_value(SecretId=entry)["SecretString"])


def _key_vault(env: Mapping[str, str]) -> Read:
    from azure.identity import ClientSecretCredential  # noqa: PLC0415 - as above
    from azure.keyvault.secrets import SecretClient  # noqa: PLC0415

    ca = env["AZURE_KEYVAULT_CACERT"]
    login = ClientSecretCredential(
        env["AZURE_TENANT_ID"],
        env["AZURE_CLIENT_ID"],
        env["AZURE_CLIENT_SECRET"],
        authority=env["AZURE_AUTHORITY_HOST"],
        disable_instance_discovery=True,
        connection_verify=ca,
    )
    url = env["AZURE_KEYVAULT_URL"]
    client = SecretClient(url, login, verify_challenge_resource=False, connection_verify=ca)
    return lambda entry: str(client.get_secret(entry).value)


def _vault(env: Mapping[str, str]) -> Read:
    import hvac  # noqa: PLC0415 - as above

    client = hvac.Client(url=env["VAULT_ADDR"], verify=env["VAULT_CACERT"])
    client.auth.approle.login(env["VAULT_ROLE_ID"], env["VAULT_SECRET_ID"])

    def read(entry: str) -> str:
        answer = client.secrets.kv.v2.read_secret_version(entry, mount_point="secret", raise_on_deleted_version=True)
        return str(answer["data"]["data"]["value"])

    return read


READERS: Final[Mapping[str, Callable[[Mapping[str, str]], Read]]] = {
    "aws": _secrets_manager,
    "azure": _key_vault,
    "vault": _vault,
}
"""By name of the store in Pulumi.sandbox.yaml: logs in with what the environment holds."""


@dataclass
class Count:
    """What happened so far; written to the report file as JSON."""

    requests: int = 0
    failed: int = 0
    keys_seen: int = 0
    last_failure: str = ""


class Application:
    """Uses the value of one entry as a bearer token."""

    def __init__(self, read: Read, entry: str, base_url: str) -> None:
        self._read, self._entry = read, entry
        self._http = requests.Session()
        self._http.trust_env = False
        self._url = f"{base_url}/chat/completions"
        self._key, self._read_at = "", 0.0
        self.count = Count()

    def key(self) -> str:
        if time.monotonic() - self._read_at > CACHED_FOR:
            value = self._read(self._entry)
            self.count.keys_seen += value != self._key
            self._key, self._read_at = value, time.monotonic()
        return self._key

    def ask(self) -> None:
        body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}
        self.count.requests += 1
        try:
            answer = self._http.post(
                self._url, json=body, headers={"Authorization": f"Bearer {self.key()}"}, timeout=10
            )
            failure = "" if answer.ok else f"{answer.status_code} {answer.json()['error'].get('code')}"
        except Exception as error:  # noqa: BLE001 - to its users a request failed, whichever SDK says so
            failure = type(error).__name__
        if failure:
            self.count.failed += 1
            self.count.last_failure = failure
            self._read_at = 0.0  # as a good client does: a refusal means that the cache is stale


def main() -> None:
    """Asks until it is told to stop, or whoever started it is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=READERS, required=True)
    parser.add_argument("--entry", required=True)
    parser.add_argument("--report", type=Path, required=True, help="JSON, rewritten all the time")
    options = parser.parse_args()
    starter = os.getppid()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    application = Application(READERS[options.store](os.environ), options.entry, os.environ["OPENAI_BASE_URL"])
    while not stopping and os.getppid() == starter:
        application.ask()
        new = options.report.with_suffix(".new")
        new.write_text(json.dumps(asdict(application.count)))
        new.replace(options.report)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
