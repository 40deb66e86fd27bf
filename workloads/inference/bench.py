"""The benchmark: every engine x model x concurrency on the same prompts, repeats interleaved, one record per request.

    python -m workloads.inference.bench --run runs/bench      # runs/bench/spec.yaml says what to measure

For each model all engines are loaded side by side, and then measured in turn (A B A B ...), so that drift of the machine
hits them alike. Only one engine works at a time.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.common import ModelRef
from ncdemo.spec.load import load_spec
from ncdemo.spec.result import BenchResult, Cell
from workloads.data.models import load_tokenizer, model_path
from workloads.inference.frameworks import engine_version
from workloads.inference.frameworks.base import Answer, Params, Prompt, Settings
from workloads.inference.metrics import agreement, cell, request_record
from workloads.inference.prompts import load_prompts, prompt_hash
from workloads.run import Run, main_guard, open_run, progress

log = logging.getLogger("ncdemo.bench")


class Worker:
    """One engine with one model in its own process; `with` ends it."""

    def __init__(self, engine: str, path: str, settings: Settings) -> None:
        threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        # The same number of threads for every engine.
        env = {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", **os.environ, "NCDEMO_PROGRESS": "0"}
        command = [sys.executable, "-m", "workloads.inference.worker", engine, path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        start = time.perf_counter()
        self.error = self._ask({"settings": asdict(settings)}).get("error")
        self.load_time_s = time.perf_counter() - start

    def run(self, prompts: Sequence[Prompt], params: Params) -> list[Answer] | str:
        """Return the answers, or why there are none."""
        if self.error:
            return self.error
        reply = self._ask({"prompts": [(p.index, p.token_ids) for p in prompts], "params": asdict(params)})
        return [Answer(**a) for a in reply["answers"]] if "answers" in reply else str(reply["error"])

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self.error = f"the engine's process ended (exit {self._process.wait()}); its last words are in the log"
        return {"error": self.error}

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # an engine that died took its end of the pipe with it
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def bench(spec: BenchSpec, run: Run) -> None:
    """Measure every cell of the sweep; write requests as they come and the cells into the run's result."""
    cells: list[Cell] = []
    load_times: dict[str, float] = {}
    first_prompts: list[Prompt] = []
    settings = Settings(_precision(spec), spec.max_model_len, spec.memory_fraction, max(spec.concurrency))
    total = len(spec.models) * len(spec.engines) * (1 + len(spec.concurrency) * spec.repeats)
    done = 0
    for ref in spec.models:
        tokenizer = load_tokenizer(ref)
        prompts = load_prompts(spec.prompts, tokenizer, spec.max_model_len - spec.sampling.max_new_tokens)
        first_prompts = first_prompts or prompts
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for engine in spec.engines:
                progress("bench", done, total)
                worker = workers[engine] = stack.enter_context(Worker(engine, model_path(ref), settings))
                load_times[f"{engine} {ref.shown}"] = worker.load_time_s
                log.info("%s with %s: %s", engine, ref.shown, worker.error or f"ready after {worker.load_time_s:.1f} s")
                if spec.warmup_requests:
                    worker.run(prompts[: spec.warmup_requests], _params(spec, max(spec.concurrency)))
                done += 1
            for repeat in range(spec.repeats):
                for concurrency in spec.concurrency:
                    reference: list[Answer] | None = None
                    for engine, worker in workers.items():
                        answers = worker.run(prompts, _params(spec, concurrency))
                        if reference is None and not isinstance(answers, str):
                            reference = answers
                        measured = _measure(spec, run, ref, engine, concurrency, repeat, prompts, answers, reference, tokenizer)
                        cells.append(measured)
                        run.bench = _result(spec, cells, first_prompts, load_times)
                        done += 1
                        progress("bench", done, total)
                        log.info("%s, %s, concurrency %d, repeat %d: %s", engine, ref.shown, concurrency, repeat,
                                 measured.error or f"{measured.output_tokens_per_s:.1f} tokens/s")  # fmt: skip


def _result(spec: BenchSpec, cells: list[Cell], prompts: list[Prompt], load_times: dict[str, float]) -> BenchResult:
    """Sum up what is measured so far, so that an interrupted benchmark keeps its cells."""
    return BenchResult(
        cells=list(cells),
        prompt_tokens=sum(len(p.token_ids) for p in prompts),
        prompt_hash=prompt_hash(prompts),
        engine_versions={engine: engine_version(engine) or "not installed" for engine in spec.engines},
        load_time_s=load_times,
    )


def _measure(spec: BenchSpec, run: Run, ref: ModelRef, engine: str, concurrency: int, repeat: int, prompts: list[Prompt],
             answers: list[Answer] | str, reference: list[Answer] | None, tokenizer: Any) -> Cell:  # fmt: skip
    """Turn one cell's answers into records and their sum; a cell without answers is a recorded failure."""
    if isinstance(answers, str):
        return Cell(
            engine=engine,
            model=ref.shown,
            concurrency=concurrency,
            repeat=repeat,
            requests=len(prompts),
            failed=len(prompts),
            error=answers,
        )
    records = []
    for answer in sorted(answers, key=lambda a: a.index):
        record = request_record(
            answer, engine=engine, model=ref.shown, concurrency=concurrency, repeat=repeat, zero_ns=run.zero_ns,
            prompt_tokens=len(prompts[answer.index].token_ids), text=tokenizer.decode(answer.token_ids),
        )  # fmt: skip
        run.append("requests.jsonl", record)
        records.append(record)
    expected = spec.sampling.max_new_tokens if spec.sampling.ignore_eos else None
    # Sampled texts differ by design; only greedy ones can be compared.
    agreed = agreement(answers, reference) if reference is not None and spec.sampling.temperature == 0 else None
    return cell(records, spec.slo, expected_tokens=expected, agreement=agreed)


def _params(spec: BenchSpec, concurrency: int) -> Params:
    s = spec.sampling
    return Params(concurrency, s.max_new_tokens, s.ignore_eos, s.temperature, s.seed)


def _precision(spec: BenchSpec) -> Literal["fp32", "bf16"]:
    if spec.precision != "auto":
        return spec.precision
    import torch

    return "bf16" if torch.cuda.is_available() else "fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run directory with the resolved spec.yaml")
    folder = parser.parse_args().run
    spec = load_spec(folder / "spec.yaml", BenchSpec)
    with open_run(folder, spec) as run:
        bench(spec, run)


if __name__ == "__main__":
    main_guard(main)
