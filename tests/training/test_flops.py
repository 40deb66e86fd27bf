"""What of a real model multiplies, and that no figure is made up where no peak is known."""

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from ncdemo.spec.peaks import step_flops  # noqa: E402
from workloads.training.core.flops import Utilization, work_of  # noqa: E402


def test_the_work_of_a_model_with_tied_embeddings(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    work = work_of(model)
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128  # q, k and v, o, the MLP
    assert (work.body, work.head, work.layers, work.attention_width) == (2 * layer, 49152 * 64, 2, 64)
    assert (work.trained_body, work.trained_head) == (work.body, work.head)


SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "hidden_size": 32, "bos_token_id": None, "eos_token_id": None}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_the_work_is_what_torch_counts(kind: str) -> None:
    """Grouped queries, heads wider than the model, learned positions: a step by the formula is a step by torch's FLOP counter."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SIZE, **({} if kind == "gpt2" else {"intermediate_size": 48, "num_key_value_heads": 2}))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    tokens, targets = 24, 10
    with FlopCounterMode(display=False) as counter:
        out = model(input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False, logits_to_keep=torch.arange(targets))
        out.logits.sum().backward()
    work = work_of(model)
    useful = step_flops(work, tokens=tokens, target_tokens=targets, squares=tokens**2)
    # The counter has the whole square of this plain attention, of which the causal half is useful; angles of rotary positions are the rest.
    assert counter.get_total_flops() == pytest.approx(useful + 6 * work.layers * work.attention_width * tokens**2, rel=1e-3)


def test_a_model_of_experts_has_no_share() -> None:
    """Of which few run for a token: all of its weights would make a share several times too high."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**SIZE, intermediate_size=48, num_key_value_heads=2, num_local_experts=4)
    assert work_of(MixtralForCausalLM(config)) is None


def test_a_cpu_has_no_peak(tiny_model: Path) -> None:
    strategy = SimpleNamespace(device=torch.device("cpu"), precision="bf16", world_size=1)
    assert Utilization.of(None, strategy).share(tokens=1, target_tokens=1, squares=1, step_time_s=1.0) is None
