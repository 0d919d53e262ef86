"""What the demo shows: a live table on a terminal, a line every other second elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from examples.demo.traffic import Recent

BARS = "▁▂▃▄▅▆▇█"
# As many as fit beside the numbers on a narrow terminal.
SHOWN_LIMITS = 40
LINE_EVERY_S = 2.0


@dataclass(slots=True)
class Scene:
    """What is to be seen. ``limits`` are the batch limits of the version that answers, oldest first."""

    slo_ms: float
    stretch: str = ""
    current: str = ""
    replicas: dict[str, str] = field(default_factory=dict)
    limits: list[int] = field(default_factory=list)
    cache_hits: int = 0
    answered: int = 0
    lost: int = 0
    recent: Recent = field(default_factory=lambda: Recent(0, 0, 0, 0))


class Screen:
    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._next_line_s = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Inside, ``show`` draws in place; what is printed meanwhile goes above."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def show(self, scene: Scene) -> None:
        if self._live is not None:
            self._live.update(as_table(scene), refresh=True)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            self.console.print(as_line(scene), highlight=False, soft_wrap=True)


def as_table(scene: Scene) -> Table:
    recent = scene.recent
    table = Table(title=scene.stretch, show_header=False, min_width=76)
    table.add_row("current version", scene.current)
    table.add_row("accuracy", f"{recent.accuracy:.1%}")
    table.add_row("queries/s", f"{recent.queries_per_s:,.0f}")
    table.add_row("p50 / p99 / SLO", f"{recent.p50_ms:.1f} / {recent.p99_ms:.1f} / {scene.slo_ms:.0f} ms")
    table.add_row("batch limit", f"{bars(scene.limits)} {scene.limits[-1] if scene.limits else ''}")
    table.add_row("cache hits", f"{scene.cache_hits:,}")
    table.add_row("replicas", "  ".join(f"{name} {state}" for name, state in scene.replicas.items()))
    table.add_row("answered / lost", f"{scene.answered:,} / {scene.lost:,}")
    return table


def as_line(scene: Scene) -> str:
    recent = scene.recent
    limit = scene.limits[-1] if scene.limits else "-"
    return (
        f"  {scene.stretch}: version {scene.current}, accuracy {recent.accuracy:.1%}, "
        f"{recent.queries_per_s:,.0f} queries/s, "
        f"p50 {recent.p50_ms:.1f} ms, p99 {recent.p99_ms:.1f} of {scene.slo_ms:.0f} ms, "
        f"batch limit {limit}, cache hits {scene.cache_hits:,}, answered {scene.answered:,}, lost {scene.lost}"
    )


def bars(values: list[int]) -> str:
    """The last values as bars, the highest as high as can be."""
    shown = values[-SHOWN_LIMITS:]
    highest = max(shown, default=1)
    return "".join(BARS[round(value / highest * (len(BARS) - 1))] for value in shown)
