"""What the worker asks of the kernel's scheduler, so that answers leave when they are due on a machine that is busy."""

import ctypes
import logging
import os
import platform
from typing import NamedTuple

log = logging.getLogger("clipper.worker")

# The shortest that Linux takes. Without one, a turn is 1.4 ms on two cores and 2.8 ms on eight or more.
SLICE_NS = 100_000


class _Numbers(NamedTuple):
    """Of sched_getattr and sched_setattr, for which only the newest C libraries have functions."""

    get: int
    set: int


_SYSCALLS = {"x86_64": _Numbers(315, 314), "aarch64": _Numbers(275, 274)}
_libc = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """``struct sched_attr`` of linux/sched/types.h, as of its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def ask_for_short_turns() -> None:
    """Let this thread, and those that it starts, take a processor from others at once, for shorter turns of its share.

    Linux from 6.12 on heeds it: a thread whose slice is shorter preempts one with a longer slice, as long as it has not
    had its share (EEVDF). Older kernels, and sandboxes that refuse, change nothing: a worker that becomes ready then
    waits for the turn of whoever runs, up to 4 ms at 250 ticks per second.
    """
    if platform.machine() not in _SYSCALLS:
        return
    try:
        attributes = scheduling()
        attributes.runtime_ns = SLICE_NS
        _call(_SYSCALLS[platform.machine()].set, ctypes.byref(attributes), 0)
    except OSError as refused:
        log.info("the kernel refuses short turns, so answers may leave later on a busy machine: %s", refused)


def scheduling() -> Attributes:
    """This thread's; ``runtime_ns`` is 0 where the kernel does not tell.

    Raises:
        OSError: this is not allowed here.
    """
    attributes = Attributes()
    _call(_SYSCALLS[platform.machine()].get, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    return attributes


def _call(number: int, *arguments: object) -> None:
    this_thread = 0
    if _libc.syscall(number, this_thread, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
