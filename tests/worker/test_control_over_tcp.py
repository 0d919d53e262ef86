"""Real workers whose control channels are on TCP: a supervisor tells them, and one passes feedback on to the other."""

from collections.abc import Iterator

import pytest

from clipper.control.difference import EPOCH_BITS
from clipper.control.identity import PeerName
from clipper.control.messages import Apply, CommandRefused, Drain, Draining, GetStatistics
from clipper.control.snapshot import Peer, Snapshot
from tests.control_channel import LEADS
from tests.remote_worker import RemoteWorker
from tests.serving import Client, application, model, serving, version


@pytest.fixture
def workers() -> Iterator[tuple[RemoteWorker, RemoteWorker]]:
    """Two, that serve one application by a snapshot of epoch 3."""
    with serving() as system:
        found = RemoteWorker(system, 1), RemoteWorker(system, 2)
        container = system.start_container()
        peers = tuple(Peer(worker.name.number, worker.address.wire) for worker in found)
        snapshot = Snapshot(
            (LEADS.number << EPOCH_BITS) + 1, (application("app"),), (model(version(container)),), peers, workers=2
        )
        for worker in found:
            worker.until_logged("answers on")
            applied = worker.ask(Apply(snapshot))
            assert (applied.generation, applied.unlinked) == (snapshot.generation, {})
        yield found
        for worker in found:
            assert "Traceback" not in worker.log, worker.log


def test_two_workers_over_tcp(workers: tuple[RemoteWorker, RemoteWorker]) -> None:
    one, other = workers
    with Client(one.port) as here, Client(other.port) as there:
        answer = here.ask("/app/predict", {"input": [20, 22]}).json
        assert answer["output"] == 42.0
        # The query is the first one's, so the other passes the feedback on.
        observed = there.ask("/app/observe", {"query_id": answer["query_id"], "label": 42.0})
        assert observed.status == 200, observed
    found = [worker.ask(GetStatistics(("app",))).worker.applications[0].selection for worker in workers]
    assert [each and each.answers_scored for each in found] == [1, 0]
    # A worker with a certificate of its own may not stop another, nor may the supervisor of before.
    for name in (PeerName("worker", 2), PeerName("supervisor", 2)):
        with pytest.raises(CommandRefused):
            one.ask(Drain(name.number), name)
    for worker in workers:
        assert worker.ask(Drain(LEADS.number)) == Draining()
        assert worker.wait() == 0
    assert "worker/2 may not send Drain" in one.log
