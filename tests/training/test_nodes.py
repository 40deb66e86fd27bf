"""Training on several nodes: two on this machine's loopback compute what one node with two ranks does."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="needs the train extra")

from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.common import Telemetry
from ncdemo.spec.job import workload_command, workload_env
from ncdemo.spec.result import RunRecord, Sample, StepRecord


def spec(model: Path, processes: int) -> TrainSpec:
    return TrainSpec.model_validate_json(
        json.dumps(
            {
                "model": {"name": str(model)},
                "data": {"train_examples": 60, "eval_examples": 8, "max_seq_len": 256},
                "train": {"max_steps": 4, "processes": processes, "learning_rate": 0.01, "precision": "fp32"},
                "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
            }
        )
    )


def start(folder: Path, wanted: TrainSpec, **place) -> subprocess.Popen:
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    env = {**os.environ, **workload_env(wanted, nodes=place.get("nodes", 1)), "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(workload_command(wanted, folder, sys.executable, **place), stderr=subprocess.PIPE, env=env, text=True)


def end(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def last_served(port: int, process: subprocess.Popen) -> str:
    """Return the last /metrics page that has samples, or any, while a process lives."""
    found = ""
    while process.poll() is None and "ncdemo_host" not in found:
        with suppress(OSError):
            found = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        time.sleep(0.05)
    return found


def test_two_nodes_give_the_losses_of_two_ranks_on_one(tiny_model: Path, tmp_path: Path) -> None:
    port = free_port()
    nodes = [tmp_path / "node0", tmp_path / "node1"]
    sampled = spec(tiny_model, 1).model_copy(update={"telemetry": Telemetry(sample_hz=20, mlflow_uri=None)})
    shown = sampled.model_copy(update={"telemetry": Telemetry(sample_hz=20, mlflow_uri=None, metrics_port=free_port())})
    processes = [
        start(folder, wanted, nodes=2, node_rank=n, master_port=port)
        for n, (folder, wanted) in enumerate(zip(nodes, (sampled, shown), strict=True))
    ]
    served = last_served(shown.telemetry.metrics_port, processes[1])
    end(*processes)
    assert 'ncdemo_host_memory_used_bytes{node="1",run="node1",strategy="accelerate"}' in served
    end(start(tmp_path / "one", spec(tiny_model, 2)))

    several, one = (
        [StepRecord.model_validate_json(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        for folder in (nodes[0], tmp_path / "one")
    )
    assert len(several) == 4
    assert [s.loss for s in several] == pytest.approx([s.loss for s in one], rel=1e-5)
    assert [s.grad_norm for s in several] == pytest.approx([s.grad_norm for s in one], rel=1e-4)
    assert [s.tokens for s in several] == [s.tokens for s in one]
    result = RunRecord.model_validate_json((nodes[0] / "result.json").read_text())
    assert result.train.world_size == 2
    assert sorted(os.listdir(nodes[1])) == ["samples.jsonl", "spec.yaml"], "the run is rank 0's, its machine each node's own"
    first, second = ([Sample.model_validate_json(line) for line in (node / "samples.jsonl").read_text().splitlines()] for node in nodes)
    assert len({sample.tick for sample in second}) == len(second) > 1, "one sampler a node"
    assert second[0].time_s < 2, "its clock is the run's"
    zeros = [min(sample.unix_s - sample.time_s for sample in found) for found in (first, second)]
    assert abs(zeros[1] - zeros[0]) < 2, "they are of one machine, so unix_s tells how far apart their zeros are"
    assert abs(second[-1].time_s - first[-1].time_s) < 5


def test_a_node_that_is_alone_says_so(tiny_model: Path, tmp_path: Path) -> None:
    """Two nodes were asked for, and the launcher was told of one."""
    folder = tmp_path / "alone"
    wanted = spec(tiny_model, 1)
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    command = [sys.executable, "-m", "workloads.training.accelerate", "--run", str(folder)]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "NCDEMO_NODES": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last
        == "Error: train.processes = 1 on each of 2 nodes: 1 are running; start with `python -m workloads.entrypoint` on each node, which launches them"
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_that_never_comes_is_an_error_in_time(rank: int, tiny_model: Path, tmp_path: Path) -> None:
    """Two nodes are declared and one starts. The job says who is missing, in its log, its record and its exit code."""
    wanted = spec(tiny_model, 1)
    wanted = wanted.model_copy(update={"train": wanted.train.model_copy(update={"rendezvous_timeout_s": 3})})
    (tmp_path / "run.yaml").write_text(dump_spec(wanted))
    env = {"NCDEMO_RUNS": str(tmp_path), "NCDEMO_JOB": "pair", "NCDEMO_NODES": "2", "NCDEMO_NODE_RANK": str(rank)}
    command = [sys.executable, "-m", "workloads.job", "--spec", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=100)
    who = "only 1 of 2 nodes came to 127.0.0.1:29500" if rank == 0 else "node 0 (127.0.0.1:29500) did not answer node 1"
    message = (
        f"train.rendezvous_timeout_s = 3: {who} in that time; see why the others didn't start "
        "(no capacity, image, network, NCDEMO_NODE_RANK), or raise it"
    )
    assert done.returncode == 1, done.stderr
    assert f"Error: {message}" in done.stderr.splitlines()
    if rank == 0:
        result = RunRecord.model_validate_json((tmp_path / "pair" / "result.json").read_text())
        assert (result.status, result.reason) == ("failed", message)
