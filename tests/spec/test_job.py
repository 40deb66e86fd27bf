"""The seam: what starts where, with which command, environment and name; and every module that it names is there."""

import importlib.util
import json
from pathlib import Path
from typing import get_args

import pytest

from ncdemo.spec import BenchSpec, SpecError, TrainSpec, dump_spec
from ncdemo.spec import job as seam
from ncdemo.spec.job import Node, job_command, job_name, load_run, workload_command, workload_env
from ncdemo.spec.train import Train

FOLDER = Path("/runs/tune")


def training(processes: int = 1) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps({"name": "tune", "train": {"processes": processes}}))


def test_every_module_that_the_seam_names_can_be_run() -> None:
    named = {seam.JOB_MODULE, *seam.WORKLOADS.values()}
    for module in named:
        assert importlib.util.find_spec(module), module
        package = importlib.util.find_spec(module).submodule_search_locations is not None
        assert not package or importlib.util.find_spec(f"{module}.__main__"), module


def test_the_launcher_is_there_with_the_train_extra() -> None:
    pytest.importorskip("accelerate", reason="needs the train extra")
    assert importlib.util.find_spec(seam.LAUNCHER)


def test_every_kind_and_strategy_has_a_workload() -> None:
    strategies = get_args(Train.model_fields["strategy"].annotation)
    assert set(seam.WORKLOADS) == {"bench", *(f"train {strategy}" for strategy in strategies)}
    assert {name.split()[0] for name in seam.WORKLOADS} == set(seam.RUNS)


def test_what_a_node_runs() -> None:
    assert job_command() == ("python", "-m", "workloads.entrypoint", "--spec", "/etc/ncdemo/run.yaml")


@pytest.mark.parametrize(
    ("processes", "place", "launch"),
    [
        (1, {}, "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"),
        (2, {}, "--num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --multi_gpu --main_process_port 0"),
        (
            8,
            {"nodes": 2, "node_rank": 1, "master_addr": "tune-0.tune"},
            "--num_processes 16 --num_machines 2 --mixed_precision no --dynamo_backend no --multi_gpu --main_process_port 29500 "
            "--machine_rank 1 --main_process_ip tune-0.tune --rdzv_conf timeout=600",
        ),
        (
            1,
            {"nodes": 2, "node_rank": 0, "master_port": 1234},
            "--num_processes 2 --num_machines 2 --mixed_precision no --dynamo_backend no --multi_gpu --main_process_port 1234 "
            "--machine_rank 0 --main_process_ip 127.0.0.1 --rdzv_conf timeout=600",
        ),
    ],
)
def test_training_is_launched_on_one_or_several_nodes(processes: int, place: dict, launch: str) -> None:
    command = workload_command(training(processes), FOLDER, "py", **place)
    assert " ".join(command) == f"py -m workloads.training.launch {launch} -m workloads.training.accelerate --run /runs/tune"


def test_a_benchmark_is_one_process() -> None:
    assert workload_command(BenchSpec(), FOLDER, "py") == ("py", "-m", "workloads.inference.bench", "--run", "/runs/tune")
    assert workload_env(BenchSpec()) == {"TOKENIZERS_PARALLELISM": "false"}


def test_ranks_share_the_cores_of_their_own_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert workload_env(training(4), nodes=2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workload_env(training(4))["OMP_NUM_THREADS"] == "3"


def test_a_run_on_one_machine_is_no_part_of_the_job_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCDEMO_NODES", raising=False)
    assert "NCDEMO_NODES" not in workload_env(training())
    assert workload_env(training(), nodes=2)["NCDEMO_NODES"] == "2"
    monkeypatch.setenv("NCDEMO_NODES", "2")
    assert workload_env(training())["NCDEMO_NODES"] == "1"


@pytest.mark.parametrize(
    ("env", "node"),
    [
        ({}, Node(1, 0, "127.0.0.1")),
        ({"NCDEMO_NODES": "", "NCDEMO_NODE_RANK": "", "NCDEMO_MASTER_ADDR": ""}, Node(1, 0, "127.0.0.1")),
        ({"NCDEMO_NODES": "2", "JOB_COMPLETION_INDEX": "1", "NCDEMO_MASTER_ADDR": "tune-0.tune"}, Node(2, 1, "tune-0.tune")),
        ({"NCDEMO_NODES": "4", "JOB_COMPLETION_INDEX": "1", "NCDEMO_NODE_RANK": "3"}, Node(4, 3, "127.0.0.1")),
    ],
)
def test_a_node_knows_its_place(env: dict[str, str], node: Node) -> None:
    assert Node.of(env) == node


@pytest.mark.parametrize("env", [{"NCDEMO_NODE_RANK": "-1"}, {"NCDEMO_NODES": "1.5"}, {"NCDEMO_NODES": "1", "NCDEMO_NODE_RANK": "1"}])
def test_a_place_that_cannot_be(env: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"NCDEMO_NODE\w+ = .*: must be"):
        Node.of(env)


def test_a_job_is_named_by_its_environment_or_its_content() -> None:
    assert job_name(training(), {"NCDEMO_JOB": "tune-3f2a"}) == "tune-3f2a"
    assert job_name(training(), {}) == f"tune-{training().spec_hash()}"
    with pytest.raises(SpecError, match=r"NCDEMO_JOB = '\.hidden': must be the name of a folder"):
        job_name(training(), {"NCDEMO_JOB": ".hidden"})


def test_a_spec_file_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for spec in (training(2), BenchSpec()):
        file.write_text(dump_spec(spec))
        assert load_run(file) == spec
