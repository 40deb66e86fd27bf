"""The entry point as the image starts it: its role from the spec, the driver asked first, and the job's own exit codes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import RUNS
from workloads.entrypoint import ROLES
from workloads.preflight import Driver, Torch, check, driver, torch_build

from .conftest import ROOT, Jobs

# The entry point as it is, on a node with another driver, or with another workload.
DRIVER = """
import sys
import workloads.job
from workloads import entrypoint, job, preflight
torch, cuda, code = sys.argv[1:4]
preflight.torch_build = lambda: preflight.Torch("2.13.0", torch)
preflight.driver = lambda: preflight.Driver("535.288.01", int(cuda))
workloads.job.workload_command = lambda spec, folder, python, **_: (python, "-c", code, str(folder))
sys.argv = ["entrypoint", *sys.argv[4:]]
job.leave(job.main(entrypoint.ready))
"""
SHOW_ALLOC = "import os, sys; print('alloc', os.environ.get('PYTORCH_ALLOC_CONF'))"


def start(jobs: Jobs, *command: str, **env: str) -> subprocess.Popen:
    full = {**os.environ, "NCDEMO_RUNS": str(jobs.runs), "NCDEMO_JOB": "job", **env}
    words = [sys.executable, *command, "--spec", str(jobs.spec)]
    return subprocess.Popen(words, cwd=ROOT, env=full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_every_kind_of_spec_has_a_role() -> None:
    assert set(ROLES) == set(RUNS)


def test_a_benchmark_runs_to_its_end(jobs: Jobs) -> None:
    process = start(jobs, "-m", "workloads.entrypoint")
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    assert "role bench, from the spec" in out
    assert json.loads((jobs.folder / "result.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("kind", "given", "alloc"),
    [
        ("train", None, "expandable_segments:True"),
        ("train", "max_split_size_mb:128", "max_split_size_mb:128"),
        ("bench", None, "None"),
    ],
)
def test_a_role_sets_its_allocator_unless_the_container_does(jobs: Jobs, kind: str, given: str | None, alloc: str) -> None:
    if kind == "train":
        jobs.spec.write_text("kind: train\n")
    env = {} if given is None else {"PYTORCH_ALLOC_CONF": given}
    out, _ = start(jobs, "-c", DRIVER, "12.8", "12020", SHOW_ALLOC, **env).communicate(timeout=60)
    assert f"alloc {alloc}\n" in out


def test_an_old_driver_ends_it_at_once_and_for_good(jobs: Jobs) -> None:
    process = start(jobs, "-c", DRIVER, "13.0", "12020", "raise SystemExit(9)")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out.splitlines()[-1] == (
        "Error: driver 535.288.01 (CUDA 12.2) is too old for torch 2.13.0, which was built for CUDA 13.0: it needs driver 580.65.06 or "
        "newer. Update the node's driver (AKS: a new node image for the pool; VM: the current ubuntu-hpc image), or run an image of the "
        "CUDA 12 line: `ncdemo image build train`"
    )
    assert not jobs.folder.exists()


def test_sigterm_reaches_the_workload(jobs: Jobs) -> None:
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(130))\nprint('up', flush=True)\ntime.sleep(60)"
    with start(jobs, "-c", DRIVER, "12.8", "13000", code) as process:
        for line in process.stdout:
            if line.startswith("up"):
                process.send_signal(signal.SIGTERM)
                break
        out = process.stdout.read()
        assert process.wait(timeout=30) == 75, out


def test_no_spec_says_where_it_should_be(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workloads.entrypoint", "--spec", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"Error: {tmp_path / 'run.yaml'}: no such file; give the path of a YAML spec" in done.stderr


H100 = Driver("580.126.09", 13000)


@pytest.mark.parametrize(
    ("torch", "found", "says"),
    [
        (Torch("2.10.0", "12.8"), Driver("535.288.01", 12020), "driver 535.288.01 (CUDA 12.2) runs torch 2.10.0 (CUDA 12.8)"),
        (Torch("2.10.0", "12.8"), H100, "driver 580.126.09 (CUDA 13.0) runs torch 2.10.0 (CUDA 12.8)"),
        (Torch("2.14.1", "13.2"), H100, "driver 580.126.09 (CUDA 13.0) runs torch 2.14.1 (CUDA 13.2)"),
        (Torch("2.13.0", "13.0"), None, "no NVIDIA driver in reach: torch 2.13.0 runs on the CPU"),
        (Torch("2.13.0+cpu", None), H100, "driver 580.126.09 (CUDA 13.0); torch 2.13.0+cpu is a build for CPUs: the GPUs stay idle"),
        (Torch("2.13.0+cpu", None), None, "no NVIDIA driver in reach; torch 2.13.0+cpu is a build for CPUs"),
        (None, H100, "driver 580.126.09 (CUDA 13.0); no torch here"),
    ],
)
def test_what_fits_is_said(torch: Torch | None, found: Driver | None, says: str) -> None:
    assert check(torch, found) == says


def test_a_driver_too_old_for_any_image_is_told_to_be_updated() -> None:
    with pytest.raises(SpecError, match=r"driver 470\.1 \(CUDA 11\.4\) is too old .* needs driver 525\.60\.13 or newer.*image\)$"):
        check(Torch("2.10.0", "12.8"), Driver("470.1", 11040))


def test_torch_is_read_without_its_import() -> None:
    code = (
        "import sys; from workloads.preflight import torch_build; found = torch_build(); assert 'torch' not in sys.modules; "
        "import torch; assert (found.version, found.cuda) == (str(torch.__version__), torch.version.cuda), found"
    )
    pytest.importorskip("torch", reason="needs the train extra")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_this_machines_driver_runs_this_torch() -> None:
    torch = pytest.importorskip("torch")
    found, build = driver(), torch_build()
    assert found
    assert build
    assert "runs torch" in check(build, found)
    assert torch.zeros(1, device="cuda").item() == 0


def test_the_exporter_serves_the_figures_of_the_job_beside_it(jobs: Jobs) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    exporter = start(jobs, "-m", "workloads.entrypoint", "exporter", "--host", "127.0.0.1", "--port", str(port))
    try:
        run, _ = start(jobs, "-m", "workloads.entrypoint").communicate(timeout=100)
        assert (jobs.folder / "result.json").exists(), run
        page = ""
        for _ in range(200):
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                break
            time.sleep(0.1)
        assert re.search(r'^ncdemo_run_status\{.*status="finished".*\} 1\.0$', page, re.M), page
        second = start(jobs, "-m", "workloads.entrypoint", "exporter", "--host", "127.0.0.1", "--port", str(port))
        said, _ = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"Error: --port {port}: Address already in use; give another --port or --host" in said
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(20) == 0
    finally:
        exporter.kill()
        exporter.communicate()


def test_an_exporter_without_a_run_ends_when_it_is_told(jobs: Jobs) -> None:
    exporter = start(jobs, "-m", "workloads.entrypoint", "exporter", "--port", "0")
    assert exporter.stdout
    assert "once it has begun" in exporter.stdout.readline()
    exporter.send_signal(signal.SIGTERM)
    assert exporter.wait(20) == 0
    exporter.stdout.close()
    jobs.spec.write_text("kind: bench\nengines: [nope]\n")
    wrong = start(jobs, "-m", "workloads.entrypoint", "exporter")
    said, _ = wrong.communicate(timeout=60)
    assert wrong.returncode == 2
    assert "nope" in said
