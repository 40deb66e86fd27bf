"""Jobs as Kubernetes resources: a spec in a ConfigMap, an Indexed Job of one pod per node, a name that meets no second run.

What the pods do is `python -m workloads.job`; job_pod.py says with what; this file, what happens when a node goes away.
"""

import pulumi

from ncdemo.infra import manifests as m
from ncdemo.infra.component import Component
from ncdemo.infra.job_plan import job_id, run_file
from ncdemo.infra.job_pod import JobArgs, pod
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_INTERRUPTED, PORT, SPEC_FILE
from ncdemo.spec.job_labels import APPLICATION, CONTAINER, INSTANCE, JOB, KIND, NAME, QUEUE_LABEL

IMMUTABLE = [f"spec.{key}" for key in ("template", "selector", "completions", "parallelism", "completionMode", "podFailurePolicy")]
"""A job that exists is never changed in these: a release of ncdemo that renders them otherwise doesn't run it again."""
FAILURE_RULES = [
    # An evicted spot node, a drain: not the job's fault, and it doesn't count.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_INTERRUPTED]}},
    # A mistake in the spec: each further start would only cost money.
    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_BAD_SPEC]}},
]


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
        NAME: APPLICATION,
        INSTANCE: identity,
        JOB: args.run.job.name,
        KIND: args.run.run.kind,
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
