"""Namespaces with their pod security, and the servers that watch the jobs: Pushgateway, Prometheus, MLflow, Grafana."""

from ncdemo.operate.inside.wanted import Manifest, Wanted, name, space
from ncdemo.operate.kube import Kube, NotThere
from ncdemo.spec.finding import Finding

PATHS = {"StatefulSet": "statefulsets", "Deployment": "deployments"}


def namespaces(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether the stack's namespaces are there and as strict as it says."""
    found = []
    for want in wanted.of_kind("Namespace"):
        check = f"namespace {name(want)}"
        try:
            live = kube.ask("GET", f"/api/v1/namespaces/{name(want)}")
        except NotThere:
            found.append(Finding(check, "fail", "isn't there", wanted.up))
            continue
        have = live["metadata"].get("labels") or {}
        wrong = [f"{key}={value}" for key, value in want["metadata"]["labels"].items() if have.get(key) != value]
        level = have.get("pod-security.kubernetes.io/enforce", "none")
        if live.get("status", {}).get("phase") == "Terminating":
            remedy = f"kubectl get all -n {name(want)}, then, when it is gone: {wanted.up}"
            found.append(Finding(check, "fail", "is being deleted", remedy))
        elif wrong:
            remedy = f"kubectl label namespace {name(want)} --overwrite {' '.join(wrong)}"
            found.append(Finding(check, "fail", f"lacks {', '.join(wrong)}", remedy))
        else:
            found.append(Finding(check, "ok", f"pod security: {level}"))
    return found


def services(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether each server runs, and whether its service reaches it."""
    return [_server(kube, want, wanted) for want in wanted.of_kind(*PATHS)]


def _server(kube: Kube, want: Manifest, wanted: Wanted) -> Finding:
    namespace, server = space(want), name(want)
    check = f"{namespace}/{server}"
    try:
        live = kube.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/{PATHS[want['kind']]}/{server}")
    except NotThere:
        return Finding(check, "fail", "isn't there", wanted.up)
    asked = live["spec"].get("replicas", 1)
    ready = live.get("status", {}).get("readyReplicas", 0)
    if asked == 0:
        return Finding(check, "warn", "is scaled to 0", f"kubectl scale -n {namespace} {want['kind'].lower()}/{server} --replicas 1")
    if ready < asked:
        selector = ",".join(f"{key}={value}" for key, value in want["spec"]["selector"]["matchLabels"].items())
        pods = kube.ask("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
        image = any("Image" in why for why in map(waits_for, pods))
        remedy = f"kubectl describe pods -n {namespace} -l {selector}"
        if image and server == "mlflow":
            remedy = f"ncdemo image build mlflow --azure --stack {wanted.stack}"
        return Finding(check, "fail", f"isn't ready: {next(filter(None, map(waits_for, pods)), 'it has no pod')}", remedy)
    try:
        kube.ask("GET", f"/api/v1/namespaces/{namespace}/services/{server}")
    except NotThere:
        return Finding(check, "fail", "runs, and has no service, so jobs don't reach it", wanted.up)
    return Finding(check, "ok", "runs")


def waits_for(pod: Manifest) -> str:
    """Return why a pod doesn't run, in the kubelet's or the scheduler's words; empty when it does."""
    status = pod.get("status", {})
    for one in status.get("containerStatuses") or []:
        state = one.get("state", {})
        waiting = state.get("waiting") or state.get("terminated")
        if waiting:
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    blocked = [one for one in status.get("conditions") or [] if one["status"] == "False"]
    return blocked[0].get("message") or blocked[0].get("reason", "") if blocked else ""
