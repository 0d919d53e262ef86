"""``python -m benchmarks.regret [POLICY ...]``: search each family's best setting; keep and draw what was found."""

import sys
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path

from benchmarks.regret.families import Family, contextual_families, families, measure_ours, search
from benchmarks.regret.picture import PICTURE, draw
from benchmarks.regret.results import CONTEXTUAL_RESULTS, RESULTS, read, write


def main(names: list[str]) -> None:
    find(families(), RESULTS, names)
    find(contextual_families(), CONTEXTUAL_RESULTS, names)
    draw(read(), PICTURE)


def find(all_: Sequence[Family], path: Path, names: list[str]) -> None:
    """Measure the families of these names, or all, and keep the results beside those of the others."""
    chosen = [family for family in all_ if not names or family.policy in names]
    kept = read(path) if path.exists() else {}
    with Pool() as pool:
        ours = pool.imap(measure_ours, chosen)
        found = pool.imap(search, [candidate for family in chosen for candidate in family.others])
        for family in chosen:
            kept[family.policy] = [next(ours), *(next(found) for _ in family.others)]
            write(kept, path)
            for result in kept[family.policy]:
                setting = ", ".join(f"{name} {value:g}" for name, value in result.setting.items())
                print(
                    f"{family.policy:15} {result.name:20} {result.sum:8.0f} ± {result.standard_error:4.0f}  {setting}"
                )
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
