"""``python -m benchmarks.paper [FIGURE ...]``: measures the figures that are named, or all.

Exits 1 if one does not show what it must.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.machine import facts
from benchmarks.paper.bench import Bench
from benchmarks.paper.figure import Figure, Verdict
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.servers import clipper
from benchmarks.termination import end_in_order_at_sigterm

RESULTS = Path(__file__).parent / "results"
MARKS = {True: "[green]✓[/]", False: "[red]✗[/]"}


def main(names: list[str]) -> int:
    console = Console()
    unknown = sorted(set(names) - {figure.name for figure in FIGURES})
    if unknown:
        console.print(f"No figure {', '.join(unknown)}. There are: {' '.join(figure.name for figure in FIGURES)}")
        return 2
    verdicts = [make(figure, console) for figure in FIGURES if not names or figure.name in names]
    console.print(f"Numbers and pictures: {RESULTS.relative_to(Path.cwd())}")
    return int(not all(verdict.passed for verdict in verdicts))


def make(figure: Figure, console: Console) -> Verdict:
    """Measure one figure with a Clipper of its own, and write what came."""
    began_s = time.monotonic()
    with console.status(figure.what), clipper() as server:
        numbers = figure.measure(
            Bench(server, lambda text: console.print(f"  {text}", highlight=False, soft_wrap=True))
        )
    verdict = figure.judge(numbers)
    took_s = time.monotonic() - began_s
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(took_s, 1),
        "what": figure.what,
        "passed": verdict.passed,
        "verdict": verdict.text,
        "machine": facts(),
        "numbers": numbers,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{figure.name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    PICTURES[figure.name](numbers).savefig(RESULTS / f"{figure.name}.png", dpi=110)
    line = f"{MARKS[verdict.passed]} {figure.name}: {verdict.text} ({took_s:.0f} s)"
    console.print(line, highlight=False, soft_wrap=True)
    return verdict


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main(sys.argv[1:]))
