"""What the arguments of a user's own (server_args) change: looked up in the engine's CHANGES, for the fairness gates.

    server_args("vllm", ["--quantization", "fp8"])      # [ServerArg(name="--quantization", value="fp8", changes="weights")]

CHANGES has for each effect the names of options, without dashes before them: `name=value` for one value alone, which goes first, and
`name-` for all that begin so. tests/inference/test_changes.py holds every name to be one of the engine's. An option that no table
has is `unknown`: it is named in a comparison, and refuses none.
"""

import importlib
from collections.abc import Mapping, Sequence

from ncdemo.spec.server_args import Effect, ServerArg, plain, split
from workloads.inference.frameworks import ENGINES
from workloads.metrics.redact import redact_arguments


def server_args(engine: str, words: Sequence[str]) -> list[ServerArg] | None:
    """Return what an engine's server was given beside our own; None for an endpoint of others, of which that is not known."""
    if engine == "openai":
        return None
    table = names(getattr(importlib.import_module(ENGINES[engine][0]), "CHANGES", {}))
    return [ServerArg(name=name, value=value, changes=_effect(table, name, value)) for name, value in split(redact_arguments(list(words)))]


def names(changes: Mapping[Effect, str]) -> dict[str, Effect]:
    """Return what each name of a CHANGES stands for."""
    return {name: effect for effect, words in changes.items() for name in words.split()}


def _effect(table: Mapping[str, Effect], name: str, value: str | None) -> Effect:
    option = plain(name).partition(".")[0]  # vLLM's --speculative-config.method sets one key of an option
    beginnings = [key for key in table if key.endswith("-") and option.startswith(key)]
    return next((table[key] for key in (f"{option}={value}", option, *beginnings) if key in table), "unknown")
