import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipper.base.tcp import CUT_AFTER_S
from clipper.model.protocol import messages
from clipper.model.protocol.asks import encode_ask
from clipper.model.protocol.batches import make_encoder
from clipper.model.protocol.columns import encode_column_results
from clipper.model.protocol.frames import ASKS_VERSION, HEADER_BYTES, PROTOCOL_VERSION, RETOLD_VERSION, Kind, header
from clipper.model.protocol.messages import Welcome
from clipper.model.protocol.trace import BatchTrace, TraceContext, read_trace
from clipper.model.protocol.typed import encode_typed_results
from clipper.values.columns import Column
from clipper.values.output_arrays import OutputForm
from clipper.values.types import DType, InputType, ModelId
from clipper.worker import link as link_module
from clipper.worker.__main__ import PreciseLoop
from clipper.worker.link import (
    FIRST_REDIAL_S,
    MAX_ASKS_AT_ONCE,
    MAX_STRAY_ANSWERS,
    MAX_WELCOME_BYTES,
    READ_AT_ONCE_BYTES,
    WRITE_AT_ONCE_BYTES,
    ReplicaLink,
)
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.hearing import Hearing
from tests.small_container import DOUBLES, SmallContainer
from tests.waiting import until_async

DIGITS = ModelId("digits", "1")
ENCODER = make_encoder(DOUBLES)
ROW = struct.pack("<d", 1.5)
PAIR = OutputForm(DType.FLOAT32, (2,), DType.FLOAT64)
SCORE = Column("score", InputType(DType.FLOAT64, ()), 1, bytes(8))

Scenario = Callable[[Path], Coroutine[Any, Any, None]]


@pytest.fixture(params=[ShiftedLoop, PreciseLoop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on each of the loops, which differ in what they do with a dead connection."""
    return lambda scenario: run_clean(scenario(tmp_path), request.param)


def make_link(address: str, listener: Hearing, token: str = "") -> ReplicaLink:
    link = ReplicaLink(DIGITS, ENCODER, address, token, listener)
    link.open()
    return link


async def linked(tmp_path: Path) -> tuple[SmallContainer, Hearing, ReplicaLink]:
    container, hearing = await SmallContainer(tmp_path / "s").start(), Hearing()
    link = make_link(container.address, hearing)
    await until_async(lambda: link.is_linked)
    return container, hearing, link


async def end(link: ReplicaLink, *containers: SmallContainer) -> None:
    link.close()
    for container in containers:
        await container.kill()
    await turn_over()


def test_a_long_answer_leaves_the_loop_to_others_again_and_again(run: Callable[[Scenario], None]) -> None:
    """A container that writes as fast as it is read held the loop for ten milliseconds."""

    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        connection: Any = link._connection
        told: list[str] = []
        transport = connection.transport
        connection.transport = SimpleNamespace(
            pause_reading=lambda: told.append("pause"),
            resume_reading=lambda: told.append("resume"),
            is_closing=transport.is_closing,
        )
        text = b'"%b"' % (b"x" * (4 * READ_AT_ONCE_BYTES))
        data, piece = messages.encode_results(7, 1, text), READ_AT_ONCE_BYTES // 4
        for start in range(0, len(data), 5 * piece):
            for at in range(start, min(start + 5 * piece, len(data)), piece):
                connection.data_received(data[at : at + piece])
            await turn_over()
        assert told == ["pause", "resume"] * 3
        connection.transport = transport
        link.send(8, [ROW])
        await until_async(lambda: len(container.batches) == 1)
        container.batches[0].answer([text])
        await until_async(lambda: len(hearing.heard) == 3)
        assert [each[:2] for each in hearing.heard[1:]] == [("results", 7), ("results", 8)]
        assert all(list(map(bytes, each[2])) == [text] for each in hearing.heard[1:])
        await end(link, container)

    run(scenario)


def test_a_large_batch_leaves_the_loop_to_others_again_and_again(run: Callable[[Scenario], None]) -> None:
    """The kernel copied 40 MB in one call while the container read, which held the loop for 35 to 70 ms."""

    async def scenario(tmp_path: Path) -> None:
        container, _, link = await linked(tmp_path)
        connection: Any = link._connection
        written: list[bytes] = []
        transport = connection.transport
        connection.transport = SimpleNamespace(
            write=lambda data: written.append(bytes(data)),
            writelines=lambda parts: written.append(b"".join(parts)),
            is_closing=lambda: False,
        )
        large = [b"head", bytes(range(256)) * (WRITE_AT_ONCE_BYTES // 16)]
        link.send_frame([b"small"])
        link.send_frame(large)
        link.send_frame([b"behind"])
        assert written == [b"small", b"head"]
        await turn_over()
        assert len(written) > 2 and max(map(len, written)) <= WRITE_AT_ONCE_BYTES
        # Frames that the kernel does not take wait here.
        connection.pause_writing()
        await turn_over()
        before = len(written)
        await turn_over()
        assert len(written) == before < 18
        connection.resume_writing()
        await turn_over(40)
        assert b"".join(written) == b"small" + b"".join(large) + b"behind"
        link.send_frame([b"after"])
        assert written[-1] == b"after"
        connection.transport = transport
        await end(link, container)

    run(scenario)


def test_welcome_and_batches(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        await link.first_attempt
        assert hearing.heard == [("linked", Welcome("digits", "1", DOUBLES))]
        assert link.last_error is None
        link.send(7, [ROW, ROW * 2])
        link.send(8, [ROW])
        await until_async(lambda: len(container.batches) == 2)
        first, second = container.batches
        assert (first.id, first.predict.dtype, first.rows) == (7, DType.FLOAT64, [ROW, ROW * 2])
        second.fail("no")
        first.answer([b"1", b"[2]"])
        await until_async(lambda: len(hearing.heard) == 3)
        assert hearing.heard[1:] == [("error", 8, "no"), ("results", 7, [b"1", b"[2]"])]
        await end(link, container)

    run(scenario)


def test_dials_until_somebody_listens(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        hearing = Hearing()
        link = make_link(f"unix:{tmp_path}/s", hearing)
        await link.first_attempt
        assert not link.is_linked and "No such file" in (link.last_error or "")
        container = await SmallContainer(tmp_path / "s").start()
        await until_async(lambda: link.is_linked)
        assert link.last_error is None
        assert hearing.kinds() == ["linked"]
        await end(link, container)

    run(scenario)


def test_a_lost_connection_is_told_once_and_dialled_again(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        await container.kill()
        await until_async(lambda: not link.is_linked)
        assert hearing.kinds() == ["linked", "lost"]
        assert link.last_error
        container.path.unlink(missing_ok=True)
        again = await SmallContainer(container.path).start()
        await until_async(lambda: link.is_linked)
        assert hearing.kinds() == ["linked", "lost", "linked"]
        await end(link, again)

    run(scenario)


def test_a_dead_connection_is_not_linked_in_the_same_turn(run: Callable[[Scenario], None]) -> None:
    """Whoever runs after the loss, even in the same turn of the loop, does not find a link to send into."""

    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        loop = asyncio.get_running_loop()
        writes = 0

        def send_while_linked() -> None:
            nonlocal writes
            if link.is_linked:
                link.send(1, [ROW])
                writes += 1
                loop.call_soon(send_while_linked)

        send_while_linked()
        await container.kill()
        await until_async(lambda: not link.is_linked)
        assert writes > 0 and hearing.kinds() == ["linked", "lost"]
        await end(link)

    run(scenario)


def test_a_container_that_hangs_up_right_after_welcome_is_not_linked(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        hearing = Hearing()
        greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES))

        async def greet_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            writer.close()

        server = await asyncio.start_unix_server(greet_and_go, str(tmp_path / "s"))
        link = make_link(f"unix:{tmp_path}/s", hearing)
        await until_async(lambda: link.last_error)
        link.close()
        assert hearing.kinds().count("linked") == hearing.kinds().count("lost")
        server.close()
        await turn_over()

    run(scenario)


@pytest.mark.parametrize(
    ("greeting", "explanation"),
    [
        (messages.encode_welcome(Welcome("digits", "2", DOUBLES)), "serves digits:2, not digits:1"),
        (messages.encode_welcome(Welcome("faces", "1", DOUBLES)), "serves faces:1, not digits:1"),
        (messages.encode_error(0, "the token is wrong"), "the token is wrong"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the peer speaks another protocol"),
        (messages.encode_results(1, 1, b"1"), "unexpected frame of kind 4"),
        (header(Kind.WELCOME, 2) + b"[]", "WELCOME"),
        (header(Kind.WELCOME, MAX_WELCOME_BYTES + 1), str(MAX_WELCOME_BYTES)),
        (
            messages.encode_welcome(Welcome("digits", "1", DOUBLES)) + b"garbage in the same read",
            "the connection ended after WELCOME",
        ),
    ],
)
def test_who_does_not_say_welcome_as_expected_is_not_linked(
    run: Callable[[Scenario], None], greeting: bytes, explanation: str
) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing = SmallContainer(tmp_path / "s"), Hearing()
        container.greeting = greeting
        await container.start()
        link = make_link(container.address, hearing, token="secret")
        await link.first_attempt
        assert explanation in (link.last_error or "")
        assert container.tokens[0] == "secret"
        assert not link.is_linked and hearing.heard == []
        # It stays on, for the right container may come.
        container.greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES))
        await until_async(lambda: link.is_linked)
        await end(link, container)

    run(scenario)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"garbage, sixteen or more bytes", "the peer speaks another protocol"),
        (messages.encode_welcome(Welcome("digits", "1", DOUBLES)), "unexpected frame of kind 2"),
        (header(Kind.RESULTS, 3, 1) + b"abc", "RESULTS of 3 bytes"),
        (header(Kind.PREDICT, 0, 1), "unexpected frame of kind 3"),
    ],
)
def test_a_violation_after_welcome_ends_the_connection(
    run: Callable[[Scenario], None], frame: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        container.callers[0].write(frame)
        await until_async(lambda: len(hearing.heard) > 1)
        assert hearing.kinds()[:2] == ["linked", "lost"]
        assert reason in hearing.heard[1][1]
        await end(link, container)

    run(scenario)
    assert [record.levelno for record in caplog.records if record.name == link_module.__name__] == [logging.ERROR]


def test_a_container_that_answers_what_it_was_not_asked_is_cut_off(
    run: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    flood = b"".join(
        messages.encode_results(number, 1, b"1") if number % 2 else messages.encode_error(number, "no")
        for number in range(100_000)
    )

    async def scenario(tmp_path: Path) -> None:
        loop = asyncio.get_running_loop()
        container, hearing, link = await linked(tmp_path)
        hearing.unsent = range(100_000)
        linked_s = []
        for _ in range(4):
            linked_s.append(loop.time())
            hearing.heard.clear()
            container.callers[-1].write(flood)
            await until_async(lambda: "lost" in hearing.kinds())
            assert len(hearing.heard) == MAX_STRAY_ANSWERS + 2, "none is taken after the connection's end"
            assert f"answered {MAX_STRAY_ANSWERS + 1} batches that it was not sent" in hearing.heard[-1][1]
            await until_async(lambda: link.is_linked)
        # It waited twice as long each time, and a millisecond is within a loop's precision.
        assert linked_s[3] - linked_s[2] >= 4 * FIRST_REDIAL_S - 0.001
        # A slip ends nothing, and the next connection begins to count anew.
        hearing.heard.clear()
        container.callers[-1].write(flood[: flood.index(messages.encode_results(3, 1, b"1"))])
        link.send(200_000, [ROW])
        await until_async(lambda: container.batches)
        container.take().answer([b"1"])
        await until_async(lambda: ("results", 200_000, [b"1"]) in hearing.heard)
        assert link.is_linked
        await end(link, container)

    run(scenario)
    told = Counter(record.levelno for record in caplog.records if record.name == link_module.__name__)
    assert told == {logging.WARNING: 5, logging.ERROR: 4}, "of each connection its first stray answer, and its end"


def test_a_container_that_says_it_will_say_no_more_is_lost(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        # More than the kernel takes, so that a polite close would wait for a container which does not read.
        container.callers[0].transport.pause_reading()
        link.send(1, [bytes(1 << 24)])
        container.callers[0].transport.write_eof()
        await until_async(lambda: "lost" in hearing.kinds())
        await end(link, container)

    run(scenario)


def test_close_does_not_wait_for_a_container_that_does_not_read(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        container.callers[0].transport.pause_reading()
        link.send(1, [bytes(1 << 24)])
        link.close()
        container.callers[0].transport.resume_reading()
        await until_async(lambda: not container.callers)
        assert hearing.kinds() == ["linked"] and not link.is_linked
        assert container.batches == []
        await end(link, container)

    run(scenario)


@pytest.mark.parametrize("turns", range(8))
def test_close_at_any_step_of_a_dial_is_quiet_and_final(run: Callable[[Scenario], None], turns: int) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing = await SmallContainer(tmp_path / "s").start(), Hearing()
        link = make_link(container.address, hearing)
        await turn_over(turns)
        link.close()
        heard = list(hearing.heard)
        assert link.first_attempt.done() and not link.is_linked
        await until_async(lambda: not container.callers)
        await turn_over(20)
        assert hearing.heard == heard and not container.callers
        await end(link, container)

    run(scenario)


def test_close_before_open(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        link = ReplicaLink(DIGITS, ENCODER, f"unix:{tmp_path}/s", "", Hearing())
        link.close()
        assert link.first_attempt.done()

    run(scenario)


def test_a_container_that_never_greets_is_given_up(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "HANDSHAKE_TIMEOUT_S", 0.01)

    async def scenario(tmp_path: Path) -> None:
        container, hearing = SmallContainer(tmp_path / "s"), Hearing()
        container.greeting = None
        await container.start()
        link = make_link(container.address, hearing)
        await link.first_attempt
        assert link.last_error == "no answer within 0.01 s"
        assert hearing.heard == []
        await end(link, container)

    run(scenario)


@pytest.mark.parametrize("address", ["tcp:localhost", "tcp:127.0.0.1:99999", "unix:" + "x" * 200])
def test_an_address_that_can_be_none_is_an_error_and_no_crash(run: Callable[[Scenario], None], address: str) -> None:
    async def scenario(_tmp_path: Path) -> None:
        hearing = Hearing()
        link = make_link(address, hearing)
        await link.first_attempt
        assert link.last_error and hearing.heard == []
        await end(link)

    run(scenario)


def test_tcp(run: Callable[[Scenario], None]) -> None:
    async def scenario(_tmp_path: Path) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hello = await reader.readexactly(len(messages.encode_hello("secret")))
            assert hello == messages.encode_hello("secret", PROTOCOL_VERSION)
            writer.write(messages.encode_welcome(Welcome("digits", "1", DOUBLES)))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = make_link(f"tcp:127.0.0.1:{port}", Hearing(), "secret")
        await until_async(lambda: link.is_linked)
        assert link._connection is not None and link._connection.transport is not None
        own_socket = link._connection.transport.get_extra_info("socket")
        assert own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == CUT_AFTER_S * 1000
        link.close()
        server.close()
        await until_async(lambda: len(asyncio.all_tasks()) == 1)

    run(scenario)


@pytest.mark.parametrize("version", [RETOLD_VERSION - 1, RETOLD_VERSION])
def test_a_container_tells_once_what_it_has_learned(run: Callable[[Scenario], None], version: int) -> None:
    async def scenario(tmp_path: Path) -> None:
        told = messages.encode_welcome(Welcome("digits", "1", DOUBLES, output_type=DOUBLES, protocol=version))
        greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES, protocol=version))

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(len(messages.encode_hello()))
            writer.write(greeting)
            if await reader.read(1):  # not the link that is dialled again
                writer.write(told + messages.encode_results(1, 1, b"1", 5, {}) + told)
            await reader.read()
            writer.close()

        server, hearing = await asyncio.start_unix_server(greet, tmp_path / "s"), Hearing()
        link = make_link(f"unix:{tmp_path / 's'}", hearing)
        await until_async(lambda: link.is_linked)
        link.send(1, [ROW])
        await until_async(lambda: "lost" in hearing.kinds())
        end_at = hearing.kinds().index("lost")
        expected = ["told", "results"] if version == RETOLD_VERSION else []
        assert hearing.kinds()[:end_at] == ["linked", *expected]
        assert "unexpected frame of kind 2" in hearing.heard[end_at][1]
        server.close()
        await end(link)
        await until_async(lambda: len(asyncio.all_tasks()) == 1)

    run(scenario)


@pytest.mark.parametrize("newest", [1, 2])
def test_an_older_container_refuses_newer_messages_and_is_told_no_traces(
    run: Callable[[Scenario], None], newest: int
) -> None:
    predicted: list[bytes] = []

    async def scenario(tmp_path: Path) -> None:
        hellos: list[int] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hello = await reader.readexactly(len(messages.encode_hello("secret")))
            hellos.append(messages.decode_hello(hello[HEADER_BYTES:]).version)
            if hellos[-1] <= newest:
                writer.write(messages.encode_welcome(Welcome("digits", "1", DOUBLES, protocol=hellos[-1])))
                predicted.append(await reader.readexactly(HEADER_BYTES + 16 + 8))
                await reader.read()
            else:
                writer.write(messages.encode_error(0, "the caller speaks a newer protocol than this container"))
            writer.close()

        server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
        hearing = Hearing()
        link = make_link(f"unix:{tmp_path}/s", hearing, "secret")
        await link.first_attempt
        assert link.is_linked and hellos == [*range(PROTOCOL_VERSION, newest - 1, -1)] and hearing.kinds() == ["linked"]
        link.send(1, [bytes(8)], BatchTrace(TraceContext("00-1-2-01"), ()))
        await until_async(lambda: predicted == messages.encode_predict(1, DType.FLOAT64, 0, [bytes(8)]))
        link.close()
        server.close()
        await until_async(lambda: len(asyncio.all_tasks()) == 1)

    run(scenario)


def test_a_container_of_the_third_version_is_told_of_a_batchs_trace(run: Callable[[Scenario], None]) -> None:
    trace = BatchTrace(TraceContext("00-1-2-01", "a=1"), (TraceContext("00-1-3-01"),))

    async def scenario(tmp_path: Path) -> None:
        container, hearing = SmallContainer(tmp_path / "s"), Hearing()
        container.greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES, protocol=3))
        await container.start()
        link = make_link(container.address, hearing)
        await until_async(lambda: link.is_linked)
        link.send(1, [ROW], trace)
        link.send(2, [ROW], None)
        await until_async(lambda: len(container.batches) == 2)
        traced, other = (container.take() for _ in range(2))
        assert traced.rows == other.rows == [ROW]
        assert read_trace(traced.predict.trace) == trace and other.predict.trace == b""
        await end(link, container)

    run(scenario)


@pytest.mark.parametrize(
    ("protocol", "kind", "frame", "outputs"),
    [
        (2, Kind.TYPED_RESULTS, encode_typed_results(2, 1, PAIR, bytes(8)), [bytes(8)]),
        (4, Kind.COLUMN_RESULTS, b"".join(encode_column_results(2, [SCORE])), [("score", bytes(8))]),
    ],
)
def test_raw_outputs_and_what_is_wrong_with_them(
    run: Callable[[Scenario], None], protocol: int, kind: Kind, frame: bytes, outputs: list[Any]
) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing = SmallContainer(tmp_path / "s"), Hearing()
        container.greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES, protocol=protocol))
        await container.start()
        link = make_link(container.address, hearing)
        await until_async(lambda: link.is_linked)
        container.callers[0].write(header(kind, 3, 1) + b"abc")
        container.callers[0].write(frame)
        await until_async(lambda: len(hearing.heard) > 2)
        (_, error, results) = hearing.heard
        assert error[:2] == ("error", 1) and ("cannot be read" in error[2] or "is not valid" in error[2])
        assert results == ("results", 2, outputs)
        await end(link, container)

    run(scenario)


def test_columns_from_a_container_of_an_older_protocol_end_the_connection(run: Callable[[Scenario], None]) -> None:
    async def scenario(tmp_path: Path) -> None:
        container, hearing, link = await linked(tmp_path)
        container.callers[0].write(b"".join(encode_column_results(1, [SCORE])))
        await until_async(lambda: len(hearing.heard) > 1)
        assert hearing.heard[1] == ("lost", "the container sent an unexpected frame of kind 10")
        await end(link, container)

    run(scenario)


@pytest.mark.parametrize("version", [ASKS_VERSION - 1, ASKS_VERSION])
def test_asks_are_heard_from_a_version_on_and_a_flood_ends_the_connection(
    run: Callable[[Scenario], None], version: int
) -> None:
    ask = encode_ask(1, 1, 0, "app", messages.encode_results(0, 1, b"1"))

    async def scenario(tmp_path: Path) -> None:
        container, hearing = SmallContainer(tmp_path / "s"), Hearing()
        container.greeting = messages.encode_welcome(Welcome("digits", "1", DOUBLES, protocol=version))
        await container.start()
        link = make_link(container.address, hearing)
        await until_async(lambda: link.is_linked)
        container.callers[0].write(ask * 2)
        if version >= ASKS_VERSION:
            await until_async(lambda: hearing.kinds().count("ask") == 2)
            container.callers[0].write(ask * (4 * MAX_ASKS_AT_ONCE))
        await until_async(lambda: "lost" in hearing.kinds())
        lost = next(event for event in hearing.heard if event[0] == "lost")
        assert ("does not wait for answers" if version >= ASKS_VERSION else "unexpected frame of kind 11") in lost[1]
        await end(link, container)

    run(scenario)
