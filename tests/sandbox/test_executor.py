"""The local Lambda: environments, limits and what of Secrets Manager calls it; with small functions of the tests' own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hosting.packages import archive
from sandbox.aws.executor import Deployed, Executor, FunctionError
from sandbox.aws.records import RotationRequest
from sandbox.processes import wait_until

Deploy = Callable[..., Executor]


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    made: list[Executor] = []

    def deployed(source: str, **options: Any) -> Executor:
        names = ("rotation/__init__.py", "rotation/functions/__init__.py")
        entries = dict.fromkeys(names, b"") | {"rotation/functions/aws_lambda.py": source.encode()}
        archive.write(tmp_path / "f.zip", entries)
        made.append(Executor(tmp_path / "f.zip", lambda: {"GIVEN": "yes"}, **options))
        return made[-1]

    yield deployed
    for executor in made:
        executor.close()


REQUEST = RotationRequest(
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:a-abcdef",
    "eu-central-1",
    "arn:f",
    "t" * 36,
    "r" * 36,
    ("createSecret", "setSecret", "testSecret", "finishSecret"),
)


def test_a_warm_environment_is_used_again(deploy: Deploy) -> None:
    """One process for one call after another; a frozen one is not."""
    executor = deploy(
        "import os\ncount = 0\ndef handler(e, c):\n    global count\n    count += 1\n    return [count, os.getpid()]"
    )
    first, second = executor.invoke({}), executor.invoke({})
    assert (first[0], second[0]) == (1, 2)
    assert first[1] == second[1]
    executor.freeze()
    assert executor.invoke({})[0] == 1
    assert [invocation.cold for invocation in executor.invocations] == [True, False, True]


def test_calls_at_once_have_processes_of_their_own(deploy: Deploy) -> None:
    """Lambda gives no environment two events at a time."""
    executor = deploy(
        "import os, pathlib, time\n"
        "def handler(e, c):\n"
        "    here = pathlib.Path(e['folder']); (here / str(os.getpid())).touch()\n"
        "    while len(list(here.iterdir())) < 2: time.sleep(0.01)\n"
        "    return os.getpid()"
    )
    folder = executor._directory / "meet"
    folder.mkdir()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(executor.invoke({"folder": str(folder)}))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2


def test_what_takes_too_long_is_killed(deploy: Deploy) -> None:
    """With its process: the next call starts cold. Before that it is told how long it has."""
    executor = deploy(
        "import time\ndef handler(e, c):\n    time.sleep(e['for']) if e['for'] else None\n"
        "    return c.get_remaining_time_in_millis()",
        timeout=1.0,
    )
    assert 0 < executor.invoke({"for": 0}) <= 1000
    with pytest.raises(FunctionError, match=r"timed out after 1\.00"):
        executor.invoke({"for": 60})
    executor.invoke({"for": 0})
    assert [invocation.cold for invocation in executor.invocations] == [True, False, True]


def test_a_function_finds_what_lambda_has_and_nothing_else(deploy: Deploy) -> None:
    """boto3 and what it needs, its own variables and Lambda's; no package of this machine, no place to write."""
    executor = deploy(
        "import os\n"
        "def handler(e, c):\n"
        "    import boto3, jmespath, urllib3\n"
        "    found = []\n"
        "    for name in ('pydantic', 'yaml', 'requests', 'rotation.engine', 'sandbox'):\n"
        "        try: __import__(name); found.append(name)\n"
        "        except ImportError: pass\n"
        "    try: open(os.path.join(os.environ['LAMBDA_TASK_ROOT'], 'x'), 'w'); found.append('writes')\n"
        "    except OSError: pass\n"
        "    names = ('GIVEN', 'AWS_LAMBDA_FUNCTION_NAME', 'HOME', 'PYTHONPATH')\n"
        "    return [found, {n: os.environ.get(n) for n in names}, c.aws_request_id]"
    )
    found, env, request = executor.invoke({})
    assert [name for name in found if name != "writes"] == []  # root may write anywhere
    assert env == {"GIVEN": "yes", "AWS_LAMBDA_FUNCTION_NAME": "keyturn", "HOME": None, "PYTHONPATH": None}
    assert len(request) == 36


def test_what_a_function_raises_is_its_answer(deploy: Deploy) -> None:
    """Its type and words; the stack goes into the log. Ending the process is an answer, too."""
    executor = deploy("def handler(e, c):\n    if e: raise SystemExit(3)\n    raise KeyError('nothing')")
    with pytest.raises(FunctionError, match="KeyError: 'nothing'"):
        executor.invoke({})
    assert "Traceback" in executor.log
    with pytest.raises(FunctionError, match="exited with status 3"):
        executor.invoke({"now": "leave"})


def test_a_rotation_is_four_steps_and_is_tried_again_as_a_whole(deploy: Deploy) -> None:
    """From createSecret on, as often as the service does it; each step with the secret's ARN and both tokens."""
    executor = deploy("def handler(e, c):\n    if e['Step'] == 'testSecret': raise ValueError('no')", retries=2)
    executor.on_rotate(REQUEST)
    executor.wait()
    tried = [invocation.step for invocation in executor.invocations]
    assert tried == ["createSecret", "setSecret", "testSecret"] * 3
    assert executor.invocations[0].event == {
        "Step": "createSecret",
        "SecretId": REQUEST.secret_arn,
        "ClientRequestToken": REQUEST.client_request_token,
        "RotationToken": REQUEST.rotation_token,
    }
    assert REQUEST.rotation_token not in repr(executor.invocations)


def test_a_killed_step_is_a_failed_one(deploy: Deploy) -> None:
    """Whatever was at work ends there and then."""
    executor = deploy("import time\ndef handler(e, c):\n    print('begun', flush=True)\n    time.sleep(60)", retries=0)
    executor.on_rotate(REQUEST)
    while "begun" not in executor.log:
        pass
    executor.kill()
    executor.wait()
    (only,) = executor.invocations
    assert only.error == "Runtime exited with status -9"


def test_a_sandboxs_function_is_looked_for_when_it_is_called(tmp_path: Path) -> None:
    """Before it is built that is said; what is built anew is what is called from then on."""
    said: list[str] = []
    package = tmp_path / "build" / "f.zip"
    deployed = Deployed(package, dict, None, said.append)
    deployed.on_rotate(REQUEST)
    assert "make lambda" in said[0]
    names = dict.fromkeys(("rotation/__init__.py", "rotation/functions/__init__.py"), b"")
    for number in (1, 2):
        done = tmp_path / f"done{number}"
        source = f"import pathlib\ndef handler(e, c): pathlib.Path({str(done)!r}, e['Step']).touch()"
        archive.write(package, {**names, "rotation/functions/aws_lambda.py": source.encode()})
        os.utime(package, (number, number))
        done.mkdir()
        deployed.on_rotate(REQUEST)
        assert wait_until((done / "finishSecret").exists, 20)
    deployed.close()
    deployed.close()
