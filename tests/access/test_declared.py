"""`allowedCidrs` and `allowedVpces` in a stack: what is declared, what is refused, and how it travels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.pulumi.rotated_secret import RotatedSecretProvider, inputs, policy_of
from rotation import policy as policies
from rotation.config import parse
from rotation.declared import ConfigError
from rotation.provision import diff
from tests.access.life import declared

ROLE = "arn:aws:iam::333333333333:role/keyturn"
AWS = {"kind": "aws-secrets-manager", "region": "eu-west-1", "roleArn": ROLE}
OTHER = {"kind": "aws-secrets-manager", "region": "eu-central-1", "exemptRoles": [ROLE]}
VAULT = {"kind": "hashicorp-vault", "address": "https://vault.example:8200"}
AZURE = {"kind": "azure-key-vault", "vaultUrl": "https://acme.vault.azure.net"}
PUBLIC, ENDPOINT = "198.51.100.0/24", "vpce-0a1b2c3d4e5f60718"


def faults(stores: dict[str, Any], **about: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(declared(stores, **about))
    return [str(fault).removeprefix("keyturn:secrets[0].") for fault in caught.value.faults]


def test_networks_are_normalised_and_written_with_the_policy() -> None:
    """As the standard library writes them; what is applied reads back the same; a change is one in place."""
    given = {"allowedCidrs": ["198.51.100.7", "2001:DB8:0::/48"], "allowedVpces": [ENDPOINT]}
    (policy, plain) = parse(declared({"aws": AWS, "other": OTHER}, **given)).policies
    assert policy.allowed_cidrs == ("198.51.100.7/32", "2001:db8::/48")
    strings = policies.written(policy)
    assert (strings["allowed-cidrs"], strings["allowed-vpces"]) == ("198.51.100.7/32 2001:db8::/48", ENDPOINT)
    assert policies.read(strings) == policy
    assert not {"allowed-cidrs", "allowed-vpces"} & policies.written(plain).keys()
    assert policy_of(inputs(policy)) == policy
    changed = parse(declared({"aws": AWS, "other": OTHER}, allowedCidrs=[PUBLIC])).policies[0]
    found = diff(policy, changed)
    assert (set(found.changes), found.replaces) == ({"allowed_cidrs", "allowed_vpces"}, ())


def test_a_state_from_before_says_nothing_of_networks() -> None:
    """What an earlier release wrote into Pulumi's state reads as: from anywhere."""
    policy = parse(declared({"aws": AWS})).policies[0]
    old = {name: value for name, value in inputs(policy).items() if name not in ("allowedCidrs", "allowedVpces")}
    assert policy_of(old) == policy


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["everywhere"], "has something that is no network"),
        (["198.51.100.1/24"], "has something that is no network, or one with bits set beyond its length"),
        ([7], "has something that is no network"),
        (["0.0.0.0/0"], "has 0.0.0.0/0, which lets everybody in"),
        (["::/0"], "has ::/0, which lets everybody in"),
        ([PUBLIC, PUBLIC], f"names {PUBLIC} twice"),
    ],
)
def test_what_is_no_network_is_refused(given: list[Any], told: str) -> None:
    """With what is wrong about it."""
    (fault,) = faults({"aws": AWS}, allowedCidrs=given)
    assert fault.startswith(f"allowedCidrs: {told}")


def test_what_is_no_endpoint_is_refused() -> None:
    """The id of a VPC endpoint, not that of a VPC."""
    (fault,) = faults({"aws": AWS}, allowedVpces=["vpc-0a1b2c3d"])
    assert fault.startswith("allowedVpces[0]: has the wrong form")


@pytest.mark.parametrize(
    ("stores", "given", "told"),
    [
        ({"azure": AZURE}, "allowedCidrs", "can not be kept by azure: a Key Vault's firewall is the whole vault's"),
        ({"azure": AZURE}, "allowedVpces", "can not be kept by azure: a Key Vault's firewall is the whole vault's"),
        ({"vault": VAULT}, "allowedVpces", "can not be kept by vault: Vault knows addresses, not endpoints of AWS"),
        ({"aws": AWS, "vault": VAULT}, "allowedVpces", "can not be kept by vault"),
        ({"aws": AWS, "azure": AZURE}, "allowedCidrs", "can not be kept by azure"),
    ],
)
def test_a_store_that_can_not_keep_it_is_named(stores: dict[str, Any], given: str, told: str) -> None:
    """The primary or a replica: a wall with a hole is none."""
    value = [PUBLIC] if given == "allowedCidrs" else [ENDPOINT]
    (fault,) = faults(stores, grace="1h", **{given: value})
    assert fault.startswith(f"{given}: {told}")


@pytest.mark.parametrize("given", ["allowedCidrs", "allowedVpces"])
def test_somebody_must_be_exempt(given: str) -> None:
    """Where nobody is known to rotate, rotation would lock itself out."""
    bare = {"kind": "aws-secrets-manager", "region": "eu-west-1"}
    value = [PUBLIC] if given == "allowedCidrs" else [ENDPOINT]
    (fault,) = faults({"aws": bare}, **{given: value})
    assert "needs to know who rotates in aws" in fault
    assert fault.endswith("allowed: together with roleArn or exemptRoles in stores.aws")
    parse(declared({"aws": OTHER}, **{given: value}))


def test_private_addresses_alone_let_nobody_in() -> None:
    """Secrets Manager sees public ones. Vault sees what connects to it, so there they may be all."""
    (fault,) = faults({"aws": AWS}, allowedCidrs=["10.0.0.0/8", "fd00::/8"])
    assert fault.startswith("allowedCidrs: has private addresses only, and aws sees public ones")
    parse(declared({"aws": AWS}, allowedCidrs=["10.0.0.0/8", PUBLIC]))
    parse(declared({"aws": AWS}, allowedCidrs=["10.0.0.0/8"], allowedVpces=[ENDPOINT]))
    parse(declared({"vault": VAULT}, allowedCidrs=["10.0.0.0/8"]))


def test_networks_that_no_metadata_holds_are_refused() -> None:
    """One value of Vault's custom metadata has 512 bytes."""
    many = [f"198.51.100.{number}/32" for number in range(0, 80, 2)]
    (fault,) = faults({"vault": VAULT}, allowedCidrs=many)
    assert "characters in the store's metadata; allowed: at most 512" in fault


class Request:
    """What Pulumi hands to a provider."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = {f"keyturn:{key}": json.dumps(value) for key, value in config.items()}


@pytest.mark.parametrize(("store", "property_"), [(AWS, None), (AZURE, "allowedCidrs")])
def test_a_preview_refuses_what_the_file_would(store: dict[str, Any], property_: str | None) -> None:
    """The resource's own check, with the name of its input."""
    policy = parse(declared({"main": AWS}, allowedCidrs=[PUBLIC])).policies[0]
    provider = RotatedSecretProvider()
    provider.configure(Request(declared({"main": store})))  # type: ignore[arg-type]
    props = {**inputs(policy), "bootstrap": "apply", "adopt": False, "adoptKeyId": "", "forceRevoke": False}
    failures = provider.check({}, props).failures
    assert [failure.property for failure in failures] == ([property_] if property_ else [])
