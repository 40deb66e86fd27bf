"""Kubernetes manifests as plain data, and how they become resources: what is rendered is what is applied.

apply(component, "server", deployment("mlflow", ...), provider)
"""

import re
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from ncdemo.infra.component import Component
from ncdemo.infra.gpu_pool import POOL_LABEL

Manifest = dict[str, Any]
USER_ID = 10001
"""Who runs in every container of ours; the image has this user."""
KINDS: dict[tuple[str, str], Any] = {
    ("v1", "Namespace"): k8s.core.v1.Namespace,
    ("v1", "ServiceAccount"): k8s.core.v1.ServiceAccount,
    ("v1", "ConfigMap"): k8s.core.v1.ConfigMap,
    ("v1", "Secret"): k8s.core.v1.Secret,
    ("v1", "Service"): k8s.core.v1.Service,
    ("v1", "PersistentVolume"): k8s.core.v1.PersistentVolume,
    ("v1", "PersistentVolumeClaim"): k8s.core.v1.PersistentVolumeClaim,
    ("apps/v1", "DaemonSet"): k8s.apps.v1.DaemonSet,
    ("apps/v1", "Deployment"): k8s.apps.v1.Deployment,
    ("apps/v1", "StatefulSet"): k8s.apps.v1.StatefulSet,
    ("batch/v1", "Job"): k8s.batch.v1.Job,
    ("rbac.authorization.k8s.io/v1", "Role"): k8s.rbac.v1.Role,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): k8s.rbac.v1.RoleBinding,
    ("networking.k8s.io/v1", "NetworkPolicy"): k8s.networking.v1.NetworkPolicy,
}
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
PULL = "Always"
"""A version tag that was pushed again is not taken from a node's cache; what is there isn't transferred twice."""
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    # Without it, a large volume's files are all chowned at each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
ON_SYSTEM_POOL = {
    "nodeSelector": {POOL_LABEL: "system"},
    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists", "effect": "NoSchedule"}],
}


def apply(
    component: Component, part: str, manifest: Manifest, provider: pulumi.ProviderResource, options: pulumi.ResourceOptions | None = None
) -> pulumi.Resource:
    """Make a child of a manifest."""
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    merged = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(provider=provider), options)
    kind = KINDS.get((manifest["apiVersion"], manifest["kind"]))
    if kind is None:
        made: pulumi.Resource = component.make(
            k8s.apiextensions.CustomResource, part, api_version=manifest["apiVersion"], kind=manifest["kind"], options=merged, **body
        )
        return made
    snake = {re.sub(r"(?=[A-Z])", "_", key).lower(): value for key, value in body.items()}
    made = component.make(kind, part, options=merged, **snake)
    return made


def meta(name: str, namespace: str | None, labels: dict[str, str] | None = None, annotations: dict[str, Any] | None = None) -> Manifest:
    """Return metadata; without a namespace for what has none."""
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": {"app.kubernetes.io/part-of": "ncdemo", **(labels or {"app.kubernetes.io/name": name})},
        **({"annotations": annotations} if annotations else {}),
    }


def namespace(name: str, *, level: str = "restricted", labels: dict[str, str] | None = None) -> Manifest:
    """Return a namespace that enforces a pod security level."""
    security = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": meta(name, None, {"app.kubernetes.io/name": name, **security, **(labels or {})}),
    }


def service(
    name: str, namespace: str, ports: dict[str, int], *, headless: bool = False, selector: dict[str, str] | None = None
) -> Manifest:
    """Return a Service; a headless one names its pods also before they are ready."""
    spec: Manifest = {
        "selector": selector or {"app.kubernetes.io/name": name},
        "ports": [{"name": n, "port": port, "targetPort": port, "protocol": "TCP"} for n, port in ports.items()],
    }
    spec |= {"clusterIP": "None", "publishNotReadyAddresses": True} if headless else {"type": "ClusterIP"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, namespace), "spec": spec}


def service_account(name: str, namespace: str, client_id: pulumi.Input[str] | None) -> Manifest:
    """Return a ServiceAccount; with a client id it acts as that Azure identity."""
    account = meta(name, namespace, annotations={"azure.workload.identity/client-id": client_id} if client_id else None)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account, "automountServiceAccountToken": False}


def claim(name: str, namespace: str, gib: int, *, storage_class: str | None, mode: str = "ReadWriteOnce") -> Manifest:
    """Return a volume claim; no storage class is the cluster's default."""
    spec: Manifest = {"accessModes": [mode], "resources": {"requests": {"storage": f"{gib}Gi"}}}
    spec |= {"storageClassName": storage_class} if storage_class else {}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name, namespace), "spec": spec}


def sized(cpu: str, memory: str, **more: str) -> Manifest:
    """Return equal requests and limits."""
    amounts = {"cpu": cpu, "memory": memory, **{key.replace("_", "-"): value for key, value in more.items()}}
    return {"requests": amounts, "limits": amounts}


def http_probe(path: str, port: int, **more: int) -> Manifest:
    return {"httpGet": {"path": path, "port": port}, **more}


def role(name: str, namespace: str, resources: list[str], verbs: list[str]) -> Manifest:
    """Return a Role: what may be done with these resources of the core API, in this namespace alone."""
    rules = [{"apiGroups": [""], "resources": resources, "verbs": verbs}]
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta(name, namespace), "rules": rules}


def role_binding(name: str, namespace: str, account: str, account_namespace: str) -> Manifest:
    """Return the binding that gives the Role of this name to a service account, which may be of another namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": meta(name, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }


def in_namespace(name: str, pods: dict[str, str] | None = None) -> Manifest:
    """Return pods of another namespace as the source of a NetworkPolicy: all, or those with these labels."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        **({"podSelector": {"matchLabels": pods}} if pods else {}),
    }


def allow_from(
    name: str, namespace: str, sources: list[Manifest], ports: Sequence[int | str], pods: dict[str, str] | None = None
) -> Manifest:
    """Return a NetworkPolicy: these pods (none: all) are reached from these sources alone, on these ports (none: all)."""
    rule: Manifest = {"from": sources, **({"ports": [{"protocol": "TCP", "port": port} for port in ports]} if ports else {})}
    spec = {"podSelector": {"matchLabels": pods} if pods else {}, "policyTypes": ["Ingress"], "ingress": [rule]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta(name, namespace), "spec": spec}
