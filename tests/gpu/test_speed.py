"""train.speed on a CUDA GPU: each switch runs, is really on (its kernels are in the profile), and changes no result beyond rounding.

make test-gpu          # needs the extras train or train-cu12, demo, and fp8 for 8-bit floats
"""

import contextlib
import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec import TrainSpec, dump_spec  # noqa: E402
from ncdemo.spec.peaks import peak_flops_per_s  # noqa: E402
from ncdemo.spec.result import FastPath, RunRecord  # noqa: E402
from workloads.data.packing import Batch, pack  # noqa: E402
from workloads.data.tokens import TokenExample  # noqa: E402
from workloads.training.core import attention, layers  # noqa: E402
from workloads.training.core.attention import PACKED, register  # noqa: E402
from workloads.training.core.fit import _optimizer  # noqa: E402
from workloads.training.core.head import Head, logits_bytes  # noqa: E402
from workloads.training.core.loss import loss_sum  # noqa: E402
from workloads.training.core.speed import FP8, TRITON, Hardware, check  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # torch's and the libraries' own, of what they use of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
GPU = torch.device("cuda")
WORDS = 49152
LENGTHS = (300, 97, 512, 33, 201)


def capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


def examples() -> list[TokenExample]:
    generator = torch.Generator().manual_seed(0)
    return [TokenExample(torch.randint(WORDS, (n,), generator=generator).tolist(), [False] * 20 + [True] * (n - 20)) for n in LENGTHS]


@pytest.fixture
def model() -> Any:
    """A Llama of 4 layers with seeded random weights in fp32, as training holds them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    register()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, vocab_size=WORDS
    )
    model = LlamaForCausalLM(config).to(GPU)
    model.train()
    model.set_attn_implementation(PACKED)
    return model


@contextlib.contextmanager
def bf16() -> Iterator[None]:
    with torch.autocast("cuda", torch.bfloat16):
        yield


def measure(model: Any, batch: Batch, head: Head | None = None) -> tuple[float, dict[str, Any], int]:
    """Return the loss per target, the gradients, and the peak of memory above what was there before, in bytes."""
    model.zero_grad()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with bf16():
        loss = loss_sum(model, batch, GPU, head) / batch.target_tokens
    loss.backward()
    peak = torch.cuda.max_memory_allocated() - before
    return loss.item(), {name: p.grad.float().clone() for name, p in model.named_parameters()}, peak


def same_gradients(ours: dict[str, Any], theirs: dict[str, Any], share: float) -> None:
    """Require each gradient to differ by at most a share of its norm: that of bf16 sums in another order."""
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= share * gradient.norm(), name


def kernels(run: Any) -> str:
    """Return the names of all operators and GPU kernels that a call ran."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return "\n".join(event.key for event in seen.key_averages())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"])
def test_packed_examples_are_what_they_are_alone(model: Any, dtype: Any, tolerance: float) -> None:
    model = model.to(dtype).eval()
    given = examples()

    def logits(batch: Batch) -> Any:
        with torch.no_grad():
            ids, at, borders = (t.to(GPU) for t in (batch.input_ids, batch.position_ids, batch.cu_seq_lens))
            return model(input_ids=ids, position_ids=at, use_cache=False, cu_seq_lens_q=borders).logits[0].float()

    together, alone = logits(pack(given)), torch.cat([logits(pack([e])) for e in given])
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance * alone.abs().max().item())
    other = [TokenExample([(i + 1) % WORDS for i in given[0].ids], given[0].is_target), *given[1:]]
    behind = len(given[0].ids)
    torch.testing.assert_close(logits(pack(other))[behind:], together[behind:], rtol=tolerance, atol=tolerance * alone.abs().max().item())


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0), reason="flash attention needs capability 8.0"
)
def test_a_packed_row_is_one_call_in_16_bits_and_its_loss_that_of_segments(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(examples())
    ran = kernels(lambda: measure(model, batch))
    assert "varlen_attn" in ran
    loss, gradients, _ = measure(model, batch)
    monkeypatch.setattr(attention, "whole_row", lambda value, dropout: False)
    segments, theirs, _ = measure(model, batch)
    assert loss == pytest.approx(segments, rel=1e-3)
    same_gradients(gradients, theirs, 0.02)


def test_chunked_cross_entropy(model: Any) -> None:
    batch = pack(examples() * 4)
    loss, gradients, peak = measure(model, batch)
    ours, own, less = measure(model, batch, Head(model, "chunked"))
    assert ours == pytest.approx(loss, rel=1e-3)
    same_gradients(own, gradients, 0.02)
    assert peak - less > 0.3 * logits_bytes(batch.target_tokens, WORDS), (peak, less)


@pytest.mark.skipif(
    not installed("liger_kernel", "triton") or capability() < TRITON, reason="needs liger-kernel, and a GPU of capability 7.0"
)
def test_liger_cross_entropy(model: Any) -> None:
    batch = pack(examples() * 4)
    loss, gradients, peak = measure(model, batch)
    head = Head(model, "liger")
    ours, own, less = measure(model, batch, head)
    assert ours == pytest.approx(loss, rel=1e-3)
    same_gradients(own, gradients, 0.02)
    assert peak - less > 0.3 * logits_bytes(batch.target_tokens, WORDS), (peak, less)
    assert "liger_cross_entropy_kernel" in kernels(lambda: measure(model, batch, head))


def test_fused_adamw(model: Any) -> None:
    batch, start = pack(examples()), {name: value.clone() for name, value in model.state_dict().items()}
    ends = []
    for fused in (True, False):
        model.load_state_dict(start)
        measure(model, batch)
        train = TrainSpec.model_validate_json(json.dumps({"train": {"learning_rate": 0.001, "speed": {"fused_adamw": fused}}})).train
        optimizer = _optimizer(model, train)
        assert all(group["fused"] is fused for group in optimizer.param_groups)
        assert ("aten::_fused_adamw_" in kernels(optimizer.step)) is fused
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
    for name in start:
        # Where a gradient is next to nothing, its first step's sign is; hence 2 x the learning rate for few of them.
        assert ((ends[0][name] - ends[1][name]).abs() > 1e-6).float().mean() < 1e-3, name


def test_activation_checkpointing(model: Any) -> None:
    batch = pack(examples())
    head = Head(model, "chunked")  # or the logits would be the peak
    loss, gradients, peak = measure(model, batch, head)
    layers.checkpoint_activations(model)
    ours, own, less = measure(model, batch, head)
    assert ours == pytest.approx(loss, rel=1e-5)
    same_gradients(own, gradients, 0.01)
    assert less < peak


@pytest.mark.skipif(not installed("triton") or capability() < TRITON, reason="needs Triton, and a GPU of capability 7.0")
def test_compiled_layers(model: Any) -> None:
    from torch._dynamo.utils import counters

    if reason := Hardware.of(GPU, "bf16").no_compiler:
        pytest.skip(reason)
    rows = [pack(examples()), pack(examples()[:3]), pack(examples()[1:])]
    before = [measure(model, row) for row in rows]
    layers.compile_layers(model)
    counters.clear()
    after = [measure(model, row) for row in rows]
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    assert not counters["recompile_limit"]
    for (loss, gradients, _), (ours, own, _) in zip(before, after, strict=True):
        assert ours == pytest.approx(loss, rel=1e-3)
        same_gradients(own, gradients, 0.03)
    assert "triton_" in kernels(lambda: measure(model, rows[0]))


@pytest.mark.skipif(not installed("torchao") or capability() < FP8, reason="needs the fp8 extra, and a GPU of capability 8.9")
def test_fp8_layers(model: Any) -> None:
    from torchao.float8.float8_linear import Float8Linear

    batch = pack(examples())
    assert batch.tokens % 16, "a row that has to be filled up"
    loss, gradients, _ = measure(model, batch)
    assert layers.to_fp8(model) == 4 * 7
    assert sum(isinstance(m, Float8Linear) for m in model.modules()) == 4 * 7
    ours, own, _ = measure(model, batch)
    assert ours == pytest.approx(loss, rel=2e-2)
    same_gradients(own, gradients, 0.3)
    assert "aten::_scaled_mm" in kernels(lambda: measure(model, batch))


def fastest() -> dict[str, Any]:
    """Return all switches that this GPU and its packages can do."""
    hardware, on = Hardware.of(GPU, "bf16"), {"activation_checkpointing": True}
    for key, value in (("cross_entropy", "liger"), ("compile", True), ("fp8", True)):
        with contextlib.suppress(Exception):
            check(TrainSpec.model_validate_json(json.dumps({"train": {"speed": {key: value}}})).train, hardware)
            on[key] = value
    return {"cross_entropy": "chunked", **on}


@pytest.mark.parametrize("switches", ["plain", "fastest"])
def test_a_short_run_tells_its_mfu_and_what_was_on(embedded: Path, tmp_path: Path, switches: str) -> None:
    """The embedded 135M model in bf16; MFU is None on a GPU without a cited peak, and never beyond 1."""
    speed = fastest() if switches == "fastest" else {"activation_checkpointing": False}
    wanted = TrainSpec.model_validate_json(
        json.dumps(
            {
                "model": {"name": str(embedded)},
                "data": {"max_seq_len": 2048, "eval_examples": 4},
                "train": {"max_steps": 8, "micro_batch_size": 8, "precision": "bf16", "learning_rate": 5e-5, "speed": speed},
                "telemetry": {"mlflow_uri": None},
            }
        )
    )
    (tmp_path / "spec.yaml").write_text(dump_spec(wanted))
    command = [sys.executable, "-m", "workloads.training.accelerate", "--run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=230, env={**os.environ, "CUDA_VISIBLE_DEVICES": "0"})
    assert done.returncode == 0, done.stderr[-4000:]
    result = RunRecord.model_validate_json((tmp_path / "result.json").read_text()).train
    if peak_flops_per_s(torch.cuda.get_device_name()) is None:
        assert result.mfu is None
    else:
        assert 0 < result.mfu < 1
    assert result.peak_vram_bytes > 16 * result.trainable_parameters
    assert result.after.loss < result.before.loss
    expected = {"cross_entropy": "chunked", "fused_adamw": True, "compile": False, "fp8": False, **speed}
    assert result.speed == FastPath(**expected), "auto takes the loss in parts here: 16,384 targets x 49,152 words x 12 bytes"
    print(f"{torch.cuda.get_device_name()}, {switches}: MFU {result.mfu}, {result.tokens_per_s:.0f} tokens/s, {result.speed.shown}")
