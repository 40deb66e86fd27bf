"""Whether pods can get GPUs: the device plugin's DaemonSet, and what each GPU node offers."""

from ncdemo.operate.inside.pools import labels
from ncdemo.operate.inside.wanted import Manifest, Wanted, name, space
from ncdemo.operate.kube import Kube
from ncdemo.spec.finding import Finding
from ncdemo.spec.sizes import find

GPU = "nvidia.com/gpu"
SIZE_LABEL = "node.kubernetes.io/instance-type"
PLUGIN = ("nvidia", "device-plugin")
"""What the image of every build of the plugin has in its name, GPU operator's included."""


def device_plugin(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether NVIDIA's device plugin is there, once, and running where there are nodes for it."""
    ours = [one for one in wanted.of_kind("DaemonSet") if _is_plugin(one)]
    plugins = [one for one in kube.ask("GET", "/apis/apps/v1/daemonsets")["items"] if _is_plugin(one)]
    if not plugins:
        if wanted.stack and not ours:
            wants = any(_gpus_of(job) for job in wanted.of_kind("Job"))
            remedy = "install NVIDIA's GPU operator (helm chart gpu-operator) or device plugin, as the cluster's maker says"
            return [Finding("device plugin", "fail", "isn't there, and jobs ask for GPUs", remedy)] if wants else []
        remedy = wanted.up if ours else "install NVIDIA's GPU operator (helm chart gpu-operator) or device plugin"
        return [Finding("device plugin", "fail" if ours else "warn", "isn't there, so no pod gets a GPU", remedy)]
    shown = ", ".join(f"{space(one)}/{name(one)}" for one in plugins)
    if len(plugins) > 1:
        return [
            Finding("device plugin", "warn", f"there are {len(plugins)}, which disturb each other: {shown}", "kubectl delete ds of one")
        ]
    status = plugins[0].get("status", {})
    desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    if ready < desired:
        remedy = f"kubectl describe pods -n {space(plugins[0])}; kubectl logs -n {space(plugins[0])} ds/{name(plugins[0])}"
        return [Finding("device plugin", "fail", f"{shown} is ready on {ready} of {desired} GPU nodes", remedy)]
    return [Finding("device plugin", "ok", f"{shown}, " + (f"ready on {ready} nodes" if desired else "with no GPU node to run on now"))]


def allocatable(kube: Kube, wanted: Wanted) -> list[Finding]:
    """Say whether each GPU node offers as many GPUs as its size has."""
    there = kube.ask("GET", "/api/v1/nodes")["items"]
    expected = {name(node): _expected(node) for node in there}
    gpu_nodes = [node for node in there if expected[name(node)]]
    if not gpu_nodes:
        remedy = "start a job, which starts a node, then ask again"
        return [Finding("gpu", "unknown", f"no GPU node now, so whether one offers {GPU} can't be seen", remedy)]
    found = []
    for node in gpu_nodes:
        offers = int(node.get("status", {}).get("allocatable", {}).get(GPU, 0))
        if offers < expected[name(node)]:
            text = f"{name(node)} offers {offers} of {expected[name(node)]} {GPU}"
            found.append(Finding("gpu", "fail", text, f"kubectl describe node {name(node)}; the driver's and device plugin's pods say why"))
    total = sum(expected.values())
    return found or [Finding("gpu", "ok", f"{len(gpu_nodes)} nodes offer {total} {GPU}")]


def _expected(node: Manifest) -> int:
    """Return how many GPUs a node has, by its size, else as it says of itself."""
    size = find(labels(node).get(SIZE_LABEL, ""))
    said = int(node.get("status", {}).get("capacity", {}).get(GPU, 0))
    return size.gpus if size else max(said, 1 if labels(node).get("nvidia.com/gpu.present") == "true" else 0)


def _is_plugin(daemon_set: Manifest) -> bool:
    images = [one.get("image", "") for one in daemon_set["spec"]["template"]["spec"]["containers"]]
    return any(all(part in f"{image} {name(daemon_set)}" for part in PLUGIN) for image in images)


def _gpus_of(job: Manifest) -> bool:
    pod = job["spec"]["template"]["spec"]
    return any(GPU in one.get("resources", {}).get("limits", {}) for one in [*pod["containers"], *pod.get("initContainers", [])])
