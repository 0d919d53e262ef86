"""``python -m benchmarks.regret [POLICY ...]``: search each family's best setting; keep and draw what was found."""

import sys
from collections.abc import Sequence
from multiprocessing import Pool

from benchmarks.regret.families import Result, families, measure_default, search, without_features
from benchmarks.regret.picture import BY_FEATURES_PICTURE, PICTURE, draw, draw_by_features
from benchmarks.regret.results import BLIND, RESULTS, read, write


def main(names: list[str]) -> None:
    chosen = [family for family in families() if not names or family.policy in names]
    blind = without_features() if not names or BLIND in names else []
    kept = read() if RESULTS.exists() else {}

    def keep(policy: str, results: Sequence[Result]) -> None:
        kept[policy] = list(results)
        write(kept)
        for result in results:
            setting = ", ".join(f"{name} {value:g}" for name, value in result.setting.items())
            print(f"{policy:15} {result.name:20} {result.sum:8.0f} ± {result.standard_error:4.0f}  {setting}")
        sys.stdout.flush()

    with Pool() as pool:
        defaults = pool.imap(measure_default, [*(family.ours for family in chosen), *blind])
        found = pool.imap(search, [candidate for family in chosen for candidate in family.others])
        for family in chosen:
            keep(family.policy, [next(defaults), *(next(found) for _ in family.others)])
        if blind:
            keep(BLIND, list(defaults))
    draw(kept, PICTURE)
    draw_by_features(kept, BY_FEATURES_PICTURE)


if __name__ == "__main__":
    main(sys.argv[1:])
