"""The example stacks, rendered: goldens, Azure's and Kubernetes' own schemas, the policy pack, and what must hold of every stack."""

import base64
import copy
import datetime
import importlib.util
import json
import os
import runpy
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

import pulumi

from ncdemo.infra import program
from ncdemo.infra.component import Component
from ncdemo.infra.grafana import dashboards
from ncdemo.infra.policy import findings
from ncdemo.infra.policy.access import TAGGED
from ncdemo.infra.policy.base import kind_of
from ncdemo.infra.render import Rendered, record, render
from ncdemo.infra.show import as_json, as_text, rendered_files, yaml_text
from ncdemo.infra.stand_in import SECRET, TOKEN_STAND_IN
from ncdemo.spec.job import JOB_MODULE, LAUNCHER, SPEC_FILE, WORKLOADS, job_command, load_run
from ncdemo.spec.stack_file import Stack, load_stack, stack_of

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "stacks"
STACKS = sorted(path.stem.removeprefix("Pulumi.") for path in (ROOT / "stacks").glob("Pulumi.*.yaml"))
TODAY = datetime.date(2026, 11, 24)
KUBERNETES = ("1.34", "1.35", "1.36")
AGENTS = "NVIDIA's agents talk to the kubelet through a folder of the node that belongs to root; profiling counters need SYS_ADMIN"
LINT_EXCEPTIONS = {
    "DaemonSet/device-plugin: pod: host-path": AGENTS,
    "DaemonSet/device-plugin: device-plugin: run-as-non-root": AGENTS,
    "DaemonSet/dcgm-exporter: pod: host-path": AGENTS,
    "DaemonSet/dcgm-exporter: dcgm-exporter: run-as-non-root": AGENTS,
    "DaemonSet/dcgm-exporter: dcgm-exporter: add-capabilities": AGENTS,
}
LIVE = {"telemetry.metrics_port": 9101, "telemetry.metrics_host": "0.0.0.0", "telemetry.pushgateway": None}
EXISTING = {
    "target": "kubernetes",
    "kubernetes": {"context": "kind-dev", "node_selector": {"pool": "gpu"}, "queue": "team"},
    "images": {"repository": "registry.example/ncdemo"},
    "monitoring": {"in_cluster": True, "grafana": True},
    "jobs": [
        {"name": "tune", "config": "workloads/configs/training/lora.yaml", "nodes": 2},
        {"name": "bench", "config": "workloads/configs/inference/demo.yaml", "gpus": 0},
        {"name": "live", "config": "workloads/configs/training/demo.yaml", "gpus": 0, "set": LIVE},
    ],
}
CACHE: dict[str, Rendered] = {}


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_infra_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


arm, kube = _neighbour("arm"), _neighbour("kube")


def file(name: str) -> Path:
    return ROOT / "stacks" / f"Pulumi.{name}.yaml"


def rendered(name: str) -> Rendered:
    if name not in CACHE:
        CACHE[name] = render(
            stack_of("existing", copy.deepcopy(EXISTING), {}) if name == "existing" else load_stack(file(name)), today=TODAY
        )
    return CACHE[name]


def ids(found: Rendered) -> dict[str, str]:
    return found.outputs["jobs"]


def body(found: Rendered) -> dict[str, Any]:
    """Return what a stack registers, with each cloud-init as text, and for each dashboard the file that it equals."""
    resources = []
    for resource in found.resources:
        inputs = copy.deepcopy(resource.inputs)
        if "customData" in inputs.get("osProfile", {}):
            inputs["osProfile"]["customData"] = base64.b64decode(inputs["osProfile"]["customData"]).decode()
        data = inputs.get("data") or {}
        data.update({name: f"= ncdemo/infra/dashboards/{name}" for name, text in dashboards().items() if data.get(name) == text})
        resources.append({"name": resource.name, "type": resource.type, **({"inputs": inputs} if inputs else {})})
    return {"resources": resources, "outputs": found.outputs}


def test_there_are_the_four_examples() -> None:
    assert {"aks-dev", "aks-full", "vm-dev", "vm-full"} <= set(STACKS)


@pytest.mark.parametrize("name", [*STACKS, "existing"])
def test_rendered_resources_are_the_golden_ones(name: str) -> None:
    """Renew with: NCDEMO_RENEW=1 pytest tests/infra"""
    text = yaml_text(body(rendered(name)))
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("NCDEMO_RENEW"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@arm.NEEDS_SCHEMAS
@pytest.mark.parametrize("name", STACKS)
def test_azure_resources_fit_azures_schemas(name: str) -> None:
    azure = [r for r in rendered(name).resources if r.type.startswith("azure-native:")]
    assert len(azure) > 10
    assert [f"{r.name}: {problem}" for r in azure for problem in arm.problems(r.type, r.inputs)] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", [*STACKS, "existing"])
def test_manifests_fit_kubernetes_schemas(name: str, version: str) -> None:
    manifests = rendered(name).manifests()
    assert manifests or rendered(name).stack.spec.target == "vm"
    assert [f"{m['kind']}/{m['metadata']['name']}: {p}" for m in manifests for p in kube.schema_problems(m, version)] == []


@pytest.mark.parametrize("name", [*STACKS, "existing"])
def test_manifests_pass_the_linter(name: str) -> None:
    manifests = rendered(name).manifests()
    found = [problem for manifest in manifests for problem in kube.lint(manifest)] + kube.lint_all(manifests)
    excused = [problem for problem in found if problem.startswith(tuple(LINT_EXCEPTIONS))]
    assert [problem for problem in found if problem not in excused] == []


def test_no_lint_exception_is_idle() -> None:
    found = [problem for manifest in rendered("aks-full").manifests() for problem in kube.lint(manifest)]
    assert [one for one in LINT_EXCEPTIONS if not any(problem.startswith(one) for problem in found)] == []


@pytest.mark.parametrize("name", [*STACKS, "existing"])
def test_policy_finds_nothing(name: str) -> None:
    found = findings(rendered(name).resources)
    assert [str(one) for one in found if one.enforcement == "mandatory"] == []
    # The dev stacks name nobody to warn; everything else does.
    assert {one.rule for one in found} <= ({"gpu-stack-has-budget"} if name.endswith("-dev") else set())


def test_the_policy_on_tags_knows_every_kind_that_has_some() -> None:
    alerts = render(load_stack(file("aks-full"), ["monitoring.azure_monitor_alerts=true"]), today=TODAY)
    resources = [each for found in (*map(rendered, STACKS), alerts) for each in found.resources]
    tagged = {kind_of(each.type) for each in resources if each.type.startswith("azure-native:") and "tags" in each.inputs}
    assert tagged <= set(TAGGED)


def test_running_the_program_again_changes_nothing() -> None:
    again = render(load_stack(file("aks-full")), today=TODAY)
    assert body(again) == body(rendered("aks-full"))


def test_changing_one_training_value_changes_that_job_alone() -> None:
    stack = load_stack(file("aks-full"), ["jobs.1.set={train.seed: 7}"])
    changed = render(stack, today=TODAY)
    before, after = ids(rendered("aks-full")), ids(changed)
    assert [job for job in before if before[job] != after[job]] == ["tune-2x2"]
    old, new = ({r.name: r.inputs for r in one.resources} for one in (rendered("aks-full"), changed))
    assert old.keys() == new.keys()
    assert {name for name in old if old[name] != new[name]} == {"job-tune-2x2-job", "job-tune-2x2-meet", "job-tune-2x2-spec"}


@pytest.mark.parametrize(
    "override",
    [
        "tags={team: x}",
        "cost_guard.shutdown_utc='20:00'",
        "jobs.0.retries=9",
        "jobs.0.deadline_h=5",
        "jobs.0.suspend=true",
        "pools.0.max_count=3",
    ],
)
def test_what_does_not_decide_a_run_gives_no_new_one(override: str) -> None:
    assert ids(render(load_stack(file("aks-dev"), [override]), today=TODAY)) == ids(rendered("aks-dev"))


@pytest.mark.parametrize(
    "override",
    ["images.version=0.2.0", "jobs.0.set={train.max_steps: 3}", "jobs.0.gpus=0", f"images.digests={{train: 'sha256:{'a' * 64}'}}"],
)
def test_what_decides_a_run_gives_a_new_one(override: str) -> None:
    after = ids(render(load_stack(file("aks-dev"), [override]), today=TODAY))
    assert after["tune"] != ids(rendered("aks-dev"))["tune"]


def test_one_value_switches_between_aks_and_vms() -> None:
    for name, target in (("aks-dev", "vm"), ("vm-dev", "aks")):
        switched = render(load_stack(file(name), [f"target={target}"]), today=TODAY)
        # The same jobs: name, spec, image, GPUs.
        assert ids(switched) == ids(rendered(name))
        assert bool(switched.of("VirtualMachine")) == (target == "vm")
        assert bool(switched.of("ManagedCluster")) == (target == "aks")


def test_the_spec_that_a_pod_reads_is_the_one_of_the_config(tmp_path: Path) -> None:
    found = rendered("aks-full")
    for run in found.stack.jobs:
        config = next(m for m in found.manifests() if m["kind"] == "ConfigMap" and m["metadata"]["name"] == ids(found)[run.job.name])
        path = tmp_path / Path(SPEC_FILE).name
        path.write_text(config["data"][path.name])
        assert load_run(path) == run.run


def test_what_containers_run_exists() -> None:
    for module in (JOB_MODULE, LAUNCHER, *WORKLOADS.values()):
        assert importlib.util.find_spec(module), module
    jobs = [m for name in ("aks-full", "existing") for m in rendered(name).manifests() if m["kind"] == "Job"]
    assert {tuple(job["spec"]["template"]["spec"]["containers"][0]["command"]) for job in jobs} == {job_command()}


@pytest.mark.parametrize("name", STACKS)
def test_images_of_jobs_are_the_stacks_own(name: str) -> None:
    found = rendered(name)
    server = found.outputs["registry"]
    text = json.dumps([m for m in found.manifests() if m["kind"] == "Job"]) + "".join(
        r.inputs["source"]["script"] for r in found.of("VirtualMachineRunCommandByVirtualMachine")
    )
    for run in found.stack.jobs:
        image = f"{server}/ncdemo:0.1.0-{run.image}"
        encoded = base64.b64encode(f"IMAGE={image}".encode()).decode()[4:-4]
        assert image in text or encoded in text or image in _decoded(text), image


def _decoded(text: str) -> str:
    words = [word for word in text.replace('"', " ").split() if len(word) > 40 and word.isascii()]
    found = []
    for word in words:
        try:
            found.append(base64.b64decode(word, validate=True).decode())
        except ValueError:
            continue
    return "\n".join(found)


def with_token(name: str) -> Stack:
    config = yaml.safe_load(file(name).read_text())["config"] | {"ncdemo:hf_token": {"secure": "v1:encrypted"}}
    return stack_of(name, config, {})


@pytest.mark.parametrize("name", ["aks-dev", "vm-dev"])
def test_the_token_is_nowhere_in_plain_text(name: str) -> None:
    found = render(with_token(name), today=TODAY)
    everything = [json.dumps(as_json(found)), as_text(found), *rendered_files(found).values()]
    everything += [base64.b64decode(r.inputs["osProfile"]["customData"]).decode() for r in found.of("VirtualMachine")]
    assert not [text for text in everything if TOKEN_STAND_IN in text or TOKEN_STAND_IN in _decoded(text)]
    assert SECRET in everything[0]
    places = {r.type.rsplit(":", 1)[-1] for r in found.resources if SECRET in json.dumps(r.inputs)}
    assert places <= {"Secret", "VirtualMachineRunCommandByVirtualMachine", "kubernetes"}
    assert places - {"kubernetes"}


def test_the_kubeconfig_is_a_secret() -> None:
    provider = next(r for r in rendered("aks-dev").resources if r.type == "pulumi:providers:kubernetes")
    assert provider.inputs["kubeconfig"] == SECRET


@pytest.mark.parametrize("name", ["aks-full", "vm-full"])
def test_renaming_a_component_replaces_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {r.name: r for r in rendered(name).resources}
    named = Component.__init__

    def renamed(self: Component, name: str, *args: Any, **more: Any) -> None:
        named(self, f"other-{name}", *args, **more)

    monkeypatch.setattr(Component, "__init__", renamed)
    children = [r for r in render(load_stack(file(name)), today=TODAY).resources if r.name.startswith("other-") and not r.is_component]
    assert len(children) > 20
    for child in children:
        assert child.aliases == (child.name.removeprefix("other-"),)
        old = before[child.aliases[0]]
        # The alias means the same resource: same type, and what Azure calls it didn't change.
        assert old.type == child.type
        assert old.inputs == child.inputs


@pytest.mark.parametrize("name", ["aks-full", "vm-full"])
def test_a_first_preview_knows_nothing_of_azure_and_declares_the_same(name: str) -> None:
    stack = load_stack(file(name))
    unknown = record(lambda: program.deploy(stack, today=TODAY) and None, stack.name, preview=True)
    assert {(r.type, r.name) for r in unknown} == {(r.type, r.name) for r in rendered(name).resources}


def test_no_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the preview opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    render(load_stack(file("aks-full")), today=TODAY)


@pytest.mark.parametrize("name", STACKS)
def test_the_pulumi_program_declares_what_the_preview_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load(file(name).read_text())["config"]
    told = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    # As Pulumi's engine tells a program: every default of Pulumi.yaml too, and other providers' keys.
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    for key, one in declared.items():
        default = one["default"]
        told.setdefault(f"ncdemo:{key}", default if isinstance(default, str) else json.dumps(default))
    told["azure-native:subscriptionId"] = "0"
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(told))
    seen = record(lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py")) and None, name)
    assert {(r.type, r.name): r.inputs for r in seen if r.type != "azure-native:consumption:Budget"} == {
        (r.type, r.name): r.inputs for r in rendered(name).resources if r.type != "azure-native:consumption:Budget"
    }


def test_a_mistake_in_the_config_ends_the_pulumi_program_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"ncdemo:poools": "[]"}))
    with pytest.raises(pulumi.RunError, match=r"^Pulumi\.dev\.yaml: poools = \[\]: unknown key; did you mean pools\?"):
        record(lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py")) and None, "dev")


def test_a_token_in_plain_text_ends_the_pulumi_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"ncdemo:hf_token": "hf_abc"}))
    with pytest.raises(pulumi.RunError, match="plain text") as caught:
        record(lambda: runpy.run_path(str(ROOT / "stacks" / "__main__.py")) and None, "dev")
    assert "hf_abc" not in str(caught.value)


def test_pulumi_yaml_declares_every_key_as_the_spec_does() -> None:
    from ncdemo.spec import StackSpec

    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    fields = {name: field for name, field in StackSpec.model_fields.items() if name != "kind"}
    assert {key: one["description"] for key, one in declared["config"].items()} == {key: field.description for key, field in fields.items()}
    assert declared["runtime"] == {"name": "python", "options": {"toolchain": "pip", "virtualenv": ".venv"}}
    assert (declared["main"], declared["stackConfigDir"]) == ("stacks", "stacks")
    defaults = {key: one["default"] for key, one in declared["config"].items() if one["default"] != ""}
    assert StackSpec.model_validate_json(json.dumps(defaults)) == StackSpec()
    kinds = {"string": str, "array": list, "object": dict}
    assert all(isinstance(one["default"], kinds[one["type"]]) for one in declared["config"].values())
