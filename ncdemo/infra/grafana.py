"""Grafana in the cluster, with the dashboards of dashboards/: nothing to set up, nothing to keep, nobody to log in.

Whoever reaches it may look, and nobody may change: kubectl -n monitoring port-forward svc/grafana 3000
"""

from pathlib import Path

import yaml

from ncdemo.infra import manifests as m
from ncdemo.infra.prometheus import PROMETHEUS_PORT

GRAFANA, GRAFANA_PORT = "docker.io/grafana/grafana:13.2.3", 3000
DASHBOARDS = Path(__file__).parent / "dashboards"
PROVISIONING, SHOWN = "/etc/grafana/provisioning", "/etc/grafana/ncdemo"
DATASOURCE = "prometheus"
"""The uid that the dashboards' panels name."""
SETTINGS = {
    "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "ANALYTICS_CHECK_FOR_UPDATES": "false",
    "ANALYTICS_REPORTING_ENABLED": "false",
    "AUTH_ANONYMOUS_ENABLED": "true",
    "AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "AUTH_BASIC_ENABLED": "false",
    "AUTH_DISABLE_LOGIN_FORM": "true",
    "DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{SHOWN}/cluster.json",
    "LOG_MODE": "console",
    "NEWS_NEWS_FEED_ENABLED": "false",
    "PATHS_PROVISIONING": PROVISIONING,
    "PLUGINS_PREINSTALL_DISABLED": "true",
    "SECURITY_DISABLE_GRAVATAR": "true",
    "SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    "SNAPSHOTS_EXTERNAL_ENABLED": "false",
}
"""Section and key of grafana.ini, as its environment has them after GF_."""


def dashboards() -> dict[str, str]:
    """Return file name -> JSON text of what lies in dashboards/."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(DASHBOARDS.glob("*.json"))}


def grafana(data: str) -> m.Manifest:
    settings = {**SETTINGS, "PATHS_DATA": data, "PATHS_LOGS": f"{data}/log", "PATHS_PLUGINS": f"{data}/plugins"}
    return {
        "image": GRAFANA,
        "env": [{"name": f"GF_{key}", "value": value} for key, value in sorted(settings.items())],
        "readinessProbe": m.http_probe("/api/health", GRAFANA_PORT),
        "livenessProbe": m.http_probe("/api/health", GRAFANA_PORT, initialDelaySeconds=30, failureThreshold=6),
        "resources": m.sized("200m", "512Mi"),
        "volumeMounts": [
            {"name": "provisioning", "mountPath": PROVISIONING, "readOnly": True},
            {"name": "dashboards", "mountPath": SHOWN, "readOnly": True},
        ],
    }


def grafana_config(namespace: str) -> m.Manifest:
    """Return where its data come from, and where its dashboards lie."""
    url = f"http://prometheus.{namespace}.svc:{PROMETHEUS_PORT}"
    source = {"name": "Prometheus", "uid": DATASOURCE, "type": "prometheus", "access": "proxy", "url": url, "isDefault": True}
    source["jsonData"] = {"timeInterval": "15s", "httpMethod": "POST"}
    folder = {"name": "ncdemo", "type": "file", "disableDeletion": True, "allowUiUpdates": False, "options": {"path": SHOWN}}
    data = {
        "datasources.yaml": yaml.safe_dump({"apiVersion": 1, "datasources": [source]}, sort_keys=False),
        "dashboards.yaml": yaml.safe_dump({"apiVersion": 1, "providers": [folder]}, sort_keys=False),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("grafana", namespace), "data": data}


def dashboards_config(namespace: str) -> m.Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("grafana-dashboards", namespace), "data": dashboards()}


def volumes() -> list[m.Manifest]:
    """Return its two ConfigMaps; Grafana looks for each kind of provisioning in a folder of its own."""
    items = [{"key": f"{kind}.yaml", "path": f"{kind}/{kind}.yaml"} for kind in ("datasources", "dashboards")]
    return [
        {"name": "provisioning", "configMap": {"name": "grafana", "items": items}},
        {"name": "dashboards", "configMap": {"name": "grafana-dashboards"}},
    ]
