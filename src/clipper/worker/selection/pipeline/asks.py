"""The shell of asks: a model that evaluates a batch asks an application, as a pipeline asks for a step.

Each row is a query of the application. All have one deadline: that of the batch's queries, less the time that the rest
of the batch has taken lately after an ask of this application (``StepTimes``, as if it were a step that follows). If a
row has no answer, the ask fails at once, and its other rows are cancelled.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import lru_cache

from clipper.errors import (
    ClipperError,
    DeadlineExceeded,
    ModelFailed,
    NotFound,
    OutputTooLarge,
    ProtocolViolation,
    Unavailable,
    WrongInput,
)
from clipper.model.protocol.asks import MAX_ASK_BYTES, MAX_ASK_ROWS, Ask, answer_frame, decode_ask
from clipper.model.protocol.messages import Buffer, encode_error, encode_results
from clipper.model.protocol.typed import typed_results_frame
from clipper.values.outputs.as_inputs import input_rows, list_of
from clipper.values.outputs.output import MAX_READ_BYTES, Output, TypedOutput, is_long, is_readable
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.replica import Replica
from clipper.worker.abstraction.results import RowReader
from clipper.worker.abstraction.turns import Steps, at_once
from clipper.worker.selection.pipeline.open_asks import OpenAsks
from clipper.worker.selection.pipeline.pipeline import MAX_AT_ONCE, StepApplication
from clipper.worker.selection.pipeline.times import ANSWERS, StepTimes
from clipper.worker.selection.query import Query, Source
from clipper.worker.telemetry.watch import Watch

# The texts of an answer together: to join them takes two milliseconds.
MAX_TEXT_BYTES = 8 * MAX_READ_BYTES
# Pairs of a model and an application whose times are remembered.
MAX_TIMES = 256


class Asks:
    """Answers the asks of a worker's replicas."""

    def __init__(
        self, applications: Mapping[str, StepApplication], do: Callable[[Steps], None], watch: Watch | None
    ) -> None:
        """
        Args:
            applications: the worker's applications by name, as they are at each moment.
            do: does long work in steps, between the loop's other events.
        """
        self._applications, self.do, self._watch = applications, do, watch
        self.now_s = asyncio.get_running_loop().time
        self.open = OpenAsks()
        self._times_of = lru_cache(MAX_TIMES)(lambda model, application: StepTimes(((1,), ())))

    def take(self, replica: Replica, ask_id: int, body: Buffer) -> None:
        name = ""
        try:
            ask = decode_ask(body)
            name = f"{ask.application}: "
            self._begin(replica, ask_id, ask, len(body))
        except ProtocolViolation:
            raise
        except ClipperError as error:
            send(replica, ask_id, [encode_error(ask_id, f"{error.code}: {name}{error}")])

    def ended(self, asks: "Sequence[_Ask]", *, is_answered: bool = True) -> None:
        """Cancel the open asks, and learn how long the batch took after each answered ask."""
        now_s = self.now_s()
        for ask in asks:
            if not ask.is_over:
                ask.end()
            elif is_answered and ask.ended_s:
                ask.times.took(1, now_s, now_s - ask.ended_s)

    def _begin(self, replica: Replica, ask_id: int, ask: Ask, size_bytes: int) -> None:
        now_s, name = self.now_s(), ask.application
        batch = None if replica.state is None else replica.state.in_flight.get(ask.batch_id)
        if replica.state is None or batch is None:
            raise Unavailable("the batch that it was asked for is over")
        application = self._applications.get(name)
        if application is None:
            raise NotFound(
                f"the application does not exist: create it by 'clipper app create {name[:100]} --model MODEL'"
            )
        if ask.rows.rows > MAX_ASK_ROWS:
            raise WrongInput(f"the ask has {ask.rows.rows} rows: expected at most {MAX_ASK_ROWS}")
        if application.terms.features_size is not None:
            raise WrongInput("its policy needs features with each query, and an ask cannot bring any")
        models = self._models_of(application)
        self.open.check(replica, replica.model.name, models, size_bytes)
        times = self._times_of(replica.model.name, name)
        deadline_s = self._deadline_s(batch, times, now_s, ask.timeout_us / 1e6)
        asking = _Ask(self, replica, ask_id, ask, batch, models, times, size_bytes)
        of_batch = replica.asks.setdefault(ask.batch_id, [])
        of_batch.append(asking)
        if len(of_batch) > ANSWERS:  # so many are learned from; fewer are open
            of_batch[:] = [each for each in of_batch if not each.is_over]
        replica.state.release_devices()
        is_much = ask.rows.rows > MAX_AT_ONCE or ask.rows.is_large
        (self.do if is_much else at_once)(self._submit(asking, application, ask, now_s, deadline_s))

    def _models_of(self, application: StepApplication) -> frozenset[str]:
        """Return the models that a query of the application may ask."""
        snapshot = application.snapshot
        steps = [self._applications.get(step.application or "") for step in snapshot.steps.values()]
        asked = [snapshot, *(step.snapshot for step in steps if step is not None)]
        return frozenset(link.model for each in asked for link in each.links)

    def _deadline_s(self, batch: Batch, times: StepTimes, now_s: float, timeout_s: float) -> float | None:
        """Return the deadline of an ask; None for that of the application. Raises DeadlineExceeded if there is none.

        It is the deadline of the batch's most patient query: an answer too late for the other queries is still of use.
        """
        deadline_s: float | None = None
        if batch.works:
            until_s = max((work.deadline_s for work in batch.works if work.is_wanted), default=now_s)
            deadline_s = times.deadline_s(0, now_s, until_s, is_probe=times.begin())
            if deadline_s is None:
                left_ms = 1000 * max(0.0, until_s - now_s)
                raise DeadlineExceeded(f"{left_ms:.1f} ms were left, too few for it and for the rest of the batch")
        if not timeout_s:
            return deadline_s
        return now_s + timeout_s if deadline_s is None else min(deadline_s, now_s + timeout_s)

    def _submit(
        self, asking: "_Ask", application: StepApplication, ask: Ask, now_s: float, deadline_s: float | None
    ) -> Steps:
        """Make the rows of an ask, and ask the application for each."""
        rows, reader = input_rows(application.terms.input_type), RowReader(ask.rows, ask.rows.rows, MAX_ASK_BYTES)
        for index in range(ask.rows.rows):
            try:
                row = yield from rows.row((yield from reader.read(index)))
            except ModelFailed as error:
                asking.fail(WrongInput.code, str(error), index)
                return
            if asking.is_over:
                return
            query = application.predict(row, _Row(asking, index), now_s, deadline_s=deadline_s)
            if not query.done:
                asking.queries.append(query)
                if self._watch is not None and asking.batch.note is not None:
                    query.note = self._watch.begin_asked(asking.batch.note)
            yield


class _Ask:
    """The rows of an ask that are under way.

    Attributes:
        queries: those that were not answered at once.
        ended_s: when it was answered; 0 before, or if it failed.
    """

    def __init__(
        self,
        asks: Asks,
        replica: Replica,
        id_: int,
        ask: Ask,
        batch: Batch,
        models: frozenset[str],
        times: StepTimes,
        size_bytes: int,
    ) -> None:
        self._asks, self._replica, self._id, self._name = asks, replica, id_, ask.application
        self._models, self._held_bytes = models, size_bytes
        self.batch, self.times = batch, times
        self._outputs: list[Output] = [b""] * ask.rows.rows
        self._missing = ask.rows.rows
        self._began_s, self.ended_s = asks.now_s(), 0.0
        self.queries: list[Query] = []
        self.is_over = False
        batch.asks += 1
        asks.open.begin(replica, replica.model.name, models, size_bytes)

    def answered(self, index: int, output: Output) -> None:
        """Take the answer to a row, which may be a default."""
        if self.is_over:
            return
        size = len(output.data) if isinstance(output, TypedOutput) else len(output)
        try:
            self._asks.open.check_room(size)
        except ClipperError as error:
            self.fail(error.code, str(error), index)
            return
        self._asks.open.held_bytes += size
        self._held_bytes += size
        self._outputs[index] = output
        self._missing -= 1
        if not self._missing:
            is_much = len(self._outputs) > MAX_AT_ONCE or any(map(is_long, self._outputs))
            (self._asks.do if is_much else at_once)(self._answer())

    def fail(self, code: str, message: str, index: int | None = None) -> None:
        """End without outputs, since a row has none, or all together cannot be sent."""
        if not self.is_over:
            now_s = self._asks.now_s()
            if code == DeadlineExceeded.code:
                self.times.took(0, now_s, now_s - self._began_s, is_late=True)
            row = f"row {index}: " if index is not None and len(self._outputs) > 1 else ""
            send(self._replica, self._id, [encode_error(self._id, f"{code}: {self._name}: {row}{message}")])
            self.end()

    def end(self) -> None:
        """Forget it, and cancel what is under way."""
        self.is_over = True
        self.batch.asks -= 1
        self._asks.open.end(self._replica, self._replica.model.name, self._models, self._held_bytes)
        self._outputs.clear()
        queries, self.queries = self.queries, []
        for query in queries:
            query.cancel()

    def _answer(self) -> Steps:
        outputs = list(self._outputs)
        if not outputs:  # the batch has ended before this began
            return
        first = outputs[0]
        form = first.form if isinstance(first, TypedOutput) and 0 not in first.form.shape else None
        try:
            if form is not None and all(isinstance(each, TypedOutput) and each.form == form for each in outputs):
                joined = yield from list_of(outputs)
                assert isinstance(joined, TypedOutput)
                answer: Sequence[Buffer] = typed_results_frame(self._id, len(outputs), form, joined.data)
            else:
                answer = [encode_results(self._id, len(outputs), b"\n".join((yield from _texts(outputs))))]
        except ModelFailed as error:
            self.fail(error.code, str(error))
            return
        if not self.is_over:
            self.ended_s = self._asks.now_s()
            self.times.took(0, self.ended_s, self.ended_s - self._began_s)
            send(self._replica, self._id, answer)
            self.end()


class _Row:
    """Takes the answer to a row of an ask."""

    __slots__ = ("_ask", "_index")

    def __init__(self, ask: _Ask, index: int) -> None:
        self._ask, self._index = ask, index

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        self._ask.answered(self._index, output)

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self._ask.answered(self._index, output)

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        self._ask.answered(self._index, output)

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self._ask.fail(reason, explanation, self._index)


def _texts(outputs: Sequence[Output]) -> Generator[None, None, list[bytes]]:
    texts, size = list[bytes](), 0
    for output in outputs:
        text = bytes(output) if is_readable(output) else None
        if text is None or size + len(text) > MAX_TEXT_BYTES:
            raise OutputTooLarge(
                f"the outputs have over {MAX_TEXT_BYTES} bytes as JSON together, or one of them over {MAX_READ_BYTES}"
            )
        size += len(text)
        texts.append(text)
        yield
    return texts


def send(replica: Replica, ask_id: int, answer: Sequence[Buffer]) -> None:
    """Write an answer, a frame of results or of an error, to a container that is linked."""
    if replica.link.is_linked:
        replica.link.send_frame(answer_frame(ask_id, answer))
