"""What changes and the supervisor take, by the number of models."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.pictures import panels, save
from benchmarks.scale.measured import Measured


def draw(measured: Sequence[Measured], path: Path) -> None:
    models = [one.models for one in measured]
    picture, [changes, processor, memory] = panels(3)
    changes.plot(models, [one.create_s[0] * 1e3 for one in measured], "C0-o", label="new application")
    changes.plot(models, [one.deploy_s[0] * 1e3 for one in measured], "C1-o", label="new version of five replicas")
    changes.plot(models, [one.deploy_s[1] * 1e3 for one in measured], "C1:", label="the longest of ten")
    changes.set_ylabel("until all workers serve it, ms")
    processor.plot(models, [one.rest_cores for one in measured], "C0-o", label="nothing changes")
    processor.plot(models, [one.busy_cores for one in measured], "C1-o", label="one deployment after another")
    processor.set_ylabel("supervisor, processors")
    memory.plot(models, [one.memory_bytes / 1e6 for one in measured], "C0-o", label="supervisor")
    memory.set_ylabel("memory, MB")
    for axes in (changes, processor, memory):
        axes.set_xscale("log")
        axes.set_xticks(models, [f"{one:,}" for one in models])
        axes.minorticks_off()
        axes.set_xlabel("models, of five replicas each")
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.legend(fontsize=9)
    save(picture, path)
