"""A replica of a version: its link, and its state in the scheduler while it is linked."""

from typing import Protocol

from clipper.control.snapshot import ReplicaAddress
from clipper.control.statistics import ReplicaStatistics
from clipper.model.protocol.batches import BatchEncoder
from clipper.model.protocol.messages import MAX_ROWS, Welcome
from clipper.values.types import ModelId
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.results import TEXT_TIMES
from clipper.worker.link import MAX_RESULTS_BYTES, BatchResults, ReplicaLink


class ReplicaOwner(Protocol):
    """The queue that the replica works for.

    Attributes:
        encoder: of batches of the version's input type.
        node: the address of the worker's node; empty if there is only one node.
        max_output_bytes: bound of an output.
        unsettled: the replicas of all queues that are not linked, or that drain. Replicas enter and leave it.
    """

    model: ModelId
    encoder: BatchEncoder
    node: str
    max_output_bytes: int
    unsettled: "dict[Replica, None]"

    def linked(self, replica: "Replica", welcome: Welcome) -> None: ...

    def lost(self, replica: "Replica") -> None: ...

    def receive_results(self, replica: "Replica", batch_id: int, results: BatchResults) -> bool: ...

    def receive_error(self, replica: "Replica", batch_id: int, message: str) -> bool: ...


class Replica:
    """Passes the link's events on to the version's queue. ``state`` is None while the replica is not linked."""

    def __init__(self, address: ReplicaAddress, owner: ReplicaOwner) -> None:
        self.id = address.id
        # If the worker or the replica has no node, there is only one.
        self.is_far = bool(owner.node and address.node) and address.node != owner.node
        self._owner = owner
        most_bytes = max(MAX_RESULTS_BYTES, TEXT_TIMES * owner.max_output_bytes + MAX_ROWS)
        self.link = ReplicaLink(
            owner.model, owner.encoder, address.address, address.token, self, address.certificate, most_bytes
        )
        self.state: ReplicaState | None = None
        self.max_batch = 1  # the largest batch that it takes, however small outputs are
        self._is_draining = False
        owner.unsettled[self] = None

    @property
    def is_draining(self) -> bool:
        """Whether the replica gets no more batches, and is closed once it has answered its last."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, is_draining: bool) -> None:
        self._is_draining = is_draining
        self._settle()

    def close(self) -> None:
        """Hang up for good."""
        self.link.close()
        self._owner.unsettled.pop(self, None)

    def _settle(self) -> None:
        if self.link.is_linked and not self._is_draining:
            self._owner.unsettled.pop(self, None)
        else:
            self._owner.unsettled[self] = None

    def on_linked(self, welcome: Welcome) -> None:
        self._settle()
        self._owner.linked(self, welcome)

    def on_results(self, batch_id: int, results: BatchResults) -> bool:
        return self._owner.receive_results(self, batch_id, results)

    def on_error(self, batch_id: int, message: str) -> bool:
        return self._owner.receive_error(self, batch_id, message)

    def on_lost(self, reason: str) -> None:
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

    def _state_name(self) -> str:
        if self.is_draining:
            return "draining"
        if self.state is not None:
            return "linked"
        return "lost" if self.link.last_error else "dialing"
