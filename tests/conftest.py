"""Fixtures that several packages' tests share."""

import gc
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, settings
from litestar import post
from litestar.params import FromPath, JSONBody
from xdist.scheduler.loadfile import LoadFileScheduling

from clipper.api.server.access import Access, Holder, Hosts
from clipper.api.server.app import create_app
from clipper.api.server.dashboard import Dashboard
from clipper.api.server.gate import Gate
from clipper.errors import NotFound
from clipper.settings.home import lock_home
from scripts.ray_cluster import RayCluster, running_cluster
from scripts.real_models import environment
from tests.docker_daemon import DockerDaemon, running_daemon
from tests.memory_operations import MemoryOperations
from tests.sdk.programs import build_cpp, kept, missing_tools
from tests.waiting import TIMEOUT_S, until

# The same examples each time, so that a run of unchanged code ends alike; --hypothesis-seed=7 looks at others. How long
# it takes to draw one and to try it is the machine's to say.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Of make test, which leaves the other examples to make test-all.
settings.register_profile("quick", settings.get_profile("steady"), max_examples=25)
settings.load_profile("steady")


@pytest.hookimpl(trylast=True)  # after hypothesis has loaded the profile that was asked for
def pytest_configure(config: pytest.Config) -> None:
    """A shell that runs the suite in its background has it ignore SIGINT, and so would all that tests start.

    SIGTERM, which ``timeout`` sends, would else end the suite without the servers and containers of running tests.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if config.getoption("--hypothesis-seed") is not None:
        settings.register_profile("seeded", derandomize=False)  # else the seed changes nothing
        settings.load_profile("seeded")


# Where files take longest, since their tests start servers: first, so that processes end with short ones, at once.
LONGEST = tuple(f"tests/{name}" for name in ("supervisor/", "cli/", "integration/", "worker/frontend/", "worker/test_"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files. Tests marked ``scale`` run only where asked for: ``make test-scale``."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    if "scale" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("scale")]
    items[:] = [item for item in items if not item.get_closest_marker("scale")]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Modules that are imported by now stay; each pass of the collector through it would take a third of a second."""
    gc.collect()
    gc.freeze()


# The files whose tests share one dockerd, which would not bear another beside it.
DOCKERD = (
    "tests/supervisor/managers/test_manager.py",
    "tests/supervisor/managers/docker/test_launcher.py",
    "tests/supervisor/test_docker.py",
    "tests/deploy/test_image.py",
    # Of one Ray cluster, too, which test_manager.py shares.
    "tests/supervisor/managers/ray/test_launcher.py",
)


class ByFile(LoadFileScheduling):
    """A file's tests go to one process, since they share what is dear to set up; those of a dockerd, too."""

    def _split_scope(self, nodeid: str) -> str:
        return "dockerd" if nodeid.startswith(DOCKERD) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


# Of the server that all tests of routes and commands share.
TOKEN, READ_TOKEN = "clipper_" + "a" * 43, "clipper_" + "r" * 43


@dataclass(frozen=True)
class Api:
    """The management API on a real socket, over operations in memory; ``home`` leads commands to it."""

    url: str
    home: Path
    operations: MemoryOperations


class CurrentOperations:
    """Those of the test that runs. All share one server, which takes longer to make than a test."""

    def __init__(self) -> None:
        self.now = MemoryOperations()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


@pytest.fixture(scope="session")
def management() -> Iterator[tuple[str, CurrentOperations]]:
    """The URL of a server, and what it asks."""
    current = CurrentOperations()
    app = create_app(current)
    app.register(_predict_route(current))
    app.register(_observe_route(current))
    served = Dashboard(app)
    roles = {TOKEN: Holder("operator", "admin"), READ_TOKEN: Holder("reader", "read")}
    access = Access(Hosts("127.0.0.1"), roles.get, open_metrics=False, pages=served.paths)  # type: ignore[arg-type]
    gate = Gate(served, access)

    async def only_queries_are_open(scope: Any, receive: Any, send: Any) -> None:
        is_query = scope["type"] == "http" and scope["path"].startswith("/query/")
        await (app if is_query else gate)(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(only_queries_are_open, log_level="warning", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", current
    server.should_exit = True
    thread.join(TIMEOUT_S)
    listener.close()


@pytest.fixture
def api(management: tuple[str, CurrentOperations], tmp_path: Path) -> Iterator[Api]:
    url, current = management
    operations = current.now = MemoryOperations()
    operations.url, operations.home = url, str(tmp_path)
    place = {"pid": os.getpid(), "management_url": url, "query_url": url + "/query", "started_at": time.time()}
    (tmp_path / "supervisor.json").write_text(json.dumps(place))
    (tmp_path / "token").write_text(TOKEN)
    lock = lock_home(tmp_path)
    yield Api(url, tmp_path, operations)
    os.close(lock)


@pytest.fixture(scope="session")
def tools() -> None:
    assert not missing_tools(), f"missing: {missing_tools()}; make setup installs compilers for the SDKs' tests"


@pytest.fixture(scope="session")
def cpp_build(tools: None) -> Path:
    return kept("cpp", build_cpp)


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[DockerDaemon]:
    with running_daemon() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Two nodes with room for a few replicas each."""
    with running_cluster(environment("ray"), 4, 4) as cluster:
        yield cluster


def _observe_route(operations: CurrentOperations) -> object:
    @post("/query/{app_name:str}/observe", status_code=200)
    async def observe(app_name: FromPath[str], data: JSONBody[dict[str, object]]) -> object:
        many = data.get("observations")
        if not isinstance(many, list):
            return operations.observe(app_name, data)
        return {"observations": [_observed(operations, app_name, one) for one in many]}

    return observe


def _observed(operations: MemoryOperations, app_name: str, body: dict[str, object]) -> object:
    try:
        return operations.observe(app_name, body)
    except NotFound as error:
        return {"error": error.code, "cause": str(error)}


def _predict_route(operations: CurrentOperations) -> object:
    @post("/query/{app_name:str}/predict", status_code=200)
    async def predict(app_name: FromPath[str], data: JSONBody[dict[str, Any]]) -> object:
        one = operations.predict(app_name)
        return {"batch_predictions": [one for _ in data["input_batch"]]} if "input_batch" in data else one

    return predict
