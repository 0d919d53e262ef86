"""``python -m benchmarks.paper [FIGURE ...]``: measures the figures that are named, or all that are not of this commit.

So the same command continues a run that was stopped. At the end it writes the results into docs/paper.md;
``--page`` does that alone. A statement of the paper that does not hold here is a finding, which the page states. The
run exits 1 if a promise of Clipper's is broken, if a figure could not be measured, or if results are of different
commits: they are one set.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks.harness.machine import facts
from benchmarks.harness.revision import CHANGED, revision
from benchmarks.harness.servers import clipper
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.paper import page
from benchmarks.paper.bench import Bench
from benchmarks.paper.figure import Figure
from benchmarks.paper.figures import FIGURES
from benchmarks.paper.pictures import PICTURES
from benchmarks.paper.results import RESULTS, Documents, read, write

MARKS = {True: "[green]✓[/]", False: "[red]✗[/]"}
PAGE_ONLY = "--page"
log = logging.getLogger(__name__)


class TookTooLong(SystemExit):
    """A figure's run did not end within its time. Event loops keep all else that is raised within their callbacks."""


def main(names: list[str]) -> int:
    console = Console()
    if names == [PAGE_ONLY]:
        page.PAGE.write_text(page.render(page.PAGE.read_text(), read(FIGURES)))
        return 0
    unknown = sorted(set(names) - {figure.name for figure in FIGURES})
    if unknown:
        console.print(f"No figure {', '.join(unknown)}. There are: {' '.join(figure.name for figure in FIGURES)}")
        return 2
    now, failed = revision(), False
    for figure in to_measure(names, read(FIGURES), now):
        failed |= not attempt(figure, console)
    found = read(FIGURES)
    page.PAGE.write_text(page.render(page.PAGE.read_text(), found))
    for problem in problems(found):
        console.print(f"{MARKS[False]} {problem}", soft_wrap=True)
    console.print(f"Numbers and pictures: {RESULTS.relative_to(Path.cwd())}")
    return int(failed or bool(problems(found)))


def to_measure(names: list[str], found: Documents, now: str) -> list[Figure]:
    """Those that are named; of none, those without a result of the commit as it is now."""
    if names:
        return [figure for figure in FIGURES if figure.name in names]
    kept = {name for name, document in found.items() if document["machine"]["revision"] == now != ""}
    return [figure for figure in FIGURES if figure.name not in kept or CHANGED in now]


def problems(found: Documents) -> list[str]:
    """Which promises are broken, and why results do not stand beside each other."""
    lines = [
        f"{figure.name} breaks a promise: {promise.says}: {promise.here}"
        for figure in FIGURES
        if figure.name in found
        for promise in figure.judge(found[figure.name]["numbers"]).broken
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


def attempt(figure: Figure, console: Console, folder: Path = RESULTS) -> bool:
    """Measure; a figure that cannot be has failed, and takes no other with it."""
    try:
        return make(figure, console, folder)
    except (Exception, TookTooLong) as error:
        log.exception("%s cannot be measured", figure.name)
        console.print(f"{MARKS[False]} {figure.name}: not measured: {type(error).__name__}: {error}", soft_wrap=True)
        return False


def make(figure: Figure, console: Console, folder: Path = RESULTS) -> bool:
    """Measure one figure with a Clipper of its own, write what came, and return whether it keeps Clipper's promises.

    Raises:
        TookTooLong: it did not end within its time. Nothing was written.
    """
    with console.status(f"prepares {figure.what}"):
        figure.prepare()
    machine, began_s = facts(), time.monotonic()
    with console.status(figure.what), clipper() as server, ended_after(figure.within_s):
        numbers = figure.measure(
            Bench(server, lambda text: console.print(f"  {text}", highlight=False, soft_wrap=True))
        )
    verdict = figure.judge(numbers)
    took_s = time.monotonic() - began_s
    if figure.name in PICTURES:
        PICTURES[figure.name](numbers).savefig(folder / f"{figure.name}.png", dpi=110)
    # Last, since it says that the figure is done.
    write(
        figure.name,
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(took_s, 1),
            "what": figure.what,
            "machine": {**machine, "load_after": round(os.getloadavg()[0], 2)},
            "numbers": numbers,
        },
        folder,
    )
    kept = not verdict.broken
    console.print(f"{MARKS[kept]} {figure.name} ({took_s:.0f} s)", highlight=False)
    for line in page.lines(verdict):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    return kept


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
