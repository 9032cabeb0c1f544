"""IAM policies for Secrets Manager, and for the access keys of IAM users: what a persona needs, as a document to attach.

Facts from the Service Authorization Reference and the user guide of Secrets Manager (2026): an entry's ARN ends in six
random characters, hence `-??????`. A name that the service does not have is judged by the ARN without them, so that
whoever must learn that an entry is missing needs DescribeSecret on that, too. A new entry's ARN is judged as it will be;
`secretsmanager:Name` names it exactly. BatchGetSecretValue and ListSecrets can not be limited to entries. Tags of a new
entry take TagResource. `aws:TagKeys` limits the keys that a call may add or remove.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from providers.issuers import iam
from providers.stores.aws import ANYWHERE, CALLS, JOURNAL_TAGS, NATIVE, POLICY_TAGS, REPLICATED, RESTRICTED
from rotation.access import Access, Grant
from rotation.config import IamConfig, SecretsManagerConfig

Statement = dict[str, Any]

MOST_CHARACTERS: Final = 6144
"""Of a managed policy, white space not counted (IAM quotas)."""

_SERVICE: Final = "secretsmanager:"
_TAGGING: Final = ("TagResource", "UntagResource")
_SPECIAL: Final = {*ANYWHERE, *_TAGGING, "CreateSecret"}
"""Calls with a statement of their own."""
_VALUES_IN: Final = {"stage", "create"}
_VALUES_OUT: Final = {"read", "read_many", "current", "find"}
"""Operations that have the service encrypt, or decrypt."""
_LOOKS: Final = {"observe", "applied"}
"""Operations whose answer may be that there is no such entry."""


def document(
    stores: Iterable[tuple[str, SecretsManagerConfig, Access]], users: Iterable[tuple[str, IamConfig]] = ()
) -> dict[str, Any]:
    """An identity policy.

    Parameters:
        stores: configured name, configuration, need.
        users: whose access keys are made and ended: name and configuration of their issuers.
    """
    sites = [(_Site(name, store), access) for name, store, access in stores]
    everywhere = {call for site, access in sites for grant in access.grants for call in site.calls(grant)} & {*ANYWHERE}
    everywhere |= {call for _, access in sites for call in CALLS["listing"] if access.lists}
    found = [_allow("Anywhere", everywhere, ["*"])] if everywhere else []
    found += [statement for site, access in sites for statement in _statements(site, access)]
    found += [_keys_of(name, user) for name, user in users]
    return {"Version": "2012-10-17", "Statement": found}


def _keys_of(name: str, about: IamConfig) -> Statement:
    """All four calls on keys are judged by the user's ARN, and so is GetAccessKeyLastUsed, which takes no user.

    To verify takes no right, and no policy can forbid it (STS, GetCallerIdentity).
    """
    arn = (about.role_arn or f"arn:{_partition(about.region)}:iam::*:").split(":")
    calls = {call for needed in iam.CALLS.values() for call in needed}
    resource = f"arn:{arn[1]}:iam::{arn[4]}:user{about.path}{about.user}"
    return _allow(f"{_title(name)}Keys", calls, [resource], service="iam:")


def size(policy: Mapping[str, Any]) -> int:
    """Characters as IAM counts them."""
    return len("".join(json.dumps(policy).split()))


def _statements(site: _Site, access: Access) -> Iterator[Statement]:
    grants = [(grant, site.calls(grant)) for grant in access.grants]
    if created := [grant.entry for grant, calls in grants if "CreateSecret" in calls]:
        only = {"StringEquals": {"secretsmanager:Name": created}}
        yield site.allow("Create", {"CreateSecret"}, [site.arn(f"{entry}-*") for entry in created], only)
    for number, (key, entries) in enumerate(_grouped((site.plain(grant), grant) for grant, _ in grants).items(), 1):
        calls, only_current = key
        condition = _CURRENT_ONLY if only_current else None
        if calls:
            arns = [site.arn(f"{grant.entry}-??????") for grant in entries]
            yield site.allow(f"Entries{number}", set(calls), arns, condition)
    if missing := [site.arn(grant.entry) for grant, _ in grants if grant.operations & _LOOKS]:
        yield site.allow("Missing", {"DescribeSecret"}, missing)
    for call in _TAGGING:
        tagged = ((site.tags(grant, call), grant) for grant, _ in grants)
        for number, (keys, entries) in enumerate(_grouped(tagged).items(), 1):
            if keys:
                limit = {"ForAllValues:StringLike": {"aws:TagKeys": list(keys)}}
                arns = [site.arn(f"{grant.entry}-??????") for grant in entries]
                yield site.allow(f"{call.removesuffix('Resource')}{number}", {call}, arns, limit)
    if any("RotateSecret" in calls for _, calls in grants):
        yield site.function()
    yield from site.key(access)


_CURRENT_ONLY: Final = {
    "StringEqualsIfExists": {"secretsmanager:VersionStage": "AWSCURRENT"},
    "Null": {"secretsmanager:VersionId": "true"},
}
"""A call that names neither stage nor version gives what is current; one that names another is refused."""


def _grouped(pairs: Iterable[tuple[Any, Grant]]) -> dict[Any, list[Grant]]:
    groups: dict[Any, list[Grant]] = {}
    for key, grant in pairs:
        groups.setdefault(key, []).append(grant)
    return groups


class _Site:
    """One store: how its entries and its key are called."""

    def __init__(self, name: str, store: SecretsManagerConfig) -> None:
        self._title = _title(name)
        self._store = store
        arn = (store.role_arn or "").split(":")
        self._partition = arn[1] if store.role_arn else _partition(store.region)
        self._account = arn[4] if store.role_arn else "*"

    def arn(self, entry: str) -> str:
        return f"arn:{self._partition}:secretsmanager:{self._store.region}:{self._account}:secret:{entry}"

    def calls(self, grant: Grant) -> set[str]:
        tables = [CALLS]
        tables += [REPLICATED] if self._store.replica_regions else []
        tables += [RESTRICTED] if grant.restricted else []
        tables += [NATIVE] if grant.native else []
        return {call for table in tables for operation in grant.operations for call in table.get(operation, ())}

    def plain(self, grant: Grant) -> tuple[tuple[str, ...], bool]:
        """The calls that take no condition but, for a consumer, that it is about what is current."""
        return tuple(sorted(self.calls(grant) - _SPECIAL)), grant.operations == {"current"}

    @staticmethod
    def tags(grant: Grant, call: str) -> tuple[str, ...]:
        """Patterns of the tags that a call of an entry's operations may touch."""
        touching = {operation for operation in grant.operations if call in CALLS.get(operation, ())}
        patterns = JOURNAL_TAGS if touching & {"record", "forget"} else ()
        return patterns + ((*POLICY_TAGS, *grant.tags) if touching & {"create", "set_policy"} else ())

    def function(self) -> Statement:
        """What the service is told to call must be callable for whoever tells it."""
        assert self._store.rotation_function, "a checked configuration names one wherever the service rotates"
        return self.allow("Function", {"InvokeFunction"}, [self._store.rotation_function], service="lambda:")

    def key(self, access: Access) -> Iterator[Statement]:
        """Using the key that entries are encrypted with, through the service alone."""
        done = {operation for grant in access.grants for operation in grant.operations}
        calls = {"Decrypt"} if done & (_VALUES_IN | _VALUES_OUT) else set()
        calls |= {"GenerateDataKey"} if done & _VALUES_IN else set()
        if not (key := self._store.kms_key_id) or not calls:
            return
        host = "amazonaws.com.cn" if self._partition == "aws-cn" else "amazonaws.com"
        only: dict[str, Any] = {
            "StringEquals": {"kms:ViaService": f"secretsmanager.{self._store.region}.{host}"},
        }
        keys = f"arn:{self._partition}:kms:{self._store.region}:{self._account}:key/"
        alias = key if key.startswith("alias/") else key.rpartition(":")[2] if ":alias/" in key else ""
        if alias:
            # IAM does not take an alias for a resource.
            only["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": alias}
        resource = keys + "*" if alias else key if key.startswith("arn:") else keys + key
        yield self.allow("Key", calls, [resource], only, service="kms:")

    def allow(
        self,
        what: str,
        calls: set[str],
        resources: list[str],
        condition: Mapping[str, Any] | None = None,
        *,
        service: str = _SERVICE,
    ) -> Statement:
        return _allow(self._title + what, calls, resources, condition, service=service)


def _partition(region: str) -> str:
    by_region = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
    return next((part for start, part in by_region.items() if region.startswith(f"{start}-")), "aws")


def _title(name: str) -> str:
    return "".join(part.title() for part in name.split("-"))


def _allow(
    sid: str,
    calls: set[str],
    resources: list[str],
    condition: Mapping[str, Any] | None = None,
    *,
    service: str = _SERVICE,
) -> Statement:
    actions = [service + call for call in sorted(calls)]
    found = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return found | ({"Condition": dict(condition)} if condition else {})
