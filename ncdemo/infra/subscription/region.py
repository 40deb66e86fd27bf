"""One region against what a stack needs: offered and not restricted, quota, spot's odds, price.

What Azure doesn't say is unknown: a missing quota row isn't a quota of zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ncdemo.infra.estimate import Quota
from ncdemo.infra.subscription.ask import NoAnswer
from ncdemo.infra.subscription.facts import Facts, Need, Rows
from ncdemo.spec.finding import Finding, Status
from ncdemo.spec.sizes import Size

SCORES = ("High", "Medium", "Low")
SCORE_ROLE = "Compute Recommendations Role"


@dataclass(frozen=True)
class Region:
    """A region's findings, and what it is ranked by."""

    name: str
    findings: tuple[Finding, ...]
    full_usd_per_h: float | None
    """All machines at pay-as-you-go prices of today (None: a price is missing)."""
    spot_usd_per_h: float | None
    """The same with spot pools at today's spot prices."""
    placement: str | None
    """The lowest score of the spot sizes."""
    eviction: str | None
    """The highest rate of the spot sizes, percent per hour."""

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts the best first: what works, what is known, spot's odds, then the price."""
        count = {status: sum(one.status == status for one in self.findings) for status in ("fail", "unknown", "warn")}
        odds = SCORES.index(self.placement) if self.placement in SCORES else len(SCORES)
        price = self.spot_usd_per_h if self.spot_usd_per_h is not None else self.full_usd_per_h
        return (count["fail"], count["unknown"], odds, lowest(self.eviction), price is None, price or 0.0, count["warn"], self.name)


def lowest(rate: str | None) -> float:
    """Return the lower end of '5-10' or '20+'; above all when it isn't known."""
    digits = (rate or "").replace("+", "-").partition("-")[0]
    return float(digits) if digits.isdigit() else 101.0


def judge(name: str, wanted: Sequence[Need], quota: Sequence[Quota], facts: Facts, subscription: str) -> Region:
    sizes = list({need.size.name: need.size for need in wanted}.values())
    spot = [need.size.name.lower() for need in wanted if need.spot]
    found = [_offered(name, size, facts.skus[name]) for size in sizes]
    found += [_quota(name, one, facts.usages[name], subscription) for one in quota]
    found += _spot(name, spot, facts, subscription) if spot else []
    full, cheap = _sum(name, wanted, facts, spot=False), _sum(name, wanted, facts, spot=True)
    found.append(_price(name, full, cheap, facts))
    scores = [facts.scores.get((size, name), "unknown") for size in spot] if not isinstance(facts.scores, NoAnswer) else []
    rates = [facts.evictions[(s, name)] for s in spot if (s, name) in facts.evictions] if not isinstance(facts.evictions, NoAnswer) else []
    worst = max(scores, key=lambda score: SCORES.index(score) if score in SCORES else len(SCORES), default=None)
    return Region(name, tuple(found), full, cheap, worst, max(rates, key=lowest, default=None))


def _offered(region: str, size: Size, rows: Rows | NoAnswer) -> Finding:
    check = f"{region}: size"
    see = f"az vm list-skus -l {region} --size {size.name} --all -o table"
    if isinstance(rows, NoAnswer):
        return Finding(check, "unknown", f"{size.name}: {rows}", see)
    row = next((row for row in rows if row.get("name", "").lower() == size.name.lower()), None)
    if row is None:
        return Finding(check, "fail", f"{size.name} isn't offered", "choose another region: --region NAME, several times, ranks them")
    for limit in row.get("restrictions", []):
        if limit.get("type") == "Location":
            reason = f"{size.name} is restricted for this subscription ({limit.get('reasonCode')})"
            return Finding(check, "fail", reason, f"{see}; ask for access in the portal: Help + support, Service and subscription limits")
    zones = sorted({zone for limit in row.get("restrictions", []) for zone in limit.get("restrictionInfo", {}).get("zones", [])})
    if zones:
        return Finding(check, "warn", f"{size.name} is offered, but not in zones {', '.join(zones)}", "leave zones empty, or name others")
    return Finding(check, "ok", f"{size.name} is offered")


def _quota(region: str, need: Quota, rows: Rows | NoAnswer, subscription: str) -> Finding:
    check = f"{region}: quota"
    see = f"az vm list-usage -l {region} -o table"
    if isinstance(rows, NoAnswer):
        return Finding(check, "unknown", f"{need.name}: {rows}", see)
    row = next((row for row in rows if row["name"]["value"].lower() == need.name.lower()), None)
    if row is None:
        return Finding(check, "unknown", f"{need.name}: Azure names no such quota here", see)
    used, limit = int(row["currentValue"]), int(row["limit"])
    said = f"{need.name}: {need.vcpus} vCPUs wanted, {max(0, limit - used)} free ({used} of {limit} used)"
    if (missing := need.vcpus - (limit - used)) <= 0:
        return Finding(check, "ok", said)
    kind = "lowPriority" if need.name == "lowPriorityCores" else "dedicated"
    scope = f"/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{region}"
    change = f"az quota update --resource-name {row['name']['value']} --scope {scope} --limit-object value={limit + missing}"
    return Finding(check, "fail", f"{said}; {missing} missing", f"{change} --resource-type {kind}")


def _spot(region: str, sizes: Sequence[str], facts: Facts, subscription: str) -> Iterator[Finding]:
    """Yield how likely spot nodes are to be had, and to be taken back."""
    check = f"{region}: spot"
    if isinstance(facts.scores, NoAnswer):
        role = f'az role assignment create --assignee YOU --role "{SCORE_ROLE}" --scope /subscriptions/{subscription}'
        yield Finding(check, "unknown", f"placement score: {facts.scores}", role if facts.scores.status == 403 else "try again later")
    if isinstance(facts.evictions, NoAnswer):
        yield Finding(check, "unknown", f"eviction rate: {facts.evictions}", "az graph query -q 'SpotResources | limit 1'")
    for size in dict.fromkeys(sizes):
        if not isinstance(facts.scores, NoAnswer):
            score = facts.scores.get((size, region), "no data")
            grades: dict[str, Status] = {"High": "ok", "Medium": "ok", "Low": "warn", "RestrictedSkuNotAvailable": "fail"}
            status: Status = grades.get(score, "unknown")
            remedy = None if status == "ok" else "another region (--region), another size, or spot: false"
            yield Finding(check, status, f"placement score of {size}: {score}", remedy)
        if not isinstance(facts.evictions, NoAnswer):
            rate = facts.evictions.get((size, region))
            status = "unknown" if rate is None else "warn" if lowest(rate) >= 15 else "ok"
            remedy = None if status == "ok" else "another region (--region), or spot: false"
            yield Finding(check, status, f"eviction rate of {size}: {'no data' if rate is None else f'{rate} % per hour'}", remedy)


def _sum(region: str, wanted: Sequence[Need], facts: Facts, *, spot: bool) -> float | None:
    total = 0.0
    for need in wanted:
        live = facts.prices.get((need.size.name, region))
        each = (live.spot_usd_per_h if spot and need.spot else live.usd_per_h) if live else None
        if each is None:
            return None
        total += each * need.count
    return total


def _price(region: str, full: float | None, cheap: float | None, facts: Facts) -> Finding:
    check = f"{region}: price"
    if full is None:
        why = facts.prices_missing or "the price list lacks a size here"
        return Finding(check, "unknown", why, "ncdemo cost STACK, which has a dated table")
    spot = f", {cheap:.2f} with spot pools at today's spot price" if cheap is not None and cheap != full else ""
    return Finding(check, "ok", f"all machines: {full:.2f} USD per hour pay as you go{spot}")
