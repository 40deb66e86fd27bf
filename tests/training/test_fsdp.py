"""FSDP2 on two ranks: it really shards, learns what DDP learns, goes on exactly, and leaves one ordinary folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("deepspeed", reason="the forked ranks import it: train extra on Linux")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord  # noqa: E402

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "loss_20_steps.json"


def spec(model: Path, processes: int = 2, resume: str = "auto", every: int = 10, **train) -> TrainSpec:
    return TrainSpec.model_validate_json(
        json.dumps(
            {
                "model": {"name": str(model)},
                "data": {"train_examples": 60, "eval_examples": 16, "max_seq_len": 256},
                "train": {
                    "accelerate": {"sharding": "fsdp2"},
                    "processes": processes,
                    "max_steps": 20,
                    "learning_rate": 0.01,
                    "precision": "fp32",
                    **train,
                },
                "eval": {"every_steps": every, "exact_match_examples": 1, "max_new_tokens": 2},
                "checkpoint": {"every_steps": every, "keep": 5, "resume": resume},
                "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
            }
        )
    )


def job(folder: Path, wanted: TrainSpec) -> dict:
    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    return {"folder": str(folder), "processes": wanted.train.processes}


def run(where: Path, *jobs: dict) -> subprocess.CompletedProcess:
    (where / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(where / "jobs.json")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=220)


def records(folder: Path) -> list[StepRecord]:
    return [StepRecord.model_validate_json(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps, and again from the checkpoint in their middle, which follows an evaluation."""
    where = tmp_path_factory.mktemp("fsdp")
    done = run(where, job(where / "fsdp", spec(tiny_model)))
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.copytree(where / "fsdp" / at(10), where / "fsdp-again" / at(10))
    done = run(where, job(where / "fsdp-again", spec(tiny_model, resume="must")))
    assert done.returncode == 0, done.stderr[-4000:]
    return where


def at(step: int) -> str:
    return f"checkpoints/step-{step:08d}"


def test_losses_are_ddps(runs: Path) -> None:
    """The golden is that of one rank, which tests/training/test_fit.py compares with DDP."""
    assert [s.loss for s in records(runs / "fsdp")] == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)


def test_it_really_shards(runs: Path) -> None:
    result = RunRecord.model_validate_json((runs / "fsdp" / "result.json").read_text()).train
    assert (result.world_size, result.engine) == (2, "FSDP2, FSDPLlamaForCausalLM")
    parts = [torch.load(runs / "fsdp" / at(20) / f"fsdp2-0000{rank}.pt", weights_only=True) for rank in (0, 1)]
    held = [sum(part["weight"].numel() for part in own.values()) for own in parts]
    assert sum(held) == result.parameters, "every weight is on one rank"
    assert max(held) < 0.6 * result.parameters
    assert all(part["exp_avg"].shape == part["weight"].shape for own in parts for part in own.values())


def test_a_resumed_run_ends_bit_for_bit_where_the_undisturbed_one_does(runs: Path) -> None:
    assert_same(runs / "fsdp", runs / "fsdp-again", 20)


def assert_same(one: Path, again: Path, end: int) -> None:
    assert [s.loss for s in records(one)] == [s.loss for s in records(again)]
    for rank in (0, 1):
        a, b = (torch.load(run / at(end) / f"fsdp2-0000{rank}.pt", weights_only=True) for run in (one, again))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name][key], b[name][key]) for name in a for key in ("weight", "step", "exp_avg", "exp_avg_sq"))


def test_the_final_model_is_an_ordinary_folder_with_what_was_learned(runs: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = AutoModelForCausalLM.from_pretrained(runs / "fsdp" / "model").state_dict()
    parts = [torch.load(runs / "fsdp" / at(20) / f"fsdp2-0000{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in parts[0]:
        assert torch.equal(torch.cat([own[name]["weight"] for own in parts]), weights[name]), name
    assert AutoTokenizer.from_pretrained(runs / "fsdp" / "model").chat_template
    evals = [EvalRecord.model_validate_json(line) for line in (runs / "fsdp" / "evals.jsonl").read_text().splitlines()]
    assert evals[-1].loss < evals[0].loss
    assert evals[-1].exact_match_examples == 1


@pytest.mark.slow
def test_lora_and_a_users_own_config(tiny_model: Path, tmp_path: Path) -> None:
    """Adapters are sharded, resumed and saved as well; a user's Accelerate YAML changes memory and time, and no loss."""
    config = tmp_path / "accelerate.yaml"
    config.write_text("distributed_type: FSDP\nfsdp_config: {fsdp_reshard_after_forward: false, fsdp_activation_checkpointing: true}\n")
    lora = {"method": "lora", "max_steps": 4, "every": 2}
    own = {**lora, "accelerate": {"sharding": "fsdp2", "config_file": str(config)}}
    jobs = {"lora": lora, "ddp": {**lora, "accelerate": {}}, "own": own}
    done = run(tmp_path, *(job(tmp_path / name, spec(tiny_model, **more)) for name, more in jobs.items()))
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("lora", "own"):
        ours, theirs = records(tmp_path / name), records(tmp_path / "ddp")
        assert [s.loss for s in ours] == pytest.approx([s.loss for s in theirs], rel=1e-5)
        assert [s.grad_norm for s in ours] == pytest.approx([s.grad_norm for s in theirs], rel=1e-3)
    shutil.copytree(tmp_path / "lora" / at(2), tmp_path / "again" / at(2))
    assert run(tmp_path, job(tmp_path / "again", spec(tiny_model, resume="must", **lora))).returncode == 0
    assert_same(tmp_path / "lora", tmp_path / "again", 4)
    assert (tmp_path / "lora" / "adapter" / "adapter_model.safetensors").exists()


def test_other_numbers_of_ranks_are_refused(runs: Path, tiny_model: Path) -> None:
    shutil.copytree(runs / "fsdp" / at(10), runs / "three" / at(10))
    run(runs, job(runs / "three", spec(tiny_model, 3, resume="must")))
    said = "".join(path.read_text() for path in (runs / "three").glob("error-*.txt"))
    assert "SpecError: train.processes = 3: " in said
    assert "holds the parts of 2 ranks, and 3 run now; go on with as many, or begin anew with checkpoint.resume=never" in said


def test_one_rank_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run(tmp_path, job(tmp_path / "one", spec(tiny_model, 1)))
    said = (tmp_path / "one" / "error-0.txt").read_text()
    assert "sharding = 'fsdp2': one rank has nobody to share with; set train.processes to 2 or more, or none" in said
