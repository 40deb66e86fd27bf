"""A job's pods: what they ask for, where they may run, who they are, and what happens when one goes away."""

import copy
import json
import uuid
from typing import Any

import pytest

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.render import Rendered, render
from ncdemo.infra.stand_in import CONNECTION_STAND_IN, SECRET
from ncdemo.spec.base import SpecError
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_INTERRUPTED, NCDEMO_MASTER_ADDR, NCDEMO_NODES, STOP_S
from ncdemo.spec.stack_file import stack_of

LORA, DEMO, BENCH, ENDPOINT = (
    f"workloads/configs/{name}.yaml" for name in ("training/lora", "training/demo", "inference/demo", "inference/endpoint")
)
POOLS = [
    {"name": "one", "vm_size": "Standard_NC40ads_H100_v5", "max_count": 2, "namespace": "small"},
    {"name": "two", "vm_size": "Standard_NC80adis_H100_v5", "spot": False, "max_count": 2},
    {"name": "cpu", "vm_size": "Standard_D8s_v5", "spot": False},
]


def of(*jobs: dict[str, Any], **config: Any) -> Rendered:
    return render(stack_of("test", {"pools": copy.deepcopy(POOLS), "jobs": list(jobs), **config}, {}))


def manifest(found: Rendered, kind: str, job: str) -> dict[str, Any]:
    name = found.outputs["jobs"][job]
    return next(m for m in found.manifests() if m["kind"] == kind and m["metadata"]["name"] == name)


def pod(found: Rendered, job: str) -> dict[str, Any]:
    return manifest(found, "Job", job)["spec"]["template"]["spec"]


def env(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def limits(container: dict[str, Any]) -> dict[str, str]:
    assert container["resources"]["limits"] == container["resources"]["requests"]
    return container["resources"]["limits"]


def test_a_pod_gets_its_gpus_part_of_the_node() -> None:
    found = of({"name": "half", "config": LORA, "pool": "two", "gpus": 1}, {"name": "all", "config": LORA, "pool": "two"})
    half, whole = (limits(pod(found, name)["containers"][0]) for name in ("half", "all"))
    assert (half["nvidia.com/gpu"], whole["nvidia.com/gpu"]) == ("1", "2")
    assert (half["cpu"], whole["cpu"]) == ("34000m", "68000m")
    assert (half["memory"], whole["memory"]) == ("272Gi", "544Gi")
    # Two halves fit on one node, with room for what else runs there.
    assert 2 * 34 < 80
    assert 2 * 272 < 640


def test_a_job_is_told_what_its_nodes_are() -> None:
    found = of({"name": "tune", "config": LORA, "pool": "two"}, location="spaincentral")
    told = env(pod(found, "tune")["containers"][0])
    assert (told["NCDEMO_VM_SIZE"], told["NCDEMO_REGION"]) == ("Standard_NC80adis_H100_v5", "spaincentral")


def test_one_rank_runs_per_gpu() -> None:
    found = of({"name": "two-ranks", "config": LORA, "pool": "two"}, {"name": "no-gpu", "config": LORA, "pool": "cpu"})
    assert [run.run.train.processes for run in found.stack.jobs] == [2, 1]
    assert "nvidia.com/gpu" not in limits(pod(found, "no-gpu")["containers"][0])


def test_pods_are_placed_by_pool_and_tolerate_its_taints_alone() -> None:
    found = of(*({"name": f"on-{pool['name']}", "config": LORA, "pool": pool["name"]} for pool in POOLS))
    keys = {name: {t["key"] for t in pod(found, name)["tolerations"]} for name in ("on-one", "on-two", "on-cpu")}
    assert keys == {
        "on-one": {"nvidia.com/gpu", "kubernetes.azure.com/scalesetpriority"},
        "on-two": {"nvidia.com/gpu"},
        "on-cpu": set(),
    }
    assert pod(found, "on-one")["nodeSelector"] == {"ncdemo.io/pool": "one"}
    pools = {r.inputs["agentPoolName"]: r.inputs for r in found.of("AgentPool")}
    tainted = {name: {taint.partition("=")[0] for taint in one.get("nodeTaints", [])} for name, one in pools.items()}
    assert {f"on-{name}": taints for name, taints in tainted.items()} == keys
    assert all(one["nodeLabels"]["ncdemo.io/pool"] == name for name, one in pools.items())
    assert manifest(found, "Job", "on-one")["metadata"]["namespace"] == "small"


def test_ephemeral_storage_stays_below_the_os_disk() -> None:
    found = of({"name": "big", "config": LORA, "pool": "one", "scratch_gib": 179})
    asked = int(limits(pod(found, "big")["containers"][0])["ephemeral-storage"].removesuffix("Gi"))
    disk = next(r.inputs["osDiskSizeGB"] for r in found.of("AgentPool") if r.inputs["agentPoolName"] == "one")
    assert asked == 179 < disk


def test_what_ends_a_job_and_what_does_not_count() -> None:
    spec = manifest(of({"name": "tune", "config": LORA, "pool": "one", "retries": 4, "deadline_h": 1.5}), "Job", "tune")["spec"]
    ignored, again, fatal = spec["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (again["action"], again["onExitCodes"]["values"]) == ("Ignore", [EXIT_INTERRUPTED])
    assert (fatal["action"], fatal["onExitCodes"]["values"]) == ("FailJob", [EXIT_BAD_SPEC])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (4, 5400)
    assert "ttlSecondsAfterFinished" not in spec
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > STOP_S


def test_nodes_that_train_together_find_each_other() -> None:
    found = of({"name": "wide", "config": LORA, "pool": "two", "nodes": 2})
    job, name = manifest(found, "Job", "wide"), found.outputs["jobs"]["wide"]
    spec = job["spec"]["template"]["spec"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 2, 2)
    told = env(spec["containers"][0])
    # An Indexed Job's pod 0 has the hostname <job>-0, below the service that its subdomain names.
    assert told[NCDEMO_MASTER_ADDR] == f"{name}-0.{spec['subdomain']}.ncdemo.svc"
    assert told[NCDEMO_NODES] == "2"
    service = manifest(found, "Service", "wide")
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == (spec["subdomain"], "None")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert (
        spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"] == "kubernetes.io/hostname"
    )


def test_one_node_has_no_service() -> None:
    found = of({"name": "alone", "config": LORA, "pool": "one"})
    assert not [m for m in found.manifests() if m["kind"] == "Service" and m["metadata"]["name"].startswith("alone")]


def test_an_engine_in_its_own_container_has_the_gpus_and_is_waited_for() -> None:
    server = {
        "image": "nvcr.io/nvidia/tensorrt-llm/release:1.0.0",
        "command": ["trtllm-serve", "/files/model", "--port", "8000"],
        "start_minutes": 10,
    }
    found = of({"name": "trt", "config": ENDPOINT, "pool": "one", "server": server}, {"name": "plain", "config": BENCH, "pool": "one"})
    spec, plain = pod(found, "trt"), pod(found, "plain")
    (engine,), (client,) = spec["initContainers"], spec["containers"]
    # A sidecar of Kubernetes: it starts first, and ends with the job's own container.
    assert engine["restartPolicy"] == "Always"
    assert engine["command"] == server["command"]
    assert engine["startupProbe"]["failureThreshold"] * engine["startupProbe"]["periodSeconds"] == 600
    assert limits(engine)["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in limits(client)
    both = sum(int(limits(one)["memory"].removesuffix("Gi")) for one in (engine, client))
    assert both <= int(limits(plain["containers"][0])["memory"].removesuffix("Gi"))
    configs = [m for m in found.manifests() if m["kind"] == "ConfigMap" and m["metadata"]["name"].startswith("trt")]
    assert any("url: http://127.0.0.1:8000" in text for m in configs for text in m["data"].values()), "the job loads that very server"


def test_a_server_that_no_benchmark_loads_is_refused() -> None:
    server = {"image": "engine.example/server:1.0", "command": ["serve"], "port": 9000}
    for config in (BENCH, ENDPOINT, LORA):
        with pytest.raises(SpecError, match=r"server.*nothing loads it; .* url: http://127\.0\.0\.1:9000 \(under set:\)"):
            of({"name": "trt", "config": config, "pool": "one", "server": server})
    of({"name": "trt", "config": ENDPOINT, "pool": "one", "server": server, "set": {"url": "http://127.0.0.1:9000"}})


def test_kueue_starts_jobs_that_are_suspended() -> None:
    found = of({"name": "tune", "config": LORA, "pool": "one"}, aks={"kueue": True})
    job = manifest(found, "Job", "tune")
    assert job["spec"]["suspend"] is True
    queue = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    local = [m for m in found.manifests() if m["kind"] == "LocalQueue" and m["metadata"]["namespace"] == "small"]
    assert [m["metadata"]["name"] for m in local] == [queue]
    (cluster,) = [m for m in found.manifests() if m["kind"] == "ClusterQueue"]
    covered = set(cluster["spec"]["resourceGroups"][0]["coveredResources"])
    assert set(limits(pod(found, "tune")["containers"][0])) <= covered
    flavors = {m["metadata"]["name"]: m["spec"] for m in found.manifests() if m["kind"] == "ResourceFlavor"}
    assert flavors["one"]["nodeLabels"].items() <= pod(found, "tune")["nodeSelector"].items()


def test_jobs_act_as_their_azure_identity() -> None:
    found = of({"name": "tune", "config": LORA, "pool": "one"})
    account = next(m for m in found.manifests() if m["kind"] == "ServiceAccount" and m["metadata"]["namespace"] == "small")
    trusts = {r.inputs["subject"]: r.inputs for r in found.of("FederatedIdentityCredential")}
    trust = trusts[f"system:serviceaccount:small:{account['metadata']['name']}"]
    assert trust["audiences"] == ["api://AzureADTokenExchange"]
    assert trust["issuer"].startswith("https://oidc.")
    assert account["metadata"]["annotations"]["azure.workload.identity/client-id"]
    template = manifest(found, "Job", "tune")["spec"]["template"]
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]


VARIABLE = "APPLICATIONINSIGHTS_CONNECTION_STRING"
PUBLISHER = "3913510d-42f4-4e42-8a64-420c390055eb"


def test_jobs_are_told_where_application_insights_is_by_a_secret() -> None:
    found = of({"name": "tune", "config": LORA, "pool": "one"}, monitoring={"application_insights": True})
    containers = pod(found, "tune")["containers"]
    ref = env(containers[0])[VARIABLE]["secretKeyRef"]
    held = {m["metadata"]["namespace"]: m for m in found.manifests() if m["kind"] == "Secret" and m["metadata"]["name"] == ref["name"]}
    assert held.keys() == set(found.stack.namespaces)
    assert held["small"]["stringData"] == {ref["key"]: SECRET}
    assert CONNECTION_STAND_IN not in json.dumps([one.inputs for one in found.resources])
    assert VARIABLE not in env(pod(of({"name": "tune", "config": LORA, "pool": "one"}), "tune")["containers"][0])


@pytest.mark.parametrize("target", ["aks", "vm"])
def test_the_jobs_identity_alone_writes_to_application_insights(target: str) -> None:
    found = of(
        target=target, monitoring={"application_insights": True, "in_cluster": target == "aks", "application_insights_gb_per_day": 0.5}
    )
    (component,), (workspace,) = found.of("Component"), found.of("Workspace")
    jobs = next(one for one in found.resources if one.name == "identity-jobs-identity")
    roles = [one.inputs for one in found.of("RoleAssignment") if one.inputs["roleDefinitionId"].endswith(PUBLISHER)]
    assert [role["scope"].rpartition("/")[2] for role in roles] == [component.inputs["resourceName"]]
    assert roles[0]["principalId"] == str(uuid.uuid5(uuid.NAMESPACE_URL, f"{jobs.inputs['resourceName']}:principalId"))
    assert component.inputs["disableLocalAuth"] is True
    assert component.inputs["workspaceResourceId"].endswith(f"/{workspace.inputs['workspaceName']}")
    assert workspace.inputs["workspaceCapping"] == {"dailyQuotaGb": 0.5}
    assert not of(target=target).of("Component")


def test_a_cluster_that_exists_gets_jobs_and_nothing_of_azure() -> None:
    config = {"target": "kubernetes", "images": {"repository": "registry.example/ncdemo"}, "kubernetes": {"context": "kind"}}
    found = of({"name": "tune", "config": DEMO, "gpus": 0}, **config)
    assert not [r for r in found.resources if r.type.startswith("azure-native:")]
    spec = pod(found, "tune")
    assert spec["containers"][0]["image"] == "registry.example/ncdemo:0.1.0-train"
    assert {"name": "runs", "persistentVolumeClaim": {"claimName": "ncdemo-runs"}} in spec["volumes"]
    assert [m for m in found.manifests() if m["kind"] == "PersistentVolumeClaim" and m["metadata"]["name"] == "ncdemo-runs"]
    assert "NCDEMO_RESULTS_URI" not in env(spec["containers"][0])
    assert "nodeSelector" not in spec
    provider = next(r for r in found.resources if r.type == "pulumi:providers:kubernetes")
    assert provider.inputs["context"] == "kind"


@pytest.mark.parametrize("config", [{"monitoring": {"in_cluster": True}}, {"jobs": [{"name": "a", "config": LORA}]}], ids=["mlflow", "job"])
def test_a_cluster_that_exists_needs_a_repository_for_whatever_runs_there(config: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"images\.repository.*is needed with target: kubernetes.*name one"):
        render(stack_of("test", {"target": "kubernetes", "pools": [], **config}, {}))
