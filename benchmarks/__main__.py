"""``python -m benchmarks [ROW ...]``: measures the rows that are named, or all, and exits 1 if one misses its floor.

A part's name, such as ``open_loop``, stands for all of its rows.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness.machine import facts
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.workbench import ROUND_S, ROUNDS, SLO_MS, TURN_S, TURNS, WARM_UP_S, Workbench
from benchmarks.rows import (
    binary_query,
    client_query,
    compiled,
    decision_log,
    encryption,
    footprint,
    frameworks,
    grpc_query,
    languages,
    open_loop,
    record_query,
    recovery,
    replicas,
    selection,
    throughput,
)

PARTS = (
    throughput,
    open_loop,
    languages,
    frameworks,
    recovery,
    replicas,
    selection,
    decision_log,
    footprint,
    encryption,
    grpc_query,
    binary_query,
    record_query,
    client_query,
    compiled,
)
ROWS: list[Row] = [row for part in PARTS for row in part.ROWS]
RESULTS = Path(__file__).parent / "results"
log = logging.getLogger(__name__)

VERDICTS = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: ""}

Measured = list[tuple[Row, Outcome]]


def main(names: list[str]) -> int:
    console = Console()
    parts = {part.__name__.rpartition(".")[2]: {row.name for row in part.ROWS} for part in PARTS}
    unknown = sorted(set(names) - parts.keys() - {row.name for row in ROWS})
    if unknown:
        console.print(f"No row {', '.join(unknown)}. There are: {' '.join(row.name for row in ROWS)}")
        console.print(f"Or all rows of a part: {' '.join(parts)}")
        return 2
    wanted = set(names).union(*(parts.get(name, ()) for name in names))
    measured = measure([row for row in ROWS if not names or row.name in wanted], console)
    console.print(as_table(measured))
    path = save(measured, whole=not names)
    console.print(f"All numbers: {path.relative_to(Path.cwd())}")
    return int(any(outcome.passed is False for _, outcome in measured))


def measure(rows: list[Row], console: Console) -> Measured:
    measured: Measured = []
    with Workbench() as bench:
        for number, row in enumerate(rows, 1):
            with console.status(f"{number} of {len(rows)}: {row.what}"):
                outcome = _outcome(row, bench)
            measured.append((row, outcome))
            console.print(
                f"{row.name}: {outcome.value} (floor {row.floor}) {VERDICTS[outcome.passed]}", highlight=False
            )
    return measured


def _outcome(row: Row, bench: Workbench) -> Outcome:
    """What the row measures; a row that cannot be measured has failed, and takes no other with it."""
    try:
        return row.measure(bench)
    except Exception as error:
        log.exception("%s cannot be measured", row.name)
        return Outcome(f"not measured: {type(error).__name__}", False, {})


def as_table(measured: Measured) -> Table:
    table = Table(
        "row", "floor", "measured", "", title="× is times the yardstick unless benchmarks/README.md says else"
    )
    for row, outcome in measured:
        table.add_row(row.name, row.floor, outcome.value, VERDICTS[outcome.passed])
    return table


def save(measured: Measured, *, whole: bool) -> Path:
    """Write all numbers; a run of all rows is also the new ``latest.json``."""
    now = datetime.now(UTC)
    document = {
        "at": now.isoformat(timespec="seconds"),
        "machine": facts(),
        "settings": {
            "rounds": ROUNDS,
            "round_s": ROUND_S,
            "turns": TURNS,
            "turn_s": TURN_S,
            "warm_up_s": WARM_UP_S,
            "slo_ms": SLO_MS,
        },
        "rows": {
            row.name: {
                "what": row.what,
                "floor": row.floor,
                "measured": outcome.value,
                "passed": outcome.passed,
                "numbers": outcome.numbers,
            }
            for row, outcome in measured
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    for target in [path, RESULTS / "latest.json"] if whole else [path]:
        target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main(sys.argv[1:]))
