"""Pods as Prometheus' own discovery shows them, for a build that has none: Debian's knows neither Kubernetes nor any cloud.

Labels as the documentation of kubernetes_sd_config lists them for role `pod`: a target for each port of each container, and one for a
container without ports.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

Pod = dict[str, Any]
META = "__meta_kubernetes_"


def pod_of(workload: dict[str, Any], address: str, *, phase: str = "Running", name: str | None = None) -> Pod:
    """Return the first pod of a rendered Job (or of another workload), as the API has it."""
    template, own = workload["spec"]["template"], workload["metadata"]
    metadata = {**template["metadata"], "name": name or f"{own['name']}-0-abcde", "namespace": own["namespace"]}
    return {"metadata": metadata, "spec": template["spec"], "status": {"phase": phase, "podIP": address}}


def targets(pods: list[Pod], namespaces: list[str]) -> list[dict[str, Any]]:
    """Return target groups of file_sd_configs: what discovery finds of these pods in these namespaces."""
    found = []
    for pod in pods:
        if pod["metadata"]["namespace"] not in namespaces:
            continue
        address = pod["status"]["podIP"]
        labels = {f"pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": value for key, value in pod["metadata"]["labels"].items()}
        labels |= {"namespace": pod["metadata"]["namespace"], "pod_name": pod["metadata"]["name"]}
        labels |= {"pod_phase": pod["status"]["phase"], "pod_ip": address}
        for kind in ("initContainers", "containers"):
            for container in pod["spec"].get(kind, []):
                own = {**labels, "pod_container_name": container["name"], "pod_container_init": str(kind == "initContainers").lower()}
                for port in container.get("ports") or [None]:
                    more = (
                        {"pod_container_port_name": port["name"], "pod_container_port_number": str(port["containerPort"])} if port else {}
                    )
                    at = f"{address}:{port['containerPort']}" if port else address
                    found.append({"targets": [at], "labels": {META + key: value for key, value in (own | more).items()}})
    return found


def without_kubernetes(text: str, folder: Path, pods: list[Pod]) -> dict[str, Any]:
    """Return a configuration that finds the same targets in files; what it asked of Kubernetes must be what that takes."""
    config: dict[str, Any] = yaml.safe_load(text)
    for job in config["scrape_configs"]:
        asked = job.pop("kubernetes_sd_configs", None)
        if asked is None:
            continue
        (one,) = asked
        assert one == {"role": "pod", "namespaces": {"names": one["namespaces"]["names"]}}, one
        assert all(isinstance(name, str) for name in one["namespaces"]["names"])
        path = folder / f"{job['job_name']}.targets.json"
        path.write_text(json.dumps(targets(pods, one["namespaces"]["names"])))
        job["file_sd_configs"] = [{"files": [str(path)], "refresh_interval": "1s"}]
    return config
