"""The loss inside the output layer: the ordinary one and its gradients to the last digits, and never all logits."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from torch.nn.functional import cross_entropy, linear  # noqa: E402

from workloads.data.packing import pack, pad  # noqa: E402
from workloads.data.tokens import TokenExample  # noqa: E402
from workloads.training.core.attention import PACKED, register  # noqa: E402
from workloads.training.core.head import Head, chunked_loss, logits_bytes, why_not  # noqa: E402
from workloads.training.core.loss import loss_sum, target_logits  # noqa: E402

CPU = torch.device("cpu")
TARGETS, HIDDEN, WORDS = 50, 32, 1000
EXAMPLES = [
    TokenExample(list(range(100, 100 + n)), [False] * asked + [True] * (n - asked)) for n, asked in ((30, 12), (9, 3), (40, 1), (5, 4))
]


def live_bytes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ncdemo_tests_live_bytes", Path(__file__).with_name("live_bytes.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parts(targets: int = TARGETS, hidden: int = HIDDEN, words: int = WORDS) -> tuple:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(words, (targets,), generator=generator)
    wanted[::7] = -100
    return torch.randn(targets, hidden, generator=generator) * 3, torch.randn(words, hidden, generator=generator), wanted


def measured(loss, hidden, weight, wanted, scale: float):
    """Return the loss and both gradients, of a loss that is divided by a step's targets as the loop does."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    total = loss(hidden, weight, wanted)
    (total * scale).backward()
    return total.detach(), hidden.grad, weight.grad


def ordinary(hidden, weight, wanted):
    return cross_entropy(linear(hidden, weight).float(), wanted, ignore_index=-100, reduction="sum")


@pytest.mark.parametrize("rows", [1, 7, 49, 50, 1000])
def test_chunked_loss_and_gradients_are_the_ordinary_ones(rows: int) -> None:
    given = parts()
    ours = measured(lambda h, w, t: chunked_loss(h, w, t, part_bytes=rows * 4 * WORDS), *given, scale=2 / 43)
    theirs = measured(ordinary, *given, scale=2 / 43)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_no_further_from_the_truth_than_the_ordinary_loss() -> None:
    given = parts()
    truth = measured(ordinary, *given, scale=1 / 43)
    with torch.autocast("cpu", torch.bfloat16):
        ours = measured(lambda h, w, t: chunked_loss(h, w, t, part_bytes=13 * 4 * WORDS), *given, scale=1 / 43)
        theirs = measured(ordinary, *given, scale=1 / 43)
    for a, b, exact in zip(ours, theirs, truth, strict=True):
        assert a.dtype == torch.float32
        assert (a - exact).norm() <= 1.05 * (b - exact).norm() + 1e-6 * exact.norm()


def test_positions_without_a_target_have_no_gradient_and_all_of_them_no_loss() -> None:
    hidden, weight, wanted = parts()
    _, gradient, _ = measured(chunked_loss, hidden, weight, wanted, scale=1.0)
    assert not gradient[wanted == -100].any()
    assert gradient[wanted != -100].any(dim=1).all()
    loss, *gradients = measured(chunked_loss, hidden, weight, torch.full_like(wanted, -100), scale=1.0)
    assert loss == 0
    assert not any(g.any() for g in gradients)


def test_what_is_frozen_gets_no_gradient_and_a_second_backward_pass_is_refused() -> None:
    hidden, weight, wanted = parts()
    hidden.requires_grad_()
    loss = chunked_loss(hidden, weight, wanted)
    assert loss.grad_fn.weight is None, "adapters: the output layer is frozen, so no gradient of its size is kept"
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="the loss was taken backward before; its gradients are gone"):
        loss.backward()
    with torch.no_grad():
        assert not chunked_loss(hidden, weight, wanted).requires_grad


def test_logits_far_from_zero_stay_finite() -> None:
    hidden, weight, wanted = parts()
    ours, theirs = (measured(f, hidden * 1000, weight, wanted, scale=1.0) for f in (chunked_loss, ordinary))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-3)


def test_the_ordinary_loss_takes_what_the_formula_says_and_the_chunked_one_its_parts() -> None:
    hidden, weight, wanted = parts(targets=600, hidden=8, words=5000)
    peaks = {}
    for name, loss in (("full", ordinary), ("chunked", lambda h, w, t: chunked_loss(h, w, t, part_bytes=60 * 4 * 5000))):
        with live_bytes().LiveBytes() as live:
            measured(loss, hidden, weight, wanted, scale=1.0)
        peaks[name] = live.peak
    assert peaks["full"] == pytest.approx(logits_bytes(600, 5000), rel=0.05)
    assert peaks["chunked"] < logits_bytes(600, 5000) / 12, "a tenth of the rows at a time, once and not three times"


@pytest.fixture
def model(tiny_model: Path):
    from transformers import AutoModelForCausalLM

    register()
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.mark.parametrize(("batch", "attention"), [(pack(EXAMPLES), PACKED), (pad(EXAMPLES, 2), "sdpa")], ids=["packed", "padded"])
def test_a_model_learns_the_same_and_evaluates_as_before(model, batch, attention: str) -> None:
    """The tied embedding gets its gradient from both ends."""
    model.set_attn_implementation(attention)

    def measure(head: Head | None):
        model.zero_grad()
        loss = loss_sum(model, batch, CPU, head)
        (loss / batch.target_tokens).backward()
        return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}

    loss, gradients = measure(None)
    logits, _ = target_logits(model, batch, CPU)
    head = Head(model, "chunked")
    ours, own = measure(head)
    torch.testing.assert_close(ours, loss, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6)
    assert torch.equal(target_logits(model, batch, CPU)[0], logits)


SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("llama", {}, None),
        ("qwen2", {"tie_word_embeddings": True}, None),
        ("granite", {"logits_scaling": 8.0}, "this model scales or caps what its output layer returns"),
        ("gemma2", {"head_dim": 16}, "this model scales or caps what its output layer returns"),
        ("phi", {}, "this model's output layer is Linear with a bias"),
    ],
)
def test_models_that_change_their_logits_are_found(kind: str, more: dict, reason: str | None) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **more))
    model.train()
    state = torch.get_rng_state()
    assert why_not(model) == reason
    assert model.training
    assert torch.equal(torch.get_rng_state(), state), "training draws what it would draw without the question"
