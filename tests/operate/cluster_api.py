"""A whole cluster on loopback, and what Azure says of it: made of a stack's own rendered resources, with the status of one that works.

with ClusterApi() as api:
    api.apply(rendered, gpu_nodes=1)
    del api.objects["/api/v1/namespaces/ncdemo"]       # now something is missing
"""

import copy
import re
from typing import Any

from tests.operate.kube_api import KubeApi, Manifest, Refused

PLURALS = {"NetworkPolicy": "networkpolicies"}
WHOLE = ("Namespace", "PersistentVolume", "ClusterQueue", "ResourceFlavor", "Node", "MutatingWebhookConfiguration")
"""Kinds without a namespace."""
READY = [{"type": "Ready", "status": "True"}]
ACTIVE = {"conditions": [{"type": "Active", "status": "True", "reason": "Ready", "message": "Can admit new workloads"}]}
ISSUER = "https://oidc.example/here/"
CLIENT = "11111111-2222-3333-4444-555555555555"
GROUP = "resourceGroups/{}/providers/Microsoft."


class ClusterApi(KubeApi):
    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Manifest] = {"/version": {"gitVersion": "v1.35.2"}}

    def put(self, manifest: Manifest) -> str:
        """Keep an object; return its path."""
        group, kind, meta = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        space = "" if kind in WHOLE else f"/namespaces/{meta['namespace']}"
        base = f"/apis/{group}" if "/" in group else f"/api/{group}"
        path = f"{base}{space}/{PLURALS.get(kind, kind.lower() + 's')}/{meta['name']}"
        self.objects[path] = copy.deepcopy(manifest)
        return path

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if re.search(r"/(jobs|pods)(/|$)", path):
            return super().answer(method, path, query, body)
        if path in self.objects:
            return 200, self.objects[path]
        api, _, kind = path.rpartition("/")
        below = re.compile(re.escape(api).replace("/namespaces/", "/namespaces/") + rf"(?:/namespaces/[\w-]+)?/{kind}/[\w.-]+")
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        found = [
            one
            for at, one in self.objects.items()
            if below.fullmatch(at) and wanted.items() <= one.get("metadata", {}).get("labels", {}).items()
        ]
        known = kind in ("nodes", "daemonsets", "deployments", "mutatingwebhookconfigurations", "endpointslices", "clusterqueues")
        if not found and not known:
            raise Refused(404, f"the server could not find {path}")
        return 200, {"items": found}

    def node(self, name: str, labels: dict[str, str], taints: list[str] = (), gpus: int = 0, ready: bool = True) -> str:
        split = [re.fullmatch(r"(.+)=(.+):(\w+)", one).groups() for one in taints]
        status = {"conditions": [{"type": "Ready", "status": str(ready), "message": "" if ready else "kubelet stopped posting"}]}
        status |= {"allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {}, "capacity": {"nvidia.com/gpu": str(gpus)} if gpus else {}}
        spec = {"taints": [{"key": key, "value": value, "effect": effect} for key, value, effect in split]}
        return self.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status})

    def apply(self, rendered: Any, gpu_nodes: int = 0) -> None:
        """Make the cluster that a stack describes, with a node of its system pool and some of its first pool."""
        kueue = False
        for manifest in rendered.manifests():
            kind = manifest["kind"]
            if kind == "Job":
                self.create(manifest)
                continue
            if kind == "Release":
                continue
            live = copy.deepcopy(manifest)
            if kind == "DaemonSet":
                live["status"] = {"desiredNumberScheduled": gpu_nodes, "numberReady": gpu_nodes}
            elif kind in ("Deployment", "StatefulSet"):
                live["status"] = {"readyReplicas": live["spec"]["replicas"]}
            elif kind == "PersistentVolumeClaim":
                live["status"] = {"phase": "Bound"}
            elif kind in ("ClusterQueue", "LocalQueue"):
                kueue, live["status"] = True, copy.deepcopy(ACTIVE)
                # The API writes quantities its own way.
                for group in live["spec"].get("resourceGroups", []):
                    for flavor in group["flavors"]:
                        for one in flavor["resources"]:
                            one["nominalQuota"] = str(one["nominalQuota"])
            elif kind == "ServiceAccount" and live["metadata"].get("annotations"):
                live["metadata"]["annotations"]["azure.workload.identity/client-id"] = CLIENT
            self.put(live)
        if kueue:
            self.objects["/apis/kueue.x-k8s.io"] = {"versions": [{"version": "v1beta2"}, {"version": "v1beta1"}]}
            labels = {"control-plane": "controller-manager", "app.kubernetes.io/name": "kueue"}
            meta = {"name": "kueue-controller-manager", "namespace": "kueue-system", "labels": labels}
            self.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}, "status": {"readyReplicas": 1}})
        self._identity()
        self.node("aks-system-0", {"kubernetes.azure.com/agentpool": "system", "node.kubernetes.io/instance-type": "Standard_D4s_v5"})
        pool = next((one.inputs for one in rendered.of("AgentPool")), None)
        for number in range(gpu_nodes):
            own = {"kubernetes.azure.com/agentpool": pool["agentPoolName"], "node.kubernetes.io/instance-type": pool["vmSize"]}
            self.node(f"aks-gpu-{number}", own | pool["nodeLabels"], pool["nodeTaints"], gpus=1)

    def _identity(self) -> None:
        service = {"name": "azure-wi-webhook-webhook-service", "namespace": "kube-system"}
        hook = {"name": "mutation.azure-workload-identity.io", "clientConfig": {"service": service}}
        meta = {"name": "azure-wi-webhook-mutating-webhook-configuration"}
        api = "admissionregistration.k8s.io/v1"
        self.put({"apiVersion": api, "kind": "MutatingWebhookConfiguration", "metadata": meta, "webhooks": [hook]})
        meta = {"name": "wi-1", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": service["name"]}}
        ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}}
        self.put({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "endpoints": [ready]})


def azure_things(rendered: Any) -> dict[str, Any]:
    """Return what Azure answers about a stack that was made: for ArmApi.things."""
    group = GROUP.format(rendered.outputs["resource_group"])
    cluster = f"{group}ContainerService/managedClusters/{rendered.outputs['cluster']}"
    pools = [
        {
            "name": one.inputs["agentPoolName"],
            "properties": one.inputs | {"provisioningState": "Succeeded", "powerState": {"code": "Running"}},
        }
        for one in rendered.of("AgentPool")
    ]
    found: dict[str, Any] = {
        cluster: {"properties": {"powerState": {"code": "Running"}, "oidcIssuerProfile": {"enabled": True, "issuerURL": ISSUER}}},
        f"{cluster}/agentPools": {"value": copy.deepcopy(pools)},
    }
    trusts: dict[str, list[Any]] = {}
    for one in rendered.of("FederatedIdentityCredential"):
        own = {key: one.inputs[key] for key in ("subject", "audiences")} | {"issuer": ISSUER}
        trusts.setdefault(one.inputs["resourceName"], []).append({"properties": own})
    for name, listed in trusts.items():
        identity = f"{group}ManagedIdentity/userAssignedIdentities/{name}"
        found |= {identity: {"properties": {"clientId": CLIENT}}, f"{identity}/federatedIdentityCredentials": {"value": listed}}
    return found
