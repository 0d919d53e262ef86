"""Regret by stream, a panel each: our policies as they are, and the best setting of each family."""

from pathlib import Path

from benchmarks.harness.pictures import common_legend, logarithmic, panels, save
from benchmarks.regret.features import DIMENSIONS, FEATURE_STREAMS
from benchmarks.regret.results import BLIND, BY_FEATURES, Results
from benchmarks.regret.streams import SIZES, STREAMS

DOCS = Path(__file__).parents[2] / "docs"
PICTURE, BY_FEATURES_PICTURE = DOCS / "regret.svg", DOCS / "regret-features.svg"
COLOURS = {"adaptive": "C0", "thompson": "C1", "ucb1": "C2", "epsilon_greedy": "C3", "exp3": "C4"}


def draw(results: Results, path: Path) -> None:
    picture, rows = panels(len(STREAMS))
    for axes, stream in zip(rows, STREAMS):
        for policy, colour in COLOURS.items():
            ours, *others = results[policy]
            best = min(others, key=lambda result: result.sum)
            axes.plot(SIZES, [ours.regret[stream][str(size)] for size in SIZES], f"{colour}-o", label=policy)
            if policy != "adaptive":
                axes.plot(SIZES, [best.regret[stream][str(size)] for size in SIZES], f"{colour}:", label="best setting")
        axes.set_title(stream)
        axes.set_ylabel("regret after 20,000 queries")
        axes.set_xticks(SIZES)
        axes.set_ylim(bottom=0)
    rows[-1].set_xlabel("models")
    common_legend(picture, rows[0], 3)
    save(picture, path)


def draw_by_features(results: Results, path: Path) -> None:
    """Bars of policies that go by features, of the best setting of each one's textbook family, and of some without."""
    picture, rows = panels(len(FEATURE_STREAMS))
    bars = [(policy, results[policy][0]) for policy in BY_FEATURES]
    bars += [
        (f"best of {policy}'s family", min(results[policy][1:], key=lambda each: each.sum)) for policy in BY_FEATURES
    ]
    bars += [(f"{result.name}, no features", result) for result in results[BLIND]]
    for axes, stream in zip(rows, FEATURE_STREAMS):
        for number, (name, result) in enumerate(bars):
            places = [group * (len(bars) + 1) + number for group in range(len(DIMENSIONS))]
            heights = [result.regret[stream][str(size)] for size in DIMENSIONS]
            axes.bar(places, heights, width=1.0, color=f"C{number}", label=name)
        middle = (len(bars) - 1) / 2
        axes.set_xticks([group * (len(bars) + 1) + middle for group in range(len(DIMENSIONS))], DIMENSIONS)
        axes.set_title(stream)
        logarithmic(axes)
        axes.set_ylim(10, 10_000)
        axes.set_ylabel("regret after 20,000 queries")
    rows[-1].set_xlabel("features")
    common_legend(picture, rows[0], 2)
    save(picture, path)
