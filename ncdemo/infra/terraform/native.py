"""Pulumi's side in the normal form: azure-native's inputs as Azure nests and names them."""

import base64
import re
from typing import Any

import yaml

from ncdemo.infra.render import Rendered
from ncdemo.infra.terraform.normal import TOP, Resource, flat

ADDRESSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "alertsmanagement:PrometheusRuleGroup": ("Microsoft.AlertsManagement/prometheusRuleGroups", ("ruleGroupName",)),
    "applicationinsights:Component": ("Microsoft.Insights/components", ("resourceName",)),
    "authorization:RoleAssignment": ("Microsoft.Authorization/roleAssignments", ("roleAssignmentName",)),
    "compute:VirtualMachine": ("Microsoft.Compute/virtualMachines", ("vmName",)),
    "consumption:Budget": ("Microsoft.Consumption/budgets", ("budgetName",)),
    "containerregistry:Registry": ("Microsoft.ContainerRegistry/registries", ("registryName",)),
    "containerservice:AgentPool": ("Microsoft.ContainerService/managedClusters/agentPools", ("resourceName", "agentPoolName")),
    "containerservice:ManagedCluster": ("Microsoft.ContainerService/managedClusters", ("resourceName",)),
    "devtestlab:GlobalSchedule": ("Microsoft.DevTestLab/schedules", ("name",)),
    "managedidentity:FederatedIdentityCredential": (
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
        ("resourceName", "federatedIdentityCredentialResourceName"),
    ),
    "managedidentity:UserAssignedIdentity": ("Microsoft.ManagedIdentity/userAssignedIdentities", ("resourceName",)),
    "monitor:ActionGroup": ("Microsoft.Insights/actionGroups", ("actionGroupName",)),
    "monitor:AzureMonitorWorkspace": ("Microsoft.Monitor/accounts", ("azureMonitorWorkspaceName",)),
    "monitor:DataCollectionEndpoint": ("Microsoft.Insights/dataCollectionEndpoints", ("dataCollectionEndpointName",)),
    "monitor:DataCollectionRule": ("Microsoft.Insights/dataCollectionRules", ("dataCollectionRuleName",)),
    "monitor:DataCollectionRuleAssociation": ("Microsoft.Insights/dataCollectionRuleAssociations", ("associationName",)),
    "network:BastionHost": ("Microsoft.Network/bastionHosts", ("bastionHostName",)),
    "network:NetworkInterface": ("Microsoft.Network/networkInterfaces", ("networkInterfaceName",)),
    "network:NetworkSecurityGroup": ("Microsoft.Network/networkSecurityGroups", ("networkSecurityGroupName",)),
    "network:PublicIPAddress": ("Microsoft.Network/publicIPAddresses", ("publicIpAddressName",)),
    "network:VirtualNetwork": ("Microsoft.Network/virtualNetworks", ("virtualNetworkName",)),
    "operationalinsights:Workspace": ("Microsoft.OperationalInsights/workspaces", ("workspaceName",)),
    "resources:ResourceGroup": ("Microsoft.Resources/resourceGroups", ("resourceGroupName",)),
    "storage:BlobContainer": ("Microsoft.Storage/storageAccounts/blobServices/containers", ("accountName", "containerName")),
    "storage:BlobServiceProperties": ("Microsoft.Storage/storageAccounts/blobServices", ("accountName",)),
    "storage:FileShare": ("Microsoft.Storage/storageAccounts/fileServices/shares", ("accountName", "shareName")),
    "storage:ManagementPolicy": ("Microsoft.Storage/storageAccounts/managementPolicies", ("accountName",)),
    "storage:StorageAccount": ("Microsoft.Storage/storageAccounts", ("accountName",)),
}
"""Class of azure-native -> Azure's type, and the inputs that are the resource's name and its parents'."""
PATHS = ("resourceGroupName", "blobServicesName", "managementPolicyName")
"""Inputs that are only part of the address, the same on both sides by the addresses of everything else."""
JOBS = ("azure-native:compute:VirtualMachineRunCommandByVirtualMachine",)
"""Jobs are ncdemo's business on either side; Terraform makes the capacity."""
RENAMED = {
    "enableHttpsTrafficOnly": "supportsHttpsTrafficOnly",
    "iPAddressOrRange": "value",
    "networkRuleSet": "networkAcls",
    "virtualNetworkResourceId": "id",
}
COMPONENT = {
    "applicationType": "Application_Type",
    "disableLocalAuth": "DisableLocalAuth",
    "flowType": "Flow_Type",
    "ingestionMode": "IngestionMode",
    "requestSource": "Request_Source",
    "workspaceResourceId": "WorkspaceResourceId",
}
"""How Azure spells what azure-native renames in an Application Insights component."""
INSIDE = {"Microsoft.ContainerService/managedClusters/agentPools": TOP, "Microsoft.OperationalInsights/workspaces": ("sku",)}
"""What these types keep inside `properties`, and others beside them."""
INNER = ("subnets", "ipConfigurations", "securityRules")
"""Lists whose items Azure gives `properties` of their own."""
KUBERNETES = ("Namespace", "ServiceAccount", "NetworkPolicy")


def resources(rendered: Rendered) -> list[Resource]:
    """Return the Azure resources of a rendered stack, without its jobs."""
    azure = [one for one in rendered.resources if one.type.startswith("azure-native:") and one.type not in JOBS]
    return [of_inputs(one.type, one.inputs, one.name) for one in azure]


def of_inputs(token: str, inputs: dict[str, Any], source: str) -> Resource:
    """Return one resource of its inputs, as a preview also has them."""
    type_, names = ADDRESSES[token.removeprefix("azure-native:")]
    body = {key: value for key, value in inputs.items() if key not in (*names, *PATHS)}
    outer = [key for key in TOP if key not in INSIDE.get(type_, ())]
    top = {key: value for key, value in body.items() if key in outer}
    renamed = COMPONENT if type_ == "Microsoft.Insights/components" else {}
    inside = _azure({renamed.get(key, key): value for key, value in body.items() if key not in outer})
    made = dict(flat({**top, "properties": inside}))
    return Resource(type_, "/".join(str(inputs[name]) for name in names), made, source)


def namespaces(rendered: Rendered) -> list[Resource]:
    """Return the namespaces of jobs, with the account that jobs run as and the policy that guards them."""
    spaces = {one["metadata"]["name"] for one in rendered.manifests() if "ncdemo.io/jobs" in one["metadata"].get("labels", {})}
    return [
        of_manifest(one)
        for one in rendered.manifests()
        if one["kind"] in KUBERNETES and one["metadata"].get("namespace", one["metadata"]["name"]) in spaces
    ]


def of_manifest(manifest: dict[str, Any]) -> Resource:
    """Return a Kubernetes object; its own terms are the normal form."""
    meta = manifest["metadata"]
    name = "/".join(filter(None, [meta.get("namespace"), meta["name"]]))
    made = {key: value for key, value in flat(manifest) if key not in ("apiVersion", "kind")}
    return Resource(f"{manifest['apiVersion']}/{manifest['kind']}", name, made, name)


def cloud_init(encoded: str) -> Any:
    """Return what a VM's custom data says, whatever its quoting."""
    return yaml.safe_load(base64.b64decode(encoded))


def _azure(value: Any, key: str = "") -> Any:
    if isinstance(value, list):
        return [_item(one, key) for one in value]
    if not isinstance(value, dict):
        return cloud_init(value) if key == "customData" else value
    if key == "notifications":
        # Their keys are free; what tells them apart is when they come.
        return {f"{one['thresholdType']}-{one['threshold']:g}": one for one in value.values()}
    dashes = key == "autoScalerProfile"
    return {_name(name, dashes): _azure(one, name) for name, one in value.items()}


def _item(value: Any, key: str) -> Any:
    if key not in INNER or "name" not in value:
        return _azure(value)
    return {"name": value["name"], "properties": _azure({name: one for name, one in value.items() if name != "name"})}


def _name(key: str, dashes: bool) -> str:
    return re.sub("([A-Z])", r"-\1", key).lower() if dashes else RENAMED.get(key, key)
