"""Whether this node's NVIDIA driver can run the installed torch: asked before it is imported, as CUDA's own error names no remedy.

    print(check(torch_build(), driver()))

A driver of one CUDA line runs everything built for that line or an older one (NVIDIA's CUDA compatibility guide, minor versions).
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from ncdemo.spec.base import SpecError

OLDEST = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""CUDA's major version -> the oldest Linux driver for it. NVIDIA's CUDA toolkit release notes, table 2."""


@dataclass(frozen=True)
class Torch:
    """What is installed."""

    version: str
    cuda: str | None
    """Of what it was built with, e.g. 13.0; None: a build for CPUs."""


@dataclass(frozen=True)
class Driver:
    """What the node has."""

    version: str
    cuda: int
    """The newest CUDA that it speaks: 1000 x major + 10 x minor."""


def torch_build() -> Torch | None:
    """Read it from torch's own files, without the seconds that an import takes; None: not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        return None
    text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    version = re.search(r"__version__ = '([^']+)'", text)
    cuda = re.search(r"^cuda(?:: [^=]+)? = '([\d.]+)'", text, re.M)
    return Torch(version[1] if version else "of unknown version", cuda[1] if cuda else None)


def driver() -> Driver | None:
    """Ask NVML; None: there is no driver in this container."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return Driver(pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2())
    except pynvml.NVMLError:
        return None


def check(torch: Torch | None, found: Driver | None) -> str:
    """Say in one line what fits. Raise SpecError when the driver is too old for torch."""
    has = f"driver {found.version} (CUDA {found.cuda // 1000}.{found.cuda % 1000 // 10})" if found else "no NVIDIA driver in reach"
    if torch is None:
        return f"{has}; no torch here"
    if torch.cuda is None:
        return f"{has}; torch {torch.version} is a build for CPUs" + (": the GPUs stay idle" if found else "")
    if found is None:
        return f"{has}: torch {torch.version} runs on the CPU"
    major = int(torch.cuda.partition(".")[0])
    if found.cuda // 1000 >= major:
        return f"{has} runs torch {torch.version} (CUDA {torch.cuda})"
    older = found.cuda // 1000 == 12
    raise SpecError(
        f"{has} is too old for torch {torch.version}, which was built for CUDA {torch.cuda}: it needs driver {OLDEST.get(major, 'a newer one')} "
        f"or newer. Update the node's driver (AKS: a new node image for the pool; VM: the current ubuntu-hpc image)"
        + (", or run an image of the CUDA 12 line: `ncdemo image build train`" if older else "")
    )
