"""Where feedback goes: to this worker's observer, or to the worker whose query it is on."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import AnyReply, Draining, Framer, Observe, Observed, decode_command, encode
from clipper.control.snapshot import Peer
from clipper.errors import Overloaded
from clipper.selection.learner import Learner
from clipper.selection.query_ids import QueryIds
from clipper.settings.application import Selection
from clipper.worker.feedback_router import FeedbackRouter
from selection_desk import ROW, Desk, on_input, on_query, run

HERE, THERE, GONE = 3, 4, 5
ONE = {"a": b"1"}


class PeerWorker:
    """Another worker's control socket, answering by ``reply``."""

    def __init__(self, path: Path, reply: Callable[[Observe], AnyReply]) -> None:
        self.path = path
        self.asked: list[Observe] = []
        self._reply = reply
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer()
        while data := await reader.read(1 << 16):
            for body in framer.feed(data):
                command = decode_command(body)
                assert isinstance(command, Observe)
                self.asked.append(command)
                writer.write(encode(self._reply(command)))
        writer.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


def first_id(instance: int) -> int:
    return QueryIds(instance).next


def test_each_piece_goes_to_its_worker_and_outcomes_keep_their_order(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        mine = (await desk.answer(application)).query_id
        peer = PeerWorker(tmp_path / "p.sock", lambda command: Observed((Outcome(True),) * len(command.feedback)))
        await peer.start()
        router = FeedbackRouter(HERE)
        router.follow([Peer(HERE, "never dialled"), Peer(THERE, str(peer.path)), Peer(GONE, str(tmp_path / "gone"))])
        theirs, lost, unknown = first_id(THERE), first_id(GONE), first_id(9)
        pieces = [on_query(each, b"1") for each in (theirs, mine, lost, unknown, theirs + 1)]
        outcomes = await router.observe(application, [*pieces, on_input(ROW, b"1")])
        assert [each.error for each in outcomes] == [None, None, "unavailable", "not_found", None, None]
        assert [each.duplicate for each in outcomes] == [True, False, False, False, True, False]
        assert [[each.query_id for each in command.feedback] for command in peer.asked] == [[theirs, theirs + 1]]
        await peer.stop()

    run(tmp_path, ONE, scenario, cache=True)


def test_peer_that_answers_something_else_is_no_success(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        replies: list[AnyReply] = [Draining(), Observed(())]
        peer = PeerWorker(tmp_path / "p.sock", lambda _: replies.pop())
        await peer.start()
        router = FeedbackRouter(HERE)
        router.follow([Peer(THERE, str(peer.path))])
        for _ in range(2):
            outcomes = await router.observe(application, [on_query(first_id(THERE), b"1")])
            assert [each.error for each in outcomes] == ["unavailable"]
        await peer.stop()

    run(tmp_path, ONE, scenario)


def test_nothing_to_observe(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        assert await FeedbackRouter(HERE).observe(application, list[Feedback]()) == []

    run(tmp_path, ONE, scenario)


def test_what_nobody_waits_for_any_more_fails_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[asyncio.Future[bool]] = []

    def learn(*_: object) -> "asyncio.Future[bool]":
        begun.append(asyncio.get_running_loop().create_future())
        return begun[-1]

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        monkeypatch.setattr(Learner, "learn", learn)
        stopped = asyncio.create_task(FeedbackRouter(HERE).observe(application, [on_input(ROW, b"1")] * 3))
        while len(begun) < 3:
            await asyncio.sleep(0)
        stopped.cancel()
        await asyncio.wait([stopped])
        while len(begun) > 1:
            begun.pop().set_exception(Overloaded("too many wait"))

    run(tmp_path, ONE, scenario)
