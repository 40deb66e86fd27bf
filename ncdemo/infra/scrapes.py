"""What Prometheus scrapes, as jobs of its configuration: the Pushgateway, DCGM's exporters, and the pods of runs that serve their own page.

The cluster's own Prometheus (prometheus.py) and Azure's managed one (azure_monitor.py) are made of the same.
"""

from collections.abc import Sequence
from typing import Any

from ncdemo.infra.gpu_agents import DCGM_PORT
from ncdemo.infra.gpu_agents import NAMESPACE as GPU_NAMESPACE
from ncdemo.spec.job_labels import APPLICATION, METRICS_PORT, PROMETHEUS_JOB

Scrape = dict[str, Any]
POD = "__meta_kubernetes_pod_"


def pushgateway(address: str) -> Scrape:
    """Return the gateway's job. honor_labels: a pushed metric keeps the job and instance that pushed it."""
    return {"job_name": "pushgateway", "honor_labels": True, "static_configs": [{"targets": [address]}]}


def dcgm_by_name() -> Scrape:
    """Return DCGM's exporters as DNS knows them: finding them takes no rights in the cluster."""
    names = [f"dcgm-exporter.{GPU_NAMESPACE}.svc.cluster.local"]
    return {"job_name": "dcgm", "dns_sd_configs": [{"names": names, "type": "A", "port": DCGM_PORT}]}


def dcgm_by_pod() -> Scrape:
    """Return DCGM's exporters as pods, for who may not ask DNS."""
    return {"job_name": "dcgm", **_pods([GPU_NAMESPACE], "dcgm-exporter", "metrics")}


def runs(namespaces: Sequence[str]) -> Scrape:
    """Return the pods of jobs that name a port for their metrics; job and instance are as if the run had pushed them.

    Each pod is an instance of its own, so that no two targets have the same labels.
    """
    found = _pods(namespaces, APPLICATION, METRICS_PORT)
    found["relabel_configs"] += [
        {"target_label": "job", "replacement": PROMETHEUS_JOB},
        {"source_labels": [f"{POD}name"], "target_label": "instance"},
    ]
    return {"job_name": "runs", **found}


def _pods(namespaces: Sequence[str], application: str, port: str) -> Scrape:
    """Return the running pods of an application, at the port of this name."""
    return {
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": list(namespaces)}}],
        "relabel_configs": [
            {
                "source_labels": [f"{POD}label_app_kubernetes_io_name", f"{POD}container_port_name"],
                "regex": f"{application};{port}",
                "action": "keep",
            },
            {"source_labels": [f"{POD}phase"], "regex": "Running", "action": "keep"},
        ],
    }
