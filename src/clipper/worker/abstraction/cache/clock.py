"""An exact prediction cache with CLOCK eviction and a bound in bytes. Equal inputs in flight are evaluated once.

CLOCK (Corbató 1968) approximates LRU with one reference bit for each entry. A hand goes round the entries: an entry
whose bit is set loses the bit and stays; an entry without it is evicted. Here the ring is a queue whose head is under
the hand, which gives the same order.
"""

from collections import deque
from collections.abc import Iterable

from xxhash import xxh3_64_intdigest

from clipper.control.statistics import CacheStatistics
from clipper.values.outputs.output import Output
from clipper.worker.abstraction.work import Work

# The size of an entry without its input and output: the Work, the heads of two bytes objects, slots of dict and ring.
ENTRY_OVERHEAD_BYTES = 320
# An entry over one eighth of the cache would evict too many others to be worth its place.
MAX_ENTRY_SHARE = 8
# Python's own hash of bytes takes 2 us for 784 float64 and 60 us for an image of 150 KB; xxh3 takes a seventh or less.
HASHED_BYTES = 512


class ClockCache:
    """The entries of all versions, under one bound in bytes and one hand. Each version has a table for its look-ups.

    A table finds a Work by its version and its whole input. A dict compares keys, not only hashes; where the key is
    a hash itself, the table also compares the inputs. Work in flight is in a table but not in the ring, so it is never
    evicted.

    Args:
        capacity_bytes: the bound, including ``ENTRY_OVERHEAD_BYTES`` for each entry.
        seed: 64 bits for the hash. A client who does not know it cannot choose inputs that displace each other.
    """

    def __init__(self, capacity_bytes: int, seed: int = 0) -> None:
        self.capacity_bytes = capacity_bytes
        self.seed = seed
        self._ring: deque[Work] = deque()
        self._size_bytes = 0
        self._evictions = 0

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(len(self._ring), self._size_bytes, self.capacity_bytes, self._evictions)

    def admit(self, works: Iterable[Work]) -> None:
        """Keep finished work and evict other entries until all fit. Work that is too large is forgotten at once."""
        kept: list[Work] = []
        most_bytes, size_bytes = self.capacity_bytes // MAX_ENTRY_SHARE, self._size_bytes
        for work in works:
            if work.table is None:
                continue
            size = len(work.row) + len(work.output or b"") + ENTRY_OVERHEAD_BYTES
            if size > most_bytes:
                work.table.forget(work)
            else:
                size_bytes += size
                kept.append(work)
        self._size_bytes = size_bytes
        if self._size_bytes > self.capacity_bytes:
            self._evict()
        self._ring.extend(kept)
        if self._size_bytes > self.capacity_bytes:
            # Many large works may exceed the bound by themselves.
            self._evict()

    def forget_closed(self) -> None:
        """Drop the entries of closed tables."""
        self._ring = deque(work for work in self._ring if work.table is not None)
        self._size_bytes = sum(len(each.row) + len(each.output or b"") + ENTRY_OVERHEAD_BYTES for each in self._ring)

    def _evict(self) -> None:
        """Advance the hand until the entries are within the bound."""
        ring, size_bytes, most_bytes, evicted = self._ring, self._size_bytes, self.capacity_bytes, 0
        while size_bytes > most_bytes and ring:
            work = ring.popleft()
            if work.used:
                work.used = False
                ring.append(work)
            elif (table := work.table) is not None:
                table.forget(work)
                size_bytes -= len(work.row) + len(work.output or b"") + ENTRY_OVERHEAD_BYTES
                evicted += 1
        self._size_bytes = size_bytes
        self._evictions += evicted


class CacheTable:
    """The entries of a version.

    Attributes:
        entries: by key, its latest work. The caller enters new work here after a miss; from then on, equal inputs join
            it. It replaces another input with the same hash.
        hits, joins, misses: count look-ups.
    """

    __slots__ = ("_cache", "_seed", "entries", "hits", "joins", "misses")

    def __init__(self, cache: ClockCache) -> None:
        self._cache, self._seed = cache, cache.seed
        self.entries: dict[bytes | int, Work] = {}
        self.hits = self.joins = self.misses = 0

    def key_of(self, row: bytes) -> bytes | int:
        """Return the key of an input: the input itself, or its hash if it is large."""
        return row if len(row) < HASHED_BYTES else xxh3_64_intdigest(row, self._seed)

    def find(self, row: bytes, key: bytes | int) -> Work | None:
        """Return the entry of exactly this input. It counts as a hit if it has its output, else as a join."""
        work = self.entries.get(key)
        if work is None or (key is not row and work.row != row):
            self.misses += 1
            return None
        if work.output is None:
            self.joins += 1
        else:
            work.used = True
            self.hits += 1
        return work

    def peek(self, row: bytes) -> Output | None:
        """Return the output for exactly this input, or None. This does not count as a look-up."""
        work = self.entries.get(self.key_of(row))
        return None if work is None or work.row != row else work.output

    def fulfil(self, works: Iterable[Work]) -> None:
        """Keep the works that are in the table and now have their outputs, as far as they fit."""
        self._cache.admit(works)

    def forget(self, work: Work) -> None:
        """Drop ``work``, which has no output or was evicted: the next equal input is a miss."""
        work.table = None
        if self.entries.get(work.key) is work:
            del self.entries[work.key]

    def close(self) -> None:
        """Drop the entries of a removed version. Work in flight then ends as if it had never been cached."""
        for work in self.entries.values():
            work.table = None
        self.entries.clear()
        self._cache.forget_closed()
