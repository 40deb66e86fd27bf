"""Every option that our commands use is one the engine defines: read from its source by scripts/engine_args.py."""

import importlib.util
import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from ncdemo.spec.result_engine import EngineSample
from workloads.inference import frameworks
from workloads.inference.frameworks.base import Params, Prompt, Settings
from workloads.inference.load.plan import Target, body
from workloads.inference.servers.watch import COUNTERS

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "engine_args"
SETTINGS = Settings("bf16", 2048, 0.5, 8, tensor_parallel_size=2)
COMMANDS = {
    "vllm": "-m vllm.entrypoints.cli.main serve M",
    "sglang": "-m sglang.launch_server --model-path M",
    "lmdeploy": "-m lmdeploy serve api_server M",
    "tensorrt_llm": "trtllm-serve M",
}
# Flag of each engine for: port, dtype, longest request, requests at once, tensor parallel size.
VALUES = {
    "vllm": {"--port": "8123", "--dtype": "bfloat16", "--max-model-len": "2048", "--max-num-seqs": "8", "--tensor-parallel-size": "2"},
    "sglang": {"--port": "8123", "--dtype": "bfloat16", "--context-length": "2050", "--max-running-requests": "8", "--tp-size": "2"},
    "lmdeploy": {"--server-port": "8123", "--dtype": "bfloat16", "--session-len": "2048", "--max-batch-size": "8", "--tp": "2"},
    "tensorrt_llm": {"--port": "8123", "--max_seq_len": "2048", "--max_batch_size": "8", "--tp_size": "2"},
}


def command(engine: str, settings: Settings) -> list[str]:
    # Not frameworks.serve: what a command says doesn't depend on the engine being here.
    return list(importlib.import_module(frameworks.ENGINES[engine][0]).serve("M", settings, 8123).argv)


@pytest.mark.parametrize("engine", COMMANDS)
def test_every_option_of_a_command_is_the_engines(engine: str) -> None:
    golden = json.loads((GOLDEN / f"{engine}.json").read_text())
    assert golden["version"]
    for prefix_cache in (False, True):
        argv = command(engine, replace(SETTINGS, prefix_cache=prefix_cache, server_args=("--own", "1")))
        assert COMMANDS[engine] in " ".join(argv)
        assert argv[-2:] == ["--own", "1"]
        # vLLM's switches take --no- too.
        used = {word.replace("--no-", "--") for word in argv if word.startswith("--")} - {"--own"}
        assert used <= set(golden["options"])
        assert {name: argv[argv.index(name) + 1] for name in VALUES[engine]} == VALUES[engine]


def test_every_engine_with_a_server_is_held() -> None:
    ours = {"openai", "echo"}  # an endpoint has no command, and echo's is the canned server of this package
    assert {n for n in frameworks.ENGINES if "server" in frameworks.forms(n)} - ours == set(COMMANDS)
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(COMMANDS)


def test_the_golden_of_the_installed_vllm_is_true() -> None:
    if frameworks.engine_version("vllm") is None:
        pytest.skip("vllm is not installed")
    golden = json.loads((GOLDEN / "vllm.json").read_text())
    assert frameworks.engine_version("vllm").split()[1] == golden["version"]
    script = runpy.run_path(str(ROOT / "scripts" / "engine_args.py"))
    options = script["options"]
    package = Path(importlib.util.find_spec("vllm").submodule_search_locations[0])
    files = ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py", "utils/argparse_utils.py")
    assert sorted({name for f in files for name in options((package / f).read_text())}) == golden["options"]
    assert script["signatures"]("vllm", package) == golden["signatures"]
    assert script["package_metrics"]("vllm", package) == golden["metrics"]


@pytest.mark.parametrize("engine", COMMANDS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_every_field_of_a_request_is_the_engines(engine: str, temperature: float) -> None:
    how = importlib.import_module(frameworks.ENGINES[engine][0]).serve("M", SETTINGS, 8123)
    target = Target(how.url, how.model, how.endpoint, fields=dict(how.fields))
    sent = json.loads(body(target, Params(8, 64, True, temperature, 0), prompt=Prompt(0, (5, 6))))
    signatures = json.loads((GOLDEN / f"{engine}.json").read_text())["signatures"]
    fields = signatures[next(key for key in signatures if key.endswith((":CompletionRequest", ":GenerateReqInput")))]
    assert set(sent) <= set(fields)
    # Equal lengths by ignore_eos alone: beside min_tokens vLLM, SGLang and TensorRT-LLM forbid a token.
    assert (sent["ignore_eos"], sent.get("min_tokens", 0), sent["max_tokens"]) == (True, 0, 64)
    assert sent.get("input_ids", sent.get("prompt")) == [5, 6]
    if engine == "tensorrt_llm":
        assert (sent["repetition_penalty"], sent["top_p"], sent["top_k"]) == (1.0, 1.0, 0), "no defaults of the model's own"
    if engine == "lmdeploy":
        assert target.path == "/generate"
        assert (sent["temperature"], sent["top_k"]) == ((1.0, 1) if temperature == 0 else (0.7, 0))


@pytest.mark.parametrize("engine", COMMANDS)
def test_every_figure_that_is_read_is_the_engines(engine: str) -> None:
    how = importlib.import_module(frameworks.ENGINES[engine][0]).serve("M", SETTINGS, 8123)
    golden = json.loads((GOLDEN / f"{engine}.json").read_text())
    read = dict(how.figures)
    assert {name.removesuffix("_total") for name in read.values()} <= set(golden["metrics"])
    assert {"running", "waiting", "kv_cache_used", "prompt_tokens", "output_tokens", "cached_prompt_tokens"} <= set(read)
    assert set(read) <= set(EngineSample.model_fields)
    assert all(name.startswith(how.metrics_prefix) for name in read.values())
    assert {ours for ours, theirs in read.items() if theirs.endswith("_total")} <= set(COUNTERS)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "lmdeploy"])
def test_no_server_takes_sampling_defaults_from_the_model(engine: str) -> None:
    argv = command(engine, SETTINGS)
    flag, value = {"sglang": ("--sampling-defaults", "openai")}.get(engine, ("--generation-config", engine))
    assert argv[argv.index(flag) + 1] == value
