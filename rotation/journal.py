"""What an interrupted rotation needs in order to go on: ids and times only, kept with the secret in its store.

A journal is a set of facts. Each has a key of its own, `<kind>.<token>`, and is added or removed
alone: never a map that is read, changed and written back, or two runners would erase each other.
Facts are short and use only what a Secrets Manager tag may hold (letters, digits, spaces and
``_ . : / = + - @``), so that one form serves every store and reads well in every console.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final


class Why(StrEnum):
    """Why an attempt was begun, or a key condemned."""

    FIRST = "first"
    """The entry had no credential yet."""
    DUE = "due"
    ASKED = "asked"
    """A person asked for a rotation now."""
    REPLACE = "replace"
    """The current credential is condemned or revoked."""
    REWRITE = "rewrite"
    """The current credential as a new version, so that older attempts can never be promoted any more."""
    RETIRED = "retired"
    """Superseded, its grace period over, quiet as far as the issuer can tell."""
    SUPERSEDED = "superseded"
    """Another attempt was promoted first."""
    LOST = "lost"
    """Minted, or perhaps minted, by a run that did not get to store it."""
    NEVER_VERIFIED = "never-verified"
    ORPHAN = "orphan"
    """Found alive at the issuer under our name, claimed by no entry."""
    EMERGENCY = "emergency"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to make a new version current. Written before anything else is done for it."""

    token: str
    base: str | None
    """The primary's current version id, read before. Promotion succeeds only while it is current."""
    stores: tuple[str, ...]
    at: datetime
    why: Why
    of: str | None = None
    """Token of the key that it carries, when that is not a newly minted one."""
    form: str = ""
    """Digest of the form that its value is stored in."""
    slot: str | None = None
    """Where its key is created at an issuer with slots."""
    scope: str = ""
    """Where its issuer kept keys at that time; see Capabilities.scope."""

    @property
    def key(self) -> str:
        return self.of or self.token

    def written(self) -> dict[str, str]:
        parts = {
            "at": _time(self.at),
            "base": _escape(self.base) if self.base else "none",
            "stores": "+".join(self.stores),
            "why": self.why.value,
        }
        if self.of:
            parts["of"] = self.of
        if self.form:
            parts["form"] = self.form
        if self.slot:
            parts["slot"] = self.slot
        if self.scope:
            parts["scope"] = self.scope
        return {f"attempt.{self.token}": _words(parts)}


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often in a row a rotation failed, and when the next may begin."""

    failures: int
    at: datetime
    until: datetime
    error: str

    def written(self) -> dict[str, str]:
        parts = {"failures": str(self.failures), "at": _time(self.at), "until": _time(self.until), "error": self.error}
        return {"backoff": _words(parts)}


@dataclass(frozen=True, slots=True)
class Frozen:
    """An incident keeps scheduled work off the secret until somebody thaws it."""

    at: datetime
    incident: str

    def told(self, name: str) -> str:
        """In one phrase, with what takes it off the secret of this name."""
        return f"frozen by incident {self.incident} since {self.at:%Y-%m-%d %H:%M}Z; `keyturn thaw {name}`"

    def written(self) -> dict[str, str]:
        return {"frozen": _words({"at": _time(self.at), "incident": _escape(self.incident)})}


def ending(until: datetime) -> dict[str, str]:
    """The entry is being deleted: until then nothing is minted for it."""
    return {"ending": _words({"at": _time(until)})}


def key_fact(token: str, key_id: str, prints: Iterable[str] = ()) -> dict[str, str]:
    """The issuer's id of a key.

    Parameters:
        prints: fingerprints of its fields; see rotation.leaks.fingerprint.
    """
    return printed({f"key.{token}": _words({"id": _escape(key_id)})}, {token: prints})


LONGEST: Final = 256
"""Characters of a fact: what a tag of Secrets Manager or of Key Vault holds."""


def stores_room(slots: Iterable[str] = ()) -> int:
    """How many characters the names of an attempt's stores may have in all, in whichever kind of attempt is longest.

    Parameters:
        slots: the places of its issuer.
    """
    at, uuid, digest = datetime(2026, 1, 1, tzinfo=UTC), "-" * 36, "-" * 8
    carrying = Attempt("", uuid, (), at, Why.ROLLBACK, of=uuid, form=digest, scope=digest)
    made = Attempt("", uuid, (), at, Why.REPLACE, form=digest, slot=max(slots, key=len, default=None), scope=digest)
    return LONGEST - max(len(text) for attempt in (carrying, made) for text in attempt.written().values())


PRINTED: Final = frozenset(("key", "adopted"))
"""Kinds of facts that may carry fingerprints."""


def printed(facts: Mapping[str, str], prints: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Facts with fingerprints added to those that may carry them and have none, as many as there is room for.

    Parameters:
        prints: by token.
    """
    written = dict(facts)
    for key, text in facts.items():
        kind, _, token = key.partition(".")
        if kind not in PRINTED or " print=" in text:
            continue
        some: list[str] = []
        for one in prints.get(token, ()):
            if len(f"{text} print={'+'.join([*some, one])}") <= LONGEST:
                some.append(one)
        if some:
            written[key] = f"{text} print={'+'.join(some)}"
    return written


class Of(StrEnum):
    """Whose key an adopted version carries."""

    OURS = "ours"
    """One that the journal knows, put there by something else."""
    GIVEN = "given"
    """Handed over with its id: it retires like one of ours. Current since the time of the fact."""
    PERSON = "person"
    """A person's, who also has to revoke it. Current since the time of the fact."""


def adopted(token: str, version: str, at: datetime, of: Of, scope: str = "", form: str = "") -> dict[str, str]:
    """A version that Keyturn did not write goes by this token from now on.

    Parameters:
        scope: as Attempt.scope, of the issuer that knows its key.
        form: as Attempt.form, in which its value was read; empty when it was not.
    """
    parts = {"at": _time(at), "version": _escape(version), "of": of.value}
    parts |= {name: text for name, text in (("scope", scope), ("form", form)) if text}
    return {f"adopted.{token}": _words(parts)}


def expires(token: str, at: datetime) -> dict[str, str]:
    """When the key stops working by itself."""
    return {f"expires.{token}": _words({"at": _time(at)})}


def promoted(token: str, at: datetime) -> dict[str, str]:
    return {f"promoted.{token}": _words({"at": _time(at)})}


def superseded(token: str, at: datetime) -> dict[str, str]:
    return {f"superseded.{token}": _words({"at": _time(at)})}


def condemned(token: str, at: datetime, why: Why) -> dict[str, str]:
    return {f"condemned.{token}": _words({"at": _time(at), "why": why.value})}


def contain(token: str, at: datetime) -> dict[str, str]:
    """An emergency: the key is to be revoked at this time even where stores still hand it out."""
    return {f"contain.{token}": _words({"at": _time(at)})}


def revoked(token: str, at: datetime) -> dict[str, str]:
    return {f"revoked.{token}": _words({"at": _time(at)})}


def proven(token: str, at: datetime, how: str) -> dict[str, str]:
    return {f"proven.{token}": _words({"at": _time(at), "how": how})}


@dataclass(frozen=True, slots=True)
class Condemned:
    """A key that is to die: final. It is never promoted again."""

    at: datetime
    why: Why


class Journal:
    """The facts of one secret, parsed. Unknown kinds are kept and left alone.

    Raises:
        ValueError: a fact of a known kind that can not be read, with its key in the message.
    """

    def __init__(self, facts: Mapping[str, str] | None = None) -> None:
        self.facts: Final[Mapping[str, str]] = dict(facts or {})
        self.attempts: Final[dict[str, Attempt]] = {}
        self.key_ids: Final[dict[str, str]] = {}
        self.adopted: Final[dict[str, str]] = {}
        """Version ids by the token that they go by."""
        self.adopted_at: Final[dict[str, datetime]] = {}
        """Since when: a value of theirs was put there then."""
        self.foreign: Final[dict[str, datetime]] = {}
        """Of these, the ones whose keys are a person's."""
        self.prints: Final[dict[str, tuple[str, ...]]] = {}
        """Fingerprints by the token of their key; not of every key. See rotation.leaks.fingerprint."""
        self.scopes: Final[dict[str, str]] = {}
        """Of these: where the issuer kept their keys then; see Attempt.scope."""
        self.forms: Final[dict[str, str]] = {}
        """Of these: digests of the forms that their values were read in; empty where they were not."""
        self.promoted: Final[dict[str, datetime]] = {}
        self.expires: Final[dict[str, datetime]] = {}
        self.superseded: Final[dict[str, datetime]] = {}
        self.condemned: Final[dict[str, Condemned]] = {}
        self.contain: Final[dict[str, datetime]] = {}
        self.revoked: Final[dict[str, datetime]] = {}
        self.proven: Final[dict[str, datetime]] = {}
        self.backoff: Backoff | None = None
        self.frozen: Frozen | None = None
        self.ending: datetime | None = None
        """Until when nothing is minted, as the entry is being deleted."""
        for key, text in self.facts.items():
            kind, token, fact = _read(key, text)
            match kind:
                case "adopted":
                    self.adopted[token], at, of, self.scopes[token], self.forms[token], prints = fact
                    self.adopted_at[token] = at
                    self._print(token, prints)
                    if of is not Of.OURS:
                        self.promoted.setdefault(token, at)
                    if of is Of.PERSON:
                        self.foreign[token] = at
                case "key":
                    self.key_ids[token], prints = fact
                    self._print(token, prints)
                case "attempt":
                    self.attempts[token] = fact
                case "backoff":
                    self.backoff = fact
                case "frozen":
                    self.frozen = fact
                case "ending":
                    self.ending = fact
                case _ if kind in _KINDS:
                    getattr(self, kind)[token] = fact

    def _print(self, token: str, prints: tuple[str, ...]) -> None:
        if prints:
            self.prints[token] = tuple(dict.fromkeys((*self.prints.get(token, ()), *prints)))

    def plus(self, facts: Mapping[str, str]) -> Journal:
        """The journal as it is once these facts are written."""
        return Journal({**self.facts, **facts})

    def minus(self, keys: Iterable[str]) -> Journal:
        """The journal as it is once these facts are gone."""
        gone = set(keys)
        return Journal({key: text for key, text in self.facts.items() if key not in gone})

    def tokens(self) -> set[str]:
        """Every token that any fact claims."""
        return {token for key in self.facts if (token := key.partition(".")[2])}

    def about(self, token: str) -> tuple[str, ...]:
        """Keys of all facts about a credential: its own, and those of the attempts that carried it."""
        tokens = {token} | {a.token for a in self.attempts.values() if a.key == token}
        return tuple(sorted(key for key in self.facts if key.partition(".")[2] in tokens))

    def unproven(self) -> tuple[str, ...]:
        """Tokens of keys that should be dead and are not shown to be: revoked, or condemned in an emergency."""
        return tuple(sorted((set(self.contain) | set(self.revoked)) - set(self.proven)))


_KINDS: Final = frozenset(("expires", "promoted", "superseded", "condemned", "contain", "revoked", "proven"))
"""Kinds that are kept under an attribute of their own name."""


@lru_cache(maxsize=4096)
def _read(key: str, text: str) -> tuple[str, str, Any]:
    """One fact: its kind, its token, and what it says. An unknown kind says nothing to us.

    Cached: a run looks again after every effect, and nearly all facts are those of the look before.
    """
    kind, _, token = key.partition(".")
    try:
        parts = dict(word.split("=", 1) for word in text.split(" "))
        return kind, token, _fact(kind, token, parts)
    except (ValueError, KeyError) as error:
        message = f"journal fact {key!r} can not be read"
        raise ValueError(message) from error


def _fact(kind: str, token: str, parts: Mapping[str, str]) -> Any:
    match kind:
        case "attempt":
            return Attempt(
                token=token,
                base=None if parts["base"] == "none" else _unescape(parts["base"]),
                stores=tuple(parts["stores"].split("+")),
                at=_read_time(parts["at"]),
                why=Why(parts["why"]),
                of=parts.get("of"),
                form=parts.get("form", ""),
                slot=parts.get("slot"),
                scope=parts.get("scope", ""),
            )
        case "key":
            return _unescape(parts["id"]), _prints(parts)
        case "adopted":  # one without `of` has a `promoted` beside it, which says the rest
            return (
                _unescape(parts["version"]),
                _read_time(parts["at"]),
                Of(parts.get("of", Of.OURS)),
                parts.get("scope", ""),
                parts.get("form", ""),
                _prints(parts),
            )
        case "ending" | "expires" | "promoted" | "superseded" | "contain" | "revoked" | "proven":
            return _read_time(parts["at"])
        case "condemned":
            return Condemned(_read_time(parts["at"]), Why(parts["why"]))
        case "backoff":
            return Backoff(int(parts["failures"]), _read_time(parts["at"]), _read_time(parts["until"]), parts["error"])
        case "frozen":
            return Frozen(_read_time(parts["at"]), _unescape(parts["incident"]))
    return None


def _prints(parts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filter(None, parts.get("print", "").split("+")))


_ESCAPED: Final = re.compile(r"[^A-Za-z0-9_.:/+\-]")


def _escape(text: str) -> str:
    """Key ids are their issuer's; what a tag can not hold is written as @hex@."""
    return _ESCAPED.sub(lambda m: f"@{ord(m.group()):x}@", text)


def _unescape(text: str) -> str:
    return re.sub(r"@([0-9a-f]+)@", lambda m: chr(int(m.group(1), 16)), text)


def _words(parts: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in parts.items())


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
