"""`ncdemo image`: real processes; docker, az and pulumi are programs on PATH that note how they were called and answer as the real ones."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ncdemo.spec.images import IMAGES
from ncdemo.spec.stack_file import load_stack

ROOT = Path(__file__).resolve().parents[2]
DIGEST = f"sha256:{'c' * 64}"
TOOL = f"""#!{sys.executable}
import json, os, sys
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, os.getcwd(), *args]) + "\\n")
if os.environ.get("FAILS", "never") in " ".join([name, *args]):
    print("denied: no access", file=sys.stderr)
    sys.exit(7)
if args[:2] == ["image", "inspect"]:
    print("elsewhere.example/ncdemo@sha256:" + "d" * 64 + "\\n" + args[-1].rpartition(":")[0] + "@{DIGEST}\\n")
elif args[:3] == ["acr", "repository", "show"]:
    print("{DIGEST}")
elif name == "pulumi":
    print("crdev1a2b.azurecr.io")
else:
    print("progress")
"""
STACK = "# mine\nconfig:\n  ncdemo:target: vm\n  ncdemo:location: eastus # near\n"


class Machine:
    """A machine with some of the tools, and one stack."""

    def __init__(self, tmp_path: Path, *tools: str) -> None:
        self.bin, self.log = tmp_path / "bin", tmp_path / "calls"
        self.stack = tmp_path / "stacks" / "Pulumi.dev.yaml"
        for folder in (self.bin, self.stack.parent):
            folder.mkdir()
        self.stack.write_text(STACK)
        for tool in tools:
            path = self.bin / tool
            path.write_text(TOOL)
            path.chmod(0o755)

    def image(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        tools = os.pathsep.join([str(self.bin), os.path.dirname(subprocess.getoutput("command -v git"))])
        # Of the real PATH only git's folder, if that brings none of the tools.
        if any(Path(folder, tool).exists() for folder in tools.split(os.pathsep)[1:] for tool in ("docker", "az", "pulumi")):
            tools = str(self.bin)
        full = {**os.environ, "PATH": tools, "CALLS": str(self.log), **env}
        return subprocess.run(
            [sys.executable, "-m", "ncdemo", "image", *args], capture_output=True, text=True, env=full, cwd=ROOT, timeout=60
        )

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def arguments(call: list[str]) -> dict[str, str]:
    return dict(call[at + 1].partition("=")[::2] for at, word in enumerate(call) if word == "--build-arg")


@pytest.mark.parametrize("tag", IMAGES)
def test_docker_builds_what_the_table_says(tag: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker")
    done = machine.image("build", tag)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    [call] = machine.calls
    assert call[:7] == ["docker", str(ROOT), "build", "--file", "Dockerfile.uv", "--tag", f"ncdemo:0.1.0-{tag}"]
    assert call[-1] == "."
    found = arguments(call)
    assert found["LOCK_SHA256"] == hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
    assert (found["BASE"], found["LAST"], found["EXTRAS"]) == (IMAGES[tag].base, IMAGES[tag].last, ",".join(IMAGES[tag].extras))


def test_every_build_argument_is_one_of_the_dockerfile(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker")
    machine.image("build", "train", "--cpu", "--index", "https://mirror.example/simple")
    declared = {line.split()[1].partition("=")[0] for line in (ROOT / "Dockerfile.uv").read_text().splitlines() if line.startswith("ARG ")}
    found = arguments(machine.calls[0])
    assert found.keys() <= declared
    assert (found["EXTRAS"], found["TORCH"], found["BASE"]) == ("train,demo,azure-monitor", "cpu", "ubuntu:22.04")
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"


def test_a_push_writes_the_digest_into_the_stack(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker", "az", "pulumi")
    done = machine.image("push", "train", "--stack", str(machine.stack))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{DIGEST}\n"
    ref = "crdev1a2b.azurecr.io/ncdemo:0.1.0-train"
    inspect = ["image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", ref]
    assert [(call[0], call[2:]) for call in machine.calls] == [
        ("pulumi", ["stack", "output", "registry", "--stack", "dev"]),
        ("az", ["acr", "login", "--name", "crdev1a2b"]),
        ("docker", ["push", ref]),
        ("docker", inspect),
    ]
    assert machine.calls[0][1] == str(tmp_path)
    assert machine.stack.read_text() == f"{STACK}  ncdemo:images:\n    digests:\n      train: {DIGEST}\n"
    assert "images.digests.train is now" in done.stderr
    assert "was already" in machine.image("push", "train", "--stack", str(machine.stack)).stderr


def test_a_registry_elsewhere_needs_no_azure(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker")
    machine.stack.write_text(f"{STACK}  ncdemo:images: {{repository: registry.example:5000/team/ncdemo, version: '2.0'}}\n")
    done = machine.image("push", "vllm", "--stack", str(machine.stack))
    assert done.returncode == 0, done.stderr
    assert [call[2] for call in machine.calls] == ["push", "image"]
    assert machine.calls[0][3] == "registry.example:5000/team/ncdemo:2.0-vllm"
    assert load_stack(machine.stack).spec.images.digests == {"vllm": DIGEST}


def test_azure_builds_and_pushes_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "az")
    done = machine.image("build", "unsloth", "--azure", "--stack", str(machine.stack), "--registry", "crx.azurecr.io")
    assert (done.returncode, done.stdout) == (0, f"{DIGEST}\n"), done.stderr
    build, show = machine.calls
    image = "ncdemo:0.1.0-unsloth"
    assert build[2:11] == ["acr", "build", "--registry", "crx", "--image", image, "--file", "Dockerfile.uv", "--timeout"]
    assert arguments(build)["EXTRAS"] == "train-cu12,unsloth,demo,azure-monitor"
    assert show[2:] == ["acr", "repository", "show", "--name", "crx", "--image", image, "--query", "digest", "--output", "tsv"]
    assert load_stack(machine.stack).spec.images.digests == {"unsloth": DIGEST}


@pytest.mark.parametrize("words", [["build", "train"], ["build", "mlflow", "--azure"], ["push", "train"]], ids=" ".join)
def test_a_dry_run_prints_what_then_runs_and_runs_nothing(words: list[str], tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker", "az")
    words = [*words, "--stack", str(machine.stack), "--registry", "crx.azurecr.io"]
    shown = machine.image(*words, "--dry-run").stdout.splitlines()
    assert machine.calls == []
    assert machine.stack.read_text() == STACK
    assert machine.image(*words).returncode == 0
    assert shlex.split(shown[0]) == ["cd", str(ROOT)]
    assert [shlex.split(line) for line in shown[1:] if line[0] != "#"] == [[call[0], *call[2:]] for call in machine.calls]
    assert (shown[-1][0] == "#") == (machine.stack.read_text() != STACK)


MISTAKES = [
    (["build", "latest"], (), {}, 2, "'latest' is not one of 'train', 'unsloth', 'vllm'"),
    (["build", "train"], (), {}, 2, "Docker isn't installed; install it, or let Azure build: ncdemo image build TAG --azure --stack STACK"),
    (["build", "train", "--azure", "--registry", "cr.azurecr.io"], (), {}, 2, "the Azure CLI isn't installed; see"),
    (["build", "train", "--azure"], ("az",), {}, 2, "ncdemo is not in an Azure registry (NAME.azurecr.io/...); leave --azure out"),
    (["push", "train"], ("docker",), {}, 2, "there is nowhere to push to; name a stack with --stack, or a registry"),
    (["push", "train", "--stack", "{stack}"], ("docker",), {}, 2, "the Pulumi CLI, which knows the registry of stack dev, isn't installed"),
    (
        ["push", "train", "--stack", "{stack}"],
        ("docker", "pulumi"),
        {"FAILS": "output"},
        2,
        "stack dev has no registry yet (pulumi stack output registry --stack dev: denied: no access); make it with `ncdemo stack up dev`",
    ),
    (["push", "train", "--registry", "r.example"], ("docker",), {"FAILS": "docker push"}, 7, "denied: no access"),
    (
        ["push", "train", "--registry", "r.example"],
        ("docker",),
        {"FAILS": "inspect"},
        2,
        "the image was pushed, but its digest can't be read",
    ),
    (["push", "train", "--stack", "nowhere"], ("docker",), {}, 2, "no stack 'nowhere'"),
]


@pytest.mark.parametrize(("words", "tools", "env", "code", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(
    words: list[str], tools: tuple[str, ...], env: dict[str, str], code: int, message: str, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, *tools)
    done = machine.image(*[word.format(stack=machine.stack) for word in words], **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert machine.stack.read_text() == STACK


def test_a_stack_with_a_repository_needs_no_other(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "docker")
    machine.stack.write_text(f"{STACK}  ncdemo:images: {{repository: registry.example/ncdemo}}\n")
    done = machine.image("push", "train", "--stack", str(machine.stack), "--registry", "r.example")
    assert done.returncode == 2
    assert "the stack says images.repository = registry.example/ncdemo; leave one of them out" in done.stderr
