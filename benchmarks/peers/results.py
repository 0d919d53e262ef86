"""What a run has measured, as a table for each task."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.peers.rounds import Open, Round, middle

OPEN_HEAD = "open loop: in time, p99 ms, CPU µs; Clipper's in time, p99 ms, and CPU over it"
# The table of a task stands between these lines of the page.
BEGIN, END = "<!-- the last run of {} -->", "<!-- its end -->"


class Pair(msgspec.Struct, frozen=True):
    """A peer, and Clipper beside it in the same rounds: by how many connections asked."""

    peer: dict[str, list[Round]]
    clipper: dict[str, list[Round]]


class OpenPair(msgspec.Struct, frozen=True):
    """A peer, and Clipper after it, at the same rate of queries that do not wait."""

    peer: Open
    clipper: Open


class Side(msgspec.Struct, frozen=True):
    """A peer on a task.

    Attributes:
        settings: its variables.
        started_s: from its start to its first right answer.
        memory_mb: of all its processes, after the load.
        opened: at shares of the most that it answered, as far as so many can be sent.
        problem: why it was not measured.
    """

    version: str
    settings: dict[str, str]
    started_s: float = 0.0
    memory_mb: float = 0.0
    pair: Pair | None = None
    opened: list[OpenPair] = []
    problem: str = ""


class Results(msgspec.Struct, frozen=True):
    machine: dict[str, object]
    rounds: int
    seconds: int
    tasks: dict[str, dict[str, Side]]


def version_of(python: Path, package: str) -> str:
    """The version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def save(results: Results, folder: Path) -> None:
    """Put the tables into the page, each in the place of the one before; those of other tasks stay."""
    page = folder / "README.md"
    text = page.read_text()
    for task, table in tables(results).items():
        before, begin, rest = text.partition(BEGIN.format(task))
        text = f"{before}{begin}\n{table}\n{END}{rest.partition(END)[2]}"
    page.write_text(text)


def tables(results: Results) -> dict[str, str]:
    """The table of each task."""
    about = f"{results.rounds} rounds of {results.seconds} s; {machine_of(results.machine)}."
    return {task: f"### {task}\n\n{about}\n\n{_table(sides)}\n" for task, sides in results.tasks.items()}


def machine_of(machine: Mapping[str, object]) -> str:
    return f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']}, {machine['wrk']}"


def _table(sides: Mapping[str, Side]) -> str:
    measured = [side.pair for side in sides.values() if side.pair is not None]
    connections = list(measured[0].peer) if measured else []
    heads = [f"{number}: requests/s, p99 ms, CPU µs; Clipper's requests/s and CPU over it" for number in connections]
    heads = ["peer", *heads, OPEN_HEAD, "start s", "MB", "failed"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, side in sides.items():
        called = f"{name} {side.version}"
        if side.pair is None:
            lines.append(_row([called, side.problem, *[""] * (len(heads) - 2)]))
            continue
        cells = [_cell(side.pair.peer[number], side.pair.clipper[number]) for number in connections]
        opened = "<br>".join(map(_open_cell, side.opened))
        failed = sum(each.failed for rounds in side.pair.peer.values() for each in rounds)
        lines.append(_row([called, *cells, opened, f"{side.started_s:.1f}", f"{side.memory_mb:.0f}", str(failed)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(peer: Sequence[Round], clipper: Sequence[Round]) -> str:
    its = middle(peer)
    faster = [ours.per_s / theirs.per_s for ours, theirs in zip(clipper, peer)]
    dearer = [ours.cpu_us / theirs.cpu_us for ours, theirs in zip(clipper, peer)]
    span = f"{median(faster):.2f} ({min(faster):.2f}-{max(faster):.2f})"
    return f"{its.per_s:,.0f}, {its.p99_ms:.1f}, {its.cpu_us:.0f}; **{span}**, {median(dearer):.2f}"


def _open_cell(pair: OpenPair) -> str:
    its, ours = pair.peer, pair.clipper
    dearer = f"{ours.cpu_us / its.cpu_us:.2f}" if its.in_time and ours.in_time else "-"
    theirs = f"{its.in_time:.1%}, {_ms(its.p99_ms)}, {its.cpu_us:.0f}"
    return f"{its.rate_per_s:,.0f}/s: {theirs}; **{ours.in_time:.1%}**, {_ms(ours.p99_ms)}, {dearer}"


def _ms(latency_ms: float | None) -> str:
    return "not answered" if latency_ms is None else f"{latency_ms:.1f}"
