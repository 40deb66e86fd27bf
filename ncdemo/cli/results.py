"""`ncdemo results`: what jobs left in Blob storage: list it, fetch it, and make a report of it, also while a job still runs.

ncdemo results ls --stack aks-dev
ncdemo results pull tune --stack aks-dev
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ncdemo.operate.blobs import Blobs
    from ncdemo.operate.pull import Progress, Pulled


@click.group("results")
def command() -> None:
    """List, fetch and report what jobs left in Blob storage."""


def storage_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which storage."""
    options = (
        click.option("--stack", metavar="STACK", help="The storage of this stack, by name or file."),
        click.option("--account", metavar="NAME", help="The storage account [default: NCDEMO_STORAGE_ACCOUNT]."),
        click.option("--uri", metavar="URI", help="The folder of results [default: NCDEMO_RESULTS_URI, else az://metrics/jobs]."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def pull_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="The folder [default: NCDEMO_RUNS, else runs]."
    )(function)
    return click.argument("name", metavar="RUN")(storage_options(function))


@command.command()
@storage_options
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
def ls(as_data: bool, **where: Any) -> None:
    """List the runs that are there, the newest first."""
    with open_blobs(**where) as blobs:
        runs = blobs.runs()
    if as_data:
        click.echo(
            json.dumps([asdict(run.job) | {"files": run.files, "bytes": run.bytes, "changed_at": run.changed_at} for run in runs], indent=1)
        )
        return
    if not runs:
        click.echo(f"no runs {blobs.shown}", err=True)
    for run in runs:
        state = run.job.state if run.job.state != "unknown" else "no result"
        size = f"{run.files} files, {run.bytes / 1e6:,.1f} MB"
        click.echo(f"{run.job.name:<40} {run.job.kind or '-':<6} {state:<12} {run.changed_at[:19].replace('T', ' ')}Z  {size}")


@command.command()
@pull_options
@click.option("--no-weights", is_flag=True, help="Leave model, adapter and checkpoints there.")
def pull(name: str, out: Path | None, no_weights: bool, **where: Any) -> None:
    """Fetch a run, every file checked; prints its folder. Cut off, the same command goes on. Of a running job it fetches what there is."""
    click.echo(fetch(name, out, weights=not no_weights, where=where).folder)


@command.command()
@pull_options
def report(name: str, out: Path | None, **where: Any) -> None:
    """Fetch a run without its weights, write one HTML page about it, and print its path."""
    from ncdemo.report import write_report

    folder = fetch(name, out, weights=False, where=where).folder
    click.echo(write_report((folder,), folder / "report.html"))


def fetch(name: str, out: Path | None, *, weights: bool, where: dict[str, Any]) -> "Pulled":
    """Fetch a run by its name or its name in the stack, under a progress bar."""
    from ncdemo.operate.job import find
    from ncdemo.operate.pull import pull as fetch_run
    from ncdemo.spec.paths import runs_dir

    with open_blobs(**where) as blobs:
        run = find(blobs, name).name
        with bar(run) as progress:
            pulled = fetch_run(blobs, run, out or runs_dir(), weights=weights, progress=progress)
    click.echo(f"{run}: {pulled.files} files fetched, {pulled.bytes / 1e6:,.1f} MB; {pulled.whole} were there", err=True)
    if not pulled.has_result:
        click.echo(f"{run}: has no result yet; when the job has ended, the same command fetches the rest", err=True)
    return pulled


def open_blobs(stack: str | None, account: str | None, uri: str | None) -> "Blobs":
    """Return the storage that the options, the stack or the environment name."""
    from ncdemo.operate.blobs import Blobs
    from ncdemo.spec.job import NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
    from ncdemo.spec.run_folder import RESULTS

    account = account or (None if stack else os.environ.get(NCDEMO_STORAGE_ACCOUNT))
    if stack and not account:
        from ncdemo.cli.stack import stack_file
        from ncdemo.operate.outputs import output, outputs

        path = stack_file(stack)
        found = outputs(path, "name the storage account with --account")
        account, uri = output(found, "storage_account", path), uri or found.get("results")
    return Blobs(account, uri or os.environ.get(NCDEMO_RESULTS_URI) or RESULTS)


@contextmanager
def bar(name: str) -> "Iterator[Progress]":
    """Yield a callback that draws how much of a run is here, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    with Progress("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), "left", TimeRemainingColumn(),
                  console=Console(stderr=True), refresh_per_second=4) as drawn:  # fmt: skip
        task = drawn.add_task(name, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
