"""`ncdemo cost`: what a stack and its jobs would cost, and what a run did cost.

ncdemo cost aks-dev --live
ncdemo cost runs/tune-20261126 --size Standard_NC40ads_H100_v5
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ncdemo.infra.cost import Range, StackCost
    from ncdemo.infra.run_cost import RunCost

WIDTH = 60


@click.command("cost")
@click.argument("what", metavar="STACK|RUN")
@click.option("--live", is_flag=True, help="Machine prices of Azure's price list, asked now; else the dated table, without network.")
@click.option("--region", metavar="NAME", help="[default: the stack's, or the run's]")
@click.option("--size", metavar="VM_SIZE", help="A run's: what its nodes were, where the run doesn't record it.")
@click.option("--nodes", type=click.IntRange(1), help="A run's: how many there were [default: by its ranks].")
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
def command(what: str, live: bool, region: str | None, size: str | None, nodes: int | None, as_data: bool) -> None:
    """Say what a stack costs idle, full and per job, spot against pay as you go; or what a run did cost.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a file, RUN a run directory. A job is counted up to its deadline: the most it may cost.
    """
    from ncdemo.cli.stack import stack_file
    from ncdemo.infra.cost import Table, Today, machines, stack_cost
    from ncdemo.infra.run_cost import Where, is_run, machine, run_cost
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import load_stack

    found: StackCost | RunCost
    if is_run(Path(what)):
        where = Where(size, region, nodes)
        kind, place = machine(Path(what), where)
        found = run_cost(Path(what), where, Today.ask([kind], place) if live else Table())
    else:
        if size or nodes:
            raise SpecError(f"--size and --nodes are of a run, and {what} isn't a run directory; leave them out, or give the run's folder")
        stack = load_stack(stack_file(what), [f"location={region}"] if region else [])
        found = stack_cost(stack, Today.ask(machines(stack), stack.spec.location) if live else Table())
    if as_data:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(run_text(found) if is_run(Path(what)) else stack_text(found))  # type: ignore[arg-type]


def usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def span(value: "Range | None") -> str:
    if value is None:
        return "unknown"
    return usd(value[0]) if value[0] == value[1] else f"{value[0]:.2f} to {value[1]:.2f}"


def stack_text(cost: "StackCost") -> str:
    lines = [f"{cost.stack} in {cost.location}, USD per hour{'idle':>{WIDTH - len(cost.stack) - len(cost.location) - 13}}{'full':>10}"]
    lines += [f"  {line.item:<{WIDTH - 5}}{usd(line.idle_usd_per_h):>10}{usd(line.full_usd_per_h):>10}" for line in cost.lines]
    lines.append(f"  {'together':<{WIDTH - 5}}{cost.idle_usd_per_h:>10.2f}{cost.full_usd_per_h:>10.2f}")
    if cost.full_spot_usd_per_h:
        lines.append(f"  full, with spot pools at spot prices: {span(cost.full_spot_usd_per_h)}")
    if cost.unknown:
        lines.append(f"  not in the sums, as their price isn't known: {'; '.join(cost.unknown)}")
    if cost.jobs:
        lines += ["", "jobs, USD each up to its deadline, the most it may cost"]
    for job in cost.jobs:
        where = f"{job.nodes} x {job.vm_size}" if job.vm_size else "on a cluster that exists"
        spot = f"; at spot prices {span(job.spot_usd)}" if job.spot else ""
        lines.append(f"  {job.name:<24} {where}, {job.deadline_h:g} h: {usd(job.at_most_usd)}{spot}")
    return "\n".join([*lines, "", f"prices: {cost.prices}. No tax, no traffic."])


def run_text(cost: "RunCost") -> str:
    least = "" if cost.whole else " at least, its last sign of life"
    return "\n".join(
        [
            f"{cost.run} ({cost.status}): {cost.duration_s:.0f} s{least}, on {cost.nodes} x {cost.vm_size} in {cost.region}",
            f"  pay as you go  {usd(cost.usd)} USD",
            f"  spot           {span(cost.spot_usd)} USD",
            *([f"  per million tokens, pay as you go: {cost.usd_per_mtok:.3f} USD"] if cost.usd_per_mtok is not None else []),
            "  The run alone: a node is also paid while it starts, and for about ten minutes after its last job; and what a stopped",
            "  training run had to do again is not on its clock.",
            f"prices: {cost.prices}",
        ]
    )
