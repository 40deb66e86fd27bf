"""Pools as Azure has them, and their nodes as the cluster has them: present, sized, labelled and tainted as the stack says."""

from collections.abc import Iterable
from typing import Any

from ncdemo.operate.inside.azure import Azure
from ncdemo.operate.inside.wanted import Manifest, Wanted, holds, name
from ncdemo.operate.kube import Kube
from ncdemo.spec.finding import Finding

AKS_POOL = "kubernetes.azure.com/agentpool"
"""AKS' own label of a node's pool."""
COMPARED = ("vmSize", "minCount", "maxCount", "enableAutoScaling", "scaleSetPriority")
Node = Manifest


def pools(wanted: Wanted, azure: Azure) -> list[Finding]:
    """Compare the pools with what Azure has."""
    if not wanted.pools:
        return []
    have = azure.pools()
    if have is None:
        return [Finding("pools", "fail", f"there is no cluster {wanted.cluster} in {wanted.resource_group}", wanted.up)]
    return [_pool(one, have.get(one["agentPoolName"]), wanted) for one in wanted.pools]


def _pool(want: dict[str, Any], have: dict[str, Any] | None, wanted: Wanted) -> Finding:
    pool = want["agentPoolName"]
    check = f"pool {pool}"
    if have is None:
        return Finding(check, "fail", "isn't there", wanted.up)
    where = f"-g {wanted.resource_group} --cluster-name {wanted.cluster} -n {pool}"
    if have.get("powerState", {}).get("code") == "Stopped":
        return Finding(check, "fail", "is stopped, so no node of it can start", f"az aks nodepool start {where}")
    wrong = [
        f"{key} is {have.get(key)}, the stack says {want[key]}"
        for key in COMPARED
        if key in want and have.get(key, "Regular" if key == "scaleSetPriority" else None) != want[key]
    ]
    wrong += [f"label {one} is missing" for one in _missing(want.get("nodeLabels", {}), have.get("nodeLabels") or {})]
    wrong += [f"taint {one} is missing" for one in want.get("nodeTaints", []) if one not in (have.get("nodeTaints") or [])]
    if wrong:
        return Finding(check, "fail", "; ".join(wrong), wanted.up)
    state = have.get("provisioningState")
    if state != "Succeeded":
        return Finding(check, "fail" if state == "Failed" else "warn", f"its state is {state}", f"az aks nodepool show {where}")
    priority = "spot" if want.get("scaleSetPriority") == "Spot" else "on demand"
    return Finding(
        check,
        "ok",
        f"{have.get('count')} of {want['minCount']} to {want['maxCount']} nodes, {priority}, labels and taints as the stack says",
    )


def nodes(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Compare the nodes that there are with their pools."""
    there: list[Node] = kube.ask("GET", "/api/v1/nodes")["items"]
    if wanted.pools:
        found = [
            _nodes_of(pool, [one for one in there if labels(one).get(AKS_POOL) == pool["agentPoolName"]], wanted) for pool in wanted.pools
        ]
        # Those of the cluster's own pool, and whatever else came.
        known = {pool["agentPoolName"] for pool in wanted.pools}
        return [*found, *_ready("nodes (other)", [one for one in there if labels(one).get(AKS_POOL) not in known])]
    return [*_ready("nodes", there), *_selected(there, wanted)]


def _nodes_of(pool: dict[str, Any], mine: list[Node], wanted: Wanted) -> Finding:
    check = f"nodes of {pool['agentPoolName']}"
    if not mine:
        lowest, highest = pool["minCount"], pool["maxCount"]
        if lowest:
            return Finding(
                check, "warn", f"none, and the stack says at least {lowest}", "kubectl get events -A --field-selector type=Warning"
            )
        return Finding(check, "ok", f"none now; a job starts them, up to {highest}")
    for node in mine:
        wrong = [f"label {one}" for one in _missing(pool.get("nodeLabels", {}), labels(node))]
        wrong += [f"taint {one}" for one in pool.get("nodeTaints", []) if one not in taints(node)]
        if wrong:
            return Finding(check, "fail", f"{name(node)} lacks {', '.join(wrong)}", wanted.up)
    return next(iter(_ready(check, mine)))


def _ready(check: str, mine: list[Node]) -> Iterable[Finding]:
    """Return one finding on whether nodes take pods; none without nodes."""
    for node in mine:
        ready, why = holds(node.get("status", {}).get("conditions", []), "Ready")
        if not ready:
            return [Finding(check, "warn", f"{name(node)} isn't ready ({why or 'it says nothing'})", f"kubectl describe node {name(node)}")]
        if node.get("spec", {}).get("unschedulable"):
            return [Finding(check, "warn", f"{name(node)} is cordoned: no pod goes there", f"kubectl uncordon {name(node)}")]
    return [Finding(check, "ok", f"{len(mine)} ready")] if mine else []


def _selected(there: list[Node], wanted: Wanted) -> list[Finding]:
    """Say whether any node has the labels that the jobs ask for, on a cluster that ncdemo didn't make."""
    selectors = [job["spec"]["template"]["spec"].get("nodeSelector", {}) for job in wanted.of_kind("Job")]
    for selector in selectors:
        if selector and not any(selector.items() <= labels(node).items() for node in there):
            asked = ", ".join(f"{key}={value}" for key, value in selector.items())
            remedy = "kubectl get nodes --show-labels, and correct kubernetes.node_selector"
            return [Finding("node selector", "warn", f"no node has {asked}, so jobs wait", remedy)]
    return []


def labels(node: Node) -> dict[str, str]:
    return node["metadata"].get("labels") or {}


def taints(node: Node) -> list[str]:
    """Return a node's taints as Azure writes them: key=value:effect."""
    return [f"{one['key']}={one.get('value', '')}:{one['effect']}" for one in node.get("spec", {}).get("taints") or []]


def _missing(want: dict[str, str], have: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in want.items() if have.get(key) != value]
