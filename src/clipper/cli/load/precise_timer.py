"""A timer of Linux that calls back on time. The loop's own count milliseconds, in which 20 queries may be due."""

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class PreciseTimer:
    """Calls ``wake`` in the loop at the time that was set last. ``wake`` has to set the next time, or turn it off."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._set = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), f"timerfd_create: {os.strerror(ctypes.get_errno())}")
        self._setting = _Setting()
        self._reference = ctypes.byref(self._setting)
        self._loop = loop
        loop.add_reader(self._fd, wake)

    def set(self, at_s: float) -> None:
        """Call back at ``at_s`` of ``time.monotonic``; at once if that time has passed."""
        self._setting.value.seconds, self._setting.value.nanoseconds = divmod(max(1, int(at_s * _NS)), _NS)
        self._set(self._fd, _TFD_TIMER_ABSTIME, self._reference, None)

    def turn_off(self) -> None:
        self._setting.value.seconds = self._setting.value.nanoseconds = 0
        self._set(self._fd, _TFD_TIMER_ABSTIME, self._reference, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
