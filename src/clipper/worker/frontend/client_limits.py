"""Limits on clients: queries in flight, and queries a second. The time comes in as an argument."""

import math

from clipper.errors import TooLarge, TooManyRequests

# An excess this small is a rounding error of many sums of fractions.
_PRECISION = 1e-6


class Limit:
    """The limits of an application or a key, and how much of them is in use.

    The rate is a token bucket: it holds the tokens of a second, at least one token, and starts full. So at most
    ``max_per_second * (t + 1)`` queries are admitted in any ``t`` seconds.

    Attributes:
        in_flight: queries that were admitted and are not answered yet.
        refused: number of requests that were refused.
    """

    __slots__ = ("_burst", "_last_s", "_tokens", "_what", "in_flight", "max_in_flight", "max_per_second", "refused")

    def __init__(self, what: str, max_in_flight: int | None, max_per_second: float | None, now_s: float) -> None:
        """``what``: the owner of the limits, for messages: ``key 'a'``."""
        self._what = what
        self.max_in_flight = max_in_flight
        self.max_per_second = max_per_second
        self.in_flight = 0
        self.refused = 0
        self._tokens = self._burst = _burst(max_per_second)
        self._last_s = now_s

    def follow(self, max_in_flight: int | None, max_per_second: float | None, now_s: float) -> None:
        """Use other limits from now on. Queries in flight still count."""
        self._refill(now_s)
        had_rate = self.max_per_second is not None
        self.max_in_flight, self.max_per_second = max_in_flight, max_per_second
        self._burst = _burst(max_per_second)
        self._tokens = min(self._tokens, self._burst) if had_rate else self._burst

    def check(self, count: int, now_s: float, admitted: int = 0) -> None:
        """Check that a request may have ``count`` more queries, in addition to ``admitted`` ones.

        Raises TooLarge if the request has more queries than are ever admitted at once, and TooManyRequests if the limit
        is used up for now.
        """
        most_in_flight, most_per_second = self.max_in_flight, self.max_per_second
        if most_in_flight is not None and admitted + count > most_in_flight:
            raise self._too_large(admitted + count, most_in_flight, "in flight")
        if most_per_second is not None and admitted + count > self._burst:
            raise self._too_large(admitted + count, int(self._burst), "in a second")
        if most_in_flight is not None and self.in_flight + count > most_in_flight:
            raise TooManyRequests(
                f"{self._what} may have {most_in_flight} queries in flight, and has {self.in_flight}: try again in 1 s"
            )
        if most_per_second is not None:
            self._refill(now_s)
            if self._tokens + _PRECISION < count:
                wait_s = max(1, math.ceil((count - self._tokens) / most_per_second - _PRECISION))
                raise TooManyRequests(
                    f"{self._what} may send {most_per_second:g} queries a second: try again in {wait_s} s", wait_s
                )

    def take_one(self, now_s: float) -> bool:
        """Admit a query, or return False. The same as ``check`` and ``take`` of one query, at a third of their cost."""
        most_in_flight, most_per_second = self.max_in_flight, self.max_per_second
        if most_in_flight is not None and self.in_flight >= most_in_flight:
            return False
        if most_per_second is not None:
            tokens, past_s = self._tokens, now_s - self._last_s
            if past_s > 0:
                self._last_s = now_s
                tokens += past_s * most_per_second
                if tokens > self._burst:
                    tokens = self._burst
            if tokens + _PRECISION < 1:
                self._tokens = tokens
                return False
            self._tokens = tokens - 1
        self.in_flight += 1
        return True

    def untake_one(self) -> None:
        """Undo ``take_one``: another limit refused the query."""
        self.in_flight -= 1
        if self.max_per_second is not None:
            self._tokens += 1

    def take(self, count: int) -> None:
        """Admit queries that were checked."""
        self.in_flight += count
        if self.max_per_second is not None:
            self._tokens -= count

    def _refill(self, now_s: float) -> None:
        # A request that took long to read may have an earlier time than the last.
        if now_s > self._last_s:
            if self.max_per_second is not None:
                tokens = self._tokens + (now_s - self._last_s) * self.max_per_second
                self._tokens = tokens if tokens < self._burst else self._burst
            self._last_s = now_s

    def _too_large(self, count: int, most: int, when: str) -> TooLarge:
        return TooLarge(f"the request has {count} queries, and {self._what} may have {most} {when}: send fewer at once")


def _burst(max_per_second: float | None) -> float:
    return 0.0 if max_per_second is None else max(max_per_second, 1.0)


class Limits:
    """The limits of a client's requests to an application: the key's, the application's, or both."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Limit, second: Limit | None = None) -> None:
        self._first = first
        self._second = second

    def admit_one(self, now_s: float) -> None:
        """Admit a query: at first, each request counts as one. Raises TooManyRequests like ``Limit.check``."""
        if self._first.take_one(now_s):
            if self._second is None or self._second.take_one(now_s):
                return
            self._first.untake_one()
        # This raises the error of the limit that refused.
        self.admit(1, now_s)

    def admit(self, count: int, now_s: float, admitted: int = 0) -> None:
        """Admit ``count`` queries at once, after ``admitted`` ones of the request. Raises as ``Limit.check``."""
        both = (self._first,) if self._second is None else (self._first, self._second)
        for limit in both:
            try:
                limit.check(count, now_s, admitted)
            except (TooLarge, TooManyRequests):
                limit.refused += 1
                raise
        for limit in both:
            limit.take(count)

    def give_back(self, count: int) -> None:
        """Release queries that were answered or cancelled."""
        self._first.in_flight -= count
        if self._second is not None:
            self._second.in_flight -= count


def share_in_flight(most: int | None, workers: int, index: int) -> int | None:
    """Return a worker's share of the queries in flight: an equal share, and at least one."""
    return None if most is None else max(1, most // workers + (index < most % workers))


def share_per_second(most: float | None, workers: int) -> float | None:
    return None if most is None else most / workers
