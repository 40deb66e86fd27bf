"""mypy --strict over ncdemo and workloads, as `make lint` runs it: no errors, and no way around it."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MYPY = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


@pytest.mark.timeout(600)
def test_mypy_finds_nothing() -> None:
    for package, extra in (("mypy", "the dev group"), ("pulumi", "--extra infra"), ("torch", "--extra train")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: scripts/setup_env.sh with {extra}")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=570)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"no issues found in (\d+) source files", done.stdout)[1]) > 250


def test_it_is_strict_for_every_file() -> None:
    assert MYPY["strict"] is True
    assert MYPY["packages"] == ["ncdemo", "workloads"]
    named = [[one["module"]] if isinstance(one["module"], str) else one["module"] for one in MYPY["overrides"]]
    ours = [module for modules in named for module in modules if module.split(".")[0] in MYPY["packages"]]
    assert ours == ["workloads.training.*", "workloads.inference.frameworks.*"], "these inherit from libraries that aren't read"
    assert not [one for one in MYPY["overrides"] if "ignore_errors" in one]


def test_every_ignored_error_is_named() -> None:
    files = [path for package in MYPY["packages"] for path in (ROOT / package).rglob("*.py")]
    ignored = [line for path in files for line in re.findall(r"#\s*type:\s*ignore.*", path.read_text())]
    assert all(re.match(r"# type: ignore\[[a-z-]+\]", line) for line in ignored), ignored
    assert len(ignored) < 10
