"""A piece of work: one input to be evaluated once by one version, for everyone who waits for it."""

from typing import Protocol

import msgspec


class Waiter(Protocol):
    """Who waits for an output. ``done`` tells that it no longer does: answered, or its client went away."""

    @property
    def done(self) -> bool: ...

    @property
    def deadline_s(self) -> float: ...

    def on_output(self, model: str, output: bytes) -> None:
        """``output`` is JSON text. It comes even if ``done``: a late output is still worth knowing for feedback."""

    def on_failure(self, model: str, code: str, message: str) -> None:
        """``code`` is one of the error tree's."""


class Table(Protocol):
    """The cache's entries of one version."""

    def forget(self, work: "Work") -> None:
        """``work`` has no output, or is evicted."""


class Work(msgspec.Struct, gc=False, eq=False):
    """An input on its way through a version's queue, and, once it has its output, a cache entry.

    One object serves as both so that a query costs one allocation here. The garbage collector does not look at it:
    there are hundreds of thousands, and a collection that went through them all would be seen in the tail latency.
    So it must not be part of a cycle for good: it lets go of its waiters once they have their output.

    Attributes:
        row: the input's raw buffer, as the container protocol sends it.
        key: what the cache finds it by; see ``CacheTable.key_of``.
        waiters: who gets the output; ``NOBODY`` once it is there.
        deadline_s: of the waiter that can wait longest.
        due_s: of the waiter that can wait least, by which the queue orders it.
        lane: which of the queue's lanes it is in; 0 if it does not wait.
        is_background: no prediction waits for it, so that it is done only where it costs none of them anything.
        output: JSON text, or None while it is in flight.
        used: CLOCK's reference bit.
        table: what holds it in the cache; None if nothing does.
        losses: how many replicas died with it in flight.
    """

    row: bytes
    waiters: list[Waiter]
    arrival_s: float
    slo_s: float
    deadline_s: float
    due_s: float
    key: bytes | int
    output: bytes | None = None
    used: bool = False
    table: Table | None = None
    losses: int = 0
    lane: int = 0
    is_background: bool = False

    def join(self, waiter: Waiter) -> None:
        """Let one more query wait for the same output."""
        self.waiters.append(waiter)
        if waiter.deadline_s > self.deadline_s:
            self.deadline_s = waiter.deadline_s

    def dismiss(self) -> list[Waiter]:
        """Return who waited; nobody does any more."""
        waiters, self.waiters = self.waiters, NOBODY
        return waiters

    @property
    def is_wanted(self) -> bool:
        """Whether anyone still waits. Work whose clients all went away is never sent."""
        return any(not waiter.done for waiter in self.waiters)


# Shared by all work that is done, which nobody joins any more.
NOBODY: list[Waiter] = []
