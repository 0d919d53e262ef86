"""Statistics of several workers, added up field by field."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.descriptions import Standing
from clipper.control.statistics import (
    MAX_FORMER_MODELS,
    ApplicationStatistics,
    HistogramData,
    ModelSelectionStatistics,
    SelectionStatistics,
    VersionStatistics,
)
from clipper.supervisor.metrics.totals import Totals, counted, has_fallen, increase, negative, total

COUNTS = st.integers(0, 2**53)


def histograms(bounds: int) -> st.SearchStrategy[HistogramData]:
    return st.builds(HistogramData, st.tuples(*[COUNTS] * bounds), st.integers(0, 1000).map(float))


def by_name(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from("abc"), values)


LOSSES = st.integers(0, 1000).map(float)  # sums of these are exact
MODELS = st.builds(ModelSelectionStatistics, COUNTS, COUNTS, COUNTS, LOSSES, st.none() | LOSSES)
SELECTIONS = st.builds(
    SelectionStatistics, by_name(MODELS), histograms(3), by_name(COUNTS), COUNTS, LOSSES, COUNTS, COUNTS, st.none(),
    by_name(LOSSES), st.none() | LOSSES, by_name(COUNTS), st.none(),
)  # fmt: skip
TESTS = st.builds(Standing, st.none() | st.just("m"), LOSSES, LOSSES, LOSSES)
APPLICATIONS = st.builds(
    ApplicationStatistics, st.just("app"), COUNTS, by_name(COUNTS), by_name(COUNTS), COUNTS, histograms(4),
    st.none() | SELECTIONS, st.none() | TESTS,
)  # fmt: skip
VERSIONS = st.builds(
    VersionStatistics, st.just("m"), st.just("1"), *[COUNTS] * 9, *[histograms(size) for size in (4, 2, 4)]
)
ANY = APPLICATIONS | VERSIONS


def numbers(one: object, *, only_counts: bool = True) -> int:
    """The sum of all integers in it."""
    kinds = (int,) if only_counts else (int, float)
    if isinstance(one, msgspec.Struct):
        return numbers(list(msgspec.structs.astuple(one)))
    if isinstance(one, dict):
        return numbers(list(one.values()))
    if isinstance(one, list | tuple):
        return sum(map(numbers, one))
    return int(one) if isinstance(one, kinds) and not isinstance(one, float) else 0


@given(st.lists(APPLICATIONS, min_size=1, max_size=4))
def test_every_count_is_in_the_sum(parts: list[ApplicationStatistics]) -> None:
    assert numbers(total(parts)) == sum(map(numbers, parts))


@given(st.lists(VERSIONS, min_size=1, max_size=4))
def test_so_it_is_of_versions(parts: list[VersionStatistics]) -> None:
    found = total(parts)
    assert numbers(found) == sum(map(numbers, parts))
    assert (found.model, found.version) == ("m", "1")
    assert found.batch_size.counts == tuple(map(sum, zip(*(one.batch_size.counts for one in parts))))


@given(APPLICATIONS)
def test_what_is_taken_away_again_leaves_no_count(one: ApplicationStatistics) -> None:
    assert numbers(total([counted(one), negative(one)])) == 0


@given(st.lists(APPLICATIONS, min_size=2, max_size=2))
def test_a_sum_has_not_fallen_from_its_parts_and_a_part_has_from_the_sum(parts: list[ApplicationStatistics]) -> None:
    both = total(parts)
    assert not has_fallen(parts[0], both) and not has_fallen(parts[1], both)
    assert has_fallen(both, parts[0]) == (numbers(counted(parts[1])) > 0 or _lacks(both, parts[0]))


def _lacks(before: ApplicationStatistics, now: ApplicationStatistics) -> bool:
    """Whether a name, or all of selection, is there no more."""

    def names(one: ApplicationStatistics) -> list[set[str]]:
        of = one.selection
        mine = [set(one.defaults), set(one.errors), {"selection"} if of else set()]
        return mine + ([set(of.feedback), set(of.answer_loss_by_reason), set(of.stages)] if of else [set()] * 3)

    return any(there - left for there, left in zip(names(before), names(now)))


def test_what_cannot_be_summed() -> None:
    def application(cost: float | None, error: float | None, test: Standing | None) -> ApplicationStatistics:
        models = {"m": ModelSelectionStatistics(1, 0, 0, 0.0, cost)}
        of = SelectionStatistics(models, HistogramData((), 0.0), {}, 0, 0.0, 5, 0, None, calibration_error=error)
        return ApplicationStatistics("app", 1, {}, {}, 0, HistogramData((), 0.0), of, test)

    early, late = Standing(None, 0.5, 0.1, 10.0), Standing("m", 0.99, 0.1, 400.0)
    found = total([application(2.0, 0.25, early), application(None, None, None), application(4.0, 0.75, late)])
    assert found.selection is not None and found.selection.models["m"].cost == 3.0, "each measures it for itself"
    assert found.selection.calibration_error == 0.5 and found.selection.contexts == 15
    assert found.test == late, "who knows most of the one test over all workers"
    more = Standing(None, 0.9, 0.1, 410.0)
    for tests in ((late, more), (more, late)):
        assert total([application(None, None, test) for test in tests]).test == late, (
            "others will hear that it has ended"
        )
    ended = counted(found)
    assert ended.selection is not None and (ended.test, ended.selection.contexts) == (None, 0)
    assert (ended.selection.models["m"].cost, ended.selection.models["m"].selected) == (None, 3)


@given(ANY, ANY)
def test_no_count_of_an_increase_is_below_0(before: Any, now: Any) -> None:
    if type(before) is type(now):
        found = increase(before, now)
        assert smallest(found) >= 0
        assert increase(None, now) is now and numbers(counted(increase(now, now))) == 0


@given(st.lists(VERSIONS, min_size=2, max_size=2) | st.lists(APPLICATIONS, min_size=2, max_size=2))
def test_what_was_counted_on_top_is_the_increase(parts: list[Any]) -> None:
    before, more = parts
    assert numbers(counted(increase(before, total([before, more])))) == numbers(counted(more))


def smallest(one: object) -> int:
    """The smallest integer in it, or 0."""
    if isinstance(one, msgspec.Struct):
        return smallest(list(msgspec.structs.astuple(one)))
    if isinstance(one, dict):
        return smallest(list(one.values()))
    if isinstance(one, list | tuple):
        return min(map(smallest, one), default=0)
    return one if isinstance(one, int) else 0


def test_an_application_that_was_made_anew_counts_from_0() -> None:
    before = ApplicationStatistics("app", 10, {"timeout": 3}, {}, 0, HistogramData((10,), 0.0))
    # More queries than before, and yet another: a reason has disappeared.
    now = ApplicationStatistics("app", 11, {}, {}, 0, HistogramData((11,), 0.0))
    assert increase(before, now) == now


def of_models(*names: str) -> ApplicationStatistics:
    """Statistics of an application that has asked each of these models once."""
    models = {name: ModelSelectionStatistics(1, 0, 0, 0.0) for name in names}
    of = SelectionStatistics(models, HistogramData((), 0.0), {}, 0, 0.0, 0, 0, None)
    return ApplicationStatistics("app", len(names), {}, {}, 0, HistogramData((), 0.0), of)


def test_a_former_models_counts_may_go_while_others_stay() -> None:
    """Workers forget the oldest of many former models, which is no reason to count all else anew."""
    sums: Totals[str, ApplicationStatistics] = Totals(ApplicationStatistics, lambda _: True)
    sums.keep_things({"app": 1})
    for names in (("a", "b"), ("b", "c", "d")):
        sums.take(1, False, {"app": of_models(*names)})
    found = sums.total("app")
    assert found is not None and found.selection is not None
    assert (found.queries, set(found.selection.models)) == (3, {"b", "c", "d"})


def test_former_models_of_ended_workers_are_bounded() -> None:
    sums: Totals[str, ApplicationStatistics] = Totals(ApplicationStatistics, lambda _: True)
    sums.keep_things({"app": 1})
    for number in range(3 * MAX_FORMER_MODELS):
        sums.take(number, False, {"app": of_models("m", f"m:{number}")})
        sums.keep_workers({number}, {number})
    sums.keep_workers((), ())
    found = sums.total("app")
    assert found is not None and found.selection is not None and found.queries == 6 * MAX_FORMER_MODELS
    assert found.selection.models["m"].selected == 3 * MAX_FORMER_MODELS
    kept = range(2 * MAX_FORMER_MODELS - 1, 3 * MAX_FORMER_MODELS)
    assert list(found.selection.models) == ["m", *(f"m:{number}" for number in kept)]


def test_present_values_are_those_of_now_and_follow_their_own_rules() -> None:
    data = HistogramData((1,), 1.0)
    first = VersionStatistics("m", "1", *(1,) * 9, data, data, data, 5, 0.2, {"a": 8, "b": 2}, {"a": 40.0}, "", 7)
    second = msgspec.structs.replace(
        first, slo_s=0.1, batch_limits={"a": 4, "c": 1}, rows_per_s={"a": 50.0}, last_error="boom"
    )
    now = increase(first, second)
    assert (now.slo_s, now.batch_limits, now.last_error, now.mark) == (0.1, {"a": 4, "c": 1}, "boom", 7)
    both = total([first, second])
    assert (both.slo_s, both.batch_limits, both.rows_per_s) == (0.1, {"a": 4, "b": 2, "c": 1}, {"a": 50.0})
    assert (both.arrivals, both.last_error) == (10, "boom")


class Odd(msgspec.Struct, frozen=True):
    number: int | None = None
    text: str | None = None
    part: HistogramData | None = None


def test_what_some_workers_do_not_tell_is_summed_over_the_others() -> None:
    data = HistogramData((1, 2), 3.0)
    found = total([Odd(), Odd(2, "a", data), Odd(3), Odd(None, "b", data)])
    assert found == Odd(5, "a", HistogramData((2, 4), 6.0))
    assert total([Odd(), Odd()]) == Odd()
