"""What may be reached from outside: security rules, public addresses, load balancers.

Outside means a source that one can't list: the Internet, all of Azure, or a public range shorter than /16 (IPv4) or /48
(IPv6), which no single organisation's office or VPN needs.

python -m pytest tests/infra/test_policy.py -k "internet or public"
"""

import ipaddress
from collections.abc import Iterator, Sequence

from ncdemo.infra.policy.base import UNKNOWN, Inputs, Resource, Rule, StackRule, kind_of, listed, objects, read, rule

GROUP, GROUP_RULE = "network:NetworkSecurityGroup", "network:SecurityRule"
MIN_PREFIX_BITS = {4: 16, 6: 48}
PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
# AzureCloud is every address of Azure, other customers' machines among them.
WIDE_TAGS = ("*", "any", "internet", "azurecloud")
REMOTE_SHELL_PORTS = (22, 3389)
INTERNAL_LOAD_BALANCER = "service.beta.kubernetes.io/azure-load-balancer-internal"


def is_wide(source: str) -> bool:
    """Tell whether a source (a CIDR, an address or a service tag) holds more of the outside than an allow-list may."""
    try:
        network = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return source.lower().split(".")[0] in WIDE_TAGS
    if any(
        network.version == private.version and network.network_address in private and network.prefixlen >= private.prefixlen
        for private in PRIVATE
    ):
        return False
    return network.prefixlen < MIN_PREFIX_BITS[network.version]


def _opens_shell(ports: str) -> bool:
    """Tell whether a port, a range (20-30) or * holds a remote shell's port."""
    first, _, last = ports.partition("-")
    if not first.isdecimal():
        return first == "*"
    return any(int(first) <= port <= int(last if last.isdecimal() else first) for port in REMOTE_SHELL_PORTS)


def _values(inputs: Inputs, key: str, plural: str) -> list[str]:
    return [value for value in (read(inputs, key), *listed(inputs, plural)) if isinstance(value, str)]


def _sources(security_rule: Inputs) -> list[str]:
    return _values(security_rule, "sourceAddressPrefix", "sourceAddressPrefixes")


def _inbound_allows(inputs: Inputs) -> list[Inputs]:
    """Return the inbound allow rules of a security group, or of a single rule that is a resource of its own."""
    rules = objects(inputs, "securityRules") if "direction" not in inputs else [inputs]
    return [each for each in rules if f"{each.get('direction')} {each.get('access')}".lower() == "inbound allow"]


@rule(
    "no-inbound-from-internet",
    "No security rule opens SSH, RDP or all ports to the outside: list CIDRs of /16 (IPv6: /48) or longer, or use Bastion.",
    GROUP,
    GROUP_RULE,
)
def no_inbound_from_internet(inputs: Inputs) -> Iterator[str]:
    for each in _inbound_allows(inputs):
        ports = [port for port in _values(each, "destinationPortRange", "destinationPortRanges") if _opens_shell(port)]
        for source in filter(is_wide, _sources(each)):
            yield from (f"rule {each.get('name', '')}: port {port} is open to {source}" for port in ports)


@rule(
    "node-has-no-public-ip",
    "Nodes have private addresses only: leave enableNodePublicIP out or false.",
    "containerservice:AgentPool",
    "containerservice:ManagedCluster",
)
def node_has_no_public_ip(inputs: Inputs) -> Iterator[str]:
    for pool in (inputs, *objects(inputs, "agentPoolProfiles")):
        if pool.get("enableNodePublicIP") is True:
            yield f"enableNodePublicIP is true{' in agentPoolProfiles' if pool is not inputs else ''}"


@rule(
    "service-stays-internal",
    f"A Service gets no public address: use ClusterIP, or annotate a LoadBalancer with {INTERNAL_LOAD_BALANCER}: 'true'.",
    "kubernetes:core/v1:Service",
)
def service_stays_internal(inputs: Inputs) -> Iterator[str]:
    internal = read(inputs, "metadata", "annotations", INTERNAL_LOAD_BALANCER)
    if read(inputs, "spec", "type") == "LoadBalancer" and internal not in ("true", UNKNOWN):
        yield "type is LoadBalancer, without the annotation that keeps it internal"


def _unguarded_public_ips(resources: Sequence[Resource]) -> Iterator[tuple[Resource | None, str]]:
    kinds = {kind_of(each.type) for each in resources}
    addresses = [each for each in resources if kind_of(each.type) == "network:PublicIPAddress"]
    groups = [each for each in resources if kind_of(each.type) in (GROUP, GROUP_RULE) and not _named_bastion(each)]
    allows = [allow for each in groups for allow in _inbound_allows(each.inputs)]
    listed_only = bool(allows) and not any(is_wide(source) for allow in allows for source in _sources(allow))
    for each in addresses:
        for_bastion = "network:BastionHost" in kinds and _named_bastion(each)
        for_machine = "network:NetworkInterface" in kinds and listed_only
        if not (for_bastion or for_machine):
            yield each, "it is neither Bastion's nor a network interface's behind security groups that list their sources"


def _named_bastion(resource: Resource) -> bool:
    """Tell whether a resource belongs to Bastion: by its logical name, as ids are unknown in a preview."""
    return "bastion" in resource.name.lower()


RULES: tuple[Rule, ...] = (no_inbound_from_internet, node_has_no_public_ip, service_stays_internal)
STACK_RULES: tuple[StackRule, ...] = (
    StackRule(
        "public-ip-is-guarded",
        "A public address is Bastion's (and named so), or a network interface's in a stack whose security groups list their sources.",
        _unguarded_public_ips,
    ),
)
