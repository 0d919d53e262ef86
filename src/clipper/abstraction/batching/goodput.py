"""Which of the waiting queries make the next batch: the choice that answers the most in time.

In a queue in the order of deadlines a batch is two numbers, ``drop`` and ``take``: leave out so many of the most
urgent, then send so many. All queries of a batch are answered when it ends. So the batch may be as large as its own
most urgent query allows, and leaving out a few of these makes it larger. Whether that is worth it:

- **The fewest drops with which a batch keeps up.** A batch that answers as many queries a second as come, while nearly
  all of it is in time, stops the queue from growing. More drops than that would answer no one more.
- **Else the most in time a second**, over the spread of times that such batches have taken. Dropping more pays as long
  as the larger batch answers more of the rest in time than were dropped.

The second is the sliding window of Nexus (Shen et al., SOSP 2019, section 6.3), with expected values in the place of
one time for each size. See docs/batching.md.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from clipper.abstraction.batching.deadline_queue import Lane
from clipper.abstraction.batching.service_times import LEAST_S, QUANTILES, ServiceTimes

Array = npt.NDArray[np.float64]

# Places in the queue that are looked at. Twice as many change no cell of the simulation by 1 %.
PLACES = 32
# A batch keeps up if it answers so many times what comes: a little more, to work off what already waits.
KEEPS_UP = 1.05
# Of a batch that keeps up so much is expected to be in time, and its most urgent query by the median of its times.
IN_TIME = 0.98
MEDIAN = len(QUANTILES) // 2
# By which of the quantiles batches are made just as large as their most urgent query allows.
FITTED = [MEDIAN, len(QUANTILES) - 1]
# Of batches that answer so nearly the same a second the one with the fewest drops.
NEARLY_BEST = 0.998


@dataclass(frozen=True, slots=True)
class Outlook:
    """A queue seen from its most urgent piece on, at some places.

    Attributes:
        due_s: the deadline of the piece at each place, (places,), ascending.
        rows: how many pieces are before each place, and in all, (places + 1,).
        size_bytes: the same of their bytes.
    """

    due_s: Array
    rows: Array
    size_bytes: Array

    @classmethod
    def over(cls, lanes: list[Lane]) -> "Outlook":
        """Look at at least one lane, none of which is empty; where the queue is short, at each piece of it."""
        seen: list[tuple[float, float, float]] = []
        is_short = sum(len(lane.works) for lane in lanes) <= PLACES
        for lane in lanes:
            works = lane.works
            length = len(works)
            row_bytes = lane.size_bytes / length
            places = length if is_short else min(length, max(PLACES // len(lanes), 2))
            edges = [length * place // places for place in range(places + 1)]
            seen += [
                (works[edge].due_s, next_edge - edge, (next_edge - edge) * row_bytes)
                for edge, next_edge in pairwise(edges)
            ]
        if len(lanes) > 1:
            seen.sort()
        columns = np.array(seen).T
        return cls(columns[0], _sums(columns[1]), _sums(columns[2]))


@dataclass(frozen=True, slots=True)
class Choice:
    """Drop ``drop`` pieces, then send ``take``.

    Attributes:
        in_time: how many of the batch are expected to be in time.
        per_s: the same for each second that the batch is expected to take.
        keeps_up: it answers as many a second as come, or all that wait.
    """

    drop: int
    take: int
    in_time: float
    per_s: float
    keeps_up: bool


def choose(
    outlook: Outlook, times: ServiceTimes, wait_s: float, now_s: float, needed_per_s: float, limit: int
) -> Choice:
    """Choose the next batch of a replica.

    Args:
        times: the replica's.
        wait_s: how long it is busy before it begins.
        needed_per_s: how many queries a second this replica has to answer for the queue not to grow.
        limit: the largest batch to send.
    """
    ahead, places = outlook.rows, len(outlook.due_s)
    first = ahead[:places, None]
    row_s = times.per_row_s + times.per_byte_s * float(outlook.size_bytes[-1] / ahead[-1])
    # [i, j]: the batch that begins with place i and ends before place j + 1, or where the limit is. The last columns
    # are the batches that just meet their most urgent query: between two places there may be more than the model can
    # do.
    rows = ahead[None, 1:] - first
    is_batch = (rows > 0) & (ahead[None, :-1] - first < limit)
    room_s = outlook.due_s[:, None] - now_s - wait_s
    fitting = room_s / np.array(times.ratios(max(times.largest, 1)))[None, FITTED] - times.fixed_s
    fits = np.floor(np.minimum(fitting / max(row_s, LEAST_S), float(limit)) + 1e-9)
    rows = np.hstack([np.where(is_batch, np.minimum(rows, limit), 1.0), np.clip(fits, 1.0, ahead[-1] - first)])
    is_batch = np.hstack([is_batch, np.broadcast_to(True, fits.shape)])
    ends = first + rows
    mean_s = times.fixed_s + times.per_row_s * rows
    if times.per_byte_s:
        whole_bytes = np.interp(ends, ahead, outlook.size_bytes) - outlook.size_bytes[:places, None]
        mean_s = mean_s + times.per_byte_s * np.minimum(whole_bytes, times.most_bytes())
    in_time, took_s, most_urgent_s = np.zeros_like(rows), np.zeros_like(rows), np.zeros_like(rows)
    for quantile, ratio in enumerate(_ratios(rows, times)):
        done_s = wait_s + mean_s * ratio
        in_time += np.clip(ends - np.maximum(_due_before(outlook, now_s + done_s), first), 0.0, rows)
        took_s += done_s
        if quantile == MEDIAN:
            most_urgent_s = now_s + done_s
    in_time = np.where(is_batch, in_time / len(QUANTILES), 0.0)
    per_s = in_time / (took_s / len(QUANTILES))
    keeps_up = is_batch & (in_time >= IN_TIME * rows) & (most_urgent_s <= outlook.due_s[:, None])
    keeps_up &= (ends == ahead[-1]) | (per_s >= needed_per_s * KEEPS_UP)
    # The fewest drops of nearly the best.
    drop = int(np.argmax((per_s >= NEARLY_BEST * per_s.max()).any(axis=1)))
    least = int(np.argmax(keeps_up.any(axis=1)))
    does = least <= drop and bool(keeps_up[least].any())
    if does:
        drop, end = least, int(np.argmax(np.where(keeps_up[least], per_s[least], -1.0)))
    else:
        end = int(np.argmax(per_s[drop]))
    return Choice(int(ahead[drop]), int(rows[drop, end]), float(in_time[drop, end]), float(per_s[drop, end]), does)


def _ratios(rows: Array, times: ServiceTimes) -> list[Array]:
    """Five equally likely ratios for each size."""
    sizes = np.frexp(rows)[1]
    known = {int(size): times.ratios(1 << (int(size) - 1)) for size in np.unique(sizes)}
    least = min(known)
    table = np.ones((max(known) - least + 1, len(QUANTILES)))
    for size, ratios in known.items():
        table[size - least] = ratios
    picked = table[sizes - least]
    return [picked[..., quantile] for quantile in range(len(QUANTILES))]


def _due_before(outlook: Outlook, at_s: Array) -> Array:
    """How many pieces are due before these times; between places, as if they were spread evenly."""
    ahead = outlook.rows
    places = len(outlook.due_s)
    if ahead[-1] == places:
        exact: Array = ahead[np.searchsorted(outlook.due_s, at_s)]
        return exact
    return np.interp(at_s, outlook.due_s, ahead[:places], left=0.0, right=float(ahead[-1]))


def _sums(counts: Array) -> Array:
    return np.concatenate(([0.0], np.cumsum(counts)))
