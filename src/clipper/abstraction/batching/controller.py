"""The paper's ways to say how many queries a replica is given at once: the port, and the factory."""

from typing import Protocol

from clipper.abstraction.batching.aimd import Aimd
from clipper.abstraction.batching.quantile import Quantile
from clipper.errors import InvalidArgument
from clipper.settings.version import Batching

# What a batch may take of the SLO: a query can wait for two batches before its own, and something has to be left for
# the way through the worker.
BATCH_SHARE_OF_SLO = 0.3


class Controller(Protocol):
    """Decides one replica's batch limit from how long its batches take, whatever waits.

    The budget is the part of the SLO that one batch may take.

    Attributes:
        limit: the largest batch to send now, at least 1. Read before each batch.
    """

    limit: int

    def observe(self, size: int, service_s: float, was_full: bool) -> None:
        """Learn from a batch that was answered.

        Args:
            size: its rows, at least 1.
            service_s: how long the replica was busy with it, without the wait for the batch before it.
            was_full: it was as large as the limit allowed. Only then may the limit grow.
        """
        ...

    def set_budget(self, budget_s: float) -> None:
        """Work towards another budget from now on, keeping what is known of the replica."""
        ...


def make_controller(batching: Batching, budget_s: float) -> Controller | None:
    """Make the controller that a version's settings ask for; None where deadlines alone say how large a batch is.

    Raises:
        InvalidArgument: ``max_batch`` is below 1, or the budget is not above 0.
    """
    if batching.max_batch < 1:
        raise InvalidArgument(f"max_batch is {batching.max_batch}: expected at least 1")
    if not budget_s > 0:
        raise InvalidArgument(f"the batch budget is {budget_s} s: expected more than 0; the SLO is too small")
    match batching.policy:
        case "aimd":
            return Aimd(budget_s, batching.max_batch)
        case "quantile":
            return Quantile(budget_s, batching.max_batch)
        case "goodput" | "fixed" | "none":
            return None
