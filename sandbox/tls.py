"""The sandbox's certificate authority, made once for each sandbox, and certificates for its servers on 127.0.0.1."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from rotation.files import write_private
from sandbox.home import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

_MAKING: Final = threading.Lock()


def authority(directory: Path) -> Path:
    """The certificate of the CA, `ca.pem` in `directory`; made with its key, `ca.key`, when either is missing.

    Raises:
        SandboxError: the development requirements are not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - `keyturn status` must work without the development requirements
    except ImportError:
        raise needs_development_requirements("trustme") from None
    certificate, key = directory / "ca.pem", directory / "ca.key"
    with _MAKING:  # services are prepared side by side
        if not (certificate.exists() and key.exists()):
            made = trustme.CA(organization_name="Keyturn sandbox")
            write_private(key, made.private_key_pem.bytes())
            write_private(certificate, made.cert_pem.bytes())
    return certificate


def issue(directory: Path, target: Path) -> None:
    """Writes a key and a certificate for 127.0.0.1 and localhost to one file, signed by the CA in `directory`."""
    certificate = authority(directory)
    import trustme  # noqa: PLC0415 - as above

    signer = trustme.CA.from_pem(certificate.read_bytes(), (directory / "ca.key").read_bytes())
    write_private(target, signer.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.bytes())


def needs_development_requirements(package: str) -> SandboxError:
    return SandboxError(f"the sandbox needs {package}: pip install -r requirements-dev.txt")
