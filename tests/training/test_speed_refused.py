"""What of train.speed can't be: one clear error each, from the spec, from the machine (said to the check, not pretended), from the model."""

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec import SpecError, TrainSpec, parse_spec  # noqa: E402
from workloads.training.core import speed  # noqa: E402
from workloads.training.core.speed import Hardware, check, set_up  # noqa: E402

CPU = torch.device("cpu")
LAPTOP = Hardware("cpu", "fp32", packages=frozenset({"liger_kernel"}))
H100 = Hardware("cuda", "bf16", "NVIDIA H100 NVL", (9, 0), 94 * 2**30, frozenset(speed.PACKAGES))
A100 = replace(H100, name="NVIDIA A100 80GB PCIe", capability=(8, 0), memory_bytes=80 * 2**30)
P100 = replace(H100, name="Tesla P100-PCIE-16GB", capability=(6, 0), precision="fp32")


def spec(data: dict | None = None, **train) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps({"train": train, "data": data or {}}))


# The machine's side

LIGER, COMPILE, FP8 = {"cross_entropy": "liger"}, {"compile": True}, {"fp8": True}
NO_COMPILER = "there is no C compiler here (g++), which torch.compile calls; install one"


@pytest.mark.parametrize(
    ("asked", "hardware", "message"),
    [
        (LIGER, LAPTOP, "train.speed.cross_entropy = 'liger': its kernels need a GPU of capability 7.0 or higher and this run has no CUDA GPU; "
         "use chunked, which holds as little, or auto"),
        (LIGER, P100, "train.speed.cross_entropy = 'liger': its kernels need a GPU of capability 7.0 or higher and Tesla P100-PCIE-16GB has "
         "compute capability 6.0; use chunked, which holds as little, or auto"),
        (LIGER, replace(H100, packages=frozenset({"triton"})), "train.speed.cross_entropy = 'liger': liger_kernel isn't installed; "
         "scripts/setup_env.sh --extra train on Linux, or use chunked, which holds as little, or auto"),
        (LIGER, replace(H100, packages=frozenset({"liger_kernel"})), "train.speed.cross_entropy = 'liger': triton isn't installed; "
         "scripts/setup_env.sh --extra train on Linux, or use chunked, which holds as little, or auto"),
        (COMPILE, P100, "train.speed.compile = True: Triton needs a GPU of capability 7.0 or higher and Tesla P100-PCIE-16GB has compute "
         "capability 6.0; set it to false"),
        (COMPILE, replace(H100, packages=frozenset()), "train.speed.compile = True: triton isn't installed, which compiles for GPUs; "
         "scripts/setup_env.sh --cuda --extra train, or set it to false"),
        (COMPILE, replace(LAPTOP, no_compiler=NO_COMPILER), f"train.speed.compile = True: {NO_COMPILER}; set it to false"),
        (FP8, LAPTOP, "train.speed.fp8 = True: 8-bit floats need a GPU of capability 8.9 (Ada) or 9.0 (Hopper) or higher and this run has no "
         "CUDA GPU; set it to false"),
        (FP8, A100, "train.speed.fp8 = True: 8-bit floats need a GPU of capability 8.9 (Ada) or 9.0 (Hopper) or higher and NVIDIA A100 80GB "
         "PCIe has compute capability 8.0; set it to false"),
        (FP8, replace(H100, packages=frozenset()), "train.speed.fp8 = True: torchao isn't installed; scripts/setup_env.sh --extra train "
         "--extra fp8, or set it to false"),
        (FP8, replace(H100, precision="fp32"), "train.speed.fp8 = True: what isn't in 8 bits is bf16, and this run is in fp32; set it to false"),
    ],
)  # fmt: skip
def test_what_this_machine_cannot_do_is_refused(asked: dict, hardware: Hardware, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        check(spec(speed=asked).train, hardware)
    assert str(refused.value) == message


@pytest.mark.parametrize("asked", [LIGER, COMPILE, FP8, {"cross_entropy": "chunked"}, {"activation_checkpointing": True}])
def test_an_h100_can_do_all_of_it(asked: dict) -> None:
    check(spec(speed=asked).train, H100)


def test_this_machine_is_described() -> None:
    here = Hardware.of(CPU, "fp32")
    assert (here.device, here.capability, here.memory_bytes) == ("cpu", None, None)
    assert ("liger_kernel" in here.packages) is (importlib.util.find_spec("liger_kernel") is not None)
    assert (here.no_compiler is None) is (bool(shutil.which(os.environ.get("CXX") or "g++")) and "Python.h" not in (here.no_compiler or ""))


def test_no_compiler_is_said_with_its_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert speed._no_compiler("g++") == NO_COMPILER


# The model's side


def test_a_model_that_scales_its_logits_keeps_the_ordinary_loss_and_chunked_is_refused() -> None:
    from transformers import AutoModelForCausalLM, GraniteConfig

    config = GraniteConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, logits_scaling=8.0
    )
    granite = AutoModelForCausalLM.from_config(config)
    path, head = set_up(spec({"max_seq_len": 8192}), granite, LAPTOP)
    assert (path.cross_entropy, head) == ("full", None)
    with pytest.raises(SpecError) as refused:
        set_up(spec(speed={"cross_entropy": "chunked"}), granite, LAPTOP)
    assert str(refused.value) == (
        "train.speed.cross_entropy = 'chunked': this model scales or caps what its output layer returns, so the loss can't move into it; "
        "use full or auto"
    )


def test_a_model_without_known_layers_is_refused() -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    bare = AutoModelForCausalLM.from_config(
        LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=0, num_attention_heads=2, num_key_value_heads=2)
    )
    for key in ("compile", "activation_checkpointing"):
        with pytest.raises(SpecError, match=rf"^train\.speed\.{key} = True: LlamaForCausalLM has no decoder layers that are known here"):
            set_up(spec(speed={key: True}), bare, LAPTOP)


# The spec's side

UNSLOTH = "train: {{strategy: unsloth, method: lora, speed: {{{}}}}}\ndata: {{packing: false}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UNSLOTH.format("cross_entropy: chunked"), "train.speed.cross_entropy = 'chunked': speed.cross_entropy: chunked has no effect with "
         "strategy: unsloth, whose model calls its own output layer; set train.speed.cross_entropy to auto"),
        (UNSLOTH.format("compile: true"), "train.speed.compile = true: speed.compile: true can't go with strategy: unsloth, which compiles its "
         "layers itself; set train.speed.compile to false"),
        (UNSLOTH.format("activation_checkpointing: true"), "train.speed.activation_checkpointing = true: speed.activation_checkpointing: true "
         "can't go with strategy: unsloth, which replaces torch's by its own, which is left off; set train.speed.activation_checkpointing to false"),
        (UNSLOTH.format("fp8: true"), "train.speed.fp8 = true: speed.fp8: true can't go with strategy: unsloth; set train.strategy to accelerate, "
         "or train.speed.fp8 to false"),
        ("train: {strategy: deepspeed, deepspeed: {zero_stage: 3}, speed: {compile: true}}", "train.speed.compile = true: speed.compile: true "
         "can't go with deepspeed.zero_stage: 3, which gathers weights by hooks inside the compiled layers; set train.speed.compile to false, or "
         "train.deepspeed.zero_stage to 2"),
        ("train: {method: lora, speed: {fp8: true}}", "train.speed.fp8 = true: speed.fp8: true can't go with method: lora, whose adapters are too "
         "narrow for it; set train.method to full, or train.speed.fp8 to false"),
        ("train: {precision: fp32, speed: {fp8: true}}", "train.speed.fp8 = true: speed.fp8: true can't go with precision: fp32; set "
         "train.precision to bf16 or auto, or train.speed.fp8 to false"),
        ("train: {speed: {fused_adamw: often}}", "train.speed.fused_adamw = 'often': must be true or false; correct it, or remove the key to take "
         "the default (true)"),
    ],
)  # fmt: skip
def test_what_strategy_and_method_cannot_do_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(text, TrainSpec)
    assert str(refused.value) == f"spec:1: {message}"
