"""The demo's claims: each can fail, and then the demo ends with exit code 1 and says what does not hold."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from rotation.files import write_private
from sandbox.aws.server import AwsServer
from sandbox.demo import CHAT, Claim, Story, Thief, applications, as_told, holds_dead, main, retired, search
from sandbox.home import Home
from sandbox.keyvault.harness import KeyVaultServer
from sandbox.openai.harness import OpenAIServer
from sandbox.processes import wait_until
from sandbox.services import without_proxy
from sandbox.stack import TEMPLATE
from sandbox.supervisor import load_consumer_env

REPOSITORY = Path(__file__).parents[2]
READER = {"support-api": "aws"}


@dataclass
class World:
    """Stand-ins in this process, and a home whose files say where they are."""

    home: Home
    aws: AwsServer
    azure: KeyVaultServer
    openai: OpenAIServer

    def __post_init__(self) -> None:
        self.home.make()
        self._project = self._ask("POST", "", {"name": "demo"})["id"]
        origin = self.openai.base_url.removesuffix("/v1")
        audit = self.home.directory / "audit.log"
        audit.write_text("{}\n")
        endpoints = {
            "aws": {"controlUrl": self.aws.endpoint},
            "keyvault": {"controlUrl": self.azure.vault_url, "caBundle": self.azure.ca},
            "openai": {"controlUrl": origin},
            "openbao": {"auditLog": str(audit)},
        }
        write_private(self.home.endpoints, json.dumps(endpoints))
        env = self.aws.environment() | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": self.aws.endpoint}
        env["OPENAI_BASE_URL"] = self.openai.base_url
        write_private(self.home.consumer_env, "".join(f"export {name}={value}\n" for name, value in env.items()))

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        admin = {"Authorization": f"Bearer {self.openai.admin_key}"}
        url = f"{self.openai.base_url}/organization/projects{path}"
        with requests.request(method, url, json=body, headers=admin, timeout=10) as answer:
            answer.raise_for_status()
            return answer.json()

    def mint(self) -> tuple[str, Callable[[], object]]:
        """A key that works, and what revokes it."""
        made = self._ask("POST", f"/{self._project}/service_accounts", {"name": "demo"})
        revoke = partial(self._ask, "DELETE", f"/{self._project}/service_accounts/{made['id']}")
        return made["api_key"]["value"], revoke

    def store(self, value: str) -> None:
        """Makes it what Secrets Manager hands out."""
        client = self.aws.client("secretsmanager")
        try:
            client.put_secret_value(SecretId=f"sandbox/{CHAT}", SecretString=value)
        except client.exceptions.ResourceNotFoundException:
            client.create_secret(Name=f"sandbox/{CHAT}", SecretString=value)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[AwsServer, KeyVaultServer, OpenAIServer]]:
    with ExitStack() as stack:
        aws, azure = stack.enter_context(AwsServer()), stack.enter_context(KeyVaultServer())
        yield aws, azure, stack.enter_context(OpenAIServer())


@pytest.fixture
def world(tmp_path: Path, servers: tuple[AwsServer, KeyVaultServer, OpenAIServer]) -> World:
    return World(Home(tmp_path), *servers)


def test_a_story_that_holds_ends_well(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """An application that reads its key again in time loses no request, and the exit code is 0."""
    first, revoke = world.mint()
    world.store(first)

    def tell(story: Story) -> None:
        with applications(story, READER) as apps:
            before = apps.count()
            world.store(world.mint()[0])
            apps.settle()
            revoke()
            apps.settle()
            for line in apps.unharmed(before):
                story.good(line)

    assert main(tell, world.home) == 0
    said = capsys.readouterr().out
    assert "support-api: 0 failed requests of " in said
    assert "All of it held" in said


def test_an_application_that_fails_requests_breaks_the_story(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that dies before its successor is stored costs requests; the demo counts them and ends with 1."""
    first, revoke = world.mint()
    world.store(first)

    def tell(story: Story) -> None:
        with applications(story, READER) as apps:
            before = apps.count()
            revoke()
            apps.settle()
            world.store(world.mint()[0])
            apps.settle()
            apps.unharmed(before)

    assert main(tell, world.home) == 1
    said = capsys.readouterr().out
    assert "✗ support-api: " in said
    assert "the last with 401 invalid_api_key" in said
    assert "All of it held" not in said


def test_a_rotation_that_never_happened_breaks_the_story(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """No failed request is no claim when the application has the same key all the time."""
    world.store(world.mint()[0])

    def tell(story: Story) -> None:
        with applications(story, READER) as apps:
            before = apps.count()
            apps.settle()
            apps.unharmed(before)

    assert main(tell, world.home) == 1
    assert "✗ support-api never saw a new key" in capsys.readouterr().out


def test_an_application_that_is_gone_breaks_the_story(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """One that ended counts no failures any more: that is told, instead of its last report being believed."""
    world.store(world.mint()[0])
    write_private(world.home.consumer_env, world.home.consumer_env.read_text().replace("AWS_REGION=", "AWS_OTHER="))

    def tell(story: Story) -> None:
        with applications(story, READER):
            pass

    assert main(tell, world.home) == 1
    assert "✗ support-api ended by itself" in capsys.readouterr().out


def test_a_command_that_fails_breaks_the_story(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Its output is on screen, what it was shown as is named, and nothing after it is told."""

    def tell(story: Story) -> None:
        story.run(sys.executable, "-c", "import sys; print('what it said'); sys.exit(3)", shown="a command")
        story.good("never told")

    assert main(tell, world.home) == 1
    said = capsys.readouterr().out
    assert "what it said" in said
    assert "✗ `a command` ended with 3, not 0" in said
    assert "never told" not in said


def test_a_sandbox_that_was_never_up_breaks_the_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a person must do is said in a line, without a traceback."""

    def tell(story: Story) -> None:
        story.read("aws")

    assert main(tell, Home(tmp_path)) == 1
    assert "run `keyturn sandbox up`" in capsys.readouterr().out


def test_two_demos_at_once_do_not_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second says that there is a first, and touches nothing."""
    home = Home(tmp_path)
    second: list[int] = []
    assert main(lambda _story: second.append(main(lambda _story: None, home)), home) == 0
    assert second == [1]
    assert "✗ another demo is at work in this clone" in capsys.readouterr().out
    assert main(lambda _story: None, home) == 0


def test_an_application_does_not_outlive_the_demo(world: World) -> None:
    """Whatever kills the demo, its applications notice, and do not go on asking for ever."""
    world.store(world.mint()[0])
    starter = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'sandbox.consumer', *sys.argv[1:]]);"
        "print(child.pid, flush=True); input()"
    )
    report = world.home.root / "report.json"
    options = ["--store", "aws", "--entry", f"sandbox/{CHAT}", "--report", str(report)]
    env = {"PATH": os.environ["PATH"], **load_consumer_env(world.home.root)}
    with subprocess.Popen(
        [sys.executable, "-c", starter, *options],
        cwd=REPOSITORY,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        application = Path(f"/proc/{parent.stdout.readline().strip()}/cmdline")
        assert wait_until(report.exists, 20)
        assert "sandbox.consumer" in application.read_text()
        parent.kill()
    assert wait_until(lambda: not application.exists() or not application.read_text(), 20)


def test_a_persons_own_logins_reach_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's commands know the sandbox's clouds alone, whatever shell it is started from."""
    for name in (
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AZURE_CLIENT_ID",
        "VAULT_TOKEN",
        "OPENAI_API_KEY",
        "KEYTURN_STACK",
    ):
        monkeypatch.setenv(name, "the person's own")
    assert "the person's own" not in Story(Home(tmp_path)).env.values()


def test_a_proxy_is_left_out_of_this_machine_and_nothing_else() -> None:
    """What a person excepts already stays excepted, in the spelling that each library looks at."""
    assert without_proxy({}) == {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    both = without_proxy({"NO_PROXY": "a.example,127.0.0.1", "no_proxy": "b.example"})
    assert both == {"NO_PROXY": "a.example,127.0.0.1,b.example", "no_proxy": "a.example,127.0.0.1,b.example"}


@pytest.mark.parametrize(
    ("sweeps", "done"),
    [
        ([f"· {CHAT}: wait until then"], False),
        ([f"✓ {CHAT}: minted a, promoted in aws; wait"], False),
        ([f"✓ {CHAT}: minted a, promoted in aws; wait", f"✓ {CHAT}: condemned, revoked b, shown dead b; rotate"], True),
        ([f"✓ {CHAT}: minted a, promoted in aws; wait", "✓ another: shown dead c; rotate"], False),
        ([f"✓ {CHAT}: shown dead z, minted a, promoted in aws; wait"], False),
        ([f"✓ {CHAT}: shown dead z; rotate", f"✓ {CHAT}: minted a, promoted in aws; wait"], False),
    ],
)
def test_a_death_counts_after_a_rotation_only(sweeps: list[str], done: bool) -> None:
    """What an earlier, interrupted demo left to be shown dead is no rotation of this one."""
    assert retired(sweep + "\n" for sweep in sweeps) is done


def test_a_key_that_lives_is_no_dead_one(world: World) -> None:
    """The claim rests on what OpenAI answers, not on what a command said."""
    value, revoke = world.mint()
    thief = Thief(value, world.openai.base_url)
    with pytest.raises(Claim, match="the leaked key got 200"):
        holds_dead(thief, "the leaked key")
    revoke()
    holds_dead(thief, "the leaked key")


def test_an_edited_stack_is_not_told_about(tmp_path: Path) -> None:
    """Other secrets, or other stores, than the story's: it says what to do before it starts. Other policies are fine."""
    home = Home(tmp_path)
    home.stack.write_text(TEMPLATE.read_text().replace("rotateEvery: 60d", "rotateEvery: 90d"))
    as_told(home)
    home.stack.write_text(TEMPLATE.read_text().replace("store: azure", "store: vault"))
    with pytest.raises(Claim, match=r"move that file away, run `keyturn sandbox reset`"):
        as_told(home)


# The search for values.

PLANTED = "planted-" + secrets.token_hex(16)


def searched(world: World, story: Story) -> Path:
    """A home with something in every place that must not be empty. Returns the folder of Pulumi's state."""
    state, audit = world.home.root / "state", world.home.root / ".keyturn" / "audit"
    for folder in (state, audit):
        folder.mkdir()
        (folder / "file").write_text("{}")
    (world.home.logs / "aws.log").write_text('{"port": 1}\n')
    world.home.stack.write_text("config: {}\n")
    story.heard.append("nothing")
    return state


def in_an_output(world: World, story: Story) -> str:
    story.run(sys.executable, "-c", f"print('{PLANTED}')", shown="a command")
    return "output 2"


def in_an_applications_last_words(world: World, story: Story) -> str:
    env = world.home.consumer_env.read_text().replace(f"MANAGER={world.aws.endpoint}", f"MANAGER={PLANTED}")
    write_private(world.home.consumer_env, env)
    with pytest.raises(Claim), applications(story, READER):
        pass
    return "output 2"


def in_a_file(path: str) -> Callable[[World, Story], str]:
    def plant(world: World, story: Story) -> str:
        target = world.home.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f'{{"line": "key={PLANTED}"}}\n')
        return str(target)

    return plant


def in_openbaos_audit_log(world: World, story: Story) -> str:
    (world.home.directory / "audit.log").write_text(PLANTED)
    return "OpenBao's audit log"


def in_the_log_of_aws(world: World, story: Story) -> str:
    client = world.aws.client("secretsmanager")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_secret(SecretId=PLANTED)
    return "the log of calls of aws"


def in_the_log_of_key_vault(world: World, story: Story) -> str:
    world.azure.client().set_secret(PLANTED, "x")
    return "the log of calls of keyvault"


def in_the_log_of_openai(world: World, story: Story) -> str:
    requests.get(f"{world.openai.base_url}/models/{PLANTED}", timeout=10).close()
    return "the log of calls of openai"


@pytest.mark.parametrize(
    "plant",
    [
        in_an_output,
        in_an_applications_last_words,
        in_a_file("state/backups/deeper.json"),
        in_a_file(".keyturn/audit/sandbox.jsonl"),
        in_a_file(".keyturn/sandbox/logs/openai.log.1"),
        in_a_file("Pulumi.sandbox.yaml"),
        in_openbaos_audit_log,
        in_the_log_of_aws,
        in_the_log_of_key_vault,
        in_the_log_of_openai,
    ],
)
def test_a_planted_value_is_found(
    world: World, plant: Callable[[World, Story], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever a value stands the demo ends with 1, and names the place and the value's name, not the value."""
    where = ""
    values = {"another": "not-there-" + secrets.token_hex(8), "the planted value": PLANTED}

    def tell(story: Story) -> None:
        nonlocal where
        state = searched(world, story)
        assert search(story, state, {"another": values["another"]}) >= 9
        where = plant(world, story)
        capsys.readouterr()
        search(story, state, values)

    world.aws.control.forget_calls()
    world.azure.control.clear_log()
    world.openai.control.reset()
    assert main(tell, world.home) == 1
    said = capsys.readouterr().out
    assert f"✗ the planted value was found in {where}" in said
    assert PLANTED not in said


@pytest.mark.parametrize("folder", ["state", ".keyturn/audit", ".keyturn/sandbox/logs"])
def test_an_empty_place_proves_nothing(world: World, folder: str) -> None:
    """Where state, audit trail or logs are not where they are looked for, that is no clean result."""
    story = Story(world.home)
    state = searched(world, story)
    shutil.rmtree(world.home.root / folder)
    with pytest.raises(Claim, match="there is nothing to search in"):
        search(story, state, {"another": PLANTED})
