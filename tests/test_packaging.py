"""The lock names no host, holds what pyproject.toml promises, and the scripts around it say what is wrong. Installs nothing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP = ROOT / "scripts" / "setup_env.sh"
LOCK_HOSTS = ROOT / "scripts" / "lock_hosts.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: dict[str, list[dict[str, Any]]] = {}
for _package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
    PACKAGES.setdefault(_package["name"], []).append(_package)
OURS = PACKAGES["ncdemo"][0]

WITH_HOSTS = """\
[[package]]
name = "one"
version = "1.0"
source = { registry = "https://mirror.example/simple" }
dependencies = [{ name = "two", version = "2.0", source = { registry = "https://mirror.example/simple" } }]
sdist = { url = "https://files.example/a/b/one-1.0.tar.gz", hash = "sha256:aa", size = 12, upload-time = "2026-01-01T00:00:00Z" }
wheels = [
    { url = "http://files.example/c/one-1.0-py3-none-any.whl", hash = "sha256:bb", size = 3 },
]
"""
WITHOUT_HOSTS = """\
[[package]]
name = "one"
version = "1.0"
source = { registry = "https://index.invalid/simple" }
dependencies = [{ name = "two", version = "2.0", source = { registry = "https://index.invalid/simple" } }]
sdist = { url = "one-1.0.tar.gz", hash = "sha256:aa" }
wheels = [
    { url = "one-1.0-py3-none-any.whl", hash = "sha256:bb" },
]
"""


@pytest.fixture
def lock_hosts() -> Any:
    spec = importlib.util.spec_from_file_location("lock_hosts", LOCK_HOSTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_neutralise_takes_the_hosts_out(lock_hosts: Any) -> None:
    assert lock_hosts.neutralise(WITH_HOSTS) == WITHOUT_HOSTS
    assert lock_hosts.neutralise(WITHOUT_HOSTS) == WITHOUT_HOSTS


@pytest.mark.parametrize("source", ['{ url = "https://files.example/one.whl" }', '{ git = "https://git.example/one?rev=1#abc" }'])
def test_neutralise_refuses_what_needs_a_host(lock_hosts: Any, source: str) -> None:
    line = f"source = {source}"
    with pytest.raises(ValueError, match="pins a direct URL") as caught:
        lock_hosts.neutralise(f'[[package]]\nname = "one"\n{line}\n')
    assert str(caught.value).splitlines() == [
        f"uv.lock pins a direct URL, which no mirror serves: {line}",
        "Depend on a released version of the package instead.",
    ]


@pytest.mark.parametrize(("lock", "code", "says"), [(WITHOUT_HOSTS, 0, ""), (WITH_HOSTS, 1, "Remedy: python scripts/lock_hosts.py\n")])
def test_check_leaves_the_lock_alone(
    lock_hosts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, lock: str, code: int, says: str
) -> None:
    path = tmp_path / "uv.lock"
    path.write_text(lock)
    monkeypatch.setattr(lock_hosts, "LOCK", path)
    monkeypatch.setattr(sys, "argv", ["lock_hosts.py", "--check"])
    assert lock_hosts.main() == code
    assert capsys.readouterr().err.endswith(says)
    assert path.read_text() == lock
    monkeypatch.setattr(sys, "argv", ["lock_hosts.py"])
    assert lock_hosts.main() == 0
    assert path.read_text() == WITHOUT_HOSTS


def test_the_lock_names_no_host() -> None:
    run = subprocess.run([sys.executable, str(LOCK_HOSTS), "--check"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert set(re.findall(r"[a-z]+://[^\"\s]+", (ROOT / "uv.lock").read_text())) == {"https://index.invalid/simple"}


def _name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_the_lock_has_every_extra_and_group() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(OURS["optional-dependencies"]) == set(extras)
    for extra, requirements in extras.items():
        wanted = {_name(r) for r in requirements} - {"ncdemo"}
        assert wanted <= {d["name"] for d in OURS["optional-dependencies"][extra]}, extra
    assert {d["name"] for d in OURS["dependencies"]} == {_name(r) for r in PROJECT["project"]["dependencies"]}
    for group, requirements in PROJECT["dependency-groups"].items():
        assert {d["name"] for d in OURS["dev-dependencies"][group]} == {_name(r) for r in requirements}


def _closure(dependencies: list[dict[str, Any]]) -> set[str]:
    """Return every package that some platform would install; markers are not asked, so rather too many."""
    found: set[str] = set()
    todo = list(dependencies)
    while todo:
        one = todo.pop()
        wanted = [(one["name"], extra) for extra in [None, *one.get("extra", [])]]
        for name, extra in wanted:
            if f"{name}[{extra}]" in found:
                continue
            found |= {name, f"{name}[{extra}]"}
            for package in PACKAGES[name]:
                todo += package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
    return found


def test_the_base_install_has_no_torch() -> None:
    base = _closure(OURS["dependencies"])
    assert {"click", "pydantic", "matplotlib", "numpy", "pydantic-core"} <= base
    assert not {
        name for name in base if re.match(r"torch|nvidia-(?!ml-py)|cuda-|triton|transformers|vllm|pulumi|mlflow$|mlflow\[|pandas", name)
    }
    assert "torch" in _closure(OURS["optional-dependencies"]["train"])


def test_everything_locked_has_a_hash() -> None:
    for package in (one for same in PACKAGES.values() for one in same if one is not OURS):
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert files, package["name"]
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", file["hash"]) for file in files), package["name"]


OPTIONS = "allowed: --cpu --cuda --extra NAME --base --no-dev --no-project --venv DIR"
MISTAKES = [
    (["--gpu"], {}, f"unknown option '--gpu'; {OPTIONS}"),
    (["train"], {}, f"unknown option 'train'; {OPTIONS}"),
    (["--extra"], {}, "--extra needs a name, e.g. --extra train"),
    (["--cpu", "--venv"], {}, "--venv needs a folder"),
    ([], {"NCDEMO_TORCH": "rocm"}, "NCDEMO_TORCH is 'rocm'; allowed: cpu, cuda"),
]


def _setup(arguments: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    # Should the script go on after all, it can download nothing.
    tools = {
        "PATH": str(Path(shutil.which("bash")).parent),
        "NCDEMO_TORCH": "",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "UV_NO_CACHE": "1",
        **env,
    }
    return subprocess.run(["bash", str(SETUP), *arguments], env=tools, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(("arguments", "env", "message"), MISTAKES)
def test_set_up_refuses_a_wrong_option(arguments: list[str], env: dict[str, str], message: str) -> None:
    run = _setup(arguments, **env)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"setup_env.sh: {message}\n")


def test_set_up_has_help() -> None:
    run = _setup(["--help"])
    assert (run.returncode, run.stderr) == (0, "")
    assert "scripts/setup_env.sh --base" in run.stdout
    assert all(option in run.stdout for option in ("--cpu", "--cuda", "--extra"))


SCRIPTS = sorted(path for path in ROOT.glob("scripts/**/*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    assert os.access(path, os.X_OK), f"chmod +x {path.name}"
    run = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path: Path) -> None:
    run = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
