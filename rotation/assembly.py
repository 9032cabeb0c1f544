"""Puts an engine together from a configuration: the one place where names become stores and issuers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from providers import quotas, registry
from rotation.clock import SystemClock
from rotation.declared import Config
from rotation.engine import Engine, Places, Target
from rotation.idle import Memory as Remembered
from rotation.leaks.fingerprint import Fingerprinting
from rotation.model import Policy, SecretValue
from rotation.notify import wiring
from rotation.notify.memory import Memory
from rotation.pacing import Paces, Quota
from rotation.ports import Auditor, Clock, Issuer, Notifier, SecretStore, Silent, TellsTime
from rotation.resilience import PatientIssuer, PatientStore, Service
from rotation.telemetry import NONE, Telemetry

if TYPE_CHECKING:
    from rotation.notify.consumers import Readers

SANDBOX = "sandbox"
"""The one environment whose clock may be moved."""


T = TypeVar("T")


class Opened(Mapping[str, T]):
    """Opens each member at its first use, once, whatever thread asks first."""

    def __init__(self, names: tuple[str, ...], open_one: Callable[[str], T]) -> None:
        self._names = names
        self._open = open_one
        self._ready: dict[str, T] = {}
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        with self._lock:
            if name not in self._ready:
                if name not in self._names:
                    raise KeyError(name)
                self._ready[name] = self._open(name)
            return self._ready[name]

    def opened(self) -> dict[str, T]:
        """The members that were used so far."""
        with self._lock:
            return dict(self._ready)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """Everything that a host needs."""

    config: Config
    engine: Engine
    stores: Mapping[str, SecretStore]
    issuers: Mapping[str, Issuer]
    places: Places
    clock: Clock
    telemetry: Telemetry = NONE
    """Watches every outgoing call already; a host tells it of the runs and sweeps that it does."""
    notifier: Notifier = field(default_factory=Silent)
    """Tells owners; hosts tell it what became of runs (rotation.notify.runs)."""
    readers: Readers | None = None
    """Makes consumers read new values; None where the stack declares nothing of the kind."""
    ready: Callable[[str], None] = field(default=lambda _: None, repr=False)
    """Raises ConfigError where an issuer, by name, lacks what it needs beside its configuration. Asks nobody."""
    fingerprints: Fingerprinting = field(default_factory=Fingerprinting)
    """Makes fingerprints of values, where the configuration says with which key."""
    memory: Remembered = field(default_factory=Remembered)
    """Which secrets had nothing to do when they were last run; spares a long-lived host their looks."""
    admin: Callable[[str], SecretValue | None] = field(default=lambda _: None, repr=False)
    """The admin credential of an issuer, by name, to tell it where it leaks; None for one that has none. Raises Trouble."""

    def target(self, policy: Policy) -> Target:
        return Target(policy.store, self.places.entry_name(policy.store, policy.environment, policy.name))


def assemble(
    config: Config,
    env: Mapping[str, str],
    auditor: Auditor,
    clock: Clock | None = None,
    telemetry: Telemetry = NONE,
    stopping: Callable[[], bool] | None = None,
    admins: Mapping[str, SecretValue] | None = None,
    notices: Path | None = None,
) -> Assembly:
    """An engine over the stores and issuers of a configuration, none of them opened yet.

    Parameters:
        config: one stack's configuration.
        env: where credentials are looked up, as in os.environ.
        auditor: the audit trail.
        clock: the system's, or in the sandbox environment the sandbox's, when not given.
        telemetry: watches.
        stopping: see Engine.
        admins: admin credentials that were given by hand, by issuer; they are looked up nowhere.
        notices: the file of what owners were told, where KEYTURN_NOTICES_FILE names no other. Without either this
            process alone remembers it, as long as it lives.
    """
    by_hand = admins or {}
    time = clock or clock_of(config, env)
    chance = secrets.SystemRandom().random

    paces = Paces(time)

    def service(name: str, place: tuple[Hashable, tuple[Quota, ...]]) -> Service:
        return Service(name, time, chance, telemetry=telemetry, pace=paces.of(*place))

    stores: Mapping[str, SecretStore] = Opened(
        tuple(config.stores),
        lambda name: PatientStore(
            registry.open_store(name, config, env, time), service(name, quotas.of_store(config.stores[name]))
        ),
    )
    issuers: Mapping[str, Issuer] = Opened(
        tuple(config.issuers),
        lambda name: PatientIssuer(
            registry.open_issuer(name, config, env, time, stores, by_hand.get(name)),
            service(name, quotas.of_issuer(name, config.issuers[name])),
        ),
    )
    primaries = {(policy.environment, policy.name): policy.store for policy in config.policies}

    def entry_name(store: str, environment: str, name: str) -> str:
        return registry.entry_name(config.stores[store], environment, name)

    def locate(environment: str, name: str) -> Target | None:
        store = primaries.get((environment, name))
        return Target(store, entry_name(store, environment, name)) if store else None

    places = Places(entry_name, locate)
    # A clock that was set by hand, the sandbox's or a test's, is not the one that services go by.
    ahead = partial(_ahead, stores) if type(time) is SystemClock else None
    fingerprints = Fingerprinting(registry.fingerprint_key(config, env, time, stores), time)
    prints = fingerprints if fingerprints.configured else None
    engine = Engine(stores, issuers, places, time, auditor, stopping=stopping, ahead=ahead, prints=prints)

    def ready(issuer: str) -> None:
        if issuer not in by_hand:
            registry.require_admin(issuer, config, env)

    def admin(issuer: str) -> SecretValue | None:
        return registry.admin_value(issuer, config, env, time, stores, by_hand.get(issuer))

    where = env.get(wiring.FILE)
    memory = Memory(Path(where) if where else notices, time.now)
    return Assembly(
        config,
        engine,
        stores,
        issuers,
        places,
        time,
        telemetry,
        notifier=wiring.notifier(config, env, stores, memory, time, telemetry),
        readers=wiring.readers(config, env, stores, memory, time, telemetry),
        ready=ready,
        fingerprints=fingerprints,
        admin=admin,
    )


def _ahead(stores: Mapping[str, SecretStore], name: str) -> timedelta:
    """How far our clock is ahead of a store's, as far as its answers have told."""
    store = stores[name]
    bare = store.bare if isinstance(store, PatientStore) else store
    return (bare.skew if isinstance(bare, TellsTime) else None) or timedelta(0)


def clock_of(config: Config, env: Mapping[str, str]) -> Clock:
    """The system's clock; in the sandbox environment, moved as far as the sandbox's clock is.

    There, with KEYTURN_SANDBOX_SLEEP=skip, whoever sleeps moves the sandbox's clock on instead. One process at a time
    may do so.
    """
    path = env.get("KEYTURN_SANDBOX_CLOCK")
    if config.environment != SANDBOX or not path:
        return SystemClock()
    return _moved(Path(path), skips=env.get("KEYTURN_SANDBOX_SLEEP") == "skip")


def _moved(path: Path, *, skips: bool) -> Clock:
    from sandbox.clock import SandboxClock  # noqa: PLC0415 - no real environment ever loads it

    moved, moving = SandboxClock(path), threading.Lock()

    class Moved(SystemClock):
        """The system's clock with the sandbox's offset."""

        def now(self) -> datetime:
            return moved.now()

    class Skipping(Moved):
        """A sleep is over at once, and its time has passed for every server of the sandbox."""

        _slept = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self._slept

        def sleep(self, seconds: float) -> None:
            with moving:
                moved.move(timedelta(seconds=seconds))
                self._slept += seconds

    return Skipping() if skips else Moved()
