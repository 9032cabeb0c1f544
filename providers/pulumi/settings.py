"""Settings of a Pulumi program that hosts Keyturn: typed, checked as a whole, none of them secret; and its stack file."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import pulumi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rotation import hosted
from rotation.config import Config, ConfigError, load

S = TypeVar("S", bound="Settings")

SHOWN: Final = 32
"""The exit code by which Pulumi's Python host knows that the person has been told what is wrong."""


WHOLE: Final = BeforeValidator(lambda given: int(given) if isinstance(given, str) and given.isdigit() else given)
"""For a choice of whole numbers: Pulumi hands over each plain value as text."""


class Part(BaseModel):
    """Settings that belong together. Stack files write fields in camelCase; one that there is not is refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Settings(Part):
    """What every program that hosts a stack is told."""

    stack_file: Path | None = Field(
        None, description="the stack file whose secrets are rotated; `../../Pulumi.<stack>.yaml`"
    )
    tags: dict[str, str] = Field({}, description="tags or labels of everything that is made, besides those of Keyturn")
    environment: dict[str, str] = Field(
        {}, description="further variables, as `HTTPS_PROXY`. None that the stack file looks up a login in"
    )


def read(kind: type[S]) -> S:
    """The program's settings from the configuration of its Pulumi stack. Ends the program, with all faults told, on any."""
    bag: Mapping[str, Any] = pulumi.runtime.config.CONFIG.get()
    start = f"{pulumi.get_project()}:"
    ours = {key.removeprefix(start): value for key, value in bag.items() if key.startswith(start)}
    if secret := sorted(name for name in ours if pulumi.runtime.is_config_secret(start + name)):
        fail(*(f"{start}{name}: is encrypted, and no setting here is a secret; take it out" for name in secret))
    try:
        return kind.model_validate({name: _decoded(value) for name, value in ours.items()})
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        fail(*(f"{start}{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults))


def stack(settings: Settings) -> tuple[Path, Config]:
    """The stack file that is hosted, and what it declares. Ends the program where it is faulty, or a login is given away."""
    path = settings.stack_file or Path("../..", f"Pulumi.{pulumi.get_stack()}.yaml")
    try:
        config = load(path)
    except ConfigError as error:
        fail(*map(str, error.faults))
    logins = hosted.variables(config)
    if given := sorted(logins & settings.environment.keys()):
        fail(
            *(f"environment.{name}: a login would stand in Pulumi's state; README.md says what to do" for name in given)
        )
    return path, config


def warn_of_missing(config: Config, given: Collection[str] = ()) -> list[str]:
    """Says which variables of the stack file nothing here sets, and gives their names."""
    missing = sorted(hosted.variables(config) - set(given))
    if missing:
        pulumi.log.warn(
            f"the stack file looks up {', '.join(missing)}, which nothing here sets: what needs them fails in every sweep"
        )
    return missing


def fail(*faults: str) -> NoReturn:
    """Ends the program with these lines, and no traceback."""
    for fault in faults:
        pulumi.log.error(fault)
    sys.exit(SHOWN)


def _decoded(value: object) -> object:
    """Pulumi hands over structured values as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
