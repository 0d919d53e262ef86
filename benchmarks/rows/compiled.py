"""Rows on what the compiled form saves a query worker: processor time, in alternating rounds."""

import subprocess
from pathlib import Path
from statistics import median

from benchmarks.harness import pairs, servers
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, HERE, PIXELS, Workbench, median_ratio

PAIRS = 4
MOST = 0.8


def compiled_over_pure(name: str, script: Path, what: str) -> Row:
    def measure(bench: Workbench) -> Outcome:
        commands = (servers.clipper_command(), compiled_command())
        rounds = pairs.query_us(commands, {name: pairs.Case(script)}, PAIRS)[name]
        pure, compiled = (list(column) for column in zip(*rounds))
        ratio = median_ratio(compiled, pure)
        value = f"{median(pure):.1f} to {median(compiled):.1f} µs, {ratio:.2f} ×"
        return Outcome(value, ratio <= MOST, {"pure_us": pure, "compiled_us": compiled, "ratio": ratio})

    return Row(name, f"worker's processor time for a query: compiled over pure, {what}", f"≤ {MOST:.2f} ×", measure)


def compiled_command() -> str:
    """The ``clipper`` of an environment in which this source is compiled; it is made if it is not there."""
    made = subprocess.run(["sh", HERE.parent / "scripts/compiled.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return f"{made.stdout.strip()}/bin/clipper"


ROWS = [
    compiled_over_pure("compiled_sum4", FOUR, "sum of 4 floats"),
    compiled_over_pure("compiled_sum784", PIXELS, "sum of 784 floats"),
]
