"""`ncdemo stack new`: a stack's config by flags, or by questions for what the flags leave open."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import yaml

TARGETS = ("aks", "vm", "kubernetes")
GPU_SIZE = "Standard_NC40ads_H100_v5"
"""What is offered first; said here, as the catalogue's import would cost `--help` a quarter of a second."""


@click.command("new")
@click.argument("name")
@click.option("--target", type=click.Choice(TARGETS), help="AKS cluster, plain VMs, or a Kubernetes cluster that exists.")
@click.option("--location", help="Azure region, e.g. eastus.")
@click.option("--vm-size", help=f"VM size of the first pool, e.g. {GPU_SIZE}.")
@click.option("--spot/--on-demand", default=None, help="Surplus capacity, taken back at 30 s notice; or capacity that stays.")
@click.option("--max-count", type=click.IntRange(1, 100), help="Nodes at most; none is kept while idle.")
@click.option("--budget", type=float, help="Monthly budget in USD, to warn at.")
@click.option("--ttl-hours", type=click.FloatRange(min=0, min_open=True), help="It expires so many hours from now: ncdemo stack expire.")
@click.option("--email", help="Who is warned.")
@click.option("--job", "jobs", multiple=True, metavar="SPEC", help="Spec file of a job, kind: train or bench. Repeatable.")
@click.option("--context", help="kubeconfig context, for --target kubernetes.")
@click.option("--repository", help="Image repository, for --target kubernetes.")
@click.option("--dry-run", is_flag=True, help="Print the config; write nothing.")
def new(name: str, dry_run: bool, **given: Any) -> None:
    """Write stacks/Pulumi.NAME.yaml, by flags, and by questions for the rest when run in a terminal."""
    from ncdemo.cli.stack import project
    from ncdemo.spec.base import SpecError
    from ncdemo.spec.stack_file import stack_of

    path = project() / "stacks" / f"Pulumi.{name}.yaml"
    if path.exists() and not dry_run:
        raise SpecError(f"{path}: exists already; edit it, or choose another name")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise SpecError(f"NAME = {name!r}: letters, digits, hyphens, dots and underscores; e.g. aks-dev")
    config = answers(given, ask=sys.stdin.isatty())
    stack_of(name, config, {}, source=f"stack {name}")
    text = as_file(name, config)
    if dry_run:
        click.echo(text, nl=False)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(path)
    click.echo(f"Next: ncdemo stack preview {name}", err=True)


def answers(given: dict[str, Any], *, ask: bool) -> dict[str, Any]:
    """Return the config; what no flag says is asked for, or takes the default where nobody can answer."""

    def want(key: str, question: str, default: Any, **more: Any) -> Any:
        if given[key] is not None:
            return given[key]
        return click.prompt(question, default=default, err=True, **more) if ask else default

    from ncdemo.spec.base import SpecError

    target = want("target", "Target", "aks", type=click.Choice(TARGETS))
    config: dict[str, Any] = {"target": target}
    if target == "kubernetes":
        context = want("context", "kubeconfig context (empty: the current one)", "")
        repository = want("repository", "Image repository, e.g. registry.example/ncdemo", "")
        config |= {"kubernetes": {"context": context}} if context else {}
        config |= {"images": {"repository": repository}} if repository else {}
    else:
        config["location"] = want("location", "Azure region", "eastus")
        config["pools"] = [pool(want, given, ask)]
        if given["ttl_hours"]:
            config["cost_guard"] = {"expires": in_hours(given["ttl_hours"])}
        budget = want("budget", "Monthly budget in USD to warn at (0: none)", 0.0, type=float)
        if budget and not ask and not given["email"]:
            raise SpecError("--budget needs someone to warn: add --email")
        if budget:
            guard = {"monthly_budget_usd": budget, "alert_emails": [want("email", "E-mail for the warnings", "")]}
            config["cost_guard"] = {**config.get("cost_guard", {}), **guard}
    specs = list(given["jobs"])
    if ask and not specs:
        first = click.prompt("Spec file of a first job (empty: none)", default="", err=True)
        specs = [first] if first else []
    config["jobs"] = [{"name": job_name(spec, number), "config": spec} for number, spec in enumerate(specs)]
    return config


def in_hours(hours: float) -> str:
    """Return the time so many hours from now, as cost_guard.expires has it."""
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pool(want: Any, given: dict[str, Any], ask: bool) -> dict[str, Any]:
    from ncdemo.spec.sizes import find

    size = want("vm_size", "VM size", GPU_SIZE)
    found = find(size)
    spot = given["spot"]
    if spot is None:
        spot = click.confirm("Spot", default=True, err=True) if ask else True
    name = f"h100x{found.gpus}" if found and found.gpus > 1 else "h100" if found and found.gpus else "cpu"
    return {
        "name": name,
        "vm_size": found.name if found else size,
        "spot": spot,
        "max_count": want("max_count", "Nodes at most", 1, type=int),
    }


def job_name(spec: str, number: int) -> str:
    """Return a job's name made of its file's."""
    stem = re.sub(r"[^a-z0-9-]+", "-", Path(spec).stem.lower()).strip("-")[:24]
    return f"{stem}-{number + 1}" if number or not stem[:1].isalpha() else stem


def as_file(name: str, config: dict[str, Any]) -> str:
    """Return the file's text, as Pulumi wants it."""
    keyed = {"config": {f"ncdemo:{key}": value for key, value in config.items()}}
    head = f"# What else can be set: ncdemo spec schema stack\n#   ncdemo stack preview {name}\n#   ncdemo stack up {name}\n"
    return head + yaml.safe_dump(keyed, sort_keys=False, width=1000)
