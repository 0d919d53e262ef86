"""What a replica's batches take: learned from each that comes back, forgetting what is old.

The time of a batch of ``n`` rows and ``m`` bytes is taken to be

    (fixed + per_row × n + per_byte × m) × ratio

The first factor is a least-squares fit of the relative errors over past batches, each of which weighs ``KEPT`` of the
one after it. The ratio is the time seen over the time that the fit expects. Ratios are kept apart for batches of
about the same size: so they hold the spread of the times, and how sizes depart from a straight line. Five quantiles
stand for them.
"""

from collections import deque

# The fit rests on the last forty batches or so. More average more noise out, fewer follow a drift sooner.
KEPT = 0.975
# The ratios of a size that are kept. A tenth of them lie beyond the outer quantiles.
RATIOS = 32
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Fewer ratios than this say little of a size: its neighbours' are asked.
LEAST_RATIOS = 4
# While only one size is known it cannot be told what of the time is fixed. Most is, or batching would be of no use; if
# that is wrong ``MAX_GROWTH`` bounds what it costs, and the next batch tells.
GUESSED_FIXED_SHARE = 0.9
# How much larger than any seen a batch may be: a wrong guess of the slope makes it take so much longer at most.
MAX_GROWTH = 32
# This many batches in a row beyond all others by this factor mean that the replica has changed its speed.
CHANGE_RUN = 3
CHANGE_TIMES = 2.0
# Of the old fit after a change: its shape stays believable, its level is soon the new one's.
KEPT_AFTER_CHANGE = 0.2
# A batch of a size that is known counts no more than so many times what was expected of it: a stall says nothing of the
# model.
MOST_TIMES = 4.0
# A coarse clock may say 0, and no ratio has that below it.
LEAST_S = 1e-7


class ServiceTimes:
    """The times of one replica's batches. Seconds throughout.

    Attributes:
        fixed_s, per_row_s, per_byte_s: the fit; all 0 while nothing is known.
        is_known: whether any batch has come back.
        largest, largest_bytes: rows and bytes of the largest batches that have come back.
    """

    __slots__ = (
        "_is_sized",
        "_quantiles",
        "_ratios",
        "_run",
        "_sums",
        "fixed_s",
        "is_known",
        "largest",
        "largest_bytes",
        "per_byte_s",
        "per_row_s",
    )

    def __init__(self) -> None:
        # Whether bytes have been told of any batch: only then may the time go by them, too.
        self._is_sized = False
        # Weighted sums of 1, n, m, n², nm, m², t, nt, mt.
        self._sums = [0.0] * 9
        self._ratios: dict[int, deque[float]] = {}
        self._quantiles: dict[int, tuple[float, ...]] = {}
        # Batches that may mean another speed, not learned yet: rows, bytes, seconds.
        self._run: list[tuple[int, int, float]] = []
        self.fixed_s = self.per_row_s = self.per_byte_s = 0.0
        self.is_known = False
        self.largest = self.largest_bytes = 0

    def mean_s(self, rows: float, size_bytes: float = 0.0) -> float:
        """What the fit expects of a batch."""
        if not self.per_byte_s:
            return self.fixed_s + self.per_row_s * rows
        return self.fixed_s + self.per_row_s * rows + self.per_byte_s * min(size_bytes, self.most_bytes())

    def ratios(self, rows: int) -> tuple[float, ...]:
        """What batches of about this size took, as multiples of the fit: five equally likely values, ascending."""
        known = self._quantiles
        size = rows.bit_length()
        found = known.get(size)
        if found is None:
            found = known[min(known, key=lambda other: abs(other - size))] if known else (1.0,) * len(QUANTILES)
        return found

    def slow_s(self, rows: int, size_bytes: float = 0.0) -> float:
        """What nine of ten such batches stay within."""
        return self.mean_s(rows, size_bytes) * self.ratios(rows)[-1]

    def most_rows(self) -> int:
        """How large a batch may be for all that is known."""
        return max(1, self.largest * MAX_GROWTH)

    def most_bytes(self) -> float:
        """Up to how many bytes the fit is believed. Beyond, a batch is taken to be no slower: it has to be tried."""
        return float(self.largest_bytes * MAX_GROWTH)

    def rows_within(self, budget_s: float, row_bytes: float = 0.0) -> float:
        """How many rows of so many bytes each are expected to take no longer than this; 0 if not one."""
        per_row_s = self.per_row_s + self.per_byte_s * row_bytes
        spare_s = budget_s / self.ratios(max(1, self.largest))[len(QUANTILES) // 2] - self.fixed_s
        # A budget for exactly one row is often a sum of these two terms, rounded.
        if spare_s < per_row_s * (1 - 1e-9) or spare_s < 0:
            return 0.0
        return min(max(spare_s / per_row_s, 1.0), 1e9) if per_row_s > 0 else 1e9

    def observe(self, rows: int, size_bytes: int, took_s: float) -> None:
        """Learn from a batch that has come back. ``size_bytes`` may be 0 as long as all rows are of one length."""
        if size_bytes and not self._is_sized:
            self._is_sized = True
            self._sums = [0.0] * 9
            # Of these, too, no bytes were told.
            self._run = []
        took_s = max(took_s, LEAST_S)
        self.largest = max(self.largest, rows)
        self.largest_bytes = max(self.largest_bytes, size_bytes)
        if not self.is_known:
            self.is_known = True
            self._learn(rows, size_bytes, took_s)
            return
        # What may be another speed is learned when it is known whether it is: in the meantime it would spoil the fit.
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
        """Begin with what is known of another replica of the same version, until this one's own batches outweigh it."""
        self._sums = [value * KEPT_AFTER_CHANGE for value in other._sums]
        self._is_sized = other._is_sized
        self.fixed_s, self.per_row_s, self.per_byte_s = other.fixed_s, other.per_row_s, other.per_byte_s
        self.is_known, self.largest, self.largest_bytes = other.is_known, other.largest, other.largest_bytes

    def _is_beyond(self, rows: int, ratio: float) -> bool:
        """Whether a batch took far more or far less than all others, in the direction of those just before it."""
        if not self._quantiles:
            return False
        quantiles = self.ratios(rows)
        is_slow, is_fast = ratio > CHANGE_TIMES * quantiles[-1], ratio * CHANGE_TIMES < quantiles[0]
        if self._run and is_slow != (self._run[-1][2] > self.mean_s(*self._run[-1][:2])):
            return False
        return is_slow or is_fast

    def _learn(self, rows: int, size_bytes: int, took_s: float) -> None:
        # By what was expected, not by what was seen: else the fast ones of a wide spread would outweigh the slow ones.
        expected_s = self.mean_s(rows, size_bytes) or took_s
        most_s = MOST_TIMES * expected_s if rows.bit_length() in self._quantiles else took_s
        self._add(rows, size_bytes, min(took_s, most_s), 1 / (expected_s * expected_s))
        self._fit()
        self._keep_ratio(rows, took_s / max(self.mean_s(rows, size_bytes), LEAST_S))

    def rescale(self, times: float) -> None:
        """The replica takes so many times what it took: keep how its times compare, and forget how long they were."""
        self._run.clear()
        times = max(times, LEAST_S)
        weight = KEPT_AFTER_CHANGE / (times * times)
        self._sums = [value * weight for value in self._sums[:6]] + [value * weight * times for value in self._sums[6:]]
        self.fixed_s *= times
        self.per_row_s *= times
        self.per_byte_s *= times
        self._ratios.clear()
        self._quantiles.clear()

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
        # A little ridge: rows and bytes often grow together, and what they share may go to either.
        var_n += 1e-4 * mean_n * mean_n
        var_m += 1e-4 * mean_m * mean_m
        determinant = var_n * var_m - cov_nm * cov_nm
        if determinant <= 0:  # no batch has had a byte for long, as of empty texts
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
        """Take the slopes, as far as the fixed time that they leave is not below 0."""
        if per_row_s is None:
            # One size only. Once the two could be told apart, hold on to their proportion.
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
