"""Run directories as the workloads write them, from the same record types, with plausible numbers that repeat."""

import importlib.util
import json
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ncdemo.spec import BenchSpec, TrainSpec, dump_spec, parse_spec
from ncdemo.spec.record import Record
from ncdemo.spec.result import EvalRecord, GpuSample, RunRecord, Sample, StepRecord, TrainResult
from ncdemo.spec.result_bench import BenchResult, Cell, Distribution, Gates, RequestRecord
from ncdemo.spec.result_engine import EngineSample

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENVIRONMENT = {
    "git_commit": COMMIT,
    "git_dirty": False,
    "python": "3.11.9",
    "cpu": {"model": "Test CPU", "logical_cores": 2, "isa": ["avx2", "avx512f"]},
    "memory_total_bytes": 16 * 1024**3,
    "gpus": None,
    "packages": {"torch": "2.13.0", "transformers": "5.16.1"},
}
GATES = Gates(
    prompt_hash="ab" * 32, asked_tokens="32 exactly", temperature=0.0, precision="bf16", max_model_len=2048, memory_fraction=0.4,
    warmup_requests=2, prefix_cache="off", prefix_reuse=False, mode="server",
)  # fmt: skip
Make = Callable[..., Path]


def write_lines(path: Path, records: Iterable[Record]) -> None:
    path.write_text("".join(record.model_dump_json() + "\n" for record in records), encoding="utf-8")


def write_run(folder: Path, spec: TrainSpec | BenchSpec, record: RunRecord, environment: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump_spec(spec), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(record.model_dump(mode="json"), indent=1), encoding="utf-8")
    return folder


def steps(count: int, seed: int, speed: float) -> list[StepRecord]:
    noise, found, now = random.Random(seed), [], 6.0
    for step in range(1, count + 1):
        tokens = noise.randint(1800, 2048)
        took = tokens / (speed * noise.uniform(0.93, 1.04) * (0.6 if step == 1 else 1))
        now += took + (1.5 if step % 20 == 0 else 0)
        found.append(
            StepRecord(
                step=step,
                end_s=now,
                step_time_s=took,
                loss=0.35 + 2.1 * math.exp(-step / 14) + noise.gauss(0, 0.05),
                learning_rate=2e-5 * min(step / 3, 0.5 + 0.5 * math.cos(math.pi * step / count)),
                grad_norm=0.7 + 5 * math.exp(-step / 6) + noise.random() * 0.5,
                tokens=tokens,
                target_tokens=tokens // 3,
                examples=8,
                tokens_per_s=tokens / took,
            )
        )
    return found


def evaluation(step: int, end_s: float, loss: float, exact: float | None = None) -> EvalRecord:
    return EvalRecord(
        step=step,
        end_s=end_s,
        loss=loss,
        perplexity=math.exp(loss),
        token_accuracy=math.exp(-loss * 0.6),
        target_tokens=9000,
        exact_match=exact,
        exact_match_examples=None if exact is None else 64,
        field_accuracy=None if exact is None else 0.3 + exact * 0.7,
        eval_time_s=1.2,
    )


def samples(duration_s: float, seed: int, gpus: int = 0, lost: int | None = None) -> list[Sample]:
    noise, found = random.Random(seed), []
    for i in range(int(duration_s * 2)):
        now = i / 2
        devices = [
            GpuSample(index=g, error="NVML says: GPU is lost")
            if g == lost and now > duration_s * 0.6
            else GpuSample(
                index=g,
                utilization_pct=noise.uniform(82, 99) if now > 5 else 0,
                memory_used_bytes=int((8 + min(now, 10) * 5 + g) * 1024**3),
                power_w=noise.uniform(480, 640) if now > 5 else 90,
                temperature_c=60,
            )
            for g in range(gpus)
        ]
        first = i == 0
        found.append(
            Sample(
                time_s=now,
                cpu_pct=None if first else noise.uniform(85, 99),
                process_cpu_pct=None if first else noise.uniform(170, 199),
                process_rss_bytes=int(1.2e9 + min(now, 8) * 2e8),
                memory_used_bytes=int(5e9 + min(now, 8) * 2e8),
                disk_read_bytes_per_s=None if first else max(0.0, noise.gauss(2e5, 2e5)),
                disk_write_bytes_per_s=None if first else (3e8 if 30 < now % 40 < 33 else 4e4),
                net_recv_bytes_per_s=None if first else noise.uniform(0, 9e3),
                net_sent_bytes_per_s=None if first else noise.uniform(0, 4e3),
                gpus=devices,
            )
        )
    return found


@pytest.fixture
def train_run(tmp_path: Path) -> Make:
    """Make a training run of 60 steps."""

    def make(name: str = "demo", *, seed: int = 1, speed: float = 2400.0, gpus: int = 0, lost: int | None = None, **changes: Any) -> Path:
        done = steps(60, seed, speed)
        evals = [evaluation(0, 5.0, 2.48, 0.0), evaluation(20, done[19].end_s, 0.95), evaluation(40, done[39].end_s, 0.55)]
        evals.append(evaluation(60, done[-1].end_s + 4, 0.41, 0.71875))
        result = TrainResult(
            steps=60,
            examples=480,
            tokens=sum(s.tokens for s in done),
            target_tokens=sum(s.target_tokens for s in done),
            train_time_s=sum(s.step_time_s for s in done),
            tokens_per_s=sorted(s.tokens_per_s for s in done[1:])[29],
            peak_rss_bytes=3 * 1024**3,
            peak_vram_bytes=None if not gpus else 40 * 1024**3,
            energy_j=None if not gpus else 7_654_321.0,
            world_size=max(gpus, 1),
            precision="bf16" if gpus else "fp32",
            trainable_parameters=134_515_008,
            parameters=134_515_008,
            padding_fraction=0.031,
            truncated_examples=0,
            before=evals[0],
            after=evals[-1],
            model_dir="model",
            dataset={"name": "ncdemo-jobs", "fallback": False, "examples": 480, "revision": None},
        )
        spec = parse_spec(f"kind: train\nname: {name}\ntrain: {{max_steps: 60, seed: {seed}}}", TrainSpec)
        fields = {"kind": "train", "run_id": f"{name}-1", "name": name, "status": "finished", "spec_hash": spec.spec_hash()}
        fields |= {"started_at": "2026-01-02T03:04:05.678+00:00", "duration_s": done[-1].end_s + 6, "train": result}
        record = RunRecord.model_validate(fields | changes)
        folder = write_run(tmp_path / "runs" / name, spec, record, ENVIRONMENT)
        write_lines(folder / "steps.jsonl", done)
        write_lines(folder / "evals.jsonl", evals)
        write_lines(folder / "samples.jsonl", samples(done[-1].end_s + 6, seed, gpus, lost))
        return folder

    return make


@pytest.fixture
def bench_run(tmp_path: Path) -> Make:
    """Make a benchmark of 2 engines x 2 concurrencies; requests have raw stamps, cells sum them up."""

    def make(name: str = "bench", *, repeats: int = 2, requests: int = 16, flaw: bool = False, **changes: Any) -> Path:
        noise, now, cells, found, told = random.Random(3), 12.0, [], [], []
        for repeat in range(repeats):
            for load in (1, 8):
                for engine, pace in (("transformers", 0.045), ("vllm", 0.016)):
                    mine = [_request(noise, engine, load, repeat, i, now, pace, requests) for i in range(requests)]
                    if flaw and (engine, load, repeat) == ("vllm", 8, 0):
                        mine[3] = mine[3].model_copy(update=FAILED)
                    found += mine
                    if engine == "vllm":
                        told += _told(load, now, max(max(r.chunk_s, default=0) for r in mine))
                    cells.append(_cell(mine, engine, load, repeat, 0.62 if flaw and engine == "vllm" else 1.0))
                    now = max(max(r.chunk_s, default=0) for r in mine) + 1
        result = BenchResult(
            cells=cells,
            prompt_tokens=913,
            prompt_hash="ab" * 32,
            engine_versions={"transformers": "5.16.1", "vllm": "0.32.0"},
            load_time_s={"transformers smollm2-135m-instruct": 3.2, "vllm smollm2-135m-instruct": 21.7},
        )
        spec = parse_spec(f"kind: bench\nname: {name}\nengines: [transformers, vllm]\nconcurrency: [1, 8]\nrepeats: {repeats}", BenchSpec)
        fields = {"kind": "bench", "run_id": f"{name}-1", "name": name, "status": "finished", "spec_hash": spec.spec_hash()}
        fields |= {"started_at": "2026-01-02T04:00:00.000+00:00", "duration_s": now, "bench": result}
        folder = write_run(tmp_path / "runs" / name, spec, RunRecord.model_validate(fields | changes), ENVIRONMENT)
        write_lines(folder / "requests.jsonl", found)
        write_lines(folder / "engines.jsonl", told)
        write_lines(folder / "samples.jsonl", samples(now, 9))
        return folder

    return make


def _told(load: int, start: float, end: float) -> list[EngineSample]:
    """Return what an engine says of itself while it answers `load` requests at once and works on six of them at most."""
    who = {"engine": "vllm", "model": "smollm2-135m-instruct"}
    idle = {"running": 0, "waiting": 0, "kv_cache_used": 0.0}
    busy = {"running": min(load, 6), "waiting": max(0, load - 6), "kv_cache_used": 0.09 * load}
    looks = [(start - 0.1, idle), *((start + (end - start) * part, busy) for part in (0.2, 0.5, 0.8)), (end + 0.1, idle)]
    return [EngineSample(time_s=at_s, **who, **said) for at_s, said in looks]


FAILED = {"ok": False, "error": "ReadTimeout: no answer in 60 s", "chunk_s": [], "chunk_tokens": [], "ttft_s": None, "e2e_s": None}
FAILED |= {"tpot_s": None, "normalized_latency_s": None, "output_tokens": 0}


def _request(
    noise: random.Random, engine: str, load: int, repeat: int, index: int, start: float, pace: float, requests: int
) -> RequestRecord:
    pace *= 1 + 0.08 * load
    sent = start + (index // load) * 32 * pace * 1.05
    first = sent + noise.lognormvariate(math.log(pace * 3), 0.35)
    chunks = [first]
    for _ in range(31):
        chunks.append(chunks[-1] + pace * noise.lognormvariate(0, 0.15))
    return RequestRecord(
        engine=engine,
        model="smollm2-135m-instruct",
        concurrency=load,
        repeat=repeat,
        index=index,
        ok=True,
        prompt_tokens=57,
        output_tokens=32,
        scheduled_s=sent,
        sent_s=sent,
        chunk_s=chunks,
        chunk_tokens=[1] * 32,
        ttft_s=first - sent,
        ttft_from_schedule_s=first - sent,
        e2e_s=chunks[-1] - sent,
        tpot_s=(chunks[-1] - first) / 31,
        normalized_latency_s=(chunks[-1] - sent) / 32,
    )


def _cell(requests: list[RequestRecord], engine: str, load: int, repeat: int, agreement: float) -> Cell:
    good = [r for r in requests if r.ok]
    window = max(r.chunk_s[-1] for r in good) - min(r.sent_s for r in good)
    gaps = [after - before for r in good for before, after in zip(r.chunk_s, r.chunk_s[1:], strict=False)]
    return Cell(
        engine=engine,
        model="smollm2-135m-instruct",
        concurrency=load,
        repeat=repeat,
        requests=len(requests),
        failed=len(requests) - len(good),
        window_s=window,
        output_tokens_per_s=sum(r.output_tokens for r in good) / window,
        requests_per_s=len(good) / window,
        slo_attainment=len(good) / len(requests),
        goodput_rps=len(good) / window,
        ttft_s=_distribution([r.ttft_s for r in good]),
        e2e_s=_distribution([r.e2e_s for r in good]),
        tpot_s=_distribution([r.tpot_s for r in good]),
        itl_s=_distribution(gaps),
        equal_output_tokens=len(good) == len(requests),
        token_agreement=agreement,
        gates=GATES,
    )


def _distribution(values: list[float]) -> Distribution:
    """The percentiles that so few samples bound: p90 from 64, p99 from 662."""
    ordered, n = sorted(values), len(values)
    p90 = ordered[int(n * 0.9)] if n >= 64 else None
    p99 = ordered[int(n * 0.99)] if n >= 662 else None
    return Distribution(count=n, mean=sum(values) / n, p50=ordered[n // 2], p90=p90, p99=p99, min=ordered[0], max=ordered[-1])


@pytest.fixture(scope="session")
def browser() -> Any:
    """Return tests/browser.py as a module, from wherever pytest was started."""
    spec = importlib.util.spec_from_file_location("ncdemo_tests_browser", Path(__file__).parents[1] / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
