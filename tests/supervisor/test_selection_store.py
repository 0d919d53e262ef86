"""Where learned state is kept: one store for two servers, and addresses that are none."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.supervisor.live_server import Server
from tests.supervisor.three_models import MODELS, NEVER_FORGETS, ROW, teach, until_learned, with_application
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        redis.start()
        yield redis


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "other")
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill_everything()


def test_two_clippers_learn_together_in_one_redis(server: Server, other: Server, redis: RedisServer) -> None:
    for each in (server, other):
        with_application(each, "--store", redis.url, policy="exp4", **NEVER_FORGETS)
    teach(server, 2, 20)
    teach(other, 2, 10)
    for each in (server, other):
        until_learned(each, 30)

    id_ = server.predict("app", ROW)["query_id"]
    redis.kill()
    assert server.predict("app", ROW)["output"] in MODELS.values()
    refused = server.observe("app", query_id=id_, label=2)
    assert (refused.status_code, refused.json()["error"]) == (503, "store_unavailable")
    redis.start()
    until(lambda: server.observe("app", query_id=id_, label=2).status_code == 200)
    for each in (server, other):
        until_learned(each, 31)


def test_a_thousand_long_contexts_are_a_few_megabytes(server: Server) -> None:
    """Each took 66 KB of the disk, since it was in the row of each of its numbers."""
    with_application(server, policy="exp3")
    contexts = [f"{number:1000d}" for number in range(1000)]
    for first in range(0, 1000, 100):
        pieces = [{"input": ROW, "label": 2, "context": context} for context in contexts[first : first + 100]]
        assert server.observe("app", observations=pieces).status_code == 200
    assert server.call("GET", "/applications/app/contexts?limit=1")["count"] == 1000
    assert server.predict("app", ROW, context=contexts[0])["output"] in MODELS.values()
    with closing(sqlite3.connect(server.home / "selection.sqlite3")) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    assert pages * 4096 < 8_000_000


def test_a_password_is_shown_nowhere(
    server: Server, other: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "redis://:hunter2hunter2@127.0.0.1:1/0"
    (tmp_path / "store").write_text(address + "\n")
    monkeypatch.setenv("CLIPPER_STORE", address)
    server.start()
    monkeypatch.delenv("CLIPPER_STORE")
    other.start("--store", f"file:{tmp_path / 'store'}")
    for each in (server, other):
        until(lambda each=each: each.call("GET", "/status")["ready"])  # type: ignore[misc]
        assert each.process is not None
        for pid in (each.process.pid, *each.worker_pids):
            assert b"hunter2" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        texts = [path.read_bytes() for path in each.home.rglob("*") if path.is_file()]
        assert texts and not any(b"hunter2" in text for text in texts)
    # The next supervisor knows workers with this store by it, and those with another for others.
    workers = server.worker_pids
    server.kill()
    monkeypatch.setenv("CLIPPER_STORE", address)
    server.start()
    until(lambda: server.call("GET", "/status")["ready"])
    assert server.worker_pids == workers
    server.kill()
    monkeypatch.setenv("CLIPPER_STORE", address.replace("hunter2", "hunter3"))
    server.start()
    until(lambda: server.call("GET", "/status")["ready"])
    assert not set(server.worker_pids) & set(workers)


@pytest.mark.parametrize(
    ("store", "cause"),
    [
        ("mongodb://host", "expected sqlite:PATH or redis://HOST:PORT/DB"),
        ("redis://:secret@host:port", "store 'redis://host:port' is malformed"),
        ("redis://host", "pip install 'clipper-serving[redis]'"),
    ],
)
def test_a_store_that_cannot_be_ends_the_start_with_what_to_do(tmp_path: Path, store: str, cause: str) -> None:
    environment = dict(os.environ)
    if "pip install" in cause:
        (tmp_path / "redis.py").write_text("raise ImportError('as if it were not installed')")
        environment["PYTHONPATH"] = f"{tmp_path}:{environment.get('PYTHONPATH', '')}"
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path / "home"), "--store", store]
    argv += ["--query-port", "0", "--management-port", "0"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    assert ran.returncode == 1
    assert cause in ran.stderr.splitlines()[-1]
