"""The laws of the house, read from the source: who may import whom, and what no tracked file may hold."""

import ast
import ensurepip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Room -> the rooms of ours that it may import. An arrow that isn't here is forbidden.
ARROWS = {
    "ncdemo": {"ncdemo.cli"},
    "ncdemo.spec": set(),
    "ncdemo.infra": {"ncdemo.spec"},
    "ncdemo.report": {"ncdemo.spec"},
    "ncdemo.operate": {"ncdemo.spec"},
    "ncdemo.cli": {"ncdemo.spec", "ncdemo.infra", "ncdemo.operate", "ncdemo.report"},
    "workloads": {"ncdemo.spec"},
}
# House -> what its files never import, at any depth of the code.
NEVER = {
    "ncdemo": {"torch", "transformers", "workloads"},
    "workloads": {"pulumi", "pulumi_azure_native", "pulumi_command", "pulumi_kubernetes", "pulumi_random", "pulumi_tls"},
}
HEAVY = {"torch", "pulumi", "pandas", "transformers", "numpy", "matplotlib", "mlflow", "azure", "kubernetes"}


def _imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every import in a module of a package, also inside functions and by importlib."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__", "lazy_import", "run_module") and isinstance(name, str):
                dots = len(name) - len(name.lstrip("."))
                base = ".".join(package.split(".")[: len(package.split(".")) - dots + 1]) if dots else ""
                names = [".".join(filter(None, [base, name.lstrip(".")]))]
        yield from ((node.lineno, name) for name in names)


def _room(name: str) -> str | None:
    """Return the room of ours that a dotted name lies in; None for other people's."""
    around = (".".join(name.split(".")[:n]) for n in (2, 1))
    return next((room for room in around if room in ARROWS), None)


def _broken(source: str, module: str, package: str) -> list[str]:
    """Return a line for every import that a module may not have."""
    here, found = _room(module), set()
    for line, name in _imports(source, package):
        room = _room(name)
        if name.split(".")[0] in NEVER[module.split(".")[0]]:
            found.add(f"{module}:{line}: imports {name}, which {module.split('.')[0]} never does")
        elif room and room not in {here, "ncdemo", *ARROWS[here]}:
            found.add(
                f"{module}:{line}: imports {name}, but {here} may import only: {', '.join(sorted(ARROWS[here])) or 'nothing of ours'}"
            )
    return sorted(found)


def _files(house: str) -> list[Path]:
    return sorted((ROOT / house).rglob("*.py"))


@pytest.mark.parametrize("house", NEVER)
def test_imports_follow_the_arrows(house: str) -> None:
    broken = []
    for path in _files(house):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        broken += _broken(path.read_text(), module, package)
    assert len(_files(house)) > 5
    assert not broken, "\n".join(broken)


def test_every_room_has_its_arrows() -> None:
    rooms = {f"ncdemo.{path.parent.name}" for path in (ROOT / "ncdemo").glob("*/*.py")}
    assert rooms <= set(ARROWS), "say in ARROWS what the new room may import"


PLANTED = [
    ("ncdemo.spec.load", "import ncdemo.report"),
    ("ncdemo.spec.load", "from ncdemo import report"),
    ("ncdemo.spec.load", "from ..report.page import write"),
    ("ncdemo.spec.load", "from .. import cli"),
    ("ncdemo.report.page", "def f():\n    import ncdemo.cli"),
    ("ncdemo.report.page", "class A:\n    async def f(self):\n        from torch.nn import Linear"),
    ("ncdemo.cli.train", "if 0:\n    import importlib\n    importlib.import_module('workloads.training')"),
    ("ncdemo.cli.train", "f = lambda: __import__('transformers')"),
    ("ncdemo.report.page", "from importlib import import_module\nimport_module('..cli', __package__)"),
    ("ncdemo.__main__", "import workloads.run"),
    ("workloads.run", "from ncdemo.cli import main"),
    ("workloads.training.core.fit", "def f():\n    import pulumi_azure_native as azure"),
    ("workloads.run", "try:\n    import ncdemo.infra\nexcept ImportError:\n    pass"),
]
ALLOWED = [
    ("ncdemo.cli.report", "from ncdemo.report.page import write\nfrom ncdemo.spec import load_spec\nfrom . import options\nimport click"),
    ("ncdemo.spec.load", "from ncdemo.spec import read\nfrom . import show\nfrom ncdemo import __version__\nimport yaml"),
    ("workloads.training.core.fit", "import torch\nfrom ncdemo.spec import TrainSpec\nfrom . import loss\nfrom workloads import run"),
    ("ncdemo.cli.train", "import torchless\n'import torch'\nprint('workloads.run')"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_the_scanner_finds_a_planted_violation(module: str, source: str) -> None:
    assert len({line.split(": ")[0] for line in _broken(source, module, module.rpartition(".")[0])}) == 1


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_the_scanner_lets_the_arrows_pass(module: str, source: str) -> None:
    assert _broken(source, module, module.rpartition(".")[0]) == []


PRINT_MODULES = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
HELP = "import contextlib, io\nfrom ncdemo.cli import main\nsys.argv = ['ncdemo', '--help']\n" + (
    "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n    main()\nassert 'train' in out.getvalue()"
)


@pytest.mark.parametrize("code", ["import ncdemo.cli", f"import sys\n{HELP}", "import ncdemo.spec"], ids=["import", "--help", "spec"])
def test_nothing_heavy_at_import(code: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"{code}\n{PRINT_MODULES}"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert "ncdemo" in loaded
    assert not loaded & HEAVY


def _names(path: Path) -> list[str]:
    strings = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [name for text in strings for name in re.findall(r"(?<![\w./])workloads(?:\.[A-Za-z_]\w*)+\.?", text)]


def test_every_workload_that_ncdemo_names_is_a_module() -> None:
    named = {(path.relative_to(ROOT), name) for path in _files("ncdemo") for name in _names(path)}
    assert {name for _, name in named} >= {"workloads.inference.bench", "workloads.training.accelerate"}
    for path, name in named:
        target = ROOT.joinpath(*name.strip(".").split("."))
        runnable = target.with_suffix(".py").is_file() or (target / "__main__.py").is_file()
        # A dot at the end: an f-string goes on with the rest of the name, or a sentence ends.
        assert runnable or (name.endswith(".") and target.is_dir()), f"{path} names {name}, which python -m can't run"


def _tracked() -> list[Path]:
    git = shutil.which("git")
    listed = git and subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if not listed or listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def _holding(pattern: str) -> list[str]:
    search = re.compile(pattern.encode()).search
    return [f"{path.relative_to(ROOT)}: {found[0].decode()}" for path in _tracked() if (found := search(path.read_bytes()))]


def _registries() -> list[str]:
    """Ask pip for the hosts of its registries, so that they stand in no file of ours."""
    code = "from pip._internal.models.index import PyPI, TestPyPI as T; print(PyPI.netloc, PyPI.file_storage_domain, T.netloc, T.file_storage_domain)"
    # A virtual environment may lack pip; most Pythons bring a copy for ensurepip.
    bundled = [str(path) for path in (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")]
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(bundled)}, capture_output=True, text=True)
    if not bundled and "No module named 'pip'" in run.stderr:
        pytest.skip("no pip here to ask for its hosts")
    assert len(run.stdout.split()) == 4, run.stderr
    return run.stdout.split()


def test_no_tracked_file_names_a_package_registry() -> None:
    assert _holding("|".join(re.escape(host) for host in _registries())) == []


def test_no_tracked_file_holds_a_path_of_this_machine() -> None:
    # Folders that a container or another machine has as well prove nothing.
    ours = {ROOT, ROOT.parent} - {
        Path("/", *name.split("/")) for name in ("", "app", "home", "mnt", "opt", "root", "srv", "tmp", "workspace")
    }
    assert _holding("|".join(rf"(?<![\w.~-]){re.escape(str(path))}/" for path in ours) or "(?!)") == []


def test_the_search_of_tracked_files_finds_something() -> None:
    assert "pyproject.toml: requires-python" in _holding(r"requires-python(?= = \">)")
