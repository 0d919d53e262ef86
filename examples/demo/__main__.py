"""Clipper in a minute: two models of real digits, one rollback, one killed replica, and no query without an answer.

Exits 0 only if everything that it shows has held.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.harness.servers import clipper
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.training import train
from examples.demo.story import Story
from examples.demo.verdict import judge

MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: " "}


def main() -> int:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="clipper-demo-") as folder, console.status("Training on 4,000 digits"):
        svm, forest = train_both(Path(folder))
        console.print("Trained a linear SVM and a random forest on 4,000 real MNIST digits.")
        with clipper() as server:
            traffic, lost = uvloop.run(Story(server, console).tell(svm, forest))
    findings = judge(traffic, lost)
    for finding in findings:
        console.print(f"{MARKS[finding.held]} {finding.text}", highlight=False)
    return int(any(finding.held is False for finding in findings))


def train_both(folder: Path) -> tuple[Path, Path]:
    with ThreadPoolExecutor(2) as pool:
        svm, forest = pool.map(lambda name: train(name, folder), ["linear_svm", "random_forest"])
    return svm, forest


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
