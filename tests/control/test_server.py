"""The control channel over TCP: who is let in, what it may send, and what it can cost."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path

import pytest

from clipper.base.tls.mutual import make_contexts
from clipper.control import server as server_module
from clipper.control.address import TcpAddress, UnixAddress
from clipper.control.difference import EPOCH_BITS
from clipper.control.feedback import Feedback, Outcome
from clipper.control.identity import PeerName, Secured, write_identity
from clipper.control.messages import (
    MAX_MESSAGE_BYTES,
    Applied,
    Apply,
    CommandRefused,
    Drain,
    Draining,
    GetRecentInput,
    Observe,
    Observed,
    RecentInput,
    encode,
)
from clipper.control.server import MAX_CONNECTIONS, MAX_HANDSHAKES, SILENCE_S, ControlServer
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.errors import InvalidArgument, ProtocolViolation
from tests.control_channel import LEADS, LISTENS, NOW, OTHER, Listening, ask, authority, contexts, listening
from tests.event_loops import ShiftedLoop, run_clean
from tests.waiting import until_async

SUPERVISOR, WORKER = contexts(LEADS).dialling, contexts(OTHER).dialling
SNAPSHOT = Snapshot(
    (3 << EPOCH_BITS) + 1, tuple(ApplicationSnapshot(f"a{number}", "string", 20.0) for number in range(20_000))
)


def run(main: Coroutine[None, None, None]) -> None:
    run_clean(main)


async def dial(worker: Listening, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", worker.address.port, ssl=context)


async def is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        while await reader.read(1 << 16):
            pass
    except OSError:
        pass
    return True


def test_a_supervisor_is_answered_also_to_what_takes_many_records(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            assert len(encode(Apply(SNAPSHOT))) > 1_000_000
            assert await worker.ask(Apply(SNAPSHOT), SUPERVISOR) == Applied(SNAPSHOT.generation, {}, ())
            many = Observe("a", tuple(Feedback("", query_id=number, label=b"1") for number in range(20_000)))
            assert await worker.ask(many, WORKER) == Observed((Outcome(),) * 20_000)
            assert await worker.ask(Drain(3), SUPERVISOR) == Draining()
            assert worker.took == [Apply(SNAPSHOT), many, Drain(3)]

    run(main())


def test_sockets_made_at_once_are_private_and_leave_the_mask_unchanged(tmp_path: Path) -> None:
    async def main() -> None:
        workers = [Listening(tmp_path) for _ in range(3)]
        paths = [tmp_path / f"w{number}.sock" for number in range(3)]
        await asyncio.gather(*(worker.server.listen(UnixAddress(str(path))) for worker, path in zip(workers, paths)))
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o600] * 3
        for worker in workers:
            worker.server.close()

    before = os.umask(0o022)
    try:
        run(main())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_over_a_unix_socket_an_old_epoch_drains_nobody_either(tmp_path: Path) -> None:
    async def main() -> None:
        worker = Listening(tmp_path)
        address = UnixAddress(str(tmp_path / "w.sock"))
        await worker.server.listen(address)
        await ask(address, Apply(SNAPSHOT), 9)
        with pytest.raises(CommandRefused, match="the supervisor on this machine sent Drain for epoch 2"):
            await ask(address, Drain(2), 9)
        assert await ask(address, Drain(), 9) == Draining()
        assert worker.took == [Apply(SNAPSHOT), Drain()]
        worker.server.close()

    run(main())


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        (contexts(LEADS, age=timedelta(days=31)).dialling, "the certificate of supervisor/3 is valid from"),
        (contexts(LEADS, age=-timedelta(days=2)).dialling, "the certificate of supervisor/3 is valid from"),
        (contexts(PeerName("worker", 9), age=timedelta(days=31)).dialling, "the certificate of worker/9 is valid"),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_refused_with_its_name(
    context: ssl.SSLContext, shown: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            with pytest.raises((OSError, ProtocolViolation)):
                await worker.ask(GetRecentInput("m"), context)
            assert worker.took == []

    run(main())
    assert [shown in record.getMessage() for record in caplog.records if "refused" in record.getMessage()] == [True]


def plain(*, shows: bool) -> ssl.SSLContext:
    """Of one that trusts anybody, and shows nothing or what it signed by itself."""
    if shows:
        context = make_contexts(authority(1).issue(LEADS, NOW)).dialling
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("shows", [False, True])
def test_who_shows_nothing_or_what_another_authority_signed_is_not_heard(
    shows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            reader, writer = await dial(worker, plain(shows=shows))
            writer.write(encode(GetRecentInput("m")))
            assert await is_ended(reader)
            writer.transport.abort()
            assert await worker.ask(GetRecentInput("m"), SUPERVISOR) == RecentInput()
            assert worker.took == [GetRecentInput("m")]

    run(main())
    assert "TLS handshakes have failed" in caplog.text
    assert "(on the control channel, from 127.0.0.1:" in caplog.text


def test_who_dials_trusts_the_worker_of_that_name_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            with pytest.raises(ProtocolViolation, match="expected the certificate of worker/8, got that of worker/7"):
                await worker.ask(GetRecentInput("m"), SUPERVISOR, OTHER)
            with pytest.raises(ssl.SSLError):
                await worker.ask(GetRecentInput("m"), contexts(LEADS, of=1).dialling)
            with pytest.raises(PermissionError, match="asks for a certificate"):
                await ask(worker.address, GetRecentInput("m"), 9)
            assert worker.took == []

    run(main())


def test_a_worker_cannot_stop_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            for command in (Drain(9), Apply(Snapshot(9 << EPOCH_BITS)), GetRecentInput("m")):
                with pytest.raises(CommandRefused, match=f"worker/8 may not send {type(command).__name__}"):
                    await worker.ask(command, WORKER)
            assert worker.took == []

    run(main())
    assert caplog.text.count("worker/8 may not send") == 3


def test_a_supervisor_that_was_replaced_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            await worker.ask(Apply(SNAPSHOT), SUPERVISOR)
            before = contexts(PeerName("supervisor", 2)).dialling
            for command in (Drain(2), Apply(Snapshot(2 << EPOCH_BITS)), Drain(3), Drain(), Apply(SNAPSHOT)):
                with pytest.raises(CommandRefused, match="supervisor/2"):
                    await worker.ask(command, before)
            assert await worker.ask(GetRecentInput("m"), before) == RecentInput()
            assert worker.took == [Apply(SNAPSHOT), GetRecentInput("m")]

    run(main())


def test_strangers_who_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as worker:
            strangers = [await dial(worker, None) for _ in range(2 * MAX_HANDSHAKES)]
            for _, writer in strangers[::2]:
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a handshake
            assert await worker.ask(GetRecentInput("m"), SUPERVISOR) == RecentInput()
            assert worker.server._connections <= MAX_HANDSHAKES + 1
            for _, writer in strangers:
                writer.transport.abort()
            await until_async(lambda: worker.server._connections == 0)

    run(main())


def test_strangers_who_reset_their_connections_fill_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x").do_handshake()
    hello = outgoing.read()

    async def main() -> None:
        async with listening(tmp_path) as worker:
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", worker.address.port)) as stranger:
                    stranger.sendall(hello)
                    # Closing it sends a reset, while the worker waits for the rest of the handshake.
                    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    await until_async(lambda: worker.server._connections == 1)
                await until_async(lambda: worker.server._connections == 0)

    run(main())
    assert len(caplog.records) <= 1, caplog.text


def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CONNECTIONS > MAX_HANDSHAKES  # else strangers could take them all
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)

    async def main() -> None:
        async with listening(tmp_path) as worker:
            held = []
            for _ in range(3):
                reader, writer = await dial(worker, WORKER)
                writer.write(encode(Observe("a", ())))
                await reader.read(1)
                held.append(writer)
            with pytest.raises((OSError, ProtocolViolation)):
                await worker.ask(GetRecentInput("m"), SUPERVISOR)
            for writer in held:
                writer.transport.abort()
            await until_async(lambda: worker.server._connections == 0)
            assert await worker.ask(GetRecentInput("m"), SUPERVISOR) == RecentInput()

    run(main())


def test_messages_are_bounded_one_by_one_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_PARTIAL_BYTES", 300_000)

    async def main() -> None:
        async with listening(tmp_path) as worker:
            reader, writer = await dial(worker, SUPERVISOR)
            writer.write(struct.pack("<I", MAX_MESSAGE_BYTES + 1))
            assert await is_ended(reader)
            halves = [await dial(worker, WORKER) for _ in range(3)]
            for _, half in halves:
                half.write(struct.pack("<I", 200_000) + bytes(150_000))
            ended = [asyncio.ensure_future(is_ended(reader)) for reader, _ in halves]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            # A supervisor is heard all the same.
            assert (await worker.ask(Apply(SNAPSHOT), SUPERVISOR)).generation == SNAPSHOT.generation
            for _, half in halves:
                half.transport.abort()
            writer.transport.abort()
            await asyncio.wait(ended)
            assert worker.took == [Apply(SNAPSHOT)]
            await until_async(lambda: not worker.server._partial)

    run(main())


@pytest.mark.parametrize("sent", [b"", struct.pack("<I", 100) + b"x"])
def test_one_that_says_no_more_is_closed(sent: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        async with listening(tmp_path) as worker:
            reader, writer = await dial(worker, SUPERVISOR)
            writer.write(encode(GetRecentInput("m")) + sent)
            assert await reader.read(1)
            loop.advance(SILENCE_S + 1)
            assert await is_ended(reader)
            writer.transport.abort()

    run(main())


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_EVERY_S", 0.01)

    async def main() -> None:
        async with listening(tmp_path) as worker:
            write_identity(worker.path, authority(0).issue(PeerName("worker", 70), NOW))

            async def is_renewed() -> bool:
                try:
                    await worker.ask(GetRecentInput("m"), SUPERVISOR, PeerName("worker", 70))
                except ProtocolViolation:
                    return False
                return True

            while not await is_renewed():
                await asyncio.sleep(0.01)

    run(main())


def test_over_tcp_nobody_listens_without_a_certificate() -> None:
    async def main() -> None:
        with pytest.raises(InvalidArgument, match="expected an identity"):
            await ControlServer(lambda _: asyncio.sleep(0)).listen(TcpAddress("127.0.0.1", 1))  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize("host", ["a" * 64, "\u2603" * 70, "no.such.host.invalid"])
def test_a_host_that_cannot_be_is_an_error_of_the_network(host: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError):
            await ask(TcpAddress(host, 1), GetRecentInput("m"), 9, secured=None)

        with pytest.raises(OSError):
            await ask(TcpAddress(host, 1), GetRecentInput("m"), 9, secured=Secured(SUPERVISOR, LISTENS))

    run(main())


def test_log_names_who_was_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with listening(tmp_path) as worker:
            reader, writer = await dial(worker, WORKER)
            writer.write(struct.pack("<I", 3) + b"\xc1\xc1\xc1")
            assert await is_ended(reader)
            writer.transport.abort()

    run(main())
    assert "worker/8 at 127.0.0.1:" in caplog.text
    assert "malformed" in caplog.text
