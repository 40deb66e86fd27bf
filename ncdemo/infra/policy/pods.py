"""What a pod may do to its node, and what it must not hold: the Kubernetes "restricted" standard as far as GPU jobs can keep it.

Source of the standard: kubernetes.io/docs/concepts/security/pod-security-standards (read 2026-11). Limits are asked for
memory only: a pod without one takes its node down, while a limit on CPU merely throttles the data loader.

python -m pytest tests/infra/test_policy.py -k "pod or job or secret"
"""

import re
from collections.abc import Iterator

from ncdemo.infra.policy.base import UNKNOWN, Inputs, Rule, listed, objects, read, rule
from ncdemo.infra.policy.manifests import container_rule, pod_rule

SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|SECRET|TOKEN|SAS|CREDENTIALS?|CONNECTION_STRING|(API|ACCESS|ACCOUNT|PRIVATE|SECRET)_?KEY)$", re.IGNORECASE
)
"""Ends like a secret's name: HF_TOKEN does, MAX_TOKENS and AZURE_FEDERATED_TOKEN_FILE don't."""

SECRET_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bgh[oprsu]_[A-Za-z0-9]{36}|\b(AccountKey|sig)=[\w%+/=-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""Hugging Face and GitHub tokens, Azure account keys and shared access signatures, private keys."""


def _effective(pod: Inputs, container: Inputs, key: str) -> object:
    """Return a securityContext value; the container's wins over the pod's."""
    own = read(container, "securityContext", key)
    return read(pod, "securityContext", key) if own is None else own


@container_rule("pod-runs-as-non-root", "A container isn't root: set runAsNonRoot to true in the pod's or the container's securityContext.")
def pod_runs_as_non_root(pod: Inputs, container: Inputs) -> Iterator[str]:
    if _effective(pod, container, "runAsNonRoot") not in (True, UNKNOWN):
        yield "runAsNonRoot isn't true"
    if _effective(pod, container, "runAsUser") == 0:
        yield "runAsUser is 0"


@container_rule("pod-is-unprivileged", "A container gains no rights: leave privileged out and set allowPrivilegeEscalation to false.")
def pod_is_unprivileged(_pod: Inputs, container: Inputs) -> Iterator[str]:
    if read(container, "securityContext", "privileged") is True:
        yield "privileged is true"
    if read(container, "securityContext", "allowPrivilegeEscalation") not in (False, UNKNOWN):
        yield "allowPrivilegeEscalation isn't false"


@container_rule("pod-adds-no-capabilities", "A container has no kernel rights beyond the default: leave capabilities.add out.")
def pod_adds_no_capabilities(_pod: Inputs, container: Inputs) -> Iterator[str]:
    if added := listed(container, "securityContext", "capabilities", "add"):
        yield f"it adds {', '.join(map(str, added))}"


@container_rule("pod-root-is-read-only", "A container writes to volumes only: set readOnlyRootFilesystem to true, mount emptyDir for /tmp.")
def pod_root_is_read_only(_pod: Inputs, container: Inputs) -> Iterator[str]:
    if read(container, "securityContext", "readOnlyRootFilesystem") not in (True, UNKNOWN):
        yield "readOnlyRootFilesystem isn't true"


@container_rule("pod-has-memory-limit", "A container that leaks dies before its node does: set resources.limits.memory.")
def pod_has_memory_limit(_pod: Inputs, container: Inputs) -> Iterator[str]:
    if read(container, "resources", "limits", "memory") is None:
        yield "resources.limits.memory is missing"


@pod_rule("pod-shares-no-namespace", "A pod has its own network, processes and IPC: leave hostNetwork, hostPID and hostIPC out.")
def pod_shares_no_namespace(pod: Inputs) -> Iterator[str]:
    yield from (f"{key} is true" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key) is True)


@pod_rule("pod-mounts-no-host-path", "A pod doesn't see its node's files: use emptyDir, a PVC or a CSI volume instead of hostPath.")
def pod_mounts_no_host_path(pod: Inputs) -> Iterator[str]:
    yield from (
        f"volume {volume.get('name', '')} is a hostPath" for volume in objects(pod, "volumes") if volume.get("hostPath") is not None
    )


@rule(
    "job-has-deadline",
    "A job that hangs gives its node back: set activeDeadlineSeconds.",
    "kubernetes:batch/v1:Job",
    "kubernetes:batch/v1:CronJob",
)
def job_has_deadline(inputs: Inputs) -> Iterator[str]:
    job = read(inputs, "spec", "jobTemplate", "spec") or read(inputs, "spec")
    if read(job, "activeDeadlineSeconds") is None:
        yield "activeDeadlineSeconds is missing"


@container_rule("env-holds-no-secret", "A secret isn't written into a manifest: use workload identity, or valueFrom.secretKeyRef.")
def env_holds_no_secret(_pod: Inputs, container: Inputs) -> Iterator[str]:
    for variable in objects(container, "env"):
        name, value = str(variable.get("name", "")), variable.get("value")
        if value not in (None, "") and (SECRET_NAME.search(name) or SECRET_VALUE.search(str(value))):
            yield f"env {name} is a literal"
    for key in ("command", "args"):
        if any(isinstance(word, str) and SECRET_VALUE.search(word) for word in listed(container, key)):
            yield f"{key} hold a secret"


RULES: tuple[Rule, ...] = (
    pod_runs_as_non_root,
    pod_is_unprivileged,
    pod_adds_no_capabilities,
    pod_root_is_read_only,
    pod_has_memory_limit,
    pod_shares_no_namespace,
    pod_mounts_no_host_path,
    job_has_deadline,
    env_holds_no_secret,
)
