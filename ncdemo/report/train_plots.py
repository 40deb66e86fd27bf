"""What training did: loss, learning rate, gradient norm and throughput per step, and accuracy before and after."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ncdemo.report.columns import decimate
from ncdemo.report.figure import DASHES, INK, MUTED, NARROW, PAPER, SERIES, WIDE, Plot, drawing, panels, to_svg
from ncdemo.report.read import Run
from ncdemo.report.show import percent

ACCURACIES = (("exact_match", "Exact match"), ("field_accuracy", "Field accuracy"), ("token_accuracy", "Token accuracy"))


def train_plots(runs: list[Run], colours: dict[str, int]) -> list[Plot]:
    """Draw every run that has steps into the same axes, and accuracies below each other."""
    drawn = [run for run in runs if len(run.steps["step"])]
    plots = []
    if drawn or any(run.evals for run in runs):
        with drawing():
            caption = "Loss in nats per target token. Line: training, each step. Dots: held-out data."
            plots.append(Plot(caption, _loss(runs, colours, WIDE), _loss(runs, colours, NARROW)))
    with drawing():
        if drawn:
            plots += [
                Plot("Training loss by how many tokens were learned from.", _spent(drawn, colours, "tokens", "tokens")),
                Plot(
                    "Training loss by the time that steps took, without evaluations and checkpoints.",
                    _spent(drawn, colours, "step_time_s", "seconds of steps"),
                ),
                Plot(
                    "Tokens that are not padding, per second of each step.", _curve(drawn, colours, "tokens_per_s", "Throughput (tokens/s)")
                ),
                Plot("Learning rate of each step.", _curve(drawn, colours, "learning_rate", "Learning rate")),
                Plot("L2 norm of the gradient before clipping.", _curve(drawn, colours, "grad_norm", "Gradient norm")),
            ]
        if any(run.before or run.after for run in runs):
            plots.append(Plot("Held-out accuracy: hollow before training, filled after.", _accuracy(runs, colours)))
    return plots


def _loss(runs: list[Run], colours: dict[str, int], width: float) -> str:
    fig, (ax,) = panels(1, width, 190)
    for run in runs:
        _line(ax, run, colours, "loss")
        points = [(e.step, e.loss) for e in run.evals if np.isfinite(e.loss)]
        if points:
            x, y = zip(*points, strict=True)
            colour = SERIES[colours[run.label] % 8]
            ax.plot(x, y, linestyle=(0, (1, 2)), linewidth=1, color=colour, zorder=3)
            ax.plot(x, y, "o", markersize=7, color=colour, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=4)
    ax.set_title("Loss (nats)")
    _of_steps(ax)
    return to_svg(fig, f"Loss per optimizer step of {_names(runs)}, with held-out loss as dots")


def _curve(runs: list[Run], colours: dict[str, int], column: str, title: str) -> str:
    fig, (ax,) = panels(1, NARROW, 190)
    for run in runs:
        _line(ax, run, colours, column)
    ax.set_ylim(0, max(float(np.nanmax(run.steps[column], initial=0)) for run in runs) * 1.06 or 1)
    ax.set_title(title)
    _of_steps(ax)
    return to_svg(fig, f"{title} per optimizer step of {_names(runs)}")


def _of_steps(ax: Axes) -> None:
    """Half a step is none."""
    ax.set_xlabel("optimizer step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 2.5, 5, 10]))


def _spent(runs: list[Run], colours: dict[str, int], column: str, unit: str) -> str:
    """Draw loss against what steps have cost so far: strategies with other batches or speeds meet at equal cost."""
    fig, (ax,) = panels(1, NARROW, 190)
    for run in runs:
        x, y = decimate(np.cumsum(np.nan_to_num(run.steps[column])), run.steps["loss"])
        index = colours[run.label]
        ax.plot(x, y, color=SERIES[index % 8], linestyle=DASHES[index % 4], marker="." if len(x) < 3 else None)
    ax.set_title("Loss (nats)")
    ax.set_xlabel(unit)
    return to_svg(fig, f"Loss by {unit} of {_names(runs)}")


def _line(ax: Axes, run: Run, colours: dict[str, int], column: str) -> None:
    if len(run.steps["step"]):
        x, y = decimate(run.steps["step"], run.steps[column])
        index = colours[run.label]
        ax.plot(x, y, color=SERIES[index % 8], linestyle=DASHES[index % 4], marker="." if len(x) < 3 else None)


def _accuracy(runs: list[Run], colours: dict[str, int]) -> str:
    """One row per accuracy and run that has it; a row with one dot has only that evaluation."""
    rows = []
    for field, name in ACCURACIES:
        for run in runs:
            values = [getattr(evaluation, field) if evaluation else None for evaluation in (run.before, run.after)]
            if any(value is not None for value in values):
                rows.append((name, run, values))
    fig, (ax,) = panels(1, NARROW, max(190, 26 * len(rows)), left=96)
    for y, (_, run, values) in enumerate(rows):
        colour = SERIES[colours[run.label] % 8]
        known = [value for value in values if value is not None]
        ax.plot(np.array(known) * 100, [y] * len(known), color=colour, linewidth=2.5, alpha=0.45)
        for value, fill in zip(values, (PAPER, colour), strict=True):
            if value is not None:
                ax.plot(value * 100, y, "o", markersize=8, color=fill, markeredgecolor=colour, markeredgewidth=1.6, zorder=3)
        _values(ax, y, known, values[1] is not None)
    ax.set_yticks(range(len(rows)), [name if i == 0 or rows[i - 1][0] != name else "" for i, (name, _, _) in enumerate(rows)])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(-19, 119)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.grid(axis="y", visible=False)
    ax.set_title("Accuracy on held-out data (%)")
    ax.set_xlabel("share of tokens, fields or examples (%)")
    return to_svg(fig, f"Accuracy before and after training of {_names(runs)}")


def _values(ax: Axes, y: int, known: list[float], trained: bool) -> None:
    """Write the value before training and, stronger, the one after, each on its outer side."""
    rising = known[-1] >= known[0]
    for value, after in zip(known, (len(known) == 1 and trained, True), strict=False):
        right = rising == after
        ax.annotate(
            percent(value),
            (value * 100, y),
            xytext=(8 if right else -8, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=9.5,
            color=INK if after else MUTED,
        )


def _names(runs: list[Run]) -> str:
    return ", ".join(run.label for run in runs)
