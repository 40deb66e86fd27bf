"""The policy rules over a good stack and its spoiled copies, and the pack over them through the engine's own protocol.

Every case spoils one property of one resource of the good stack, and expects exactly one rule to say so.
"""

import copy
import importlib.util
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ncdemo.infra.policy import EXCEPTIONS, RULES, STACK_RULES, UNKNOWN, Finding, Resource, exceptions, findings, manifests, network

PACK = Path(__file__).resolve().parents[2] / "stacks" / "policy"
MISSING: Any = object()
ALL = {rule.name: rule for rule in (*RULES, *STACK_RULES)}


class Declared(NamedTuple):
    type: str
    name: str
    inputs: dict[str, Any]


def _azure(kind: str, name: str, /, **inputs: Any) -> Declared:
    return Declared(f"azure-native:{kind}", name, inputs)


def _tagged(kind: str, name: str, /, **inputs: Any) -> Declared:
    return _azure(kind, name, tags={"project": "ncdemo", "stack": "dev", "managed-by": "pulumi"}, **inputs)


def _manifest(kind: str, name: str, /, **inputs: Any) -> Declared:
    return Declared(f"kubernetes:{kind}", name, {"metadata": {"name": name}, **inputs})


def _pod(*, pod: dict[str, Any] | None = None, volumes: list[Any] | None = None, **container: Any) -> dict[str, Any]:
    """A pod of one container that keeps every rule."""
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, **container.pop("securityContext", {})}
    given = {"name": "main", "image": "acr.azurecr.io/ncdemo:0.1.0", "resources": {"limits": {"memory": "8Gi"}}, **container}
    security_of_pod = {"runAsNonRoot": True, "runAsUser": 1000} if pod is None else pod
    return {"securityContext": security_of_pod, "containers": [{**given, "securityContext": security}], "volumes": volumes or []}


def _agent(image: str, host_path: str, *capabilities: str) -> dict[str, Any]:
    """The pod of a node agent of NVIDIA's, as exceptions.py describes it: root, with one folder of the node."""
    context = {"securityContext": {"capabilities": {"add": list(capabilities)}}} if capabilities else {}
    return {"template": {"spec": _pod(image=image, pod={}, volumes=[{"name": "node", "hostPath": {"path": host_path}}], **context)}}


def _inbound(name: str, source: str, port: str) -> dict[str, Any]:
    rule = {"name": name, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "priority": 100}
    return {**rule, "sourceAddressPrefix": source, "destinationPortRange": port}


ROLE = "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/"
READER = f"{ROLE}2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
SPOT_KEY = "kubernetes.azure.com/scalesetpriority"
GPU_POOL = {"enableAutoScaling": True, "minCount": 0, "maxCount": 2, "mode": "User", "vmSize": "Standard_NC40ads_H100_v5"}
SPOT = {"scaleSetPriority": "Spot", "nodeLabels": {SPOT_KEY: "spot"}}
IDENTITY = {"type": "UserAssigned"}
OS_PROFILE = {"linuxConfiguration": {"disablePasswordAuthentication": True}}

GOOD = {
    each.name: each
    for each in (
        _tagged("resources:ResourceGroup", "group"),
        _tagged("network:VirtualNetwork", "vnet"),
        _tagged("network:NetworkSecurityGroup", "nsg", securityRules=[_inbound("ssh", "203.0.113.0/24", "22")]),
        _tagged("network:NetworkSecurityGroup", "bastion-nsg", securityRules=[_inbound("https", "Internet", "443")]),
        _azure("network:SecurityRule", "office", **_inbound("office", "198.51.100.7", "22")),
        _tagged("network:PublicIPAddress", "bastion-ip"),
        _tagged("network:PublicIPAddress", "vm-ip"),
        _tagged("network:BastionHost", "host"),
        _tagged("network:NetworkInterface", "nic"),
        _tagged("managedidentity:UserAssignedIdentity", "identity"),
        _azure("authorization:RoleAssignment", "role", roleDefinitionId=READER, scope="/subscriptions/s/resourceGroups/g"),
        _tagged(
            "storage:StorageAccount",
            "account",
            kind="StorageV2",
            allowSharedKeyAccess=False,
            minimumTlsVersion="TLS1_2",
            allowBlobPublicAccess=False,
            enableHttpsTrafficOnly=True,
        ),
        _azure("storage:BlobContainer", "runs", publicAccess="None"),
        _tagged("containerregistry:Registry", "registry", adminUserEnabled=False, anonymousPullEnabled=False),
        _tagged(
            "containerservice:ManagedCluster",
            "aks",
            kubernetesVersion="1.35",
            oidcIssuerProfile={"enabled": True},
            securityProfile={"workloadIdentity": {"enabled": True}},
            agentPoolProfiles=[{"name": "system", "mode": "System", "vmSize": "Standard_D4s_v5", "count": 1}],
        ),
        _tagged("containerservice:AgentPool", "gpu", **GPU_POOL, nodeTaints=["nvidia.com/gpu=present:NoSchedule"]),
        _tagged("containerservice:AgentPool", "spot", **GPU_POOL, **SPOT, nodeTaints=[f"{SPOT_KEY}=spot:NoSchedule", "sku=gpu:NoSchedule"]),
        _tagged("compute:VirtualMachine", "vm", identity=IDENTITY, osProfile=OS_PROFILE),
        _tagged(
            "compute:VirtualMachine",
            "spot-vm",
            identity=IDENTITY,
            osProfile=OS_PROFILE,
            hardwareProfile={"vmSize": "Standard_NC80adis_H100_v5"},
            priority="Spot",
            evictionPolicy="Deallocate",
            billingProfile={"maxPrice": -1},
        ),
        _tagged("compute:VirtualMachineRunCommandByVirtualMachine", "probe"),
        _tagged("devtestlab:GlobalSchedule", "schedule"),
        _tagged("monitor:AzureMonitorWorkspace", "workspace"),
        _tagged("monitor:ActionGroup", "told"),
        _tagged("alertsmanagement:PrometheusRuleGroup", "rules"),
        _tagged("applicationinsights:Component", "insights", disableLocalAuth=True),
        _tagged("operationalinsights:Workspace", "logs", features={"disableLocalAuth": True}, workspaceCapping={"dailyQuotaGb": 1}),
        _tagged("monitor:DataCollectionEndpoint", "endpoint"),
        _tagged("monitor:DataCollectionRule", "collection"),
        _azure("consumption:Budget", "budget", amount=500),
        _manifest(
            "batch/v1:Job",
            "train",
            spec={"activeDeadlineSeconds": 3600, "template": {"spec": _pod(env=[{"name": "MAX_TOKENS", "value": "9"}])}},
        ),
        _manifest(
            "batch/v1:CronJob", "nightly", spec={"jobTemplate": {"spec": {"activeDeadlineSeconds": 60, "template": {"spec": _pod()}}}}
        ),
        _manifest("core/v1:Pod", "pod", spec=_pod()),
        _manifest("core/v1:Service", "service", spec={"type": "ClusterIP"}),
        _manifest("helm.sh/v3:Release", "kueue", chart="oci://registry.k8s.io/kueue/charts/kueue", version="0.14.1"),
    )
}
EXEMPT = {
    each.name: each
    for each in (
        _tagged(
            "storage:StorageAccount",
            "nfs",
            kind="FileStorage",
            allowSharedKeyAccess=False,
            minimumTlsVersion="TLS1_2",
            allowBlobPublicAccess=False,
            enableHttpsTrafficOnly=False,
            networkRuleSet={"defaultAction": "Deny"},
        ),
        _manifest(
            "apps/v1:DaemonSet", "plugin", spec=_agent("nvcr.io/nvidia/k8s-device-plugin:v0.18.0", "/var/lib/kubelet/device-plugins")
        ),
        _manifest(
            "apps/v1:DaemonSet",
            "dcgm",
            spec=_agent("nvcr.io/nvidia/k8s/dcgm-exporter:4.4.2-4.7.0-ubuntu22.04", "/var/lib/kubelet/pod-resources/", "SYS_ADMIN"),
        ),
    )
}
POD = "spec.template.spec"
MAIN = f"{POD}.containers.0"


def _with(inputs: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of inputs with the value at a path ((): all of them); MISSING takes it away, an index past the end appends."""
    if not path:
        return value
    changed = copy.deepcopy(inputs)
    parent = changed
    for key in path[:-1]:
        parent = parent[key] if isinstance(parent, list) else parent.setdefault(key, {})
    if value is MISSING:
        del parent[path[-1]]
    elif isinstance(parent, list) and path[-1] >= len(parent):
        parent.append(value)
    else:
        parent[path[-1]] = value
    return changed


def _stack(name: str, path: str | tuple[Any, ...], value: Any, *, base: dict[str, Declared] = GOOD) -> list[Declared]:
    """Return a stack with one property of one of its resources changed."""
    keys = tuple(int(key) if key.isdecimal() else key for key in path.split(".")) if isinstance(path, str) else path
    changed = base[name]._replace(inputs=_with(base[name].inputs, keys, value))
    return [changed if each.name == name else each for each in base.values()]


def _brief(found: list[Finding]) -> set[tuple[str, str]]:
    return {(each.rule, each.name) for each in found}


SPOILED: list[tuple[str, str, str | tuple[Any, ...], Any]] = [
    *(
        ("no-inbound-from-internet", "bastion-nsg", "securityRules.1", _inbound("a", source, "22"))
        for source in ("*", "Internet", "0.0.0.0/0")
    ),
    *(
        ("no-inbound-from-internet", "bastion-nsg", "securityRules.1", _inbound("a", source, "22"))
        for source in ("8.0.0.0/15", "2001::/32")
    ),
    *(
        ("no-inbound-from-internet", "bastion-nsg", "securityRules.1", _inbound("a", "AzureCloud.eastus", port))
        for port in ("*", "0-65535")
    ),
    *(("no-inbound-from-internet", "bastion-nsg", "securityRules.1", _inbound("a", "::/0", port)) for port in ("3389", "20-30")),
    ("no-inbound-from-internet", "bastion-nsg", "securityRules.0.destinationPortRanges", ["443", "3000-4000"]),
    (
        "no-inbound-from-internet",
        "bastion-nsg",
        "securityRules.1",
        {**_inbound("a", "", "22"), "sourceAddressPrefixes": ["8.8.8.8", "any"]},
    ),
    ("public-ip-is-guarded", "nsg", "securityRules.1", _inbound("serve", "Internet", "8000")),
    ("node-has-no-public-ip", "gpu", "enableNodePublicIP", True),
    ("node-has-no-public-ip", "aks", "agentPoolProfiles.0.enableNodePublicIP", True),
    ("service-stays-internal", "service", "spec.type", "LoadBalancer"),
    ("storage-no-shared-keys", "account", "allowSharedKeyAccess", True),
    ("storage-no-shared-keys", "account", "allowSharedKeyAccess", MISSING),
    ("storage-tls-1-2", "account", "minimumTlsVersion", "TLS1_1"),
    ("storage-tls-1-2", "account", "minimumTlsVersion", MISSING),
    ("storage-no-public-blobs", "account", "allowBlobPublicAccess", True),
    ("storage-no-public-blobs", "account", "allowBlobPublicAccess", MISSING),
    ("storage-https-only", "account", "enableHttpsTrafficOnly", False),
    ("storage-container-is-private", "runs", "publicAccess", "Blob"),
    ("registry-no-admin-user", "registry", "adminUserEnabled", True),
    ("registry-no-anonymous-pull", "registry", "anonymousPullEnabled", True),
    ("insights-no-local-auth", "insights", "disableLocalAuth", False),
    ("insights-no-local-auth", "insights", "disableLocalAuth", MISSING),
    ("logs-no-shared-keys", "logs", "features.disableLocalAuth", False),
    ("logs-no-shared-keys", "logs", "features", MISSING),
    ("logs-have-a-daily-cap", "logs", "workspaceCapping.dailyQuotaGb", -1),
    ("logs-have-a-daily-cap", "logs", "workspaceCapping", MISSING),
    ("cluster-has-oidc-issuer", "aks", "oidcIssuerProfile", MISSING),
    ("cluster-has-oidc-issuer", "aks", "oidcIssuerProfile.enabled", False),
    ("cluster-has-workload-identity", "aks", "securityProfile.workloadIdentity.enabled", False),
    ("cluster-has-workload-identity", "aks", "securityProfile", MISSING),
    ("cluster-version-is-decided", "aks", "kubernetesVersion", MISSING),
    ("vm-no-passwords", "vm", "osProfile.linuxConfiguration", MISSING),
    ("vm-no-passwords", "vm", "osProfile.linuxConfiguration.disablePasswordAuthentication", False),
    ("vm-has-identity", "vm", "identity", MISSING),
    ("vm-has-identity", "vm", "identity.type", "None"),
    *(("resource-is-tagged", name, "tags.stack", MISSING) for name, each in GOOD.items() if "tags" in each.inputs),
    ("resource-is-tagged", "group", "tags", MISSING),
    ("resource-is-tagged", "group", "tags.project", ""),
    ("role-is-not-privileged", "role", "roleDefinitionId", f"{ROLE}8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
    ("role-is-not-privileged", "role", "roleDefinitionId", f"{ROLE}B24988AC-6180-42A0-AB88-20F7382DD24C"),
    ("role-is-not-privileged", "role", "roleDefinitionId", f"{ROLE}18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"),
    ("role-is-not-privileged", "role", "roleDefinitionId", f"{ROLE}f58310d9-a9f6-439a-9e8d-f62e7b41a168"),
    ("role-scope-is-narrow", "role", "scope", "/subscriptions/00000000-0000-0000-0000-000000000000"),
    ("role-scope-is-narrow", "role", "scope", "/providers/Microsoft.Management/managementGroups/root"),
    ("role-scope-is-narrow", "role", "scope", "/"),
    ("pool-scales-to-zero", "gpu", "minCount", 1),
    ("pool-scales-to-zero", "gpu", "minCount", MISSING),
    ("pool-scales-to-zero", "spot", "enableAutoScaling", False),
    ("spot-pool-says-so", "spot", "nodeLabels", MISSING),
    ("spot-pool-says-so", "spot", "nodeTaints.0", f"{SPOT_KEY}=spot:NoExecute"),
    ("spot-pool-is-no-system-pool", "spot", "mode", "System"),
    ("gpu-pool-is-tainted", "gpu", "nodeTaints", MISSING),
    ("gpu-pool-is-tainted", "gpu", "nodeTaints.0", "nvidia.com/gpu=present:PreferNoSchedule"),
    ("gpu-pool-is-tainted", "spot", "nodeTaints.1", MISSING),
    ("spot-vm-keeps-its-disks", "spot-vm", "evictionPolicy", "Delete"),
    ("spot-vm-keeps-its-disks", "spot-vm", "billingProfile", MISSING),
    ("image-is-pinned", "train", f"{MAIN}.image", "acr.azurecr.io/ncdemo:latest"),
    ("image-is-pinned", "train", f"{MAIN}.image", "acr.azurecr.io:443/ncdemo"),
    ("image-is-pinned", "train", f"{MAIN}.image", "acr.azurecr.io/ncdemo:stable"),
    ("image-is-pinned", "nightly", "spec.jobTemplate.spec.template.spec.containers.0.image", "ncdemo"),
    ("image-is-pinned", "pod", "spec.initContainers", [{**_pod()["containers"][0], "image": "busybox"}]),
    ("chart-is-pinned", "kueue", "version", MISSING),
    ("chart-is-pinned", "kueue", "version", "^0.14.0"),
    ("chart-is-pinned", "kueue", "version", "0.14"),
    ("pod-runs-as-non-root", "train", f"{POD}.securityContext", MISSING),
    ("pod-runs-as-non-root", "train", f"{MAIN}.securityContext.runAsNonRoot", False),
    ("pod-runs-as-non-root", "train", f"{MAIN}.securityContext.runAsUser", 0),
    ("pod-is-unprivileged", "train", f"{MAIN}.securityContext.privileged", True),
    ("pod-is-unprivileged", "train", f"{MAIN}.securityContext.allowPrivilegeEscalation", MISSING),
    ("pod-adds-no-capabilities", "train", f"{MAIN}.securityContext.capabilities", {"add": ["NET_ADMIN"]}),
    ("pod-root-is-read-only", "train", f"{MAIN}.securityContext.readOnlyRootFilesystem", MISSING),
    ("pod-has-memory-limit", "train", f"{MAIN}.resources", MISSING),
    ("pod-has-memory-limit", "train", f"{MAIN}.resources.limits", {"cpu": "4"}),
    *(("pod-shares-no-namespace", "train", f"{POD}.{key}", True) for key in ("hostNetwork", "hostPID", "hostIPC")),
    ("pod-mounts-no-host-path", "train", f"{POD}.volumes.0", {"name": "node", "hostPath": {"path": "/"}}),
    ("job-has-deadline", "train", "spec.activeDeadlineSeconds", MISSING),
    ("job-has-deadline", "nightly", "spec.jobTemplate.spec.activeDeadlineSeconds", MISSING),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "HF_TOKEN", "value": "x"}),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "STORAGE_ACCOUNT_KEY", "value": UNKNOWN}),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "APPLICATIONINSIGHTS_CONNECTION_STRING", "value": "InstrumentationKey=x"}),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "HUB", "value": "hf_" + "a" * 34}),
    ("env-holds-no-secret", "train", f"{MAIN}.args", ["--url", "https://a.blob.core.windows.net/c?sv=1&sig=" + "a" * 40]),
]
SILENT: list[tuple[str, str, str | tuple[Any, ...], Any]] = [
    ("no-inbound-from-internet", "bastion-nsg", "securityRules.1", _inbound("a", "GatewayManager", "*")),
    ("no-inbound-from-internet", "nsg", "securityRules.1", _inbound("a", "10.0.0.0/8", "*")),
    ("no-inbound-from-internet", "nsg", "securityRules.1", _inbound("a", "8.8.0.0/16", "22")),
    ("no-inbound-from-internet", "nsg", "securityRules.1", _inbound("a", "2001:db8::/48", "22")),
    ("no-inbound-from-internet", "nsg", "securityRules.1", {**_inbound("a", "*", "*"), "access": "Deny"}),
    ("no-inbound-from-internet", "nsg", "securityRules.1", {**_inbound("a", "*", "*"), "direction": "Outbound"}),
    ("public-ip-is-guarded", "office", "sourceAddressPrefix", "VirtualNetwork"),
    ("node-has-no-public-ip", "gpu", "enableNodePublicIP", False),
    (
        "service-stays-internal",
        "service",
        (),
        {"spec": {"type": "LoadBalancer"}, "metadata": {"annotations": {network.INTERNAL_LOAD_BALANCER: "true"}}},
    ),
    ("storage-tls-1-2", "account", "minimumTlsVersion", "TLS1_3"),
    ("storage-https-only", "account", "enableHttpsTrafficOnly", MISSING),
    ("storage-container-is-private", "runs", "publicAccess", MISSING),
    ("registry-no-admin-user", "registry", "adminUserEnabled", MISSING),
    ("registry-no-anonymous-pull", "registry", "anonymousPullEnabled", MISSING),
    ("vm-has-identity", "vm", "identity.type", "SystemAssigned, UserAssigned"),
    ("pool-scales-to-zero", "aks", "agentPoolProfiles.0.minCount", 1),
    ("gpu-pool-is-tainted", "gpu", "nodeTaints.0", "nvidia.com/gpu:NoSchedule"),
    ("image-is-pinned", "train", f"{MAIN}.image", f"acr.azurecr.io:443/ncdemo@sha256:{'0' * 64}"),
    ("image-is-pinned", "train", f"{MAIN}.image", "ncdemo:0.1.0-cu130"),
    ("chart-is-pinned", "kueue", (), {"chart": "./charts/ncdemo"}),
    ("pod-runs-as-non-root", "train", f"{POD}.securityContext.runAsUser", MISSING),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}),
    ("env-holds-no-secret", "train", f"{MAIN}.env.1", {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": "/var/run/secrets/token"}),
]


WITHOUT: list[tuple[str, set[str], set[str]]] = [
    ("public-ip-is-guarded", {"nsg", "office"}, {"vm-ip"}),
    ("public-ip-is-guarded", {"nic"}, {"vm-ip"}),
    ("public-ip-is-guarded", {"nic", "host"}, {"vm-ip", "bastion-ip"}),
    ("gpu-stack-has-budget", {"budget"}, {""}),
]
"""Rule, the resources that are taken out of the good stack, the resources that it then names."""

WITHOUT_SILENT: list[tuple[str, set[str]]] = [
    ("public-ip-is-guarded", {"vm-ip", "nsg", "office", "nic"}),
    ("gpu-stack-has-budget", {"budget", "gpu", "spot", "spot-vm"}),
]


def _id(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def test_a_good_stack_has_no_findings() -> None:
    assert findings([*GOOD.values(), *EXEMPT.values()]) == []
    assert findings([]) == []


@pytest.mark.parametrize(("rule", "name", "path", "value"), SPOILED, ids=_id)
def test_exactly_one_rule_sees_a_spoiled_property(rule: str, name: str, path: Any, value: Any) -> None:
    found = findings(_stack(name, path, value))
    assert {each.rule for each in found} == {rule}, "\n".join(map(str, found))
    assert {each.name for each in found} == ({name} if rule != "public-ip-is-guarded" else {"vm-ip"})
    assert {each.enforcement for each in found} == {ALL[rule].enforcement}
    assert all(each.message and "Unknown" not in each.message for each in found)


@pytest.mark.parametrize(("rule", "name", "path", "value"), SILENT, ids=_id)
def test_no_rule_sees_a_harmless_change(rule: str, name: str, path: Any, value: Any) -> None:
    assert findings(_stack(name, path, value)) == []


@pytest.mark.parametrize(("rule", "gone", "named"), WITHOUT, ids=_id)
def test_a_stack_rule_sees_what_is_absent(rule: str, gone: set[str], named: set[str]) -> None:
    assert _brief(findings(each for each in GOOD.values() if each.name not in gone)) == {(rule, name) for name in named}


@pytest.mark.parametrize(("rule", "gone"), WITHOUT_SILENT, ids=_id)
def test_a_stack_rule_is_silent_without_its_subject(rule: str, gone: set[str]) -> None:
    assert findings(each for each in GOOD.values() if each.name not in gone) == []


def test_every_rule_has_a_bad_case() -> None:
    assert {case[0] for case in (*SPOILED, *WITHOUT)} == set(ALL)
    assert {case[0] for case in (*SILENT, *WITHOUT_SILENT)} <= set(ALL)
    # The good case of a rule is its bad case's resource as the good stack has it.
    assert {case[1] for case in (*SPOILED, *SILENT)} <= set(GOOD)


@pytest.mark.parametrize("name", ALL)
def test_a_rule_is_named_and_says_what_to_do(name: str) -> None:
    description = ALL[name].description
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
    assert 40 < len(description) < 160
    assert "\n" not in description
    assert description.endswith(".")
    assert len({rule.name for rule in (*RULES, *STACK_RULES)}) == len(RULES) + len(STACK_RULES)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _small_stack(name: str) -> dict[str, Declared]:
    """A resource, and what stack rules want beside it."""
    every = GOOD | EXEMPT
    return {each: every[each] for each in ("nsg", "nic", "host", "budget", name)}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_unknown_is_no_finding(name: str) -> None:
    base = _small_stack(name)
    assert findings(base.values()) == []
    for path in _paths(GOOD[name].inputs):
        assert findings(_stack(name, path, UNKNOWN, base=base)) == [], path


@pytest.mark.parametrize("name", [*GOOD, *EXEMPT])
def test_no_shape_of_inputs_breaks_a_rule(name: str) -> None:
    base = _small_stack(name)
    for path in _paths(base[name].inputs):
        for junk in (MISSING, None, UNKNOWN, 7, "x", [], {}, [None, UNKNOWN, [], "x"], {"x": UNKNOWN}):
            assert isinstance(findings(_stack(name, path, junk, base=base)), list)
    assert isinstance(findings([each._replace(inputs={}) for each in base.values()]), list)


def test_an_api_version_in_the_type_changes_nothing() -> None:
    bad = {"kind": "StorageV2"}
    tokens = ("azure-native:storage:StorageAccount", "azure-native:storage/v20240101:StorageAccount")
    tokens += ("azure-native_storage_v20240101:storage:StorageAccount",)
    one, *others = [{each.rule for each in findings([Declared(token, "a", bad)])} for token in tokens]
    assert "storage-tls-1-2" in one
    assert all(other == one for other in others)


def test_a_finding_prints_where_what_and_how_hard() -> None:
    account, stack = findings([*_stack("account", "minimumTlsVersion", MISSING), GOOD["vnet"]]), findings([GOOD["gpu"]])
    assert str(account[0]) == (
        'azure-native:storage:StorageAccount account: storage-tls-1-2 (mandatory): minimumTlsVersion is missing; allowed: "TLS1_2", "TLS1_3"'
    )
    assert [str(each) for each in stack] == ["stack: gpu-stack-has-budget (advisory): nobody is told what these cost: gpu"]


# Exceptions.


@pytest.mark.parametrize("entry", EXCEPTIONS, ids=lambda entry: f"{entry.rule}: {entry.reason[:30]}")
def test_every_exception_is_needed(entry: exceptions.Allowed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptions, "EXCEPTIONS", tuple(each for each in EXCEPTIONS if each is not entry))
    assert entry.rule in ALL
    assert len(entry.reason) > 40
    assert [each.rule for each in findings([*GOOD.values(), *EXEMPT.values()])] == [entry.rule]


NODE_FILES = {"name": "all", "hostPath": {"path": "/"}}
OVERREACH: list[tuple[str, str, Any, set[str]]] = [
    ("nfs", "networkRuleSet.defaultAction", "Allow", {"storage-https-only"}),
    ("nfs", "networkRuleSet", MISSING, {"storage-https-only"}),
    ("nfs", "kind", "StorageV2", {"storage-https-only"}),
    ("nfs", "minimumTlsVersion", MISSING, {"storage-tls-1-2"}),
    ("plugin", f"{POD}.hostNetwork", True, {"pod-shares-no-namespace"}),
    ("plugin", f"{MAIN}.securityContext.privileged", True, {"pod-is-unprivileged"}),
    ("plugin", f"{MAIN}.image", "nvcr.io/nvidia/k8s-device-plugin", {"image-is-pinned", "pod-runs-as-non-root", "pod-mounts-no-host-path"}),
    ("plugin", f"{MAIN}.image", "evil.io/nvidia/k8s-device-plugin:v0.18.0", {"pod-runs-as-non-root", "pod-mounts-no-host-path"}),
    ("plugin", f"{POD}.volumes.1", NODE_FILES, {"pod-runs-as-non-root", "pod-mounts-no-host-path"}),
    ("plugin", f"{POD}.containers.1", _pod(image="x:1")["containers"][0], {"pod-runs-as-non-root", "pod-mounts-no-host-path"}),
    (
        "plugin",
        f"{MAIN}.securityContext.capabilities",
        {"add": ["SYS_ADMIN"]},
        {"pod-adds-no-capabilities", "pod-runs-as-non-root", "pod-mounts-no-host-path"},
    ),
    (
        "dcgm",
        f"{MAIN}.securityContext.capabilities.add.1",
        "SYS_PTRACE",
        {"pod-adds-no-capabilities", "pod-runs-as-non-root", "pod-mounts-no-host-path"},
    ),
]


@pytest.mark.parametrize(("name", "path", "value", "rules"), OVERREACH, ids=_id)
def test_a_resource_beyond_its_reason_loses_its_exception(name: str, path: str, value: Any, rules: set[str]) -> None:
    assert _brief(findings(_stack(name, path, value, base=EXEMPT))) == {(rule, name) for rule in rules}


def test_an_exception_is_for_its_kind_alone() -> None:
    deployment = EXEMPT["plugin"]._replace(type="kubernetes:apps/v1:Deployment")
    assert {each.rule for each in findings([deployment])} == {"pod-runs-as-non-root", "pod-mounts-no-host-path"}


# Names: a kind or a property that azure-native doesn't have would make a rule blind.


@pytest.mark.parametrize(
    "each", [each for each in (*GOOD.values(), EXEMPT["nfs"]) if each.type.startswith("azure")], ids=lambda each: each.name
)
def test_azure_native_has_the_kinds_and_properties(each: Declared) -> None:
    spec = importlib.util.find_spec("pulumi_azure_native")
    if spec is None or spec.origin is None:
        pytest.skip("needs the infra extra: scripts/setup_env.sh --extra infra")
    _, module, kind = each.type.split(":")
    folder = Path(spec.origin).parent / module
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
    source = "".join(path.read_text() for path in (folder / f"{snake}.py", folder / "_inputs.py") if path.is_file())
    assert f"'{each.type}'" in source
    free = ("tags", "nodeLabels")
    keys = {key for path in _paths(each.inputs) for key in path if isinstance(key, str) and not set(free) & set(path[:-1])}
    assert [key for key in keys if f'getter(name="{key}")' not in source and f"def {key}(self)" not in source] == []


@pytest.mark.parametrize(
    "token", [*manifests.POD_PATHS, "kubernetes:core/v1:Service", "kubernetes:helm.sh/v3:Release", "kubernetes:helm.sh/v4:Chart"]
)
def test_pulumi_kubernetes_has_the_kinds(token: str) -> None:
    spec = importlib.util.find_spec("pulumi_kubernetes")
    if spec is None or spec.origin is None:
        pytest.skip("needs the infra extra: scripts/setup_env.sh --extra infra")
    _, version, kind = token.split(":")
    source = Path(spec.origin).parent / version.replace("helm.sh", "helm") / f"{kind}.py"
    assert f"'{token}'" in source.read_text()


# The pack.

URN = "urn:pulumi:dev::ncdemo::{0.type}::{0.name}"


@pytest.fixture(scope="module")
def pack() -> dict[str, Any]:
    """The pack's names, without its server."""
    pytest.importorskip("pulumi_policy", reason="needs the infra extra: scripts/setup_env.sh --extra infra")
    return runpy.run_path(str(PACK / "__main__.py"), run_name="policy_pack")


def _reports(pack: dict[str, Any], resource: Resource, **unknown: str) -> set[tuple[str, str]]:
    """Return rule and line of what the pack's resource policies report, through pulumi_policy's own argument types."""
    from pulumi_policy import PolicyCustomTimeouts, PolicyResourceOptions, ResourceValidationArgs, ResourceValidationPolicy
    from pulumi_policy.proxy import unknown_checking_proxy

    reported = set()
    options = PolicyResourceOptions(False, [], None, [], PolicyCustomTimeouts(0, 0, 0), [])
    properties = unknown_checking_proxy({**resource.inputs, **unknown})
    args = ResourceValidationArgs(resource.type, properties, URN.format(resource), resource.name, options, None)
    for policy in pack["policies"]():
        if isinstance(policy, ResourceValidationPolicy):
            policy.validate(args, lambda message, urn=None, name=policy.name: reported.add((name, message)))
    return reported


def test_the_pack_has_a_policy_for_every_rule(pack: dict[str, Any]) -> None:
    policies = {policy.name: policy for policy in pack["policies"]()}
    assert {name: (policy.description, policy.enforcement_level.value) for name, policy in policies.items()} == {
        rule.name: (rule.description, rule.enforcement) for rule in (*RULES, *STACK_RULES)
    }
    assert {rule.enforcement for rule in STACK_RULES} == {"mandatory", "advisory"}


def test_the_pack_reports_what_a_rule_finds(pack: dict[str, Any]) -> None:
    assert _reports(pack, GOOD["account"]) == set()
    bad = _stack("account", "minimumTlsVersion", "TLS1_0", base={"account": GOOD["account"]})[0]
    assert _reports(pack, bad) == {("storage-tls-1-2", 'minimumTlsVersion is "TLS1_0"; allowed: "TLS1_2", "TLS1_3"')}


def test_the_pack_keeps_quiet_about_what_the_engine_does_not_know(pack: dict[str, Any]) -> None:
    from pulumi_policy.proxy import UNKNOWN_OBJECT_VALUE, UNKNOWN_STRING_VALUE

    assert _reports(pack, GOOD["account"], minimumTlsVersion=UNKNOWN_STRING_VALUE, tags=UNKNOWN_OBJECT_VALUE) == set()
    assert _reports(pack, GOOD["train"], spec=UNKNOWN_OBJECT_VALUE) == set()


def test_the_pack_knows_the_exceptions(pack: dict[str, Any]) -> None:
    for resource in EXEMPT.values():
        assert _reports(pack, resource) == set()


def test_the_pack_runs_in_the_project_environment() -> None:
    runtime = yaml.safe_load((PACK / "PulumiPolicy.yaml").read_text())["runtime"]
    assert runtime["name"] == "python"
    assert (PACK / runtime["options"]["virtualenv"]).parent.resolve() == PACK.parents[1]
    assert Path(runtime["options"]["virtualenv"]).name == ".venv"


@pytest.fixture(scope="module")
def analyzer(pack: dict[str, Any]) -> Iterator[Any]:
    """The pack as a process of its own, started as the Pulumi CLI starts it, and a client of its protocol."""
    import grpc
    from pulumi.runtime.proto import analyzer_pb2_grpc

    # The first argument is the engine's address, which a policy pack never calls.
    command = [sys.executable, "-u", "-m", "pulumi.policy", "127.0.0.1:0", "."]
    with subprocess.Popen(command, cwd=PACK, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            port = process.stdout.readline().strip()
            assert port.isdecimal(), process.stderr.read()
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            process.kill()


def _struct(inputs: dict[str, Any]) -> Any:
    from google.protobuf import json_format, struct_pb2

    return json_format.ParseDict(inputs, struct_pb2.Struct())


def test_the_engine_hears_of_a_bad_resource(analyzer: Any) -> None:
    from pulumi.runtime.proto import analyzer_pb2

    bad = _stack("spot", "minCount", 1, base={"spot": GOOD["spot"]})[0]
    for resource, expected in ((GOOD["spot"], []), (EXEMPT["dcgm"], []), (bad, ["pool-scales-to-zero"])):
        request = analyzer_pb2.AnalyzeRequest(
            type=resource.type, name=resource.name, urn=URN.format(resource), properties=_struct(resource.inputs)
        )
        answer = analyzer.Analyze(request, timeout=30)
        assert [each.policyName for each in answer.diagnostics] == expected
        assert {each.enforcementLevel for each in answer.diagnostics} <= {analyzer_pb2.MANDATORY}


def test_the_engine_hears_of_a_bad_stack(analyzer: Any) -> None:
    from pulumi.runtime.proto import analyzer_pb2

    def ask(gone: set[str]) -> set[tuple[str, str, int]]:
        stack = [
            analyzer_pb2.AnalyzerResource(type=each.type, name=each.name, urn=URN.format(each), properties=_struct(each.inputs))
            for each in GOOD.values()
            if each.name not in gone
        ]
        answer = analyzer.AnalyzeStack(analyzer_pb2.AnalyzeStackRequest(resources=stack), timeout=30)
        return {(each.policyName, each.urn, each.enforcementLevel) for each in answer.diagnostics}

    assert ask(set()) == set()
    assert ask({"nic", "budget"}) == {
        ("public-ip-is-guarded", URN.format(GOOD["vm-ip"]), analyzer_pb2.MANDATORY),
        ("gpu-stack-has-budget", "", analyzer_pb2.ADVISORY),
    }


def test_the_engine_learns_the_pack_s_name(analyzer: Any) -> None:
    from google.protobuf import empty_pb2

    info = analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=30)
    assert info.name == "ncdemo"
    assert {policy.name for policy in info.policies} == set(ALL)
