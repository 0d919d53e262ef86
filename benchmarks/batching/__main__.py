"""``python -m benchmarks.batching [PROFILE ...]``: search the best rule for each cell; keep and draw what was found."""

import sys
from multiprocessing import Pool
from pathlib import Path

from benchmarks.batching.cells import RESULTS, cells, describe, measure, measure_ours, read, write
from benchmarks.batching.picture import draw
from benchmarks.harness.pages import fill

DOCS = Path(__file__).parents[2] / "docs"
PICTURE, PAGE = DOCS / "batching.svg", DOCS / "batching-measured.md"


def main(names: list[str]) -> None:
    kept = {(cell.profile, cell.load): cell for cell in (read() if RESULTS.exists() else [])}
    print("profile, load, share in time by the scheduler and by the best rule")
    with Pool() as pool:
        for cell in pool.imap(measure, [cell for cell in cells() if not names or cell[0] in names]):
            kept[cell.profile, cell.load] = cell
            # With each cell, since all of them take a quarter of an hour.
            ordered = [kept[each] for each in cells() if each in kept]
            write(ordered)
            ours = measure_ours(cell.profile, cell.load)
            named = f"{cell.profile:26} {cell.load:4}"
            print(f"{named}  {ours:.3f}  {cell.best:.3f} {ours / cell.best:.3f} {next(iter(cell.rules))}", flush=True)
    write_results()


def write_results() -> None:
    """The picture, and the table of docs/batching-measured.md."""
    draw(read(), PICTURE)
    PAGE.write_text(fill(PAGE.read_text(), {"controllers": describe(read())}))


if __name__ == "__main__":
    main(sys.argv[1:])
