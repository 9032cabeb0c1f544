"""PostgreSQL: passwords of login roles, made here and known to the server as a SCRAM-SHA-256 verifier only.

Two or more login roles alternate (slots), so that nobody is cut off; a single one is replaced. Which credential a
role holds stands in the role's comment, changed in the same transaction as its password. See docs/postgresql.md.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Credential,
    Issued,
    KeyInfo,
    LastUse,
    Model,
    Propagation,
    SecretValue,
    Verdict,
)
from rotation.ports import Diagnosis, Grade

if TYPE_CHECKING:
    import psycopg

FIELDS: Final = ("username", "password", "host", "port", "database")
CHARACTERS: Final = 32
"""Of a password: letters and digits, which no connection string or URL has to quote; 190 bits."""

_CONNECT: Final = 10
"""Seconds, for each address of the host."""
_STATEMENT: Final = "20s"
_LOCK: Final = "5s"
_TERMINATE: Final = 5000
"""Milliseconds that a session may take to end."""
_ROUNDS: Final = 3
"""How often sessions are looked for: one that logged in meanwhile shows a moment later."""

_MARK: Final = re.compile(r"(?:^|\n)keyturn: (?P<name>\S+) (?P<at>\S+)$")
_REFUSED: Final = re.compile(r'FATAL:\s+(password authentication failed for user|role ".*" is not permitted to log in)')
_NOT_SERVED: Final = re.compile(r"FATAL:\s+(no pg_hba\.conf entry|pg_hba\.conf rejects)")
_CROWDED: Final = re.compile(r"FATAL:\s+(sorry, )?(too many (connections|clients)|remaining connection slots)")
_NARROW: Final = re.compile(r'FATAL:\s+(permission denied for database|database ".*" does not exist)')
"""Said only to who has shown the right password (postinit.c: after authentication)."""
_ADMIN_REFUSED: Final = re.compile(r"FATAL:\s+(password authentication|role |no pg_hba|pg_hba|database|permission)")

_QUIETLY: Final = (
    "SET LOCAL log_statement = 'none'",
    "SET LOCAL log_min_duration_statement = -1",
    "SET LOCAL log_min_error_statement = 'panic'",
    "SET LOCAL pg_stat_statements.track_utility = off",
)
"""Keeps even the verifier out of log and statistics, where the administrator may say so. The password is in neither."""
_ROLE: Final = """
    SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
           coalesce(shobj_description(oid, 'pg_authid'), '')
    FROM pg_roles WHERE rolname = %s
"""
# Of other roles' sessions their role is all that a role without further rights sees.
_SESSIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
_END_SESSIONS: Final = """
    SELECT pid, pg_terminate_backend(pid, %s) FROM pg_stat_activity
    WHERE usename = %s
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the roles are."""

    host: str
    port: int
    database: str
    """That consumers connect to, and the administrator as well."""
    sslmode: str = "verify-full"
    """As libpq has it: verify-full or verify-ca."""
    ca_bundle: str | None = None
    """Path of a file of certificates; None for the system's."""


@dataclass(frozen=True, slots=True)
class _Role:
    """A role as the catalog has it."""

    login: bool
    powers: tuple[str, ...]
    comment: str

    @property
    def mark(self) -> re.Match[str] | None:
        return _MARK.search(self.comment)

    @property
    def token(self) -> str | None:
        """Of the credential that it holds, or held last."""
        return self.mark["name"].rpartition(".")[2] if self.mark else None

    def commented(self, name: str, at: datetime) -> str:
        """Its comment with the mark of another credential; what a person wrote stays in front of it."""
        kept = _MARK.sub("", self.comment)
        mark = f"keyturn: {name} {at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return f"{kept}\n{mark}" if kept else mark


class _UnconnectedError(Exception):
    """No connection, in libpq's words."""


class PostgreSQLIssuer:
    """Gives declared roles new passwords.

    Parameters:
        name: the configured name.
        server: where the roles are.
        users: the login roles, which Keyturn alone gives passwords to: two or more alternate, one is replaced.
        owner: the role without login through which they act: each is its member and becomes it at every login, so
            that what one makes belongs to all. None only for a single user that acts as itself.
        admin_user: a login role with CREATEROLE that may grant `owner` and signal backends.
        admin: its password, asked for each time it is needed.

    Raises:
        ValueError: users and owner do not go together.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        users: Sequence[str],
        owner: str | None,
        admin_user: str,
        admin: Callable[[], SecretValue],
    ) -> None:
        if not users or len({*users, owner, admin_user}) != len(users) + 2 or (len(users) > 1 and owner is None):
            raise ValueError(
                f"{name}: users, owner and adminUser must be different roles, and several users need an owner"
            )
        self.name: Final = name
        self.capabilities: Final = capabilities(tuple(users), f"{server.host}:{server.port}")
        self._server = server
        self._users = tuple(users)
        self._owner = owner
        self._admin_user = admin_user
        self._admin = admin

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        """Gives a role a new password, in one transaction; the role is made where it is missing.

        Its old password is refused from then on. Raises INVALID for a role that others give passwords to.
        """
        user = self._slot(slot)
        token = key_name.rpartition(".")[2]
        what = f"giving {user} a new password"
        password = SecretValue("".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(CHARACTERS)))
        with self._administering(what) as connection, self._once(connection, what):
            _be_quiet(connection)
            _lock(connection, user)
            role = _role(connection, user)
            self._may_have(user, role, token, what)
            if (
                role
                and role.login
                and role.mark
                and role.mark["name"].rpartition(".")[0] != key_name.rpartition(".")[0]
            ):
                told = f"{user} holds the password of {role.mark['name'].rpartition('.')[0]}"
                raise Trouble(Code.INVALID, self.name, f"{what}: {told}; nothing was changed")
            at: datetime = _one(connection, "SELECT transaction_timestamp()")
            self._install(connection, user, role, password)
            mark = (role or _Role(login=False, powers=(), comment="")).commented(key_name, at)
            _execute(connection, "COMMENT ON ROLE {} IS {}", user, _literal(mark))
        where = self._server
        fields = {"username": user, "host": where.host, "port": str(where.port), "database": where.database}
        plain = {name: SecretValue(text) for name, text in fields.items()}
        return Issued(f"{user}/{token}", Credential({**plain, "password": password}), at.astimezone(UTC))

    def keys(self) -> Iterator[KeyInfo]:
        """The credentials of our roles that can log in, as far as they are Keyturn's, by the comments of the roles."""
        with self._administering("listing its roles") as connection:
            found = [(user, _role(connection, user)) for user in self._users]
        for user, role in found:
            if role and role.login and (mark := role.mark):
                at = datetime.fromisoformat(mark["at"])
                yield KeyInfo(f"{user}/{role.token}", mark["name"], at)

    def verify(self, credential: Credential) -> Check:
        """Logs in as a consumer does. Refused is only what the server says of this password."""
        fields = {name: value.reveal() for name, value in credential.fields.items()}
        where, port = self._server, fields.get("port", "")
        if fields.keys() != {*FIELDS} or not port.isdecimal():
            return Check(Verdict.INVALID, f"has not the fields {', '.join(FIELDS)} in their forms")
        if (fields["host"], int(port)) != (where.host, where.port):
            return Check(Verdict.UNKNOWN, f"it is for another server than {where.host}:{where.port}")
        import psycopg  # noqa: PLC0415

        user = fields["username"]
        try:
            connected = self._connect(user, fields["password"], fields["database"], require_auth="!password,!none")
            with connected as connection:
                acts_as: str = _one(connection, "SELECT current_user::text")
        except (_UnconnectedError, psycopg.Error) as error:
            return _judged(str(error))
        if self._owner and acts_as != self._owner:
            return Check(Verdict.LIMITED, f"{user} gets in, and acts as {acts_as} in place of {self._owner}")
        return Check(Verdict.VALID, f"{user} logs in", facts={"acts_as": acts_as})

    def smoke(self, credential: Credential) -> Check:  # noqa: ARG002 - named as in the port
        return Check(Verdict.UNKNOWN, "there is no smoke test: what a consumer may do is its owner role's affair")

    def revoke(self, key_id: str) -> None:
        """Takes the role its login and password, then ends its sessions.

        Nothing is done where the role holds another credential by now: making that one has ended this one.
        Raises INVALID for the password of a role that was adopted without its token, where the role's comment
        names one: nobody can tell whether that is the credential adopted, or one made since.
        """
        user, _, token = key_id.partition("/")
        what = f"revoking {key_id}"
        if user not in self._users:
            raise Trouble(Code.INVALID, self.name, f"{what}: {user} is none of the users that are declared")
        with self._administering(what) as connection:
            with self._once(connection, what):
                _lock(connection, user)
                role = _role(connection, user)
                if role and role.login and role.mark and not token:
                    told = (
                        f"the comment of {user} says that it holds {role.mark['name']}, and it was adopted without that"
                    )
                    remedy = (
                        f"adopt it again with adoptKeyId: {user}/{role.token}, or ALTER ROLE {user} NOLOGIN by hand"
                    )
                    raise Trouble(Code.INVALID, self.name, f"{what}: {told}: {remedy}; nothing was changed")
                if role is None or (role.mark and role.token != token) or (role.mark is None and not role.login):
                    return
                if role.mark is None and token:
                    told = f"{user} has lost Keyturn's mark in its comment, so nobody can tell whose its password is"
                    raise Trouble(Code.INVALID, self.name, f"{what}: {told}: ALTER ROLE {user} NOLOGIN by hand")
                _execute(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL", user)
            self._end_sessions(connection, user, f"{what}: its login is taken; ending its sessions")

    def last_use(self, key_id: str) -> LastUse:
        """Now, while its role has a session; otherwise unknown: the server keeps no record of logins."""
        user, _, token = key_id.partition("/")
        if user not in self._users:
            return LastUse(known=False)
        with self._administering(f"looking for sessions of {user}") as connection:
            role = _role(connection, user)
            if role is None or role.token not in (None, token) or not _one(connection, _SESSIONS, user):
                return LastUse(known=False)
            return LastUse(known=True, at=_one(connection, "SELECT now()"))

    def examine(self) -> Iterator[Diagnosis]:
        """What the administrator may, whether the roles fit, and whether refusals can be told from other answers."""
        try:
            with self._administering("looking round") as connection:
                yield from self._looked_round(connection)
        except Trouble as trouble:
            yield Diagnosis("login", Grade.UNCHECKED, str(trouble))

    # --- roles --------------------------------------------------------------------------------------

    def _slot(self, slot: str | None) -> str:
        if slot is None and len(self._users) == 1:
            return self._users[0]
        if slot not in self._users:
            raise Trouble(Code.INVALID, self.name, f"{slot} is none of its users: {', '.join(self._users)}")
        return slot

    def _may_have(self, user: str, role: _Role | None, token: str, what: str) -> None:
        """Only a role that nobody else gives passwords to gets one of ours."""
        if role is None:
            return
        if role.powers:
            told = f"{user} has {', '.join(role.powers)}: a consumer's role has none of these"
            raise Trouble(Code.INVALID, self.name, f"{what}: {told}; nothing was changed")
        if role.token == token:
            raise Trouble(Code.INVALID, self.name, f"{what}: {user} has been given this credential before")
        if role.login and role.mark is None and self.capabilities.model is Model.SLOTS:
            told = (
                f"{user} can log in, and its password is not Keyturn's: adopt what is in use with adoptKeyId: {user}, "
                f"or ALTER ROLE {user} NOLOGIN once nobody uses it"
            )
            raise Trouble(Code.INVALID, self.name, f"{what}: {told}; nothing was changed")

    def _install(
        self, connection: psycopg.Connection[Any], user: str, role: _Role | None, password: SecretValue
    ) -> None:
        verifier = connection.pgconn.encrypt_password(password.reveal().encode(), user.encode(), b"scram-sha-256")
        if role is None:
            _execute(connection, "CREATE ROLE {}", user)
        if self._owner:
            _execute(connection, "GRANT {} TO {}", self._owner, user)
            _execute(connection, "ALTER ROLE {} SET role = {}", user, _literal(self._owner))
        login = "ALTER ROLE {} LOGIN PASSWORD {} VALID UNTIL 'infinity'"
        _execute(connection, login, user, _literal(verifier.decode()))

    def _end_sessions(self, connection: psycopg.Connection[Any], user: str, what: str) -> None:
        # Each in a transaction of its own: within one, sessions show as they were at its first look.
        left = 0
        for _ in range(_ROUNDS):
            connection.execute(_END_SESSIONS, (_TERMINATE, user))
            left = _one(connection, _SESSIONS, user)
            if not left:
                return
        raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {left} have not ended yet", maybe_applied=True)

    def _looked_round(self, connection: psycopg.Connection[Any]) -> Iterator[Diagnosis]:
        mine = _role(connection, self._admin_user)
        if mine is not None and not {"SUPERUSER", "CREATEROLE"} & {*mine.powers}:
            remedy = f"ALTER ROLE {self._admin_user} CREATEROLE"
            yield Diagnosis("permissions", Grade.FAILING, f"{self._admin_user} may not change roles", remedy)
        ends = "SELECT rolsuper OR pg_has_role(oid, 'pg_signal_backend', 'USAGE') FROM pg_roles WHERE rolname = %s"
        if not _one(connection, ends, self._admin_user):
            remedy = f"GRANT pg_signal_backend TO {self._admin_user}"
            told = f"{self._admin_user} may not end the sessions of a revoked user"
            yield Diagnosis("permissions", Grade.FAILING, told, remedy)
        if self._owner:
            owner = _role(connection, self._owner)
            if owner is None:
                remedy = f"CREATE ROLE {self._owner} NOLOGIN, with the rights that its users need"
                yield Diagnosis("owner", Grade.FAILING, f"there is no role {self._owner}", remedy)
            elif owner.login or owner.powers:
                told = f"{self._owner} can log in or has {', '.join(owner.powers) or 'LOGIN'}"
                yield Diagnosis("owner", Grade.WARNING, told, f"ALTER ROLE {self._owner} NOLOGIN, without powers")
        for user in self._users:
            try:
                self._may_have(user, _role(connection, user), "", "looking round")
            except Trouble as trouble:
                yield Diagnosis("users", Grade.WARNING, str(trouble), "as said")
        language: str = _one(connection, "SELECT current_setting('lc_messages')")
        if not language.startswith(("C", "POSIX", "en")) and language:
            told = f"the server speaks {language}: a refused password can not be told from other answers"
            yield Diagnosis("messages", Grade.FAILING, told, "set lc_messages = 'C' in postgresql.conf, and reload")

    # --- connections --------------------------------------------------------------------------------

    def _connect(self, user: str, password: str, database: str, **more: Any) -> psycopg.Connection[Any]:
        import psycopg  # noqa: PLC0415

        where, said = self._server, ""
        try:
            return psycopg.connect(
                host=where.host,
                port=where.port,
                dbname=database,
                user=user,
                password=password,
                sslmode=where.sslmode,
                sslrootcert=where.ca_bundle or "system",
                sslcertmode="disable",
                gssencmode="disable",
                connect_timeout=_CONNECT,
                application_name="keyturn",
                options=f"-c statement_timeout={_STATEMENT} -c lock_timeout={_LOCK}",
                autocommit=True,
                **more,
            )
        except psycopg.Error as error:
            said = str(error)
        raise _UnconnectedError(said)  # out of the other one's reach, which holds the password

    @contextmanager
    def _administering(self, what: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection of the administrator; every fault of it as Trouble."""
        import psycopg  # noqa: PLC0415

        password = self._admin()
        try:
            connection = self._connect(
                self._admin_user, password.reveal(), self._server.database, target_session_attrs="read-write"
            )
        except _UnconnectedError as error:
            raise self._unconnected(str(error), what) from None
        with connection:
            try:
                yield connection
            except psycopg.Error as error:
                self._refuse(error, what)

    @contextmanager
    def _once(self, connection: psycopg.Connection[Any], what: str) -> Iterator[None]:
        """A transaction. What goes wrong while it is committed may have been done."""
        import psycopg  # noqa: PLC0415

        connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # it ends with the connection in any case
                connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except psycopg.Error as error:
            told = f"no good answer to its commit, so it may have been done ({error.sqlstate or 'connection lost'})"
            raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {told}", maybe_applied=True) from None

    def _refuse(self, error: psycopg.Error, what: str) -> NoReturn:
        """Turns an error of the server into Trouble: what it says of itself, never the statement."""
        state = error.sqlstate or ""
        code = Code.UNAVAILABLE
        if state == "42501":
            code = Code.DENIED
        elif state.startswith(("42", "22", "0A", "2B")):
            code = Code.INVALID
        elif state == "55P03":
            code = Code.CONFLICT
        said = (error.diag.message_primary or "the connection was lost") if state else "the connection was lost"
        told = f"{what}: {said} ({state or 'no answer'}); nothing was changed"
        raise Trouble(code, self.name, told) from None

    def _unconnected(self, said: str, what: str) -> Trouble:
        where = f"{self._admin_user} at {self._server.host}:{self._server.port}"
        code = Code.UNAVAILABLE
        if _CROWDED.search(said):
            code = Code.THROTTLED
        elif _ADMIN_REFUSED.search(said) or "certificate verify failed" in said:
            code = Code.DENIED
        return Trouble(code, self.name, f"{what}: {where}: {_last_line(said)}; nothing was changed")


def capabilities(users: tuple[str, ...], where: str) -> Capabilities:
    """What such an issuer can do.

    Parameters:
        users: its login roles.
        where: the server's address, to tell it from another one.
    """
    slots = len(users) > 1
    return Capabilities(
        model=Model.SLOTS if slots else Model.REPLACE,
        fields=FIELDS,
        slots=users if slots else (),
        scope=hashlib.sha256(where.encode()).hexdigest()[:8],
        create=Propagation(),
        revoke=Propagation(in_a_row=2, interval=timedelta(seconds=1), timeout=timedelta(minutes=1)),
    )


def _judged(said: str) -> Check:
    if _REFUSED.search(said):
        return Check(Verdict.INVALID, "the server refuses this user and password")
    if _NARROW.search(said):
        return Check(Verdict.LIMITED, f"the password is right: {_last_line(said)}")
    if _NOT_SERVED.search(said):
        return Check(Verdict.UNKNOWN, "pg_hba.conf does not let this address in, so nothing was said of the password")
    if _CROWDED.search(said):
        return Check(Verdict.UNKNOWN, "the server has no connection left")
    return Check(Verdict.UNKNOWN, f"no telling answer: {_last_line(said)}")


def _last_line(said: str) -> str:
    """What libpq says, on one line; it repeats names and addresses, never a password."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[-1] if lines else "no answer").rstrip(".")[:300]


def _be_quiet(connection: psycopg.Connection[Any]) -> None:
    import psycopg  # noqa: PLC0415

    for statement in _QUIETLY:
        connection.execute("SAVEPOINT quiet")
        try:
            connection.execute(statement)
        except psycopg.DatabaseError:  # not allowed, or of an extension that is not there
            connection.execute("ROLLBACK TO SAVEPOINT quiet")


def _lock(connection: psycopg.Connection[Any], user: str) -> None:
    """Until the end of the transaction nobody else of us changes this role."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('keyturn ' || %s, 0))", (user,))


def _role(connection: psycopg.Connection[Any], user: str) -> _Role | None:
    row = connection.execute(_ROLE, (user,)).fetchone()
    if row is None:
        return None
    named = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")
    powers = tuple(power for power, has in zip(named, row[1:6], strict=True) if has)
    return _Role(login=row[0], powers=powers, comment=row[6])


def _one(connection: psycopg.Connection[Any], statement: str, *given: object) -> Any:
    row = connection.execute(statement, given).fetchone()
    return row[0] if row else None


def _literal(text: str) -> Any:
    from psycopg import sql  # noqa: PLC0415

    return sql.Literal(text)


def _execute(connection: psycopg.Connection[Any], statement: str, *parts: Any) -> None:
    """A statement that takes no parameters: texts in `parts` are names of roles."""
    from psycopg import sql  # noqa: PLC0415

    composed = [sql.Identifier(part) if isinstance(part, str) else part for part in parts]
    connection.execute(sql.SQL(statement).format(*composed))
