"""Memory that stays for the next large batch. The kernel clears new pages, and that takes as long as to fill them."""

import weakref
from collections.abc import Callable

import numpy as np

from clipper.model.model import Array

# malloc gives allocations over 32 MiB back to the kernel at once: as much as two of these is kept for smaller ones.
MOST_KEPT_BYTES = 64 * 1024 * 1024


class KeptMemory:
    """Lends memory for one batch after another: the same one again, once nothing refers to it.

    It belongs to one thread.
    """

    def __init__(self) -> None:
        self._memory: Array | None = None
        self._lent: Callable[[], object] = lambda: None

    def lend(self, size_bytes: int) -> memoryview:
        """Return so much memory with any content. A caller may keep it, or a part of it."""
        memory = self._memory
        if memory is None or len(memory) < size_bytes or self._lent() is not None:
            memory = np.empty(size_bytes, np.uint8)
        lent = memory[:size_bytes]
        if size_bytes <= MOST_KEPT_BYTES:
            self._memory, self._lent = memory, weakref.ref(lent)
        # Views of the view refer to it, while arrays of an array refer to the memory.
        return lent.data
