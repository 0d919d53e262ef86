"""Where learned state is kept: one store for two servers, and addresses that are none."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from tests.redis_server import RedisServer
from tests.supervisor.live_server import Server, answering
from tests.supervisor.three_models import (
    APP,
    MODELS,
    NEVER_FORGETS,
    ROW,
    learned,
    teach,
    until_learned,
    with_application,
)
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
    server.clean_up()


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


def test_other_code_under_a_name_begins_anew(server: Server, other: Server, redis: RedisServer, tmp_path: Path) -> None:
    """Each of two pods calls its first versions "1". The second, of a later image, began with what the first had
    learned of other code, and answered all that it was asked wrong."""
    exp3 = {"policy": "exp3", **NEVER_FORGETS}
    with_application(server, "--store", redis.url, **exp3)
    teach(server, 2, 60)
    assert until_learned(server, 60)["models"]["two"]["share"] > 0.6

    other.start("--store", redis.url)
    for name, value in {"one": 2, "two": 1, "three": 3}.items():
        assert other.deploy(name, answering(value), input_type="float64[2]")["state"] == "ready"
    other.call("POST", "/applications", {**APP, **exp3})
    begun = until_learned(other, 60)["models"]
    # Nothing is known of these two, and this third is the same code.
    assert begun["one"]["share"] == pytest.approx(begun["two"]["share"], abs=0.1) and begun["two"]["scored"] == 0.0
    assert begun["three"]["scored"] > 0 and begun["three"]["share"] < 0.2
    teach(other, 2, 60)
    assert until_learned(other, 120)["models"]["one"]["share"] > 0.6
    assert until_learned(server, 120)["models"]["two"]["share"] > 0.6

    # A third, on which the code of the first is a second version, goes on where the first is.
    third = Server(tmp_path / "third").start("--store", redis.url)
    try:
        for name, value in MODELS.items():
            for each in ("before", value):
                assert third.deploy(name, answering(each), input_type="float64[2]")["state"] == "ready"
        third.call("POST", "/applications", {**APP, **exp3})
        known = until_learned(third, 120)["models"]["two"]
        assert known["version"] == "2" and known["share"] > 0.6
        (group,) = third.call("GET", "/applications/app/report")["groups"]
        versions = {(each["model"], each["version"]): each["scored"] for each in group["models"]}
        assert versions["two", "2"] > 0 and [model for model, version in versions if version[0] == "@"]
    finally:
        third.clean_up()


def test_feedback_reaches_the_server_that_answered(server: Server, other: Server, redis: RedisServer) -> None:
    """Behind a balancer, feedback by a query's id came to any of them, and all others answered not_found."""
    for each in (server, other):
        with_application(each, "--store", redis.url, policy="exp4", **NEVER_FORGETS)
    ids = [server.predict("app", ROW)["query_id"] for _ in range(20)]
    pieces = [{"query_id": id_, "label": 2} for id_ in ids]
    told = other.observe("app", observations=pieces).json()["observations"]
    assert told == [{"observed": True, "duplicate": False}] * 20
    assert other.observe("app", query_id=ids[0], label=2).json()["duplicate"]
    for each in (server, other):
        until_learned(each, 20)
    lost = server.predict("app", ROW)["query_id"]
    assert server.stop() == 0
    refused = other.observe("app", query_id=lost, label=2)
    assert refused.status_code == 404 and "its worker has ended" in refused.json()["cause"], refused.text


@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_remembered_queries_outlive_their_server(server: Server, other: Server, redis: RedisServer, ends: str) -> None:
    for each in (server, other):
        with_application(each, "--store", redis.url, "--remember-in-store", policy="exp3", **NEVER_FORGETS)
    ids = [server.predict("app", ROW)["query_id"] for _ in range(20)]
    until(lambda: 'clipper_feedback_queries_stored_total{worker="0"} 20.0' in server.metrics)
    if ends == "stopped":
        # Its last query is written by its end.
        ids.append(server.predict("app", ROW)["query_id"])
        assert server.stop() == 0
    else:
        server.kill_everything()
    # Of one that was killed the others hear some seconds later. Until then the answer waits.
    until(lambda: other.observe("app", query_id=ids[0], label=2).status_code == 200)
    pieces = [{"query_id": id_, "label": 2} for id_ in ids]
    told = other.observe("app", observations=pieces).json()["observations"]
    assert told == [{"observed": True, "duplicate": number == 0} for number in range(len(ids))]
    until_learned(other, len(ids))
    assert other.observe("app", query_id=ids[-1] + 1, label=2).status_code == 404


def test_queries_are_remembered_only_where_other_servers_find_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path), "--remember-in-store"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert ended.returncode == 2 and "--store redis://HOST:PORT/DB" in ended.stderr


def test_a_store_that_was_emptied_takes_no_feedback(server: Server, redis: RedisServer) -> None:
    """It was acknowledged, and gone once somebody had given Redis its file back."""
    with_application(server, "--store", redis.url, policy="exp4", **NEVER_FORGETS)
    teach(server, 2, 20)
    until_learned(server, 20)
    with Redis.from_url(redis.url) as client:
        # Without those that Redis removes by itself after a while.
        had = {key: client.dump(key) for key in client.keys("*") if client.ttl(key) == -1}
        client.flushall()

        def is_refused() -> bool:
            refused = server.observe("app", input=ROW, label=2)
            return refused.status_code == 503 and "was emptied" in refused.json()["cause"]

        assert is_refused()
        assert learned(server)["observations"] == 20, "what it knows goes on counting"
        server.kill()
        for pid in server.worker_pids:
            os.kill(pid, signal.SIGKILL)
        server.start("--store", redis.url)
        until(is_refused)
        for key, text in had.items():
            client.restore(key, 0, text, replace=True)
    until(lambda: server.observe("app", input=ROW, label=2).status_code == 200)
    until_learned(server, 21)


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
        each.until_ready()
        assert each.process is not None
        for pid in (each.process.pid, *each.worker_pids):
            assert b"hunter2" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert each.files_with("hunter2") == set()
    # The next supervisor knows workers with this store by it, and those with another for others.
    workers = server.worker_pids
    server.kill()
    monkeypatch.setenv("CLIPPER_STORE", address)
    server.start().until_ready()
    assert server.worker_pids == workers
    server.kill()
    monkeypatch.setenv("CLIPPER_STORE", address.replace("hunter2", "hunter3"))
    server.start().until_ready()
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
