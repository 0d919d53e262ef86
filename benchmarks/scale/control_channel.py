"""``python -m benchmarks.scale.control_channel``: what telling a worker something takes, over a unix socket and TLS.

The worker's end is a process of its own, on uvloop as a worker is, and answers at once: what it takes a worker to apply
what it is told is the same either way. Told are the difference of a promotion, some 1 KB, and a snapshot of 1.6 MB.
Last, a promotion is told to 64 workers at once, which share that process.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import uvloop

from clipper.base.tls.mutual import make_contexts
from clipper.control.address import ControlAddress, TcpAddress, UnixAddress, parse_address
from clipper.control.authority import Authority, make_authority
from clipper.control.client import Connections
from clipper.control.difference import EPOCH_BITS, Difference
from clipper.control.identity import IdentityFile, PeerName, Secured, write_identity
from clipper.control.messages import AnyCommand, AnyReply, Applied, Apply, ApplyDifference, encode
from clipper.control.server import ControlServer
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, ReplicaAddress, Snapshot, VersionSnapshot

EPOCH, WORKER = 3, PeerName("worker", 7)
GENERATION = (EPOCH << EPOCH_BITS) + 1
# Rounds of both in turn, so that a machine that changes its speed changes it for both.
ROUNDS = 7
WORKERS = 64
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class End:
    """How the worker is dialled. ``keeps``: on a connection that is kept, as supervisors do."""

    address: ControlAddress
    secured: Secured | None = None
    keeps: bool = False


def promotion() -> ApplyDifference:
    """A version of five replicas becomes current."""
    replicas = tuple(ReplicaAddress(f"m:2#{number}.g9", f"unix:/run/clipper/c{number}.sock") for number in range(5))
    versions = tuple(VersionSnapshot(name, "float64[784]", replicas=replicas) for name in ("1", "2"))
    return ApplyDifference(Difference(GENERATION, GENERATION, models=(ModelSnapshot("m", "2", versions),)))


def whole() -> Apply:
    applications = tuple(ApplicationSnapshot(f"application-{number}", "float64[784]", 20.0) for number in range(3500))
    return Apply(Snapshot(GENERATION, applications))


async def serve(addresses: Sequence[ControlAddress], identity: IdentityFile | None) -> None:
    async def answer(_: AnyCommand) -> AnyReply:
        return Applied(GENERATION, {}, ())

    for address in addresses:
        await ControlServer(answer).listen(address, identity)
    print("listens", flush=True)
    await asyncio.get_running_loop().create_future()


def processor_s(pid: int) -> float:
    """User and system time of a process, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def push(end: "End", command: Apply | ApplyDifference, times: int) -> None:
    message, kept = encode(command), Connections()
    for _ in range(times):
        await kept.ask(end.address, command, 10, message, end.secured)
        if not end.keeps:
            kept.close()
    kept.close()


async def push_to_all(ends: Sequence[End], times: int) -> list[float]:
    """Tell all at once, several times; return how long each time took until the last had answered, in seconds."""
    command, kept, loop, taken = promotion(), Connections(), asyncio.get_running_loop(), []
    for _ in range(times):
        began_s = loop.time()
        await asyncio.gather(*(kept.ask(end.address, command, 10, secured=end.secured) for end in ends))
        taken.append(loop.time() - began_s)
    kept.close()
    return taken


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale.control_channel")
    parser.add_argument("--listen", nargs="+", help="be the worker, or several, at these addresses")
    parser.add_argument("--identity", type=Path)
    parser.add_argument("--times", type=int, default=200, help="pushes in each round")
    arguments = parser.parse_args()
    if arguments.listen:
        identity = IdentityFile(arguments.identity) if arguments.identity else None
        uvloop.run(serve([parse_address(text) for text in arguments.listen], identity))
        return
    with tempfile.TemporaryDirectory() as folder:
        now, path = datetime.now(UTC), Path(folder) / "identity.pem"
        authority = Authority(make_authority(now))
        write_identity(path, authority.issue(WORKER, now))
        context = make_contexts(authority.issue(PeerName("supervisor", EPOCH), now)).dialling
        secured = Secured(context, WORKER)
        new, kept, *many = [TcpAddress("127.0.0.1", port) for port in free_ports(2 + WORKERS)]
        ends = {
            "unix": [End(UnixAddress(f"{folder}/w.sock"))],
            "TLS, kept": [End(kept, secured, keeps=True)],
            "TLS, new": [End(new, secured)],
            "all": [End(address, secured) for address in many],
        }
        workers = {}
        try:
            for name, of in ends.items():
                options = ["--listen", *(str(end.address) for end in of)]
                options += ["--identity", str(path)] if of[0].secured else []
                command = [sys.executable, "-m", "benchmarks.scale.control_channel", *options]
                workers[name] = subprocess.Popen(command, stdout=subprocess.PIPE)
                assert workers[name].stdout.readline() == b"listens\n"  # type: ignore[union-attr]
            measure({name: of[0] for name, of in ends.items() if name != "all"}, workers, arguments.times)
            first_s, *later_s = asyncio.run(push_to_all(ends["all"], 20))
            print(
                f"promotion to {WORKERS} workers: {first_s * 1e3:.0f} ms at first, then {median(later_s) * 1e3:.0f} ms"
            )
        finally:
            for worker in workers.values():
                worker.kill()
                worker.wait()


def measure(ends: dict[str, End], workers: "dict[str, subprocess.Popen[bytes]]", times: int) -> None:
    print("microseconds of processor time for each push: of the supervisor, of the worker")
    for what, command, count in (("promotion", promotion(), times), ("whole snapshot", whole(), max(1, times // 10))):
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ends}
        for _ in range(ROUNDS):
            for name, end in ends.items():
                began_s, worker_s = time.process_time(), processor_s(workers[name].pid)
                asyncio.run(push(end, command, count))
                own_s = time.process_time() - began_s
                taken[name].append((own_s / count * 1e6, (processor_s(workers[name].pid) - worker_s) / count * 1e6))
        for name, rounds in taken.items():
            own_us, worker_us = (median(values) for values in zip(*rounds))
            print(f"{what:15} {len(encode(command)):8} bytes  {name:9} {own_us:7.0f} {worker_us:7.0f}", flush=True)


if __name__ == "__main__":
    main()
