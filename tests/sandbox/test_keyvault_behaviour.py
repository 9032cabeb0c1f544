"""The Key Vault stand-in through the unmodified SDK: what a store has to live with, and the levers to provoke it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

from sandbox import tls
from sandbox.clock import SandboxClock
from sandbox.keyvault import vault as model
from sandbox.keyvault.control import Fault
from sandbox.keyvault.entra import OWNER_SECRET, PERMISSIONS, Principal, Rule
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.keyvault.vault import Delay, Entry, Settings, Version


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, 0, 0, 900_000, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    @property
    def whole(self) -> datetime:
        return self.at.replace(microsecond=0)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def server(clock: MovedClock) -> Iterator[KeyVaultServer]:
    with KeyVaultServer(now=clock.now) as running:
        yield running


@pytest.fixture
def naps() -> list[float]:
    """For how long the SDK wanted to sleep, one by one; it does not sleep."""
    return []


@pytest.fixture
def client(server: KeyVaultServer, naps: list[float]) -> SecretClient:
    transport = RequestsTransport(connection_verify=server.ca)
    transport.sleep = naps.append
    return server.client(transport=transport)


@pytest.fixture
def http(server: KeyVaultServer) -> Iterator[requests.Session]:
    """A plain client that trusts the stand-in."""
    with plain(server.ca) as session:
        yield session


def plain(ca: str) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = ca
    return session


def refusal(error: HttpResponseError) -> tuple[int | None, str | None, str | None]:
    """Status, code and inner code of an error."""
    details: Any = error.error
    return error.status_code, details.code, (details.innererror or {}).get("code")


def versions_of(client: SecretClient, name: str) -> list[str | None]:
    return [each.version for each in client.list_properties_of_secret_versions(name)]


# Versions


def test_unversioned_reads_get_the_newest_version_and_others_stay_readable_by_id(client: SecretClient) -> None:
    """Writing adds a version and keeps the old ones."""
    first = client.set_secret("prod--chat", "one").properties.version
    second = client.set_secret("prod--chat", "two").properties.version
    assert client.get_secret("prod--chat").value == "two"
    assert client.get_secret("prod--chat", first).value == "one"
    assert client.get_secret("prod--chat", second).properties.version == second


def test_a_disabled_newest_version_is_refused_and_no_older_one_steps_in(client: SecretClient) -> None:
    """403 SecretDisabled, until it is enabled again; listing shows it all the same."""
    first = client.set_secret("prod--chat", "one").properties.version
    second = client.set_secret("prod--chat", "two", enabled=False).properties.version
    for version in (None, second):
        with pytest.raises(HttpResponseError) as caught:
            client.get_secret("prod--chat", version)
        assert refusal(caught.value) == (403, "Forbidden", "SecretDisabled")
    assert client.get_secret("prod--chat", first).value == "one"
    assert [each.enabled for each in client.list_properties_of_secrets()] == [False]
    client.update_secret_properties("prod--chat", enabled=True)
    assert client.get_secret("prod--chat").value == "two"


def test_a_new_version_inherits_nothing(client: SecretClient, clock: MovedClock) -> None:
    """Tags, content type and dates belong to one version."""
    expires = clock.whole + timedelta(days=90)
    client.set_secret("a", "one", tags={"owner": "chat"}, content_type="text/plain", expires_on=expires)
    properties = client.set_secret("a", "two").properties
    assert (properties.tags, properties.content_type, properties.expires_on) == (None, None, None)


def test_times_are_whole_seconds_in_utc(client: SecretClient, clock: MovedClock) -> None:
    """Fractions are cut off, so two writes within a second bear the same time."""
    first = client.set_secret("a", "one").properties
    clock.move(0.05)
    second = client.set_secret("a", "two").properties
    assert first.created_on == second.created_on == first.updated_on == clock.whole
    assert first.created_on is not None
    assert first.created_on.utcoffset() == timedelta()
    clock.move(60)
    changed = client.update_secret_properties("a", tags={"state": "current"})
    assert (changed.created_on, changed.updated_on) == (first.created_on, clock.whole)


def test_not_before_and_expiry_are_informational(client: SecretClient, clock: MovedClock) -> None:
    """The value comes even before the one and after the other date."""
    later = clock.whole + timedelta(days=1)
    earlier = clock.whole - timedelta(days=1)
    client.set_secret("a", "early", not_before=later)
    assert client.get_secret("a").value == "early"
    client.set_secret("a", "late", expires_on=earlier)
    secret = client.get_secret("a")
    assert (secret.value, secret.properties.expires_on) == ("late", earlier)


def test_an_update_replaces_tags_as_a_whole_and_leaves_what_is_not_given(client: SecretClient) -> None:
    """Two writers of one set of tags erase each other's; None means unchanged, so a date cannot be taken away."""
    expires = datetime(2030, 1, 1, tzinfo=UTC)
    version = client.set_secret("a", "one", tags={"x": "1", "y": "2"}, expires_on=expires).properties.version
    client.set_secret("a", "two")
    client.update_secret_properties("a", version, tags={"y": "3"}, expires_on=None)
    changed = client.get_secret("a", version)
    assert (changed.properties.tags, changed.properties.expires_on, changed.value) == ({"y": "3"}, expires, "one")
    client.update_secret_properties("a", version, tags={})
    assert client.get_secret("a", version).properties.tags == {}
    assert client.get_secret("a").value == "two"


LIMITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("name", {"name": "n" * 127}, {"name": "n" * 128}),
    ("characters of the name", {"name": "Az-09"}, {"name": "a_b"}),
    ("value", {"value": "é" * 12_800}, {"value": "é" * 12_801}),
    ("empty value", {"value": ""}, {"value": None}),
    ("tags", {"tags": {f"t{n}": "" for n in range(15)}}, {"tags": {f"t{n}": "" for n in range(16)}}),
    ("name of a tag", {"tags": {"t" * 256: ""}}, {"tags": {"t" * 257: ""}}),
    ("value of a tag", {"tags": {"t": "v" * 256}}, {"tags": {"t": "v" * 257}}),
    ("content type", {"content_type": "c" * 255}, {"content_type": "c" * 256}),
]


@pytest.mark.parametrize(("allowed", "refused"), [limit[1:] for limit in LIMITS], ids=[limit[0] for limit in LIMITS])
def test_limits(client: SecretClient, allowed: dict[str, Any], refused: dict[str, Any]) -> None:
    """What is at a limit is stored, what is beyond is refused with 400 and leaves nothing behind."""
    client.set_secret(**{"name": "a", "value": "v"} | allowed)
    client.begin_delete_secret(allowed.get("name", "a"))
    with pytest.raises(HttpResponseError) as caught:
        client.set_secret(**{"name": "b", "value": "v"} | refused)
    assert refusal(caught.value) == (400, "BadParameter", None)
    assert list(client.list_properties_of_secrets()) == []


def test_names_are_one_whatever_their_case(client: SecretClient) -> None:
    """A name in another case means the same secret, which keeps the case it was made with."""
    client.set_secret("Chat", "one")
    client.set_secret("CHAT", "two")
    assert client.get_secret("chat").value == "two"
    assert [each.name for each in client.list_properties_of_secrets()] == ["Chat"]


@pytest.mark.parametrize("name", ["restore", "versions", "backup"])
def test_names_that_are_words_of_the_protocol_are_names(client: SecretClient, name: str) -> None:
    """Routes do not take a secret for an operation."""
    client.set_secret(name, "value")
    assert client.get_secret(name).value == "value"
    client.update_secret_properties(name, tags={"a": "b"})
    assert len(versions_of(client, name)) == 1


def test_unknown_secrets_and_versions(client: SecretClient) -> None:
    """404 SecretNotFound for both; listing the versions of an unknown name is no error."""
    client.set_secret("a", "v")
    for name, version in (("b", None), ("a", "0" * 32)):
        with pytest.raises(ResourceNotFoundError) as caught:
            client.get_secret(name, version)
        assert refusal(caught.value) == (404, "SecretNotFound", None)
    with pytest.raises(ResourceNotFoundError):
        client.update_secret_properties("b", enabled=False)
    with pytest.raises(ResourceNotFoundError):
        client.begin_delete_secret("b")
    assert versions_of(client, "b") == []


# Lists


def test_versions_are_listed_by_their_id_and_in_pages(client: SecretClient, server: KeyVaultServer) -> None:
    """The order says nothing about age; 60 versions come as pages of 25, 25 and 10."""
    made = [client.set_secret("a", str(number)).properties.version for number in range(60)]
    pages = [len(list(page)) for page in client.list_properties_of_secret_versions("a").by_page()]
    assert pages == [25, 25, 10]
    listed = versions_of(client, "a")
    assert listed == sorted(each for each in made if each)
    assert listed != made


def test_secrets_are_listed_by_name_case_aside_without_values(client: SecretClient) -> None:
    """Items carry the newest version's properties and no version."""
    for name in ("b", "C", "a", "B2"):
        client.set_secret(name, "the-value", tags={"name": name})
    listed = list(client.list_properties_of_secrets())
    assert [(each.name, each.version, each.tags) for each in listed] == [
        (name, None, {"name": name}) for name in ("a", "b", "B2", "C")
    ]


def test_links_to_the_next_page_name_the_port_and_are_followed_from_the_middle(
    client: SecretClient, server: KeyVaultServer
) -> None:
    """A link resumes where it was given, with the page size that was asked for."""
    for number in range(7):
        client.set_secret(f"s{number}", "v")
    pages = client.list_properties_of_secrets(max_page_size=3).by_page()
    assert [each.name for each in next(pages)] == ["s0", "s1", "s2"]
    link = pages.continuation_token  # type: ignore[attr-defined]
    assert link.startswith(f"https://127.0.0.1:{server.port}/secrets?api-version=")
    assert "&$skiptoken=" in link
    resumed = client.list_properties_of_secrets().by_page(link)
    assert [[each.name for each in page] for page in resumed] == [["s3", "s4", "s5"], ["s6"]]


def test_pages_can_be_short_or_empty(client: SecretClient, server: KeyVaultServer) -> None:
    """An empty page is not the end; only a missing link is."""
    names = [f"s{number}" for number in range(5)]
    for name in names:
        client.set_secret(name, "v")
    server.control.plan_pages("/secrets", [0, 2, 0, 3, 0])
    pages = [[each.name for each in page] for page in client.list_properties_of_secrets().by_page()]
    assert pages == [[], names[:2], [], names[2:], []]
    server.control.plan_pages("/secrets/s0/versions", [0, 1])
    assert len(versions_of(client, "s0")) == 1


@pytest.mark.parametrize("size", [0, 26])
def test_page_sizes_out_of_range_are_refused(client: SecretClient, size: int) -> None:
    """A page holds 1 to 25 items."""
    with pytest.raises(HttpResponseError) as caught:
        list(client.list_properties_of_secrets(max_page_size=size))
    assert refusal(caught.value)[:2] == (400, "BadParameter")


def test_many_entries_are_listed_in_pages(client: SecretClient, server: KeyVaultServer) -> None:
    """2,000 entries come as 80 pages, each once."""
    names = [f"prod--service-{number:04}" for number in range(2_000)]
    for name in names:
        server.vault.seed(Entry(name, (Version("0" * 32, "v", 0, 0),)))
    server.control.clear_log()
    assert [each.name for each in client.list_properties_of_secrets()] == names
    assert server.control.count("GET", "/secrets") == 80


# Deleting, recovering, purging


def test_deleting_is_soft_and_takes_a_moment(client: SecretClient, server: KeyVaultServer, clock: MovedClock) -> None:
    """Gone at once, in the list of the deleted later, and the name is taken all the while."""
    server.vault.settings = Settings(delete=Delay(seconds=5))
    client.set_secret("a", "v")
    poller = client.begin_delete_secret("a")
    assert poller.result().deleted_date == clock.whole
    assert poller.result().scheduled_purge_date == clock.whole + timedelta(days=90)
    with pytest.raises(ResourceNotFoundError):
        client.get_secret("a")
    with pytest.raises(ResourceNotFoundError) as early:
        client.get_deleted_secret("a")
    assert "Deleted Secret not found: a" in str(early.value)
    with pytest.raises(ResourceExistsError) as during:
        client.set_secret("a", "again")
    assert refusal(during.value) == (409, "Conflict", "ObjectIsBeingDeleted")
    for operation in (client.begin_recover_deleted_secret, client.purge_deleted_secret):
        with pytest.raises(ResourceExistsError):
            operation("a")
    assert (list(client.list_properties_of_secrets()), list(client.list_deleted_secrets())) == ([], [])

    clock.move(5)
    assert client.get_deleted_secret("a").name == "a"
    assert [each.name for each in client.list_deleted_secrets()] == ["a"]
    assert versions_of(client, "a") == []
    with pytest.raises(ResourceExistsError) as after:
        client.set_secret("a", "again")
    assert refusal(after.value) == (409, "Conflict", "ObjectIsDeletedButRecoverable")
    with pytest.raises(ResourceNotFoundError):
        client.begin_delete_secret("a")


def test_the_poller_asks_until_the_deletion_is_over(
    client: SecretClient, server: KeyVaultServer, naps: list[float]
) -> None:
    """`result` does not wait, `wait` does: every two seconds, without end."""
    server.vault.settings = Settings(delete=Delay(refusals=3))
    client.set_secret("a", "v")
    poller = client.begin_delete_secret("a")
    assert poller.result().name == "a"
    assert server.control.count("GET", "/deletedsecrets/a") == 0
    poller.wait()
    assert server.control.count("GET", "/deletedsecrets/a") == 4
    assert naps == [2, 2, 2]


def test_recovering_takes_a_moment_and_brings_everything_back(
    client: SecretClient, server: KeyVaultServer, clock: MovedClock
) -> None:
    """Versions, values, tags and times are as they were."""
    server.vault.settings = Settings(recover=Delay(seconds=5))
    client.set_secret("a", "one", tags={"t": "1"})
    clock.move(100)
    client.set_secret("a", "two")
    before = client.get_secret("a").properties
    versions = versions_of(client, "a")
    client.begin_delete_secret("a")
    clock.move(100)
    client.begin_recover_deleted_secret("a")
    with pytest.raises(ResourceNotFoundError):
        client.get_secret("a")
    with pytest.raises(ResourceNotFoundError):
        client.get_deleted_secret("a")
    with pytest.raises(ResourceExistsError) as caught:
        client.set_secret("a", "three")
    assert refusal(caught.value) == (409, "Conflict", "ObjectIsBeingRecovered")
    clock.move(5)
    after = client.get_secret("a").properties
    assert (after.version, after.created_on, after.updated_on) == (before.version, before.created_on, before.updated_on)
    assert versions_of(client, "a") == versions
    with pytest.raises(ResourceNotFoundError):
        client.begin_recover_deleted_secret("a")


def test_purging_frees_the_name_after_a_moment(client: SecretClient, server: KeyVaultServer, clock: MovedClock) -> None:
    """Until then a write is refused as on a secret that is being deleted."""
    server.vault.settings = Settings(purge=Delay(seconds=5))
    client.set_secret("a", "one")
    with pytest.raises(ResourceNotFoundError):
        client.purge_deleted_secret("a")
    client.begin_delete_secret("a")
    client.purge_deleted_secret("a")
    for gone in (client.get_deleted_secret, client.purge_deleted_secret, client.begin_recover_deleted_secret):
        with pytest.raises(ResourceNotFoundError):
            gone("a")
    with pytest.raises(ResourceExistsError) as caught:
        client.set_secret("a", "two")
    assert refusal(caught.value) == (409, "Conflict", "ObjectIsBeingDeleted")
    clock.move(5)
    client.set_secret("a", "two")
    assert len(versions_of(client, "a")) == 1


def test_purge_protection_refuses(client: SecretClient, server: KeyVaultServer) -> None:
    """403, and the recovery level tells beforehand."""
    server.vault.settings = Settings(purge_protection=True, recoverable_days=7)
    assert client.set_secret("a", "v").properties.recovery_level == "CustomizedRecoverable"
    client.begin_delete_secret("a")
    with pytest.raises(HttpResponseError) as caught:
        client.purge_deleted_secret("a")
    assert refusal(caught.value)[:2] == (403, "Forbidden")
    client.begin_recover_deleted_secret("a")
    assert client.get_secret("a").value == "v"


def test_the_service_purges_when_the_time_is_over(
    client: SecretClient, server: KeyVaultServer, clock: MovedClock
) -> None:
    """After the recoverable days the entry is gone and its name free."""
    server.vault.settings = Settings(recoverable_days=7)
    secret = client.set_secret("a", "v").properties
    assert (secret.recovery_level, secret.recoverable_days) == ("CustomizedRecoverable+Purgeable", 7)
    client.begin_delete_secret("a")
    clock.move(7 * 86_400 - 1)
    assert len(list(client.list_deleted_secrets())) == 1
    clock.move(1)
    assert list(client.list_deleted_secrets()) == []
    client.set_secret("a", "again")


# Backups


def test_a_backup_restores_all_versions_with_their_times(client: SecretClient, clock: MovedClock) -> None:
    """Also after a purge; the blob shows neither name nor value."""
    first = client.set_secret("chat", "the-first-value", tags={"t": "1"}).properties
    clock.move(60)
    client.set_secret("chat", "the-second-value")
    blob = client.backup_secret("chat")
    assert b"chat" not in blob
    assert b"value" not in blob
    client.begin_delete_secret("chat")
    client.purge_deleted_secret("chat")
    clock.move(60)
    restored = client.restore_secret_backup(blob)
    assert restored.created_on == clock.whole - timedelta(seconds=60)
    assert client.get_secret("chat").value == "the-second-value"
    old = client.get_secret("chat", first.version)
    assert (old.value, old.properties.tags, old.properties.created_on) == (
        "the-first-value",
        {"t": "1"},
        first.created_on,
    )


def test_restoring_is_refused_while_the_name_is_in_use(client: SecretClient, server: KeyVaultServer) -> None:
    """409 over an active entry, a deleted one, and one whose purge is not over."""
    server.vault.settings = Settings(purge=Delay(refusals=1))
    client.set_secret("a", "v")
    blob = client.backup_secret("a")
    for next_step in (client.begin_delete_secret, client.purge_deleted_secret, lambda _name: None):
        with pytest.raises(ResourceExistsError) as caught:
            client.restore_secret_backup(blob)
        assert refusal(caught.value) == (409, "Conflict", None)
        next_step("a")
    client.restore_secret_backup(blob)
    assert client.get_secret("a").value == "v"


def test_a_changed_or_foreign_backup_is_refused(client: SecretClient, server: KeyVaultServer) -> None:
    """400 for bytes that are no backup, for a backup with a bit turned, and for one of another vault."""
    client.set_secret("a", "v")
    blob = client.backup_secret("a")
    turned = blob[:-20] + bytes([blob[-20] ^ 1]) + blob[-19:]
    with KeyVaultServer() as other:
        foreign = other.client()
        foreign.set_secret("b", "v")
        for wrong in (b"", b"nothing", turned, foreign.backup_secret("b")):
            with pytest.raises(HttpResponseError) as caught:
                client.restore_secret_backup(wrong)
            assert refusal(caught.value) == (400, "BadParameter", None)


def test_a_backup_holds_at_most_500_versions(client: SecretClient, server: KeyVaultServer) -> None:
    """One more is refused."""
    versions = tuple(Version(f"{number:032x}", "v", number, number) for number in range(501))
    server.vault.seed(Entry("at-the-limit", versions[:500]))
    server.vault.seed(Entry("beyond", versions))
    client.backup_secret("at-the-limit")
    with pytest.raises(HttpResponseError) as caught:
        client.backup_secret("beyond")
    assert caught.value.status_code == 400


def test_a_secret_that_backs_a_certificate_is_shown_and_not_changed(
    client: SecretClient, server: KeyVaultServer
) -> None:
    """It is marked as managed; set, update and delete are refused."""
    server.vault.seed(
        Entry("cert", (Version("0" * 32, "pem", 0, 0, content_type="application/x-pem-file"),), managed=True)
    )
    assert client.get_secret("cert").properties.managed is True
    assert [each.managed for each in client.list_properties_of_secrets()] == [True]
    changes: list[Callable[[], object]] = [
        lambda: client.set_secret("cert", "v"),
        lambda: client.update_secret_properties("cert", enabled=False),
        lambda: client.begin_delete_secret("cert"),
    ]
    for change in changes:
        with pytest.raises(HttpResponseError) as caught:
            change()
        assert caught.value.status_code == 403


# Faults, and what the SDK makes of them


def test_an_answer_lost_after_the_write_makes_the_sdk_write_again(
    client: SecretClient, server: KeyVaultServer, naps: list[float]
) -> None:
    """By default a PUT goes out up to four times: four versions of one call, which fails all the same."""
    client.set_secret("a", "before")
    server.control.clear_log()
    server.control.drop("PUT", "/secrets/a", when="after", times=9)
    with pytest.raises(ServiceResponseError):
        client.set_secret("a", "value")
    assert server.control.count("PUT") == 4
    assert len(versions_of(client, "a")) == 5
    assert naps == [1.6, 3.2]


def test_with_retries_off_a_lost_answer_leaves_one_version(client: SecretClient, server: KeyVaultServer) -> None:
    """`retry_total=0` on the call: one send, an error, and the write to be found by its tag."""
    client.get_secret(client.set_secret("other", "v").name or "")
    server.control.drop("PUT", "/secrets/a", when="after")
    with pytest.raises(ServiceResponseError):
        client.set_secret("a", "value", tags={"token": "t1"}, retry_total=0)
    assert [each.tags for each in client.list_properties_of_secret_versions("a")] == [{"token": "t1"}]


def test_a_connection_cut_before_the_write_leaves_nothing(client: SecretClient, server: KeyVaultServer) -> None:
    """The caller sees the same error as when the answer was lost, and cannot tell the two apart."""
    server.control.drop("PUT", "/secrets/a", when="before")
    with pytest.raises(ServiceResponseError):
        client.set_secret("a", "value", retry_total=0)
    assert versions_of(client, "a") == []


def test_an_error_status_after_the_write_is_a_lost_answer_too(client: SecretClient, server: KeyVaultServer) -> None:
    """A gateway's 504 says nothing about the write behind it."""
    server.control.fail("PUT", "/secrets/a", 504, when="after")
    with pytest.raises(HttpResponseError):
        client.set_secret("a", "value", retry_total=0)
    assert client.get_secret("a").value == "value"


def test_a_delete_whose_answer_is_lost_ends_as_not_found(client: SecretClient, server: KeyVaultServer) -> None:
    """The SDK sends it again, and the second one finds nothing to delete."""
    client.set_secret("a", "v")
    server.control.drop("DELETE", "/secrets/a", when="after")
    with pytest.raises(ResourceNotFoundError):
        client.begin_delete_secret("a")
    assert client.get_deleted_secret("a").name == "a"


# What goes out for one call that meets the fault each time, by how the retries are set:
# method, status, Retry-After, sends by default, with retry_on_methods=["GET", "HEAD"], with retry_total=0.
RESENDING = [
    ("PUT", 429, 7, 4, 4, 1),
    ("PUT", 429, None, 4, 1, 1),
    ("PUT", 503, 7, 4, 4, 1),
    ("PUT", 503, None, 4, 1, 1),
    ("PATCH", 429, None, 1, 1, 1),
    ("PATCH", 429, 7, 4, 4, 1),
    ("PATCH", 502, None, 1, 1, 1),
    ("PATCH", 503, None, 4, 4, 1),
    ("POST", 500, None, 4, 4, 1),
    ("DELETE", 500, None, 4, 1, 1),
    ("GET", 429, 7, 4, 4, 1),
    ("GET", 503, None, 4, 4, 1),
]


@pytest.mark.parametrize(("method", "status", "retry_after", "default", "reads_only", "off"), RESENDING)
def test_only_retry_total_0_keeps_the_sdk_from_sending_again(
    client: SecretClient,
    server: KeyVaultServer,
    naps: list[float],
    method: str,
    status: int,
    retry_after: int | None,
    default: int,
    reads_only: int,
    off: int,
) -> None:
    """`retry_on_methods` does not stop it where there is a Retry-After, nor a PATCH or POST that met 500, 503 or 504."""
    client.set_secret("a", "v")
    calls: dict[str, Callable[..., object]] = {
        "PUT": lambda **options: client.set_secret("a", "v", **options),
        "PATCH": lambda **options: client.update_secret_properties("a", tags={"a": "b"}, **options),
        "POST": lambda **options: client.backup_secret("a", **options),
        "DELETE": lambda **options: client.begin_delete_secret("a", **options),
        "GET": lambda **options: client.get_secret("a", **options),
    }
    sends = []
    for options in ({}, {"retry_on_methods": ["GET", "HEAD"]}, {"retry_total": 0}):
        server.control.clear_log()
        server.control.clear_faults()
        server.control.fail(method, "*", status, retry_after=retry_after, times=9)
        with pytest.raises(HttpResponseError) as caught:
            calls[method](**options)
        assert caught.value.status_code == status
        sends.append(server.control.count(method))
    assert sends == [default, reads_only, off]
    if retry_after:
        assert set(naps) == {retry_after}


def test_throttling_ends(client: SecretClient, server: KeyVaultServer, naps: list[float]) -> None:
    """After a 429 with Retry-After the SDK waits as told and succeeds."""
    client.set_secret("a", "v")
    server.control.fail("GET", "/secrets/a", 429, retry_after=7)
    assert client.get_secret("a").value == "v"
    assert naps == [7]
    assert [(record.status, record.fault) for record in server.control.log[-2:]] == [(429, "status"), (200, None)]


def test_faults_strike_where_and_when_they_are_told(client: SecretClient, server: KeyVaultServer) -> None:
    """Others pass, the first ones pass, and the SDK's empty first request uses none up."""
    server.control.fail("PUT", "/secrets/prod--*", 500, skip=1)
    client.set_secret("dev--a", "v")
    client.set_secret("prod--a", "v")
    with pytest.raises(HttpResponseError):
        client.set_secret("prod--b", "v", retry_total=0)
    client.set_secret("prod--b", "v")
    assert server.control.faults() == []


def test_a_write_can_be_held_while_another_one_overtakes_it(client: SecretClient, server: KeyVaultServer) -> None:
    """Without compare-and-set the one that stalled wins when it goes on."""
    client.set_secret("a", "base")
    hold = server.control.hold("PUT", "/secrets/a")
    stalled = threading.Thread(target=client.set_secret, args=("a", "stalled"))
    stalled.start()
    server.control.wait_held(hold)
    server.client().set_secret("a", "overtaking")
    assert client.get_secret("a").value == "overtaking"
    server.control.release(hold)
    stalled.join()
    assert client.get_secret("a").value == "stalled"
    assert len(versions_of(client, "a")) == 3


def test_reads_can_be_stale_one_by_one(client: SecretClient, server: KeyVaultServer) -> None:
    """A stale read shows the state before the latest writes, to lists as well; the next one is fresh again."""
    client.set_secret("a", "one")
    client.set_secret("a", "two")
    client.set_secret("b", "one")
    server.control.stale("/secrets/a", commits=2)
    assert client.get_secret("a").value == "one"
    assert client.get_secret("a").value == "two"
    server.control.stale("/secrets", commits=1)
    assert [each.name for each in client.list_properties_of_secrets()] == ["a"]
    server.control.stale("/secrets/a/versions", commits=2)
    assert len(versions_of(client, "a")) == 1
    server.control.stale("/secrets/b")
    with pytest.raises(ResourceNotFoundError):
        client.get_secret("b")


def test_writes_can_take_time_to_become_visible(
    client: SecretClient, server: KeyVaultServer, clock: MovedClock
) -> None:
    """Reads lag; writes act on what is really there."""
    client.set_secret("a", "one")
    clock.move(60)
    server.vault.settings = Settings(visible_after=10)
    client.set_secret("a", "two")
    assert client.get_secret("a").value == "one"
    client.update_secret_properties("a", tags={"of": "two"})
    clock.move(11)
    secret = client.get_secret("a")
    assert (secret.value, secret.properties.tags, len(versions_of(client, "a"))) == ("two", {"of": "two"}, 2)


def test_the_vault_can_be_down_for_a_while(client: SecretClient, server: KeyVaultServer) -> None:
    """Connections are refused, also on connections kept open; afterwards all is as before, on the same port."""
    client.set_secret("a", "v")
    with server.down(), pytest.raises(ServiceRequestError):
        client.get_secret("a", retry_total=0)
    assert client.get_secret("a").value == "v"


# Who may do what


def test_the_first_request_carries_no_body_and_fetches_the_challenge(
    client: SecretClient, server: KeyVaultServer
) -> None:
    """Discovery, one token, and then no further challenge."""
    client.set_secret("a", "v")
    client.set_secret("a", "v")
    tenant = server.tenant_id
    assert [(record.method, record.path, record.status) for record in server.control.log] == [
        ("PUT", "/secrets/a", 401),
        ("GET", f"/{tenant}/v2.0/.well-known/openid-configuration", 200),
        ("POST", f"/{tenant}/oauth2/v2.0/token", 200),
        ("PUT", "/secrets/a", 200),
        ("PUT", "/secrets/a", 200),
    ]


def test_rights_are_checked_for_each_operation_and_name(client: SecretClient, server: KeyVaultServer) -> None:
    """A principal with one permission on some names can do that and nothing else; 403 comes before 404."""
    for name in ("dev--a", "prod--a"):
        client.set_secret(name, "v")
    client.set_secret("dev--gone", "v")
    client.begin_delete_secret("dev--gone")
    blob = client.backup_secret("dev--a")
    for permission in sorted(PERMISSIONS):
        names = ("*",) if permission == "restore" else ("dev--*",)
        server.add_principal(Principal("app", "s", allow=(Rule(frozenset({permission}), names),)))
        app = server.client("app", "s")
        calls = calls_by_permission(app, blob)
        denied = [call for other, call in calls.items() if other != permission]
        denied += [partial(app.get_secret, "prod--a"), partial(app.get_secret, "prod--none")]
        for call in denied:
            with pytest.raises(HttpResponseError) as caught:
                call()
            assert refusal(caught.value) == (403, "Forbidden", "ForbiddenByRbac")
        if permission in {"get", "list", "set", "backup"}:
            calls[permission]()


def calls_by_permission(client: SecretClient, backup: bytes) -> dict[str, Callable[[], object]]:
    """A call for each permission, which needs that one and no other."""
    return {
        "get": lambda: client.get_secret("dev--a"),
        "list": lambda: versions_of(client, "dev--a"),
        "set": lambda: client.set_secret("dev--new", "v"),
        "backup": lambda: client.backup_secret("dev--a"),
        "delete": lambda: client.begin_delete_secret("dev--a"),
        "recover": lambda: client.begin_recover_deleted_secret("dev--gone"),
        "purge": lambda: client.purge_deleted_secret("dev--gone"),
        "restore": lambda: client.restore_secret_backup(backup),
    }


def test_a_rule_for_some_names_does_not_reach_to_the_whole_list(client: SecretClient, server: KeyVaultServer) -> None:
    """Listing the vault needs the permission on all of it."""
    client.set_secret("dev--a", "v")
    for names, allowed in ((("dev--*",), False), (("*",), True)):
        server.add_principal(Principal("app", "s", allow=(Rule(frozenset({"list"}), names),)))
        app = server.client("app", "s")
        if allowed:
            assert len(list(app.list_properties_of_secrets())) == 1
        else:
            with pytest.raises(HttpResponseError):
                list(app.list_properties_of_secrets())


def test_a_denial_wins_and_takes_effect_on_tokens_already_issued(client: SecretClient, server: KeyVaultServer) -> None:
    """Rules are looked up with each request; a principal that is removed is out."""
    client.set_secret("prod--a", "v")
    everything = (Rule(PERMISSIONS),)
    server.add_principal(Principal("app", "s", allow=everything))
    app = server.client("app", "s")
    assert app.get_secret("prod--a").value == "v"
    server.add_principal(Principal("app", "s", allow=everything, deny=(Rule(frozenset({"get"}), ("prod--*",)),)))
    with pytest.raises(HttpResponseError) as caught:
        app.get_secret("prod--a")
    assert caught.value.status_code == 403
    server.directory.remove("app")
    with pytest.raises(ClientAuthenticationError):
        app.get_secret("prod--a")


def token(http: requests.Session, server: KeyVaultServer, **changes: str) -> requests.Response:
    form = {"client_id": server.client_id, "client_secret": server.client_secret, "grant_type": "client_credentials"}
    form |= {"scope": "https://vault.azure.net/.default"} | changes
    return http.post(f"{server.authority}/{server.tenant_id}/oauth2/v2.0/token", form, timeout=10)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"client_secret": "wrong"}, 401, "AADSTS7000215"),
        ({"client_id": "nobody"}, 400, "AADSTS700016"),
        ({"scope": "https://example.org/.default"}, 400, "AADSTS500011"),
        ({"scope": "https://vault.azure.net/read"}, 400, "AADSTS1002012"),
        ({"grant_type": "password"}, 400, "AADSTS70003"),
    ],
)
def test_tokens_are_refused(
    http: requests.Session, server: KeyVaultServer, changes: dict[str, str], status: int, code: str
) -> None:
    """In Entra's words, as far as azure-identity reads them."""
    response = token(http, server, **changes)
    assert (response.status_code, response.json()["error_description"].partition(":")[0]) == (status, code)


def test_an_unknown_tenant_has_no_tokens(http: requests.Session, server: KeyVaultServer) -> None:
    """Neither discovery nor the token endpoint."""
    for path in ("other/v2.0/.well-known/openid-configuration", "other/oauth2/v2.0/token"):
        response = http.request("GET" if "open" in path else "POST", f"{server.authority}/{path}", timeout=10)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_tenant")


def test_tokens_are_checked_with_every_request(http: requests.Session) -> None:
    """Missing, made up, of another vault, for another audience, of another tenant, too old: each is told apart."""
    now = [1_000_000.0]
    with (
        KeyVaultServer(wall=lambda: now[0]) as server,
        KeyVaultServer(wall=lambda: now[0], tenant_id="00000000-0000-4000-8000-000000000000") as other,
    ):
        http.verify = server.ca
        good = token(http, server).json()
        assert good["expires_in"] == 3599
        wrong_audience = token(http, server, scope="https://management.azure.com/.default").json()["access_token"]
        other.directory._key = server.directory._key
        form = {"client_id": other.client_id, "client_secret": other.client_secret}
        form |= {"grant_type": "client_credentials", "scope": "https://vault.azure.net/.default"}
        wrong_tenant = other.directory.token(form)[0]["access_token"]

        def answer(authorization: str | None) -> requests.Response:
            headers = {"Authorization": authorization} if authorization else {}
            return http.get(f"{server.vault_url}/secrets?api-version=7.6", headers=headers, timeout=10)

        bearer = f"Bearer {good['access_token']}"
        assert answer(bearer).status_code == 200
        for authorization, message in (
            (None, "AKV10000"),
            ("Basic abc", "AKV10000"),
            ("Bearer abc", "AKV10046"),
            (bearer[:-3] + "abc", "AKV10046"),
            (f"Bearer {wrong_audience}", "AKV10022"),
            (f"Bearer {wrong_tenant}", "AKV10032"),
        ):
            response = answer(authorization)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "Unauthorized"
            assert response.json()["error"]["message"].startswith(message)
            assert response.headers["WWW-Authenticate"] == (
                f'Bearer authorization="{server.authority}/{server.tenant_id}", resource="https://vault.azure.net"'
            )
        now[0] += 3599
        assert answer(bearer).status_code == 401


def test_the_sdk_does_not_get_past_a_token_that_the_vault_alone_holds_to_be_over(
    client: SecretClient, server: KeyVaultServer
) -> None:
    """MSAL hands out its cached token again after a plain 401, so the call fails until that token ends by the clock."""
    client.set_secret("a", "v")
    server.directory._key = b"another key, as after a restart without state"
    server.control.clear_log()
    with pytest.raises(ClientAuthenticationError):
        client.get_secret("a")
    assert server.control.count("POST", "*/token") == 0


def test_a_claims_challenge_makes_the_sdk_fetch_a_new_token(client: SecretClient, server: KeyVaultServer) -> None:
    """Revoked tokens are renewed within the same call."""
    client.set_secret("a", "v")
    server.directory.revoke_tokens()
    server.control.clear_log()
    assert client.get_secret("a").value == "v"
    assert [(record.method, record.status) for record in server.control.log] == [
        ("GET", 401),
        ("POST", 200),
        ("GET", 200),
    ]


def test_tokens_with_less_than_five_minutes_to_live_are_fetched_anew_for_each_call(
    client: SecretClient, server: KeyVaultServer
) -> None:
    """MSAL and the SDK take them to be over already."""
    server.directory.token_lifetime = 299
    for _ in range(3):
        client.set_secret("a", "v")
    assert server.control.count("POST", "*/token") == 3


def test_a_wrong_client_secret_is_an_authentication_error(server: KeyVaultServer) -> None:
    """It comes from azure-identity, without a status."""
    with pytest.raises(ClientAuthenticationError) as caught:
        server.client(client_secret="wrong").get_secret("a")
    assert "AADSTS7000215" in str(caught.value)
    assert caught.value.status_code is None


def test_the_default_credential_works_with_it(server: KeyVaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names tenant, client and authority, as in a deployment."""
    monkeypatch.setenv("AZURE_TENANT_ID", server.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", server.client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", server.client_secret)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.authority)
    with (
        closing(DefaultAzureCredential(connection_verify=server.ca, disable_instance_discovery=True)) as credential,
        SecretClient(
            server.vault_url, credential, verify_challenge_resource=False, connection_verify=server.ca
        ) as client,
    ):
        assert client.set_secret("a", "v").value == "v"


def test_requests_that_are_not_the_services_are_refused(http: requests.Session, server: KeyVaultServer) -> None:
    """Unknown versions of the API, unknown paths, wrong methods, bodies that are no JSON."""
    headers = {"Authorization": f"Bearer {token(http, server).json()['access_token']}"}

    def answer(method: str, path: str, **more: Any) -> tuple[int, str]:
        response = http.request(method, f"{server.vault_url}{path}", headers=headers, timeout=10, **more)
        return response.status_code, response.json()["error"]["code"]

    assert answer("GET", "/secrets") == (400, "BadParameter")
    assert answer("GET", "/secrets?api-version=9.9") == (400, "BadParameter")
    assert answer("GET", "/secrets?api-version=7.6&$skiptoken=abcd") == (400, "BadParameter")
    assert answer("GET", "/secrets?api-version=7.6&$skiptoken=é") == (400, "BadParameter")
    assert answer("GET", "/secrets/a/not-a-version?api-version=7.6")[0] == 404
    assert answer("PUT", "/secrets/a?api-version=7.6", data=b"{") == (400, "BadParameter")
    assert answer("PUT", "/secrets/a?api-version=7.6", json={"value": "v", "tags": {"a": 1}}) == (400, "BadParameter")
    assert answer("PUT", "/secrets/a?api-version=7.6", json={"value": "v", "attributes": []}) == (400, "BadParameter")
    assert answer("POST", "/secrets/a?api-version=7.6") == (405, "MethodNotAllowed")
    assert answer("GET", "/keys?api-version=7.6") == (404, "NotFound")


# State, log and control plane


def test_state_outlives_the_server_and_is_for_the_owner_only(tmp_path: Path, clock: MovedClock) -> None:
    """Entries, deleted ones, tokens and backups stay good; an operation that was under way is over."""
    slow = Settings(delete=Delay(seconds=60), recover=Delay(seconds=60), purge=Delay(seconds=60))
    with KeyVaultServer(state=tmp_path, now=clock.now) as server, plain(server.ca) as http:
        client = server.client()
        access = token(http, server).json()["access_token"]
        for name in ("kept", "deleted", "deleting", "recovering", "purging"):
            client.set_secret(name, f"value of {name}", tags={"t": "1"})
        backup = client.backup_secret("purging")
        for name in ("deleted", "recovering", "purging"):
            client.begin_delete_secret(name)
        server.vault.settings = slow
        client.begin_delete_secret("deleting")
        client.begin_recover_deleted_secret("recovering")
        client.purge_deleted_secret("purging")
        version = client.get_secret("kept").properties.version
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"kept.json", "keys.json"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
    with KeyVaultServer(state=tmp_path, now=clock.now) as server, plain(server.ca) as http:
        client = server.client()
        kept = client.get_secret("kept")
        assert (kept.value, kept.properties.version, kept.properties.tags) == ("value of kept", version, {"t": "1"})
        assert [each.name for each in client.list_properties_of_secrets()] == ["kept", "recovering"]
        assert [each.name for each in client.list_deleted_secrets()] == ["deleted", "deleting"]
        assert client.restore_secret_backup(backup).name == "purging"
        headers = {"Authorization": f"Bearer {access}"}
        assert http.get(f"{server.vault_url}/secrets?api-version=7.6", headers=headers, timeout=10).ok
        server.vault.reset()
    assert list((tmp_path / "secrets").iterdir()) == []


def test_values_are_neither_logged_nor_shown(
    client: SecretClient, server: KeyVaultServer, http: requests.Session
) -> None:
    """Not in the log, not in the control plane, not in the representation of an entry or a principal."""
    client.set_secret("a", "the-secret-value", tags={"t": "1"})
    client.get_secret("a")
    entry, version = server.vault.get("a")
    shown = [repr(entry), repr(version), repr(server.control.log), repr(server.directory.get(server.client_id))]
    pages = [http.get(f"{server.vault_url}/_sandbox/{path}", timeout=10).text for path in ("requests", "settings")]
    shown += pages
    assert "/secrets/a" in pages[0]
    assert not any("the-secret-value" in each or OWNER_SECRET in each for each in shown)


def test_the_control_plane_works_from_another_process(server: KeyVaultServer, http: requests.Session) -> None:
    """Everything that the harness can do, as JSON over HTTP."""
    base = f"{server.vault_url}/_sandbox"

    def send(method: str, path: str, body: object = None) -> Any:
        response = http.request(method, f"{base}/{path}", json=body, timeout=10)
        assert response.status_code == 200, response.text
        return response.json()

    assert send("GET", "health") == {"ok": True}
    versions = [{"id": "1" * 32, "value": "v", "created": 1, "updated": 2}]
    deleted_at = int(datetime.now(UTC).timestamp())
    gone = {"name": "b", "versions": versions, "state": "deleted", "deleted_at": deleted_at}
    seeds = [{"name": "a", "versions": versions}, gone]
    assert send("POST", "entries", {"entries": seeds}) == {"seeded": 2}
    rule = {"permissions": ["get", "list"], "names": ["*"]}
    send("PUT", "principals/app", {"client_secret": "s", "allow": [rule], "deny": [{"permissions": ["list"]}]})
    app = server.client("app", "s", retry_total=0)
    assert app.get_secret("a").value == "v"
    with pytest.raises(HttpResponseError):
        list(app.list_deleted_secrets())

    number = send("POST", "faults", {"kind": "hold", "method": "GET", "path": "/secrets/a", "times": 2})["number"]
    reader = threading.Thread(target=app.get_secret, args=("a",))
    reader.start()
    server.control.wait_held(number)
    assert [each["held"] for each in send("GET", "faults")["faults"]] == [1]
    send("POST", f"faults/{number}/release")
    reader.join()
    assert send("GET", "faults") == {"faults": []}
    send("POST", "faults", {"kind": "status", "status": 429, "retry_after": 1, "times": 9})
    with pytest.raises(HttpResponseError) as caught:
        app.get_secret("a")
    answer: Any = caught.value.response
    assert answer.headers["Retry-After"] == "1"
    send("DELETE", "faults")

    changed = send("PATCH", "settings", {"purge_protection": True, "delete": {"refusals": 2}, "token_lifetime": 600})
    assert changed["purge_protection"] is True
    assert (changed["delete"], changed["token_lifetime"]) == ({"seconds": 0.0, "refusals": 2}, 600)
    send("POST", "pages", {"path": "/secrets", "sizes": [0, 1]})
    assert len(list(server.client().list_properties_of_secrets())) == 1
    send("POST", "tokens/revoke")
    assert app.get_secret("a").value == "v"

    requests_seen = send("GET", "requests")
    assert requests_seen["counts"]["GET /secrets/a"] == 4
    assert requests_seen["requests"][0]["path"] == "/secrets/a"
    send("DELETE", "principals/app")
    with pytest.raises(ClientAuthenticationError):
        app.get_secret("a")
    send("DELETE", "requests")
    assert send("GET", "requests") == {"requests": [], "counts": {}}
    send("POST", "reset")
    assert list(server.client().list_properties_of_secrets()) == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "faults", {"kind": "explode"}),
        ("POST", "faults", {"kind": "drop", "colour": "red"}),
        ("POST", "faults", ["drop"]),
        ("POST", "faults", {"kind": "stale", "method": "PUT"}),
        ("POST", "faults/99/release", {}),
        ("PATCH", "settings", {"delete": {"minutes": 1}}),
        ("PATCH", "settings", {"delete": 5}),
        ("PATCH", "settings", {"purge_protection": 1}),
        ("PATCH", "settings", {"recoverable_days": "7"}),
        ("PUT", "principals/app", {"client_secret": "s", "allow": [{"permissions": ["fly"]}]}),
        ("PUT", "principals/app", {}),
        ("POST", "entries", {"entries": [{"name": "a", "versions": [], "state": "deleting"}]}),
    ],
)
def test_the_control_plane_refuses_what_it_does_not_know(
    server: KeyVaultServer, http: requests.Session, method: str, path: str, body: object
) -> None:
    """A misspelt lever fails instead of doing nothing."""
    response = http.request(method, f"{server.vault_url}/_sandbox/{path}", json=body, timeout=10)
    assert response.status_code == 400
    assert response.json()["error"]


def test_held_requests_are_given_up_when_the_server_stops() -> None:
    """Leaving the harness does not wait for a forgotten hold, and the write is not made."""
    with KeyVaultServer() as server:
        client = server.client(retry_total=0)
        client.set_secret("a", "one")
        hold = server.control.hold("PUT", "/secrets/a")
        caught: list[Exception] = []

        def write() -> None:
            try:
                client.set_secret("a", "two")
            except ServiceResponseError as error:
                caught.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        server.control.wait_held(hold)
        with server.down():
            writer.join()
        assert len(caught) == 1
        assert client.get_secret("a").value == "one"


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    """Before it is armed."""
    with pytest.raises(ValueError, match="no such fault"):
        Fault("drop", when="during")  # type: ignore[arg-type]


def test_an_entry_is_seeded_settled_or_not_at_all() -> None:
    """What is under way cannot be put in, since nothing would end it."""
    vault = model.Vault(MovedClock().now)
    with pytest.raises(ValueError, match="cannot start as purging"):
        vault.seed(Entry("a", (), state=model.State.PURGING))


@pytest.mark.parametrize("own_certificate", [False, True])
def test_the_command_says_where_it_listens_and_keeps_the_sandbox_clock(tmp_path: Path, own_certificate: bool) -> None:
    """One line of JSON once it is ready; entries bear the clock's time; the CA's files are shared."""
    ca = tmp_path / "ca"
    clock = SandboxClock(tmp_path / "clock.json")
    clock.move(timedelta(days=40))
    arguments = ["--ca-dir", str(ca)]
    with KeyVaultServer(ca_dir=ca) as first:
        if own_certificate:
            tls.issue(ca, tmp_path / "own.pem")
            arguments = ["--cert", str(tmp_path / "own.pem")]
        principals = tmp_path / "principals.json"
        principals.write_text(
            json.dumps([{"client_id": "app", "client_secret": "s", "allow": [{"permissions": ["set"]}]}])
        )
        command = [sys.executable, "-m", "sandbox.keyvault.server", "--clock", str(tmp_path / "clock.json"), *arguments]
        command += ["--port", "0", "--state", str(tmp_path / "state"), "--principals", str(principals)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready = json.loads(process.stdout.readline())
                assert ready["vault_url"] == f"https://127.0.0.1:{ready['port']}"
                assert ready["client_id"] == "app"
                assert ready.get("ca") == (None if own_certificate else first.ca)
                first.port, own_port = ready["port"], first.port
                created = first.client("app", "s").set_secret("a", "v").properties.created_on
                first.port = own_port
                assert created is not None
                assert abs(created - clock.now()) < timedelta(minutes=1)
            finally:
                process.terminate()


def test_the_command_wants_a_certificate() -> None:
    """There is no plain HTTP: the SDK would not send a token over it."""
    command = [sys.executable, "-m", "sandbox.keyvault.server"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--ca-dir" in done.stderr
