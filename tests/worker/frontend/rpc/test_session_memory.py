"""How much memory clients' calls may take, and that all of it comes back."""

import asyncio
import struct

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.service import METHODS, WATCH
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Served, data, headers_of, run, serving
from tests.worker.frontend.rpc.http2 import frame, message_frame

CANCEL = 8
STREAM_INFER = METHODS["ModelStreamInfer"].path


def test_large_messages_are_bounded_by_the_memory_for_all_requests() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        served.port.budget.bound_bytes = 100_000
        part = struct.pack(">BI", 0, 1 << 20) + bytes(15_000)
        for stream in range(1, 40, 2):
            client.send(client.headers(stream), data(part, stream))
            assert served.port.budget.held_bytes <= 100_000
        answers = await client.answers()
        assert {answer["clipper-error"] for stream, answer in answers.items() if stream} == {"overloaded"}
        assert served.counts.open == 6
        client.leave()
        served.assert_nothing_left()

    run(test)


@pytest.mark.parametrize("path", [None, WATCH.path])
def test_messages_that_wait_count_against_the_memory_for_all_requests(path: str | None) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        served.port.budget.bound_bytes = 100_000
        fields = headers_of() if path is None else headers_of(path)
        for stream in range(1, 40, 2):
            # It is whole, and the call's end does not come.
            client.send(client.headers(stream, fields), data(message_frame(bytes(15_000)), stream))
            assert served.port.budget.held_bytes <= 100_000
        answers = await client.answers()
        refused = [stream for stream, answer in answers.items() if answer.get("clipper-error") == "overloaded"]
        assert len(refused) == 20 - 6
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_an_end_in_the_same_piece_as_a_call() -> None:
    async def test() -> None:
        for last in (GoAwayFrame(0), frame(4, 1, 0, bytes(6)), frame(0, 0, 0, b"x")):
            served = Served()
            client = served.client
            client.send(
                client.headers(1),
                data(message_frame(ASKED)[:20]),
                RstStreamFrame(1, CANCEL),
                client.headers(3),
                data(message_frame(ASKED), 3),
                RstStreamFrame(3, CANCEL),
                last,
            )
            await client.answers()
            client.leave()
            served.assert_nothing_left()

    run(test)


@pytest.mark.long
def test_the_connections_window_comes_back_however_a_call_ends() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        granted = bounds.CONNECTION_WINDOW_BYTES
        part = data(bytes(16_000))
        # Twice as many as would use it up.
        for stream in range(1, 4 * granted // 16_000, 2):
            part.stream_id = stream
            granted -= 16_000
            assert granted > 0
            client.send(client.headers(stream, headers_of(STREAM_INFER)))
            client.send(data(message_frame(ASKED), stream), part, RstStreamFrame(stream, CANCEL))
            granted -= len(message_frame(ASKED))
            for sent in client.frames():
                if isinstance(sent, WindowUpdateFrame) and not sent.stream_id:
                    granted += sent.window_increment
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_messages_that_never_end_make_room_in_memory() -> None:
    async def test() -> None:
        server = serving()
        server.port.budget.bound_bytes = 100_000
        greedy = [FakeClient(server) for _ in range(3)]
        size_bytes = 60_000
        whole = message_frame(bytes(size_bytes))
        for number, client in enumerate(greedy):
            # The last one's message is there, but its end is not.
            parts = [whole[start : start + 16_000] for start in range(0, len(whole), 16_000)]
            client.send(client.headers(1), *(data(part, 1) for part in (parts if number == 2 else parts[:-1])))
            server.port.sweeps += 1
        assert server.port.budget.held_bytes <= 100_000
        errors = [(await client.answers()).get(1, {}).get("clipper-error") for client in greedy]
        assert errors == ["overloaded", "overloaded", None]
        modest = FakeClient(server)
        server.port.budget.bound_bytes = size_bytes + 100
        modest.call(1)
        assert (await modest.answers())[1]["grpc-status"] == "0"
        for client in [*greedy, modest]:
            client.leave()
        assert server.port.budget.held_bytes == 0

    run(test)


def test_large_answers_are_bounded_by_the_memory_for_all_requests() -> None:
    async def test() -> None:
        served = Served(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        client = served.client
        served.port.budget.bound_bytes = 1 << 20
        for stream in range(1, 21, 2):
            client.call(stream)
            served.answer(output=b'"%b"' % (b"x" * 200_000))
        assert served.port.budget.held_bytes <= 1 << 20
        await client.answers()
        assert served.port.budget.held_bytes <= 1 << 20
        refused = served.port.refused["overloaded"]
        assert refused >= 5

    run(test)


def test_nothing_of_a_client_that_has_left_is_kept() -> None:
    async def test() -> None:
        served = Served()
        for stream in range(1, 100, 2):
            served.client.call(stream)
        served.client.send(data(message_frame(ASKED)[:9], 101))
        served.client.leave()
        assert all(query.asker is None for query in served.application.waiting)
        served.answer()
        await asyncio.sleep(0)
        served.assert_nothing_left()

    run(test)


def test_tiny_messages_that_wait_count_for_what_they_take() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1, headers_of(STREAM_INFER)))
        client.send(data(message_frame(ASKED), 1))
        sent = 0
        while served.counts.streaming and sent < 2 * bounds.MAX_STREAM_HELD_BYTES:
            assert served.port.budget.held_bytes >= sent // 5 * bounds.MESSAGE_HELD_BYTES
            client.send(data(message_frame(b"") * 3000, 1))
            sent += 5 * 3000
        assert sent < bounds.MAX_STREAM_HELD_BYTES // 20
        assert (await client.answers())[1]["clipper-error"] == "overloaded"
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_a_stream_may_itself_give_way_to_its_message() -> None:
    async def test() -> None:
        served = Served()
        client, message = served.client, message_frame(bytes(1000))
        client.send(client.headers(1, headers_of(STREAM_INFER)), data(message[:600], 1))
        # The whole message takes more, as it counts for what it takes besides its bytes.
        served.port.budget.bound_bytes = len(message)
        client.send(data(message[600:], 1))
        assert (await client.answers())[1]["clipper-error"] == "overloaded"
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_a_stream_of_which_much_waits_gives_way_where_memory_is_short() -> None:
    async def test() -> None:
        served = Served()
        greedy, modest = served.client, FakeClient(served.client.server)
        greedy.send(greedy.headers(1, headers_of(STREAM_INFER)))
        greedy.send(data(message_frame(ASKED), 1))
        # Its client is behind with reading, so that the next messages wait.
        served.answer(output=b'"%b"' % bytes(bounds.MAX_STREAM_UNSENT_BYTES).hex().encode())
        await greedy.answers(1000)
        greedy.send(*(data(message_frame(bytes(15_000)), 1) for _ in range(20)))
        served.port.budget.bound_bytes = served.port.budget.held_bytes + 10
        assert served.counts.streaming == 1
        modest.call(1)
        assert served.counts.streaming == 0
        served.answer()
        assert (await modest.answers())[1]["grpc-status"] == "0"
        for client in (greedy, modest):
            client.leave()
        served.assert_nothing_left()

    run(test)
