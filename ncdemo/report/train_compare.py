"""Several training runs in one table: speed, memory, loss at equal tokens and at equal time, and what they cost.

    table(compare([read_side(Path("runs/ddp")), read_side(Path("runs/zero3"))]))

What isn't the same work is refused: another model, other data, another evaluation. How rows are filled (packing) may differ, as it
may between strategies. A run of Unsloth's CPU backend keeps its losses; its speed is not Unsloth's, so it gets none here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ncdemo.report.lines import records
from ncdemo.report.read import Run, read_run
from ncdemo.report.show import UNBOUND, duration, number, percent, size
from ncdemo.report.train_energy import meters, per_token
from ncdemo.spec.base import SpecError
from ncdemo.spec.energy import Meter
from ncdemo.spec.result import StepRecord, TrainResult
from ncdemo.spec.sizes import find

SAME = ("model.name", "model.revision", "data.name", "data.revision", "data.format", "data.train_examples", "data.eval_examples",
        "data.max_seq_len", "data.seed", "eval.exact_match_examples", "eval.max_new_tokens")  # fmt: skip
"""Keys of the spec that say what is learned and what is asked."""
CPU_BACKEND = "unsloth-cpu"
TAIL = 0.1
"""Loss at a point is the mean over the last tenth before it: one step's alone is noise."""


@dataclass(frozen=True)
class Side:
    """One finished run, as read."""

    label: str
    spec: dict[str, Any]
    environment: dict[str, Any]
    duration_s: float | None
    result: TrainResult
    steps: tuple[StepRecord, ...]
    meters: dict[int, Meter]
    """By rank of the node."""

    @property
    def warm(self) -> tuple[StepRecord, ...]:
        """The steps after the first, which warms caches."""
        return self.steps[1:] or self.steps


@dataclass(frozen=True)
class Row:
    """One run's figures. None: not known, or not to be compared."""

    run: str
    strategy: str
    engine: str | None
    ranks: int
    precision: str
    speed: str | None
    """What of train.speed was on; None where an older version didn't record it."""
    tokens_per_s: float | None
    """Tokens / time of the steps after the first, which warms caches."""
    step_time_p50_s: float | None
    """Median of the same steps."""
    peak_vram_bytes: int | None
    peak_rss_bytes: int | None
    held_out_loss: float | None
    exact_match: float | None
    loss_at_tokens: float | None
    loss_at_time: float | None
    energy_j_per_token: float | None
    """Energy of all nodes' GPUs in the same steps / their tokens; None where that of one isn't known, which a note says."""
    cost_usd: float | None
    """Pay-as-you-go price of its nodes x the run's whole duration."""


@dataclass(frozen=True)
class Comparison:
    rows: list[Row]
    equal_tokens: int
    """What the run with the fewest tokens trained on."""
    equal_time_s: float | None
    """Steps' time of the run that took least; None where fewer than two runs have a speed to compare."""
    notes: list[str]


def read_side(folder: Path) -> Side:
    """Return a run that came to its end. Raise SpecError for any other."""
    run = read_run(folder)
    if run.kind != "train":
        raise SpecError(f"{folder}: is no training run; give runs of `ncdemo train`, or use `ncdemo bench compare`")
    result = run.record.train if run.record else None
    if result is None:
        raise SpecError(f"{folder}: did not come to its end, so it has no figures to compare; go on with it by --resume {folder}")
    steps = tuple(StepRecord(**item) for batch in records(folder / "steps.jsonl", []) for item in batch)
    if not steps:
        raise SpecError(f"{folder}/steps.jsonl: has no steps; copy the whole run directory")
    return Side(run.folder, run.spec, run.environment, _duration_s(run), result, steps, meters(folder))


def compare(sides: Sequence[Side]) -> Comparison:
    """Put runs beside each other. Raise SpecError naming what differs when they didn't do the same work."""
    for other in sides[1:]:
        if different := differences(sides[0], other):
            raise SpecError(
                f"{sides[0].label} and {other.label} are not the same work: {'; '.join(different)}; train both on one model, data and evaluation"
            )
    tokens = min(sum(s.tokens for s in side.steps) for side in sides)
    timed = [sum(s.step_time_s for s in side.steps) for side in sides if not _is_stand_in(side)]
    time_s = min(timed) if len(timed) > 1 else None
    return Comparison([_row(side, tokens, time_s) for side in sides], tokens, time_s, _notes(sides))


def differences(a: Side, b: Side) -> list[str]:
    """Return, for each key that makes two runs different work, both values."""
    pairs = [(key, *(_at(side.spec, key) for side in (a, b))) for key in SAME]
    known = a.result.dataset.keys() & b.result.dataset.keys()  # what was really used: a hub's data may have changed
    pairs += [(f"dataset {key}", a.result.dataset[key], b.result.dataset[key]) for key in sorted(known)]
    return [f"{key} is {x!r} and {y!r}" for key, x, y in pairs if x != y]


def loss_until(steps: Sequence[StepRecord], budget: float, spent: Callable[[StepRecord], float]) -> float | None:
    """Return the mean training loss per target token over the last tenth of a budget; None where no step fits into it."""
    total, within = 0.0, []
    for step in steps:
        total += spent(step)
        if total > budget * (1 + 1e-9):
            break
        within.append((total, step))
    if not within:
        return None
    tail = [step for at, step in within if at > (1 - TAIL) * within[-1][0]]
    return sum(s.loss * s.target_tokens for s in tail) / sum(s.target_tokens for s in tail)


def table(found: Comparison) -> str:
    """Return the comparison as text."""
    at_tokens = f"loss at {number(found.equal_tokens)} tokens"
    at_time = f"loss at {duration(found.equal_time_s)}" if found.equal_time_s is not None else "loss at equal time"
    columns = [
        "run",
        "strategy",
        "ranks",
        "tokens/s",
        "step p50",
        "VRAM",
        "RSS",
        "held-out loss",
        "exact match",
        at_tokens,
        at_time,
        "J/token",
        "USD",
    ]
    lines = [columns, *(_cells(row) for row in found.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *found.notes])


def _row(side: Side, tokens: int, time_s: float | None) -> Row:
    result, warm, last = side.result, side.warm, side.result.after
    figures = not _is_stand_in(side)
    return Row(
        run=side.label, strategy=str(_at(side.spec, "train.strategy")), engine=result.engine, ranks=result.world_size,
        precision=result.precision, speed=result.speed.shown if result.speed else None,
        tokens_per_s=sum(s.tokens for s in warm) / sum(s.step_time_s for s in warm) if figures else None,
        step_time_p50_s=median(s.step_time_s for s in warm) if figures else None,
        peak_vram_bytes=result.peak_vram_bytes if figures else None,
        peak_rss_bytes=result.peak_rss_bytes if figures else None,
        held_out_loss=last.loss if last else None,
        exact_match=last.exact_match if last else None,
        loss_at_tokens=loss_until(side.steps, tokens, lambda s: s.tokens),
        loss_at_time=loss_until(side.steps, time_s, lambda s: s.step_time_s) if time_s is not None and figures else None,
        energy_j_per_token=_energy(side)[0] if figures else None,
        cost_usd=_cost_usd(side) if figures else None,
    )  # fmt: skip


def _cells(row: Row) -> list[str]:
    def shown(value: float | None, show: Callable[[Any], str]) -> str:
        return UNBOUND if value is None else show(value)

    how = ", ".join(filter(None, [row.engine or "engine not recorded", row.precision, row.speed]))
    return [
        row.run, f"{row.strategy} ({how})", str(row.ranks), shown(row.tokens_per_s, number),
        shown(row.step_time_p50_s, duration), shown(row.peak_vram_bytes, size), shown(row.peak_rss_bytes, size),
        shown(row.held_out_loss, number), shown(row.exact_match, percent), shown(row.loss_at_tokens, number),
        shown(row.loss_at_time, number), shown(row.energy_j_per_token, number), shown(row.cost_usd, number),
    ]  # fmt: skip


def _notes(sides: Sequence[Side]) -> list[str]:
    notes = ["Losses at a point are training losses, the mean over the last tenth before it; time is that of steps alone."]
    machines = {(str(_at(s.environment, "cpu.model")), _gpus(s.environment)) for s in sides}
    if len(machines) > 1:
        notes.append("The runs are of different machines, so speed, memory and time compare these as well.")
    if len({s.result.speed for s in sides if s.result.speed}) > 1:
        notes.append("The runs' switches in train.speed differ, as the strategy's brackets say; speed and memory compare these as well.")
    if any(_is_stand_in(side) for side in sides):
        notes.append(f"{CPU_BACKEND} is Unsloth's stand-in for tests: its speed, memory and cost are not Unsloth's and are left out.")
    if len({_at(s.spec, "train.seed") for s in sides}) > 1:
        notes.append("The runs' seeds differ.")
    unknown = [(side.label, _energy(side)[1]) for side in sides if not _is_stand_in(side)]
    return notes + [f"{label}: energy per token isn't known, as {why}." for label, why in unknown if why]


def _cost_usd(side: Side) -> float | None:
    said, key = (side.spec, "prices") if _at(side.spec, "prices.vm_size") else (side.environment, "azure")
    vm = find(str(_at(said, f"{key}.vm_size")))
    usd_per_h = vm.price(str(_at(said, f"{key}.region"))) if vm else None
    if usd_per_h is None or side.duration_s is None:
        return None
    return usd_per_h * _nodes(side) * side.duration_s / 3600


def _energy(side: Side) -> tuple[float | None, str | None]:
    return per_token(side.label, side.meters, _nodes(side), side.warm)


def _nodes(side: Side) -> int:
    return side.result.world_size // (_at(side.spec, "train.processes") or 1)


def _duration_s(run: Run) -> float | None:
    return run.record.duration_s if run.record else None


def _is_stand_in(side: Side) -> bool:
    return side.result.engine == CPU_BACKEND


def _gpus(environment: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(gpu.get("name")) for gpu in environment.get("gpus") or () if isinstance(gpu, dict))


def _at(tree: dict[str, Any], key: str) -> Any:
    """Return a dotted key's value; None where it isn't."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
