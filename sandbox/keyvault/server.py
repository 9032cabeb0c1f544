"""The command that serves the stand-in until it is killed.

    python -m sandbox.keyvault.server --port 0 --ca-dir DIR [--state DIR] [--clock FILE] …

When it is ready it prints one line of JSON on stdout: {"port": N, "vault_url": …, "tenant_id": …, "client_id": …, "ca": …}.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.clock import SandboxClock
from sandbox.keyvault.control import principal_from
from sandbox.keyvault.entra import OWNER_ID, Principal
from sandbox.keyvault.serving import Server, StandIn, tls_context, tls_context_from
from sandbox.keyvault.vault import Delay, Settings


def main(argv: list[str] | None = None) -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.keyvault.server", description="A stand-in of Azure Key Vault on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    parser.add_argument("--ca-dir", type=Path, help="directory of the sandbox's CA; made there when there is none")
    parser.add_argument("--cert", type=Path, help="certificate chain to use instead of one from --ca-dir")
    parser.add_argument("--key", type=Path, help="key of --cert, unless it is in the same file")
    parser.add_argument("--state", type=Path, help="directory that keeps entries across restarts")
    parser.add_argument("--clock", type=Path, help="file of the sandbox's clock; real time without it")
    parser.add_argument("--principals", type=Path, help="JSON list of principals with their secrets and rules")
    parser.add_argument("--recoverable-days", type=int, default=90, help="days a deleted secret is kept, 7 to 90")
    parser.add_argument("--purge-protection", action="store_true", help="refuse to purge")
    for operation in ("delete", "recover", "purge"):
        parser.add_argument(f"--{operation}-seconds", type=float, default=1.0, help=f"how long a {operation} takes")
    options = parser.parse_args(argv)
    if options.ca_dir is None and options.cert is None:
        parser.error("--ca-dir or --cert is required")

    settings = Settings(
        recoverable_days=options.recoverable_days,
        purge_protection=options.purge_protection,
        delete=Delay(options.delete_seconds),
        recover=Delay(options.recover_seconds),
        purge=Delay(options.purge_seconds),
    )
    principals = _principals(options.principals)
    now = SandboxClock(options.clock).now if options.clock else _real_time
    stand_in = StandIn.open(now, state=options.state, principals=principals, settings=settings)
    ready: dict[str, Any] = {}
    if options.cert:
        context = tls_context(options.cert, options.key)
    else:
        context = tls_context_from(options.ca_dir)
        ready["ca"] = str(options.ca_dir / "ca.pem")
    server = Server(stand_in, context, options.port)
    client_id = principals[0].client_id if principals else OWNER_ID
    where = {"port": server.port, "vault_url": f"https://127.0.0.1:{server.port}"}
    print(json.dumps(where | {"tenant_id": stand_in.directory.tenant_id, "client_id": client_id} | ready), flush=True)
    server.serve_forever()


def _real_time() -> datetime:
    return datetime.now(UTC)


def _principals(path: Path | None) -> list[Principal]:
    return [principal_from(each) for each in json.loads(path.read_text())] if path else []


if __name__ == "__main__":
    main()
