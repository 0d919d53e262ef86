"""Sums over workers that start, end, hang, are taken over, and count anew."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipper.control.statistics import HistogramData, LimitStatistics, ReplicaStatistics
from clipper.supervisor.metrics.totals import Totals, links, replica_name
from tests.example_counts import share_of

NOTHING = HistogramData((), 0.0)
KEYS = ("a", "b")


def refused(number: int, in_flight: int = 0) -> LimitStatistics:
    return LimitStatistics("key", "a", in_flight, number)


def totals(**identities: object) -> "Totals[str, LimitStatistics]":
    found: Totals[str, LimitStatistics] = Totals(LimitStatistics, lambda limit: limit.refused > 0)
    found.keep_things(identities or {"a": 1})
    return found


def tell(sums: "Totals[str, LimitStatistics]", instance: int, number: int, in_flight: int = 0) -> None:
    sums.take(instance, False, {"a": refused(number, in_flight)})


def test_an_ended_workers_counts_stay_and_its_queries_in_flight_do_not() -> None:
    sums = totals()
    tell(sums, 1, 5, 2)
    tell(sums, 2, 7, 1)
    assert sums.total("a") == refused(12, 3)
    sums.keep_workers({1, 2}, {2})
    assert sums.total("a") == refused(12, 1), "1 is down"
    sums.keep_workers({1, 2}, {1, 2})
    tell(sums, 1, 6, 1)
    assert sums.total("a") == refused(13, 2), "1 is up again"
    sums.keep_workers({2, 3}, {2, 3})
    assert sums.total("a") == refused(13, 1)
    tell(sums, 3, 1)
    assert sums.total("a") == refused(14, 1)


def test_a_thing_that_a_worker_has_no_more_keeps_its_counts() -> None:
    sums = totals()
    tell(sums, 1, 5, 2)
    sums.lose(1, ["a", "b"])
    assert (sums.total("a"), sums.total("b")) == (refused(5), None)
    tell(sums, 1, 6, 1)
    assert sums.total("a") == refused(6, 1)
    sums.lose(1, ["a"])
    tell(sums, 1, 1)
    assert sums.total("a") == refused(7), "it was made anew"


def test_counts_that_begin_anew_in_the_same_worker_go_on() -> None:
    sums = totals()
    for number, expected in ((5, 5), (3, 8), (3, 8), (4, 9), (0, 9), (1, 10)):
        tell(sums, 1, number)
        assert sums.total("a") == refused(expected)


def test_counts_of_an_adopted_worker_begin_when_it_is_first_seen() -> None:
    sums = totals()
    for number, expected in ((0, 0), (4, 4), (6, 6)):
        sums.take(1, True, {"a": refused(number)})
        sums.take(2, True, {"a": refused(number + 1000)})
        assert sums.total("a") == refused(2 * expected)
    sums.keep_workers((), ())
    assert sums.total("a") == refused(12)


def test_another_thing_of_the_same_name_begins_at_0() -> None:
    sums = totals(a=1, b=1)
    for key in ("a", "b"):
        sums.take(1, False, {key: refused(5)})
        sums.take(2, False, {key: refused(5)})
    sums.keep_workers({1}, {1})
    sums.changed.clear()
    sums.keep_things({"a": 2, "b": 1})
    assert sums.total("a") is None and sums.total("b") == refused(10)
    assert sums.changed == {"a"}
    sums.take(1, False, {"a": refused(1), "never created": refused(9)})
    assert sums.total("a") == refused(1)
    assert sums.total("never created") is None


def test_equal_readings_of_workers_take_the_memory_of_one() -> None:
    sums = totals()
    for instance in range(64):
        tell(sums, instance, 5)
    assert len({id(last["a"]) for last in sums._last.values()}) == 1


class Story(RuleBasedStateMachine):
    """Whatever workers do, and whatever scrapes miss, no sum falls, and none is more than what was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = totals(a=1, b=1)
        self.workers = {1: dict.fromkeys(KEYS, 0)}
        self.next = 2
        self.counted = dict.fromkeys(KEYS, 0)
        self.shown = dict.fromkeys(KEYS, 0)

    @rule(key=st.sampled_from(KEYS), more=st.integers(1, 9), data=st.data())
    def count(self, key: str, more: int, data: st.DataObject) -> None:
        self.workers[data.draw(st.sampled_from(sorted(self.workers)))][key] += more
        self.counted[key] += more

    @rule()
    def start(self) -> None:
        self.workers[self.next] = dict.fromkeys(KEYS, 0)
        self.next += 1

    @rule(data=st.data(), key=st.sampled_from((*KEYS, "all")))
    def restart(self, data: st.DataObject, key: str) -> None:
        instance = data.draw(st.sampled_from(sorted(self.workers)))
        if key == "all":
            del self.workers[instance]
            self.workers[self.next] = dict.fromkeys(KEYS, 0)
            self.next += 1
        else:
            self.workers[instance][key] = 0

    @rule(data=st.data(), keys=st.sets(st.sampled_from(KEYS)))
    def scrape(self, data: st.DataObject, keys: set[str]) -> None:
        answering = data.draw(st.sets(st.sampled_from(sorted(self.workers))))
        self.sums.keep_workers(self.workers.keys(), self.workers.keys())
        for one in answering:
            self.sums.take(one, False, {key: refused(self.workers[one][key]) for key in keys})
        for key in KEYS:
            found = self.sums.total(key)
            now = 0 if found is None else found.refused
            assert self.shown[key] <= now <= self.counted[key]
            self.shown[key] = now

    @invariant()
    def nothing_is_invented(self) -> None:
        assert all(self.shown[key] <= self.counted[key] for key in KEYS)


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=share_of(40), stateful_step_count=30)


def test_connections_are_by_the_replicas_names() -> None:
    told = (
        ReplicaStatistics("m:2#1.g7", "m", "2", "linked", 64, 2, 40, None),
        ReplicaStatistics("m:2#1.g6", "m", "2", "draining", 8, 1, 9, "lost"),
        ReplicaStatistics("m:2#2.g8", "m", "2", "dialing", 0, 0, 0, None),
    )
    found = links(told)
    assert [(name, one.batches, one.states) for name, one in found.items()] == [
        ("m:2#1", 40, {"linked": 1}), ("m:2#2", 0, {"dialing": 1})
    ]  # fmt: skip
    assert (replica_name("m:2#1.g7"), replica_name("m:1.g5#12")) == ("m:2#1", "m:1.g5#12")
