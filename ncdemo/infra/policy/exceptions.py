"""Who may break which rule, and why: the whole list, each entry no wider than its reason.

An entry matches by what a resource is and has, so a resource that grows beyond the reason loses its exception.

python -c "from ncdemo.infra.policy import EXCEPTIONS; print(*(f'{each.rule}: {each.reason}' for each in EXCEPTIONS), sep='\\n')"
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ncdemo.infra.policy.base import Inputs, Resource, kind_of, listed, objects, read
from ncdemo.infra.policy.manifests import DAEMON_SET, containers, pod_spec


@dataclass(frozen=True)
class Allowed:
    """An exception from one rule, for resources of one kind that `matches(logical name, inputs)`."""

    rule: str
    kind: str
    matches: Callable[[str, Inputs], bool]
    reason: str


def _is_nfs_account(_name: str, inputs: Inputs) -> bool:
    return inputs.get("kind") == "FileStorage" and read(inputs, "networkRuleSet", "defaultAction") == "Deny"


def _agent(repository: str, host_path: str, capabilities: frozenset[str] = frozenset()) -> Callable[[str, Inputs], bool]:
    """Match a DaemonSet that runs one image of NVIDIA's (or Microsoft's copy) and takes no more of the node than this."""
    image = re.compile(rf"(nvcr\.io|mcr\.microsoft\.com/oss(/v2)?)/{re.escape(repository)}[:@].+")

    def matches(_name: str, inputs: Inputs) -> bool:
        pod = pod_spec(DAEMON_SET, inputs)
        run = containers(pod)
        mounted = {str(read(volume, "hostPath", "path")).rstrip("/") for volume in objects(pod, "volumes") if "hostPath" in volume}
        added = {str(each) for container in run for each in listed(container, "securityContext", "capabilities", "add")}
        images = [str(container.get("image")) for container in run]
        return bool(run) and all(map(image.fullmatch, images)) and mounted <= {host_path} and added <= capabilities

    return matches


_DEVICE_PLUGIN = _agent("nvidia/k8s-device-plugin", "/var/lib/kubelet/device-plugins")
_DCGM_EXPORTER = _agent("nvidia/k8s/dcgm-exporter", "/var/lib/kubelet/pod-resources", frozenset({"SYS_ADMIN"}))

EXCEPTIONS: tuple[Allowed, ...] = (
    Allowed(
        "storage-https-only",
        "storage:StorageAccount",
        _is_nfs_account,
        "Azure Files serves NFS only with HTTPS not required; the account's firewall (defaultAction Deny) lets in its network alone.",
    ),
    Allowed(
        "pod-mounts-no-host-path",
        DAEMON_SET,
        _DEVICE_PLUGIN,
        "The NVIDIA device plugin registers its GPUs at the kubelet's socket in device-plugins.",
    ),
    Allowed(
        "pod-runs-as-non-root",
        DAEMON_SET,
        _DEVICE_PLUGIN,
        "The kubelet's socket folder belongs to root, so the NVIDIA device plugin does too; it keeps no capability.",
    ),
    Allowed(
        "pod-mounts-no-host-path",
        DAEMON_SET,
        _DCGM_EXPORTER,
        "The DCGM exporter asks the kubelet's pod-resources socket which pod has which GPU.",
    ),
    Allowed(
        "pod-runs-as-non-root",
        DAEMON_SET,
        _DCGM_EXPORTER,
        "The kubelet's pod-resources socket is root's, and the driver gives profiling counters to root.",
    ),
    Allowed(
        "pod-adds-no-capabilities",
        DAEMON_SET,
        _DCGM_EXPORTER,
        "NVIDIA's driver gives profiling counters (DCGM_FI_PROF_*) only to SYS_ADMIN.",
    ),
)


def exception_for(rule: str, resource: Resource) -> Allowed | None:
    """Return the entry that lets a resource break a rule; None: it has to keep it."""
    entries = (each for each in EXCEPTIONS if (each.rule, each.kind) == (rule, kind_of(resource.type)))
    return next((each for each in entries if each.matches(resource.name, resource.inputs)), None)
