"""Sample answers of a vendor, and whether its description reads them: what can be tried without the vendor.

The samples of `vendor.yaml` stand beside it in `vendor.samples.yaml`; those of the descriptions that come with
Keyturn in `descriptions/samples/`. Their values are made up. `sandbox/vendor.py` answers with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from providers.issuers.description import Description, Part, Poll, Prefetch, Rule, Several, Time
from providers.issuers.language import Expression, Fault, admin_parts
from providers.issuers.reading import parsed
from rotation.errors import Code
from rotation.model import Verdict

SUFFIX: Final = ".samples.yaml"


class Sample(Part):
    """One answer."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = Field(default_factory=dict)


class Verification(Part):
    """Answers to a credential that is shown."""

    accepted: Sample
    refused: Sample
    unclear: Sample | None = None
    """One that does not tell, as to an address that is not on an allowlist."""


class Samples(Part):
    """Answers of a vendor, with made-up values."""

    sources: Annotated[tuple[str, ...], Several]
    """Where the answers are from, or what they were written after."""
    variables: dict[str, Any] = Field(default_factory=dict)
    """What the configuration would say."""
    admin: str | dict[str, str] | None = None
    """The administrative credential; None where there is none."""
    mint: Annotated[tuple[Sample, ...], Field(strict=False)] = ()
    """One for each way, in order."""
    prefetch: Annotated[tuple[Sample, ...], Field(strict=False)] = ()
    listing: Sample | None = Field(default=None, alias="list")
    """With an item for each way of reading one."""
    verify: Verification
    gone: Sample | None = None
    """To a revocation of what is not there; the first status of `gone` without a word by default."""
    last_use: Sample | None = None
    usage: Sample | None = None
    """With a span that has a row."""
    polled: dict[str, Sample] = Field(default_factory=dict)
    """The last answer to what is asked after, by the place of its `poll`: `mint[0]`, `revoke[0].steps[0]`."""
    smoke: Sample | None = None
    admin_keys: Sample | None = None
    """To `admin.request`."""
    limit: Sample | None = None
    """To a mint where there are as many keys as there may be."""


def read_samples(text: str, source: str) -> Samples:
    """Samples from YAML.

    Raises:
        DescriptionFault: with every fault that was found.
    """
    return parsed(Samples, text, source)


def shipped_samples(kind: str) -> Samples:
    """The samples of a description that comes with Keyturn."""
    file = resources.files("providers.issuers") / "descriptions" / "samples" / f"{kind}.yaml"
    return read_samples(file.read_text(), f"samples/{kind}.yaml")


def beside(path: Path) -> Path:
    """Where the samples of a description stand."""
    return path.with_name(path.name.removesuffix(".yaml") + SUFFIX)


def faults_in(about: Description, samples: Samples) -> list[Fault]:
    """Where the description does not find in the samples what it says is there."""
    return list(_faults(about, samples))


def _faults(about: Description, samples: Samples) -> Iterator[Fault]:
    for fault in about.faults_in(samples.variables):
        yield Fault(f"variables.{fault.path}".rstrip("."), fault.text)
    yield from _admin(about, samples)
    yield from _minted(about, samples)
    yield from _listed(about, samples)
    yield from _verified(about, samples)
    yield from _asked(about, samples)


def _missing(path: str, place: str) -> Fault:
    return Fault(path, f"finds nothing in the sample {place}")


def _admin(about: Description, samples: Samples) -> Iterator[Fault]:
    parts = admin_parts(about)
    if about.auth is None:
        return
    if parts and not (isinstance(samples.admin, dict) and {*parts} <= samples.admin.keys()):
        yield Fault("admin", f"needs the parts {', '.join(parts)}")
    elif not parts and not isinstance(samples.admin, str):
        yield Fault("admin", "must be a text, made up")


def _time(path: str, time: Time | None, body: Any, place: str, *, empty: bool = False) -> Iterator[Fault]:
    if time is None:
        return
    found = time.path.find(body)
    if (found is None and not empty) or (found is not None and time.read(body) is None):
        yield Fault(path, f"finds no time of the form {time.format} in the sample {place}")


def _texts(path: str, paths: Mapping[str, Expression], body: Any, place: str) -> Iterator[Fault]:
    for name, expression in paths.items():
        found = expression.find(body)
        if not (isinstance(found, str) and found) and (isinstance(found, bool) or not isinstance(found, int)):
            yield _missing(f"{path}.{name}", place)


def _minted(about: Description, samples: Samples) -> Iterator[Fault]:
    if len(samples.mint) != len(about.mint):
        yield Fault("mint", f"needs a sample for each way: {len(about.mint)}, there are {len(samples.mint)}")
        return
    for index, (way, first) in enumerate(zip(about.mint, samples.mint, strict=True)):
        sample = first
        place, path = f"mint[{index}]", f"mint[{index}]"
        if sample.status not in way.ok:
            yield Fault(f"{path}.ok", f"does not have the sample's status {sample.status}")
        if way.poll:
            if way.poll.operation.find(sample.body) is None:
                yield _missing(f"{path}.poll.operation", place)
            yield from _finished(path, way.poll, samples)
            if path not in samples.polled:
                continue
            sample, place = samples.polled[path], f"polled.{path}"  # the answer that counts comes later
        for name, slot in about.slots.items():
            yield from _texts(f"slots.{name}.fields", slot.fields, sample.body, place)
            yield from _time(f"slots.{name}.created_at.path", slot.created_at, sample.body, place)
        yield from _texts(f"{path}.key_id", way.key_id or {}, sample.body, place)
        yield from _texts(f"{path}.fields", way.fields or {}, sample.body, place)
        yield from _time(f"{path}.created_at.path", way.created_at, sample.body, place)
        yield from _time(f"{path}.expires_at.path", way.expires_at, sample.body, place, empty=True)
    if about.capabilities.max_keys is not None and about.mint:
        refusals = about.mint[0].errors
        limit = samples.limit
        told = limit and next((r.code for r in refusals if r.matches(limit.status, limit.body, limit.headers)), None)
        if told is not Code.LIMIT:
            yield Fault(
                "mint[0].errors", "do not tell from the sample limit that there are as many keys as there may be"
            )
    yield from _fetched(about.prefetch, samples)


def _finished(path: str, poll: Poll, samples: Samples) -> Iterator[Fault]:
    last = samples.polled.get(path)
    if last is None:
        yield Fault(f"polled.{path}", "needs a sample: the last answer to what is asked after")
        return
    if last.status not in poll.ok:
        yield Fault(f"{path}.poll.ok", f"does not have the sample's status {last.status}")
    if not poll.done.holds(last.body):
        yield Fault(f"{path}.poll.done", f"does not hold for the sample polled.{path}")
    if poll.failed and poll.failed.holds(last.body):
        yield Fault(f"{path}.poll.failed", f"holds for the sample polled.{path}")


def _fetched(prefetches: tuple[Prefetch, ...], samples: Samples) -> Iterator[Fault]:
    if len(samples.prefetch) != len(prefetches):
        yield Fault("prefetch", f"needs a sample for each: {len(prefetches)}, there are {len(samples.prefetch)}")
        return
    for index, (prefetch, sample) in enumerate(zip(prefetches, samples.prefetch, strict=True)):
        for name, expression in prefetch.values.items():
            if expression.find(sample.body) is None:
                yield _missing(f"prefetch[{index}].values.{name}", f"prefetch[{index}]")


def _listed(about: Description, samples: Samples) -> Iterator[Fault]:
    listing, sample = about.listing, samples.listing
    if listing is None:
        return
    if sample is None:
        yield Fault("list", "needs a sample")
        return
    if sample.status not in listing.ok:
        yield Fault("list.ok", f"does not have the sample's status {sample.status}")
    for name, slot in about.slots.items():
        yield from _texts(f"slots.{name}.fields", slot.fields, sample.body, "list")
    if listing.items is None:
        return
    items = listing.items.find(sample.body)
    if not isinstance(items, list) or not items:
        yield _missing("list.items", "list")
        return
    for index, way in enumerate(listing.each):
        path = f"list.each[{index}]"
        fitting = [item for item in items if not list(_texts(path, way.key_id, item, "")) and way.name.find(item)]
        if not fitting:
            yield Fault(path, "reads no item of the sample list: name or key id is missing")
            continue
        yield from _time(f"{path}.created_at.path", way.created_at, fitting[0], "list")
        if way.redacted and not isinstance(way.redacted.find(fitting[0]), str):
            yield _missing(f"{path}.redacted", "list")
        if listing.live and not listing.live.holds(fitting[0]):
            yield Fault("list.live", "does not hold for the item of the sample list")
    cursor = listing.pagination.cursor if listing.pagination else None
    if cursor and cursor.more and not isinstance(cursor.more.find(sample.body), bool):
        yield Fault("list.pagination.cursor.more", "finds neither true nor false in the sample list")


def judged(rules: tuple[Rule, ...], sample: Sample) -> Verdict:
    """What rules make of a sample."""
    headers = {name.lower(): text for name, text in sample.headers.items()}
    fitting = (rule.verdict for rule in rules if rule.matches(sample.status, sample.body, headers))
    return next(fitting, Verdict.UNKNOWN)


def _verified(about: Description, samples: Samples) -> Iterator[Fault]:
    wanted = {
        "accepted": (samples.verify.accepted, Verdict.VALID),
        "refused": (samples.verify.refused, Verdict.INVALID),
        "unclear": (samples.verify.unclear, Verdict.UNKNOWN),
    }
    for name, (sample, verdict) in wanted.items():
        if sample and (found := judged(about.verify.rules, sample)) is not verdict:
            yield Fault("verify.rules", f"make {found.value} of the sample {name}, not {verdict.value}")
    if about.smoke and not samples.smoke:
        yield Fault("smoke", "needs a sample")
    elif about.smoke and samples.smoke and judged(about.smoke.rules, samples.smoke) is not Verdict.VALID:
        yield Fault("smoke.rules", "do not make valid of the sample smoke")


def _counted(about: Description, samples: Samples) -> Iterator[Fault]:
    asked, sample = about.usage, samples.usage
    if asked is None:
        return
    buckets = asked.buckets.find(sample.body) if sample else None
    if sample is None or not isinstance(buckets, list) or not buckets:
        yield Fault("usage", "needs a sample") if sample is None else _missing("usage.buckets", "usage")
        return
    yield from _time("usage.start.path", asked.start, buckets[0], "usage")
    rows = asked.rows.find(buckets[0]) if asked.rows else buckets
    if not isinstance(rows, list) or not rows:
        yield _missing("usage.rows", "usage")
        return
    yield from _texts("usage.key_id", asked.key_id, rows[0], "usage")
    number = asked.count.find(rows[0])
    if isinstance(number, bool) or not isinstance(number, int):
        yield _missing("usage.count", "usage")
    cursor = asked.pagination.cursor if asked.pagination else None
    if cursor and cursor.more and not isinstance(cursor.more.find(sample.body), bool):
        yield Fault("usage.pagination.cursor.more", "finds neither true nor false in the sample usage")


def _asked(about: Description, samples: Samples) -> Iterator[Fault]:
    asked = about.last_use
    if asked and asked.request and samples.last_use is None:
        yield Fault("last_use", "needs a sample")
    elif asked and asked.request and samples.last_use:
        yield from _time("last_use.at.path", asked.at, samples.last_use.body, "last_use")
    if asked and asked.listed and samples.listing and about.listing and about.listing.items:
        for item in about.listing.items.find(samples.listing.body) or ():
            yield from _time("last_use.listed.at.path", asked.listed.at, item, "list", empty=True)
    yield from _counted(about, samples)
    if about.admin and samples.admin_keys is None:
        yield Fault("admin_keys", "needs a sample")
    elif about.admin and samples.admin_keys:
        items = about.admin.items.find(samples.admin_keys.body)
        if not isinstance(items, list) or not items:
            yield _missing("admin.items", "admin_keys")
        elif not isinstance(about.admin.redacted.find(items[0]), str):
            yield _missing("admin.redacted", "admin_keys")
    for what, changes in (("revoke", about.revoke), ("disable", about.disable), ("enable", about.enable)):
        for index, change in enumerate(changes):
            for number, step in enumerate(change.steps):
                if step.poll:
                    place = f"{what}[{index}].steps[{number}]"
                    yield from _finished(place, step.poll, samples)
                    if place in samples.polled and step.poll.operation.find(samples.polled[place].body) is None:
                        yield _missing(f"{place}.poll.operation", f"polled.{place}")
                if step.gone_when and (samples.gone is None or not step.gone_when.holds(samples.gone.body)):
                    yield Fault(f"{what}[{index}].steps[{number}].gone_when", "does not hold for the sample gone")
