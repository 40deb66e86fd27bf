"""`ncdemo doctor cluster`: a cluster and Azure on loopback, made of what the stacks render; then one thing after the other goes wrong."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pulumi", reason="needs the infra extra")
pytest.importorskip("kubernetes", reason="needs the infra extra")

from ncdemo.infra.render import Rendered, render
from ncdemo.spec.stack_file import load_stack
from tests.operate.arm_api import ArmApi
from tests.operate.cluster_api import CLIENT, ClusterApi, azure_things

ROOT = Path(__file__).resolve().parents[2]
CACHE: dict[str, Rendered] = {}
EXISTING = """\
config:
  ncdemo:target: kubernetes
  ncdemo:kubernetes: {context: there, queue: team, node_selector: {pool: gpu}}
  ncdemo:images: {repository: registry.example/ncdemo}
  ncdemo:jobs:
    - {name: tune, config: workloads/configs/training/lora.yaml}
"""
Findings = dict[str, tuple[str, str, str | None]]


def rendered(name: str) -> Rendered:
    if name not in CACHE:
        CACHE[name] = render(load_stack(ROOT / "stacks" / f"Pulumi.{name}.yaml"))
    return CACHE[name]


@pytest.fixture(autouse=True)
def rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes seconds, and is the same each time."""

    def cached(loaded: Any) -> Rendered:
        return CACHE.get(loaded.name) or CACHE.setdefault(loaded.name, render(loaded))

    monkeypatch.setattr("ncdemo.cli.stack.rendered", cached)


@pytest.fixture
def api(ncdemo: Any, tmp_path: Path) -> Iterator[ClusterApi]:
    with ClusterApi() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig("aks-ncdemo-aks-dev"))
        ncdemo.env["KUBECONFIG"] = str(tmp_path / "kubeconfig")
        yield api


@pytest.fixture
def azure(ncdemo: Any) -> Iterator[ArmApi]:
    with ArmApi() as azure:
        ncdemo.env |= azure.env()
        yield azure


@pytest.fixture
def dev(api: ClusterApi, azure: ArmApi) -> ClusterApi:
    """The cluster of aks-dev as it should be, with one GPU node, and a job that has finished."""
    api.apply(rendered("aks-dev"), gpu_nodes=1)
    azure.things = azure_things(rendered("aks-dev"))
    job = next(one for one in api.jobs if one.startswith("tune"))
    api.end(job, "Complete")
    return api


def ask(ncdemo: Any, *words: str, code: int = 1, **env: str) -> Findings:
    """Return check -> status, text, remedy."""
    found = json.loads(ncdemo.here("doctor", "cluster", *words, "--json", code=code, **env))["findings"]
    assert all(one["status"] == "ok" or one["remedy"] for one in found), "every finding says what to do"
    return {one["check"]: (one["status"], one["found"], one["remedy"]) for one in found}


def path(api: ClusterApi, end: str) -> str:
    (found,) = [one for one in api.objects if one.endswith(end)]
    return found


def test_a_cluster_as_its_stack_says_is_ok_all_over(ncdemo: Any, dev: ClusterApi) -> None:
    found = ask(ncdemo, "aks-dev", code=0)
    assert {status for status, _, _ in found.values()} == {"ok"}
    assert found["pool h100"][1] == "0 of 0 to 2 nodes, spot, labels and taints as the stack says"
    assert found["nodes of h100"][1] == "1 ready"
    assert found["gpu"][1] == "1 nodes offer 1 nvidia.com/gpu"
    assert found["account ncdemo/ncdemo-job"][1] == f"acts as id-ncdemo-aks-dev-jobs (client id {CLIENT})"
    assert found["federation"][1] == "id-ncdemo-aks-dev-jobs trusts system:serviceaccount:ncdemo:ncdemo-job"
    assert found["namespace ncdemo"][1] == "pod security: restricted"
    assert "copied its results to az://metrics/jobs" in found["storage"][1]
    text = ncdemo.here("doctor", "cluster", "aks-dev")
    assert text.splitlines()[0].startswith("ok       cluster                      Kubernetes v1.35.2 at http://127.0.0.1:")
    assert [one for one in dev.asked if one[0] != "GET"] == [], "looking changes nothing"


def test_everything_of_the_largest_stack(ncdemo: Any, api: ClusterApi, azure: ArmApi, tmp_path: Path) -> None:
    api.apply(rendered("aks-full"), gpu_nodes=1)
    azure.things = azure_things(rendered("aks-full"))
    Path(ncdemo.env["KUBECONFIG"]).write_text(api.kubeconfig("aks-ncdemo-aks-full"))
    found = ask(ncdemo, "aks-full", code=0)
    assert found.pop("storage")[:2] == ("unknown", "no job of this cluster has copied its results yet")
    assert {status for status, _, _ in found.values()} == {"ok"}
    assert found["cluster queue ncdemo"][1] == "active; GPUs: nc40spot 4, nc40 1, nc80spot 4, nc80 4"
    assert {"monitoring/prometheus", "monitoring/pushgateway", "monitoring/mlflow", "monitoring/grafana"} <= found.keys()
    assert {"queue nc40/ncdemo", "queue nc80/ncdemo", "volume nc40/ncdemo-files", "pool nc80"} <= found.keys()
    queue = api.objects[path(api, "/clusterqueues/ncdemo")]
    next(r for r in queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"] if r["name"] == "memory")["nominalQuota"] = "64Gi"
    local = api.objects[path(api, "nc80/localqueues/ncdemo")]
    local["status"]["conditions"] = [{"type": "Active", "status": "False", "reason": "x", "message": "the ClusterQueue is stopped"}]
    api.objects[path(api, "/kueue-controller-manager")]["status"] = {}
    mlflow = api.objects[path(api, "/statefulsets/mlflow")]
    mlflow["status"] = {}
    labels = mlflow["spec"]["selector"]["matchLabels"]
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    api.pods["mlflow-0"] = {"metadata": {"name": "mlflow-0", "namespace": "monitoring", "labels": labels},
                            "status": {"containerStatuses": [{"name": "mlflow", "state": waiting}]}}  # fmt: skip
    del api.objects[path(api, "/services/prometheus")]
    found = ask(ncdemo, "aks-full")
    assert found["cluster queue ncdemo"] == (
        "fail", "memory of nc40spot is 64Gi, the stack says 1,280Gi", "ncdemo stack up aks-full")  # fmt: skip
    assert found["queue nc80/ncdemo"] == (
        "fail", "isn't active: the ClusterQueue is stopped", "kubectl describe localqueue ncdemo -n nc80")  # fmt: skip
    assert found["kueue"][:2] == ("fail", "its controller kueue-system/kueue-controller-manager isn't ready, so jobs are never let go")
    assert found["monitoring/mlflow"] == (
        "fail", "isn't ready: ImagePullBackOff: no such image", "ncdemo image build mlflow --azure --stack aks-full")  # fmt: skip
    assert found["monitoring/prometheus"][1] == "runs, and has no service, so jobs don't reach it"
    for one in [one for one in api.objects if "kueue.x-k8s.io" in one]:
        del api.objects[one]
    assert ask(ncdemo, "aks-full")["kueue"] == ("fail", "isn't installed, so jobs are never let go", "ncdemo stack up aks-full")


def drop(end: str) -> Callable[[ClusterApi, ArmApi], None]:
    return lambda api, azure: api.objects.pop(path(api, end)) and None


def change(end: str, **values: Any) -> Callable[[ClusterApi, ArmApi], None]:
    return lambda api, azure: api.objects[path(api, end)].update(values)


def pool(**values: Any) -> Callable[[ClusterApi, ArmApi], None]:
    return lambda api, azure: next(v for k, v in azure.things.items() if k.endswith("agentPools"))["value"][0]["properties"].update(values)


def trust(**values: Any) -> Callable[[ClusterApi, ArmApi], None]:
    return lambda api, azure: next(v for k, v in azure.things.items() if k.endswith("Credentials"))["value"][0]["properties"].update(values)


def node(**values: Any) -> Callable[[ClusterApi, ArmApi], None]:
    def broken(api: ClusterApi, azure: ArmApi) -> None:
        api.objects["/api/v1/nodes/aks-gpu-0"].update(values)

    return broken


UP = "ncdemo stack up aks-dev"
WRONG = [
    (pool(maxCount=1), "pool h100", "fail", "maxCount is 1, the stack says 2", UP),
    (pool(nodeTaints=["nvidia.com/gpu=present:NoSchedule"]), "pool h100", "fail",
     "taint kubernetes.azure.com/scalesetpriority=spot:NoSchedule is missing", UP),
    (pool(nodeLabels={"ncdemo.io/pool": "h100", "ncdemo.io/gpu": "true"}), "pool h100", "fail",
     "label kubernetes.azure.com/scalesetpriority=spot is missing", UP),
    (pool(provisioningState="Failed"), "pool h100", "fail", "its state is Failed", "az aks nodepool show -g rg-ncdemo-aks-dev"),
    (pool(powerState={"code": "Stopped"}), "pool h100", "fail", "is stopped", "az aks nodepool start"),
    (lambda api, azure: next(v for k, v in azure.things.items() if k.endswith("agentPools"))["value"].clear(),
     "pool h100", "fail", "isn't there", UP),
    (lambda api, azure: azure.things.clear(), "pools", "fail", "there is no cluster aks-ncdemo-aks-dev in rg-ncdemo-aks-dev", UP),
    (node(spec={"taints": []}), "nodes of h100", "fail", "aks-gpu-0 lacks taint nvidia.com/gpu=present:NoSchedule, taint", UP),
    (node(status={"conditions": [{"type": "Ready", "status": "Unknown", "message": "no word"}], "allocatable": {"nvidia.com/gpu": "1"}}),
     "nodes of h100", "warn", "aks-gpu-0 isn't ready (no word)", "kubectl describe node aks-gpu-0"),
    (node(status={"conditions": [{"type": "Ready", "status": "True"}]}), "gpu", "fail", "aks-gpu-0 offers 0 of 1 nvidia.com/gpu",
     "kubectl describe node aks-gpu-0"),
    (drop("/nodes/aks-gpu-0"), "gpu", "unknown", "no GPU node now, so whether one offers nvidia.com/gpu can't be seen", "start a job"),
    (drop("/daemonsets/device-plugin"), "device plugin", "fail", "isn't there, so no pod gets a GPU", UP),
    (change("/daemonsets/device-plugin", status={"desiredNumberScheduled": 1, "numberReady": 0}), "device plugin", "fail",
     "ncdemo-gpu/device-plugin is ready on 0 of 1 GPU nodes", "kubectl describe pods -n ncdemo-gpu"),
    (drop("/namespaces/ncdemo"), "namespace ncdemo", "fail", "isn't there", UP),
    (change("/namespaces/ncdemo", status={"phase": "Terminating"}), "namespace ncdemo", "fail", "is being deleted", "kubectl get all"),
    (change("/namespaces/ncdemo", metadata={"name": "ncdemo", "labels": {}}), "namespace ncdemo", "fail", "lacks ",
     "kubectl label namespace ncdemo --overwrite"),
    (drop("-webhook-configuration"), "workload identity", "fail", "its webhook isn't there", "az aks update -g rg-ncdemo-aks-dev"),
    (change("/endpointslices/wi-1", endpoints=[{"conditions": {"ready": False}}]), "workload identity", "fail", "no pod of its webhook",
     "kubectl get pods -n kube-system"),
    (drop("/serviceaccounts/ncdemo-job"), "account ncdemo/ncdemo-job", "fail", "isn't there, so no pod of its jobs can start", UP),
    (change("/serviceaccounts/ncdemo-job", metadata={"name": "ncdemo-job"}), "account ncdemo/ncdemo-job", "fail",
     "has no annotation azure.workload.identity/client-id", UP),
    (change("/serviceaccounts/ncdemo-job", metadata={"name": "x", "annotations": {"azure.workload.identity/client-id": "other"}}),
     "account ncdemo/ncdemo-job", "fail", f"acts as client id other, and id-ncdemo-aks-dev-jobs has {CLIENT}", UP),
    (trust(subject="system:serviceaccount:ncdemo:other"), "federation", "fail",
     "id-ncdemo-aks-dev-jobs doesn't trust system:serviceaccount:ncdemo:ncdemo-job", UP),
    (trust(issuer="https://oidc.example/gone/"), "federation", "fail", "of another cluster (https://oidc.example/gone/", UP),
    (trust(audiences=["x"]), "federation", "fail", "for x, not api://AzureADTokenExchange", UP),
    (lambda api, azure: api.jobs.clear(), "storage", "unknown", "no job of ncdemo's is there to judge by",
     "ncdemo doctor cluster aks-dev --probe-storage"),
]  # fmt: skip


@pytest.mark.parametrize(("break_it", "check", "status", "text", "remedy"), WRONG, ids=[f"{n}-{one[1]}" for n, one in enumerate(WRONG)])
def test_what_is_wrong_is_found_and_nothing_else(
    ncdemo: Any, dev: ClusterApi, azure: ArmApi, break_it: Any, check: str, status: str, text: str, remedy: str
) -> None:
    break_it(dev, azure)
    found = ask(ncdemo, "aks-dev", code=1 if status == "fail" else 0)
    assert found[check][0] == status
    assert text in found[check][1]
    assert remedy in found[check][2]
    # One thing that is missing is seen from both sides where Azure and the cluster have it both.
    related = {"pools": {"account ncdemo/ncdemo-job"}}
    assert {one for one, (is_, _, _) in found.items() if is_ != "ok"} <= {check} | related.get(check, set())


def test_a_result_of_last_week_is_no_proof(ncdemo: Any, dev: ClusterApi) -> None:
    for job in dev.jobs.values():
        job["status"]["completionTime"] = "2026-01-01T00:00:00Z"
    status, text, remedy = ask(ncdemo, "aks-dev", code=0)["storage"]
    assert (status, remedy) == ("unknown", "ncdemo doctor cluster aks-dev --probe-storage")
    assert "h ago" in text


def test_without_rights_it_is_unknown_once_per_check(ncdemo: Any, dev: ClusterApi) -> None:
    dev.refuse = lambda method, at: (403, f'User "x" cannot list {at}') if "nodes" in at or "webhook" in at else None
    found = ask(ncdemo, "aks-dev", code=0)
    for check in ("nodes", "gpu", "workload identity"):
        assert found[check][:2] == ("unknown", f"no rights: {found[check][1].removeprefix('no rights: ')}")
        assert "Azure Kubernetes Service RBAC Cluster Admin" in found[check][2]
    dev.refuse = lambda method, at: (403, "forbidden")
    found = ask(ncdemo, "aks-dev", code=0)
    assert found["namespaces"][1] == "no rights: forbidden"
    assert found["pool h100"][0] == "ok", "Azure is another matter"


def test_without_azure_the_cluster_is_judged_all_the_same(ncdemo: Any, dev: ClusterApi, azure: ArmApi) -> None:
    azure.refuse = lambda method, at: (403, "The client may not read")
    found = ask(ncdemo, "aks-dev", code=0)
    assert {one for one, (status, _, _) in found.items() if status == "unknown"} == {"pools", "account ncdemo/ncdemo-job", "federation"}
    assert f"acts as client id {CLIENT}; whether that is id-ncdemo-aks-dev-jobs isn't known" in found["account ncdemo/ncdemo-job"][1]


def test_no_cluster_no_login_no_answer_are_one_finding_each(
    ncdemo: Any, dev: ClusterApi, azure: ArmApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = Path(ncdemo.env["KUBECONFIG"])

    def only() -> tuple[str, str, str | None]:
        found = ask(ncdemo, "aks-dev")
        assert list(found) == ["cluster"]
        return found["cluster"]

    kubeconfig.write_text(dev.kubeconfig("elsewhere"))
    assert only()[2] == "bring it with: az aks get-credentials -g rg-ncdemo-aks-dev -n aks-ncdemo-aks-dev"
    assert ask(ncdemo, "aks-dev", "--context", "elsewhere", code=0)["cluster"][0] == "ok"
    kubeconfig.write_text(dev.kubeconfig("aks-ncdemo-aks-dev", token="expired"))
    assert "doesn't accept this login" in only()[1]
    assert "az login" in only()[2]
    kubeconfig.write_text(dev.kubeconfig("aks-ncdemo-aks-dev"))
    dev.refuse = lambda method, at: (403, 'User "system:anonymous" cannot get path "/version"')
    assert "doesn't accept this login" in only()[1]
    dev.refuse = lambda method, at: time.sleep(0.5)
    monkeypatch.setattr("ncdemo.cli.doctor_cluster.READ_S", 0.1)
    assert "can't be reached (ReadTimeoutError)" in only()[1]
    monkeypatch.undo()
    dev.refuse = lambda method, at: None
    kubeconfig.write_text(dev.kubeconfig("aks-ncdemo-aks-dev").replace(dev.url, "http://127.0.0.1:9"))
    assert "can't be reached" in only()[1]
    cluster = next(value for key, value in azure.things.items() if key.endswith("aks-ncdemo-aks-dev"))
    cluster["properties"]["powerState"] = {"code": "Stopped"}
    assert only()[1:] == ("aks-ncdemo-aks-dev is stopped", "az aks start -g rg-ncdemo-aks-dev -n aks-ncdemo-aks-dev")
    azure.things.clear()
    assert only()[1:] == ("there is no cluster aks-ncdemo-aks-dev in rg-ncdemo-aks-dev", UP)


def test_a_cluster_that_dies_meanwhile_ends_it(ncdemo: Any, dev: ClusterApi) -> None:
    dev.refuse = lambda method, at: (503, "etcd is away") if "daemonsets" in at else None
    found = ask(ncdemo, "aks-dev")
    assert found["cluster"][0] == "fail"
    assert "answers 503: etcd is away" in found["cluster"][1]
    assert "namespace ncdemo" not in found


def test_a_cluster_of_others(ncdemo: Any, api: ClusterApi, tmp_path: Path) -> None:
    Path(ncdemo.env["KUBECONFIG"]).write_text(api.kubeconfig("there"))
    stack = tmp_path / "Pulumi.theirs.yaml"
    stack.write_text(EXISTING)
    api.apply(render(load_stack(stack)))
    api.put({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "team", "namespace": "ncdemo"}, "spec": {}})
    found = ask(ncdemo, str(stack))
    assert found["kueue"][0:2] == ("fail", "isn't installed, so jobs are never let go")
    assert found["device plugin"][1] == "isn't there, and jobs ask for GPUs"
    assert found["node selector"][1] == "no node has pool=gpu, so jobs wait"
    assert found["volume ncdemo/ncdemo-runs"][0] == "ok"
    assert not {"workload identity", "federation", "pools", "storage"} & found.keys(), "it has no identity in Azure"
    api.objects["/apis/kueue.x-k8s.io"] = {"versions": [{"version": "v1beta1"}]}
    plugin = {"image": "nvcr.io/nvidia/k8s-device-plugin:v0.17", "name": "x"}
    meta = {"name": "nvidia-device-plugin-daemonset", "namespace": "gpu-operator"}
    api.put({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
             "spec": {"template": {"spec": {"containers": [plugin]}}}, "status": {"desiredNumberScheduled": 1, "numberReady": 1}})  # fmt: skip
    api.node("gpu-0", {"pool": "gpu", "nvidia.com/gpu.present": "true"}, gpus=8)
    found = ask(ncdemo, str(stack), code=0)
    assert found["device plugin"][1] == "gpu-operator/nvidia-device-plugin-daemonset, ready on 1 nodes"
    assert found["gpu"] == ("ok", "1 nodes offer 8 nvidia.com/gpu", None)
    assert "node selector" not in found
    assert found["queue ncdemo/team"][0] == "unknown"
    del api.objects[path(api, "/localqueues/team")]
    assert "kubectl get localqueues -A" in ask(ncdemo, str(stack))["queue ncdemo/team"][2]


def test_without_a_stack_what_is_there_is_judged_alone(ncdemo: Any, api: ClusterApi) -> None:
    api.node("a", {}, ready=False)
    found = ask(ncdemo, "--context", "aks-ncdemo-aks-dev", code=0)
    assert found["nodes"] == ("warn", "a isn't ready (kubelet stopped posting)", "kubectl describe node a")
    assert found["device plugin"][0] == "warn"
    assert found["storage"][2] == "ncdemo doctor cluster --context aks-ncdemo-aks-dev --probe-storage"
    assert found["gpu"][0] == "unknown"


def test_vms_have_no_cluster(ncdemo: Any) -> None:
    assert "vm has no cluster; ask Azure with ncdemo doctor azure" in ncdemo.mistake("doctor", "cluster", "vm-dev")


def probe_of(api: ClusterApi) -> dict[str, Any] | None:
    return next((job for name, job in list(api.jobs.items()) if name.startswith("storage-probe")), None)


def test_the_probe_is_only_shown_without_a_yes(ncdemo: Any, dev: ClusterApi) -> None:
    found = ask(ncdemo, "aks-dev", "--probe-storage", code=0)["storage"]
    assert found == ("unknown", "not tried: the job above was only shown", "ncdemo doctor cluster aks-dev --probe-storage --yes")
    assert "kind: Job" in ncdemo.err
    assert "workloads.storage_probe" in ncdemo.err
    assert [one for one in dev.asked if one[0] != "GET"] == []
    dev.jobs.clear()
    assert "no job is there whose image" in ask(ncdemo, "aks-dev", "--probe-storage", code=0)["storage"][1]


@pytest.mark.parametrize("there", [True, False])
def test_the_probe_lists_real_storage_and_leaves_nothing(ncdemo: Any, dev: ClusterApi, azurite: Any, there: bool, until: Any) -> None:
    """The stand-in's kubelet runs the pod's own command in a process, against a real blob service."""
    seen: dict[str, Any] = {}

    def kubelet() -> None:
        until(lambda: probe_of(dev))
        job = seen["job"] = probe_of(dev)
        name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
        dev.pod(name, "p", {"waiting": {"reason": "ContainerCreating"}})
        env = {one["name"]: one["value"] for one in pod["containers"][0]["env"] if one["name"].startswith("NCDEMO")}
        env |= {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
        env |= {} if there else {"NCDEMO_RESULTS_URI": "az://nowhere/jobs"}
        command = [sys.executable, *pod["containers"][0]["command"][1:]]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=100)
        dev.say("p", *(done.stdout + done.stderr).splitlines())
        dev.set_state("p", {"terminated": {"exitCode": done.returncode}})
        dev.end(name, "Failed" if done.returncode else "Complete")

    thread = threading.Thread(target=kubelet)
    thread.start()
    status, text, remedy = ask(ncdemo, "aks-dev", "--probe-storage", "--yes", code=0 if there else 1)["storage"]
    thread.join()
    if there:
        account = next(one["value"] for one in seen["job"]["spec"]["template"]["spec"]["containers"][0]["env"] if "ACCOUNT" in one["name"])
        assert (status, text) == ("ok", f"the jobs' identity listed metrics of {account}: 0 entries")
    else:
        assert status == "fail"
        assert remedy == "the container isn't there: make it with ncdemo stack up"
    until(lambda: probe_of(dev) is None)
    job, pod = seen["job"], seen["job"]["spec"]["template"]["spec"]
    assert job["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] != "ncdemo-job", "no job that anyone looks after"
    assert pod["serviceAccountName"] == "ncdemo-job"
    assert pod["nodeSelector"] == {"ncdemo.io/pool": "system"}, "no GPU node starts for it"
    assert "nvidia.com/gpu" not in json.dumps(pod)


def test_the_probe_is_a_pod_that_the_namespace_admits(dev: ClusterApi) -> None:
    from ncdemo.infra.storage_probe import probe
    from tests.infra.kube import lint, schema_problems

    job = probe(next(iter(dev.jobs.values())), own_cluster=True)
    assert schema_problems(job, "1.35") == []
    assert lint(job) == []
