"""The times at which queries are due: seconds from the beginning of a run, in order."""

from collections.abc import Iterator
from itertools import count, takewhile
from random import Random
from typing import Literal

Arrivals = Literal["poisson", "constant", "burst"]

# A burst's queries arrive in a quarter of each second, at four times the rate: long enough to fill a queue under most
# SLOs, and short enough that a run of some seconds has several bursts.
BURST_PERIOD_S = 1.0
BURST_SHARE = 0.25


def due_times_s(arrivals: Arrivals, rate_per_s: float, duration_s: float, random: Random) -> Iterator[float]:
    """Yield the times within ``duration_s`` at which queries are due, on average ``rate_per_s`` in a second.

    ``poisson`` is the sum of many independent clients, ``constant`` is a query each 1/rate, and ``burst`` is poisson
    during a part of each period, with silence in the rest.
    """
    times_s: Iterator[float]
    match arrivals:
        case "constant":
            times_s = (number / rate_per_s for number in count())
        case "poisson":
            times_s = _poisson_s(rate_per_s, random)
        case "burst":
            times_s = map(_in_bursts_s, _poisson_s(rate_per_s / BURST_SHARE, random))
    return takewhile(lambda due_s: due_s < duration_s, times_s)


def _poisson_s(rate_per_s: float, random: Random) -> Iterator[float]:
    due_s = 0.0
    while True:
        due_s += random.expovariate(rate_per_s)
        yield due_s


def _in_bursts_s(on_s: float) -> float:
    """Convert time that only runs during bursts to the time of the clock."""
    periods, within_s = divmod(on_s, BURST_PERIOD_S * BURST_SHARE)
    return periods * BURST_PERIOD_S + within_s
