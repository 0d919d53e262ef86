"""How often one client may do what it may do, and for how long."""

import asyncio
import struct
from collections.abc import Sequence

import pytest
from hyperframe.frame import Frame, PingFrame, RstStreamFrame, SettingsFrame

from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc import bounds, connection
from clipper.worker.frontend.rpc.service import METHODS, WATCH
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Later, Served, data, headers_of, run, serving
from tests.worker.frontend.rpc.http2 import frame, message_frame

pytestmark = pytest.mark.usefixtures("engine")

PROTOCOL, CALM, CANCEL, REFUSED = 1, 11, 8, 7
STREAM_INFER = METHODS["ModelStreamInfer"].path
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (None, []),
        (None, [data(message_frame(ASKED))]),
        (WATCH.path, []),
        (STREAM_INFER, [data(message_frame(ASKED)[:9])]),
        (STREAM_INFER, [data(message_frame(b"") + message_frame(ASKED)[:1])]),
        (REFLECTION, [data(b"\0")]),
    ],
)
def test_a_message_has_to_come_in_time(path: str | None, sent: Sequence[Frame]) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        fields = headers_of() if path is None else headers_of(path)
        client.send(client.headers(1, fields), *sent)
        served.sweep(limits.REQUEST_TIMEOUT_SWEEPS)
        assert served.counts.open == 1
        served.sweep(2)
        assert (await client.answers())[1]["clipper-error"] == "request_timeout"
        served.assert_nothing_left()

    run(test)


@pytest.mark.parametrize("path", [STREAM_INFER, REFLECTION])
def test_a_stream_may_be_quiet_if_its_client_is_there(path: str) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1, headers_of(path)))
        served.sweep(bounds.KEEPALIVE_SWEEPS)
        assert any(isinstance(each, PingFrame) for each in client.frames())
        client.send(PingFrame(0, bytes(8), flags=["ACK"]))
        served.sweep(bounds.KEEPALIVE_SWEEPS)
        assert served.counts.open == 1
        served.sweep(bounds.KEEPALIVE_TIMEOUT_SWEEPS + 1)
        assert client.transport.is_aborted

    run(test)


def test_a_quiet_client_is_asked_first_however_rare_sweeps_are() -> None:
    async def test() -> None:
        served = Served()
        client = served.client

        def sweep_after(sweeps: int) -> None:
            served.port.sweeps += sweeps
            client.connection.sweep(served.port.sweeps)

        client.send(client.headers(1, headers_of(STREAM_INFER)))
        sweep_after(bounds.KEEPALIVE_SWEEPS + bounds.KEEPALIVE_TIMEOUT_SWEEPS + 1)
        assert not client.transport.is_aborted
        assert any(isinstance(each, PingFrame) for each in client.frames())
        sweep_after(bounds.KEEPALIVE_TIMEOUT_SWEEPS + 1)
        assert client.transport.is_aborted

    run(test)


def test_a_deadline_ends_a_stream() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        now_s = served.port.now_s()
        client.send(client.headers(1, headers_of(STREAM_INFER, grpc_timeout="5S")))
        served.port.now_s = lambda: now_s + 4
        served.sweep()
        assert served.counts.open == 1
        served.port.now_s = lambda: now_s + 7
        served.sweep()
        assert (await client.answers())[1]["grpc-status"] == "4"
        served.assert_nothing_left()

    run(test)


def test_a_connection_that_is_idle_is_closed() -> None:
    async def test() -> None:
        served = Served()
        served.client.call(1)
        served.answer()
        await served.client.answers()
        served.sweep(limits.IDLE_TIMEOUT_SWEEPS)
        served.client.send(PingFrame(0, bytes(8)))  # which is not a call
        assert not served.client.transport.has_ended
        served.sweep(2)
        assert (await served.client.answers())[0]["goaway"] == [0]
        assert served.client.transport.has_ended and not served.client.transport.is_closed
        served.sweep(limits.LINGER_SWEEPS + 1)
        assert served.client.transport.is_closed

    run(test)


def test_a_connection_that_says_nothing_is_closed() -> None:
    async def test() -> None:
        served = Served(preface=b"PRI")
        served.sweep(bounds.PREFACE_SWEEPS)
        assert not served.client.transport.is_closed
        served.sweep()
        assert served.client.transport.is_closed

    run(test)


@pytest.mark.parametrize("is_blocked_by_window", [True, False])
def test_a_client_that_does_not_read_is_disconnected(is_blocked_by_window: bool) -> None:
    async def test() -> None:
        served = Served(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0 if is_blocked_by_window else 65_535})
        client = served.client
        if not is_blocked_by_window:
            client.transport.unsent_bytes = 1
            client.connection.pause_writing()
            assert client.transport.is_paused
        client.call(1)
        served.answer()
        await client.answers()
        assert served.port.budget.held_bytes > 0
        served.sweep(limits.REQUEST_TIMEOUT_SWEEPS)
        assert not client.transport.is_aborted
        served.sweep(2)
        assert client.transport.is_aborted
        client.leave()
        served.assert_nothing_left()

    run(test)


# -- floods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flood",
    [
        frame(6, 0, 0, bytes(8)),
        frame(4, 0, 0),
        frame(4, 0, 0, struct.pack(">HI", 4, 1)),
        frame(0, 0, 1),
        frame(8, 0, 0, struct.pack(">I", 1)),
        frame(8, 0, 1, struct.pack(">I", 1)),
    ],
    ids=["ping", "settings", "initial window", "empty data", "window", "stream's window"],
)
def test_frames_without_end_that_carry_no_call(flood: bytes) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1, headers_of(STREAM_INFER)))
        for _ in range(5):
            client.send(flood * (bounds.MAX_IDLE_FRAMES // 5 - 10))
        assert "goaway" not in (await client.answers())[0]
        served.sweep()
        # In another second as many again.
        for _ in range(10):
            client.send(flood * (bounds.MAX_IDLE_FRAMES // 5))
        assert (await client.answers())[0]["goaway"] == [CALM]
        assert client.transport.has_ended
        served.assert_nothing_left()

    run(test)


def test_calls_that_are_reset_at_once_end_the_connection() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        for stream in range(1, 20_001, 2):
            client.send(client.headers(stream), RstStreamFrame(stream, CANCEL))
            if client.transport.has_ended:
                break
        assert bounds.RESETS_AT_ONCE < stream / 2 < 2 * bounds.RESETS_AT_ONCE
        served.assert_nothing_left()

    run(test)


def test_a_head_in_too_many_parts(engine: str) -> None:
    async def test() -> None:
        client = FakeClient()
        client.send(frame(1, 0, 1, client.headers(1).data), *[frame(9, 0, 1)] * 100)
        assert (await client.answers())[0]["goaway"] == [CALM if engine == "ngh2" else PROTOCOL]

    run(test)


def test_calls_of_all_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CALLS", 5)
    monkeypatch.setattr(bounds, "MAX_STREAMING_CALLS", 2)

    async def test() -> None:
        served = Served()
        client = served.client
        client.send(*(client.headers(stream, headers_of(STREAM_INFER)) for stream in (1, 3, 5)))
        client.send(*(client.headers(stream) for stream in (7, 9, 11, 13)))
        answers = await client.answers()
        assert {stream for stream, answer in answers.items() if answer.get("clipper-error") == "overloaded"} == {5, 13}
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_input_that_takes_long_waits_for_the_loops_next_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "VISIT_S", 0.0)
    monkeypatch.setattr(limits, "READ_AHEAD_BYTES", 1024)

    async def test() -> None:
        client = FakeClient()
        calls = [
            (client.headers(stream), data(message_frame(ASKED), stream, is_last=True)) for stream in range(1, 1001, 2)
        ]
        text = b"".join(each.serialize() for call in calls for each in call)
        assert len(text) > 2 * bounds.READ_PIECE_BYTES
        client.send(text)
        assert client.transport.is_paused and client.connection.is_busy
        assert 0 < client.server.counts.calls < 500 and client.port.budget.held_bytes > 0
        # No EOF, nor a client that does not read for a while, keeps it from being answered.
        assert client.connection.eof_received()
        client.connection.pause_writing()
        await client.answers()
        client.connection.resume_writing()
        await client.answers(100)
        assert client.server.counts.calls == 500
        assert client.transport.has_ended and client.port.budget.held_bytes == 0
        client.leave()

    run(test)


def test_calls_whose_messages_are_slow_go_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CALLS", 5)

    async def test() -> None:
        served = Served()
        client = served.client
        client.send(*(client.headers(stream) for stream in (1, 3, 5, 7)))
        client.call(9)
        served.sweep(bounds.SLOW_MESSAGE_SWEEPS)
        other = FakeClient(client.server)
        for stream in range(1, 13, 2):
            other.call(stream)
        assert {stream for stream, each in (await client.answers()).items() if "clipper-error" in each} == {1, 3, 5, 7}
        assert {stream for stream, each in (await other.answers()).items() if "clipper-error" in each} == {9, 11}
        served.answer()
        assert (await client.answers())[9]["grpc-status"] == "0"
        assert [each["grpc-status"] for stream, each in (await other.answers()).items() if stream] == ["0"] * 4
        served.assert_nothing_left()

    run(test)


def test_connections_over_the_bound_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = serving(max_connections=2)
        clients = [FakeClient(server) for _ in range(3)]
        assert [(await client.answers())[0].get("goaway") for client in clients] == [None, None, [CALM]]
        assert clients[2].transport.has_ended
        assert server.port.refused == {"overloaded": 1}
        for client in clients:
            client.leave()
        monkeypatch.setattr(bounds, "MAX_CONNECTIONS", 1)
        one, other = FakeClient(server), FakeClient(server)
        assert "goaway" not in (await one.answers())[0] and (await other.answers())[0]["goaway"] == [CALM]
        other.leave()
        # Neither an idle connection nor one with half a call keeps a new client out.
        now_s = server.port.now_s()
        server.port.now_s = lambda: now_s + limits.ARRIVES_WITHIN_S + 1.0
        third = FakeClient(server)
        third.send(third.headers(1), data(message_frame(ASKED)[:9], 1))
        assert (await one.answers())[0]["goaway"] == [0] and "goaway" not in (await third.answers())[0]
        one.leave()
        server.port.now_s = lambda: now_s + 2 * limits.ARRIVES_WITHIN_S + 2.0
        server.port.sweeps += 1
        fourth = FakeClient(server)
        answers = await third.answers()
        assert answers[1]["clipper-error"] == "overloaded" and answers[0]["goaway"] == [0]
        assert "goaway" not in (await fourth.answers())[0]
        assert server.port.budget.held_bytes == 0

    run(test)


def test_calls_of_one_client_that_never_end_give_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CALLS", 8)

    async def test() -> None:
        server = serving(application=Later())
        greedy, modest = FakeClient(server), FakeClient(server)
        greedy.send(*(greedy.headers(stream) for stream in range(1, 15, 2)))
        modest.send(modest.headers(1))
        for stream in range(3, 9, 2):
            modest.call(stream)
        ended = {stream for stream, each in (await greedy.answers()).items() if "clipper-error" in each}
        assert ended == {1, 3, 5}, "the oldest of whoever has more than a share of them"
        assert all(each.get("grpc-status", "0") == "0" for each in (await modest.answers()).values())
        greedy.send(greedy.headers(15))
        assert (await greedy.answers())[15]["clipper-error"] == "overloaded" and server.counts.open == 8
        for client in (greedy, modest):
            client.leave()

    run(test)


def test_an_idle_connection_gives_way_and_one_with_a_call_does_not() -> None:
    async def test() -> None:
        server = serving(max_connections=2)
        calling, idle = FakeClient(server), FakeClient(server)
        await idle.answers()
        server.port.now_s = lambda: 2 * limits.GIVES_WAY_AFTER_S + asyncio.get_running_loop().time()
        calling.send(calling.headers(1))  # whose message has yet to come
        await idle.answers()
        third = FakeClient(server)
        assert (await idle.answers())[0]["goaway"] == [0]
        assert "goaway" not in (await calling.answers())[0] and "goaway" not in (await third.answers())[0]
        assert not server.port.refused

    run(test)


# -- the worker's end ----------------------------------------------------------------------------------------------


def test_drain() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.call(1)
        client.send(client.headers(3, headers_of(STREAM_INFER)))
        served.port.is_draining = True
        served.client.server.drain()
        answers = await client.answers()
        assert answers[0]["goaway"] == [0] and answers[3]["clipper-error"] == "unavailable"
        # Calls that were sent before the client could know are answered.
        client.call(5)
        client.send(client.headers(7, headers_of(STREAM_INFER)))
        assert (await client.answers())[7]["clipper-error"] == "unavailable"
        client.connection.begin_end()
        client.call(9)
        served.answer()
        answers = await client.answers()
        assert [answers[stream]["grpc-status"] for stream in (1, 5)] == ["0", "0"]
        assert answers.get(9) in (None, {"reset": REFUSED})
        assert client.transport.has_ended and not client.connection.is_busy
        served.assert_nothing_left()

    run(test)


def test_a_client_that_sends_no_more_gets_its_answers() -> None:
    async def test() -> None:
        served = Served()
        served.client.call(1)
        assert served.client.connection.eof_received()
        served.answer()
        assert (await served.client.answers())[1]["grpc-status"] == "0"
        assert served.client.transport.has_ended

    run(test)
