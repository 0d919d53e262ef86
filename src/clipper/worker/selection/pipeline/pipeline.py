"""The shell of a pipeline: asks the applications of its steps, as its runs decide, and answers queries.

It makes no task, future or timer: each answer of a step calls it, and each step answers by the deadline that it got.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Protocol

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import DeadlineExceeded, InvalidArgument, ModelFailed, Unavailable
from clipper.learning.decisions.records import PathStep
from clipper.learning.policies.policy import Choice
from clipper.settings.pipeline import read_graph
from clipper.values.outputs.as_inputs import input_rows, list_of, output_of
from clipper.values.outputs.output import LONG_TEXT_BYTES, Output, is_long
from clipper.worker.abstraction.turns import Steps, at_once
from clipper.worker.selection.answering import NO_TIME
from clipper.worker.selection.pipeline.run import Ask, Decision, Done, Failed, Join, Plan, Run, Skip
from clipper.worker.selection.pipeline.times import StepTimes
from clipper.worker.selection.pipeline.window import Window
from clipper.worker.selection.query import Asker, Path, Query, Source, make_source
from clipper.worker.selection.terms import Terms
from clipper.worker.telemetry.watch import Watch

# The rows of a list that are asked in one visit: a millisecond of work.
MAX_AT_ONCE = 32
# The time of a typical query, as a share of the SLO: others have come late, or their clients want to wait for less.
TYPICAL_SHARE = 0.9
# Remembers most combinations of the versions of pipelines' steps, while versions change.
_source_of = lru_cache(1024)(make_source)
# How a step ends, in the decision log, besides the codes of errors.
OPEN, ANSWERED, SKIPPED, DEFAULT = "open", "answered", "skipped", "default"


class StepApplication(Protocol):
    """An application as its pipeline sees it."""

    snapshot: ApplicationSnapshot
    terms: Terms

    def predict(
        self,
        row: bytes,
        asker: Asker,
        arrival_s: float,
        *,
        context: str | None = None,
        features: bytes | None = None,
        deadline_s: float | None = None,
    ) -> Query: ...


class Pipeline:
    """Answers the queries of an application that has steps."""

    def __init__(
        self,
        snapshot: ApplicationSnapshot,
        applications: Mapping[str, StepApplication],
        finish: Callable[[Query], None],
        do: Callable[[Steps], None],
        watch: Watch | None,
    ) -> None:
        """
        Args:
            applications: the worker's applications by name, as they are at each moment.
            finish: answers a query with its output, or without one for its failure.
            do: does long work in steps, between the loop's other events.
        """
        self.name = snapshot.name
        self._applications, self._finish, self._do, self._watch = applications, finish, do, watch
        self._now_s = asyncio.get_running_loop().time
        self._choice = Choice((snapshot.name,), (1.0,))
        self._wired: object = None
        self.follow(snapshot)

    def follow(self, snapshot: ApplicationSnapshot) -> None:
        """Serve by these steps from the next query on. Queries under way keep the steps that they began with."""
        self._shows_model, self._slo_s = snapshot.show_model, snapshot.slo_ms / 1000
        self._is_logged = snapshot.selection.log_decisions > 0
        if (snapshot.steps, snapshot.output) == self._wired:  # what was learned of the steps stays
            return
        self._wired = snapshot.steps, snapshot.output
        self._problem: tuple[str, str] | None = None
        try:
            graph = read_graph(snapshot.name, snapshot.steps, snapshot.output)
        except InvalidArgument as error:  # a newer supervisor allows more than this worker knows
            self._problem = Unavailable.code, f"this worker cannot serve the pipeline: {error}"
            return
        self._plan = Plan(graph)
        self._times = StepTimes(self._plan.followers)
        self._window = Window()

    @property
    def is_ready(self) -> bool:
        """Whether every step can be asked."""
        if self._problem is not None:
            return False
        asked = [self._applications.get(node.application) for node in self._plan.nodes]
        return all(step is not None and step.terms.is_ready for step in asked)

    def start(self, query: Query) -> None:
        """Ask the first steps for a query. ``finish`` is called with it, now or later, unless its deadline comes."""
        query.choice = self._choice
        query.missing = 1
        if self._problem is not None:
            query.failure = self._problem
            self._finish(query)
            return
        now_s = self._now_s()
        if not self._window.begin(now_s, self._slo_s):
            query.failure = DeadlineExceeded.code, "as many queries are under way as the steps can answer in time"
            self._finish(query)
            return
        # The reason if the deadline comes before the answers of the last steps, which are due just before it.
        query.failure = DeadlineExceeded.code, "the steps did not answer within the SLO"
        asked = _Asked(query, now_s, self._plan, self._times, self._window, {} if self._is_logged else None)
        asked.is_typical = not asked.is_probe and query.deadline_s - now_s >= TYPICAL_SHARE * self._slo_s
        self._go_on(asked)

    def _go_on(self, asked: "_Asked") -> None:
        """Act on the decisions of a run until it waits for answers. Answers that come meanwhile only add facts."""
        if asked.is_busy:
            return
        asked.is_busy = True
        query = asked.query
        decision: Decision | None = None
        while not query.done and (decision := asked.run.next()) is not None:
            match decision:
                case Ask():
                    self._ask(asked, decision)
                case Join(place, answers):
                    do = self._do if sum(map(len, answers)) > LONG_TEXT_BYTES else at_once
                    do(self._join(asked, place, answers))
                case Skip(place):
                    step = self._applications.get(asked.plan.nodes[place].application)
                    is_list = asked.plan.nodes[place].for_each is not None
                    if asked.notes is not None:
                        asked.notes[place] = _Note(self._now_s(), 0, SKIPPED)
                    asked.run.skipped(place, None if step is None or is_list else step.terms.default)
                case Done() | Failed():
                    self._end(asked, decision)
        if query.done:
            asked.end(self._now_s())
        asked.is_busy = False

    def _ask(self, asked: "_Asked", ask: Ask) -> None:
        node, run, now_s = asked.plan.nodes[ask.place], asked.run, self._now_s()
        step = self._applications.get(node.application)
        if asked.notes is not None:
            asked.notes[ask.place] = _Note(now_s, len(ask.inputs))
        if step is None:
            asked.tell(ask.place, Unavailable.code)
            run.failed(ask.place, Unavailable.code, f"application {node.application} was removed")
            return
        deadline_s = asked.times.deadline_s(ask.place, now_s, asked.query.deadline_s, asked.is_probe)
        if deadline_s is None:
            left_ms = max(0.0, asked.query.deadline_s - now_s) * 1000
            message = f"{left_ms:.1f} ms were left, too few for it and the steps that follow"
            for index in range(len(ask.inputs)):
                self._without(asked, step, ask.place, index, DeadlineExceeded.code, message)
            return
        asked.left[ask.place] = len(ask.inputs)
        is_much = ask.is_long or len(ask.inputs) > MAX_AT_ONCE
        is_much = is_much or any(each is not None and is_long(each) for each in ask.inputs)
        (self._do if is_much else at_once)(self._submit(asked, step, ask, now_s, deadline_s))

    def _join(self, asked: "_Asked", place: int, answers: Sequence[Output]) -> Steps:
        try:
            asked.run.joined(place, (yield from list_of(answers)))
        except ModelFailed as error:
            asked.run.failed(place, error.code, str(error))
        self._go_on(asked)

    def _submit(self, asked: "_Asked", step: StepApplication, ask: Ask, now_s: float, deadline_s: float) -> Steps:
        """Make the rows of a step's inputs, and ask its application for each."""
        query = asked.query
        input_type = step.terms.input_type
        rows = input_rows(input_type)
        features = query.features if step.terms.features_size is not None else None
        for index, given in enumerate(ask.inputs):
            if query.done or query.row is None:
                return
            row = query.row
            if given is not None or not query.owner.input_type.suits(input_type):
                try:
                    row = yield from rows.row(_input_of(query) if given is None else given)
                except ModelFailed as error:
                    asked.left[ask.place] -= 1
                    self._without(asked, step, ask.place, index, error.code, str(error))
                    continue
            part = _Part(self, asked, ask.place, index, now_s)
            made = step.predict(row, part, now_s, context=query.context, features=features, deadline_s=deadline_s)
            if asked.notes is not None and made.done:
                asked.notes[ask.place].at_once += 1
            asked.add(ask.place, made)
            if query.note is not None and self._watch is not None and not made.done:
                made.note = self._watch.begin_part(query.note)
            yield
        self._go_on(asked)

    def _without(self, asked: "_Asked", step: StepApplication, place: int, index: int, code: str, message: str) -> None:
        """Take the default in place of an answer, if the step's application has one."""
        if (default := step.terms.default) is not None:
            asked.tell(place, DEFAULT)
            asked.run.answered(place, index, default, 0.0)
        else:
            asked.failed(place, code, message)

    def ended(self, asked: "_Asked", place: int, asked_s: float, reason: str | None = None) -> None:
        """Learn the time of a step once all its rows have ended; what was refused or failed at once tells no time.

        ``reason``: why a row has no answer; None if it has one."""
        asked.left[place] -= 1
        if asked.notes is not None and not asked.left[place]:
            asked.notes[place].ended_s = self._now_s()
        is_late = reason == DeadlineExceeded.code
        if not asked.left[place] and (is_late or reason is None):
            now_s = self._now_s()
            asked.times.took(place, now_s, now_s - asked_s, is_late)
            if not is_late:
                asked.has_answers = True
                asked.has_later_answers |= asked.plan.needs[place] > 0

    def go_on(self, asked: "_Asked") -> None:
        """Go on after a fact, unless the query is over: then the steps that remain need not be computed."""
        if asked.query.done:
            asked.end(self._now_s())
        else:
            self._go_on(asked)

    def _end(self, asked: "_Asked", decision: Done | Failed) -> None:
        query, nodes, versions = asked.query, asked.plan.nodes, tuple(asked.run.sources)
        query.missing = 0
        source = _source_of(versions) if versions and self._shows_model else None
        ids = tuple((nodes[place].name, nodes[place].application, id_) for place, id_ in asked.ids)
        query.path = Path(ids, source, () if asked.notes is None else asked.path_steps(self._now_s()))
        if isinstance(decision, Done):
            asked.is_answered = True
            query.first_model, query.first_output = self.name, decision.output
        else:
            query.failure = decision.code, decision.message
        self._finish(query)


class _Asked:
    """A query, and the queries of steps that were asked for it.

    Attributes:
        ids: the queries of steps that were asked once, as place and id: feedback on the query teaches them, too.
        notes: by place, what becomes of each step, for the decision log; None if the query is not logged.
        left: by place, how many rows have not ended.
        is_busy: whether decisions are being carried out.
        is_probe: whether its steps are asked even if it seems to have no hope.
        is_typical: whether its failure says anything about the number of queries that may be under way.
        has_answers, has_later_answers: whether a step has answered; and whether one that is not a first one has.
    """

    __slots__ = (
        "_began_s",
        "_is_late",
        "_is_over",
        "_queries",
        "_window",
        "has_answers",
        "has_later_answers",
        "ids",
        "is_answered",
        "is_busy",
        "is_probe",
        "is_typical",
        "left",
        "notes",
        "plan",
        "query",
        "run",
        "times",
    )

    def __init__(
        self,
        query: Query,
        began_s: float,
        plan: Plan,
        times: StepTimes,
        window: Window,
        notes: "dict[int, _Note] | None",
    ) -> None:
        self.query, self.plan, self.times, self.notes = query, plan, times, notes
        self._began_s, self._window = began_s, window
        self.is_probe, self.is_typical = times.begin(), True
        self.has_answers = self.has_later_answers = self.is_answered = self._is_late = self._is_over = False
        self.run = Run(plan, partial(_input_of, query))
        self._queries: list[Query] = []
        self.ids: list[tuple[int, int]] = []
        self.left: dict[int, int] = {}
        self.is_busy = False

    def add(self, place: int, query: Query) -> None:
        if self.plan.nodes[place].for_each is None:
            self.ids.append((place, query.id))
        if not query.done:
            self._queries.append(query)

    def tell(self, place: int, end: str, source: str = "") -> None:
        """Note how an input of a step ended: ``answered``, ``default`` or an error's code. The worst end counts."""
        if self.notes is not None:
            note = self.notes[place]
            note.end = end if note.end in (OPEN, ANSWERED) else note.end
            note.sources.update(dict.fromkeys(source.split(",") if source else ()))

    def path_steps(self, now_s: float) -> tuple[PathStep, ...]:
        return tuple(
            PathStep(
                self.plan.nodes[place].name,
                self.plan.nodes[place].application,
                note.rows,
                note.at_once if note.end == ANSWERED else 0,
                ",".join(note.sources),
                (note.ended_s or now_s) - note.asked_s,
                note.end,
            )
            for place, note in (self.notes or {}).items()
        )

    def failed(self, place: int, code: str, message: str) -> None:
        """Take the failure of a step. One that some queries do not need holds up only those that need it, so it says
        nothing about the number of queries that may be under way."""
        self.tell(place, code)
        self._is_late |= code in NO_TIME and place in self.plan.certain and self.is_typical
        self.run.failed(place, code, message)

    def end(self, now_s: float) -> None:
        """Drop work for steps that has not been sent: the query is over."""
        if not self._is_over:
            self._is_over = True
            is_in_vain = self._is_late and self.has_answers and not self.is_answered
            self._window.ended(
                self._began_s,
                now_s,
                is_answered=self.is_answered,
                is_in_vain=is_in_vain,
                is_later=self.has_later_answers,
            )
        queries, self._queries = self._queries, []
        for query in queries:
            query.cancel()


def _input_of(query: Query) -> Output:
    assert query.row is not None
    return output_of(query.row, query.owner.input_type)


class _Note:
    """The outcome of a step of a logged query."""

    __slots__ = ("asked_s", "at_once", "end", "ended_s", "rows", "sources")

    def __init__(self, asked_s: float, rows: int, end: str = OPEN) -> None:
        self.asked_s, self.rows, self.at_once, self.end = asked_s, rows, 0, end
        self.ended_s = 0.0 if end == OPEN else asked_s
        self.sources: dict[str, None] = {}


class _Part:
    """Takes the answer of a step to one input."""

    __slots__ = ("_asked", "_asked_s", "_index", "_pipeline", "_place")

    def __init__(self, pipeline: Pipeline, asked: _Asked, place: int, index: int, asked_s: float) -> None:
        self._pipeline, self._asked = pipeline, asked
        self._place, self._index, self._asked_s = place, index, asked_s

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        self._take(ANSWERED, output, confidence, source.text)

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self._take(DEFAULT, output, 0.0, reason=reason)

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        self._take(DEFAULT, output, confidence)

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self._pipeline.ended(self._asked, self._place, self._asked_s, reason)
        self._asked.failed(self._place, reason, explanation)
        self._pipeline.go_on(self._asked)

    def _take(self, end: str, output: Output, confidence: float, source: str = "", reason: str | None = None) -> None:
        self._pipeline.ended(self._asked, self._place, self._asked_s, reason)
        self._asked.tell(self._place, end, source)
        self._asked.run.answered(self._place, self._index, output, confidence, source)
        self._pipeline.go_on(self._asked)
