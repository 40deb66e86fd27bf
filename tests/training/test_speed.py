"""train.speed: each switch is really on and changes no result (test_head.py: the loss in parts; test_speed_refused.py: what can't be)."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.result import FastPath, RunRecord  # noqa: E402
from workloads.data.packing import pack  # noqa: E402
from workloads.data.tokens import TokenExample  # noqa: E402
from workloads.training.core import layers, speed  # noqa: E402
from workloads.training.core.attention import PACKED, register  # noqa: E402
from workloads.training.core.fit import _optimizer  # noqa: E402
from workloads.training.core.head import Head  # noqa: E402
from workloads.training.core.loss import loss_sum  # noqa: E402
from workloads.training.core.speed import Hardware, layer_bytes, set_up  # noqa: E402

CPU = torch.device("cpu")
LAPTOP = Hardware("cpu", "fp32", packages=frozenset({"liger_kernel"}))
H100 = Hardware("cuda", "bf16", "NVIDIA H100 NVL", (9, 0), 94 * 2**30, frozenset(speed.PACKAGES))
BATCH = pack([TokenExample(list(range(100, 100 + n)), [False] * 5 + [True] * (n - 5)) for n in (30, 9, 40, 21)])


def spec(data: dict | None = None, **train) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps({"train": train, "data": data or {}}))


@pytest.fixture
def model(tiny_model: Path):
    from transformers import AutoModelForCausalLM

    register()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.train()
    model.set_attn_implementation(PACKED)
    return model


def measure(model, batch=BATCH):
    model.zero_grad()
    torch.manual_seed(1)
    loss = loss_sum(model, batch, CPU)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model, batch=BATCH) -> int:
    """Return the bytes that a forward pass of the layers keeps for the backward pass, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {shape for p in model.parameters() for shape in (p.shape, p.shape[::-1])}  # autocast's bf16 copies
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape not in shapes:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, cu_seq_lens_q=batch.cu_seq_lens)
    return sum(size for size, _ in kept.values())


# Activation checkpointing


def test_checkpointed_layers_learn_the_same_to_the_last_bit_and_keep_less(model) -> None:
    loss, gradients = measure(model)
    all_kept = kept_bytes(model)
    layers.checkpoint_activations(model)
    again, own = measure(model)
    assert torch.equal(again, loss)
    assert all(torch.equal(own[name], gradients[name]) for name in gradients)
    assert kept_bytes(model) < all_kept / 5


def test_checkpointed_layers_draw_the_same_dropout(model) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.3, target_modules="all-linear", init_lora_weights=False))
    adapted.train()
    loss, gradients = measure(adapted)
    layers.checkpoint_activations(adapted)
    again, own = measure(adapted)
    assert torch.equal(again, loss)
    assert gradients
    assert all(torch.equal(own[name], gradients[name]) for name in gradients)


def test_the_estimate_of_what_layers_keep_is_near_what_they_keep(model) -> None:
    model.set_attn_implementation("sdpa")  # ours computes in fp32 on a CPU
    one = pack([TokenExample(list(range(100, 203)), [True] * 103)])
    assert layer_bytes(model.config, one.tokens, "fp32") == pytest.approx(kept_bytes(model, one), rel=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer_bytes(model.config, one.tokens, "bf16") == pytest.approx(kept_bytes(model, one), rel=0.1)


@pytest.mark.parametrize(
    ("hardware", "sharing", "on"),
    [
        (LAPTOP, {}, False),
        (H100, {}, False),
        (replace(H100, memory_bytes=280_000_000), {}, True),
        (replace(H100, memory_bytes=280_000_000), {"shards": 8}, False),
        (replace(H100, memory_bytes=280_000_000), {"patched": True}, False),
    ],
    ids=["cpu", "room", "no room", "shared by eight", "unsloth's"],
)
def test_auto_checkpoints_where_memory_would_not_do(model, hardware: Hardware, sharing: dict, on: bool) -> None:
    """3.2 M weights x 18 bytes, and 3.3 kB for each of 32,768 tokens and two layers: 276 MB."""
    wanted = spec({"max_seq_len": 2048}, micro_batch_size=16, speed={"cross_entropy": "full"})
    path, _ = set_up(wanted, model, hardware, **sharing)
    assert path.activation_checkpointing is on
    assert model.is_gradient_checkpointing is on


def test_a_strategys_own_checkpointing_is_recorded_and_not_done_twice(model) -> None:
    path, _ = set_up(spec(), model, replace(H100, memory_bytes=1), checkpointed=True)
    assert path.activation_checkpointing
    assert not model.is_gradient_checkpointing


# Cross entropy


@pytest.mark.parametrize(
    ("asked", "tokens", "came_to"),
    [("auto", 256, "full"), ("auto", 4096, "chunked"), ("chunked", 256, "chunked"), ("full", 4096, "full")],
)
def test_auto_takes_the_loss_in_parts_where_logits_are_large(model, asked: str, tokens: int, came_to: str) -> None:
    """12 bytes x 49,152 words x 4,096 targets are 2.4 GB, of 256 targets 151 MB."""
    model.set_attn_implementation("sdpa")  # as it is loaded
    path, head = set_up(spec({"max_seq_len": tokens}, speed={"cross_entropy": asked}), model, LAPTOP)
    assert path.cross_entropy == came_to
    assert isinstance(head, Head) is (came_to == "chunked")


# AdamW


def test_fused_adamw_is_fused_and_updates_as_the_plain_one(model) -> None:
    ends = []
    for fused in (True, False):
        weights = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
        holder = torch.nn.ParameterList(weights)
        optimizer = _optimizer(holder, spec(learning_rate=0.01, weight_decay=0.1, speed={"fused_adamw": fused}).train)
        assert all(group["fused"] is fused for group in optimizer.param_groups)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for p in weights:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        ends.append(weights)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


# torch.compile


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, of what its compiler uses and reads
def test_compiled_layers_run_compiled_and_learn_the_same(model) -> None:
    """One layer, rows of three lengths: one graph around the attention for all, and an evaluation compiles nothing."""
    if reason := Hardware.of(CPU, "fp32").no_compiler:
        pytest.skip(reason)
    from torch._dynamo.utils import counters

    del model.model.layers[1]
    rows = [BATCH, *(pack([TokenExample(list(range(50, 50 + n)), [False] + [True] * (n - 1))]) for n in (33, 71))]
    names = list(model.state_dict())
    before = [measure(model, row) for row in rows]
    layers.compile_layers(model)
    counters.clear()
    after = [measure(model, row) for row in rows]
    graphs = counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 4, graphs
    assert not counters["recompile_limit"]
    for (loss, gradients), (own_loss, own) in zip(before, after, strict=True):
        torch.testing.assert_close(own_loss, loss, rtol=1e-5, atol=0)
        for name in gradients:
            torch.testing.assert_close(own[name], gradients[name], rtol=1e-3, atol=1e-4)
    with layers.eager(True), torch.no_grad():
        model.eval()
        assert torch.equal(loss_sum(model, rows[1], CPU), before[1][0])
    assert counters["stats"]["unique_graphs"] == graphs
    assert list(model.state_dict()) == names, "checkpoints keep their names"


# 8-bit floats


def test_fp8_layers_multiply_in_8_bits(model) -> None:
    """torchao computes here what the hardware would; its speed, and the hardware itself, is tests/gpu's."""
    pytest.importorskip("torchao", reason="needs the fp8 extra")
    from torchao.float8.float8_linear import Float8Linear

    names, (loss, gradients) = list(model.state_dict()), measure(model)
    loss = loss.item()
    assert layers.to_fp8(model, emulate=True) == 2 * 7
    assert sum(isinstance(m, Float8Linear) for m in model.modules()) == 2 * 7, "all layers' matrices and not the output layer"
    own_loss, own = measure(model)
    assert own_loss.item() == pytest.approx(loss, rel=1e-2)
    assert own_loss.item() != loss
    assert all((own[name] - g).norm() < 0.3 * g.norm() for name, g in gradients.items())
    assert list(model.state_dict()) == names


# A whole run


def test_a_run_with_switches_goes_on_exactly_and_says_what_was_on(tiny_model: Path, tmp_path: Path) -> None:
    wanted = TrainSpec.model_validate_json(
        json.dumps(
            {
                "model": {"name": str(tiny_model)},
                "data": {"train_examples": 60, "eval_examples": 4, "max_seq_len": 256},
                "train": {
                    "max_steps": 4,
                    "micro_batch_size": 2,
                    "learning_rate": 0.01,
                    "precision": "fp32",
                    "speed": {"cross_entropy": "chunked", "activation_checkpointing": True, "fused_adamw": False},
                },
                "checkpoint": {"every_steps": 2, "keep": 5},
                "telemetry": {"sample_hz": 0.0, "mlflow_uri": None},
            }
        )
    )
    one, again = tmp_path / "one", tmp_path / "again"
    for folder in (one, again):
        folder.mkdir()
        (folder / "spec.yaml").write_text(dump_spec(wanted))
        if folder == again:
            shutil.copytree(one / "checkpoints" / "step-00000002", again / "checkpoints" / "step-00000002")
        command = [sys.executable, "-m", "workloads.training.accelerate", "--run", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, "ACCELERATE_USE_CPU": "true"})
        assert done.returncode == 0, done.stderr
    ends = [torch.load(folder / "checkpoints" / "step-00000004" / "optimizer.pt", weights_only=True) for folder in (one, again)]
    assert [group["fused"] for group in ends[0]["param_groups"]] == [False, False]
    moments = [[state[key] for state in end["state"].values() for key in ("exp_avg", "exp_avg_sq")] for end in ends]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    result = RunRecord.model_validate_json((again / "result.json").read_text()).train
    assert result.speed == FastPath(cross_entropy="chunked", fused_adamw=False, compile=False, activation_checkpointing=True, fp8=False)
    assert result.speed.shown == "chunked cross entropy, activation_checkpointing"
