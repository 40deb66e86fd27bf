"""What a stack's machines are: node pools, and what is particular to AKS, to VMs and to a cluster that exists already.

A pool means the same on every target: on AKS a node pool of 0..max_count nodes, on VMs max_count machines.
"""

import difflib
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ncdemo.spec.base import Spec
from ncdemo.spec.common import NonEmpty, PositiveInt, text
from ncdemo.spec.sizes import ALIASES, SIZES, Size, find

PoolName = Annotated[str, text(r"^[a-z][a-z0-9]{0,10}[a-z0-9]$", "2 to 12 lower-case letters and digits, beginning with a letter")]
Namespace = Annotated[
    str, text(r"^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$", "lower-case letters, digits and hyphens, at most 62, beginning with a letter")
]
ObjectId = Annotated[
    str,
    text(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "an object id, e.g. what `az ad signed-in-user show --query id -o tsv` prints"),
]
KubernetesVersion = Literal["1.34", "1.35", "1.36"]
RESERVED_POOLS = ("system",)
SYSTEM_DISK_GIB = 128
"""OS disk of the system pool's nodes."""
SYSTEM_VCPUS = 4
"""AKS wants at least so many on a system pool's node."""


def known_size(name: str) -> str:
    """Return a size's name as Azure writes it; an alias stays, so that its use can be told."""
    if find(name) is None:
        near = difflib.get_close_matches(name.lower(), [n.lower() for n in SIZES], n=1, cutoff=0.5)
        hint = f"did you mean {find(near[0]).name}? " if near else ""  # type: ignore[union-attr]
        raise ValueError(f"isn't a VM size in ncdemo's catalogue; {hint}Known: {', '.join(SIZES)}")
    return next(known for known in (*SIZES, *ALIASES) if known.lower() == name.lower())


def cidr(text: str) -> str:
    """Return a network in CIDR form; refuse host bits and what isn't a network."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"is not a network ({error}); write e.g. 203.0.113.7/32") from None


def narrow(text: str) -> str:
    """Return an allow-list entry; refuse one that lets large parts of the internet in."""
    network = ip_network(cidr(text))
    if network.prefixlen < 16:
        raise ValueError("lets too much of the internet in; write your own network, at least a /16, e.g. 203.0.113.7/32")
    return str(network)


VmSize = Annotated[NonEmpty, AfterValidator(known_size)]
Cidr = Annotated[NonEmpty, AfterValidator(cidr)]
AllowedCidr = Annotated[NonEmpty, AfterValidator(narrow)]


class Pool(Spec):
    """Machines of one size that jobs run on."""

    name: PoolName = "h100"
    """Of the node pool, and the beginning of each VM's name."""
    vm_size: VmSize = "Standard_NC40ads_H100_v5"
    """An Azure VM size of the catalogue."""
    spot: bool = True
    """Surplus capacity, far cheaper, taken back at 30 s notice."""
    min_count: int = Field(default=0, ge=0)
    """Nodes kept while idle; 0 costs nothing. VMs don't heed it: they are deallocated when idle."""
    max_count: Annotated[int, Field(ge=1, le=100)] = 1
    """Nodes at most; on VMs, how many there are."""
    max_price_usd_per_h: float | None = Field(default=None, gt=0)
    """Spot alone: highest price of one node (null: up to the pay-as-you-go price)."""
    zones: tuple[Literal["1", "2", "3"], ...] = ()
    """Availability zones (empty: Azure chooses)."""
    namespace: Namespace = "ncdemo"
    """Kubernetes namespace of the jobs on this pool."""
    os_disk_gib: int = Field(default=256, ge=64, le=2048)
    """OS disk: images, and on Kubernetes also scratch space. On AKS it lies on the node's own disk and costs nothing."""
    driver: Literal["install", "none"] = "install"
    """`install`: AKS puts the NVIDIA driver on the nodes. `none`: you do (GPU operator). It can't be changed later."""

    @property
    def size(self) -> Size:
        """The catalogue's row; an alias is replaced by the size it means."""
        found = find(self.vm_size)
        assert found
        return found

    @model_validator(mode="after")
    def _counts_fit(self) -> "Pool":
        if self.min_count > self.max_count:
            raise ValueError(f"min_count is above max_count = {self.max_count}; lower it, or raise max_count")
        if self.name in RESERVED_POOLS:
            raise ValueError(f"name {self.name!r} is taken by the cluster's own pool; choose another, e.g. h100")
        if self.spot and self.min_count:
            raise ValueError("min_count must be 0 on a spot pool, which then costs nothing while idle; or set spot: false")
        if self.max_price_usd_per_h and not self.spot:
            raise ValueError("max_price_usd_per_h has an effect on spot alone; remove it, or set spot: true")
        return self


class SystemPool(Spec):
    """The cluster's own pool: always on, on demand, no GPU."""

    vm_size: VmSize = "Standard_D4s_v5"
    """At least 4 vCPUs, no GPU."""
    count: Annotated[int, Field(ge=1, le=10)] = 1
    """1 is enough to try; production wants 2 or more."""

    @model_validator(mode="after")
    def _plain(self) -> "SystemPool":
        size = find(self.vm_size)
        assert size
        if size.gpus or size.vcpus < SYSTEM_VCPUS:
            raise ValueError("vm_size of the system pool must have 4 vCPUs or more and no GPU; use Standard_D4s_v5")
        return self


class Aks(Spec):
    """What is particular to an AKS cluster."""

    kubernetes_version: KubernetesVersion = "1.35"
    """Minor version; AKS applies its patches."""
    tier: Literal["Free", "Standard"] = "Free"
    """Standard adds an uptime SLA, at a price per hour."""
    system: SystemPool = SystemPool()
    """The always-on pool."""
    admins: tuple[ObjectId, ...] = ()
    """Entra object ids of users or groups who administer the cluster; then it has no local accounts and needs kubelogin."""
    api_allowed_from: tuple[AllowedCidr, ...] = ()
    """Networks that reach the API server (empty: all, with credentials)."""
    kueue: bool = False
    """Queue jobs with Kueue: all nodes of a job start together, or it waits."""


class Vm(Spec):
    """What is particular to plain VMs."""

    image: Literal["2204", "2404"] = "2204"
    """Ubuntu version of Microsoft's HPC image, which brings the NVIDIA driver and container runtime."""
    admin_username: Annotated[
        str, text(r"^[a-z][a-z0-9-]{0,30}$", "lower-case letters, digits and hyphens, at most 31, beginning with a letter")
    ] = "ncdemo"
    """Login name; it has no password."""
    ssh_public_keys: tuple[
        Annotated[str, text(r"^(ssh-(rsa|ed25519)|ecdsa-sha2-nistp\d+) \S+", "an SSH public key, e.g. the line in ~/.ssh/id_ed25519.pub")],
        ...,
    ] = ()
    """Who may log in, by SSH through Bastion or from network.ssh_from (empty: a key that nobody holds is made)."""
    idle_minutes: Annotated[int, Field(ge=5, le=1440)] = 15
    """Minutes without a running job after which a VM deallocates itself."""
    setup: str = ""
    """Shell commands for the first boot, run as root after ncdemo's own."""


class ExistingCluster(Spec):
    """A Kubernetes cluster that ncdemo didn't make (target: kubernetes)."""

    context: NonEmpty | None = None
    """kubeconfig context (null: the current one)."""
    kubeconfig: NonEmpty | None = None
    """Path of the kubeconfig (null: KUBECONFIG, else ~/.kube/config)."""
    node_selector: dict[NonEmpty, str] = {}
    """Labels of the nodes that jobs may use."""
    storage_class: NonEmpty | None = None
    """Storage class of the volume that keeps the runs (null: the cluster's default)."""
    runs_gib: PositiveInt = 50
    """Size of that volume, one per namespace."""
    queue: NonEmpty | None = None
    """Kueue LocalQueue in each namespace (null: no queue)."""
