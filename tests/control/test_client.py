"""Connections over TCP that are kept for the next command."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from clipper.control import client as client_module
from clipper.control.address import UnixAddress
from clipper.control.client import FREE_S, LIFE_S, MAX_FREE, Connections
from clipper.control.identity import PeerName
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    CommandRefused,
    Drain,
    Framer,
    GetRecentInput,
    RecentInput,
    encode,
)
from clipper.control.server import LIFE_S as SERVER_LIFE_S
from clipper.control.server import MAX_CONNECTIONS, SILENCE_S
from clipper.errors import ProtocolViolation
from clipper.worker.forwarder import MAX_ASKING_COMMANDS, MAX_COMMANDS
from tests.control_channel import LEADS, OTHER, Listening, ask, contexts, listening
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.waiting import until_async

SUPERVISOR, WORKER = contexts(LEADS).dialling, contexts(OTHER).dialling


class Gated(Listening):
    """Answers once it may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_answer = asyncio.Event()

    async def _answer(self, command: AnyCommand) -> AnyReply:
        await self.may_answer.wait()
        return await super()._answer(command)


def test_bounds_of_both_ends_fit() -> None:
    assert FREE_S < SILENCE_S
    assert LIFE_S < SERVER_LIFE_S
    assert 64 * MAX_FREE <= MAX_CONNECTIONS / 2
    assert 64 * (MAX_COMMANDS + MAX_ASKING_COMMANDS) <= MAX_CONNECTIONS * 3 / 4


def test_one_connection_carries_one_command_after_another(tmp_path: Path) -> None:
    async def main() -> None:
        kept = Connections()
        async with listening(tmp_path) as worker:
            for _ in range(20):
                assert await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept) == RecentInput()
                assert worker.server._connections == 1
            # A client with another identity has a connection of its own, and a refusal ends no connection.
            for _ in range(2):
                with pytest.raises(CommandRefused, match="worker/8 may not send Drain"):
                    await worker.ask(Drain(3), WORKER, by=kept)
                assert worker.server._connections == 2
            kept.close()
            await until_async(lambda: worker.server._connections == 0)
            assert await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept) == RecentInput()
            kept.close()
            await until_async(lambda: worker.server._connections == 0)

    run_clean(main())


def test_nobody_waits_for_a_connection_and_few_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        kept = Connections()
        async with listening(tmp_path, made=Gated) as worker:
            assert isinstance(worker, Gated)
            asked = [asyncio.ensure_future(worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept)) for _ in range(5)]
            await until_async(lambda: worker.server._connections == 5)
            worker.may_answer.set()
            assert await asyncio.gather(*asked) == [RecentInput()] * 5
            await until_async(lambda: worker.server._connections == MAX_FREE)
            kept.close()
            await until_async(lambda: worker.server._connections == 0)

    run_clean(main())


def test_free_ones_end_before_the_worker_ends_them(tmp_path: Path) -> None:
    async def main() -> None:
        kept, loop = Connections(), asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        async with listening(tmp_path) as worker:
            await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept)
            loop.advance(FREE_S / 2)
            await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept)
            assert worker.server._connections == 1
            loop.advance(FREE_S + 1)
            await until_async(lambda: worker.server._connections == 0)
            assert not kept._free

    run_clean(main())


def test_certificates_are_looked_at_again_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LIFE_S", -1.0)

    async def main() -> None:
        kept = Connections()
        async with listening(tmp_path) as worker:
            await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept)
            assert not kept._free
            await until_async(lambda: worker.server._connections == 0)

    run_clean(main())


def test_after_a_fault_and_after_the_end_of_a_worker_nothing_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        kept = Connections()
        async with listening(tmp_path) as worker:
            with pytest.raises(ProtocolViolation, match="expected the certificate of worker/9"):
                await worker.ask(GetRecentInput("m"), SUPERVISOR, PeerName("worker", 9), by=kept)
            assert not kept._free
            await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept)
            (((_, writer), _, _),) = next(iter(kept._free.values()))
            writer.transport.abort()  # as when the other end is gone
            assert await worker.ask(GetRecentInput("m"), SUPERVISOR, by=kept) == RecentInput()
            kept.close()
            await until_async(lambda: worker.server._connections == 0)

    run_clean(main())


def test_over_a_unix_socket_each_command_has_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        kept, worker = Connections(), Listening(tmp_path)
        address = UnixAddress(str(tmp_path / "w.sock"))
        await worker.server.listen(address)
        assert await kept.ask(address, GetRecentInput("m"), 9) == RecentInput()
        assert not kept._free
        worker.server.close()

    run_clean(main())


def test_a_worker_that_has_not_accepted_all_who_dial_yet_is_waited_for(tmp_path: Path) -> None:
    """Its unix socket has no room for more. It was taken for a worker that hangs, and replaced."""
    path = tmp_path / "s"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer()
        while data := await reader.read(1000):
            for _ in framer.feed(data):
                writer.write(encode(RecentInput()))
        writer.close()

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as bound, ExitStack() as stack:
            bound.bind(str(path))
            bound.listen(1)
            with pytest.raises(BlockingIOError):
                while True:
                    dialling = stack.enter_context(socket.socket(socket.AF_UNIX))
                    dialling.setblocking(False)
                    dialling.connect(str(path))
            with pytest.raises(TimeoutError):
                await ask(UnixAddress(str(path)), GetRecentInput("m"), 0.1)
            asked = asyncio.create_task(ask(UnixAddress(str(path)), GetRecentInput("m"), 60.0))
            await turn_over()
            stack.close()
            async with await asyncio.start_unix_server(serve, sock=bound):
                assert await asked == RecentInput()

    run_clean(main())
