"""Statistics of several workers, added up field by field."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.statistics import (
    ApplicationStatistics,
    HistogramData,
    ModelSelectionStatistics,
    SelectionStatistics,
    StandingStatistics,
    VersionStatistics,
)
from clipper.metrics.sums import counted, has_fallen, negative, total

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
TESTS = st.builds(StandingStatistics, st.none() | st.just("m"), LOSSES, LOSSES, LOSSES)
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
        return mine + (
            [set(of.models), set(of.feedback), set(of.answer_loss_by_reason), set(of.stages)] if of else [set()] * 4
        )

    return any(there - left for there, left in zip(names(before), names(now)))


def test_what_cannot_be_summed() -> None:
    def application(cost: float | None, error: float | None, test: StandingStatistics | None) -> ApplicationStatistics:
        models = {"m": ModelSelectionStatistics(1, 0, 0, 0.0, cost)}
        of = SelectionStatistics(models, HistogramData((), 0.0), {}, 0, 0.0, 5, 0, None, calibration_error=error)
        return ApplicationStatistics("app", 1, {}, {}, 0, HistogramData((), 0.0), of, test)

    early, late = StandingStatistics(None, 0.5, 0.1, 10.0), StandingStatistics("m", 0.99, 0.1, 400.0)
    found = total([application(2.0, 0.25, early), application(None, None, None), application(4.0, 0.75, late)])
    assert found.selection is not None and found.selection.models["m"].cost == 3.0, "each measures it for itself"
    assert found.selection.calibration_error == 0.5 and found.selection.contexts == 15
    assert found.test == late, "who knows most of the one test over all workers"
    more = StandingStatistics(None, 0.9, 0.1, 410.0)
    for tests in ((late, more), (more, late)):
        assert total([application(None, None, test) for test in tests]).test == late, (
            "others will hear that it has ended"
        )
    ended = counted(found)
    assert ended.selection is not None and (ended.test, ended.selection.contexts) == (None, 0)
    assert (ended.selection.models["m"].cost, ended.selection.models["m"].selected) == (None, 3)


class Odd(msgspec.Struct, frozen=True):
    number: int | None = None
    text: str | None = None
    part: HistogramData | None = None


def test_what_some_workers_do_not_tell_is_summed_over_the_others() -> None:
    data = HistogramData((1, 2), 3.0)
    found = total([Odd(), Odd(2, "a", data), Odd(3), Odd(None, "b", data)])
    assert found == Odd(5, "a", HistogramData((2, 4), 6.0))
    assert total([Odd(), Odd()]) == Odd()
