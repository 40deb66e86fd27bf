"""`ncdemo doctor` on this machine, and on machines made of small stand-ins: a nvidia-smi, a torch's metadata, a full disk."""

import json
import os
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from ncdemo.cli import doctor_local
from ncdemo.cli.doctor_local import disk, driver, gpu, shm, torch_build, torch_without_gpu, uv

Usage = namedtuple("Usage", "total used free")
GIB = 1024**3


def doctor(*words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ncdemo", "doctor", *words], capture_output=True, text=True, env={**os.environ, **env}, timeout=60
    )


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_every_part_is_looked_at_and_the_exit_code_says_whether_one_fails() -> None:
    done = doctor("--json")
    findings = json.loads(done.stdout)["findings"]
    checks = {one["check"].partition(" (")[0] for one in findings}
    assert checks >= {"python", "uv", "lock", "gpu", "disk", "/dev/shm"}
    assert checks & {"torch", "driver"}
    assert done.returncode == any(one["status"] == "fail" for one in findings)
    for one in findings:
        assert one["status"] in ("ok", "warn", "fail", "unknown")
        assert bool(one["remedy"]) == (one["status"] != "ok"), one


def test_text_says_the_same() -> None:
    done = doctor()
    assert done.stdout.startswith(("ok", "fail"))
    assert "python" in done.stdout
    assert not done.stderr


def test_it_takes_less_than_a_second() -> None:
    # Processor time of the command and of uv under it: the tests beside this one take the rest of the clock.
    before, began = os.times(), time.perf_counter()
    doctor()
    after = os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert min(used_s, time.perf_counter() - began) < 1


def test_torch_is_read_and_not_imported() -> None:
    code = "import sys; from ncdemo.cli.doctor_local import local, torch_build; local(); print(torch_build(), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == "False"


@pytest.mark.parametrize(
    ("text", "cuda"),
    [("cuda: Optional[str] = '13.0'\n", "13.0"), ("cuda = '12.8'\n", "12.8"), ("cuda: Optional[str] = None\n", None)],
)
def test_the_cuda_of_torch_stands_in_its_version_file(text: str, cuda: str | None, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "torch-2.13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: torch\nVersion: 2.13.0\n")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{text}hip: Optional[str] = None\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert torch_build() == ("2.13.0", cuda)


@pytest.mark.parametrize(
    ("version", "torch", "status", "said", "remedy"),
    [
        ("580.95.05", ("2.13.0", "13.0"), "ok", "580.95.05 runs torch 2.13.0", None),
        ("535.161.08", ("2.10.0", "12.8"), "ok", "535.161.08 runs", None),
        ("550.54.15", ("2.13.0", "13.0"), "fail", "too old for torch 2.13.0", "install driver 580 or newer, or scripts/setup_env.sh --extra train-cu12"),
        ("470.82.01", ("2.10.0", "12.8"), "fail", "driver 525 or newer", "install driver 525 or newer"),
        ("580.95.05", ("2.13.0+cpu", None), "warn", "the GPU stays idle", "scripts/setup_env.sh --cuda"),
        ("580.95.05", None, "warn", "torch isn't installed", "--extra train --cuda"),
        ("580.95.05", ("3.0.0", "14.1"), "unknown", "whether it runs CUDA 14.1 isn't known here", "ncdemo demo"),
    ],
)  # fmt: skip
def test_driver_against_torchs_cuda(version: str, torch, status: str, said: str, remedy: str | None) -> None:
    found = driver(version, torch)
    assert (found.status, said in found.found) == (status, True), found
    assert (remedy is None and found.remedy is None) or remedy in found.remedy


@pytest.mark.parametrize(
    ("torch", "status"), [(("2.13.0+cpu", None), "ok"), (("2.13.0", "13.0"), "warn"), (None, "warn")], ids=["cpu", "cuda", "none"]
)
def test_without_a_driver(torch, status: str) -> None:
    assert torch_without_gpu(torch).status == status


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo 'NVIDIA H100 NVL, 580.95.05, 95830'\necho 'NVIDIA H100 NVL, 580.95.05, 95830'", "ok", "2: NVIDIA H100 NVL 94 GiB, NVIDIA"),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "fail",
            "nvidia-smi fails: Failed to initialize NVML",
        ),
        ("echo 'No devices were found'", "fail", "No devices were found"),
    ],
)
def test_what_nvidia_smi_says(script: str, status: str, said: str, tmp_path: Path, monkeypatch) -> None:
    program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    first = gpu()[0]
    assert (first.status, said in first.found) == (status, True), first


def test_an_old_uv_and_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor_local, "PACKAGE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (uv().status, uv().remedy) == ("warn", "scripts/setup_env.sh, which brings it")
    program(tmp_path, "uv", "echo 'uv 0.11.3'")
    assert "0.11.3 is too old to read uv.lock" in uv().found
    program(tmp_path, "uv", "echo 'uv 0.13.9 (abc 2026-10-01)'")
    assert uv().status == "ok"


@pytest.mark.parametrize(("free_gib", "status"), [(1.5, "fail"), (20, "warn"), (200, "ok")])
def test_a_full_disk_fails_before_a_run_does(free_gib: float, status: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor_local.shutil, "disk_usage", lambda path: Usage(0, 0, int(free_gib * GIB)))
    monkeypatch.setenv("NCDEMO_RUNS", str(tmp_path / "not" / "yet"))
    found = disk()
    assert {one.status for one in found} == {status}
    assert (status == "ok") == (found[0].remedy is None)
    assert str(tmp_path) in found[0].found


def test_dockers_default_shm_is_too_small(monkeypatch) -> None:
    monkeypatch.setattr(doctor_local.shutil, "disk_usage", lambda path: Usage(0, 0, 64 * 1024**2))
    assert (shm().status, "--shm-size=8g" in shm().remedy) == ("warn", True)
