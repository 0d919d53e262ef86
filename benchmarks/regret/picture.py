"""Regret by stream, a panel each: our policies as they are, and the best setting of each family."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.regret.features import DIMENSIONS, FEATURE_STREAMS
from benchmarks.regret.results import BLIND, BY_FEATURES, Results
from benchmarks.regret.streams import SIZES, STREAMS

DOCS = Path(__file__).parents[2] / "docs"
PICTURE, BY_FEATURES_PICTURE = DOCS / "regret.svg", DOCS / "regret-features.svg"
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


def draw_by_features(results: Results, path: Path) -> None:
    """Bars of policies that go by features, of the best setting of each one's textbook family, and of some without."""
    picture = Figure(figsize=(13, 3.8), layout="constrained")
    panels = picture.subplots(1, len(FEATURE_STREAMS), sharey=True)
    bars = [(policy, results[policy][0]) for policy in BY_FEATURES]
    bars += [
        (f"best of {policy}'s family", min(results[policy][1:], key=lambda each: each.sum)) for policy in BY_FEATURES
    ]
    bars += [(f"{result.name}, no features", result) for result in results[BLIND]]
    for axes, stream in zip(panels, FEATURE_STREAMS):
        for number, (name, result) in enumerate(bars):
            places = [group * (len(bars) + 1) + number for group in range(len(DIMENSIONS))]
            heights = [result.regret[stream][str(size)] for size in DIMENSIONS]
            axes.bar(places, heights, width=1.0, color=f"C{number}", label=name)
        middle = (len(bars) - 1) / 2
        axes.set_xticks([group * (len(bars) + 1) + middle for group in range(len(DIMENSIONS))], DIMENSIONS)
        axes.set_xlabel("features")
        axes.set_title(stream, fontsize=10)
    panels[0].set_yscale("log")
    panels[0].set_ylim(10, 10_000)
    panels[0].set_ylabel("regret after 20,000 queries")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(bars), fontsize=7)
    picture.savefig(path, metadata={"Date": None})
