"""How long versions take to answer an application's queries: what tells whether there is time to ask one.

It is learned from the queries that asked it. So a version that was slow would never be asked again: hence one query
now and then asks it without there being time, ever more rarely while that finds nothing new.
"""

from collections import deque
from collections.abc import Collection

# The last answers that it is learned from, and the share of them that came within it: 29 of 32. So a version that has
# become slow is known to be after a handful.
ANSWERS = 32
WITHIN = 0.9
# One that missed the deadline counts as if it had come after this many times the wait: most that come late, do.
MISSED_TIMES = 2.0
# Queries for which there was no time, until one of them tries; twice as many each time, up to the most.
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
    """Of one application in one worker. Versions are named as states name them; there are as many as it asks."""

    def __init__(self) -> None:
        self._versions: dict[str, _Version] = {}

    def expected_s(self, key: str) -> float:
        """Within what nine of ten of its last answers came; 0 if none has."""
        version = self._versions.get(key)
        if version is None:
            return 0.0
        if version.expected_s is None:
            ranked = sorted(version.recent_s)
            version.expected_s = ranked[int(WITHIN * len(ranked))]
        return version.expected_s

    def promise_s(self, key: str, left_s: float) -> float:
        """The same for a query that has ``left_s``, counting those that have too little; 0 for one that may try."""
        expected_s = self.expected_s(key)
        if expected_s < left_s:
            return expected_s
        version = self._versions.setdefault(key, _Version())
        version.passed += 1
        return expected_s if version.passed < version.try_after else 0.0

    def asked(self, key: str) -> None:
        """A query asks it. Was that a try, it is long until the next one."""
        version = self._versions.setdefault(key, _Version())
        if version.passed >= version.try_after:
            version.passed = 0
            version.try_after = min(2 * version.try_after, MOST_TRY)

    def answered(self, key: str, took_s: float) -> None:
        """It has answered, whether that was in time or not."""
        version = self._versions.setdefault(key, _Version())
        if version.try_after > FIRST_TRY and took_s < self.expected_s(key) / 2:
            # One that tried found it fast again: what was before says nothing.
            version.recent_s.clear()
            version.try_after = FIRST_TRY
        version.keep(took_s)

    def missed(self, key: str, waited_s: float) -> None:
        """It had not, in this time."""
        self._versions.setdefault(key, _Version()).keep(MISSED_TIMES * waited_s)

    def follow(self, keys: Collection[str]) -> None:
        """Forget all others: versions that are asked no more."""
        self._versions = {key: version for key, version in self._versions.items() if key in keys}
