"""The two validators of rendered resources catch what they should, and are silent on what is right.

tests/infra/arm.py checks Azure's bodies, tests/infra/kube.py Kubernetes manifests; every other test of ncdemo/infra leans on them.
"""

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi_azure_native", reason="needs the infra extra")
pytest.importorskip("kubernetes_validate", reason="needs the dev group: scripts/setup_env.sh")


def _load(name: str) -> ModuleType:
    """Return a module beside this file, from wherever pytest was started."""
    spec = importlib.util.spec_from_file_location(f"ncdemo_tests_infra_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


arm, kube = _load("arm"), _load("kube")
GONE = object()


def _with(value: dict[str, Any], path: tuple[str | int, ...], new: Any) -> dict[str, Any]:
    """Return a copy with another value at this path, or none there."""
    changed = owner = copy.deepcopy(value)
    for part in path[:-1]:
        owner = owner[part]
    if new is GONE:
        del owner[path[-1]]
    else:
        owner[path[-1]] = new
    return changed


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# Azure.

BODIES = yaml.safe_load("""
rg: &rg {resourceGroupName: rg}
at: &at {resourceGroupName: rg, location: eastus, tags: {stack: dev}}
id: &id /subscriptions/0/resourceGroups/rg/providers/Microsoft.Example/things/x
ref: &ref {id: *id}
identity: &identity {type: UserAssigned, userAssignedIdentities: [*id]}
good:
  authorization:RoleAssignment: {scope: *id, principalId: '0', principalType: ServicePrincipal, roleDefinitionId: *id}
  compute:CapacityReservation:
    {<<: *rg, capacityReservationGroupName: g, location: eastus, sku: {name: Standard_NC40ads_H100_v5, capacity: 1}, zones: ['1']}
  compute:CapacityReservationGroup: {<<: *at, zones: ['1']}
  compute:Disk: {<<: *at, creationData: {createOption: Empty}, diskSizeGB: 64, sku: {name: Premium_LRS}}
  compute:VirtualMachine:
    <<: *at
    hardwareProfile: {vmSize: Standard_NC40ads_H100_v5}
    identity: *identity
    priority: Spot
    evictionPolicy: Deallocate
    billingProfile: {maxPrice: -1.0}
    networkProfile: {networkInterfaces: [{id: *id, primary: true}]}
    osProfile:
      computerName: a
      customData: IyE=
      linuxConfiguration: {disablePasswordAuthentication: true, ssh: {publicKeys: [{keyData: ssh-ed25519 A, path: /home/a}]}}
    storageProfile:
      imageReference: {publisher: microsoft-dsvm, offer: ubuntu-hpc, sku: '2204', version: latest}
      osDisk: {createOption: FromImage, diffDiskSettings: {option: Local, placement: ResourceDisk}}
      dataDisks: [{lun: 0, createOption: Attach, managedDisk: *ref}]
  compute:VirtualMachineExtension:
    {<<: *rg, vmName: vm, publisher: Microsoft.Azure.Monitor, type: AzureMonitorLinuxAgent, enableAutomaticUpgrade: true}
  compute:VirtualMachineRunCommandByVirtualMachine:
    <<: *at
    vmName: vm
    asyncExecution: true
    timeoutInSeconds: 600
    source: {script: 'true'}
    outputBlobUri: https://account/blob
    outputBlobManagedIdentity: {clientId: '0'}
  consumption:Budget:
    scope: *id
    amount: 99.5
    category: Cost
    timeGrain: Monthly
    timePeriod: {startDate: '2026-11-01T00:00:00Z'}
    notifications: {at80: {enabled: true, operator: GreaterThan, threshold: 80, contactEmails: [a@b.c], thresholdType: Actual}}
  containerregistry:Registry:
    <<: *at
    registryName: registry
    sku: {name: Premium}
    networkRuleSet: {defaultAction: Deny, ipRules: [{iPAddressOrRange: 1.2.3.4}]}
  containerservice:AgentPool:
    <<: *rg
    resourceName: cluster
    agentPoolName: gpu
    type: VirtualMachineScaleSets
    mode: User
    vmSize: Standard_NC40ads_H100_v5
    count: 0
    maxCount: 2
    enableAutoScaling: true
    scaleSetPriority: Spot
    spotMaxPrice: -1
    gpuProfile: {driver: Install}
    nodeTaints: ['a=b:NoSchedule']
    nodeLabels: {a: b}
    osSKU: Ubuntu
  containerservice:MaintenanceConfiguration:
    {<<: *rg, resourceName: cluster, configName: default, timeInWeek: [{day: Monday, hourSlots: [1]}]}
  containerservice:ManagedCluster:
    <<: *at
    resourceName: cluster
    dnsPrefix: cluster
    kubernetesVersion: '1.35'
    identity: *identity
    sku: {name: Base, tier: Free}
    agentPoolProfiles: [{name: system, mode: System, vmSize: Standard_D4ds_v5, count: 2, osType: Linux, upgradeSettings: {maxSurge: 33%}}]
    aadProfile: {managed: true, enableAzureRBAC: true}
    autoScalerProfile: {scaleDownUnneededTime: 10m, expander: least-waste}
    networkProfile: {networkPlugin: azure, networkPluginMode: overlay, podCidr: 10.244.0.0/16}
    oidcIssuerProfile: {enabled: true}
    securityProfile: {workloadIdentity: {enabled: true}}
    identityProfile: {kubeletidentity: {resourceId: *id}}
  devtestlab:GlobalSchedule:
    <<: *at
    name: shutdown-computevm-vm
    status: Enabled
    taskType: ComputeVmShutdownTask
    dailyRecurrence: {time: '1900'}
    timeZoneId: UTC
    targetResourceId: *id
  managedidentity:FederatedIdentityCredential:
    <<: *rg
    resourceName: identity
    federatedIdentityCredentialResourceName: job
    issuer: https://issuer
    subject: system:serviceaccount:a:b
    audiences: ['api://AzureADTokenExchange']
  managedidentity:UserAssignedIdentity: *at
  monitor:AzureMonitorWorkspace: {<<: *at, azureMonitorWorkspaceName: metrics}
  monitor:DataCollectionEndpoint: {<<: *at, kind: Linux, networkAcls: {publicNetworkAccess: Enabled}}
  monitor:DataCollectionRule:
    <<: *at
    kind: Linux
    dataSources: {prometheusForwarder: [{name: p, streams: [Microsoft-PrometheusMetrics]}]}
    destinations: {monitoringAccounts: [{accountResourceId: *id, name: m}]}
    dataFlows: [{streams: [Microsoft-PrometheusMetrics], destinations: [m]}]
  monitor:DataCollectionRuleAssociation: {resourceUri: *id, associationName: a, dataCollectionRuleId: *id}
  network:BastionHost:
    <<: *at
    sku: {name: Standard}
    ipConfigurations: [{name: a, subnet: *ref, publicIPAddress: *ref, privateIPAllocationMethod: Dynamic}]
  network:NatGateway: {<<: *at, sku: {name: Standard}, idleTimeoutInMinutes: 10, publicIpAddresses: [*ref]}
  network:NetworkInterface:
    <<: *at
    ipConfigurations: [{name: a, primary: true, subnet: *ref, publicIPAddress: *ref, privateIPAllocationMethod: Dynamic}]
    networkSecurityGroup: *ref
  network:NetworkSecurityGroup:
    <<: *at
    securityRules: [&rule {name: a, priority: 100.0, direction: Inbound, access: Allow, protocol: Tcp, sourceAddressPrefixes: [1.2.3.4/32],
      sourcePortRange: '*', destinationAddressPrefix: '*', destinationPortRange: '22'}]
  network:PrivateEndpoint:
    {<<: *at, subnet: *ref, privateLinkServiceConnections: [{name: a, privateLinkServiceId: *id, groupIds: [blob]}]}
  network:PublicIPAddress: {<<: *at, sku: {name: Standard}, publicIPAllocationMethod: Static, publicIPAddressVersion: IPv4}
  network:PublicIPPrefix: {<<: *at, prefixLength: 30, sku: {name: Standard}}
  network:SecurityRule: {<<: [*rg, *rule], networkSecurityGroupName: nsg, securityRuleName: ssh}
  network:Subnet:
    <<: *rg
    virtualNetworkName: network
    subnetName: nodes
    addressPrefix: 10.0.0.0/24
    natGateway: *ref
    serviceEndpoints: [{service: Microsoft.Storage}]
  network:VirtualNetwork:
    <<: *at
    addressSpace: {addressPrefixes: [10.0.0.0/16]}
    subnets: [{name: nodes, addressPrefix: 10.0.0.0/24, networkSecurityGroup: *ref, delegations: [{name: d, serviceName: x}]}]
  resources:ResourceGroup: *at
  applicationinsights:Component:
    {<<: *at, resourceName: appi, kind: other, applicationType: other, disableLocalAuth: true, workspaceResourceId: *id}
  operationalinsights:Workspace:
    <<: *at
    workspaceName: logs
    sku: {name: PerGB2018}
    retentionInDays: 90
    workspaceCapping: {dailyQuotaGb: 1.5}
    features: {disableLocalAuth: true, enableLogAccessUsingOnlyResourcePermissions: true}
  storage:BlobContainer: {<<: *rg, accountName: account, containerName: checkpoints, publicAccess: None}
  storage:BlobServiceProperties:
    {<<: *rg, accountName: account, blobServicesName: default, deleteRetentionPolicy: {enabled: true, days: 7}}
  storage:FileServiceProperties:
    {<<: *rg, accountName: account, fileServicesName: default, protocolSettings: {smb: {versions: SMB3.1.1}}}
  storage:FileShare: {<<: *rg, accountName: account, shareName: files, enabledProtocols: NFS, rootSquash: NoRootSquash, shareQuota: 100}
  storage:ManagementPolicy:
    <<: *rg
    accountName: account
    managementPolicyName: default
    policy:
      rules:
        - name: old
          type: Lifecycle
          definition:
            actions: {baseBlob: {delete: {daysAfterModificationGreaterThan: 30}}}
            filters: {blobTypes: [blockBlob], prefixMatch: [checkpoints/]}
  storage:StorageAccount:
    <<: *at
    accountName: account
    kind: StorageV2
    sku: {name: Standard_LRS}
    enableHttpsTrafficOnly: true
    enableNfsV3: true
    identity: *identity
    networkRuleSet:
      bypass: AzureServices, Metrics
      defaultAction: Deny
      ipRules: [{iPAddressOrRange: 1.2.3.4}]
      virtualNetworkRules: [{virtualNetworkResourceId: *id}]
    encryption:
      keySource: Microsoft.Keyvault
      encryptionIdentity: {encryptionUserAssignedIdentity: *id}
      keyVaultProperties: {keyName: k, keyVaultUri: u, keyVersion: v}
""")["good"]
FREE = {"identityProfile", "nodeLabels", "notifications", "tags"}
"""Maps: their keys are the user's."""


def _problems(kind: str, inputs: dict[str, Any]) -> list[str]:
    return arm.problems(f"azure-native:{kind}", inputs)


def _objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where the objects are whose keys Azure lists."""
    if isinstance(value, dict):
        yield from [path] if not path or path[-1] not in FREE else []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _objects(item, (*path, key))


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if not isinstance(value, dict | list):
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _leaves(item, (*path, key))


def test_every_covered_class_has_a_good_body() -> None:
    assert BODIES.keys() == arm.RESOURCES.keys() | set(arm.INPUT_TYPES_ONLY)


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize("kind", BODIES)
def test_good_body_passes(kind: str) -> None:
    assert _problems(kind, BODIES[kind]) == []


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize("kind", BODIES)
def test_unknown_key_is_reported_at_every_depth(kind: str) -> None:
    for path in _objects(BODIES[kind]):
        at = (*path, "bogus")
        assert any(line.startswith(f"{_dotted(at)} = 1: unknown key; allowed: ") for line in _problems(kind, _with(BODIES[kind], at, 1))), (
            at
        )


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize("kind", BODIES)
def test_wrong_type_is_reported_at_every_leaf(kind: str) -> None:
    for path in _leaves(BODIES[kind]):
        found = _problems(kind, _with(BODIES[kind], path, {"wrong": "type"}))
        assert any(line.startswith(f"{_dotted(path)} = {{'wrong': 'type'}}: ") for line in found), path


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize("kind", arm.RESOURCES)
def test_only_names_and_scopes_are_taken_for_the_address(kind: str) -> None:
    """A key that azure-native renames, and RENAMED misses, would hide here."""
    assert {key for key in arm.path_parameters(kind) if not key.endswith("Name")} <= {"expand", "resourceUri", "scope"}
    assert arm.RESOURCES[kind][2] in arm.path_parameters(kind) | {"name"}


BAD = [
    ("compute:VirtualMachine", ("hardwareProfile", "vmSize"), "NC40", "hardwareProfile.vmSize = 'NC40': must keep to pattern"),
    ("consumption:Budget", ("notifications", "at80", "threshold"), 2000, "notifications.at80.threshold = 2000: must keep to maximum 1000"),
    ("monitor:DataCollectionRule", ("dataFlows", 0, "streams"), ["Perf"], "dataFlows[0].streams[0] = 'Perf': must keep to pattern"),
    ("network:Subnet", ("etag",), "x", "etag = 'x': unknown key; allowed: addressPrefix, "),
    ("storage:StorageAccount", ("networkRuleSet", "bypass"), "All", "networkAcls.bypass = 'All': must keep to pattern"),
    ("compute:VirtualMachine", ("priority",), "Cheap", "priority = 'Cheap': allowed: Regular, Low, Spot"),
    ("compute:VirtualMachine", ("storageProfile", "osDisk", "createOption"), GONE, "storageProfile.osDisk.createOption is missing"),
    ("containerregistry:Registry", ("registryName",), "a-b", "registryName = 'a-b': must keep to pattern"),
    ("containerregistry:Registry", ("networkRuleSet", "ipRules", 0), {"value": "1.2.3.4"}, "networkRuleSet.ipRules[0].value = "),
    ("containerservice:AgentPool", ("agentPoolName",), "GPU", "agentPoolName = 'GPU': must keep to pattern '^[a-z][a-z0-9]{0,11}$'"),
    ("containerservice:AgentPool", ("scaleSetPriority",), "Cheap", "scaleSetPriority = 'Cheap': allowed: Spot, Regular"),
    ("containerservice:AgentPool", ("count",), "2", "count = '2': must keep to type 'integer'"),
    ("containerservice:AgentPool", ("resourceName",), GONE, "resourceName is missing"),
    ("containerservice:AgentPool", ("properties",), {"count": 1}, "properties = {'count': 1}: unknown key"),
    ("containerservice:ManagedCluster", ("agentPoolProfiles", 0, "name"), GONE, "agentPoolProfiles[0].name is missing"),
    ("containerservice:ManagedCluster", ("networkProfile", "podCidr"), "[any]", "networkProfile.podCidr = '[any]': must keep to pattern"),
    ("containerservice:ManagedCluster", ("oidcIssuerProfile",), "[any]", "oidcIssuerProfile = '[any]': must keep to type 'object'"),
    ("containerservice:ManagedCluster", ("autoScalerProfile", "expander"), "luck", "autoScalerProfile.expander = 'luck': allowed: "),
    ("containerservice:ManagedCluster", ("identity", "type"), "Mine", "identity.type = 'Mine': allowed: "),
    ("managedidentity:FederatedIdentityCredential", ("issuer",), GONE, "issuer is missing"),
    ("network:NetworkSecurityGroup", ("securityRules", 0, "access"), "Maybe", "securityRules[0].access = 'Maybe': allowed: Allow, Deny"),
    ("network:NetworkSecurityGroup", ("securityRules", 0, "priority"), GONE, "securityRules[0].priority is missing"),
    ("network:NetworkSecurityGroup", ("securityRules", 0, "priority"), 1.5, "securityRules[0].priority = 1.5: must keep to type 'integer'"),
    ("resources:ResourceGroup", ("location",), GONE, "location is missing"),
    ("storage:BlobContainer", ("containerName",), "x", "containerName = 'x': must keep to minLength 3"),
    ("storage:BlobServiceProperties", ("blobServicesName",), "other", "blobServicesName = 'parent/other': must keep to pattern"),
    ("storage:BlobServiceProperties", ("deleteRetentionPolicy", "days"), 0, "deleteRetentionPolicy.days = 0: must keep to minimum 1"),
    ("storage:BlobServiceProperties", ("deleteRetentionPolicy", "days"), 400, "deleteRetentionPolicy.days = 400: must keep to maximum 365"),
    ("storage:StorageAccount", ("accountName",), "a" * 25, f"accountName = '{'a' * 25}': must keep to maxLength 24"),
    ("storage:StorageAccount", ("sku",), GONE, "sku is missing"),
    ("storage:StorageAccount", ("networkRuleSet", "defaultAction"), GONE, "networkAcls.defaultAction is missing"),
]


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize(("kind", "path", "value", "line"), BAD, ids=lambda value: _dotted(value) if isinstance(value, tuple) else None)
def test_fault_is_reported(kind: str, path: tuple[str | int, ...], value: Any, line: str) -> None:
    found = _problems(kind, _with(BODIES[kind], path, value))
    assert any(each.startswith(line) for each in found), found


def test_unknown_class_is_a_problem() -> None:
    assert _problems("cache:Redis", {}) == ["no schema for azure-native:cache:Redis: add it to RESOURCES, and its file to shared/arm"]


def test_missing_schema_file_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm, "api_version", lambda kind: "2099-01-01")
    [line] = _problems("storage:StorageAccount", {})
    assert line.endswith("API version 2099-01-01: add 2099-01-01_Microsoft.Storage.json to shared/arm")


@arm.NEEDS_SCHEMAS
def test_secrets_are_opened_and_unknown_outputs_left_alone() -> None:
    inputs = _with(BODIES["storage:StorageAccount"], ("location",), arm.rpc.wrap_rpc_secret(7))
    assert _problems("storage:StorageAccount", inputs) == ["location = 7: must keep to type 'string'"]
    assert _problems("storage:StorageAccount", inputs | {"location": arm.Unknown()}) == []


# Kubernetes.

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
MANIFESTS = list(
    yaml.safe_load_all("""
{apiVersion: v1, kind: Namespace, metadata: {name: team}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner, namespace: team}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: team}, data: {a: b}}
---
{apiVersion: v1, kind: Secret, metadata: {name: tokens, namespace: team}, stringData: {hf: x}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: team}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: team}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: team}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tier: front}}
    spec:
      serviceAccountName: runner
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      imagePullSecrets: [{name: tokens}]
      volumes:
        - {name: scratch, emptyDir: {}}
        - {name: data, persistentVolumeClaim: {claimName: data}}
        - {name: both, projected: {sources: [{configMap: {name: settings}}, {configMap: {name: kube-root-ca.crt}}]}}
      initContainers:
        - name: prepare
          image: registry.example:5000/prepare@sha256:0000000000000000000000000000000000000000000000000000000000000000
          ports: [{containerPort: 81}]
          securityContext: &closed {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi}}
      containers:
        - name: web
          image: registry.example:5000/web:1.2
          ports: [{name: http, containerPort: 80}]
          env:
            - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: tokens, key: hf}}}
            - {name: MAX_TOKENS, value: '9'}
            - {name: MAYBE, valueFrom: {configMapKeyRef: {name: absent, key: x, optional: true}}}
          envFrom: [{configMapRef: {name: settings}}]
          readinessProbe: &probe {httpGet: {path: /, port: http}}
          livenessProbe: *probe
          securityContext: *closed
          resources: {requests: {cpu: 1, memory: 1Gi, nvidia.com/gpu: 1}, limits: {memory: 1Gi, nvidia.com/gpu: 1}}
""")
)
SERVICE, DEPLOYMENT = MANIFESTS[-2:]
TEMPLATE = ("spec", "template", "spec")
WEB, PREPARE = (*TEMPLATE, "containers", 0), (*TEMPLATE, "initContainers", 0)


@pytest.mark.parametrize("version", kube.VERSIONS)
def test_good_manifests_pass_the_schemas(version: str) -> None:
    assert [line for manifest in MANIFESTS for line in kube.schema_problems(manifest, version)] == []


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("bogus",), 1, "manifest: Additional properties are not allowed ('bogus' was unexpected); allowed: apiVersion, kind, metadata"),
        (
            (*WEB, "bogus"),
            1,
            "spec.template.spec.containers[0]: Additional properties are not allowed ('bogus' was unexpected); allowed: args",
        ),
        (
            (*WEB, "ports", 0, "containerPort"),
            "80",
            "spec.template.spec.containers[0].ports[0].containerPort = '80': must keep to type 'integer'",
        ),
        (("spec", "selector"), GONE, "spec: 'selector' is a required property"),
        ((*WEB, "name"), GONE, "spec.template.spec.containers[0]: 'name' is a required property"),
        (("spec", "replicas"), 1.5, "spec.replicas = 1.5: must keep to type"),
        (("kind",), "deployment", "kind = 'deployment': must keep to enum ['Deployment']"),
        (("apiVersion",), "apps/v2", "Kubernetes 1.35 has no Deployment in apps/v2; a custom resource's group belongs in CUSTOM_GROUPS"),
        (("apiVersion",), "apps.example/v1", "apiVersion = 'apps.example/v1': must keep to enum ['apps/v1']"),
    ],
)
def test_schema_fault_is_reported(path: tuple[str | int, ...], value: Any, line: str) -> None:
    found = kube.schema_problems(_with(DEPLOYMENT, path, value), "1.35")
    assert any(each.split("/web: ")[1].startswith(line) for each in found), found


def test_custom_resources_are_left_to_their_operators_if_we_know_them() -> None:
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ClusterQueue", "metadata": {"name": "q"}}
    assert kube.schema_problems(queue, "1.35") == []
    [line] = kube.schema_problems(queue | {"apiVersion": "example.com/v1"}, "1.35")
    assert line.startswith("ClusterQueue/q: Kubernetes 1.35 has no ClusterQueue in example.com/v1")


def test_version_that_aks_has_not_is_a_problem() -> None:
    assert kube.schema_problems(NAMESPACE, "1.30") == ["version 1.30: allowed: 1.34, 1.35, 1.36"]


def test_linters_are_silent_on_good_manifests() -> None:
    assert [line for manifest in MANIFESTS for line in kube.lint(manifest)] == []
    assert kube.lint_all(MANIFESTS) == []


LINTED = [
    ("web: run-as-non-root", (*TEMPLATE, "securityContext", "runAsNonRoot"), GONE),
    ("web: run-as-non-root", (*WEB, "securityContext", "runAsNonRoot"), False),
    ("web: run-as-non-root", (*WEB, "securityContext", "runAsUser"), 0),
    ("web: read-only-root", (*WEB, "securityContext", "readOnlyRootFilesystem"), GONE),
    ("web: privilege-escalation", (*WEB, "securityContext", "allowPrivilegeEscalation"), GONE),
    ("web: privileged", (*WEB, "securityContext", "privileged"), True),
    ("web: drop-capabilities", (*WEB, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}),
    ("web: add-capabilities", (*WEB, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ("prepare: read-only-root", (*PREPARE, "securityContext"), GONE),
    ("web: seccomp", (*TEMPLATE, "securityContext", "seccompProfile"), GONE),
    ("web: seccomp", (*WEB, "securityContext", "seccompProfile"), {"type": "Unconfined"}),
    ("pod: host-namespaces", (*TEMPLATE, "hostNetwork"), True),
    ("pod: host-namespaces", (*TEMPLATE, "hostPID"), True),
    ("pod: host-namespaces", (*TEMPLATE, "hostIPC"), True),
    ("pod: host-path", (*TEMPLATE, "volumes", 0), {"name": "scratch", "hostPath": {"path": "/"}}),
    ("pod: service-account-token", (*TEMPLATE, "serviceAccountName"), GONE),
    ("pod: service-account-token", (*TEMPLATE, "serviceAccountName"), "default"),
    ("web: resources", (*WEB, "resources", "requests", "cpu"), GONE),
    ("web: resources", (*WEB, "resources", "requests", "memory"), GONE),
    ("web: resources", (*WEB, "resources", "limits", "memory"), GONE),
    ("prepare: resources", (*PREPARE, "resources"), GONE),
    ("web: gpu", (*WEB, "resources", "limits", "nvidia.com/gpu"), 2),
    ("web: gpu", (*WEB, "resources", "limits", "nvidia.com/gpu"), GONE),
    ("web: image", (*WEB, "image"), "registry.example:5000/web"),
    ("web: image", (*WEB, "image"), "web:latest"),
    ("web: image", (*WEB, "image"), "web:stable"),
    ("web: image", (*WEB, "image"), "web:1.2@sha256:0"),
    ("web: plain-secret", (*WEB, "env", 0), {"name": "HF_TOKEN", "value": "hf_x"}),
    ("web: plain-secret", (*WEB, "env", 0), {"name": "ACCOUNT_KEY", "value": "x"}),
    ("web: plain-secret", (*WEB, "env", 0), {"name": "DB_PASSWORD_OLD", "value": "x"}),
    ("web: plain-secret", (*WEB, "env", 0), {"name": "clientSecret", "value": "x"}),
    ("web: readiness", (*WEB, "readinessProbe"), GONE),
    ("web: liveness", (*WEB, "livenessProbe"), GONE),
    ("prepare: readiness", (*PREPARE, "restartPolicy"), "Always"),
    ("-: selector", ("spec", "template", "metadata", "labels", "app"), "other"),
]


@pytest.mark.parametrize(("rule", "path", "value"), LINTED)
def test_rule_fires(rule: str, path: tuple[str | int, ...], value: Any) -> None:
    found = kube.lint(_with(DEPLOYMENT, path, value))
    assert any(line.startswith(f"Deployment/web: {rule}: ") for line in found), found


def test_service_without_selector_is_found() -> None:
    assert kube.lint(_with(SERVICE, ("spec", "selector"), GONE)) == ["Service/web: -: selector: name the labels of the pods that answer"]
    assert kube.lint(SERVICE | {"spec": {"type": "ExternalName", "externalName": "example.com"}}) == []


@pytest.mark.parametrize("kind", ["CronJob", "DaemonSet", "Deployment", "Job", "Pod", "StatefulSet"])
def test_every_workload_is_looked_into(kind: str) -> None:
    template = _with(DEPLOYMENT, (*WEB, "securityContext"), {"privileged": True})["spec"]["template"]
    spec = {"template": template, "selector": DEPLOYMENT["spec"]["selector"]}
    manifest = {"kind": kind, "metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": spec}} if kind == "CronJob" else spec}
    found = kube.lint(manifest | template if kind == "Pod" else manifest)
    assert f"{kind}/{'None' if kind == 'Pod' else 'x'}: web: privileged: remove privileged" in found


def test_what_ends_needs_no_probes() -> None:
    template = _with(DEPLOYMENT, (*WEB, "readinessProbe"), GONE)["spec"]["template"]
    assert kube.lint({"kind": "Job", "metadata": {"name": "x"}, "spec": {"template": template}}) == []


@pytest.mark.parametrize(
    ("dropped", "line"),
    [
        ("Namespace", "ConfigMap/settings: -: namespace: render Namespace 'team', or use one that is"),
        ("ServiceAccount", "Deployment/web: pod: reference: render ServiceAccount runner in namespace team"),
        ("ConfigMap", "Deployment/web: pod: reference: render ConfigMap settings in namespace team"),
        ("ConfigMap", "Deployment/web: web: reference: render ConfigMap settings in namespace team"),
        ("Secret", "Deployment/web: pod: reference: render Secret tokens in namespace team"),
        ("Secret", "Deployment/web: web: reference: render Secret tokens in namespace team"),
        ("PersistentVolumeClaim", "Deployment/web: pod: reference: render PersistentVolumeClaim data in namespace team"),
        ("Deployment", "Service/web: -: selector: no pod template of the namespace has all of {'app': 'web'}"),
    ],
)
def test_reference_that_leads_nowhere_is_found(dropped: str, line: str) -> None:
    assert line in kube.lint_all([manifest for manifest in MANIFESTS if manifest["kind"] != dropped])


def test_other_namespace_does_not_help() -> None:
    moved = [_with(each, ("metadata", "namespace"), "kube-system") if each["kind"] == "ServiceAccount" else each for each in MANIFESTS]
    assert kube.lint_all(moved) == ["Deployment/web: pod: reference: render ServiceAccount runner in namespace team"]


def test_namespace_is_said_and_names_are_given_once() -> None:
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bare"}}
    assert kube.lint_all([bare]) == ["ConfigMap/bare: -: namespace: set metadata.namespace"]
    assert kube.lint_all([NAMESPACE, NAMESPACE]) == ["Namespace/team: -: duplicate: cluster has 2 of them"]
    assert kube.lint_all([_with(bare, ("metadata", "namespace"), "kube-system")]) == []
