"""Whether a stack can be made in a subscription: login, subscription, resource providers, and each region, the best first.

examine(spec, DefaultAzureCredential(), regions=["eastus", "spaincentral"]).findings
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncdemo.infra.estimate import estimate
from ncdemo.infra.subscription.ask import Arm, Credential, NoAnswer
from ncdemo.infra.subscription.facts import gather, needs
from ncdemo.infra.subscription.region import Region, judge
from ncdemo.spec.finding import Finding, Status
from ncdemo.spec.stack import StackSpec

SUBSCRIPTIONS, PROVIDERS = "2022-12-01", "2021-04-01"
VARIABLES = ("ARM_SUBSCRIPTION_ID", "AZURE_SUBSCRIPTION_ID")
"""As Pulumi and Terraform, and as Azure's SDKs name it."""


@dataclass(frozen=True)
class Examined:
    findings: tuple[Finding, ...]
    regions: tuple[Region, ...] = ()
    """The best first."""


def examine(spec: StackSpec, login: Callable[[], Credential], regions: Sequence[str] = (), subscription: str | None = None) -> Examined:
    """Ask everything that can be asked before anything is made."""
    from azure.core.exceptions import AzureError

    try:
        arm = Arm(login())
    except AzureError as error:
        # Its text is a page: every way to log in, and why it failed.
        return Examined((Finding("login", "fail", f"no credential works ({type(error).__name__})", "az login"),))
    with arm:
        return _examined(arm, spec, regions, subscription)


def _examined(arm: Arm, spec: StackSpec, regions: Sequence[str], subscription: str | None) -> Examined:
    found = [Finding("login", "ok", f"as {os.environ.get('AZURE_CLIENT_ID') or 'the default credential'}, for {arm.url}")]
    chosen, finding = choose(arm, subscription)
    found.append(finding)
    if chosen is None:
        return Examined(tuple(found))
    found += providers(arm, chosen, spec)
    wanted, names = needs(spec), list(dict.fromkeys(regions or [spec.location]))
    facts = gather(arm, chosen, wanted, names)
    judged = sorted((judge(name, wanted, estimate(spec).quota, facts, chosen) for name in names), key=lambda region: region.rank)
    return Examined((*found, *(one for region in judged for one in region.findings)), tuple(judged))


def choose(arm: Arm, given: str | None) -> tuple[str | None, Finding]:
    """Return the subscription: given, of the environment, the Azure CLI's, or the only one there is."""
    chosen = given or next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None) or cli_default()
    try:
        if chosen is None:
            seen = list(arm.every("/subscriptions", SUBSCRIPTIONS))
            if len(seen) != 1:
                names = ", ".join(one["displayName"] for one in seen[:5]) or "none"
                return None, Finding(
                    "subscription", "fail", f"which one isn't said; you see: {names}", "az account set --subscription NAME"
                )
            chosen = seen[0]["subscriptionId"]
        one = arm.get(f"/subscriptions/{chosen}", SUBSCRIPTIONS)
    except NoAnswer as error:
        status: Status = "fail" if error.status in (401, 404) else "unknown"
        return None, Finding(
            "subscription", status, f"{chosen or 'the list'}: {error}", "az login, then: az account set --subscription NAME"
        )
    if one.get("state") != "Enabled":
        return chosen, Finding("subscription", "fail", f"{one.get('displayName')} is {one.get('state')}", "see its page in the portal")
    return chosen, Finding("subscription", "ok", f"{one.get('displayName')} ({chosen})")


def cli_default() -> str | None:
    """Return the subscription that the Azure CLI works in."""
    folder = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")
    try:
        known: list[dict[str, Any]] = json.loads((folder / "azureProfile.json").read_text(encoding="utf-8-sig"))["subscriptions"]
        return next((one["id"] for one in known if one.get("isDefault")), None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def namespaces(spec: StackSpec) -> list[str]:
    """Return the resource providers that a stack's resources belong to."""
    found = ["Compute", "Network", "Storage", "ContainerRegistry", "ManagedIdentity"]
    if spec.target == "aks":
        found += [
            "ContainerService",
            *(["Monitor", "Insights"] if spec.monitoring.azure_monitor else []),
            *(["AlertsManagement"] if spec.monitoring.azure_monitor_alerts else []),
        ]
    if spec.monitoring.application_insights:
        found += ["OperationalInsights", *(["Insights"] if "Insights" not in found else [])]
    if spec.target == "vm" and spec.cost_guard.shutdown_utc:
        found.append("DevTestLab")
    if spec.cost_guard.monthly_budget_usd:
        found.append("Consumption")
    return [f"Microsoft.{name}" for name in found]


def providers(arm: Arm, subscription: str, spec: StackSpec) -> Iterable[Finding]:
    wanted = namespaces(spec)
    try:
        rows = list(arm.every(f"/subscriptions/{subscription}/providers", PROVIDERS))
    except NoAnswer as error:
        return [Finding("providers", "unknown", str(error), "az provider list -o table")]
    states = {row["namespace"].lower(): row.get("registrationState", "unknown") for row in rows}
    found = []
    for name in wanted:
        state = states.get(name.lower(), "NotRegistered")
        if state != "Registered":
            status: Status = "warn" if state == "Registering" else "fail"
            found.append(Finding("providers", status, f"{name}: {state}", f"az provider register -n {name} --wait"))
    return found or [Finding("providers", "ok", f"all {len(wanted)} that the stack needs are registered")]
