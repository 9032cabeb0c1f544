"""Keyed fingerprints: what a journal may keep of a value so that it is known again where it leaks.

Without the key a fingerprint tells nothing: not the value, nor whether two installations have the same one. The key is an
entry of a store (`keyturn:fingerprints`), read once per process, when it is first needed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from rotation.declared import ConfigError
from rotation.errors import Code, Trouble
from rotation.model import PUBLIC, Credential, SecretValue
from rotation.ports import Clock, SecretStore

SHORTEST: Final = 12
"""Characters of a field that is worth a fingerprint. What is shorter is a user name, a host or a port, as a rule, which
stands in half of all files: finding it there would say nothing, and point at a secret that has not leaked."""
KEY_BYTES: Final = 32
_SHORTEST_KEY: Final = 32
"""Characters of a key. Less is no key of `keyturn fingerprints init`, but something that was pasted there."""
_BYTES: Final = 12
"""96 bits: 16 characters. Among a million fingerprints two values share one once in 10^17."""
_DOMAIN: Final = b"keyturn fingerprint 1\0"
_MARK_DOMAIN: Final = b"keyturn fingerprint key 1\0"
"""Keep apart what is signed here from whatever else somebody may do with the same key."""
_TRY_AGAIN: Final = timedelta(minutes=5)

_log = logging.getLogger(__name__)


class Fingerprints:
    """Makes fingerprints with one key."""

    def __init__(self, key: SecretValue) -> None:
        self._key: Final = key
        self._mark: Final = self._signed(_MARK_DOMAIN)[:2]

    def of(self, value: SecretValue) -> str:
        """18 characters of base64url, which every store's metadata can hold.

        Two are the key's mark, the others HMAC-SHA-256 of the text, cut to 96 bits. Blanks at the ends do not count:
        they are pasted along, or left out.
        """
        return self._mark + self._signed(_DOMAIN + value.reveal().strip().encode("utf-8", "surrogatepass"))

    def made(self, fingerprint: str) -> bool:
        """Whether a fingerprint was made with this key. With another one it says nothing of any value."""
        return fingerprint.startswith(self._mark)

    def _signed(self, text: bytes) -> str:
        digest = hmac.digest(self._key.reveal().encode(), text, hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:_BYTES]).decode()

    def of_credential(self, credential: Credential, key_id: str | None = None) -> tuple[str, ...]:
        """One for each field that telling() gives, in the order of their names."""
        return tuple(self.of(value) for _, value in telling(credential, key_id))


def telling(credential: Credential, key_id: str | None = None) -> Iterator[tuple[str, SecretValue]]:
    """The fields of a credential that are secret as far as can be told, by name: those by which a leak is known.

    Parameters:
        key_id: the issuer's id of it. A field that is this id, or a part of it, is public: it stands in journals.
    """
    public = {key_id, *(key_id or "").split("/")}
    for name, value in sorted(credential.fields.items()):
        text = value.reveal().strip()
        if len(text) >= SHORTEST and text not in public and name not in PUBLIC:
            yield name, value


class Fingerprinting:
    """Fingerprints by a key that is looked up when one is first needed, and then held.

    Parameters:
        read: gives the key, or raises Trouble or ConfigError; None where none is configured.
        clock: a key that could not be had is asked for again after five minutes, not for every fact.
    """

    def __init__(self, read: Callable[[], SecretValue] | None = None, clock: Clock | None = None) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._ready: Fingerprints | None = None
        self._failed: float | None = None
        self.fault: str | None = None if read else "no key is configured (keyturn:fingerprints)"
        """Why there are none at the moment, for people; None while there are, or nobody has asked."""

    @property
    def configured(self) -> bool:
        return self._read is not None

    def ready(self) -> Fingerprints | None:
        """Never raises: without its key there are no fingerprints, and all else goes on. That is logged."""
        read = self._read
        if read is None:
            return None
        with self._lock:
            now = self._clock.monotonic() if self._clock else 0.0
            early = self._failed is not None and now < self._failed + _TRY_AGAIN.total_seconds()
            if self._ready is not None or early:
                return self._ready
            try:
                key = _checked(read())
            except (Trouble, ConfigError) as error:
                self._failed, self.fault = now, str(error)
                _log.warning("new credentials get no fingerprint, so a leak of one takes longer to find: %s", error)
                return None
            self._ready, self._failed, self.fault = Fingerprints(key), None, None
            return self._ready

    def __call__(self, credential: Credential, key_id: str | None) -> tuple[str, ...]:
        """See Fingerprints.of_credential(); nothing where there is no key."""
        found = self.ready()
        return found.of_credential(credential, key_id) if found else ()


def _checked(key: SecretValue) -> SecretValue:
    if len(key.reveal()) < _SHORTEST_KEY:
        told = f"their key has fewer than {_SHORTEST_KEY} characters; `keyturn fingerprints init` makes a good one"
        raise Trouble(Code.INVALID, "fingerprints", told)
    return key


def make_key(store: SecretStore, entry: str) -> bool:
    """Puts a fresh key into an entry that has no value yet; makes the entry where there is none.

    Of two who do this at once, one's key stays, and the other learns that it was there already.

    Returns:
        Whether the key is new. One that is there is left alone, whoever made it.

    Raises:
        Trouble: the store did not do it. Doing it again is safe.
    """
    try:
        store.current(entry)
    except Trouble as absent:
        if absent.code is not Code.NOT_FOUND:
            raise
    else:
        return False
    try:
        store.create(entry, {})
    except Trouble as there:
        if there.code is not Code.CONFLICT:
            raise  # one that was begun, or is being made, is completed: promoting tells who was first
    token = uuid.uuid4().hex
    store.stage(entry, token, Credential({"value": SecretValue(secrets.token_urlsafe(KEY_BYTES))}), key_id=None)
    pending = store.observe(entry).pending
    if pending is None or pending.token not in (None, token):
        raise Trouble(Code.CONFLICT, store.name, f"{entry}: somebody else is making it at this moment; look again")
    try:
        store.promote(entry, pending, None)
    except Trouble as lost:
        if lost.code is not Code.CONFLICT:
            raise
        return False
    return True
