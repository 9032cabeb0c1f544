"""The command `keyturn serve`: takes in GitHub's secret-scanning alerts, and opens incidents for what is ours."""

from __future__ import annotations

import logging
import os
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

import typer

from providers import registry
from rotation.cli.context import Context, File, Stack, UsageFault, open_context
from rotation.cli.emergency import incidents_folder
from rotation.cli.service import address, duration, notify, signals
from rotation.environ import Environ
from rotation.incident.record import Files, Incident
from rotation.incident.run import Runner, Tapped
from rotation.notify import runs
from rotation.observe.serving import Answer, plain
from rotation.resilience import Service
from rotation.sections import IntakeSection
from rotation.webhook.alerts import NAME, Alerts
from rotation.webhook.memory import Deliveries
from rotation.webhook.opening import Opening
from rotation.webhook.server import PATH, Certificate, Intake, Rate, Secret, receiving
from rotation.webhook.worker import Worker

_log = logging.getLogger(__name__)

_USUAL: Final = "127.0.0.1:9465"
_THEN: Final = "what was taken in is taken up when it starts again"
_AWAKE: Final = 0.2
"""Seconds until a signal is heard, at most."""
_FORM: Final = "webhook: {secret: REFERENCE, token: REFERENCE}"


def serve(
    stack: Stack = None,
    config: File = None,
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="HOST:PORT", help="Where POST /github, /healthz and /readyz are answered."),
    ] = _USUAL,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate, with its chain, in PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, in PEM.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="HTTP on an address that others reach: a proxy before it has HTTPS.")
    ] = False,
    memory: Annotated[
        Path | None,
        typer.Option(
            "--memory", metavar="FILE", help="What was taken in; .keyturn/webhook/ENVIRONMENT.json if not given."
        ),
    ] = None,
    stop_within: Annotated[
        str,
        typer.Option("--stop-within", metavar="DURATION", help="When asked to end, cut off what then takes longer."),
    ] = "25s",
) -> None:
    """Take in GitHub's secret-scanning alerts and open an incident for what is ours and alive. Runs until told to stop.

    GitHub's delivery has no value in it: the alert is looked up at its API, and what it found is matched as `keyturn
    emergency --leak` does. The plan is recorded and owners are told; nothing is changed, unless the stack file says
    `webhook: {act: true}`: then it is carried out. The value is in this process's memory only.

    A delivery counts when it is signed with the webhook's secret, and once. It is on disk before it is answered, within
    GitHub's 10 s; what is left is taken up again after failures, and after a restart. GitHub sends nothing again by itself:
    what it could not deliver is seen, and sent again, in the webhook's settings.

    Listens on this machine alone, or with --tls-cert and --tls-key anywhere. A second process is refused.

    Exit codes: 0 stopped as asked; 1 its memory can not be read, or another process has it; 2 usage or configuration.

    Example: keyturn serve --stack prod --listen 0.0.0.0:8443 --tls-cert fullchain.pem --tls-key privkey.pem
    """
    bound = duration("--stop-within", stop_within)
    host, port = address(listen, _USUAL)
    certificate = _certificate(tls_cert, tls_key)
    if not (certificate or behind_proxy or _loopback(host)):
        raise UsageFault(
            f"--listen {listen}: others reach it, and deliveries would come unencrypted; give --tls-cert and --tls-key, or "
            "--behind-proxy where a proxy before it has HTTPS"
        )
    if "KEYTURN_LOG_LEVEL" not in os.environ:
        logging.getLogger("rotation").setLevel(logging.INFO)
    stopping = threading.Event()
    context = open_context(stack, config, stopping=stopping.is_set)
    about = context.config.webhook
    if about is None:
        raise UsageFault(f"{context.path.name} declares no webhook; allowed: {_FORM}")
    context.open(context.declared(None))
    secret = _secret(context, about)
    deliveries = Deliveries(
        memory or Path.cwd() / ".keyturn" / "webhook" / f"{context.config.environment}.json", context.assembly.clock.now
    )
    with deliveries.alone():
        worker = _worker(context, about, deliveries, stopping)
        intake = Intake(secret, deliveries, worker.submit, Rate(context.assembly.clock))

        def alive() -> Answer:
            return plain(worker.alive, "takes alerts in" if worker.alive else "nothing is taken up any more")

        def ready() -> Answer:
            good = worker.alive and not stopping.is_set()
            return plain(good, "takes alerts in" if good else "is stopping")

        pages = {"/healthz": alive, "/readyz": ready}
        clock = context.assembly.clock
        try:
            with signals(stopping, bound, _THEN), receiving(host, port, intake, pages, clock, certificate) as taken:
                worker.start()
                scheme, what = "https" if certificate else "http", "acts" if about.act else "plans only"
                _log.info("listening on %s://%s:%d%s; %s", scheme, host, taken, PATH, what)
                notify("READY=1")
                while not stopping.wait(_AWAKE):
                    pass
                worker.join()
        except OSError as error:
            raise UsageFault(f"--listen {listen}: {error.strerror or error}") from None
    _log.info("stopped; %s", _THEN)


def _secret(context: Context, about: IntakeSection) -> Secret:
    a, env = context.assembly, Environ(os.environ)
    read = registry.value_at("webhook.secret", "the webhook's secret", about.secret, a.config, env, a.clock, a.stores)
    found = read()  # one that is not there is a fault of the configuration, and told as such
    if not found.reveal():
        raise UsageFault("keyturn:webhook.secret: is empty, and would let anybody in")
    return Secret(read, a.clock)


def _worker(context: Context, about: IntakeSection, deliveries: Deliveries, stopping: threading.Event) -> Worker:
    a, env = context.assembly, Environ(os.environ)
    token = registry.value_at("webhook.token", "GitHub's token", about.token, a.config, env, a.clock, a.stores)
    service = Service(NAME, a.clock, secrets.SystemRandom().random, telemetry=a.telemetry)
    alerts = Alerts(about.api, token, service, a.clock)

    @contextmanager
    def hearing(runner: Runner, incident: Incident) -> Iterator[None]:
        trail = context.trail
        before = (trail.auditor, trail.incident)
        trail.auditor, trail.incident = Tapped(trail.auditor, runner.heard), incident.id
        try:
            yield
        finally:
            trail.auditor, trail.incident = before

    opening = Opening(a, context.path.name, Files(incidents_folder()), hearing, about.act, about.owner)
    return Worker(deliveries, alerts, opening, a.clock, stopping, flush=lambda: runs.flush(a))


def _certificate(certificate: Path | None, key: Path | None) -> Certificate | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageFault("--tls-cert and --tls-key go together")
    try:
        return Certificate(certificate, key)
    except ssl.SSLError:
        raise UsageFault("--tls-cert, --tls-key: are not a certificate and its key in PEM") from None
    except OSError as error:
        raise UsageFault(f"--tls-cert, --tls-key: {error.filename or certificate}: {error.strerror}") from None


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
