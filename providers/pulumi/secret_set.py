"""`SecretSet`: the two keys of one service in one environment, as one component. People wait for the one, background work uses the other.

Two keys, so that a batch that runs wild or a rotation that goes wrong stops one of them at most. They are paired both ways
and share one schedule: by the windows that they have in common they take turns. Names follow
`<service>-<purpose>`. The component adds nothing to the state but its own name: outputs are ids and
names of entries, which no rotation changes.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import pulumi

from providers.pulumi.rotated_secret import RotatedSecret, inputs, section
from rotation import names
from rotation.model import Consumer, Drain, Ending, Policy, Schedule


@dataclass(frozen=True, slots=True)
class Member:
    """One of the two keys, and what it says for itself; None takes what the set says.

    It has no schedule, age or pair of its own: what the two share lets them take turns.
    """

    purpose: str
    """What follows the service in the name: `chat` in `support-copilot-chat`. Lower case letters, digits and '-'."""
    _: KW_ONLY
    consumers: tuple[Consumer, ...] = ()
    """Who reads it, and how soon each reads it again after a rotation; never longer than `grace`."""
    store: str | None = None
    """The primary store, by its name under `keyturn:stores`."""
    replicas: tuple[str, ...] | None = None
    """Further stores that hold the same credential, by name."""
    issuer: str | None = None
    """What mints it, by its name under `keyturn:issuers`."""
    owner: str | None = None
    """Who is told, by the name under `keyturn:owners`."""
    grace: timedelta | None = None
    """For how long the old credential is accepted at least after the new one is current."""
    quiet_for: timedelta | None = None
    """How long the issuer must have seen no use of the old credential before it is revoked."""
    at_most: timedelta | None = None
    """When draining ends, whoever still uses the old credential; at least `grace` and `quiet_for`."""
    then: Ending | None = None
    """What is done then: `Ending.HOLD` keeps it and tells the owner, `Ending.REVOKE` ends it."""
    contain_after: timedelta | None = None
    """In an emergency: what is not replaced by then is revoked all the same."""
    form: str | None = None
    """How stores hold it, as in the input `format` of a RotatedSecret: `json TOKEN=value`; empty for the issuer's own fields."""
    tags: tuple[tuple[str, str], ...] | None = None
    """The entry's tags, by name; instead of those of the set, not beside them."""
    allowed_cidrs: tuple[str, ...] | None = None
    """Networks that its value may be read from, as in 198.51.100.0/24."""
    allowed_vpces: tuple[str, ...] | None = None
    """Ids of VPC endpoints of AWS that its value may be read through."""
    smoke_test: bool | None = None
    """A new credential must also answer one minimal real request before it is promoted."""
    adopt: bool = False
    """An entry that is there and that nobody manages is taken over, with its value; see RotatedSecret."""
    adopt_key_id: str | None = None
    """The issuer's id of the value that is adopted."""
    force_revoke: bool = False
    """Deleting it revokes its keys although they are in use, or may be."""


def policies(
    service: str,
    *,
    installation: str,
    environment: str,
    store: str,
    issuer: str,
    owner: str,
    rotate_every: timedelta,
    user_facing: Member,
    background: Member,
    schedule: Schedule = Schedule(),  # noqa: B008 - frozen
    replicas: tuple[str, ...] = (),
    grace: timedelta = timedelta(hours=24),
    drain: Drain = Drain(),  # noqa: B008 - frozen
    contain_after: timedelta = timedelta(minutes=5),
    tags: tuple[tuple[str, str], ...] = (),
    allowed_cidrs: tuple[str, ...] = (),
    allowed_vpces: tuple[str, ...] = (),
    smoke_test: bool = False,
) -> tuple[Policy, Policy]:
    """The policies of the two, user-facing first. Pure; parameters are those of SecretSet.

    Raises:
        ValueError: a name does not follow the scheme, both have one, or two on this schedule can not take
            turns; with the member, and what is allowed. All else is judged when the resources are checked.
    """
    found = []
    called = [f"{service}-{member.purpose}" for member in (user_facing, background)]
    for member, name, other in zip((user_facing, background), called, reversed(called), strict=True):
        if fault := names.name_fault(name):
            raise ValueError(f"{name}: {fault}")
        if name == other:
            raise ValueError(f"{name} is the name of both members; each needs a purpose of its own")
        found.append(
            Policy(
                installation=installation,
                environment=environment,
                name=name,
                store=_first(member.store, store),
                replicas=_first(member.replicas, replicas),
                issuer=_first(member.issuer, issuer),
                owner=_first(member.owner, owner),
                rotate_every=rotate_every,
                schedule=schedule,
                grace=_first(member.grace, grace),
                drain=Drain(
                    _first(member.quiet_for, drain.quiet_for),
                    _first(member.at_most, drain.at_most),
                    _first(member.then, drain.then),
                ),
                contain_after=_first(member.contain_after, contain_after),
                consumers=member.consumers,
                paired_with=other,
                form=_first(member.form, ""),
                tags=_first(member.tags, tags),
                allowed_cidrs=_first(member.allowed_cidrs, allowed_cidrs),
                allowed_vpces=_first(member.allowed_vpces, allowed_vpces),
                smoke_test=_first(member.smoke_test, smoke_test),
            )
        )
    for policy in found:
        _take_turns(policy)
    return found[0], found[1]


class SecretSet(pulumi.ComponentResource):
    """Two paired secrets of one service: `<service>-<purpose>` for what people wait for, and for background work."""

    user_facing: RotatedSecret
    """The secret that people wait for."""
    background: RotatedSecret
    """The secret of background work."""
    entries: pulumi.Output[dict[str, str]]
    """For each name the id of its entry, `<store>:<entry>`; rotation never changes it."""

    def __init__(
        self,
        service: str,
        *,
        installation: str,
        environment: str,
        store: str,
        issuer: str,
        owner: str,
        rotate_every: timedelta,
        user_facing: Member,
        background: Member,
        bootstrap: Literal["apply", "function"],
        schedule: Schedule = Schedule(),  # noqa: B008 - frozen
        replicas: tuple[str, ...] = (),
        grace: timedelta = timedelta(hours=24),
        drain: Drain = Drain(),  # noqa: B008 - frozen
        contain_after: timedelta = timedelta(minutes=5),
        tags: tuple[tuple[str, str], ...] = (),
        allowed_cidrs: tuple[str, ...] = (),
        allowed_vpces: tuple[str, ...] = (),
        smoke_test: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """A component with the service's name. What `Member` has too, a member may say for itself.

        Parameters:
            service: starts both names, and is the component's own.
            installation, environment: as in the stack file; `prod` is protected against deletion.
            store, replicas, issuer, owner: by name, as the stack file declares them.
            rotate_every: the age that neither credential may exceed.
            user_facing: the key that people wait for.
            background: the key of everything else.
            bootstrap: who mints first credentials; see RotatedSecret.
            schedule: windows, blackouts and the rest, for both; without one they rotate when their age says so,
                the second after the first has drained.
            grace: for how long an old credential is accepted at least.
            drain: how its end is found.
            contain_after: see Member.
            tags: of both entries.
            allowed_cidrs, allowed_vpces: where values may be read from; see Member.
            smoke_test: see Member.
            opts: Pulumi's own, for the component; `protect` and `provider` reach the two as well.

        Raises:
            ValueError: see policies().
        """
        both = policies(
            service,
            installation=installation,
            environment=environment,
            store=store,
            issuer=issuer,
            owner=owner,
            rotate_every=rotate_every,
            user_facing=user_facing,
            background=background,
            schedule=schedule,
            replicas=replicas,
            grace=grace,
            drain=drain,
            contain_after=contain_after,
            tags=tags,
            allowed_cidrs=allowed_cidrs,
            allowed_vpces=allowed_vpces,
            smoke_test=smoke_test,
        )
        super().__init__("keyturn:index:SecretSet", service, None, opts)
        protect = opts.protect if opts and opts.protect is not None else environment == "prod"
        # One that stood alone in the program keeps its state when it moves into a set.
        alone = pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)
        self.user_facing, self.background = (
            RotatedSecret(
                policy,
                bootstrap=bootstrap,
                adopt=member.adopt,
                adopt_key_id=member.adopt_key_id,
                force_revoke=member.force_revoke,
                opts=pulumi.ResourceOptions(parent=self, protect=protect, aliases=[alone]),
            )
            for member, policy in zip((user_facing, background), both, strict=True)
        )
        ids = {policy.name: one.id for policy, one in zip(both, (self.user_facing, self.background), strict=True)}
        self.entries = pulumi.Output.all(**ids)
        self.register_outputs({"entries": self.entries})


T = TypeVar("T")


def _first(own: T | None, shared: T) -> T:
    return shared if own is None else own


def _take_turns(policy: Policy) -> None:
    """The rules of the configuration for one of a pair: RotatedSecrets are checked one at a time, and can not see them."""
    from rotation import timing  # noqa: PLC0415 - pydantic's models take half a second to load, and only this needs them
    from rotation.sections import SecretSection  # noqa: PLC0415

    declared = SecretSection.model_validate(section(inputs(policy)) | {"pairedWith": policy.paired_with})
    for path, message, allowed in timing.faults(declared, None):
        raise ValueError(f"{policy.name}: {path}: {message}; allowed: {allowed}")
