"""Makes out of a configuration what tells owners and reaches consumers. Opens no connection, and loads no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rotation.declared import Config
from rotation.errors import Code, Trouble
from rotation.model import SecretValue
from rotation.notify.courier import LIMIT
from rotation.notify.memory import Memory
from rotation.notify.telling import Channel, Message, Route, Telling
from rotation.ports import Clock, Notifier, SecretStore, Severity, Silent
from rotation.telemetry import NONE, Telemetry

if TYPE_CHECKING:
    from rotation.notify.consumers import Change, Readers

FILE: Final = "KEYTURN_NOTICES_FILE"
"""The variable that names the memory's file, where the host does not choose one."""
_WAIT: Final = LIMIT * 0.8
"""Seconds for a connection, and for an answer: libraries are to give up before their call is given up."""


class _Values:
    """Looks up what a configuration refers to, afresh each time: it may have been renewed."""

    def __init__(self, env: Mapping[str, str], root: Path, stores: Mapping[str, SecretStore]) -> None:
        self._env = env
        self._root = root
        self._stores = stores

    def get(self, service: str, what: str, reference: Any) -> SecretValue:
        """Raises Trouble with where the value was looked for."""
        if (variable := getattr(reference, "env", None)) is not None:
            text, where = self._env.get(variable, ""), f"the environment variable {variable}"
        elif (file := getattr(reference, "file", None)) is not None:
            where = f"the file {file}"
            try:
                text = (self._root / file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                text = ""
        else:
            return self._entry(service, what, reference)
        if not text:
            raise Trouble(Code.INVALID, service, f"{what} is missing: {where} is not there, or is empty")
        return SecretValue(text)

    def _entry(self, service: str, what: str, reference: Any) -> SecretValue:
        where = f"the entry {reference.name} in {reference.store}"
        try:
            fields = self._stores[reference.store].current(reference.name).fields
        except Trouble as trouble:
            code = trouble.code if not trouble.code.permanent else Code.INVALID
            raise Trouble(code, service, f"{what} can not be read from {where}: {trouble.code}") from None
        if "value" in fields or len(fields) == 1:
            return fields["value"] if "value" in fields else next(iter(fields.values()))
        raise Trouble(Code.INVALID, service, f"{where} has several fields, and none is called value")


def notifier(
    config: Config,
    env: Mapping[str, str],
    stores: Mapping[str, SecretStore],
    memory: Memory,
    clock: Clock,
    telemetry: Telemetry = NONE,
) -> Notifier:
    """Tells owners as the configuration declares; nobody where it has no channels.

    Parameters:
        env: where credentials of channels are looked up.
        stores: where those that stand in an entry are read.
        memory: what was told already.
    """
    if not config.channels:
        return Silent()
    values = _Values(env, config.root, stores)
    channels = {
        name: Channel(name, partial(_bring, f"channel {name}", about, values), about.repeat_after)
        for name, about in config.channels.items()
    }
    routes = {
        name: [Route(r.channel, Severity(r.least) if r.least else None, r.on) for r in owner.notify]
        for name, owner in config.owners.items()
    }
    return Telling(channels, routes, config.notices, memory, clock, telemetry)


def _bring(service: str, about: Any, values: _Values, message: Message) -> None:
    if hasattr(about, "apprise"):
        from rotation.notify import by_apprise  # noqa: PLC0415 - each channel loads its own SDK

        by_apprise.send(service, values.get(service, "its URL", about.apprise), message, _WAIT)
        return
    from rotation.notify import by_sns  # noqa: PLC0415 - as above

    topic = about.sns
    by_sns.send(service, topic.arn, message, _WAIT, endpoint_url=topic.endpoint_url, profile=topic.profile)


def readers(
    config: Config,
    env: Mapping[str, str],
    stores: Mapping[str, SecretStore],
    memory: Memory,
    clock: Clock,
    telemetry: Telemetry = NONE,
    account: Path | None = None,
) -> Readers | None:
    """Reaches consumers as the configuration declares; None where it declares none.

    Parameters:
        account: folder of the service account; a pod's own when not given.
    """
    if not config.on_rotate:
        return None
    from rotation.notify import consumers  # noqa: PLC0415 - for who declares any

    values = _Values(env, config.root, stores)

    def reach(about: Any, change: Change) -> None:
        service = f"consumer {change.consumer}"
        if hasattr(about, "restart"):
            place = account or consumers.ACCOUNT
            consumers.restart(service, about.restart.kubernetes, change, env, place, _WAIT)
            return
        webhook = about.webhook
        secret = values.get(service, "the secret of its webhook", webhook.secret)
        hidden = getattr(webhook, "url_from", None)
        address = values.get(service, "the address of its webhook", hidden).reveal() if hidden else webhook.url
        consumers.call_webhook(service, address, secret, change, clock.now(), _WAIT)

    reaches = {
        secret: {name: partial(reach, about) for name, about in of.items()} for secret, of in config.on_rotate.items()
    }
    return consumers.Readers(reaches, memory, clock, telemetry)
