"""Who may do what: the rights that `keyturn policy aws --for rotate` prints, and what the function's own surroundings take."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from providers.access import aws as words
from providers.pulumi.settings import fail
from rotation.access import Persona, needs, works_with
from rotation.config import Config, IamConfig, SecretsManagerConfig

Document = dict[str, Any]

MOST_POLICIES: Final = 10
"""Managed policies of one role (IAM quotas)."""


def generated(config: Config) -> dict[str | None, Document]:
    """What rotating the stack takes, by the role that it is done as; None for the function's own.

    Ends the program where it is more than a role can hold.
    """
    mints = config.bootstrap == "apply"
    found = needs(config, Persona.ROTATE, config.policies, mints=mints)
    stores = [
        (name, about, found[name])
        for name, about in config.stores.items()
        if isinstance(about, SecretsManagerConfig) and name in found
    ]
    issuers = [
        (name, config.issuers[name]) for name in sorted(works_with(Persona.ROTATE, config.policies, mints=mints))
    ]
    users = [(name, about) for name, about in issuers if isinstance(about, IamConfig)]
    roles = dict.fromkeys([about.role_arn for _, about, _ in stores] + [about.role_arn for _, about in users])
    documents = {
        role: words.document(
            [part for part in stores if part[1].role_arn == role], [part for part in users if part[1].role_arn == role]
        )
        for role in roles
    }
    for role, document in documents.items():
        if (parts := len(portions(document))) > MOST_POLICIES:
            told = (
                f"the rights of {role or 'the function'} take {parts} policies, and a role has {MOST_POLICIES} at most"
            )
            fail(f"{told}: divide the stack")
    return documents


def portions(document: Document) -> list[Document]:
    """The same statements in as many documents as IAM's limit on the length of one makes necessary."""
    found: list[list[Document]] = [[]]
    for statement in document["Statement"]:
        for piece in _pieces(statement):
            if words.size(_document([*found[-1], piece])) > words.MOST_CHARACTERS:
                found.append([])
            found[-1].append(piece)
    return [_document(statements) for statements in found if statements]


def _pieces(statement: Document) -> Iterator[Document]:
    """Halves of a statement, until each fits into a document: of one with many resources, each resource stands alone."""
    resources = statement["Resource"]
    if words.size(_document([statement])) <= words.MOST_CHARACTERS or len(resources) == 1:
        yield statement
        return
    middle = len(resources) // 2
    for suffix, half in (("a", resources[:middle]), ("b", resources[middle:])):
        yield from _pieces(statement | {"Sid": statement["Sid"] + suffix, "Resource": half})


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}


def allow(sid: str, actions: Collection[str], *resources: Any, **condition: Any) -> Document:
    """A statement."""
    found = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": [*resources]}
    return found | ({"Condition": condition} if condition else {})


def text(*statements: Mapping[str, Any]) -> pulumi.Output[str]:
    """A document of statements with outputs in them."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [*statements]})


def trust(principal: Mapping[str, Any], **condition: Any) -> Document:
    """Who may take a role on."""
    found = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": dict(principal)}
    return found | ({"Condition": condition} if condition else {})


def service(name: str, account: str) -> Document:
    """A service may take a role on, for resources of this account alone."""
    return trust({"Service": f"{name}.amazonaws.com"}, StringEquals={"aws:SourceAccount": account})


class Rotates(pulumi.ComponentResource):
    """The role of the function, and those that it rotates as, each with the generated rights and no other.

    Parameters:
        documents: as of generated().
        trusted: ARNs of others who may assume the roles that are made for the stack file.
        makes: make such roles; else their rights are `elsewhere`, for somebody to give.
    """

    def __init__(
        self,
        name: str,
        documents: Mapping[str | None, Document],
        account: str,
        trusted: list[str],
        *,
        makes: bool,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("keyturn:aws:Rotates", name, None, opts)
        below = pulumi.ResourceOptions(parent=self)
        self.own: Final = aws.iam.Role(
            f"{name}-function",
            name=f"{name}-function",
            description="Runs Keyturn. Assumes what the stack file names.",
            assume_role_policy=text(trust({"Service": "lambda.amazonaws.com"})),
            opts=below,
        )
        self.assumed = [role for role in documents if role is not None]
        self.granted = self._grant(name, "function", self.own, documents.get(None))
        self.elsewhere: dict[str, Document] = {}
        for arn, document in documents.items():
            if arn is None:
                continue
            title = arn.rpartition("/")[2]
            if not makes or arn.split(":")[4] != account:
                self.elsewhere[arn] = document
                # Also what a login in the wrong account looks like.
                pulumi.log.warn(f"{arn} is not made here, in account {account}: give it the rights of `rightsToGrant`")
                continue
            path = f"/{arn.partition(':role/')[2].removesuffix(title)}"
            role = aws.iam.Role(
                title,
                name=title,
                path=path,
                description="Rotates what Keyturn's stack declares.",
                assume_role_policy=text(trust({"AWS": [self.own.arn, *trusted]})),
                opts=below,
            )
            self.granted += self._grant(name, title, role, document)
        self.register_outputs({"own": self.own.arn})

    def _grant(self, name: str, title: str, role: aws.iam.Role, document: Document | None) -> list[pulumi.Resource]:
        found: list[pulumi.Resource] = []
        for number, part in enumerate(portions(document) if document else [], 1):
            called = f"{name}-{title}-{number}"
            policy = aws.iam.Policy(
                called,
                name=called,
                description="Written as `keyturn policy aws --for rotate`.",
                policy=json.dumps(part),
                opts=pulumi.ResourceOptions(parent=role),
            )
            attached = aws.iam.RolePolicyAttachment(
                called, role=role.name, policy_arn=policy.arn, opts=pulumi.ResourceOptions(parent=policy)
            )
            found.append(attached)
        return found
