"""DeepSpeed's config: generated from the spec, and a user's file that may add but not contradict."""

import json
import re
from pathlib import Path

import pytest

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import Train, TrainSpec
from workloads.training.deepspeed.config import generated, merged


def train(**deepspeed) -> Train:
    return TrainSpec.model_validate({"train": {"strategy": "deepspeed", "grad_accum_steps": 4, "deepspeed": deepspeed}}).train


def test_the_spec_in_deepspeeds_words() -> None:
    config = generated(train(zero_stage=3, offload_optimizer=True, offload_params=True), "bf16", world_size=2)
    assert config["train_batch_size"] == 8
    assert config["bf16"] == {"enabled": True}
    assert config["zero_optimization"] == {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    assert config["gradient_clipping"] == 1.0


def test_a_users_file_adds_and_auto_is_ours(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": "auto", "overlap_comm": True}, "wall_clock_breakdown": True}))
    config = merged(generated(train(zero_stage=2), "fp32", 1), str(file))
    assert config["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert config["wall_clock_breakdown"] is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"zero_optimization": {"stage": 1}}', r"zero_optimization.stage is 1 there and 2 by the spec; make them equal or remove it"),
        ('{"gradient_clipping": 0.5}', r"gradient_clipping is 0.5 there and 1.0 by the spec"),
        ('{"optimizer": {"type": "AdamW"}}', r"optimizer is set there; AdamW and the schedule are the spec's"),
        ("[1]", r"holds \[1\]; it must be a JSON object, as a DeepSpeed config is"),
        ("{", r"is not JSON \("),
        (None, r"No such file or directory; give the path of a DeepSpeed config in JSON"),
    ],
)
def test_mistakes_name_the_file_and_both_values(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "ds.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SpecError, match=f"^train.deepspeed.config_file = {re.escape(repr(str(file)))}: {message}"):
        merged(generated(train(zero_stage=2), "fp32", 1), str(file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "deepspeed", "deepspeed": {"zero_stage": 0, "offload_optimizer": True}}, "needs zero_stage 1, 2 or 3, and it is 0; raise it, or remove"),
        ({"strategy": "deepspeed", "deepspeed": {"offload_params": True}}, "offload_params needs zero_stage 3, and it is 2; raise it"),
        ({"deepspeed": {"zero_stage": 3}}, "deepspeed settings have no effect with strategy: accelerate"),
        ({"unsloth": {"load_in_4bit": True}}, "unsloth settings have no effect with strategy: accelerate"),
        ({"strategy": "unsloth"}, "strategy unsloth trains adapters alone; set train.method to lora"),
    ],
)  # fmt: skip
def test_settings_that_would_do_nothing_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSpec.model_validate({"train": changes, "data": {"packing": False}})
