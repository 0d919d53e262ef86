"""``python -m benchmarks.peers.rpc``: gRPC and REST of Clipper, PyTriton and MLServer, in one run.

All three run side by side, and are loaded in turn, round by round. Prints requests a second and the processor time of
all processes of a server for a request, and Clipper's over the others'. ``--save`` puts the table into README.md.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.harness.machine import facts
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.peers.processes import cpu_s
from benchmarks.peers.results import machine_of
from benchmarks.peers.rounds import closed, taken_s_of
from benchmarks.peers.running import Running, running
from benchmarks.peers.table import PEERS
from benchmarks.peers.tasks import TASKS

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- the table of make peers-rpc -->", "<!-- its end, too -->"
# REST is in bytes, but for MLServer, which takes JSON alone. The port for gRPC is open.
SIDES = {
    name: replace(PEERS[of], settings={**PEERS[of].settings, "GRPC": "1"})
    for name, of in {"clipper": "clipper-binary", "pytriton": "pytriton-binary", "mlserver": "mlserver"}.items()
}
WAYS = ("gRPC", "REST")
WIDTHS = {"sum": 4, "svm": 784}
WARM_UP_S = 3


class Reached(NamedTuple):
    """What a server reached in a round. ``cpu_us``: user and system time of all its processes, for a request."""

    per_s: float
    cpu_us: float


Rounds = Mapping[str, Mapping[str, Sequence[Reached]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers-rpc", description=__doc__)
    parser.add_argument("--task", choices=WIDTHS, default="svm")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=3, help="of a round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--save", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    measured = measure(arguments.task, arguments.rounds, arguments.seconds, arguments.connections)
    text = (
        f"{TASKS[arguments.task].what}, {arguments.connections} connections, {arguments.rounds} rounds of "
        f"{arguments.seconds} s; {machine_of(facts())}.\n\n{table(measured)}"
    )
    print(text)
    if arguments.save:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")
    return 0


def measure(task: str, rounds: int, seconds: int, connections: int) -> Rounds:
    """Start all servers and load them in turn; every other round begins with the last.

    Raises:
        PeerFailed, subprocess.CalledProcessError: one does not answer, or not rightly.
    """
    measured: dict[str, dict[str, list[Reached]]] = {name: {way: [] for way in WAYS} for name in SIDES}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(name, peer, TASKS[task])) for name, peer in SIDES.items()}
        names = list(servers)
        for number in range(rounds + 1):
            for name in names if number % 2 else names[::-1]:
                by_rpc = _by_rpc(servers[name], connections, seconds if number else WARM_UP_S, WIDTHS[task])
                load = closed(servers[name], connections, seconds if number else WARM_UP_S)
                if number:  # the first round warms up
                    measured[name]["gRPC"].append(by_rpc)
                    measured[name]["REST"].append(Reached(load.per_s, load.cpu_us))
    return measured


def _by_rpc(server: Running, connections: int, seconds: int, width: int) -> Reached:
    address = f"127.0.0.1:{server.second_port}"
    command = [
        sys.executable,
        "-m",
        "benchmarks.rows.grpc_load",
        address,
        str(connections),
        str(seconds),
        "m",
        str(width),
    ]
    before = cpu_s(server.processes())
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60 + seconds)
    taken_s = taken_s_of(before, cpu_s(server.processes()))
    answered = int(done.stdout)
    return Reached(answered / seconds, taken_s / answered * 1e6)


def table(measured: Rounds) -> str:
    """The medians of the rounds, and the median, least and most of Clipper's processor time over the others'."""
    ways = list(next(iter(measured.values())))
    heads = [f"{way}: requests/s, CPU µs; Clipper's CPU over it" for way in ways]
    lines = [f"| server | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, rounds in measured.items():
        cells = []
        for way in ways:
            reached = rounds[way]
            cell = f"{median(each.per_s for each in reached):,.0f}, {median(each.cpu_us for each in reached):.0f}"
            if name != "clipper":
                over = [ours.cpu_us / its.cpu_us for ours, its in zip(measured["clipper"][way], reached)]
                cell += f"; **{median(over):.2f}** ({min(over):.2f}-{max(over):.2f})"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
