"""The virtual network: one subnet for nodes or VMs, closed to the internet; Bastion or an SSH allow-list if asked for."""

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pulumi
from pulumi_azure_native import network

from ncdemo.infra.component import Component, Place
from ncdemo.spec.services import Network as NetworkSpec

NODES, BASTION = "snet-nodes", "AzureBastionSubnet"


@dataclass(frozen=True)
class NetworkArgs:
    place: Place
    spec: NetworkSpec
    vms: bool
    """Whether VMs live in it, which SSH and Bastion are for."""


class Network(Component):
    """NSG, virtual network, and Bastion if asked for."""

    KIND = "network"
    subnet_id: pulumi.Output[str]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        place, spec = args.place, args.spec
        nsg = self.make(
            network.NetworkSecurityGroup,
            "nsg",
            network_security_group_name=place.name("nsg"),
            resource_group_name=place.resource_group,
            location=place.location,
            security_rules=[ssh_rule(spec.ssh_from)] if args.vms and spec.ssh_from else [],
            tags=place.tags,
        )
        vnet = self.make(
            network.VirtualNetwork,
            "vnet",
            virtual_network_name=place.name("vnet"),
            resource_group_name=place.resource_group,
            location=place.location,
            address_space=network.AddressSpaceArgs(address_prefixes=[spec.address_space]),
            subnets=subnets(spec, nsg.id, vms=args.vms),
            tags=place.tags,
        )
        if args.vms and spec.bastion != "none":
            self._bastion(place, spec.bastion, vnet.id)
        self.done(subnet_id=pulumi.Output.concat(vnet.id, "/subnets/", NODES))

    def _bastion(self, place: Place, sku: str, vnet_id: pulumi.Output[str]) -> None:
        """Developer is free and shared; Basic is the stack's own, with a public address, and is paid by the hour."""
        where: dict[str, Any] = {"resource_group_name": place.resource_group, "location": place.location, "tags": place.tags}
        reach: dict[str, Any] = {"virtual_network": network.SubResourceArgs(id=vnet_id)}
        if sku == "basic":
            address = self.make(
                network.PublicIPAddress,
                "bastion-ip",
                public_ip_address_name=place.name("pip", "bastion"),
                sku=network.PublicIPAddressSkuArgs(name="Standard"),
                public_ip_allocation_method="Static",
                **where,
            )
            subnet = network.SubResourceArgs(id=pulumi.Output.concat(vnet_id, "/subnets/", BASTION))
            ip = network.BastionHostIPConfigurationArgs(
                name="bastion", subnet=subnet, public_ip_address=network.SubResourceArgs(id=address.id)
            )
            reach = {"ip_configurations": [ip]}
        self.make(
            network.BastionHost,
            "bastion",
            bastion_host_name=place.name("bas"),
            sku=network.SkuArgs(name=sku.capitalize()),
            **reach,
            **where,
        )


def ssh_rule(sources: tuple[str, ...]) -> network.SecurityRuleArgs:
    """Return the one way in: SSH from the allow-list."""
    return network.SecurityRuleArgs(
        name="ssh-from-allow-list",
        priority=100,
        direction="Inbound",
        access="Allow",
        protocol="Tcp",
        source_address_prefixes=list(sources),
        source_port_range="*",
        destination_address_prefix="*",
        destination_port_range="22",
    )


def subnets(spec: NetworkSpec, nsg_id: pulumi.Output[str], *, vms: bool) -> list[network.SubnetArgs]:
    """Return the upper half of the address space for nodes, and the lowest /26 for a Bastion of the stack's own."""
    space = ip_network(spec.address_space)
    nodes = network.SubnetArgs(
        name=NODES,
        address_prefix=str([*space.subnets(prefixlen_diff=1)][1]),
        network_security_group=network.NetworkSecurityGroupArgs(id=nsg_id),
        service_endpoints=[network.ServiceEndpointPropertiesFormatArgs(service="Microsoft.Storage")],
        # VMs without an address of their own reach the registry and the hub through Azure's default address.
        default_outbound_access=vms,
    )
    if not (vms and spec.bastion == "basic"):
        return [nodes]
    return [nodes, network.SubnetArgs(name=BASTION, address_prefix=str(next(space.subnets(new_prefix=26))))]
