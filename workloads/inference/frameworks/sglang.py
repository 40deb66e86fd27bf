"""SGLang: its engine started from this process (its scheduler is one of its own), or as its own server.

Both are given the same options, which are held by tests/golden/engine_args/sglang.json.
"""

from collections.abc import Sequence
from typing import Any

from ncdemo.spec.server_args import Effect
from workloads.inference.frameworks.base import (
    DTYPES,
    HOST,
    Answer,
    Params,
    Prompt,
    Serve,
    Settings,
    admit,
    check_own,
    closed_loop,
    interpreter,
    take,
)

FIGURES = (
    ("running", "sglang:num_running_reqs"),
    ("waiting", "sglang:num_queue_reqs"),
    ("kv_cache_used", "sglang:token_usage"),
    ("prompt_tokens", "sglang:prompt_tokens_total"),
    ("cached_prompt_tokens", "sglang:cached_tokens_total"),
    ("output_tokens", "sglang:generation_tokens_total"),
    ("preemptions", "sglang:num_retracted_requests_total"),
)
CHANGES: dict[Effect, str] = {
    "weights": "quantization modelopt-quant quantize-and-serve load-format=dummy revision enable-w4a4-mxfp4-megamoe rl-quant-profile",
    "cache format": "kv-cache-dtype quantization-param-path prefill-kv-cache-dequant-dtype mamba-ssm-dtype",
    "arithmetic": """
        enable-fp32-lm-head enable-tf32-matmul triton-attention-reduce-in-fp32 enable-deterministic-inference rl-on-policy-target
        enable-quant-communications flashinfer-mxfp4-moe-precision""",
    "speculation": "speculative-",
    "context": "json-model-override-args",
    "sampling": "preferred-sampling-params random-seed",
    "prompt": """
        tokenizer-path tokenizer-mode chat-template hf-chat-template-name completion-template default-chat-template-kwargs
        allow-auto-truncate""",
    "prefix cache": "enable-hierarchical-cache enable-lmcache",
    "GPUs": "pp-size pipeline-parallel-size dp-size data-parallel-size nnodes",
    "speed": """
        kv-cache-dtype=auto tokenizer-mode=auto pp-size=1 dp-size=1 load-format chunked-prefill-size max-prefill-tokens
        max-total-tokens page-size schedule-policy schedule-conservativeness prefill-max-requests enable-mixed-chunk cuda-graph-
        disable-cuda-graph disable-cuda-graph-padding disable-decode-cuda-graph disable-prefill-cuda-graph disable-overlap-schedule
        enable-torch-compile torch-compile-max-bs attention-backend prefill-attention-backend decode-attention-backend
        sampling-backend moe-runner-backend moe-a2a-backend fp8-gemm-backend bf16-gemm-backend triton-attention-num-kv-splits
        ep ep-size expert-parallel-size enable-dp-attention enable-two-batch-overlap enable-single-batch-overlap
        num-continuous-decode-steps stream-interval disable-custom-all-reduce enable-mscclpp tokenizer-worker-num
        detokenizer-worker-num cpu-offload-gb skip-server-warmup numa-node download-dir trust-remote-code log-level
        watchdog-timeout""",
}
RESERVED_TOKENS = 2
"""SGLang keeps this much of its context back and cuts an answer that would need it, without a word."""


def load(path: str, settings: Settings) -> Any:
    from sglang import Engine
    from sglang.srt.server_args import prepare_server_args

    # No detokenizer, as no engine of this process has one; each output is what is new.
    own = ("--skip-tokenizer-init", "--incremental-streaming-output", "--log-level", "error")
    check_own("sglang", settings.server_args, _options(path, settings))
    engine = Engine(server_args=prepare_server_args([*_options(path, settings), *own, *settings.server_args]))
    engine.ncdemo_max_model_len = settings.max_model_len
    return engine


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Keep `concurrency` requests in the engine; stamp each output as it comes from the scheduler's process."""
    fits, refused = admit(prompts, params, model.ncdemo_max_model_len)
    sampling = {"max_new_tokens": params.max_new_tokens, "ignore_eos": params.ignore_eos, "temperature": params.temperature}

    async def ask(prompt: Prompt, answer: Answer) -> None:
        # SGLang heeds the seed under --enable-deterministic-inference alone.
        own = sampling | ({"sampling_seed": params.seed + prompt.index} if params.temperature > 0 else {})
        try:
            async for output in await model.async_generate(input_ids=list(prompt.token_ids), sampling_params=own, stream=True):
                ended = (output["meta_info"]["finish_reason"] or {}).get("type") == "stop"
                # The end token is no output.
                take(answer, output["output_ids"][:-1] if ended and not params.ignore_eos else output["output_ids"])
        except ValueError as error:  # what SGLang refuses is that request's own failure
            answer.error = f"SGLang: {error}"

    return [*model.loop.run_until_complete(closed_loop(fits, params.concurrency, ask)), *refused]


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `sglang serve`; the radix cache is SGLang's prefix cache."""
    argv = (
        interpreter("sglang"), "-m", "sglang.launch_server", *_options(path, settings),
        "--served-model-name", "model", "--host", HOST, "--port", str(port), "--enable-metrics",
        *settings.server_args,
    )  # fmt: skip
    return Serve(
        argv=argv,
        url=f"http://{HOST}:{port}",
        model="model",
        metrics="/metrics",
        metrics_prefix="sglang:",
        figures=FIGURES,
        prefix_cache="on" if settings.prefix_cache else "off",
        # A chunk may hold several tokens; only their ids say how many.
        fields=(("return_token_ids", True),),
        reset="/flush_cache" if settings.prefix_cache else None,
    )


def _options(path: str, settings: Settings) -> tuple[str, ...]:
    """Return what both forms are started with; openai: no sampling defaults of the model's own, as in every engine."""
    return (
        "--model-path", path,
        "--dtype", DTYPES[settings.precision],
        "--context-length", str(settings.max_model_len + RESERVED_TOKENS),
        "--max-running-requests", str(settings.max_concurrency),
        "--tp-size", str(settings.tensor_parallel_size),
        "--mem-fraction-static", str(settings.memory_fraction),
        "--sampling-defaults", "openai",
        *(() if settings.prefix_cache else ("--disable-radix-cache",)),
    )  # fmt: skip
