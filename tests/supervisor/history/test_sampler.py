"""The sampler: what workers say and what runs becomes series, without a clock or a socket."""

import math
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clipper.control.messages import GetStatistics
from clipper.control.statistics import NO_MARK, ModelSelectionStatistics, WorkerStatistics
from clipper.supervisor.history.ring import Subject
from clipper.supervisor.history.sampler import (
    MAX_FOLLOWED,
    MAX_LATEST_SERIES,
    MAX_MISSED,
    PER_STEP,
    STEP_S,
    ApplicationFacts,
    Facts,
    ModelFacts,
    ProcessFacts,
    Sampler,
)
from clipper.supervisor.history.values import OF_OVERVIEW, Replicas
from clipper.values.types import ModelId
from tests.supervisor.history.readings import answer, histogram, reading, version_reading

APP, MODEL, WORKER = Subject("application", "app"), Subject("model", "m"), Subject("worker", "0")
NAN = math.nan


def facts(*workers: int, **changes: object) -> Facts:
    found = Facts(
        (ApplicationFacts("app", "app#1", 20.0),),
        (ModelFacts("m", "2", {"2": Replicas(1, 2)}),),
        frozenset(workers or (7,)),
        (),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def said(
    queries: int = 0,
    rows: int = 0,
    version: str = "2",
    limit: int = 8,
    loss: float = 0.0,
    name: str = "app",
    id_: str = "",
) -> WorkerStatistics:
    scored = queries if loss else 0
    app = reading(
        queries,
        name=name,
        latency=(0, 0, 0, queries, 0),
        models={"m": ModelSelectionStatistics(queries, 0, scored, scored * loss)},
        feedback=scored,
        answers_scored=scored,
        answer_loss=scored * loss * 2,
        mark=queries,
        id_=id_,
    )
    batches = histogram(rows)
    one = version_reading(version=version, sent=2 * rows, waits=batches, times=batches, batch_limit=limit, mark=rows)
    return answer([app], [one])


def test_an_overview_has_room_for_all_that_is_followed() -> None:
    sampler = Sampler(0.0, max_series=3)
    run(sampler, {7: said(0)}, {7: said(10)})
    assert {APP, MODEL} & sampler.ring.left_out
    assert sampler.latest.names(APP) == ("default_share", "error_share", "late_share", "p99_ms", "rate")
    assert sampler.latest.names(MODEL) == ("rate", "replicas_ready")
    assert sampler.latest.left_out == frozenset()
    assert MAX_FOLLOWED * sum(len(OF_OVERVIEW[kind]) for kind in ("application", "model")) < MAX_LATEST_SERIES


NOTHING = answer()


def run(sampler: Sampler, *steps: dict[int, WorkerStatistics], first: int = 0, of: Facts | None = None) -> None:
    for step, answers in enumerate(steps, first):
        sampler.take(step * STEP_S + 0.01, of or facts(*answers), answers)


def values(sampler: Sampler, name: str, subject: Subject = APP) -> list[float | None]:
    return [None if math.isnan(one) else round(one, 2) for one in sampler.ring.read(subject, [name], 100)[name]]


def test_the_first_reading_is_where_counting_begins() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(1000)}, {7: said(1020)}, {7: NOTHING}, {7: said(1050)})
    assert values(sampler, "rate") == [None, 10.0, 0.0, 15.0]
    assert values(sampler, "slo_ms") == [20.0] * 4
    assert [one is not None for one in values(sampler, "p99_ms")] == [False, True, False, True]


def test_of_an_application_that_came_since_the_last_step_all_is_counted() -> None:
    """Its first queries may fail, and nobody would see it."""
    sampler, none = Sampler(0.0), facts(7, applications=())
    sampler.take(0.01, none, {7: NOTHING})
    # Pages that are asked for in between know it before the sampler does.
    sampler.forget_former({"app": "app#1"})
    sampler.take(STEP_S + 0.01, facts(7), {7: said(20)})
    assert values(sampler, "rate") == [None, 10.0]
    assert sampler.recent.answers("app").queries == 20
    # From then on it is as any other: a worker that is new to the sampler begins with its first reading.
    sampler.take(2 * STEP_S + 0.01, facts(7, 8), {7: said(20), 8: said(1000)})
    assert sampler.recent.answers("app").queries == 20
    # Of one made again under the name, a worker may still say what it counted of the one before.
    again = facts(7, 8, applications=(ApplicationFacts("app", "app#2", 20.0),))
    sampler.take(3 * STEP_S + 0.01, again, {7: said(30), 8: said(1001)})
    assert sampler.recent.answers("app").queries == 0


def test_of_an_application_that_was_made_again_all_is_counted() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(100, id_="app#1"), 8: said(7, id_="app#1")}, {7: said(120, id_="app#1"), 8: NOTHING})
    again = facts(7, 8, applications=(ApplicationFacts("app", "app#2", 20.0),))
    # Pages that are asked for in between know it before the sampler does; also that it was gone for a moment.
    sampler.forget_former({})
    sampler.forget_former({"app": "app#2"})
    assert sampler.question(7, again).marks[0] == (NO_MARK,)
    # One worker has heard of it, and the other one not yet.
    run(sampler, {7: said(30, id_="app#2"), 8: said(9, id_="app#1")}, first=2, of=again)
    assert sampler.recent.answers("app").queries == 30
    assert values(sampler, "rate")[-1] == 15.0
    run(sampler, {7: said(40, id_="app#2"), 8: said(5, id_="app#2")}, first=3, of=again)
    assert sampler.recent.answers("app").queries == 45
    assert values(sampler, "rate")[-1] == 7.5


def test_of_a_worker_that_was_started_meanwhile_all_is_counted() -> None:
    """A new server is asked before its first sample, and an adopted worker has counted for days."""
    sampler, nobody = Sampler(0.0), facts(workers=frozenset(), applications=(), models=())
    sampler.take(0.01, nobody, {})
    sampler.take(STEP_S + 0.01, facts(7, 8, started=frozenset({7})), {7: said(20), 8: said(10**6)})
    assert sampler.recent.answers("app").queries == 20
    assert values(sampler, "rate") == [None, 10.0]


def test_of_what_a_worker_did_not_have_when_it_was_asked_all_is_counted() -> None:
    """A version is asked nothing before an application links it, and then its first queries may fail."""
    sampler = Sampler(0.0)
    failed = version_reading(0, 6, "boom", version="2")
    run(sampler, {7: NOTHING, 8: NOTHING}, {7: answer([], [failed]), 8: NOTHING})
    assert sampler.recent.rows(ModelId("m", "2")).failed == 6
    # Failures in a worker's first reading do not count: they may have happened at any time.
    sampler = Sampler(0.0)
    run(sampler, {7: answer([], [failed])}, {7: NOTHING})
    assert sampler.recent.rows(ModelId("m", "2")).failed == 0


def test_the_last_minute_goes_on_without_answers_of_workers() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(0)}, {7: said(10)})
    assert sampler.recent.answers("app").queries == 10
    for step in range(2, 40):
        sampler.take(step * STEP_S + 0.01, facts(7), {})
    assert sampler.recent.answers("app").queries == 0


def test_what_is_asked_for_are_the_marks_of_the_last_readings() -> None:
    sampler = Sampler(0.0)
    asked = ("app",), (ModelId("m", "2"),)
    assert sampler.question(7, facts()) == GetStatistics(*asked, ((NO_MARK,), (NO_MARK,)))
    run(sampler, {7: said(5, rows=3)})
    assert sampler.question(7, facts()) == GetStatistics(*asked, ((5,), (3,)))
    assert sampler.question(8, facts()) == GetStatistics(*asked, ((NO_MARK,), (NO_MARK,)))


def test_a_worker_with_nothing_new_to_say_is_asked_as_before() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(5)})
    first = sampler.question(7, facts())
    run(sampler, {7: NOTHING}, first=1)
    # The very same, however often the facts are made anew: nothing is put together for it.
    assert sampler.question(7, facts()) is first
    run(sampler, {7: said(6)}, first=2)
    assert (sampler.question(7, facts()).marks, first.marks) == (((6,), (0,)), ((5,), (0,)))


def test_what_is_kept_of_a_question_is_what_would_be_asked_anew() -> None:
    """Whatever workers say, and whatever comes and goes."""
    random, sampler = Random(5), Sampler(0.0)
    for step in range(300):
        names, versions = random.sample("abc", random.randrange(4)), random.sample("12", random.randrange(3))
        now = Facts(
            tuple(ApplicationFacts(name, f"{name}#1", 20.0) for name in sorted(names)),
            (ModelFacts("m", "1", {version: Replicas(1, 1) for version in sorted(versions)}),),
            frozenset({7, 8}),
            (),
        )
        for _ in range(random.randrange(3)):
            answers = {
                instance: answer(
                    [said(step, name=name).applications[0] for name in names if random.random() < 0.3],
                    [said(rows=step, version=one).versions[0] for one in versions if random.random() < 0.3],
                )
                for instance in random.sample([7, 8], random.randrange(3))
            }
            kept = [sampler.question(instance, now) for instance in (7, 8)]
            sampler._facts, sampler._asked = None, ((), (ModelId("never", "asked"),))
            assert kept == [sampler.question(instance, now) for instance in (7, 8)]
            sampler.take(step * STEP_S + 0.01, now, answers)
            sampler.forget_former({name: f"{name}#{random.choice('12')}" for name in names})


def test_workers_are_summed() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(10), 8: said(0)}, {7: said(20), 8: said(30)})
    assert values(sampler, "rate") == [None, 20.0]


def test_a_worker_that_was_started_again_is_no_negative_rate() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(100)}, {7: said(110)}, {8: said(3)}, {8: said(13)})
    assert values(sampler, "rate") == [None, 5.0, None, 5.0]


def test_counts_that_fell_began_at_0() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(100)}, {7: said(4)})
    assert values(sampler, "rate") == [None, 2.0]


def test_a_worker_that_misses_a_step_leaves_a_gap_and_loses_nothing() -> None:
    sampler = Sampler(0.0)
    both = facts(7, 8)
    run(sampler, {7: said(0), 8: said(0)}, {7: said(10)}, {7: said(20), 8: said(20)}, of=both)
    assert values(sampler, "rate") == [None, None, 10.0]
    assert values(sampler, "replicas_ready", MODEL) == [1.0] * 3


def test_without_a_worker_that_stays_away_the_others_go_on() -> None:
    sampler = Sampler(0.0)
    both, count = facts(7, 8), MAX_MISSED + 3
    run(sampler, {7: said(0), 8: said(0)}, *({7: said(10 * step)} for step in range(1, count)), of=both)
    assert values(sampler, "rate") == [None, *[None] * MAX_MISSED, 5.0, 5.0]
    run(sampler, {7: said(10 * count), 8: said(10**6)}, first=count, of=both)
    assert values(sampler, "rate")[-1] == 5.0
    # The queries of its absence are no rate of this step, but count, since they may have failed.
    assert sampler.recent.answers("app").queries == 10 * count + 10**6


def test_late_steps_are_gaps_and_a_step_has_one_sample() -> None:
    sampler = Sampler(0.0)
    assert sampler.due_s() == 0.0
    run(sampler, {7: said(0)})
    assert sampler.due_s() == STEP_S
    sampler.take(1.9, facts(), {7: said(500)})
    sampler.take(3 * STEP_S, facts(), {7: said(60)})
    assert values(sampler, "rate") == [None, None, None, 10.02]
    assert sampler.due_s() == 4 * STEP_S


def test_no_worker_is_a_gap() -> None:
    sampler = Sampler(0.0)
    nobody = facts(workers=frozenset())
    run(sampler, {7: said(0)})
    sampler.take(STEP_S, nobody, {})
    assert values(sampler, "rate") == [None, None]
    assert values(sampler, "replicas_wanted", MODEL) == [2.0, 2.0]


def test_an_application_that_was_made_again_begins_anew() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(0, loss=0.5)}, {7: said(10, loss=0.5)})
    assert values(sampler, "regret") == [None, 5.0]
    again = facts(applications=(ApplicationFacts("app", "app#2", 30.0),))
    sampler.take(2 * STEP_S, again, {7: said(1)})
    assert values(sampler, "slo_ms") == [None, None, 30.0]
    assert values(sampler, "regret") == [None] * 3
    sampler.take(3 * STEP_S, facts(applications=(), models=()), {7: NOTHING})
    assert sampler.ring.names(APP) == sampler.ring.names(MODEL) == ()
    assert sampler.question(7, facts()).marks == ((NO_MARK,), (NO_MARK,))


def test_before_the_next_sample_nothing_of_an_earlier_application_is_seen() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(0)}, {7: said(10)})
    sampler.forget_former({"app": "app#1"})
    assert values(sampler, "rate") == [None, 5.0]
    sampler.forget_former({"app": "app#2"})
    assert values(sampler, "rate") == [None, None] and sampler.latest.names(APP) == ()
    again = facts(applications=(ApplicationFacts("app", "app#2", 30.0),))
    sampler.take(2 * STEP_S, again, {7: said(1)})
    assert values(sampler, "slo_ms") == [None, None, 30.0]
    sampler.take(3 * STEP_S, again, {7: said(9)})
    assert values(sampler, "rate") == [None, None, None, 4.0]


def test_regret_goes_on_while_nothing_is_scored() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(0, loss=0.5)}, {7: said(10, loss=0.5)}, {7: NOTHING}, {7: said(20, loss=0.5)})
    assert values(sampler, "regret") == [None, 5.0, 5.0, 10.0]
    assert values(sampler, "mean_loss.m") == [None, 0.5, None, 0.5]


def test_a_model_with_two_versions_has_the_series_of_each() -> None:
    sampler = Sampler(0.0)
    two = facts(models=(ModelFacts("m", "2", {"1": Replicas(1, 1), "2": Replicas(2, 3)}),))
    for step in range(2):
        found = answer((), said(rows=5 * step, limit=4).versions + said(rows=step, version="1", limit=2).versions)
        sampler.take(step * STEP_S, two, {7: found})
    assert values(sampler, "rate", MODEL) == [None, 6.0]
    assert values(sampler, "rate.1", MODEL) == [None, 1.0]
    assert values(sampler, "rate.2", MODEL) == [None, 5.0]
    assert values(sampler, "batch_limit", MODEL) == [None, 4.0]
    assert values(sampler, "batch_limit.1", MODEL) == [None, 2.0]
    assert values(sampler, "replicas_ready", MODEL) == [3.0, 3.0]
    assert values(sampler, "replicas_wanted.2", MODEL) == [None, 3.0]
    sampler.take(2 * STEP_S, two, {7: answer((), said(rows=20, limit=4).versions)})
    assert values(sampler, "rate", MODEL)[-1] == 15.0
    assert values(sampler, "rate.2", MODEL)[-1] is None  # as no version but the current one is asked
    assert values(sampler, "batch_size", MODEL)[1] == 2.0


def test_the_batch_limit_is_the_smallest_over_the_workers_and_stays() -> None:
    sampler = Sampler(0.0)
    run(sampler, {7: said(limit=8), 8: said(limit=5)}, {7: NOTHING, 8: NOTHING}, {7: NOTHING, 8: said(rows=1, limit=0)})
    assert values(sampler, "batch_limit", MODEL) == [None, 5.0, 8.0]
    run(sampler, {7: said(limit=8), 8: said(limit=5)}, first=3)
    assert sampler.batch_limits(ModelId("m", "2")) == {"m#1": 5} and sampler.batch_limits(ModelId("m", "9")) == {}


def test_a_workers_processor_time_and_memory() -> None:
    sampler = Sampler(0.0)
    looks = ((ProcessFacts(0, 40, 5.0, 10),), (ProcessFacts(0, 40, 6.0, 20),), (), (ProcessFacts(0, 41, 0.1, 5),))
    for step, processes in enumerate(looks):
        sampler.take(step * STEP_S, facts(processes=processes), {7: NOTHING})
    assert values(sampler, "cpu_share", WORKER) == [None, 0.5, None, None]
    assert values(sampler, "rss_bytes", WORKER) == [10, 20, None, 5]


def test_beyond_the_bound_applications_and_models_are_left_out() -> None:
    sampler = Sampler(0.0)
    many = facts(
        applications=tuple(ApplicationFacts(f"{'a' * 58}{number}", "", 20.0) for number in range(MAX_FOLLOWED + 2)),
        models=tuple(ModelFacts(f"{'m' * 58}{number}", None, {}) for number in range(MAX_FOLLOWED + 1)),
    )
    sampler.take(0.0, many, {7: NOTHING})
    asked: set[str] = set()
    for step in range(1, 9):
        question = sampler.question(7, many)
        assert question.applications is not None and len(question.applications) <= PER_STEP
        assert question.versions == ()
        asked |= {*question.applications}
        sampler.take(step * STEP_S, many, {7: NOTHING})
    assert asked == {one.name for one in many.applications[:MAX_FOLLOWED]}
    assert len(sampler.ring.left_out) == 3
    assert Subject("model", many.models[-1].name) in sampler.ring.left_out


def test_those_that_take_turns_have_values_of_all_steps_between() -> None:
    sampler, count = Sampler(0.0), PER_STEP + 1
    two_turns = facts(applications=tuple(ApplicationFacts(f"app{number}", "", 20.0) for number in range(count)))
    for step in range(5):
        asked = sampler.question(7, two_turns).applications or ()
        assert set(asked) == {f"app{number}" for number in range(step % 2, count, 2)}
        found = answer([said(20 * step, name=name).applications[0] for name in asked])
        sampler.take(step * STEP_S, two_turns, {7: found})
    assert values(sampler, "rate", Subject("application", "app0")) == [None, 10.0, 10.0, 10.0, 10.0]
    assert values(sampler, "rate", Subject("application", "app1")) == [None, None, 10.0, 10.0, None]


@given(
    st.lists(
        st.tuples(st.floats(0.0, 9.0), st.dictionaries(st.integers(1, 3), st.integers(0, 100), max_size=3)),
        max_size=30,
    )
)
def test_whatever_workers_say_rates_are_no_less_than_0(steps: list[tuple[float, dict[int, int]]]) -> None:
    sampler, now_s = Sampler(0.0), 0.0
    for passed_s, counts in steps:
        now_s += passed_s
        answers = {instance: said(count, rows=count) for instance, count in counts.items()}
        sampler.take(now_s, facts(*(counts or {1: 0})), answers)
    for name in ("rate", "p50_ms", "p99_ms", "late_share", "default_share", "answer_share.m"):
        assert all(value is None or value >= 0 for value in values(sampler, name))
