"""The event log in memory: numbers, bounds, floods, and what is found."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.api.events import Event
from clipper.supervisor.history.event_log import (
    BURST,
    MAX_EVENTS,
    MAX_MESSAGE,
    MAX_WINDOWS,
    WINDOW_S,
    EventLog,
    NewEvent,
)


def event(number: int = 0, kind: str = "restart", subject: str = "model m") -> NewEvent:
    return NewEvent(kind, subject, f"event {number}", "1")  # type: ignore[arg-type]


def spread(log: EventLog, count: int) -> None:
    """Add events that are no flood."""
    for number in range(count):
        log.add(event(number, subject=f"model m{number % 500}"), WINDOW_S * number, 1e9 + number)


def test_events_are_numbered_and_found_in_order() -> None:
    log = EventLog()
    assert log.find(None, 5).events == () and log.find(0, 5).next == 0
    spread(log, 10)
    assert [one.id for one in log.find(None, 3).events] == [8, 9, 10]
    assert log.find(None, 3).next == 10
    first = log.find(0, 4)
    assert ([one.id for one in first.events], first.next) == ([1, 2, 3, 4], 4)
    assert [one.id for one in log.find(first.next, 100).events] == [5, 6, 7, 8, 9, 10]
    found = log.find(9, 4)
    assert (found.events[0], found.next) == (
        Event(10, 1e9 + 9, "restart", "model m9", "event 9", "1", "info", "clipper"),
        10,
    )
    # Of another log, as before a home was cleared: what comes next is found all the same.
    assert log.find(500, 4).next == 10


def test_events_of_a_kind_or_on_a_subject() -> None:
    log = EventLog()
    for number in range(6):
        log.add(event(number, "scaling" if number % 2 else "restart", f"model {number % 3}"), 0.0, 0.0)
    assert [one.id for one in log.find(None, 9, kind="scaling").events] == [2, 4, 6]
    assert [one.id for one in log.find(None, 9, subject="model 1").events] == [2, 5]
    assert [one.id for one in log.find(0, 9, "scaling", "model 1").events] == [2]
    assert [one.id for one in log.find(None, 1, kind="scaling").events] == [6]
    one = log.find(0, 1, kind="scaling")
    assert one.next == 2
    # Nothing more is of the kind: who asks again does not look through all of these again.
    assert log.find(one.next, 2, kind="test") == type(one)((), 6)


def test_the_oldest_events_go() -> None:
    log = EventLog()
    spread(log, MAX_EVENTS + 5)
    assert len(log) == MAX_EVENTS
    assert log.latest()[0].id == 6 and log.newest_id == MAX_EVENTS + 5
    assert [one.id for one in log.find(0, 2).events] == [6, 7]


def test_numbers_go_on_from_an_earlier_supervisors() -> None:
    log = EventLog([Event(41, 1.0, "server", "server", "it is started")])
    log.add(event(), 0.0, 0.5)  # the clock went back meanwhile
    assert [(one.id, one.time_s) for one in log.latest()] == [(41, 1.0), (42, 0.5)]


def test_of_a_flood_the_number_is_told() -> None:
    log = EventLog()
    for number in range(100):
        log.add(event(number), float(number), float(number))
        log.add(event(number, "scaling"), float(number), float(number))
    assert len(log) == 2 * BURST
    log.end_windows(WINDOW_S - 0.1, 600.0)
    assert len(log) == 2 * BURST
    log.end_windows(WINDOW_S, 600.0)
    *_, restarts, scalings = log.latest()
    assert (restarts.kind, scalings.kind) == ("restart", "scaling")
    assert restarts.message == f"{100 - BURST} more events like those before, the last of them: event 99"
    assert (restarts.version, restarts.time_s) == ("1", 600.0)
    log.add(event(200), WINDOW_S + 1, 601.0)
    assert log.latest()[-1].message == "event 200"


def test_what_is_no_flood_is_never_summed_up() -> None:
    log = EventLog()
    for number in range(BURST):
        log.add(event(number), 0.0, 0.0)
    log.end_windows(10 * WINDOW_S, 0.0)
    assert [one.message for one in log.latest()] == [f"event {number}" for number in range(BURST)]


def test_subjects_without_end_take_a_bounded_memory() -> None:
    log = EventLog()
    for number in range(BURST + 3):
        log.add(event(number, subject="application first"), 0.0, 0.0)
    for number in range(MAX_WINDOWS + 10):
        log.add(event(number, subject=f"application {'a' * 50}{number}"), 0.0, 0.0)
    assert len(log._windows) == MAX_WINDOWS
    found = log.find(None, 100, subject="application first").events
    assert found[-1].message.startswith("3 more events like those before")


def test_a_long_message_is_cut() -> None:
    log = EventLog()
    log.add(NewEvent("deployment", "model m", "x" * 10_000), 0.0, 0.0)
    (one,) = log.latest()
    assert one.message == "x" * (MAX_MESSAGE - 1) + "…"


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from("ab"), st.sampled_from(["restart", "scaling"])), max_size=120)
)
def test_none_is_lost_without_a_word(added: list[tuple[float, str, str]]) -> None:
    log, now_s = EventLog(), 0.0
    for number, (passed_s, subject, kind) in enumerate(added):
        now_s += passed_s
        log.add(event(number, kind, subject), now_s, now_s)
    log.end_windows(now_s + WINDOW_S, now_s)
    told = 0
    for one in log.latest():
        head, _, _ = one.message.partition(" more events like those before")
        told += int(head) if head.isdecimal() else 1
    assert told == len(added)
    ids = [one.id for one in log.latest()]
    assert ids == list(range(1, len(ids) + 1))
