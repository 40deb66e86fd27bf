"""What a stack and each of its jobs cost, spot against pay as you go; at the dated table's prices or today's.

stack_cost(load_stack("stacks/Pulumi.aks-dev.yaml"), Table())
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ncdemo.infra.estimate import Line, estimate
from ncdemo.infra.subscription.ask import NoAnswer
from ncdemo.infra.subscription.retail import Live, live_prices
from ncdemo.spec.base import SpecError
from ncdemo.spec.sizes import PRICES_SEEN, Size, find
from ncdemo.spec.stack_file import JobRun, Stack

Range = tuple[float, float]
"""Lowest and highest."""


@dataclass(frozen=True)
class Table:
    """The prices that ncdemo brings."""

    source: str = f"ncdemo's table, seen {PRICES_SEEN}; ncdemo cost --live asks for today's"

    def price(self, size: Size, region: str) -> float | None:
        return size.price(region)

    def spot(self, size: Size, region: str) -> Range | None:
        return size.spot(region)


@dataclass(frozen=True)
class Today:
    """Machine prices of Azure's price list, as asked now."""

    live: dict[tuple[str, str], Live]
    source: str = field(
        default_factory=lambda: f"machines: Azure Retail Prices, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; the rest: ncdemo's table"
    )

    @classmethod
    def ask(cls, sizes: Iterable[Size], region: str) -> "Today":
        """Raise SpecError if the list can't be had."""
        try:
            found = {name: live_prices(name, [region])[region] for name in sorted({size.name for size in sizes})}
        except NoAnswer as error:
            raise SpecError(
                f"--live: Azure's Retail Prices API: {error}; try again, or leave --live out for the table of {PRICES_SEEN}"
            ) from None
        return cls({(name, region): live for name, live in found.items()})

    def price(self, size: Size, region: str) -> float | None:
        return self.live.get((size.name, region), Live()).usd_per_h

    def spot(self, size: Size, region: str) -> Range | None:
        each = self.live.get((size.name, region), Live()).spot_usd_per_h
        return None if each is None else (each, each)


Prices = Table | Today


@dataclass(frozen=True)
class JobCost:
    """A job at its deadline, the most it may cost: its nodes are paid whole, however many of their GPUs it takes."""

    name: str
    vm_size: str | None
    nodes: int
    spot: bool
    deadline_h: float
    at_most_usd: float | None
    """At the pay-as-you-go price, which spot never exceeds."""
    spot_usd: Range | None
    """At spot prices, on a spot pool; None where none is known."""


@dataclass(frozen=True)
class StackCost:
    stack: str
    location: str
    idle_usd_per_h: float
    full_usd_per_h: float
    """Every machine at its pay-as-you-go price."""
    full_spot_usd_per_h: Range | None
    """The same with spot pools at spot prices; None without spot pools, or where a price isn't known."""
    lines: tuple[Line, ...]
    unknown: tuple[str, ...]
    """What the sums lack."""
    jobs: tuple[JobCost, ...]
    prices: str
    """Whose, and of when."""


def machines(stack: Stack) -> list[Size]:
    """Return the sizes that a stack pays for."""
    system = find(stack.spec.aks.system.vm_size) if stack.spec.target == "aks" else None
    return [pool.size for pool in stack.spec.pools] + ([system] if system else [])


def stack_cost(stack: Stack, prices: Prices) -> StackCost:
    spec = stack.spec
    bill = estimate(spec, prices.price)
    return StackCost(
        stack.name,
        spec.location,
        bill.idle_usd_per_h,
        bill.full_usd_per_h,
        _full_on_spot(stack, bill.full_usd_per_h, prices),
        bill.lines,
        tuple(bill.unknown),
        tuple(job_cost(run, spec.location, prices) for run in stack.jobs),
        prices.source,
    )


def _full_on_spot(stack: Stack, full_usd_per_h: float, prices: Prices) -> Range | None:
    low = high = full_usd_per_h
    pools = [pool for pool in stack.spec.pools if pool.spot and stack.spec.target != "kubernetes"]
    for pool in pools:
        each, spot = prices.price(pool.size, stack.spec.location), prices.spot(pool.size, stack.spec.location)
        if each is None or spot is None:
            return None
        low, high = (now + (price - each) * pool.max_count for now, price in zip((low, high), spot, strict=True))
    return (low, high) if pools else None


def job_cost(run: JobRun, region: str, prices: Prices) -> JobCost:
    hours, nodes, pool = run.deadline_s / 3600, run.job.nodes, run.pool
    if pool is None:
        return JobCost(run.job.name, None, nodes, False, hours, None, None)
    each, spot = prices.price(pool.size, region), prices.spot(pool.size, region) if pool.spot else None
    return JobCost(
        run.job.name,
        pool.size.name,
        nodes,
        pool.spot,
        hours,
        None if each is None else each * nodes * hours,
        spot and (spot[0] * nodes * hours, spot[1] * nodes * hours),
    )
