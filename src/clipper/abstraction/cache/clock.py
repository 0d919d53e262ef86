"""An exact prediction cache with CLOCK eviction, bounded in bytes, that joins equal inputs in flight.

CLOCK (Corbató 1968) approximates LRU with one reference bit an entry: a hand goes round the entries; one whose
bit is set gets a second chance and loses the bit, one without it is evicted. Here the ring is a queue whose head is
under the hand, which is the same order.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from clipper.abstraction.work import Work

# What an entry costs beside its input and output: the Work, two bytes objects' headers, a dict slot, a ring slot.
ENTRY_OVERHEAD_BYTES = 320
# An entry over this share of the cache would push out too much of the rest to be worth its place.
MAX_ENTRY_SHARE = 8
# Python's own hash of bytes takes 2 us for 784 float64 and 60 us for a picture of 150 KB; this one a seventh or less.
HASHED_BYTES = 512


@dataclass(frozen=True, slots=True)
class ClockStatistics:
    entries: int
    size_bytes: int
    capacity_bytes: int
    evictions: int


class ClockCache:
    """The entries of all versions: one bound in bytes, one hand. Each version looks things up in a table of its own.

    A table finds a Work by (version, input) compared whole: dicts compare keys, not only hashes, and where the key
    is itself a hash the table compares inputs. Work in flight is in the table but not yet in the ring, and so is
    never evicted.

    Args:
        seed: of the hash, 64 bits. Those who do not know it cannot choose inputs that push each other out.
    """

    def __init__(self, capacity_bytes: int, seed: int = 0) -> None:
        self.capacity_bytes = capacity_bytes
        self.seed = seed
        self._ring: deque[Work] = deque()
        self._size_bytes = 0
        self._evictions = 0

    def table(self) -> "CacheTable":
        """A new, empty table for one version."""
        return CacheTable(self)

    def statistics(self) -> ClockStatistics:
        return ClockStatistics(len(self._ring), self._size_bytes, self.capacity_bytes, self._evictions)

    def admit(self, works: Iterable[Work]) -> None:
        """Keep finished work, evicting what there was until it fits; what is too large to keep is forgotten at once."""
        kept: list[Work] = []
        for work in works:
            if work.table is None:
                continue
            size = _size_bytes(work)
            if size * MAX_ENTRY_SHARE > self.capacity_bytes:
                work.table.forget(work)
            else:
                self._size_bytes += size
                kept.append(work)
        if self._size_bytes > self.capacity_bytes:
            self._evict()
        self._ring.extend(kept)
        if self._size_bytes > self.capacity_bytes:
            # Many large ones may not fit even by themselves.
            self._evict()

    def forget_closed(self) -> None:
        """Drop every entry whose table was closed."""
        self._ring = deque(work for work in self._ring if work.table is not None)
        self._size_bytes = sum(map(_size_bytes, self._ring))

    def _evict(self) -> None:
        """Advance the hand until the rest is within the bound."""
        ring, size_bytes = self._ring, self._size_bytes
        while size_bytes > self.capacity_bytes and ring:
            work = ring.popleft()
            if work.used:
                work.used = False
                ring.append(work)
            elif work.table is not None:
                work.table.forget(work)
                size_bytes -= _size_bytes(work)
                self._evictions += 1
        self._size_bytes = size_bytes


class CacheTable:
    """One version's entries. ``hits``, ``joins`` and ``misses`` count look-ups."""

    __slots__ = ("_cache", "_entries", "_seed", "hits", "joins", "misses")

    def __init__(self, cache: ClockCache) -> None:
        self._cache, self._seed = cache, cache.seed
        self._entries: dict[bytes | int, Work] = {}
        self.hits = self.joins = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def key_of(self, row: bytes) -> bytes | int:
        """What an input is found by: itself, or, if it is large, its hash; then the inputs are compared besides."""
        return row if len(row) < HASHED_BYTES else xxh3_64_intdigest(row, self._seed)

    def find(self, row: bytes, key: bytes | int) -> Work | None:
        """The entry for exactly this input, counted as a hit if it has its output and as a join if not."""
        work = self._entries.get(key)
        if work is None or (key is not row and work.row != row):
            self.misses += 1
            return None
        if work.output is None:
            self.joins += 1
        else:
            work.used = True
            self.hits += 1
        return work

    def peek(self, row: bytes) -> bytes | None:
        """The output for exactly this input, if it is there; counts nothing."""
        work = self._entries.get(self.key_of(row))
        return None if work is None or work.row != row else work.output

    def begin(self, work: Work) -> None:
        """After a miss: equal inputs join ``work`` from now on. Another input of the same hash is found no more."""
        work.table = self
        self._entries[work.key] = work

    def fulfil(self, works: Iterable[Work]) -> None:
        """All of these that are in the table have their outputs: keep them, as far as there is room."""
        self._cache.admit(works)

    def forget(self, work: Work) -> None:
        """``work`` has no output, or is evicted: the next equal input is a miss."""
        work.table = None
        if self._entries.get(work.key) is work:
            del self._entries[work.key]

    def close(self) -> None:
        """The version is gone: forget its entries. Work still in flight ends as if it had never been cached."""
        for work in self._entries.values():
            work.table = None
        self._entries.clear()
        self._cache.forget_closed()


def _size_bytes(work: Work) -> int:
    return len(work.row) + len(work.output or b"") + ENTRY_OVERHEAD_BYTES
