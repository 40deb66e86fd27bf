"""The sampler beside a workload: real processes, real signals, real files."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ncdemo.spec.result import GpuSample, Sample
from tests.full_disk import small_disk
from workloads.metrics.gpu import row
from workloads.metrics.readings import Readings
from workloads.metrics.sampler import Sampler
from workloads.metrics.tree import Tree, descendants

BUSY = [sys.executable, "-c", "while True: pass"]
PARENT = """
import os, sys, time
from pathlib import Path
from workloads.metrics.sampler import Sampler
from workloads.metrics.tree import Tree, descendants
with Sampler(Path(sys.argv[1]), 20, time.perf_counter_ns()) as sampler:
    if sys.argv[2] == "forks" and os.fork() == 0:
        time.sleep(4)
        os._exit(0)
    print(sampler.pid, flush=True)
    time.sleep(30)
"""


@contextlib.contextmanager
def process(*command, **options):
    with subprocess.Popen(command, **options) as started:
        try:
            yield started
        finally:
            started.kill()


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def test_the_clock_is_one_for_all_processes():
    """time_s is taken in the sampler's process against a zero of the run's: it needs a clock since boot, not since start."""
    assert time.get_clock_info("perf_counter").implementation in ("clock_gettime(CLOCK_MONOTONIC)", "mach_absolute_time()")


def test_keys_are_those_of_the_schema():
    readings = Readings(os.getpid(), hz=2)
    heads = {"tick", "late_s", "scheduling", "unix_s", "time_s", "gpus"}
    assert set(readings.fields(readings.take())) | heads == set(Sample.model_fields)
    assert list(row(0)) == list(GpuSample.model_fields)[: len(row(0))]


def test_samples_come_at_the_rate_and_on_the_runs_clock(tmp_path, samples, until):
    path, zero_ns = tmp_path / "samples.jsonl", time.perf_counter_ns() - 100 * 10**9
    with Sampler(path, 20, zero_ns) as sampler:
        until(lambda: lines(path))
        # The sampler is not part of the workload; other tests' servers may be.
        here = psutil.Process()
        tree = [one for one in (here, *here.children(recursive=True)) if one.pid != sampler.pid]
        rss_bytes = sum(one.memory_info().rss for one in tree)
        time.sleep(1)
        left_s = time.perf_counter()
    assert time.perf_counter() - left_s < 1
    assert not psutil.pid_exists(sampler.pid)
    taken = samples(path)
    assert 15 <= len(taken) <= 40
    assert (left_s - zero_ns / 1e9) <= taken[-1].time_s < 103 + 5, "the last sample is from after the body"
    first, *rest = taken
    assert first.cpu_pct is None
    assert first.net_recv_bytes_per_s is None
    assert abs(first.process_rss_bytes - rss_bytes) < 10 << 20
    assert first.memory_used_bytes > 1 << 20
    assert all(0 <= sample.cpu_pct <= 100 for sample in rest[:-1])
    # The schedule is absolute: ticks stay on the grid of the first, however long each sample takes.
    due = [sample.tick / 20 - (sample.time_s - sample.late_s) for sample in taken[:-1]]
    assert max(due) - min(due) < 1e-5
    assert all(0 <= sample.late_s < 0.05 for sample in taken[:-1])
    zeros = [sample.unix_s - sample.time_s for sample in taken]
    assert max(zeros) - min(zeros) < 0.05, "both clocks are read at one moment"
    assert abs(zeros[0] + taken[-1].time_s - time.time()) < 2
    assert (taken[-1].tick, taken[-1].late_s) == (None, None)
    assert first.scheduling.startswith(("round-robin", "niceness "))
    assert {sample.scheduling for sample in rest} == {None}


def test_process_cpu_covers_the_tree_and_not_the_sampler(tmp_path, samples, until):
    path = tmp_path / "samples.jsonl"
    with process("sh", "-c", "sleep 30 & exec $0 -c 'while True: pass'", sys.executable) as workload:
        with Sampler(path, 5, time.perf_counter_ns(), pid=workload.pid):
            until(lambda: lines(path) >= 5)
        with Sampler(tmp_path / "idle.jsonl", 5, time.perf_counter_ns()):
            until(lambda: lines(tmp_path / "idle.jsonl") >= 3)
        tree = psutil.Process(workload.pid).children()
        spent, age_s = psutil.Process(workload.pid).cpu_times(), time.time() - psutil.Process(workload.pid).create_time()
    share_pct = 100 * (spent.user + spent.system) / age_s  # as much as a machine with other work gave it
    busiest = max(sample.process_cpu_pct or 0 for sample in samples(path))
    assert 0.5 * share_pct < busiest < 130
    # This process is idle but is the busy one's parent: its tree has that one in it.
    assert max(sample.process_cpu_pct or 0 for sample in samples(tmp_path / "idle.jsonl")) > 0.3 * share_pct
    for child in tree:
        child.kill()


@pytest.mark.parametrize("parent", ["alone", "forks"])
def test_sampler_ends_with_a_killed_parent_and_the_file_keeps_its_lines(tmp_path, samples, until, parent):
    path = tmp_path / "samples.jsonl"
    with process(sys.executable, "-c", PARENT, str(path), parent, stdout=subprocess.PIPE, text=True) as workload:
        sampler = psutil.Process(int(workload.stdout.readline()))
        until(lambda: lines(path) >= 3)
        workload.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        until(lambda: not sampler.is_running() or sampler.status() == psutil.STATUS_ZOMBIE)
        assert time.monotonic() - killed_s < 2
    assert len(samples(path)) >= 3


def test_a_tick_is_taken_late_until_the_next_is_due_and_then_lost(tmp_path, samples, until, capfd):
    path = tmp_path / "samples.jsonl"
    with Sampler(path, 20, time.perf_counter_ns()) as sampler:
        until(lambda: lines(path) >= 2)
        os.kill(sampler.pid, signal.SIGSTOP)
        seen = lines(path)
        time.sleep(0.6)
        os.kill(sampler.pid, signal.SIGCONT)
        until(lambda: lines(path) >= seen + 10)
    taken = samples(path)[:-1]
    ticks = [sample.tick for sample in taken]
    lost = len(set(range(ticks[-1] + 1)) - set(ticks))
    assert 10 <= lost <= 13
    # What comes after the pause is the tick of its own time: none is made up, and no two are bunched.
    assert len(set(ticks)) == len(ticks)
    assert all(sample.late_s < 0.05 for sample in taken)
    assert f"of {ticks[-1] + 1} samples {lost} were late and skipped, 0 could not be written" in capfd.readouterr().err


def test_no_sampler_at_zero_hz(tmp_path):
    with Sampler(tmp_path / "samples.jsonl", 0, time.perf_counter_ns()) as sampler:
        assert sampler.pid is None
    assert not list(tmp_path.iterdir())


def test_failing_to_start_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Sampler(tmp_path / "samples.jsonl", 10, time.perf_counter_ns()):
        pass
    assert "no hardware samples, the sampler did not start (FileNotFoundError" in caplog.text


def test_no_folder_to_write_to_is_said(tmp_path, until, caplog, capfd):
    with Sampler(tmp_path / "missing" / "samples.jsonl", 10, time.perf_counter_ns()) as sampler:
        until(lambda: psutil.Process(sampler.pid).status() == psutil.STATUS_ZOMBIE)
    assert "the sampler ended early (exit code 1)" in caplog.text
    assert "No such file or directory" in capfd.readouterr().err


def test_a_sampler_that_hangs_is_killed_within_a_second(tmp_path, until, caplog):
    path = tmp_path / "samples.jsonl"
    with Sampler(path, 10, time.perf_counter_ns()) as sampler:
        until(lambda: lines(path))
        os.kill(sampler.pid, signal.SIGSTOP)
        left_s = time.monotonic()
    assert time.monotonic() - left_s < 1.2
    assert not psutil.pid_exists(sampler.pid)
    assert "did not end within 0.9 s and was killed" in caplog.text


def test_a_disk_that_is_full_to_the_end_costs_samples_and_nothing_else(tmp_path, until, capfd):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with Sampler("/dev/full", 50, time.perf_counter_ns()) as sampler:
        time.sleep(0.5)
        assert psutil.Process(sampler.pid).status() != psutil.STATUS_ZOMBIE, "it goes on: there may be room again"
    err = capfd.readouterr().err
    assert err.count("No space left on device; free some space. Until then its lines are held in memory") == 1
    assert "could not be written" in err


def test_a_disk_that_is_full_for_a_while_costs_no_sample(tmp_path, samples, until, capfd):
    with small_disk(tmp_path / "disk", mib=1) as disk:
        path = disk.path / "samples.jsonl"
        with Sampler(path, 50, time.perf_counter_ns()):
            until(lambda: lines(path))
            disk.fill()
            time.sleep(1.5)
            held = lines(path)
            disk.free()
            until(lambda: lines(path) > held + 60)
        ticks = [sample.tick for sample in samples(path)[:-1]]
    err = capfd.readouterr().err
    skipped = re.search(r"of (\d+) samples (\d+) were late and skipped, 0 could not be written", err)
    assert ticks == sorted(set(ticks))
    assert ticks[-1] + 1 - len(ticks) == (int(skipped[2]) if skipped else 0), "each that was taken is there, once"
    assert err.count("there is room again after ") == err.count("No space left on device") >= 1


def test_file_size_limit_leaves_whole_lines(tmp_path, samples, until):
    path = tmp_path / "samples.jsonl"
    command = f'ulimit -f 2; exec "$0" -m workloads.metrics.sampler --out "$1" --hz 100 --pid {os.getpid()}'
    with process("bash", "-c", command, sys.executable, str(path), stderr=subprocess.PIPE, text=True) as sampler:
        assert "are held in memory" in sampler.stderr.readline()
        sampler.terminate()
        assert "could not be written" in sampler.stderr.read()
    assert 2 <= len(samples(path)) <= 2048 // 100
    assert path.read_text().endswith("\n")


def test_workload_that_ends(tmp_path, samples, until):
    path, other = tmp_path / "samples.jsonl", tmp_path / "other.jsonl"
    with process("sleep", "30") as workload, Sampler(path, 20, time.perf_counter_ns(), pid=workload.pid):
        command = [sys.executable, "-m", "workloads.metrics.sampler", "--out", str(other), "--hz", "20", "--pid", str(workload.pid)]
        with process(*command) as alone:
            until(lambda: lines(path) >= 2 and lines(other) >= 2)
            workload.kill()
            assert alone.wait(2) == 0, "started by hand, it ends with what it watches"
            seen = lines(path)
            until(lambda: lines(path) >= seen + 4)
    assert samples(path)[0].process_rss_bytes > 0
    last = samples(path)[-2]
    assert (last.process_rss_bytes, last.process_cpu_pct) == (None, None)
    assert last.memory_used_bytes > 0


def test_a_recycled_pid_is_not_followed(tmp_path):
    """The number is alive, but the process that was meant started an hour before this one."""
    started = psutil.Process().create_time()
    assert Tree(os.getpid(), started).alive()
    assert not Tree(os.getpid(), started - 3600).alive()
    command = [sys.executable, "-m", "workloads.metrics.sampler", "--out", str(tmp_path / "samples.jsonl"), "--hz", "20"]
    done = subprocess.run([*command, "--pid", str(os.getpid()), "--pid-started", str(started - 3600)], timeout=5, check=True)
    assert done.returncode == 0
    assert lines(tmp_path / "samples.jsonl") == 0


def test_start_up_imports_nothing_heavy(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "workloads.metrics.sampler", "--out", str(tmp_path / "s"), "--pid", "2147483647"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stderr
    names = {line.rsplit("|", 1)[1].strip() for line in imported.splitlines() if line.startswith("import time:")}
    assert {"psutil", "workloads.metrics.readings"} <= names
    assert not {name.partition(".")[0] for name in names} & {"pydantic", "torch", "numpy", "ncdemo", "yaml", "mlflow", "transformers"}


def test_a_rate_of_zero_by_hand_is_refused(tmp_path):
    command = [sys.executable, "-m", "workloads.metrics.sampler", "--out", str(tmp_path / "s"), "--hz", "0", "--pid", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "--hz 0.0: must be more than 0, e.g. 2" in done.stderr


def test_at_100_hz_every_tick_is_written_or_counted(tmp_path, samples, until, capfd):
    """The soak in short: python -m benchmarks.sampler_soak --seconds 3600"""
    path = tmp_path / "samples.jsonl"
    with Sampler(path, 100, time.perf_counter_ns()):
        until(lambda: lines(path))
        time.sleep(3)
    taken = samples(path)
    ticks = [sample.tick for sample in taken[:-1]]
    skipped = re.search(r"of (\d+) samples (\d+) were late and skipped, 0 could not be written", capfd.readouterr().err)
    assert ticks[-1] + 1 - len(ticks) == (int(skipped[2]) if skipped else 0)
    assert 290 < ticks[-1] < 500
    if taken[0].scheduling == "round-robin":  # whatever else this machine does
        assert len(ticks) > 0.97 * ticks[-1]


def test_a_disk_that_takes_nothing_for_a_while_delays_no_tick(tmp_path, samples):
    """A named pipe that nobody reads: the writer waits in write(2), and a second of ticks and more is held."""
    pipe, path = tmp_path / "pipe", tmp_path / "samples.jsonl"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "workloads.metrics.sampler", "--out", str(pipe), "--hz", "100", "--pid", str(os.getpid())]
    with process(*command, stderr=subprocess.PIPE, text=True) as sampler:
        time.sleep(2.5)
        os.set_blocking(reader, True)
        sampler.terminate()
        with open(reader, "rb") as file:
            path.write_bytes(file.read())
        assert "could not be written" not in sampler.stderr.read()
    ticks = [sample.tick for sample in samples(path)[:-1]]
    assert ticks[-1] > 100
    assert len(ticks) > 0.9 * ticks[-1]


FAMILY = """
import subprocess, sys, threading
child = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '30'])"]
threading.Thread(target=lambda: subprocess.run(child)).start()
subprocess.run(["sleep", "30"])
"""


def test_descendants_are_those_of_all_threads_and_generations(until):
    with process(sys.executable, "-c", FAMILY) as started:
        root = psutil.Process(started.pid)
        try:
            until(lambda: len(root.children(recursive=True)) == 3)
            assert set(descendants(root.pid)) == {child.pid for child in root.children(recursive=True)}
        finally:
            for child in root.children(recursive=True):
                child.kill()
