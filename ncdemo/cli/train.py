"""`ncdemo train`: fine-tune as a spec says, on this machine."""

import click

from ncdemo.cli.launch import follow, new_run_folder, prepare
from ncdemo.cli.options import spec_options
from ncdemo.spec import TrainSpec, load_spec


@click.group("train")
def command() -> None:
    """Fine-tune a model as a spec says."""


@command.command()
@spec_options
@click.option("--nproc", type=click.IntRange(min=1), help="Processes on this machine; the same as --set train.processes=N.")
def accelerate(config: str, overrides: tuple[str, ...], dry_run: bool, nproc: int | None) -> None:
    """Fine-tune with Hugging Face Accelerate. Prints the run's folder."""
    if nproc is not None:
        overrides = (*overrides, f"train.processes={nproc}")
    spec = load_spec(config, TrainSpec, overrides)
    follow(prepare(spec, new_run_folder(spec.name)), dry_run)
