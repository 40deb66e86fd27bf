"""The images that jobs and services run: one per environment, as the engines' own pins of torch conflict.

IMAGES["train"].extras      # of pyproject.toml, installed from uv.lock

Dockerfile.uv takes each of these as a build argument; its defaults are the image `train`.
"""

from dataclasses import dataclass

from ncdemo.spec.services import ImageName

CUDA_12 = "nvidia/cuda:12.2.2-devel-ubuntu22.04"
CUDA_12_LAST = "nvidia/cuda:12.2.2-base-ubuntu22.04"
CUDA_13 = "nvidia/cuda:13.0.2-devel-ubuntu22.04"
UBUNTU = "ubuntu:22.04"


@dataclass(frozen=True)
class Image:
    """How one image is built."""

    extras: tuple[str, ...]
    base: str
    """Where it is built; its nvcc has the CUDA major version of the torch that the extras bring."""
    last: str
    """What it runs on: without a compiler for GPUs where nothing is compiled for them at run time."""
    torch: str = "cuda"


# `demo` is the embedded model, which the example stacks' jobs use; `azure-monitor` is 2 MB.
IMAGES: dict[ImageName, Image] = {
    "train": Image(("train-cu12", "demo", "azure-monitor"), CUDA_12, CUDA_12_LAST),
    "unsloth": Image(("train-cu12", "unsloth", "demo", "azure-monitor"), CUDA_12, CUDA_12_LAST),
    # FlashInfer and SGLang compile kernels for the model at hand, and their torch is of the CUDA 13 line: driver 580 or newer.
    "vllm": Image(("vllm", "demo", "azure-monitor"), CUDA_13, CUDA_13),
    "sglang": Image(("sglang", "demo", "azure-monitor"), CUDA_13, CUDA_13),
    "lmdeploy": Image(("lmdeploy", "demo", "azure-monitor"), CUDA_12, CUDA_12_LAST),
    "mlflow": Image(("mlflow",), UBUNTU, UBUNTU, torch="cpu"),
}


def on_cpu(image: Image) -> Image:
    """Return the image's twin for a cluster without GPUs: no CUDA base, and of torch's two lines the laptop's."""
    return Image(tuple("train" if extra == "train-cu12" else extra for extra in image.extras), UBUNTU, UBUNTU, torch="cpu")
