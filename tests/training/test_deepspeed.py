"""DeepSpeed: every stage learns what Accelerate learns, goes on exactly, and on other numbers of ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("deepspeed", reason="needs the train extra on Linux")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "loss_20_steps.json"
STAGES = [0, 1, 2, 3]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def spec(model: Path, stage: int, processes: int = 2, *, checkpoint: dict | None = None, **train) -> TrainSpec:
    return TrainSpec.model_validate_json(
        json.dumps(
            {
                "model": {"name": str(model)},
                "data": {"train_examples": 60, "eval_examples": 16, "max_seq_len": 256},
                "train": {
                    "strategy": "deepspeed",
                    "deepspeed": {"zero_stage": stage, **train.pop("deepspeed", {})},
                    "processes": processes,
                    "micro_batch_size": 2 // processes,
                    "max_steps": 20,
                    "learning_rate": 0.01,
                    "precision": "fp32",
                    **train,
                },
                "checkpoint": checkpoint or {},
                "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
            }
        )
    )


def job(folder: Path, wanted: TrainSpec, **more) -> dict:
    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    return {"folder": str(folder), "processes": wanted.train.processes, **more}


def run(where: Path, jobs: list[dict]) -> None:
    (where / "jobs.json").write_text(json.dumps(jobs))
    root = Path(__file__).parents[2]
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(where / "jobs.json")]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stderr[-4000:]


def losses(folder: Path) -> list[float]:
    return [StepRecord.model_validate_json(line).loss for line in (folder / "steps.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def stages(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps at every stage on two ranks, a checkpoint after step 10."""
    where = tmp_path_factory.mktemp("deepspeed")
    keep = {"every_steps": 10, "keep": 5}
    run(where, [job(where / f"zero{stage}", spec(tiny_model, stage, checkpoint=keep)) for stage in STAGES])
    return where


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_gives_the_golden_losses(stages: Path, stage: int) -> None:
    """The golden is Accelerate's on one rank with the same global batch."""
    assert losses(stages / f"zero{stage}") == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_the_final_model_is_an_ordinary_folder_with_what_was_learned(stages: Path, stage: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = stages / f"zero{stage}"
    model, first = (AutoModelForCausalLM.from_pretrained(stages / name / "model") for name in (folder.name, "zero0"))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-2, atol=1e-3)
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template
    result = RunRecord.model_validate_json((folder / "result.json").read_text()).train
    assert (result.world_size, result.trainable_parameters) == (2, sum(p.numel() for p in model.parameters()))
    evals = [EvalRecord.model_validate_json(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    assert evals[-1].loss < evals[0].loss


@pytest.fixture(scope="module")
def resumed(stages: Path, tiny_model: Path) -> Path:
    """Each stage again from its checkpoint of step 10."""
    import shutil

    jobs = []
    for stage in STAGES:
        folder = stages / f"again{stage}"
        shutil.copytree(stages / f"zero{stage}" / "checkpoints" / "step-00000010", folder / "checkpoints" / "step-00000010")
        jobs.append(job(folder, spec(tiny_model, stage, checkpoint={"every_steps": 10, "keep": 5, "resume": "must"})))
    run(stages, jobs)
    return stages


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_ends_bit_for_bit_where_the_undisturbed_one_does(resumed: Path, stage: int) -> None:
    one, again = resumed / f"zero{stage}", resumed / f"again{stage}"
    assert losses(again) == losses(one)
    ends = [state_of(folder / "checkpoints" / "step-00000020") for folder in (one, again)]
    assert_same(*ends)


def test_a_checkpoint_moves_to_other_ranks_and_stages_and_back_unchanged(stages: Path, tiny_model: Path, tmp_path: Path) -> None:
    start = stages / "zero2" / "checkpoints" / "step-00000010"
    path = [start, *(tmp_path / name for name in ("one-rank", "two-ranks-stage-3", "one-rank-stage-0", "two-ranks-stage-1"))]
    shapes = [(1, 2), (2, 3), (1, 0), (2, 1)]
    jobs = []
    for (processes, stage), source, target in zip(shapes, path, path[1:], strict=False):
        jobs.append(job(target, spec(tiny_model, stage, processes), restore=str(source)))
    run(tmp_path, jobs)
    for target in path[1:]:
        assert_same(state_of(start), state_of(target))


def test_it_offloads_clips_accumulates_and_takes_a_users_config(tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"reduce_bucket_size": 50_000, "stage": 2}, "gradient_clipping": "auto"}))
    same = {"micro_batch_size": 1, "grad_accum_steps": 1, "max_steps": 4, "schedule": "constant"}
    jobs = [
        job(tmp_path / "plain", spec(tiny_model, 2, **same)),
        job(tmp_path / "own", spec(tiny_model, 2, deepspeed={"config_file": str(config)}, **same)),
        job(tmp_path / "offload2", spec(tiny_model, 2, deepspeed={"offload_optimizer": True}, **same)),
        job(tmp_path / "offload3", spec(tiny_model, 3, deepspeed={"offload_optimizer": True, "offload_params": True}, **same)),
        job(tmp_path / "accumulated", spec(tiny_model, 2, 1, **{**same, "grad_accum_steps": 2})),
    ]
    run(tmp_path, jobs)
    for other in ("own", "offload2", "offload3", "accumulated"):
        assert losses(tmp_path / other) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5), other


def state_of(folder: Path) -> tuple[dict, dict]:
    from workloads.training.deepspeed.state import read

    return read(folder)


def assert_same(one: tuple[dict, dict], other: tuple[dict, dict]) -> None:
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1].keys() == other[1].keys()
    assert one[1]["step"] == other[1]["step"] > 0
    for name in one[1].keys() - {"step"}:
        assert all(torch.equal(one[1][name][key], other[1][name][key]) for key in ("exp_avg", "exp_avg_sq")), name
