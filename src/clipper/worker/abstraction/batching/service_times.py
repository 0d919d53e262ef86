"""The service times of a replica's batches, learned from each batch that comes back, with exponential forgetting.

The model of the time of a batch of ``n`` rows and ``m`` bytes is

    (fixed + per_row × n + per_byte × m) × ratio

The first factor is a least-squares fit of relative errors over past batches; each batch weighs ``KEPT`` times the next.
The ratio is the observed time over the fitted time. Ratios are kept separately for batches of about the same size, so
they describe both the spread of the times and how the sizes depart from a straight line. Five quantiles represent them.
"""

from collections import deque

# The fit rests on about the last forty batches. More would average out more noise; fewer would follow a drift sooner.
KEPT = 0.975
# Number of ratios kept for each size. A tenth of them lies beyond each outer quantile.
RATIOS = 32
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
# With fewer ratios than this for a size, the ratios of the nearest size are used.
LEAST_RATIOS = 4
# While only one size is known, the fixed part of the time is unknown. Most of the time must be fixed, or batching would
# be useless. If that guess is wrong, ``MAX_GROWTH`` bounds its cost, and the next batch corrects it.
GUESSED_FIXED_SHARE = 0.9
# A batch may be this many times larger than any so far, so a wrong guess of the slope costs at most this factor.
MAX_GROWTH = 32
# This many batches in a row beyond all others by this factor mean that the replica's speed has changed.
CHANGE_RUN = 3
CHANGE_TIMES = 2.0
# Weight of the old fit after a change of speed: its shape remains plausible, its level is soon replaced.
KEPT_AFTER_CHANGE = 0.2
# A batch of a known size counts as at most this many times its expected time: a stall says nothing about the model.
MOST_TIMES = 4.0
# A coarse clock may read 0, over which no ratio is defined.
LEAST_S = 1e-7


class ServiceTimes:
    """The service times of a replica's batches, in seconds.

    Attributes:
        fixed_s, per_row_s, per_byte_s: the fit; all 0 while nothing is known.
        one_row_s: the median time of a batch of one row; cached, since each query reads it.
        largest, largest_bytes: rows and bytes of the largest batches so far.
    """

    def __init__(self) -> None:
        # Whether any batch came with its bytes: only then does the fit use bytes.
        self._is_sized = False
        # Weighted sums of 1, n, m, n², nm, m², t, nt, mt.
        self._sums = [0.0] * 9
        self._ratios: dict[int, deque[float]] = {}
        self._quantiles: dict[int, tuple[float, ...]] = {}
        # By rows, until something is learned: most batches have one of a few sizes.
        self._outlooks: dict[int, tuple[float, float, float]] = {}
        # Batches that may show a change of speed and are not learned yet: rows, bytes, seconds.
        self._run: list[tuple[int, int, float]] = []
        self.fixed_s = self.per_row_s = self.per_byte_s = self.one_row_s = 0.0
        self.is_known = False
        self.largest = self.largest_bytes = 0

    def mean_s(self, rows: float, size_bytes: float = 0.0) -> float:
        """Return the fitted time of a batch."""
        if not self.per_byte_s:
            return self.fixed_s + self.per_row_s * rows
        return self.fixed_s + self.per_row_s * rows + self.per_byte_s * min(size_bytes, self.most_bytes())

    def ratios(self, rows: int) -> tuple[float, ...]:
        """Return five equally likely ratios for batches of about this size, ascending."""
        known = self._quantiles
        size = rows.bit_length()
        found = known.get(size)
        if found is None:
            found = known[min(known, key=lambda other: abs(other - size))] if known else (1.0,) * len(QUANTILES)
        return found

    def outlook(self, rows: int, size_bytes: float = 0.0) -> tuple[float, float, float]:
        """Return the fitted time of a batch, the time that half of such batches stay within, and ``slow_s``."""
        found = None if size_bytes else self._outlooks.get(rows)
        if found is None:
            mean_s, ratios = self.mean_s(rows, size_bytes), self.ratios(rows)
            found = mean_s, mean_s * ratios[len(QUANTILES) // 2], mean_s * ratios[-1]
            if not size_bytes:
                self._outlooks[rows] = found
        return found

    def slow_s(self, rows: int, size_bytes: float = 0.0) -> float:
        """Return the time that nine of ten such batches stay within."""
        return self.mean_s(rows, size_bytes) * self.ratios(rows)[-1]

    def sure_times(self, rows: int) -> float:
        """Return how many times as long as expected such a batch surely takes at most."""
        ratios = self.ratios(rows)
        return max(2 * ratios[-1] - ratios[-2], LEAST_S)

    def most_bytes(self) -> float:
        """Return the bytes up to which the fit is used. A larger batch is assumed to be no slower, so it is tried."""
        return float(self.largest_bytes * MAX_GROWTH)

    def rows_within(self, budget_s: float, row_bytes: float = 0.0) -> float:
        """Return how many rows of ``row_bytes`` bytes are expected to fit into the budget; 0 if not even one does."""
        per_row_s = self.per_row_s + self.per_byte_s * row_bytes
        # A few stalls change the median less than the mean.
        spare_s = budget_s / self.ratios(max(1, self.largest))[len(QUANTILES) // 2] - self.fixed_s
        # A budget for exactly one row is often the rounded sum of these two terms.
        if spare_s < per_row_s * (1 - 1e-9) or spare_s < 0:
            return 0.0
        return min(max(spare_s / per_row_s, 1.0), 1e9) if per_row_s > 0 else 1e9

    def record(self, rows: int, size_bytes: int, took_s: float) -> None:
        """Learn from a batch that came back. ``size_bytes`` may be 0 as long as all rows have one length."""
        if size_bytes and not self._is_sized:
            self._is_sized = True
            self._sums = [0.0] * 9
            # The bytes of these batches are unknown as well.
            self._run = []
        took_s = max(took_s, LEAST_S)
        self.largest = max(self.largest, rows)
        self.largest_bytes = max(self.largest_bytes, size_bytes)
        if not self.is_known:
            self.is_known = True
            self._learn(rows, size_bytes, took_s)
            return
        # Batches that may show a new speed are learned once it is clear whether they do: before, they would spoil
        # the fit.
        run = [*self._run, (rows, size_bytes, took_s)]
        if self._is_beyond(rows, took_s / max(self.mean_s(rows, size_bytes), LEAST_S)):
            if len(run) < CHANGE_RUN:
                self._run = run
                return
            changes = sorted(took / max(self.mean_s(n, m), LEAST_S) for n, m, took in run)
            self.rescale(changes[CHANGE_RUN // 2])
        self._run = []
        for batch in run:
            self._learn(*batch)

    def adopt(self, other: "ServiceTimes") -> None:
        """Start from the times of another replica of the version, until this one's own batches outweigh them."""
        self._sums = [value * KEPT_AFTER_CHANGE for value in other._sums]
        self._is_sized = other._is_sized
        self.fixed_s, self.per_row_s, self.per_byte_s = other.fixed_s, other.per_row_s, other.per_byte_s
        self.is_known, self.largest, self.largest_bytes = other.is_known, other.largest, other.largest_bytes
        self._look_again()

    def _is_beyond(self, rows: int, ratio: float) -> bool:
        """Whether a batch took far more or far less than all others, in the same direction as those just before it."""
        if not self._quantiles:
            return False
        quantiles = self.ratios(rows)
        is_slow, is_fast = ratio > CHANGE_TIMES * quantiles[-1], ratio * CHANGE_TIMES < quantiles[0]
        if self._run and is_slow != (self._run[-1][2] > self.mean_s(*self._run[-1][:2])):
            return False
        return is_slow or is_fast

    def _learn(self, rows: int, size_bytes: int, took_s: float) -> None:
        # Weigh by the expected time, not by the observed one: else fast batches of a wide spread outweigh slow ones.
        expected_s = self.mean_s(rows, size_bytes) or took_s
        most_s = MOST_TIMES * expected_s if rows.bit_length() in self._quantiles else took_s
        self._add(rows, size_bytes, min(took_s, most_s), 1 / (expected_s * expected_s))
        self._fit()
        self._keep_ratio(rows, took_s / max(self.mean_s(rows, size_bytes), LEAST_S))
        self._look_again()

    def rescale(self, times: float) -> None:
        """Set a new speed, ``times`` the old service times: keep the fit's shape and replace its level."""
        self._run.clear()
        times = max(times, LEAST_S)
        weight = KEPT_AFTER_CHANGE / (times * times)
        self._sums = [value * weight for value in self._sums[:6]] + [value * weight * times for value in self._sums[6:]]
        self.fixed_s *= times
        self.per_row_s *= times
        self.per_byte_s *= times
        self._ratios.clear()
        self._quantiles.clear()
        self._look_again()

    def _look_again(self) -> None:
        self._outlooks.clear()
        self.one_row_s = self.outlook(1)[1]

    def _add(self, rows: int, size_bytes: int, took_s: float, weight: float) -> None:
        n, m = float(rows), float(size_bytes)
        s = self._sums
        s[0] = s[0] * KEPT + weight
        s[1] = s[1] * KEPT + weight * n
        s[3] = s[3] * KEPT + weight * n * n
        s[6] = s[6] * KEPT + weight * took_s
        s[7] = s[7] * KEPT + weight * n * took_s
        if self._is_sized:
            s[2] = s[2] * KEPT + weight * m
            s[4] = s[4] * KEPT + weight * n * m
            s[5] = s[5] * KEPT + weight * m * m
            s[8] = s[8] * KEPT + weight * m * took_s

    def _fit(self) -> None:
        one, n, m, nn, nm, mm, t, nt, mt = self._sums
        mean_n, mean_t = n / one, t / one
        var_n = nn / one - mean_n * mean_n
        cov_nt = nt / one - mean_n * mean_t
        if not self._is_sized:
            self._set(cov_nt / var_n if var_n > 1e-4 * mean_n * mean_n else None, 0.0, mean_n, 0.0, mean_t)
            return
        mean_m = m / one
        var_m, cov_nm, cov_mt = mm / one - mean_m * mean_m, nm / one - mean_n * mean_m, mt / one - mean_m * mean_t
        # A little ridge: rows and bytes often grow together, and then either may explain the time.
        var_n += 1e-4 * mean_n * mean_n
        var_m += 1e-4 * mean_m * mean_m
        determinant = var_n * var_m - cov_nm * cov_nm
        if determinant <= 0:  # no recent batch had a byte, as with empty strings
            self._set(cov_nt / var_n, 0.0, mean_n, 0.0, mean_t)
            return
        per_row_s = (cov_nt * var_m - cov_mt * cov_nm) / determinant
        per_byte_s = (cov_mt * var_n - cov_nt * cov_nm) / determinant
        if per_row_s < 0:
            per_row_s, per_byte_s = 0.0, cov_mt / var_m
        elif per_byte_s < 0:
            per_row_s, per_byte_s = cov_nt / var_n, 0.0
        self._set(per_row_s, max(per_byte_s, 0.0), mean_n, mean_m, mean_t)

    def _set(self, per_row_s: float | None, per_byte_s: float, rows: float, size_bytes: float, took_s: float) -> None:
        """Set the slopes, scaled down if the fixed time would be negative."""
        if per_row_s is None:
            # Only one size. If sizes could be told apart before, keep the proportion from then.
            known_s = self.fixed_s + self.per_row_s * rows
            share = self.fixed_s / known_s if known_s > 0 and self.largest > rows else GUESSED_FIXED_SHARE
            self.fixed_s, self.per_row_s = took_s * share, took_s * (1 - share) / rows
            return
        per_row_s = max(per_row_s, 0.0)
        variable_s = per_row_s * rows + per_byte_s * size_bytes
        scale = min(1.0, took_s / variable_s) if variable_s > 0 else 1.0
        self.per_row_s, self.per_byte_s = per_row_s * scale, per_byte_s * scale
        self.fixed_s = max(took_s - variable_s * scale, 0.0)

    def _keep_ratio(self, rows: int, ratio: float) -> None:
        size = rows.bit_length()
        ratios = self._ratios.get(size)
        if ratios is None:
            ratios = self._ratios[size] = deque(maxlen=RATIOS)
        ratios.append(ratio)
        if len(ratios) >= LEAST_RATIOS:
            ranked = sorted(ratios)
            self._quantiles[size] = tuple(ranked[int(share * len(ranked))] for share in QUANTILES)
