"""doctor: each thing that rotation leans on is seen in order and seen failing, and looking changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import resources
from typing import Any

import pytest
import requests

from providers.issuers.http import HttpIssuer
from providers.issuers.reading import read
from rotation import policy as policies
from rotation.doctor import Doctor
from rotation.model import Consumer, SecretValue
from rotation.ports import Grade
from sandbox.openai.harness import OpenAIServer
from sandbox.openbao import KEYTURN_POLICY
from tests.cli.project import BATCH, CHAT, HOOK, Project, Ran, Services, services


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services of this module's own: their clock starts at the real time, and tests put it back."""
    with services(tmp_path_factory.mktemp("doctor")) as found:
        yield found


@pytest.fixture(autouse=True)
def _right_time(shared: Services) -> None:
    """Each test begins at the real time, whatever the one before has slept."""
    shared.time.path.unlink(missing_ok=True)
    shared.time._moved = 0.0


def doctor(project: Project, *arguments: str, code: int | None = None, **env: str) -> list[dict[str, Any]]:
    ran = project.run("doctor", "--json", *arguments, **env)
    assert ran.err == ""
    assert code is None or ran.code == code, ran.out
    found: list[dict[str, Any]] = ran.json
    assert ran.code == (1 if any(line["grade"] == "failing" for line in found) else 0)
    assert all(line["remedy"] for line in found if line["grade"] in ("failing", "warning"))
    return found


def of(lines: list[dict[str, Any]], kind: str, name: str, check: str) -> list[tuple[str, str]]:
    """Grade and text of what was found."""
    wanted = (kind, name, check)
    return [(line["grade"], line["text"]) for line in lines if (line["kind"], line["name"], line["check"]) == wanted]


def grades(lines: list[dict[str, Any]], kind: str, name: str, check: str) -> list[str]:
    return [grade for grade, _ in of(lines, kind, name, check)]


def log_in_with(project: Project, policy: str) -> None:
    """Gives the project's own login this policy alone."""
    role, secret = project.services.bao.approle(policy)
    project.environ |= {"KEYTURN_VAULT_ROLE_ID": role, "KEYTURN_VAULT_SECRET_ID": secret}


# --- in order --------------------------------------------------------------------------------------


def test_a_stack_in_order_fails_in_nothing(project: Project) -> None:
    """Store by store, issuer by issuer, secret by secret; what can not be told says why."""
    project.declare(project.secret(CHAT, replicas=["mirror"]), project.secret(HOOK))
    project.apply()
    found = doctor(project, code=0)
    assert [(line["kind"], line["name"]) for line in found] == sorted(
        ((line["kind"], line["name"]) for line in found),
        key=[
            *(("store", name) for name in ("vault", "mirror")),
            *(("issuer", name) for name in ("openai", "generated")),
            *(("secret", name) for name in (CHAT, HOOK)),
        ].index,
    )
    for store in ("vault", "mirror"):
        for check in ("answers", "login", "permissions", "clock"):
            assert grades(found, "store", store, check) == ["ok"], check
    for check in ("admin credential", "admin credential's end", "key limit", "clock"):
        assert grades(found, "issuer", "openai", check) == ["ok"], check
    assert grades(found, "secret", CHAT, "configuration") == ["ok"]
    assert grades(found, "secret", CHAT, "current credential") == ["ok", "ok"]
    assert grades(found, "secret", HOOK, "current credential") == ["not checked"]
    assert "failing" not in {line["grade"] for line in found}
    assert set(found[0]) == {"kind", "name", "check", "grade", "text", "remedy"}


def test_one_line_for_each_thing(project: Project) -> None:
    """With its mark; a failure is followed by who must do what; last a count."""
    project.apply(CHAT)
    project.overwrite(CHAT, "sk-typed-by-hand")
    ran = project.run("doctor")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0] == "store vault"
    assert "  ✓ answers: lists its entries; 1 is of this installation" in lines
    assert f"secret {HOOK}" in lines
    dash = "\N{EN DASH}"
    assert f"  {dash} configuration: not checked, because it is not applied yet; `pulumi up` makes it" in lines
    refused = next(number for number, line in enumerate(lines) if line.startswith("  ✗ current credential: "))
    assert lines[refused + 1].startswith(f"      → on-call: `keyturn rotate {CHAT}` replaces it")
    assert lines[-1].endswith(" failing, 6 not checked.") or " 1 failing, " in lines[-1]
    assert "typed-by-hand" not in ran.text


def test_before_anything_is_applied_it_looks_all_the_same(project: Project) -> None:
    """Rights on the exact paths that there will be; nothing is missed that is not there yet."""
    found = doctor(project, code=0)
    assert grades(found, "store", "vault", "permissions") == ["ok"]
    assert of(found, "secret", CHAT, "configuration") == [
        ("not checked", "it is not applied yet; `pulumi up` makes it")
    ]


def test_only_the_secrets_that_are_named(project: Project) -> None:
    """With the stores and issuers that they use; a name that is not declared is a mistake."""
    project.apply()
    found = doctor(project, HOOK, code=0)
    assert {(line["kind"], line["name"]) for line in found} == {
        ("store", "vault"),
        ("issuer", "generated"),
        ("secret", HOOK),
    }
    wrong = project.run("doctor", "nobody-chat")
    assert (wrong.code, wrong.out) == (2, "")


def test_looking_changes_nothing(project: Project) -> None:
    """Neither versions, journals, keys nor the audit trail; services are only read; a draining key is not shown."""
    project.declare(project.secret(CHAT, replicas=["mirror"]), project.secret(BATCH))
    project.apply()
    assert project.run("rotate", CHAT).code == 0
    draining = next(iter(project.keys()))
    control, log = project.services.openai.control, project.services.bao.audit_log

    def used() -> object:
        return next(key["last_used_at"] for key in control.issued() if key["id"] == draining)

    before, trail, last = (project.everything(), project.keys()), project.audit(), used()
    asked, heard = len(control.requests()), log.stat().st_size
    project.services.time.move(timedelta(minutes=10))
    doctor(project)
    assert {request["method"] for request in control.requests()[asked:]} == {"GET"}
    with log.open() as file:
        file.seek(heard)
        done = [json.loads(line)["request"] for line in file]
    questions = ("auth/approle/login", "sys/capabilities-self")
    assert {each["operation"] for each in done if each["path"] not in questions} <= {"read", "list"}
    assert len(done) > 10
    assert (project.everything(), project.keys()) == before
    assert project.audit() == trail
    assert used() == last


# --- stores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "right", "lost"),
    [
        ("secret/metadata/*", "patch", "'patch' on secret/metadata/"),
        ("secret/data/*", "create", "'create' on secret/data/"),
        ("secret/data/*", "update", "'update' on secret/data/"),
    ],
)
def test_a_capability_that_is_missing_is_told_before_it_is_needed(
    project: Project, path: str, right: str, lost: str
) -> None:
    """With the path and the entry, at the secret that it is about; reading works, so all else is looked at."""
    project.apply()
    rules = [rule for rule in KEYTURN_POLICY.splitlines() if not rule.startswith(f'path "{path}"')]
    kept = next(rule for rule in KEYTURN_POLICY.splitlines() if rule.startswith(f'path "{path}"'))
    log_in_with(project, "\n".join([*rules, kept.replace(f'"{right}", ', "").replace(f', "{right}"', "")]))
    found = doctor(project, code=1)
    for name in (CHAT, HOOK):
        ((grade, text),) = of(found, "secret", name, "permissions")
        assert grade == "failing"
        assert f"{lost}{project.installation}/a/sandbox/{name}" in text
    assert grades(found, "secret", CHAT, "current credential") == ["ok"]


def test_a_value_that_may_not_be_read_is_told(project: Project) -> None:
    """By the store's refusal of it, with who can let it in."""
    project.apply(HOOK)
    allowed = KEYTURN_POLICY.replace(
        'path "secret/data/*" { capabilities = ["create", "read", "update", "patch"] }', ""
    )
    log_in_with(project, allowed)
    found = doctor(project, HOOK, code=1)
    told = [text for grade, text in of(found, "secret", HOOK, "configuration") if grade == "failing"]
    assert len(told) == 1
    assert "permission denied" in told[0]


def test_a_store_that_does_not_answer_holds_up_no_other(project: Project) -> None:
    """Its secrets are unchecked, and all else is looked at; nobody waits for long."""
    project.declare(project.secret(CHAT), project.secret(HOOK, store="mirror"))
    project.apply()
    project.change("stores.mirror.address", "https://127.0.0.1:1")
    found = doctor(project, code=1)
    ((grade, text),) = of(found, "store", "mirror", "answers")
    assert grade == "failing"
    assert "can not be reached" in text
    assert grades(found, "secret", HOOK, "configuration") == ["not checked"]
    assert grades(found, "secret", CHAT, "current credential") == ["ok"]


def test_a_login_that_is_not_set_is_a_finding(project: Project) -> None:
    """With the field and the variable; the other parts are looked at all the same."""
    project.apply()
    del project.environ["KEYTURN_VAULT_SECRET_ID"]
    found = doctor(project, code=1)
    ((grade, text),) = of(found, "store", "vault", "answers")
    assert grade == "failing"
    assert "KEYTURN_VAULT_SECRET_ID is not set" in text
    assert grades(found, "issuer", "openai", "admin credential") == ["ok"]


def test_readers_that_nobody_declared_are_told(project: Project) -> None:
    """Those whom a policy lets read and who are no consumer by that name; declared, they are fine."""
    bao = project.services.bao
    reader = f"{project.installation}-reports"
    text = f'path "secret/data/{project.installation}/a/sandbox/{CHAT}" {{ capabilities = ["read"] }}'
    admin = {"X-Vault-Token": bao.root_token}
    url = f"{bao.address}/v1/sys/policies/acl/{reader}"
    assert requests.put(url, json={"policy": text}, headers=admin, verify=str(bao.ca), timeout=5).ok
    project.apply()
    # Policies of other tests grant all of the mount: only this one's own reader is looked for.
    rights = 'path "sys/policies/acl*" { capabilities = ["list", "read"] }'
    log_in_with(project, f"{KEYTURN_POLICY}\n{rights}")
    ((grade, told),) = of(doctor(project, code=0), "secret", CHAT, "readers")
    assert (grade, reader in told) == ("warning", True)
    ((_, other),) = of(doctor(project, code=0), "secret", HOOK, "readers")
    assert reader not in other
    project.declare(project.secret(CHAT, consumers=[{"name": reader}]), project.secret(HOOK))
    assembly = project.assembly()
    assembly.stores["vault"].set_policy(project.entry(CHAT), policies.written(project.policy(CHAT)))
    assert all(reader not in told for _, told in of(doctor(project, code=0), "secret", CHAT, "readers"))


def test_what_is_applied_and_not_declared_is_told(project: Project) -> None:
    """Sweeps rotate it."""
    project.declare(project.secret(CHAT), project.secret("support-copilot-gone"))
    project.apply()
    project.declare(project.secret(CHAT))
    ((grade, text),) = of(doctor(project, code=0), "store", "vault", "entries")
    assert (grade, "support-copilot-gone" in text) == ("warning", True)
    assert of(doctor(project, CHAT, code=0), "store", "vault", "entries") == []


# --- issuers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["sk-admin-wrong", ""])
def test_an_admin_credential_that_is_refused_or_missing(project: Project, value: str) -> None:
    """Says where it comes from; what consumers use is fine all the same."""
    project.apply()
    found = doctor(project, code=1, OPENAI_ADMIN_KEY=value)
    ((grade, text),) = of(found, "issuer", "openai", "admin credential")
    assert grade == "failing"
    assert text.startswith("from the environment variable OPENAI_ADMIN_KEY: openai: ")
    assert ("invalid_api_key" if value else "is not set, or is empty") in text
    assert "sk-admin-wrong" not in text
    assert grades(found, "secret", CHAT, "current credential") == ["ok"]


def test_an_admin_credential_in_a_store(project: Project) -> None:
    """Says which entry; one that is not there is told as that."""
    project.put("openai-admin", project.services.openai.admin_key)
    for entry, grade, told in (
        ("sandbox/openai-admin", "ok", "from the entry sandbox/openai-admin in vault, is accepted"),
        ("sandbox/nothing", "failing", "can not be read: vault: sandbox/nothing: no such entry"),
    ):
        project.change("issuers.openai.admin", {"store": "vault", "name": entry})
        ((found, text),) = of(doctor(project), "issuer", "openai", "admin credential")
        assert (found, told in text) == (grade, True)


def test_an_address_that_is_not_admitted_is_no_invalid_key(project: Project) -> None:
    """Told apart from a key that is refused, and from one that is accepted with limits."""
    project.declare(project.secret(CHAT), project.secret(BATCH), project.secret("support-copilot-tools"))
    project.apply()
    control, account = (
        project.services.openai.control,
        f"organization/projects/{project.openai_project}/service_accounts",
    )
    made = project.administer("POST", account, {"name": "narrow", "create_service_account_only": True})
    project.administer("POST", f"{account}/{made['id']}", {"role": "member"})
    narrow = {"name": "narrow", "scopes": ["model.request"]}
    project.overwrite(BATCH, project.administer("POST", f"{account}/{made['id']}/api_keys", narrow)["value"])
    project.overwrite("support-copilot-tools", "sk-svcacct-typed-by-hand")
    found = doctor(project, code=1)
    told = {name: of(found, "secret", name, "current credential") for name in (CHAT, BATCH, "support-copilot-tools")}
    assert [grade for ((grade, _),) in told.values()] == ["ok", "warning", "failing"]
    assert "accepts it with limits" in told[BATCH][0][1]
    assert "refuses what vault hands out" in told["support-copilot-tools"][0][1]
    control.configure(ip_allowlist=["10.0.0.0/8"])
    found = doctor(project, CHAT, code=1)
    ((grade, text),) = of(found, "secret", CHAT, "current credential")
    assert grade == "failing"
    assert "does not tell from this address" in text
    assert "ip_not_authorized" in text
    assert next(line for line in found if line["check"] == "current credential")["remedy"].startswith("issuer's admin")


@dataclass
class Limited:
    """The stack's doctor over OpenAI as described, but with a limit of keys."""

    project: Project
    most: int

    def room(self) -> tuple[Grade, str]:
        text = (resources.files("providers.issuers") / "descriptions" / "openai.yaml").read_text()
        about = read(text.replace("max_keys: null", f"max_keys: {self.most}"), "openai.yaml")
        server = self.project.services.openai
        variables: Mapping[str, str | int] = {"project": self.project.openai_project, "baseUrl": server.base_url}
        assembly = self.project.assembly()
        with HttpIssuer(
            "openai", about, variables, lambda: SecretValue(server.admin_key), self.project.services.time
        ) as issuer:
            policies_ = assembly.config.policies
            looking = Doctor(replace(assembly, issuers={"openai": issuer}), policies_, "Pulumi.sandbox.yaml")
            for policy in policies_:
                looking.secret(policy)
            return next(
                (line.found.grade, line.found.text)
                for line in looking.issuer("openai")
                if line.found.check == "key limit"
            )


def test_room_for_one_more_key(project: Project) -> None:
    """Every rotation needs it for a while: others' keys in the way fail, our own draining ones pass by themselves."""
    project.declare(project.secret(CHAT))
    project.apply()
    assert Limited(project, 2).room() == (
        Grade.GOOD,
        "1 key live there: 1 of ours, 0 of others; at most 2 are allowed",
    )
    project.run("rotate", CHAT)
    grade, text = Limited(project, 2).room()
    assert (grade, text.partition(";")[0]) == (Grade.WARNING, "2 keys live there: 2 of ours, 0 of others")
    project.own_key()
    grade, text = Limited(project, 3).room()
    assert (grade, text.partition(";")[0]) == (Grade.FAILING, "3 keys live there: 2 of ours, 1 of others")
    assert Limited(project, 4).room()[0] is Grade.GOOD
    grade, text = Limited(project, 1).room()
    assert (grade, "1 secret is declared, while a rotation needs one more" in text) == (Grade.FAILING, True)


def test_an_adopted_key_is_one_of_ours(project: Project) -> None:
    """Although its name is not: its entry claims it."""
    key, value = project.own_key()
    project.put(CHAT, value)
    project.declare(project.secret(CHAT))
    assert project.run("adopt", CHAT, "--key-id", key).code == 0
    ((_, text),) = of(doctor(project), "issuer", "openai", "key limit")
    assert "1 of ours, 0 of others" in text


# --- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "grade"), [(10, "ok"), (60, "warning"), (600, "failing")])
def test_a_clock_that_is_off(project: Project, by: int, grade: str) -> None:
    """The vault goes by the real time, the issuer's stand-in with ours."""
    project.environment = "prod"
    project.declare()
    project.services.time.move(timedelta(seconds=by))
    found = doctor(project, code=int(grade == "failing"))
    ((told, text),) = of(found, "store", "vault", "clock")
    assert told == grade
    if grade != "ok":
        assert text.startswith(f"this machine is {'10 min' if by > 60 else '6'}")
        assert text.endswith(" ahead of the store vault")
    assert grades(found, "issuer", "openai", "clock") == ["ok"]


def test_an_issuer_whose_clock_is_off(project: Project) -> None:
    """Whoever is wrong: what is counted by both can not be trusted."""
    project.environment = "prod"
    with OpenAIServer(
        now=lambda: project.services.time.now() + timedelta(minutes=7), admin_key=project.services.openai.admin_key
    ) as other:
        project.declare()
        project.change("issuers.openai.baseUrl", other.base_url)
        made = requests.post(
            f"{other.base_url}/organization/projects",
            json={"name": "p"},
            headers={"Authorization": f"Bearer {other.admin_key}"},
            timeout=5,
        )
        project.change("issuers.openai.project", made.json()["id"])
        found = doctor(project, code=1)
    ((grade, text),) = of(found, "issuer", "openai", "clock")
    assert (grade, text) == ("failing", "this machine is 7 min behind the issuer openai")


def test_the_sandboxs_clock_is_moved_on_purpose(project: Project) -> None:
    """Nobody is told to set a clock there."""
    project.services.time.move(timedelta(days=31))
    found = doctor(project, code=0)
    assert grades(found, "store", "vault", "clock") == ["not checked"]


# --- configuration ---------------------------------------------------------------------------------


def test_what_is_declared_and_not_applied(project: Project) -> None:
    """Which fields, and that what is applied counts."""
    project.apply()
    project.declare(project.secret(CHAT, grace="2d"), project.secret(HOOK))
    ((grade, text),) = of(doctor(project, code=0), "secret", CHAT, "configuration")
    assert (grade, text) == ("warning", "grace in Pulumi.sandbox.yaml differ from what is applied, which counts")


def test_an_applied_policy_that_is_not_sound(project: Project) -> None:
    """Consumers that refresh later than the old key lives, a pair that is none, an owner whom nobody knows."""
    project.apply()
    applied = replace(
        project.policy(CHAT),
        consumers=(Consumer("reports", timedelta(days=2)), Consumer("copilot", timedelta(hours=1))),
        paired_with=HOOK,
        owner="gone-team",
    )
    project.assembly().stores["vault"].set_policy(project.entry(CHAT), policies.written(applied))
    told = of(doctor(project, CHAT, code=1), "secret", CHAT, "configuration")
    assert [grade for grade, _ in told] == ["warning", "failing", "warning", "warning"]
    assert "reports may use what it has read for 2d, longer than the grace period of 1d" in told[1][1]
    assert f"paired with {HOOK}, which is not declared as its pair" in told[2][1]
    assert "its owner gone-team is not declared" in told[3][1]


def test_a_faulty_file_is_exit_code_2(project: Project) -> None:
    """As of every command."""
    project.change("secrets.0.store", "nowhere")
    ran: Ran = project.run("doctor")
    assert (ran.code, ran.out) == (2, "")
