"""Gathering: how long it goes on, from facts alone."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.abstraction.batching.gathering import LEAST_FIXED_S, MAX_TIMES, Gathered, gather_s


class Costing:
    """A controller that expects a fixed time and a time per row."""

    def __init__(self, fixed_s: float = 0.0033, per_row_s: float = 27e-6, limit: int = 1024) -> None:
        self.limit = limit
        self._fixed_s, self._per_row_s = fixed_s, per_row_s

    def predict_s(self, size: int) -> float:
        return self._fixed_s + self._per_row_s * size

    def observe(self, size: int, service_s: float, was_full: bool) -> None: ...

    def rows_per_s(self) -> float:
        return 0.0

    def set_budget(self, budget_s: float) -> None: ...


FOREST = Costing()


def until_s(came_s: float, waiting: int, controller: Costing = FOREST) -> float:
    """How much longer to wait when ``waiting`` of 128 are back, ``came_s`` after the first."""
    return gather_s(controller, Gathered(0, 128, waiting, came_s)) - came_s


def test_it_goes_on_while_they_come_as_fast_as_a_worker_reads() -> None:
    """20 us a query, for an image of 784 numbers in JSON."""
    for back in range(1, 128):
        assert until_s(back * 20e-6, back) > 0


def test_it_ends_where_they_come_slowly() -> None:
    assert until_s(40 * 20e-6 + 0.004, 40) < 0


def test_it_ends_when_all_are_back_or_fill_a_batch() -> None:
    assert until_s(0.001, 128) < 0
    assert until_s(0.001, 64, Costing(limit=64)) < 0
    assert until_s(0.001, 60, Costing(limit=64)) > 0


@given(
    left=st.integers(0, 600),
    answered=st.integers(1, 600),
    back=st.integers(0, 600),
    elapsed_s=st.floats(0, 1),
    fixed_s=st.floats(0, 0.1),
    per_row_s=st.floats(1e-7, 0.01),
)
def test_the_wait_is_bounded_and_only_where_a_batch_costs_much_beside_its_rows(
    left: int, answered: int, back: int, elapsed_s: float, fixed_s: float, per_row_s: float
) -> None:
    waiting = max(1, left + back)
    wait_s = gather_s(Costing(fixed_s, per_row_s), Gathered(left, answered, waiting, elapsed_s))

    assert 0 <= wait_s <= MAX_TIMES * fixed_s
    if fixed_s < LEAST_FIXED_S:
        assert wait_s == 0
