"""Whether Kueue lets jobs go: its API, its controller, the cluster queue's quotas, and a local queue in each namespace of jobs."""

from typing import Any

from ncdemo.operate.inside.wanted import Manifest, Wanted, holds, name, space
from ncdemo.operate.kube import Kube, NotThere
from ncdemo.spec.finding import Finding
from ncdemo.spec.job_labels import QUEUE_LABEL

GROUP = "kueue.x-k8s.io"
CONTROLLER = "control-plane=controller-manager,app.kubernetes.io/name=kueue"
Quotas = dict[tuple[str, str], Any]
"""Flavor and resource -> how much."""


def kueue(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Judge Kueue where the stack queues its jobs, or where it is there."""
    queues = {
        (space(job), job["metadata"]["labels"][QUEUE_LABEL]) for job in wanted.of_kind("Job") if QUEUE_LABEL in job["metadata"]["labels"]
    }
    queues |= {(space(one), name(one)) for one in wanted.of_kind("LocalQueue")}
    try:
        served = [one["version"] for one in kube.ask("GET", f"/apis/{GROUP}")["versions"]]
    except NotThere:
        remedy = (
            wanted.up if wanted.of_kind("ClusterQueue") else "install Kueue (helm chart kueue), or take kubernetes.queue out of the stack"
        )
        return [Finding("kueue", "fail", "isn't installed, so jobs are never let go", remedy)] if queues else []
    if wanted.stack and not queues:
        return []
    asks = next((one["apiVersion"].rpartition("/")[2] for one in wanted.of_kind("ClusterQueue")), served[0])
    if asks not in served:
        return [Finding("kueue", "fail", f"has no {GROUP}/{asks}, only {', '.join(served)}", f"{wanted.up}, which upgrades it")]
    found = [_controller(kube)]
    api = f"/apis/{GROUP}/{asks}"
    found += [_cluster_queue(kube, api, want, wanted) for want in wanted.of_kind("ClusterQueue")]
    found += [_local_queue(kube, api, *one, wanted) for one in sorted(queues)]
    if not wanted.stack:
        found += [_active(f"cluster queue {name(one)}", one) for one in kube.ask("GET", f"{api}/clusterqueues")["items"]]
    return found


def _controller(kube: Kube) -> Finding:
    deployments = kube.ask("GET", "/apis/apps/v1/deployments", labelSelector=CONTROLLER)["items"]
    if not deployments:
        return Finding(
            "kueue", "unknown", "its API is there; its controller isn't found by its labels", "kubectl get deploy -A | grep kueue"
        )
    one = deployments[0]
    if not one.get("status", {}).get("readyReplicas"):
        remedy = f"kubectl describe pods -n {space(one)}"
        return Finding("kueue", "fail", f"its controller {space(one)}/{name(one)} isn't ready, so jobs are never let go", remedy)
    return Finding("kueue", "ok", f"its controller {space(one)}/{name(one)} is ready")


def _cluster_queue(kube: Kube, api: str, want: Manifest, wanted: Wanted) -> Finding:
    check = f"cluster queue {name(want)}"
    try:
        live = kube.ask("GET", f"{api}/clusterqueues/{name(want)}")
    except NotThere:
        return Finding(check, "fail", "isn't there", wanted.up)
    mine, have = quotas(want), quotas(live)
    wrong = [
        f"{of} of {flavor} is {_amount(have.get((flavor, of)))}, the stack says {_amount(n)}"
        for (flavor, of), n in mine.items()
        if have.get((flavor, of)) != n
    ]
    if wrong:
        return Finding(check, "fail", "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else ""), wanted.up)
    gpus = ", ".join(f"{flavor} {_amount(n)}" for (flavor, of), n in mine.items() if of == "nvidia.com/gpu")
    return _active(check, live, f"GPUs: {gpus}" if gpus else "")


def _local_queue(kube: Kube, api: str, namespace: str, queue: str, wanted: Wanted) -> Finding:
    check = f"queue {namespace}/{queue}"
    try:
        live = kube.ask("GET", f"{api}/namespaces/{namespace}/localqueues/{queue}")
    except NotThere:
        made = any((space(one), name(one)) == (namespace, queue) for one in wanted.of_kind("LocalQueue"))
        remedy = wanted.up if made else "make it, or name one that is there in kubernetes.queue: kubectl get localqueues -A"
        return Finding(check, "fail", "isn't there, so its jobs are never let go", remedy)
    waiting = live.get("status", {}).get("pendingWorkloads")
    return _active(check, live, f"{waiting} jobs wait in it" if waiting is not None else "", f" -n {namespace}")


def _active(check: str, live: Manifest, more: str = "", where: str = "") -> Finding:
    """Judge by Kueue's own condition."""
    active, why = holds(live.get("status", {}).get("conditions") or [], "Active")
    kind = "localqueue" if where else "clusterqueue"
    remedy = f"kubectl describe {kind} {name(live)}{where}"
    if active is None:
        return Finding(check, "unknown", "Kueue hasn't said whether it is active", remedy)
    if not active:
        return Finding(check, "fail", f"isn't active: {why}", remedy)
    return Finding(check, "ok", "active" + (f"; {more}" if more else ""))


def quotas(queue: Manifest) -> Quotas:
    from kubernetes.utils.quantity import parse_quantity

    return {
        (flavor["name"], one["name"]): parse_quantity(one["nominalQuota"])
        for group in queue["spec"].get("resourceGroups", [])
        for flavor in group["flavors"]
        for one in flavor["resources"]
    }


def _amount(value: Any) -> str:
    if value is None:
        return "missing"
    gib = value / 2**30
    return f"{gib:,.0f}Gi" if value >= 2**30 and gib == int(gib) else f"{value.normalize():f}"
