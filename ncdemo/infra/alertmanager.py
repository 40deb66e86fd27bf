"""Alertmanager in the cluster: tells a webhook of the alerts that Prometheus fires. It is there where a stack has an address to tell.

pulumi config set --secret alert_webhook https://...
"""

import yaml

from ncdemo.infra import manifests as m

ALERTMANAGER, ALERTMANAGER_PORT = "docker.io/prom/alertmanager:v0.34.2", 9093
CONFIG, SECRETS = "/etc/alertmanager", "/etc/alertmanager-secrets"
WEBHOOK_SECRET, WEBHOOK_KEY = "alert-webhook", "url"


def alertmanager(data: str) -> m.Manifest:
    return {
        "image": ALERTMANAGER,
        "args": [
            f"--config.file={CONFIG}/alertmanager.yml",
            f"--storage.path={data}",
            f"--web.listen-address=:{ALERTMANAGER_PORT}",
            "--cluster.listen-address=",  # one alone has nobody to gossip with
        ],
        "readinessProbe": m.http_probe("/-/ready", ALERTMANAGER_PORT),
        "livenessProbe": m.http_probe("/-/healthy", ALERTMANAGER_PORT, failureThreshold=6),
        "resources": m.sized("100m", "128Mi"),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "webhook", "mountPath": SECRETS, "readOnly": True},
        ],
    }


def alertmanager_config(namespace: str) -> m.Manifest:
    """Return what it reads. The address is in a file of its own, read at each notification: a new one takes no new start."""
    receiver = {"name": "webhook", "webhook_configs": [{"url_file": f"{SECRETS}/{WEBHOOK_KEY}", "max_alerts": 100}]}
    route = {
        "receiver": "webhook",
        # One message for all GPUs, runs or nodes that one thing is wrong with.
        "group_by": ["alertname"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
    }
    text = yaml.safe_dump({"route": route, "receivers": [receiver]}, sort_keys=False)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": m.meta("alertmanager", namespace), "data": {"alertmanager.yml": text}}


def volumes() -> list[m.Manifest]:
    return [
        {"name": "config", "configMap": {"name": "alertmanager"}},
        {"name": "webhook", "secret": {"secretName": WEBHOOK_SECRET}},
    ]
