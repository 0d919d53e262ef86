"""Controllers of the batch limit, the paper's two and Clipper's variations: their interface, and the factory."""

from typing import ClassVar, Protocol

from clipper.settings.version import Batching
from clipper.worker.abstraction.batching.aimd import Aimd
from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from clipper.worker.abstraction.batching.quantile import Quantile
from clipper.worker.abstraction.batching.quantile_refit import RefittedQuantile


class Controller(Protocol):
    """Sets a replica's batch limit from its service times alone, without looking at the queue.

    The budget is the time that a batch may take, in seconds.

    Attributes:
        share_of_slo: how much of the SLO the budget is. The paper's rules allow a batch the whole SLO. The variations
            allow 0.3: a query may wait for two batches before its own, and the worker needs some of the time.
        limit: the largest batch to send now, at least 1. Read before each batch.
    """

    share_of_slo: ClassVar[float]
    limit: int

    def record(self, size: int, service_s: float, was_full: bool) -> None:
        """Learn from an answered batch.

        Args:
            size: its rows, at least 1.
            service_s: how long the replica was busy with it, without the wait for the batch before it.
            was_full: whether it was as large as the limit allowed. Only then may the limit grow.
        """

    def set_budget(self, budget_s: float) -> None:
        """Use another budget from now on; keep what was learned about the replica."""


_KINDS: dict[str, type[Aimd | Quantile | DampedAimd | RefittedQuantile]] = {
    "aimd": Aimd,
    "quantile": Quantile,
    "aimd_damped": DampedAimd,
    "quantile_refit": RefittedQuantile,
}


def make_controller(batching: Batching, slo_s: float) -> Controller | None:
    """Make the controller for a version's settings; None for policies without a controller: goodput, fixed and none."""
    kind = _KINDS.get(batching.policy)
    return None if kind is None else kind(slo_s * kind.share_of_slo, batching.max_batch)
