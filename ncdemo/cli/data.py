"""`ncdemo data`: fetch a data set for offline use, or look at the shipped one."""

import click

from ncdemo.cli.options import call


@click.group("data")
def command() -> None:
    """Fetch a data set for offline use, or look at the shipped one."""


@command.command()
@click.argument("name", default="philschmid/guanaco-belle-7b")
@click.option("--revision", help="Commit, tag or branch.")
@click.option("--offline", is_flag=True, help="Use the cached copy; ask no host.")
def download(name: str, revision: str | None, offline: bool) -> None:
    """Fetch and cache a Hugging Face data set [default: philschmid/guanaco-belle-7b], and print where it is."""
    call("workloads.data.download_dataset", name, *(("--revision", revision) if revision else ()), *(("--offline",) if offline else ()))


@command.command()
@click.option("--count", default=3, show_default=True, type=click.IntRange(1, 4000))
@click.option("--held-out", is_flag=True, help="From the side that is never trained on.")
def show(count: int, held_out: bool) -> None:
    """Print examples of the shipped task: a request in English and the job it means."""
    call("workloads.data.jobs_task", "--count", str(count), *(("--held-out",) if held_out else ()))
