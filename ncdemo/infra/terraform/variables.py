"""A stack's config as the variables of its Terraform root: one source of truth for both.

print(text_of(variables_of(load_stack("stacks/Pulumi.aks-dev.yaml"))))
"""

import json
import re
from typing import Any

from ncdemo.infra.alert_rules import rule_files
from ncdemo.infra.managed_rules import managed_groups
from ncdemo.spec.capacity import Pool
from ncdemo.spec.stack_file import Stack

TAKEN = {
    "aks": {"aks": {"kueue"}, "network": {"ssh_from", "bastion"}, "cost_guard": {"shutdown_utc", "job_deadline_h"}},
    "vm": {"vm": set(), "network": set(), "cost_guard": {"job_deadline_h"}},
}
"""Root -> section of the stack -> its keys that the root has no variable for: they are of the other target, or of jobs."""
INSIGHTS = {"application_insights", "application_insights_gb_per_day"}
MONITORING = {"aks": {"in_cluster", "azure_monitor", *INSIGHTS}, "vm": INSIGHTS}
"""Root -> the keys of the stack's monitoring that it has: the rest is inside the cluster."""
VM_POOL = ("name", "vm_size", "spot", "max_count", "max_price_usd_per_h", "zones", "os_disk_gib")


def variables_of(stack: Stack) -> dict[str, Any]:
    """Return variable -> value. Raise SpecError for a target that Terraform has no root for."""
    spec = stack.spec
    if spec.target == "kubernetes":
        raise stack.mistake(("target",), "kubernetes makes nothing on Azure, so there is nothing for Terraform; use aks or vm")
    made: dict[str, Any] = {"name": stack.name, "location": spec.location, "tags": dict(spec.tags)}
    made["pools"] = [_pool(pool, vm=spec.target == "vm") for pool in spec.pools]
    for section, without in TAKEN[spec.target].items():
        made[section] = getattr(spec, section).model_dump(mode="json", exclude=without)
    made["storage"] = spec.storage.model_dump(mode="json")
    made["monitoring"] = spec.monitoring.model_dump(mode="json", include=MONITORING[spec.target])
    if spec.target == "aks" and spec.monitoring.azure_monitor_alerts:
        made["alert_rules"] = [_group(group) for group in managed_groups(rule_files(spec))]
    return made


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """`for` begins another thing in Terraform's language."""
    rules = [{("for_duration" if key == "for" else key): value for key, value in rule.items()} for rule in group["rules"]]
    return {"name": group["name"], "rules": rules}


def _pool(pool: Pool, *, vm: bool) -> dict[str, Any]:
    size = pool.size
    made = {**pool.model_dump(mode="json"), "vm_size": size.name}
    if vm:
        return {key: made[key] for key in VM_POOL}
    return {**made, "gpus": size.gpus, "local_disk": bool(size.local_disk_gib)}


def text_of(variables: dict[str, Any]) -> str:
    """Return the variables as HCL, written as `terraform fmt` would."""
    return "\n".join(f"{name} = {_value(value, '')}\n" for name, value in variables.items())


def _value(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        return f"{{\n{_entries(value, deeper)}{indent}}}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "[\n" + "".join(f"{deeper}{_value(one, deeper)},\n" for one in value) + f"{indent}]"
    if isinstance(value, list):
        return f"[{', '.join(_value(one, indent) for one in value)}]"
    if isinstance(value, str):
        return re.sub(r"([$%])(?=\{)", r"\1\1", json.dumps(value, ensure_ascii=False))
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _entries(value: dict[str, Any], indent: str) -> str:
    """Equal signs stand in a column, except around an entry of several lines."""
    names = {key: key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", key) else _value(key, "") for key in value}
    texts = {key: _value(one, indent) for key, one in value.items()}
    lines: list[str] = []
    run: list[str] = []
    for key in [*value, None]:
        if key is None or "\n" in texts[key]:
            width = max((len(names[one]) for one in run), default=0)
            lines += [f"{indent}{names[one]:<{width}} = {texts[one]}\n" for one in run]
            lines += [f"{indent}{names[key]} = {texts[key]}\n"] if key is not None else []
            run = []
        else:
            run.append(key)
    return "".join(lines)


def json_of(variables: dict[str, Any]) -> str:
    """Return the variables as Terraform's JSON (a file whose name ends in .tfvars.json)."""
    return json.dumps(variables, indent=2, ensure_ascii=False) + "\n"
