"""What watches the jobs, in the cluster: Pushgateway, Prometheus, and an MLflow server with an identity of its own.

All three run on the system pool, keep their data on a disk, and are reached from the jobs' namespaces alone.
"""

from dataclasses import dataclass
from typing import Any

import pulumi
import yaml

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.gpu_agents import DCGM_PORT
from ncdemo.infra.gpu_agents import NAMESPACE as GPU_NAMESPACE
from ncdemo.spec.run_folder import MLFLOW
from ncdemo.spec.services import Monitoring as MonitoringSpec

NAMESPACE = "monitoring"
PUSHGATEWAY, PUSHGATEWAY_PORT = "docker.io/prom/pushgateway:v1.11.3", 9091
PROMETHEUS, PROMETHEUS_PORT = "docker.io/prom/prometheus:v3.15.0", 9090
PUSHGATEWAY_URI = f"http://pushgateway.{NAMESPACE}.svc:{PUSHGATEWAY_PORT}"
MLFLOW_PORT = 5000
MLFLOW_URI = f"http://mlflow.{NAMESPACE}.svc:{MLFLOW_PORT}"
MLFLOW_ACCOUNT = "mlflow"
DATA = "/data"


@dataclass(frozen=True)
class MonitoringArgs:
    spec: MonitoringSpec
    provider: pulumi.ProviderResource
    mlflow_image: pulumi.Input[str]
    account: pulumi.Input[str] | None
    """Storage account of MLflow's artifacts; None: they lie on its disk."""
    client_id: pulumi.Input[str] | None
    """MLflow's own Azure identity."""
    own_cluster: bool
    """On AKS: the system pool runs them, and GPU nodes have a DCGM exporter to scrape."""
    storage_class: str | None = None


class Monitoring(Component):
    """Three servers, their configuration, disks, services and who may reach them."""

    KIND = "monitoring"

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self._args = args
        space = m.apply(self, "namespace", m.namespace(NAMESPACE), args.provider)
        self._within = pulumi.ResourceOptions(depends_on=[space])
        jobs = [{"namespaceSelector": {"matchLabels": {"ncdemo.io/jobs": "true"}}}, {"podSelector": {}}]
        self._add("allow", m.allow_from("jobs-and-each-other", NAMESPACE, jobs, [PUSHGATEWAY_PORT, PROMETHEUS_PORT, MLFLOW_PORT]))
        self._add("account", m.service_account("metrics", NAMESPACE, None))
        self._add("mlflow-account", m.service_account(MLFLOW_ACCOUNT, NAMESPACE, args.client_id))
        self._add("config", prometheus_config(dcgm=args.own_cluster))
        self._server("pushgateway", pushgateway(), PUSHGATEWAY_PORT, gib=2)
        self._server("prometheus", prometheus(args.spec), PROMETHEUS_PORT, gib=args.spec.volume_gib)
        self._server("mlflow", mlflow(args.mlflow_image, args.account), MLFLOW_PORT, gib=args.spec.volume_gib, account=MLFLOW_ACCOUNT)
        self.done()

    def _add(self, part: str, manifest: m.Manifest) -> None:
        m.apply(self, part, manifest, self._args.provider, self._within)

    def _server(self, name: str, container: m.Manifest, port: int, *, gib: int, account: str = "metrics") -> None:
        """Add a StatefulSet of one with a disk, and its service."""
        self._add(name, stateful_set(name, container, port, gib, account, self._args))
        self._add(f"{name}-service", m.service(name, NAMESPACE, {"http": port}))


def stateful_set(name: str, container: m.Manifest, port: int, gib: int, account: str, args: MonitoringArgs) -> m.Manifest:
    """Return one server with its disk at /data."""
    own = {"app.kubernetes.io/name": name}
    identity = account == MLFLOW_ACCOUNT and args.client_id is not None
    full = {
        **container,
        "name": name,
        "imagePullPolicy": m.PULL,
        "ports": [{"name": "http", "containerPort": port}],
        "securityContext": m.RESTRICTED,
        "volumeMounts": [{"name": "data", "mountPath": DATA}, {"name": "tmp", "mountPath": "/tmp"}, *container.get("volumeMounts", [])],
    }
    pod = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": m.POD_SECURITY,
        **(m.ON_SYSTEM_POOL if args.own_cluster else {}),
        "containers": [full],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, *VOLUMES.get(name, [])],
    }
    spec = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": own},
        "template": {"metadata": {"labels": {**own, **({"azure.workload.identity/use": "true"} if identity else {})}}, "spec": pod},
        "volumeClaimTemplates": [m.claim("data", NAMESPACE, gib, storage_class=args.storage_class)],
    }
    # The image of MLflow is built after the first `pulumi up`, which must not wait for it.
    metadata = m.meta(name, NAMESPACE, annotations={"pulumi.com/skipAwait": "true"})
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


VOLUMES = {"prometheus": [{"name": "config", "configMap": {"name": "prometheus"}}]}


def pushgateway() -> m.Manifest:
    return {
        "image": PUSHGATEWAY,
        "args": [f"--web.listen-address=:{PUSHGATEWAY_PORT}", f"--persistence.file={DATA}/metrics"],
        "readinessProbe": m.http_probe("/-/ready", PUSHGATEWAY_PORT),
        "livenessProbe": m.http_probe("/-/healthy", PUSHGATEWAY_PORT),
        "resources": m.sized("100m", "256Mi"),
    }


def prometheus(spec: MonitoringSpec) -> m.Manifest:
    """Return Prometheus; its disk never fills, as it also forgets by size."""
    size = f"{int(spec.volume_gib * 0.8)}GB"
    args = [
        "--config.file=/etc/prometheus/prometheus.yml",
        f"--storage.tsdb.path={DATA}",
        f"--storage.tsdb.retention.time={spec.metrics_days}d",
        f"--storage.tsdb.retention.size={size}",
        f"--web.listen-address=:{PROMETHEUS_PORT}",
    ]
    return {
        "image": PROMETHEUS,
        "args": args,
        "readinessProbe": m.http_probe("/-/ready", PROMETHEUS_PORT),
        "livenessProbe": m.http_probe("/-/healthy", PROMETHEUS_PORT, failureThreshold=6),
        "resources": m.sized("500m", "2Gi"),
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus", "readOnly": True}],
    }


def prometheus_config(*, dcgm: bool) -> m.Manifest:
    """Return what Prometheus scrapes. DCGM's exporters are found by DNS, so it needs no rights in the cluster."""
    static = [{"targets": [f"pushgateway.{NAMESPACE}.svc:{PUSHGATEWAY_PORT}"]}]
    # honor_labels: a pushed metric keeps the job and instance that pushed it.
    scrapes: list[dict[str, Any]] = [{"job_name": "pushgateway", "honor_labels": True, "static_configs": static}]
    if dcgm:
        names = [f"dcgm-exporter.{GPU_NAMESPACE}.svc.cluster.local"]
        scrapes.append({"job_name": "dcgm", "dns_sd_configs": [{"names": names, "type": "A", "port": DCGM_PORT}]})
    text = yaml.safe_dump({"global": {"scrape_interval": "15s"}, "scrape_configs": scrapes}, sort_keys=False)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("prometheus", NAMESPACE), "data": {"prometheus.yml": text}}


def mlflow(image: pulumi.Input[str], account: pulumi.Input[str] | None) -> m.Manifest:
    """Return the tracking server: SQLite on its disk, artifacts in Blob under its own identity, clients need neither."""
    blob = pulumi.Output.concat("wasbs://", MLFLOW, "@", account, ".blob.core.windows.net/artifacts") if account is not None else None
    hosts = f"mlflow.{NAMESPACE}.svc:{MLFLOW_PORT},mlflow:{MLFLOW_PORT},localhost:*,127.0.0.1:*"
    command = ["mlflow", "server", "--host", "0.0.0.0", "--port", str(MLFLOW_PORT), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{DATA}/mlflow.db", "--serve-artifacts", "--allowed-hosts", hosts]
    return {
        "image": image,
        "command": [*command, "--artifacts-destination", blob if blob is not None else f"{DATA}/artifacts"],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "readinessProbe": m.http_probe("/health", MLFLOW_PORT, periodSeconds=10, failureThreshold=6),
        "livenessProbe": m.http_probe("/health", MLFLOW_PORT, initialDelaySeconds=60, periodSeconds=30, failureThreshold=5),
        "resources": m.sized("500m", "2Gi"),
    }
