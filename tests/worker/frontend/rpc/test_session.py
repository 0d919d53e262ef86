"""Calls by frames: what gRPC makes of HTTP/2's streams."""

import gzip
import struct
from collections.abc import Sequence

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from clipper.worker.frontend import limits
from clipper.worker.frontend.rpc.service import METHODS, WATCH
from tests.worker.frontend.rpc.fake_client import ASKED, FakeClient, Served, data, headers_of, run
from tests.worker.frontend.rpc.http2 import message_frame
from tests.worker.frontend.rpc.rpc_messages import message_class

pytestmark = pytest.mark.usefixtures("engine")

CALM, CANCEL = 11, 8


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
        # Bytes of the refused message that still come are thrown away.
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


# -- watches -----------------------------------------------------------------------------------------------------


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
