"""A rendered stack for people and for programs: tree, jobs, quota, price; every manifest and each VM's cloud-init.

print(as_text(render(stack)))
"""

from pathlib import Path
from typing import Any

import yaml

from ncdemo.infra.estimate import PRICE_NOTE, Estimate, estimate
from ncdemo.infra.render import Rendered, Resource

WIDTH = 72


def as_text(rendered: Rendered, *, files: bool = True) -> str:
    """Return the preview; with `files`, every manifest and cloud-init before the summary."""
    parts = []
    if files:
        parts += [f"# {name}\n{text.rstrip()}" for name, text in rendered_files(rendered).items()]
    bill = estimate(rendered.stack.spec)
    return "\n\n".join([*parts, tree(rendered), jobs(rendered), *([quota(bill), price(bill)] if bill.lines else [])]) + "\n"


def as_json(rendered: Rendered) -> dict[str, Any]:
    """Return everything that the text says, as plain data."""
    bill = estimate(rendered.stack.spec)
    return {
        "stack": rendered.stack.name,
        "target": rendered.stack.spec.target,
        "notes": rendered.stack.notes,
        "resources": [{"type": r.type, "name": r.name, "parent": parent_name(r), "inputs": r.inputs} for r in rendered.resources],
        "outputs": rendered.outputs,
        "cloud_init": rendered.cloud_inits(),
        "quota_vcpus": {one.name: one.vcpus for one in bill.quota},
        "price": {
            "idle_usd_per_h": bill.idle_usd_per_h if bill.lines else None,
            "full_usd_per_h": bill.full_usd_per_h if bill.lines else None,
            "unknown": bill.unknown,
            "lines": [vars(line) for line in bill.lines],
            "note": PRICE_NOTE,
        },
    }


def rendered_files(rendered: Rendered) -> dict[str, str]:
    """Return file name -> text of every Kubernetes object and each VM's cloud-init and run commands."""
    files = {}
    for number, manifest in enumerate(apply_order(rendered.manifests())):
        meta = manifest["metadata"]
        space = f"{meta['namespace']}-" if meta.get("namespace") else ""
        files[f"{number:02}-{manifest['kind'].lower()}-{space}{meta['name']}.yaml"] = yaml_text(manifest)
    for vm, text in rendered.cloud_inits().items():
        files[f"{vm}.cloud-init.yaml"] = text
    for command in rendered.of("VirtualMachineRunCommandByVirtualMachine"):
        files[f"{command.inputs['runCommandName']}.sh"] = command.inputs["source"]["script"]
    return files


def write_files(rendered: Rendered, folder: Path) -> list[Path]:
    """Write every manifest, cloud-init and run command below a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in rendered_files(rendered).items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


FIRST = ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim", "Service")


def apply_order(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return manifests so that `kubectl apply` of one after the other works."""
    known = {kind: place for place, kind in enumerate(FIRST)}
    return sorted(manifests, key=lambda m: (known.get(m["kind"], len(FIRST)), m["kind"] == "Job"))


class _Block(yaml.SafeDumper):
    """Texts of several lines as blocks, which people can read."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Block.add_representer(str, _text)


def yaml_text(value: Any) -> str:
    return yaml.dump(value, Dumper=_Block, sort_keys=False, width=1000, allow_unicode=True)


def parent_name(resource: Resource) -> str | None:
    """Return the logical name of the component around a resource; None at the top."""
    kind, _, name = resource.parent.rpartition("::")
    return name if kind and "pulumi:pulumi:Stack" not in resource.parent.rsplit("$", 1)[-1] else None


def tree(rendered: Rendered) -> str:
    """Return the resources, each below its component."""
    lines = [f"stack {rendered.stack.name} (target: {rendered.stack.spec.target})"]
    for resource in rendered.resources:
        short = resource.type.removeprefix("azure-native:").removeprefix("ncdemo:infra:")
        depth = 2 if parent_name(resource) else 1
        lines.append(f"{'  ' * depth}{resource.name:<{WIDTH - 2 * depth - 20}} {short}")
    kinds = [r for r in rendered.resources if not r.is_component]
    return "\n".join([*lines, f"  {len(kinds)} resources in {len(rendered.resources) - len(kinds)} components"])


def jobs(rendered: Rendered) -> str:
    """Return each job with where it runs."""
    if not rendered.stack.jobs:
        return "jobs: none declared"
    lines = ["jobs"]
    for run in rendered.stack.jobs:
        where = f"pool {run.pool.name}" if run.pool else "any node"
        at = f"{run.job.nodes} node{'s' * (run.job.nodes > 1)} x {run.gpus} GPU{'s' * (run.gpus != 1)}"
        lines.append(f"  {rendered.outputs['jobs'][run.job.name]:<44} {run.run.kind:<6} {at}, {where}, at most {run.deadline_s / 3600:g} h")
    return "\n".join(lines)


def quota(bill: Estimate) -> str:
    return "\n".join(["quota asked of the region, vCPUs", *(f"  {one.name:<44} {one.vcpus:>6}" for one in bill.quota)])


def price(bill: Estimate) -> str:
    """Return the bill per hour."""
    lines = [f"price, USD per hour{'idle':>{WIDTH - 19}}{'full':>10}"]
    lines += [
        f"  {line.item:<{WIDTH - 12}}{money(line.idle_usd_per_h):>10}{money(line.full_usd_per_h):>10}  {line.note}".rstrip()
        for line in bill.lines
    ]
    lines.append(f"  {'together':<{WIDTH - 12}}{money(bill.idle_usd_per_h):>10}{money(bill.full_usd_per_h):>10}")
    if bill.unknown:
        lines.append(f"  not in the sums, as their price isn't known here: {'; '.join(bill.unknown)}")
    return "\n".join([*lines, f"  {PRICE_NOTE}"])


def money(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
