"""A timer that epoll can wait for, on the clock of time.perf_counter_ns: epoll's own time-out is rounded to milliseconds.

Linux's timerfd through ctypes; os.timerfd_create came with Python 3.13 and replaces this then.
"""

import ctypes
import os
import sys
from contextlib import suppress

from ncdemo.spec.base import SpecError

CLOCK_MONOTONIC, TFD_TIMER_ABSTIME = 1, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """One timer; `fd` is readable once it is due."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise SpecError(f"load: needs Linux (epoll and timerfd), and this is {sys.platform}; run it in the container image")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._due_ns = 0

    def set(self, due_ns: int) -> None:
        """Be due at perf_counter_ns() == due_ns; a time in the past is due at once."""
        if due_ns == self._due_ns:
            return
        self._due_ns = due_ns
        value = self._spec.it_value
        value.tv_sec, value.tv_nsec = divmod(max(due_ns, 1), 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Stop being readable."""
        self._due_ns = 0
        with suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
