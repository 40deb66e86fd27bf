"""What a user's own arguments change: every name in an engine's table is the engine's, and words of a command are found in it."""

import importlib
import json
import typing

import pytest

from ncdemo.spec.server_args import Effect, ServerArg, split
from tests.inference.test_engine_args import COMMANDS, GOLDEN, SETTINGS, command
from workloads.inference import frameworks
from workloads.inference.changes import names, server_args

# Short names, which the goldens lack.
SHORT = {"vllm": {"q"}}


def changes(engine: str) -> dict:
    return importlib.import_module(frameworks.ENGINES[engine][0]).CHANGES


@pytest.mark.parametrize("engine", COMMANDS)
def test_every_name_is_the_engines_and_stands_once(engine: str) -> None:
    options = {option.lstrip("-").replace("_", "-") for option in json.loads((GOLDEN / f"{engine}.json").read_text())["options"]}
    words = [name for group in changes(engine).values() for name in group.split()]
    assert len(words) == len(set(words))
    assert set(changes(engine)) <= set(typing.get_args(Effect))
    for name in {word.partition("=")[0] for word in words} - SHORT.get(engine, set()):
        assert any(option.startswith(name) for option in options) if name.endswith("-") else name in options, name


@pytest.mark.parametrize("engine", COMMANDS)
def test_what_ncdemo_sets_itself_is_in_no_table(engine: str) -> None:
    argv = command(engine, SETTINGS)
    ours = {word.lstrip("-").replace("_", "-").removeprefix("no-") for word in argv if word.startswith("--")} - {"enforce-eager"}
    assert not ours & {name.partition("=")[0] for name in names(changes(engine))}


def test_every_engine_with_arguments_has_a_table() -> None:
    assert {name for name in frameworks.ENGINES if hasattr(importlib.import_module(frameworks.ENGINES[name][0]), "CHANGES")} == {
        *COMMANDS,
        "echo",
    }


@pytest.mark.parametrize(
    ("engine", "words", "effects"),
    [
        ("vllm", ["--quantization", "fp8", "--max-num-batched-tokens=8192"], ["weights", "speed"]),
        ("vllm", ["-q", "fp8", "--kv_cache_dtype", "fp8"], ["weights", "cache format"]),
        ("vllm", ["--kv-cache-dtype", "auto", "--no-enable-chunked-prefill"], ["speed", "speed"]),
        ("vllm", ["--speculative-config.method", "ngram", "--load-format=dummy", "--new-in-1.0"], ["speculation", "weights", "unknown"]),
        ("vllm", ["--load-format", "safetensors", "--hf-overrides", '{"rope_theta": 1}'], ["speed", "context"]),
        (
            "sglang",
            ["--speculative-num-steps", "3", "--cuda-graph-config", "x", "--random-seed", "-1"],
            ["speculation", "speed", "sampling"],
        ),
        ("lmdeploy", ["--quant-policy", "8", "--dp=2"], ["cache format", "GPUs"]),
        ("lmdeploy", ["--quant-policy", "0", "--enable-prefix-caching"], ["speed", "prefix cache"]),
        ("tensorrt_llm", ["--pp_size", "2", "--extra_llm_api_options", "o.yaml"], ["GPUs", "unknown"]),
        ("transformers", [], []),
    ],
)
def test_words_of_a_command_are_found(engine: str, words: list[str], effects: list[str]) -> None:
    assert [arg.changes for arg in server_args(engine, words)] == effects


def test_an_endpoint_of_others_tells_none_and_no_secret_is_kept() -> None:
    assert server_args("openai", []) is None
    assert server_args("vllm", ["--api-key", "abc"]) == [ServerArg(name="--api-key", value="***")]


def test_words_are_split_into_options() -> None:
    words = ["--a", "1", "2", "--b=x=y", "-c", "--d", "-0.5", "--e"]
    assert split(words) == [("--a", "1 2"), ("--b", "x=y"), ("-c", None), ("--d", "-0.5"), ("--e", None)]
    assert split(["loose"]) == [("loose", None)]
