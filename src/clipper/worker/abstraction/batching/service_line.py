"""The expected service time of a batch: a fixed time plus a time per row, fitted to the latest batches."""

# How much of the past remains with each new batch: the line rests on about the last 64. These average out noise, and
# still follow a change of speed within a second of full batches.
_KEPT = 1 - 1 / 64

# The fixed and the per-row time are only told apart if the sizes have this relative spread (standard deviation over
# mean). Below it, noise of 10 % in the times makes the slope worthless.
LEAST_SPREAD = 0.1

# Fewer batches than this say nothing about the slope: two points always lie on a line.
_LEAST_BATCHES = 6

# The line is fitted after each of the first batches, and later after every fourth: a batch moves it little.
_FIRST_BATCHES = 64
_FIT_EVERY = 4

# How far a batch moves the spread, which rests on about a hundred batches, ten of them above it.
_SPREAD_GAIN = 0.1
_SHARE_ABOVE = 0.1
_SPREAD_UP, _SPREAD_DOWN = 1 + _SPREAD_GAIN * (1 - _SHARE_ABOVE), 1 - _SPREAD_GAIN * _SHARE_ABOVE
# A larger spread is a change of speed.
_MOST_SPREAD = 1.6

# A batch must take at least this many times the fixed time to be worth sending; see ``target_s``.
FIXED_TIMES = 1.5


class ServiceLine:
    """Least squares over exponentially weighted batches, in constant time and space.

    The line is the expected time, not a high quantile. An outlier moves it little, since each batch weighs 1/64.

    Attributes:
        spread: nine of ten batches take at most this many times their expected time.
        is_known: whether the sizes have varied enough since the last reset to tell the two terms apart.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches, as after a change of the replica's speed."""
        self.is_known = False
        self.spread = 1.0
        self._batches = 0
        self._fixed_s = self._row_s = self._known_fixed_s = 0.0
        self._weight = self._size = self._service = self._size_size = self._size_service = 0.0

    def add(self, size: int, service_s: float) -> None:
        self._batches += 1
        self._weight = self._weight * _KEPT + 1.0
        self._size = self._size * _KEPT + size
        self._service = self._service * _KEPT + service_s
        self._size_size = self._size_size * _KEPT + size * size
        self._size_service = self._size_service * _KEPT + size * service_s
        if self._batches % _FIT_EVERY == 0 or self._batches < _FIRST_BATCHES:
            self._fit()

    def compare(self, size: int, service_s: float) -> None:
        """Move the spread by a batch: up a little if the batch was above it, else down by a ninth of that."""
        is_above = service_s > self.spread * (self._fixed_s + self._row_s * size)
        moved = self.spread * (_SPREAD_UP if is_above else _SPREAD_DOWN)
        self.spread = min(moved, _MOST_SPREAD) if moved > 1.0 else 1.0

    def terms(self) -> tuple[float, float]:
        """Return the fixed time and the time per row, in seconds, both at least 0.

        While the sizes are too much alike to tell the two apart, the fixed time is the last that was known: steady
        sizes hide it. If none is known, all of the time counts as per row, which overestimates larger batches.
        """
        return self._fixed_s, self._row_s

    def _fit(self) -> None:
        size = self._size / self._weight
        service_s = self._service / self._weight
        variance = self._size_size / self._weight - size * size
        if self._batches >= _LEAST_BATCHES and variance >= (LEAST_SPREAD * size) ** 2:
            slope_s = (self._size_service / self._weight - size * service_s) / variance
            self._known_fixed_s = max(service_s - max(slope_s, 0.0) * size, 0.0)
            self.is_known = True
        self._fixed_s = min(self._known_fixed_s, service_s)
        self._row_s = (service_s - self._fixed_s) / size

    def target_s(self, budget_s: float) -> float:
        """Return the time that a batch may take: the budget, or more if even the smallest batches come near it.

        If the fixed time alone exceeds the budget, no limit meets it, and a limit of 1 is the worst of all: it saves
        little time and answers the fewest queries. A target of 1.5 times the fixed time gives batches with half as much
        work as overhead, which reach a third of the maximum throughput. The fixed time is that of slow batches, which
        nine of ten stay within. Otherwise noise alone would cause misses and drive the limit to 1, for no gain in
        speed.
        """
        return max(budget_s, FIXED_TIMES * self._fixed_s * self.spread)

    def at(self, size: int) -> float:
        """Return the expected time of a batch of ``size`` rows, in seconds; 0 while nothing is known."""
        return self._fixed_s + self._row_s * size
