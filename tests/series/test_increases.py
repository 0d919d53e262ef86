"""Differences and sums of readings."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.control.statistics import ApplicationReading, ModelReading, VersionLoad, VersionReading
from clipper.series.increases import (
    application_increase,
    sum_of_applications,
    sum_of_versions,
    version_increase,
)

count = st.integers(0, 50)
loss = st.integers(-20, 20).map(lambda value: value / 4)
counts = st.dictionaries(st.sampled_from(["timeout", "no_replica", "failed"]), count)
models = st.dictionaries(st.sampled_from(["a", "b", "a:1"]), st.builds(ModelReading, count, count, count, loss))
applications = st.builds(
    ApplicationReading,
    st.just("app"),
    count,
    count,
    count,
    counts,
    counts,
    st.tuples(count, count, count),
    models,
    st.tuples(count, count),
    st.just(1.0),
    count,
    count,
    loss,
)
versions = st.builds(VersionReading, st.just("m"), st.just("1"), *[count] * 9, st.integers(0, 3), count, count)


def numbers(reading: ApplicationReading) -> list[float]:
    each = [(one.selected, one.missing, one.scored) for one in reading.models.values()]
    found = [reading.queries, reading.slo_misses, reading.feedback, reading.answers_scored]
    found += [*reading.latency, *reading.confidence, *reading.defaults.values(), *reading.errors.values()]
    return [*found, *(number for one in each for number in one)]


@given(applications, applications)
def test_no_increase_is_below_0(before: ApplicationReading, now: ApplicationReading) -> None:
    assert min(numbers(application_increase(before, now))) >= 0


@given(applications, applications)
def test_what_was_counted_on_top_is_the_increase(before: ApplicationReading, more: ApplicationReading) -> None:
    now = sum_of_applications([before, more])
    assert now is not None
    increase = application_increase(before, now)
    assert (increase.queries, increase.latency, increase.answer_loss) == (more.queries, more.latency, more.answer_loss)
    for name in now.models:
        expected = more.models.get(name, ModelReading(0, 0, 0, 0.0))
        assert increase.models[name] == expected
    for reason in now.defaults:
        assert increase.defaults[reason] == more.defaults.get(reason, 0)


@given(applications)
def test_without_a_reading_before_all_counts(now: ApplicationReading) -> None:
    assert application_increase(None, now) is now


@given(versions, versions)
def test_no_increase_of_a_version_is_below_0(before: VersionReading, now: VersionReading) -> None:
    increase = version_increase(before, now)
    assert min(increase.rows, increase.batches_sent, increase.wait_s, increase.cache_misses) >= 0
    assert increase.batch_limit == now.batch_limit


@given(st.lists(versions, min_size=1, max_size=4))
def test_the_sum_of_versions_has_the_sum_of_each_count(found: list[VersionReading]) -> None:
    total = sum_of_versions(found)
    assert total is not None
    assert total.rows == sum(one.rows for one in found)
    assert total.service_s == sum(one.service_s for one in found)
    assert (total.model, total.batch_limit) == (found[0].model, found[0].batch_limit)


def test_each_number_of_a_version_is_a_count_or_is_so_at_present() -> None:
    """A field that is added has to be on one of the two sides."""
    one = VersionReading("m", "1", 9, 1, 2, 3.0, 4, 5.0, 6, 7, 8, 32)
    assert version_increase(one, one) == VersionReading("m", "1", 9, 0, 0, 0.0, 0, 0.0, 0, 0, 0, 32)
    assert sum_of_versions([one, one]) == VersionReading("m", "1", 9, 2, 4, 6.0, 8, 10.0, 12, 14, 16, 32)
    load = VersionLoad("m", "1", 1, 2, 3, 4.0, 5, 6.0, 0.1, {"a": 7.0})
    assert version_increase(load, load) == VersionLoad("m", "1", 0, 0, 0, 0.0, 0, 0.0, 0.1, {"a": 7.0})
    assert sum_of_versions([load, load]) == VersionLoad("m", "1", 2, 4, 6, 8.0, 10, 12.0, 0.1, {"a": 7.0})


def test_the_sum_of_nothing_is_nothing() -> None:
    assert sum_of_versions([]) is None
    assert sum_of_applications([]) is None


def test_an_application_that_was_made_anew_counts_from_0() -> None:
    before = ApplicationReading("app", 1, 10, 0, {"timeout": 3}, {}, (10,), {}, (0,), 0.0, 0, 0, 0.0)
    # More queries than before, and yet another: a reason has disappeared.
    now = ApplicationReading("app", 2, 11, 0, {}, {}, (11,), {}, (0,), 0.0, 0, 0, 0.0)
    assert application_increase(before, now) == now
