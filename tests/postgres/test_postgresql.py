"""What is peculiar to PostgreSQL: roles and their owner, what logs see, sessions, and whose a password is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from providers.issuers.postgresql import PostgreSQLIssuer
from rotation.errors import Code, Trouble
from rotation.model import Credential, Issued, Model, SecretValue, Verdict
from rotation.ports import Grade
from tests.contracts.issuer import key_name
from tests.postgres.harness import ADMIN, ADMIN_PASSWORD, OWNER, USERS, cleared, connect, server
from tests.postgres.server import Place


@pytest.fixture
def database(place: Place) -> Iterator[psycopg.Connection[Any]]:
    """The superuser's connection to a server with no user yet."""
    cleared(place)
    with place.superuser() as superuser:
        yield superuser


@pytest.fixture
def issuer(place: Place, database: psycopg.Connection[Any]) -> PostgreSQLIssuer:
    return alternating(place)


def alternating(place: Place, users: tuple[str, ...] = USERS, owner: str | None = OWNER) -> PostgreSQLIssuer:
    return PostgreSQLIssuer("postgres", server(place), users, owner, ADMIN, lambda: SecretValue(ADMIN_PASSWORD))


def with_field(issued: Issued, name: str, value: str) -> Credential:
    return Credential({**issued.credential.fields, name: SecretValue(value)})


def test_two_users_alternate_and_one_is_replaced(place: Place) -> None:
    """Slots are the users themselves; ids begin with the slot."""
    two, one = alternating(place), alternating(place, ("app_a",), None)
    assert (two.capabilities.model, two.capabilities.slots) == (Model.SLOTS, USERS)
    assert (one.capabilities.model, one.capabilities.slots) == (Model.REPLACE, ())


@pytest.mark.parametrize(
    ("users", "owner"),
    [((), None), (USERS, None), (("app_a", "app_a"), OWNER), (("app_a", OWNER), OWNER), ((ADMIN,), None)],
)
def test_roles_that_do_not_go_together_are_refused(place: Place, users: tuple[str, ...], owner: str | None) -> None:
    """Several users without an owner, one role in two parts."""
    with pytest.raises(ValueError, match="must be different roles"):
        alternating(place, users, owner)


def test_what_one_user_makes_belongs_to_both(place: Place, issuer: PostgreSQLIssuer) -> None:
    """Both act as the owner role from their login on, so that neither finds the other's tables shut."""
    first, second = (issuer.mint(key_name(f"token{user}"), user) for user in USERS)
    with connect(place, first.credential) as one, connect(place, second.credential) as two:
        one.execute("CREATE TABLE made_by_a (n int)")
        two.execute("INSERT INTO made_by_a VALUES (1)")
        two.execute("ALTER TABLE made_by_a ADD m int")
        assert two.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_a'").fetchall() == [(OWNER,)]


def test_the_password_is_in_no_log_and_no_statistics(
    place: Place, issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """Not even with log_statement=all, nor where the statement fails; a cleartext password would be in both."""
    settings = ("log_statement", "log_min_duration_statement", "log_min_error_statement")
    passwords = [issuer.mint(key_name(f"token{user}"), user).credential.fields["password"] for user in USERS]
    database.execute("CREATE ROLE control PASSWORD 'in-the-clear'")
    database.execute("DROP ROLE control")
    seen = [place.log.read_text()]
    if place.statistics:
        seen.append(repr(database.execute("SELECT query FROM pg_stat_statements").fetchall()))
    for text in seen:
        assert "in-the-clear" in text, "this place shows no passwords at all"
        assert not [password for password in passwords if password.reveal() in text]
    assert "SCRAM-SHA-256$" in seen[0], "an administrator who may not silence the log leaves the verifier there"
    for setting in settings:
        database.execute(f"GRANT SET ON PARAMETER {setting} TO {ADMIN}")
    try:
        end = len(seen[0])
        issuer.revoke(f"app_a/token{USERS[0]}")
        issuer.mint(key_name("quiet"), "app_a")
        assert "SCRAM-SHA-256$" not in place.log.read_text()[end:]
    finally:
        for setting in settings:
            database.execute(f"REVOKE SET ON PARAMETER {setting} FROM {ADMIN}")


def test_the_server_keeps_a_scram_verifier(issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]) -> None:
    """Whatever its own password_encryption says."""
    issuer.mint(key_name("token1"), "app_a")
    (kept,) = database.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app_a'").fetchone() or ("",)
    assert kept.startswith("SCRAM-SHA-256$")


def test_revoking_ends_the_sessions_of_its_user_only(place: Place, issuer: PostgreSQLIssuer) -> None:
    """A session outlives its password at PostgreSQL, unless somebody ends it."""
    old, new = (issuer.mint(key_name(f"token{user}"), user) for user in USERS)
    open_session = connect(place, old.credential)
    with connect(place, new.credential) as other:
        assert issuer.last_use(old.key_id).known
        issuer.revoke(old.key_id)
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("SELECT 1")
        other.execute("SELECT 1")
    assert not issuer.last_use(old.key_id).known


def test_sessions_that_were_left_are_ended_by_the_next_revocation(
    place: Place, issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """An administrator who may not end sessions is told so, after the login was taken; repeating it does the rest."""
    old = issuer.mint(key_name("token1"), "app_a")
    session = connect(place, old.credential)
    database.execute(f"REVOKE pg_signal_backend FROM {ADMIN}")
    try:
        with pytest.raises(Trouble, match="revoking app_a/token1"):
            issuer.revoke(old.key_id)
        assert issuer.verify(old.credential).verdict is Verdict.INVALID
        assert [d.grade for d in issuer.examine() if d.check == "permissions"] == [Grade.FAILING]
    finally:
        database.execute(f"GRANT pg_signal_backend TO {ADMIN}")
    session.execute("SELECT 1")
    issuer.revoke(old.key_id)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


def test_an_older_key_of_a_user_is_gone_already(place: Place, issuer: PostgreSQLIssuer) -> None:
    """Revoking it again, late, leaves the newer one of the same user alone."""
    old = issuer.mint(key_name("token1"), "app_a")
    issuer.revoke(old.key_id)
    new = issuer.mint(key_name("token2"), "app_a")
    issuer.revoke(old.key_id)
    assert issuer.verify(new.credential).verdict is Verdict.VALID
    assert issuer.verify(old.credential).verdict is Verdict.INVALID
    assert {info.key_id for info in issuer.keys()} == {"app_a/token2"}  # noqa: SIM118 - the port's method


def test_a_role_that_was_ours_is_not_revoked_by_its_bare_name(place: Place, issuer: PostgreSQLIssuer) -> None:
    """Released, and adopted again without its token: saying nothing would pass for a revocation."""
    kept = issuer.mint(key_name("token1"), "app_a")
    with pytest.raises(Trouble, match="adoptKeyId: app_a/token1"):
        issuer.revoke("app_a")
    assert issuer.verify(kept.credential).verdict is Verdict.VALID
    issuer.revoke("app_a/token1")
    issuer.revoke("app_a")
    assert issuer.verify(kept.credential).verdict is Verdict.INVALID


def test_a_key_id_is_never_given_twice(issuer: PostgreSQLIssuer) -> None:
    """A name that comes again is refused, not turned into another password of the same id."""
    issuer.mint(key_name("token1"), "app_a")
    with pytest.raises(Trouble, match="has been given this credential before"):
        issuer.mint(key_name("token1"), "app_a")


def test_a_user_whose_password_is_somebody_elses_is_left_alone(
    place: Place, issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """Until it is adopted under its own name as id, or can not log in any more."""
    database.execute("CREATE ROLE app_a LOGIN PASSWORD 'theirs'")
    with pytest.raises(Trouble, match="adoptKeyId: app_a") as raised:
        issuer.mint(key_name("token1"), "app_a")
    assert raised.value.code is Code.INVALID
    with pytest.raises(Trouble, match="has lost Keyturn's mark"):
        issuer.revoke("app_a/token1")
    fresh = issuer.mint(key_name("token2"), "app_b")
    theirs = with_field(Issued(fresh.key_id, with_field(fresh, "username", "app_a")), "password", "theirs")
    assert issuer.verify(theirs).verdict.live
    issuer.revoke("app_a")
    assert issuer.verify(theirs).verdict is Verdict.INVALID
    assert issuer.mint(key_name("token3"), "app_a").key_id == "app_a/token3"


def test_what_a_person_wrote_into_the_comment_stays(
    issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """Keyturn's mark follows it, and is the only part that changes."""
    database.execute("CREATE ROLE app_a NOLOGIN")
    database.execute("COMMENT ON ROLE app_a IS 'Support chat.\nAsk Kim.'")
    for token in ("token1", "token2"):
        issuer.mint(key_name(token), "app_a")
        issuer.revoke(f"app_a/{token}")
    said = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'app_a'"
    (comment,) = database.execute(said).fetchone() or ("",)
    assert comment.startswith(f"Support chat.\nAsk Kim.\nkeyturn: {key_name('token2')} ")
    assert comment.count("keyturn:") == 1


@pytest.mark.parametrize("power", ["SUPERUSER", "CREATEROLE", "BYPASSRLS"])
def test_a_role_with_powers_is_no_consumers(
    issuer: PostgreSQLIssuer, database: psycopg.Connection[Any], power: str
) -> None:
    """A slip in the configuration must not change the password of postgres."""
    database.execute(f"CREATE ROLE app_a {power}")
    with pytest.raises(Trouble, match=f"app_a has {power}"):
        issuer.mint(key_name("token1"), "app_a")


def test_a_user_that_is_not_declared_is_never_touched(issuer: PostgreSQLIssuer) -> None:
    """Neither given a password nor revoked."""
    with pytest.raises(Trouble, match="barred is none of its users"):
        issuer.mint(key_name("token1"), "barred")
    with pytest.raises(Trouble, match="barred is none of the users"):
        issuer.revoke("barred/token1")


def test_a_single_user_is_replaced_whatever_it_had(place: Place, database: psycopg.Connection[Any]) -> None:
    """Declared, and with a gap: the old password is refused from the mint on, sessions stay."""
    issuer = alternating(place, ("app_a",), None)
    database.execute("CREATE ROLE app_a LOGIN PASSWORD 'theirs'")
    one = issuer.mint(key_name("token1"))
    with connect(place, one.credential) as session:
        two = issuer.mint(key_name("token2"))
        session.execute("SELECT 1")
    assert issuer.verify(one.credential).verdict is Verdict.INVALID
    assert issuer.verify(two.credential).verdict is Verdict.VALID


# --- what the server says of a login -------------------------------------------------------------------


def test_a_refused_password_is_told_from_everything_else(
    place: Place, issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """Only the server's word on this user and password is a refusal."""
    issued = issuer.mint(key_name("token1"), "app_a")

    def said(credential: Credential, of: PostgreSQLIssuer = issuer) -> Verdict:
        return of.verify(credential).verdict

    assert said(with_field(issued, "password", "wrong")) is Verdict.INVALID
    assert said(with_field(issued, "username", "nobody-there")) is Verdict.INVALID
    assert said(with_field(issued, "port", "no port")) is Verdict.INVALID
    assert said(with_field(issued, "username", "barred")) is Verdict.UNKNOWN, "pg_hba.conf rejects it"
    assert said(with_field(issued, "port", "1")) is Verdict.UNKNOWN, "another server"
    assert said(with_field(issued, "database", "nowhere")) is Verdict.LIMITED, "the password is right"
    database.execute("ALTER ROLE app_a CONNECTION LIMIT 0")
    assert said(issued.credential) is Verdict.UNKNOWN, "no connection left"
    database.execute("ALTER ROLE app_a CONNECTION LIMIT -1 NOLOGIN")
    assert said(issued.credential) is Verdict.INVALID, "not permitted to log in"


def test_a_server_of_another_authority_is_not_shown_the_password(place: Place, issuer: PostgreSQLIssuer) -> None:
    """TLS is verified to the end, and its failure says nothing of the credential."""
    issued = issuer.mint(key_name("token1"), "app_a")
    where = replace(server(place), ca_bundle=None)
    stranger = PostgreSQLIssuer("postgres", where, USERS, OWNER, ADMIN, lambda: SecretValue(ADMIN_PASSWORD))
    check = stranger.verify(issued.credential)
    assert check.verdict is Verdict.UNKNOWN
    assert "certificate" in check.reason
    with pytest.raises(Trouble, match="certificate") as raised:
        stranger.mint(key_name("token2"), "app_a")
    assert raised.value.code is Code.DENIED


def test_a_user_that_does_not_become_the_owner_is_limited(
    issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """What it makes would be shut to the other user."""
    issued = issuer.mint(key_name("token1"), "app_a")
    database.execute("ALTER ROLE app_a RESET role")
    check = issuer.verify(issued.credential)
    assert check.verdict is Verdict.LIMITED
    assert "acts as app_a in place of app_owner" in check.reason


def test_examining_finds_nothing_to_do(issuer: PostgreSQLIssuer) -> None:
    """On a server that was prepared as the manual says."""
    assert list(issuer.examine()) == []


def test_examining_says_what_a_person_has_to_do(
    place: Place, issuer: PostgreSQLIssuer, database: psycopg.Connection[Any]
) -> None:
    """An owner who logs in, one who is missing, a user of somebody else's."""
    database.execute(f"ALTER ROLE {OWNER} LOGIN")
    database.execute("CREATE ROLE app_b LOGIN PASSWORD 'theirs'")
    found = {d.check: d for d in issuer.examine()}
    assert found["owner"].grade is Grade.WARNING
    assert "adoptKeyId: app_b" in found["users"].text
    missing = alternating(place, USERS, "nowhere_owner")
    assert next(d.remedy for d in missing.examine() if d.grade is Grade.FAILING).startswith("CREATE ROLE nowhere")


def test_a_refused_administrator_is_told_as_such(place: Place, issuer: PostgreSQLIssuer) -> None:
    """Nothing was changed, and a person has to act."""
    wrong = PostgreSQLIssuer("postgres", server(place), USERS, OWNER, ADMIN, lambda: SecretValue("wrong"))
    with pytest.raises(Trouble, match="password authentication failed") as raised:
        wrong.mint(key_name("token1"), "app_a")
    assert raised.value.code is Code.DENIED
    assert not raised.value.maybe_applied
