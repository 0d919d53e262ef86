"""``python -m benchmarks.peers [PEER ...]``: measure other servers, each beside Clipper by alternating rounds."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness.machine import facts
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.wrk import WrkFailed, run
from benchmarks.peers.processes import proportional_mb
from benchmarks.peers.results import OpenPair, Pair, Results, Side, save, tables, version_of
from benchmarks.peers.rounds import alternate, middle, open_loop
from benchmarks.peers.running import PeerFailed, running
from benchmarks.peers.table import PEERS, Peer
from benchmarks.peers.tasks import TASKS, Task
from clipper.errors import ContainerFailed
from scripts.real_models import environment

HERE = Path(__file__).parent
# Whom the others are measured beside.
OURS = "clipper"
CONNECTIONS = (1, 32, 128)
# Of the most that a server has answered in closed loop.
OPEN_LOADS = (0.5, 0.9)
OPEN_S = 8.0
# At more, what sends takes more than half a processor from the server, and its own delays are measured.
MAX_OPEN_PER_S = 20_000.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {' '.join(PEERS)}; all if left out")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3, help="of a round")
    parser.add_argument("--connections", nargs="+", type=int, default=list(CONNECTIONS))
    parser.add_argument(
        "--loads", nargs="+", type=float, default=list(OPEN_LOADS), help="of the open loop, in shares of a peer's most"
    )
    parser.add_argument("--save", action="store_true", help="put the tables into the page")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.peers) - PEERS.keys()):
        parser.error(f"no peer {', '.join(unknown)}; there are {' '.join(PEERS)}")
    results = Results(facts(), arguments.rounds, arguments.seconds, {})
    for task in arguments.tasks:
        sides = results.tasks[task] = {}
        for name in [name for name in arguments.peers or PEERS if task in PEERS[name].tasks]:
            sides[name] = measure(name, PEERS, TASKS[task], arguments)
            print(f"{task}, {name}: {sides[name].problem or 'measured'}", flush=True)
    print("\n\n".join(tables(results).values()))
    if arguments.save:
        save(results, HERE)
    return int(any(side.problem for sides in results.tasks.values() for side in sides.values()))


def measure(name: str, peers: Mapping[str, Peer], task: Task, arguments: argparse.Namespace) -> Side:
    """Measure a peer beside Clipper; Clipper itself beside another of its kind, which tells how even the rounds are."""
    peer = peers[name]
    side = Side("", peer.settings_of(task.name))
    try:
        python = Path(sys.executable) if peer.environment is None else environment(f"peers/{peer.environment}")
        side = Side(version_of(python, peer.package), side.settings)
        with ExitStack() as stack:
            theirs = stack.enter_context(running(name, peer, task))
            ours = stack.enter_context(running(OURS, peers[OURS], task))
            for server in (theirs, ours):
                warm_up_s = int(server.peer.warm_up_s)
                run(server.url, HERE / "requests.lua", connections=32, seconds=warm_up_s, bodies=server.requests)
            pair = Pair({}, {})
            for number in arguments.connections:
                its, clippers = alternate([theirs, ours], number, arguments.rounds, arguments.seconds)
                pair.peer[str(number)], pair.clipper[str(number)] = its, clippers
            most_per_s = max(middle(each).per_s for each in pair.peer.values())
            rates = [most_per_s * load for load in arguments.loads if most_per_s * load <= MAX_OPEN_PER_S]
            opened = [
                OpenPair(*[open_loop(server, rate, OPEN_S, task.slo_ms) for server in (theirs, ours)]) for rate in rates
            ]
            memory_mb = proportional_mb(theirs.processes())
        return Side(side.version, side.settings, theirs.started_s, memory_mb, pair, opened)
    except (PeerFailed, WrkFailed, ContainerFailed) as error:
        print(error, file=sys.stderr)
        return Side(side.version, side.settings, problem=str(error).partition("\n")[0])


if __name__ == "__main__":
    end_in_order_at_sigterm()
    sys.exit(main())
