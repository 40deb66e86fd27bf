"""`ncdemo doctor env` in real environments: this one, and small ones made of the same files with something wrong in them."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ncdemo.cli.environment import NOTE, Made, pins, plain

ROOT = Path(__file__).resolve().parents[2]
BASE = "# torch=cpu dev=0 extras=\n"


def doctor(python: str | Path, *words: str, **env: str) -> subprocess.CompletedProcess:
    command = [str(python), "-m", "ncdemo", "doctor", "env", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}, timeout=60)


def made(prefix: Path, note: str | None, **packages: str) -> Path:
    """Make an environment that holds metadata of some packages, and imports what they need from this one."""
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    home = Path(os.path.realpath(sys.executable)).parent
    (prefix / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    ours = Path(sys.prefix) / site.relative_to(prefix)
    (site / "ours.pth").write_text(f"{ours}\n{ROOT}\n")
    for name, version in packages.items():
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    if note is not None:
        (prefix / NOTE).write_text(note)
    return prefix / "bin" / "python"


def test_this_environment_is_the_locks() -> None:
    if not (Path(sys.prefix) / NOTE).exists():
        pytest.skip("not made by scripts/setup_env.sh")
    done = doctor(sys.executable, "--json")
    data = json.loads(done.stdout)
    assert (done.returncode, data["differences"]) == (0, [])
    assert data["packages"] > 70


def test_it_takes_less_than_a_second_where_a_start_takes_a_twentieth() -> None:
    if not (Path(sys.prefix) / NOTE).exists():
        pytest.skip("not made by scripts/setup_env.sh")
    # Processor time, the least of three runs beside the least of three starts: machines differ, and the tests beside this one take turns.
    start_s, doctor_s = [], []
    for _ in range(3):
        start_s.append(
            processor_s(lambda: subprocess.run([sys.executable, "-m", "ncdemo", "--help"], capture_output=True, check=True, cwd=ROOT))
        )
        doctor_s.append(processor_s(lambda: doctor(sys.executable)))
    assert min(doctor_s) < 20 * min(start_s)


def processor_s(run: Callable[[], object]) -> float:
    """Return what a command and those under it took of the processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_every_difference_is_named_with_its_remedy(tmp_path: Path) -> None:
    wanted = pins(Made("cpu", False, (), subprocess.run(
        [next(uv for uv in (ROOT / ".uv/bin/uv", "uv") if uv == "uv" or Path(uv).exists()), "export", "-q", "--frozen", "--offline",
         "--no-config", "--no-emit-project", "--no-default-groups", "--no-hashes", "--no-annotate", "--no-header"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout))  # fmt: skip
    packages = {**wanted, "click": "8.0.0", "left_over": "1.0", "setuptools": "78.0"}
    del packages["httpx"]
    python = made(tmp_path / "venv", BASE, **packages)
    done = doctor(python)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"click: {wanted['click']} is locked, 8.0.0 is installed. Remedy: scripts/setup_env.sh --base --cpu",
        f"httpx: {wanted['httpx']} is locked, and not installed. Remedy: scripts/setup_env.sh --base --cpu",
        "left-over: 1.0 is installed, and not in the lock for these extras. "
        f"Remedy: uv pip uninstall --python {python} left-over",
        f"{tmp_path / 'venv'} (cpu; base): 3 differences from uv.lock, which names {len(wanted)} packages",
    ]  # fmt: skip
    data = json.loads(doctor(python, "--json").stdout)
    assert [(one["package"], one["locked"], one["installed"]) for one in data["differences"]] == [
        ("click", wanted["click"], "8.0.0"),
        ("httpx", wanted["httpx"], None),
        ("left-over", None, "1.0"),
    ]


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (None, "no such file, so which extras belong here isn't known; make the environment with scripts/setup_env.sh"),
        ("extras=train\n", ":1: is 'extras=train', not what scripts/setup_env.sh writes; make the environment with"),
        ("# torch=cpu dev=0 extras=trian\n", "uv export can't read"),
    ],
)
def test_an_environment_that_says_nothing_is_one_clear_line(note: str | None, message: str, tmp_path: Path) -> None:
    done = doctor(made(tmp_path / "venv", note))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


EXPORT = """\
torch==2.13.0 ; (platform_machine == 'x86_64' and sys_platform == 'linux') or sys_platform == 'darwin' \\
    --hash=sha256:aa
nvidia-cudnn==9.1 ; sys_platform == 'linux'
nvidia-ml-py==13.590.44
only-windows==1.0 ; sys_platform == 'win32'
Typing_Extensions==4.15.0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the markers are of Linux")
def test_a_cpu_environment_has_the_cpu_build() -> None:
    cuda = {"torch": "2.13.0", "nvidia-cudnn": "9.1", "nvidia-ml-py": "13.590.44", "typing-extensions": "4.15.0"}
    assert pins(Made("cuda", False, (), EXPORT)) == cuda
    cpu = {name: version for name, version in cuda.items() if name != "nvidia-cudnn"} | {"torch": "2.13.0+cpu"}
    assert pins(Made("cpu", False, (), EXPORT)) == cpu
    assert plain("Typing_Ext.ensions") == "typing-ext-ensions"
