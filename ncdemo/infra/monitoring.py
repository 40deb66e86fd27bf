"""What watches the jobs, in the cluster: Pushgateway, Prometheus, Alertmanager, an MLflow server with an identity of its own, and Grafana.

All run on the system pool and have no public address. Jobs reach Pushgateway, Prometheus and MLflow; Grafana is reached by kubectl port-forward alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from ncdemo.infra import alertmanager as a
from ncdemo.infra import grafana as g
from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.job_namespace import secret
from ncdemo.infra.prometheus import ACCOUNT, PROMETHEUS_PORT, PUSHGATEWAY_PORT, prometheus, prometheus_config, pushgateway
from ncdemo.spec.run_folder import MLFLOW
from ncdemo.spec.services import Monitoring as MonitoringSpec

NAMESPACE = "monitoring"
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
    rules: Mapping[str, str]
    """Prometheus' rule files: name -> text."""
    runs: tuple[str, ...] = ()
    """Namespaces of jobs that Prometheus scrapes while they run."""
    webhook: pulumi.Input[str] | None = None
    """Address that is told of alerts; None: nobody is."""
    storage_class: str | None = None


@dataclass(frozen=True)
class Server:
    """One of them: a pod with /data, and its service."""

    name: str
    container: m.Manifest
    port: int
    gib: int | None
    """Disk at /data; None: what it writes there may go with the pod."""
    account: str = "metrics"
    volumes: tuple[m.Manifest, ...] = ()
    configs: tuple[m.Manifest, ...] = ()
    """ConfigMaps that it reads at its start: when they change, it starts again."""


class Monitoring(Component):
    """The servers, their configuration, disks, services and who may reach them."""

    KIND = "monitoring"

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self._args = args
        space = m.apply(self, "namespace", m.namespace(NAMESPACE), args.provider)
        self._within = pulumi.ResourceOptions(depends_on=[space])
        jobs: list[dict[str, Any]] = [{"namespaceSelector": {"matchLabels": {"ncdemo.io/jobs": "true"}}}, {"podSelector": {}}]
        self._add("allow", m.allow_from("jobs-and-each-other", NAMESPACE, jobs, [PUSHGATEWAY_PORT, PROMETHEUS_PORT, MLFLOW_PORT]))
        if args.own_cluster and args.spec.azure_monitor:
            gateway = {"app.kubernetes.io/name": "pushgateway"}
            # The add-on of Azure's managed Prometheus runs there.
            add_on = [m.in_namespace("kube-system")]
            self._add("allow-managed", m.allow_from("managed-prometheus", NAMESPACE, add_on, [PUSHGATEWAY_PORT], gateway))
        if args.webhook is not None:
            sender = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]
            manager = {"app.kubernetes.io/name": "alertmanager"}
            self._add("allow-alerts", m.allow_from("alerts", NAMESPACE, sender, [a.ALERTMANAGER_PORT], manager))
            self._add("webhook", secret(a.WEBHOOK_SECRET, NAMESPACE, a.WEBHOOK_KEY, args.webhook))
        self._add("account", m.service_account("metrics", NAMESPACE, None))
        if args.runs:
            self._add("prometheus-account", m.service_account(ACCOUNT, NAMESPACE, None))
        self._add("mlflow-account", m.service_account(MLFLOW_ACCOUNT, NAMESPACE, args.client_id))
        for server in servers(args):
            for config in server.configs:
                # The first one's name is older than the others.
                part = config["metadata"]["name"]
                self._add("config" if part == "prometheus" else f"{part}-config", config)
            self._add(server.name, workload(server, args))
            self._add(f"{server.name}-service", m.service(server.name, NAMESPACE, {"http": server.port}))
        self.done()

    def _add(self, part: str, manifest: m.Manifest) -> None:
        m.apply(self, part, manifest, self._args.provider, self._within)


def servers(args: MonitoringArgs) -> list[Server]:
    """Return what the spec asks for."""
    gib = args.spec.volume_gib
    alerts = f"alertmanager.{NAMESPACE}.svc:{a.ALERTMANAGER_PORT}" if args.webhook is not None else None
    config = prometheus_config(args.rules, NAMESPACE, dcgm=args.own_cluster, runs=args.runs, alerts=alerts)
    reads = ACCOUNT if args.runs else "metrics"
    volume = {"name": "config", "configMap": {"name": "prometheus"}}
    found = [
        Server("pushgateway", pushgateway(DATA), PUSHGATEWAY_PORT, 2),
        Server("prometheus", prometheus(args.spec, DATA), PROMETHEUS_PORT, gib, reads, volumes=(volume,), configs=(config,)),
        Server("mlflow", mlflow(args.mlflow_image, args.account), MLFLOW_PORT, gib, MLFLOW_ACCOUNT),
    ]
    if args.webhook is not None:
        configs = (a.alertmanager_config(NAMESPACE),)
        found.append(Server("alertmanager", a.alertmanager(DATA), a.ALERTMANAGER_PORT, None, volumes=tuple(a.volumes()), configs=configs))
    if args.spec.grafana:
        shown = (g.grafana_config(NAMESPACE), g.dashboards_config(NAMESPACE))
        found.append(Server("grafana", g.grafana(DATA), g.GRAFANA_PORT, None, volumes=tuple(g.volumes()), configs=shown))
    return found


def workload(server: Server, args: MonitoringArgs) -> m.Manifest:
    """Return a StatefulSet of one with its disk, or a Deployment of one without."""
    own = {"app.kubernetes.io/name": server.name}
    spec = {"replicas": 1, "selector": {"matchLabels": own}, "template": template(server, args)}
    # The image of MLflow is built after the first `pulumi up`, which must not wait for it.
    metadata = m.meta(server.name, NAMESPACE, annotations={"pulumi.com/skipAwait": "true"})
    if server.gib is None:
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    claim = m.claim("data", NAMESPACE, server.gib, storage_class=args.storage_class)
    spec |= {"serviceName": server.name, "volumeClaimTemplates": [claim]}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def template(server: Server, args: MonitoringArgs) -> m.Manifest:
    identity = server.account == MLFLOW_ACCOUNT and args.client_id is not None
    mounts = [{"name": "data", "mountPath": DATA}, {"name": "tmp", "mountPath": "/tmp"}]
    container = {
        **server.container,
        "name": server.name,
        "imagePullPolicy": m.PULL,
        "ports": [{"name": "http", "containerPort": server.port}],
        "securityContext": m.RESTRICTED,
        "volumeMounts": [*mounts, *server.container.get("volumeMounts", [])],
    }
    scratch = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    scratch += [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}] if server.gib is None else []
    pod = {
        "serviceAccountName": server.account,
        "automountServiceAccountToken": server.account == ACCOUNT,
        "enableServiceLinks": False,
        "securityContext": m.POD_SECURITY,
        **(m.ON_SYSTEM_POOL if args.own_cluster else {}),
        "containers": [container],
        "volumes": [*scratch, *server.volumes],
    }
    labels = {"app.kubernetes.io/name": server.name, **({"azure.workload.identity/use": "true"} if identity else {})}
    read = json.dumps([config["data"] for config in server.configs])
    annotations = {"ncdemo.io/config": hashlib.sha256(read.encode()).hexdigest()[:12]}
    return {"metadata": {"labels": labels, **({"annotations": annotations} if server.configs else {})}, "spec": pod}


def mlflow(image: pulumi.Input[str], account: pulumi.Input[str] | None) -> dict[str, Any]:
    """Return the tracking server: SQLite on its disk, artifacts in Blob under its own identity, clients need neither."""
    blob = pulumi.Output.concat("wasbs://", MLFLOW, "@", account, ".blob.core.windows.net/artifacts") if account is not None else None
    hosts = f"mlflow.{NAMESPACE}.svc:{MLFLOW_PORT},mlflow:{MLFLOW_PORT},localhost:*,127.0.0.1:*"
    command = ["mlflow", "server", "--host", "0.0.0.0", "--port", str(MLFLOW_PORT), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{DATA}/mlflow.db", "--serve-artifacts", "--allowed-hosts", hosts]
    return {
        "image": image,
        "command": [*command, "--artifacts-destination", blob if blob is not None else f"{DATA}/artifacts"],
        # What is uploaded lies on the disk until Blob has it: /tmp is small, and a pod that outgrows it is evicted.
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "TMPDIR", "value": DATA},
            {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},  # its usage statistics would go to its makers
        ],
        "readinessProbe": m.http_probe("/health", MLFLOW_PORT, periodSeconds=10, failureThreshold=6),
        "livenessProbe": m.http_probe("/health", MLFLOW_PORT, initialDelaySeconds=60, periodSeconds=30, failureThreshold=5),
        "resources": m.sized("500m", "2Gi"),
    }
