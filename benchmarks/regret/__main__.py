"""``python -m benchmarks.regret [POLICY ...]``: search each family's best setting; keep and draw what was found."""

import sys
from multiprocessing import Pool

from benchmarks.regret.families import families, measure_ours, search
from benchmarks.regret.picture import PICTURE, draw
from benchmarks.regret.results import RESULTS, read, write


def main(names: list[str]) -> None:
    chosen = [family for family in families() if not names or family.policy in names]
    kept = read() if RESULTS.exists() else {}
    with Pool() as pool:
        ours = pool.imap(measure_ours, chosen)
        found = pool.imap(search, [candidate for family in chosen for candidate in family.others])
        for family in chosen:
            kept[family.policy] = [next(ours), *(next(found) for _ in family.others)]
            write(kept)
            for result in kept[family.policy]:
                setting = ", ".join(f"{name} {value:g}" for name, value in result.setting.items())
                print(
                    f"{family.policy:15} {result.name:20} {result.sum:8.0f} ± {result.standard_error:4.0f}  {setting}"
                )
            sys.stdout.flush()
    draw(kept, PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
