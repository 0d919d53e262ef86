import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ProtocolViolation
from clipper.model.protocol.frames import HEADER, Kind
from clipper.model.protocol.messages import encode_error, encode_pong, encode_welcome
from clipper.supervisor.managers.caller import MAX_REPLY_BYTES, Caller
from tests.scripted_container import WELCOME, against, pong


def test_hello_and_pings(tmp_path: Path) -> None:
    async def test(address: ReplicaAddress) -> None:
        with contextlib.closing(await Caller.probe(address, 10)) as probe:
            assert probe.welcome == WELCOME
            # The first ping was part of opening.
            assert [await probe.ping(10), await probe.ping(10)] == [2000, 3000]

    against(tmp_path, pong, test)


def after_hello(answer: bytes) -> Callable[[int, int], bytes]:
    return lambda kind, _: encode_welcome(WELCOME) if kind == Kind.HELLO else answer


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (lambda *_: encode_error(0, "go away"), "refused HELLO: go away"),
        (lambda *_: encode_pong(0, 0), "HELLO with PONG"),
        (lambda *_: b"HTTP/1.1 400 Bad Request\r\n\r\n", "not of protocol 7"),
        (lambda *_: HEADER.pack(MAX_REPLY_BYTES + 1, Kind.WELCOME, 0, 0, 0), f"{MAX_REPLY_BYTES + 1} bytes"),
        (after_hello(encode_pong(99, 0)), "PING 1 with PONG 99"),
        (after_hello(encode_error(1, "no")), "PING 1 with ERROR"),
    ],
)
def test_a_container_that_speaks_wrongly(tmp_path: Path, reply: Callable[[int, int], bytes], complaint: str) -> None:
    async def test(address: ReplicaAddress) -> None:
        with pytest.raises(ProtocolViolation, match=complaint):
            await Caller.probe(address, 10)

    against(tmp_path, reply, test)


def test_a_container_that_closes_or_is_silent_or_is_not_there(tmp_path: Path) -> None:
    async def closes(address: ReplicaAddress) -> None:
        with pytest.raises(ConnectionResetError):
            await Caller.probe(address, 10)

    async def is_silent(address: ReplicaAddress) -> None:
        with pytest.raises(TimeoutError):
            await Caller.probe(address, 0.05)
        with pytest.raises(FileNotFoundError):
            await Caller.probe(ReplicaAddress(address.id, address.address + "x"), 10)

    against(tmp_path, lambda *_: b"", closes)
    against(tmp_path, lambda *_: HEADER.pack(4, Kind.WELCOME, 0, 0, 0), is_silent)
