"""Read an engine's option names and signatures from its own source, without importing it, into tests/golden/engine_args.

    pip install --no-deps --target .cache/engine-args/sglang sglang==0.5.23
    python scripts/engine_args.py sglang 0.5.23 .cache/engine-args/sglang/sglang/srt

Options are the `--names` in calls of add_argument, Arg and click.option, in `aliases` lists, and the fields of SGLang's (`name: A[...]`)
and vLLM's (`class FrontendArgs`) argument classes. Signatures are of what our adapters call and of the bodies they send: parameters of
functions, fields of classes. Metrics are the names of the engine's own Prometheus figures,
without `_total`. A renewed golden shows what the new version renamed; the tests then hold our commands to it.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SIGNATURES = {
    "vllm": ("entrypoints/openai/completion/protocol.py:CompletionRequest", "sampling_params.py:SamplingParams"),
    "sglang": (
        "srt/entrypoints/openai/protocol.py:CompletionRequest", "srt/entrypoints/engine.py:Engine.async_generate",
        "srt/sampling/sampling_params.py:SamplingParams", "srt/server_args.py:prepare_server_args",
    ),
    "lmdeploy": (
        "api.py:pipeline", "messages.py:TurbomindEngineConfig", "messages.py:GenerationConfig", "pipeline.py:Pipeline.session",
        "serve/core/async_engine.py:AsyncEngine.preprocess", "serve/core/async_engine.py:AsyncEngine.generate",
        "serve/core/async_engine.py:GenOut", "serve/openai/protocol.py:GenerateReqInput", "serve/openai/protocol.py:GenerateReqOutput",
        "serve/openai/protocol.py:GenerateReqMetaOutput",
    ),
}  # fmt: skip
"""Engine -> FILE:NAME below the folder of its package."""
METRIC = re.compile(r"(?:vllm|sglang|lmdeploy):[a-z0-9_]+")
GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "engine_args"


def options(source: str) -> Iterator[str]:
    """Yield every option name that a module defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("add_argument", "Arg", "option"):
                words = [w for value in (*node.args, *(k.value for k in node.keywords)) for w in ast.walk(value)]
                yield from (w.value for w in words if isinstance(w, ast.Constant) and _is_option(w.value))
        elif isinstance(node, ast.ClassDef):
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
            whole = node.name.endswith("FrontendArgs")
            yield from ("--" + f.target.id.replace("_", "-") for f in fields if whole or _is_argument(f.annotation))


def metrics(source: str) -> Iterator[str]:
    """Yield the names of Prometheus metrics that a module defines, without the _total that its client adds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
            yield node.value.removesuffix("_total")


def signature(source: str, name: str) -> list[str]:
    """Return the parameters of a function or method, self aside, or the fields of a class."""
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        node = next(n for n in ast.walk(node) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and n.name == part)
    if isinstance(node, ast.ClassDef):
        return [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
    arguments = node.args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != "self"]


def signatures(engine: str, package: Path) -> dict[str, list[str]]:
    """Return {FILE:NAME: names} of an engine, from the folder of its package."""
    found = {}
    for key in SIGNATURES[engine]:
        file, _, name = key.partition(":")
        found[key] = signature((package / file).read_text(encoding="utf-8"), name)
    return found


def package_metrics(engine: str, package: Path) -> list[str]:
    """Return the names of an engine's own metrics, from the folder of its package."""
    sources = (file.read_text(encoding="utf-8") for file in package.rglob("*.py"))
    return sorted({name for text in sources if f"{engine}:" in text for name in metrics(text)})


def _package(path: Path) -> Path:
    """Return the outermost folder around a path that is a package."""
    folders = [p for p in (path, *path.parents) if (p / "__init__.py").is_file()]
    return folders[-1]


def _is_argument(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "A"


def _is_option(value: object) -> bool:
    return isinstance(value, str) and value.startswith("--") and " " not in value and len(value) > 2


def main() -> None:
    engine, version, *paths = sys.argv[1:]
    files = [file for path in map(Path, paths) for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    found = sorted({name for file in files for name in options(file.read_text(encoding="utf-8"))})
    GOLDEN.mkdir(parents=True, exist_ok=True)
    golden = {"version": version, "options": found}
    if engine in SIGNATURES:
        golden["metrics"] = package_metrics(engine, _package(Path(paths[0]).resolve()))
    if engine in SIGNATURES:
        golden["signatures"] = signatures(engine, _package(Path(paths[0]).resolve()))
    (GOLDEN / f"{engine}.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{engine} {version}: {len(found)} options")


if __name__ == "__main__":
    main()
