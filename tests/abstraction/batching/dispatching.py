"""A dispatcher whose controllers do what the test says."""

from clipper.abstraction.batching.dispatcher import PREFETCH_S, Dispatcher, Turn
from clipper.abstraction.work import Work
from works import make_work


class Steady:
    """A controller whose limit and expectation the test sets."""

    def __init__(self, limit: int = 4, service_s: float = 0.0) -> None:
        self.limit = limit
        self.service_s = service_s
        self.budget_s = 0.0
        self.observed: list[tuple[int, float, bool]] = []

    def observe(self, size: int, service_s: float, was_full: bool) -> None:
        self.observed.append((size, round(service_s, 9), was_full))

    def predict_s(self, size: int) -> float:
        return self.service_s

    def set_budget(self, budget_s: float) -> None:
        self.budget_s = budget_s


SLOW_S = PREFETCH_S * 20


def make_dispatcher(*controllers: Steady, delay_s: float = 0.0, max_length: int = 1000) -> Dispatcher:
    dispatcher = Dispatcher(max_length, 1 << 20, delay_s)
    for number, controller in enumerate(controllers):
        dispatcher.add_replica(str(number), controller)
    return dispatcher


def push(dispatcher: Dispatcher, count: int, now_s: float = 0.0, slo_s: float = 1.0) -> list[Work]:
    works = [make_work(b"%d" % number, now_s, slo_s) for number in range(count)]
    assert all(dispatcher.push(work, now_s) == (True, []) for work in works)
    return works


def sizes(turn: Turn) -> list[tuple[str, int]]:
    return [(replica.id, len(batch.works)) for replica, batch in turn.assignments]
