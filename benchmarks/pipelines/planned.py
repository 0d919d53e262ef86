"""``python -m benchmarks.pipelines.planned``: whether a pipeline keeps its SLO with the replicas of ``clipper plan``.

The chain of slept models is loaded until its times are known, planned for twice what one replica of each step can do,
scaled as the plan says, and asked in bursts: the gaps between queries vary as in the plan's simulation.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import servers
from benchmarks.harness.load import post
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.learning.open_feedback import Clients
from benchmarks.pipelines.__main__ import FLOOD_S
from benchmarks.pipelines.results import PLANNED, Planned, read, write_results
from benchmarks.pipelines.shapes import SLEPT
from benchmarks.pipelines.split import capacity_per_s
from clipper.cli.capacity.search import VARIATION
from clipper.cli.capacity.simulation import arrivals

APPLICATION = "planned"
# Longer than any answer takes.
PATIENCE_S = 5.0


GOOD = "in time"


async def ask_in_bursts(address: tuple[str, int], per_s: float, seconds: float, slo_s: float) -> Counter[str]:
    """Return how many queries got the pipeline's answer within the SLO, from when they were due, and how others ended.

    Prints how late this client asked at worst, and each second in which it lost more than a tenth of its queries.
    """
    clients, chance, ends = Clients(*address, PATIENCE_S), random.Random(5), Counter[str]()
    by_second: dict[int, Counter[str]] = {}
    latest_s = 0.0

    async def ask(due_s: float) -> None:
        end = await end_of(due_s)
        ends[end] += 1
        by_second.setdefault(int(due_s - began_s), Counter())[end] += 1

    async def end_of(due_s: float) -> str:
        body = json.dumps({"input": [chance.random() for _ in range(4)]}).encode()
        try:
            status, answer = await clients.ask(post(f"/{APPLICATION}/predict", body))
        except OSError as error:
            return type(error).__name__
        if status != 200:
            return f"{status}"
        if time.perf_counter() - due_s > slo_s:
            return "late"
        found = json.loads(answer)
        return str(found["default_reason"]) if found["default"] else GOOD

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for after_s in arrivals(per_s, seconds, VARIATION, random.Random(6)):
            await asyncio.sleep(began_s + after_s - time.perf_counter())
            latest_s = max(latest_s, time.perf_counter() - began_s - after_s)
            tasks.create_task(ask(began_s + after_s))
    clients.close()
    print(f"asked {1e3 * latest_s:.0f} ms late at worst; {dict(ends)}")
    for second, found in sorted(by_second.items()):
        if found[GOOD] < 0.9 * found.total():
            print(f"second {second}: {dict(found)}")
    return ends


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines.planned", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--save", action="store_true", help="write planned.json and the page")
    arguments = parser.parse_args()
    end_in_order_at_sigterm()
    shape = SLEPT["chain"]
    assert shape.steps is not None
    able = capacity_per_s(shape.steps, shape.slo_ms / 1e3)
    with servers.clipper() as server, TemporaryDirectory(prefix="clipper-planned-") as folder:
        path = Path(folder) / "clipper.yaml"
        path.write_text(json.dumps(shape.manifest(APPLICATION, Path(folder))))
        server.run("apply", str(path))
        for load in (0.25, 0.5, 1.0):
            server.load(APPLICATION, able * load, FLOOD_S)
        plan = server.run("plan", APPLICATION, "--rate", f"{2 * able:.0f}")
        print(json.dumps(plan), flush=True)
        for step in plan["steps"]:
            server.run("model", "scale", step["model"], str(step["replicas"]))
        server.load(APPLICATION, able, FLOOD_S)
        ends = asyncio.run(
            ask_in_bursts(server.query_address(), plan["rate_per_s"], arguments.seconds, shape.slo_ms / 1e3)
        )
    found = Planned(
        per_s=plan["rate_per_s"],
        slo_ms=shape.slo_ms,
        seconds=arguments.seconds,
        replicas={step["step"]: step["replicas"] for step in plan["steps"]},
        promised=plan["in_time"],
        in_time=ends[GOOD] / max(ends.total(), 1),
    )
    print(found, flush=True)
    if arguments.save:
        PLANNED.write_text(json.dumps({name: getattr(found, name) for name in found.__struct_fields__}) + "\n")
        write_results(read())
    return 0 if found.in_time >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
