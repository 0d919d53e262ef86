"""Parts that the applications of a worker share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from clipper.abstraction.predictor import Predictor
from clipper.control.snapshot import ApplicationSnapshot
from clipper.decisions.log import DecisionLog
from clipper.selection.committer import Committer
from clipper.selection.feedback.join_table import JoinTable
from clipper.selection.own_code import Made, make
from clipper.selection.query_ids import QueryIds
from clipper.selection.stores.store import Store
from clipper.telemetry.watch import Watch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Attributes:
        asking: bounds the feedback that models are being asked for; see ``Learner``.
        make: makes an application's policy and loss, without waiting for a user's code.
        decisions: the decision log; None if there is none.
        watch: is told of queries that are slow, or whose request has a note; None if nobody wants to know of them.
    """

    predictor: Predictor
    ids: QueryIds
    random: Random
    store: Store
    committer: Committer
    joins: JoinTable
    asking: asyncio.Semaphore
    make: Callable[[ApplicationSnapshot], Made] = make
    decisions: DecisionLog | None = None
    watch: Watch | None = None
