"""Configures malloc so that freed memory returns to the system, or is reused."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Large bodies and the tables of large dicts have at least this size.
LARGE_PIECE_BYTES = 1024 * 1024
# The largest mmap threshold that glibc accepts.
_MOST_HEAP_PIECE_BYTES = 32 * 1024 * 1024

_libc = ctypes.CDLL(None)
# Absent in C libraries other than glibc, which have rules of their own.
_mallopt = getattr(_libc, "mallopt", None)
_malloc_trim = getattr(_libc, "malloc_trim", None)


def keep_large_pieces_apart() -> None:
    """Give every large piece a mapping of its own, which goes back to the system as soon as it is freed.

    glibc does so at first, and stops when the first such piece is freed. After that, the table of a full cache, which
    Python makes anew after some 500,000 insertions, would leave a hole of its size in the heap: 21 MB at the default
    bound. And glibc would keep twice that size free at the heap's end: a supervisor's heap grew by steps of 2 MB.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, LARGE_PIECE_BYTES)


def share_one_arena() -> None:
    """Have threads use memory that other threads have freed. For a process whose threads seldom compute at once.

    glibc gives each thread an arena of its own, and each arena keeps the most that any work of its thread ever took: a
    supervisor grew by some 6 MB a thread, as each thread in turn got work that takes that much, such as a deployment.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def keep_freed() -> None:
    """Keep freed memory for further allocations. For a job that allocates and frees large pieces of one size, over and
    over: otherwise the kernel clears each of their pages again, which takes longer than to fill them.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, _MOST_HEAP_PIECE_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, 16 * _MOST_HEAP_PIECE_BYTES)
    share_one_arena()


def give_back_freed() -> None:
    """Return every free page of the heap to the system, also those below a page that is in use.

    glibc by itself returns only what is free at the heap's end: one small object that was made after a large body's
    pieces keeps all of them resident. Takes some milliseconds for a heap of 100 MB.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
