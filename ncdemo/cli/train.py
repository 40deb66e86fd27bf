"""`ncdemo train`: fine-tune as a spec says, on this machine; compare what was trained."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ncdemo.cli.options import spec_options


@click.group("train")
def command() -> None:
    """Fine-tune a model as a spec says."""


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every strategy's command takes."""
    function = click.option(
        "--resume",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Go on with a run that was stopped, from its newest whole checkpoint.",
    )(function)
    function = click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine; the same as --set train.processes=N.")(
        function
    )
    return spec_options(function)


@command.command()
@train_options
def accelerate(**given: Any) -> None:
    """Fine-tune with Hugging Face Accelerate. Prints the run's folder."""
    _train("accelerate", **given)


@command.command()
@train_options
def deepspeed(**given: Any) -> None:
    """Fine-tune with DeepSpeed ZeRO. Prints the run's folder."""
    _train("deepspeed", **given)


@command.command()
@train_options
def unsloth(**given: Any) -> None:
    """Fine-tune adapters with Unsloth. Prints the run's folder."""
    _train("unsloth", **given)


@command.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Put finished runs beside each other: speed, memory, loss at equal tokens and at equal time, cost.

    Runs of another model, other data or another evaluation are refused.
    """
    from ncdemo.report import train_compare as report

    found = report.compare([report.read_side(folder) for folder in runs])
    click.echo(json.dumps(asdict(found), indent=1) if as_json else report.table(found))


def _train(strategy: str, config: str, overrides: tuple[str, ...], dry_run: bool, nproc: int | None, resume: Path | None) -> None:
    """Run a spec with this strategy, whichever the file names: one file serves all, so that they can be compared."""
    from ncdemo.cli.launch import follow, new_run_folder, prepare, unfinished
    from ncdemo.spec import TrainSpec, load_spec

    overrides = (*overrides, f"train.strategy={strategy}")
    if nproc is not None:
        overrides = (*overrides, f"train.processes={nproc}")
    spec = load_spec(config, TrainSpec, overrides)
    follow(prepare(spec, unfinished(resume) if resume else new_run_folder(spec.name)), dry_run)
