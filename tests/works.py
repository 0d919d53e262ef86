"""Waiters and pieces of work for the tests of what decides."""

from clipper.values.outputs.output import Output
from clipper.worker.abstraction.work import Work
from clipper.worker.telemetry.trace_context import SpanContext


class Waiting:
    """A query that keeps what it is told. As a real one, it is done with its first answer.

    Attributes:
        output: as it came; ``heard`` has its text.
    """

    def __init__(self, deadline_s: float = float("inf"), *, may_wait: bool = True) -> None:
        self.done = False
        self.may_wait = may_wait
        self.deadline_s = deadline_s
        self.span: SpanContext | None = None
        self.heard: list[tuple[str, ...]] = []
        self.output: Output | None = None

    def on_output(self, model: str, output: Output) -> None:
        self.output = output
        self._hear("output", model, bytes(output).decode())

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._hear("failure", model, code, message)

    def _hear(self, *what: str) -> None:
        assert not self.done, "told after it was done"
        self.done = True
        self.heard.append(what)


def make_work(row: bytes, arrival_s: float = 0.0, slo_s: float = 1.0, source: str = "app") -> Work:
    deadline_s = arrival_s + slo_s
    return Work(row, [Waiting(deadline_s)], arrival_s, slo_s, deadline_s, deadline_s, row, source=source)
