"""SGLang, as its own server. Its command is held by tests/golden/engine_args/sglang.json."""

from workloads.inference.frameworks.base import DTYPES, HOST, Serve, Settings, interpreter

RESERVED_TOKENS = 2
"""SGLang keeps this much of its context back and cuts an answer that would need it, without a word."""


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `sglang serve`; the radix cache is SGLang's prefix cache."""
    argv = (
        interpreter("sglang"), "-m", "sglang.launch_server", "--model-path", path,
        "--served-model-name", "model", "--host", HOST, "--port", str(port),
        "--dtype", DTYPES[settings.precision],
        "--context-length", str(settings.max_model_len + RESERVED_TOKENS),
        "--max-running-requests", str(settings.max_concurrency),
        "--tp-size", str(settings.tensor_parallel_size),
        "--mem-fraction-static", str(settings.memory_fraction),
        "--enable-metrics",
        *(() if settings.prefix_cache else ("--disable-radix-cache",)),
        *settings.server_args,
    )  # fmt: skip
    return Serve(
        argv=argv,
        url=f"http://{HOST}:{port}",
        model="model",
        metrics="/metrics",
        metrics_prefix="sglang:",
        prefix_cache="on" if settings.prefix_cache else "off",
        # A chunk may hold several tokens; only their ids say how many. With min_tokens SGLang forbids the end token, so that the
        # answer is another than transformers'; ignore_eos alone gives the exact length.
        fields=(("return_token_ids", True), ("min_tokens", 0)),
        reset="/flush_cache" if settings.prefix_cache else None,
    )
