"""What a secret must be like so that its store's own service can rotate it, by calling our function step by step.

The service knows an interval and nothing else, gives each step one run of a function, and knows no pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

from rotation.model import Capabilities, Model, Policy, Schedule
from rotation.policy import show_duration

LONGEST_STEP: Final = timedelta(minutes=10)
"""For a new credential to be known everywhere: a run of a Lambda function ends after 15 minutes ("Lambda quotas"), and
what else a step does needs its time, too."""


def interval(policy: Policy) -> timedelta:
    """How often the service is to rotate it."""
    return policy.schedule.every or policy.rotate_every


def faults(policy: Policy, issuer: Capabilities | None) -> Iterator[tuple[str, str, str]]:
    """Why the service can not rotate a secret: the field, what is wrong, and what is allowed.

    Parameters:
        policy: as declared.
        issuer: what its issuer can do; None while that is not known.
    """
    instead = "or a store with rotation: direct"
    if interval(policy) % timedelta(hours=1):
        told = f"{show_duration(interval(policy))} is no interval for {policy.store}, whose service rotates natively"
        yield "rotateEvery", told, f"whole hours, {instead}"
    if replace(policy.schedule, every=None, zone="UTC", overrides=Schedule().overrides) != Schedule():
        told = f"{policy.store} rotates natively, and its service knows an interval only"
        yield "schedule", told, f"rotateEvery alone, {instead}"
    if policy.paired_with is not None:
        told = f"{policy.store} rotates natively, and its service would rotate both of a pair in one window"
        yield "pairedWith", told, f"no pair, {instead}"
    if issuer is None:
        return
    if issuer.model is Model.MANUAL:
        yield "issuer", f"{policy.issuer} needs a person, and {policy.store} rotates natively", f"another, {instead}"
    elif issuer.create.timeout > LONGEST_STEP:
        takes = show_duration(issuer.create.timeout)
        told = f"{policy.issuer} may take {takes} to know a new credential, longer than one run of a function has"
        yield "issuer", told, f"one that takes at most {show_duration(LONGEST_STEP)}, {instead}"
