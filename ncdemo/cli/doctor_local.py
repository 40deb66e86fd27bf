"""What `ncdemo doctor` looks at on this machine: Python, uv, the lock, GPU and driver against torch's CUDA, disk, /dev/shm.

torch is never imported: its own version file says which CUDA it was built for. nvidia-smi says the rest, in a process.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ncdemo.cli.environment import differences, expected, recorded, uv_path
from ncdemo.spec.base import SpecError
from ncdemo.spec.finding import Finding, Status
from ncdemo.spec.paths import PACKAGE, cache_dir, runs_dir

PYTHON = (3, 11)
UV = (0, 12)
"""As pyproject.toml has it; older ones can't read the lock."""
DRIVERS = {12: 525, 13: 580}
"""CUDA's major version -> the oldest driver branch that runs every minor version of it (CUDA Compatibility, minor version compatibility)."""
GIB = 1024**3
DISK_FAIL_GIB, DISK_WARN_GIB = 2, 50
"""`make demo` leaves less than the first; a fine-tuned 7B model in bf16 with two checkpoints is near the second."""
SHM_GIB = 1
"""Docker's default is 64 MiB, which data loaders and NCCL outgrow."""
SMI = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
SETUP = "scripts/setup_env.sh"


def local() -> list[Finding]:
    """Return every finding. uv and nvidia-smi are waited for side by side."""
    with ThreadPoolExecutor() as pool:
        lock_asked, gpu_asked, uv_asked = pool.submit(lock), pool.submit(gpu), pool.submit(uv)
        rest = [*disk(), shm()]
    return [python(), uv_asked.result(), lock_asked.result(), *gpu_asked.result(), *rest]


def python() -> Finding:
    have = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        return Finding("python", "ok", f"{have}, {sys.executable}")
    return Finding("python", "fail", f"{have}; the lock is for {PYTHON[0]}.{PYTHON[1]}", SETUP)


def uv() -> Finding:
    path = uv_path(PACKAGE)
    if path is None:
        return Finding("uv", "warn", "not found; it makes and checks environments", f"{SETUP}, which brings it")
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    version = re.search(r"(\d+)\.(\d+)\S*", done.stdout)
    if not version:
        return Finding("uv", "unknown", f"{path} doesn't say its version", f"{path} --version")
    if (int(version[1]), int(version[2])) < UV:
        return Finding(
            "uv", "warn", f"{version[0]} is too old to read uv.lock; {UV[0]}.{UV[1]} or newer does", f"{SETUP}, which brings one"
        )
    return Finding("uv", "ok", f"{version[0]}, {path}")


def lock() -> Finding:
    try:
        made = recorded(Path(sys.prefix))
        wanted, source = expected(made, PACKAGE)
        found = differences(wanted, made)
    except SpecError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding("lock", "unknown", text, remedy or SETUP)
    if found:
        first = ", ".join(one.package for one in found[:3])
        return Finding("lock", "fail", f"{len(found)} packages differ from {source}: {first}{' ...' * (len(found) > 3)}", made.command)
    return Finding("lock", "ok", f"all {len(wanted)} packages are those of {source}")


def torch_build() -> tuple[str, str | None] | None:
    """Return torch's version and the CUDA it was built for (None: a CPU build); None if torch isn't installed."""
    try:
        installed = importlib.metadata.distribution("torch")
        text = Path(str(installed.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    cuda = re.search(r"^cuda\b.*?=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return installed.version, cuda[1] if cuda else None


def gpu() -> list[Finding]:
    """Return what nvidia-smi says, and whether torch's build can use it."""
    smi = shutil.which(SMI[0])
    torch = torch_build()
    if smi is None:
        return [Finding("gpu", "ok", "no NVIDIA driver here: runs use the CPU"), torch_without_gpu(torch)]
    try:
        done = subprocess.run([smi, *SMI[1:]], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return [Finding("gpu", "unknown", "nvidia-smi didn't answer in 10 s", "sudo dmesg | grep -i xid, then restart the machine")]
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    if done.returncode or not rows:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        return [Finding("gpu", "fail", f"nvidia-smi fails: {said[0]}", "nvidia-smi; reinstall the driver, or restart after its upgrade")]
    names = ", ".join(f"{name} {int(mib) / 1024:.0f} GiB" if mib.isdigit() else name for name, _, mib in rows)
    return [Finding("gpu", "ok", f"{len(rows)}: {names}"), driver(rows[0][1], torch)]


def torch_without_gpu(torch: tuple[str, str | None] | None) -> Finding:
    if torch is None:
        return Finding("torch", "warn", "not installed; training needs it", f"{SETUP} --extra train")
    if torch[1]:
        return Finding(
            "torch", "warn", f"{torch[0]} is built for CUDA {torch[1]}, and there is no driver", f"{SETUP} --cpu, or install the driver"
        )
    return Finding("torch", "ok", f"{torch[0]}, a CPU build")


def driver(version: str, torch: tuple[str, str | None] | None) -> Finding:
    """Return whether a driver runs torch's CUDA."""
    if torch is None:
        return Finding("driver", "warn", f"{version}; torch isn't installed", f"{SETUP} --extra train --cuda")
    if torch[1] is None:
        return Finding("driver", "warn", f"{version}, but torch {torch[0]} is a CPU build: the GPU stays idle", f"{SETUP} --cuda")
    needs = DRIVERS.get(int(torch[1].partition(".")[0]))
    branch = version.partition(".")[0]
    if needs is None or not branch.isdigit():
        return Finding("driver", "unknown", f"{version}; whether it runs CUDA {torch[1]} isn't known here", "ncdemo demo")
    if int(branch) < needs:
        remedy = f"install driver {needs} or newer" + (f", or {SETUP} --extra train-cu12 --cuda" if int(branch) >= DRIVERS[12] else "")
        return Finding(
            "driver", "fail", f"{version} is too old for torch {torch[0]}, built for CUDA {torch[1]} (driver {needs} or newer)", remedy
        )
    return Finding("driver", "ok", f"{version} runs torch {torch[0]}, built for CUDA {torch[1]}")


def disk() -> list[Finding]:
    """Return the free space of where runs and models go, each file system once."""
    found, seen = [], set()
    for name, folder in (("runs", runs_dir()), ("cache", cache_dir())):
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        if there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        free_gib = shutil.disk_usage(there).free / GIB
        status: Status = "fail" if free_gib < DISK_FAIL_GIB else "warn" if free_gib < DISK_WARN_GIB else "ok"
        remedy = None if status == "ok" else f"free some of it, or set NCDEMO_{name.upper()} to a folder on a larger disk"
        found.append(Finding(f"disk ({name})", status, f"{free_gib:.1f} GiB free for {folder.absolute()}", remedy))
    return found


def shm() -> Finding:
    if not os.path.isdir("/dev/shm"):
        return Finding("/dev/shm", "ok", "not used on this system")
    free_gib = shutil.disk_usage("/dev/shm").free / GIB
    if free_gib < SHM_GIB:
        remedy = "docker run --shm-size=8g, or: sudo mount -o remount,size=8g /dev/shm"
        return Finding("/dev/shm", "warn", f"{free_gib:.2f} GiB free; data loaders and NCCL need more", remedy)
    return Finding("/dev/shm", "ok", f"{free_gib:.1f} GiB free")
