"""Splits a query's deadline among the steps of a pipeline by what they have taken lately.

When a step is asked, it gets the time that is left, less the time of the longest path of steps that follow::

    deadline(step) = deadline - follow(step),  follow(step) = max over followers f of (slow(f) + follow(f))

``slow`` is a high quantile of the times that the step's latest answers took. They include the wait in its queues, so it
grows with the load there; and all that a step does not use goes to those after it, since each split begins anew. If the
time is too short for that, each step gets what its fastest answer took lately, and the rest is shared in proportion: a
step is never left with a part that it cannot meet because others are slow (after InferLine, SoCC 2020, and Nexus, SOSP
2019, which split an SLO by profiles, before queries come). Of the first query, before anything is known, each step gets
an equal part.

A query of which even the fastest answers leave no hope is not asked any more. Such a judgement keeps queries from the
steps that it is about, so it must not last by itself: one query in twenty is a probe, which every step is asked for,
and what is known of a step that nothing reaches is forgotten.
"""

from collections import deque
from collections.abc import Sequence
from math import inf

# The latest answers of a step that count, and for how long: enough for a quantile, and forgotten soon after the load
# has changed. The last few count however old they are, so that a step that is asked rarely is known, too.
ANSWERS, LEAST_ANSWERS = 64, 8
LATELY_S = 2.0
# One answer in twenty takes longer than the slow time.
SLOW = 0.95
# The quantiles are computed anew after this time at the earliest: sorting a step's answers takes 3 us.
FRESH_S = 0.01
# One query in so many is a probe. After as many that did not reach a step, and the time above, what was known of it is
# forgotten: 20 queries rather than time alone, so that a pipeline that is asked once a minute is known, too.
PROBE_EVERY = 20
# A last step's deadline is before the query's by this share of its time, 1 ms at most: its answer, or its default, is
# taken before the query is over.
END_SHARE, MAX_END_S = 0.02, 0.001


class _Times:
    """The latest times of a step. They are 0 as long as nothing is known."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, float]] = deque(maxlen=ANSWERS)
        # The fastest of the last two spans of time that answers came in, and when the later one ends.
        self._fastest_s, self._fastest_before_s, self._span_ends_s = inf, inf, 0.0
        # When the last answer came, and how many queries had been asked for by then.
        self._last_s, self._asked = 0.0, 0
        self.slow_s = self.quick_s = 0.0

    def add(self, now_s: float, took_s: float, asked: int, is_late: bool) -> None:
        self._taken.append((now_s, took_s))
        self._last_s, self._asked = now_s, asked
        if now_s >= self._span_ends_s:
            self._next_span(now_s)
        if not is_late:
            self._fastest_s = min(self._fastest_s, took_s)

    def _next_span(self, now_s: float) -> None:
        self._fastest_before_s = self._fastest_s if now_s < self._span_ends_s + LATELY_S else inf
        self._fastest_s, self._span_ends_s = inf, now_s + LATELY_S

    def refresh(self, now_s: float, asked: int) -> None:
        taken = self._taken
        if now_s >= self._span_ends_s:
            self._next_span(now_s)
        if now_s > self._last_s + LATELY_S and asked >= self._asked + PROBE_EVERY:
            taken.clear()
            self._fastest_s = self._fastest_before_s = inf
        while len(taken) > LEAST_ANSWERS and taken[0][0] < now_s - LATELY_S:
            taken.popleft()
        ranked = sorted(took_s for _, took_s in taken)
        self.slow_s = ranked[int(SLOW * len(ranked))] if ranked else 0.0
        fastest_s = min(self._fastest_s, self._fastest_before_s)
        self.quick_s = fastest_s if fastest_s < inf else ranked[0] if ranked else 0.0


class StepTimes:
    """The times of a pipeline's steps, by their places."""

    def __init__(self, followers: Sequence[Sequence[int]]) -> None:
        """``followers``: by place, the places of the steps that need its output, which are all after it."""
        self._followers = followers
        self._times = [_Times() for _ in followers]
        # By place, the slow and the quick time of the longest path that follows, and how many steps of a path have not
        # answered yet.
        self._after = [(0.0, 0.0, 0) for _ in followers]
        self._fresh_until_s = 0.0
        self._asked = 0

    def begin(self) -> bool:
        """Count a query that begins, and return whether it is a probe: each step is asked for it, whatever is known."""
        self._asked += 1
        return self._asked % PROBE_EVERY == 0

    def took(self, place: int, now_s: float, took_s: float, is_late: bool = False) -> None:
        """Learn how long a step took to answer; also how long one took that was late, which is at least its time."""
        self._times[place].add(now_s, took_s, self._asked, is_late)

    def deadline_s(self, place: int, now_s: float, deadline_s: float, is_probe: bool = False) -> float | None:
        """Return the deadline of a step that is asked now; None if the query cannot be answered by its deadline.

        It is after ``now_s``, and before ``deadline_s``, the query's.

        Args:
            is_probe: as ``begin`` said.
        """
        if now_s >= self._fresh_until_s:
            self._refresh(now_s)
        left_s = deadline_s - now_s
        left_s -= min(left_s * END_SHARE, MAX_END_S)
        if left_s <= 0.0:
            return None
        own, (after_s, quick_after_s, unknown) = self._times[place], self._after[place]
        spare_s = left_s - own.quick_s - quick_after_s
        if spare_s <= 0.0 and not is_probe:
            return None
        needed_s = own.slow_s + after_s
        if needed_s > left_s:
            if spare_s <= 0.0:
                return now_s + left_s
            return now_s + (own.quick_s + spare_s * own.slow_s / needed_s if own.slow_s else 0.5 * left_s)
        return now_s + (left_s - after_s if own.slow_s else (left_s - after_s) / (1 + unknown))

    def _refresh(self, now_s: float) -> None:
        self._fresh_until_s = now_s + FRESH_S
        times, after = self._times, self._after
        for each in times:
            each.refresh(now_s, self._asked)
        for place in reversed(range(len(times))):
            paths = [
                (
                    times[each].slow_s + after[each][0],
                    times[each].quick_s + after[each][1],
                    after[each][2] + (not times[each].slow_s),
                )
                for each in self._followers[place]
            ]
            slow, quick, unknown = zip(*paths) if paths else ((0.0,), (0.0,), (0,))
            after[place] = max(slow), max(quick), max(unknown)
