"""`ncdemo bench`: measure inference engines as a spec says, on this machine."""

from pathlib import Path

import click

from ncdemo.cli.launch import Launch, follow, new_run_folder, python_module
from ncdemo.cli.options import spec_options
from ncdemo.spec import BenchSpec, load_spec


def bench_launch(spec: BenchSpec, folder: Path) -> Launch:
    """Return the launch of a benchmark."""
    return Launch(folder, spec, python_module("workloads.inference.bench", "--run", str(folder)), {"TOKENIZERS_PARALLELISM": "false"})


@click.group("bench")
def command() -> None:
    """Benchmark inference engines as a spec says."""


@command.command()
@spec_options
def run(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Measure every engine x model x concurrency of a spec. Prints the run's folder."""
    spec = load_spec(config, BenchSpec, overrides)
    follow(bench_launch(spec, new_run_folder(spec.name)), dry_run)
