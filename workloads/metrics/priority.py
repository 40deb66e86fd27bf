"""How soon the sampler runs once a tick is due, beside a run that keeps every core busy. Called in the sampler's own process.

Being nice costs samples: on two cores with a load of 6, a process of niceness 10 is seconds late at 100 Hz, one of the round-robin
class 2.3 ms at most (docs/telemetry.md). What it takes from the run is the same either way: its own CPU time.

    print(hurry())
"""

import contextlib
import ctypes
import os
import platform
import signal
import struct

NICENESS = -10
SLICE_NS = 100_000
"""The shortest that Linux 6.12 grants: of two processes with equal claims, the one with the shorter slice runs first."""
RUNAWAY_S = 0.5
"""CPU time without a pause after which round-robin is given up: a driver that spins must not keep a core from the run."""
_SYSCALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""sched_setattr and sched_getattr, which Python lacks."""
_ATTRIBUTES = "IIQiIQQQ"
"""struct sched_attr: size, policy, flags, nice, priority, runtime (of a normal process: its slice), deadline, period."""


def hurry() -> str:
    """Let this process and its later threads run as soon as the system permits; return how, in words. Never raises."""
    try:
        _guard()
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
        return "round-robin"
    except (OSError, AttributeError, ValueError, ImportError):  # no CAP_SYS_NICE nor RLIMIT_RTPRIO, or not Linux
        return _normal()


def _normal() -> str:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    return f"niceness {niceness}" + (f", slice {SLICE_NS / 1e6:g} ms" if _shorten(niceness) else "")


def _shorten(niceness: int) -> bool:
    """Ask for short slices and say whether they were granted: an older kernel ignores the wish without an error."""
    if os.uname().sysname != "Linux" or platform.machine() not in _SYSCALLS:
        return False
    setattr_, getattr_ = _SYSCALLS[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    size = struct.calcsize(_ATTRIBUTES)
    libc.syscall(setattr_, 0, struct.pack(_ATTRIBUTES, size, 0, 0, niceness, 0, SLICE_NS, 0, 0), 0)
    granted = ctypes.create_string_buffer(size)
    return bool(libc.syscall(getattr_, 0, granted, size, 0) == 0 and struct.unpack(_ATTRIBUTES, granted.raw)[5] == SLICE_NS)


def _guard() -> None:
    """Let the kernel tell of a runaway by SIGXCPU, which gives up what hurry() got."""
    import resource

    signal.signal(signal.SIGXCPU, lambda *_: _calm())
    resource.setrlimit(resource.RLIMIT_RTTIME, (int(RUNAWAY_S * 1e6), resource.getrlimit(resource.RLIMIT_RTTIME)[1]))


def _calm() -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))
