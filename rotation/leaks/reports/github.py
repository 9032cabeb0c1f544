"""Reads GitHub's secret-scanning alerts: of the REST API, one or a list, and of the webhook.

Source: GitHub's OpenAPI description (github/rest-api-description, API version 2022-11-28, schemas secret-scanning-alert,
organization-secret-scanning-alert, secret-scanning-alert-webhook, secret-scanning-location; 2025-11), "REST API endpoints for
secret scanning" and "Webhook events: secret_scanning_alert, secret_scanning_alert_location" on docs.github.com. The webhook
never carries the value, and the API leaves it out with `hide_secret=true` (changelog of 2025-05-20): both give a finding
that is withheld, with the address of the alert at the API as its `lookup`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

from rotation.leaks.reports import fields
from rotation.leaks.reports.gathering import LONGEST, Hit, Skip

_WORKS = {"active": True, "inactive": False}


def read(item: Mapping[str, object]) -> Iterator[Hit | Skip] | None:
    """The hits of one alert, or of one delivery of the webhook; None for an object that is neither."""
    alert = item.get("alert")
    if isinstance(alert, dict) and _is_alert(alert):
        return _alert(alert, fields.mapping(item, "repository"), fields.mapping(item, "location"))
    return _alert(item, fields.mapping(item, "repository"), {}) if _is_alert(item) else None


def _is_alert(item: Mapping[str, object]) -> bool:
    return "secret_type" in item and bool(item.keys() & {"secret", "html_url", "url", "number", "state"})


def _alert(
    alert: Mapping[str, object], repository: Mapping[str, object], location: Mapping[str, object]
) -> Iterator[Hit | Skip]:
    secret = alert.get("secret")
    if secret is not None and not isinstance(secret, str):
        yield Skip("without a secret that is text")
        return
    state, resolution = fields.text(alert, "state"), fields.text(alert, "resolution")
    if resolution:
        state = f"{state or 'resolved'}: {resolution}"
    found = Hit(
        source="github",
        whole=secret or "",
        parts=_decoded(secret) if secret and alert.get("is_base64_encoded") is True else (),
        rule=fields.text(alert, "secret_type"),
        found_at=fields.moment(alert, "created_at"),
        public=_public(alert, repository),
        works=_WORKS.get(fields.text(alert, "validity")),
        status=state,
        lookup="" if secret else fields.text(alert, "url"),
    )
    page = fields.text(alert, "html_url", "url")
    spots = [location, fields.mapping(alert, "first_location_detected"), *fields.objects(alert.get("locations"))]
    places = list(dict.fromkeys(filter(None, (_place(spot, repository) for spot in spots))))
    found.place = f"{places[0]}, {page}" if places and page else page or "".join(places[:1])
    yield found


def _place(location: Mapping[str, object], repository: Mapping[str, object]) -> str:
    """Of a location by itself, or with its kind around it."""
    details = fields.mapping(location, "details") or location
    path = fields.text(details, "path")
    commit = fields.text(details, "commit_sha")
    here = fields.place(path, fields.number(details, "start_line"), commit, within=fields.text(repository, "full_name"))
    return (
        here
        if path or commit
        else next((str(v) for k, v in details.items() if k.endswith("_url") and isinstance(v, str)), "")
    )


def _public(alert: Mapping[str, object], repository: Mapping[str, object]) -> bool | None:
    """A leak that GitHub saw in a public repository, or an alert of one that is public itself."""
    leaked, private = fields.yes_or_no(alert, "publicly_leaked"), fields.yes_or_no(repository, "private")
    if leaked or private is False:
        return True
    return False if leaked is False and private else None


def _decoded(secret: str) -> tuple[str, ...]:
    if len(secret) > LONGEST:
        return ()
    try:
        return (base64.b64decode(secret, validate=True).decode(),)
    except (binascii.Error, ValueError):
        return ()
