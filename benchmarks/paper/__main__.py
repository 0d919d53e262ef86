"""``python -m benchmarks.paper [FIGURE ...]``: measures the figures that are named, or all that are not of this commit.

So a run that was stopped is gone on with by the same command. Exits 1 if a figure does not show what it must, could not
be measured, or if results are of different commits: they are one set.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from benchmarks.machine import facts
from benchmarks.paper.bench import Bench
from benchmarks.paper.figure import Figure
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.revision import CHANGED, revision
from benchmarks.servers import clipper
from benchmarks.termination import end_in_order_at_sigterm

RESULTS = Path(__file__).parent / "results"
MARKS = {True: "[green]✓[/]", False: "[red]✗[/]"}
log = logging.getLogger(__name__)

Documents = Mapping[str, Mapping[str, Any]]


class TookTooLong(SystemExit):
    """A figure's run did not end within its time. Event loops keep all else that is raised within their callbacks."""


def main(names: list[str]) -> int:
    console = Console()
    unknown = sorted(set(names) - {figure.name for figure in FIGURES})
    if unknown:
        console.print(f"No figure {', '.join(unknown)}. There are: {' '.join(figure.name for figure in FIGURES)}")
        return 2
    now, failed = revision(), False
    for figure in to_measure(names, documents(RESULTS), now):
        failed |= not _try(figure, console)
    found = documents(RESULTS)
    for problem in problems(found):
        console.print(f"[red]✗[/] {problem}", soft_wrap=True)
    console.print(f"Numbers and pictures: {RESULTS.relative_to(Path.cwd())}")
    return int(failed or bool(problems(found)))


def documents(folder: Path) -> Documents:
    """The results that are there, by figure."""
    paths = {figure.name: folder / f"{figure.name}.json" for figure in FIGURES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def to_measure(names: list[str], found: Documents, now: str) -> list[Figure]:
    """Those that are named; of none, those without a result of the commit as it is now."""
    if names:
        return [figure for figure in FIGURES if figure.name in names]
    kept = {name for name, document in found.items() if document["machine"]["revision"] == now != ""}
    return [figure for figure in FIGURES if figure.name not in kept or CHANGED in now]


def problems(found: Documents) -> list[str]:
    """Why results do not stand beside each other, and which do not show what they must."""
    lines = [
        f"{name} does not show what it must: {each['verdict']}" for name, each in found.items() if not each["passed"]
    ]
    by_revision: dict[str, list[str]] = {}
    for name, document in found.items():
        by_revision.setdefault(document["machine"]["revision"], []).append(name)
    if len(by_revision) > 1:
        parts = "; ".join(f"{each[:12] or 'no commit'}: {' '.join(names)}" for each, names in by_revision.items())
        lines.append(
            f"results are of different commits ({parts}): run `make paper`, which measures what is not of this one"
        )
    if any(CHANGED in each for each in by_revision):
        lines.append("results are of files that no commit has: commit them, and run `make paper` again")
    return lines


def _try(figure: Figure, console: Console) -> bool:
    """Measure; a figure that cannot be has failed, and takes no other with it."""
    try:
        return make(figure, console)
    except (Exception, TookTooLong) as error:
        log.exception("%s cannot be measured", figure.name)
        console.print(f"{MARKS[False]} {figure.name}: not measured: {type(error).__name__}: {error}", soft_wrap=True)
        return False


def make(figure: Figure, console: Console) -> bool:
    """Measure one figure with a Clipper of its own, write what came, and return whether it shows what it must.

    Raises:
        TookTooLong: it did not end within its time. Nothing was written.
    """
    machine, began_s = facts(), time.monotonic()
    with console.status(figure.what), clipper() as server, ended_after(figure.within_s):
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
        "machine": {**machine, "load_after": round(os.getloadavg()[0], 2)},
        "numbers": numbers,
    }
    RESULTS.mkdir(exist_ok=True)
    PICTURES[figure.name](numbers).savefig(RESULTS / f"{figure.name}.png", dpi=110)
    # Last, since it says that the figure is done; and whole or not at all.
    aside = RESULTS / f"{figure.name}.part"
    aside.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    aside.replace(RESULTS / f"{figure.name}.json")
    line = f"{MARKS[verdict.passed]} {figure.name}: {verdict.text} ({took_s:.0f} s)"
    console.print(line, highlight=False, soft_wrap=True)
    return verdict.passed


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """What takes longer is ended, wherever it waits. For the main thread.

    Raises:
        TookTooLong: it took longer.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"it did not end within {seconds / 60:.0f} minutes")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main(sys.argv[1:]))
