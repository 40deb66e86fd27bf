"""`ncdemo train compare`: figures by hand, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.report.train_compare import compare, loss_until, read_side, table
from ncdemo.spec import SpecError
from ncdemo.spec.result import StepRecord


def step(n: int, loss: float, *, tokens: int = 100, took: float = 1.0) -> StepRecord:
    return StepRecord(
        step=n, end_s=n, step_time_s=took, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens=tokens, target_tokens=tokens // 2, examples=1,
        tokens_per_s=tokens / took,
    )  # fmt: skip


def change(folder: Path, **train: object) -> Path:
    record = json.loads((folder / "result.json").read_text())
    record["train"] |= train
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def rewrite(folder: Path, old: str, new: str) -> Path:
    text = (folder / "spec.yaml").read_text()
    assert old in text
    (folder / "spec.yaml").write_text(text.replace(old, new))
    return folder


def test_loss_at_a_point_is_the_mean_of_the_last_tenth_per_target_token() -> None:
    curve = [step(n, float(n)) for n in range(1, 21)]  # 100 tokens each
    assert loss_until(curve, 2000, lambda s: s.tokens) == pytest.approx(19.5)
    assert loss_until(curve, 1050, lambda s: s.tokens) == 10.0, "a step that doesn't fit doesn't count"
    assert loss_until(curve, 10.0, lambda s: s.step_time_s) == 10.0
    assert loss_until(curve, 50, lambda s: s.tokens) is None
    uneven = [step(1, 1.0, tokens=700), step(2, 2.0, tokens=20), step(3, 5.0, tokens=60)]
    assert loss_until(uneven, 780, lambda s: s.tokens) == pytest.approx((2.0 * 10 + 5.0 * 30) / 40)


def test_figures_of_two_runs(train_run) -> None:
    slow, fast = train_run("slow", speed=1000.0), train_run("fast", seed=2, speed=3000.0, gpus=2)
    rewrite(fast, "prices: null", "prices: {vm_size: Standard_NC80adis_H100_v5, region: eastus}")
    sides = [read_side(run) for run in (slow, fast)]
    found = compare(sides)
    a, b = found.rows
    warm = sides[0].steps[1:]
    assert a.tokens_per_s == pytest.approx(sum(s.tokens for s in warm) / sum(s.step_time_s for s in warm))
    assert a.step_time_p50_s == sorted(s.step_time_s for s in warm)[29]
    assert b.tokens_per_s > 2.5 * a.tokens_per_s
    assert found.equal_time_s == sum(s.step_time_s for s in sides[1].steps)
    assert found.equal_tokens == min(sum(s.tokens for s in side.steps) for side in sides)
    assert a.loss_at_time > b.loss_at_time, "in the time of the fast run the slow one learned less"
    assert (a.held_out_loss, a.exact_match, a.peak_vram_bytes, b.peak_vram_bytes) == (0.41, 0.71875, None, 40 * 1024**3)
    assert (a.cost_usd, b.cost_usd) == (None, pytest.approx(17.64 * 2 * sides[1].duration_s / 3600)), "2 ranks of 1 process: two nodes"
    text = table(found)
    assert "n/a" in text.splitlines()[1]
    assert "seeds differ" in text


def joules_by_hand(run: Path) -> float:
    """The samples are two a second, of which the first 20 are before the second step."""
    power = [sum(gpu["power_w"] for gpu in json.loads(line)["gpus"]) for line in (run / "samples.jsonl").read_text().splitlines()]
    return sum(s.step_time_s for s in read_side(run).warm) * sum(power[20:]) / len(power[20:])


def test_energy_is_that_of_the_steps(train_run) -> None:
    run = rewrite(train_run("node", gpus=2), "processes: 1", "processes: 2")
    found = compare([read_side(run)])
    assert found.rows[0].energy_j_per_token == pytest.approx(joules_by_hand(run) / sum(s.tokens for s in read_side(run).warm), rel=0.03)
    assert "energy" not in " ".join(found.notes)


def test_energy_is_the_sum_over_the_nodes(train_run) -> None:
    run = train_run("first", gpus=2)
    other, stray = train_run("first-node1", seed=7, gpus=1), train_run("first-node2", gpus=1)
    (row,) = compare([read_side(run)]).rows
    joules = joules_by_hand(run) + joules_by_hand(other)
    assert row.energy_j_per_token == pytest.approx(joules / sum(s.tokens for s in read_side(run).warm), rel=0.03)
    assert stray.exists(), "of an earlier attempt with more nodes"


def test_energy_of_several_nodes_is_none_where_one_is_not_known(train_run) -> None:
    run = train_run("first", gpus=2)
    found = compare([read_side(run)])
    assert found.rows[0].energy_j_per_token is None
    why = "first: energy per token isn't known, as node 1 has no samples here: put its folder, first-node1, beside first."
    assert found.notes[-1] == why
    assert why in table(found)
    other = train_run("first-node1", gpus=1)
    lines = (other / "samples.jsonl").read_text().splitlines()
    (other / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines[: len(lines) // 2]))
    found = compare([read_side(run)])
    assert found.rows[0].energy_j_per_token is None
    assert re.fullmatch(r"first: energy .*, as the power of node 1 isn't known from \d+\.\d to \d+\.\d s\.", found.notes[-1])


def test_without_a_gpu_nothing_is_said_of_energy(train_run) -> None:
    found = compare([read_side(train_run("cpu"))])
    assert found.rows[0].energy_j_per_token is None
    assert "energy" not in " ".join(found.notes)


def test_energy_of_a_run_that_went_on_elsewhere_is_without_the_step_in_which_it_stopped(train_run) -> None:
    """500 W by the counters of two machines, which differ by 300 kJ."""
    run = change(train_run("moved", gpus=1), world_size=1)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    half = len(samples) // 2
    for i, sample in enumerate(samples):
        sample["tick"] = i % half
        sample["gpus"][0] |= {"power_w": 500.0, "energy_j": 250.0 * i + 300_000.0 * (i // half)}
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (row,) = compare([read_side(run)]).rows
    warm = read_side(run).steps[1:]
    assert row.energy_j_per_token == pytest.approx(500 * sum(s.step_time_s for s in warm) / sum(s.tokens for s in warm), rel=0.03)


def test_unsloths_stand_in_gets_no_speed(train_run) -> None:
    sides = [read_side(change(train_run("u"), engine="unsloth-cpu")), read_side(train_run("a")), read_side(train_run("b", speed=900.0))]
    found = compare(sides)
    row = found.rows[0]
    assert {row.tokens_per_s, row.step_time_p50_s, row.peak_rss_bytes, row.loss_at_time, row.cost_usd} == {None}
    assert row.loss_at_tokens == pytest.approx(found.rows[1].loss_at_tokens)
    assert "not Unsloth's and are left out" in table(found)
    assert compare(sides[:2]).equal_time_s is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: smollm2-135m-instruct", "name: other", "model.name is 'smollm2-135m-instruct' and 'other'"),
        ("eval_examples: 64", "eval_examples: 65", "data.eval_examples is 64 and 65"),
        ("max_new_tokens: 256", "max_new_tokens: 9", "eval.max_new_tokens is 256 and 9"),
    ],
)
def test_other_work_is_refused(train_run, old: str, new: str, message: str) -> None:
    a, b = read_side(train_run("a")), read_side(rewrite(train_run("b"), old, new))
    with pytest.raises(SpecError, match=f"^a and b are not the same work: {message}; train both on one model, data and evaluation$"):
        compare([a, b])


def test_data_that_only_share_their_name_are_refused_and_packing_is_no_difference(train_run) -> None:
    a, b = train_run("a"), rewrite(train_run("b"), "packing: true", "packing: false")
    assert len(compare([read_side(a), read_side(b)]).rows) == 2
    dataset = {"name": "ncdemo-jobs", "fallback": True, "examples": 480, "revision": None}
    with pytest.raises(SpecError, match="dataset fallback is False and True"):
        compare([read_side(a), read_side(change(b, dataset=dataset))])


def test_what_has_no_figures_is_refused(train_run, bench_run) -> None:
    with pytest.raises(SpecError, match="is no training run; give runs of `ncdemo train`, or use `ncdemo bench compare`"):
        read_side(bench_run())
    with pytest.raises(SpecError, match="did not come to its end, so it has no figures to compare; go on with it by --resume"):
        read_side(train_run("killed", status="interrupted", train=None))
    run = train_run("torn")
    (run / "steps.jsonl").unlink()
    with pytest.raises(SpecError, match=r"steps\.jsonl: has no steps; copy the whole run directory"):
        read_side(run)


def test_the_command_says_it_in_text_and_json(train_run) -> None:
    command = [sys.executable, "-m", "ncdemo", "train", "compare", str(train_run("one")), str(train_run("two", speed=1200.0))]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "held-out loss" in text.splitlines()[0]
    assert text.splitlines()[2].startswith("two")
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [row["run"] for row in found["rows"]] == ["one", "two"]
