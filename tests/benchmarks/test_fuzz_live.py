"""The fuzzing of a running server finds faults: it is tried on servers that misbehave."""

import asyncio
import os
import re
import time
from collections.abc import Callable

import pytest

from tests.benchmarks import fuzz_live
from tests.benchmarks.fuzz_live import INPUTS_A_WRITE, WRITES_A_ROUND, Found, Fuzz, make_group

LENGTH = re.compile(rb"Content-Length: (\d+)\r\n\r\n")
INPUTS = INPUTS_A_WRITE * WRITES_A_ROUND
GOOD = (200, b"{}")

Respond = Callable[[bytes], tuple[int, bytes] | None]


def fuzz(respond: Respond) -> Fuzz:
    """Fuzz a server that answers each request as it is told; None closes the connection."""
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        data = b""
        while more := await reader.read(1 << 16):
            data += more
            # Of garbled requests some never come to their end.
            while (
                head := LENGTH.search(data) or re.search(rb"GET /health/live.*\r\n\r\n", data, re.DOTALL)
            ) is not None:
                end = head.end() + (int(head[1]) if head.lastindex else 0)
                answer = respond(data[:end])
                if answer is None:
                    writer.transport.abort()
                    return
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (answer[0], len(answer[1]), answer[1]))
                data = data[end:]
        writer.close()

    async def go() -> Fuzz:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            fuzz = Fuzz(server.sockets[0].getsockname()[:2], os.getpid(), 0, INPUTS, 60.0)
            try:
                await fuzz.run()
            finally:
                for writer in opened:
                    writer.transport.abort()
                await asyncio.sleep(0)
            return fuzz

    return asyncio.run(go())


def found(respond: Respond) -> str:
    with pytest.raises(ExceptionGroup) as caught:
        fuzz(respond)
    return str(next(each for each in caught.value.exceptions if isinstance(each, Found)))


def test_a_server_that_answers_all() -> None:
    done = fuzz(lambda request: (503, b'{"error":"overloaded","cause":"so"}') if b"/a3/" in request else GOOD)
    assert done.sent == INPUTS
    kinds = {name.split()[0] for name in done.statuses}
    assert kinds == {"predict", "observe", "http"}
    assert done.statuses["predict 200"] + done.statuses["predict 503"] == 6 * INPUTS_A_WRITE


def test_a_bug_is_found_and_its_input_named() -> None:
    text = found(lambda request: (500, b"bug") if b"POST /a5/predict" in request else GOOD)
    number = int(text.split()[1])
    group = make_group(number // INPUTS_A_WRITE * INPUTS_A_WRITE)
    assert b"POST /a5/predict" in group.requests[number - group.first]


def test_an_error_without_a_reason_is_found() -> None:
    assert "was answered 503" in found(lambda request: (503, b"") if b"/observe" in request else GOOD)


def test_a_connection_that_is_closed_is_found() -> None:
    assert "answers to 24 inputs" in found(lambda request: None if b"/a2/predict" in request else GOOD)


def test_a_loop_that_is_held_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_live, "PROBE_EVERY_S", 0.0)

    def slow(request: bytes) -> tuple[int, bytes]:
        end_s = time.thread_time() + 0.06 * (b"/a5/predict" in request)
        while time.thread_time() < end_s:
            pass
        return GOOD

    assert "the loop was held for" in found(slow)


def test_inputs_are_made_of_their_numbers_alone() -> None:
    assert make_group(96) == make_group(96)
    assert make_group(96).requests != make_group(120).requests
