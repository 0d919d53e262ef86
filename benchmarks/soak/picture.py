"""What each process took over a soak, in three panels."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.soak.facts import Disk, Life

# Lives of fewer samples are the versions that came and went: they have one colour.
_LEAST_SAMPLES = 30


def draw(lives: Sequence[Life], disk: Sequence[Disk], path: Path) -> None:
    picture = Figure(figsize=(11, 9), layout="tight")
    resident, descriptors, files = picture.subplots(3, 1, sharex=True)
    for life in lives:
        minutes = [each.at_s / 60 for each in life.taken]
        is_short = len(life.taken) < _LEAST_SAMPLES
        look = {"color": "0.7", "linewidth": 0.8} if is_short else {"linewidth": 1.2, "label": life.name}
        resident.plot(minutes, [each.rss / 1e6 for each in life.taken], **look)
        descriptors.plot(minutes, [each.descriptors for each in life.taken], **look)
    minutes = [each.at_s / 60 for each in disk]
    files.plot(minutes, [each.logs / 1e6 for each in disk], label="logs")
    files.plot(minutes, [each.rest / 1e6 for each in disk], label="all else")
    for axes, name in ((resident, "resident, MB"), (descriptors, "descriptors"), (files, "home on disk, MB")):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    files.set_xlabel("minutes")
    picture.savefig(path, metadata={"Date": None})
