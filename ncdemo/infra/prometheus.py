"""Prometheus in the cluster: what it scrapes, which rules it evaluates, and the container; beside it the Pushgateway.

prometheus_config(rule_files(spec), "monitoring", dcgm=True)["data"]["prometheus.yml"]
"""

from collections.abc import Mapping, Sequence

import yaml

from ncdemo.infra import manifests as m
from ncdemo.infra import scrapes
from ncdemo.infra.alert_rules import EVALUATION_S
from ncdemo.spec.services import Monitoring as MonitoringSpec

PUSHGATEWAY, PUSHGATEWAY_PORT = "docker.io/prom/pushgateway:v1.11.3", 9091
PROMETHEUS, PROMETHEUS_PORT = "docker.io/prom/prometheus:v3.15.0", 9090
CONFIG = "/etc/prometheus"
ACCOUNT = "prometheus"
"""Its own, where it may look for the pods of runs."""


def pushgateway(data: str) -> m.Manifest:
    return {
        "image": PUSHGATEWAY,
        "args": [f"--web.listen-address=:{PUSHGATEWAY_PORT}", f"--persistence.file={data}/metrics"],
        "readinessProbe": m.http_probe("/-/ready", PUSHGATEWAY_PORT),
        "livenessProbe": m.http_probe("/-/healthy", PUSHGATEWAY_PORT),
        "resources": m.sized("100m", "256Mi"),
    }


def prometheus(spec: MonitoringSpec, data: str) -> m.Manifest:
    """Return Prometheus; its disk never fills, as it also forgets by size."""
    size = f"{int(spec.volume_gib * 0.8)}GB"
    args = [
        f"--config.file={CONFIG}/prometheus.yml",
        f"--storage.tsdb.path={data}",
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
        "volumeMounts": [{"name": "config", "mountPath": CONFIG, "readOnly": True}],
    }


def prometheus_config(
    rules: Mapping[str, str], namespace: str, *, dcgm: bool, runs: Sequence[str] = (), alerts: str | None = None
) -> m.Manifest:
    """Return what Prometheus reads; `runs` are the namespaces of the jobs that it scrapes, which alone takes rights in the cluster.

    `alerts` is Alertmanager's host:port; None: nobody is told.
    """
    jobs = [scrapes.pushgateway(f"pushgateway.{namespace}.svc:{PUSHGATEWAY_PORT}")]
    jobs += [scrapes.dcgm_by_name()] if dcgm else []
    jobs += [scrapes.runs(runs)] if runs else []
    every = {"scrape_interval": "15s", "evaluation_interval": f"{EVALUATION_S}s"}
    manager = {"alerting": {"alertmanagers": [{"static_configs": [{"targets": [alerts]}]}]}} if alerts else {}
    config = {"global": every, **manager, "rule_files": [f"{CONFIG}/*.rules.yml"], "scrape_configs": jobs}
    data = {"prometheus.yml": yaml.safe_dump(config, sort_keys=False), **rules}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("prometheus", namespace), "data": data}
