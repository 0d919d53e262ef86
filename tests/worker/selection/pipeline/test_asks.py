"""The shell of asks, over applications with models that a test speaks for, in the test's own time."""

from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from clipper.model.protocol import messages
from clipper.model.protocol.asks import MAX_OPEN_ASKS, Refusal, encode_ask
from clipper.model.protocol.frames import ASKS_VERSION
from clipper.model.protocol.messages import Results, Welcome
from clipper.model.protocol.typed import encode_typed_results
from clipper.settings.application import Selection
from clipper.settings.pipeline import Step
from clipper.settings.server import TelemetrySettings
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.types import DType
from clipper.worker.abstraction.turns import at_once
from clipper.worker.selection.application import Application
from clipper.worker.selection.pipeline import open_asks
from clipper.worker.selection.pipeline.asks import Asks
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.watch import Watch
from tests.selection_desk import ROW, SLO_S, Asking, Desk, run
from tests.small_container import DOUBLES, Batch
from tests.waiting import until_async

NONE: Any = None
ONE = messages.encode_results(0, 1, b"[1.5, 2.5]")


class Talk:
    """Models a, b and c with an application each, of which a asks."""

    def __init__(self, desk: Desk, watch: Watch | None) -> None:
        self.desk = desk
        self.applications: dict[str, Application] = {}
        self.asks = Asks(self.applications, at_once, watch)
        self.ids = 0

    @classmethod
    async def begin(cls, desk: Desk, watch: Watch | None = None, **fields: Any) -> "Talk":
        talk = cls(desk, watch)
        desk.surroundings = replace(desk.surroundings, applications=talk.applications, watch=watch)
        desk.predictor.turns._watch = watch
        for name, container in desk.models.containers.items():
            await container.kill()
            container.greeting = messages.encode_welcome(Welcome(name, "1", DOUBLES, protocol=ASKS_VERSION))
            await container.start()
            await talk.application(name, **fields)
        for queue in desk.predictor.queues():
            queue.asks = talk.asks
            await until_async(lambda queue=queue: queue.is_linked)
        return talk

    async def application(self, name: str, **fields: Any) -> None:
        settings = {"linked": [name], "default_output": None, "id": f"{name}-id"} | fields
        snapshot = msgspec.structs.replace(self.desk.snapshot(Selection(), **settings), name=name)
        self.applications[name] = Application(snapshot, self.desk.surroundings)
        await self.applications[name].load()

    async def batch(self, model: str = "a", row: bytes = ROW, after_s: float = 0.0) -> Batch:
        """A batch of a model that stays open. Its query waits for it for some time."""
        self.desk.models.held.add(model)
        _, self.query = self.desk.ask(self.applications[model], row)
        self.desk.loop.advance(after_s)
        container = self.desk.models.containers[model]
        await self.desk.serve_until(lambda: container.batches)
        return container.take()

    def ask(self, batch: Batch, application: str = "b", rows: bytes = ONE, timeout_s: float = 0) -> int:
        self.ids += 1
        batch.caller.write(encode_ask(self.ids, batch.id, int(timeout_s * 1e6), application, rows))
        return self.ids

    async def answer(self, ask_id: int, model: str = "a") -> Any:
        answers = self.desk.models.containers[model].answers
        await self.desk.serve_until(lambda: ask_id in answers)
        return answers.pop(ask_id)

    def is_quiet(self) -> bool:
        rules = self.asks.open
        return not (rules._waits or rules._replicas or rules.held_bytes)


def talking(folder: Path, scenario: Any, outputs: dict[str, bytes] | None = None, **fields: Any) -> None:
    async def whole(desk: Desk) -> None:
        talk = await Talk.begin(desk, **fields)
        await scenario(talk)
        assert talk.is_quiet()

    run(folder, outputs or {"a": b"1", "b": b"7", "c": b"8"}, whole)


def test_row_of_an_ask_is_a_query_of_the_application(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        found = await talk.answer(talk.ask(batch))
        assert isinstance(found, Results) and list(found.outputs) == [b"7"]
        assert talk.desk.models.asked["b"] == [np.array([1.5, 2.5]).tobytes()]
        assert talk.applications["b"].counts.queries == 1
        typed = encode_typed_results(
            0, 2, OutputForm(DType.INT32, (1,), DType.INT32), np.array([1, 2], "<i4").tobytes()
        )
        found = await talk.answer(talk.ask(batch, rows=typed))
        assert list(found.outputs) == [b"7", b"7"]
        batch.answer([b"1"])
        await talk.desk.serve_until(lambda: not talk.applications["a"].in_flight)

    talking(tmp_path, scenario)


def test_ask_gets_the_time_that_the_rest_of_the_batch_leaves(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        deadlines, left = [], []
        before, b = Application.predict, talk.applications["b"]

        def noted(self: Application, *arguments: Any, **fields: Any) -> Any:
            if self is b:
                deadlines.append(fields["deadline_s"] - arguments[2])
                left.append(talk.query.deadline_s - arguments[2])
            return before(self, *arguments, **fields)

        # With a batch of 60 s, a query first waits for others.
        for after_s in (0.0, 0.36 * SLO_S):
            batch = await talk.batch(after_s=after_s)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Application, "predict", noted)
                await talk.answer(talk.ask(batch))
                await talk.answer(talk.ask(batch, timeout_s=3.0))
            talk.desk.loop.advance(0.6 * SLO_S)
            batch.answer([b"1"])
            await talk.desk.serve_until(lambda: not talk.applications["a"].in_flight)
        # Of the first, nothing is known: it gets half. After its answer, the batch takes 60 s.
        assert deadlines[0] == pytest.approx(left[0] / 2, abs=0.1)
        assert deadlines[1] == deadlines[3] == 3.0
        assert deadlines[2] == pytest.approx(left[2] - 0.6 * SLO_S, abs=1.0)

    talking(tmp_path, scenario)


def test_late_ask_is_answered_and_its_rows_are_dropped(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        talk.desk.models.held.add("b")
        ask_id = talk.ask(batch)
        await talk.desk.serve_until(lambda: talk.applications["b"].in_flight)
        talk.desk.loop.advance(0.6 * SLO_S)
        assert await talk.answer(ask_id) == Refusal("timeout", "b: b:1 did not answer within the SLO")
        talk.desk.loop.advance(SLO_S)
        await talk.desk.serve_until(lambda: not talk.applications["a"].in_flight)
        found = await talk.answer(talk.ask(batch))
        assert found.code == "timeout" and "too few" in found.message

    talking(tmp_path, scenario)


def test_ask_that_cannot_be_let_in_says_why(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        await talk.application("both", linked=["c", "a"])
        await talk.application("pipe", linked=[], steps={"one": Step(application="both")})
        await talk.application("features", linked=["c"])
        talk.applications["features"].terms.features_size = 3
        typed = encode_typed_results(0, 1, OutputForm(DType.BOOL, (), DType.BOOL), b"\7")
        for application, rows, code, message in (
            ("none", ONE, "not_found", "does not exist"),
            ("a", ONE, "conflict", "a, which asks a"),
            ("both", ONE, "conflict", "a, which asks a"),
            ("pipe", ONE, "conflict", "a, which asks a"),
            ("features", ONE, "wrong_input", "features"),
            ("b", messages.encode_results(0, 1, b'"text"'), "wrong_input", "expected"),
            ("b", messages.encode_results(0, 2, b"[1]\nnone"), "wrong_input", "row 1: "),
            ("b", typed, "wrong_input", "not 0 or 1"),
            ("b", messages.encode_results(0, 20_000, b"\n".join([b"[1]"] * 20_000)), "wrong_input", "at most 16384"),
        ):
            found = await talk.answer(talk.ask(batch, application, rows))
            assert isinstance(found, Refusal) and found.code == code, found
            assert message in found.message and found.message.startswith(f"{application}: "), found
        over = await talk.answer(talk.ask(Batch(99, NONE, batch.caller)))
        assert over == Refusal("unavailable", "b: the batch that it was asked for is over")

    talking(tmp_path, scenario)


def test_circle_through_another_query_is_refused(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        first, second = await talk.batch("a"), await talk.batch("b", b"s" * 8)
        waiting = talk.ask(first)
        await until_async(lambda: talk.asks.open._replicas)
        found = await talk.answer(talk.ask(second, "a"), "b")
        assert found == Refusal("conflict", "a: models ask in a circle: a, which asks b, which asks a")
        second.answer([b"1"])
        talk.desk.models.held.discard("b")
        assert isinstance(await talk.answer(waiting), Results)

    talking(tmp_path, scenario)


def test_asks_of_a_batch_have_a_bound_and_end_with_it(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        talk.desk.models.held.add("b")
        asks = [talk.ask(batch) for _ in range(MAX_OPEN_ASKS + 1)]
        found = await talk.answer(asks[-1])
        assert found.code == "overloaded"
        batch.answer([b"1"])
        await until_async(talk.is_quiet)
        batch = await talk.batch(row=b"t" * 8)
        talk.ask(batch)
        await until_async(lambda: not talk.is_quiet())
        await talk.desk.models.containers["a"].kill()
        await until_async(talk.is_quiet)

    talking(tmp_path, scenario)


def test_default_answers_and_removed_application_fails(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        await talk.application("sure", linked=["c"], default_output="[0,0]")
        batch = await talk.batch()
        talk.desk.models.held |= {"b", "c"}
        with_default, without = talk.ask(batch, "sure"), talk.ask(batch)
        await until_async(lambda: talk.applications["b"].in_flight and talk.applications["sure"].in_flight)
        talk.applications.pop("b").close()
        assert (await talk.answer(without)).code == "unavailable"
        talk.desk.loop.advance(0.6 * SLO_S)
        assert list((await talk.answer(with_default)).outputs) == [b"[0,0]"]

    talking(tmp_path, scenario)


def test_many_rows_come_back_as_one_array(tmp_path: Path) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        data = np.arange(600.0)
        rows = encode_typed_results(0, 300, OutputForm(DType.FLOAT64, (2,), DType.FLOAT64), data.tobytes())
        talk.desk.models.held.add("b")
        ask_id, done = talk.ask(batch, rows=rows), 0
        while done < 300:
            await until_async(lambda: talk.desk.models.containers["b"].batches)
            found = talk.desk.models.containers["b"].take()
            done += len(found.rows)
            form = OutputForm(DType.FLOAT64, (2,), DType.FLOAT64)
            found.caller.write(encode_typed_results(found.id, len(found.rows), form, b"".join(found.rows)))
        answer = await talk.answer(ask_id)
        assert isinstance(answer, TypedResults) and bytes(answer.data) == data.tobytes()
        assert (answer.rows, answer.form.shape) == (300, (2,))

    talking(tmp_path, scenario)


def test_answers_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(talk: Talk) -> None:
        batch = await talk.batch()
        monkeypatch.setattr(open_asks, "MAX_HELD_BYTES", 120)
        rows = messages.encode_results(0, 1, b"[1]")
        assert (await talk.answer(talk.ask(batch, rows=rows))).code == "overloaded"

    talking(tmp_path, scenario, {"a": b"1", "b": b"[%s]" % b",".join([b"1"] * 100)})


def test_spans_of_an_ask_are_below_those_of_the_batch(tmp_path: Path) -> None:
    spans: list[Span] = []
    exporter: Any = SimpleNamespace(add=spans.append)
    watch = Watch(TelemetrySettings(trace_share=1.0), tmp_path, 0, exporter, Random(1))

    async def scenario(talk: Talk) -> None:
        note = watch.note(0.0, talk.desk.loop.time(), "", (), (), lambda: ("POST", "/a/predict", "client"))
        talk.desk.models.held.add("a")
        talk.applications["a"].predict(ROW, Asking(), talk.desk.loop.time(), request=note)
        container = talk.desk.models.containers["a"]
        await until_async(lambda: container.batches)
        batch = container.take()
        await talk.answer(talk.ask(batch))
        batch.answer([b"1"])
        await until_async(lambda: any(span.name == "batch a" for span in spans))
        by_name = {span.name: span for span in spans}
        assert by_name["query b"].parent_id == by_name["batch a"].context.span_id
        assert by_name["batch b"].parent_id == by_name["query b"].context.span_id
        assert len({span.context.trace_id for span in spans}) == 1

    talking(tmp_path, scenario, watch=watch)
