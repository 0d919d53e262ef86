"""Tests for containers in Docker alone; test_manager.py has the tests for every kind."""

import asyncio
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import clipper
from clipper.base.processes.proc import start_time
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.docker.options import CPU_SHARES, HOME_LABEL, IMAGE_HOME_LABEL, PUBLISHED
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.open import open_launchers
from tests.docker_daemon import BASE_IMAGE, DockerDaemon
from tests.manager_bench import SLOT, SUM, Bench, run
from tests.small_packages import make_wheel
from tests.waiting import until_async

pytestmark = [pytest.mark.long, pytest.mark.machine]


@pytest.fixture
def client(docker_daemon: DockerDaemon) -> Iterator[Any]:
    with closing(docker_daemon.client()) as client:
        yield client


@pytest.fixture
def bench(tmp_path: Path, docker_daemon: DockerDaemon) -> Iterator[Bench]:
    bench = Bench(tmp_path, "docker", docker_daemon.environ)
    yield bench
    bench.close()


def build(client: Any, folder: Path, tag: str, *lines: str) -> None:
    (folder / "Dockerfile").write_text("\n".join([f"FROM {BASE_IMAGE}", *lines]))
    client.images.build(path=str(folder), tag=tag, network_mode="host", rm=True)


WRITES = """
open("/tmp/kept", "w").close()
try:
    open("/filled", "w").close()
except OSError as error:
    print(error)
"""


def test_a_container_has_its_limits_and_no_rights(bench: Bench, client: Any) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(WRITES + SUM, memory_bytes=256 << 20, cpus=0.5))
        await bench.ready()
        (container,) = client.containers.list(filters={"label": f"{HOME_LABEL}={bench.path}"})
        host = container.attrs["HostConfig"]
        assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (256 << 20, 256 << 20, 500_000_000)
        assert host["CpuShares"] == CPU_SHARES
        assert (host["CapDrop"], host["RestartPolicy"]["Name"]) == (["ALL"], "no")
        assert container.labels["clipper.replica"] == str(SLOT)
        await bench.manager.stop_all()
        assert any("Read-only file system: '/filled'" in line for line in tail(bench.manager.log_path(SLOT), 9))

    run(test())


def test_a_container_with_its_name_does_not_prevent_a_start(bench: Bench, client: Any, tmp_path: Path) -> None:
    """Of another home, in which replicas are numbered alike, or of a stranger."""
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other", "docker", bench.environ)

    async def test() -> None:
        for one in (other, bench):
            one.manager.start(SLOT, one.model(SUM))
            await one.ready()
        names = [container.name for container in client.containers.list()]
        assert len({name.rpartition("-")[0] for name in names}) == 1 and len(names) == 2
        await bench.manager.stop_all()
        await other.manager.stop_all()

    run(test())


# A container shares the folder of its socket with us, on this machine's disk.
FILLS = """
import os
import sys

folder = os.path.dirname(sys.argv[sys.argv.index("--listen") + 1].removeprefix("unix:"))


def predict(inputs):
    {fill}
    return [float(row.sum()) for row in inputs]
"""


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        ("open(f'{folder}/filled', 'wb').write(bytes(2 << 20))", "wrote 2 MiB to its folder: the bound is 1 MiB"),
        ("[open(f'{folder}/{number}', 'w').close() for number in range(200)]", "files in its folder: the bound is 100"),
    ],
)
def test_a_container_that_fills_the_folder_of_its_socket_is_killed(bench: Bench, fill: str, reason: str) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(FILLS.format(fill=fill)))
        await bench.ready()
        with closing(await bench.predict()):
            assert reason in await bench.until_dead()
        bench.manager.forget(SLOT)
        bench.leaves_nothing()

    run(test())


def test_packages_are_installed_in_the_image(
    tmp_path: Path, docker_daemon: DockerDaemon, client: Any, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "image").mkdir()
    make_wheel(tmp_path / "image", "small", "1.0")
    build(client, tmp_path / "image", "with-wheels:1", "COPY *.whl /wheels/")
    bench = Bench(tmp_path, "docker", docker_daemon.environ, base_image="with-wheels:1")
    request.addfinalizer(bench.close)

    async def test() -> None:
        spec = bench.model(f"import small\nassert small.__version__ == '1.0'\n{SUM}", requirements="reqs.txt")
        reqs = bench.facilities.artifacts / spec.artifact / "reqs.txt"
        reqs.write_text("--no-index\n--find-links /wheels\nsmall\n")
        bench.manager.start(SLOT, spec)
        starting = bench.status.replica
        assert starting is not None
        await until_async(lambda: "Step" in str(starting.progress))
        await bench.ready()
        await bench.manager.stop_all()

    run(test())


def test_a_build_that_fails_says_once_what_the_installer_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        spec = bench.model(SUM, requirements="reqs.txt")
        (bench.facilities.artifacts / spec.artifact / "reqs.txt").write_text("--no-index\nno-such-package==7\n")
        bench.manager.start(SLOT, spec)
        assert "its image cannot be built" in await bench.until_dead()
        assert "No matching distribution found for no-such-package==7" in bench.failure
        (told,) = (text for text in caplog.messages if "its image cannot be built" in text)
        assert str(SLOT) in told
        bench.leaves_nothing()

    run(test())


def test_an_image_that_is_given_runs_as_it_is(bench: Bench, client: Any, tmp_path: Path) -> None:
    context = tmp_path / "image"
    shutil.copytree(Path(clipper.__file__).parent, context / "clipper", ignore=shutil.ignore_patterns("__pycache__"))
    (context / "my_model.py").write_text(SUM)
    build(
        client,
        context,
        "given:1",
        "COPY clipper /app/clipper",
        "COPY my_model.py /app/code/my_model.py",
        "ENV PYTHONPATH=/app",
        'ENTRYPOINT ["python3", "-m", "clipper.model.runtime", "--artifact", "/app", "--loader", "import", "--target", '
        '"my_model:predict"]',
    )

    async def test() -> None:
        bench.manager.start(SLOT, VersionSpec("", "image", "given:1", input_type="float64[2]", manager="docker"))
        await bench.ready()
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test())


def test_an_image_that_nobody_has_is_a_start_failure(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, VersionSpec("", "image", "localhost:1/nobody/has:1", manager="docker"))
        assert (
            "its image localhost:1/nobody/has:1 is not on this machine and cannot be fetched"
            in await bench.until_dead()
        )

    run(test())


@pytest.fixture
def dockerd_socket(tmp_path: Path) -> Path:
    """Where dockerd is looked for, which is not there yet."""
    return tmp_path / "docker.sock"


def test_dockerd_may_go_and_come_back(dockerd_socket: Path, docker_daemon: DockerDaemon, bench: Bench) -> None:
    def come() -> None:
        dockerd_socket.symlink_to(docker_daemon.host.removeprefix("unix://"))

    bench = Bench(bench.path, "docker", {"DOCKER_HOST": f"unix://{dockerd_socket}"})

    async def test() -> None:
        assert await bench.manager.orphans() == []
        bench.manager.start(SLOT, bench.model(SUM))
        assert "dockerd cannot be reached" in await bench.until_dead()
        # Others are unharmed.
        bench.manager.forget(SLOT)
        bench.manager.start(SLOT, replace(bench.model(SUM), manager="local"))
        await bench.ready()
        await bench.manager.stop_all()
        come()
        bench.manager.start(SLOT, bench.model(SUM))
        pid = await bench.ready()
        # Away again, it does not take with it what runs, and holds up nobody.
        dockerd_socket.unlink()
        await bench.manager.stop_all()
        assert start_time(pid) is not None
        come()
        bench.manager.start(SLOT, bench.model(SUM))
        await bench.ready()
        assert start_time(pid) is None
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test())


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path, docker_daemon: DockerDaemon) -> Iterator[MakeBench]:
    """One whose containers are dialled over TCP. Several are of one home, as one supervisor's after another."""
    benches = []

    def make(**options: Any) -> Bench:
        benches.append(Bench(tmp_path, "docker", docker_daemon.environ, transport="tcp", **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def network(client: Any) -> Iterator[str]:
    made = client.networks.create("own", driver="bridge")
    yield made.name
    made.remove()


def test_in_a_network_of_its_own_a_container_publishes_its_port(network: str, make_bench: MakeBench) -> None:
    bench = make_bench(network=network)

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        await bench.ready()
        replica = bench.status.replica
        assert replica is not None and replica.address is not None
        assert replica.note.listen == PUBLISHED
        assert re.fullmatch(r"tcp:127\.0\.0\.1:\d+", replica.address.address)
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test())


def test_whoever_has_another_token_is_refused_and_told_none(make_bench: MakeBench, client: Any) -> None:
    async def test() -> None:
        bench, later = make_bench(), make_bench()
        bench.manager.start(SLOT, bench.model(SUM))
        await bench.ready()
        replica = bench.status.replica
        assert replica is not None and replica.address is not None
        (container,) = client.containers.list(filters={"label": f"{HOME_LABEL}={bench.path}"})
        shown = {**container.attrs, "Config": {**container.attrs["Config"], "Env": None}}
        (bench.facilities.sockets / "c1" / "token").write_text("another")
        (note,) = await later.manager.orphans()
        await later.manager.adopt(note)
        assert "refused HELLO: token is not the one that this container" in await later.until_dead()
        assert replica.address.token not in str(shown) + later.failure + bench.manager.log_path(SLOT).read_text()
        await bench.manager.stop_all()

    run(test())


def test_a_port_that_another_program_takes_is_named(make_bench: MakeBench) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def test() -> None:
        bench = make_bench()
        bench.manager.start(SLOT, bench.model(SUM))
        assert bench.status.replica is not None
        address = bench.status.replica.note.listen
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as taken:
            async with await asyncio.start_server(hang_up, sock=taken):
                assert f"cannot listen on {address}: [Errno 98] Address already in use" in await bench.until_dead()
        bench.leaves_nothing()

    run(test())


def test_images_go_with_their_versions(bench: Bench, client: Any) -> None:
    def artifacts() -> set[str]:
        images = client.images.list(filters={"label": f"{IMAGE_HOME_LABEL}={bench.path}"})
        return {image.labels["clipper.image-artifact"] for image in images}

    async def test() -> None:
        specs = [bench.model(SUM), bench.model(f"{SUM}# another\n")]
        for spec in specs:
            bench.manager.start(SLOT, spec)
            await bench.ready()
            await bench.manager.stop_all()
        assert artifacts() == {spec.artifact for spec in specs}
        await bench.manager.prune({specs[1].artifact})
        assert artifacts() == {specs[1].artifact}
        await bench.manager.prune(())
        assert artifacts() == set()

    run(test())


def test_without_its_extra_there_is_no_docker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "docker" in open_launchers(bench.facilities)
    monkeypatch.setitem(
        sys.modules, "clipper.supervisor.managers.docker.engine", None
    )  # as if its library were not there
    assert "docker" not in open_launchers(bench.facilities)
