"""The loop: what a run writes, what it learns, and that its numbers mean what they say."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")


from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord  # noqa: E402
from workloads.training.core.plan import schedule  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "loss_20_steps.json"


def spec(path: Path, **changes) -> TrainSpec:
    base = {
        "model": {"name": str(path)},
        "data": {"train_examples": 60, "eval_examples": 16, "max_seq_len": 256},
        "train": {"max_steps": 20, "micro_batch_size": 2, "learning_rate": 0.01, "precision": "fp32", **changes.pop("train", {})},
        "telemetry": {"sample_hz": 5.0, "mlflow_uri": None},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values}
    return TrainSpec.model_validate_json(json.dumps(base))


def train(folder: Path, wanted: TrainSpec, command: list[str] | None = None) -> subprocess.CompletedProcess:
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    command = command or [sys.executable, "-m", "workloads.training.accelerate", "--run", str(folder)]
    env = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, **env})


def records(folder: Path, file: str, kind):
    return [kind.model_validate_json(line) for line in (folder / file).read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    wanted = spec(
        tiny_model, eval={"every_steps": 10, "exact_match_examples": 4, "max_new_tokens": 8}, checkpoint={"every_steps": 5, "keep": 2}
    )
    done = train(folder, wanted)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_loss_curve_is_the_golden_one(run: Path) -> None:
    """Renew with: NCDEMO_RENEW=1 pytest tests/training"""
    losses = [s.loss for s in records(run, "steps.jsonl", StepRecord)]
    if os.environ.get("NCDEMO_RENEW"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


def test_steps_add_up(run: Path) -> None:
    steps = records(run, "steps.jsonl", StepRecord)
    result = RunRecord.model_validate_json((run / "result.json").read_text())
    assert [s.step for s in steps] == list(range(1, 21))
    assert all(s.tokens_per_s == pytest.approx(s.tokens / s.step_time_s) for s in steps)
    assert all(0 < s.target_tokens < s.tokens for s in steps)
    assert all(a.end_s < b.end_s for a, b in itertools.pairwise(steps))
    assert result.status == "finished"
    assert result.train.tokens == sum(s.tokens for s in steps)
    assert result.train.padding_fraction == 0
    assert result.train.train_time_s == pytest.approx(sum(s.step_time_s for s in steps))
    assert result.train.dataset["train_examples"] == 60


def test_it_learns_and_evaluations_say_so(run: Path) -> None:
    evals = records(run, "evals.jsonl", EvalRecord)
    assert [e.step for e in evals] == [0, 10, 20]
    assert evals[0].loss == pytest.approx(math.log(49152), rel=0.02)  # a random model is as good as a guess
    assert evals[2].loss < evals[1].loss < evals[0].loss
    assert all(e.perplexity == pytest.approx(math.exp(e.loss)) for e in evals)
    assert [e.exact_match_examples for e in evals] == [4, None, 4]


def test_checkpoints_and_final_model_are_ordinary_folders(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000015", "step-00000020"]
    final, last = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (run / "model", run / "checkpoints" / "step-00000020"))
    assert all(torch.equal(final[name], last[name]) for name in final)
    assert AutoTokenizer.from_pretrained(run / "model").chat_template
    assert "ncdemo" not in (run / "model" / "config.json").read_text()  # our attention is ours, not the folder's


def test_the_run_directory_is_whole(run: Path) -> None:
    assert {p.name for p in run.iterdir()} >= {
        "spec.yaml",
        "environment.json",
        "result.json",
        "steps.jsonl",
        "evals.jsonl",
        "samples.jsonl",
        "model",
    }
    assert RunRecord.model_validate_json((run / "result.json").read_text()).schema_version == 1


def test_two_processes_give_the_losses_of_one(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The same global batch over two gloo ranks, by the launcher that `ncdemo train` uses."""
    from ncdemo.spec.job import workload_command

    wanted = spec(tiny_model, train={"processes": 2, "micro_batch_size": 1, "max_steps": 5, "schedule": "constant"})
    folder = tmp_path / "two"
    done = train(folder, wanted, list(workload_command(wanted, folder, sys.executable)))
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "one"
    done = train(alone, spec(tiny_model, train={"grad_accum_steps": 2, "micro_batch_size": 1, "max_steps": 5, "schedule": "constant"}))
    assert done.returncode == 0, done.stderr
    two, one = (records(f, "steps.jsonl", StepRecord) for f in (folder, alone))
    assert [s.loss for s in two] == pytest.approx([s.loss for s in one], rel=1e-5)
    assert [s.grad_norm for s in two] == pytest.approx([s.grad_norm for s in one], rel=1e-4)
    assert [s.tokens for s in two] == [s.tokens for s in one]
    assert RunRecord.model_validate_json((folder / "result.json").read_text()).train.world_size == 2


def test_lora_trains_few_weights_and_leaves_adapter_and_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "lora"
    done = train(folder, spec(tiny_model, train={"method": "lora", "lora": {"r": 4}, "max_steps": 4}))
    assert done.returncode == 0, done.stderr
    result = RunRecord.model_validate_json((folder / "result.json").read_text()).train
    assert result.trainable_parameters < result.parameters / 20
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(folder / "model")(ids).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder / "adapter")(ids).logits
        untrained = AutoModelForCausalLM.from_pretrained(tiny_model)(ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert (merged - untrained).abs().max() > 1e-3


def test_padding_is_counted(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    done = train(folder, spec(tiny_model, data={"packing": False}, train={"max_steps": 3, "micro_batch_size": 8}))
    assert done.returncode == 0, done.stderr
    assert 0.2 < RunRecord.model_validate_json((folder / "result.json").read_text()).train.padding_fraction < 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "/nowhere/model"}}, r"Error: model.name = '/nowhere/model': cannot be loaded"),
        ({"data": {"name": "nothing.jsonl"}}, r"Error: data.name = 'nothing.jsonl': no such file"),
        ({"data": {"max_seq_len": 16}}, r"Error: data.max_seq_len = 16: no example of ncdemo-jobs has an answer within it; raise it"),
        ({"train": {"processes": 2}}, r"Error: train.processes = 2: 1 are running; start with `ncdemo train accelerate`"),
        ({"train": {"method": "lora", "lora": {"target_modules": ["nope"]}}}, r"Error: train.lora.target_modules = \['nope'\]"),
    ],
)
def test_mistakes_are_one_line_and_recorded(tiny_model: Path, tmp_path: Path, changes: dict, message: str) -> None:
    import re

    folder = tmp_path / "bad"
    done = train(folder, spec(tiny_model, **changes))
    assert done.returncode == 2
    assert re.match(message, done.stderr.strip().splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_leaves_a_readable_run(tiny_model: Path, tmp_path: Path) -> None:
    import signal
    import time

    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump_spec(spec(tiny_model, train={"max_steps": 100_000})))
    process = subprocess.Popen([sys.executable, "-m", "workloads.training.accelerate", "--run", str(folder)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (folder / "steps.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    result = RunRecord.model_validate_json((folder / "result.json").read_text())
    assert result.status == "interrupted"
    assert "SIGTERM" in result.reason
    assert records(folder, "steps.jsonl", StepRecord)


@pytest.mark.parametrize(("shape", "end"), [("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)])
def test_schedule_warms_up_and_ends_where_it_should(shape: str, end: float) -> None:
    train_spec = TrainSpec.model_validate_json(json.dumps({"train": {"schedule": shape, "warmup_ratio": 0.1, "learning_rate": 1.0}})).train
    rates = [schedule(step, 100, train_spec) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(end, abs=0.02)
    assert max(rates) <= 1


def test_memory_is_that_of_the_rank_that_took_most() -> None:
    from types import SimpleNamespace

    from workloads.training.core.fit import _largest

    def rank(number: int, of_others: list[float]) -> SimpleNamespace:
        return SimpleNamespace(rank=number, world_size=3, sum=lambda own: own + torch.tensor(of_others, dtype=torch.float64))

    assert _largest(rank(0, [0, 5 << 30, 3 << 30]), 4 << 30) == 5 << 30
    assert _largest(rank(0, [0, 0, 0]), None) is None
