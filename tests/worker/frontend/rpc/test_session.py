"""Calls by frames: what gRPC makes of HTTP/2's streams."""

import asyncio
import gzip
import struct
from collections.abc import Sequence

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.service import METHODS, WATCH
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Served, data, headers_of, run
from tests.worker.frontend.rpc.http2 import message_frame
from tests.worker.frontend.rpc.rpc_messages import message_class

CALM, CANCEL = 11, 8
STREAM_INFER = METHODS["ModelStreamInfer"].path
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


# -- heads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"_method": "GET"}, {":status": "405"}),
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": "application/grpc-web"}, {":status": "415"}),
        ({"content_type": None}, {":status": "415"}),
        ({"content_type": "application/grpc+proto"}, {"grpc-status": "0"}),
        ({"content_type": "application/grpc;charset=utf-8"}, {"grpc-status": "0"}),
        ({"_path": "/nobody/Knows"}, {"grpc-status": "12", "clipper-error": "not_implemented"}),
        ({"_path": "/inference.GRPCInferenceService/TraceSetting"}, {"grpc-status": "12"}),
        ({"grpc_timeout": "1"}, {"grpc-status": "3"}),
        ({"grpc_timeout": "123456789S"}, {"grpc-status": "3"}),
        ({"grpc_timeout": "0m"}, {"grpc-status": "4", "clipper-error": "timeout"}),
        ({"grpc_timeout": "99999999H"}, {"grpc-status": "0"}),
        ({"grpc_encoding": "br"}, {"grpc-status": "12"}),
        ({"grpc_encoding": "identity"}, {"grpc-status": "0"}),
        ({"x": "a" * 12_000, "z": "a" * 12_000}, {"grpc-status": "8", "clipper-error": "too_large"}),
    ],
)
def test_head(changes: dict[str, str | None], expected: dict[str, str]) -> None:
    async def test() -> None:
        client = FakeClient()
        client.call(1, fields=headers_of(**changes))
        answer = (await client.answers())[1]
        assert expected.items() <= answer.items()
        assert answer["is_over"]
        # The connection goes on.
        client.call(3)
        assert (await client.answers())[3]["grpc-status"] == "0"

    run(test)


def test_a_head_that_fills_memory_ends_the_connection() -> None:
    async def test() -> None:
        client = FakeClient()
        # Each is one byte of HPACK, and 4 KB once it is read.
        client.send(client.headers(1, [*headers_of(), ("x", "y" * 4000)]))
        client.send(client.headers(3, [*headers_of(), *[("x", "y" * 4000)] * 2000]))
        assert (await client.answers())[0]["goaway"] == [CALM]
        assert client.server.counts.open == 0

    run(test)


# -- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        ([], "3", "malformed_request"),
        ([b"\0\0\0"], "3", "malformed_request"),
        ([message_frame(ASKED)[:-1]], "3", "malformed_request"),
        ([message_frame(ASKED) + b"\0"], "3", "malformed_request"),
        ([message_frame(ASKED) * 2], "3", "malformed_request"),
        ([b"\2" + message_frame(ASKED)[1:]], "3", "malformed_request"),
        ([b"\1" + message_frame(ASKED)[1:]], "3", "malformed_request"),
        ([b"\0\xff\xff\xff\xff"], "8", "too_large"),
        ([message_frame(ASKED)[:2], b"", message_frame(ASKED)[2:9], message_frame(ASKED)[9:]], "0", None),
    ],
)
def test_message(sent: Sequence[bytes], status: str, error: str | None) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1), *(data(each) for each in sent), data(b"", is_last=True))
        served.answer()
        answer = (await client.answers())[1]
        assert (answer["grpc-status"], answer.get("clipper-error")) == (status, error)
        served.assert_nothing_left()

    run(test)


def test_compressed_messages() -> None:
    async def test() -> None:
        client = FakeClient()
        fields = headers_of(grpc_encoding="gzip")
        for stream, text, status in (
            (1, gzip.compress(ASKED), "0"),
            (3, gzip.compress(ASKED)[:-1], "3"),
            (5, b"not gzip", "3"),
            (7, gzip.compress(bytes(limits.MAX_BODY_BYTES * 2)), "8"),
        ):
            client.send(client.headers(stream, fields), data(b"\1" + message_frame(text)[1:], stream, is_last=True))
            assert (await client.answers(1000))[stream]["grpc-status"] == status
        assert client.port.budget.held_bytes == 0

    run(test)


def test_a_message_that_is_too_long_is_refused_before_it_is_there() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1), data(struct.pack(">BI", 0, 1 << 30)))
        answer = (await client.answers())[1]
        # What comes of it meanwhile is thrown away.
        assert answer["grpc-status"] == "8" and answer["reset"] == 0
        client.send(data(bytes(10_000)))
        assert "goaway" not in (await client.answers())[0]
        served.assert_nothing_left()

    run(test)


# -- ends ----------------------------------------------------------------------------------------------------------


def test_a_call_that_is_reset_is_cancelled() -> None:
    async def test() -> None:
        served = Served()
        served.client.call(1)
        (query,) = served.application.waiting
        assert query.asker is not None and served.counts.in_flight == 1
        served.client.send(RstStreamFrame(1, CANCEL))
        assert query.asker is None
        served.assert_nothing_left()

    run(test)


def test_calls_that_are_answered_in_one_turn_go_out_together() -> None:
    async def test() -> None:
        served = Served()
        for stream in range(1, 21, 2):
            served.client.call(stream)
        before = len(served.client.transport.written)
        served.answer()
        assert len(served.client.transport.written) == before
        answers = await served.client.answers(1)
        assert [answers[stream]["grpc-status"] for stream in range(1, 21, 2)] == ["0"] * 10

    run(test)


def test_errors_are_told_in_headers() -> None:
    async def test() -> None:
        served = Served()
        served.client.call(1)
        served.application.waiting[0].asker.on_no_prediction(1, "no_replica", "grün\n100 %")
        answer = (await served.client.answers())[1]
        assert answer["grpc-message"] == "gr%C3%BCn%0A100 %25"
        assert answer["grpc-retry-pushback-ms"].isdecimal() and answer["grpc-status"] == "14"
        assert served.counts.open == 0

    run(test)


# -- streams -------------------------------------------------------------------------------------------------------


def test_messages_of_a_stream_are_answered_one_after_another() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.send(client.headers(1, headers_of(STREAM_INFER)), data(message_frame(ASKED) * 3 + message_frame(b"")))
        assert len(served.application.waiting) == served.counts.in_flight == 1
        for _ in range(3):
            assert len(served.application.waiting) == 1
            served.answer()
        answer = (await client.answers())[1]
        response = message_class("inference.ModelStreamInferResponse")
        found = []
        rest = answer["data"]
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(response.FromString(rest[5 : 5 + size]))
            rest = rest[5 + size :]
        assert [bool(each.error_message) for each in found] == [False, False, False, True]
        assert "grpc-status" not in answer
        client.send(data(b"", is_last=True))
        assert (await client.answers())[1]["grpc-status"] == "0"
        served.assert_nothing_left()

    run(test)


def test_a_stream_that_sends_faster_than_it_is_answered_waits() -> None:
    async def test() -> None:
        served = Served(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        client = served.client
        client.send(WindowUpdateFrame(0, 2**30), client.headers(1, headers_of(STREAM_INFER)))
        text = message_frame(ASKED) * 100
        sent = 0
        while sent + len(text) <= bounds.STREAM_WINDOW_BYTES:
            client.send(data(text))
            sent += len(text)
        # Nothing lets it send more, and others may.
        assert not [each for each in client.frames() if isinstance(each, WindowUpdateFrame) and each.stream_id]
        messages = bounds.STREAM_WINDOW_BYTES // len(message_frame(ASKED)) + 1
        assert served.port.budget.held_bytes <= messages * (len(ASKED) + bounds.MESSAGE_HELD_BYTES)
        while served.application.waiting:
            served.answer()
            await asyncio.sleep(0)
        assert [each for each in client.frames() if isinstance(each, WindowUpdateFrame) and each.stream_id == 1]
        client.leave()
        served.assert_nothing_left()

    run(test)


@pytest.mark.parametrize("path", [STREAM_INFER, REFLECTION])
def test_a_stream_that_does_not_read_its_answers_is_asked_no_more(path: str) -> None:
    async def test() -> None:
        client = FakeClient(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        asked = ASKED if path == STREAM_INFER else b"\x3a\x00"
        text = message_frame(asked) * (16_000 // (len(asked) + 5))
        client.send(client.headers(1, headers_of(path)))
        for _ in range(10):
            client.send(data(text))
            await client.answers(100)
        held_bytes = client.port.budget.held_bytes
        waiting = 10 * len(text) // (len(asked) + 5) * (len(asked) + bounds.MESSAGE_HELD_BYTES)
        assert bounds.MAX_STREAM_UNSENT_BYTES < held_bytes < 3 * bounds.MAX_STREAM_UNSENT_BYTES + waiting
        # It goes on as they are read.
        client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}))
        client.send(WindowUpdateFrame(0, 2**30))
        for _ in range(100):
            await client.answers(20)
        client.send(data(b"", is_last=True))
        assert (await client.answers(100))[1]["grpc-status"] == "0"
        assert client.port.budget.held_bytes == 0

    run(test)


def test_watch_tells_of_changes() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        asked = message_class("grpc.health.v1.HealthCheckRequest")(service="inference.GRPCInferenceService")
        client.call(1, asked.SerializeToString(), headers_of(WATCH.path))
        assert (await client.answers())[1]["data"] == message_frame(b"\x08\x01")
        served.sweep()
        assert 1 not in await client.answers()
        served.application.terms.is_ready = False
        served.sweep()
        assert (await client.answers())[1]["data"] == message_frame(b"\x08\x02")
        client.send(RstStreamFrame(1, CANCEL))
        served.assert_nothing_left()

    run(test)


def test_a_stopping_server_is_told_of_whichever_service_is_watched() -> None:
    async def test() -> None:
        served = Served()
        client, request = served.client, message_class("grpc.health.v1.HealthCheckRequest")
        for stream, service in ((1, ""), (3, "inference.GRPCInferenceService")):
            client.call(stream, request(service=service).SerializeToString(), headers_of(WATCH.path))
            assert (await client.answers())[stream]["data"] == message_frame(b"\x08\x01")
        served.readiness.is_stopping = True
        served.sweep()
        answers = await client.answers()
        assert [answers[stream]["data"] for stream in (1, 3)] == [message_frame(b"\x08\x02")] * 2
        client.call(5, b"", headers_of(METHODS["ServerReady"].path))
        assert (await client.answers())[5]["data"] == message_frame(b"")
        # It takes queries on.
        client.call(7)
        await client.answers()
        served.answer()
        assert (await client.answers())[7]["grpc-status"] == "0"

    run(test)


def test_a_reset_that_ends_the_last_call_ends_a_session_that_is_closing() -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        # Refused before its end has come, after the client has said that it begins no more calls.
        client.send(client.headers(1, headers_of("/x/Unknown")), GoAwayFrame(0))
        answer = (await client.answers())[1]
        assert answer["grpc-status"] == "12" and answer["reset"] == 0
        assert client.transport.has_ended
        for end in (client.connection.announce_end, client.connection.begin_end, served.sweep):
            end()

    run(test)
