"""Packing: nothing lost, nothing seen twice, and no example sees another."""

import random
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from workloads.data.packing import IGNORED, epoch_rows, pack, pack_rows, pad  # noqa: E402
from workloads.data.tokens import TokenExample  # noqa: E402
from workloads.training.core import attention  # noqa: E402
from workloads.training.core.attention import PACKED, register  # noqa: E402
from workloads.training.core.loss import loss_sum  # noqa: E402

CPU = torch.device("cpu")


def examples(count: int, seed: int = 0) -> list[TokenExample]:
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        n = rng.randint(3, 40)
        asked = rng.randint(1, n - 2)
        out.append(TokenExample([rng.randint(10, 40_000) for _ in range(n)], [False] * asked + [True] * (n - asked)))
    return out


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    register()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.eval()
    return model


def test_rows_hold_every_example_once_and_fit() -> None:
    lengths = [len(e.ids) for e in examples(200)]
    rows = pack_rows(lengths, range(200), 64)
    assert sorted(i for row in rows for i in row) == list(range(200))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)


def test_epochs_differ_in_order_and_each_is_whole() -> None:
    stream = epoch_rows([10] * 12, 30, packing=True, seed=1)
    first, second = [[next(stream) for _ in range(4)] for _ in range(2)]
    assert sorted(i for row in first for i in row) == sorted(i for row in second for i in row) == list(range(12))
    assert first != second
    again = epoch_rows([10] * 12, 30, packing=True, seed=1)
    assert [next(again) for _ in range(4)] == first


def test_labels_are_the_next_token_and_never_cross_examples() -> None:
    a, b = TokenExample([1, 2, 3], [False, True, True]), TokenExample([7, 8], [True, True])
    batch = pack([a, b])
    assert batch.input_ids.tolist() == [[1, 2, 3, 7, 8]]
    assert batch.labels.tolist() == [[2, 3, IGNORED, 8, IGNORED]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.cu_seq_lens.tolist() == [0, 3, 5]
    assert (batch.tokens, batch.target_tokens, batch.examples) == (5, 3, 2)


def test_packed_padded_and_alone_give_the_same_loss_and_gradient(model) -> None:
    items = examples(9)

    def measure(batches, implementation):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        total = sum(loss_sum(model, batch, CPU) for batch in batches)
        total.backward()
        return total.item(), torch.cat([p.grad.flatten().clone() for p in model.parameters()])

    alone = measure([pack([e]) for e in items], PACKED)
    packed = measure([pack(items)], PACKED)
    padded = measure([pad(items, pad_id=2)], "sdpa")
    eager = measure([pad(items, pad_id=2)], "eager")
    for loss, gradient in (packed, padded, eager):
        assert loss == pytest.approx(alone[0], rel=1e-5)
        torch.testing.assert_close(gradient, alone[1], rtol=1e-3, atol=1e-5)


def test_a_row_in_one_call_is_what_its_segments_are(model, monkeypatch) -> None:
    """On a GPU torch's kernel gets these arguments; its stand-in here does what torch documents of them."""
    items, calls = examples(9), []

    def stand_in(query, key, value, borders, borders_k, longest, longest_k, *, scale, window_size, enable_gqa):
        assert (window_size, longest_k) == ((-1, 0), longest), "causal, within each segment"
        assert borders is borders_k
        assert longest == max(b - a for a, b in pairwise(borders.tolist()))
        calls.append(query.shape)
        return torch.cat([
            torch.nn.functional.scaled_dot_product_attention(
                *(x[a:b].transpose(0, 1)[None] for x in (query, key, value)), is_causal=True, scale=scale, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
            for a, b in pairwise(borders.tolist())
        ])  # fmt: skip

    def measure():
        model.set_attn_implementation(PACKED)
        model.zero_grad()
        total = loss_sum(model, pack(items), CPU)
        total.backward()
        return total.item(), torch.cat([p.grad.flatten().clone() for p in model.parameters()])

    segments = measure()
    monkeypatch.setattr(attention, "whole_row", lambda value, dropout: True)
    monkeypatch.setattr(attention, "varlen_attn", stand_in)
    whole = measure()
    assert (
        calls
        == [(sum(len(e.ids) for e in items), model.config.num_attention_heads, model.config.head_dim)] * model.config.num_hidden_layers
    )
    assert whole[0] == pytest.approx(segments[0], rel=1e-5)
    torch.testing.assert_close(whole[1], segments[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "dtype", "width", "dropout"),
    [("cpu", "bfloat16", 64, 0.0), ("cuda", "float32", 64, 0.0), ("cuda", "bfloat16", 60, 0.0), ("cuda", "bfloat16", 512, 0.0),
     ("cuda", "bfloat16", 64, 0.1)],
)  # fmt: skip
def test_what_the_kernel_does_not_take_goes_segment_by_segment(device, dtype, width, dropout, monkeypatch) -> None:
    class Value:
        is_cuda, shape = device == "cuda", (1, 2, 3, width)

    Value.dtype, Value.device = getattr(torch, dtype), device
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert not attention.whole_row(Value, dropout)
    Value.is_cuda, Value.dtype, Value.shape = True, torch.bfloat16, (1, 2, 3, 64)
    assert attention.whole_row(Value, 0.0)


def test_changing_one_packed_example_changes_no_other(model) -> None:
    model.set_attn_implementation(PACKED)
    items = examples(4)
    changed = [TokenExample([i + 1 for i in items[0].ids], items[0].is_target), *items[1:]]

    def logits(which):
        batch = pack(which)
        with torch.no_grad():
            out = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, cu_seq_lens_q=batch.cu_seq_lens)
        return out.logits[0, len(items[0].ids) :]

    assert torch.equal(logits(items), logits(changed))


def test_this_test_would_see_a_leak(model) -> None:
    """The same comparison with plain causal attention over the row must fail, or the test above proves nothing."""
    model.set_attn_implementation("sdpa")
    batch = pack(examples(4))
    with torch.no_grad():
        leaky = model(input_ids=batch.input_ids, position_ids=torch.arange(batch.tokens)[None], use_cache=False).logits
        model.set_attn_implementation(PACKED)
        tight = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, cu_seq_lens_q=batch.cu_seq_lens).logits
    assert (leaky - tight).abs().max() > 1e-2
