"""What stands in for Azure when a stack is rendered: ids, names and answers that look like Azure's, and look made up.

Subscription zeros, names that end in `abc123`, secrets as [secret].
"""

import base64
import re
import uuid
from collections.abc import Callable
from typing import Any

import pulumi
import yaml
from pulumi.runtime import mocks as pulumi_mocks

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
SUFFIX = "abc123"
SECRET = "[secret]"
TOKEN_STAND_IN = "stand-in-for-the-token"
WEBHOOK_STAND_IN = "stand-in-for-the-address-that-is-told"
CONNECTION_STAND_IN = "stand-in-for-the-connection-string"
"""Mark where the Hugging Face token, the alerts' webhook and Application Insights' connection string would be; none is ever printed."""


def plain(value: Any) -> Any:
    """Return a registered value as plain data: secrets hidden in their shape, whole floats as whole numbers."""
    if pulumi.runtime.rpc.is_rpc_secret(value):
        return _hidden(pulumi.runtime.rpc.unwrap_rpc_secret(value))
    if value in (TOKEN_STAND_IN, WEBHOOK_STAND_IN, CONNECTION_STAND_IN):
        return SECRET
    if isinstance(value, dict):
        # The wire has no order of keys: people's, so that two renderings are equal.
        return {key: plain(value[key]) for key in sorted(value, key=_as_people_write) if value[key] is not None}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _hidden(value: Any) -> Any:
    """Return a secret's shape: a manifest with it is still a manifest."""
    if isinstance(value, dict):
        return {key: _hidden(value[key]) for key in sorted(value, key=_as_people_write)}
    return [_hidden(one) for one in value] if isinstance(value, list | tuple) else SECRET


def _as_people_write(key: str) -> tuple[int, str]:
    first = ("apiVersion", "kind", "metadata", "name", "namespace", "image", "command", "args")
    return (first.index(key) if key in first else len(first), key)


class StandIn(pulumi_mocks.Mocks):
    """What Azure would answer, where the program needs it; with `unknown`, nothing, as before a first `pulumi up`."""

    def __init__(self, *, unknown: bool) -> None:
        self._unknown = unknown

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        inputs = plain(args.inputs)
        state = dict(inputs)
        if "userAssignedIdentities" in inputs.get("identity", {}):
            # Azure gives identities back as a mapping, not as the list that it was sent.
            state["identity"] = {**inputs["identity"], "userAssignedIdentities": {}}
        name = next((inputs[key] for key in NAME_KEYS.get(args.typ, ()) if key in inputs), args.name)
        state["name"] = name
        if self._unknown:
            return "", state
        made: Callable[[str], dict[str, Any]] = getattr(self, f"_{args.typ.rsplit(':', 1)[-1]}", lambda name: {})
        return arm_id(args.typ, inputs, name), {**state, **made(name)}

    def call(self, args: pulumi_mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        if args.token == "azure-native:containerservice:listManagedClusterUserCredentials":
            config = {"apiVersion": "v1", "kind": "Config", "users": [{"name": "user", "user": {}}]}
            return {"kubeconfigs": [{"name": "user", "value": base64.b64encode(yaml.safe_dump(config).encode()).decode()}]}, []
        raise AssertionError(f"the program asks the network while it is previewed: {args.token}")

    def _RandomString(self, name: str) -> dict[str, Any]:
        return {"result": SUFFIX}

    def _PrivateKey(self, name: str) -> dict[str, Any]:
        return {"publicKeyOpenssh": "ssh-rsa AAAA made-by-pulumi", "privateKeyPem": SECRET}

    def _UserAssignedIdentity(self, name: str) -> dict[str, Any]:
        return {key: str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}:{key}")) for key in ("clientId", "principalId")}

    def _Component(self, name: str) -> dict[str, Any]:
        return {"connectionString": CONNECTION_STAND_IN, "instrumentationKey": SECRET}

    def _Registry(self, name: str) -> dict[str, Any]:
        return {"loginServer": f"{name}.azurecr.io"}

    def _ManagedCluster(self, name: str) -> dict[str, Any]:
        kubelet = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}:kubelet"))
        return {
            "oidcIssuerProfile": {"enabled": True, "issuerURL": f"https://oidc.invalid/{name}/"},
            "identityProfile": {"kubeletidentity": {"objectId": kubelet}},
        }


NAME_KEYS = {
    "azure-native:resources:ResourceGroup": ("resourceGroupName",),
    "azure-native:network:NetworkSecurityGroup": ("networkSecurityGroupName",),
    "azure-native:network:VirtualNetwork": ("virtualNetworkName",),
    "azure-native:network:PublicIPAddress": ("publicIpAddressName",),
    "azure-native:network:NetworkInterface": ("networkInterfaceName",),
    "azure-native:managedidentity:UserAssignedIdentity": ("resourceName",),
    "azure-native:storage:StorageAccount": ("accountName",),
    "azure-native:storage:BlobContainer": ("containerName",),
    "azure-native:storage:FileShare": ("shareName",),
    "azure-native:containerregistry:Registry": ("registryName",),
    "azure-native:containerservice:ManagedCluster": ("resourceName",),
    "azure-native:compute:VirtualMachine": ("vmName",),
    "azure-native:applicationinsights:Component": ("resourceName",),
    "azure-native:operationalinsights:Workspace": ("workspaceName",),
    "azure-native:monitor:AzureMonitorWorkspace": ("azureMonitorWorkspaceName",),
    "azure-native:monitor:ActionGroup": ("actionGroupName",),
    "azure-native:monitor:DataCollectionEndpoint": ("dataCollectionEndpointName",),
    "azure-native:monitor:DataCollectionRule": ("dataCollectionRuleName",),
}
"""The input that is a resource's name in Azure, for those whose name or id others use."""


def arm_id(kind: str, inputs: dict[str, Any], name: str) -> str:
    """Return an id in Azure's form; a stand-in for everything else."""
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{inputs.get('resourceGroupName', name)}"
    if kind == "azure-native:resources:ResourceGroup":
        return group
    if not kind.startswith("azure-native:"):
        return f"{name}-id"
    _, module, cls = kind.split(":")
    parents = {"BlobContainer": f"storageAccounts/{inputs.get('accountName')}/blobServices/default/containers"}
    parents |= {"FileShare": f"storageAccounts/{inputs.get('accountName')}/fileServices/default/shares"}
    plural = parents.get(cls) or re.sub(r"y$", "ie", cls[0].lower() + cls[1:]) + "s"
    return f"{group}/providers/Microsoft.{module}/{plural}/{name}"
