"""`ncdemo jobs`: the jobs of this machine, of a stack on AKS or VMs, or of any cluster: list, follow, wait for, stop, start again.

ncdemo jobs ls
ncdemo jobs wait tune --stack aks-dev
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ncdemo.operate.job import Job, Place


@click.group("jobs")
def command() -> None:
    """Look after jobs: on this machine, or with --stack on AKS and VMs."""


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says where the jobs run."""
    options = (
        click.option("--stack", metavar="STACK", help="The jobs of this stack, on AKS or VMs: a name or a file [default: this machine]."),
        click.option("--context", metavar="NAME", help="The jobs of a cluster, by its context in the kubeconfig."),
        click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NAME", help="With --context: only there. Repeatable."),
    )
    for option in reversed(options):
        function = option(function)
    return function


name_argument = click.argument("name", metavar="JOB")


@command.command()
@place_options
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
def ls(as_data: bool, **where: Any) -> None:
    """List jobs with their state, the newest first."""
    from ncdemo.operate.job import EXITS

    place = open_place(**where)
    jobs = place.jobs()
    if as_data:
        click.echo(json.dumps([asdict(job) | {"exit_status": EXITS.get(job.state) and job.exit_status} for job in jobs], indent=1))
    elif not jobs:
        click.echo(f"no jobs {place.shown}", err=True)
    else:
        click.echo(as_table(jobs))


@command.command()
@name_argument
@place_options
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines, and what follows them.")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Of a job of several nodes: which.")
def logs(name: str, follow: bool, tail: int | None, node: int, **where: Any) -> None:
    """Print what a job says."""
    from ncdemo.operate.job import find

    place = open_place(**where)
    out = sys.stdout.buffer
    for chunk in place.logs(find(place, name), follow=follow, tail=tail, node=node, tell=tell):
        out.write(chunk)
        out.flush()


@command.command()
@click.argument("names", metavar="JOB...", nargs=-1, required=True)
@place_options
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so long, with exit 124.")
def wait(names: Sequence[str], timeout_s: float | None, **where: Any) -> None:
    """Wait until jobs have ended, and exit with the first bad one's status.

    0 finished, 1 failed, 2 a mistake in the spec, 75 interrupted or cancelled, 137 killed, 124 not ended in time.
    """
    import time

    from ncdemo.operate.job import EXIT_TIMEOUT, find
    from ncdemo.operate.job import wait as wait_for

    place, begun, status = open_place(**where), time.monotonic(), 0
    jobs = place.jobs()
    for job in [find(place, name, jobs) for name in names]:
        left_s = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
        ended = wait_for(place, job, left_s)
        click.echo(f"{job.name}: {ended.state if ended else 'has not ended in time'}{said(ended)}", err=not ended)
        status = status or (ended.exit_status if ended else EXIT_TIMEOUT)
    sys.exit(status)


@command.command()
@name_argument
@place_options
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
def cancel(name: str, yes: bool, **where: Any) -> None:
    """End a job that runs, in good order; what it has is kept."""
    from ncdemo.operate.job import find

    place = open_place(**where)
    job = find(place, name)
    confirm(f"End {job.name} ({job.state}) {place.shown}?", yes)
    click.echo(place.cancel(job, tell))


@command.command()
@name_argument
@place_options
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
def retry(name: str, yes: bool, **where: Any) -> None:
    """Start a job again that failed or was stopped; it goes on from what it has.

    On this machine the run goes on in the foreground. On a cluster the failed Job is deleted and made again from its own manifest.
    """
    from ncdemo.operate.job import find

    place = open_place(**where)
    job = find(place, name)
    if where["stack"] or where["context"]:
        confirm(f"Start {job.name} ({job.state}) again {place.shown}?", yes)
    click.echo(place.retry(job, tell))


def open_place(stack: str | None, context: str | None, namespaces: tuple[str, ...]) -> "Place":
    """Return the place that the options name. Raise SpecError when they don't fit together."""
    from ncdemo.spec.base import SpecError

    if stack and context:
        raise SpecError("--context: belongs to no --stack, which knows its cluster; give one of both")
    if namespaces and not context:
        raise SpecError("--namespace: needs --context, the cluster that it is in; add it")
    if stack:
        from ncdemo.cli.places import of_stack

        return of_stack(stack)
    if context:
        from ncdemo.operate.cluster import Cluster
        from ncdemo.operate.kube import Kube

        kube = Kube.connect(context, None, "kubectl config get-contexts, az aks get-credentials -g GROUP -n CLUSTER")
        more = "".join(f" -n {name}" for name in namespaces)
        return Cluster(kube, namespaces, f"in context {context}", f"ncdemo jobs ls --context {context}{more}")
    from ncdemo.operate.local import Local
    from ncdemo.spec.paths import runs_dir

    return Local(runs_dir(), resume)


def resume(folder: Path) -> None:
    """Go on with a run of this machine, in the foreground."""
    from ncdemo.cli.launch import follow, prepare, unfinished
    from ncdemo.spec.job import load_run

    follow(prepare(load_run(folder / "spec.yaml"), unfinished(folder)), dry_run=False)


def confirm(question: str, yes: bool) -> None:
    """Ask, where somebody can answer. Raise SpecError where nobody can."""
    if yes:
        return
    if not sys.stdin.isatty():
        from ncdemo.spec.base import SpecError

        raise SpecError(f"{question} Nobody can answer here; say so with --yes")
    click.confirm(question, abort=True, err=True)


def tell(text: str) -> None:
    click.echo(text, err=True)


def said(job: "Job | None") -> str:
    return f" ({job.detail})" if job and job.detail else ""


def as_table(jobs: "Sequence[Job]") -> str:
    """Return one line per job, in columns."""
    rows = [("JOB", "KIND", "STATE", "STARTED", "WHERE"), *((j.name, j.kind or "-", j.state, _time(j.started_at), j.place) for j in jobs)]
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for at, job in enumerate(jobs, 1):
        if job.detail and job.state != "finished":
            lines[at] += f"  ({job.detail[:160]})"
    return "\n".join(lines)


def _time(iso: str | None) -> str:
    return iso[:19].replace("T", " ") + "Z" if iso else "-"
