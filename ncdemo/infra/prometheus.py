"""Prometheus in the cluster: what it scrapes, which rules it evaluates, and the container; beside it the Pushgateway.

prometheus_config(rule_files(spec), dcgm=True)["data"]["prometheus.yml"]
"""

from collections.abc import Mapping
from typing import Any

import yaml

from ncdemo.infra import manifests as m
from ncdemo.infra.alert_rules import EVALUATION_S
from ncdemo.infra.gpu_agents import DCGM_PORT
from ncdemo.infra.gpu_agents import NAMESPACE as GPU_NAMESPACE
from ncdemo.spec.services import Monitoring as MonitoringSpec

PUSHGATEWAY, PUSHGATEWAY_PORT = "docker.io/prom/pushgateway:v1.11.3", 9091
PROMETHEUS, PROMETHEUS_PORT = "docker.io/prom/prometheus:v3.15.0", 9090
CONFIG = "/etc/prometheus"


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


def prometheus_config(rules: Mapping[str, str], namespace: str, *, dcgm: bool) -> m.Manifest:
    """Return what Prometheus reads. DCGM's exporters are found by DNS, so it needs no rights in the cluster."""
    static = [{"targets": [f"pushgateway.{namespace}.svc:{PUSHGATEWAY_PORT}"]}]
    # honor_labels: a pushed metric keeps the job and instance that pushed it.
    scrapes: list[dict[str, Any]] = [{"job_name": "pushgateway", "honor_labels": True, "static_configs": static}]
    if dcgm:
        names = [f"dcgm-exporter.{GPU_NAMESPACE}.svc.cluster.local"]
        scrapes.append({"job_name": "dcgm", "dns_sd_configs": [{"names": names, "type": "A", "port": DCGM_PORT}]})
    every = {"scrape_interval": "15s", "evaluation_interval": f"{EVALUATION_S}s"}
    config = {"global": every, "rule_files": [f"{CONFIG}/*.rules.yml"], "scrape_configs": scrapes}
    data = {"prometheus.yml": yaml.safe_dump(config, sort_keys=False), **rules}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("prometheus", namespace), "data": data}
