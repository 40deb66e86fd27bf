"""The Dockerfile is built for real, without Docker, and the job runs in the image as on a node: user 10001, a root that is read-only.

pytest -m slow tests/image          # about 8 minutes on two cores; needs root, buildah and mmdebstrap (Debian's packages)

Debian 12, which has Python 3.11, stands for the base image, and torch is the CPU build: no CUDA is compiled here.
"""

import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ncdemo.cli.image_commands import Target, arguments
from ncdemo.infra.job_plan import environment
from ncdemo.spec.job import job_command
from ncdemo.spec.stack_file import load_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
WHEELS = os.environ.get("PIP_FIND_LINKS", "")
BASE = """\
FROM scratch
ADD base.tar /
COPY certificates.crt /etc/ssl/certs/certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/certificates.crt
"""
# The file system of a pod: all read-only, but what volumes are mounted on.
POD = """
set -e
root=$1 volumes=$2
shift 2
mount --rbind "$root" "$root"
mount -o remount,ro,bind "$root"
for folder in runs scratch tmp; do mount --bind "$volumes/$folder" "$root/$folder"; done
mount --bind "$volumes/ncdemo" "$root/etc/ncdemo"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec=10001:10001 "$root" env -i -C /scratch "$@"
"""


class Buildah:
    """Debian's builder, its images in a folder of the tests'."""

    def __init__(self, folder: Path) -> None:
        self.built = arguments("train", Target("ncdemo", "0.1.0"), cpu=True)
        """Once: a commit made meanwhile is none that was built."""
        self.args = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess:
        env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run([*self.args, *words], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert not check or done.returncode == 0, done.stdout[-4000:]
        return done

    def build(self, tag: str, *, check: bool = True, **changes: str) -> subprocess.CompletedProcess:
        """Build Dockerfile.uv as `ncdemo image build train --cpu` would, on the base at hand."""
        words = {**self.built, "BASE": "localhost/base", "LAST": "localhost/base"}
        words |= {"UV_IMAGE": "localhost/uv", "PIP_FIND_LINKS": WHEELS, **changes}
        flags = [word for pair in words.items() for word in ("--build-arg", "=".join(pair))]
        mount = ["--volume", f"{WHEELS}:{WHEELS}:ro"] if WHEELS.startswith("/") else []
        return self("bud", "--format", "docker", "--tag", f"localhost/{tag}", *flags, *mount, "--file", "Dockerfile.uv", ".", check=check)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    missing = [program for program in ("buildah", "mmdebstrap") if not shutil.which(program)]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and {' and '.join(missing) or 'nothing else'}")
    folder = tmp_path_factory.mktemp("buildah")
    made = Buildah(folder)
    include = "--include=ca-certificates,python3.11,python3.11-dev"
    subprocess.run(["mmdebstrap", "--variant=minbase", include, "bookworm", str(folder / "base.tar")], check=True, capture_output=True)
    # A company's certificates are in its base image, too.
    shutil.copy(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt", folder / "certificates.crt")
    (folder / "base").write_text(BASE)
    (folder / "uv").write_text("FROM scratch\nCOPY uv-binary /uv\n")
    uv = ROOT / ".uv" / "bin" / "uv"
    shutil.copy(uv if uv.exists() else shutil.which("uv"), folder / "uv-binary")
    for name in ("base", "uv"):
        made("bud", "--format", "docker", "--tag", f"localhost/{name}", "--file", str(folder / name), str(folder))
    yield made
    made("rm", "--all", check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(buildah: Buildah) -> Path:
    """The image's root file system."""
    buildah.build("train")
    container = buildah("from", "--pull-never", "localhost/train").stdout.split()[-1]
    return Path(buildah("mount", container).stdout.strip())


class Pod:
    """A node's view of a job: volumes, and the environment that the stack gives it."""

    def __init__(self, image: Path, volumes: Path, buildah: Buildah) -> None:
        self.image, self.volumes = image, volumes
        inspected = json.loads(buildah("inspect", "--type", "image", "localhost/train").stdout)
        self.config = inspected["Docker"]["config"]
        for name in ("runs", "scratch", "tmp", "ncdemo"):
            (volumes / name).mkdir()
            (volumes / name).chmod(0o777)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        job = environment(load_stack(ROOT / "stacks" / "Pulumi.aks-dev.yaml").jobs[0], "tune", "master")
        env = dict(word.partition("=")[::2] for word in self.config["Env"]) | job
        words = [f"{name}={value}" for name, value in env.items()]
        start = ["unshare", "-m", "--propagation", "private", "bash", "-c", POD, "pod", str(self.image), str(self.volumes)]
        return subprocess.run([*start, *words, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400)


@pytest.fixture
def pod(image: Path, tmp_path: Path, buildah: Buildah) -> Pod:
    return Pod(image, tmp_path, buildah)


def test_another_lock_is_refused(buildah: Buildah) -> None:
    done = buildah.build("refused", check=False, LOCK_SHA256="0" * 64)
    assert done.returncode != 0
    assert 'test "$(sha256sum <uv.lock)"' in done.stdout.splitlines()[-1]


def test_the_labels_say_what_is_in_it(pod: Pod, buildah: Buildah) -> None:
    labels, built = pod.config["Labels"], buildah.built
    assert labels["org.opencontainers.image.revision"] == built["COMMIT"]
    assert labels["ncdemo.lock.sha256"] == built["LOCK_SHA256"]
    assert labels["ncdemo.extras"] == "train,demo"
    assert pod.config["User"] == "10001:10001"
    assert (*pod.config["Entrypoint"], *pod.config["Cmd"]) == job_command()


def test_nothing_can_be_written_but_volumes(pod: Pod) -> None:
    script = (
        "id -u; touch /runs/a /scratch/a /tmp/a; for d in / /opt/ncdemo /etc/ncdemo/..; do touch $d/a 2>/dev/null && echo $d; done; true"
    )
    done = pod.run("bash", "-c", script)
    assert (done.returncode, done.stdout) == (0, "10001\n")


def test_the_packages_are_the_locks(pod: Pod) -> None:
    done = pod.run("python", "-m", "ncdemo", "doctor", "env", "--json")
    data = json.loads(done.stdout)
    assert (done.returncode, data["differences"], data["extras"]) == (0, [], ["train", "demo"])


def test_deepspeeds_operators_are_compiled(pod: Pod) -> None:
    code = """
import torch
from deepspeed.git_version_info import installed_ops
from deepspeed.ops.adam import DeepSpeedCPUAdam
assert installed_ops["cpu_adam"], installed_ops
ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 4096)) for _ in range(2))
steps = [(ours, DeepSpeedCPUAdam([ours], lr=0.01)), (theirs, torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.0))]
for weight, optimizer in steps:
    for n in range(3):
        weight.grad = torch.linspace(1, 2 + n, 4096)
        optimizer.step()
torch.testing.assert_close(ours, theirs)
print("equal")
"""
    done = pod.run("python", "-c", code)
    assert "equal" in done.stdout, done.stdout
    assert not list((pod.volumes / "scratch").rglob("*.so")), "compiled at run time"


@pytest.mark.parametrize("strategy", ["accelerate", "deepspeed"])
def test_a_job_trains_to_its_end(strategy: str, pod: Pod) -> None:
    spec = (
        f"kind: train\nname: tune\ntrain: {{strategy: {strategy}, max_steps: 2}}\ndata: {{train_examples: 16, eval_examples: 4}}\n"
        "eval: {before: false}\ntelemetry: {mlflow_uri: null}\n"
    )
    (pod.volumes / "ncdemo" / "run.yaml").write_text(spec)
    done = pod.run(*job_command())
    assert done.returncode == 0, done.stdout[-3000:]
    assert "role train, from the spec" in done.stdout
    folder = pod.volumes / "runs" / "tune"
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    recorded = json.loads((folder / "environment.json").read_text())
    assert recorded["git_commit"] == pod.config["Labels"]["org.opencontainers.image.revision"]
    assert recorded["uv_lock_sha256"] == pod.config["Labels"]["ncdemo.lock.sha256"]
