"""Which idle connection gives way: decisions over connections that are no more than a time."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.frontend.http.giving_way import LOOKED_AT_FOR_EACH, SORTED_AT_ONCE, GivingWay, slow_from_s


@dataclass(eq=False)
class Connection:
    gives_way_from_s: float | None


def giving_way_of(members: list[Connection]) -> GivingWay[Connection]:
    return GivingWay(members, lambda member: member.gives_way_from_s)


TIMES = st.none() | st.floats(0, 100)


@given(st.lists(TIMES, max_size=30), st.floats(0, 100))
def test_all_whose_time_has_come_go_in_order_and_no_others(times: list[float | None], now_s: float) -> None:
    members = [Connection(time_s) for time_s in times]
    giving_way = giving_way_of(members)
    gone = []
    for sweep in range(len(members)):
        giving_way.look(sweep, now_s)
        if (one := giving_way.next(now_s)) is not None:
            members.remove(one)
            gone.append(one.gives_way_from_s)
    assert gone == sorted(time_s for time_s in times if time_s is not None and time_s <= now_s)


@given(st.lists(TIMES, max_size=30))
def test_when_the_next_gives_way_is_known(times: list[float | None]) -> None:
    giving_way = giving_way_of([Connection(time_s) for time_s in times])
    giving_way.look(0, -1.0)
    assert giving_way.next_s == min((time_s for time_s in times if time_s is not None), default=float("inf"))


def test_one_that_has_asked_since_they_were_sorted_stays() -> None:
    members = [Connection(float(number)) for number in range(3)]
    giving_way = giving_way_of(members)
    giving_way.look(0, 10.0)
    assert giving_way.next(10.0) is members[0]
    members[1].gives_way_from_s = None
    members[2].gives_way_from_s = 11.0
    assert giving_way.next(10.0) is None


def test_one_whose_time_comes_later_keeps_its_turn() -> None:
    members = [Connection(5.0), Connection(6.0)]
    giving_way = giving_way_of(members)
    giving_way.look(0, 4.0)
    assert giving_way.next(4.0) is None
    giving_way.look(0, 5.0)
    assert giving_way.next(5.0) is members[0]
    # One that came since the last second is known in the next.
    members.append(Connection(2.0))
    giving_way.look(1, 5.0)
    assert giving_way.next(5.0) is members[2]


def test_they_are_not_sorted_for_each_that_comes() -> None:
    looks = 0

    class Busy(Connection):
        def __init__(self) -> None:
            pass

        @property
        def gives_way_from_s(self) -> float | None:  # type: ignore[override]
            nonlocal looks
            looks += 1
            return None

    members: list[Connection] = [Busy() for _ in range(320)]
    giving_way = giving_way_of(members)
    for _ in range(100):
        giving_way.look(7, 1.0)
        assert giving_way.next(1.0) is None
    assert looks <= 100 * LOOKED_AT_FOR_EACH + len(members)
    before = looks
    giving_way.look(8, 1.0)
    assert looks == before + len(members)


@given(after_s=st.floats(0.0, 1e4))
def test_a_request_on_a_slow_line_is_never_slow_and_one_that_trickles_is(after_s: float) -> None:
    assert slow_from_s(100.0, int(40e3 * after_s)) > 100.0 + after_s, "320 kbit/s is enough"
    assert slow_from_s(100.0, int(3e3 * after_s)) <= 100.0 + max(after_s, 1.6), "a tenth of it is not"


def test_of_very_many_only_a_part_is_sorted_with_one_that_gives_way() -> None:
    count = 2 * SORTED_AT_ONCE + 10
    # Those that were made first ask, and others have just begun.
    members = [Connection(None if number < SORTED_AT_ONCE else float(number % 7)) for number in range(count)]
    giving_way, gone = giving_way_of(members), 0
    for sweep in range(count):
        giving_way.look(sweep, 3.0)
        if (one := giving_way.next(3.0)) is None:
            break
        gone += 1
        one.gives_way_from_s = None
    assert gone == sum(number % 7 <= 3 for number in range(SORTED_AT_ONCE, count))
