"""Goodput over offered load, a panel a profile: the scheduler, the best rule for each load, and some rules alone."""

from pathlib import Path

from benchmarks.batching.cells import Cell, measure_ours, measure_rule
from benchmarks.batching.profiles import profiles
from benchmarks.harness.pictures import common_legend, panels, save

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
COLUMNS = 2


def draw(cells: list[Cell], path: Path) -> None:
    picture, parts = panels(len(SHOWN), columns=COLUMNS, panel_inches=2.2, share_x=True)
    for axes, name in zip(parts, SHOWN):
        mine = sorted((cell for cell in cells if cell.profile == name), key=lambda cell: cell.load)
        cap_per_s = profiles()[name].cap_per_s()
        loads = [cell.load for cell in mine]

        def answered(shares: list[float], loads: list[float] = loads, cap_per_s: float = cap_per_s) -> list[float]:
            return [share * load * cap_per_s for share, load in zip(shares, loads)]

        axes.plot(loads, answered([1.0] * len(loads)), color="0.8", linewidth=1, label="all that comes")
        for rule, colour in RULES.items():
            shares = [cell.rules[rule] if rule in cell.rules else measure_rule(name, cell.load, rule) for cell in mine]
            axes.plot(loads, answered(shares), colour, linewidth=1, label=rule.split(",")[0])
        axes.plot(loads, answered([cell.best for cell in mine]), "0.4", linestyle="--", label="best tuned rule")
        ours = [measure_ours(name, load) for load in loads]
        axes.plot(loads, answered(ours), "C0", linewidth=2, label="goodput (ours)")
        axes.set_title(name, fontsize=10)
        axes.set_ylim(0, 1.15 * max(answered([cell.best for cell in mine]) + answered(ours)))
    for axes in parts[-COLUMNS:]:
        axes.set_xlabel("offered load / capacity")
    for axes in parts[::COLUMNS]:
        axes.set_ylabel("in time, queries/s")
    common_legend(picture, parts[0], 3)
    save(picture, path)
