"""What a run's GPUs took in its steps: of the samples in its folder, or not known."""

from pathlib import Path

import pytest

from ncdemo.spec.result import GpuSample, Sample, StepRecord
from workloads.training.core.energy import energy_j


def step(number: int, end_s: float, took_s: float) -> StepRecord:
    return StepRecord(
        step=number, end_s=end_s, step_time_s=took_s, loss=1.0, learning_rate=1e-3, grad_norm=1.0, examples=1, tokens=10, target_tokens=5,
        tokens_per_s=10 / took_s,
    )  # fmt: skip


def samples(path: Path, watts: list[float | None]) -> Path:
    """One a second, from 0 on, of two GPUs of which the second takes 50 W."""
    found = [
        Sample(time_s=float(i), tick=i, gpus=[GpuSample(index=0, power_w=w), GpuSample(index=1, power_w=50.0)]) for i, w in enumerate(watts)
    ]
    path.write_text("".join(one.model_dump_json() + "\n" for one in found))
    return path


def test_all_gpus_in_the_steps_alone(tmp_path: Path) -> None:
    file = samples(tmp_path / "samples.jsonl", [300.0] * 5 + [700.0] * 6)
    # 2 s at 350 W; what lies between the steps, an evaluation, isn't theirs; 2 s at 750 W.
    assert energy_j(file, [step(1, 3.0, 2.0), step(2, 9.0, 2.0)]) == pytest.approx(2 * 350 + 2 * 750)


def test_one_step_that_is_not_known_leaves_all_unknown(tmp_path: Path) -> None:
    file = samples(tmp_path / "samples.jsonl", [300.0] * 5 + [None] * 6)
    assert energy_j(file, [step(1, 3.0, 2.0)]) == pytest.approx(700)
    assert energy_j(file, [step(1, 3.0, 2.0), step(2, 9.0, 2.0)]) is None
    assert energy_j(file, [step(1, 3.0, 2.0), step(2, 99.0, 2.0)]) is None, "after the last sample"
    assert energy_j(tmp_path / "absent.jsonl", [step(1, 3.0, 2.0)]) is None
