"""The sandbox's lifecycle: up, down, status, reset; what may be signalled, who may read what, and which files are kept."""

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import hvac
import pytest
import yaml
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from typer.testing import CliRunner

from rotation.config import KeyVaultConfig, OpenAIConfig, SecretsManagerConfig, VaultConfig, load
from sandbox import processes
from sandbox.cli import app
from sandbox.consumer import READERS
from sandbox.home import Home, SandboxError, find_home
from sandbox.services import AWS, KEYVAULT, OPENBAO
from sandbox.stack import KeyPath, write_stack
from sandbox.supervisor import Provided, Service, Site, Supervisor, load_consumer_env, load_env

ADDRESS: KeyPath = ("config", "keyturn:stores", "vault", "address")

SERVER = """
import json, socket, sys
open("starts", "a").write("x")
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(json.dumps({"port": server.getsockname()[1]}), flush=True)
while True:
    server.accept()[0].close()
"""


def answers(site: Site) -> bool:
    try:
        socket.create_connection(("127.0.0.1", site.port), timeout=1).close()
    except OSError:
        return False
    return True


def service(name: str = "tiny", program: str = SERVER, environment: Mapping[str, str] | None = None) -> Service:
    """A real process with a socket, small enough to start in 50 ms."""
    return Service(
        name=name,
        url="http://127.0.0.1:{port}",
        prepare=lambda _site: None,
        command=lambda site: [sys.executable, "-ISc", program, str(site.port)],
        environment=lambda _site: environment or {},
        announces=True,
        answers=answers,
        provision=lambda site: Provided(
            env={f"{name.upper()}_KEY": 'it\'s "quoted" $HOME'},
            consumer_env={"PORT": str(site.port)},
            endpoint={"fact": name},
            stack={ADDRESS: f"https://127.0.0.1:{site.port}"},
        ),
    )


class Clone:
    """A project's root with a sandbox of small services."""

    def __init__(self, root: Path, *services: Service) -> None:
        root.mkdir(exist_ok=True)
        self.home = Home(root)
        self.reports: list[str] = []
        self._services = services or (service(),)

    @property
    def supervisor(self) -> Supervisor:
        """A new one at each call, as each command makes one."""
        return Supervisor(self.home, self._services, settings={"SET": "1"}, report=self.reports.append)

    def pid(self) -> int:
        pid = self.supervisor.status()[0].pid
        assert pid is not None
        return pid

    def starts(self, name: str = "tiny") -> int:
        return len((self.home.directory / name / "starts").read_text())


def processes_in(root: Path) -> list[str]:
    """The command lines of the processes whose working directory lies below `root`, but for the test's own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            directory = (entry / "cwd").readlink()
        except OSError:
            continue
        if directory.is_relative_to(root):
            found.append((entry / "cmdline").read_text(errors="replace"))
    return found


def variables(pid: int) -> set[str]:
    """The names in a process's environment."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {entry.partition("=")[0] for entry in entries if entry} - {"LC_CTYPE"}  # which Python may add for itself


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """Whatever a test did, `down` ends every process that it started."""
    yield
    for records in tmp_path.rglob("services.json"):
        home = Home(records.parents[2])
        for name in json.loads(records.read_text())["services"]:
            Supervisor(home, (service(name),), settings={}, report=lambda _line: None).down()
    assert processes_in(tmp_path) == []


def test_up_down_up(tmp_path: Path) -> None:
    """`up` starts, a second `up` leaves the process alone, `down` ends it, and the next `up` keeps the port."""
    clone = Clone(tmp_path)
    (first,) = clone.supervisor.up()
    assert (first.service, first.state) == ("tiny", "running")
    assert first.since is not None
    assert clone.supervisor.up() == [first]
    assert clone.starts() == 1
    (stopped,) = clone.supervisor.down()
    assert (stopped.state, stopped.pid, stopped.endpoint, stopped.since) == ("stopped", None, first.endpoint, None)
    assert processes_in(tmp_path) == []
    clone.supervisor.down()
    (again,) = clone.supervisor.up()
    assert (again.state, again.endpoint) == ("running", first.endpoint)
    assert again.pid != first.pid


def test_a_dead_service_is_told_and_restarted_alone(tmp_path: Path) -> None:
    """A service that ended by itself shows as died; `up` starts it and leaves the other as it is."""
    clone = Clone(tmp_path, service("one"), service("two"))
    one, two = clone.supervisor.up()
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: clone.supervisor.status()[0].state == "died", 5)
    one_again, two_again = clone.supervisor.up()
    assert (one_again.state, one_again.endpoint) == ("running", one.endpoint)
    assert one_again.pid != one.pid
    assert two_again == two
    assert (clone.starts("one"), clone.starts("two")) == (2, 1)


def test_a_silent_service_is_told_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs but does not answer shows as such; `up` gives it time, then starts it again, and says so."""
    monkeypatch.setattr("sandbox.supervisor._READY_SECONDS", 0.3)
    silence = tmp_path / "silence"
    heard = dataclasses.replace(
        service(),
        prepare=lambda _site: silence.unlink(missing_ok=True),
        answers=lambda site: not silence.exists() and answers(site),
    )
    clone = Clone(tmp_path, heard)
    (before,) = clone.supervisor.up()
    silence.touch()
    (silent,) = clone.supervisor.status()
    assert (silent.state, silent.pid) == ("not answering", before.pid)
    (after,) = clone.supervisor.up()
    assert after.state == "running"
    assert after.pid != before.pid
    assert clone.reports == ["tiny runs but does not answer: starting it again"]


def test_a_service_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` waits a bounded time, ends the process again and names the log."""
    monkeypatch.setattr("sandbox.supervisor._READY_SECONDS", 0.3)
    clone = Clone(tmp_path, service(program="import signal; signal.pause()"))
    with pytest.raises(SandboxError, match=r"tiny was not ready within .*tiny\.log"):
        clone.supervisor.up()
    assert processes_in(tmp_path) == []


def test_a_taken_port_is_left_to_its_owner(tmp_path: Path) -> None:
    """When somebody listens on a service's port, the service moves, says so, and every file has the new place."""
    clone = Clone(tmp_path)
    clone.supervisor.up()
    clone.supervisor.down()
    endpoint = json.loads(clone.home.endpoints.read_text())["tiny"]["url"]
    port = int(endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        (moved,) = clone.supervisor.up()
        assert moved.state == "running"
        assert moved.endpoint != endpoint
        assert moved.endpoint is not None
        new_port = moved.endpoint.rpartition(":")[2]
        assert [report for report in clone.reports if str(port) in report and new_port in report]
        assert json.loads(clone.home.endpoints.read_text())["tiny"]["url"] == moved.endpoint
        assert load_consumer_env(tmp_path) == {"PORT": new_port}
        assert f"address: https://127.0.0.1:{new_port}\n" in clone.home.stack.read_text()
        clone.supervisor.down()
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_port_taken_at_the_last_moment_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who takes the port after we looked is not mistaken for the service, which starts on another one."""
    clone = Clone(tmp_path)
    (before,) = clone.supervisor.up()
    clone.supervisor.down()
    assert before.endpoint is not None
    look = processes.free_port
    monkeypatch.setattr("sandbox.supervisor.free_port", lambda wanted: wanted or look())
    with socket.create_server(("127.0.0.1", int(before.endpoint.rpartition(":")[2]))):
        (status,) = clone.supervisor.up()
    assert status.state == "running"
    assert status.endpoint != before.endpoint
    assert clone.starts() == 3


def test_a_reused_pid_is_never_signalled(tmp_path: Path) -> None:
    """A record whose pid belongs to another process today counts as died, and `down` leaves that process alone."""
    clone = Clone(tmp_path)
    clone.supervisor.up()
    clone.supervisor.down()
    with subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE) as stranger:
        records = json.loads(clone.home.services.read_text())
        records["services"]["tiny"] |= {"process": {"pid": stranger.pid, "started": "boot 1"}, "since": "then"}
        clone.home.services.write_text(json.dumps(records))
        assert clone.supervisor.status()[0].state == "died"
        assert clone.supervisor.down()[0].state == "stopped"
        assert stranger.poll() is None
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


def test_a_copied_clone_does_not_stop_the_original(tmp_path: Path) -> None:
    """A copy of a running sandbox's directory takes over the content, not the processes, and runs beside it."""
    original = Clone(tmp_path / "original")
    (running,) = original.supervisor.up()
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = Clone(tmp_path / "copy")
    assert copy.supervisor.status()[0].state == "stopped"
    copy.supervisor.down()
    assert original.supervisor.status() == [running]
    (beside,) = copy.supervisor.up()
    assert beside.state == "running"
    assert beside.endpoint != running.endpoint
    copy.supervisor.reset()
    assert original.supervisor.status() == [running]


def test_two_ups_at_once_start_things_once(tmp_path: Path) -> None:
    """A second `up` waits for the first, and then finds everything running."""
    clone = Clone(tmp_path)
    clone.home.make()
    threads = [threading.Thread(target=clone.supervisor.up) for _ in range(4)]
    with clone.home.claim(lambda: None):
        for thread in threads:
            thread.start()
        # All four wait here; each says so.
        assert processes.wait_until(lambda: len(clone.reports) == 4, 5)
    for thread in threads:
        thread.join()
    assert clone.starts() == 1
    assert len(processes_in(tmp_path)) == 1


def test_a_service_that_does_not_start_is_explained(tmp_path: Path) -> None:
    """`up` names the service and its log, and leaves no process and no record of one."""
    clone = Clone(tmp_path, service("good"), service("bad", "raise SystemExit('cannot')"))
    with pytest.raises(SandboxError, match=r"bad ends as soon as it is started; see .*bad\.log"):
        clone.supervisor.up()
    assert "cannot" in (clone.home.logs / "bad.log").read_text()
    assert [entry.state for entry in clone.supervisor.status()] == ["running", "stopped"]
    clone.supervisor.down()


def test_a_stubborn_process_is_killed_with_its_children(tmp_path: Path) -> None:
    """SIGTERM first; what is still there after the wait gets SIGKILL, and so does what it started."""
    stubborn = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-ISc", "import signal; signal.pause()"])
print("ready", flush=True)
signal.pause()
"""
    log = tmp_path / "log"
    process = processes.start([sys.executable, "-ISc", stubborn], environment={}, directory=tmp_path, log=log)
    assert processes.wait_until(lambda: log.read_text() == "ready\n", 5)
    assert len(processes_in(tmp_path)) == 2
    assert processes.stop(process, patience=0.2)
    assert not processes.is_running(process)
    assert processes.wait_until(lambda: processes_in(tmp_path) == [], 5)
    assert not processes.stop(process)


def test_a_process_outlives_its_starter_and_is_recognised_by_others(tmp_path: Path) -> None:
    """A process started by one command is found running by another, and stopped by it."""
    starter = (
        "import sys; from pathlib import Path; from sandbox import processes;"
        "p = processes.start([sys.executable, '-ISc', 'import signal; signal.pause()'],"
        "environment={}, directory=Path(sys.argv[1]), log=Path(sys.argv[1], 'log')); print(p.pid, p.started)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pid, _, started = output.strip().partition(" ")
    process = processes.Process(int(pid), started)
    assert processes.is_running(process)
    assert not processes.is_running(processes.Process(int(pid), started + "0"))
    assert processes.stop(process)
    assert not processes.is_running(process)


def test_a_zombie_does_not_run(tmp_path: Path) -> None:
    """A process that ended, but that nobody collects (as in containers without an init), does not count as running."""
    starter = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-ISc', 'input()'], stdin=subprocess.PIPE);"
        "print(child.pid, flush=True); input(); child.stdin.close(); input()"
    )
    command = [sys.executable, "-ISc", starter]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        process = processes.Process(pid, processes._start_time(pid) or "")
        assert processes.is_running(process)
        print(file=parent.stdin, flush=True)
        assert processes.wait_until(lambda: not processes.is_running(process), 5)
        assert not processes.stop(process)


@pytest.mark.skipif(shutil.which("ps") is None, reason="this is how it works where there is no /proc")
def test_processes_are_recognised_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no /proc, ps tells one process from another."""
    monkeypatch.setattr(processes, "_BOOT_ID", tmp_path / "missing")
    command = [sys.executable, "-ISc", "import signal; signal.pause()"]
    process = processes.start(command, environment={}, directory=tmp_path, log=tmp_path / "log")
    assert processes.is_running(process)
    assert not processes.is_running(processes.Process(process.pid, "Thu Jan  1 00:00:00 1970"))
    assert processes.stop(process)
    assert not processes.is_running(process)


def test_a_child_gets_its_own_variables_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's environment reaches a service, and none of its credentials its command line."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-caller")
    clone = Clone(tmp_path, service(environment={"TOKEN": "canary-of-the-service"}))
    clone.supervisor.up()
    assert variables(clone.pid()) == {"TOKEN"}
    assert "canary" not in Path(f"/proc/{clone.pid()}/cmdline").read_text()


def test_env_file_means_the_same_to_a_shell(tmp_path: Path) -> None:
    """What load_env() reads is what a shell gets by sourcing the file, quotes and dollars included."""
    clone = Clone(tmp_path)
    with pytest.raises(SandboxError, match="keyturn sandbox up"):
        load_env(tmp_path)
    clone.supervisor.up()
    expected = {"SET": "1", "TINY_KEY": 'it\'s "quoted" $HOME'}
    assert load_env(tmp_path) == expected
    script = f". {shlex.quote(str(clone.home.env))}; env -0"
    output = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    assert expected.items() <= dict(line.split("=", 1) for line in output.split("\0") if line).items()


def test_files_are_private_and_endpoints_hold_no_credential(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600; endpoints.json has places only."""
    clone = Clone(tmp_path)
    clone.supervisor.up()
    for path in (clone.home.directory, *clone.home.directory.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    endpoints = json.loads(clone.home.endpoints.read_text())
    assert endpoints == {"tiny": {"url": clone.supervisor.status()[0].endpoint, "fact": "tiny"}}


def test_reset_deletes_content_and_state_and_keeps_the_stack(tmp_path: Path) -> None:
    """After `reset` nothing runs and nothing is left of the sandbox but the stack's file; `up` begins anew."""
    clone = Clone(tmp_path)
    clone.supervisor.up()
    (clone.home.pulumi_state / "state.json").write_text("{}")
    clone.supervisor.reset()
    assert processes_in(tmp_path) == []
    assert not clone.home.directory.exists()
    assert not clone.home.pulumi_state.exists()
    assert clone.home.stack.exists()
    clone.supervisor.reset()
    assert clone.supervisor.up()[0].state == "running"
    assert clone.starts() == 1


def test_an_edited_stack_keeps_the_edits(tmp_path: Path) -> None:
    """Only the sandbox's own values change in an existing file; comments, order, style and additions stay."""
    target = tmp_path / "Pulumi.sandbox.yaml"
    issuer: KeyPath = ("config", "keyturn:issuers", "openai")
    values: dict[KeyPath, str] = {ADDRESS: "https://127.0.0.1:1111", (*issuer, "baseUrl"): "http://127.0.0.1:2222/v1"}
    assert write_stack(target, values) == []
    edited = target.read_text().replace("rotateEvery: 30d", "rotateEvery: 7d  # mine", 1) + "encryptionsalt: v1:abc=\n"
    flow = "    openai: {project: proj_1, baseUrl: 'http://old', kind: openai} # in one line\n"
    begin, end = edited.index("    openai:\n"), edited.index("    generated:\n")
    edited = edited[:begin] + flow + edited[end:]
    target.write_text(edited)
    values[(*issuer, "project")] = "proj_2"
    assert write_stack(target, values) == []
    assert target.read_text() == edited.replace("proj_1", "proj_2").replace("'http://old'", "http://127.0.0.1:2222/v1")
    # A path with a space, and with what would end a plain value, is quoted.
    awkward = str(tmp_path / "a, b: c}")
    write_stack(target, {("config", "keyturn:stores", "vault", "caBundle"): awkward, (*issuer, "project"): awkward})
    config = yaml.safe_load(target.read_text())["config"]
    assert config["keyturn:stores"]["vault"]["caBundle"] == awkward
    assert config["keyturn:issuers"]["openai"] == {
        "project": awkward,
        "baseUrl": "http://127.0.0.1:2222/v1",
        "kind": "openai",
    }


def test_a_stack_without_our_values_is_left_and_told(tmp_path: Path) -> None:
    """A value that the user took out is not put back; a file that is not YAML is not touched."""
    target = tmp_path / "Pulumi.sandbox.yaml"
    target.write_text("config: {}\n")
    assert write_stack(target, {ADDRESS: "https://127.0.0.1:1"}) == ["config.keyturn:stores.vault.address"]
    assert target.read_text() == "config: {}\n"
    target.write_text("config: [\n")
    with pytest.raises(SandboxError, match=r"Pulumi\.sandbox\.yaml is not YAML"):
        write_stack(target, {ADDRESS: "https://127.0.0.1:1"})
    assert target.read_text() == "config: [\n"


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    """Commands work in any directory of the clone, and say so where there is no clone."""
    (tmp_path / "deep" / "down").mkdir(parents=True)
    with pytest.raises(SandboxError, match=r"Pulumi\.yaml"):
        find_home(tmp_path / "deep" / "down")
    (tmp_path / "Pulumi.yaml").touch()
    assert find_home(tmp_path / "deep" / "down").root == tmp_path


# The real services, through the command.


@pytest.fixture
def keyturn_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `keyturn sandbox ARGUMENTS --json` in a new clone; gives its parsed output."""
    (tmp_path / "Pulumi.yaml").touch()
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, exit_code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout) if result.stdout else None

    return run


def vault(root: Path) -> hvac.Client:
    """As Keyturn."""
    env = load_env(root)
    client = hvac.Client(url=env["VAULT_ADDR"], verify=env["VAULT_CACERT"])
    client.auth.approle.login(env["KEYTURN_VAULT_ROLE_ID"], env["KEYTURN_VAULT_SECRET_ID"])
    return client


def secrets_manager(env: Mapping[str, str], endpoint: str) -> Any:
    """As whoever `env` says."""
    session = boto3.session.Session(
        env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"]
    )
    return session.client("secretsmanager", endpoint_url=endpoint)


@contextlib.contextmanager
def key_vault(env: Mapping[str, str], root: Path) -> Iterator[SecretClient]:
    """As whoever `env` says."""
    ca = str(root / ".keyturn/sandbox/ca.pem")
    with (
        ClientSecretCredential(
            env["AZURE_TENANT_ID"],
            env["AZURE_CLIENT_ID"],
            env["AZURE_CLIENT_SECRET"],
            authority=env["AZURE_AUTHORITY_HOST"],
            disable_instance_discovery=True,
            connection_verify=ca,
        ) as login,
        SecretClient(
            env["AZURE_AUTHORITY_HOST"], login, verify_challenge_resource=False, connection_verify=ca
        ) as client,
    ):
        yield client


CHAT = "support-copilot-chat"
VALUES = {store: f"canary-in-{store}" for store in ("aws", "azure", "vault")}


def store_values(root: Path, endpoint: str) -> None:
    """Puts a value into each vault, with Keyturn's own logins."""
    env = load_env(root)
    with contextlib.closing(secrets_manager(env, endpoint)) as aws:
        aws.create_secret(Name=f"sandbox/{CHAT}", SecretString=VALUES["aws"])
    with key_vault(env, root) as azure:
        azure.set_secret(f"sandbox--{CHAT}", VALUES["azure"])
    client = vault(root)
    client.secrets.kv.v2.create_or_update_secret(f"sandbox/{CHAT}", {"value": VALUES["vault"]})
    client.adapter.close()


def read_values(root: Path) -> dict[str, str]:
    """What an application reads from each vault."""
    env = load_consumer_env(root)
    return {
        store: READERS[store](env)(f"sandbox--{CHAT}" if store == "azure" else f"sandbox/{CHAT}") for store in VALUES
    }


NAMES = ["aws", "keyvault", "openbao", "openai"]
PYTHON = {"PYTHONPATH", "PYTHONUNBUFFERED"}


def test_the_real_sandbox_keeps_its_secrets(
    keyturn_sandbox: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up in 10 s; idempotent; secrets outlive down and up; no credential in argv, endpoints or listings; reset ends it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-caller")
    began = time.monotonic()
    listing = keyturn_sandbox("up")
    assert time.monotonic() - began < 10
    assert [(entry["service"], entry["state"]) for entry in listing] == [(name, "running") for name in NAMES]
    assert keyturn_sandbox("up") == keyturn_sandbox("status") == listing
    assert [variables(entry["pid"]) for entry in listing] == [
        {"SANDBOX_AWS_ACCESS_KEY_ID", "SANDBOX_AWS_SECRET_ACCESS_KEY"} | PYTHON,
        PYTHON,
        set(),
        {"SANDBOX_OPENAI_ADMIN_KEY"} | PYTHON,
    ]

    store_values(tmp_path, listing[0]["endpoint"])
    assert read_values(tmp_path) == VALUES
    env, consumer = load_env(tmp_path), load_consumer_env(tmp_path)
    for entry in keyturn_sandbox("down"):
        assert entry["state"] == "stopped"
    assert processes_in(tmp_path) == []

    assert [entry["endpoint"] for entry in keyturn_sandbox("up")] == [entry["endpoint"] for entry in listing]
    assert (load_env(tmp_path), load_consumer_env(tmp_path)) == (env, consumer)
    assert read_values(tmp_path) == VALUES

    home = tmp_path / ".keyturn/sandbox"
    login = ("AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "VAULT_SECRET_ID", "ADMIN_KEY")
    credentials = [value for each in (env, consumer) for name, value in each.items() if name.endswith(login)]
    assert len(set(credentials)) == 7
    credentials += [json.loads((home / "aws/administrator.json").read_text())["SecretAccessKey"]]
    credentials += [(home / "openbao/root-token").read_text(), *VALUES.values()]
    shown = [*processes_in(tmp_path), (home / "endpoints.json").read_text()]
    shown += [json.dumps(keyturn_sandbox("status")), (tmp_path / "Pulumi.sandbox.yaml").read_text()]
    shown += [log.read_text() for log in (home / "logs").iterdir()]
    shown += [(home / "openbao/audit.log").read_text()]
    assert len(processes_in(tmp_path)) == len(NAMES)
    assert [text for text in shown for credential in credentials if credential in text] == []

    keyturn_sandbox("reset", exit_code=2)
    assert CliRunner().invoke(app, ["reset"], input="n\n").exit_code == 1
    assert {entry["state"] for entry in keyturn_sandbox("status")} == {"running"}
    assert {entry["endpoint"] for entry in keyturn_sandbox("reset", "--yes")} == {None}
    assert processes_in(tmp_path) == []


def test_the_stack_says_where_the_real_services_are(keyturn_sandbox: Callable[..., Any], tmp_path: Path) -> None:
    """Pulumi.sandbox.yaml can be loaded as it is, and every address in it is one of the listing's."""
    endpoints = {entry["service"]: entry["endpoint"] for entry in keyturn_sandbox("up")}
    env = load_env(tmp_path)
    config = load(tmp_path / "Pulumi.sandbox.yaml")
    aws, azure, bao, issuer = (*(config.stores[name] for name in VALUES), config.issuers["openai"])
    assert isinstance(aws, SecretsManagerConfig)
    assert isinstance(azure, KeyVaultConfig)
    assert isinstance(bao, VaultConfig)
    assert isinstance(issuer, OpenAIConfig)
    assert (aws.endpoint_url, aws.region) == (endpoints["aws"], env["AWS_REGION"])
    assert azure.vault_url == azure.authority_host == env["AZURE_AUTHORITY_HOST"] == endpoints["keyvault"]
    assert not azure.verify_challenge_resource
    assert bao.address == env["VAULT_ADDR"] == endpoints["openbao"]
    for bundle in (azure.ca_bundle, bao.ca_bundle):
        assert (tmp_path / (bundle or "")).samefile(env["VAULT_CACERT"])
    assert issuer.base_url == env["OPENAI_BASE_URL"] == endpoints["openai"]
    places = json.loads((tmp_path / ".keyturn/sandbox/endpoints.json").read_text())
    assert issuer.project == places["openai"]["project"]
    assert {policy.name: (policy.store, *policy.replicas) for policy in config.policies} == {
        "support-copilot-chat": ("aws", "vault"),
        "support-copilot-batch": ("aws", "vault"),
        "support-copilot-embed": ("azure",),
        "support-copilot-webhook": ("vault",),
    }
    keyturn_sandbox("down")


def test_each_login_may_do_what_it_is_for(keyturn_sandbox: Callable[..., Any], tmp_path: Path) -> None:
    """In Key Vault Keyturn stays within its environment and cannot purge; an application reads current values, no more.

    In Secrets Manager, whose stand-in enforces no permissions, the two are at least different users.
    """
    keyturn_sandbox("up")
    env, consumer = load_env(tmp_path), load_consumer_env(tmp_path)
    with key_vault(env, tmp_path) as keyturn, key_vault(consumer, tmp_path) as application:
        for sibling in ("", "-pending", "-journal", "-policy"):
            keyturn.set_secret(f"sandbox--{CHAT}{sibling}", "value")
        assert application.get_secret(f"sandbox--{CHAT}").value == "value"
        refused: list[Callable[[], object]] = [
            lambda: keyturn.set_secret("prod--another", "value"),
            lambda: keyturn.get_secret("prod--another"),
            lambda: keyturn.purge_deleted_secret(f"sandbox--{CHAT}"),
            lambda: keyturn.backup_secret(f"sandbox--{CHAT}"),
            lambda: application.set_secret(f"sandbox--{CHAT}", "value"),
            lambda: application.begin_delete_secret(f"sandbox--{CHAT}"),
            lambda: application.get_secret(f"sandbox--{CHAT}-pending"),
            lambda: application.get_secret(f"sandbox--{CHAT}-journal"),
            lambda: application.get_secret("prod--another"),
            lambda: list(application.list_properties_of_secrets()),
            lambda: list(application.list_properties_of_secret_versions(f"sandbox--{CHAT}")),
        ]
        for act in refused:
            with pytest.raises(HttpResponseError) as error:
                act()
            assert error.value.status_code == 403
        assert [about.name for about in keyturn.list_properties_of_secrets()] != []
    assert env["AWS_ACCESS_KEY_ID"] != consumer["AWS_ACCESS_KEY_ID"]
    keyturn_sandbox("down")


def test_a_login_that_aws_has_forgotten_is_made_anew(tmp_path: Path) -> None:
    """An account that lost what was written last (a power cut) is provisioned again: both users, keys that work."""
    home = Home(tmp_path)
    sandbox = Supervisor(home, (AWS,), settings={}, report=lambda _line: None)
    sandbox.up()
    before = load_env(tmp_path)
    sandbox.down()
    (home.directory / "aws/account/aws.pickle").unlink()
    (running,) = sandbox.up()
    assert running.endpoint is not None
    after = load_env(tmp_path)
    assert after["AWS_ACCESS_KEY_ID"] != before["AWS_ACCESS_KEY_ID"]
    for env in (after, load_consumer_env(tmp_path)):
        with contextlib.closing(secrets_manager(env, running.endpoint)) as client:
            assert client.list_secrets()["SecretList"] == []
    sandbox.up()
    assert load_env(tmp_path) == after
    sandbox.down()


def test_a_stranger_on_key_vaults_port_is_not_taken_for_it(tmp_path: Path) -> None:
    """Neither a server that speaks no TLS, nor another one of this sandbox, whose certificate is as good."""
    home = Home(tmp_path)
    sandbox = Supervisor(home, (OPENBAO, service()), settings={}, report=lambda _line: None)
    for running in sandbox.up():
        assert running.endpoint is not None
        assert not KEYVAULT.answers(Site(home, "keyvault", int(running.endpoint.rpartition(":")[2])))
    sandbox.down()


def test_two_commands_at_once_in_two_clones(tmp_path: Path) -> None:
    """Four `up` commands at the same time, two in each of two clones, give two working sandboxes."""
    clones = [tmp_path / "first", tmp_path / "second"]
    for clone in clones:
        clone.mkdir()
        (clone / "Pulumi.yaml").touch()
    command = [sys.executable, "-c", "from sandbox.cli import app; app()"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(clone: Path, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, *arguments], cwd=clone, env=env, stdout=subprocess.PIPE, text=True)

    ups = [run(clone, "up", "--json") for clone in clones * 2]
    listings = [json.loads(up.communicate()[0]) for up in ups]
    assert [up.returncode for up in ups] == [0, 0, 0, 0]
    assert listings[0] == listings[2]
    assert listings[1] == listings[3]
    assert len({entry["endpoint"] for listing in listings for entry in listing}) == 2 * len(NAMES)
    assert len(processes_in(tmp_path)) == 2 * len(NAMES)
    for clone, listing in zip(clones, listings[:2], strict=True):
        store_values(clone, listing[0]["endpoint"])
        assert read_values(clone) == VALUES
    first_down = run(clones[0], "down", "--json")
    assert {entry["state"] for entry in json.loads(first_down.communicate()[0])} == {"stopped"}
    assert len(processes_in(tmp_path)) == len(NAMES)


def test_outside_a_project_the_command_says_so(
    keyturn_sandbox: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a Pulumi.yaml above it the command fails with one line, not a traceback."""
    (tmp_path / "Pulumi.yaml").unlink()
    result = CliRunner().invoke(app, ["up"])
    assert result.exit_code == 1
    assert result.stderr.startswith("sandbox: no Pulumi.yaml in ")
    assert "Traceback" not in result.output
