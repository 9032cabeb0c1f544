"""The package of the Azure Functions app: the same bytes each time, whole, and no more than its stack needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from hosting.packages import archive, azure, closure
from tests.functions.events import NEAR, body, data, event
from tests.functions.test_azure_functions import CHAT, ENTRY, declared
from tools import pins

ROOT = Path(__file__).parents[2]
VAULT = {"kind": "hashicorp-vault", "address": "https://vault.example:8200", "auth": {"method": "token"}}
AWS = {"kind": "aws-secrets-manager", "region": "eu-west-1"}


def stack(folder: Path, **changed: Any) -> Path:
    file = folder / "Pulumi.prod.yaml"
    file.write_text(yaml.safe_dump({"config": declared(**changed)}))
    return file


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as it is unpacked on an instance."""
    folder = tmp_path_factory.mktemp("package")
    assert azure.main(["--config", str(stack(folder)), "--output", str(folder / "app.zip")]) == 0
    with zipfile.ZipFile(folder / "app.zip") as packed:
        packed.extractall(folder / "app")
    return folder / "app"


def alone(app: Path, code: str) -> Any:
    """What a program prints that sees the package, other packages, and nothing else of this project."""
    start = f"import sys; sys.path[:0] = [{str(app)!r}]; sys.path.append({sysconfig.get_path('purelib')!r})\n"
    command = [sys.executable, "-I", "-S", "-c", start + code]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_stack_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another stack gives others."""
    files = [tmp_path / name for name in ("one.zip", "two.zip", "three.zip")]
    for file, owners in zip(files, ((), (), ("next",)), strict=True):
        config = stack(tmp_path, owners={name: {"notify": []} for name in ("support-platform", *owners)})
        assert azure.main(["--config", str(config), "--output", str(file)]) == 0
    one, two, three = (file.read_bytes() for file in files)
    assert one == two
    assert one != three


def test_the_package_is_whole(app: Path) -> None:
    """Every module that it may ever load is there, the lazy ones too; nothing of the repository is needed."""
    modules = [
        ".".join(path.relative_to(app).with_suffix("").parts).removesuffix(".__init__") for path in app.rglob("*.py")
    ]
    assert "providers.issuers.http" in modules
    code = f"import importlib, json\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += "print(json.dumps([sys.modules['rotation'].__file__, 'sandbox' in sys.modules]))"
    assert alone(app, code) == [str(app / "rotation" / "__init__.py"), False]


def test_the_app_has_its_three_functions(app: Path) -> None:
    """As the platform indexes them: webhook and timer with a queue beside them, queue. The worker takes typing.List only."""
    code = """
import json, typing, function_app
found = {f.get_function_name(): [[b.type, getattr(b, "name", "")] for b in f.get_bindings()] for f in function_app.app.get_functions()}
out = typing.get_type_hints(function_app.app._function_builders[0]._function.get_user_function())["prompts"].__args__[0]
print(json.dumps([found, type(out).__name__]))
"""
    found, annotation = alone(app, code)
    assert {name: {kind for kind, _ in bindings} for name, bindings in found.items()} == {
        "events": {"httpTrigger", "http", "queue"},
        "run": {"queueTrigger"},
        "sweep": {"timerTrigger", "queue"},
    }
    assert annotation == "_GenericAlias"


def test_the_packed_webhook_answers(app: Path) -> None:
    """With the stack file that came along, and without loading any cloud's SDK."""
    given = body(event(NEAR, data(ENTRY), ENTRY))
    code = f"""
import json, azure.functions as func, function_app
class Out:
    def set(self, value): self.value = value
out, request = Out(), func.HttpRequest("POST", "/api/events", body={given!r})
events = next(f for f in function_app.app.get_functions() if f.get_function_name() == "events").get_user_function()
answer = events(request, out)
heavy = [m for m in ("boto3", "hvac", "azure.identity", "azure.keyvault", "requests") if m in sys.modules]
print(json.dumps([answer.status_code, out.value, heavy]))
"""
    assert alone(app, code) == [200, [json.dumps({"secret": CHAT, "store": "azure"})], []]


@pytest.mark.parametrize(
    ("changed", "needs", "not_needed"),
    [
        ({}, {"azure-identity", "azure-keyvault-secrets", "requests", "jmespath"}, {"boto3", "hvac"}),
        ({"stores": {"azure": VAULT}}, {"hvac"}, {"boto3", "azure-identity", "azure-keyvault-secrets"}),
        ({"stores": {"azure": VAULT | {"auth": {"method": "aws", "role": "keyturn"}}}}, {"hvac", "boto3"}, set()),
        ({"stores": {"azure": AWS}}, {"boto3"}, {"hvac", "azure-identity"}),
        ({"issuers": {"openai": {"kind": "generated"}, "generated": {"kind": "generated"}}}, set(), {"jmespath"}),
    ],
)
def test_what_is_installed_is_what_the_stack_needs(
    tmp_path: Path, changed: dict[str, Any], needs: set[str], not_needed: set[str]
) -> None:
    """Pinned as in this repository, but for the programming model, which goes by the Python version; never the CLI's."""
    lines = azure.entries(stack(tmp_path, **changed))["requirements.txt"].decode().split()
    names = {line.partition("==")[0] for line in lines}
    assert needs | {"azure-functions>=1.21,<3", "pydantic", "PyYAML"} <= names
    assert not names & (not_needed | {"pulumi", "typer", "rich"})
    pinned = {f"{pin.name}=={pin.version}" for pin in pins.read(pins.RUNTIME)}
    told = [line.partition("==") for line in lines if "==" in line]
    assert {f"{canonicalize_name(name.partition('[')[0])}=={version}" for name, _, version in told} <= pinned


def test_certificates_beside_the_stack_file_come_along(tmp_path: Path) -> None:
    """They are public; one that is elsewhere would not be found by the app, which is said before."""
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.pem").write_text("public")
    store = {"kind": "azure-key-vault", "vaultUrl": "https://x.vault.azure.net", "caBundle": "certificates/ca.pem"}
    assert azure.entries(stack(tmp_path, stores={"azure": store}))["certificates/ca.pem"] == b"public"
    for missing in ("absent.pem", "../ca.pem"):
        with pytest.raises(archive.Unpackable, match="caBundle"):
            azure.entries(stack(tmp_path, stores={"azure": store | {"caBundle": missing}}))


def test_a_stack_that_can_not_be_packed_is_said_by_its_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    config = stack(tmp_path, environment="Not A Name")
    assert azure.main(["--config", str(config), "--output", str(tmp_path / "x.zip")]) == 2
    assert "keyturn:environment" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_an_import_that_no_requirement_covers_is_noticed(tmp_path: Path) -> None:
    """So that a new dependency can not be left out of the package."""
    (tmp_path / "rotation").mkdir()
    (tmp_path / "rotation" / "__init__.py").touch()
    (tmp_path / "rotation" / "x.py").write_text("def f():\n    import numpy.linalg\n    from rotation import y\n")
    (tmp_path / "rotation" / "y.py").write_text("import json\n")
    found = closure.closure(tmp_path, ["rotation.x"])
    assert found.foreign == {"numpy.linalg"}
    assert set(found.files) == {"rotation/__init__.py", "rotation/x.py", "rotation/y.py"}
    with pytest.raises(archive.Unpackable, match=r"numpy\.linalg"):
        azure._requirements(found, ROOT, aws=False)
