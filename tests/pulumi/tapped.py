"""Runs the stand-in for the CLI, and writes down all that a provider and the engine say to each other.

    KEYTURN_TAPPED=FILE python -m tests.pulumi.tapped up --stack sandbox --yes

Registered inputs and outputs as they go over the wire, the log at DEBUG, and of each failure what Pulumi's own host would print, the
traceback with all of its causes, and what an error tracker would add: every object of ours in every frame.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from rotation import logs
from sandbox import pulumi_inprocess


def write(title: str, text: object) -> None:
    with Path(os.environ["KEYTURN_TAPPED"]).open("a", encoding="utf-8") as file:
        file.write(f"--- {title}\n{text}\n")


def objects(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            if type(value).__module__.split(".")[0] in ("rotation", "providers"):
                found.append(f"{trace.tb_frame.f_code.co_name} {name}={value!r}")
        trace = trace.tb_next
    return found


class Monitor(pulumi_inprocess.Monitor):
    """The wire: what is registered, and what goes back."""

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the SDK's name
        write("registered", request)
        answer = super().RegisterResource(request)
        write("answered", answer)
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        write("outputs", request)
        return super().RegisterResourceOutputs(request)


class Screen(pulumi_inprocess.Screen):
    """Failures, with everything that hangs on the exception behind them."""

    def error(self, text: str) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            write("traceback", "".join(traceback.format_exception(error)))
            write("objects", "\n".join(objects(error.__traceback__)))
        super().error(text)


def main() -> int:
    logs.start("DEBUG")
    pulumi_inprocess.Monitor = Monitor  # type: ignore[misc]
    pulumi_inprocess.Screen = Screen  # type: ignore[misc]
    return pulumi_inprocess.main()


if __name__ == "__main__":
    sys.exit(main())
