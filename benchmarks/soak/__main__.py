"""``python -m benchmarks.soak --minutes 10``: run a server under all that happens to one, and see whether it grows."""

import argparse
import asyncio
import itertools
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import uvloop

from benchmarks.harness.at_start import at_start
from benchmarks.harness.load import Answer, LoadClient
from benchmarks.harness.servers import ClipperServer, CommandFailed, clipper_command, free_port
from benchmarks.soak.acts import WORKERS, Actor
from benchmarks.soak.by_grpc import NAME as BY_GRPC
from benchmarks.soak.by_grpc import RpcSender
from benchmarks.soak.facts import Facts
from benchmarks.soak.filling import fill
from benchmarks.soak.flatness import rate_per_s
from benchmarks.soak.picture import draw
from benchmarks.soak.processes import Sampler
from benchmarks.soak.streams import streams
from benchmarks.soak.verdict import judge, most_waited, rows
from benchmarks.soak.visitors import come_and_go, never_read
from clipper import Clipper
from clipper.cli.load.sender import Target

RESULTS = Path(__file__).parents[1] / "results"
# As fast as it answers, for so long, and then what it left behind has to go.
SATURATED_S = 8.0
SETTLE_S = 2.0
WATCH_EVERY_S = 60.0
IN_FLIGHT = 24
# Shorter runs are over before what is killed is back.
LEAST_MINUTES = 1.0
# In an hour there are 120 small acts, in ten minutes 75.
ACTS_EVERY_S, LEAST_EVERY_S = 30.0, 8.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="queries a second; half of what it can answer if left out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.minutes < LEAST_MINUTES or (arguments.rate is not None and arguments.rate <= 0):
        parser.error(f"expected at least {LEAST_MINUTES:g} minutes, and a rate above 0")
    # Whoever ends it is not to be left with a server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipper-soak-")))
        server = ClipperServer(folder / "home")
        stack.callback(_stop, server)
        grpc_port = free_port()
        actor = Actor(server, folder, (free_port(), free_port(), grpc_port))
        stack.enter_context(at_start(clipper_command(), "in_use", str(folder)))
        actor.prepare()
        facts = uvloop.run(_soak(server, folder, actor, grpc_port, arguments.minutes * 60, arguments.rate))
    found = judge(facts)
    arguments.results.mkdir(parents=True, exist_ok=True)
    document = {**msgspec.to_builtins(facts), "judged": msgspec.to_builtins(list(rows(facts))), "found": found}
    (arguments.results / "soak.json").write_bytes(msgspec.json.encode(document))
    draw(facts.lives, facts.disk, arguments.results / "soak.svg")
    _tell(facts, found)
    return 1 if found else 0


async def _soak(
    server: ClipperServer, folder: Path, actor: Actor, grpc_port: int, duration_s: float, asked_per_s: float | None
) -> Facts:
    host, port = server.query_address()
    saturation_per_s = await _saturation_per_s(host, port)
    rate = rate_per_s(saturation_per_s, asked_per_s)
    if rate <= 0:
        raise SystemExit("the server answered nothing from a model as fast as it was asked: look at its logs")
    print(f"{saturation_per_s:.0f} queries/s at most; {rate:.0f} are asked for {duration_s / 60:g} minutes", flush=True)
    await fill(host, port, WORKERS, "first")
    await asyncio.sleep(SETTLE_S)
    asked = streams(f"{host}:{port}")
    senders = [stream.sender(Target(host, port), rate, duration_s) for stream in asked]
    for sender in senders:
        await sender.connect()
    stop, began_s = threading.Event(), time.monotonic()
    by_grpc = RpcSender(f"{host}:{grpc_port}", "steady", rate, duration_s)
    sampler = Sampler(server, folder, grpc_port, began_s, duration_s)
    every_s = min(ACTS_EVERY_S, max(LEAST_EVERY_S, duration_s / 120))
    # Waits for the server's commands and for files do not hold up the load.
    threads = [asyncio.to_thread(sampler.run, stop), asyncio.to_thread(actor.run, stop, began_s, duration_s, every_s)]
    visits = [asyncio.create_task(visit(host, port)) for visit in (come_and_go, never_read)]
    visits.append(asyncio.create_task(_watch(sampler)))
    beside = asyncio.gather(*threads)
    try:
        await asyncio.gather(*(sender.run(began_s) for sender in senders), by_grpc.run(began_s))
    finally:
        stop.set()
        for task in visits:
            task.cancel()
        await beside
    with Clipper.connect(home=server.home) as clipper:
        problems = clipper.status().problems
    return Facts(
        duration_s=duration_s,
        saturation_per_s=saturation_per_s,
        rate_per_s=rate,
        asked=(
            *(stream.tally.facts(stream.name, actor.worker_kills_s) for stream in asked),
            by_grpc.tally.facts(BY_GRPC, actor.worker_kills_s),
        ),
        acts=tuple(actor.done),
        lives=tuple(sampler.lives.values()),
        disk=tuple(sampler.disk),
        problems=problems,
    )


async def _watch(sampler: Sampler) -> None:
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        print(sampler.line(), flush=True)


async def _saturation_per_s(host: str, port: int) -> float:
    """What is answered a second of the same mix if as many ask as can be answered, each again once it is."""
    mix = streams(f"{host}:{port}")
    numbers = itertools.count()
    answered = 0

    def ask() -> tuple[None, bytes]:
        (stream,) = random.choices(mix, [each.share for each in mix])
        return None, stream.requests.of(next(numbers))

    def count(answer: Answer[None]) -> None:
        nonlocal answered
        answered += answer.status == 200 and b'"default":true' not in answer.body

    await LoadClient[None](host, port, IN_FLIGHT, ask, count).run_for(SATURATED_S)
    return answered / SATURATED_S


def _tell(facts: Facts, found: list[str]) -> None:
    for stream in facts.asked:
        print(f"{stream.name}: {stream.offered} asked, p99 {stream.p99_ms:.1f} ms, {stream.late} late; {stream.ends}")
    for row in rows(facts):
        print(
            f"{row.name}: {row.resident.level / 1e6:.1f} MB {row.resident.per_hour / 1e6:+.2f}/h, "
            f"{row.descriptors.level:.0f} descriptors {row.descriptors.per_hour:+.1f}/h"
        )
        if row.blocks.level:
            print(
                f"  in use: {row.blocks.level:.0f} blocks of Python's {row.blocks.per_hour:+.0f}/h, "
                f"{row.malloc.level / 1e6:.1f} MB of malloc's {row.malloc.per_hour / 1e6:+.2f}/h"
            )
    print(f"workers waited for a processor for up to {most_waited(facts):.0%} of the time between two samples")
    print("\n".join(found) or "It held: nothing grew, nothing was lost.")


def _stop(server: ClipperServer) -> None:
    with suppress(CommandFailed):  # it may not have started: what that said is on its way up already
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
