"""A limit that stays: for the policies ``fixed``, and ``none`` with a limit of 1."""

from clipper.abstraction.batching.service_line import ServiceLine


class Fixed:
    """Keeps ``limit`` as given; learns only what ``predict_s`` needs."""

    __slots__ = ("_budget_s", "_line", "limit")

    def __init__(self, limit: int, budget_s: float) -> None:
        self.limit = limit
        self._budget_s = budget_s
        self._line = ServiceLine()

    def observe(self, size: int, service_s: float, was_full: bool) -> None:
        self._line.add(size, service_s)

    def predict_s(self, size: int) -> float:
        return self._line.predict_s(size, self._budget_s)

    def rows_per_s(self) -> float:
        return self._line.rows_per_s(self.limit)

    def set_budget(self, budget_s: float) -> None:
        self._budget_s = budget_s
