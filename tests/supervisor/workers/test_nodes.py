"""Workers on the nodes of a cluster: which there are, and what becomes of those that cannot be reached."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from clipper.base.processes.process import ProcessRecord
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.settings.application import Selection
from clipper.supervisor.catalog import Numbers
from clipper.supervisor.reconciler.reconciler import worker_facts
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.workers import worker_process
from clipper.supervisor.workers.nodes import NodeFollower, addresses_of, own_address, take_over
from clipper.supervisor.workers.settings import WorkerNote, WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import Workers
from tests.supervisor.stub_host import StubHost, StubWorker
from tests.waiting import until_async

SETTINGS = WorkerSettings("", 1337, 1000, store_digest="digest")
A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
UNKNOWN = "the server does not know which nodes are up"


class Cluster:
    """A stub cluster with the supervisor's workers on it."""

    def __init__(self, folder: Path, *up: str, per_node: int = 1) -> None:
        self.host = StubHost(folder, *up)
        self.instances = 0
        self.changes = 0
        self.workers = Workers(self._make, None)
        self.emptied: list[set[str]] = []
        self.follower = NodeFollower(self.host, self.workers, per_node, 3600.0, self._note, self._empty)
        self.workers.start()

    def _make(self, index: int, node: str) -> WorkerProcess:
        return WorkerProcess(index, SETTINGS, self.host, "redis://x", self._next, self._note, "b1", node=node)

    def _next(self) -> int:
        self.instances += 1
        return self.instances

    def _empty(self, nodes: Collection[str]) -> None:
        if [set(nodes)] != self.emptied[-1:]:
            self.emptied.append(set(nodes))

    def _note(self) -> None:
        self.changes += 1

    def phases(self) -> dict[str, str]:
        return {f"{worker.name} on {worker.node}": worker.phase for worker in self.workers}

    def generations(self) -> list[int | None]:
        return [worker_facts(worker).generation for worker in self.workers]

    def on(self, node: str) -> StubWorker:
        (found,) = (one for (where, _), one in self.host.running.items() if where == node)
        return found


@pytest.fixture
def on_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test on a cluster with these nodes, and drains its workers."""
    monkeypatch.setattr(worker_process, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(worker_process, "EXIT_AFTER_LOSS_S", 0.01)

    def run(test: Callable[[Cluster], Awaitable[None]], *up: str, per_node: int = 1) -> None:
        async def main() -> None:
            cluster = Cluster(tmp_path, *up, per_node=per_node)
            await test(cluster)
            await cluster.workers.drain()
            assert cluster.host.running == {}

        asyncio.run(main())

    return run


OnCluster = Callable[..., None]


def test_each_node_has_its_workers_as_nodes_come_and_go(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        host, follower = cluster.host, cluster.follower
        cluster.workers.push(Snapshot(1))
        await follower.look()
        await until_async(lambda: cluster.generations() == [1] * 4)
        assert cluster.workers.pids() == {}  # what has these numbers on this machine is something else
        assert host.names() == [f"worker-0 on {A}", f"worker-1 on {B}", f"worker-2 on {A}", f"worker-3 on {B}"]
        host.up = [A, B, C]
        await follower.look()
        # One that comes later gets what the others have.
        await until_async(lambda: cluster.generations() == [1] * 6)
        changes = cluster.changes
        await follower.look()
        assert cluster.changes == changes  # nothing is new
        host.up = [B, C]
        await follower.look()
        assert sorted(worker.index for worker in cluster.workers) == [1, 3, 4, 5]
        await until_async(lambda: not any(node == A for node, _ in host.running))
        # The workers of a node that comes in its place get the same names.
        host.up = [B, C, "10.0.0.4"]
        await follower.look()
        await until_async(lambda: cluster.generations() == [1] * 6)
        assert sorted(name for node, name in host.running if node == "10.0.0.4") == ["worker-0", "worker-2"]

    on_cluster(test, A, B, per_node=2)


def test_an_emptied_node_drains_its_workers_before_its_replicas_move(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        host, follower = cluster.host, cluster.follower
        cluster.workers.push(Snapshot(1))
        await follower.look()
        await until_async(lambda: cluster.generations() == [1] * 4)
        host.draining = [B]
        await follower.look()
        # They are told again, with that they are to say so.
        told = [one for _, one in sorted(host.running.items())]
        await until_async(lambda: [one.is_stopping for one in told] == [False, False, True, True])
        assert cluster.phases() == {f"worker-{index} on {node}": "ready" for index, node in enumerate([A, B, A, B])}
        assert not any(cluster.emptied)
        leaving = [one for (node, _), one in host.running.items() if node == B]
        host.up = [A, B, C]
        await follower.look()
        # Nobody gets the numbers of those that are there.
        assert [worker.index for worker in cluster.workers if worker.node == C] == [4, 5]
        follower._drain_delay_s = 0.0
        await follower.look()
        assert not any(cluster.emptied)
        await until_async(lambda: {worker.node for worker in cluster.workers} == {A, C})
        assert [one.how_it_ended for one in leaving] == ["drained"] * 2
        await follower.look()
        assert cluster.emptied[-1] == {B}
        host.up, host.draining = [A, C], []
        await follower.look()
        assert cluster.emptied[-1] == set()

    on_cluster(test, A, B, per_node=2)


def test_while_the_cluster_does_not_answer_workers_stay_where_they_are(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        assert cluster.follower.problems() == [f"{UNKNOWN}: the cluster was not asked yet"]
        await cluster.follower.look()
        assert cluster.follower.problems() == []
        assert await own_address(cluster.host) == A
        cluster.host.cluster_is_away = True
        await cluster.follower.look()
        assert [worker.node for worker in cluster.workers] == [A, B]
        assert cluster.follower.problems() == [f"{UNKNOWN}: Ray: no answer within 10 s"]
        assert await own_address(cluster.host) is None
        cluster.host.cluster_is_away = False
        cluster.host.up = [A, A, B]
        assert addresses_of(await cluster.host.nodes()) == {A, B}  # nodes of one machine share its ports
        await cluster.follower.look()
        assert cluster.follower.problems() == []

    on_cluster(test, A, B)


def test_an_unreachable_one_is_lost_and_gets_the_newest_when_it_is_found(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(1))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1, 1])
        worker, cluster.host.seen = cluster.on(A), False
        worker.cut()
        await until_async(lambda: cluster.phases() == {f"worker-0 on {A}": "lost", f"worker-1 on {B}": "ready"})
        lost = worker_facts(next(iter(cluster.workers)))
        assert lost.generation is None and not lost.is_expected and lost.node == A
        assert lost.last_error is not None and "worker-0 cannot be reached" in lost.last_error
        cluster.workers.push(Snapshot(2))
        await until_async(lambda: cluster.generations() == [None, 2])
        assert worker.generation == 1 and not worker.exited.is_set()  # it goes on by what it has
        worker.heal()
        await until_async(lambda: cluster.generations() == [2, 2])
        assert worker.told[-1] == (2, True)  # whole: what it has by now was not known
        assert cluster.phases() == {f"worker-0 on {A}": "ready", f"worker-1 on {B}": "ready"}
        assert [worker.restarts for worker in cluster.workers] == [0, 0]
        assert [worker.last_error for worker in cluster.workers] == [None, None]

    on_cluster(test, A, B)


def test_a_silent_one_that_is_seen_to_run_hangs_and_is_replaced(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(1))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1])
        hung = cluster.on(A)
        hung.cut()
        await until_async(hung.exited.is_set)
        await until_async(lambda: cluster.generations() == [1])
        (worker,) = cluster.workers
        assert worker.restarts == 1 and cluster.on(A) is not hung

    on_cluster(test, A)


def test_one_that_dies_is_started_again_on_its_node(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(1))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1, 1])
        dead = cluster.on(B)
        dead.end("was lost with its node or its actor: gone")
        await until_async(lambda: cluster.phases()[f"worker-1 on {B}"] == "backing_off")
        assert [worker.last_error for worker in cluster.workers] == [
            None,
            "worker-1 was lost with its node or its actor: gone",
        ]
        await until_async(lambda: cluster.generations() == [1, 1])
        assert cluster.on(B) is not dead
        assert cluster.on(B).start.instance == 3

    on_cluster(test, A, B)


def test_what_one_left_is_removed_though_its_keeper_ends_meanwhile(on_cluster: OnCluster) -> None:
    """Its actor stayed, and started the worker again after the server had stopped."""

    async def test(cluster: Cluster) -> None:
        await cluster.follower.look()
        await until_async(lambda: cluster.phases() == {f"worker-0 on {A}": "ready"})
        may_go, clean_up = asyncio.Event(), cluster.host.clean_up

        async def slow(*given: Any) -> None:
            await may_go.wait()
            await clean_up(*given)

        cluster.host.clean_up = slow  # type: ignore[method-assign]
        cluster.on(A).end("was lost with its node or its actor: gone")
        (worker,) = cluster.workers
        await until_async(lambda: worker.process is None)
        await cluster.workers.let_go()
        asyncio.get_running_loop().call_later(0.05, may_go.set)

    on_cluster(test, A)


def test_code_of_users_policies_is_there_before_a_snapshot_names_it(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        own = ApplicationSnapshot("own", "float64[1]", 20.0, selection=Selection("p:P", code="d1/code"))
        other = ApplicationSnapshot("other", "float64[1]", 20.0)
        cluster.workers.push(Snapshot(1, (other,)))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1])
        cluster.host.lacks = "sending the artifact failed"
        tries = len(cluster.on(A).told)
        cluster.workers.push(Snapshot(2, (own, other)))
        await asyncio.sleep(0)
        cluster.host.lacks = ""
        await until_async(lambda: cluster.generations() == [2])
        assert cluster.host.provided[-1] == ["d1/code"]
        assert len(cluster.on(A).told) == tries + 1
        (worker,) = cluster.workers
        assert worker.restarts == 0

    on_cluster(test, A)


def test_a_server_that_stops_leaves_what_the_next_leader_goes_on_with(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.follower.look()
        await until_async(lambda: set(cluster.phases().values()) == {"ready"})
        await cluster.workers.let_go()
        assert not cluster.on(A).exited.is_set()
        cluster.host.up = []
        await cluster.follower.look()
        assert not cluster.on(A).exited.is_set()  # it decides about none any more

    on_cluster(test, A)


def left(cluster: Cluster, settings: WorkerSettings = SETTINGS, build: str = "b1") -> ProcessRecord:
    """The record of the worker that runs on A."""
    worker = cluster.on(A)
    note = WorkerNote(0, worker.start.instance, str(worker.path), settings, build, node=A)
    return ProcessRecord("worker-0", worker.pid, 1, (), {**worker.start.note, **_fields(note)})


def _fields(note: WorkerNote) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(note)
    return found


@pytest.mark.parametrize(
    ("settings", "build", "wanted", "is_adopted", "is_outdated"),
    [
        (SETTINGS, "b1", True, True, False),
        (SETTINGS, "b0", True, True, True),
        (replace(SETTINGS, cache_bytes=1), "b1", True, True, True),
        (replace(SETTINGS, port=1400), "b1", True, False, False),
        (SETTINGS, "b1", False, False, False),  # the server has its workers on its own machine now
    ],
)
def test_the_next_server_goes_on_with_workers_or_ends_them(
    on_cluster: OnCluster,
    tmp_path: Path,
    settings: WorkerSettings,
    build: str,
    wanted: bool,
    is_adopted: bool,
    is_outdated: bool,
) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(1))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1])
        await cluster.workers.let_go()
        worker, cluster.host.records = cluster.on(A), [left(cluster, settings, build)]
        cluster.workers = Workers(cluster._make, None)
        registry = SqliteRegistry(tmp_path / "registry.sqlite3")
        await take_over(cluster.host, cluster.workers, SETTINGS if wanted else None, Numbers(registry, "worker"))
        registry.close()
        assert cluster.host.ended == ([] if is_adopted else ["worker-0"])
        facts = [worker_facts(one) for one in cluster.workers]
        assert [(one.index, one.node, one.is_outdated) for one in facts] == [(0, A, is_outdated)] * is_adopted
        cluster.workers.start()
        cluster.workers.push(Snapshot(2))
        if is_adopted:
            await until_async(lambda: worker.generation == 2)
        else:
            worker.end("was ended")
            cluster.host.running.clear()

    on_cluster(test, A)


def test_one_that_its_host_restarted_is_adopted_and_told_the_newest(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        host, follower = cluster.host, cluster.follower
        cluster.workers.push(Snapshot(5))
        await follower.look()
        await until_async(lambda: cluster.generations() == [5])
        before = cluster.on(A)
        # Nobody could end it, so its actor has started it again, with what it had kept.
        note = WorkerNote(0, before.start.instance, str(before.path), SETTINGS, "b1", node=A)
        record = ProcessRecord("worker-0", 7, 1, (), msgspec.to_builtins(note))
        host.regained["worker-0"] = record
        again = StubWorker(before.start, before.path)
        again.generation = 4
        host.stands_in = again
        before.end("was killed")
        await until_async(lambda: again.told == [(5, True)])
        await until_async(lambda: cluster.generations() == [5])
        (worker,) = cluster.workers
        # The generation that it had kept is ours, so no epoch is taken for it.
        assert (worker.instance, worker.found_generation, host.regained) == (before.start.instance, 0, {})

    on_cluster(test, A)


def test_one_that_was_started_again_unseen_is_told_the_newest(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(5))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [5])
        one = cluster.on(A)
        one.generation = 4
        await until_async(lambda: one.told[-1] == (5, True) and len(one.told) == 2)
        await until_async(lambda: cluster.generations() == [5])

    on_cluster(test, A)


def test_logs_come_from_each_node_and_one_that_cannot_be_asked_says_so(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        await cluster.follower.look()
        await until_async(lambda: len(cluster.host.running) == 2)
        logs = cluster.follower.logs
        found = await logs(None, {}, 3)
        assert found == {
            f"{kind}-{index}": ((f"{kind}-{index} 3",), "7.") for kind in ("access", "worker") for index in (0, 1)
        }
        assert await logs("access-1", {}, 3) == {"access-1": (("access-1 3",), "7.")}
        assert await logs("supervisor", {}, 3) == {} == await logs("worker-2", {}, 3)
        cluster.host.cluster_is_away = True
        told = await logs(None, {"worker-1": "5."}, 3)
        assert told["worker-0"] == ((f"its log on {A} cannot be read now: Ray: no answer within 5 s",), "0.")
        # A client that follows this log gets no such line, and goes on later from its place.
        assert told["worker-1"] == ((), "5.")

    on_cluster(test, A, B)


def test_one_reachable_again_before_its_actor_answers_does_not_hang(on_cluster: OnCluster) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.workers.push(Snapshot(1))
        await cluster.follower.look()
        await until_async(lambda: cluster.generations() == [1])
        one = cluster.on(A)
        # The network is back between the question that was in vain and the one to its actor.
        cluster.host.on_look = one.heal
        one.cut()
        await until_async(lambda: cluster.host.on_look is None)
        await until_async(lambda: cluster.phases() == {f"worker-0 on {A}": "ready"})
        await until_async(lambda: cluster.generations() == [1])
        assert cluster.on(A) is one and not one.exited.is_set()

    on_cluster(test, A)
