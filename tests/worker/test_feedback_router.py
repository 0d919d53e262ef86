"""Where feedback goes: to this worker's observer, or to the worker whose query it is on."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from selectors import BaseSelector, SelectorKey

import pytest

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import (
    AnyReply,
    Draining,
    Framer,
    Observe,
    Observed,
    ObservePart,
    decode_command,
    encode,
    encode_body,
)
from clipper.control.snapshot import Peer
from clipper.errors import Overloaded, StoreUnavailable, Unavailable
from clipper.learning.stores.gathered_reads import Read
from clipper.learning.stores.redis import RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import Mailbox
from clipper.settings.application import Selection
from clipper.worker import feedback_router
from clipper.worker.feedback_router import FeedbackRouter
from clipper.worker.selection.application import Application
from clipper.worker.selection.learner import Learner, Tell
from clipper.worker.selection.query import QueryIds
from clipper.worker.selection.remembering import Remembering
from clipper.worker.selection.synchronizer import Synchronizer
from clipper.worker.worker import GC_THRESHOLDS
from tests.event_loops import ShiftedLoop
from tests.redis_server import RedisServer
from tests.selection_desk import ROW, Desk, make_turn, on_input, on_query, run
from tests.waiting import until_async

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


def router_here(
    applications: Mapping[str, Application] | None = None,
    mailbox: Mailbox | None = None,
    remembering: Remembering | None = None,
) -> FeedbackRouter:
    return FeedbackRouter(HERE, make_turn(), applications or {}, None, mailbox, remembering)


def first_id(instance: int) -> int:
    return QueryIds(instance).next


def test_each_piece_goes_to_its_worker_and_outcomes_keep_their_order(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        mine = (await desk.answer(application)).query_id
        peer = PeerWorker(tmp_path / "p.sock", lambda command: Observed((Outcome(True),) * len(command.feedback)))
        await peer.start()
        router = router_here()
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
        router = router_here()
        router.follow([Peer(THERE, str(peer.path))])
        for _ in range(2):
            outcomes = await router.observe(application, [on_query(first_id(THERE), b"1")])
            assert [each.error for each in outcomes] == ["unavailable"]
        await peer.stop()

    run(tmp_path, ONE, scenario)


def test_a_peers_feedback_is_learned_by_application_and_told_in_order(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        asked = [(await desk.answer(application)).query_id for _ in range(3)]
        router = router_here({"known": application})
        others = (
            ObservePart("other", (on_query(asked[1], b"1"),)),
            ObservePart("known", (on_query(asked[2], b"1"),)),
        )
        first = on_query(asked[0], b"1"), on_query(first_id(HERE) + 10**6, b"1")
        outcomes = (await router.take(Observe("known", first, others))).outcomes
        assert [each.error for each in outcomes] == [None, "not_found", "not_found", None]
        assert "'other' does not exist" in outcomes[2].cause

    run(tmp_path, ONE, scenario, cache=True)


class Members:
    """The mailbox of a worker whose store other servers share. ``coming`` are members that it has not heard of."""

    def __init__(
        self,
        reply: Callable[[Observe], Observed],
        members: set[int],
        coming: Collection[int] = (),
        *,
        reaches: bool = True,
    ) -> None:
        self.members, self._coming, self._reply, self._reaches = members, coming, reply, reaches
        self.asked: list[tuple[int, Observe]] = []

    async def ask(self, instance: int, request: bytes, timeout_s: float) -> bytes:
        if not self._reaches:
            raise Unavailable("it did not answer")
        command = decode_command(request)
        assert isinstance(command, Observe)
        self.asked.append((instance, command))
        return encode_body(self._reply(command))

    async def run(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        raise AssertionError("it is not begun")

    async def meet(self) -> None:
        self.members.update(self._coming)


def test_feedback_goes_to_other_servers_also_to_one_that_has_just_begun(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        mine = (await desk.answer(application)).query_id
        mailbox = Members(lambda command: Observed((Outcome(True),) * len(command.feedback)), {THERE}, {GONE})
        router = router_here({"app": application}, mailbox)
        pieces = [on_query(each, b"1") for each in (first_id(THERE), mine, first_id(GONE), first_id(9))]
        outcomes = await router.observe(application, [*pieces, on_input(ROW, b"1")])
        assert [each.error for each in outcomes] == [None, None, None, "not_found", None]
        assert [each.duplicate for each in outcomes] == [True, False, True, False, False]
        assert {instance for instance, _ in mailbox.asked} == {THERE, GONE}
        told: list[Outcome] = []
        for each in pieces:
            router.observe_one(application, each, told.append)
        await until_async(lambda: len(told) == 4)
        assert sorted(str(each.error) for each in told) == ["None", "None", "None", "not_found"]

    run(tmp_path, ONE, scenario, cache=True)


def test_queries_of_a_worker_that_has_ended_are_recalled(tmp_path: Path) -> None:
    """Here the desk itself is that worker: the router has another number, and the table was emptied."""
    with RedisServer(tmp_path) as redis:
        redis.start()

        async def scenario(desk: Desk) -> None:
            application = await desk.application(Selection("exp3", half_life=None))
            store = RedisStore(redis.url)
            joins, queries = desk.surroundings.joins, store.queries()
            remembering = Remembering(queries, joins, {"app": application})
            ids = [(await desk.answer(application)).query_id for _ in range(3)]
            await remembering.write()
            assert (joins.stored, joins.unstored) == (3, 0)
            joins._by_id.clear()
            ended = QueryIds.instance_of(ids[0])
            mailbox = Members(lambda _: Observed(()), {ended}, reaches=False)
            router = FeedbackRouter(ended + 1, make_turn(), {"app": application}, None, mailbox, remembering)
            pieces = [on_query(each, b"1") for each in (*ids, ids[-1] + 1)]
            # It was killed, and is still a member.
            (first, unknown) = await router.observe(application, [pieces[0], pieces[3]])
            assert (first, unknown.error) == (Outcome(), "unavailable")
            mailbox.members.clear()
            outcomes = await router.observe(application, pieces)
            assert outcomes[:3] == [Outcome(duplicate=True), Outcome(), Outcome()]
            assert outcomes[3].error == "not_found"
            assert application.contexts.prior().observations == 3
            other = await desk.application(Selection("exp3"), id="later")
            router = FeedbackRouter(
                ended + 1, make_turn(), {"app": other}, None, mailbox, Remembering(queries, joins, {"app": other})
            )
            assert [each.error for each in await router.observe(other, pieces)] == ["not_found"] * 4
            await store.close()

        run(tmp_path, ONE, scenario)


class SlowQueries:
    """A store that keeps queries once it may."""

    def __init__(self) -> None:
        self.kept: set[int] = set()
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def keep(
        self, queries: Mapping[int, tuple[bytes, bytes]], shared: Mapping[bytes, bytes], keep_s: float, evicted: int
    ) -> None:
        self.has_begun.set()
        await self.may_end.wait()
        self.kept |= queries.keys()

    async def find(self, ids: Collection[int]) -> dict[int, tuple[bytes, bytes]]:
        return {}


def test_what_is_answered_during_the_last_write_is_remembered_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        queries = SlowQueries()
        remembering = Remembering(queries, desk.surroundings.joins, {"app": application})
        remembering.begin()
        first = (await desk.answer(application)).query_id
        await queries.has_begun.wait()
        second = (await desk.answer(application)).query_id
        ending = asyncio.create_task(remembering.end())
        await asyncio.sleep(0)
        queries.may_end.set()
        await ending
        assert queries.kept == {first, second}

    run(tmp_path, ONE, scenario)


def test_feedback_that_waits_at_a_peer_holds_up_no_other_application(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        asks, quick = [await desk.application(Selection(policy)) for policy in ("ensemble", "single")]
        router = router_here()
        router.follow([Peer(THERE, str(tmp_path / "p.sock"))])
        may_answer = asyncio.Event()

        async def pass_on(_: Peer, command: Observe) -> Observed:
            if command.feedback[0].label != b"1":
                await may_answer.wait()
            return Observed((Outcome(),) * (len(command.feedback) + sum(len(part.feedback) for part in command.others)))

        router._pass_on = pass_on  # type: ignore[method-assign]
        held = []
        for number in range(5):
            held.append(asyncio.create_task(router.observe(asks, [on_query(first_id(THERE) + number, b"2")])))
            await asyncio.sleep(0)
        assert await router.observe(quick, [on_query(first_id(THERE) + 9, b"1")]) == [Outcome()]
        assert not any(each.done() for each in held)
        may_answer.set()
        assert await asyncio.gather(*held) == [[Outcome()]] * 5

    run(tmp_path, ONE, scenario)


def test_a_peer_that_listens_elsewhere_now_is_found_there(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        router = router_here()
        router.follow([Peer(THERE, str(tmp_path / "before"))])
        (lost,) = await router.observe(application, [on_query(first_id(THERE), b"1")])
        peer = PeerWorker(tmp_path / "now", lambda command: Observed((Outcome(),) * len(command.feedback)))
        await peer.start()
        router.follow([Peer(THERE, str(peer.path))])
        (told,) = await router.observe(application, [on_query(first_id(THERE), b"1")])
        assert (lost.error, told.error) == ("unavailable", None)
        await peer.stop()

    run(tmp_path, ONE, scenario)


def test_nothing_to_observe(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        assert await router_here().observe(application, list[Feedback]()) == []

    run(tmp_path, ONE, scenario)


def test_what_nobody_waits_for_any_more_is_told_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Tell] = []

    def learn(_: Learner, feedback: Feedback, tell: Tell) -> None:
        begun.append(tell)

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        monkeypatch.setattr(Learner, "learn", learn)
        stopped = asyncio.create_task(router_here().observe(application, [on_input(ROW, b"1")] * 3))
        while len(begun) < 3:
            await asyncio.sleep(0)
        stopped.cancel()
        await asyncio.wait([stopped])
        for tell in begun:
            tell(Overloaded("too many wait"))

    run(tmp_path, ONE, scenario)


def test_a_list_that_nobody_waits_for_is_not_begun_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_router, "MAX_UNDER_WAY", 2)
    begun: list[Tell] = []

    def learn(_: Learner, feedback: Feedback, tell: Tell) -> None:
        begun.append(tell)

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        monkeypatch.setattr(Learner, "learn", learn)
        router = router_here()
        stopped = asyncio.create_task(router.observe(application, [on_input(ROW, b"1")] * 5))
        await until_async(lambda: len(begun) == 2)
        stopped.cancel()
        await asyncio.wait([stopped])
        for tell in [*begun]:
            tell(True)
        outcomes: list[Outcome] = []
        router.observe_one(application, on_input(ROW, b"1"), outcomes.append)
        await until_async(lambda: len(begun) == 3)
        begun[2](False)
        assert outcomes == [Outcome(duplicate=True)]

    run(tmp_path, ONE, scenario)


def test_a_bug_costs_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(_: Learner, feedback: Feedback, tell: Tell) -> None:
        if feedback.label == b"2":
            raise KeyError("broken")
        tell(True)

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        monkeypatch.setattr(Learner, "learn", learn)
        pieces = [on_input(ROW, label) for label in (b"1", b"2", b"3")]
        outcomes = await router_here().observe(application, pieces)
        assert outcomes == [Outcome(), Outcome(error="internal_error", cause="KeyError: 'broken'"), Outcome()]

    run(tmp_path, ONE, scenario)


def test_single_pieces_make_no_task(tmp_path: Path) -> None:
    """Thousands of them may be under way: with two tasks each, passes of the collector over all held the loop."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"))
        router, outcomes = router_here(), list[Outcome]()

        def reply(command: Observe) -> Observed:
            return Observed((Outcome(),) * (len(command.feedback) + sum(len(part.feedback) for part in command.others)))

        peer = PeerWorker(tmp_path / "p.sock", reply)
        await peer.start()
        router.follow([Peer(THERE, str(peer.path))])
        asked = [(await desk.answer(application)).query_id for _ in range(200)]
        before = len(asyncio.all_tasks())
        for query_id in [*asked, *(first_id(THERE) + number for number in range(200))]:
            router.observe_one(application, on_query(query_id, b"1"), outcomes.append)
        # One writes to the store, and one waits for the peer.
        assert len(asyncio.all_tasks()) <= before + 2
        await until_async(lambda: len(outcomes) == 400)
        assert set(outcomes) == {Outcome()}
        await peer.stop()

    run(tmp_path, ONE, scenario, cache=True)


# A turn of the loop may take this much processor time of the loop's thread, whatever feedback there is.
MAX_TURN_S = 0.02
TRIES = 5


class MeteredLoop(ShiftedLoop):
    """Knows the most processor time that its thread has worked in one turn: a busy machine takes nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0
        self._began_s = time.thread_time()
        selector: BaseSelector = vars(self)["_selector"]
        self._wait = selector.select
        selector.select = self._select  # type: ignore[method-assign]

    def _select(self, timeout: float | None = None) -> "list[tuple[SelectorKey, int]]":
        self.longest_s = max(self.longest_s, time.thread_time() - self._began_s)
        try:
            return self._wait(timeout)
        finally:
            self._began_s = time.thread_time()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_lists_of_feedback_in_new_contexts_hold_the_loop_for_a_moment(tmp_path: Path, kind: str) -> None:
    """Each held it for 2 ms in a turn, and states that were read together were learned in together: up to 138 ms."""
    with RedisServer(tmp_path) as redis:
        if kind == "redis":
            redis.start()

        async def scenario() -> None:
            desk = Desk(tmp_path, ONE, cache=True, store=RedisStore(redis.url) if kind == "redis" else None)
            await desk.start()
            application = await desk.application(Selection("exp3"))
            await desk.answer(application)
            router = router_here()
            synchronizer = Synchronizer(desk.store, desk.surroundings.committer, lambda: [application], 100_000)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, MeteredLoop)
            for number in range(TRIES):
                lists = [[on_input(ROW, b"1", f"{number} {name} {index}") for index in range(500)] for name in range(6)]
                await asyncio.sleep(0)
                loop.longest_s = 0.0
                observing = [router.observe_here(application, pieces) for pieces in lists]
                told = await asyncio.gather(*observing)
                await synchronizer.follow()
                assert told == [[Outcome()] * 500] * 6
                if loop.longest_s < MAX_TURN_S:
                    break
            else:
                raise AssertionError(f"a turn took {loop.longest_s * 1000:.1f} ms")
            await desk.close()

        gc.collect()
        gc.freeze()
        before = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)  # as a worker does
        try:
            with asyncio.Runner(loop_factory=MeteredLoop) as runner:
                runner.run(scenario())
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()


def test_lists_for_a_store_that_is_away_are_told_so(tmp_path: Path) -> None:
    class Away(SqliteStore):
        async def load_many(self, application: str, contexts: Sequence[str]) -> list[Read]:
            raise StoreUnavailable("it is away")

        load = load_many  # type: ignore[assignment]

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        pieces = [on_input(ROW, b"1", f"{number}") for number in range(20)]
        outcomes = await router_here().observe_here(application, pieces)
        assert outcomes == [Outcome(error="store_unavailable", cause="it is away")] * 20

    run(tmp_path, ONE, scenario, cache=True, store=Away(tmp_path / "selection.sqlite3"))
