"""What a run has measured, as a file, as a table and as a picture."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
from matplotlib.figure import Figure

from benchmarks.peers.rounds import Open, Round, middle

# The table stands between these lines of the page.
BEGIN, END = "<!-- the table of the last run -->", "<!-- its end -->"


class Pair(msgspec.Struct, frozen=True):
    """A peer, and Clipper beside it in the same rounds: by how many connections asked."""

    peer: dict[str, list[Round]]
    clipper: dict[str, list[Round]]


class Side(msgspec.Struct, frozen=True):
    """A peer on a task.

    Attributes:
        settings: its variables.
        started_s: from its start to its first right answer.
        memory_mb: of all its processes, after the load.
        opened: at half of the most that it answered, and at nine tenths, as far as that can be sent.
        problem: why it was not measured.
    """

    version: str
    settings: dict[str, str]
    started_s: float = 0.0
    memory_mb: float = 0.0
    pair: Pair | None = None
    opened: list[Open] = []
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
    """Put the table into the page, and draw the picture."""
    page = folder / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}")
    draw(results, folder / "peers.svg")


def tables(results: Results) -> str:
    parts = [f"{results.rounds} rounds of {results.seconds} s; {machine_of(results.machine)}."]
    for task, sides in results.tasks.items():
        parts.append(f"### {task}\n\n{_table(sides)}")
    return "\n\n".join(parts) + "\n"


def machine_of(machine: Mapping[str, object]) -> str:
    return f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']}, {machine['wrk']}"


def _table(sides: Mapping[str, Side]) -> str:
    measured = [side.pair for side in sides.values() if side.pair is not None]
    connections = list(measured[0].peer) if measured else []
    heads = [f"{number}: requests/s, p99 ms, CPU µs; Clipper's requests/s and CPU over it" for number in connections]
    heads = ["peer", *heads, "open loop at 0.5 and 0.9 of its most: in time, p99 ms", "start s", "MB", "failed"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, side in sides.items():
        called = f"{name} {side.version}"
        if side.pair is None:
            lines.append(_row([called, side.problem, *[""] * (len(heads) - 2)]))
            continue
        cells = [_cell(side.pair.peer[number], side.pair.clipper[number]) for number in connections]
        opened = "; ".join(f"{each.rate_per_s:,.0f}/s: {each.in_time:.1%}, {_ms(each.p99_ms)}" for each in side.opened)
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


def _ms(latency_ms: float | None) -> str:
    return "not answered" if latency_ms is None else f"{latency_ms:.1f}"


def draw(results: Results, path: Path) -> None:
    """Clipper's requests/s over each peer's, by connections; a panel for each task."""
    picture = Figure(figsize=(5 * len(results.tasks), 4), layout="tight")
    for axes, (task, sides) in zip(picture.subplots(1, len(results.tasks), squeeze=False)[0], results.tasks.items()):
        pairs = {name: side.pair for name, side in sides.items() if side.pair is not None}
        for place, pair in enumerate(pairs.values()):
            for number, (connections, rounds) in enumerate(pair.peer.items()):
                ratios = [ours.per_s / theirs.per_s for ours, theirs in zip(pair.clipper[connections], rounds)]
                label = f"{connections} connections" if place == 0 else None
                axes.plot([median(ratios)], [place], f"C{number}o", label=label)
                axes.plot([min(ratios), max(ratios)], [place, place], f"C{number}-", linewidth=1)
        axes.set_yticks(range(len(pairs)), pairs)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.axvline(1, color="grey", linewidth=0.5)
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("Clipper's requests/s over the peer's")
        if pairs:
            axes.legend(fontsize=7)
    picture.savefig(path, metadata={"Date": None})
