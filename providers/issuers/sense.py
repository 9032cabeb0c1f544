"""What one field of a description may say given the others: faults of sense, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from providers.issuers.language import (
    ADMIN,
    BASE_URL,
    EXPIRES_AT,
    KEY_NAME,
    OPERATION,
    SINCE,
    SLOT,
    UNTIL,
    Fault,
    Template,
    admin_parts,
    credential_fields,
    forms,
)
from rotation.model import Verdict

if TYPE_CHECKING:
    from providers.issuers.description import Auth, ClientCredentials, Description, Poll, Request, Revoke


def _changes(d: Description) -> tuple[tuple[str, tuple[Revoke, ...]], ...]:
    return (("revoke", d.revoke), ("disable", d.disable), ("enable", d.enable))


def nonsense(d: Description) -> Iterator[Fault]:
    """Everything that is wrong with a description whose form is sound."""
    if wrong := list(_bad_model(d)):
        yield from wrong
        return
    yield from _bad_names(d)
    yield from _bad_placeholders(d)
    yield from _bad_hosts(d)
    yield from _bad_key_ids(d)
    yield from _bad_rules(d)
    for name, changes in _changes(d):
        for index, change in enumerate(changes):
            path = f"{name}[{index}].steps[{len(change.steps) - 1}]"
            if change.steps[-1].next_on:
                yield Fault(f"{path}.next_on", "there is no next step")
            for number, step in enumerate(change.steps):
                if step.gone_when and not step.gone:
                    yield Fault(f"{name}[{index}].steps[{number}].gone_when", "says nothing without gone")
    for name, part in (("list", d.listing), ("usage", d.usage)):
        if part and part.pagination and part.pagination.parameter in part.request.query:
            yield Fault(f"{name}.request.query", f"{part.pagination.parameter} is set by pagination")


def _bad_model(d: Description) -> Iterator[Fault]:
    """What a model needs, and what it has no use for."""
    needed = {"mint": ("mint", "list", "revoke"), "slots": ("slots", "mint", "list"), "manual": ()}[d.model]
    useless = {
        "mint": ("slots",),
        "slots": ("revoke", "disable", "enable", "last_use", "usage", "prefetch"),
        "manual": ("slots", "mint", "prefetch"),
    }[d.model]
    there = {
        "slots": d.slots,
        "mint": d.mint,
        "list": d.listing,
        "revoke": d.revoke,
        "disable": d.disable,
        "enable": d.enable,
        "last_use": d.last_use,
        "usage": d.usage,
        "prefetch": d.prefetch,
    }
    yield from (Fault(name, f"is needed where the model is {d.model}") for name in needed if not there[name])
    yield from (Fault(name, f"has no use where the model is {d.model}") for name in useless if there[name])
    if d.model != "manual" and "credential" in d.model_fields_set:
        yield Fault("credential", "is for the model manual; elsewhere the fields of the mint say it")
    if (d.mint or d.listing or d.revoke or d.last_use or d.usage or d.admin) and d.auth is None:
        yield Fault("auth", "is needed for administrative requests")
    if d.model != "slots":
        for index, way in enumerate(d.mint):
            for name in ("key_id", "fields"):
                if getattr(way, name) is None:
                    yield Fault(f"mint[{index}].{name}", "is needed")
        if d.listing and (d.listing.items is None or not d.listing.each):
            yield Fault("list", "needs items and each")
    else:
        yield from _bad_slots(d)
    if bool(d.disable) != bool(d.enable):
        missing, other = ("enable", "disable") if d.disable else ("disable", "enable")
        yield Fault(missing, f"is needed beside {other}: one undoes the other")
    if d.last_use and d.last_use.request is None and not d.listing:
        yield Fault("last_use.request", "is needed where there is no list to look into")
    if d.last_use and d.last_use.listed and (d.last_use.request is None or not d.listing):
        told = "the list is looked into anyway" if d.listing else "there is no list"
        yield Fault("last_use.listed", f"has no use: {told}")


def _bad_slots(d: Description) -> Iterator[Fault]:
    if len(d.slots) == 1:
        yield Fault("slots", "one slot is no choice: while it is regenerated there is no key")
    if len({frozenset(slot.fields) for slot in d.slots.values()}) > 1:
        yield Fault("slots", "every slot must give the same fields")
    if len(d.mint) > 1:
        yield Fault("mint", "there is one way of regenerating a slot")
    for index, way in enumerate(d.mint):
        for name in ("key_id", "fields", "from_admin", "created_at", "expires_at", "expiry"):
            if getattr(way, name):
                yield Fault(f"mint[{index}].{name}", "has no use where there are slots: slots say it")
    if d.listing and (d.listing.items or d.listing.each or d.listing.pagination or d.listing.live):
        yield Fault("list", "has no items, each, live or pagination where there are slots: slots say where they are")
    if d.listing and not d.listing.returns_secrets:
        told = "must be true where there are slots: that a slot still holds a key is told by its value"
        yield Fault("list.returns_secrets", told)


def _bad_names(d: Description) -> Iterator[Fault]:
    parts = {part for form in forms(d) for part in form}
    fields = {field for way in d.mint for field in way.fields or ()} | set(credential_fields(d))
    fetched = {name for prefetch in d.prefetch for name in prefetch.values}
    taken = {BASE_URL, ADMIN, KEY_NAME, SLOT, EXPIRES_AT, OPERATION, SINCE, UNTIL} | parts | fields | fetched
    for name, variable in d.variables.items():
        if name in taken:
            yield Fault(
                f"variables.{name}",
                "the name is taken: by Keyturn, a part of the key id, a credential field or a prefetch",
            )
        if variable.default is not None and (text := variable.fault(variable.default)):
            yield Fault(f"variables.{name}.default", text)
        if variable.default is not None and variable.required:
            yield Fault(f"variables.{name}.default", "is never used: the variable is required; say required: false")
    optional = ", ".join(name for name, variable in d.variables.items() if not variable.always) or "none"
    ways = [(f"mint[{index}].when", way.when) for index, way in enumerate(d.mint)]
    ways += [(f"prefetch[{index}].when", prefetch.when) for index, prefetch in enumerate(d.prefetch)]
    for path, when in ways:
        if when is not None and (when not in d.variables or d.variables[when].always):
            yield Fault(path, f"{when} is not an optional variable; there are: {optional}")
    for index, way in enumerate(d.mint):
        if way.when is None and index < len(d.mint) - 1:
            yield Fault(f"mint[{index}]", "has no when, so that the ways after it are never taken")
        about = d.variables.get(way.expiry.after) if way.expiry else None
        if way.expiry and (about is None or about.always or about.type != "integer"):
            yield Fault(
                f"mint[{index}].expiry.after", f"{way.expiry.after} is not an optional variable of the type integer"
            )
        if both := sorted({*(way.fields or ())} & {*way.from_admin}):
            yield Fault(f"mint[{index}].from_admin", f"{', '.join(both)} is among the minted fields, too")
    if len({frozenset([*(way.fields or ()), *way.from_admin]) for way in d.mint}) > 1:
        yield Fault("mint", "every way must give the same fields")


def _bad_placeholders(d: Description) -> Iterator[Fault]:
    always = {name for name, variable in d.variables.items() if variable.always}
    fetched = {name for prefetch in d.prefetch for name in prefetch.values}
    structured = fetched | {name for name, variable in d.variables.items() if variable.type == "list"}
    secrets = set(credential_fields(d))
    used: set[str] = set()

    def check(path: str, template: Template, sure: set[str], maybe: set[str] | None = None) -> Iterator[Fault]:
        used.update(template.names)
        for name in template.names:
            if name in structured and not (template.alone and path.endswith(".json")):
                yield Fault(path, f"{{{name}}} is no text: it stands alone in json, and nowhere else")
            if name in sure | (maybe or set()):
                continue
            allowed = ", ".join(sorted(sure | (maybe or set()))) or "none"
            if maybe is None and name in d.variables:
                yield Fault(path, f"{{{name}}} may be absent here; sure to be given: {allowed}")
            else:
                yield Fault(path, f"{{{name}}} can not be inserted here; allowed: {allowed}")

    def check_request(
        path: str, request: Request, sure: set[str], within: frozenset[str] = frozenset()
    ) -> Iterator[Fault]:
        """`within`: what may stand in the body alone."""
        used.add(request.host or "")
        yield from check(f"{path}.path", request.path, sure)
        for place, template in request.templates():
            body = within if place == "json" or place.startswith("form.") else frozenset()
            yield from check(f"{path}.{place}", template, sure, set(d.variables) | body)

    def check_auth(path: str, auth: Auth, secrets: set[str]) -> Iterator[Fault]:
        for place, template in auth.templates():
            sure = (
                always
                | secrets
                | {name for name in template.names if name.startswith(f"{ADMIN}.") and ADMIN in secrets}
            )
            yield from check(f"{path}.{place}", template, sure)
        if auth.oauth2_client_credentials:
            used.add(auth.oauth2_client_credentials.host or "")
            yield from check(f"{path}.oauth2_client_credentials.path", auth.oauth2_client_credentials.path, always)

    def check_poll(path: str, poll: Poll | None, sure: set[str]) -> Iterator[Fault]:
        if poll:
            yield from check_request(f"{path}.poll.request", poll.request, sure | {OPERATION})

    for name, template in d.headers.items():
        yield from check(f"headers.{name}", template, always, set(d.variables))
    if d.auth:
        yield from check_auth("auth", d.auth, {ADMIN})
        if admin_parts(d) and any(ADMIN in template.names for _, template in d.auth.templates()):
            yield Fault("auth", "takes the administrative credential as a whole and in parts; it is one or the other")
    for index, prefetch in enumerate(d.prefetch):
        given = {prefetch.when} if prefetch.when else set()
        used |= given
        yield from check_request(f"prefetch[{index}].request", prefetch.request, always | given)
    for index, way in enumerate(d.mint):
        given = {way.when} if way.when else set()
        sure = always | given | ({SLOT} if d.slots else {KEY_NAME})
        late = fetched | ({EXPIRES_AT} if way.expiry else set())
        yield from check_request(f"mint[{index}].request", way.request, sure, frozenset(late))
        for name, template in way.from_admin.items():
            parts = {part for part in template.names if part.startswith(f"{ADMIN}.")}
            yield from check(f"mint[{index}].from_admin.{name}", template, {ADMIN} | parts)
        yield from check_poll(f"mint[{index}]", way.poll, always | given)
        named = {name for _, template in way.request.templates() for name in template.names}
        if d.slots and SLOT not in named | {*way.request.path.names}:
            yield Fault(
                f"mint[{index}].request", f"never says {{{SLOT}}}, so that it could not tell which to make anew"
            )
        if not d.slots and KEY_NAME not in named:
            yield Fault(
                f"mint[{index}].request", f"never says {{{KEY_NAME}}}, so that a lost key could not be found again"
            )
        used |= given | ({way.expiry.after} if way.expiry else set())
        if way.expiry and EXPIRES_AT not in named:
            yield Fault(f"mint[{index}].expiry", f"has no use: the request never says {{{EXPIRES_AT}}}")
    if d.admin:
        yield from check_request("admin.request", d.admin.request, always)
    if d.listing:
        yield from check_request("list.request", d.listing.request, always)
    yield from check_request("verify.request", d.verify.request, always, frozenset(secrets))
    if d.verify.auth:
        yield from check_auth("verify.auth", d.verify.auth, secrets)
        if d.verify.auth.oauth2_client_credentials:
            yield Fault(
                "verify.auth", "a credential is shown by itself; describe the request for a token as the request"
            )
    elif not secrets & {name for _, template in d.verify.request.templates() for name in template.names}:
        yield Fault("verify.auth", "is needed: nothing in the request shows the credential")
    for what, changes in _changes(d):
        for index, change in enumerate(changes):
            for number, step in enumerate(change.steps):
                path, sure = f"{what}[{index}].steps[{number}]", always | set(change.key_id)
                yield from check_request(f"{path}.request", step.request, sure)
                yield from check_poll(path, step.poll, sure)
    if d.last_use and d.last_use.request and forms(d):
        common = set.intersection(*(set(form) for form in forms(d)))
        yield from check_request("last_use.request", d.last_use.request, always | common)
    if d.usage:
        yield from check_request("usage.request", d.usage.request, always | {SINCE, UNTIL})
        named = {name for _, template in d.usage.request.templates() for name in template.names}
        if SINCE not in named | {*d.usage.request.path.names}:
            yield Fault("usage.request", f"never says {{{SINCE}}}, so that nobody could tell what was counted")
    if d.smoke:
        yield from check_request("smoke.request", d.smoke.request, always, frozenset(secrets))
    for name in d.variables:
        if name not in used:
            yield Fault(f"variables.{name}", "is declared and never used")


def _requests(d: Description) -> Iterator[tuple[str, Request | ClientCredentials]]:
    """Every request, and its place."""
    if d.auth and d.auth.oauth2_client_credentials:
        yield "auth.oauth2_client_credentials", d.auth.oauth2_client_credentials
    for index, prefetch in enumerate(d.prefetch):
        yield f"prefetch[{index}].request", prefetch.request
    for index, way in enumerate(d.mint):
        yield f"mint[{index}].request", way.request
        if way.poll:
            yield f"mint[{index}].poll.request", way.poll.request
    single: dict[str, Any] = {
        "admin": d.admin,
        "list": d.listing,
        "verify": d.verify,
        "last_use": d.last_use,
        "smoke": d.smoke,
    }
    single["usage"] = d.usage
    for name, part in single.items():
        if part and part.request:
            yield f"{name}.request", part.request
    for what, changes in _changes(d):
        for index, change in enumerate(changes):
            for number, step in enumerate(change.steps):
                yield f"{what}[{index}].steps[{number}].request", step.request
                if step.poll:
                    yield f"{what}[{index}].steps[{number}].poll.request", step.poll.request


def _bad_hosts(d: Description) -> Iterator[Fault]:
    """Credentials go to the base URL and to hosts that are declared, and to none that an answer or a value makes up."""
    hosts = [name for name, variable in d.variables.items() if variable.type == "url" and variable.always]
    for path, request in _requests(d):
        if request.host is not None and request.host not in hosts:
            told = f"{request.host} is not a variable of the type url that is always given; there are: "
            yield Fault(f"{path}.host", told + (", ".join(hosts) or "none"))


def _bad_key_ids(d: Description) -> Iterator[Fault]:
    known = forms(d)
    for what, changes in _changes(d):
        shapes = [change.key_id for change in changes]
        for index, form in enumerate(shapes):
            if len(set(form)) < len(form):
                yield Fault(f"{what}[{index}].key_id", "names a part twice")
            if len(form) in [len(other) for other in shapes[:index]]:
                told = "has as many parts as another: the two could not be told apart"
                yield Fault(f"{what}[{index}].key_id", told)
            if what != "revoke" and known and form not in known:
                told = f"is no form of key id here; there are: {' and '.join('/'.join(other) for other in known)}"
                yield Fault(f"{what}[{index}].key_id", told)
    if d.usage and not any({*d.usage.key_id} <= {*form} for form in known):
        told = " and ".join("/".join(form) for form in known) or "none"
        yield Fault("usage.key_id", f"has parts of no key id; there are: {told}")
    made = [(f"mint[{index}]", way.key_id) for index, way in enumerate(d.mint) if way.key_id]
    made += [(f"list.each[{index}]", item.key_id) for index, item in enumerate(d.listing.each if d.listing else ())]
    for path, parts in made:
        if d.revoke and parts.keys() not in [set(form) for form in known]:
            told = " and ".join("/".join(form) for form in known)
            yield Fault(f"{path}.key_id", f"no revoke is for {'/'.join(parts)}; there are: {told}")


def _bad_rules(d: Description) -> Iterator[Fault]:
    verdicts = {rule.verdict for rule in d.verify.rules}
    for verdict in (Verdict.VALID, Verdict.INVALID):
        if verdict not in verdicts:
            yield Fault("verify.rules", f"none says {verdict.value}")
    rules = [(f"verify.rules[{index}]", rule) for index, rule in enumerate(d.verify.rules)]
    rules += [(f"smoke.rules[{index}]", rule) for index, rule in enumerate(d.smoke.rules if d.smoke else ())]
    for path, rule in rules:
        if rule.verdict is Verdict.VALID and not all(
            status == "2xx" or status in range(200, 300) for status in rule.status.members
        ):
            yield Fault(f"{path}.status", "valid must rest on a success, 2xx")
        silent = {"2xx", "5xx", 407, 408, 429}
        if (
            rule.verdict is Verdict.INVALID
            and any(
                status in silent or status in range(200, 300) or status in range(500, 600)
                for status in rule.status.members
            )
            and rule.when is None
            and not rule.header
        ):
            yield Fault(f"{path}.status", "does not say by itself that the key is refused; add when")
