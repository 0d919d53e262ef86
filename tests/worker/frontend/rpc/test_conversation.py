"""Streams of messages by frames: which requests run at the same time, and in which order their answers come."""

import asyncio
import gzip
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.conversation import STREAM_INFER, AnswerOrder, Asked
from clipper.worker.frontend.rpc.wire import varint
from clipper.worker.selection.query import NO_SOURCE
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Served, data, headers_of, run
from tests.worker.frontend.rpc.http2 import message_frame
from tests.worker.frontend.rpc.rpc_messages import message_class, raw_request

CANCEL = 8
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
StreamResponse = message_class("inference.ModelStreamInferResponse")
# A running request holds its message, and a fixed number of bytes for the rest.
RUNNING_BYTES = len(ASKED) + limits.HELD_BYTES_PER_REQUEST


def named(request_id: str, columns: int = 4) -> bytes:
    """A request's message with an id."""
    message: bytes = raw_request(bytes(4 * columns), [1, columns], id=request_id).SerializeToString()
    return message


class Streaming(Served):
    """A client of an open stream, number 1."""

    def __init__(self, *messages: bytes, path: str = STREAM_INFER, **fields: str) -> None:
        super().__init__(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        self.client.send(WindowUpdateFrame(0, 2**30))
        self.client.send(self.client.headers(1, headers_of(path, **fields)))
        self.send(*messages)

    def send(self, *messages: bytes) -> None:
        text = b"".join(map(message_frame, messages))
        for start in range(0, len(text), 16_000):
            self.client.send(data(text[start : start + 16_000]))

    async def read(self, turns: int = 5) -> list[Any]:
        """The answers that have come since the last time."""
        found, rest = [], (await self.client.answers(turns)).get(1, {}).get("data", b"")
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(StreamResponse.FromString(rest[5 : 5 + size]))
            rest = rest[5 + size :]
        return found

    async def end(self) -> str:
        """The status with which the stream ends, once its client has ended it."""
        self.client.send(data(b"", is_last=True))
        status: str = (await self.client.answers())[1]["grpc-status"]
        self.assert_nothing_left()
        return status


def ids(answers: list[Any]) -> list[str]:
    return [each.infer_response.id for each in answers]


def test_requests_of_a_stream_run_at_the_same_time() -> None:
    async def test() -> None:
        served = Streaming(*[ASKED] * 64)
        assert len(served.application.waiting) == served.counts.in_flight == 64
        assert served.port.budget.held_bytes == 64 * RUNNING_BYTES
        served.answer()
        answers = await served.read()
        assert [each.error_message for each in answers] == [""] * 64
        assert all(each.infer_response.parameters["triton_final_response"].bool_param for each in answers)
        assert await served.end() == "0"

    run(test)


def test_requests_of_the_reflection_service_are_all_answered() -> None:
    async def test() -> None:
        served = Streaming(*[b"\x3a\x00"] * 3, path=REFLECTION)
        answer = (await served.client.answers(100))[1]
        assert answer["data"].count(b"inference.GRPCInferenceService") == 3
        assert await served.end() == "0"

    run(test)


def test_an_error_is_the_answer_to_its_request_alone() -> None:
    async def test() -> None:
        served = Streaming(named("a"), named("b", columns=5), b"\xff", named("c"))
        served.answer()
        answers = await served.read()
        assert ids(answers) == ["b", "", "a", "c"]
        for answer, code in zip(answers, ("wrong_input", "malformed_request")):
            parameters = answer.infer_response.parameters
            assert answer.error_message and parameters["code"].string_param == code
            assert parameters["triton_final_response"].bool_param
        assert "shape [1,5]" in answers[0].error_message
        assert [each.error_message for each in answers[2:]] == ["", ""]
        assert await served.end() == "0"

    run(test)


def test_the_slo_counts_from_each_requests_arrival() -> None:
    async def test() -> None:
        served = Streaming(ASKED)
        now_s = served.port.now_s()
        # It is not open for a request that comes now, nor does this one wait for the one before it.
        served.port.now_s = served.port.turn.now_s = lambda: now_s + 0.5
        served.port.turn.closes_s = 0.0
        served.send(ASKED)
        served.port.now_s = served.port.turn.now_s = lambda: now_s + 0.7
        await asyncio.sleep(0)
        first, second = served.application.waiting
        assert first.arrived_s == now_s
        assert now_s + 0.49 < second.arrived_s <= now_s + 0.5
        served.client.leave()
        served.assert_nothing_left()

    run(test)


def test_answers_of_one_id_keep_their_order_and_others_do_not_wait() -> None:
    async def test() -> None:
        served = Streaming(named("a"), ASKED, named("b"), named("a"), ASKED)
        queries, served.application.waiting = served.application.waiting, []
        for index, due in ((4, []), (3, []), (2, ["b"]), (0, ["a", "a"]), (1, ["", ""])):
            queries[index].asker.on_prediction(1, b"1.5", 1.0, NO_SOURCE)
            assert ids(await served.read()) == due
        assert await served.end() == "0"

    run(test)


def test_answers_are_all_in_order_where_requests_may_be_compressed() -> None:
    # Whether a message is compressed is up to the client's library, which sends small ones as they are.
    async def test() -> None:
        served = Streaming(grpc_encoding="gzip")
        compressed = gzip.compress(named("a"))
        served.client.send(data(b"\1" + message_frame(compressed)[1:] + message_frame(named("b"))))
        for _ in range(1000):
            await asyncio.sleep(0)
        queries, served.application.waiting = served.application.waiting, []
        assert len(queries) == 2
        for query in reversed(queries):
            query.asker.on_prediction(1, b"1.5", 1.0, NO_SOURCE)
        assert ids(await served.read()) == ["a", "b"]
        assert await served.end() == "0"

    run(test)


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=12), st.randoms())
def test_order_of_answers(request_ids: list[str], random: Any) -> None:
    order = AnswerOrder()
    requests = [Asked(None, each) for each in request_ids]  # type: ignore[arg-type]
    for asked in requests:
        order.add(asked)
    sent: list[Asked] = []
    for asked in random.sample(requests, len(requests)):
        asked.answer = b"", ()
        sent += order.due(asked)
        # An answer waits only for the answers to earlier requests with its id.
        for index, each in enumerate(requests):
            before = [earlier for earlier in requests[:index] if earlier.id == each.id]
            assert (each in sent) == all(earlier.answer is not None for earlier in (*before, each))
    for request_id in request_ids:
        assert [each for each in sent if each.id == request_id] == [each for each in requests if each.id == request_id]
    assert len(sent) == len(requests)


def test_a_client_waits_and_requests_over_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_STREAM_REQUESTS", 2 * bounds.BUSY_STREAM_REQUESTS)

    async def test() -> None:
        served = Streaming()
        client = served.client
        served.send(*[named("running")] * (bounds.BUSY_STREAM_REQUESTS - 1))
        client.frames()
        served.send(named("running"))
        assert not [each for each in client.frames() if isinstance(each, WindowUpdateFrame) and each.stream_id]
        surplus = bounds.MAX_STREAM_REQUESTS - bounds.BUSY_STREAM_REQUESTS + 3
        served.send(*[named(str(number)) for number in range(surplus)])
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(served.application.waiting) == bounds.MAX_STREAM_REQUESTS
        refused = await served.read()
        assert ids(refused) == [str(number) for number in range(surplus)][-3:]
        assert {each.infer_response.parameters["code"].string_param for each in refused} == {"overloaded"}
        served.answer(bounds.BUSY_STREAM_REQUESTS)
        await served.read()
        served.answer(10_000)
        assert len(await served.read(100)) == bounds.BUSY_STREAM_REQUESTS
        assert [each for each in client.frames() if isinstance(each, WindowUpdateFrame)] == []
        assert await served.end() == "0"

    run(test)


def test_a_stream_ends_whose_requests_no_memory_is_left_for() -> None:
    async def test() -> None:
        served = Streaming()
        served.port.budget.bound_bytes = 10 * RUNNING_BYTES
        served.send(*[ASKED] * 12)
        queries = list(served.application.waiting)
        assert len(queries) == 10 and {query.asker for query in queries} == {None}
        assert (await served.client.answers())[1]["clipper-error"] == "overloaded"
        served.assert_nothing_left()

    run(test)


def test_a_message_may_be_as_long_as_its_application_takes() -> None:
    async def test() -> None:
        # With what it takes besides, more than may wait behind another one. A field that is not known is left alone.
        size_bytes = bounds.MAX_STREAM_HELD_BYTES - len(ASKED) - 10
        served = Streaming(ASKED + b"\xa2\x06" + varint(size_bytes) + bytes(size_bytes))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(served.application.waiting) == 1
        served.answer()
        assert [each.error_message for each in await served.read()] == [""]
        assert await served.end() == "0"

    run(test)


def test_an_answer_that_no_memory_is_left_for_becomes_an_error() -> None:
    async def test() -> None:
        served = Streaming(ASKED, ASKED)
        served.port.budget.bound_bytes = 50_000
        first, second = served.application.waiting
        served.application.waiting = []
        second.asker.on_prediction(2, b'"%b"' % (b"x" * 60_000), 1.0, NO_SOURCE)
        first.asker.on_prediction(1, b"1.5", 1.0, NO_SOURCE)
        assert [bool(each.error_message) for each in await served.read()] == [False, True]
        assert await served.end() == "0"

    run(test)


def test_long_answers_of_a_stream_do_not_mix() -> None:
    async def test() -> None:
        served = Streaming(ASKED, named("a"), named("b"))
        texts = {"": b"x" * 700_000, "a": b"y", "b": b"z" * 300_000}
        for query, text in zip(served.application.waiting, texts.values()):
            query.asker.on_prediction(1, b'"%b"' % text, 1.0, NO_SOURCE)
        served.application.waiting = []
        answers = await served.read(1000)
        # They have no type, so each is the text of its JSON.
        found = {each.infer_response.id: each.infer_response.raw_output_contents[0][4:] for each in answers}
        assert found == {name: b'"%b"' % text for name, text in texts.items()}
        assert await served.end() == "0"

    run(test)


@pytest.mark.parametrize("path", [STREAM_INFER, REFLECTION])
def test_a_stream_that_does_not_read_its_answers_is_asked_no_more(path: str) -> None:
    async def test() -> None:
        client = FakeClient(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        asked = ASKED if path == STREAM_INFER else b"\x3a\x00"
        text = message_frame(asked) * (16_000 // (len(asked) + 5))
        client.send(client.headers(1, headers_of(path)))
        sent = 0
        # More than is answered before its client is behind.
        for _ in range(bounds.STREAM_WINDOW_BYTES // len(text) if path == STREAM_INFER else 10):
            client.send(data(text))
            sent += len(text) // (len(asked) + 5)
            await client.answers(1000)
        held_bytes = client.port.budget.held_bytes
        waiting = sent * (len(asked) + bounds.MESSAGE_HELD_BYTES)
        assert bounds.MAX_STREAM_UNSENT_BYTES < held_bytes < 3 * bounds.MAX_STREAM_UNSENT_BYTES + waiting
        # It goes on as they are read.
        client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}))
        client.send(WindowUpdateFrame(0, 2**30))
        for _ in range(200):
            await client.answers(20)
        client.send(data(b"", is_last=True))
        assert (await client.answers(100))[1]["grpc-status"] == "0"
        assert client.port.budget.held_bytes == 0

    run(test)


@pytest.mark.parametrize("is_reset", [True, False])
def test_requests_end_with_their_stream(is_reset: bool) -> None:
    async def test() -> None:
        served = Streaming(*[named(str(number % 3)) for number in range(9)])
        queries = list(served.application.waiting)
        queries[5].asker.on_prediction(1, b"1.5", 1.0, NO_SOURCE)
        if is_reset:
            served.client.send(RstStreamFrame(1, CANCEL))
        else:
            served.client.leave()
        assert [query.asker for query in queries if query is not queries[5]] == [None] * 8
        served.assert_nothing_left()

    run(test)


def test_a_worker_that_drains_answers_what_a_stream_has_asked() -> None:
    async def test() -> None:
        served = Streaming(named("a"), named("b"))
        served.client.connection.announce_end()
        now_s = served.port.now_s()
        served.port.now_s = lambda: now_s + 1
        served.send(named("late"))
        refused = await served.read()
        assert ids(refused) == ["late"] and refused[0].infer_response.parameters["code"].string_param == "unavailable"
        served.answer()
        answer = (await served.client.answers())[1]
        assert answer["data"].count(b"triton_final_response") == 2 and answer["grpc-status"] == "14"
        served.assert_nothing_left()

    run(test)
