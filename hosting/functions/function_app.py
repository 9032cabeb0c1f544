"""The Azure Functions app: three bindings, and what they hand to the host. The Python v2 programming model.

The annotations are read by the platform when it loads this file, so they are not postponed.
"""

import os
import threading
from pathlib import Path
from typing import List  # noqa: UP035 - the platform's worker does not take list[str] for a list of outputs

import azure.functions as func

from rotation.functions.azure_functions import QUEUE, SCHEDULE, Host, is_fleet, open_host

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

_ROOT = Path(__file__).parent
_lock = threading.Lock()
_hosts: list[Host] = []


def _host() -> Host:
    """Made at the first invocation: a stack file that can not be read then fails that, and says why in its log."""
    with _lock:
        if not _hosts:
            _hosts.append(open_host(_ROOT, os.environ))
        return _hosts[0]


@app.function_name("events")
@app.route("events", methods=["POST", "OPTIONS"])
@app.queue_output("prompts", QUEUE, "AzureWebJobsStorage")
def events(req: func.HttpRequest, prompts: func.Out[List[str]]) -> func.HttpResponse:  # noqa: UP006 - as above
    """Event Grid's webhook."""
    answer = _host().answer(req.method or "", dict(req.headers), req.get_body())
    if answer.prompts:
        prompts.set([str(prompt) for prompt in answer.prompts])
    return func.HttpResponse(answer.body, status_code=answer.status, headers=dict(answer.headers))


@app.function_name("run")
@app.queue_trigger("message", QUEUE, "AzureWebJobsStorage")
def run(message: func.QueueMessage) -> None:
    """One run of a secret that an event or a person asked for."""
    _host().run(message.get_body())


@app.function_name("sweep")
@app.timer_trigger("timer", os.environ.get("KEYTURN_SWEEP_SCHEDULE") or SCHEDULE)
@app.queue_output("batches", QUEUE, "AzureWebJobsStorage")
def sweep(timer: func.TimerRequest, batches: func.Out[List[str]]) -> None:  # noqa: ARG001, UP006 - the platform's names
    """Everything that is due, here or, of a fleet, by the queue. What was missed is caught up once, when the app is back."""
    if is_fleet(os.environ):
        if sent := _host().dispatch():
            batches.set(sent)
    else:
        _host().sweep()
