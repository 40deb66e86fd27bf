"""The user's Accelerate YAML: it may add what FSDP2 knows, and contradict nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ncdemo.spec.base import SpecError
from ncdemo.spec.train import Train, TrainSpec
from workloads.training.accelerate.config import options

# As `accelerate config` 1.15 writes it for two GPUs with FSDP2.
USERS = """
compute_environment: LOCAL_MACHINE
debug: false
distributed_type: FSDP
downcast_bf16: 'no'
enable_cpu_affinity: false
fsdp_config:
  fsdp_activation_checkpointing: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: false
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_version: 2
machine_rank: 0
main_training_function: main
mixed_precision: bf16
num_machines: 1
num_processes: 2
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: false
"""


def train(file: Path, sharding: str = "fsdp2") -> Train:
    section = {"sharding": sharding, "config_file": str(file)}
    return TrainSpec.model_validate_json(json.dumps({"train": {"accelerate": section, "processes": 2}})).train


def found(tmp_path: Path, content: str | None, sharding: str = "fsdp2", precision: str = "bf16", **where: Any) -> dict[str, Any]:
    file = tmp_path / "accelerate.yaml"
    if content is not None:
        file.write_text(content)
    return options(train(file, sharding), precision=precision, **{"nodes": 1, "cpu": False, **where})


def changed(changes: dict[str, Any], **fsdp: Any) -> str:
    config = yaml.safe_load(USERS) | changes
    config["fsdp_config"] = (config["fsdp_config"] or {}) | fsdp if config["fsdp_config"] is not None else None
    return yaml.safe_dump(config)


def test_a_users_file_adds_what_fsdp2_knows(tmp_path: Path) -> None:
    assert found(tmp_path, USERS) == {
        "reshard_after_forward": True, "activation_checkpointing": True, "transformer_cls_names_to_wrap": ["LlamaDecoderLayer"],
    }  # fmt: skip
    assert options(TrainSpec().train, precision="fp32", nodes=1, cpu=True) == {}


def test_a_file_for_ddp(tmp_path: Path) -> None:
    ddp = changed({"distributed_type": "MULTI_GPU", "mixed_precision": False, "num_machines": 2, "num_processes": 4, "fsdp_config": None})
    assert found(tmp_path, ddp, "none", "fp32", nodes=2) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed({"num_processes": 8}), "num_processes is 8 there and 2 by the spec; make them equal or remove it"),
        (changed({"num_machines": 2}), "num_machines is 2 there and 1 by the spec"),
        (changed({"mixed_precision": "fp16"}), "mixed_precision is 'fp16' there and 'bf16' by the spec"),
        (changed({"distributed_type": "DEEPSPEED"}), "distributed_type is 'DEEPSPEED' there and 'FSDP' by the spec"),
        (changed({}, fsdp_version=1), "fsdp_config.fsdp_version is 1 there and 2 by the spec"),
        (changed({}, fsdp_offload_params=True), "fsdp_config.fsdp_offload_params is True there and False by the spec"),
        (changed({}, fsdp_reshard_after_forward="FULL_SHARD"), "fsdp_config.fsdp_reshard_after_forward is 'FULL_SHARD' there; with FSDP2 it must be"),
        (changed({"deepspeed_config": {"zero_stage": 3}}), "deepspeed_config is unknown here, so it would be ignored; remove it. Known: compute_environment, "),
        (changed({}, fsdp_backward_prefetch="NO_PREFETCH"), "fsdp_config.fsdp_backward_prefetch is unknown here, so it would be ignored; remove it"),
        (changed({"fsdp_config": None}) + "fsdp_config: [1]\n", "fsdp_config is [1] there; it must be a mapping"),
        ("- 1", "holds '[1]'; it must be a mapping, as an Accelerate config is"),
        ("a: [", "is not YAML ("),
        (None, "No such file or directory; give the path of an Accelerate config in YAML"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_both_values(tmp_path: Path, content: str | None, message: str) -> None:
    file = str(tmp_path / "accelerate.yaml")
    with pytest.raises(SpecError, match=f"^train.accelerate.config_file = {re.escape(repr(file))}: {re.escape(message)}"):
        found(tmp_path, content)


def test_fsdp_settings_without_sharding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"fsdp_config is set there and train\.accelerate\.sharding is 'none'; set it to fsdp2, or remove fsdp_config"
    ):
        found(tmp_path, changed({"distributed_type": "MULTI_GPU"}), "none")


def test_dropout_that_would_be_drawn_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(USERS)
    section = {"accelerate": {"sharding": "fsdp2", "config_file": str(file)}, "processes": 2, "method": "lora", "lora": {"dropout": 0.1}}
    wanted = TrainSpec.model_validate_json(json.dumps({"train": section})).train
    with pytest.raises(SpecError, match=r"is true there and train\.lora\.dropout is 0\.1: Accelerate would compute the forward pass again"):
        options(wanted, precision="bf16", nodes=1, cpu=False)
