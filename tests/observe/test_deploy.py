"""Units, manifests and the crontab that are shipped: valid by the tools of their kind, and of use to Keyturn."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from rotation.cli.main import app
from rotation.config import load
from rotation.policy import read_duration
from tests.cli.project import CHAT, KEYTURN, Project
from tests.observe.running import Running

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
SERVICES = sorted((DEPLOY / "systemd").glob("*.service"))
UNITS = sorted((DEPLOY / "systemd").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
INSTALLED = "/opt/keyturn/bin/keyturn"

systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit sets, by name; comments left out."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What Keyturn's own command line makes of these arguments; fails on what it does not know."""
    commands: Any = typer.main.get_command(app)
    command = commands.commands[arguments[0]]
    return dict(command.make_context(arguments[0], arguments[1:]).params)


# --- systemd ---------------------------------------------------------------------------------------


@systemd
def test_units_pass_systemds_own_verification(tmp_path: Path) -> None:
    """With the console script in place of the one that is installed."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(KEYTURN)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_services_are_little_exposed(unit: Path) -> None:
    """By systemd's own measure, from 0 to 10: below 2. What is left is the network, which is what it is for."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_services_take_secrets_as_files_and_start_what_there_is(unit: Path) -> None:
    """Nothing in an environment but paths; a command line that Keyturn understands."""
    has = settings(unit)
    assert {line.partition("=")[0] for line in has["Environment"]} == {
        "KEYTURN_AUDIT_FILE",
        "KEYTURN_NOTICES_FILE",
        "HOME",
    }
    assert all(line.partition("=")[2].startswith("%S/") for line in has["Environment"])
    for line in has["LoadCredential"]:
        name, _, path = line.partition(":")
        assert Path(path).name == name
    assert (has["DynamicUser"], has["ProtectSystem"], has["NoNewPrivileges"]) == (["yes"], ["strict"], ["yes"])
    (line,) = has["ExecStart"]
    program, *arguments = shlex.split(line)
    assert program == INSTALLED
    given = parsed(arguments)
    if has["Type"] == ["notify"]:
        bound = read_duration(given["stop_within"]).total_seconds()
        assert int(has["TimeoutStopSec"][0].removesuffix("s")) > bound + 10


def test_it_tells_systemd_where_it_stands(project: Project) -> None:
    """READY once it listens, WATCHDOG while the loop turns, STOPPING on the signal; to the socket that systemd names."""
    project.apply(CHAT)
    path = project.root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(20)
        with Running(project, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="1000000") as running:
            assert told.recv(100) == b"READY=1"
            assert told.recv(100) == b"WATCHDOG=1"
            running.process.terminate()
            heard = [told.recv(100)]
            while heard[-1] == b"WATCHDOG=1":
                heard.append(told.recv(100))
            assert heard[-1] == b"STOPPING=1"
            assert running.process.wait(timeout=20) == 0


def test_a_login_may_be_a_file(project: Project) -> None:
    """As LoadCredential= gives it: no variable holds it, and a rotation goes through."""
    project.apply(CHAT)
    folder = project.root / "credentials"
    folder.mkdir()
    for name in ("KEYTURN_VAULT_ROLE_ID", "KEYTURN_VAULT_SECRET_ID", "OPENAI_ADMIN_KEY"):
        (folder / name).write_text(project.environ.pop(name) + "\n")
    ran = project.execute("rotate", CHAT, env={"CREDENTIALS_DIRECTORY": str(folder)})
    assert ran.code == 0, ran.text


# --- Kubernetes ------------------------------------------------------------------------------------


def resources() -> Iterator[Any]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield pytest.param(document, id=f"{path.name}-{document['kind']}")


@pytest.mark.parametrize("resource", list(resources()))
def test_manifests_are_valid(resource: dict[str, Any]) -> None:
    """By the published schemas, where a field that there is not is a fault; all in the one namespace."""
    kubernetes_validate.validate(resource, "1.37", strict=True)
    assert resource["metadata"].get("namespace") == (None if resource["kind"] == "Namespace" else "keyturn")


def pods() -> Iterator[Any]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Deployment":
                yield pytest.param(document["spec"]["template"]["spec"], id="Deployment")
            if document["kind"] == "CronJob":
                yield pytest.param(document["spec"]["jobTemplate"]["spec"]["template"]["spec"], id="CronJob")


@pytest.mark.parametrize("pod", list(pods()))
def test_pods_keep_to_the_restricted_standard(pod: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/: and nothing secret in their environment."""
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    allowed = {"configMap", "emptyDir", "projected", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False
    assert {variable["name"] for variable in container["env"]} == {"KEYTURN_AUDIT_FILE", "KEYTURN_NOTICES_FILE", "HOME"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("pod", list(pods()))
def test_pods_run_what_there_is(pod: dict[str, Any]) -> None:
    """A command line that Keyturn understands, the stack file where it is mounted, probes where it answers."""
    (container,) = pod["containers"]
    given = parsed(container["args"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert Path(given["config"]).parent == Path(mounts["stack"])
    assert Path(given["config"]).name in _stacks()
    if "listen" not in given:
        assert pod["restartPolicy"] == "Never"
        return
    (port,) = container["ports"]
    assert given["listen"] == f"0.0.0.0:{port['containerPort']}"
    assert pod["terminationGracePeriodSeconds"] > read_duration(given["stop_within"]).total_seconds() + 10
    paths = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {container[probe]["httpGet"]["port"] for probe in paths} == {port["name"]}


def test_sweeps_of_a_cron_job_do_not_pile_up() -> None:
    """One at a time, and no retry but the next."""
    (job,) = (d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text()) if d["kind"] == "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_the_stack_file_of_the_config_map_is_one(tmp_path: Path) -> None:
    """Keyturn reads it, and its token file is where the token is projected to."""
    for name, text in _stacks().items():
        (tmp_path / name).write_text(text)
        config = load(tmp_path / name)
        assert [policy.name for policy in config.policies] == [CHAT]
        token = re.search(r"tokenFile: (\S+)", text)
        assert token
        assert all(
            f"path: {Path(token[1]).name}" in path.read_text()
            for path in MANIFESTS
            if path.stem in ("cronjob", "deployment")
        )


def _stacks() -> dict[str, str]:
    maps = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text()) if d["kind"] == "ConfigMap"]
    return {name: text for one in maps for name, text in one["data"].items()}


# --- cron ------------------------------------------------------------------------------------------


def test_the_crontab_sweeps() -> None:
    """A line of /etc/cron.d: time, user, a command that Keyturn understands."""
    lines = (DEPLOY / "cron" / "keyturn").read_text().splitlines()
    (line,) = (line for line in lines if INSTALLED in line)
    times, user, command = line.split()[:5], line.split()[5], line.split(None, 6)[6]
    assert times == ["*/5", "*", "*", "*", "*"]
    assert user == "keyturn"
    assert "%" not in command  # cron ends the command there
    arguments = shlex.split(command.partition(f"{INSTALLED} ")[2].partition(" >>")[0])
    assert parsed(arguments)["json"] is True
