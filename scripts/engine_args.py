"""Read the option names of an engine's server from its own source, without importing it, into tests/golden/engine_args.

    pip install --no-deps --target .cache/engine-args/sglang sglang==0.5.23
    python scripts/engine_args.py sglang 0.5.23 .cache/engine-args/sglang/sglang/srt

Options are the `--names` in calls of add_argument, Arg and click.option, in `aliases` lists, and the fields of SGLang's (`name: A[...]`)
and vLLM's (`class FrontendArgs`) argument classes. A renewed golden shows what the new version renamed; the tests then hold our commands to it.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

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


def _is_argument(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "A"


def _is_option(value: object) -> bool:
    return isinstance(value, str) and value.startswith("--") and " " not in value and len(value) > 2


def main() -> None:
    engine, version, *paths = sys.argv[1:]
    files = [file for path in map(Path, paths) for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    found = sorted({name for file in files for name in options(file.read_text(encoding="utf-8"))})
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / f"{engine}.json").write_text(json.dumps({"version": version, "options": found}, indent=1) + "\n")
    print(f"{engine} {version}: {len(found)} options")


if __name__ == "__main__":
    main()
