"""Inputs that kill replicas, simulated: who is answered, and how many replicas die."""

import heapq
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.quarantine import MAX_INPUTS, SUSPECTED_S, Quarantine
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.batching.suspects import DEADLY
from clipper.worker.abstraction.work import Work
from tests.works import make_work

RESTART_S = 2.0


class Game:
    """A version whose replicas die over rows that begin with ``k``, after the batch's time, and hang over ``h``.

    Attributes:
        ended: how each work ended, by its identity: ``answered``, ``late``, or what it was refused with.
        deaths: the rows of the oldest batch at each death.
    """

    def __init__(self, replicas: int, row_s: float = 0.002) -> None:
        self.scheduler = Scheduler(16_384, 1 << 30, 0.0, Flow())
        self.scheduler.set_slo(0.1)
        self.quarantine = Quarantine(self.scheduler.suspects, "m:1", seed=7)
        self.now_s, self._row_s, self._order, self._names = 0.0, row_s, 0, 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.works: list[Work] = []
        self.ended: dict[int, str] = {}
        self.deaths: list[list[bytes]] = []
        for _ in range(replicas):
            self._start()

    def at(self, at_s: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (at_s, self._order, act))

    def ask(self, row: bytes, source: str = "x", slo_s: float = 1.0) -> Work:
        work = make_work(row, self.now_s, slo_s, source)
        self.works.append(work)
        is_suspect = self.scheduler.suspects.meet(source)
        refusal = self.quarantine.refusal(work, self.now_s)
        if refusal is not None:
            self._end(work, refusal)
        else:
            assert is_suspect >= (self.scheduler.suspects.name_of(work) not in ("", DEADLY))
            assert self.scheduler.push(work, self.now_s) == (True, [])
            self._decide()
        return work

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
            self._decide()
        self.now_s = until_s
        self._decide()

    def how(self, work: Work) -> str:
        return self.ended[id(work)]

    def kill(self, name: str) -> None:
        """A replica dies, whatever it evaluates."""
        batches = list(self.scheduler.replicas[name].in_flight.values())
        self.scheduler.lose_replica(name)
        self.deaths.append([work.row for work in batches[0].works] if batches else [])
        again, failed = self.quarantine.lost(batches, self.now_s)
        for message, works in failed.items():
            for work in works:
                self._end(work, message)
        self.scheduler.suspects.push_back(again)
        self.at(self.now_s + RESTART_S, self._start)

    def _start(self) -> None:
        self._names += 1
        self.scheduler.add_replica(str(self._names), 64)

    def _end(self, work: Work, how: str) -> None:
        assert id(work) not in self.ended, "each work ends once"
        self.ended[id(work)] = how

    def _decide(self) -> None:
        decision = self.scheduler.decide(self.now_s)
        for work in [*decision.late, *decision.shed]:
            self._end(work, "late")
        for replica, batch in decision.batches:
            if batch.works[0].row.startswith(b"h"):
                continue
            took_s = self._row_s * len(batch.works)
            self.at(self.now_s + took_s, lambda name=replica.id, batch=batch: self._finish(name, batch))
        if decision.wake_s is not None:
            self.at(max(decision.wake_s, self.now_s + 1e-6), lambda: None)

    def _finish(self, name: str, batch: Batch) -> None:
        replica = self.scheduler.replicas.get(name)
        if replica is None or batch.id not in replica.in_flight:
            return
        if any(work.row.startswith(b"k") for work in batch.works):
            self.kill(name)
            return
        self.scheduler.finished(replica, batch.id, self.now_s)
        if batch.source:
            self.quarantine.answered(batch.works)
        for work in batch.works:
            if work in self.works:
                self._end(work, "answered")


def test_a_deadly_input_ends_two_replicas_and_no_query_of_another_input() -> None:
    game = Game(3)
    game.run(0.0)
    busy = game.ask(b"first")  # the others gather behind it
    for _ in range(2):
        game.ask(b"a"), game.ask(b"b")
    killer, good = game.ask(b"k"), [game.ask(b"good%d" % number) for number in range(20)]
    game.run(1.0)
    assert [game.how(work) for work in [busy, *good]] == ["answered"] * 21
    assert "2 containers of m:1 died while evaluating this input" in game.how(killer)
    assert len(game.deaths) == 2 and game.deaths[1] == [b"k"]


@given(st.integers(0, 1 << 30), st.integers(2, 4))
def test_each_work_ends_once_and_all_good_ones_are_answered(seed: int, replicas: int) -> None:
    """One of an application's inputs is deadly; it is asked for again and again among others."""
    random, game = Random(seed), Game(replicas + 1, row_s=0.0002)
    for number in range(300):
        row = b"%d" % random.randrange(10_000)
        game.at(random.uniform(0, 3), lambda row=row: game.ask(row, "x"))
        if number < 30:  # never two in flight: these would end a replica each
            game.at(number * 0.1, lambda: [game.ask(b"k") for _ in range(random.randrange(2))])
    game.run(10.0)
    assert len(game.ended) == len(game.works)
    assert {game.how(work) for work in game.works if work.row != b"k"} == {"answered"}
    assert len(game.deaths) == 2


def test_a_deadly_input_is_remembered_when_its_query_is_over() -> None:
    """With one replica a query ends before the replica is back; its client asks again."""
    game = Game(1)
    for number in range(60):  # until it is tried again
        game.at(number * 0.1, lambda: game.ask(b"k", slo_s=0.1))
        game.at(number * 0.1, lambda number=number: game.ask(b"%d" % number, slo_s=0.1))
    game.run(30.0)
    assert len(game.deaths) == 2 and game.deaths[1] == [b"k"]
    goods = [game.how(work) for work in game.works if work.row != b"k" and work.arrival_s > 2 * RESTART_S + 0.3]
    assert set(goods) == {"answered"}


def test_a_condemned_input_is_tried_again_later_and_later() -> None:
    game, hour_s = Game(2), 3600
    for number in range(3 * hour_s):
        game.at(float(number), lambda: game.ask(b"k"))
    game.run(3.0 * hour_s)
    # Twice at first; then after 5 s, and each time after twice as long, up to an hour.
    assert 2 + 10 <= len(game.deaths) <= 2 + 12


def test_an_input_that_is_answered_after_all_is_cleared() -> None:
    game = Game(2)
    work = game.ask(b"good")
    game.kill("1")
    game.run(1.0)
    assert game.how(work) == "answered" and not game.quarantine.inputs


def test_an_application_of_ever_new_deadly_inputs_leaves_others_replicas() -> None:
    """x sends ten new deadly inputs a second; y asks 50 times a second."""
    game, until_s = Game(2), 120.0
    for number in range(int(until_s * 10)):
        game.at(number * 0.1, lambda number=number: game.ask(b"k%d" % number, "x", 0.1))
    for number in range(int(until_s * 50)):
        game.at(0.003 + number * 0.02, lambda number=number: game.ask(b"%d" % number, "y", 0.1))
    game.run(until_s + 5)
    # Two over the first, and then one after each time that x is held: 5, 10, 20, 40 s.
    assert len(game.deaths) <= 2 + 5
    ends = [game.how(work) for work in game.works if work.source == "y"]
    assert ends.count("answered") > 0.97 * len(ends)
    held = [game.how(work) for work in game.works if work.source == "x"]
    assert any("its other queries are not sent for" in how for how in held)
    assert not any("x" in how for how in ends)


def test_a_suspected_input_that_hangs_is_waited_for_until_its_deadline() -> None:
    game = Game(4)
    hung, good = game.ask(b"h", slo_s=0.2), game.ask(b"good")
    for name in ("1", "2"):
        game.kill(name)
    game.run(1.0)
    assert game.how(good) == "answered" and id(hung) not in game.ended


def test_what_is_remembered_is_bounded_and_forgotten() -> None:
    game = Game(1)
    works = [make_work(b"%d" % number) for number in range(MAX_INPUTS + 10)]
    batch = Batch(1, works, 0.0, 0.0, 0, was_full=False, is_short=False)
    again, failed = game.quarantine.lost([batch], 0.0)
    assert len(again) == len(works) and not failed
    assert len(game.quarantine.inputs) == MAX_INPUTS
    assert game.quarantine.refusal(make_work(b"0"), 1.0) is None
    for at_s, group in ((1.0, DEADLY), (SUSPECTED_S + 1, "")):
        work = make_work(works[-1].row)
        assert game.quarantine.refusal(work, at_s) is None and work.group == group


@pytest.mark.parametrize("known", [("x",), ("x", "y")])
def test_an_application_alone_is_not_held(known: tuple[str, ...]) -> None:
    game = Game(4)
    for name in known:
        game.scheduler.suspects.meet(name)
    game.ask(b"k1")
    game.run(1.0)
    other = game.ask(b"good")
    game.run(2.0)
    assert (game.how(other) == "answered") is (len(known) == 1)
