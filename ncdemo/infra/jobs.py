"""Jobs as Kubernetes resources: a spec in a ConfigMap, an Indexed Job of one pod per node, a name that meets no second run.

What the pods do is `python -m workloads.job`; this file says where, with what, and what happens when a node goes away.
"""

from dataclasses import dataclass
from typing import Any

import pulumi

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.gpu_pool import GPU_TAINT, POOL_LABEL, SPOT_KEY
from ncdemo.infra.job_plan import SERVER_SHARE, Share, environment, job_id, results_environment, run_file, share
from ncdemo.spec.capacity import ExistingCluster
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_INTERRUPTED, FILES_DIR, PORT, RUNS_DIR, SCRATCH_DIR, SPEC_FILE, job_command
from ncdemo.spec.services import Images
from ncdemo.spec.stack_file import HF_TOKEN, JobRun

SERVICE_ACCOUNT = "ncdemo-job"
TOKEN_SECRET = "hf-token"
RUNS_CLAIM, FILES_CLAIM = "ncdemo-runs", "ncdemo-files"
INSTANCE = "app.kubernetes.io/instance"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GRACE_S = 30
"""From SIGTERM to SIGKILL: what a spot node has."""
IMMUTABLE = [f"spec.{key}" for key in ("template", "selector", "completions", "parallelism", "completionMode", "podFailurePolicy")]
"""A job that exists is never changed in these: a release of ncdemo that renders them otherwise doesn't run it again."""


@dataclass(frozen=True)
class NamespaceArgs:
    namespace: str
    provider: pulumi.ProviderResource
    client_id: pulumi.Input[str] | None = None
    """Azure identity of the jobs; None outside Azure."""
    hf_token: pulumi.Input[str] | None = None
    files: pulumi.Input[str] | None = None
    """Storage account of the NFS share."""
    files_gib: int | None = None
    resource_group: pulumi.Input[str] | None = None
    runs: ExistingCluster | None = None
    """Set on a cluster that ncdemo didn't make: runs are kept on a volume there."""
    shared_runs: bool = False
    """Several nodes write runs at once."""


class JobNamespace(Component):
    """What the jobs of one namespace share."""

    KIND = "namespace"

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts, key=args.namespace)
        space = args.namespace
        made = m.apply(self, "namespace", m.namespace(space, labels={"ncdemo.io/jobs": "true"}), args.provider)
        within = pulumi.ResourceOptions(depends_on=[made])
        m.apply(self, "account", m.service_account(SERVICE_ACCOUNT, space, args.client_id), args.provider, within)
        same = [{"podSelector": {}}]
        m.apply(self, "policy", m.allow_from("same-namespace-only", space, same, []), args.provider, within)
        if args.hf_token is not None:
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": m.meta(TOKEN_SECRET, space), "type": "Opaque"}
            m.apply(self, "token", {**secret, "stringData": {HF_TOKEN: pulumi.Output.secret(args.hf_token)}}, args.provider, within)
        if args.files is not None:
            self._files(args, within)
        if args.runs:
            mode = "ReadWriteMany" if args.shared_runs else "ReadWriteOnce"
            volume = m.claim(RUNS_CLAIM, space, args.runs.runs_gib, storage_class=args.runs.storage_class, mode=mode)
            # A volume that is bound by its first pod isn't ready before there is one.
            volume["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
            m.apply(self, "runs", volume, args.provider, within)
        self.done()

    def _files(self, args: NamespaceArgs, within: pulumi.ResourceOptions) -> None:
        """NFS needs no key: the volume names account and share, the subnet is what may mount them."""
        name, size = f"{FILES_CLAIM}-{args.namespace}", f"{args.files_gib}Gi"
        csi = {
            "driver": "file.csi.azure.com",
            "volumeHandle": pulumi.Output.concat(args.files, "-", name),
            "volumeAttributes": {
                "resourceGroup": args.resource_group,
                "storageAccount": args.files,
                "shareName": "files",
                "protocol": "nfs",
            },
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": m.meta(name, None),
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "mountOptions": ["nconnect=4", "noresvport", "actimeo=30"],
                "csi": csi,
            },
        }
        m.apply(self, "files-volume", volume, args.provider)
        claim = m.claim(FILES_CLAIM, args.namespace, args.files_gib or 0, storage_class=None, mode="ReadWriteMany")
        claim["spec"] |= {"storageClassName": "", "volumeName": name}
        m.apply(self, "files-claim", claim, args.provider, within)


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
    queue: str | None = None
    files: bool = False
    has_token: bool = False
    env: dict[str, Any] | None = None
    """Beside a job's own, e.g. where MLflow is."""


class TrainingOrBenchmark(Component):
    """One job: ConfigMap, Service when several nodes must meet, Indexed Job."""

    KIND = "job"
    job_name: str

    def __init__(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        identity = job_id(args.run, args.images)
        super().__init__(name, opts, key=args.run.job.name)
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": m.meta(identity, args.namespace, labels(args, identity)),
            "data": {SPEC_FILE.rpartition("/")[2]: run_file(args.run)},
            "immutable": True,
        }
        before = [m.apply(self, "spec", config, args.provider)]
        if args.run.job.nodes > 1:
            meet = m.service(identity, args.namespace, {"rendezvous": PORT}, headless=True, selector={INSTANCE: identity})
            # No pod yet, so nothing that Pulumi could wait for.
            meet["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
            before.append(m.apply(self, "meet", meet, args.provider))
        changing = [*IMMUTABLE, *(["spec.suspend"] if args.queue else [])]
        options = pulumi.ResourceOptions(depends_on=before, ignore_changes=changing)
        m.apply(self, "job", job_manifest(args, identity), args.provider, options)
        self.done(job_name=identity)


def labels(args: JobArgs, identity: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "ncdemo-job",
        INSTANCE: identity,
        "ncdemo.io/job": args.run.job.name,
        "ncdemo.io/kind": args.run.run.kind,
    }


def job_manifest(args: JobArgs, identity: str) -> m.Manifest:
    """Return the Indexed Job. It has no time to live: a Job that Kubernetes removed would be made, and run, again."""
    job, own = args.run.job, labels(args, identity)
    spec: m.Manifest = {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # When one node fails, the others fail with it: each start again costs as many failures as there are nodes.
        "backoffLimit": job.retries * job.nodes,
        "activeDeadlineSeconds": args.run.deadline_s,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": FAILURE_RULES},
        "suspend": job.suspend or bool(args.queue),
        "template": {
            "metadata": {
                "labels": {**own, **({"azure.workload.identity/use": "true"} if args.account is not None else {})},
                # The autoscaler must not take a node away under a run.
                "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
            },
            "spec": pod(args, identity),
        },
    }
    metadata = m.meta(
        identity, args.namespace, {**own, **({QUEUE_LABEL: args.queue} if args.queue else {})}, {"pulumi.com/skipAwait": "true"}
    )
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


FAILURE_RULES = [
    # An evicted spot node, a drain: not the job's fault, and it doesn't count.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "Ignore", "onExitCodes": {"containerName": "job", "operator": "In", "values": [EXIT_INTERRUPTED]}},
    # A mistake in the spec: each further start would only cost money.
    {"action": "FailJob", "onExitCodes": {"containerName": "job", "operator": "In", "values": [EXIT_BAD_SPEC]}},
]


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
    env: dict[str, Any] = environment(args.run, identity, master) | (args.env or {})
    if args.account is not None:
        env |= results_environment(args.account)
    entries = [{"name": key, "value": value} for key, value in env.items()]
    if args.has_token:
        entries.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": HF_TOKEN}}})
    mounts = [
        {"name": "spec", "mountPath": SPEC_FILE.rpartition("/")[0], "readOnly": True},
        {"name": "runs", "mountPath": RUNS_DIR},
        *shared_mounts(args),
    ]
    made = {
        "name": "job",
        "image": args.image,
        "imagePullPolicy": m.PULL,
        "command": list(job_command()),
        "env": entries,
        "resources": resources(own, args.run.job.scratch_gib),
        "securityContext": m.RESTRICTED,
        "volumeMounts": mounts,
        "workingDir": SCRATCH_DIR,
    }
    return made | ({"ports": [{"name": "rendezvous", "containerPort": PORT}]} if args.run.job.nodes > 1 else {})


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
