"""A piece of work: one input to be evaluated once by one version, for everyone who waits for it."""

from typing import Protocol


class Waiter(Protocol):
    """Who waits for an output. ``done`` tells that it no longer does: answered, or its client went away."""

    done: bool
    deadline_s: float

    def on_output(self, model: str, output: bytes) -> None:
        """``output`` is JSON text. It comes even if ``done``: a late output is still worth knowing for feedback."""

    def on_failure(self, model: str, code: str, message: str) -> None:
        """``code`` is one of the error tree's."""


class Work:
    """An input on its way through a version's queue, and, once it has its output, a cache entry.

    One object serves as both so that a query costs one allocation here.

    Attributes:
        row: the input's raw buffer, as the container protocol sends it; also the cache key.
        output: JSON text, or None while it is in flight.
        waiters: who gets the output; emptied once it is there.
        deadline_s: of the waiter that can wait longest.
        used: CLOCK's reference bit.
        cached: whether the version's cache table holds it.
        losses: how many replicas died with it in flight.
    """

    __slots__ = ("arrival_s", "cached", "deadline_s", "losses", "output", "row", "slo_s", "used", "waiters")

    def __init__(self, row: bytes, waiter: Waiter, arrival_s: float, slo_s: float, deadline_s: float) -> None:
        self.row = row
        self.output: bytes | None = None
        self.waiters: list[Waiter] = [waiter]
        self.arrival_s = arrival_s
        self.slo_s = slo_s
        self.deadline_s = deadline_s
        self.used = False
        self.cached = False
        self.losses = 0

    def join(self, waiter: Waiter) -> None:
        """Let one more query wait for the same output."""
        self.waiters.append(waiter)
        if waiter.deadline_s > self.deadline_s:
            self.deadline_s = waiter.deadline_s

    @property
    def is_wanted(self) -> bool:
        """Whether anyone still waits. Work whose clients all went away is never sent."""
        return any(not waiter.done for waiter in self.waiters)
