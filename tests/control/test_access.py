"""A peer may send messages by the name in its certificate and by the epoch for which it speaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.difference import EPOCH_BITS, Difference
from clipper.control.identity import PeerName
from clipper.control.messages import (
    AnyCommand,
    Apply,
    ApplyDifference,
    DescribePolicy,
    Drain,
    GetRecentInput,
    GetStatistics,
    Observe,
)
from clipper.control.server import Access
from clipper.control.snapshot import Snapshot
from clipper.errors import Forbidden

READS: tuple[AnyCommand, ...] = (DescribePolicy("a"), GetRecentInput("m"))
OF_WORKERS: tuple[AnyCommand, ...] = (Observe("a", ()), GetStatistics())
WORKER = PeerName("worker", 3)


def whole(epoch: int, count: int = 1) -> Apply:
    return Apply(Snapshot((epoch << EPOCH_BITS) + count))


def difference(epoch: int) -> ApplyDifference:
    return ApplyDifference(Difference(epoch << EPOCH_BITS, (epoch << EPOCH_BITS) + 1))


def supervisor(epoch: int) -> PeerName:
    return PeerName("supervisor", epoch)


@pytest.mark.parametrize("command", [*READS, whole(0), whole(9), difference(9), Drain(), Drain(9)])
def test_a_worker_may_send_feedback_and_ask_for_counts_and_nothing_else(command: AnyCommand) -> None:
    access = Access()
    for allowed in OF_WORKERS:
        access.admit(WORKER, allowed)
    with pytest.raises(Forbidden, match=f"worker/3 may not send {type(command).__name__}"):
        access.admit(WORKER, command)
    assert access.heard == 0


@pytest.mark.parametrize("caller", [None, supervisor(0), supervisor(7)])
@pytest.mark.parametrize("command", [*READS, *OF_WORKERS])
def test_a_supervisor_of_any_epoch_may_ask(caller: PeerName | None, command: AnyCommand) -> None:
    access = Access()
    access.admit(None, whole(9))
    access.admit(caller, command)
    assert access.heard == 9


@pytest.mark.parametrize(
    ("heard", "caller", "command", "why"),
    [
        (0, supervisor(1), whole(1), None),
        (1, supervisor(1), difference(1), None),
        (1, supervisor(2), whole(2), None),
        (2, supervisor(2), Drain(2), None),
        (2, supervisor(1), whole(1), "for epoch 1, and this worker obeys epoch 2"),
        (2, supervisor(1), difference(1), "for epoch 1, and this worker obeys epoch 2"),
        (2, supervisor(1), Drain(1), "for epoch 1, and this worker obeys epoch 2"),
        (2, supervisor(9), Drain(1), "for epoch 1, and this worker obeys epoch 2"),
        (2, supervisor(1), whole(3), "may not speak for epoch 3"),
        (2, supervisor(1), Drain(3), "may not speak for epoch 3"),
        (2, supervisor(2), Drain(), "has to say for which epoch"),
        (2, None, whole(2), None),
        (2, None, whole(1), None),
        (2, None, whole(7), None),
        (2, None, Drain(2), None),
        (2, None, Drain(), None),
        (2, None, Drain(1), "the supervisor on this machine sent Drain for epoch 1"),
    ],
)
def test_only_the_latest_supervisor_is_obeyed(
    heard: int, caller: PeerName | None, command: AnyCommand, why: str | None
) -> None:
    access = Access()
    access.heard = heard
    if why is None:
        access.admit(caller, command)
    else:
        with pytest.raises(Forbidden, match=why):
            access.admit(caller, command)
        assert access.heard == heard


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([whole, difference, Drain]))))
def test_over_tcp_epochs_only_rise_and_never_beyond_a_certificate(sent: list[tuple[int, int, type]]) -> None:
    access, obeyed = Access(), [0]
    for certified, epoch, make in sent:
        try:
            access.admit(supervisor(certified), make(epoch))
        except Forbidden:
            continue
        assert epoch <= certified
        obeyed.append(epoch)
    assert obeyed == sorted(obeyed)
    assert access.heard == obeyed[-1]
