"""An application as the demo's bystander: reads its key from the vault, caches it, and calls the chat endpoint all the time.

It knows nothing of Keyturn. Its credentials come from the environment as any application's would:
VAULT_ADDR, VAULT_CACERT, VAULT_ROLE_ID, VAULT_SECRET_ID, OPENAI_BASE_URL.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import hvac
import requests

CACHED_FOR = 1.0
"""Seconds for which the key is kept before the vault is asked again."""
PAUSE = 0.02
"""Seconds between requests."""


@dataclass
class Count:
    """What happened so far; written to the report file as JSON."""

    requests: int = 0
    failed: int = 0
    keys_seen: int = 0
    last_failure: str = ""


class Application:
    """Reads `value` of one entry, uses it as a bearer token."""

    def __init__(self, mount: str, entry: str) -> None:
        self._mount, self._entry = mount, entry
        self._vault = hvac.Client(url=os.environ["VAULT_ADDR"], verify=os.environ["VAULT_CACERT"])
        self._vault.auth.approle.login(os.environ["VAULT_ROLE_ID"], os.environ["VAULT_SECRET_ID"])
        self._http = requests.Session()
        self._http.trust_env = False
        self._url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        self._key, self._read_at = "", 0.0
        self.count = Count()

    def key(self) -> str:
        if time.monotonic() - self._read_at > CACHED_FOR:
            read = self._vault.secrets.kv.v2.read_secret_version(
                self._entry, mount_point=self._mount, raise_on_deleted_version=True
            )
            value = read["data"]["data"]["value"]
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
        except (requests.RequestException, hvac.exceptions.VaultError) as error:
            failure = type(error).__name__
        if failure:
            self.count.failed += 1
            self.count.last_failure = failure
            self._read_at = 0.0  # as a good client does: a refusal means that the cache is stale


def main() -> None:
    """Asks until it is told to stop, then writes its last count and goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mount", default="secret")
    parser.add_argument("--entry", required=True)
    parser.add_argument("--report", type=Path, required=True, help="JSON, rewritten all the time")
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    application = Application(options.mount, options.entry)
    while not stopping:
        application.ask()
        new = options.report.with_suffix(".new")
        new.write_text(json.dumps(asdict(application.count)))
        new.replace(options.report)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
