"""Unsloth, the real package on its own CPU backend: adapters learn, stay fp32, load elsewhere, and runs resume exactly.

Needs the unsloth extra: make test-unsloth. Its import takes half a minute, so the runs are few.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import EvalRecord, RunRecord, StepRecord  # noqa: E402

installed = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="needs the unsloth extra: make test-unsloth")


def spec(model: Path, **changes) -> TrainSpec:
    base = {
        "model": {"name": str(model)},
        "data": {"train_examples": 60, "eval_examples": 8, "max_seq_len": 256, "packing": False},
        "train": {
            "strategy": "unsloth",
            "method": "lora",
            "lora": {"r": 4},
            "max_steps": 6,
            "micro_batch_size": 2,
            "learning_rate": 0.01,
            "precision": "fp32",
        },
        "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values}
    return TrainSpec.model_validate_json(json.dumps(base))


def train(folder: Path, wanted: TrainSpec) -> subprocess.CompletedProcess:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(dump_spec(wanted))
    command = [sys.executable, "-m", "workloads.training.unsloth", "--run", str(folder)]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=220, env=env, cwd=Path(__file__).parents[2])


def losses(folder: Path) -> list[float]:
    return [StepRecord.model_validate_json(line).loss for line in (folder / "steps.jsonl").read_text().splitlines()]


@installed
@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_adapters_learn_resume_exactly_and_load_elsewhere(tiny_model: Path, tmp_path: Path, four_bit: bool) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    own = {"unsloth": {"load_in_4bit": four_bit}}
    wanted = spec(tiny_model, checkpoint={"every_steps": 3, "keep": 5}, train={**spec(tiny_model).to_dict()["train"], **own})
    one, again = tmp_path / "one", tmp_path / "again"
    done = train(one, wanted)
    assert done.returncode == 0, done.stderr[-3000:]
    evals = [EvalRecord.model_validate_json(line) for line in (one / "evals.jsonl").read_text().splitlines()]
    assert evals[-1].loss < evals[0].loss
    result = RunRecord.model_validate_json((one / "result.json").read_text()).train
    assert result.trainable_parameters < result.parameters / 10

    shutil.copytree(one / "checkpoints" / "step-00000003", again / "checkpoints" / "step-00000003")
    done = train(again, wanted)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(again) == losses(one)
    weights, resumed = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, again))
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert {value.dtype for value in weights.values()} == {torch.float32}

    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(one / "model")(ids).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), one / "adapter")(ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)


def test_packing_is_refused_with_the_reason(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"data.packing has no effect with train.strategy: unsloth.*set data.packing to false"):
        spec(tiny_model, data={"packing": True})


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is not None, reason="unsloth is installed here")
def test_without_the_package_one_line_says_how_to_get_it(tiny_model: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "run", spec(tiny_model))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last == "Error: train.strategy = 'unsloth': the package isn't installed; scripts/setup_env.sh --extra train --extra unsloth"
