"""A real query worker process: its control channel, its counts, the port that workers share, its end."""

import socket
import stat
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.control.messages import (
    MAX_MESSAGE_BYTES,
    Apply,
    Drain,
    Draining,
    GetStatistics,
    decode_reply,
    encode,
)
from clipper.control.snapshot import ReplicaAddress, Snapshot
from clipper.control.statistics import NO_MARK
from clipper.settings.version import Batching, BatchingPolicy
from clipper.values.types import ModelId
from clipper.worker.readings import MOST_READINGS
from tests.example_counts import share_of
from tests.serving import SUM, TELLS_APART, ControlClient, Serving, application, model, serving, version, with_address
from tests.waiting import TIMEOUT_S, until

TWO = "def predict(inputs):\n    return [2] * len(inputs)\n"
PICKY = """
def predict(inputs):
    if any(row[0] < 0 for row in inputs):
        raise ValueError("negative")
    return [float(row.sum()) for row in inputs]
"""


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    """Two versions of one model, behind one worker."""
    with serving() as system:
        system.start_worker()
        system.start_container(SUM)
        system.start_container(TWO, version="2")
        yield system


def apply(system: Serving, current: str = "1", links: str = "m") -> None:
    one, two = system.containers[:2]
    applied = system.apply([application("app", links)], [model(version(one), version(two, name="2"), current=current)])
    assert (applied.unlinked, applied.undrained) == ({}, ())


def output(system: Serving, name: str = "app") -> object:
    with system.worker.connect() as client:
        response = client.ask(f"/{name}/predict", {"input": [20, 22]})
    return response.json.get("output", response.json.get("error"))


# -- snapshots ---------------------------------------------------------------------------------------------


def test_current_version_changes_with_the_snapshot(system: Serving) -> None:
    for current, expected in [("1", 42), ("2", 2), ("1", 42)]:
        apply(system, current)
        assert output(system) == expected


def test_link_may_pin_a_version(system: Serving) -> None:
    apply(system, "1", "m:2")
    assert output(system) == 2


def test_older_snapshot_is_not_applied(system: Serving) -> None:
    apply(system, "2")
    generation = system.worker.statistics().generation
    applied = system.worker.apply(Snapshot(generation - 1))
    assert applied.generation == generation
    assert output(system) == 2


def test_application_that_is_gone_is_not_found(system: Serving) -> None:
    apply(system)
    assert output(system) == 42
    system.apply([], [])
    assert output(system) == "not_found"
    apply(system)
    assert output(system) == 42


def test_settings_of_an_application_change_in_place(system: Serving) -> None:
    apply(system)
    queries = system.worker.application("app").queries
    system.apply([application(default_output='"none"')], [model(version())])
    assert output(system) == "none"
    assert system.worker.application("app").queries == queries + 1
    apply(system)


def test_replica_that_cannot_be_dialled_is_named(system: Serving) -> None:
    gone = ReplicaAddress("m:1#9", f"unix:{system.folder / 'gone.sock'}")
    applied = system.apply([application(slo_ms=100.0)], [model(with_address(version(), gone))])
    assert list(applied.unlinked) == ["m:1#9"]
    assert applied.unlinked["m:1#9"]
    assert output(system) == "no_replica"
    apply(system)


def test_replica_of_another_model_is_not_believed(system: Serving) -> None:
    other = ReplicaAddress("m:1#8", system.containers[1].address.address)
    applied = system.apply([application()], [model(with_address(version(), other))])
    assert "serves m:2, not m:1" in applied.unlinked["m:1#8"]
    apply(system)


def test_a_snapshot_that_cannot_be_served_closes_the_channel_harmlessly(system: Serving) -> None:
    apply(system)
    generation = system.worker.statistics().generation
    client = ControlClient(system.worker.control_path)
    client.socket.sendall(encode(Apply(Snapshot(generation, (application(input_type="complex"),)))))
    assert client.socket.recv(1) == b""
    client.close()
    until(lambda: "complex" in system.worker.log)
    apply(system)
    assert output(system) == 42


# -- statistics --------------------------------------------------------------------------------------------


def test_readings_are_of_what_has_changed(system: Serving) -> None:
    apply(system)
    client = ControlClient(system.worker.control_path)
    asked = ("app", "nobody"), (ModelId("m", "1"), ModelId("m", "9"))
    before = client.ask(GetStatistics(*asked, ((NO_MARK, NO_MARK), (NO_MARK, NO_MARK)))).worker
    (app,), (one,) = before.applications, before.versions
    assert (app.name, one.model, one.version, before.replicas) == ("app", "m", "1", ())
    since = GetStatistics(*asked, ((app.mark,), (one.mark,)))
    unchanged = client.ask(since).worker
    assert (unchanged.applications, unchanged.versions) == ((), ())
    assert output(system) == 42
    after = client.ask(since).worker
    (now,), (answered,) = after.applications, after.versions
    assert app.selection is not None and now.selection is not None
    assert (now.queries - app.queries, now.latency_s.count - app.latency_s.count) == (1, 1)
    known = app.selection.models.get("m")
    assert now.selection.models["m"].selected - (known.selected if known else 0) == 1
    assert answered.batch_size.sum - one.batch_size.sum == 1
    assert answered.batch_latency_s.count - one.batch_latency_s.count == 1
    assert answered.batch_latency_s.sum > one.batch_latency_s.sum
    assert answered.batch_limits.keys() == {system.containers[0].address.id}
    counted = system.worker.application("app")
    assert (now.queries, now.slo_misses, now.latency_s) == (counted.queries, counted.slo_misses, counted.latency_s)
    client.close()


def test_a_scrape_hears_of_what_has_changed_and_of_what_is_gone(system: Serving) -> None:
    apply(system)
    client = ControlClient(system.worker.control_path)
    asked = ("app", "nobody"), (ModelId("m", "1"), ModelId("m", "9"))
    before = client.ask(GetStatistics(*asked, known=((NO_MARK, NO_MARK), (NO_MARK, NO_MARK)))).worker
    (app,), (one,), (link,) = before.applications, before.versions, before.replicas
    assert (app.name, one.version, link.version, link.state) == ("app", "1", "1", "linked")
    assert (before.looked, before.gone_applications, before.gone_versions) == (None, (), ())
    since = GetStatistics(*asked, known=((app.mark, 7), (one.mark, 7)))
    unchanged = client.ask(since).worker
    assert (unchanged.applications, unchanged.versions, unchanged.replicas) == ((), (), ())
    assert (unchanged.gone_applications, unchanged.gone_versions) == (("nobody",), (ModelId("m", "9"),))
    assert output(system) == 42
    after = client.ask(since).worker
    assert [len(each) for each in (after.applications, after.versions, after.replicas)] == [1, 1, 1]
    assert after.replicas[0].batches == link.batches + 1
    client.close()


def test_a_scrape_of_many_is_answered_in_parts(system: Serving) -> None:
    names = [f"app{number}" for number in range(MOST_READINGS + 20)]
    system.apply([application(name) for name in names], [model(version(system.containers[0]))])
    client = ControlClient(system.worker.control_path)
    first = client.ask(GetStatistics(tuple(names), (), known=((), ()))).worker
    assert (len(first.applications), first.looked) == (MOST_READINGS, MOST_READINGS)
    rest = client.ask(GetStatistics(tuple(names[MOST_READINGS:]), (), known=((), ()))).worker
    assert ([one.name for one in rest.applications], rest.looked) == (names[MOST_READINGS:], None)
    client.close()
    apply(system)


def test_readings_of_many_let_queries_through(system: Serving) -> None:
    many = [application(f"app{number}") for number in range(120)]
    system.apply(many, [model(version(system.containers[0]))])
    client = ControlClient(system.worker.control_path)
    asked = GetStatistics(tuple(one.name for one in many), (), ((), ()))
    assert len(client.ask(asked).worker.applications) == len(many)
    client.close()
    apply(system)


@pytest.mark.parametrize(
    ("policy", "limit"),
    [("aimd", 3), ("quantile", 3), ("aimd_damped", 2), ("quantile_refit", 2), ("fixed", 64), ("none", 1)],
)
def test_each_batching_policy_serves_by_its_own_rule(system: Serving, policy: BatchingPolicy, limit: int) -> None:
    """The first query is a full batch at a limit of 1: the paper's rules add two rows, their variations double."""
    container = system.start_container(SUM, policy)
    batching = Batching(policy, 64)
    system.apply([application("app", policy)], [model(version(container, batching=batching), name=policy)])
    with system.worker.connect() as client:
        assert [client.ask("/app/predict", {"input": [n]}).json["output"] for n in range(3)] == [0, 1, 2]
    (found,) = system.worker.control.ask(GetStatistics((), (ModelId(policy, "1"),))).worker.versions
    assert [*found.batch_limits.values()] == [limit]
    apply(system)


def test_counts_are_those_of_what_was_asked() -> None:
    with serving() as system:
        worker = system.start_worker()
        container = system.start_container(TELLS_APART + PICKY)
        system.apply(
            [application("app"), application("safe", default_output="0")],
            [model(version(container, cache=True, batching=Batching("fixed", 4)))],
        )
        with worker.connect() as client:
            for number in range(10):
                assert client.ask("/app/predict", {"input": [number]}).status == 200
            for _ in range(5):
                assert client.ask("/app/predict", {"input": [3]}).json["output"] == 3
            assert client.ask("/app/predict", {"input": [-1]}).status == 502
            assert client.ask("/safe/predict", {"input": [-2]}).json["default"]
            assert client.ask("/safe/predict", {"input_batch": [[100], [101], [102]]}).status == 200
            assert client.ask("/app/predict", {"input": "x"}).status == 400
            assert client.ask("/nothing/predict", {"input": [1]}).status == 404
            assert client.ask("/app/predict", b"{").status == 400
            statistics = worker.statistics()
        app, safe = statistics.applications
        assert (app.name, app.queries, app.defaults, app.errors) == ("app", 16, {}, {"model_error": 1})
        assert (safe.name, safe.queries, safe.defaults, safe.errors) == ("safe", 4, {"model_error": 1}, {})
        assert (sum(app.latency_s.counts), sum(safe.latency_s.counts)) == (16, 4)
        assert 0 < app.latency_s.sum < 30
        (found,) = statistics.versions
        assert (found.model, found.version, found.queue_length, found.queue_bytes) == ("m", "1", 0, 0)
        assert (found.outputs, found.model_errors, found.rejected, found.expired) == (13, 2, 0, 0)
        assert (found.cache_hits, found.cache_misses, found.cache_joins) == (5, 15, 0)
        assert found.batch_size.sum == 15
        assert (found.arrivals, found.slo_s) == (15, 20.0)
        assert found.rows_per_s.keys() == {container.address.id}
        assert found.batch_limits == {container.address.id: 4}
        (replica,) = statistics.replicas
        assert (replica.id, replica.state, replica.batch_limit) == (container.address.id, "linked", 4)
        assert (replica.in_flight, replica.last_error) == (0, None)
        assert replica.batches == sum(found.batch_size.counts)
        assert (statistics.cache.entries, statistics.cache.evictions) == (13, 0)
        assert (statistics.pid, statistics.index, statistics.connections) == (worker.pid, 0, 1)
        assert statistics.requests_refused == {"wrong_input": 1, "not_found": 1, "malformed_request": 1}


def test_equal_queries_in_one_batch_run_once() -> None:
    with serving() as system:
        worker = system.start_worker()
        system.apply([application()], [model(version(system.start_container(SUM), cache=True))])
        with worker.connect() as client:
            parts = client.ask("/app/predict", {"input_batch": [[5]] * 100}).json["batch_predictions"]
        assert [part["output"] for part in parts] == [5] * 100
        (found,) = worker.statistics().versions
        assert (found.outputs, found.cache_misses, found.cache_joins, found.batch_size.sum) == (1, 1, 99, 1)


# -- the control channel -----------------------------------------------------------------------------------


def test_control_socket_is_for_this_user_alone(system: Serving) -> None:
    assert stat.S_IMODE(system.worker.control_path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<I", MAX_MESSAGE_BYTES + 1),
        struct.pack("<I", 3) + b"\xff\xff\xff",
        struct.pack("<I", 0),
        encode(Draining()),
        encode(GetStatistics())[:-1] + b"\xc1",
        struct.pack("<I", 100_000) + b"\x91" * 100_000,
    ],
)
def test_garbage_on_the_control_socket_ends_that_connection_alone(system: Serving, garbage: bytes) -> None:
    apply(system)
    client = ControlClient(system.worker.control_path)
    client.socket.sendall(garbage)
    assert client.socket.recv(1) == b""
    client.close()
    assert system.worker.statistics().pid == system.worker.pid
    assert output(system) == 42


@settings(max_examples=share_of(100), deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_random_bytes_on_the_control_socket_harm_nothing(system: Serving, data: bytes, framed: bool) -> None:
    client = ControlClient(system.worker.control_path)
    client.socket.sendall(struct.pack("<I", len(data)) + data if framed else data)
    client.socket.shutdown(socket.SHUT_WR)
    while client.socket.recv(4096):
        pass
    client.close()
    assert system.worker.statistics().pid == system.worker.pid


def test_commands_in_any_pieces_are_answered_in_order(system: Serving) -> None:
    apply(system)
    client = ControlClient(system.worker.control_path)
    for byte in encode(GetStatistics())[:-1]:
        client.socket.sendall(bytes([byte]))
    client.socket.sendall(encode(GetStatistics())[-1:] + encode(Apply(Snapshot(0))))
    bodies: list[bytes] = []
    while len(bodies) < 2:
        bodies += client.receive()
    assert decode_reply(bodies[0], GetStatistics()).worker.pid == system.worker.pid
    assert decode_reply(bodies[1], Apply(Snapshot(0))).generation > 0
    client.close()


def test_worker_goes_on_when_its_supervisor_is_gone(system: Serving) -> None:
    apply(system)
    system.worker.control.close()
    assert output(system) == 42
    system.worker.control = ControlClient(system.worker.control_path)
    assert system.worker.statistics().pid == system.worker.pid
    apply(system, "2")
    assert output(system) == 2


# -- start and end -----------------------------------------------------------------------------------------


def test_a_worker_that_was_told_nothing_yet_gets_no_query() -> None:
    with serving() as system:
        worker = system.start_worker()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", worker.port), TIMEOUT_S)
        system.apply([application()], [model(version(system.start_container(SUM)))])
        fresh = system.start_worker()
        for _ in range(20):
            assert output(system) == 42
        system.apply([application()], [model(version(system.containers[0]))])
        until(lambda: output(system) == 42 and fresh.application("app").queries > 0)


def test_two_workers_share_the_port_and_their_query_ids_differ() -> None:
    with serving() as system:
        first, second = system.start_worker(), system.start_worker()
        system.apply([application()], [model(version(system.start_container(SUM)))])
        ids: set[int] = set()
        asked = 0
        while not (first.application("app").queries and second.application("app").queries):
            assert asked < 200, "the kernel gave all connections to one worker"
            with first.connect() as client:
                ids.add(client.ask("/app/predict", {"input": [asked]}).json["query_id"])
            asked += 1
        assert len(ids) == asked
        assert first.application("app").queries + second.application("app").queries == asked


def test_the_newest_snapshot_says_whether_the_server_is_stopping() -> None:
    """A supervisor that was killed may have sent its word late; its successor's counts."""
    with serving() as system:
        worker = system.start_worker()

        def is_ready(generation: int, *, is_stopping: bool) -> bool:
            worker.control.ask(Apply(Snapshot(generation, (), ()), is_stopping=is_stopping))
            with worker.connect() as client:
                client.send(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = client.read("GET")
            assert (answer.status, answer.json.get("status")) in ((200, "ready"), (503, None))
            return answer.status == 200

        assert is_ready(2, is_stopping=False)
        assert not is_ready(2, is_stopping=True)
        assert not is_ready(1, is_stopping=False)
        assert is_ready(3, is_stopping=False)
        assert is_ready(2, is_stopping=True)


def test_drain_answers_then_ends_with_0() -> None:
    with serving() as system:
        worker = system.start_worker()
        assert worker.control.ask(Drain()) == Draining()
        assert worker.wait() == 0
        assert "0 requests were given up" in worker.log


def test_who_still_waits_when_a_worker_ends_is_answered() -> None:
    """Nobody waits for a replica that cannot come any more, and nobody for longer than open requests have."""
    with serving() as system:
        worker = system.start_worker(drain_timeout_s=2.0)
        slow = application("slow", slo_ms=100_000.0, default_output='"late"')
        asleep = application("asleep", "n", waking_slo_ms=100_000.0, default_output='"sleeps"')
        system.apply([slow, asleep], [model(version()), model(version(wakes=True), name="n")])
        with worker.connect() as first, worker.connect() as second, ThreadPoolExecutor(2) as threads:
            waiting = [
                threads.submit(client.ask, f"/{name}/predict", {"input": [1, 2]})
                for client, name in ((first, "slow"), (second, "asleep"))
            ]
            until(lambda: all(worker.application(name).queries == 1 for name in ("slow", "asleep")))
            worker.control.ask(Drain())
            outputs = [each.result().json["output"] for each in waiting]
        assert outputs == ["late", "sleeps"] and worker.wait() == 0
        assert "0 requests were given up" in worker.log


def test_port_that_cannot_be_bound_is_told_in_one_line() -> None:
    # Without SO_REUSEPORT, so that nobody else may bind it.
    with serving() as system, socket.create_server(("127.0.0.1", 0)) as taken:
        worker = system.start_process(taken.getsockname()[1])
        assert worker.wait() == 1
        assert "cannot listen on 127.0.0.1:" in worker.log


def test_socket_of_a_killed_worker_is_replaced() -> None:
    with serving() as system:
        (system.folder / "w0.sock").touch()
        assert system.start_worker().statistics().index == 0
