"""What the stacks scrape: promtool's word on it, and a real Prometheus that finds a real run's page by its rendered pod."""

import copy
import importlib.util
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.prometheus import CONFIG
from ncdemo.infra.render import Rendered, render
from ncdemo.spec import TrainSpec, dump_spec
from ncdemo.spec.job_labels import METRICS_PORT
from ncdemo.spec.stack_file import load_stack, stack_of
from workloads.run import open_run
from workloads.stop import StopRequest

ROOT = Path(__file__).resolve().parents[2]
LIVE = {"telemetry.metrics_port": 9101, "telemetry.metrics_host": "0.0.0.0", "telemetry.pushgateway": None}
JOB = {"name": "live", "config": "workloads/configs/training/demo.yaml", "gpus": 0, "set": LIVE}
EXISTING = {"target": "kubernetes", "images": {"repository": "registry.example/ncdemo"}, "monitoring": {"in_cluster": True}, "jobs": [JOB]}
AKS = {"monitoring": {"azure_monitor": True}, "jobs": [JOB]}


def _neighbour(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"ncdemo_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kubernetes_pods = _neighbour("kubernetes_pods")


def of(config: dict[str, Any], **changes: Any) -> Rendered:
    made = copy.deepcopy(config)
    made["jobs"][0]["set"] |= changes
    return render(stack_of("test", made, {}))


def data(found: Rendered, name: str) -> dict[str, str]:
    return next((m["data"] for m in found.manifests() if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name), {})


def managed(found: Rendered) -> dict[str, Any]:
    return yaml.safe_load(data(found, "ama-metrics-prometheus-config").get("prometheus-config", "{}"))


def one(found: Rendered, kind: str, name: str) -> dict[str, Any]:
    (manifest,) = [m for m in found.manifests() if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return manifest


def pod(found: Rendered) -> dict[str, Any]:
    return next(m for m in found.manifests() if m["kind"] == "Job")["spec"]["template"]


def scraped(found: Rendered) -> list[str]:
    files = (data(found, "prometheus").get("prometheus.yml"), data(found, "ama-metrics-prometheus-config").get("prometheus-config"))
    return [text for text in files if text]


def configs() -> dict[str, str]:
    full = render(load_stack(ROOT / "stacks" / "Pulumi.aks-full.yaml", [f"jobs.0.set={json.dumps(LIVE)}"]))
    found = {"full": full, "existing": of(EXISTING), "managed alone": of(AKS)}
    own = {name: data(one_, "prometheus").get("prometheus.yml") for name, one_ in found.items()}
    adds = {f"{name}, add-on": data(one_, "ama-metrics-prometheus-config").get("prometheus-config") for name, one_ in found.items()}
    return {name: text for name, text in (own | adds).items() if text}


def test_promtool_takes_every_configuration(servers: Any, tmp_path: Path) -> None:
    found = configs()
    assert set(found) == {"full", "existing", "full, add-on", "managed alone, add-on"}
    for name, text in found.items():
        path = tmp_path / "prometheus.yml"
        good = yaml.safe_dump(kubernetes_pods.without_kubernetes(text, tmp_path, []))
        for said, code in ((good, 0), (good.replace("relabel_configs", "relabel_config"), int("relabel_configs" in good))):
            path.write_text(said)
            done = subprocess.run([servers.needs("promtool"), "check", "config", path], capture_output=True, text=True)
            assert done.returncode == code, f"{name}: {done.stdout}{done.stderr}"


def test_the_add_on_gets_nothing_that_it_refuses() -> None:
    for name, text in configs().items():
        if "add-on" not in name:
            continue
        config = yaml.safe_load(text)
        assert config.keys() == {"scrape_configs"}
        for job in config["scrape_configs"]:
            finders = {key for key in job if key.endswith("_configs") and key != "relabel_configs"}
            assert len(finders) == 1
            assert finders <= {"static_configs", "kubernetes_sd_configs"}
            assert job.get("honor_labels", False) == (job["job_name"] == "pushgateway")


def test_the_add_on_scrapes_what_there_is() -> None:
    def names(found: Rendered) -> list[str]:
        return [job["job_name"] for job in managed(found).get("scrape_configs", [])]

    assert names(of(AKS)) == ["dcgm", "runs"]
    assert names(of({**AKS, "pools": [{"name": "cpu", "vm_size": "Standard_D8s_v5", "spot": False}]})) == ["runs"]
    assert names(of({**AKS, "monitoring": {"azure_monitor": True, "in_cluster": True}})) == ["pushgateway", "dcgm", "runs"]
    assert names(of({**AKS, "monitoring": {"in_cluster": True}})) == []
    assert names(of({**EXISTING, "monitoring": {"azure_monitor": True}})) == [], "on a cluster that exists there is no add-on of ours"


def test_the_add_on_may_reach_what_it_scrapes() -> None:
    found = of({**AKS, "monitoring": {"azure_monitor": True, "in_cluster": True}})
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    gateway = one(found, "NetworkPolicy", "managed-prometheus")["spec"]
    assert gateway["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "pushgateway"}
    assert gateway["ingress"] == [{"from": [system], "ports": [{"protocol": "TCP", "port": 9091}]}]
    own = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    own["podSelector"] = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    runs = one(found, "NetworkPolicy", "scrapers")["spec"]
    assert runs["podSelector"]["matchLabels"].items() <= pod(found)["metadata"]["labels"].items()
    assert runs["ingress"] == [{"from": [own, system], "ports": [{"protocol": "TCP", "port": METRICS_PORT}]}]
    assert one(of(AKS), "NetworkPolicy", "scrapers")["spec"]["ingress"][0]["from"] == [system]
    assert one(of(EXISTING), "NetworkPolicy", "scrapers")["spec"]["ingress"][0]["from"] == [own]


def test_prometheus_may_look_for_pods_where_it_scrapes_them_and_nowhere_else() -> None:
    found = of(EXISTING)
    role, binding = (one(found, kind, "metrics-reader") for kind in ("Role", "RoleBinding"))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "ncdemo"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}]
    assert not [m for m in found.manifests() if m["kind"].startswith("ClusterRole")]
    tokens = {
        m["metadata"]["name"]: (
            m["spec"]["template"]["spec"]["serviceAccountName"],
            m["spec"]["template"]["spec"]["automountServiceAccountToken"],
        )
        for m in found.manifests()
        if m["kind"] == "StatefulSet"
    }
    assert tokens == {"pushgateway": ("metrics", False), "prometheus": ("prometheus", True), "mlflow": ("mlflow", False)}


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (EXISTING, {"telemetry.metrics_port": None}, None),
        (EXISTING, {"telemetry.pushgateway": "default"}, "not scraped, as the job pushes the same figures; .* set telemetry.pushgateway: null"),
        (EXISTING, {"telemetry.metrics_host": "127.0.0.1"}, r"served at 127\.0\.0\.1 alone, .*; set telemetry.metrics_host: 0.0.0.0"),
        (AKS, {"telemetry.metrics_host": "localhost"}, "served at localhost alone"),
        ({**EXISTING, "monitoring": {}}, {}, None),
        ({**AKS, "target": "vm"}, {}, None),
    ],
)  # fmt: skip
def test_what_is_not_scraped_has_no_port_and_gives_no_rights(config: dict[str, Any], changes: dict[str, Any], said: str | None) -> None:
    found = of(config, **changes)
    assert not [m for m in found.manifests() if m["kind"] in ("Role", "RoleBinding")]
    if found.stack.spec.target != "vm":
        assert "ports" not in pod(found)["spec"]["containers"][0]
    assert "runs" not in [job["job_name"] for text in scraped(found) for job in yaml.safe_load(text)["scrape_configs"]]
    notes = [note for note in found.stack.notes if "metrics_port" in note]
    assert len(notes) == bool(said)
    assert not said or re.match(f"jobs.0: telemetry.metrics_port = 9101 is {said}", notes[0])


def test_without_a_gateway_a_run_that_would_push_is_scraped() -> None:
    found = of(AKS, **{"telemetry.pushgateway": "default"})
    assert pod(found)["spec"]["containers"][0]["ports"] == [{"name": "metrics", "containerPort": 9101}]
    assert found.stack.notes == []


def ask(url: str, query: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def until(happened: Any, within_s: float = 30) -> Any:
    end = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < end, f"didn't happen within {within_s} s"
        time.sleep(0.1)
    return found


def test_a_real_prometheus_finds_a_live_run_by_its_pod(servers: Any, tmp_path: Path) -> None:
    """As the stack configures it, but that the pods are told by a file, and how often it looks."""
    port = servers.free_port()
    found = of(EXISTING, **{"telemetry.metrics_port": port})
    job = next(m for m in found.manifests() if m["kind"] == "Job")
    other = next(m for m in found.manifests() if m["metadata"]["name"] == "pushgateway" and m["kind"] == "StatefulSet")
    pods = [
        kubernetes_pods.pod_of(job, "127.0.0.1"),
        kubernetes_pods.pod_of(job, "127.0.0.1", phase="Succeeded", name="over"),
        kubernetes_pods.pod_of({**other, "metadata": {**other["metadata"], "namespace": "ncdemo"}}, "127.0.0.1", name="another"),
    ]
    files = data(found, "prometheus")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    text = files["prometheus.yml"].replace(CONFIG, str(tmp_path))
    config = kubernetes_pods.without_kubernetes(text, tmp_path, pods)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    spec = TrainSpec.model_validate(
        {"telemetry": {"mlflow_uri": None, "pushgateway": None, "metrics_port": port, "metrics_host": "0.0.0.0"}}
    )
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(dump_spec(spec))
    own = f"{job['metadata']['name']}-0-abcde"
    with servers.prometheus(tmp_path, tmp_path / "prometheus.yml") as url:
        with open_run(folder, spec, stop=StopRequest()):
            (live,) = until(lambda: ask(url, "ncdemo:run_live"))
            labels = {"job": "ncdemo", "run": "r", "strategy": "accelerate", "status": "running"}
            assert live["metric"] == {"__name__": "ncdemo:run_live", "instance": own, **labels}
            # Of the others, the second would answer too, at this very address.
            assert [each["metric"]["instance"] for each in ask(url, 'up{job="ncdemo"}')] == [own]
        until(lambda: not ask(url, "ncdemo:run_live"))
