"""Makes consumers read a new value, once every store hands it out: calls a webhook, or restarts a workload.

Once for each version and consumer, as far as the memory reaches; what failed is due again in the next sweep. Nothing here
holds up or undoes a rotation: a consumer that is not reached reads the new value when it refreshes by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rotation.errors import Code, Trouble
from rotation.logs import masked
from rotation.model import SecretValue
from rotation.notify.courier import Courier, Limited, judged
from rotation.notify.memory import Memory
from rotation.ports import Clock
from rotation.telemetry import NONE, Telemetry, calling

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A version that every store of a secret hands out now. Ids, names and times; never a value."""

    environment: str
    secret: str
    consumer: str
    version: str
    """The rotation token."""
    stores: tuple[str, ...]
    at: datetime
    key_id: str = ""
    previous_key_id: str = ""
    grace_until: str = ""
    """When the old credential may be revoked, in ISO 8601; empty where there is none."""

    @property
    def delivery(self) -> str:
        """The same for every attempt to tell one consumer of one version."""
        whole = f"{self.environment} {self.secret} {self.consumer} {self.version}"
        return hashlib.sha256(whole.encode()).hexdigest()[:32]


Reaches = Callable[[Change], None]
"""Makes a consumer read; raises Trouble without any address or answer in it."""


class Readers:
    """What makes consumers read, by secret and consumer. Threads may share it; only flush() waits.

    Parameters:
        reaches: by secret and consumer.
        memory: which version each was made to read.
        clock: for what watchers are told.
        telemetry: is told of every call, as the service `consumer NAME`.
        limited: makes what limits the calls to one consumer.
    """

    def __init__(
        self,
        reaches: Mapping[str, Mapping[str, Reaches]],
        memory: Memory,
        clock: Clock,
        telemetry: Telemetry = NONE,
        limited: Callable[[], Limited] = Limited,
    ) -> None:
        self._reaches = reaches
        self._memory = memory
        self._clock = clock
        self._telemetry = telemetry
        self._limited = limited
        self._couriers: dict[tuple[str, str], Courier[Change]] = {}
        self._failed: dict[tuple[str, str], str] = {}
        """What is to be said of consumers that could not be made to read, and were not made to later."""
        self._lock = threading.Lock()

    def of(self, secret: str) -> Sequence[str]:
        """Names of the consumers of a secret that can be made to read."""
        return tuple(self._reaches.get(secret, ()))

    def read(self, change: Change, *, fresh: bool) -> None:
        """Has a consumer read a version, if it was not made to before. Returns at once, and never raises.

        Parameters:
            fresh: see Memory.must_read().
        """
        try:
            if not self._memory.must_read(
                change.environment, change.secret, change.consumer, change.version, fresh=fresh
            ):
                return
            if not self._courier(change).take(change):
                self._end(change, "too much waits for it already")
        except Exception as error:  # noqa: BLE001 - nothing about this may stop the work
            _log.error("%s: %s can not be made to read it: %s", change.secret, change.consumer, type(error).__name__)

    def flush(self, ends: float, now: Callable[[], float]) -> list[str]:
        """Waits for what is under way.

        Parameters:
            ends: until when, by `now`.

        Returns:
            What failed since the last time, or is not done yet, a sentence each.
        """
        with self._lock:
            couriers = [*self._couriers.values()]
        late = [
            _sentence(change, "it takes too long")
            for courier in couriers
            for change in courier.wait(max(ends - now(), 0.0))
        ]
        with self._lock:
            found = [*self._failed.values(), *late]
            self._failed.clear()
        return found

    # --- in the consumer's thread ------------------------------------------------------------------

    def _courier(self, change: Change) -> Courier[Change]:
        place = (change.secret, change.consumer)
        with self._lock:
            if place not in self._couriers:
                deliver = partial(self._deliver, self._limited())
                self._couriers[place] = Courier(f"keyturn-reaches-{change.consumer}", deliver, batch=1)
            return self._couriers[place]

    def _deliver(self, limited: Limited, changes: Sequence[Change]) -> None:
        for change in changes:
            service = f"consumer {change.consumer}"
            reach = self._reaches[change.secret][change.consumer]
            try:
                limited.call(service, partial(self._call, service, reach, change))
            except Trouble as trouble:
                self._end(change, masked(str(trouble).removeprefix(f"{trouble.service}: ")))
            else:
                self._end(change, None)
                _log.info("%s: %s was made to read the new value", change.secret, change.consumer)

    def _call(self, service: str, reach: Reaches, change: Change) -> None:
        try:
            with calling(self._telemetry, self._clock, service, "read", hears=False):
                reach(change)
        except Trouble:
            raise
        except Exception as error:  # noqa: BLE001 - what libraries raise has the address in it
            raise Trouble(Code.UNAVAILABLE, service, type(error).__name__) from None

    def _end(self, change: Change, why: str | None) -> None:
        self._memory.read(change.environment, change.secret, change.consumer, change.version, done=why is None)
        place = (change.secret, change.consumer)
        with self._lock:
            self._failed.pop(place, None)
            if why is not None:
                self._failed[place] = _sentence(change, why)
        if why is not None:
            _log.warning("%s; the next sweep tries again", _sentence(change, why))


def _sentence(change: Change, why: str) -> str:
    return f"consumer {change.consumer} was not made to read {change.environment}/{change.secret}: {why}"


# --- webhooks --------------------------------------------------------------------------------------

SIGNATURE: Final = "Keyturn-Signature"
DELIVERY: Final = "Keyturn-Delivery"


def signature(secret: SecretValue, timestamp: int, body: bytes) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 over the time of sending in Unix seconds, a dot, and the body.

    The receiver computes the same, compares in constant time, and refuses what is older than a few minutes.
    """
    signed = f"{timestamp}.".encode() + body
    return f"t={timestamp},v1={hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest()}"


def payload(change: Change) -> bytes:
    """What a webhook is sent, as JSON."""
    whole = {
        "kind": "rotation.done",
        "delivery": change.delivery,
        "at": change.at.isoformat(),
        "environment": change.environment,
        "secret": change.secret,
        "consumer": change.consumer,
        "version": change.version,
        "stores": list(change.stores),
        "keyId": change.key_id or None,
        "previousKeyId": change.previous_key_id or None,
        "graceUntil": change.grace_until or None,
    }
    return json.dumps(whole, sort_keys=True).encode()


def call_webhook(
    service: str, address: str, secret: SecretValue, change: Change, sent_at: datetime, limit: float
) -> None:
    """Tells an endpoint that a secret has a new value. Any answer of 2xx will do; none is read, no redirect followed.

    Parameters:
        address: https, or http to this machine itself.
        sent_at: part of what is signed.
        limit: seconds for a connection, and for an answer.

    Raises:
        Trouble: it was not taken, as far as that can be told.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    near = _is_loopback(host)
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and near)):
        raise Trouble(Code.INVALID, service, "its address is not https")
    body = payload(change)
    headers = {
        "Content-Type": "application/json",
        DELIVERY: change.delivery,
        SIGNATURE: signature(secret, int(sent_at.timestamp()), body),
    }
    _request(service, "POST", address, body, headers, limit, verify=True, proxies=not near)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# --- Kubernetes ------------------------------------------------------------------------------------

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token of its service account, and the cluster's authority."""
_PLURALS: Final = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
_LONGEST: Final = 63
"""Characters of the name of an annotation, its prefix not counted."""


def annotation(secret: str) -> str:
    """The annotation of a pod template that says which version of a secret its pods were started for."""
    name = f"rotated.{secret}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}-{hashlib.sha256(secret.encode()).hexdigest()[:8]}"
    return f"keyturn.dev/{name}"


def restart(service: str, about: Any, change: Change, env: Mapping[str, str], account: Path, limit: float) -> None:
    """Rolls a workload out anew, as `kubectl rollout restart` does it: by an annotation of its pod template.

    The annotation's value is the version, so a second patch for the same version changes nothing and restarts nothing.
    Facts from "Update API Objects in Place Using kubectl patch" and "Accessing the Kubernetes API from a Pod".

    Parameters:
        about: namespace, kind and name of the workload.
        env: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, as every pod has them.
        account: folder with `token` and `ca.crt`, as ACCOUNT.
        limit: seconds for a connection, and for an answer.

    Raises:
        Trouble: it was not taken, as far as that can be told.
    """
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = SecretValue((account / "token").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        token = SecretValue("")
    if not host or not token.reveal():
        told = "this process runs in no pod of a cluster, or its pod mounts no service account's token"
        raise Trouble(Code.INVALID, service, told)
    patch = {"spec": {"template": {"metadata": {"annotations": {annotation(change.secret): change.version}}}}}
    place = f"namespaces/{about.namespace}/{_PLURALS[about.kind]}/{about.name}"
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/apis/apps/v1/{place}?fieldManager=keyturn"
    headers = {
        "Content-Type": "application/strategic-merge-patch+json",
        "Accept": "application/json",
        "Authorization": f"Bearer {token.reveal()}",
    }
    body = json.dumps(patch).encode()
    _request(service, "PATCH", url, body, headers, limit, verify=str(account / "ca.crt"), proxies=False)


# --- HTTP ------------------------------------------------------------------------------------------


def _request(
    service: str,
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    limit: float,
    *,
    verify: bool | str,
    proxies: bool,
) -> None:
    import requests  # noqa: PLC0415 - only where something is to be reached

    with requests.Session() as session:
        session.trust_env = proxies
        session.headers["User-Agent"] = "keyturn"
        try:
            answer = session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=limit,
                allow_redirects=False,
                stream=True,  # an answer is not read: it may be endless
                verify=verify,
                auth=lambda request: request,  # keeps requests from reading ~/.netrc
            )
            status = answer.status_code
            answer.close()
        except requests.exceptions.SSLError:
            raise Trouble(Code.DENIED, service, "its certificate is not trusted") from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise Trouble(Code.UNAVAILABLE, service, f"it can not be reached ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise Trouble(judged(status), service, f"it answered {status}")
