"""LMDeploy, as its own server. Its command is held by tests/golden/engine_args/lmdeploy.json."""

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import DTYPES, HOST, Serve, Settings, interpreter


def serve(path: str, settings: Settings, port: int) -> Serve:
    """Return `lmdeploy serve api_server`. It can't empty its prefix cache, so cells that turn it on need distinct prompts."""
    if settings.precision == "fp32":
        raise SpecError("precision = fp32: lmdeploy has no fp32; set precision: bf16, or leave lmdeploy out of engines")
    argv = (
        interpreter("lmdeploy"), "-m", "lmdeploy", "serve", "api_server", path,
        "--model-name", "model", "--server-name", HOST, "--server-port", str(port),
        "--dtype", DTYPES[settings.precision],
        "--session-len", str(settings.max_model_len),
        "--max-batch-size", str(settings.max_concurrency),
        "--tp", str(settings.tensor_parallel_size),
        "--cache-max-entry-count", str(settings.memory_fraction),
        *(("--enable-prefix-caching",) if settings.prefix_cache else ()),
        *settings.server_args,
    )  # fmt: skip
    return Serve(
        argv=argv,
        url=f"http://{HOST}:{port}",
        model="model",
        metrics="/metrics",
        metrics_prefix="lmdeploy:",
        prefix_cache="on" if settings.prefix_cache else "off",
    )
