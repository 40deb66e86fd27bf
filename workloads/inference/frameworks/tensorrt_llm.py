"""TensorRT-LLM, as a server in its own container: it has no wheel for this Python.

In the container `trtllm-serve` is on PATH and the command below is run as it stands; elsewhere starting it is refused.
The options are held by tests/golden/engine_args/tensorrt_llm.json.
"""

import shutil

from ncdemo.spec.server_args import Effect
from workloads.inference.frameworks.base import DTYPES, HOST, Serve, Settings

REMEDY = "run the benchmark inside NVIDIA's TensorRT-LLM release container, or start trtllm-serve there and measure it as openai"
FIGURES = (
    ("running", "trtllm_num_requests_running"),
    ("waiting", "trtllm_num_requests_waiting"),
    ("kv_cache_used", "trtllm_kv_cache_utilization"),
    ("prompt_tokens", "trtllm_prompt_tokens_total"),
    ("cached_prompt_tokens", "trtllm_prompt_cached_tokens_total"),
    ("output_tokens", "trtllm_generation_tokens_total"),
)
# What its files of options may say (extra_llm_api_options) is not looked into.
CHANGES: dict[Effect, str] = {
    "weights": "revision",
    "sampling": "max-beam-width",
    "prompt": "tokenizer custom-tokenizer",
    "GPUs": "pp-size pipeline-parallel-size cp-size context-parallel-size",
    "speed": """
        pp-size=1 pipeline-parallel-size=1 cp-size=1 max-beam-width=1 backend enable-chunked-prefill max-num-tokens ep-size
        moe-expert-parallel-size moe-cluster-parallel-size free-gpu-memory-fraction kv-cache-free-gpu-memory-fraction
        num-postprocess-workers trust-remote-code log-level""",
}
# Options that the command line lacks. Per-request metrics make /prometheus/metrics appear, those of iterations its queue's.
CONFIG = """\
dtype: {dtype}
return_perf_metrics: true
enable_iter_perf_stats: true
kv_cache_config:
  enable_block_reuse: {reuse}
  free_gpu_memory_fraction: {fraction}
"""


def version() -> str | None:
    """Return that the command is here, or None: the container's own label says which version it is."""
    return "trtllm-serve" if shutil.which("trtllm-serve") else None


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `trtllm-serve`. Block reuse is its prefix cache and can't be emptied: with it on, prompts must be distinct."""
    argv = (
        "trtllm-serve", path, "--host", HOST, "--port", str(port),
        "--max_seq_len", str(settings.max_model_len),
        "--max_batch_size", str(settings.max_concurrency),
        "--tp_size", str(settings.tensor_parallel_size),
        "--config", "{folder}/config.yaml",
        *settings.server_args,
    )  # fmt: skip
    reuse = str(settings.prefix_cache).lower()
    config = CONFIG.format(dtype=DTYPES[settings.precision], reuse=reuse, fraction=settings.memory_fraction)
    return Serve(
        argv=argv,
        url=f"http://{HOST}:{port}",
        model=path.rstrip("/").rsplit("/", 1)[-1],
        files=(("config.yaml", config),),
        metrics="/prometheus/metrics",
        metrics_prefix="trtllm_",
        figures=FIGURES,
        prefix_cache="on" if settings.prefix_cache else "off",
        # A chunk may hold several tokens; a running count says how many. The rest is its own defaults, said so that no
        # generation_config.json of the model is asked for them. It forbids fields that it doesn't know.
        fields=(
            ("stream_options", {"include_usage": True, "continuous_usage_stats": True}),
            ("repetition_penalty", 1.0),
            ("top_p", 1.0),
            ("top_k", 0),
        ),
    )
