"""Answers over time, in windows of a quarter of a second."""

from dataclasses import dataclass

from benchmarks.harness.load import Answer

WINDOW_S = 0.25
# So many good windows in a row count as recovered: one alone may be luck.
STEADY_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class Window:
    """Answers of a quarter of a second. ``end_s`` counts from the series' start."""

    end_s: float
    per_s: float
    p99_ms: float
    default_share: float

    def meets(self, slo_ms: float) -> bool:
        return self.p99_ms <= slo_ms and self.default_share < 0.01


def windows(answers: list[Answer[None]], start_s: float, end_s: float) -> list[Window]:
    """Cut the answers of [start_s, end_s) into windows, in order."""
    count = int((end_s - start_s) / WINDOW_S)
    cut: list[list[Answer[None]]] = [[] for _ in range(count)]
    for answer in answers:
        index = int((answer.answered_s - start_s) / WINDOW_S)
        if 0 <= index < count and answer.answered_s >= start_s:
            cut[index].append(answer)
    return [_window((index + 1) * WINDOW_S, inside) for index, inside in enumerate(cut)]


def _window(end_s: float, answers: list[Answer[None]]) -> Window:
    if not answers:
        return Window(end_s, 0.0, float("inf"), 1.0)
    latencies_ms = sorted(answer.latency_s * 1e3 for answer in answers)
    defaults = sum(b'"default":true' in answer.body or answer.status != 200 for answer in answers)
    p99_ms = latencies_ms[int(len(latencies_ms) * 0.99)]
    return Window(end_s, len(answers) / WINDOW_S, p99_ms, defaults / len(answers))


def steady_after_s(good: list[bool]) -> float | None:
    """Seconds until the first window of ``STEADY_WINDOWS`` good ones in a row; None if there are none."""
    for first in range(len(good) - STEADY_WINDOWS + 1):
        if all(good[first : first + STEADY_WINDOWS]):
            return first * WINDOW_S
    return None
