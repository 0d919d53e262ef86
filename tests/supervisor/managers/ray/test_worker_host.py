"""The server's side of workers on nodes, against a driver that is scripted; test_workers_on_nodes.py has a real Ray."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from clipper.control.address import TcpAddress
from clipper.control.authority import Authority, make_authority
from clipper.control.identity import PeerName
from clipper.errors import ContainerFailed, Unavailable
from clipper.supervisor.managers.launcher import NodeLost
from clipper.supervisor.managers.ray import actor_processes, connection
from clipper.supervisor.managers.ray.connection import Cluster
from clipper.supervisor.managers.ray.messages import List
from clipper.supervisor.managers.ray.worker_host import RayWorkerHost
from clipper.supervisor.managers.worker_host import ClusterNode, WorkerStart
from tests.waiting import TIMEOUT_S, until_async

AUTHORITY = Authority(make_authority(datetime.now(UTC)))
SCRIPTED = Path(__file__).with_name("scripted_driver.py")


def sign(request: bytes, instance: int) -> tuple[bytes, bytes]:
    return AUTHORITY.sign(request, PeerName("worker", instance), datetime.now(UTC)), AUTHORITY.certificate


def start(index: int, instance: int, node: str, **config: Any) -> WorkerStart:
    note = {"index": index, "instance": instance, "node": node}
    return WorkerStart(f"worker-{index}", instance, {"index": index, **config}, {"SECRET": "s"}, note, node)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = folder / "python"
        self.away = folder / "away"
        # As a driver is started: -m MODULE ADDRESS NAMESPACE.
        reached = f'[ ! -e "{self.away}" ] || exit 1\nshift 2\nexec "{sys.executable}" "{SCRIPTED}" "{folder}" "$@"'
        python.write_text(f"#!/bin/sh\n{reached}\n")
        python.chmod(0o755)
        self.may_act = True
        self.starts_again = 0
        environ = {"PYTHONPATH": ":".join(sys.path)}
        log = folder / "driver.log"
        self.cluster = Cluster(str(python), "auto", "n", environ, log, lambda: self.may_act, self._start_again)

    def _start_again(self) -> None:
        self.starts_again += 1

    def host(self, build: str = "b1") -> RayWorkerHost:
        return RayWorkerHost(
            self.cluster, self.folder / "artifacts", self.folder / "in-use", (21000, 21999), build, sign
        )

    @property
    def actors(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "actors.json").read_text()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test()

    asyncio.run(bounded())


def test_a_worker_is_started_on_its_node_with_a_certificate_of_its_name(bench: Bench) -> None:
    async def test() -> None:
        host = bench.host()
        assert await host.nodes() == [ClusterNode("10.0.0.1", True, True)]
        started = await host.start(start(3, 17, "10.0.0.2"))
        assert started.control == TcpAddress("10.0.0.2", 21000) and started.process.pid == 77
        (actor,) = bench.actors.values()
        assert (actor["node"], actor["kind"], actor["cpus"]) == ("10.0.0.2", "worker", 0.0)
        certificate = x509.load_pem_x509_certificate(actor["certificate"].encode())
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert name.value == "worker/17"
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(actor["authority"].encode()))
        assert await host.sees(started.process)
        (bench.folder / "worker-3.g17.ended").touch()
        await started.process.exited.wait()
        assert started.process.how_it_ended == "exited with code 3"
        assert not await host.sees(started.process)
        await host.clean_up("worker-3", started.process, started.control)
        assert bench.actors == {} and not (bench.folder / "in-use").exists()
        host.close()

    run(test)


def test_one_that_cannot_be_started_leaves_no_actor(bench: Bench) -> None:
    async def test() -> None:
        host = bench.host()
        with pytest.raises(ContainerFailed, match="no port is free"):
            await host.start(start(0, 1, "10.0.0.2", fails=True))
        assert bench.actors == {}
        host.close()
        other = bench.host("b2")
        with pytest.raises(ContainerFailed, match=r"the node at 10\.0\.0\.2 has Clipper b1, and the server b2"):
            await other.start(start(0, 2, "10.0.0.2"))
        assert bench.actors == {}
        other.close()

    run(test)


def test_a_worker_on_a_silent_node_soon_gives_way_to_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_processes, "STOP_TIMEOUT_S", 0.05)

    async def test() -> None:
        host = bench.host()
        started = await host.start(start(0, 1, "10.0.0.2"))
        lost = bench.folder / "worker-0.g1.lost"
        lost.touch()
        await started.process.stop(0.0)
        assert started.process.exited.is_set()
        await host.clean_up("worker-0", started.process, started.control)
        # Each question would wait for its whole time.
        assert lost.read_text() == "stop\n" and bench.actors == {}
        host.close()

    run(test)


def test_code_is_sent_once_to_each_node(bench: Bench) -> None:
    async def test() -> None:
        host = bench.host()
        started = await host.start(start(0, 1, "10.0.0.2"))
        for folders in (["d1/code", "d1/code"], ["d1/code", "d2/code"], []):
            await host.provide(started.process, folders)
        (actor,) = bench.actors.values()
        assert actor["had"] == ["d1", "d2"]
        assert actor["folder"] == str(bench.folder / "artifacts" / "d2")
        host.close()

    run(test)


def test_the_next_server_renews_certificates_and_kills_unknown_workers(bench: Bench) -> None:
    async def test() -> None:
        first = bench.host()
        for index in (0, 1):
            await first.start(start(index, index + 1, "10.0.0.2"))
        first.close()
        before = bench.actors["worker-0.g1"]["certificate"]
        assert bench.actors.keys() == {"worker-0.g1", "worker-1.g2"}

        host = bench.host()
        records = sorted(await host.orphans(), key=lambda record: record.name)
        assert [record.extra["instance"] for record in records] == [1, 2]
        adopted = await host.adopt(records[0])
        await until_async(lambda: bench.actors["worker-0.g1"]["certificate"] != before)
        await host.end(records[1])
        assert bench.actors.keys() == {"worker-0.g1"}
        # One that Ray was not there for to kill.
        (bench.folder / "actors.json").write_text(json.dumps(bench.actors | {"worker-9.g9": {}}))
        await host.start(start(1, 3, "10.0.0.3"))
        assert bench.actors.keys() == {"worker-0.g1", "worker-1.g3"}
        assert not adopted.exited.is_set()
        host.close()

    run(test)


@pytest.mark.parametrize("were_running", [True, False])
def test_workers_that_ray_hid_from_a_takeover_are_spared_until_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, were_running: bool
) -> None:
    monkeypatch.setattr(connection, "RETRY_AFTER_S", 0.0)

    async def test() -> None:
        first = bench.host()
        started = await first.start(start(0, 1, "10.0.0.2"))
        if not were_running:
            await first.clean_up("worker-0", started.process, started.control)
            (bench.folder / "in-use").touch()
        first.close()
        bench.away.touch()
        host = bench.host()
        assert await host.orphans() == []
        bench.away.unlink()
        if were_running:
            with pytest.raises(NodeLost, match="starts again and takes over"):
                await host.start(start(1, 2, "10.0.0.3"))
            assert bench.actors.keys() == {"worker-0.g1"}
            following = bench.host()
            (record,) = await following.orphans()
            assert record.name == "worker-0"
            following.close()
        else:  # there is nothing to take over
            await host.start(start(1, 2, "10.0.0.3"))
        assert bench.starts_again == were_running
        host.close()

    run(test)


@pytest.mark.parametrize("node", ["10.0.0.2", "10.0.0.3"])
def test_a_restart_by_its_actor_while_this_server_might_not_act_is_found(bench: Bench, node: str) -> None:
    async def test() -> None:
        host = bench.host()
        started = await host.start(start(0, 1, "10.0.0.2"))
        bench.may_act = False
        (bench.folder / "worker-0.g1.ended").touch()
        await started.process.exited.wait()
        await host.clean_up("worker-0", started.process, started.control)
        assert bench.actors.keys() == {"worker-0.g1"}
        with pytest.raises(Unavailable, match="leaves the processes on Ray alone"):
            await host.start(start(1, 2, "10.0.0.2"))
        # It looks, and may do no more.
        finding = asyncio.ensure_future(host.regain("worker-0", node))
        await asyncio.sleep(0)
        (bench.folder / "worker-0.g1.ended").unlink()
        if node != "10.0.0.2":  # the server has another there by now
            bench.may_act = True
            assert await finding is None and bench.actors == {}
        else:
            # A look from before it was started again must not kill it, so the server may act only from here on.
            record = await finding
            bench.may_act = True
            assert record is not None and record.extra["instance"] == 1
            again = await host.adopt(record)
            # Nobody takes it for one that was left.
            await host.start(start(1, 3, "10.0.0.3"))
            assert bench.actors.keys() == {"worker-0.g1", "worker-1.g3"} and not again.exited.is_set()
            assert await host.regain("worker-0", node) is None
        host.close()

    run(test)


def test_one_that_its_actor_has_not_started_again_is_ended_by_who_may(bench: Bench) -> None:
    async def test() -> None:
        host = bench.host()
        started = await host.start(start(0, 1, "10.0.0.2"))
        bench.may_act = False
        (bench.folder / "worker-0.g1.ended").touch()
        await started.process.exited.wait()
        await host.clean_up("worker-0", started.process, started.control)
        bench.may_act = True
        assert await host.regain("worker-0", "10.0.0.2") is None
        assert bench.actors == {}
        host.close()

    run(test)


def test_one_that_is_closed_while_it_connects_leaves_no_driver(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that was closed forgot the one after it, whose driver nobody ended."""
    drivers: list[connection._DriverProcess] = []

    class Driver(connection._DriverProcess):
        def __init__(self, cluster: Cluster) -> None:
            super().__init__(cluster)
            drivers.append(self)

    async def test() -> None:
        opened = connection.Connection(bench.cluster)

        async def ask_later() -> Any:
            while len(drivers) < 2:
                await asyncio.sleep(0)
            return await opened.ask(List)

        first, later = asyncio.ensure_future(opened.ask(List)), asyncio.ensure_future(ask_later())
        while not drivers:
            await asyncio.sleep(0)
        opened.close()
        assert await opened.ask(List) == await later == []
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
        opened.close()
        assert len(drivers) == 2 and all(one._process.poll() is not None for one in drivers)

    monkeypatch.setattr(connection, "_DriverProcess", Driver)
    run(test)
