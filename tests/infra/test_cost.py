"""What stacks, jobs and runs cost, against sums made by hand; today's prices from a stand-in of Azure's price list."""

import json
from pathlib import Path
from typing import Any

import pytest

from ncdemo.infra.cost import Table, Today, machines, stack_cost
from ncdemo.infra.run_cost import Where, machine, run_cost
from ncdemo.spec.base import SpecError
from ncdemo.spec.result import RunRecord, TrainResult
from ncdemo.spec.sizes import SIZES
from ncdemo.spec.stack_file import Stack, stack_of
from tests.infra.subscription.stand_in import azure

NC40, NC80 = "Standard_NC40ads_H100_v5", "Standard_NC80adis_H100_v5"
SYSTEM = 0.192 + 19.71 / 730 + 0.025 + 0.005
REGISTRY = 0.167 / 24
TUNE = {"name": "tune", "config": "workloads/configs/training/lora.yaml", "deadline_h": 6}


def stack(**config: Any) -> Stack:
    return stack_of("dev", config, {})


def test_a_job_costs_its_nodes_up_to_its_deadline() -> None:
    pools = [{"name": "spot", "max_count": 3}, {"name": "big", "spot": False, "vm_size": NC80, "max_count": 2}]
    jobs = [{**TUNE, "pool": "spot", "nodes": 2}, {**TUNE, "name": "two", "pool": "big", "gpus": 1, "deadline_h": None}]
    found = stack_cost(stack(pools=pools, jobs=jobs), Table())
    first, second = found.jobs
    assert (first.nodes, first.spot, first.deadline_h, first.at_most_usd) == (2, True, 6, pytest.approx(2 * 6 * 6.98))
    assert first.spot_usd == (pytest.approx(2 * 6 * 1.5), pytest.approx(2 * 6 * 2.8))
    # One GPU of two: the node is paid whole; and the stack's own deadline.
    assert (second.at_most_usd, second.spot_usd, second.deadline_h) == (pytest.approx(24 * 17.64), None, 24)
    full = SYSTEM + REGISTRY + 3 * 6.98 + 2 * 17.64
    assert found.full_usd_per_h == pytest.approx(full)
    assert found.full_spot_usd_per_h == (pytest.approx(full - 3 * (6.98 - 1.5)), pytest.approx(full - 3 * (6.98 - 2.8)))
    assert "seen 2026-08 to 2026-11" in found.prices


def test_what_is_not_known_is_none() -> None:
    found = stack_cost(stack(location="westeurope", jobs=[TUNE]), Table())
    assert (found.jobs[0].at_most_usd, found.jobs[0].spot_usd, found.full_spot_usd_per_h) == (None, None, None)
    assert len(found.unknown) == 2


def test_a_stack_without_spot_has_no_spot_price() -> None:
    assert stack_cost(stack(pools=[{"spot": False}]), Table()).full_spot_usd_per_h is None


def test_a_cluster_that_exists_costs_nothing_here() -> None:
    found = stack_cost(stack(target="kubernetes", images={"repository": "r.example/n"}, jobs=[TUNE]), Table())
    assert (found.lines, found.full_usd_per_h, found.jobs[0].at_most_usd, found.full_spot_usd_per_h) == ((), 0, None, None)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch):
    with azure() as served:
        monkeypatch.setenv("NCDEMO_PRICES_URL", served.prices_url)
        yield served


def test_todays_prices_replace_the_tables(cloud) -> None:
    made = stack(jobs=[TUNE])
    found = stack_cost(made, Today.ask(machines(made), "eastus"))
    assert found.jobs[0].at_most_usd == pytest.approx(6 * 7.10)
    assert found.jobs[0].spot_usd == (pytest.approx(6 * 2.5), pytest.approx(6 * 2.5))
    assert found.idle_usd_per_h == pytest.approx(SYSTEM - 0.192 + 0.20 + REGISTRY)
    assert found.prices.startswith("machines: Azure Retail Prices, 20")


def test_a_size_that_the_list_lacks_is_unknown_and_not_the_tables(cloud) -> None:
    made = stack(target="vm", pools=[{"vm_size": NC80}])
    assert stack_cost(made, Today.ask(machines(made), "eastus")).unknown == (f"pool h100: 0..1 x {NC80} spot",)


def test_a_price_list_out_of_reach_is_one_clear_line(cloud) -> None:
    cloud.refuse["/retail/"] = (503, "Busy")
    with pytest.raises(SpecError, match=r"--live: Azure's Retail Prices API: HTTP 503, Busy; try again, or leave --live out"):
        Today.ask([SIZES[NC40]], "eastus")


def run(folder: Path, *, duration_s: float | None = 1800.0, world_size: int = 1, spec: str = "kind: train\n", **fields: Any) -> Path:
    train = TrainResult(
        steps=10, examples=80, tokens=2_000_000, target_tokens=1, train_time_s=1.0, tokens_per_s=1.0, world_size=world_size,
        precision="bf16", trainable_parameters=1, parameters=1, padding_fraction=0.0, truncated_examples=0,
    )  # fmt: skip
    made = {
        "kind": "train",
        "run_id": "tune-1",
        "name": "tune",
        "status": "finished",
        "spec_hash": "a",
        "started_at": "2026-11-26T00:00:00Z",
    }
    record = RunRecord(**{**made, "duration_s": duration_s, "train": train, **fields})
    (folder / "result.json").write_text(record.model_dump_json())
    (folder / "spec.yaml").write_text(spec)
    return folder


def test_a_run_costs_its_duration(tmp_path: Path) -> None:
    found = run_cost(run(tmp_path), Where(NC40), Table())
    assert (found.usd, found.nodes, found.whole, found.region) == (pytest.approx(6.98 / 2), 1, True, "eastus")
    assert found.spot_usd == (pytest.approx(0.75), pytest.approx(1.4))
    assert found.usd_per_mtok == pytest.approx(6.98 / 2 / 2)


@pytest.mark.parametrize(("world_size", "vm_size", "nodes"), [(4, NC80, 2), (3, NC80, 2), (2, NC40, 2), (2, "Standard_D4s_v5", 2)])
def test_nodes_follow_from_the_ranks(world_size: int, vm_size: str, nodes: int, tmp_path: Path) -> None:
    folder = run(tmp_path, world_size=world_size)
    assert run_cost(folder, Where(vm_size), Table()).nodes == nodes
    assert run_cost(folder, Where(vm_size, nodes=7), Table()).nodes == 7


def test_nodes_are_those_of_the_launch_where_it_is_on_record(tmp_path: Path) -> None:
    """Two ranks of one CPU node are one node; one rank on each of two nodes with two GPUs are two; also before a run has a result."""
    one = run(tmp_path, world_size=2, spec="kind: train\ntrain: {processes: 2}\n")
    assert run_cost(one, Where("Standard_D4s_v5"), Table()).nodes == 1
    two = run(tmp_path, world_size=2, spec="kind: train\ntrain: {processes: 1}\n")
    assert run_cost(two, Where(NC80), Table()).nodes == 2
    stopped = run(tmp_path, train=None, status="interrupted")
    (stopped / "environment.json").write_text(json.dumps({"env": {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "2"}}))
    assert run_cost(stopped, Where(NC80), Table()).nodes == 4


def test_a_benchmark_records_its_size_and_region(tmp_path: Path) -> None:
    spec = f"kind: bench\nprices: {{vm_size: {NC80}, region: spaincentral}}\n"
    folder = run(tmp_path, spec=spec, kind="bench", train=None)
    found = run_cost(folder, Where(), Table())
    assert (found.vm_size, found.region, found.usd, found.usd_per_mtok) == (NC80, "spaincentral", pytest.approx(18.148 / 2), None)
    assert run_cost(folder, Where(region="eastus"), Table()).usd == pytest.approx(17.64 / 2)


def test_a_run_costs_by_the_machine_that_it_recorded(tmp_path: Path) -> None:
    folder = run(tmp_path, spec=f"kind: train\nprices: {{vm_size: {NC40}}}\n")
    (folder / "environment.json").write_text(json.dumps({"azure": {"vm_size": NC80, "region": "spaincentral"}}))
    found = run_cost(folder, Where(), Table())
    assert (found.vm_size, found.region, found.usd) == (NC80, "spaincentral", pytest.approx(18.148 / 2))
    assert run_cost(folder, Where(NC40, "eastus"), Table()).usd == pytest.approx(6.98 / 2), "who says it is heard"
    (folder / "environment.json").write_text(json.dumps({"azure": {"vm_size": None, "region": None}}))
    assert run_cost(folder, Where(), Table()).vm_size == NC40
    (folder / "environment.json").write_text(json.dumps({"azure": {"vm_size": "Standard_ND_old", "region": "eastus"}}))
    with pytest.raises(SpecError, match=r"its VM size Standard_ND_old: isn't a VM size in ncdemo's catalogue; give one with --size; known"):
        run_cost(folder, Where(), Table())


def test_a_killed_run_cost_at_least_its_last_sign_of_life(tmp_path: Path) -> None:
    folder = run(tmp_path, duration_s=None, status="running", train=None)
    with pytest.raises(SpecError, match="running, with no duration and no sample on record"):
        run_cost(folder, Where(NC40), Table())
    (folder / "samples.jsonl").write_text(json.dumps({"time_s": 60.0}) + "\n" + json.dumps({"time_s": 3600.0}) + '\n{"time_s": 39')
    found = run_cost(folder, Where(NC40), Table())
    assert (found.usd, found.whole, found.usd_per_mtok) == (pytest.approx(6.98), False, None)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Where(), "doesn't record its VM size; add --size, e.g. --size Standard_NC40ads_H100_v5"),
        (Where("Standard_NC24"), "--size Standard_NC24: isn't a VM size in ncdemo's catalogue; known: Standard_NC40ads"),
    ],
)
def test_a_size_that_nobody_says(where: Where, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        machine(run(tmp_path), where)


@pytest.mark.parametrize(("text", "why"), [(None, "no such file"), ("{", "can't be read")])
def test_a_folder_without_a_result(text: str | None, why: str, tmp_path: Path) -> None:
    if text:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(SpecError, match=f"result.json: {why}.*; give a run directory"):
        run_cost(tmp_path, Where(NC40), Table())
