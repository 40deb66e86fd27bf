"""What every strategy's process does: read the run's spec, find where it was left, train.

if __name__ == "__main__":
    main_guard(lambda: run_rank(Accelerate))
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import NCDEMO_CHECKPOINT_URI, NCDEMO_JOB, node_count
from ncdemo.spec.load import load_spec
from ncdemo.spec.train import TrainSpec
from workloads.metrics.exporters.live import live
from workloads.metrics.sampler import Sampler
from workloads.run import open_run, write_text
from workloads.stop import StopRequest
from workloads.storage import Storage
from workloads.training.core.checkpoint import Checkpoints, newest, wanted
from workloads.training.core.fit import Start, fit
from workloads.training.core.position import Position, read_position
from workloads.training.core.store import BlobStore, LocalStore, Store
from workloads.training.core.strategy import Strategy


def run_rank(make: Callable[[TrainSpec], Strategy]) -> None:
    """Run one rank of a training run, from its newest checkpoint on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run directory with the resolved spec.yaml")
    folder = parser.parse_args().run
    spec = load_spec(folder / "spec.yaml", TrainSpec)
    stop = StopRequest().install()
    strategy = make(spec)
    store = open_store(spec, folder)
    start = find_start(spec, store, strategy)
    checkpoints = Checkpoints(store, strategy.rank, strategy.world_size, spec.checkpoint.keep)
    if strategy.rank != 0:
        with _telemetry_of_node(spec, folder, start.position):
            fit(spec, folder, None, strategy, start, checkpoints, stop)
        return
    rewind(folder, start.position)
    with open_run(folder, spec, stop=stop, clock_s=start.position.clock_s) as run:
        fit(spec, folder, run, strategy, start, checkpoints, stop)


def open_store(spec: TrainSpec, folder: Path) -> Store:
    """Return where this run's checkpoints are. Raise SpecError when other nodes couldn't reach it."""
    uri, setting = spec.checkpoint.uri, "checkpoint.uri"
    if uri is None:
        uri, setting = os.environ.get(NCDEMO_CHECKPOINT_URI), NCDEMO_CHECKPOINT_URI
    if uri:
        return BlobStore(Storage(uri, setting), os.environ.get(NCDEMO_JOB) or folder.name, folder / "checkpoints")
    if node_count(os.environ) > 1 and spec.checkpoint.every_steps:
        raise SpecError(
            "checkpoint.uri = None: nodes can't read each other's disks; name a folder that all reach, e.g. az://checkpoints, or set every_steps to null"
        )
    return LocalStore(folder / "checkpoints")


def find_start(spec: TrainSpec, store: Store, strategy: Strategy) -> Start:
    """Return where this attempt begins; rank 0 looks, and all ranks take the same."""
    step = 0
    if strategy.rank == 0:
        store.clear_parts()
        found = None if spec.checkpoint.resume == "never" else newest(store)
        found = wanted(found, spec.checkpoint.resume, store)
        step = found[0] if found else 0
    step = round(strategy.sum(torch.tensor([float(step)])).item())
    if not step:
        return Start(Position(), None, strategy.world_size)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        store.fetch(step, store.manifest(step))
    strategy.sum(torch.zeros(1))  # nobody reads before it is there
    folder = store.fetch(step, store.manifest(step))
    position, world_size = read_position(folder, spec, store.shown)
    return Start(position, folder, world_size)


@contextmanager
def _telemetry_of_node(spec: TrainSpec, folder: Path, position: Position) -> Iterator[None]:
    """Sample this rank's machine and export it: on each node after the first one rank does, on the first rank 0.

    Its clock is rank 0's to the moment at which both went on.
    """
    node = int(os.environ.get("GROUP_RANK", "0"))
    if not node or os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    _rewind_samples(folder, position)
    zero_ns = time.perf_counter_ns() - round(position.clock_s * 1e9)
    with live(folder, spec.telemetry, node), Sampler(folder / "samples.jsonl", spec.telemetry.sample_hz, zero_ns):
        yield


def rewind(folder: Path, position: Position) -> None:
    """Bring a run directory's records to a position: what came after it will come again."""
    for file, records in (("steps.jsonl", position.steps), ("evals.jsonl", position.evals)):
        _keep(folder / file, [record.model_dump_json() for record in records])
    _rewind_samples(folder, position)


def _rewind_samples(folder: Path, position: Position) -> None:
    samples = folder / "samples.jsonl"
    _keep(samples, [line for line in _lines(samples) if _time_s(line) <= position.clock_s] if position.step else [])


def _keep(path: Path, lines: list[str]) -> None:
    if lines:
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _time_s(line: str) -> float:
    try:
        return float(json.loads(line)["time_s"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed sampler
        return math.inf
