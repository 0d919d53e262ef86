"""How much feedback is let in: by simulated workers, and clients that wait or do not."""

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from random import Random

import pytest

from clipper.worker.frontend.feedback_line import (
    EARLIEST_EACH,
    IN_ORDER_S,
    MAX_WAIT_S,
    MEASURED_S,
    MIN_UNLEARNED,
    PATIENT_S,
    TARGET_S,
    FeedbackLine,
)

STEP_S = 0.02
# Of a longer list, others come in between.
IN_TURN = 500


@dataclass(eq=False)
class List:
    """A list of feedback: ``client`` sends it."""

    client: int
    pieces: int
    sent_s: float
    taken_s: float = 0.0
    left: int = 0
    acknowledged_s: float = 0.0


@dataclass
class Worker:
    """Learns so many pieces a second, of each list some in turn, from one after another.

    Args:
        disk_s: the store writes its file once in so many seconds, and acknowledges what it has had for half of that.
    """

    rate: float
    disk_s: float
    line: FeedbackLine[List] = field(default_factory=FeedbackLine)
    now_s: float = 0.0
    busy: deque[List] = field(default_factory=deque)
    on_disk: list[List] = field(default_factory=list)
    could_learn: float = 0.0

    def send(self, sent: List) -> None:
        if self.line.has_room:
            self._take(sent)
        else:
            self.line.wait(sent, self.now_s)

    def step(self) -> list[List]:
        """Return what is acknowledged in this step."""
        self.now_s += STEP_S
        self.could_learn += self.rate * STEP_S
        while self.busy and self.could_learn >= (some := min(IN_TURN, self.busy[0].left)):
            self.could_learn -= some
            each = self.busy.popleft()
            each.left -= some
            if each.left:
                self.busy.append(each)
                continue
            had_s = self.now_s + self.disk_s / 2
            each.acknowledged_s = ceil(had_s / self.disk_s) * self.disk_s if self.disk_s else had_s
            self.on_disk.append(each)
        if not self.busy:
            self.could_learn = 0.0
        done = [each for each in self.on_disk if each.acknowledged_s <= self.now_s]
        self.on_disk = [each for each in self.on_disk if each.acknowledged_s > self.now_s]
        for each in done:
            self.line.learned(each.pieces, each.taken_s, self.now_s)
            while (sent := self.line.next(self.now_s)) is not None:
                self._take(sent)
        return done

    def _take(self, sent: List) -> None:
        sent.taken_s, sent.left = self.now_s, sent.pieces
        self.line.take(sent.pieces, self.now_s)
        self.busy.append(sent)


def acknowledged_per_s(worker: Worker, offered: float, pieces: int, patience_s: float, seconds: float) -> float:
    """Of clients that do not wait for each other, and leave after ``patience_s``: pieces a second, after a while."""
    chance = Random(7)
    due_s, acknowledged, measured_from_s = 0.0, 0, seconds / 3
    sent: list[List] = []
    while worker.now_s < seconds:
        while due_s <= worker.now_s:
            sent.append(List(0, pieces, worker.now_s))
            worker.send(sent[-1])
            due_s += chance.expovariate(offered / pieces)
        while sent and worker.now_s - sent[0].sent_s > patience_s:
            worker.line.leave(sent.pop(0))
        for each in worker.step():
            if worker.now_s - each.sent_s <= patience_s and worker.now_s > measured_from_s:
                acknowledged += each.pieces
    return acknowledged / (seconds - measured_from_s)


@pytest.mark.parametrize(("rate", "disk_s"), [(400, 0.0), (2500, 1.0), (4000, 1.0)])
@pytest.mark.parametrize("pieces", [20, 500])
@pytest.mark.parametrize("load", [1.5, 4.0])
@pytest.mark.parametrize("patience_s", [5.0, 9.0, 12.0, 20.0])
def test_clients_that_do_not_wait_are_answered_as_many_as_can_be(
    rate: int, disk_s: float, pieces: int, load: float, patience_s: float
) -> None:
    # Whether one that has waited for long will be waited for any longer cannot be known: a third is learned too late.
    share = 0.85 if patience_s <= PATIENT_S else 1 - 1 / EARLIEST_EACH - 0.05
    assert acknowledged_per_s(Worker(rate, disk_s), load * rate, pieces, patience_s, 90) > share * rate


def test_what_a_worker_can_learn_is_all_learned_and_waits_for_nothing() -> None:
    worker = Worker(2500, 1.0)
    assert acknowledged_per_s(worker, 2000, 100, 3.0, 60) == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize(("clients", "pieces"), [(3, 10_000), (8, 2000), (40, 500), (100, 100)])
def test_clients_that_wait_for_each_answer_are_all_served(clients: int, pieces: int) -> None:
    worker = Worker(2500, 1.0)
    served = [0] * clients
    longest_s = 0.0
    for client in range(clients):
        worker.send(List(client, pieces, 0.0))
    while worker.now_s < 120:
        for each in worker.step():
            served[each.client] += 1
            longest_s = max(longest_s, worker.now_s - each.sent_s)
            worker.send(List(each.client, pieces, worker.now_s))
        assert worker.line.overdue(worker.now_s) == []
    assert min(served) >= 1 and longest_s < MAX_WAIT_S
    # A list of 10,000 fills the bound, so that the disk is waited for after each.
    assert sum(served) * pieces / 120 > 0.75 * 2500


def line(*waiting: tuple[str, float]) -> FeedbackLine[str]:
    found: FeedbackLine[str] = FeedbackLine(10)
    found.take(10, 0.0)
    for request, now_s in waiting:
        found.wait(request, now_s)
    return found


def test_requests_come_in_order_while_none_has_waited_long() -> None:
    one = line(("a", 0.0), ("b", 0.1), ("c", 0.2))
    assert one.next(0.3) is None
    one.give_back(10)
    assert [one.next(IN_ORDER_S) for _ in range(4)] == ["a", "b", "c", None]


def test_where_one_has_waited_for_long_the_latest_is_next() -> None:
    one = line(*((f"{number}", float(number)) for number in range(8)))
    one.give_back(10)
    assert [one.next(8.0) for _ in range(6)] == ["7", "6", "5", "4", "3", "2"]
    # Those that are left have waited no longer than before, and yet not in vain.
    assert [one.next(IN_ORDER_S) for _ in range(3)] == ["0", "1", None]


def test_at_times_the_earliest_is_next_once_it_has_been_patient() -> None:
    one = line(*((f"{number}", float(number)) for number in range(8)))
    one.give_back(10)
    assert EARLIEST_EACH == 3
    assert [one.next(PATIENT_S + 0.5) for _ in range(6)] == ["7", "6", "0", "5", "4", "3"]


def test_who_leaves_waits_no_longer() -> None:
    one = line(("a", 0.0), ("b", 0.0))
    assert one.leave("a") and not one.leave("a") and not one.leave("other")
    one.give_back(1)
    assert one.next(0.0) == "b" and one.next(0.0) is None


def test_who_has_waited_too_long_is_told_once() -> None:
    one = line(("a", 0.0), ("b", 1.0), ("c", 2.0))
    assert one.overdue(MAX_WAIT_S) == []
    assert one.overdue(MAX_WAIT_S + 1.5) == ["a", "b"]
    assert one.overdue(MAX_WAIT_S + 1.5) == []
    one.give_back(10)
    assert one.next(0.0) == "c"


def test_the_bound_follows_the_rate_and_never_leaves_its_range() -> None:
    one: FeedbackLine[str] = FeedbackLine(8000)

    def learn(pieces: int, taken_s: float, now_s: float) -> int:
        """Return how much is let in after that."""
        one.take(pieces, taken_s)
        one.learned(pieces, taken_s, now_s)
        one.take(0, now_s)
        room = 0
        while one.has_room:
            one.take(1, now_s)
            room += 1
        one.give_back(room)
        return room

    # Late: 3,000 pieces in three seconds.
    assert learn(3000, 0.0, TARGET_S + 1) == pytest.approx(1000 * TARGET_S)
    # In time, and nobody waits.
    assert learn(3000, 10.0, 10.0 + MEASURED_S) == pytest.approx(1000 * TARGET_S)
    one.wait("a", 20.0)
    assert learn(3000, 20.0, 20.0 + MEASURED_S) == pytest.approx(1.25 * 1000 * TARGET_S)
    # A store that hangs for a minute; then one that is ever so fast.
    assert learn(100, 30.0, 90.0) == MIN_UNLEARNED
    for now_s in range(100, 200):
        found = learn(100, float(now_s), now_s + MEASURED_S)
    assert found == 8000
