"""The short job that shows whether storage is reached from the cluster: a real job's image, service account and environment.

probe(job, own_cluster=True)     # of a Job that is in the cluster

It runs on the system pool, so that no GPU node starts for it, and removes itself five minutes after its end.
"""

import json
import uuid

from ncdemo.infra import manifests as m
from ncdemo.infra.job_pod import GRACE_S
from ncdemo.spec.job import NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
from ncdemo.spec.job_labels import CONTAINER

MODULE = "workloads.storage_probe"
DEADLINE_S, KEEP_S = 900, 300
NAMED = (NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT, "HOME", "XDG_CACHE_HOME")
"""What it takes of the job's environment: where results go, and folders that can be written."""


def probe(job: m.Manifest, *, own_cluster: bool) -> m.Manifest:
    """Return the probe of a job. It carries none of the labels by which jobs are found."""
    pod = job["spec"]["template"]["spec"]
    real = next(one for one in pod["containers"] if one["name"] == CONTAINER)
    space = job["metadata"]["namespace"]
    identity = {
        key: value
        for key, value in job["spec"]["template"]["metadata"].get("labels", {}).items()
        if key.startswith("azure.workload.identity/")
    }
    container = {
        "name": CONTAINER,
        "image": real["image"],
        "imagePullPolicy": real.get("imagePullPolicy", m.PULL),
        "command": ["python", "-m", MODULE],
        "env": [one for one in real.get("env", []) if one["name"] in NAMED],
        "resources": m.sized("500m", "1Gi"),
        "securityContext": m.RESTRICTED,
        "workingDir": real["workingDir"],
        "volumeMounts": [{"name": "scratch", "mountPath": real["workingDir"]}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: m.Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "serviceAccountName": pod["serviceAccountName"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": m.POD_SECURITY,
        **(m.ON_SYSTEM_POOL if own_cluster else {}),
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": "1Gi"}} for name in ("scratch", "tmp")],
    }
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": m.meta(f"storage-probe-{uuid.uuid4().hex[:8]}", space),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_S,
            "ttlSecondsAfterFinished": KEEP_S,
            "template": {"metadata": {"labels": identity}, "spec": spec},
        },
    }
    # Nothing is shared, so that YAML shows no anchors.
    unshared: m.Manifest = json.loads(json.dumps(made))
    return unshared
