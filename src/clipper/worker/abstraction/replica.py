"""A replica of a version: its link, and its state in the scheduler while it is linked."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from zlib import crc32

import msgspec

from clipper.control.snapshot import ReplicaAddress, VersionSnapshot
from clipper.control.statistics import ReplicaStatistics
from clipper.model.protocol.batches import BatchEncoder
from clipper.model.protocol.columns import BatchResults
from clipper.model.protocol.messages import MAX_ROWS, Buffer, Welcome
from clipper.values.outputs.output import TEXT_TIMES
from clipper.values.types import ModelId
from clipper.worker.abstraction.batching.controller import make_controller
from clipper.worker.abstraction.batching.device import Device
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.output_typing import OutputTyping
from clipper.worker.link import MAX_RESULTS_BYTES, ReplicaLink


class AskTaker(Protocol):
    """Answers what models ask while they evaluate batches."""

    def take(self, replica: "Replica", ask_id: int, body: Buffer) -> None:
        """Take an ASK. Raises ProtocolViolation if the body is not an ASK."""

    def ended(self, asks: Sequence[Any], *, is_answered: bool = True) -> None:
        """Forget the asks of a batch that has ended. ``is_answered``: whether the batch was answered, and not lost."""


class ReplicaOwner(Protocol):
    """The queue that the replica works for.

    Attributes:
        encoder: encodes batches of the version's input type.
        output_typing: takes the output types that containers report.
        unsettled: the replicas of all queues that are not linked, or that drain. Replicas enter and leave it.
        asks: takes what the model asks; None if nobody does.
    """

    model: ModelId
    asks: AskTaker | None
    encoder: BatchEncoder
    node: str
    max_output_bytes: int
    output_typing: OutputTyping
    unsettled: "dict[Replica, None]"

    def linked(self, replica: "Replica", welcome: Welcome) -> None: ...

    def lost(self, replica: "Replica") -> None: ...

    def receive_results(self, replica: "Replica", batch_id: int, results: BatchResults) -> bool: ...

    def receive_error(self, replica: "Replica", batch_id: int, message: str) -> bool: ...


class Replica:
    """Passes the link's events on to the version's queue. ``state`` is None while the replica is not linked.

    ``asks`` are those of ``AskTaker``, by the batch that its model asks for.
    """

    def __init__(self, address: ReplicaAddress, owner: ReplicaOwner) -> None:
        self.id, self._number = address.id, crc32(address.id.encode())
        # Ids of other nodes' devices may be the same.
        node = f" of {address.node}" if address.node else ""
        self.devices = tuple(f"GPU {id_}{node}" for id_ in address.devices)
        # If the worker or the replica has no node, there is only one.
        self.is_far = bool(owner.node and address.node) and address.node != owner.node
        self._owner = owner
        most_bytes = max(MAX_RESULTS_BYTES, TEXT_TIMES * owner.max_output_bytes + MAX_ROWS)
        self.link = ReplicaLink(
            owner.model, owner.encoder, address.address, address.token, self, address.certificate, most_bytes
        )
        self.state: ReplicaState | None = None
        self.asks: dict[int, list[Any]] = {}
        self.max_batch = 1  # the largest batch that it takes, by what is known before outputs have come
        self.is_draining = False
        owner.unsettled[self] = None

    def set_draining(self, is_draining: bool) -> None:
        """Set whether it gets no more batches, and is closed once it has answered its last."""
        self.is_draining = is_draining
        self._settle()

    def enter(
        self,
        scheduler: Scheduler,
        snapshot: VersionSnapshot,
        welcome: Welcome,
        most_rows: int,
        devices: tuple[Device, ...],
        await_turn: Callable[[], None],
    ) -> None:
        """Become a replica of the scheduler. ``most_rows``: the largest batch by the size of outputs. ``devices``,
        ``await_turn``: see ``Scheduler.add_replica``.
        """
        batching, max_batch = snapshot.batching, welcome.max_batch
        if max_batch is not None and max_batch < batching.max_batch:
            batching = msgspec.structs.replace(batching, max_batch=max_batch)
        controller = make_controller(batching, scheduler.slo_s)
        self.max_batch = min(1 if batching.policy == "none" else batching.max_batch, most_rows)
        self.state = scheduler.add_replica(
            self.id,
            self.max_batch,
            controller,
            is_fixed=batching.policy in ("fixed", "none"),
            is_far=self.is_far,
            devices=devices,
            await_turn=await_turn,
        )

    def close(self) -> None:
        """Hang up for good."""
        self._end_asks()
        self.link.close()
        self._owner.unsettled.pop(self, None)

    def _settle(self) -> None:
        if self.link.is_linked and not self.is_draining:
            self._owner.unsettled.pop(self, None)
        else:
            self._owner.unsettled[self] = None

    def on_linked(self, welcome: Welcome) -> None:
        self._settle()
        self._owner.linked(self, welcome)

    def on_told(self, welcome: Welcome) -> None:
        self._owner.output_typing.take(welcome)

    @property
    def model(self) -> ModelId:
        return self._owner.model

    def on_ask(self, ask_id: int, body: Buffer) -> None:
        if self._owner.asks is not None:
            self._owner.asks.take(self, ask_id, body)

    def on_results(self, batch_id: int, results: BatchResults) -> bool:
        if self.asks:
            self._end_asks(batch_id)
        return self._owner.receive_results(self, batch_id, results)

    def on_error(self, batch_id: int, message: str) -> bool:
        if self.asks:
            self._end_asks(batch_id)
        return self._owner.receive_error(self, batch_id, message)

    def _end_asks(self, answered: int | None = None) -> None:
        """End the asks of a batch that was answered, or of all that are lost."""
        of = list(self.asks) if answered is None else [answered]
        if self._owner.asks is not None:
            self._owner.asks.ended(
                [ask for batch_id in of for ask in self.asks.pop(batch_id, ())], is_answered=answered is not None
            )

    def on_lost(self, reason: str) -> None:
        self._end_asks()
        self._settle()
        if self.state is not None:
            self._owner.lost(self)

    def statistics(self, slo_s: float) -> ReplicaStatistics:
        model, state = self._owner.model, self.state
        return ReplicaStatistics(
            id=self.id,
            model=model.name,
            version=model.version,
            state=self._state_name(),
            batch_limit=state.batch_limit(slo_s) if state else 0,
            in_flight=len(state.in_flight) if state else 0,
            batches=state.batches if state else 0,
            last_error=self.link.last_error,
        )

    def mark(self) -> int:
        """Return a number that changes whenever ``statistics`` does, apart from the batch limit and errors."""
        state = self.state
        if state is None:
            return hash((self._number, self.is_draining, self.link.last_error is None))
        return hash((self._number, self.is_draining, len(state.in_flight), state.batches))

    def _state_name(self) -> str:
        if self.is_draining:
            return "draining"
        if self.state is not None:
            return "linked"
        return "lost" if self.link.last_error else "dialing"
