"""`ncdemo bench`: measure inference engines as a spec says, on this machine."""

from pathlib import Path

import click

from ncdemo.cli.launch import follow, new_run_folder, prepare, unfinished
from ncdemo.cli.options import spec_options
from ncdemo.spec import BenchSpec, load_spec


@click.group("bench")
def command() -> None:
    """Benchmark inference engines as a spec says."""


@command.command()
@spec_options
@click.option(
    "--resume", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Go on with a run that was stopped; -c RUN/spec.yaml."
)
def run(config: str, overrides: tuple[str, ...], dry_run: bool, resume: Path | None) -> None:
    """Measure every cell of a spec. Prints the run's folder."""
    spec = load_spec(config, BenchSpec, overrides)
    follow(prepare(spec, unfinished(resume) if resume else new_run_folder(spec.name)), dry_run)
