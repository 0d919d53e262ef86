"""Handshakes take turns, and give way: the line by itself, with a clock and a loop of the test's."""

import ssl
from collections.abc import Callable

import pytest

from clipper.base.tls.handshakes import HANDSHAKE_TIMEOUT_S, WARN_EVERY_S, Handshakes
from clipper.base.turn_budget import TurnBudget


class Desk:
    def __init__(self, most: int = 100) -> None:
        self.now_s = 0.0
        self.calls: list[Callable[[], None]] = []
        self.line = Handshakes(
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), TurnBudget(self.calls.append, lambda: self.now_s), most
        )

    def turn(self) -> None:
        calls, self.calls[:] = self.calls[:], []
        for call in calls:
            call()


class One:
    def __init__(self, desk: Desk, takes_s: float = 0.0) -> None:
        self.desk, self.takes_s = desk, takes_s
        self.shaken = 0
        self.is_given_up = False

    def shake(self) -> None:
        self.shaken += 1
        self.desk.now_s += self.takes_s

    def abort(self) -> None:
        self.is_given_up = True


def begin(desk: Desk, count: int, takes_s: float = 0.0) -> list[One]:
    found = [One(desk, takes_s) for _ in range(count)]
    for one in found:
        desk.line.begin(one)
    return found


def test_a_turn_of_the_loop_does_one_handshake() -> None:
    desk = Desk()
    ones = begin(desk, 10, takes_s=0.001)
    for one in ones:
        desk.line.queue(one)
    assert len(desk.calls) == 1
    for turns in range(1, 11):
        desk.turn()
        assert [one.shaken for one in ones] == [1] * turns + [0] * (10 - turns)
    desk.turn()
    assert desk.calls == []
    desk.line.queue(ones[0])
    desk.turn()
    assert ones[0].shaken == 2


def test_those_give_way_that_have_had_nothing_to_do_for_the_longest() -> None:
    desk = Desk(most=3)
    ones = begin(desk, 3)
    desk.line.queue(ones[0])
    desk.turn()
    ones += begin(desk, 1)
    assert [one.is_given_up for one in ones] == [False, True, False, False]
    for one in (ones[0], ones[2]):
        desk.line.queue(one)
    ones += begin(desk, 1)
    assert [one.is_given_up for one in ones] == [False, True, False, True, False]
    desk.line.queue(ones[4])
    # All are in the line, as after a server's start: who comes now is the one to try again.
    assert begin(desk, 1)[0].is_given_up
    assert (len(desk.line), desk.line.failed) == (3, 3)
    for _ in ones:
        desk.turn()
    for one in ones:
        desk.line.end(one)
    assert len(desk.line) == 0


def test_one_that_ends_while_it_is_in_the_line() -> None:
    desk = Desk()
    ones = begin(desk, 2)
    for one in ones:
        desk.line.queue(one)
    desk.line.end(ones[0])
    for _ in range(3):
        desk.turn()
    assert [one.shaken for one in ones] == [0, 1]
    desk.line.queue(ones[0])
    assert desk.calls == []


def test_those_that_take_too_long_are_given_up() -> None:
    desk = Desk()
    first = begin(desk, 2)
    desk.now_s = HANDSHAKE_TIMEOUT_S - 1
    second = begin(desk, 2)
    desk.line.end(first[1])
    desk.line.sweep()
    assert not first[0].is_given_up
    desk.now_s = HANDSHAKE_TIMEOUT_S
    desk.line.sweep()
    assert [one.is_given_up for one in first + second] == [True, False, False, False]


def test_failures_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    for one in begin(desk, 50):
        desk.line.fail(one, "no shared cipher")
    assert caplog.text.count("no shared cipher") == 1
    desk.now_s = WARN_EVERY_S
    desk.line.fail(One(desk), "unknown ca")
    assert "51 TLS handshakes have failed, the last one because: unknown ca" in caplog.text
