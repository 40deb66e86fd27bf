"""`ncdemo bench`: measure inference engines as a spec says, on this machine; compare and export what was measured."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from ncdemo.cli.options import spec_options

# Nothing of ncdemo.spec is imported here: it would cost `--help` a quarter of a second.


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
    from ncdemo.cli.launch import follow, new_run_folder, prepare, unfinished
    from ncdemo.spec import BenchSpec, load_spec
    from ncdemo.spec.paths import runs_dir

    spec = load_spec(config, BenchSpec, overrides)
    folder = unfinished(resume) if resume else new_run_folder(spec.name)
    if dry_run:
        from ncdemo.cli.bench_plan import plan_text

        click.echo(plan_text(spec, runs_dir(), resume))
    follow(prepare(spec, folder), dry_run)


@command.command()
@click.argument("a", metavar="RUN[:SUBJECT]")
@click.argument("b", metavar="RUN[:SUBJECT]")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def compare(a: str, b: str, as_json: bool) -> None:
    """Say, per metric, the ratio of A to B, its interval, and whether it is more than noise.

    A and B are two subjects of one run (runs/x:vllm runs/x:sglang), or two runs. What fails a fairness gate is refused, and so are sides
    whose answers differ.
    """
    from ncdemo.report import compare as report

    one_side, other = (report.read_side(Path(folder), subject or None) for folder, _, subject in (side.partition(":") for side in (a, b)))
    found = report.compare(one_side, other)
    if as_json:
        rows = [
            {"kind": type(one).__name__.lower(), **asdict(one)} | ({"verdict": one.verdict} if isinstance(one, report.Difference) else {})
            for one in (*report.heading(one_side, other), *found)
        ]
        click.echo(json.dumps(rows, indent=1, default=lambda record: record.model_dump()))
    else:
        click.echo(report.table(one_side, other, found))
    if all(isinstance(one, report.Refused) for one in found):
        raise SystemExit(1)


@command.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", "form", type=click.Choice(["csv", "json", "parquet"]), default="csv", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file (default: stdout; parquet needs one).")
def export(run_folder: Path, form: str, output: Path | None) -> None:
    """Write a run's cells as a table: one row per cell, one column per figure."""
    from ncdemo.report.export import write_cells

    write_cells(run_folder, form, output)
