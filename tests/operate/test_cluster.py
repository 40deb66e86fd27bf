"""Jobs on Kubernetes: the manifests that ncdemo renders, against an API on loopback, through the official client."""

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ncdemo.operate.cluster import again

HERE = Path(__file__).parent
WHERE = ("--context", "there")


@pytest.fixture(scope="module")
def manifest() -> Any:
    """The Job that a stack renders to."""
    pytest.importorskip("pulumi", reason="needs the infra extra")
    from ncdemo.infra.render import render
    from ncdemo.spec.stack_file import load_stack

    rendered = render(load_stack(HERE.parents[1] / "stacks" / "Pulumi.aks-dev.yaml"))
    return next(one for one in rendered.manifests() if one["kind"] == "Job" and one["metadata"]["labels"]["ncdemo.io/job"] == "tune")


@pytest.fixture
def api(ncdemo: Any, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("kubernetes", reason="needs the infra extra")
    spec = importlib.util.spec_from_file_location("ncdemo_tests_kube_api", HERE / "kube_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.KubeApi() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        ncdemo.env["KUBECONFIG"] = str(tmp_path / "kubeconfig")
        yield api


@pytest.fixture
def job(api: Any, manifest: Any) -> str:
    return api.create(manifest)["metadata"]["name"]


def state(ncdemo: Any) -> tuple[str, str]:
    (found,) = json.loads(ncdemo.here("jobs", "ls", *WHERE, "--json"))
    return found["state"], found["detail"]


def test_the_state_is_what_conditions_and_pods_say(ncdemo: Any, api: Any, job: str) -> None:
    other = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "theirs", "namespace": "ncdemo"}}
    api.create(other | {"spec": {"template": {"metadata": {}, "spec": {}}}})
    assert state(ncdemo) == ("waiting", "for its pods")
    no_room = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    api.pod(job, "a", {"waiting": {"reason": "x"}}, conditions=[no_room])
    assert state(ncdemo) == ("waiting", "for a node (0/3 nodes are available)")
    api.pod(job, "a", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    assert state(ncdemo) == ("waiting", "for its container (no such image)")
    api.set_state("a", {"running": {}})
    table = ncdemo.here("jobs", "ls", *WHERE, "-n", "ncdemo")
    assert f"{job}  train  running" in table
    assert "theirs" not in table
    assert ncdemo.here("jobs", "ls", *WHERE, "-n", "elsewhere") == ""
    api.jobs[job]["spec"]["suspend"] = True
    api.set_state("a", {"terminated": {"exitCode": 2}})
    assert state(ncdemo)[0] == "waiting"
    api.end(job, "Failed", "PodFailurePolicy", "exit code 2")
    assert state(ncdemo) == ("failed", "PodFailurePolicy: exit code 2")
    assert ncdemo.here("jobs", "wait", "tune", *WHERE, code=2).startswith(f"{job}: failed (PodFailurePolicy")
    api.end(job, "Complete")
    assert ncdemo.here("jobs", "wait", "tune", *WHERE) == f"{job}: finished\n"
    assert "only a failed job is started again; see its results" in ncdemo.mistake("jobs", "retry", job, *WHERE, "--yes")


def test_waiting_outlasts_an_api_that_is_away(ncdemo: Any, api: Any, job: str) -> None:
    ncdemo.here("jobs", "wait", job, *WHERE, "--timeout", "0.3", code=124)
    asked = iter(range(100))
    api.refuse = lambda method, path: (503, "etcd is away") if 2 < next(asked) < 8 else None
    threading.Timer(1.5, lambda: api.end(job, "Failed", "DeadlineExceeded", "too long")).start()
    assert "DeadlineExceeded: too long" in ncdemo.here("jobs", "wait", job, *WHERE, code=1)


def test_logs_go_on_over_a_cut_connection_and_an_evicted_pod(ncdemo: Any, api: Any, job: str) -> None:
    assert "node 0 has said nothing yet; it waits for its pods" in ncdemo.mistake("jobs", "logs", "tune", *WHERE)
    api.pod(job, "a", {"running": {}})
    api.say("a", *(f"step {n}" for n in range(50)))
    assert ncdemo.here("jobs", "logs", "tune", *WHERE, "--tail", "2") == "step 48\nstep 49\n"
    assert "node 1 has said nothing yet" in ncdemo.mistake("jobs", "logs", "tune", *WHERE, "--node", "1")
    api.cut_after = 20

    def goes_on() -> None:
        time.sleep(2)
        api.say("a", "evicted: \u00fc")
        api.set_state("a", {"terminated": {"exitCode": 75}})
        time.sleep(1.2)
        api.pod(job, "b", {"waiting": {"reason": "ContainerCreating"}})
        time.sleep(1.5)
        api.set_state("b", {"running": {}})
        api.say("b", "step 50")
        time.sleep(0.5)
        api.say("b", "done")
        api.set_state("b", {"terminated": {"exitCode": 0}})
        api.end(job, "Complete")

    threading.Thread(target=goes_on).start()
    said = ncdemo.here("jobs", "logs", "tune", *WHERE, "--follow").splitlines()
    assert said == [*(f"step {n}" for n in range(50)), "evicted: \u00fc", "step 50", "done"]
    assert api.cut_after is None, "a connection was cut"
    assert "waits for its container (ContainerCreating)" in ncdemo.err
    api.pods.clear()
    assert "its pods are gone; its log is in storage: ncdemo results pull" in ncdemo.mistake("jobs", "logs", "tune", *WHERE)


def test_cancel_asks_first_and_deletes_in_the_background(ncdemo: Any, api: Any, job: str) -> None:
    assert "--yes" in ncdemo.mistake("jobs", "cancel", "tune", *WHERE)
    assert not [one for one in api.asked if one[0] == "DELETE"]
    assert ncdemo.here("jobs", "cancel", "tune", *WHERE, "--yes") == f"{job}: deleted\n"
    assert [one[2] for one in api.asked if one[0] == "DELETE"] == [{"propagationPolicy": "Background"}]
    assert "`pulumi refresh` and `up` would make it again" in ncdemo.err


def test_a_failed_job_is_made_again_from_its_own_manifest(ncdemo: Any, api: Any, job: str, manifest: Any) -> None:
    assert "is waiting, and only a failed job is started again; cancel it first" in ncdemo.mistake("jobs", "retry", job, *WHERE, "--yes")
    api.end(job, "Failed", "BackoffLimitExceeded", "too many failures")
    assert ncdemo.here("jobs", "retry", job, *WHERE, "--yes") == f"{job}: started again\n"
    assert api.jobs[job]["metadata"]["uid"] == "uid-2"
    assert again(api.jobs[job]) == json.loads(json.dumps(manifest)), "nothing is lost, nothing is added"
    assert not list(Path(ncdemo.env["NCDEMO_CACHE"]).rglob("*.json"))
    assert state(ncdemo) == ("waiting", "for its pods")


def test_a_retry_that_is_cut_off_between_delete_and_create_loses_nothing(ncdemo: Any, api: Any, job: str) -> None:
    api.jobs[job]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpu"
    api.end(job, "Failed")
    api.refuse = lambda method, path: (403, "jobs.batch is forbidden: User may not create") if method == "POST" else None
    said = ncdemo.mistake("jobs", "retry", job, *WHERE, "--yes")
    assert "is deleted and not made again (jobs.batch is forbidden" in said
    assert "kubectl create -f " in said
    assert job not in api.jobs
    api.refuse = lambda method, path: None
    assert state(ncdemo)[0] == "killed"
    assert ncdemo.here("jobs", "retry", "tune", *WHERE, "--yes") == f"{job}: started again\n"
    assert api.jobs[job]["spec"]["suspend"] is True, "its queue lets it go"
    assert state(ncdemo) == ("waiting", "in queue gpu")


def test_what_goes_wrong_is_one_line_with_its_remedy(ncdemo: Any, api: Any, tmp_path: Path) -> None:
    assert "there are none" in ncdemo.mistake("jobs", "logs", "tune", *WHERE)
    said = ncdemo.mistake("jobs", "ls", "--context", "nowhere")
    assert "context nowhere can't be used" in said
    assert "az aks get-credentials" in said
    api.refuse = lambda method, path: (403, 'pods is forbidden: User "x" cannot list resource "pods"')
    assert "cannot list resource" in ncdemo.mistake("jobs", "ls", *WHERE)
    assert "Azure Kubernetes Service RBAC Writer" in ncdemo.err
    Path(ncdemo.env["KUBECONFIG"]).write_text(api.kubeconfig(token="wrong"))
    assert "log in again: az login" in ncdemo.mistake("jobs", "ls", *WHERE)
    Path(ncdemo.env["KUBECONFIG"]).write_text(api.kubeconfig().replace(api.url, "http://127.0.0.1:9"))
    assert "can't be reached" in ncdemo.mistake("jobs", "ls", *WHERE)
    assert "give one of both" in ncdemo.mistake("jobs", "ls", *WHERE, "--stack", "aks-dev")
    assert "needs --context" in ncdemo.mistake("jobs", "ls", "-n", "ncdemo")


def test_a_stack_knows_its_cluster(ncdemo: Any, api: Any, job: str) -> None:
    pulumi = ncdemo.bin / "pulumi"
    found = {"cluster": "aks-ncdemo", "connect": "az aks get-credentials -g rg -n aks-ncdemo", "storage_account": "stx"}
    pulumi.write_text(f"#!/bin/sh\n[ \"$*\" = 'stack output --json --stack aks-dev' ] && echo '{json.dumps(found)}'\n")
    pulumi.chmod(0o755)
    said = ncdemo.mistake("jobs", "ls", "--stack", "aks-dev")
    assert said.endswith("bring it with: az aks get-credentials -g rg -n aks-ncdemo")
    Path(ncdemo.env["KUBECONFIG"]).write_text(api.kubeconfig("aks-ncdemo"))
    assert job in ncdemo.here("jobs", "ls", "--stack", "aks-dev")
    pulumi.write_text("#!/bin/sh\necho 'error: no stack named aks-dev found' >&2; exit 255\n")
    said = ncdemo.mistake("jobs", "ls", "--stack", "aks-dev")
    assert said.endswith("no stack named aks-dev found; make it with `ncdemo stack up aks-dev`, or name the cluster with --context")
    pulumi.write_text("#!/bin/sh\necho '{}'\n")
    assert "has no outputs yet" in ncdemo.mistake("jobs", "ls", "--stack", "aks-dev")
    assert "no stack 'nope'" in ncdemo.mistake("jobs", "ls", "--stack", "nope")
