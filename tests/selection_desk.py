"""An application with the models that a test speaks for, in the test's own loop and time, over a real store."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from textwrap import dedent
from typing import Any
from uuid import uuid4

from clipper.base.turn_budget import TurnBudget
from clipper.control.feedback import Feedback
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, Snapshot, VersionSnapshot
from clipper.errors import ClipperError
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import Store
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.selection.application import Application, Surroundings
from clipper.worker.selection.committer import Committer
from clipper.worker.selection.feedback.join_table import JoinTable
from clipper.worker.selection.learner import MAX_ASKING, Learner
from clipper.worker.selection.query import NO_SOURCE, Query, QueryIds, Source
from tests.event_loops import ShiftedLoop, run_clean
from tests.small_container import SmallContainer
from tests.waiting import until_async

SLO_S = 100.0
ROW = b"r" * 8


class Asking:
    """An asker that keeps its answer, and fails if it gets a second one."""

    def __init__(self) -> None:
        self.answer: tuple[Any, ...] = ()
        self.query_id = -1
        self.source = NO_SOURCE

    def on_prediction(self, query_id: int, output: bytes, confidence: float, source: Source) -> None:
        self.source = source
        self._end(query_id, "prediction", output, confidence)

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self._end(query_id, "default", output, reason, explanation)

    def on_unsure(self, query_id: int, output: bytes, unsure: bytes, confidence: float) -> None:
        self._end(query_id, "unsure", output, unsure, confidence)

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self._end(query_id, "none", reason, explanation)

    def _end(self, query_id: int, *answer: Any) -> None:
        assert not self.answer, f"answered twice: {self.answer}, {answer}"
        self.query_id, self.answer = query_id, answer


class Models:
    """Models a, b, … in containers that answer at once, but for those that are ``held``."""

    def __init__(self, folder: Path, outputs: dict[str, bytes], cache: bool) -> None:
        self.outputs = outputs
        self.held: set[str] = set()
        self.asked: dict[str, list[bytes]] = {name: [] for name in outputs}
        self.containers = {name: SmallContainer(folder / f"{name}.s", name) for name in outputs}
        self.cache = cache

    async def start(self) -> None:
        for container in self.containers.values():
            await container.start()

    def snapshots(self) -> tuple[ModelSnapshot, ...]:
        return tuple(
            ModelSnapshot(name, "1", (VersionSnapshot("1", "doubles", Batching(), self.cache, (each.replica,)),))
            for name, each in self.containers.items()
        )

    def serve(self) -> None:
        """Answer what has come in."""
        for name, container in self.containers.items():
            while container.batches and name not in self.held:
                batch = container.take()
                self.asked[name] += batch.rows
                batch.answer([self.outputs[name]] * len(batch.rows))


class Desk:
    def __init__(self, folder: Path, outputs: dict[str, bytes], *, cache: bool = False, store: Store | None = None):
        self.models = Models(folder, outputs, cache)
        self.predictor = Predictor(1 << 20)
        self.store: Store = store or SqliteStore(folder / "selection.sqlite3")
        self.surroundings = make_surroundings(self.predictor, self.store)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        self.loop = loop

    async def start(self) -> None:
        await self.models.start()
        self.predictor.apply(Snapshot(1, (), self.models.snapshots()))
        await self.predictor.settle()

    async def close(self) -> None:
        self.predictor.close()
        for container in self.models.containers.values():
            await container.kill()
        await self.store.close()

    async def application(self, selection: Selection, **fields: Any) -> Application:
        application = Application(self.snapshot(selection, **fields), self.surroundings)
        await application.load()
        return application

    def snapshot(self, selection: Selection, shadows: Sequence[str] = (), **fields: Any) -> ApplicationSnapshot:
        links = tuple(Link(name, shadow=name in shadows) for name in fields.pop("linked", self.models.outputs))
        settings: dict[str, Any] = {"slo_ms": SLO_S * 1000, "default_output": '"default"', "id": "app-id"} | fields
        return ApplicationSnapshot("app", "doubles", selection=selection, links=links, **settings)

    def ask(self, application: Application, row: bytes = ROW, context: str | None = None) -> tuple[Asking, Query]:
        asking = Asking()
        return asking, application.predict(row, asking, self.loop.time(), context=context)

    async def answer(self, application: Application, row: bytes = ROW, context: str | None = None) -> Asking:
        """Ask, and let the models answer."""
        asking, query = self.ask(application, row, context)
        await self.serve_until(lambda: query.done)
        return asking

    async def observe(self, application: Application, feedback: Feedback) -> bool:
        """Observe, letting the models answer if they are asked."""
        told = learn(application, feedback)
        await self.serve_until(told.done)
        return told.result()

    async def serve_until(self, condition: Callable[[], object]) -> None:
        def served() -> object:
            self.models.serve()
            return condition()

        await until_async(served)


def learn(application: Application, feedback: Feedback) -> "asyncio.Future[bool]":
    """Learn from feedback; the future has what its sender is told. Raises what ``Learner.learn`` raises at once."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def tell(result: bool | ClipperError) -> None:
        if isinstance(result, ClipperError):
            told.set_exception(result)
        else:
            told.set_result(result)

    task = Learner(application).learn(feedback, tell)
    told.add_done_callback(lambda _, held=task: None)  # the loop only keeps weak references to tasks
    return told


def make_turn() -> TurnBudget:
    loop = asyncio.get_running_loop()
    return TurnBudget(loop.call_soon, loop.time)


def make_surroundings(predictor: Predictor, store: Store, instance: int = 3) -> Surroundings:
    committer, joins = Committer(store, make_turn()), JoinTable(10_000)
    asking = asyncio.Semaphore(MAX_ASKING)
    return Surroundings(predictor, QueryIds(instance), Random(1), store, committer, joins, asking)


def on_query(query_id: int, label: bytes | None = None, **fields: Any) -> Feedback:
    return Feedback(f"query-{query_id}", query_id, label=label, **fields)


def on_input(row: bytes, label: bytes, context: str | None = None) -> Feedback:
    return Feedback(f"input-{uuid4().hex}", row=row, label=label, context=context)


Scenario = Callable[[Desk], Coroutine[Any, Any, None]]


def run(
    folder: Path, outputs: dict[str, bytes], scenario: Scenario, *, cache: bool = False, store: Store | None = None
) -> None:
    async def whole() -> None:
        desk = Desk(folder, outputs, cache=cache, store=store)
        await desk.start()
        try:
            await scenario(desk)
        finally:
            await desk.close()

    run_clean(whole())


OWN = """
    from clipper.learning.policies.policy import Choice, Combined, Policy

    class Own(Policy):
        def __init__(self, **parameters):
            {init}

        def select(self, models, totals, query, random):
            {select}

        def combine(self, choice, outputs, totals, query):
            {combine}

        def observe(self, choice, losses, totals, query):
            {observe}
"""
RIGHT = {
    "init": "pass",
    "select": "return Choice(models[:2], (0.5, 0.5))",
    "combine": "return Combined(b'7', 0.5)",
    "observe": "return {('a', 'seen'): 1}",
}


def own_policy(folder: Path, **methods: str) -> Selection:
    code = folder / "code"
    code.mkdir()
    (code / "own_policy.py").write_text(dedent(OWN).format(**RIGHT | methods))
    return Selection("own_policy:Own", code=str(code))
