"""Goodput over offered load, a panel a profile: the scheduler, the best rule for each load, and some rules alone."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.batching.cells import Cell, measure_ours
from benchmarks.batching.profiles import profiles

SHOWN = (
    "40ms",
    "450ms",
    "10ms",
    "3ms",
    "40ms noisy",
    "3ms 4 replicas",
    "40ms unequal replicas",
    "40ms bursts",
    "3ms two SLOs",
    "3ms 3 x slower",
    "slow rows, 20 ms",
    "texts",
)
RULES = {"eager, margin 1.0": "C1", "aimd": "C2", "quantile": "C3", "aimd_damped": "C4", "quantile_refit": "C5"}
COLUMNS = 4


def draw(cells: list[Cell], path: Path) -> None:
    picture = Figure(figsize=(13, 8.5), layout="tight")
    panels = picture.subplots(len(SHOWN) // COLUMNS, COLUMNS, sharex=True)
    for axes, name in zip(panels.flat, SHOWN):
        mine = sorted((cell for cell in cells if cell.profile == name), key=lambda cell: cell.load)
        cap_per_s = profiles()[name].cap_per_s()
        loads = [cell.load for cell in mine]

        def answered(shares: list[float], loads: list[float] = loads, cap_per_s: float = cap_per_s) -> list[float]:
            return [share * load * cap_per_s for share, load in zip(shares, loads)]

        axes.plot(loads, answered([1.0] * len(loads)), color="0.8", linewidth=1, label="all that comes")
        for rule, colour in RULES.items():
            axes.plot(
                loads, answered([cell.rules[rule] for cell in mine]), colour, linewidth=1, label=rule.split(",")[0]
            )
        axes.plot(loads, answered([cell.best for cell in mine]), "0.4", linestyle="--", label="best tuned rule")
        ours = [measure_ours(name, load) for load in loads]
        axes.plot(loads, answered(ours), "C0", linewidth=2, label="goodput (ours)")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1.15 * max(answered([cell.best for cell in mine])))
    for axes in panels[-1]:
        axes.set_xlabel("offered load / capacity")
    for row in panels:
        row[0].set_ylabel("in time, queries/s")
    panels[0][0].legend(fontsize=7, loc="lower right")
    picture.savefig(path, metadata={"Date": None})
