"""The AWS Lambda function: Secrets Manager's rotation steps, EventBridge's schedule, SQS's batches of names.

    Secrets Manager ── createSecret, setSecret, testSecret, finishSecret ──► Engine.step: one attempt, under its token
    EventBridge     ── a scheduled event ──────────────────────────────────► the sweep, as `keyturn sweep` does it; or, of
                                                                             a fleet, its look alone: what is due goes to SQS
    SQS             ── names of secrets ───────────────────────────────────► a run of each; what failed comes again

A step that did not get where it was to go raises: Secrets Manager then tries the whole rotation again, several times.
Each step does nothing that it has done before. setSecret has nothing to do: no issuer here has to be told of a
credential that it made itself.

Nothing of ours is loaded before there is an event, and of the rest only what that event and the configuration need: a
cold start pays for each module. The configuration lies beside this package as `keyturn.json`, as the builder of the
package has checked it (`python -m hosting.packages.aws`), or where KEYTURN_CONFIG says, a stack file's YAML included.

The log is JSON lines with the invocation's `aws_request_id`; the audit trail and CloudWatch's metrics are lines of
it, too. Facts from "Rotation by Lambda function" (Secrets Manager user guide), "Lambda context object in Python",
"Handling errors for an SQS event source" and "Creating rules that run on a schedule" (EventBridge).
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rotation.functions.lambda_host import Context, Host

_ALLOCATIONS: Final = 50_000
"""Between two searches for garbage. With Python's own 700, a start spends a fifth of its time on searching through what
it loads, which stays."""

_hosts: Final[list[Host]] = []
"""One, from the first event on; warm invocations go on with its connections. It remembers nothing of any secret."""


def handler(event: Mapping[str, Any], context: Context) -> Any:
    """What Lambda calls.

    Returns:
        For a step nothing; for a schedule how many secrets ended how; for SQS its `batchItemFailures`.

    Raises:
        Failed: the step did not get where it was to go, or the sweep left something that failed or is not shown dead;
            in words that hold no value. A sweep that Lambda then repeats does no harm.
    """
    if not _hosts:
        gc.set_threshold(_ALLOCATIONS, 20, 20)
        import os  # noqa: PLC0415 - as all of ours, only once there is an event
        from pathlib import Path  # noqa: PLC0415

        from rotation.functions.lambda_host import open_host  # noqa: PLC0415

        _hosts.append(open_host(os.environ, Path(__file__).parents[2]))
    return _hosts[0].answer(event, context)
