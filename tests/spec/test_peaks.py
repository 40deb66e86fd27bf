"""MFU is arithmetic: by hand, and only where a GPU's peak is known."""

import pytest

from ncdemo.spec.peaks import PEAKS, Work, mfu, peak_flops_per_s, step_flops

WORK = Work(body=1000, trained_body=1000, head=100, trained_head=100, layers=2, attention_width=8)


def test_a_step_by_hand() -> None:
    # Two examples of 10 and 20 tokens, 12 of them targets.
    flops = step_flops(WORK, tokens=30, target_tokens=12, squares=10**2 + 20**2)
    assert flops == 30 * 6 * 1000 + 12 * 6 * 100 + 6 * 2 * 8 * 500
    adapters = Work(body=1010, trained_body=10, head=100, trained_head=0, layers=2, attention_width=8)
    assert step_flops(adapters, tokens=1, target_tokens=0, squares=0) == 4 * 1010 + 2 * 10


def test_long_plain_training_is_six_flops_per_weight_and_token() -> None:
    """The usual rule of thumb, where attention and head weigh nothing."""
    plain = Work(body=10**9, trained_body=10**9, head=0, trained_head=0, layers=0, attention_width=0)
    assert step_flops(plain, tokens=4096, target_tokens=4096, squares=4096**2) == 6 * 10**9 * 4096


def test_the_share_of_the_peak() -> None:
    assert mfu(989e12, 2.0, peak_flops_per_s("NVIDIA H100 80GB HBM3"), gpus=1) == 0.5
    assert mfu(835e12, 1.0, peak_flops_per_s("NVIDIA H100 NVL"), gpus=2) == 0.5
    assert mfu(1e12, 1.0, peak_flops_per_s("NVIDIA GeForce RTX 4090"), gpus=1) is None


@pytest.mark.parametrize("peak", PEAKS, ids=lambda p: p.name)
def test_every_peak_has_a_source_and_is_dense(peak) -> None:
    assert peak.source.startswith("https://")
    assert 0.8e15 < peak.dense_bf16_flops_per_s < 1e15
