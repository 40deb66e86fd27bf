"""The pod of one node of a job: what it asks for, where it may run, what it sees of the world.

Restricted pod security, a read-only root, no rights in the cluster; what it writes goes to volumes that are sized.
"""

from dataclasses import dataclass
from typing import Any

import pulumi

from ncdemo.infra import manifests as m
from ncdemo.infra.gpu_pool import GPU_TAINT, POOL_LABEL, SPOT_KEY
from ncdemo.infra.job_namespace import FILES_CLAIM, INSIGHTS_KEY, INSIGHTS_SECRET, RUNS_CLAIM, SERVICE_ACCOUNT, TOKEN_SECRET
from ncdemo.infra.job_plan import SERVER_SHARE, Share, environment, results_environment, share
from ncdemo.spec.capacity import ExistingCluster
from ncdemo.spec.job import (
    APPLICATIONINSIGHTS_CONNECTION_STRING,
    FILES_DIR,
    NCDEMO_SCHEDULED_EVENTS_URL,
    PORT,
    RUNS_DIR,
    SCHEDULED_EVENTS_URL,
    SCRATCH_DIR,
    SPEC_FILE,
    job_command,
)
from ncdemo.spec.job_labels import CONTAINER, INSTANCE, METRICS_PORT
from ncdemo.spec.services import Images
from ncdemo.spec.stack_file import HF_TOKEN, JobRun

GRACE_S = 30
"""From SIGTERM to SIGKILL: what a spot node has."""


@dataclass(frozen=True)
class JobArgs:
    run: JobRun
    images: Images
    image: pulumi.Input[str]
    namespace: str
    provider: pulumi.ProviderResource
    account: pulumi.Input[str] | None
    """Storage account of the results; None: they stay on the runs volume."""
    existing: ExistingCluster | None = None
    """Set on a cluster that ncdemo didn't make."""
    region: str | None = None
    """In Azure; None elsewhere."""
    queue: str | None = None
    files: bool = False
    has_token: bool = False
    has_insights: bool = False
    """Its namespace holds the connection string of an Application Insights resource."""
    metrics_port: int | None = None
    """Where Prometheus scrapes it while it runs; None: it doesn't."""
    env: dict[str, Any] | None = None
    """Beside a job's own, e.g. where MLflow is."""


def pod(args: JobArgs, identity: str) -> m.Manifest:
    """Return the pod of one node."""
    whole, server = share(args.run), args.run.job.server
    own = whole.split(1 - SERVER_SHARE) if server else whole
    spec: m.Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": m.POD_SECURITY,
        "tolerations": tolerations(args),
        "containers": [container(args, identity, own)],
        "volumes": volumes(args, identity, whole),
    }
    if args.run.job.nodes > 1:
        spec |= {"subdomain": identity, "affinity": one_per_node(identity)}
    if server:
        spec["initContainers"] = [server_container(args, whole)]
    if selector := node_selector(args):
        spec["nodeSelector"] = selector
    return spec


def node_selector(args: JobArgs) -> dict[str, str]:
    if args.existing:
        return args.existing.node_selector
    return {POOL_LABEL: args.run.pool.name} if args.run.pool else {}


def tolerations(args: JobArgs) -> list[m.Manifest]:
    """Return what the pool's taints ask for; on a cluster that ncdemo doesn't know, both that GPU nodes commonly have."""
    pool = args.run.pool
    found = []
    if args.run.gpus or (pool and pool.size.gpus):
        found.append({"key": GPU_TAINT.partition("=")[0], "operator": "Exists", "effect": "NoSchedule"})
    if args.existing or (pool and pool.spot):
        found.append({"key": SPOT_KEY, "operator": "Equal", "value": "spot", "effect": "NoSchedule"})
    return found


def one_per_node(identity: str) -> m.Manifest:
    """Return the rule that puts the pods of a job on different nodes."""
    mine = {"labelSelector": {"matchLabels": {INSTANCE: identity}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [mine]}}


def container(args: JobArgs, identity: str, own: Share) -> m.Manifest:
    """Return the container that runs the workload."""
    master = f"{identity}-0.{identity}.{args.namespace}.svc"
    env: dict[str, Any] = environment(args.run, identity, master, args.region) | (args.env or {})
    if args.account is not None:
        env |= results_environment(args.account)
    if not args.existing and args.run.pool and args.run.pool.spot:
        # The node's drain tells pods too, but not always and not always in time.
        env[NCDEMO_SCHEDULED_EVENTS_URL] = SCHEDULED_EVENTS_URL
    entries = [{"name": key, "value": value} for key, value in env.items()]
    if args.has_token:
        entries.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": HF_TOKEN}}})
    if args.has_insights:
        held = {"secretKeyRef": {"name": INSIGHTS_SECRET, "key": INSIGHTS_KEY}}
        entries.append({"name": APPLICATIONINSIGHTS_CONNECTION_STRING, "valueFrom": held})
    mounts = [
        {"name": "spec", "mountPath": SPEC_FILE.rpartition("/")[0], "readOnly": True},
        {"name": "runs", "mountPath": RUNS_DIR},
        *shared_mounts(args),
    ]
    made = {
        "name": CONTAINER,
        "image": args.image,
        "imagePullPolicy": m.PULL,
        "command": list(job_command()),
        "env": entries,
        "resources": resources(own, args.run.job.scratch_gib),
        "securityContext": m.RESTRICTED,
        "volumeMounts": mounts,
        "workingDir": SCRATCH_DIR,
    }
    ports = {"rendezvous": PORT if args.run.job.nodes > 1 else None, METRICS_PORT: args.metrics_port}
    named = [{"name": name, "containerPort": port} for name, port in ports.items() if port]
    return made | ({"ports": named} if named else {})


def server_container(args: JobArgs, whole: Share) -> m.Manifest:
    """Return the engine's container: it starts first, has the GPUs, and ends when the job's own container has."""
    server = args.run.job.server
    assert server
    part = whole.split(SERVER_SHARE)
    ready = m.http_probe(server.health_path, server.port, periodSeconds=10, failureThreshold=server.start_minutes * 6)
    return {
        "name": "server",
        "image": server.image,
        "imagePullPolicy": m.PULL,
        "restartPolicy": "Always",
        "command": list(server.command),
        "env": [{"name": "HOME", "value": f"{SCRATCH_DIR}/home"}, {"name": "HF_HOME", "value": f"{SCRATCH_DIR}/huggingface"}],
        "ports": [{"name": "http", "containerPort": server.port}],
        "startupProbe": ready,
        "livenessProbe": m.http_probe(server.health_path, server.port, periodSeconds=30, failureThreshold=10),
        "resources": resources(Share(part.cpus, part.memory_gib, whole.gpus), None),
        "securityContext": m.RESTRICTED,
        "volumeMounts": shared_mounts(args),
        "workingDir": SCRATCH_DIR,
    }


def shared_mounts(args: JobArgs) -> list[m.Manifest]:
    mounts = [("scratch", SCRATCH_DIR), ("tmp", "/tmp"), ("shm", "/dev/shm"), *([("files", FILES_DIR)] if args.files else [])]
    return [{"name": name, "mountPath": path} for name, path in mounts]


def resources(own: Share, scratch_gib: int | None) -> m.Manifest:
    """Return requests and limits. Ephemeral storage stays below the OS disk: no node could ever satisfy more."""
    more = {"ephemeral-storage": f"{scratch_gib}Gi"} if scratch_gib else {}
    cpu = f"{int(own.cpus * 1000)}m"
    gpus = {"nvidia.com/gpu": str(own.gpus)} if own.gpus else {}
    return m.sized(cpu, f"{own.memory_gib}Gi", **more, **gpus)


def volumes(args: JobArgs, identity: str, whole: Share) -> list[m.Manifest]:
    """Return the pod's volumes: the spec, the run, scratch on the OS disk, /tmp, and /dev/shm in memory."""
    keep = (
        {"persistentVolumeClaim": {"claimName": RUNS_CLAIM}}
        if args.existing
        else {"emptyDir": {"sizeLimit": f"{args.run.job.scratch_gib}Gi"}}
    )
    found: list[m.Manifest] = [
        {"name": "spec", "configMap": {"name": identity}},
        {"name": "runs", **keep},
        {"name": "scratch", "emptyDir": {"sizeLimit": f"{args.run.job.scratch_gib}Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{whole.shm_gib}Gi"}},
    ]
    return found + ([{"name": "files", "persistentVolumeClaim": {"claimName": FILES_CLAIM}}] if args.files else [])
