"""The processor time of a query in a worker that serves one model, and in one that serves many, in turns."""

import asyncio
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.harness import servers, wrk
from benchmarks.harness.workbench import FOUR, TURN_S
from benchmarks.scale.fleet import INPUT_TYPE, Size, await_path, model_name, process
from clipper.control.address import UnixAddress
from clipper.control.client import Connections
from clipper.control.messages import Apply
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, ReplicaAddress, Snapshot, VersionSnapshot
from clipper.settings.application import Link, Selection

WARM_UP_QUERIES = 20_000
APPLY_WITHIN_S = 120.0


def snapshot(size: Size) -> Snapshot:
    each = size.replicas // size.models
    names = [model_name(number) for number in range(size.models)]
    return Snapshot(
        1,
        tuple(
            ApplicationSnapshot(
                f"app-{number}", INPUT_TYPE, 200.0, "0", Selection("single"), (Link(name),), id=f"app-{number}#1"
            )
            for number, name in enumerate(names)
        ),
        tuple(
            ModelSnapshot(
                name,
                "1",
                (
                    VersionSnapshot(
                        "1",
                        INPUT_TYPE,
                        replicas=tuple(
                            ReplicaAddress(f"{name}:1#{index}.g1", "unix:stub", f"{name}:1") for index in range(each)
                        ),
                    ),
                ),
            )
            for name in names
        ),
    )


def query_us(sizes: tuple[Size, Size], rounds: int) -> list[tuple[float, float]]:
    """Microseconds of a query in each round, by size."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as place:
        sides = []
        for number, size in enumerate(sizes):
            folder = Path(place) / str(number)
            folder.mkdir()
            host, port = folder / "host.sock", servers.free_port()
            pid = stack.enter_context(process(folder, "hosts", host))
            await_path(host)
            config = {
                "index": 0,
                "instance": 1,
                "host": "127.0.0.1",
                "port": port,
                "control": str(folder / "control.sock"),
                "store": f"sqlite:{folder / 'selection.sqlite3'}",
                "settle_timeout_s": APPLY_WITHIN_S,
            }
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(host))
                line.sendall(msgspec.json.encode(config) + b"\n")
                await_path(folder / "control.sock")
                control = UnixAddress(str(config["control"]))
                asyncio.run(Connections().ask(control, Apply(snapshot(size)), APPLY_WITHIN_S))
            sides.append((pid, f"http://127.0.0.1:{port}/app-0/predict"))
        for _, url in sides:
            asked = 0
            while asked < WARM_UP_QUERIES:
                asked += wrk.run(url, FOUR, connections=32, seconds=TURN_S).requests
        found = []
        for turn in range(rounds):
            ordered = sides if turn % 2 == 0 else sides[::-1]
            measured = [_query_us(*side) for side in ordered]
            one, many = measured if turn % 2 == 0 else measured[::-1]
            found.append((one, many))
        return found


def _query_us(pid: int, url: str) -> float:
    before_ns = servers.processor_ns(pid)
    load = wrk.run(url, FOUR, connections=32, seconds=TURN_S)
    return (servers.processor_ns(pid) - before_ns) / load.requests / 1e3
