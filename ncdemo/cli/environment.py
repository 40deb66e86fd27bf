"""What an environment should hold, from uv.lock's own export, and what it holds.

scripts/setup_env.sh leaves a note of what it made: `# torch=cpu dev=1 extras=train demo`, and the export it installed.
Where uv and the lock are at hand the export is made anew, so that a newer lock shows; in the image the note is the lock.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ncdemo.spec.base import SpecError

NOTE = ".ncdemo-env"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))?(?: \\)?$")
CUDA_ONLY = re.compile(r"(torch|torchvision|torchaudio|torchcodec|triton|xformers|cuda-.*|nvidia-(?!ml-py).*)")
"""What scripts/setup_env.sh leaves out on a CPU; torch itself comes as the CPU build of the same version."""
TOOLS = {"ncdemo", "pip", "setuptools", "uv", "wheel"}
"""What may be there without the lock's word: this project, and what environments are made with."""


@dataclass(frozen=True)
class Made:
    """What an environment was made for."""

    torch: str
    dev: bool
    extras: tuple[str, ...]
    export: str
    """What was installed."""

    @property
    def command(self) -> str:
        """Return what makes it again."""
        words = [f"--extra {extra}" for extra in self.extras] or ["--base"]
        return " ".join(["scripts/setup_env.sh", *words, f"--{self.torch}", *([] if self.dev or not self.extras else ["--no-dev"])])


@dataclass(frozen=True)
class Difference:
    """One package that isn't as the lock says."""

    package: str
    locked: str | None
    installed: str | None
    says: str
    remedy: str


def recorded(prefix: Path) -> Made:
    """Read the note in an environment. Raise SpecError if there is none."""
    path = prefix / NOTE
    remedy = "make the environment with scripts/setup_env.sh, which notes its extras (a second when nothing changed)"
    try:
        head, _, export = path.read_text(encoding="utf-8").partition("\n")
    except OSError:
        raise SpecError(f"{path}: no such file, so which extras belong here isn't known; {remedy}") from None
    found = re.fullmatch(r"# torch=(cpu|cuda) dev=([01]) extras=(.*)", head)
    if not found:
        raise SpecError(f"{path}:1: is {head[:80]!r}, not what scripts/setup_env.sh writes; {remedy}")
    return Made(found[1], found[2] == "1", tuple(found[3].split()), export)


def uv_path(root: Path) -> str | None:
    """Return the uv that scripts/setup_env.sh brought, else the one on PATH, which may be older than the lock's format."""
    own = root / ".uv" / "bin" / "uv"
    return str(own) if own.exists() else shutil.which("uv")


def expected(made: Made, root: Path) -> tuple[dict[str, str], str]:
    """Return name -> version that the lock wants here, and where that is from. Raise SpecError when uv can't read the lock."""
    uv = uv_path(root)
    if uv is None or not (root / "uv.lock").exists():
        return pins(made), "the lock it was installed from"
    extras = [word for extra in made.extras for word in ("--extra", extra)]
    command = [uv, "export", "-q", "--frozen", "--offline", "--no-emit-project", "--no-default-groups", "--no-annotate", "--no-header"]
    command += ["--no-hashes", *extras, *(["--group", "dev"] if made.dev else [])]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "UV_NO_CONFIG": "1"})
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise SpecError(f"uv export can't read {root / 'uv.lock'} ({said}); restore the file, or lock again with: make lock")
    return pins(Made(made.torch, made.dev, made.extras, done.stdout)), "uv.lock"


def pins(made: Made) -> dict[str, str]:
    """Return name -> version of an export, of this platform alone."""
    from packaging.markers import Marker

    found = {}
    for line in made.export.splitlines():
        pin = PIN.match(line)
        if pin and (not pin["marker"] or Marker(pin["marker"]).evaluate()):
            found[plain(pin["name"])] = pin["version"]
    if made.torch == "cpu":
        torch = found.get("torch")
        found = {name: version for name, version in found.items() if not CUDA_ONLY.fullmatch(name)}
        found |= {"torch": f"{torch}+cpu"} if torch else {}
    return found


def plain(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Return name -> version of what is in this environment."""
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return {plain(one.name): one.version for one in importlib.metadata.distributions(path=[str(site)]) if one.name}


def differences(wanted: dict[str, str], made: Made) -> list[Difference]:
    """Return every package that isn't as locked: another version, missing, or not in the lock for these extras."""
    has = installed()
    found = []
    for name in sorted(wanted.keys() | has.keys()):
        locked, there = wanted.get(name), has.get(name)
        if locked == there or (locked is None and name in TOOLS):
            continue
        if locked is None:
            says, remedy = (
                f"{there} is installed, and not in the lock for these extras",
                f"uv pip uninstall --python {sys.executable} {name}",
            )
        elif there is None:
            says, remedy = f"{locked} is locked, and not installed", made.command
        else:
            says, remedy = f"{locked} is locked, {there} is installed", made.command
        found.append(Difference(name, locked, there, says, remedy))
    return found
