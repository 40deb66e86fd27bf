"""What a GPU node needs beside its driver: the device plugin that offers GPUs to pods, and the DCGM exporter that measures them.

AKS installs the driver; these two it leaves to us. Facts: NVIDIA/k8s-device-plugin and NVIDIA/dcgm-exporter, their own manifests.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pulumi

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.gpu_pool import GPU_LABEL

NAMESPACE = "ncdemo-gpu"
DEVICE_PLUGIN = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0@sha256:a61ba9fd8efb82f3a79f877f7580e02c1e8e7593f62473644bc9c79e315c3312"
DCGM_EXPORTER = "nvcr.io/nvidia/k8s/dcgm-exporter:4.6.1-4.8.4-distroless"
DCGM_PORT = 9400
COUNTERS = Path(__file__).parent / "dcgm_counters.csv"
COUNTERS_FOLDER = "/etc/ncdemo"


@dataclass(frozen=True)
class GpuAgentsArgs:
    provider: pulumi.ProviderResource


class GpuAgents(Component):
    """Two DaemonSets on GPU nodes; with none, they run nowhere and cost nothing."""

    KIND = "gpu-agents"

    def __init__(self, name: str, args: GpuAgentsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        # Both mount a folder of the kubelet, which only the privileged level admits.
        space = m.apply(self, "namespace", m.namespace(NAMESPACE, level="privileged"), args.provider)
        within = pulumi.ResourceOptions(depends_on=[space])
        m.apply(
            self, "device-plugin", daemon_set("device-plugin", device_plugin(), "/var/lib/kubelet/device-plugins"), args.provider, within
        )
        m.apply(self, "dcgm-counters", counters(), args.provider, within)
        exporter = daemon_set("dcgm-exporter", dcgm(), "/var/lib/kubelet/pod-resources", counters())
        m.apply(self, "dcgm", exporter, args.provider, within)
        # Azure's own Prometheus scrapes from kube-system.
        scrapers = [m.in_namespace(name) for name in ("monitoring", "kube-system")]
        m.apply(self, "policy", m.allow_from("scrapers-only", NAMESPACE, scrapers, [DCGM_PORT]), args.provider, within)
        service = m.service("dcgm-exporter", NAMESPACE, {"metrics": DCGM_PORT}, headless=True)
        service["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
        m.apply(self, "dcgm-service", service, args.provider, within)
        self.done()


def daemon_set(name: str, container: m.Manifest, kubelet_folder: str, config: m.Manifest | None = None) -> m.Manifest:
    """Return a DaemonSet on GPU nodes, with the one folder of the kubelet that it needs."""
    read = [{"name": "config", "configMap": {"name": config["metadata"]["name"]}}] if config else []
    own = {"app.kubernetes.io/name": name}
    container = {**container, "name": name, "imagePullPolicy": m.PULL}
    pod = {
        "nodeSelector": {GPU_LABEL: "true"},
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "system-node-critical",
        "automountServiceAccountToken": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "kubelet", "hostPath": {"path": kubelet_folder, "type": "Directory"}}, *read],
    }
    spec = {
        "selector": {"matchLabels": own},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {"metadata": {"labels": own}, "spec": pod},
    }
    # Waiting would be for nodes that may never come.
    metadata = m.meta(name, NAMESPACE, annotations={"pulumi.com/skipAwait": "true"})
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}


def counters() -> m.Manifest:
    """Return what the exporter exports, under a name that changes with it, so that the exporters start again."""
    text = COUNTERS.read_text(encoding="utf-8")
    name = f"dcgm-counters-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta(name, NAMESPACE), "data": {COUNTERS.name: text}}


def device_plugin() -> m.Manifest:
    return {
        "image": DEVICE_PLUGIN,
        "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "false"}],
        # The kubelet's socket belongs to root.
        "securityContext": {**m.RESTRICTED, "runAsUser": 0},
        "resources": m.sized("100m", "128Mi"),
        "volumeMounts": [{"name": "kubelet", "mountPath": "/var/lib/kubelet/device-plugins"}],
    }


def dcgm() -> m.Manifest:
    return {
        "image": DCGM_EXPORTER,
        "env": [
            {"name": "DCGM_EXPORTER_LISTEN", "value": f":{DCGM_PORT}"},
            {"name": "DCGM_EXPORTER_COLLECTORS", "value": f"{COUNTERS_FOLDER}/{COUNTERS.name}"},
            {"name": "DCGM_EXPORTER_KUBERNETES", "value": "true"},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [{"name": "metrics", "containerPort": DCGM_PORT}],
        # SYS_ADMIN is for the profiling counters: tensor core and memory activity.
        "securityContext": {**m.RESTRICTED, "runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
        "readinessProbe": m.http_probe("/health", DCGM_PORT, initialDelaySeconds=30, periodSeconds=15),
        "livenessProbe": m.http_probe("/health", DCGM_PORT, initialDelaySeconds=60, periodSeconds=30, failureThreshold=5),
        "resources": m.sized("200m", "512Mi"),
        "volumeMounts": [
            {"name": "kubelet", "mountPath": "/var/lib/kubelet/pod-resources", "readOnly": True},
            {"name": "config", "mountPath": COUNTERS_FOLDER, "readOnly": True},
        ],
    }
