"""Rows on models in other languages: the same sum in C++ and Java as in Python, behind the same worker.

At saturation the worker and the load take most of the machine, so requests/s alone would tell little: what a model's
own process costs is told by its CPU time an output.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, ROUNDS, SLO_MS, Workbench, median_ratio

SDK = Path(__file__).parents[2] / "sdk"
CONNECTIONS = 32
# Java compiles what it runs in its first seconds, in the same process.
WARM_UP_S = 10
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """One round on one application. ``cpu_us`` is of the model's process, an output."""

    outputs_per_s: float
    cpu_us: float


def over_python(language: str) -> Row:
    def measure(bench: Workbench) -> Outcome:
        python = bench.application("sum")
        other = deploy(bench, language)
        for application in (python, other):
            bench.serve(application, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S)
        rounds = [(cost(bench, other), cost(bench, python)) for _ in range(ROUNDS)]
        ours, theirs = zip(*rounds)
        rate = median_ratio([each.outputs_per_s for each in ours], [each.outputs_per_s for each in theirs])
        cpu = median(mine.cpu_us / its.cpu_us for mine, its in rounds)
        numbers = {"ratio": rate, "cpu_ratio": cpu, language: described(ours), "python": described(theirs)}
        # The rates are the worker's where the model is this cheap, and a ratio of equal ones is good to 20 %.
        return Outcome(f"{rate:.2f} ×, {cpu:.2f} × CPU", rate >= 0.8 and cpu <= 1.0, numbers)

    return Row(f"sum_{language}", f"the sum in {language}, over Python's", "≥ 0.8 ×, ≤ 1 × CPU", measure)


def deploy(bench: Workbench, language: str) -> str:
    name = f"sum-{language}"
    bench.server.deploy(name, str(BUILDS[language](bench.folder)), "--language", "binary", slo_ms=SLO_MS)
    return name


def cost(bench: Workbench, application: str) -> Cost:
    [pid] = [each["pid"] for each in bench.server.run("replica", "list") if each["model"] == application]
    before_s = cpu_s(pid)
    served = bench.serve(application, FOUR, connections=CONNECTIONS)
    outputs = served.load.requests * (1 - served.default_share)
    return Cost(served.outputs_per_s, (cpu_s(pid) - before_s) / outputs * 1e6)


def cpu_s(pid: int) -> float:
    """CPU time that a process has taken, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def described(rounds: tuple[Cost, ...]) -> dict[str, list[float]]:
    return {
        "outputs_per_s": [round(each.outputs_per_s, 1) for each in rounds],
        "cpu_us": [round(each.cpu_us, 2) for each in rounds],
    }


def build_cpp(folder: Path) -> Path:
    program = folder / "sum_container"
    source = SDK / "cpp" / "example" / "sum.cpp"
    flags = ("-std=c++17", "-O2", "-pthread", f"-I{SDK / 'cpp'}")
    subprocess.run(("g++", *flags, str(source), "-o", str(program)), check=True)
    return program


def build_java(folder: Path) -> Path:
    subprocess.run((str(SDK / "java" / "build.sh"), str(folder)), check=True)
    return folder / "sum.jar"


BUILDS = {"cpp": build_cpp, "java": build_java}
ROWS = [over_python(language) for language in BUILDS]
