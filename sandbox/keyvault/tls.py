"""The sandbox's certificate authority, kept in a directory so that every stand-in and every client can share it."""

from __future__ import annotations

import fcntl
import ssl
from pathlib import Path
from typing import Final

import trustme

from sandbox.keyvault.vault import write_private

CA_FILE: Final = "ca.pem"
"""The certificate, for clients to trust; its key lies beside it, readable by the owner only."""
_KEY_FILE: Final = "ca-key.pem"


def authority(directory: Path) -> trustme.CA:
    """The authority kept in a directory, made on first use. Several processes may ask at once; they get the same one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = directory / CA_FILE, directory / _KEY_FILE
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if certificate.exists():
            return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
        made = trustme.CA(organization_name="Keyturn sandbox")
        write_private(key, made.private_key_pem.bytes())
        write_private(certificate, made.cert_pem.bytes())
        return made


def issued(ca: trustme.CA) -> ssl.SSLContext:
    """A server's context with a fresh certificate for this machine's loopback names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


def loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context with a certificate and key from files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
