"""The shell of pipelines, over applications with models that a test speaks for, in the test's own time."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from clipper.control.feedback import Feedback
from clipper.errors import InvalidArgument
from clipper.settings.application import Selection
from clipper.settings.pipeline import Step
from clipper.settings.server import TelemetrySettings
from clipper.worker.selection.application import Application
from clipper.worker.selection.pipeline.pipeline import _Asked
from clipper.worker.selection.pipeline.run import Run
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.watch import Watch
from tests.selection_desk import ROW, SLO_S, Asking, Desk, on_query, run

SINGLE = Selection()
VECTOR = b"[1.5,2.5]"


async def pipeline(
    desk: Desk,
    steps: Mapping[str, Step],
    output: Any = None,
    *,
    defaults: Mapping[str, str | None] | None = None,
    **fields: Any,
) -> dict[str, Application]:
    """Applications for the steps, each of the model of its own name; and the pipeline ``app`` of them."""
    applications: dict[str, Application] = {}
    surroundings = replace(desk.surroundings, applications=applications)
    desk.surroundings = surroundings
    for name in desk.models.outputs:
        own = (defaults or {}).get(name)
        snapshot = desk.snapshot(SINGLE, linked=[name], default_output=own, id=f"{name}-id")
        applications[name] = Application(replace_name(snapshot, name), surroundings)
        await applications[name].load()
    wired = {
        name: each if each.application else Step(**{**as_dict(each), "application": name})
        for name, each in steps.items()
    }
    selection = fields.pop("selection", SINGLE)
    applications["app"] = await desk.application(selection, linked=[], steps=wired, output=output, **fields)
    return applications


def replace_name(snapshot: Any, name: str) -> Any:
    return msgspec.structs.replace(snapshot, name=name)


def as_dict(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__struct_fields__}


def test_chain_asks_one_step_after_the_other_and_teaches_each(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        asking = await desk.answer(applications["app"])
        assert asking.answer == ("prediction", b"7", 1.0)
        assert asking.source.text == "a:1,b:1"
        # Step b gets the text that a answered as a row of doubles.
        assert desk.models.asked == {"a": [ROW], "b": [b"\0\0\0\0\0\0\xf8?\0\0\0\0\0\0\x04@"]}
        assert await desk.observe(applications["app"], on_query(asking.query_id, b"7"))
        assert [applications[name].counts.feedback["joined"] for name in ("app", "a", "b")] == [1, 1, 1]
        assert not await desk.observe(applications["app"], on_query(asking.query_id, b"7"))
        assert applications["a"].counts.feedback["duplicate"] == 1

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_late_step_is_named_before_the_querys_deadline(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        desk.models.held = {"b"}
        asking, query = desk.ask(applications["app"])
        await desk.serve_until(lambda: applications["b"].in_flight)
        desk.loop.advance(SLO_S)
        await desk.serve_until(lambda: query.done)
        kind, output, reason, explanation = asking.answer
        assert (kind, output, reason) == ("default", b'"default"', "timeout")
        assert explanation.startswith("step b: ")

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_late_side_branch_with_a_default_costs_no_answer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        steps = {"a": Step(), "b": Step()}
        applications = await pipeline(desk, steps, {"a": "a", "b": "b"}, defaults={"b": "0"})
        desk.models.held = {"b"}
        asking, query = desk.ask(applications["app"])
        await desk.serve_until(lambda: desk.models.asked["a"])
        desk.loop.advance(SLO_S)
        await desk.serve_until(lambda: query.done)
        assert asking.answer[0] == "prediction"
        assert bytes(asking.answer[1]) == b'{"a":[1.5,2.5],"b":0}'

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_no_step_is_asked_for_more_queries_than_may_be_under_way(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        assert applications["app"].pipeline is not None
        applications["app"].pipeline._window.bound = 3.0
        desk.models.held = {"a"}
        askings = [desk.ask(applications["app"])[0] for _ in range(5)]
        late = "timeout", "as many queries are under way as the steps can answer in time"
        assert [asking.answer[2:] for asking in askings] == [(), (), (), late, late]
        desk.models.held = set()
        await desk.serve_until(lambda: all(asking.answer for asking in askings))
        assert [asking.answer[0] for asking in askings] == ["prediction"] * 3 + ["default"] * 2
        # A query whose client has left is under way until its step has ended.
        desk.models.held = {"a"}
        queries = [desk.ask(applications["app"])[1] for _ in range(3)]
        queries[0].cancel()
        assert desk.ask(applications["app"])[0].answer[2:] == late
        desk.models.held = set()
        await desk.serve_until(lambda: all(query.done for query in queries))
        assert (await desk.answer(applications["app"])).answer[0] == "prediction"

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


class Failing:
    """A step that fails at once."""

    def __init__(self, application: Application, reason: str) -> None:
        self.snapshot, self.terms = application.snapshot, application.terms
        self._application, self._reason = application, reason

    def predict(self, row: bytes, asker: Any, arrival_s: float, **more: Any) -> Any:
        query = self._application.predict(row, Asking(), arrival_s)
        query.cancel()
        asker.on_no_prediction(query.id, self._reason, "a reason")
        return query


@pytest.mark.parametrize(("reason", "in_vain"), [("timeout", 5), ("overloaded", 5), ("model_error", 0)])
def test_step_without_time_makes_those_before_it_vain(tmp_path: Path, reason: str, in_vain: int) -> None:
    async def scenario(desk: Desk) -> None:
        applications: dict[str, Any] = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        applications["b"] = Failing(applications["b"], reason)
        for _ in range(5):
            assert (await desk.answer(applications["app"])).answer[2] == reason
        window = applications["app"].pipeline._window
        assert (window._ended, window._in_vain, window._later_in_vain) == (5, in_vain, 0)

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_nothing_more_is_asked_for_a_query_that_is_over(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        desk.models.held = {"a"}
        asking, query = desk.ask(applications["app"])
        query.cancel()
        desk.models.held = set()
        await desk.serve_until(lambda: desk.models.asked["a"])
        assert (asking.answer, desk.models.asked["b"]) == ((), [])
        # A step that fails ends the query; what other steps have not been sent is dropped.
        both = await pipeline(desk, {"a": Step(), "b": Step()}, {"a": "a.x", "b": "b"})
        desk.models.held = {"b"}
        del both["a"]
        asking, query = desk.ask(both["app"])
        assert asking.answer[:3] == ("default", b'"default"', "unavailable")
        assert asking.answer[3] == "step a: application a was removed"
        assert [each.done for each in [query]] == [True]

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_every_element_of_a_long_list_is_asked(tmp_path: Path) -> None:
    many = b"[%s]" % b",".join(b"[%d]" % place for place in range(100))

    async def scenario(desk: Desk) -> None:
        steps = {"a": Step(), "b": Step(for_each="a", input="item")}
        applications = await pipeline(desk, steps)
        asking = await desk.answer(applications["app"])
        assert bytes(asking.answer[1]) == b"[%s]" % b",".join([b"7"] * 100)
        assert len(desk.models.asked["b"]) == 100
        # Feedback teaches the steps that were asked once.
        assert await desk.observe(applications["app"], on_query(asking.query_id, b"7"))
        assert [applications[name].counts.feedback["joined"] for name in "ab"] == [1, 0]
        del asking
        # Nothing of a query stays in a cycle: passes over such objects would hold up others' queries.
        assert [each for each in gc.get_objects() if isinstance(each, _Asked | Run)] == []

    gc.disable()
    try:
        run(tmp_path, {"a": many, "b": b"7"}, scenario)
    finally:
        gc.enable()


def test_changed_steps_serve_new_queries_alone(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        desk.models.held = {"a"}
        asking, query = desk.ask(applications["app"])
        changed = desk.snapshot(SINGLE, linked=[], steps={"c": Step(application="b")})
        applications["app"].follow(changed)
        later = await desk.answer(applications["app"])
        assert later.source.text == "b:1"
        desk.models.held = set()
        await desk.serve_until(lambda: query.done)
        assert asking.source.text == "a:1,b:1"

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_pipeline_is_ready_once_each_step_is(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        assert applications["app"].is_ready
        await desk.models.containers["b"].kill()
        await desk.serve_until(lambda: not applications["b"].is_ready)
        assert not applications["app"].is_ready
        # A pipeline that a newer supervisor allows, and this worker does not know.
        applications["app"].follow(desk.snapshot(SINGLE, linked=[], steps={"a": Step(input="what is this")}))
        asking, _ = desk.ask(applications["app"])
        assert asking.answer[2] == "unavailable"
        assert not applications["app"].is_ready

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_a_trace_has_a_span_for_each_step_below_the_querys(tmp_path: Path) -> None:
    spans: list[Span] = []
    exporter: Any = SimpleNamespace(add=spans.append)
    watch = Watch(TelemetrySettings(trace_share=1.0), tmp_path, 0, exporter, Random(1))

    async def scenario(desk: Desk) -> None:
        desk.surroundings = replace(desk.surroundings, watch=watch)
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        note = watch.note(0.0, 0.0, "", (), (), lambda: ("POST", "/app/predict", "client"))
        query = applications["app"].predict(ROW, Asking(), desk.loop.time(), request=note)
        await desk.serve_until(lambda: query.done)
        by_name = {span.name: span for span in spans}
        assert set(by_name) == {"query app", "query a", "query b"}
        assert note is not None and note.span is not None
        assert by_name["query app"].parent_id == note.span.span_id
        assert {by_name[f"query {name}"].parent_id for name in "ab"} == {by_name["query app"].context.span_id}
        assert note.queries == 1

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def test_label_for_a_step_teaches_that_step_alone(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        applications = await pipeline(desk, {"a": Step(), "b": Step(input="a")})
        asking = await desk.answer(applications["app"])

        def joined() -> list[int]:
            return [applications[name].counts.feedback["joined"] for name in ("app", "a", "b")]

        assert await desk.observe(applications["app"], replace_step(on_query(asking.query_id, b"7"), "b"))
        assert joined() == [0, 0, 1]
        with pytest.raises(InvalidArgument, match="expected a, b"):
            await desk.observe(applications["app"], replace_step(on_query(asking.query_id, b"7"), "c"))
        # The label of the whole answer does not teach that step again.
        assert await desk.observe(applications["app"], on_query(asking.query_id, b"7"))
        assert joined() == [1, 1, 1]
        assert applications["b"].counts.feedback["duplicate"] == 1
        with pytest.raises(InvalidArgument, match="feedback on it names none"):
            plain, _ = desk.ask(applications["a"])
            await desk.serve_until(lambda: plain.answer)
            await desk.observe(applications["a"], replace_step(on_query(plain.query_id, b"7"), "b"))

    run(tmp_path, {"a": VECTOR, "b": b"7"}, scenario)


def replace_step(feedback: Feedback, step: str) -> Feedback:
    return msgspec.structs.replace(feedback, step=step)


def test_path_of_a_logged_query_has_what_became_of_each_step(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        steps = {"a": Step(), "b": Step(when="a.confidence < 0"), "c": Step(input="a"), "d": Step(for_each="a")}
        output = {"b": "b", "c": "c", "d": "d"}
        logged = Selection(log_decisions=1.0)
        applications = await pipeline(desk, steps, output, defaults={"c": "0"}, selection=logged)
        desk.models.held = {"c"}
        asking, query = desk.ask(applications["app"])
        await desk.serve_until(
            lambda: applications["c"].in_flight and desk.models.asked["d"] and not applications["d"].in_flight
        )
        desk.loop.advance(SLO_S)
        await desk.serve_until(lambda: query.done)
        assert asking.answer[0] == "prediction"
        assert query.path is not None
        found = {each.step: each for each in query.path.steps}
        assert [(name, found[name].rows, found[name].end) for name in "abcd"] == [
            ("a", 1, "answered"),
            ("b", 0, "skipped"),
            ("c", 1, "default"),
            ("d", 2, "answered"),
        ]
        assert (found["a"].versions, found["b"].versions, found["c"].versions) == ("a:1", "", "")
        assert found["c"].latency_s > found["a"].latency_s >= 0.0
        assert found["a"].application == "a"

    run(tmp_path, {"a": VECTOR, "b": b"7", "c": b"8", "d": b"9"}, scenario)
