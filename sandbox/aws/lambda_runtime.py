"""The process of one Lambda execution environment: imports the handler once, then answers events, one at a time.

Run as a file by `sandbox.aws.executor` with nothing of this repository on its path but the extracted package. Events
come as JSON lines on standard input; answers go out as JSON lines on the descriptor that SANDBOX_ANSWERS names. Standard
output and standard error are the function's log.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from typing import Any


class Context:
    """What Lambda tells of an invocation ("Lambda context object in Python", Lambda developer guide)."""

    def __init__(self, request_id: str, milliseconds: int) -> None:
        self.aws_request_id = request_id
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.invoked_function_arn = os.environ["SANDBOX_FUNCTION_ARN"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._ends_at = time.monotonic() + milliseconds / 1000

    def get_remaining_time_in_millis(self) -> int:
        return max(round((self._ends_at - time.monotonic()) * 1000), 0)


def main() -> None:
    root, runtime = os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]
    sys.path[:0] = [root, runtime]
    module, _, name = os.environ["_HANDLER"].rpartition(".")
    handler = getattr(import_module(module), name)
    with os.fdopen(int(os.environ.pop("SANDBOX_ANSWERS")), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            asked = json.loads(line)
            answer: dict[str, Any]
            try:
                answer = {"result": handler(asked["event"], Context(asked["request_id"], asked["milliseconds"]))}
            except Exception as error:  # noqa: BLE001 - whatever a function raises is its answer
                # Lambda writes it to the log, too, with the stack.
                traceback.print_exc()
                answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
