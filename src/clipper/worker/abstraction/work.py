"""A piece of work: an input that a version evaluates once, for all queries that wait for it."""

from typing import Protocol

import msgspec

from clipper.values.outputs.output import Output
from clipper.worker.telemetry.trace_context import SpanContext


class Waiter(Protocol):
    """Waits for an output. ``done`` is true once it no longer waits: it was answered, or its client disconnected."""

    @property
    def done(self) -> bool: ...

    @property
    def deadline_s(self) -> float: ...

    @property
    def span(self) -> SpanContext | None:
        """The span of its query; None if the query is not traced."""

    @property
    def may_wait(self) -> bool:
        """Whether it may wait for a starting replica. It may not if another model can answer its query now."""

    def on_output(self, model: str, output: Output) -> None:
        """Take the output. Also called if ``done``: feedback is scored with late outputs as well."""

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Take an error. ``code`` is a code of the error tree."""


class Table(Protocol):
    """The cache's entries of a version."""

    def forget(self, work: "Work") -> None:
        """Drop ``work``, which has no output or was evicted."""


class Work(msgspec.Struct, gc=False, eq=False):
    """An input in a version's queue; once it has its output, an entry of the cache.

    One object serves as both, so that a query costs one allocation here. The garbage collector does not track these
    objects: there are hundreds of thousands, and a collection that visits them all would show in the tail latency. So a
    work must not stay part of a reference cycle: it drops its waiters once it has its output.

    Attributes:
        row: the input's raw buffer, as the container protocol sends it.
        waiters: the waiters to notify; ``NOBODY`` once they have been notified.
        arrival_s: when the first query for it arrived.
        slo_s: the SLO of the query that queued or hastened it; it selects the queue's lane.
        deadline_s: the latest deadline of its waiters.
        due_s: the earliest deadline of its waiters that can still be met; the queue is sorted by it.
        key: the cache's key; see ``CacheTable.key_of``.
        source: the application that queried it first.
        table: the cache table that it belongs to; None once it has left the table, or without a cache.
        used: CLOCK's reference bit.
        lane: id of the queue's lane that it is in; 0 if it is not queued.
        group: ``UNCLEAR`` or ``DEADLY`` if it is tried again apart, whatever its application; see ``Suspects``.
        is_background: no prediction waits for it, so it must not make any prediction late.
    """

    row: bytes
    waiters: list[Waiter]
    arrival_s: float
    slo_s: float
    deadline_s: float
    due_s: float
    key: bytes | int
    source: str = ""
    table: Table | None = None
    output: Output | None = None
    used: bool = False
    lane: int = 0
    group: str = ""
    is_background: bool = False

    def join(self, waiter: Waiter) -> None:
        """Add a query that waits for the same output."""
        self.waiters.append(waiter)
        if waiter.deadline_s > self.deadline_s:
            self.deadline_s = waiter.deadline_s

    def forget(self) -> list[Waiter]:
        """Leave the cache, since there will be no output. Return the waiters and drop them."""
        if self.table is not None:
            self.table.forget(self)
        waiters, self.waiters = self.waiters, NOBODY
        return waiters

    @property
    def is_wanted(self) -> bool:
        """Whether anyone still waits. Work whose clients have all disconnected is never sent."""
        return any(not waiter.done for waiter in self.waiters)


# Shared by all finished work; nobody joins finished work.
NOBODY: list[Waiter] = []
