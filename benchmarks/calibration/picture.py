"""Reliability diagrams, a panel for each application: how often answers were right by how sure they were."""

from pathlib import Path

from benchmarks.calibration.results import Results
from benchmarks.harness.pictures import panels, save

PICTURE = Path(__file__).parents[2] / "docs" / "calibration.svg"
# Of answers as sure as few are, chance alone shows.
LEAST_ANSWERS = 30


def draw(results: Results, path: Path) -> None:
    picture, rows = panels(len(results))
    for axes, (name, found) in zip(rows, results.items()):
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        for label, reliability, style in (("raw", found.raw, "C1-o"), ("calibrated", found.calibrated, "C0-o")):
            shown = [each for each in reliability.bins if each.answers >= LEAST_ANSWERS]
            axes.plot(
                [each.confidence for each in shown],
                [each.right for each in shown],
                style,
                markersize=4,
                label=f"{label}, error {reliability.error:.3f}",
            )
        axes.set_title(name)
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("share that was right")
        axes.legend(fontsize=9, loc="upper left")
    save(picture, path)
