"""Where a Kubernetes manifest keeps its pod, and the pod its containers: what every rule over pods starts from.

python -m pytest tests/infra/test_policy.py -k pod
"""

from collections.abc import Callable, Iterator, Mapping

from ncdemo.infra.policy.base import Inputs, Rule, objects, read

DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
POD_PATHS = {
    "kubernetes:core/v1:Pod": ("spec",),
    "kubernetes:batch/v1:Job": ("spec", "template", "spec"),
    "kubernetes:batch/v1:CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    "kubernetes:apps/v1:Deployment": ("spec", "template", "spec"),
    "kubernetes:apps/v1:ReplicaSet": ("spec", "template", "spec"),
    "kubernetes:apps/v1:StatefulSet": ("spec", "template", "spec"),
    DAEMON_SET: ("spec", "template", "spec"),
}
"""Type token -> path of the pod's spec."""


def pod_spec(type_token: str, inputs: Inputs) -> Inputs:
    """Return the pod spec of a manifest; {} where it has none, or none that is known yet."""
    spec = read(inputs, *POD_PATHS[type_token]) if type_token in POD_PATHS else None
    return spec if isinstance(spec, Mapping) else {}


def containers(pod: Inputs) -> list[Inputs]:
    """Return the containers of a pod, those that prepare it first."""
    return [*objects(pod, "initContainers"), *objects(pod, "containers")]


def pod_rule(name: str, description: str) -> Callable[[Callable[[Inputs], Iterator[str]]], Rule]:
    """Make a Rule of a generator over pod specs."""

    def make(check: Callable[[Inputs], Iterator[str]]) -> Rule:
        def over(type_token: str, _name: str, inputs: Inputs) -> Iterator[str]:
            yield from check(pod_spec(type_token, inputs))

        return Rule(name, description, over)

    return make


def container_rule(name: str, description: str) -> Callable[[Callable[[Inputs, Inputs], Iterator[str]]], Rule]:
    """Make a Rule of a generator over a pod spec and one of its containers."""

    def make(check: Callable[[Inputs, Inputs], Iterator[str]]) -> Rule:
        def over(pod: Inputs) -> Iterator[str]:
            for container in containers(pod):
                yield from (f"container {container.get('name', '')}: {line}" for line in check(pod, container))

        return pod_rule(name, description)(over)

    return make
