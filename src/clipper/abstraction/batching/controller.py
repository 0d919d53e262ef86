"""How many queries a replica is given at once: the port of the batch-limit controllers, and their factory."""

from typing import Protocol

from clipper.abstraction.batching.aimd import Aimd
from clipper.abstraction.batching.fixed import Fixed
from clipper.abstraction.batching.quantile import Quantile
from clipper.errors import InvalidArgument
from clipper.snapshot import Batching


class Controller(Protocol):
    """Decides one replica's batch limit from how long its batches take.

    The budget is the part of the SLO that one batch may take. With two batches in flight a query waits for
    the rest of the one that runs and for the one that was sent after it, before its own: 0.3 of the SLO
    leaves a tenth for all else.

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

    def predict_s(self, size: int) -> float:
        """What a batch of ``size`` rows is expected to take; 0 while nothing is known.

        Never over twice the budget, however slow the replica was: a query with most of its SLO left is
        always sent, so that a replica which was slow has a chance to show that it no longer is.
        """
        ...

    def rows_per_s(self) -> float:
        """What the replica is expected to answer a second, in batches as large as the limit; 0 while nothing is known.

        While all batches were of one size, all of their time counts as per row: it may then be far more.
        """
        ...

    def set_budget(self, budget_s: float) -> None:
        """Work towards another budget from now on, keeping what is known of the replica."""
        ...


def make_controller(batching: Batching, budget_s: float) -> Controller:
    """Make the controller that a version's settings ask for.

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
        case "fixed":
            return Fixed(batching.max_batch, budget_s)
        case "none":
            return Fixed(1, budget_s)
