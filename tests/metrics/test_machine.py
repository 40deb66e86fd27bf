"""What is read from /proc, against psutil's reading of the same; and how the sampler is scheduled."""

import os
import shutil
import subprocess
import sys
import threading
import time

import psutil
import pytest

from workloads.metrics import priority, tree
from workloads.metrics.machine import Linux, Portable, bodiless_nics
from workloads.metrics.tree import Member, PortableMember, Tree

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


@linux
def test_counters_are_those_of_psutil():
    """The machine goes on between two readings, so each of ours lies between two of psutil's."""
    ours, theirs = Linux(), Portable()
    first, look, last = theirs.look(), ours.look(), theirs.look()
    assert theirs.cpu_s(first)[1] - 0.05 <= ours.cpu_s(look)[1] <= theirs.cpu_s(last)[1] + 0.05
    times = psutil.cpu_times()
    assert ours.cpu_s(ours.look())[0] == pytest.approx(sum(times[:8]) - times.idle - times.iowait, abs=0.5)
    assert ours.memory_used_bytes(look) == pytest.approx(theirs.memory_used_bytes(last), abs=64 << 20)
    before, net, after = theirs.net_bytes(first), ours.net_bytes(look), theirs.net_bytes(last)
    assert net is None if after is None else all(a <= b <= c for a, b, c in zip(before, net, after, strict=True))
    disks = [name for name in os.listdir("/sys/block") if os.path.exists(f"/sys/block/{name}/device")]
    disk, rows = ours.disk_bytes(look), psutil.disk_io_counters(perdisk=True, nowrap=False)
    assert (disk is None) == (not disks)
    if disk:
        assert disk[0] <= sum(rows[name].read_bytes for name in disks) <= disk[0] + (64 << 20)
        assert ours.disk_bytes(ours.look())[1] >= disk[1]


def test_what_the_system_refuses_is_said_when_it_is_asked_for_and_the_rest_is_there(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_times", lambda: (_ for _ in ()).throw(PermissionError("no")))
    here = Portable()
    look = here.look()
    with pytest.raises(PermissionError):
        here.cpu_s(look)
    assert here.memory_used_bytes(look) > 0
    assert "cpu" not in here.look(counters=False)


@linux
@pytest.mark.parametrize("member", [Member, PortableMember])
def test_a_process_is_read_until_it_ends(member, tmp_path):
    odd = tmp_path / "a) Z (b"  # /proc/PID/stat has the name in brackets, whatever it holds
    odd.symlink_to(sys.executable)
    with subprocess.Popen([odd, "-c", "while True: pass"]) as busy:
        one, began_s = member(busy.pid), time.monotonic()
        time.sleep(0.5)
        spent, rss, age_s = one.spent(one.look())
        lived_s = time.monotonic() - began_s
        assert 0 < spent <= lived_s + 0.1
        assert rss == pytest.approx(psutil.Process(busy.pid).memory_info().rss, abs=4 << 20)
        assert lived_s - 0.05 <= age_s < lived_s + 1
        busy.kill()
        while psutil.Process(busy.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with pytest.raises(ProcessLookupError):
            one.spent(one.look())
    with pytest.raises(ProcessLookupError):
        one.look()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        member(busy.pid)


@pytest.mark.parametrize("member", [tree.MEMBER, PortableMember])
def test_what_a_process_met_late_spent_before_is_not_counted(monkeypatch, member):
    monkeypatch.setattr(tree, "MEMBER", member)
    found = Tree(os.getpid())
    found.add(found.look(time.perf_counter()))
    assert found.cpu_s == 0
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(tree.LIST_S + 0.1)
        found.add(found.look(time.perf_counter()))
        busy.kill()
    assert 0.05 < found.cpu_s < tree.LIST_S + 0.5


SCHEDULED = """
import os, time
from workloads.metrics.priority import hurry
print(hurry())
print(os.sched_getscheduler(0) == os.SCHED_RR, os.getpriority(os.PRIO_PROCESS, 0), flush=True)
end = time.monotonic() + 2
while time.monotonic() < end and os.sched_getscheduler(0) == os.SCHED_RR: pass
print(os.sched_getscheduler(0) == os.SCHED_RR)
"""


@linux
def test_it_runs_first_where_that_is_permitted_and_gives_it_up_when_it_runs_away():
    done = subprocess.run([sys.executable, "-c", SCHEDULED], capture_output=True, text=True, check=True, timeout=10)
    how, state, afterwards = done.stdout.splitlines()
    assert afterwards == "False"
    if how == "round-robin":
        assert state.startswith("True ")
    else:
        assert state.startswith("False ")
        assert how.startswith("niceness ")


@linux
def test_without_the_permission_it_says_what_it_has_instead():
    dropped = ["setpriv", "--bounding-set", "-sys_nice,-sys_admin", "--reuid", "65534", "--clear-groups", "--inh-caps", "-all"]
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root can give a permission up, with setpriv")
    done = subprocess.run([*dropped, sys.executable, "-c", SCHEDULED], capture_output=True, text=True, timeout=10)
    if done.returncode and "Permission denied" in done.stderr:
        pytest.skip("this Python can't be read by another user")
    how, state, _ = done.stdout.splitlines()
    assert how.startswith("niceness 0"), done.stderr
    assert state == "False 0"


def test_another_system_is_left_as_it_is(monkeypatch):
    """Its niceness is what the process was given: nothing of hurry() may raise."""
    monkeypatch.setattr(priority, "_guard", lambda: (_ for _ in ()).throw(AttributeError("RLIMIT_RTTIME")))
    monkeypatch.setattr(priority.os, "setpriority", lambda *_: (_ for _ in ()).throw(PermissionError()))
    said = []
    thread = threading.Thread(target=lambda: said.append(priority.hurry()))
    thread.start()
    thread.join()
    assert said[0].startswith(f"niceness {os.getpriority(os.PRIO_PROCESS, 0)}")


@pytest.mark.parametrize(
    ("nics", "counted"),
    [
        ({"lo": (), "eth0": ("device",), "enP1s1": ("device", "master")}, {"eth0"}),  # Azure's accelerated networking
        ({"lo": (), "eth0": ("device",), "docker0": (), "veth1": ("master",)}, {"eth0"}),
        ({"lo": (), "eth0": (), "net1": ()}, {"eth0", "net1"}),  # within a container
    ],
)
def test_no_byte_of_the_network_is_counted_twice(nics, counted, tmp_path):
    for nic, links in nics.items():
        (tmp_path / nic).mkdir()
        for link in links:
            (tmp_path / nic / link).mkdir()
    assert nics.keys() - bodiless_nics(str(tmp_path)) == counted
