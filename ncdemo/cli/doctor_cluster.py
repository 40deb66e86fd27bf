"""`ncdemo doctor cluster`: whether what a stack wants inside its cluster is there and works.

ncdemo doctor cluster aks-dev
ncdemo doctor cluster --context my-cluster
ncdemo doctor cluster aks-dev --probe-storage
"""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from ncdemo.operate.arm import Arm
    from ncdemo.operate.inside.wanted import Wanted
    from ncdemo.operate.kube import Kube
    from ncdemo.spec.finding import Finding

READ_S = 10.0
"""What a cluster answers later than that is no answer; each question is asked three times."""


@click.command("cluster")
@click.argument("stack", metavar="[STACK]", required=False)
@click.option(
    "--context", metavar="NAME", help="The cluster, by its context in the kubeconfig [default: the stack's, else the current one]."
)
@click.option(
    "--probe-storage", is_flag=True, help="Show a short job that lists the results with the jobs' identity, and ask before it runs."
)
@click.option("--yes", is_flag=True, help="Run that job without asking.")
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
def cluster(stack: str | None, context: str | None, probe_storage: bool, yes: bool, as_data: bool) -> None:
    """Ask a cluster what is missing in it: pools, GPUs, identity, Kueue, namespaces, monitoring, storage. Changes nothing by itself.

    With STACK, all is compared with what that stack makes; without, what is there is judged alone. Exit 1 where something fails.
    """
    from ncdemo.cli.doctor import say
    from ncdemo.operate.inside.azure import Azure
    from ncdemo.operate.inside.check import examine

    wanted, connect = wants(stack, context)
    asked = " ".join(filter(None, ("ncdemo doctor cluster", stack, f"--context {context}" if context else "", "--probe-storage")))
    findings, kube = examine(connect, wanted, Azure(arm, wanted), asked)
    if probe_storage and kube:
        findings = [*(one for one in findings if one.check != "storage"), probed(kube, wanted, asked, yes)]
    say(findings, as_data)


def wants(stack: str | None, context: str | None) -> "tuple[Wanted, Callable[[], Kube]]":
    """Return what a stack wants, and how to reach its cluster. Raise SpecError for a stack without one."""
    from ncdemo.operate.inside.wanted import Wanted
    from ncdemo.operate.kube import Kube

    if stack is None:
        there = "kubectl config get-contexts, az aks get-credentials -g GROUP -n CLUSTER"
        return Wanted(), lambda: Kube.connect(context, None, there, READ_S)
    from ncdemo.cli.stack import rendered, stack_file
    from ncdemo.spec.stack_file import load_stack

    loaded = load_stack(stack_file(stack))
    if loaded.spec.target == "vm":
        raise loaded.mistake(("target",), "vm has no cluster; ask Azure with ncdemo doctor azure, and the VMs with ncdemo jobs ls --stack")
    wanted = Wanted.of(stack, rendered(loaded).resources, loaded.namespaces)
    if loaded.spec.target == "kubernetes":
        own = loaded.spec.kubernetes
        return wanted, lambda: Kube.connect(context or own.context, own.kubeconfig, "kubectl config get-contexts", READ_S)
    login = f"az aks get-credentials -g {wanted.resource_group} -n {wanted.cluster}"
    return wanted, lambda: Kube.connect(context or wanted.cluster, None, login, READ_S)


def arm() -> "Arm":
    """Return Azure's API; who tried to log in how is a page, and the finding says what to do."""
    import logging

    from ncdemo.operate.arm import Arm

    logging.getLogger("azure").setLevel(logging.CRITICAL)
    made = Arm.connect(READ_S)
    click.get_current_context().with_resource(made)
    return made


def probed(kube: "Kube", wanted: "Wanted", asked: str, yes: bool) -> "Finding":
    """Show the job that lists the results; run it where that was confirmed."""
    from ncdemo.operate.inside.storage import copying_jobs, probe
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.finding import Finding

    try:
        jobs = copying_jobs(kube, wanted)
        if not jobs:
            remedy = f"{wanted.up}, with a job in it" if wanted.stack else "name a stack with a job, and make it: ncdemo stack up STACK"
            return Finding("storage", "unknown", "no job is there whose image and identity the probe could take", remedy)
        from ncdemo.infra.show import yaml_text
        from ncdemo.infra.storage_probe import probe as manifest

        job = manifest(jobs[-1], own_cluster=wanted.cluster is not None)
        click.echo(yaml_text(job), err=True, nl=False)
        if not yes and not (sys.stdin.isatty() and click.confirm("Run this job? It is deleted when it has ended.", err=True)):
            return Finding("storage", "unknown", "not tried: the job above was only shown", f"{asked} --yes")
        return probe(kube, job, lambda text: click.echo(text, err=True))
    except SpecError as error:
        text, _, remedy = str(error).rpartition("; ")
        return Finding("storage", "unknown", text, remedy)
