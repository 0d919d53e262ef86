"""Tests for containers on Ray alone, on a real cluster; test_manager.py has the tests for every kind."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.base.processes.proc import start_time, variable
from clipper.errors import Unavailable
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.ray.actor_processes import RayContainer
from clipper.supervisor.managers.ray.connection import Cluster, Connection
from clipper.supervisor.managers.ray.messages import List
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.replica import Replica
from scripts.ray_cluster import RayCluster, actor_of, running_cluster
from scripts.real_models import environment
from tests.manager_bench import SLOT, SUM, Bench, run
from tests.waiting import until_async

pytestmark = [pytest.mark.machine, pytest.mark.long]


@pytest.fixture
def bench(tmp_path: Path, ray_cluster: RayCluster) -> Iterator[Bench]:
    # Nodes share this machine, so they would share what earlier runs have left there.
    bench = Bench(tmp_path, "ray", ray_cluster.environ)
    yield bench
    bench.close()


def container_of(replica: Replica | None) -> RayContainer:
    assert replica is not None
    assert isinstance(replica._container, RayContainer)
    return replica._container


def test_replicas_spread_and_are_dialled_over_tls_with_a_token(bench: Bench, ray_cluster: RayCluster) -> None:
    async def test() -> None:
        spec = bench.model(SUM, input_type="float64[4]", cpus=0.5)
        slots = [Slot("sum", "1", index) for index in (1, 2)]
        for slot in slots:
            bench.manager.start(slot, spec)
        await until_async(lambda: {status.phase for status in bench.manager.slots()} == {"ready"})
        containers = [container_of(status.replica) for status in bench.manager.slots()]
        assert {container.node for container in containers} == {
            f"{ray_cluster.host} ({id_[:8]})" for id_ in ray_cluster.nodes()
        }
        for container in containers:
            assert container.address.address.startswith(f"tcp:{ray_cluster.host}:")
            assert container.address.certificate.startswith("-----BEGIN CERTIFICATE-----")
            assert len(container.address.token) > 40
            # Neither the model nor what it starts can read the token; its threads are those of its share.
            assert container.pid is not None
            assert variable(container.pid, "OMP_NUM_THREADS") == "1"
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test())


def test_what_a_killed_actor_leaves_is_ended_and_its_replica_is_dead(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        pid = await bench.ready()
        actor = actor_of(pid)
        os.kill(actor, signal.SIGKILL)
        assert "lost with its node or its actor" in await bench.until_dead()
        # Nobody but the guard could end it.
        await until_async(lambda: start_time(pid) is None)

    run(test())


@pytest.mark.scale
def test_containers_outlive_the_driver(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(f"print('still here')\n{SUM}"))
        pid = await bench.ready()
        connection = container_of(bench.status.replica)._actors.connection
        driver = connection._process
        assert driver is not None
        driver._process.kill()
        await driver.ended
        # The next request finds it again by its name.
        await bench.manager.save_logs(SLOT.model_id)
        assert "still here" in tail(bench.manager.log_path(SLOT), 9)
        assert start_time(pid) is not None and bench.status.phase == "ready"
        os.kill(pid, signal.SIGKILL)
        assert "SIGKILL" in await bench.until_dead()

    run(test())


@pytest.mark.scale
def test_a_replica_waits_for_room_and_says_so(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, cpus=1000.0))
        replica = bench.status.replica
        assert replica is not None
        await until_async(lambda: "waiting for room in the Ray cluster: 1000 CPUs" in (replica.progress or ""))
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test())


@pytest.mark.scale
def test_replicas_go_where_their_placement_and_resources_are(tmp_path: Path) -> None:
    with running_cluster(environment("ray"), 0, 4) as cluster:
        labelled = cluster.add(4, resources={"ssd": 2}, labels={"zone": "a"})
        bench = Bench(tmp_path, "ray", cluster.environ)

        async def test() -> None:
            start, slots = bench.manager.start, [Slot("sum", "1", index) for index in range(1, 6)]
            start(slots[0], bench.model(SUM, cpus=0.5, resources={"ssd": 1.0}))
            start(slots[1], bench.model(SUM, cpus=0.5, resources={"ssd": 1.0}, placement=f"node={cluster.host}"))
            start(slots[2], bench.model(SUM, cpus=0.5, placement="zone=a,pack"))
            await until_async(lambda: [one.phase for one in bench.manager.slots()] == ["ready"] * 3)
            found = {container_of(status.replica).node for status in bench.manager.slots()}
            assert found == {f"{cluster.host} ({labelled[:8]})"}
            # Those that fit nowhere say what they wait for.
            start(slots[3], bench.model(SUM, cpus=0.5, resources={"ssd": 1.0}))
            start(slots[4], bench.model(SUM, cpus=0.5, placement="zone=b,node=203.0.113.9"))
            wanted = ["0.5 CPUs, 1 ssd", "0.5 CPUs on the node 203.0.113.9 with the labels zone=b"]
            told = [f"waiting for room in the Ray cluster: {one} each" for one in wanted]
            await until_async(
                lambda: [one.replica and one.replica.progress for one in bench.manager.slots()][3:] == told
            )
            await bench.manager.stop_all()
            bench.leaves_nothing()

        run(test())
        bench.close()


@pytest.mark.scale
def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, ray_cluster: RayCluster) -> None:
    cluster = Cluster(
        str(ray_cluster.python),
        "127.0.0.1:1",
        "nobody",
        {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[4] / "src"),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "1",
        },
        tmp_path / "log",
    )

    async def test() -> None:
        connection = Connection(cluster)
        with pytest.raises(Unavailable, match=r"Ray cannot be reached at 127\.0\.0\.1:1.*ray start"):
            await connection.ask(List)
        connection.close()

    asyncio.run(test())
