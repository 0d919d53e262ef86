"""How a worker's descriptors are shared out."""

import pytest

from clipper.worker.frontend.limits import (
    MAX_CONNECTIONS,
    MAX_OVER_BOUND,
    MIN_OWN_DESCRIPTORS,
    most_connections,
)


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 8192, 20_000])
def test_clients_leave_some_to_the_worker_even_while_some_are_refused(descriptors: int) -> None:
    left = descriptors - most_connections(descriptors) - MAX_OVER_BOUND
    assert left >= max(MIN_OWN_DESCRIPTORS, descriptors // 4)


def test_of_many_descriptors_connections_take_no_more_than_their_bound() -> None:
    assert most_connections(1_000_000) == MAX_CONNECTIONS


def test_of_few_some_are_left_to_clients() -> None:
    assert most_connections(64) > 0
