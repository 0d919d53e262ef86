"""The loads and models of the simulation: what queries come, and what a batch of them takes."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Arrivals = Literal["poisson", "burst", "step", "wave"]

# Of what comes in a burst: a quarter of the time 2.5 times the mean, else half of it; a period is so many SLOs.
BURST_PERIOD_SLOS = 20.0
# A row of a Pareto law takes at most so many times the mean.
MAX_PARETO = 50.0


@dataclass(frozen=True, slots=True)
class Query:
    due_s: float
    arrival_s: float
    slo_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A model with its replicas, and who asks it. A batch of n takes ``(fixed + n rows) × (1 + |N(0, noise)|)``.

    Attributes:
        slo_s: that of the queries, or what ``slos`` are multiples of.
        per_byte_s: what a row takes besides for each of its bytes; texts are of 10 to 10,000.
        slow_rows: a share of the rows, which does not show in them, and what one of it takes.
        pareto: the rows' times are of a Pareto law with this exponent, ``per_row_s`` in the mean.
        pad: sizes are rounded up to a multiple of it.
        stall_every_s, stall_s: a pause of the model's now and then.
        slow_times: it takes so many times as long for the middle third of the run.
        speeds: of each replica, as multiples of the time.
        first_slos: what the first batch of each replica takes, in SLOs; 0 if it takes what others do.
        left: the share of its SLO that a query has left when the scheduler gets it.
    """

    fixed_s: float
    per_row_s: float
    slo_s: float
    noise: float = 0.05
    per_byte_s: float = 0.0
    slow_rows: tuple[float, float] = (0.0, 0.0)
    pareto: float = 0.0
    pad: int = 1
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    slow_times: float = 1.0
    speeds: tuple[float, ...] = (1.0,)
    slos: tuple[float, ...] = (1.0,)
    arrivals: Arrivals = "poisson"
    first_slos: float = 0.0
    left: float = 1.0

    def row_s(self, size_bytes: float) -> float:
        """What a row takes in the mean."""
        share, slow_s = self.slow_rows
        return self.per_row_s * (1 - share) + slow_s * share + self.per_byte_s * size_bytes

    def mean_s(self, rows: int) -> float:
        """What a batch of rows of mean length takes in the mean, without noise."""
        return self.fixed_s + self.row_s(MEAN_BYTES if self.per_byte_s else 0.0) * math.ceil(rows / self.pad) * self.pad

    def half_slo_rows(self) -> int:
        """The largest batch that takes half of the SLO."""
        return max((rows for rows in range(1, 4097) if self.mean_s(rows) <= self.slo_s / 2), default=1)

    def cap_per_s(self) -> float:
        """What the replicas can do if a query waits for one batch and is in the next: that batch each half SLO."""
        rows = self.half_slo_rows()
        return rows / max(self.slo_s / 2, self.mean_s(rows)) * sum(1 / speed for speed in self.speeds)

    def service_s(self, replica: int, batch: list[Query], at_s: float, end_s: float, rng: random.Random) -> float:
        """What a batch takes that begins then."""
        rows = len(batch)
        share, slow_s = self.slow_rows
        rows_s = self.per_row_s * math.ceil(rows / self.pad) * self.pad
        if share:
            slow = sum(rng.random() < share for _ in range(rows))
            rows_s += slow * (slow_s - self.per_row_s)
        elif self.pareto:
            least_s = self.per_row_s * (self.pareto - 1) / self.pareto
            rows_s = sum(
                min(least_s * rng.paretovariate(self.pareto), MAX_PARETO * self.per_row_s) for _ in range(rows)
            )
        elif self.per_byte_s:
            rows_s += self.per_byte_s * sum(query.size_bytes for query in batch)
        service_s = (self.fixed_s + rows_s) * (1 + abs(rng.gauss(0, self.noise))) * self.speeds[replica]
        if end_s / 3 <= at_s < end_s * 2 / 3:
            service_s *= self.slow_times
        if self.stall_s and at_s % self.stall_every_s + service_s > self.stall_every_s:
            service_s += self.stall_s
        return service_s

    def queries(self, per_s: float, end_s: float, rng: random.Random) -> Iterator[Query]:
        """Queries that do not wait for answers, in the order in which they come."""
        now_s = 0.0
        while True:
            now_s += rng.expovariate(self._rate(per_s, now_s, end_s))
            if now_s >= end_s:
                return
            slo_s = self.slo_s * rng.choice(self.slos)
            size_bytes = int(10 ** rng.triangular(1, 4, 1.5)) if self.per_byte_s else 0
            yield Query(now_s + slo_s * self.left, now_s, slo_s, size_bytes)

    def _rate(self, per_s: float, now_s: float, end_s: float) -> float:
        match self.arrivals:
            case "poisson":
                return per_s
            case "burst":
                period_s = BURST_PERIOD_SLOS * self.slo_s
                return per_s * (2.5 if now_s % period_s < period_s / 4 else 0.5)
            case "wave":
                return per_s * (1 + 0.5 * math.sin(6 * math.pi * now_s / end_s))
            case "step":
                return per_s * (0.02 if now_s < end_s / 3 else 1.0)


# Of the law of lengths above, by its integral.
MEAN_BYTES = 496.0

SLEEPERS = {
    "40ms": Profile(0.040, 50e-6, 0.1),
    "450ms": Profile(0.450, 1e-3, 1.0),
    "10ms": Profile(0.010, 50e-6, 0.03),
    "3ms": Profile(0.003, 28e-6, 0.02),
    "0.2ms": Profile(0.0002, 20e-6, 0.005),
    "rows": Profile(0.0001, 1.65e-3, 0.1),
}


def profiles() -> dict[str, Profile]:
    """All by name: a model's times, and what is special."""
    found = dict(SLEEPERS)
    for name in ("40ms", "3ms"):
        base = SLEEPERS[name]
        found |= {
            f"{name} steady": replace(base, noise=0.0),
            f"{name} noisy": replace(base, noise=0.2),
            f"{name} 2 replicas": replace(base, speeds=(1.0,) * 2),
            f"{name} 4 replicas": replace(base, speeds=(1.0,) * 4),
            f"{name} 4 noisy replicas": replace(base, speeds=(1.0,) * 4, noise=0.2),
            f"{name} 8 replicas": replace(base, speeds=(1.0,) * 8),
            f"{name} unequal replicas": replace(base, speeds=(1.0, 1.0, 2.0)),
            f"{name} bursts": replace(base, arrivals="burst"),
            f"{name} step": replace(base, arrivals="step"),
            f"{name} wave": replace(base, arrivals="wave"),
            f"{name} 4 replicas, bursts": replace(base, speeds=(1.0,) * 4, arrivals="burst"),
            f"{name} two SLOs": replace(base, slos=(1.0, 5.0)),
            f"{name} stalls": replace(base, stall_every_s=1.0, stall_s=0.05),
            f"{name} sizes of {32 if name == '3ms' else 64}": replace(base, pad=32 if name == "3ms" else 64),
        }
    return found | {
        "3ms 3 x slower": replace(SLEEPERS["3ms"], slow_times=3.0),
        "0.2ms 10 x slower": replace(SLEEPERS["0.2ms"], slow_times=10.0),
        "slow rows": Profile(0.0, 0.2e-3, 0.1, slow_rows=(0.03, 0.020)),
        "slow rows, 20 ms": Profile(0.0, 0.1e-3, 0.02, slow_rows=(0.10, 0.004)),
        "Pareto rows": Profile(0.001, 0.2e-3, 0.1, pareto=2.0),
        "texts": Profile(0.001, 0.02e-3, 0.05, per_byte_s=0.5e-6),
        "SLOs of 5 and 100 ms": Profile(0.001, 0.5e-3, 0.1, slos=(0.05, 1.0)),
        "450ms 4 replicas": replace(SLEEPERS["450ms"], speeds=(1.0,) * 4),
    }


LOADS = (0.25, 0.5, 0.9, 1.0, 1.5, 3.0)
