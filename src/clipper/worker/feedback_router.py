"""Routes feedback to the worker that answered its query: this one, a peer, or a worker of another server.

Servers that share a Redis pass feedback on through it. If the worker has ended, and queries are remembered in the
store, this worker learns in its place.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import TypeVar

from clipper.base.turn_budget import Backlog, TurnBudget, take_step
from clipper.control.client import Connections
from clipper.control.feedback import Feedback, Outcome
from clipper.control.identity import IdentityFile, PeerName
from clipper.control.messages import (
    Command,
    GetStatistics,
    Observe,
    Observed,
    ObservePart,
    decode_command,
    decode_reply,
    encode_body,
)
from clipper.control.snapshot import Peer
from clipper.control.statistics import WorkerStatistics
from clipper.errors import ClipperError, ProtocolViolation, Unavailable
from clipper.learning.stores.store import Mailbox
from clipper.worker.forwarder import MAX_ASKING_COMMANDS, MAX_COMMANDS, Forwarder, unavailable
from clipper.worker.selection.application import Application
from clipper.worker.selection.learner import ASK_TIMEOUT_S, Learner
from clipper.worker.selection.query import Query, QueryIds
from clipper.worker.selection.remembering import Remembering

log = logging.getLogger(__name__)

R = TypeVar("R")
Tell = Callable[[Outcome], None]
Learn = Callable[[Application, Sequence[Feedback]], Awaitable[Sequence[Outcome]]]

# A peer may have to query a model first. If it takes longer than that, it is assumed to be gone.
FORWARD_TIMEOUT_S = ASK_TIMEOUT_S + 2.0
# A worker answers with its statistics within a turn of its loop.
STATISTICS_TIMEOUT_S = 2.0
# Pieces of feedback in progress: four transactions of the store, each piece with at most a task. Others wait in order.
MAX_UNDER_WAY = 4000
# Pieces of a list whose contexts are read together, and the lists that are begun at once. Together they have only a
# part of the contexts that a worker holds in memory, so that none is evicted before its feedback is learned. Others
# wait in order: if all were begun at once, all would be learned as late as the last.
BEGUN_TOGETHER = 500
MAX_BEGINNING = 4
# Stands for a worker with an unknown instance: the router looks for it before it gives up its feedback.
ELSEWHERE = -1
_LEARNED, _DUPLICATE = Outcome(), Outcome(duplicate=True)


class FeedbackRouter:
    """Passes feedback to workers by their instances. A query's id contains the instance that answered it."""

    def __init__(
        self,
        instance: int,
        turn: TurnBudget,
        applications: Mapping[str, Application],
        identity: IdentityFile | None = None,
        mailbox: Mailbox | None = None,
        remembering: Remembering | None = None,
    ) -> None:
        """Make a router.

        Args:
            applications: this worker's, by name.
            identity: the key and certificate that this worker shows to peers that listen on TCP.
            mailbox: the way to the workers of other servers; None if no other server shares the store.
            remembering: reads queries of workers that have ended; None if they are forgotten.
        """
        self._instance = instance
        self._applications = applications
        self._mailbox = mailbox
        self._remembering = remembering
        self._identity = identity
        self._connections = Connections()
        self._peers: dict[int, Peer] = {}
        # By peer, and by whether models may have to be asked first, which takes up to ``ASK_TIMEOUT_S``.
        self._forwarders: dict[tuple[int, bool], Forwarder] = {}
        # The outcomes that a peer has sent, and that are still to be told.
        self._told = Backlog[Iterator[None]](turn, take_step)
        self._under_way = 0
        self._begun = Backlog[Iterator[None]](
            turn, take_step, in_turns=True, may_go_on=lambda: self._under_way < MAX_UNDER_WAY
        )
        self._beginning = asyncio.Semaphore(MAX_BEGINNING)
        # The loop only keeps weak references to tasks.
        self._learning: set[asyncio.Task[None]] = set()
        self._taking: asyncio.Task[None] | None = None

    def follow(self, peers: Iterable[Peer]) -> None:
        """Set the workers of the current snapshot."""
        before = self._peers
        self._peers = {peer.instance: peer for peer in peers if peer.instance != self._instance}
        # If its peer has gone, or listens elsewhere, a forwarder would pass on further feedback in vain.
        moved = {instance for instance, peer in self._peers.items() if before.get(instance) != peer}
        self._forwarders = {key: each for key, each in self._forwarders.items() if key[0] not in moved}
        self._drop_forwarders()

    def _drop_forwarders(self) -> None:
        members = () if self._mailbox is None else self._mailbox.members
        self._forwarders = {
            key: each
            for key, each in self._forwarders.items()
            if key[0] in self._peers or key[0] in members or key[0] == ELSEWHERE
        }

    def observe_one(self, application: Application, feedback: Feedback, tell: Tell) -> None:
        """Learn from a piece of feedback, here or at a peer, and ``tell`` its outcome.

        This makes no task or future, unless models or contexts have to be waited for: clients that do not wait for
        answers have thousands of pieces under way.
        """
        instance = self._owner(feedback)
        if instance == self._instance:
            self._begun.begin(self._begin_all(Learner(application), (feedback,), (tell,)))
        else:
            self._forward(instance, application, (feedback,), lambda outcomes: tell(outcomes[0]))

    async def observe(
        self, application: Application, feedback: Sequence[Feedback], recalled: Mapping[int, Query] | None = None
    ) -> list[Outcome]:
        """Learn from feedback, here or at a peer. Return an outcome for each piece, in order.

        ``recalled`` are the queries of workers that cannot be found: None if these were not looked for.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for index, each in enumerate(feedback):
            owner = self._owner(each)
            groups[self._instance if owner == ELSEWHERE and recalled is not None else owner].append(index)
        taken = await asyncio.gather(
            *(
                self._observe_at(instance, application, [feedback[index] for index in indexes], recalled)
                for instance, indexes in groups.items()
            )
        )
        outcomes = dict(chain.from_iterable(zip(*pair) for pair in zip(groups.values(), taken)))
        return [outcomes[index] for index in range(len(feedback))]

    async def observe_here(
        self, application: Application, feedback: Sequence[Feedback], recalled: Mapping[int, Query] | None = None
    ) -> list[Outcome]:
        """Learn from feedback on own or recalled queries, or on inputs. Return an outcome for each piece, in order."""
        learner, gathered = Learner(application, recalled), _Gathered(len(feedback))
        for start in range(0, len(feedback), BEGUN_TOGETHER):
            pieces = feedback[start : start + BEGUN_TOGETHER]
            # A single piece waits only for its own context, if at all.
            async with self._beginning if len(pieces) > 1 else nullcontext():
                if len(pieces) > 1:
                    await learner.read_contexts(pieces)
                # Begin many before waiting for the first, so that they are committed together.
                all_begun = asyncio.get_running_loop().create_future()
                tells = [partial(gathered.put, start + index) for index in range(len(pieces))]
                self._begun.begin(self._begin_all(learner, pieces, tells, all_begun))
                await all_begun
        return await gathered.outcomes

    async def take(self, passed_on: Observe, observe: Learn | None = None) -> Observed:
        """Learn from feedback that a peer has passed on, by ``observe`` instead of here if it is given."""
        parts = [ObservePart(passed_on.application, passed_on.feedback), *passed_on.others]
        feedback: dict[str, list[Feedback]] = defaultdict(list)
        for part in parts:
            feedback[part.application] += part.feedback

        async def learn(name: str) -> Sequence[Outcome]:
            if (application := self._applications.get(name)) is None:
                unknown = Outcome(error="not_found", cause=f"application {name!r} does not exist")
                return [unknown] * len(feedback[name])
            return await (observe or self.observe_here)(application, feedback[name])

        learned = dict(zip(feedback, map(iter, await asyncio.gather(*map(learn, feedback)))))
        return Observed(tuple(next(learned[part.application]) for part in parts for _ in part.feedback))

    def begin(self) -> None:
        """Take feedback from other servers, and remember queries for them in the store, until ``close``."""
        if self._remembering is not None:
            self._remembering.begin()
        if self._mailbox is not None:
            self._taking = asyncio.get_running_loop().create_task(self._mailbox.run(self._answer))

    async def _answer(self, request: bytes) -> bytes:
        """Learn from what a worker of another server has passed on."""
        command = decode_command(request)
        if not isinstance(command, Observe):
            raise ProtocolViolation(f"another server sent {type(command).__name__}: expected Observe")
        return encode_body(await self.take(command))

    async def close(self) -> None:
        """End both, and close the connections to peers."""
        if self._remembering is not None:
            # First: once other servers hear that this worker has ended, they look for its queries.
            await self._remembering.end()
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])
        self._connections.close()

    async def statistics_of_peers(self, asked: GetStatistics) -> list[WorkerStatistics]:
        """Return the answers of the other workers that can be reached."""

        async def of(peer: Peer) -> WorkerStatistics | None:
            try:
                return (await self._ask(peer, asked, STATISTICS_TIMEOUT_S)).worker
            except (OSError, ClipperError):
                return None

        replies = await asyncio.gather(*map(of, self._peers.values()))
        return [each for each in replies if each is not None]

    async def _ask(self, peer: Peer, command: Command[R], timeout_s: float) -> R:
        expects = PeerName("worker", peer.instance)
        secured = None if self._identity is None else self._identity.secured(expects)
        return await self._connections.ask(peer.address, command, timeout_s, secured=secured)

    def _begin_all(
        self,
        learner: Learner,
        pieces: Sequence[Feedback],
        tells: Sequence[Tell],
        all_begun: "asyncio.Future[None] | None" = None,
    ) -> Iterator[None]:
        """Begin pieces one by one, until ``all_begun`` is cancelled; each is told its outcome by its ``tells``."""
        for each, tell in zip(pieces, tells):
            if all_begun is not None and all_begun.done():
                return
            under_way = _UnderWay(self, tell)
            self._under_way += 1
            try:
                task = learner.learn(each, under_way)
            except ClipperError as error:
                under_way(error)
            except Exception as error:  # a bug in Clipper costs one piece
                log.exception("failed to observe feedback")
                under_way(ClipperError(f"{type(error).__name__}: {error}"))
            else:
                if task is not None:
                    self._learning.add(task)
                    task.add_done_callback(self._learning.discard)
            yield
        if all_begun is not None and not all_begun.done():
            all_begun.set_result(None)

    def leave(self) -> None:
        """Begin further waiting pieces, since a piece that was under way has its outcome."""
        self._under_way -= 1
        self._begun.go_on()

    def _owner(self, feedback: Feedback) -> int:
        """Return the worker that answered the query: this one for inputs, or if the store is this server's alone."""
        if feedback.query_id is None:
            return self._instance
        instance = QueryIds.instance_of(feedback.query_id)
        if instance == self._instance or instance in self._peers:
            return instance
        if self._mailbox is None:
            return self._instance
        return instance if instance in self._mailbox.members else ELSEWHERE

    async def _observe_at(
        self,
        instance: int,
        application: Application,
        group: Sequence[Feedback],
        recalled: Mapping[int, Query] | None,
    ) -> Sequence[Outcome]:
        if instance == self._instance:
            return await self.observe_here(application, group, recalled)
        told: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._forward(instance, application, group, lambda outcomes: None if told.done() else told.set_result(outcomes))
        return await told

    def _forward(
        self,
        instance: int,
        application: Application,
        feedback: Sequence[Feedback],
        tell: Callable[[Sequence[Outcome]], object],
    ) -> None:
        key = instance, application.terms.selector.policy.feedback == "all"
        if (forwarder := self._forwarders.get(key)) is None:
            self._drop_forwarders()
            pass_on: Callable[[Observe], Awaitable[Observed]] = self._seek
            if instance in self._peers:
                pass_on = partial(self._or_recall, partial(self._pass_on, self._peers[instance]))
            elif instance != ELSEWHERE:
                pass_on = partial(self._or_recall, partial(self._post, instance))
            most = MAX_ASKING_COMMANDS if key[1] else MAX_COMMANDS
            forwarder = self._forwarders[key] = Forwarder(pass_on, most, self._told.add)
        forwarder.forward(application.name, feedback, tell)

    async def _pass_on(self, peer: Peer, feedback: Observe) -> Observed:
        return await self._ask(peer, feedback, FORWARD_TIMEOUT_S)

    async def _post(self, instance: int, feedback: Observe) -> Observed:
        assert self._mailbox is not None
        try:
            reply = await self._mailbox.ask(instance, encode_body(feedback), FORWARD_TIMEOUT_S)
        except Unavailable:
            if instance in self._mailbox.members:
                raise
            return await self._seek(feedback)  # it has ended
        return decode_reply(reply, feedback)

    async def _seek(self, feedback: Observe) -> Observed:
        """Learn from feedback on queries of unknown workers, which may have just begun or have ended."""
        assert self._mailbox is not None
        await self._mailbox.meet()
        return await self.take(feedback, partial(self.observe, recalled=await self._recall(feedback)))

    async def _or_recall(self, pass_on: Callable[[Observe], Awaitable[Observed]], feedback: Observe) -> Observed:
        """Pass feedback on. If its worker cannot be reached, learn here from the feedback on remembered queries.

        If that worker has learned from it nevertheless, the store recognises the repetition by its id.
        """
        try:
            return await pass_on(feedback)
        except (OSError, ClipperError) as error:
            recalled = await self._recall(feedback)
            if not recalled:
                raise
            lost = unavailable(f"cannot be reached: {error!r}")

            async def observe(application: Application, pieces: Sequence[Feedback]) -> Sequence[Outcome]:
                known = [each for each in pieces if each.query_id in recalled]
                learned = iter(await self.observe_here(application, known, recalled))
                return [next(learned) if each.query_id in recalled else lost for each in pieces]

            return await self.take(feedback, observe)

    async def _recall(self, feedback: Observe) -> Mapping[int, Query]:
        if self._remembering is None:
            return {}
        pieces = chain(feedback.feedback, *(part.feedback for part in feedback.others))
        return await self._remembering.recall({each.query_id for each in pieces if each.query_id is not None})


class _UnderWay:
    """A piece of feedback that is being learned; takes the outcome from ``Learner.learn``."""

    __slots__ = ("_router", "_tell")

    def __init__(self, router: FeedbackRouter, tell: Tell) -> None:
        self._router, self._tell = router, tell

    def __call__(self, result: bool | ClipperError) -> None:
        self._router.leave()
        if isinstance(result, ClipperError):
            self._tell(Outcome(error=result.code, cause=str(result)))
        else:
            self._tell(_LEARNED if result else _DUPLICATE)


class _Gathered:
    """Gathers the outcomes of a list. ``outcomes`` is done once all of its ``size`` pieces have theirs."""

    def __init__(self, size: int) -> None:
        self._found = [_LEARNED] * size
        self._missing = size
        self.outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        if not size:
            self.outcomes.set_result(self._found)

    def put(self, index: int, outcome: Outcome) -> None:
        self._found[index] = outcome
        self._missing -= 1
        if not self._missing and not self.outcomes.done():
            self.outcomes.set_result(self._found)
