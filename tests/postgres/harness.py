"""The PostgreSQL issuer and its roles on a real server, as the contract of issuers wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, Final

import psycopg

from providers.issuers.postgresql import PostgreSQLIssuer, Server
from rotation.model import Credential, Issued, Model, SecretValue
from rotation.ports import Issuer
from tests.contracts.issuer import IssuerHarness, Mishap, Operation
from tests.postgres.server import Place
from tests.postgres.wire import Wire
from tests.world import FakeClock

USERS: Final = ("app_a", "app_b")
OWNER: Final = "app_owner"
ADMIN: Final = "keyturn"
ADMIN_PASSWORD: Final = "admin-secret-of-keyturn"

FAULTS: Final[dict[Mishap, tuple[str, str]]] = {
    Mishap.FAULT_BEFORE: ("57P01", "terminating connection due to administrator command"),
    Mishap.FAULT_AFTER: ("57P01", "terminating connection due to administrator command"),
    Mishap.THROTTLED: ("53300", "sorry, too many clients already"),
    Mishap.ADDRESS_REFUSED: ("28000", 'no pg_hba.conf entry for host "203.0.113.9", user "x", database "app", SSL on'),
}


class RunningClock(FakeClock):
    """The machine's time, which is the server's too, and what a test moved it by."""

    moved = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.moved

    def sleep(self, seconds: float) -> None:
        self.moved += timedelta(seconds=seconds)

    def move(self, by: timedelta) -> None:
        self.moved += by


class InTurn(PostgreSQLIssuer):
    """Takes its users in turn where nobody says which: the engine always does."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._next = cycle(USERS)

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        return super().mint(key_name, slot or next(self._next))


def cleared(place: Place) -> None:
    """As a database administrator leaves it to Keyturn: an owner role that Keyturn's administrator may grant."""
    with place.superuser() as superuser:
        for role in (*USERS, OWNER):
            superuser.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (role,)
            )
            if superuser.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                superuser.execute(f"DROP OWNED BY {role} CASCADE")
                superuser.execute(f"DROP ROLE {role}")
        superuser.execute(f"CREATE ROLE {OWNER} NOLOGIN")
        superuser.execute(f"GRANT {OWNER} TO {ADMIN} WITH ADMIN OPTION")
        superuser.execute(f"GRANT CONNECT ON DATABASE app TO {OWNER}")
        superuser.execute(f"GRANT ALL ON SCHEMA public TO {OWNER}")


def server(place: Place, port: int | None = None, **more: Any) -> Server:
    return Server("127.0.0.1", port or place.port, "app", ca_bundle=str(place.ca), **more)


def connect(place: Place, credential: Credential) -> psycopg.Connection[Any]:
    """As a consumer logs in."""
    given = {name: value.reveal() for name, value in credential.fields.items()}
    return psycopg.connect(
        host=given["host"], port=given["port"], dbname=given["database"], user=given["username"],
        password=given["password"], sslmode="verify-full", sslrootcert=str(place.ca), autocommit=True,
    )  # fmt: skip


class PostgreSQLHarness(IssuerHarness):
    """Two users in turn; everything passes by a wire on which things go wrong."""

    more_than_a_page = 2
    unknown_ids = ("app_a/token99", "app_b/token99", "app_b")

    def __init__(self, place: Place) -> None:
        cleared(place)
        self.clock = RunningClock()
        self.place = place
        self.wire = Wire(place)
        self.issuer = self.client(lambda: SecretValue(ADMIN_PASSWORD))
        self.watching = place.superuser()

    @property
    def model(self) -> Model:
        """Its users are slots, and each tells which key it holds: so all of the contract holds, as where keys are minted."""
        return Model.MINT

    def client(self, admin: Callable[[], SecretValue]) -> InTurn:
        return InTurn("postgres", server(self.place, self.wire.port), USERS, OWNER, ADMIN, admin)

    def close(self) -> None:
        self.watching.close()
        self.wire.close()

    def without_admin(self) -> Issuer:
        def refuse() -> SecretValue:
            raise AssertionError("the administrative credential was asked for")

        return self.client(refuse)

    def use(self, credential: Credential) -> bool:
        try:
            connect(self.place, credential).close()
        except psycopg.OperationalError:
            return False
        user = credential.fields["username"].reveal()
        while self.one("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", user):
            pass  # its session ends a moment after its connection
        return True

    def one(self, statement: str, *given: object) -> Any:
        row = self.watching.execute(statement, given).fetchone()
        return row[0] if row else None

    def live(self) -> int:
        found = self.one(
            "SELECT count(*) FROM pg_authid WHERE rolname = ANY(%s) AND rolcanlogin AND rolpassword IS NOT NULL",
            list(USERS),
        )
        return int(found)

    def mints(self) -> int:
        return self.wire.starts.count(ADMIN)

    def happen(self, mishap: Mishap, operation: Operation) -> None:
        code, message = FAULTS.get(mishap, (None, ""))
        commits = operation in ("mint", "revoke") and mishap not in (Mishap.THROTTLED, Mishap.ADDRESS_REFUSED)
        after = mishap in (Mishap.LOST_AFTER, Mishap.FAULT_AFTER)
        self.wire.happen(("committed" if after else "commit") if commits else "start", code, message)

    def secrets(self) -> Iterable[str]:
        return [ADMIN_PASSWORD]
