"""A stack's config: each mistake in one line with file, key and remedy; what is valid, and what it comes to."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncdemo.spec import SpecError, StackSpec, dump_spec, parse_spec
from ncdemo.spec.sizes import SIZES, find
from ncdemo.spec.stack_file import Stack, load_stack, stack_of

ROOT = Path(__file__).resolve().parents[2]
STACKS = sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))
LORA = "workloads/configs/training/lora.yaml"
BENCH = "workloads/configs/inference/demo.yaml"
JOB = f"ncdemo:jobs:\n    - name: x\n      config: {LORA}\n"
CORRECT = "correct it, or remove"
BASE_60 = "YAML reads digits with colons in base 60"


def load(tmp_path: Path, config: str, name: str = "dev") -> Stack:
    path = tmp_path / f"Pulumi.{name}.yaml"
    path.write_text(f"config:\n  {config}\n")
    return load_stack(path)


MISTAKES = [
    # Sizes
    ("ncdemo:pools:\n    - vm_size: Standard_NC40_H100", "3: pools.0.vm_size = 'Standard_NC40_H100': isn't a VM size in ncdemo's catalogue; "
     "did you mean Standard_NC40ads_H100_v5\\? Known: "),
    ("ncdemo:aks:\n    system: {vm_size: Standard_NC40ads_H100_v5}", "3: aks.system.vm_size = .*: .*4 vCPUs or more and no GPU; use Standard_D4s_v5"),
    ("ncdemo:aks:\n    system: {vm_size: Standard_D2s_v5}", "3: aks.system.vm_size = .*: .*4 vCPUs or more and no GPU; use Standard_D4s_v5"),
    ("ncdemo:aks:\n    system: {spot: true}", "3: aks.system.spot = true: unknown key; it belongs in pools. Allowed here: count, vm_size"),
    # Pools
    ("ncdemo:pools:\n    - name: h100\n      min_count: 3\n      max_count: 2\n      spot: false",
     "4: pools.0.min_count = 3: min_count is above max_count = 2; lower it, or raise max_count"),
    ("ncdemo:pools:\n    - {name: h100, min_count: 1}", "3: pools.0.min_count = 1: min_count must be 0 on a spot pool, .* or set spot: false"),
    ("ncdemo:pools:\n    - {spot: false, max_price_usd_per_h: 3}", "3: pools.0.max_price_usd_per_h = 3: .* remove it, or set spot: true"),
    ("ncdemo:pools:\n    - {name: system}", "3: pools.0.name = 'system': name 'system' is taken by the cluster's own pool; choose another"),
    ("ncdemo:pools:\n    - {name: GPU-Pool}", "3: pools.0.name = 'GPU-Pool': must be 2 to 12 lower-case letters and digits"),
    ("ncdemo:pools:\n    - {name: a1}\n    - {name: a1}", "4: pools.1.name = 'a1': 'a1' is used twice; rename one"),
    ("ncdemo:pools: []", r"2: pools = \[\]: is empty; add one, e.g. pools: "),
    ("ncdemo:target: kubernetes\n  ncdemo:storage: {files_gib: 100}", "3: storage.files_gib = 100: .*target: kubernetes doesn't; remove it"),
    # Jobs and their pools
    (JOB + "      pool: nope", "5: jobs.0.pool = 'nope': 'nope' doesn't exist; use one of: h100"),
    ("ncdemo:pools: [{name: a1}, {name: b1}]\n  " + JOB, "4: jobs.0.pool: is needed, as there are several; use one of: a1, b1"),
    (JOB + "      gpus: 2", r"5: jobs.0.gpus = 2: asks for 2, but a node of pool 'h100' \(Standard_NC40ads_H100_v5\) has 1; lower it"),
    (JOB + "      nodes: 2", "5: jobs.0.nodes = 2: asks for 2, but pool 'h100' has at most 1; lower it, or raise the pool's max_count"),
    (JOB + "      scratch_gib: 500", "5: jobs.0.scratch_gib = 500: is more than 179, 70% of the pool's OS disk, .* or raise os_disk_gib"),
    (JOB + f"    - name: x\n      config: {LORA}", "5: jobs.1.name = 'x': 'x' is used twice; rename one"),
    (JOB.replace(": x", ": Tune_1"), "3: jobs.0.name = 'Tune_1': must be lower-case letters, digits and hyphens, at most 32"),
    ("ncdemo:jobs:\n    - {name: x}", "3: jobs.0.config: is required: text that is not empty; add it"),
    (JOB.replace(LORA, BENCH) + "      nodes: 2\n  ncdemo:pools: [{max_count: 2}]", "5: jobs.0.nodes: a benchmark runs on one node; remove it"),
    (JOB + "      server: {image: 'nvcr.io/a:latest', command: [a]}", "5: jobs.0.server.image = .*: must be an image with a version tag"),
    # Jobs and their specs
    (JOB.replace(LORA, "nope.yaml"), "4: jobs.0.config: nope.yaml: no such file; give the path of a YAML spec"),
    (JOB.replace(LORA, "stacks/Pulumi.aks-dev.yaml"), "4: jobs.0.config: stacks/.*: kind = null: a job runs kind: train or bench; write it"),
    (JOB + "      set:\n        train.max_step: 3", "6: jobs.0.set: train.max_step = 3: unknown key; did you mean max_steps?"),
    (JOB + "      set: {train.max_steps: -3}", "5: jobs.0.set: train.max_steps = -3: must be a whole number of at least 1, or null; correct it"),
    (JOB + "      set: {train.processes: 4}", "4: jobs.0.config: .* says train.processes = 4, the job has 1 GPUs a node; leave it out"),
    (JOB + "      set: {data.name: mine.jsonl}", "4: jobs.0.config: data.name mine.jsonl is a file of this machine, .*/files/"),
    # Names that Azure takes
    ("ncdemo:name: My_Stack", "2: name = 'My_Stack': must be 2 to 16 lower-case letters, digits and hyphens"),
    ("ncdemo:location: East US", "2: location = 'East US': must be an Azure region without spaces, e.g. eastus"),
    ("ncdemo:tags: {stack: x}", "2: tags.stack = 'x': is set by ncdemo itself; remove it"),
    ("ncdemo:cost_guard: {expires: '2027-02-31T18:00:00Z'}", "2: cost_guard.expires = '2027-02-31T18:00:00Z': expires isn't a day of the calendar"),
    ("ncdemo:cost_guard: {expires: tomorrow}", "2: cost_guard.expires = 'tomorrow': must be a time in UTC and in quotes"),
    ("ncdemo:tags: {expires: never}", "2: tags.expires = 'never': is set by ncdemo itself; remove it"),
    ("ncdemo:aks: {admins: [me]}", "2: aks.admins.0 = 'me': must be an object id, e.g. what `az ad signed-in-user show"),
    ("ncdemo:images: {digests: {train: abc}}", f"2: images.digests.train = 'abc': must be sha256: and 64 hex digits; {CORRECT}"),
    ("ncdemo:aks: {kubernetes_version: 1.35}", "2: aks.kubernetes_version = 1.35: must be '1.34', .* YAML reads this as a number: quote it"),
    ("ncdemo:target: gke", "2: target = 'gke': must be 'aks', 'vm' or 'kubernetes'"),
    # Networks
    ("ncdemo:network: {address_space: 10.0.0.1/16}", r"2: network.address_space = .*: is not a network \(10.0.0.1/16 has host bits set\); write"),
    ("ncdemo:network: {address_space: 10.0.0.0/24}", "2: network.address_space = .*: address_space must be IPv4 and at least a /20"),
    ("ncdemo:network: {ssh_from: [0.0.0.0/0]}", "2: network.ssh_from.0 = '0.0.0.0/0': lets too much of the internet in; write your own network"),
    ("ncdemo:network: {ssh_from: [home]}", "2: network.ssh_from.0 = 'home': is not a network .*; write e.g. 203.0.113.7/32"),
    ("ncdemo:vm: {ssh_public_keys: [abc]}", "2: vm.ssh_public_keys.0 = 'abc': must be an SSH public key, e.g. the line in"),
    # Money and time
    ("ncdemo:cost_guard: {monthly_budget_usd: 100}", "2: cost_guard.monthly_budget_usd = 100: .*needs someone to tell; add alert_emails"),
    ("ncdemo:cost_guard: {shutdown_utc: 19:00}", f"2: .*shutdown_utc = 19:00: {BASE_60}; write a plain number, or quote it"),
    ("ncdemo:cost_guard: {shutdown_utc: '25:00'}", "2: cost_guard.shutdown_utc = '25:00': must be a time in quotes, 00:00 to 23:59, in UTC"),
    ("ncdemo:cost_guard: {alert_emails: [me]}", "2: cost_guard.alert_emails.0 = 'me': must be an e-mail address"),
    ("ncdemo:monitoring: {grafana: true}", "2: monitoring.grafana = true: .*grafana shows what in_cluster's Prometheus holds; set in_cluster: true too"),
    # The file
    ("ncdemo:poolz: []", r"2: poolz = \[\]: unknown key; did you mean pools\? Allowed here: aks, cost_guard, "),
    ("ncdemo:jobs: 3", "2: jobs = 3: must be a list, each a mapping with keys from: config, "),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), MISTAKES, ids=[config.replace("\n", " ")[:60] for config, _ in MISTAKES])
def test_a_mistake_is_one_line_with_its_place_and_remedy(config: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, config)
    text = str(caught.value)
    assert "\n" not in text
    assert re.match(f"{re.escape(str(tmp_path))}/Pulumi.dev.yaml:{message}", text), text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "the top level is ['a']; it must be a mapping with the key config"),
        ("config: 3\n", "config = 3: it must be a mapping of ncdemo:<key> to values"),
        ("config: {a: [}\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_stack_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_stack(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["Team_A", "a-name-that-is-too-long-for-azure", "1st"])
def test_a_stack_name_that_azure_does_not_take_is_mended_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"can't be part of Azure's names .*; set name$"):
        load(tmp_path, "ncdemo:target: aks", name)
    assert load(tmp_path, "ncdemo:name: team-a", name).name == "team-a"


def test_two_mistakes_of_a_job_are_two_lines(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, JOB + "      set:\n        train.method: half\n        train.max_steps: 0")
    lines = str(caught.value).split("\n")
    assert sorted(line.split(":")[1] for line in lines) == ["6", "7"]


def test_a_mistake_in_a_jobs_file_names_both_files(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("kind: train\ntrain:\n  max_steps: many\n")
    with pytest.raises(SpecError) as caught:
        load(tmp_path, JOB.replace(LORA, str(spec)))
    assert f"Pulumi.dev.yaml:4: jobs.0.config: {spec}:3: train.max_steps = 'many'" in str(caught.value)


def test_a_token_in_plain_text_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"2: hf_token: is in plain text; .* pulumi config set --secret hf_token") as caught:
        load(tmp_path, "ncdemo:hf_token: hf_abcdef")
    assert "hf_abcdef" not in str(caught.value)
    assert load(tmp_path, "ncdemo:hf_token: {secure: v1:abc}").has_token
    assert not load(tmp_path, "ncdemo:target: aks").has_token


def test_keys_of_other_namespaces_are_for_their_providers(tmp_path: Path) -> None:
    assert load(tmp_path, "azure-native:location: eastus\n  pulumi:tags: {a: b}").spec == StackSpec()


@pytest.mark.parametrize("text", ["", "config:\n", "config: {}\n", "encryptionsalt: v1:abc\n"])
def test_an_empty_stack_is_all_defaults(text: str, tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(text)
    assert load_stack(path).spec == StackSpec()


NOTES = [
    ("ncdemo:pools: [{vm_size: standard_nc40adis_h100_v5}]",
     ["pools.0.vm_size: Standard_NC40adis_H100_v5 is not an Azure size; Standard_NC40ads_H100_v5 is used"]),
    ("ncdemo:network: {ssh_from: [203.0.113.0/24]}", ["network.ssh_from: no effect without VMs"]),
    ("ncdemo:target: vm\n  ncdemo:monitoring: {in_cluster: true, azure_monitor: true}",
     ["monitoring.in_cluster: no effect on VMs, where each run's evidence goes to Blob", "monitoring.azure_monitor: no effect on VMs"]),
    ("ncdemo:target: vm\n  ncdemo:network: {ssh_from: [203.0.113.0/24]}", []),
]  # fmt: skip


@pytest.mark.parametrize(("config", "notes"), NOTES, ids=[config.replace("\n", " ")[:60] for config, _ in NOTES])
def test_what_has_no_effect_or_was_replaced_is_said(config: str, notes: list[str], tmp_path: Path) -> None:
    assert load(tmp_path, config).notes == notes


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.stem)
def test_every_stack_loads_and_survives_yaml(path: Path) -> None:
    stack = load_stack(path)
    assert stack.notes == []
    assert stack.jobs
    assert parse_spec(dump_spec(stack.spec), StackSpec) == stack.spec


def jobs(*given: dict[str, Any], **config: Any) -> Stack:
    return stack_of("dev", {"jobs": [{"name": f"j{n}", **one} for n, one in enumerate(given)], **config}, {})


def test_what_a_job_comes_to() -> None:
    pools = [{"name": "two", "vm_size": "Standard_NC80adis_H100_v5"}]
    whole, one, bench = jobs(
        {"config": LORA},
        {"config": LORA, "gpus": 1, "deadline_h": 0.5, "set": {"train.processes": 1}},
        {"config": BENCH, "set": {"engines": ["transformers"]}},
        pools=pools,
        cost_guard={"job_deadline_h": 3},
    ).jobs
    assert (whole.gpus, whole.run.train.processes, whole.deadline_s, whole.image) == (2, 2, 10800, "train")
    assert (one.gpus, one.run.train.processes, one.deadline_s) == (1, 1, 1800)
    assert bench.image == "train"
    assert jobs({"config": BENCH}).jobs[0].image == "vllm"


INSIGHTS = {"application_insights": True}
NOWHERE = [
    ("identity", {}, "identity, but the stack has no Application Insights resource .*; set monitoring.application_insights: true$"),
    ("key", {"target": "vm"}, "key, but the stack has no Application Insights resource .*; set monitoring.application_insights: true$"),
    ("key", {"monitoring": INSIGHTS}, r"key, but .* takes identities alone; set it to identity \(under set:\)$"),
    ("identity", {"target": "kubernetes"}, r"identity, but on a cluster that exists .*; set it to null \(under set:\)$"),
]


@pytest.mark.parametrize("config", [LORA, BENCH], ids=["train", "bench"])
@pytest.mark.parametrize(("auth", "stack", "said"), NOWHERE)
def test_figures_that_would_reach_no_resource_are_refused(config: str, auth: str, stack: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=rf"jobs\.0\.config: telemetry\.azure_monitor = {said}"):
        jobs({"config": config, "set": {"telemetry.azure_monitor": auth}}, **stack)


@pytest.mark.parametrize("target", ["aks", "vm"])
def test_figures_reach_the_stacks_own_resource_as_an_identity(target: str) -> None:
    (job,) = jobs({"config": LORA, "set": {"telemetry.azure_monitor": "identity"}}, target=target, monitoring=INSIGHTS).jobs
    assert job.run.telemetry.azure_monitor == "identity"


def test_a_cluster_that_exists_gets_no_application_insights() -> None:
    with pytest.raises(
        SpecError, match=r"monitoring\.application_insights makes an Azure resource, which target: kubernetes doesn't; remove it"
    ):
        jobs(target="kubernetes", monitoring=INSIGHTS)


def test_without_a_pool_a_job_takes_one_gpu_or_none() -> None:
    one, none = jobs({"config": LORA}, {"config": LORA, "gpus": 0}, target="kubernetes").jobs
    assert (one.pool, one.gpus, one.run.train.processes) == (None, 1, 1)
    assert (none.gpus, none.run.train.processes) == (0, 1)


def test_overrides_reach_a_stack(tmp_path: Path) -> None:
    stack = load_stack(ROOT / "stacks" / "Pulumi.aks-dev.yaml", ["pools.0.max_count=7", "location=westeurope"])
    assert (stack.spec.pools[0].max_count, stack.spec.location) == (7, "westeurope")
    with pytest.raises(SpecError, match=r"^--set pools\.0\.max_count=0: pools\.0\.max_count = 0: must be a whole number of at least 1"):
        load_stack(ROOT / "stacks" / "Pulumi.aks-dev.yaml", ["pools.0.max_count=0"])


POOL = st.fixed_dictionaries(
    {"vm_size": st.sampled_from(sorted(SIZES)), "spot": st.booleans(), "max_count": st.integers(1, 5)},
    optional={"os_disk_gib": st.integers(200, 300), "zones": st.lists(st.sampled_from("123"), unique=True)},
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(POOL, min_size=1, max_size=4), st.sampled_from(["aks", "vm", "kubernetes"]), st.data())
def test_whatever_fits_loads_and_reads_back_equal(pools: list[dict[str, Any]], target: str, data: st.DataObject) -> None:
    named = [{"name": f"p{n}", **pool} for n, pool in enumerate(pools)]
    chosen = data.draw(st.sampled_from(named))
    job = {"pool": chosen["name"], "nodes": data.draw(st.integers(1, chosen["max_count"])), "config": LORA}
    stack = jobs(job, pools=named, target=target)
    assert stack.jobs[0].gpus == SIZES[chosen["vm_size"]].gpus
    assert parse_spec(dump_spec(stack.spec), StackSpec).spec_hash() == stack.spec.spec_hash()


def test_sizes_are_whole_and_say_where_they_were_read() -> None:
    for size in SIZES.values():
        assert size.source
        assert size.vcpus > 0 < size.memory_gib
        assert bool(size.gpus) == bool(size.gpu_model) == bool(size.gpu_memory_gb)
        assert all(price > 0 for price in size.usd_per_h.values())
    assert SIZES["Standard_NC40ads_H100_v5"].price("nowhere") is None
    assert find("STANDARD_NC80ADIS_H100_V5") is SIZES["Standard_NC80adis_H100_v5"]
    assert find("Standard_NC40adis_H100_v5") is SIZES["Standard_NC40ads_H100_v5"]
    assert find("Standard_NC24") is None


def test_the_schema_of_a_stack_is_for_editors() -> None:
    schema = StackSpec.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert yaml.safe_load(yaml.safe_dump(schema)) == schema
