"""What the worker asks of malloc, so that memory that was needed once goes back to the system."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Pieces of this size and more are large bodies and the tables of large dicts.
LARGE_PIECE_BYTES = 1024 * 1024
# What is free at the heap's end is kept up to this: a batch of pictures fits into it many times.
KEPT_FREE_BYTES = 16 * 1024 * 1024

_libc = ctypes.CDLL(None)
# Absent in C libraries other than glibc, which have rules of their own.
_mallopt = getattr(_libc, "mallopt", None)
_malloc_trim = getattr(_libc, "malloc_trim", None)


def keep_large_pieces_apart() -> None:
    """Give every large piece a mapping of its own, which goes back to the system as soon as it is freed.

    glibc does so at first, and stops when the first of them is freed. Then the table of a full cache, which Python
    makes anew after some 500,000 insertions, would leave a hole of its size in the heap: 21 MB at the default bound.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, LARGE_PIECE_BYTES)


def keep_end_of_heap() -> None:
    """Keep the memory that batches come and go in.

    glibc gives back what is free at the heap's end from 128 KiB on. A batch of 128 images of 6 KB takes 800 KB, and
    page by page the system had to find them anew for each: a page fault a query, and 2 to 5 us.
    """
    if _mallopt is not None:
        _mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def give_back_freed() -> None:
    """Return every free page of the heap to the system, also those below a page that is in use.

    glibc by itself returns only what is free at the heap's end: one small object that was made after a large body's
    pieces keeps all of them resident. Takes some milliseconds for a heap of 100 MB.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
