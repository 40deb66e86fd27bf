"""LMDeploy: its pipeline in this process, or its own server. What both are given is held by tests/golden/engine_args/lmdeploy.json."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ncdemo.spec.base import SpecError
from ncdemo.spec.server_args import Effect
from workloads.inference.frameworks.base import DTYPES, HOST, Answer, Params, Prompt, Serve, Settings, admit, closed_loop, interpreter, take

FIGURES = (
    ("running", "lmdeploy:num_requests_running"),
    ("waiting", "lmdeploy:num_requests_waiting"),
    ("kv_cache_used", "lmdeploy:gpu_cache_usage_perc"),
    ("prompt_tokens", "lmdeploy:prompt_tokens_total"),
    ("cached_prompt_tokens", "lmdeploy:cached_tokens_total"),
    ("output_tokens", "lmdeploy:generation_tokens_total"),
)
# Its PyTorch engine forbids stop tokens where TurboMind ignores them: docs/engines.md.
CHANGES: dict[Effect, str] = {
    "weights": "model-format revision empty-init",
    "cache format": "quant-policy",
    "speculation": "speculative-",
    "context": "rope-scaling-factor use-logn-attn hf-overrides",
    "sampling": "backend",
    "prompt": "chat-template",
    "prefix cache": "enable-prefix-caching",
    "GPUs": "dp cp nnodes",
    "speed": """
        quant-policy=0 dp=1 cp=1 max-prefill-token-num max-prefill-iters num-tokens-per-iter cache-block-seq-len num-gpu-blocks
        eager-mode cudagraph-capture-batch-sizes communicator distributed-executor-backend enable-microbatch enable-eplb ep
        max-concurrent-requests async download-dir trust-remote-code log-level disable-metrics""",
}


def load(path: str, settings: Settings) -> Any:
    from lmdeploy import TurbomindEngineConfig, pipeline

    _check(settings)
    # A model that TurboMind doesn't know is run by LMDeploy's PyTorch engine, with the same values.
    engine = pipeline(path, backend_config=TurbomindEngineConfig(
        dtype=DTYPES[settings.precision],
        session_len=settings.max_model_len,
        max_batch_size=settings.max_concurrency,
        tp=settings.tensor_parallel_size,
        cache_max_entry_count=settings.memory_fraction,
        enable_prefix_caching=settings.prefix_cache,
    ))  # fmt: skip
    engine.ncdemo_max_model_len = settings.max_model_len
    return engine


def run(prompts: Sequence[Prompt], model: Any, params: Params) -> list[Answer]:
    """Keep `concurrency` requests in the engine; stamp each output as it comes."""
    from lmdeploy import GenerationConfig
    from lmdeploy.serve.core.exceptions import RequestError

    fits, refused = admit(prompts, params, model.ncdemo_max_model_len)
    engine = model.async_engine  # below pipeline.stream_infer, which takes texts alone

    async def ask(prompt: Prompt, answer: Answer) -> None:
        config = GenerationConfig(max_new_tokens=params.max_new_tokens, ignore_eos=params.ignore_eos)
        if params.temperature > 0:
            config.do_sample, config.temperature, config.top_k = True, params.temperature, 0
            config.random_seed = params.seed + prompt.index
        try:
            ready = await engine.preprocess(None, model.session(), gen_config=config, do_preprocess=False, input_ids=list(prompt.token_ids))
            async for output in engine.generate(ready, stream_response=True):
                take(answer, output.token_ids)  # without the end token, which LMDeploy leaves out
        except RequestError as error:  # that request's own failure
            answer.error = f"LMDeploy: {error.message}"

    # The engine lives on the event loop of the pipeline's own thread.
    loop = closed_loop(fits, params.concurrency, ask)
    return [*asyncio.run_coroutine_threadsafe(loop, model.internal_thread.loop).result(), *refused]


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `lmdeploy serve api_server`. It can't empty its prefix cache, so cells that turn it on need distinct prompts."""
    _check(settings)
    argv = (
        interpreter("lmdeploy"), "-m", "lmdeploy", "serve", "api_server", path,
        "--model-name", "model", "--server-name", HOST, "--server-port", str(port),
        "--dtype", DTYPES[settings.precision],
        "--session-len", str(settings.max_model_len),
        "--max-batch-size", str(settings.max_concurrency),
        "--tp", str(settings.tensor_parallel_size),
        "--cache-max-entry-count", str(settings.memory_fraction),
        "--generation-config", "lmdeploy",
        *(("--enable-prefix-caching",) if settings.prefix_cache else ()),
        *settings.server_args,
    )  # fmt: skip
    return Serve(
        argv=argv,
        url=f"http://{HOST}:{port}",
        model="model",
        metrics="/metrics",
        metrics_prefix="lmdeploy:",
        figures=FIGURES,
        prefix_cache="on" if settings.prefix_cache else "off",
        # Its /v1/completions takes a list of numbers for a list of prompts.
        endpoint="generate",
    )


def _check(settings: Settings) -> None:
    if settings.precision == "fp32":
        raise SpecError("precision = fp32: lmdeploy has no fp32; set precision: bf16, or leave lmdeploy out of engines")
