"""Chooses which of the waiting queries make up the next batch, so that the most are answered in time.

In a queue sorted by deadline a batch is two numbers, ``drop`` and ``take``: leave out the ``drop`` most urgent queries,
then send the next ``take``. All queries of a batch are answered when it ends. So the most urgent query in a batch
bounds its size, and leaving out a few urgent queries allows a larger batch. Two rules decide how many to drop:

- **The fewest drops with which a batch keeps up.** A batch keeps up if it answers as many queries a second as arrive
  and nearly all of it is in time: then the queue stops growing. More drops would not answer more queries.
- **If no batch keeps up, the most queries in time per second**, over the spread of service times of such batches.
  Another drop pays as long as the larger batch answers more of the rest in time than were dropped.

The second rule is the sliding window of Nexus (Shen et al., SOSP 2019, section 6.3), with expected values instead of
one service time for each size. See docs/batching.md.

Rows of one query, such as those of a pipeline's list, have one deadline, and the query waits for the last of them. So
counts alone do not cut the queue: of rows with one deadline, either all are dropped or none, and ``cut_short`` ends a
batch before rows if some of them would have to go into a later batch and be late.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nextafter

import numpy as np
import numpy.typing as npt

from clipper.worker.abstraction.batching.deadline_queue import Lane, due_of
from clipper.worker.abstraction.batching.service_times import LEAST_S, QUANTILES, ServiceTimes
from clipper.worker.abstraction.work import Work

Array = npt.NDArray[np.float64]

# Number of places in the queue to look at. Twice as many change no cell of the simulation by 1 %.
PLACES = 32
# A batch keeps up if it answers this many times the arrivals: slightly more, to work off the queue.
KEEPS_UP = 1.05
# Share of a batch that must be expected in time if it keeps up; its most urgent query must be, at the median time.
IN_TIME = 0.98
MEDIAN = len(QUANTILES) // 2
# Quantiles of the service time: for each, the largest batch is tried that still meets its most urgent query.
FITTED = [MEDIAN, len(QUANTILES) - 1]
# Batches within this fraction of the best rate count as equal: the one with the fewest drops is chosen.
NEARLY_BEST = 0.998
# Long rows are left out of a batch if that multiplies the queries answered in time per second by at least this.
WORTH_LEAVING = 1.05


@dataclass(frozen=True, slots=True)
class Outlook:
    """A queue, sampled at some places from its most urgent piece on.

    Attributes:
        due_s: the deadline of the piece at each place, (places,), ascending.
        rows: number of pieces before each place, and the total, (places + 1,).
        size_bytes: the same for bytes.
    """

    due_s: Array
    rows: Array
    size_bytes: Array

    @classmethod
    def over(cls, lanes: list[Lane]) -> "Outlook":
        """Sample one or more lanes, none of them empty. A short queue is sampled at every piece."""
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
    """Drop the pieces that are due before ``from_s``, then send ``take``.

    Attributes:
        drop: how many are dropped, if no two are due at the same time.
        in_time: expected number of the batch's queries that are answered in time.
        per_s: the same per second of the batch's expected duration.
        keeps_up: whether the batch keeps up with the arrivals, or takes all that waits.
    """

    drop: int
    from_s: float
    take: int
    in_time: float
    per_s: float
    keeps_up: bool


def choose_lanes(
    lanes: list[Lane], times: ServiceTimes, wait_s: float, now_s: float, needed_per_s: float, limit: int
) -> tuple[Choice, list[Lane]]:
    """Choose the best batch and its lanes: leave out long rows if that answers more queries in time."""
    best, best_lanes = choose(Outlook.over(lanes), times, wait_s, now_s, needed_per_s, limit), lanes
    for longest in sorted({lane.length_class for lane in lanes})[:0:-1]:
        if best.keeps_up and not best.drop:
            break
        shorter = [lane for lane in lanes if lane.length_class < longest]
        choice = choose(Outlook.over(shorter), times, wait_s, now_s, needed_per_s, limit)
        if choice.per_s > best.per_s * WORTH_LEAVING:
            best, best_lanes = choice, shorter
    return best, best_lanes


def choose(
    outlook: Outlook, times: ServiceTimes, wait_s: float, now_s: float, needed_per_s: float, limit: int
) -> Choice:
    """Choose a replica's next batch.

    Args:
        wait_s: how long the replica is still busy.
        needed_per_s: queries a second that this replica must answer for the queue not to grow.
    """
    ahead, places = outlook.rows, len(outlook.due_s)
    first = ahead[:places, None]
    row_s = times.per_row_s + times.per_byte_s * float(outlook.size_bytes[-1] / ahead[-1])
    # [i, j] is the batch that begins at place i and ends before place j + 1, or at the limit. The last columns are
    # batches that just meet their most urgent query: between two places there may be more pieces than the model can
    # evaluate in time.
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
    # The fewest drops among the nearly best.
    drop = int(np.argmax((per_s >= NEARLY_BEST * per_s.max()).any(axis=1)))
    least = int(np.argmax(keeps_up.any(axis=1)))
    does = least <= drop and bool(keeps_up[least].any())
    if does:
        drop, end = least, int(np.argmax(np.where(keeps_up[least], per_s[least], -1.0)))
    else:
        end = int(np.argmax(per_s[drop]))
    from_s = float(outlook.due_s[drop]) if drop else 0.0
    if from_s and most_urgent_s[drop, end] > from_s:
        from_s = nextafter(from_s, inf)  # rows that came with this one would be late, too
    expected = float(in_time[drop, end]), float(per_s[drop, end])
    return Choice(int(ahead[drop]), from_s, int(rows[drop, end]), *expected, does)


def cut_short(batch: list[Work], lanes: list[Lane], times: ServiceTimes, start_s: float, limit: int) -> list[Work]:
    """Remove and return the last rows of a batch if other rows of its query still wait, and would be late after it.

    All of them then go into the next batch. Rows that do not fit into one batch are divided.

    Args:
        lanes: those that the batch was taken from.
        start_s: when the batch begins.
        limit: the most rows of a batch.
    """
    due_s = batch[-1].due_s if batch else inf
    if not any(lane.works and lane.works[0].due_s == due_s for lane in lanes):
        return []
    size = bisect_left(batch, due_s, key=due_of)
    together = len(batch) - size + sum(bisect_right(lane.works, due_s, key=due_of) for lane in lanes)
    if not size or together > limit or start_s + 2 * times.mean_s(len(batch)) <= due_s:
        return []
    cut = batch[size:]
    del batch[size:]
    return cut


def _ratios(rows: Array, times: ServiceTimes) -> list[Array]:
    """Return five equally likely ratios for each size."""
    sizes = np.frexp(rows)[1]
    least = int(sizes.min())
    places = sizes - least
    # numpy.unique imports numpy.ma when it is first called, and queries would wait for that.
    known = np.flatnonzero(np.bincount(places.ravel())).tolist()
    table = np.ones((known[-1] + 1, len(QUANTILES)))
    for place in known:
        table[place] = times.ratios(1 << (least + place - 1))
    picked = table[places]
    return [picked[..., quantile] for quantile in range(len(QUANTILES))]


def _due_before(outlook: Outlook, at_s: Array) -> Array:
    """Return how many pieces are due before each time, as if deadlines were spread evenly between two places."""
    ahead = outlook.rows
    places = len(outlook.due_s)
    if ahead[-1] == places:
        exact: Array = ahead[np.searchsorted(outlook.due_s, at_s)]
        return exact
    return np.interp(at_s, outlook.due_s, ahead[:places], left=0.0, right=float(ahead[-1]))


def _sums(counts: Array) -> Array:
    return np.concatenate(([0.0], np.cumsum(counts)))
