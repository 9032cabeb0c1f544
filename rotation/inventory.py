"""What the stores hold of one installation and environment: every managed secret, declared or not."""

from __future__ import annotations

from collections.abc import Mapping

from rotation.assembly import Assembly
from rotation.declared import Config
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.model import Policy
from rotation.policy import read as read_policy


def managed(assembly: Assembly, file: str = "the stack file") -> tuple[list[tuple[Target, Policy]], list[Trouble]]:
    """Every secret of this installation and environment that a store has, by its applied policy.

    Parameters:
        file: what messages call the configuration.

    Returns:
        The secrets, and what stood in the way of finding others: a store that does not answer, an
        entry that can not be read. Neither holds up the rest.
    """
    found: dict[Target, Policy] = {}
    troubles: list[Trouble] = []
    for store in assembly.stores:
        try:
            for listed in assembly.stores[store].listing():
                try:
                    policy = applied(assembly.config, file, store, listed.name, listed.policy)
                except Trouble as trouble:
                    troubles.append(trouble)
                    continue
                if policy is not None and policy.store == store:
                    found.setdefault(Target(store, listed.name), policy)
        except Trouble as trouble:
            troubles.append(trouble)
    return list(found.items()), troubles


def applied(config: Config, file: str, store: str, entry: str, facts: Mapping[str, str]) -> Policy | None:
    """The policy that is applied to a listed entry, which may be a replica's; None: it is not of this environment.

    Raises:
        Trouble: INVALID; it can not be read, or names an issuer that the configuration lacks.
    """
    ours = {"installation": config.installation, "environment": config.environment}
    if any(facts.get(key) != value for key, value in ours.items()):
        return None
    try:
        policy = read_policy(facts)
    except ValueError as error:
        raise Trouble(Code.INVALID, store, f"{entry}: {error}; apply the stack again") from None
    # Of a replica the primary tells.
    if policy.store == store and policy.issuer not in config.issuers:
        told = f"{entry}: is applied with the issuer {policy.issuer}, which {file} lacks"
        raise Trouble(Code.INVALID, store, told)
    return policy
