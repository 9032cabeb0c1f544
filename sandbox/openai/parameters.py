"""Reads what a request carries, its query and its JSON body, and refuses what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from sandbox.openai.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

_YEAR = 31_536_000


def missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def invalid(name: str, expected: str) -> ApiError:
    return ApiError(400, f"Invalid '{name}': expected {expected}.", param=name, code="invalid_value")


class Body:
    """The JSON object that a request carries; fields not named in advance are refused."""

    def __init__(self, *names: str) -> None:
        given = request.get_json(silent=True) if request.get_data() else {}
        if not isinstance(given, dict):
            raise ApiError(400, "We could not parse the JSON body of your request.")
        for name in given:
            if name not in names:
                raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        self._given: dict[str, Any] = given

    def text(self, name: str) -> str | None:
        value = self._given.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            raise invalid(name, "a non-empty string")
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._given.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise invalid(name, "a list of strings")
        return tuple(values)

    def flag(self, name: str) -> bool:
        value = self._given.get(name)
        if value is not None and not isinstance(value, bool):
            raise invalid(name, "true or false")
        return bool(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise invalid(name, f"one of {', '.join(choices)}")
        return value

    def lifetime(self) -> int | None:
        """`expires_in_seconds`; None for a key that does not expire."""
        name = "expires_in_seconds"
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _YEAR:
            raise invalid(name, f"an integer from 1 to {_YEAR}")
        return value


def array(name: str) -> set[str]:
    """OpenAI's SDK writes `name[]=`, its description for usage `name=`; both are taken."""
    return {*request.args.getlist(name), *request.args.getlist(f"{name}[]")}


def number(name: str) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    if not given.isdecimal():
        raise invalid(name, "a whole number")
    return int(given)


def choice(name: str, choices: Sequence[str], *, default: str) -> str:
    given = request.args.get(name, default)
    if given not in choices:
        raise invalid(name, f"one of {', '.join(choices)}")
    return given


def flag(name: str) -> bool:
    return choice(name, ("true", "false"), default="false") == "true"


def limit(default: int = 20, most: int = 100) -> int:
    limit = number("limit")
    limit = default if limit is None else limit
    if not 1 <= limit <= most:
        raise invalid("limit", f"an integer from 1 to {most}")
    return limit
