"""The declarative issuer: any vendor with an HTTP and JSON API, as its description tells.

Every request goes out once. What came back is judged by status and by the few places of the answer
that the description names; nothing else of an answer is kept, logged or put into a message.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, unquote, urljoin, urlsplit

from providers.issuers.language import (
    ADMIN,
    BASE_URL,
    EXPIRES_AT,
    KEY_NAME,
    OPERATION,
    SINCE,
    SLOT,
    UNTIL,
    DescriptionFault,
    Expression,
    Statuses,
    Template,
    admin_parts,
    credential_fields,
    forms,
    write_time,
)
from providers.issuers.wire import CALL_SECONDS, PLAIN, TELLING, Answer, Call, Moment, Silence, Wire, fit, rate, text_of
from rotation.errors import Code, Trouble
from rotation.model import (
    Capabilities,
    Check,
    Counting,
    Credential,
    Issued,
    KeyInfo,
    KeyUse,
    LastUse,
    Model,
    Propagation,
    Requests,
    SecretValue,
    Verdict,
)
from rotation.ports import Clock, Diagnosis, Grade

if TYPE_CHECKING:
    from providers.issuers.description import (
        Auth,
        ClientCredentials,
        Description,
        Item,
        LastUsed,
        ListedUse,
        Mint,
        Pagination,
        Poll,
        Refusal,
        Request,
        Revoke,
        Rule,
        SharedKey,
        Step,
    )

NOTHING: Final[Mapping[str, Any]] = {}
_MAX_PAGES: Final = 10_000
_PASSES: Final = 4

_OURS: Final = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.[^.]+")
"""The form of rotation.names.KeyName, whatever the installation."""
_LOW: Final = 0.1
"""Part of a limit below which what remains is warned of."""
_SOON: Final = timedelta(days=14)
"""An administrative credential should be good for so long."""
_LEFT_OUT: Final = re.compile(r"\.{2,}|\*{2,}|…")
_SENDABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_EARLY: Final = 120.0
"""Seconds before its end at which a token counts as expired: longer than any call may take."""
_APART: Final = timedelta(minutes=5)
"""Clocks that differ by more than this make a signature with a time in it be refused, whatever the key."""
_WAITS: Final = 60.0
"""Seconds: a reading call is put off for so long at most by a limit of which nothing remains."""


def capabilities_of(about: Description, scope: str = "") -> Capabilities:
    """What an issuer by this description can do."""
    abilities = about.capabilities
    return Capabilities(
        model=Model(about.model),
        fields=credential_fields(about),
        slots=tuple(sorted(about.slots)),
        revokes=bool(about.slots or about.revoke),
        regenerates=bool(about.slots),
        max_keys=abilities.max_keys,
        tells_last_use=about.last_use is not None or about.usage is not None,
        smokes=about.smoke is not None,
        scope=scope,
        create=Propagation(**dict(abilities.create)),
        revoke=Propagation(**dict(abilities.revoke)),
    )


class HttpIssuer:
    """An issuer that a description describes. Close it, or use it as a context manager, to end its connections.

    Parameters:
        name: the configured name, which starts every message.
        description: the vendor.
        variables: values of the description's variables; `baseUrl` may stand among them.
        admin: gives the administrative credential each time it is needed; verify() and smoke() never ask for it.
        clock: for time limits, latencies and HTTP dates.

    Raises:
        DescriptionFault: the variables are not what the description asks for.
    """

    def __init__(
        self,
        name: str,
        description: Description,
        variables: Mapping[str, Any],
        admin: Callable[[], SecretValue],
        clock: Clock,
    ) -> None:
        if faults := description.faults_in(variables):
            raise DescriptionFault(name, faults)
        self.name: Final = name
        self._about = description
        self._admin = admin
        self._clock = clock
        self._wire: Final = Wire(description.request_id, description.error_code, clock)
        self._base = str(variables.get(BASE_URL, description.base_url)).rstrip("/")
        defaults = {name: v.default for name, v in description.variables.items() if v.default is not None}
        self._values: Final[Mapping[str, Any]] = {**defaults, **variables}
        self._way: Final = next((w for w in description.mint if w.when is None or w.when in self._values), None)
        self._forms: Final = forms(description)
        self.capabilities: Final = capabilities_of(description, self._scope())
        self._lock = threading.Lock()
        self._token: tuple[str, SecretValue, float] | None = None
        """For which administrative credential (a digest), the access token, and until when on the monotonic clock."""
        self._shown_parts: tuple[SecretValue, ...] = ()
        """Of the administrative credential that is in use, so that logs mask them."""
        self._rests_until = 0.0

    def mint(self, key_name: str, slot: str | None = None) -> Issued:
        way, what = self._way, f"minting the key {key_name}"
        if way is None:
            told = f"{self._about.title} are created by a person; `keyturn submit` brings them"
            raise Trouble(Code.INVALID, self.name, f"{what}: {told}")
        slots = self._about.slots
        if (slot is not None or slots) and slot not in slots:
            raise Trouble(
                Code.INVALID, self.name, f"{what}: there is no slot {slot}; there are: {', '.join(slots) or 'none'}"
            )
        begun = self._now()
        known = {KEY_NAME: key_name, **self._prefetched(what), **({SLOT: slot} if slot else {})}
        ends = None
        if way.expiry and way.expiry.after in self._values:
            ends = self._clock.now() + timedelta(seconds=self._values[way.expiry.after])
            known[EXPIRES_AT] = write_time(ends, way.expiry.format)
        answer = self._ask(what, way.request, known, writes=True, begun=begun)
        if answer.status not in way.ok:
            raise self._refused(what, answer, way.errors, writes=True)
        if way.poll:
            answer = self._polled(what, way.poll, answer, begun[0] + CALL_SECONDS)
        if slot:
            return self._in_slot(slot, answer, what)
        key_id = self._key_id(way, answer.body)
        credential = self._credential(way.fields or {}, answer.body)
        if key_id is None or credential is None:
            raise self._unread(what, answer)
        if way.from_admin:
            _, parts = self._authority(what)
            taken = {name: SecretValue(template.fill(parts)) for name, template in way.from_admin.items()}
            credential = Credential({**credential.fields, **taken})
        created_at, expires_at = (time.read(answer.body) if time else None for time in (way.created_at, way.expires_at))
        return Issued(key_id, credential, created_at, expires_at or ends)

    def keys(self) -> Iterator[KeyInfo]:
        if self._about.slots:
            yield from (
                KeyInfo(self._slot_id(slot, held), slot, made)
                for slot, (held, made) in self._held("listing keys").items()
            )
            return
        yield from (info for info, _ in self._items())

    def _items(self) -> Iterator[tuple[KeyInfo, Any]]:
        """Every key, and its item in the list."""
        listing = self._about.listing
        if listing is None:
            return
        pagination = listing.pagination
        if pagination is None or pagination.cursor or pagination.next_url:
            yield from (item for page in self._pages() for item in page)
            return
        # Where pages are counted, a key deleted meanwhile moves the others up, and one of them falls between two
        # pages. A key missed here would pass for dead, so the list must read the same twice.
        before: set[str] = set()
        for number in range(_PASSES):
            found = {info.key_id: (info, item) for page in self._pages() for info, item in page}
            if not found or (number and found.keys() == before):
                yield from found.values()
                return
            before = set(found)
        raise Trouble(Code.UNAVAILABLE, self.name, f"listing keys: the list changed during each of {_PASSES} readings")

    def verify(self, credential: Credential) -> Check:
        return self._show(credential, self._about.verify.request, self._about.verify.rules)

    def smoke(self, credential: Credential) -> Check:
        smoke = self._about.smoke
        if smoke is None:
            return Check(Verdict.UNKNOWN, "no smoke test is described")
        refusals = tuple(rule for rule in self._about.verify.rules if rule.verdict is not Verdict.VALID)
        return self._show(
            credential, smoke.request, smoke.rules + refusals, record=smoke.record, headers=smoke.record_headers
        )

    def revoke(self, key_id: str) -> None:
        parts, what = _parts(key_id), f"revoking the key {key_id}"
        if self._about.slots:
            self._discard(parts, what)
            return
        if not self._about.revoke:
            raise Trouble(Code.INVALID, self.name, f"{what}: {self._about.title} are revoked by a person")
        self._change(self._about.revoke, parts, what)

    def disable(self, key_id: str) -> None:
        """Makes a key be refused until it is enabled again. Raises INVALID where that is not described."""
        self._change(self._about.disable, _parts(key_id), f"disabling the key {key_id}")

    def enable(self, key_id: str) -> None:
        """Undoes disable()."""
        self._change(self._about.enable, _parts(key_id), f"enabling the key {key_id}")

    @property
    def disables(self) -> bool:
        """Whether a key can be disabled and enabled again."""
        return bool(self._about.disable)

    def last_use(self, key_id: str) -> LastUse:
        asked, parts = self._about.last_use, _parts(key_id)
        form = next((form for form in self._forms if len(form) == len(parts)), None)
        if asked is None and form is not None and (counting := self.counting):
            now = self._clock.now()
            counts = self._counted([key_id], now - counting.window + counting.width, now)
            return self._last_counted(counts.get(key_id))
        if asked is None or form is None:
            return LastUse(known=False)
        what = f"asking when the key {key_id} was last used"
        unknown = LastUse(known=False, granularity=asked.granularity)
        if asked.request is None:
            found = next((item for info, item in self._items() if info.key_id == key_id), None)
            if found is None:
                return unknown
        else:
            answer = self._ask(what, asked.request, dict(zip(form, parts, strict=True)))
            if asked.gone and answer.status in asked.gone:
                return unknown
            if answer.status not in asked.ok:
                raise self._refused(what, answer)
            found = answer.body
        return _last_used(asked, found, asked.granularity)

    @property
    def counting(self) -> Counting | None:
        asked = self._about.usage
        return Counting(asked.of, asked.width, asked.window, asked.lag, asked.refused) if asked else None

    def usage(self, key_ids: Collection[str], since: datetime, until: datetime) -> Mapping[str, KeyUse]:
        """See rotation.ports.TellsUsage. Asks the list once, where that tells last uses, and the counts once."""
        if not key_ids:
            return {}
        counts = self._counted(key_ids, since, until) if self._about.usage else {}
        asked, last = self._about.last_use, dict[str, LastUse]()
        told = asked and (asked if asked.request is None else asked.listed)
        if asked and told:
            wanted = {*key_ids}
            for info, item in self._items():
                if info.key_id in wanted:
                    last[info.key_id] = _last_used(told, item, asked.granularity)
        return {
            key_id: KeyUse(_newer(last.get(key_id), self._last_counted(counts.get(key_id))), counts.get(key_id))
            for key_id in key_ids
            if key_id in last or key_id in counts
        }

    # --- looking round: see rotation.ports.ExaminedIssuer, TellsTime ------------------------------

    @property
    def skew(self) -> timedelta | None:
        return self._wire.skew.last

    def examine(self) -> Iterator[Diagnosis]:
        """The age and the end of the administrative credential, and what is left of rate limits."""
        try:
            yield self._administrator()
        except Trouble as trouble:
            yield Diagnosis("admin credential's end", Grade.UNCHECKED, str(trouble))
        yield from self._limits()

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- parts of the above ----------------------------------------------------------------------

    def _pages(self) -> Iterator[list[tuple[KeyInfo, Any]]]:
        """The list, page by page. Raises rather than end early: a key that is missed would pass for dead."""
        listing = self._about.listing
        if listing is None or listing.items is None:
            return
        walk = self._walk("listing keys", listing.request, listing.ok, listing.items, listing.pagination)
        for items, answer in walk:
            yield [
                (self._info(item, answer), item) for item in items if listing.live is None or listing.live.holds(item)
            ]

    def _walk(
        self,
        what: str,
        request: Request,
        ok: Statuses,
        path: Expression,
        pagination: Pagination | None,
        values: Mapping[str, Any] = NOTHING,
    ) -> Iterator[tuple[list[Any], Answer]]:
        """The items of each page of a list, to its end, or Trouble."""
        address: str | None = None
        query: dict[str, str] = {}
        cursors: set[str] = set()
        count = 0
        for number in range(_MAX_PAGES):
            if pagination and pagination.offset:
                query = {pagination.offset.parameter: str(pagination.offset.start + count)}
            elif pagination and pagination.page:
                query = {pagination.page.parameter: str(pagination.page.start + number)}
            answer = self._ask(what, request, values, query=query, address=address)
            if answer.status not in ok:
                raise self._refused(what, answer)
            items = path.find(answer.body)
            if not isinstance(items, list):
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the answer has no list ({answer})")
            count += len(items)
            yield items, answer
            if pagination is None:
                return
            if pagination.next_url:
                told = pagination.next_url.next.find(answer.body)
                if told is None or told == "":
                    return
                address = self._next(told, request, address)
                if address is None or address in cursors:
                    why = "the next page is not on the same host" if address is None else "the pages go in a circle"
                    raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {why} ({answer})")
                cursors.add(address)
                continue
            if pagination.cursor is None:
                if not items:
                    return
                continue
            more = pagination.cursor.more.find(answer.body) if pagination.cursor.more else None
            following = text_of(pagination.cursor.next.find(answer.body))
            if pagination.cursor.more and not isinstance(more, bool):
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: a page does not say if it is the last ({answer})")
            if more is False or (pagination.cursor.more is None and following is None):
                return
            if following is None or following in cursors:
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the list does not go on after a page ({answer})")
            cursors.add(following)
            query = {pagination.cursor.parameter: following}
        raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the list has more than {_MAX_PAGES} pages")

    def _next(self, told: Any, request: Request, page: str | None) -> str | None:
        """The address of the next page; None unless it is on the host that was asked, which gets the credential."""
        asked = urlsplit(page or self._base_of(request))
        if not isinstance(told, str) or not told.isascii() or re.search(r"[\s\\]", told):
            return None
        try:
            found = urlsplit(urljoin(page or self._base_of(request) + "/", told))
        except ValueError:
            return None
        same = (found.scheme, found.netloc) == (asked.scheme, asked.netloc) and not found.fragment
        return found.geturl() if same else None

    def _counted(self, key_ids: Collection[str], since: datetime, until: datetime) -> dict[str, tuple[Requests, ...]]:
        """Requests by key and span. Whoever has no row in a span made no request that is counted."""
        asked, what = self._about.usage, "asking how often keys are used"
        assert asked is not None, "or nothing would be counted"
        begin = _rounded(since, asked.width)
        known = {SINCE: write_time(begin, asked.time), UNTIL: write_time(until + timedelta(seconds=1), asked.time)}
        spans: dict[datetime, dict[tuple[str, ...], int]] = {}
        for buckets, answer in self._walk(what, asked.request, asked.ok, asked.buckets, asked.pagination, known):
            for bucket in buckets:
                rows = asked.rows.find(bucket) if asked.rows else [bucket]
                at = asked.start.read(bucket)
                if at is None or not isinstance(rows, list):
                    raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: a span has no start, or no rows ({answer})")
                span = spans.setdefault(_rounded(at, asked.width), {})
                for row in rows:
                    parts = tuple(text_of(path.find(row)) or "" for path in asked.key_id.values())
                    number = asked.count.find(row)
                    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                        raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: a row has no count ({answer})")
                    span[parts] = span.get(parts, 0) + number
        starts = [begin + asked.width * n for n in range(-(-(until - begin) // asked.width))]
        found = {}
        for key_id in key_ids:
            form = next((form for form in self._forms if len(form) == len(_parts(key_id))), ())
            named = dict(zip(form, _parts(key_id), strict=False))
            if asked.key_id.keys() <= named.keys():
                key = tuple(named[part] for part in asked.key_id)
                found[key_id] = tuple(Requests(at, spans.get(at, {}).get(key, 0)) for at in starts)
        return found

    def _last_counted(self, counts: tuple[Requests, ...] | None) -> LastUse:
        """Of the newest span with requests; anywhere in it, and up to the lag later."""
        asked = self._about.usage
        if asked is None or counts is None:
            return LastUse(known=False)
        late = asked.width + asked.lag
        used = next((span.start for span in reversed(counts) if span.count), None)
        return LastUse(known=used is not None, at=used, granularity=late)

    def _info(self, item: Any, answer: Answer) -> KeyInfo:
        ways = self._about.listing.each if self._about.listing else ()
        names = [text_of(way.name.find(item)) or "" for way in ways]
        way, name = next(((w, n) for w, n in zip(ways, names, strict=True) if _OURS.fullmatch(n)), (ways[0], names[0]))
        key_id = self._key_id(way, item)
        if key_id is None:
            raise Trouble(Code.UNAVAILABLE, self.name, f"listing keys: an item has no key id ({answer})")
        shown = text_of(way.redacted.find(item)) if way.redacted else None
        # A text without a gap is no redacted form: whatever it is, it might be a value, and goes no further.
        redacted = shown if shown and _LEFT_OUT.search(shown) and PLAIN.fullmatch(shown) else None
        return KeyInfo(key_id, name, way.created_at.read(item) if way.created_at else None, redacted)

    def _key_id(self, way: Mint | Item, found: Any) -> str | None:
        """None when a part is missing."""
        paths = way.key_id or {}
        form = next(form for form in self._forms if paths.keys() == set(form))
        parts = [text_of(paths[part].find(found)) for part in form]
        return _joined(part for part in parts if part) if all(parts) else None

    def _credential(self, fields: Mapping[str, Expression], body: Any) -> Credential | None:
        """None when a field is missing."""
        values = {name: path.find(body) for name, path in fields.items()}
        if not all(isinstance(value, str) and value for value in values.values()):
            return None
        return Credential({name: SecretValue(value) for name, value in values.items()})

    def _unread(self, what: str, answer: Answer) -> Trouble:
        told = f"the answer has no key id or no value ({answer}); the key may exist and is to be looked for"
        return Trouble(Code.UNAVAILABLE, self.name, f"{what}: {told}", maybe_applied=True)

    def _change(self, changes: tuple[Revoke, ...], parts: list[str], what: str) -> None:
        """Does all steps of what is described for key ids of this form."""
        change = next((c for c in changes if len(c.key_id) == len(parts)), None)
        if change is None:
            raise Trouble(
                Code.INVALID, self.name, f"{what}: this is no key id of {self._about.title}, or can not be done"
            )
        named = dict(zip(change.key_id, parts, strict=True))
        for step in change.steps:
            self._step(step, what, named)

    def _step(self, step: Step, what: str, named: Mapping[str, str]) -> None:
        until = self._clock.monotonic() + CALL_SECONDS
        answer = self._ask(what, step.request, named, writes=True)
        if step.gone and answer.status in step.gone and (step.gone_when is None or step.gone_when.holds(answer.body)):
            return
        if answer.status in step.ok:
            if step.poll:
                self._polled(what, step.poll, answer, until, named)
            return
        if not (step.next_on and answer.status in step.next_on):
            raise self._refused(what, answer, step.errors, writes=True)

    def _polled(
        self, what: str, poll: Poll, answer: Answer, until: float, named: Mapping[str, str] | None = None
    ) -> Answer:
        """The last answer of an operation that the first answer names."""
        operation = text_of(poll.operation.find(answer.body))
        if operation is None:
            raise Trouble(
                Code.UNAVAILABLE, self.name, f"{what}: the answer names no operation ({answer})", maybe_applied=True
            )
        end = min(self._clock.monotonic() + poll.timeout.total_seconds(), until)
        while True:
            try:
                answer = self._ask(what, poll.request, {**(named or {}), OPERATION: operation}, until=end)
                told = answer.status in poll.ok
                if told and poll.done.holds(answer.body):
                    break
                if not told and answer.status not in (404, 408, 425, 429) and answer.status < 500:
                    raise self._refused(what, answer)
            except Trouble as trouble:
                # The operation goes on, whatever keeps us from asking after it.
                raise Trouble(
                    Code.UNAVAILABLE, self.name, str(trouble).removeprefix(f"{self.name}: "), maybe_applied=True
                ) from None
            if self._clock.monotonic() + poll.interval.total_seconds() >= end:
                raise Trouble(
                    Code.UNAVAILABLE,
                    self.name,
                    f"{what}: not done when its time was over ({answer})",
                    maybe_applied=True,
                )
            self._clock.sleep(poll.interval.total_seconds())
        if poll.failed and poll.failed.holds(answer.body):
            raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the vendor says that nothing came of it ({answer})")
        return answer

    def _prefetched(self, what: str) -> dict[str, Any]:
        """What is to be copied into a mint."""
        values: dict[str, Any] = {}
        for prefetch in self._about.prefetch:
            if prefetch.when and prefetch.when not in self._values:
                continue
            answer = self._ask(f"{what}: reading what goes into it", prefetch.request, {})
            if answer.status not in prefetch.ok:
                raise self._refused(f"{what}: reading what goes into it", answer)
            found = {name: path.find(answer.body) for name, path in prefetch.values.items()}
            if missing := [name for name, value in found.items() if value is None]:
                told = f"there is no {' or '.join(missing)} to copy into it ({answer}); nothing was minted"
                raise Trouble(Code.INVALID, self.name, f"{what}: {told}")
            values |= found
        return values

    # --- slots -----------------------------------------------------------------------------------

    def _held(self, what: str) -> dict[str, tuple[Credential, Any]]:
        """What each slot holds now, and since when as far as that is told."""
        listing = self._about.listing
        assert listing is not None, "checked with the description"
        answer = self._ask(what, listing.request, {})
        if answer.status not in listing.ok:
            raise self._refused(what, answer)
        held = {}
        for name, slot in self._about.slots.items():
            credential = self._credential(slot.fields, answer.body)
            if credential is None:
                raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: the answer has no {name} ({answer})")
            held[name] = (credential, slot.created_at.read(answer.body) if slot.created_at else None)
        return held

    def id_of(self, credential: Credential) -> str | None:
        """As rotation.ports.ListsValues says. None for a vendor without slots: no other list has values."""
        if not self._about.slots:
            return None
        what = "looking for the slot that holds a value"
        for slot, (held, _) in self._held(what).items():
            if held.same_as(credential):
                return self._slot_id(slot, held)
        raise Trouble(Code.INVALID, self.name, f"{what}: none does")

    def _slot_id(self, slot: str, credential: Credential) -> str:
        """No vendor names what a slot holds, so a digest does: the id is of this value, and of none that comes later."""
        values = sorted((name, value.reveal()) for name, value in credential.fields.items())
        whole = json.dumps([self._scope(), slot, values])
        return _joined((slot, hashlib.sha256(whole.encode()).hexdigest()[:20]))

    def _in_slot(self, slot: str, answer: Answer, what: str) -> Issued:
        about = self._about.slots[slot]
        credential = self._credential(about.fields, answer.body)
        if credential is None:
            raise self._unread(what, answer)
        made = about.created_at.read(answer.body) if about.created_at else None
        return Issued(self._slot_id(slot, credential), credential, made)

    def _discard(self, parts: list[str], what: str) -> None:
        """Regenerates a slot for nobody, provided that it still holds what the id is of, and at once after that look."""
        begun = self._now()
        if len(parts) != 2 or parts[0] not in self._about.slots or self._way is None:
            raise Trouble(Code.INVALID, self.name, f"{what}: this is no key id of {self._about.title}")
        held, _ = self._held(what)[parts[0]]
        if self._slot_id(parts[0], held) != _joined(parts):
            return
        answer = self._ask(what, self._way.request, {SLOT: parts[0]}, writes=True, begun=begun)
        if answer.status not in self._way.ok:
            raise self._refused(what, answer, self._way.errors, writes=True)
        if self._way.poll:
            self._polled(what, self._way.poll, answer, begun[0] + CALL_SECONDS)

    def _now(self) -> Moment:
        return self._clock.monotonic(), self._clock.now()

    def _show(
        self,
        credential: Credential,
        request: Request,
        rules: tuple[Rule, ...],
        *,
        record: Mapping[str, Expression] | None = None,
        headers: tuple[str, ...] = (),
    ) -> Check:
        """Sends a request with the credential alone and judges the answer."""
        shown = {name: value.reveal() for name, value in credential.fields.items()}
        auth = self._about.verify.auth
        if missing := [name for name in self.capabilities.fields if name not in shown]:
            return Check(Verdict.UNKNOWN, f"the credential has no field {' or '.join(missing)}")
        call = self._fill(request, {}, auth, shown)
        answer = Silence(call, sent=False) if isinstance(call, str) else self._wire.send(call, "verify")
        if isinstance(answer, Silence):
            return Check(Verdict.UNKNOWN, answer.reason)
        facts = {"status": str(answer.status), "latency_ms": str(answer.milliseconds)}
        kept = {name: text_of(path.find(answer.body)) for name, path in (record or {}).items()}
        kept |= {n: v for n, v in answer.headers.items() if any(fnmatchcase(n, p.lower()) for p in headers)}
        secrets = tuple(shown.values())
        facts |= {name: text for name, text in kept.items() if text and fit(PLAIN, text, secrets)}
        for rule in rules:
            if rule.matches(answer.status, answer.body, answer.headers):
                if auth and auth.azure_shared_key and not rule.verdict.live and self._clocks_differ():
                    break
                return Check(rule.verdict, f"{rule.reason} ({_brief(answer)})", answer.request_id, facts)
        return Check(Verdict.UNKNOWN, f"an answer that does not tell ({_brief(answer)})", answer.request_id, facts)

    def _clocks_differ(self) -> bool:
        skew = self._wire.skew.last
        return skew is None or abs(skew) > _APART

    def _administrator(self) -> Diagnosis:
        """What the vendor says of the administrative credential that is in use; it is told by its redacted value."""
        check, asked = "admin credential's end", self._about.admin
        if asked is None:
            return Diagnosis(check, Grade.UNCHECKED, f"{self._about.title} do not come with a way to ask for it")
        what = "asking about the administrative credential"
        answer = self._ask(what, asked.request, {})
        if answer.status not in asked.ok:
            raise self._refused(what, answer)
        value, items = self._admin().reveal(), asked.items.find(answer.body)
        found = (
            [item for item in items if _redacts(asked.redacted.find(item), value)] if isinstance(items, list) else []
        )
        if len(found) != 1:
            which = "several look like it" if found else "it is not among those that are listed first"
            return Diagnosis(check, Grade.UNCHECKED, which)
        name = text_of(asked.name.find(found[0])) if asked.name else None
        told = f"it is called {name}" if name and fit(PLAIN, name, (value,)) else "it has no name"
        now = self._clock.now()
        if asked.created_at and (made := asked.created_at.read(found[0])):
            told += f", made {_days(now - made)} ago"
        ends = asked.expires_at.read(found[0]) if asked.expires_at else None
        if ends is None:
            return Diagnosis(check, Grade.GOOD, f"{told}; no end is told")
        told = f"{told}; ends {ends:%Y-%m-%d %H:%MZ}, in {_days(ends - now)}"
        if ends - now > _SOON:
            return Diagnosis(check, Grade.GOOD, told)
        remedy = "issuer's administrator: make a new one and put it where this one comes from, before it ends"
        return Diagnosis(check, Grade.WARNING, told, remedy)

    def _limits(self) -> Iterator[Diagnosis]:
        """One for each limit of which the vendor's answers have told, by its headers."""
        told: dict[str, dict[str, int]] = {}
        for header, text in dict(self._wire.rates).items():
            if (which := rate(header)) and which[0] != "reset" and text.isdecimal():
                told.setdefault(which[1], {})[which[0]] = int(text)
        if not told:
            yield Diagnosis("quota", Grade.UNCHECKED, "its answers to questions carry no rate-limit headers")
        for of, numbers in sorted(told.items()):
            left, limit = numbers.get("remaining"), numbers.get("limit")
            if left is None:
                continue
            what = f"{left}{f' of {limit}' if limit is not None else ''} {of or 'requests'} left"
            if left and (limit is None or left > limit * _LOW):
                yield Diagnosis("quota", Grade.GOOD, what)
                continue
            remedy = (
                "issuer's administrator: see who else uses it up, or have it raised; a sweep asks again until it may"
            )
            yield Diagnosis("quota", Grade.WARNING if left else Grade.FAILING, what, remedy)

    # --- requests --------------------------------------------------------------------------------

    def _ask(
        self,
        what: str,
        request: Request,
        values: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        address: str | None = None,
        writes: bool = False,
        until: float | None = None,
        begun: Moment | None = None,
    ) -> Answer:
        """An administrative request. Raises Trouble when there is no answer.

        Parameters:
            address: of a page, in place of the request's own.
            until: on the monotonic clock, when the answer must be there at the latest.
            begun: see Wire.send().
        """
        now = self._clock.monotonic()
        if not writes and 0 < (left := self._rests_until - now) <= _WAITS:
            told = "nothing is left of a rate limit, by the vendor's last answer"
            raise Trouble(Code.THROTTLED, self.name, f"{what}: {told}", retry_after=left)
        auth, secrets = self._authority(what)
        call = self._fill(request, values, auth, secrets, query, address)
        if isinstance(call, str):
            raise Trouble(Code.INVALID, self.name, f"{what}: {call}")
        answer = self._wire.send(call, "admin", until, begun)
        if isinstance(answer, Silence):
            raise Trouble(Code.UNAVAILABLE, self.name, f"{what}: {answer.reason}", maybe_applied=writes and answer.sent)
        rest = self._wire.rest(answer)
        self._rests_until = self._clock.monotonic() + rest if rest and answer.status < 300 else 0.0
        if answer.status == 401:
            with self._lock:
                self._token = None
        return answer

    def _authority(self, what: str) -> tuple[Auth, dict[str, str]]:
        """How administrative requests authenticate, and what is inserted there."""
        auth = self._about.auth
        if auth is None:
            raise Trouble(Code.INVALID, self.name, f"{what}: {self._about.title} know no administrative requests")
        whole = self._admin()
        names = admin_parts(self._about)
        secrets = {ADMIN: whole.reveal()}
        if names:
            try:
                given = json.loads(whole.reveal())
            except (ValueError, RecursionError):
                given = None
            texts = [given.get(name) if isinstance(given, dict) else None for name in names]
            if not all(isinstance(text, str) and text for text in texts):
                told = f"its admin credential must be a JSON object with {', '.join(names)}"
                raise Trouble(Code.DENIED, self.name, f"{what}: {told}") from None
            self._shown_parts = tuple(SecretValue(str(text)) for text in texts)
            secrets = {f"{ADMIN}.{name}": str(text) for name, text in zip(names, texts, strict=True)}
        return auth, secrets

    def _bearer(self, asked: ClientCredentials, values: Mapping[str, Any]) -> str | Silence:
        """An access token, from the last answer while that is good."""
        client, secret = asked.client_id.fill(values), asked.client_secret.fill(values)
        of = hashlib.sha256(json.dumps([client, secret]).encode()).hexdigest()
        with self._lock:
            if self._token and self._token[0] == of and self._clock.monotonic() < self._token[2]:
                return self._token[1].reveal()
        form = {"grant_type": "client_credentials"}
        if asked.scope:
            form["scope"] = asked.scope.fill(values)
        headers = {"Accept": "application/json"}
        if asked.send == "basic":
            headers["Authorization"] = _basic(quote(client, safe=""), quote(secret, safe=""))
        else:
            form |= {"client_id": client, "client_secret": secret}
        try:
            url = self._base_of(asked) + asked.path.fill_path(values)
        except ValueError as error:
            return Silence(f"the path of the token endpoint: {error}", sent=False)
        call = Call("POST", url, {}, headers, None, form, (secret,))
        answer = self._wire.send(call, "admin")
        if isinstance(answer, Silence):
            return Silence(f"no access token: {answer.reason}", sent=False)
        body = answer.body if isinstance(answer.body, dict) else {}
        token, life = body.get("access_token"), body.get("expires_in")
        if answer.status != 200 or not isinstance(token, str) or not token:
            word = text_of(body.get("error"))
            told = f", {word}" if word and re.fullmatch(r"[a-z_]{1,40}", word) else ""
            refused = answer.status in (400, 401, 403)
            raise Trouble(
                Code.DENIED if refused else Code.THROTTLED if answer.status == 429 else Code.UNAVAILABLE,
                self.name,
                f"the token endpoint {'refused the administrative credential' if refused else 'gave no token'} ({answer}{told})",
                retry_after=self._wire.rest(answer),
            )
        lasts = float(life) if isinstance(life, int | float) or (isinstance(life, str) and life.isdecimal()) else 0.0
        kept = SecretValue(token)
        with self._lock:
            self._token = (of, kept, self._clock.monotonic() + min(lasts, 86_400.0) - _EARLY)
        return token

    def _base_of(self, request: Request | ClientCredentials) -> str:
        return str(self._values[request.host]).rstrip("/") if request.host else self._base

    def _fill(
        self,
        request: Request,
        values: Mapping[str, Any],
        auth: Auth | None,
        secrets: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        address: str | None = None,
    ) -> Call | str:
        """The request with everything filled in, or why it can not be sent."""
        known = {**self._values, **values}
        try:
            url = address or self._base_of(request) + request.path.fill_path(known)
        except ValueError as error:
            return f"the path of the request: {error}"
        asked = {} if address else {**_filled(request.query, known), **(query or {})}
        within = {**known, **secrets}
        headers = {**_filled(self._about.headers, known), **_filled(request.headers, known)}
        hidden = [text for text in secrets.values() if text]
        if auth and auth.oauth2_client_credentials:
            token = self._bearer(auth.oauth2_client_credentials, within)
            if isinstance(token, Silence):
                raise Trouble(Code.UNAVAILABLE, self.name, token.reason)
            headers["Authorization"] = f"Bearer {token}"
            hidden.append(token)
        elif auth and auth.azure_shared_key:
            signed = self._signed(auth.azure_shared_key, request.method, url, asked, headers, within)
            if signed is None:
                return "the key is not base64"
            headers |= signed
        elif auth:
            headers |= _authentication(auth, within)
        if not all(_SENDABLE.fullmatch(text) for text in headers.values()):
            return "a credential or variable has characters that an HTTP header can not carry, such as a line end"
        return Call(
            method=request.method,
            url=url,
            query=asked,
            headers=headers,
            body=_filled_json(request.body, within),
            form=None if request.form is None else _filled(request.form, within),
            secrets=tuple(hidden),
        )

    def _signed(
        self,
        signed: SharedKey,
        method: str,
        url: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        values: Mapping[str, Any],
    ) -> dict[str, str] | None:
        """Headers of a request without a body, signed as "Authorize with Shared Key" of the Storage REST reference says
        for Shared Key Lite of the Blob service. None when the key can not sign.
        """
        account = signed.account.fill(values)
        try:
            key = base64.b64decode(signed.key.fill(values), validate=True)
        except ValueError:
            return None
        stamped = {"x-ms-date": format_datetime(self._clock.now(), usegmt=True)}
        named = {name.lower(): text for name, text in {**headers, **stamped}.items()}
        lines = "".join(f"{name}:{text}\n" for name, text in sorted(named.items()) if name.startswith("x-ms-"))
        parts = urlsplit(url)
        resource = f"/{account}{parts.path or '/'}" + (f"?comp={query['comp']}" if "comp" in query else "")
        text = f"{method}\n\n\n\n{lines}{resource}"
        signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        return {**stamped, "Authorization": f"SharedKeyLite {account}:{signature}"}

    def _scope(self) -> str:
        """Eight hex digits that differ where the address or what a list is asked of does, a project for one."""
        listing = self._about.listing
        requests = [listing.request] if listing else []
        names = {name for request in requests for name in request.path.names}
        names |= {name for request in requests for template in request.query.values() for name in template.names}
        if not requests:
            names = {name for name, variable in self._about.variables.items() if variable.required}
        where = sorted((name, self._values.get(name, "")) for name in names)
        return hashlib.sha256(repr((self._base, where)).encode()).hexdigest()[:8]

    def _refused(self, what: str, answer: Answer, errors: tuple[Refusal, ...] = (), *, writes: bool = False) -> Trouble:
        """What an answer that is no success means, by the description first and by its status otherwise."""
        for refusal in (*errors, *self._about.errors):
            if refusal.matches(answer.status, answer.body, answer.headers):
                code, told = refusal.code, refusal.reason
                break
        else:
            code, told = _judged(answer.status)
        return Trouble(
            code,
            self.name,
            f"{what}: {told} ({answer})",
            maybe_applied=writes and code is Code.UNAVAILABLE,
            retry_after=self._wire.rest(answer) if code in (Code.THROTTLED, Code.UNAVAILABLE) else None,
        )


def _last_used(told: LastUsed | ListedUse, found: Any, granularity: timedelta) -> LastUse:
    """What an answer, or an item of the list, says of the last use of its key."""
    if at := told.at.read(found):
        return LastUse(known=True, at=at, granularity=granularity)
    never = told.at.path.find(found) is None and told.never is not None and told.never.holds(found)
    return LastUse(known=never, granularity=granularity)


def _newer(one: LastUse | None, other: LastUse) -> LastUse:
    """Of two that were asked at once, the one that tells of a later use; never is outdone by any use."""
    if one is None or not one.known:
        return other if other.known else one or other
    if not other.known or other.at is None:
        return one
    return other if one.at is None or one.at + one.granularity < other.at else one


def _rounded(at: datetime, width: timedelta) -> datetime:
    """The beginning of the span, counted from 1970."""
    origin = datetime(1970, 1, 1, tzinfo=UTC)
    return origin + (at - origin) // width * width


def _judged(status: int) -> tuple[Code, str]:
    if status == 401:
        return Code.DENIED, "the administrative credential was refused"
    if status == 403:
        return Code.DENIED, "the administrative credential, or this address, may not do this"
    if status in (404, 410):
        return Code.NOT_FOUND, "there is no such thing; check the configured ids"
    if status == 409:
        return Code.CONFLICT, "the vendor sees a conflict"
    if status == 429:
        return Code.THROTTLED, "too many requests"
    if 300 <= status <= 399:
        return Code.UNAVAILABLE, "redirected, which is not followed; check the base URL"
    if 400 <= status <= 499 and status not in (408, 425):
        return Code.INVALID, "the vendor refused the request"
    return Code.UNAVAILABLE, "the vendor failed"


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _authentication(auth: Auth, values: Mapping[str, Any]) -> dict[str, str]:
    if auth.bearer:
        return {"Authorization": f"Bearer {auth.bearer.fill(values)}"}
    if auth.basic:
        return {"Authorization": _basic(auth.basic.username.fill(values), auth.basic.password.fill(values))}
    return {name: template.fill(values) for name, template in (auth.headers or {}).items()}


def _filled(templates: Mapping[str, Template], values: Mapping[str, Any]) -> dict[str, str]:
    return {name: template.fill(values) for name, template in templates.items() if not template.absent(values)}


def _filled_json(tree: Any, values: Mapping[str, Any]) -> Any:
    def present(node: Any) -> bool:
        return not (isinstance(node, Template) and node.absent(values))

    match tree:
        case Template():
            return tree.fill_json(values)
        case dict():
            return {name: _filled_json(node, values) for name, node in tree.items() if present(node)}
        case list():
            return [_filled_json(node, values) for node in tree if present(node)]
    return tree


def _redacts(shown: Any, value: str) -> bool:
    """Whether this is the value with its middle left out, and says enough of it to tell."""
    parts = _LEFT_OUT.split(shown) if isinstance(shown, str) else []
    if len(parts) != 2 or len("".join(parts)) < TELLING:
        return False
    return bool(parts[1]) and value.startswith(parts[0]) and value.endswith(parts[1])


def _days(gap: timedelta) -> str:
    return f"{gap.days} d" if gap.days >= 2 else f"{max(gap.total_seconds(), 0) / 3600:.0f} h"


def _joined(parts: Iterable[str]) -> str:
    """A key id, from its parts."""
    return "/".join(quote(part, safe=":@=+,") for part in parts)


def _parts(key_id: str) -> list[str]:
    return [unquote(part) for part in key_id.split("/")]


def _brief(answer: Answer) -> str:
    return f"HTTP {answer.status}, {answer.error}" if answer.error else f"HTTP {answer.status}"
