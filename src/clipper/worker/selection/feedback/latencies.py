"""Learns how long versions take to answer an application's queries, to tell whether there is time to ask a version.

It learns from the queries that asked a version. A version that was slow would then never be asked again, so now and
then a query asks it without enough time, ever more rarely while that finds nothing new.
"""

from collections import deque
from collections.abc import Collection

# The number of recent answers, and how many of them came within the expected time: 29 of 32. So a handful of answers
# shows that a version has become slow.
ANSWERS = 32
WITHIN = 0.9
# A version that missed the deadline counts as if it had answered after this many times the wait, as most late versions
# do.
MISSED_TIMES = 2.0
# The queries without enough time until one tries; twice as many each time, up to the largest number.
FIRST_TRY = 20
MOST_TRY = 1280


class _Version:
    __slots__ = ("expected_s", "passed", "recent_s", "try_after")

    def __init__(self) -> None:
        self.recent_s: deque[float] = deque(maxlen=ANSWERS)
        self.expected_s: float | None = 0.0
        self.passed = 0
        self.try_after = FIRST_TRY

    def keep(self, took_s: float) -> None:
        self.recent_s.append(took_s)
        self.expected_s = None


class Latencies:
    """The latencies of an application in a worker, by the versions' names in the state; a bounded number of them."""

    def __init__(self) -> None:
        self._versions: dict[str, _Version] = {}

    def expected_s(self, key: str) -> float:
        """Return the time within which nine of ten recent answers came; 0 if there was no answer."""
        version = self._versions.get(key)
        if version is None:
            return 0.0
        if version.expected_s is None:
            ranked = sorted(version.recent_s)
            version.expected_s = ranked[int(WITHIN * len(ranked))]
        return version.expected_s

    def promise_s(self, key: str, left_s: float) -> float:
        """Return ``expected_s``; 0 if a query with ``left_s`` may try nevertheless. Counts queries without time."""
        expected_s = self.expected_s(key)
        if expected_s < left_s:
            return expected_s
        version = self._versions.setdefault(key, _Version())
        version.passed += 1
        return expected_s if version.passed < version.try_after else 0.0

    def asked(self, key: str) -> None:
        """Note that a query asks the version. After a try, it takes longer until the next try."""
        version = self._versions.setdefault(key, _Version())
        if version.passed >= version.try_after:
            version.passed = 0
            version.try_after = min(2 * version.try_after, MOST_TRY)

    def answered(self, key: str, took_s: float) -> None:
        """Learn the time of an answer, whether it was in time or not."""
        version = self._versions.setdefault(key, _Version())
        if version.try_after > FIRST_TRY and took_s < self.expected_s(key) / 2:
            # A try found the version fast again, so earlier times say nothing.
            version.recent_s.clear()
            version.try_after = FIRST_TRY
        version.keep(took_s)

    def missed(self, key: str, waited_s: float) -> None:
        """Learn that a version had not answered within this time."""
        self._versions.setdefault(key, _Version()).keep(MISSED_TIMES * waited_s)

    def follow(self, keys: Collection[str]) -> None:
        """Forget all other versions, which are no longer asked."""
        self._versions = {key: version for key, version in self._versions.items() if key in keys}
