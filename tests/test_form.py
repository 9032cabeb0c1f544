"""Forms: what is stored is what consumers were promised, and reads back to the credential that was minted."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import requests
from hypothesis import assume, given
from hypothesis import strategies as st

from providers.issuers.memory import MemoryIssuer, MemoryVendor
from providers.stores.aws import AwsLogin, SecretsManagerStore
from providers.stores.memory import MemoryStore
from providers.stores.vault import TokenLogin, VaultStore
from rotation import actions
from rotation import policy as policies
from rotation.checkup import verify
from rotation.engine import Engine, Places, Target
from rotation.errors import Trouble
from rotation.form import FormError, decoded, default, digest, encoded, fault, fields, parse, render
from rotation.model import Capabilities, Check, Credential, Issued, SecretValue, Verdict
from rotation.ports import SecretStore
from sandbox.aws.server import REGION, AwsServer
from sandbox.openbao import OpenBaoServer
from tests.world import ENTRY, NAME, FakeClock, Trail, World

# --- the round trip ------------------------------------------------------------------------------

FIELD_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LITERALS = st.text(st.sampled_from("{}%@:/?&=+#\\.*()[]|^$'\" \n~-_aZ0é\u2028🔑"), max_size=12)
"""What templates are made of, with everything that means something to a URL, a pattern, JSON or a template."""
HELD = st.dictionaries(FIELD_NAMES, VALUES, min_size=1, max_size=4)


@st.composite
def text_forms(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A template with hostile literals that is not refused, and a value for each of its fields."""
    held = draw(HELD)
    form = "text " + draw(LITERALS)
    for name in held:
        form += f"{{{name}}}" + draw(LITERALS)
    assume(fault(form) is None)
    assume(set(fields(form)) == set(held))
    return form, held


@st.composite
def json_forms(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """Chosen names for fields, as hostile as they may be."""
    held = draw(HELD)
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=len(held), max_size=len(held), unique=True))
    form = "json " + " ".join(f"{name}={field}" for name, field in zip(names, held, strict=True))
    assume(fault(form) is None)
    return form, held


def credential(held: Mapping[str, str]) -> Credential:
    return Credential({name: SecretValue(text) for name, text in held.items()})


def as_text_only(stored: Credential) -> Credential:
    """What a store that keeps one text gives back."""
    if stored.fields.keys() == {"value"}:
        return stored
    return Credential.of(value=json.dumps({name: text.reveal() for name, text in stored.fields.items()}))


@given(text_forms() | json_forms())
def test_what_is_rendered_reads_back(made: tuple[str, dict[str, str]]) -> None:
    """Any text in any field, in a store with fields and in one that keeps a single text."""
    form, held = made
    minted = credential(held)
    stored = render(minted, form)
    assert parse(stored, form).same_as(minted)
    assert parse(as_text_only(stored), form).same_as(minted)


@given(text_forms())
def test_a_template_reads_back_in_one_way_only(made: tuple[str, dict[str, str]]) -> None:
    """Whatever is read out of a text renders to that very text: no other credential could have been meant."""
    form, held = made
    text = render(credential(held), form).fields["value"].reveal()
    again = render(parse(Credential.of(value=text), form), form)
    assert again.fields["value"].reveal() == text


@given(VALUES)
def test_raw_is_the_value_itself(text: str) -> None:
    """No form, no change."""
    minted = Credential.of(value=text)
    assert render(minted, "").fields["value"].reveal() == text
    assert parse(render(minted, ""), "").same_as(minted)


@given(HELD)
def test_the_default_reads_back(held: dict[str, str]) -> None:
    """Whatever fields an issuer's credentials have."""
    form = default(held)
    assume(fault(form) is None)
    minted = credential(held)
    assert parse(as_text_only(render(minted, form)), form).same_as(minted)


@given(text_forms() | json_forms())
def test_a_form_survives_every_stores_metadata(made: tuple[str, dict[str, str]]) -> None:
    """In the characters of a Secrets Manager tag, with no space that a console takes away, and back."""
    written = encoded(made[0])
    assert decoded(written) == made[0]
    assert re.fullmatch(r"[A-Za-z0-9 _.:/=+@-]+", written)
    assert "  " not in written
    assert not written.endswith(" ")
    policy = replace(World().policy, form=made[0])
    assert policies.read(policies.written(policy)) == policy


def test_a_written_form_stays_readable() -> None:
    """Places are seen in a console; only what a tag can not hold is spelt out."""
    assert encoded("text postgresql://{user}:{password}@db/app") == "text postgresql://@user@:@password@@+40@db/app"
    assert encoded("json OPENAI_API_KEY=value") == "json OPENAI_API_KEY=value"


@pytest.mark.parametrize("text", ["xml a", "text @+110000@@value@", "text none", "json a", " "])
def test_a_written_form_that_was_spoilt_is_named(text: str) -> None:
    """Somebody has edited the metadata: the policy can not be read, and says which key."""
    with pytest.raises(ValueError, match="applied policy: 'form' is missing or can not be read"):
        policies.read(policies.written(World().policy) | {"form": text})


# --- what is refused -----------------------------------------------------------------------------

FAULTY = [
    (" ", "must be"),
    ("yaml a=b", "must be"),
    ("json", "at least one field"),
    ("json =value", "at least one field"),
    ("json key", "at least one field"),
    ("json key=Value", "at least one field"),
    ("json a=value=b", "at least one field"),
    ("json a=one  b=two", "one space"),
    ("json a\x07=one", "without spaces"),
    ("json a=one a=two", "must not repeat"),
    ("json a=one b=one", "must not repeat"),
    ("json value=token", "the raw form"),
    ("json keyturn=value", "Keyturn's own"),
    ("text", "each field once"),
    ("text nothing", "each field once"),
    ("text {a}:{a}", "each field once"),
    ("text {a}{b}", "between two fields"),
    ("text {a}-{b}", "between two fields"),
    ("text {a}x%2F{b}", "between two fields"),
    ("text {User}:{password}", "name no field"),
    ("text { user }:{password}", "name no field"),
    ("text {value}\ud800", "Unicode"),
]


@pytest.mark.parametrize(("form", "told"), FAULTY)
def test_what_could_not_be_read_back_is_refused(form: str, told: str) -> None:
    """Before anything is stored so, with what to change."""
    assert told in (fault(form) or "")


@pytest.mark.parametrize(
    "form",
    [
        "",
        "json API_KEY=value",
        "json value=user other=password",
        "json Größe=value",
        "text {value}",
        "text {{value}}",
        'text {"password": "{value}"}',
        "text Driver={ODBC Driver 18 for SQL Server};UID={user};PWD={password};",
        "text KEY={value}\nOTHER=1\n",
    ],
)
def test_what_can_be_read_back_is_not_refused(form: str) -> None:
    """Braces, quotes and line ends of one's own among it."""
    assert fault(form) is None


CANARY = "canary-5EcReT"
NOT_OF_THEIR_FORM = [
    ("", {"one": CANARY}, "the fields one"),
    ("text https://{value}@x", {"value": CANARY}, "not of the declared form"),
    ("text :{value}@", {"value": f":{CANARY}%zz@"}, "not of the declared form"),
    ("text :{value}@", {"value": f":{CANARY}%ff@"}, "not of the declared form"),
    ("text :{value}@", {"value": f":{CANARY} @"}, "not of the declared form"),
    ("text {a}:{b}", {"value": f"{CANARY}:b:c"}, "not of the declared form"),
    ("text {value}", {"user": CANARY, "password": CANARY}, "the fields user, password"),
    ("json a=x b=y", {"value": CANARY}, "not a JSON object"),
    ("json a=x b=y", {"value": f'"{CANARY}"'}, "not a JSON object"),
    ("json a=x b=y", {"value": f'["{CANARY}"]'}, "not a JSON object"),
    ("json a=x b=y", {"value": f'{{"a": "{CANARY}"}}'}, "no text 'b'"),
    ("json a=x b=y", {"value": f'{{"a": "{CANARY}", "b": 7}}'}, "no text 'b'"),
    ("json a=x b=y", {"value": f'{{"a": "{CANARY}", "b": null}}'}, "no text 'b'"),
    ("json a=x b=y", {"value": f'{{"a": "{CANARY}", "b": "\\ud800"}}'}, "no text 'b'"),
    ("json a=x b=y", {"value": f'{{"a": "{CANARY}"'}, "not a JSON object"),
    ("json a=x b=y", {"value": '{"a":' * 100_000 + f'"{CANARY}"'}, "not a JSON object"),
    ("json a=x b=y", {"a": CANARY}, "not a JSON object"),
]


@pytest.mark.parametrize(("form", "held", "told"), NOT_OF_THEIR_FORM, ids=range(len(NOT_OF_THEIR_FORM)))
def test_a_payload_of_another_form_is_refused_without_its_value(form: str, held: dict[str, str], told: str) -> None:
    """Neither the message nor anything that the error carries along shows what is stored."""
    with pytest.raises(FormError, match=told) as raised:
        parse(credential(held), form)
    _says_nothing(raised.value)


@pytest.mark.parametrize(
    ("form", "held", "told"),
    [
        ("json a=user", {"value": CANARY}, "the form needs user; the credential has value"),
        ("text {user}", {"value": CANARY}, "the form needs user"),
        ("", {"user": CANARY}, "the form needs value"),
        ("", {"value": CANARY, "user": CANARY}, "raw form holds one field"),
        ("text {value}", {"value": f"{CANARY}\ud800"}, "not valid Unicode"),
    ],
)
def test_a_credential_that_does_not_fit_is_refused_without_its_value(
    form: str, held: dict[str, str], told: str
) -> None:
    """Fields are named, values are not."""
    with pytest.raises(FormError, match=told) as raised:
        render(credential(held), form)
    _says_nothing(raised.value)


def _says_nothing(error: BaseException) -> None:
    assert CANARY not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_forms_are_told_apart_in_the_journal() -> None:
    """Short, and nothing for the form that needs no word."""
    assert digest("") == ""
    assert len({digest("json a=value"), digest("json b=value"), digest("text {value}")}) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}", digest(form)) for form in ("json a=value", "text {value}"))


# --- through the engine --------------------------------------------------------------------------


class FormedIssuer(MemoryIssuer):
    """The reference issuer with credentials of two fields, or awkward ones: a user, and a password of all kinds."""

    def _whole(self, credential: Credential) -> Credential | None:
        held = credential.fields
        if held.keys() == {"user", "password"} and held["user"].reveal() == USER:
            return Credential.of(value=held["password"].reveal().removeprefix(AWKWARD))
        return None

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        made = super().mint(key_name, slot)
        fields = {"user": USER, "password": AWKWARD + made.credential.fields["value"].reveal()}
        return replace(made, credential=credential(fields))

    def verify(self, credential: Credential) -> Check:
        whole = self._whole(credential)
        return super().verify(whole) if whole else Check(Verdict.INVALID, "other fields")


USER, AWKWARD = "app user@acme", 'p@ss:w/ö"rd%41{}🔑 '
JSON = "json DB_USER=user DB_PASSWORD=password"
TEXT = "text postgresql://{user}:{password}@db.acme.example/app?sslmode=require"
STORES = ("vault", "texts")
FORMS = (JSON, TEXT, "")


class FormedWorld(World):
    """Two stores, one of which keeps texts only; and an issuer whose credentials have two fields."""

    def __init__(self, form: str) -> None:
        self.form = form
        super().__init__(stores=STORES)
        self.capabilities = None
        self.apply(form)

    def apply(self, form: str) -> None:
        """What a changed stack does."""
        self.form = form
        self.policy = replace(self.policy, form=form)
        for name in self.stores:
            self.store(name).set_policy(ENTRY, policies.written(self.policy))

    def store(self, name: str) -> MemoryStore:
        return MemoryStore(name, self.vaults[name], self.clock.now, text_only=name == "texts")

    def engine(self) -> Engine:
        made = super().engine().outside
        plain = made.issuers["vendor"]
        capabilities = replace(plain.capabilities, fields=("user", "password"))
        issuer = FormedIssuer("vendor", self.vendor, capabilities, self.hook)
        stores = {
            name: MemoryStore(name, self.vaults[name], self.clock.now, self._hook_of(name), text_only=name == "texts")
            for name in self.stores
        }
        return Engine(stores, {"vendor": issuer}, made.places, self.clock, self.trail, made.tokens)

    def stored(self) -> dict[str, dict[str, str] | None]:
        """Payloads as consumers of each store get them."""
        found = {name: self.store(name).handed_out(ENTRY) for name in self.stores}
        return {
            name: {field: text.reveal() for field, text in held.fields.items()} if held else None
            for name, held in found.items()
        }

    def handed_out(self) -> Mapping[str, str | None]:
        """The vendor's values in what is stored, by a consumer's own reading of each payload."""
        return {name: consumed(held) if held else None for name, held in self.stored().items()}


def consumed(held: dict[str, str]) -> str | None:
    """What a consumer that knows no Keyturn makes of any of the payloads."""
    if held.keys() == {"value"} and held["value"].startswith("{"):
        held = json.loads(held["value"])
    whole = next(iter(held.values())) if held.keys() == {"value"} else held.get("DB_PASSWORD", held.get("password", ""))
    found = re.search(r"value-\d+", whole)
    return found[0] if found else None


def expected(form: str, number: int) -> dict[str, dict[str, str]]:
    """What each store must hold: written out by hand, not by the code under test."""
    password = f"{AWKWARD}value-{number}"
    if form == TEXT:
        encoded_password = f"p%40ss%3Aw%2F%C3%B6%22rd%2541%7B%7D%F0%9F%94%91%20value-{number}"
        url = f"postgresql://app%20user%40acme:{encoded_password}@db.acme.example/app?sslmode=require"
        return {"vault": {"value": url}, "texts": {"value": url}}
    names = ("DB_PASSWORD", "DB_USER") if form == JSON else ("password", "user")
    held = {names[0]: password, names[1]: USER}
    return {"vault": held, "texts": {"value": json.dumps(held, ensure_ascii=False)}}


def proofs(trail: Trail) -> list[tuple[str | None, str | None]]:
    return [(r.key_id, (r.detail or {}).get("how")) for r in trail.records if r.event == "proven"]


@pytest.mark.parametrize("form", FORMS)
def test_a_formed_secret_rotates_and_its_old_key_is_shown_dead(form: str) -> None:
    """Consumers of both stores get exactly what is declared; the old credential is read back and refused."""
    world = FormedWorld(form)
    world.run()
    assert world.stored() == expected(form, 1)
    world.clock.move(timedelta(days=30))
    world.sweep_until_quiet()
    assert world.stored() == expected(form, 2)
    assert proofs(world.trail) == [("key_1", "refused")]
    world.check_settled()


@pytest.mark.parametrize(("old", "new"), [(JSON, TEXT), (TEXT, ""), ("", JSON)])
def test_a_changed_form_is_rotated_in(old: str, new: str) -> None:
    """The next sweep brings a new credential in the new form to every store; the old one goes as always."""
    world = FormedWorld(old)
    world.run()
    world.clock.move(timedelta(hours=1))
    world.apply(new)
    assert world.stored() == expected(old, 1), "nothing changes before the new one is verified"
    world.sweep()
    assert world.stored() == expected(new, 2)
    assert world.live() == {"value-1", "value-2"}, "who has read the old form still gets in"
    world.sweep_until_quiet()
    world.check_settled()
    assert [key for key, _ in proofs(world.trail)] == ["key_1"]
    assert len(world.vendor.keys) == 2


@pytest.mark.parametrize("form", FORMS)
def test_an_emergency_replaces_a_formed_secret(form: str) -> None:
    """Form or none: the leaked key is refused, and every store has the new one."""
    world = FormedWorld(form)
    world.run()
    world.emergency()
    assert world.stored() == expected(form, 2)
    assert world.live() == {"value-2"}
    assert proofs(world.trail) == [("key_1", "refused")]


@pytest.mark.parametrize("form", [JSON, TEXT])
def test_an_entry_that_holds_something_else_is_reported_and_heals(form: str) -> None:
    """Somebody puts a text of no known form there: said so without the text; a rotation that is asked for, or due, puts
    the declared form back everywhere."""
    world = FormedWorld(form)
    world.run()
    world.allow_outage = True
    world.store("vault").put_by_hand(ENTRY, Credential.of(value=CANARY))
    outcome = world.sweep()
    assert isinstance(outcome.rest, actions.Hold)
    assert "not" in outcome.rest.reason
    [finding, *_] = verify(world.engine(), world.engine().outside.issuers, world.target, NAME)
    assert (finding.verdict, "the stored" in finding.reason) == (Verdict.UNKNOWN, True)
    told = [outcome.rest.reason, str(outcome.trouble), finding.reason, *(str(r) for r in world.trail.records)]
    assert not any(CANARY in text for text in told)
    world.clock.move(timedelta(minutes=20))
    rotated = world.engine().rotate(world.target)
    assert rotated.achieved
    assert world.stored() == expected(form, 2)
    world.allow_outage = False
    world.sweep_until_quiet()
    world.check_settled()


def test_a_form_that_needs_what_the_issuer_has_not_mints_nothing_that_stays() -> None:
    """Applied by hand past every check: no store gets a half credential, and no key is left behind."""
    world = FormedWorld("text {token}")
    outcome = world.run()
    assert outcome.trouble is not None
    assert "the form needs token" in str(outcome.trouble)
    world.apply(JSON)
    world.sweep_until_quiet()
    assert world.stored() == expected(JSON, len(world.vendor.keys))
    world.check_settled()


def adopted(form: str) -> FormedWorld:
    """A world whose primary holds a person's credential in a form, under management."""
    world = FormedWorld(form)
    issued = world.engine().outside.issuers["vendor"].mint("a person's key")
    for name in STORES:
        world.store(name).set_policy(ENTRY, {})
    world.store("vault").put_by_hand(ENTRY, render(issued.credential, form or default(("user", "password"))))
    world.engine().adopt(world.target, world.policy, key_id=issued.key_id)
    world.store("texts").set_policy(ENTRY, policies.written(world.policy))
    return world


@pytest.mark.parametrize("form", FORMS)
def test_a_formed_entry_is_adopted_as_it_is(form: str) -> None:
    """Its own client's payload, read by the declared form; replicas get the same, and the rotation keeps the form."""
    world = adopted(form)
    world.sweep()
    assert world.stored() == expected(form, 1)
    world.clock.move(timedelta(days=30))
    world.sweep_until_quiet()
    assert world.stored() == expected(form, 2)
    assert [key for key, _ in proofs(world.trail)] == ["key_1"]
    world.check_settled()


def test_an_entry_of_another_form_is_not_adopted() -> None:
    """Declared is what consumers get: a mistake is told before anything is written."""
    world = FormedWorld(JSON)
    world.allow_outage = True
    world.store("vault").set_policy(ENTRY, {})
    world.store("vault").put_by_hand(ENTRY, Credential.of(value=CANARY))
    with pytest.raises(Trouble, match="not a JSON object") as raised:
        world.engine().adopt(world.target, world.policy, key_id=None)
    assert CANARY not in "".join(traceback.format_exception(raised.value))
    assert dict(world.store("vault").observe(ENTRY).policy) == {}


def test_a_form_changed_after_an_adoption_is_rotated_in_when_asked() -> None:
    """Nobody has noted in which form a person stored it, so it is not due at once; the old key still goes, told
    as one that a person should look at."""
    world = adopted(JSON)
    world.sweep()
    world.apply(TEXT)
    world.clock.move(timedelta(hours=1))
    assert world.engine().rotate(world.target).achieved
    assert world.stored() == expected(TEXT, 2)
    world.sweep_until_quiet()
    assert proofs(world.trail) == [], "its value can not be read any more, and no list tells of a name that is not ours"
    world.clock.move(timedelta(days=15))
    world.sweep_until_quiet()
    world.check_settled()


# --- on real stores ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBaoServer]:
    with OpenBaoServer() as server:
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    with AwsServer() as server:
        for name, text in server.environment().items():
            monkeypatch.setenv(name, text)
        yield server


class QuickClock(FakeClock):
    """Starts now, as the servers have their own time."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))


@pytest.mark.parametrize("primary", ["vault", "aws"])
def test_two_vaults_hand_out_the_declared_form(bao: OpenBaoServer, aws: AwsServer, primary: str) -> None:
    """OpenBao and Secrets Manager: what their own clients read is what is declared, through a rotation and a changed
    form; the old credential is shown dead; the form and the user's tags fit both stores' metadata."""
    clock, trail, prefix = QuickClock(), Trail(), f"form-{primary}"
    vendor = MemoryVendor(clock.now)
    stores: dict[str, SecretStore] = {
        "vault": VaultStore(
            "vault",
            address=bao.address,
            mount="secret",
            prefix=prefix,
            ca_bundle=str(bao.ca),
            auth=TokenLogin(SecretValue(bao.root_token)),
            clock=clock,
        ),
        "aws": SecretsManagerStore("aws", region=REGION, endpoint_url=aws.endpoint, login=AwsLogin(), clock=clock),
    }
    capabilities = Capabilities(fields=("user", "password"), tells_last_use=True)
    issuers = {"vendor": FormedIssuer("vendor", vendor, capabilities)}
    places = Places(lambda store, environment, name: ENTRY, lambda environment, name: None)
    replica = next(name for name in stores if name != primary)
    tags = tuple((f"tag-{number}", "a text " * 36 + "end.") for number in range(10))
    policy = replace(World().policy, store=primary, replicas=(replica,), form=JSON, tags=tags)
    for name in (replica, primary):
        stores[name].create(ENTRY, policies.written(policy))

    def sweep(*hours: float) -> None:
        for passed in hours:
            clock.move(timedelta(hours=passed))
            outcome = Engine(stores, issuers, places, clock, trail).run(Target(primary, ENTRY))
            assert outcome.trouble is None

    def consumed() -> dict[str, dict[str, str]]:
        """As consumers read: Vault's HTTP interface without Keyturn's own field, and the SDK."""
        headers = {"X-Vault-Token": bao.root_token}
        url = f"{bao.address}/v1/secret/data/{prefix}/{ENTRY}"
        payload = requests.get(url, headers=headers, verify=str(bao.ca), timeout=30).json()["data"]["data"]
        text = aws.client("secretsmanager").get_secret_value(SecretId=ENTRY)["SecretString"]
        held = {name: part for name, part in payload.items() if name != "keyturn"}
        return {"vault": held, "texts": {"value": text}}

    sweep(0)
    assert consumed() == expected(JSON, 1)
    sweep(24 * 30)
    assert consumed() == expected(JSON, 2)
    sweep(25, 2)
    assert proofs(trail) == [("key_1", "refused")]
    assert [key.value for key in vendor.live()] == ["value-2"]

    policy = replace(policy, form=TEXT)
    for name in (replica, primary):
        stores[name].set_policy(ENTRY, policies.written(policy))
        assert policies.read(stores[name].observe(ENTRY).policy) == policy
    sweep(1)
    assert consumed() == expected(TEXT, 3)
    sweep(25, 2)
    assert [key for key, _ in proofs(trail)] == ["key_1", "key_2"]
    assert [key.value for key in vendor.live()] == ["value-3"]
