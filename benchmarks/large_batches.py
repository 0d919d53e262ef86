"""``python -m benchmarks.large_batches``: processor time of a batch of 64 pictures, of a worker's link and a container.

``--against FOLDER`` measures the source of another checkout in turn. Both sides' processor time counts, so that other
load of the machine matters little.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from clipper.model.protocol.batches import make_encoder
from clipper.values.types import InputType, ModelId
from clipper.worker.link import ReplicaLink

ROOT = Path(__file__).parent.parent
PICTURE = "float32[3,224,224]"
PICTURES = 64
# The first batches take new memory.
WARM_UP = 3
MODEL = "def corner(inputs): return inputs[:, 0, 0, 0]\n"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Answers:
    """A link's listener that waits for one answer after another."""

    def __init__(self) -> None:
        self.linked, self.answered = asyncio.Event(), asyncio.Event()

    def on_linked(self, welcome: object) -> None:
        self.linked.set()

    def on_told(self, welcome: object) -> None: ...

    def on_ask(self, ask_id: int, body: object) -> None: ...

    def on_results(self, batch_id: int, results: object) -> bool:
        self.answered.set()
        return True

    def on_error(self, batch_id: int, message: str) -> bool:
        raise AssertionError(message)

    def on_lost(self, reason: str) -> None:
        sys.exit(f"the container is gone: {reason}")


def of_process_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def batch_ms(address: str, container: int, batches: int) -> dict[str, float]:
    """Send batches one after another; return the mean milliseconds of both sides."""
    answers = Answers()
    link = ReplicaLink(ModelId("m", "1"), make_encoder(InputType.parse(PICTURE)), address, "", answers)
    link.open()
    await answers.linked.wait()
    pictures = np.random.default_rng(0).random((PICTURES, 3, 224, 224), np.float32)
    rows = [each.tobytes() for each in pictures]
    for batch_id in range(WARM_UP + batches):
        if batch_id == WARM_UP:
            begun = time.process_time(), of_process_s(container)
        answers.answered.clear()
        link.send(batch_id, rows)
        await answers.answered.wait()
    ended = time.process_time(), of_process_s(container)
    link.close()
    worker_ms, container_ms = (1000 * (end - begin) / batches for begin, end in zip(begun, ended))
    return {"worker": worker_ms, "container": container_ms}


def measured(batches: int) -> dict[str, float]:
    """Measure with the source that this process has imported."""
    with tempfile.TemporaryDirectory(prefix="clipper-") as folder:
        (Path(folder) / "code").mkdir()
        (Path(folder) / "code" / "served.py").write_text(MODEL)
        path = Path(folder) / "c.sock"
        command = [sys.executable, "-m", "clipper.model.runtime", "--listen", f"unix:{path}", "--model", "m"]
        command += ["--version", "1", "--artifact", folder, "--loader", "import", "--target", "served:corner"]
        with subprocess.Popen([*command, "--input-type", PICTURE], stderr=subprocess.DEVNULL) as container:
            try:
                while not path.exists() and container.poll() is None:
                    time.sleep(0.05)
                return asyncio.run(batch_ms(f"unix:{path}", container.pid, batches))
            finally:
                container.terminate()


def in_turn(folders: list[Path], rounds: int, batches: int) -> None:
    found: dict[Path, list[dict[str, float]]] = {folder: [] for folder in folders}
    for _ in range(rounds):
        for folder, times in found.items():
            command = [sys.executable, str(Path(__file__)), "--once", "--batches", str(batches)]
            environ = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
            times.append(json.loads(subprocess.run(command, env=environ, capture_output=True, check=True).stdout))
    print("| source | worker, ms | container, ms | both, ms: median | each round |\n|---|---|---|---|---|")
    for folder, times in found.items():
        sums = [sum(each.values()) for each in times]
        worker, container = (median(each[side] for each in times) for side in ("worker", "container"))
        each_round = " ".join(f"{one:.1f}" for one in sums)
        print(f"| {folder} | {worker:.1f} | {container:.1f} | {median(sums):.1f} | {each_round} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_batches", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="in a round (20)")
    parser.add_argument("--once", action="store_true", help="measure this process's source, and print JSON")
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(measured(asked.batches)))
    else:
        in_turn([each.resolve() for each in (asked.against, ROOT) if each is not None], asked.rounds, asked.batches)
