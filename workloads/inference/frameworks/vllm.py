"""vLLM: in this process (continuous batching, a new request enters as soon as one ends), or as its own server."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ncdemo.spec.server_args import Effect
from workloads.inference.ended import ended
from workloads.inference.frameworks.base import DTYPES, HOST, Answer, Params, Prompt, Serve, Settings, admit

# Without a GPU: one process, no core binding (it fails in containers), 1 GiB of key-value cache.
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
FIGURES = (
    ("running", "vllm:num_requests_running"),
    ("waiting", "vllm:num_requests_waiting"),
    ("kv_cache_used", "vllm:kv_cache_usage_perc"),
    ("prompt_tokens", "vllm:prompt_tokens_total"),
    ("cached_prompt_tokens", "vllm:prompt_tokens_cached_total"),
    ("output_tokens", "vllm:generation_tokens_total"),
    ("preemptions", "vllm:num_preemptions_total"),
)
# Rope and its like are keys of hf-overrides.
CHANGES: dict[Effect, str] = {
    "weights": "quantization q quantization-config load-format=dummy revision code-revision",
    "cache format": "kv-cache-dtype kv-cache-dtype-skip-layers mamba-cache-dtype mamba-ssm-cache-dtype",
    "speculation": "speculative-config spec-method spec-model spec-tokens",
    "context": "hf-overrides hf-config-path disable-sliding-window",
    "sampling": "override-generation-config logits-processors seed",
    "prompt": "tokenizer tokenizer-mode tokenizer-revision chat-template default-chat-template-kwargs",
    "prefix cache": "kv-transfer-config",
    "GPUs": "pipeline-parallel-size data-parallel-size data-parallel-size-local prefill-context-parallel-size nnodes",
    "speed": """
        kv-cache-dtype=auto tokenizer-mode=auto pipeline-parallel-size=1 data-parallel-size=1 load-format enforce-eager
        max-num-batched-tokens max-num-scheduled-tokens enable-chunked-prefill long-prefill-token-threshold scheduling-policy
        async-scheduling stream-interval block-size kv-cache-memory-bytes num-gpu-blocks-override cpu-offload-gb compilation-config
        optimization-level performance-mode cudagraph-capture-sizes max-cudagraph-capture-size attention-backend moe-backend
        linear-backend disable-custom-all-reduce disable-cascade-attn distributed-executor-backend decode-context-parallel-size
        enable-expert-parallel enable-eplb enable-dbo api-server-count renderer-num-workers max-parallel-loading-workers
        safetensors-load-strategy download-dir trust-remote-code model-impl numa-bind disable-log-stats enable-log-requests
        uvicorn-log-level""",
}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


def load(path: str, settings: Settings) -> Any:
    import torch

    on_gpu = torch.cuda.is_available()
    for name, value in {**QUIET, **({} if on_gpu else CPU_ENVIRONMENT)}.items():
        os.environ.setdefault(name, value)
    # The step loop below needs the engine in this process on a GPU too.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    return LLM(
        model=path,
        dtype=DTYPES[settings.precision],
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_concurrency,
        tensor_parallel_size=settings.tensor_parallel_size,
        enable_prefix_caching=settings.prefix_cache,
        enforce_eager=not on_gpu,
        **({"gpu_memory_utilization": settings.memory_fraction} if on_gpu else {}),
    )


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Keep `concurrency` requests in the engine; stamp what each engine step yields."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = model.llm_engine
    answers: dict[str, Answer] = {}
    waiting, refused = admit(prompts, params, engine.model_config.max_model_len)
    # An engine takes a request id once, so the ids differ between calls.
    prefix = str(time.perf_counter_ns())
    in_flight = 0
    while waiting or in_flight:
        while waiting and in_flight < params.concurrency:
            prompt = waiting.pop(0)
            sampling = SamplingParams(
                max_tokens=params.max_new_tokens,
                ignore_eos=params.ignore_eos,
                temperature=params.temperature,
                seed=params.seed + prompt.index if params.temperature > 0 else None,
                output_kind=RequestOutputKind.DELTA,
                detokenize=False,
            )
            name = f"{prefix}-{prompt.index}"
            now = time.perf_counter_ns()
            # Closed loop: a request is due when there is room for it.
            answers[name] = Answer(prompt.index, scheduled_ns=now, sent_ns=now)
            engine.add_request(name, {"prompt_token_ids": list(prompt.token_ids)}, sampling)
            in_flight += 1
        for output in engine.step():
            now = time.perf_counter_ns()
            answer, completion = answers[_own_id(output.request_id, answers)], output.outputs[0]
            tokens = list(completion.token_ids)
            if completion.finish_reason == "stop" and not params.ignore_eos and tokens:
                tokens = tokens[:-1]  # the end token is no output
            if tokens:
                answer.chunk_ns.append(now)
                answer.chunk_tokens.append(len(tokens))
                answer.token_ids += tokens
            if output.finished:
                in_flight -= 1
                ended()
    return [*answers.values(), *refused]


def _own_id(request_id: str, known: dict[str, Answer]) -> str:
    """Some vLLM versions add a random suffix to the id they were given."""
    return request_id if request_id in known else request_id.rsplit("-", 1)[0]


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `vllm serve`. Without a GPU the distribution is vllm-cpu, and the server needs one named vllm beside it."""
    cpu = _cpu_version()
    argv = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", path,
        "--served-model-name", "model", "--host", HOST, "--port", str(port),
        "--dtype", DTYPES[settings.precision],
        "--max-model-len", str(settings.max_model_len),
        "--max-num-seqs", str(settings.max_concurrency),
        "--tensor-parallel-size", str(settings.tensor_parallel_size),
        "--generation-config", "vllm",
        "--enable-prefix-caching" if settings.prefix_cache else "--no-enable-prefix-caching",
        *(("--enforce-eager",) if cpu else ("--gpu-memory-utilization", str(settings.memory_fraction))),
        *settings.server_args,
    ]  # fmt: skip
    env = dict(QUIET)
    files: tuple[tuple[str, str], ...] = ()
    if settings.prefix_cache:
        env["VLLM_SERVER_DEV_MODE"] = "1"  # brings /reset_prefix_cache
    if cpu:
        env |= {**CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "PYTHONPATH": "{folder}/site"}
        # The local part +cpu also chooses the library that runs without AVX-512. To go when vllm-cpu names itself vllm.
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {cpu}+cpu\n"
        files = ((f"site/vllm-{cpu}+cpu.dist-info/METADATA", metadata),)
    return Serve(
        argv=tuple(argv),
        url=f"http://{HOST}:{port}",
        model="model",
        env=tuple(env.items()),
        files=files,
        metrics="/metrics",
        metrics_prefix="vllm:",
        figures=FIGURES,
        prefix_cache="on" if settings.prefix_cache else "off",
        fields=(("return_token_ids", True),),
        reset="/reset_prefix_cache" if settings.prefix_cache else None,
    )


def _cpu_version() -> str | None:
    """Return vllm-cpu's version, or None where vllm itself is installed (or nothing)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vllm-cpu")
    except PackageNotFoundError:
        return None
