"""What is found of a soak: its facts, and what of them must not be."""

from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

from benchmarks.soak.facts import Facts
from benchmarks.soak.flatness import Trend, trend

# One socket more or less is no trend.
DESCRIPTORS_AT_LEAST = 1.0
# Of all but the logs: versions come and go.
DISK_GROWTH, DISK_AT_LEAST_BYTES = 0.05, 1e6
# Ten MB and an older part of each process, of some ten at a time; 4 MB of each of SQLite's before it begins anew.
LOGS_AT_MOST_BYTES = 200e6


class Row(Struct, frozen=True):
    """How one process's memory and descriptors moved.

    Attributes:
        blocks, malloc: in use, as Python and malloc count it.
    """

    name: str
    pid: int
    resident: Trend
    own: Trend
    descriptors: Trend
    threads: Trend
    blocks: Trend
    malloc: Trend


def rows(facts: Facts) -> Iterator[Row]:
    """Of each process that lived for long enough."""
    for life in facts.lives:
        trends = [
            trend([(each.at_s, getattr(each, name)) for each in life.taken], facts.duration_s)
            for name in ("rss", "uss", "descriptors", "threads", "blocks", "malloc_bytes")
        ]
        if all(trends):
            yield Row(life.name, life.pid, *(each for each in trends if each is not None))


def most_waited(facts: Facts) -> float:
    """Between two samples, which share of the time a worker could have run and had no processor: above a half or so
    it is the machine that did not answer."""
    workers = [life.taken for life in facts.lives if life.name.startswith("worker")]
    pairs = [pair for taken in workers for pair in pairwise(taken)]
    return max(((after.waited_s - before.waited_s) / (after.at_s - before.at_s) for before, after in pairs), default=0)


def judge(facts: Facts) -> list[str]:
    """What must not be, in words; nothing if the server has held."""
    found = []
    judged = list(rows(facts))
    if not judged:
        found.append("no process lived for long enough to be judged")
    for row in judged:
        # A container keeps what its largest batch so far took, up to 128 MB: its resident memory moves up at random.
        keeps_freed = "#" in row.name and row.blocks.level > 0
        # A worker's heap moves by more than 1 % as large inputs come and go.
        for name, of, unit, units in (
            ("resident memory", row.resident, 1e6, "MB"),
            ("what Python has in use", row.blocks, 1, "blocks"),
            ("what malloc has given out", row.malloc, 1e6, "MB"),
        ):
            if of is row.resident and keeps_freed:
                continue
            if not of.is_flat() and not of.is_within_scatter:
                found.append(_grew(row, name, of, unit, units))
        for name, of in (("descriptors", row.descriptors), ("threads", row.threads)):
            # Clients come and go, and which worker has how many of them is chance.
            if not of.is_flat(at_least=DESCRIPTORS_AT_LEAST) and not of.is_within_scatter:
                found.append(_grew(row, name, of, 1, ""))
    waited = most_waited(facts)
    for stream in facts.asked:
        if stream.lost:
            found.append(
                f"{stream.name}: {stream.lost} of {stream.offered} queries had no answer, or one of 5xx; "
                f"a worker waited for a processor for up to {waited:.0%} of the time between two samples"
            )
    rest = trend([(each.at_s, each.rest) for each in facts.disk], facts.duration_s)
    if rest is not None and not rest.is_flat(DISK_GROWTH, DISK_AT_LEAST_BYTES):
        found.append(f"the home grew by {rest.per_hour / 1e6:.1f} MB an hour at {rest.level / 1e6:.1f} MB")
    if any(each.logs > LOGS_AT_MOST_BYTES for each in facts.disk):
        found.append(f"logs took more than {LOGS_AT_MOST_BYTES / 1e6:.0f} MB")
    count = trend([(each.at_s, each.processes) for each in facts.disk], facts.duration_s)
    if count is not None and not count.is_flat(at_least=DESCRIPTORS_AT_LEAST):
        found.append(f"processes grew by {count.per_hour:.1f} an hour, at {count.level:.0f}")
    found += [f"{act.what} failed after {act.at_s:.0f} s: {act.failed}" for act in facts.acts if act.failed]
    return found + [f"at the end: {problem}" for problem in facts.problems]


def _grew(row: Row, what: str, of: Trend, unit: float, name: str) -> str:
    return (
        f"{row.name} ({row.pid}): {what} grew by {of.per_hour / unit:.2f} {name} an hour "
        f"at {of.level / unit:.1f} {name}, {of.growth / of.level:+.2%} in what was judged"
    )
