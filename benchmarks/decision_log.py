"""The row on what the decision log costs."""

from statistics import median

from benchmarks.languages import cpu_s
from benchmarks.outcome import Outcome, Row
from benchmarks.workbench import FOUR, WARM_UP_S, Workbench, median_ratio

CONNECTIONS = 32
# What it adds may be told from what rounds differ by.
ROUNDS = 9
SECONDS = 3


def measure(bench: Workbench) -> Outcome:
    """One application, whose queries are logged in every second round: all of them, chosen among five models."""
    application = bench.sums("exp3", 5)
    (worker,) = bench.server.run("status")["workers"]

    def cpu_us(rate: float) -> float:
        bench.server.run("app", "update", application, "--log-decisions", f"{rate:g}")
        before_s = cpu_s(worker["pid"])
        load = bench.serve(application, FOUR, connections=CONNECTIONS, seconds=SECONDS).load
        return (cpu_s(worker["pid"]) - before_s) / load.requests * 1e6

    bench.serve(application, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S)
    logged, unlogged = bench.compare(lambda: cpu_us(1), lambda: cpu_us(0), rounds=ROUNDS)
    added = median_ratio(logged, unlogged) - 1
    numbers = {"logged_cpu_us": logged, "unlogged_cpu_us": unlogged, "added": added}
    return Outcome(f"{added:+.1%}, {median(logged):.1f} us", added <= 0.03, numbers)


ROWS = [Row("decision_log", "CPU of a query that is logged, over one that is not", "≤ +3 %", measure)]
