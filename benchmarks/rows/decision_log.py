"""The row on what the decision log costs."""

from statistics import median

from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, WARM_UP_S, Workbench, median_ratio
from benchmarks.rows.languages import cpu_s

CONNECTIONS = 32
# With so many rounds, its cost may be told from their spread.
ROUNDS = 9
SECONDS = 3


def measure(bench: Workbench) -> Outcome:
    """One application, whose queries are logged in every second round: all of them, chosen among five models.

    The worker makes and writes the log. What it costs of the throughput is its share of what all of Clipper's
    processes take for a query: on a machine that is full they share the processors.
    """
    application = bench.sums("exp3", 5)
    worker = bench.server.process_ids()[1]
    everything = [*bench.server.process_ids(), *(each["pid"] for each in bench.server.run("replica", "list"))]

    def cpu_us(rate: float) -> tuple[float, float]:
        """Of a query: the worker's, and that of all processes."""
        bench.server.run("app", "update", application, "--log-decisions", f"{rate:g}")
        before_s, worker_before_s = sum(map(cpu_s, everything)), cpu_s(worker)
        load = bench.serve(application, FOUR, connections=CONNECTIONS, seconds=SECONDS).load
        after_s = sum(map(cpu_s, everything))
        return (cpu_s(worker) - worker_before_s) / load.requests * 1e6, (after_s - before_s) / load.requests * 1e6

    bench.serve(application, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S)
    rounds = [(cpu_us(1), cpu_us(0)) for _ in range(ROUNDS)]
    (logged, all_logged), (unlogged, all_unlogged) = (zip(*side) for side in zip(*rounds))
    of_worker, of_all = median_ratio(logged, unlogged) - 1, median_ratio(all_logged, all_unlogged) - 1
    numbers = {
        "logged_us": logged,
        "unlogged_us": unlogged,
        "logged_all_us": all_logged,
        "unlogged_all_us": all_unlogged,
        "added": of_all,
        "added_of_worker": of_worker,
    }
    value = f"{of_all:+.1%} of {median(all_unlogged):.1f} us, {of_worker:+.1%} of the worker's {median(unlogged):.1f}"
    return Outcome(value, of_all <= 0.03, numbers)


ROWS = [Row("decision_log", "CPU of a query that is logged, over one that is not, of all processes", "≤ +3 %", measure)]
