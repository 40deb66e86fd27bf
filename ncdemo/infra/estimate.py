"""What a stack asks of quota, and what it costs per hour: idle, and with every pool at its largest.

A spot node is counted at its pay-as-you-go price, which it never exceeds; what was seen is said beside it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ncdemo.infra import prices
from ncdemo.infra.prices import Price
from ncdemo.spec.capacity import SYSTEM_DISK_GIB, Pool
from ncdemo.spec.sizes import PRICES_SEEN, Size, find
from ncdemo.spec.stack import StackSpec

PriceOf = Callable[[Size, str], float | None]
"""Size and region -> pay-as-you-go price, USD per hour; None where it isn't known."""


@dataclass(frozen=True)
class Line:
    """One item of the bill. None: its price isn't known."""

    item: str
    idle_usd_per_h: float | None
    full_usd_per_h: float | None
    note: str = ""


@dataclass(frozen=True)
class Quota:
    """vCPUs that a region's quota must have free for the stack at its largest."""

    name: str
    vcpus: int


@dataclass(frozen=True)
class Estimate:
    lines: tuple[Line, ...]
    quota: tuple[Quota, ...]

    @property
    def idle_usd_per_h(self) -> float:
        """Return the sum of what is known."""
        return sum(line.idle_usd_per_h or 0 for line in self.lines)

    @property
    def full_usd_per_h(self) -> float:
        return sum(line.full_usd_per_h or 0 for line in self.lines)

    @property
    def unknown(self) -> list[str]:
        """Return the items that the sums lack."""
        return [line.item for line in self.lines if line.idle_usd_per_h is None or line.full_usd_per_h is None]


def estimate(spec: StackSpec, price: PriceOf = Size.price) -> Estimate:
    """Return what a stack costs, machines at the table's prices or others; nothing on a cluster that exists already."""
    if spec.target == "kubernetes":
        return Estimate((), ())
    own = aks_lines(spec, price) if spec.target == "aks" else vm_lines(spec)
    return Estimate((*own, *(pool_line(pool, spec, price) for pool in spec.pools), *shared_lines(spec)), quota(spec))


def aks_lines(spec: StackSpec, price: PriceOf) -> list[Line]:
    system = spec.aks.system
    size = find(system.vm_size)
    assert size
    lines = [
        fixed(f"system pool: {system.count} x {size.name}", times(price(size, spec.location), system.count)),
        fixed(f"system pool's OS disks: {system.count} x {SYSTEM_DISK_GIB} GiB Premium SSD", times(disk_price(True, 128), system.count)),
        fixed("system pool's way out: load balancer and its address", prices.LOAD_BALANCER.usd_per_h + prices.PUBLIC_ADDRESS.usd_per_h),
    ]
    if spec.aks.tier == "Standard":
        lines.append(fixed("control plane, Standard tier", prices.CLUSTER_STANDARD_TIER.usd_per_h))
    if spec.monitoring.in_cluster:
        lines.append(fixed(f"monitoring's three disks: 2 + {spec.monitoring.volume_gib} + {spec.monitoring.volume_gib} GiB", None))
    if spec.monitoring.azure_monitor:
        lines.append(Line("Azure Monitor workspace", 0.0, 0.0, "paid by what is ingested: 0.16 per 10 million samples"))
    if spec.monitoring.azure_monitor_alerts:
        lines.append(Line("Azure Monitor's rules", 0.0, 0.0, "paid by what they query each minute; the price isn't in the table"))
    return lines


def vm_lines(spec: StackSpec) -> list[Line]:
    count = sum(pool.max_count for pool in spec.pools)
    lines = [
        fixed(f"OS disks of pool {pool.name}: {pool.max_count} x {pool.os_disk_gib} GiB Standard SSD",
              times(disk_price(False, pool.os_disk_gib), pool.max_count))
        for pool in spec.pools
    ]  # fmt: skip
    if spec.network.ssh_from:
        lines.append(fixed(f"public addresses: {count}", prices.PUBLIC_ADDRESS.usd_per_h * count))
    if spec.network.bastion == "basic":
        lines.append(fixed("Bastion, Basic, and its address", prices.BASTION_BASIC.usd_per_h + prices.PUBLIC_ADDRESS.usd_per_h))
    return lines


def pool_line(pool: Pool, spec: StackSpec, price: PriceOf) -> Line:
    """Return a pool's price: VMs are deallocated when idle, node pools keep their min_count."""
    size = pool.size
    each = price(size, spec.location)
    kept = pool.min_count if spec.target == "aks" else 0
    note = "" if each is not None else f"the price in {spec.location} isn't in the table"
    if pool.spot:
        seen = f"; seen {size.spot_usd_per_h[0]:g} to {size.spot_usd_per_h[1]:g} a node" if size.spot_usd_per_h else ""
        note = note or f"spot: at most this, the pay-as-you-go price{seen}"
    item = f"pool {pool.name}: {kept}..{pool.max_count} x {size.name}{' spot' if pool.spot else ''}"
    return Line(item, 0.0 if kept == 0 else times(each, kept), times(each, pool.max_count), note)


def shared_lines(spec: StackSpec) -> list[Line]:
    lines = [
        fixed("container registry, Basic", prices.REGISTRY_BASIC.usd_per_h),
        Line("Blob storage", 0.0, 0.0, f"paid by what is kept: {prices.BLOB_GB_MONTH} per GB and month"),
    ]
    if spec.monitoring.application_insights:
        cap = spec.monitoring.application_insights_gb_per_day
        note = f"paid by what is ingested: {prices.LOGS_GB:.2f} per GB, capped at {cap:g} GB a day"
        lines.append(Line("Application Insights", 0.0, 0.0, note))
    if spec.storage.files_gib:
        lrs = spec.storage.replication == "LRS"
        lines.append(
            fixed(f"Azure Files, Premium {spec.storage.replication}: {spec.storage.files_gib} GiB",
                  prices.FILES_GIB.usd_per_h * spec.storage.files_gib if lrs else None)
        )  # fmt: skip
    return lines


def quota(spec: StackSpec) -> tuple[Quota, ...]:
    """Return vCPUs by quota name. Spot draws on the region's one low-priority quota, everything else on its family and on `cores`."""
    wanted: Counter[str] = Counter()
    machines = [(pool.size, pool.max_count, pool.spot) for pool in spec.pools]
    system = find(spec.aks.system.vm_size)
    if spec.target == "aks" and system:
        machines.append((system, spec.aks.system.count, False))
    for size, count, spot in machines:
        for name in ("lowPriorityCores",) if spot else (size.quota_family, "cores"):
            wanted[name] += size.vcpus * count
    return tuple(Quota(name, vcpus) for name, vcpus in sorted(wanted.items()))


def fixed(item: str, usd_per_h: float | None) -> Line:
    """Return what costs the same whether idle or not."""
    return Line(item, usd_per_h, usd_per_h)


def times(price: float | None, count: int) -> float | None:
    return None if price is None else price * count


def disk_price(premium: bool, gib: int) -> float | None:
    found: Price | None = prices.disk(gib, prices.PREMIUM_SSD if premium else prices.STANDARD_SSD)
    return found.usd_per_h if found else None


PRICE_NOTE = f"USD, pay-as-you-go, Linux; machines as seen {PRICES_SEEN}, the rest in US regions. No tax, no traffic."
