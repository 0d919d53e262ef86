"""Several models: stragglers, confidence, shadows, contexts, policies of the user's, and changes while queries run."""

import asyncio
import gc
import math
import struct
from pathlib import Path
from textwrap import dedent

import pytest

from clipper.control.feedback import Feedback
from clipper.settings.application import Selection
from clipper.worker.selection.answering import MAX_SOURCES
from clipper.worker.selection.description import describe
from clipper.worker.selection.learner import Learner
from clipper.worker.selection.query import NO_SOURCE
from tests.event_loops import turn_over
from tests.selection_desk import ROW, SLO_S, Asking, Desk, on_query, own_policy, run
from tests.waiting import until_async

FIVE = {"a": b"1", "b": b"1", "c": b"1", "d": b"2", "e": b"2"}
ENSEMBLE = Selection("ensemble")


def test_stragglers_are_not_waited_for_beyond_the_deadline(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE)
        desk.models.held.add("e")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: len(query.outputs) == 4)
        assert not asking.answer
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert asking.source.json == b',"models":["a:1","b:1","c:1","d:1"]' and asking.source.version is None
        # Three of five agree; the missing one does not.
        assert asking.answer == ("prediction", b"1", pytest.approx(0.6))
        selection = application.statistics().selection
        assert selection is not None and application.statistics().defaults == {}
        assert {name: each.missing for name, each in selection.models.items()} == dict.fromkeys("abcd", 0) | {"e": 1}
        desk.models.held.clear()
        await desk.serve_until(lambda: "e" in query.outputs)
        again = await desk.answer(application)
        assert again.answer == ("prediction", b"1", pytest.approx(0.6)) and len(desk.models.asked["e"]) == 1

    run(tmp_path, FIVE, scenario, cache=True)


def test_an_answer_of_one_model_of_several_names_that_version(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE)
        desk.models.held |= set("abde")
        asking, _ = desk.ask(application)
        await desk.serve_until(lambda: desk.models.asked["c"])
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert asking.source.json == b',"model":"c","version":"1"'
        application.follow(desk.snapshot(ENSEMBLE, show_model=False))
        desk.models.held.clear()
        assert (await desk.answer(application)).source is NO_SOURCE

    run(tmp_path, FIVE, scenario)


def test_each_subset_of_models_that_answers_is_remembered_within_a_bound(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        answering = (await desk.application(ENSEMBLE)).answering
        for number in range(MAX_SOURCES + 10):
            answering._new_source(f"a:{number}", [f"a:{number}"])
        assert len(answering._sources) == 10

    run(tmp_path, FIVE, scenario)


def test_model_that_fails_is_not_waited_for_and_does_not_agree(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE)
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: len(query.outputs) == 4 and desk.models.containers["a"].batches)
        desk.models.containers["a"].take().fail("ValueError: no")
        await until_async(lambda: query.done)
        assert asking.answer == ("prediction", b"1", pytest.approx(0.4))
        selection = application.statistics().selection
        assert selection is not None and selection.models["a"].missing == 1

    run(tmp_path, FIVE, scenario)


@pytest.mark.parametrize(("default", "shown"), [('"default"', b'"default"'), (None, b"null")])
def test_unsure_answer_is_replaced_and_shown_beside_the_default(
    tmp_path: Path, default: str | None, shown: bytes
) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("ensemble", confidence_threshold=0.7)
        application = await desk.application(selection, default_output=default)
        asking = await desk.answer(application)
        assert asking.answer == ("unsure", shown, b"1", pytest.approx(0.6))
        assert application.statistics().defaults == {"low_confidence": 1}
        desk.models.outputs["d"] = b"1"
        assert (await desk.answer(application)).answer == ("prediction", b"1", pytest.approx(0.8))

    run(tmp_path, dict(FIVE), scenario)


def test_an_answer_as_sure_as_the_threshold_is_believed(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble"))
        confidence = (await desk.answer(application)).answer[-1]
        for threshold, kind in [(confidence, "prediction"), (math.nextafter(confidence, 1.0), "unsure")]:
            application.follow(desk.snapshot(Selection("ensemble", confidence_threshold=threshold)))
            assert (await desk.answer(application)).answer[0] == kind

    run(tmp_path, FIVE, scenario)


def test_shadows_are_asked_also_where_the_answer_is_in_the_cache(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single"), linked=["a", "e"], shadows="e")
        desk.models.held.add("e")
        first, _ = desk.ask(application)
        await desk.serve_until(lambda: first.answer)
        desk.models.held.clear()
        again, query = desk.ask(application)
        assert again.answer == ("prediction", b"1", 1.0)
        await desk.serve_until(lambda: query.shadow_outputs == {"e": b"2"})

    run(tmp_path, FIVE, scenario, cache=True)


def test_shadows_are_asked_and_never_waited_for_or_heard(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE, shadows="de")
        desk.models.held.add("e")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: asking.answer)
        assert asking.answer == ("prediction", b"1", 1.0)
        await desk.serve_until(lambda: query.shadow_outputs == {"d": b"2"})
        desk.models.held.clear()
        await desk.serve_until(lambda: query.shadow_outputs == {"d": b"2", "e": b"2"})
        assert set(query.outputs) == set("abc")
        await desk.models.containers["e"].kill()
        assert (await desk.answer(application)).answer == ("prediction", b"1", 1.0)

    run(tmp_path, FIVE, scenario)


def test_a_change_of_policy_models_or_settings_loses_no_query(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE)
        selections = [ENSEMBLE, Selection("exp3"), Selection("ucb1"), Selection("exp4"), Selection("single")]
        askings = []
        for number, selection in enumerate(selections * 2):
            application.follow(desk.snapshot(selection, linked="abcde"[number % 3 :], shadows="e"))
            askings.append(desk.ask(application, bytes([number]) * 8)[0])
        await desk.serve_until(lambda: all(asking.answer for asking in askings))
        assert {asking.answer[0] for asking in askings} == {"prediction"}

    run(tmp_path, FIVE, scenario)


# -- a user's own policy -----------------------------------------------------------------------------------


def test_a_model_that_comes_while_others_are_described_is_described_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"), linked=["a"])
        describing = asyncio.ensure_future(describe(application, None))
        await turn_over()
        application.follow(desk.snapshot(Selection("exp3"), linked=["a", "b"]))
        description = await describing
        assert [each.model for each in description.models] == ["a", "b"]
        assert all(0.0 < each.share < 1.0 for each in description.models)

    run(tmp_path, {"a": b"1", "b": b"2"}, scenario)


def test_a_users_policy_selects_and_combines(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(own_policy(tmp_path))
        assert (await desk.answer(application)).answer == ("prediction", b"7", 0.5)
        assert [name for name, rows in desk.models.asked.items() if rows] == ["a", "b"]

    run(tmp_path, FIVE, scenario)


FOREIGN = """
    from clipper.learning.policies.policy import Choice, Combined

    class Foreign:
        feedback = "selected"

        def select(self, models, totals, query, random):
            return Choice(models[:1], (1.0,))

        def combine(self, choice, outputs, totals, query):
            return Combined(b"7", 0.5)

        def observe(self, choice, losses, totals, query):
            return {("a", "seen"): 1}
"""


def test_a_users_policy_need_not_be_a_subclass(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "foreign_policy.py").write_text(dedent(FOREIGN))

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("foreign_policy:Foreign", code=str(code)))
        asking = await desk.answer(application)
        assert asking.answer == ("prediction", b"7", 0.5)
        assert await desk.observe(application, on_query(asking.query_id, b"1"))
        Learner(application).make_up()

    run(tmp_path, FIVE, scenario)


NONSENSE = {
    "raises in select": {"select": "raise KeyError('oh')"},
    "exits in select": {"select": "raise SystemExit(3)"},
    "no choice": {"select": "return None"},
    "chooses nobody": {"select": "return Choice((), ())"},
    "chooses a stranger": {"select": "return Choice(('z',), (1.0,))"},
    "chooses one twice": {"select": "return Choice(('a', 'a'), (0.5, 0.5))"},
    "too few shares": {"select": "return Choice(('a', 'b'), (1.0,))"},
    "shares that do not add up": {"select": "return Choice(('a', 'b'), (0.1, 0.1))"},
    "no probability": {"select": "return Choice(('a',), (0.0,))"},
    "NaN share": {"select": "return Choice(('a',), (float('nan'),))"},
    "negative share": {"select": "return Choice(('a', 'b'), (-1.0, 2.0))"},
    "shares of text": {"select": "return Choice(('a',), ('all',))"},
    "a choice of no sequence": {"select": "return Choice(5, 5)"},
    "raises in combine": {"combine": "raise RuntimeError('oh')"},
    "exits in combine": {"combine": "raise SystemExit(3)"},
    "no answer": {"combine": "return None"},
    "text for bytes": {"combine": "return Combined('7', 1.0)"},
    "bytes that are not JSON": {"combine": "return Combined(b'seven', 1.0)"},
    "bytes that are not UTF-8": {"combine": r"return Combined(b'\"\xff\"', 1.0)"},
    "two answers": {"combine": "return Combined(b'7 8', 1.0)"},
    "too deep": {"combine": "return Combined(b'[' * 100_000 + b']' * 100_000, 1.0)"},
    "NaN confidence": {"combine": "return Combined(b'7', float('nan'))"},
    "confidence above 1": {"combine": "return Combined(b'7', 2.0)"},
    "confidence of text": {"combine": "return Combined(b'7', 'high')"},
    "raises when made": {"init": "raise ValueError('oh')"},
    "exits when made": {"init": "raise SystemExit(3)"},
}


@pytest.mark.parametrize("methods", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_of_a_users_policy_is_a_policy_error_that_is_shown(tmp_path: Path, methods: dict[str, str]) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(own_policy(tmp_path, **methods))
        asking = await desk.answer(application)
        assert asking.answer[:3] == ("default", b'"default"', "policy_error")
        selection = application.statistics().selection
        assert selection is not None and selection.last_policy_error
        application.follow(desk.snapshot(ENSEMBLE))
        assert (await desk.answer(application)).answer[0] == "prediction"
        selection = application.statistics().selection
        assert selection is not None and selection.last_policy_error is None

    run(tmp_path, FIVE, scenario)


@pytest.mark.parametrize("confidence", ["True", "1", "__import__('numpy').float64(1)"])
def test_confidence_of_any_number_type_goes_out_as_a_number(tmp_path: Path, confidence: str) -> None:
    async def scenario(desk: Desk) -> None:
        selection = own_policy(tmp_path, combine=f"return Combined(b'7', {confidence})")
        answer = (await desk.answer(await desk.application(selection))).answer
        assert repr(answer[2]) == "1.0"

    run(tmp_path, FIVE, scenario)


def test_models_chosen_in_any_order_and_kind_of_sequence(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(own_policy(tmp_path, select="return Choice(['c', 'a'], [0.25, 0.75])"))
        _, query = desk.ask(application)
        await desk.serve_until(lambda: query.done)
        assert query.choice is not None
        assert (query.choice.models, query.choice.shares) == (("a", "c"), (0.75, 0.25))

    run(tmp_path, FIVE, scenario)


def test_two_applications_whose_modules_have_one_name(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        answers = []
        for name, output in [("one", "1"), ("one-more", "2")]:
            folder = tmp_path / name
            folder.mkdir()
            selection = own_policy(folder, combine=f"return Combined(b'{output}', 1.0)")
            # Two folders of which one's name begins with the other's.
            (folder / "code").rename(tmp_path / f"code-{name}")
            selection = Selection(selection.policy, code=str(tmp_path / f"code-{name}"))
            answers.append(await desk.application(selection))
        assert [(await desk.answer(each)).answer[1] for each in answers] == [b"1", b"2"]

    run(tmp_path, FIVE, scenario)


def test_sets_of_models_that_are_counted_are_bounded(tmp_path: Path) -> None:
    models = {f"m{number}": b"1" for number in range(12)}
    select = "models = tuple(random.sample(models, 6)); return Choice(models, (1 / 6,) * 6)"

    async def scenario(desk: Desk) -> None:
        application = await desk.application(own_policy(tmp_path, select=select))
        for _ in range(3000):
            application.predict(ROW, Asking(), desk.loop.time())
        assert len(application.counts.selected) <= 1001
        selection = application.statistics().selection
        assert selection is not None and sum(each.selected for each in selection.models.values()) == 6 * 3000
        application.close()

    run(tmp_path, models, scenario)


# -- what queries leave behind ------------------------------------------------------------------------------


def test_queries_leave_no_reference_cycles_and_keep_no_asker(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"), shadows="e")
        await desk.answer(application)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for number in range(50):
                asking, query = desk.ask(application, bytes([number]) * 8, "c" if number % 2 else None)
                await desk.serve_until(lambda asking=asking: asking.answer)
                assert query.asker is None
                query.cancel()
            desk.ask(application, b"c" * 8)[1].cancel()
            await turn_over(20)
            desk.surroundings.joins.find(0, desk.loop.time() + 10_000.0)
            del query, asking
            gc.collect()
            found = [each for each in gc.garbage if type(each).__module__.startswith(("clipper", "tests."))]
            assert found == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    run(tmp_path, FIVE, scenario, cache=True)


def test_queries_are_kept_for_feedback_only_where_it_may_come(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        for ttl_s, kept in [(0.0, 0), (600.0, 1)]:
            application = await desk.application(Selection("single", feedback_ttl_s=ttl_s))
            await desk.answer(application)
            assert len(desk.surroundings.joins) == kept
        _, cancelled = desk.ask(application)
        cancelled.cancel()
        await desk.answer(application, b"o" * 8)
        assert len(desk.surroundings.joins) == 2

    run(tmp_path, FIVE, scenario)


def test_pinned_version_answers_alone(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ENSEMBLE)
        asking = Asking()
        query = application.predict(ROW, asking, desk.loop.time(), version="1")
        await desk.serve_until(lambda: query.done)
        assert asking.answer == ("prediction", b"1", 1.0)
        assert [name for name, rows in desk.models.asked.items() if rows] == ["a"]

    run(tmp_path, FIVE, scenario)


def test_an_own_policy_sees_what_a_query_brings_wherever_it_is_called(tmp_path: Path) -> None:
    """The input stays with the query for its feedback, if the policy says so."""
    seen = (
        "[query.context, None if query.features is None else query.features.tolist(), "
        "None if query.input is None else query.input.tolist()]"
    )
    methods = {
        "init": "self.seen = {}; self.keeps_input = parameters.pop('keeps_input', False)",
        "select": f"self.seen['select'] = {seen}; return Choice(models[:2], (0.5, 0.5))",
        "combine": f"self.seen['combine'] = {seen}; return Combined(b'7', 0.5)",
        "observe": f"self.seen['observe'] = {seen} + [dict(query.outputs), query.label]; return {{}}",
    }

    async def scenario(desk: Desk) -> None:
        policy = own_policy(tmp_path, **methods)
        for keeps_input in (False, True):
            selection = Selection(policy.policy, {"keeps_input": keeps_input}, code=policy.code, features=2)
            application = await desk.application(selection)
            row, features = struct.pack("<3d", 1.0, 2.0, 3.0), struct.pack("<2d", 0.5, 0.25)
            asking = Asking()
            query = application.predict(row, asking, desk.loop.time(), context="ada", features=features)
            await desk.serve_until(lambda query=query: query.done)
            assert await desk.observe(application, on_query(asking.query_id, b"7"))
            brought = ["ada", [0.5, 0.25], [1.0, 2.0, 3.0]]
            found = application.terms.selector.policy.seen  # type: ignore[attr-defined]
            assert found["select"] == found["combine"] == brought
            assert found["observe"] == [*brought[:2], brought[2] if keeps_input else None, {"a": b"1", "b": b"2"}, b"7"]
            # On an input it has all that came with it.
            on_row = Feedback("on-input", row=row, context="bob", label=b"1", features=features)
            assert await desk.observe(application, on_row) == (not keeps_input)
            if not keeps_input:
                assert found["observe"][:3] == ["bob", *brought[1:]]

    run(tmp_path, {"a": b"1", "b": b"2"}, scenario)
