"""Who may do what, and whose a resource is: role assignments and tags.

python -m pytest tests/infra/test_policy.py -k "role or tags"
"""

import re
from collections.abc import Iterator

from ncdemo.infra.policy.base import Inputs, Rule, read, rule

ASSIGNMENT = "authorization:RoleAssignment"
# Microsoft's built-in roles; their ids are the same in every tenant.
PRIVILEGED_ROLES = {
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": "Owner",
    "b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor",
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": "User Access Administrator",
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168": "Role Based Access Control Administrator",
}
WIDE_SCOPE = re.compile(r"/?|/subscriptions/[^/]+/?|/providers/microsoft\.management/managementgroups/.*", re.IGNORECASE)

TAGS = ("project", "stack", "managed-by")
TAGGED = (
    "alertsmanagement:PrometheusRuleGroup",
    "applicationinsights:Component",
    "compute:VirtualMachine",
    "compute:VirtualMachineRunCommandByVirtualMachine",
    "containerregistry:Registry",
    "containerservice:AgentPool",
    "containerservice:ManagedCluster",
    "devtestlab:GlobalSchedule",
    "managedidentity:UserAssignedIdentity",
    "monitor:ActionGroup",
    "monitor:AzureMonitorWorkspace",
    "monitor:DataCollectionEndpoint",
    "monitor:DataCollectionRule",
    "network:BastionHost",
    "network:NetworkInterface",
    "network:NetworkSecurityGroup",
    "network:PublicIPAddress",
    "network:VirtualNetwork",
    "operationalinsights:Workspace",
    "resources:ResourceGroup",
    "storage:StorageAccount",
)


@rule(
    "role-is-not-privileged",
    "No identity of ours owns, contributes to all of, or hands out rights on anything: assign a role for the one service it uses.",
    ASSIGNMENT,
)
def role_is_not_privileged(inputs: Inputs) -> Iterator[str]:
    role_id = str(read(inputs, "roleDefinitionId")).rstrip("/").rpartition("/")[2].lower()
    if role_id in PRIVILEGED_ROLES:
        yield f"it assigns {PRIVILEGED_ROLES[role_id]}"


@rule(
    "role-scope-is-narrow",
    "A role covers a resource or a resource group, never a subscription or a management group: narrow scope.",
    ASSIGNMENT,
)
def role_scope_is_narrow(inputs: Inputs) -> Iterator[str]:
    scope = read(inputs, "scope")
    if isinstance(scope, str) and WIDE_SCOPE.fullmatch(scope):
        yield f"scope is {scope}"


@rule(
    "resource-is-tagged",
    f"Costs and clean-up find a resource by its tags: set {', '.join(TAGS)}.",
    *TAGGED,
)
def resource_is_tagged(inputs: Inputs) -> Iterator[str]:
    missing = [tag for tag in TAGS if read(inputs, "tags", tag) in (None, "")]
    if missing:
        yield f"tags lack {', '.join(missing)}"


RULES: tuple[Rule, ...] = (role_is_not_privileged, role_scope_is_narrow, resource_is_tagged)
