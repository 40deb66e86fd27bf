"""What builds and pushes an image, as the exact commands: rendered first, so that --dry-run prints what would run.

build("train", Target("crdev1a2b.azurecr.io/ncdemo", "0.1.0"), azure=True)
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ncdemo.spec.base import SpecError
from ncdemo.spec.images import IMAGES, on_cpu
from ncdemo.spec.paths import PACKAGE

FILE = "Dockerfile.uv"
AZURE_REGISTRY = ".azurecr.io"
AZURE_BUILD_S = 4 * 3600
"""Azure ends a build after an hour unless told otherwise; its machines have two cores, and DeepSpeed is compiled."""
Command = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """Where an image goes."""

    repository: str
    version: str

    def tag(self, name: str) -> str:
        return f"{self.version}-{name}"

    def ref(self, name: str) -> str:
        return f"{self.repository}:{self.tag(name)}"

    @property
    def azure(self) -> str | None:
        """Name of the Azure registry; None: it is another one."""
        server = self.repository.partition("/")[0]
        return server.removesuffix(AZURE_REGISTRY) if server.endswith(AZURE_REGISTRY) else None


@dataclass(frozen=True)
class Plan:
    """What is done, in order, and the command that then prints the digest (None: nothing was pushed)."""

    commands: tuple[Command, ...]
    digest: Command | None = None


def build(name: str, target: Target, *, azure: bool, cpu: bool = False, index: str | None = None) -> Plan:
    """Return what builds an image: Docker here, or Azure's registry, which pushes too. Raise SpecError if there is nothing to build."""
    words = [word for pair in arguments(name, target, cpu, index).items() for word in ("--build-arg", "=".join(pair))]
    if not azure:
        return Plan((("docker", "build", "--file", FILE, "--tag", target.ref(name), *words, "."),))
    registry = azure_registry(target)
    image = target.ref(name).partition("/")[2]
    ask = ("az", "acr", "repository", "show", "--name", registry, "--image", image, "--query", "digest", "--output", "tsv")
    command = ("az", "acr", "build", "--registry", registry, "--image", image, "--file", FILE, "--timeout", str(AZURE_BUILD_S))
    return Plan(((*command, *words, "."),), ask)


def push(name: str, target: Target) -> Plan:
    """Return what pushes an image that Docker has built."""
    login: tuple[Command, ...] = (("az", "acr", "login", "--name", target.azure),) if target.azure else ()
    ref = target.ref(name)
    inspect = ("docker", "image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", ref)
    return Plan((*login, ("docker", "push", ref)), inspect)


def azure_registry(target: Target) -> str:
    """Return the registry's name. Raise SpecError for a repository elsewhere."""
    if target.azure is None:
        raise SpecError(
            f"{target.repository} is not in an Azure registry (NAME{AZURE_REGISTRY}/...); leave --azure out and push with Docker"
        )
    return target.azure


def arguments(name: str, target: Target, cpu: bool = False, index: str | None = None) -> dict[str, str]:
    """Return the Dockerfile's build arguments for one image."""
    if not (PACKAGE / FILE).exists():
        raise SpecError(f"{PACKAGE / FILE}: no such file; run this in a checkout of ncdemo, of which an image is built")
    image = IMAGES[name]  # type: ignore[index]
    if cpu:
        image = on_cpu(image)
    found = {
        "BASE": image.base,
        "LAST": image.last,
        "EXTRAS": ",".join(image.extras),
        "TORCH": image.torch,
        "VERSION": target.version,
        "COMMIT": commit(PACKAGE),
        "LOCK_SHA256": hashlib.sha256((PACKAGE / "uv.lock").read_bytes()).hexdigest(),
    }
    return found | ({"UV_DEFAULT_INDEX": index} if index else {})


def commit(root: Path) -> str:
    """Return the checkout's commit, -dirty behind it when what is built isn't all committed; empty: not a checkout of git."""
    try:
        head, status = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except OSError:
        return ""
    if head.returncode or status.returncode:
        return ""
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")
