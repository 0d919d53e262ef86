"""Regret by stream, a panel each: our policies as they are, and the best setting of each family."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.regret.results import Results
from benchmarks.regret.streams import SIZES, STREAMS

PICTURE = Path(__file__).parents[2] / "docs" / "regret.svg"
COLOURS = {"adaptive": "C0", "thompson": "C1", "ucb1": "C2", "epsilon_greedy": "C3", "exp3": "C4"}


def draw(results: Results, path: Path) -> None:
    picture = Figure(figsize=(13, 3.6), layout="tight")
    for axes, stream in zip(picture.subplots(1, len(STREAMS)), STREAMS):
        for policy, colour in COLOURS.items():
            ours, *others = results[policy]
            best = min(others, key=lambda result: result.sum)
            axes.plot(SIZES, [ours.regret[stream][str(size)] for size in SIZES], f"{colour}-o", label=policy)
            if policy != "adaptive":
                axes.plot(SIZES, [best.regret[stream][str(size)] for size in SIZES], f"{colour}:", label="best setting")
        axes.set_title(stream, fontsize=10)
        axes.set_xlabel("models")
        axes.set_xticks(SIZES)
        axes.set_ylim(bottom=0)
    picture.axes[0].set_ylabel("regret after 20,000 queries")
    picture.axes[0].legend(fontsize=6)
    picture.savefig(path, metadata={"Date": None})
