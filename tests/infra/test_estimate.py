"""What a stack asks of quota and costs, against sums made by hand."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.estimate import Estimate, estimate
from ncdemo.spec.stack import StackSpec
from ncdemo.spec.stack_file import load_stack

ROOT = Path(__file__).resolve().parents[2]
NC40, NC80, D4 = 6.98, 17.64, 0.192
SYSTEM = D4 + 19.71 / 730 + 0.025 + 0.005
REGISTRY = 0.167 / 24


def bill(**config: Any) -> Estimate:
    import json

    return estimate(StackSpec.model_validate_json(json.dumps(config)))


def test_a_spot_pool_costs_nothing_idle_and_at_most_its_on_demand_price_when_full() -> None:
    found = bill(pools=[{"max_count": 3}])
    assert found.idle_usd_per_h == pytest.approx(SYSTEM + REGISTRY)
    assert found.full_usd_per_h == pytest.approx(SYSTEM + REGISTRY + 3 * NC40)
    assert found.unknown == []
    assert "pay-as-you-go" in next(line.note for line in found.lines if line.item.startswith("pool"))


def test_nodes_that_are_kept_cost_while_idle() -> None:
    found = bill(pools=[{"spot": False, "min_count": 1, "max_count": 2, "vm_size": "Standard_NC80adis_H100_v5"}])
    assert found.idle_usd_per_h == pytest.approx(SYSTEM + REGISTRY + NC80)
    assert found.full_usd_per_h == pytest.approx(SYSTEM + REGISTRY + 2 * NC80)


def test_vms_cost_their_disks_while_idle() -> None:
    found = bill(target="vm", pools=[{"max_count": 2}], network={"ssh_from": ["203.0.113.0/24"], "bastion": "basic"})
    assert found.idle_usd_per_h == pytest.approx(2 * 19.20 / 730 + 2 * 0.005 + 0.19 + 0.005 + REGISTRY)


def test_what_is_not_known_is_left_out_of_the_sum_and_named() -> None:
    found = bill(location="westeurope")
    assert found.full_usd_per_h == pytest.approx(SYSTEM - D4 + REGISTRY)
    assert [item.partition(":")[0] for item in found.unknown] == ["system pool", "pool h100"]


def test_an_existing_cluster_asks_for_nothing() -> None:
    assert bill(target="kubernetes") == Estimate((), ())


def test_quota_adds_up_by_family_and_priority() -> None:
    pools = [
        {"name": "a1", "max_count": 2},
        {"name": "b1", "spot": False, "max_count": 3},
        {"name": "c1", "spot": False, "vm_size": "Standard_NC80adis_H100_v5"},
    ]
    asked = {one.name: one.vcpus for one in bill(pools=pools).quota}
    assert asked == {"lowPriorityCores": 80, "standardNCadsH100v5Family": 200, "standardDSv5Family": 4, "cores": 204}


def test_the_costs_in_the_docs_are_the_estimates() -> None:
    table = re.findall(r"^\| `([\w-]+)` \| ([\d.]+)[^|]*\| ([\d.]+)", (ROOT / "docs" / "cost.md").read_text(), flags=re.M)
    assert len(table) == 4
    for name, idle, full in table:
        found = estimate(load_stack(ROOT / "stacks" / f"Pulumi.{name}.yaml").spec)
        assert (float(idle), float(full)) == (round(found.idle_usd_per_h, 2), round(found.full_usd_per_h, 2)), name
