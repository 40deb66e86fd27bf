"""What Azure says of regions: sizes offered, quota, how likely a spot node is to be had and to stay, prices. All asked side by side.

A fact that couldn't be had is the NoAnswer with its reason, in the place of the fact.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ncdemo.infra.subscription.ask import Arm, NoAnswer
from ncdemo.infra.subscription.retail import Live, price_list
from ncdemo.spec.sizes import Size, find
from ncdemo.spec.stack import StackSpec

T = TypeVar("T")
Rows = list[dict[str, Any]]
SKUS, USAGES, SCORES, GRAPH = "2021-07-01", "2024-07-01", "2025-06-05", "2022-10-01"
"""Versions of the interfaces: Compute resource SKUs, Compute usage, spot placement scores, Resource Graph."""
SCORE_SIZES, SCORE_REGIONS = 5, 8
"""One question for placement scores takes at most so many."""


@dataclass(frozen=True)
class Need:
    """Machines of one size that a stack has at its largest."""

    size: Size
    count: int
    spot: bool


@dataclass(frozen=True)
class Facts:
    """By region; of spot by size, in lower case, and region."""

    skus: dict[str, Rows | NoAnswer]
    usages: dict[str, Rows | NoAnswer]
    scores: dict[tuple[str, str], str] | NoAnswer
    evictions: dict[tuple[str, str], str] | NoAnswer
    prices: dict[tuple[str, str], Live]
    prices_missing: str | None


def needs(spec: StackSpec) -> tuple[Need, ...]:
    """Return what a stack asks a region for; nothing on a cluster that exists."""
    if spec.target == "kubernetes":
        return ()
    system = find(spec.aks.system.vm_size)
    own = [Need(system, spec.aks.system.count, False)] if spec.target == "aks" and system else []
    return (*(Need(pool.size, pool.max_count, pool.spot) for pool in spec.pools), *own)


def gather(arm: Arm, subscription: str, wanted: Sequence[Need], regions: Sequence[str]) -> Facts:
    """Ask everything at once; a slow or refused question spoils none of the others."""
    compute = f"/subscriptions/{subscription}/providers/Microsoft.Compute"
    spot = sorted({need.size.name for need in wanted if need.spot})
    with ThreadPoolExecutor(max_workers=8) as pool:
        skus = {r: pool.submit(told, lambda r=r: _skus(arm, compute, r)) for r in regions}
        usages = {r: pool.submit(told, lambda r=r: list(arm.every(f"{compute}/locations/{r}/usages", USAGES))) for r in regions}
        scores = pool.submit(told, lambda: _scores(arm, compute, wanted, spot, regions))
        evictions = pool.submit(told, lambda: _evictions(arm, spot, regions))
        prices = pool.submit(price_list, [need.size.name for need in wanted], regions)
        return Facts(
            {region: one.result() for region, one in skus.items()},
            {region: one.result() for region, one in usages.items()},
            scores.result(),
            evictions.result(),
            *prices.result(),
        )


def told(ask: Callable[[], T]) -> T | NoAnswer:
    try:
        return ask()
    except NoAnswer as error:
        return error


def _skus(arm: Arm, compute: str, region: str) -> Rows:
    rows = arm.every(f"{compute}/skus", SKUS, **{"$filter": f"location eq '{region}'"})
    return [row for row in rows if row.get("resourceType") == "virtualMachines"]


def _scores(arm: Arm, compute: str, wanted: Sequence[Need], sizes: Sequence[str], regions: Sequence[str]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for first in range(0, len(sizes), SCORE_SIZES):
        for at in range(0, len(regions), SCORE_REGIONS):
            some, there = sizes[first : first + SCORE_SIZES], regions[at : at + SCORE_REGIONS]
            body = {
                "desiredLocations": list(there),
                "desiredSizes": [{"sku": name} for name in some],
                "desiredCount": max(need.count for need in wanted if need.spot),
                "availabilityZones": False,
            }
            said = arm.post(f"{compute}/locations/{there[0]}/placementScores/spot/generate", SCORES, body)
            found |= {(row["sku"].lower(), row["region"].lower()): row["score"] for row in said.get("placementScores", [])}
    return found


def _evictions(arm: Arm, sizes: Sequence[str], regions: Sequence[str]) -> dict[tuple[str, str], str]:
    if not sizes:
        return {}
    query = (
        "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location'"
        f" | where sku.name in~ ({quoted(sizes)}) and location in~ ({quoted(regions)})"
        " | project size = tostring(sku.name), location, rate = tostring(properties.evictionRate)"
    )
    said = arm.post("/providers/Microsoft.ResourceGraph/resources", GRAPH, {"query": query, "options": {"resultFormat": "objectArray"}})
    return {(row["size"].lower(), row["location"].lower()): row["rate"] for row in said.get("data", [])}


def quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
