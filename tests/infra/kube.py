"""Check Kubernetes manifests: against the API's schemas, one by one against common sense, and against each other.

    schema_problems(manifest, "1.35")  # unknown keys, wrong types, missing keys
    lint(manifest)                     # what a pod should not be allowed, and what it should say
    lint_all(manifests)                # references that lead nowhere

Each finding of the linters is one line: kind/name: container: rule: what to do. What belongs to no container says `pod` or `-`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

Manifest = dict[str, Any]
VERSIONS = ("1.34", "1.35", "1.36")
"""What AKS supports; kubernetes-validate has their schemas."""
CUSTOM_GROUPS = {"autoscaling.x-k8s.io", "azmonitoring.coreos.com", "kueue.x-k8s.io", "monitoring.coreos.com"}
"""API groups of custom resources: their operators check them, not the API's own schemas."""
CLUSTER_SCOPED = {
    *("APIService", "CSIDriver", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "IngressClass", "Namespace"),
    *("PersistentVolume", "PriorityClass", "RuntimeClass", "StorageClass", "VolumeAttributesClass", "DeviceClass"),
    *("MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"),
    *("AdmissionCheck", "ClusterQueue", "Cohort", "ProvisioningRequestConfig", "ResourceFlavor", "Topology", "WorkloadPriorityClass"),
}
"""Kinds without a namespace; the last line are Kueue's."""
GIVEN_NAMESPACES = {"kube-system", "gatekeeper-system"}
"""Namespaces that are in every AKS cluster, so that nobody renders them."""
TEMPLATE_PATHS = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(("DaemonSet", "Deployment", "Job", "StatefulSet"), ("spec", "template")),
}
SERVING = {"DaemonSet", "Deployment", "StatefulSet"}
SECRET_NAME = re.compile(r"(^|_)(TOKEN|KEY)$|PASSWORD|SECRET", re.IGNORECASE)
GPU = "nvidia.com/gpu"
REFERENCES = {
    **dict.fromkeys(("configMap", "configMapKeyRef", "configMapRef"), "ConfigMap"),
    **dict.fromkeys(("secret", "secretKeyRef", "secretRef"), "Secret"),
    "persistentVolumeClaim": "PersistentVolumeClaim",
}


# Against the API's schemas.


def schema_problems(manifest: Manifest, version: str) -> list[str]:
    """Return one line per fault under the strict schema of this Kubernetes version; none for a kind of CUSTOM_GROUPS."""
    if version not in VERSIONS:
        return [f"version {version}: allowed: {', '.join(VERSIONS)}"]
    api, kind = str(manifest.get("apiVersion")), str(manifest.get("kind"))
    if api.partition("/")[0] in CUSTOM_GROUPS and "/" in api:
        return []
    validator = _validator(version, kind.lower(), api)
    if validator is None:
        return [f"{_label(manifest)}: Kubernetes {version} has no {kind} in {api}; a custom resource's group belongs in CUSTOM_GROUPS"]
    return sorted(f"{_label(manifest)}: {text}" for error in validator.iter_errors(manifest) for text in _explained(error))


@cache
def _validator(version: str, kind: str, api: str) -> Draft202012Validator | None:
    group = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", api)  # rbac.authorization.k8s.io/v1 is rbac-v1 there.
    try:
        schema = schema_contents(f"{_folder(version)}/{kind}-{group}.json", version)
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=_registry(version))


@cache
def _registry(version: str) -> Registry:
    definitions = Resource.from_contents(schema_contents(f"{_folder(version)}/_definitions.json", version))
    return Registry().with_resource(definitions.id(), definitions)


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}.0-local-strict"


def _explained(error: ValidationError) -> Iterator[str]:
    """Yield path, value and what is allowed there."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).removeprefix(".") or "manifest"
    if error.validator == "additionalProperties":
        yield f"{path}: {error.message}; allowed: {', '.join(sorted(error.schema['properties']))}"
    elif error.validator == "required":
        yield f"{path}: {error.message}"
    else:
        yield f"{path} = {error.instance!r:.80}: must keep to {error.validator} {error.validator_value!r:.200}"


# One manifest.


def lint(manifest: Manifest) -> list[str]:
    """Return what a careful reviewer would not let through; the pod template's containers, init containers too."""
    label, template = _label(manifest), pod_template(manifest)
    found = [f"{label}: -: {rule}: {remedy}" for rule, remedy in _object_findings(manifest, template)]
    if template is None:
        return found
    pod = template.get("spec") or {}
    found += [f"{label}: pod: {rule}: {remedy}" for rule, remedy in _pod_findings(pod)]
    for container in _containers(pod):
        findings = [*_security(container, pod), *_resources(container), *_image(container), *_environment(container)]
        findings += _probes(container) if manifest["kind"] in SERVING and _stays(container, pod) else ()
        found += [f"{label}: {container.get('name')}: {rule}: {remedy}" for rule, remedy in findings]
    return found


def pod_template(manifest: Manifest) -> dict[str, Any] | None:
    """Return the pod template (metadata, spec) of a workload, None for every other kind."""
    path = TEMPLATE_PATHS.get(manifest.get("kind", ""))
    return None if path is None else _at(manifest, *path)


Findings = Iterator[tuple[str, str]]
"""Rule and what to do."""


def _object_findings(manifest: Manifest, template: dict[str, Any] | None) -> Findings:
    spec = manifest.get("spec") or {}
    if manifest.get("kind") == "Service" and not spec.get("selector") and spec.get("type") != "ExternalName":
        yield "selector", "name the labels of the pods that answer"
    if template is not None and manifest["kind"] in SERVING:
        wanted = _at(spec, "selector", "matchLabels")
        if not wanted or not wanted.items() <= _at(template, "metadata", "labels").items():
            yield "selector", "spec.selector.matchLabels must be among the template's labels"


def _pod_findings(pod: dict[str, Any]) -> Findings:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield "host-namespaces", f"remove {key}"
    for volume in pod.get("volumes") or ():
        if "hostPath" in volume:
            yield "host-path", f"volume {volume.get('name')}: use emptyDir, a ConfigMap or a claim instead of hostPath"
    if pod.get("automountServiceAccountToken") is not False and pod.get("serviceAccountName", "default") == "default":
        yield "service-account-token", "set automountServiceAccountToken: false, or name a service account of its own"


def _security(container: dict[str, Any], pod: dict[str, Any]) -> Findings:
    own = container.get("securityContext") or {}
    context, capabilities = (pod.get("securityContext") or {}) | own, own.get("capabilities") or {}
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "run-as-non-root", "set runAsNonRoot: true, and no runAsUser: 0"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "read-only-root", "set readOnlyRootFilesystem: true"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege-escalation", "set allowPrivilegeEscalation: false"
    if own.get("privileged"):
        yield "privileged", "remove privileged"
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "drop-capabilities", "set capabilities.drop: [ALL]"
    if added := set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "add-capabilities", f"don't add {', '.join(sorted(added))}"
    if _at(context, "seccompProfile").get("type") != "RuntimeDefault":
        yield "seccomp", "set seccompProfile.type: RuntimeDefault"


def _resources(container: dict[str, Any]) -> Findings:
    requests, limits = (_at(container, "resources", key) for key in ("requests", "limits"))
    for key, where, values in (("cpu", "requests", requests), ("memory", "requests", requests), ("memory", "limits", limits)):
        if key not in values:
            yield "resources", f"set resources.{where}.{key}"
    gpus = {str(values[GPU]) for values in (requests, limits) if GPU in values}
    if len(gpus) > 1 or (gpus and GPU not in limits):
        yield "gpu", f"give {GPU} the same limit and request"


def _image(container: dict[str, Any]) -> Findings:
    name, _, digest = str(container.get("image") or "").partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        yield "image", f"@{digest} is no sha256 digest"
    elif not digest and tag in ("", "latest"):
        yield "image", "give a version tag or a digest, not latest"
    elif not digest and not re.search(r"\d", tag):
        yield "image", f":{tag} moves; give a version tag or a digest"


def _environment(container: dict[str, Any]) -> Findings:
    for variable in container.get("env") or ():
        if variable.get("value") and SECRET_NAME.search(variable.get("name", "")):
            yield "plain-secret", f"take {variable['name']} from a Secret (valueFrom.secretKeyRef)"


def _probes(container: dict[str, Any]) -> Findings:
    if container.get("ports") and "readinessProbe" not in container:
        yield "readiness", "add a readinessProbe"
    if container.get("ports") and not {"livenessProbe", "startupProbe"} & container.keys():
        yield "liveness", "add a livenessProbe or a startupProbe"


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]


def _stays(container: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Say whether the container serves: not an init container that ends before the pod starts."""
    return container not in (pod.get("initContainers") or ()) or container.get("restartPolicy") == "Always"


# All manifests of a stack together.


def lint_all(manifests: list[Manifest]) -> list[str]:
    """Return references that lead nowhere, names given twice, namespaces that nobody makes."""
    names = Counter(_identity(manifest) for manifest in manifests)
    templates = [(_namespace(manifest), pod_template(manifest)) for manifest in manifests if pod_template(manifest) is not None]
    found = [
        f"{kind}/{name}: -: duplicate: {namespace or 'cluster'} has {n} of them" for (kind, namespace, name), n in names.items() if n > 1
    ]
    for manifest in manifests:
        findings = [*_namespace_findings(manifest, names), *_service_findings(manifest, templates), *_reference_findings(manifest, names)]
        found += [f"{_label(manifest)}: {where}: {rule}: {remedy}" for where, rule, remedy in findings]
    return found


Identity = tuple[str, str, str]
"""Kind, namespace ("" for what has none), name."""


def _identity(manifest: Manifest) -> Identity:
    return manifest["kind"], _namespace(manifest), _at(manifest, "metadata").get("name", "")


def _namespace(manifest: Manifest) -> str:
    return "" if manifest["kind"] in CLUSTER_SCOPED else _at(manifest, "metadata").get("namespace", "")


def _namespace_findings(manifest: Manifest, names: Counter[Identity]) -> Iterator[tuple[str, str, str]]:
    namespace = _namespace(manifest)
    if manifest["kind"] not in CLUSTER_SCOPED and namespace not in GIVEN_NAMESPACES and ("Namespace", "", namespace) not in names:
        yield "-", "namespace", f"render Namespace {namespace!r}, or use one that is" if namespace else "set metadata.namespace"


def _service_findings(manifest: Manifest, templates: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, str, str]]:
    selector = _at(manifest, "spec", "selector") if manifest["kind"] == "Service" else {}
    labels = [_at(template, "metadata", "labels") for namespace, template in templates if namespace == _namespace(manifest)]
    if selector and not any(selector.items() <= of_pod.items() for of_pod in labels):
        yield "-", "selector", f"no pod template of the namespace has all of {selector}"


def _reference_findings(manifest: Manifest, names: Counter[Identity]) -> Iterator[tuple[str, str, str]]:
    pod = (pod_template(manifest) or {}).get("spec") or {}
    for where, kind, name in sorted(set(_references(pod))):
        if (kind, _namespace(manifest), name) not in names:
            yield where, "reference", f"render {kind} {name} in namespace {_namespace(manifest)}"


def _references(pod: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield where, kind and name of each object that must be there before the pod starts."""
    if pod.get("serviceAccountName", "default") != "default":
        yield "pod", "ServiceAccount", pod["serviceAccountName"]
    for secret in pod.get("imagePullSecrets") or ():
        yield "pod", "Secret", secret.get("name")
    volumes = pod.get("volumes") or ()
    for source in [*volumes, *(source for volume in volumes for source in _at(volume, "projected").get("sources") or ())]:
        yield from (("pod", *reference) for reference in _named(source))
    for container in _containers(pod):
        sources = [*(container.get("envFrom") or ()), *(_at(variable, "valueFrom") for variable in container.get("env") or ())]
        yield from ((container.get("name"), *reference) for source in sources for reference in _named(source))


def _named(source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, kind in REFERENCES.items():
        reference = source.get(key) or {}
        name = reference.get("name") or reference.get("secretName") or reference.get("claimName")
        if name and not reference.get("optional") and name != "kube-root-ca.crt":  # In every namespace.
            yield kind, name


def _at(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return the mapping at this path, an empty one where there is none."""
    for key in keys:
        value = value.get(key) or {}
    return value


def _label(manifest: Manifest) -> str:
    return f"{manifest.get('kind')}/{_at(manifest, 'metadata').get('name')}"
