"""``python -m benchmarks.gpu [FIGURE ...]``: figures 3, 4, 6 and 11 of the paper on real nets, beside PyTriton.

Nets get GPUs if this machine has any, else they compute on the processor, and the page says so. Results and the page
go to ``build/gpu``. It exits 1 if a figure cannot be measured.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.gpu.figures import FULL, SHORT, Effort, figures
from benchmarks.gpu.place import Missing, Place, found, pretend
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.paper.__main__ import attempt
from benchmarks.paper.results import read

RESULTS = Path(__file__).parents[2] / "build" / "gpu"
PAGE = RESULTS / "page.md"


def main() -> int:
    names = [figure.name for figure in figures(Place(), FULL)]
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {' '.join(names)}; all if left out")
    parser.add_argument("--short", action="store_true", help="one round of a second each, to see that all works")
    parser.add_argument(
        "--pretend", type=int, default=0, metavar="N", help="N GPUs that are not there: nets compute on the processor"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.figures) - set(names)):
        parser.error(f"no figure {', '.join(unknown)}; there are {' '.join(names)}")
    with TemporaryDirectory(prefix="clipper-gpu-") as folder:
        if arguments.pretend:
            pretend(Path(folder), arguments.pretend)
        try:
            return measure(arguments.figures or names, SHORT if arguments.short else FULL, arguments.pretend > 0)
        except Missing as missing:
            print(f"Nothing was measured: {missing}.", file=sys.stderr)
            return 1


def measure(names: Sequence[str], effort: Effort, is_pretended: bool) -> int:
    """Measure these figures, one after another, and write and print the page of those that could be.

    Raises:
        Missing: none can be.
    """
    place = found(os.environ, is_pretended)
    if shutil.which("wrk") is None:
        raise Missing("wrk is not installed: `make gpu` installs it, or use your system's packages")
    console = Console()
    wanted = [figure for figure in figures(place, effort) if figure.name in names]
    within_min = sum(figure.within_s for figure in wanted) / 60
    console.print(f"{place.note} At most {within_min:.0f} minutes, once nets are made.", soft_wrap=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    measured = [figure for figure in wanted if attempt(figure, console, RESULTS)]
    documents = read(measured, RESULTS)
    parts = [f"## {figure.what}\n\n{figure.describe(documents[figure.name]['numbers'])}" for figure in measured]
    PAGE.write_text("\n".join(parts))
    print("\n".join(parts))
    console.print(f"Numbers and page: {RESULTS}", soft_wrap=True)
    missed = [figure.name for figure in wanted if figure not in measured]
    if missed:
        print(f"Not measured: {', '.join(missed)}. Why is said above.", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
