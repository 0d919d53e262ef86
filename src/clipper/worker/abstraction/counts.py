"""Counters of a version."""

import time
from collections.abc import Mapping

from clipper.control.histogram import Histogram
from clipper.control.statistics import LATENCY_BOUNDS_S, SIZE_BOUNDS, BatchesOfSize, VersionStatistics
from clipper.values.types import ModelId
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.cache.clock import CacheTable
from clipper.worker.abstraction.replica import Replica

# A model's error is cut to this length in an answer; the container's log has the whole error.
MAX_MESSAGE_CHARACTERS = 300


class VersionCounts:
    """The counters of a version: plain attributes, since the query path increments them.

    Attributes:
        turned_away: predictions that found the queue full; the queue counts those that it accepts.
        led_away: queries that asked another version instead of this one, since this one could not answer in time.
        last_error: the latest message of ``model_errors``; empty if there was none.
        batches: by size, how many were answered, and the sum of their times: at most as many sizes as a batch has rows.
        last_answered_at: when the latest batch was answered, in seconds since 1970; 0 if none was.
    """

    def __init__(self) -> None:
        self.turned_away = self.led_away = self.outputs = self.model_errors = self.rejected = self.expired = 0
        self.last_error = ""
        self.queue_wait_s = Histogram(LATENCY_BOUNDS_S)
        self.batch_size = Histogram(SIZE_BOUNDS)
        self.batch_latency_s = Histogram(LATENCY_BOUNDS_S)
        self.batches: dict[int, list[float]] = {}
        self.last_answered_at = 0.0

    def answered(self, rows: int, service_s: float) -> None:
        """Count a batch that a replica has answered."""
        self.batch_latency_s.record(service_s)
        batches = self.batches.get(rows)
        if batches is None:
            batches = self.batches[rows] = [0, 0.0]
        batches[0] += 1
        batches[1] += service_s
        self.last_answered_at = time.time()

    def count_error(self, message: str) -> str:
        """Count a row on which the model failed; return the message, cut to its bound."""
        self.model_errors += 1
        self.last_error = message[:MAX_MESSAGE_CHARACTERS]
        return self.last_error

    def mark(self, scheduler: Scheduler, table: CacheTable | None, links: Mapping[str, Replica]) -> int:
        """Return a number that changes whenever the results of ``statistics`` or the statistics of links change.

        It is a hash of numbers alone, so that workers with equal counts have equal marks.
        """
        looked_up = 0 if table is None else table.hits + table.joins + table.misses
        batches = sum(self.queue_wait_s.counts) + sum(self.batch_latency_s.counts)
        counts = (self.outputs, self.model_errors, self.rejected, self.expired, looked_up, batches)
        queue, suspects = scheduler.queue, scheduler.suspects
        waiting = (queue.length + suspects.length, queue.size_bytes + suspects.size_bytes)
        arrivals = queue.arrivals + suspects.arrivals + self.turned_away + self.led_away
        limits = [replica.batch_limit(scheduler.slo_s) for replica in scheduler.replicas.values()]
        of_links = [link.mark() for link in links.values()]
        return hash((*counts, *waiting, arrivals, scheduler.slo_s, *limits, *of_links))

    def statistics(
        self,
        model: ModelId,
        scheduler: Scheduler,
        table: CacheTable | None,
        links: Mapping[str, Replica],
        *,
        with_batches: bool,
    ) -> VersionStatistics:
        replicas = scheduler.replicas.values()
        batches = self.batches.items() if with_batches else ()
        rates = {replica.id: replica.rows_per_s(scheduler.slo_s) for replica in replicas}
        return VersionStatistics(
            model=model.name,
            version=model.version,
            queue_length=scheduler.queue.length + scheduler.suspects.length,
            queue_bytes=scheduler.queue.size_bytes + scheduler.suspects.size_bytes,
            outputs=self.outputs,
            model_errors=self.model_errors,
            rejected=self.rejected,
            expired=self.expired,
            cache_hits=table.hits if table is not None else 0,
            cache_misses=table.misses if table is not None else 0,
            cache_joins=table.joins if table is not None else 0,
            queue_wait_s=self.queue_wait_s.data(),
            batch_size=self.batch_size.data(),
            batch_latency_s=self.batch_latency_s.data(),
            arrivals=scheduler.queue.arrivals + scheduler.suspects.arrivals + self.turned_away + self.led_away,
            slo_s=scheduler.slo_s,
            batch_limits={replica.id: replica.batch_limit(scheduler.slo_s) for replica in replicas},
            rows_per_s={id_: rate for id_, rate in rates.items() if rate},
            last_error=self.last_error,
            mark=self.mark(scheduler, table, links),
            batches={rows: BatchesOfSize(int(count), sum_s) for rows, (count, sum_s) in batches},
            last_answered_at=self.last_answered_at,
        )
