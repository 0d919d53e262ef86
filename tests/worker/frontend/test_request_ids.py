"""Request ids: taken, made and answered; and heads that differ by an id or a trace are recognised all the same."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.settings.server import TelemetrySettings
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.port import Port
from clipper.worker.telemetry.exporter import Exporter
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.watch import Watch
from tests.serving import post
from tests.waiting import until
from tests.worker.frontend.fake_transport import Peer, later, run

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        self.spans += spans

    def close(self) -> None: ...


def echo(**headers: str) -> bytes:
    return post("/echo/predict", b"hello", **headers)


def ids(peer: Peer) -> list[str | None]:
    return [response.headers.get("x-request-id") for response in peer.responses]


def count_parsers(port: Port, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note the heads that are learned: each was parsed."""
    learned: list[bytes] = []
    learn = port.known_heads.__class__.__setitem__

    class Noting(dict[bytes, object]):
        def __setitem__(self, head: bytes, value: object) -> None:
            learned.append(head)
            learn(self, head, value)

    port.known_heads = port.plain_heads = Noting()  # type: ignore[assignment]
    return learned


def test_an_id_is_answered_whether_its_head_is_known_or_not() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        for number in range(3):
            peer.send(echo(X_Request_Id=f"id-{number}"))
        peer.send(echo())
        assert ids(peer) == ["id-0", "id-1", "id-2", None]
        assert [response.body for response in peer.responses] == [b'"68656c6c6f"'] * 4

    run(test)


def test_errors_and_refused_heads_are_answered_with_it() -> None:
    async def test(port: Port) -> None:
        for request, status in [
            (post("/nowhere", b"", X_Request_Id="a"), 404),
            (b"GET /echo/predict HTTP/1.1\r\nX-Request-Id: a\r\n\r\n", 405),
            (post("/echo/predict", b"", X_Request_Id="a", Long="x" * limits.MAX_HEAD_BYTES), 400),
            (post("/echo/predict", b"", X_Request_Id="a", Expect="tea"), 417),
            (post("/echo/predict", b"", X_Request_Id="a", Connection="close"), 200),
        ]:
            peer = Peer(port)
            peer.send(request)
            assert [(response.status, response.headers.get("x-request-id")) for response in peer.responses] == [
                (status if status != 400 else peer.responses[0].status, "a")
            ]

    run(test)


def test_an_answer_that_no_memory_is_left_for_is_an_error_with_the_id() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(post("/later/predict", b"x", X_Request_Id="abc"))
        port.budget.bound_bytes = limits.LARGE_ANSWER_BYTES
        endpoint.exchanges[0].answer(200, bytes(2 * limits.LARGE_ANSWER_BYTES))
        (response,) = peer.responses
        assert (response.status, response.json["error"]) == (503, "overloaded")
        assert ids(peer) == ["abc"]

    run(test, endpoints)


@pytest.mark.parametrize("value", ["", "a b", "é", "x" * 129, "a;b", "a\tb"])
def test_what_is_no_id_is_not_answered(value: str) -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        for _ in range(2):
            peer.send(echo(X_Request_Id=value))
        assert ids(peer) == [None, None]

    run(test)


def test_two_ids_are_none() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        for _ in range(2):
            peer.send(echo(X_Request_Id="a", x_request_id="b"))
        assert ids(peer) == [None, None]

    run(test)


def test_ids_without_number_are_one_known_head_and_cost_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(port: Port) -> None:
        learned = count_parsers(port, monkeypatch)
        other, peer = Peer(port), Peer(port)
        other.send(echo())
        for number in range(20_000):
            peer.send(
                echo(traceparent=f"00-{number:032x}-{number:016x}-01", x_request_id=f"r{number}", baggage=f"b={number}")
            )
            peer.transport.written.clear()
        other.send(echo())
        # Header order and names are those of one client, so both clients' heads without these headers are one.
        assert learned == [echo()[: -len(b"hello")]]

    run(test)


def test_interim_answers_have_no_id() -> None:
    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(echo(X_Request_Id="a", Expect="100-continue"))
        assert [(response.status, response.headers.get("x-request-id")) for response in peer.responses] == [
            (100, None),
            (200, "a"),
        ]

    run(test)


def test_pipelined_requests_keep_their_ids() -> None:
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
        for _ in range(2):
            peer.send(b"".join(post("/later/predict", b"%d" % number, X_Request_Id=str(number)) for number in range(3)))
            for index in (2, 0, 1):
                endpoint.answer(len(endpoint.exchanges) - 3 + index)
        assert ids(peer) == ["0", "1", "2"] * 2

    run(test, endpoints)


NAMES = st.sampled_from([b"X-Request-Id", b"traceparent", b"Authorization", b"Content-Length", b"Host", b"a"])
VALUES = st.sampled_from([b" a", b" Bearer k", b"5", b" 5", b"a\r\n b", b"\x00", b"\xff", b"", b" 00-1-2-01"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_a_known_head_means_what_httptools_reads(lines: list[tuple[bytes, bytes]]) -> None:
    """Whatever a head with such headers is answered the first time, it is answered when others have taught its like."""
    head = b"POST /echo/predict HTTP/1.1\r\n" + b"".join(b"%b:%b\r\n" % line for line in lines) + b"\r\n"

    async def test(port: Port) -> None:
        fresh = Peer(port)
        fresh.send(head + b"hello")
        expected = bytes(fresh.transport.written)
        taught = Peer(port)
        taught.send(post("/echo/predict", b"hello"), b"POST /echo/predict HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        again = Peer(port)
        again.send(head + b"hello")
        assert bytes(again.transport.written) == expected

    run(test)


# -- with a watch ------------------------------------------------------------------------------------------


def test_the_access_log_makes_ids_and_says_what_was_answered(tmp_path: Path) -> None:
    watch = Watch(TelemetrySettings(access_log=1.0), tmp_path, 3, None, Random(1))
    endpoint, endpoints = later()

    async def test(port: Port) -> None:
        peer = Peer(port)
        for number in range(2):  # the second time the head is known
            peer.send(post("/later/predict?token=secret", b"%d" % number))
            peer.send(post("/nowhere", b"", X_Request_Id="mine"))
            endpoint.answer(number)
        peer.send(post("/later/predict", b"unanswered"))
        peer.leave()
        made = ids(peer)
        assert made[1::2] == ["mine", "mine"]
        assert len({*made[::2], "mine"}) == 3 and all(each is not None and len(each) == 16 for each in made[::2])

    run(test, endpoints, watch=watch)
    asyncio.run(watch.close())
    lines = (tmp_path / "access-3.log").read_text().splitlines()
    said = [line.partition("clipper.access: ")[2].partition(" in ")[0] for line in lines]
    assert said == ["POST /later/predict 200", "POST /nowhere 404"] * 2 + ["POST /later/predict 499"]
    assert "secret" not in "".join(lines)


def test_requests_are_traced_by_their_parent_also_with_known_heads(tmp_path: Path) -> None:
    sender = Spans()
    exporter = Exporter(sender)
    watch = Watch(TelemetrySettings(trace_share=0.0), tmp_path, 0, exporter, Random(1))

    async def probe(port: Port) -> None:
        peer = Peer(port)
        peer.send(b"GET /health/live HTTP/1.1\r\n\r\n")

    run(probe, watch=Watch(TelemetrySettings(trace_share=1.0), tmp_path, 0, exporter, Random(1)))

    async def test(port: Port) -> None:
        peer = Peer(port)
        for parent in (PARENT, PARENT, PARENT[:-1] + "0", "malformed"):
            peer.send(echo(traceparent=parent))
        peer.send(echo())
        assert len(peer.responses) == 5

    run(test, watch=watch)
    exporter.close()
    until(lambda: len(sender.spans) == 2)
    assert {(span.context.trace_id, span.parent_id) for span in sender.spans} == {
        (0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)
    }
