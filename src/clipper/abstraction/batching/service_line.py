"""What batches are expected to take: a fixed time plus a time per row, fitted to the latest ones."""

# How much of the past stays with each new batch: the line rests on the last 64 or so. Enough to average
# noise out, little enough to follow a change of speed within a second of full batches.
_KEPT = 1 - 1 / 64

# Least relative spread (standard deviation over mean) of the sizes for the two terms to be told apart.
# Below it, noise of 10 % in the times makes the slope worthless.
LEAST_SPREAD = 0.1

# Fewer batches than this say nothing about the slope: two points always lie on a line, noise or not.
_LEAST_BATCHES = 6

# The line is fitted anew with each of so many batches, and then with every fourth: one of them moves it little.
_FIRST_BATCHES = 64
_FIT_EVERY = 4

# How far one batch moves the spread: it rests on some hundred, of which ten are above it.
_SPREAD_GAIN = 0.1
_SHARE_ABOVE = 0.1
_SPREAD_UP, _SPREAD_DOWN = 1 + _SPREAD_GAIN * (1 - _SHARE_ABOVE), 1 - _SPREAD_GAIN * _SHARE_ABOVE
# Beyond this it is no spread but another speed.
_MOST_SPREAD = 1.6

# Batches that take less than this many times the fixed time are not worth having; see ``target_s``.
FIXED_TIMES = 1.5


class ServiceLine:
    """Least squares over exponentially weighted batches, in constant time and space.

    Gives the expected time, not a high quantile. An outlier moves it little, since each batch weighs 1/64.

    Attributes:
        spread: nine of ten batches take at most so many times what is expected of them.
        is_known: whether the sizes were ever different enough to tell the two terms apart, since the last reset.
    """

    __slots__ = (
        "_batches",
        "_fixed_s",
        "_known_fixed_s",
        "_row_s",
        "_service",
        "_size",
        "_size_service",
        "_size_size",
        "_weight",
        "is_known",
        "spread",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches: the replica's speed has changed."""
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
        """Follow the spread by one more batch: up a little if it was above, down by a ninth of that if not."""
        is_above = service_s > self.spread * (self._fixed_s + self._row_s * size)
        moved = self.spread * (_SPREAD_UP if is_above else _SPREAD_DOWN)
        self.spread = min(moved, _MOST_SPREAD) if moved > 1.0 else 1.0

    def terms(self) -> tuple[float, float]:
        """The fixed time and the time per row, in seconds, both at least 0.

        While the sizes are too much alike to tell the two apart, the fixed time is the last one known: sizes that hold
        steady hide it. If none is known, all of the time counts as per row, which overstates what larger batches take.
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
        """What a batch may take: the budget, or more if even the smallest batches come near to it.

        Where the fixed time alone eats the budget no limit can meet it, and a limit of 1 is the worst of all:
        it saves little time and serves the fewest. A target of 1.5 times the fixed time keeps batches of half
        as much work as overhead, a third of the highest throughput there is. Both are of slow batches, nine of ten
        being faster: else noise alone makes batches miss, and the limit falls to 1 though that makes none fast.
        """
        return max(budget_s, FIXED_TIMES * self._fixed_s * self.spread)

    def at(self, size: int) -> float:
        """What a batch of ``size`` rows is expected to take, in seconds; 0 while nothing is known."""
        return self._fixed_s + self._row_s * size
