"""Rules and dashboards: promtool's word on them, and each of their queries asked of a real Prometheus with real runs in it."""

import collections
import csv
import datetime
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.alert_rules import ALERTS, COST, rule_files
from ncdemo.infra.gpu_agents import COUNTERS
from ncdemo.infra.grafana import DASHBOARDS, DATASOURCE, dashboards
from ncdemo.spec.result import GpuSample, RunRecord, Sample, StepRecord
from ncdemo.spec.result_bench import Client, SearchResult
from ncdemo.spec.stack_file import load_stack
from workloads.metrics.exporters.export import export_run
from workloads.metrics.exporters.names import NAMES

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:ncdemo[_:]\w+|DCGM_\w+|push_time_seconds|ALERTS|up)\b")
BOARDS = {name: json.loads(text) for name, text in dashboards().items()}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]


def stack(*overrides: str) -> Any:
    return load_stack(ROOT / "stacks" / "Pulumi.aks-full.yaml", overrides).spec


def counters() -> set[str]:
    """Return what the DCGM exporter is told to export, read as it reads it: three fields, none quoted."""
    lines = [line for line in COUNTERS.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.reader(lines))
    assert {len(row) for row in rows} == {3}
    assert {row[1].strip() for row in rows} == {"gauge", "counter"}
    return {row[0] for row in rows}


def rules() -> list[dict[str, Any]]:
    return [rule for text in rule_files(stack()).values() for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def known() -> set[str]:
    return {*NAMES, *counters(), *(rule["record"] for rule in rules() if "record" in rule), "push_time_seconds", "up", "ALERTS"}


def metrics_of(expr: str) -> set[str]:
    return set(METRIC.findall(re.sub(r'"[^"]*"', '""', expr)))


def test_promtool_takes_the_rules_and_they_fire_when_they_should(servers, tmp_path):
    tool = servers.needs("promtool")
    for name, text in rule_files(stack()).items():
        (tmp_path / name).write_text(text)
        done = subprocess.run([tool, "check", "rules", tmp_path / name], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([tool, "test", "rules", Path(__file__).with_name("alerts_test.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_of_the_files_is_played_to():
    played = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())
    fired = {case["alertname"] for test in played["tests"] for case in test["alert_rule_test"] if case.get("exp_alerts")}
    groups = [group for path in ALERTS.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    assert fired == {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_the_cost_of_each_pool_is_counted_and_the_budget_watched(servers, tmp_path):
    spec = stack("cost_guard.monthly_budget_usd=200", "pools.2.vm_size=Standard_ND96isr_H200_v5")
    text = rule_files(spec)["cost.rules.yml"]
    pools = [rule["labels"]["pool"] for rule in yaml.safe_load(text)["groups"][0]["rules"] if rule.get("record") == COST]
    assert pools == ["nc40spot", "nc40", "nc80"], "a pool whose price in the region isn't known has none"
    (tmp_path / "cost.yml").write_text(text)
    gpu = 'DCGM_FI_DEV_GPU_UTIL{{Hostname="aks-{}-1-vmss{:06}", gpu="{}"}}'
    busy = [gpu.format("nc40", 0, 0), gpu.format("nc80", 0, 0), gpu.format("nc80", 0, 1), gpu.format("nc40spot", 3, 0)]
    # 6.98 + 17.64 + 6.98 USD per hour.
    note = "At pay-as-you-go prices, GPU nodes alone: spot costs less, the system pool, disks and storage come on top."
    # In the 81 minutes before the second look 31.6 x 82 / 60 USD were spent, x 730 / 24 of them in a month of such days.
    ahead = {"summary": "A month like the last 24 hours costs 1314 USD; the budget is 200", "description": note}
    spent = {"summary": "164 USD in 30 days; the budget for them is 200", "description": note}
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": "50x320"} for series in busy],
        "alert_rule_test": [
            {"eval_time": "65m", "alertname": "NcdemoCostRate"},
            {"eval_time": "81m", "alertname": "NcdemoCostRate", "exp_alerts": [{"exp_labels": {"severity": "warning"}, "exp_annotations": ahead}]},
            {"eval_time": "300m", "alertname": "NcdemoBudget"},
            {"eval_time": "310m", "alertname": "NcdemoBudget", "exp_alerts": [{"exp_labels": {"severity": "critical"}, "exp_annotations": spent}]},
        ],
        "promql_expr_test": [
            {"expr": f"sum({COST})", "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 31.6}]},
            {"expr": f'{COST}{{pool="nc80"}}', "eval_time": "5m", "exp_samples": [{"labels": f'{COST}{{pool="nc80"}}', "value": 17.64}]},
        ],
    }  # fmt: skip
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["cost.yml"], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([servers.needs("promtool"), "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stack_without_prices_or_gpus_of_ours_has_no_rules_about_them():
    assert set(rule_files(stack("location=westeurope"))) == {"runs.rules.yml", "gpus.rules.yml"}
    assert "NcdemoBudget" not in rule_files(stack("cost_guard.monthly_budget_usd=null"))["cost.rules.yml"]


def answers(servers, tmp_path: Path, series: dict[str, str], expected: list[tuple[str, str, list[tuple[str, float]]]]) -> None:
    """Have Prometheus' own engine say what queries find in series of one value a minute: (query, when, [(labels, value)])."""
    cases = [
        {"expr": expr, "eval_time": at, "exp_samples": [{"labels": labels, "value": value} for labels, value in found]}
        for expr, at, found in expected
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": cases,
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([servers.needs("promtool"), "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def queries(board: str, title: str, **variables: str) -> list[str]:
    """Return a panel's queries with Grafana's variables put in."""
    (panel,) = [panel for name, panel in PANELS if (name, panel["title"]) == (board, title)]
    found = [target["expr"] for target in panel["targets"]]
    for name, value in variables.items():
        found = [expr.replace(f"${name}", value) for expr in found]
    return found


def test_a_run_that_goes_back_to_a_checkpoint_has_a_gap_and_no_spike(servers, tmp_path):
    """100 tokens/s, then 30,000 tokens back, and on. Prometheus' rate would take the 91,000 for new ones."""
    (expr,) = queries("training.json", "Tokens per second of wall time", run=".*", __rate_interval="4m")
    totals = {'ncdemo_train_tokens_total{run="r"}': "0+6000x20 91000+6000x20"}
    steady = [('{run="r"}', 100.0)]
    answers(servers, tmp_path, totals, [(expr, "19m", steady), (expr, "22m", []), (expr, "24m", []), (expr, "27m", steady)])


def test_every_eviction_in_the_range_counts_and_none_before_it(servers, tmp_path):
    """One run is evicted five times, of which four are in the last hour; another was evicted long ago and lies in the gateway."""
    ranged, ever = queries("cluster.json", "Spot evictions", __range="1h")
    series = {
        'ncdemo_run_evictions_total{run="often", instance="n"}': "0x30 1x70 2x5 3x5 4x5 5x60",
        'ncdemo_run_evictions_total{run="once", instance="pod"}': "0x5 1x160",
    }
    answers(servers, tmp_path, series, [(ranged, "130m", [("{}", 4.0)]), (ever, "130m", [("{}", 6.0)])])
    answers(servers, tmp_path, {"up": "1x200"}, [(ranged, "130m", [("{}", 0.0)])])


def test_only_metrics_that_exist_are_named():
    asked = {name: metrics_of(rule["expr"]) for rule in rules() if (name := rule.get("alert") or rule["record"])}
    asked |= {f"{name}: {panel['title']}": metrics_of(t["expr"]) for name, panel in PANELS for t in panel["targets"]}
    assert {name: unknown for name, used in asked.items() if (unknown := used - known())} == {}
    assert all(asked.values())


def test_the_hardware_of_a_run_that_is_over_is_not_shown_as_busy():
    """The gateway keeps what its last push said until the run is retired."""
    bounds = {
        "gpu|host|process": "and on (job, run, instance, node) ncdemo:node_live",
        "bench_engine": "and on (job, run, instance) ncdemo:run_live",
    }
    for names, bound in bounds.items():
        momentary = re.compile(rf"\bncdemo_(?:{names})_")
        shown = {f"{name}: {panel['title']}": t["expr"] for name, panel in PANELS for t in panel["targets"] if momentary.search(t["expr"])}
        assert shown
        assert [title for title, expr in shown.items() if bound not in expr] == []


def test_panels_fill_the_grid_without_overlap_and_name_their_source():
    assert {path.name for path in DASHBOARDS.iterdir()} == {"cluster.json", "inference.json", "training.json"}
    for name, board in BOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert max(x for x, _ in cells) < 24
            assert not cells & taken, (name, panel["title"])
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        variables = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in board["panels"] for t in p.get("targets", ()))))
        assert used - {"__rate_interval", "__range", "1"} == variables  # $1: of label_replace
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    sources = {t["datasource"]["uid"] for _, panel in PANELS for t in (panel, *panel["targets"])}
    assert sources == {DATASOURCE}


def the_runs(train_run, bench_run) -> list[Path]:
    """Make a run that lives, one that failed and a benchmark in which requests failed; one GPU is lost, one has every reading."""
    now = datetime.datetime.now(datetime.UTC)
    started = (now - datetime.timedelta(seconds=90)).isoformat(timespec="milliseconds")
    live = train_run("live", gpus=3, lost=2, status="running", started_at=started, duration_s=None, train=None)
    gpu = {
        "utilization_pct": 93,
        "memory_used_bytes": 70 << 30,
        "power_w": 380,
        "energy_j": 9e6,
        "temperature_c": 61,
        "sm_clock_hz": 1.785e9,
        "memory_clock_hz": 2.619e9,
        "throttle_reasons": ["hw_thermal", "power_cap"],
        "xids": [79],
        "pcie_tx_bytes_per_s": 1e9,
        "pcie_rx_bytes_per_s": 2e9,
        "nvlink_tx_bytes": 5 << 30,
        "nvlink_rx_bytes": 6 << 30,
        "ecc_corrected": 3,
        "ecc_uncorrected": 0,
    }
    bench = bench_run(repeats=1, requests=670, flaw=True)
    live_bench = bench_run("more", status="running", bench=None, duration_s=None, started_at=started)
    for folder in (live, live_bench):
        gpus = [GpuSample(index=0, **gpu)] + [GpuSample(index=2, error="NVML says: GPU is lost")] * (folder == live)
        # The last sample is the one that is pushed.
        last = Sample.model_validate_json((folder / "samples.jsonl").read_text().splitlines()[-1]).model_copy(update={"gpus": gpus})
        with (folder / "samples.jsonl").open("a") as lines:
            lines.write(last.model_dump_json() + "\n")
    step = StepRecord.model_validate_json((live / "steps.jsonl").read_text().splitlines()[-1]).model_copy(update={"mfu": 0.41})
    with (live / "steps.jsonl").open("a") as lines:
        lines.write(step.model_dump_json() + "\n")
    record = RunRecord.model_validate_json((bench / "result.json").read_text())
    client = Client(processes=1, cpu_share=0.2, events_per_s=900, max_lateness_s=0.004)
    cells = [cell.model_copy(update={"client": client, "energy_j_per_token": 0.5, "usd_per_mtok": 1.25}) for cell in record.bench.cells]
    search = SearchResult(engine="vllm", model="m", max_goodput_rate_rps=4.0, above_rps=4.1, runs=3, reason="bracketed within 5%")
    changed = record.model_copy(update={"bench": record.bench.model_copy(update={"cells": cells, "searches": [search]})})
    (bench / "result.json").write_text(changed.model_dump_json())
    broken = train_run("broken", seed=3, status="failed", reason="out of memory", train=None, started_at=started)
    return [live, train_run("done", seed=2, gpus=1), broken, bench, live_bench]


@pytest.fixture
def seen(train_run, bench_run, gateway, servers, observed, tmp_path):
    runs = the_runs(train_run, bench_run)
    for folder in runs:
        assert export_run(folder, gateway)
    with observed.prometheus(servers, tmp_path / "prometheus", rule_files(stack()), gateway) as found:
        yield found


def test_every_rule_and_every_panel_has_an_answer(seen, gateway, tmp_path):
    """One test, as the servers and what they have seen are what takes time."""
    variables = r"\$(?:run|engine|load|node)\b"
    silent, answers = [], collections.defaultdict(dict)
    for name, panel in PANELS:
        for target in panel["targets"]:
            expr = re.sub(variables, ".*", target["expr"]).replace("$__rate_interval", "30s").replace("$__range", "5m")
            found = seen.ask(expr)
            silent += [] if found else [f"{name}: {panel['title']}: {expr}"]
            for label in ("reason", "xid"):
                told = {series["metric"][label]: float(series["value"][1]) for series in found if label in series["metric"]}
                answers[f"{name}: {panel['title']}"].update(told)
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert all(labels <= series["metric"].keys() for series in found), (name, panel["title"])
    assert silent == []
    assert answers["training.json: GPUs slowed down, by reason"] == {
        "hw_slowdown": 0,
        "hw_thermal": 1,
        "hw_power_brake": 0,
        "power_cap": 1,
        "sw_thermal": 0,
    }
    assert answers["inference.json: GPU: XIDs"] == {"79": 1}
    live = tmp_path / "runs" / "live"
    last = Sample.model_validate_json((live / "samples.jsonl").read_text().splitlines()[-1])
    later = [gpu.model_copy(update={"nvlink_tx_bytes": 50 << 30}) for gpu in last.gpus]
    with (live / "samples.jsonl").open("a") as lines:
        lines.write(last.model_copy(update={"gpus": later}).model_dump_json() + "\n")
    assert export_run(live, gateway)
    assert seen.ask('rate(ncdemo_gpu_nvlink_transmit_bytes_total{run=~"live.*"}[30s]) > 0'), "what a counter gains is seen"
    assert any(series["metric"]["run"] == "done-1" for series in seen.ask("ncdemo_gpu_utilization_ratio")), "the gateway keeps it"
    (busy,) = queries("training.json", "GPU: busy", run=".*")
    assert {series["metric"]["run"] for series in seen.ask(busy)} == {"live-1"}
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            assert all(label in series["metric"] for series in seen.ask(re.sub(variables, ".*", selector)))
    for metric in set().union(*(metrics_of(rule["expr"]) for rule in rules())):
        assert seen.ask(f"count({metric})"), metric
    firing = {"NcdemoGpuXid", "NcdemoRunFailed", "NcdemoRunGpuXid"}
    pending = {"NcdemoGpuThrottled", "NcdemoGpuLost", "NcdemoRunGpuThrottled"}
    states = seen.alerts(firing | pending)
    # On a slow machine a minute may pass, after which what is pending fires.
    assert firing <= states["firing"]
    assert states["firing"] | states["pending"] == firing | pending
    found = [rule for group in seen.get("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []
    assert len(found) == len(rules())
