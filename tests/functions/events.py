"""Events as Event Grid posts them, written after its published schemas, the oddities of its samples included."""

from __future__ import annotations

import json
from typing import Any

VAULT = "acme-prod"
SUBSCRIPTION = "/subscriptions/5eed0000-0000-4000-8000-000000000001/resourceGroups/secrets-rg"
TOPIC = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault/vaults/{VAULT}"
VERSION = "ee059b2bb5bc48398a53b168c6cdcb10"
NEAR, EXPIRED, NEW = (f"Microsoft.KeyVault.Secret{kind}" for kind in ("NearExpiry", "Expired", "NewVersionCreated"))


def data(entry: str, *, host: str = f"{VAULT}.vault.azure.net", vault: str = VAULT, **changed: Any) -> dict[str, Any]:
    """As the service's own events have it today."""
    return {
        "Id": f"https://{host}/secrets/{entry}/{VERSION}",
        "VaultName": vault,
        "ObjectType": "Secret",
        "ObjectName": entry,
        "Version": VERSION,
        "NBF": None,
        "EXP": 1798761600,
    } | changed


def odd_data(entry: str, *, host: str = f"{VAULT}.vault.azure.net", vault: str = VAULT) -> dict[str, Any]:
    """As the published sample has it: other case, a blank after a name and before a version, numbers as text."""
    return {
        "Id": f"https://{host}/secrets/{entry}/{VERSION}",
        "vaultName": vault,
        "objectType": "Secret",
        "objectName ": entry,
        "version": f" {VERSION}",
        "nbf": "1559081980",
        "exp": "1798761600",
    }


def event(kind: str, about: dict[str, Any], subject: str, **changed: Any) -> dict[str, Any]:
    """In Event Grid's own envelope."""
    return {
        "id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64",
        "topic": TOPIC,
        "subject": subject,
        "eventType": kind,
        "eventTime": "2026-07-25T01:08:33.1036736Z",
        "data": about,
        "dataVersion": "1",
        "metadataVersion": "1",
    } | changed


def cloud_event(kind: str, about: dict[str, Any], subject: str, **changed: Any) -> dict[str, Any]:
    """In the envelope of CloudEvents 1.0."""
    return {
        "id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64",
        "source": TOPIC,
        "subject": subject,
        "type": kind,
        "time": "2026-07-25T01:08:33.1036736Z",
        "data": about,
        "specversion": "1.0",
    } | changed


def validation(code: str = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6") -> dict[str, Any]:
    """What Event Grid sends before a subscription in its own envelope begins."""
    url = "https://rp-westeurope.eventgrid.azure.net:553/eventsubscriptions/keyturn/validate?id=0"
    return {
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
        "topic": TOPIC,
        "subject": "",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2026-01-25T22:12:19.4556811Z",
        "metadataVersion": "1",
        "dataVersion": "2",
        "data": {"validationCode": code, "validationUrl": url},
    }


def body(*events: object) -> bytes:
    """As it is posted: an array."""
    return json.dumps(list(events)).encode()
