"""Giving memory back to the system after requests that needed much of it."""

import ctypes

# Absent in C libraries other than glibc, which have rules of their own.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back_freed() -> None:
    """Return every free page of the heap to the system, also those below a page that is in use.

    glibc by itself returns only what is free at the heap's end: one small object that was made after a large body's
    pieces keeps all of them resident. Takes some milliseconds for a heap of 100 MB.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
