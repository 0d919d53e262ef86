"""The dispatcher lets a replica wait for those it has just answered."""

import pytest
from dispatching import Steady, make_dispatcher, push, sizes

from clipper.abstraction.batching.dispatcher import Turn


class Costing(Steady):
    """Expects a fixed time and a time per row."""

    def __init__(self, fixed_s: float, per_row_s: float, limit: int = 1000) -> None:
        super().__init__(limit)
        self.fixed_s, self.per_row_s = fixed_s, per_row_s

    def predict_s(self, size: int) -> float:
        return self.fixed_s + self.per_row_s * size


def after_a_batch(controller: Costing, size: int, waiting: int) -> Turn:
    """The turn at 1 s, when a batch of ``size`` has just come back and so many are waiting."""
    dispatcher = make_dispatcher(controller)
    push(dispatcher, size)
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    push(dispatcher, waiting, 0.9)
    assert dispatcher.finished(replica, batch.id, 1.0) is not None
    return dispatcher.next_turn(1.0)


def test_a_replica_waits_for_those_it_has_just_answered_where_batches_cost_much_whatever_their_size() -> None:
    turn = after_a_batch(Costing(0.004, 0.00002), size=64, waiting=64)

    assert sizes(turn) == []
    assert turn.wake_s == pytest.approx(1.0 + 0.002)


def test_what_is_gathered_goes_when_the_rest_come_too_slowly_or_all_are_back() -> None:
    dispatcher = make_dispatcher(Costing(0.004, 0.00002))
    push(dispatcher, 64)
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    push(dispatcher, 10, 0.9)
    dispatcher.finished(replica, batch.id, 1.0)
    push(dispatcher, 40, 1.0)
    assert sizes(dispatcher.next_turn(1.0)) == []
    assert sizes(dispatcher.next_turn(1.003)) == []
    assert sizes(dispatcher.next_turn(1.0035)) == [("0", 50)]
    dispatcher.finished(replica, 2, 1.1)
    push(dispatcher, 49, 1.1)
    assert sizes(dispatcher.next_turn(1.1)) == []
    push(dispatcher, 1, 1.1)

    assert sizes(dispatcher.next_turn(1.1)) == [("0", 50)]


def test_of_replicas_that_wait_the_first_that_is_due_decides_when_to_look_again() -> None:
    dispatcher = make_dispatcher(Costing(0.004, 0.00002, limit=32), Costing(0.008, 0.00002, limit=32))
    push(dispatcher, 65)
    for replica, batch in dispatcher.next_turn(0.0).assignments:
        dispatcher.finished(replica, batch.id, 1.0)

    assert dispatcher.next_turn(1.0).wake_s == pytest.approx(1.0 + 0.002)


@pytest.mark.parametrize(
    ("controller", "size", "waiting"),
    [
        (Costing(0.004, 0.00002), 1, 1),  # few clients: each would only wait
        (Costing(0.00005, 0.000001), 64, 64),  # nothing to save
        (Costing(0.004, 0.002), 64, 64),  # most of the time is per row
        (Costing(0.004, 0.00002), 16, 600),  # so many wait that a few more do not matter
    ],
)
def test_a_replica_does_not_wait_where_that_would_answer_no_more(controller: Costing, size: int, waiting: int) -> None:
    turn = after_a_batch(controller, size, waiting)

    assert sizes(turn) == [("0", waiting)]
    assert turn.wake_s is None
