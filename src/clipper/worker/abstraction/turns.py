"""Lets queues send batches: at the end of the loop's turn, or a little later while more queries are expected."""

import asyncio
import logging
import math
from collections.abc import Callable, Generator
from typing import Protocol

from clipper.model.protocol.trace import BatchTrace
from clipper.settings.server import MAX_OUTPUT_BYTES
from clipper.values.types import ModelId
from clipper.worker.abstraction.alarm import Alarm
from clipper.worker.abstraction.batching.device import Device
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.replica import AskTaker, Replica
from clipper.worker.telemetry.spans import BatchEnd
from clipper.worker.telemetry.watch import Watch

log = logging.getLogger(__name__)


class Waiting(Protocol):
    """A queue with queries that no batch has taken yet."""

    def flow_wait_until_s(self) -> float:
        """Until when it waits for expected queries, to send a better batch; a past time if it does not wait."""

    def take_due_turn(self) -> None:
        """Send batches, unless a turn has been taken since the queue asked for this one."""


# Between two ``yield`` less than a millisecond passes.
Steps = Generator[None, None, None]


def at_once(steps: Steps) -> None:
    """Do all steps now."""
    for _ in steps:
        pass


class Turns:
    """Shared by the queues of a worker: gives each a turn at the end of the loop's turn, or later if the queue waits.

    Attributes:
        do: does long work in steps, between the loop's other events; at once, until it is set.
        asks: takes the asks of models; to be set before the first queue is made.
        waiting: the queues that wait for their turn.
        flow: the queues' common knowledge of the worker's queries.
        devices: the accelerators that replicas of several versions may share, by node and id.
        unserved: the versions that were asked while they were asleep, and when they were last asked, on the loop's
            clock. ``Predictor.demanded`` takes out those that need not wake.
    """

    def __init__(
        self,
        watch: Watch | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        """Make the turns. ``watch`` takes notes on batches with traced queries."""
        self._watch = watch
        self.do: Callable[[Steps], None] = at_once
        self.asks: AskTaker | None = None
        self.max_output_bytes = max_output_bytes
        self._loop = asyncio.get_running_loop()
        self.waiting: list[Waiting] = []
        self._end_is_due = False
        self._look_again = Alarm(self._loop)
        self.flow = Flow()
        self.unsettled: dict[Replica, None] = {}
        self.devices: dict[str, Device] = {}
        self.unserved: dict[ModelId, float] = {}

    def devices_of(self, replica: Replica) -> tuple[Device, ...]:
        """Return the devices on which a replica computes, and drop the devices that no replica uses any more."""
        known = {id_: device for id_, device in self.devices.items() if device.is_used}
        self.devices = known | {id_: known.get(id_) or Device(id_) for id_ in replica.devices}
        return tuple(self.devices[id_] for id_ in replica.devices)

    def await_end(self, queue: Waiting) -> None:
        """Give ``queue`` its turn once the loop has handled everything that a poll returned."""
        self.waiting.append(queue)
        self._schedule()

    def end(self) -> None:
        """Give the turns now: the loop will read no more input before it polls again."""
        if self._end_is_due:
            self._end(self.flow.arrivals)

    def sent(self, model: ModelId, replica: str, batch: Batch) -> BatchTrace | None:
        """Note that ``batch`` is sent; ``ended`` follows. Return the trace for its container, or None."""
        self.flow.sent(batch)
        watch = self._watch
        if watch is None or batch.sent_s > watch.traced_until_s:
            return None
        # A query that joined another's work waited from its own arrival on, which nothing notes.
        queries = [
            (span, work.arrival_s)
            for work in batch.works
            for waiter in work.waiters
            if (span := waiter.span) is not None
        ]
        batch.note = watch.batch_note(model.name, model.version, replica, batch.sent_s, len(batch.works), queries)
        return None if batch.note is None else batch.note.trace

    def ended(self, model: ModelId, batch: Batch, evaluation_us: int | None = None) -> None:
        """Note that ``batch`` was answered, or its replica lost. Call this before the waiters get their outputs."""
        self.flow.ended(batch)
        if self.waiting:
            self._schedule()
        if batch.note is not None and self._watch is not None:
            # Also the queries that have joined since it was sent.
            spans = [waiter.span for work in batch.works for waiter in work.waiters]
            queries = [span for span in spans if span is not None]
            end = BatchEnd(self._loop.time(), None if evaluation_us is None else evaluation_us / 1e6)
            self._watch.batch_ended(model.name, model.version, batch.note, queries, end)

    def _schedule(self) -> None:
        if not self._end_is_due:
            self._end_is_due = True
            self._loop.call_soon(self._end, self.flow.arrivals)

    def _end(self, arrivals: int) -> None:
        self._end_is_due = False
        has_arrivals, now_s = self.flow.arrivals > arrivals, self._loop.time()
        waiting, self.waiting = self.waiting, []
        are_expected, first_s = has_arrivals, math.inf
        for queue in waiting:
            are_expected = are_expected or self.flow.brings_more(now_s)
            try:
                if are_expected and (until_s := queue.flow_wait_until_s()) > now_s:
                    self.waiting.append(queue)
                    first_s = min(first_s, until_s)
                else:
                    queue.take_due_turn()
            except Exception:  # a bug in one queue must not cost the other models their turns
                log.exception("failed to send the batches of one model")
        if not self.waiting:
            return
        # Look again in the next turn while queries arrive; else when a batch ends, or when the first wait ends.
        if has_arrivals:
            self._schedule()
        elif first_s < math.inf:  # else it has been scheduled: a queue awaits its turn since another took its own
            self._look_again.set(first_s, self._wake)

    def _wake(self) -> None:
        if self.waiting:
            self._schedule()
