"""A run directory to Prometheus metrics: one group for the run and its machine, and of a benchmark one more per engine.

A node after the first has a group of its own with its machine, from its own folder, which it alone has while the run goes on.

for group in groups(state, instance="node-1"): print(group.text())
"""

import functools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncdemo.spec.follow import NodeState, RunState
from ncdemo.spec.gpu_errors import SLOWDOWNS
from ncdemo.spec.job_labels import PROMETHEUS_JOB
from ncdemo.spec.result_bench import Cell, SearchResult, first_token
from ncdemo.spec.run_folder import evictions, run_id, run_of
from workloads.metrics.exporters.names import NAMES, PERCENTILES, STATUSES

MOST_SERIES = 500
"""Of one group: a benchmark of more cells than fit is exported in part, and says so."""
MOST_CHARACTERS = 100
"""Of a label's value: a model may be named by a path."""
STEP = {
    "loss": "ncdemo_train_loss",
    "learning_rate": "ncdemo_train_learning_rate",
    "grad_norm": "ncdemo_train_gradient_norm",
    "tokens_per_s": "ncdemo_train_tokens_per_second",
    "mfu": "ncdemo_train_mfu_ratio",
}
TOTALS = {
    "steps": "ncdemo_train_steps_total",
    "examples": "ncdemo_train_examples_total",
    "tokens": "ncdemo_train_tokens_total",
    "target_tokens": "ncdemo_train_target_tokens_total",
    "step_time_s": "ncdemo_train_step_seconds_total",
}
EVAL = {
    "loss": "ncdemo_eval_loss",
    "token_accuracy": "ncdemo_eval_token_accuracy_ratio",
    "exact_match": "ncdemo_eval_exact_match_ratio",
}
CELL = {
    "output_tokens_per_s": "ncdemo_bench_output_tokens_per_second",
    "requests_per_s": "ncdemo_bench_requests_per_second",
    "goodput_rps": "ncdemo_bench_goodput_requests_per_second",
    "slo_attainment": "ncdemo_bench_slo_attainment_ratio",
    "energy_j_per_token": "ncdemo_bench_energy_joules_per_token",
    "usd_per_mtok": "ncdemo_bench_usd_per_million_tokens",
}
LATENCIES = {name: f"ncdemo_bench_{name.removesuffix('_s')}_seconds" for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s")}
HOST = {
    "cpu_pct": ("ncdemo_host_cpu_busy_ratio", 0.01),
    "memory_used_bytes": ("ncdemo_host_memory_used_bytes", 1),
    "disk_read_bytes_per_s": ("ncdemo_host_disk_read_bytes_per_second", 1),
    "disk_write_bytes_per_s": ("ncdemo_host_disk_write_bytes_per_second", 1),
    "net_recv_bytes_per_s": ("ncdemo_host_network_receive_bytes_per_second", 1),
    "net_sent_bytes_per_s": ("ncdemo_host_network_transmit_bytes_per_second", 1),
    "process_cpu_pct": ("ncdemo_process_cpu_busy_cores", 0.01),
    "process_rss_bytes": ("ncdemo_process_resident_memory_bytes", 1),
}
GPU = {
    "utilization_pct": ("ncdemo_gpu_utilization_ratio", 0.01),
    "memory_used_bytes": ("ncdemo_gpu_memory_used_bytes", 1),
    "power_w": ("ncdemo_gpu_power_watts", 1),
    "energy_j": ("ncdemo_gpu_energy_joules_total", 1),
    "temperature_c": ("ncdemo_gpu_temperature_celsius", 1),
    "sm_clock_hz": ("ncdemo_gpu_sm_clock_hertz", 1),
    "memory_clock_hz": ("ncdemo_gpu_memory_clock_hertz", 1),
    "ecc_corrected": ("ncdemo_gpu_ecc_corrected_errors_total", 1),
    "ecc_uncorrected": ("ncdemo_gpu_ecc_uncorrected_errors_total", 1),
    "pcie_tx_bytes_per_s": ("ncdemo_gpu_pcie_transmit_bytes_per_second", 1),
    "pcie_rx_bytes_per_s": ("ncdemo_gpu_pcie_receive_bytes_per_second", 1),
    "nvlink_tx_bytes": ("ncdemo_gpu_nvlink_transmit_bytes_total", 1),
    "nvlink_rx_bytes": ("ncdemo_gpu_nvlink_receive_bytes_total", 1),
}


ENGINE = {
    "running": "ncdemo_bench_engine_running_requests",
    "waiting": "ncdemo_bench_engine_waiting_requests",
    "kv_cache_used": "ncdemo_bench_engine_kv_cache_used_ratio",
}


@dataclass
class Group:
    """What is pushed together: labels that all its series share, and the series."""

    key: dict[str, str]
    families: dict[str, Any] = field(default_factory=dict)
    series: int = 0
    dropped: int = 0

    def add(self, name: str, value: float | None, /, **labels: object) -> None:
        """Add one series; not measured is no series."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if value is None:
            return
        if self.series >= MOST_SERIES:
            self.dropped += 1
            return
        about = NAMES[name]
        kind = CounterMetricFamily if about.kind == "counter" else GaugeMetricFamily
        family = self.families.get(name) or self.families.setdefault(name, kind(name, about.help, labels=about.labels))
        family.add_metric([str(labels[label])[-MOST_CHARACTERS:] for label in about.labels], float(value))
        self.series += 1

    def collect(self) -> Iterable[Any]:
        return self.families.values()

    def text(self) -> str:
        """Return the series in Prometheus' text format, without the group's labels."""
        from prometheus_client import generate_latest

        return generate_latest(self).decode()


class OtherNode(NodeState):
    """A node after the first."""

    def __init__(self, folder: Path, rank: int) -> None:
        super().__init__(folder)
        self.rank = rank


def groups(state: RunState | OtherNode, instance: str, alive_s: float | None = None) -> list[Group]:
    """Return what a run, or a node of it, has to export now; nothing before a run's result.json could be read.

    `alive_s`: when it is (time.time()), said by who exports a run from beside it while it goes on.
    """
    if isinstance(state, OtherNode):
        return [_node(state, instance, alive_s)]
    record = state.record
    if record is None:
        return []
    key = {"job": PROMETHEUS_JOB, "run": record.run_id, "instance": instance}
    run = Group(key | strategy(state))
    cells = state.measured()
    engines = {
        engine: Group({**key, "engine": engine}) for engine in dict.fromkeys([*(c.engine for c in cells), *state.requests, *state.engines])
    }
    _run(run, state, alive_s)
    _train(run, state)
    for engine, group in engines.items():
        for ok, count in state.requests.get(engine, {}).items():
            group.add("ncdemo_bench_requests_total", count, outcome="ok" if ok else "failed")
        said = state.engines.get(engine, {})
        for name, metric in ENGINE.items():
            group.add(metric, said.get(name), model=said.get("model"))
        _cells(group, [cell for cell in cells if cell.engine == engine])
        _searches(group, [one for one in (record.bench.searches if record.bench else ()) if one.engine == engine])
    _machine(run, state, 0, state.started)
    found = [run, *engines.values()]
    for group in found:
        group.series = 0  # room for this one
        group.add("ncdemo_export_dropped_series", group.dropped)
    return found


def _node(state: OtherNode, instance: str, alive_s: float | None) -> Group:
    """Return what a node after the first has to export: two may be pods of one machine, so its rank is part of the key."""
    key = {"job": PROMETHEUS_JOB, "run": run_id(run_of(state.folder, state.rank), "train"), "instance": instance, "node": str(state.rank)}
    group = Group(key | strategy(state))
    _machine(group, state, state.rank, None)
    group.add("ncdemo_run_seen_timestamp_seconds", _sampled_s(state, None) if alive_s is None else alive_s, node=state.rank)
    return group


def strategy(state: RunState | OtherNode) -> dict[str, str]:
    """Return the label that a training run has and a benchmark hasn't, read from its spec."""
    if isinstance(state, RunState) and (state.record is None or state.record.kind != "train"):
        return {}
    path = state.folder / "spec.yaml"
    try:
        return {"strategy": _strategy(path, path.stat().st_mtime_ns)}
    except OSError:
        return {"strategy": "unknown"}


@functools.lru_cache(maxsize=16)
def _strategy(path: Path, _written_ns: int) -> str:
    """Read it once per file: YAML takes longer than all the rest of a push."""
    import yaml

    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["train"]["strategy"])
    except (yaml.YAMLError, KeyError, TypeError):
        return "unknown"


def _run(group: Group, state: RunState, alive_s: float | None) -> None:
    record, started = state.record, state.started
    assert record is not None
    assert started is not None
    group.add("ncdemo_run_info", 1, kind=record.kind, name=record.name, spec_hash=record.spec_hash)
    for status in STATUSES:
        group.add("ncdemo_run_status", record.status == status, status=status)
    group.add("ncdemo_run_evictions_total", evictions(state.folder))
    group.add("ncdemo_run_started_timestamp_seconds", started)
    group.add("ncdemo_run_last_progress_timestamp_seconds", started + state.progress_s)
    said = max(started + state.progress_s, _sampled_s(state, started) or 0.0) if record.duration_s is None else started + record.duration_s
    group.add("ncdemo_run_seen_timestamp_seconds", said if alive_s is None else alive_s, node=0)
    group.add("ncdemo_run_duration_seconds", record.duration_s)


def _train(group: Group, state: RunState) -> None:
    record = state.record
    assert record is not None
    if record.kind == "train":
        for name, metric in TOTALS.items():
            group.add(metric, state.totals[name])
    for name, metric in STEP.items():
        group.add(metric, state.step.get(name))
    for which, evaluation in state.evals.items():
        for name, metric in EVAL.items():
            group.add(metric, evaluation.get(name), evaluation=which)
    if state.record and (result := state.record.train):
        group.add("ncdemo_train_median_mfu_ratio", result.mfu)
        group.add("ncdemo_train_median_tokens_per_second", result.tokens_per_s)
        group.add("ncdemo_train_world_size", result.world_size)
        group.add("ncdemo_train_peak_vram_bytes", result.peak_vram_bytes)
        group.add("ncdemo_train_energy_joules", result.energy_j)


def _cells(group: Group, cells: list[Cell]) -> None:
    """Add the figures of an engine's cells, repeats folded into their median."""
    if not cells:
        return
    group.add("ncdemo_bench_unmeasured_cells", sum(cell.error is not None for cell in cells))
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.model, _load(cell)), []).append(cell)
    for (model, load), repeats in alike.items():
        for name, metric in CELL.items():
            group.add(metric, _median(getattr(cell, name) for cell in repeats), model=model, load=load)
        for name, metric in LATENCIES.items():
            for percentile in PERCENTILES:
                known = [found for cell in repeats if (found := getattr(cell, first_token(cell.concurrency) if name == "ttft_s" else name))]
                values = [getattr(found, percentile) for found in known]
                group.add(metric, _median(values), model=model, load=load, percentile=percentile)
        group.add("ncdemo_bench_in_flight_requests", _median(_in_flight(cell) for cell in repeats), model=model, load=load)
        late = [cell.client.max_lateness_s for cell in repeats if cell.client]
        group.add("ncdemo_bench_send_lateness_seconds", max(late, default=None), model=model, load=load)


def _searches(group: Group, searches: Iterable[SearchResult]) -> None:
    """Add where searches for the highest rate ended; one that found none has no series."""
    for one in searches:
        load = " ".join(filter(None, (one.variant, "searched", one.lengths)))
        group.add("ncdemo_bench_highest_rate_requests_per_second", one.max_goodput_rate_rps, model=one.model, load=load)


def _load(cell: Cell) -> str:
    """Return what sets cells apart that are no repeats of each other: precision and the like, and the load in words."""
    return " ".join(filter(None, (cell.variant, cell.setting or f"concurrency {cell.concurrency}")))


def _in_flight(cell: Cell) -> float | None:
    """Return how many requests were under way on average, by Little's law."""
    return cell.e2e_s.mean * cell.e2e_s.count / cell.window_s if cell.e2e_s and cell.window_s else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _machine(group: Group, state: NodeState, node: int, started: float | None) -> None:
    """Add a node's hardware, `started` as _sampled_s() has it."""
    sample = state.sample
    group.add("ncdemo_run_last_sample_timestamp_seconds", _sampled_s(state, started), node=node)
    for name, (metric, scale) in HOST.items():
        group.add(metric, _scaled(sample.get(name), scale), node=node)
    for gpu in sample.get("gpus") or ():
        where = {"node": node, "gpu": gpu["index"]}
        group.add("ncdemo_gpu_up", gpu.get("error") is None, **where)
        for name, (metric, scale) in GPU.items():
            group.add(metric, _scaled(gpu.get(name), scale), **where)
        if (reasons := gpu.get("throttle_reasons")) is not None:
            for reason in SLOWDOWNS:
                group.add("ncdemo_gpu_throttled", reason in reasons, **where, reason=reason)
    for (gpu, xid), count in state.errors.xids.items():
        group.add("ncdemo_gpu_xid_errors_total", count, node=node, gpu=gpu, xid=xid)


def _sampled_s(state: NodeState, started: float | None) -> float | None:
    """Return when a node was last sampled; `started`: when its clock was zero, for samples of older versions, which say no time of the day."""
    at_s: float | None = state.sample.get("unix_s")
    return started + state.sample["time_s"] if at_s is None and started is not None and state.sample else at_s


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
