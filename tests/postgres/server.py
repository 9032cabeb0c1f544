"""Starts a real PostgreSQL server on a free port of the loopback, with TLS, and stops it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import trustme

_PLACES: Final = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin")
_HBA: Final = """
local   all postgres                trust
local   all all                     scram-sha-256
hostssl all barred     127.0.0.1/32 reject
hostssl all all        127.0.0.1/32 scram-sha-256
"""
MISSING: Final = (
    "NO POSTGRESQL SERVER ON THIS MACHINE, so nothing of providers/issuers/postgresql.py was tried: "
    "apt-get install postgresql (Debian), brew install postgresql (macOS)"
)


class Place(NamedTuple):
    """A server that runs."""

    port: int
    directory: Path
    """Of its socket, by which the superuser gets in without a password."""
    ca: Path
    log: Path
    statistics: bool
    """Whether pg_stat_statements is loaded."""
    authority: trustme.CA

    def superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.directory), port=self.port, user="postgres", dbname="app", autocommit=True)


def binaries() -> Path | None:
    """Where initdb and postgres are; the newest where there are several. None where there are none."""
    found = [path for pattern in _PLACES for path in sorted(Path("/").glob(pattern[1:]), key=_version)]
    if on_path := shutil.which("initdb"):
        found.insert(0, Path(on_path).resolve().parent)
    return next((path for path in reversed(found) if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _version(path: Path) -> int:
    return int("".join(filter(str.isdigit, str(path))) or 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(bin_directory: Path, settings: Mapping[str, str]) -> Iterator[Place]:
    """A server of its own with an empty database `app`; everything of it is gone afterwards.

    Parameters:
        bin_directory: see binaries().
        settings: for postgresql.conf, besides what the tests rely on.
    """
    home = Path(tempfile.mkdtemp(prefix="keyturn-pg-"))
    try:
        with _started(bin_directory, home, settings) as place:
            yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _started(bin_directory: Path, home: Path, settings: Mapping[str, str]) -> Iterator[Place]:
    runs_as = _unprivileged()
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    given: dict[str, Any] = {"env": env, "cwd": home, **({"user": runs_as, "extra_groups": []} if runs_as else {})}
    authority = trustme.CA()
    (home / "ca.pem").write_bytes(authority.cert_pem.bytes())
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    (home / "server.key").write_bytes(certificate.private_key_pem.bytes())
    (home / "server.key").chmod(0o600)
    (home / "server.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    _hand_over(home, runs_as)
    data, log, port = home / "data", home / "log", free_port()
    initdb: list[str | Path] = [
        bin_directory / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "--no-sync",
        "--locale=C",
    ]
    subprocess.run([*initdb, "--encoding=UTF8"], check=True, stdout=subprocess.DEVNULL, **given)
    statistics = any((bin_directory.parent / "lib").rglob("pg_stat_statements.*"))
    conf = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(home),
        "ssl": "on",
        "ssl_cert_file": str(home / "server.pem"),
        "ssl_key_file": str(home / "server.key"),
        "log_statement": "all",
        "log_connections": "on",
        "fsync": "off",
        "shared_preload_libraries": "pg_stat_statements" if statistics else "",
        **settings,
    }
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in conf.items())
    (data / "pg_hba.conf").write_text(_HBA)
    with log.open("wb") as output:
        server = subprocess.Popen([bin_directory / "postgres", "-D", data], stdout=output, stderr=output, **given)
    try:
        _await_ready(home, port, server)
        with psycopg.connect(host=str(home), port=port, user="postgres", dbname="postgres", autocommit=True) as first:
            first.execute("CREATE DATABASE app")
        yield Place(port, home, home / "ca.pem", log, statistics, authority)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _await_ready(home: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            psycopg.connect(host=str(home), port=port, user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            try:
                server.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"PostgreSQL did not start: {(home / 'log').read_text()[-2000:]}") from None
    raise RuntimeError("PostgreSQL was not ready within a minute")


def _unprivileged() -> str | None:
    """PostgreSQL does not run as root: then it runs as this user."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _hand_over(home: Path, user: str | None) -> None:
    if user is not None:
        for path in (home, *home.iterdir()):
            shutil.chown(path, user)
