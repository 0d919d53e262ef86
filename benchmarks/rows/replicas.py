"""The row on replicas of which one is five times slower. Their cost is slept, so that processors do not decide."""

from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, ROUNDS, SLO_MS, WARM_UP_S, Workbench

# Two batches for each replica, and some more that wait.
CONNECTIONS = 64
LEAST_SHARE = 0.9


def unequal_replicas(bench: Workbench) -> Outcome:
    names = [deploy(bench, name, replicas, has_slow) for name, replicas, has_slow in SIDES]
    for name in names:
        bench.serve(name, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S)
    sides = [[bench.serve(name, FOUR, connections=CONNECTIONS).outputs_per_s for name in names] for _ in range(ROUNDS)]
    shares = sorted(both / (fast + slow) for fast, slow, both in sides)
    share = shares[len(shares) // 2]
    fast_per_s, slow_per_s, both_per_s = zip(*sides)
    limits = [replica["batch_limit"] for replica in bench.server.run("replica", "list") if replica["model"] == names[2]]
    numbers = {
        "fast_per_s": fast_per_s,
        "slow_per_s": slow_per_s,
        "both_per_s": both_per_s,
        "share": share,
        "batch_limits": limits,
    }
    return Outcome(f"{share:.2f} × the sum, batches up to {limits}", share >= LEAST_SHARE, numbers)


# Name, how many replicas, and whether one of them is slow.
SIDES = (("fast-alone", 1, False), ("slow-alone", 1, True), ("fast-and-slow", 2, True))


def deploy(bench: Workbench, name: str, replicas: int, has_slow: bool) -> str:
    mark, data = bench.folder / f"{name}-is-slow", bench.folder / f"{name}.txt"
    data.write_text(str(mark))
    if not has_slow:
        mark.touch()
    options = ("--data", str(data), "--input-type", "doubles", "--replicas", str(replicas))
    bench.server.deploy(name, "unequal:Unequal", *options, slo_ms=SLO_MS)
    return name


ROWS = [
    Row(
        "unequal_replicas",
        "two replicas, one five times slower: over the sum of both alone",
        f"≥ {LEAST_SHARE} ×",
        unequal_replicas,
    )
]
