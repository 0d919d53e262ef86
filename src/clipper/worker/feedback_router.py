"""Routes feedback to the worker that answered its query: this one, or a peer."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import TypeVar

from clipper.base.turn_budget import Backlog, TurnBudget, take_step
from clipper.control.client import Connections
from clipper.control.feedback import Feedback, Outcome
from clipper.control.identity import IdentityFile, PeerName
from clipper.control.messages import Command, GetStatistics, Observe, Observed, ObservePart
from clipper.control.snapshot import Peer
from clipper.control.statistics import WorkerStatistics
from clipper.errors import ClipperError
from clipper.worker.forwarder import MAX_ASKING_COMMANDS, MAX_COMMANDS, Forwarder
from clipper.worker.selection.application import Application
from clipper.worker.selection.learner import ASK_TIMEOUT_S, Learner
from clipper.worker.selection.query import QueryIds

log = logging.getLogger(__name__)

R = TypeVar("R")
Tell = Callable[[Outcome], None]

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
_LEARNED, _DUPLICATE = Outcome(), Outcome(duplicate=True)


class FeedbackRouter:
    """Passes feedback to workers by their instances. A query's id contains the instance that answered it."""

    def __init__(self, instance: int, turn: TurnBudget, identity: IdentityFile | None = None) -> None:
        """Make a router. ``identity`` is what this worker shows to peers that listen on TCP."""
        self._instance = instance
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

    def follow(self, peers: Iterable[Peer]) -> None:
        """Set the workers of the current snapshot."""
        before = self._peers
        self._peers = {peer.instance: peer for peer in peers if peer.instance != self._instance}
        # A forwarder whose peer has gone, or listens elsewhere, passes on the rest in vain.
        kept = {instance for instance, peer in self._peers.items() if before.get(instance) == peer}
        self._forwarders = {key: each for key, each in self._forwarders.items() if key[0] in kept}

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

    async def observe(self, application: Application, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Learn from feedback, here or at a peer. Return an outcome for each piece, in order."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, each in enumerate(feedback):
            groups[self._owner(each)].append(index)
        taken = await asyncio.gather(
            *(
                self._observe_at(instance, application, [feedback[index] for index in indexes])
                for instance, indexes in groups.items()
            )
        )
        outcomes = dict(chain.from_iterable(zip(*pair) for pair in zip(groups.values(), taken)))
        return [outcomes[index] for index in range(len(feedback))]

    async def observe_here(self, application: Application, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Learn from feedback on own queries or on inputs. Return an outcome for each piece, in order."""
        learner, gathered = Learner(application), _Gathered(len(feedback))
        for start in range(0, len(feedback), BEGUN_TOGETHER):
            pieces = feedback[start : start + BEGUN_TOGETHER]
            # A single piece waits only for its own context, if at all.
            async with self._beginning if len(pieces) > 1 else nullcontext():
                await learner.read(learner.missing_contexts(pieces) if len(pieces) > 1 else ())
                # Begin many before waiting for the first, so that they are committed together.
                all_begun = asyncio.get_running_loop().create_future()
                tells = [partial(gathered.put, start + index) for index in range(len(pieces))]
                self._begun.begin(self._begin_all(learner, pieces, tells, all_begun))
                await all_begun
        return await gathered.outcomes

    async def observe_parts(
        self, find: Callable[[str], Application | None], parts: Sequence[ObservePart]
    ) -> tuple[Outcome, ...]:
        """Learn from feedback that a peer has passed on. Return an outcome for each piece, in order.

        ``find`` returns the application of a name; None if it is not known.
        """
        feedback: dict[str, list[Feedback]] = defaultdict(list)
        for part in parts:
            feedback[part.application] += part.feedback

        async def learn(name: str) -> list[Outcome]:
            if (application := find(name)) is None:
                unknown = Outcome(error="not_found", cause=f"application {name!r} is not known")
                return [unknown] * len(feedback[name])
            return await self.observe_here(application, feedback[name])

        learned = dict(zip(feedback, map(iter, await asyncio.gather(*map(learn, feedback)))))
        return tuple(next(learned[part.application]) for part in parts for _ in part.feedback)

    def close(self) -> None:
        """Close the connections to peers."""
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
        """Begin further pieces, if they wait: one that was under way has its outcome."""
        self._under_way -= 1
        self._begun.go_on()

    def _owner(self, feedback: Feedback) -> int:
        """Return the peer that answered the query; this worker for inputs and for queries of no known peer."""
        if feedback.query_id is None:
            return self._instance
        instance = QueryIds.instance_of(feedback.query_id)
        return instance if instance in self._peers else self._instance

    async def _observe_at(
        self, instance: int, application: Application, group: Sequence[Feedback]
    ) -> Sequence[Outcome]:
        if instance == self._instance:
            return await self.observe_here(application, group)
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
            pass_on = partial(self._pass_on, self._peers[instance])
            most = MAX_ASKING_COMMANDS if key[1] else MAX_COMMANDS
            forwarder = self._forwarders[key] = Forwarder(pass_on, most, self._told.add)
        forwarder.forward(application.name, feedback, tell)

    async def _pass_on(self, peer: Peer, feedback: Observe) -> Observed:
        return await self._ask(peer, feedback, FORWARD_TIMEOUT_S)


class _UnderWay:
    """A piece of feedback that is being learned; takes what ``Learner.learn`` tells."""

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
