"""2,000 broken specs: whatever a file or an override holds, the loader answers with one line per mistake.

A case is repeatable by its number. survey(100_000, folder) was run once; after a change here or in the loader, run more too.
"""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from ncdemo.spec import SPECS, BenchSpec, Spec, SpecError, TrainSpec, dump_spec, load_spec, parse_spec
from ncdemo.spec.stack_file import Stack, load_stack

ROOT = Path(__file__).resolve().parents[2]

spec_of = importlib.util.spec_from_file_location("tests_spec_mutators", Path(__file__).with_name("mutators.py"))
assert spec_of
assert spec_of.loader
mutators = importlib.util.module_from_spec(spec_of)
sys.modules[spec_of.name] = mutators
spec_of.loader.exec_module(mutators)
broken, KEYS, NASTY = mutators.broken, mutators.KEYS, mutators.NASTY

CASES = 2_000
TRAIN = """\
kind: train  # what to run
name: demo
model: &model {name: smollm2-135m-instruct, revision: "abc"}
data:
  name: ncdemo-jobs
  packing: true
  max_seq_len: 512
train:
  method: lora
  lora:
    r: 8
    target_modules:
      - q_proj
      - 'v_proj'
  learning_rate: 2.0e-5
  max_grad_norm: null
telemetry: {sample_hz: 0.5, mlflow_uri: ~}
"""
BENCH = """\
kind: bench
models:
- name: a
  revision: main
- {name: b}
engines: [transformers]
concurrency: [1, 8]
prompts: {file: prompts/jobs.jsonl, count: 16}
slo: {ttft_s: 2, tpot_s: 0.1}
memory_fraction: 0.4
"""
OVERRIDES = [
    "train.max_steps=3",
    "train.lora={r: 4}",
    "models.0.name=x",
    "engines=[echo]",
    "concurrency.1=2",
    "data.packing=no",
    "kind=train",
]


def _override(rng: random.Random) -> str:
    key, _, value = rng.choice(OVERRIDES).partition("=")
    parts = key.split(".")
    parts[rng.randrange(len(parts))] = rng.choice([rng.choice(parts), rng.choice(KEYS), "0", "9", "²", "", "-1"])
    key = rng.choice([key, ".".join(parts), ".".join([*parts, rng.choice(KEYS)])])
    return key + rng.choice(["=", "=", "=", "", "=="]) + rng.choice([value, rng.choice(NASTY), "\udcff", "[" * 60, "9" * 5000])


def survey(cases: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Load so many broken specs; return how many were refused and how many still loaded. Raise on any other outcome."""
    texts: list[tuple[bytes, type[Spec]]] = [(TRAIN.encode(), TrainSpec), (BENCH.encode(), BenchSpec)]
    texts += [(dump_spec(model()).encode(), model) for model in SPECS.values()]
    path, counts = folder / "broken.yaml", {"refused": 0, "loaded": 0}
    for case in range(cases):
        rng = random.Random(seed + case)
        text, model = rng.choice(texts)
        text = broken(rng, text)
        overrides = [_override(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
        path.write_bytes(text)
        try:
            spec = load_spec(path, model, overrides)
        except SpecError as error:
            counts["refused"] += 1
            lines = str(error).split("\n")
            assert all(line.startswith((str(path), "--set ")) and line.isprintable() for line in lines), (case, lines)
            keys = [line.partition(" = ")[0] for line in lines]
            assert len(keys) == len(set(keys)), (case, lines)
        except Exception as error:
            raise AssertionError(f"case {case}: {error!r} from {text!r} with {overrides}") from error
        else:
            counts["loaded"] += 1
            assert parse_spec(dump_spec(spec), model) == spec, (case, text)
    return counts


def test_broken_specs_end_in_one_line_per_mistake(tmp_path: Path) -> None:
    counts = survey(CASES, tmp_path)
    assert min(counts.values()) > CASES // 20, f"the mutator is too harsh or too gentle: {counts}"


FULL_STACK = """\
config:
  ncdemo:name: team
  ncdemo:target: vm  # or aks
  ncdemo:location: eastus
  ncdemo:tags: {team: "a b"}
  ncdemo:pools:
    - {name: h100, vm_size: Standard_NC40ads_H100_v5, spot: true, max_count: 2, zones: ["1"], max_price_usd_per_h: 3.5}
    - name: big
      vm_size: Standard_NC80adis_H100_v5
      spot: false
      min_count: 1
      driver: none
  ncdemo:images: {repository: registry.example/ncdemo, version: 0.1.0, digests: {}}
  ncdemo:aks:
    kubernetes_version: "1.35"
    system: {vm_size: Standard_D4s_v5, count: 2}
    admins: [00000000-0000-0000-0000-000000000000]
    api_allowed_from: [203.0.113.0/24]
    kueue: true
  ncdemo:vm: {image: "2204", ssh_public_keys: ["ssh-ed25519 AAAA me"], idle_minutes: 20, setup: "echo hello"}
  ncdemo:kubernetes: {context: kind, node_selector: {gpu: h100}, runs_gib: 20}
  ncdemo:network: {address_space: 10.1.0.0/16, ssh_from: [203.0.113.7/32], bastion: basic}
  ncdemo:storage: {replication: ZRS, keep_deleted_days: 3, files_gib: 100, allowed_from: [203.0.113.7/32]}
  ncdemo:monitoring: {in_cluster: true, azure_monitor: true, metrics_days: 7}
  ncdemo:cost_guard: {monthly_budget_usd: 500, alert_emails: [a@example.com], shutdown_utc: "20:00", job_deadline_h: 2.5}
  ncdemo:hf_token: {secure: v1:abcdef}
  ncdemo:jobs:
    - {name: tune, config: workloads/configs/training/lora.yaml, pool: big, gpus: 1, retries: 2, scratch_gib: 50, suspend: true}
    - name: bench
      config: workloads/configs/inference/endpoint.yaml
      set: {repeats: 2}
      pool: h100
      server: {image: "nvcr.io/nvidia/x:1.0", command: [serve, --port, "8000"], port: 8000}
"""
STACK_CASES = 500
STACK_OVERRIDES = ["target=aks", "target=kubernetes", "pools.0.max_count=3", "jobs=[]", "jobs.0.nodes=2", "network={}", "aks.kueue=false"]


def stack_survey(cases: int, folder: Path, seed: int = 0) -> tuple[int, list[Stack]]:
    """Load so many broken stacks; return how many were refused, and those that still loaded. Raise on any other outcome."""
    texts = [path.read_bytes() for path in sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))] + [FULL_STACK.encode()] * 4
    path, refused, loaded = folder / "Pulumi.broken.yaml", 0, []
    for case in range(cases):
        rng = random.Random(seed + case)
        path.write_bytes(broken(rng, rng.choice(texts)))
        overrides = [rng.choice(STACK_OVERRIDES)] if rng.random() < 0.3 else []
        try:
            loaded.append(load_stack(path, overrides))
        except SpecError as error:
            refused += 1
            lines = str(error).split("\n")
            assert all(line.startswith((str(path), "--set ")) and line.isprintable() for line in lines), (case, lines)
        except Exception as error:
            raise AssertionError(f"case {case}: {error!r} from {path.read_bytes()!r} with {overrides}") from error
    return refused, loaded


def test_broken_stacks_end_in_one_line_per_mistake(tmp_path: Path) -> None:
    refused, loaded = stack_survey(STACK_CASES, tmp_path)
    assert min(refused, len(loaded)) > STACK_CASES // 20, f"the mutator is too harsh or too gentle: {refused} refused"


def test_broken_stacks_that_load_render_or_say_why_not(tmp_path: Path) -> None:
    pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")
    from ncdemo.infra.render import render

    _, loaded = stack_survey(STACK_CASES, tmp_path, seed=1)
    different = list({stack.spec.spec_hash(): stack for stack in loaded}.values())[:20]
    assert len(different) == 20
    refusals = []
    for stack in different:
        try:
            assert render(stack).resources
        except SpecError as error:
            refusals.append(str(error))
    assert all(text.isprintable() for text in refusals)
