"""What each process took over a soak, in three panels, one below the other."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.pictures import common_legend, panels, save
from benchmarks.soak.facts import Disk, Life

# Lives of fewer samples are the versions that came and went: they have one colour.
_LEAST_SAMPLES = 30
_SHORT = {"color": "0.7", "linewidth": 0.8}


def draw(lives: Sequence[Life], disk: Sequence[Disk], path: Path) -> None:
    picture, [resident, descriptors, files] = panels(3, panel_inches=3.7, share_x=True)
    starts: Counter[str] = Counter()
    for life in lives:
        minutes = [each.at_s / 60 for each in life.taken]
        starts[life.name] += 1
        label = life.name if starts[life.name] == 1 else f"{life.name}, start {starts[life.name]}"
        look = _SHORT if len(life.taken) < _LEAST_SAMPLES else {"linewidth": 1.2, "label": label}
        resident.plot(minutes, [each.rss / 1e6 for each in life.taken], **look)
        descriptors.plot(minutes, [each.descriptors for each in life.taken], **look)
    resident.plot([], [], label="lived under five minutes", **_SHORT)
    minutes = [each.at_s / 60 for each in disk]
    files.plot(minutes, [each.logs / 1e6 for each in disk], label="logs and the store's journal")
    files.plot(minutes, [each.rest / 1e6 for each in disk], label="all else")
    for axes, name in ((resident, "resident memory, MB"), (descriptors, "descriptors"), (files, "home on disk, MB")):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
    common_legend(picture, resident, 3)
    files.legend(loc="lower right")
    files.set_xlabel("minutes")
    save(picture, path)
