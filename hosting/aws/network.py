"""A network of its own for the function: it leaves by fixed addresses, and reaches AWS's services without leaving.

    function ─ private subnet, one a zone ─┬─► VPC endpoints: Secrets Manager, SQS, KMS, STS, SNS, logs
                                           └─► NAT gateway with an Elastic IP ─► issuers, Vault

It costs by the hour, used or not: each NAT gateway, and each endpoint in each zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import rights
from settings import Network

SERVICES: Final = ("secretsmanager", "sqs", "kms", "sts", "sns", "logs")
"""What the function calls by itself; all of them have interface endpoints."""
_SUBNET_BITS: Final = 4
"""A sixteenth of the range for each subnet: private ones from its start, public ones from its middle."""


class Private(pulumi.ComponentResource):
    """The network. `subnets` and `group` are what the function is put into, `addresses` what allowlists are told."""

    def __init__(
        self, name: str, about: Network, region: str, account: str, ports: Sequence[int], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("keyturn:aws:Private", name, None, opts)
        self._below: Final = pulumi.ResourceOptions(parent=self)
        self._title: Final = name
        self._vpc: Final = aws.ec2.Vpc(
            name,
            cidr_block=about.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=self._tag(),
            opts=self._below,
        )
        found = aws.get_availability_zones_output(state="available", opts=pulumi.InvokeOptions(parent=self))
        cuts = list(ip_network(about.cidr).subnets(_SUBNET_BITS))
        gateway = aws.ec2.InternetGateway(name, vpc_id=self._vpc.id, tags=self._tag(), opts=self._below)
        outside = self._table("public", gateway_id=gateway.id)
        public = [
            self._subnet(f"public-{n}", cuts[n + len(cuts) // 2], found.names[n], outside)
            for n in range(min(about.addresses, about.zones))
        ]
        nats = [self._nat(f"{name}-{n}", subnet, gateway) for n, subnet in enumerate(public)]
        tables = [self._table(f"private-{n}", nat_gateway_id=nat.id) for n, nat in enumerate(nats)]
        self.subnets: Final = [
            self._subnet(f"private-{n}", cuts[n], found.names[n], tables[n % len(tables)]) for n in range(about.zones)
        ]
        self.group: Final = aws.ec2.SecurityGroup(
            f"{name}-function",
            vpc_id=self._vpc.id,
            description="Keyturn's function: it is called by nobody, and calls stores and issuers.",
            egress=[_to(port, cidr_blocks=["0.0.0.0/0"]) for port in ports],
            tags=self._tag("function"),
            opts=self._below,
        )
        if about.endpoints:
            self._endpoints(region, account)
        self.addresses: Final = [nat.public_ip for nat in nats]
        self.register_outputs({"addresses": self.addresses})

    def _tag(self, part: str = "") -> dict[str, str]:
        return {"Name": f"{self._title}-{part}".rstrip("-")}

    def _table(self, part: str, **route: Any) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            f"{self._title}-{part}",
            vpc_id=self._vpc.id,
            routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", **route)],
            tags=self._tag(part),
            opts=self._below,
        )

    def _subnet(self, part: str, cidr: Any, zone: pulumi.Input[str], table: aws.ec2.RouteTable) -> aws.ec2.Subnet:
        name = f"{self._title}-{part}"
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=self._vpc.id,
            cidr_block=str(cidr),
            availability_zone=zone,
            map_public_ip_on_launch=False,
            tags=self._tag(part),
            opts=self._below,
        )
        aws.ec2.RouteTableAssociation(name, subnet_id=subnet.id, route_table_id=table.id, opts=self._below)
        return subnet

    def _nat(self, name: str, subnet: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway) -> aws.ec2.NatGateway:
        # Others have it in their allowlists: AWS would give it to somebody else.
        kept = pulumi.ResourceOptions(parent=self, protect=True, depends_on=[gateway])
        address = aws.ec2.Eip(name, domain="vpc", tags={"Name": name}, opts=kept)
        return aws.ec2.NatGateway(
            name, subnet_id=subnet.id, allocation_id=address.id, tags={"Name": name}, opts=self._below
        )

    def _endpoints(self, region: str, account: str) -> None:
        group = aws.ec2.SecurityGroup(
            f"{self._title}-endpoints",
            vpc_id=self._vpc.id,
            description="AWS's services, for Keyturn's function alone.",
            ingress=[
                aws.ec2.SecurityGroupIngressArgs(
                    protocol="tcp", from_port=443, to_port=443, security_groups=[self.group.id]
                )
            ],
            tags=self._tag("endpoints"),
            opts=self._below,
        )
        # What is ours is said by roles; here only that nobody brings a login of somebody else's along.
        ours = {
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": "*",
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:PrincipalAccount": account}},
        }
        for service in SERVICES:
            aws.ec2.VpcEndpoint(
                f"{self._title}-{service}",
                vpc_id=self._vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[subnet.id for subnet in self.subnets],
                security_group_ids=[group.id],
                policy=rights.text(ours),
                tags=self._tag(service),
                opts=self._below,
            )


def _to(port: int, **where: Any) -> aws.ec2.SecurityGroupEgressArgs:
    return aws.ec2.SecurityGroupEgressArgs(protocol="tcp", from_port=port, to_port=port, **where)
