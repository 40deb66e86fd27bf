"""Prometheus' rules of a stack: two files as they lie in alerts/, and one about cost, made from the stack's prices and budget.

rule_files(spec)["cost.rules.yml"]
promtool check rules ncdemo/infra/alerts/*.yml
"""

from pathlib import Path
from typing import Any

import yaml

from ncdemo.infra.prices import HOURS_PER_MONTH
from ncdemo.spec.stack import StackSpec

ALERTS = Path(__file__).parent / "alerts"
COST = "ncdemo:pool_usd_per_hour"
"""Recorded once a minute (EVALUATION_S): GPU nodes of a pool that DCGM sees x the pay-as-you-go price of one."""
EVALUATION_S = 60
WARN_AT = 0.8
"""Share of the monthly budget."""


def rule_files(spec: StackSpec) -> dict[str, str]:
    """Return file name -> text. On a cluster that exists already, no DCGM exporter of ours is scraped and no price is known."""
    names = ("runs", "gpus") if spec.target == "aks" else ("runs",)
    found = {f"{name}.rules.yml": (ALERTS / f"{name}.yml").read_text(encoding="utf-8") for name in names}
    if spec.target == "aks" and (rules := cost_rules(spec)):
        groups = {"groups": [{"name": "ncdemo-cost", "interval": f"{EVALUATION_S}s", "rules": rules}]}
        found["cost.rules.yml"] = yaml.safe_dump(groups, sort_keys=False, width=140)
    return found


def cost_rules(spec: StackSpec) -> list[dict[str, Any]]:
    """Return what records the cost of each pool whose price is known and, with a budget, warns of it."""
    priced = [(pool.name, pool.size.price(spec.location)) for pool in spec.pools if pool.size.gpus]
    rules = [_cost(name, usd_per_h) for name, usd_per_h in priced if usd_per_h is not None]
    budget = spec.cost_guard.monthly_budget_usd
    return rules + (_warnings(budget, min(30, spec.monitoring.metrics_days)) if rules and budget else [])


def _cost(pool: str, usd_per_h: float) -> dict[str, Any]:
    # AKS names a node aks-<pool>-<number>-vmss<number>, and the exporter takes that for its Hostname.
    nodes = f'count(count by (Hostname) (DCGM_FI_DEV_GPU_UTIL{{Hostname=~"aks-{pool}-.+"}}))'
    return {"record": COST, "expr": f"({nodes} or vector(0)) * {usd_per_h:g}", "labels": {"pool": pool}}


def _warnings(budget_usd: float, days: int) -> list[dict[str, Any]]:
    # What was spent in the day, not the mean of its recorded minutes: those of the first hour would stand for a month.
    ahead = f"sum(sum_over_time({COST}[1d])) * {EVALUATION_S} / 3600 / 24 * {HOURS_PER_MONTH:g} > {budget_usd:g}"
    share_usd = budget_usd * days / 30
    spent = f"sum(sum_over_time({COST}[{days}d])) * {EVALUATION_S} / 3600 > {WARN_AT * share_usd:g}"
    note = "At pay-as-you-go prices, GPU nodes alone: spot costs less, the system pool, disks and storage come on top."
    return [
        {
            "alert": "NcdemoCostRate",
            "expr": ahead,
            "for": "1h",
            "labels": {"severity": "warning"},
            "annotations": {
                "summary": f'A month like the last 24 hours costs {{{{ $value | printf "%.0f" }}}} USD; the budget is {budget_usd:g}',
                "description": note,
            },
        },
        {
            "alert": "NcdemoBudget",
            "expr": spent,
            "labels": {"severity": "critical"},
            "annotations": {
                "summary": f'{{{{ $value | printf "%.0f" }}}} USD in {days} days; the budget for them is {share_usd:g}',
                "description": note,
            },
        },
    ]
