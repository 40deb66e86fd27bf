"""What of a real model multiplies, and that no figure is made up where no peak is known."""

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from workloads.training.core.flops import Utilization, work_of  # noqa: E402


def test_the_work_of_a_model_with_tied_embeddings(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    work = work_of(model)
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128  # q, k and v, o, the MLP
    assert (work.body, work.head, work.layers, work.attention_width) == (2 * layer, 49152 * 64, 2, 64)
    assert (work.trained_body, work.trained_head) == (work.body, work.head)


def test_a_cpu_has_no_peak(tiny_model: Path) -> None:
    strategy = SimpleNamespace(device=torch.device("cpu"), precision="bf16", world_size=1)
    assert Utilization.of(None, strategy).share(tokens=1, target_tokens=1, squares=1, step_time_s=1.0) is None
